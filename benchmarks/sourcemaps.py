"""Source maps: parsing, look-ups in a batch, opening a stored map, memory; against symbolic and JavaScript's libraries.

Answers are compared first. Then all are timed in turns on the same bytes, so that what else the machine does falls on
all alike. Maps are files, made ones, or (``--packages``, ``--peers``) taken from packages of npm's registry
(``name@version:path``), which ``npm pack`` fetches into the directory given by ``--cache``. Where ``--peers`` names a
directory with ``source-map`` and ``@jridgewell/trace-mapping`` installed, these take part, and Node's own.

    python -m benchmarks.sourcemaps [MAP ...] [--packages] [--cache DIR] [--peers DIR] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import symbolic
from benchmarks import _result, _synthetic
from benchmarks._maps import CACHE, PACKAGES, map_file, script_of
from benchmarks._result import Answer, Result

from deadreckon.kernels.positions import look_up
from deadreckon.objects import sourcemap
from deadreckon.symbols.maps import open_map, write_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable

LOOKUPS = 100_000
LOOP = 5_000
COMPARED = 3_000

NODE = """
import fs from "node:fs";
import { performance } from "node:perf_hooks";
import { createRequire, SourceMap } from "node:module";
const [root, peer, file, positions, answers] = process.argv.slice(2);
const require = createRequire(root + "/");
const text = fs.readFileSync(file, "utf8");
const [lines, columns] = JSON.parse(fs.readFileSync(positions, "utf8"));
let look;
const start = performance.now();
if (peer === "trace-mapping") {
  const { TraceMap, traceSegment } = require("@jridgewell/trace-mapping");
  const map = new TraceMap(text);
  look = (l, c) => {
    const s = traceSegment(map, l, c);
    return s && s.length > 1 ? [map.sources[s[1]], s[2], s[3], s.length > 4 ? map.names[s[4]] : null] : null;
  };
} else if (peer === "source-map") {
  const { SourceMapConsumer } = require("source-map");
  const map = await new SourceMapConsumer(text);
  look = (l, c) => {
    const s = map.originalPositionFor({ line: l + 1, column: c });
    return s.source === null ? null : [s.source, s.line - 1, s.column, s.name];
  };
} else {
  const map = new SourceMap(JSON.parse(text));
  look = (l, c) => {
    const s = map.findEntry(l, c);
    return s.originalSource === undefined || s.generatedLine !== l
      ? null : [s.originalSource, s.originalLine, s.originalColumn, s.name ?? null];
  };
}
look(lines[0], columns[0]);
const ready = performance.now();
for (let i = 0; i < lines.length; i++) look(lines[i], columns[i]);
const done = performance.now();
if (answers) fs.writeFileSync(answers, JSON.stringify(lines.map((l, i) => look(l, columns[i]))));
console.log(JSON.stringify([ready - start, done - ready]));
"""
PEERS = ("trace-mapping", "source-map", "node")
GROWTH = """
import sys
import numpy as np
from deadreckon.kernels.positions import look_up
from deadreckon.objects import sourcemap
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
with open(sys.argv[1], "rb") as file:
    data = file.read()
small = sourcemap.read(b'{"version":3,"sources":["a"],"mappings":"AAAA"}')
look_up(small, np.zeros(1, np.int64), np.zeros(1, np.int64))
before = resident()
table = sourcemap.read(data)
look_up(table, np.zeros(1, np.int64), np.zeros(1, np.int64))
print(resident() - before)
"""
"""Prints by how many KiB a process grows that parses a map; what the first map of all costs is not counted."""
NODE_GROWTH = """
import fs from "node:fs";
import { createRequire } from "node:module";
const [root, file] = process.argv.slice(2);
const { TraceMap, traceSegment } = createRequire(root + "/")("@jridgewell/trace-mapping");
const text = fs.readFileSync(file, "utf8");
traceSegment(new TraceMap('{"version":3,"sources":["a"],"names":[],"mappings":"AAAA"}'), 0, 0);
gc();
const before = process.memoryUsage.rss();
const map = new TraceMap(text);
traceSegment(map, 0, 0);
gc();
console.log((process.memoryUsage.rss() - before) >> 10, map.sources.length);
"""


def main() -> int:
    """Check, then time; write the result. Exit 1 if an answer differs."""
    parser = argparse.ArgumentParser(description="Source maps against symbolic and JavaScript's libraries.")
    parser.add_argument("maps", nargs="*", help="files, or name@version:path of npm packages")
    parser.add_argument("--packages", action="store_true", help="maps of npm packages known to be large")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--peers", type=Path, help="directory whose node_modules has the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as made:
        names = options.maps or (PACKAGES if options.packages or options.peers else _own(Path(made)))
        for name in names:
            path = map_file(name, options.cache)
            if path is None:
                print(f"{name}: not to be had", file=sys.stderr)
                continue
            with tempfile.TemporaryDirectory() as scratch:
                run = _Run(path, Path(scratch), options.peers)
                differences = run.differences()
                wrong += len(differences)
                print("\n".join([f"{path.name}: {len(differences)} differ", *differences[:10]]), file=sys.stderr)
                results[path.name] = run.time(options.rounds)
    if not results:
        return 1
    _result.write(options.json, _summary(results))
    return 1 if wrong else 0


def _own(scratch: Path) -> list[str]:
    """Return maps that need nobody: made ones, and the project's own."""
    names = []
    for size in (1 << 20, 16 << 20):
        path = scratch / f"made-{size >> 20}-MB.js.map"
        path.write_bytes(_synthetic.large_map(size))
        names.append(str(path))
    return names


def _summary(results: dict[str, Any]) -> Result:
    parse, look = _sums(results, "parse_ms"), _sums(results, "look_up_ms")
    answers = []
    for what, found, sums, least in (
        ("source maps parsed, sum of all maps", "parse_ratios", parse, {"symbolic view": 1.0}),
        (
            "100,000 positions looked up in source maps, sum of all maps",
            "look_up_ratios",
            look,
            {"symbolic view": 40.0, "symbolic cache": 40.0},
        ),
    ):
        usual = 2.5 if "parsed" in what else 5.0
        for peer, theirs in sums.items():
            if peer == "deadreckon":
                continue
            ratio = float(f"{theirs / sums['deadreckon']:.3g}")
            each = [result[found][peer][1] for result in results.values() if peer in result[found]]
            wanted, headline = least.get(peer, usual), peer == "symbolic view"
            answers.append(
                Answer(f"{what}, beside {peer}", ratio, min(each), max(each), wanted=wanted, headline=headline)
            )
    largest = max(results.values(), key=lambda result: result["bytes"])
    ratio = float(largest["parsing_to_opening"])
    text = f"a stored map of {largest['bytes'] >> 20} MB opened and asked, beside parsing it"
    answers.append(Answer(text, ratio, ratio, ratio, wanted=100.0))
    if all("growth_kb" in r for r in results.values()):
        ours, theirs = (sum(r["growth_kb"][i] for r in results.values()) for i in (0, 1))
        each = [float(f"{max(1, r['growth_kb'][0]) / max(1, r['growth_kb'][1]):.3g}") for r in results.values()]
        text = "resident memory that a parsed map takes, sum of all maps, beside trace-mapping"
        growth = Answer(text, float(f"{ours / theirs:.3g}"), min(each), max(each), "times", wanted=0.333, at_most=True)
        answers.append(growth)
    notes = [
        f"{name}: {r['bytes']:,} bytes, {r['segments']:,} segments, parsed in {r['parse_ms']['deadreckon']:.1f} ms, "
        f"opened in {r['open_and_answer_ms']:.2f} ms."
        for name, r in results.items()
    ]
    checked = "positions of every map against those on which the others agree"
    return Result("sourcemaps", "How fast are source maps read and asked?", checked, answers, notes=notes)


def _sums(results: dict[str, Any], what: str) -> dict[str, float]:
    names = {name for result in results.values() for name in result[what]}
    return {name: round(sum(result[what].get(name, 0.0) for result in results.values()), 1) for name in sorted(names)}


class _Run:
    """One map and those that read it."""

    def __init__(self, path: Path, scratch: Path, modules: Path | None) -> None:
        self.path = path
        self.scratch = scratch
        self.data = path.read_bytes()
        script = script_of(path)
        self.script = script.read_bytes() if script is not None else None
        self.table = sourcemap.read(self.data)
        rng = np.random.default_rng(42)
        rows = rng.integers(0, len(self.table), LOOKUPS)
        self.lines = np.repeat(self.table.lines, np.diff(self.table.first))[rows].astype(np.int64)
        self.columns = self.table.column[rows].astype(np.int64) + rng.integers(0, 4, LOOKUPS)
        self.node = modules.resolve() if modules is not None and shutil.which("node") else None
        (scratch / "peer.mjs").write_text(NODE)

    def differences(self) -> list[str]:
        """Compare positions with those on which trace-mapping and source-map agree, else with symbolic's."""
        lines, columns = self.lines[:COMPARED], self.columns[:COMPARED]
        found = look_up(self.table, lines, columns)
        said = self._theirs(lines, columns)
        wrong = []
        for i, (line, column, place) in enumerate(
            zip(lines.tolist(), columns.tolist(), found.place.tolist(), strict=True)
        ):
            ours = [self.table.source(place[0]), *place[1:3]] if place[0] >= 0 else None
            theirs = {json.dumps(answers[i]) for answers in said}
            if (
                len(theirs) == 1
                and json.dumps(ours) not in theirs
                and not _shared(self.table, int(found.segment[i]), column)
            ):
                wrong.append(f"{line}:{column}: {ours} != {theirs}")
        return wrong

    def _theirs(self, lines: NDArray[np.int64], columns: NDArray[np.int64]) -> list[list[Any]]:
        if self.node is not None:
            answers = []
            for peer in ("trace-mapping", "source-map"):
                target = self.scratch / "answers.json"
                self._run_node(peer, lines, columns, target)
                answers.append([a[:3] if a else None for a in json.loads(target.read_text())])
            return answers
        view = symbolic.SourceMapView.from_json_bytes(self.data)
        said: list[Any] = []
        for line, column in zip(lines.tolist(), columns.tolist(), strict=True):
            token = view.lookup(line, column)
            here = token is not None and token.dst_line == line and token.src is not None
            said.append([token.src, token.src_line, token.src_col] if here else None)
        return [said]

    def _run_node(
        self, peer: str, lines: NDArray[np.int64], columns: NDArray[np.int64], answers: Path | None = None
    ) -> list[float]:
        positions = self.scratch / "positions.json"
        positions.write_text(json.dumps([lines.tolist(), columns.tolist()]))
        command = ["node", str(self.scratch / "peer.mjs"), str(self.node), peer, str(self.path), str(positions)]
        done = subprocess.run([*command, str(answers or "")], capture_output=True, text=True, check=True)
        times: list[float] = json.loads(done.stdout)
        return times

    def growth(self) -> list[int]:
        """Return by how many KiB a process of ours, and one with trace-mapping, grows while it parses the map."""
        (self.scratch / "growth.mjs").write_text(NODE_GROWTH)
        commands = (
            [sys.executable, "-c", GROWTH, str(self.path)],
            ["node", "--expose-gc", str(self.scratch / "growth.mjs"), str(self.node), str(self.path)],
        )
        done = [subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands]
        return [int(said.split()[0]) for said in done]

    def time(self, rounds: int) -> dict[str, Any]:
        """Return milliseconds of all, the best of so many rounds, and ratios of each round's."""
        parse: dict[str, list[float]] = {}
        look: dict[str, list[float]] = {}
        view = symbolic.SourceMapView.from_json_bytes(self.data)
        few = list(zip(self.lines[:LOOP].tolist(), self.columns[:LOOP].tolist(), strict=True))
        cache = symbolic.SourceMapCache.from_bytes(self.script, self.data) if self.script is not None else None
        stored = self.scratch / "stored.table"
        start = time.perf_counter()
        write_map(stored, self.table)
        written = time.perf_counter() - start
        opening: list[float] = []
        parsers: list[tuple[str, Callable[[], object]]] = [
            ("deadreckon", lambda: sourcemap.read(self.data)),
            ("symbolic view", lambda: symbolic.SourceMapView.from_json_bytes(self.data)),
        ]
        for number in range(rounds):
            # Whoever comes second finds the bytes in the processor's cache.
            for name, run in parsers if number % 2 else reversed(parsers):
                _add(parse, name, run)
            _add(look, "deadreckon", lambda: look_up(self.table, self.lines, self.columns))
            _add(look, "symbolic view", lambda: [view.lookup(a, b) for a, b in few], LOOKUPS / LOOP)
            if cache is not None:
                _add(look, "symbolic cache", lambda: [cache.lookup(a + 1, b + 1, 0) for a, b in few], LOOKUPS / LOOP)
            for i in range(5):
                start = time.perf_counter()
                opened = open_map(stored)
                place = look_up(opened, self.lines[i : i + 1], self.columns[i : i + 1]).place[0].tolist()
                sourcemap.source_path(opened, place[0])
                opening.append((time.perf_counter() - start) * 1e3)
            for peer in PEERS if self.node is not None else ():
                ready, done = self._run_node(peer, self.lines, self.columns)
                parse.setdefault(peer, []).append(ready)
                look.setdefault(peer, []).append(done)
        return {
            "bytes": len(self.data),
            "segments": len(self.table),
            "parse_ms": {name: round(min(found), 3) for name, found in parse.items()},
            "parse_ratios": _ratios(parse),
            "look_up_ms": {name: round(min(found), 2) for name, found in look.items()},
            "look_up_ratios": _ratios(look),
            "write_ms": round(written * 1e3, 1),
            "open_and_answer_ms": round(statistics.median(opening), 3),
            **({"growth_kb": self.growth()} if self.node is not None else {}),
            "parsing_to_opening": round(statistics.median(parse["deadreckon"]) / statistics.median(opening)),
        }


def _shared(table: SourceMapTable, segment: int, column: int) -> bool:
    """Tell whether several segments have the position that answered: there peers choose differently."""
    near = table.column[max(0, segment - 1) : segment + 2]
    return segment >= 0 and int(table.column[segment]) == column and int(np.count_nonzero(near == column)) > 1


def _add(times: dict[str, list[float]], name: str, run: Callable[[], object], scale: float = 1.0) -> None:
    start = time.perf_counter()
    run()
    times.setdefault(name, []).append((time.perf_counter() - start) * 1e3 * scale)


def _ratios(times: dict[str, list[float]]) -> dict[str, list[float]]:
    ours = times["deadreckon"]
    found = {}
    for name, theirs in times.items():
        if name != "deadreckon":
            ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
            found[name] = [round(r, 2) for r in (ratios[0], statistics.median(ratios), ratios[-1])]
    return found


if __name__ == "__main__":
    sys.exit(main())
