"""Mach-O files: slices of fat files, and where code and functions lie.

Sources: Apple ``mach-o/loader.h`` and ``mach-o/fat.h``; LC_FUNCTION_STARTS is a list of ULEB128 deltas from __TEXT. A
symbol table says where functions start, not where they end, and a stripped one leaves most of them out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["MachImage", "Section", "read"]

_THIN = {0xFEEDFACE: False, 0xFEEDFACF: True}
_FAT, _FAT_64 = 0xCAFEBABE, 0xCAFEBABF
_CPUS = {7: Arch.X86, 12: Arch.ARM, 0x0100_0007: Arch.X86_64, 0x0100_000C: Arch.ARM64}
_LC_SEGMENT, _LC_SEGMENT_64, _LC_UUID, _LC_FUNCTION_STARTS = 0x1, 0x19, 0x1B, 0x26
_SOME_INSTRUCTIONS, _PURE_INSTRUCTIONS = 0x400, 0x8000_0000
_MAX_SLICES = 32
_MAX_COMMANDS = 4096
_MAX_SECTIONS = 255
_MAX_RVA = 0xFFFF_FFFE


class Section(NamedTuple):
    """A section: its address in the image's own terms, and where its content is in the file (nowhere: 0)."""

    segment: str
    name: str
    address: int
    size: int
    offset: int
    is_code: bool


@dataclass(slots=True)
class MachImage:
    """One slice.

    ``text`` u32[n, 2]: sections with instructions; ``starts`` u32[n]: where functions start (a dSYM doesn't say); both
    sorted and relative to __TEXT, which is at ``base``.
    """

    uuid: UUID | None = None
    arch: Arch = Arch.UNKNOWN
    base: int = 0
    sections: list[Section] = field(default_factory=list)
    text: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    starts: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))


def read(data: bytes | memoryview) -> list[MachImage]:
    """Read each slice's load commands; a damaged slice is left out. Raises Malformed where this is no Mach-O file."""
    view = memoryview(data)
    magic = int.from_bytes(view[:4], "big")
    if magic not in {_FAT, _FAT_64}:
        return [_slice(view, 0)]
    entry = struct.Struct(">IIIII" if magic == _FAT else ">IIQQII")
    found = []
    for i in range(min(int.from_bytes(view[4:8], "big"), _MAX_SLICES)):
        try:
            _, _, offset, size, *_ = entry.unpack_from(view, 8 + i * entry.size)
            found.append(_slice(view[offset : offset + size], offset))
        except (struct.error, Malformed):
            continue
    return found


def _slice(view: memoryview, begin: int) -> MachImage:
    order = next((o for o in "<>" if len(view) >= 28 and struct.unpack_from(o + "I", view)[0] in _THIN), None)
    if order is None:
        raise Malformed("Mach-O header", offset=0, expected="0xfeedface or 0xfeedfacf", got=bytes(view[:4]).hex())
    wide = _THIN[struct.unpack_from(order + "I", view)[0]]
    image = MachImage(arch=_CPUS.get(struct.unpack_from(order + "I", view, 4)[0], Arch.UNKNOWN))
    function_starts = b""
    for command, body in _commands(view, order, 32 if wide else 28):
        if command == _LC_UUID and len(body) >= 24:
            image.uuid = UUID(bytes=bytes(body[8:24]))
        elif command == _LC_FUNCTION_STARTS and len(body) >= 16:
            offset, size = struct.unpack_from(order + "II", body, 8)
            function_starts = bytes(view[offset : offset + size])
        elif command == (_LC_SEGMENT_64 if wide else _LC_SEGMENT):
            segment, address, sections = _segment(body, order, wide=wide)
            if segment == "__TEXT":
                image.base = address
            image.sections.extend(s._replace(offset=begin + s.offset if s.offset else 0) for s in sections)
    spans = ((s.address - image.base, s.size) for s in image.sections if s.is_code and s.size)
    relative = sorted((start, start + size) for start, size in spans)
    kept = [span for span in relative if 0 <= span[0] < span[1] <= _MAX_RVA]
    image.text = np.array(kept, np.uint32).reshape(-1, 2)
    image.starts = _function_starts(function_starts)
    return image


def _commands(view: memoryview, order: str, at: int) -> Iterator[tuple[int, memoryview]]:
    (count,) = struct.unpack_from(order + "I", view, 16)
    for _ in range(min(count, _MAX_COMMANDS)):
        if at + 8 > len(view):
            return
        command, size = struct.unpack_from(order + "II", view, at)
        if size < 8:
            return
        yield command, view[at : at + size]
        at += size


def _segment(body: memoryview, order: str, *, wide: bool) -> tuple[str, int, list[Section]]:
    """Return a segment's name and address, and its sections."""
    segment = struct.Struct(order + ("16sQQQQiiII" if wide else "16sIIIIiiII"))
    section = struct.Struct(order + ("16s16sQQIIIIIIII" if wide else "16s16sIIIIIIIII"))
    if len(body) < 8 + segment.size:
        return "", 0, []
    name, address, _, _, _, _, _, count, _ = segment.unpack_from(body, 8)
    found = []
    for i in range(min(count, _MAX_SECTIONS)):
        at = 8 + segment.size + i * section.size
        if at + section.size > len(body):
            break
        title, owner, start, length, offset, _, _, _, flags, *_ = section.unpack_from(body, at)
        is_code = bool(flags & (_SOME_INSTRUCTIONS | _PURE_INSTRUCTIONS))
        found.append(Section(_name(owner), _name(title), start, length, offset, is_code))
    return _name(name), address, found


def _name(padded: bytes) -> str:
    return padded.split(b"\0", 1)[0].decode("ascii", "replace")


def _function_starts(data: bytes) -> NDArray[np.uint32]:
    found = []
    at = value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            if shift > 63:
                break
            continue
        at += value
        if not value or at > _MAX_RVA:
            break
        found.append(at)
        value = shift = 0
    return np.array(found, np.uint32)
