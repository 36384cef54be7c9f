"""Each function of symbols/adjust.py against an oracle that answers address by address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded
from deadreckon.kernels.ranges import look_up
from deadreckon.model.tables import NONE, SymTable
from deadreckon.symbols import adjust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

END = 64
"""Addresses looked at; what tables hold lies below."""

Answer = list[tuple[str, int, str]]
"""Function, line and file of each frame, innermost first."""


def answers(table: SymTable, end: int = END) -> list[Answer]:
    """Return what a table says of each address."""
    first, found = look_up(table, np.arange(end, dtype=np.uint64))
    ends, rows = first.tolist(), found.tolist()
    return [[_frame(table, row) for row in rows[ends[i] : ends[i + 1]]] for i in range(end)]


def _frame(table: SymTable, row: int) -> tuple[str, int, str]:
    file, line, function, _ = table.locations[row].tolist()
    name = table.string(int(table.functions[function, 0])) if function < len(table.functions) else ""
    return name, line, table.string(int(table.files[file, 2])) if file < len(table.files) else ""


def make(rows: Sequence[tuple[int, str, int]], names: Sequence[str] = ()) -> SymTable:
    """Return a table of (start, function or "", line); a line below 0 is an inlined one, called from line 7."""
    table = SymTable.empty()
    texts = sorted({name for _, name, _ in rows if name} | set(names) | {"a.c"})
    refs = dict(zip(texts, np.cumsum([0, *(len(t) + 1 for t in texts)]).tolist(), strict=False))
    table.strings = np.frombuffer(b"".join(bytes([len(t)]) + t.encode() for t in texts), np.uint8)
    table.files = np.array([[NONE, NONE, refs["a.c"]]], np.uint32)
    functions: list[tuple[int, int, int]] = []
    locations: list[tuple[int, int, int, int]] = []
    starts, locs = [], []
    for start, name, line in sorted({r[0]: r for r in rows}.values()):
        starts.append(start)
        if not name:
            locs.append(NONE)
            continue
        functions.append((refs[name], start, 2))
        if line < 0:
            locations.append((0, 7, len(functions) - 1, NONE))
            functions.append((refs[name], NONE, 2))
            locations.append((0, -line, len(functions) - 1, len(locations) - 1))
        else:
            locations.append((0 if line else NONE, line, len(functions) - 1, NONE))
        locs.append(len(locations) - 1)
    table.range_start, table.range_loc = np.array(starts, np.uint32), np.array(locs, np.uint32)
    table.locations = np.array(locations, np.uint32).reshape(-1, 4)
    table.functions = np.array(functions, np.uint32).reshape(-1, 3)
    table.entries = np.unique(table.functions[table.functions[:, 1] != NONE, 1])
    return table


tables = st.lists(
    st.tuples(st.integers(0, END - 1), st.sampled_from(["", "f", "g", "h"]), st.integers(-3, 3)), max_size=10
).map(make)
spans = st.lists(st.tuples(st.integers(0, END), st.integers(1, 20)), max_size=5).map(
    lambda rows: _apart([(start, start + size) for start, size in sorted(rows)])
)


def _apart(rows: list[tuple[int, int]]) -> NDArray[np.uint32]:
    kept: list[tuple[int, int]] = []
    for start, end in rows:
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return np.array(kept, np.uint32).reshape(-1, 2)


def range_start(table: SymTable, address: int) -> int:
    return max((s for s in table.range_start.tolist() if s <= address), default=-1)


def within(limits: NDArray[np.uint32], address: int) -> tuple[int, int] | None:
    return next(((s, e) for s, e in limits.tolist() if s <= address < e), None)


@given(tables, tables)
def test_combined(first: SymTable, second: SymTable) -> None:
    expected = [a or b for a, b in zip(answers(first), answers(second), strict=True)]
    found = adjust.combined(first, second)
    assert answers(found) == expected
    assert set(found.entries.tolist()) == set(first.entries.tolist()) | set(second.entries.tolist())


@given(tables, spans)
def test_clipped(table: SymTable, text: NDArray[np.uint32]) -> None:
    expected = [
        answer if not len(text) or ((here := within(text, a)) and here[0] <= range_start(table, a)) else []
        for a, answer in enumerate(answers(table))
    ]
    assert answers(adjust.clipped(table, text)) == expected


@given(tables, spans)
def test_cut(table: SymTable, extents: NDArray[np.uint32]) -> None:
    def reaches(address: int, answer: Answer) -> bool:
        if not answer or answer[0][1]:
            return True
        start = range_start(table, address)
        function = within(extents, start)
        return address == start or (function is not None and address < function[1])

    expected = [answer if reaches(a, answer) else [] for a, answer in enumerate(answers(table))]
    assert answers(adjust.cut(table, extents)) == expected


@given(
    tables,
    st.lists(st.tuples(st.integers(0, END), st.one_of(st.just(0), st.just(1 << 31), st.integers(1, END))), max_size=8),
)
def test_moved(table: SymTable, pairs: list[tuple[int, int]]) -> None:
    omap = np.array(sorted(dict(pairs).items()), np.uint32).reshape(-1, 2)

    def origin(address: int) -> int | None:
        piece = max((i for i, (new, _) in enumerate(omap.tolist()) if new <= address), default=-1)
        if piece < 0:
            return None
        new, old = omap[piece].tolist()
        if piece == len(omap) - 1 and address > new:
            return None
        return old + address - new if 0 < old < 1 << 31 else None

    before = answers(table, 3 * END)
    found = adjust.moved(table, omap)
    if not len(omap):
        assert found is table
        return
    after = answers(found)
    last = int(omap[-1, 0])
    for address in range(min(END, last + 1)):
        old = origin(address)
        assert after[address] == ([] if old is None else before[old]), address
    entries = {o: n for n in range(END) if (o := origin(n)) is not None}
    for (name, was, _), (_, now, _) in zip(table.functions.tolist(), found.functions.tolist(), strict=True):
        assert name >= 0
        assert now == NONE or origin(now) == was or was not in entries


def test_moved_pieces_that_repeat_too_often() -> None:
    table = make([(a, "f", 1) for a in range(END)])
    omap = np.array([[i * 64, 1] for i in range(5000)], np.uint32)
    assert len(adjust.moved(table, omap[:60]).range_start) > 60
    with pytest.raises(LimitExceeded, match="address map"):
        adjust.moved(
            make([(a, "f", 1) for a in range(4000)]), np.array([[i * 4000, 1] for i in range(5000)], np.uint32)
        )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.text(min_size=1, max_size=200)), max_size=6))
def test_from_symbols(rows: list[tuple[int, int, str]]) -> None:
    symbols: list[tuple[int, int, str]] = []
    for start, size, name in sorted(rows):
        if not symbols or start >= symbols[-1][1]:
            symbols.append((start, start + size, name))
    found = answers(adjust.from_symbols(symbols))
    expected: list[Answer] = [[] for _ in range(END)]
    for start, end, name in symbols:
        expected[start:end] = [[(name.encode("utf-8", "replace").decode(), 0, "")]] * (end - start)
    assert found == expected


def test_renamed() -> None:
    table = make([(0, "__hidden#0_", 1), (4, "plain", 2), (8, "__hidden#1_", -3), (12, "__hidden#9_", 0)])
    names = {"__hidden#0_": "first", "__hidden#1_": "x" * 300}
    found = answers(adjust.renamed(table, b"__hidden#", names.get))
    assert [found[a] for a in (0, 4, 8, 12)] == [
        [("first", 1, "a.c")],
        [("plain", 2, "a.c")],
        [("x" * 300, 3, "a.c"), ("x" * 300, 7, "a.c")],
        [("__hidden#9_", 0, "")],
    ]
    assert adjust.renamed(make([(0, "f", 1)]), b"__hidden#", names.get).strings.tobytes() == b"\3a.c\1f"


def test_files_are_renamed_too() -> None:
    table = make([(0, "f", 1)])
    found = adjust.renamed(table, b"a.", lambda name: name.upper())
    assert answers(found)[0] == [("f", 1, "A.C")]


@pytest.mark.parametrize("name", ["<name omitted>", "<unknown>", "<unknown in x.pdb>", "<.plt ELF section in x>"])
def test_placeholders_are_no_names(name: str) -> None:
    found = answers(adjust.without_placeholders(make([(0, name, 0), (4, name, 3), (8, "f", 0), (12, name, -3)])))
    assert [found[a] for a in (0, 4, 8, 12)] == [
        [], [("", 3, "a.c")], [("f", 0, "")], [("", 3, "a.c"), ("", 7, "a.c")],
    ]  # fmt: skip


def test_names_in_angle_brackets_that_are_names() -> None:
    table = make([(0, "<lambda_1>::operator()", 0), (4, "<unknown soldier>", 0)])
    assert answers(adjust.without_placeholders(table)) == answers(table)


def test_base_ranges() -> None:
    table = make([(0, "f", 1), (4, "_start", 0), (8, "", 0), (12, "clone", 3), (16, "f", 1)])
    assert adjust.base_ranges(table).tolist() == [[4, 8], [12, 16]]


def test_lines() -> None:
    assert not adjust.has_lines(make([(0, "f", 0)]))
    assert not adjust.has_lines(SymTable.empty())
    assert adjust.has_lines(make([(0, "f", 0), (1, "f", 1)]))
