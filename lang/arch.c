/* arch.c - one concrete decoder-only transformer and its counts. */
#include "lang.h"

#include <math.h>

int arch_dq(const struct arch *a)
{
    return a->heads * a->head_dim;
}

int arch_dkv(const struct arch *a)
{
    return a->kv_heads * a->head_dim;
}

int64_t arch_params(const struct arch *a)
{
    int64_t d = a->d_model;
    return a->layers * (2 * d * arch_dq(a) + 2 * d * arch_dkv(a) + 3 * d * (int64_t)a->d_ff);
}

int64_t arch_total_params(const struct arch *a)
{
    int64_t d = a->d_model;
    int64_t embeddings = (int64_t)a->vocab * d * (a->tied ? 1 : 2);
    int64_t layer = 2 * d;
    if (a->qkv_bias)
        layer += arch_dq(a) + 2 * arch_dkv(a);
    if (a->qk_norm)
        layer += 2 * a->head_dim;
    return arch_params(a) + embeddings + a->layers * layer + d;
}

double arch_r(const struct arch *a)
{
    double gqa = (double)a->heads / a->kv_heads;
    return 3.0 * a->d_ff / (2.0 * arch_dq(a) * (1 + 1 / gqa));
}

double arch_width(const struct arch *a)
{
    return a->d_model / sqrt((double)arch_params(a));
}

void arch_print(const struct arch *a, FILE *out)
{
    fprintf(out, "arch %s\n", a->name);
    fprintf(out, "  layers %d  d_model %d  heads %d  kv_heads %d  head_dim %d  d_ff %d\n",
            a->layers, a->d_model, a->heads, a->kv_heads, a->head_dim, a->d_ff);
    fprintf(out, "  vocab %d  context %d  tied %s  qkv bias %s  qk norm %s\n", a->vocab, a->context,
            a->tied ? "yes" : "no", a->qkv_bias ? "yes" : "no", a->qk_norm ? "yes" : "no");
    fprintf(out, "  rope theta %g", a->rope.theta);
    if (a->rope.factor > 0)
        fprintf(out, "  scaling factor %g low %g high %g original %g", a->rope.factor, a->rope.low,
                a->rope.high, a->rope.original);
    fprintf(out, "  norm eps %g\n", a->norm_eps);
    fprintf(out, "  dq %d  dkv %d  gqa %g  r %.4f  x %.5f\n", arch_dq(a), arch_dkv(a),
            (double)a->heads / a->kv_heads, arch_r(a), arch_width(a));
    fprintf(out, "  params %lld (matrices)  total %lld\n", (long long)arch_params(a),
            (long long)arch_total_params(a));
}
