# verify, bench, generate and what they stand on: the plain reference, the sampler, the ceilings.

# A program of the small hand-written transformer; variants as in torch_reference.py, weights 0 fp32,
# 1 bf16, 2 int8.
function(toy2_program name variant weights threads)
    add_executable(${name} toy2_model.c)
    target_compile_definitions(${name} PRIVATE TOY_VARIANT=${variant} TOY_WEIGHTS=${weights}
        TOY_THREADS=${threads})
    target_link_libraries(${name} PRIVATE archc_flags archrt)
endfunction()

foreach(variant 0 1 2)
    foreach(weights 0 1 2)
        set(name toy2_${variant}${weights})
        math(EXPR threads "(${variant} + ${weights}) % 3 + 1")
        toy2_program(${name} ${variant} ${weights} ${threads})
        add_test(NAME runtime.verify_${name} COMMAND ${name} verify)
        set_tests_properties(runtime.verify_${name} PROPERTIES TIMEOUT 120)
    endforeach()
    # In fp32, on the threads that toy2_model.c has by itself.
    add_library(toy2_model_${variant} OBJECT toy2_model.c)
    target_compile_definitions(toy2_model_${variant} PUBLIC TOY_VARIANT=${variant})
    target_link_libraries(toy2_model_${variant} PRIVATE archc_flags archrt)
    foreach(test verify_reference verify_torch)
        add_executable(${test}_${variant} ${test}.c)
        target_link_libraries(${test}_${variant} PRIVATE archc_flags archrt toy2_model_${variant})
        add_test(NAME runtime.${test}_${variant} COMMAND ${test}_${variant})
        set_tests_properties(runtime.${test}_${variant} PROPERTIES TIMEOUT 120)
    endforeach()
endforeach()

add_executable(sample_test sample_test.c)
target_link_libraries(sample_test PRIVATE archc_flags archrt)
add_test(NAME runtime.sample_test COMMAND sample_test)
set_tests_properties(runtime.sample_test PROPERTIES TIMEOUT 60)

foreach(script verify_plants verify_bench sample_generate)
    add_test(NAME runtime.${script} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/${script}.sh
        $<TARGET_FILE:toy2_10> $<TARGET_FILE:toy2_22>)
    set_tests_properties(runtime.${script} PROPERTIES TIMEOUT 200)
endforeach()
