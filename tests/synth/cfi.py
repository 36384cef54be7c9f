"""Writes ``.eh_frame`` and ``.debug_frame`` sections record by record, from DWARF 5 section 7.24 and the LSB."""

from __future__ import annotations

from dataclasses import dataclass


def uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def sleb(value: int) -> bytes:
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))


def block(code: bytes) -> bytes:
    return uleb(len(code)) + code


@dataclass(frozen=True)
class Cie:
    """Where a CIE is, and how its FDEs write addresses."""

    offset: int
    encoding: int | None
    address_size: int


class FrameSection:
    """A section under construction. ``bytes(section)`` gives what is in it so far."""

    def __init__(self, *, is_eh: bool = True, address: int = 0, address_size: int = 8, wide: bool = False) -> None:
        self.is_eh = is_eh
        self.address = address
        self.address_size = address_size
        self.wide = wide
        self._data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def raw(self, data: bytes) -> None:
        """Add bytes as they are: a terminator, or a record of no known kind."""
        self._data += data

    def cie(
        self,
        program: bytes = b"",
        *,
        augmentation: str | None = None,
        code: int = 1,
        data: int = -8,
        ra: int = 16,
        encoding: int | None = 0x1B,
        version: int = 1,
        personality: tuple[int, bytes] = (0x00, b"\0" * 8),
        lsda: int = 0x1B,
        extra: bytes = b"",
    ) -> Cie:
        """Add a CIE; the default augmentation is ``zR`` in ``.eh_frame`` and none in ``.debug_frame``."""
        if augmentation is None:
            augmentation = "zR" if self.is_eh else ""
        body = bytes([version]) + augmentation.encode() + b"\0"
        if version == 4:
            body += bytes([self.address_size, 0])
        body += uleb(code) + sleb(data) + (bytes([ra]) if version == 1 else uleb(ra))
        if augmentation.startswith("z"):
            values = {
                "R": bytes([encoding or 0]),
                "P": bytes([personality[0]]) + personality[1],
                "L": bytes([lsda]),
            }
            body += block(b"".join(values.get(letter, b"") for letter in augmentation[1:]) + extra)
        if "R" not in augmentation:
            encoding = None
        offset = len(self._data)
        self._record((0 if self.is_eh else -1), body + program)
        return Cie(offset, encoding, self.address_size)

    def fde(self, cie: Cie, start: int, size: int, program: bytes = b"", *, augmentation: bytes = b"") -> int:
        """Add an FDE for a function; returns its offset."""
        offset = len(self._data)
        head = 12 if self.wide else 4
        id_size = 8 if self.wide and not self.is_eh else 4
        id_at = offset + head
        encoding = cie.encoding or 0
        width = {0: cie.address_size, 2: 2, 3: 4, 4: 8, 10: 2, 11: 4, 12: 8}[encoding & 0x0F]
        if encoding & 0x70 == 0x10:
            start -= self.address + id_at + id_size
        limit = 1 << 8 * width
        body = (start % limit).to_bytes(width, "little") + (size % limit).to_bytes(width, "little")
        if cie.encoding is not None:
            body += block(augmentation)
        self._record(id_at - cie.offset if self.is_eh else cie.offset, body + program)
        return offset

    def _record(self, identifier: int, body: bytes) -> None:
        id_size = 8 if self.wide and not self.is_eh else 4
        content = (identifier % (1 << 8 * id_size)).to_bytes(id_size, "little") + body
        content += b"\0" * (-(4 + len(content)) % 4)  # DW_CFA_nop
        if self.wide:
            self._data += b"\xff\xff\xff\xff" + len(content).to_bytes(8, "little") + content
        else:
            self._data += len(content).to_bytes(4, "little") + content


def advance(delta: int) -> bytes:
    """Return the shortest DW_CFA_advance_loc for a delta in units of the code alignment."""
    if delta < 0x40:
        return bytes([0x40 | delta])
    for opcode, width in ((2, 1), (3, 2), (4, 4)):
        if delta < 1 << 8 * width:
            return bytes([opcode]) + delta.to_bytes(width, "little")
    raise ValueError(delta)


def def_cfa(register: int, offset: int) -> bytes:
    return b"\x0c" + uleb(register) + uleb(offset)


def offset(register: int, factored: int) -> bytes:
    """Return DW_CFA_offset: saved at CFA + factored * data alignment."""
    return bytes([0x80 | register]) + uleb(factored) if register < 0x40 else b"\x05" + uleb(register) + uleb(factored)
