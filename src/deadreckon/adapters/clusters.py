"""A pile of crashes as people read it on a terminal: one line a cluster, one a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.adapters.text import safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deadreckon.grouping.pile import Cluster

__all__ = ["render"]

_MAX_STACKS = 8
_MAX_NAMES = 3


def render(found: Sequence[Cluster], *, width: int = 120) -> str:
    """Return the clusters as a table; lines are cut at ``width`` columns."""
    return "\n".join(line[:width] for line in _lines(found)) + "\n"


def _lines(found: Sequence[Cluster]) -> Iterator[str]:
    crashes, stacks = sum(c.crashes for c in found), sum(len(c.stacks) for c in found)
    yield f"{_count(crashes, 'crash', 'crashes')}, {_count(stacks, 'stack')}, {_count(len(found), 'cluster')}"
    if not found:
        return
    yield ""
    yield f"{'cluster':>7}  {'crashes':>7}  {'stacks':>6}"
    for cluster in found:
        first = cluster.stacks[0]
        yield safe(f"{cluster.cluster:>7}  {cluster.crashes:>7}  {len(cluster.stacks):>6}  {first.title}")
        for stack in cluster.stacks[:_MAX_STACKS]:
            names = [e.get("name") or e["event_id"] for e in stack.events[:_MAX_NAMES]]
            more = ", ..." if len(stack.events) > len(names) else ""
            where = stack.culprit or stack.title
            yield safe(f"{'':>9}{stack.crashes:>7}{'':>10}{where}  [{', '.join(names)}{more}]")
        if len(cluster.stacks) > _MAX_STACKS:
            yield f"{'':>26}and {_count(len(cluster.stacks) - _MAX_STACKS, 'more stack')}"


def _count(number: int, word: str, words: str | None = None) -> str:
    return f"{number} {word if number == 1 else words or word + 's'}"
