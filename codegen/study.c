/* study.c - `archc study`: the published experiment in miniature. Shapes on a grid of width and
 * ratio are trained at the small sizes, a law is fitted, the models that it chooses for the last
 * size are trained beside a baseline, and what came of it is told. */
#include "study.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what there is to train on ------------------------------------------------------------------
 */

static uint64_t mix(uint64_t h, const void *at, size_t n)
{
    const unsigned char *p = at;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* Size, and up to a MiB at the start and at the end. */
static bool mix_file(uint64_t *h, const char *path, double *bytes)
{
    enum { PART = 1 << 20 };
    struct stat st;
    char *block = malloc(PART);
    FILE *f = fopen(path, "rb");
    bool good = block && f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    if (good) {
        int64_t size = st.st_size;
        *bytes = (double)size;
        *h = mix(*h, &size, sizeof size);
        *h = mix(*h, block, fread(block, 1, PART, f));
        int64_t tail = size > 2 * PART ? size - PART : PART;
        if (size > PART && fseeko(f, tail, SEEK_SET) == 0)
            *h = mix(*h, block, fread(block, 1, PART, f));
        good = !ferror(f);
    } else if (f) {
        errno = EISDIR;
    }
    if (!good)
        study_world("read", path);
    if (f)
        fclose(f);
    free(block);
    return good;
}

/* All that a run's result depends on and its row does not say. */
static bool take_recipe(struct study *s)
{
    struct model_spec m = study_model(s, NULL);
    const struct train_spec *t = &m.train;
    uint64_t h = 14695981039346656037u;
    double held_out = s->validation ? 0 : s->spec->held_out;
    if (!mix_file(&h, s->data, &s->data_bytes) ||
        (s->validation && !mix_file(&h, s->validation, &s->held_out_bytes)))
        return false;
    if (!s->validation)
        s->held_out_bytes = held_out * s->data_bytes;
    const double settings[] = {t->batch, t->sequence, t->accumulate, t->warmup, t->weight_decay,
                               t->clip,  t->beta1,    t->beta2,      held_out};
    h = mix(h, settings, sizeof settings);
    snprintf(s->recipe, sizeof s->recipe, "%016llx", (unsigned long long)h);
    return true;
}

static bool make_directory(const char *path)
{
    return mkdir(path, 0777) == 0 || errno == EEXIST ||
           study_world("make the directory", path) == 0;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    return at->level > 0 ? remove(path) : 0;
}

/* One study at a time in a directory; what a killed compiler left there goes. */
static bool take_directory(struct study *s)
{
    const char *path = arena_printf(s->arena, "%s/lock", s->dir);
    const char *tmp = arena_printf(s->arena, "%s/tmp", s->dir);
    if (!make_directory(s->dir) || !make_directory(tmp) ||
        !make_directory(arena_printf(s->arena, "%s/runs", s->dir)) ||
        !make_directory(arena_printf(s->arena, "%s/programs", s->dir)))
        return false;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return study_world("write", path), false;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        fprintf(stderr, "archc: another archc study is at work in %s: wait, or give another -o\n",
                s->dir);
        return false;
    }
    s->lock = fd;
    nftw(tmp, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return true;
}

static bool on_gpu(const struct driver *d)
{
    return d->target && strstr(d->target, "sm_");
}

/* What one run computes on: the GPU, or this machine as one of `jobs` that share it sees it. */
static void take_core(struct study *s)
{
    const char *why = NULL;
    struct device host;
    int gpu = s->spec->serve.device;
    if (on_gpu(s->driver)) {
        if (gpu >= 0 && !s->driver->spec.devices[gpu].is_host)
            s->core = s->driver->spec.devices[gpu];
        return;
    }
    if (!device_host(s->arena, &host, &why) || host.threads < 1)
        return;
    s->core = host;
    for (int t = 0; t < DTYPE_COUNT; t++)
        s->core.flops[t] /= host.threads;
    s->core.products /= host.threads;
    s->core.memory_bandwidth /= s->jobs;
    s->core.cache_bandwidth /= host.threads;
    s->core.cache_bytes /= s->jobs;
    s->core.threads = 1;
}

/* ---- what is to be done -------------------------------------------------------------------------
 */

static void print_schedule(const struct study *s)
{
    double all = 0;
    printf("%-10s %-8s %-20s %9s %7s %7s %9s %9s %6s  %s\n", "size", "role", "shape", "params",
           "width", "r", "tokens", "lr", "seed", "seconds");
    for (int i = 0; i < s->n_runs; i++) {
        const struct study_run *r = &s->runs[i];
        double seconds = study_predict(s, r);
        printf("%-10.4g %-8s %-20s %9lld %7.4f %7.3f %9.4g %9.3g %6d  %.0f%s\n", r->size, r->role,
               r->arch.name, (long long)arch_params(&r->arch), arch_width(&r->arch),
               arch_r(&r->arch), r->tokens, r->lr, r->seed, seconds, r->done ? " (done)" : "");
        all += r->done ? 0 : seconds;
    }
    printf("%d runs of the grid; about %.0f minutes of them left with %d jobs, by the cost model\n",
           s->n_runs, all / s->jobs / 60, s->jobs);
    printf("%.4g bytes of data: %.2g epochs at the smallest size, %.2g at the largest\n",
           s->data_bytes, s->spec->tokens_per_param * s->spec->sizes.at[0] / s->data_bytes,
           s->spec->tokens_per_param * s->spec->sizes.at[s->spec->sizes.n - 1] / s->data_bytes);
}

/* ---- the command --------------------------------------------------------------------------------
 */

static int find_study(struct driver *d, const char *name, const struct study_spec **out)
{
    int at = name ? spec_find_study(&d->spec, name) : d->spec.main_study;
    if (at < 0 && name) {
        fprintf(stderr, "archc: %s declares no study %s; see archc --help\n", d->path, name);
        return STATUS_USAGE;
    }
    if (at < 0) {
        fprintf(stderr, "%s: error: no study is declared\n  help: add `study NAME { ... }`\n",
                d->path);
        return STATUS_SPEC;
    }
    *out = &d->spec.studies[at];
    return 0;
}

static int set_jobs(struct driver *d, int *jobs)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    *jobs = processors < 1 || on_gpu(d) ? 1 : processors > 256 ? 256 : (int)processors;
    if (!d->jobs || parse_count(d->jobs, 1, 256, jobs))
        return 0;
    fprintf(stderr, "archc: --jobs wants a number from 1 to 256, not %s; see archc --help\n",
            d->jobs);
    return STATUS_USAGE;
}

/* The stages in order; each finds what earlier calls have finished. */
static int carry_out(struct study *s)
{
    struct study_law *l = arena_alloc(s->arena, sizeof *l);
    int status = study_train(s);
    if (!status)
        status = study_fit(s, l);
    if (!status)
        status = study_choose(s, l);
    if (!status)
        status = study_train(s);
    if (!status)
        status = study_bench(s, l);
    if (status)
        return status;
    study_observe(s, l);
    return study_report(s, l);
}

int run_study(struct driver *d)
{
    struct study s = {.driver = d, .arena = d->arena, .terminal = isatty(2)};
    const char *name = d->model;
    d->model = NULL; /* -m names a study here */
    int status = driver_read(d);
    if (!status)
        status = find_study(d, name, &s.spec);
    if (!status)
        status = set_jobs(d, &s.jobs);
    if (status)
        return status;
    s.dir = d->output ? d->output : s.spec->name;
    s.data = s.spec->data;
    s.validation = s.spec->validation;
    if (!take_recipe(&s))
        return STATUS_WORLD;
    take_core(&s);
    if (d->dry_run) {
        if (!study_table_read(&s) || !study_schedule_grid(&s))
            return STATUS_SPEC;
        print_schedule(&s);
        return 0;
    }
    if (!take_directory(&s))
        return STATUS_WORLD;
    if (!study_table_read(&s) || !study_schedule_grid(&s))
        return STATUS_SPEC;
    return carry_out(&s);
}
