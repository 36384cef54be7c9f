"""Rollbar's items: what its clients post to ``/api/1/item/``, as JSON or as the field ``payload`` of a form.

Specification: Rollbar's "Items" API, with what its clients send beside it (``trace_chain``, ``crash_report``,
``telemetry``, ``locals``). Frames are listed with the most recent call last, chains with the root cause last; here
frames are innermost first. What the event has no field of its own for is in ``attributes`` under Rollbar's name for it.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from deadreckon.errors import Malformed, ReportError
from deadreckon.model.crash import RawCrash, RawException, RawFrame
from deadreckon.model.event import Frame
from deadreckon.objects import jspaths
from deadreckon.reports import payload
from deadreckon.reports.backtrace.fields import Reading
from deadreckon.reports.enclosed import overlay, read_enclosed
from deadreckon.reports.payload import (
    NAMELESS,
    Line,
    Lines,
    Text,
    base_name,
    kept,
    lines,
    mapping,
    members,
    object_of,
    position,
    seconds,
    sequence,
    text,
    texts,
)
from deadreckon.wire import jsontext, multipart

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["BODIES", "FINGERPRINT_CHARACTERS", "document", "fingerprint", "read"]

BODIES = ("trace_chain", "trace", "message", "crash_report")
"""What an item's body may be, the first of them that is there counts; the API takes exactly one."""
FINGERPRINT_CHARACTERS = 40
_MAX_TITLE = 255
_KEPT = ("framework", "context", "server", "client", "custom", "telemetry", "attributes", "metadata")
_LEVELS = {"critical": "fatal", "error": "error", "warning": "warning", "info": "info", "debug": "debug"}
_LANGUAGES = {
    "javascript": "javascript",
    "node": "javascript",
    "typescript": "javascript",
    "python": "python",
    "ruby": "ruby",
    "php": "php",
    "java": "java",
    "kotlin": "java",
    "c#": "csharp",
    "csharp": "csharp",
    ".net": "csharp",
    "go": "go",
    "dart": "dart",
    "objective-c": "native",
    "objectivec": "native",
    "swift": "native",
    "c++": "native",
    "rust": "native",
}
_PLATFORMS = {"browser": "javascript", "android": "java", "ios": "native", "dart": "dart"}
_FOREIGN = re.compile(
    r"(?:^|/)(?:node_modules|site-packages|dist-packages|vendor|gems|bower_components|\.venv|venv|virtualenv)(?:/|$)"
)


class _Context(msgspec.Struct, gc=False):
    pre: Lines | None = None
    post: Lines | None = None


class _Wire(msgspec.Struct, gc=False):
    """A frame, as the API has it."""

    filename: Text | None = None
    method: Text | None = None
    class_name: Text | None = None
    code: Text | None = None
    lineno: Line | None = None
    colno: Line | None = None
    context: _Context | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    locals: dict[str, Any] | None = None


class _Trace(msgspec.Struct, gc=False):
    """A trace; ``left_out``, of no client, is how many of its outermost frames are."""

    frames: list[_Wire | None] | None = None
    exception: Any = None
    left_out: Annotated[int, msgspec.Meta(ge=0, le=0)] = 0


class _Body(msgspec.Struct, gc=False):
    trace_chain: list[_Trace | None] | None = None
    trace: _Trace | None = None
    message: Any = None
    crash_report: Any = None
    telemetry: Any = None


class _Data(msgspec.Struct, gc=False):
    """An item's data, as far as it is read."""

    body: _Body
    environment: Any = None
    level: Any = None
    timestamp: Any = None
    code_version: Any = None
    platform: Any = None
    language: Any = None
    uuid: Any = None
    person: Any = None
    request: Any = None
    fingerprint: Any = None
    title: Any = None
    notifier: Any = None
    framework: Any = None
    context: Any = None
    server: Any = None
    client: Any = None
    custom: Any = None
    telemetry: Any = None
    attributes: Any = None
    metadata: Any = None


class _Item(msgspec.Struct, gc=False):
    data: _Data


_decoder = msgspec.json.Decoder(_Item)
_TEXTS = _Wire.__struct_fields__[:4]


def _data_of(told: dict[str, Any]) -> _Data:
    """Return the data of an item of which nothing is sure."""
    data = mapping(told.get("data")) or told
    body = mapping(data.get("body"))
    budget = payload.Budget()
    listed = body.get("trace_chain")
    chain = None if listed is None else [_trace(t, budget) for t in sequence(listed)]
    trace = None if body.get("trace") is None else _trace(body["trace"], budget) or _Trace()
    told_body = _Body(chain, trace, *(body.get(name) for name in _Body.__struct_fields__[2:]))
    return _Data(told_body, *(data.get(name) for name in _Data.__struct_fields__[1:]))


def _trace(told: Any, budget: payload.Budget) -> _Trace | None:
    if type(told) is not dict:
        return None
    before = budget.dropped
    listed = budget.take([f for f in sequence(told.get("frames")) if type(f) is dict])
    frames: list[Any] = payload.converted(listed, _Wire, _frame)
    return _Trace(frames, told.get("exception"), left_out=budget.dropped - before)


def _frame(raw: dict[str, Any]) -> _Wire:
    """Return a frame whose members are of other types than they should be, as far as they make sense."""
    found = _Wire(lineno=position(raw.get("lineno")), colno=position(raw.get("colno")))
    for name, value in zip(_TEXTS, texts(raw, _TEXTS), strict=True):
        setattr(found, name, value)
    if type(raw.get("colno")) is int and raw["colno"] == 0:
        found.colno = 0
    context = mapping(raw.get("context"))
    found.context = _Context(lines(context.get("pre")), lines(context.get("post")))
    found.args = sequence(raw.get("args"))
    found.kwargs, found.locals = members(raw.get("kwargs")), members(raw.get("locals"))
    return found


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read an item. Raises Malformed where it is none, LimitExceeded where it is too large to hold."""
    item = jsontext.decode_as(data, "Rollbar item", _decoder) if _is_json(data) else None
    return _crash(item.data if item is not None else _data_of(document(data)), limits)


def document(data: bytes | memoryview) -> dict[str, Any]:
    """Return a request's JSON: its body, or its form's field ``payload``. Raises Malformed, LimitExceeded."""
    if not _is_json(data) and b"=" in bytes(data[:64]):
        fields = multipart.fields_of(data)
        if "payload" not in fields:
            raise Malformed("Rollbar form", offset=0, expected="a field payload", got=repr(bytes(data[:16])))
        data = fields["payload"].encode()
    return object_of(data, "Rollbar item")


def _is_json(data: bytes | memoryview) -> bool:
    return bytes(data[:64]).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def fingerprint(told: Any) -> str | None:
    """Return how Rollbar keeps a client's fingerprint: as it is up to 40 characters, of a longer one its SHA-1."""
    spelled = text(told)
    if spelled is None or len(spelled) <= FINGERPRINT_CHARACTERS:
        return spelled
    return hashlib.sha1(spelled.encode(), usedforsecurity=False).hexdigest()


def _crash(data: _Data, limits: ReportLimits) -> RawCrash:
    reading = Reading(limits)
    body = data.body
    kind = next((name for name in BODIES if getattr(body, name) is not None), None)
    notifier = mapping(data.notifier)
    server = mapping(data.server)
    platform = _platform(data)
    told = text(data.level, 16)
    own = fingerprint(data.fingerprint)
    crash = RawCrash(
        "rollbar",
        platform=platform,
        timestamp=seconds(data.timestamp),
        event_id=payload.event_id(data.uuid),
        level=_LEVELS.get((told or "").lower()) or ("info" if kind == "message" else "error"),
        title=(text(data.title) or "")[:_MAX_TITLE] or None,
        grouping=[own] if own else None,
        release=text(data.code_version, 256) or text(server.get("sha"), 256),
        environment=text(data.environment, 255),
        user=kept(members(data.person)),
        request=kept(members(data.request)),
        diagnostics=reading.diagnostics,
    )
    for name in _KEPT:
        value = getattr(data, name)
        if name == "telemetry" and value is None:
            value = body.telemetry
        if value is not None and value not in ("", {}, []):
            crash.attributes[name] = kept(value)
    for name, value in (("language", data.language), ("platform", data.platform)):
        if value is not None and (spelled := text(value, 256)) and spelled != platform:
            crash.attributes[name] = spelled
    if crash.event_id is None and (spelled := text(data.uuid, 256)):
        crash.attributes["uuid"] = spelled
    if notifier:
        crash.attributes["sdk"] = {k: kept(v) for k, v in notifier.items() if k != "configured_options"}
    stacks = _Stacks(reading, platform, text(server.get("root"), 4096), text(notifier.get("name"), 256))
    if kind in {"trace", "trace_chain"}:
        chain = (body.trace_chain or []) if kind == "trace_chain" else [body.trace]
        if len(chain) > payload.MAX_EXCEPTIONS:
            reading.problem("limit_exceeded", "body.trace_chain", f"{len(chain)} of them")
        crash.exceptions = [stacks.exception(t) for t in chain[: payload.MAX_EXCEPTIONS] if t is not None]
    if (message := mapping(body.message)) and kind != "crash_report":
        crash.message = text(message.get("body"))
        if extra := {k: kept(v) for k, v in message.items() if k != "body"}:
            crash.attributes["message"] = extra
    return _with_report(crash, body.crash_report, limits) if kind == "crash_report" else crash


def _with_report(crash: RawCrash, told: Any, limits: ReportLimits) -> RawCrash:
    """Read the report of a crash that mobile clients send as text (Apple's or PLCrashReporter's)."""
    raw = text(mapping(told).get("raw"), 16 << 20) or text(told, 16 << 20)
    try:
        if raw is None:
            raise Malformed("body.crash_report", expected="raw, a text", got=type(told).__name__)
        found = read_enclosed(raw.encode(), "crash_report", limits)[0]
    except ReportError as e:
        crash.message = (raw or "")[:4096] or None
        Reading(limits, crash.diagnostics).problem(e.code, "body.crash_report", str(e))
        return crash
    overlay(found, crash)
    found.format = "rollbar"
    return found


def _platform(data: _Data) -> str:
    """Return the platform: by the language, whose version may follow it, else by where the program runs."""
    told = ((data.language, _LANGUAGES), (data.framework, {"node-js": "javascript"}), (data.platform, _PLATFORMS))
    for value, known in told:
        spelled = (text(value, 256) or "").lower()
        found = known.get(spelled) or known.get(spelled.partition(" ")[0])
        if found:
            return found
    if "javascript" in mapping(data.client):
        return "javascript"
    return (text(data.language, 64) or "other").lower().partition(" ")[0]


class _Stacks:
    """Reads traces and their frames; ``root`` is where the application's own code lies."""

    def __init__(self, reading: Reading, platform: str, root: str | None, notifier: str | None) -> None:
        self._reading = reading
        self._lang = None if platform == "native" else platform
        self._root = root.replace("\\", "/").rstrip("/") + "/" if root and root.strip("/") else None
        # rollbar.js counts columns from 0 under Node and from 1 in browsers.
        self._first_column = 0 if notifier == "node_rollbar" else 1
        self._budget = payload.Budget()

    def exception(self, trace: _Trace) -> RawException:
        """Return what a trace says was thrown, with its stack."""
        thrown = mapping(trace.exception)
        details = {k: kept(v) for k, v in thrown.items() if k not in {"class", "message"} and v is not None}
        return RawException(
            text(thrown.get("class"), 4096),
            text(thrown.get("message")) or "",
            mechanism="rollbar",
            frames=self._frames(trace.frames or [], trace.left_out),
            details=details,
        )

    def _frames(self, told: list[_Wire | None], left_out: int) -> list[RawFrame] | None:
        before = self._budget.dropped - left_out
        listed = self._budget.take([f for f in told if f is not None])
        if self._budget.dropped > before:
            self._reading.problem(
                "frame_limit", "trace.frames", f"the outermost {self._budget.dropped - before} frames"
            )
        listed.reverse()
        frame = self._frame
        return [RawFrame(None, False, frame(f)) for f in listed] or None

    def _frame(self, raw: _Wire) -> Frame:
        path, function = raw.filename or None, raw.method or None
        nameless = function in NAMELESS
        column = raw.colno
        if column is not None and not self._first_column:
            column += 1
        place = (None, None) if path is None else _place(path, self._root, self._lang)
        frame = Frame(
            status="missing_symbol" if function is None or nameless else "symbolicated",
            function=None if nameless else function,
            raw_function=function if nameless else None,
            module=raw.class_name or None,
            filename=place[0],
            abs_path=path,
            lineno=raw.lineno or None,
            colno=column or None,
            lang=self._lang,
            context_line=raw.code or None,
            in_app=place[1],
        )
        if raw.locals:
            frame.locals = kept(raw.locals)
        if raw.context is not None:
            frame.pre_context, frame.post_context = raw.context.pre or None, raw.context.post or None
        if raw.args:
            frame.args = kept(raw.args)
        if raw.kwargs:
            frame.kwargs = kept(raw.kwargs)
        return frame


@lru_cache(maxsize=4096)
def _place(path: str, root: str | None, lang: str | None) -> tuple[str | None, bool | None]:
    """Say which part of a path counts, and whether the code is the application's own: what lies below its root."""
    if root is None:
        if lang == "javascript":
            return jspaths.readable(path), jspaths.in_app(path)
        return base_name(path), None
    spelled = path.replace("\\", "/")
    if not spelled.startswith(root):
        return base_name(path), False
    below = spelled[len(root) :]
    return below or base_name(path), _FOREIGN.search(below) is None
