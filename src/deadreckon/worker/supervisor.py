"""Worker processes: started, watched, replaced. A job that kills its process costs one attempt of that job.

Children (child.py) are forked from a forkserver that has the engine loaded. Each is a Spool of its own and holds its
own home, so that a claim lives exactly as long as the process that works on it, whatever becomes of the supervisor.

A job directory that can't be written to, for a full disk or a file system that became read-only, stops nothing for
good: no job is claimed, what was under way goes back uncharged, and when there is room again the work goes on.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deadreckon import telemetry
from deadreckon.config import Config
from deadreckon.errors import SpoolError
from deadreckon.model.event import Diagnostic
from deadreckon.worker.child import EXIT_OUT_OF_MEMORY, EXIT_STORAGE, OUTCOMES, Counted, Task, live, memory_limit
from deadreckon.worker.files import obstacle
from deadreckon.worker.home import lease_of, renew
from deadreckon.worker.processor import engine_processor
from deadreckon.worker.sinks import Pump
from deadreckon.worker.spool import Spool
from deadreckon.worker.watch import Watch, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import ForkServerProcess
    from types import FrameType

    from deadreckon.worker.runner import Processor
    from deadreckon.worker.source import Outcome

__all__ = ["Summary", "run", "start_forkserver"]

_TICK_SECONDS = 0.25
_PROBE_SECONDS = 1.0
_RECLAIM_SECONDS = 5.0
_RENEWALS = 5
_MAX_FALSE_STARTS = 5

_log = logging.getLogger("deadreckon.worker")


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the jobs: ended in done/, ended in failed/, attempts that were given back."""

    done: int = 0
    failed: int = 0
    retried: int = 0


def run(
    jobdir: str | os.PathLike[str],
    config: Config | None = None,
    *,
    processes: int = 1,
    once: bool = False,
    processor: Callable[[Config], Processor] = engine_processor,
    progress: bool = False,
    json_logs: bool | None = None,
) -> Summary:
    """Work on a job directory until SIGTERM or SIGINT, or with ``once`` until all that is there has ended.

    The first signal lets the jobs under way finish and claims no more; the second stops at once, and what was under
    way goes back to ``new/`` uncharged. Limits and the like are those of ``config.worker``. ``processor`` is called
    once in every child and must be importable by its name. ``progress`` shows a line on standard error where that is a
    terminal; ``json_logs`` has children log to it, as JSON or for people.

    Raises SpoolError when the directory can't be used, or when children keep ending before they take a job; what was
    under way then goes back uncharged, too.
    """
    task = Task(Path(jobdir), config or Config(), once, processes, processor, json_logs)
    try:
        supervisor = _Supervisor(task, progress=progress)
        with _signals(supervisor):
            return supervisor.run()
    except OSError as e:
        raise SpoolError(f"{jobdir}: {e}") from e


@dataclass(slots=True)
class _Child:
    process: ForkServerProcess
    line: connection.Connection
    tally: connection.Connection
    worker: str
    number: int
    concluded: int = 0
    told_to_stop: bool = False


class _Supervisor:
    def __init__(self, task: Task, *, progress: bool) -> None:
        self._task = task
        self._settings = task.config.worker
        self._spool = Spool(task.jobdir, self._settings)
        self._lease = lease_of(self._settings)
        self._pump = Pump(task.jobdir, self._settings) if self._settings.sink else None
        self._watch = Watch(task.jobdir, self._settings, progress=terminal() if progress else None)
        self._context = multiprocessing.get_context("forkserver")
        self._children: list[_Child] = []
        self._buried: list[tuple[str, Diagnostic, int]] = []
        """Homes of children that ended, the reason, and what it counts; until they could be cleared."""
        self._found: Counter[Outcome] = Counter()
        self._false_starts = 0
        self._decoder = msgspec.msgpack.Decoder(Counted)
        self._probed = self._looked = self._renewed = float("-inf")
        self.stops = 0

    def run(self) -> Summary:
        start_forkserver("deadreckon.worker.warm" if self._task.processor is engine_processor
                         else self._task.processor.__module__)  # fmt: skip
        wanted = self._task.processes
        try:
            while self.stops < 2:
                hindered = self._hindered()
                if not hindered and time.monotonic() - self._looked > _RECLAIM_SECONDS and self._reclaim():
                    wanted = self._task.processes
                while len(self._children) < wanted and not self.stops and not hindered:
                    self._start()
                self._listen()
                wanted -= self._bury_dead()
                self._keep_up(final=False)
                if self.stops:
                    self._tell_to_stop()
                if self._children:
                    continue
                if self.stops:
                    break
                # With once: what other workers left since is part of what is there.
                if not wanted and not self._hindered(now=True):
                    if self._reclaim():
                        wanted = self._task.processes
                    elif not self._buried:
                        break
        finally:
            self.stops = max(self.stops, 2)
            self._end()
        return Summary(*(self._found[outcome] for outcome in OUTCOMES))

    def _end(self) -> None:
        for child in self._children:
            child.process.kill()
        while self._children:
            child = self._children.pop()
            child.process.join()
            self._bury(child)
        try:
            self._clear_buried()
            self._keep_up(final=True)
        except OSError as e:
            _log.error("%s: %s; the next worker goes on from there", self._task.jobdir, e)
        if self._pump is not None:
            self._pump.close()
        self._watch.tick(Counter(self._found), [], "stopped", now=True)
        self._watch.clear()

    # -- the disk ------------------------------------------------------------------------------------------------------

    def _hindered(self, *, now: bool = False) -> bool:
        """Say whether results can't be stored for the time being; looks once a second."""
        clock = time.monotonic()
        if now or clock - self._probed > _PROBE_SECONDS:
            self._probed = clock
            self._pause(obstacle(self._task.jobdir, self._settings.min_free_bytes, probe=True))
            if self._watch.paused is None:
                try:
                    self._clear_buried()
                except OSError as e:
                    self._pause(str(e))
        return self._watch.paused is not None

    def _pause(self, why: str | None) -> None:
        if why is not None and self._watch.paused is None:
            self._watch.clear()
            _log.error("paused, no jobs are claimed: %s", why)
        elif why is None and self._watch.paused is not None:
            _log.warning("jobs are claimed again")
        self._watch.paused = why

    def _keep_up(self, *, final: bool) -> None:
        """Do what is to be done from time to time: the sink, leases, metrics."""
        clock = time.monotonic()
        if self._lease is not None and clock - self._renewed > self._lease / _RENEWALS:
            self._renewed = clock
            for child in self._children:
                renew(self._task.jobdir / "active" / child.worker)
        if self._pump is not None:
            try:
                self._pump.flush(final=final or (self._task.once and not self._children))
            except OSError as e:
                if final:
                    raise
                self._pause(f"the sink: {e}")
                self._probed = clock
        self._watch.totals.add(telemetry.drain())
        state = "draining" if self.stops else "running"
        self._watch.tick(Counter(self._found), [child.process.pid for child in self._children], state)

    def _reclaim(self) -> bool:
        """See to what workers that are gone left behind; say whether there is more to do now."""
        self._looked = time.monotonic()
        try:
            found = self._spool.reclaim()
        except OSError as e:
            self._pause(str(e))
            return False
        self._count(found)
        return found["retried"] > 0

    # -- children ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        worker = f"{os.getpid()}-{secrets.token_hex(8)}"
        taken = {child.number for child in self._children}
        number = next(n for n in range(self._task.processes) if n not in taken)
        ours, theirs = self._context.Pipe()
        tally, told = self._context.Pipe(duplex=False)
        os.set_blocking(tally.fileno(), False)
        process = self._context.Process(
            target=live,
            args=(self._task, worker, number, theirs, told),
            name=f"deadreckon worker {worker}",
        )
        process.start()
        theirs.close()
        told.close()
        self._children.append(_Child(process, ours, tally, worker, number))

    def _listen(self) -> None:
        """Wait for a child's word or end, and count what was said."""
        lines = [child.line for child in self._children if not child.line.closed]
        if not self._children:
            time.sleep(_TICK_SECONDS if self._watch.paused is not None else 0)
            return
        connection.wait([*lines, *(child.process.sentinel for child in self._children)], _TICK_SECONDS)
        for child in self._children:
            self._hear(child)

    def _hear(self, child: _Child) -> None:
        with contextlib.suppress(BlockingIOError):
            while outcomes := os.read(child.tally.fileno(), 1 << 16):
                child.concluded += len(outcomes)
                self._count(Counter({OUTCOMES[code]: number for code, number in Counter(outcomes).items()}))
        try:
            while not child.line.closed and child.line.poll():
                self._watch.totals.add(self._decoder.decode(child.line.recv_bytes()))
        except (EOFError, OSError, msgspec.MsgspecError):
            child.line.close()

    def _count(self, found: Counter[Outcome]) -> None:
        self._found += found
        for outcome, number in found.items():
            telemetry.count("deadreckon_jobs_total", outcome, number)

    def _bury_dead(self) -> int:
        """Bury the children that ended; return how many did so because there was nothing more to do."""
        ended = 0
        for child in [c for c in self._children if not c.process.is_alive()]:
            self._children.remove(child)
            if (reason := self._bury(child)) is None:
                ended += 1
                continue
            if self._false_starts == _MAX_FALSE_STARTS:
                raise SpoolError(
                    f"{_MAX_FALSE_STARTS} worker processes ended without any result; the last one: {reason}"
                )
            time.sleep(0.1 * self._false_starts)
        return ended

    def _bury(self, child: _Child) -> str | None:
        """See to what a child that ended left behind; return why it ended, None if of its own will."""
        self._hear(child)
        child.line.close()
        child.tally.close()
        code, pid = child.process.exitcode, child.process.pid
        child.process.close()
        if code == 0 and not (self._task.jobdir / "active" / child.worker).exists():
            return None
        # What the child started is of no use without it, and may hold its lock.
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        why, reason = self._reason(code)
        # A job is no more to blame for a full disk than for our own end; for a result that never can be stored it is.
        blameless = self.stops > 1 or (code == EXIT_STORAGE and self._hindered(now=True))
        self._buried.append((child.worker, reason, 0 if blameless else 1))
        telemetry.count("deadreckon_worker_ends_total", why)
        self._watch.clear()
        _log.warning("worker process %s: %s", pid, reason.message)
        left: Counter[Outcome] = Counter()
        try:
            left = self._clear_buried()
        except OSError as e:
            self._pause(str(e))
        if child.concluded or (left and not blameless):
            self._false_starts = 0
        elif code != -signal.SIGKILL:  # Somebody's intention, or the kernel's need: no reason to give up.
            self._false_starts += 1
        return reason.message

    def _clear_buried(self) -> Counter[Outcome]:
        """Complete or give back what children left that ended. Raises OSError where that isn't possible now."""
        left: Counter[Outcome] = Counter()
        while self._buried:
            worker, reason, charge = self._buried[0]
            left += self._spool.reclaim(worker, reason, charge=charge)
            self._buried.pop(0)
        self._count(left)
        return left

    def _reason(self, code: int | None) -> tuple[str, Diagnostic]:
        """Return why a child ended: as a metric's label, and as what is told of its job."""
        kind = "internal"
        if code == -signal.SIGALRM:
            why, kind, message = "time", "limit_exceeded", f"not finished in {self._settings.job_seconds:g} s"
        elif code == EXIT_OUT_OF_MEMORY:
            limit = memory_limit(self._task.config, self._task.processes)
            why, kind, message = "memory", "limit_exceeded", f"out of memory, the limit is {limit} bytes"
        elif code == EXIT_STORAGE:
            why, kind, message = "storage", "unreadable", "the result can't be stored"
        elif code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why, message = "signal", f"killed by {name}"
        else:
            why, message = "exit", f"the process ended with exit code {code}"
        return why, Diagnostic(code=kind, severity="error", stage="worker", message=message)

    def _tell_to_stop(self) -> None:
        for child in self._children:
            if not child.told_to_stop:
                child.told_to_stop = True
                with contextlib.suppress(OSError):
                    child.line.send_bytes(b"stop")


def start_forkserver(preload: str) -> None:
    """Start the process that others are forked from, with a module loaded, out of reach of a service's signals."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([preload])
    # systemd sends SIGTERM to every process of a unit. The forkserver has to outlive its children, or their end
    # goes unseen; it inherits a mask. The resource tracker is started before, because it unblocks what it blocks.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals(supervisor: _Supervisor) -> Iterator[None]:
    """Count SIGTERM and SIGINT while the supervisor runs; only a main thread can."""

    def count(_number: int, _frame: FrameType | None) -> None:
        supervisor.stops += 1

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, count) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
