"""Scripts with their maps: until locations and functions are at hand, and frames with context, against symbolic.

Five questions, of each map and its script, answers compared first:

    build    bytes to where every location and function is, against SourceMapCache
    cold     files on disk to a stack of 50 frames with names and five lines of context around each, nothing stored yet
    stored   the same, and the map is in the store (symbolic keeps nothing)
    again    the same in the next process, which finds it there
    warm     20,000 further frames of the script, in one call

All count processor time, but ``cold`` what a user waits for the answer: the map is stored by a thread meanwhile.

    python -m benchmarks.scriptframes [MAP ...] [--cache DIR] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import symbolic
from benchmarks import _result
from benchmarks._maps import CACHE, PACKAGES, bundles
from benchmarks._result import Answer, Result
from benchmarks._timing import in_turns, machine, ratios, spread

from deadreckon.config import Config
from deadreckon.kernels.positions import look_up
from deadreckon.objects import sourcemap
from deadreckon.objects.jsscopes import read_scopes
from deadreckon.objects.jstext import ScriptText
from deadreckon.reports.javascript import frame_of
from deadreckon.symbolicate.javascript import JavaScript
from deadreckon.symbols.maps import MapStore
from deadreckon.symbols.scriptplaces import open_place
from deadreckon.symbols.scripts import Scripts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.event import Frame
    from deadreckon.model.tables import SourceMapTable
    from deadreckon.objects.jsscopes import FunctionScopes

FEW, MANY = 1_000, 20_000
AROUND = 5
STACK = 50
"""Frames of one stack."""
QUESTIONS = ("build", "cold", "stored", "again", "warm")
TOLD = {
    "build": "locations and function scopes of a script, beside SourceMapCache",
    "cold": "files to a stack with names and context, never seen before, beside SourceMapCache",
    "stored": "the same in processor time, with what it takes to store the map",
    "again": "the same in the next process",
    "warm": "further frames with context of a script at hand",
}
WANTED = {"build": 8.0, "cold": 5.0, "again": 5.0}
CUT = "{snip}"


class Run:
    """One map, its script, and positions of it; 0-based."""

    def __init__(self, path: Path, script: Path, scratch: Path) -> None:
        self.data, self.script = path.read_bytes(), script.read_bytes()
        self.scratch = scratch
        self.folder = scratch / "served"
        self.folder.mkdir()
        # No map is found by its name where the script names another.
        self.url = f"https://example.com/{script.name}"
        shutil.copy(script, self.folder / script.name)
        shutil.copy(path, self.folder / f"{script.name}.map")
        table = sourcemap.read(self.data)
        rng = np.random.default_rng(42)
        lines = np.repeat(table.lines, np.diff(table.first)).astype(np.int64)
        # Some packages' maps are of another build of their script: no engine reports columns that are not there.
        text = ScriptText(np.frombuffer(self.script, np.uint8))
        there = table.column <= text.widths(np.minimum(lines, len(text) - 1))
        rows = rng.choice(np.flatnonzero((table.place[:, 0] >= 0) & there), MANY)
        self.lines: NDArray[np.int64] = lines[rows]
        self.columns: NDArray[np.int64] = table.column[rows].astype(np.int64)
        self.kept: JavaScript | None = None
        self.cache: Any = None
        self.number = 0
        self.maps: MapStore | None = None
        self.waiting: list[list[list[Frame]]] = []

    def build(self) -> tuple[SourceMapTable, FunctionScopes]:
        """Find locations and functions."""
        return sourcemap.read(self.data), read_scopes(self.script)

    def build_symbolic(self) -> Any:
        """Do the same with symbolic."""
        return symbolic.SourceMapCache.from_bytes(self.script, self.data)

    def names(self) -> list[str]:
        """Return the functions' names at a few positions."""
        table, functions = self.build()
        scopes = functions.around(self.lines[:FEW], self.columns[:FEW]).tolist()
        names = functions.names(scopes, table)
        return [name.text if (name := names.get(scope)) is not None else "<anonymous>" for scope in scopes]

    def frames(self, count: int) -> list[list[Frame]]:
        """Return so many frames, as a reader of stacks gives them."""
        places = zip(self.lines[:count].tolist(), self.columns[:count].tolist(), strict=True)
        frames = [frame_of("f", self.url, line + 1, column + 1) for line, column in places]
        return [frames[at : at + STACK] for at in range(0, count, STACK)]

    def engine(self, *, stored: bool = False) -> JavaScript:
        """Return what maps frames, with a store that has nothing yet, or what was put there before."""
        self.number += not stored
        config = replace(Config(), store=str(self.scratch / f"store{self.number}"))
        self.maps = MapStore(config)
        return JavaScript(Scripts([open_place(str(self.folder), config)], self.maps, None, config), AROUND)

    def settle(self) -> None:
        """Wait until all is stored, and throw away all but the last store."""
        if self.maps is not None:
            self.maps.flush()
        shutil.rmtree(self.scratch / f"store{self.number - 1}", ignore_errors=True)

    def cold(self) -> None:
        """Map a stack by what is on disk."""
        self.engine().apply(self.frames(STACK))

    def stored(self) -> None:
        """Do the same and wait until the map is stored."""
        self.cold()
        self.settle()

    def again(self) -> None:
        """Map a stack by what was stored."""
        self.engine(stored=True).apply(self.frames(STACK))

    def cold_symbolic(self) -> None:
        """Do the same with symbolic."""
        name = self.url.rpartition("/")[2]
        script, data = (self.folder / name).read_bytes(), (self.folder / f"{name}.map").read_bytes()
        self._tokens(symbolic.SourceMapCache.from_bytes(script, data), STACK)

    again_symbolic = stored_symbolic = cold_symbolic

    def warm(self) -> None:
        """Map many frames of a known script."""
        assert self.kept is not None
        self.kept.apply(self.waiting.pop())

    def warm_symbolic(self) -> None:
        """Do the same with symbolic."""
        self._tokens(self.cache, MANY)

    def _tokens(self, cache: Any, count: int) -> list[Any]:
        places = zip(self.lines[:count].tolist(), self.columns[:count].tolist(), strict=True)
        return [cache.lookup(line + 1, column + 1, AROUND) for line, column in places]

    def differences(self) -> tuple[int, int]:
        """Return at how many positions places or lines of context differ, and at how many names do.

        Where symbolic knows nothing, or where segments share a position, nothing is compared.
        """
        table = sourcemap.read(self.data)
        rows = look_up(table, self.lines[:FEW], self.columns[:FEW]).segment
        alone = [not bool(np.any(table.column[max(0, r - 1) : r] == table.column[r])) for r in rows.tolist()]
        places = names = 0
        stacks = self.frames(FEW)
        self.engine().apply(stacks)
        self.settle()
        frames = [frame for stack in stacks for frame in stack]
        tokens = self._tokens(self.build_symbolic(), FEW)
        for frame, token, name, single in zip(frames, tokens, self.names(), alone, strict=True):
            if not single or token is None:
                continue
            names += token.function_name not in {name, "<unknown>"}
            places += (frame.lineno, frame.colno) != (token.line, token.col)
            ours = [*(frame.pre_context or []), frame.context_line or "", *(frame.post_context or [])]
            theirs = [*token.pre_context, token.context_line or "", *token.post_context]
            shown = frame.context_line is not None and not any(CUT in line for line in ours)
            places += shown and ours != [line.rstrip("\r\n") for line in theirs]
        return places, names

    def time(self, rounds: int) -> dict[str, Any]:
        """Return milliseconds of processor time and ratios, round by round."""
        self.kept = self.engine()
        self.kept.apply(self.frames(STACK))
        self.settle()
        self.cache = symbolic.SourceMapCache.from_bytes(self.script, self.data)
        found = {}
        for what in QUESTIONS:
            self.waiting = [self.frames(MANY) for _ in range(rounds if what == "warm" else 0)]
            pair = {"deadreckon": getattr(self, what), "symbolic": getattr(self, f"{what}_symbolic")}
            # As timeit does: Python's collector would go through all that waits here again and again, for both.
            gc.collect()
            gc.disable()
            costs = in_turns(pair, rounds, self.settle)
            gc.enable()
            times = {name: [cost.wall if what == "cold" else cost.cpu for cost in of] for name, of in costs.items()}
            times_ms = {name: round(min(of) * 1e3, 2) for name, of in times.items()}
            ratio = ratios(times["deadreckon"], times["symbolic"])
            found[what] = {"ms": times_ms, "ratio": [round(r, 2) for r in (ratio.low, ratio.median, ratio.high)]}
        return found


def main() -> int:
    """Compare, then time all; print one JSON object. Exit 1 where a place or a line differs."""
    parser = argparse.ArgumentParser(description="Scripts with maps against symbolic.")
    parser.add_argument("maps", nargs="*", default=PACKAGES, help="files, or name@version:path of npm packages")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    wrong = 0
    for _, path, script in bundles(options.maps, options.cache):
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(path, script, Path(scratch))
            places, names = run.differences()
            wrong += places
            results[path.name] = {"differ": {"places": places, "names": names}, **run.time(options.rounds)}
            print(path.name, json.dumps(results[path.name]), file=sys.stderr)
    together = {}
    for what in QUESTIONS:
        sums = [sum(r[what]["ms"][name] for r in results.values()) for name in ("deadreckon", "symbolic")]
        middle = spread([r[what]["ratio"][1] for r in results.values()])
        of_maps = [round(ratio, 2) for ratio in (middle.low, middle.median, middle.high)]
        together[what] = {"ms": [round(s, 1) for s in sums], "ratio": round(sums[1] / sums[0], 2), "of_maps": of_maps}
    print(json.dumps({"maps": results, "together": together, "machine": machine()}, indent=2))
    if options.json is not None and results:
        answers = [Answer(TOLD[what], t["ratio"], t["of_maps"][0], t["of_maps"][2], wanted=WANTED.get(what))
                   for what, t in together.items()]  # fmt: skip
        checked = "places and lines of context against symbolic's"
        question = "How long do frames of scripts take?"
        note = f"Sums over {len(results)} maps; the spread is that of the maps."
        _result.write(options.json, Result("scriptframes", question, checked, answers, notes=[note]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
