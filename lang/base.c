/* base.c - memory and text. Needs nothing; everything else stands on it. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"

enum { ARENA_ALIGN = 16, ARENA_BLOCK = 64 << 10, ARENA_HEAD = 32 };

/* Blocks hang on a list, newest first; only the newest is filled. The head is padded so that what
 * follows it is aligned as malloc aligns. */
struct arena_block {
    struct arena_block *next;
    size_t used, size;
};
_Static_assert(sizeof(struct arena_block) <= ARENA_HEAD, "block head");

struct arena {
    struct arena_block *blocks;
};

static void *must(void *p)
{
    if (!p) {
        fputs("archc: out of memory: the file asks for more than this machine has\n", stderr);
        exit(4);
    }
    return p;
}

struct arena *arena_new(void)
{
    return must(calloc(1, sizeof(struct arena)));
}

void arena_free(struct arena *a)
{
    if (!a)
        return;
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(a);
}

static struct arena_block *arena_grow(struct arena *a, size_t size)
{
    size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
    struct arena_block *b = must(malloc(ARENA_HEAD + room));
    *b = (struct arena_block){a->blocks, 0, room};
    a->blocks = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > SIZE_MAX - ARENA_BLOCK)
        must(NULL);
    size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_block *b = a->blocks;
    if (!b || b->size - b->used < size)
        b = arena_grow(a, size);
    void *p = (char *)b + ARENA_HEAD + b->used;
    b->used += size;
    return memset(p, 0, size);
}

char *arena_copy(struct arena *a, const char *text, size_t length)
{
    char *p = arena_alloc(a, length + 1);
    if (length)
        memcpy(p, text, length);
    return p;
}

char *arena_vprintf(struct arena *a, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *p = arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return p;
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *p = arena_vprintf(a, format, args);
    va_end(args);
    return p;
}

static void text_room(struct text *t, size_t more)
{
    if (t->capacity - t->length > more)
        return;
    size_t want = t->capacity ? t->capacity * 2 : 256;
    if (want < t->length + more + 1)
        want = t->length + more + 1;
    t->at = must(realloc(t->at, want));
    t->capacity = want;
}

void text_addn(struct text *t, const char *s, size_t n)
{
    text_room(t, n);
    if (n)
        memcpy(t->at + t->length, s, n);
    t->length += n;
    t->at[t->length] = '\0';
}

void text_add(struct text *t, const char *s)
{
    text_addn(t, s, strlen(s));
}

void text_printf(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0) {
        text_room(t, (size_t)n);
        vsnprintf(t->at + t->length, (size_t)n + 1, format, again);
        t->length += (size_t)n;
    }
    va_end(again);
}

void text_free(struct text *t)
{
    free(t->at);
    *t = (struct text){0};
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* Two rows of the Damerau-Levenshtein table would lose transpositions: three are kept. */
int name_distance(const char *a, const char *b, int limit)
{
    enum { LONGEST = 64 };
    size_t la = strlen(a), lb = strlen(b);
    size_t gap = la > lb ? la - lb : lb - la;
    if (la > LONGEST || lb > LONGEST || gap > (size_t)limit)
        return limit + 1;
    int rows[3][LONGEST + 1];
    int *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= lb; j++)
        above[j] = (int)j;
    for (size_t i = 1; i <= la; i++) {
        int best = row[0] = (int)i;
        for (size_t j = 1; j <= lb; j++) {
            int cost = a[i - 1] != b[j - 1];
            row[j] = min_int(above[j - 1] + cost, min_int(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_int(row[j], before[j - 2] + 1);
            best = min_int(best, row[j]);
        }
        if (best > limit)
            return limit + 1;
        int *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return min_int(above[lb], limit + 1);
}
