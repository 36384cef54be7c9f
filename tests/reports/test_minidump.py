"""The minidump reader: over built dumps for every rule, and over the corpus against what other tools say."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.ids import Arch, DebugId
from deadreckon.reports.minidump import read, sniff
from deadreckon.reports.minidump.reasons import reason
from deadreckon.reports.minidump.streams import _debug_id
from synth.minidump import (
    At,
    Item,
    Minidump,
    context_amd64,
    context_arm,
    context_arm64,
    context_arm64_old,
    context_x86,
    crashpad,
    elf_build_id,
    linux_dump,
    location,
    nb10,
    rsds,
    u32,
    u64,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash, RawThread

LIMITS = ReportLimits()
LINUX, WINDOWS, MACOS, ANDROID = 0x8201, 2, 0x8101, 0x8203
X86, ARM, AMD64, ARM64, ARM64_OLD = 0, 5, 9, 12, 0x8003
GUID = bytes(range(1, 17))


def read_built(dump: Minidump, padding: bytes = b"", limits: ReportLimits = LIMITS) -> RawCrash:
    return read(dump.finish(padding), limits)


def codes(crash: RawCrash) -> list[str]:
    return [d.code for d in crash.diagnostics]


def crashed(crash: RawCrash) -> RawThread:
    (thread,) = [t for t in crash.threads if t.crashed]
    return thread


def test_a_whole_linux_dump() -> None:
    crash = read_built(linux_dump())
    assert crash.diagnostics == []
    assert (crash.format, crash.arch, crash.os_name) == ("minidump", Arch.X86_64, "Linux")
    assert (crash.os_version, crash.os_build) == ("5.4.0-42-generic", "#46-Ubuntu SMP Fri Jul 10 2020")
    assert (crash.pid, crash.uptime_s, crash.timestamp) == (4321, 10.0, 1_600_000_000.0)
    assert (crash.process_name, crash.event_id) == ("app", "03020100050407060809" + "0a0b0c0d0e0f")
    (exception,) = crash.exceptions
    assert (exception.type, exception.value) == ("SIGSEGV", "SEGV_MAPERR at 0xdead")
    assert (exception.code, exception.address, exception.thread_id) == (11, 0xDEAD, 11)
    assert [(t.id, t.name, t.crashed) for t in crash.threads] == [(11, "main", True), (12, None, False)]
    first, second = (t.registers for t in crash.threads)
    assert first is not None
    assert second is not None
    # The crashed thread starts from the exception's context, not from its own, in which it waits for the writer.
    assert (first.pc, first.sp, first.get(6), first.get(15)) == (0x401234, 0x7FFF0010, 0x7FFF0080, 15)
    assert second.pc == 0x7F0000001000
    app, libc = crash.modules
    assert (app.code_file, app.image_addr, app.image_size, app.arch) == ("/usr/bin/app", 0x400000, 0x10000, Arch.X86_64)
    assert app.code_id == bytes(range(1, 21)).hex()
    assert app.debug_id == str(DebugId.from_build_id(bytes(range(1, 21))))
    assert (libc.debug_file, libc.debug_id, libc.code_id) == ("libc.so.6", "13121110-1514-1716-1819-1a1b1c1d1e1f", None)
    assert crash.memory.read(0x7FFF0000, 8) == u64(0x7000_0000)
    assert crash.memory.read(0x401010, 4) == bytes([16, 17, 18, 19])
    assert crash.regions is not None
    assert (crash.regions.start.tolist(), crash.regions.access.tolist()) == ([0x400000], [5])
    assert crash.attributes == {
        "cpu": "family 6 model 42 stepping 7",
        "cpu_count": "4",
        "cmdline": "/usr/bin/app --flag",
        "environ_count": "2",
        "lsb.id": "Ubuntu",
        "lsb.release": "20.04",
        "entry_point": "0x400500",
        "prod": "app",
        "app.channel": "beta",
        "app.annotations": "message",
    }
    assert not any("SECRET" in value for value in crash.attributes.values())


def test_mapped_files_and_views_are_read_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "dump.dmp"
    path.write_bytes(linux_dump().finish())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    crash = read(mapped, LIMITS)
    assert np.shares_memory(crash.memory.buffer, np.frombuffer(mapped, np.uint8))
    assert sniff(memoryview(mapped)[:64])
    assert len(read(memoryview(path.read_bytes()), LIMITS).threads) == 2


# Contexts


CONTEXTS = [
    (X86, context_x86({"eip": 0x1000, "esp": 0x2000, "ebp": 0x3000, "eax": 7, "edi": 9}), Arch.X86, {0: 7, 7: 9}),
    (AMD64, context_amd64({"rip": 0x1000, "rsp": 0x2000, "rbp": 0x3000, "rdx": 7, "r8": 9}), Arch.X86_64, {1: 7, 8: 9}),
    (ARM, context_arm([*range(13), 0x2000, 0x44, 0x1000]), Arch.ARM, {1: 1, 12: 12, 14: 0x44}),
    (ARM64, context_arm64([*range(31), 0x2000, 0x1000]), Arch.ARM64, {0: 0, 29: 29, 30: 30}),
    (ARM64_OLD, context_arm64_old([*range(31), 0x2000, 0x1000]), Arch.ARM64, {0: 0, 28: 28, 30: 30}),
    # The old layout under the new number: arm64-macos.yaml2obj.dmp.
    (ARM64, context_arm64_old([*range(31), 0x2000, 0x1000]), Arch.ARM64, {28: 28}),
    # 32-bit process, 64-bit writer: what the context says of itself counts.
    (AMD64, context_x86({"eip": 0x1000, "esp": 0x2000, "ebx": 5}), Arch.X86, {3: 5}),
]


@pytest.mark.parametrize(("cpu", "context", "arch", "expected"), CONTEXTS)
def test_contexts(cpu: int, context: bytes, arch: Arch, expected: dict[int, int]) -> None:
    dump = Minidump()
    dump.system(cpu, LINUX)
    dump.thread(1, context)
    registers = read_built(dump).threads[0].registers
    assert registers is not None
    assert (registers.arch, registers.pc, registers.sp) == (arch, 0x1000, 0x2000)
    assert {i: registers.get(i) for i in expected} == expected


def test_a_context_may_be_longer_than_its_structure() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    dump.thread(1, context_amd64({"rip": 0x1000}, extra=1500))
    registers = read_built(dump).threads[0].registers
    assert registers is not None
    assert registers.pc == 0x1000


def test_unreadable_contexts_cost_only_the_registers() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    dump.thread(1, context_amd64({"rip": 1})[:200])
    dump.thread(2, bytes(1232))
    dump.thread(3)
    dump.thread(4, context_amd64({"rip": 0x1000}))
    crash = read_built(dump)
    assert [t.registers is None for t in crash.threads] == [True, True, True, False]
    assert codes(crash) == ["context_missing"]
    assert crash.diagnostics[0].where == {"thread": 1, "got": 3}


def test_an_unknown_cpu_still_gives_threads_and_modules() -> None:
    dump = Minidump()
    dump.system(1, LINUX)
    dump.thread(1, bytes(600))
    dump.module(0x1000, 0x1000, "a")
    crash = read_built(dump)
    assert (crash.arch, len(crash.threads), len(crash.modules)) == (Arch.UNKNOWN, 1, 1)
    assert codes(crash) == ["unsupported"]


# The layout of lists


def test_count_padded() -> None:
    dump = linux_dump()
    plain, padded = read_built(dump), read_built(linux_dump(), padding=bytes(4))
    assert padded.diagnostics == []
    assert [t.registers.pc for t in padded.threads if t.registers] == [
        t.registers.pc for t in plain.threads if t.registers
    ]
    assert padded.modules == plain.modules
    assert padded.memory.start.tolist() == plain.memory.start.tolist()


def test_bytes_after_the_records_are_ignored() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.thread(5, context_amd64({"rip": 0x1000}))
    dump.list_threads(extra=bytes(12))
    crash = read_built(dump)
    assert (codes(crash), crash.threads[0].id) == ([], 5)


def test_lists_that_declare_their_sizes() -> None:
    dump = Minidump()
    dump.system(X86, WINDOWS)
    dump.thread(1, context_x86({}))
    name = dump.string("gone.dll")
    entry: list[Item] = [u64(0x10000), u32(0x2000, 0, 0x5B000000), At(name), bytes(8)]
    dump.stream(14, u32(16, 32, 2), bytes(4), *entry, *entry)
    info = u64(0x5000, 0x5000) + u32(4, 0) + u64(0x1000) + u32(0x1000, 0x104, 0x20000, 0)
    free = u64(0x1000, 0) + u32(0, 0) + u64(0x4000) + u32(0x10000, 1, 0, 0)
    low = u64(0x2000, 0) + u32(0, 0) + u64(0x1000) + u32(0x1000, 0x40, 0, 0)
    dump.stream(16, u32(24, 56) + u64(3), bytes(8), info, bytes(8), free, bytes(8), low, bytes(8))
    crash = read_built(dump)
    assert crash.diagnostics == []
    assert [(m.code_file, m.code_id, m.end) for m in crash.unloaded_modules] == [
        ("gone.dll", "5B0000002000", 0x12000)
    ] * 2
    assert crash.regions is not None
    assert crash.regions.start.tolist() == [0x2000, 0x5000]
    assert crash.regions.access.tolist() == [7, 0]  # A guard page gives no access.


@pytest.mark.parametrize("header", [u32(16, 47), u32(8, 48), u32(0xFFFFFFFF, 48), u32(16, 0xFFFFFFFF)])
def test_impossible_sizes_cost_their_list(header: bytes) -> None:
    dump = linux_dump()
    dump.directory = [d for d in dump.directory if d[0] != 16]
    dump.stream(16, header + u64(1), bytes(48))
    crash = read_built(dump)
    assert codes(crash) == ["stream_malformed"]
    assert crash.regions is not None
    assert len(crash.regions.start) == 3  # from the maps of Linux


@pytest.mark.parametrize("stream_type", [3, 4, 5, 9, 14, 16, 24])
@pytest.mark.parametrize("count", [2, 0xFFFF, 0xFFFF_FFFF])
def test_a_count_beyond_the_bytes_costs_its_stream_only(stream_type: int, count: int) -> None:
    header = {9: u64(count, 0), 14: u32(12, 24, count), 16: u32(16, 48) + u64(count)}.get(stream_type, u32(count))
    dump = Minidump()
    dump.system(AMD64, LINUX)
    if stream_type != 4:
        dump.module(0x400000, 0x1000, "app")
    dump.exception(1, 11, context=context_amd64({"rip": 0x1000}))
    dump.stream(stream_type, header)
    start = time.perf_counter()
    crash = read_built(dump)
    assert time.perf_counter() - start < 1
    malformed = [d.where or {} for d in crash.diagnostics if d.code == "stream_malformed"]
    assert {"stream", "offset", "expected", "got"} <= set(malformed[0])
    assert crash.exceptions[0].type == "SIGSEGV"


def test_a_directory_entry_outside_the_file_costs_its_stream_only() -> None:
    dump = linux_dump()
    data = bytearray(dump.finish())
    index = next(i for i, (stream_type, _) in enumerate(dump.directory) if stream_type == 16)
    data[32 + 12 * index + 8 : 32 + 12 * index + 12] = u32(0xFFFFFFF0)
    crash = read(bytes(data), LIMITS)
    (diagnostic,) = crash.diagnostics
    assert diagnostic.code == "stream_malformed"
    assert diagnostic.where == {"stream": "MemoryInfoListStream", "offset": 0xFFFFFFF0, "expected": 64, "got": 0}
    assert len(crash.threads) == 2


def test_of_two_streams_the_last_counts() -> None:
    dump = linux_dump()
    dump.stream(0x47670006, b"second\0")
    crash = read_built(dump)
    assert crash.attributes["cmdline"] == "second"
    (diagnostic,) = crash.diagnostics
    assert (diagnostic.code, diagnostic.where and diagnostic.where["stream"]) == (
        "stream_duplicate",
        "MD_LINUX_CMD_LINE",
    )


def test_thread_ex_list() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    record: list[Item] = [
        u32(9, 0, 0, 0),
        u64(0, 0),
        u32(0, 0),
        *location(dump.section(context_amd64({"rip": 0x77}))),
        bytes(16),
    ]
    dump.stream(8, u32(1), *record)
    crash = read_built(dump)
    assert [(t.id, t.registers and t.registers.pc) for t in crash.threads] == [(9, 0x77)]


# Memory


def test_memory64() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    data = dump.section(b"first---" + b"second--")
    dump.stream(9, u64(3), At(data, 8), u64(0x1000, 8, 0x5000, 8, 0x9000, 0xFFFF_FFFF_FFFF_0000))
    crash = read_built(dump)
    assert crash.memory.read(0x1000, 8) == b"first---"
    assert crash.memory.read(0x5002, 6) == b"cond--"
    assert "truncated" in codes(crash) or crash.memory.start.tolist() == [0x1000, 0x5000]


def test_memory64_sums_do_not_wrap_into_the_file() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    data = dump.section(bytes(64))
    dump.stream(9, u64(3), At(data, 8), u64(0x1000, 8, 0x2000, 2**64 - 8, 0x3000, 16))
    assert read_built(dump).memory.start.tolist() == [0x1000]


def test_a_thread_stack_is_memory_even_if_no_list_has_it() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.thread(1, context_amd64({"rsp": 0x8000}), (0x8000, b"stackstack"))
    crash = read_built(dump)
    assert crash.memory.read(0x8000, 10) == b"stackstack"


def test_ranges_that_overlap_are_joined_without_gaps() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.thread(1, context_amd64({}), (0x8000, b"AAAA"))
    dump.memory(0x8000, b"AAAABBBB")
    dump.memory(0x8000, b"AAAA")
    dump.memory(0x8004, b"BBBBCCCC")
    dump.memory(0x7FFF, b"")
    dump.memory(2**64 - 4, b"wraps")
    memory = read_built(dump).memory
    assert memory.start.tolist() == [0x8000, 0x8008, 2**64 - 4]
    assert memory.read(0x8000, 8) == b"AAAABBBB"
    assert memory.read(0x8008, 4) == b"CCCC"


def test_memory_outside_the_file_is_cut_and_noted() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.stream(5, u32(2), u64(0x8000), u32(100, 0x80), u64(0x9000), u32(8, 0xFFFFFFF0))
    data = dump.finish()
    crash = read(data, LIMITS)
    assert (crash.memory.start.tolist(), crash.memory.end.tolist()) == ([0x8000], [0x8000 + len(data) - 0x80])
    assert codes(crash)[0] == "truncated"
    assert crash.diagnostics[0].where == {"offset": 0x80, "expected": 100, "got": len(data) - 0x80}


# Modules


def modules_of(platform: int, *arguments: Any, **keywords: Any) -> Any:
    dump = Minidump()
    dump.system(AMD64, platform)
    dump.module(0x1000, 0x1000, *arguments, **keywords)
    return read_built(dump).modules[0]


def test_module_identity_on_windows() -> None:
    module = modules_of(
        WINDOWS,
        r"C:\app\app.exe",
        rsds(GUID, 2, r"D:\build\app.pdb"),
        stamp=0x5BA523AF,
        version=(0xA0000, 0x47BA0001, 0, 0),
    )
    assert module.debug_id == "04030201-0605-0807-090a-0b0c0d0e0f10-2"
    assert (module.debug_file, module.code_id, module.version) == (r"D:\build\app.pdb", "5BA523AF1000", "10.0.18362.1")
    assert modules_of(WINDOWS, "a.dll", stamp=1).code_id == "000000011000"
    assert (
        modules_of(WINDOWS, "a.dll", nb10(0x3B7D8475, 0x1F, "a.pdb")).debug_id
        == "3b7d8475-0000-0000-0000-000000000000-1f"
    )


def test_module_identity_elsewhere() -> None:
    mac = modules_of(MACOS, "/usr/lib/dyld", rsds(GUID, 0, "dyld"), version=(0x10002, 0x30004, 0, 0))
    assert mac.debug_id == "04030201-0605-0807-090a-0b0c0d0e0f10"
    assert (mac.code_id, mac.version) == ("0403020106050807090a0b0c0d0e0f10", "1.2.3.4")
    elf = modules_of(LINUX, "/lib/libxul.so", elf_build_id(b"\1\2\3"), version=(100, 2, 3, 4))
    assert (elf.code_id, elf.debug_file, elf.version) == ("010203", "/lib/libxul.so", "100.2.3.4")
    assert elf.debug_id == "00030201-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    "record", [rsds(bytes(16), 0, "x"), elf_build_id(bytes(20)), elf_build_id(b""), nb10(0, 1, "x"), b"ZZZZ1234", b""]
)
def test_zeros_and_unknown_records_identify_nothing(record: bytes) -> None:
    module = modules_of(LINUX, "x.ttf", record)
    assert (module.debug_id, module.code_id) == (None, None)


def test_the_fast_spelling_is_that_of_debug_id() -> None:
    for age in (0, 1, 0xFFFFFFFF):
        guid = os.urandom(16)
        assert _debug_id(guid, age) == str(DebugId.from_guid(guid, age))


def test_modules_are_sorted_and_overlapping_ones_dropped() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.module(0x9000, 0x1000, "/bin/main")
    dump.module(0x1000, 0x2000, "low")
    dump.module(0x2000, 0x2000, "over")
    dump.module(0x5000, 0, "empty")
    dump.module(2**64 - 0x1000, 0x2000, "wraps")
    dump.module(2**64 - 0x1000, 0x1000, "last")
    crash = read_built(dump)
    assert [m.code_file for m in crash.modules] == ["low", "/bin/main", "last"]
    assert codes(crash) == ["module_overlap", "stream_malformed", "stream_malformed"]
    assert crash.process_name == "main"


def test_annotations_follow_the_module_list_not_the_addresses() -> None:
    dump = Minidump()
    dump.system(AMD64, MACOS)
    dump.module(0x9000, 0x1000, "/usr/lib/dyld")
    dump.module(0x1000, 0x1000, "/bin/main", version=(1, 0, 0, 0), file_type=1)
    crashpad(dump, {}, {0: {"k": "v"}, 1: {"k": "w"}, 77: {"k": "x"}})
    crash = read_built(dump)
    assert [crash.attributes[k] for k in ("dyld.k", "main.k", "module77.k")] == ["v", "w", "x"]
    assert crash.process_name == "main"


def test_annotations_of_old_writers_and_of_strange_types() -> None:
    dump = linux_dump()
    crashpad(dump, {"cmdline": "not this", "version": "1"}, {0: {"k": "v"}}, objects=False)
    crash = read_built(dump)
    assert crash.attributes["cmdline"] == "/usr/bin/app --flag"
    assert (crash.attributes["version"], crash.attributes["app.annotations"]) == ("1", "message")
    assert "app.k" not in crash.attributes


def test_names_of_any_kind() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    for i, name in enumerate(("/opt/größe/日本語/🦀.so", "bad\ud800", "cut\0off", "")):
        dump.module(0x1000 * (i + 1), 0x1000, name)
    names = [m.code_file for m in read_built(dump).modules]
    assert names == ["/opt/größe/日本語/🦀.so", "bad\ufffd", "cut", ""]


def test_a_damaged_name_costs_the_name() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.module(0x1000, 0x1000, "first")
    dump.module(0x2000, 0x1000, "second")
    data = dump.finish()
    at = data.index("first".encode("utf-16-le")) - 4
    crash = read(data[:at] + u32(0xFFFFFFF0) + data[at + 4 :], LIMITS)
    assert [m.code_file for m in crash.modules] == ["", "second"]
    assert "stream_malformed" in codes(crash)


def test_long_names_are_cut() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.module(0x1000, 0x1000, "n" * 100_000)
    assert len(read_built(dump).modules[0].code_file) == LIMITS.max_string_bytes // 2


def test_modules_from_the_maps_where_the_list_is_lost() -> None:
    dump = linux_dump()
    crash = read(dump.finish(), LIMITS)
    dump = linux_dump()
    dump._module_count = 0
    fallback = read_built(dump)
    assert [(m.code_file, m.image_addr, m.image_size) for m in fallback.modules] == [
        (m.code_file, m.image_addr, m.image_size) for m in crash.modules
    ]
    assert fallback.process_name == "app"


# Threads and exceptions


def test_the_thread_that_wrote_the_dump_is_not_unwound() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    for thread_id in (1, 2):
        dump.thread(thread_id, context_amd64({"rip": thread_id}))
    dump.stream(0x47670001, u32(3, 2, 1))
    crash = read_built(dump)
    assert [(t.id, t.crashed, t.frames) for t in crash.threads] == [(1, False, None), (2, False, [])]
    assert crash.threads[1].registers is None
    assert [(e.type, e.thread_id) for e in crash.exceptions] == [("DUMP_REQUESTED", 1)]


def test_the_exception_has_the_last_word_on_who_crashed() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    for thread_id in (1, 2, 3):
        dump.thread(thread_id, context_amd64({"rip": thread_id}))
    dump.stream(0x47670001, u32(3, 2, 1))
    dump.exception(2, 0xC0000005, information=(1, 0x45), context=context_amd64({"rip": 0x99}))
    crash = read_built(dump)
    assert crashed(crash).id == 2
    assert crashed(crash).registers is not None
    assert [t.registers and t.registers.pc for t in crash.threads] == [1, 0x99, 3]


def test_without_a_context_of_its_own_the_exception_takes_the_threads() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.thread(1, context_amd64({"rip": 0x55}))
    dump.exception(1, 6)
    registers = crashed(read_built(dump)).registers
    assert registers is not None
    assert registers.pc == 0x55


def test_the_exception_alone_makes_a_thread_and_an_architecture() -> None:
    dump = Minidump()
    dump.exception(7, 11, context=context_arm64([*range(31), 0x2000, 0x1000]))
    crash = read_built(dump)
    assert (crashed(crash).id, crash.arch) == (7, Arch.ARM64)
    assert [(d.where or {})["stream"] for d in crash.diagnostics] == ["SystemInfoStream", "ThreadListStream"]


@pytest.mark.parametrize(
    ("platform", "code"), [(LINUX, 0xFFFFFFFF), (LINUX, 0), (MACOS, 0x43507378), (WINDOWS, 0x517A7ED)]
)
def test_a_dump_on_request_is_no_crash(platform: int, code: int) -> None:
    dump = Minidump()
    dump.system(AMD64, platform)
    dump.thread(1, context_amd64({}))
    dump.exception(1, code, address=0x401000, context=context_amd64({"rip": 0x401000}))
    crash = read_built(dump)
    (exception,) = crash.exceptions
    assert (exception.type, exception.value, exception.address, exception.thread_id) == ("DUMP_REQUESTED", "", None, 1)
    assert not crash.threads[0].crashed
    assert crash.threads[0].registers is not None
    assert crash.threads[0].registers.pc == 0x401000


REASONS = [
    ("Windows", 0xC0000005, 0, [0, 0x45], "EXCEPTION_ACCESS_VIOLATION_READ", "at 0x45"),
    ("Windows", 0xC0000005, 0, [8, 0x45], "EXCEPTION_ACCESS_VIOLATION_EXEC", "at 0x45"),
    ("Windows", 0xC0000005, 0, [3, 0x45], "EXCEPTION_ACCESS_VIOLATION", "at 0x45"),
    ("Windows", 0xC0000005, 0, [], "EXCEPTION_ACCESS_VIOLATION", "at 0x1234"),
    (
        "Windows",
        0xC0000006,
        0,
        [0, 0x45, 0xC000009C],
        "EXCEPTION_IN_PAGE_ERROR_READ",
        "STATUS_DEVICE_DATA_ERROR at 0x45",
    ),
    ("Windows", 0xC0000409, 0, [7], "EXCEPTION_STACK_BUFFER_OVERRUN", "FAST_FAIL_FATAL_APP_EXIT at 0x1234"),
    ("Windows", 0xC0000409, 0, [50], "EXCEPTION_STACK_BUFFER_OVERRUN", "FAST_FAIL_HEAP_METADATA_CORRUPTION at 0x1234"),
    ("Windows", 0xC0000409, 0, [9999], "EXCEPTION_STACK_BUFFER_OVERRUN", "0x270f at 0x1234"),
    ("Windows", 0xE06D7363, 0, [], "UNHANDLED_CPP_EXCEPTION", "at 0x1234"),
    ("Windows", 0xC00000FD, 0, [], "EXCEPTION_STACK_OVERFLOW", "at 0x1234"),  # named by the minidump package
    ("Windows", 0xC0FFEE00, 0, [], "0xc0ffee00", "at 0x1234"),
    ("Windows", 11, 0, [], "0x0000000b", "at 0x1234"),  # a signal there means nothing
    ("Linux", 11, 1, [], "SIGSEGV", "SEGV_MAPERR at 0x1234"),
    ("Linux", 11, 0x80, [], "SIGSEGV", "SI_KERNEL at 0x1234"),
    ("Linux", 11, 0xFFFFFFFA, [], "SIGSEGV", "SI_TKILL"),
    ("Linux", 6, 0xFFFFFFFA, [], "SIGABRT", "SI_TKILL"),
    ("Linux", 5, 77, [], "SIGTRAP", "si_code 77 at 0x1234"),
    ("Android", 7, 2, [], "SIGBUS", "BUS_ADRERR at 0x1234"),
    ("Linux", 99, 0, [], "0x00000063", ""),
    ("macOS", 1, 1, [], "EXC_BAD_ACCESS", "KERN_INVALID_ADDRESS at 0x1234"),
    ("macOS", 1, 13, [], "EXC_BAD_ACCESS", "EXC_I386_GPFLT at 0x1234"),
    ("iOS", 10, 0x06200000, [], "EXC_CRASH", "SIGABRT at 0x1234"),
    ("macOS", 11, 3 << 29, [], "EXC_RESOURCE", "RESOURCE_TYPE_MEMORY at 0x1234"),
    ("macOS", 12, 2 << 29, [], "EXC_GUARD", "GUARD_TYPE_FD at 0x1234"),
    ("macOS", 6, 99, [], "EXC_BREAKPOINT", "code 0x63 at 0x1234"),
    ("iOS", 0x43506E78, 0, [], "NSException", "at 0x1234"),
    ("macOS", 77, 0, [], "0x0000004d", "code 0x0 at 0x1234"),
]


@pytest.mark.parametrize(("os_name", "code", "flags", "information", "kind", "value"), REASONS)
def test_reasons(os_name: str, code: int, flags: int, information: list[int], kind: str, value: str) -> None:
    found = reason(os_name, Arch.X86_64, code, flags, 0x1234, information)
    assert (found.type, found.value) == (kind, value)


def test_mach_codes_depend_on_the_cpu() -> None:
    assert reason("macOS", Arch.ARM64, 6, 1, 0, []).detail == "EXC_ARM_BREAKPOINT"
    assert reason("macOS", Arch.ARM64, 1, 0x105, 0, []).detail == "EXC_ARM_PAC_FAIL"


def test_addresses_of_32_bit_cpus_have_32_bits() -> None:
    found = reason("Windows", Arch.X86, 0xC0000005, 0, 0xFFFFFFFF_80000000, [1, 0xFFFFFFFF_00000045])
    assert found.address == 0x45


def test_last_error() -> None:
    dump = Minidump()
    dump.system(AMD64, WINDOWS)
    dump.thread(1, context_amd64({}), teb=0x7000)
    dump.memory(0x7000, bytes(0x68) + u32(5))
    dump.exception(1, 0xC0000005, information=(0, 0))
    assert read_built(dump).attributes["last_error"] == "0x5"


# The other streams


def test_texts_and_assertion() -> None:
    dump = linux_dump()
    utf16 = ["x != 0", "run()", "main.cc"]
    dump.stream(0x47670002, *(t.encode("utf-16-le").ljust(256, b"\0") for t in utf16), u32(42, 0))
    dump.stream(11, "note\0".encode("utf-16-le"))
    dump.stream(0x4D7A0004, b'[{"InitErrors":[]}]')
    dump.stream(0x47670003, b"processor\t: 0\nmodel name\t: Some CPU\nmicrocode\t: 0x17\n\nmodel name\t: Other\n")
    attributes = read_built(dump).attributes
    assert attributes["assertion"] == "x != 0 (run(), main.cc:42)"
    assert (attributes["comment"], attributes["soft_errors"]) == ("note", '[{"InitErrors":[]}]')
    assert (attributes["cpu_model"], attributes["cpu_microcode"]) == ("Some CPU", "0x17")


def test_misc_info_flags_and_build_string() -> None:
    dump = linux_dump()
    text = "10.0.19041.1 (WinBuild)".encode("utf-16-le").ljust(520, b"\0")
    dump.stream(15, u32(1364, 0x100, 7, 8, 0, 0).ljust(232, b"\0"), text, bytes(612))
    crash = read_built(dump)
    assert (crash.pid, crash.uptime_s) == (4321, None)  # of /proc: the flags say that the numbers mean nothing
    assert crash.attributes["build_string"] == "10.0.19041.1 (WinBuild)"


def handles(count: int, entry: int = 40) -> Minidump:
    dump = linux_dump()
    name = dump.string("File")
    records = [part for _ in range(3) for part in (u64(4), At(name), u32(0, 0, 0, 1, 1), bytes(8))]
    dump.stream(12, u32(16, entry, count, 0), *records)
    return dump


def test_handles_are_counted_by_type() -> None:
    attributes = read_built(handles(3)).attributes
    assert (attributes["handles"], attributes["handle_types"]) == ("3", "File 3")


@pytest.mark.parametrize(("count", "entry"), [(0xFFFFFFFF, 40), (3, 41), (0xFFFFFFFF, 0), (4, 40)])
def test_the_package_never_sees_impossible_counts(count: int, entry: int) -> None:
    crash = read_built(handles(count, entry))
    assert codes(crash) == ["stream_malformed"]
    assert "handles" not in crash.attributes


def test_common_dumps_do_not_import_the_package() -> None:
    program = (
        "import sys; from synth.minidump import linux_dump; from deadreckon.reports.minidump import read;"
        "from deadreckon.config import ReportLimits; read(linux_dump().finish(), ReportLimits());"
        "sys.exit('minidump' in sys.modules or 'numba' in sys.modules)"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": paths}, check=False).returncode == 0


# Damage and limits


@pytest.mark.parametrize("data", [b"", b"MDMP", b"MDMP" + bytes(27), b"JUNK" + bytes(28), b"MDMP" + u32(1) + bytes(24)])
def test_an_unreadable_header_raises(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data, LIMITS)


def test_an_unreadable_directory_raises() -> None:
    for count, rva in ((5, 32), (1, 0xFFFFFFFF), (0xFFFFFFFF, 32)):
        with pytest.raises(Malformed, match="directory"):
            read(b"MDMP" + u32(0xA793, count, rva, 0, 0) + bytes(8), LIMITS)


def test_a_dump_of_nothing_raises() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    with pytest.raises(Malformed):
        read_built(dump)


def test_big_endian_is_recognised_and_refused() -> None:
    data = b"PMDM" + bytes(60)
    assert sniff(memoryview(data))
    with pytest.raises(Unsupported, match="big-endian"):
        read(data, LIMITS)
    assert not sniff(memoryview(b"MD"))


def test_limits() -> None:
    data = linux_dump().finish()
    with pytest.raises(LimitExceeded):
        read(data, ReportLimits(max_bytes=100))
    crash = read(data, ReportLimits(max_threads=1, max_modules=1, max_regions=2))
    assert (len(crash.threads), len(crash.modules)) == (1, 1)
    assert codes(crash).count("limit_exceeded") == 3
    assert codes(read(data, ReportLimits(max_streams=5)))[0] == "limit_exceeded"
    few = read(data, ReportLimits(max_annotations=1))
    assert "limit_exceeded" in codes(few)


def test_names_that_share_bytes_do_not_multiply() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    text = dump.string("x" * 30_000)
    record: list[Item] = [u64(0), u32(0x1000, 0, 0), At(text), bytes(52), u32(0, 0, 0, 0), u64(0, 0)]
    dump.stream(4, u32(5000), *(record * 5000))
    dump.exception(1, 11)
    crash = read_built(dump)
    assert "stream_malformed" in codes(crash)


def test_rvas_in_a_circle() -> None:
    """Everything that points may point at itself: the directory at a list, a list at the header."""
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.stream(4, u32(1), u64(0x1000), u32(0x1000, 0, 0), At("stream1"), bytes(52), u32(108), At("stream1"), bytes(24))
    dump.stream(3, u32(1, 7, 0, 0, 0), u64(0, 0x8000), u32(0x1000, 0), u32(1232), At("stream2"))
    dump.stream(0x43500001, u32(1), bytes(32), u32(64), At("stream3"), u32(64), At("stream3"))
    dump.stream(24, u32(1), u32(7), At("stream4", 8))
    crash = read_built(dump)
    assert len(crash.threads) == 1


# The corpus


def native(corpus: Path) -> Path:
    return corpus / "native"


def corpus_dumps(corpus: Path) -> list[Path]:
    return [p for p in sorted(native(corpus).rglob("*.dmp")) if sniff(memoryview(p.read_bytes()[:4]))]


def read_corpus(corpus: Path, path: str) -> RawCrash:
    return read((native(corpus) / path).read_bytes(), LIMITS)


@pytest.mark.corpus
def test_truth_of_breakpads_unit_tests(corpus: Path) -> None:
    truth = json.loads((native(corpus) / "breakpad/expected_from_unittests.json").read_text())["processing"]
    for name, expected in truth.items():
        crash = read_corpus(corpus, f"breakpad/testdata/{name}")
        if "os" in expected:
            assert expected["os"] == f"{crash.os_name} NT"
            assert expected["os_version"].split() == [v for v in (crash.os_version, crash.os_build) if v]
        if "cpu" in expected:
            assert Arch.parse(expected["cpu"]) is crash.arch
            assert crash.attributes["cpu"] == expected["cpu_info"]
        if "crashed" in expected:
            assert any(t.crashed for t in crash.threads) == expected["crashed"]
        if "threads" in expected:
            assert len(crash.threads) == expected["threads"]
        if "crash_reason" in expected:
            exception = crash.exceptions[0]
            assert expected["crash_reason"] in {exception.type, exception.value.split(" at ")[0]}
        if "crash_address" in expected:
            assert crash.exceptions[0].address == int(expected["crash_address"], 16)


@pytest.mark.corpus
def test_truth_of_lldbs_module_ids(corpus: Path) -> None:
    truth = json.loads((native(corpus) / "lldb/expected_uuids.json").read_text())["minidump_uuid"]
    limits = ReportLimits()
    for name, expected in truth.items():
        data = (native(corpus) / f"lldb/minidump-new/{name}.yaml2obj.dmp").read_bytes()
        # Those of LLDB's lists overlap; move them apart, in a copy, to see every one.
        start = int.from_bytes(data[32 + 12 + 8 : 32 + 12 + 12], "little")
        spread = bytearray(data)
        for i in range(len(expected)):
            at = start + 4 + 108 * i
            spread[at : at + 8] = u64(0x10_0000_0000 * (i + 1))
        crash = read(bytes(spread), limits)
        assert len(crash.modules) == len(expected)
        for module, text in zip(crash.modules, expected, strict=True):
            if text is None:
                assert (module.debug_id, module.code_id) == (None, None)
                continue
            # LLDB writes the identifier's bytes as they are; ours is a GUID's fields but on Apple's systems.
            raw = bytes.fromhex(text.split()[0].replace("-", ""))
            if "16-byte id in dump" in text:
                raw = raw[:16]
            if module.code_id is not None and crash.os_name == "Linux":
                assert module.code_id == raw.hex()
                assert module.debug_id == str(DebugId.from_build_id(raw))
            else:
                age = int.from_bytes(raw[16:], "little")
                uuid = DebugId.from_macho_uuid(raw) if crash.os_name == "macOS" else DebugId.from_build_id(raw)
                assert module.debug_id == str(DebugId(uuid.uuid, age))


def hexadecimal(value: int | None) -> str | None:
    return None if value is None else hex(value)


def summary_of(crash: RawCrash) -> dict[str, Any]:
    """Say what rust-minidump's JSON says too, in its terms."""
    exception = crash.exceptions[0] if crash.exceptions else None
    detail = exception.value.split("at 0x")[0].strip() if exception else ""
    stopped = [i for i, t in enumerate(crash.threads) if exception and t.id == exception.thread_id]
    return {
        "type": exception and (f"{exception.type} / {detail}" if detail else exception.type),
        "address": exception and hexadecimal(exception.address),
        "crashing_thread": stopped[0] if stopped else None,
        "threads": [(t.id, t.name) for t in crash.threads],
        "pcs": [hexadecimal(t.registers.pc) if t.registers else None for t in crash.threads],
        "registers": crash.threads[stopped[0]].registers.as_hex()  # type: ignore[union-attr]
        if stopped
        else None,
        "pid": crash.pid,
        "cpu": crash.arch,
        "cpu_info": crash.attributes.get("cpu"),
        "cpu_count": crash.attributes.get("cpu_count"),
        "unloaded": len(crash.unloaded_modules),
        "handles": crash.attributes.get("handles"),
        "lsb": {k[4:]: v for k, v in crash.attributes.items() if k.startswith("lsb.")} or None,
        "maps": len(crash.regions.start) if crash.regions is not None and crash.os_name == "Linux" else None,
        "soft_errors": json.loads(crash.attributes.get("soft_errors", "null")),
        "assertion": crash.attributes.get("assertion"),
        "modules": sorted(
            (
                m.image_addr,
                m.end,
                m.code_file.replace("\\", "/").rpartition("/")[2],
                m.debug_file and m.debug_file.replace("\\", "/").rpartition("/")[2],
                m.debug_id and DebugId.parse(m.debug_id).breakpad,
                m.code_id and m.code_id.lower(),
                m.version,
            )
            for m in crash.modules
        ),
    }


def summary_of_reference(said: dict[str, Any]) -> dict[str, Any]:
    info, system = said["crash_info"], said["system_info"]
    windows = system["os"] == "Windows NT"
    stopped = said.get("crashing_thread")
    registers = stopped["frames"][0]["registers"] if stopped else None
    return {
        "type": info["type"],
        "address": hexadecimal(info["address"] and int(info["address"], 16)),
        "crashing_thread": info["crashing_thread"],
        "threads": [(t["thread_id"], t["thread_name"] or None) for t in said["threads"]],
        "pcs": [hex(int(t["frames"][0]["offset"], 16)) if t["frames"] else None for t in said["threads"]],
        "registers": registers and {k: hex(int(v, 16)) for k, v in registers.items() if k not in {"efl", "eflags"}},
        "pid": said["pid"],
        "cpu": Arch.parse(system["cpu_arch"]),
        "cpu_info": system["cpu_info"],
        "cpu_count": str(system["cpu_count"]),
        "unloaded": len(said["unloaded_modules"]),
        "handles": said["handles"] and str(len(said["handles"])),
        "lsb": said["lsb_release"],
        "maps": said["linux_memory_map_count"],
        "soft_errors": said["soft_errors"],
        "assertion": info["assertion"],
        "modules": sorted(
            (
                int(m["base_addr"], 16),
                int(m["end_addr"], 16),
                m["filename"],
                m["debug_file"] or None,
                None if m["debug_id"] == "0" * 33 else m["debug_id"],  # They spell out the nil id.
                # Off Windows theirs may be a time stamp of zero and the size, which identify nothing.
                None if not windows and m["code_id"] and m["code_id"].startswith("00000000") else m["code_id"] or None,
                m["version"],
            )
            for m in said["modules"]
        ),
    }


# What we say otherwise, and why.
DIFFERENCES: dict[str, dict[str, tuple[Any, Any]]] = {
    # We skip the line of /proc/self/maps that someone edited, they the whole file.
    "breakpad/testdata/linux_executable_stack.dmp": {"maps": (34, None)},
    # The pid and uid of who raised the signal are no address.
    "breakpad/testdata/linux_raise_sigabrt.dmp": {"address": (None, "0x4d14400005be6")},
    # "CPnx", Crashpad's number for an NSException.
    "breakpad/testdata/minidump_crashpad_annotation.dmp": {"type": ("NSException", "unknown 0x43506e78 / 0x00000000")},
    # A dump on request is no crash, and the pc at which it was asked for no crash address.
    "lldb/minidump-new/linux-x86_64_not_crashed.dmp": {"address": (None, "0x7f6b5a9ebfc3")},
    "rust-minidump/simple-crashpad.dmp": {
        "type": ("DUMP_REQUESTED", "unknown 0x00000000 / 0x00000000"),
        "address": (None, "0x7fff6f41333a"),
    },
    # 0.25 shows an assertion only if its type is that; this is an invalid parameter of the CRT.
    "rust-minidump/invalid-parameter.dmp": {
        "assertion": (r"format != nullptr (common_vfprintf, minkernel\crts\ucrt\src\appcrt\stdio\output.cpp:32)", None),
    },
}


@pytest.mark.corpus
def test_agreement_with_rust_minidump(corpus: Path) -> None:
    references = sorted((native(corpus) / "reference/rust-minidump-0.25.0").glob("*.json"))
    assert len(references) > 50
    differences: dict[str, dict[str, Any]] = {}
    for reference in references:
        path = reference.name.removesuffix(".json").replace("__", "/")
        ours = summary_of(read_corpus(corpus, path))
        theirs = summary_of_reference(json.loads(reference.read_text()))
        found = {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]}
        if found:
            differences[path] = found
    assert differences == DIFFERENCES
