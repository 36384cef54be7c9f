/* Ways to crash. Every function on the way notes its return address first; the one at fault does too. */
#include "ferry.h"

#include "tide.h"

const volatile int *volatile gauge = 0;
volatile int logbook = 3;

int NOINLINE read_gauge(const volatile int *reading) {
    NOTE();
    return *reading + 1;
}

/* chain: functions that save registers, of which some are still in use where they call. */

static int NOINLINE sound(int depth, int *log) {
    NOTE();
    log[depth & 3] = depth;
    int found = read_gauge(gauge);
    return found + log[0] + log[1] * depth;
}

static int NOINLINE survey(int depth, int width, int length) {
    NOTE();
    int log[4] = {depth, width, length, depth ^ width};
    int area = sound(depth + width, log) * length;
    return area + log[2] * width - log[3] * depth;
}

static int NOINLINE chart(int depth) {
    NOTE();
    int first = survey(depth, depth * 2, depth * 3);
    return first + survey(first, depth, 1) * logbook;
}

static int NOINLINE mode_chain(int n) {
    NOTE();
    return chart(n) + n;
}

/* conventions: on x86 the callee removes the arguments of the first two; the frames lie between them. */

static int NOINLINE API load_hold(int a, int b, int c, int d, int e) {
    NOTE();
    return read_gauge(gauge) + a * b + c * d + e;
}

static int NOINLINE __fastcall load_deck(int a, int b, int c, int d) {
    NOTE();
    int held = load_hold(a, b, c, d, a ^ d);
    return held * a - b * c + d;
}

static int NOINLINE load_all(int a, int b, int c) {
    NOTE();
    int deck = load_deck(a, b, c, a + b);
    return load_hold(deck, a, b, c, logbook) + deck * c;
}

static int NOINLINE mode_conventions(int n) {
    NOTE();
    return load_all(n, n + 1, n + 2) * n;
}

/* recursion */

static int NOINLINE descend(int steps, int level) {
    NOTE();
    if (steps == 0)
        return read_gauge(gauge) + level;
    return descend(steps - 1, level + logbook) * level + steps;
}

static int NOINLINE mode_recursion(int n) {
    NOTE();
    return descend(60, n) + n;
}

/* overflow: the stack ends below some frame of many. */

static int NOINLINE dive(int level) {
    NOTE();
    volatile int ballast[700];
    ballast[level & 511] = level;
    ballast[0] = logbook;
    return (logbook ? dive(level + 1) : level) + ballast[level & 255];
}

static int NOINLINE mode_overflow(int n) {
    NOTE();
    return dive(n) + n;
}

/* sink: as overflow, with so much at a time that the stack ends in the compiler's routine that reaches for its pages. */

static int NOINLINE sink(int level) {
    NOTE();
    volatile int *water = __builtin_alloca(20000 + logbook);
    water[level & 4095] = level;
    return (logbook ? sink(level + 1) : level) + water[level & 255];
}

static int NOINLINE mode_sink(int n) {
    NOTE();
    return sink(n) + n;
}

/* vla, aligned, hold: a frame pointer into the middle, a realigned stack, and a frame of more than one page. */

static int NOINLINE plot(volatile int *points, int count) {
    NOTE();
    points[count - 1] = count;
    return read_gauge(gauge) + points[0];
}

static int NOINLINE plot_chart(int count) {
    NOTE();
    volatile int points[count];
    volatile int *more = __builtin_alloca(count * 8);
    more[0] = points[0] = count;
    return plot(points, count) + more[0] + points[count / 2];
}

static int NOINLINE mode_vla(int n) {
    NOTE();
    return plot_chart(n + 20) + n;
}

static int NOINLINE trim(volatile int *tanks) {
    NOTE();
    return read_gauge(gauge) + tanks[7];
}

static int NOINLINE trim_tanks(int weight) {
    NOTE();
    volatile int tanks[16] __attribute__((aligned(64)));
    tanks[weight & 15] = weight;
    return trim(tanks) + tanks[0] * weight;
}

static int NOINLINE mode_aligned(int n) {
    NOTE();
    return trim_tanks(n) * n;
}

static int NOINLINE stow(int pieces) {
    NOTE();
    volatile int hold[5000];
    hold[pieces] = pieces;
    return plot(hold, 100) + hold[pieces * 2];
}

static int NOINLINE mode_hold(int n) {
    NOTE();
    return stow(n) - n;
}

/* doubles: on x86_64 vector registers are saved. */

static double NOINLINE drift(double wind, double current, double hours, double heading) {
    NOTE();
    double way = wind * hours, off = current * hours;
    int reading = read_gauge(gauge);
    return way * reading + off * heading + wind * current + (way - off) * hours;
}

static int NOINLINE mode_doubles(int n) {
    NOTE();
    double at = n * 1.5, set = n * 0.25, time = n + 2.0;
    double gone = drift(at, set, time, 0.5);
    return (int)(gone * at + set * time + drift(gone, at, set, time));
}

/* library: through a pointer to an imported function, and through the linker's import stub. */

static int NOINLINE load(int weight) {
    NOTE();
    return read_gauge(gauge) + weight;
}

static int NOINLINE mode_library(int n) {
    NOTE();
    static int (*volatile lift)(int (*)(int), int) = winch_lift;
    return lift(load, n) + n;
}

static int NOINLINE mode_stub(int n) {
    NOTE();
    static int (*volatile lower)(int (*)(int), int) = winch_lower;
    return lower(load, n) * n;
}

/* noreturn: the call is the last instruction of its function, and what it returns to belongs to the next one. */

static void __attribute__((noreturn)) NOINLINE run_aground(int speed) {
    NOTE();
    logbook = read_gauge(gauge) + speed;
    ExitProcess(speed);
    __builtin_unreachable();
}

static int NOINLINE full_ahead(int speed) {
    NOTE();
    if (speed < 1000)
        run_aground(speed);
    return speed * 2;
}

static int NOINLINE mode_noreturn(int n) {
    NOTE();
    return full_ahead(n) + n;
}

/* tail_call: hand_over is gone from the stack. */

static int NOINLINE deliver(int parcels) {
    NOTE();
    return read_gauge(gauge) + parcels;
}

static int NOINLINE hand_over(int parcels) {
    __attribute__((musttail)) return deliver(parcels + logbook);
}

static int NOINLINE mode_tail_call(int n) {
    NOTE();
    return hand_over(n) + n;
}

/* inlines: three levels of inlined calls, one from a header. */

static inline __attribute__((always_inline)) int next_port(const volatile int *reading) {
    return tide_at(reading, 5) + 2;
}

static int NOINLINE voyage(int ports) {
    NOTE();
    int reached = next_port(gauge);
    return reached * ports;
}

static int NOINLINE mode_inlines(int n) {
    NOTE();
    return voyage(n) + n;
}

/* null_call: the program counter is 0. */

static int NOINLINE give_order(int order) {
    NOTE();
    static int (*volatile answer)(int) = 0;
    return answer(order) + order;
}

static int NOINLINE mode_null_call(int n) {
    NOTE();
    return give_order(n) * n;
}

/* thread: not the first one crashes. */

static unsigned long API navigator(void *chart_table) {
    NOTE();
    return (unsigned long)(chart(*(int *)chart_table) + logbook);
}

static int NOINLINE mode_thread(int n) {
    int depth = n;
    crash_in_thread(navigator, &depth);
    return depth;
}

/* step: a function stopped between two of its instructions. It has been noted before. */

static int NOINLINE haul(int length) {
    int before = logbook;
    int hauled = tide_table(length, before);
    return hauled * before + tide_table(before, hauled) * length;
}

static int NOINLINE mode_step(int n) {
    NOTE();
    return call_stepping(n, haul) + n;
}

static const struct {
    const char *name;
    mode run;
} modes[] = {
    {"aligned", mode_aligned},
    {"chain", mode_chain},
    {"conventions", mode_conventions},
    {"doubles", mode_doubles},
    {"hold", mode_hold},
    {"inlines", mode_inlines},
    {"library", mode_library},
    {"noreturn", mode_noreturn},
    {"null_call", mode_null_call},
    {"overflow", mode_overflow},
    {"recursion", mode_recursion},
    {"sink", mode_sink},
    {"step", mode_step},
    {"stub", mode_stub},
    {"tail_call", mode_tail_call},
    {"thread", mode_thread},
    {"vla", mode_vla},
};

mode find_mode(const char *name) {
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
        const char *a = name, *b = modes[i].name;
        while (*a && *a == *b)
            a++, b++;
        if (*a == *b)
            return modes[i].run;
    }
    return 0;
}
