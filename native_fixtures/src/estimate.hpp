// Dead reckoning proper: speed, heading and time give a new position. Each step
// is a function of its own, and all are inlined into the caller.
#pragma once

#include "track.hpp"

namespace nav::estimate {

namespace detail {

// Deepest of the inlined chain: here the fault happens.
ALWAYS_INLINE double read_log(const double *knots) {
    return *static_cast<const volatile double *>(knots);
}

ALWAYS_INLINE double distance_run(const double *knots, double hours) {
    return read_log(knots) * hours;
}

}  // namespace detail

ALWAYS_INLINE Vector<double> advance(const Vector<double> &from, const Vector<double> &heading,
                                     const double *knots, double hours) {
    return from + heading * detail::distance_run(knots, hours);
}

// Inlined at -O2 by the compiler's own decision.
template <typename Point, unsigned Capacity>
inline Point next_fix(const Track<Point, Capacity> &track, const double *knots, double hours) {
    const Point &last = track.at(track.size() - 1);
    return advance(last, Point{0.6, 0.8}, knots, hours);
}

}  // namespace nav::estimate
