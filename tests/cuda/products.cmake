# Attention and products of prefill and training. Processors: 90 multiplies with wgmma, the others with
# mma.sync; 86 has little shared memory, so other tiles.
foreach(shape 40:90 64:90 64:80 80:86 80:90 128:80 128:90 136:86 256:90)
    string(REPLACE ":" ";" shape ${shape})
    list(GET shape 0 head_dim)
    list(GET shape 1 sm)
    cuda_kernel_test(attention_${head_dim}_${sm} attention_test.c HEAD_DIM=${head_dim}
        CUDA_ARCH=${sm})
endforeach()
foreach(head_dim 40 64 80 128 256)
    cuda_kernel_test(attention_backward_${head_dim} attention_backward_test.c
        HEAD_DIM=${head_dim})
endforeach()
foreach(sm 80 90)
    cuda_kernel_test(products_${sm} products_test.c CUDA_ARCH=${sm})
    cuda_kernel_test(head_${sm} head_test.c CUDA_ARCH=${sm})
    cuda_kernel_test(head_softmax_${sm} head_softmax_test.c CUDA_ARCH=${sm})
endforeach()
