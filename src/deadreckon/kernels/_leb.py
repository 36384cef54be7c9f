"""Numbers as DWARF writes them: LEB128 (DWARF 5, 7.6) and fixed sizes, little-endian."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel

__all__ = ["BYTE", "HALF", "QUAD", "SIGNED", "UNSIGNED", "WORD", "fixed", "leb128", "sleb", "uleb"]

# Sizes to read. numba compiles a helper again for each literal it is called with, but once for these.
BYTE, HALF, WORD, QUAD = np.int64(1), np.int64(2), np.int64(4), np.int64(8)
UNSIGNED, SIGNED = np.int64(0), np.int64(1)


@kernel()
def leb128(data, at, end, signed):
    """Return (value as u64, next offset); next is -1 where the number runs past ``end`` or past 64 bits."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < 70:
        byte = np.uint64(data[at])
        at += 1
        if shift < 64:
            value |= (byte & np.uint64(0x7F)) << shift
        shift += np.uint64(7)
        if byte < 0x80:
            if signed and shift < 64 and byte & np.uint64(0x40):
                value |= ~np.uint64(0) << shift
            return value, at
    return np.uint64(0), -1


@kernel()
def uleb(data, at, end):
    """Return (value as i64, next offset) of an unsigned LEB128; next is -1 on error."""
    value, at = leb128(data, np.int64(at), end, UNSIGNED)
    return np.int64(value), at


@kernel()
def sleb(data, at, end):
    """Return (value as i64, next offset) of a signed LEB128; next is -1 on error."""
    value, at = leb128(data, np.int64(at), end, SIGNED)
    return np.int64(value), at


@kernel()
def fixed(data, at, size):
    """Return ``size`` bytes at ``at`` as a little-endian u64; the caller has checked the bounds."""
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return value
