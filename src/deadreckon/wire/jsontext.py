"""JSON as crashed programs' clients write it, within bounds: RFC 8259 and what else comes along.

Beside JSON proper there are NaN and Infinity, lone surrogates, bytes that are no UTF-8, and integers of any length.
Objects in memory take far more room than the text that asks for them (three bytes make an empty object of sixty), so
what is counted before decoding is values, not only bytes.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, TypeVar

import msgspec

from deadreckon.errors import LimitExceeded, Malformed

__all__ = ["MAX_BYTES", "MAX_VALUES", "decode", "decode_as", "plain"]

T = TypeVar("T")

MAX_BYTES = 256 << 20
MAX_VALUES = 2_000_000
"""Members and elements of one document: some 300 MB of objects at worst."""

_LENIENT_DEPTH = 200
_BOM = b"\xef\xbb\xbf"
_POSITION = re.compile(r"\(byte (\d+)\)")
_SURROGATES = re.compile("[\ud800-\udfff]")


def decode(data: bytes | memoryview, what: str) -> Any:
    """Return the value of a whole document; ``what`` names it in errors.

    Raises Malformed, with the byte offset where the text stops being JSON, and LimitExceeded beyond MAX_BYTES,
    MAX_VALUES or a nesting that Python can't follow.
    """
    text = _bounded(data, what)
    try:
        return msgspec.json.decode(text)
    except RecursionError as e:
        raise LimitExceeded("json.max_depth", sys.getrecursionlimit(), what=what) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        return _lenient(text, what, str(e))


def decode_as(data: bytes | memoryview, what: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Return a document as a structure, None where it is of another shape or no JSON proper: see ``decode``.

    That takes half the time of what ``decode`` and a look at every value take. Raises LimitExceeded.
    """
    text = _bounded(data, what)
    try:
        return decoder.decode(text)
    except RecursionError as e:
        raise LimitExceeded("json.max_depth", sys.getrecursionlimit(), what=what) from e
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _bounded(data: bytes | memoryview, what: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise LimitExceeded("json.max_bytes", MAX_BYTES, len(data), what)
    text = bytes(data).removeprefix(_BOM)
    if len(text) > MAX_VALUES:  # A value takes a byte at least.
        values = sum(map(text.count, (b",", b"[", b"{")))
        if values > MAX_VALUES:
            raise LimitExceeded("json.max_values", MAX_VALUES, values, what)
    return text


def _lenient(text: bytes, what: str, problem: str) -> Any:
    try:
        return plain(json.loads(text.decode("utf-8", "replace")), _LENIENT_DEPTH)
    except RecursionError as e:
        raise LimitExceeded("json.max_depth", sys.getrecursionlimit(), what=what) from e
    except ValueError as e:  # Also what Python raises for an integer of more than 4,300 digits.
        told = _POSITION.search(problem)
        offset = int(told[1]) if told else len(text)
        got = f"{text[offset : offset + 16]!r}" if offset < len(text) else "its end"
        raise Malformed(what, offset=offset, expected="JSON", got=got) from e


def plain(value: Any, depth: int = 32) -> Any:
    """Return a decoded value as an event can hold it.

    Numbers that JSON has not are None, integers of more than 64 bits are text, halves of surrogate pairs are replaced,
    and what is nested deeper than ``depth`` is left out for ``"..."``.
    """
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, dict):
        return {plain(k): plain(v, depth - 1) for k, v in value.items()} if depth else "..."
    if isinstance(value, list):
        return [plain(v, depth - 1) for v in value] if depth else "..."
    return value
