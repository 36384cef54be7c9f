"""The worker under load and under attack: what it must survive, and what it costs.

    python -m benchmarks.worker [chaos] [throughput] [memory] [affinity] [disk] [many] [--jobs N] [--json FILE]

chaos: 4 processes, one killed every second, the supervisor ten times, poison among the jobs; every job must end in one
place, with the bytes of a run without kills. throughput: jobs a second beside ``Engine.process_many`` on one core.
memory: of each process over many jobs. affinity: tables loaded with shards by debug id and without. disk: a full file
system, and done/ that can't be written to (root only). many: ``process`` over a directory on all cores. Exit status 1
where something is lost, doubled or different.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _result, _timing, _worker_load
from benchmarks._result import Answer, Result

from deadreckon import Engine
from deadreckon.config import Config, WorkerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parent.parent
MiB = 1 << 20


FOUND: list[Answer] = []
"""Ratios for the page."""


def start(
    jobdir: Path, store: Path, *, processes: int = 1, once: bool = True, **settings: Any
) -> subprocess.Popen[bytes]:
    """Start a worker as a program of its own."""
    told = json.dumps([str(jobdir), str(store), processes, once, settings])
    command = [sys.executable, "-m", "benchmarks.worker", "serve", "--told", told]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)


def serve(told: str) -> None:
    """Be the worker that ``start`` starts."""
    from deadreckon.worker.supervisor import run

    jobdir, store, processes, once, settings = json.loads(told)
    config = Config(store=store, worker=WorkerConfig(**settings))
    run(jobdir, config, processes=processes, once=once, processor=_worker_load.poisonable)


def offspring(pid: int) -> list[int]:
    """Return the worker processes below a supervisor: its forkserver's children."""
    found: list[int] = []
    for child in _children(pid):
        found += _children(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def names(directory: Path) -> list[str]:
    """Return the names in a directory that are jobs."""
    with contextlib.suppress(FileNotFoundError):
        return [name for name in os.listdir(directory) if name[0] != "."]
    return []


# -- what it must survive ----------------------------------------------------------------------------------------------


def chaos(corpus: Path, scratch: Path, jobs: int) -> list[str]:
    """Kill processes and supervisors; compare with a run in which nobody was killed."""
    dumps = _worker_load.dumps(corpus)
    store = scratch / "store"
    good = {f"job-{n:05d}": dumps[n % len(dumps)] if n % 4 == 0 else _worker_load.payload(n) for n in range(jobs - 200)}
    poison = [*_worker_load.POISONS, _worker_load.zip_bomb()]
    bad = {f"poison-{n:03d}": poison[n % 4] for n in range(200)}
    calm, wild = scratch / "calm", scratch / "wild"
    for name, content in good.items():
        _worker_load.put(calm, name, content)
    start(calm, store, processes=4, durability="none").wait()
    order = [*good.items(), *bad.items()]
    random.Random(1).shuffle(order)  # noqa: S311
    for name, content in order:
        _worker_load.put(wild, name, content)
    print(f"chaos: {len(good)} good jobs, {len(bad)} poisonous ones; without kills {len(names(calm / 'done'))} done")
    limits = {"durability": "none", "job_seconds": 3.0, "job_memory_bytes": 2048 * MiB, "sink": f"jsonl:{scratch}/sink"}
    begun = time.monotonic()
    killed = supervisors = 0
    rng = random.Random(2)  # noqa: S311
    worker = start(wild, store, processes=4, once=False, **limits)
    due = begun + 6
    while time.monotonic() - begun < 1500:
        time.sleep(1)
        if found := offspring(worker.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                killed += 1
        if supervisors < 10 and time.monotonic() > due:
            worker.kill()
            worker.wait()
            supervisors += 1
            due = time.monotonic() + 6
            worker = start(wild, store, processes=4, once=False, **limits)
        elif supervisors == 10 and len(names(wild / "done")) + len(names(wild / "failed")) == jobs:
            break
    worker.terminate()
    worker.wait()
    print(f"  {killed} processes and {supervisors} supervisors killed in {time.monotonic() - begun:.0f} s")
    return _judge(calm, wild, good, bad, scratch / "sink")


def _judge(calm: Path, wild: Path, good: dict[str, bytes], bad: dict[str, bytes], sink: Path) -> list[str]:
    done, failed = names(wild / "done"), names(wild / "failed")
    wrong = [f"{state} holds {len(names(wild / state))}" for state in ("active",) if names(wild / state)]
    if left := [*(wild / "new").rglob("job.json")]:
        wrong.append(f"new/ holds {len(left)}")
    expected = set(names(calm / "done"))
    if sorted(done + failed) != sorted([*good, *bad]):
        wrong.append(f"{len(done)} done and {len(failed)} failed are not the {len(good) + len(bad)} jobs")
    if set(done) != expected:
        wrong.append(f"done differs: {sorted(set(done) ^ expected)[:5]} of {len(set(done) ^ expected)}")
    results = {name: [(run / "done" / name / "event.jsonl").read_bytes() for run in (calm, wild)]
               for name in expected & set(done)}  # fmt: skip
    wrong += [f"{name}: other bytes" for name, (one, other) in results.items() if one != other]
    lines = Counter(line for file in sink.glob("*.jsonl") for line in file.read_bytes().splitlines())
    once = Counter(
        line for name in expected for line in (calm / "done" / name / "event.jsonl").read_bytes().splitlines()
    )
    if lines != once:
        wrong.append(f"the sink has {lines.total()} events, not {once.total()}, or others")
    reasons: Counter[str] = Counter()
    for name in failed:
        told = json.loads((wild / "failed" / name / "diagnostics.json").read_bytes())["diagnostics"][0]
        reasons[f"{told['code']}: {re.sub('[0-9]+', 'N', told['message'])[:60]}"] += 1
        if name in bad and (wild / "failed" / name / "input" / "crash").read_bytes() != bad[name]:
            wrong.append(f"{name}: its input was touched")
    print(f"  {len(done)} done, {len(failed)} failed, {lines.total()} events in the sink")
    for why, number in reasons.most_common():
        print(f"  {number:5} {why}")
    return [f"chaos: {w}" for w in wrong]


def disk(_corpus: Path, scratch: Path, _jobs: int) -> list[str]:
    """Fill the disk, and take the right to write from a worker, and mend it."""
    if os.geteuid() != 0:
        print("disk: skipped, only root can mount")
        return []
    wrong: list[str] = []
    for how, free in (("full, told by its room", 8 * MiB), ("full, told by its errors", 0), ("read-only", 8 * MiB)):
        mount = scratch / "mount"
        mount.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount], check=True)
        try:
            wrong += [f"disk {how}: {w}" for w in _hinder(mount / "jobs", scratch, how, free)]
        finally:
            subprocess.run(["umount", "-l", mount], check=True)
    return wrong


def _hinder(jobdir: Path, scratch: Path, how: str, free: int) -> Iterator[str]:
    ballast = jobdir.parent / "ballast"
    for number in range(3000):
        _worker_load.put(jobdir, f"job-{number}", _worker_load.payload(number))
    store = scratch / "store"
    health = str(scratch / "health")
    worker = start(jobdir, store, processes=2, once=False, min_free_bytes=free, health_file=health, durability="none")
    try:
        _until(lambda: len(names(jobdir / "done")) > 200)
        if how == "read-only":
            subprocess.run(["chattr", "+i", jobdir / "done"], check=True)
        else:
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        _until(lambda: b"paused" in (scratch / "health").read_bytes())
        state = json.loads((scratch / "health").read_bytes())["state"]
        ended = len(names(jobdir / "done"))
        time.sleep(2)
        if len(names(jobdir / "done")) != ended:
            yield "jobs went on"
        print(f"disk {how}: {ended} of 3000 done when it said {state!r}")
        if how == "read-only":
            subprocess.run(["chattr", "-i", jobdir / "done"], check=True)
        else:
            ballast.unlink()
        _until(lambda: len(names(jobdir / "done")) == 3000)
        if names(jobdir / "failed"):
            yield f"{len(names(jobdir / 'failed'))} failed"
        print(f"  mended: {len(names(jobdir / 'done'))} done, {len(names(jobdir / 'failed'))} failed")
    except TimeoutError as e:
        yield f"{e}: {len(names(jobdir / 'done'))} done, {len(names(jobdir / 'failed'))} failed"
    finally:
        worker.terminate()
        worker.wait()


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > limit:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)


# -- what it costs -----------------------------------------------------------------------------------------------------


def throughput(corpus: Path, scratch: Path, jobs: int) -> list[str]:
    """Compare jobs a second with in-process crashes a second, both from files, on one core, in turns."""
    dumps = _worker_load.dumps(corpus)
    store = scratch / "store"
    count = min(jobs, 3000)
    sets = {
        "payloads": ([_worker_load.payload(n) for n in range(count)], 0.4),
        "minidumps": ([dumps[n % len(dumps)] for n in range(count)], 0.8),
    }
    wrong: list[str] = []
    with _timing.on_one_core(), Engine(Config(store=str(store))) as engine:
        for title, (contents, wanted) in sets.items():
            folder = scratch / title
            folder.mkdir()
            files = [str(folder / f"{number:06d}") for number in range(count)]
            for file, content in zip(files, contents, strict=True):
                Path(file).write_bytes(content)
            list(engine.process_many(files[:200]))
            ratios = []
            for turn in range(3):
                begun = time.perf_counter()
                for _ in engine.process_many(files):
                    pass
                inside = count / (time.perf_counter() - begun)
                jobdir = scratch / f"{title}-{turn}"
                for number, content in enumerate(contents):
                    _worker_load.put(jobdir, f"{number:06d}", content)
                start(jobdir, store, durability="none").wait()
                ends = sorted((jobdir / state / n).stat().st_ctime for state in ("done", "failed")
                              for n in names(jobdir / state))  # fmt: skip
                # The first jobs pay for what is loaded once.
                rate = (len(ends) - 200) / (ends[-1] - ends[200])
                ratios.append(rate / inside)
                print(f"{title}: {inside:.0f} a second in-process, {rate:.0f} jobs a second, {rate / inside:.0%}")
                shutil.rmtree(jobdir)
            low, middle, high = (float(f"{r:.3g}") for r in (min(ratios), statistics.median(ratios), max(ratios)))
            what = f"{title} as jobs, beside `Engine.process_many` in one process"
            FOUND.append(Answer(what, middle, low, high, "of its rate", wanted))
            if max(ratios) < wanted:
                wrong.append(f"throughput: {title} at {max(ratios):.0%} at best, wanted {wanted:.0%}")
    return wrong


def memory(_corpus: Path, scratch: Path, jobs: int) -> list[str]:
    """Watch the memory of each process over many jobs; what it has after a tenth is what it starts from."""
    jobdir = scratch / "memory"
    for number in range(jobs):
        _worker_load.put(jobdir, f"{number:06d}", _worker_load.payload(number), f"{number % 64:02x}")
    worker = start(jobdir, scratch / "store", processes=2, durability="none", keep_input=False)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    while worker.poll() is None:
        time.sleep(0.2)
        done = len(names(jobdir / "done"))
        seen = {pid: _resident(pid) for pid in [worker.pid, *offspring(worker.pid)]}
        seen = {pid: size for pid, size in seen.items() if size}
        if done > jobs // 10:
            first |= {pid: size for pid, size in seen.items() if pid not in first}
        last |= seen
    growth = {pid: last[pid] / size - 1 for pid, size in first.items()}
    for pid, size in first.items():
        which = "supervisor" if pid == worker.pid else "process"
        print(f"memory of a {which}: {size >> 10} KiB after {jobs // 10} jobs, {last[pid] >> 10} KiB after {jobs}")
    done = len(names(jobdir / "done"))
    wrong = [f"memory: {done} of {jobs} done"] if done != jobs else []
    return wrong + [f"memory: grew by {g:.1%}" for g in growth.values() if g > 0.05]


def _resident(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^Rss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def affinity(corpus: Path, scratch: Path, _jobs: int) -> list[str]:
    """Count the tables that two processes load, with jobs of one build in one shard and with all jobs mixed."""
    from deadreckon.worker.affinity import affinity as build_of
    from deadreckon.worker.affinity import shard_of

    store = scratch / "store"
    with Engine(Config(store=str(store))) as engine:
        engine.add_symbols(corpus / "native/breakpad-symstore")
    dumps = _worker_load.dumps(corpus)
    loads = {}
    for title in ("mixed", "by debug id"):
        jobdir = scratch / title
        for number in range(2000):
            content = dumps[number % len(dumps)]
            key = build_of(content)
            shard = shard_of(key) if key and title != "mixed" else None
            _worker_load.put(jobdir, f"{number:06d}", content, shard)
        start(jobdir, store, processes=2, durability="none").wait()
        text = (jobdir / "metrics.prom").read_text(encoding="utf-8")
        found = re.search(r'^deadreckon_tables_total\{source="disk"\} (\d+)', text, re.MULTILINE)
        loads[title] = int(found[1]) if found else 0
    print(f"affinity: tables loaded by 2 processes, {loads}")
    return []


def many(corpus: Path, scratch: Path, jobs: int) -> list[str]:
    """Time ``process`` over a directory of dumps, on one core's worth of processes and on all."""
    pile = scratch / "pile"
    pile.mkdir()
    dumps = _worker_load.dumps(corpus)
    for number in range(jobs):
        (pile / f"{number:06d}.dmp").write_bytes(dumps[number % len(dumps)])
    outputs = {}
    for processes in (1, os.cpu_count() or 1):
        output = scratch / f"events-{processes}.jsonl"
        command = [sys.executable, "-m", "deadreckon.cli", "process", str(pile), "--store", str(scratch / "store")]
        begun = time.perf_counter()
        subprocess.run(
            [*command, "-o", str(output), "--processes", str(processes)], check=False, stderr=subprocess.DEVNULL
        )
        spent = time.perf_counter() - begun
        outputs[processes] = output.read_bytes()
        print(f"many: {jobs} dumps with {processes} processes in {spent:.1f} s, {jobs / spent:.0f} a second")
    return ["many: other bytes"] if len(set(outputs.values())) > 1 else []


PARTS = {f.__name__: f for f in (chaos, throughput, memory, affinity, disk, many)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, all by default."""
    parser = argparse.ArgumentParser(description="The worker under load and under attack.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "serve"])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.told:
        serve(options.told)
        return 0
    corpus = Path(os.environ.get("DEADRECKON_CORPUS") or ROOT / "../shared/corpora").resolve()
    if not (corpus / "native").is_dir():
        print("skipped: no corpus (set DEADRECKON_CORPUS)")
        return 0
    print("machine: " + ", ".join(f"{name} {value}" for name, value in _timing.machine().items()))
    wrong = []
    for part in options.parts or PARTS:
        memory_disk = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        with tempfile.TemporaryDirectory(dir=memory_disk, prefix="deadreckon-worker-") as scratch:
            wrong += PARTS[part](corpus, Path(scratch), options.jobs)
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    if options.json is not None and FOUND:
        checked = "that every job ends once, in one place"
        question = "What does a job cost beside the crash in it?"
        _result.write(options.json, Result("worker", question, checked, FOUND))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
