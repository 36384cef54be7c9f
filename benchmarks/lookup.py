"""Address look-up: one call over a batch against symbolic's SymCache.lookup in a loop, on the same debug file.

The answers are compared first, over every range edge and random addresses, inlined frames included. Then both are
timed in turns, so that what else the machine does falls on both alike.

    python benchmarks/lookup.py [DEBUG_FILE] [--addresses N] [--loop N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import symbolic

from deadreckon.config import Config
from deadreckon.kernels.ranges import look_up
from deadreckon.symbolicate.native import ModuleSymbols
from deadreckon.symbols.store import SymbolStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.tables import SymTable

DEFAULT = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/static-O2/crashy.debug"
ROUNDS = 7


def main() -> int:
    """Check, then time; print one JSON object. Exit 1 if an answer differs."""
    parser = argparse.ArgumentParser(description="Batch address look-up against SymCache.lookup in a loop.")
    parser.add_argument("debug_file", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--addresses", type=int, default=2_000_000, help="how many the batch looks up")
    parser.add_argument("--loop", type=int, default=20_000, help="how many of them the loop looks up, each round")
    options = parser.parse_args()
    cache = _symcache(options.debug_file)
    with tempfile.TemporaryDirectory() as scratch:
        store = SymbolStore(Config(store=scratch))
        try:
            opened = store.open(store.tables_of(str(options.debug_file))[0]["table"])
            assert opened is not None
            table = opened.sym
        finally:
            store.close()
        rng = np.random.default_rng(2)
        addresses = rng.integers(0, _end(table), options.addresses).astype(np.uint64)
        different = _differences(table, cache, addresses[: options.loop])
        if different:
            print("\n".join(different[:20]), file=sys.stderr)
            return 1
        print(json.dumps(_time(table, cache, addresses, options.loop) | {"file": options.debug_file.name}, indent=2))
    return 0


def _end(table: SymTable) -> int:
    return int(table.text.max()) if len(table.text) else int(table.range_start[-1]) + 64


def _symcache(path: Path) -> Any:
    (found,) = list(symbolic.Archive.open(str(path)).iter_objects())
    return found.make_symcache()


def _differences(table: SymTable, cache: Any, addresses: NDArray[np.uint64]) -> list[str]:
    edges = table.range_start[:: max(1, len(table.range_start) // 20_000)].astype(np.uint64)
    tried = np.unique(np.concatenate([addresses, edges, edges - (edges > 0)]))
    if len(table.text):  # Code only: ours knows data by name as well, a SymCache takes it for the function before it.
        tried = tried[[_section(table, address) >= 0 for address in tried.tolist()]]
    first, locations = look_up(table, tried)
    symbols = ModuleSymbols(table, "found")
    wrong = []
    beyond = 0
    for at, address in enumerate(tried.tolist()):
        found = [symbols.location(i) for i in locations[first[at] : first[at + 1]].tolist()]
        ours = [(f.raw_function or "?", f.lineno or 0, (f.abs_path or "").rsplit("/", 1)[-1]) for f in found]
        theirs = [(l.symbol or "?", l.line, (l.full_path or "").rsplit("/", 1)[-1]) for l in cache.lookup(address)]
        if not ours and _beyond_section(table, cache, address):
            beyond += 1
        elif ours != theirs:
            wrong.append(f"{address:#x}: {ours} != {theirs}")
    print(f"{len(tried)} addresses compared, {len(wrong)} differ, {beyond} beyond their section", file=sys.stderr)
    return wrong


def _beyond_section(table: SymTable, cache: Any, address: int) -> bool:
    """Tell whether an address lies in another section than the symbol a SymCache finds for it.

    A SymCache lets a section's last symbol go on to the next symbol, through the PLT for instance, which then bears the
    name _init; ours ends it with its section, as the linker did.
    """
    (found, *_) = cache.lookup(address) or (None,)
    if found is None or not len(table.text):
        return False
    return bool(_section(table, address) != _section(table, found.sym_addr))


def _section(table: SymTable, address: int) -> int:
    inside = (table.text[:, 0] <= address) & (address < table.text[:, 1])
    return int(np.argmax(inside)) if inside.any() else -1


def _time(table: SymTable, cache: Any, addresses: NDArray[np.uint64], loop: int) -> dict[str, Any]:
    few = addresses[:loop].tolist()
    batch_rates, loop_rates = [], []
    look_up(table, addresses)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        look_up(table, addresses)
        batch_rates.append(len(addresses) / (time.perf_counter() - start))
        start = time.perf_counter()
        for address in few:
            cache.lookup(address)
        loop_rates.append(loop / (time.perf_counter() - start))
    ratios = sorted(b / l for b, l in zip(batch_rates, loop_rates, strict=True))
    return {
        "question": "addresses a second, one batch call against SymCache.lookup in a loop",
        "ranges": len(table.range_start),
        "addresses": len(addresses),
        "batch_per_s": round(statistics.median(batch_rates)),
        "loop_per_s": round(statistics.median(loop_rates)),
        "ratio": {
            "min": round(ratios[0], 1),
            "median": round(ratios[len(ratios) // 2], 1),
            "max": round(ratios[-1], 1),
        },
        "machine": {"python": platform.python_version(), "cpu": platform.machine(), "cores": os.cpu_count()},
    }


if __name__ == "__main__":
    sys.exit(main())
