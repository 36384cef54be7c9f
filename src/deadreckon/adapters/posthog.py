"""An event as PostHog captures and keeps it: ``$exception``, with resolved frames, each with its raw frame's id.

Specification: PostHog's "Capture API" and "Error tracking API", ``stack_frames``. A raw frame's id is a SHA-512 over
what identifies the frame for its language, so the same frame of any event has one record; the number after the slash
tells the frames apart that one raw frame was expanded to. Frames are outermost first.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from deadreckon.adapters._export import crashed_thread, filled, has_variables, uuid
from deadreckon.adapters.scrub import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.adapters.scrub import Scrubber
    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["captured", "exception_list", "raw_id", "resolved_frames"]

_MAX_LINE = 300
_CUT = "...✂️"


def captured(event: Event, api_key: str | None = None, scrub: Scrubber | None = DEFAULT) -> dict[str, Any]:
    """Return an event as PostHog captures it; ``scrub`` takes secrets out before, None leaves them in."""
    event = scrub.event(event) if scrub is not None else event
    user = dict(event.user or {})
    known = user.pop("id", None)
    properties = {name: value for name, value in (event.attributes or {}).items() if name not in {"token", "api_key"}}
    grouping = event.grouping or []
    properties |= filled(
        {
            "$exception_level": event.level,
            "$exception_fingerprint": None if has_variables(grouping) else "|".join(grouping),
            "$issue_name": event.title,
            "$app_version": event.release,
            "$environment": event.environment,
            "$os": event.os.name if event.os else None,
            "$os_version": event.os.version if event.os else None,
            "$current_url": (event.request or {}).get("url"),
            "$set": user,
            "tags": event.tags,
            "message": event.message if event.exceptions else None,
        }
    )
    if known is None:
        properties["$process_person_profile"] = False
    told = {
        "event": "$exception",
        "uuid": uuid(event.event_id),
        "timestamp": event.timestamp,
        # The events of nobody are each somebody else's.
        "distinct_id": event.event_id if known is None else str(known),
        "properties": {**properties, "$exception_list": exception_list(event, None)},
    }
    return filled({"api_key": api_key, **told})


def exception_list(event: Event, scrub: Scrubber | None = DEFAULT) -> list[dict[str, Any]]:
    """Return ``$exception_list``: the exceptions with the root cause last, a native crash's stack with the first.

    Every exception says whose cause it is, since clients list chains in either order.
    """
    event = scrub.event(event) if scrub is not None else event
    listed: list[ExceptionInfo | None] = list(event.exceptions or ()) or [None]
    crashed = crashed_thread(event)
    own = any(e is not None and e.frames for e in listed)
    ids = [(told.details or {}).get("exception_id") if told else None for told in listed]
    numbered = all(type(i) is int for i in ids) and len(set(ids)) == len(ids)
    found = []
    for number, told in enumerate(listed):
        frames = (told.frames if told else None) or (crashed.frames if crashed and not number and not own else None)
        mechanism: dict[str, Any] = dict((told.details if told else None) or {})
        if len(listed) > 1 and not numbered:
            mechanism |= {"exception_id": number} | ({"parent_id": number - 1} if number else {})
        entry: dict[str, Any] = {
            "type": (told.type if told else None) or "Error",
            "value": (told.value if told else event.message) or "",
            "mechanism": {"type": (told and told.mechanism) or "generic", **mechanism},
        }
        if told is not None and told.module:
            entry["module"] = told.module
        if told is not None and told.thread_id is not None:
            entry["thread_id"] = told.thread_id
        if frames:
            entry["stacktrace"] = {"type": "resolved", "frames": resolved_frames(frames)}
        found.append(entry)
    return found


def resolved_frames(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """Return the records of a stack's frames, outermost first; ``frames`` are an event's, innermost first."""
    found = []
    part, identity = 0, ""
    for frame in reversed(frames):
        # The frame that inlined calls were expanded from comes before them.
        part = part + 1 if frame.inline else 0
        identity = identity if frame.inline and identity else raw_id(frame)
        found.append(_record(frame, f"{identity}/{part}"))
    return found


def raw_id(frame: Frame) -> str:
    """Return the id of the raw frame that a frame was made from: 128 hex digits."""
    state = hashlib.sha512()
    raw = frame.origin or {}

    def add(*values: str | int | None) -> None:
        for value in values:
            if value is not None:
                state.update(value.encode("utf-8", "replace") if isinstance(value, str) else value.to_bytes(4, "big"))

    line, column = raw.get("lineno", frame.lineno), raw.get("colno", frame.colno)
    if frame.lang == "javascript":
        name = raw.get("function", frame.function if frame.function is not None else frame.raw_function)
        place = raw.get("abs_path") or frame.abs_path or frame.filename
        add(name, None if line is None else str(line), None if column is None else str(column), place)
    elif frame.instruction_addr is None and frame.rva is None:
        add(frame.context_line, frame.filename, frame.function, frame.lineno, frame.module)
        add(*(frame.pre_context or ()), *(frame.post_context or ()))
    else:
        add(frame.debug_id)
        add(f"rel:{frame.rva}" if frame.debug_id and frame.rva else frame.instruction_addr)
        add(frame.raw_function or frame.function, frame.filename, line, column, frame.package, "native")
    return state.hexdigest()


def _record(frame: Frame, identity: str) -> dict[str, Any]:
    resolved = frame.status == "symbolicated" and frame.function is not None
    record: dict[str, Any] = {
        "raw_id": identity,
        "mangled_name": frame.raw_function or frame.function or "",
        "line": frame.lineno,
        "column": frame.colno,
        "source": frame.abs_path or frame.filename,
        "module": frame.module or frame.package,
        "in_app": bool(frame.in_app),
        "resolved_name": frame.function,
        "lang": frame.lang or "native",
        "resolved": resolved,
        "resolve_failure": None if resolved else frame.status,
        "synthetic": False,
        "suspicious": frame.trust == "scan",
        "code_variables": frame.locals,
        "context": _context(frame),
    }
    return {name: value for name, value in record.items() if value is not None}


def _context(frame: Frame) -> dict[str, Any] | None:
    if frame.context_line is None or frame.lineno is None:
        return None
    before, after = frame.pre_context or [], frame.post_context or []
    first = frame.lineno - len(before)
    return {
        "before": [_line(first + n, text) for n, text in enumerate(before)],
        "line": _line(frame.lineno, frame.context_line),
        "after": [_line(frame.lineno + 1 + n, text) for n, text in enumerate(after)],
    }


def _line(number: int, text: str) -> dict[str, Any]:
    return {"number": number, "line": text if len(text) <= _MAX_LINE else text[:_MAX_LINE] + _CUT}
