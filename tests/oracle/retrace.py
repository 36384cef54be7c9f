"""Retracing as plainly as it can be said: entries of one method with ranges, and a line; or entries without any."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """``first:last:void method():original:original_last -> m``; None leaves a part out."""

    first: int
    last: int
    method: str
    original: int | None
    original_last: int | None

    def text(self) -> str:
        lines = "" if self.original is None else f":{self.original}"
        lines += "" if self.original_last is None else f":{self.original_last}"
        return f"    {self.first}:{self.last}:void {self.method}(){lines} -> m"


def alternatives(entries: list[Entry], line: int) -> list[list[tuple[str, int | None]]]:
    """Return the chains that hold a line: neighbours with one range are one chain, equal chains are one alternative."""
    chains: list[list[Entry]] = []
    for entry in entries:
        if chains and (chains[-1][-1].first, chains[-1][-1].last) == (entry.first, entry.last):
            chains[-1].append(entry)
        else:
            chains.append([entry])
    found: list[list[tuple[str, int | None]]] = []
    for chain in chains:
        if chain[0].first <= line <= chain[0].last:
            here = [(entry.method, _line(entry, line)) for entry in chain]
            if here not in found:
                found.append(here)
    return found


def _line(entry: Entry, line: int) -> int | None:
    if entry.original is None:
        return line
    if entry.original_last is None or entry.original_last == entry.original:
        return entry.original or None
    moved = entry.original + (line - entry.first)
    return moved if moved <= entry.original_last and moved > 0 else None
