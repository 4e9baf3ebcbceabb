# Products through cuBLASLt: a stand-in for the library in a directory of its own, which tests put in
# front of the loader's path.
set(standin_dir ${CMAKE_CURRENT_BINARY_DIR}/standin)
add_library(cublaslt_standin SHARED blas/standin.c)
target_include_directories(cublaslt_standin PRIVATE ${PROJECT_SOURCE_DIR}/runtime)
target_link_libraries(cublaslt_standin PRIVATE archc_flags m)
set_target_properties(cublaslt_standin PROPERTIES OUTPUT_NAME cublasLt SUFFIX .so.13
    LIBRARY_OUTPUT_DIRECTORY ${standin_dir} C_VISIBILITY_PRESET hidden)

add_executable(blas_products_test blas/products_test.c model_device.c)
target_link_libraries(blas_products_test PRIVATE archc_flags archrt cuda_emulator)
add_test(NAME cuda.blas_products COMMAND blas_products_test)
add_dependencies(blas_products_test cublaslt_standin)
set_tests_properties(cuda.blas_products PROPERTIES TIMEOUT 120
    ENVIRONMENT LD_LIBRARY_PATH=${standin_dir})

# The interface that we declare against NVIDIA's headers; our use of it against the real library.
find_path(CUBLASLT_INCLUDE cublasLt.h HINTS /usr/local/cuda/include)
if(CUBLASLT_INCLUDE)
    add_executable(blas_interface_test blas/interface_test.c)
    target_include_directories(blas_interface_test PRIVATE ${PROJECT_SOURCE_DIR}/runtime)
    target_include_directories(blas_interface_test SYSTEM PRIVATE ${CUBLASLT_INCLUDE})
    target_link_libraries(blas_interface_test PRIVATE archc_flags)
    add_test(NAME cuda.blas_interface COMMAND blas_interface_test)
else()
    add_test(NAME cuda.blas_interface COMMAND sh -c "echo cublasLt.h is not installed; exit 77")
endif()
find_file(CUBLASLT_LIBRARY NAMES libcublasLt.so.13 libcublasLt.so.12
    HINTS /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu)
if(CUBLASLT_LIBRARY)
    add_executable(blas_real_test blas/real_test.c model_device.c)
    target_link_libraries(blas_real_test PRIVATE archc_flags archrt cuda_emulator)
    add_test(NAME cuda.blas_real
        COMMAND blas_real_test ${CUBLASLT_LIBRARY} $<TARGET_FILE:cublaslt_standin>)
else()
    add_test(NAME cuda.blas_real COMMAND sh -c "echo libcublasLt.so is not installed; exit 77")
endif()
set_tests_properties(cuda.blas_interface cuda.blas_real PROPERTIES TIMEOUT 120 SKIP_RETURN_CODE 77)
