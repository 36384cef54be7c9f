"""The job directory: how a job is claimed, and ends in exactly one of done/ and failed/.

    tmp/                          writers only; nothing here is looked at
    new/<job>, new/<shard>/<job>  waiting: a directory with job.json, or a bare crash file
    active/<worker>/.lock         held by the worker for as long as it lives (home.py)
    active/<worker>/.scratch/     temporary files of its processor
    active/<worker>/.trace        where it was when it was killed
    active/<worker>/.mark         the case that is under way, where several are claimed
    active/<worker>/<job>~<n>/    a case: attempt n at a job; what was in new/ is its ``input``
    active/.sink/<job>/           the case of a job that is done and whose events are on their way to a sink (sinks.py)
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
import logging
import mmap
import os
import re
import secrets
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import msgspec

from deadreckon.config import WorkerConfig
from deadreckon.errors import ConfigError, LimitExceeded
from deadreckon.model.event import Diagnostic, encode_event
from deadreckon.worker.description import read_job
from deadreckon.worker.files import (
    is_unfinished,
    list_names,
    make_directories,
    now,
    obstacle,
    plain_name,
    remove,
    sync,
    what_to_sync,
)
from deadreckon.worker.home import LOCK, MARK, SCRATCH, TRACE, Home, homes, lease_of, move_in, renew, take_over
from deadreckon.worker.source import Lease
from deadreckon.worker.waiting import backlog, waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from deadreckon.model.event import Event
    from deadreckon.worker.description import Job
    from deadreckon.worker.source import Outcome
    from deadreckon.worker.waiting import Share

__all__ = ["EVENTS", "SINKING", "STORAGE", "Failure", "Spool", "settle", "waiting_jobs"]

EVENTS, SINKING = "event.jsonl", ".sink"
_INPUT, _FAILURE, _TRACEBACK, _IMPORTED, _PART = "input", "diagnostics.json", "traceback.txt", "symbols.jsonl", ".part"
# Only the worker puts an attempt and a token behind a name; a user's own "core~2" has no token and stays a name.
_AGAIN = re.compile(r"(?P<job>.+)~(?P<attempt>[0-9]{1,6})\.[0-9a-f]{16}", re.DOTALL)
_GONE_SECONDS = 10.0
"""How long the lock of a worker that was killed is waited for: a killed process may still be busy in the kernel."""
_NAMESAKE_TRIES = 8
_REFUSED_SECONDS = 60.0
"""How long what can't be claimed is left alone; somebody may mend it."""
_MAX_TRACE = 1 << 20
_MARK_BYTES = 512
_RENEWALS = 5
"""How often a lease is renewed while it lasts."""

_log = logging.getLogger("deadreckon.worker")


class Failure(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What diagnostics.json holds."""

    job: str
    attempt: int
    failed_at: str
    diagnostics: list[Diagnostic]


class Spool:
    """The job directory as a JobSource. One Spool is one worker; use it from one thread.

    Claims die with the process, or are given back by ``close``, uncharged. ``share`` is which of how many processes
    this one is. Raises SpoolError when the directory can't be used, ConfigError for a setting that can't be.
    """

    def __init__(
        self,
        jobdir: str | os.PathLike[str],
        config: WorkerConfig | None = None,
        *,
        worker: str | None = None,
        share: Share = (0, 1),
    ) -> None:
        self.config = config or WorkerConfig()
        self.share = share
        self.worker = worker or f"{os.getpid()}-{secrets.token_hex(8)}"
        self.settling = False
        self._synced = what_to_sync(self.config.durability)
        self._lease_seconds = lease_of(self.config)
        self._root = make_directories(jobdir)
        self._ended = self._root / "done"
        if self.config.sink:
            if self._lease_seconds is not None:
                raise ConfigError("worker.sink: a sink is written by one machine; not with worker.claims = lease")
            self._ended = self._root / "active" / SINKING
            self._ended.mkdir(exist_ok=True)
        self._new = f"{self._root}/new"
        self._home = self._root / "active" / self.worker
        self._held: Home | None = None
        self._mark: mmap.mmap | None = None
        self._renewed = 0.0
        self._backlog: deque[str] = deque()
        self._refused: set[str] = set()
        self._refused_since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is still claimed, without counting the attempt, and leave ``active/``."""
        if self._held is not None:
            self._clear(self._held.path, None, charge=0)
            self._held.close()
            self._held = self._mark = None

    def claim(self) -> Lease | None:
        """Take a job by renaming it into this worker's home; None when there is none now.

        ``new/`` is read once for many claims, so that a million waiting jobs don't cost a million look-ups each.
        """
        self._renew()
        while self._backlog:
            if lease := self._take(self._backlog.popleft()):
                return lease
        self.settling = False
        if self._refused and time.monotonic() - self._refused_since > _REFUSED_SECONDS:
            self._refused.clear()
        self._backlog.extend(backlog(waiting_jobs(self._root), self.share, self._refused, _AGAIN))
        while self._backlog:
            if lease := self._take(self._backlog.popleft()):
                return lease
        return None

    def mark(self, lease: Lease) -> None:
        """Note which of the claimed jobs is under way; only that one is charged when this process dies.

        The note is a mapped file: written without a system call, and there whatever becomes of the process.
        """
        if self._mark is None:
            with open(self._settle_in() / MARK, "w+b") as file:
                file.truncate(_MARK_BYTES)
                self._mark = mmap.mmap(file.fileno(), _MARK_BYTES)
        name = os.fsencode(f"{lease.job}~{lease.attempt}")
        self._mark[: len(name) + 1] = name + b"\0"

    def load(self, lease: Lease) -> Job:
        """Read and check the claimed job.

        Raises Malformed or LimitExceeded where it contradicts docs/jobs.md, OSError where it can't be read.
        """
        return read_job(f"{lease.path}/{_INPUT}", lease.job, f"{self._home}/{SCRATCH}")

    def ack(self, lease: Lease, events: Iterable[Event], imported: Sequence[dict[str, Any]] = ()) -> None:
        """Write event.jsonl whole and move the case to ``done/``.

        Raises OSError, and LimitExceeded where it would be too large; the lease then stays as it is.
        """
        case = os.fspath(lease.path)
        if imported:
            self._write(case, _IMPORTED, (msgspec.json.encode(each) + b"\n" for each in imported))
        self._write(case, EVENTS, (encode_event(event) + b"\n" for event in events))
        self._conclude(case, lease.job, "done")

    def obstacle(self) -> str | None:
        """Say why results could not be stored now, None if they could."""
        return obstacle(self._root, self.config.min_free_bytes)

    def retry(self, lease: Lease, reason: Diagnostic) -> Outcome:
        """Give the job back for its next attempt, or to ``failed/`` after the last. Raises OSError."""
        return self._again(lease, reason, charge=1)

    def dead(self, lease: Lease, diagnostics: Sequence[Diagnostic], traceback: str = "") -> None:
        """Write diagnostics.json whole and move the case to ``failed/``. Raises OSError; the lease then stays."""
        if traceback:
            # What a hostile file put into an error shall not command the terminal that shows it.
            shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in traceback)
            self._write(os.fspath(lease.path), _TRACEBACK, [shown.encode()])
        failure = Failure(job=lease.job, attempt=lease.attempt, failed_at=now(), diagnostics=list(diagnostics))
        self._write(os.fspath(lease.path), _FAILURE, [msgspec.json.format(msgspec.json.encode(failure)), b"\n"])
        self._conclude(os.fspath(lease.path), lease.job, "failed")

    def revive(self, job: str, state: Literal["done", "failed"] = "failed") -> bool:
        """Put a job that ended back into ``new/`` for a first attempt; False when it isn't there or has no input.

        The case passes through this worker's home: stopped half-way, it is found there and goes back where it was, or
        to ``new/`` once the old events are deleted. So a job is never in ``done/`` and ``new/`` at once.
        """
        ended = self._root / state / job
        if not os.path.lexists(ended / _INPUT):
            return False
        case = self._settle_in() / f"{job}~0"
        try:
            ended.rename(case)
        except FileNotFoundError:
            return False
        (case / EVENTS).unlink(missing_ok=True)
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
        for name in [worker] if worker is not None else homes(self._root):
            home = active / name
            dead = worker is not None
            while (held := take_over(home, self._lease_seconds, dead=dead)) is None and (home / LOCK).exists():
                if time.monotonic() >= limit:
                    break
                time.sleep(0.01)
            if held is not None:
                try:
                    found += self._clear(held.path, reason, charge)
                finally:
                    held.close()
        return found

    def trace(self) -> BinaryIO:
        """Open the file that a process which is being killed writes its stack to; it is in this worker's home."""
        return open(self._settle_in() / TRACE, "wb")

    def _settle_in(self) -> Path:
        """Make this worker's home once, and hold it before anything is in it."""
        if self._held is None:
            self._held = move_in(self._home, self._lease_seconds)
        return self._home

    def _renew(self) -> None:
        """Give a sign of life where claims are leases; one that comes too late leaves nothing to go on with."""
        now = time.monotonic()
        if self._lease_seconds is None or self._held is None or now - self._renewed < self._lease_seconds / _RENEWALS:
            return
        self._renewed = now
        if not renew(self._home):
            _log.warning("the lease of %s ran out", self._home)
            self._held = self._mark = None

    def _take(self, name: str) -> Lease | None:
        shard, _, entry = name.rpartition("/")
        try:
            # Through a descriptor: what was a shard when it was listed may since be a link to somebody's files.
            follow = os.O_NOFOLLOW if shard else 0
            directory = os.open(f"{self._new}/{shard}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
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
            case = f"{self._home}/{job}~{attempt}"
            try:
                os.mkdir(case)
            except FileExistsError:
                return None  # Claimed by this very worker under the same name; its turn comes.
            try:
                os.rename(entry, f"{case}/{_INPUT}", src_dir_fd=directory)
            except OSError as e:
                os.rmdir(case)
                if e.errno in STORAGE:
                    raise
                self._refuse(name, e)
                return None
            return Lease(job, attempt, Path(case))
        finally:
            os.close(directory)

    def _refuse(self, name: str, error: OSError) -> None:
        """Leave a job where it is, for its owner to see. Moving a directory takes the right to write to it."""
        if not isinstance(error, FileNotFoundError) and name not in self._refused:  # Gone: another was faster.
            if not self._refused:
                self._refused_since = time.monotonic()
            self._refused.add(name)
            _log.error("can't claim %r: %s", name, error)

    def _clear(self, home: Path, reason: Diagnostic | None, charge: int) -> Counter[Outcome]:
        """Empty the home of a worker that is gone and remove it. The caller holds its lock."""
        found: Counter[Outcome] = Counter()
        marked = _marked(home / MARK)
        for name in list_names(home):
            case = home / name
            job, _, attempt = name.rpartition("~")
            if name[0] == "." or not job or not attempt.isdecimal():
                continue
            if (case / EVENTS).is_file():
                self._conclude(os.fspath(case), job, "done")
                found["done"] += 1
            elif not os.path.lexists(case / _INPUT):
                remove(case)  # Stopped just before the claim, or just after the job was given back.
            elif (case / _FAILURE).is_file():
                self._conclude(os.fspath(case), job, "failed")
                found["failed"] += 1
            else:
                blamed = marked is None or marked == os.fsencode(name)
                found[self._again(Lease(job, int(attempt), case), reason, charge if blamed else 0)] += 1
        for name in (SCRATCH, TRACE, MARK):
            remove(home / name)
        # The lock's name goes last: without it there is nothing left to be claimed twice.
        for forget, path in ((os.unlink, home / LOCK), (os.rmdir, home)):
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
            self.dead(lease, [reason], _trace(lease.path.parent / TRACE))
            return "failed"
        self._give_back(lease.path, lease.job, lease.attempt + charge)
        return "retried"

    def _give_back(self, case: Path, job: str, attempt: int) -> None:
        # The token keeps a bare file from landing on another of its name: renaming a file replaces silently.
        (case / _INPUT).rename(self._root / "new" / f"{job}~{attempt}.{secrets.token_hex(8)}")
        remove(case)

    def _write(self, case: str, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file of a case whole or not at all."""
        part = f"{case}/{_PART}"
        left = self.config.job_output_bytes
        try:
            with open(part, "wb") as out:
                for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        break
                    out.write(chunk)
                if "file" in self._synced:
                    out.flush()
                    os.fsync(out.fileno())
            if left >= 0:
                os.rename(part, f"{case}/{name}")
                return
        except Exception:
            remove(Path(part))
            raise
        remove(Path(part))
        raise LimitExceeded("worker.job_output_bytes", self.config.job_output_bytes, what=name)

    def _conclude(self, case: str, job: str, state: Literal["done", "failed"]) -> None:
        """Move a decided case where it belongs."""
        if state == "done" and not self.config.keep_input:
            remove(Path(case, _INPUT))
        if "dir" in self._synced:
            sync(Path(case))
        directory = self._ended if state == "done" else self._root / "failed"
        settle(case, directory, job)
        if "dir" in self._synced:
            sync(directory)


STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Errors of the disk that are no job's fault."""


def settle(case: str, directory: Path, job: str) -> None:
    """Move a case into a directory, never over another of the same name. Raises OSError."""
    name = job
    for tries in reversed(range(_NAMESAKE_TRIES)):
        try:
            os.rename(case, f"{directory}/{name}")
            break
        except OSError as e:
            if not tries or e.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            name = f"{job}.{secrets.token_hex(4)}"


def waiting_jobs(root: Path) -> Iterator[str]:
    """Name everything in ``new/`` that is a job, relative to it."""
    return waiting(root, _AGAIN)


def _marked(path: Path) -> bytes | None:
    """Return the name of the case that was under way, None where none was noted: any may be to blame then."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read(_MARK_BYTES).partition(b"\0")[0] or None
    except OSError:
        return None


def _trace(path: Path) -> str:
    """Read what a process that was killed left of its stack; it was written by our own code."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read(_MAX_TRACE).decode("utf-8", "replace")
    except OSError:
        return ""
