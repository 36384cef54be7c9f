"""Where lines begin, in scripts and in the JSON strings that hold sources (ECMA-262, "Line Terminators").

A line ends with LF, CR, both, U+2028 or U+2029.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, find_byte, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["in_strings", "in_text"]

_RU8 = array(types.uint8, readonly=True)


@kernel(types.int64(_RU8, array(types.int64)))
def _in_text(text, starts):
    """Write where lines begin, and at last where the text ends; return how many entries that makes."""
    end = np.int64(len(text))
    if len(starts):
        starts[0] = 0
    n = np.int64(1)
    feed = find_byte(text, 10, 0, end)
    back = find_byte(text, 13, 0, end)
    wide = find_byte(text, 0xE2, 0, end)
    while feed < end or back < end or wide < end:
        at = min(feed, back, wide)
        after = at + 1
        if at == wide:
            breaks = at + 2 < end and text[at + 1] == 0x80 and (text[at + 2] | 1) == 0xA9
            after = at + 3 if breaks else after
            wide = find_byte(text, 0xE2, after, end)
        elif at == feed:
            breaks = True
            feed = find_byte(text, 10, after, end)
        else:
            # The line feed of a pair is what ends the line.
            breaks = feed != after or after == end
            back = find_byte(text, 13, after, end)
        if breaks:
            if n < len(starts):
                starts[n] = after
            n += 1
    if n < len(starts):
        starts[n] = end
    return n + 1


@kernel()
def _escape(text, at, end):
    """Return the place after an escape, and the code of the line terminator that it is (0: none)."""
    byte = text[at + 1] if at + 1 < end else np.uint8(0)
    if byte == 110:
        return at + 2, np.int64(10)
    if byte == 114:
        return at + 2, np.int64(13)
    if byte != 117 or at + 6 > end:
        return min(at + 2, end), np.int64(0)
    code = np.int64(0)
    for i in range(at + 2, at + 6):
        digit = np.int64(text[i])
        code = code << 4 | (digit - 48 if digit <= 57 else (digit | 32) - 87)
    return at + 6, code if code in (10, 13, 0x2028, 0x2029) else np.int64(0)


@kernel(types.int64(_RU8, array(types.uint32, 2, readonly=True), array(types.uint32), array(types.uint32)))
def _in_strings(text, strings, first, starts):
    """Write where the lines of JSON strings begin, and after those of each its end; return how many that makes.

    ``first`` gets the row where each string's begin. A line ends as ECMA-262 says (LineTerminatorSequence), escaped or
    not.
    """
    n = np.int64(0)
    for number in range(len(strings)):
        first[number] = n
        start = np.int64(strings[number, 0]) + 1
        end = np.int64(strings[number, 1]) - 1
        if end < start:
            continue
        if n < len(starts):
            starts[n] = start
        n += 1
        escape = find_byte(text, 92, start, end)
        wide = find_byte(text, 0xE2, start, end)
        while escape < end or wide < end:
            if wide < escape:
                if wide + 2 < end and text[wide + 1] == 0x80 and (text[wide + 2] | 1) == 0xA9:
                    if n < len(starts):
                        starts[n] = wide + 3
                    n += 1
                wide = find_byte(text, 0xE2, wide + 1, end)
                continue
            at, breaks = _escape(text, escape, end)
            if breaks == 13 and at < end and text[at] == 92:
                after, following = _escape(text, at, end)
                if following == 10:
                    at = after
            if breaks:
                if n < len(starts):
                    starts[n] = at
                n += 1
            escape = find_byte(text, 92, at, end)
            if wide < at:
                wide = find_byte(text, 0xE2, at, end)
        if n < len(starts):
            starts[n] = end
        n += 1
    first[len(strings)] = n
    return n


def in_text(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where the lines of a text in UTF-8 begin, i64, and at last where it ends."""
    room = 64 + len(text) // 24
    while True:
        starts = np.empty(room, np.int64)
        count = _in_text(text, starts)
        if count <= room:
            return starts[:count]
        room = count


def in_strings(text: NDArray[np.uint8], strings: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return where the lines of JSON strings begin in ``text``, after those of each where it ends, and where its begin.

    ``strings`` u32[n, 2]: where they and their quotes lie; an empty range has no line. Returns ``first`` u32[n + 1] and
    ``starts`` u32: those of string i are ``starts[first[i]:first[i + 1]]``.
    """
    first = np.empty(len(strings) + 1, np.uint32)
    room = 64 + 2 * len(strings) + int((strings[:, 1] - strings[:, 0]).sum(dtype=np.int64)) // 24
    while True:
        starts = np.empty(room, np.uint32)
        count = _in_strings(text, strings, first, starts)
        if count <= room:
            return first, starts[:count]
        room = count
