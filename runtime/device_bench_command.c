/* device_bench_command.c - the command `bench --device cuda`: its options, and its table. */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "options.h"

static double real_of(json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

/* Behind a row: our own kernels' time and the library's speed-up, where it was the library's. */
static void end_row(json_t *row)
{
    if (json_object_get(row, "own_seconds"))
        printf(" %12.2f %8.2f", real_of(row, "own_seconds") * 1e6, real_of(row, "library_speedup"));
    putchar('\n');
}

static void print_load(json_t *load)
{
    if (!json_is_object(load))
        return;
    printf("\nserving %.0f sequences, %.0f tokens in, %.0f out: prompts %.3f s, generation %.3f s, "
           "%.0f tokens/s (predicted %.0f)\n",
           real_of(load, "sequences"), real_of(load, "prompt"), real_of(load, "generate"),
           real_of(load, "prompt_seconds"), real_of(load, "generate_seconds"),
           real_of(load, "tokens_per_second"), real_of(load, "predicted_tokens_per_second"));
}

/* "decode"; "step of 8" */
static const char *phase_text(json_t *row, char out[32])
{
    const char *phase = json_string_value(json_object_get(row, "phase"));
    double n = real_of(row, "micro_batches");
    if (n > 0)
        snprintf(out, 32, "%s of %.0f", phase, n);
    else
        snprintf(out, 32, "%s", phase);
    return out;
}

static void print_table(json_t *out)
{
    size_t i;
    json_t *row;
    char phase[32];
    printf("%s on %s (%s): copies %.2f TB/s; products by %s\n\n"
           "%-10s %7s %12s %12s %14s %10s %8s %12s %8s\n",
           json_string_value(json_object_get(out, "model")),
           json_string_value(json_object_get(out, "device")),
           json_string_value(json_object_get(out, "driver")),
           real_of(out, "copy_bytes_per_second") * 1e-12,
           json_string_value(json_object_get(out, "products")), "phase", "past", "us", "predicted",
           "tokens/s", "TFLOP/s", "% copy", "own, us", "speed-up");
    json_array_foreach(json_object_get(out, "phases"), i, row)
    {
        printf("%-10s %7.0f %12.1f %12.1f %14.1f %10.2f %8.1f", phase_text(row, phase),
               real_of(row, "past"), real_of(row, "seconds") * 1e6,
               real_of(row, "predicted_seconds") * 1e6, real_of(row, "tokens_per_second"),
               real_of(row, "flops_per_second") * 1e-12, real_of(row, "of_copy_bandwidth") * 100);
        end_row(row);
    }
    print_load(json_object_get(out, "load"));
    printf("\n%-34s %6s %12s %12s %10s %8s %12s %8s\n", "kernel, alone", "calls", "us", "predicted",
           "TFLOP/s", "% copy", "own, us", "speed-up");
    json_array_foreach(json_object_get(out, "kernels"), i, row)
    {
        printf("%-34s %6.0f %12.2f %12.2f %10.2f %8.1f",
               json_string_value(json_object_get(row, "name")), real_of(row, "calls"),
               real_of(row, "seconds") * 1e6, real_of(row, "predicted_seconds") * 1e6,
               real_of(row, "flops_per_second") * 1e-12, real_of(row, "of_copy_bandwidth") * 100);
        end_row(row);
    }
}

/* ---- options ---- */

static bool phases_read(const char *text, unsigned *out, struct failure *f)
{
    static const char *const names[] = {"decode", "prefill", "batch", "train"}; /* as the bits */
    *out = text ? 0 : BENCH_ALL;
    while (text && *text) {
        size_t n = strcspn(text, ","), i = 0;
        while (i < 4 && (strlen(names[i]) != n || strncmp(names[i], text, n) != 0))
            i++;
        if (i == 4)
            return failed(f, STATUS_USAGE,
                          "--phase: %.*s is none of decode, prefill, batch and train", (int)n,
                          text);
        *out |= 1u << i;
        text += n + (text[n] == ',');
    }
    return *out || failed(f, STATUS_USAGE, "--phase wants a phase");
}

static void say(const char *what)
{
    fprintf(stderr, "%s\n", what);
}

int cmd_device_bench(int argc, char **argv)
{
    struct failure f;
    bool json = false, progress = false;
    int64_t rounds = 15, accumulate = archrt_model.hyper.accumulate;
    const char *phases = NULL;
    struct bench_request request = {0};
    json_t *out = NULL;
    const struct option table[] = {
        {"json", NULL, OPTION_FLAG, &json, NULL, 0, 0, "one JSON object"},
        {"phase", "NAME,..", OPTION_TEXT, &phases, NULL, 0, 0,
         "of decode, prefill, batch, train: these only"},
        {"whole", NULL, OPTION_FLAG, &request.whole, NULL, 0, 0,
         "whole phases only, no single kernels"},
        {"only", "TEXT", OPTION_TEXT, &request.only, NULL, 0, 0,
         "kernels whose names hold TEXT, and no phases"},
        {"accumulate", "N", OPTION_INT, &accumulate, NULL, 1, 65536,
         "micro-batches of a training step (the spec's)"},
        {"repeat", "N", OPTION_INT, &rounds, NULL, 1, 63,
         "rounds, of which the median (15; 3 at least of what takes seconds)"},
        {"progress", NULL, OPTION_FLAG, &progress, NULL, 0, 0,
         "say on stderr what is about to be timed"},
        {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
    };
    enum options_result result = options_read(
        table,
        "Every kernel and every phase on the GPU, and what it copies. Products by cuBLASLt "
        "(--products)\nare timed by our own kernels too. Run verify first.",
        argc, argv, NULL, &f);
    if (result != OPTIONS_READ)
        return result == OPTIONS_HELP ? STATUS_OK : failure_report(&f);
    request.rounds = (int)rounds;
    request.micro_batches = (int)accumulate;
    request.progress = progress ? say : NULL;
    if (!phases_read(phases, &request.phases, &f))
        return failure_report(&f);
    bool ok = device_bench(the_device(), &request, &out, &f);
    if (ok && json) {
        json_dumpf(out, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        putchar('\n');
    } else if (ok) {
        print_table(out);
    }
    json_decref(out);
    return ok ? STATUS_OK : failure_report(&f);
}
