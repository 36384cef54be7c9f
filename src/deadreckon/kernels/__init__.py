"""The only importers of numba: plain functions over arrays, compiled once and cached."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

__all__ = ["MODULES", "cold", "warm"]

MODULES = ("cfi", "decode", "jsonparts", "nesting", "pe", "positions", "ranges", "scopes", "unwind")
"""The files that hold kernels; their signatures are fixed, so importing one compiles or loads it."""


def warm() -> int:
    """Compile or load every kernel; returns how many there are."""
    for name in MODULES:
        importlib.import_module(f"deadreckon.kernels.{name}")
    from deadreckon.kernels._jit import KERNELS  # noqa: PLC0415

    return len(KERNELS)


def cold() -> bool:
    """Tell whether the next use has to compile kernels, which takes some twenty seconds, once a machine."""
    from deadreckon.kernels._jit import CACHE_DIR, JIT  # noqa: PLC0415

    if not JIT:
        return False
    if CACHE_DIR is None:
        return True
    ours = f".py{sys.version_info.major}{sys.version_info.minor}."
    cached = {f.name.partition(".")[0] for f in Path(CACHE_DIR).rglob("*.nbc") if ours in f.name}
    return not cached.issuperset(MODULES)
