"""Function names as Sentry's grouping of 2023 has them: without arguments, template arguments and what compilers add.

The steps and their order decide the hash, so they are Sentry's, with what is odd about them: of unbalanced brackets the
rest of the name goes, and a generic's name is kept only where a Rust ``<T as Trait>`` begins the name.
Specification: sentry's ``trim_function_name`` of 2023-02, held to its vectors by the tests.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from deadreckon.grouping.rules import family_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["split_tokens", "trim_function"]

_MAX_NAME = 8192
_MAX_DEPTH = 50
_PAIRS = {"(": ")", "{": "}", "[": "]", "<": ">"}

# Brackets that are no brackets are out of the way, as characters of the private use area, while brackets are counted.
_LESS, _CALL, _ARROW, _OPEN, _CLOSE = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
_NAMELESS = f"{_OPEN}anonymousnamespace{_CLOSE}"
_SPELLED = {
    "operator<<": f"operator{_LESS}{_LESS}",
    "operator<": f"operator{_LESS}",
    "operator()": f"operator{_CALL}",
    "operator->": f"operator{_ARROW}",
    " -> ": f" {_ARROW} ",
    "`anonymous namespace'": _NAMELESS,
}

_TRAILER = re.compile(r"(?:\bconst\b|&)$")
_LAMBDA = re.compile(r"\{lambda\(.*?\)#\d+\}|\blambda_[a-f0-9]{32}\b|\$_\d+\b")  # GCC's, MSVC's, Clang's.
_MSVC_NAMELESS = re.compile(r"\?A0x[a-f0-9]{8}::")
_BLANKET = re.compile(r"^[A-Z] as ")
_RUST_HASH = re.compile(r"::h[a-z0-9]{16}$")
_GLIBC = re.compile(r"@@?GLIBC_[0-9.]+$")
_DECORATED = re.compile(r"^@?(.*?)@[0-9]+$")


@lru_cache(maxsize=65_536)
def trim_function(name: str, platform: str | None) -> str:
    """Return a function's name as it is grouped by."""
    if platform == "csharp":  # Unity puts a space before the arguments, and never a return type.
        return name.split(" (", 1)[0]
    if family_of(platform) != "native" or name in {"<redacted>", "<unknown>"} or len(name) > _MAX_NAME:
        return name
    return _native(name, platform)


def _native(name: str, platform: str | None) -> str:
    text = name.strip()
    if text.startswith(("[", "+[", "-[")):  # Objective-C.
        return text
    text = _replace(text, "[", lambda inner, _: "" if inner.startswith("clone .") else f"[{inner}]").rstrip()
    while trailer := _TRAILER.search(text):
        text = text[: trailer.start()].rstrip()
    for spelled, safe in _SPELLED.items():
        text = text.replace(spelled, safe)
    if "lambda" in text or "$_" in text:
        text = _LAMBDA.sub("lambda", text)
    if "?A0x" in text:
        text = _MSVC_NAMELESS.sub(f"{_NAMELESS}::", text)
    text = _replace(text, "(", _arguments)
    text = _replace(text, "<", _generic(0))
    found = _token(split_tokens(text), text, platform)
    if not found:
        text = name
    else:
        text = found.replace(_LESS, "<").replace(_CALL, "()").replace(_ARROW, "->")
        text = text.replace(_NAMELESS, "`anonymous namespace'")
    if "::h" in text:
        text = _RUST_HASH.sub("", text)
    if "@GLIBC_" in text:
        text = _GLIBC.sub("", text)
    return _DECORATED.sub(r"\1", text) if "@" in text else text


def _token(tokens: list[str], text: str, platform: str | None) -> str:
    """Return the token that is the function: the one left of Swift's arrow, else the last."""
    if not tokens:
        return ""
    if len(tokens) > 1 and tokens[-1] == "<T>":  # MSVC: operator<< <T>
        tokens.pop()
        tokens[-1] += " <T>"
    token = tokens[-1]
    if _ARROW in tokens:
        arrow = len(tokens) - 1 - tokens[::-1].index(_ARROW)
        token = tokens[arrow - 1]
    if token.startswith("@") and platform in {"cocoa", "swift"}:  # A Swift attribute, so the function has no name.
        return "thunk for closure" if "thunk for " in text else "closure"
    return token


def _arguments(inner: str, _: int) -> str:
    inner = inner.strip()
    return f"({inner})" if inner in {"anonymous namespace", "operator"} else ""


def _generic(depth: int) -> Callable[[str, int], str]:
    def one(inner: str, start: int) -> str:
        if inner == "lambda" or _LAMBDA.match(inner):
            return f"<{inner}>"
        if start > 0 or depth >= _MAX_DEPTH:
            return "<T>"
        inner = _replace(_BLANKET.sub("", inner), "<", _generic(depth + 1))
        return inner.split(" as ", 1)[0]

    return one


def _replace(text: str, opening: str, put: Callable[[str, int], str]) -> str:
    """Replace what outermost brackets enclose, brackets and all; ``put`` gets the inside and where it began."""
    if opening not in text:
        return text
    closing = _PAIRS[opening]
    kept: list[str] = []
    depth = start = 0
    for at, c in enumerate(text):
        if c == opening:
            if depth == 0:
                start = at
            depth += 1
        elif c == closing:
            depth -= 1
            if depth == 0:
                kept.append(put(text[start + 1 : at], start))
        elif depth == 0:
            kept.append(c)
    return "".join(kept)


def split_tokens(text: str) -> list[str]:
    """Split at white space outside of brackets."""
    tokens: list[str] = []
    stack: list[str] = []
    token: list[str] = []
    end = 0
    for at, c in enumerate(text):
        if c in _PAIRS:
            stack.append(_PAIRS[c])
        elif stack and c == stack[-1]:
            stack.pop()
            if not stack:
                token.append(text[end : at + 1])
                end = at + 1
        elif not stack:
            if c.isspace():
                if token:
                    tokens.append("".join(token))
                token = []
            else:
                token.append(text[end : at + 1])
            end = at + 1
    if token:
        tokens.append("".join(token))
    return tokens
