"""Reports of AddressSanitizer and its family, and of the fuzzers and tools that go with them.

AddressSanitizer, HWAddressSanitizer, MemorySanitizer, ThreadSanitizer, LeakSanitizer, UndefinedBehaviorSanitizer and
control flow integrity, libFuzzer, Centipede and SystemSan. Addresses of frames are ready to look up; modules are found
by their build ids, where the report has them (``(BuildId: ...)``, Fuchsia's lists).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.textlog.reading import read_log

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]


def read(data: memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a log's errors, one crash each; what a program says before it dies of a signal is one with the signal.

    Raises Malformed where there is none.
    """
    return read_log(data, limits, "sanitizer")
