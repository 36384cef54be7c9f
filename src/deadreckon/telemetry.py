"""Metrics: every name in one table, counted in each process, added up by whoever shows them.

Counting costs a fraction of a microsecond and goes nowhere by itself: ``drain`` hands over what was counted since the
last call, ``Totals`` adds that up and writes it in Prometheus' text exposition format
(https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4). docs/worker.md explains the metrics.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["METRICS", "Metric", "Totals", "count", "drain", "observe", "staged"]

P = ParamSpec("P")
R = TypeVar("R")


class Metric(NamedTuple):
    """A metric: its kind, the one label it may have, and what it says."""

    kind: Literal["counter", "gauge", "histogram", "summary"]
    label: str
    text: str


METRICS: dict[str, Metric] = {
    "deadreckon_jobs_total": Metric("counter", "outcome", "Jobs that ended, and attempts that were retried."),
    "deadreckon_job_seconds": Metric("histogram", "", "Time from the claim of a job to its end."),
    "deadreckon_events_total": Metric("counter", "status", "Events, by their status."),
    "deadreckon_diagnostics_total": Metric("counter", "code", "Diagnostics of events and failed jobs, by their code."),
    "deadreckon_stage_seconds": Metric("summary", "stage", "Time in read, resolve, unwind, symbolicate and group."),
    "deadreckon_modules_total": Metric("counter", "symbols", "Modules looked up anew, by what was found of them."),
    "deadreckon_tables_total": Metric("counter", "source", "Symbol tables asked for: had in memory, read from disk."),
    "deadreckon_table_builds_total": Metric("counter", "result", "Debug files turned into tables, or failed to."),
    "deadreckon_worker_ends_total": Metric("counter", "reason", "Worker processes that ended in the middle of things."),
    "deadreckon_worker_processes": Metric("gauge", "", "Worker processes that run."),
    "deadreckon_worker_resident_bytes": Metric("gauge", "", "Memory of all worker processes (resident sets, summed)."),
    "deadreckon_worker_paused": Metric("gauge", "", "1 while no job is claimed because results could not be stored."),
    "deadreckon_queue_jobs": Metric("gauge", "state", "Jobs in new/ and in active/."),
    "deadreckon_queue_oldest_seconds": Metric("gauge", "", "Time since the oldest job in new/ arrived."),
    "deadreckon_disk_free_bytes": Metric("gauge", "", "Room on the job directory's file system."),
    "deadreckon_sink_events_total": Metric("counter", "", "Events that are in the sink."),
    "deadreckon_start_time_seconds": Metric("gauge", "", "When the worker started, in seconds since 1970."),
}
"""Every metric there is. A new one is added here first; names and labels are stable."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0)
"""Upper bounds of deadreckon_job_seconds, in seconds."""

_counted: dict[tuple[str, str, str], float] = {}
_stages: dict[str, list[float]] = {}
"""Seconds and calls of each stage, apart from the rest: a crash passes five, and each costs a microsecond less."""
_lock = threading.Lock()


def count(name: str, label: str = "", amount: float = 1) -> None:
    """Add to a counter of METRICS; ``label`` is the value of its label."""
    key = (name, label, "")
    with _lock:
        _counted[key] = _counted.get(key, 0) + amount


def observe(name: str, seconds: float, label: str = "") -> None:
    """Add an observation to a summary or a histogram of METRICS."""
    with _lock:
        for key, amount in (((name, label, "sum"), seconds), ((name, label, "count"), 1)):
            _counted[key] = _counted.get(key, 0) + amount
        if METRICS[name].kind == "histogram":
            bound = next((str(b) for b in BUCKETS if seconds <= b), "+Inf")
            key = (name, label, bound)
            _counted[key] = _counted.get(key, 0) + 1


def staged(stage: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Time the calls of a function as a stage of processing."""
    spent = _stages.setdefault(stage, [0.0, 0])
    clock = time.perf_counter

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                with _lock:
                    spent[0] += clock() - start
                    spent[1] += 1

        return timed

    return decorate


def drain() -> list[tuple[str, str, str, float]]:
    """Return what was counted since the last call, and begin again at nothing. For ``Totals.add``."""
    with _lock:
        found = [(*key, amount) for key, amount in _counted.items()]
        _counted.clear()
        for stage, spent in _stages.items():
            if spent[1]:
                found.append(("deadreckon_stage_seconds", stage, "sum", spent[0]))
                found.append(("deadreckon_stage_seconds", stage, "count", spent[1]))
                spent[:] = 0.0, 0
    return found


class Totals:
    """What several processes counted, added up."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], float] = {}

    def add(self, counted: list[tuple[str, str, str, float]]) -> None:
        """Add what ``drain`` gave, here or in another process."""
        for name, label, part, amount in counted:
            key = (name, label, part)
            self._sums[key] = self._sums.get(key, 0) + amount

    def get(self, name: str, label: str = "") -> float:
        """Return a counter's sum."""
        return self._sums.get((name, label, ""), 0)

    def render(self, gauges: Mapping[tuple[str, str], float]) -> str:
        """Return all metrics as text; ``gauges`` has the gauges' values by name and label."""
        lines = []
        values: dict[str, list[tuple[str, str, float]]] = {}
        for (name, label, part), amount in sorted(self._sums.items()):
            values.setdefault(name, []).append((label, part, amount))
        for (name, label), amount in gauges.items():
            values.setdefault(name, []).append((label, "", amount))
        for name, metric in METRICS.items():
            if name not in values:
                continue
            lines.append(f"# HELP {name} {metric.text}")
            lines.append(f"# TYPE {name} {metric.kind}")
            if metric.kind == "histogram":
                lines += _histogram(name, {part: amount for _, part, amount in values[name]})
                continue
            for label, part, amount in values[name]:
                labels = f'{{{metric.label}="{_escaped(label)}"}}' if metric.label else ""
                lines.append(f"{name}{'_' + part if part else ''}{labels} {amount:.9g}")
        return "\n".join(lines) + "\n"


def _histogram(name: str, parts: dict[str, float]) -> list[str]:
    lines = []
    below = 0.0
    for bound in (*map(str, BUCKETS), "+Inf"):
        below += parts.get(bound, 0)
        lines.append(f'{name}_bucket{{le="{bound}"}} {below:.9g}')
    return [*lines, f"{name}_sum {parts.get('sum', 0):.9g}", f"{name}_count {parts.get('count', 0):.9g}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
