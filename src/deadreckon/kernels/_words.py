"""JavaScript's words, as far as they tell where functions are (ECMA-262, "Keywords and Reserved Words")."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel

__all__ = [
    "BEFORE_BODY",
    "BEFORE_CONTROL",
    "OPERATOR_WORD",
    "PLAIN",
    "WORD_ASYNC",
    "WORD_CLASS",
    "WORD_CONSTRUCTOR",
    "WORD_DECLARES",
    "WORD_EXPORTS",
    "WORD_EXTENDS",
    "WORD_FUNCTION",
    "WORD_GET",
    "WORD_JOINS",
    "WORD_LITERAL",
    "WORD_SET",
    "WORD_STATIC",
    "WORD_SUPER",
    "WORD_THIS",
    "word",
]

(
    PLAIN,
    WORD_FUNCTION,
    WORD_CLASS,
    WORD_ASYNC,
    WORD_EXTENDS,
    WORD_JOINS,  # in, instanceof: what never begins a statement
    WORD_DECLARES,  # var, let, const
    WORD_THIS,
    WORD_SUPER,
    WORD_LITERAL,  # null, true, false
    WORD_EXPORTS,  # export, default
    OPERATOR_WORD,  # return, typeof ...: an operand follows
    BEFORE_CONTROL,  # if, while ...: a parenthesis and a statement follow
    BEFORE_BODY,  # else, do ...: a statement follows
    WORD_GET,
    WORD_SET,
    WORD_STATIC,
    WORD_CONSTRUCTOR,
) = range(18)
"""What a word is; those from WORD_GET on are words only where a member's name is expected."""


_WORDS = (
    (WORD_FUNCTION, "function"),
    (WORD_CLASS, "class"),
    (WORD_ASYNC, "async"),
    (WORD_EXTENDS, "extends"),
    (WORD_JOINS, "in instanceof"),
    (WORD_DECLARES, "var let const"),
    (WORD_THIS, "this"),
    (WORD_SUPER, "super"),
    (WORD_LITERAL, "null true false"),
    (WORD_EXPORTS, "export default"),
    (OPERATOR_WORD, "return typeof case delete void throw new await yield import"),
    (BEFORE_CONTROL, "if while for with switch catch"),
    (BEFORE_BODY, "else do try finally"),
    (WORD_GET, "get"),
    (WORD_SET, "set"),
    (WORD_STATIC, "static"),
    (WORD_CONSTRUCTOR, "constructor"),
)
_LONGEST = len("constructor")
_MASK = (1 << 64) - 1
_BASE = 257
_FACTOR = 0xCA02_135E_92B1_D3F3
"""Chosen so that every word has a place of its own; tests/kernels/test_scopes.py holds it."""


def _digest(text: str) -> int:
    value = 0
    for character in text.encode():
        value = value * _BASE + character & _MASK
    return value


_KEY = np.zeros(256, np.uint64)
_KIND = np.zeros(256, np.int64)
_LENGTHS = np.zeros(256, np.int64)
"""By first character: a bit for each length that words have."""
for _kind, _texts in _WORDS:
    for _text in _texts.split():
        _place = (_digest(_text) * _FACTOR & _MASK) >> 56
        _KEY[_place], _KIND[_place] = _digest(_text), _kind
        _LENGTHS[ord(_text[0])] |= 1 << len(_text)


@kernel()
def word(text, start, end):
    """Return what a word is, PLAIN for a name."""
    length = min(end - start, _LONGEST + 1)
    if not _LENGTHS[text[start]] >> length & 1:
        return PLAIN
    value = np.uint64(0)
    for at in range(start, end):
        value = value * np.uint64(_BASE) + np.uint64(text[at])
    place = np.int64((value * np.uint64(_FACTOR)) >> np.uint64(56))
    return _KIND[place] if _KEY[place] == value else PLAIN
