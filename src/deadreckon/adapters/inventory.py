"""``deadreckon symbols``: what was imported, what is in the store, what is wrong with it.

Names, tags and messages come from debug files and archives: control characters are escaped.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deadreckon.adapters.text import safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deadreckon.config import Config
    from deadreckon.symbols.housekeeping import Finding, Pruned
    from deadreckon.symbols.index import Entry
    from deadreckon.symbols.store import Added

__all__ = ["Problem", "run"]


class Problem(str):
    """A line about something that did not go well."""

    __slots__ = ()


def run(
    config: Config,
    *,
    action: str,
    paths: Sequence[str] = (),
    tag: Sequence[tuple[str, str]] = (),
    id: str | None = None,  # noqa: A002  (as the command line calls it)
    failed: bool = False,
    all: bool = False,  # noqa: A002
    format: str = "text",  # noqa: A002
    repair: bool = False,
    older_than: float | None = None,
    max_bytes: int | None = None,
    **_: object,
) -> Iterator[str]:
    """Do what ``deadreckon symbols`` is told and yield what there is to say: lines, and Problems among them."""
    from deadreckon.engine import Engine
    from deadreckon.symbols import housekeeping

    with Engine(config) as engine:
        index = engine.store.index
        if action == "add" or (action == "check" and paths):
            for path in paths:
                results = engine.add_symbols(path, tags=dict(tag)) if action == "add" else engine.check_symbols(path)
                if not results:
                    yield Problem(f"{path}: no debug file in it")
                for added in results:
                    yield from _added(added)
        elif action == "list":
            entries = index.entries(tags=dict(tag), kinds=() if all else ("imported",))
            for entry in entries:
                if entry.problem or not failed:
                    yield from [_json(entry)] if format == "json" else _entry(entry)
        elif action == "show":
            entries = index.entries(id)
            for entry in entries:
                yield from [_json(entry)] if format == "json" else _details(entry)
            if not entries:
                yield Problem(f"nothing known of {id}")
        elif action == "check":
            for finding in housekeeping.check(index, repair=repair):
                yield _finding(finding)
        else:
            age = None if older_than is None else older_than * housekeeping.DAY
            limit = max_bytes or config.symbols.store_max_bytes or None
            yield _pruned(housekeeping.prune(index, older_than=age, max_bytes=limit))


def _added(added: Added) -> Iterator[str]:
    note = " (imported before)" if added.known else ""
    for info in added.objects:
        yield safe(f"{_identity(info)}: {_content(info)} {added.path}{note}")
        for problem in info.get("problems", ()):
            yield safe(f"    {'error' if info.get('format') == 'sourcemap' else 'not used'}: {problem}")
    if added.problem:
        yield Problem(added.problem)


def _entry(entry: Entry) -> Iterator[str]:
    tags = "".join(f" {name}={value}" for name, value in entry.tags.items())
    facts = f"{_size(entry.size)}, added {_day(entry.added)}, used {_day(entry.used)}{tags} {entry.source or '?'}"
    for info in entry.objects:
        yield safe(f"{_identity(info)}: {facts}")
    if entry.problem or not entry.objects:
        yield safe(f"{entry.kind}: {facts}" + (f": {entry.problem}" if entry.problem else ""))


def _details(entry: Entry) -> Iterator[str]:
    facts = [
        ("source", entry.source or "unknown"),
        ("kind", entry.kind),
        ("added", _moment(entry.added)),
        ("last used", f"{_moment(entry.used)} (to the hour)"),
        ("size", f"{entry.size} bytes"),
        ("failed", entry.problem),
        ("tags", " ".join(f"{name}={value}" for name, value in entry.tags.items())),
        ("store key", entry.key),
    ]
    for label, value in facts:
        if value:
            yield f"{label:<10} {safe(value)}"
    for info in entry.objects:
        yield f"{'object':<10} {safe(_identity(info))}"
        yield f"{'':<10} {safe(_content(info))}"
        if info.get("code_id"):
            yield f"{'':<10} code id {safe(info['code_id'])}"
        for problem in info.get("problems", ()):
            yield f"{'':<10} not used: {safe(problem)}"


def _finding(finding: Finding) -> str:
    text = safe(f"{finding.path}: {finding.what}")
    return f"{text} (repaired)" if finding.repaired else Problem(text)


def _pruned(done: Pruned) -> str:
    gone = f"removed {len(done.removed)} debug files' tables ({_size(done.freed)})"
    return f"{gone} and {done.leftovers} left temporary files; {_size(done.kept)} remain"


def _json(entry: Entry) -> str:
    shown = asdict(entry)
    del shown["stamp"]
    return json.dumps(shown)


def _identity(info: dict[str, Any]) -> str:
    return f"{info.get('debug_id') or 'no id'} {info.get('arch')} {info.get('format')}"


def _content(info: dict[str, Any]) -> str:
    if info.get("format") == "sourcemap":
        return f"{info.get('ranges')} mappings" + ("" if info.get("has_lines") else ", no sources")
    lines = "" if info.get("has_lines") else ", no lines"
    return f"{info.get('ranges')} ranges, {info.get('rows')} unwind rows{lines}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _day(seconds: float) -> str:
    return _moment(seconds)[:10]


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "unknown"
