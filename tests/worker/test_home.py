"""Leases: claims for workers of several machines, where a lock of one may not be seen on another."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import WorkerConfig
from deadreckon.errors import ConfigError
from deadreckon.worker.home import LOCK, lease_of, move_in, renew, take_over
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import claim, drain, event_of, held, names

if TYPE_CHECKING:
    from pathlib import Path

LEASE = WorkerConfig(claims="lease", lease_seconds=10)


def silence(jobdir: Path, spool: Spool, seconds: float) -> None:
    """Let it look as if a worker's last sign of life were so long ago."""
    os.utime(jobdir / "active" / spool.worker / LOCK, (time.time() - seconds,) * 2)


def test_settings() -> None:
    assert lease_of(WorkerConfig()) is None
    assert lease_of(LEASE) == 10
    for config in (WorkerConfig(claims="leese"), WorkerConfig(claims="lease", lease_seconds=0)):
        with pytest.raises(ConfigError):
            lease_of(config)


def test_a_worker_that_gives_signs_of_life_keeps_its_claims(jobdir: Path) -> None:
    submit(jobdir, [("crash", b"fine")])
    with Spool(jobdir, LEASE) as spool, Spool(jobdir, LEASE) as other:
        lease = claim(spool)
        silence(jobdir, spool, 5)
        assert not other.reclaim()
        spool.ack(lease, [event_of(b"fine")])
    assert names(jobdir / "active") == []


def test_after_the_lease_another_has_the_job_and_the_first_can_end_nothing(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", b"fine")])
    slow, other = Spool(jobdir, LEASE), Spool(jobdir, LEASE)
    lease = claim(slow)
    silence(jobdir, slow, 11)
    assert other.reclaim() == {"retried": 1}
    with pytest.raises(FileNotFoundError):
        slow.ack(lease, [event_of(b"late")])
    assert names(jobdir / "done") == []
    again = claim(other)
    assert (again.job, again.attempt) == (job, 2)
    other.ack(again, [event_of(b"fine")])
    assert names(jobdir / "done") == [job]
    other.close()
    assert names(jobdir / "active") == []


def test_a_worker_whose_lease_ran_out_starts_anew(jobdir: Path) -> None:
    slow, other = Spool(jobdir, LEASE), Spool(jobdir, LEASE)
    submit(jobdir, [("crash", b"fine one")])
    claim(slow)
    silence(jobdir, slow, 11)
    other.reclaim()
    with slow:
        again = claim(slow)
        slow.ack(again, [])
    assert names(jobdir / "active") == []


def test_two_that_find_it_silent_do_not_both_clear_it(jobdir: Path) -> None:
    with Spool(jobdir, LEASE):
        home = jobdir / "active" / "gone"
    move_in(home, 10)
    os.utime(home / LOCK, (1, 1))
    first = take_over(home, 10)
    assert first is not None
    assert take_over(home, 10) is None
    assert take_over(first.path, 10) is None
    assert not renew(home)


def test_a_dead_workers_lease_is_not_waited_for_by_its_supervisor(jobdir: Path) -> None:
    submit(jobdir, [("crash", b"fine")])
    dead = Spool(jobdir, LEASE)
    claim(dead)
    assert held(dead).descriptor == -1
    with Spool(jobdir, LEASE) as spool:
        assert spool.reclaim(dead.worker) == {"retried": 1}
    assert drain(jobdir, LEASE) == ["done"]
    assert names(jobdir / "active") == []
