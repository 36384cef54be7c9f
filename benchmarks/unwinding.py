"""Frames a second on one core: the kernel over stacks of all four architectures, beside the same rules in Python.

    python -m benchmarks.unwinding [--worlds N] [--json FILE]

Frames are counted by the crash, as most have a dozen, and by the thousand, as a dump of many threads has them.

The worlds are random: modules with unwind rules of every kind, stacks that follow them, damage. The plain-Python
walker (tests/oracle/walk.py), written apart from the kernel, gives every answer first. What unwinders of other projects
do with the same dumps is asked in minidumps.py and cores.py.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _result
from benchmarks._result import Result

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from deadreckon.kernels import unwind as kernel
from deadreckon.unwind.walk import ARCHITECTURES
from oracle import walk as oracle
from synth.samples import LIMITS, walk_arguments
from synth.stacks import World, random_world

ROUNDS = 5
MANY = 100
"""How often a crash's threads are there at once, for the thousands."""


def arguments(world: World, keep: list[Any]) -> tuple[Any, ...]:
    """Return what the kernel takes for a world; ``keep`` holds the tables that it points into."""
    tables = [image.tables() for image in world.images]
    keep.append(tables)
    return walk_arguments(world, tables)


def main() -> int:
    """Check every frame, time in turns, write the result. Exit 1 if a frame differs."""
    parser = argparse.ArgumentParser(description="Frames a second, beside the same rules in plain Python.")
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep: list[Any] = []
    answers, notes = [], []
    for arch in ARCHITECTURES:
        worlds = [random_world(random.Random(seed), arch) for seed in range(options.worlds)]  # noqa: S311
        prepared = [arguments(world, keep) for world in worlds]
        found = [kernel.walk_stacks(*given, **LIMITS)[0] for given in prepared]
        plain = [oracle.walk(w, **LIMITS)[0] for w in worlds]
        for seed, (ours, theirs) in enumerate(zip(found, plain, strict=True)):
            expected = [(n, f.pc) for n, thread in enumerate(theirs) for f in thread]
            if list(zip(ours.thread.tolist(), ours.instruction_addr.tolist(), strict=True)) != expected:
                print(f"{arch.value}, world {seed}: the stacks differ", file=sys.stderr)
                return 1
        total = sum(len(frames) for frames in found)
        many = [(*g[:2], np.tile(g[2], (MANY, 1)), np.tile(g[3], MANY), *g[4:]) for g in prepared]
        wide = {**LIMITS, "max_total": MANY * LIMITS["max_total"]}
        fast, slow, crowd = [], [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for given in prepared:
                kernel.walk_stacks(*given, **LIMITS)
            middle = time.perf_counter()
            for world in worlds:
                oracle.walk(world, **LIMITS)
            end = time.perf_counter()
            for given in many:
                kernel.walk_stacks(*given, **wide)
            crowd.append((time.perf_counter() - end) / MANY)
            fast.append(middle - start)
            slow.append(end - middle)
        name = f"{arch.value} stacks, beside the same rules in plain Python"
        answers.append(_result.answer(f"{name}, a crash a call", fast, slow))
        answers.append(_result.answer(f"{name}, {MANY} times the threads a call", crowd, slow))
        notes.append(
            f"{arch.value}: {total:,} frames of {len(worlds)} crashes, {total / min(fast):,.0f} frames a second, "
            f"{total / min(crowd):,.0f} with {MANY} times the threads."
        )
    checked = "every program counter against a walker in plain Python"
    result = Result("unwinding", "How fast are stacks walked?", checked, answers, notes=notes)
    _result.write(options.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
