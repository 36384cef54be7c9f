"""What a line of a log says went wrong.

A finding is a REPORT (a tool says all about one error), a SIGNAL (how the process ended) or a MESSAGE (why the program
ended itself, which it says before it raises the signal). ``sanitizers``, ``messages``, ``signals`` and ``kernel`` have
a row for each way tools say it, ``rules`` looks for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["LEAKS", "NULL_PAGES", "Finding", "Kind", "Make", "Row", "decimal", "hexadecimal", "signal_name"]


class Kind(Enum):
    """What a finding tells; see the module."""

    REPORT = "report"
    SIGNAL = "signal"
    MESSAGE = "message"


@dataclass(slots=True)
class Finding:
    """One thing that went wrong. ``crash_type`` is its name in ClusterFuzz's vocabulary, as issue trackers have it."""

    kind: Kind
    mechanism: str
    type: str
    value: str = ""
    crash_type: str = ""
    line: int = 0
    address: int | None = None
    pid: int | None = None
    thread: int | None = None
    file: str | None = None
    lineno: int | None = None
    column: int | None = None
    function: str | None = None
    verdict: bool = False
    """A message that judges what happened, where others say why the program ends itself."""
    attributes: dict[str, str] = field(default_factory=dict)


Make = Callable[[re.Match[str], Sequence[str], int], Finding | None]
"""Makes a finding of a match, the log's lines, and the number of the line; None where it is none after all."""

Row = tuple[str, str, Make]
"""A word that must be in the line, the regular expression that is then looked for, and what makes the finding."""

LEAKS = "memory leak"
"""Type of a leak report's headline."""


def hexadecimal(text: str | None) -> int | None:
    """Return a number written in hex, None for None and ""."""
    return int(text, 16) if text else None


def decimal(text: str | None) -> int | None:
    """Return a number written in decimal, None for None and ""."""
    return int(text) if text else None


NULL_PAGES = 0x10000
"""Addresses below are taken for offsets from a null pointer."""


def signal_name(signal: str, address: int | None) -> str:
    """Return ClusterFuzz's name of a signal."""
    if signal in {"SIGSEGV", "SEGV", "access-violation"}:
        return "UNKNOWN" if address is None or address >= NULL_PAGES else "Null-dereference"
    return {
        "SIGABRT": "Abrt", "ABRT": "Abrt", "SIGILL": "Ill", "ILL": "Ill", "illegal-instruction": "Ill",
        "SIGBUS": "Bus", "BUS": "Bus", "SIGFPE": "Floating-point-exception", "FPE": "Floating-point-exception",
        "TRAP": "Trap", "breakpoint": "Breakpoint", "int-divide-by-zero": "Divide-by-zero",
        "flt-divide-by-zero": "Divide-by-zero", "int-overflow": "Integer-overflow",
    }.get(signal, signal if signal.startswith("SIG") else signal[:1].upper() + signal[1:])  # fmt: skip
