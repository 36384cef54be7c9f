"""Files that belong to a debug file and lie beside it: Apple's BCSymbolMaps and UUID maps.

An Xcode archive keeps them as ``BCSymbolMaps/<UUID>.bcsymbolmap`` next to ``dSYMs/``, and a UUID map as
``<name>.dSYM/Contents/Resources/<UUID>.plist``; others put all of them into one directory. Neither file says whose it
is: the name does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded
from deadreckon.objects import bitcode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

__all__ = ["hidden_names", "name_of"]

_LEVELS = 6
"""Directories above a dSYM's DWARF file up to the Xcode archive's own."""
_MAX_BYTES = 256 << 20
_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.(?:bcsymbolmap|plist)", re.ASCII | re.IGNORECASE)


def name_of(path: str) -> str | None:
    """Return the name under which a companion file is looked for, None where the path's is no companion's."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if not _NAME.fullmatch(name):
        return None
    uuid, _, suffix = name.partition(".")
    return f"{uuid.upper()}.{suffix.lower()}"


def hidden_names(path: str, uuid: UUID) -> list[str] | None:
    """Return the names of the BCSymbolMap of a Mach-O file, None where there is none.

    Raises Malformed, LimitExceeded, OSError.
    """
    wanted = [uuid]
    for found in _files(path, uuid, ".plist"):
        original = bitcode.original_uuid(_read(found))
        if original is not None:
            wanted.insert(0, original)
            break
    for name in wanted:
        for found in _files(path, name, ".bcsymbolmap"):
            return bitcode.hidden_names(_read(found))
    return None


def _files(path: str, uuid: UUID, suffix: str) -> Iterator[Path]:
    directory = Path(os.path.abspath(path)).parent
    for above in [directory, *directory.parents][:_LEVELS]:
        for folder in (above, above / "BCSymbolMaps"):
            for name in (str(uuid).upper(), str(uuid)):
                found = folder / f"{name}{suffix}"
                if found.is_file():
                    yield found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise LimitExceeded("BCSymbolMap bytes", _MAX_BYTES, what=str(path))
    return data
