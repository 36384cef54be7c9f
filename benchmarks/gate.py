"""What a crash costs in things that noise can't move: calls, allocations, files opened, tables loaded, kernel entries.

    python -m benchmarks.gate            # compare with gate.json; exit 1 where something got dearer
    python -m benchmarks.gate --update   # write gate.json, after a change that is worth its cost

The counts are of one warm process. Limits allow a tenth more than was measured, as Python's versions differ among
themselves; what got cheaper by a fifth is told as well, for the limit should follow. tests/test_gate.py runs it.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._ours import FIXTURE, smallest_dump

from deadreckon import Config, Engine
from deadreckon.model.event import encode_event

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = Path(__file__).with_name("gate.json")
RUNS = 20
DEARER, CHEAPER = 1.1, 0.8


def measure() -> dict[str, float]:
    """Return the counts, each for one crash of the fixture, warm."""
    dump = smallest_dump().read_bytes()
    with tempfile.TemporaryDirectory() as scratch, Engine(Config(store=scratch)) as engine:
        engine.add_symbols(str(FIXTURE / "crashy.debug"))

        def work() -> None:
            for _ in range(RUNS):
                encode_event(engine.process(dump))

        event = engine.process(dump)
        crashed = next(thread for thread in event.threads or () if thread.crashed)
        if not crashed.frames or crashed.frames[0].lineno is None:
            raise AssertionError("the fixture's crash is not symbolicated")
        work()
        counts = {
            "python calls": _calls(work) / RUNS,
            "files opened": _opened(work) / RUNS,
            "bytes allocated at the peak": _peak(work),
            "objects left behind": _left(work) / RUNS,
        }
        loads = _counting(engine.store, "open", work)
        counts["tables opened"] = loads / RUNS
    counts["modules imported by --help"] = _modules("--help")
    counts["modules of numba imported by --help"] = _modules("--help", "numba")
    return counts


def _calls(work: Callable[[], None]) -> int:
    """Count the calls of Python functions."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


_audited: list[str] = []
_auditing = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _auditing and event == "open":
        _audited.append(str(arguments[0]))


def _opened(work: Callable[[], None]) -> int:
    """Count the files that are opened."""
    global _auditing  # noqa: PLW0603  (an audit hook can't be taken away)
    if not _audited:
        sys.addaudithook(_hook)
    _audited[:] = [""]
    _auditing = True
    try:
        work()
    finally:
        _auditing = False
    return len(_audited) - 1


def _peak(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _left(work: Callable[[], None]) -> int:
    """Count the objects that are there after the work and were not before."""
    gc.collect()
    before = len(gc.get_objects())
    work()
    gc.collect()
    return max(0, len(gc.get_objects()) - before)


def _counting(owner: Any, name: str, work: Callable[[], None]) -> int:
    """Count the calls of one method."""
    count = 0
    original = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments, **named)

    setattr(owner, name, counted)
    try:
        work()
    finally:
        delattr(owner, name)
    return count


def _modules(argument: str, prefix: str = "") -> int:
    program = (
        "import sys; sys.argv = ['deadreckon', sys.argv[1]]\n"
        "import deadreckon.cli\n"
        "try: deadreckon.cli.main()\n"
        "except SystemExit: pass\n"
        f"print(sum(name.startswith({prefix!r}) for name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, argument], check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1])


def judge(counts: dict[str, float], limits: dict[str, float]) -> tuple[list[str], list[str]]:
    """Return what got dearer than the limits allow, and what got so much cheaper that they should follow."""
    dearer, cheaper = [], []
    for name, count in counts.items():
        limit = limits.get(name)
        if limit is None or count > limit * DEARER + 1:
            dearer.append(f"{name}: {count:g}, was {limit}")
        elif count < limit * CHEAPER - 1:
            cheaper.append(f"{name}: {count:g}, was {limit:g}")
    return dearer, cheaper


def instructions() -> int | None:
    """Return the instructions of one crash in a process of its own, None where perf can't count them."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    dump = smallest_dump()
    program = f"from deadreckon import process; process({str(dump)!r})"
    command = [perf, "stat", "-x,", "-e", "instructions:u", sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    counted = done.stderr.split(",", 1)[0].strip()
    return int(counted) if counted.isdigit() else None


def main() -> int:
    """Compare with the limits, or write them. Exit 1 where something got dearer."""
    parser = argparse.ArgumentParser(description="Counts that noise can't move, against their limits.")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    counts = measure()
    if (counted := instructions()) is not None:
        print(f"instructions of a process and one crash: {counted:,}")
    for name, count in counts.items():
        print(f"{name}: {count:g}")
    if options.update:
        LIMITS.write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    dearer, cheaper = judge(counts, json.loads(LIMITS.read_text()))
    for line in dearer:
        print(f"dearer: {line}", file=sys.stderr)
    for line in cheaper:
        print(f"cheaper, so lower the limit: {line}", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
