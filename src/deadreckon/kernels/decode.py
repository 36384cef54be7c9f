"""The mappings of a source map to columns: base64 VLQ, segments, generated lines (ECMA-426, "Mappings structure").

A text is read where it lies in the map. The byte after it must be no base64 digit, as a JSON string's closing quote is
none: that ends every loop over digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BAD_CHARACTER",
    "BAD_FIELDS",
    "EMPTY_SEGMENT",
    "NAME_OUT_OF_RANGE",
    "NEGATIVE_COLUMN",
    "POSITION_OUT_OF_RANGE",
    "TOO_LARGE",
    "UNFINISHED",
    "Items",
    "Mappings",
    "count_segments",
    "decode_items",
    "decode_mappings",
    "signed",
]

BAD_CHARACTER, UNFINISHED, BAD_FIELDS, TOO_LARGE = 1, 2, 3, 4
"""What ends a text: a character that is none of the grammar's, a number cut off, a segment of other than 1, 4 or 5
numbers, a number of more than 32 bits."""
EMPTY_SEGMENT, NEGATIVE_COLUMN, POSITION_OUT_OF_RANGE, NAME_OUT_OF_RANGE = 5, 6, 7, 8
"""What costs a segment, its place or its name."""

_COMMA, _SEMICOLON, _END = 64, 65, 128
_DIGIT = np.full(256, _END, np.uint8)
for _value, _character in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
    _DIGIT[_character] = _value
_DIGIT[ord(",")] = _COMMA
_DIGIT[ord(";")] = _SEMICOLON
_DIGIT.setflags(write=False)
"""What a byte is: the value of a base64 digit (32 and above: more follow), a separator, or the end."""

_MAX_LINE = 0xFFFF_FFFE
_TOO_LARGE = 1 << 32
_CHUNK = 1 << 20
_RU8 = array(types.uint8, readonly=True)


@kernel(
    types.void(
        _RU8,
        _RU8,
        array(types.int64, 2, readonly=True),
        array(types.uint32),
        array(types.uint32),
        array(types.int32),
        array(types.int32, 2),
        array(types.int64, 2),
        array(types.int64, 2),
        array(types.int64),
    )
)
def _decode(text, digits, sections, lines, first, column, place, ends, errors, totals):
    """Fill the columns; ``totals``: segments, rows of ``lines``, whether unordered, errors.

    ``ends``: for each section what ended it (0: nothing), where, and its last row of ``lines`` plus one.
    """
    n = np.int64(0)
    row = np.int64(0)
    failed = np.int64(0)
    unordered = False
    for number in range(len(sections)):
        at = sections[number, 0]
        end = sections[number, 1]
        line = sections[number, 2]
        shift = sections[number, 3]
        source_base = sections[number, 4]
        sources = sections[number, 5]
        name_base = sections[number, 6]
        names = sections[number, 7]
        first_n = n
        first_row = row
        start = n
        column_now = np.int64(0)
        source = np.int64(0)
        original_line = np.int64(0)
        original_column = np.int64(0)
        name = np.int64(0)
        last = np.int64(0)
        expected = False  # After a comma.
        begun = False  # Since the line's start or a comma.
        status = np.int64(0)
        while True:
            kind = digits[text[at]] if at < end else np.uint8(_SEMICOLON)
            if kind >= 64:
                if kind == _END:
                    status = BAD_CHARACTER
                    break
                if not begun and (kind == _COMMA or expected):
                    if failed < len(errors):
                        errors[failed, 0] = EMPTY_SEGMENT
                        errors[failed, 1] = number
                        errors[failed, 2] = at
                    failed += 1
                begun = False
                expected = kind == _COMMA
                if kind == _SEMICOLON:
                    if n > start:
                        lines[row] = line
                        first[row] = start
                        unordered |= row > 0 and lines[row - 1] >= line
                        row += 1
                        start = n
                    if at >= end:
                        break
                    line += 1
                    shift = 0
                    column_now = 0
                    last = 0
                at += 1
                continue
            begun = True
            segment = at
            fields = np.int64(0)
            # One loop for all numbers of the segment: a function for a number would count references to the arrays.
            while kind < 64:
                digit = np.int64(kind)
                at += 1
                value = digit & 31
                if digit >= 32:
                    weight = np.int64(5)
                    while digit >= 32:
                        digit = np.int64(digits[text[at]])
                        if digit >= 64:
                            break
                        at += 1
                        # Digits of no weight may follow without end.
                        if weight < 35:
                            value |= (digit & 31) << weight
                        elif digit & 31:
                            value |= _TOO_LARGE
                        weight += 5
                    if digit == _END and at < end:
                        status = BAD_CHARACTER
                        break
                    if digit >= 64 or value > 0xFFFF_FFFF:
                        status = UNFINISHED if digit >= 64 else TOO_LARGE
                        break
                if value & 1:
                    value = -(value >> 1) if value > 1 else np.int64(-0x8000_0000)
                else:
                    value >>= 1
                if fields == 0:
                    column_now += value
                elif fields == 1:
                    source += value
                elif fields == 2:
                    original_line += value
                elif fields == 3:
                    original_column += value
                elif fields == 4:
                    name += value
                fields += 1
                kind = digits[text[at]]
            if status:
                break
            if kind == _END and at < end:
                status = BAD_CHARACTER
                break
            if fields != 4 and fields != 5 and fields != 1:
                status = BAD_FIELDS
                at = segment
                break
            fault = np.int64(0)
            new_source = np.int64(-1)
            new_name = np.int64(-1)
            if fields > 1:
                # Negative or beyond 31 bits: either leaves a bit above them.
                if (source | original_line | original_column) >> 31 != 0 or source >= sources:
                    fault = POSITION_OUT_OF_RANGE
                else:
                    new_source = source
                if fields == 5:
                    if name < 0 or name >= names:
                        fault = fault or NAME_OUT_OF_RANGE
                    else:
                        new_name = name
            generated = column_now + shift
            if generated >> 31 != 0 or column_now < 0 or line < 0 or line > _MAX_LINE:
                fault = NEGATIVE_COLUMN
            if fault:
                if failed < len(errors):
                    errors[failed, 0] = fault
                    errors[failed, 1] = number
                    errors[failed, 2] = segment
                failed += 1
                if fault == NEGATIVE_COLUMN:
                    continue
            unordered |= generated < last
            last = generated
            column[n] = generated
            if new_source >= 0:
                place[n, 0] = source_base + new_source
                place[n, 1] = original_line
                place[n, 2] = original_column
                place[n, 3] = name_base + new_name if new_name >= 0 else np.int64(-1)
            else:
                place[n, 0] = -1
                place[n, 1] = -1
                place[n, 2] = -1
                place[n, 3] = -1
            n += 1
        if status:
            n = first_n
            row = first_row
        ends[number, 0] = status
        ends[number, 1] = at
        ends[number, 2] = row
    first[row] = n
    totals[0] = n
    totals[1] = row
    totals[2] = unordered
    totals[3] = failed


@kernel(types.void(_RU8, _RU8, types.int64, types.int64, array(types.int64), array(types.int64, 2), array(types.int64)))
def _items(text, digits, at, end, values, items, totals):
    """Fill ``values`` with every number and ``items`` with each item's end in ``values``, its separator and its fault.

    ``totals``: items and values. An item ends at a separator or with the text; a fault costs an item all its numbers.
    """
    n = np.int64(0)
    item = np.int64(0)
    start = np.int64(0)
    fault = np.int64(0)
    while True:
        kind = digits[text[at]] if at < end else np.uint8(_SEMICOLON)
        if kind in (_COMMA, _SEMICOLON):
            n = start if fault else n
            items[item, 0] = n
            items[item, 1] = text[at] if at < end else np.int64(0)
            items[item, 2] = fault
            item += 1
            start = n
            fault = 0
            if at >= end:
                break
            at += 1
            continue
        if kind == _END:
            fault = BAD_CHARACTER
            at += 1
            continue
        digit = np.int64(kind)
        at += 1
        value = digit & 31
        weight = np.int64(5)
        while digit >= 32:
            digit = np.int64(digits[text[at]])
            if digit >= 64:
                break
            at += 1
            if weight < 35:
                value |= (digit & 31) << weight
            elif digit & 31:
                value |= _TOO_LARGE
            weight += 5
        if digit >= 64:
            fault = fault or UNFINISHED
        elif value > 0xFFFF_FFFF:
            fault = fault or TOO_LARGE
        values[n] = value
        n += 1
    totals[0] = item
    totals[1] = n


@dataclass(slots=True)
class Mappings:
    """Decoded segments; the columns are SourceMapTable's, in the map's own order while ``unordered``.

    ``ends`` i64[sections, 3]: what ended a section's text before its end (0: nothing; a section that something ended
    has no segments), the offset, and its last row of ``lines`` plus one. ``errors`` i64[e, 3]: kind, section and offset
    of the first so many of ``failed`` segments at fault.
    """

    lines: NDArray[np.uint32]
    first: NDArray[np.uint32]
    column: NDArray[np.int32]
    place: NDArray[np.int32]
    ranged: NDArray[np.uint8]
    ends: NDArray[np.int64]
    errors: NDArray[np.int64]
    failed: int
    unordered: bool

    def ordered(self) -> Mappings:
        """Return the segments sorted by generated position; those of one position keep their order."""
        if not self.unordered or not len(self.column):
            return self
        line = np.repeat(self.lines, np.diff(self.first)).astype(np.int64)
        order = np.argsort(line << 32 | self.column, kind="stable")
        line = line[order]
        starts = np.flatnonzero(np.append(True, line[1:] != line[:-1]))
        return replace(
            self,
            lines=line[starts].astype(np.uint32),
            first=np.append(starts, len(line)).astype(np.uint32),
            column=self.column[order],
            place=self.place[order],
            ranged=self.ranged[order] if len(self.ranged) else self.ranged,
            unordered=False,
        )


@dataclass(slots=True)
class Items:
    """Numbers between separators: those of item i are ``values[first[i]:first[i + 1]]``.

    ``separators[i]`` is the character after it, 0 at the text's end. ``faults[i]``: 0, BAD_CHARACTER, UNFINISHED or
    TOO_LARGE, which leave an item without numbers.
    """

    values: NDArray[np.int64]
    first: NDArray[np.int64]
    separators: NDArray[np.int64]
    faults: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.separators)


def count_segments(text: NDArray[np.uint8], sections: NDArray[np.int64]) -> tuple[int, int]:
    """Return how many segments and generated lines the mappings of ``sections`` have at most, by their separators."""
    commas = semicolons = 0
    for start, end in sections[:, :2].tolist():
        for at in range(start, end, _CHUNK):
            part = text[at : min(at + _CHUNK, end)]
            commas += np.count_nonzero(part == ord(","))
            semicolons += np.count_nonzero(part == ord(";"))
    lines = semicolons + len(sections)
    return commas + lines, lines


def decode_mappings(
    text: NDArray[np.uint8], sections: NDArray[np.int64], counts: tuple[int, int], *, keep_errors: int = 16
) -> Mappings:
    """Decode the mappings of one or many sections into common columns.

    ``sections`` i64[q, 8]: where a text starts and ends, generated line and column it begins at, what to add to its
    source indices and how many sources it has, and the same of names. ``counts`` is what ``count_segments`` said.
    """
    segments, rows = counts[0], min(counts)
    totals = np.zeros(4, np.int64)
    lines, first = np.empty(rows, np.uint32), np.empty(rows + 1, np.uint32)
    column, place = np.empty(segments, np.int32), np.empty((segments, 4), np.int32)
    ends, errors = np.zeros((len(sections), 3), np.int64), np.zeros((keep_errors, 3), np.int64)
    _decode(text, _DIGIT, sections, lines, first, column, place, ends, errors, totals)
    n, row, unordered, failed = totals.tolist()
    none = np.zeros(0, np.uint8)
    return Mappings(
        lines[:row], first[: row + 1], column[:n], place[:n], none, ends, errors[:failed], failed, bool(unordered)
    )


def decode_items(text: bytes) -> Items:
    """Decode a text of unsigned VLQs, with or without commas and semicolons between them."""
    closed = np.frombuffer(text + b'"', np.uint8)
    count = text.count(b",") + text.count(b";") + 1
    values, items, totals = np.empty(len(text), np.int64), np.empty((count, 3), np.int64), np.zeros(2, np.int64)
    _items(closed, _DIGIT, 0, len(text), values, items, totals)
    return Items(values[: totals[1]], np.append(np.int64(0), items[:, 0]), items[:, 1], items[:, 2])


def signed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what unsigned VLQs stand for where they have a sign; minus nothing is -2^31."""
    half = values >> 1
    return np.where(values & 1, np.where(half, -half, -0x8000_0000), half)
