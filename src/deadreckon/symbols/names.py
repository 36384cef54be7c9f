"""Readable names of functions, as demanglers and debug formats write them: their brackets, and what can be left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bracket", "brackets", "flatten", "strip_arguments"]

_OPERATOR = re.compile(r"\boperator(\(\)|\[\]|<=>|<<=|>>=|->\*|->|<<|>>|<=|>=|<|>)")
_OF_FUNCTIONS = re.compile(
    r"(?:(?:(?:non-)?transaction clone|(?:non-virtual |virtual |covariant return )thunk|invocation function for block)"
    r" (?:for|to|in) )+"
)
_OF_OTHERS = re.compile(
    r"(?:vtable|VTT|typeinfo(?: name| fn)?|guard variable|reference temporary #\d+|construction vtable|hidden alias"
    r"|TLS (?:init|wrapper) function|template parameter object) for "
)
_CLOSING = {")": "(", "]": "[", "}": "{", ">": "<", "'": "`"}


class Bracket(NamedTuple):
    """An outermost pair of brackets: where it opens, the index after its end, and its kind."""

    start: int
    end: int
    kind: str


def brackets(text: str) -> list[Bracket]:
    """Return the outermost bracket pairs of a readable name, in order, in one pass; Microsoft's quotes are some.

    The brackets of operator names and arrows are none. In template arguments ``<`` may be an operator too: it is one
    after a closing parenthesis, as demanglers write its operands, and one that finds no partner is dropped.
    """
    return list(_brackets(text))


def _brackets(text: str) -> Iterator[Bracket]:
    operators = {match.start(1): match.end(1) for match in _OPERATOR.finditer(text)}
    stack: list[int] = []
    at = 0
    length = len(text)
    while at < length:
        c = text[at]
        if at in operators:
            at = operators[at]
            if text[at : at + 1] == "<":  # Template arguments, which nothing else can be here.
                stack.append(at)
                at += 1
            continue
        before = text[at - 1] if stack else ""
        # A quote inside of Microsoft's has a space before it: `dynamic initializer for 'x''.
        if c in "([{`" or (c == "<" and before != ")") or (c == "'" and before == " " and text[stack[-1]] == "`"):
            stack.append(at)
        elif c in ")]}>'" and stack and not (c == ">" and before == "-"):
            opening = _CLOSING[c]
            if c not in ">'":
                while len(stack) > 1 and text[stack[-1]] == "<":
                    stack.pop()
            if text[stack[-1]] in {opening, c}:
                start = stack.pop()
                if not stack:
                    yield Bracket(start, at + 1, opening)
        at += 1


def flatten(text: str) -> str:
    """Return the name with every outermost bracket pair blotted out, of the same length: what a search may look at."""
    parts: list[str] = []
    at = 0
    for bracket in brackets(text):
        parts += (text[at : bracket.start], "\1" * (bracket.end - bracket.start))
        at = bracket.end
    return "".join((*parts, text[at:]))


def strip_arguments(text: str) -> str:
    """Return a readable name without its return type, parameter list, qualifiers, version and clone notes.

    Enclosing functions keep theirs: ``f(int)::{lambda()#1}::operator()() const`` gives
    ``f(int)::{lambda()#1}::operator()``. What is named after a type or a variable, as ``vtable for T``, stays whole,
    and so does a name with an arrow outside of its brackets: that is Swift's. Takes time linear in the text.
    """
    text = _without_notes(text)
    if _OF_OTHERS.match(text) or " -> " in flatten(text):
        return text
    special = _OF_FUNCTIONS.match(text)
    start = special.end() if special else 0
    head, text = text[:start], text[start:]
    for _ in range(8):  # Each round unwraps a function that returns a pointer or a reference to a function or an array.
        text = _without_qualifiers(text)
        found = brackets(text)
        inner = _declarator(text, found)
        if inner is None:
            last = found[-1] if found else None
            if last and last.kind == "(" and last.end == len(text) and not text.endswith("(anonymous namespace)"):
                text = text[: last.start]
            break
        text = inner
    return head + _without_return_type(text)


_VERSION = re.compile(r"@{1,2}[\w.]+$")
_QUALIFIERS = (" const", " volatile", " restrict", " noexcept", " &", " &&")


def _without_notes(text: str) -> str:
    text = _VERSION.sub("", text)
    # binutils writes [clone .cold], LLVM (.cold).
    for opening, closing in ((" [clone ", "]"), (" (.", ")")):
        while text.endswith(closing):
            at = text.rfind(opening)
            if at < 0 or text.find(closing, at) < len(text) - 1:
                break
            text = text[:at]
    return text


def _without_qualifiers(text: str) -> str:
    end = len(text)
    while text.endswith(_QUALIFIERS, 0, end):
        end = text.rfind(" ", 0, end)
    return text[:end]


_POINTER = re.compile(r"(?:[^()]*::)?[*&]+ ?(?:const )?")


def _declarator(text: str, found: list[Bracket]) -> str | None:
    """Return what stands inside of ``int (*...)(char)`` or ``int (&...) [2]``."""
    for bracket in found:
        if bracket.kind == "(" and (bracket.start == 0 or text[bracket.start - 1] == " "):
            inner = text[bracket.start + 1 : bracket.end - 1]
            if pointer := _POINTER.match(flatten(inner)):
                return inner[pointer.end() :] or None
    return None


_SCOPED_QUALIFIER = re.compile(r" (?:const|volatile|&&?)(?= |::)")
_SCOPE = re.compile(r"(?: const| volatile| &&?)*::")
_OPERATOR_WORD = re.compile(r"\boperator\b")


def _without_return_type(text: str) -> str:
    """Cut at the last space outside brackets that neither belongs to an operator nor to an enclosing method's const."""
    flat = flatten(text)
    operators = list(_OPERATOR_WORD.finditer(flat))
    # One with parameters and a scope after it names an enclosing function, maybe one of the return type's.
    if operators and not any(
        bracket.kind == "(" and bracket.start > operators[-1].start() and _SCOPE.match(text, bracket.end)
        for bracket in brackets(text)
    ):
        flat = flat[: operators[-1].start()]
    flat = _SCOPED_QUALIFIER.sub(lambda m: "\1" * len(m[0]), flat)
    return text[flat.rfind(" ") + 1 :]
