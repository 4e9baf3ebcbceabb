# model_b once more for each level of `recompute`, with main(): only the tables differ (model.c,
# model_cuda.c), so kernels of both sides are compiled once.
set(recompute_dir ${CMAKE_CURRENT_BINARY_DIR}/model_b)
foreach(part decode prefill train_gradients train_products train_rest)
    list(APPEND recompute_host ${recompute_dir}/${part}.c)
endforeach()
add_library(cuda_recompute_host OBJECT model_program.c model_device.c ${recompute_host}
    ${recompute_dir}/model_kernels.c)
target_link_libraries(cuda_recompute_host PUBLIC archrt cuda_emulator)
set(recompute_includes ${PROJECT_SOURCE_DIR}/codegen ${PROJECT_SOURCE_DIR}/codegen/kernels
    ${PROJECT_SOURCE_DIR}/codegen/kernels/host ${PROJECT_SOURCE_DIR}/codegen/kernels/cuda
    ${CMAKE_CURRENT_SOURCE_DIR})
set(recompute_definitions _GNU_SOURCE CUDA_SMS=6 PREDICTED_TRAIN=0 PREDICTED_PREFILL=0
    PREDICTED_DECODE=0)
target_include_directories(cuda_recompute_host PRIVATE ${recompute_dir} ${recompute_includes})
target_compile_definitions(cuda_recompute_host PRIVATE ${recompute_definitions})

foreach(level none norms mlp all)
    set(dir ${CMAKE_CURRENT_BINARY_DIR}/recompute_${level})
    set(script ${CMAKE_CURRENT_SOURCE_DIR}/recompute_emit.sh)
    add_custom_command(OUTPUT ${dir}/model.c ${dir}/model_cuda.c
        COMMAND sh ${script} $<TARGET_FILE:archc> ${CMAKE_CURRENT_SOURCE_DIR}/model_b.arch ${level}
            ${dir}
        DEPENDS archc ${script} ${CMAKE_CURRENT_SOURCE_DIR}/model_b.arch VERBATIM)
    add_executable(cuda_recompute_${level} ${dir}/model.c ${dir}/model_cuda.c)
    set_source_files_properties(${dir}/model.c PROPERTIES COMPILE_OPTIONS "-w;-march=native;-O1")
    target_include_directories(cuda_recompute_${level} PRIVATE ${dir} ${recompute_includes})
    target_compile_definitions(cuda_recompute_${level} PRIVATE ${recompute_definitions})
    target_compile_options(cuda_recompute_${level} PRIVATE -Wa,-I${dir})
    target_link_libraries(cuda_recompute_${level} PRIVATE cuda_recompute_host
        $<TARGET_OBJECTS:cuda_model_b_kernels>)
    list(APPEND recompute_programs $<TARGET_FILE:cuda_recompute_${level}>)
endforeach()
add_test(NAME cuda.verify COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/verify.sh
    $<TARGET_FILE:cuda_program_c> $<TARGET_FILE:cuda_program_a>) # cuda.bench verifies model_b
set_tests_properties(cuda.verify PROPERTIES TIMEOUT 300)
add_test(NAME cuda.recompute COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/recompute.sh
    ${recompute_programs})
set_tests_properties(cuda.recompute PROPERTIES TIMEOUT 300)
