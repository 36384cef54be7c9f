"""The only importers of numba: plain functions over arrays, compiled once and cached."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

__all__ = ["MODULES", "cold", "warm"]

MODULES = (
    "unwind",
    "scopes",
    "cfi",
    "tokens",
    "marks",
    "jsonparts",
    "lines",
    "alignment",
    "pe",
    "decode",
    "positions",
    "ranges",
    "nesting",
)
"""The files that hold kernels, the longest to compile first; signatures are fixed, so importing compiles or loads."""


def warm() -> int:
    """Compile or load every kernel; returns how many there are. Where some are missing, all processors compile."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (slow to import, rarely needed)

    from deadreckon.kernels._jit import CACHE_DIR, KERNELS  # noqa: PLC0415

    if CACHE_DIR is not None and cold():
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_compile, MODULES))
    for name in MODULES:
        importlib.import_module(f"deadreckon.kernels.{name}")
    return len(KERNELS)


def _compile(name: str) -> None:
    """Fill the cache with one file's kernels; where that fails, the process that imports them says why."""
    import subprocess  # noqa: PLC0415

    program = f"import deadreckon.kernels.{name}"
    subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False)  # noqa: S603  (our own)


def cold() -> bool:
    """Tell whether the next use has to compile kernels, which takes the better part of a minute, once a machine."""
    from deadreckon.kernels._jit import CACHE_DIR, JIT  # noqa: PLC0415

    if not JIT:
        return False
    if CACHE_DIR is None:
        return True
    ours = f".py{sys.version_info.major}{sys.version_info.minor}."
    cached = {f.name.partition(".")[0] for f in Path(CACHE_DIR).rglob("*.nbc") if ours in f.name}
    return not cached.issuperset(MODULES)
