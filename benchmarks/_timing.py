"""Fair timing on a machine that others use: runs in turns on one core, medians with their spread, ratios by round.

A round runs every competitor once, so that what else the machine does falls on all alike, and a ratio compares runs of
one round. Wall-clock time is what a user waits; processor time is less moved by neighbours. Both are kept.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Cost", "Spread", "in_turns", "machine", "on_one_core", "ratios", "run", "spread"]


class Cost(NamedTuple):
    """What a run cost in seconds: on the clock, and on processors (its child processes' included)."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the lowest and highest of the values it stands for."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median of values with the lowest and highest of them."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return how many times as much theirs is as ours, round by round."""
    return spread([t / o for o, t in zip(ours, theirs, strict=True)])


def run(command: list[str]) -> Cost:
    """Run a program to its end, its output thrown away. Nothing that Python does for it is counted but starting it."""
    null = os.devnull
    opened = [(os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0)]
    opened += [(os.POSIX_SPAWN_OPEN, number, null, os.O_WRONLY, 0) for number in (1, 2)]
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=opened)
    _, _, used = os.wait4(process, 0)
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime)


def in_turns(
    competitors: Mapping[str, Callable[[], object]], rounds: int, between: Callable[[], object] = lambda: None
) -> dict[str, list[Cost]]:
    """Run every competitor once a round and return what each run cost; ``between`` runs after each, not counted."""
    costs: dict[str, list[Cost]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, work in competitors.items():
            before, start = _cpu(), time.perf_counter()
            work()
            costs[name].append(Cost(time.perf_counter() - start, _cpu() - before))
            between()
    return costs


def _cpu() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process and those it starts on one core, where the system can: a tool with threads gets no more."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def machine() -> dict[str, str | int | float]:
    """Describe the machine, and how busy it is."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
