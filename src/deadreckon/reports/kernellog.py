"""Oopses, panics and KASAN's reports of the Linux kernel, as dmesg, a console or logcat shows them; Trusty's crashes.

Addresses of kernels since 4.15 are hashed, and those of older ones need the kernel's own symbols: frames keep the names
that the kernel gives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.textlog.reading import read_log

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]


def read(data: memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a kernel's log. Raises Malformed where it tells of no crash."""
    return read_log(data, limits, "kernel")
