/* driver_abi.c - what runtime/device_cuda.c declares of the CUDA driver by hand, against cuda.h: it
 * compiles, or the numbers and layouts are wrong. Built where a toolkit's cuda.h is; those before
 * 12.0 do not know all of it. */
#define CU_STREAM_NON_BLOCKING OUR_STREAM_NON_BLOCKING /* of the same name there */
#include "device_cuda.c"
#undef CU_STREAM_NON_BLOCKING
#include <cuda.h>

#if CUDA_VERSION >= 12000

#define SAME(ours, theirs)                                                                         \
    _Static_assert((long long)(ours) == (long long)(theirs), #ours " is not " #theirs)
#define AT(type, field, their_type, their_field)                                                   \
    SAME(offsetof(struct type, field), offsetof(their_type, their_field));                         \
    SAME(sizeof(((struct type *)0)->field), sizeof(((their_type *)0)->their_field))

SAME(CU_SUCCESS, CUDA_SUCCESS);
SAME(OUR_STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
SAME(CU_EVENT_WITHOUT_TIME, CU_EVENT_DISABLE_TIMING);
SAME(CU_CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME(CU_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(CU_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(CU_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(CU_DYNAMIC_SHARED, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(CU_SHARED_PERCENT, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT);
SAME(CU_LAUNCH_CLUSTER, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
SAME(CU_LAUNCH_EARLY, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
SAME(CU_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER);
SAME(CU_LOG_BYTES, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
SAME(CU_BF16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
SAME(CU_NOT_INTERLEAVED, CU_TENSOR_MAP_INTERLEAVE_NONE);
SAME(CU_SWIZZLE_128, CU_TENSOR_MAP_SWIZZLE_128B);
SAME(CU_L2_256_BYTES, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
SAME(CU_OUTSIDE_IS_ZERO, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);

SAME(sizeof(cu_address), sizeof(CUdeviceptr));
SAME(CUDA_MAP_BYTES, sizeof(CUtensorMap));
SAME(sizeof(struct cu_launch), sizeof(CUlaunchConfig));
AT(cu_launch, grid_x, CUlaunchConfig, gridDimX);
AT(cu_launch, grid_y, CUlaunchConfig, gridDimY);
AT(cu_launch, grid_z, CUlaunchConfig, gridDimZ);
AT(cu_launch, block_x, CUlaunchConfig, blockDimX);
AT(cu_launch, block_y, CUlaunchConfig, blockDimY);
AT(cu_launch, block_z, CUlaunchConfig, blockDimZ);
AT(cu_launch, shared, CUlaunchConfig, sharedMemBytes);
AT(cu_launch, stream, CUlaunchConfig, hStream);
AT(cu_launch, attributes, CUlaunchConfig, attrs);
AT(cu_launch, n_attributes, CUlaunchConfig, numAttrs);
SAME(sizeof(struct cu_attribute), sizeof(CUlaunchAttribute));
AT(cu_attribute, id, CUlaunchAttribute, id);
AT(cu_attribute, value, CUlaunchAttribute, value);
AT(cu_attribute, value.cluster[0], CUlaunchAttribute, value.clusterDim.x);
AT(cu_attribute, value.cluster[1], CUlaunchAttribute, value.clusterDim.y);
AT(cu_attribute, value.cluster[2], CUlaunchAttribute, value.clusterDim.z);
AT(cu_attribute, value.value, CUlaunchAttribute, value.programmaticStreamSerializationAllowed);

#endif
