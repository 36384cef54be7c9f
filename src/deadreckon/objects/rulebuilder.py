"""Builds RuleTables: distinct rules first, then the address ranges they hold for.

Readers of function tables (PE, and whatever else describes a function's prologue step by step) lower each distinct
prologue once, as a *program* of rows relative to a function's start, and then say which functions it is the program
of. Programs are plain Python, for there are few; functions are columns, for there are many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.tables import CFA_EXPR, CFA_REG, NO_RULE, RuleTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["LAST_RVA", "Pieces", "Programs", "RuleBuilder", "Spans", "TableBuilder", "breg", "overlay"]

LAST_RVA = 0xFFFF_FFFE
_MAX_I32 = 0x7FFF_FFFF
_MAX_ROWS = 1 << 23
_MAX_PROGRAM_ROWS = 1 << 20
"""Rows of distinct programs, each of which takes Python some microseconds. A browser's 200 MB have about 600,000."""
_MAX_KINDS = 8


class RuleBuilder:
    """Collects distinct rules; one that was seen before gets the same index."""

    def __init__(self) -> None:
        self._rules: list[tuple[int, int, int, int, int, int]] = []
        self._saved: list[tuple[int, int, int]] = []
        self._expr = bytearray()
        self._known: dict[object, int] = {}
        self._blocks: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._rules)

    def rule(
        self, cfa: tuple[int, int] | bytes, saved: Iterable[tuple[int, int, int | bytes]], *, ra: int, flags: int = 0
    ) -> int:
        """Return the index of a rule, NO_RULE where a number in it is out of range.

        ``cfa``: (register, offset) or a DWARF expression; ``saved``: (register, REG_ kind, value or expression);
        ``ra``: the register whose rule gives the return address.
        """
        entries = tuple(saved)
        key = (cfa, entries, ra, flags)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._add(cfa, entries, flags | ra << 8)
        return found

    def _add(self, cfa: tuple[int, int] | bytes, saved: tuple[tuple[int, int, int | bytes], ...], flags: int) -> int:
        kind, register, offset = (CFA_EXPR, 0, self._block(cfa)) if isinstance(cfa, bytes) else (CFA_REG, *cfa)
        rows = [(r, what, self._block(value) if isinstance(value, bytes) else value) for r, what, value in saved]
        if not all(-_MAX_I32 <= value <= _MAX_I32 for value in (offset, *(value for _, _, value in rows))):
            return NO_RULE
        self._rules.append((kind, register, offset, flags, len(self._saved), len(rows)))
        self._saved.extend(rows)
        return len(self._rules) - 1

    def _block(self, code: bytes) -> int:
        found = self._blocks.get(code)
        if found is None:
            found = self._blocks[code] = len(self._expr)
            self._expr += _uleb(len(code)) + code
        return found

    def table(self, rva: NDArray[np.int64], rule: NDArray[np.int64]) -> RuleTable:
        """Return the table of these rows, which are sorted."""
        return RuleTable(
            rva.astype(np.uint32),
            rule.astype(np.uint32),
            np.array(self._rules, np.int32).reshape(-1, 6),
            np.array(self._saved, np.int32).reshape(-1, 3),
            np.frombuffer(bytes(self._expr), np.uint8),
        )


def breg(register: int, offset: int) -> bytes:
    """Return the DWARF operation that pushes a register (below 32) plus an offset: DW_OP_breg."""
    out = bytearray([0x70 + register])
    while not -64 <= offset < 64:
        out.append(offset & 0x7F | 0x80)
        offset >>= 7
    out.append(offset & 0x7F)
    return bytes(out)


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Spans(NamedTuple):
    """Rules and where they hold: ``rule`` from ``start`` up to ``stop``, all i64[n], sorted, not overlapping."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    rule: NDArray[np.int64]


class Programs:
    """Programs, each a list of (offset, rule) that begins at offset 0 and ascends."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._offset: list[int] = []
        self._rule: list[int] = []

    def room(self) -> None:
        """Raise LimitExceeded where there are too many already; to be asked before making another."""
        if len(self._offset) > _MAX_PROGRAM_ROWS:
            raise LimitExceeded("rows of distinct prologues", _MAX_PROGRAM_ROWS)

    def add(self, rows: Iterable[tuple[int, int]]) -> int:
        """Return the number of a new program."""
        self._first.append(len(self._offset))
        for offset, rule in rows:
            self._offset.append(offset)
            self._rule.append(rule)
        return len(self._first) - 1

    def spans(self, pieces: Pieces, most: int) -> tuple[Spans, bool]:
        """Return the spans of some pieces, and whether they are all, or only the first by address: ``most`` rows.

        Of pieces that overlap, each ends where the next begins.
        """
        origin, begin, end, program = pieces.columns()
        order = np.argsort(begin, kind="stable")
        origin, begin, end, program = origin[order], begin[order], end[order], program[order]
        end = np.minimum(end, np.append(begin[1:], LAST_RVA)[: len(end)])
        first = np.array([*self._first, len(self._offset)], np.int64)
        count = np.diff(first)[program]
        kept = int(np.searchsorted(np.cumsum(count), most, side="right"))
        count = count[:kept]
        piece = np.repeat(np.arange(kept), count)
        row = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count) + first[program[piece]]
        start = origin[piece] + np.array(self._offset, np.int64)[row]
        last = np.append(piece[1:] != piece[:-1], True)[: len(piece)]
        stop = np.where(last, end[piece], np.append(start[1:], 0)[: len(piece)])
        start, stop = np.maximum(start, begin[piece]), np.minimum(stop, end[piece])
        real = start < stop
        return Spans(start[real], stop[real], np.array(self._rule, np.int64)[row][real]), kept == len(begin)


@dataclass(slots=True)
class Pieces:
    """Functions, or parts of them: a program that starts at ``origin`` holds from ``begin`` up to ``end``."""

    origin: list[int] = field(default_factory=list)
    begin: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    program: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.origin)

    def add(self, begin: int, end: int, program: int, *, origin: int | None = None) -> None:
        """Add one; its origin is where it begins unless it says otherwise."""
        self.origin.append(begin if origin is None else origin)
        self.begin.append(begin)
        self.end.append(end)
        self.program.append(program)

    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """Return origin, begin, end and program as columns."""
        return tuple(np.array(c, np.int64) for c in (self.origin, self.begin, self.end, self.program))


def overlay(
    rva: NDArray[np.int64], rule: NDArray[np.int64], spans: Spans
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows (sorted, as are ``rva`` and ``rule``) in which the spans take precedence."""
    if not len(spans.start):
        return _merged(rva, rule)
    start, stop = spans.start, np.minimum(spans.stop, np.append(spans.start[1:], np.iinfo(np.int64).max))
    at = np.searchsorted(start, rva, side="right") - 1
    free = (at < 0) | (rva >= stop[at])
    resumed = stop[stop != np.append(start[1:], -1)]
    under = np.searchsorted(rva, resumed, side="right") - 1
    below = np.where(under >= 0, np.append(rule, NO_RULE)[under], NO_RULE)
    where = np.concatenate([start, resumed, rva[free]])
    what = np.concatenate([spans.rule, below, rule[free]])
    order = np.argsort(where, kind="stable")
    return _merged(where[order], what[order])


def _merged(rva: NDArray[np.int64], rule: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out rows that change nothing: of several at one address the first counts."""
    first = np.append(True, rva[1:] != rva[:-1])[: len(rva)]
    rva, rule = rva[first], rule[first]
    changed = np.append(True, rule[1:] != rule[:-1])[: len(rva)]
    return rva[changed], rule[changed]


class TableBuilder:
    """A RuleTable in the making, from layers: each takes precedence over those before it."""

    def __init__(self) -> None:
        self.rules = RuleBuilder()
        self.programs = Programs()
        self.missing = self.programs.add([(0, NO_RULE)])
        """The program of a function that has unwind information which can't be used."""
        self.default = NO_RULE
        """The rule of code that belongs to no function."""
        self.functions = Pieces()
        self.epilogues = Pieces()
        self.found: list[Spans] = []
        """Layers above these."""
        self._lost: dict[str, tuple[int, Malformed | LimitExceeded]] = {}

    def lost(self, error: Malformed | LimitExceeded) -> None:
        """Take note of a part that can't be used."""
        kind = error.what if isinstance(error, Malformed) else error.limit
        count, first = self._lost.get(kind, (0, error))
        self._lost[kind] = count + 1, first

    def problems(self) -> list[str]:
        """Return what was noted, one message a kind."""
        return [
            str(first) if count == 1 else f"{first} (the first of {count})"
            for count, first in list(self._lost.values())[:_MAX_KINDS]
        ]

    def finish(self, text: NDArray[np.uint32]) -> RuleTable:
        """Return the table; ``text`` u32[n, 2] is where there is code. Without functions it is empty."""
        if not len(self.functions):
            return RuleTable.empty()
        none = np.zeros(0, np.int64)
        sections = text.astype(np.int64)
        rva, rule = overlay(
            none, none, Spans(sections[:, 0], sections[:, 1], np.full(len(text), self.default, np.int64))
        )
        room = _MAX_ROWS
        for pieces in (self.functions, self.epilogues):
            layer, whole = self.programs.spans(pieces, room)
            room -= len(layer.start)
            if not whole:
                self.lost(LimitExceeded("rows of an image", _MAX_ROWS))
                # What has no rows must not pass for a leaf function.
                end = int(layer.stop[-1]) if len(layer.stop) else 0
                rest = (np.array([value], np.int64) for value in (end, LAST_RVA, NO_RULE))
                layer = Spans(*(np.append(column, value) for column, value in zip(layer, rest, strict=True)))
            rva, rule = overlay(rva, rule, layer)
        for layer in self.found:
            rva, rule = overlay(rva, rule, layer)
        return self.rules.table(rva, rule)
