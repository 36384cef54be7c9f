/* Stacks that cross a signal frame. */
#define _GNU_SOURCE
#include "crashy.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static NOINLINE int read_gauge(const int *gauge) {
    return *(const volatile int *)gauge;
}

static void install(int signal_number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(signal_number, &action, NULL);
}

/* signal: the handler of a signal the program sends to itself calls a function
 * that faults. From there the stack runs through the handler and the C library's
 * restorer into raise() and down to main. */

static void on_hail(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    int level = read_gauge(OPAQUE((const int *)0x50));
    KEEP_FRAME();
    exit(level + signal_number);
}

static NOINLINE void hail(int signal_number) {
    raise(signal_number);
    KEEP_FRAME();
}

void mode_signal(void) {
    install(SIGUSR1, on_hail, 0);
    hail(SIGUSR1);
    KEEP_FRAME();
}

/* interrupt: a timer interrupts a leaf function at an arbitrary instruction.
 * The frame below the signal frame was not calling anybody: its program counter
 * must be looked up as it is, not as a return address. */

static volatile unsigned bells;

static void on_alarm(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    int level = read_gauge(OPAQUE((const int *)0x58));
    KEEP_FRAME();
    exit(level + signal_number);
}

static NOINLINE unsigned keep_watch(unsigned turn) {
    for (;;) {
        turn = turn * 2654435761u + 1;
        if (turn == bells + 7)
            bells = turn;
    }
    return turn;
}

void mode_interrupt(void) {
    const struct itimerval soon = {{0, 0}, {0, 30000}};
    install(SIGALRM, on_alarm, 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    exit((int)keep_watch(1));
}

/* altstack: a fault is handled on an alternate stack, whose handler gives up.
 * The stack pointer leaps from one memory area to another at the signal frame. */

static _Alignas(16) char lifeboat[32768];

static NOINLINE void abandon_ship(int signal_number) {
    if (signal_number == SIGSEGV)
        __builtin_trap();
    KEEP_FRAME();
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    abandon_ship(signal_number);
    KEEP_FRAME();
}

static NOINLINE int inspect_hull(const int *plates, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++)
        sum += read_gauge(plates + i);
    return sum;
}

void mode_altstack(void) {
    const stack_t stack = {.ss_sp = lifeboat, .ss_flags = 0, .ss_size = sizeof lifeboat};
    sigaltstack(&stack, NULL);
    install(SIGSEGV, on_fault, SA_ONSTACK);
    exit(inspect_hull(OPAQUE((const int *)0x60), 3));
}
