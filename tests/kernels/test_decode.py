"""The mappings' kernel against a plain reading of the specification."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.kernels import decode
from oracle import sourcemap as oracle
from synth.sourcemap import DIGITS, mappings, signed, unsigned

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = {
    decode.EMPTY_SEGMENT: "empty",
    decode.NEGATIVE_COLUMN: "column",
    decode.POSITION_OUT_OF_RANGE: "place",
    decode.NAME_OUT_OF_RANGE: "name",
}
GRAMMAR = (decode.BAD_CHARACTER, decode.UNFINISHED, decode.BAD_FIELDS)


def decoded(texts: list[str], rows: Sequence[tuple[int, ...]], keep: int = 1000) -> decode.Mappings:
    """Decode texts that lie one after the other; a row is line, column, source base, sources, name base, names."""
    data, sections = "", []
    for text, row in zip(texts, rows, strict=True):
        sections.append([len(data), len(data) + len(text), *row])
        data += text + '"'
    raw = np.frombuffer(data.encode("latin-1"), np.uint8)
    array = np.array(sections, np.int64).reshape(-1, 8)
    return decode.decode_mappings(raw, array, decode.count_segments(raw, array), keep_errors=keep)


def segments(found: decode.Mappings) -> list[tuple[int, ...]]:
    lines = np.repeat(found.lines, np.diff(found.first)).tolist()
    return [(a, b, *c) for a, b, c in zip(lines, found.column.tolist(), found.place.tolist(), strict=True)]


def agrees(text: str, sources: int, names: int, line: int = 0, column: int = 0) -> None:
    found = decoded([text], [(line, column, 0, sources, 0, names)])
    status = int(found.ends[0, 0])
    try:
        expected = oracle.decode(text, sources, names, line, column)
    except oracle.TooLarge:
        assert status
        assert not len(found.column)
        return
    assert (status in GRAMMAR) == ("grammar" in expected.errors)
    if status:
        assert not len(found.column)
    else:
        assert [KINDS[kind] for kind in found.errors[:, 0].tolist()] == expected.errors
        assert found.failed == len(expected.errors)
    assert segments(found.ordered()) == expected.segments


SMALL = st.integers(-3, 40)
ANY = st.one_of(SMALL, st.integers(-(1 << 31), (1 << 31) - 1))
FIELDS = st.one_of(st.lists(ANY, min_size=1, max_size=1), st.lists(ANY, min_size=4, max_size=5))
TEXT = st.lists(
    st.lists(FIELDS.map(lambda fields: "".join(map(signed, fields))), max_size=5).map(",".join), max_size=6
).map(";".join)


@given(TEXT, st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_grammatical_texts(text: str, sources: int, names: int, line: int, column: int) -> None:
    agrees(text, sources, names, line, column)


@given(st.text(alphabet=DIGITS[:8] + "gA+/,;,;=\\", max_size=40), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=600, deadline=None)
def test_any_texts(text: str, sources: int, names: int) -> None:
    agrees(text, sources, names)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 2), SMALL, SMALL), max_size=20))
@settings(max_examples=200, deadline=None)
def test_unsorted_lines_are_sorted_stably(rows: list[tuple[int, ...]]) -> None:
    rows = sorted((line, column, source, abs(a), abs(b)) for line, column, source, a, b in rows)
    random.Random(len(rows)).shuffle(rows)
    rows.sort(key=lambda row: row[0])
    expected = sorted(((*row, -1) for row in rows), key=lambda row: row[:2])
    found = decoded([mappings(rows)], [(0, 0, 0, 3, 0, 0)])
    assert found.unordered == (rows != sorted(rows, key=lambda row: row[:2]))
    assert segments(found.ordered()) == expected


def test_sections_share_columns() -> None:
    texts = [mappings([(0, 2, 0, 1, 1), (1, 0, 1, 5, 5, 0)]), "!", mappings([(0, 3, 0, 0, 0, 1)])]
    rows = [(10, 4, 0, 2, 0, 1), (10, 0, 2, 1, 1, 0), (11, 7, 3, 1, 1, 2)]
    found = decoded(texts, rows)
    assert found.ends[:, 0].tolist() == [0, decode.BAD_CHARACTER, 0]
    assert found.unordered  # Two sections on line 11: their rows are made one.
    ordered = found.ordered()
    assert segments(ordered) == [(10, 6, 0, 1, 1, -1), (11, 0, 1, 5, 5, 0), (11, 10, 3, 0, 0, 2)]
    assert ordered.lines.tolist() == [10, 11]


@pytest.mark.parametrize(("line", "column"), [(-1, 0), (0, -3), (0, 1 << 40), (1 << 32, 0), (-(1 << 60), 0)])
def test_sections_far_away(line: int, column: int) -> None:
    found = decoded(["AAAA,CAAC"], [(line, column, 0, 1, 0, 0)])
    assert len(found.column) == 0
    assert found.errors[:, 0].tolist() == [decode.NEGATIVE_COLUMN] * 2


def test_what_ended_a_text() -> None:
    for text, status, offset in (
        ("AAAA;A!AA", decode.BAD_CHARACTER, 6),
        ("AAAA,g", decode.UNFINISHED, 6),
        ("AAAA,g,A", decode.UNFINISHED, 6),
        ("AAAA,g\\", decode.BAD_CHARACTER, 6),
        ("AAAA,AA\\/", decode.BAD_CHARACTER, 7),
        ("A,AAA,A", decode.BAD_FIELDS, 2),
        ("AAAAAA", decode.BAD_FIELDS, 0),
        ("A,ggggggE", decode.TOO_LARGE, 9),
        ("A,ggggggggggggC", decode.TOO_LARGE, 15),
    ):
        assert decoded([text], [(0, 0, 0, 1, 0, 1)]).ends[0, :2].tolist() == [status, offset]


def test_digits_of_no_weight() -> None:
    found = decoded(["C" + "," + "k" + "g" * 300 + "A"], [(0, 0, 0, 0, 0, 0)])
    assert found.column.tolist() == [1, 3]


def test_errors_beyond_those_kept_are_counted() -> None:
    found = decoded([",".join(["D"] * 50)], [(0, 0, 0, 0, 0, 0)], keep=3)
    assert len(found.errors) == 3
    assert found.failed == 50


@given(st.lists(st.lists(st.integers(0, (1 << 32) - 1), max_size=6), min_size=1, max_size=12), st.randoms())
@settings(deadline=None)
def test_items(items: list[list[int]], rng: random.Random) -> None:
    separators = [rng.choice(",;") for _ in items[1:]]
    text = "".join(
        "".join(map(unsigned, item)) + separator for item, separator in zip(items, [*separators, ""], strict=True)
    )
    found = decode.decode_items(text.encode())
    values, first = found.values.tolist(), found.first.tolist()
    assert [values[a:b] for a, b in pairwise(first)] == items
    assert found.separators.tolist() == [*map(ord, separators), 0]
    assert not found.faults.any()


@given(st.text(alphabet="ABgh/,;!\xff", max_size=30))
@settings(deadline=None)
def test_items_with_faults_have_no_numbers(text: str) -> None:
    found = decode.decode_items(text.encode("latin-1"))
    parts = text.replace(";", ",").split(",")
    values, first = found.values.tolist(), found.first.tolist()
    assert len(found) == len(parts)
    for part, a, b, fault in zip(parts, first, first[1:], found.faults.tolist(), strict=False):
        try:
            expected = oracle.numbers(part)
            good = max(expected, default=0) < 1 << 32
        except ValueError:
            good = False
        assert bool(fault) == (not good)
        assert values[a:b] == (expected if good else [])


@given(st.lists(st.integers(0, (1 << 32) - 1)))
def test_signed(values: list[int]) -> None:
    assert decode.signed(np.array(values, np.int64)).tolist() == [oracle.signed(value) for value in values]
