"""Claims: who gets a job, what is left by a worker that dies, and what hostile entries of new/ can do."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from deadreckon.errors import DeadreckonError
from deadreckon.model.event import Diagnostic
from deadreckon.worker import jobs
from deadreckon.worker.runner import work
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import claim, drain, drop, event_of, held, names, obey, reason, settle

if TYPE_CHECKING:
    from pathlib import Path

Start = Callable[..., subprocess.Popen[str]]

REASON = Diagnostic(code="internal", severity="error", message="because")


class TestClaims:
    def test_bare_files_and_shards(self, jobdir: Path) -> None:
        drop(jobdir, "bare crash.dmp")
        (jobdir / "new" / "07").mkdir()
        drop(jobdir, "07/in shard.dmp")
        job = submit(jobdir, [("crash", b"fine")])
        (jobdir / "new" / job).rename(jobdir / "new" / "07" / job)
        assert drain(jobdir) == ["done"] * 3
        assert names(jobdir / "done") == sorted(["bare crash.dmp", "in shard.dmp", job])
        assert names(jobdir / "new") == ["07"]
        assert (jobdir / "done" / "bare crash.dmp" / "input").read_bytes() == b"fine"

    def test_files_being_written_are_waited_for(self, jobdir: Path) -> None:
        path = drop(jobdir, "half", b"fi")
        with path.open("ab") as out, Spool(jobdir) as spool:
            out.write(b"ne")
            out.flush()
            assert spool.claim() is None
            assert spool.settling
            settle(path)
            lease = claim(spool)
            assert obey(spool.load(lease)) == [event_of(b"fine")]
            assert spool.claim() is None
            assert not spool.settling

    def test_a_stalled_copy_is_waited_for_while_it_is_open(self, jobdir: Path) -> None:
        path = drop(jobdir, "half", b"fi")
        with Spool(jobdir) as spool:
            with path.open("ab") as out:
                os.utime(path, (time.time() - 10,) * 2)
                assert spool.claim() is None
                assert spool.settling
                out.write(b"ne")
            os.utime(path, (time.time() - 10,) * 2)
            assert obey(spool.load(claim(spool))) == [event_of(b"fine")]

    def test_a_writer_that_never_closes_does_not_hold_up_for_ever(self, jobdir: Path) -> None:
        path = drop(jobdir, "whole")
        with path.open("ab"):
            os.utime(path, (time.time() - 100,) * 2)
            assert drain(jobdir) == ["done"]

    def test_files_from_the_future_are_not_waited_for(self, jobdir: Path) -> None:
        os.utime(drop(jobdir, "tomorrow"), (time.time() + 86400,) * 2)
        assert drain(jobdir) == ["done"]

    def test_hidden_names_are_somebodys_work_in_progress(self, jobdir: Path) -> None:
        drop(jobdir, ".crash.dmp.Xa3f")
        assert drain(jobdir) == []
        assert jobs.status(jobdir)["new"] == 0

    def test_results_of_one_name_stand_side_by_side(self, jobdir: Path) -> None:
        for content in (b"first", b"second", b"third"):
            drop(jobdir, "core", content)
            drain(jobdir)
        assert len(names(jobdir / "done")) == 3
        assert names(jobdir / "done")[0] == "core"
        assert {p.read_bytes() for p in (jobdir / "done").glob("core*/input")} == {b"first", b"second", b"third"}

    def test_files_given_back_do_not_land_on_their_namesake(self, jobdir: Path) -> None:
        spools = [Spool(jobdir) for _ in range(3)]
        for number, spool in enumerate(spools):
            drop(jobdir, "core", str(number).encode())
            claim(spool)
        for spool in spools:
            spool.close()
        assert drain(jobdir) == ["done"] * 3
        assert {p.read_bytes() for p in (jobdir / "done").glob("core*/input")} == {b"0", b"1", b"2"}

    def test_a_name_claimed_twice_by_one_worker_waits(self, jobdir: Path) -> None:
        drop(jobdir, "core")
        with Spool(jobdir) as spool:
            lease = claim(spool)
            drop(jobdir, "core")
            assert spool.claim() is None
            spool.ack(lease, [])
            spool.ack(claim(spool), [])

    def test_a_users_tilde_is_part_of_the_name(self, jobdir: Path) -> None:
        drop(jobdir, "core~2")
        drain(jobdir)
        assert names(jobdir / "done") == ["core~2"]

    def test_four_processes_never_claim_the_same(self, jobdir: Path, start: Start) -> None:
        jobs = {submit(jobdir, [("crash", f"fine {n}".encode())]) for n in range(450)}
        jobs |= {drop(jobdir, f"bare {n}").name for n in range(50)}
        racers = [start("race", str(jobdir)) for _ in range(4)]
        while len(list(jobdir.glob("ready-*"))) < 4:
            time.sleep(0.005)
        (jobdir / "go").touch()
        claimed = [json.loads(racer.communicate()[0]) for racer in racers]
        assert sorted(chain(*claimed)) == sorted(jobs)
        assert set(names(jobdir / "done")) == jobs
        assert names(jobdir / "active") == []


class TestReclaim:
    def test_a_living_workers_claims_are_its_own(self, jobdir: Path) -> None:
        submit(jobdir, [("crash", b"fine")])
        with Spool(jobdir) as spool, Spool(jobdir) as other:
            lease = claim(spool)
            assert not other.reclaim()
            assert other.claim() is None
            spool.ack(lease, [event_of(b"fine")])

    def test_attempts_count_up_to_the_last(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        for attempt in (1, 2, 3):
            dead = Spool(jobdir)
            lease = claim(dead)
            assert lease.attempt == attempt
            (lease.path / ".part").write_bytes(b"half a res")
            os.close(held(dead).descriptor)
            assert Spool(jobdir).reclaim(reason=REASON) == {"retried" if attempt < 3 else "failed": 1}
        assert reason(jobdir, job) == "internal: because"
        assert names(jobdir / "failed" / job) == ["diagnostics.json", "input"]
        assert (jobdir / "failed" / job / "input" / "crash").read_bytes() == b"fine"

    @pytest.mark.parametrize(("name", "state"), [("event.jsonl", "done"), ("diagnostics.json", "failed")])
    def test_what_was_decided_stays_decided(self, jobdir: Path, name: str, state: str) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        dead = Spool(jobdir)
        (claim(dead).path / name).write_bytes(b"decided")
        os.close(held(dead).descriptor)
        assert Spool(jobdir).reclaim() == {state: 1}
        assert (jobdir / state / job / name).read_bytes() == b"decided"

    def test_what_was_given_back_properly_does_not_count(self, jobdir: Path) -> None:
        submit(jobdir, [("crash", b"fine")])
        for _ in range(5):
            with Spool(jobdir) as spool:
                assert claim(spool).attempt == 1

    def test_a_home_cleared_away_while_it_is_made_is_made_again(
        self, jobdir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit(jobdir, [("crash", b"fine")])
        spool = Spool(jobdir)
        lock = fcntl.flock

        def clear_away_first(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", lock)
            Spool(jobdir).reclaim()
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", clear_away_first)
        lease = claim(spool)
        assert not Spool(jobdir).reclaim()
        spool.ack(lease, [])
        spool.close()
        assert names(jobdir / "active") == []

    def test_a_lock_opened_before_the_home_was_made_again_is_not_the_homes(
        self, jobdir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        spool = Spool(jobdir)
        lock = fcntl.flock
        home = jobdir / "active" / spool.worker
        home.mkdir()

        def come_alive_first(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", lock)
            Spool(jobdir).reclaim()
            assert not home.exists()
            assert claim(spool).job == job
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", come_alive_first)
        assert not Spool(jobdir).reclaim()
        assert names(home) == [".lock", ".scratch", f"{job}~1"]

    @pytest.mark.parametrize("keep_input", [True, False])
    def test_a_worker_killed_before_any_step_loses_and_doubles_nothing(
        self, jobdir: Path, start: Start, keep_input: bool
    ) -> None:
        out, _ = start("stop_everywhere", str(jobdir), str(int(keep_input))).communicate()
        told = json.loads(out)
        assert told["wrong"] == []
        assert told["steps"] > 80


class TestHostile:
    """Whatever is found in new/ goes to failed/ with a reason, or stays; nothing is followed and nothing blocks."""

    def test_links_and_pipes(self, jobdir: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        with Spool(jobdir):
            new = jobdir / "new"
        (new / "link").symlink_to(secret)
        (new / "directory link").symlink_to(tmp_path)
        (new / "dangling").symlink_to("nowhere")
        os.mkfifo(new / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(new / "socket"))
            assert drain(jobdir) == ["failed"] * 5
        assert reason(jobdir, "fifo").endswith("got a fifo")
        assert reason(jobdir, "socket").endswith("got a socket")
        for name in ("link", "directory link", "dangling"):
            assert reason(jobdir, name).endswith("got a symbolic link")
            assert (jobdir / "failed" / name / "input").is_symlink()
        assert secret.read_bytes() == b"secret"

    def test_a_shard_that_becomes_a_link_is_not_followed(self, jobdir: Path) -> None:
        others = jobdir.parent / "others"
        others.mkdir()
        with Spool(jobdir) as spool:
            shard = jobdir / "new" / "shard"
            shard.mkdir()
            for name in ("one", "two"):
                settle_in = shard / name
                settle_in.write_bytes(b"fine")
                settle(settle_in)
                (others / name).write_bytes(b"precious")
                settle(others / name)
            claim(spool)
            shard.rename(jobdir / "new" / ".shard")
            shard.symlink_to(others)
            lease = spool.claim()
            while lease is not None:
                assert (lease.path / "input").is_symlink()
                spool.dead(lease, [REASON])
                lease = spool.claim()
        assert [(others / name).read_bytes() for name in names(others)] == [b"precious"] * 2

    def test_names(self, jobdir: Path) -> None:
        with Spool(jobdir):
            new = jobdir / "new"
        hostile = [
            b"new\nline",
            b"\xff\xfe",
            b"x" * 255,
            b"\x1b[31mred",
            "\u202egnp.exe".encode(),
            b"-rf",
            b"~1",
            b"a~1",
        ]
        for name in hostile:
            path = new / os.fsdecode(name)
            path.write_bytes(b"fine")
            settle(path)
        assert drain(jobdir) == ["done"] * len(hostile)
        done = names(jobdir / "done")
        assert len(done) == len(hostile)
        assert all(name.isprintable() and name[0] != "-" and len(name.encode()) < 220 for name in done)

    def test_unreadable_files(self, jobdir: Path, start: Start) -> None:
        drop(jobdir, "bare").chmod(0)
        inside = submit(jobdir, [("crash", b"fine")])
        (jobdir / "new" / inside / "crash").chmod(0)
        out, _ = start("drain_as_nobody", str(jobdir)).communicate()
        assert json.loads(out) == ["failed", "failed"]
        assert reason(jobdir, "bare").startswith("unreadable: ")
        assert reason(jobdir, inside).startswith("unreadable: ")

    def test_a_directory_that_can_not_be_claimed_stays(self, jobdir: Path, start: Start) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        (jobdir / "new" / job).chmod(stat.S_IRUSR | stat.S_IXUSR)
        out, err = start("drain_as_nobody", str(jobdir)).communicate()
        assert json.loads(out) == []
        assert f"can't claim '{job}'" in err
        assert names(jobdir / "new") == [job]
        assert names(jobdir / "active") == []


def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeadreckonError):
        Spool(tmp_path / "file")


def test_importing_the_spool_is_cheap() -> None:
    code = "import sys, deadreckon.worker.jobs; assert not {'numpy', 'numba', 'symbolic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestSeveralAtATime:
    def test_only_the_job_under_way_is_charged(self, jobdir: Path) -> None:
        jobs = [submit(jobdir, [("crash", b"fine")]) for _ in range(4)]
        dead = Spool(jobdir)
        leases = [claim(dead) for _ in jobs]
        dead.mark(leases[0])
        dead.mark(leases[2])
        os.close(held(dead).descriptor)
        with Spool(jobdir) as spool:
            assert spool.reclaim() == {"retried": 4}
            attempts = {(lease := claim(spool)).job: lease.attempt for _ in jobs}
        assert attempts == {lease.job: 2 if lease is leases[2] else 1 for lease in leases}

    def test_told_to_stop_what_is_not_begun_goes_back(self, jobdir: Path) -> None:
        for _ in range(20):
            submit(jobdir, [("crash", b"fine")])
        outcomes: list[str] = []
        marked: list[int] = []
        with Spool(jobdir) as spool:
            work(spool, obey, wait=lambda _: len(marked) >= 9, begin=lambda: marked.append(1), end=outcomes.append)
        assert len(outcomes) == len(names(jobdir / "done")) < 20
        assert len(names(jobdir / "done")) + len(names(jobdir / "new")) == 20
        with Spool(jobdir) as spool:
            assert claim(spool).attempt == 1

    def test_a_process_that_dies_leaves_what_it_had_not_stored(self, jobdir: Path) -> None:
        jobs = {submit(jobdir, [("crash", f"fine {n}".encode())]) for n in range(30)}
        bad = submit(jobdir, [("crash", b"exit 3")])
        jobs |= {submit(jobdir, [("crash", f"fine {n}".encode())]) for n in range(30, 60)}
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                spool = Spool(jobdir)
                work(spool, obey, wait=lambda _: False, once=True)
                os._exit(9)
            os.waitpid(pid, 0)
            Spool(jobdir).reclaim(reason=REASON)
        drain(jobdir)
        assert set(names(jobdir / "done")) == jobs
        assert names(jobdir / "failed") == [bad]
