// A fixed-size log of positions, and algorithms over it.
#pragma once

#include "vector.hpp"

namespace nav {

template <typename Point, unsigned Capacity>
class Track {
public:
    explicit Track(const Point *origin) : origin_(origin) {}

    NOINLINE void add(const Point &point) {
        if (count_ < Capacity)
            points_[count_++] = point;
    }

    // Small enough to be inlined at -O2 without being asked to.
    const Point &at(unsigned index) const { return index < count_ ? points_[index] : *origin_; }

    template <typename Result, typename Step>
    NOINLINE Result fold(Result start, Step step) const {
        Result result = start;
        for (unsigned i = 0; i <= count_; i++)
            result = step(result, at(i));
        return result;
    }

    unsigned size() const { return count_; }

private:
    const Point *origin_;
    Point points_[Capacity] = {};
    unsigned count_ = 0;
};

}  // namespace nav
