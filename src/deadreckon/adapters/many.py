"""What ``process`` is given, made into events: inputs, and the crashes in large archives, here or on all cores."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

import msgspec

from deadreckon import inputs, reports
from deadreckon.adapters.output import encoder
from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.model.event import Attachment, Diagnostic  # noqa: TC001  (msgspec reads the annotations)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deadreckon.config import Config
    from deadreckon.engine import Engine
    from deadreckon.model.event import Event

__all__ = ["Found", "Item", "Made", "Plan", "events_of", "items_of", "lost", "made", "note", "process"]

MiB = 1 << 20
_SPLIT_BYTES = 1 * MiB
"""An archive of that size or more is opened here and its crashes are dealt out; a smaller one goes as it is."""
_IN_MESSAGE = 16 * MiB
_FEW = 32
"""So many inputs are not worth the start of other processes."""


class Found(msgspec.Struct, array_like=True):
    """A crash out of an archive: what ``inputs.Crash`` is, as a message can hold it."""

    data: bytes
    path: str
    name: str | None
    form: str
    container: list[str]
    symbols: str | None
    attachments: list[Attachment]
    problems: list[Diagnostic]


class Item(msgspec.Struct, array_like=True):
    """Something to process: a path, standard input's bytes, or a crash out of an archive."""

    path: str
    data: bytes | None = None
    found: Found | None = None


class Made(msgspec.Struct, array_like=True):
    """What came of some items: encoded events, how many, the worst status, lines for standard error."""

    output: bytes = b""
    events: int = 0
    unreadable: int = 0
    degraded: int = 0
    complaints: list[str] = []


@dataclass(frozen=True, slots=True)
class Plan:
    """What all processes are told."""

    config: Config
    format: str
    symbols: list[str] = field(default_factory=list)
    sourcemaps: list[str] = field(default_factory=list)
    attributes: dict[str, str] | None = None
    kind: str | None = None
    explain: bool = False
    explain_grouping: bool = False


def items_of(paths: Iterable[str], plan: Plan, scratch: inputs.Scratch) -> Iterator[Item]:
    """Yield what is to be processed: inputs, and in the place of large archives the crashes in them."""
    for path in paths:
        if path == "-":
            yield Item(path, inputs.standard_input(plan.config.report.max_bytes))
            continue
        try:
            large = os.path.getsize(path) >= _SPLIT_BYTES and inputs.is_archive(path)
        except OSError:
            large = False  # Whoever processes it says what is wrong.
        if not large:
            yield Item(path)
            continue
        count = 0
        try:
            for crash in inputs.crashes(path, path, plan.kind, plan.config.archive, scratch, plan.config.btt):
                yield Item(path, None, _packed(crash, scratch))
                count += 1
        except (DeadreckonError, OSError):
            if not count:
                yield Item(path)  # Its error is told in the usual way.


def _packed(crash: inputs.Crash, scratch: inputs.Scratch) -> Found:
    data, path = b"", ""
    if len(crash.data) <= _IN_MESSAGE:
        data = bytes(crash.data)
    else:
        path = inputs.spool(scratch, crash.data)
    return Found(
        data, path, crash.name, crash.form.name, crash.container, crash.symbols, crash.attachments, crash.problems
    )


def events_of(engine: Engine, plan: Plan, item: Item) -> Iterator[Event]:
    """Yield the events of one item, at least one."""
    from deadreckon.describe import unreadable

    symbols = plan.symbols
    source: str | bytes | inputs.Crash = item.path if item.data is None else item.data
    name: str | None = item.path
    if item.found is not None:
        found = item.found
        form = reports.detect(reports.Probe(b""), found.form)
        assert form is not None
        data = found.data if not found.path else inputs.open_input(found.path)
        source = inputs.Crash(data, found.name, form, found.container, None, found.attachments, list(found.problems))
        name = found.name or item.path
        symbols = [found.symbols, *symbols] if found.symbols else symbols
    try:
        yield from engine.process_all(
            source,
            name=name,
            kind=plan.kind,
            symbols=symbols,
            sourcemaps=plan.sourcemaps,
            attributes=plan.attributes,
        )
    except Exception as e:  # noqa: BLE001  (a bug met in one input must not cost the others)
        yield unreadable(name, e, None)


def made(engine: Engine, plan: Plan, item: Item) -> Made:
    """Process one item with an Engine."""
    encode = encoder(plan.format, explain_grouping=plan.explain_grouping)
    result = Made()
    chunks = []
    for event in events_of(engine, plan, item):
        chunks.append(encode(event))
        note(result, event, item.path)
    result.output = b"".join(chunks)
    return result


def note(result: Made, event: Event, path: str) -> None:
    """Count an event; of one that could not be read, keep the line for standard error."""
    result.events += 1
    if event.status in {"unreadable", "unsupported"}:
        result.unreadable += 1
        result.complaints += [f"{path}: {d.code}: {d.message}" for d in (event.diagnostics or ())[-1:]]
    elif event.status == "degraded":
        result.degraded += 1


def lost(plan: Plan, item: Item, why: str) -> Made:
    """Make the event of an input that its process died of."""
    from deadreckon.describe import unreadable

    error = LimitExceeded("worker.job_seconds", plan.config.worker.job_seconds, what=item.path) if not why else None
    event = unreadable(item.found.name if item.found else item.path, error or RuntimeError(why), None)
    result = Made(output=encoder(plan.format)(event))
    note(result, event, item.path)
    return result


def process(items: Iterable[Item], plan: Plan, processes: int) -> Iterator[tuple[int, Made]]:
    """Yield what came of items, in their order: of how many, and what. A few are processed here, many elsewhere."""
    from deadreckon.engine import Engine

    remaining = iter(items)
    first = list(islice(remaining, _FEW + 1))
    if processes > 1 and len(first) > _FEW:
        from deadreckon.adapters.pool import process_items

        yield from process_items(chain(first, remaining), plan, processes)
        return
    with Engine(plan.config, explain=plan.explain) as engine:
        for item in chain(first, remaining):
            yield 1, made(engine, plan, item)
