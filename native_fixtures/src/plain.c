/* The smallest fixture: one plain C file, built with its debug information left
 * inside, whose `tack` is inlined into `sail` and faults there. */
#include <stddef.h>

struct sail {
    int area;
    struct sail *jib;
};

static inline int tack(const struct sail *sail) {
    return sail->jib->area;
}

__attribute__((noinline)) int sail(const struct sail *rig, int legs) {
    int reach = 0;
    while (legs-- > 0)
        reach += tack(rig);
    return reach;
}

int main(int argc, char **argv) {
    struct sail rig = {argc, NULL};
    (void)argv;
    return sail(&rig, argc + 2) + 1;
}
