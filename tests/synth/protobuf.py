"""Writes Protocol Buffers' wire format: numbers, then fields, then messages as the concatenation of fields."""

from __future__ import annotations

import struct


def varint(value: int) -> bytes:
    """Encode a u64, or a negative int64 as its two's complement."""
    value %= 1 << 64
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(g | 0x80 for g in groups[:-1]), groups[-1]])


def zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def tag(number: int, wire_type: int) -> bytes:
    return varint(number * 8 + wire_type)


def number(field: int, value: int) -> bytes:
    return tag(field, 0) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    return tag(field, 1) + struct.pack("<Q", value)


def double(field: int, value: float) -> bytes:
    return tag(field, 1) + struct.pack("<d", value)


def blob(field: int, value: bytes | str) -> bytes:
    """Encode bytes, a string, or a message given as its bytes."""
    data = value.encode() if isinstance(value, str) else value
    return tag(field, 2) + varint(len(data)) + data


def group(field: int, content: bytes) -> bytes:
    return tag(field, 3) + content + tag(field, 4)


def fixed32(field: int, value: int) -> bytes:
    return tag(field, 5) + struct.pack("<I", value)


def single(field: int, value: float) -> bytes:
    return tag(field, 5) + struct.pack("<f", value)


def packed(field: int, values: list[int]) -> bytes:
    return blob(field, b"".join(map(varint, values)))
