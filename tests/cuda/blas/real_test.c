/* real_test.c REAL STANDIN: the installed cuBLASLt, as far as it goes without a GPU: it loads, says
 * that it cannot start, and takes every attribute that device_blas.c sets; the stand-in takes and
 * refuses the same ones. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "../model_device.h"
#include "cublaslt.h"

const struct model_kernel model_kernels[1] = {{NULL, NULL}};
const int n_model_kernels = 0;

struct library {
#define LT_FIELD(result, field, symbol, parameters) result(*field) parameters;
    LT_FUNCTIONS(LT_FIELD)
#undef LT_FIELD
    int (*layout_set)(lt_handle, int, const void *, size_t);
    lt_handle objects[3];
};

static int failures;

static void symbol(void *library, const char *name, void *to)
{
    void *at = dlsym(library, name);
    if (!at) {
        printf("no %s\n", name);
        exit(1);
    }
    memcpy(to, &at, sizeof at);
}

static void open_library(struct library *l, const char *file)
{
    void *library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        printf("%s\n", dlerror());
        exit(1);
    }
#define LT_SYMBOL(result, field, name, parameters) symbol(library, name, &l->field);
    LT_FUNCTIONS(LT_SYMBOL)
#undef LT_SYMBOL
    symbol(library, "cublasLtMatrixLayoutSetAttribute", &l->layout_set);
    if (l->layout(&l->objects[0], LT_R_16BF, 64, 32, 64) ||
        l->matmul(&l->objects[1], LT_COMPUTE_32F, LT_R_32F) || l->preference(&l->objects[2])) {
        printf("%s: descriptors are refused\n", file);
        exit(1);
    }
}

static int set(const struct library *l, int family, int attribute, size_t bytes)
{
    static const uint64_t zero[2] = {0};
    int (*const functions[])(lt_handle, int, const void *, size_t) = {l->layout_set, l->matmul_set,
                                                                      l->preference_set};
    return functions[family](l->objects[family], attribute, zero, bytes);
}

/* Later versions have more attributes than these. */
static void compare(const struct library *real, const struct library *standin)
{
    static const int known[] = {8, 27, 13};
    static const size_t sizes[] = {0, 1, 2, 4, 8, 16};
    for (int family = 0; family < 3; family++)
        for (int attribute = 0; attribute < known[family]; attribute++)
            for (int i = 0; i < 6; i++) {
                int want = set(real, family, attribute, sizes[i]);
                int got = set(standin, family, attribute, sizes[i]);
                failures += got != want;
                if (got != want)
                    printf(
                        "family %d, attribute %d, %zu bytes: the stand-in says %d, cuBLASLt %d\n",
                        family, attribute, sizes[i], got, want);
            }
    if (real->layout(NULL, LT_R_16BF, 8, 8, 8) != standin->layout(NULL, LT_R_16BF, 8, 8, 8) ||
        real->matmul(NULL, LT_COMPUTE_32F, LT_R_32F) !=
            standin->matmul(NULL, LT_COMPUTE_32F, LT_R_32F))
        failures += printf("NULL is taken differently\n") > 0;
}

static bool has_gpu(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned), (*count)(int *), n = 0;
    if (!driver)
        return false;
    symbol(driver, "cuInit", &init);
    symbol(driver, "cuDeviceGetCount", &count);
    return init(0) == 0 && count(&n) == 0 && n > 0;
}

int main(int argc, char **argv)
{
    struct library real, standin;
    char why[160] = "";
    if (argc != 3)
        return 2;
    struct device *device = emulated_device();
    struct device_blas *blas = device_blas_open(device, why, sizeof why);
    if (has_gpu() ? !blas : blas || !strstr(why, "does not start (status 1)"))
        failures += printf("%s\n", blas ? "it starts without a GPU" : why) > 0;
    device_blas_close(blas);
    open_library(&real, argv[1]);
    open_library(&standin, argv[2]);
    compare(&real, &standin);
    printf("cuBLASLt %zu: %s; %d failures\n", real.version(), why[0] ? why : "starts", failures);
    device->api->close(device);
    return failures != 0;
}
