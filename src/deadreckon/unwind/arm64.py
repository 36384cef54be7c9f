"""ARM64. Source: Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64), sections 6.1 and 6.4.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.ids import Arch
from deadreckon.unwind._arch import ArchRules

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

__all__ = ["RULES", "address_mask"]

RULES = ArchRules(
    arch=Arch.ARM64,
    callee_saved=(*(f"x{i}" for i in range(19, 29)), "fp"),
    chains=(("fp", 0, 8, 16),),  # the frame record
    call="arm64",
)


def address_mask(crash: RawCrash) -> int:
    """Return the bits of a code address below its pointer-authentication code.

    The report may say it. Apple signs with 47 address bits; elsewhere the limit is learned from the highest module,
    which must fit.
    """
    if crash.address_mask is not None:
        return crash.address_mask
    highest = max((m.end for m in crash.modules), default=0)
    return (1 << max(47, highest.bit_length())) - 1
