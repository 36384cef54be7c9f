"""Archives through libarchive: the C library that PyPI's libarchive-c finds and loads.

Only the loaded library is taken from ``libarchive.ffi``. Its functions are bound again here: libarchive-c logs every
ARCHIVE_WARN and raises on the rest, reads content by copying page by page, and lacks what limits need (bytes read,
encryption). Return codes: archive.h of libarchive 3.6.2.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from ctypes import CFUNCTYPE, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p, string_at
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.errors import LimitExceeded, MissingDependency
from deadreckon.wire.archive import COMPRESSED, Damaged, Entry, sniff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO, Self

    from deadreckon.wire.archive import Kind

EOF, OK, RETRY, WARN, FAILED, FATAL = 1, 0, -10, -20, -25, -30
BLOCK_BYTES = 1 << 20
TAR_BLOCK_BYTES = 512
DIRECTORY_BYTES = 8 << 20
"""Largest table of contents, uncompressed; libarchive takes up to thirty times as much to hold it."""
ENCODED_BYTES = 1 << 16
"""Largest description of a 7z's compressed header; writers need some 40 bytes."""

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "version_string": (c_char_p,),
    "error_string": (c_char_p, c_void_p),
    "filter_count": (c_int, c_void_p),
    "filter_bytes": (c_int64, c_void_p, c_int),
    "read_new": (c_void_p,),
    "read_free": (c_int, c_void_p),
    "read_open_filename": (c_int, c_void_p, c_char_p, c_size_t),
    "read_open_memory": (c_int, c_void_p, c_void_p, c_size_t),
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
    "tar": ("tar",),
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
    if kind in {"xar", "7z"}:
        _check_directory(source, kind)
    if kind not in COMPRESSED:
        return LibarchiveReader(source, kind, _FORMATS[kind])
    with LibarchiveReader(source, kind, ("raw",)) as probe:
        # The gzip, bzip2, ... filters look closer than sniff does; content none of them takes comes out unchanged.
        if not probe.filters:
            raise Damaged(f"no {kind} header", fatal=True)
        inner = sniff(probe.head())
    return LibarchiveReader(source, kind, ("tar",) if inner == "tar" else ("raw",))


class LibarchiveReader:
    """One archive open in libarchive, by just the formats given, and the filters a compressed ``kind`` may have."""

    def __init__(self, source: str | memoryview, kind: str, formats: tuple[str, ...]) -> None:
        self.single = formats == ("raw",)
        self._sparse = formats == ("tar",)
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

    def _open(self, source: str | memoryview) -> None:
        if isinstance(source, str):
            code = self._lib.read_open_filename(self._archive, os.fsencode(source), BLOCK_BYTES)
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

    def head(self) -> bytes:
        """Return the first tar block of a raw stream, or as much as can be read. Raises Damaged if that is nothing."""
        found = b""
        next(self.entries(), None)
        try:
            for _, block in self.blocks():
                found += block
                if len(found) >= TAR_BLOCK_BYTES:
                    break
        except Damaged:
            if not found:
                raise
        return found[:TAR_BLOCK_BYTES]

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
            # all entries instead (test_formats_of_libarchive).
            yield offset.value, b""

    def _damage(self, code: int) -> Damaged:
        told = self._lib.error_string(self._archive)
        return Damaged(told.decode("utf-8", "replace") if told else "damaged", fatal=code < FAILED)


def _check_directory(source: str | memoryview, kind: str) -> None:
    # These readers inflate the archive's directory and keep a record of each file before the first entry: 5 KB of 7z
    # made libarchive use 800 MB, 300 KB of xar 1 GB (test_bombs_in_directories). A zip's directory isn't compressed.
    try:
        size = _xar_table_bytes(source) if kind == "xar" else _7z_header_bytes(source)
    except (struct.error, zlib.error, IndexError, OverflowError) as e:
        raise Damaged(f"unreadable directory: {e}", fatal=True) from e
    if size > DIRECTORY_BYTES:
        raise LimitExceeded("directory_bytes", DIRECTORY_BYTES, what=kind)


def _read_at(source: str | memoryview, offset: int, size: int) -> bytes:
    if isinstance(source, memoryview):
        return bytes(source[offset : offset + size])
    with open(source, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _xar_table_bytes(source: str | memoryview) -> int:
    # Big-endian: magic, u16 header size, u16 version, u64 length of the zlib-compressed table.
    header_size, packed_size = struct.unpack(">4xH2xQ", _read_at(source, 0, 16))
    if packed_size > DIRECTORY_BYTES:
        return int(packed_size)
    packed = _read_at(source, header_size, packed_size)
    return len(zlib.decompressobj().decompress(packed, DIRECTORY_BYTES + 1))


def _7z_header_bytes(source: str | memoryview) -> int:
    # 7zFormat.txt of the LZMA SDK. Signature, version, crc, then u64 offset (from 32) and size of the header; that is
    # plain, or 0x17 and where its packed form is: pack info, folders with their coders, 0x0C and the unpacked sizes.
    offset, size = struct.unpack("<12xQQ4x", _read_at(source, 0, 32))
    start = _read_at(source, 32 + min(offset, 1 << 62), min(size, ENCODED_BYTES))
    if start[:2] != b"\x17\x06":
        return int(size)
    if size > ENCODED_BYTES:
        raise IndexError("encoded header is too long")
    header = io.BytesIO(start[2:])
    number = functools.partial(_7z_number, header)
    number()
    packs = number()
    while part := header.read(1)[0]:
        if part == 0x09:
            _repeat(packs, number)
        else:
            header.read(1 + 4 * packs)
    header.read(2)
    folders = number()
    header.read(1)
    outputs = 0
    for _ in range(min(folders, size)):
        coders = number()
        folder_inputs = folder_outputs = 0
        for _ in range(min(coders, size)):
            flags = header.read(1)[0]
            header.read(flags & 0x0F)
            folder_inputs += number() if flags & 0x10 else 1
            folder_outputs += number() if flags & 0x10 else 1
            header.read(number() if flags & 0x20 else 0)
        binds = max(folder_outputs - 1, 0)
        _repeat(2 * binds, number)
        packed = folder_inputs - binds
        _repeat(packed if packed > 1 else 0, number)
        outputs += folder_outputs
    if header.read(1) != b"\x0c":
        raise IndexError("no unpacked sizes")
    return max(_repeat(outputs, number), default=0)


def _repeat(count: int, number: Callable[[], int]) -> list[int]:
    # A count that lies runs into the end of the header, which raises IndexError.
    return [number() for _ in range(count)]


def _7z_number(file: BinaryIO) -> int:
    # As many bytes follow as the first one has leading ones; its other bits are the highest.
    first = file.read(1)[0]
    extra = 8 - (first ^ 0xFF).bit_length()
    low = file.read(extra)
    if len(low) < extra:
        raise IndexError("header ends in a number")
    return int.from_bytes(low, "little") | (first & 0x7F >> extra) << 8 * extra


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
