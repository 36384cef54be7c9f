"""An architecture as the walker's kernels see it: a row of numbers, filled by ``unwind/_arch.py``."""

from __future__ import annotations

__all__ = [
    "PARAMETERS",
    "P_CALL",
    "P_CALLEE_SAVED",
    "P_FP",
    "P_LR",
    "P_MASK",
    "P_PC",
    "P_RESYNC",
    "P_SLOT",
    "P_SP",
    "P_STRICT",
    "P_WORD",
]

P_WORD, P_PC, P_SP, P_FP, P_LR, P_CALLEE_SAVED, P_MASK, P_CALL, P_STRICT, P_SLOT, P_RESYNC = range(11)
"""Size of a stack word; register numbers (-1 none); a mask of registers; the bits of a code address; CALL_*; whether
the frame pointer's register is in general use; what the address of a pushed return address leaves when divided by 16
(-1: anything); whether a function's first act is to push its caller's frame pointer."""
PARAMETERS = 11
