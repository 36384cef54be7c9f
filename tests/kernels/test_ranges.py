from __future__ import annotations

import posixpath
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import symbolic

from deadreckon.kernels.ranges import MAX_INLINE_DEPTH, look_up
from deadreckon.model.tables import NONE, SymTable
from deadreckon.objects import symcache
from deadreckon.symbolicate.native import ModuleSymbols
from oracle.lookup import locations

if TYPE_CHECKING:
    from pathlib import Path

DEBUG_FILES = [
    "pie-O2/crashy.debug",
    "pie-O0/crashy.debug",
    "pie-O2/libcargo.so.debug",
    "pie-O2/breakpad/crashy/*/crashy.sym",
    "plain-O1/plain",
    "static-O2/crashy.debug",
]


def found_at(table: SymTable, rvas: list[int]) -> list[list[int]]:
    first, found = look_up(table, np.array(rvas, np.uint64))
    assert first[0] == 0
    assert first[-1] == len(found)
    return [found[a:b].tolist() for a, b in zip(first[:-1].tolist(), first[1:].tolist(), strict=True)]


def compare(path: Path) -> tuple[int, int]:
    """Compare with symbolic at every range's edges and elsewhere; returns addresses with a location, and inlines."""
    (obj,) = symbolic.Archive.open(str(path)).iter_objects()
    cache = obj.make_symcache()
    with cache.open_stream() as stream:
        table = symcache.read(stream.read())
    rng = random.Random(1)
    starts = table.range_start.tolist()
    rvas = sorted({max(0, a + d) for a in starts for d in (-1, 0, 1)})
    rvas += [rng.randrange(starts[-1] + 4096) for _ in range(2000)] + [0xFFFF_FFFF]
    text = ModuleSymbols(table, "found").location
    named = inlined = 0
    for rva, chain in zip(rvas, found_at(table, rvas), strict=True):
        ours = [text(i) for i in chain]
        theirs = cache.lookup(rva)
        assert [(f.raw_function, f.lineno or 0) for f in ours] == [(t.symbol or None, t.line) for t in theirs], hex(rva)
        assert [f.abs_path for f in ours] == [normal(t.full_path) for t in theirs], hex(rva)
        assert [f.lang or "unknown" for f in ours] == [t.lang for t in theirs], hex(rva)
        # An inlined function has no address of its own; symbolic gives the number that stands for none.
        assert [NONE if f.entry is None else f.entry for f in ours] == [t.sym_addr for t in theirs], hex(rva)
        named += bool(ours)
        inlined += len(ours) > 1
    return named, inlined


def normal(path: str | None) -> str | None:
    return posixpath.normpath(path) if path else None


@pytest.mark.parametrize("name", DEBUG_FILES)
def test_debug_files(fixtures: Path, name: str) -> None:
    (path,) = (fixtures / "linux/x86_64").glob(name)
    named, inlined = compare(path)
    assert named > 50
    if name in {"pie-O2/crashy.debug", "static-O2/crashy.debug"}:
        assert inlined > 20


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    ["symbolic/fixtures/windows/crash.pdb", "symbolic/fixtures/macos/crash.dSYM/Contents/Resources/DWARF/crash"],
)
def test_other_formats(corpus: Path, name: str) -> None:
    path = corpus / "native" / name
    if not path.exists():
        pytest.skip(f"no {name}")
    assert compare(path)[0] > 50


def made(ranges: list[tuple[int, int]], rows: list[tuple[int, int, int, int]]) -> SymTable:
    table = SymTable.empty()
    start, location = zip(*ranges, strict=True)
    return replace(
        table,
        range_start=np.array(start, np.uint32),
        range_loc=np.array(location, np.uint32),
        locations=np.array(rows, np.uint32).reshape(-1, 4),
    )


def test_empty_table_and_no_addresses() -> None:
    assert found_at(SymTable.empty(), [0, 5, 1 << 63]) == [[], [], []]
    assert found_at(made([(0, 0)], [(0, 1, 0, NONE)]), []) == []


def test_edges() -> None:
    table = made([(0x10, 0), (0x20, NONE), (0xFFFF_FFFF, 1)], [(0, 1, 0, NONE), (0, 2, 0, 0)])
    rvas = [0, 0xF, 0x10, 0x1F, 0x20, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x1_0000_0000, 0x1_0000_0010, (1 << 64) - 1]
    assert found_at(table, rvas) == [[], [], [0], [0], [], [], [1, 0], [], [], []]


def test_circle_of_inlined_calls_ends() -> None:
    table = made([(0, 0)], [(0, 1, 0, 1), (0, 1, 0, 0)])
    assert found_at(table, [0]) == [[0, 1] * (MAX_INLINE_DEPTH // 2)]


def test_hostile_tables() -> None:
    """References anywhere: the kernel agrees with the oracle and leaves nothing else in memory touched."""
    for seed in range(200):
        rng = random.Random(seed)
        starts = sorted(rng.choices(range(100), k=rng.randint(1, 40)))
        count = rng.randint(0, 12)

        def ref(rng: random.Random = rng, count: int = count) -> int:
            return rng.choice((NONE, 0, count, 1 << 31, rng.randrange(count + 2), rng.randrange(count + 1)))

        rows = [(ref(), ref(), ref(), ref()) for _ in range(count)]
        table = made([(s, ref()) for s in starts], rows)
        rvas = [rng.randrange(120) for _ in range(50)]
        assert found_at(table, rvas) == [locations(table, rva, MAX_INLINE_DEPTH) for rva in rvas], seed
        text = ModuleSymbols(table, "found").location
        for i in range(count):
            text(i)


def test_views_of_a_read_only_file() -> None:
    table = made([(0x10, 0), (0x20, NONE)], [(0, 1, 0, NONE)])
    columns: dict[str, Any] = {n: getattr(table, n).copy() for n in ("range_start", "range_loc", "locations")}
    for column in columns.values():
        column.setflags(write=False)
    assert found_at(replace(table, **columns), [0x11, 0x21]) == [[0], []]


def test_large_batches_search_within_cells_to_the_same_answer() -> None:
    """Ranges bunched, spread and at both ends of 32 bits; a batch as large as its table gets a grid, others none."""
    for seed in range(60):
        rng = random.Random(seed)
        width = rng.choice((1 << 8, 1 << 14, 1 << 31, 1 << 32))
        base = rng.choice((0, 1, (1 << 32) - width))
        starts = sorted({base + rng.randrange(width) for _ in range(rng.randint(1, 300))})
        table = made([(s, i) for i, s in enumerate(starts)], [(0, 1, 0, NONE)] * len(starts))
        rvas = [min((1 << 32) - 1, max(0, s + d)) for s in starts for d in (-1, 0, 1)] + [0, (1 << 32) - 1, 1 << 32]
        whole = found_at(table, rvas)
        assert whole == [locations(table, rva, MAX_INLINE_DEPTH) for rva in rvas], seed
        assert whole == [
            found_at(table, [rva])[0] if len(starts) > 1 else chain for rva, chain in zip(rvas, whole, strict=True)
        ]
