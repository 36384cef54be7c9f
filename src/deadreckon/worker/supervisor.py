"""Worker processes: started, watched, replaced. A job that kills its process costs one attempt of that job.

Children are forked from a forkserver that has the engine loaded. Each is a Spool of its own and holds the lock of its
own home, so that a claim lives exactly as long as the process that works on it, whatever becomes of the supervisor.
The kernel enforces what Python can't while native code runs: SIGALRM ends a job that takes too long, and a signal on
the pipe to the supervisor ends children that outlive it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import resource
import secrets
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.config import Config
from deadreckon.errors import SpoolError
from deadreckon.model.event import Diagnostic
from deadreckon.worker.runner import Processor, engine_processor, work
from deadreckon.worker.spool import Outcome, Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import ForkServerProcess
    from types import FrameType

__all__ = ["Summary", "run"]

GiB = 1 << 30

_EXIT_OUT_OF_MEMORY = 77
_EXIT_STORAGE = 78
_TICK_SECONDS = 0.25
_RECLAIM_SECONDS = 5.0
_MAX_FALSE_STARTS = 5
_OUTCOMES: tuple[Outcome, ...] = ("done", "failed", "retried")

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
    job_seconds: float = 300.0,
    memory_bytes: int | None = 8 * GiB,
    processor: Callable[[Config], Processor] = engine_processor,
) -> Summary:
    """Work on a job directory until SIGTERM or SIGINT, or with ``once`` until all that is there has ended.

    The first signal lets the jobs under way finish and claims no more; the second stops at once, and what was under
    way goes back to ``new/`` uncharged. ``job_seconds`` is the time a job may take; one that takes longer is killed.
    ``memory_bytes`` limits a child's own memory (RLIMIT_DATA: files mapped for reading don't count; None: no limit).
    ``processor`` is called once in every child and must be importable by its name.

    Raises SpoolError when the directory can't be used, or when children keep ending before they take a job or because
    results can't be stored; what was under way then goes back uncharged, too.
    """
    task = _Task(Path(jobdir), config or Config(), once, job_seconds, memory_bytes, processor)
    supervisor = _Supervisor(task, processes)
    with _signals(supervisor):
        try:
            return supervisor.run()
        except OSError as e:
            raise SpoolError(f"{jobdir}: {e}") from e


@dataclass(frozen=True, slots=True)
class _Task:
    """What all children are told."""

    jobdir: Path
    config: Config
    once: bool
    job_seconds: float
    memory_bytes: int | None
    processor: Callable[[Config], Processor]


@dataclass(slots=True)
class _Child:
    process: ForkServerProcess
    line: connection.Connection
    worker: str
    concluded: int = 0
    told_to_stop: bool = False


class _Supervisor:
    def __init__(self, task: _Task, processes: int) -> None:
        self._task = task
        self._processes = processes
        self._spool = Spool(task.jobdir, task.config.worker)
        self._context = multiprocessing.get_context("forkserver")
        self._children: list[_Child] = []
        self._found: Counter[Outcome] = Counter()
        self._false_starts = 0
        self.stops = 0

    def run(self) -> Summary:
        self._start_forkserver()
        self._reclaim()
        looked = time.monotonic()
        wanted = self._processes
        try:
            while self.stops < 2:
                while len(self._children) < wanted and not self.stops:
                    self._start()
                if self._children:
                    self._listen()
                    wanted -= self._bury_dead()
                if self.stops:
                    self._tell_to_stop()
                if not self._children or time.monotonic() - looked > _RECLAIM_SECONDS:
                    looked = time.monotonic()
                    # With once: what other workers left since is part of what is there.
                    if self._reclaim():
                        wanted = self._processes
                    elif not self._children and (self.stops or not wanted):
                        break
        finally:
            self.stops = max(self.stops, 2)
            for child in self._children:
                child.process.kill()
            for child in self._children:
                child.process.join()
                self._bury(child)
        return Summary(*(self._found[outcome] for outcome in _OUTCOMES))

    def _reclaim(self) -> bool:
        """See to what workers that are gone left behind; say whether there is more to do now."""
        found = self._spool.reclaim()
        self._found += found
        return found["retried"] > 0

    def _start_forkserver(self) -> None:
        home = "deadreckon.engine" if self._task.processor is engine_processor else self._task.processor.__module__
        self._context.set_forkserver_preload([home])
        # systemd sends SIGTERM to every process of a unit. The forkserver has to outlive its children, or their end
        # goes unseen; it inherits a mask. The resource tracker is started before, because it unblocks what it blocks.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start(self) -> None:
        worker = f"{os.getpid()}-{secrets.token_hex(8)}"
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_child,
            args=(self._task, worker, theirs),
            name=f"deadreckon worker {worker}",
        )
        process.start()
        theirs.close()
        self._children.append(_Child(process, ours, worker))

    def _listen(self) -> None:
        """Wait for a child's word or end, and count what was said."""
        lines = {child.line: child for child in self._children if not child.line.closed}
        ready = connection.wait([*lines, *(child.process.sentinel for child in self._children)], _TICK_SECONDS)
        for line in ready:
            if isinstance(line, connection.Connection):
                self._hear(lines[line])

    def _hear(self, child: _Child) -> None:
        try:
            while child.line.poll():
                self._found[_OUTCOMES[child.line.recv_bytes(1)[0]]] += 1
                child.concluded += 1
        except (EOFError, OSError):
            child.line.close()

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
        if not child.line.closed:
            self._hear(child)
            child.line.close()
        code, pid = child.process.exitcode, child.process.pid
        child.process.close()
        if code == 0 and not (self._task.jobdir / "active" / child.worker).exists():
            return None
        # What the child started is of no use without it, and may hold its lock.
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        reason = self._reason(code)
        # A job is no more to blame for a full disk than for our own end.
        blameless = self.stops > 1 or code == _EXIT_STORAGE
        left = self._spool.reclaim(child.worker, reason, charge=0 if blameless else 1)
        self._found += left
        _log.warning("worker process %s: %s", pid, reason.message)
        if child.concluded or (left and not blameless):
            self._false_starts = 0
        elif code != -signal.SIGKILL:  # Somebody's intention, or the kernel's need: no reason to give up.
            self._false_starts += 1
        return reason.message

    def _reason(self, code: int | None) -> Diagnostic:
        kind = "internal"
        if code == -signal.SIGALRM:
            kind, message = "limit_exceeded", f"not finished in {self._task.job_seconds:g} s"
        elif code == _EXIT_OUT_OF_MEMORY:
            kind, message = "limit_exceeded", f"out of memory, the limit is {self._task.memory_bytes} bytes"
        elif code == _EXIT_STORAGE:
            kind, message = "unreadable", "the job directory can't be written to"
        elif code is not None and code < 0:
            message = f"killed by {signal.Signals(-code).name}"
        else:
            message = f"the process ended with exit code {code}"
        return Diagnostic(code=kind, severity="error", stage="worker", message=message)

    def _tell_to_stop(self) -> None:
        for child in self._children:
            if not child.told_to_stop:
                child.told_to_stop = True
                with contextlib.suppress(OSError):
                    child.line.send_bytes(b"stop")


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


def _child(task: _Task, worker: str, line: connection.Connection) -> None:
    """Be a worker process."""
    _leash()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A report of our own crash on a hostile file is as large as it.
    if task.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (task.memory_bytes, task.memory_bytes))

    def wait(seconds: float) -> bool:
        return line.poll(seconds)  # The word to stop, or the end of the line.

    def begin() -> None:
        signal.setitimer(signal.ITIMER_REAL, task.job_seconds)

    def end(outcome: Outcome) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        line.send_bytes(bytes([_OUTCOMES.index(outcome)]))

    settings = task.config.worker
    process = task.processor(task.config)
    try:
        spool = Spool(task.jobdir, settings, worker=worker)
        work(spool, process, wait=wait, begin=begin, end=end, poll_seconds=settings.poll_seconds, once=task.once)
        spool.close()  # Not after an error: the supervisor then finds the lease, and counts the attempt.
    except MemoryError:
        os._exit(_EXIT_OUT_OF_MEMORY)
    except OSError as e:
        _log.error("%s: %s", task.jobdir, e)
        os._exit(_EXIT_STORAGE)


def _leash() -> None:
    """Arrange for this process, and all it starts, to end by SIGKILL when the supervisor does.

    PR_SET_PDEATHSIG is of no use here: the parent is the forkserver, which lives as long as its children.
    """
    os.setpgid(0, 0)  # Apart from the terminal's Ctrl-C, too: the supervisor passes on what a signal means.
    parent = multiprocessing.parent_process()
    if parent is None:
        raise SpoolError("a worker process has to be started by a supervisor")
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if connection.wait([pipe], 0):  # Too late for the signal.
        os.kill(os.getpid(), signal.SIGKILL)
    # A service manager may signal every process of the service; to children only the supervisor's word counts. A
    # handler that does nothing isn't inherited by programs they start, as SIG_IGN would be.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
