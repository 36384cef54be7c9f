"""What ARM64 code does to sp and to saved registers, read from its instructions along a function.

It follows a function from its first instruction to its last, as if no branch were taken; after a return or a jump the
frame is what it was before the epilogue. Source: Arm Architecture Reference Manual for A-profile, A64 base
instructions. Distances are down from where sp was on entry.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

FP, LR, SP = 29, 30, 31
_CALLEE_SAVED = range(19, 31)


@dataclass
class Frame:
    """``depth`` of sp, None once it isn't known; ``frame`` is fp's, once it is the frame pointer."""

    depth: int | None = 0
    frame: int | None = None
    saved: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Frame:
        return Frame(self.depth, self.frame, dict(self.saved))


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _move(now: Frame, word: int) -> bool:
    """Follow add and sub on sp and fp; says whether it was one that frees stack."""
    subtracts, size = word >> 30 & 1, (word >> 10 & 0xFFF) << (12 if word >> 22 & 1 else 0)
    target, source = word & 31, word >> 5 & 31
    if word & 0xBF80_0000 != 0x9100_0000 or SP not in {target, source}:
        return False
    if target == SP == source:
        now.depth = None if now.depth is None else now.depth + (size if subtracts else -size)
    elif target == FP and not subtracts:
        now.frame = None if now.depth is None else now.depth - size
    elif target == SP and source == FP and now.frame is not None:
        now.depth = now.frame + (size if subtracts else -size)
    elif target == SP:
        now.depth = None
    return target == SP and not subtracts


def _access(word: int) -> tuple[bool, list[int], int, int, int] | None:
    """Return (is a load, general registers, offset, change of sp before, change of sp after) of an access by sp."""
    if word >> 5 & 31 != SP:
        return None
    kind = word >> 22
    vector = bool(word >> 26 & 1)
    if word & 0x3A00_0000 == 0x2800_0000:  # stp, ldp
        scale = 4 if (word >> 30) == 2 and vector else 3 if not vector or word >> 30 == 1 else 2
        scale = scale if vector or word >> 30 == 2 else 2
        amount = _signed(word >> 15 & 0x7F, 7) << scale
        registers = [word & 31, word >> 10 & 31]
        mode = word >> 23 & 3
    elif word & 0x3B00_0000 == 0x3900_0000:  # str, ldr with an unsigned offset
        scale = 4 if vector and kind >> 1 & 1 else word >> 30
        return bool(kind & 1), [] if vector else [word & 31], (word >> 10 & 0xFFF) << scale, 0, 0
    elif word & 0x3B20_0000 == 0x3800_0000 and word >> 10 & 1:  # str, ldr that write back
        amount, registers, mode = _signed(word >> 12 & 0x1FF, 9), [word & 31], 3 if word >> 11 & 1 else 1
    else:
        return None
    before, after, offset = (amount, 0, 0) if mode == 3 else (0, amount, 0) if mode == 1 else (0, 0, amount)
    return bool(kind & 1), [] if vector else registers, offset, before, after


def follow(code: bytes) -> list[Frame]:
    """Return the frame before each instruction of a function."""
    now = Frame()
    kept: Frame | None = None  # what it was before the epilogue
    found = []
    for (word,) in struct.iter_unpack("<I", code):
        found.append(now.copy())
        before = now.copy()
        leaving = _move(now, word)
        access = _access(word)
        if access is not None:
            is_load, registers, offset, first, then = access
            if now.depth is not None:
                now.depth -= first
                for i, register in enumerate(registers):
                    where = offset + 8 * i - now.depth
                    if not is_load and register in _CALLEE_SAVED:
                        now.saved.setdefault(register, where)
                    elif is_load and now.saved.get(register) == where:
                        del now.saved[register]
                        now.frame = None if register == FP else now.frame
                        leaving = True
                now.depth -= then
            leaving |= then > 0
        if leaving and kept is None:
            kept = before
        # ret, br (and with authentication), b
        if word & 0xFE9F_F000 == 0xD61F_0000 or word & 0xFFFF_F000 == 0xD65F_0000 or word >> 26 == 5:
            now, kept = kept or now, None
    return found
