"""Archives through libarchive: the C library that PyPI's libarchive-c finds and loads.

Only the loaded library is taken from ``libarchive.ffi``. Its functions are bound again here: libarchive-c logs every
ARCHIVE_WARN and raises on the rest, reads content by copying page by page, and lacks what limits need (bytes read,
encryption). Return codes: archive.h of libarchive 3.6.2.
"""

from __future__ import annotations

import functools
import os
from ctypes import (
    CFUNCTYPE,
    POINTER,
    byref,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_ssize_t,
    c_void_p,
    cast,
    string_at,
)
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.errors import MissingDependency
from deadreckon.wire._directories import check_directory
from deadreckon.wire._kinds import COMPRESSED, sniff
from deadreckon.wire._reading import BLOCK_BYTES, Damaged, Entry, HeaderMeter, Source, beginning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from deadreckon.wire._reading import Kind

EOF, OK, RETRY, WARN, FAILED, FATAL = 1, 0, -10, -20, -25, -30
READ_CALLBACK = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, POINTER(c_void_p))

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "version_string": (c_char_p,),
    "error_string": (c_char_p, c_void_p),
    "filter_count": (c_int, c_void_p),
    "filter_bytes": (c_int64, c_void_p, c_int),
    "read_new": (c_void_p,),
    "read_free": (c_int, c_void_p),
    "read_open_filename": (c_int, c_void_p, c_char_p, c_size_t),
    "read_open_memory": (c_int, c_void_p, c_void_p, c_size_t),
    "read_open": (c_int, c_void_p, c_void_p, c_void_p, READ_CALLBACK, c_void_p),
    "read_header_position": (c_int64, c_void_p),
    "read_next_header": (c_int, c_void_p, c_void_p),
    "read_data_block": (c_int, c_void_p, c_void_p, c_void_p, c_void_p),
    "entry_pathname": (c_char_p, c_void_p),
    "entry_pathname_utf8": (c_char_p, c_void_p),
    "entry_hardlink": (c_char_p, c_void_p),
    "entry_filetype": (c_int, c_void_p),
    "entry_is_data_encrypted": (c_int, c_void_p),
}
"""archive_*: result, then arguments."""

_FORMATS: dict[str, tuple[str, ...]] = {
    "zip": ("zip",),
    "7z": ("7zip",),
    "cab": ("cab",),
    "ar": ("ar",),
    "xar": ("xar",),
    "cpio": ("cpio",),
    "iso": ("iso9660",),
    "lha": ("lha",),
    "rar": ("rar", "rar5"),
}
_FILTERS = {
    "gz": "gzip",
    "xz": "xz",
    "bz2": "bzip2",
    "zst": "zstd",
    "lzma": "lzma",
    "lz": "lzip",
    "lz4": "lz4",
    "Z": "compress",
    "rpm": "rpm",
}
_FILE_KINDS: dict[int, Kind] = {
    0o040000: "directory",
    0o120000: "link",
    0o020000: "special",
    0o060000: "special",
    0o010000: "special",
    0o140000: "special",
}


@functools.cache
def load() -> SimpleNamespace:
    """Bind the library. Raises whatever importing libarchive-c raises where the library is missing or too old."""
    from libarchive import ffi  # noqa: PLC0415

    bound = {name: CFUNCTYPE(*types)((f"archive_{name}", ffi.libarchive)) for name, types in _FUNCTIONS.items()}
    return SimpleNamespace(dll=ffi.libarchive, **bound)


@functools.cache
def available() -> bool:
    """Tell whether libarchive can be used."""
    try:
        load()
    except Exception:  # noqa: BLE001 - a missing library shows as TypeError, AttributeError or OSError by platform
        return False
    return True


def name() -> str:
    """Return the library's name and version."""
    return str(load().version_string().decode())


def open_archive(source: str | memoryview, kind: str) -> LibarchiveReader:
    """Open a path or buffer of a kind ``sniff`` told.

    Under compression only tar is read as an archive; any other content comes out as one file, so that its own kind is
    decided by ``sniff`` and its bytes are counted: cpio's reader would search through them for its magic, 7zip's, rar's
    and cab's would look into an executable. Raises Damaged, LimitExceeded for a table of contents too large to hold,
    and MissingDependency where this build lacks the kind.
    """
    check_directory(source, kind)
    if kind == "tar":
        return TarReader(Source(source), 0)
    if kind not in COMPRESSED:
        return LibarchiveReader(source, kind, _FORMATS[kind])
    file = SingleReader(source, kind)
    if not file.filters:
        # The gzip, bzip2, ... filters look closer than sniff does; content none of them takes comes out unchanged.
        file.close()
        raise Damaged(f"no {kind} header", fatal=True)
    return TarReader(file, file.filters) if sniff(file.head) == "tar" else file


class LibarchiveReader:
    """One archive open in libarchive, by just the formats given, and the filters a compressed ``kind`` may have."""

    single = False
    _sparse = False

    def __init__(self, source: str | memoryview | _Feed, kind: str, formats: tuple[str, ...]) -> None:
        self._lib = load()
        wanted = [f"format_{format_}" for format_ in formats]
        if kind in COMPRESSED:
            wanted += [f"filter_{filter_}" for filter_ in _FILTERS.values()]
        usable = [what for what in wanted if _supported(what)]
        if not {f"format_{format_}" for format_ in formats}.intersection(usable) or (
            kind in COMPRESSED and f"filter_{_FILTERS[kind]}" not in usable
        ):
            raise MissingDependency(f"{name()} with {kind} support", "install a newer or fuller libarchive")
        self._archive = self._lib.read_new()
        self._keep: Any = None
        try:
            for what in usable:
                _support(what)(self._archive)
            self._open(source)
            self.filters = int(self._lib.filter_count(self._archive)) - 1
        except BaseException:
            self.close()
            raise

    def _open(self, source: str | memoryview | _Feed) -> None:
        if isinstance(source, str):
            code = self._lib.read_open_filename(self._archive, os.fsencode(source), BLOCK_BYTES)
        elif isinstance(source, _Feed):
            code = self._lib.read_open(self._archive, None, None, source.callback, None)
        else:
            # ctypes refuses read-only buffers, which mapped files are; numpy tells the address without a copy.
            self._keep = np.frombuffer(source, np.uint8)
            code = self._lib.read_open_memory(self._archive, self._keep.ctypes.data, self._keep.size)
        if code < WARN:
            raise self._damage(code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the library's memory and the source."""
        if self._archive is not None:
            self._lib.read_free(self._archive)
        self._archive = self._keep = None

    def bytes_read(self) -> int:
        """Return how far into the source reading has come, in bytes."""
        return int(self._lib.filter_bytes(self._archive, -1))

    def entries(self) -> Iterator[Entry]:
        """Step through the entries; raises Damaged."""
        entry = c_void_p()
        while (code := self._lib.read_next_header(self._archive, byref(entry))) != EOF:
            # A warning means a name the locale can't spell, or sizes that differ between two headers: both harmless
            # here. "Retry" would search on for the next header, so it counts as the end.
            if code < WARN or code == RETRY:
                raise self._damage(FATAL)
            yield self._entry(entry)

    def _entry(self, entry: c_void_p) -> Entry:
        lib = self._lib
        # Under LC_CTYPE=C the library drops a zip's UTF-8 name; one that isn't UTF-8 comes as it is.
        raw = lib.entry_pathname(entry) or lib.entry_pathname_utf8(entry)
        shown = None if raw is None else raw.decode("utf-8", "backslashreplace")
        kind: Kind = "link" if lib.entry_hardlink(entry) else _FILE_KINDS.get(lib.entry_filetype(entry), "file")
        return Entry(shown, kind, "encrypted" if lib.entry_is_data_encrypted(entry) else "")

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the current entry's content as (offset, up to 1 MiB); gaps are zeros. Raises Damaged."""
        address, size, offset = c_void_p(), c_size_t(), c_int64()
        read, end = self._lib.read_data_block, 0
        while (code := read(self._archive, byref(address), byref(size), byref(offset))) != EOF:
            if code != OK:
                raise self._damage(code)
            # From memory an uncompressed entry is a single block, however large.
            for start in range(0, size.value or 1, BLOCK_BYTES):
                piece = min(BLOCK_BYTES, size.value - start)
                yield offset.value + start, string_at((address.value or 0) + start, piece) if piece else b""
            end = offset.value + size.value
        if self._sparse and offset.value > end:
            # A sparse tar entry that ends in a hole tells so only here (test_sparse_tar); xar's reader counts on over
            # all entries instead (test_formats_of_libarchive), and tar's has a directory's size here, which is none.
            yield offset.value, b""

    def _damage(self, code: int) -> Damaged:
        told = self._lib.error_string(self._archive)
        return Damaged(told.decode("utf-8", "replace") if told else "damaged", fatal=code < FAILED)


class SingleReader(LibarchiveReader):
    """One file under layers of compression; ``head`` is how it begins."""

    single = True

    def __init__(self, source: str | memoryview, kind: str) -> None:
        super().__init__(source, kind, ("raw",))
        try:
            self._empty = next(super().entries(), None) is None
            self._rest = super().blocks()
            self.head, self._cut = beginning((block for _, block in self._rest), (Damaged,))
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """Yield the file, which has no name."""
        if not self._empty:
            yield Entry(None)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the content as (offset, up to 1 MiB). Raises Damaged."""
        if self.head:
            yield 0, self.head
        if self._cut is not None:
            raise self._cut
        yield from self._rest


class TarReader(LibarchiveReader):
    """A tar, from a file or from under compression, with a bound on what its headers may take."""

    def __init__(self, file: Source | SingleReader, filters: int) -> None:
        self._file = file
        self._feed = _Feed(file.blocks())
        try:
            super().__init__(self._feed, "tar", ("tar",))
        except BaseException:
            file.close()
            raise
        self.filters = filters

    def close(self) -> None:
        """Release the library's memory and the source."""
        super().close()
        self._feed.close()
        self._file.close()

    def bytes_read(self) -> int:
        """Return how far into the source reading has come, in bytes."""
        return self._file.bytes_read()

    def entries(self) -> Iterator[Entry]:
        """Step through the entries; raises Damaged."""
        entries = super().entries()
        while True:
            self._feed.meter.start_headers()
            entry = next(entries, None)
            if entry is None:
                return
            self._feed.meter.end_headers()
            self._sparse = entry.kind == "file"
            position = self._lib.read_header_position(self._archive)
            yield entry._replace(header_bytes=self._lib.filter_bytes(self._archive, 0) - position)

    def _damage(self, code: int) -> Damaged:
        error = self._feed.error
        if isinstance(error, Damaged):
            return error
        if error is not None:
            raise error
        return super()._damage(code)


class _Feed:
    """Hands blocks to libarchive. An error on the way ends the archive there, and is kept for who reads it."""

    def __init__(self, blocks: Iterator[tuple[int, bytes]]) -> None:
        self.meter = HeaderMeter()
        self.error: BaseException | None = None
        self.callback: Any = READ_CALLBACK(self._read)
        self._blocks = blocks
        self._block = b""

    def _read(self, _archive: Any, _data: Any, buffer: Any) -> int:
        try:
            self._block = next((block for _, block in self._blocks if block), b"")
            self.meter.take(len(self._block))
        except BaseException as e:  # noqa: BLE001 - ctypes would print it and go on
            self.error = e
            return FATAL
        buffer[0] = cast(c_char_p(self._block), c_void_p)
        return len(self._block)

    def close(self) -> None:
        """Let go of the source, and of the callback, which holds this object."""
        self.callback = None
        self._blocks = iter(())


def _support(what: str) -> Any:
    return CFUNCTYPE(c_int, c_void_p)((f"archive_read_support_{what}", load().dll))


@functools.cache
def _supported(what: str) -> bool:
    # ARCHIVE_WARN says that the library lacks the code and would run a program of that name instead. The filter is
    # registered all the same, hence a handle which opens nothing (test_no_external_programs).
    lib = load()
    handle = lib.read_new()
    try:
        return bool(_support(what)(handle) == OK)
    except AttributeError:
        return False
    finally:
        lib.read_free(handle)
