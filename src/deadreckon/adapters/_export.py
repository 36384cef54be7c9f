"""What exporters to other products share."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deadreckon.model.event import Event, Thread

__all__ = ["crashed_thread", "filled", "has_variables", "integer", "seconds", "uuid"]


def filled(told: dict[str, Any]) -> dict[str, Any]:
    """Return an object without members that say nothing: None, and empty texts, lists and objects."""
    return {name: value for name, value in told.items() if value is not None and value not in ("", [], {})}


def crashed_thread(event: Event) -> Thread | None:
    """Return the thread that a crash is told by: the crashed one, else the only one that has a stack."""
    threads = event.threads or []
    crashed = [t for t in threads if t.crashed]
    told = crashed or [t for t in threads if t.frames]
    return told[0] if crashed or len(told) == 1 else None


def seconds(timestamp: str | None) -> float | None:
    """Return RFC 3339 as seconds since 1970."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() if timestamp else None
    except ValueError:
        return None


def uuid(event_id: str) -> str:
    """Return an id with the dashes of RFC 9562."""
    return f"{event_id[:8]}-{event_id[8:12]}-{event_id[12:16]}-{event_id[16:20]}-{event_id[20:]}"


def integer(spelled: str | None) -> int | None:
    """Return an event's address or code as a number."""
    try:
        return int(spelled, 16) if spelled else None
    except ValueError:
        return None


def has_variables(grouping: Iterable[str]) -> bool:
    """Tell a client's fingerprint of Sentry's, parts of which only Sentry can fill in: ``{{ default }}``."""
    return any(part.lstrip().startswith("{{") for part in grouping)
