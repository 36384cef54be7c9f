"""Looking after a job directory: how many jobs there are, trying failed ones again, clearing away old ones."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING

from deadreckon.errors import SpoolError
from deadreckon.worker.files import existing, list_names, remove
from deadreckon.worker.spool import Spool, claims, waiting

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["purge", "retry", "status"]

DAY = 86_400.0
_PURGED = ".purged-"

_log = logging.getLogger("deadreckon.worker")


def status(jobdir: str | os.PathLike[str]) -> dict[str, int | float | None]:
    """Count jobs per state: new, active, done, failed, workers; and ``oldest_seconds``, since the oldest arrived.

    Raises SpoolError when there is no job directory.
    """
    root = existing(jobdir)
    arrived = None
    count = 0
    for name in waiting(root):
        with contextlib.suppress(OSError):
            # Renaming sets the change time and keeps the modification time, which is the crash's own.
            changed = (root / "new" / name).lstat().st_ctime
            arrived = changed if arrived is None else min(arrived, changed)
            count += 1
    workers, active = claims(root)
    return {
        "new": count,
        "active": active,
        "done": len(_ended(root / "done")),
        "failed": len(_ended(root / "failed")),
        "workers": workers,
        "oldest_seconds": None if arrived is None else max(0.0, time.time() - arrived),
    }


def retry(jobdir: str | os.PathLike[str], job: str | None = None) -> int:
    """Put one failed job, or all, back into ``new/`` for a first attempt; return how many.

    Raises SpoolError when there is no job directory, or no such failed job.
    """
    root = existing(jobdir)
    failed = _ended(root / "failed")
    if job is not None and job not in failed:
        raise SpoolError(f"{root}: no failed job {job!r}")
    with Spool(root) as spool:
        return sum(spool.revive(name) for name in ([job] if job is not None else failed))


def purge(
    jobdir: str | os.PathLike[str],
    older_than: float = 7 * DAY,
    *,
    states: Sequence[str] = ("done", "failed", "tmp"),
) -> int:
    """Delete jobs that ended, and drafts that were left, more than ``older_than`` seconds ago; return how many.

    Drafts younger than a day are kept in any case: somebody may be writing them. Raises SpoolError when there is no
    job directory, or for a state that isn't one of done, failed and tmp.
    """
    root = existing(jobdir)
    for state in states:
        if state not in {"done", "failed", "tmp"}:
            raise SpoolError(f"can't purge {state!r}: not one of done, failed and tmp")
    count = 0
    now = time.time()
    for state in states:
        limit = now - (max(older_than, DAY) if state == "tmp" else older_than)
        for name in list_names(root / state):
            doomed = root / state / name
            try:
                if name.startswith(_PURGED):
                    remove(doomed)  # Left by a purge that was stopped.
                elif doomed.lstat().st_mtime < limit:
                    # Nobody shall find half of a result.
                    remove(doomed.rename(root / state / f"{_PURGED}{secrets.token_hex(8)}"))
                    count += 1
            except FileNotFoundError:
                pass  # Another purge was faster.
            except OSError as e:
                _log.warning("can't purge %r: %s", str(doomed), e)
    return count


def _ended(directory: Path) -> list[str]:
    return [name for name in list_names(directory) if not name.startswith(".")]
