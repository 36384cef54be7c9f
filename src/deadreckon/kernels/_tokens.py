"""The tokens of a script, one at a time (ECMA-262, "Lexical Grammar").

A line ends at LF, CR, CR LF and the separators U+2028 and U+2029, as engines count lines; a column counts UTF-16 units.
Whatever can't be read as a token is passed over: a quote without its other one, a comment or a template without an end.

Behind the text are PADDING zero bytes, so that no look ahead needs to ask where the text ends.
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel

__all__ = [
    "ARROW",
    "ASSIGN",
    "END",
    "INCREMENT",
    "NAME",
    "NUMBER",
    "OPERATOR",
    "OPTIONAL",
    "PADDING",
    "REGEX",
    "SPREAD",
    "STRING",
    "TEMPLATE_END",
    "TEMPLATE_HOLE",
    "next_token",
]

PADDING = 16

END, NAME, NUMBER, STRING, REGEX, TEMPLATE_END, TEMPLATE_HOLE = range(7)
SPREAD, ARROW, ASSIGN, INCREMENT, OPTIONAL, OPERATOR = range(7, 13)
"""Tokens; those of one character, such as brackets, are that character's code."""

_FEW_BYTES = 1024
"""How far the end of a string or regular expression is looked for once many had none."""

_NOTHING, _SINGLE, _LETTER, _DIGIT, _BLANK, _QUOTE, _DOT, _EQUALS, _DOUBLE, _SLASH, _BEYOND = range(11)
_QUESTION, _BANG, _BACKTICK, _HASH = range(11, 15)
_BEGINS = np.zeros(256, np.uint8)
"""What a byte begins."""
for _kind, _bytes in (
    (_SINGLE, b"(){}[],;:"),
    (_LETTER, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ$_\\"),
    (_DIGIT, b"0123456789"),
    (_BLANK, b"\t\n\x0b\x0c\r "),
    (_QUOTE, b"\"'"),
    (_DOT, b"."),
    (_EQUALS, b"="),
    (_DOUBLE, b"+-*%&|^<>"),
    (_SLASH, b"/"),
    (_BEYOND, range(128, 256)),
    (_QUESTION, b"?"),
    (_BANG, b"!"),
    (_BACKTICK, b"`"),
    (_HASH, b"#"),
):
    for _byte in _bytes:
        _BEGINS[_byte] = _kind

_IN_NAME = np.zeros(256, np.uint8)
"""1 for what goes on a name in ASCII."""
for _byte in range(256):
    _IN_NAME[_byte] = _BEGINS[_byte] in {_LETTER, _DIGIT}
_RUN = np.array([(~value & value + 1).bit_length() - 1 for value in range(256)], np.uint8)
"""How many of a byte's lowest bits are 1."""


def _stops(ends: bytes) -> np.ndarray:
    found = np.zeros(256, np.bool_)
    found[[0, 10, 13, 92, *ends, *range(128, 256)]] = True
    return found


_IN_STRING, _IN_REGEX, _IN_TEMPLATE = _stops(b"\"'"), _stops(b"/[]"), _stops(b"`$")
"""Which bytes need a look there: ends, escapes, ends of lines, and what counts otherwise in columns."""


@kernel(inline=True)
def _separator(text, at):
    """Tell whether U+2028 or U+2029 is here."""
    return text[at] == 0xE2 and text[at + 1] == 0x80 and (text[at + 2] & 0xFE) == 0xA8


@kernel(inline=True)
def _wider(byte):
    """Return what a byte beyond ASCII takes from its columns: a character's bytes are more than its UTF-16 units."""
    return 1 if byte < 0xC0 else -1 if byte >= 0xF0 else 0


@kernel(inline=True)
def _name(text, i, base):
    """Return (place, base) behind a name."""
    while True:
        bits = (
            _IN_NAME[text[i]]
            | _IN_NAME[text[i + 1]] << 1
            | _IN_NAME[text[i + 2]] << 2
            | _IN_NAME[text[i + 3]] << 3
            | _IN_NAME[text[i + 4]] << 4
            | _IN_NAME[text[i + 5]] << 5
            | _IN_NAME[text[i + 6]] << 6
            | _IN_NAME[text[i + 7]] << 7
        )
        i += np.int64(_RUN[bits])
        if bits != 255:
            if text[i] < 128 or _separator(text, i):
                return i, base
            base += _wider(text[i])
            i += 1


@kernel()
def _number(text, i):
    """Return the place behind a number, its suffix included."""
    hexadecimal = text[i] == 48 and text[i + 1] | 32 == 120
    dotted = text[i] == 46
    i += 1
    while True:
        byte = text[i]
        if byte == 46 and not dotted and not hexadecimal:
            dotted = True
        elif not _IN_NAME[byte] and not ((byte == 43 or byte == 45) and not hexadecimal and text[i - 1] | 32 == 101):
            return i
        i += 1


@kernel()
def _string(text, i, line, base, limit):
    """Return (place, line, base) of the quote that ends a string; the place is no quote where none does."""
    quote = text[i]
    i += 1
    while True:
        byte = text[i]
        if not _IN_STRING[byte]:
            i += 1
        elif byte == quote or byte == 10 or byte == 13 or i >= limit:
            return i, line, base
        elif byte == 92 and text[i + 1] < 128:
            i += 1
            if text[i] == 10 or text[i] == 13:
                i += text[i] == 13 and text[i + 1] == 10
                line += 1
                base = i + 1
            i += 1
        else:
            base += _wider(byte) if byte >= 128 else 0
            i += 1


@kernel()
def _regex(text, i, base, limit):
    """Return (place, base) of the slash that ends a regular expression; the place is no slash where none does."""
    in_class = False
    i += 1
    while True:
        byte = text[i]
        if not _IN_REGEX[byte]:
            i += 1
            continue
        if (byte == 47 and not in_class) or byte == 10 or byte == 13 or i >= limit:
            return i, base
        if byte == 92 and text[i + 1] < 128 and text[i + 1] != 10 and text[i + 1] != 13:
            i += 1
        elif byte == 91:
            in_class = True
        elif byte == 93:
            in_class = False
        elif byte >= 128:
            base += _wider(byte)
        i += 1


@kernel()
def _template(text, i, line, base, end):
    """Return (token, place, line, base) behind a piece of a template: up to its end or to the next ``${``."""
    while True:
        byte = text[i]
        if not _IN_TEMPLATE[byte]:
            i += 1
        elif byte == 96:
            return TEMPLATE_END, i + 1, line, base
        elif byte == 36:
            i += 1
            if text[i] == 123:
                return TEMPLATE_HOLE, i + 1, line, base
        elif byte == 92:
            i += 1
            i += text[i] < 128 and text[i] != 10 and text[i] != 13
        elif byte == 10 or byte == 13:
            i += 2 if byte == 13 and text[i + 1] == 10 else 1
            line += 1
            base = i
        elif byte == 0:
            if i >= end:
                return END, i, line, base
            i += 1
        elif _separator(text, i):
            i += 3
            line += 1
            base = i
        else:
            base += _wider(byte)
            i += 1


@kernel()
def _blank(text, i, line, base, end):
    """Return (place, line, base) behind white space and comments."""
    comment = 0  # 1: up to the line's end, 2: up to */
    while i < end:
        byte = text[i]
        if byte == 10 or byte == 13 or _separator(text, i):
            i += 3 if byte == 0xE2 else 2 if byte == 13 and text[i + 1] == 10 else 1
            line += 1
            base = i
            if comment == 1:
                comment = 0
        elif comment:
            if comment == 2 and byte == 42 and text[i + 1] == 47:
                i += 1
                comment = 0
            base += _wider(byte) if byte >= 128 else 0
            i += 1
        elif _BEGINS[byte] == _BLANK:
            i += 1
        elif byte == 47 and (text[i + 1] == 47 or text[i + 1] == 42):
            comment = 1 if text[i + 1] == 47 else 2
            i += 2
        elif byte == 35 and i == 0 and text[1] == 33:  # What runs a program: #!
            comment = 1
        elif byte == 0xC2 and text[i + 1] == 0xA0:
            i += 2
            base += 1
        elif byte == 0xEF and text[i + 1] == 0xBB and text[i + 2] == 0xBF:
            # A decoder drops the mark that a file begins with, so no engine counts it.
            base += 2 if i else 3
            i += 3
        else:
            break
    return i, line, base


@kernel(inline=True)
def next_token(text, i, line, base, operand, in_template, fuel):
    """Return (token, start, place behind it, line and column of its start, line, base, fuel).

    ``base`` is what to take from a place to have its column. ``operand`` tells whether a slash divides. ``fuel`` is
    what may still be read in vain, in bytes.
    """
    end = len(text) - PADDING
    if in_template:
        start = i
        at_column = i - base
        at_line = line
        token, i, line, base = _template(text, i, line, base, end)
        return token, start, i, at_line, at_column, line, base, fuel
    while True:
        byte = text[i]
        begins = _BEGINS[byte]
        if begins == _BLANK or begins == _BEYOND or begins == _SLASH or begins == _HASH:
            i, line, base = _blank(text, i, line, base, end)
            byte = text[i]
            begins = _BEGINS[byte]
        start = i
        at_line = line
        at_column = i - base
        token = np.int64(byte)
        if begins == _SINGLE:
            i += 1
        elif begins == _LETTER or begins == _BEYOND:
            i, base = _name(text, i, base)
            token = np.int64(NAME)
        elif begins == _DOT:
            i += 1
            follows = text[i]
            if follows == 46 and text[i + 1] == 46:
                token = np.int64(SPREAD)
                i += 2
            elif _BEGINS[follows] == _DIGIT and not operand:
                i = _number(text, start)
                token = np.int64(NUMBER)
        elif begins == _DIGIT:
            i = _number(text, i)
            token = np.int64(NUMBER)
        elif begins == _EQUALS:
            follows = text[i + 1]
            if follows == 62:
                token = np.int64(ARROW)
                i += 2
            elif follows == 61:
                token = np.int64(OPERATOR)
                i += 3 if text[i + 2] == 61 else 2
            else:
                token = np.int64(ASSIGN)
                i += 1
        elif begins == _QUOTE:
            limit = end if fuel > 0 else min(end, i + _FEW_BYTES)
            i, end_line, end_base = _string(text, i, line, base, limit)
            if text[i] != byte:
                # A quote out of place: what follows is read as if it were not there.
                fuel -= i - start
                i = start + 1
                continue
            line = end_line
            base = end_base
            i += 1
            token = np.int64(STRING)
        elif begins == _DOUBLE or (begins == _SLASH and operand):
            i += 1
            token = np.int64(OPERATOR)
            if text[i] == byte and (byte == 43 or byte == 45):
                token = np.int64(INCREMENT)
                i += 1
            else:
                while text[i] == byte and i < start + 3:
                    i += 1
                if byte == 42 and i == start + 1:
                    token = np.int64(42)
                if text[i] == 61:
                    # <= and >= compare.
                    token = np.int64(OPERATOR if (byte == 60 or byte == 62) and i == start + 1 else ASSIGN)
                    i += 1
        elif begins == _QUESTION:
            i += 1
            if text[i] == 46 and _BEGINS[text[i + 1]] != _DIGIT:
                token = np.int64(OPTIONAL)
                i += 1
            elif text[i] == 63:
                i += 1
                token = np.int64(ASSIGN if text[i] == 61 else OPERATOR)
                i += text[i] == 61
        elif begins == _BANG:
            token = np.int64(OPERATOR)
            i += 1
            while text[i] == 61 and i < start + 3:
                i += 1
        elif begins == _SLASH:
            limit = end if fuel > 0 else min(end, i + _FEW_BYTES)
            i, end_base = _regex(text, i, base, limit)
            token = np.int64(REGEX)
            if text[i] == 47:
                i, base = _name(text, i + 1, end_base)
            else:
                fuel -= i - start
                i = start + 1
                token = np.int64(OPERATOR)
        elif begins == _BACKTICK:
            token, i, line, base = _template(text, i + 1, line, base, end)
        elif begins == _HASH and _BEGINS[text[i + 1]] != _NOTHING:
            i, base = _name(text, i + 1, base)
            token = np.int64(NAME if i > start + 1 else OPERATOR)
        else:
            token = np.int64(OPERATOR if i < end else END)
            i += 1
        return token, start, i, at_line, at_column, line, base, fuel
