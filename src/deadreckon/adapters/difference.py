"""``deadreckon diff``: two crashes side by side, for people or for machines."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.adapters.text import safe
from deadreckon.errors import ReportError, UnknownFormat
from deadreckon.grouping.difference import compare
from deadreckon.model.event import SCHEMA, Event, decode_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deadreckon.config import Config
    from deadreckon.grouping.difference import Difference

__all__ = ["difference", "render"]

_MAX_LINES = 60


def difference(config: Config, a: str, b: str, symbols: Sequence[str] = (), kind: str | None = None) -> Difference:
    """Compare two crash files, or events as ``process`` writes them. Raises ReportError for an unreadable one."""
    from deadreckon.engine import Engine

    grouping = dataclasses.replace(config.grouping, explain=True)
    with Engine(dataclasses.replace(config, grouping=grouping)) as engine:
        told = [_event(engine, path, symbols, kind, grouping.families) for path in (a, b)]
    return compare(told[0], told[1], (a, b))


def _event(engine: Any, path: str, symbols: Sequence[str], kind: str | None, families: Sequence[str]) -> Event:
    if kind is None and (known := _known(path)) is not None:
        missing = [f for f in families if f not in (known.explained or {}) and f != "native128"]
        if missing:  # What a client sent is not in the event, but what it says of the stack is.
            from deadreckon.grouping.families import families_of

            families_of(engine.config.grouping).apply(known, explain=True)
        return known
    event: Event = engine.process(path, symbols=symbols, kind=kind)
    if event.status in {"unreadable", "unsupported"}:
        said = (event.diagnostics or [])[-1:]
        raise ReportError(f"{path}: {said[0].message if said else event.status}")
    return event


def _known(path: str) -> Event | None:
    """Return the event a file holds already, None if it is a crash file."""
    try:
        with open(path, "rb") as file:
            if SCHEMA.encode() not in file.read(256):
                return None
            file.seek(0)
            return decode_event(file.readline())
    except OSError as e:
        raise UnknownFormat(f"{path}: {e.strerror}") from e
    except msgspec.DecodeError:
        return None


def render(found: Difference) -> Iterator[str]:
    """Yield a comparison as lines of text."""
    for family, told in found.families.items():
        if told.same:
            yield safe(f"{family}: the same group, {', '.join(told.common or ())}")
        else:
            yield f"{family}: different groups"
        yield safe(f"  a  {found.a}: {', '.join(told.a) or 'no fingerprint'}")
        yield safe(f"  b  {found.b}: {', '.join(told.b) or 'no fingerprint'}")
        for variant, lines in (told.lines or {}).items():
            if not lines:
                continue
            yield safe(f"  {variant}" if variant else "  made of")
            for line in lines[:_MAX_LINES]:
                mark = {"=": " ", "a": "-", "b": "+"}[line.mark]
                other = {"a": "b", "b": "a"}.get(line.mark, "")
                left = f"; {other} has it, but: {line.elsewhere}" if line.elsewhere else ""
                yield safe(f"  {mark} {line.text}  ({line.why}{left})")
            if len(lines) > _MAX_LINES:
                yield f"    ... {len(lines) - _MAX_LINES} more"
