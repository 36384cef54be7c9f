"""The native fixtures' programs, which are committed compressed where they are large."""

from __future__ import annotations

import lzma
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def unpacked(folder: Path, target: Path) -> Path:
    """Write the files of a variant's folder, unpacked, into another one, and return that."""
    for file in folder.iterdir():
        if file.suffix == ".xz":
            (target / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
        elif file.is_file():
            shutil.copy(file, target)
    return target
