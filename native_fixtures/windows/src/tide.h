/* Calls that are inlined. */
#ifndef TIDE_H
#define TIDE_H

static inline __attribute__((always_inline)) int water_level(const volatile int *reading) {
    return *reading * 2;
}

static inline __attribute__((always_inline)) int tide_at(const volatile int *reading, int hour) {
    int level = water_level(reading);
    return level + hour;
}

int tide_table(int port, int hour);

#endif
