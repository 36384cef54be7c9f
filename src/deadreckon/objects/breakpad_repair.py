"""Breakpad symbol files that a strict reader refuses: what can be kept, in today's syntax.

One malformed record costs a strict reader the whole file; Breakpad's own processor goes on to the next. Files written
before call sites had a file of their own (Breakpad revision of 2022) use other INLINE and INLINE_ORIGIN records. Here
good stretches of a file are passed on as they are; only the lines between them are looked at one by one. Source:
Breakpad ``docs/symbol_files.md`` and its revision of 2021 for the old syntax::

    INLINE_ORIGIN id file name          INLINE depth line origin [address size]+             old
    INLINE_ORIGIN id name               INLINE depth line file origin [address size]+        new
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

__all__ = ["repair"]

_MAX_PROBLEMS = 16
_MAX_LINES = 256
"""Records of one function looked at to find in which file a call stands."""
_BLOCK = 1 << 20

_HEX = rb"[0-9a-fA-F]{1,16}"
_DEC = rb"\d{1,10}"
_TEXT = rb"[^\n\x80-\xff]*+"  # A line with other bytes is looked at: it may not be UTF-8.
_RECORD = (
    rb"(?:%(h)b +%(h)b +-?%(d)b +%(d)b *"
    rb"|FUNC +(?:m +)?%(h)b +%(h)b +%(h)b(?: %(t)b)?"
    rb"|INLINE +%(d)b +%(d)b +%(d)b +%(d)b(?: +%(h)b +%(h)b)++ *"
    rb"|INLINE_ORIGIN +%(d)b +%(t)b"
    rb"|(?:PUBLIC|FILE|INFO|STACK)(?: %(t)b)?"
    rb"|)\r?" % {b"h": _HEX, b"d": _DEC, b"t": _TEXT}
)
_GOOD = re.compile(_RECORD)
_ODD = re.compile(rb"^(?!%b$).*+$" % _RECORD, re.MULTILINE)
_ODD_OR_ORIGIN = re.compile(rb"^(?!(?!INLINE_ORIGIN )%b$).*+$" % _RECORD, re.MULTILINE)
_HEAD = re.compile(rb"^(?:FUNC|PUBLIC|FILE|INFO|STACK|MODULE|INLINE_ORIGIN)\b", re.MULTILINE)
_FUNC = re.compile(rb"^FUNC ", re.MULTILINE)
_LINE = re.compile(rb"^(%b) +(%b) +-?%b +(%b) *\r?$" % (_HEX, _HEX, _DEC, _DEC), re.MULTILINE)
_INLINE = re.compile(rb"^INLINE +%b.*$" % _DEC, re.MULTILINE)
_OLD_INLINE = re.compile(rb"INLINE +(%b) +(%b) +(%b)((?: +%b +%b)+) *" % (_DEC, _DEC, _DEC, _HEX, _HEX))
_OLD_ORIGIN = re.compile(rb"^INLINE_ORIGIN +(%b) +(%b)(?: +(.*))?$" % (_DEC, _DEC), re.MULTILINE)

_EXPECTED = (
    (b"FUNC", "FUNC [m] address size parameters name"),
    (b"INLINE_ORIGIN", "INLINE_ORIGIN id name"),
    (b"INLINE", "INLINE depth line file origin [address size]+"),
    (b"MODULE", "one MODULE record, at the start; the rest was left out"),
)
_NO_FILE = b"4294967295"
"""The number of a file that no FILE record has; its lines have no file then."""


@dataclass(slots=True)
class _Problems:
    """Messages, one a line of the file that was lost; of too many only their number is kept."""

    data: bytes | mmap.mmap
    kept: list[str] = field(default_factory=list)
    more: int = 0
    line: int = 1
    at: int = 0

    def add(self, at: int, message: str) -> None:
        if len(self.kept) == _MAX_PROBLEMS:
            self.more += 1
            return
        for start in range(self.at, at, _BLOCK):
            self.line += self.data[start : min(start + _BLOCK, at)].count(b"\n")
        self.at = at
        self.kept.append(f"line {self.line}: {message}")

    def messages(self) -> list[str]:
        return [*self.kept, *([f"{self.more} more malformed lines"] if self.more else [])]


def repair(data: bytes | mmap.mmap, write: Callable[[bytes | memoryview], object]) -> list[str]:
    """Write what of a symbol file can be kept, in today's syntax; return one message for each line that can't.

    A FUNC record that is dropped takes its lines and inlined calls with it: they would pass for those of the function
    before. A call site in the old syntax has no file; it is the one in which the calling function's code lies. Memory
    does not grow with the file, except by the INLINE_ORIGIN records of the old syntax.
    """
    problems = _Problems(data)
    first = _INLINE.search(data)
    # Four numbers before the address and size pairs, or three: the count of words tells.
    old = first is not None and len(first[0].split()) % 2 == 0
    origins = {m[1]: m[2] for m in _OLD_ORIGIN.finditer(data)} if old else {}
    calls = _Calls(data, origins)
    owner = _FUNC.search(data)
    if orphan := _LINE.search(data, 0, owner.start() if owner else len(data)):
        problems.add(orphan.start(), "lines that belong to no FUNC")
    written = 0
    with memoryview(data) as view:
        for odd in (_ODD_OR_ORIGIN if old else _ODD).finditer(data):
            if odd.start() < written:
                continue  # In the body of a FUNC that was dropped.
            _copy(view, written, odd.start(), write)
            written = odd.end()
            line = odd[0].removesuffix(b"\r")
            ending = odd[0][len(line) :]
            if line.startswith(b"MODULE ") and odd.start() == 0:
                write(odd[0])
                continue
            kept = _translated(line, odd.start(), calls) if old else None
            if kept is None:
                kept = _cleaned(line)
                if kept is None or kept != line:
                    problems.add(odd.start(), _reason(line, lost=kept is None))
            if kept is not None:
                write(kept + ending)
            elif line.startswith(b"MODULE "):
                written = len(data)  # Another module's file was appended to this one.
            elif line.startswith(b"FUNC"):
                following = _HEAD.search(data, min(odd.end() + 1, len(data)))
                written = following.start() if following else len(data)
        _copy(view, written, len(view), write)
    return problems.messages()


def _copy(view: memoryview, start: int, end: int, write: Callable[[bytes | memoryview], object]) -> None:
    for at in range(start, end, _BLOCK):
        with view[at : min(at + _BLOCK, end)] as block:
            write(block)


def _cleaned(line: bytes) -> bytes | None:
    """Return a line as a strict reader takes it, None where it is no record."""
    text = line.decode("utf-8", "replace").encode()
    if _GOOD.fullmatch(text.decode().encode("ascii", "replace")):
        return text
    # White space of other kinds, or too much of it.
    spaced = b" ".join(text.split())
    return spaced if _GOOD.fullmatch(spaced.decode().encode("ascii", "replace")) else None


def _reason(line: bytes, *, lost: bool) -> str:
    if not lost:
        return "bytes that are not UTF-8, or white space other than single blanks"
    known = next((text for keyword, text in _EXPECTED if line.startswith(keyword)), None)
    number = line[:1] in b"0123456789abcdefABCDEF"
    expected = known or ("address size line file" if number else "a record of a known kind")
    return f"expected {expected}, got {line[:40].decode('utf-8', 'replace')!r}"


def _translated(line: bytes, at: int, calls: _Calls) -> bytes | None:
    """Return a record of the old syntax in the new one, None for any other line."""
    if origin := _OLD_ORIGIN.fullmatch(line):
        name = (origin[3] or b"").decode("utf-8", "replace").encode()
        return b"INLINE_ORIGIN %b %b" % (origin[1], name)
    if inline := _OLD_INLINE.fullmatch(line):
        depth, call_line, origin_id, ranges = inline.groups()
        file = calls.file(at, int(depth), int(ranges.split()[0], 16))
        calls.add(int(depth), origin_id, ranges)
        return b"INLINE %b %b %b %b%b" % (depth, call_line, file, origin_id, ranges)
    return None


@dataclass(slots=True)
class _Calls:
    """The inlined calls of the function being read, to tell in whose code, and so in which file, a call stands."""

    data: bytes | mmap.mmap
    origins: dict[bytes, bytes]
    open: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    body: tuple[int, int] = (0, 0)
    own_file: bytes = _NO_FILE

    def add(self, depth: int, origin: bytes, ranges: bytes) -> None:
        numbers = [int(word, 16) for word in ranges.split()]
        spans = self.open.setdefault(depth, [])
        spans.extend((start, start + size, origin) for start, size in zip(numbers[::2], numbers[1::2], strict=True))

    def file(self, at: int, depth: int, address: int) -> bytes:
        """Return the file of a call at ``depth`` whose inlined code holds ``address``; the record stands at ``at``."""
        if not self.body[0] <= at < self.body[1]:
            self._enter(at)
        if depth == 0:
            return self.own_file
        for start, end, origin in reversed(self.open.get(depth - 1, [])[-_MAX_LINES:]):
            if start <= address < end:
                return self.origins.get(origin, _NO_FILE)
        return _NO_FILE

    def _enter(self, at: int) -> None:
        """Start a function: its own code is in the file of its first line that belongs to no inlined call."""
        following = _HEAD.search(self.data, at)
        self.body = (at, following.start() if following else len(self.data))
        self.open.clear()
        inlined = list(islice(self._outermost_calls(), _MAX_LINES))
        self.own_file = _NO_FILE
        for line in islice(_LINE.finditer(self.data, *self.body), _MAX_LINES):
            address = int(line[1], 16)
            if not any(start <= address < end for start, end in inlined):
                self.own_file = line[3]
                break

    def _outermost_calls(self) -> Iterator[tuple[int, int]]:
        for record in islice(_INLINE.finditer(self.data, *self.body), _MAX_LINES):
            inline = _OLD_INLINE.fullmatch(record[0].removesuffix(b"\r"))
            if inline is not None and int(inline[1]) == 0:
                numbers = [int(word, 16) for word in inline[4].split()]
                for start, size in zip(numbers[::2], numbers[1::2], strict=True):
                    yield start, start + size
