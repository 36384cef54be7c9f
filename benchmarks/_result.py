"""What a benchmark says, in one form: answers that are ratios, plots that show growth, and how it was checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from benchmarks import _timing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Answer", "Line", "Plot", "Result", "answer", "growth", "read", "write"]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ratio: the median of the rounds with the lowest and the highest of them, and what it should be.

    ``wanted`` is the least that satisfies, or with ``at_most`` the most. ``headline`` answers are shown in the README.
    """

    what: str
    median: float
    low: float
    high: float
    unit: str = "times as fast"
    wanted: float | None = None
    at_most: bool = False
    headline: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is as good as wanted; None where nothing is asked for."""
        if self.wanted is None:
            return None
        return self.median <= self.wanted if self.at_most else self.median >= self.wanted

    @property
    def limit(self) -> str:
        """What is asked for, in words; empty where nothing is."""
        return "" if self.wanted is None else f"{'at most' if self.at_most else 'at least'} {self.wanted:g}"


class Line(msgspec.Struct, frozen=True):
    """A line of a plot: its name and (x, y) points, x ascending."""

    name: str
    points: list[tuple[float, float]]


class Plot(msgspec.Struct, frozen=True, omit_defaults=True):
    """What something costs as its work grows, both axes logarithmic; ``bends`` says where and why the line bends."""

    name: str
    title: str
    x: str
    y: str
    lines: list[Line]
    bends: str = ""


class Result(msgspec.Struct):
    """What one benchmark found. ``checked`` says which answers were compared before anything was timed."""

    name: str
    question: str
    checked: str
    answers: list[Answer] = []
    plots: list[Plot] = []
    notes: list[str] = []
    machine: dict[str, str | int | float] = {}


def answer(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    unit: str = "times as fast",
    wanted: float | None = None,
    at_most: bool = False,
    headline: bool = False,
) -> Answer:
    """Return how many times as long theirs took as ours did, round by round; with ``at_most``, ours as theirs."""
    found = _timing.ratios(theirs, ours) if at_most else _timing.ratios(ours, theirs)
    median, low, high = (float(f"{value:.3g}") for value in (found.median, found.low, found.high))
    return Answer(what, median, low, high, unit, wanted, at_most, headline)


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the cost of one item grows from the cheapest size on to the largest, beside n log n.

    1 is n log n; what is linear is below it. Small sizes cost a fixed sum, so the cheapest item is the yardstick.
    """
    cost = [y / (x * max(1.0, math.log2(x))) for x, y in points]
    return max(later / earlier for i, earlier in enumerate(cost) for later in cost[i:])


def write(path: Path | None, result: Result) -> None:
    """Write a result as JSON, to standard output where there is no path."""
    result.machine = result.machine or _timing.machine()
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if path is None:
        print(text.decode())
    else:
        path.write_bytes(text + b"\n")


def read(path: Path) -> Result:
    """Read a result. Raises msgspec.DecodeError where the file holds none."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
