"""Crash inputs: bytes to a RawCrash. This is the registry: one ordered table, each reader imported when it matches."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from deadreckon.errors import UnknownFormat
from deadreckon.reports import sniff
from deadreckon.reports.probe import HEAD_BYTES, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["FORMATS", "HEAD_BYTES", "Probe", "ReportFormat", "detect", "read"]


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """One kind of crash input.

    The module has ``read(data: memoryview, limits: ReportLimits)``, which returns a RawCrash, or a list of them where
    the format holds several.
    """

    name: str
    module: str
    sniff: Callable[[Probe], bool]


FORMATS: tuple[ReportFormat, ...] = (
    ReportFormat("minidump", "deadreckon.reports.minidump", sniff.minidump),
    ReportFormat("elfcore", "deadreckon.reports.elfcore", sniff.elfcore),
    ReportFormat("javascript", "deadreckon.reports.javascript", sniff.javascript),
)
"""Most specific first; every known input matches exactly one (tests/reports/test_registry.py)."""


def detect(probe: Probe, kind: str | None = None) -> ReportFormat | None:
    """Return the format named ``kind``, else the one whose content this is, else None.

    Raises UnknownFormat for a ``kind`` that is not in the table.
    """
    if kind:
        for form in FORMATS:
            if form.name == kind:
                return form
        raise UnknownFormat(f"no reader for kind {kind!r}; known: {', '.join(f.name for f in FORMATS)}")
    return next((form for form in FORMATS if form.sniff(probe)), None)


def read(form: ReportFormat, data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read an input's crashes, at least one. Raises ReportError where its header can't be read."""
    found = cast("RawCrash | list[RawCrash]", importlib.import_module(form.module).read(data, limits))
    return found if isinstance(found, list) else [found]
