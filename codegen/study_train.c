/* study_train.c - a study's runs as processes: each job builds its program unless the same program
 * is there already, then becomes it. A job that is killed goes on where it saved last; the table is
 * the only memory of what is finished. */
#include "study.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <jansson.h>

/* Whatever else decides the run is in the name too, as four bytes: a run that was begun with other
 * settings must not be gone on with. */
const char *study_run_dir(const struct study *s, const struct study_run *run)
{
    const char *rest = arena_printf(s->arena, "%s %.8g", s->recipe, run->lr);
    uint32_t h = 2166136261u;
    for (; *rest; rest++)
        h = (h ^ (unsigned char)*rest) * 16777619u;
    return arena_printf(s->arena, "%s/runs/%s-%.0f-s%d-%08x", s->dir, run->arch.name, run->tokens,
                        run->seed, (unsigned)h);
}

/* ---- in the job's process ------------------------------------------------------------------- */

/* Waits for whoever holds the file; the lock goes with the last process that has it open. */
static bool lock(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0666);
    int got = -1;
    while (fd >= 0 && (got = flock(fd, LOCK_EX)) != 0 && errno == EINTR)
        ;
    return got == 0 || study_world("lock", path) == 0;
}

static struct tools tools_of(const struct driver *d)
{
    return (struct tools){.cc = d->cc ? d->cc : default_compiler(),
                          .march = d->march ? d->march : "native",
                          .verbose = d->verbose,
                          .device_cc = d->device_cc,
                          .cuda = &d->cuda,
                          .training_only = true,
                          .jobs = 1};
}

/* What the stages before a build would have left of a model with this shape. The emitted text names
 * no line of the study's file, or an edit there would make other programs. */
static struct driver driver_of(const struct study *s, const struct model_spec *m,
                               const struct arch *a)
{
    static const struct source nowhere = {.path = "study", .text = ""};
    struct driver d = {.target = s->driver->target,
                       .threads = s->driver->threads ? s->driver->threads : "1",
                       .cc = s->driver->cc,
                       .march = s->driver->march,
                       .device_cc = s->driver->device_cc,
                       .verbose = s->driver->verbose,
                       .arena = s->arena};
    d.diags.arena = s->arena;
    d.spec.sources = &nowhere;
    d.spec.n_sources = 1;
    d.resolution.model = m;
    d.resolution.best.arch = *a;
    return d;
}

/* The program of a shape, by content: one that was built from the same text is taken as it is.
 * NULL: said why. */
static const char *program_of(const struct study *s, const struct arch *a)
{
    struct model_spec m = study_model(s, a);
    m.at = (struct span){0, 0, 0};
    struct driver d = driver_of(s, &m, a);
    if (driver_plan(&d) != 0)
        return NULL;
    struct tools tools = tools_of(&d);
    const char *path = arena_printf(s->arena, "%s/programs/%s-%016llx", s->dir, a->name,
                                    (unsigned long long)build_fingerprint(&d.files, &tools));
    if (!lock(arena_printf(s->arena, "%s.lock", path)))
        return NULL;
    struct text why = {0};
    const double predicted[3] = {0, 0, 0};
    if (access(path, X_OK) != 0 && !build_program(&d.files, &tools, predicted, path, &why)) {
        fprintf(stderr, "archc: %s\n", why.at);
        path = NULL;
    }
    text_free(&why);
    for (int i = 0; i < d.files.n; i++)
        text_free(&d.files.files[i].text);
    return path;
}

/* Validation covers what is held out, up to 4M tokens: the program's last one takes four times
 * --eval-batches. */
static int eval_batches(const struct study *s, const struct model_spec *m)
{
    double batch = (double)m->train.batch * m->train.sequence;
    double tokens = s->held_out_bytes < 4e6 ? s->held_out_bytes : 4e6;
    return 1 + (int)(tokens / batch / 4);
}

static void become_program(const struct study *s, const struct study_run *run, const char *program)
{
    struct model_spec m = study_model(s, &run->arch);
    const char *words[32];
    int n = 0;
    words[n++] = program;
    words[n++] = "train";
    words[n++] = "--data";
    words[n++] = s->data;
    words[n++] = s->validation ? "--val" : "--val-fraction";
    words[n++] = s->validation ? s->validation : arena_printf(s->arena, "%.17g", s->spec->held_out);
    words[n++] = "--tokens";
    words[n++] = arena_printf(s->arena, "%.0f", run->tokens);
    words[n++] = "--lr";
    words[n++] = arena_printf(s->arena, "%.8g", run->lr);
    words[n++] = "--seed";
    words[n++] = arena_printf(s->arena, "%d", run->seed);
    words[n++] = "--eval-every";
    words[n++] = "0";
    words[n++] = "--eval-batches";
    words[n++] = arena_printf(s->arena, "%d", eval_batches(s, &m));
    words[n++] = "--out";
    words[n++] = study_run_dir(s, run);
    words[n++] = "--keep";
    words[n++] = "1";
    words[n++] = "--resume";
    words[n++] = "--quiet";
    words[n] = NULL;
    execv(program, (char **)(uintptr_t)words);
    study_world("run", program);
}

/* In a process group of its own: a Ctrl-C reaches it once, through archc. */
static void job_process(const struct study *s, const struct study_run *run, pid_t parent)
{
    const char *dir = study_run_dir(s, run);
    const char *log = arena_printf(s->arena, "%s.log", dir);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    setpgid(0, 0);
    close(s->lock); /* archc's alone: a job that outlives it must not keep the next one out */
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (getppid() != parent || fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(STATUS_WORLD);
    close(fd);
    setenv("TMPDIR", arena_printf(s->arena, "%s/tmp", s->dir), 1);
    if (lock(arena_printf(s->arena, "%s.lock", dir))) {
        const char *program = program_of(s, &run->arch);
        unsetenv("TMPDIR");
        if (program)
            become_program(s, run, program);
    }
    _exit(STATUS_WORLD);
}

/* ---- in archc -----------------------------------------------------------------------------------
 */

enum { MAX_JOBS = 256 };
struct job {
    pid_t pid;
    struct study_run *run;
};

struct crew {
    struct study *study;
    struct job jobs[MAX_JOBS];
    int running, failures, made;
    double predicted, taken; /* seconds of the runs made, as expected and as measured */
    double shown_at;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

static void on_child(int number)
{
    (void)number; /* only ends a sleep */
}

static void catch_signals(void)
{
    struct sigaction stop = {.sa_handler = on_signal}, child = {.sa_handler = on_child};
    struct sigaction hangup;
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGCHLD, &child, NULL);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = 200000000};
    nanosleep(&t, NULL);
}

static const char *duration(char buffer[32], double seconds)
{
    int s = seconds < 0 || !isfinite(seconds) ? 0 : (int)(seconds + 0.5);
    if (s >= 3600)
        snprintf(buffer, 32, "%dh %02dm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(buffer, 32, "%dm %02ds", s / 60, s % 60);
    else
        snprintf(buffer, 32, "%ds", s);
    return buffer;
}

/* The last whole line of a run's metrics that has `key`; NULL: none yet. */
static json_t *last_metrics(const struct study *s, const struct study_run *run, const char *key)
{
    const char *path = arena_printf(s->arena, "%s/metrics.jsonl", study_run_dir(s, run));
    char tail[4096];
    FILE *f = fopen(path, "r");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f), from = size > (long)sizeof tail - 1 ? size - (long)sizeof tail + 1 : 0;
    fseek(f, from, SEEK_SET);
    size_t n = fread(tail, 1, sizeof tail - 1, f);
    fclose(f);
    tail[n] = 0;
    while (n > 0) {
        while (n > 0 && tail[n - 1] == '\n')
            tail[--n] = 0;
        while (n > 0 && tail[n - 1] != '\n')
            n--;
        json_t *row = json_loads(tail + n, 0, NULL);
        if (row && json_object_get(row, key))
            return row;
        json_decref(row);
        tail[n] = 0;
    }
    return NULL;
}

/* Seconds of work in a run: as the cost model has it, or by operations at a likely speed. */
static double weight(const struct study *s, const struct study_run *run)
{
    double seconds = study_predict(s, run);
    double n = (double)arch_params(&run->arch) + 256.0 * run->arch.d_model;
    return isfinite(seconds) ? seconds : 6 * n * run->tokens / 40e9;
}

static double seconds_left(const struct crew *c)
{
    const struct study *s = c->study;
    double left = 0, longest = 0, factor = c->predicted > 0 ? c->taken / c->predicted : 1;
    for (int i = 0; i < s->n_runs; i++)
        if (!s->runs[i].done) {
            double w = weight(s, &s->runs[i]);
            left += w;
            longest = w > longest ? w : longest;
        }
    for (int k = 0; k < s->jobs; k++) {
        if (!c->jobs[k].pid || !s->terminal)
            continue;
        json_t *row = last_metrics(s, c->jobs[k].run, "tokens");
        left -= weight(s, c->jobs[k].run) * json_number_value(json_object_get(row, "tokens")) /
                c->jobs[k].run->tokens;
        json_decref(row);
    }
    left = left / s->jobs > longest / 2 ? left / s->jobs : longest / 2;
    return left * factor;
}

static int finished(const struct study *s)
{
    int n = 0;
    for (int i = 0; i < s->n_runs; i++)
        n += s->runs[i].done;
    return n;
}

static void show_progress(struct crew *c)
{
    const struct study *s = c->study;
    char left[32];
    if (!s->terminal || now() - c->shown_at < 1)
        return;
    c->shown_at = now();
    fprintf(stderr, "\r%d of %d runs, %d at work, about %s left\033[K", finished(s), s->n_runs,
            c->running, duration(left, seconds_left(c)));
}

/* ---- jobs ---------------------------------------------------------------------------------------
 */

static bool start_job(struct crew *c, struct study_run *run)
{
    int slot = 0;
    pid_t parent = getpid();
    while (c->jobs[slot].pid)
        slot++;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return study_world("start", "a job"), false;
    if (pid == 0)
        job_process(c->study, run, parent);
    setpgid(pid, pid);
    c->jobs[slot] = (struct job){pid, run};
    c->running++;
    return true;
}

static void say_failure(const struct study *s, const struct study_run *run)
{
    const char *log = arena_printf(s->arena, "%s.log", study_run_dir(s, run));
    char line[512] = "it said nothing";
    FILE *f = fopen(log, "r");
    while (f && fgets(line, sizeof line, f))
        ;
    if (f)
        fclose(f);
    line[strcspn(line, "\n")] = 0;
    fprintf(stderr, "%sarchc: the run %s, seed %d, failed: %s (all of it: %s)\n",
            s->terminal ? "\r\033[K" : "", run->arch.name, run->seed, line, log);
}

/* The run's own figures. False: it ended without any. */
static bool take_result(const struct study *s, struct study_run *run)
{
    json_t *row = last_metrics(s, run, "val_loss");
    if (!row)
        return false;
    run->loss = json_number_value(json_object_get(row, "val_loss"));
    run->bits = json_number_value(json_object_get(row, "val_bits_per_byte"));
    run->seconds = json_number_value(json_object_get(row, "seconds"));
    run->done = isfinite(run->loss) && run->loss > 0;
    json_decref(row);
    return run->done;
}

static bool end_job(struct crew *c, struct study_run *run, int status)
{
    struct study *s = c->study;
    char took[32], left[32];
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !take_result(s, run)) {
        if (!stop_signal) {
            say_failure(s, run);
            c->failures++;
        }
        return true;
    }
    c->made++;
    c->predicted += weight(s, run);
    c->taken += run->seconds;
    if (!study_table_write(s))
        return false;
    if (s->terminal)
        fputs("\r\033[K", stderr);
    fprintf(stderr, "[%d/%d] %s parameters, %s %s, seed %d: loss %.4f in %s; about %s left\n",
            finished(s), s->n_runs, study_size_text(s, run->size), run->role, run->arch.name,
            run->seed, run->loss, duration(took, run->seconds), duration(left, seconds_left(c)));
    return true;
}

static bool reap(struct crew *c)
{
    bool good = true;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int k = 0; k < MAX_JOBS; k++)
            if (c->jobs[k].pid == pid) {
                c->jobs[k].pid = 0;
                c->running--;
                good = end_job(c, c->jobs[k].run, status) && good;
            }
    return good;
}

static void stop_jobs(struct crew *c)
{
    for (int k = 0; k < MAX_JOBS; k++)
        if (c->jobs[k].pid)
            kill(-c->jobs[k].pid, SIGTERM);
    while (c->running > 0) {
        reap(c);
        nap();
    }
}

static bool work(struct crew *c)
{
    struct study *s = c->study;
    int next = 0;
    for (;;) {
        while (next < s->n_runs && s->runs[next].done)
            next++;
        if (stop_signal || (next == s->n_runs && c->running == 0))
            return true;
        if (next < s->n_runs && c->running < s->jobs) {
            if (!start_job(c, &s->runs[next++]))
                return false;
            continue;
        }
        nap();
        if (!reap(c))
            return false;
        show_progress(c);
    }
}

int study_train(struct study *s)
{
    struct crew *c = arena_alloc(s->arena, sizeof *c);
    *c = (struct crew){.study = s};
    s->jobs = s->jobs > MAX_JOBS ? MAX_JOBS : s->jobs;
    stop_signal = 0;
    catch_signals();
    bool good = work(c);
    stop_jobs(c);
    if (s->terminal)
        fputs("\r\033[K", stderr);
    if (stop_signal) {
        fprintf(stderr, "archc: stopped; all is saved: the same command goes on from here\n");
        return 128 + stop_signal;
    }
    if (good && c->failures > 0)
        fprintf(stderr, "archc: %d run%s failed: mend what they say, then give the same command\n",
                c->failures, c->failures == 1 ? "" : "s");
    return good && c->failures == 0 ? 0 : STATUS_WORLD;
}
