"""``deadreckon doctor``: what is installed, what is missing, and what is lost without it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

from deadreckon import kernels
from deadreckon.config import store_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.config import Config

__all__ = ["report"]

_PACKAGES = ("symbolic", "sourcemap", "pyelftools", "minidump", "libarchive-c", "numba", "numpy", "msgspec")


def report(config: Config) -> Iterator[str]:
    """Yield one line a fact; a line that begins with ``!`` names something missing and what to do."""
    yield f"  python {platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in _PACKAGES:
        try:
            yield f"  {name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"! {name} is not installed; pip install {name}"
    yield from _archives()
    yield from _demangling()
    yield from _disassembling()
    yield from _kernels()
    yield from _store(store_path(config))


def _archives() -> Iterator[str]:
    from deadreckon.wire import archive

    backend = archive.backend()
    if backend.startswith("libarchive"):
        yield f"  archives: {backend}"
    else:
        yield f"! archives: {backend}: only zip, tar, gz, bz2, xz; for the rest install libarchive (libarchive13)"


def _demangling() -> Iterator[str]:
    from deadreckon.symbols import demangle

    backend = demangle.backend()
    if backend:
        yield f"  C++ names: {backend}"
    else:
        yield "! C++ names stay mangled: no C++ runtime library found (Debian: libstdc++6)"


def _disassembling() -> Iterator[str]:
    from deadreckon.analysis import instruction

    if name := instruction.backend():
        yield f"  instructions: {name}"
    else:
        yield "! instructions: crashes don't show theirs, nor what it accessed; pip install 'deadreckon[disasm]'"


def _kernels() -> Iterator[str]:
    from deadreckon.kernels._jit import CACHE_DIR, JIT

    if not JIT:
        yield "! kernels: numba is switched off (NUMBA_DISABLE_JIT); everything works, some hundred times slower"
    elif CACHE_DIR is None:
        yield "! kernels: no writable cache directory, so every process compiles for half a minute; set NUMBA_CACHE_DIR"
    elif kernels.cold():
        yield f"! kernels: not compiled yet; `deadreckon warm` does it ahead of the first crash ({CACHE_DIR})"
    else:
        yield f"  kernels: compiled ({CACHE_DIR})"


def _store(path: str) -> Iterator[str]:
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "."
    if os.access(existing, os.W_OK):
        yield f"  store: {path}"
    else:
        yield f"! store: {path} can't be written; symbols are not kept from one run to the next; set DEADRECKON_STORE"
