r"""Glob patterns of rules, as Relay and the Rust crate globset match them.

``*`` stands for anything and ``?`` for one character; in patterns of paths neither crosses ``/``, and ``**`` as a whole
part of the path stands for any number of parts. ``[a-z]`` and ``[!a-z]`` are classes, ``{a,b}`` alternatives, and ``\``
takes the meaning of what follows. A pattern that is none (an open class, say) matches nothing.

Specification: the documentation of globset 0.4, "Syntax"; sentry-relay's ``is_glob_match``. A pattern and a value meet
as often as there are distinct symbols, so plain names and prefixes don't become regular expressions.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_PATTERN", "Test", "glob", "literal", "path_glob"]

MAX_PATTERN = 4096
"""Characters of a pattern."""
_MAX_DEPTH = 10

if TYPE_CHECKING:
    Test = Callable[[str], bool]


class _NoPatternError(ValueError):
    pass


@lru_cache(maxsize=8192)
def glob(pattern: str, *, ignore_case: bool = False) -> Test:
    """Return the test of a text against a pattern of which ``*`` crosses everything."""
    if not ignore_case:
        if (plain := literal(pattern)) is not None:
            return plain.__eq__
        if pattern.endswith("*") and (plain := literal(pattern[:-1])) is not None:
            return lambda text: text.startswith(plain)
    return _compiled(pattern, paths=False, ignore_case=ignore_case)


@lru_cache(maxsize=8192)
def path_glob(pattern: str, *, ignore_case: bool = False) -> Test:
    r"""Return the test of a path; ``\`` is ``/`` on both sides, and a relative path is tried as an absolute one too."""
    inner = _compiled(pattern.replace("\\", "/"), paths=True, ignore_case=ignore_case)

    def test(text: str) -> bool:
        text = text.replace("\\", "/")
        return inner(text) or (not text.startswith("/") and inner(f"/{text}"))

    return test


def literal(pattern: str) -> str | None:
    """Return the one text a pattern matches, None if it has more than one."""
    return pattern if not re.search(r"[*?\[\]{}\\]", pattern) else None


def _compiled(pattern: str, *, paths: bool, ignore_case: bool) -> Test:
    try:
        expression = _translate(pattern, paths=paths)
        found = re.compile(expression, re.DOTALL | (re.IGNORECASE | re.ASCII if ignore_case else re.NOFLAG)).fullmatch
    except (_NoPatternError, re.error):
        return lambda _: False
    return lambda text: found(text) is not None


class _Translator:
    """Turns a pattern into a regular expression, one element at a time.

    A star that crosses everything is written ``(?>.*?REST)`` with REST up to the next such star: the first place where
    REST fits is as good as any later one, so giving it up is never tried, and the time is linear in the text.
    """

    def __init__(self, pattern: str, *, paths: bool) -> None:
        self.pattern = pattern
        self.paths = paths
        self.at = 0
        self.one = "[^/]" if paths else "."

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def sequence(self, depth: int) -> str:
        """Read up to the end, or up to the ``,`` or ``}`` that ends an alternative."""
        out: list[str] = []
        first = True
        while self.at < len(self.pattern):
            c = self.pattern[self.at]
            if depth and c in ",}":
                break
            self.at += 1
            if c == "*":
                self.star(out, first=first, depth=depth)
            elif c == "?":
                out.append(self.one)
            elif c == "[":
                out.append(self.character_class())
            elif c == "{":
                out.append(self.alternatives(depth + 1))
            elif c == "}":
                raise _NoPatternError
            elif c == "\\":
                if self.at >= len(self.pattern):
                    raise _NoPatternError
                out.append(re.escape(self.pattern[self.at]))
                self.at += 1
            else:
                out.append(re.escape(c))
            first = False
        return _atomic(out) if not depth else "".join(out)

    def star(self, out: list[str], *, first: bool, depth: int) -> None:
        before = self.pattern[self.at - 2 : self.at - 1] if self.at >= 2 else ""
        if self.peek() != "*":
            self.push(out, f"{self.one}*")
            return
        self.at += 1
        after = self.peek()
        ended = not after or (depth > 0 and after in ",}")
        if first and not depth:
            if not after or after == "/":
                out.append("(?:/?|.*/)" if after else ".*")
                self.at += bool(after)
                return
        elif (before == "/" or (depth > 0 and before in ",{")) and (ended or after == "/"):
            if out and out[-1] == "/":
                out.pop()
            elif out and out[-1] in {"(?:/?|.*/)", "(?:/|/.*/)", "/.*"}:  # **/**: one of them says all.
                if ended and out[-1] != "/.*" and len(out) > 1:
                    out[-1] = "/.*"
                self.at += not ended
                return
            out.append("/.*" if ended else "(?:/|/.*/)")
            self.at += not ended
            return
        # Two stars that are no part of their own are two stars, which is one.
        self.push(out, f"{self.one}*")

    @staticmethod
    def push(out: list[str], star: str) -> None:
        if not out or out[-1] != star:
            out.append(star)

    def character_class(self) -> str:
        negated = self.peek() in {"!", "^"} and self.peek() != ""
        self.at += negated
        members: list[str] = []
        start = self.at
        while True:
            if self.at >= len(self.pattern):
                raise _NoPatternError
            c = self.pattern[self.at]
            if c == "]" and self.at > start:
                break
            members.append(c)
            self.at += 1
        self.at += 1
        return f"[{'^' if negated else ''}{_members(members)}]"

    def alternatives(self, depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise _NoPatternError
        found = [self.sequence(depth)]
        while self.peek() == ",":
            self.at += 1
            found.append(self.sequence(depth))
        if self.peek() != "}":
            raise _NoPatternError
        self.at += 1
        return f"(?:{'|'.join(found)})"


def _members(members: list[str]) -> str:
    out: list[str] = []
    at = 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == "-":
            if members[at] > members[at + 2]:
                raise _NoPatternError
            out.append(f"{_member(members[at])}-{_member(members[at + 2])}")
            at += 3
        else:
            out.append(_member(members[at]))
            at += 1
    return "".join(out)


def _member(c: str) -> str:
    return f"\\{c}" if c in r"\]^-[&~|" else c


def _atomic(parts: list[str]) -> str:
    """Join the parts of a whole pattern; what lies between two stars that cross everything is never tried twice."""
    groups: list[list[str]] = [[]]
    for part in parts:
        if part == ".*":
            groups.append([])
        else:
            groups[-1].append(part)
    if len(groups) == 1:
        return "".join(parts)
    head, *middle, tail = ("".join(g) for g in groups)
    if any("(?:" in m for m in middle):  # Of alternatives the first that fits may not be the one that ends first.
        return "".join(parts)
    return f"{head}{''.join(f'(?>.*?{m})' for m in middle if m)}.*{tail}"


def _translate(pattern: str, *, paths: bool) -> str:
    if len(pattern) > MAX_PATTERN:
        raise _NoPatternError
    return _Translator(pattern, paths=paths).sequence(0)
