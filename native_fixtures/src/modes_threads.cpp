// Several threads, each named and each in a function known beforehand.
#include "crashy.h"
#include "estimate.hpp"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

namespace {

using Position = nav::Vector<double>;
using Log = nav::Track<Position, 8>;

constexpr size_t ample_stack = 65536;
constexpr size_t scant_stack = 16384;

pthread_barrier_t muster;
pthread_mutex_t helm_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t helm_free = PTHREAD_COND_INITIALIZER;
volatile unsigned tally;

// Long enough for the other threads to arrive where they are to be found.
constexpr long settle_nanoseconds = 150'000'000;

NOINLINE void rest(time_t seconds, long nanoseconds) {
    const timespec pause = {seconds, nanoseconds};
    nanosleep(&pause, nullptr);
    KEEP_FRAME();
}

class Crew {
public:
    // Sleeps in the kernel.
    static void *lookout(void *) {
        report("lookout");
        rest(60, 0);
        return nullptr;
    }

    // Computes: interrupted at any instruction.
    static void *sounder(void *) {
        report("sounder");
        return count_fathoms(OPAQUE(11)) != 0 ? const_cast<unsigned *>(&tally) : nullptr;
    }

    // Waits for a condition that never comes.
    static void *helmsman(void *) {
        report("helmsman");
        pthread_mutex_lock(&helm_lock);
        while (tally != UINT_MAX)
            pthread_cond_wait(&helm_free, &helm_lock);
        pthread_mutex_unlock(&helm_lock);
        return nullptr;
    }

    // Crashes, below templates and inlined calls.
    static void *navigator(void *argument) {
        report("navigator");
        rest(0, settle_nanoseconds);
        return reckon(*static_cast<Log *>(argument)) > 0 ? argument : nullptr;
    }

    // Goes deeper until its stack ends at the guard page.
    static void *diver(void *) {
        report("diver");
        return dive(1) != 0 ? const_cast<unsigned *>(&tally) : nullptr;
    }

private:
    static void report(const char *name) {
        announce_thread(name);
        pthread_barrier_wait(&muster);
    }

    NOINLINE static unsigned count_fathoms(int seed) {
        unsigned fathoms = static_cast<unsigned>(seed);
        while (fathoms != tally) {
            fathoms = fathoms * 1664525U + 1013904223U;
            fathoms |= 1U;
        }
        return fathoms;
    }

    NOINLINE static int dive(int depth) {
        volatile int lungs[48] = {depth};
        const int deeper = tally == UINT_MAX ? 0 : dive(depth + 1);
        return deeper + lungs[0];
    }

    // A lambda handed to a method template, and in it a chain of inlined calls.
    NOINLINE static double reckon(const Log &log) {
        const auto *knots = OPAQUE(reinterpret_cast<const double *>(0x18));
        const double sum = log.fold(0.0, [&](double total, const Position &point) {
            const Position fix = nav::estimate::advance(point, {0.6, 0.8}, knots, total + 4.0);
            return total + fix.east;
        });
        KEEP_FRAME();
        return sum;
    }
};

void muster_crew(unsigned others) {
    pthread_barrier_init(&muster, nullptr, others + 1);
}

pthread_t enlist(void *(*duty)(void *), void *argument, size_t stack_size = ample_stack) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_size);
    if (pthread_create(&thread, &attributes, duty, argument) != 0)
        exit(5);
    return thread;
}

}  // namespace

// threads: a worker crashes while the main thread waits to join it, a second
// worker sleeps and a third computes.
extern "C" void mode_threads() {
    const Position origin{1.0, 2.0};
    Log log(&origin);
    log.add({3.0, 4.0});
    muster_crew(3);
    enlist(Crew::lookout, nullptr);
    enlist(Crew::sounder, nullptr);
    const pthread_t navigator = enlist(Crew::navigator, &log);
    pthread_barrier_wait(&muster);
    pthread_join(navigator, nullptr);
    exit(1);
}

// waiters: the main thread aborts while one worker waits on a condition variable
// and another computes.
extern "C" void mode_waiters() {
    muster_crew(2);
    enlist(Crew::helmsman, nullptr);
    enlist(Crew::sounder, nullptr);
    pthread_barrier_wait(&muster);
    rest(0, settle_nanoseconds);
    abort();
}

// overflow: a worker runs out of stack; its stack pointer is in the guard page or
// just above.
extern "C" void mode_overflow() {
    muster_crew(1);
    const pthread_t diver = enlist(Crew::diver, nullptr, scant_stack);
    pthread_barrier_wait(&muster);
    pthread_join(diver, nullptr);
    exit(1);
}
