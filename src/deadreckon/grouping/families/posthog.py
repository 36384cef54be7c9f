"""PostHog's fingerprints: a SHA-512 over what of an exception list stays the same.

Of each exception its type; its message too where it has no resolved stack; of a resolved stack the application's
frames, only the resolved ones if any is, or the first frame where none is the application's. All are one after the
other with nothing in between. A client's own fingerprint counts as it is up to 64 bytes, of a longer one its SHA-512.
Specification: PostHog's "Error tracking", fingerprinting of 2025; held to vectors by the tests.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["NAME", "exception_list", "fingerprint", "manual", "pieces"]

NAME = "posthog"
MAX_MANUAL = 64
"""Bytes of a client's fingerprint that counts as it is."""
_MAX_EXCEPTIONS = 256
_MAX_FRAMES = 4096


def fingerprint(exceptions: Sequence[Mapping[str, Any]]) -> str:
    """Return the fingerprint of ``$exception_list``, whose resolved frames are PostHog's records: 128 hex digits."""
    state = hashlib.sha512()
    for _, text, counts, _ in pieces(exceptions):
        if counts:
            state.update(text.encode("utf-8", "replace"))
    return state.hexdigest()


def manual(value: str) -> str:
    """Return what a client's own fingerprint becomes."""
    data = value.encode("utf-8", "replace")
    return value if len(data) <= MAX_MANUAL else hashlib.sha512(data).hexdigest()


def pieces(exceptions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, bool, str]]:
    """Yield every piece of an exception list: its kind, its text, whether it counts, and why."""
    for told in exceptions[:_MAX_EXCEPTIONS]:
        yield "Exception Type", _text(told.get("type")) or "Error", True, "the kind of exception"
        stack = told.get("stacktrace")
        frames = stack.get("frames") if type(stack) is dict and stack.get("type") == "resolved" else None
        resolved = type(frames) is list
        why = "the stack counts" if resolved else "there is no resolved stack"
        yield "Exception Message", _text(told.get("value")), not resolved, why
        if type(frames) is list:
            yield from _frames([f for f in frames[:_MAX_FRAMES] if type(f) is dict])


def _frames(frames: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool, str]]:
    any_resolved = any(f.get("resolved") for f in frames)
    any_ours = any(f.get("in_app") for f in frames)
    for number, frame in enumerate(frames):
        if not any_ours:
            counts, why = not number, "no frame is the application's own, so the first counts"
        elif not frame.get("in_app"):
            counts, why = False, "not the application's own code"
        elif any_resolved and not frame.get("resolved"):
            counts, why = False, "it is not resolved, others are"
        else:
            counts, why = True, "the application's own code"
        for kind, value in _parts(frame):
            yield kind, value, counts, why


def _parts(frame: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    names = [("Source file name", "source"), ("Module name", "module")]
    if frame.get("resolved_name") is not None:
        names.append(("Resolved function name", "resolved_name"))
    else:
        names += [("Mangled function name", "mangled_name"), ("Line number", "line"), ("Column number", "column")]
        names.append(("Language", "lang"))
    return [(kind, _text(frame[name])) for kind, name in names if frame.get(name) is not None]


def _text(value: Any) -> str:
    return value if type(value) is str else str(value) if type(value) in {int, float} else ""


# -- of any event -----------------------------------------------------------------------------------------------------


def values(event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None) -> list[str]:
    """Return an event's fingerprint; ``payload`` has the ``$exception_list`` of one that is PostHog's own."""
    if event.grouping and event.source.format == NAME:
        return [manual(event.grouping[0])]
    return [fingerprint(exception_list(event, payload))]


def explain(event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None) -> list[Component]:
    """Return the pieces that an event's fingerprint is made of, and those that it is not."""
    if event.grouping and event.source.format == NAME:
        return [Component(text=event.grouping[0], contributes=True, why="the client's own fingerprint")]
    return [
        Component(text=f"{kind}: {text}", contributes=counts, why=why)
        for kind, text, counts, why in pieces(exception_list(event, payload))
    ]


def exception_list(event: Event, payload: Mapping[str, Any] | bytes | memoryview | None) -> Sequence[Mapping[str, Any]]:
    """Return an event's exceptions as PostHog has them: those it resolved itself as they came."""
    told = payload.get("$exception_list") if isinstance(payload, dict) else None
    if type(told) is list and told and all(_is_resolved(e) for e in told):
        return told
    listed: list[ExceptionInfo | None] = list(event.exceptions or ()) or [None]
    crashed = next((t.frames for t in event.threads or () if t.crashed and t.frames), None)
    found = []
    for number, info in enumerate(listed):
        frames = (info.frames if info else None) or (crashed if not number else None)
        entry: dict[str, Any] = {
            "type": (info.type if info else None) or "Error",
            "value": (info.value if info else event.message) or "",
        }
        if frames:
            entry["stacktrace"] = {"type": "resolved", "frames": [_record(f) for f in reversed(frames)]}
        found.append(entry)
    return found


def _is_resolved(told: Any) -> bool:
    stack = told.get("stacktrace") if type(told) is dict else None
    return type(told) is dict and (type(stack) is not dict or stack.get("type") == "resolved")


def _record(frame: Frame) -> dict[str, Any]:
    return {
        "source": frame.abs_path or frame.filename,
        "module": frame.module or frame.package,
        "resolved_name": frame.function,
        "mangled_name": frame.raw_function or frame.function or "",
        "line": frame.lineno,
        "column": frame.colno,
        "lang": frame.lang or "native",
        "in_app": bool(frame.in_app),
        "resolved": frame.status == "symbolicated" and frame.function is not None,
    }
