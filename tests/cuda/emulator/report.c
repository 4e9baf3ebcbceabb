/* report.c - faults in words: kernel, block, thread, source line. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

extern char __executable_start[];

static bool catching;
static char text[2048];

void emu_catch(bool catch_faults)
{
    catching = catch_faults;
}

const char *emu_fault(void)
{
    return text;
}

u32 pc_pack(void *pc)
{
    return (u32)((uintptr_t)pc - (uintptr_t)__executable_start);
}

void *pc_unpack(u32 packed)
{
    return __executable_start + packed;
}

/* addr2line prints the innermost inlined frame first; what stands in device.h was called from
 * further out, and there is what the reader looks for. */
const char *source_line(void *pc)
{
    static char lines[4][256];
    static int turn;
    char *line = lines[turn++ & 3], program[512], command[700], frame[512];
    u64 address = (u64)((uintptr_t)pc - 1);
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n < 0 ? 0 : n] = 0;
    FILE *f = NULL;
    if (n > 0 && !strchr(program, '\'')) {
        /* Position-independent programs are loaded at an offset; others have none. */
        if (__executable_start[16] == 3) /* e_type: ET_DYN */
            address -= (uintptr_t)__executable_start;
        snprintf(command, sizeof(command), "addr2line -i -e '%s' 0x%llx 2>/dev/null", program,
                 address);
        f = popen(command, "r");
    }
    snprintf(line, sizeof(lines[0]), "(no line)");
    while (f && fgets(frame, sizeof(frame), f)) {
        frame[strcspn(frame, " \n")] = 0;
        const char *base = strrchr(frame, '/');
        base = base ? base + 1 : frame;
        if (strncmp(base, "??", 2) != 0)
            snprintf(line, sizeof(lines[0]), "%.250s", base);
        if (strncmp(base, "device", 6) != 0)
            break;
    }
    if (f)
        pclose(f);
    return line;
}

const char *thread_name(u32 id)
{
    static char names[4][64];
    static int turn;
    char *name = names[turn++ & 3];
    u32 index = id & 2047, block = id >> 11;
    int n = index == ENGINE ? snprintf(name, sizeof(names[0]), "an asynchronous operation")
                            : snprintf(name, sizeof(names[0]), "thread %u", index);
    if (emu_current && emu_current->block->number != block)
        snprintf(name + n, sizeof(names[0]) - (size_t)n, " of block %u", block);
    return name;
}

static void finish(void)
{
    if (!catching) {
        fprintf(stderr, "emulator: %s\n", text);
        exit(1);
    }
}

static void report(void *pc, const char *what)
{
    const struct emu_thread *t = emu_current;
    snprintf(text, sizeof(text), "%s, block (%u, %u, %u), thread %u (warp %u, lane %u), %s: %s",
             machine.launch->name, t->block->at.x, t->block->at.y, t->block->at.z, t->index,
             t->index / WARP, t->lane, pc ? source_line(pc) : "(no line)", what);
    finish();
}

NORETURN void fault(void *pc, const char *format, ...)
{
    char what[1400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    report(pc, what);
    abandon_launch();
}

void fault_outside(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    finish();
}

/* ---- who waits where ---- */

struct group {
    const char *what;
    void *pc;
    u32 id, block, n, first;
};

static int count_waiting(struct group *groups, int room)
{
    int n = 0;
    for (int i = 0; i < machine.n_resident; i++) {
        const struct emu_block *b = machine.resident[i];
        for (u32 t = 0; t < machine.threads; t++) {
            const struct emu_thread *thread = b->threads + t;
            if (!thread->waiting)
                continue;
            int g = 0;
            while (g < n &&
                   (groups[g].what != thread->waiting || groups[g].block != b->number ||
                    groups[g].pc != thread->waiting_pc || groups[g].id != thread->waiting_id))
                g++;
            if (g == room)
                continue;
            if (g == n)
                groups[n++] = (struct group){
                    thread->waiting, thread->waiting_pc, thread->waiting_id, b->number, 0, t};
            groups[g].n++;
        }
    }
    return n;
}

/* A warp with some lanes in a collective operation and others elsewhere. */
static const struct emu_warp *diverged(void)
{
    for (int i = 0; i < machine.n_resident; i++)
        for (u32 w = 0; w < machine.resident[i]->n_warps; w++)
            if (machine.resident[i]->warps[w].arrived)
                return machine.resident[i]->warps + w;
    return NULL;
}

void report_deadlock(void)
{
    struct group groups[6];
    char who[1200] = "deadlock: ";
    int n = count_waiting(groups, 6);
    const struct emu_warp *w = diverged();
    size_t at = strlen(who);
    if (w)
        at += (size_t)snprintf(who + at, sizeof(who) - at,
                               "lanes of a warp diverged (%08x in %s): ", w->arrived, w->op);
    for (int i = 0; i < n && at < sizeof(who) - 200; i++) {
        at += (size_t)snprintf(
            who + at, sizeof(who) - at, "%s%u thread%s from thread %u wait in %s", i ? "; " : "",
            groups[i].n, groups[i].n == 1 ? "" : "s", groups[i].first, groups[i].what);
        if (groups[i].id)
            at += (size_t)snprintf(who + at, sizeof(who) - at, " %u", groups[i].id);
        at += (size_t)snprintf(who + at, sizeof(who) - at, " at %s", source_line(groups[i].pc));
    }
    report(n ? groups[0].pc : NULL, who);
}
