"""What generated code says of its source map: comments with a URL and ids (ECMA-426, "Linking generated code").

The specification looks at the end of the file only, and gives up at the first line that is no comment. Bundlers append
things there, so the last occurrence anywhere is the second best, and the result tells which it was.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

__all__ = ["Comments", "read", "wasm_url"]

_SEPARATOR = re.compile(rb"\xe2\x80[\xa8\xa9]")
_LINK = re.compile(rb"[@#]\s*sourceMappingURL=(\S*?)\s*", re.ASCII)
_ANYWHERE = re.compile(rb"/[/*][@#]\s*sourceMappingURL=([^\s'\"`*]+)")
_FIELD = re.compile(rb"\s*//[@#]\s*(debugId|chunkId|sourceURL)=(\S+)\s*", re.ASCII)
_IDS_WITHIN = 32
"""Lines from the end in which ids are looked for; Sentry looks at 5, PostHog at 32."""
_QUOTES = (b'"', b"'", b"`", b"*/")
_MAX_COMMENTS = 10_000
_MAX_LINE = 4096
_BLANK = b" \t\x0b\x0c\xa0"
_BLANKS = re.compile(rb"[ \t\x0b\x0c\xa0]*")


@dataclass(slots=True)
class Comments:
    """``map_url`` as it stands there; ``unambiguous`` where the specification's own walk found it."""

    map_url: str | None = None
    unambiguous: bool = False
    debug_id: str | None = None
    chunk_id: str | None = None
    source_url: str | None = None


def read(code: bytes | memoryview | mmap.mmap) -> Comments:
    """Return what the comments of generated JavaScript or CSS say; a URL may be a ``data:`` URL of any length."""
    data = bytes(code) if isinstance(code, memoryview) else code
    found = Comments(map_url=_by_walk(data))
    found.unambiguous = found.map_url is not None
    if found.map_url is None:
        found.map_url = _last(data)
    for start, end in islice(_lines_from_end(data), _IDS_WITHIN):
        match = _FIELD.fullmatch(data, start, end) if end - start <= _MAX_LINE else None
        if match is None:
            continue
        text = match[2].decode("utf-8", "replace")
        if match[1] == b"debugId":
            found.debug_id = found.debug_id or text
        elif match[1] == b"chunkId":
            found.chunk_id = found.chunk_id or text
        else:
            found.source_url = found.source_url or text
    return found


def _lines_from_end(data: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield where lines begin and end, the last one first, without looking at more of the file than that."""
    end = feed = len(data)
    while True:
        # Looked for once, however many lines end otherwise behind it.
        feed = data.rfind(b"\n", 0, end) if feed >= end else feed
        start = max(feed, data.rfind(b"\r", feed + 1, end)) + 1
        # Separators of three bytes are looked for in the line only: few files have any, nor their first byte.
        if data.rfind(b"\xe2", start, end) >= 0:
            breaks = deque(_SEPARATOR.finditer(data, start, end), _MAX_COMMENTS + 1)
            for found in reversed(breaks):
                yield found.end(), end
                end = found.start()
        yield start, end
        if start == 0:
            return
        end = start - 2 if data[start - 2 : start] == b"\r\n" else start - 1


def _by_walk(data: bytes | mmap.mmap) -> str | None:
    """Walk lines from the end while they are blank or a ``//`` comment (JavaScriptExtractSourceMapURL)."""
    for start, end in islice(_lines_from_end(data), _MAX_COMMENTS):
        begin = _BLANKS.match(data, start, end).end()  # type: ignore[union-attr]  # It matches nothing, too.
        if begin == end:
            continue
        if data[begin : min(end, begin + 2)] != b"//":
            return None
        text = data[begin:end].rstrip(_BLANK)
        if any(quote in text for quote in _QUOTES):
            return None
        match = _LINK.fullmatch(text, 2)
        if match is not None:
            return match[1].decode("utf-8", "replace")
    return None


def _last(data: bytes | mmap.mmap) -> str | None:
    at = len(data)
    while (at := data.rfind(b"sourceMappingURL=", 0, at)) >= 0:
        start = max(0, at - 16)
        begin = max(data.rfind(b"//", start, at), data.rfind(b"/*", start, at))
        if begin >= 0 and (match := _ANYWHERE.match(data, begin)) is not None and match.start(1) == at + 17:
            return match[1].decode("utf-8", "replace")
    return None


def wasm_url(module: bytes | memoryview) -> str | None:
    """Return the URL in a WebAssembly module's custom section ``sourceMappingURL``, None where there is none."""
    data = memoryview(module)
    if bytes(data[:4]) != b"\0asm":
        return None
    at = 8
    while at < len(data):
        kind = data[at]
        size, body = _leb(data, at + 1)
        at = body + size
        if size < 0 or at > len(data):
            return None
        if kind == 0:
            length, start = _leb(data, body)
            if bytes(data[start : start + length]) == b"sourceMappingURL" and start + length <= at:
                length, start = _leb(data, start + length)
                return bytes(data[start : start + length]).decode("utf-8", "replace") if start + length <= at else None
    return None


def _leb(data: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned LEB128 of 32 bits at most and where it ends; -1 where it is none."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return -1, at
