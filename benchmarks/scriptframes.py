"""Scripts with their maps: until locations and functions are at hand, and frames with context, against symbolic.

Three questions, of each map and its script, answers compared first:

    build    bytes to where every location and function is, and the answers to 1,000 positions with functions' names,
             against SourceMapCache, built and asked for the same
    cold     files on disk to 1,000 frames with names and five lines of context around each, nothing stored before
    warm     the same for 20,000 further frames

    python -m benchmarks.scriptframes [MAP ...] [--cache DIR] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import symbolic
from benchmarks._maps import CACHE, PACKAGES, map_file, script_of
from benchmarks._timing import in_turns, machine, ratios, spread

from deadreckon.config import Config
from deadreckon.kernels.positions import look_up
from deadreckon.objects import sourcemap
from deadreckon.objects.jsscopes import read_scopes
from deadreckon.reports.javascript import frame_of
from deadreckon.symbolicate.javascript import JavaScript
from deadreckon.symbols.maps import MapStore
from deadreckon.symbols.scriptplaces import open_place
from deadreckon.symbols.scripts import Scripts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.event import Frame

FEW, MANY = 1_000, 20_000
AROUND = 5
STACK = 50
"""Frames of one stack."""


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
        rows = rng.choice(np.flatnonzero(table.place[:, 0] >= 0), MANY)
        self.lines: NDArray[np.int64] = np.repeat(table.lines, np.diff(table.first))[rows].astype(np.int64)
        self.columns: NDArray[np.int64] = table.column[rows].astype(np.int64)
        self.kept: JavaScript | None = None
        self.cache: Any = None
        self.number = 0

    def build(self) -> list[tuple[Any, ...]]:
        """Return source, line and function of a few positions."""
        lines, columns = self.lines[:FEW], self.columns[:FEW]
        table, functions = sourcemap.read(self.data), read_scopes(self.script)
        scopes = functions.around(lines, columns).tolist()
        names = functions.names(scopes, table)
        found = []
        for scope, place in zip(scopes, look_up(table, lines, columns).place.tolist(), strict=True):
            name = names.get(scope)
            found.append((sourcemap.source_path(table, place[0]), place[1], name.text if name is not None else None))
        return found

    def build_symbolic(self) -> list[tuple[Any, ...]]:
        """Return the same of symbolic."""
        cache = symbolic.SourceMapCache.from_bytes(self.script, self.data)
        found: list[tuple[Any, ...]] = []
        for line, column in zip(self.lines[:FEW].tolist(), self.columns[:FEW].tolist(), strict=True):
            token = cache.lookup(line + 1, column + 1, 0)
            found.append((token.src, token.line - 1, token.function_name) if token is not None else (None, -1, None))
        return found

    def frames(self, count: int) -> list[list[Frame]]:
        """Return so many frames, as a reader of stacks gives them."""
        places = zip(self.lines[:count].tolist(), self.columns[:count].tolist(), strict=True)
        frames = [frame_of("f", self.url, line + 1, column + 1) for line, column in places]
        return [frames[at : at + STACK] for at in range(0, count, STACK)]

    def engine(self) -> JavaScript:
        """Return what maps frames, with a store that has nothing yet."""
        self.number += 1
        config = replace(Config(), store=str(self.scratch / f"store{self.number}"))
        return JavaScript(Scripts([open_place(str(self.folder), config)], MapStore(config), None, config), AROUND)

    def cold(self) -> list[list[Frame]]:
        """Map a few frames by what is on disk."""
        stacks = self.frames(FEW)
        self.engine().apply(stacks)
        return stacks

    def cold_symbolic(self) -> list[Any]:
        """Do the same with symbolic."""
        name = self.url.rpartition("/")[2]
        script, data = (self.folder / name).read_bytes(), (self.folder / f"{name}.map").read_bytes()
        return self._tokens(symbolic.SourceMapCache.from_bytes(script, data), FEW)

    def warm(self) -> None:
        """Map many frames of a known script."""
        assert self.kept is not None
        self.kept.apply(self.frames(MANY))

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
        for ours, theirs, single in zip(self.build(), self.build_symbolic(), alone, strict=True):
            if single and theirs[0] is not None:
                places += ours[:2] != theirs[:2]
                names += (ours[2] or "<anonymous>") != theirs[2] and theirs[2] != "<unknown>"
        mapped = [frame for stack in self.cold() for frame in stack]
        for frame, token, single in zip(mapped, self.cold_symbolic(), alone, strict=True):
            if not single or token is None:
                continue
            lines = ([], None, []) if frame.context_line is None else _context(frame)
            cut = "{snip}" in str(lines)
            said = (token.pre_context, token.context_line or None, token.post_context)
            places += (frame.lineno, frame.colno) != (token.line, token.col)
            places += frame.context_line is not None and not cut and lines != said
        return places, names

    def time(self, rounds: int) -> dict[str, Any]:
        """Return milliseconds of processor time and ratios, round by round."""
        self.kept = self.engine()
        self.kept.apply(self.frames(STACK))
        self.cache = symbolic.SourceMapCache.from_bytes(self.script, self.data)
        found = {}
        for what in ("build", "cold", "warm"):
            pair = {"deadreckon": getattr(self, what), "symbolic": getattr(self, f"{what}_symbolic")}
            costs = in_turns(pair, rounds)
            times = {name: [cost.cpu for cost in of] for name, of in costs.items()}
            times_ms = {name: round(min(of) * 1e3, 2) for name, of in times.items()}
            ratio = ratios(times["deadreckon"], times["symbolic"])
            found[what] = {"ms": times_ms, "ratio": [round(r, 2) for r in (ratio.low, ratio.median, ratio.high)]}
        return found


def _context(frame: Frame) -> tuple[list[str], str, list[str]]:
    assert frame.context_line is not None
    return list(frame.pre_context or []), frame.context_line, list(frame.post_context or [])


def main() -> int:
    """Compare, then time all; print one JSON object. Exit 1 where a place or a line differs."""
    parser = argparse.ArgumentParser(description="Scripts with maps against symbolic.")
    parser.add_argument("maps", nargs="*", default=PACKAGES, help="files, or name@version:path of npm packages")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    wrong = 0
    for name in options.maps:
        path = map_file(name, options.cache)
        script = script_of(path) if path is not None else None
        if path is None or script is None:
            print(f"{name}: not to be had", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(path, script, Path(scratch))
            places, names = run.differences()
            wrong += places
            results[path.name] = {"differ": {"places": places, "names": names}, **run.time(options.rounds)}
            print(path.name, json.dumps(results[path.name]), file=sys.stderr)
    together = {}
    for what in ("build", "cold", "warm"):
        sums = [sum(r[what]["ms"][name] for r in results.values()) for name in ("deadreckon", "symbolic")]
        middle = spread([r[what]["ratio"][1] for r in results.values()])
        together[what] = {"ms": [round(s, 1) for s in sums], "ratio": round(sums[1] / sums[0], 2), "of_maps": middle}
    print(json.dumps({"maps": results, "together": together, "machine": machine()}, indent=2, default=vars))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
