"""Zip, tar, gzip, bzip2, xz and lzma through the standard library, for systems without libarchive.

The same entries, limits and errors as ``_libarchive``, with what Python's modules can't do left out: a zip must have
its central directory and its entries be stored or deflated.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

from deadreckon.errors import MissingDependency
from deadreckon.wire.archive import Damaged, Entry, sniff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from deadreckon.wire.archive import Kind

BLOCK_BYTES = 1 << 20
TAR_BLOCK_BYTES = 512
MAX_LAYERS = 25
"""Layers of compression taken off before giving up, as many as libarchive does."""

TAR_TEXT_BYTES = 1 << 20
"""Longest name or extended header in a tar; tarfile would read any length into memory (libarchive has this limit)."""

_OPENERS: dict[str, Callable[[Any], Any]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}

_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    # What these modules let out for mutated headers (test_mutated).
    ValueError,
    OverflowError,
    IndexError,
    NotImplementedError,
    struct.error,
)


def name() -> str:
    """Return what it is."""
    return "standard library"


def open_archive(source: str | memoryview, kind: str) -> ZipReader | StreamReader:
    """Open a path or buffer of a kind ``sniff`` told. Raises Damaged, and MissingDependency for other kinds."""
    if kind not in _OPENERS and kind not in {"zip", "tar"}:
        raise MissingDependency(
            "libarchive", f"{kind} needs it: install libarchive13 (Debian/Ubuntu: apt-get install libarchive13)"
        )
    raw = _Source(source)
    try:
        return ZipReader(raw) if kind == "zip" else StreamReader(raw)
    except OSError as e:
        raw.close()
        if e.errno is not None:
            raise
        raise Damaged(str(e), fatal=True) from e
    except _ERRORS as e:
        raw.close()
        raise Damaged(str(e), fatal=True) from e


class _Source(io.RawIOBase):
    """A path or buffer as a file that knows how much of it has been read."""

    def __init__(self, source: str | memoryview) -> None:
        super().__init__()
        self.bytes_read = 0
        self._at = 0
        self._view = memoryview(b"") if isinstance(source, str) else source
        self._fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, str) else -1
        self._size = len(self._view) if self._fd < 0 else os.fstat(self._fd).st_size

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
        self.bytes_read = min(self.bytes_read + count, self._size)
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            # zipfile relies on OSError to learn that a file is too short for a zip64 record (test_empty_archive);
            # without an errno, the reader takes it for damage and not for a failing disk.
            raise OSError("seek before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._view = -1, memoryview(b"")
        super().close()


class _Peeked:
    """A stream whose beginning can be looked at, and which gives what it has before it fails.

    io.BufferedReader fills its buffer first and loses it all when a compressed stream ends early (test_truncated).
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._head = b""

    def head(self) -> bytes:
        """Return the first tar block without consuming it, or as much as can be read."""
        try:
            while len(self._head) < TAR_BLOCK_BYTES and (block := self._file.read1(TAR_BLOCK_BYTES)):
                self._head += block
        except (OSError, *_ERRORS):
            if not self._head:
                raise
        return self._head

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if not self._head:
            return cast("bytes", self._file.read1(size))
        block, self._head = self._head[:size], self._head[size:]
        return block

    read1 = read


class _Reader:
    def __init__(self, raw: _Source) -> None:
        self._raw = raw
        self._content: Callable[[], IO[bytes] | _Peeked | None] = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content = _nothing
        self._raw.close()

    def bytes_read(self) -> int:
        """Return how much of the source has been read, in bytes."""
        return self._raw.bytes_read

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the current entry's content as (offset, up to 1 MiB). Raises Damaged."""
        offset = 0
        try:
            file = self._content()
            while file is not None and (block := file.read(BLOCK_BYTES)):
                yield offset, block
                offset += len(block)
        except OSError as e:
            if e.errno is not None:
                raise
            raise self._damage(e) from e
        except _ERRORS as e:
            raise self._damage(e) from e

    def _damage(self, e: Exception) -> Damaged:
        return Damaged(str(e) or type(e).__name__, fatal=True)


class ZipReader(_Reader):
    """A zip, by its central directory."""

    filters = 0
    single = False

    def __init__(self, raw: _Source) -> None:
        super().__init__(raw)
        self._zip = zipfile.ZipFile(cast("IO[bytes]", raw))

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        super().__exit__()

    def entries(self) -> Iterator[Entry]:
        """Step through the entries in the order of their content, as libarchive does."""
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            self._content = functools.partial(self._zip.open, info)
            refused = ""
            if info.flag_bits & 0x1:
                refused = "encrypted"
            elif info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                # zipfile inflates 4 KB of bzip2 or lzma at once, which may be gigabytes.
                refused = f"compression method {info.compress_type} needs libarchive"
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            kind: Kind = "directory" if info.filename.endswith("/") else "link" if stat.S_ISLNK(mode) else "file"
            # zipfile reads names without the UTF-8 flag as cp437, which maps every byte and so can be undone.
            codec = "utf-8" if info.flag_bits & 0x800 else "cp437"
            yield Entry(info.orig_filename.encode(codec).decode("utf-8", "backslashreplace"), kind, refused)

    def _damage(self, e: Exception) -> Damaged:
        return Damaged(str(e) or type(e).__name__, fatal=False)


class StreamReader(_Reader):
    """A tar under any layers of compression, or a single compressed file."""

    def __init__(self, raw: _Source) -> None:
        super().__init__(raw)
        self._file = _Peeked(io.BufferedReader(raw, BLOCK_BYTES))
        self.filters = 0
        kind = sniff(self._file.head())
        while kind in _OPENERS and self.filters < MAX_LAYERS:
            self.filters += 1
            self._file = _Peeked(_OPENERS[kind](self._file))
            kind = sniff(self._file.head())
        self.single = kind != "tar"
        if self.single and not self._file.head():
            raise EOFError("the compressed file is empty")

    def entries(self) -> Iterator[Entry]:
        """Step through the entries; raises Damaged."""
        if self.single:
            self._content = self._single
            yield Entry(None)
            return
        ends: list[tuple[str, str]] = []

        class Info(tarfile.TarInfo):
            @classmethod
            def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
                try:
                    info = super().frombuf(buf, encoding, errors)
                except tarfile.TarError as e:
                    ends.append((type(e).__name__, str(e)))
                    raise
                if info.type in b"xgXLK" and info.size > TAR_TEXT_BYTES:
                    raise Damaged("an extended header is too large", fatal=True)
                return info

        try:
            with tarfile.open(
                mode="r|",
                fileobj=cast("IO[bytes]", self._file),
                tarinfo=Info,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                while (info := tar.next()) is not None:
                    kind = _tar_kind(info)
                    self._content = functools.partial(tar.extractfile, info) if kind == "file" else _nothing
                    shown = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    yield Entry(shown, kind)
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
        except OSError as e:
            if e.errno is not None:
                raise
            raise self._damage(e) from e
        except _ERRORS as e:
            raise self._damage(e) from e
        # tarfile takes an unreadable header after the first for the end.
        if ends and ends[-1][0] not in {"EOFHeaderError", "EmptyHeaderError"}:
            raise Damaged(ends[-1][1], fatal=True)

    def _single(self) -> _Peeked:
        return self._file


def _nothing() -> None:
    return None


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "directory"
    return "special" if info.isdev() else "file"
