/* model_test.c - a whole program on the emulated GPU against the same program on the host: losses,
 * gradients, a few steps of training, prompts, one token after another, all slots at once.
 *
 *     model_test SEED [library] [bench]
 *
 * The run-time library, the launch tables and the kernels are those of a GPU program; only the
 * device is another, and with `library` a stand-in for cuBLASLt does the products. The host
 * computes in fp32, the device in bf16 with fp32 sums, hence the tolerances: 2^-9 an operation, a
 * few dozen operations deep. */
#include "model_check.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int failures;
struct standin_state *standin;

void must(bool ok, const struct failure *f)
{
    if (ok)
        return;
    printf("%s\n", f->text);
    exit(1);
}

void *zeros(size_t n, size_t size)
{
    return need(calloc(n ? n : 1, size));
}

void fill_params(float *params, uint64_t seed)
{
    for (int i = 0; i < host->n_tensors; i++) {
        const struct archrt_tensor *t = &host->tensors[i];
        bool embed = strcmp(t->name, "model.embed_tokens.weight") == 0;
        bool head = strcmp(t->name, "lm_head.weight") == 0 || (embed && host->arch.tied);
        double scale = t->rank == 1 ? 0.2 : (head ? 2 : 1) / sqrt((double)t->shape[1]);
        for (int64_t k = 0; k < tensor_size(t); k++) {
            uint64_t bits = mix64(seed ^ mix64(t->offset + (uint64_t)k));
            double uniform = (double)(bits >> 11) * 0x1p-52 - 1;
            params[t->offset + (size_t)k] =
                (float)((t->gain ? 1 : 0) + 1.732 * (embed && !head ? 1 : scale) * uniform);
        }
    }
}

long library_calls(enum archrt_phase_id id)
{
    const struct archrt_phase *phase = &host->cuda->phases[id];
    long n = 0;
    for (int l = 0; standin && l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_loop *loop = &phase->loops[l];
            const struct archrt_cuda_kernel *k = &host->cuda->kernels[loop->steps[i].kernel];
            n += device_blas_can(k) && !(k->flags & ARCHRT_CUDA_WITH_BIAS) ? loop->turns : 0;
        }
    return n;
}

/* ---- a library that does not start: an error where it is wanted, our own kernels otherwise ----
 */

/* Of a training session: products on top of a residual, whose depth is short in these models, are
 * our own unless the library was asked for by name. */
static void check_residuals(const struct session *s)
{
    const struct archrt_phase *phase = &s->cuda->phases[ARCHRT_PHASE_TRAIN];
    int residuals = 0, others = 0;
    for (int l = 0; l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_step *step = &phase->loops[l].steps[i];
            const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
            bool library = products_library(s, step) != NULL;
            residuals += library && k->flags & ARCHRT_CUDA_WITH_RESIDUAL;
            others += library && !(k->flags & ARCHRT_CUDA_WITH_RESIDUAL);
        }
    bool named = s->device->products == PRODUCTS_LIBRARY;
    CHECK((residuals > 0) == named && others > 0, "the library does %d residuals, %d others",
          residuals, others);
}

static void check_choice(struct device *device)
{
    struct session s;
    struct failure f;
    standin->fault = FAULT_START;
    CHECK(!session_open(&s, device, host->cuda, true, 0, &f) && f.status == STATUS_WORLD &&
              strstr(f.text, "--products library: ") && !s.device,
          "a library that does not start: %s", f.text);
    device->products = PRODUCTS_AUTO;
    must(session_open(&s, device, host->cuda, true, 0, &f), &f);
    CHECK(!products_name(&s), "products by %s", products_name(&s));
    session_close(&s);
    standin->fault = FAULT_NONE;
    for (int training = 0; training < 2; training++) {
        must(session_open(&s, device, host->cuda, training, 1, &f), &f);
        CHECK(!products_name(&s) == !training, "auto takes %s for %s",
              products_name(&s) ? "the library" : "our own", training ? "training" : "prompts");
        if (training)
            check_residuals(&s);
        session_close(&s);
    }
    device->products = PRODUCTS_LIBRARY;
    must(session_open(&s, device, host->cuda, true, 1, &f), &f);
    check_residuals(&s);
    session_close(&s);
}

int main(int argc, char **argv)
{
    struct failure f;
    struct device *device = emulated_device();
    program_name = "model_test";
    emu_seed(argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1);
    team_start(host->threads);
    must(device_use(device, &f), &f);
    printf("%s\n", device_says());
    bool bench = argc > 2 && strcmp(argv[argc - 1], "bench") == 0;
    if (argc > 2 && strcmp(argv[2], "library") == 0) {
        device->products = PRODUCTS_LIBRARY;
        void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
        standin = library ? dlsym(library, "standin") : NULL;
        if (!standin) {
            printf("the library that loads is not the stand-in\n");
            return 1;
        }
        check_choice(device);
    }
    double before = clock_seconds();
    float *params = zeros(host->param_floats, sizeof *params);
    fill_params(params, 11);
    check_inference(params);
    printf("  %.1f s\n", clock_seconds() - before);
    check_slots(params, device);
    printf("  %.1f s\n", clock_seconds() - before);
    if (!standin) /* decode: no products for the library */
        check_generation(params);
    printf("  %.1f s\n", clock_seconds() - before);
    check_micro_batch();
    printf("  %.1f s\n", clock_seconds() - before);
    check_training();
    printf("  %.1f s\n", clock_seconds() - before);
    if (bench)
        check_bench(device);
    check_bench_only(device);
    printf("%ld launches, %ld of them early, %.1f s; %d failures\n", emulated_launches,
           emulated_early, clock_seconds() - before, failures);
    free(params);
    device_leave();
    team_stop();
    return failures != 0;
}
