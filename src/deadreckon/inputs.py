"""What an input holds: one crash, or an archive of crashes, debug files and other attachments.

An archive's content is told by its bytes, never by its names, and written only to a scratch directory under names of
our own.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self, Union

from deadreckon import objects, reports
from deadreckon.errors import DeadreckonError, Malformed, UnknownFormat
from deadreckon.model.event import Attachment, Diagnostic
from deadreckon.symbols import companions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deadreckon.config import ArchiveLimits, BttConfig
    from deadreckon.wire import archive

__all__ = [
    "Crash",
    "Data",
    "Scratch",
    "crashes",
    "debug_files",
    "digest",
    "is_archive",
    "open_input",
    "size_of",
    "spool",
    "standard_input",
    "symbol_files",
    "write",
]

Data = bytes | mmap.mmap
Source = Union[str, os.PathLike[str], bytes, memoryview, "Crash"]

_HASHED = 64 << 20
"""How much of a mapped file is in memory at once while it is hashed."""
_SMALL = 1 << 20
_IN_MEMORY = 64 << 20
"""How many bytes of an archive's crashes are held in memory until its symbols are known; the rest waits in files."""


@dataclass(slots=True)
class Crash:
    """One crash report, out of whatever held it; ``symbols`` is a directory of the debug files found beside it."""

    data: Data
    name: str | None
    form: reports.ReportFormat
    container: list[str] = field(default_factory=list)
    symbols: str | None = None
    attachments: list[Attachment] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)


def open_input(source: str | os.PathLike[str] | bytes | memoryview) -> Data:
    """Return an input's bytes; a file is mapped, unless it is small. Raises OSError."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, memoryview):
        return source.tobytes()
    with open(source, "rb", buffering=0) as file:
        # Pipes and /proc files have no size to map by. Mapping costs more than reading what is small.
        return _map(file.fileno()) if os.fstat(file.fileno()).st_size > _SMALL else file.readall()


def size_of(source: Source) -> int | None:
    """Return an input's size in bytes, None where it can't be told."""
    if isinstance(source, Crash):
        return len(source.data)
    if isinstance(source, bytes | memoryview):
        return len(source)
    try:
        return os.stat(source).st_size
    except OSError:
        return None


def digest(data: Data) -> str:
    """Return the SHA-256 of an input in hex. A core of several GB passes through memory, and does not stay there."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    total = hashlib.sha256()
    size = len(data)
    with memoryview(data) as view:
        for start in range(0, size, _HASHED):
            total.update(view[start : start + _HASHED])
            if size > _HASHED and hasattr(mmap, "MADV_DONTNEED"):
                data.madvise(mmap.MADV_DONTNEED, start, min(_HASHED, size - start))
    return total.hexdigest()


class Scratch:
    """A temporary directory that is made when it is first needed: most inputs need none."""

    def __init__(self, parent: Callable[[], str | None]) -> None:
        self._parent = parent
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @property
    def path(self) -> str:
        """The directory. Raises OSError where it can't be made."""
        if self._made is None:
            self._made = tempfile.TemporaryDirectory(dir=self._parent())
        return self._made.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


def crashes(
    source: Source | mmap.mmap,
    name: str | None,
    kind: str | None,
    limits: ArchiveLimits,
    scratch: Scratch,
    btt: BttConfig | None = None,
) -> Iterator[Crash]:
    """Yield the crashes in an input: itself, or those of an archive, with the debug files that lie beside them.

    ``kind`` is a report's format, for an input that must not be guessed. What is known by its name alone goes through
    the converter that ``btt`` names, else to the reader that the name leads to, for what that has to say of it. Raises
    UnknownFormat where there is none, OSError. A crash that was found already is all there is.
    """
    if isinstance(source, Crash):
        yield source
        return
    data = source if isinstance(source, mmap.mmap) else open_input(source)
    hint = reports.hinted(name, kind)
    recognised = _recognised(data, name, None if hint is not None else kind, limits, scratch)
    try:
        first = next(recognised)
    except (UnknownFormat, Malformed):
        if hint is None:
            raise
        first = Crash(data, name, hint)
    for crash in chain([first], recognised):
        by_name = bool(crash.form.suffix) and not crash.form.sniff(reports.Probe(crash.data))
        if by_name and btt is not None and btt.converter:
            yield from _converted(crash, btt, limits, scratch)
        else:
            yield crash


def _converted(crash: Crash, btt: BttConfig, limits: ArchiveLimits, scratch: Scratch) -> Iterator[Crash]:
    """Yield what the configured command makes of a crash, the crash itself where that is nothing."""
    from deadreckon.wire.convert import convert  # noqa: PLC0415

    directory = Path(tempfile.mkdtemp(dir=scratch.path))
    output = directory / "out" / "output"
    output.parent.mkdir()
    label = os.path.basename(crash.name or "input.btt")
    try:
        source = write(directory / "input.btt", crash.data)
        convert(btt.converter, source, output, seconds=btt.converter_seconds, max_bytes=btt.converter_max_bytes)
        found = list(_recognised(open_input(output), "output", None, limits, scratch))
    except DeadreckonError as e:
        message = f"{label}: {e}"
        crash.problems.append(Diagnostic(code="converter_failed", severity="error", stage="unpack", message=message))
        yield crash
        return
    message = f"{label}: converted by {btt.converter[0]}"
    for made in found:
        made.container = [*crash.container, label, *made.container]
        made.problems.append(Diagnostic(code="converted", severity="info", stage="unpack", message=message))
        yield made


def _recognised(
    data: Data, name: str | None, kind: str | None, limits: ArchiveLimits, scratch: Scratch
) -> Iterator[Crash]:
    if not len(data):
        raise UnknownFormat("the input is empty")
    probe = reports.Probe(data, name)
    if (form := reports.detect(probe, kind)) is not None:
        yield Crash(data, name, form)
        return
    from deadreckon.wire import archive  # noqa: PLC0415  (most inputs are no archive)

    head = probe.head
    artifact = objects.sniff(head)
    if artifact is not None:
        raise UnknownFormat(f"this is a debug file or an executable ({artifact}), not a crash")
    if archive.sniff(head) is None:
        raise UnknownFormat(f"no reader recognises it; it starts with {head[:16]!r}")
    yield from _unpacked(data, os.path.basename(name or "archive"), limits, scratch.path)


def _unpacked(data: Data, name: str, limits: ArchiveLimits, scratch: str) -> Iterator[Crash]:
    from deadreckon.wire import archive  # noqa: PLC0415

    problems: list[Diagnostic] = []
    attachments: list[Attachment] = []
    found: list[tuple[bytes | Path, archive.Member, reports.ReportFormat]] = []
    lesser: list[tuple[bytes | Path, archive.Member, reports.ReportFormat]] = []
    directory = Path(scratch) / "symbols"
    held = 0
    for at, member in enumerate(archive.unpack(data, limits, name=name, spool_dir=scratch, problems=problems)):
        probe = reports.Probe(member.data, member.name)
        form, sort = reports.detect(probe), found
        if form is None and objects.sniff(probe.head) is None:
            form, sort = reports.hinted(member.name), lesser
        elif form is not None and form.log:
            sort = lesser  # Beside a dump, a log is what the program wrote before it died.
        if form is not None:
            held += len(member.data)
            if held <= _IN_MEMORY:
                sort.append((bytes(member.data), member, form))
            else:
                sort.append((write(Path(scratch) / f"crash-{at}", member.data), member, form))
            member.data = b""
        elif not member.cut and (objects.sniff(probe.head) is not None or companions.name_of(member.name)):
            directory.mkdir(exist_ok=True)
            _place(member, directory, at)
        else:
            attachments.append(Attachment(name=member.name, size=len(member.data)))
    if found:
        attachments += [Attachment(name=member.name, size=_length(content)) for content, member, _ in lesser]
    found = found or lesser
    if not found:
        detail = "; ".join(f"{p.code}: {p.message}" for p in problems[:3])
        raise UnknownFormat("the archive holds no crash report" + (f" ({detail})" if detail else ""))
    for content, member, form in found:
        yield Crash(
            data=content if isinstance(content, bytes) else open_input(content),
            name=member.name,
            form=form,
            container=list(member.container),
            symbols=str(directory) if directory.is_dir() else None,
            # Of several crashes nobody can tell whose the other files are.
            attachments=attachments if len(found) == 1 else [],
            problems=list(problems),
        )


def _length(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def is_archive(path: str) -> bool:
    """Tell whether a file is an archive, as opposed to one debug file. Raises OSError."""
    from deadreckon.wire import archive  # noqa: PLC0415

    head = _head(path)
    return objects.sniff(head) is None and archive.sniff(head) is not None


def debug_files(
    path: str, limits: ArchiveLimits, directory: Path, problems: list[Diagnostic]
) -> Iterator[tuple[Path, str]]:
    """Write the debug files of an archive into a directory; yield the path of each and its name in the archive.

    ``problems`` takes what could not be read.
    """
    from deadreckon.wire import archive  # noqa: PLC0415

    # An Xcode archive has its BCSymbolMaps before its dSYMs or after them.
    later: list[tuple[Path, str]] = []
    members = archive.unpack(path, limits, name=os.path.basename(path), spool_dir=str(directory), problems=problems)
    for at, member in enumerate(members):
        kind = objects.sniff(bytes(member.data[: reports.HEAD_BYTES]))
        if member.cut or (kind is None and not companions.name_of(member.name)):
            continue  # Half a debug file would answer for the whole.
        placed = _place(member, directory, at)
        if kind == "macho":
            later.append((placed, member.name))
        elif kind is not None:
            yield placed, member.name
    yield from later


def _place(member: archive.Member, directory: Path, at: int) -> Path:
    """Write a debug file under its number, or what belongs to one under the name by which it is found."""
    path = directory / (companions.name_of(member.name) or str(at))
    return path if path.exists() else write(path, member.data)


@dataclass(slots=True)
class SymbolFile:
    """A debug file to be imported, or what there is instead: ``problem``.

    ``origin`` is the name of what ``path`` is a copy of, for as long as the next one isn't asked for.
    """

    path: str
    origin: str | None = None
    problem: str | None = None


def symbol_files(
    path: str, limits: ArchiveLimits, scratch: str | None, origin: str | None = None
) -> Iterator[SymbolFile]:
    """Yield the debug files in a file, an archive or a directory of them; files of other kinds are left out."""
    if os.path.isdir(path):
        for directory, names, files in os.walk(path):
            names.sort()
            for file in sorted(files):
                found = os.path.join(directory, file)
                if os.path.isfile(found):  # A pipe would be waited for.
                    yield from symbol_files(found, limits, scratch)
        return
    name = path if origin is None else origin
    try:
        head = _head(path)
    except OSError as e:
        yield SymbolFile(path, origin, f"{name}: {e.strerror}")
        return
    if objects.sniff(head) is not None:
        yield SymbolFile(path, origin)
        return
    from deadreckon.wire import archive  # noqa: PLC0415

    if archive.sniff(head) is None:
        return
    problems: list[Diagnostic] = []
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            for copy, member in debug_files(path, limits, Path(directory), problems):
                yield SymbolFile(str(copy), f"{name}:{member}")
                copy.unlink()
    except DeadreckonError as e:
        yield SymbolFile(path, origin, f"{name}: {e}")
    except OSError as e:
        yield SymbolFile(path, origin, f"{name}: can't be unpacked: {e.strerror}")
    for problem in problems:
        yield SymbolFile(path, origin, f"{name}: {problem.code}: {problem.message}")


def standard_input(limit: int) -> bytes:
    """Return what standard input holds, up to a byte more than the limit: enough to see that it is too much."""
    return sys.stdin.buffer.read(limit + 1)


def spool(scratch: Scratch, data: Data) -> str:
    """Write what is too large for a message into a scratch directory; return the file's path."""
    descriptor, path = tempfile.mkstemp(dir=scratch.path)
    with open(descriptor, "wb") as file, memoryview(data) as view:
        file.write(view)
    return path


def write(path: Path, data: Data) -> Path:
    """Write a new file and return its path."""
    with path.open("xb") as file, memoryview(data) as view:
        file.write(view)
    return path


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(reports.HEAD_BYTES)


def _map(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
