"""The functions of a script by one pass over its tokens: where each begins and ends, and what the text calls it.

No grammar is built, so nothing can fail to parse: a stack of brackets, with what each is for, is enough to tell
functions from other things, and a token out of place costs the bracket it is in at most. Statements end without
semicolons as in ECMA-262, "Rules of Automatic Semicolon Insertion", as far as that is told by tokens.

A function is named by what it is the value of, as engines do: its own identifier, the variable or member it is assigned
to, the key of the object or class it is in. A name is a list of parts in which each refers to the one left of it, so
that a function costs one part, however long its name is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel
from deadreckon.kernels._tokens import (
    ARROW,
    ASSIGN,
    END,
    INCREMENT,
    NAME,
    NUMBER,
    OPTIONAL,
    PADDING,
    REGEX,
    SPREAD,
    STRING,
    TEMPLATE_END,
    TEMPLATE_HOLE,
    next_token,
)
from deadreckon.kernels._words import (
    BEFORE_BODY,
    BEFORE_CONTROL,
    PLAIN,
    WORD_ASYNC,
    WORD_CLASS,
    WORD_CONSTRUCTOR,
    WORD_DECLARES,
    WORD_EXPORTS,
    WORD_EXTENDS,
    WORD_FUNCTION,
    WORD_GET,
    WORD_JOINS,
    WORD_LITERAL,
    WORD_SET,
    WORD_STATIC,
    WORD_SUPER,
    WORD_THIS,
    word,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scan", "scan"]

# What a bracket is for. Statements are in the first three; then braces, parentheses, square brackets.
_TOP, _BLOCK, _BODY, _CLASS, _OBJECT, _HOLE, _GROUP, _CALL, _CONTROL, _PARAMETERS, _ARRAY, _MEMBER, _KEY = range(13)
# What comes after a body: a statement, more of an expression, another member.
_TO_STATEMENT, _TO_OPERAND, _TO_MEMBER = range(3)
# What is open without a bracket of its own.
_TERNARY, _ARROW_BODY, _CLASS_HEAD = range(3)
# Columns of the stack of brackets.
_KIND, _BASE, _CURRENT, _KEYS, _CHAIN, _FLOOR, _PENDING, _OWN, _OUTER, _AFTER, _PATTERN = range(11)
_FROM_LINE, _FROM_COLUMN, _MODIFIERS, _OPEN_LINE, _OPEN_COLUMN, _TOKENS, _LEVEL_COLUMNS = range(11, 18)
_MOST_LEVELS = 1 << 16
_MOST_PENDING = 1 << 16
_LOOK_BACK = 64
"""Brackets that one of another kind may close at once."""

PART_OBJECT, PART_THIS, PART_NAME, PART_STRING, PART_NUMBER, PART_COMPUTED = range(1, 7)
PART_IN_NAME, PART_IN_STRING, PART_IN_NUMBER, PART_IN_LITERAL, PART_IN_COMPUTED = range(7, 12)
"""A part is an object literal's, ``this``, a name (``.a``, ``.#a``), a key, or something in square brackets."""
KIND, LEFT, START, LENGTH, LINE, COLUMN = range(6)
"""Columns of a part; START and LENGTH are its text in bytes, LINE and COLUMN where that begins."""
FROM_LINE, FROM_COLUMN, TO_LINE, TO_COLUMN, PART, FLAGS, PARENT = range(7)
"""Columns of a scope; its end is what comes behind it."""
FLAG_NEW, FLAG_GET, FLAG_SET, FLAG_BRACES = 1, 2, 4, 8
"""A class, an accessor, whether the scope ends with a brace."""
_FLAG_STATIC = 16

_CLOSED = -1
"""In the place of an operand's part: it ended with a parenthesis."""

_I32_2D = array(types.int32, 2)


@kernel(inline=True)
def _finish(scopes, scope, until, line, column):
    """End the scopes within ``until`` that are still open; return ``until``."""
    while scope != until and scope >= 0:
        scopes[scope, TO_LINE] = line
        scopes[scope, TO_COLUMN] = column
        scope = np.int64(scopes[scope, PARENT])
    return scope


@kernel(inline=True)
def _settle(pending, count, down_to, scopes, scope, line, column):
    """End the arrow functions that end with the expression they are in; return the scope around it."""
    while count > down_to:
        count -= 1
        if pending[count, 0] != _TERNARY:
            scope = _finish(scopes, scope, np.int64(pending[count, 2]), line, column)
    return scope


@kernel(inline=True)
def _part(parts, at, kind, left, start, length, line, column):
    parts[at, KIND] = kind
    parts[at, LEFT] = left
    parts[at, START] = start
    parts[at, LENGTH] = length
    parts[at, LINE] = line
    parts[at, COLUMN] = column


@kernel(inline=True)
def _scope(scopes, at, line, column, part, flags, parent):
    scopes[at, FROM_LINE] = line
    scopes[at, FROM_COLUMN] = column
    scopes[at, PART] = part
    scopes[at, FLAGS] = flags
    scopes[at, PARENT] = parent


@kernel()
def _modifier(text, start, length):
    """Return what a member's key means where another follows: a flag, 0 for ``async``, -1 where it is none."""
    what = word(text, start, start + length)
    if what == WORD_GET:
        return FLAG_GET
    if what == WORD_SET:
        return FLAG_SET
    if what == WORD_STATIC:
        return _FLAG_STATIC
    return 0 if what == WORD_ASYNC else -1


@kernel(types.UniTuple(types.int64, 2)(array(types.uint8, readonly=True), _I32_2D, _I32_2D, _I32_2D, _I32_2D))
def _scan(text, levels, pending, parts, scopes):
    """Fill ``parts`` and ``scopes``; return how many there are. ``levels`` and ``pending`` are room to work in."""
    i = line = base = np.int64(0)
    fuel = np.int64(len(text))
    n_scopes = np.int64(0)
    scope = np.int64(-1)  # The innermost one here.
    _part(parts, 0, 0, 0, 0, 0, 0, 0)
    _part(parts, 1, PART_OBJECT, 0, 0, 0, 0, 0)
    top = committed = np.int64(2)  # Parts: the next one's place, and up to where they are in use.
    depth = too_deep = n_pending = tokens = np.int64(0)

    # The bracket that this token is in.
    kind = np.int64(_TOP)
    named = np.int64(0)  # The part that names a value where an expression begins,
    current = np.int64(0)  # and here.
    keys = np.int64(0)  # In an object or class: 1 a member may begin, 2 behind a key, 3 before one, 0 in its value.
    floor = np.int64(2)
    pend_base = after = pattern = from_line = from_column = modifiers = np.int64(0)
    open_line = open_column = tokens_before = np.int64(0)
    own = outer = np.int64(-1)

    chain = np.int64(0)  # The last part of a name or member expression that ends here.
    operand = False  # An operand ends here.
    statement = True  # A statement begins here.
    dot = False  # A property's name follows.
    control = False  # The parenthesis of a statement follows.
    in_template = False
    function = np.int64(-2)  # The function whose name or parameters follow; -1 for a constructor, a part of its class.
    body = np.int64(-2)  # The function whose body follows.
    body_after = np.int64(0)
    previous = np.int64(PLAIN)  # The word before this token.
    key = key_start = key_length = key_line = key_column = np.int64(0)
    last = last_start = last_length = last_line = last_column = np.int64(0)  # An operand of one token, as a part.
    name_line = name_column = async_line = async_column = async_declares = np.int64(0)
    closed_line = closed_column = np.int64(0)
    end_line = end_column = np.int64(0)  # Of the token before.

    while True:
        token, start, i, at_line, at_column, line, base, fuel = next_token(
            text, i, line, base, operand, in_template, fuel
        )
        if token == END:
            break
        tokens += 1
        what = np.int64(PLAIN)
        if token == NAME and not dot and keys == 0 and function == -2:
            what = np.int64(word(text, start, i))
        begins = token == NAME or token == NUMBER or token == STRING or token == INCREMENT
        if at_line != end_line and operand and begins and not dot and kind <= _CLASS and keys == 0:
            if what != WORD_JOINS and what != WORD_EXTENDS and (token != NAME or previous != WORD_CLASS):
                # A statement, or a member of a class, has ended without a semicolon.
                scope = _settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
                n_pending = pend_base
                current = named
                chain = np.int64(0)
                operand = False
                statement = kind != _CLASS
                keys = np.int64(kind == _CLASS)
                what = what if statement else np.int64(PLAIN)
        before = previous
        previous = what
        was_statement = statement
        statement = False
        opening = np.int64(-1)
        closing = np.int64(0)
        new_named = current
        new_keys = np.int64(0)
        new_own = np.int64(-1)
        new_after = np.int64(_TO_STATEMENT)
        new_pattern = np.int64(0)

        if dot:
            dot = False
            if token == NAME:
                if chain > 0:
                    _part(parts, top, PART_NAME, chain, start, i - start, at_line, at_column)
                    chain = top
                    top += 1
                operand = True
                last = np.int64(0)
                end_line = line
                end_column = i - base
                continue

        if keys != 0 and (token == NAME or token == NUMBER or token == STRING or token == 91 or token == 42):
            # What was taken for a key is a modifier where a key follows.
            flag = np.int64(_modifier(text, key_start, key_length)) if keys == 2 and key == PART_NAME else np.int64(-1)
            if keys == 1 or (keys == 2 and flag < 0):
                from_line = at_line
                from_column = at_column
                modifiers = np.int64(0)
            elif keys == 2:
                modifiers |= flag
            keys = np.int64(2)
            key = np.int64(PART_NAME if token == NAME else PART_STRING if token == STRING else PART_NUMBER)
            key_start = start
            key_length = i - start
            key_line = at_line
            key_column = at_column
            operand = True
            if token == 42:
                keys = np.int64(3)
            elif token == 91:
                opening = np.int64(_KEY)
        elif token == NAME:
            if function != -2:
                # A function's own name takes the place of the last part of what it is assigned to.
                _part(parts, top, PART_NAME, parts[current, LEFT], start, i - start, at_line, at_column)
                scopes[function, PART] = top
                top += 1
                committed = top
            elif before == WORD_CLASS and what != WORD_EXTENDS and n_pending > pend_base:
                _part(parts, top, PART_NAME, current, start, i - start, at_line, at_column)
                scopes[pending[n_pending - 1, 1], PART] = top
                top += 1
                committed = top
            elif what == PLAIN or what == WORD_ASYNC or what == WORD_THIS or what >= WORD_GET:
                name_line = at_line
                name_column = at_column
                if before == WORD_ASYNC and at_line == end_line:
                    name_line = async_line
                    name_column = async_column
                if what == WORD_ASYNC:
                    async_line = at_line
                    async_column = at_column
                    async_declares = np.int64(was_statement or before == WORD_EXPORTS)
                top = max(floor, committed)
                last = np.int64(PART_IN_COMPUTED if what == WORD_THIS else PART_IN_NAME)
                _part(
                    parts, top, PART_THIS if what == WORD_THIS else PART_NAME, 0, start, i - start, at_line, at_column
                )
                chain = top
                top += 1
                last_start = start
                last_length = i - start
                last_line = at_line
                last_column = at_column
                operand = True
            elif what == WORD_FUNCTION:
                declares = was_statement or before == WORD_EXPORTS
                if before == WORD_ASYNC and at_line == end_line:
                    declares = async_declares != 0
                    at_line = async_line
                    at_column = async_column
                function = n_scopes
                body_after = np.int64(_TO_STATEMENT if declares else _TO_OPERAND)
                _scope(scopes, n_scopes, at_line, at_column, current, 0, scope)
                scope = n_scopes
                n_scopes += 1
                operand = False
                chain = np.int64(0)
            elif what == WORD_CLASS:
                if n_pending < len(pending):
                    _scope(scopes, n_scopes, at_line, at_column, current, FLAG_NEW, scope)
                    pending[n_pending, 0] = _CLASS_HEAD
                    pending[n_pending, 1] = n_scopes
                    pending[n_pending, 2] = scope
                    pending[n_pending, 3] = _TO_STATEMENT if was_statement or before == WORD_EXPORTS else _TO_OPERAND
                    n_pending += 1
                    scope = n_scopes
                    n_scopes += 1
                operand = True
                chain = np.int64(0)
            elif what == WORD_SUPER or what == WORD_LITERAL:
                last = np.int64(PART_IN_LITERAL if what == WORD_LITERAL else PART_IN_COMPUTED)
                last_start = start
                last_length = i - start
                operand = True
                chain = np.int64(0)
            else:
                operand = False
                chain = np.int64(0)
                if what == BEFORE_CONTROL or what == BEFORE_BODY:
                    control = what == BEFORE_CONTROL
                    statement = True
                    current = named if kind <= _BODY else current
        elif token == NUMBER or token == STRING or token == REGEX or token == TEMPLATE_END:
            last = np.int64(
                PART_IN_STRING if token == STRING else PART_IN_NUMBER if token == NUMBER else PART_IN_COMPUTED
            )
            last_start = start
            last_length = i - start
            operand = True
            chain = np.int64(0)
            in_template = False
        elif token == TEMPLATE_HOLE:
            in_template = False
            opening = np.int64(_HOLE)
        elif token == 46 or token == OPTIONAL:
            dot = True
            chain = chain if token == 46 else np.int64(0)
            operand = True
        elif token == 40:  # (
            if function != -2 or keys == 2:
                opening = np.int64(_PARAMETERS)
                if function == -2:
                    is_constructor = (
                        kind == _CLASS
                        and modifiers == 0
                        and (word(text, key_start, key_start + key_length) == WORD_CONSTRUCTOR)
                    )
                    keys = np.int64(0)
                    body_after = np.int64(_TO_MEMBER)
                    function = np.int64(-1)
                    if not is_constructor:
                        left = np.int64(1) if named == 0 and kind == _OBJECT else named
                        _part(parts, top, key, left, key_start, key_length, key_line, key_column)
                        _scope(scopes, n_scopes, from_line, from_column, top, modifiers & (FLAG_GET | FLAG_SET), scope)
                        top += 1
                        committed = top
                        function = n_scopes
                        scope = n_scopes
                        n_scopes += 1
                new_own = function
                new_after = body_after
                new_named = np.int64(0)
                new_pattern = np.int64(1)
                function = np.int64(-2)
            elif control:
                opening = np.int64(_CONTROL)
                new_named = np.int64(0)
            else:
                opening = np.int64(_CALL if operand else _GROUP)
        elif token == 91:  # [
            opening = np.int64(_MEMBER if operand else _ARRAY)
            if opening == _ARRAY:
                new_pattern = np.int64(pattern == 1 or before == WORD_DECLARES)
        elif token == 123:  # {
            if body != -2:
                opening = np.int64(_BODY)
                new_own = body
                new_after = body_after
                new_named = np.int64(0)
                body = np.int64(-2)
            elif n_pending > pend_base and pending[n_pending - 1, 0] == _CLASS_HEAD and operand:
                opening = np.int64(_CLASS)
                n_pending -= 1
                new_own = np.int64(pending[n_pending, 1])
                new_after = np.int64(pending[n_pending, 3])
                new_named = np.int64(scopes[new_own, PART])
                new_keys = np.int64(1)
            elif keys == 2 and kind == _CLASS:  # static { ... }
                opening = np.int64(_BLOCK)
                new_named = named
                new_after = np.int64(_TO_MEMBER)
            elif was_statement or operand:
                opening = np.int64(_BLOCK)
            else:
                opening = np.int64(_OBJECT)
                new_keys = np.int64(1)
                new_pattern = np.int64(pattern == 1 or before == WORD_DECLARES)
        elif token == 41 or token == 93 or token == 125:  # ) ] }
            closing = token
        elif token == 44 or token == 59:  # , ;
            scope = _settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
            n_pending = pend_base
            current = named
            chain = np.int64(0)
            operand = False
            pattern = np.int64(pattern != 0)
            if kind == _OBJECT or (kind == _CLASS and token == 59):
                keys = np.int64(1)
            statement = token == 59 and kind <= _BODY
        elif token == 58:  # :
            operand = False
            chain = np.int64(0)
            if keys == 2 and kind == _OBJECT:
                keys = np.int64(0)
                # Keys that are no names say nothing: numbers and paths of modules, most of them.
                if key == PART_NAME and pattern == 0:
                    left = np.int64(1) if named == 0 else named
                    _part(parts, top, PART_NAME, left, key_start, key_length, key_line, key_column)
                    current = top
                    top += 1
                    committed = top
            else:
                ternaries = n_pending
                while ternaries > pend_base and pending[ternaries - 1, 0] != _TERNARY:
                    ternaries -= 1
                if ternaries > pend_base:
                    scope = _settle(pending, n_pending, ternaries, scopes, scope, end_line, end_column)
                    n_pending = ternaries - 1
                    current = np.int64(pending[n_pending, 1])
                else:
                    # A label, or a case.
                    current = named
                    statement = kind <= _BODY
        elif token == 63:  # ?
            if n_pending < len(pending):
                pending[n_pending, 0] = _TERNARY
                pending[n_pending, 1] = current
                n_pending += 1
            operand = False
            chain = np.int64(0)
        elif token == ASSIGN:
            if keys == 2:
                # A field of a class, or what a pattern takes where there is nothing.
                keys = np.int64(0)
                current = named
                if kind == _CLASS:
                    _part(parts, top, key, named, key_start, key_length, key_line, key_column)
                    current = top
                    top += 1
                    committed = top
            elif pattern == 1:
                current = np.int64(0)
            elif chain > 0:
                current = chain
                committed = top
            pattern = np.int64(2 if pattern else 0)
            operand = False
            chain = np.int64(0)
        elif token == ARROW:
            part = np.int64(0) if pattern == 1 else current
            if last == _CLOSED:
                _scope(scopes, n_scopes, closed_line, closed_column, part, 0, scope)
            else:
                _scope(scopes, n_scopes, name_line, name_column, part, 0, scope)
            at = i
            while text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9:
                at += 1
            if text[at] == 123:
                body = n_scopes
                body_after = np.int64(_TO_OPERAND)
                scope = n_scopes
                n_scopes += 1
            elif n_pending < len(pending):
                pending[n_pending, 0] = _ARROW_BODY
                pending[n_pending, 1] = current
                pending[n_pending, 2] = scope
                n_pending += 1
                scope = n_scopes
                n_scopes += 1
                current = np.int64(0)
            operand = False
            chain = np.int64(0)
        elif token == SPREAD:
            if keys != 0:
                keys = np.int64(0)
                current = named
            operand = False
            chain = np.int64(0)
        elif token != 42 or function == -2:  # A generator's * comes before its name.
            # ++ and -- leave what they stand behind an operand.
            operand = operand and token == INCREMENT
            chain = np.int64(0)

        control = control and token == NAME  # for await (...)
        if closing != 0 and too_deep > 0:
            too_deep -= 1
            operand = True
        elif closing != 0:
            lowest = _GROUP if closing == 41 else _ARRAY if closing == 93 else _BLOCK
            highest = _PARAMETERS if closing == 41 else _KEY if closing == 93 else _HOLE
            fits = lowest <= kind <= highest
            above = depth - 1
            while not fits and above >= 1 and depth - above <= _LOOK_BACK:
                fits = lowest <= levels[above, _KIND] <= highest
                above -= 1
            operand = True
            while fits:
                fits = not lowest <= kind <= highest
                if fits:
                    line_here = end_line
                    column_here = end_column
                else:
                    line_here = line
                    column_here = i - base
                scope = _settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
                n_pending = pend_base
                if own >= 0 and kind != _PARAMETERS:
                    scopes[own, FLAGS] |= 0 if fits else FLAG_BRACES
                    scope = _finish(scopes, scope, np.int64(scopes[own, PARENT]), line_here, column_here)
                else:
                    scope = _finish(scopes, scope, outer, end_line, end_column)
                closed = kind
                closed_own = own
                closed_after = after
                closed_line = open_line
                closed_column = open_column
                single = tokens - tokens_before == 2
                top = max(floor, committed)
                depth -= 1
                kind, named = np.int64(levels[depth, _KIND]), np.int64(levels[depth, _BASE])
                current, keys = np.int64(levels[depth, _CURRENT]), np.int64(levels[depth, _KEYS])
                chain, floor = np.int64(levels[depth, _CHAIN]), np.int64(levels[depth, _FLOOR])
                pend_base, own = np.int64(levels[depth, _PENDING]), np.int64(levels[depth, _OWN])
                outer, after = np.int64(levels[depth, _OUTER]), np.int64(levels[depth, _AFTER])
                pattern, modifiers = np.int64(levels[depth, _PATTERN]), np.int64(levels[depth, _MODIFIERS])
                from_line, from_column = np.int64(levels[depth, _FROM_LINE]), np.int64(levels[depth, _FROM_COLUMN])
                open_line, open_column = np.int64(levels[depth, _OPEN_LINE]), np.int64(levels[depth, _OPEN_COLUMN])
                tokens_before = np.int64(levels[depth, _TOKENS])
                body = np.int64(-2)
                if closed == _HOLE:
                    in_template = True
                elif closed == _KEY:
                    keys = np.int64(2)
                    key = np.int64(PART_COMPUTED)
                elif closed == _MEMBER:
                    if chain > 0:
                        part = (
                            last if single and PART_IN_NAME <= last < PART_IN_COMPUTED else np.int64(PART_IN_COMPUTED)
                        )
                        _part(parts, top, part, chain, last_start, last_length, last_line, last_column)
                        chain = top
                        top += 1
                    last = np.int64(0)
                elif closed == _PARAMETERS:
                    body = closed_own
                    body_after = closed_after
                elif closed == _CONTROL or (closed <= _CLASS and closed_after == _TO_STATEMENT):
                    operand = False
                    statement = True
                    current = named
                elif closed <= _CLASS and closed_after == _TO_MEMBER and kind == _CLASS:
                    operand = False
                    keys = np.int64(1)
                else:
                    last = np.int64(_CLOSED if closed == _GROUP or closed == _CALL else 0)
                if closed != _MEMBER:
                    chain = np.int64(0)
        elif opening >= 0 and depth >= len(levels):
            too_deep += 1
            operand = False
        elif opening >= 0:
            levels[depth, _KIND], levels[depth, _BASE] = kind, named
            levels[depth, _CURRENT], levels[depth, _KEYS] = current, keys
            levels[depth, _CHAIN], levels[depth, _FLOOR] = chain, floor
            levels[depth, _PENDING], levels[depth, _OWN] = pend_base, own
            levels[depth, _OUTER], levels[depth, _AFTER] = outer, after
            levels[depth, _PATTERN], levels[depth, _MODIFIERS] = pattern, modifiers
            levels[depth, _FROM_LINE], levels[depth, _FROM_COLUMN] = from_line, from_column
            levels[depth, _OPEN_LINE], levels[depth, _OPEN_COLUMN] = open_line, open_column
            levels[depth, _TOKENS] = tokens_before & 0x7FFF_FFFF
            depth += 1
            kind, keys, after = opening, new_keys, new_after
            named = current = new_named
            own, outer, pattern = new_own, scope, new_pattern
            pend_base = n_pending
            floor = max(top, committed)
            open_line, open_column = at_line, at_column
            if opening == _CALL and before == WORD_ASYNC and at_line == end_line:
                open_line, open_column = async_line, async_column
            tokens_before = tokens
            body = np.int64(-2)
            chain = np.int64(0)
            operand = False
            statement = opening <= _BODY
        end_line = line
        end_column = i - base

    _finish(scopes, scope, np.int64(-1), line, i - base)
    return top, n_scopes


@dataclass(slots=True)
class Scan:
    """What a scan finds: ``parts`` i32[p, 6] and ``scopes`` i32[s, 7], in the columns named above.

    Lines and columns are 0-based, columns in UTF-16 units. Part 0 is nothing; a part's LEFT and a scope's PARENT come
    before it, except that a function in an arrow function's parameters has what is around both as its PARENT.
    """

    parts: NDArray[np.int32]
    scopes: NDArray[np.int32]


def scan(text: NDArray[np.uint8]) -> Scan:
    """Find the functions of a script, u8 in UTF-8. Never fails; takes 24 bytes of memory for one of the text at most."""
    size = len(text)
    levels = np.empty((min(size, _MOST_LEVELS), _LEVEL_COLUMNS), np.int32)
    pending = np.empty((min(size, _MOST_PENDING), 4), np.int32)
    # A part is a character and what separates it from others; the shortest function is a=>b.
    parts = np.empty((size // 2 + 8, 6), np.int32)
    scopes = np.empty((size // 3 + 8, 7), np.int32)
    padded = np.zeros(size + PADDING, np.uint8)
    padded[:size] = text
    n_parts, n_scopes = _scan(padded, levels, pending, parts, scopes)
    return Scan(parts[:n_parts].copy(), scopes[:n_scopes].copy())
