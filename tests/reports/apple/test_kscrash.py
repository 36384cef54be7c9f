"""KSCrash's JSON reports: all kinds of crashes, versions, and what a dying reporter leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import ips, kscrash
from synth.apple import INCIDENT, sample

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def read(report: dict[str, Any] | str) -> RawCrash:
    data = (report if isinstance(report, str) else json.dumps(report)).encode()
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["kscrash"]
    return kscrash.read(data, LIMITS)


def test_the_same_crash_as_apples() -> None:
    one, two = read(sample().kscrash()), ips.read(sample().ips().encode(), LIMITS)
    for ours, apples in zip(one.threads, two.threads, strict=True):
        assert (ours.id, ours.name, ours.crashed) == (apples.id, apples.name, apples.crashed)
        assert [f.instruction_addr for f in ours.frames or ()] == [f.instruction_addr for f in apples.frames or ()]
    for name in (
        "arch",
        "os_name",
        "os_version",
        "os_build",
        "pid",
        "process_name",
        "event_id",
        "release",
        "timestamp",
    ):
        assert getattr(one, name) == getattr(two, name)
    assert [(m.image_addr, m.image_size, m.code_file, m.debug_id) for m in one.modules] == [
        (m.image_addr, m.image_size, m.code_file, m.debug_id) for m in two.modules
    ]
    (found,) = one.exceptions
    assert (found.type, found.value, found.code, found.address) == (
        "EXC_BAD_ACCESS",
        "KERN_INVALID_ADDRESS at 0x10",
        1,
        16,
    )
    assert (one.event_id, one.uptime_s) == (INCIDENT, 5.75)
    assert one.modules[0].image_vmaddr == 0x1_0000_0000


def test_frames_and_registers() -> None:
    crash = read(sample().kscrash())
    frames = crash.threads[1].frames or []
    # KSCrash knows of no inlined calls: the second frame is a caller.
    assert [f.is_return_address for f in frames] == [False, True, True, True]
    assert [f.reported.symbol_addr for f in frames if f.reported] == ["0x104789108", "0x1047890f0", "0x104789000", None]
    registers = crash.threads[1].registers
    assert registers is not None
    assert registers.pc == 0x1_0478_9108
    assert registers.others == {"cpsr": 0x4000_1000, "far": 16, "esr": 0x92000006}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            {"type": "signal", "signal": {"signal": 11, "name": "SIGSEGV", "code_name": "SEGV_MAPERR"}, "address": 8},
            [("SIGSEGV", "SEGV_MAPERR at 0x8", 11, 8, "signal")],
        ),
        ({"type": "signal", "signal": {"signal": 15}}, [("SIGTERM", "", 15, None, "signal")]),
        (
            {
                "type": "signal",
                "signal": {"signal": 6, "name": "SIGABRT"},
                "mach": {"exception": 10, "exception_name": "EXC_CRASH", "code": 0, "subcode": 0},
                "address": 907598364,
            },
            [("EXC_CRASH", "SIGABRT", 10, None, "mach")],
        ),
        (
            {"type": "mach", "mach": {"exception": 6, "code": 1, "subcode": 8}, "signal": {"signal": 5}},
            [("EXC_BREAKPOINT", "EXC_ARM_BREAKPOINT", 6, None, "mach")],
        ),
        (
            {
                "type": "nsexception",
                "mach": {"exception": 10, "exception_name": "EXC_CRASH"},
                "signal": {"signal": 6, "name": "SIGABRT"},
                "nsexception": {"name": "NSRangeException", "userInfo": "(null)"},
                "reason": "index 5 beyond bounds",
            },
            [
                ("EXC_CRASH", "SIGABRT", 10, None, "mach"),
                ("NSRangeException", "index 5 beyond bounds", None, None, "nsexception"),
            ],
        ),
        (
            {"type": "cpp_exception", "cpp_exception": {"name": "std::logic_error"}, "reason": "no"},
            [("std::logic_error", "no", None, None, "cpp-exception")],
        ),
        (
            {"type": "user", "user_reported": {"name": "Lua", "language": "lua", "backtrace": ["a"]}, "reason": "nil"},
            [("Lua", "nil", None, None, "user-reported")],
        ),
        ({"type": "deadlock"}, [("Deadlock", "", None, None, "deadlock")]),
        ({"type": "memory_termination"}, [("memory_termination", "", None, None, "memory_termination")]),
        ({}, []),
    ],
)
def test_kinds_of_crashes(error: dict[str, Any], expected: list[Any]) -> None:
    report = sample().kscrash()
    report["crash"]["error"] = error
    found = read(report).exceptions
    assert [(e.type, e.value, e.code, e.address, e.mechanism) for e in found] == expected


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-17T18:47:06Z", 1450026.0),
        (1478560643, 1478560643.0),
        (1478560643000001, 1478560643.000001),
        ("2026-01-02T02:04:05.5+00:00", 1767319445.5),
        ("yesterday", None),
        (0, None),
    ],
)
def test_times_of_all_versions(stamp: Any, seconds: float | None) -> None:
    report = sample().kscrash()
    report["report"]["timestamp"] = stamp
    assert read(report).timestamp == seconds


def test_signed_return_addresses() -> None:
    """Old versions left the codes in; what leads nowhere either way stays as it was."""
    report = sample().kscrash()
    contents = report["crash"]["threads"][0]["backtrace"]["contents"]
    contents[1]["instruction_addr"] |= 0x00F2 << 48
    contents[2]["instruction_addr"] |= 0x7F55_5550 << 32
    contents.append({"instruction_addr": 0x7F55_5555_0000_0000})
    crash = read(report)
    assert [f.instruction_addr for f in crash.threads[0].frames or ()] == [
        0x1_9785_BF80,
        0x1_0478_9014,
        0x1_0500_0020,
        0x7F55_5555_0000_0000,
    ]


def test_a_comma_too_many() -> None:
    source = json.dumps(sample().kscrash(), indent=1).replace('"code": 0\n', '"code": 0,\n')
    with pytest.raises(ValueError, match=r"double quotes|trailing comma"):
        json.loads(source)
    crash = read(source)
    assert len(crash.threads) == 3
    assert crash.diagnostics == []  # Nothing was lost.


def test_a_cut_report() -> None:
    source = json.dumps(sample().kscrash())
    cut = source[: source.index('"registers"')]
    crash = read(cut)
    assert [len(t.frames or ()) for t in crash.threads] == [3, 4]
    assert [d.code for d in crash.diagnostics] == ["malformed"]
    # Without the crash there are still the images.
    crash = kscrash.read(source[: source.index('"system"')].encode(), LIMITS)
    assert len(crash.modules) == 3


def reporters_own() -> dict[str, Any]:
    return {
        "report": {"id": "0" * 8, "type": "minimal"},
        "crash": {
            "error": {"mach": {"exception_name": "EXC_BAD_ACCESS", "code_name": "KERN_INVALID_ADDRESS"}},
            "crashed_thread": {
                "index": 7,
                "backtrace": {"contents": [{"instruction_addr": 4096, "object_name": "libc", "symbol_name": "printf"}]},
            },
            "diagnosis": "It crashed.",
        },
    }


def inside_out() -> dict[str, Any]:
    return sample().kscrash() | {"recrash_report": reporters_own(), "incomplete": True}


def as_written() -> dict[str, Any]:
    return reporters_own() | {"recrash_report": sample().kscrash() | {"incomplete": True}}


def as_text() -> dict[str, Any]:
    return reporters_own() | {"recrash_report": json.dumps(sample().kscrash())[:-20]}


@pytest.mark.parametrize("arranged", [inside_out, as_written, as_text])
def test_the_reporter_crashed_too(arranged: Any) -> None:
    """The program's crash is the event; the reporter's is told in few words."""
    crash = read(arranged())
    assert crash.process_name == "Orchard"
    assert len(crash.threads) == 3
    assert crash.attributes["recrash"] == {
        "reason": "EXC_BAD_ACCESS KERN_INVALID_ADDRESS",
        "thread": 7,
        "diagnosis": "It crashed.",
        "frames": [{"instruction_addr": "0x1000", "package": "libc", "function": "printf"}],
    }
    if arranged is not as_text:
        assert [d.code for d in crash.diagnostics] == ["truncated"]


def test_only_the_reporters_own_crash() -> None:
    crash = read(reporters_own())
    assert [f.instruction_addr for f in crash.threads[0].frames or ()] == [4096]


def test_threads_that_could_not_be_looked_at() -> None:
    report = sample().kscrash()
    report["crash"]["threads"][2]["registers"] = {"basic": {"pc": 0}}
    thread = read(report).threads[2]
    assert (thread.frames, thread.registers) == ([], None)


def test_what_the_application_added() -> None:
    report = sample().kscrash() | {"user": {"test": "テスト", "big": 2**80, "deep": {"a": [1, None]}}}
    report["crash"]["diagnosis"] = "Rogue memory write"
    crash = read(report)
    assert crash.attributes["user_info"] == {"test": "テスト", "big": str(2**80), "deep": {"a": [1, None]}}
    assert crash.attributes["diagnosis"] == "Rogue memory write"


def test_images_that_the_report_lacks() -> None:
    report = sample().kscrash()
    del report["binary_images"]
    report["system"]["cpu_arch"] = "armv7"
    crash = read(report)
    assert crash.arch is Arch.ARM
    assert [(m.image_addr, m.code_file, m.debug_id) for m in crash.modules] == [
        (0x1_0478_8000, "Orchard", None),
        (0x1_0500_0000, "My Fruit Kit", None),
        (0x1_9785_0000, "libobjc.A.dylib", None),
    ]


def test_wrong_types_and_nothing() -> None:
    report: dict[str, Any] = {
        "crash": {"error": 5, "threads": [5, {"backtrace": 5}, {"backtrace": {"contents": [5, {}]}, "registers": 5}]},
        "binary_images": [5, {}, {"image_addr": "x"}],
        "system": 5,
        "report": 5,
        "user": 5,
    }
    assert len(read(report).threads) == 3
    for nothing in (b"", b"{}", b'{"report": {}}', b'{"crash": {}}', b"nothing"):
        with pytest.raises(Malformed):
            kscrash.read(nothing, LIMITS)
