"""Events of ours as Sentry sees them: a payload with what we found of its frames, or a crash of another format.

A Sentry payload is grouped as it came, save stacks to which symbols or maps added something. Of another format's crash
the crashed thread's stack is the first exception's, as in the events that Sentry makes of minidumps, and a type that is
the system's code does not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.grouping.families.sentry.payload import (
    Event,
    Exc,
    Exceptions,
    Frame,
    FrameData,
    LogEntry,
    Mechanism,
    Stacktrace,
    Thread,
    Threads,
    convert,
)
from deadreckon.wire import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deadreckon.model import event as ours

__all__ = ["sentry_event"]


def sentry_event(event: ours.Event, payload: Mapping[str, Any] | bytes | memoryview | None = None) -> Event:
    """Return an event as Sentry groups it; ``payload`` is what a client of Sentry's sent, as JSON or decoded."""
    if payload is None or not event.source.format.startswith("sentry"):
        return _made(event)
    sent = jsontext.decode(payload, "Sentry event") if isinstance(payload, bytes | memoryview) else payload
    told = convert(dict(sent))
    listed = [e for e in (told.exception.values or ()) if e is not None] if told.exception is not None else []
    if len(listed) == len(event.exceptions or ()):
        for one, found in zip(listed, reversed(event.exceptions or ()), strict=True):
            one.stacktrace = _improved(one.stacktrace, found.frames)
    threads = [t for t in (told.threads.values or ()) if t is not None] if told.threads is not None else []
    if len(threads) == len(event.threads or ()):
        for thread, known in zip(threads, event.threads or (), strict=True):
            thread.stacktrace = _improved(thread.stacktrace, known.frames)
    return told


def _improved(told: Stacktrace | None, found: Sequence[ours.Frame] | None) -> Stacktrace | None:
    """Return a stack with our frames in the place of the client's, where maps or symbols were applied to it."""
    if told is None or not found:
        return told
    named = sum(f is not None and bool(f.function) for f in told.frames or ())
    if any(f.origin for f in found) or sum(bool(f.function) for f in found) > named:
        return Stacktrace(_frames(found), told.snapshot)
    return told


def _made(event: ours.Event) -> Event:
    crashed = next((t for t in event.threads or () if t.crashed and t.frames), None)
    listed = []
    for number, told in enumerate(event.exceptions or ()):
        frames, synthetic = told.frames, None
        if not frames and not number and crashed is not None:
            frames, synthetic = crashed.frames, True
        stack = Stacktrace(_frames(frames)) if frames else None
        mechanism = Mechanism(told.mechanism, (told.details or {}).get("synthetic") is True or synthetic)
        listed.append(Exc(told.type, told.value, told.module, mechanism, stack))
    threads = [Thread(t.crashed, None, Stacktrace(_frames(t.frames or []))) for t in event.threads or ()]
    return Event(
        platform=event.platform or "other",
        exception=Exceptions(list(listed[::-1])) if listed else None,
        threads=Threads(list(threads)) if threads else None,
        logentry=LogEntry(formatted=event.message) if event.message else None,
        fingerprint=list(event.grouping) if event.grouping else None,
        level=event.level,
        release=event.release,
    )


def _frames(frames: Sequence[ours.Frame]) -> list[Frame | None]:
    return [
        Frame(
            function=f.function,
            module=f.module,
            package=f.package,
            filename=f.filename,
            abs_path=f.abs_path,
            context_line=f.context_line,
            lineno=f.lineno,
            colno=f.colno,
            in_app=f.in_app,
            data=FrameData(sourcemap="") if f.lang == "javascript" and f.origin else None,
        )
        for f in reversed(frames)
    ]
