"""Looking after a job directory."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.errors import SpoolError
from deadreckon.worker import jobs
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import claim, drain, drop, names, settle

if TYPE_CHECKING:
    from pathlib import Path


def test_status(jobdir: Path) -> None:
    with Spool(jobdir):
        pass
    nothing = {"new": 0, "active": 0, "done": 0, "failed": 0, "workers": 0, "oldest_seconds": None}
    assert jobs.status(jobdir) == nothing
    for content in (b"fine", b"bug"):
        submit(jobdir, [("crash", content)])
    drain(jobdir)
    for _ in range(2):
        submit(jobdir, [("crash", b"fine")])
    with Spool(jobdir) as spool:
        claim(spool)
        told = jobs.status(jobdir)
    age = told.pop("oldest_seconds")
    assert age is not None
    assert 0 <= age < 60
    assert told == {"new": 1, "active": 1, "done": 1, "failed": 1, "workers": 1}


def test_a_mistyped_directory_is_not_made(tmp_path: Path) -> None:
    for act in (jobs.status, jobs.retry, jobs.purge):
        with pytest.raises(SpoolError, match="not a job directory"):
            act(tmp_path / "jbos")
    assert names(tmp_path) == []


def test_retry_starts_over(jobdir: Path) -> None:
    one = submit(jobdir, [("crash", b"disk one")])
    drop(jobdir, "two", b"garbage two")
    drain(jobdir)
    assert jobs.retry(jobdir, one) == 1
    assert names(jobdir / "failed") == ["two"]
    assert drain(jobdir) == ["retried", "retried", "failed"]
    assert jobs.retry(jobdir) == 2
    assert names(jobdir / "failed") == names(jobdir / "active") == []
    drain(jobdir)
    assert names(jobdir / "failed") == sorted([one, "two"])
    for unknown in ("three", "../new", "."):
        with pytest.raises(SpoolError):
            jobs.retry(jobdir, unknown)


def test_purge_takes_what_ended_long_ago(jobdir: Path) -> None:
    old, young = (submit(jobdir, [("crash", b"fine")]) for _ in range(2))
    failed = submit(jobdir, [("crash", b"bug")])
    drain(jobdir)
    waiting = submit(jobdir, [("crash", b"fine")])
    (jobdir / "tmp" / "left").mkdir()
    for ended in (f"done/{old}", f"failed/{failed}", "tmp/left", f"new/{waiting}"):
        settle(jobdir / ended)
    assert jobs.purge(jobdir, 3600, states=["done"]) == 1
    assert names(jobdir / "done") == [young]
    assert jobs.purge(jobdir) == 2
    assert names(jobdir / "failed") == names(jobdir / "tmp") == []
    assert names(jobdir / "new") == [waiting]
    with pytest.raises(SpoolError):
        jobs.purge(jobdir, 0, states=["new"])


def test_purge_spares_what_a_producer_may_be_writing(jobdir: Path) -> None:
    submit(jobdir, [("crash", b"fine")])
    drain(jobdir)
    for name, hours in (("young", 23), ("left", 25)):
        (jobdir / "tmp" / name).write_bytes(b"half")
        os.utime(jobdir / "tmp" / name, (time.time() - hours * 3600,) * 2)
    assert jobs.purge(jobdir, -1) == 2
    assert names(jobdir / "done") == []
    assert names(jobdir / "tmp") == ["young"]


def test_purge_finishes_one_that_was_stopped(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", b"fine")])
    drain(jobdir)
    (jobdir / "done" / ".purged-0" / "input").mkdir(parents=True)
    assert jobs.status(jobdir)["done"] == 1
    assert jobs.purge(jobdir) == 0
    assert names(jobdir / "done") == [job]
