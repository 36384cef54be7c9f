"""A Sentry event's structure: decoded at once where a client keeps to the types, value by value where it doesn't.

Specification: Sentry's "Event Payloads". What is of a type that only the reader of the member can judge is ``Any``.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from deadreckon.reports import payload
from deadreckon.reports.payload import Line, Lines, Text, lines, members, object_of, position, sequence, texts
from deadreckon.wire import jsontext

__all__ = ["Document", "Exceptions", "Stack", "Thrown", "Traced", "Traces", "WireFrame", "decode", "document_of"]

_LEGACY = "sentry.interfaces."
_LEGACY_NAMES = {"Message": "logentry", "Http": "request"}


class WireFrame(msgspec.Struct, gc=False):
    """A frame of the "Stack Trace Interface"."""

    function: Text | None = None
    raw_function: Text | None = None
    symbol: Text | None = None
    module: Text | None = None
    filename: Text | None = None
    abs_path: Text | None = None
    platform: Text | None = None
    package: Text | None = None
    context_line: Text | None = None
    source_link: Text | None = None
    lineno: Line | None = None
    colno: Line | None = None
    in_app: bool | None = None
    vars: dict[str, Any] | None = None
    pre_context: Lines | None = None
    post_context: Lines | None = None
    instruction_addr: Any = None
    addr_mode: Any = None
    symbol_addr: Any = None
    image_addr: Any = None
    function_id: Any = None


_TEXTS = WireFrame.__struct_fields__[:10]


class Stack(msgspec.Struct, gc=False):
    """A stack, from the caller to the callee.

    Of no client: ``printed``, a stack as JavaScript engines print it, and ``left_out``, how many outermost frames are.
    """

    frames: list[WireFrame | None] | None = None
    registers: Any = None
    instruction_addr_adjustment: Any = None
    printed: Annotated[str, msgspec.Meta(max_length=0)] | None = None
    left_out: Annotated[int, msgspec.Meta(ge=0, le=0)] = 0


class Thrown(msgspec.Struct, gc=False):
    """An exception of the "Exception Interface"."""

    type: Any = None
    value: Any = None
    module: Any = None
    mechanism: Any = None
    thread_id: Any = None
    stacktrace: Stack | None = None


class Traced(msgspec.Struct, gc=False):
    """A thread of the "Threads Interface"."""

    id: Any = None
    name: Any = None
    crashed: Any = None
    current: Any = None
    stacktrace: Stack | None = None


class Exceptions(msgspec.Struct, gc=False):
    """Exceptions, from the root cause to what was thrown last."""

    values: list[Thrown | None]


class Traces(msgspec.Struct, gc=False):
    """Threads."""

    values: list[Traced | None]


class Document(msgspec.Struct, gc=False):
    """An event's members that are read."""

    event_id: Any = None
    exception: Exceptions | None = None
    threads: Traces | None = None
    stacktrace: Stack | None = None
    debug_meta: Any = None
    platform: Any = None
    level: Any = None
    timestamp: Any = None
    release: Any = None
    environment: Any = None
    tags: Any = None
    user: Any = None
    request: Any = None
    fingerprint: Any = None
    logentry: Any = None
    message: Any = None
    sdk: Any = None
    modules: Any = None
    type: Any = None
    logger: Any = None
    server_name: Any = None
    transaction: Any = None
    transaction_info: Any = None
    culprit: Any = None
    dist: Any = None
    contexts: Any = None
    extra: Any = None
    breadcrumbs: Any = None
    template: Any = None
    errors: Any = None
    checksum: Any = None
    time_spent: Any = None
    csp: Any = None
    hpkp: Any = None
    expectct: Any = None
    expectstaple: Any = None


_decoder = msgspec.json.Decoder(Document)


def decode(data: bytes | memoryview, what: str) -> Document:
    """Return an event's document. Raises Malformed where it is no JSON object, LimitExceeded."""
    body = bytes(data)
    if b'"sentry.interfaces.' not in body:
        found = jsontext.decode_as(body, what, _decoder)
        # Where a report by a browser has its event one level deeper, there is nothing of one.
        if found is not None and (found.exception is not None or found.event_id is not None):
            return found
    return document_of(object_of(body, what))


def document_of(told: dict[str, Any]) -> Document:
    """Return the document of an event that is decoded already, and of which nothing is sure."""
    event = _current_names(told)
    found = Document(**{name: event.get(name) for name in Document.__struct_fields__})
    budget = payload.Budget()
    # What was thrown last comes last, and counts most.
    thrown: list[Thrown | None] = [_thrown(v, budget) for v in reversed(_values(event.get("exception")))]
    found.exception = Exceptions(thrown[::-1])
    found.threads = Traces([_traced(v, budget) for v in _values(event.get("threads"))])
    found.stacktrace = _stack(event.get("stacktrace"), budget)
    return found


def _current_names(document: dict[str, Any]) -> dict[str, Any]:
    """Return an event's members under the names they have today."""
    inner = document.get("event")
    if type(inner) is dict and "issue_title" in document:  # An issue that is none of an error, around its event.
        document = {"message": document["issue_title"], "fingerprint": document.get("fingerprint"), **inner}
    if not [name for name in document if name.startswith(_LEGACY)]:
        return document
    found = {}
    for name, value in document.items():
        short = name[len(_LEGACY) :].rpartition(".")[2] if name.startswith(_LEGACY) else name
        found[_LEGACY_NAMES.get(short, short.lower()) if short != name else name] = value
    return found


def _values(told: Any) -> list[dict[str, Any]]:
    """Return the members of an interface: an object with ``values``, a list, or a single one; null ones left out."""
    found = told.get("values", [told]) if type(told) is dict else told
    return [v for v in found if type(v) is dict] if type(found) is list else []


def _thrown(told: dict[str, Any], budget: payload.Budget) -> Thrown:
    found = Thrown(**{name: told.get(name) for name in Thrown.__struct_fields__})
    found.stacktrace = _stack(told.get("stacktrace"), budget)
    return found


def _traced(told: dict[str, Any], budget: payload.Budget) -> Traced:
    found = Traced(**{name: told.get(name) for name in Traced.__struct_fields__})
    found.stacktrace = _stack(told.get("stacktrace"), budget)
    return found


def _stack(told: Any, budget: payload.Budget) -> Stack | None:
    if type(told) is str:
        return Stack(printed=told)
    if type(told) is list:
        told = {"frames": told}
    if type(told) is not dict:
        return None
    before = budget.dropped
    every = budget.take([f for f in sequence(told.get("frames")) if type(f) is dict])
    listed: list[Any] = payload.converted(every, WireFrame, _frame)
    left_out = budget.dropped - before
    return Stack(listed, told.get("registers"), told.get("instruction_addr_adjustment"), left_out=left_out)


def _frame(raw: dict[str, Any]) -> WireFrame:
    """Return a frame whose members are of other types than they should be, as far as they make sense."""
    found = WireFrame(lineno=position(raw.get("lineno")), colno=position(raw.get("colno")))
    for name, value in zip(_TEXTS, texts(raw, _TEXTS), strict=True):
        setattr(found, name, value)
    found.in_app = raw["in_app"] if type(raw.get("in_app")) is bool else None
    found.vars = members(raw.get("vars")) or None
    found.pre_context, found.post_context = lines(raw.get("pre_context")), lines(raw.get("post_context"))
    for name in ("instruction_addr", "addr_mode", "symbol_addr", "image_addr", "function_id"):
        setattr(found, name, raw.get(name))
    return found
