/* data_test.c - published coefficients against the runs that they were fitted on. The run tables
 * are others' and are not part of this project: ARCHC_DATA names the directory that holds them. */
#include "build_spec.h"
#include "check.h"

static FILE *open_table(const char *directory, const char *name)
{
    char path[1024], line[1024];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "r");
    if (f && !fgets(line, sizeof line, f)) {
        fclose(f);
        return NULL;
    }
    return f;
}

/* 76 runs of arXiv:2501.18107: mean squared error 0.0006, R2 0.9982, as published. */
static void test_morph(FILE *f)
{
    struct law m = empty_law("morph", LAW_MORPH);
    m.E = 2.44751, m.A = 54754.3, m.B = 778343, m.alpha = 0.614574, m.morph_e = 0.00114621;
    char line[1024];
    int n = 0;
    double squares = 0, sum = 0, sum2 = 0;
    while (fgets(line, sizeof line, f)) {
        double layers, d, params, tokens, loss;
        if (sscanf(line, "%*[^,],%*[^,],%lf,%lf,%*f,%*f,%*f,%lf,%*f,%lf,%lf", &layers, &d, &params,
                   &tokens, &loss) != 5)
            continue;
        double got = law_loss(&m, law_base_loss(&m, params, tokens), NAN, NAN, d / layers);
        squares += (got - loss) * (got - loss);
        sum += loss;
        sum2 += loss * loss;
        n++;
    }
    CHECK(n == 76);
    CHECK_NEAR(squares / n, 0.0006, 5e-5);
    CHECK_NEAR(1 - squares / (sum2 - sum * sum / n), 0.9982, 2e-4);
}

static double huber(double x)
{
    double delta = 1e-3;
    return fabs(x) <= delta ? x * x / 2 : delta * (fabs(x) - delta / 2);
}

static int descending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return x[2] > y[2] ? -1 : x[2] < y[2];
}

static double objective(double (*rows)[3], int n, const struct law *law)
{
    double sum = 0;
    for (int i = 5; i < n; i++) /* the five highest losses are left out */
        sum += huber(log(rows[i][2]) -
                     log(law_base_loss(law, rows[i][0], rows[i][1] / (6 * rows[i][0]))));
    return sum;
}

/* 245 runs read off Hoffmann et al.'s figure: the objective of Besiroglu et al. */
static void test_chinchilla(FILE *f)
{
    static double rows[300][3];
    char line[1024];
    int n = 0;
    while (n < 300 && fgets(line, sizeof line, f))
        n += sscanf(line, "%lf,%lf,%lf", &rows[n][0], &rows[n][1], &rows[n][2]) == 3;
    CHECK(n == 245);
    qsort(rows, (size_t)n, sizeof *rows, descending);
    struct law h = chinchilla_law("", 1.69, 406.4, 410.7, 0.34, 0.28);
    CHECK_NEAR(objective(rows, n, &h), 0.0041210, 1e-6);
    h = chinchilla_law("", exp(0.5267228), exp(6.0073404), exp(6.0179186), 0.33917084, 0.2849083);
    CHECK_NEAR(objective(rows, n, &h), 0.0012312, 1e-6);
    h = chinchilla_law("", 1.8172, 477.8, 2143.4, 0.3473, 0.3672);
    CHECK_NEAR(objective(rows, n, &h), 0.00101827, 3e-7);
}

int main(void)
{
    const char *directory = getenv("ARCHC_DATA");
    FILE *morph = directory ? open_table(directory, "morph_arch_loss.csv") : NULL;
    FILE *chinchilla = directory ? open_table(directory, "chinchilla_245.csv") : NULL;
    if (!morph || !chinchilla) {
        printf("skipped: ARCHC_DATA names no directory with morph_arch_loss.csv and "
               "chinchilla_245.csv\n");
        return 77;
    }
    test_morph(morph);
    test_chinchilla(chinchilla);
    fclose(morph);
    fclose(chinchilla);
    return check_report("law data");
}
