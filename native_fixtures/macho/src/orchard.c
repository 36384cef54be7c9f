/* C: two levels of inlined calls from a header, static and exported functions. */
#include "basket.h"

int press_juice(const struct basket *basket);
int barn_store(int litres);

__attribute__((noinline)) static int pick(const struct basket *basket) {
    int most = heaviest(basket);
    return most + weigh(basket, 0);
}

__attribute__((noinline)) int harvest(volatile int *trees, int count) {
    struct basket basket = {trees, count};
    int total = pick(&basket);
    total += press_juice(&basket);
    return barn_store(total) + 1;
}
