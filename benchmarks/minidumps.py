"""Minidumps end to end: frames and speed beside Breakpad's minidump_stackwalk and rust-minidump's minidump-stackwalk.

    python -m benchmarks._peers DIR
    python -m benchmarks.minidumps [--peers DIR] [--json FILE] [--details FILE] [--rounds N] [--only frames|small|large]

Three questions, on the dumps of the corpus (DEADRECKON_CORPUS, by default ../shared/corpora beside the checkout):

* frames: thread by thread, where do the stacks differ, and who is right?
* small: dumps a second on one core, with small symbols. Ours is one process with warm tables, to the event's JSON; the
  peers' a process a dump, as people use them, with .sym files and their output for programs. Their process start,
  measured in the same rounds, is also subtracted.
* large: the same with a module whose .sym has 50 MB.

Only dumps on which the stacks agree are timed. Exit status 1: a frame is missing that a peer is certain of or that an
expectation file has, or the answers with the large file are not those with the small one. Without peers ours runs
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _frames, _peers, _result, _timing
from benchmarks._result import Answer, Result

from deadreckon import Config, Engine
from deadreckon.model.event import encode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks._peers import Peer, Stacks

SMALL_BYTES = 64 << 10
LARGE_SYM_BYTES = 50 * 1000 * 1000
LARGE_DUMP = "breakpad/testdata/linux_null_read_av.dmp"
LARGE_MODULE = "null_read_av/7B7D1968FF0D47AE4366E9C3A7E1B6750/null_read_av.sym"
PASSES = 5
"""How often ours goes through the dumps where the peers go once: a run should not be too short to time."""
WANTED = {"small": 4.0, "large": 50.0}


# -- timing ------------------------------------------------------------------------------------------------------------


def time_dumps(
    engine: Engine, peers: Sequence[Peer], dumps: Sequence[Path], symbols: Sequence[Path], rounds: int, passes: int
) -> dict[str, Any]:
    """Time all tools on the same dumps and return rates and ratios."""
    names, places = [str(dump) for dump in dumps] * passes, [str(path) for path in symbols]

    def ours() -> None:
        for event in engine.process_many(names, symbols=places):
            encode_event(event)

    def each(commands: Sequence[list[str]]) -> Callable[[], None]:
        def work() -> None:
            for command in commands:
                _timing.run(command)

        return work

    competitors: dict[str, Callable[[], None]] = {"deadreckon": ours}
    for peer in peers:
        competitors[peer.name] = each([peer.command(dump, symbols) for dump in dumps])
        competitors[f"{peer.name} start"] = each([peer.start()] * len(dumps))
    ours()
    with _timing.on_one_core():
        costs = _timing.in_turns(competitors, rounds)
    done = {name: len(names) if name == "deadreckon" else len(dumps) for name in competitors}
    result: dict[str, Any] = {"dumps": len(dumps), "bytes": sum(d.stat().st_size for d in dumps), "rounds": rounds}
    for clock in ("wall", "cpu"):
        seconds = {name: [getattr(c, clock) / done[name] for c in found] for name, found in costs.items()}
        result[clock] = {
            "dumps_a_second": {n: asdict(_timing.spread([1 / s for s in found])) for n, found in seconds.items()},
            "ours_to": {},
        }
        for peer in peers:
            started = zip(seconds[peer.name], seconds[f"{peer.name} start"], strict=True)
            left = [max(s - start, 0.0) for s, start in started]
            result[clock]["ours_to"][peer.name] = {
                "as used": asdict(_timing.ratios(seconds["deadreckon"], seconds[peer.name])),
                "start subtracted": asdict(_timing.ratios(seconds["deadreckon"], left)),
            }
    return result


# -- the large symbol file ---------------------------------------------------------------------------------------------

_SHIFTED = re.compile(r"^((?:FUNC |PUBLIC )(?:m )?|STACK CFI INIT |STACK CFI |)([0-9a-f]+)(?= )")


def enlarge(text: str, size: int) -> str:
    """Return a .sym of at least ``size`` bytes: the file as it is, then its records again and again at addresses above.

    What is at the file's own addresses stays what it was. INLINE records are left out of the copies.
    """
    lines = text.splitlines(keepends=True)
    head = [line for line in lines if line.startswith(("MODULE ", "INFO ", "FILE ", "INLINE_ORIGIN "))]
    body = [line for line in lines if not line.startswith(("MODULE ", "INFO ", "FILE ", "INLINE"))]
    parts = [(found[1], int(found[2], 16), line[found.end() :]) for line in body if (found := _SHIFTED.match(line))]
    step = (max(address for _, address, _ in parts) + 0xFFFFF) & ~0xFFFF
    original = "".join([*head, *(line for line in lines if line not in set(head))])
    pieces, length, copy = [original], len(original), 0
    while length < size:
        copy += 1
        made = "".join(f"{kind}{address + copy * step:x}{rest}" for kind, address, rest in parts)
        pieces.append(made)
        length += len(made)
    return "".join(pieces)


def large(
    engine: Engine, peers: Sequence[Peer], corpus: Path, scratch: Path, rounds: int
) -> tuple[dict[str, Any], list[str]]:
    """Time a dump with a large .sym; return also what the large file changed in the answers."""
    dump, store = corpus / "native" / LARGE_DUMP, corpus / "native" / "breakpad-symstore"
    path = scratch / "large" / LARGE_MODULE
    path.parent.mkdir(parents=True)
    path.write_text(enlarge((store / LARGE_MODULE).read_text("utf-8"), LARGE_SYM_BYTES), "utf-8")
    symbols = [scratch / "large", store]
    before = _frames.event_stacks(engine.process(dump, symbols=[str(store)]))
    start = time.perf_counter()
    after = _frames.event_stacks(engine.process(dump, symbols=[str(s) for s in symbols]))
    cold = time.perf_counter() - start
    wrong = [] if before == after else ["deadreckon: other frames with the large file"]
    for peer in peers:
        stacks = peer.stacks(dump, symbols)
        if stacks != peer.stacks(dump, [store]):
            wrong.append(f"{peer.name}: other frames with the large file")
        if (found := _frames.disagreement(after, stacks)) is not None:
            wrong.append(f"{peer.name}: {found}")
    result = time_dumps(engine, peers, [dump], symbols, rounds, 300)
    return {**result, "sym_bytes": path.stat().st_size, "first_seconds": round(cold, 3)}, wrong


# -- output ------------------------------------------------------------------------------------------------------------


def print_frames(rows: Sequence[_frames.Row], total: dict[str, Any]) -> None:
    """Print the threads whose stacks differ, then the sums."""
    names = list(total["peers"])
    print(f"\n{'dump':58}{'thread':>7}{'ours':>6}" + "".join(f"  {name:<38}" for name in names) + " ours ends")
    for row in rows:
        if all(b.kind == "same" for b in row.beside.values()) and row.expected is None:
            continue
        cells = ""
        for name in names:
            b = row.beside.get(name)
            cell = "can't read it"
            if b is not None:
                more = [f"+{n} {what}" for n, what in ((b.guessed, "guessed"), (b.certain, "certain")) if n]
                less = [f"-{n} {what}" for n, what in ((b.ours_guessed, "guessed"), (b.ours_certain, "certain")) if n]
                cell = " ".join([str(b.frames), b.kind, *more, *less])
            cells += f"  {cell:<38}"
        print(f"{row.dump:58}{row.thread:>6}{'*' if row.crashed else ' '}{row.frames:>6}{cells} {row.ends}")
        if row.expected is not None:
            theirs = ", ".join(f"{n} {b.confirmed} (false {_or_dash(b.false)})" for n, b in row.beside.items())
            print(
                f"{'':60}{row.source}: of {row.expected} ours {row.confirmed} (false {_or_dash(row.false)}), {theirs}"
            )
    print("\n* crashed; + frames that only the peer has, - frames that only ours has")
    print(f"{total['dumps']} dumps, {total['threads']} threads")
    for name, found in total["peers"].items():
        print(f"{name}: " + ", ".join(f"{kind} {found[kind]}" for kind in _frames.KINDS))
        print(f"  only theirs {found['only_theirs']}, only ours {found['only_ours']}, names {found['named']}")
        print(f"  expectations {found['expected']}")
    print(f"right or certain frames that ours lacks: {len(total['lost'])}")
    for line in total["lost"]:
        print(f"  {line}")


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def print_speed(title: str, result: dict[str, Any], wanted: float | None) -> None:
    """Print rates a core and ratios, medians with lowest and highest."""
    each = result["bytes"] // max(result["dumps"], 1)
    print(f"\n{title}: {result['dumps']} dumps of {each:,} bytes, medians of {result['rounds']} rounds")
    if "sym_bytes" in result:
        print(f"  .sym of {result['sym_bytes']:,} bytes; ours reads it once, in {result['first_seconds']} s")
    print(f"  {'dumps a second a core':26}{'clock':>24}{'processor':>24}")
    for name in result["wall"]["dumps_a_second"]:
        cells = "".join(f"{_cell(result[clock]['dumps_a_second'][name]):>24}" for clock in ("wall", "cpu"))
        print(f"  {name:26}{cells}")
    for name, ratios in result["wall"]["ours_to"].items():
        for how, found in ratios.items():
            cells = f"{_cell(found):>24}{_cell(result['cpu']['ours_to'][name][how]):>24}"
            goal = wanted if how == "as used" else 1.0 if name == _peers.RUST.name else None
            print(f"  {f'ours to {name}':26}{cells}  {how}" + (f", wanted {goal:g}" if wanted and goal else ""))


def _cell(found: dict[str, float]) -> str:
    digits = 0 if found["median"] >= 100 else 1
    return "{median:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(**found, d=digits)


def main() -> int:
    """Compare, time, print. Exit status 1 where frames are lost or answers differ."""
    parser = argparse.ArgumentParser(description="Minidumps beside Breakpad's and rust-minidump's stack walkers.")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where python -m benchmarks._peers installed them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios there")
    parser.add_argument("--details", type=Path, metavar="FILE", help="write all there is to know there")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("frames", "small", "large"), action="append")
    options = parser.parse_args()
    corpus = Path(os.environ.get("DEADRECKON_CORPUS") or Path(__file__).parent.parent / "../shared/corpora").resolve()
    if not (corpus / "native").is_dir():
        print("skipped: no corpus (set DEADRECKON_CORPUS)")
        return 0
    peers = _peers.find(options.peers)
    if not peers:
        print("no peers (python -m benchmarks._peers DIR installs them): ours runs alone", file=sys.stderr)
    questions = options.only or ["frames", "small", "large"]
    report: dict[str, Any] = {"machine": _timing.machine(), "peers": [peer.name for peer in peers]}
    print("machine: " + ", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, Engine(Config(store=f"{scratch}/store"), explain=True) as engine:
        agreed, rows = examine(engine, peers, corpus)
        engine.explain = False
        if "frames" in questions:
            total = _frames.summary(rows)
            report["frames"] = {**total, "rows": [asdict(row) for row in rows]}
            print_frames(rows, total)
            wrong += total["lost"]
        store = [corpus / "native/breakpad-symstore"]
        sets = {
            "small dumps": [d for d in agreed if d.stat().st_size <= SMALL_BYTES],
            "small dumps with symbols": [d for d, named in agreed.items() if named and d.stat().st_size <= SMALL_BYTES],
            "larger dumps": [d for d in agreed if d.stat().st_size > SMALL_BYTES],
        }
        for title, dumps in sets.items() if "small" in questions else ():
            if dumps:
                report[title] = time_dumps(engine, peers, dumps, store, options.rounds, PASSES)
                print_speed(title, report[title], None if title == "larger dumps" else WANTED["small"])
        if "large" in questions:
            report["large symbols"], differ = large(engine, peers, corpus, Path(scratch), options.rounds)
            print_speed("large symbols", report["large symbols"], WANTED["large"])
            wrong += differ
    report["machine"]["load_after"] = _timing.machine()["load"]
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    if options.details is not None:
        options.details.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.json is not None:
        _result.write(options.json, result(report))
    return int(bool(wrong))


def result(report: dict[str, Any]) -> Result:
    """Return the ratios of processor time, and what was compared."""
    answers, notes = [], []
    for title, found in report.items():
        if not isinstance(found, dict) or "dumps" not in found or "cpu" not in found:
            continue
        for peer, ratios in found["cpu"]["ours_to"].items():
            for how, ratio in ratios.items():
                used = how == "as used"
                aim = None if title == "larger dumps" else WANTED["large" if title == "large symbols" else "small"]
                wanted = aim if used else None
                median, low, high = (float(f"{ratio[name]:.3g}") for name in ("median", "low", "high"))
                headline = used and title in {"small dumps with symbols", "large symbols"}
                answers.append(
                    Answer(f"{title}, beside {peer} {how}", median, low, high, wanted=wanted, headline=headline)
                )
        ours = found["wall"]["dumps_a_second"]["deadreckon"]["median"]
        notes.append(f"{title}: {found['dumps']} files, {ours:,.0f} dumps a second on one core.")
    compared = report.get("frames")
    if compared:
        notes.append(f"{compared['threads']} stacks of {compared['dumps']} dumps compared frame by frame.")
    checked = "all stacks frame by frame; only dumps on which all tools agree are timed"
    question = "How fast are minidumps, end to end?"
    return Result("minidumps", question, checked, answers, notes=notes, machine=report["machine"])


def examine(engine: Engine, peers: Sequence[Peer], corpus: Path) -> tuple[dict[Path, bool], list[_frames.Row]]:
    """Compare all dumps; return those on which all tools have a stack and agree, and whether symbols name a frame."""
    symbols, known = _frames.symbol_paths(corpus), _frames.expectations(corpus)
    agreed: dict[Path, bool] = {}
    rows: list[_frames.Row] = []
    for dump in _frames.dumps(corpus):
        event = engine.process(dump, symbols=[str(path) for path in symbols])
        ours = _frames.event_stacks(event)
        theirs: dict[str, Stacks] = {peer.name: _frames.aligned(ours, peer.stacks(dump, symbols)) for peer in peers}
        rows += _frames.compare(str(dump.relative_to(corpus / "native")), event, theirs, known)
        if not all(any(found.values()) for found in (ours, *theirs.values())):
            continue
        differ = [f"{n}: {why}" for n, found in theirs.items() if (why := _frames.disagreement(ours, found))]
        if differ:
            print(f"not timed, {dump.name}: {'; '.join(differ)}")
        else:
            agreed[dump] = any(f.function for stack in ours.values() for f in stack)
    return agreed, rows


if __name__ == "__main__":
    sys.exit(main())
