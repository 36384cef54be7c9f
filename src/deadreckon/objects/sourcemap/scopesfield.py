"""The scopes proposal of ECMA-426: scopes of the original sources, ranges of the generated code that come from them.

``scopes`` is a text of items separated by commas; an item is a tag and its numbers, VLQs. Numbers that an item has
beyond those it needs are ignored, and so are items with unknown tags, so that later drafts can be read.
Source: https://tc39.es/ecma426/branch/proposal-scopes/, "Scopes structure" and "Decoding scopes".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.kernels.decode import decode_items
from deadreckon.model.tables import ScopeTable, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable

__all__ = ["OriginalFrame", "decode", "frames_at", "scopes"]

_EMPTY, _START, _END, _VARIABLES, _RANGE, _RANGE_END, _BINDINGS, _SUBRANGE, _CALLSITE = range(9)
_HAS_NAME, _HAS_KIND, STACK_FRAME = 1, 2, 4
_HAS_LINE, _HAS_DEFINITION, HIDDEN = 1, 2, 8
_MAX = 0x7FFF_FFFF
_MAX_DEPTH = 100_000
_MAX_TEXT = 8 << 20
_NEEDED = {_START: 3, _END: 2, _VARIABLES: 0, _RANGE: 2, _RANGE_END: 1, _BINDINGS: 0, _SUBRANGE: 1, _CALLSITE: 3}


@dataclass(slots=True)
class _Decoder:
    """One ``scopes`` field on its way to rows; ``errors`` say where its items contradict the proposal."""

    sources: int
    names: int
    source_base: int = 0
    name_base: int = 0
    scopes: list[list[int]] = field(default_factory=list)
    variables: list[tuple[int, int]] = field(default_factory=list)
    ranges: list[list[int]] = field(default_factory=list)
    bindings: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    source: int = 0
    open_scopes: list[int] = field(default_factory=list)
    open_ranges: list[int] = field(default_factory=list)
    line: int = 0
    column: int = 0
    name: int = 0
    kind: int = 0
    variable: int = 0
    range_line: int = 0
    range_column: int = 0
    definition: int = 0

    def item(self, number: int, fields: list[int]) -> None:
        """Take the next item: its tag and numbers, as unsigned VLQs."""
        tag = fields[0] if fields else _EMPTY
        if tag > _CALLSITE:
            return
        values = fields[1:]
        if tag == _EMPTY:
            if not self.open_scopes and not self.ranges:
                self.source += 1
            return
        if len(values) < _NEEDED[tag]:
            self._wrong(number, "has too few numbers")
            return
        if tag <= _VARIABLES:
            if tag != _START and not self.open_scopes:
                self._wrong(number, "stands outside of a scope")
            elif tag == _START:
                self._start(number, values)
            elif tag == _END:
                self._move(values)
                self.scopes[self.open_scopes.pop()][3:5] = self.line, self.column
                if not self.open_scopes:
                    self.source += 1
                    self.line = self.column = 0
            else:
                for value in values:
                    self.variable += _signed(value)
                    self.variables.append((self.open_scopes[-1], self._name(number, self.variable)))
            return
        if tag == _RANGE:
            self._range(number, values)
        elif not self.open_ranges:
            self._wrong(number, "stands outside of a range")
        elif tag == _RANGE_END:
            self._move_range(values if len(values) > 1 else [0, *values])
            self.ranges[self.open_ranges.pop()][2:4] = self.range_line, self.range_column
        elif tag == _CALLSITE:
            if values[0] >= self.sources:
                self._wrong(number, "names a source that is not there")
            else:
                self.ranges[self.open_ranges[-1]][7:10] = (self.source_base + values[0], *values[1:3])
        else:
            self._bind(number, tag, values)

    def _wrong(self, number: int, what: str) -> None:
        if len(self.errors) < 100:
            self.errors.append(f"item {number} {what}")

    def _name(self, number: int, index: int) -> int:
        if 0 <= index < self.names:
            return self.name_base + index
        self._wrong(number, "names an index that is not there")
        return -1

    def _move(self, values: Sequence[int]) -> None:
        line, column = values[0], values[1]
        self.line += line
        self.column = column if line else self.column + column

    def _move_range(self, values: Sequence[int]) -> None:
        line, column = values[0], values[1]
        self.range_line += line
        self.range_column = column if line else self.range_column + column

    def _start(self, number: int, values: list[int]) -> None:
        flags, rest = values[0], values[3:]
        self._move(values[1:3])
        name = kind = -1
        if flags & _HAS_NAME and rest:
            self.name += _signed(rest.pop(0))
            name = self._name(number, self.name)
        elif flags & _HAS_NAME:
            self._wrong(number, "has too few numbers")
        if flags & _HAS_KIND and rest:
            self.kind += _signed(rest.pop(0))
            kind = self._name(number, self.kind)
        elif flags & _HAS_KIND:
            self._wrong(number, "has too few numbers")
        if self.source >= self.sources and not self.open_scopes:
            self._wrong(number, "is of a source that is not there")
        parent = self.open_scopes[-1] if self.open_scopes else -1
        source = self.source_base + self.source if self.source < self.sources else -1
        at = [self.line, self.column]
        self.open_scopes.append(len(self.scopes))
        self.scopes.append([source, *at, *at, name, kind, flags & STACK_FRAME, parent])

    def _range(self, number: int, values: list[int]) -> None:
        flags, rest = values[0], values[1:]
        line = rest.pop(0) if flags & _HAS_LINE else 0
        if not rest:
            self._wrong(number, "has too few numbers")
            return
        self._move_range((line, rest.pop(0)))
        scope = -1
        if flags & _HAS_DEFINITION:
            self.definition += _signed(rest.pop(0)) if rest else 0
            if 0 <= self.definition < len(self.scopes):
                scope = self.definition
            else:
                self._wrong(number, "names a scope that is not there")
        if flags & HIDDEN and not flags & STACK_FRAME:
            self._wrong(number, "is hidden and no function")
            flags &= ~HIDDEN
        parent = self.open_ranges[-1] if self.open_ranges else -1
        at = [self.range_line, self.range_column]
        self.open_ranges.append(len(self.ranges))
        self.ranges.append([*at, *at, scope, flags & (STACK_FRAME | HIDDEN), parent, -1, -1, -1])

    def _bind(self, number: int, tag: int, values: list[int]) -> None:
        current = self.open_ranges[-1]
        line, column = self.ranges[current][:2]
        if tag == _BINDINGS:
            for variable, value in enumerate(values):
                if value:
                    self.bindings.append((current, variable, line, column, self._name(number, value - 1)))
            return
        if len(values) % 3 != 1:
            self._wrong(number, "has too few numbers")
        for i in range(1, len(values) - 2, 3):
            line += values[i]
            column = values[i + 1] if values[i] else column + values[i + 1]
            name = self._name(number, values[i + 2] - 1) if values[i + 2] else -1
            self.bindings.append((current, values[0], line, column, name))

    def finish(self) -> None:
        """Note what was left open; its end is where it began."""
        if self.open_scopes or self.open_ranges:
            self.errors.append("a scope or range has no end")


def _signed(value: int) -> int:
    if value & 1:
        return -(value >> 1) if value > 1 else -0x8000_0000
    return value >> 1


def decode(
    text: str, sources: int, names: int, source_base: int = 0, name_base: int = 0
) -> tuple[ScopeTable, list[str]]:
    """Decode one ``scopes`` field of a map with so many sources and names; return its rows and what is wrong with it.

    A text outside the grammar gives nothing, as the proposal says, and so does one of more than 8 MiB.
    """
    if len(text) > _MAX_TEXT:
        return ScopeTable.empty(), [f"more than {_MAX_TEXT} characters"]
    items = decode_items(text.encode("latin-1", "replace"))
    if np.any(items.faults) or np.any(items.separators == ord(";")):
        return ScopeTable.empty(), ["not items of VLQs with commas between them"]
    decoder = _Decoder(sources, names, source_base, name_base)
    values, first = items.values.tolist(), items.first.tolist()
    for number in range(len(items) if text else 0):
        decoder.item(number, values[first[number] : first[number + 1]])
    decoder.finish()
    lists = (decoder.scopes, decoder.variables, decoder.ranges, decoder.bindings)
    widths = (9, 2, 10, 5)
    rows = [np.array(each, np.int64).reshape(-1, width) for each, width in zip(lists, widths, strict=True)]
    return ScopeTable(*(np.minimum(each, _MAX).astype(np.int32) for each in rows)), decoder.errors


def scopes(table: SourceMapTable) -> ScopeTable:
    """Return the scopes of a map; they are decoded the first time that they are asked for."""
    if table.scopes is None:
        found = [_section(table, *entry) for entry in table.info["scopes"]]
        table.scopes = found[0] if len(found) == 1 else _joined(found)
    return table.scopes


def _section(
    table: SourceMapTable,
    start: int,
    end: int,
    source: int,
    sources: int,
    name: int,
    names: int,
    line: int,
    column: int,
) -> ScopeTable:
    text = json_text(table.text[start:end].tobytes()) or ""
    found, _ = decode(text, sources, names, source, name)
    if line or column:
        for rows, at in ((found.ranges, 0), (found.ranges, 2), (found.bindings, 2)):
            rows[:, at + 1] += np.where(rows[:, at] == 0, column, 0).astype(np.int32)
            rows[:, at] += np.int32(line)
    return found


def _joined(found: list[ScopeTable]) -> ScopeTable:
    """Return the scopes of several sections, with references to rows moved along."""
    joined = ScopeTable.empty()
    for each in found:
        scope_base, range_base = np.int32(len(joined.scopes)), np.int32(len(joined.ranges))
        for rows, at, base in (
            *((each.scopes, 8, scope_base), (each.variables, 0, scope_base), (each.ranges, 4, scope_base)),
            *((each.ranges, 6, range_base), (each.bindings, 0, range_base)),
        ):
            rows[:, at] += np.where(rows[:, at] >= 0, base, 0).astype(np.int32)
        joined.scopes = np.concatenate([joined.scopes, each.scopes])
        joined.variables = np.concatenate([joined.variables, each.variables])
        joined.ranges = np.concatenate([joined.ranges, each.ranges])
        joined.bindings = np.concatenate([joined.bindings, each.bindings])
    return joined


@dataclass(slots=True)
class OriginalFrame:
    """A frame of the original program: a function's name (None: it has none), and where in it, 0-based."""

    name: str | None
    source: int
    line: int
    column: int


def frames_at(table: SourceMapTable, line: int, column: int, place: tuple[int, int, int]) -> list[OriginalFrame] | None:
    """Return the original frames of one frame of the generated program, innermost first; more than one where inlined.

    ``line`` and ``column`` are the generated position, ``place`` the source, line and column that it maps to. The list
    is empty where the function is one that the generator made (hidden). None where the map has no scopes there.
    """
    found = scopes(table)
    at = _innermost(found.ranges, line, column)
    frames: list[OriginalFrame] = []
    depth = 0
    while at >= 0 and depth < _MAX_DEPTH:
        _, _, _, _, scope, flags, parent, source, call_line, call_column = found.ranges[at].tolist()
        if flags & HIDDEN:
            return []
        inlined = source >= 0
        if scope >= 0 and (inlined or flags & STACK_FRAME):
            frames.append(OriginalFrame(_function_name(table, found, scope), *place))
            if inlined:
                place = source, call_line, call_column
        if flags & STACK_FRAME:
            return frames or None
        at, depth = parent, depth + 1
    # Code outside of every function, into which one may have been inlined all the same.
    return [*frames, OriginalFrame(None, *place)] if frames else None


def _innermost(ranges: NDArray[np.int32], line: int, column: int) -> int:
    """Return the row of the innermost range around a position, -1 for none; ranges are sorted by start."""
    starts = ranges[:, 0].astype(np.int64) << 32 | ranges[:, 1]
    at = int(np.searchsorted(starts, line << 32 | column, side="right")) - 1
    for _ in range(_MAX_DEPTH):
        if at < 0 or (line, column) < (int(ranges[at, 2]), int(ranges[at, 3])):
            return at
        at = int(ranges[at, 6])
    return -1


def _function_name(table: SourceMapTable, found: ScopeTable, scope: int) -> str | None:
    """Return the name of the nearest function scope around ``scope``, itself included."""
    for _ in range(_MAX_DEPTH):
        if scope < 0:
            break
        _, _, _, _, _, name, _, flags, parent = found.scopes[scope].tolist()
        if flags & STACK_FRAME:
            return table.name(name)
        scope = parent
    return None
