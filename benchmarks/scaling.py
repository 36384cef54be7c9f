"""What work costs as it grows: addresses, frames, threads, modules, the bytes of a map, jobs, processes.

    python -m benchmarks.scaling [--full] [--only NAME ...] [--json FILE]

Each size is processed several times and the fastest run counts: what is slower had a neighbour. ``--full`` goes to the
sizes where a machine's memory is felt, which takes half an hour. Exit 1: an answer is wrong, or a cost grows faster
than n log n.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from benchmarks import _result, _synthetic
from benchmarks._result import Answer, Line, Plot, Result

from deadreckon import Config, Engine
from deadreckon.objects import sourcemap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIXTURE = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/static-O2/crashy.debug"
WORST = 2.0
"""How much dearer an item may get beside n log n, from the cheapest size on: caches end somewhere."""


def fastest(work: Callable[[], object], seconds: float = 0.4) -> float:
    """Return the seconds of the fastest of several runs."""
    best, spent = float("inf"), 0.0
    while spent < seconds:
        start = time.perf_counter()
        work()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def addresses(full: bool) -> Plot:  # noqa: FBT001
    """Look up random addresses of one debug file in one call."""
    from deadreckon.kernels.ranges import look_up
    from deadreckon.symbols.store import SymbolStore

    points = []
    with tempfile.TemporaryDirectory() as scratch:
        store = SymbolStore(Config(store=scratch))
        try:
            opened = store.open(store.tables_of(str(FIXTURE))[0]["table"])
            assert opened is not None
            table = opened.sym
            end = int(table.range_start[-1])
            for count in (10**n for n in range(3, 9 if full else 8)):
                wanted = np.random.default_rng(count).integers(0, end, count).astype(np.uint64)
                first, _ = look_up(table, wanted[:1000])
                again, _ = look_up(table, wanted)
                assert (np.diff(again[:1001]) == np.diff(first)).all(), "a batch answers otherwise than its beginning"
                points.append((float(count), fastest(partial(look_up, table, wanted))))
        finally:
            store.close()
    bends = (
        "Falls until a batch outweighs the call, then rises a little where the batch no longer fits in the cache: "
        "from there on it is a matter of reading and writing memory."
    )
    return Plot(
        "addresses", "Addresses looked up in one call", "addresses", "seconds", [Line("look-up", points)], bends
    )


def _dumps(engine: Engine, sizes: Iterable[int], make: Callable[[int], bytes], frames: Callable[[int], int]) -> Line:
    points = []
    for size in sizes:
        data = make(size)
        event = engine.process(data)
        found = sum(len(thread.frames or ()) for thread in event.threads or ())
        assert found == frames(size), f"{found} frames of {frames(size)}"
        points.append((float(size), fastest(partial(engine.process, data))))
    return Line("process", points)


def _engine(scratch: str) -> Engine:
    config = Config(store=scratch)
    return Engine(replace(config, unwind=replace(config.unwind, max_frames=20_000, max_total_frames=2_000_000)))


def frames(_full: bool) -> Plot:  # noqa: FBT001
    """Process a dump of one thread with ever more frames."""
    sizes = (1, 10, 100, 1_000, 10_000)
    with tempfile.TemporaryDirectory() as scratch, _engine(scratch) as engine:
        line = _dumps(engine, sizes, lambda n: _synthetic.minidump(frames=n), lambda n: n)
    bends = "A dump costs a fixed sum; from some hundred frames on, making the frames of the event is what costs."
    return Plot("frames", "A dump of one thread", "frames", "seconds", [line], bends)


def threads(_full: bool) -> Plot:  # noqa: FBT001
    """Process a dump with ever more threads of eight frames."""
    sizes = (1, 10, 100, 1_000, 5_000)
    with tempfile.TemporaryDirectory() as scratch, _engine(scratch) as engine:
        line = _dumps(engine, sizes, lambda n: _synthetic.minidump(threads=n), lambda n: 8 * n)
    return Plot("threads", "A dump of threads with 8 frames each", "threads", "seconds", [line])


def modules(_full: bool) -> Plot:  # noqa: FBT001
    """Process a dump with ever more modules, eight of them on the stack."""
    sizes = (1, 10, 100, 1_000, 2_000)
    with tempfile.TemporaryDirectory() as scratch, _engine(scratch) as engine:
        line = _dumps(engine, sizes, lambda n: _synthetic.minidump(modules=n, frames=9), lambda _: 9)
    return Plot("modules", "A dump with modules", "modules", "seconds", [line])


def maps(full: bool) -> Plot:  # noqa: FBT001
    """Parse ever larger source maps."""
    points = []
    for size in (10**n for n in range(4, 9 if full else 8)):
        data = _synthetic.large_map(size)
        assert len(sourcemap.read(data)) > size // 12, "segments were lost"
        points.append((float(len(data)), fastest(partial(sourcemap.read, data))))
    return Plot("maps", "Source maps parsed", "bytes", "seconds", [Line("parse", points)])


def jobs(full: bool) -> Plot:  # noqa: FBT001
    """Let one worker process take ever more small jobs out of a directory."""
    from deadreckon.worker.submit import submit

    sizes = (10, 100, 1_000, 10_000, 100_000) if full else (10, 100, 1_000)
    event = {"platform": "python", "exception": {"values": [{"type": "ValueError", "value": "no"}]}}
    points = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            jobdir = Path(scratch) / "jobs"
            for number in range(size):
                text = json.dumps({**event, "event_id": f"{number:032x}"}).encode()
                submit(jobdir, [("crash.json", text)], durability="none")
            start = time.perf_counter()
            _deadreckon("worker", str(jobdir), "--once", "--processes", "1", "--store", f"{scratch}/store")
            points.append((float(size), time.perf_counter() - start))
            done = json.loads(_deadreckon("jobs", "status", str(jobdir)))
            assert done["done"] == size, done
    bends = "A worker's start is a fixed sum, which the first hundred jobs share."
    return Plot("jobs", "Small jobs taken by one worker process", "jobs", "seconds", [Line("worker", points)], bends)


def processes(full: bool) -> Plot:  # noqa: FBT001
    """Process a directory of dumps with one to four processes."""
    count = 4_000 if full else 1_000
    points = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "dumps"
        folder.mkdir()
        for number in range(count):
            data = _synthetic.minidump(threads=4, modules=20, seed=number)
            (folder / f"{number:06}.dmp").write_bytes(data)
        for size in (1, 2, 3, 4):
            took = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                out = _deadreckon("process", str(folder), "--processes", str(size), "--store", f"{scratch}/store")
                took = min(took, time.perf_counter() - start)
            assert out.count(b"\n") == count, "not an event for each dump"
            points.append((float(size), took))
    bends = f"This machine has {os.cpu_count()} cores; with more processes than that nothing is gained."
    line = Line(f"{count:,} dumps", points)
    return Plot("processes", "A directory of dumps on several cores", "processes", "seconds", [line], bends)


def _deadreckon(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "deadreckon", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


PLOTS: dict[str, Callable[[bool], Plot]] = {
    "addresses": addresses,
    "frames": frames,
    "threads": threads,
    "modules": modules,
    "maps": maps,
    "jobs": jobs,
    "processes": processes,
}


def main() -> int:
    """Measure and write the plots. Exit 1 if something grows faster than n log n."""
    parser = argparse.ArgumentParser(description="What work costs as it grows.")
    parser.add_argument("--full", action="store_true", help="up to the largest sizes")
    parser.add_argument("--only", nargs="*", choices=list(PLOTS), default=list(PLOTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    plots, answers = [], []
    for name in options.only:
        plot = PLOTS[name](options.full)
        plots.append(plot)
        for line in plot.lines if name != "processes" else ():
            worst = float(f"{_result.growth(line.points):.3g}")
            what = f"{plot.title}, {line.name}: the dearest item beside the cheapest size before it, over n log n"
            answers.append(Answer(what, worst, worst, worst, "times", WORST, at_most=True))
    checked = "sizes of answers, and that a batch answers as its beginning does"
    result = Result("scaling", "What does work cost as it grows?", checked, answers, plots)
    _result.write(options.json, result)
    return 1 if any(a.met is False for a in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
