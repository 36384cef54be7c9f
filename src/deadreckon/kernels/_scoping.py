"""What the scanner of scopes keeps (columns of brackets, of parts of names, of functions), and small steps of it."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels import _words as words
from deadreckon.kernels._jit import kernel

# What a bracket is for. Statements are in the first three; then braces, parentheses, square brackets.
TOP, BLOCK, BODY, CLASS, OBJECT, HOLE, GROUP, CALL, CONTROL, PARAMETERS, ARRAY, MEMBER, KEY = range(13)
TO_STATEMENT, TO_OPERAND, TO_MEMBER = range(3)
"""What comes after a body: a statement, more of an expression, another member."""
TERNARY, ARROW_BODY, CLASS_HEAD = range(3)
"""What is open in an expression without a bracket of its own."""

BRACKET_COLUMNS = 17
(
    IS,  # What it is for.
    VALUE,  # The part that names a value where an expression begins in it,
    CURRENT,  # and where this token is.
    KEYS,  # In an object or class: 1 a member may begin, 2 behind a key, 3 before one, 0 in its value.
    CHAIN,  # The part that ended where the bracket began.
    FLOOR,  # Parts up to here are in use outside.
    PENDING,  # How much was open outside.
    OWN,  # The function that ends with it, or whose parameters it has.
    OUTER,  # The function around it.
    AFTER,  # What comes after it.
    PATTERN,  # 1 in a pattern, 2 in a default value of one.
    MEMBER_LINE,
    MEMBER_COLUMN,  # Where the member that is being read begins,
    MODIFIERS,  # and what stood before its key.
    AT_LINE,
    AT_COLUMN,  # Where the bracket is; of an async arrow function's parameters, where that is.
    TOKENS,  # How many tokens came before.
) = range(BRACKET_COLUMNS)

PART_OBJECT, PART_THIS, PART_NAME, PART_STRING, PART_NUMBER, PART_COMPUTED = range(1, 7)
PART_IN_NAME, PART_IN_STRING, PART_IN_NUMBER, PART_IN_LITERAL, PART_IN_COMPUTED = range(7, 12)
"""A part is an object literal's, ``this``, a name (``.a``, ``.#a``), a key, or something in square brackets."""
KIND, LEFT, START, LENGTH, LINE, COLUMN = range(6)
"""Columns of a part; START and LENGTH are its text in bytes, LINE and COLUMN where that begins."""

FROM_LINE, FROM_COLUMN, TO_LINE, TO_COLUMN, PART, FLAGS, PARENT = range(7)
"""Columns of a scope; its end is what comes behind it."""
FLAG_NEW, FLAG_GET, FLAG_SET, FLAG_BRACES, FLAG_STATIC = 1, 2, 4, 8, 16
"""A class, an accessor, whether the scope ends with a brace; whether a member is static."""


@kernel(inline=True)
def finish(scopes, inner, until, line, column):
    """End the scopes within ``until`` that are still open; return ``until``."""
    while inner != until and inner >= 0:
        scopes[inner, TO_LINE] = line
        scopes[inner, TO_COLUMN] = column
        inner = np.int64(scopes[inner, PARENT])
    return inner


@kernel(inline=True)
def settle(pending, count, down_to, scopes, inner, line, column):
    """End the arrow functions that end with the expression they are in; return the scope around it."""
    while count > down_to:
        count -= 1
        if pending[count, 0] != TERNARY:
            inner = finish(scopes, inner, np.int64(pending[count, 2]), line, column)
    return inner


@kernel(inline=True)
def part(parts, at, kind, left, start, length, line, column):
    """Write a part of a name."""
    parts[at, KIND] = kind
    parts[at, LEFT] = left
    parts[at, START] = start
    parts[at, LENGTH] = length
    parts[at, LINE] = line
    parts[at, COLUMN] = column


@kernel(inline=True)
def begin(scopes, at, line, column, named, flags, parent):
    """Write the beginning of a function."""
    scopes[at, FROM_LINE] = line
    scopes[at, FROM_COLUMN] = column
    scopes[at, PART] = named
    scopes[at, FLAGS] = flags
    scopes[at, PARENT] = parent


@kernel(inline=True)
def push(pending, at, kind, first, second, third):
    """Write what is open without a bracket."""
    pending[at, 0] = kind
    pending[at, 1] = first
    pending[at, 2] = second
    pending[at, 3] = third


@kernel()
def modifier(text, start, length):
    """Return what a member's key means where another follows: a flag, 0 for ``async``, -1 where it is none."""
    what = words.word(text, start, start + length)
    if what == words.WORD_GET:
        return FLAG_GET
    if what == words.WORD_SET:
        return FLAG_SET
    if what == words.WORD_STATIC:
        return FLAG_STATIC
    return 0 if what == words.WORD_ASYNC else -1
