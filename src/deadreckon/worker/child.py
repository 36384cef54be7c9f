"""A worker process from the inside: its limits, its leash, and what it tells its supervisor.

The kernel enforces what Python can't while native code runs: SIGALRM ends a job that takes too long, after the handler
of ``faulthandler`` has written where it was, and a signal on the pipe to the supervisor ends children that outlive it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import multiprocessing
import os
import resource
import select
import signal
import time
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deadreckon import telemetry
from deadreckon.errors import SpoolError
from deadreckon.worker.runner import Processor, work
from deadreckon.worker.spool import Spool
from deadreckon.worker.watch import log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.config import Config
    from deadreckon.worker.source import Outcome

__all__ = ["EXIT_OUT_OF_MEMORY", "EXIT_STORAGE", "OUTCOMES", "Counted", "Task", "leash", "live", "memory_limit"]

GiB = 1 << 30
MAX_MEMORY = 8 * GiB
EXIT_OUT_OF_MEMORY = 77
EXIT_STORAGE = 78
_SAY_SECONDS = 1.0
_BADNESS = "500"
"""So that, where memory runs out, the kernel ends a worker process before the supervisor or somebody's database."""

_log = logging.getLogger("deadreckon.worker")


@dataclass(frozen=True, slots=True)
class Task:
    """What all children are told."""

    jobdir: Path
    config: Config
    once: bool
    processes: int
    processor: Callable[[Config], Processor]
    json_logs: bool | None = None
    """How to log; None: not at all."""


OUTCOMES: tuple[Outcome, ...] = ("done", "failed", "retried")
"""Each job that ends is a byte on a pipe, the outcome's number: a message would cost as much as a small job."""
Counted = list[tuple[str, str, str, float]]
"""What ``telemetry.drain`` gives; said once a second."""


def memory_limit(config: Config, processes: int) -> int:
    """Return what a process may have of its own, in bytes."""
    if config.worker.job_memory_bytes:
        return config.worker.job_memory_bytes
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        there = min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(MAX_MEMORY, there * 9 // 10 // processes)


def live(task: Task, worker: str, number: int, line: connection.Connection, tally: connection.Connection) -> None:
    """Be a worker process, one of ``task.processes``."""
    leash()
    settings = task.config.worker
    limit = memory_limit(task.config, task.processes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A report of our own crash on a hostile file is as large as it.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    files = min(settings.job_open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_BADNESS, encoding="ascii")
    if task.json_logs is not None:
        log_to_stderr(as_json=task.json_logs)
    encoder = msgspec.msgpack.Encoder()
    said = 0.0

    poller = select.poll()
    poller.register(line.fileno(), select.POLLIN)
    told = tally.fileno()
    codes = {outcome: bytes([code]) for code, outcome in enumerate(OUTCOMES)}

    def wait(seconds: float) -> bool:
        nonlocal said
        now = time.monotonic()
        if now - said > _SAY_SECONDS and (counted := telemetry.drain()):
            said = now
            line.send_bytes(encoder.encode(counted))
        return bool(poller.poll(seconds * 1000))  # The word to stop, or the end of the line.

    def begin() -> None:
        signal.setitimer(signal.ITIMER_REAL, settings.job_seconds)

    def end(outcome: Outcome) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(told, codes[outcome])

    process = task.processor(task.config)
    try:
        spool = Spool(task.jobdir, settings, worker=worker, share=(number, task.processes))
        with spool.trace() as trace:
            faulthandler.enable(trace, all_threads=False)
            faulthandler.register(signal.SIGALRM, trace, all_threads=False, chain=True)
            work(spool, process, wait=wait, begin=begin, end=end, poll_seconds=settings.poll_seconds, once=task.once)
            faulthandler.unregister(signal.SIGALRM)
            faulthandler.disable()
        spool.close()  # Not after an error: the supervisor then finds the lease, and counts the attempt.
        line.send_bytes(encoder.encode(telemetry.drain()))
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    except OSError as e:
        if not isinstance(e, BrokenPipeError):
            _log.error("%s: %s", task.jobdir, e)
        os._exit(EXIT_STORAGE)


def leash() -> None:
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
