"""Rollbar's fingerprints: the client's value, else the SHA-1 of what its default is documented to look at.

The default takes the file and the method of every frame, then the exception's class, without line numbers and messages;
parts of paths that look like dates and numbers of two and more digits go away. How Rollbar joins them is not public, so
these values tell the same events apart as Rollbar's, and are not the same values. Specification: Rollbar's "Grouping
Algorithm"; of a client's fingerprint, "Create an Item".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from deadreckon.model.event import Event, Frame

__all__ = ["NAME", "explain", "values"]

NAME = "rollbar"
MAX_CLIENT = 40
"""Characters of a client's fingerprint that counts as it is; of a longer one its SHA-1 does."""

_DATE = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9](?:[-_.T]?[0-9]{4,6})?(?![0-9])")
_NUMBER = re.compile(r"[0-9]{2,}")


def values(event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None) -> list[str]:
    """Return an event's fingerprint: at most 40 characters."""
    del payload
    if event.grouping:
        own = event.grouping[0]
        return [own if len(own) <= MAX_CLIENT else _sha1(own)]
    # Each text ends in a byte that is in none, so that no two lists of texts are one.
    return [_sha1("".join(f"{c.text}\0" for c in _components(event) if c.contributes))]


def explain(event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None) -> list[Component]:
    """Return what an event's fingerprint is made of."""
    del payload
    if event.grouping:
        return [Component(text=event.grouping[0], contributes=True, why="the client's own fingerprint")]
    return list(_components(event))


def _components(event: Event) -> Iterator[Component]:
    root = str((event.attributes or {}).get("server", {}).get("root") or "") if _has_server(event) else ""
    told = [e for e in event.exceptions or () if e.frames or e.type]
    stacks = [(e.frames or [], e.type) for e in reversed(told)]
    crashed = next((t.frames for t in event.threads or () if t.crashed and t.frames), None)
    if crashed and not any(frames for frames, _ in stacks):
        stacks = [(crashed, stacks[0][1] if stacks else None), *stacks[1:]]
    for frames, kind in stacks:
        for frame in reversed(frames):
            yield Component(text=_place(frame, root), contributes=True, why="file and method of a frame")
        if kind:
            yield Component(text=kind, contributes=True, why="the exception's class")
    if not stacks and event.message:
        yield Component(text=event.message, contributes=True, why="there is no exception, so the message counts")
    for e in told:
        if e.value:
            yield Component(text=e.value, contributes=False, why="messages differ between events of one error")


def _has_server(event: Event) -> bool:
    return type((event.attributes or {}).get("server")) is dict


def _place(frame: Frame, root: str) -> str:
    path = frame.abs_path or frame.filename or frame.module or frame.package or ""
    if root and path.startswith(root):
        path = path[len(root) :].lstrip("/")
    return f"{_NUMBER.sub('', _DATE.sub('', path))}:{frame.function or ''}"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
