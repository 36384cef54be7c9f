"""The only importers of numba: plain functions over arrays, compiled once and cached."""

from __future__ import annotations

import importlib

__all__ = ["MODULES", "warm"]

MODULES = ("cfi", "ranges", "unwind")
"""The files that hold kernels; their signatures are fixed, so importing one compiles or loads it."""


def warm() -> int:
    """Compile or load every kernel; returns how many there are."""
    for name in MODULES:
        importlib.import_module(f"deadreckon.kernels.{name}")
    from deadreckon.kernels._jit import KERNELS  # noqa: PLC0415

    return len(KERNELS)
