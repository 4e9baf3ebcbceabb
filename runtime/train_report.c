/* train_report.c - what a training run tells: metrics.jsonl for programs, lines for people. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "peak.h"
#include "stream.h"
#include "train.h"

/* Bytes of the leading lines that are whole and belong to steps up to `step`. */
static bool kept_bytes(const char *path, int64_t step, off_t *bytes, struct failure *f)
{
    struct stream s;
    struct lines l;
    char *line;
    size_t n;
    *bytes = 0;
    if (!path_exists(path))
        return true;
    if (!stream_open(&s, path, f))
        return false;
    lines_open(&l, &s);
    bool good = true;
    while (step > 0 && (good = lines_next(&l, &line, &n, f)) && line) {
        json_t *row = json_loadb(line, n, 0, NULL);
        json_t *at = json_object_get(row, "step");
        bool keep = l.whole && json_is_integer(at) && json_integer_value(at) <= step;
        json_decref(row);
        if (!keep)
            break;
        *bytes += (off_t)n + 1;
    }
    lines_close(&l);
    stream_close(&s);
    return good;
}

bool report_open(struct report *r, const struct plan *p, const struct archrt_model *m, int64_t step,
                 int64_t tokens, struct failure *f)
{
    off_t keep;
    *r = (struct report){.quiet = p->quiet,
                         .terminal = isatty(STDOUT_FILENO),
                         .flops_per_token = flops_train(m),
                         .smooth_loss = NAN,
                         .val_loss = NAN,
                         .val_bits = NAN,
                         .first_step = step,
                         .first_tokens = tokens,
                         .metrics = -1};
    r->metrics_path = path_printf("%s/metrics.jsonl", p->out);
    if (!kept_bytes(r->metrics_path, step, &keep, f))
        return false;
    r->metrics = open(r->metrics_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (r->metrics < 0 || ftruncate(r->metrics, keep) != 0)
        return failed_file(f, "write", r->metrics_path);
    if (!p->quiet)
        r->peak = peak_products(m->threads, m->tiles, 0.05);
    r->started = r->shown_at = clock_seconds();
    return true;
}

static void metrics_failed(struct report *r)
{
    if (!r->metrics_failed)
        notice("cannot write %s: %s: training goes on without it", r->metrics_path,
               strerror(errno));
    r->metrics_failed = true;
}

/* One write a line, so that a kill leaves at most one line cut, and resuming drops it. */
static void write_metrics(struct report *r, const struct step_facts *s)
{
    json_t *row = json_pack("{sIsfsfsfsIsf}", "step", (json_int_t)s->step, "loss", s->loss, "lr",
                            s->lr, "grad_norm", s->grad_norm, "tokens", (json_int_t)s->tokens,
                            "seconds", round(s->seconds * 1e3) / 1e3);
    if (!isnan(s->val_loss))
        json_object_set_new(row, "val_loss", json_real(s->val_loss));
    if (!isnan(s->val_bits))
        json_object_set_new(row, "val_bits_per_byte", json_real(s->val_bits));
    char *text = need(json_dumps(row, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)));
    json_decref(row);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the terminator */
    if (!r->metrics_failed && write(r->metrics, text, n + 1) != (ssize_t)(n + 1))
        metrics_failed(r);
    free(text);
}

static double time_left(const struct plan *p, const struct step_facts *s, double per_step)
{
    double by_steps = p->steps > 0 ? (double)(p->steps - s->step) * per_step : INFINITY;
    double by_time = p->seconds > 0 ? p->seconds - s->seconds : INFINITY;
    double left = by_steps < by_time ? by_steps : by_time;
    return left > 0 ? left : 0;
}

static size_t add(char *line, size_t size, size_t used, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static size_t add(char *line, size_t size, size_t used, const char *format, ...)
{
    va_list list;
    if (used >= size)
        return used;
    va_start(list, format);
    int n = vsnprintf(line + used, size - used, format, list);
    va_end(list);
    return used + (n > 0 ? (size_t)n : 0);
}

static void show(struct report *r, const struct plan *p, const struct step_facts *s)
{
    char line[256], number[32];
    double busy = clock_seconds() - r->started - r->paused;
    double per_step = busy / (double)(s->step - r->first_step);
    double speed = (double)(s->tokens - r->first_tokens) / busy;
    size_t n = add(line, sizeof line, 0, "step %lld", (long long)s->step);
    if (p->steps > 0)
        n = add(line, sizeof line, n, "/%lld", (long long)p->steps);
    n = add(line, sizeof line, n, "  loss %.4f", r->smooth_loss);
    if (!isnan(r->val_bits))
        n = add(line, sizeof line, n, "  val %.4f bits/byte", r->val_bits);
    else if (!isnan(r->val_loss))
        n = add(line, sizeof line, n, "  val %.4f", r->val_loss);
    n = add(line, sizeof line, n, "  %s tok/s", show_count(number, speed));
    if (r->peak > 0)
        n = add(line, sizeof line, n, "  %.0f%% of peak",
                100 * speed * r->flops_per_token / r->peak);
    n = add(line, sizeof line, n, "  %s left", show_time(number, time_left(p, s, per_step)));
    if (r->terminal)
        printf("\r%s\033[K", line);
    else
        printf("%s\n", line);
    r->line_open = r->terminal;
    fflush(stdout);
}

/* A terminal's line is rewritten ten times a second; a file gets a line after 1, 2, 4, .. 30 s, and
 * at each validation. */
static bool due(struct report *r, const struct plan *p, const struct step_facts *s)
{
    double now = clock_seconds(), run = r->shown_at - r->started;
    double pause = r->terminal ? 0.1 : run < 1 ? 1 : run < 30 ? run : 30;
    bool last = p->steps > 0 && s->step >= p->steps;
    bool telling = last || s->step == r->first_step + 1 || !isnan(s->val_loss);
    if (!telling && now - r->shown_at < pause)
        return false;
    r->shown_at = now;
    return true;
}

void report_step(struct report *r, const struct plan *p, const struct step_facts *s)
{
    write_metrics(r, s);
    r->smooth_loss = isnan(r->smooth_loss) ? s->loss : 0.95 * r->smooth_loss + 0.05 * s->loss;
    if (!isnan(s->val_loss)) {
        r->val_loss = s->val_loss;
        r->val_bits = s->val_bits;
    }
    if (!r->quiet && due(r, p, s))
        show(r, p, s);
}

void report_break(struct report *r)
{
    if (r->line_open)
        putchar('\n');
    r->line_open = false;
}

void report_say(struct report *r, const char *format, ...)
{
    va_list list;
    if (r->quiet)
        return;
    report_break(r);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
}

void report_sync(struct report *r)
{
    if (!r->metrics_failed && fsync(r->metrics) != 0 && errno != EINVAL)
        metrics_failed(r);
}

void report_close(struct report *r)
{
    report_break(r);
    if (r->metrics >= 0)
        close(r->metrics);
    free(r->metrics_path);
    r->metrics = -1;
    r->metrics_path = NULL;
}
