"""A body of Sentry's store endpoint: one event as JSON, in any of the encodings it is sent in.

The endpoint takes zlib in base64 whatever the headers say, so what a body is encoded in is told by its first bytes;
brotli alone has no such bytes, and is undone by whoever knows the headers (ingest).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.sentry.event import read_event
from deadreckon.wire import encoding

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["MAX_DECODED", "read"]

MAX_DECODED = 64 << 20
"""Bytes of an event without its encodings; Sentry itself takes 1 MB."""


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read an event. Raises Malformed where it is no JSON object, LimitExceeded where it is too large to hold."""
    body = encoding.recognised(data, min(MAX_DECODED, limits.max_bytes)) if _encoded(data) else data
    return read_event(body, "Sentry event", limits, "sentry-event")


def _encoded(data: bytes | memoryview) -> bool:
    return bytes(data[:64]).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{"
