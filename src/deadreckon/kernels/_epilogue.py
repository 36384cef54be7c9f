"""The end of a function of 32-bit x86: what is left to run there can be run.

Windows' frame data describes a function's body; a few instructions before its return the stack is another one already,
and the record gives a wrong caller (native_fixtures/windows/x86/O2/dumps/step-33). Source: Intel SDM volume 2.
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._code import fetch, plausible
from deadreckon.kernels._jit import copy, kernel
from deadreckon.kernels._leb import BYTE, HALF, WORD
from deadreckon.kernels._memory import load
from deadreckon.kernels._parameters import P_CALL, P_PC

__all__ = ["run_epilogue"]

_INSTRUCTIONS = 12
_ESP, _EBP = 4, 5


@kernel()
def run_epilogue(p, m, regs, valid, caller, code, memory):
    """Fill ``caller`` where nothing but an epilogue follows pc; returns the mask of known registers, or 0."""
    none = np.uint64(0)
    one = np.uint64(1)
    narrow = np.uint64(0xFFFF_FFFF)
    copy(caller, regs)
    known = valid
    at = regs[p[P_PC]]
    for _ in range(_INSTRUCTIONS):
        esp = caller[_ESP]
        first, ok = fetch(at, BYTE, m, code, memory)
        if not ok:
            return none
        op = np.int64(first)
        if op in (0xC3, 0xC2):  # ret; ret imm16, which takes the arguments away
            target, ok = load(esp, WORD, memory)
            dropped = none
            if op == 0xC2:
                dropped, whole = fetch(at + one, HALF, m, code, memory)
                ok = ok and whole
            if not ok or not plausible(target, p[P_CALL], code, memory):
                return none
            caller[p[P_PC]] = target
            caller[_ESP] = (esp + np.uint64(4) + dropped) & narrow
            return known
        if 0x58 <= op <= 0x5F and op != 0x58 + _ESP:  # pop
            caller[op - 0x58], ok = load(esp, WORD, memory)
            if not ok:
                return none
            known |= one << np.uint64(op - 0x58)
            caller[_ESP] = (esp + np.uint64(4)) & narrow
            at += one
            continue
        if op == 0xC9:  # leave
            if not known >> np.uint64(_EBP) & one:
                return none
            frame = caller[_EBP]
            caller[_EBP], ok = load(frame, WORD, memory)
            if not ok:
                return none
            caller[_ESP] = (frame + np.uint64(4)) & narrow
            at += one
            continue
        second, ok = fetch(at + one, BYTE, m, code, memory)
        if not ok:
            return none
        pair = op << 8 | np.int64(second)
        if pair in (0x8BE5, 0x89EC):  # mov %ebp, %esp
            if not known >> np.uint64(_EBP) & one:
                return none
            caller[_ESP] = caller[_EBP]
            at += np.uint64(2)
            continue
        # add $imm, %esp; lea imm(%ebp), %esp
        size = 1 if pair in (0x83C4, 0x8D65) else 4 if pair in (0x81C4, 0x8DA5) else 0
        if size == 0 or (op == 0x8D and not known >> np.uint64(_EBP) & one):
            return none
        value, ok = fetch(at + np.uint64(2), size, m, code, memory)
        if not ok:
            return none
        if size == 1 and value & np.uint64(0x80):
            value |= ~np.uint64(0xFF)
        caller[_ESP] = ((esp if op != 0x8D else caller[_EBP]) + value) & narrow
        at += np.uint64(2 + size)
    return none
