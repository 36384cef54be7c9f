"""A generated script with its map: what is worked out of them once, however many frames need it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import DeadreckonError
from deadreckon.kernels import positions
from deadreckon.model.tables import json_text
from deadreckon.objects import jspaths, sourcemap
from deadreckon.objects.jstext import ScriptText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable
    from deadreckon.objects.jsscopes import FunctionScopes
    from deadreckon.symbols.scripts import Found

__all__ = ["Bundle", "Source"]

_BREAK = re.compile("\r\n|[\n\r\u2028\u2029]")
_MANY_LOOKS = 16
"""How often single lines of a source are decoded before all of it is."""
_LONG, _SHOWN, _BEFORE, _NEAR = 150, 140, 60, 5
"""Of a line longer than this so many characters are shown, from so many before the column on; ends so near are kept."""
_CUT = "{snip}"


@dataclass(slots=True)
class Source:
    """An original source: ``path`` as the map has it, ``filename`` and ``abs_path`` as they are shown."""

    path: str | None
    filename: str | None
    abs_path: str | None
    in_app: bool


class Bundle:
    """What was found for a frame's file. Not safe for use from several threads at once."""

    def __init__(self, url: str, found: Found) -> None:
        self.url = url
        self.found = found
        self._scopes: FunctionScopes | None = None
        self._text: ScriptText | None = None
        self._sources: dict[int, Source] = {}
        self._lines: dict[int, list[str] | int] = {}
        self._segments: dict[int, SourceMapTable | None] = {}

    @property
    def table(self) -> SourceMapTable | None:
        """The map."""
        return self.found.table

    @property
    def has_script(self) -> bool:
        """Whether the script itself is at hand, and is text."""
        return self.found.script is not None and self.found.script[:4] != b"\0asm"

    @property
    def scopes(self) -> FunctionScopes:
        """The functions of the script; to be asked only where there is one."""
        if self._scopes is None:
            from deadreckon.objects.jsscopes import read_scopes  # noqa: PLC0415  (compiles or loads a large kernel)

            self._scopes = read_scopes(self.found.script or b"")
        return self._scopes

    @property
    def text(self) -> ScriptText:
        """The script's text; to be asked only where there is one."""
        if self._text is None:
            self._text = ScriptText(np.frombuffer(self.found.script or b"", np.uint8))
        return self._text

    def segment(self, number: int) -> SourceMapTable | None:
        """Return the map of a React Native segment, None where there is none that can be read."""
        if number not in self._segments:
            table = self.table
            data = sourcemap.segment(table, str(number)) if table is not None else None
            try:
                self._segments[number] = sourcemap.read(data) if data is not None else None
            except DeadreckonError:
                self._segments[number] = None
        return self._segments[number]

    def names(self, lines: Sequence[int], columns: Sequence[int]) -> list[tuple[bool, str | None]]:
        """Return, by the script's text, whether each position is in a function, and that function's name if it has one."""
        found = self.scopes.around(np.array(lines, np.int64), np.array(columns, np.int64)).tolist()
        names = self.scopes.names(found, self.table)
        return [(scope >= 0, name.text if (name := names.get(scope)) is not None else None) for scope in found]

    def called(self, line: int, column: int) -> str | None:
        """Return the original name of what is called at a position, as far as the map has one there.

        JavaScriptCore, Hermes and QuickJS report the parenthesis of a call, where the map may have a name of its own:
        without the script nobody can tell, so there is no name then.
        """
        table = self.table
        if table is None or not self.has_script:
            return None
        if (name_at := self.text.name_before(line, column)) is not None:
            column = name_at
        place = positions.look_up(table, [line], [column])
        return table.name(int(place.place[0, 3])) or None

    def source(self, table: SourceMapTable, index: int) -> Source:
        """Return a source of the map (or of a segment's, which is not kept)."""
        known = self._sources.get(index) if table is self.table else None
        if known is not None:
            return known
        path = sourcemap.source_path(table, index)
        ignored = bool(table.ignored[index]) if index < len(table.ignored) else False
        filename = jspaths.project_path(path) if path else None
        source = Source(
            path,
            filename,
            jspaths.joined(self.url, path) if path else None,
            in_app=not ignored and jspaths.in_app(path) and jspaths.in_app(filename),
        )
        if table is self.table:
            self._sources[index] = source
        return source

    def context(
        self, table: SourceMapTable, source: int, line: int, column: int, around: int
    ) -> tuple[list[str], str, list[str]] | None:
        """Return the lines before, at and after an original position, long ones cut; None where they are not known."""
        first = max(0, line - around)
        lines = self._content(table, source, first, line + 1 + around)
        if lines is None or line - first >= len(lines):
            return None
        at = line - first
        return (
            [_cut(text, 0) for text in lines[:at]],
            _cut(lines[at], column),
            [_cut(text, 0) for text in lines[at + 1 :]],
        )

    def _content(self, table: SourceMapTable, source: int, first: int, end: int) -> list[str] | None:
        if table is not self.table:
            return sourcemap.source_lines(table, source, first, end - first)
        known = self._lines.get(source, 0)
        if isinstance(known, int):
            if known < _MANY_LOOKS:
                self._lines[source] = known + 1
                return sourcemap.source_lines(table, source, first, end - first)
            start, stop = table.contents[source].tolist() if source < len(table.contents) else (0, 0)
            known = self._lines[source] = _BREAK.split(json_text(table.text[start:stop].tobytes()) or "")
        return known[first:end]


def _cut(line: str, column: int) -> str:
    if len(line) <= _LONG:
        return line
    column = min(column, len(line))
    start = max(0, column - _BEFORE)
    start = 0 if start < _NEAR else start
    end = min(len(line), start + _SHOWN)
    if end > len(line) - _NEAR:
        end = len(line)
    if end == len(line):
        start = max(0, end - _SHOWN)
    head = f"{_CUT} " if start else ""
    tail = f" {_CUT}" if end < len(line) else ""
    return f"{head}{line[start:end]}{tail}"


def only_line(table: SourceMapTable, line: int) -> NDArray[np.int32] | None:
    """Return the source and line that all of a generated line is from, None where it is from several or from none."""
    row = int(np.searchsorted(table.lines, line))
    if row >= len(table.lines) or int(table.lines[row]) != line:
        return None
    places = table.place[int(table.first[row]) : int(table.first[row + 1])]
    places = places[places[:, 0] >= 0]
    if not len(places) or (places[:, :2] != places[0, :2]).any():
        return None
    return places[0]
