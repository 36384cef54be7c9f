from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.kernels.alignment import DEEPEST, align
from oracle import alignment as oracle

stacks = st.lists(st.lists(st.integers(0, 4), max_size=DEEPEST + 8), min_size=1, max_size=5)


def columns(told: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, told)], dtype=np.int64), np.array([t for s in told for t in s], np.uint32)


@settings(max_examples=60, deadline=None)
@given(stacks)
def test_scores_equal_the_oracle(told: list[list[int]]) -> None:
    pairs = [(i, j) for i in range(len(told)) for j in range(len(told))]
    found = align(*columns(told), np.array(pairs))
    assert found == pytest.approx([oracle.likeness(told[i], told[j]) for i, j in pairs])
    for (i, j), score in zip(pairs, found.tolist(), strict=True):
        assert 0 <= score <= 1 + 1e-9
        assert told[i] != told[j] or score == pytest.approx(1)


def test_frames_near_the_crash_weigh_more() -> None:
    told = [[1, 2, 3, 4, 5], [9, 2, 3, 4, 5], [1, 2, 3, 4, 9], [2, 3, 4, 5], []]
    scores = align(*columns(told), np.array([(0, 1), (0, 2), (0, 3), (0, 4), (4, 4)])).tolist()
    assert scores[0] < scores[1] < 1
    assert 0.8 < scores[2] < 0.9  # All of the shorter one, each frame one place off.
    assert scores[3:] == [0, 1]


@pytest.mark.parametrize(
    ("offsets", "pairs"), [([0, 3], [[0, 0]]), ([0, 2, 1], [[0, 0]]), ([0, 2], [[0, 1]]), ([0, 2], [[-1, 0]])]
)
def test_columns_that_contradict_each_other(offsets: list[int], pairs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        align(np.array(offsets), np.zeros(2, np.uint32), np.array(pairs))
