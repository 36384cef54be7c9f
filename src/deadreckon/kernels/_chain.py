"""Chains of frame pointers: each convention is a row of numbers, so that an architecture may have several.

A row is (register, offset of the saved frame pointer, offset of the return address, offset of the caller's sp), the
offsets from the frame pointer's value.
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._code import may_execute, plausible
from deadreckon.kernels._jit import kernel
from deadreckon.kernels._memory import load, region
from deadreckon.kernels._parameters import P_CALL, P_MASK, P_PC, P_SP, P_STRICT, P_WORD

__all__ = [
    "CHAIN_BROKEN",
    "CHAIN_END",
    "CHAIN_FOUND",
    "CHAIN_IMPLAUSIBLE",
    "CHAIN_NONE",
    "CHAIN_UNREADABLE",
    "follow",
    "holds",
    "link",
]

CHAIN_NONE, CHAIN_UNREADABLE, CHAIN_BROKEN, CHAIN_IMPLAUSIBLE, CHAIN_END, CHAIN_FOUND = range(6)
"""What became of following a chain: no frame pointer, not in memory, not ascending, a return address that can be
none, the end of the stack, a caller."""

_AHEAD = 64
"""How many frames of generated code may lie between two of modules."""


@kernel()
def link(fp, row, p, memory):
    """Return (caller's frame pointer, return address, both are in memory) of a frame record."""
    saved, ok = load(fp + np.uint64(row[1]), p[P_WORD], memory)
    target, ok2 = load(fp + np.uint64(row[2]), p[P_WORD], memory)
    return saved, target & np.uint64(p[P_MASK]), ok and ok2


@kernel()
def _ascends(fp, saved, row, memory):
    """Say whether a saved frame pointer lies further up in the same piece of memory."""
    start, end = memory[0], memory[1]
    return saved >= fp + np.uint64(row[3]) and region(saved, start, end) == region(fp, start, end)


@kernel()
def _leads_home(fp, target, row, p, code, memory):
    """Say whether a chain through generated code, which lies in no module, reaches a module's code again."""
    for _ in range(_AHEAD):
        if target < 4096 or region(target, code[0], code[1]) >= 0 or not may_execute(target, code):
            return False
        saved, _, ok = link(fp, row, p, memory)
        if not ok or not _ascends(fp, saved, row, memory):
            return False
        fp = saved
        saved, target, ok = link(fp, row, p, memory)
        if not ok:
            return False
        if plausible(target, p[P_CALL], code, memory):
            return True
    return False


@kernel()
def holds(fp, row, p, code, memory):
    """Say whether the record a saved frame pointer leads to is one itself: a return address, or the chain's end."""
    _, target, ok = link(fp, row, p, memory)
    return ok and (target == 0 or plausible(target, p[P_CALL], code, memory) > 0)


@kernel()
def follow(p, chains, regs, valid, established, caller, code, memory):
    """Fill ``caller`` from the first chain that holds; returns (mask of known registers, CHAIN_*).

    ``established``: this frame was reached by its frame pointer, so a zero is the chain's end. Where the register is
    in general use (Windows on x64 sets rbp where it likes), one link alone proves nothing.
    """
    one = np.uint64(1)
    worst = CHAIN_NONE
    for c in range(len(chains)):
        row = chains[c]
        if not valid >> np.uint64(row[0]) & one:
            continue
        fp = regs[row[0]]
        if established and fp == 0:
            return np.uint64(0), CHAIN_END
        saved, target, ok = link(fp, row, p, memory)
        if not ok or fp < regs[p[P_SP]]:
            worst = max(worst, CHAIN_UNREADABLE)
            continue
        if established and target == 0:
            return np.uint64(0), CHAIN_END
        ascends = _ascends(fp, saved, row, memory)
        if p[P_STRICT] and not established:
            ascends = ascends and holds(saved, row, p, code, memory)
        elif saved == 0:
            ascends = True
        if not ascends:
            worst = max(worst, CHAIN_BROKEN)
            continue
        if not plausible(target, p[P_CALL], code, memory) and not (
            saved != 0 and _leads_home(fp, target, row, p, code, memory)
        ):
            worst = max(worst, CHAIN_IMPLAUSIBLE)
            continue
        caller[:] = 0
        caller[row[0]] = saved
        caller[p[P_PC]] = target
        caller[p[P_SP]] = fp + np.uint64(row[3])
        return one << np.uint64(row[0]) | one << np.uint64(p[P_PC]) | one << np.uint64(p[P_SP]), CHAIN_FOUND
    return np.uint64(0), worst
