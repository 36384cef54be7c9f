"""What a function's first instructions did to the stack, on 32-bit ARM.

C libraries are linked with functions that no table describes (``abort`` and ``start_thread`` of glibc's static build
are marked EXIDX_CANTUNWIND); a debugger reads their code. What is found here counts only where the return address
then follows a call. Source: Arm Architecture Reference Manual, ARMv7-A and ARMv7-R edition, A5 and A6 (encodings).
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._code import M_ENTRIES, M_N_ENTRIES, fetch, follows_call
from deadreckon.kernels._jit import copy, kernel, view_u32
from deadreckon.kernels._leb import HALF, WORD
from deadreckon.kernels._memory import find, load
from deadreckon.kernels._parameters import P_CALL, P_LR, P_MASK, P_PC, P_SP

__all__ = ["undo_prologue"]

_INSTRUCTIONS = 64
_LR = 14


@kernel(allocates=True)
def undo_prologue(p, m, regs, valid, caller, code, memory):
    """Fill ``caller`` where the function of pc saved its link register; returns the mask of known registers, or 0."""
    none = np.uint64(0)
    columns = code[2][m]
    count = columns[M_N_ENTRIES]
    pc = regs[p[P_PC]]
    i = find(view_u32(columns[M_ENTRIES], count), count, pc - code[0][m]) if count else -1
    if i < 0:
        return none
    entry = code[0][m] + np.uint64(view_u32(columns[M_ENTRIES], count)[i])
    saved = np.empty(16, np.int64)
    for thumb in (True, False):
        size = _simulate(entry, pc, thumb, m, saved, code, memory)
        if size < 0 or saved[_LR] < 0:
            continue
        cfa = regs[p[P_SP]] + np.uint64(size)
        raw, ok = load(cfa - np.uint64(saved[_LR]), WORD, memory)
        target = raw & np.uint64(p[P_MASK])
        if not ok or not follows_call(target, p[P_CALL], code, memory):
            continue
        known = valid & ~(np.uint64(1) << np.uint64(p[P_LR]))
        copy(caller, regs)
        for r in range(4, 12):
            if saved[r] >= 0:
                caller[r], ok = load(cfa - np.uint64(saved[r]), WORD, memory)
                if not ok:
                    known &= ~(np.uint64(1) << np.uint64(r))
        caller[p[P_PC]] = target
        caller[p[P_SP]] = cfa
        # What a call may change is not the caller's any more.
        return known & np.uint64(0xAFF0)
    return none


@kernel()
def _simulate(at, pc, thumb, m, saved, code, memory):
    """Return how many bytes were pushed before pc, -1 where that can't be told.

    ``saved`` receives, for each register, how far below the caller's sp it lies (-1: it was not saved).
    """
    saved[:] = -1
    size = 0
    for _ in range(_INSTRUCTIONS):
        if at >= pc:
            break
        mask = 0
        if thumb:
            first, ok = fetch(at, HALF, m, code, memory)
            if not ok:
                return -1
            op = np.int64(first)
            if op >> 11 < 0x1D:
                at += np.uint64(2)
                if op & 0xFE00 == 0xB400:  # push
                    mask = op & 0xFF | (op & 0x100) << 6
                elif op & 0xFF80 == 0xB080:  # sub sp, #imm
                    size += 4 * (op & 0x7F)
                elif op >> 12 in (0xD, 0xE) or op & 0xF500 == 0xB100 or op & 0xFF00 == 0x4700 or op & 0xFE00 == 0xBC00:
                    break  # A branch, or a pop.
            else:
                second, ok = fetch(at + np.uint64(2), HALF, m, code, memory)
                if not ok:
                    return -1
                tail = np.int64(second)
                at += np.uint64(4)
                if op == 0xE92D:  # push.w
                    mask = tail
                elif op == 0xF84D and tail & 0xFFF == 0xD04:  # str rt, [sp, #-4]!
                    mask = 1 << (tail >> 12)
                elif op & 0xFFBF == 0xED2D and tail & 0xE00 == 0xA00:  # vpush
                    size += 4 * (tail & 0xFF)
                elif op & 0xFBEF == 0xF1AD and tail & 0x8F00 == 0xD00:  # sub.w sp, sp, #constant
                    size += _constant(op, tail)
                elif op & 0xFBFF == 0xF2AD and tail & 0x8F00 == 0xD00:  # subw sp, sp, #imm
                    size += (op & 0x400) << 1 | (tail & 0x7000) >> 4 | tail & 0xFF
                elif op & 0xF800 == 0xF000 and tail & 0x8000:
                    break  # A branch.
        else:
            word, ok = fetch(at, WORD, m, code, memory)
            if not ok:
                return -1
            op = np.int64(word)
            at += np.uint64(4)
            if op & 0xFFFF_0000 == 0xE92D_0000:  # push
                mask = op & 0xFFFF
            elif op & 0xFFFF_0FFF == 0xE52D_0004:  # str rt, [sp, #-4]!
                mask = 1 << (op >> 12 & 0xF)
            elif op & 0xFFFF_F000 == 0xE24D_D000:  # sub sp, sp, #constant
                turn = 2 * (op >> 8 & 0xF)
                value = op & 0xFF
                size += (value >> turn | value << (32 - turn)) & 0xFFFF_FFFF
            elif op & 0xFFBF_0E00 == 0xED2D_0A00:  # vpush
                size += 4 * (op & 0xFF)
            elif op & 0x0E00_0000 == 0x0A00_0000 or op & 0x0FFF_FFC0 == 0x012F_FF00:
                break  # A branch.
        if mask:
            for r in range(15, -1, -1):
                if mask >> r & 1:
                    size += 4
                    saved[r] = size
        if size > 1 << 24:
            return -1
    return size


@kernel()
def _constant(op, tail):
    """Return a Thumb instruction's modified immediate (A6.3.2); those that repeat a byte are no sizes of frames."""
    bits = (op & 0x400) << 1 | (tail & 0x7000) >> 4 | tail & 0xFF
    if bits >> 8 == 0:
        return bits
    if bits >> 10 == 0:
        return 1 << 30
    turn = bits >> 7
    value = 0x80 | bits & 0x7F
    return (value >> turn | value << (32 - turn)) & 0xFFFF_FFFF
