"""Fingerprints, sketches and the rule pass over columns, against what hashes the same stacks otherwise.

Thirty-frame stacks over 20,000 symbols with demangled names of some 70 characters. Answers are compared first: the
kernel's fingerprints with the plain-Python definition, the C loop's with the kernel's, the rule pass with the one that
explains a stack. Then, on one core and in turns: the 128-bit fingerprint beside md5 and XXH3-128 of the joined names,
siggen and the same loop in C; MinHash of 64 beside datasketch; the default rules' pass beside the fingerprint. What is
not installed is left out: a directory with xxhash, siggen and datasketch is named by --peers.

    python -m benchmarks.fingerprint [--peers DIR] [--stacks N] [--collisions N] [--json FILE]

``--collisions 50000000`` fingerprints so many distinct stacks and counts how many share one; some 3 GB of memory.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks import _peers, _result, _timing
from benchmarks._result import Result

from deadreckon.grouping.fingerprint import combine
from deadreckon.grouping.judge import FRAME, default_rules, digest
from deadreckon.grouping.program import RulePass
from deadreckon.grouping.rules import StackRules, Symbol
from deadreckon.kernels import tokens
from deadreckon.kernels.marks import APP_SHIFT, GROUP_SHIFT, NO, YES, run_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FRAMES = 30
SYMBOLS = 20_000
ROUNDS = 7


def main() -> int:
    """Check, then time; write the result. Exit 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(description="Fingerprints, sketches and the rule pass over columns of stacks.")
    parser.add_argument("--peers", type=Path, help="directory with xxhash, siggen and datasketch")
    parser.add_argument("--stacks", type=int, default=200_000)
    parser.add_argument("--collisions", type=int, default=0, metavar="N", help="count collisions among N stacks")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.peers:
        sys.path += [str(options.peers / _peers.PYTHON), str(options.peers)]  # At the end: what both have, ours is.
    if options.collisions:
        found = collisions(options.collisions)
        print(f"{options.collisions} distinct stacks, {found} collisions", file=sys.stderr)
        return 1 if found else 0
    with _timing.on_one_core():
        work = Work.make(options.stacks)
        wrong = work.check()
        if wrong:
            print("\n".join(wrong), file=sys.stderr)
            return 1
        _result.write(options.json, measure(work))
    return 0


# --- The stacks -------------------------------------------------------------------------------------------------------

_WORDS = (
    "engine layout parser render buffer cache socket session widget index matrix vector codec stream loader".split()
)
_ENDS = ["raise", "abort", "__GI_raise"]
_STARTS = ["__libc_start_call_main", "__libc_start_main_impl", "_start"]


@dataclass
class Work:
    """Stacks as columns and as texts; all frames count in the fingerprint, rules see what the names are of."""

    names: list[str]
    offsets: NDArray[np.int64]
    symbols: NDArray[np.uint32]
    marks: NDArray[np.uint8]
    heads: NDArray[np.uint32]
    digests: NDArray[np.uint64]
    passes: RulePass
    tests: list[tuple[int, ...]]
    classes: NDArray[np.uint32]
    states: NDArray[np.uint16]
    found: NDArray[np.uint64]
    sketched: NDArray[np.uint32]
    """Room for answers, which every round uses again."""

    @classmethod
    def make(cls, stacks: int) -> Work:
        """Make stacks that begin in an end of a program now and then, and end where all programs start."""
        rng = random.Random(1)  # noqa: S311
        names, packages = list(_ENDS + _STARTS), ["/lib/libc.so.6"] * 6
        while len(names) < SYMBOLS:
            words = rng.choices(_WORDS, k=5)
            system = rng.random()
            head = "std::" if system < 0.15 else f"{words[0]}::"
            names.append(
                f"{head}{words[1]}_{words[2]}<{words[3]}>::{words[4]}_{len(names)}"
                f"(unsigned int, {words[0]}::state const&)"
            )
            packages.append("/usr/lib/libplatform.so" if system > 0.8 else "/opt/app/bin/server")
        numbers = np.random.default_rng(2)
        table = numbers.integers(6, SYMBOLS, (stacks, FRAMES)).astype(np.uint32)
        table[:, -1], table[:, -2], table[:, -3] = 5, 4, 3
        ended = numbers.random(stacks) < 0.3
        table[ended, 0], table[ended, 1] = 0, 1
        symbols = table.reshape(-1)
        rules = StackRules(default_rules().stack)
        passes = RulePass(rules)
        tests = [rules.tests(Symbol("native", n, None, p, None)) for n, p in zip(names, packages, strict=True)]
        return cls(
            names,
            np.arange(stacks + 1, dtype=np.int64) * FRAMES,
            symbols,
            np.zeros(len(symbols), np.uint8),
            np.full(stacks, tokens.NO_TEXT, np.uint32),
            np.array([digest(FRAME, name) for name in names], np.uint64),
            passes,
            tests,
            np.array([passes.class_of(t) for t in tests], np.uint32),
            np.full(len(symbols), YES << APP_SHIFT, np.uint16),
            np.empty((stacks, 2), np.uint64),
            np.empty((stacks, tokens.SKETCH), np.uint32),
        )

    def __len__(self) -> int:
        return len(self.heads)

    def stack(self, number: int) -> list[int]:
        """Return the symbols of a stack."""
        listed: list[int] = self.symbols[self.offsets[number] : self.offsets[number + 1]].tolist()
        return listed

    def texts(self, count: int) -> list[list[str]]:
        """Return the names of the first stacks."""
        return [[self.names[s] for s in self.stack(n)] for n in range(count)]

    def fingerprints(self) -> NDArray[np.uint64]:
        """Return all fingerprints."""
        return tokens.fingerprints(self.offsets, self.symbols, self.marks, self.digests, self.heads, out=self.found)

    def rule_pass(self) -> NDArray[np.uint16]:
        """Run the default rules over all stacks."""
        states = self.states.copy()
        gates = np.zeros(len(self), np.uint32)
        run_rules(self.passes.program(), self.offsets, self.symbols, self.classes, gates, states)
        return states

    def sketches(self) -> NDArray[np.uint32]:
        """Return all sketches."""
        return tokens.sketches(self.offsets, self.symbols, self.marks, self.digests, out=self.sketched)

    def check(self) -> list[str]:
        """Compare the first stacks with the plain definitions."""
        wrong = []
        found, states = self.fingerprints(), self.rule_pass()
        if len(np.unique(found, axis=0)) != len(np.unique(self.symbols.reshape(-1, FRAMES), axis=0)):
            wrong.append("as many fingerprints as stacks expected")
        halves = [(int(low), int(high)) for low, high in self.digests]
        for number in range(2000):
            stack = self.stack(number)
            kept = [s for i, s in enumerate(stack) if i == 0 or stack[i - 1] != s]
            low, high = found[number].tolist()
            if combine([halves[s] for s in kept]) != (low | high << 64).to_bytes(16, "little").hex():
                wrong.append(f"stack {number}: another fingerprint than by its definition")
            told = self.passes.rules.apply([self.tests[s] for s in reversed(stack)], (1 << FRAMES) - 1)
            off = [states[number * FRAMES + FRAMES - 1 - i] >> GROUP_SHIFT & 3 == NO for i in range(FRAMES)]
            app = [states[number * FRAMES + FRAMES - 1 - i] >> APP_SHIFT & 3 == YES for i in range(FRAMES)]
            if off != [bool(told.off >> i & 1) for i in range(FRAMES)] or app != [
                bool(told.app >> i & 1) for i in range(FRAMES)
            ]:
                wrong.append(f"stack {number}: the rule pass differs from the rules one by one")
        return wrong


# --- The others -------------------------------------------------------------------------------------------------------

_C_LOOP = """
#include <stdint.h>
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDull;
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53ull;
    return x ^ x >> 33;
}
void fingerprints(const int64_t *offsets, const uint32_t *texts, const uint8_t *marks, const uint64_t (*digests)[2],
                  const uint32_t *heads, int64_t stacks, uint8_t mask, uint8_t wanted, int64_t most,
                  const uint64_t (*weights)[2], uint32_t *kept, uint64_t (*out)[2])
{
    for (int64_t s = 0; s < stacks; s++) {
        uint64_t a = 0, b = 0, fields = 0, n = 0;
        uint32_t before = UINT32_MAX;
        if (heads[s] != UINT32_MAX) { a = digests[heads[s]][0]; b = digests[heads[s]][1]; fields = 1; }
        uint64_t last = fields + (uint64_t)most;
        for (int64_t i = offsets[s]; i < offsets[s + 1]; i++) {
            kept[n] = texts[i];
            n += (marks[i] & mask) == wanted;
        }
        for (uint64_t i = 0; i < n; i++) {
            if (kept[i] == before) continue;
            if (fields == last) break;
            before = kept[i];
            a += digests[before][0] * weights[fields][0];
            b += digests[before][1] * weights[fields][1];
            fields++;
        }
        a ^= fields; b ^= fields;
        a += b; b += a; a = mix(a); b = mix(b); a += b; b += a;
        out[s][0] = a; out[s][1] = b;
    }
}
"""


def c_loop(work: Work) -> Callable[[], NDArray[np.uint64]] | None:
    """Return the same in C with the compiler's best for this machine; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch) / "loop.c", Path(scratch) / "loop.so"
        source.write_text(_C_LOOP)
        flags = ["-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True, capture_output=True)
        call = ctypes.CDLL(str(library)).fingerprints
    weights = tokens._weights(FRAMES + 2)  # noqa: SLF001  (the same numbers on both sides)
    kept, out = np.empty(FRAMES + 1, np.uint32), np.empty((len(work), 2), np.uint64)

    def run() -> NDArray[np.uint64]:
        columns = (work.offsets, work.symbols, work.marks, work.digests, work.heads)
        pointers = [ctypes.c_void_p(c.ctypes.data) for c in columns]
        numbers = (ctypes.c_int64(len(work)), ctypes.c_uint8(0), ctypes.c_uint8(0), ctypes.c_int64(1 << 40))
        call(*pointers, *numbers, *(ctypes.c_void_p(c.ctypes.data) for c in (weights, kept, out)))
        return out

    if not np.array_equal(run(), work.fingerprints()):
        raise SystemExit("the C loop's fingerprints differ")
    return run


def hashers(work: Work) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what else can be run: how many stacks each does in a round, and the round.

    Hashes of names begin where ours begins, with a table of names by number: joining them is part of it.
    """
    names = work.names
    stacks = [work.stack(number) for number in range(min(20_000, len(work)))]

    def joined(stack: list[int]) -> bytes:
        return "\n".join([names[symbol] for symbol in stack]).encode()

    found: dict[str, tuple[int, Callable[[], object]]] = {
        "md5": (len(stacks), lambda: [hashlib.md5(joined(stack)).digest() for stack in stacks])  # noqa: S324
    }
    try:
        import xxhash  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        found["xxh3"] = len(stacks), lambda: [xxhash.xxh3_128_digest(joined(stack)) for stack in stacks]
    try:
        from siggen.generator import SignatureGenerator  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        generate = SignatureGenerator().generate
        crashes: list[dict[str, Any]] = [
            {
                "os": "Linux",
                "crashing_thread": 0,
                "threads": [{"frames": [{"frame": i, "function": n, "module": "server"} for i, n in enumerate(names)]}],
            }
            for names in work.texts(60)
        ]
        if not all(generate(crash).signature for crash in crashes):
            raise SystemExit("siggen gives no signature")
        found["siggen"] = 60, lambda: [generate(crash) for crash in crashes]
    try:
        from datasketch import MinHash  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        named = [[n.encode() for n in names] for names in work.texts(300)]

        def update() -> None:
            for texts in named:
                MinHash(num_perm=tokens.SKETCH).update_batch(texts)

        found["datasketch"] = 300, update
        if hasattr(MinHash, "bulk"):
            found["bulk"] = 300, lambda: MinHash.bulk(named, num_perm=tokens.SKETCH)
    return found


def measure(work: Work) -> Result:
    """Time all in turns; each cost is a stack's."""
    others = hashers(work)
    loop = c_loop(work)
    competitors: dict[str, Callable[[], object]] = {
        "fingerprint": work.fingerprints,
        "sketch": work.sketches,
        "rules": work.rule_pass,
        **({"c": loop} if loop else {}),
        **{name: run for name, (_, run) in others.items()},
    }
    amounts = {name: others[name][0] if name in others else len(work) for name in competitors}
    costs: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(ROUNDS):
        for name, run in competitors.items():
            best = float("inf")
            for _ in range(3):
                start = time.process_time()
                run()
                best = min(best, time.process_time() - start)
            costs[name].append(best / amounts[name])
    nanoseconds = {name: min(values) * 1e9 for name, values in costs.items()}
    wanted = {
        "md5": ("md5 of the names, joined", 40),
        "xxh3": ("XXH3-128 of the names, joined", 25),
        "siggen": ("siggen", 5000),
    }
    answers = [
        _result.answer(
            f"fingerprint beside {what}", costs["fingerprint"], costs[name], wanted=least, headline=name == "xxh3"
        )
        for name, (what, least) in wanted.items()
        if name in costs
    ]
    if loop:
        answers.append(
            _result.answer(
                "fingerprint beside the same loop in C",
                costs["fingerprint"],
                costs["c"],
                unit="of its rate",
                wanted=0.7,
            )
        )
    if "datasketch" in costs:
        what = "MinHash of 64 beside datasketch's"
        answers.append(_result.answer(f"{what} update_batch", costs["sketch"], costs["datasketch"], wanted=400))
        if "bulk" in costs:
            answers.append(_result.answer(f"{what} bulk, many stacks in one call", costs["sketch"], costs["bulk"]))
    answers.append(
        _result.answer(
            "rule pass, all default rules, beside the fingerprint",
            costs["rules"], costs["fingerprint"], unit="times its time", wanted=5, at_most=True,
        )
    )  # fmt: skip
    return Result(
        name="fingerprint",
        question=f"What does it cost to fingerprint, to sketch and to judge a stack of {FRAMES} frames?",
        checked="The first 2,000 stacks by the definitions in plain Python, all by the loop in C.",
        answers=answers,
        notes=[f"{name}: {value:.0f} ns a stack" for name, value in nanoseconds.items()],
    )


# --- Collisions -------------------------------------------------------------------------------------------------------


def collisions(count: int) -> int:
    """Return how many of so many distinct stacks share a fingerprint with another.

    Stack n has the digits of n in a base of 97 symbols, at the depth n asks for, and a common tail: neighbours differ
    in one frame, which is what bugs of one program look like.
    """
    base = 97
    digests = np.array([digest(FRAME, f"function_{i}") for i in range(base + 30)], np.uint64)
    found = np.empty((count, 2), np.uint64)
    step = 500_000
    for first in range(0, count, step):
        numbers = np.arange(first, min(first + step, count))
        table = np.empty((len(numbers), 12), np.uint32)
        left = numbers.copy()
        for column in range(6):
            table[:, column * 2] = left % base
            table[:, column * 2 + 1] = base + column
            left //= base
        offsets = np.arange(len(numbers) + 1, dtype=np.int64) * 12
        heads = np.full(len(numbers), tokens.NO_TEXT, np.uint32)
        marks = np.zeros(table.size, np.uint8)
        found[first : first + len(numbers)] = tokens.fingerprints(offsets, table.reshape(-1), marks, digests, heads)
    lows = found[:, 0]
    order = np.argsort(lows)
    same = np.flatnonzero(lows[order[1:]] == lows[order[:-1]])
    return int((found[order[same], 1] == found[order[same + 1], 1]).sum())


if __name__ == "__main__":
    sys.exit(main())
