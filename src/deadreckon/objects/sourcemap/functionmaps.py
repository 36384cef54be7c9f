"""Function names that a map gives by original position: Metro's and Bloomberg's extensions.

* ``x_facebook_sources``: parallel to ``sources``, each element null or a list whose first item is a function map
  ``{"names": [...], "mappings": "..."}``. Groups of segments of signed VLQs: column, relative within a group; name,
  relative throughout; line, relative throughout from line 1 and left out where it stays the same
  (https://github.com/facebook/metro/blob/main/docs, "Source Map Format").
* ``x_com_bloomberg_sourcesFunctionMappings``: parallel to ``sources``, each element null or segments of five signed
  VLQs: name, start line relative to the end line before, start column, end line relative to the start line, end column;
  nested and sorted by start (https://github.com/bloomberg/pasta-sourcemaps/blob/main/spec.md).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from deadreckon.kernels.decode import decode_items, signed
from deadreckon.model.tables import FunctionTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable

__all__ = ["functions", "json_value"]

_MAX_POSITION = 0x7FFF_FFFF
_MAX_JSON = 64 << 20
_MAX_MAPPINGS = 16 << 20
"""Bytes of one field, and of the texts of numbers in it: real ones have a twentieth; numbers take 100 bytes a byte."""


def json_value(table: SourceMapTable, start: int, end: int) -> Any:
    """Return the value of JSON in a map's text, None where it is none or has more than 64 MiB."""
    if end - start > _MAX_JSON:
        return None
    raw = table.text[start:end].tobytes()
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(raw.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def functions(table: SourceMapTable) -> FunctionTable:
    """Return the function names of a map; they are read the first time that they are asked for."""
    if table.functions is None:
        table.functions = _Names(table).read()
    return table.functions


class _Names:
    """Names of all sources, each once."""

    def __init__(self, table: SourceMapTable) -> None:
        self.table = table
        self.index: dict[str, int] = {}

    def read(self) -> FunctionTable:
        count = len(self.table.sources)
        parts: list[NDArray[np.int64]] = []
        origin = np.zeros(count, np.uint8)
        for kind, start, end, source, sources, name, names in self.table.info["functions"]:
            listed = json_value(self.table, start, end)
            if not isinstance(listed, list):
                continue
            read = self._facebook if kind == 1 else self._bloomberg
            rows = read(listed[:sources], source, range(name, name + names))
            rows = rows[origin[rows[:, 0]] == 0]  # Metro's come first, and are not mixed with others.
            parts.append(rows)
            origin[np.unique(rows[:, 0])] = kind
        if not parts:
            return FunctionTable.empty(count)
        rows = np.concatenate(parts)
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        first = np.searchsorted(rows[:, 0], np.arange(count + 1)).astype(np.uint32)
        names, text = self._texts()
        return FunctionTable(first, np.ascontiguousarray(rows[:, 1:], np.int32), origin, names, text)

    def _texts(self) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        encoded = [json.dumps(name).encode() for name in self.index]
        ends = np.cumsum([len(e) for e in encoded], dtype=np.uint32)
        starts = np.append(np.uint32(0), ends)[: len(encoded)]
        text = np.frombuffer(b"".join(encoded), np.uint8)
        return np.stack([starts, ends], axis=1).reshape(-1, 2).astype(np.uint32), text

    def _number(self, name: Any) -> int:
        return self.index.setdefault(name, len(self.index)) if isinstance(name, str) else -1

    def _facebook(self, listed: list[Any], base: int, _: range) -> NDArray[np.int64]:
        """Return rows of source, line, column, name."""
        sources, texts, names, name_first, segments = [], [], [], [0], []
        for number, element in enumerate(listed):
            found = element[0] if isinstance(element, list) and element else None
            if not isinstance(found, dict):
                continue
            text, listed_names = found.get("mappings"), found.get("names")
            if not isinstance(text, str) or not isinstance(listed_names, list):
                continue
            sources.append(base + number)
            texts.append(text.encode("latin-1", "replace"))
            segments.append(text.count(",") + text.count(";") + 1)
            names += [self._number(name) for name in listed_names]
            name_first.append(len(names))
        if not texts or sum(map(len, texts)) > _MAX_MAPPINGS:
            return np.zeros((0, 4), np.int64)
        # All sources at once: one semicolon more lies between two of them.
        items = decode_items(b";".join(texts))
        which = np.repeat(np.arange(len(texts)), segments)
        counts = np.diff(items.first)
        bad = np.unique(which[(items.faults != 0) | (counts == 1) | (counts > 3)])
        group = np.append(np.int64(0), np.cumsum(items.separators == ord(";"))[:-1])
        used = (counts > 0) & ~np.isin(which, bad)
        which, group, start, counts = which[used], group[used], items.first[:-1][used], counts[used]
        values = np.append(signed(items.values), np.int64(0))
        line = values[np.where(counts == 3, start + 2, -1)]
        column = _running(values[start], group)
        name = _running(values[start + 1], which)
        line = _running(line, which)
        first = np.array(name_first)
        known = (name >= 0) & (name < np.diff(first)[which])
        indices = np.array([*names, -1], np.int64)[np.where(known, first[which] + name, -1)]
        good = (line >= 0) & (column >= 0) & (line <= _MAX_POSITION) & (column <= _MAX_POSITION)
        return np.stack([np.array(sources, np.int64)[which], line, column, indices], axis=1)[good]

    def _bloomberg(self, listed: list[Any], base: int, names: range) -> NDArray[np.int64]:
        """Return rows of source, line, column, name: nested ranges made to a change of names at each end."""
        rows: list[tuple[int, int, int, int]] = []
        room = _MAX_MAPPINGS
        for number, text in enumerate(listed):
            if not isinstance(text, str) or not text or len(text) > room:
                continue
            room -= len(text)
            items = decode_items(text.encode("latin-1", "replace"))
            if np.any(np.diff(items.first) != 5) or np.any(items.separators[:-1] != ord(",")):
                continue
            fields = signed(items.values).reshape(-1, 5)
            name, start_column, end_column = (np.cumsum(fields[:, i]) for i in (0, 2, 4))
            end_line = np.cumsum(fields[:, 1] + fields[:, 3])
            start_line = end_line - fields[:, 3]
            starts = start_line << 32 | start_column
            ends = end_line << 32 | end_column
            positions = np.stack([start_line, start_column, end_line, end_column])
            if np.any(positions < 0) or np.any(positions > _MAX_POSITION) or np.any(starts[1:] < starts[:-1]):
                continue
            known = [self._number(self.table.name(names[n])) if 0 <= n < len(names) else -1 for n in name.tolist()]
            rows += [(base + number, at >> 32, at & 0xFFFF_FFFF, i) for at, i in _changes(starts, ends, known)]
        return np.array(rows, np.int64).reshape(-1, 4)


def _running(values: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return sums that begin anew with each group; groups ascend."""
    if not len(values):
        return values
    total = np.cumsum(values)
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    before = np.append(np.int64(0), total)[starts]
    return total - np.repeat(before, np.diff(np.append(starts, len(values))))


def _changes(starts: NDArray[np.int64], ends: NDArray[np.int64], names: list[int]) -> list[tuple[int, int]]:
    """Return where which name begins to hold, of ranges sorted by start that may hold others (-1: no name)."""
    found: list[tuple[int, int]] = []
    open_ranges: list[tuple[int, int]] = []
    for start, end, name in zip(starts.tolist(), ends.tolist(), names, strict=True):
        while open_ranges and open_ranges[-1][0] <= start:
            over, _ = open_ranges.pop()
            found.append((over, open_ranges[-1][1] if open_ranges else -1))
        # A range does not reach beyond the one that it is in.
        until = min(end, open_ranges[-1][0]) if open_ranges else end
        if until > start:
            found.append((start, name))
            open_ranges.append((until, name))
    while open_ranges:
        over, _ = open_ranges.pop()
        found.append((over, open_ranges[-1][1] if open_ranges else -1))
    return found
