/* Functions that exist only where they are inlined. */
#pragma once

#define INLINED static inline __attribute__((always_inline))

struct basket {
    volatile int *fruit;
    int count;
};

INLINED int weigh(const struct basket *basket, int at) {
    return basket->fruit[at] * 3;
}

INLINED int heaviest(const struct basket *basket) {
    int most = 0;
    for (int at = 0; at < basket->count; at++) {
        int weight = weigh(basket, at);
        if (weight > most)
            most = weight;
    }
    return most;
}
