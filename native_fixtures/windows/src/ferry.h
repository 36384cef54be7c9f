/* What the parts of the crashing program share. */
#ifndef FERRY_H
#define FERRY_H

#include "winch.h"
#include "windows.h"

#define NOINLINE __attribute__((noinline))

#define NOTE() (trail.address[trail.length++ & (TRAIL_SIZE - 1)] = __builtin_return_address(0))
/* Write down where this function returns to. Nothing may be noted in a function that leaves by a tail call. */

void crash_in_thread(thread_start start, void *argument);
/* Run a function in a thread of its own, and wait. */

typedef int (*mode)(int);
mode find_mode(const char *name);

int NOINLINE read_gauge(const volatile int *gauge);
/* Where most modes end: the pointer is null. */

int call_stepping(int argument, int (*target)(int));
/* Set the processor's trap flag and jump, so that each instruction of the target raises an exception. In assembly. */

extern const volatile int *volatile gauge;
extern volatile int logbook;

#endif
