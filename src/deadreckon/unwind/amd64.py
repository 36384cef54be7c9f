"""x86_64. Source: System V ABI, AMD64 Architecture Processor Supplement, sections 3.2 and 3.6.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.ids import Arch
from deadreckon.unwind._arch import ArchRules, full_mask

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

__all__ = ["RULES", "address_mask"]

RULES = ArchRules(
    arch=Arch.X86_64,
    callee_saved=("rbx", "rbp", "r12", "r13", "r14", "r15"),
    chains=(("rbp", 0, 8, 16),),  # push %rbp; mov %rsp, %rbp
    call="x86",
    slot=8,  # 3.2.2: (rsp + 8) is a multiple of 16 at a function's entry; Windows has the same rule
)


def address_mask(_crash: RawCrash) -> int:
    """Return the bits of a code address: all of them."""
    return full_mask(Arch.X86_64)
