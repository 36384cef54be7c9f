"""Rust panics, with ``RUST_BACKTRACE`` short or full, or with the stack that a sanitizer or Fuchsia prints.

Source: Rust's ``std::panicking`` and ``std::backtrace``. The full form has addresses: return addresses, of every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.textlog.reading import read_log

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]


def read(data: memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a panic. Raises Malformed where there is none."""
    return read_log(data, limits, "rust")
