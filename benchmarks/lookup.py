"""Address look-up: one call over a batch against symbolic's SymCache.lookup in a loop, on the same debug file.

The answers are compared first, over every range edge and random addresses, inlined frames included. Then all are
timed in turns, so that what else the machine does falls on all alike. Where they are installed, a C loop over the same
columns (cc) and llvm-symbolizer fed by a pipe take part.

    python -m benchmarks.lookup [DEBUG_FILE] [--addresses N] [--loop N] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
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
from benchmarks import _result
from benchmarks._result import Result

from deadreckon.config import Config
from deadreckon.kernels.ranges import look_up
from deadreckon.symbolicate.native import ModuleSymbols
from deadreckon.symbols.store import SymbolStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from deadreckon.model.tables import SymTable

DEFAULT = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/static-O2/crashy.debug"
ROUNDS = 7


def main() -> int:
    """Check, then time; write the result. Exit 1 if an answer differs."""
    parser = argparse.ArgumentParser(description="Batch address look-up against SymCache.lookup in a loop.")
    parser.add_argument("debug_file", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--addresses", type=int, default=2_000_000, help="how many the batch looks up")
    parser.add_argument("--loop", type=int, default=20_000, help="how many of them the loop looks up, each round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cache = _symcache(options.debug_file)
    with tempfile.TemporaryDirectory() as scratch:
        table = _table(options.debug_file, scratch)
        addresses = _addresses(table, options.addresses)
        compared, different, beyond = _differences(table, cache, addresses[: options.loop])
        print(f"{compared} addresses compared, {len(different)} differ, {beyond} beyond their section", file=sys.stderr)
        if different:
            print("\n".join(different[:20]), file=sys.stderr)
            return 1
        _result.write(options.json, _time(options.debug_file, table, cache, addresses, options.loop))
    return 0


def compare(path: Path, store: str, count: int = 2_000) -> tuple[int, int, int]:
    """Look addresses of a debug file up; return how many, how many answers differ, and how many ended sections.

    Of the last, ours is none, and symbolic's the name of a function in another section.
    """
    table = _table(path, store)
    compared, different, beyond = _differences(table, _symcache(path), _addresses(table, count))
    return compared, len(different), beyond


def _table(path: Path, scratch: str) -> SymTable:
    store = SymbolStore(Config(store=scratch))
    try:
        opened = store.open(store.tables_of(str(path))[0]["table"])
        assert opened is not None
        return opened.sym
    finally:
        store.close()


def _addresses(table: SymTable, count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(2).integers(0, _end(table), count).astype(np.uint64)


def _end(table: SymTable) -> int:
    return int(table.text.max()) if len(table.text) else int(table.range_start[-1]) + 64


def _symcache(path: Path) -> Any:
    (found,) = list(symbolic.Archive.open(str(path)).iter_objects())
    return found.make_symcache()


def _differences(table: SymTable, cache: Any, addresses: NDArray[np.uint64]) -> tuple[int, list[str], int]:
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
    return len(tried), wrong, beyond


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


_C_LOOP = """
#include <stdint.h>
int64_t look_up(const uint32_t *start, const uint32_t *loc, int64_t count, const uint32_t *locations, int64_t rows,
                const uint64_t *rvas, int64_t n, int64_t *first, uint32_t *found)
{
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++) {
        first[i] = out;
        if (rvas[i] > UINT32_MAX || !count) continue;
        uint32_t key = rvas[i];
        int64_t low = 0, length = count;
        while (length > 1) {
            int64_t half = length / 2;
            low += start[low + half] <= key ? half : 0;
            length -= half;
        }
        if (start[low] > key) continue;
        for (uint32_t at = loc[low]; at < rows; at = locations[4 * (int64_t)at + 3]) found[out++] = at;
    }
    first[n] = out;
    return out;
}
"""


def _c_loop(table: SymTable, addresses: NDArray[np.uint64]) -> Callable[[], float] | None:
    """Return a function that runs the same search in C and gives its seconds; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch) / "loop.c", Path(scratch) / "loop.so"
        source.write_text(_C_LOOP)
        subprocess.run([compiler, "-O3", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        function = ctypes.CDLL(str(library)).look_up
    function.restype = ctypes.c_int64
    expected_first, expected = look_up(table, addresses)
    made: dict[str, NDArray[Any]] = {}

    def pointer(array: NDArray[Any]) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def run() -> float:
        start = time.perf_counter()
        first, found = np.empty(len(addresses) + 1, np.int64), np.empty(2 * len(addresses) + 16, np.uint32)
        function(
            pointer(table.range_start), pointer(table.range_loc), ctypes.c_int64(len(table.range_start)),
            pointer(table.locations), ctypes.c_int64(len(table.locations)), pointer(addresses),
            ctypes.c_int64(len(addresses)), pointer(first), pointer(found),
        )  # fmt: skip
        made.update(first=first, found=found)
        return time.perf_counter() - start

    run()
    assert np.array_equal(made["first"], expected_first)
    assert np.array_equal(made["found"][: len(expected)], expected)
    return run


def _llvm_symbolizer(path: Path, addresses: NDArray[np.uint64]) -> Callable[[], float] | None:
    """Return a function that pipes addresses through llvm-symbolizer and gives its seconds, loading left out."""
    program = shutil.which("llvm-symbolizer")
    if program is None or path.read_bytes()[:4] != b"\x7fELF":
        return None
    lines = "".join(f"{address:#x}\n" for address in addresses.tolist()).encode()

    def seconds(text: bytes) -> float:
        start = time.perf_counter()
        subprocess.run([program, f"--obj={path}"], input=text, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    return lambda: seconds(lines) - seconds(lines[: lines.index(b"\n") + 1])


def _time(path: Path, table: SymTable, cache: Any, addresses: NDArray[np.uint64], loop: int) -> Result:
    few = addresses[:loop].tolist()

    def batch() -> float:
        start = time.perf_counter()
        look_up(table, addresses)
        return time.perf_counter() - start

    def one_by_one() -> float:
        start = time.perf_counter()
        for address in few:
            cache.lookup(address)
        return time.perf_counter() - start

    runs: dict[str, tuple[int, Callable[[], float] | None]] = {
        "deadreckon": (len(addresses), batch),
        "symbolic": (loop, one_by_one),
        "c_loop": (len(addresses), _c_loop(table, addresses)),
        "llvm_symbolizer": (loop, _llvm_symbolizer(path, addresses[:loop])),
        "copy": (len(addresses), _copy(table, addresses)),
    }
    rates: dict[str, list[float]] = {name: [] for name, (_, run) in runs.items() if run is not None}
    for _ in range(ROUNDS):
        for name, (count, run) in runs.items():
            if run is not None:
                rates[name].append(count / run())
    seconds = {name: [1 / rate for rate in found] for name, found in rates.items()}
    ours = seconds["deadreckon"]
    told = {
        "symbolic": ("addresses looked up in a batch, beside `SymCache.lookup` in a loop", 50.0),
        "c_loop": ("addresses looked up in a batch, beside a loop in C over the same columns", 0.7),
        "llvm_symbolizer": ("the same beside `llvm-symbolizer` by pipe, its loading subtracted", None),
        "copy": ("the same beside copying as many bytes as it reads and writes, the memory's own speed", None),
    }
    answers = [
        _result.answer(told[name][0], ours, theirs, wanted=told[name][1], headline=name in {"symbolic", "c_loop"})
        for name, theirs in seconds.items()
        if name != "deadreckon"
    ]
    rate = statistics.median(rates["deadreckon"])
    note = f"{path.name}: {len(table.range_start):,} ranges, {len(addresses):,} addresses, {rate:,.0f} a second."
    checked = "every answer with its inlined calls against `SymCache.lookup`, at random addresses and at every edge"
    question = "How fast are addresses looked up?"
    return Result("lookup", question, checked, answers, notes=[note])


def _copy(table: SymTable, addresses: NDArray[np.uint64]) -> Callable[[], float]:
    """Return a function that copies what a batch reads and writes and gives its seconds: nothing can be faster."""
    first, found = look_up(table, addresses)
    sources: tuple[NDArray[Any], ...] = (addresses, first, found)
    targets = [np.empty_like(column) for column in sources]

    def run() -> float:
        start = time.perf_counter()
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    sys.exit(main())
