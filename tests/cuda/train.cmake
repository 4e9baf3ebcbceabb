# Kernels of prefill and training other than products and attention, then a layer of all of them.
cuda_kernel_test(train_rows train_rows_test.c)
cuda_kernel_test(train_sums train_sums_test.c)
foreach(head_dim 8 40 64 80 136 256)
    cuda_kernel_test(train_rope_${head_dim} train_rope_test.c HEAD_DIM=${head_dim})
endforeach()
cuda_kernel_test(train_layer train_layer_test.c)
