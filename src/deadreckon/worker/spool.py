"""The job directory: how a job gets in, is claimed, and ends in exactly one of done/ and failed/.

    tmp/                          writers only; nothing here is looked at
    new/<job>, new/<shard>/<job>  waiting: a directory with job.json, or a bare crash file
    active/<worker>/.lock         flock held by the worker for as long as it lives
    active/<worker>/<job>~<n>/    a case: attempt n at a job; what was in new/ is its ``input``
    done/<job>/                   the case of a job that is done: event.jsonl, input
    failed/<job>/                 the case of a job that is not: diagnostics.json, traceback.txt, input

A job is never copied: it is in one place at a time and moves by rename. Inside a case (a directory only the worker
writes to, so producers can't forge what is in it) the outcome is decided by one rename, that of the finished
event.jsonl or diagnostics.json; whoever finds the case of a dead worker completes what was decided, or sends the input
back to new/ for the next attempt. docs/jobs.md is the protocol for producers. The idea is Maildir's
(https://cr.yp.to/proto/maildir.html) with a claim that dies with its worker.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

import msgspec

from deadreckon.config import WorkerConfig
from deadreckon.errors import ConfigError, LimitExceeded, Malformed, SpoolError
from deadreckon.model.event import Diagnostic, Event, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "Failure",
    "Job",
    "JobFile",
    "JobSource",
    "Lease",
    "Outcome",
    "Role",
    "Spool",
    "jobs_purge",
    "jobs_retry",
    "jobs_status",
    "submit",
]

Role = Literal["crash", "attachment", "symbols", "sourcemap"]
Outcome = Literal["done", "failed", "retried"]

MAX_DESCRIPTION_BYTES = 1 << 20
MAX_FILES = 10_000
MAX_NAME_BYTES = 200
"""Of a job's name: NAME_MAX (255) less room for the attempt and a token."""
SETTLE_SECONDS = 1.0
"""A bare file counts as whole once nothing was written to it for this long; ``cp`` isn't atomic."""

_STATES = ("tmp", "new", "active", "done", "failed")
_INPUT, _EVENTS, _FAILURE, _TRACEBACK, _LOCK = "input", "event.jsonl", "diagnostics.json", "traceback.txt", ".lock"
_DESCRIPTION = "job.json"
# Only the worker puts an attempt and a token behind a name; a user's own "core~2" has no token and stays a name.
_AGAIN = re.compile(r"(?P<job>.+)~(?P<attempt>[0-9]{1,6})\.[0-9a-f]{16}", re.DOTALL)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_log = logging.getLogger("deadreckon.worker")


@dataclass(slots=True)
class JobFile:
    """A regular file of a job: its base name, where it is now, and what it is for."""

    name: str
    path: str
    role: Role


@dataclass(slots=True)
class Job:
    """What a processor needs to know. ``id`` is the job's name in the job directory; times are RFC 3339."""

    id: str
    files: list[JobFile]
    kind: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    received_at: str | None = None
    project: str | None = None
    event_id: str | None = None

    def paths(self, *roles: Role) -> list[str]:
        """Return the paths of the files with one of these roles, in the job's order."""
        return [f.path for f in self.files if f.role in roles]


@dataclass(slots=True)
class Lease:
    """A claimed job: this worker's until it is acknowledged, retried or declared dead. Attempts count from 1."""

    job: str
    attempt: int
    path: Path


class JobSource(Protocol):
    """Where jobs come from and results go; the job directory is one, a queue service can be another."""

    settling: bool
    """After ``claim`` gave None: more will be claimable in a moment, without anything new arriving."""

    def claim(self) -> Lease | None:
        """Take a job nobody else has, or None when there is none now."""

    def load(self, lease: Lease) -> Job:
        """Read what is to be done. Raises ReportError or OSError where the job can't be used, now or ever."""

    def ack(self, lease: Lease, events: Iterable[Event]) -> None:
        """Store the events whole and end the job as done."""

    def retry(self, lease: Lease, reason: Diagnostic) -> Outcome:
        """Give the job back for another attempt, or end it as failed when it has had them all."""

    def dead(self, lease: Lease, diagnostics: Sequence[Diagnostic], traceback: str = "") -> None:
        """End the job as failed, its input untouched."""


class Failure(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What diagnostics.json holds."""

    job: str
    attempt: int
    failed_at: str
    diagnostics: list[Diagnostic]


class _FileEntry(msgspec.Struct):
    name: str
    role: Role


class _Description(msgspec.Struct, omit_defaults=True, kw_only=True):
    """job.json. The attempt in it is the producer's; the one that counts is in the directory's name."""

    id: str
    files: list[_FileEntry]
    kind: str | None = None
    attributes: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)
    received_at: str | None = None
    attempt: int | None = None
    project: str | None = None
    event_id: str | None = None


def submit(
    jobdir: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str] | tuple[str, bytes]],
    *,
    kind: str | None = None,
    attributes: Mapping[str, str] | None = None,
    attach: Sequence[str | os.PathLike[str] | tuple[str, bytes]] = (),
    symbols: Sequence[str | os.PathLike[str] | tuple[str, bytes]] = (),
    sourcemaps: Sequence[str | os.PathLike[str] | tuple[str, bytes]] = (),
    project: str | None = None,
    event_id: str | None = None,
    durability: str = "none",
) -> str:
    """Put one job into ``new/`` and return its id: 32 hex digits that sort by time.

    Files are given as paths, which are copied, or as (name, content). Files of the same name are told apart by a
    number. Raises SpoolError when there is no input or a file can't be read or written; nothing is left behind then.
    """
    if not inputs:
        raise SpoolError("a job needs at least one crash file")
    synced = _durability(durability)
    root = _make_directories(Path(jobdir))
    job = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
    draft = root / "tmp" / job
    by_role: list[tuple[Role, Sequence[str | os.PathLike[str] | tuple[str, bytes]]]] = [
        ("crash", inputs),
        ("attachment", attach),
        ("symbols", symbols),
        ("sourcemap", sourcemaps),
    ]
    try:
        draft.mkdir()
        taken = {_DESCRIPTION}
        entries = []
        for role, sources in by_role:
            for source in sources:
                given = source[0] if isinstance(source, tuple) else os.fspath(source)
                name = _unlike(taken, _plain(Path(given).name))
                taken.add(name)
                if isinstance(source, tuple):
                    (draft / name).write_bytes(source[1])
                else:
                    shutil.copyfile(source, draft / name)
                if "file" in synced:
                    _sync(draft / name)
                entries.append(_FileEntry(name, role))
        description = _Description(
            id=job,
            kind=kind,
            files=entries,
            attributes=dict(attributes or {}),
            received_at=_now(),
            attempt=1,
            project=project,
            event_id=event_id,
        )
        (draft / _DESCRIPTION).write_bytes(msgspec.json.encode(description))
        if "file" in synced:
            _sync(draft / _DESCRIPTION)
        if "dir" in synced:
            _sync(draft)
        draft.rename(root / "new" / job)
    except (OSError, shutil.Error) as e:
        shutil.rmtree(draft, ignore_errors=True)
        raise SpoolError(f"{root}: can't submit: {e}") from e
    if "dir" in synced:
        _sync(root / "new")
    return job


class Spool:
    """The job directory as a JobSource. One Spool is one worker; use it from one thread.

    Claims die with the process, or are given back by ``close``, uncharged. Raises SpoolError when the directory
    can't be used, ConfigError for an unknown durability.
    """

    def __init__(
        self, jobdir: str | os.PathLike[str], config: WorkerConfig | None = None, *, worker: str | None = None
    ) -> None:
        self.config = config or WorkerConfig()
        self.worker = worker or f"{os.getpid()}-{secrets.token_hex(8)}"
        self.settling = False
        self._synced = _durability(self.config.durability)
        self._root = _make_directories(Path(jobdir))
        self._home = self._root / "active" / self.worker
        self._lock = -1
        self._backlog: deque[str] = deque()
        self._refused: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is still claimed, without counting the attempt, and leave ``active/``."""
        if self._lock >= 0:
            self._clear(self._home, None, charge=0)
            os.close(self._lock)
            self._lock = -1

    def claim(self) -> Lease | None:
        """Take a job by renaming it into this worker's home; None when there is none now.

        ``new/`` is read once for many claims, so that a million waiting jobs don't cost a million look-ups each.
        """
        while self._backlog:
            if lease := self._take(self._backlog.popleft()):
                return lease
        self.settling = False
        self._backlog.extend(sorted(_waiting(self._root)))
        # Workers that start at different places of the same list don't run after the same jobs.
        self._backlog.rotate(secrets.randbelow(len(self._backlog) or 1))
        while self._backlog:
            if lease := self._take(self._backlog.popleft()):
                return lease
        return None

    def load(self, lease: Lease) -> Job:
        """Read and check the claimed job: regular files only, base names only, nothing followed, nothing waited for.

        Raises Malformed or LimitExceeded where the job contradicts docs/jobs.md, OSError where it can't be read.
        """
        entry = lease.path / _INPUT
        mode = entry.lstat().st_mode
        if stat.S_ISREG(mode):
            _check_readable(entry)
            return Job(id=lease.job, files=[JobFile(lease.job, str(entry), "crash")])
        if not stat.S_ISDIR(mode):
            raise Malformed("job", expected="a directory or a regular file", got=_KINDS[stat.S_IFMT(mode)])
        present = _regular_files(entry)
        if _DESCRIPTION not in present:
            raise Malformed("job", expected=f"a file {_DESCRIPTION}")
        present.discard(_DESCRIPTION)
        told = _decode_description(_read_limited(entry / _DESCRIPTION))
        files = []
        for listed in told.files:
            if listed.name not in present:  # What isn't a base name isn't in the directory either.
                raise Malformed(f"{_DESCRIPTION}: files", expected="names of files beside it", got=repr(listed.name))
            present.discard(listed.name)
            _check_readable(entry / listed.name)
            files.append(JobFile(listed.name, str(entry / listed.name), listed.role))
        if not any(f.role == "crash" for f in files):
            raise Malformed(f"{_DESCRIPTION}: files", expected="at least one with the role crash")
        return Job(
            id=lease.job,
            files=files,
            kind=told.kind,
            attributes={key: _text(value) for key, value in told.attributes.items()},
            received_at=told.received_at,
            project=told.project,
            event_id=told.event_id,
        )

    def ack(self, lease: Lease, events: Iterable[Event]) -> None:
        """Write event.jsonl whole and move the case to ``done/``. Raises OSError; the lease then stays as it is."""
        self._write(lease.path, _EVENTS, (encode_event(event) + b"\n" for event in events))
        self._conclude(lease.path, lease.job, "done")

    def retry(self, lease: Lease, reason: Diagnostic) -> Outcome:
        """Give the job back for its next attempt, or to ``failed/`` after the last. Raises OSError."""
        return self._again(lease, reason, charge=1)

    def dead(self, lease: Lease, diagnostics: Sequence[Diagnostic], traceback: str = "") -> None:
        """Write diagnostics.json whole and move the case to ``failed/``. Raises OSError; the lease then stays."""
        if traceback:
            self._write(lease.path, _TRACEBACK, [traceback.encode("utf-8", "backslashreplace")])
        failure = Failure(job=lease.job, attempt=lease.attempt, failed_at=_now(), diagnostics=list(diagnostics))
        self._write(lease.path, _FAILURE, [msgspec.json.format(msgspec.json.encode(failure)), b"\n"])
        self._conclude(lease.path, lease.job, "failed")

    def revive(self, job: str) -> bool:
        """Put a failed job back into ``new/`` for a first attempt; False when it isn't there or has no input.

        The case passes through this worker's home: stopped half-way, it is found there and goes back to ``failed/``.
        """
        failed = self._root / "failed" / job
        if not os.path.lexists(failed / _INPUT):
            return False
        self._settle_in()
        case = self._home / f"{job}~0"
        try:
            failed.rename(case)
        except FileNotFoundError:
            return False
        self._give_back(case, job, 1)
        return True

    def reclaim(
        self, worker: str | None = None, reason: Diagnostic | None = None, *, charge: int = 1
    ) -> Counter[Outcome]:
        """Complete or give back the jobs of workers that are gone; of one, once it is gone, with ``worker``.

        Counts what became of the jobs. ``reason`` is what diagnostics.json says of a job that has had its last
        attempt; ``charge`` is what the interrupted attempt counts. Raises OSError where a job can't be moved.
        """
        found: Counter[Outcome] = Counter()
        active = self._root / "active"
        for name in [worker] if worker is not None else _names(active):
            home = active / name
            try:
                lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if worker is None else 0))
                found += self._clear(home, reason, charge)
            except BlockingIOError:
                pass
            finally:
                os.close(lock)
        return found

    def _settle_in(self) -> None:
        """Make this worker's home once, locked before anyone can see it: built under tmp/, then renamed."""
        if self._lock >= 0:
            return
        draft = self._root / "tmp" / self.worker
        draft.mkdir()
        self._lock = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(self._home)

    def _take(self, name: str) -> Lease | None:
        place = self._root / "new" / name
        try:
            status = place.lstat()
        except OSError:
            return None  # Another worker was faster.
        # A time in the future can't be that of the last write; waiting for it could take years.
        if stat.S_ISREG(status.st_mode) and abs(time.time() - status.st_mtime) < SETTLE_SECONDS:
            self.settling = True
            return None
        self._settle_in()
        again = _AGAIN.fullmatch(place.name)
        job, attempt = (_plain(again["job"]), int(again["attempt"])) if again else (_plain(place.name), 1)
        case = self._home / f"{job}~{attempt}"
        try:
            case.mkdir()
        except FileExistsError:
            return None  # Claimed by this very worker under the same name; its turn comes.
        try:
            place.rename(case / _INPUT)
        except OSError as e:
            case.rmdir()
            if not isinstance(e, FileNotFoundError) and name not in self._refused:
                # Moving a directory takes the right to write to it. The job stays where it is, for its owner to see.
                self._refused.add(name)
                _log.error("can't claim %r: %s", name, e)
            return None
        return Lease(job, attempt, case)

    def _clear(self, home: Path, reason: Diagnostic | None, charge: int) -> Counter[Outcome]:
        """Empty the home of a worker that is gone and remove it. The caller holds its lock."""
        found: Counter[Outcome] = Counter()
        for name in _names(home):
            case = home / name
            job, _, attempt = name.rpartition("~")
            if name == _LOCK or not job or not attempt.isdecimal():
                continue
            if (case / _EVENTS).is_file():
                self._conclude(case, job, "done")
                found["done"] += 1
            elif not os.path.lexists(case / _INPUT):
                _remove(case)  # Stopped just before the claim, or just after the job was given back.
            elif (case / _FAILURE).is_file():
                self._conclude(case, job, "failed")
                found["failed"] += 1
            else:
                found[self._again(Lease(job, int(attempt), case), reason, charge)] += 1
        # The lock's name goes last: without it there is nothing left to be claimed twice.
        for remove, path in ((os.unlink, home / _LOCK), (os.rmdir, home)):
            with contextlib.suppress(FileNotFoundError):
                try:
                    remove(path)
                except OSError as e:
                    if e.errno != errno.ENOTEMPTY:
                        raise
        return found

    def _again(self, lease: Lease, reason: Diagnostic | None, charge: int) -> Outcome:
        if charge and lease.attempt >= self.config.max_attempts:
            reason = reason or Diagnostic(
                code="internal", severity="error", stage="worker", message="the worker died while at it"
            )
            _log.error("job %r failed in attempt %d: %s", lease.job, lease.attempt, reason.message)
            self.dead(lease, [reason])
            return "failed"
        self._give_back(lease.path, lease.job, lease.attempt + charge)
        return "retried"

    def _give_back(self, case: Path, job: str, attempt: int) -> None:
        # The token keeps a bare file from landing on another of its name: renaming a file replaces silently.
        (case / _INPUT).rename(self._root / "new" / f"{job}~{attempt}.{secrets.token_hex(8)}")
        _remove(case)

    def _write(self, case: Path, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file of a case whole or not at all."""
        part = case / f".{name}"
        with part.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
            if "file" in self._synced:
                out.flush()
                os.fsync(out.fileno())
        part.rename(case / name)

    def _conclude(self, case: Path, job: str, state: Literal["done", "failed"]) -> None:
        """Move a decided case where it belongs, never over another of the same name."""
        if state == "done" and not self.config.keep_input:
            _remove(case / _INPUT)
        if "dir" in self._synced:
            _sync(case)
        name = job
        while True:
            try:
                case.rename(self._root / state / name)
                break
            except OSError as e:
                if e.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise
                name = f"{job}.{secrets.token_hex(4)}"
        if "dir" in self._synced:
            _sync(self._root / state)


def jobs_status(jobdir: str | os.PathLike[str]) -> dict[str, int | float | None]:
    """Count jobs per state: new, active, done, failed, workers; and ``oldest_seconds``, since the oldest arrived.

    Raises SpoolError when the directory can't be used.
    """
    root = _make_directories(Path(jobdir))
    arrived = None
    waiting = 0
    for name in _waiting(root):
        with contextlib.suppress(OSError):
            # Renaming sets the change time and keeps the modification time, which is the crash's own.
            changed = (root / "new" / name).lstat().st_ctime
            arrived = changed if arrived is None else min(arrived, changed)
            waiting += 1
    homes = [home for home in _names(root / "active") if os.path.lexists(root / "active" / home / _LOCK)]
    return {
        "new": waiting,
        "active": sum(name != _LOCK for home in homes for name in _names(root / "active" / home)),
        "done": len(_names(root / "done")),
        "failed": len(_names(root / "failed")),
        "workers": len(homes),
        "oldest_seconds": None if arrived is None else max(0.0, time.time() - arrived),
    }


def jobs_retry(jobdir: str | os.PathLike[str], job: str | None = None) -> int:
    """Put one failed job, or all, back into ``new/`` for a first attempt; return how many.

    Raises SpoolError when there is no such failed job.
    """
    root = _make_directories(Path(jobdir))
    if job is not None and job not in _names(root / "failed"):
        raise SpoolError(f"{root}: no failed job {job!r}")
    with Spool(root) as spool:
        return sum(spool.revive(name) for name in ([job] if job is not None else _names(root / "failed")))


def jobs_purge(
    jobdir: str | os.PathLike[str], older_than: float, *, states: Sequence[str] = ("done", "failed", "tmp")
) -> int:
    """Delete jobs that ended, and drafts that were left, more than ``older_than`` seconds ago; return how many.

    Raises SpoolError for a state that isn't one of done, failed and tmp.
    """
    root = _make_directories(Path(jobdir))
    limit = time.time() - older_than
    count = 0
    for state in states:
        if state not in {"done", "failed", "tmp"}:
            raise SpoolError(f"can't purge {state!r}: not one of done, failed and tmp")
        for name in _names(root / state):
            doomed = root / state / name
            with contextlib.suppress(FileNotFoundError):
                if doomed.lstat().st_mtime >= limit:
                    continue
                if state != "tmp":
                    # Nobody shall find half of a result.
                    doomed = doomed.rename(root / "tmp" / f"purge-{secrets.token_hex(8)}")
                _remove(doomed)
                count += 1
    return count


def _make_directories(root: Path) -> Path:
    try:
        for state in _STATES:
            (root / state).mkdir(parents=True, exist_ok=True)
        devices = {(root / state).stat().st_dev for state in _STATES}
    except OSError as e:
        raise SpoolError(f"{root}: not usable as a job directory: {e}") from e
    if len(devices) > 1:
        raise SpoolError(f"{root}: its directories are on several file systems, between which nothing can be renamed")
    return root


def _durability(setting: str) -> list[str]:
    """Return what to fsync: nothing, "file", or "file" and "dir"."""
    if setting not in {"none", "file", "file+dir"}:
        raise ConfigError(f"worker.durability: expected none, file or file+dir, got {setting!r}")
    return [] if setting == "none" else setting.split("+")


def _waiting(root: Path) -> Iterator[str]:
    """Name everything in ``new/`` that is a job, relative to it: what is there, and what is in its shards.

    A shard is a directory without job.json. Names with a leading dot are somebody's work in progress (rsync).
    """
    with os.scandir(root / "new") as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if (
                not entry.is_dir(follow_symlinks=False)
                or _AGAIN.fullmatch(entry.name)
                or os.path.lexists(f"{entry.path}/{_DESCRIPTION}")
            ):
                yield entry.name
                continue
            try:
                inner = _names(Path(entry.path))
            except OSError:
                yield entry.name  # Claiming it will tell why.
                continue
            yield from (f"{entry.name}/{name}" for name in inner if not name.startswith("."))


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _plain(name: str) -> str:
    """Return the name if it is harmless in a path, a log and a terminal, else one made from it."""
    raw = os.fsencode(name)
    if name.isprintable() and len(raw) <= MAX_NAME_BYTES and name not in {"", ".", ".."}:
        return name
    kept = "".join(c if c.isascii() and c.isprintable() else "_" for c in name).lstrip(".")[: MAX_NAME_BYTES - 17]
    return f"{kept}-{hashlib.blake2b(raw, digest_size=8).hexdigest()}"


def _unlike(taken: set[str], name: str) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{number}.{name}"
        number += 1
    return candidate


def _regular_files(directory: Path) -> set[str]:
    names = set()
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                got = _KINDS[stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)]
                raise Malformed("job", expected="regular files only", got=f"{got}, {entry.name!r}")
            names.add(entry.name)
            if len(names) > MAX_FILES:
                raise LimitExceeded("files of a job", MAX_FILES)
    return names


def _open_regular(path: Path) -> int:
    """Open for reading what is a regular file at the moment of opening; a fifo put there meanwhile doesn't block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Malformed("job", expected="a regular file", got=repr(path.name))
    return descriptor


def _check_readable(path: Path) -> None:
    os.close(_open_regular(path))


def _read_limited(path: Path) -> bytes:
    with open(_open_regular(path), "rb") as file:
        data = file.read(MAX_DESCRIPTION_BYTES + 1)
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise LimitExceeded("bytes", MAX_DESCRIPTION_BYTES, what=_DESCRIPTION)
    return data


def _decode_description(data: bytes) -> _Description:
    try:
        return msgspec.json.decode(data, type=_Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed(f"{_DESCRIPTION}: {e}") from e


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _remove(path: Path) -> None:
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
