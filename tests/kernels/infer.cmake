# Inference kernels against fp64 loops: the generic build for each instruction set, with 1 to 3
# threads; two models with constants; a bf16 cache.
function(infer_test name isa)
    add_executable(infer_test_${name} ${CMAKE_CURRENT_LIST_DIR}/infer_test.c)
    # infer/shape.h stands before the shape.h of the training tests.
    target_include_directories(infer_test_${name} BEFORE
        PRIVATE ${CMAKE_CURRENT_LIST_DIR}/infer ${kernel_includes})
    target_compile_options(infer_test_${name} PRIVATE ${kernel_flags} ${kernel_isa_${isa}})
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU") # large functions: a third of the time is one pass's
        target_compile_options(infer_test_${name} PRIVATE --param=max-combine-insns=2)
    endif()
    if(ARCHC_SANITIZE) # flattened loops, instrumented, take minutes to compile
        target_compile_options(infer_test_${name} PRIVATE -O0)
    endif()
    target_compile_definitions(infer_test_${name} PRIVATE ${ARGN})
    target_link_libraries(infer_test_${name} PRIVATE archc_flags Threads::Threads m)
    add_test(NAME kernels.infer.${name} COMMAND infer_test_${name})
    set_tests_properties(kernels.infer.${name} PROPERTIES TIMEOUT 300)
endfunction()

infer_test(bf16_cache native THREADS=17 KVTYPE=1 ATTENTION_ONLY=1)
infer_test(constants_9 native THREADS=3 D_MODEL=96 HEADS=9 KV_HEADS=1 HEAD_DIM=64 D_FF=200
    VOCAB=257 CONTEXT=150)
if(NOT ARCHC_SANITIZE) # all run-time shapes take minutes there
    infer_test(native native THREADS=2)
    if("base" IN_LIST kernel_isas)
        infer_test(base base THREADS=1)
    endif()
    if("avx2" IN_LIST kernel_isas)
        infer_test(avx2 avx2 THREADS=3)
    endif()
    if("vector" IN_LIST kernel_isas)
        infer_test(vector vector THREADS=2)
    endif()
    infer_test(constants_15m native THREADS=2 D_MODEL=288 HEADS=6 KV_HEADS=6 HEAD_DIM=48 D_FF=768
        VOCAB=320 CONTEXT=100)
endif()

# Standalone: bench_decode_15m_2 [repetitions] and so on.
foreach(threads 1 2)
    foreach(model 15m 100m)
        add_executable(bench_decode_${model}_${threads} EXCLUDE_FROM_ALL
            ${PROJECT_SOURCE_DIR}/tests/bench/decode.c)
        target_include_directories(bench_decode_${model}_${threads} BEFORE
            PRIVATE ${CMAKE_CURRENT_LIST_DIR}/infer ${kernel_includes})
        target_compile_options(bench_decode_${model}_${threads} PRIVATE -O3 -march=native)
        target_link_libraries(bench_decode_${model}_${threads} PRIVATE archc_flags Threads::Threads m)
        target_compile_definitions(bench_decode_${model}_${threads} PRIVATE
            THREADS=${threads} CHUNK=512 CONTEXT=1024 VOCAB=32000)
    endforeach()
    target_compile_definitions(bench_decode_15m_${threads} PRIVATE
        LAYERS=6 D_MODEL=288 HEADS=6 KV_HEADS=6 HEAD_DIM=48 D_FF=768)
    target_compile_definitions(bench_decode_100m_${threads} PRIVATE
        LAYERS=12 D_MODEL=768 HEADS=12 KV_HEADS=12 HEAD_DIM=64 D_FF=2048)
endforeach()
