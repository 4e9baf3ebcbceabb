/* law_tool.c - the reports of law/ without the driver.
 *
 *   law_tool resolve|json|explain|frontier FILE [MODEL [CSV [SVG]]]
 *   law_tool report FILE MODEL HTML */
#include "../../law/law.h"

#include <string.h>

static int run(struct arena *a, const struct spec *s, int model, struct diags *d, char **argv,
               int argc)
{
    struct resolution r;
    bool found = false;
    const char *why = NULL;
    if (strcmp(argv[1], "report") == 0 && argc > 4) {
        FILE *html = fopen(argv[4], "w");
        bool good = html && report(a, s, model, d, html, &found, &why);
        if (html)
            fclose(html);
        if (why)
            fprintf(stderr, "%s\n", why);
        return !good ? 1 : why ? 4 : found ? 0 : 3;
    }
    bool why_shape = strcmp(argv[1], "explain") == 0;
    if (why_shape || strcmp(argv[1], "frontier") == 0) {
        FILE *csv = argc > 4 ? fopen(argv[4], "w") : NULL,
             *svg = argc > 5 ? fopen(argv[5], "w") : NULL;
        bool good = why_shape ? explain(a, s, model, d, csv, svg, stdout, &found, &why)
                              : frontier(a, s, model, d, csv, svg, stdout, &why);
        if (csv)
            fclose(csv);
        if (svg)
            fclose(svg);
        if (why)
            fprintf(stderr, "%s\n", why);
        return !good ? 1 : why ? 4 : why_shape && !found ? 3 : 0;
    }
    if (!resolve(a, s, model, d, &r))
        return 1;
    if (strcmp(argv[1], "json") == 0)
        resolution_json(&r, stdout);
    else if (r.found)
        resolution_print(&r, stdout);
    if (!r.found)
        resolution_infeasible(s, &r, stderr);
    return r.found ? 0 : 3;
}

int main(int argc, char **argv)
{
    struct arena *a = arena_new();
    struct diags d = {.arena = a};
    struct spec s;
    int status = 1;
    if (argc < 3)
        return 2;
    if (spec_read(a, argv[2], law_prelude, &d, &s)) {
        int model = argc > 3 && argv[3][0] ? spec_find_model(&s, argv[3]) : s.main_model;
        status = model < 0 ? 2 : run(a, &s, model, &d, argv, argc);
    }
    diags_print(&d, stderr);
    arena_free(a);
    return status;
}
