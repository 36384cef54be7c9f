"""JSON as crash reporters leave it: cut off, with a comma too many, nested as deep as a stack, several in one file.

Grammar: RFC 8259. What a strict parser takes is left to Python's own; the rest is read as far as it makes sense, since
half a report beats none. A writer that runs inside a crashed program dies in the middle of its report now and then.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from deadreckon.errors import LimitExceeded, Malformed

__all__ = [
    "MAX_BYTES",
    "MAX_VALUES",
    "Document",
    "as_address",
    "as_dict",
    "as_int",
    "as_list",
    "as_text",
    "decode_text",
    "parse",
    "parse_whole",
]

MAX_BYTES = 32 << 20
MAX_VALUES = 2_000_000
"""Members and elements of one document: three bytes of text make an object of sixty."""

_MAX_DEPTH = 20_000
_MAX_ODDITIES = 64
_MAX_TOKENS = 1_000_000
_MAX_DIGITS = 40

_decoder = json.JSONDecoder(strict=False)
_TOKEN = re.compile(r'[{}\[\],:]|"(?:[^"\\]++|\\.)*+"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[A-Za-z_]+', re.DOTALL)
_BLANK = re.compile(r"\s*")
_WORDS = {"true": True, "false": False}


class Document(NamedTuple):
    """One JSON value, where it ended, and what was wrong with it."""

    value: Any
    end: int
    problem: Malformed | None = None


def decode_text(data: bytes | memoryview, what: str) -> str:
    """Return a report as text, whatever its encoding; line ends become LF. Raises LimitExceeded."""
    if len(data) > MAX_BYTES:
        raise LimitExceeded("apple.max_bytes", MAX_BYTES, len(data), what)
    raw = bytes(data)
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        text = raw[: len(raw) & ~1].decode("utf-16", "replace")
    else:
        text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_whole(data: bytes | memoryview, what: str) -> Document:
    """Read a file that is one JSON document. Raises Malformed where there is nothing of one, and LimitExceeded."""
    text = decode_text(data, what)
    found = parse(text)
    if not isinstance(found.value, dict | list) or not found.value:
        raise Malformed(what, offset=found.end, expected="a JSON object", got=repr(text[:24]))
    return found


def parse(text: str, start: int = 0) -> Document:
    """Read the JSON value at ``start`` (an index into the text, as all offsets here). Raises LimitExceeded only."""
    values = sum(text.count(mark, start) for mark in ",[{")
    if values > MAX_VALUES:
        raise LimitExceeded("apple.max_values", MAX_VALUES, values, "JSON")
    start = _BLANK.match(text, start).end()  # type: ignore[union-attr]
    try:
        return Document(*_decoder.raw_decode(text, start))
    except (ValueError, RecursionError):
        return _Tolerant(text, start).read()


class _Tolerant:
    """A parser without recursion, which skips what it can't use and closes what is open at the end."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = start
        self.stack: list[dict[str, Any] | list[Any]] = []
        self.keys: list[str | None] = []
        self.root: Any = None
        self.problem: Malformed | None = None
        self.oddities = 0

    def read(self) -> Document:
        for _ in range(_MAX_TOKENS):
            if self.at >= len(self.text):
                break
            match = _TOKEN.match(self.text, self.at)
            if match is None:
                blank = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
                if blank > self.at:
                    self.at = blank
                    continue
                if not self._odd("a JSON token", self.text[self.at : self.at + 12]):
                    break
                # A string without its end swallows the rest of the text.
                self.at = len(self.text) if self.text[self.at] == '"' else self.at + 1
                continue
            position, self.at = self.at, match.end()
            if not self._take(match.group(), position):
                break
            if not self.stack and self.root is not None:
                return Document(self.root, self.at, self.problem)
        if self.stack:
            end = "the end of the text" if self.at >= len(self.text) else f"more than {_MAX_TOKENS} tokens"
            self._odd(f"the end of {len(self.stack)} open values", end)
        return Document(self.root, self.at, self.problem)

    def _take(self, token: str, position: int) -> bool:
        """Use one token; returns False when reading has to end."""
        first = token[0]
        if first in "{[":
            if len(self.stack) >= _MAX_DEPTH:
                self._odd(f"at most {_MAX_DEPTH} levels", "one more")
                return False
            value: Any = {} if first == "{" else []
            self._put(value)
            self.stack.append(value)
            self.keys.append(None)
            return True
        if first in "}]":
            return self._close(dict if first == "}" else list, position)
        if first in ",:":
            if first == "," and self.stack:
                self.keys[-1] = None  # A member whose value could not be used.
            return True
        if first == '"':
            return self._string(token, position)
        if first == "-" or first.isdigit():
            self._put(_number(token))
            return True
        if token in _WORDS or token in {"null", "NaN", "Infinity"}:
            self._put(_WORDS.get(token))
            return True
        return self._odd("a JSON value", token[:12], position)

    def _string(self, token: str, position: int) -> bool:
        try:
            text = _decoder.decode(token)
        except ValueError:
            text = token[1:-1]
            if not self._odd("a string's escapes", token[:12], position):
                return False
        if self.stack and isinstance(self.stack[-1], dict) and self.keys[-1] is None:
            self.keys[-1] = text
        else:
            self._put(text)
        return True

    def _close(self, kind: type, position: int) -> bool:
        """Close the innermost container of a kind, and what is open inside it."""
        if not any(isinstance(open_value, kind) for open_value in reversed(self.stack)):
            return self._odd("no closing bracket", self.text[position], position)
        while self.stack:
            closed = self.stack.pop()
            self.keys.pop()
            if isinstance(closed, kind):
                return True
            if not self._odd("another closing bracket", self.text[position], position):
                return False
        return True

    def _put(self, value: Any) -> None:
        if not self.stack:
            if self.root is None:
                self.root = value
            return
        top = self.stack[-1]
        if isinstance(top, list):
            top.append(value)
        elif (key := self.keys[-1]) is not None:
            top[key] = value
            self.keys[-1] = None

    def _odd(self, expected: str, got: str, position: int | None = None) -> bool:
        """Note the first oddity; returns False when there are too many for this to be JSON at all."""
        if self.problem is None:
            self.problem = Malformed(
                "JSON", offset=self.at if position is None else position, expected=expected, got=got
            )
        self.oddities += 1
        return self.oddities < _MAX_ODDITIES


def _number(token: str) -> int | float | None:
    if len(token) > _MAX_DIGITS:
        return None
    return float(token) if set(token) & set(".eE") else int(token)


def as_dict(value: Any) -> dict[str, Any]:
    """Return an object, {} for anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return an array, [] for anything else."""
    return value if isinstance(value, list) else []


def as_text(value: Any, limit: int = 65_536) -> str:
    """Return a string of at most ``limit`` characters without white space around it, "" for anything else."""
    if not isinstance(value, str):
        return ""
    text = value[:limit].strip()
    # JSON can spell half of a surrogate pair, which no UTF-8 can.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def as_int(value: Any) -> int | None:
    """Return a number of 64 bits, also one written as a decimal or hexadecimal string or as a float; else None."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        try:
            value = int(value, 16 if value.strip().lower().startswith("0x") else 10)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(1 << 63) <= value < 1 << 64 else None


def as_address(value: Any) -> int | None:
    """Return a number as an unsigned address of 64 bits, None for anything else."""
    number = as_int(value)
    return None if number is None else number & 0xFFFF_FFFF_FFFF_FFFF
