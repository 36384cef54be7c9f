"""An input as the registry looks at it: enough of its content to tell its format, found once and on demand."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from deadreckon.reports.textkind import kind_of
from deadreckon.wire import jsontext

if TYPE_CHECKING:
    import mmap

__all__ = ["HEAD_BYTES", "TEXT_BYTES", "Probe", "members_of"]

HEAD_BYTES = 4096
TEXT_BYTES = 256 << 10
_JSON_BYTES = 256 << 20
"""A document beyond that is no report; its keys are not looked at."""
_LINE_BYTES = 1 << 20
_TELLING_BYTES = 512

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BOM = b"\xef\xbb\xbf"


class Probe:
    """Lazily read views of an input; ``data`` is any buffer, usually a mapped file, ``name`` a hint at most."""

    def __init__(self, data: bytes | memoryview | mmap.mmap, name: str | None = None) -> None:
        self.data = data
        self.name = name or ""

    @cached_property
    def head(self) -> bytes:
        """The first HEAD_BYTES."""
        return bytes(self.data[:HEAD_BYTES])

    @cached_property
    def text(self) -> str:
        """The first TEXT_BYTES as text, "" where they are none: an early NUL byte tells.

        UTF-16 is recognised by its byte order mark (Windows tools write logs so).
        """
        start = bytes(self.data[:TEXT_BYTES])
        if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            return start[: len(start) & ~1].decode("utf-16", "replace")
        return "" if b"\0" in start[:_TELLING_BYTES] else start.removeprefix(_BOM).decode("utf-8", "replace")

    @cached_property
    def log(self) -> str | None:
        """The kind of crash log that ``text`` is; see textkind.py."""
        return kind_of(self.text)

    @cached_property
    def json(self) -> dict[str, msgspec.Raw]:
        """The top-level members of a JSON object that is the whole input, their values undecoded; {} for others."""
        if self.head.removeprefix(_BOM).lstrip()[:1] != b"{" or len(self.data) > _JSON_BYTES:
            return {}
        text = bytes(self.data)
        many = len(text) > jsontext.MAX_VALUES and text.count(b",") > jsontext.MAX_VALUES
        return {} if many else _members(text)

    @cached_property
    def first_line(self) -> dict[str, msgspec.Raw]:
        """The members of a JSON object that is the first line, where more lines follow; {} for others."""
        start = bytes(self.data[:_LINE_BYTES])
        line, newline, _ = start.removeprefix(_BOM).lstrip(b"\r\n").partition(b"\n")
        return _members(line) if newline and line[:1] == b"{" else {}


def members_of(value: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a member that is an object, {} for others."""
    text = bytes(value)
    return _members(text) if text.lstrip()[:1] == b"{" else {}


def _members(text: bytes) -> dict[str, msgspec.Raw]:
    text = text.removeprefix(_BOM)
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Clients send NaN and lone surrogates, which JSON has not and Python's own decoder takes.
    try:
        found = json.loads(text)
        return {key: msgspec.Raw(json.dumps(value).encode()) for key, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}
