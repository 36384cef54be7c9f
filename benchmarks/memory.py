"""How much memory: of one process over many crashes, and of a large dump beside its size.

    python -m benchmarks.memory [--crashes N] [--json FILE]

Each measurement is a process of its own, which reports its resident memory itself. Exit 1: memory grows with the number
of crashes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _result
from benchmarks._ours import smallest_dump
from benchmarks._result import Answer, Line, Plot, Result

ROOT = Path(__file__).parent.parent

_MANY = """
import json, sys
from benchmarks import _synthetic
from deadreckon import Config, Engine
most, store = int(sys.argv[1]), sys.argv[2]
at = [n for n in (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000) if n <= most]
points, done = [], 0
with Engine(Config(store=store)) as engine:
    for upto in at:
        while done < upto:
            event = engine.process(_synthetic.minidump(threads=4, modules=20, seed=done))
            assert len(event.threads) == 4 and len(event.threads[0].frames) == 8
            done += 1
        points.append((upto, resident()))
print(json.dumps(points))
"""
_CORE = """
import json, sys
from deadreckon import Config, Engine
path, store = sys.argv[1:3]
with Engine(Config(store=store)) as engine:
    engine.process(sys.argv[3])
    before = peak()
    event = engine.process(path)
    assert event.status in ("ok", "degraded"), event.diagnostics
print(json.dumps([before, peak()]))
"""
_PRELUDE = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
def resident(): return status("VmRSS")
def peak(): return status("VmHWM")
"""


def child(program: str, *arguments: str) -> Any:
    """Run a program in a process of its own and return what it prints."""
    command = [sys.executable, "-c", _PRELUDE + program, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Measure and write the result. Exit 1 if memory grows with the number of crashes."""
    parser = argparse.ArgumentParser(description="How much memory deadreckon needs.")
    parser.add_argument("--crashes", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    small = smallest_dump()
    with tempfile.TemporaryDirectory() as scratch:
        points = child(_MANY, str(options.crashes), scratch)
        large = Path(scratch) / "large.dmp"
        size = 512 << 20
        with large.open("wb") as file:  # A dump with half a gigabyte of memory behind it, as a full dump has.
            file.write(small.read_bytes())
            file.truncate(size)
        before, after = child(_CORE, str(large), scratch, str(small))
    settled = points[len(points) // 2][1]
    growth = round(points[-1][1] / settled, 3)
    added = round((after - before) * 1024 * 1024 / size, 3)
    grown = f"Resident memory after {points[-1][0]:,} crashes beside {points[len(points) // 2][0]:,}"
    answers = [
        Answer(grown, growth, growth, growth, "times", 1.05, at_most=True),
        Answer("What a dump of 512 MB adds to the peak, of its size", added, added, added, "times", 0.5, at_most=True),
    ]
    line = Line("resident", [(float(n), m) for n, m in points])
    plot = Plot("memory", "One process over many crashes", "crashes", "MB", [line])
    checked = "threads and frames of every crash"
    _result.write(options.json, Result("memory", "How much memory does it need?", checked, answers, [plot]))
    return 1 if any(a.met is False for a in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
