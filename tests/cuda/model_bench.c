/* model_bench.c - of model_test: `bench` times every kernel and phase. */
#include "model_check.h"

#include <math.h>
#include <string.h>

/* ---- bench: that it runs every kernel of every phase ---- */

/* 1 where training writes logits: the loss of evaluation is a kernel of its own then. */
static size_t evaluation_alone(void)
{
    for (int i = 0; i < host->cuda->n_kernels; i++)
        if (host->cuda->kernels[i].kind == ARCHRT_CUDA_HEAD_SOFTMAX)
            return 1;
    return 0;
}

static json_t *phase_of(json_t *phases, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(phases, i, row) if (strcmp(json_string_value(json_object_get(row, "phase")),
                                                  name) == 0) return row;
    return NULL;
}

/* A step of two micro-batches is two of them and an update, in work and in what is predicted: the
 * second one's gradients are added. */
static void check_bench_step(json_t *phases)
{
    const struct archrt_cuda *c = host->cuda;
    const char *const names[] = {"train", "update", "step"};
    double tokens[3], predicted[3], flops[3], seconds[3];
    for (int i = 0; i < 3; i++) {
        json_t *row = phase_of(phases, names[i]);
        CHECK(row, "no row of %s", names[i]);
        tokens[i] = json_number_value(json_object_get(row, "tokens"));
        predicted[i] = json_number_value(json_object_get(row, "predicted_seconds"));
        seconds[i] = json_number_value(json_object_get(row, "seconds"));
        flops[i] = json_number_value(json_object_get(row, "flops_per_second")) * seconds[i];
    }
    json_t *n = json_object_get(phase_of(phases, "step"), "micro_batches");
    CHECK(json_integer_value(n) == 2 && tokens[2] == 2 * tokens[0], "a step of %g tokens",
          tokens[2]);
    CHECK(fabs(flops[2] / (2 * flops[0] + flops[1]) - 1) < 1e-9, "a step of %g FLOPs", flops[2]);
    double want = 2 * predicted[0] + predicted[1] + c->predicted_adding;
    CHECK(c->predicted_adding > 0 && fabs(predicted[2] / want - 1) < 1e-9,
          "a step is predicted to take %g s, not %g", predicted[2], want);
}

/* Two micro-batches a step, which the program's table then has as a row of its own. */
void check_bench(struct device *device)
{
    const struct bench_request request = {.rounds = 1, .phases = BENCH_ALL, .micro_batches = 2};
    json_t *out;
    struct failure f;
    must(device_bench(device, &request, &out, &f), &f);
    size_t steps = 0;
    for (int id = 0; id < ARCHRT_PHASES; id++)
        for (int l = 0; id != ARCHRT_PHASE_EVAL && l < host->cuda->phases[id].n; l++)
            steps += (size_t)host->cuda->phases[id].loops[l].n;
    steps += evaluation_alone();
    json_t *kernels = json_object_get(out, "kernels"), *phases = json_object_get(out, "phases");
    CHECK(json_array_size(kernels) == steps, "%zu kernels timed, of %zu", json_array_size(kernels),
          steps);
    CHECK(json_array_size(phases) == 10, "%zu phases timed", json_array_size(phases));
    for (size_t i = 0; i < json_array_size(phases); i++)
        CHECK(json_is_real(json_object_get(json_array_get(phases, i), "seconds")),
              "phase %zu took no time", i);
    double prompts, generation, rate;
    CHECK(json_unpack(json_object_get(out, "load"), "{sfsfsf}", "prompt_seconds", &prompts,
                      "generate_seconds", &generation, "tokens_per_second", &rate) == 0,
          "no serving load");
    int tokens = host->cuda->slots * host->cuda->generate;
    CHECK(fabs(rate * (prompts + generation) / tokens - 1) < 1e-9, "%g tokens/s", rate);
    size_t compared = 0;
    for (size_t i = 0; i < json_array_size(kernels); i++)
        compared += json_is_real(json_object_get(json_array_get(kernels, i), "library_speedup"));
    CHECK((compared > 0) == (standin != NULL), "%zu products timed both ways", compared);
    for (size_t i = 0; i < json_array_size(phases); i++) {
        json_t *row = json_array_get(phases, i);
        const char *phase = json_string_value(json_object_get(row, "phase"));
        bool products = strcmp(phase, "train") == 0 || strcmp(phase, "prefill") == 0;
        CHECK(json_is_real(json_object_get(row, "own_seconds")) == (products && standin),
              "phase %s is timed both ways, or is not", phase);
    }
    check_bench_step(phases);
    json_decref(out);
}

/* bench --only: kernels of training and of inference, or none. */
void check_bench_only(struct device *device)
{
    json_t *out;
    struct failure f;
    struct bench_request request = {.rounds = 1, .phases = BENCH_ALL, .only = "attention_b"};
    must(device_bench(device, &request, &out, &f), &f);
    json_t *kernels = json_object_get(out, "kernels");
    CHECK(json_array_size(kernels) == 1, "%zu kernels timed, of 1", json_array_size(kernels));
    CHECK(strcmp(json_string_value(json_object_get(json_array_get(kernels, 0), "name")),
                 "cuda_train_attention_backward") == 0,
          "another kernel");
    CHECK(json_array_size(json_object_get(out, "phases")) == 0, "phases are timed");
    json_decref(out);
    request.only = "no such kernel";
    CHECK(!device_bench(device, &request, &out, &f) && f.status == STATUS_USAGE,
          "a kernel that there is not was timed");
    json_decref(out);
}
