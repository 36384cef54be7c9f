// C++: a namespace, a template, a class's method and a lambda.
extern "C" {
#include "basket.h"
int press_juice(const basket *basket);
}

namespace cider {

template <typename Number>
__attribute__((noinline)) Number squeeze(Number weight) {
    volatile Number juice = weight / 2;
    return juice;
}

class Press {
public:
    explicit Press(const basket *basket) : basket_(basket) {}
    __attribute__((noinline)) int turn() const;

private:
    const basket *basket_;
};

int Press::turn() const {
    auto crank = [this](int at) __attribute__((always_inline)) { return squeeze<int>(weigh(basket_, at)); };
    return crank(0) + crank(1);
}

}  // namespace cider

int press_juice(const basket *basket) {
    return cider::Press(basket).turn() + 1;
}
