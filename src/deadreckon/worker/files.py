"""The job directory's folders, and manners with files that other people put there."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import signal
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from deadreckon.errors import ConfigError, LimitExceeded, Malformed, SpoolError

__all__ = [
    "check_readable",
    "existing",
    "is_unfinished",
    "kind_of",
    "list_names",
    "make_directories",
    "now",
    "obstacle",
    "plain_name",
    "read_limited",
    "regular_files",
    "remove",
    "sync",
    "what_to_sync",
]

MAX_FILES = 10_000
MAX_NAME_BYTES = 200
"""Of a job's name: NAME_MAX (255) less room for the attempt and a token."""
SETTLE_SECONDS = 1.0
"""A bare file isn't claimed within this long after a write to it; ``cp`` isn't atomic."""
STALLED_SECONDS = 60.0
"""A bare file that somebody still has open for writing is waited for this long after the last write. Not for ever:
network file systems refuse leases for reasons of their own."""

_STATES = ("tmp", "new", "active", "done", "failed")
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_log = logging.getLogger("deadreckon.worker")


def make_directories(jobdir: str | os.PathLike[str]) -> Path:
    """Make a job directory where there is none. Raises SpoolError when it can't be used."""
    root = Path(jobdir)
    try:
        for state in _STATES:
            (root / state).mkdir(parents=True, exist_ok=True)
        devices = {(root / state).stat().st_dev for state in _STATES}
    except OSError as e:
        raise SpoolError(f"{root}: not usable as a job directory: {e}") from e
    if len(devices) > 1:
        raise SpoolError(f"{root}: its directories are on several file systems, between which nothing can be renamed")
    return root


def existing(jobdir: str | os.PathLike[str]) -> Path:
    """Return a job directory without making one of a mistyped name. Raises SpoolError when it isn't there."""
    root = Path(jobdir)
    if not (root / "new").is_dir():
        raise SpoolError(f"{root}: not a job directory: there is no new/ in it")
    return root


def obstacle(root: Path, min_free_bytes: int, *, probe: bool = False) -> str | None:
    """Say why results could not be stored now, None if they could.

    ``probe`` writes a small file as well: only that shows a quota, or a file system that became read-only.
    """
    try:
        found = os.statvfs(root)
        free = found.f_bavail * found.f_frsize
        if found.f_flag & os.ST_RDONLY:
            return "the file system is read-only"
        if free < min_free_bytes:
            return f"{free >> 20} MiB are free on the file system, worker.min_free_bytes wants {min_free_bytes >> 20}"
        if found.f_files and not found.f_favail:
            return "the file system has no inodes left"
        for state in _STATES[1:]:
            if not os.access(f"{root}/{state}", os.W_OK | os.X_OK):
                return f"{state}/ can't be written to"
        if probe:
            path = root / "active" / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                path.write_bytes(bytes(4096))
            finally:
                path.unlink(missing_ok=True)
    except OSError as e:
        return str(e)
    return None


def what_to_sync(durability: str) -> list[str]:
    """Return what to fsync: nothing, "file", or "file" and "dir". Raises ConfigError for an unknown setting."""
    if durability not in {"none", "file", "file+dir"}:
        raise ConfigError(f"worker.durability: expected none, file or file+dir, got {durability!r}")
    return [] if durability == "none" else durability.split("+")


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_names(directory: Path) -> list[str]:
    """Return the names in a directory, none where it isn't one."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def plain_name(name: str) -> str:
    """Return the name if it is harmless in a path, a log, a terminal and a glob, else one made from it."""
    raw = os.fsencode(name)
    if name.isprintable() and len(raw) <= MAX_NAME_BYTES and name not in {"", ".", ".."} and name[0] != "-":
        return name
    kept = "".join(c if c.isascii() and c.isprintable() else "_" for c in name).lstrip(".-")[: MAX_NAME_BYTES - 17]
    return f"{kept}_{hashlib.blake2b(raw, digest_size=8).hexdigest()}"


def kind_of(mode: int) -> str:
    """Say in words what a file that isn't a regular one is."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def regular_files(directory: str) -> set[str]:
    """Return the names in a directory of regular files. Raises Malformed when it holds another, LimitExceeded."""
    names = set()
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                got = kind_of(entry.stat(follow_symlinks=False).st_mode)
                raise Malformed("job", expected="regular files only", got=f"{got}, {entry.name!r}")
            names.add(entry.name)
            if len(names) > MAX_FILES:
                raise LimitExceeded("files of a job", MAX_FILES)
    return names


def check_readable(path: str) -> None:
    """Raise OSError where a regular file can't be opened, Malformed where it isn't one."""
    os.close(_open_regular(path))


def read_limited(path: str, limit: int) -> bytes:
    """Read a regular file of up to ``limit`` bytes. Raises OSError, Malformed, LimitExceeded."""
    with open(_open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise LimitExceeded("bytes", limit, size, os.path.basename(path))
        data = file.read(size + 1)  # A buffer of the limit for every small file would cost more than all the rest.
    if len(data) > limit:
        raise LimitExceeded("bytes", limit, what=os.path.basename(path))
    return data


def _open_regular(path: str) -> int:
    """Open for reading what is a regular file at the moment of opening; a fifo put there meanwhile doesn't block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Malformed("job", expected="a regular file", got=repr(os.path.basename(path)))
    return descriptor


def is_unfinished(directory: int, entry: str) -> bool:
    """Say whether somebody seems to be writing a file still; ``entry`` is its name in an open directory."""
    try:
        status = os.stat(entry, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False  # Moving it will tell why.
    if not stat.S_ISREG(status.st_mode):
        return False
    # A time in the future can't be that of the last write; waiting for it could take years.
    age = abs(time.time() - status.st_mtime)
    return age < SETTLE_SECONDS or (age < STALLED_SECONDS and _is_open_for_writing(directory, entry))


def _is_open_for_writing(directory: int, entry: str) -> bool:
    """Ask the kernel by taking a read lease, which is refused while there is a writer; False where it can't tell.

    It answers the file's owner and root. An upload over a slow line pauses for longer than SETTLE_SECONDS, and half a
    crash would be taken for a damaged one.
    """
    try:
        file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # Ignored by default; SIGIO, the usual one, would kill.
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def remove(path: Path) -> None:
    """Delete a file or a tree without following links; what can't be deleted is logged and left."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except (OSError, RecursionError) as e:
        _log.warning("can't delete %r: %s", str(path), e)


def now() -> str:
    """Return the time as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
