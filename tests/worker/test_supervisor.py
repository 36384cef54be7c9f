"""Worker processes: what a job can do to them, and what can be done to them from outside."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deadreckon.config import Config, WorkerConfig
from deadreckon.errors import SpoolError
from deadreckon.model.event import encode_event
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from deadreckon.worker.supervisor import Summary, run
from synth import worker as worker_stubs
from synth.worker import KILL_POINTS, claim, event_of, held, names, reason

Supervise = Callable[..., subprocess.Popen[str]]

MiB = 1 << 20


def children(pid: int) -> list[int]:
    """Worker processes are children of the forkserver, which is the supervisor's."""
    return [worker for server in offspring(pid) for worker in offspring(server)]


def offspring(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


def finish(worker: subprocess.Popen[str]) -> Summary:
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    return Summary(**json.loads(out))


def results(jobdir: Path) -> dict[str, bytes]:
    assert names(jobdir / "new") == names(jobdir / "active") == []
    return {job: (jobdir / "done" / job / "event.jsonl").read_bytes() for job in names(jobdir / "done")}


def expected(jobs: dict[str, bytes]) -> dict[str, bytes]:
    return {job: encode_event(event_of(content)) + b"\n" for job, content in jobs.items()}


def submit_all(jobdir: Path, contents: list[bytes]) -> dict[str, bytes]:
    return {submit(jobdir, [("crash", content)]): content for content in contents}


@pytest.mark.parametrize("processes", [1, 2])
def test_once_processes_what_is_there(jobdir: Path, supervise: Supervise, processes: int) -> None:
    jobs = submit_all(jobdir, [f"fine {n}".encode() for n in range(50)])
    bad = submit(jobdir, [("crash", b"bug here")])
    if processes == 2:
        (jobdir / "new" / "just copied").write_bytes(b"fine")
        jobs["just copied"] = b"fine"
    assert finish(supervise(jobdir, once=True, processes=processes)) == Summary(done=len(jobs), failed=1)
    assert results(jobdir) == expected(jobs)
    assert names(jobdir / "failed") == [bad]


def test_run_works_in_this_process_and_in_a_thread(jobdir: Path) -> None:
    jobs = submit_all(jobdir, [b"fine 1", b"exit 3"])
    config = Config(worker=WorkerConfig(max_attempts=1))
    found: list[Summary] = []
    thread = threading.Thread(target=lambda: found.append(run(jobdir, config, once=True, processor=worker_stubs.stub)))
    thread.start()
    thread.join()
    assert found == [Summary(done=1, failed=1)]
    assert results(jobdir) == expected({job: content for job, content in jobs.items() if content == b"fine 1"})
    assert run(jobdir, config, once=True, processor=worker_stubs.stub) == Summary()


def test_poison_costs_its_own_attempts_only(jobdir: Path, supervise: Supervise) -> None:
    good = submit_all(jobdir, [f"fine {n}".encode() for n in range(20)])
    poison = {
        b"exit 3": "internal: the process ended with exit code 3",
        b"exit 0": "internal: the process ended with exit code 0",
        b"kill SIGSEGV": "internal: killed by SIGSEGV",
        b"kill SIGKILL": "internal: killed by SIGKILL",
        b"hang": "limit_exceeded: not finished in 0.5 s",
        b"allocate": f"limit_exceeded: out of memory, the limit is {512 * MiB} bytes",
    }
    bad = submit_all(jobdir, list(poison))
    worker = supervise(
        jobdir, once=True, processes=2, worker={"max_attempts": 2, "job_seconds": 0.5, "job_memory_bytes": 512 * MiB}
    )
    summary = finish(worker)
    assert (summary.done, summary.failed) == (20, 6)
    assert summary.retried >= 6  # Good jobs that were claimed along with a bad one go back uncharged.
    assert results(jobdir) == expected(good)
    assert {content: reason(jobdir, job) for job, content in bad.items()} == poison
    for job, content in bad.items():
        assert (jobdir / "failed" / job / "input" / "crash").read_bytes() == content
        assert json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())["attempt"] == 2


KINDS = [b"fine 1", b"bug 2", b"disk 3", b"fine 4"]


def check_kinds(jobdir: Path, jobs: dict[str, bytes]) -> None:
    assert (jobdir / "killed").exists()
    assert results(jobdir) == expected({j: c for j, c in jobs.items() if c.startswith(b"fine")})
    assert names(jobdir / "failed") == sorted(j for j, c in jobs.items() if not c.startswith(b"fine"))


@pytest.mark.parametrize("point", KILL_POINTS)
def test_what_a_killed_child_was_at_is_finished_by_the_next(jobdir: Path, point: str) -> None:
    jobs = submit_all(jobdir, KINDS)
    told = {"victim": "child", "point": point, "once": str(jobdir / "killed")}
    config = Config(store=json.dumps(told), worker=WorkerConfig(max_attempts=4))
    run(jobdir, config, once=True, processor=worker_stubs.dying)
    check_kinds(jobdir, jobs)


def test_what_a_killed_supervisor_left_is_finished_by_the_next(jobdir: Path, supervise: Supervise) -> None:
    runs = []
    for point in ("after the claim", "while processing", "after the event is whole"):
        here = jobdir / point
        jobs = submit_all(here, KINDS)
        kill = {"victim": "supervisor", "point": point, "once": str(here / "killed")}
        worker = supervise(here, once=True, processor="dying", kill=kill)
        runs.append((here, jobs, worker))
    for here, jobs, first in runs:
        assert first.wait(timeout=60) == -signal.SIGKILL
        finish(supervise(here, once=True))
        check_kinds(here, jobs)


def test_once_includes_what_other_workers_left_meanwhile(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [b"sleep 0.3"])
    worker = supervise(jobdir, once=True)
    until(lambda: list(jobdir.glob("active/*/*~1")))
    jobs |= submit_all(jobdir, [b"fine"])
    other = Spool(jobdir)
    claim(other)
    os.close(held(other).descriptor)
    assert finish(worker) == Summary(done=2, retried=1)
    assert results(jobdir) == expected(jobs)


def test_a_result_that_never_can_be_stored_fails_its_own_job_only(jobdir: Path, supervise: Supervise) -> None:
    [bad] = submit_all(jobdir, [b"full"])
    good = submit_all(jobdir, [b"fine"])
    assert finish(supervise(jobdir, once=True, processes=2)) == Summary(done=1, failed=1, retried=2)
    assert reason(jobdir, bad) == "unreadable: the result can't be stored"
    assert results(jobdir) == expected(good)


def test_without_room_nothing_is_claimed_until_there_is(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [b"fine"])
    health = jobdir / "health.json"
    worker = supervise(jobdir, worker={"min_free_bytes": 1 << 60})
    until(lambda: health.exists() and json.loads(health.read_bytes())["state"].startswith("paused: "))
    assert names(jobdir / "new") == list(jobs)
    worker.send_signal(signal.SIGTERM)
    assert finish(worker) == Summary()
    assert finish(supervise(jobdir, once=True)) == Summary(done=1)
    assert results(jobdir) == expected(jobs)


def test_killed_children_lose_and_double_nothing(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [f"sleep 0.02 {n}".encode() for n in range(60)])
    worker = supervise(jobdir, once=True, processes=2, worker={"max_attempts": 1000})
    rng = random.Random(1)
    killed = 0
    while worker.poll() is None:
        for child in children(worker.pid)[:1]:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
        time.sleep(rng.uniform(0.02, 0.08))
    summary = finish(worker)
    assert killed > 1
    assert summary.failed == 0
    assert results(jobdir) == expected(jobs)
    assert names(jobdir / "failed") == []


def test_killed_supervisors_lose_and_double_nothing(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [f"sleep 0.005 {n}".encode() for n in range(60)])
    rng = random.Random(2)
    rounds = 0
    while names(jobdir / "new") or names(jobdir / "active"):
        worker = supervise(jobdir, once=True, processes=2, worker={"max_attempts": 1000})
        enough = len(names(jobdir / "done")) + rng.randint(5, 25)
        until(lambda: worker.poll() is not None or len(names(jobdir / "done")) >= enough)  # noqa: B023
        time.sleep(rng.uniform(0, 0.01))
        worker.kill()
        worker.communicate()
        rounds += 1
    assert rounds > 1
    assert results(jobdir) == expected(jobs)
    assert names(jobdir / "failed") == []


def test_children_end_with_their_supervisor_and_the_next_one_finishes(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [b"sleep 1"])
    first = supervise(jobdir)
    until(lambda: list(jobdir.glob("active/*/*~1")))
    running = children(first.pid)
    assert running
    first.kill()
    first.communicate()
    until(lambda: not any(alive(pid) for pid in running), seconds=0.8)
    assert names(jobdir / "done") == []
    assert finish(supervise(jobdir, once=True)) == Summary(done=1, retried=1)
    assert results(jobdir) == expected(jobs)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("everyone", [False, True])
def test_a_signal_drains(jobdir: Path, supervise: Supervise, everyone: bool) -> None:
    submit_all(jobdir, [f"sleep 0.5 {n}".encode() for n in range(3)])
    worker = supervise(jobdir)
    until(lambda: list(jobdir.glob("active/*/*~1")))
    # A service manager signals all processes of a service, a terminal its foreground group.
    for pid in [worker.pid, *offspring(worker.pid), *children(worker.pid)] if everyone else [worker.pid]:
        os.kill(pid, signal.SIGTERM)
    assert finish(worker) == Summary(done=1)
    assert len(names(jobdir / "new")) == 2
    assert names(jobdir / "active") == names(jobdir / "failed") == []


def test_an_idle_worker_takes_what_comes_and_stops_when_told(jobdir: Path, supervise: Supervise) -> None:
    with Spool(jobdir):
        worker = supervise(jobdir, processes=2)
    until(lambda: len(children(worker.pid)) == 2)
    jobs = submit_all(jobdir, [b"fine"])
    until(lambda: names(jobdir / "done"))
    worker.send_signal(signal.SIGINT)
    assert finish(worker) == Summary(done=1)
    assert results(jobdir) == expected(jobs)


def test_a_second_signal_stops_at_once_and_charges_nothing(jobdir: Path, supervise: Supervise) -> None:
    submit_all(jobdir, [b"sleep 60"])
    worker = supervise(jobdir)
    until(lambda: list(jobdir.glob("active/*/*~1")))
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    worker.send_signal(signal.SIGTERM)
    assert finish(worker) == Summary(retried=1)
    assert names(jobdir / "active") == []
    with Spool(jobdir) as spool:
        lease = spool.claim()
        assert lease is not None
        assert lease.attempt == 1


def test_gives_up_when_children_can_not_start(jobdir: Path, supervise: Supervise) -> None:
    jobs = submit_all(jobdir, [b"fine"])
    worker = supervise(jobdir, once=True, processor="broken")
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert f"{SpoolError.__name__}: 5 worker processes ended without any result" in err
    assert "RuntimeError: no engine for" in err
    assert names(jobdir / "new") == list(jobs)
