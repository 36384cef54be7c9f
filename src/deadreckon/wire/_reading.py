"""What a way of opening archives must offer, and what the two there are have in common."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["BLOCK_BYTES", "Backend", "Damaged", "Entry", "HeaderMeter", "Kind", "Reader", "Source", "beginning"]

Kind = Literal["file", "directory", "link", "special"]

BLOCK_BYTES = 1 << 20
"""Content comes in blocks of at most this size."""

TAR_BLOCK_BYTES = 512

HEADER_BYTES = 4 << 20
"""Most that may be read of a tar for the headers of one entry; names and attributes end at 1 MiB in libarchive."""


class Entry(NamedTuple):
    """What a backend knows of an entry before its content; ``name`` is None where it can't be told."""

    name: str | None
    kind: Kind = "file"
    refused: str = ""
    """Why the content can't be had (a password, a method), empty if it can."""
    header_bytes: int = 0
    """Size of a tar entry's headers: compressed, they may be as large a bomb as content."""


class Damaged(Exception):
    """An archive contradicts itself; ``fatal`` where nothing after this point can be read."""

    def __init__(self, message: str, *, fatal: bool) -> None:
        self.fatal = fatal
        self.kept: bytes | mmap.mmap | None = None
        """What came before the damage, where it is a file's beginning and no more than cut short."""
        super().__init__(message)


class Reader(Protocol):
    """One open archive, read once from front to end."""

    filters: int
    """Layers of compression around the archive or the single file."""
    single: bool
    """The content is one compressed file, which has no name of its own."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: ...
    def entries(self) -> Iterator[Entry]:
        """Step through the entries; raises Damaged."""

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the current entry's content as (offset, up to BLOCK_BYTES); gaps are zeros. Raises Damaged."""

    def bytes_read(self) -> int:
        """Return how far into the source reading has come, in bytes."""


class Backend(Protocol):
    """A way of opening archives: ``_libarchive`` or ``_stdlib_archive``."""

    def name(self) -> str:
        """Return what it is, with its version."""

    def open_archive(self, source: str | memoryview, kind: str) -> Reader:
        """Open a path or buffer as ``kind``. Raises Damaged, LimitExceeded, MissingDependency, OSError."""


class Source(io.RawIOBase):
    """A path or buffer as a file that knows how much of it has been read."""

    def __init__(self, source: str | memoryview) -> None:
        super().__init__()
        self._read_bytes = 0
        self._at = 0
        self._view = memoryview(b"") if isinstance(source, str) else source
        self._fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, str) else -1
        self.size = len(self._view) if self._fd < 0 else os.fstat(self._fd).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._fd >= 0:
            count = os.preadv(self._fd, [buffer], self._at)
        else:
            piece = self._view[self._at : self._at + len(buffer)]
            count = len(piece)
            buffer[:count] = piece
        self._at += count
        # Entries may share compressed bytes; reading those again is no more input.
        self._read_bytes = min(self._read_bytes + count, self.size)
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            # zipfile relies on OSError to learn that a file is too short for a zip64 record (test_empty_archive);
            # without an errno, the reader takes it for damage and not for a failing disk.
            raise OSError("seek before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def at(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes at ``offset``, fewer where there are no more, none at an impossible offset."""
        if not 0 <= offset < self.size:
            return b""
        self.seek(offset)
        return self.read(min(size, self.size - offset)) or b""

    def bytes_read(self) -> int:
        """Return how much has been read, in bytes, no part counted twice."""
        return self._read_bytes

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the whole as (offset, block)."""
        offset = 0
        while block := self.read(BLOCK_BYTES):
            yield offset, block
            offset += len(block)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._view = -1, memoryview(b"")
        super().close()


class HeaderMeter:
    """Bounds what a tar's reader takes for one entry's headers; while content is read there is no bound.

    The map of a sparse file has no other end than the file's: 1 MB of tar.gz with a map of 1 GB made libarchive use
    12 GB, and tarfile busy for minutes (test_bombs_in_tar_headers).
    """

    def __init__(self) -> None:
        self._left = math.inf

    def start_headers(self) -> None:
        """Begin to count."""
        self._left = HEADER_BYTES

    def end_headers(self) -> None:
        """Let any amount be taken."""
        self._left = math.inf

    def take(self, size: int) -> None:
        """Count bytes taken. Raises Damaged."""
        self._left -= size
        if self._left < 0:
            raise Damaged("an entry's headers are too large", fatal=True)


def beginning(blocks: Iterable[bytes], errors: tuple[type[Exception], ...]) -> tuple[bytes, Exception | None]:
    """Join blocks until a tar's first block is there, or an error: the error counts once what precedes it was read."""
    found = b""
    try:
        for block in blocks:
            found += block
            if len(found) >= TAR_BLOCK_BYTES:
                break
    except errors as e:
        if not found:
            raise
        return found, e
    return found, None
