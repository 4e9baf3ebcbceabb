# Whole programs on the emulated GPU, against the same programs on the host.
set(model_units batch decode prefill forward backward update)
set(model_host decode prefill train_gradients train_products train_rest model)

# What a program is asked, which knows its tables alone: compiled once for all of them.
add_library(cuda_model_test OBJECT model_test.c model_training.c model_inference.c model_bench.c)
target_include_directories(cuda_model_test PRIVATE ${PROJECT_SOURCE_DIR}/codegen
    ${PROJECT_SOURCE_DIR}/codegen/kernels ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(cuda_model_test PRIVATE _GNU_SOURCE)
target_link_libraries(cuda_model_test PRIVATE archc_flags archrt cuda_emulator)

# cuda_model_test(NAME SEED [bench]): model_NAME.arch becomes a program whose device is the emulator.
function(cuda_model_test name seed)
    set(dir ${CMAKE_CURRENT_BINARY_DIR}/model_${name})
    set(script ${CMAKE_CURRENT_SOURCE_DIR}/model_emit.sh)
    set(file ${CMAKE_CURRENT_SOURCE_DIR}/model_${name}.arch)
    foreach(unit ${model_units})
        list(APPEND units ${dir}/unit_${unit}.c)
    endforeach()
    foreach(part ${model_host})
        list(APPEND host ${dir}/${part}.c)
    endforeach()
    add_custom_command(OUTPUT ${units} ${host} ${dir}/model_cuda.c ${dir}/model_kernels.c
        COMMAND sh ${script} $<TARGET_FILE:archc> ${file} ${dir}
        DEPENDS archc ${script} ${file} VERBATIM)
    set(kernels ${PROJECT_SOURCE_DIR}/codegen/kernels)

    # Few processors, so that grids are small and blocks loop.
    add_library(cuda_model_${name}_kernels OBJECT ${units})
    cuda_kernels(cuda_model_${name}_kernels CUDA_SMS=6)
    target_include_directories(cuda_model_${name}_kernels PRIVATE ${dir} ${kernels}/cuda)

    add_library(cuda_model_${name}_program OBJECT model_device.c ${host} ${dir}/model_cuda.c
        ${dir}/model_kernels.c)
    # Both directories of kernels have a kernels.def: archrt.h means the host's.
    target_include_directories(cuda_model_${name}_program PUBLIC ${dir}
        ${PROJECT_SOURCE_DIR}/codegen ${kernels} ${kernels}/host ${kernels}/cuda
        ${CMAKE_CURRENT_SOURCE_DIR})
    target_compile_definitions(cuda_model_${name}_program PUBLIC _GNU_SOURCE CUDA_SMS=6
        PREDICTED_TRAIN=0 PREDICTED_PREFILL=0 PREDICTED_DECODE=0)
    target_compile_options(cuda_model_${name}_program PRIVATE -Wa,-I${dir})
    # The side that the device is compared with: it need not be fast, and gcc takes long over it.
    set_source_files_properties(${host} PROPERTIES COMPILE_OPTIONS "-w;-march=native;-O1")
    target_link_libraries(cuda_model_${name}_program PUBLIC archrt cuda_emulator)

    add_executable(cuda_model_${name} $<TARGET_OBJECTS:cuda_model_test>)
    target_link_libraries(cuda_model_${name} PRIVATE cuda_model_${name}_program
        $<TARGET_OBJECTS:cuda_model_${name}_kernels>)
    add_test(NAME cuda.model_${name} COMMAND cuda_model_${name} ${seed} ${ARGN})
    add_test(NAME cuda.model_${name}_library COMMAND cuda_model_${name} ${seed} library ${ARGN})
    add_dependencies(cuda_model_${name} cublaslt_standin)
    set_tests_properties(cuda.model_${name} cuda.model_${name}_library PROPERTIES TIMEOUT 300)
    set_tests_properties(cuda.model_${name}_library PROPERTIES
        ENVIRONMENT LD_LIBRARY_PATH=${standin_dir})
endfunction()

cuda_model_test(a 1)
cuda_model_test(b 2 bench)
cuda_model_test(c 3)

# Two of them with their own main().
foreach(name a c)
    add_executable(cuda_program_${name} model_program.c)
    target_link_libraries(cuda_program_${name} PRIVATE cuda_model_${name}_program
        $<TARGET_OBJECTS:cuda_model_${name}_kernels>)
    add_dependencies(cuda_program_${name} cublaslt_standin)
endforeach()
add_test(NAME cuda.program COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/program.sh
    $<TARGET_FILE:cuda_program_a>)
# Products of training by the stand-in for cuBLASLt, as by the library where it loads.
set_tests_properties(cuda.program PROPERTIES TIMEOUT 300
    ENVIRONMENT LD_LIBRARY_PATH=${standin_dir})

# The command that measures, with one program (recompute.cmake) for both that it would compile.
add_test(NAME cuda.bench COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/bench.sh $<TARGET_FILE:archc>
    $<TARGET_FILE:cuda_recompute_none> ${CMAKE_CURRENT_SOURCE_DIR}/model_b.arch)
set_tests_properties(cuda.bench PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)

# Registers and spills as ptxas says; without it, that all kernels compile to PTX.
add_test(NAME cuda.ptxas COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/ptxas.sh $<TARGET_FILE:archc>
    ${CMAKE_CURRENT_SOURCE_DIR}/ptxas.expected)
set_tests_properties(cuda.ptxas PROPERTIES LABELS slow TIMEOUT 600)
