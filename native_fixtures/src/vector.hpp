// A vector in the plane: overloaded operators, some of them always inlined.
#pragma once

#include "crashy.h"

namespace nav {

template <typename T>
struct Vector {
    T east;
    T north;

    ALWAYS_INLINE Vector operator+(const Vector &other) const {
        return {east + other.east, north + other.north};
    }

    ALWAYS_INLINE Vector operator*(T factor) const { return {east * factor, north * factor}; }

    ALWAYS_INLINE Vector &operator+=(const Vector &other) {
        *this = *this + other;
        return *this;
    }

    // On one line, so that no two of its lines share a machine instruction.
    NOINLINE bool operator==(const Vector &v) const { return east == v.east && north == v.north; }
};

// Free operator template: the dot product.
template <typename T>
NOINLINE T operator*(const Vector<T> &left, const Vector<T> &right) {
    return left.east * right.east + left.north * right.north;
}

}  // namespace nav
