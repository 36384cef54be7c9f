"""PostHog's exception events: what its clients post to ``/batch/`` and ``/capture/``, and rows of its own tables.

Specification: PostHog's "Error tracking" and "Capture API". An event is ``$exception``; its properties have
``$exception_list``, the exceptions with the root cause last. Frames are listed outermost first by most clients and
innermost first by some: which ones, ``$lib`` tells; stacks that PostHog itself has resolved are all outermost first.
``$debug_images`` are the images of native frames, chunk ids name source maps.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import Malformed, ReportError, Unsupported
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.model.ids import Arch
from deadreckon.objects import jspaths
from deadreckon.reports import payload
from deadreckon.reports.backtrace.fields import Reading
from deadreckon.reports.javascript import parse_stack
from deadreckon.reports.payload import (
    NAMELESS,
    Line,
    Lines,
    Text,
    address,
    base_name,
    kept,
    lines,
    mapping,
    members,
    position,
    seconds,
    sequence,
    text,
    texts,
)
from deadreckon.reports.sentry.images import Images
from deadreckon.wire import encoding, jsontext, multipart

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["EVENT", "documents", "exception_events", "read"]

EVENT = "$exception"
MAX_EVENTS = 10_000
_MAX_VALUE = 10_000
_MAX_DECODED = 64 << 20
_MAX_PRINTED = 1 << 20

_INNERMOST_FIRST = frozenset(
    {"posthog-android", "posthog-elixir", "posthog-flutter", "posthog-go", "posthog-java", "posthog-php", "posthog-rs"}
    | {"posthog-server"}
)
"""Clients that list a stack's frames innermost first."""
_CAUSE_FIRST = frozenset({"posthog-python"})
"""Clients that, before exceptions had ids, listed a chain's root cause first."""
_LANGUAGES = {
    "web:javascript": "javascript",
    "node:javascript": "javascript",
    "javascript": "javascript",
    "hermes": "javascript",
    "rust": "native",
    "apple": "native",
}
_LEVELS = frozenset({"fatal", "error", "warning", "info", "debug"})
_OWN = frozenset(
    {
        "$exception_list",
        "$exception_level",
        "$exception_fingerprint",
        "$debug_images",
        "$issue_name",
        "$set",
        "$set_once",
    }
    | {"$exception_type", "$exception_message", "$exception_stack_trace_raw", "token", "api_key"}
)
"""Properties that have a place of their own in the event, or in none."""


def read(data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read the exceptions of a request or a row.

    Raises Malformed where it is no JSON of events, LimitExceeded where it is too large to hold, Unsupported where no
    event tells of an exception.
    """
    found = exception_events(documents(data))
    if not found:
        raise Unsupported(f"no event in it is {EVENT!r}")
    return [_crash(event, limits) for event in found]


def documents(data: bytes | memoryview) -> Any:
    """Return a request's JSON: of its body, or of its form's field ``data``, in base64 or not, compressed or not.

    Raises Malformed, LimitExceeded.
    """
    head = bytes(data[:64]).lstrip()
    if head[:1] not in b"{[\xef" or not head:
        if head[:5] == b"data=":
            told = multipart.fields_of(data).get("data", "")
            data = told.encode()
            if told.lstrip()[:1] not in {"{", "["}:
                try:
                    data = base64.b64decode(told.replace(" ", "+").encode(), validate=True)
                except (binascii.Error, ValueError) as e:
                    raise Malformed("PostHog form", offset=5, expected="base64", got=str(e)) from e
        data = encoding.recognised(data, _MAX_DECODED)
    return jsontext.decode(data, "PostHog events")


def exception_events(told: Any) -> list[dict[str, Any]]:
    """Return the events that tell of exceptions: of one, a list of them, or a batch."""
    listed = told.get("batch", told) if type(told) is dict else told
    listed = [listed] if type(listed) is dict else sequence(listed)
    return [e for e in listed if type(e) is dict and e.get("event") == EVENT][:MAX_EVENTS]


def _crash(event: dict[str, Any], limits: ReportLimits) -> RawCrash:
    reading = Reading(limits)
    properties = _properties(event.get("properties"), reading)
    library = text(properties.get("$lib"), 256) or ""
    listed = _exceptions(properties, reading)
    tagged = {p for e in listed for f in _frames_of(e)[:16] if (p := text(f.get("platform"), 64))}
    platform = _platform(tagged, library, listed)
    images = Images(reading, {"images": _images(properties.get("$debug_images"))}, _arch(properties))
    own = text(properties.get("$exception_fingerprint"))
    level = text(properties.get("$exception_level") or properties.get("$level"), 16)
    crash = RawCrash(
        "posthog",
        platform=platform,
        arch=next((m.arch for m in images.modules if m.arch is not Arch.UNKNOWN), Arch.UNKNOWN),
        os_name=text(properties.get("$os"), 256) or text(properties.get("$os_name"), 256),
        os_version=text(properties.get("$os_version"), 256),
        timestamp=seconds(event.get("timestamp")) or seconds(properties.get("$time")),
        event_id=payload.event_id(event.get("uuid")),
        level=level
        if level in _LEVELS
        else {"critical": "fatal", "warn": "warning", "log": "info"}.get(level or "", "error"),
        title=text(properties.get("$issue_name"), 1024),
        grouping=[own] if own else None,
        payload={"$exception_list": listed},
        release=text(properties.get("$release"), 256) or text(properties.get("$app_version"), 256),
        environment=text(properties.get("$environment"), 256) or text(properties.get("environment"), 256),
        modules=images.modules,
        user=_user(event, properties),
        diagnostics=reading.diagnostics,
    )
    if url := text(properties.get("$current_url")):
        crash.request = {"url": url}
    for name, value in properties.items():
        if name not in _OWN and value is not None:
            crash.attributes[name] = kept(value)
    stacks = _Stacks(reading, images, platform, innermost_first=library in _INNERMOST_FIRST)
    crash.exceptions = [stacks.exception(told) for told in _root_cause_last(listed, library)]
    _place_native(crash)
    return crash


def _properties(told: Any, reading: Reading) -> dict[str, Any]:
    """Return an event's properties, which tables have as text; of nested ones, in which some clients put their own."""
    if type(told) is str:
        try:
            told = jsontext.decode(told.encode(), "properties")
        except ReportError as e:
            reading.problem(e.code, "properties", str(e))
    found: dict[str, Any] = reading.expect(dict, told, "properties")
    return found


def _exceptions(properties: dict[str, Any], reading: Reading) -> list[dict[str, Any]]:
    told = properties.get("$exception_list")
    if type(told) is str:
        try:
            told = jsontext.decode(told.encode(), "$exception_list")
        except ReportError as e:
            reading.problem(e.code, "$exception_list", str(e))
    listed = [e for e in reading.expect(list, told, "$exception_list") if type(e) is dict]
    if len(listed) > payload.MAX_EXCEPTIONS:
        reading.problem("limit_exceeded", "$exception_list", f"{len(listed)} of them")
    if not listed and any(f"$exception_{name}" in properties for name in ("type", "message")):
        # From before exceptions came in a list.
        stack: Any = properties.get("$exception_stack_trace_raw")
        if type(stack) is str and stack.lstrip()[:1] == "[":
            stack = jsontext.decode(stack.encode(), "$exception_stack_trace_raw")
        told = {"type": properties.get("$exception_type"), "value": properties.get("$exception_message")}
        listed = [{**told, "stacktrace": stack}]
    return listed[: payload.MAX_EXCEPTIONS]


def _frames_of(exception: dict[str, Any]) -> list[dict[str, Any]]:
    stack = exception.get("stacktrace")
    listed = sequence(mapping(stack).get("frames")) or sequence(stack)
    return [f for f in listed if type(f) is dict]


def _platform(tagged: set[str], library: str, listed: list[dict[str, Any]]) -> str:
    known = {_LANGUAGES.get(p, p) for p in tagged}
    if len(known) == 1:
        return known.pop()
    if not known:
        known = {text(f.get("lang"), 64) for e in listed for f in _frames_of(e)[:16]} - {None}  # type: ignore[assignment]
        if len(known) == 1:
            return _LANGUAGES.get(only := known.pop(), only)
    if library in {"web", "posthog-js", "posthog-node", "posthog-react-native", "js"}:
        return "javascript"
    return "native" if "native" in known else library.removeprefix("posthog-") or "other"


def _images(told: Any) -> list[Any]:
    """Return images as Sentry has them, which these are modelled on; they may lack their kind."""
    return [{**i, "type": i.get("type") or "native"} if type(i) is dict else i for i in sequence(told)]


def _arch(properties: dict[str, Any]) -> Arch:
    return Arch.parse(text(properties.get("$device_arch") or properties.get("$arch"), 64) or "")


def _user(event: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    known = text(event.get("distinct_id") or properties.get("distinct_id"), 1024)
    found: dict[str, Any] = {"id": known} if known else {}
    for name in ("$set_once", "$set"):
        found |= kept(members(properties.get(name) or event.get(name)))
    return found


def _root_cause_last(listed: list[dict[str, Any]], library: str) -> list[dict[str, Any]]:
    """Order a chain by what caused what, where the exceptions say so; else by how the client lists them."""
    links = [mapping(e.get("mechanism")) for e in listed]
    ids = [m.get("exception_id") for m in links]
    if all(type(i) is int for i in ids) and len(set(ids)) == len(ids):
        parent = {i: m.get("parent_id") for i, m in zip(ids, links, strict=True)}
        depth: dict[Any, int] = {}
        for start in ids:
            path, at = [], start
            while at in parent and at not in depth and at not in path:
                path.append(at)
                at = parent[at]
            base = depth.get(at, -1)
            for step, passed in enumerate(reversed(path), 1):
                depth[passed] = base + step
        order = sorted(range(len(listed)), key=lambda n: depth[ids[n]])
        return [listed[n] for n in order]
    return listed[::-1] if library in _CAUSE_FIRST else listed


class _Wire(msgspec.Struct, gc=False):
    """A frame that is not resolved, as clients of all languages send it."""

    platform: Text | None = None
    function: Text | None = None
    abs_path: Text | None = None
    filename: Text | None = None
    module: Text | None = None
    context_line: Text | None = None
    lineno: Line | None = None
    colno: Line | None = None
    in_app: bool | None = None
    pre_context: Lines | None = None
    post_context: Lines | None = None
    code_variables: dict[str, Any] | None = None
    package: Any = None
    chunk_id: Any = None
    chunkId: Any = None  # noqa: N815 - as some clients spell it
    instruction_addr: Any = None
    image_addr: Any = None
    symbol_addr: Any = None


_TEXTS = _Wire.__struct_fields__[:6]


def _lenient(raw: dict[str, Any]) -> _Wire:
    """Return a frame whose members are of other types than they should be, as far as they make sense."""
    found = _Wire(lineno=position(raw.get("lineno")), colno=position(raw.get("colno")))
    for name, value in zip(_TEXTS, texts(raw, _TEXTS), strict=True):
        setattr(found, name, value)
    found.in_app = raw["in_app"] if type(raw.get("in_app")) is bool else None
    found.pre_context, found.post_context = lines(raw.get("pre_context")), lines(raw.get("post_context"))
    found.code_variables = members(raw.get("code_variables"))
    for name in _Wire.__struct_fields__[12:]:
        setattr(found, name, raw.get(name))
    return found


class _Stacks:
    """Reads exceptions and their frames."""

    def __init__(self, reading: Reading, images: Images, platform: str, *, innermost_first: bool) -> None:
        self._reading = reading
        self._images = images
        self._platform = platform
        self._innermost_first = innermost_first
        self._budget = payload.Budget()

    def exception(self, told: dict[str, Any]) -> RawException:
        """Return an exception with its stack; one without a type is an ``Error``, as PostHog takes it."""
        value = text(told.get("value")) or ""
        mechanism = mapping(told.get("mechanism"))
        thread = told.get("thread_id")
        return RawException(
            text(told.get("type"), 4096) or "Error",
            value if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]}...",
            mechanism=text(mechanism.get("type"), 256),
            thread_id=thread if type(thread) is int and abs(thread) < 1 << 63 else None,
            frames=self._frames(told) or None,
            module=text(told.get("module"), 4096),
            details={k: kept(v) for k, v in mechanism.items() if v is not None and k != "type"},
        )

    def _frames(self, told: dict[str, Any]) -> list[RawFrame]:
        if type(told.get("stacktrace")) is str:
            printed = parse_stack(told["stacktrace"][:_MAX_PRINTED], text(told.get("type")), text(told.get("value")))
            return [RawFrame(None, False, frame) for frame in printed[: payload.MAX_FRAMES]]
        listed = _frames_of(told)
        resolved = mapping(told.get("stacktrace")).get("type") == "resolved"
        if self._innermost_first and not resolved:
            listed.reverse()
        before = self._budget.dropped
        listed = self._budget.take(listed)
        if self._budget.dropped > before:
            self._reading.problem("frame_limit", "stacktrace", f"the outermost {self._budget.dropped - before} frames")
        listed.reverse()
        if resolved or (listed and "raw_id" in listed[0]):
            return [self._resolved(f) for f in listed]
        return [self._raw(f) for f in payload.converted(listed, _Wire, _lenient)]

    def _raw(self, raw: _Wire) -> RawFrame:
        platform = _LANGUAGES.get(raw.platform, raw.platform) if raw.platform else self._platform
        function, filename = raw.function or None, raw.filename or None
        nameless = function in NAMELESS
        frame = Frame(
            status="missing_symbol" if nameless or function is None else "symbolicated",
            function=None if nameless else function,
            raw_function=function if nameless else None,
            filename=filename,
            abs_path=raw.abs_path or filename,
            lineno=raw.lineno or None,
            colno=raw.colno or None,
            lang=None if platform == "native" else platform,
            in_app=raw.in_app,
            context_line=raw.context_line or None,
        )
        if raw.code_variables:
            frame.locals = kept(raw.code_variables)
        if raw.pre_context or raw.post_context:
            frame.pre_context, frame.post_context = raw.pre_context or None, raw.post_context or None
        if platform == "javascript" and filename:
            frame.filename = jspaths.readable(filename)
            if frame.in_app is None:
                frame.in_app = jspaths.in_app(filename)
        if (raw.chunk_id or raw.chunkId) and (chunk := text(raw.chunk_id or raw.chunkId, 256)):
            # Of a script's source map, as PostHog's command line tool puts it into both.
            frame.details = {"chunk_id": chunk}
        if platform == "native":
            frame.package = raw.module or text(raw.package, 4096)
        else:
            frame.module = raw.module or None
        addr = None if raw.instruction_addr is None else address(raw.instruction_addr)
        if addr is None:
            return RawFrame(None, False, frame)
        frame.status = "symbolicated" if frame.function else "missing"
        image, symbol = address(raw.image_addr), address(raw.symbol_addr)
        if self._images.holding(addr) is None:
            frame.symbol_addr = hex(symbol) if symbol else None
            if image and image <= addr:
                frame.image_addr, frame.rva = hex(image), hex(addr - image)
        # PostHog looks up one byte earlier for all frames: clients walk their own stacks, by calls.
        return RawFrame(addr, True, frame)

    def _resolved(self, raw: dict[str, Any]) -> RawFrame:
        """Return a frame as PostHog has it after its own look-up."""
        get = raw.get
        lang = text(get("lang"), 64)
        source = text(get("source"), 4096)
        mangled, name = text(get("mangled_name"), 4096), text(get("resolved_name"), 4096)
        native = _LANGUAGES.get(lang or "", lang) == "native"
        in_app = get("in_app")
        frame = Frame(
            status="symbolicated" if name else "missing_symbol",
            function=name or (mangled if not native and mangled not in payload.NAMELESS else None),
            raw_function=mangled,
            filename=base_name(source) if source else None,
            abs_path=source,
            lineno=position(get("line")),
            colno=position(get("column")),
            lang=None if native else _LANGUAGES.get(lang or "", lang),
            in_app=in_app if type(in_app) is bool else None,
            locals=kept(members(get("code_variables"))) or None,
        )
        if get("resolved") is not False and frame.lang == "javascript":
            frame.details = {"resolved": True}  # It is a place in a source: there is no map from there.
        module = text(get("module"), 4096)
        frame.package, frame.module = (module, None) if native else (None, module)
        if around := mapping(get("context")):
            frame.pre_context = _numbered(around.get("before"))
            frame.context_line = text(mapping(around.get("line")).get("line"), 4096)
            frame.post_context = _numbered(around.get("after"))
        return RawFrame(None, False, frame)


def _numbered(told: Any) -> list[str] | None:
    return lines([mapping(line).get("line") for line in sequence(told)])


def _place_native(crash: RawCrash) -> None:
    """Put a native crash's stack where those of native crashes are: in its thread."""
    if crash.platform != "native":
        return
    for exception in crash.exceptions:
        if exception.frames:
            number = exception.thread_id if exception.thread_id is not None else 0
            crash.threads.append(RawThread(number, crashed=True, frames=exception.frames))
            exception.frames, exception.thread_id = None, number
            return
