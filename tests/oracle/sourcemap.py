"""ECMA-426's decoding of mappings and look-up of positions, one number after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LIMIT = 1 << 31


class TooLarge(Exception):
    """A number of more than 32 bits: the specification throws."""


@dataclass
class Decoded:
    """Segments (line, column, source, line, column, name; -1 for none), sorted; and the kinds of errors on the way."""

    segments: list[tuple[int, ...]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def numbers(text: str) -> list[int]:
    """Return the unsigned VLQs of a text without separators. Raises ValueError for other characters and a cut end."""
    found = []
    value = shift = 0
    for character in text:
        digit = DIGITS.index(character)
        value += (digit & 31) << shift
        shift += 5
        if digit < 32:
            found.append(value)
            value = shift = 0
    if shift:
        raise ValueError("cut off")
    return found


def signed(value: int) -> int:
    """Return a VLQ's value where its lowest bit is the sign."""
    if value >= 1 << 32:
        raise TooLarge
    if value == 1:
        return -_LIMIT
    return -(value >> 1) if value & 1 else value >> 1


def decode(text: str, sources: int, names: int, line: int = 0, column: int = 0) -> Decoded:
    """Decode mappings that begin at a generated line and column; outside the grammar there are none."""
    found = Decoded()
    source = original_line = original_column = name = 0
    for number, group in enumerate(text.split(";")):
        generated = 0
        for segment in group.split(","):
            if not segment:
                if "," in group:
                    found.errors.append("empty")
                continue
            try:
                fields = numbers(segment)
            except ValueError:
                return Decoded(errors=[*found.errors, "grammar"])
            values = [signed(value) for value in fields]
            if len(values) not in (1, 4, 5):
                return Decoded(errors=[*found.errors, "grammar"])
            generated += values[0]
            place = [-1, -1, -1, -1]
            fault = None
            if len(values) > 1:
                source, original_line, original_column = (
                    a + b for a, b in zip((source, original_line, original_column), values[1:], strict=False)
                )
                if not (0 <= source < sources and 0 <= original_line < _LIMIT and 0 <= original_column < _LIMIT):
                    fault = "place"
                else:
                    place[:3] = source, original_line, original_column
                if len(values) == 5:
                    name += values[4]
                    if not 0 <= name < names:
                        fault = fault or "name"
                    elif place[0] >= 0:
                        place[3] = name
            at = generated + (column if number == 0 else 0)
            if generated < 0 or not 0 <= at < _LIMIT:
                found.errors.append("column")
                continue
            if fault:
                found.errors.append(fault)
            found.segments.append((line + number, at, *place))
    found.segments.sort(key=lambda s: s[:2])
    return found


def look_up(segments: list[tuple[int, ...]], line: int, column: int) -> tuple[int, ...]:
    """Return source, line, column and name of a position: the last segment at or before it on its line.

    Of several at one position the last is the place, and the last that has a name gives the name.
    """
    here = [s for s in segments if s[0] == line and s[1] <= column]
    if not here or here[-1][2] < 0:
        return (-1, -1, -1, -1)
    same = [s for s in here if s[1] == here[-1][1]]
    named = [s[5] for s in same if s[5] >= 0]
    return (*here[-1][2:5], named[-1] if named else -1)


LINE_BREAK = re.compile("\r\n|[\n\r\u2028\u2029]")
"""ECMA-262's LineTerminatorSequence."""
