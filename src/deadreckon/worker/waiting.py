"""What waits in ``new/``, and which of several workers it is for.

Each worker process has a share: jobs go by a hash of their shard's name, without a shard of their own. So processes
don't run after the same entries, and jobs of one shard, which share symbols where ``submit`` put them in, meet tables
that are loaded. A process whose share is empty takes from the end of the others'.
"""

from __future__ import annotations

import os
import zlib
from itertools import islice
from typing import TYPE_CHECKING

from deadreckon.worker.description import DESCRIPTION

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from pathlib import Path
    from re import Pattern

__all__ = ["Share", "backlog", "waiting"]

Share = tuple[int, int]
"""The number of a process, from 0, and how many there are."""

_AT_ONCE = 20_000
"""Names remembered of one reading of ``new/``: a million of them shall not fill the memory of every process."""
_TAKEN_OF_OTHERS = 4
_TAKEN_AT_LEAST = 16


def waiting(root: Path, again: Pattern[str]) -> Iterator[str]:
    """Name everything in ``new/`` that is a job, relative to it: what is there, and what is in its shards.

    A shard is a directory without job.json; ``again`` matches names that only jobs have. Names with a leading dot are
    somebody's work in progress (rsync).
    """
    with os.scandir(root / "new") as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if (
                not entry.is_dir(follow_symlinks=False)
                or again.fullmatch(entry.name)
                or os.path.lexists(f"{entry.path}/{DESCRIPTION}")
            ):
                yield entry.name
                continue
            try:
                inner = os.listdir(entry.path)
            except FileNotFoundError:
                continue
            except OSError:
                yield entry.name  # Claiming it will tell why.
                continue
            yield from (f"{entry.name}/{name}" for name in inner if not name.startswith("."))


def backlog(
    names: Iterable[str], share: Share, without: Container[str] = (), again: Pattern[str] | None = None
) -> list[str]:
    """Return what a process should claim next, in order: of its own share, else some of what is for others.

    What was tried before, which ``again`` matches, comes last: it may be poison, and would meet one fresh process after
    the other in its first moments.
    """
    number, processes = share
    mine: list[str] = []
    others: list[str] = []
    for name in names:
        if name in without:
            continue
        if processes == 1 or _owner(name) % processes == number:
            mine.append(name)
            if len(mine) == _AT_ONCE:
                break
        elif len(others) < _AT_ONCE:
            others.append(name)
    if mine:
        tried = {name for name in mine if again is not None and again.fullmatch(name.rpartition("/")[2])}
        return sorted(set(mine) - tried) + sorted(tried)
    others.sort(reverse=True)
    return list(islice(others, max(_TAKEN_AT_LEAST, len(others) // _TAKEN_OF_OTHERS)))


def _owner(name: str) -> int:
    return zlib.crc32(os.fsencode(name.partition("/")[0]))
