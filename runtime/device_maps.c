/* device_maps.c - the tensor maps of a session. Kernels name the operands that they copy boxes of
 * (struct cuda_maps); all steps of all phases say where those lie. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

static const struct session_map *find(const struct session *s, const struct cuda_map *shape,
                                      const void *at)
{
    for (size_t i = 0; i < s->n_maps; i++)
        if (s->maps[i].shape == shape && s->maps[i].at == at)
            return &s->maps[i];
    return NULL;
}

void *session_map_of(const struct session *s, const struct cuda_map *shape, const void *at)
{
    size_t number = (size_t)(find(s, shape, at) - s->maps);
    return (char *)s->slabs[SLAB_MAPS] + number * CUDA_MAP_BYTES;
}

static bool collect(struct session *s, const struct archrt_step *step, int layer, int chunk,
                    struct failure *f)
{
    const struct cuda_maps *maps = &s->target->launches[step->kernel].maps;
    bool loaded = s->functions[step->kernel][s->cuda->kernels[step->kernel].passes - 1];
    (void)f;
    for (int i = 0; loaded && i < maps->n; i++) {
        const struct cuda_map *shape = &maps->list[i];
        void *at = session_operand(s, &step->operands[shape->operand], layer, chunk);
        if (find(s, shape, at))
            continue;
        if (s->n_maps == s->room_maps) {
            s->room_maps = s->room_maps ? 2 * s->room_maps : 64;
            s->maps = need(realloc(s->maps, s->room_maps * sizeof *s->maps));
        }
        s->maps[s->n_maps++] = (struct session_map){shape, at};
    }
    return true;
}

static bool encode(const struct session *s, const struct session_map *m, void *to)
{
    struct cuda_map shape = *m->shape;
    for (int i = 0; i < shape.rank; i++)
        if (shape.extents[i] == 0)
            shape.extents[i] = (unsigned)s->pool_pages;
    return s->device->api->tensor_map(s->device, to, &shape, m->at);
}

bool session_make_maps(struct session *s, struct failure *f)
{
    struct device *d = s->device;
    for (int phase = 0; phase < ARCHRT_PHASES; phase++)
        session_each_step(s, (enum archrt_phase_id)phase, DEVICE_WHENS - 1, collect, f);
    size_t bytes = s->bytes[SLAB_MAPS] = s->n_maps * CUDA_MAP_BYTES;
    if (bytes == 0)
        return true;
    char *maps = need(aligned_alloc(CUDA_MAP_BYTES, bytes));
    bool ok = d->api->alloc(d, bytes, &s->slabs[SLAB_MAPS]);
    for (size_t i = 0; i < s->n_maps && ok; i++)
        ok = encode(s, &s->maps[i], maps + i * CUDA_MAP_BYTES);
    ok = ok && d->api->to_device(d, s->slabs[SLAB_MAPS], maps, bytes) && d->api->wait(d);
    free(maps);
    return ok || failed(f, STATUS_WORLD, "%s: cannot describe tensors: %s", d->name, d->why);
}
