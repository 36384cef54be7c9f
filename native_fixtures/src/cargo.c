#include "cargo.h"

/* Static, and reached only through its exported caller: its name is in the
 * debug information and the full symbol table, never among dynamic symbols. */
static __attribute__((noinline)) int lift(const struct crate *crate, crate_visitor visit,
                                          void *context) {
    int lifted = visit(crate, context);
    return lifted + crate->weight;
}

__attribute__((visibility("default"))) int cargo_unload(const struct crate *hold, unsigned count,
                                                        crate_visitor visit, void *context) {
    int total = 0;
    while (count-- > 0)
        total += lift(&hold[count], visit, context);
    return total;
}
