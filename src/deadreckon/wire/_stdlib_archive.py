"""Zip, tar, gzip, bzip2, xz and lzma through the standard library, for systems without libarchive.

The same entries, limits and errors as ``_libarchive``, with what Python's modules can't do left out: a zip must have
its central directory and its entries be stored or deflated.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

from deadreckon.errors import MissingDependency
from deadreckon.wire._directories import check_directory
from deadreckon.wire._kinds import sniff
from deadreckon.wire._reading import (
    BLOCK_BYTES,
    TAR_BLOCK_BYTES,
    Damaged,
    Entry,
    HeaderMeter,
    Source,
    beginning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from deadreckon.wire._reading import Kind

MAX_LAYERS = 25
"""Layers of compression taken off before giving up, as many as libarchive does."""

_OPENERS: dict[str, Callable[[Any], Any]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}

_ERRORS = (
    OSError,
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    MemoryError,  # A dictionary larger than the process may have.
    RecursionError,  # tarfile reads an extended header of an extended header of ... (test_bombs_in_tar_headers).
    # What these modules let out for mutated headers (test_mutated).
    ValueError,
    OverflowError,
    IndexError,
    NotImplementedError,
    struct.error,
)


@contextlib.contextmanager
def _as_damage(*, fatal: bool) -> Iterator[None]:
    """Turn what Python's modules raise for bad content into Damaged; an error of the disk has an errno and stays."""
    try:
        yield
    except _ERRORS as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise Damaged(str(e) or type(e).__name__, fatal=fatal) from e


def name() -> str:
    """Return what it is."""
    return "standard library"


def open_archive(source: str | memoryview, kind: str) -> ZipReader | StreamReader:
    """Open a path or buffer of a kind ``sniff`` told.

    Raises Damaged, LimitExceeded for a table of contents too large to hold, and MissingDependency for other kinds.
    """
    if kind not in _OPENERS and kind not in {"zip", "tar"}:
        raise MissingDependency(
            "libarchive", f"{kind} needs it: install libarchive13 (Debian/Ubuntu: apt-get install libarchive13)"
        )
    check_directory(source, kind)
    raw = Source(source)
    try:
        with _as_damage(fatal=True):
            return ZipReader(raw) if kind == "zip" else StreamReader(raw)
    except BaseException:
        raw.close()
        raise


class _Stream:
    """A stream whose beginning can be looked at, and which gives what it has before it fails.

    io.BufferedReader fills its buffer first and loses it all when a compressed stream ends early (test_truncated).
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.meter = HeaderMeter()
        # What broke off will do so again when it is read.
        self.head, _ = beginning(iter(lambda: file.read1(TAR_BLOCK_BYTES), b""), _ERRORS)
        self._peeked = self.head

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        block = self._peeked[:size] or cast("bytes", self._file.read1(size))
        self._peeked = self._peeked[size:]
        self.meter.take(len(block))
        return block

    read1 = read


class _Reader:
    def __init__(self, raw: Source, *, fatal: bool) -> None:
        self._raw = raw
        self._fatal = fatal
        self._content: Callable[[], IO[bytes] | _Stream | None] = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content = _nothing
        self._raw.close()

    def bytes_read(self) -> int:
        """Return how much of the source has been read, in bytes."""
        return self._raw.bytes_read()

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the current entry's content as (offset, up to 1 MiB). Raises Damaged."""
        offset = 0
        with _as_damage(fatal=self._fatal):
            file = self._content()
            while file is not None and (block := file.read(BLOCK_BYTES)):
                yield offset, block
                offset += len(block)


class ZipReader(_Reader):
    """A zip, by its central directory."""

    filters = 0
    single = False

    def __init__(self, raw: Source) -> None:
        super().__init__(raw, fatal=False)
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


class StreamReader(_Reader):
    """A tar under any layers of compression, or a single compressed file."""

    def __init__(self, raw: Source) -> None:
        super().__init__(raw, fatal=True)
        self._file = _Stream(io.BufferedReader(raw, BLOCK_BYTES))
        self.filters = 0
        while (kind := sniff(self._file.head)) in _OPENERS and self.filters < MAX_LAYERS:
            self.filters += 1
            self._file = _Stream(_OPENERS[kind](self._file))
        self.single = kind != "tar"
        if self.single and not self._file.head:
            raise EOFError("the compressed file is empty")

    def entries(self) -> Iterator[Entry]:
        """Step through the entries; raises Damaged."""
        if self.single:
            self._content = lambda: self._file
            yield Entry(None)
            return
        ends: list[tuple[str, str]] = []

        class Info(tarfile.TarInfo):
            @classmethod
            def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
                try:
                    return super().frombuf(buf, encoding, errors)
                except tarfile.TarError as e:
                    ends.append((type(e).__name__, str(e)))
                    raise

        meter = self._file.meter
        meter.start_headers()
        with (
            _as_damage(fatal=True),
            tarfile.open(
                mode="r|",
                fileobj=cast("IO[bytes]", self._file),
                tarinfo=Info,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar,
        ):
            while (info := tar.next()) is not None:
                meter.end_headers()
                kind = _tar_kind(info)
                self._content = functools.partial(tar.extractfile, info) if kind == "file" else _nothing
                shown = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                yield Entry(shown, kind, header_bytes=info.offset_data - info.offset)
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
                meter.start_headers()
        # tarfile takes an unreadable header after the first for the end.
        if ends and ends[-1][0] not in {"EOFHeaderError", "EmptyHeaderError"}:
            raise Damaged(ends[-1][1], fatal=True)


def _nothing() -> None:
    return None


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "directory"
    return "special" if info.isdev() else "file"
