"""What the walker needs to know of an architecture, as data; one file beside this one for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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

    ``chains``: frame-pointer conventions, each a register and the offsets, from its value, of the caller's frame
    pointer, of the return address, and of what the caller's sp will be. ``slot``: what the address of a return address
    that a call pushed leaves when divided by 16. ``resync``: functions begin by pushing their caller's frame pointer.
    """

    arch: Arch
    callee_saved: tuple[str, ...]
    chains: tuple[tuple[str, int, int, int], ...]
    call: Literal["x86", "arm64", "arm"]
    slot: int = -1
    resync: bool = False

    @lru_cache(maxsize=8)  # noqa: B019  (one object for each architecture, for good)
    def chain_rows(self) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return the conventions as kernels/_chain.py takes them."""
        registers = REGISTER_SETS[self.arch]
        rows = [(registers.index(name), *offsets) for name, *offsets in self.chains]
        return np.array(rows, np.int64).reshape(-1, 4)

    @lru_cache(maxsize=64)  # noqa: B019
    def parameters(self, mask: int, *, strict: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the row of kernels/_parameters.py; ``strict``: the frame pointer's register is in general use."""
        from deadreckon.kernels import _parameters as unwind  # noqa: PLC0415  (numba is loaded when a stack is walked)
        from deadreckon.kernels import _signals  # noqa: PLC0415

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
        row[unwind.P_STRICT] = strict
        row[unwind.P_SLOT] = self.slot
        row[unwind.P_RESYNC] = self.resync
        calls = {"x86": _signals.CALL_X86, "arm64": _signals.CALL_ARM64, "arm": _signals.CALL_ARM}
        row[unwind.P_CALL] = calls[self.call]
        return row
