/* runs_test.c - run tables: what is accepted, what is refused and with which words. */
#include "../../law/law.h"
#include "../../law/runs.h"
#include "check.h"

#include <stdlib.h>
#include <unistd.h>

static char path[64];

static void put(const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(text, 1, n, f) == n);
    if (f)
        fclose(f);
}

static bool read_text(struct arena *a, const char *text, const char *columns, struct runs *t,
                      struct text *why)
{
    put(text, strlen(text));
    return runs_read(a, path, columns, t, why);
}

/* ---- what is accepted ------------------------------------------------------------------------ */

static void test_spellings(void)
{
    static const char text[] =
        "\xEF\xBB\xBF# made by hand\r\n"
        "name, n_layers,\"d_model\",n_heads,num_kv_heads,head_dim,ffn,tokens,"
        " loss \r\n"
        "\r\n"
        "\"a, \"\"b\"\"\",16,2048,32,8,64,8192,1e11, 2.803 \r\n"
        "   # a comment\r\n"
        "c,16,2560,36,4,64,6144,\"100000000000\",2.804";
    struct arena *a = arena_new();
    struct runs t;
    struct text why = {0};
    CHECK(read_text(a, text, NULL, &t, &why) && why.length == 0);
    CHECK(t.n == 2 && t.n_extra == 1 && !strcmp(t.extra_names[0], "name"));
    CHECK(!strcmp(t.rows[0].extra[0], "a, \"b\"") && !strcmp(t.rows[1].extra[0], "c"));
    CHECK(t.rows[0].params == 973078528 && t.rows[1].params == 964689920);
    CHECK_NEAR(t.rows[0].r, 4.8, 1e-12);
    CHECK_NEAR(t.rows[1].r, 3.6, 1e-12);
    CHECK(t.rows[0].tokens == 1e11 && t.rows[1].loss == 2.804 && t.rows[1].line == 6);
    text_free(&why);
    arena_free(a);
}

static void test_derived(void)
{
    struct arena *a = arena_new();
    struct runs t;
    struct text why = {0};
    CHECK(read_text(a, "params,flops,loss\n1e6,1.2e14,3\n", NULL, &t, &why));
    CHECK_NEAR(t.rows[0].tokens, 2e7, 1e-3);
    CHECK(t.n_notes == 1 && isnan(t.rows[0].r) && isnan(t.rows[0].d_model));
    /* no kv_heads: no groups, r = 3 f / (4 d) */
    CHECK(read_text(a, "layers,d_model,heads,d_ff,tokens,loss\n8,512,8,1536,1.6e9,4.9\n", NULL, &t,
                    &why));
    CHECK_NEAR(t.rows[0].r, 2.25, 1e-12);
    CHECK(t.rows[0].params == 27262976 && t.n_notes == 2);
    CHECK(read_text(a, "params,r,d_model,tokens,val,loss\n1e6,1,128,1e8,2.5,9\n", "loss=val", &t,
                    &why));
    CHECK(t.rows[0].loss == 2.5 && t.n_extra == 1 && !strcmp(t.extra_names[0], "loss"));
    text_free(&why);
    arena_free(a);
}

static void test_round_trip(void)
{
    struct arena *a = arena_new();
    const char *names[] = {"size", "note, \"x\""};
    const char *extra[] = {"80M", " a \"b\""};
    struct runs t, back;
    struct text why = {0};
    runs_init(&t, a, "memory", names, 2);
    for (int i = 0; i < 100; i++) {
        struct run r = {.d_model = 64 + i,
                        .layers = 2,
                        .heads = 4,
                        .kv_heads = 2,
                        .head_dim = 16,
                        .d_ff = 100 + i,
                        .r = NAN,
                        .params = NAN,
                        .total_params = NAN,
                        .tokens = 1e6 / 3 * i + 1,
                        .loss = 3 + i / 7.0,
                        .extra = extra};
        runs_add(&t, &r);
    }
    FILE *f = fopen(path, "w");
    runs_write(&t, f);
    fclose(f);
    CHECK(runs_read(a, path, NULL, &back, &why));
    CHECK(back.n == 100 && back.n_extra == 2 && !strcmp(back.extra_names[1], names[1]));
    for (int i = 0; i < back.n && i < 100; i++) {
        CHECK(back.rows[i].tokens == t.rows[i].tokens && back.rows[i].loss == t.rows[i].loss);
        CHECK(back.rows[i].params == t.rows[i].params && back.rows[i].r == t.rows[i].r);
        CHECK(!strcmp(back.rows[i].extra[1], extra[1]));
    }
    text_free(&why);
    arena_free(a);
}

static void test_filter(void)
{
    struct arena *a = arena_new();
    struct runs t, some;
    struct text why = {0};
    CHECK(read_text(a, "size,params,loss\n80M,79e6,3\n80M,81e6,3\n1B,1e9,2\n3B,3.1e9,2\n", NULL, &t,
                    &why));
    CHECK(runs_filter(&t, "size=1B,3B", true, &some, &why) && some.n == 2);
    CHECK(runs_filter(&t, "size=1B,3B", false, &some, &why) && some.n == 2);
    CHECK(runs_filter(&t, "params=78M..1B", true, &some, &why) && some.n == 3);
    CHECK(runs_filter(&t, "params=1B", true, &some, &why) && some.n == 1);
    CHECK(runs_filter(&t, "loss=3", true, &some, &why) && some.n == 2);
    CHECK(why.length == 0);
    CHECK(!runs_filter(&t, "colour=red", true, &some, &why) &&
          strstr(why.at, "no column 'colour'"));
    CHECK(strstr(why.at, "size") != NULL);
    CHECK(!runs_filter(&t, "size", true, &some, &why) && !runs_filter(&t, "=", true, &some, &why));
    text_free(&why);
    arena_free(a);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static const struct refusal {
    const char *text, *columns, *says;
} refusals[] = {
    {"", NULL, ":1: error: an empty table"},
    {"# nothing\n\n", NULL, "error: an empty table"},
    {"params,loss\n", NULL, ":1: error: a header, but no run below it"},
    {"params\ttokens\tloss\n1\t2\t3\n", NULL, ":1: error: no comma in the header"},
    {"params,loss\n1e6,2\n1e6\n", NULL, ":3: error: 1 fields, but the header has 2"},
    {"params,loss\n1e6,2,3\n", NULL, ":2: error: 3 fields, but the header has 2"},
    {"params,loss\n1e6,abc\n", NULL, ":2: error: loss is 'abc', which is not a number"},
    {"params,loss\n1e6,nan\n", NULL, ":2: error: loss is 'nan', which is not a number"},
    {"params,loss\n1e6,inf\n", NULL, ":2: error: loss is 'inf', which is not a number"},
    {"params,loss\n1e6,0x1p3\n", NULL, ":2: error: loss is '0x1p3', which is not a number"},
    {"params,loss\n1e6,1e999\n", NULL, ":2: error: loss is '1e999', which is not a number"},
    {"params,loss\n1e6,3 nats\n", NULL, ":2: error: loss is '3 nats', which is not a number"},
    {"params,loss\n1e6,-2\n", NULL, ":2: error: loss is -2, outside 1e-06..1000"},
    {"params,loss\n0,2\n", NULL, ":2: error: params is 0, outside 1..1e+15"},
    {"params_nonembed,loss\n-1,2\n", NULL, ":2: error: params_nonembed is -1, outside"},
    {"d_model,loss\n12.5,2\n", NULL, ":2: error: d_model is 12.5, but it counts whole things"},
    {"n_layers,layers,loss\n1,1,2\n", NULL, "the headers 'n_layers' and 'layers' both mean layers"},
    {"n_layers,layers,loss\n1,1,2\n", NULL, "--columns layers=layers"},
    {"loss,loss\n1,1\n", NULL, "both mean loss"},
    {"a,loss\n\"b,2\n", NULL, ":2: error: a quote is not closed on this line"},
    {"a,loss\n\"b\"c,2\n", NULL, ":2: error: text behind a closing quote"},
    {"a,loss\nb,2\nc\001d,2\n", NULL, ":3: error: byte 0x01 is not text"},
    {"a,loss\nb,2\n", "loss", "--columns wants COLUMN=HEADER, not 'loss'"},
    {"a,loss\nb,2\n", "mass=a", "--columns: there is no column 'mass'"},
    {"a,loss\nb,2\n", "params=weight", "--columns: no header is called 'weight'"},
};

static void test_refusals(void)
{
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct runs t;
        struct text why = {0};
        CHECK(!read_text(a, refusals[i].text, refusals[i].columns, &t, &why));
        bool said = why.at && strstr(why.at, refusals[i].says);
        if (!said)
            printf("wanted: %s\ngot: %s\n", refusals[i].says, why.at ? why.at : "nothing");
        CHECK(said);
        text_free(&why);
    }
    arena_free(a);
}

static void test_hostile(void)
{
    static const char good[] = "\xEF\xBB\xBFname,\"d_model\",params,r,tokens,loss\r\n"
                               "\"a, \"\"b\"\"\",2048,1e9,1.5,1e11,2.803\r\n# x\n\"c\",1,2,3,4,5\n";
    struct arena *a = arena_new();
    struct runs t;
    for (size_t cut = 0; cut < sizeof good - 1; cut++) {
        struct text why = {0};
        put(good, cut);
        CHECK(runs_read(a, path, NULL, &t, &why) == (why.length == 0));
        text_free(&why);
    }
    /* every byte replaced by others: no crash, and a refusal says where */
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (const char *c = "\",\n\xff-9"; *c; c++) {
            char text[sizeof good];
            struct text why = {0};
            memcpy(text, good, sizeof good);
            text[i] = *c;
            put(text, sizeof good - 1);
            if (!runs_read(a, path, NULL, &t, &why))
                CHECK(strstr(why.at, ": error: ") != NULL);
            text_free(&why);
        }
    struct text why = {0};
    CHECK(!runs_read(a, "/", NULL, &t, &why) && strstr(why.at, "cannot read"));
    CHECK(!runs_read(a, "/nonexistent", NULL, &t, &why));
    text_free(&why);
    arena_free(a);
}

/* 300 columns; a line of a megabyte; more errors than are worth showing. */
static void test_large(void)
{
    struct arena *a = arena_new();
    struct runs t;
    struct text text = {0}, why = {0};
    for (int i = 0; i < 300; i++)
        text_add(&text, "a,");
    text_add(&text, "loss\n");
    CHECK(!read_text(a, text.at, NULL, &t, &why) && strstr(why.at, "more than 256 columns"));
    text_free(&text);
    text_free(&why);
    text_add(&text, "name,loss\n");
    for (int i = 0; i < 100000; i++)
        text_add(&text, "0123456789");
    text_add(&text, ",2.5\n");
    CHECK(read_text(a, text.at, NULL, &t, &why) && strlen(t.rows[0].extra[0]) == 1000000);
    text_free(&text);
    text_add(&text, "name,loss\n");
    for (int i = 0; i < 1000; i++)
        text_add(&text, "x,y\n");
    CHECK(!read_text(a, text.at, NULL, &t, &why) && strstr(why.at, "more errors are not shown"));
    CHECK(why.length < 5000);
    text_free(&text);
    text_free(&why);
    arena_free(a);
}

int main(void)
{
    snprintf(path, sizeof path, "runs_test_%d.csv", (int)getpid());
    test_spellings();
    test_derived();
    test_round_trip();
    test_filter();
    test_refusals();
    test_hostile();
    test_large();
    unlink(path);
    return check_report("run tables");
}
