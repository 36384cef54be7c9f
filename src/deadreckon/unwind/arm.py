"""ARM (32 bits). Source: Procedure Call Standard for the Arm Architecture (AAPCS32), sections 6.1 and 6.2.

There is no frame record that all compilers keep: ARM code uses r11, Thumb code r7, each with its own layout.
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
    frame_record=False,
    call="arm",
)


def address_mask(_crash: RawCrash) -> int:
    """Return the bits of a code address: bit 0 of a branch target says Thumb."""
    return full_mask(Arch.ARM) & ~1
