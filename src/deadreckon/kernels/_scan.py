"""Scanning: the next word on the stack that can be a return address. A guess, and called one."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._chain import holds
from deadreckon.kernels._code import plausible
from deadreckon.kernels._jit import kernel
from deadreckon.kernels._memory import load, region
from deadreckon.kernels._parameters import P_CALL, P_FP, P_MASK, P_PC, P_RESYNC, P_SLOT, P_SP, P_WORD

__all__ = ["search"]

_FAR_FRAME = 128 << 10
"""A caller's frame is not further up; Breakpad's walker has the same bound."""


@kernel()
def search(p, chains, regs, valid, first, words, most, caller, code, memory):
    """Fill ``caller`` from a word above sp; returns (mask of known registers, words looked at, follows a call).

    Beyond ``words`` only a word that follows a call counts, up to ``most`` words. ``first``: nothing was guessed yet,
    so the word at sp is the best of all guesses. Where functions begin with a push of the frame pointer, a return
    address with a frame pointer below it that leads to another one is taken before one without.
    """
    size = np.uint64(p[P_WORD])
    one = np.uint64(1)
    fp_bit = one << np.uint64(p[P_FP]) if p[P_FP] >= 0 else np.uint64(0)
    sp = regs[p[P_SP]]
    fp = regs[p[P_FP]] if p[P_FP] >= 0 else np.uint64(0)
    fallback = -1
    looked = 0
    for i in range(most):
        slot = sp + np.uint64(i) * size
        target, ok = load(slot, p[P_WORD], memory)
        if not ok:
            break
        looked = i + 1
        if i >= words and fallback >= 0:
            break
        if p[P_SLOT] >= 0 and slot & np.uint64(15) != np.uint64(p[P_SLOT]):
            continue
        target &= np.uint64(p[P_MASK])
        likely = plausible(target, p[P_CALL], code, memory) if target >= 4096 else 0
        if not likely or (likely < 2 and i >= words):
            continue
        known, saved = _frame_pointer(p, chains, fp, valid & fp_bit, slot, code, memory)
        if p[P_RESYNC] and likely < 2 and known < 2 and not (first and i == 0):
            if fallback < 0:
                fallback = i
            continue
        return _take(p, target, slot, known, saved, caller), looked, likely == 2
    if fallback >= 0:
        slot = sp + np.uint64(fallback) * size
        target, _ = load(slot, p[P_WORD], memory)
        known, saved = _frame_pointer(p, chains, fp, valid & fp_bit, slot, code, memory)
        return _take(p, target & np.uint64(p[P_MASK]), slot, known, saved, caller), looked, False
    return np.uint64(0), looked, False


@kernel()
def _frame_pointer(p, chains, fp, has_fp, slot, code, memory):
    """Return (0 not known, 1 perhaps, 2 leads on; value) of the caller's frame pointer; slot: its return address's."""
    size = np.uint64(p[P_WORD])
    if has_fp:
        if fp == slot - size:
            saved, ok = load(fp, p[P_WORD], memory)
            if ok:
                return 1 + np.int64(len(chains) > 0 and holds(saved, chains[0], p, code, memory)), saved
        elif fp >= slot + size:
            return 1 + np.int64(len(chains) > 0 and holds(fp, chains[0], p, code, memory)), fp
    if p[P_RESYNC]:
        below, ok = load(slot - size, p[P_WORD], memory)
        start, end = memory[0], memory[1]
        if (
            ok
            and slot < below <= slot + np.uint64(_FAR_FRAME)
            and region(below, start, end) == region(slot, start, end)
            and holds(below, chains[0], p, code, memory)
        ):
            return 2, below
    return 0, np.uint64(0)


@kernel()
def _take(p, target, slot, known, saved, caller):
    one = np.uint64(1)
    caller[:] = 0
    caller[p[P_PC]] = target
    caller[p[P_SP]] = slot + np.uint64(p[P_WORD])
    mask = one << np.uint64(p[P_PC]) | one << np.uint64(p[P_SP])
    if known:
        caller[p[P_FP]] = saved
        mask |= one << np.uint64(p[P_FP])
    return mask
