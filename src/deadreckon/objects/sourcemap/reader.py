"""The lenient reading of a source map: whatever ECMA-426 lets a consumer go on after, it goes on after.

What the specification rejects is rejected: text that is no JSON object, ``mappings`` that is no string, ``sources``
that is no array, a section without offset or map, and a number of more than 32 bits. Mappings outside its grammar leave
a map without mappings, as it says; one exception is an empty segment, which every consumer accepts.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.config import MapLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.kernels import decode
from deadreckon.kernels.jsonparts import ARRAY, NULL, OBJECT, STRING, Member, members
from deadreckon.model.ids import DebugId
from deadreckon.model.tables import SourceMapTable, json_text
from deadreckon.objects.sourcemap import ranged
from deadreckon.objects.sourcemap.envelope import content

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FAULTS", "identify", "read"]

_ARRAYS = (b"sources", b"names", b"sourcesContent", b"sections", b"ignoreList", b"x_google_ignoreList")
_FACEBOOK, _BLOOMBERG = b"x_facebook_sources", b"x_com_bloomberg_sourcesFunctionMappings"
_ORIGINS = {_FACEBOOK: 1, _BLOOMBERG: 2}

FAULTS = {
    decode.BAD_CHARACTER: "a character that is neither a base64 digit nor a separator",
    decode.UNFINISHED: "a number that ends with a continuation digit",
    decode.BAD_FIELDS: "a segment of other than 1, 4 or 5 numbers",
    decode.TOO_LARGE: "a number of more than 32 bits",
    decode.EMPTY_SEGMENT: "an empty segment",
    decode.NEGATIVE_COLUMN: "a generated position below 0 or beyond 31 bits",
    decode.POSITION_OUT_OF_RANGE: "a source index or original position out of range",
    decode.NAME_OUT_OF_RANGE: "a name index out of range",
}
"""What the numbers of kernels/decode.py mean."""


@dataclass(slots=True)
class _Part:
    """A regular map: the whole document, or one section of an index map, at a generated line and column."""

    found: dict[bytes, Member]
    line: int
    column: int
    where: str


@dataclass(slots=True)
class _Lists:
    """Spans of texts, one array for each part."""

    sources: list[NDArray[np.uint32]] = field(default_factory=list)
    roots: list[NDArray[np.uint32]] = field(default_factory=list)
    contents: list[NDArray[np.uint32]] = field(default_factory=list)
    ignored: list[NDArray[np.uint8]] = field(default_factory=list)
    names: list[NDArray[np.uint32]] = field(default_factory=list)


def read(data: bytes | memoryview, limits: MapLimits | None = None) -> SourceMapTable:
    """Read a source map's bytes; they are kept, and texts are decoded from them when asked for.

    Raises Malformed where ECMA-426 rejects the map, LimitExceeded.
    """
    limits = limits or MapLimits()
    most = min(limits.max_bytes, 0xFFFF_FFFF)  # Spans are pairs of 32-bit numbers.
    if len(data) > most:
        raise LimitExceeded("maps.max_bytes", most, len(data))
    text = np.frombuffer(data, np.uint8)
    try:
        return _Reader(text, limits, final=False).table()
    except _EscapedError:
        return _Reader(_rewritten(text), limits, final=True).table()


def identify(data: bytes | memoryview) -> dict[str, Any]:
    """Return ``file``, ``debug_id`` and ``chunk_id`` of a source map, as far as it has them; nothing else is read.

    Raises Malformed where it is no JSON object, LimitExceeded.
    """
    text = np.frombuffer(data, np.uint8)
    try:
        return _Reader(text, MapLimits(), final=False).identity()
    except _EscapedError:
        return _Reader(_rewritten(text), MapLimits(), final=True).identity()


class _EscapedError(Exception):
    """The name of a member has escapes, so that it can't be told by its bytes."""


def _rewritten(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    try:
        value = json.loads(text[content(text) :].tobytes().decode("utf-8", "replace"), strict=False)
        return np.frombuffer(json.dumps(value).encode(), np.uint8)
    except (ValueError, RecursionError) as e:
        raise Malformed("source map", got=e) from e


class _Reader:
    def __init__(self, text: NDArray[np.uint8], limits: MapLimits, *, final: bool) -> None:
        self.text = text
        self.limits = limits
        self.final = final
        self.parts: list[_Part] = []
        self.problems: list[str] = []
        self.sections = 0

    def table(self) -> SourceMapTable:
        """Read everything. Raises as ``read``, and _EscapedError."""
        text = self.text
        found, end = self._members(content(text), len(text))
        rest = text[end : end + 4096].tobytes().strip(b" \t\r\n")
        if rest:
            raise Malformed("source map", offset=end, expected="the end", got=rest[:12])
        self._collect(_Part(found, 0, 0, ""), 0)
        lists, sections, info = self._lists()
        counts = decode.count_segments(text, sections)
        if counts[0] > self.limits.max_segments:
            raise LimitExceeded("maps.max_segments", self.limits.max_segments, counts[0])
        mappings = decode.decode_mappings(text, sections, counts)
        if mappings.ends[:, 0].any():
            if self._escaped(mappings):
                text, sections = self._unescaped(sections)
                mappings = decode.decode_mappings(text, sections, decode.count_segments(text, sections))
            self._judge(mappings, sections, regular=b"sections" not in found)
        if mappings.failed:
            self._note(f"mappings: {mappings.failed} segments with errors")
        if any(b"rangeMappings" in part.found for part in self.parts):
            self._mark(mappings)
        mappings = mappings.ordered()
        return SourceMapTable(
            mappings.lines,
            mappings.first,
            mappings.column,
            mappings.place,
            mappings.ranged,
            _joined(lists.sources),
            _joined(lists.roots),
            _joined(lists.contents),
            lists.ignored[0] if len(lists.ignored) == 1 else np.concatenate([np.zeros(0, np.uint8), *lists.ignored]),
            _joined(lists.names),
            self.text,
            {**info, **self._identity(found), "problems": self.problems, "sections": self.sections},
        )

    def identity(self) -> dict[str, Any]:
        """Return what ``identify`` does."""
        info = self._identity(self._members(content(self.text), len(self.text))[0])
        del info["extra"]
        return info

    def _members(self, start: int, end: int, what: str = "source map") -> tuple[dict[bytes, Member], int]:
        found, end = members(self.text, start, end, _ARRAYS, what)
        if not self.final and any(b"\\" in name for name in found):
            raise _EscapedError
        return found, end

    def _note(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)

    def _collect(self, part: _Part, depth: int) -> None:
        """Add a regular map to ``parts``, or the maps of an index map's sections. Raises Malformed."""
        found = part.found
        if b"sections" not in found:
            if (mappings := found.get(b"mappings")) is None or mappings.kind != STRING:
                raise _wrong(part.where, "mappings", "a string", mappings)
            if (sources := found.get(b"sources")) is None or sources.kind != ARRAY:
                raise _wrong(part.where, "sources", "an array", sources)
            self.parts.append(part)
            return
        sections = found[b"sections"]
        if sections.elements is None:
            raise _wrong(part.where, "sections", "an array", sections)
        if depth >= self.limits.max_depth:
            raise LimitExceeded("maps.max_depth", self.limits.max_depth)
        self.sections += len(sections.elements)
        if self.sections > self.limits.max_sections:
            raise LimitExceeded("maps.max_sections", self.limits.max_sections, self.sections)
        for number, (kind, start, end) in enumerate(sections.elements.tolist()):
            where = f"{part.where}sections[{number}]."
            if kind != OBJECT:
                self._note(f"{where[:-1]}: expected an object")
                continue
            section = self._members(start, end, where[:-1])[0]
            line, column = self._offset(section, where)
            line, column = _near(part.line + line), _near(column + (part.column if line == 0 else 0))
            inner = section.get(b"map")
            if inner is None or inner.kind != OBJECT:
                raise _wrong(where, "map", "an object", inner)
            try:
                inside = self._members(inner.start, inner.end, f"{where}map")[0]
                self._collect(_Part(inside, line, column, f"{where}map."), depth + 1)
            except Malformed as e:
                self._note(str(e))

    def _offset(self, section: dict[bytes, Member], where: str) -> tuple[int, int]:
        offset = section.get(b"offset")
        if offset is None or offset.kind != OBJECT:
            raise _wrong(where, "offset", "an object", offset)
        values = self._members(offset.start, offset.end, f"{where}offset")[0]
        numbers = []
        for name in ("line", "column"):
            number = _integer(self._value(values.get(name.encode())))
            if number is None:
                self._note(f"{where}offset.{name}: expected an integer")
            numbers.append(number or 0)
        return numbers[0], numbers[1]

    def _raw(self, member: Member | None) -> bytes:
        return self.text[member.start : member.end].tobytes() if member is not None else b""

    def _value(self, member: Member | None) -> Any:
        """Return a scalar's value, None for what is none."""
        raw = self._raw(member)
        if member is None or member.kind in {OBJECT, ARRAY} or len(raw) > _MAX_SCALAR:
            return None
        if member.kind == STRING:
            return json_text(raw)
        try:
            return json.loads(raw)
        except ValueError:
            return None

    def _lists(self) -> tuple[_Lists, NDArray[np.int64], dict[str, Any]]:
        """Return the texts of all parts, what the kernel is to decode, and where further fields lie."""
        lists = _Lists()
        rows: list[tuple[int, ...]] = []
        info: dict[str, Any] = {"functions": [], "scopes": []}
        source_base = name_base = 0
        for part in self.parts:
            found = part.found
            mappings = found[b"mappings"]
            sources, names = _spans(found[b"sources"]), _spans(found.get(b"names"))
            lists.sources.append(sources)
            lists.names.append(names)
            lists.contents.append(_fitted(_spans(found.get(b"sourcesContent")), len(sources)))
            root = found.get(b"sourceRoot")
            lists.roots.append(np.zeros_like(sources))
            if root is not None and root.kind == STRING:
                lists.roots[-1][:] = root.start, root.end
            lists.ignored.append(self._ignored(found, len(sources)))
            bases = (source_base, len(sources), name_base, len(names))
            rows.append((mappings.start + 1, mappings.end - 1, part.line, part.column, *bases))
            for name, origin in _ORIGINS.items():
                if (member := found.get(name)) is not None and member.kind == ARRAY:
                    info["functions"].append([origin, member.start, member.end, *bases])
            if (member := found.get(b"scopes")) is not None and member.kind == STRING:
                info["scopes"].append([member.start, member.end, *bases, part.line, part.column])
            source_base += len(sources)
            name_base += len(names)
        return lists, np.array(rows, np.int64).reshape(-1, 8), info

    def _ignored(self, found: dict[bytes, Member], sources: int) -> NDArray[np.uint8]:
        ignored = np.zeros(sources, np.uint8)
        listed = found.get(b"ignoreList") or found.get(b"x_google_ignoreList")
        if listed is not None and listed.elements is not None:
            for kind, start, end in listed.elements.tolist():
                index = _integer(self._value(Member(kind, start, end)))
                if index is not None and 0 <= index < sources:
                    ignored[index] = 1
        return ignored

    def _escaped(self, mappings: decode.Mappings) -> bool:
        """Tell whether mappings have JSON escapes: hermesc and PHP's json_encode write a backslash before each /."""
        ended = mappings.ends[mappings.ends[:, 0] == decode.BAD_CHARACTER, 1]
        return bool(np.any(self.text[ended] == ord("\\")))

    def _unescaped(self, sections: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the mappings of all parts without escapes, and where they are."""
        texts = [
            (json_text(self._raw(part.found[b"mappings"])) or "").encode("latin-1", "replace") for part in self.parts
        ]
        sections = sections.copy()
        lengths = np.array([len(each) for each in texts], np.int64)
        sections[:, 0] = np.cumsum(lengths + 1) - lengths - 1
        sections[:, 1] = sections[:, 0] + lengths
        return np.frombuffer(b'"'.join([*texts, b""]), np.uint8), sections

    def _judge(self, mappings: decode.Mappings, sections: NDArray[np.int64], *, regular: bool) -> None:
        """Note what ended mappings. Raises Malformed where it ends the map."""
        for number in np.flatnonzero(mappings.ends[:, 0]).tolist():
            status, offset, _ = mappings.ends[number].tolist()
            start = int(sections[number, 0])
            where = f"{self.parts[number].where}mappings"
            if status == decode.TOO_LARGE and regular:
                raise Malformed(where, offset=offset - start, got=FAULTS[status])
            self._note(f"{where}: offset {offset - start}: {FAULTS[status]}; no mapping is used")

    def _mark(self, mappings: decode.Mappings) -> None:
        """Mark range mappings, where the map has any."""
        row = 0
        for part, end in zip(self.parts, mappings.ends[:, 2].tolist(), strict=True):
            member = part.found.get(b"rangeMappings")
            if member is not None and member.kind == STRING:
                fault = ranged.mark(mappings, row, end, part.line, json_text(self._raw(member)) or "")
                if fault:
                    self._note(f"{part.where}rangeMappings: {fault}")
            row = end

    def _identity(self, found: dict[bytes, Member]) -> dict[str, Any]:
        """Return what tells which map this is, and where the fields of others than ECMA's lie."""
        info: dict[str, Any] = {}
        if isinstance(file := self._value(found.get(b"file")), str):
            info["file"] = file
        for name in (b"debugId", b"debug_id"):
            if isinstance(text := self._value(found.get(name)), str):
                with contextlib.suppress(ValueError):
                    info["debug_id"] = str(DebugId.parse(text))
                    break
        if isinstance(chunk := self._value(found.get(b"chunk_id")), str):
            info["chunk_id"] = chunk
        extra = {
            name.decode("utf-8", "replace"): [member.start, member.end]
            for name, member in found.items()
            if name.startswith(b"x_") and name not in _ORIGINS and member.kind != NULL and member.elements is None
        }
        return {**info, "extra": extra}


_MAX_SCALAR = 4096
_FAR = 1 << 40
_MAX_PROBLEMS = 100
_NO_SPANS = np.zeros((0, 2), np.uint32)


def _wrong(where: str, name: str, expected: str, got: Member | None) -> Malformed:
    return Malformed(f"source map: {where}{name}", expected=expected, got=got.describe() if got else "nothing")


def _integer(value: Any) -> int | None:
    """Return the integer that a JSON number is; 1.0 is one in JavaScript."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _spans(member: Member | None) -> NDArray[np.uint32]:
    """Return the spans of an array's strings; other elements, and what is no array, have none."""
    if member is None or member.elements is None:
        return _NO_SPANS
    kinds, spans = member.elements[:, 0], member.elements[:, 1:]
    assert STRING == 0
    if kinds.any():
        spans[kinds != STRING] = 0
    return spans


def _fitted(spans: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """Return as many spans as asked for; those that are missing are empty."""
    if len(spans) >= count:
        return spans[:count]
    return np.concatenate([spans, np.zeros((count - len(spans), 2), np.uint32)])


def _joined(spans: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(spans[0] if len(spans) == 1 else np.concatenate([_NO_SPANS, *spans]))


def _near(number: int) -> int:
    """Return an offset that kernels can add to; beyond 32 bits all are alike."""
    return min(max(number, -_FAR), _FAR)
