/* crashy MODE: crash in one of many ways, each with an instructive stack. */
#define _GNU_SOURCE
#include "crashy.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct mode {
    const char *name;
    void (*run)(void);
};

static const struct mode modes[] = {
    {"abort", mode_abort},
    {"altstack", mode_altstack},
    {"assert", mode_assert},
    {"bus", mode_bus},
    {"cold", mode_cold},
    {"divide", mode_divide},
    {"inlines", mode_inlines},
    {"interrupt", mode_interrupt},
    {"lambda", mode_lambda},
    {"library", mode_library},
    {"noreturn", mode_noreturn},
    {"null_call", mode_null_call},
    {"operators", mode_operators},
    {"overflow", mode_overflow},
    {"recursion", mode_recursion},
    {"signal", mode_signal},
    {"static_chain", mode_static_chain},
    {"tail_call", mode_tail_call},
    {"templates", mode_templates},
    {"threads", mode_threads},
    {"trap", mode_trap},
    {"virtual", mode_virtual},
    {"vla", mode_vla},
    {"waiters", mode_waiters},
    {"wild_call", mode_wild_call},
    {"wild_read", mode_wild_read},
};

void announce_thread(const char *name) {
    char line[64];
    prctl(PR_SET_NAME, name);
    int length = snprintf(line, sizeof line, "thread %ld %s\n", syscall(SYS_gettid), name);
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(3);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
            if (strcmp(argv[1], modes[i].name) == 0) {
                announce_thread("crashy");
                modes[i].run();
                return 1; /* a mode that comes back has failed to crash */
            }
        }
    }
    static const char usage[] = "usage: crashy MODE\n";
    return write(STDERR_FILENO, usage, sizeof usage - 1) < 0 ? 3 : 2;
}
