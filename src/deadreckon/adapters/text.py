"""An event as people read it on a terminal. Its strings come from crashed programs: control characters are escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event, Frame

__all__ = ["render", "safe"]

_MAX_FRAMES = 100
_MAX_OTHER_FRAMES = 12
_TRUST_MARKS = {"scan": "?", "cfi_scan": "?", "frame_pointer": "~"}


def safe(text: object) -> str:
    """Return text with every unprintable character written out, so that it can't drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text))


def render(event: Event, *, explain_grouping: bool = False) -> str:
    """Return an event as text: what happened, the crashed stack first, then the others, modules and diagnostics."""
    return "\n".join(_lines(event, explain_grouping)) + "\n"


def _lines(event: Event, explain_grouping: bool) -> Iterator[str]:  # noqa: FBT001
    yield safe(event.title or f"{event.source.name or 'input'}: {event.status}")
    facts = [
        ("event", event.event_id),
        ("status", event.status),
        ("source", f"{event.source.format} {' > '.join([*(event.source.container or []), event.source.name or ''])}"),
        ("time", event.timestamp),
        ("system", _system(event)),
        ("process", _process(event)),
        ("fingerprint", f"{event.fingerprint.id} ({event.fingerprint.algorithm})" if event.fingerprint else None),
        *(("", f"{', '.join(values)} ({family})") for family, values in (event.fingerprints or {}).items()),
    ]
    for label, value in facts:
        if value:
            yield f"  {label:<12}{safe(value)}"
    for exception in event.exceptions or ():
        parts = [exception.type, exception.value, f"code {exception.code}" if exception.code else None]
        yield f"  {'exception':<12}{safe(' '.join(p for p in parts if p))}"
        did = " ".join(p for p in (exception.access, exception.address and f"at {exception.address}") if p)
        for label, fact in [("access", exception.access and did), ("instruction", exception.instruction)]:
            if fact:
                yield f"  {label:<12}{safe(fact)}"
        for note in exception.notes or ():
            yield f"  {'note':<12}{safe(note)}"
        if exception.frames:
            yield from _frames(exception.frames, _MAX_FRAMES)
    threads = sorted(event.threads or (), key=lambda t: not t.crashed)
    for thread in threads:
        yield ""
        name = f" {thread.name!r}" if thread.name else ""
        yield safe(f"thread {thread.id}{name}{' (crashed)' if thread.crashed else ''}")
        yield from _frames(thread.frames or [], _MAX_FRAMES if thread.crashed else _MAX_OTHER_FRAMES)
        if thread.explanation:
            yield "  how"
            yield from (safe(f"  {number:>3}  {line}") for number, line in enumerate(thread.explanation))
    if explain_grouping and event.fingerprint:
        yield ""
        yield "grouping"
        for component in event.fingerprint.components or ():
            yield safe(f"  {'+' if component.contributes else '-'} {component.text}  ({component.why})")
        for family, variants in (event.explained or {}).items():
            for variant, components in variants.items():
                yield safe(f"grouping by {family}{f', {variant}' if variant else ''}")
                for component in components:
                    yield safe(f"  {'+' if component.contributes else '-'} {component.text}  ({component.why})")
    used = [m for m in event.modules or () if m.symbols != "unused"]
    if used:
        yield ""
        yield f"modules on the stacks ({len(event.modules or ())} loaded)"
        for module in used:
            yield safe(
                f"  {module.image_addr}  {module.symbols:<10} {module.code_file or '?'}  {module.debug_id or ''}"
            )
    if event.diagnostics:
        yield ""
        yield "diagnostics"
        for diagnostic in event.diagnostics:
            yield safe(f"  {diagnostic.severity}: {diagnostic.code}: {diagnostic.message or ''}")


def _system(event: Event) -> str:
    os = event.os
    parts = [os.name, os.version, os.build] if os else []
    return " ".join(p for p in (*parts, event.arch) if p)


def _process(event: Event) -> str | None:
    process = event.process
    if process is None or (process.name is None and process.pid is None):
        return None
    return f"{process.name or ''}{f' (pid {process.pid})' if process.pid is not None else ''}".strip()


def _frames(frames: list[Frame], limit: int) -> Iterator[str]:
    for number, frame in enumerate(frames[:limit]):
        mark = _TRUST_MARKS.get(frame.trust or "", " ")
        place = f" ({frame.filename}:{frame.lineno})" if frame.filename and frame.lineno else ""
        place = place or (f" ({frame.filename})" if frame.filename else "")
        module = (frame.package or "").replace("\\", "/").rsplit("/", 1)[-1]
        offset = f"{module}+{frame.rva}" if module and frame.rva else frame.instruction_addr or "?"
        name = frame.function or offset
        if frame.module and frame.function:
            name = f"{frame.module}.{name}"
        tail = f"  [{offset}]" if frame.function and module else ""
        inline = " [inlined]" if frame.inline else ""
        yield safe(f"  {number:>3}{mark} {name}{place}{inline}{tail}")
    if len(frames) > limit:
        yield f"      ... {len(frames) - limit} more"
