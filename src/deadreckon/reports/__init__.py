"""Crash inputs: bytes to a RawCrash. This is the registry: one ordered table, each reader imported when it matches."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from deadreckon.errors import UnknownFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["FORMATS", "HEAD_BYTES", "ReportFormat", "detect", "read"]

HEAD_BYTES = 4096
"""How many of an input's first bytes ``sniff`` gets to see."""


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """One kind of crash input. The module has ``read(data, limits) -> RawCrash``."""

    name: str
    module: str
    sniff: Callable[[bytes], bool]


def _is_elf_core(head: bytes) -> bool:
    order: Literal["little", "big"] = "big" if head[5:6] == b"\2" else "little"
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], order) == 4  # ET_CORE


FORMATS: tuple[ReportFormat, ...] = (
    ReportFormat("minidump", "deadreckon.reports.minidump", lambda head: head[:4] in {b"MDMP", b"PMDM"}),
    ReportFormat("elfcore", "deadreckon.reports.elfcore", _is_elf_core),
)
"""Most specific first; every known input matches exactly one (tests/reports/test_registry.py)."""


def detect(head: bytes, kind: str | None = None) -> ReportFormat | None:
    """Return the format named ``kind``, else the one whose content this is, else None.

    Raises UnknownFormat for a ``kind`` that is not in the table.
    """
    if kind:
        for form in FORMATS:
            if form.name == kind:
                return form
        raise UnknownFormat(f"no reader for kind {kind!r}; known: {', '.join(f.name for f in FORMATS)}")
    return next((form for form in FORMATS if form.sniff(head)), None)


def read(form: ReportFormat, data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read an input with a format's reader. Raises ReportError where its header can't be read."""
    reader = importlib.import_module(form.module).read
    return cast("RawCrash", reader(data, limits))
