"""Where the parts of a JSON document lie, without decoding any: four fifths of a source map are never looked at.

Only the members of one object are checked against the grammar (RFC 8259), and elements of the arrays asked for. What
is nested below is skipped by its brackets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import types

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.kernels._jit import array, find_byte, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ARRAY", "NULL", "NUMBER", "OBJECT", "STRING", "Member", "members"]

STRING, OBJECT, ARRAY, NUMBER, BOOLEAN, NULL = range(6)
"""The kinds of JSON values."""
_KEY, _ELEMENT, _LISTED = 16, 32, 64
_MAX_DEPTH = 512
_MAX_MEMBERS = 4096
_MAX_ROWS = 1 << 24
_NAMES = ("a string", "an object", "an array", "a number", "true or false", "null")

_RU8 = array(types.uint8, readonly=True)
_EXPECTED = {
    1: "an object",
    2: "a member's name",
    3: "a colon",
    4: "a value",
    5: "a comma or the end",
    6: "the end of a string",
    7: f"brackets nested {_MAX_DEPTH} deep at most",
    8: "a bracket of the same kind",
}


@kernel(inline=True)
def _blank(text, at, end):
    while at < end and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@kernel(inline=True)
def _string(text, at, end):
    """Return the place after the quote that closes the string which opens at ``at``; -1 where none does."""
    at += 1
    while True:
        at = find_byte(text, 34, at, end)
        if at >= end:
            return np.int64(-1)
        escapes = at
        while text[escapes - 1] == 92:
            escapes -= 1
        at += 1
        if (at - escapes) & 1:
            return at


@kernel()
def _nested(text, at, end, stack):
    """Return the place after the bracket that closes the one at ``at``, or the number of what is wrong, negative."""
    depth = 0
    while at < end:
        byte = text[at]
        if byte == 34:
            at = _string(text, at, end)
            if at < 0:
                return np.int64(-6)
            continue
        if byte == 123 or byte == 91:
            if depth == len(stack):
                return np.int64(-7)
            stack[depth] = byte + 2
            depth += 1
        elif byte == 125 or byte == 93:
            depth -= 1
            if stack[depth] != byte:
                return np.int64(-8)
            if depth == 0:
                return at + 1
        at += 1
    return np.int64(-5)


@kernel()
def _scalar(text, at, end):
    """Return the place after a number or literal, and its kind (-1: none)."""
    byte = text[at]
    start = at
    while at < end and text[at] != 44 and text[at] != 125 and text[at] != 93 and text[at] > 32:
        if byte <= 57 and not (48 <= text[at] <= 57 or text[at] in (43, 45, 46, 69, 101)):
            return at, -1
        at += 1
    if byte == 116 and at - start == 4 and text[start + 1] == 114 and text[start + 2] == 117 and text[start + 3] == 101:
        return at, BOOLEAN
    if byte == 102 and at - start == 5 and text[start + 1] == 97 and text[start + 4] == 101:
        return at, BOOLEAN
    if byte == 110 and at - start == 4 and text[start + 1] == 117 and text[start + 3] == 108:
        return at, NULL
    return at, NUMBER if byte == 45 or 48 <= byte <= 57 else -1


@kernel(
    types.void(
        _RU8,
        types.int64,
        types.int64,
        array(types.uint8, 2, readonly=True),
        array(types.uint8),
        array(types.uint32, 2),
        array(types.int64),
    )
)
def _members(text, at, end, wanted, stack, tape, totals):
    """Write the object's members to the tape: a name, its value, and the elements if it is a wanted array's.

    A row: kind (plus _KEY, _ELEMENT, or _LISTED where elements follow), start, end. ``totals``: rows (there may be more
    than the tape has), what is wrong (0: nothing), where; the last is the object's end where nothing is.
    """
    n = np.int64(0)
    listed = np.int64(0)
    wrong = np.int64(0)
    inside = False  # An array whose elements are wanted.
    at = _blank(text, at, end)
    if at >= end or text[at] != 123:
        wrong = 1
    else:
        at = _blank(text, at + 1, end)
        first = True
        elements = False
        while wrong == 0:
            if at >= end:
                wrong = 5
                break
            closing = np.uint8(93) if inside else np.uint8(125)
            if text[at] == closing and first:
                at += 1
                if not inside:
                    break
                inside = False
                if listed < len(tape):
                    tape[listed, 2] = at
            else:
                if not inside:
                    if text[at] != 34:
                        wrong = 2
                        break
                    start = at
                    at = _string(text, at, end)
                    if at < 0:
                        at = start
                        wrong = 6
                        break
                    if n < len(tape):
                        tape[n, 0] = _KEY
                        tape[n, 1] = start
                        tape[n, 2] = at
                    n += 1
                    elements = False
                    for which in range(len(wanted)):
                        length = np.int64(wanted[which, 0])
                        same = length == at - start - 2
                        for i in range(length if same else 0):
                            same &= text[start + 1 + i] == wanted[which, 1 + i]
                        elements |= same
                    at = _blank(text, at, end)
                    if at >= end or text[at] != 58:
                        wrong = 3
                        break
                    at = _blank(text, at + 1, end)
                    if at >= end:
                        wrong = 4
                        break
                start = at
                byte = text[at]
                row = n
                n += 1
                if byte == 34:
                    kind = STRING
                    at = _string(text, at, end)
                    wrong = 6 if at < 0 else 0
                elif byte == 91 and elements and not inside:
                    if row < len(tape):
                        tape[row, 0] = ARRAY | _LISTED
                        tape[row, 1] = start
                    listed = row
                    inside = True
                    first = True
                    at = _blank(text, at + 1, end)
                    continue
                elif byte == 123 or byte == 91:
                    kind = OBJECT if byte == 123 else ARRAY
                    at = _nested(text, at, end, stack)
                    wrong = -at if at < 0 else 0
                else:
                    at, kind = _scalar(text, at, end)
                    wrong = 4 if kind < 0 else 0
                if wrong:
                    at = max(at, start)
                    break
                if row < len(tape):
                    tape[row, 0] = kind | (_ELEMENT if inside else 0)
                    tape[row, 1] = start
                    tape[row, 2] = at
            # After a value: a comma and another one, or the end of what it is in.
            at = _blank(text, at, end)
            if at >= end:
                wrong = 5
                break
            first = False
            closing = np.uint8(93) if inside else np.uint8(125)
            if text[at] == 44:
                at = _blank(text, at + 1, end)
            elif text[at] == closing:
                first = True
            else:
                wrong = 5
    totals[0] = n
    totals[1] = wrong
    totals[2] = at


class Member(NamedTuple):
    """A member of an object: its kind, where it lies, and its elements (u32[e, 3]: kind, start, end) if asked for."""

    kind: int
    start: int
    end: int
    elements: NDArray[np.uint32] | None = None

    def describe(self) -> str:
        """Return what the value is, in words."""
        return _NAMES[self.kind]


def _packed(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    table = np.zeros((len(keys), 1 + max(map(len, keys), default=0)), np.uint8)
    for row, key in zip(table, keys, strict=True):
        row[0] = len(key)
        row[1 : 1 + len(key)] = np.frombuffer(key, np.uint8)
    return table


_WANTED: dict[Sequence[bytes], NDArray[np.uint8]] = {}


def members(
    text: NDArray[np.uint8], start: int, end: int, arrays: tuple[bytes, ...] = (), what: str = "JSON"
) -> tuple[dict[bytes, Member], int]:
    """Return the members of the object that begins in ``text[start:end]``, and where it ends.

    Names stay as they are written (a name with escapes keeps them); of two of the same name the later one counts, as in
    JSON.parse. ``arrays`` names the members whose elements are wanted. Raises Malformed where it is no JSON object,
    LimitExceeded where it has more than 4096 members or 2^24 parts.
    """
    if arrays not in _WANTED:
        _WANTED[arrays] = _packed(arrays)
    stack, totals = np.empty(_MAX_DEPTH, np.uint8), np.zeros(3, np.int64)
    room = 1024 + (end - start) // 64
    while True:
        tape = np.empty((room, 3), np.uint32)
        _members(text, start, end, _WANTED[arrays], stack, tape, totals)
        count, wrong, at = totals.tolist()
        if count <= room or count > _MAX_ROWS:
            break
        room = count
    if wrong:
        got = text[at : at + 12].tobytes() if at < end else "the end"
        raise Malformed(what, offset=at, expected=_EXPECTED[wrong], got=got)
    if count > _MAX_ROWS:
        raise LimitExceeded("parts of a JSON object", _MAX_ROWS, count, what)
    tape = tape[:count]
    found = {}
    keys = (tape[:, 0] == _KEY).nonzero()[0].tolist()
    if len(keys) > _MAX_MEMBERS:
        raise LimitExceeded("members of a JSON object", _MAX_MEMBERS, len(keys), what)
    for row, following in pairwise([*keys, count]):
        _, name, name_end = tape[row].tolist()
        kind, value, value_end = tape[row + 1].tolist()
        elements = None
        if kind & _LISTED:
            elements = tape[row + 2 : following].copy()
            elements[:, 0] &= _ELEMENT - 1
        found[text[name + 1 : name_end - 1].tobytes()] = Member(kind & ~_LISTED, value, value_end, elements)
    return found, at
