/* Declarations shared by the C and C++ parts of `crashy`.
 *
 * Every crash mode is one function without arguments. It sets up a stack worth
 * unwinding and never returns normally.
 */
#ifndef CRASHY_H
#define CRASHY_H

#define NOINLINE __attribute__((noinline, noclone))
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Hide a value from the optimizer, which would otherwise see a null dereference
 * coming and replace it with a trap instruction, or propagate a constant into the
 * functions called. A macro, so that the line stays that of its user. */
#define OPAQUE(value)                           \
    __extension__({                             \
        __typeof__(value) hidden_ = (value);    \
        __asm__ volatile("" : "+r"(hidden_));   \
        hidden_;                                \
    })

/* Keep work after a call, so that the call cannot become a tail call. */
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

#ifdef __cplusplus
extern "C" {
#endif

/* Name the calling thread and print "thread TID NAME": a kernel core holds no
 * thread names, so the fixture builder learns them from standard output. */
void announce_thread(const char *name);

/* modes_stack.c */
void mode_static_chain(void);
void mode_recursion(void);
void mode_vla(void);
void mode_null_call(void);
void mode_wild_call(void);
void mode_wild_read(void);
void mode_noreturn(void);
void mode_cold(void);
void mode_tail_call(void);
void mode_abort(void);
void mode_assert(void);
void mode_divide(void);
void mode_trap(void);
void mode_bus(void);
void mode_library(void);

/* modes_signal.c */
void mode_signal(void);
void mode_interrupt(void);
void mode_altstack(void);

/* modes_cpp.cpp */
void mode_templates(void);
void mode_inlines(void);
void mode_operators(void);
void mode_lambda(void);
void mode_virtual(void);

/* modes_threads.cpp */
void mode_threads(void);
void mode_waiters(void);
void mode_overflow(void);

#ifdef __cplusplus
}
#endif
#endif
