"""Batch look-up of positions against a search from one end to the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.kernels.positions import look_up, look_up_functions
from deadreckon.model.tables import (
    BEFORE_FIRST,
    EMPTY_LINE,
    MAPPED,
    NO_LINE,
    UNMAPPED,
    FunctionTable,
    SourceMapTable,
)
from oracle import sourcemap as oracle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NONE = [-1, -1, -1, -1]


def table(segments: Sequence[tuple[int, ...]], ranged: list[int] | None = None) -> SourceMapTable:
    """Return a table of sorted segments of six numbers."""
    lines = sorted({s[0] for s in segments})
    first = [sum(s[0] < line for s in segments) for line in lines]
    spans: NDArray[np.uint32] = np.zeros((0, 2), np.uint32)
    return SourceMapTable(
        np.array(lines, np.uint32),
        np.array([*first, len(segments)], np.uint32),
        np.array([s[1] for s in segments], np.int32),
        np.array([s[2:] for s in segments], np.int32).reshape(-1, 4),
        np.array(ranged if ranged is not None else [], np.uint8),
        *(spans, spans, spans),
        np.zeros(0, np.uint8),
        spans,
        np.zeros(0, np.uint8),
    )


def random_segments(rng: random.Random, count: int, lines: int, columns: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for _ in range(count):
        place = (rng.randrange(4), rng.randrange(99), rng.randrange(99), rng.choice([-1, 0, 1, 2]))
        if rng.random() < 0.15:
            place = (-1, -1, -1, -1)
        found.append((rng.randrange(lines), rng.randrange(columns), *place))
    return sorted(found, key=lambda s: s[:2])


@pytest.mark.parametrize("seed", range(30))
def test_equal_to_a_linear_search(seed: int) -> None:
    rng = random.Random(seed)
    lines, columns = rng.choice([(1, 300), (40, 12), (400, 5), (3, 3)])
    segments = random_segments(rng, rng.choice([0, 1, 2, 60, 300]), lines, columns)
    wanted = [
        (rng.randrange(-1, lines + 3), rng.randrange(-2, columns + 3)) for _ in range(rng.choice([0, 1, 15, 100]))
    ]
    found = look_up(table(segments), [w[0] for w in wanted], [w[1] for w in wanted])
    assert len(found) == len(wanted)
    with_segments = {s[0] for s in segments}
    for (line, column), place, state, row in zip(
        wanted, found.place.tolist(), found.state.tolist(), found.segment.tolist(), strict=True
    ):
        assert tuple(place) == oracle.look_up(segments, line, column)
        before = [s for s in segments if s[0] == line and s[1] <= column]
        if line not in with_segments:
            assert state == (EMPTY_LINE if any(s[0] > line for s in segments) else NO_LINE)
        elif not before:
            assert state == BEFORE_FIRST
        else:
            assert state == (MAPPED if before[-1][2] >= 0 else UNMAPPED)
            assert segments[row] == before[-1]
        assert (row >= 0) == bool(before)


def test_the_last_place_and_the_last_name_of_one_position() -> None:
    segments = [(0, 5, 0, 1, 1, 7), (0, 5, 0, 2, 2, 8), (0, 5, 1, 3, 3, -1), (0, 9, 1, 4, 4, -1)]
    found = look_up(table(segments), [0, 0, 0], [5, 8, 9])
    assert found.place.tolist() == [[1, 3, 3, 8], [1, 3, 3, 8], [1, 4, 4, -1]]


def test_many_segments_of_one_position_are_not_all_asked() -> None:
    segments = [(0, 0, 0, 0, 0, 3)] + [(0, 5, 0, 1, 1, 4)] + [(0, 5, 0, 2, 2, -1)] * 1000
    assert look_up(table(segments), [0], [5]).place.tolist() == [[0, 2, 2, -1]]


def test_range_mappings_go_on() -> None:
    segments = [(1, 4, 0, 10, 2, 5), (1, 9, 0, 20, 0, -1), (4, 3, 0, 30, 0, -1), (6, 0, -1, -1, -1, -1)]
    found = look_up(table(segments, [1, 1, 0, 1]), [1, 1, 1, 2, 4, 4, 5, 6, 7, 0], [4, 6, 9, 7, 2, 4, 0, 3, 0, 0])
    assert found.place.tolist() == [
        *([0, 10, 2, 5], [0, 10, 4, -1], [0, 20, 0, -1], [0, 21, 7, -1], [0, 23, 2, -1], [0, 30, 0, -1]),
        *(NONE, NONE, NONE, NONE),
    ]
    assert found.state.tolist() == [*[MAPPED] * 6, EMPTY_LINE, UNMAPPED, NO_LINE, EMPTY_LINE]
    assert found.segment.tolist() == [0, 0, 1, 1, 1, 2, -1, 3, -1, -1]


def test_range_mappings_end_at_31_bits() -> None:
    far = look_up(table([(0, 0, 0, (1 << 31) - 2, 5, -1)], [1]), [0, 1, 2, 0], [(1 << 31) - 1, 0, 0, 1 << 40])
    top = (1 << 31) - 1
    assert far.place.tolist() == [[0, top - 1, top, -1], [0, top, 0, -1], NONE, [0, top - 1, top, -1]]


def test_numbers_of_any_size() -> None:
    segments = [(0, 0, 0, 0, 0, -1), (0xFFFF_FFFE, 0x7FFF_FFFF, 0, 1, 1, -1)]
    huge = [-(1 << 63), -1, 0xFFFF_FFFE, 0xFFFF_FFFF, (1 << 63) - 1]
    found = look_up(table(segments), huge, [(1 << 63) - 1] * 5)
    assert found.place.tolist() == [NONE, NONE, [0, 1, 1, -1], NONE, NONE]
    assert found.state.tolist() == [EMPTY_LINE, EMPTY_LINE, MAPPED, NO_LINE, NO_LINE]


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="as many lines as columns"):
        look_up(table([]), [1, 2], [3])


@pytest.mark.parametrize("seed", range(10))
def test_functions(seed: int) -> None:
    rng = random.Random(seed)
    rows = sorted((rng.randrange(3), rng.randrange(9), rng.randrange(9), i) for i in range(rng.choice([0, 5, 40])))
    first = [sum(row[0] < source for row in rows) for source in range(5)]
    functions = FunctionTable.empty(4)
    functions.first = np.array(first, np.uint32)
    functions.at = np.array([row[1:] for row in rows], np.int32).reshape(-1, 3)
    wanted = [(rng.randrange(-1, 6), rng.randrange(10), rng.randrange(10), 0) for _ in range(80)]
    found = look_up_functions(functions, np.array(wanted, np.int32))
    for (source, line, column, _), name in zip(wanted, found.tolist(), strict=True):
        before = [row[3] for row in rows if row[0] == source and row[1:3] <= (line, column)]
        assert name == (before[-1] if before else -1)
