"""One place for the events of all jobs: JSON lines with rotation, Parquet files, or a callback.

A job whose events are on their way to a sink waits in ``active/.sink/``; the supervisor (one at a time, by a lock)
takes a batch of them, stores their events and then moves the jobs to ``done/``. A journal, replaced by rename, says
which batch is being written and where it began, then that it was written. Whoever finds a journal of a supervisor that
was killed undoes a batch that was being written and completes one that was, so that each event is in the sink once.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from deadreckon.errors import ConfigError, MissingDependency
from deadreckon.model.event import decode_event
from deadreckon.telemetry import count
from deadreckon.worker.files import list_names, now, sync, what_to_sync
from deadreckon.worker.spool import EVENTS, SINKING, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deadreckon.config import WorkerConfig
    from deadreckon.model.event import Event

__all__ = ["Batch", "JsonLines", "Parquet", "Pump", "Sink", "open_sink"]

Batch = list[tuple[str, bytes]]
"""Jobs and the content of their event.jsonl."""

MiB = 1 << 20
_BATCH_JOBS = 2000
_BATCH_BYTES = 64 * MiB
_JOURNAL, _LOCK = ".journal", ".lock"

_log = logging.getLogger("deadreckon.worker")


class Sink(Protocol):
    """Where events go. ``store`` stores a batch that ``begin`` announced; ``undo`` takes back what came of it."""

    patience: float
    """Seconds that a batch may wait for more."""

    def begin(self) -> dict[str, Any]:
        """Return what ``undo`` has to know, as JSON can hold it."""

    def store(self, batch: Batch, mark: dict[str, Any]) -> None:
        """Store a batch. Raises OSError; a part of it may be stored then."""

    def undo(self, mark: dict[str, Any]) -> None:
        """Take back a batch that was stored in part or whole."""

    def close(self) -> None:
        """Finish."""


def open_sink(config: WorkerConfig) -> Sink | None:
    """Return the sink that is configured. Raises ConfigError, MissingDependency, OSError."""
    kind, colon, place = config.sink.partition(":")
    synced = bool(what_to_sync(config.durability))
    match kind:
        case "":
            return None
        case "jsonl" if place:
            return JsonLines(place, config.sink_rotate_bytes, config.sink_rotate_seconds, synced=synced)
        case "parquet" if place:
            return Parquet(place, synced=synced)
        case "call" if colon:
            return _Callback(place)
    raise ConfigError(f"worker.sink: expected jsonl:DIR, parquet:DIR or call:MODULE:FUNCTION, got {config.sink!r}")


class JsonLines:
    """``events.jsonl`` in a directory, one event a line; renamed with its time when it is large or old enough."""

    patience = 0.2

    def __init__(self, directory: str, max_bytes: int, max_seconds: float, *, synced: bool = True) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path = self._directory / "events.jsonl"
        self._max_bytes, self._max_seconds, self._synced = max_bytes, max_seconds, synced

    def begin(self) -> dict[str, Any]:
        """Rotate where it is time, and return where the file ends."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {"size": 0}
        started = self._started()
        if found.st_size >= self._max_bytes or (found.st_size and time.time() - started >= self._max_seconds):
            stamp = now().replace("-", "").replace(":", "").replace(".", "")
            self._path.rename(self._directory / f"events-{stamp}-{secrets.token_hex(2)}.jsonl")
            return {"size": 0}
        return {"size": found.st_size}

    def _started(self) -> float:
        """Return when the file was begun: its first batch wrote the time beside it."""
        try:
            return (self._directory / ".started").stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def store(self, batch: Batch, mark: dict[str, Any]) -> None:
        """Append the events."""
        if not mark["size"]:
            (self._directory / ".started").touch()
        with self._path.open("ab") as out:
            out.writelines(lines for _, lines in batch)
            if self._synced:
                out.flush()
                os.fsync(out.fileno())

    def undo(self, mark: dict[str, Any]) -> None:
        """Cut the file where the batch began."""
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._path, mark["size"])

    def close(self) -> None:
        """Nothing is kept open."""


class Parquet:
    """A Parquet file a batch: some columns to search by, and the whole event as JSON."""

    patience = 30.0

    def __init__(self, directory: str, *, synced: bool = True) -> None:
        try:
            self._arrow = importlib.import_module("pyarrow")
            self._parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as e:
            raise MissingDependency("pyarrow", "pip install 'deadreckon[parquet]'") from e
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._synced = synced

    def begin(self) -> dict[str, Any]:
        """Return the name of the file to come."""
        stamp = now().replace("-", "").replace(":", "").replace(".", "")
        return {"file": f"events-{stamp}-{secrets.token_hex(4)}.parquet"}

    def store(self, batch: Batch, mark: dict[str, Any]) -> None:
        """Write the file whole."""
        columns: dict[str, list[str | None]] = {name: [] for name in _COLUMNS}
        for job, lines in batch:
            for line in lines.splitlines():
                event = decode_event(line)
                for name, value in _row(job, event, line):
                    columns[name].append(value)
        schema = self._arrow.schema([(name, self._arrow.string()) for name in _COLUMNS])
        part = self._directory / f".{mark['file']}.part"
        self._parquet.write_table(self._arrow.table(columns, schema=schema), part, compression="zstd")
        if self._synced:
            sync(part)
        part.rename(self._directory / mark["file"])

    def undo(self, mark: dict[str, Any]) -> None:
        """Remove the file."""
        for name in (mark["file"], f".{mark['file']}.part"):
            (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is kept open."""


_COLUMNS = (
    "job event_id status timestamp platform level release environment title culprit format arch os process fingerprint"
    " event"
).split()


def _row(job: str, event: Event, line: bytes) -> list[tuple[str, str | None]]:
    fingerprint = event.fingerprint.id if event.fingerprint else None
    values = [
        job, event.event_id, event.status, event.timestamp, event.platform, event.level, event.release,
        event.environment, event.title, event.culprit, event.source.format, event.arch,
        event.os.name if event.os else None, event.process.name if event.process else None, fingerprint,
        line.decode("utf-8", "replace"),
    ]  # fmt: skip
    return list(zip(_COLUMNS, values, strict=True))


class _Callback:
    """A function of the user's, called with a job and its events; at least once, for nothing takes a call back."""

    patience = 0.2

    def __init__(self, place: str) -> None:
        module, _, name = place.partition(":")
        try:
            self._function: Callable[[str, list[Event]], object] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as e:
            raise ConfigError(f"worker.sink: call:{place}: {e}") from e

    def begin(self) -> dict[str, Any]:
        return {}

    def store(self, batch: Batch, mark: dict[str, Any]) -> None:
        del mark
        for job, lines in batch:
            try:
                self._function(job, [decode_event(line) for line in lines.splitlines()])
            except OSError:
                raise
            except Exception as e:
                raise OSError(f"worker.sink: {type(e).__name__}: {e}") from e

    def undo(self, mark: dict[str, Any]) -> None:
        """Nothing can."""

    def close(self) -> None:
        """Nothing is kept open."""


class Pump:
    """Moves what waits in ``active/.sink/`` into the sink and on to ``done/``. Raises OSError where it can't now."""

    def __init__(self, root: Path, config: WorkerConfig) -> None:
        self._sink = open_sink(config)
        self._place = root / "active" / SINKING
        self._done = root / "done"
        self._synced = what_to_sync(config.durability)
        self._lock = -1
        self._since: float | None = None
        self._recovered = False

    def flush(self, *, final: bool = False) -> int:
        """Store what waits, if it is enough or waited long enough (``final``: in any case); return how many jobs.

        Nothing happens while another supervisor of the same job directory does it.
        """
        names = sorted(name for name in list_names(self._place) if name[0] != ".")
        if not (names or os.path.lexists(self._place / _JOURNAL)) or not self._alone():
            return 0
        if not self._recovered:
            self._recover()
            names = sorted(name for name in list_names(self._place) if name[0] != ".")
        clock = time.monotonic()
        self._since = self._since if self._since is not None else clock
        patience = self._sink.patience if self._sink is not None else 0
        if not final and len(names) < _BATCH_JOBS and clock - self._since < patience:
            return 0
        moved = 0
        while names:
            batch, names = self._batch(names)
            self._store(batch)
            moved += len(batch)
            if not final:
                break
        self._since = None
        return moved

    def close(self) -> None:
        """Let others write the sink."""
        if self._sink is not None:
            self._sink.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _alone(self) -> bool:
        if self._lock >= 0:
            return True
        lock = os.open(self._place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self._recovered = False
        return True

    def _batch(self, names: Sequence[str]) -> tuple[Batch, list[str]]:
        batch: Batch = []
        size = 0
        for at, name in enumerate(names):
            if len(batch) == _BATCH_JOBS or size > _BATCH_BYTES:
                return batch, list(names[at:])
            try:
                lines = (self._place / name / EVENTS).read_bytes()
            except FileNotFoundError:
                lines = b""  # Somebody's own folder; it goes to done/ like the others and is in nobody's way.
            batch.append((name, lines))
            size += len(lines)
        return batch, []

    def _store(self, batch: Batch) -> None:
        jobs = [name for name, _ in batch]
        if self._sink is not None:
            mark = self._sink.begin()
            self._note({"state": "writing", "mark": mark, "jobs": jobs})
            try:
                self._sink.store(batch, mark)
            except BaseException:
                self._recovered = False  # The next attempt undoes it first.
                raise
            self._note({"state": "written", "jobs": jobs})
            count("deadreckon_sink_events_total", amount=sum(lines.count(b"\n") for _, lines in batch))
        self._release(jobs)

    def _release(self, jobs: Sequence[str]) -> None:
        for name in jobs:
            with contextlib.suppress(FileNotFoundError):
                settle(f"{self._place}/{name}", self._done, name)
        if "dir" in self._synced:
            sync(self._done)
        (self._place / _JOURNAL).unlink(missing_ok=True)

    def _recover(self) -> None:
        """Undo or complete the batch of a supervisor that was stopped in the middle of it."""
        try:
            told = msgspec.json.decode((self._place / _JOURNAL).read_bytes())
        except FileNotFoundError:
            told = None
        if told is not None and told["state"] == "written":
            self._release(told["jobs"])
        elif told is not None:
            if self._sink is not None:
                self._sink.undo(told["mark"])
            (self._place / _JOURNAL).unlink()
        self._recovered = True

    def _note(self, told: dict[str, Any]) -> None:
        part = self._place / f"{_JOURNAL}.part"
        part.write_bytes(msgspec.json.encode(told))
        if self._synced:
            sync(part)
        part.rename(self._place / _JOURNAL)
