"""Watching a worker: logs, a progress line on a terminal, metrics and a health file for machines.

Files are replaced whole, so that a reader never sees half of one. That one can't be written is logged once and hinders
nothing: on a full disk a health file that grows old says enough.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

import msgspec

from deadreckon.telemetry import Totals
from deadreckon.worker.files import now

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable
    from pathlib import Path

    from deadreckon.config import WorkerConfig

__all__ = ["Watch", "log_end", "log_to_stderr", "terminal"]

_TICK_SECONDS = 1.0
_FILES_SECONDS = 5.0
_SHARE_OF_TIME = 20
"""Counting a queue of a million jobs takes seconds; it is done again after so many times as long."""
_BAR = 24


class _JsonLines(logging.Formatter):
    """One JSON object a record, on one line whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": now(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told, enc_hook=str).decode("utf-8", "replace")


def log_to_stderr(*, as_json: bool) -> None:
    """Send the package's logs to standard error, as JSON lines or for people."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("deadreckon: %(message)s"))
    logger = logging.getLogger("deadreckon")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def log_end(summary: dict[str, int]) -> None:
    """Log what became of all jobs."""
    logging.getLogger("deadreckon.worker").info("the worker ended", extra={"fields": summary})


class Watch:
    """What a supervisor knows of its work, told to whoever looks: ``tick`` is called all the time and rarely acts."""

    def __init__(self, root: Path, config: WorkerConfig, *, progress: TextIO | None = None) -> None:
        self.totals = Totals()
        self.paused: str | None = None
        self._root = root
        self._metrics = config.metrics_file or str(root / "metrics.prom")
        self._health = config.health_file or str(root / "health.json")
        self._progress = progress
        self._started = time.time()
        self._ticked = self._written = self._counted = -_FILES_SECONDS
        self._count_after = 0.0
        self._queue: dict[str, int | float | None] = {}
        self._complained: set[str] = set()
        self._shown = False

    def tick(self, outcomes: Counter[str], pids: Iterable[int | None], state: str, *, now: bool = False) -> None:
        """Write what there is to know: a line a second on a terminal, files every five seconds, all of it ``now``."""
        clock = time.monotonic()
        if not now and clock - self._ticked < _TICK_SECONDS:
            return
        self._ticked = clock
        if clock - self._counted > self._count_after or now:
            self._look(clock)
        if self._progress is not None:
            self._show(self._progress, outcomes, state)
        if now or clock - self._written > _FILES_SECONDS:
            self._written = clock
            running = [pid for pid in pids if pid]
            self._write(self._metrics, self._render(running).encode())
            told = {
                "at": _now(),
                "state": f"paused: {self.paused}" if self.paused else state,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "processes": len(running),
                "since_start": dict(outcomes),
                **self._queue,
            }
            self._write(self._health, msgspec.json.encode(told) + b"\n")

    def clear(self) -> None:
        """Take the progress line off the terminal, before something else is printed."""
        if self._progress is not None and self._shown:
            self._progress.write("\r\033[K")
            self._progress.flush()
            self._shown = False

    def _look(self, clock: float) -> None:
        from deadreckon.worker.jobs import status  # noqa: PLC0415

        try:
            self._queue = status(self._root)
        except OSError as e:
            self._complain(str(self._root), e)
        self._counted = time.monotonic()
        self._count_after = _SHARE_OF_TIME * (self._counted - clock)

    def _render(self, pids: list[int]) -> str:
        gauges: dict[tuple[str, str], float] = {
            ("deadreckon_start_time_seconds", ""): self._started,
            ("deadreckon_worker_processes", ""): len(pids),
            ("deadreckon_worker_resident_bytes", ""): sum(map(_resident, pids)),
            ("deadreckon_worker_paused", ""): self.paused is not None,
            ("deadreckon_queue_oldest_seconds", ""): self._queue.get("oldest_seconds") or 0,
        }
        for state in ("new", "active"):
            gauges["deadreckon_queue_jobs", state] = self._queue.get(state) or 0
        try:
            found = os.statvfs(self._root)
            gauges["deadreckon_disk_free_bytes", ""] = found.f_bavail * found.f_frsize
        except OSError:
            pass
        return self.totals.render(gauges)

    def _show(self, out: TextIO, outcomes: Counter[str], state: str) -> None:
        ended = outcomes["done"] + outcomes["failed"]
        left = (self._queue.get("new") or 0) + (self._queue.get("active") or 0)
        filled = int(_BAR * ended / (ended + left)) if ended + left else 0
        rate = ended / max(time.time() - self._started, 1e-3)
        says = f"paused: {self.paused}" if self.paused else state
        bar = f"[{'#' * filled:<{_BAR}}]"
        line = f"{bar} {ended} ended, {outcomes['failed']} failed, {left:.0f} left, {rate:.0f}/s, {says}"
        out.write(f"\r\033[K{line[: _width(out) - 1]}")
        out.flush()
        self._shown = True

    def _write(self, path: str, content: bytes) -> None:
        part = f"{path}.{os.getpid()}.part"
        try:
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, path)
        except OSError as e:
            self._complain(path, e)
            try:
                os.unlink(part)
            except OSError:
                pass
        else:
            self._complained.discard(path)

    def _complain(self, path: str, error: OSError) -> None:
        if path not in self._complained:
            self._complained.add(path)
            logging.getLogger("deadreckon.worker").warning("%s: %s", path, error)


_now = now


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _width(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def terminal() -> TextIO | None:
    """Return standard error where it is a terminal."""
    return sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
