"""One worker: claim a job, process it, conclude it, and again. Knows jobs, not processes (see supervisor.py).

A disk that is full or read-only is no job's fault: no job is claimed then, and one under way is given back uncharged.
"""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError, ReportError, SourceUnavailable
from deadreckon.model.event import Diagnostic, Event
from deadreckon.telemetry import count, observe
from deadreckon.worker.description import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deadreckon.worker.source import JobSource, Lease, Outcome

__all__ = ["Processor", "work"]

Processor = Callable[[Job], list[Event]]
"""Makes the events of a job, none for one that only brings symbols (``Job.imported``).

May raise anything: OSError is worth another attempt, other errors are bugs.
"""

_FIRST_WAIT = 0.01
_QUICK_SECONDS = 0.01
_MAX_AHEAD = 16
"""Quick jobs that are claimed at a time; a slow one among them keeps the others waiting."""

_log = logging.getLogger("deadreckon.worker")


def work(
    source: JobSource,
    process: Processor,
    *,
    wait: Callable[[float], bool],
    begin: Callable[[], None] = lambda: None,
    end: Callable[[Outcome], None] = lambda _: None,
    poll_seconds: float = 0.5,
    once: bool = False,
) -> None:
    """Conclude jobs until told to stop, or with ``once`` until there are none.

    ``wait(seconds)`` waits, and says whether to stop; it is called with 0 between jobs. ``begin`` is called before
    anything is done for a job, ``end`` with what became of it. With nothing to do the wait grows to ``poll_seconds``.
    Quick jobs are claimed and stored some at a time: going from computing to system calls and back costs more than
    these themselves. What is claimed when it is to stop is the source's to give back. Raises MemoryError from the
    processor, for the process is then not fit to go on, and OSError from the source.
    """
    idle = _FIRST_WAIT
    hindered = None
    ahead = 1
    while not wait(0):
        if (obstacle := source.obstacle()) is not None:
            if hindered is None:
                _log.error("no jobs are claimed: %s", obstacle)
            hindered = obstacle
            if wait(poll_seconds):
                return
            continue
        if hindered is not None:
            _log.warning("jobs are claimed again")
            hindered = None
        started = time.monotonic()
        leases = _claim(source, ahead)
        if leases:
            _conclude_all(source, leases, process, wait, begin, end)
            each = (time.monotonic() - started) / len(leases)
            ahead = min(2 * ahead, _MAX_AHEAD) if each < _QUICK_SECONDS else 1
            idle = _FIRST_WAIT
        elif (once and not source.settling) or wait(idle):
            return
        else:
            idle = min(2 * idle, poll_seconds)


def _claim(source: JobSource, number: int) -> list[Lease]:
    leases: list[Lease] = []
    while len(leases) < number and (lease := source.claim()) is not None:
        leases.append(lease)
    return leases


def _conclude_all(
    source: JobSource,
    leases: list[Lease],
    process: Processor,
    wait: Callable[[float], bool],
    begin: Callable[[], None],
    end: Callable[[Outcome], None],
) -> None:
    """Read some jobs, process them, then store what came of them; told to stop, store what is there."""
    jobs: list[tuple[Lease, Job]] = []
    for lease in leases:
        source.mark(lease)
        begin()
        loaded = _load(source, lease)
        if isinstance(loaded, str):
            end(loaded)
        else:
            jobs.append((lease, loaded))
    results: list[tuple[Lease, Job, list[Event], float]] = []
    for at, (lease, job) in enumerate(jobs):
        if at and wait(0):
            break
        source.mark(lease)
        begin()
        started = time.monotonic()
        found = _process(source, lease, job, process)
        spent = time.monotonic() - started
        if isinstance(found, str):
            observe("deadreckon_job_seconds", spent)
            end(found)
        else:
            results.append((lease, job, found, spent))
    for lease, job, events, spent in results:
        source.mark(lease)
        begin()
        started = time.monotonic()
        outcome = _store(source, lease, job, events)
        observe("deadreckon_job_seconds", spent + time.monotonic() - started)
        end(outcome)


def _load(source: JobSource, lease: Lease) -> Job | Outcome:
    try:
        return source.load(lease)
    except ReportError as e:
        return _dead(source, lease, _error(e.code, str(e)))
    except OSError as e:
        return _dead(source, lease, _error("unreadable", str(e)))


def _process(source: JobSource, lease: Lease, job: Job, process: Processor) -> list[Event] | Outcome:
    """Return a job's events, to be stored, or what became of a job that has none."""
    try:
        events = process(job)
    except MemoryError:
        raise
    except SourceUnavailable as e:
        return _retry(source, lease, _error(e.code, str(e)))
    except DeadreckonError as e:
        return _dead(source, lease, _error(e.code, str(e)))
    except OSError as e:
        return _retry(source, lease, _error("unreadable", str(e)))
    except Exception as e:  # noqa: BLE001 - a bug costs the job it happens in, not the worker
        return _dead(source, lease, _error("internal", f"{type(e).__name__}: {e}"), trace=traceback.format_exc())
    lost = [d for event in events if event.status in {"unreadable", "unsupported"} for d in event.diagnostics or []]
    # The files of a job were seen to be readable: one that isn't now is the fault of a disk, not of a crash.
    if reason := next((d for d in lost if d.code == "unreadable"), None):
        return _retry(source, lease, reason)
    if not job.imported and all(event.status in {"unreadable", "unsupported"} for event in events):
        # Nothing could be said; in failed/ the job can be tried again with a version that can read it.
        return _dead(source, lease, *(lost or [_error("unknown_format", "no crash in the input")]))
    return events


def _store(source: JobSource, lease: Lease, job: Job, events: list[Event]) -> Outcome:
    try:
        source.ack(lease, events, job.imported)
    except (OSError, MemoryError):
        raise
    except ReportError as e:
        return _dead(source, lease, _error(e.code, str(e)))
    except Exception as e:  # noqa: BLE001 - events that can't be written are a bug like any other
        return _dead(source, lease, _error("internal", f"{type(e).__name__}: {e}"), trace=traceback.format_exc())
    for event in events:
        count("deadreckon_events_total", event.status)
        _count(event.diagnostics or ())
    return "done"


def _dead(source: JobSource, lease: Lease, *diagnostics: Diagnostic, trace: str = "") -> Outcome:
    _log.warning("job %r failed: %s: %r", lease.job, diagnostics[0].code, diagnostics[0].message)
    source.dead(lease, diagnostics, trace)
    _count(diagnostics)
    return "failed"


def _retry(source: JobSource, lease: Lease, reason: Diagnostic) -> Outcome:
    if (obstacle := source.obstacle()) is not None:
        raise OSError(errno.ENOSPC, obstacle)
    _log.warning("job %r, attempt %d: %r", lease.job, lease.attempt, reason.message)
    return source.retry(lease, reason)


def _count(diagnostics: Iterable[Diagnostic]) -> None:
    for diagnostic in diagnostics:
        count("deadreckon_diagnostics_total", diagnostic.code)


def _error(code: str, message: str) -> Diagnostic:
    shown = message.encode("utf-8", "backslashreplace").decode()
    return Diagnostic(code=code, severity="error", stage="worker", message=shown)
