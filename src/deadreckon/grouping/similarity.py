"""Near-duplicates: stacks that are almost the same, found by sketches and told by a scored alignment.

What is compared are *sites*: the frames that count, each with its source line where that is known, so that two bugs of
one function are two. Sketches (MinHash, kernels/tokens.py) of the sites nearest to the crash give the candidates, the
alignment (kernels/alignment.py) judges them; a cluster is one where *all* pairs are alike (complete linkage).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import LimitExceeded
from deadreckon.grouping.judge import FRAME, digest
from deadreckon.kernels.alignment import DEEPEST, align
from deadreckon.kernels.tokens import sketches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["DISTANCE", "Index", "Near", "Stacks", "clusters"]

DISTANCE = 0.3
"""Stacks less alike than ``1 - DISTANCE`` are of two clusters; CASR's threshold for the same score."""
ALL_PAIRS = 1024
"""Up to so many stacks every pair is aligned; with more, those that share part of a sketch."""
MAX_CLUSTERED = 8192
"""The most stacks that may hang together: the table of their distances is the square of it."""
_NEAREST = 16
"""Sites that go into a sketch: what is deeper hardly weighs in the alignment."""
_BANDS, _ROWS = 32, 2
"""A sketch is cut into bands; stacks are candidates where a band is equal: nine of ten that share two sites of five."""
_MAX_BUCKET = 256
_BATCH = 1 << 16


class Near(NamedTuple):
    """A stack that was found: its number and how alike it is, from 0 to 1."""

    number: int
    likeness: float


@dataclass(slots=True)
class Stacks:
    """Stacks as columns; a site is a number. Grows as stacks are added."""

    numbers: dict[str, int] = field(default_factory=dict)
    digests: list[tuple[int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    sites: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def add(self, sites: Sequence[str]) -> int:
        """Add a stack, innermost site first, and return its number. At most DEEPEST sites are kept."""
        for site in sites[:DEEPEST]:
            number = self.numbers.get(site)
            if number is None:
                number = self.numbers[site] = len(self.digests)
                self.digests.append(digest(FRAME, site))
            self.sites.append(number)
        self.ends.append(len(self.sites))
        return len(self) - 1

    def take(self, others: Stacks, number: int) -> None:
        """Add a stack of others that share their numbers of sites."""
        self.sites += others.sites[others.ends[number] : others.ends[number + 1]]
        self.ends.append(len(self.sites))

    def columns(self, first: int = 0) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return offsets and sites of the stacks from one on."""
        start = self.ends[first]
        return np.array(self.ends[first:], np.int64) - start, np.array(self.sites[start:], np.uint32)

    def bands(self, first: int = 0) -> NDArray[np.uint64]:
        """Return u64[n, bands], the bands of the sketches of the stacks from one on; of empty stacks all ones."""
        offsets, sites = self.columns(first)
        marks = np.zeros(len(sites), np.uint8)
        table = np.array(self.digests, np.uint64).reshape(-1, 2)
        found = sketches(offsets, sites, marks, table, most=_NEAREST)
        return found.view(np.uint64).reshape(len(found), _BANDS)


class Index:
    """A growing set of stacks that tells which of them a stack is like. Not for several threads at once."""

    def __init__(self) -> None:
        self.stacks = Stacks()
        self._buckets: dict[tuple[int, int], list[int]] = {}

    def add(self, sites: Sequence[str]) -> int:
        """Add a stack, innermost site first, and return its number."""
        number = self.stacks.add(sites)
        for key in enumerate(self.stacks.bands(number)[0].tolist()):
            bucket = self._buckets.setdefault(key, [])
            if len(bucket) < _MAX_BUCKET:  # Beyond that its members are alike: one more tells nothing new.
                bucket.append(number)
        return number

    def search(self, sites: Sequence[str], *, distance: float = DISTANCE, most: int = 10) -> list[Near]:
        """Return the stacks that are no farther than ``distance``, the nearest first, at most ``most`` of them."""
        asked = Stacks(self.stacks.numbers, self.stacks.digests)
        asked.add(sites)
        keys = enumerate(asked.bands()[0].tolist())
        found = sorted({n for key in keys for n in self._buckets.get(key, ())})
        for number in found:
            asked.take(self.stacks, number)
        pairs = np.array([(0, n + 1) for n in range(len(found))], np.int64).reshape(-1, 2)
        likeness = align(*asked.columns(), pairs).tolist()
        near = [Near(n, score) for n, score in zip(found, likeness, strict=True) if score >= 1 - distance]
        return sorted(near, key=lambda n: (-n.likeness, n.number))[:most]


def clusters(stacks: Stacks, *, distance: float = DISTANCE) -> list[list[int]]:
    """Return the numbers of the stacks by cluster: within one no two are farther from each other than ``distance``.

    The clusters and their members are in the order of the stacks. Raises LimitExceeded where more than MAX_CLUSTERED
    stacks hang together.
    """
    count = len(stacks)
    columns = stacks.columns()
    near: list[tuple[int, int]] = []
    for pairs in _batches(_candidates(stacks)):
        scores = align(*columns, pairs)
        near += map(tuple, pairs[scores >= 1 - distance].tolist())
    found: list[list[int]] = []
    for members in _components(count, near):
        if len(members) > MAX_CLUSTERED:
            raise LimitExceeded("similar stacks", MAX_CLUSTERED, len(members))
        found += [members] if len(members) < 3 else _complete(_distances(columns, members), members, distance)
    return sorted(sorted(c) for c in found)


def _candidates(stacks: Stacks) -> Iterator[tuple[int, int]]:
    count = len(stacks)
    if count <= ALL_PAIRS:
        yield from ((i, j) for i in range(count) for j in range(i + 1, count))
        return
    bands = stacks.bands()
    seen: set[tuple[int, int]] = set()
    for band in range(bands.shape[1]):
        order = np.argsort(bands[:, band], kind="stable")
        borders = np.flatnonzero(np.diff(bands[order, band])) + 1
        for members in np.split(order, borders):
            # In a bucket of very many each is compared with those near it in the batch: likeness is handed on.
            listed = members.tolist()
            for at, one in enumerate(listed):
                for other in listed[at + 1 : at + 1 + _MAX_BUCKET // 8]:
                    if (one, other) not in seen:
                        seen.add((one, other))
                        yield one, other


def _batches(pairs: Iterable[tuple[int, int]]) -> Iterator[NDArray[np.int64]]:
    batch: list[tuple[int, int]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH:
            yield np.array(batch, np.int64)
            batch = []
    if batch:
        yield np.array(batch, np.int64)


def _components(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return what hangs together by pairs (union and find)."""
    parent = list(range(count))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for one, other in pairs:
        one, other = root(one), root(other)  # noqa: PLW2901
        parent[max(one, other)] = min(one, other)
    found: dict[int, list[int]] = {}
    for n in range(count):
        found.setdefault(root(n), []).append(n)
    return list(found.values())


def _distances(columns: tuple[NDArray[np.int64], NDArray[np.uint32]], members: list[int]) -> NDArray[np.float32]:
    """Return the distances between all members, infinite from each to itself."""
    size = len(members)
    listed = np.array(members, np.int64)
    table = np.full((size, size), np.inf, np.float32)
    for row in range(size - 1):
        pairs = np.stack([np.full(size - row - 1, listed[row]), listed[row + 1 :]], axis=1)
        table[row, row + 1 :] = table[row + 1 :, row] = 1 - align(*columns, pairs)
    return table


def _complete(table: NDArray[np.float32], members: list[int], distance: float) -> list[list[int]]:
    """Join the two nearest clusters until the farthest members of the nearest two are farther than ``distance``."""
    groups: dict[int, list[int]] = {i: [member] for i, member in enumerate(members)}
    nearest = table.argmin(axis=1)
    best = table[np.arange(len(table)), nearest]
    while len(groups) > 1:
        one = int(best.argmin())
        if not best[one] <= distance + 1e-6:  # Single precision.
            break
        other = int(nearest[one])
        groups[one] += groups.pop(other)
        table[one] = table[:, one] = np.maximum(table[one], table[other])
        table[other] = table[:, other] = np.inf
        table[one, one] = np.inf
        best[other] = np.inf
        for row in [one, *np.flatnonzero((nearest == one) | (nearest == other)).tolist()]:
            if row in groups:
                nearest[row] = table[row].argmin()
                best[row] = table[row, nearest[row]]
    return list(groups.values())
