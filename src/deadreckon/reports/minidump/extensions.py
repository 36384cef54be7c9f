"""The streams that Breakpad, Crashpad and Mozilla add: Linux's files of /proc, annotations, assertions.

Sources: Breakpad ``minidump_format.h`` (MD_LINUX_* hold the files of the same name as they were), Crashpad
``minidump_extensions.h``, Mozilla's rust-minidump ``minidump-common``.
"""

from __future__ import annotations

import itertools
import re
from struct import iter_unpack
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from deadreckon.model.crash import Module, Regions
from deadreckon.reports.minidump import layouts
from deadreckon.reports.minidump.dump import Stream
from deadreckon.reports.minidump.streams import basename

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.reports.minidump.dump import Dump
    from deadreckon.reports.minidump.streams import Reading

__all__: list[str] = []


def breakpad_info(reading: Reading, stream: Stream) -> None:
    """Read MD_BREAKPAD_INFO_STREAM: which thread wrote the dump, and which asked for it."""
    validity, dump_thread, requesting_thread = reading.dump.unpack(
        stream.name, layouts.MDRawBreakpadInfo, stream.rva, stream.size
    )
    if validity & layouts.MD_BREAKPAD_INFO_VALID_DUMP_THREAD_ID:
        reading.dump_thread = dump_thread
    if validity & layouts.MD_BREAKPAD_INFO_VALID_REQUESTING_THREAD_ID:
        reading.requesting_thread = requesting_thread


def assertion_info(reading: Reading, stream: Stream) -> None:
    """Read MD_ASSERTION_INFO_STREAM; the writer adds it to every dump, mostly empty."""
    *texts, line, _ = reading.dump.unpack(stream.name, layouts.MDRawAssertionInfo, stream.rva, stream.size)
    expression, function, file = (t.decode("utf-16-le", "replace").partition("\0")[0] for t in texts)
    if expression or function or file:
        where = ", ".join(part for part in (function, f"{file}:{line}" if file else "") if part)
        reading.crash.attributes["assertion"] = f"{expression} ({where})" if where else expression


def linux_maps(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_MAPS (/proc/self/maps) into regions, and into modules where the dump has no module list."""
    dump, crash = reading.dump, reading.crash
    wanted = not crash.modules
    rows: list[tuple[int, int, int]] = []
    files: list[tuple[int, int, str]] = []
    text = dump.taken(stream.rva, stream.size)
    lines = dump.within(stream.name, text.count(b"\n"), dump.limits.max_regions)
    for match in itertools.islice(_MAPS_LINE.finditer(text), lines + 1):
        start, end, permissions, path = match.groups()
        first, last = int(start, 16), int(end, 16)
        rows.append((first, last, _MAPS_ACCESS.get(permissions, 0)))
        if wanted and path.startswith(b"/"):
            files.append((first, last, path[: dump.limits.max_string_bytes].decode("utf-8", "replace")))
    if len(rows) < lines:
        dump.note("stream_malformed", f"{lines - len(rows)} of {lines} lines are no mappings", {"stream": stream.name})
    if rows:
        crash.regions = Regions.from_ranges(rows)
    if wanted:
        crash.modules = list(_mapped_files(sorted(files), dump.limits.max_modules))
        for module in crash.modules:
            module.arch = crash.arch


# start-end permissions offset device inode path
_MAPS_LINE = re.compile(rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S{3})\S \S+ \S+ \d+ *(.*)$", re.MULTILINE)
_MAPS_ACCESS = {bytes(p): sum(1 << i for i in range(3) if p[i] != 45) for p in itertools.product(b"r-", b"w-", b"x-")}


def _mapped_files(files: list[tuple[int, int, str]], limit: int) -> Iterator[Module]:
    """Join each file's mappings that follow one another, with gaps, into one module."""
    joined: list[Module] = []
    for start, end, path in files:
        last = joined[-1] if joined else None
        if last is not None and last.code_file == path:
            last.image_size = max(last.image_size, end - last.image_addr)
        elif start < end <= 1 << 64 and (last is None or start >= last.end):
            joined.append(Module(start, end - start, path, debug_file=path))
        if len(joined) > limit:
            break
    yield from joined[:limit]


def linux_cmd_line(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_CMD_LINE: arguments with a NUL after each."""
    text = reading.dump.text(stream.rva, stream.size, "utf-8").rstrip("\0")
    reading.crash.attributes["cmdline"] = text.replace("\0", " ")


_MAX_ENVIRON = 4 << 20


def linux_environ(reading: Reading, stream: Stream) -> None:
    """Count the variables of MD_LINUX_ENVIRON. Their values stay where they are: they may hold secrets."""
    used = reading.dump.buffer[stream.rva : stream.rva + min(stream.size, _MAX_ENVIRON)] != 0
    # A variable ends where a NUL, or nothing, follows another byte.
    count = int(np.count_nonzero(used[:-1] & ~used[1:])) + int(used[-1]) if len(used) else 0
    reading.crash.attributes["environ_count"] = str(count)


def linux_lsb_release(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_LSB_RELEASE: /etc/lsb-release or os-release, lines of key=value."""
    for line in reading.dump.text(stream.rva, stream.size, "utf-8").splitlines():
        key, _, value = line.partition("=")
        if name := _LSB_KEYS.get(key.strip()):
            reading.crash.attributes.setdefault(f"lsb.{name}", value.strip().strip("'\""))


_LSB_KEYS = {
    "DISTRIB_ID": "id",
    "DISTRIB_RELEASE": "release",
    "DISTRIB_CODENAME": "codename",
    "DISTRIB_DESCRIPTION": "description",
    "ID": "id",
    "VERSION_ID": "release",
    "VERSION_CODENAME": "codename",
    "PRETTY_NAME": "description",
}


def linux_cpu_info(reading: Reading, stream: Stream) -> None:
    """Read the first processor of MD_LINUX_CPU_INFO (/proc/cpuinfo): model and microcode."""
    for key, value in _colon_lines(reading.dump, stream):
        if not key:
            break
        if name := {"model name": "cpu_model", "Hardware": "cpu_model", "microcode": "cpu_microcode"}.get(key):
            reading.crash.attributes.setdefault(name, value)


def linux_proc_status(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_PROC_STATUS (/proc/self/status). Its name is cut to 15 characters: the module list's is better."""
    crash = reading.crash
    for key, value in _colon_lines(reading.dump, stream):
        if key == "Pid" and crash.pid is None and value.isdecimal() and len(value) <= 10:
            crash.pid = int(value)
        elif key == "Name" and not crash.process_name:
            crash.process_name = value


def _colon_lines(dump: Dump, stream: Stream) -> Iterator[tuple[str, str]]:
    """Split lines of ``key : value``; an empty line has an empty key."""
    for line in dump.text(stream.rva, stream.size, "utf-8").split("\n"):
        key, _, value = line.partition(":")
        yield key.strip(), value.strip(" \t\0")


_AT_ENTRY = 9


def linux_auxv(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_AUXV: pairs of words, of which AT_ENTRY (the address of ``_start``) is of use."""
    word = reading.crash.arch.word_size
    size = min(stream.size, 4096) // (2 * word) * 2 * word
    for key, value in iter_unpack("<QQ" if word == 8 else "<II", reading.dump.span(stream.name, stream.rva, size)):
        if key == _AT_ENTRY:
            reading.crash.attributes["entry_point"] = hex(value)


def mozilla_soft_errors(reading: Reading, stream: Stream) -> None:
    """Read MozSoftErrors: JSON in which the writer says what it could not do."""
    reading.crash.attributes["soft_errors"] = reading.dump.text(stream.rva, stream.size, "utf-8").strip("\0 \r\n")


def crashpad_info(reading: Reading, stream: Stream) -> None:
    """Read MD_CRASHPAD_INFO_STREAM: the report's id and the program's annotations, some of them for one module.

    The keys of a module's annotations get the module's name before them. What other streams said of the same name
    stays.
    """
    dump, crash = reading.dump, reading.crash
    _, report_id, _, simple_size, simple_rva, modules_size, modules_rva = dump.unpack(
        stream.name, layouts.MinidumpCrashpadInfo, stream.rva, stream.size
    )
    if any(report_id):
        crash.event_id = UUID(bytes_le=report_id).hex
    found: list[tuple[str, str]] = []

    def for_modules() -> None:
        """Read MinidumpModuleCrashpadInfoList."""
        links = _list(dump, modules_size, modules_rva, layouts.MinidumpModuleCrashpadInfoLink)
        for index, size, rva in links:
            known = index < len(reading.module_list)
            module = basename(reading.module_list[index].code_file) if known else f"module{index}"
            found.extend((f"{module}.{key}", value) for key, value in _module_annotations(dump, size, rva))

    dump.attempt(stream.name, lambda: found.extend(_dictionary(dump, simple_size, simple_rva)))
    dump.attempt(stream.name, for_modules)
    for key, value in found[: dump.within(stream.name, len(found), dump.limits.max_annotations)]:
        crash.attributes.setdefault(key, value)


def _list(dump: Dump, size: int, rva: int, layout: np.dtype[np.void]) -> list[tuple[int, ...]]:
    """Read a list that an (absent where 0) location gives: a u32 count, then records."""
    if not size or not rva:
        return []
    dump.span("Crashpad list", rva, size)
    records = dump.counted_list(Stream("Crashpad list", rva, size), layout, dump.limits.max_annotations)
    return list(records.tolist())


def _dictionary(dump: Dump, size: int, rva: int) -> Iterator[tuple[str, str]]:
    """Read MinidumpSimpleStringDictionary."""
    for key, value in _list(dump, size, rva, layouts.MinidumpSimpleStringDictionaryEntry):
        yield dump.utf8(key), dump.utf8(value)


def _module_annotations(dump: Dump, size: int, rva: int) -> Iterator[tuple[str, str]]:
    """Read MinidumpModuleCrashpadInfo: a list without keys, a dictionary, and typed objects."""
    fields = dump.unpack("MinidumpModuleCrashpadInfo", layouts.MinidumpModuleCrashpadInfo, rva, size)
    _, list_size, list_rva, simple_size, simple_rva = fields
    texts = [dump.utf8(text) for (text,) in _list(dump, list_size, list_rva, layouts.MinidumpRVAList)]
    if texts:
        yield "annotations", "\n".join(texts)
    yield from _dictionary(dump, simple_size, simple_rva)
    base = layouts.MinidumpModuleCrashpadInfo.size
    if size < base + layouts.LOCATION.size:  # node-minidump's mac.dmp
        return
    objects_size, objects_rva = dump.unpack("annotation objects", layouts.LOCATION, rva + base)
    for name, kind, _, value in _list(dump, objects_size, objects_rva, layouts.MinidumpAnnotation):
        # MinidumpByteArray has the shape of a string; a type of the program's own is bytes that only it can read.
        if kind == layouts.ANNOTATION_TYPE_STRING:
            yield dump.utf8(name), dump.utf8(value)


def main_module_name(reading: Reading) -> None:
    """Name the process after the first module where no stream has named it."""
    crash = reading.crash
    if not crash.process_name and crash.modules:
        crash.process_name = basename(crash.modules[0].code_file) or None
