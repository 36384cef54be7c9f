"""Remote symbol sources: symbol servers, debuginfod and S3 buckets, asked for what local sources lack.

This file says what to ask for, when, and what becomes of the answers; ``_http`` and ``_s3`` get one file. What arrives
goes to the store's ``tmp/``, is unpacked (symstore's ``.pd_`` are CAB files), must carry the module's id, and is then
renamed whole into the store, where it is a file like any that ``--symbols`` names::

    remote/<digest of the URL>/files/<path>        as the source's layout has it
    remote/<digest of the URL>/.notes.sqlite       what was not had, why and when; whether the source is skipped

Whatever a source does, it costs a crash no more than its own symbols: ``Answer`` says what was not had and why.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deadreckon import objects
from deadreckon.errors import (
    LimitExceeded,
    Malformed,
    Mismatch,
    MissingDependency,
    SourceUnavailable,
    SymbolError,
)
from deadreckon.symbols import layouts
from deadreckon.symbols._notes import Note, Notes
from deadreckon.symbols._transfer import Absent, Clock, Refused, Transient, Unreachable
from deadreckon.symbols.sources import matches
from deadreckon.wire import archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deadreckon.config import Config, RemoteLimits, SourceConfig
    from deadreckon.model.crash import Module
    from deadreckon.model.event import Diagnostic
    from deadreckon.symbols._transfer import Transfer
    from deadreckon.symbols.layouts import Candidate
    from deadreckon.symbols.store import SymbolStore

__all__ = ["Answer", "RemoteSource", "fetch"]

_PACKED = frozenset({"cab", "gz", "xz", "bz2", "zst"})
_AUTO = frozenset({"unified", "symstore", "debuginfod", "breakpad"})
_SKIPPED = "/skipped"
"""Under this name, which is no file's path, is noted why a source is left alone."""


@dataclass(slots=True)
class Answer:
    """What remote sources gave for a module."""

    files: list[str] = field(default_factory=list)
    """Paths of debug files in the store, each of which carries the module's id."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Files that were of no use: mismatch, malformed, refused or limit; and a message."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Sources that could not be asked, and why; what they have may be had later."""
    kinds: set[str] = field(default_factory=set)

    @property
    def whole(self) -> bool:
        """Whether nothing is left to ask for: a program and its debug information, or a Breakpad file for both."""
        return "breakpad" in self.kinds or {"debuginfo", "executable"} <= self.kinds


class RemoteSource:
    """One source. ``path`` is what the user called it. Safe to use from several threads."""

    def __init__(self, path: str, source: SourceConfig, config: Config, store: SymbolStore) -> None:
        self.path = path
        self.limits = limits = config.remote
        self.shown = source.url.partition("?")[0].rstrip("/")
        self._source = source
        self._archives = config.archive
        self._store = store
        root = store.root / "remote" / hashlib.sha256(source.url.encode()).hexdigest()[:32]
        self._files = root / "files"
        self._notes = Notes(root / ".notes.sqlite", max(limits.missing_seconds, limits.failure_seconds))
        self._transfer = _transfer(source, limits)
        self._failures = 0
        self._lock = threading.Lock()

    def hang_up(self) -> None:
        """Close connections that are kept for the next file."""
        self._transfer.hang_up()

    def ask(self, module: Module, clock: Clock) -> Answer:
        """Fetch a module's debug files, or find them fetched before."""
        answer = Answer()
        wanted = list(self._wanted(module))
        notes = self._notes.read([c.path for c in wanted])
        for candidate in wanted:
            if candidate.kind in answer.kinds or (candidate.kind == "breakpad" and answer.whole):
                continue
            target = self._files / candidate.path
            if not os.path.isfile(target):
                note = notes.get(candidate.path)
                known = note is not None and self._fresh(note)
                if not known:
                    note = self._get(candidate, module, target, clock)
                if note is not None:
                    self._tell(answer, note)
                    if not known and note.state in {"failed", "down"}:
                        break  # Its other files will fare no better now.
                    continue
            answer.files.append(str(target))
            answer.kinds.add(candidate.kind)
        return answer

    # -- What to ask for ----------------------------------------------------------------------------------------------

    def _wanted(self, module: Module) -> Iterator[Candidate]:
        for candidate in layouts.candidates(module):
            if self._takes(candidate):
                yield candidate
                if candidate.layout == "breakpad":
                    # Where symbol files pass through symstore.exe, they come out as CAB files, like PDBs.
                    yield replace(candidate, path=candidate.path[:-1] + "_")

    def _takes(self, candidate: Candidate) -> bool:
        """Say whether this source may have a file at this path."""
        layout, path = self._source.layout, candidate.path
        if candidate.kind not in self._source.kinds:
            return False
        # debuginfod has its files below buildid/, which may be a part of the URL already.
        below = path.startswith("buildid/")
        if candidate.layout == "debuginfod" and below == self.shown.endswith("/buildid"):
            return False
        if layout == "auto":
            return candidate.layout in _AUTO
        if layout == "ssqp":
            # Its paths are symstore's in lower case; layouts.py calls them so only where that makes a difference.
            return candidate.layout in {"ssqp", "symstore"} and path == path.lower()
        return candidate.layout == layout

    def _fresh(self, note: Note) -> bool:
        return note.age < (
            self.limits.failure_seconds if note.state in {"failed", "refused"} else self.limits.missing_seconds
        )

    def _tell(self, answer: Answer, note: Note) -> None:
        if note.state in {"failed", "down"}:
            answer.unavailable.setdefault(self.shown, note.why)
        elif note.state != "missing":
            answer.problems.append((note.state, note.why))

    # -- Getting it ---------------------------------------------------------------------------------------------------

    def _get(self, candidate: Candidate, module: Module, target: Path, clock: Clock) -> Note | None:
        """Fetch a file; return None, or what is the matter, which is noted. ``down``: no file can be had at present."""
        note: Note | None
        url = f"{self.shown}/{candidate.path}"
        try:
            if why := self._skipped():
                return _note("down", f"skipped for a while: {why}")
            if clock.over():
                return _note("down", "remote.total_seconds is over")
            self._fetch(candidate.path, module, target, clock)
        except (Transient, Unreachable, MissingDependency) as e:
            if clock.stopped:
                return _note("down", "interrupted")
            self._failed(str(e), at_once=not isinstance(e, Transient) or self._too_long(e))
            return self._notes.write(candidate.path, "failed", str(e))
        except Absent as e:
            note = self._notes.write(candidate.path, "missing", str(e))
        except Refused as e:
            note = self._notes.write(candidate.path, "refused", f"{url}: {e}")
        except (OSError, SourceUnavailable) as e:
            # Our own disk: that says nothing about the file, but downloading again won't make room.
            why = f"the symbol store can't be written to: {getattr(e, 'strerror', None) or e}"
            self._failed(why, at_once=True)
            return _note("down", why)
        except Mismatch as e:
            note = self._notes.write(candidate.path, "mismatch", str(e))
        except LimitExceeded as e:
            note = self._notes.write(candidate.path, "limit", f"{url}: {e}")
        except (SymbolError, Malformed) as e:
            note = self._notes.write(candidate.path, "malformed", f"{url}: {e}")
        else:
            note = None
        self._failures = 0  # It answered.
        return note

    def _fetch(self, path: str, module: Module, target: Path, clock: Clock) -> None:
        with self._scratch() as arrived, self._scratch() as unpacked:
            for attempt in range(max(0, self.limits.retries) + 1):
                try:
                    self._download(path, arrived, clock)
                    break
                except Transient as e:
                    wait = e.retry_after
                    if wait is None:
                        wait = self.limits.retry_wait_seconds * 2**attempt
                    if attempt >= self.limits.retries or self._too_long(e) or not clock.wait(wait) or self._skipped():
                        raise
            file = self._unpack(arrived, unpacked)
            self._check(file, f"{self.shown}/{path}", module)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():  # Another process was faster; a file that is in use stays the same file.
                os.replace(file, target)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        path = self._store.temporary / f"remote-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _download(self, path: str, arrived: Path, clock: Clock) -> None:
        with self._transfer.get(path, clock) as blocks, arrived.open("wb") as file:
            file.writelines(blocks)

    def _unpack(self, arrived: Path, unpacked: Path) -> Path:
        """Return the debug file in what arrived: itself, or the one file in a compressed one."""
        with arrived.open("rb") as file:
            head = file.read(archive.HEAD_BYTES)
        if objects.sniff(head) is not None:
            return arrived
        if archive.sniff(head) not in _PACKED:
            raise SymbolError("not a debug file")
        problems: list[Diagnostic] = []
        spool = str(self._store.temporary)
        try:
            for member in archive.unpack(str(arrived), self._archives, name="file", spool_dir=spool, problems=problems):
                if len(member.data) > self.limits.max_bytes:
                    raise LimitExceeded("remote.max_bytes", self.limits.max_bytes, len(member.data))
                if objects.sniff(member.data[:64]) is not None:
                    unpacked.write_bytes(member.data)
                    return unpacked
        except MissingDependency as e:
            raise Refused(str(e)) from e
        raise SymbolError("; ".join(p.message or p.code for p in problems) or "no debug file in it")

    def _check(self, file: Path, url: str, module: Module) -> None:
        """Raise Mismatch where a file is another module's, SymbolError where it can't be read."""
        try:
            found = self._store.identify(str(file))
        except SourceUnavailable:
            raise
        except (SymbolError, LimitExceeded) as e:
            raise SymbolError(str(e).replace(f"{file}: ", "")) from e
        if not any(matches(module, o["debug_id"], o["code_id"]) for o in found):
            wanted = str(module.debug_id or module.code_id)
            got = sorted({str(o["debug_id"] or o["code_id"]) for o in found})
            raise Mismatch(wanted, ", ".join(got) or "none", url)

    # -- Whether to ask at all ----------------------------------------------------------------------------------------

    def _too_long(self, error: Transient) -> bool:
        return error.retry_after is not None and error.retry_after > self.limits.max_retry_wait_seconds

    def _skipped(self) -> str | None:
        """Return why the source is left alone at present."""
        note = self._notes.read([_SKIPPED]).get(_SKIPPED)
        return note.why if note is not None and note.age < self.limits.skip_seconds else None

    def _failed(self, why: str, *, at_once: bool) -> None:
        # After the pause one more failure is enough: only an answer sets the count back.
        with self._lock:
            self._failures += 1
            if at_once or self._failures >= self.limits.skip_after:
                self._notes.write(_SKIPPED, "skipped", why)


def _note(state: str, why: str) -> Note:
    return Note(state, why, time.time())


def _transfer(source: SourceConfig, limits: RemoteLimits) -> Transfer:
    if source.url.startswith("s3:"):
        from deadreckon.symbols._s3 import S3  # noqa: PLC0415

        return S3(source, limits)
    from deadreckon.symbols._http import Http  # noqa: PLC0415

    return Http(source, limits)


def fetch(sources: Sequence[RemoteSource], modules: Sequence[Module]) -> list[Answer]:
    """Ask for the modules of one crash, several at a time; each module's sources are asked in order until it is whole.

    Returns an Answer for each module. Ends in about ``remote.total_seconds`` whatever the sources do.
    """
    if not sources or not modules:
        return [Answer() for _ in modules]
    limits = sources[0].limits
    clock = Clock(limits.total_seconds)

    def ask(module: Module) -> Answer:
        answer = Answer()
        for source in sources:
            found = source.ask(module, clock)
            answer.files += found.files
            answer.problems += found.problems
            answer.unavailable |= found.unavailable
            answer.kinds |= found.kinds
            if answer.whole:
                answer.unavailable.clear()  # What could not be asked was not needed.
                break
        return answer

    asked = modules[: max(0, limits.max_modules)]
    pool = ThreadPoolExecutor(max(1, min(limits.parallel, len(asked))), "deadreckon-fetch")
    try:
        answers = list(pool.map(ask, asked))
    finally:
        clock.stop()
        pool.shutdown(cancel_futures=True)
        for source in sources:
            source.hang_up()
    problem = f"not asked for: limit remote.max_modules is {limits.max_modules}"
    return answers + [Answer(problems=[("limit", problem)]) for _ in modules[len(asked) :]]
