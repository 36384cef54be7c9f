"""Unpacks what a crash or its symbols arrived in: archives, compressed files, and archives inside those.

Content is streamed through libarchive (or the standard library where libarchive is absent) into memory or into an
unlinked temporary file: a name from an archive is only ever shown, never opened, created or followed. What is an
archive is decided here by its first bytes, and each kind opens exactly the formats and filters it needs, so neither
a crafted file nor a surprising one can choose its parser.

This file has the limits and the order of things; ``_kinds`` tells an archive by its first bytes, ``_reading`` is what a
backend offers, ``_libarchive`` and ``_stdlib_archive`` are the two backends, ``_directories`` what both check first.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed, MissingDependency
from deadreckon.model.event import Diagnostic
from deadreckon.wire import _salvage
from deadreckon.wire._kinds import COMPRESSED, HEAD_BYTES, sniff
from deadreckon.wire._reading import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO, Self

    from deadreckon.config import ArchiveLimits
    from deadreckon.wire._reading import Backend, Entry, Reader

__all__ = ["COMPRESSED", "HEAD_BYTES", "Buffer", "Member", "backend", "sniff", "unpack"]

Buffer = bytes | bytearray | memoryview | mmap.mmap
"""What content may come in."""

SMALL_BYTES = 8 << 20
"""Content up to this size stays in memory; above it goes to a temporary file."""

NOTES_PER_CODE = 16
"""Diagnostics kept of each code: an archive of 100,000 links needs no 100,000 lines to say so."""

_SUFFIXES = (".gz", ".xz", ".bz2", ".zst", ".zstd", ".lzma", ".lz", ".lz4", ".z", ".rpm")


@dataclass(slots=True)
class Member:
    """A file found in an archive. ``name`` is as the archive says, for display only.

    ``container`` names the archives around it, outermost first. ``data`` above SMALL_BYTES is a read-only mapping of
    an unlinked temporary file, gone when the mapping is.
    """

    name: str
    container: tuple[str, ...]
    data: bytes | mmap.mmap
    cut: bool = False
    """Whether this is only the beginning of it: the file it was compressed in was cut short."""


@dataclass(slots=True)
class Budget:
    """What one call of ``unpack`` has used so far, over all the archives inside one another."""

    limits: ArchiveLimits
    entries: int = 0
    total_bytes: int = 0
    read_bytes: int = 0
    """Bytes read of the outermost archive: inner ones come out of it, so bombs in bombs multiply against this."""
    at: str = ""
    """The entry under way."""

    def enter(self, at: str) -> None:
        """Count an entry. Raises LimitExceeded."""
        self.at = at
        self.entries += 1
        if self.entries > self.limits.max_entries:
            raise LimitExceeded("max_entries", self.limits.max_entries, self.entries, at)

    def spend(self, size: int) -> None:
        """Count content, in bytes. Raises LimitExceeded."""
        limits = self.limits
        self.total_bytes += size
        if self.total_bytes > limits.max_total_bytes:
            raise LimitExceeded("max_total_bytes", limits.max_total_bytes, self.total_bytes, self.at)
        ratio = self.total_bytes / max(self.read_bytes, 1)
        if self.total_bytes > limits.ratio_grace_bytes and ratio > limits.max_ratio:
            raise LimitExceeded("max_ratio", limits.max_ratio, round(ratio), self.at)


def backend() -> str:
    """Return what opens archives here: "libarchive 3.6.2" or "standard library"."""
    return _backend().name()


def unpack(
    source: str | os.PathLike[str] | Buffer,
    limits: ArchiveLimits,
    *,
    name: str,
    spool_dir: str | None = None,
    problems: list[Diagnostic],
) -> Iterator[Member]:
    """Yield the files in an archive, and in the archives in it, in their order.

    ``name`` is what the archive is called; ``spool_dir`` is where large content goes (None: the system's temporary
    directory). What can't be had is told in ``problems``: damage, skipped entries, limits; whatever was yielded before
    stays valid. An entry above max_entry_bytes is dropped and the next one read; a limit on the whole (entries, total,
    ratio) ends the iteration.

    Raises, at the first step, Malformed where no entry can be read, MissingDependency where the kind needs libarchive
    and it is absent; OSError where the source can't be read or the spool not written.
    """
    work = _Unpacking(Budget(limits), spool_dir, problems)
    try:
        yield from work.archive(os.fspath(source) if isinstance(source, str | os.PathLike) else source, (name,))
    except LimitExceeded as e:
        work.limit(e.limit, e.allowed, work.budget.at, str(e), always=True)


@dataclass(slots=True)
class _Unpacking:
    budget: Budget
    spool_dir: str | None
    problems: list[Diagnostic]
    noted: Counter[str] = field(default_factory=Counter)

    def archive(self, source: str | Buffer, path: tuple[str, ...]) -> Iterator[Member]:
        shown, spent = "/".join(path), self.budget.total_bytes
        with contextlib.ExitStack() as stack:
            where: str | memoryview
            if isinstance(source, str):
                where = source
                with open(source, "rb") as file:
                    kind = sniff(file.read(HEAD_BYTES))
            else:
                where = stack.enter_context(memoryview(source).cast("B"))
                kind = sniff(where[:HEAD_BYTES])
            if kind is None:
                raise Malformed(f"{path[-1]}: not an archive")
            try:
                reader = stack.enter_context(_backend().open_archive(where, kind))
            except Damaged as e:
                if (cut := self.salvaged(where, kind, path, spent)) is None:
                    raise Malformed(f"{path[-1]}: {kind} archive can't be opened: {e}") from e
                self.note("archive_damaged", shown, f"{e}; its first {len(cut.data)} bytes are used")
                yield from self.member(cut)
                return
            except LimitExceeded as e:
                self.limit(e.limit, e.allowed, shown, f"{shown}: {e}")
                return
            if reader.filters > self.budget.limits.max_filters:
                told = f"{shown}: {reader.filters} layers of compression"
                self.limit("max_filters", self.budget.limits.max_filters, shown, told)
                return
            yield from self.members(reader, path, lambda: self.salvaged(where, kind, path, spent))

    def salvaged(self, source: str | memoryview, kind: str, path: tuple[str, ...], spent: int) -> Member | None:
        """Return the beginning of a compressed file that was cut short; None where nothing of it can be had.

        ``spent`` is what had been read before this file: it is now read from its beginning once more.
        """
        if kind not in _salvage.KINDS:
            return None
        self.budget.total_bytes = spent
        name, limits = _without_suffixes(path[-1], 1), self.budget.limits
        with _Sink(self.spool_dir) as sink:
            try:
                for read, offset, block in _salvage.salvage(source, kind):
                    if not path[1:]:
                        self.budget.read_bytes = max(self.budget.read_bytes, read)
                    self.budget.spend(len(block))
                    if offset + len(block) > limits.max_entry_bytes:
                        return None
                    sink.put(offset, block, keep=True)
            except Damaged:
                return None
            return Member(name, path, sink.result(), cut=True) if sink.size else None

    def members(self, reader: Reader, path: tuple[str, ...], salvaged: Callable[[], Member | None]) -> Iterator[Member]:
        entries, seen = reader.entries(), 0
        while True:
            try:
                entry = next(entries, None)
            except Damaged as e:
                if not seen:
                    raise Malformed(f"{path[-1]}: no entry can be read: {e}") from e
                self.note("archive_damaged", "/".join(path), str(e))
                return
            if entry is None:
                break
            seen += 1
            name = _without_suffixes(path[-1], reader.filters) if reader.single else entry.name or f"entry {seen}"
            try:
                data = self.content(reader, entry, name, path)
            except Damaged as e:
                cut = salvaged() if reader.single else None
                if cut is None and e.kept is not None:
                    cut = Member(name, path, e.kept, cut=True)
                if cut is not None:
                    self.note("archive_damaged", self.budget.at, f"{e}; its first {len(cut.data)} bytes are used")
                    yield from self.member(cut)
                    return
                self.note("archive_damaged", self.budget.at, str(e))
                if e.fatal:
                    return
                continue
            if data is not None:
                yield from self.member(Member(name, path, data))
        if not seen:
            raise Malformed(f"{path[-1]}: the archive is empty")

    def content(self, reader: Reader, entry: Entry, name: str, path: tuple[str, ...]) -> bytes | mmap.mmap | None:
        """Read an entry, or read past it: None, with a note where that means a loss."""
        limits, at = self.budget.limits, "/".join((*path, name[:256]))
        self.budget.enter(at)
        self.count_read(reader, path)
        self.budget.spend(entry.header_bytes)
        if entry.refused:
            self.note("archive_entry_skipped", at, entry.refused)
            return None
        wanted = entry.kind == "file"
        if len(name.encode("utf-8", "replace")) > limits.max_name_bytes:
            wanted = False
            self.limit("max_name_bytes", limits.max_name_bytes, at, f"{at}...: name is too long")
        elif entry.kind in {"link", "special"}:
            self.note("archive_entry_skipped", at, f"a {entry.kind} is never followed")
        with _Sink(self.spool_dir) as sink:
            # What isn't wanted is read as well: libarchive would inflate it uncounted on the way to the next entry,
            # and a directory in a tar.gz may claim a terabyte of content (test_bombs).
            try:
                for offset, block in reader.blocks():
                    self.count_read(reader, path)
                    if offset < sink.size:
                        raise Damaged("content overlaps itself", fatal=True)  # noqa: TRY301
                    end = offset + len(block)
                    self.budget.spend(end - sink.size)
                    if wanted and end > limits.max_entry_bytes:
                        wanted = False
                        sink.drop()
                        self.limit("max_entry_bytes", limits.max_entry_bytes, at, f"{at}: entry is too large")
                    sink.put(offset, block, keep=wanted)
            except Damaged as e:
                # libarchive says "Truncated zstd input", as systemd writes its cores.
                if reader.single and wanted and sink.size and "runcated" in str(e):
                    e.kept = sink.result()
                raise
            return sink.result() if wanted else None

    def count_read(self, reader: Reader, path: tuple[str, ...]) -> None:
        if not path[1:]:
            self.budget.read_bytes = max(self.budget.read_bytes, reader.bytes_read())

    def member(self, member: Member) -> Iterator[Member]:
        kind = sniff(member.data[:HEAD_BYTES])
        if kind is None:
            yield member
            return
        path = (*member.container, member.name)
        if len(path) > self.budget.limits.max_depth:
            shown = "/".join(path)
            self.limit("max_depth", self.budget.limits.max_depth, shown, f"{shown}: {kind} archive is nested too deep")
            return
        try:
            yield from self.archive(member.data, path)
        except Malformed as e:
            # It may only begin like an archive: its bytes may still mean something to a reader of reports.
            self.note("archive_damaged", "/".join(path), str(e))
            yield member
        except MissingDependency as e:
            self.note("archive_entry_skipped", "/".join(path), str(e))

    def note(self, code: str, at: str, why: str) -> None:
        self.noted[code] += 1
        if self.noted[code] <= NOTES_PER_CODE:
            message = f"{at}: {why}"
            self.problems.append(
                Diagnostic(code=code, severity="warning", stage="unpack", message=message, where={"entry": at})
            )

    def limit(self, limit: str, allowed: float, at: str, message: str, *, always: bool = False) -> None:
        self.noted["archive_limit"] += 1
        if always or self.noted["archive_limit"] <= NOTES_PER_CODE:
            where: dict[str, str | int] = {"limit": limit, "allowed": int(allowed), "entry": at}
            self.problems.append(
                Diagnostic(code="archive_limit", severity="warning", stage="unpack", message=message, where=where)
            )


class _Sink:
    """Takes one entry's content in order: in memory while small, then in an unlinked file."""

    def __init__(self, spool_dir: str | None) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self._spool_dir = spool_dir

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def put(self, offset: int, block: bytes, *, keep: bool) -> None:
        gap = offset - self.size
        self.size = offset + len(block)
        if not keep:
            return
        if self._file is None and self.size > SMALL_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._spool_dir)  # noqa: SIM115 - closed by drop
            self._file.writelines(self._parts)
            self._parts.clear()
        if self._file is None:
            self._parts += (bytes(gap), block) if gap else (block,)
            return
        if gap:
            self._file.truncate(offset)
            self._file.seek(offset)
        self._file.write(block)

    def drop(self) -> None:
        self._parts.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def result(self) -> bytes | mmap.mmap:
        if self._file is None:
            return b"".join(self._parts)
        self._file.flush()
        return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)


def _without_suffixes(name: str, layers: int) -> str:
    for _ in range(layers):
        root, suffix = os.path.splitext(name)
        if not root or suffix.lower() not in _SUFFIXES:
            break
        name = root
    return name


def _backend() -> Backend:
    from deadreckon.wire import _libarchive, _stdlib_archive  # noqa: PLC0415 - loading the library takes a while

    return _libarchive if _libarchive.available() else _stdlib_archive
