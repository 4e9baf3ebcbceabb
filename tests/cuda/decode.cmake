# Kernels of decode. Head sizes, and numbers of rows above 8, are numbers in every build: a program
# each.
cuda_kernel_test(decode_products decode_products_test.c)
foreach(e 40 64 72 128 256)
    cuda_kernel_test(decode_qkv_${e} decode_qkv_test.c HEAD_DIM=${e})
endforeach()
foreach(e 40 64 72 128 136 200 256)
    cuda_kernel_test(decode_attention_${e} decode_attention_test.c HEAD_DIM=${e}
        FILE_UNDER_TEST="decode_attention.cu")
endforeach()
cuda_kernel_test(skinny_attention_248 decode_attention_test.c HEAD_DIM=248
    FILE_UNDER_TEST="skinny_attention.cu")
cuda_kernel_test(skinny_qkv_13_40 decode_qkv_test.c HEAD_DIM=40 SKINNY=13)
cuda_kernel_test(skinny_qkv_70_64 decode_qkv_test.c HEAD_DIM=64 SKINNY=70)
foreach(m 9 33 72 260)
    cuda_kernel_test(skinny_products_${m} skinny_products_test.c ROWS=${m})
endforeach()
cuda_kernel_test(skinny_products_80_86 skinny_products_test.c ROWS=80 CUDA_ARCH=86)
cuda_kernel_test(decode_sample decode_sample_test.c)
target_link_libraries(cuda_decode_sample_test PRIVATE archrt)
