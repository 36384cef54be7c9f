#define BUILDING_WINCH
#include "winch.h"

#define NOTE() (trail.address[trail.length++ & (TRAIL_SIZE - 1)] = __builtin_return_address(0))

struct trail trail = {0};

static __attribute__((noinline)) int turn(int (*load)(int), int weight, int turns) {
    NOTE();
    int strain = load(weight + turns);
    return strain * turns - weight;
}

int winch_lift(int (*load)(int), int weight) {
    NOTE();
    return turn(load, weight * 3, 7) + weight;
}

int winch_lower(int (*load)(int), int weight) {
    NOTE();
    return turn(load, weight - 2, 5) ^ weight;
}

int __stdcall DllMain(void *instance, unsigned long reason, void *reserved) {
    return instance != 0 || reason || reserved;
}
