"""How long until the first answer: starting the program, the help, one small dump, beside what others need for it.

    python -m benchmarks.coldstart [--peers DIR] [--rounds N] [--json FILE]

Kernels are compiled before (`deadreckon warm`), as on any machine but a new one; that is timed once and noted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _peers, _result, _timing
from benchmarks._ours import command, smallest_dump
from benchmarks._result import Result


def main() -> int:
    """Check the event, time in turns, write the result."""
    parser = argparse.ArgumentParser(description="Time until the first answer.")
    parser.add_argument("--peers", type=Path, help="directory that benchmarks._peers installed into")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dump, python, deadreckon = smallest_dump(), sys.executable, command()
    with tempfile.TemporaryDirectory() as scratch:
        process = [*deadreckon, "process", str(dump), "--store", scratch, "--format", "json"]
        start = time.perf_counter()
        subprocess.run([*deadreckon, "warm"], check=True, stdout=subprocess.DEVNULL)
        warmed = time.perf_counter() - start
        event = json.loads(subprocess.run(process, check=True, capture_output=True).stdout)
        if not any(thread.get("frames") for thread in event["threads"]):
            print("the event has no frames", file=sys.stderr)
            return 1
        competitors = {
            "python": [python, "-c", "pass"],
            "imports": [python, "-c", "import numba, symbolic"],
            "help": [*deadreckon, "--help"],
            "process": process,
        }
        for peer in _peers.find(options.peers):
            competitors[peer.name] = peer.command(dump, [])
        costs = _timing.in_turns({name: lambda c=c: _timing.run(c) for name, c in competitors.items()}, options.rounds)  # type: ignore[misc]
    wall = {name: [cost.wall for cost in found] for name, found in costs.items()}
    answers = [
        _result.answer(
            "`deadreckon --help` beside a bare Python", wall["help"], wall["python"],
            unit="times the time", wanted=3.0, at_most=True,
        ),
        _result.answer(
            "`deadreckon process` of a small dump beside `import numba, symbolic`", wall["process"], wall["imports"],
            unit="times the time", wanted=2.0, at_most=True,
        ),
    ]  # fmt: skip
    answers += [
        _result.answer(f"the same beside {name}", wall["process"], wall[name], unit="times the time", at_most=True)
        for name in wall
        if name not in {"python", "imports", "help", "process"}
    ]
    note = f"`deadreckon warm` took {warmed:.1f} s; on a new machine it compiles, which takes half a minute."
    checked = "that the event has frames"
    question = "How long until the first answer?"
    _result.write(options.json, Result("coldstart", question, checked, answers, notes=[note]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
