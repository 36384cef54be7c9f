"""JavaScript errors: the text of ``Error.stack`` of any engine, logs with such texts, errors serialized as JSON.

A JSON object has an error's own properties: ``name``, ``message``, ``stack`` (``stacktrace`` in Opera), ``cause``,
``errors`` (of an AggregateError); or it is what Hermes leaves of a crash: a ``callstack`` of functions and offsets in
its bytecode. Engines differ in shape, not in what they say; ``lines`` reads one line of any of
them, ``errors`` tells messages from stacks. ``parse_stack`` serves readers of reports that contain a stack's text.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawFrame
from deadreckon.model.event import Diagnostic
from deadreckon.reports.javascript.errors import JsError, errors_of, parse_stack, split_header
from deadreckon.reports.javascript.lines import frame_of, note_module, read_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadreckon.config import ReportLimits
    from deadreckon.model.event import Frame

__all__ = ["JsError", "errors_of", "frame_of", "parse_stack", "read", "read_line", "script_ids"]

_MOST_CAUSES = 64
_MOST_MEMBERS = 256
_MOST_SCRIPTS = 4096
_BOM = "\ufeff"
_STACKS = ("stack", "stacktrace")


def read(data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:  # noqa: ARG001  (every reader has them)
    """Read a stack, a log with stacks, or a serialized error; one crash for each error that is no other's cause.

    Raises Malformed where there is neither a frame nor an error's name.
    """
    raw = bytes(data)
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        text = raw[: len(raw) & ~1].decode("utf-16", "replace")
    else:
        text = raw.decode("utf-8", "replace")
    text = text.removeprefix(_BOM)
    del raw
    document = _document(text) if text[:64].lstrip()[:1] in {"{", "["} else None
    if document is not None:
        chains = [chain for item in document if (chain := _from_object(item))]
    else:
        chains = [chain for chain in errors_of(text) if chain[0].frames or len(chain) > 1]
        if not chains:
            chains = [chain for chain in errors_of(text) if chain[0].type]
    if not chains:
        raise Malformed("JavaScript stack", expected="frames of an Error.stack", got=text[:40])
    return [_crash(chain) for chain in chains]


def script_ids(stacks: Mapping[str, Any]) -> dict[str, str]:
    """Return ids by the scripts that they are of, as uploaders' snippets note them at run time.

    ``_sentryDebugIds``, ``_debugIds`` and ``_posthogChunkIds`` have as keys the stacks of errors that each script made
    when it was loaded: the outermost frame is the script itself.
    """
    found: dict[str, str] = {}
    for stack, ident in itertools.islice(stacks.items(), _MOST_SCRIPTS):
        if isinstance(ident, str):
            place = next((f.abs_path for f in reversed(parse_stack(stack)) if f.abs_path), None)
            if place is not None:
                found[place] = ident
    return found


def _crash(chain: list[JsError]) -> RawCrash:
    crash = RawCrash("javascript", platform="javascript", level="error")
    for error in chain:
        if error.code and "code" not in crash.attributes:
            crash.attributes["code"] = error.code
        crash.exceptions.append(
            RawException(
                error.type,
                error.value,
                mechanism=error.relation or None,
                frames=[RawFrame(None, reported=frame) for frame in error.frames] or None,
            )
        )
    if not any(error.frames for error in chain):
        message = "the error has no stack"
        crash.diagnostics.append(Diagnostic(code="no_stack", severity="info", stage="read", message=message))
    return crash


def _document(text: str) -> list[dict[str, Any]] | None:
    """Return the error objects of a JSON text, None where it is none: messages may begin with a brace."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
    items = found if isinstance(found, list) else [found]
    objects = [item for item in items[:_MOST_MEMBERS] if isinstance(item, dict)]
    inner = [item["error"] if isinstance(item.get("error"), dict) and not _stack(item) else item for item in objects]
    return [item for item in inner if _is_error(item)] or None


def _is_error(item: dict[str, Any]) -> bool:
    return bool(_stack(item)) or isinstance(item.get("message"), str) or isinstance(item.get("callstack"), list)


def _stack(item: dict[str, Any]) -> str:
    """Return an error's stack; Opera's ``stacktrace`` has columns, where its ``stack`` has none."""
    return next((v for k in reversed(_STACKS) if isinstance(v := item.get(k), str) and v), "")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _from_object(item: dict[str, Any]) -> list[JsError]:
    """Return a serialized error and, behind it, its causes and members."""
    chain: list[JsError] = []
    waiting: list[tuple[Any, str]] = [(item, "")]
    while waiting and len(chain) < _MOST_CAUSES:
        value, relation = waiting.pop()
        if isinstance(value, str):
            # A cause may be anything; a text may be a stack's.
            errors = errors_of(value)[0]
        elif isinstance(value, dict) and _is_error(value):
            errors = _one(value)
        else:
            continue
        errors[0].relation = relation
        chain += errors
        if isinstance(value, dict):
            members = value.get("errors")
            if isinstance(members, list):
                numbered = [(m, f"errors[{n}]") for n, m in enumerate(members[:_MOST_MEMBERS])]
                waiting += reversed(numbered)
            waiting.append((value.get("cause"), "cause"))
    return chain


def _one(item: dict[str, Any]) -> list[JsError]:
    name, message, stack = _text(item.get("name")), _text(item.get("message")), _stack(item)
    if not stack and isinstance(item.get("callstack"), list):
        calls = [call for call in item["callstack"] if isinstance(call, dict)]
        return [JsError(name, message or "", [_hermes_frame(call) for call in calls])]
    if not stack and message and "Backtrace:" in message:  # Opera up to 9 has the stack in the message.
        message, _, stack = message.partition("Backtrace:")
    if not stack:
        error = JsError(name, message or "")
        place = _text(item.get("fileName")) or _text(item.get("sourceURL"))
        line = next((v for k in ("lineNumber", "line") if isinstance(v := item.get(k), int)), None)
        if place and line is not None:
            column = next((v for k in ("columnNumber", "column") if isinstance(v := item.get(k), int)), None)
            error.frames = [frame_of(None, place, line, column)]
        return [error]
    errors = errors_of(stack, name, message, single=True)[0]
    if errors[0].type is None:
        errors[0].type = split_header(stack)[0]
    return errors


def _hermes_frame(call: dict[str, Any]) -> Frame:
    """Return a frame of Hermes' crash data: a function's number, an offset in it, the segment (or module) it is in."""
    place, function, offset = _text(call.get("SourceURL")), call.get("FunctionID"), call.get("ByteCodeOffset")
    segment = call.get("SegmentID", call.get("CJSModuleOffset", 0))
    if call.get("NativeCode") or not all(isinstance(v, int) and 0 <= v < 1 << 31 for v in (function, offset, segment)):
        return frame_of(None, place, None, None, {"native": True} if call.get("NativeCode") else None)
    details = {"bytecode": True, "hermes_function": function, "hermes_offset": offset, "hermes_segment": segment}
    note_module(place or "", details)
    return frame_of(None, place, None, None, details)
