"""Registers, threads and exceptions: who crashed, where, and why."""

from __future__ import annotations

import pytest

from deadreckon.model.ids import Arch
from deadreckon.reports.minidump.reasons import reason
from synth.minidump import (
    AMD64,
    ARM,
    ARM64,
    ARM64_OLD,
    LINUX,
    MACOS,
    WINDOWS,
    X86,
    Minidump,
    codes,
    context_amd64,
    context_arm,
    context_arm64,
    context_arm64_old,
    context_x86,
    crashed,
    read_built,
    u32,
)

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


def test_of_two_threads_with_one_id_the_first_crashed() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    for pc in (1, 2):
        dump.thread(7, context_amd64({"rip": pc}))
    dump.exception(7, 11, context=context_amd64({"rip": 0x99}))
    crash = read_built(dump)
    assert [(t.crashed, t.registers and t.registers.pc) for t in crash.threads] == [(True, 0x99), (False, 2)]


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
    ("macOS", 1, 13, [], "EXC_BAD_ACCESS", "EXC_I386_GPFLT"),  # Its address is no address.
    ("macOS", 10, 0x06000000, [], "EXC_CRASH", "SIGABRT at 0x1234"),
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


def test_the_status_register_tells_thumb() -> None:
    dump = Minidump()
    dump.system(ARM, LINUX)
    whole = context_arm([*range(13), 0x2000, 0x44, 0x1000, 0x6000_0030])
    dump.thread(1, whole)
    dump.thread(2, whole[:68])
    found = [t.registers.others for t in read_built(dump).threads if t.registers is not None]
    assert found == [{"cpsr": 0x6000_0030}, {}]
