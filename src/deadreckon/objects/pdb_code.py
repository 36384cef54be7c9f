"""PDB files: where code lies, and the address map of an image that was rearranged after linking.

Sources: LLVM "The MSF File Format" and "The PDB DBI Stream" (superblock, stream directory, optional debug header);
OMAP tables as in Microsoft's ``cvinfo``/``imagehlp.h`` (pairs of addresses, the second 0 where nothing corresponds).
symbolic maps addresses only if the file also keeps the section headers from before; Breakpad's sample files
(omap_reorder_*.pdb) don't, and their functions would all be found in the wrong places.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PdbMap", "read"]

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_STREAM_DBI = 3
_DBI_HEADER = struct.Struct("<iIIHHHHHHiiiiiIiiHHI")
_OMAP_TO_SRC, _SECTIONS, _SECTIONS_ORIGINAL = 3, 5, 10
"""Places in the optional debug header."""
_NO_STREAM = 0xFFFF
_CNT_CODE, _MEM_EXECUTE = 0x20, 0x2000_0000
_MAX_STREAMS = 1 << 16
_MAX_STREAM_BYTES = 256 << 20


@dataclass(slots=True)
class PdbMap:
    """What a PDB file says of its image's addresses.

    ``text`` u32[n, 2]: executable sections, sorted, relative to the image base.
    ``omap`` u32[n, 2]: image address and the address before rearrangement (0: none), sorted; None where the image was
    not rearranged, or the file also says how its sections lay before (addresses are then mapped by symbolic).
    """

    text: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    omap: NDArray[np.uint32] | None = None


def read(data: bytes | memoryview) -> PdbMap:
    """Read the streams that say how code lies. Raises Malformed where the file's structure is damaged."""
    streams = _Msf(memoryview(data))
    dbi = streams.read(_STREAM_DBI)
    if len(dbi) < _DBI_HEADER.size:
        return PdbMap()
    fields = _DBI_HEADER.unpack_from(dbi)
    sizes = (*fields[9:14], fields[16])
    if min(*sizes, fields[15]) < 0:
        raise Malformed("PDB DBI stream", offset=24, expected="sizes of substreams", got=min(sizes))
    at = _DBI_HEADER.size + sum(sizes)
    header = np.frombuffer(dbi[at : at + fields[15] // 2 * 2], "<u2").tolist()

    def debug(place: int) -> bytes:
        number = header[place] if place < len(header) else _NO_STREAM
        return streams.read(number) if number != _NO_STREAM else b""

    found = PdbMap(_text(debug(_SECTIONS)))
    omap = debug(_OMAP_TO_SRC)
    if omap:
        found.text = np.zeros((0, 2), np.uint32)  # Perhaps of the image before it was rearranged.
        if not debug(_SECTIONS_ORIGINAL):
            pairs = np.frombuffer(omap, "<u4", len(omap) // 8 * 2).reshape(-1, 2)
            found.omap = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return found


def _text(headers: bytes) -> NDArray[np.uint32]:
    spans = []
    for row in struct.iter_unpack("<8sIIIIIIHHI", headers[: len(headers) // 40 * 40]):
        size, address, flags = row[1], row[2], row[9]
        if flags & (_CNT_CODE | _MEM_EXECUTE) and size and address + size <= 0xFFFF_FFFE:
            spans.append((address, address + size))
    return np.array(sorted(spans), np.uint32).reshape(-1, 2)


class _Msf:
    """The streams of a multi-stream file; each is a list of blocks."""

    def __init__(self, view: memoryview) -> None:
        if len(view) < 56 or bytes(view[:32]) != _MAGIC:
            raise Malformed("PDB file", offset=0, expected="Microsoft C/C++ MSF 7.00", got=bytes(view[:24]))
        self._view = view
        self._block: int
        self._block, _, count, size, _, root = struct.unpack_from("<6I", view, 32)
        if self._block < 512 or self._block & (self._block - 1) or self._block > 1 << 16:
            raise Malformed("PDB superblock", offset=32, expected="a power of two from 512", got=self._block)
        if size > len(view) or count * self._block > len(view) + self._block:
            raise Malformed("PDB superblock", offset=40, expected=f"sizes up to {len(view)}", got=size)
        blocks = self._number(size)
        at = root * self._block
        if at + 4 * blocks > len(view):
            raise Malformed("PDB stream directory", offset=at, expected=f"{blocks} blocks", got=len(view))
        self._directory = self._gather(np.frombuffer(view[at : at + 4 * blocks], "<u4"), size)
        self._places = self._index()

    def _number(self, size: int) -> int:
        return -(-size // self._block)

    def _index(self) -> list[tuple[int, int]]:
        """Return each stream's size and the place of its block list."""
        directory = self._directory
        count = int.from_bytes(directory[:4], "little")
        if count > _MAX_STREAMS or 4 + 4 * count > len(directory):
            raise Malformed(
                "PDB stream directory", offset=0, expected=f"{count} streams", got=f"{len(directory)} bytes"
            )
        found = []
        at = 4 + 4 * count
        for size in np.frombuffer(directory, "<u4", count, 4).tolist():
            kept = 0 if size == 0xFFFF_FFFF else size
            found.append((kept, at))
            at += 4 * self._number(kept)
        return found

    def read(self, number: int) -> bytes:
        """Return a stream, empty where there is none. Raises Malformed."""
        if number >= len(self._places):
            return b""
        size, at = self._places[number]
        blocks = self._number(size)
        if size > min(len(self._view), _MAX_STREAM_BYTES) or at + 4 * blocks > len(self._directory):
            raise Malformed(f"PDB stream {number}", expected="blocks within the file", got=f"{size} bytes")
        return self._gather(np.frombuffer(self._directory, "<u4", blocks, at), size)

    def _gather(self, blocks: NDArray[np.uint32], size: int) -> bytes:
        parts = []
        for block in blocks.tolist():
            start = block * self._block
            parts.append(self._view[start : start + self._block])
        data = b"".join(parts)
        if len(data) < size:
            raise Malformed("PDB blocks", expected=f"{size} bytes", got=len(data))
        return data[:size]
