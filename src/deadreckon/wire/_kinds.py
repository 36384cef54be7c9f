"""What archives look like from outside: their kinds, told by the first bytes.

Magic numbers: file(1)'s magic database, APPNOTE.TXT 4.3 (zip), POSIX.1-2017 pax (ustar), RFC 1952 (gzip), RFC 8878
(zstd), the xz, lzip and LZ4 frame specifications, ECMA-119 8.1 (iso9660), [MS-CAB] 2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.wire.snapshot import is_snapshot

if TYPE_CHECKING:
    import mmap

__all__ = ["COMPRESSED", "HEAD_BYTES", "sniff"]

HEAD_BYTES = 0x8006
"""How much of a file's beginning ``sniff`` looks at: iso9660 has its magic after sixteen sectors."""

COMPRESSED = frozenset({"gz", "xz", "bz2", "zst", "lzma", "lz", "lz4", "Z", "rpm"})
"""Kinds which wrap one stream without a directory; an rpm is a compressed cpio behind a header."""

# Executables, dumps and debug files stay what they are even with an archive inside or appended: self-extracting
# installers are PE files, and an isohybrid or a polyglot must not take a report's place (test_content_beats_container).
_CONTENT = (
    b"MZ",
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"MDMP",
    b"plcrash",
    b"Microsoft C/C++",
    b"SYMC",
    b"CMYS",
    b"MODULE ",
)

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"PK\x07\x08", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"\x1f\x8b\x08", "gz"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"BZh", "bz2"),
    (0, b"\x28\xb5\x2f\xfd", "zst"),
    (0, b"LZIP", "lz"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"\x1f\x9d", "Z"),
    (0, b"MSCF\x00\x00\x00\x00", "cab"),
    (0, b"!<arch>\n", "ar"),
    (0, b"\xed\xab\xee\xdb", "rpm"),
    (0, b"xar!", "xar"),
    (0, b"070701", "cpio"),
    (0, b"070702", "cpio"),
    (0, b"070707", "cpio"),
    (0, b"Rar!\x1a\x07\x00", "rar"),
    (0, b"Rar!\x1a\x07\x01\x00", "rar"),
    (2, b"-lh", "lha"),
    (2, b"-lz", "lha"),
    (257, b"ustar", "tar"),
    (0x8001, b"CD001", "iso"),
)


def sniff(head: bytes | bytearray | memoryview | mmap.mmap) -> str | None:
    """Return the kind of archive these first HEAD_BYTES (or fewer) begin, None for anything else.

    Kinds: zip (apk, ipa and jar too), 7z, gz, xz, bz2, zst, lz, lz4, lzma, Z, tar, cab, ar (deb too), rpm, xar, cpio,
    iso, lha, rar.
    """
    start = bytes(head[:512])
    if start.startswith(_CONTENT) or is_snapshot(start):
        return None
    for offset, magic, kind in MAGIC:
        if head[offset : offset + len(magic)] == magic and _plausible(kind, start):
            return kind
    if _is_lzma(start):
        return "lzma"
    return "tar" if _is_old_tar(start) else None


def _plausible(kind: str, start: bytes) -> bool:
    # Magics short enough for text and raw memory to hit by accident need a second field to agree.
    if kind == "Z":
        return len(start) > 2 and not start[2] & 0x60 and 9 <= start[2] & 0x1F <= 16
    if kind == "bz2":
        return start[3:4].isdigit() and start[4:10] in {b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"}
    if kind == "lha":
        return len(start) > 21 and start[6] == ord("-") and start[20] <= 3
    return True


def _is_lzma(start: bytes) -> bool:
    # The .lzma header has no magic: properties (in practice always lc=3 lp=0 pb=2), dictionary size, content size.
    if len(start) < 14 or start[0] != 0x5D:
        return False
    dictionary, size = int.from_bytes(start[1:5], "little"), int.from_bytes(start[5:13], "little")
    power = dictionary.bit_length() - 1
    return dictionary >= 4096 and dictionary in {1 << power, 3 << power >> 1} and (size >> 38 == 0 or size == 2**64 - 1)


def _is_old_tar(start: bytes) -> bool:
    # A v7 header has no magic, only the sum of its bytes with the sum's own field blank; some writers summed as signed.
    digits = start[148:156].strip(b" \x00")
    if len(start) < 512 or not start[0] or not digits or digits.strip(b"01234567"):
        return False
    counted = start[:148] + b" " * 8 + start[156:]
    return int(digits, 8) in {sum(counted), sum(counted) - 256 * sum(b > 127 for b in counted)}
