"""Looking after a job directory."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import WorkerConfig
from deadreckon.errors import SpoolError
from deadreckon.model.event import Event, ModuleInfo
from deadreckon.worker import jobs
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import claim, drain, drop, event_of, names, settle

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.worker.description import Job
    from deadreckon.worker.runner import Processor


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


DEBUG_ID = "c0bcc3f1-9827-fe65-3058-404b2831d9e6"


def lacking(state: str, debug_id: str = DEBUG_ID) -> Processor:
    def process(_: Job) -> list[Event]:
        event = event_of(b"fine")
        event.modules = [ModuleInfo(code_file="a", debug_id=debug_id, symbols=state)]
        return [event]

    return process


@pytest.mark.parametrize("spelling", [DEBUG_ID, "C0BCC3F19827FE653058404B2831D9E60"])
@pytest.mark.parametrize(("state", "again"), [("missing", 1), ("mismatch", 1), ("found", 0), ("unused", 0)])
def test_what_lacked_symbols_is_done_again(jobdir: Path, spelling: str, state: str, again: int) -> None:
    job = submit(jobdir, [("crash", b"fine")])
    drain(jobdir, processor=lacking(state))
    submit(jobdir, [("crash", b"fine")])
    drain(jobdir, processor=lacking("missing", "11111111-1111-1111-1111-111111111111"))
    assert jobs.retry(jobdir, missing=spelling) == again
    assert len(names(jobdir / "done")) == 2 - again
    drain(jobdir, processor=lacking("found"))
    assert job in names(jobdir / "done")
    assert names(jobdir / "done" / job) == ["event.jsonl", "input"]
    assert jobs.retry(jobdir, missing=spelling) == 0


def test_what_is_no_debug_id_is_refused(jobdir: Path) -> None:
    drain(jobdir)
    with pytest.raises(SpoolError, match="debug id"):
        jobs.retry(jobdir, missing="nonsense")


def test_a_job_without_its_input_can_not_be_done_again(jobdir: Path) -> None:
    submit(jobdir, [("crash", b"fine")])
    drain(jobdir, WorkerConfig(keep_input=False), lacking("missing"))
    assert jobs.retry(jobdir, missing=DEBUG_ID) == 0
    assert len(names(jobdir / "done")) == 1
