"""What the walker needs to know of an architecture, as data; one file beside this one for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from deadreckon.model.registers import REGISTER_SETS

if TYPE_CHECKING:
    from deadreckon.model.ids import Arch

__all__ = ["ArchRules", "full_mask"]


def full_mask(arch: Arch) -> int:
    """Return the mask that keeps every bit of an address."""
    return (1 << 8 * arch.word_size) - 1


@dataclass(frozen=True, slots=True)
class ArchRules:
    """An architecture's calling convention, as far as stacks show it.

    ``frame_record``: at fp lie the caller's fp and the return address, and the caller's sp is just above them.
    """

    arch: Arch
    callee_saved: tuple[str, ...]
    frame_record: bool
    call: Literal["x86", "arm64", "arm"]

    def parameters(self, mask: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the row of kernels/unwind.py's P_ parameters."""
        from deadreckon.kernels import _signals, unwind  # noqa: PLC0415  (numba is loaded when a stack is walked, not before)

        registers = REGISTER_SETS[self.arch]
        saved = sum(1 << registers.index(name) for name in self.callee_saved)
        row = np.zeros(unwind.PARAMETERS, np.int64)
        row[unwind.P_WORD] = registers.word_size
        row[unwind.P_PC] = registers.pc
        row[unwind.P_SP] = registers.sp
        row[unwind.P_FP] = registers.fp
        row[unwind.P_LR] = registers.lr
        row[unwind.P_CALLEE_SAVED] = saved
        row[unwind.P_MASK] = mask - (1 << 64) if mask >> 63 else mask
        row[unwind.P_FP_KIND] = unwind.FP_RECORD if self.frame_record else unwind.FP_NONE
        calls = {"x86": _signals.CALL_X86, "arm64": _signals.CALL_ARM64, "arm": _signals.CALL_ARM}
        row[unwind.P_CALL] = calls[self.call]
        return row
