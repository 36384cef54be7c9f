"""A crash as golden files have it: what a person checks against the product's documentation, short enough to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame

SHOWN = 3
"""Frames shown of a stack, from either end."""


def reduced(crash: RawCrash) -> dict[str, Any]:
    """What a reader says of a crash, without what is empty; long texts are cut."""
    told = {
        "format": crash.format,
        "platform": crash.platform,
        "level": crash.level,
        "event_id": crash.event_id,
        "timestamp": crash.timestamp,
        "title": cut(crash.title),
        "message": cut(crash.message),
        "release": crash.release,
        "environment": crash.environment,
        "os": " ".join(v for v in (crash.os_name, crash.os_version, crash.os_build) if v),
        "arch": str(crash.arch).replace("unknown", ""),
        "grouping": crash.grouping,
        "tags": len(crash.tags),
        "user": sorted(crash.user),
        "request": sorted(crash.request),
        "attributes": sorted(crash.attributes),
        "attachments": [f"{a.name} {a.size}" for a in crash.attachments],
        "modules": len(crash.modules),
        "mappings": crash.mappings,
        "diagnostics": sorted({d.code for d in crash.diagnostics}),
        "exceptions": [
            {
                "is": ": ".join(cut(v) or "" for v in (e.type, e.value) if v),
                "module": e.module,
                "code": e.code,
                "address": e.address,
                "mechanism": e.mechanism,
                "details": sorted(e.details),
                "frames": stack(e.frames),
            }
            for e in crash.exceptions
        ],
        "threads": [
            {
                "id": t.id,
                "name": t.name,
                "crashed": t.crashed,
                "registers": t.registers is not None,
                "frames": stack(t.frames),
            }
            for t in crash.threads[:SHOWN]
        ],
        "thread count": len(crash.threads),
    }
    found: dict[str, Any] = slim(told)
    return found


def slim(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: slim(v) for k, v in value.items() if v not in (None, "", [], {}, 0, False)}
    return [slim(v) for v in value] if isinstance(value, list) else value


def cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= 60 else f"{text[:60]}..."


def stack(frames: list[RawFrame] | None) -> list[str]:
    lines = [line(f) for f in frames or ()]
    left_out = len(lines) - 2 * SHOWN
    return [*lines[:SHOWN], f"... {left_out}", *lines[-SHOWN:]] if left_out > 0 else lines


def line(frame: RawFrame) -> str:
    told = frame.reported
    assert told is not None
    address = (
        f"{frame.instruction_addr:#x}{'-' if frame.is_return_address else ''} "
        if frame.instruction_addr is not None
        else ""
    )
    place = f" {told.filename}:{told.lineno}:{told.colno}" if told.filename else ""
    owner = "" if told.in_app is None else " own" if told.in_app else " foreign"
    context = " +context" if told.context_line is not None else ""
    variables = f" {len(told.locals)} locals" if told.locals else ""
    return f"{address}{cut(told.function)}{place}{owner}{context}{variables}"
