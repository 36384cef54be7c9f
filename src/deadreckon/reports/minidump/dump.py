"""Dump: checked reads at offsets of a minidump ("RVA" in its headers), and the directory of its streams."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.event import Diagnostic
from deadreckon.reports.minidump.layouts import (
    MINIDUMP_DIRECTORY,
    MINIDUMP_HEADER,
    MINIDUMP_SIGNATURE,
    MINIDUMP_VERSION,
    STREAM_NAMES,
    StreamType,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

    from numpy.typing import NDArray

    from deadreckon.config import ReportLimits

__all__ = ["Dump", "Stream"]

_MAX_TEXT = 64 << 20
_U32 = Struct("<I")


class Stream(NamedTuple):
    """A stream that lies within the file: ``rva`` and ``size`` are in bytes."""

    name: str
    rva: int
    size: int


class Dump:
    """The bytes of one dump. Every read checks its bounds and raises Malformed; nothing is copied but text."""

    __slots__ = ("buffer", "diagnostics", "limits", "size", "streams", "text_left", "time_date_stamp", "view")

    def __init__(self, data: bytes | memoryview | mmap, limits: ReportLimits) -> None:
        """Read header and directory; raises Malformed where one of them can't be read."""
        view = memoryview(data)
        self.view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        self.size = len(self.view)
        self.limits = limits
        self.diagnostics: list[Diagnostic] = []
        self.text_left = min(self.size, _MAX_TEXT)
        """Bytes of text that may still be decoded. Strings of an honest dump don't overlap, so together they are
        never larger than it; without the bound 16,000 names at one long string would be 1 GB of them."""
        if self.size < MINIDUMP_HEADER.size:
            raise Malformed("minidump header", offset=0, expected=MINIDUMP_HEADER.size, got=self.size)
        self.buffer: NDArray[np.uint8] = np.frombuffer(self.view, np.uint8)
        signature, version, count, directory, _, self.time_date_stamp, _ = MINIDUMP_HEADER.unpack_from(self.view)
        if signature != MINIDUMP_SIGNATURE:
            raise Malformed("minidump signature", offset=0, expected=MINIDUMP_SIGNATURE, got=signature)
        if version & 0xFFFF != MINIDUMP_VERSION:
            raise Malformed("minidump version", offset=4, expected=hex(MINIDUMP_VERSION), got=hex(version & 0xFFFF))
        self.streams = self._directory(directory, count)

    def _directory(self, rva: int, count: int) -> dict[int, Stream]:
        """Read the directory. An entry outside the file costs its stream; of two with one type the last counts.

        Of a directory that the file's end cuts, what is there counts; raises Malformed where that is nothing.
        """
        there = max(self.size - rva, 0) // MINIDUMP_DIRECTORY.size
        if not there:
            raise Malformed("stream directory", offset=rva, expected=f"{count} entries", got="0")
        if count > self.limits.max_streams:
            self.note("limit_exceeded", f"{count} streams, max_streams is {self.limits.max_streams}")
            count = self.limits.max_streams
        if count > there:
            where: dict[str, str | int] = {"offset": rva, "expected": count, "got": there}
            self.note("truncated", f"the file ends after {there} of {count} directory entries", where)
            count = there
        entries = self.span("stream directory", rva, count * MINIDUMP_DIRECTORY.size)
        found: dict[int, Stream] = {}
        for stream_type, size, start in MINIDUMP_DIRECTORY.iter_unpack(entries):
            if stream_type == StreamType.UnusedStream:
                continue
            name = STREAM_NAMES.get(stream_type) or hex(stream_type)
            if start + size > self.size:
                self.note(
                    "stream_malformed",
                    f"{name} is outside the file",
                    {"stream": name, "offset": start, "expected": size, "got": max(self.size - start, 0)},
                )
                continue
            if stream_type in found:
                self.note(
                    "stream_duplicate",
                    f"two streams {name}, the last one counts",
                    {"stream": name, "offset": start},
                    severity="info",
                )
            found[stream_type] = Stream(name, start, size)
        return found

    def note(
        self,
        code: str,
        message: str,
        where: dict[str, str | int] | None = None,
        *,
        severity: Any = "warning",
    ) -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(code=code, severity=severity, stage="read", message=message, where=where))

    def span(self, what: str, rva: int, size: int) -> memoryview:
        """Return ``size`` bytes at ``rva``; raises Malformed where the file does not hold them."""
        if not 0 <= rva <= self.size - size:
            raise Malformed(what, offset=rva, expected=f"{size} bytes", got=f"{max(self.size - rva, 0)} bytes")
        return self.view[rva : rva + size]

    def unpack(self, what: str, layout: Struct, rva: int, size: int | None = None) -> tuple[Any, ...]:
        """Read one structure; ``size`` is what its stream or descriptor gives it, if known."""
        if size is not None and size < layout.size:
            raise Malformed(what, offset=rva, expected=f"{layout.size} bytes", got=f"{size} bytes")
        if rva > self.size - layout.size:
            raise Malformed(what, offset=rva, expected=f"{layout.size} bytes", got=f"{max(self.size - rva, 0)} bytes")
        return layout.unpack_from(self.view, rva)

    def records(self, what: str, layout: np.dtype[np.void], rva: int, count: int) -> NDArray[np.void]:
        """View ``count`` records at ``rva``; a count larger than the file can hold raises, and allocates nothing."""
        if rva + count * layout.itemsize > self.size:
            raise Malformed(
                what,
                offset=rva,
                expected=f"{count} records of {layout.itemsize} bytes",
                got=f"{max(self.size - rva, 0)} bytes",
            )
        return np.frombuffer(self.view, layout, count, rva)

    def counted_list(self, stream: Stream, layout: np.dtype[np.void], limit: int) -> NDArray[np.void]:
        """View the records of a list stream: a u32 count, then the records, then maybe padding.

        Breakpad on macOS pads the count to 8 bytes, so that records start at 4 or at 8: crash_macos.dmp, and
        test_count_padded. Which of them it is, only the stream's size tells.
        """
        count = self.count(stream, stream.rva, 4)
        total = count * layout.itemsize
        start = 8 if stream.size == 8 + total else 4
        if stream.size < start + total:
            raise Malformed(
                stream.name,
                offset=stream.rva,
                expected=f"{count} records of {layout.itemsize} bytes",
                got=f"{stream.size} bytes",
            )
        return self.records(stream.name, layout, stream.rva + start, self.within(stream.name, count, limit))

    def sized_list(self, stream: Stream, header: Struct, layout: np.dtype[np.void], limit: int) -> NDArray[np.void]:
        """View the records of a list that declares the sizes of its own header and entries.

        An entry may be longer than the structure known here (a later version's), never shorter.
        """
        header_size, entry_size, count = self.unpack(stream.name, header, stream.rva, stream.size)
        fits = header_size >= header.size and header_size + count * entry_size <= stream.size
        if not fits or (count and entry_size < layout.itemsize):
            raise Malformed(
                stream.name,
                offset=stream.rva,
                expected=f"{count} entries of {entry_size} bytes after {header_size}",
                got=f"{stream.size} bytes",
            )
        count = self.within(stream.name, count, limit)
        first = stream.rva + header_size
        raw = self.buffer[first : first + count * entry_size].reshape(count, entry_size)
        return raw[:, : layout.itemsize].view(layout)[:, 0] if count else np.zeros(0, layout)

    def count(self, stream: Stream, rva: int, size: int) -> int:
        """Read an unsigned number of ``size`` bytes in a stream."""
        if stream.size < size:
            raise Malformed(stream.name, offset=rva, expected=f"{size} bytes", got=f"{stream.size} bytes")
        return int.from_bytes(self.view[rva : rva + size], "little")

    def within(self, what: str, count: int, limit: int) -> int:
        """Return the count, cut to the limit with a diagnostic."""
        if count > limit:
            self.note("limit_exceeded", f"{what}: {count} records, the limit is {limit}", {"stream": what})
            return limit
        return count

    def taken(self, rva: int, size: int) -> bytes:
        """Copy ``size`` bytes at ``rva``; they count as text."""
        left = min(self.text_left, self.size - rva)
        if size > left:
            raise Malformed("text", offset=rva, expected=f"{size} bytes", got=f"{max(left, 0)} bytes")
        self.text_left -= size
        return self.view[rva : rva + size].tobytes()

    def text(self, rva: int, size: int, encoding: str) -> str:
        """Decode ``size`` bytes at ``rva``, cut to ``max_string_bytes``; what can't be decoded becomes U+FFFD."""
        return self.taken(rva, min(size, self.limits.max_string_bytes)).decode(encoding, "replace")

    def string(self, rva: int) -> str:
        """Read a MINIDUMP_STRING: a u32 length in bytes, then UTF-16."""
        return self._counted(rva, "utf-16-le")

    def utf8(self, rva: int) -> str:
        """Read a MinidumpUTF8String: a u32 length in bytes, then UTF-8."""
        return self._counted(rva, "utf-8")

    def _counted(self, rva: int, encoding: str) -> str:
        if rva > self.size - 4:
            raise Malformed("string", offset=rva, expected="4 bytes", got=f"{max(self.size - rva, 0)} bytes")
        (length,) = _U32.unpack_from(self.view, rva)
        if length > self.size - rva - 4:
            raise Malformed("string", offset=rva, expected=f"{length} bytes", got=f"{self.size - rva - 4} bytes")
        text = self.text(rva + 4, length, encoding)
        return text.partition("\0")[0] if "\0" in text else text

    def attempt(self, name: str, read: Callable[[], None]) -> None:
        """Run one section's reader; what it raises becomes a diagnostic, and the rest goes on."""
        try:
            read()
        except Malformed as e:
            self.note("stream_malformed", str(e), {"stream": name, **e.where()})
