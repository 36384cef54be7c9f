"""A pile of ten thousand minidumps on all cores, beside the same pile through other tools run as many at a time.

    python -m benchmarks.pile [--dumps N] [--processes N] [--peers DIR] [--rounds N] [--json FILE]

The dumps are real ones of the corpus with small symbols (without it, the project's own), each copy with a few bytes
at the end that no other has. Ours is one ``deadreckon process`` to JSON lines with the symbols in its store; the others
are run by xargs, a process a dump, output thrown away. Every event is compared with the one that the dump has alone.
Exit 1: an event differs, or memory grows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _peers, _result
from benchmarks._ours import FIXTURE, command
from benchmarks._result import Answer, Result

from deadreckon import Config, Engine
from deadreckon.model.event import encode_event

if TYPE_CHECKING:
    from benchmarks._peers import Peer

ROOT = Path(__file__).parent.parent
SMALL_BYTES = 64 << 10
WANTED = 4.0


def sources(corpus: Path) -> tuple[list[Path], list[Path]]:
    """Return the dumps to repeat and where their symbols are: of the corpus those that symbols name a frame of."""
    symbols = [corpus / "native/breakpad-symstore"]
    dumps = sorted((corpus / "native").rglob("*.dmp"))
    if not dumps:
        return sorted(FIXTURE.rglob("*.dmp")), [FIXTURE / "crashy.debug"]
    chosen = []
    with tempfile.TemporaryDirectory() as scratch, Engine(Config(store=scratch)) as engine:
        for dump in dumps:
            if dump.stat().st_size <= SMALL_BYTES:
                event = engine.process(str(dump), symbols=[str(s) for s in symbols])
                if any(f.function for t in event.threads or () for f in t.frames or ()):
                    chosen.append(dump)
    return chosen, symbols


def bare(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without what its copy alone has: its id, name, size and digest."""
    source = {k: v for k, v in event["source"].items() if k not in {"name", "size", "sha256"}}
    return {**event, "event_id": "", "source": source}


def ours(directory: Path, store: Path, output: Path, processes: int) -> list[str]:
    """Return our command."""
    return [
        *command(), "process", str(directory), "--format", "json", "-o", str(output),
        "--store", str(store), "--processes", str(processes),
    ]  # fmt: skip


def theirs(peer: Peer, names: Path, symbols: list[Path], processes: int) -> list[str]:
    """Return a command that runs a peer on every dump of a list."""
    marked = peer.command(Path("@DUMP@"), symbols)
    return ["xargs", "-a", str(names), "-P", str(processes), "-I", "@DUMP@", *marked]


def seconds(command: list[str]) -> float:
    """Run a command and return how long it took."""
    start = time.perf_counter()
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def fill(directory: Path, dumps: list[Path], count: int) -> list[Path]:
    """Write so many copies, each with bytes of its own; returns what each is a copy of, by name in order."""
    directory.mkdir()
    contents = [dump.read_bytes() for dump in dumps]
    of = []
    for number in range(count):
        which = number % len(dumps)
        (directory / f"{number:06}.dmp").write_bytes(contents[which] + number.to_bytes(8, "little"))
        of.append(dumps[which])
    return of


def differing(output: Path, of: list[Path], store: Path) -> list[str]:
    """Return what is wrong with the events of a pile: not one for each dump, or another than the dump has alone."""
    with Engine(Config(store=str(store))) as engine:
        alone = {dump: bare(json.loads(encode_event(engine.process(str(dump))))) for dump in set(of)}
    wrong, digests = [], set()
    count = 0
    with output.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            event = json.loads(line)
            digests.add(event["source"]["sha256"])  # Some reports bring an id of their own.
            if event["source"]["name"] != f"{count - 1:06}.dmp":
                wrong.append(f"event {count} is of {event['source']['name']}")
            elif bare(event) != alone[of[count - 1]]:
                wrong.append(f"{event['source']['name']}: another event than {of[count - 1].name} has alone")
    if count != len(of) or len(digests) != len(of):
        wrong.append(f"{count} events of {len(digests)} reports for {len(of)} dumps")
    return wrong


def main() -> int:
    """Compare, time in turns, write the result."""
    parser = argparse.ArgumentParser(description="Ten thousand minidumps, beside other tools run in parallel.")
    parser.add_argument("--dumps", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    corpus = Path(os.environ.get("DEADRECKON_CORPUS") or ROOT / "../shared/corpora").resolve()
    dumps, symbols = sources(corpus)
    peers = [peer for peer in _peers.find(options.peers) if shutil.which("xargs")]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        store, output = place / "store", place / "events.jsonl"
        with Engine(Config(store=str(store))) as engine:
            for path in symbols:
                engine.add_symbols(str(path))
        fill(place / "few", dumps, max(options.dumps // 10, len(dumps)))
        of = fill(place / "many", dumps, options.dumps)
        names = place / "names"
        names.write_text("".join(f"{path}\n" for path in sorted((place / "many").iterdir())))
        seconds(ours(place / "few", store, output, options.processes))
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            times.setdefault("deadreckon", []).append(seconds(ours(place / "many", store, output, options.processes)))
            for peer in peers:
                times.setdefault(peer.name, []).append(seconds(theirs(peer, names, symbols, options.processes)))
        wrong = differing(output, of, store)
    growth = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / before, 3)
    for line in wrong[:20]:
        print(f"WRONG {line}", file=sys.stderr)
    title = f"{options.dumps:,} minidumps on {options.processes} cores"
    answers = [
        _result.answer(f"{title}, beside {name}", times["deadreckon"], found, wanted=WANTED, headline=True)
        for name, found in times.items()
        if name != "deadreckon"
    ]
    memory = f"Largest process after {options.dumps:,} dumps beside a tenth of them"
    answers.append(Answer(memory, growth, growth, growth, "times", 1.05, at_most=True))
    note = f"{title}: {min(times['deadreckon']):.1f} s, {options.dumps / min(times['deadreckon']):,.0f} a second."
    checked = f"all {options.dumps:,} events against those that the {len(dumps)} dumps have alone"
    result = Result("pile", "How long do ten thousand minidumps take?", checked, answers, notes=[note])
    _result.write(options.json, result)
    return 1 if wrong or growth > 1.05 else 0


if __name__ == "__main__":
    sys.exit(main())
