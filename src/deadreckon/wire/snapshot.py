"""The container of our portable snapshots: a zip whose first member says what it is. See docs/snapshot.md.

Specification: PKWARE's APPNOTE.TXT 4.3 (local header 4.3.7, central directory 4.3.12, its end 4.3.16). ``mimetype``
comes first, stored and without an extra field, as in OCF 3.0 (section 4.3) and OpenDocument 1.3 (part 2, 3.3), so that
the first bytes tell these files from all others.

Reading goes by the central directory and, where the file's end is missing, by the local headers: a snapshot cut short
keeps what comes before the cut. A member is checked against its CRC-32, for a wrong address is worse than none.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from deadreckon.errors import LimitExceeded, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

__all__ = ["MIMETYPE", "Container", "Content", "is_snapshot", "write"]

MIMETYPE = b"application/vnd.deadreckon.snapshot+zip"

_LOCAL = Struct("<4s5H3I2H")
_CENTRAL = Struct("<4s6H3I5H2I")
_END = Struct("<4s4H2IH")
_ENCRYPTED, _SIZES_FOLLOW = 1, 8
_STORED, _DEFLATED = 0, 8
_MAX_MEMBERS = 10_000


def is_snapshot(head: bytes) -> bool:
    """Tell a snapshot by its first 77 bytes."""
    # Name of eight bytes, no extra field.
    return head[:4] == b"PK\3\4" and head[26:30] == b"\x08\0\0\0" and head[30:77] == b"mimetype" + MIMETYPE


class _Member(NamedTuple):
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int
    """Offset of the local header."""


class Content(NamedTuple):
    """A member's bytes, and whether they are all there is: of a ``cut`` one they are the beginning, unchecked."""

    data: bytes
    state: Literal["whole", "cut", "corrupt"]


class Container:
    """A snapshot's members by name. Of two with one name the first counts."""

    def __init__(self, data: bytes | memoryview) -> None:
        """Read the directory. Raises Malformed where the first member isn't ``mimetype`` or nothing can be read."""
        self._view = memoryview(data)
        self.problems: list[Malformed] = []
        if not is_snapshot(bytes(self._view[:128])):
            raise Malformed("snapshot", offset=0, expected="member 'mimetype' first", got=bytes(self._view[:4]))
        self._members: dict[str, _Member] = {}
        try:
            listed = list(self._directory())
        except Malformed as e:
            self.problems.append(e)
            listed = list(self._headers())
        for name, member in listed:
            self._members.setdefault(name, member)

    def sizes(self) -> dict[str, int]:
        """Return the members' names with the sizes that they claim, in bytes."""
        return {name: member.size for name, member in self._members.items()}

    def read(self, name: str, limit: int) -> Content | None:
        """Return a member's content, None if there is no such member. Raises LimitExceeded beyond ``limit`` bytes."""
        member = self._members.get(name)
        if member is None:
            return None
        if member.size > limit:
            raise LimitExceeded("snapshot.member_bytes", limit, member.size, name)
        at = self._content(member.header)
        if at is None or member.flags & _ENCRYPTED or member.method not in {_STORED, _DEFLATED}:
            return Content(b"", "corrupt")
        packed = self._view[at : at + member.packed]
        complete = True
        if member.method == _STORED:
            data = bytes(packed[: limit + 1])
        else:
            stream = zlib.decompressobj(-15)
            try:
                data = stream.decompress(packed, limit + 1)
            except zlib.error:
                return Content(b"", "corrupt")
            complete = stream.eof
        if len(data) > member.size:
            return Content(b"", "corrupt")
        if len(packed) < member.packed:
            return Content(data, "cut")
        whole = complete and len(data) == member.size and zlib.crc32(data) == member.crc
        return Content(data, "whole") if whole else Content(b"", "corrupt")

    def _content(self, header: int) -> int | None:
        """Return where a member's content begins: its local header has lengths of its own."""
        fields = self._unpack(_LOCAL, header)
        if fields is None or fields[0] != b"PK\3\4":
            return None
        return header + _LOCAL.size + int(fields[9]) + int(fields[10])

    def _unpack(self, layout: Struct, at: int) -> tuple[bytes | int, ...] | None:
        return layout.unpack_from(self._view, at) if 0 <= at <= len(self._view) - layout.size else None

    def _directory(self) -> Iterator[tuple[str, _Member]]:
        """Yield what the central directory lists. Raises Malformed where it is missing or contradicts itself."""
        size = len(self._view)
        start = max(size - _END.size - 0xFFFF, 0)
        end = bytes(self._view[start:]).rfind(b"PK\5\6")
        fields = self._unpack(_END, start + end) if end >= 0 else None
        if fields is None:
            raise Malformed("snapshot", offset=size, expected="end of central directory", got="the file's end")
        count, at = int(fields[4]), int(fields[6])
        for number in range(min(count, _MAX_MEMBERS)):
            entry = self._unpack(_CENTRAL, at)
            if entry is None or entry[0] != b"PK\1\2":
                raise Malformed("central directory", offset=at, expected=f"{count} entries", got=number)
            _, _, _, flags, method, _, _, crc, packed, length, name, extra, comment, _, _, _, header = _padded(entry)
            yield self._name(at + _CENTRAL.size, name), _Member(flags, method, crc, packed, length, header)
            at += _CENTRAL.size + name + extra + comment

    def _headers(self) -> Iterator[tuple[str, _Member]]:
        """Yield what local headers tell, one after another; the last one's content may be cut."""
        at = 0
        for _ in range(_MAX_MEMBERS):
            fields = self._unpack(_LOCAL, at)
            if fields is None or fields[0] != b"PK\3\4":
                return
            _, _, flags, method, _, _, crc, packed, length, name, extra = (
                0 if isinstance(f, bytes) else f for f in fields
            )
            if flags & _SIZES_FOLLOW:
                return
            yield self._name(at + _LOCAL.size, name), _Member(flags, method, crc, packed, length, at)
            at += _LOCAL.size + name + extra + packed

    def _name(self, at: int, length: int) -> str:
        return bytes(self._view[at : at + length]).decode("utf-8", "replace")


def _padded(entry: tuple[bytes | int, ...]) -> tuple[int, ...]:
    return tuple(0 if isinstance(field, bytes) else field for field in entry)


def write(file: BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a snapshot of (name, content) to a file that can seek. The same content gives the same bytes."""
    import zipfile  # noqa: PLC0415  (every process looks at signatures, few write snapshots)

    with zipfile.ZipFile(file, "w", strict_timestamps=True) as packed:
        for name, content in (("mimetype", MIMETYPE), *members):
            told = zipfile.ZipInfo(name)  # Dated 1980-01-01.
            told.compress_type = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            told.external_attr = 0o600 << 16
            packed.writestr(told, content)
