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

from deadreckon.kernels import _scoping as s
from deadreckon.kernels import _tokens as t
from deadreckon.kernels import _words as w
from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scan", "scan"]

_MOST_OPEN = 1 << 16
_LOOK_BACK = 64
"""Brackets that one of another kind may close at once."""
_NONE = -2
"""No function is waited for; -1 is a constructor, which is a part of its class."""
_CLOSED = -1
"""In the place of an operand's part: it ended with a parenthesis."""

_I32_2D = array(types.int32, 2)


@kernel(types.UniTuple(types.int64, 2)(array(types.uint8, readonly=True), _I32_2D, _I32_2D, _I32_2D, _I32_2D))
def _scan(text, brackets, pending, parts, scopes):
    """Fill ``parts`` and ``scopes``; return how many there are. ``brackets`` and ``pending`` are room to work in."""
    i = line = base = np.int64(0)
    fuel = np.int64(len(text))
    n_scopes = np.int64(0)
    scope = np.int64(-1)  # The innermost one here.
    s.part(parts, 0, 0, 0, 0, 0, 0, 0)
    s.part(parts, 1, s.PART_OBJECT, 0, 0, 0, 0, 0)
    top = committed = np.int64(2)  # Parts: the next one's place, and up to where they are in use.
    depth = too_deep = n_pending = tokens = np.int64(0)
    for column in range(s.BRACKET_COLUMNS):
        brackets[0, column] = 0
    brackets[0, s.OWN] = brackets[0, s.OUTER] = -1

    chain = np.int64(0)  # The last part of a name or member expression that ends here.
    operand = False  # An operand ends here.
    statement = True  # A statement begins here.
    dot = False  # A property's name follows.
    control = False  # The parenthesis of a statement follows.
    in_template = False
    function = np.int64(_NONE)  # The function whose name or parameters follow.
    body = np.int64(_NONE)  # The function whose body follows,
    body_after = np.int64(0)  # and what comes after that.
    previous = np.int64(w.PLAIN)  # The word before this token.
    key = key_start = key_length = key_line = key_column = np.int64(0)
    last = last_start = last_length = last_line = last_column = np.int64(0)  # An operand of one token, as a part.
    name_line = name_column = async_line = async_column = async_declares = np.int64(0)
    closed_line = closed_column = np.int64(0)
    end_line = end_column = np.int64(0)  # Of the token before.

    while True:
        token, start, i, at_line, at_column, line, base, fuel = t.next_token(
            text, i, line, base, operand, in_template, fuel
        )
        if token == t.END:
            break
        tokens += 1
        kind = np.int64(brackets[depth, s.IS])
        keys = np.int64(brackets[depth, s.KEYS])
        what = np.int64(w.PLAIN)
        if token == t.NAME and not dot and keys == 0 and function == _NONE:
            what = np.int64(w.word(text, start, i))
        if at_line != end_line and operand and not dot and kind <= s.CLASS and keys == 0:
            begins = token == t.NAME or token == t.NUMBER or token == t.STRING or token == t.INCREMENT
            if begins and what != w.WORD_JOINS and what != w.WORD_EXTENDS and previous != w.WORD_CLASS:
                # A statement, or a member of a class, has ended without a semicolon.
                pend_base = np.int64(brackets[depth, s.PENDING])
                scope = s.settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
                n_pending = pend_base
                brackets[depth, s.CURRENT] = brackets[depth, s.VALUE]
                chain = np.int64(0)
                operand = False
                statement = kind != s.CLASS
                if kind == s.CLASS:
                    keys = np.int64(1)
                    what = np.int64(w.PLAIN)
        before = previous
        previous = what
        was_statement = statement
        statement = False
        opening = np.int64(-1)
        closing = np.int64(0)
        current = np.int64(brackets[depth, s.CURRENT])
        value = np.int64(brackets[depth, s.VALUE])
        inside = current  # What names a value in the bracket that opens here.
        holder = np.int64(-1)  # The function that it belongs to.
        after = np.int64(s.TO_STATEMENT)
        pattern = np.int64(0)

        if dot:
            dot = False
            if token == t.NAME:
                if chain > 0:
                    s.part(parts, top, s.PART_NAME, chain, start, i - start, at_line, at_column)
                    chain = top
                    top += 1
                operand = True
                last = np.int64(0)
                end_line = line
                end_column = i - base
                continue

        if keys != 0 and (token == t.NAME or token == t.NUMBER or token == t.STRING or token == 91 or token == 42):
            # What was taken for a key is a modifier where a key follows.
            flag = np.int64(-1)
            if keys == 2 and key == s.PART_NAME:
                flag = np.int64(s.modifier(text, key_start, key_length))
            if keys == 1 or (keys == 2 and flag < 0):
                brackets[depth, s.MEMBER_LINE] = at_line
                brackets[depth, s.MEMBER_COLUMN] = at_column
                brackets[depth, s.MODIFIERS] = 0
            elif keys == 2:
                brackets[depth, s.MODIFIERS] |= flag
            keys = np.int64(3 if token == 42 else 2)
            key = np.int64(s.PART_NAME if token == t.NAME else s.PART_STRING if token == t.STRING else s.PART_NUMBER)
            key_start = start
            key_length = i - start
            key_line = at_line
            key_column = at_column
            operand = True
            opening = np.int64(s.KEY if token == 91 else -1)
        elif token == t.NAME:
            if function != _NONE:
                # A function's own name takes the place of the last part of what it is assigned to.
                s.part(parts, top, s.PART_NAME, parts[current, s.LEFT], start, i - start, at_line, at_column)
                scopes[function, s.PART] = top
                top += 1
                committed = top
            elif before == w.WORD_CLASS and what != w.WORD_EXTENDS and n_pending > brackets[depth, s.PENDING]:
                s.part(parts, top, s.PART_NAME, current, start, i - start, at_line, at_column)
                scopes[pending[n_pending - 1, 1], s.PART] = top
                top += 1
                committed = top
            elif what == w.PLAIN or what == w.WORD_ASYNC or what == w.WORD_THIS or what >= w.WORD_GET:
                name_line = at_line
                name_column = at_column
                if before == w.WORD_ASYNC and at_line == end_line:
                    name_line = async_line
                    name_column = async_column
                if what == w.WORD_ASYNC:
                    async_line = at_line
                    async_column = at_column
                    async_declares = np.int64(was_statement or before == w.WORD_EXPORTS)
                top = max(np.int64(brackets[depth, s.FLOOR]), committed)
                is_this = what == w.WORD_THIS
                last = np.int64(s.PART_IN_COMPUTED if is_this else s.PART_IN_NAME)
                chain = top
                s.part(parts, top, s.PART_THIS if is_this else s.PART_NAME, 0, start, i - start, at_line, at_column)
                top += 1
                last_start = start
                last_length = i - start
                last_line = at_line
                last_column = at_column
                operand = True
            elif what == w.WORD_FUNCTION:
                declares = was_statement or before == w.WORD_EXPORTS
                if before == w.WORD_ASYNC and at_line == end_line:
                    declares = async_declares != 0
                    at_line = async_line
                    at_column = async_column
                function = n_scopes
                body_after = np.int64(s.TO_STATEMENT if declares else s.TO_OPERAND)
                s.begin(scopes, n_scopes, at_line, at_column, current, 0, scope)
                scope = n_scopes
                n_scopes += 1
                operand = False
                chain = np.int64(0)
            elif what == w.WORD_CLASS:
                if n_pending < len(pending):
                    declares = was_statement or before == w.WORD_EXPORTS
                    s.begin(scopes, n_scopes, at_line, at_column, current, s.FLAG_NEW, scope)
                    s.push(
                        pending, n_pending, s.CLASS_HEAD, n_scopes, scope, s.TO_STATEMENT if declares else s.TO_OPERAND
                    )
                    n_pending += 1
                    scope = n_scopes
                    n_scopes += 1
                operand = True
                chain = np.int64(0)
            elif what == w.WORD_SUPER or what == w.WORD_LITERAL:
                last = np.int64(s.PART_IN_LITERAL if what == w.WORD_LITERAL else s.PART_IN_COMPUTED)
                last_start = start
                last_length = i - start
                operand = True
                chain = np.int64(0)
            else:
                operand = False
                chain = np.int64(0)
                control = what == w.BEFORE_CONTROL or (control and what == w.OPERATOR_WORD)  # for await (...)
                statement = what == w.BEFORE_CONTROL or what == w.BEFORE_BODY
                current = value if statement and kind <= s.BODY else current
        elif token == t.NUMBER or token == t.STRING or token == t.REGEX or token == t.TEMPLATE_END:
            last = np.int64(s.PART_IN_COMPUTED)
            if token == t.NUMBER or token == t.STRING:
                last = np.int64(s.PART_IN_STRING if token == t.STRING else s.PART_IN_NUMBER)
            last_start = start
            last_length = i - start
            operand = True
            chain = np.int64(0)
            in_template = False
        elif token == t.TEMPLATE_HOLE:
            in_template = False
            opening = np.int64(s.HOLE)
        elif token == 46 or token == t.OPTIONAL:
            dot = True
            chain = chain if token == 46 else np.int64(0)
            operand = True
        elif token == 40:  # (
            if function != _NONE or keys == 2:
                opening = np.int64(s.PARAMETERS)
                if function == _NONE:
                    flags = np.int64(brackets[depth, s.MODIFIERS])
                    body_after = np.int64(s.TO_MEMBER)
                    function = np.int64(-1)
                    ends = key_start + key_length
                    keys = np.int64(0)
                    if kind != s.CLASS or flags != 0 or w.word(text, key_start, ends) != w.WORD_CONSTRUCTOR:
                        left = np.int64(1) if value == 0 and kind == s.OBJECT else value
                        s.part(parts, top, key, left, key_start, key_length, key_line, key_column)
                        s.begin(
                            scopes,
                            n_scopes,
                            brackets[depth, s.MEMBER_LINE],
                            brackets[depth, s.MEMBER_COLUMN],
                            top,
                            flags & (s.FLAG_GET | s.FLAG_SET),
                            scope,
                        )
                        top += 1
                        committed = top
                        function = n_scopes
                        scope = n_scopes
                        n_scopes += 1
                holder = function
                after = body_after
                inside = np.int64(0)
                pattern = np.int64(1)
                function = np.int64(_NONE)
            elif control:
                opening = np.int64(s.CONTROL)
                inside = np.int64(0)
            else:
                opening = np.int64(s.CALL if operand else s.GROUP)
        elif token == 91:  # [
            opening = np.int64(s.MEMBER if operand else s.ARRAY)
            pattern = np.int64(not operand and (brackets[depth, s.PATTERN] == 1 or before == w.WORD_DECLARES))
        elif token == 123:  # {
            if body != _NONE:
                opening = np.int64(s.BODY)
                holder = body
                after = body_after
                inside = np.int64(0)
                body = np.int64(_NONE)
            elif n_pending > brackets[depth, s.PENDING] and pending[n_pending - 1, 0] == s.CLASS_HEAD and operand:
                opening = np.int64(s.CLASS)
                n_pending -= 1
                holder = np.int64(pending[n_pending, 1])
                after = np.int64(pending[n_pending, 3])
                inside = np.int64(scopes[holder, s.PART])
            elif keys == 2 and kind == s.CLASS:  # static { ... }
                opening = np.int64(s.BLOCK)
                inside = value
                after = np.int64(s.TO_MEMBER)
            elif was_statement or operand:
                opening = np.int64(s.BLOCK)
            else:
                opening = np.int64(s.OBJECT)
                pattern = np.int64(brackets[depth, s.PATTERN] == 1 or before == w.WORD_DECLARES)
        elif token == 41 or token == 93 or token == 125:  # ) ] }
            closing = token
        elif token == 44 or token == 59:  # , ;
            pend_base = np.int64(brackets[depth, s.PENDING])
            scope = s.settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
            n_pending = pend_base
            current = value
            chain = np.int64(0)
            operand = False
            brackets[depth, s.PATTERN] = brackets[depth, s.PATTERN] != 0
            if kind == s.OBJECT or (kind == s.CLASS and token == 59):
                keys = np.int64(1)
            statement = token == 59 and kind <= s.BODY
        elif token == 58:  # :
            operand = False
            chain = np.int64(0)
            if keys == 2 and kind == s.OBJECT:
                keys = np.int64(0)
                # Keys that are no names say nothing: numbers and paths of modules, most of them.
                if key == s.PART_NAME and brackets[depth, s.PATTERN] == 0:
                    left = np.int64(1) if value == 0 else value
                    s.part(parts, top, s.PART_NAME, left, key_start, key_length, key_line, key_column)
                    current = top
                    top += 1
                    committed = top
            else:
                ternaries = n_pending
                while ternaries > brackets[depth, s.PENDING] and pending[ternaries - 1, 0] != s.TERNARY:
                    ternaries -= 1
                if ternaries > brackets[depth, s.PENDING]:
                    scope = s.settle(pending, n_pending, ternaries, scopes, scope, end_line, end_column)
                    n_pending = ternaries - 1
                    current = np.int64(pending[n_pending, 1])
                else:
                    # A label, or a case.
                    current = value
                    statement = kind <= s.BODY
        elif token == 63:  # ?
            if n_pending < len(pending):
                s.push(pending, n_pending, s.TERNARY, current, 0, 0)
                n_pending += 1
            operand = False
            chain = np.int64(0)
        elif token == t.ASSIGN:
            if keys == 2:
                # A field of a class, or what a pattern takes where there is nothing.
                keys = np.int64(0)
                current = value
                if kind == s.CLASS:
                    s.part(parts, top, key, value, key_start, key_length, key_line, key_column)
                    current = top
                    top += 1
                    committed = top
            elif brackets[depth, s.PATTERN] == 1:
                current = np.int64(0)
            elif chain > 0:
                current = chain
                committed = top
            brackets[depth, s.PATTERN] = 2 if brackets[depth, s.PATTERN] else 0
            operand = False
            chain = np.int64(0)
        elif token == t.ARROW:
            named = np.int64(0) if brackets[depth, s.PATTERN] == 1 else current
            from_line = closed_line if last == _CLOSED else name_line
            from_column = closed_column if last == _CLOSED else name_column
            s.begin(scopes, n_scopes, from_line, from_column, named, 0, scope)
            at = i
            while text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9:
                at += 1
            if text[at] == 123:
                body = n_scopes
                body_after = np.int64(s.TO_OPERAND)
                scope = n_scopes
                n_scopes += 1
            elif n_pending < len(pending):
                s.push(pending, n_pending, s.ARROW_BODY, current, scope, 0)
                n_pending += 1
                scope = n_scopes
                n_scopes += 1
                current = np.int64(0)
            operand = False
            chain = np.int64(0)
        elif token == t.SPREAD:
            if keys != 0:
                keys = np.int64(0)
                current = value
            operand = False
            chain = np.int64(0)
        elif token != 42 or function == _NONE:  # A generator's * comes before its name.
            # ++ and -- leave what they stand behind an operand.
            operand = operand and token == t.INCREMENT
            chain = np.int64(0)

        brackets[depth, s.KEYS] = keys
        brackets[depth, s.CURRENT] = current
        control = control and token == t.NAME
        if closing != 0 and too_deep > 0:
            too_deep -= 1
            operand = True
        elif closing != 0:
            lowest = s.GROUP if closing == 41 else s.ARRAY if closing == 93 else s.BLOCK
            highest = s.PARAMETERS if closing == 41 else s.KEY if closing == 93 else s.HOLE
            above = depth
            while above > 0 and depth - above <= _LOOK_BACK and not lowest <= brackets[above, s.IS] <= highest:
                above -= 1
            found = above > 0 and lowest <= brackets[above, s.IS] <= highest
            operand = found or closing != 125
            statement = not operand
            while found and depth >= above:
                matches = depth == above
                closed = np.int64(brackets[depth, s.IS])
                owner = np.int64(brackets[depth, s.OWN])
                pend_base = np.int64(brackets[depth, s.PENDING])
                scope = s.settle(pending, n_pending, pend_base, scopes, scope, end_line, end_column)
                n_pending = pend_base
                if owner >= 0 and closed != s.PARAMETERS:
                    scopes[owner, s.FLAGS] |= s.FLAG_BRACES if matches else 0
                    to_line = line if matches else end_line
                    to_column = i - base if matches else end_column
                    scope = s.finish(scopes, scope, np.int64(scopes[owner, s.PARENT]), to_line, to_column)
                else:
                    scope = s.finish(scopes, scope, np.int64(brackets[depth, s.OUTER]), end_line, end_column)
                closed_after = np.int64(brackets[depth, s.AFTER])
                closed_line = np.int64(brackets[depth, s.AT_LINE])
                closed_column = np.int64(brackets[depth, s.AT_COLUMN])
                single = tokens - np.int64(brackets[depth, s.TOKENS]) == 2
                chain = np.int64(brackets[depth, s.CHAIN])
                top = max(np.int64(brackets[depth, s.FLOOR]), committed)
                depth -= 1
                body = np.int64(_NONE)
                if closed == s.MEMBER:
                    if chain > 0:
                        known = single and s.PART_IN_NAME <= last < s.PART_IN_COMPUTED
                        how = last if known else np.int64(s.PART_IN_COMPUTED)
                        s.part(parts, top, how, chain, last_start, last_length, last_line, last_column)
                        chain = top
                        top += 1
                    last = np.int64(0)
                    continue
                chain = np.int64(0)
                if closed == s.HOLE:
                    in_template = True
                elif closed == s.KEY:
                    brackets[depth, s.KEYS] = 2
                    key = np.int64(s.PART_COMPUTED)
                elif closed == s.PARAMETERS:
                    body = owner
                    body_after = closed_after
                elif closed == s.CONTROL or (closed <= s.CLASS and closed_after == s.TO_STATEMENT):
                    operand = False
                    statement = True
                    brackets[depth, s.CURRENT] = brackets[depth, s.VALUE]
                elif closed <= s.CLASS and closed_after == s.TO_MEMBER and brackets[depth, s.IS] == s.CLASS:
                    operand = False
                    brackets[depth, s.KEYS] = 1
                else:
                    last = np.int64(_CLOSED if closed == s.GROUP or closed == s.CALL else 0)
        elif opening >= 0 and depth + 1 >= len(brackets):
            too_deep += 1
            operand = False
        elif opening >= 0:
            depth += 1
            brackets[depth, s.IS] = opening
            brackets[depth, s.VALUE] = brackets[depth, s.CURRENT] = inside
            brackets[depth, s.KEYS] = opening == s.OBJECT or opening == s.CLASS
            brackets[depth, s.CHAIN] = chain
            brackets[depth, s.FLOOR] = max(top, committed)
            brackets[depth, s.PENDING] = n_pending
            brackets[depth, s.OWN] = holder
            brackets[depth, s.OUTER] = scope
            brackets[depth, s.AFTER] = after
            brackets[depth, s.PATTERN] = pattern
            in_async = opening == s.CALL and before == w.WORD_ASYNC and at_line == end_line
            brackets[depth, s.AT_LINE] = async_line if in_async else at_line
            brackets[depth, s.AT_COLUMN] = async_column if in_async else at_column
            brackets[depth, s.TOKENS] = tokens & 0x7FFF_FFFF
            body = np.int64(_NONE)
            chain = np.int64(0)
            operand = False
            statement = opening <= s.BODY
        end_line = line
        end_column = i - base

    s.finish(scopes, scope, np.int64(-1), end_line, end_column)
    return top, n_scopes


@dataclass(slots=True)
class Scan:
    """What a scan finds: ``parts`` i32[p, 6] and ``scopes`` i32[s, 7], in the columns of _scoping.py.

    Lines and columns are 0-based, columns in UTF-16 units. Part 0 is nothing; a part's LEFT and a scope's PARENT come
    before it, except that a function in an arrow function's parameters has what is around both as its PARENT.
    """

    parts: NDArray[np.int32]
    scopes: NDArray[np.int32]


def scan(text: NDArray[np.uint8]) -> Scan:
    """Find the functions of a script, u8 in UTF-8. Never fails; works in some 25 bytes for each one of the text."""
    size, padded = len(text), np.concatenate([text, np.zeros(t.PADDING, np.uint8)])
    brackets = np.empty((min(size, _MOST_OPEN) + 1, s.BRACKET_COLUMNS), np.int32)
    pending = np.empty((min(size, _MOST_OPEN), 4), np.int32)
    # A part is a character and what separates it from others; the shortest function is a=>b.
    parts = np.empty((size // 2 + 8, 6), np.int32)
    scopes = np.empty((size // 3 + 8, 7), np.int32)
    n_parts, n_scopes = _scan(padded, brackets, pending, parts, scopes)
    parts.resize((n_parts, 6), refcheck=False)  # In place: a copy costs a quarter of the scan.
    scopes.resize((n_scopes, 7), refcheck=False)
    return Scan(parts, scopes)
