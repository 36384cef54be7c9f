"""An event's stacks as PostHog keeps them: resolved frames, each with the id of the raw frame that it was made from.

Specification: PostHog's "Error tracking API", ``stack_frames``. A raw frame's id is a SHA-512 over what identifies the
frame for its language, so the same frame of any event has one record; the number after the slash tells the frames apart
that one raw frame was expanded to. Frames are outermost first.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["exception_list", "raw_id", "resolved_frames"]

_MAX_LINE = 300
_CUT = "...✂️"


def exception_list(event: Event) -> list[dict[str, Any]]:
    """Return ``$exception_list``: the exceptions with the root cause last, a native crash's stack with the first."""
    listed: list[ExceptionInfo | None] = list(event.exceptions or ()) or [None]
    crashed = next((t.frames for t in event.threads or () if t.crashed and t.frames), None)
    found = []
    for number, told in enumerate(listed):
        frames = (told.frames if told else None) or (crashed if not number else None)
        entry: dict[str, Any] = {
            "type": (told.type if told else None) or "Error",
            "value": (told.value if told else event.message) or "",
            "mechanism": {"type": (told and told.mechanism) or "generic", **((told.details if told else None) or {})},
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
