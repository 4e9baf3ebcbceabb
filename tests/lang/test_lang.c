/* test_lang - what golden files cannot show: numbers, names, hostile text, truncation everywhere.
 *
 *   test_lang PRELUDE FILE...    every prefix of every FILE must be survived */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../lang/front.h"

#ifdef __SANITIZE_ADDRESS__
enum { LIMIT = 10 }; /* seconds of processor time for one hostile text */
#else
enum { LIMIT = 2 };
#endif

static int failures;
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("FAIL %s:%d: ", __FILE__, __LINE__);                                            \
            printf(__VA_ARGS__);                                                                   \
            putchar('\n');                                                                         \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- numbers and names ----------------------------------------------------------------------- */

static void test_numbers(void)
{
    static const struct {
        const char *text;
        double value; /* NaN: refused */
        struct dim dim;
    } table[] = {
        {"1", 1, {0}},
        {"0.5", 0.5, {0}},
        {"1e-5", 1e-5, {0}},
        {"1E+3", 1000, {0}},
        {"973M", 973e6, {0}},
        {"100B", 100e9, {0}},
        {"128Ki", 131072, {0}},
        {"1_000_000", 1e6, {0}},
        {"2T", 2e12, {0}},
        {"1e3K", 1e6, {0}},
        {"90%", 0.9, {0}},
        {"1.5K", 1500, {0}},
        {"20ms", 0.02, {.seconds = 1}},
        {"2 us", 2e-6, {.seconds = 1}},
        {"80GB", 80e9, {.bytes = 1}},
        {"80GiB", 80 * 0x1p30, {.bytes = 1}},
        {"4.8TB/s", 4.8e12, {.seconds = -1, .bytes = 1}},
        {"989 TFLOP/s", 989e12, {.seconds = -1, .flops = 1}},
        {"10Ktok/s", 1e4, {.seconds = -1, .tokens = 1}},
        {"1_", NAN, {0}},
        {"1__0", NAN, {0}},
        {"1m", NAN, {0}},
        {"5Q", NAN, {0}},
        {"1e400", NAN, {0}},
        {"1e300T", NAN, {0}},
        {"80Gb", NAN, {0}},
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct quantity q;
        const char *why = NULL, *help = NULL, *text = table[i].text;
        bool ok = quantity_read(a, text, strlen(text), &q, &why, &help);
        bool want = !isnan(table[i].value);
        EXPECT(ok == want, "%s %s", text, ok ? "was read" : why);
        EXPECT(!ok || (fabs(q.value - table[i].value) <= 1e-15 * fabs(q.value) &&
                       dim_equal(q.dim, table[i].dim)),
               "%s is %g", text, q.value);
        EXPECT(ok || why, "%s: refused without a reason", text);
    }
    static const double values[] = {0, 1, 0.1, 1e-5, 973078528, 1.0 / 3, 1e300, 5e-324, -2.5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char n[32];
        EXPECT(strtod(number_text(n, values[i]), NULL) == values[i], "%s is not %g", n, values[i]);
    }
    arena_free(a);
}

static void test_names(void)
{
    EXPECT(name_distance("vocab", "vocab", 3) == 0, "equal names");
    EXPECT(name_distance("vocb", "vocab", 3) == 1, "an insertion");
    EXPECT(name_distance("d_modle", "d_model", 3) == 1, "a transposition");
    EXPECT(name_distance("kitten", "sitting", 5) == 3, "the usual example");
    EXPECT(name_distance("a", "abcdefgh", 3) == 4, "past the limit");
    EXPECT(name_distance("", "", 0) == 0, "nothing");
    char *a = calloc(1, 100001);
    memset(a, 'a', 100000);
    EXPECT(name_distance(a, "b", 3) == 4, "a long name");
    free(a);
}

static void test_arena(void)
{
    struct arena *a = arena_new();
    for (size_t n = 0; n < 200000; n = n * 3 + 1) {
        unsigned char *p = arena_alloc(a, n);
        EXPECT((uintptr_t)p % 16 == 0, "%zu bytes are not aligned", n);
        for (size_t i = 0; i < n; i++)
            if (p[i])
                EXPECT(false, "byte %zu of %zu is not zero", i, n);
        if (n)
            memset(p, 0xFF, n);
    }
    EXPECT(!strcmp(arena_printf(a, "%s %d", "x", 3), "x 3"), "printf");
    arena_free(a);
}

/* ---- text as it comes -------------------------------------------------------------------------
 */

/* Parses and prints everything there is to print; returns the number of errors. */
static int digest(const char *text, size_t length, const char *prelude, FILE *sink, size_t *shown)
{
    struct arena *a = arena_new();
    struct diags d = {.arena = a};
    struct spec s;
    bool ok = spec_parse(a, "t.arch", text, length, prelude, &d, &s);
    EXPECT(ok == (d.errors == 0), "the result and %d errors disagree", d.errors);
    emit_spec(&s, sink);
    long before = ftell(sink);
    diags_print(&d, sink);
    *shown = (size_t)(ftell(sink) - before);
    int errors = d.errors;
    for (const struct diag *g = d.first; g; g = g->next) {
        EXPECT(g->remarks || g->severity == SEVERITY_WARNING || !strcmp(g->rule, "syntax") ||
                   !strcmp(g->rule, "unreadable"),
               "[%s] helps nobody: %s", g->rule, g->text);
        EXPECT(g->at.end <= length + 1 || g->at.source != 0, "[%s] points past the end", g->rule);
    }
    arena_free(a);
    return errors;
}

static void repeat(struct text *t, const char *piece, int times)
{
    size_t n = strlen(piece);
    for (int i = 0; i < times; i++)
        text_addn(t, piece, n);
}

static void hostile(const char *name, struct text *t, const char *prelude, FILE *sink)
{
    double start = cpu_seconds();
    size_t shown;
    rewind(sink);
    int errors = digest(t->at ? t->at : "", t->length, prelude, sink, &shown);
    double took = cpu_seconds() - start;
    EXPECT(errors > 0, "%s: no error", name);
    EXPECT(shown > 0 && shown < 100000, "%s: %zu bytes of diagnostics", name, shown);
    EXPECT(took < LIMIT, "%s: took %.1f s", name, took);
    text_free(t);
}

static void test_hostile(const char *prelude, FILE *sink)
{
    static const struct {
        const char *name, *before, *piece;
        int times;
    } table[] = {
        {"empty", "", "", 0},
        {"nested blocks", "model a ", "{ a ", 10000},
        {"nested blocks, one a line", "model a {\n", "a {\n", 10000},
        {"nested parentheses", "model a {\nvocab = ", "(", 10000},
        {"nested lists", "model a {\nvocab = ", "[", 10000},
        {"closing braces", "", "}\n", 100000},
        {"minus signs", "model a {\nvocab = ", "-", 500000},
        {"a sum", "model a {\nvocab = 1", " + 1", 250000},
        {"a list", "model a {\nd_model = free [1", ", 1", 300000},
        {"a name", "model ", "a", 1000000},
        {"a number", "model a {\nvocab = ", "9", 1000000},
        {"a string", "import \"", "a", 1000000},
        {"open strings", "", "\"\n", 500000},
        {"comments", "", "#\n", 500000},
        {"newlines", "", "\n", 1000000},
        {"same models", "", "model a {}\n", 90000},
        {"unknown keys", "model a {\n", "x = 1\n", 170000},
        {"same keys", "model a {\n", "vocab = 1\n", 100000},
        {"goals", "model a {\n", "require loss <= 1\n", 55000},
        {"stray characters", "", "@", 1000000},
        {"text without newline", "", "model a ", 130000},
        {"NUL", "", "\xFF", 1000000},
        {"too large", "", "model a {}\n", 200000},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct text t = {0};
        text_add(&t, table[i].before);
        repeat(&t, table[i].piece, table[i].times);
        hostile(table[i].name, &t, prelude, sink);
    }
    struct text t = {0};
    for (int i = 0; i < 40000; i++)
        text_printf(&t, "model m%d : m%d {}\n", i, i + 1);
    hostile("a chain of parents", &t, prelude, sink);
    for (int i = 0; i < 450; i++) /* each waits for all others */
        text_printf(&t, "model m%d {\nrequire loss <= m%d.loss + m%d.loss\n}\n", i, (i + 1) % 450,
                    (i * 7) % 450);
    hostile("a web of goals", &t, prelude, sink);
    for (int i = 0; i < 499; i++) {
        text_printf(&t, "model m%d : m%d {\n", i, i + 1);
        repeat(&t, "require loss <= 1 + 2 + 3 + 4 + 5 + 6\n", 32);
        text_add(&t, "}\n");
    }
    text_add(&t, "model m499 {}\n");
    hostile("inherited goals", &t, prelude, sink);
}

static char *read_text(const char *path, size_t *length)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (!f || !text) {
        printf("cannot read %s\n", path);
        exit(2);
    }
    *length = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void test_truncation(const char *path, const char *prelude, FILE *sink)
{
    size_t length, shown;
    char *text = read_text(path, &length);
    for (size_t n = 0; n <= length; n++) {
        rewind(sink);
        /* An exact copy, so that a read past its end is seen. */
        char *cut = malloc(n + 1);
        memcpy(cut, text, n);
        cut[n] = '\0';
        digest(cut, n, prelude, sink, &shown);
        free(cut);
    }
    free(text);
}

int main(int argc, char **argv)
{
    size_t length;
    if (argc < 2)
        return 2;
    char *prelude = read_text(argv[1], &length);
    FILE *sink = tmpfile();
    if (!sink)
        return 2;
    test_numbers();
    test_names();
    test_arena();
    test_hostile(prelude, sink);
    for (int i = 2; i < argc; i++)
        test_truncation(argv[i], prelude, sink);
    fclose(sink);
    free(prelude);
    printf("%d failures\n", failures);
    return failures != 0;
}
