"""One worker: claim a job, process it, conclude it, and again. Knows jobs, not processes (see supervisor.py)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.errors import ReportError
from deadreckon.model.event import Attachment, Diagnostic, Event
from deadreckon.worker.description import Job

if TYPE_CHECKING:
    from deadreckon.config import Config
    from deadreckon.worker.spool import JobSource, Lease, Outcome

__all__ = ["Processor", "engine_processor", "work"]

Processor = Callable[[Job], list[Event]]
"""Makes the events of a job. May raise anything: OSError is worth another attempt, other errors are bugs."""

_FIRST_WAIT = 0.01

_log = logging.getLogger("deadreckon.worker")


def engine_processor(config: Config) -> Processor:
    """Return the processor that is in use outside of tests: an Engine, made once for a process."""
    from deadreckon.engine import Engine  # noqa: PLC0415

    engine = Engine(config)

    def process(job: Job) -> list[Event]:
        crashes = [f for f in job.files if f.role == "crash"]
        symbols = job.paths("symbols", "sourcemap")
        attributes = dict(job.attributes)
        if job.project is not None:
            attributes.setdefault("project", job.project)
        events: list[Event] = []
        try:
            for crash in crashes:
                events += engine.process_all(
                    crash.path,
                    name=crash.name,
                    kind=job.kind,
                    attributes=attributes,
                    symbols=symbols,
                    scratch=job.scratch,
                )
        finally:
            # Another job may have other files under the same path.
            engine.forget(symbols)
        # An id names one event; several crash files have theirs from their bytes.
        if job.event_id is not None and len(crashes) == 1:
            events[0].event_id = job.event_id
        attached = [
            Attachment(name=f.name, size=Path(f.path).stat().st_size) for f in job.files if f.role == "attachment"
        ]
        if attached:
            for event in events:
                event.attachments = [*(event.attachments or []), *attached]
        return events

    return process


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

    ``wait(seconds)`` waits, and says whether to stop; it is called with 0 between jobs. ``begin`` and ``end`` are
    called around each job. With nothing to do the wait grows to ``poll_seconds``. Raises MemoryError from the
    processor, for the process is then not fit to go on, and OSError from the source.
    """
    idle = _FIRST_WAIT
    while not wait(0):
        lease = source.claim()
        if lease is not None:
            begin()
            end(_conclude(source, lease, process))
            idle = _FIRST_WAIT
        elif (once and not source.settling) or wait(idle):
            return
        else:
            idle = min(2 * idle, poll_seconds)


def _conclude(source: JobSource, lease: Lease, process: Processor) -> Outcome:
    try:
        job = source.load(lease)
    except ReportError as e:
        return _dead(source, lease, _error(e.code, str(e)))
    except OSError as e:
        return _dead(source, lease, _error("unreadable", str(e)))
    try:
        events = process(job)
    except MemoryError:
        raise
    except ReportError as e:
        return _dead(source, lease, _error(e.code, str(e)))
    except OSError as e:
        return _retry(source, lease, _error("unreadable", str(e)))
    except Exception as e:  # noqa: BLE001 - a bug costs the job it happens in, not the worker
        return _dead(source, lease, _error("internal", f"{type(e).__name__}: {e}"), trace=traceback.format_exc())
    lost = [d for event in events if event.status in {"unreadable", "unsupported"} for d in event.diagnostics or []]
    # The files of a job were seen to be readable: one that isn't now is the fault of a disk, not of a crash.
    if reason := next((d for d in lost if d.code == "unreadable"), None):
        return _retry(source, lease, reason)
    if all(event.status in {"unreadable", "unsupported"} for event in events):
        # Nothing could be said; in failed/ the job can be tried again with a version that can read it.
        return _dead(source, lease, *(lost or [_error("unknown_format", "no crash in the input")]))
    try:
        source.ack(lease, events)
    except (OSError, MemoryError):
        raise
    except Exception as e:  # noqa: BLE001 - events that can't be written are a bug like any other
        return _dead(source, lease, _error("internal", f"{type(e).__name__}: {e}"), trace=traceback.format_exc())
    return "done"


def _dead(source: JobSource, lease: Lease, *diagnostics: Diagnostic, trace: str = "") -> Outcome:
    _log.warning("job %r failed: %s: %r", lease.job, diagnostics[0].code, diagnostics[0].message)
    source.dead(lease, diagnostics, trace)
    return "failed"


def _retry(source: JobSource, lease: Lease, reason: Diagnostic) -> Outcome:
    _log.warning("job %r, attempt %d: %r", lease.job, lease.attempt, reason.message)
    return source.retry(lease, reason)


def _error(code: str, message: str) -> Diagnostic:
    shown = message.encode("utf-8", "backslashreplace").decode()
    return Diagnostic(code=code, severity="error", stage="worker", message=shown)
