"""Prologues of 32-bit ARM on Python integers, written from the manual's bit patterns (ARMv7-A, A5, A6 and A8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["saved_by"]

Pushed = tuple[int, dict[int, int]]
"""Bytes pushed, and how far below the caller's sp each register lies."""


def saved_by(read: Callable[[int, int], int | None], at: int, pc: int, *, thumb: bool) -> Pushed | None:
    """Return what the instructions from ``at`` to ``pc`` pushed, None where their bytes are not at hand."""
    size = 0
    where: dict[int, int] = {}
    for _ in range(64):
        if at >= pc:
            break
        registers: list[int] = []
        first = read(at, 2 if thumb else 4)
        if first is None:
            return None
        if not thumb:
            at += 4
            op = f"{first:032b}"
            if op.startswith("1110100100101101"):
                registers = [r for r in range(16) if first >> r & 1]
            elif re.fullmatch("1110010100101101....000000000100", op):
                registers = [first >> 12 & 15]
            elif op.startswith("11100010010011011101"):
                size += _rotated(first & 0xFF, 2 * (first >> 8 & 15))
            elif re.fullmatch("111011010.101101....101.........", op):
                size += 4 * (first & 0xFF)
            elif op[4:7] == "101" or op[4:26] == "0001001011111111111100":
                break
        elif first >> 11 < 0b11101:
            at += 2
            op = f"{first:016b}"
            if op.startswith("1011010"):
                registers = [r for r in range(8) if first >> r & 1] + [14] * (first >> 8 & 1)
            elif op.startswith("101100001"):
                size += 4 * (first & 0x7F)
            elif re.match("1101|1110|1011.0.1|01000111|1011110", op):
                break
        else:
            second = read(at + 2, 2)
            if second is None:
                return None
            at += 4
            op, tail = f"{first:016b}", f"{second:016b}"
            immediate = int(op[5] + tail[1:4] + tail[8:], 2)
            if op == "1110100100101101":
                registers = [r for r in range(16) if second >> r & 1]
            elif op == "1111100001001101" and tail[4:] == "110100000100":
                registers = [second >> 12]
            elif re.fullmatch("111011010.101101", op) and tail[4:7] == "101":
                size += 4 * (second & 0xFF)
            elif re.fullmatch("11110.0110101101", op) and tail[0] == "0" and tail[4:8] == "1101":
                size += _modified(immediate)
            elif re.fullmatch("11110.1010101101", op) and tail[0] == "0" and tail[4:8] == "1101":
                size += immediate
            elif op[:5] == "11110" and tail[0] == "1":
                break
        for register in reversed(registers):
            size += 4
            where[register] = size
        if size > 1 << 24:
            return None
    return size, where


def _rotated(value: int, by: int) -> int:
    return (value >> by | value << (32 - by)) % (1 << 32)


def _modified(bits: int) -> int:
    if bits < 256:
        return bits
    if bits < 1024:
        return 1 << 30
    return _rotated(0x80 | bits & 0x7F, bits >> 7)
