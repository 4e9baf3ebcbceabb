/* fit_solvers.c - cminpack and NLopt, loaded when they are first needed.
 *
 * Only `archc fit` needs them, and archc is carried to machines that have nothing but a C library:
 * linked in the usual way it would not even start there. */
#include "fit.h"

#include <dlfcn.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
/* cminpack.h maps lmder to the name of its precision. */
#define LMDER TEXT(__cminpack_func__(lmder))

static void *library(const char *const names[2], const char *package, struct text *why)
{
    for (int i = 0; i < 2; i++) {
        void *l = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (l)
            return l;
    }
    text_printf(why,
                "archc: a fit needs the library %s, which is not installed\n"
                "  help: apt-get install %s\n",
                names[0], package);
    return NULL;
}

/* A function pointer from an object pointer, as POSIX has it. */
static bool find(void *l, const char *name, void *to, struct text *why)
{
    void *symbol = dlsym(l, name);
    memcpy(to, &symbol, sizeof symbol);
    if (!symbol)
        text_printf(why, "archc: the solver library has no %s\n", name);
    return symbol != NULL;
}

static bool load(struct solvers *s, struct text *why)
{
    static const char *const minpack[] = {"libcminpack.so.1", "libcminpack.so"};
    static const char *const nlopt[] = {"libnlopt.so.0", "libnlopt.so"};
    void *m = library(minpack, "libcminpack1", why),
         *o = m ? library(nlopt, "libnlopt0", why) : NULL;
    return m && o && find(m, LMDER, &s->lmder, why) && find(o, "nlopt_create", &s->create, why) &&
           find(o, "nlopt_destroy", &s->destroy, why) &&
           find(o, "nlopt_set_min_objective", &s->set_min_objective, why) &&
           find(o, "nlopt_set_lower_bounds", &s->set_lower_bounds, why) &&
           find(o, "nlopt_set_upper_bounds", &s->set_upper_bounds, why) &&
           find(o, "nlopt_set_ftol_rel", &s->set_ftol_rel, why) &&
           find(o, "nlopt_set_maxeval", &s->set_maxeval, why) &&
           find(o, "nlopt_optimize", &s->optimize, why);
}

const struct solvers *solvers_get(struct text *why)
{
    static struct solvers loaded;
    return loaded.optimize || load(&loaded, why) ? &loaded : NULL;
}
