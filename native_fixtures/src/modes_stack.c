/* Stacks in plain C: what each call instruction, frame layout and fault kind
 * leaves for an unwinder. */
#define _GNU_SOURCE
#include "cargo.h"
#include "crashy.h"

#include <alloca.h>
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* static_chain: three static functions, the innermost of them small enough to
 * be inlined at -O2, fault on a null structure's member. */

struct buoy {
    int depth;
    int drift[5];
    struct buoy *next;
};

static int sound(const struct buoy *buoy) {
    return buoy->drift[4] + buoy->depth;
}

static NOINLINE int sound_chain(const struct buoy *first, int limit) {
    int sum = 0;
    for (const struct buoy *buoy = first; limit-- > 0; buoy = buoy->next)
        sum += sound(buoy);
    return sum;
}

static NOINLINE int survey(int limit) {
    static struct buoy last = {3, {0}, NULL};
    static struct buoy first = {7, {0}, &last};
    int sum = sound_chain(OPAQUE(&first), limit);
    KEEP_FRAME();
    return sum + 1;
}

void mode_static_chain(void) {
    exit(survey(OPAQUE(5)));
}

/* recursion: a bounded descent of 60 frames whose work after the call keeps the
 * optimizer from turning it into a loop. */

static NOINLINE int descend(int fathoms, const int *bottom) {
    volatile int here = fathoms;
    if (fathoms == 0)
        return *OPAQUE(bottom);
    int below = descend(fathoms - 1, bottom);
    return below + here;
}

void mode_recursion(void) {
    exit(descend(OPAQUE(60), NULL));
}

/* vla: variable-length arrays and alloca force a frame pointer even under
 * -fomit-frame-pointer, because the stack pointer moves by a runtime amount. */

static NOINLINE int plot_points(int count) {
    int points[count];
    for (int i = 0; i < count; i++)
        points[i] = count - i;
    return *OPAQUE(&points[count - 1]) + *OPAQUE((volatile int *)8);
}

static NOINLINE int plot_chart(int bytes) {
    char *chart = alloca((size_t)bytes);
    memset(chart, bytes, (size_t)bytes);
    int plotted = plot_points(bytes / 3);
    return plotted + *OPAQUE(chart);
}

void mode_vla(void) {
    exit(plot_chart(OPAQUE(333)));
}

/* null_call and wild_call: a call through a bad pointer leaves the program
 * counter outside every module, so only the return address just pushed tells
 * where the call was. */

typedef int (*order)(int);

static NOINLINE int give_order(order order, int heading) {
    int answer = order(heading);
    return answer + heading;
}

void mode_null_call(void) {
    exit(give_order(OPAQUE((order)NULL), 90));
}

static int chart_data[16] = {1, 2, 3};

void mode_wild_call(void) {
    exit(give_order(OPAQUE((order)chart_data), 270));
}

/* wild_read: an address that is not canonical on x86-64. The processor does not
 * tell which it was: the signal says SI_KERNEL and address 0. */

static NOINLINE int read_chart(const int *entry, int scale) {
    return *entry * scale;
}

void mode_wild_read(void) {
    const int *nowhere = (const int *)(uintptr_t)0x5deadbeefdeadbe0;
    exit(read_chart(OPAQUE(nowhere), 2) + 1);
}

/* noreturn: `run_aground` ends with a call that never comes back, so its return
 * address is one past its last instruction and may belong to the next function. */

__attribute__((noreturn)) static NOINLINE void hull_breach(const char *where) {
    for (;;)
        *OPAQUE((volatile char *)0x20) = *where;
}

__attribute__((noreturn)) static NOINLINE void run_aground(void) {
    hull_breach("reef");
}

void mode_noreturn(void) {
    run_aground();
}

/* cold: the compiler moves the unlikely branch, from which the fault comes, out
 * to .text.unlikely: one function, two address ranges. */

static __attribute__((cold)) NOINLINE int man_overboard(int heading) {
    return heading / *OPAQUE((volatile int *)0x40);
}

static NOINLINE int steer(int heading, const int *rudder) {
    if (__builtin_expect(heading > 359, 0)) {
        int lost = man_overboard(heading);
        KEEP_FRAME();
        return lost - heading;
    }
    return heading + *rudder;
}

void mode_cold(void) {
    int rudder = 5;
    exit(steer(OPAQUE(400), OPAQUE(&rudder)));
}

/* tail_call: at -O2 `relay` jumps to `deliver` and leaves no frame behind; call
 * site entries in the debug information let a debugger show it all the same. */

static NOINLINE int deliver(const int *message) {
    return *(const volatile int *)message * 3;
}

static NOINLINE int relay(const int *message) {
    return deliver(message);
}

void mode_tail_call(void) {
    int delivered = relay(OPAQUE((const int *)0x30));
    exit(delivered + 1);
}

/* abort and assert: the innermost frames belong to the C library. */

static NOINLINE void give_up(int reason) {
    if (reason > 0)
        abort();
    KEEP_FRAME();
}

void mode_abort(void) {
    give_up(OPAQUE(1));
    KEEP_FRAME();
}

static NOINLINE void check_bearing(int degrees) {
    assert(degrees < 360 && "bearing out of range");
    KEEP_FRAME();
}

void mode_assert(void) {
    check_bearing(OPAQUE(361));
    KEEP_FRAME();
}

/* divide, trap and bus: other signals than SIGSEGV. */

static NOINLINE int average(int sum, int count) {
    return sum / count;
}

void mode_divide(void) {
    exit(average(OPAQUE(100), OPAQUE(0)) + 1);
}

static NOINLINE void scuttle(void) {
    __builtin_trap();
}

void mode_trap(void) {
    scuttle();
}

/* Touching a mapped page that lies wholly beyond the end of its file. */
static NOINLINE int read_past_end(const int *page) {
    return page[1024 + 6];
}

void mode_bus(void) {
    int file = memfd_create("logbook", 0);
    if (file < 0 || ftruncate(file, 4096) != 0)
        exit(4);
    const int *page = mmap(NULL, 8192, PROT_READ, MAP_SHARED, file, 0);
    exit(read_past_end(OPAQUE(page)) + 1);
}

/* library: a visitor of ours, called back from inside libcargo.so, faults. */

static int weigh(const struct crate *crate, void *context) {
    int *total = context;
    *total += crate->weight;
    return crate->label[0];
}

void mode_library(void) {
    static const struct crate hold[] = {{10, NULL}, {20, "salt"}, {30, "rope"}};
    int total = 0;
    int labels = cargo_unload(OPAQUE(&hold[0]), 3, weigh, &total);
    exit(labels + total);
}
