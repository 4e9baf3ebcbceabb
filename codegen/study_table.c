/* study_table.c - runs.csv: one row a finished run, `archc fit` reads it as it is.
 *
 *   role,size,params,total_params,layers,d_model,heads,kv_heads,head_dim,d_ff,gqa,r,width,tokens,
 *   seed,lr,loss,bits_per_byte,seconds,recipe
 *
 * Integers, seed, tokens and lr say which run it is; the recipe, of which settings and data. */
#include "study.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char header[] =
    "role,size,params,total_params,layers,d_model,heads,kv_heads,head_dim,d_ff,gqa,r,width,tokens,"
    "seed,lr,loss,bits_per_byte,seconds,recipe";

enum {
    COLUMN_ROLE,
    COLUMN_SIZE,
    COLUMN_PARAMS,
    COLUMN_TOTAL,
    COLUMN_LAYERS,
    COLUMN_D_MODEL,
    COLUMN_HEADS,
    COLUMN_KV_HEADS,
    COLUMN_HEAD_DIM,
    COLUMN_D_FF,
    COLUMN_GQA,
    COLUMN_R,
    COLUMN_WIDTH,
    COLUMN_TOKENS,
    COLUMN_SEED,
    COLUMN_LR,
    COLUMN_LOSS,
    COLUMN_BITS,
    COLUMN_SECONDS,
    COLUMN_RECIPE,
    COLUMNS
};

int study_world(const char *what, const char *path)
{
    fprintf(stderr, "archc: cannot %s %s: %s\n", what, path, strerror(errno));
    return STATUS_WORLD;
}

/* ---- writing ------------------------------------------------------------------------------------
 */

static void print_row(const struct study *s, const struct study_run *run, FILE *f)
{
    const struct arch *a = &run->arch;
    fprintf(f, "%s,%.0f,%lld,%lld,%d,%d,%d,%d,%d,%d,%d,%.6f,%.6f,%.0f,%d,%.8g,%.6f,%.6f,%.1f,%s\n",
            run->role, run->size, (long long)arch_params(a), (long long)arch_total_params(a),
            a->layers, a->d_model, a->heads, a->kv_heads, a->head_dim, a->d_ff,
            a->heads / a->kv_heads, arch_r(a), arch_width(a), run->tokens, run->seed, run->lr,
            run->loss, run->bits, run->seconds, s->recipe);
}

/* Rows of another schedule that this one has not taken up. */
static bool taken_up(const struct study *s, const struct study_run *stray)
{
    for (int i = 0; i < s->n_runs; i++)
        if (study_same_run(&s->runs[i], stray))
            return true;
    return false;
}

bool study_table_write(const struct study *s)
{
    const char *path = arena_printf(s->arena, "%s/runs.csv", s->dir);
    const char *part = arena_printf(s->arena, "%s/runs.csv.part", s->dir);
    FILE *f = fopen(part, "w");
    if (!f)
        return study_world("write", part), false;
    fprintf(f, "%s\n", header);
    for (int i = 0; i < s->n_runs; i++)
        if (s->runs[i].done)
            print_row(s, &s->runs[i], f);
    for (int i = 0; i < s->n_strays; i++)
        if (!taken_up(s, &s->strays[i]))
            print_row(s, &s->strays[i], f);
    bool ok = fflush(f) == 0 && fsync(fileno(f)) == 0;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(part, path) != 0)
        return study_world("write", path), false;
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

static bool bad(const char *path, int line, const char *what)
{
    fprintf(stderr,
            "%s:%d: error: %s; the table is this study's memory: mend the line, or delete it and "
            "its run is made again\n",
            path, line, what);
    return false;
}

/* Splits at commas, in place. */
static bool split(char *line, char *fields[COLUMNS])
{
    int n = 0;
    for (char *at = line; at; n++) {
        if (n == COLUMNS)
            return false;
        fields[n] = at;
        at = strchr(at, ',');
        if (at)
            *at++ = 0;
    }
    return n == COLUMNS;
}

static bool real(const char *text, double least, double most, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == 0 && *out >= least && *out <= most;
}

static const char *known_role(const char *text, enum study_stage *stage)
{
    static const struct {
        const char *name;
        enum study_stage stage;
    } roles[] = {{"grid", STAGE_GRID},   {"centre", STAGE_GRID},    {"gqa", STAGE_GROUPS},
                 {"panda", STAGE_FINAL}, {"surefire", STAGE_FINAL}, {"baseline", STAGE_FINAL}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(roles[i].name, text) == 0) {
            *stage = roles[i].stage;
            return roles[i].name;
        }
    return NULL;
}

static bool read_shape(char *const fields[COLUMNS], struct arch *a)
{
    const struct {
        int column, most;
        int *to;
    } integers[] = {
        {COLUMN_LAYERS, 512, &a->layers},     {COLUMN_D_MODEL, 65536, &a->d_model},
        {COLUMN_HEADS, 1024, &a->heads},      {COLUMN_KV_HEADS, 1024, &a->kv_heads},
        {COLUMN_HEAD_DIM, 512, &a->head_dim}, {COLUMN_D_FF, 1048576, &a->d_ff},
    };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        if (!parse_count(fields[integers[i].column], 1, integers[i].most, integers[i].to))
            return false;
    return a->heads % a->kv_heads == 0;
}

static bool read_row(const struct study *s, char *line, struct study_run *run, const char **why)
{
    char *fields[COLUMNS];
    struct model_spec m = study_model(s, NULL);
    *run = (struct study_run){.done = true};
    run->arch = (struct arch){.vocab = m.vocab,
                              .context = m.context,
                              .tied = m.tied,
                              .norm_eps = m.norm_eps,
                              .rope = m.rope};
    *why = "not a row of this table";
    if (!split(line, fields) || !read_shape(fields, &run->arch))
        return false;
    run->role = known_role(fields[COLUMN_ROLE], &run->stage);
    if (!run->role || !real(fields[COLUMN_SIZE], 1, 1e15, &run->size) ||
        !real(fields[COLUMN_TOKENS], 1, 1e18, &run->tokens) ||
        !parse_count(fields[COLUMN_SEED], 1, 1000000, &run->seed) ||
        !real(fields[COLUMN_LR], 0, 10, &run->lr) ||
        !real(fields[COLUMN_LOSS], 0, 100, &run->loss) ||
        !real(fields[COLUMN_BITS], 0, 1000, &run->bits) ||
        !real(fields[COLUMN_SECONDS], 0, 1e12, &run->seconds))
        return false;
    *why = "a run with other data or other training settings than the study has now (give another "
           "-o to start anew)";
    run->arch.name = arena_printf(s->arena, "d%d_h%d_k%d_f%d", run->arch.d_model, run->arch.heads,
                                  run->arch.kv_heads, run->arch.d_ff);
    return strcmp(fields[COLUMN_RECIPE], s->recipe) == 0;
}

/* Every row becomes a stray; the schedule takes up those that it has. */
static bool read_rows(struct study *s, FILE *f, const char *path)
{
    enum { LONGEST = 1024, MOST = 100000 };
    char line[LONGEST];
    struct study_run *rows = NULL;
    size_t room = 0;
    bool good = true;
    for (int number = 1; good && fgets(line, sizeof line, f); number++) {
        const char *why = NULL;
        size_t n = strcspn(line, "\r\n");
        bool whole = line[n] != 0;
        line[n] = 0;
        if (number == 1) {
            good = strcmp(line, header) == 0 || bad(path, 1, "not the columns of a study's table");
            continue;
        }
        if ((size_t)s->n_strays == room) {
            room = room ? 2 * room : 64;
            struct study_run *more = arena_alloc(s->arena, room * sizeof *more);
            if (s->n_strays > 0)
                memcpy(more, rows, (size_t)s->n_strays * sizeof *more);
            rows = more;
        }
        if (!whole || s->n_strays == MOST)
            good = bad(path, number, whole ? "too many rows" : "a line too long or cut short");
        else if (!read_row(s, line, &rows[s->n_strays], &why))
            good = bad(path, number, why);
        else
            s->n_strays++;
    }
    s->strays = rows;
    return good;
}

bool study_table_read(struct study *s)
{
    const char *path = arena_printf(s->arena, "%s/runs.csv", s->dir);
    FILE *f = fopen(path, "r");
    if (!f && errno == ENOENT)
        return true;
    if (!f)
        return study_world("read", path), false;
    bool good = read_rows(s, f, path);
    fclose(f);
    return good;
}
