from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.kernels import tokens
from oracle import tokens as oracle

halves = st.integers(0, 2**64 - 1)
stacks = st.lists(
    st.tuples(st.none() | st.integers(0, 5), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40)),
    max_size=6,
)
Stacks = list[tuple[int | None, list[tuple[int, int]]]]


def columns(told: Stacks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *(len(frames) for _, frames in told)], dtype=np.int64)
    frames = [f for _, stack in told for f in stack]
    heads = [tokens.NO_TEXT if head is None else head for head, _ in told]
    return (
        offsets,
        np.array([f[0] for f in frames], np.uint32),
        np.array([f[1] for f in frames], np.uint8),
        np.array(heads, np.uint32),
    )


@settings(max_examples=60)
@given(stacks, st.lists(st.tuples(halves, halves), min_size=6, max_size=6), st.sampled_from([0, 1, 3, 1 << 40]))
def test_fingerprints_equal_the_oracle(told: Stacks, digests: list[tuple[int, int]], most: int) -> None:
    offsets, texts, marks, heads = columns(told)
    table = np.array(digests, np.uint64)
    found = tokens.fingerprints(offsets, texts, marks, table, heads, mask=5, wanted=1, most=most)
    for (head, frames), value in zip(told, found.tolist(), strict=True):
        counted = oracle.without_runs([text for text, mark in frames if mark & 5 == 1])[:most]
        assert tuple(value) == oracle.combine([digests[t] for t in ([] if head is None else [head]) + counted])


@settings(max_examples=60)
@given(stacks, st.sampled_from([1, 4, 1 << 40]))
def test_sketches_equal_the_oracle(told: Stacks, most: int) -> None:
    offsets, texts, marks, _ = columns(told)
    rng = random.Random(1)
    digests = [(rng.getrandbits(64), 0) for _ in range(6)]
    found = tokens.sketches(offsets, texts, marks, np.array(digests, np.uint64), mask=1, wanted=1, most=most)
    for (_, frames), row in zip(told, found.tolist(), strict=True):
        counted = oracle.without_runs([text for text, mark in frames if mark & 1])[:most]
        assert row == oracle.sketch([digests[t][0] & 0xFFFF_FFFF for t in counted])


@settings(max_examples=100)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=50), max_size=4))
def test_cycles_equal_the_oracle(told: list[list[tuple[int, int]]]) -> None:
    offsets, texts, marks, _ = columns([(None, frames) for frames in told])
    gone = tokens.collapse(offsets, texts, marks, mask=2, wanted=2)
    expected: list[int] = []
    for frames in told:
        at = [i for i, (_, mark) in enumerate(frames) if mark & 2]
        left = {at[i] for i in oracle.first_rounds([frames[i][0] for i in at], tokens.CYCLE)}
        expected += [mark & ~2 | 2 * (i in left) for i, (_, mark) in enumerate(frames)]
    assert marks.tolist() == expected
    assert gone == sum(mark & 2 != after & 2 for (_, mark), after in zip((f for s in told for f in s), expected))  # noqa: B905


def test_recursion_of_several_functions() -> None:
    def left(text: str) -> str:
        offsets, texts = np.array([0, len(text)]), np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
        marks = np.ones(len(text), np.uint8)
        tokens.collapse(offsets, texts, marks, mask=1, wanted=1)
        return "".join(c for c, mark in zip(text, marks.tolist(), strict=True) if mark)

    assert left("fffff") == "f"
    assert left("a" + "fg" * 100 + "m") == "afgm"
    assert left("xabcabcabcm") == left("xabcabcm") == "xabcm"
    assert left("abcdefgh" * 3) == "abcdefgh"
    assert left("aabaab") == "ab"


def test_sketches_estimate_the_jaccard_index() -> None:
    rng = np.random.default_rng(7)
    digests = rng.integers(0, 1 << 63, (4000, 2)).astype(np.uint64)
    for shared in (5, 15, 25, 29):
        texts: list[int] = []
        for _ in range(200):
            drawn = rng.permutation(4000)[: 60 - shared]
            texts += [*drawn[:30], *drawn[30 - shared :]]
        offsets = np.arange(0, len(texts) + 1, 30)
        found = tokens.sketches(offsets, np.array(texts, np.uint32), np.zeros(len(texts), np.uint8), digests)
        equal = (found[::2] == found[1::2]).mean()
        assert abs(equal - shared / (60 - shared)) < 0.02


def test_texts_that_differ_in_one_place_differ() -> None:
    """Every pair of neighbours exchanged, every frame replaced, every length: no two alike."""
    rng = np.random.default_rng(3)
    digests = rng.integers(0, 1 << 63, (65, 2)).astype(np.uint64)
    base = list(range(64))
    variants = [base[:n] for n in range(65)]
    variants += [[*base[:i], base[i + 1], base[i], *base[i + 2 :]] for i in range(63)]
    variants += [[*base[:i], 64, *base[i + 1 :]] for i in range(64)]
    offsets, texts, marks, heads = columns([(None, [(t, 0) for t in v]) for v in variants])
    found = tokens.fingerprints(offsets, texts, marks, digests, heads)
    assert len({tuple(row) for row in found.tolist()}) == len(variants)


@pytest.mark.parametrize(
    ("offsets", "texts", "heads"),
    [([0, 3], [0, 0], [0]), ([0, 2, 1], [0, 0], [0, 0]), ([-1, 2], [0, 0], [0]), ([0, 2], [0, 9], [0]),
     ([0, 2], [0, 0], [9]), ([0, 2], [0, 0], []), ([], [0, 0], [])],
)  # fmt: skip
def test_columns_that_contradict_each_other(offsets: list[int], texts: list[int], heads: list[int]) -> None:
    marks = np.zeros(len(texts), np.uint8)
    with pytest.raises(ValueError, match="expected"):
        tokens.fingerprints(
            np.array(offsets, np.int64), np.array(texts, np.uint32), marks, np.zeros((2, 2), np.uint64),
            np.array(heads, np.uint32),
        )  # fmt: skip


def test_offsets_of_cycles_are_checked() -> None:
    texts, marks = np.zeros(3, np.uint32), np.ones(3, np.uint8)
    for offsets in ([0, 4], [2, 1], [-1, 2], []):
        with pytest.raises(ValueError, match="expected"):
            tokens.collapse(np.array(offsets, np.int64), texts, marks, mask=1, wanted=1)
    with pytest.raises(ValueError, match="bits"):
        tokens.collapse(np.array([0, 3]), texts, marks, mask=1, wanted=2)
