"""Source bundles: the source files of one build, as sentry-cli packs them.

A ZIP archive after eight bytes (``SYSB`` and a version), whose ``manifest.json`` says what each entry is:
``{"files": {entry: {"type": "source", "path": original path}}, "debug_id": ...}``. Source: Sentry "Source Bundles" and
the module documentation of symbolic-debuginfo's ``sourcebundle``.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from typing import IO

from deadreckon.errors import LimitExceeded, Malformed

__all__ = ["BROKEN", "SourceBundle", "check_directory", "same_path"]

_MAX_DIRECTORY = 32 << 20
_MAX_MANIFEST = 64 << 20
_TAIL = 22 + 0xFFFF
_END_OF_DIRECTORY = b"PK\5\6"
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError),
    *(NotImplementedError, ValueError, LookupError, OSError, OverflowError),
)
"""What zipfile raises on damaged, encrypted and unknown content."""

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
"""Unlike ``str.lower``, this keeps a text's length."""


def same_path(path: str) -> str:
    """Return a key that is equal for two spellings of one path; Windows paths differ in case and separators."""
    text = path.replace("\\", "/")
    return text.translate(_LOWER) if text[1:2] == ":" or path.startswith("\\\\") else text


class SourceBundle:
    """A bundle in an open file, which stays the caller's to close.

    Raises Malformed where it isn't one, LimitExceeded where its lists are too long.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        head = stream.read(8)
        if head[:4] != b"SYSB":
            raise Malformed("source bundle", offset=0, expected="SYSB", got=head)
        try:
            check_directory(stream)
            self._zip = zipfile.ZipFile(stream)
            files = json.loads(self._read("manifest.json", _MAX_MANIFEST)).get("files", {})
            self._entries = {
                same_path(info["path"]): entry
                for entry, info in files.items()
                if isinstance(info, dict)
                and isinstance(info.get("path"), str)
                and info.get("type", "source") in {"source", None}
            }
        except LimitExceeded:
            raise
        except (*BROKEN, AttributeError, RecursionError) as e:
            raise Malformed("source bundle", expected="a ZIP archive with manifest.json", got=e) from e

    def __len__(self) -> int:
        return len(self._entries)

    def source(self, path: str, max_bytes: int) -> bytes | None:
        """Return the file that was compiled from a path, None where the bundle has none.

        Raises Malformed where the entry is damaged, LimitExceeded where it is larger than ``max_bytes``.
        """
        entry = self._entries.get(same_path(path))
        if entry is None:
            return None
        try:
            return self._read(entry, max_bytes)
        except LimitExceeded:
            raise
        except BROKEN as e:
            raise Malformed(f"source bundle entry {entry[:200]}", got=e) from e

    def _read(self, entry: str, max_bytes: int) -> bytes:
        with self._zip.open(entry) as member:
            data = member.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise LimitExceeded("source bundle entry bytes", max_bytes, what=entry[:200])
        return data


def check_directory(stream: IO[bytes]) -> None:
    """Refuse a ZIP directory that would take too much memory; zipfile reads all of it at once.

    Raises Malformed where there is none, LimitExceeded.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or at + 22 > len(tail):
        raise Malformed("source bundle", expected="the end record of a ZIP directory", got=f"{size} bytes")
    (directory,) = struct.unpack_from("<I", tail, at + 12)
    if directory > _MAX_DIRECTORY:
        raise LimitExceeded("source bundle directory bytes", _MAX_DIRECTORY, directory)
    stream.seek(0)
