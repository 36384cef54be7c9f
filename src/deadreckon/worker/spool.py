"""The job directory: how a job is claimed, and ends in exactly one of done/ and failed/.

    tmp/                          writers only; nothing here is looked at
    new/<job>, new/<shard>/<job>  waiting: a directory with job.json, or a bare crash file
    active/<worker>/.lock         flock held by the worker for as long as it lives
    active/<worker>/.scratch/     temporary files of its processor
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
import logging
import os
import re
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

import msgspec

from deadreckon.config import WorkerConfig
from deadreckon.errors import SpoolError
from deadreckon.model.event import Diagnostic, Event, encode_event
from deadreckon.worker.description import DESCRIPTION, Job, read_job
from deadreckon.worker.files import (
    is_unfinished,
    list_names,
    make_directories,
    now,
    plain_name,
    remove,
    sync,
    what_to_sync,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["Failure", "JobSource", "Lease", "Outcome", "Spool", "claims", "waiting"]

Outcome = Literal["done", "failed", "retried"]

_INPUT, _EVENTS, _FAILURE, _TRACEBACK = "input", "event.jsonl", "diagnostics.json", "traceback.txt"
_LOCK, _SCRATCH, _PART = ".lock", ".scratch", ".part"
# Only the worker puts an attempt and a token behind a name; a user's own "core~2" has no token and stays a name.
_AGAIN = re.compile(r"(?P<job>.+)~(?P<attempt>[0-9]{1,6})\.[0-9a-f]{16}", re.DOTALL)
_GONE_SECONDS = 10.0
"""How long the lock of a worker that was killed is waited for: a killed process may still be busy in the kernel."""
_LOCK_TRIES = 100
_NAMESAKE_TRIES = 8

_log = logging.getLogger("deadreckon.worker")


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
        self._synced = what_to_sync(self.config.durability)
        self._root = make_directories(jobdir)
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
        self._backlog.extend(sorted(waiting(self._root)))
        # Workers that start at different places of the same list don't run after the same jobs.
        self._backlog.rotate(secrets.randbelow(len(self._backlog) or 1))
        while self._backlog:
            if lease := self._take(self._backlog.popleft()):
                return lease
        return None

    def load(self, lease: Lease) -> Job:
        """Read and check the claimed job.

        Raises Malformed or LimitExceeded where it contradicts docs/jobs.md, OSError where it can't be read.
        """
        return read_job(lease.path / _INPUT, lease.job, str(self._home / _SCRATCH))

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
            # What a hostile file put into an error shall not command the terminal that shows it.
            shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in traceback)
            self._write(lease.path, _TRACEBACK, [shown.encode()])
        failure = Failure(job=lease.job, attempt=lease.attempt, failed_at=now(), diagnostics=list(diagnostics))
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
        limit = time.monotonic() + (_GONE_SECONDS if worker is not None else 0)
        for name in [worker] if worker is not None else list_names(active):
            home = active / name
            while (lock := _lock_home(home)) is None and (home / _LOCK).exists() and time.monotonic() < limit:
                time.sleep(0.01)
            if lock is not None:
                try:
                    found += self._clear(home, reason, charge)
                finally:
                    os.close(lock)
        return found

    def _settle_in(self) -> None:
        """Make this worker's home once, and lock it before anything is in it."""
        if self._lock >= 0:
            return
        for _ in range(_LOCK_TRIES):
            self._home.mkdir(exist_ok=True)
            lock = _lock_home(self._home)
            if lock is not None:
                self._lock = lock
                (self._home / _SCRATCH).mkdir(exist_ok=True)
                return
            time.sleep(0.001)  # Another worker took an unlocked home for that of a dead one, and clears it away.
        raise SpoolError(f"{self._home}: can't be locked")

    def _take(self, name: str) -> Lease | None:
        shard, _, entry = name.rpartition("/")
        try:
            # Through a descriptor: what was a shard when it was listed may since be a link to somebody's files.
            follow = os.O_NOFOLLOW if shard else 0
            directory = os.open(self._root / "new" / shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
        except OSError as e:
            self._refuse(name, e)
            return None
        try:
            if is_unfinished(directory, entry):
                self.settling = True
                return None
            self._settle_in()
            again = _AGAIN.fullmatch(entry)
            job, attempt = (plain_name(again["job"]), int(again["attempt"])) if again else (plain_name(entry), 1)
            case = self._home / f"{job}~{attempt}"
            try:
                case.mkdir()
            except FileExistsError:
                return None  # Claimed by this very worker under the same name; its turn comes.
            try:
                os.rename(entry, case / _INPUT, src_dir_fd=directory)
            except OSError as e:
                case.rmdir()
                self._refuse(name, e)
                return None
            return Lease(job, attempt, case)
        finally:
            os.close(directory)

    def _refuse(self, name: str, error: OSError) -> None:
        """Leave a job where it is, for its owner to see. Moving a directory takes the right to write to it."""
        if not isinstance(error, FileNotFoundError) and name not in self._refused:  # Gone: another was faster.
            self._refused.add(name)
            _log.error("can't claim %r: %s", name, error)

    def _clear(self, home: Path, reason: Diagnostic | None, charge: int) -> Counter[Outcome]:
        """Empty the home of a worker that is gone and remove it. The caller holds its lock."""
        found: Counter[Outcome] = Counter()
        for name in list_names(home):
            case = home / name
            job, _, attempt = name.rpartition("~")
            if name == _LOCK or not job or not attempt.isdecimal():
                continue
            if (case / _EVENTS).is_file():
                self._conclude(case, job, "done")
                found["done"] += 1
            elif not os.path.lexists(case / _INPUT):
                remove(case)  # Stopped just before the claim, or just after the job was given back.
            elif (case / _FAILURE).is_file():
                self._conclude(case, job, "failed")
                found["failed"] += 1
            else:
                found[self._again(Lease(job, int(attempt), case), reason, charge)] += 1
        remove(home / _SCRATCH)
        # The lock's name goes last: without it there is nothing left to be claimed twice.
        for forget, path in ((os.unlink, home / _LOCK), (os.rmdir, home)):
            with contextlib.suppress(FileNotFoundError):
                try:
                    forget(path)
                except OSError as e:
                    if e.errno != errno.ENOTEMPTY:
                        raise
        return found

    def _again(self, lease: Lease, reason: Diagnostic | None, charge: int) -> Outcome:
        if charge and lease.attempt >= self.config.max_attempts:
            reason = reason or Diagnostic(
                code="internal", severity="error", stage="worker", message="the worker died while at it"
            )
            _log.error("job %r failed in attempt %d: %r", lease.job, lease.attempt, reason.message)
            self.dead(lease, [reason])
            return "failed"
        self._give_back(lease.path, lease.job, lease.attempt + charge)
        return "retried"

    def _give_back(self, case: Path, job: str, attempt: int) -> None:
        # The token keeps a bare file from landing on another of its name: renaming a file replaces silently.
        (case / _INPUT).rename(self._root / "new" / f"{job}~{attempt}.{secrets.token_hex(8)}")
        remove(case)

    def _write(self, case: Path, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file of a case whole or not at all."""
        part = case / _PART
        try:
            with part.open("wb") as out:
                for chunk in chunks:
                    out.write(chunk)
                if "file" in self._synced:
                    out.flush()
                    os.fsync(out.fileno())
            part.rename(case / name)
        except Exception:
            remove(part)
            raise

    def _conclude(self, case: Path, job: str, state: Literal["done", "failed"]) -> None:
        """Move a decided case where it belongs, never over another of the same name."""
        if state == "done" and not self.config.keep_input:
            remove(case / _INPUT)
        if "dir" in self._synced:
            sync(case)
        name = job
        for tries in reversed(range(_NAMESAKE_TRIES)):
            try:
                case.rename(self._root / state / name)
                break
            except OSError as e:
                if not tries or e.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise
                name = f"{job}.{secrets.token_hex(4)}"
        if "dir" in self._synced:
            sync(self._root / state)


def waiting(root: Path) -> Iterator[str]:
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


def claims(root: Path) -> tuple[int, int]:
    """Count the workers that have a home, and the jobs they hold."""
    active = root / "active"
    homes = [home for home in list_names(active) if os.path.lexists(active / home / _LOCK)]
    return len(homes), sum("~" in name for home in homes for name in list_names(active / home))


def _lock_home(home: Path) -> int | None:
    """Take the lock of a worker's home; None where another has it, or the home is gone."""
    try:
        lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, the home may have been cleared away and made again by its owner.
        if os.path.samestat(os.fstat(lock), os.stat(home / _LOCK)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None
