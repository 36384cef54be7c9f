"""What can be had of one compressed file that was cut short: everything before the cut.

An upload that ended early and a disk that was full leave such files, and a crash report says most at its beginning.
Readers of archives give up a whole block at the cut, libarchive 64 KiB of content, which is more than most minidumps
have. Checksums come at the end, so that a cut file's was never seen; what is cut is told apart from what is altered
by the decompressor's asking for more input.

RFC 1952 (gzip), the xz file format, bzip2.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol

from deadreckon.wire._reading import BLOCK_BYTES, Damaged, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["KINDS", "salvage"]

_MEMORY = 256 << 20
"""Bytes that an xz file's dictionary may take."""
_MAX_STREAMS = 100_000


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's object with the interface that those of bzip2 and xz have."""

    def __init__(self) -> None:
        self._made = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._made.eof

    @property
    def needs_input(self) -> bool:
        return not self._made.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._made.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._made.decompress(self._made.unconsumed_tail + data, max_length)


KINDS: dict[str, Callable[[], _Decompressor]] = {
    "gz": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
}
"""The kinds that this can be done for. In an .lzma file nothing tells a cut from an alteration."""


def salvage(source: str | memoryview, kind: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield a cut file's content as (bytes read so far, offset, block of up to BLOCK_BYTES).

    Raises Damaged where the input is not cut but altered: nothing of it can be trusted.
    """
    offset = read = 0
    with Source(source) as file:
        decompressor = KINDS[kind]()
        streams = 1
        for _, piece in file.blocks():
            read += len(piece)
            data = piece
            while True:
                try:
                    block = decompressor.decompress(data, BLOCK_BYTES)
                except (zlib.error, lzma.LZMAError, OSError, EOFError) as e:
                    raise Damaged(str(e), fatal=True) from e
                if block:
                    yield read, offset, block
                    offset += len(block)
                data = b""
                if decompressor.eof:
                    data = decompressor.unused_data.lstrip(b"\0")
                    if not data:
                        return
                    streams += 1
                    if streams > _MAX_STREAMS:
                        raise Damaged(f"over {_MAX_STREAMS} streams after one another", fatal=True)
                    decompressor = KINDS[kind]()
                elif decompressor.needs_input and not block:
                    break
