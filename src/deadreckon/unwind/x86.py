"""x86 (32 bits). Source: System V ABI, Intel386 Architecture Processor Supplement, chapter 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.ids import Arch
from deadreckon.unwind._arch import ArchRules, full_mask

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

__all__ = ["RULES", "address_mask"]

RULES = ArchRules(
    arch=Arch.X86,
    callee_saved=("ebx", "ebp", "esi", "edi"),
    chains=(("ebp", 0, 4, 8),),  # push %ebp; mov %esp, %ebp
    call="x86",
    resync=True,
)


def address_mask(_crash: RawCrash) -> int:
    """Return the bits of a code address: all of them."""
    return full_mask(Arch.X86)
