"""A worker's home in ``active/``: who lives there, and when somebody else may clear it away.

Claims by lock (flock) end with the process that holds them, at once and for certain, on one machine. Where several
machines share a network file system, a lock made on one may not be seen on another, so there a home is leased: its
owner touches ``.lock`` from time to time, and whoever finds it untouched for longer than the lease *renames the home*
before clearing it. The rename is the fence: an owner that was only slow finds its paths gone and can end nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deadreckon.errors import ConfigError, SpoolError
from deadreckon.worker.files import list_names

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.config import WorkerConfig

__all__ = ["LOCK", "MARK", "SCRATCH", "TRACE", "Home", "claims", "homes", "lease_of", "move_in", "renew", "take_over"]

LOCK, SCRATCH, TRACE, MARK = ".lock", ".scratch", ".trace", ".mark"
"""The lock, the processor's temporary files, where a process that is being killed writes its stack, and which of its
jobs is under way."""
_TRIES = 100
_PROBE = ".clock-"


@dataclass(slots=True)
class Home:
    """A home that is this process's: its own, or one to be cleared. ``close`` gives up the lock, if there is one."""

    path: Path
    descriptor: int

    def close(self) -> None:
        """Give the home up."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def lease_of(config: WorkerConfig) -> float | None:
    """Return how long claims hold without a sign of life, None where they are locks. Raises ConfigError."""
    if config.claims not in {"lock", "lease"}:
        raise ConfigError(f"worker.claims: expected lock or lease, got {config.claims!r}")
    if config.claims == "lease" and config.lease_seconds < 1:
        raise ConfigError(f"worker.lease_seconds: expected a second or more, got {config.lease_seconds}")
    return config.lease_seconds if config.claims == "lease" else None


def homes(root: Path) -> list[str]:
    """Name the homes in ``active/``; names with a leading dot are of other use."""
    return [name for name in list_names(root / "active") if not name.startswith(".")]


def claims(root: Path) -> tuple[int, int]:
    """Count the workers that have a home, and the jobs they hold."""
    active = root / "active"
    found = [active / name for name in homes(root) if os.path.lexists(active / name / LOCK)]
    return len(found), sum("~" in name for home in found for name in list_names(home))


def move_in(home: Path, lease: float | None) -> Home:
    """Make a home and hold it before anything is in it. Raises SpoolError, OSError."""
    for _ in range(_TRIES):
        home.mkdir(exist_ok=True)
        held = _leased(home) if lease is not None else _locked(home)
        if held is not None:
            (home / SCRATCH).mkdir(exist_ok=True)
            return held
        time.sleep(0.001)  # Another worker took an unlocked home for that of a dead one, and clears it away.
    raise SpoolError(f"{home}: can't be locked")


def renew(home: Path) -> bool:
    """Give a sign of life; False where the home was cleared away."""
    try:
        os.utime(home / LOCK, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def take_over(home: Path, lease: float | None, *, dead: bool = False) -> Home | None:
    """Hold another worker's home, to clear it; None where its owner lives or another has it.

    ``dead`` says that the owner is known to have ended, so that a lease isn't waited for.
    """
    if lease is None:
        return _locked(home)
    if not dead and not _expired(home, lease):
        return None
    ours = home.with_name(f"{home.name.partition('.')[0]}.{secrets.token_hex(8)}")
    try:
        os.rename(home, ours)
        os.utime(ours / LOCK)  # Until now another one could find it expired, too.
    except FileNotFoundError:
        if not ours.is_dir():
            return None
        (ours / LOCK).touch()
    return Home(ours, -1)


def _expired(home: Path, lease: float) -> bool:
    """Compare the last sign of life with the file server's own clock: those of two machines may differ by minutes."""
    try:
        last = os.stat(home / LOCK, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        try:
            last = os.stat(home, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return False
    except NotADirectoryError:
        return False
    probe = home.with_name(f"{_PROBE}{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        now = os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(probe)
    return now - last > lease


def _leased(home: Path) -> Home | None:
    try:
        os.close(os.open(home / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    except FileNotFoundError:
        return None
    return Home(home, -1) if renew(home) else None


def _locked(home: Path) -> Home | None:
    """Take the lock of a home; None where another has it, or the home is gone."""
    try:
        lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, the home may have been cleared away and made again by its owner.
        if os.path.samestat(os.fstat(lock), os.stat(home / LOCK)):
            return Home(home, lock)
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    with contextlib.suppress(OSError):
        os.close(lock)
    return None
