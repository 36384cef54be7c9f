"""Sentry's envelopes: a header, then items with headers of their own, each of them a line of JSON.

Specification: Sentry's "Envelopes" and "Envelope Items". Some clients (JavaScript's) leave out an item's ``length``;
its payload is then one line. Items that tell of no crash are passed over, as the specification asks for unknown ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from deadreckon.errors import LimitExceeded, Malformed, ReportError, Unsupported
from deadreckon.model.event import Attachment, Diagnostic
from deadreckon.reports import payload
from deadreckon.reports.enclosed import read_enclosed
from deadreckon.reports.payload import kept, object_of, text
from deadreckon.reports.sentry.dump import with_dump
from deadreckon.reports.sentry.event import read_event
from deadreckon.reports.sentry.packed import is_packed
from deadreckon.reports.sentry.store import MAX_DECODED
from deadreckon.wire import encoding, multipart

if TYPE_CHECKING:
    import mmap

    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["Envelope", "Item", "parse", "read"]

MAX_ITEMS = 4096
_MAX_HEADER = 1 << 20
_EVENTS = frozenset({"event", "transaction"})
_DUMPS = frozenset({"event.minidump", "unreal.context", "event.unreal"})
_REPORTS = {"user_report": "user_report", "feedback": "feedback"}


class Item(NamedTuple):
    """An item: its header's members, and its payload."""

    header: dict[str, Any]
    data: memoryview

    @property
    def type(self) -> str:
        """What it is, "" where the header doesn't say."""
        return text(self.header.get("type"), 64) or ""


@dataclass(slots=True)
class Envelope:
    """An envelope's header and items; ``problem`` says where it stops making sense."""

    header: dict[str, Any]
    items: list[Item] = field(default_factory=list)
    problem: Malformed | None = None


def parse(data: bytes | memoryview) -> Envelope:
    """Take an envelope apart. Raises Malformed where its header is none, LimitExceeded beyond MAX_ITEMS."""
    body = multipart.searchable(data)
    view = memoryview(body)
    head = body[:64]
    at = len(head) - len(head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n"))
    line, at = _line(body, at)
    found = Envelope(object_of(line, "envelope header"))
    while at < len(body):
        start = at
        line, at = _line(body, at)
        if not line.strip():
            continue
        try:
            header = object_of(line, "envelope item header")
        except Malformed as e:
            e.offset = start + (e.offset or 0)
            found.problem = e
            break
        if len(found.items) >= MAX_ITEMS:
            raise LimitExceeded("envelope.max_items", MAX_ITEMS, what="envelope")
        length = header.get("length")
        if type(length) is int and length >= 0:
            end = at + length
            if end > len(body):
                found.problem = Malformed("envelope item", offset=at, expected=f"{length} bytes", got=len(body) - at)
            content = view[at : min(end, len(body))]
            at = end + (body[end : end + 1] == b"\n")
        else:
            end = body.find(b"\n", at)
            end = end if end >= 0 else len(body)
            content = view[at:end]
            at = end + 1
        found.items.append(Item(header, content))
    return found


def _line(body: bytes | mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return the line at an offset, and where the next one begins."""
    end = body.find(b"\n", at, at + _MAX_HEADER)
    if end < 0:
        end = min(len(body), at + _MAX_HEADER)
    return body[at:end], end + 1


def read(data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read an envelope's events, and the minidump of one that has one.

    Raises Malformed where nothing can be read, Unsupported where nothing in it tells of an event.
    """
    head = bytes(data[:64])
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{":
        data = encoding.recognised(data, min(MAX_DECODED, limits.max_bytes))
    envelope = parse(data)
    found: list[RawCrash] = []
    error: ReportError | None = envelope.problem
    attachments: list[Attachment] = []
    extra: dict[str, Any] = {}
    packed: list[memoryview] = []
    dump: tuple[str, memoryview] | None = None
    for item in envelope.items:
        sort = item.type
        try:
            if sort in _EVENTS:
                found.append(read_event(item.data, f"envelope's {sort}", limits, "sentry-envelope"))
            elif sort in _REPORTS:
                extra[_REPORTS[sort]] = kept(object_of(item.data, f"envelope's {sort}"))
        except ReportError as e:
            error = error or e
        if sort not in {"attachment", "unreal_report"}:
            continue
        name = text(item.header.get("filename"), 1024) or "attachment"
        kind = text(item.header.get("attachment_type"), 64) or ""
        if dump is None and (kind in _DUMPS or sort == "unreal_report" or bytes(item.data[:4]) == b"MDMP"):
            dump = (name, item.data)
        elif is_packed(name, kind):
            packed.append(item.data)
        else:
            of_type = text(item.header.get("content_type"), 256)
            attachments.append(Attachment(name=name, size=len(item.data), content_type=of_type))
    event_id = payload.event_id(envelope.header.get("event_id"))
    if dump is not None:
        try:
            found = with_dump(read_enclosed(dump[1], dump[0], limits), found[0] if found else None, packed, limits)
        except ReportError as e:
            error = error or e
    if not found:
        if error is not None:
            raise error
        kinds = ", ".join(sorted({item.type or "?" for item in envelope.items})[:8]) or "nothing"
        raise Unsupported(f"the envelope holds no event: {kinds}")
    for crash in found:
        crash.event_id = crash.event_id or (event_id if len(found) == 1 else None)
        crash.attributes |= extra
        if error is not None:
            where = error.where() if isinstance(error, Malformed) else None
            crash.diagnostics.append(
                Diagnostic(code=error.code, severity="warning", stage="read", message=str(error), where=where or None)
            )
    if len(found) == 1:
        found[0].attachments += attachments
    return found
