"""The streams of Microsoft's minidumps: system, process, modules, threads, exception and memory.

Each function takes the dump's ``Reading`` and its stream, fills in what it finds, and raises Malformed where the
stream contradicts its structure. Rules beside the headers: rust-minidump and Breakpad's processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.crash import MemoryMap, Module, Regions
from deadreckon.model.ids import Arch, DebugId, code_id_from_pe
from deadreckon.reports.minidump import layouts
from deadreckon.reports.minidump.layouts import ProcessorArchitecture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from deadreckon.model.crash import RawCrash
    from deadreckon.reports.minidump.dump import Dump, Stream

    StreamReader = Callable[["Reading", Stream], None]

__all__ = ["ExceptionStream", "Reading", "Thread", "basename", "memory_map", "regions"]


@dataclass(slots=True)
class ExceptionStream:
    """MINIDUMP_EXCEPTION_STREAM; ``context`` is the (size, rva) of the registers at the crash."""

    thread_id: int
    code: int
    flags: int
    address: int
    information: tuple[int, ...]
    context: tuple[int, int]


@dataclass(slots=True)
class Thread:
    """What is kept of a MINIDUMP_THREAD; ``context`` is (size, rva)."""

    id: int
    teb: int
    context: tuple[int, int]


@dataclass(slots=True)
class Reading:
    """A dump being read: the crash so far, and what is put together once every stream was seen."""

    dump: Dump
    crash: RawCrash
    exception: ExceptionStream | None = None
    threads: list[Thread] = field(default_factory=list)
    thread_names: dict[int, str] = field(default_factory=dict)
    dump_thread: int | None = None
    requesting_thread: int | None = None
    memory: list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]] = field(default_factory=list)
    """Columns of address, size and offset, for each list of memory that the dump has."""
    module_list: list[Module] = field(default_factory=list)
    """Every module, in the order of the module list, by which Crashpad refers to them."""


_ARCHES = {
    ProcessorArchitecture.INTEL: Arch.X86,
    ProcessorArchitecture.IA32_ON_WIN64: Arch.X86,
    ProcessorArchitecture.AMD64: Arch.X86_64,
    ProcessorArchitecture.ARM: Arch.ARM,
    ProcessorArchitecture.ARM64: Arch.ARM64,
    ProcessorArchitecture.ARM64_OLD: Arch.ARM64,
}
_CSD_CPUS = frozenset({"x86_64", "i386", "i486", "i586", "i686", "aarch64", "armv6l", "armv7l", "armv8l"})


def system_info(reading: Reading, stream: Stream) -> None:
    """Read SystemInfoStream: CPU, operating system and their versions."""
    dump, crash = reading.dump, reading.crash
    # 56 bytes with the CPU information, of which only x86 and ARM have something to say.
    fields = dump.unpack(stream.name, layouts.MINIDUMP_SYSTEM_INFO, stream.rva, stream.size)
    cpu, level, revision, processors, _, major, minor, build, platform, csd_rva, _, _, information = fields
    crash.arch = _ARCHES.get(cpu, Arch.UNKNOWN)
    if crash.arch is Arch.UNKNOWN:
        dump.note("unsupported", f"processor architecture {cpu:#x}: registers are not read", {"stream": stream.name})
    crash.os_name = layouts.OS_NAMES.get(platform, f"{platform:#x}")
    if crash.arch in {Arch.X86, Arch.X86_64}:
        model = f"family {level} model {revision >> 8} stepping {revision & 0xFF}"
        vendor = information[:12].decode("ascii", "replace").strip("\0 ") if crash.arch is Arch.X86 else ""
        crash.attributes["cpu"] = f"{vendor} {model}".strip()
    if processors:
        crash.attributes["cpu_count"] = str(processors)
    if major or minor or build:
        crash.os_version = f"{major}.{minor}.{build}"
    csd = dump.string(csd_rva).strip() if csd_rva else ""
    if crash.os_name in {"Linux", "Android"}:
        crash.os_version, crash.os_build = _uname(crash.os_version, csd)
    else:
        crash.os_build = csd or None


def _uname(version: str | None, csd: str) -> tuple[str | None, str | None]:
    """Split CSDVersion of a Linux dump into the kernel's release and its build.

    Breakpad leaves the numbers 0 and writes ``uname -srvm`` there ("Linux 3.13.0-53-generic #89-Ubuntu ... x86_64");
    Crashpad writes the numbers, and what follows them in the release first ("-1rodete2-amd64 #1 SMP ... x86_64"):
    linux_inline.dmp.
    """
    words = csd.split()
    if words and words[-1] in _CSD_CPUS:
        words.pop()
    if version is not None:
        if words and csd[0] in "-.+~_":
            version += words.pop(0)
    elif len(words) >= 2 and words[0] == "Linux":
        version = words[1]
        words = words[2:]
    return version, " ".join(words) or None


def misc_info(reading: Reading, stream: Stream) -> None:
    """Read MiscInfoStream, versions 1 (24 bytes) to 5; its size tells the version, its flags what is set."""
    dump, crash = reading.dump, reading.crash
    _, flags, pid, created, _, _ = dump.unpack(stream.name, layouts.MINIDUMP_MISC_INFO, stream.rva, stream.size)
    if flags & layouts.MINIDUMP_MISC1_PROCESS_ID:
        crash.pid = pid
    if flags & layouts.MINIDUMP_MISC1_PROCESS_TIMES and 0 < created <= dump.time_date_stamp:
        crash.uptime_s = float(dump.time_date_stamp - created)
    offset, size = layouts.MISC_INFO_4_BUILD_STRING
    if flags & layouts.MINIDUMP_MISC4_BUILDSTRING and stream.size >= offset + size:
        build = dump.text(stream.rva + offset, size, "utf-16-le").partition("\0")[0]
        if build:
            crash.attributes["build_string"] = build


def comment(reading: Reading, stream: Stream) -> None:
    """Read CommentStreamA or CommentStreamW."""
    encoding = "utf-8" if stream.name == "CommentStreamA" else "utf-16-le"
    text = reading.dump.text(stream.rva, stream.size, encoding).strip("\0 \r\n")
    if text:
        reading.crash.attributes["comment"] = text


def basename(path: str) -> str:
    """Return a path's last part, in the notation of any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def modules(reading: Reading, stream: Stream) -> None:
    """Read ModuleListStream into modules sorted by address, without those that overlap an earlier one."""
    dump, crash = reading.dump, reading.crash
    records = dump.counted_list(stream, layouts.MINIDUMP_MODULE, dump.limits.max_modules)
    names = ("BaseOfImage", "SizeOfImage", "TimeDateStamp", "ModuleNameRva", "CvRecord")
    version_info = records["VersionInfo"]
    rows = zip(*(records[name].tolist() for name in names), _versions(version_info, crash.os_name), strict=True)
    found = reading.module_list
    damaged: list[str] = []
    arch, os_name = crash.arch, crash.os_name
    for base, size, stamp, name_rva, (cv_size, cv_rva), version in rows:
        module = Module(base, size, arch=arch, version=version)
        found.append(module)
        try:
            module.code_file = dump.string(name_rva)
            if cv_size:
                _codeview(dump, module, cv_rva, cv_size, os_name)
        except Malformed as e:
            damaged.append(str(e))
        if os_name == "Windows" and module.code_id is None and (stamp or size):
            module.code_id = code_id_from_pe(stamp, size)
    if damaged:
        dump.note(
            "stream_malformed",
            f"{len(damaged)} modules have a damaged name or CodeView record; the first: {damaged[0]}",
            {"stream": stream.name, "offset": stream.rva, "got": len(damaged)},
        )
    if found:
        main = 0
        if os_name in {"macOS", "iOS"}:
            # Elsewhere the executable comes first. Crashpad's iOS dumps begin with dyld, but say what is a program:
            # minidump_crashpad_annotation.dmp. (On Windows some libraries say it too.)
            main = int(np.argmax(version_info["dwFileType"] == layouts.VFT_APP))
        crash.process_name = basename(found[main].code_file) or None
    crash.modules = _placed(dump, stream, found)


def _placed(dump: Dump, stream: Stream, found: list[Module]) -> list[Module]:
    """Sort modules by address and drop those with no place: of no size, past the last address, or over another."""
    placed: list[Module] = []
    overlapping: list[str] = []
    impossible: list[str] = []
    placed_end = 0
    for module in sorted(found, key=attrgetter("image_addr")):
        end = module.image_addr + module.image_size
        if module.image_addr == end or end > 1 << 64:
            impossible.append(module.code_file)
        elif module.image_addr < placed_end:
            overlapping.append(module.code_file)
        else:
            placed.append(module)
            placed_end = end
    for code, what, names in (
        ("module_overlap", "overlap an earlier one", overlapping),
        ("stream_malformed", "have an impossible size", impossible),
    ):
        if names:
            listed = ", ".join(n[:100] for n in names[:8])
            dump.note(code, f"{len(names)} modules {what} and were dropped: {listed}", {"stream": stream.name})
    return placed


def _versions(info: NDArray[np.void], os_name: str | None) -> list[str | None]:
    """Return the version in each VS_FIXEDFILEINFO, None where there is none."""
    if not (info["dwSignature"] == layouts.VS_FFI_SIGNATURE).any():
        return [None] * len(info)
    words = np.stack([info[name] for name in layouts.FILE_VERSION], axis=1)
    if os_name in {"Windows", "macOS", "iOS"}:
        # Elsewhere, Mozilla's writer puts the four numbers of a library's version in the four words.
        words = words[:, :2].astype("<u4").view("<u2")[:, [1, 0, 3, 2]]
    present = (info["dwSignature"] == layouts.VS_FFI_SIGNATURE).tolist()
    return [f"{a}.{b}.{c}.{d}" if there else None for there, (a, b, c, d) in zip(present, words.tolist(), strict=True)]


def _codeview(dump: Dump, module: Module, rva: int, size: int, os_name: str | None) -> None:
    """Read a module's CodeView record: debug id, debug file and, outside Windows, code id."""
    record = dump.taken(rva, min(size, dump.limits.max_string_bytes))
    identity = _identity(record, os_name) if len(record) <= _REMEMBERED else _identity.__wrapped__(record, os_name)
    if identity is None:
        raise Malformed("CodeView record", offset=rva, expected="a whole record", got=f"{size} bytes")
    module.debug_id, code_id, debug_file = identity
    module.code_id = code_id or module.code_id
    module.debug_file = module.code_file if debug_file == _OWN_NAME else debug_file


_REMEMBERED = 512
"""Bytes of a record that is worth remembering: the crashes of one system have the same modules again and again."""
_OWN_NAME = "\0"


@lru_cache(maxsize=16_384)
def _identity(record: bytes, os_name: str | None) -> tuple[str | None, str | None, str | None] | None:
    """Return what a CodeView record says: (debug id, code id, debug file); None where it is cut. Zero is no id.

    A record may have an id and no name: GNU ld's ``--build-id`` writes such ones into PE files, which hold their DWARF
    themselves: heob32.exe in thread_name_list.dmp.
    """
    debug_id = code_id = None
    signature = record[:4]
    if signature == layouts.CV_RSDS and len(record) >= 24:
        guid = record[4:20]
        if guid != _NIL:
            debug_id = _debug_id(guid, int.from_bytes(record[20:24], "little"))
            if os_name in {"macOS", "iOS"}:
                code_id = debug_id[:36].replace("-", "")
        name = record[24:]
    elif signature == layouts.CV_ELF:
        build_id = record[4:]
        if any(build_id):
            code_id = build_id.hex()
            if any(build_id[:16]):
                debug_id = str(DebugId.from_build_id(build_id))
        return debug_id, code_id, _OWN_NAME
    elif signature == layouts.CV_NB10 and len(record) >= 16:
        # PDB 2.0 has a time stamp where later ones have a GUID: it becomes the GUID's first field.
        guid = record[8:12].ljust(16, b"\0")
        if guid != _NIL:
            debug_id = _debug_id(guid, int.from_bytes(record[12:16], "little"))
        name = record[16:]
    elif signature in {layouts.CV_RSDS, layouts.CV_NB10}:
        return None
    else:
        return None, None, None
    end = name.find(b"\0")
    return debug_id, code_id, str(name if end < 0 else name[:end], "utf-8", "replace") or None


_NIL = bytes(16)


def _debug_id(guid: bytes, age: int) -> str:
    """Spell a debug id: ``str(DebugId.from_guid(guid, age))`` at a quarter of its cost, for hundreds of modules."""
    h = guid.hex()
    spelled = f"{h[6:8]}{h[4:6]}{h[2:4]}{h[:2]}-{h[10:12]}{h[8:10]}-{h[14:16]}{h[12:14]}-{h[16:20]}-{h[20:]}"
    return f"{spelled}-{age:x}" if age else spelled


def unloaded_modules(reading: Reading, stream: Stream) -> None:
    """Read UnloadedModuleListStream. Addresses may repeat: the place of one module was used again."""
    dump, crash = reading.dump, reading.crash
    records = dump.sized_list(stream, layouts.EX_LIST_32, layouts.MINIDUMP_UNLOADED_MODULE, dump.limits.max_modules)
    crash.unloaded_modules = [
        Module(base, size, dump.string(name), code_id_from_pe(stamp, size), arch=crash.arch)
        for base, size, _, stamp, name in records.tolist()
        if base + size <= 1 << 64
    ]


def exception(reading: Reading, stream: Stream) -> None:
    """Read ExceptionStream."""
    fields = reading.dump.unpack(stream.name, layouts.MINIDUMP_EXCEPTION_STREAM, stream.rva, stream.size)
    thread_id, code, flags, _, address, count, *rest = fields
    reading.exception = ExceptionStream(
        thread_id, code, flags, address, tuple(rest[: min(count, 15)]), context=(rest[15], rest[16])
    )


def threads(reading: Reading, stream: Stream) -> None:
    """Read ThreadListStream; the threads' stacks become part of the memory."""
    records = reading.dump.counted_list(stream, layouts.MINIDUMP_THREAD, reading.dump.limits.max_threads)
    _threads(reading, records)


def threads_ex(reading: Reading, stream: Stream) -> None:
    """Read ThreadExListStream, which only Itanium's dumps had, where there is no ThreadListStream."""
    if not reading.threads:
        records = reading.dump.counted_list(stream, layouts.MINIDUMP_THREAD_EX, reading.dump.limits.max_threads)
        _threads(reading, records)


def _threads(reading: Reading, records: NDArray[np.void]) -> None:
    ids, tebs, contexts = (records[name].tolist() for name in ("ThreadId", "Teb", "ThreadContext"))
    reading.threads = [Thread(*row) for row in zip(ids, tebs, contexts, strict=True)]
    _add_memory(reading, records["Stack"])


def thread_names(reading: Reading, stream: Stream) -> None:
    """Read ThreadNamesStream; a thread without a name has an empty one."""
    dump = reading.dump
    records = dump.counted_list(stream, layouts.MINIDUMP_THREAD_NAME, dump.limits.max_threads)
    for thread_id, rva in records.tolist():
        if rva and (name := dump.string(rva)):
            reading.thread_names[thread_id] = name


def memory_list(reading: Reading, stream: Stream) -> None:
    """Read MemoryListStream."""
    limit = reading.dump.limits.max_regions
    _add_memory(reading, reading.dump.counted_list(stream, layouts.MINIDUMP_MEMORY_DESCRIPTOR, limit))


def _add_memory(reading: Reading, descriptors: NDArray[np.void]) -> None:
    reading.memory.append(
        (
            descriptors["StartOfMemoryRange"].astype(np.uint64),
            descriptors["DataSize"].astype(np.uint64),
            descriptors["Rva"].astype(np.uint64),
        ),
    )


def memory64_list(reading: Reading, stream: Stream) -> None:
    """Read Memory64ListStream: the ranges' bytes follow one another from one base on."""
    dump = reading.dump
    layout = layouts.MINIDUMP_MEMORY_DESCRIPTOR64
    count, base = dump.unpack(stream.name, layouts.MINIDUMP_MEMORY64_LIST, stream.rva, stream.size)
    start = layouts.MINIDUMP_MEMORY64_LIST.size
    if start + count * layout.itemsize > stream.size:
        raise Malformed(
            stream.name,
            offset=stream.rva,
            expected=f"{count} records of {layout.itemsize} bytes",
            got=f"{stream.size} bytes",
        )
    count = dump.within(stream.name, count, dump.limits.max_regions)
    records = dump.records(stream.name, layout, stream.rva + start, count)
    sizes = records["DataSize"].astype(np.uint64)
    ends = np.cumsum(sizes)
    # A sum that wraps would bring a later range back into the file.
    fits = np.logical_and.accumulate(ends >= sizes) & (ends <= np.uint64((1 << 64) - 1 - base))
    offsets = ends - sizes + np.uint64(base)
    reading.memory.append((records["StartOfMemoryRange"].astype(np.uint64)[fits], sizes[fits], offsets[fits]))


def memory_map(reading: Reading) -> MemoryMap:
    """Put every range of memory together, sorted; of what two ranges have both, the one that starts first has it.

    Thread stacks usually come twice, by their thread and in the memory list. Of ranges with one start the longest is
    used. A range that ends outside the file is cut, with a diagnostic.
    """
    dump = reading.dump
    address, size, offset = (
        (np.concatenate(columns) for columns in zip(*reading.memory, strict=True))
        if reading.memory
        else (np.zeros(0, np.uint64),) * 3
    )
    left = np.uint64(dump.size) - np.minimum(offset, np.uint64(dump.size))
    cut = size > left
    if cut.any():
        first = int(np.argmax(cut))
        dump.note(
            "truncated",
            f"{int(cut.sum())} of {len(cut)} memory ranges end outside the file",
            {"offset": int(offset[first]), "expected": int(size[first]), "got": int(left[first])},
        )
    if len(address) <= _FEW:
        return _few_ranges(zip(address.tolist(), size.tolist(), offset.tolist(), left.tolist(), strict=True), dump)
    # ~address is how much follows an address before the last one.
    end = address + np.minimum(np.minimum(size, left), ~address)
    order = np.lexsort((~end, address))
    address, end, offset = address[order], end[order], offset[order]
    covered = np.maximum.accumulate(end)
    start = address.copy()
    start[1:] = np.maximum(start[1:], covered[:-1])
    kept = start < end
    offset += start - address
    return MemoryMap(start[kept], end[kept], offset[kept].astype(np.int64), dump.buffer)


_FEW = 64


def _few_ranges(ranges: Iterable[tuple[int, int, int, int]], dump: Dump) -> MemoryMap:
    """Do the same for a small dump, of which thousands come: a dozen numpy calls take longer than a few steps."""
    last = (1 << 64) - 1
    found = [(address, -min(address + min(size, left), last), offset) for address, size, offset, left in ranges]
    kept: list[tuple[int, int, int]] = []
    covered = 0
    for address, end, offset in sorted(found):
        start = max(address, covered)
        if start < -end:
            kept.append((start, -end, offset + start - address))
            covered = -end
    starts, ends, offsets = zip(*kept, strict=True) if kept else ((), (), ())
    return MemoryMap(np.array(starts, np.uint64), np.array(ends, np.uint64), np.array(offsets, np.int64), dump.buffer)


_PAGE_ACCESS = np.zeros(512, np.uint8)
for _protection, _access in layouts.PAGE_ACCESS.items():
    # A guard page raises on any access, whatever else its protection says: PAGE_GUARD (0x100) has no bits.
    _PAGE_ACCESS[_protection] = _access


def memory_info_list(reading: Reading, stream: Stream) -> None:
    """Read MemoryInfoListStream: what is mapped with which protection. Free ranges are left out."""
    dump = reading.dump
    records = dump.sized_list(stream, layouts.EX_LIST_64, layouts.MINIDUMP_MEMORY_INFO, dump.limits.max_regions)
    records = records[records["State"] & layouts.MEM_FREE == 0]
    start = records["BaseAddress"].astype(np.uint64)
    end = start + np.minimum(records["RegionSize"], ~start)
    access = np.where(records["State"] & layouts.MEM_COMMIT, _PAGE_ACCESS[records["Protect"] & 0x1FF], np.uint8(0))
    reading.crash.regions = regions(start, end, access)


def regions(start: NDArray[np.uint64], end: NDArray[np.uint64], access: NDArray[np.uint8]) -> Regions:
    """Sort ranges by address, without the empty and the reversed."""
    order = np.argsort(start, kind="stable")
    order = order[start[order] < end[order]]
    return Regions(start[order], end[order], access[order])
