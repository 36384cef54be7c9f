"""RAM bundles of React Native: a bundle whose modules are loaded one by one.

iOS: one indexed file, ``u32 magic, u32 modules, u32 startup code bytes``, a table of ``u32 offset, u32 length`` and the
code, all little-endian. Offsets count from the end of the table; an entry of zeros is a module that isn't there; each
module ends with a NUL byte. Android: a directory ``js-modules`` with a file ``UNBUNDLE`` (the magic) and ``N.js``.
Source: https://github.com/facebook/metro, "Bundle Formats", Indexed RAM bundle and File RAM bundle.
"""

from __future__ import annotations

import numpy as np

from deadreckon.errors import Malformed

__all__ = ["MAGIC", "RamBundle", "is_ram_bundle"]

MAGIC = 0xFB0BD1E5
_HEADER = 12


def is_ram_bundle(head: bytes | memoryview) -> bool:
    """Tell whether bytes begin as an indexed RAM bundle, or are an ``UNBUNDLE`` file."""
    return bytes(head[:4]) == MAGIC.to_bytes(4, "little")


class RamBundle:
    """An indexed RAM bundle. Raises Malformed where its header isn't one; damaged modules are not there."""

    def __init__(self, data: bytes | memoryview) -> None:
        if not is_ram_bundle(data) or len(data) < _HEADER:
            raise Malformed("RAM bundle", offset=0, expected=f"{MAGIC:#x}", got=bytes(data[:4]))
        count, self._startup = np.frombuffer(data, "<u4", 2, 4).tolist()
        self._code = _HEADER + 8 * count
        if self._code + self._startup > len(data):
            raise Malformed("RAM bundle", offset=4, expected=f"{count} modules", got=f"{len(data)} bytes")
        self._table = np.frombuffer(data, "<u4", 2 * count, _HEADER).reshape(-1, 2)
        self._data = memoryview(data)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def startup(self) -> bytes:
        """The code that runs before any module."""
        return bytes(self._data[self._code : self._code + self._startup]).removesuffix(b"\0")

    def module(self, number: int) -> bytes | None:
        """Return a module's code, None where the bundle has no such module."""
        if not 0 <= number < len(self._table):
            return None
        offset, length = self._table[number].tolist()
        start = self._code + offset
        if (offset == 0 and length == 0) or start + length > len(self._data):
            return None
        return bytes(self._data[start : start + length]).removesuffix(b"\0")
