"""Looking after a job directory: how many jobs there are, trying failed ones again, clearing away old ones."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from deadreckon.errors import SpoolError
from deadreckon.model.ids import DebugId
from deadreckon.worker.files import existing, list_names, remove
from deadreckon.worker.home import claims
from deadreckon.worker.spool import EVENTS, SINKING, Spool, waiting_jobs

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Sequence
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
    for name in waiting_jobs(root):
        with contextlib.suppress(OSError):
            # Renaming sets the change time and keeps the modification time, which is the crash's own.
            changed = (root / "new" / name).lstat().st_ctime
            arrived = changed if arrived is None else min(arrived, changed)
            count += 1
    workers, active = claims(root)
    return {
        "new": count,
        "active": active + len(_ended(root / "active" / SINKING)),
        "done": len(_ended(root / "done")),
        "failed": len(_ended(root / "failed")),
        "workers": workers,
        "oldest_seconds": None if arrived is None else max(0.0, time.time() - arrived),
    }


def retry(jobdir: str | os.PathLike[str], job: str | None = None, *, missing: str | None = None) -> int:
    """Put one failed job, or all, back into ``new/`` for a first attempt; return how many.

    With ``missing``, a debug id in any spelling, these are instead the jobs that are done and lacked the symbols of
    that module on a stack, as far as their input was kept. Raises SpoolError when there is no job directory, no such
    failed job, or where that is no debug id.
    """
    root = existing(jobdir)
    if missing is not None:
        with Spool(root) as spool:
            return sum(spool.revive(name, "done") for name in _lacking(root, missing))
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


def _lacking(root: Path, debug_id: str) -> Iterator[str]:
    """Name the jobs in ``done/`` with an event that has frames in a module of this id and found no symbols for it."""
    wanted = {str(reading) for reading in DebugId.readings(debug_id)}
    if not wanted:
        raise SpoolError(f"--missing {debug_id!r}: no debug id in any known spelling")
    for name in _ended(root / "done"):
        try:
            lines = (root / "done" / name / EVENTS).read_bytes().splitlines()
        except OSError as e:
            _log.warning("can't read the events of %r: %s", name, e)
            continue
        if any(_lacks(line, wanted) for line in lines):
            yield name


def _lacks(line: bytes, wanted: Collection[str]) -> bool:
    if not any(each.encode() in line for each in wanted):
        return False  # Decoding all events would take ten times as long.
    try:
        modules = _modules.decode(line).modules
    except msgspec.MsgspecError:
        return False
    return any(m.symbols in _LACKED and m.debug_id in wanted for m in modules)


class _Module(msgspec.Struct):
    symbols: str | None = None
    debug_id: str | None = None


class _Modules(msgspec.Struct):
    modules: list[_Module] = []


_LACKED = frozenset({"missing", "mismatch", "malformed"})
_modules = msgspec.json.Decoder(_Modules)


def _ended(directory: Path) -> list[str]:
    return [name for name in list_names(directory) if not name.startswith(".")]
