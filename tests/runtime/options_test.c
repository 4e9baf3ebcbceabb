/* options_test.c - the command line: values, limits, and what a mistake is answered with. */
#include "options.h"
#include "rt_check.h"

static bool flag, given;
static int64_t whole;
static double real;
static const char *text, *choice;
static struct texts list;

static const struct option table[] = {
    {"flag", NULL, OPTION_FLAG, &flag, NULL, 0, 0, ""},
    {"whole", "N", OPTION_INT, &whole, &given, 1, 1000000, ""},
    {"real", "X", OPTION_REAL, &real, NULL, 0, 1, ""},
    {"text", "T", OPTION_TEXT, &text, NULL, 0, 0, ""},
    {"choice", "red|green", OPTION_CHOICE, &choice, NULL, 0, 0, ""},
    {"list", "FILE..", OPTION_TEXTS, &list, NULL, 0, 0, ""},
    {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
};

static struct failure read_line(const char *line, struct texts *positional)
{
    static char copy[256];
    char *argv[16] = {"test"};
    int argc = 1;
    struct failure f = {STATUS_OK, ""};
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    free(list.at);
    list = (struct texts){NULL, 0};
    if (options_read(table, "summary", argc, argv, positional, &f) == OPTIONS_WRONG)
        CHECK(f.status == STATUS_USAGE);
    else
        CHECK(f.status == STATUS_OK);
    return f;
}

static void refused(const char *line, const char *expected)
{
    struct failure f = read_line(line, NULL);
    if (f.status == STATUS_USAGE && strstr(f.text, expected))
        return;
    fprintf(stderr, "'%s': '%s' does not say '%s'\n", line, f.text, expected);
    failures++;
}

static void test_values(void)
{
    struct texts words = {NULL, 0};
    read_line("--flag --whole=12K --real 0.25 --text a=b --choice green --list x y --list z", NULL);
    CHECK(flag && given && whole == 12000 && real == 0.25);
    CHECK(strcmp(text, "a=b") == 0 && strcmp(choice, "green") == 0);
    CHECK(list.n == 3 && strcmp(list.at[2], "z") == 0);
    read_line("one --flag two -", &words);
    CHECK(words.n == 3 && strcmp(words.at[2], "-") == 0);
    free(words.at);
}

static void test_mistakes(void)
{
    refused("--flog", "did you mean --flag?");
    refused("--zzzzzzzzz", "--help");
    refused("--flag=yes", "takes no value");
    refused("--whole", "needs a value");
    refused("--whole --flag", "needs a value");
    refused("--whole 0", "from 1 to 1e+06, not '0'");
    refused("--whole 1.5", "whole number");
    refused("--whole 1e400", "whole number");
    refused("--whole 99999999999999999999", "whole number");
    refused("--whole nan", "whole number");
    refused("--whole 5q", "whole number");
    refused("--real nan", "a number");
    refused("--real 2", "from 0 to 1");
    refused("--real 0x1", "a number");
    refused("--choice re", "one of red|green, not 're'");
    refused("--choice red|green", "one of");
    refused("stray", "is not an option");
    refused("-x", "is not an option");
}

static void test_numbers(void)
{
    int64_t n;
    CHECK(number_read("9007199254740993", INT64_MIN, INT64_MAX, &n) && n == 9007199254740993);
    CHECK(number_read("1.5M", 0, INT64_MAX, &n) && n == 1500000);
    CHECK(number_read("2Ki", 0, INT64_MAX, &n) && n == 2048);
    CHECK(number_read("1e3", 0, INT64_MAX, &n) && n == 1000);
    CHECK(!number_read("", 0, INT64_MAX, &n) && !number_read("K", 0, INT64_MAX, &n));
    CHECK(!number_read(" 1", 0, INT64_MAX, &n) && !number_read("1 ", 0, INT64_MAX, &n));
}

int main(void)
{
    test_values();
    test_mistakes();
    test_numbers();
    free(list.at);
    if (failures)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}
