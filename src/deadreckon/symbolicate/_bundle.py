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
from deadreckon.objects.jstext import NO_NAME, ScriptText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable
    from deadreckon.objects.jsscopes import FunctionScopes, Name
    from deadreckon.symbols.scripts import Found

__all__ = ["Bundle", "Context", "Source", "only_line"]

_BREAK = re.compile("\r\n|[\n\r\u2028\u2029]")
_RARE_BREAKS = ("\r", "\u2028", "\u2029")
_KEPT = 65_536
_LOOK_BYTES = 32 << 10
"""So many bytes of a source are decoded while a few lines around one are looked for in it."""
_MOST_DECODED = 64 << 20
"""Bytes of sources whose lines are kept."""
_LONG, _SHOWN, _BEFORE, _NEAR = 150, 140, 60, 5
"""Of a line longer than this so many characters are shown, from so many before the column on; ends so near are kept."""
_CUT = "{snip}"
Context = tuple[list[str] | None, str | None, list[str] | None]
"""The lines before a position, its own and those after it; three times None where the map has no source."""
_NO_CONTEXT: Context = (None, None, None)
_PLAIN = (".js", ".mjs", ".cjs")
_CLOSING_TAG = re.compile("</[A-Za-z>]")
_BEGINS = np.ones(256, np.bool_)
_BEGINS[: ord(" ") + 1] = _BEGINS[np.frombuffer(b"})],;", np.uint8)] = False
"""Bytes that an expression can begin with: neither blanks nor what ends or parts expressions."""
_MOST_SOURCE, _MOST_SCANNED = 1 << 20, 16 << 20
"""Bytes of a source whose functions are looked for, and of all whose functions are kept."""


@dataclass(slots=True)
class Source:
    """An original source: ``path`` as the map has it, ``filename`` and ``abs_path`` as they are shown."""

    path: str | None
    filename: str | None
    abs_path: str | None
    in_app: bool


_NO_SOURCE = Source(None, None, None, in_app=False)


class Bundle:
    """What was found for a frame's file. Not safe for use from several threads at once.

    ``table`` is the map, from ``hold`` to ``release``: it stays one and the same while frames are mapped by it, and
    when it has been stored, its memory is given back.
    """

    def __init__(self, url: str, found: Found) -> None:
        self.url = url
        self.found = found
        self.table: SourceMapTable | None = None
        self._scopes: FunctionScopes | None = None
        self._text: ScriptText | None = None
        self._sources: dict[int, Source] = {}
        self._lines: dict[int, list[str]] = {}
        self._looks: dict[int, int] = {}
        self._decoded = 0
        self._contexts: dict[int, Context] = {}
        """By source and line, of lines that are shown whole."""
        self._long: dict[int, Context] = {}
        """Of those that are cut around a column, here still whole."""
        self._names: dict[int, Name | None] = {}
        self._source_functions: dict[int, SourceFunctions | None] = {}
        self._scanned = 0
        self._segments: dict[int, SourceMapTable | None] = {}

    def hold(self) -> None:
        """Take the map in hand."""
        self.table = self.found.table

    def release(self) -> None:
        """Let go of it."""
        self.table = None

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

    def names(self, scopes: Sequence[int]) -> list[Name | None]:
        """Return the names that the script's text has for functions, None for one that has none, and for -1."""
        known = self._names
        wanted = [scope for scope in scopes if scope >= 0 and scope not in known]
        if wanted:
            known.update(self.scopes.names(wanted, self.table))
        return [known.get(scope) for scope in scopes]

    def called(self, lines: Sequence[int], columns: Sequence[int], here: NDArray[np.int32]) -> list[str | None]:
        """Return the original name of what is called at each position, as far as the map has one there.

        ``here`` are the names' indices that the map has at the positions themselves. JavaScriptCore, Hermes and QuickJS
        report the parenthesis of a call, where that may be another one's: without the script nobody can tell, so there
        is no name then.
        """
        table = self.table
        if table is None or not self.has_script:
            return [None] * len(lines)
        at = np.array(lines, np.int64)
        before = self.text.names_before(at, np.array(columns, np.int64))
        names = np.where(before == NO_NAME, -1, here.astype(np.int64))
        moved = np.flatnonzero(before >= 0)
        names[moved] = positions.look_up(table, at[moved], before[moved]).place[:, 3]
        texts = {name: table.name(name) or None for name in set(names.tolist())}
        return [texts[name] for name in names.tolist()]

    def source_names(
        self, columns: NDArray[np.int64], scopes: NDArray[np.int32], found: positions.Positions
    ) -> list[str | None]:
        """Return the functions' names that the sources themselves have around positions, as far as they tell.

        A minifier drops the names of function expressions and turns one function into several; what is written in the
        source stays. Only plain JavaScript is read: types and tags look like other things to the scanner. ``scopes``
        are the functions of the script around the positions, ``found`` what the map has of them. A segment further left
        may be of another function, and one for a statement, which has the blanks before it, of what is around its
        functions: then nothing is said.
        """
        table = self.table
        assert table is not None
        answered = found.segment >= 0
        at = table.column[np.where(answered, found.segment, 0)]
        known = np.flatnonzero(answered & (scopes >= 0) & (at == columns))
        names: list[str | None] = [None] * len(columns)
        places = found.place
        known = known[np.argsort(places[known, 0], kind="stable")]
        its_sources = places[known, 0]
        for mine in np.split(known, np.flatnonzero(its_sources[1:] != its_sources[:-1]) + 1):
            functions = self._functions(int(places[mine[0], 0])) if len(mine) else None
            if functions is not None:
                said = functions.names_at(places[mine, 1].astype(np.int64), places[mine, 2].astype(np.int64))
                for i, name in zip(mine.tolist(), said, strict=True):
                    names[i] = name
        return names

    def _functions(self, source: int) -> SourceFunctions | None:
        if source not in self._source_functions:
            assert self.table is not None
            start, end = self.table.contents[source].tolist() if source < len(self.table.contents) else (0, 0)
            path = (self.source(self.table, source).path or "").partition("?")[0]
            known = path.endswith(_PLAIN) and 0 < end - start <= _MOST_SOURCE
            text = json_text(self.table.text[start:end].tobytes()) if known else None
            if text is not None:
                self._scanned += end - start
                if self._scanned > _MOST_SCANNED:
                    self._source_functions.clear()
                    self._scanned = end - start
            plain = text is not None and not _has_other_syntax(text)
            self._source_functions[source] = SourceFunctions((text or "").encode()) if plain else None
        return self._source_functions[source]

    def sources(self, table: SourceMapTable, indices: NDArray[np.int32]) -> list[Source]:
        """Return sources of the map, or of a segment's; below 0 is none."""
        which, of = np.unique(indices, return_inverse=True)
        found = [self.source(table, index) if index >= 0 else _NO_SOURCE for index in which.tolist()]
        return [found[i] for i in of.tolist()]

    def source(self, table: SourceMapTable, index: int) -> Source:
        """Return a source of the map (or of a segment's, which is not kept)."""
        mine = table is self.table
        known = self._sources.get(index) if mine else None
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
        if mine:
            self._sources[index] = source
        return source

    def contexts(self, table: SourceMapTable, place: NDArray[np.int32], around: int) -> list[Context]:
        """Return what ``context`` does of positions: i32[n, 4] source, line, column, name; of no source if below 0."""
        known = self._contexts if table is self.table else {}
        # At most 2^31 sources of at most 2^31 lines each.
        keys = (place[:, 0].astype(np.int64) << 32 | place[:, 1]).tolist()
        found = [known.get(key) for key in keys]
        for at, context in enumerate(found):
            if context is None:
                source, line, column, _ = place[at].tolist()
                found[at] = self.context(table, source, line, column, around) if source >= 0 else _NO_CONTEXT
        return found  # type: ignore[return-value]  # All are there now.

    def context(self, table: SourceMapTable, source: int, line: int, column: int, around: int) -> Context:
        """Return the lines before, at and after an original position, long ones cut; three times None without them.

        Frames of one line may share the lists.
        """
        mine = table is self.table
        key = source << 32 | line
        found = (self._contexts.get(key) or self._long.get(key)) if mine else None
        if found is None:
            lines, first = self._lines_around(table, source, line, around)
            at = line - first
            if at >= len(lines):
                return _NO_CONTEXT
            found = _shown(lines[max(0, at - around) : at]), lines[at], _shown(lines[at + 1 : at + 1 + around])
            if mine:
                if len(self._contexts) + len(self._long) >= _KEPT:
                    self._contexts.clear()
                    self._long.clear()
                kept = self._long if len(lines[at]) > _LONG else self._contexts
                kept[key] = found
        before, here, after = found
        return found if here is None or len(here) <= _LONG else (before, _cut(here, column), after)

    def _lines_around(self, table: SourceMapTable, source: int, line: int, around: int) -> tuple[list[str], int]:
        """Return lines of a source, and the first one's number.

        A source is decoded whole as soon as looking for single lines of it has cost as much.
        """
        if table is self.table:
            if (known := self._lines.get(source)) is not None:
                return known, 0
            start, end = table.contents[source].tolist() if source < len(table.contents) else (0, 0)
            looks = self._looks[source] = self._looks.get(source, 0) + 1
            if end - start <= looks * _LOOK_BYTES:
                self._decoded += end - start
                if self._decoded > _MOST_DECODED:
                    self._lines.clear()
                    self._decoded = end - start
                known = self._lines[source] = _all_lines(table.text[start:end].tobytes())
                return known, 0
        first = max(0, line - around)
        return sourcemap.source_lines(table, source, first, line + 1 + around - first) or [], first


class SourceFunctions:
    """The functions of an original source in plain JavaScript."""

    def __init__(self, text: bytes) -> None:
        from deadreckon.objects.jsscopes import read_scopes  # noqa: PLC0415  (compiles or loads a large kernel)

        self._scopes = read_scopes(text)
        self._text = ScriptText(self._scopes.text)
        self._names: dict[int, str | None] = {-1: None}

    def names_at(self, lines: NDArray[np.int64], columns: NDArray[np.int64]) -> list[str | None]:
        """Return the functions' names around positions, None where it has none of its own or no call can be."""
        text = self._text.text
        places = self._text.offsets(lines, columns)
        inside = (places >= 0) & (places < len(text))
        there = text[np.where(inside, places, 0)] if len(text) else np.zeros(len(places), np.uint8)
        calls = inside & _BEGINS[there]
        found = np.where(calls, self._scopes.around(lines, columns), -1).tolist()
        for scope in {scope for scope in found if scope not in self._names}:
            name = self._scopes.names([scope], None)[scope] if self._scopes.names_itself(scope) else None
            self._names[scope] = name.text if name is not None else None
        return [self._names[scope] for scope in found]


def _has_other_syntax(text: str) -> bool:
    """Tell whether JavaScript has JSX, or types, as far as two looks tell."""
    return "@flow" in text or "/>" in text or ("</" in text and _CLOSING_TAG.search(text) is not None)


def _all_lines(content: bytes) -> list[str]:
    """Return all lines of a source, a JSON string."""
    text = json_text(content)
    if text is None:
        return []
    return _BREAK.split(text) if any(rare in text for rare in _RARE_BREAKS) else text.split("\n")


def _shown(lines: list[str]) -> list[str]:
    """Return lines as they are shown beside another one."""
    return [line if len(line) <= _LONG else f"{line[:_SHOWN]} {_CUT}" for line in lines]


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
    found: NDArray[np.int32] = places[0]
    return found
