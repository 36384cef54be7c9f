"""Processors and programs for the worker's tests; importable, so that worker processes find them by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deadreckon.config import Config, WorkerConfig
from deadreckon.model.event import Diagnostic, Event, Source
from deadreckon.worker import jobs
from deadreckon.worker.runner import Processor, work
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.worker.description import Job
    from deadreckon.worker.home import Home
    from deadreckon.worker.source import Lease


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def reason(jobdir: Path, job: str) -> str:
    told = json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())
    return f"{told['diagnostics'][0]['code']}: {told['diagnostics'][0]['message']}"


def settle(path: Path) -> Path:
    """Let it look as if written long ago."""
    os.utime(path, (1, 1), follow_symlinks=False)
    return path


def drop(jobdir: Path, name: str, content: bytes = b"fine") -> Path:
    """Put a bare file into ``new/``."""
    with Spool(jobdir):
        pass
    path = jobdir / "new" / name
    path.write_bytes(content)
    return settle(path)


def held(spool: Spool) -> Home:
    """Give a spool's hold on its home; to close it is to die."""
    assert spool._held is not None
    return spool._held


def claim(spool: Spool) -> Lease:
    lease = spool.claim()
    assert lease is not None
    return lease


def drain(jobdir: Path, config: WorkerConfig | None = None, processor: Processor | None = None) -> list[str]:
    """Conclude all there is in this process; return what became of each."""
    outcomes: list[str] = []
    with Spool(jobdir, config) as spool:
        work(spool, processor or obey, wait=_wait, end=outcomes.append, once=True)
    return outcomes


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def event_of(content: bytes) -> Event:
    return Event(
        schema="deadreckon.event/1",
        event_id=hashlib.md5(content).hexdigest(),
        status="ok",
        source=Source(format="stub", size=len(content)),
        message=content.decode(),
    )


def stub(config: Config) -> Processor:
    """Do what the crash file says."""
    del config
    return obey


def obey(job: Job) -> list[Event]:
    content = Path(job.paths("crash")[0]).read_bytes()
    order, _, argument = content.decode().partition(" ")
    if job.scratch:
        (Path(job.scratch) / "unpacked").write_bytes(content)
    sys.audit("deadreckon.tests.processing")
    match order:
        case "sleep":
            time.sleep(float(argument.split()[0]))
        case "exit":
            os._exit(int(argument))
        case "kill":
            os.kill(os.getpid(), signal.Signals[argument])
        case "hang":
            # As native code does: no Python handler runs.
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGALRM})
            while True:
                time.sleep(60)
        case "allocate":
            list(b"x" * (1 << 40))
        case "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
        case "bug":
            raise ValueError(argument)
        case "disk":
            raise OSError(28, argument)
        case "garbage":
            event = event_of(content)
            event.status = "unreadable"
            event.diagnostics = [Diagnostic(code="unknown_format", severity="error", message="what is this")]
            return [event]
    return [event_of(content)]


KILL_POINTS = {
    "before the claim": ("os.rename", "/input$", False),
    "after the claim": ("os.rename", "/input$", True),
    "while processing": ("deadreckon.tests.processing", "", False),
    "before the event is whole": ("os.rename", "/event.jsonl$", False),
    "after the event is whole": ("os.rename", "/event.jsonl$", True),
    "before it is moved to done": ("os.rename", "/done/", False),
    "after it was moved to done": ("os.rename", "/done/", True),
    "before the reason is whole": ("os.rename", "/diagnostics.json$", False),
    "after the reason is whole": ("os.rename", "/diagnostics.json$", True),
    "after it was moved to failed": ("os.rename", "/failed/", True),
    "before it is given back": ("os.rename", "/new/", False),
    "after it was given back": ("os.rename", "/new/", True),
}
"""Audit events of a worker process: what happens, the path that is renamed to, and whether to wait until it has."""


def dying(config: Config) -> Processor:
    """Kill this process or its supervisor at a point of KILL_POINTS, once."""
    told = json.loads(config.store)
    event, path, afterwards = KILL_POINTS[told["point"]]
    steps = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "open", "deadreckon.tests.processing"}
    armed = False
    busy = False

    def act(happened: str, arguments: tuple[Any, ...]) -> None:
        nonlocal armed, busy
        if busy or happened not in steps:
            return
        here = happened == event and re.search(path, str(arguments[1]) if arguments else "") is not None
        if armed or (here and not afterwards):
            busy = True
            try:
                os.close(os.open(told["once"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            if told["victim"] == "supervisor":
                os.kill(told["pid"], signal.SIGKILL)
                time.sleep(60)  # It takes its children with it.
            os.kill(os.getpid(), signal.SIGKILL)
        armed = here

    sys.addaudithook(act)
    return obey


def broken(config: Config) -> Processor:
    """Fail before any job is taken."""
    raise RuntimeError(f"no engine for {config.worker}")


def supervise() -> None:
    """Run a worker as the command line does; the arguments are JSON."""
    from deadreckon.worker.supervisor import run

    told: dict[str, Any] = json.loads(sys.argv[1])
    store = json.dumps({**told.pop("kill", {}), "pid": os.getpid()})
    config = Config(store=store, worker=WorkerConfig(**told.pop("worker", {})))
    summary = run(told.pop("jobdir"), config, processor=globals()[told.pop("processor", "stub")], **told)
    sys.stdout.write(json.dumps(asdict(summary)))


def race() -> None:
    """Claim and conclude all there is, starting with the others; tell what was claimed."""
    jobdir = Path(sys.argv[1])
    spool = Spool(jobdir)
    (jobdir / f"ready-{os.getpid()}").touch()
    while not (jobdir / "go").exists():
        time.sleep(0.001)
    mine = []
    while lease := spool.claim():
        mine.append(lease.job)
        spool.ack(lease, obey(spool.load(lease)))
    spool.close()
    sys.stdout.write(json.dumps(mine))


def drain_as_nobody() -> None:
    """Conclude all there is as a user to whom permissions matter; tell the outcomes."""
    jobdir = Path(sys.argv[1])
    if os.geteuid() == 0:
        for path in [jobdir, *jobdir.rglob("*")]:
            os.chown(path, 65534, 65534)
        jobdir.parent.chmod(0o755)
        os.setuid(65534)
    sys.stdout.write(json.dumps(drain(jobdir)))


ORDERS = ["fine 1", "fine 2", "bug 3", "disk 4", "garbage 5"]
DONE = {"fine 1", "fine 2", "fine 6", "fine 7"}
FAILED = {"bug 3", "disk 4", "garbage 5"}


def die_at_step(step: int) -> None:
    """Kill this process before its step-th change of the file system from now on."""
    remaining = step

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "fcntl.flock"}:
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

    sys.addaudithook(act)


def stop_everywhere() -> None:
    """Kill a worker before each of its steps in the file system in turn, and let another one recover.

    Steps are audit events, so none is forgotten. Prints the number of steps and what was wrong after any.
    """
    base = Path(sys.argv[1])
    keep_input = bool(int(sys.argv[2]))
    config = WorkerConfig(max_attempts=5, keep_input=keep_input)
    remaining = -1

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if remaining >= 0 and (writes or event in {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "fcntl.flock"}):
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

    sys.addaudithook(count)
    wrong: list[str] = []
    for step in range(10_000):
        jobdir = base / str(step)
        for order in ORDERS:
            submit(jobdir, [("crash", order.encode())])
        bare = jobdir / "new" / "bare"
        bare.write_bytes(b"fine 6")
        os.utime(bare, (1, 1))
        (jobdir / "new" / "shard").mkdir()
        submit(jobdir / "other", [("crash", b"fine 7")])
        next((jobdir / "other" / "new").iterdir()).rename(jobdir / "new" / "shard" / "seven")
        pid = os.fork()
        if pid == 0:
            remaining = step
            try:
                _live(jobdir, config)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        _recover(jobdir, config)
        wrong += (f"step {step}: {problem}" for problem in _problems(jobdir, keep_input))
        if status == 0:
            sys.stdout.write(json.dumps({"steps": step, "wrong": wrong}))
            return


def _live(jobdir: Path, config: WorkerConfig) -> None:
    """Go through all a worker can do: claim, give back, done, failed, retried by hand, reclaim what another left."""
    with Spool(jobdir, config) as spool:
        spool.claim()
        spool.close()
        _conclude_some(spool, 9)
        jobs.retry(jobdir)
        other = Spool(jobdir, config)
        other.claim()
        os.close(held(other).descriptor)  # As if killed.
        spool.reclaim()
        _conclude_some(spool, 3)


def _recover(jobdir: Path, config: WorkerConfig) -> None:
    with Spool(jobdir, config) as spool:
        spool.reclaim()
        _conclude_some(spool, 1000)


def _conclude_some(spool: Spool, number: int) -> None:
    outcomes: list[str] = []
    work(
        spool,
        obey,
        wait=lambda _: len(outcomes) >= number,
        end=outcomes.append,
        once=True,
    )


def _problems(jobdir: Path, keep_input: bool) -> Iterator[str]:
    done = list((jobdir / "done").iterdir())
    failed = list((jobdir / "failed").iterdir())
    if (left := sorted(p.name for p in (jobdir / "new").iterdir())) != ["shard"]:
        yield f"left in new: {left}"
    if left := [str(p) for p in (jobdir / "active").rglob("*")]:
        yield f"left in active: {left}"
    messages = []
    for case in done:
        lines = (case / "event.jsonl").read_bytes().splitlines()
        messages += [json.loads(line)["message"] for line in lines]
        if (case / "input").exists() != keep_input:
            yield f"input of {case.name}: kept is {not keep_input}"
    if sorted(messages) != sorted(DONE):
        yield f"done: {messages}"
    inputs = []
    for case in failed:
        json.loads((case / "diagnostics.json").read_bytes())
        inputs.append((case / "input" / "crash").read_text())
    if sorted(inputs) != sorted(FAILED):
        yield f"failed: {inputs}"
