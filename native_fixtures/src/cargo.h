/* A little plain C library. The dynamically linked variants load it as
 * libcargo.so, so that one stack crosses two modules of ours. */
#ifndef CARGO_H
#define CARGO_H

struct crate {
    int weight;
    const char *label;
};

typedef int (*crate_visitor)(const struct crate *crate, void *context);

/* Call `visit` for each crate of the hold, deepest first. */
int cargo_unload(const struct crate *hold, unsigned count, crate_visitor visit, void *context);

#endif
