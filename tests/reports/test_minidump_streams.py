"""Microsoft's streams: the layout of lists, memory, modules, process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from deadreckon.config import ReportLimits
from deadreckon.model.ids import DebugId
from deadreckon.reports.minidump import read
from deadreckon.reports.minidump.streams import _debug_id
from synth.minidump import (
    AMD64,
    LINUX,
    MACOS,
    WINDOWS,
    X86,
    At,
    Item,
    Minidump,
    codes,
    context_amd64,
    context_x86,
    elf_build_id,
    linux_dump,
    location,
    nb10,
    read_built,
    rsds,
    u32,
    u64,
)

LIMITS = ReportLimits()
GUID = bytes(range(1, 17))


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


def test_a_codeview_record_without_a_name_names_no_file() -> None:
    module = modules_of(WINDOWS, r"C:\\heob.exe", rsds(GUID, 1, ""))
    assert (module.debug_id, module.debug_file) == ("04030201-0605-0807-090a-0b0c0d0e0f10-1", None)


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


def test_misc_info_flags_and_build_string() -> None:
    dump = linux_dump()
    text = "10.0.19041.1 (WinBuild)".encode("utf-16-le").ljust(520, b"\0")
    dump.stream(15, u32(1364, 0x100, 7, 8, 0, 0).ljust(232, b"\0"), text, bytes(612))
    crash = read_built(dump)
    assert (crash.pid, crash.uptime_s) == (4321, None)  # of /proc: the flags say that the numbers mean nothing
    assert crash.attributes["build_string"] == "10.0.19041.1 (WinBuild)"
