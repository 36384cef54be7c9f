"""Files named ``.btt``, told by what is in them: our snapshot container, a Backtrace JSON report, or nothing public.

The binary that Backtrace's own ``ptrace`` writes has no public layout and no public signature, so nothing is read out
of it: any frame would be invented. Other programs use the name too (terrain of games, traces of Bluetooth).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from deadreckon.errors import Unsupported
from deadreckon.reports import backtrace, snapshot, sniff
from deadreckon.reports.probe import Probe
from deadreckon.wire.snapshot import is_snapshot

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]

_HASHED = 64 << 20


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read a snapshot or a JSON report. Raises Unsupported, with size and hash, for any other content."""
    view = memoryview(data)
    head = bytes(view[:512])
    if is_snapshot(head):
        return snapshot.read(view, limits)
    if sniff.backtrace_json(Probe(view)):
        return backtrace.read(view, limits)
    digest = hashlib.sha256()
    for start in range(0, len(view), _HASHED):
        digest.update(view[start : start + _HASHED])
    raise Unsupported(
        f"{len(view)} bytes, SHA-256 {digest.hexdigest()}, beginning with {head[:16].hex(' ') or 'nothing'}: neither a "
        "Backtrace JSON report nor a deadreckon snapshot. What Backtrace's own tools write has no public layout, so no "
        "frame is taken from it. Ask the vendor's tools for the object's json.gz, or configure one that converts it: "
        "setting btt.converter"
    )
