/* report.c - `archc report`: a choice as one HTML page. */
#include "driver.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int cannot_write(const char *path)
{
    fprintf(stderr, "archc: cannot write %s: %s\n", path, strerror(errno));
    return STATUS_WORLD;
}

/* The page appears under its name only when it is whole. */
static int put_in_place(FILE *f, const char *part, const char *path, bool good)
{
    bool written = !ferror(f);
    if (fclose(f) != 0 || !written) {
        int status = cannot_write(part);
        unlink(part);
        return status;
    }
    if (!good) {
        unlink(part);
        return 0;
    }
    return rename(part, path) == 0 ? 0 : cannot_write(path);
}

int run_report(struct driver *d)
{
    int status = driver_read(d);
    if (status)
        return status;
    if (d->model_index < 0)
        return driver_no_model(d);
    const char *model = d->spec.models[d->model_index].name, *why = NULL;
    const char *path = d->output ? d->output : arena_printf(d->arena, "%s.html", model);
    const char *part = arena_printf(d->arena, "%s.part", path);
    FILE *f = fopen(part, "w");
    if (!f)
        return cannot_write(part);
    bool found = false;
    bool good = report(d->arena, &d->spec, d->model_index, &d->diags, f, &found, &why);
    driver_print_diags(d);
    status = put_in_place(f, part, path, good);
    if (status || !good)
        return status ? status : STATUS_SPEC;
    if (why)
        fprintf(stderr, "archc: %s: written without pictures: %s\n", path, why);
    if (!found)
        fprintf(stderr, "archc: no candidate satisfies the requirements of %s; %s says why\n",
                model, path);
    return why ? STATUS_WORLD : found ? 0 : STATUS_INFEASIBLE;
}
