"""Run the benchmarks one after the other and make docs/benchmarks.md of what they say.

    python -m benchmarks.run [--peers DIR] [--only NAME ...] [--results DIR]

Each is a process of its own, so that none warms another's caches. Without ``--peers`` nothing outside the project's own
dependencies is needed, and it takes a few minutes. Exit 1: an answer was wrong. A ratio that misses its aim is told in
the table and is no failure: machines differ.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import _result, report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "build/benchmarks"

QUICK: dict[str, list[str]] = {
    "lookup": [],
    "unwinding": ["--worlds", "100"],
    "sourcemaps": [],
    "scriptnames": ["--sample", "0"],
    "scriptframes": [],
    "fingerprint": [],
    "grouping": [],
    "payloads": [],
    "minidumps": [],
    "pile": [],
    "worker": ["throughput", "--jobs", "1000"],
    "coldstart": [],
    "memory": [],
    "scaling": [],
}
"""The benchmarks in the page's order, with the arguments that keep them short."""
ONLY_WITH_PEERS = {"scriptnames", "scriptframes"}
"""Those that take npm's packages."""
WITH_PEERS = {"sourcemaps", "fingerprint", "grouping", "minidumps", "pile", "coldstart"}
"""Those that compare with other tools, where these are installed."""


def main() -> int:
    """Run, print a line for each, write the page."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and make docs/benchmarks.md.")
    parser.add_argument("--peers", type=Path, help="directory that benchmarks._peers installed into")
    parser.add_argument("--only", nargs="*", choices=list(QUICK), default=list(QUICK))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name in options.only:
        if options.peers is None and name in ONLY_WITH_PEERS:
            continue
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(options.results / f"{name}.json")]
        command += QUICK[name]
        if options.peers is not None and name in WITH_PEERS:
            command += ["--peers", str(options.peers)]
        start = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode
        print(f"{'done' if not code else f'exit {code}'} in {time.monotonic() - start:.0f} s", flush=True)
        if code:
            wrong.append(name)
    found = [options.results / f"{name}.json" for name in QUICK]
    results = [_result.read(path) for path in found if path.exists()]
    report.generate(results, options.docs, options.readme)
    for result in results:
        print(f"\n{result.question}\n")
        for a in result.answers:
            limit = f"  {a.limit}" if a.limit else ""
            told = f"{a.median:g} {a.unit} ({a.low:g} to {a.high:g}){limit}{'  MISSED' if a.met is False else ''}"
            print(f"  {a.what}: {told}")
    print(f"\n{options.docs / 'benchmarks.md'} tells what was found")
    if wrong:
        print(f"wrong answers or failures: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
