"""Signal frames of Linux, told by the code that returns from a handler.

A handler returns into a few instructions that make the system call ``sigreturn``; they lie in the C library, in the
vdso or in a page of the kernel's own, mostly without unwind information. What they return to lies above the stack
pointer, in a ``ucontext`` whose layout is part of the kernel's interface. Source: Linux,
arch/*/include/uapi/asm/sigcontext.h and ucontext.h. Only exact instruction bytes count.
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel
from deadreckon.kernels._leb import WORD
from deadreckon.kernels._memory import load, region

__all__ = ["CALL_ARM", "CALL_ARM64", "CALL_X86", "interrupted"]

CALL_X86, CALL_ARM64, CALL_ARM = 0, 1, 2
"""Instruction sets, as far as a call or a system call is told from its bytes."""

# Where registers lie, by DWARF number: offsets into the array of general registers.
_I386 = (44, 40, 36, 32, 28, 24, 20, 16, 56)  # eax ecx edx ebx esp ebp esi edi eip, in struct sigcontext_32
_AMD64 = (
    104,
    96,
    112,
    88,
    72,
    64,
    80,
    120,
    0,
    8,
    16,
    24,
    32,
    40,
    48,
    56,
    128,
)  # rax rdx rcx rbx rsi rdi rbp rsp r8.. rip


@kernel()
def interrupted(kind, word, pc, sp, caller, memory):
    """Fill ``caller`` with the registers a signal interrupted, where pc returns from a handler; returns their mask.

    Zero where the code at pc is something else, is not at hand, or the context is not in memory.
    """
    none = np.uint64(0)
    first, ok = load(pc, WORD, memory)
    if not ok:
        return none
    second, ok = load(pc + np.uint64(4), WORD, memory)
    if not ok:
        second = none
    if kind == CALL_ARM64:
        # mov x8, #139; svc #0. struct rt_sigframe: siginfo (128), ucontext (mcontext at 176): fault, x0-x30, sp, pc.
        if first != np.uint64(0xD2801168) or second != np.uint64(0xD4000001):
            return none
        return _registers(sp + np.uint64(312), 33, 8, caller, memory)
    if kind == CALL_ARM:
        # mov r7, #173 (rt_sigreturn) or #119 (sigreturn); svc #0, in ARM or Thumb. The context's r0-r15 follow
        # trap number, error code and mask; before it is a ucontext's head (20), for rt_sigreturn a siginfo (128).
        real_time = first == np.uint64(0xE3A070AD) and second == np.uint64(0xEF000000)
        old = first == np.uint64(0xE3A07077) and second == np.uint64(0xEF000000)
        if first == np.uint64(0xDF0027AD):
            real_time = True
        if first == np.uint64(0xDF002777):
            old = True
        if real_time:
            return _registers(sp + np.uint64(160), 16, 4, caller, memory)
        if old:
            return _registers(sp + np.uint64(32), 16, 4, caller, memory)
        return none
    if word == 4:
        # pop %eax; mov $119, %eax; int $0x80: the sigcontext is above the signal's number.
        if first == np.uint64(0x0077B858) and second == np.uint64(0x80CD0000):
            return _placed(_I386, sp + np.uint64(4), 4, caller, memory)
        # mov $173, %eax; int $0x80: above the number are pointers to the siginfo and to the ucontext (head of 20).
        if first == np.uint64(0x0000ADB8) and second & np.uint64(0xFFFFFF) == np.uint64(0x80CD00):
            context, ok = load(sp + np.uint64(8), WORD, memory)
            if ok and region(context, memory[0], memory[1]) >= 0:
                return _placed(_I386, context + np.uint64(20), 4, caller, memory)
        return none
    # mov $15, %rax; syscall (48 c7 c0 0f 00 00 00 0f 05). The ucontext is at sp, its registers 40 bytes on.
    if first == np.uint64(0x0FC0C748) and second == np.uint64(0x0F000000):
        return _placed(_AMD64, sp + np.uint64(40), 8, caller, memory)
    return none


@kernel()
def _registers(at, count, size, caller, memory):
    """Read registers that lie in the order of their numbers."""
    known = np.uint64(0)
    for number in range(count):
        value, ok = load(at + np.uint64(number * size), size, memory)
        if not ok:
            return np.uint64(0)
        caller[number] = value
        known |= np.uint64(1) << np.uint64(number)
    return known


@kernel()
def _placed(places, at, size, caller, memory):
    """Read registers whose places are listed by number."""
    known = np.uint64(0)
    for number in range(len(places)):
        value, ok = load(at + np.uint64(places[number]), size, memory)
        if not ok:
            return np.uint64(0)
        caller[number] = value
        known |= np.uint64(1) << np.uint64(number)
    return known
