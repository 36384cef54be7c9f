"""Unreal Engine's crash containers (``.ue4crash``, what CrashReportClient uploads), into one crash with attachments.

A container is a zlib stream of a header and the files of one crash, all little-endian::

    before 4.25:  Header  File*  Header        the first is a placeholder, the last is the true one
    since:        "CR1"   Header  File*
    Header:       AnsiString directory_name, AnsiString file_name, i32 uncompressed_size, i32 file_count
    File:         i32 index, AnsiString name, i32 length, bytes
    AnsiString:   u32 length, bytes padded with NUL

Sources: Unreal Engine ``FCompressedCrashFile`` and ``FGenericCrashContext``; the names of properties are the engine's.
The files are a minidump (on Macs a crash report of Apple's under that name), the context as XML and logs. What is
inside the minidump makes the crash; the context adds to it, and stands for it where there is none.
"""

from __future__ import annotations

import mmap
import re
import struct
import tempfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deadreckon import reports
from deadreckon.config import ArchiveLimits
from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed
from deadreckon.model.crash import RawCrash
from deadreckon.model.event import Attachment, Diagnostic
from deadreckon.reports import unrealcontext

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["read"]

MAX_FILES = 4096
MAX_NAME = 4096
_MAGIC = b"CR1"
_SMALL = 16 << 20
"""Up to this size a container is inflated in memory, beyond it into a temporary file without a name."""
_BLOCK = 1 << 20
_ARCHIVE = ArchiveLimits()
_COUNTS = struct.Struct("<ii")
_INTEGER = struct.Struct("<i")


@dataclass(slots=True)
class _File:
    name: str
    data: memoryview


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a container. The crash's memory is a view of what was inflated.

    Raises Malformed where the stream or the first record can't be read, LimitExceeded where it inflates to too much.
    """
    problems: list[Diagnostic] = []
    files = _files(_inflate(data, limits, problems), problems)
    crash = _crash(files, limits, problems)
    crash.format = "unreal"
    crash.attachments = [Attachment(name=f.name, size=len(f.data)) for f in files] + crash.attachments
    crash.diagnostics[:0] = problems
    return crash


# --- The container ----------------------------------------------------------------------------------------------------


def _inflate(data: memoryview, limits: ReportLimits, problems: list[Diagnostic]) -> memoryview:
    """Return the stream's content; of a damaged or cut stream what could be had, with a diagnostic."""
    if bytes(data[:1]) != b"\x78":
        return data  # Somebody on the way has inflated it.
    allowed = min(limits.max_bytes, _ARCHIVE.max_total_bytes)
    ratio = max(_ARCHIVE.ratio_grace_bytes, len(data) * _ARCHIVE.max_ratio)
    stream = zlib.decompressobj()
    size = at = 0
    with tempfile.SpooledTemporaryFile(max_size=_SMALL) as file:
        while at < len(data) and not stream.eof:
            block = stream.unconsumed_tail or bytes(data[at : (at := at + _BLOCK)])
            while block:
                try:
                    part = stream.decompress(block, _BLOCK)
                except zlib.error as e:
                    if not size:
                        raise Malformed("Unreal container", offset=at, expected="a zlib stream", got=str(e)) from e
                    problems.append(_note("malformed", f"the stream is damaged: {e}", {"offset": at}))
                    return _content(file)
                size += len(part)
                if size > min(allowed, ratio):
                    raise LimitExceeded("max_total_bytes" if size > allowed else "max_ratio", min(allowed, ratio), size,
                                        "Unreal container")  # fmt: skip
                file.write(part)
                block = stream.unconsumed_tail
        if not stream.eof:
            problems.append(_note("truncated", "the container's stream ends early", {"got": size}))
        return _content(file)


def _content(file: Any) -> memoryview:
    """Return what was written to a spooled file, mapped where it is on a disk."""
    file.flush()
    if file._rolled:  # noqa: SLF001 - the only way to tell
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    file.seek(0)
    return memoryview(file.read())


def _files(content: memoryview, problems: list[Diagnostic]) -> list[_File]:
    """Return the container's files. One that was cut short ends in something else than its count of files."""
    new = bytes(content[:3]) == _MAGIC
    at, count = _header(content, len(_MAGIC) if new else 0)
    if not new:
        count = _INTEGER.unpack_from(content, len(content) - _INTEGER.size)[0]
    found: list[_File] = []
    while len(found) < (count if 0 < count <= MAX_FILES else MAX_FILES):
        try:
            after, name = _record(content, at, len(found))
        except Malformed as e:
            if not found:
                raise
            problems.append(_note("truncated", f"the list of files ends early: {e}", e.where()))
            break
        length = _INTEGER.unpack_from(content, after)[0]
        at = after + _INTEGER.size
        rest = len(content) - at
        if not 0 <= length <= rest:
            where: dict[str, str | int] = {"offset": at, "expected": length, "got": rest}
            problems.append(_note("truncated", f"{name} is cut short", where))
            length = rest
        found.append(_File(name, content[at : at + length]))
        at += length
    if not problems and new and at != len(content):
        problems.append(_note("malformed", f"{len(content) - at} bytes follow the last file", {"offset": at}, "info"))
    return found


def _header(content: memoryview, at: int) -> tuple[int, int]:
    for _ in range(2):
        at, _name = _string(content, at, "header")
    if at + _COUNTS.size > len(content):
        raise Malformed("Unreal container", offset=at, expected="uncompressed_size and file_count", got=len(content))
    return at + _COUNTS.size, _COUNTS.unpack_from(content, at)[1]


def _record(content: memoryview, at: int, number: int) -> tuple[int, str]:
    """Return where a file's length stands, and its name. Raises Malformed where another index stands there."""
    if at + _INTEGER.size > len(content):
        raise Malformed("Unreal container", offset=at, expected="a file's index", got="the end")
    index = _INTEGER.unpack_from(content, at)[0]
    if index != number:
        raise Malformed("Unreal container", offset=at, expected=f"file {number}", got=index)
    at, name = _string(content, at + _INTEGER.size, "file")
    if at + _INTEGER.size > len(content):
        raise Malformed("Unreal container", offset=at, expected=f"the length of {name!r}", got="the end")
    return at, name


def _string(content: memoryview, at: int, what: str) -> tuple[int, str]:
    if at + 4 > len(content):
        raise Malformed("Unreal container", offset=at, expected=f"the length of a {what}'s name", got="the end")
    length = int.from_bytes(content[at : at + 4], "little")
    at += 4
    if length > MAX_NAME or at + length > len(content):
        raise Malformed("Unreal container", offset=at - 4, expected=f"a {what}'s name", got=f"{length} bytes")
    text = bytes(content[at : at + length]).split(b"\0", 1)[0].decode("utf-8", "replace")
    return at + length, re.sub(r"[\x00-\x1f]", "", text)


# --- The crash --------------------------------------------------------------------------------------------------------


def _crash(files: list[_File], limits: ReportLimits, problems: list[Diagnostic]) -> RawCrash:
    found = _inner(files, limits, problems)
    crash = found or RawCrash("unreal")
    context = next((f for f in files if f.name.lower().endswith(".runtime-xml")), None)
    if context is not None:
        try:
            unrealcontext.apply(crash, bytes(context.data[: unrealcontext.MAX_BYTES]), limits)
        except Malformed as e:
            problems.append(_note("malformed", f"{context.name}: {e}", e.where()))
    if found is None and not crash.attributes:
        raise Malformed("Unreal container", expected="a minidump or a crash context", got=f"{len(files)} other files")
    return crash


def _inner(files: list[_File], limits: ReportLimits, problems: list[Diagnostic]) -> RawCrash | None:
    """Return the crash that a file of the container tells: a minidump, else a report of the system's own."""
    known: list[tuple[int, _File, reports.ReportFormat]] = []
    for file in files:
        if file.name.lower().endswith((".log", ".ini", ".runtime-xml", ".txt", ".json")):
            continue
        form = reports.detect(reports.Probe(file.data, file.name))
        if form is not None and form.name != "unreal" and not form.log:
            known.append((form.name != "minidump", file, form))
    for _, file, form in sorted(known, key=lambda row: row[0]):
        try:
            return reports.read(form, file.data, limits)[0]
        except DeadreckonError as e:
            where = e.where() if isinstance(e, Malformed) else None
            problems.append(_note("malformed", f"{file.name}: {e}", where))
    unknown = [f for f in files if f.name.lower().endswith(".dmp")] if not known else []
    problems.extend(
        _note("unsupported", f"{f.name}: no reader recognises it", {"got": bytes(f.data[:8]).hex()}) for f in unknown
    )
    return None


def _note(code: str, message: str, where: dict[str, str | int] | None, severity: str = "warning") -> Diagnostic:
    return Diagnostic(code=code, severity=severity, stage="read", message=message, where=where)  # type: ignore[arg-type]
