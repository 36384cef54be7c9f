"""The streams that Breakpad, Crashpad and Mozilla add: Linux's files of /proc, annotations, assertions.

Sources: Breakpad ``minidump_format.h`` (MD_LINUX_* hold the files of the same name as they were), Crashpad
``minidump_extensions.h``, Mozilla's rust-minidump ``minidump-common``.
"""

from __future__ import annotations

import itertools
import re
from array import array
from struct import iter_unpack
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from deadreckon.model.crash import Module
from deadreckon.reports.minidump import layouts
from deadreckon.reports.minidump.dump import Stream
from deadreckon.reports.minidump.streams import basename, regions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.ids import Arch
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
    files: list[Module] | None = None if crash.modules else []
    # A million lines are allowed: in columns they take 17 MB.
    starts, ends, access = array("Q"), array("Q"), array("B")
    # A writer that stops early leaves half a line: linux_executable_stack.dmp.
    text = dump.taken(stream.rva, stream.size).rstrip(b"\0\n")
    lines = dump.within(stream.name, text.count(b"\n") + 1 if text else 0, dump.limits.max_regions)
    for match in itertools.islice(_MAPS_LINE.finditer(text), lines):
        start, end, permissions, path = match.groups()
        starts.append(int(start, 16))
        ends.append(int(end, 16))
        access.append(_MAPS_ACCESS.get(permissions, 0))
        if files is not None and path.startswith(b"/") and len(files) < dump.limits.max_modules:
            name = path[: dump.limits.max_string_bytes].decode("utf-8", "replace")
            _mapped_file(files, starts[-1], ends[-1], name, crash.arch)
    if len(starts) < lines:
        where: dict[str, str | int] = {"offset": stream.rva, "expected": lines, "got": len(starts)}
        told = f"{lines - len(starts)} of {lines} lines are no mappings"
        dump.note("stream_malformed", told, {"stream": stream.name, **where})
    if starts:
        crash.regions = regions(
            np.frombuffer(starts, np.uint64), np.frombuffer(ends, np.uint64), np.frombuffer(access, np.uint8)
        )
    if files:
        crash.modules = files


# start-end permissions offset device inode path
_MAPS_LINE = re.compile(rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S{3})\S \S+ \S+ \d+ *(.*)$", re.MULTILINE)
_MAPS_ACCESS = {bytes(p): sum(1 << i for i in range(3) if p[i] != 45) for p in itertools.product(b"r-", b"w-", b"x-")}


def _mapped_file(files: list[Module], start: int, end: int, path: str, arch: Arch) -> None:
    """Add a mapping to the modules so far: one of the last module's file enlarges it, with the gap between.

    The kernel lists mappings by address; a line that goes back is nothing the kernel wrote.
    """
    last = files[-1] if files else None
    if end <= start or (last is not None and start < last.end):
        return
    if last is not None and last.code_file == path:
        last.image_size = end - last.image_addr
    else:
        files.append(Module(start, end - start, path, debug_file=path, arch=arch))


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
    first, _, _ = reading.dump.text(stream.rva, stream.size, "utf-8").partition("\n\n")
    for key, value in _colon_lines(first):
        if not key:
            break
        if name := {"model name": "cpu_model", "Hardware": "cpu_model", "microcode": "cpu_microcode"}.get(key):
            reading.crash.attributes.setdefault(name, value)


def linux_proc_status(reading: Reading, stream: Stream) -> None:
    """Read MD_LINUX_PROC_STATUS (/proc/self/status). Its name is cut to 15 characters: the module list's is better."""
    crash = reading.crash
    for key, value in _colon_lines(reading.dump.text(stream.rva, stream.size, "utf-8")):
        if key == "Pid" and crash.pid is None and value.isdecimal() and len(value) <= 10:
            crash.pid = int(value)
        elif key == "Name" and not crash.process_name:
            crash.process_name = value


def _colon_lines(text: str) -> Iterator[tuple[str, str]]:
    """Split lines of ``key : value``; an empty line has an empty key."""
    for line in text.split("\n"):
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
    annotations = _Annotations(dump)

    def for_program() -> None:
        for key, value in annotations.dictionary(simple_size, simple_rva):
            crash.attributes.setdefault(key, value)

    def for_modules() -> None:
        """Read MinidumpModuleCrashpadInfoList."""
        for index, size, rva in annotations.records(modules_size, modules_rva, layouts.MinidumpModuleCrashpadInfoLink):
            known = index < len(reading.module_list)
            module = basename(reading.module_list[index].code_file) if known else f"module{index}"
            for key, value in annotations.of_module(size, rva):
                crash.attributes.setdefault(f"{module}.{key}", value)

    dump.attempt(stream.name, for_program)
    dump.attempt(stream.name, for_modules)


class _Annotations:
    """The lists behind Crashpad's stream. Any of them may be the same bytes as another: what is limited is their sum.

    Without that, 200 KB of ten thousand modules with one dictionary of ten thousand empty strings are read for minutes.
    """

    def __init__(self, dump: Dump) -> None:
        self._dump = dump
        self._left = dump.limits.max_annotations
        """Records that may still be read, of every kind; below zero once a list was cut."""

    def records(self, size: int, rva: int, layout: np.dtype[np.void]) -> list[tuple[int, ...]]:
        """Read a list that an (absent where 0) location gives: a u32 count, then records."""
        if not size or not rva or self._left < 0:
            return []
        self._dump.span("Crashpad list", rva, size)
        stream = Stream("Crashpad list", rva, size)
        found = self._dump.counted_list(stream, layout, self._left)
        self._left -= self._dump.count(stream, rva, 4)
        return list(found.tolist())

    def dictionary(self, size: int, rva: int) -> Iterator[tuple[str, str]]:
        """Read MinidumpSimpleStringDictionary."""
        for key, value in self.records(size, rva, layouts.MinidumpSimpleStringDictionaryEntry):
            yield self._dump.utf8(key), self._dump.utf8(value)

    def of_module(self, size: int, rva: int) -> Iterator[tuple[str, str]]:
        """Read MinidumpModuleCrashpadInfo: a list without keys, a dictionary, and typed objects."""
        dump = self._dump
        fields = dump.unpack("MinidumpModuleCrashpadInfo", layouts.MinidumpModuleCrashpadInfo, rva, size)
        _, list_size, list_rva, simple_size, simple_rva = fields
        texts = [dump.utf8(text) for (text,) in self.records(list_size, list_rva, layouts.MinidumpRVAList)]
        if texts:
            yield "annotations", "\n".join(texts)
        yield from self.dictionary(simple_size, simple_rva)
        base = layouts.MinidumpModuleCrashpadInfo.size
        if size < base + layouts.LOCATION.size:  # node-minidump's mac.dmp
            return
        objects_size, objects_rva = dump.unpack("annotation objects", layouts.LOCATION, rva + base)
        for name, kind, _, value in self.records(objects_size, objects_rva, layouts.MinidumpAnnotation):
            # MinidumpByteArray has the shape of a string; a type of the program's own is bytes that only it can read.
            if kind == layouts.ANNOTATION_TYPE_STRING:
                yield dump.utf8(name), dump.utf8(value)


def main_module_name(reading: Reading) -> None:
    """Name the process after the first module where no stream has named it."""
    crash = reading.crash
    if not crash.process_name and crash.modules:
        crash.process_name = basename(crash.modules[0].code_file) or None
