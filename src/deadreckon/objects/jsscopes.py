"""The functions of a generated script, and their original names through its source map.

Function names come from the text (kernels/scopes.py) and are minified there; each identifier in them is translated by
the map's name at that identifier. That gives names for every bundler's output, whether or not its maps say anything of
functions. Which segments carry names differs: terser and esbuild put the name on the identifier, TypeScript on the
``function`` before it, webpack with terser on the parenthesis behind a private method's name, dart2js on the brace that
ends a function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.kernels import _scoping as kernel
from deadreckon.kernels import positions
from deadreckon.kernels.nesting import flatten
from deadreckon.kernels.scopes import scan
from deadreckon.objects.sourcemap.lines import source_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from deadreckon.model.tables import SourceMapTable

__all__ = ["FunctionScopes", "Name", "read_scopes"]

_MOST_PARTS = 64
"""Parts of one name; a hostile script makes them without end."""
_MOST_CHARACTERS = 200
"""Of one part: strings can be keys."""
_ASSIGNS = re.compile(rb"[ \t]*[=:]\s*")
_MOST_BETWEEN = 256
_PREFIXES = {kernel.FLAG_NEW: "new ", kernel.FLAG_GET: "get ", kernel.FLAG_SET: "set "}


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name, and whether the map said it (wholly or in part), as opposed to the minified text.

    ``mangled`` tells private names that the map does not tell: minifiers rename them, and some note no names for them.
    """

    text: str
    translated: bool
    mangled: bool = False


@dataclass(slots=True)
class _Said:
    """What the map calls parts of names, and which of them their source calls otherwise."""

    texts: dict[int, str] = field(default_factory=dict)
    renamed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class FunctionScopes:
    """Where the functions of a script are. Lines and columns are 0-based, columns in UTF-16 units.

    ``at`` i64[m] ascending: ``line << 32 | column``; ``inner`` i32[m]: the function from there on, a row of ``scopes``,
    -1 outside of all. ``scopes`` i32[s, 7] and ``parts`` i32[p, 6] have the columns of kernels/_scoping.py; ``text`` u8
    is the script.
    """

    at: NDArray[np.int64]
    inner: NDArray[np.int32]
    scopes: NDArray[np.int32]
    parts: NDArray[np.int32]
    text: NDArray[np.uint8]
    _own: set[int] | None = None

    def around(self, lines: ArrayLike, columns: ArrayLike) -> NDArray[np.int32]:
        """Return the innermost function around each position, -1 for none."""
        where = np.asarray(lines, np.int64) << 32 | np.asarray(columns, np.int64)
        if not len(self.at):
            return np.full(len(where), -1, np.int32)
        found = np.searchsorted(self.at, where, side="right") - 1
        return np.where(found >= 0, self.inner[found], np.int32(-1))

    def names(self, scopes: Sequence[int], table: SourceMapTable | None) -> dict[int, Name | None]:
        """Return the original names of functions, rows of ``scopes``; None for one that has no name.

        Without a map, names stay as the script has them.
        """
        wanted = sorted({s for s in scopes if 0 <= s < len(self.scopes)})
        chains = {s: self._chain(int(self.scopes[s, kernel.PART])) for s in wanted}
        said = self._translated(sorted({p for chain in chains.values() for p in chain}), table)
        named = {s: self._name(s, chain, said) for s, chain in chains.items()}
        if table is not None:
            self._by_closing_brace([s for s in wanted if chains[s] and not named[s].translated], named, table)
        return {s: name if name.text else None for s, name in named.items()}

    def names_itself(self, scope: int) -> bool:
        """Tell whether a function has the name that engines give it: its own, or that of what it is assigned to.

        Other functions have a name of what they are handed to: the comparison in ``sorted = list.sort(() => ...)``.
        """
        part = int(self.scopes[scope, kernel.PART])
        if not part:
            return False
        start, length, *named = self.parts[part, [kernel.START, kernel.LENGTH, kernel.LINE, kernel.COLUMN]].tolist()
        begins = self.scopes[scope, [kernel.FROM_LINE, kernel.FROM_COLUMN]].tolist()
        if named >= begins:
            return True
        between = _ASSIGNS.match(self.text[start + length : start + length + _MOST_BETWEEN].tobytes())
        if between is None:
            return False
        breaks = between[0].count(b"\n")
        if breaks:
            return bool(begins == [named[0] + breaks, len(between[0].rpartition(b"\n")[2])])
        units = len(self.text[start : start + length].tobytes().decode("utf-8", "replace").encode("utf-16-le")) // 2
        return bool(begins == [named[0], named[1] + units + len(between[0])])

    def _chain(self, part: int) -> list[int]:
        """Return the parts of a name from left to right; of a name without end the last ones."""
        found: list[int] = []
        while part > 0 and len(found) < _MOST_PARTS:
            found.append(part)
            part = int(self.parts[part, kernel.LEFT])
        return found[::-1]

    def _translated(self, parts: Sequence[int], table: SourceMapTable | None) -> _Said:
        """Return what the map calls those of the parts that are identifiers."""
        if table is None or not parts:
            return _Said()
        rows = self.parts[np.array(parts, np.int64)]
        known = np.isin(rows[:, kernel.KIND], (kernel.PART_NAME, kernel.PART_IN_NAME))
        rows, chosen = rows[known], np.array(parts, np.int64)[known]
        lines, columns = rows[:, kernel.LINE], rows[:, kernel.COLUMN]
        name = _names_at(table, lines, columns)
        # A private method's name is where its parameters begin, if webpack and terser made the map.
        private = np.flatnonzero((name < 0) & (self.text[rows[:, kernel.START]] == ord("#")))
        name[private] = _names_at(table, lines[private], columns[private] + rows[private, kernel.LENGTH])
        found = _Said()
        for part, index, line, column in zip(
            chosen.tolist(), name.tolist(), lines.tolist(), columns.tolist(), strict=True
        ):
            text = table.name(index)
            if text:
                found.texts[part] = text
                if text[0] == "_" and (written := _as_written(table, line, column, text)) != text:
                    found.texts[part] = written
                    found.renamed.add(part)
        return found

    def _own_names(self) -> set[int]:
        """Return the parts that are classes' own names, as ``_Cart`` is in ``var Cart = class _Cart {}``."""
        if self._own is None:
            classes = self.scopes[self.scopes[:, kernel.FLAGS] & kernel.FLAG_NEW != 0]
            named = self.parts[classes[:, kernel.PART]]
            inside = (named[:, kernel.LINE] > classes[:, kernel.FROM_LINE]) | (
                (named[:, kernel.LINE] == classes[:, kernel.FROM_LINE])
                & (named[:, kernel.COLUMN] > classes[:, kernel.FROM_COLUMN])
            )
            self._own = set(classes[inside, kernel.PART].tolist())
        return self._own

    def _source(self, part: int) -> str:
        start, length = self.parts[part, kernel.START : kernel.LENGTH + 1].tolist()
        return self.text[start : start + min(length, 4 * _MOST_CHARACTERS)].tobytes().decode("utf-8", "replace")

    def _name(self, scope: int, chain: Sequence[int], said: _Said) -> Name:
        pieces: list[str] = []
        before = None
        for part in chain:
            kind = int(self.parts[part, kernel.KIND])
            text = self._source(part)
            private = text.startswith("#")
            text = said.texts.get(part, text)[:_MOST_CHARACTERS]
            if private and not text.startswith("#"):
                text = "#" + text
            if text == before and part in said.renamed and part in self._own_names():
                continue
            before = text if kind == kernel.PART_NAME else None
            if kind == kernel.PART_OBJECT:
                text = "<object>"
            elif kind in {kernel.PART_STRING, kernel.PART_IN_STRING}:
                text = f'"{text[1:-1]}"'
            if kind in {kernel.PART_STRING, kernel.PART_NUMBER}:
                text = f"<{text}>"
            elif kind in {kernel.PART_COMPUTED, kernel.PART_IN_COMPUTED}:
                text = "<computed>"
            pieces.append(f"[{text}]" if kind >= kernel.PART_IN_NAME else f".{text}")
        name = "".join(pieces).removeprefix(".")
        flags = int(self.scopes[scope, kernel.FLAGS])
        prefix = next((p for flag, p in _PREFIXES.items() if flags & flag), "") if name else ""
        mangled = bool(chain) and self._source(chain[-1]).startswith("#") and chain[-1] not in said.texts
        return Name(prefix + name, not said.texts.keys().isdisjoint(chain), mangled)

    def _by_closing_brace(self, scopes: Sequence[int], named: dict[int, Name], table: SourceMapTable) -> None:
        """Name functions by a segment for the brace that ends them and nothing else: so dart2js names functions.

        Elsewhere names there belong to something else: an arrow function ends with what it returns.
        """
        rows = np.array([s for s in scopes if self.scopes[s, kernel.FLAGS] & kernel.FLAG_BRACES], np.int64)
        lines, columns = self.scopes[rows, kernel.TO_LINE], self.scopes[rows, kernel.TO_COLUMN]
        found = positions.look_up(table, lines, columns - 1)
        behind = positions.look_up(table, lines, columns)
        at, next_at = (_columns(table, answer.segment) for answer in (found, behind))
        exact = (at == columns - 1) & ((next_at == columns) | _last_of_line(table, found.segment))
        for scope, index in zip(rows[exact].tolist(), found.place[exact, 3].tolist(), strict=True):
            text = table.name(index)
            if text:
                named[scope] = Name(text, translated=True)


def _as_written(table: SourceMapTable, line: int, column: int, name: str) -> str:
    """Return a class's name as its source has it, where that differs by an underscore: esbuild renames classes so.

    It does that to classes that refer to themselves, and calls ``_Cart`` their names.
    """
    written = name[1:].rstrip("0123456789")
    if not written[:1].isupper():
        return name
    (place,) = positions.look_up(table, [line], [column]).place.tolist()
    lines = source_lines(table, place[0], place[1], 1) if place[0] >= 0 else None
    there = lines[0][place[2] :] if lines else ""
    follows = there[len(written) : len(written) + 1]
    return written if there.startswith(written) and not (follows.isalnum() or follows in {"_", "$"}) else name


def _columns(table: SourceMapTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the generated columns of segments, -1 for none."""
    found = np.full(len(rows), -1, np.int64)
    found[rows >= 0] = table.column[rows[rows >= 0]]
    return found


def _last_of_line(table: SourceMapTable, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which segments no other one of their line follows."""
    # Each line's rows end where those of the next one begin.
    after = rows + 1
    found: NDArray[np.bool_] = (
        table.first[np.minimum(np.searchsorted(table.first, after), len(table.first) - 1)] == after
    )
    return found


def _names_at(table: SourceMapTable, lines: NDArray[np.int32], columns: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the index of the name at identifiers, -1 where the map has none there.

    A segment one column before counts, too. A segment without name has that of the one before it where both lead to
    the same place, as TypeScript's do.
    """
    here = positions.look_up(table, lines, columns)
    row = here.segment
    name = here.place[:, 3].copy()
    near = (row >= 0) & (here.state == 0)
    near[near] = table.column[row[near]] >= columns[near] - 1
    name[~near] = -1
    unnamed = np.flatnonzero(near & (name < 0))
    unnamed = unnamed[table.column[row[unnamed]] > 0]
    before = positions.look_up(table, lines[unnamed], table.column[row[unnamed]] - 1)
    same = (before.place[:, :3] == here.place[unnamed, :3]).all(axis=1)
    name[unnamed[same]] = before.place[same, 3]
    return name


def read_scopes(script: bytes | memoryview | NDArray[np.uint8]) -> FunctionScopes:
    """Find the functions of a script in UTF-8, broken or not; one pass, in memory of some times its size."""
    text = np.frombuffer(script, np.uint8)
    found = scan(text)
    scopes = found.scopes
    start = scopes[:, kernel.FROM_LINE].astype(np.int64) << 32 | scopes[:, kernel.FROM_COLUMN]
    end = scopes[:, kernel.TO_LINE].astype(np.int64) << 32 | scopes[:, kernel.TO_COLUMN]
    # Functions in the parameters of an arrow function are seen before it is.
    order = np.argsort(start, kind="stable")
    at, inner = flatten(start[order], end[order])
    innermost = np.where(inner >= 0, order[inner], -1) if len(order) else inner
    return FunctionScopes(at, innermost.astype(np.int32), scopes, found.parts, text)
