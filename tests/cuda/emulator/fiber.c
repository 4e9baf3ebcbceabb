/* fiber.c - a stack for each thread of a block, and the switch from one to another.
 *
 * On x86-64 a switch saves the callee-saved registers only and ends with a plain ret: lanes run the
 * same code, so the processor's return predictor is right. Elsewhere, ucontext. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#ifdef WITH_ASAN
void __asan_unpoison_memory_region(void const volatile *p, size_t bytes);
#endif

enum { STACK_BYTES = 64 << 10, GUARD_BYTES = 4 << 10, MAX_STACKS = 64 << 10 };

static u8 *stacks;
static u8 guarded[MAX_STACKS];

static u8 *stack_of(int number)
{
    if (!stacks) {
        stacks = mmap(NULL, (size_t)MAX_STACKS * STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) {
            perror("emulator: stacks");
            exit(1);
        }
    }
    u8 *stack = stacks + (size_t)number * STACK_BYTES;
    if (!guarded[number] && number < 16384) { /* the kernel limits the number of mappings */
        guarded[number] = 1;
        if (mprotect(stack, GUARD_BYTES, PROT_NONE)) {
            perror("emulator: stack guard");
            exit(1);
        }
    }
    return stack;
}

bool fiber_owns(const void *p)
{
    return (u64)((const u8 *)p - stacks) < (u64)MAX_STACKS * STACK_BYTES;
}

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)

void fiber_start(struct fiber *f, int number, void (*entry)(void))
{
    u8 *stack = stack_of(number);
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack + GUARD_BYTES;
    f->context.uc_stack.ss_size = STACK_BYTES - GUARD_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, entry, 0);
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}

#else

void fiber_start(struct fiber *f, int number, void (*entry)(void))
{
    u8 *stack = stack_of(number);
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
#endif
    /* Not all at the same distance from a page: they would share a few cache sets. */
    u8 *top = stack + STACK_BYTES - (number % 61) * 64;
    void **sp = (void **)((uintptr_t)top & ~(uintptr_t)15);
    *--sp = NULL;
    *--sp = (void *)(uintptr_t)entry;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    f->stack_pointer = sp;
}

void emu_switch_stacks(void **save, void *to);
__asm__(".text\n"
        ".p2align 4\n"
        ".globl emu_switch_stacks\n"
        ".type emu_switch_stacks, @function\n"
        "emu_switch_stacks:\n"
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "ret\n"
        ".size emu_switch_stacks, . - emu_switch_stacks\n");

void fiber_switch(struct fiber *from, struct fiber *to)
{
    emu_switch_stacks(&from->stack_pointer, to->stack_pointer);
}

#endif
