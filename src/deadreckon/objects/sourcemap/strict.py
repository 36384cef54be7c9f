"""The strict reading of a source map: every error that ECMA-426 knows, also those that a consumer may go on after.

Beyond the specification's own algorithms it reports what its test suite calls invalid: an ignoreList that names sources
that are not there, an index map that has mappings of its own, two sections that begin at one place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from deadreckon.config import MapLimits
from deadreckon.errors import LimitExceeded
from deadreckon.kernels import decode
from deadreckon.model.ids import DebugId
from deadreckon.objects.sourcemap import ranged, scopesfield
from deadreckon.objects.sourcemap.envelope import content
from deadreckon.objects.sourcemap.reader import FAULTS

__all__ = ["MapError", "check"]

_MAX_ERRORS = 1000
_MAX_COLUMN = 0x7FFF_FFFF


@dataclass(slots=True)
class MapError:
    """One error: which field (``sections[3].map.mappings``; empty for the document), what, and where in its text."""

    where: str
    message: str
    offset: int | None = None
    """In characters from the field's start, in bytes from the document's where ``where`` is empty."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return place + (f"offset {self.offset}: " if self.offset is not None else "") + self.message


def check(data: bytes | memoryview, limits: MapLimits | None = None) -> list[MapError]:
    """Return every error of a source map, the first thousand at most; an empty list for a conforming map.

    Raises LimitExceeded.
    """
    limits = limits or MapLimits()
    if len(data) > limits.max_bytes:
        raise LimitExceeded("maps.max_bytes", limits.max_bytes, len(data))
    checker = _Checker(limits)
    start = content(np.frombuffer(data, np.uint8))
    raw = bytes(data)[start:]
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        checker.add("", "expected UTF-8", start + e.start)
        text = raw.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        at = len(text[: e.pos].encode("utf-8", "replace")) + start if isinstance(e, json.JSONDecodeError) else None
        checker.add("", f"expected JSON: {e.msg if isinstance(e, json.JSONDecodeError) else e}", at)
        return checker.errors
    if not isinstance(value, dict):
        checker.add("", "expected an object")
    else:
        checker.map(value, "", 0)
    return checker.errors


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _integral(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


@dataclass(slots=True)
class _Checker:
    limits: MapLimits
    errors: list[MapError] = field(default_factory=list)
    sections: int = 0

    def add(self, where: str, message: str, offset: int | None = None) -> None:
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(MapError(where, message, offset))

    def map(self, value: dict[str, Any], where: str, depth: int) -> tuple[int, int] | None:
        """Check a map of either kind; return the generated position of its last mapping, None where it has none."""
        version = value.get("version")
        if not _integral(version) or version != 3:
            self.add(f"{where}version", "expected the number 3")
        self._string(value, where, "file")
        for name in ("debugId", "debug_id"):
            text = self._string(value, where, name)
            if text is not None:
                try:
                    DebugId.parse(text)
                except ValueError:
                    self.add(where + name, "expected a UUID")
        return self._index(value, where, depth) if "sections" in value else self._regular(value, where)

    def _string(self, value: dict[str, Any], where: str, name: str) -> str | None:
        found = value.get(name)
        if name in value and not isinstance(found, str):
            self.add(where + name, "expected a string")
        return found if isinstance(found, str) else None

    def _list(self, value: dict[str, Any], where: str, name: str, *, null: bool) -> int:
        """Check a list of strings; return its length."""
        found = value.get(name, [])
        if not isinstance(found, list):
            self.add(where + name, "expected an array")
            return 0
        for index, item in enumerate(found):
            if not isinstance(item, str) and not (null and item is None):
                self.add(f"{where}{name}[{index}]", "expected a string or null" if null else "expected a string")
        return len(found)

    def _regular(self, value: dict[str, Any], where: str) -> tuple[int, int] | None:
        mappings = value.get("mappings")
        if not isinstance(mappings, str):
            self.add(f"{where}mappings", "expected a string")
        if "sources" not in value:
            self.add(f"{where}sources", "expected an array")
        self._string(value, where, "sourceRoot")
        sources = self._list(value, where, "sources", null=True)
        self._list(value, where, "sourcesContent", null=True)
        names = self._list(value, where, "names", null=False)
        for name in ("ignoreList", "x_google_ignoreList"):
            self._indices(value, where, name, sources)
        if (text := self._string(value, where, "scopes")) is not None:
            for message in scopesfield.decode(text, sources, names)[1]:
                self.add(f"{where}scopes", message)
        text = self._string(value, where, "rangeMappings")
        return self._mappings(mappings, where, sources, names, text) if isinstance(mappings, str) else None

    def _indices(self, value: dict[str, Any], where: str, name: str, sources: int) -> None:
        found = value.get(name, [])
        if not isinstance(found, list):
            self.add(where + name, "expected an array")
            return
        for index, item in enumerate(found):
            if not _integral(item) or not 0 <= item < sources:
                self.add(f"{where}{name}[{index}]", f"expected the index of one of {sources} sources")

    def _mappings(self, text: str, where: str, sources: int, names: int, ranges: str | None) -> tuple[int, int] | None:
        field = f"{where}mappings"
        encoded = np.frombuffer(text.encode("latin-1", "replace") + b'"', np.uint8)
        section = np.array([[0, len(text), 0, 0, 0, sources, 0, names]], np.int64)
        counts = decode.count_segments(encoded, section)
        if counts[0] > self.limits.max_segments:
            raise LimitExceeded("maps.max_segments", self.limits.max_segments, counts[0])
        found = decode.decode_mappings(encoded, section, counts, keep_errors=_MAX_ERRORS)
        status, offset, _ = found.ends[0].tolist()
        for fault, _, at in found.errors.tolist():
            self.add(field, FAULTS[fault], at)
        if status:
            self.add(field, FAULTS[status], offset)
        if ranges is not None:
            if len(ranges) and ranged.indices(ranges)[3]:
                self.add(f"{where}rangeMappings", "segments are counted from 1")
            if message := ranged.mark(found, 0, len(found.lines), 0, ranges):
                self.add(f"{where}rangeMappings", message)
        found = found.ordered()
        return (int(found.lines[-1]), int(found.column[-1])) if len(found.column) else None

    def _index(self, value: dict[str, Any], where: str, depth: int) -> tuple[int, int] | None:
        for name in ("mappings", "sources", "names"):
            if value.get(name):
                self.add(where + name, "an index map has none of its own")
        sections = value["sections"]
        if not isinstance(sections, list):
            self.add(f"{where}sections", "expected an array")
            return None
        if depth:
            self.add(f"{where}sections", "a section's map is no index map")
        if depth >= self.limits.max_depth:
            raise LimitExceeded("maps.max_depth", self.limits.max_depth)
        self.sections += len(sections)
        if self.sections > self.limits.max_sections:
            raise LimitExceeded("maps.max_sections", self.limits.max_sections, self.sections)
        before: tuple[int, int] | None = None
        last: tuple[int, int] | None = None
        for number, section in enumerate(sections):
            here = f"{where}sections[{number}]"
            if not isinstance(section, dict):
                self.add(here, "expected an object")
                continue
            offset = self._offset(section, here)
            if before is not None and offset <= before:
                self.add(f"{here}.offset", "expected a place after the section before")
            elif last is not None and offset < last:
                self.add(f"{here}.offset", "expected a place after the mappings of the section before")
            before = offset
            inner = section.get("map")
            if not isinstance(inner, dict):
                self.add(f"{here}.map", "expected an object")
                continue
            if (at := self.map(inner, f"{here}.map.", depth + 1)) is not None:
                last = offset[0] + at[0], at[1] + (offset[1] if at[0] == 0 else 0)
        return last

    def _offset(self, section: dict[str, Any], where: str) -> tuple[int, int]:
        offset = section.get("offset")
        if not isinstance(offset, dict):
            self.add(f"{where}.offset", "expected an object")
            return 0, 0
        numbers = []
        for name in ("line", "column"):
            number: Any = offset.get(name)
            if not _integral(number) or not 0 <= number <= _MAX_COLUMN:
                self.add(f"{where}.offset.{name}", "expected an integer of 31 bits")
                number = 0
            numbers.append(int(number))
        return numbers[0], numbers[1]
