"""Which jobs share symbols: told by the main module of a minidump, cheaply enough for every producer to ask."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import os

__all__ = ["affinity", "shard_of"]

_MODULE_LIST = 4
_MAX_STREAMS = 1024
_SHARDS = 256


def affinity(source: str | os.PathLike[str] | bytes) -> str | None:
    """Return the debug id of a minidump's main module as the dump spells it, None for anything else.

    Layouts: MINIDUMP_HEADER, MINIDUMP_DIRECTORY, MINIDUMP_MODULE_LIST and the CodeView record it points to, as in
    Windows' minidumpapiset.h. Nothing else is looked at: a wrong answer costs a table that is loaded twice.
    """
    import io  # noqa: PLC0415

    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            return _main_module(file)
    except (OSError, ValueError, OverflowError, struct.error):
        return None


def shard_of(key: str) -> str:
    """Return the shard of jobs that share symbols: one of 256, for they are never removed."""
    return f"{hashlib.blake2b(key.encode('utf-8', 'surrogateescape'), digest_size=2).digest()[0] % _SHARDS:02x}"


def _main_module(file: BinaryIO) -> str | None:
    signature, _, streams, directory = struct.unpack("<4sIII", file.read(16))
    if signature != b"MDMP":
        return None
    file.seek(directory)
    for kind, _, offset in struct.iter_unpack("<III", file.read(12 * min(streams, _MAX_STREAMS))):
        if kind != _MODULE_LIST:
            continue
        file.seek(offset)
        head = file.read(4 + 108)
        size, record = struct.unpack_from("<II", head, 4 + 76)
        if not 4 < size <= 4096:
            return None
        file.seek(record)
        found = file.read(size)
        if found[:4] == b"RSDS":
            return found[4:24].hex()
        return found[4:24].hex() if found[:4] in {b"LEpB", b"NB10"} else None
    return None
