"""Values as Backtrace's clients write them: numbers as text, hexadecimal or decimal, flags as text.

Seen: ``"line": "10"``, ``"line": ""`` (backtrace-rust), ``"guessed_frame": "false"`` and
``"address": "16045690984833335023"`` (the manual's own sample), ``"address": "0x55d0c2a4f0b0"`` (backtrace-rust),
attributes that are null (backtrace-csharp).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from deadreckon.model.event import Diagnostic
from deadreckon.wire.jsontext import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deadreckon.config import ReportLimits

__all__ = ["Reading", "entries", "flag", "integer", "members", "positive", "text"]

K = TypeVar("K", str, int)

_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_DECIMAL = re.compile(r"[0-9]{1,20}")
_NOTES_PER_CODE = 16


@dataclass(slots=True)
class Reading:
    """The limits of one report, and what could not be read of it."""

    limits: ReportLimits
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def problem(self, code: str, at: str, message: str) -> None:
        """Add a diagnostic; ``at`` is a path into the document. Many of one kind are told once each, up to a number."""
        if sum(d.code == code for d in self.diagnostics) < _NOTES_PER_CODE:
            self.diagnostics.append(
                Diagnostic(code=code, severity="warning", stage="read", message=f"{at}: {message}", where={"field": at})
            )

    def expect(self, kind: type, value: Any, at: str) -> Any:
        """Return a value of that type, an empty one with a diagnostic for any other; null is no value at all."""
        if isinstance(value, kind):
            return value
        if value is not None:
            self.problem("malformed", at, f"expected {_NAMES[kind]}, got {_NAMES.get(type(value), 'something else')}")
        return kind()

    def text(self, value: Any) -> str | None:
        """Return text, cut to the limit; None for none."""
        found = text(value)
        return found[: self.limits.max_string_bytes] if found else None


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
}


def integer(value: Any) -> int | None:
    """Return a whole number below 2**64 in any of its spellings, None for anything else."""
    if isinstance(value, str):
        told = value.strip()
        if _HEX.fullmatch(told):
            return int(told, 16)
        value = int(told) if _DECIMAL.fullmatch(told) else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        return None
    return value


def positive(value: Any) -> int | None:
    """Return a line or a column: a whole number from 1 on."""
    found = integer(value)
    return found if found and found < 1 << 31 else None


def text(value: Any) -> str | None:
    """Return text, a number as its digits, None for anything else and for none."""
    if isinstance(value, str):
        return str(plain(value)) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def flag(value: Any) -> bool:
    """Return whether it is true, or says so."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def members(reading: Reading, value: Any, at: str, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the members of an object that are objects, of the first ``limit`` of them."""
    found = reading.expect(dict, value, at)
    yield from _objects(reading, found.items(), len(found), at, limit)


def entries(reading: Reading, value: Any, at: str, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the elements of an array that are objects, of the first ``limit`` of them, with their number."""
    found = reading.expect(list, value, at)
    yield from _objects(reading, enumerate(found), len(found), at, limit)


def _objects(
    reading: Reading, found: Iterable[tuple[K, Any]], count: int, at: str, limit: int
) -> Iterator[tuple[K, dict[str, Any]]]:
    if count > limit:
        reading.problem("limit_exceeded", at, f"{count} of them, the limit is {limit}")
    for key, value in islice(found, limit):
        if isinstance(value, dict):
            yield key, value
        else:
            reading.expect(dict, value, f"{at}.{str(key)[:64]}")
