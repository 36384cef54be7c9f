"""HandleDataStream, read with the ``minidump`` package, which has this stream right.

Specification: Microsoft ``minidumpapiset.h``, MINIDUMP_HANDLE_DATA_STREAM. The package believes every count and length
it reads, so that the counts are checked before it reads, and the lengths while it does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.reports.minidump import layouts

if TYPE_CHECKING:
    from deadreckon.reports.minidump.dump import Dump, Stream
    from deadreckon.reports.minidump.streams import Reading

__all__ = ["handle_data"]

_MAX_HANDLES = 4096
_MAX_TYPES = 16
_MAX_TYPE_NAME = 64


def handle_data(reading: Reading, stream: Stream) -> None:
    """Count the handles of HandleDataStream, and where they are not too many, by type."""
    dump = reading.dump
    header_size, entry_size, count = dump.unpack(stream.name, layouts.EX_LIST_32, stream.rva, stream.size)
    if header_size != 16 or entry_size not in {32, 40} or header_size + count * entry_size > stream.size:
        raise Malformed(
            stream.name,
            offset=stream.rva,
            expected=f"{count} descriptors of {entry_size} bytes",
            got=f"{stream.size} bytes",
        )
    reading.crash.attributes["handles"] = str(count)
    if count > _MAX_HANDLES:
        return
    from minidump.streams.HandleDataStream import MinidumpHandleDataStream  # noqa: PLC0415

    try:
        found = MinidumpHandleDataStream.parse(_PackageDirectory(stream), _PackageFile(dump, stream))
    except Malformed:
        raise
    except Exception as e:
        raise Malformed(stream.name, offset=stream.rva, expected="handle descriptors", got=repr(e)) from e
    types = Counter((h.TypeName or "").partition("\0")[0][:_MAX_TYPE_NAME] or "unknown" for h in found.handles)
    most = sorted(types.items(), key=lambda item: (-item[1], item[0]))[:_MAX_TYPES]
    reading.crash.attributes["handle_types"] = ", ".join(f"{name} {n}" for name, n in most)


class _PackageDirectory:
    """A directory entry as the ``minidump`` package names its fields."""

    def __init__(self, stream: Stream) -> None:
        self.Location = self
        self.Rva = stream.rva
        self.DataSize = stream.size


class _PackageFile:
    """A file over a dump for the ``minidump`` package, which may read the stream once, and as much text as is left."""

    def __init__(self, dump: Dump, stream: Stream) -> None:
        self._dump = dump
        self._position = 0
        self._left = stream.size + dump.text_left

    def seek(self, position: int, whence: int = 0) -> None:
        assert whence == 0
        self._position = position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise Malformed("handle names", offset=self._position, got=f"{size} bytes more than the file can hold")
        data = bytes(self._dump.view[self._position : self._position + size])
        self._position += len(data)
        return data
