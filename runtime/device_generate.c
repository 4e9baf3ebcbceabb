/* device_generate.c - continuations of one prompt on a device, which also chooses the tokens.
 *
 * A step is one replay of the decode phase: of one row, or of all slots. It reads each slot's token
 * and length from device memory and leaves the next ones there, so that the host queues step after
 * step without waiting; of each it fetches the chosen tokens, and looks at them AHEAD steps later.
 * By then a sequence may have run a few tokens past its end: they are dropped.
 *
 * The prompt is processed once. Its whole pages are shared by all sequences, its last, partly
 * filled one is copied for each. A sequence gets the pages it may need when it starts and gives
 * them back when it ends; where slots or pages are short, the others wait for that. Its first step
 * feeds the prompt's last token. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

enum { AHEAD = 4 }; /* steps queued before the first one's tokens are looked at */

/* A row of the decode phase, which is also its slot. */
struct row {
    int sequence; /* -1: none */
    int queued, seen;
    int *pages; /* [own], of the sequence alone */
};

/* What is copied to the device while steps are under way: pinned, and written only when the copy
 * before is known to be over. */
struct pinned {
    int *token;                     /* [AHEAD][rows] chosen */
    int *slot;                      /* [AHEAD][rows] */
    int *table;                     /* [rows][slot_pages] */
    int *next;                      /* [rows] */
    int *length;                    /* [rows] */
    struct cuda_sampling *sampling; /* [rows] */
};

struct generator {
    const struct continuations *g;
    struct session s;
    enum archrt_phase_id phase;
    int rows;
    int shared, partial, own; /* pages: whole ones of the prompt, 0 or 1, and of each sequence */
    int *free_page, n_free;
    struct row *row;
    int *flight; /* [AHEAD][rows] whose tokens a step chose; -1: nobody's */
    void *pinned;
    struct pinned at;
    int started, step, fetched; /* sequences; steps queued, steps looked at */
    bool over;
};

/* ---- pages and memory ---- */

static int pages_of(int tokens)
{
    return (tokens + KV_PAGE - 1) / KV_PAGE;
}

/* As many sequences at once as there are slots; fewer where memory is short. */
static bool open_session(struct generator *t, struct failure *f)
{
    const struct archrt_cuda *c = archrt_model.cuda;
    const struct continuations *g = t->g;
    int fed = g->n - 1;
    t->shared = fed / KV_PAGE;
    t->partial = fed % KV_PAGE != 0;
    t->own = pages_of(fed + g->most) - t->shared;
    int at_once = g->count < c->slots ? g->count : c->slots;
    int prompt = t->shared + t->partial;
    while (!session_open(&t->s, the_device(), c, false, prompt + at_once * t->own, f))
        if ((at_once /= 2) == 0)
            return false;
    t->phase = at_once > 1 ? ARCHRT_PHASE_BATCH : ARCHRT_PHASE_DECODE;
    t->rows = at_once > 1 ? c->slots : 1;
    t->n_free = at_once * t->own;
    t->free_page = need(malloc((size_t)t->n_free * sizeof *t->free_page));
    for (int i = 0; i < t->n_free; i++)
        t->free_page[i] = prompt + i;
    return true;
}

static bool open_rows(struct generator *t, struct failure *f)
{
    struct device *d = t->s.device;
    size_t rows = (size_t)t->rows, table = rows * (size_t)t->s.cuda->slot_pages;
    size_t ints = 2 * AHEAD * rows + table + 2 * rows;
    if (!d->api->host_alloc(d, rows * sizeof *t->at.sampling + ints * sizeof(int), &t->pinned))
        return failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
    t->at.sampling = t->pinned;
    t->at.token = (int *)(void *)(t->at.sampling + rows);
    t->at.slot = t->at.token + AHEAD * rows;
    t->at.table = t->at.slot + AHEAD * rows;
    t->at.next = t->at.table + table;
    t->at.length = t->at.next + rows;
    memset(t->at.table, 0, table * sizeof(int));
    t->row = need(calloc(rows, sizeof *t->row));
    t->flight = need(malloc(AHEAD * rows * sizeof *t->flight));
    for (size_t r = 0; r < rows; r++) {
        t->row[r].sequence = -1;
        t->row[r].pages = need(malloc((size_t)t->own * sizeof(int)));
    }
    return true;
}

static void release(struct generator *t)
{
    struct device *d = t->s.device;
    if (d)
        d->api->wait(d);
    if (t->pinned)
        d->api->host_release(d, t->pinned);
    for (int r = 0; t->row && r < t->rows; r++)
        free(t->row[r].pages);
    free(t->row);
    free(t->flight);
    free(t->free_page);
    session_close(&t->s);
}

/* ---- the prompt ---- */

static bool put_row_pages(struct generator *t, int row, struct failure *f)
{
    size_t n = (size_t)t->s.cuda->slot_pages, at = (size_t)row * n;
    return session_put(&t->s, SLAB_PAGES, at * sizeof(int), t->at.table + at, n * sizeof(int), f);
}

/* All of it but the last token, into the pool's first pages. */
static bool feed_prompt(struct generator *t, struct failure *f)
{
    int fed = t->g->n - 1, chunk = t->s.cuda->chunk;
    for (int i = 0; i < t->shared + t->partial; i++)
        t->at.table[i] = i;
    if (!put_row_pages(t, 0, f))
        return false;
    for (int at = 0; at < fed; at += chunk) {
        int n = fed - at < chunk ? fed - at : chunk;
        if (!device_put_rows(&t->s, t->g->prompt + at, NULL, n, 0, at, false, f) ||
            !session_run(&t->s, ARCHRT_PHASE_PREFILL, 0, f))
            return false;
    }
    return session_wait(&t->s, f);
}

/* What the decode phase reads that does not change. */
static bool put_call(struct generator *t, struct failure *f)
{
    struct cuda_call call = {.rows = t->rows, .head_rows = t->rows};
    int *head = need(malloc((size_t)t->rows * sizeof *head));
    for (int r = 0; r < t->rows; r++)
        head[r] = r;
    bool ok = session_put(&t->s, SLAB_HEAD_ROW, 0, head, (size_t)t->rows * sizeof *head, f) &&
              session_put(&t->s, SLAB_CALL, 0, &call, sizeof call, f);
    free(head);
    return ok;
}

/* ---- sequences come and go ---- */

static char *cache_page(const struct generator *t, int layer, int page)
{
    size_t number = (size_t)layer * (size_t)t->s.pool_pages + (size_t)page;
    return (char *)t->s.slabs[SLAB_CACHE] + number * t->s.cuda->page_bytes;
}

static bool copy_partial(struct generator *t, int to, struct failure *f)
{
    struct device *d = t->s.device;
    for (int layer = 0; layer < t->s.cuda->layers; layer++)
        if (!d->api->copy(d, cache_page(t, layer, to), cache_page(t, layer, t->shared),
                          t->s.cuda->page_bytes))
            return failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
    return true;
}

static bool start_sequence(struct generator *t, int r, struct failure *f)
{
    struct session *s = &t->s;
    struct row *row = &t->row[r];
    int *table = t->at.table + (size_t)r * (size_t)s->cuda->slot_pages;
    *row = (struct row){.sequence = t->started++, .pages = row->pages};
    for (int i = 0; i < t->shared; i++)
        table[i] = i;
    for (int i = 0; i < t->own; i++)
        table[t->shared + i] = row->pages[i] = t->free_page[--t->n_free];
    t->at.next[r] = t->g->prompt[t->g->n - 1];
    t->at.length[r] = t->g->n - 1;
    t->at.sampling[r] = t->g->sampling[row->sequence];
    size_t at = (size_t)r;
    return put_row_pages(t, r, f) && (!t->partial || copy_partial(t, row->pages[0], f)) &&
           session_put(s, SLAB_NEXT, at * sizeof(int), &t->at.next[r], sizeof(int), f) &&
           session_put(s, SLAB_LENGTH, at * sizeof(int), &t->at.length[r], sizeof(int), f) &&
           session_put(s, SLAB_SAMPLING, at * sizeof(struct cuda_sampling), &t->at.sampling[r],
                       sizeof(struct cuda_sampling), f);
}

static bool start_sequences(struct generator *t, struct failure *f)
{
    for (int r = 0; r < t->rows && t->started < t->g->count && t->n_free >= t->own; r++)
        if (t->row[r].sequence < 0 && !start_sequence(t, r, f))
            return false;
    return true;
}

static void end_sequence(struct generator *t, struct row *row)
{
    row->sequence = -1;
    for (int i = t->own; i-- > 0;)
        t->free_page[t->n_free++] = row->pages[i];
}

/* ---- steps ---- */

static bool decodes(const struct generator *t, int r)
{
    return t->row[r].sequence >= 0 && t->row[r].queued < t->g->most;
}

static bool any_decodes(const struct generator *t)
{
    for (int r = 0; r < t->rows; r++)
        if (decodes(t, r))
            return true;
    return false;
}

static bool queue_step(struct generator *t, struct failure *f)
{
    struct device *d = t->s.device;
    int cell = t->step % AHEAD, at = cell * t->rows;
    int before = (t->step + AHEAD - 1) % AHEAD * t->rows;
    size_t bytes = (size_t)t->rows * sizeof(int);
    for (int r = 0; r < t->rows; r++) {
        t->at.slot[at + r] = decodes(t, r) ? r : -1;
        t->flight[at + r] = decodes(t, r) ? t->row[r].sequence : -1;
        t->row[r].queued += decodes(t, r);
    }
    bool same = t->step > 0 && memcmp(t->at.slot + at, t->at.slot + before, bytes) == 0;
    if ((!same && !session_put(&t->s, SLAB_SLOT, 0, t->at.slot + at, bytes, f)) ||
        !session_run(&t->s, t->phase, 0, f) ||
        !session_get(&t->s, t->at.token + at, SLAB_NEXT, 0, bytes, f))
        return false;
    t->step++;
    return d->api->place(d, cell) || failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
}

/* Hands on the tokens of the first step that has not been looked at. */
static bool fetch_step(struct generator *t, struct failure *f)
{
    struct device *d = t->s.device;
    int cell = t->fetched++ % AHEAD, at = cell * t->rows;
    if (!d->api->reach(d, cell))
        return failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
    for (int r = 0; r < t->rows && !t->over; r++) {
        struct row *row = &t->row[r];
        if (t->flight[at + r] < 0 || row->sequence != t->flight[at + r])
            continue; /* idle, or past its end */
        enum continuation_answer answer = t->g->take(t->g->arg, row->sequence, t->at.token[at + r]);
        t->over = answer == CONTINUATION_OVER;
        if (answer != CONTINUATION_ON || ++row->seen == t->g->most)
            end_sequence(t, row);
    }
    return true;
}

static bool run(struct generator *t, struct failure *f)
{
    while (!t->over) {
        bool waits = t->step - t->fetched == AHEAD || (!any_decodes(t) && t->fetched < t->step);
        if ((waits && !fetch_step(t, f)) || !start_sequences(t, f))
            return false;
        if (any_decodes(t)) {
            if (!queue_step(t, f))
                return false;
        } else if (t->fetched == t->step) {
            return true;
        }
    }
    return true;
}

bool device_generate(const float *params, const struct continuations *g, struct failure *f)
{
    struct generator t = {.g = g};
    bool ok = open_session(&t, f) && device_put_weights(&t.s, params, f) && session_wait(&t.s, f) &&
              open_rows(&t, f);
    if (ok)
        g->loaded(g->arg);
    ok = ok && feed_prompt(&t, f) && put_call(&t, f) && run(&t, f);
    release(&t);
    return ok;
}
