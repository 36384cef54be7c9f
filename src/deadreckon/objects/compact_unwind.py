"""Apple's compact unwind information (``__TEXT,__unwind_info``) to a RuleTable.

Source: Apple ``mach-o/compact_unwind_encoding.h``. Two levels of pages map a function's start to 32 bits that describe
its frame: on a frame pointer, without one, or a note that ``__eh_frame`` has it. An encoding holds for a function's
body. Where the code bytes are at hand, the standard prologues have rules of their own: at a function's first
instruction nothing has happened, and after ``push rbp`` only that. Addresses inside instructions have them too, but
those are no program counters; a return address is looked up by the byte before it, which no such row covers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.model.tables import NO_RULE, REG_OFFSET, RuleTable
from deadreckon.objects.rulebuilder import LAST_RVA, RuleBuilder, Spans, overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["CompactUnwind", "read"]

_NOT_A_START = 0x8000_0000
_MODE = 0x0F00_0000
_INDEX_ENTRY = 12
_REGULAR, _COMPRESSED = 2, 3
_MAX_PAGES = 1 << 18
_MAX_ENTRIES = 1 << 23
_MAX_DISTINCT = 1 << 18
"""Distinct encodings and functions with a large frame, each of which takes Python some microseconds."""
_MAX_KINDS = 8


@dataclass(slots=True)
class CompactUnwind:
    """A section, and what is needed to make sense of it; addresses are relative to __TEXT.

    ``code`` gives bytes by address, fewer where the file has not all of them. ``starts`` u32[n]: where functions are
    known to start, besides those with an entry: linkers give neighbours with equal encodings one.
    """

    section: bytes
    arch: Arch
    code: Callable[[int, int], bytes]
    starts: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))


def read(source: CompactUnwind) -> tuple[RuleTable, list[str]]:
    """Return the rules, and one message for each kind of thing that was lost.

    A function whose encoding is none of the known ones, or refers to ``__eh_frame``, has no rule. Raises Malformed
    where the section's header can't be read.
    """
    lower = _BY_ARCH.get(source.arch)
    if lower is None or not source.section:
        return RuleTable.empty(), []
    problems: dict[str, str] = {}
    start, encoding, end = _entries(source.section, problems)
    builder = RuleBuilder()
    rule = np.full(len(start), NO_RULE, np.int64)
    distinct, which = np.unique(encoding & ~0xF000_0000, return_inverse=True)
    if len(distinct) > _MAX_DISTINCT:
        problems["distinct"] = str(LimitExceeded("distinct compact encodings", _MAX_DISTINCT, len(distinct)))
    of = [lower(value, builder, 0) for value in distinct[:_MAX_DISTINCT].tolist()]
    rule = np.array([*of, NO_RULE], np.int64)[np.minimum(which, len(of))] if len(start) else rule
    if source.arch is not Arch.ARM64:
        # The size of a large frame is in the function's ``sub``.
        large = np.flatnonzero(encoding & _MODE == _INDIRECT)[:_MAX_DISTINCT]
        for i in large.tolist():
            size = source.code(int(start[i]) + (int(encoding[i]) >> 16 & 0xFF), 4)
            rule[i] = lower(int(encoding[i]), builder, int.from_bytes(size, "little")) if len(size) == 4 else NO_RULE
    stop = np.append(start[1:], end)[: len(start)]
    none = np.zeros(0, np.int64)
    rva, rows = overlay(none, none, Spans(start, stop, rule))
    prologues = _prologues(source, start, stop, rule, encoding, builder)
    rva, rows = overlay(rva, rows, prologues)
    return builder.table(rva, rows), list(problems.values())[:_MAX_KINDS]


# --- Pages ----------------------------------------------------------------------------------------------------------


def _entries(data: bytes, problems: dict[str, str]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return where entries start, sorted, their encodings, and where the last one ends. Raises Malformed."""
    if len(data) < 28:
        raise Malformed("__unwind_info", offset=0, expected="28 bytes", got=len(data))
    version, common_at, commons, _, _, index_at, indexes = struct.unpack_from("<7I", data)
    if version != 1:
        raise Malformed("__unwind_info", offset=0, expected="version 1", got=version)
    common = _words(data, common_at, commons)
    if commons > len(common):
        problems["common"] = str(Malformed("common encodings", offset=common_at, expected=commons, got=len(common)))
    if indexes > _MAX_PAGES:
        problems["pages"] = str(LimitExceeded("pages of __unwind_info", _MAX_PAGES, indexes))
    index = _words(data, index_at, 3 * min(indexes, _MAX_PAGES))
    index = index[: len(index) // 3 * 3].reshape(-1, 3)
    if len(index) < min(indexes, _MAX_PAGES):
        problems["index"] = str(Malformed("__unwind_info index", offset=index_at, expected=indexes, got=len(index)))
    pages: list[NDArray[np.int64]] = []
    count = 0
    for (first, at, _), (limit, _, _) in pairwise(index.tolist()):
        if not at:
            continue
        try:
            page = _page(data, at, first, common)
        except Malformed as e:
            problems.setdefault("page", str(e))
            # What has no entries must not pass for the last function of the page before.
            page = np.array([[first, 0]], np.int64)
        count += len(page)
        if count > _MAX_ENTRIES:
            problems["entries"] = str(LimitExceeded("entries of __unwind_info", _MAX_ENTRIES))
            pages.append(np.array([[first, 0]], np.int64))
            break
        pages.append(page[(page[:, 0] >= first) & (page[:, 0] < limit)])
    found = np.concatenate(pages) if pages else np.zeros((0, 2), np.int64)
    found = found[np.argsort(found[:, 0], kind="stable")]
    found = found[np.append(found[1:, 0] != found[:-1, 0], True)[: len(found)]]
    end = int(index[-1, 0]) if len(index) else 0
    found = found[found[:, 0] < min(end, LAST_RVA)]
    return found[:, 0], found[:, 1], min(end, LAST_RVA)


def _words(data: bytes, at: int, count: int) -> NDArray[np.int64]:
    """Return u32 words, fewer where the section ends."""
    count = max(min(count, (len(data) - at) // 4), 0)
    return np.frombuffer(data, "<u4", count, at if count else 0).astype(np.int64)


def _page(data: bytes, at: int, first: int, common: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a second-level page's entries: start and encoding, i64[n, 2]. Raises Malformed."""
    if at + 8 > len(data):
        raise Malformed("__unwind_info page", offset=at, expected="a page in the section")
    kind, entries_at, count = struct.unpack_from("<IHH", data, at)
    if kind == _REGULAR:
        rows = _words(data, at + entries_at, 2 * count)
        found = rows[: len(rows) // 2 * 2].reshape(-1, 2)
    elif kind == _COMPRESSED:
        encodings_at, encodings = struct.unpack_from("<HH", data.ljust(at + 12, b"\0"), at + 8)
        rows = _words(data, at + entries_at, count)
        table = np.concatenate([common, _words(data, at + encodings_at, encodings), [0]])
        which = np.minimum(rows >> 24, len(table) - 1)
        found = np.stack([first + (rows & 0xFF_FFFF), table[which]], axis=1)
    else:
        raise Malformed("__unwind_info page", offset=at, expected="kind 2 or 3", got=kind)
    if len(found) < count:
        raise Malformed("__unwind_info page", offset=at, expected=f"{count} entries in the section", got=len(found))
    return found


# --- Encodings ------------------------------------------------------------------------------------------------------

_FRAME, _IMMEDIATE, _INDIRECT = 0x0100_0000, 0x0200_0000, 0x0300_0000
_FRAMELESS_ARM64, _FRAME_ARM64 = 0x0200_0000, 0x0400_0000


class _Intel(NamedTuple):
    """Registers by DWARF number; ``saved[n - 1]`` is what an encoding calls n."""

    word: int
    sp: int
    fp: int
    pc: int
    saved: tuple[int, int, int, int, int, int]


_X86_64 = _Intel(8, sp=7, fp=6, pc=16, saved=(3, 12, 13, 14, 15, 6))
_X86 = _Intel(4, sp=4, fp=5, pc=8, saved=(3, 1, 2, 7, 6, 5))
_FP, _LR, _SP = 29, 30, 31


def _intel(cpu: _Intel, encoding: int, builder: RuleBuilder, size: int) -> int:
    """Return the rule of an x86 or x86-64 encoding; ``size``: the operand of the ``sub`` of a large frame."""
    word = cpu.word
    mode = encoding & _MODE
    ra = (cpu.pc, REG_OFFSET, -word)
    if mode == _FRAME:
        lowest = -2 * word - word * (encoding >> 16 & 0xFF)
        saved = [(encoding >> 3 * i & 7, lowest + word * i) for i in range(5)]
        if any(n > 5 for n, _ in saved):
            return NO_RULE
        kept = [(cpu.saved[n - 1], REG_OFFSET, place) for n, place in saved if n]
        return builder.rule((cpu.fp, 2 * word), [ra, (cpu.fp, REG_OFFSET, -2 * word), *kept], ra=cpu.pc)
    if mode == _IMMEDIATE:
        frame = word * (encoding >> 16 & 0xFF)
    elif mode == _INDIRECT and size:
        frame = size + word * (encoding >> 13 & 7)
    else:
        return NO_RULE
    registers = _permuted(encoding & 0x3FF, encoding >> 10 & 7)
    if registers is None or frame < word * (1 + len(registers)):
        return NO_RULE
    lowest = -word * (1 + len(registers))
    kept = [(cpu.saved[n - 1], REG_OFFSET, lowest + word * i) for i, n in enumerate(registers)]
    return builder.rule((cpu.sp, frame), [ra, *kept], ra=cpu.pc)


def _permuted(number: int, count: int) -> list[int] | None:
    """Return which ``count`` of six registers a permutation's number stands for, None where it is out of range.

    Each digit, of a base that shrinks by one, picks from the registers not taken yet.
    """
    if count > 6:
        return None
    digits = []
    # With six registers the last one is what is left over.
    for base in range(7 - count, 7):
        digits.append(number % base)
        number //= base
    left = [1, 2, 3, 4, 5, 6]
    return None if number else [left.pop(digit) for digit in reversed(digits)]


def _arm64(encoding: int, builder: RuleBuilder, _size: int) -> int:
    mode = encoding & _MODE
    if mode == _FRAME_ARM64:
        cfa, place = (_FP, 16), -24
        saved = [(_LR, REG_OFFSET, -8), (_FP, REG_OFFSET, -16)]
    elif mode == _FRAMELESS_ARM64:
        cfa, place = (_SP, 16 * (encoding >> 12 & 0xFFF)), -8
        saved = []
    else:
        return NO_RULE
    for pair in range(5):
        if encoding >> pair & 1:
            saved += [(19 + 2 * pair, REG_OFFSET, place), (20 + 2 * pair, REG_OFFSET, place - 8)]
            place -= 16
    return builder.rule(cfa, saved, ra=_LR)


_BY_ARCH: dict[Arch, Callable[[int, RuleBuilder, int], int]] = {
    Arch.X86: lambda encoding, builder, size: _intel(_X86, encoding, builder, size),
    Arch.X86_64: lambda encoding, builder, size: _intel(_X86_64, encoding, builder, size),
    Arch.ARM64: _arm64,
}


# --- Prologues ------------------------------------------------------------------------------------------------------


def _prologues(
    source: CompactUnwind,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    rule: NDArray[np.int64],
    encoding: NDArray[np.int64],
    builder: RuleBuilder,
) -> Spans:
    """Return the rules that hold in standard prologues."""
    first = np.union1d(start[encoding & _NOT_A_START == 0], source.starts.astype(np.int64))
    at = np.searchsorted(start, first, side="right") - 1
    real = (at >= 0) & (first < np.append(stop, 0)[at]) & (np.append(rule, NO_RULE)[at] != NO_RULE)
    first, at = first[real], at[real]
    if source.arch is Arch.ARM64:
        entry = builder.rule((_SP, 0), (), ra=_LR)
        return Spans(first, first + 1, np.full(len(first), entry))
    cpu = _X86 if source.arch is Arch.X86 else _X86_64
    word = cpu.word
    entry = builder.rule((cpu.sp, word), [(cpu.pc, REG_OFFSET, -word)], ra=cpu.pc)
    saved = [(cpu.pc, REG_OFFSET, -word), (cpu.fp, REG_OFFSET, -2 * word)]
    pushed = builder.rule((cpu.sp, 2 * word), saved, ra=cpu.pc)
    framed = np.flatnonzero(encoding[at] & _MODE == _FRAME).tolist()
    # push rbp; mov rbp, rsp
    standard = b"\x55\x48\x89\xe5" if source.arch is Arch.X86_64 else b"\x55\x89\xe5"
    begins = first[[i for i in framed if source.code(int(first[i]), len(standard)) == standard]]
    spans = np.concatenate(
        [np.stack([first, first + 1], axis=1), np.stack([begins + 1, begins + len(standard)], axis=1)]
    )
    rules = np.concatenate([np.full(len(first), entry), np.full(len(begins), pushed)])
    order = np.argsort(spans[:, 0], kind="stable")
    return Spans(spans[order, 0], spans[order, 1], rules[order])
