"""Native programs that say why they end: C++ terminate, assertions, checks, glibc's aborts, signal handlers' stacks.

``terminate called``, ``Assertion failed``, ``Check failed``, V8's and Node's fatal errors, ``*** stack smashing
detected ***``, ``free(): invalid pointer``, glog's and Abseil's signal handlers, ``Segmentation fault (core dumped)``,
a missing library; with backtraces of backtrace(3), Chromium, V8, WebKit, glog, Boost.Stacktrace and Apple's form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.textlog.reading import read_log

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]


def read(data: memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a program's last words. Raises Malformed where there are none."""
    return read_log(data, limits, "terminate")
