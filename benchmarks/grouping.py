"""From the JSON of an error event (7 KB, 30 frames) to Sentry's hashes, against ``json.loads`` of the same bytes.

    python -m benchmarks.grouping [--rules FILE]... [--rounds N] [--peers DIR] [--json FILE]

Rules are Sentry's own or any
others, without a file those that come with the package. Symbols are warm: every frame was seen before,
every stack is new. Two targets: at most 2.5 times what ``json.loads`` takes, and ten times the stacks a second that
siggen makes signatures of, which is of use for native stacks only and where it is installed (``--peers``).
Answers are checked before anything is timed. Runs alternate on one core; figures are processor time, the median of
rounds with the lowest and highest.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._peers import PYTHON
from benchmarks._result import Answer, Result, answer, write
from benchmarks._timing import in_turns, on_one_core, spread

from deadreckon.grouping.families.sentry import Grouping, convert, decode
from deadreckon.grouping.judge import default_rules
from deadreckon.grouping.rules import RuleSet, load_rules

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = "newstyle:2023-01-11"
EVENTS = 200
FRAMES = 30
SYMBOLS = 2000
TARGET_JSON, TARGET_SIGGEN = 2.5, 10.0


def native(number: int, draw: random.Random) -> dict[str, Any]:
    """Return a frame of native code; its address differs from event to event, its symbol does not."""
    package = ("/usr/lib/libfoo.so.1", "/opt/app/bin/server", "/lib/x86_64-linux-gnu/libc.so.6")[number % 3]
    return {
        "function": f"app::ns{number % 50}::Class{number}<std::string>::method(std::vector<int> const&, int) const",
        "package": package,
        "filename": f"file{number % 90}.cpp",
        "abs_path": f"/ci/src/file{number % 90}.cpp",
        "lineno": number % 900 + 1,
        "instruction_addr": hex(draw.randrange(1 << 47)),
    }


def python(number: int, _: random.Random) -> dict[str, Any]:
    """Return a frame of Python."""
    return {
        "function": f"method_{number}",
        "module": f"app.views.module_{number % 90}",
        "filename": f"app/views/module_{number % 90}.py",
        "abs_path": f"/usr/src/app/app/views/module_{number % 90}.py",
        "context_line": f"    return self.handler_{number}(request, *args)",
        "lineno": number % 900 + 1,
        "in_app": number % 3 != 0,
    }


def events(platform: str, frame: Callable[[int, random.Random], dict[str, Any]], seed: int) -> list[bytes]:
    """Return events whose stacks are drawn from one set of symbols."""
    draw = random.Random(seed)  # noqa: S311
    found = []
    for _ in range(EVENTS):
        frames = [frame(draw.randrange(SYMBOLS), draw) for _ in range(FRAMES)]
        values = [{"type": "ValueError", "value": "no such item 42", "stacktrace": {"frames": frames}}]
        told = {
            "event_id": f"{draw.getrandbits(128):032x}",
            "platform": platform,
            "timestamp": 1795209347.4,
            "release": "app@1.2.3",
            "tags": [["tier", "gold"]],
            "sdk": {"name": "sentry.example", "version": "2.0"},
            "exception": {"values": values},
        }
        found.append(json.dumps(told).encode())
    return found


def check(data: list[bytes], grouping: Grouping) -> None:
    """Compare hashes with those of the slow ways, and without rules with MD5 written here."""
    plain = Grouping(CONFIGURATION, RuleSet())
    for one in data[:50]:
        told = json.loads(one)
        ways = [grouping.hashes(decode(one)), grouping.hashes(convert(told)), grouping.hashes(decode(one))]
        ways.append([v.hash for v in grouping.variants(decode(one), explain=True).values() if v.hash])
        assert all(sorted(w) == sorted(ways[0]) for w in ways), ways
        if told["platform"] == "python":
            texts = []
            before = None
            for f in told["exception"]["values"][0]["stacktrace"]["frames"]:
                if f != before:
                    texts += [f["module"], f["function"], f["context_line"].strip()]
                before = f
            wanted = hashlib.md5("".join([*texts, "ValueError"]).encode()).hexdigest()  # noqa: S324
            assert plain.hashes(decode(one))[-1] == wanted


def siggen_of(data: list[bytes]) -> Callable[[], object] | None:
    """Return siggen's work on the same stacks, None where it is not installed."""
    if importlib.util.find_spec("siggen") is None:
        return None
    generator = importlib.import_module("siggen.generator").SignatureGenerator()
    crashes = []
    for one in data:
        frames = json.loads(one)["exception"]["values"][0]["stacktrace"]["frames"]
        told = [
            {
                "frame": n,
                "function": f["function"],
                "file": f["abs_path"],
                "line": f["lineno"],
                "module": f.get("package", "app"),
            }
            for n, f in enumerate(reversed(frames))
        ]
        crashes.append({"os": "Linux", "crashing_thread": 0, "threads": [{"frames": told}], "reason": "SIGSEGV"})
    assert all(generator.generate(c).signature for c in crashes[:5])
    return lambda: [generator.generate(c) for c in crashes]


def measure(
    platform: str, frame: Callable[[int, random.Random], dict[str, Any]], rules: RuleSet, rounds: int
) -> list[Answer]:
    """Print the figures of one platform and return its ratios."""
    data = events(platform, frame, 1)
    grouping = Grouping(CONFIGURATION, rules)
    check(data, grouping)
    for seed in range(2, 12):  # Every symbol is met before it counts.
        for one in events(platform, frame, seed):
            grouping.hashes(decode(one))
    work: dict[str, Callable[[], object]] = {
        "json.loads": lambda: [json.loads(one) for one in data],
        "decode": lambda: [decode(one) for one in data],
        "hashes": lambda: [grouping.hashes(decode(one)) for one in data],
    }
    if platform == "native" and (siggen := siggen_of(data)) is not None:
        work["siggen"] = siggen
    gc.collect()
    costs = {name: [c.cpu for c in runs] for name, runs in in_turns(work, rounds).items()}
    size = sum(map(len, data)) // len(data)
    print(f"{platform}: {len(data)} events of {size} bytes and {FRAMES} frames, {len(rules.stack)} rules")
    for name, runs in costs.items():
        told = spread([r / len(data) * 1e6 for r in runs])
        print(f"  {name:<12}{told.median:9.1f} us an event   ({told.low:.1f} to {told.high:.1f})")
    what = f"{platform} events of {size:,} bytes to Sentry's hashes"
    answers = [
        answer(f"{what}, beside json.loads", costs["hashes"], costs["json.loads"], unit="times as long",
               wanted=TARGET_JSON, at_most=True, headline=platform == "native")
    ]  # fmt: skip
    if "siggen" in costs:
        answers.append(answer(f"{what}, beside siggen", costs["hashes"], costs["siggen"], wanted=TARGET_SIGGEN))
    for found in answers:
        print(f"  {found.what}: {found.median} ({found.low} to {found.high}; target: {found.wanted})")
    return answers


def main() -> int:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", action="append", default=[], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", type=Path, help="directory that benchmarks._peers installed into")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers / PYTHON))  # At the end: what both have, ours is.
    rules = load_rules(*options.rules) if options.rules else default_rules()
    answers: list[Answer] = []
    with on_one_core():
        for platform, frame in (("native", native), ("python", python)):
            answers += measure(platform, frame, rules, options.rounds)
    note = f"{len(rules.stack)} stack-trace rules, {FRAMES} frames, symbols met before."
    checked = "hashes of four ways to make them, and without rules against MD5"
    write(
        options.json, Result("grouping", "How long do Sentry's hashes take, from JSON?", checked, answers, notes=[note])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
