"""Libraries inside Android packages: which one lies at an offset of the file, or has a name.

Since Android 6 the linker maps libraries right out of an APK, where they are stored uncompressed; reports then give the
package and an offset in it. Source: Android developer guide, ``extractNativeLibs``; PKWARE ``APPNOTE.TXT``.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, SymbolError
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.crash import Module

__all__ = ["MAGIC", "extract"]

MAGIC = b"PK\3\4"
_MAX_TAIL = 64 << 20
_MAX_ENTRY = 1 << 30
_MAX_FOUND = 8
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError, ValueError)
_ABIS = {Arch.ARM: ("armeabi-v7a", "armeabi"), Arch.ARM64: ("arm64-v8a",), Arch.X86: ("x86",), Arch.X86_64: ("x86_64",)}


def extract(path: str, module: Module, directory: str) -> list[str]:
    """Write the libraries of a package that may be a module's to ``directory``; return their paths.

    That is the one at the module's offset, else those of its name and architecture. Raises SymbolError where the
    package can't be read, LimitExceeded where a library is too large, OSError.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as package:
            if len(package.infolist()) * 46 > _MAX_TAIL:
                raise LimitExceeded("package entries", _MAX_TAIL // 46, len(package.infolist()), path)
            return [_write(package, entry, directory) for entry in _entries(file.fileno(), package, module)]
    except _BROKEN as e:
        raise SymbolError(f"{path}: {e}") from e


def _entries(descriptor: int, package: zipfile.ZipFile, module: Module) -> Iterator[zipfile.ZipInfo]:
    entries = [e for e in package.infolist() if not e.is_dir()]
    if module.file_offset:
        before = [e for e in entries if e.header_offset <= module.file_offset]
        entry = max(before, key=lambda e: e.header_offset, default=None)
        if entry is not None and module.file_offset < _start(descriptor, entry) + entry.compress_size:
            yield entry
        return
    name = module.code_file.rpartition("!")[2].rpartition("/")[2]
    named = [e for e in entries if e.filename.rpartition("/")[2] == name]
    fitting = [e for e in named if any(f"/{abi}/" in f"/{e.filename}" for abi in _ABIS.get(module.arch, ()))]
    if fitting or len(named) == 1 or module.code_id is not None:
        yield from (fitting or named)[:_MAX_FOUND]


def _start(descriptor: int, entry: zipfile.ZipInfo) -> int:
    """Return where an entry's data begins: its local header may be longer than the directory says."""
    magic, name, extra = _LOCAL_HEADER.unpack(os.pread(descriptor, _LOCAL_HEADER.size, entry.header_offset))
    if magic != MAGIC:
        raise zipfile.BadZipFile(f"no local header of {entry.filename}")
    return entry.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _write(package: zipfile.ZipFile, entry: zipfile.ZipInfo, directory: str) -> str:
    if entry.file_size > _MAX_ENTRY:
        raise LimitExceeded("package entry bytes", _MAX_ENTRY, entry.file_size, entry.filename)
    path = os.path.join(directory, f"{entry.header_offset:x}-{entry.CRC:08x}.so")
    with package.open(entry) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path
