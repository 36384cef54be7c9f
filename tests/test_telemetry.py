"""Metrics: counted, added up, and written as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deadreckon import telemetry
from deadreckon.telemetry import METRICS, Totals, count, drain, observe, staged

SRC = Path(__file__).parent.parent / "src" / "deadreckon"


def test_every_metric_is_counted_somewhere_and_none_is_not_in_the_table() -> None:
    used = {name for p in SRC.rglob("*.py") if p.name != "telemetry.py"
            for name in re.findall(r'"(deadreckon_\w+)"', p.read_text())}  # fmt: skip
    assert used | {"deadreckon_stage_seconds"} == set(METRICS)


def test_sums_of_processes() -> None:
    drain()
    totals = Totals()
    for _ in range(2):
        count("deadreckon_jobs_total", "done", 3)
        observe("deadreckon_job_seconds", 0.003)
        observe("deadreckon_job_seconds", 1e6)
        totals.add(drain())
    assert drain() == []
    assert totals.get("deadreckon_jobs_total", "done") == 6
    text = totals.render({("deadreckon_queue_jobs", "new"): 7, ("deadreckon_worker_paused", ""): True})
    lines = text.splitlines()
    for line in (
        "# TYPE deadreckon_jobs_total counter",
        'deadreckon_jobs_total{outcome="done"} 6',
        'deadreckon_job_seconds_bucket{le="0.0025"} 0',
        'deadreckon_job_seconds_bucket{le="0.005"} 2',
        'deadreckon_job_seconds_bucket{le="300.0"} 2',
        'deadreckon_job_seconds_bucket{le="+Inf"} 4',
        "deadreckon_job_seconds_count 4",
        'deadreckon_queue_jobs{state="new"} 7',
        "deadreckon_worker_paused 1",
    ):
        assert line in lines
    assert all(re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]*\"\})? [-+.e0-9]+", line) for line in lines)


def test_labels_can_not_break_a_line() -> None:
    totals = Totals()
    totals.add([("deadreckon_jobs_total", 'a"} 1\nb\\', "", 1)])
    assert r'{outcome="a\"} 1\nb\\"} 1' in totals.render({})


def test_a_stage_that_raises_is_timed() -> None:
    drain()

    @staged("read")
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert {(label, part) for _, label, part, _ in telemetry.drain()} == {("read", "sum"), ("read", "count")}
