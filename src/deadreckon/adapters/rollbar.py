"""An event as an item of Rollbar's, for ``POST /api/1/item/``.

Specification: Rollbar's "Items" API; chains of exceptions are ``trace_chain``, as its clients send them: the root cause
is last, and frames have the most recent call last. What an item has no place for is in ``custom``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.adapters._export import crashed_thread, filled, has_variables, seconds, uuid
from deadreckon.adapters.scrub import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.adapters.scrub import Scrubber
    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["rollbar_item"]

_LEVELS = {"fatal": "critical", "error": "error", "warning": "warning", "info": "info", "debug": "debug"}
_PLATFORMS = {"ios": "ios", "ipados": "ios", "android": "android"}
"""By the operating system; those of clients decide which token an item needs."""
_MEMBERS = ("framework", "context", "server", "client")
_PLACED = frozenset({*_MEMBERS, "custom", "telemetry", "sdk", "language", "platform", "message", "uuid"})
_MAX_TITLE = _MAX_NAME = 255
_MAX_PERSON = 40


def rollbar_item(event: Event, access_token: str | None = None, scrub: Scrubber | None = DEFAULT) -> dict[str, Any]:
    """Return an event as Rollbar takes it; ``scrub`` takes secrets out before, None leaves them in."""
    event = scrub.event(event) if scrub is not None else event
    attributes = event.attributes or {}
    sdk = attributes.get("sdk")
    notifier = sdk if type(sdk) is dict else {}
    when = seconds(event.timestamp)
    grouping = event.grouping or []
    custom = {name: value for name, value in attributes.items() if name not in _PLACED}
    custom |= filled({"tags": event.tags, "modules": [m.debug_id for m in event.modules or () if m.debug_id]})
    told = attributes.get("custom")
    custom |= told if type(told) is dict else filled({"custom": told})
    if event.exceptions and event.message:
        custom["message"] = event.message  # A body is a trace or a message, never both.
    if has_variables(grouping):
        custom["fingerprint"], grouping = grouping, []
    data: dict[str, Any] = {
        # An item without one is refused.
        "environment": (event.environment or "unknown")[:_MAX_NAME],
        "body": _body(event, attributes, first_column=0 if notifier.get("name") == "node_rollbar" else 1),
        "uuid": uuid(event.event_id),
        "level": _LEVELS.get(event.level or ""),
        "timestamp": None if when is None else int(when),
        "code_version": event.release,
        "platform": attributes.get("platform") or _PLATFORMS.get(_system(event).lower()) or _system(event),
        "language": attributes.get("language") or (None if event.platform == "other" else event.platform),
        "request": event.request,
        "person": _person(event.user or {}),
        "custom": custom,
        "fingerprint": "|".join(grouping),
        "title": (event.title or "")[:_MAX_TITLE],
        "notifier": filled({name: notifier.get(name) for name in ("name", "version")}),
        **{name: attributes.get(name) for name in _MEMBERS},
    }
    return {**filled({"access_token": access_token}), "data": filled(data)}


def _system(event: Event) -> str:
    return (event.os.name if event.os is not None else None) or ""


def _person(user: dict[str, Any]) -> dict[str, Any]:
    if user.get("id") is None:
        return {}  # The id is required.
    named = {k: str(v)[:_MAX_NAME] for k, v in user.items() if k in {"username", "email"} and v is not None}
    return {**user, **named, "id": str(user["id"])[:_MAX_PERSON]}


def _body(event: Event, attributes: dict[str, Any], first_column: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    crashed = crashed_thread(event)
    stack = (crashed.frames or []) if crashed is not None else []
    exceptions = event.exceptions or []
    if exceptions:
        own = any(e.frames for e in exceptions)
        java = event.platform == "java"
        chain = [
            _trace(e, e.frames or ([] if own or n else stack), first_column, java=java)
            for n, e in enumerate(exceptions)
        ]
        found = {"trace": chain[0]} if len(chain) == 1 else {"trace_chain": chain}
    elif stack and event.message is None:
        kind = "Crash" if crashed is not None and crashed.crashed else "Stack"
        found = {"trace": {"frames": _frames(stack, first_column), "exception": {"class": kind}}}
    else:
        beside = attributes.get("message")
        found = {"message": {**(beside if type(beside) is dict else {}), "body": event.message or event.title or ""}}
        if stack:
            found["message"]["frames"] = _frames(stack, first_column)
    if attributes.get("telemetry"):
        found["telemetry"] = attributes["telemetry"]
    return found


def _trace(told: ExceptionInfo, frames: Sequence[Frame], first_column: int, *, java: bool) -> dict[str, Any]:
    details = {name: value for name, value in (told.details or {}).items() if name not in {"class", "message"}}
    name = f"{told.module}.{told.type}" if java and told.module and told.type else told.type
    exception = {**details, "class": name or "Error", **filled({"message": told.value})}
    return {"frames": _frames(frames, first_column), "exception": exception}


def _frames(frames: Sequence[Frame], first_column: int) -> list[dict[str, Any]]:
    """Return frames; rollbar.js counts columns from 0 under Node, which its items' readers know."""
    found = []
    for frame in reversed(frames):
        told = {
            "filename": frame.abs_path or frame.filename or frame.package or "<unknown>",
            "lineno": frame.lineno,
            "colno": None if frame.colno is None else frame.colno - 1 + first_column,
            "method": frame.function or frame.raw_function,
            "class_name": frame.module,
            "code": frame.context_line,
            "args": frame.args,
            "kwargs": frame.kwargs,
            "locals": frame.locals,
            "address": frame.instruction_addr,
        }
        if frame.pre_context or frame.post_context:
            told["context"] = {"pre": frame.pre_context or [], "post": frame.post_context or []}
        found.append(filled(told))
    return found
