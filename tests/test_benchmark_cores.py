"""The comparison that benchmarks/cores.py rests on: what it counts, and that it can find fault."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def cores() -> ModuleType:
    return importlib.import_module("benchmarks.cores")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], (3, 0, 0, 0)),
        ([1, 3], [1, 2, 3], (2, 1, 0, 0)),
        ([1, 2, 3, 4], [1, 2, 3], (3, 0, 1, 0)),
        ([1, 9, 3], [1, 2, 3], (2, 0, 0, 1)),
        ([1, 9], [1, 2, 3], (1, 1, 0, 1)),
        ([], [1, 2], (0, 2, 0, 0)),
        ([1, *[7] * 299, 2], [1, *[7] * 300, 2], (301, 1, 0, 0)),
    ],
)
def test_frames_are_counted(
    cores: ModuleType, ours: list[int], theirs: list[int], expected: tuple[int, int, int, int]
) -> None:
    counts = cores.compare(ours, theirs)
    assert tuple(counts[name] for name in cores.COUNTS) == expected


def test_too_few_frames_that_agree_fail(cores: ModuleType) -> None:
    def agreement(ours: list[int], theirs: list[int]) -> float:
        row = cores.Row("any", "given", 1, len(theirs))
        row.counts = dict.fromkeys(("judge", "eu_stack", "gdb"), cores.compare(ours, theirs))
        row.seconds = dict.fromkeys(("deadreckon", "eu_stack", "gdb"), 1.0)
        found: float = cores.summary([row], 1)["agreement"]["judge"]
        return found

    stack = list(range(200))
    assert agreement(stack, stack) == 1.0
    assert agreement(stack[:-1], stack) >= cores.REQUIRED
    assert agreement(stack[:-3], stack) < cores.REQUIRED
    assert agreement([*stack, 9, 9, 9], stack) < cores.REQUIRED
