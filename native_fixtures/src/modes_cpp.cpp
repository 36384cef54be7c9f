// C++ stacks: templates, namespaces, methods, operators, lambdas and inlining.
// Written without exceptions, RTTI and the C++ runtime library.
#include "crashy.h"
#include "estimate.hpp"

#include <stdlib.h>

namespace {

using Position = nav::Vector<double>;
using Log = nav::Track<Position, 8>;

// templates: a method template of a class template, called from an explicitly
// instantiated function template, calls back a function object.

struct Longest {
    const Position *scale;

    NOINLINE double operator()(double best, const Position &point) const {
        double length = point * *scale;
        return length > best ? length : best;
    }
};

template <typename Point, unsigned Capacity>
NOINLINE double longest_leg(const nav::Track<Point, Capacity> &track, const Point *scale) {
    double longest = track.fold(0.0, Longest{scale});
    KEEP_FRAME();
    return longest;
}

// inlines: plot_course() <- next_fix() <- advance() <- distance_run() <-
// read_log() are one machine function at -O2, spread over two files.

NOINLINE double plot_course(const Log &log, const double *knots) {
    Position sum{0.0, 0.0};
    for (int watch = 1; watch <= 6; watch++)
        sum += nav::estimate::next_fix(log, knots, 4.0 * watch);
    return sum.east + sum.north;
}

// virtual: a method called through a vtable; the object itself is sound, its
// member is not.

class Vessel {
public:
    virtual int draught() const = 0;

protected:
    ~Vessel() = default;
};

class Barge final : public Vessel {
public:
    explicit Barge(const int *load) : load_(load) {}
    NOINLINE int draught() const override { return *load_ + 2; }

private:
    const int *load_;
};

class Harbour {
public:
    class Pilot {
    public:
        NOINLINE int guide(const Vessel &vessel) const {
            int depth = vessel.draught();
            KEEP_FRAME();
            return depth + 1;
        }
    };
};

}  // namespace

extern "C" void mode_templates() {
    const Position origin{1.0, 2.0};
    Log log(&origin);
    log.add({3.0, 4.0});
    exit(static_cast<int>(longest_leg(log, OPAQUE(static_cast<const Position *>(nullptr)))));
}

extern "C" void mode_inlines() {
    const Position origin{1.0, 2.0};
    Log log(&origin);
    log.add({5.0, 6.0});
    exit(static_cast<int>(plot_course(log, OPAQUE(static_cast<const double *>(nullptr)))));
}

// operators: a comparison operator gets a reference to nowhere.
extern "C" void mode_operators() {
    const nav::Vector<float> here{1.0F, 2.0F};
    const auto *there = OPAQUE(reinterpret_cast<const nav::Vector<float> *>(0x100));
    exit(here == *there ? 0 : 1);
}

// lambda: a comparison without captures, called back by the C library's qsort(),
// runs into a null pointer with the help of a lambda with captures.
extern "C" void mode_lambda() {
    static const int depths[] = {4, 2, 9};
    const int *marks[] = {depths, depths + 1, nullptr, depths + 2};
    qsort(marks, 4, sizeof marks[0], [](const void *left, const void *right) {
        const int fallback = OPAQUE(0);
        auto value = [&fallback](const void *mark) __attribute__((noinline)) {
            return **static_cast<const int *const *>(mark) + fallback;
        };
        return value(left) - value(right);
    });
    exit(*marks[0]);
}

extern "C" void mode_virtual() {
    const Barge barge(OPAQUE(static_cast<const int *>(nullptr)));
    const Harbour::Pilot pilot;
    exit(pilot.guide(*OPAQUE(static_cast<const Vessel *>(&barge))));
}
