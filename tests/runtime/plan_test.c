/* plan_test.c - the learning rate's course, and what a resumed run takes over. */
#include <math.h>

#include "rt_check.h"
#include "train.h"

static bool plan_line(struct plan *p, const char *line, struct failure *f)
{
    static char copy[256];
    char *argv[24] = {"train"};
    int argc = 1;
    free(p->data.at);
    snprintf(copy, sizeof copy, "--data x %s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    *f = (struct failure){STATUS_OK, ""};
    return plan_read(p, &archrt_model, argc, argv, f) == OPTIONS_READ;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

static void test_schedule(void)
{
    struct plan p = {.steps = 0};
    struct failure f;
    CHECK(plan_line(&p, "--steps 110 --warmup 10 --lr 1", &f) &&
          plan_settle(&p, &archrt_model, &f));
    CHECK(near(plan_lr(&p, 0, 0), 0.1) && near(plan_lr(&p, 9, 0), 1));
    CHECK(near(plan_lr(&p, 60, 0), 0.55));
    CHECK(near(plan_lr(&p, 110, 0), 0.1));
    for (int i = 10; i < 110; i++)
        CHECK(plan_lr(&p, i, 0) > plan_lr(&p, i + 1, 0));
    CHECK(plan_line(&p, "--seconds 100 --lr 1", &f) && plan_settle(&p, &archrt_model, &f));
    CHECK(near(plan_lr(&p, 5, 100), 0.1) && near(plan_lr(&p, 1000, 50), 0.55));
    CHECK(near(plan_lr(&p, 1, 2.5), 0.5 * (0.1 + 0.45 * (1 + cos(M_PI * 0.025)))));
    CHECK(plan_line(&p, "--steps 50 --lr 1", &f) && plan_settle(&p, &archrt_model, &f));
    CHECK(p.warmup == 5); /* the spec's 10 are more than a tenth */
    CHECK(plan_line(&p, "--tokens 1000", &f) && plan_settle(&p, &archrt_model, &f));
    CHECK(p.steps == (1000 + 63) / 64);
    CHECK(plan_line(&p, "--tokens 1000 --accumulate 4", &f) && plan_settle(&p, &archrt_model, &f));
    CHECK(p.steps == 4);
    free(p.data.at);
}

static void test_mistakes(void)
{
    struct plan p = {.steps = 0};
    struct failure f;
    CHECK(plan_line(&p, "", &f) && !plan_settle(&p, &archrt_model, &f));
    CHECK(f.status == STATUS_USAGE && strstr(f.text, "how long"));
    CHECK(!plan_line(&p, "--steps 1 --tokens 5", &f) && strstr(f.text, "exclude"));
    CHECK(!plan_line(&p, "--resume --weights x", &f) && strstr(f.text, "exclude"));
    CHECK(!plan_line(&p, "--steps 0", &f) && !plan_line(&p, "--val-fraction 0.9", &f));
    CHECK(plan_line(&p, "--steps 1 --lr 0", &f) && !plan_settle(&p, &archrt_model, &f));
    free(p.data.at);
}

static void test_resume(void)
{
    struct plan p = {.steps = 0}, q = {.steps = 0};
    struct failure f;
    CHECK(plan_line(&p, "--steps 100 --lr 0.125 --seed 9 --accumulate 3", &f));
    CHECK(plan_settle(&p, &archrt_model, &f));
    json_t *plan = plan_state(&p), *state = json_pack("{sO}", "plan", plan);
    CHECK(plan_line(&q, "--resume", &f) && plan_resume(&q, state, &f));
    CHECK(q.steps == 100 && q.lr == 0.125 && q.seed == 9 && q.accumulate == 3);
    CHECK(plan_settle(&q, &archrt_model, &f) && q.warmup == p.warmup);
    CHECK(plan_line(&q, "--resume --tokens 640000 --lr 0.5", &f) && plan_resume(&q, state, &f));
    CHECK(plan_settle(&q, &archrt_model, &f));
    CHECK(q.steps == 3334 && q.lr == 0.5 && q.seed == 9);
    json_object_set_new(plan, "seed", json_string("x"));
    CHECK(plan_line(&q, "--resume", &f) && !plan_resume(&q, state, &f));
    CHECK_FAILURE(f, "plan.seed");
    json_object_set_new(plan, "seed", json_integer(1));
    json_object_set_new(plan, "accumulate", json_integer(0));
    CHECK(plan_line(&q, "--resume", &f) && !plan_resume(&q, state, &f));
    CHECK_FAILURE(f, "damaged");
    json_decref(plan);
    json_decref(state);
    free(p.data.at);
    free(q.data.at);
}

int main(void)
{
    test_schedule();
    test_mistakes();
    test_resume();
    if (failures)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}
