"""PE images: unwind information (``.pdata``) to a RuleTable.

Source: Microsoft "PE Format" (``.pdata``), "x64 exception handling", "ARM64 exception handling". What one function's
record says is read by pe_amd64 and pe_arm64. The layers, each over the one before it: executable sections (code
without an entry is a leaf's), functions (a row a prologue step), epilogues.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.model.tables import NO_RULE, RuleTable
from deadreckon.objects import pe, pe_amd64, pe_arm64
from deadreckon.objects.rulebuilder import Pieces, Programs, RuleBuilder, Spans, overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["PeRules", "read"]

_MAX_FUNCTIONS = 1 << 22
_MAX_ROWS = 1 << 23
_MAX_PROGRAM_ROWS = 1 << 20
"""Rows of distinct prologues: each is worked out in Python. A browser's 200 MB have about 600,000."""
_MAX_KINDS = 8
_LAST_RVA = 0xFFFF_FFFE


@dataclass(slots=True)
class PeRules:
    """The rules of an image, and one message for each kind of thing that was lost."""

    rules: RuleTable = field(default_factory=RuleTable.empty)
    problems: list[str] = field(default_factory=list)


def read(data: bytes | memoryview) -> PeRules:
    """Lower an image's unwind information; there is none for CPUs other than x86-64 and ARM64.

    A function whose record is damaged has no rule, which costs it and no other one. Raises Malformed where the
    headers can't be read.
    """
    image = pe.headers(data)
    lower = {Arch.X86_64: _amd64, Arch.ARM64: _arm64}.get(image.arch)
    address, size = image.directory(pe.DIRECTORY_EXCEPTION)
    if lower is None or not address or not size:
        return PeRules()
    work = _Work(image)
    width = 3 if image.arch is Arch.X86_64 else 2
    table = image.at(address, size)
    if len(table) < size:
        work.lost(Malformed(".pdata", offset=address, expected=f"{size} bytes", got=len(table)), address)
    rows = np.frombuffer(table, "<u4", len(table) // (4 * width) * width).reshape(-1, width)
    if len(rows) > _MAX_FUNCTIONS:
        work.lost(Malformed(".pdata", offset=address, expected=f"at most {_MAX_FUNCTIONS} entries", got=len(rows)), 0)
    lower(work, rows[:_MAX_FUNCTIONS].astype(np.int64))
    return PeRules(work.finish(), work.problems())


class _Work:
    """The table of one image in the making."""

    def __init__(self, image: pe.Headers) -> None:
        self.image = image
        self.builder = RuleBuilder()
        self.programs = Programs()
        self.missing = self.programs.add([(0, NO_RULE)])
        self.functions = Pieces()
        self.epilogues = Pieces()
        self.found: list[Spans] = []
        self.default = NO_RULE
        self._lost: dict[str, tuple[int, Malformed]] = {}

    def lost(self, error: Malformed, function: int) -> None:
        """Take note of a part that can't be used; ``function`` is where it would have held."""
        count, first = self._lost.get(error.what, (0, error))
        self._lost[error.what] = count + 1, first
        if not count:
            error.offset = function if error.offset is None else error.offset

    def problems(self) -> list[str]:
        """Return what was noted, one message a kind."""
        return [
            str(first) if count == 1 else f"{first} (the first of {count})"
            for count, first in list(self._lost.values())[:_MAX_KINDS]
        ]

    def program(self, read: Callable[[], list[tuple[int, int]]], function: int) -> int:
        """Return the number of a new program, that of no rule at all where it can't be made."""
        if self.programs.rows > _MAX_PROGRAM_ROWS:
            self.lost(Malformed("prologues", expected=f"{_MAX_PROGRAM_ROWS} rows of distinct ones", got="more"), function)
            return self.missing
        try:
            return self.programs.add(read())
        except Malformed as e:
            self.lost(e, function)
            return self.missing

    def finish(self) -> RuleTable:
        """Return the table."""
        if not len(self.functions):
            return RuleTable.empty()
        text = self.image.text().astype(np.int64)
        spans = Spans(text[:, 0], text[:, 1], np.full(len(text), self.default, np.int64))
        none = np.zeros(0, np.int64)
        rva, rule = overlay(none, none, spans)
        room = _MAX_ROWS
        for pieces in (self.functions, self.epilogues):
            layer, kept = self.programs.spans(pieces, room)
            if kept < len(pieces):
                self.lost(Malformed("unwind information", expected=f"at most {_MAX_ROWS} rows", got="more"), 0)
                if pieces is self.functions:
                    # What has no rows must not pass for leaf functions.
                    cut = layer.stop[-1] if len(layer.stop) else 0
                    rest = Spans(*(np.array([v], np.int64) for v in (cut, _LAST_RVA, NO_RULE)))
                    layer = Spans(*(np.concatenate(c) for c in zip(layer, rest, strict=True)))
            rva, rule = overlay(rva, rule, layer)
            room = max(room - len(layer.start), 0)
        for layer in self.found:
            rva, rule = overlay(rva, rule, layer)
        return self.builder.table(rva, rule)


def _sorted(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the entries that can be used, by address; of those with one start the first. Linkers sort, packers don't."""
    usable = np.flatnonzero((start > 0) & (start < end) & (end <= _LAST_RVA))
    order = usable[np.argsort(start[usable], kind="stable")]
    return order[np.append(True, np.diff(start[order]) != 0)[: len(order)]]


def _amd64(work: _Work, rows: NDArray[np.int64]) -> None:
    rows = rows[_sorted(rows[:, 0], rows[:, 1])]
    work.default = pe_amd64.leaf(work.builder)
    reader = pe_amd64.Reader(work.image, work.builder)
    records, record = np.unique(rows[:, 2], return_inverse=True)
    first = rows[:, 0][np.unique(record, return_index=True)[1]] if len(rows) else rows[:, 0]
    prologues: list[pe_amd64.Prologue | None] = []
    program: list[int] = []
    numbers: dict[int, tuple[int, int]] = {}

    def lowered(address: int) -> list[tuple[int, int]]:
        prologues[-1] = reader.read(address)
        return prologues[-1].rows

    for address, function in zip(records.tolist(), first.tolist(), strict=True):
        prologues.append(None)
        number = work.program(lambda at=address: lowered(at), function)  # type: ignore[misc]
        program.append(number)
    ...
