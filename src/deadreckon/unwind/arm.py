"""ARM (32 bits). Source: Procedure Call Standard for the Arm Architecture (AAPCS32), sections 6.1 and 6.2.

There is no frame record that all compilers keep. Seen in compilers' output: clang keeps {fp, lr} at r11, in Thumb code
at r7; gcc keeps lr at r11 and the caller's r11 below it; the old APCS layout has {r11, sp, lr, pc} below and at r11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.ids import Arch
from deadreckon.unwind._arch import ArchRules, full_mask

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

__all__ = ["RULES", "address_mask"]

RULES = ArchRules(
    arch=Arch.ARM,
    callee_saved=tuple(f"r{i}" for i in range(4, 12)),
    chains=(
        ("r7", 0, 4, 8),  # Thumb: push {r7, lr}; mov r7, sp (Apple's in every mode)
        ("r11", 0, 4, 8),  # clang, ARM: push {r11, lr}; mov r11, sp
        ("r11", -4, 0, 4),  # gcc: push {fp, lr}; add fp, sp, #4
        ("r11", -12, -4, 4),  # APCS: mov ip, sp; push {fp, ip, lr, pc}; sub fp, ip, #4
    ),
    call="arm",
)


def address_mask(_crash: RawCrash) -> int:
    """Return the bits of a code address: bit 0 of a branch target says Thumb."""
    return full_mask(Arch.ARM) & ~1
