"""``.ips`` files of both generations, beside the text of the same crash."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import ips, text
from synth.apple import HEADER, INCIDENT, Call, sample

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame

LIMITS = ReportLimits()


def read(source: str | bytes) -> RawCrash:
    """Read a report that is told to be one by its content."""
    data = source.encode() if isinstance(source, str) else source
    form = reports.detect(reports.Probe(data))
    assert form is not None
    assert form.name == "apple-ips"
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["apple-ips"]
    (crash,) = reports.read(form, memoryview(data), LIMITS)
    return crash


def addresses(crash: RawCrash) -> dict[int, list[int | None]]:
    return {t.id: [f.instruction_addr for f in t.frames or ()] for t in crash.threads}


def told(frames: list[RawFrame] | None) -> list[Any]:
    return [f.reported for f in frames or ()]


def test_everything_is_read() -> None:
    crash = read(sample().ips())
    assert (crash.format, crash.arch, crash.event_id) == ("apple-ips", Arch.ARM64, INCIDENT)
    assert (crash.os_name, crash.os_version, crash.os_build) == ("iOS", "17.1", "21B80")
    assert (crash.process_name, crash.pid, crash.uptime_s) == ("Orchard", 4711, 5.25)
    assert crash.timestamp == 1767319445.75
    assert crash.release == "org.example.orchard@1.2+34"
    assert crash.diagnostics == []
    assert addresses(crash) == {
        0: [0x1_9785_BF80, 0x1_0478_9014, 0x1_0500_0020],
        1: [0x1_0478_9108, 0x1_0478_9108, 0x1_0478_9014, 0x5448_5244],
        2: [],
    }
    assert [(t.name, t.crashed) for t in crash.threads] == [
        ("com.apple.main-thread", False),
        ("Picker", True),
        (None, False),
    ]
    assert [(m.image_addr, m.image_size, m.debug_id, m.code_id, m.arch, m.debug_file) for m in crash.modules] == [
        (
            0x1_0478_8000,
            0x10_0000,
            "db2fd9ec-8dd1-3021-98df-93db16cf4863",
            "db2fd9ec8dd1302198df93db16cf4863",
            Arch.ARM64,
            "Orchard",
        ),
        (
            0x1_0500_0000,
            0x8000,
            "16faa70c-278c-3561-859e-cec407c2dc7c",
            "16faa70c278c3561859ecec407c2dc7c",
            Arch.ARM64,
            "My Fruit Kit",
        ),
        (
            0x1_9785_0000,
            0x4_0000,
            "9618b2f2-a4c2-3e07-b7ee-d8d9e1bdeaec",
            "9618b2f2a4c23e07b7eed8d9e1bdeaec",
            Arch.ARM64,
            "libobjc.A.dylib",
        ),
    ]
    assert crash.modules[0].code_file.endswith("/Orchard.app/Orchard")
    registers = crash.threads[1].registers
    assert registers is not None
    assert registers.pc == 0x1_0478_9108
    assert registers.as_hex()["cpsr"] == "0x40001000"
    assert [t.registers is None for t in crash.threads] == [True, False, True]


def test_the_text_of_the_same_crash_says_the_same() -> None:
    report = sample()
    one, two = read(report.ips()), text.read(report.text().encode(), LIMITS)
    assert addresses(one) == addresses(two)
    assert one.modules == two.modules
    assert [told(t.frames) for t in one.threads] == [told(t.frames) for t in two.threads]
    assert [[f.is_return_address for f in t.frames or ()] for t in one.threads] == [
        [f.is_return_address for f in t.frames or ()] for t in two.threads
    ]
    assert one.exceptions == two.exceptions
    assert [(t.name, t.crashed) for t in one.threads] == [(t.name, t.crashed) for t in two.threads]
    for name in (
        "event_id",
        "timestamp",
        "uptime_s",
        "os_name",
        "os_version",
        "os_build",
        "process_name",
        "pid",
        "arch",
    ):
        assert getattr(one, name) == getattr(two, name)
    shared = one.attributes.keys() & two.attributes.keys()
    assert {"machine_model", "process_path", "parent_process", "parent_pid", "exception_codes", "signal"} <= shared
    assert {k: one.attributes[k] for k in shared} == {k: two.attributes[k] for k in shared}
    assert one.threads[1].registers is not None
    assert two.threads[1].registers is not None
    assert one.threads[1].registers.as_hex() == two.threads[1].registers.as_hex()


def test_which_addresses_are_return_addresses() -> None:
    """The inlined call and the frame it is in have the program counter; in the exception's stack all return."""
    crash = read(sample().ips())
    crashed = crash.threads[1].frames or []
    assert [f.is_return_address for f in crashed] == [False, False, True, True]
    assert [f.reported.inline for f in crashed if f.reported] == [True, False, False, False]
    assert [f.is_return_address for f in crash.threads[0].frames or ()] == [False, True, True]
    assert [f.is_return_address for f in crash.exceptions[-1].frames or ()] == [True, True]


def test_what_the_report_knows_of_frames() -> None:
    frames = told(read(sample().ips()).threads[1].frames)
    assert [(f.status, f.function, f.filename, f.lineno) for f in frames] == [
        ("symbolicated", "Basket.weigh(_:)", "Basket.swift", 12),
        ("symbolicated", "Basket.pick()", "Basket.swift", 40),
        ("symbolicated", "main", "main.swift", 3),
        ("missing_symbol", None, None, None),
    ]
    assert frames[1].symbol_addr == "0x1047890f0"
    assert frames[1].package.endswith("/Orchard.app/Orchard")
    assert frames[3].package is None


def test_an_inlined_call_without_its_frame_stands_for_itself() -> None:
    report = replace(sample(), threads=[[Call(0, 0x10, "a", 0, inline=True), Call(0, 0x20, "b")]], crashed=0)
    frames = read(report.ips()).threads[0].frames or []
    assert [f.reported.inline for f in frames if f.reported] == [False, False]
    assert [f.is_return_address for f in frames] == [False, True]


def test_exceptions_end_with_the_cause() -> None:
    crash = read(sample().ips())
    first, last = crash.exceptions
    assert (first.type, first.value, first.code, first.address, first.mechanism, first.thread_id) == (
        "EXC_BAD_ACCESS",
        "KERN_INVALID_ADDRESS at 0x0000000000000010",
        1,
        16,
        "mach",
        1,
    )
    assert (last.type, last.value, last.mechanism) == ("NSRangeException", "it's out of\nbounds", "nsexception")
    assert [f.instruction_addr for f in last.frames or ()] == [0x1_9785_BF80, 0x1_0478_8000 + 0x1020]


def test_newer_systems_spell_the_exception_out() -> None:
    body = sample().body()
    body["exceptionReason"] = {
        "arguments": ["NSNull"],
        "format_string": "%s",
        "name": "NSInvalidArgumentException",
        "type": "objc-exception",
        "composed_message": "-[NSNull length]: unrecognized selector",
        "class": "NSException",
    }
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert (crash.exceptions[-1].type, crash.exceptions[-1].value) == (
        "NSInvalidArgumentException",
        "-[NSNull length]: unrecognized selector",
    )


def test_backtraces_in_text_inside_json() -> None:
    body = sample().body()
    del body["lastExceptionBacktrace"]
    body["asiBacktraces"] = [
        "0   CoreFoundation   0x00007ff80041 __raise + 242\n1   Orchard  0x0000000104789020 main + 16"
    ]
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    frames = crash.exceptions[-1].frames or []
    assert [f.instruction_addr for f in frames] == [0x7FF80041, 0x1_0478_9020]
    assert [f.reported.function for f in frames if f.reported] == ["__raise", "main"]
    assert all(f.is_return_address for f in frames)


@pytest.mark.parametrize(
    ("kind", "signal", "subtype", "codes", "value", "address"),
    [
        ("EXC_CRASH", "SIGABRT", "", (0, 0), "SIGABRT", None),
        ("EXC_BREAKPOINT", "SIGTRAP", "", (1, 0x1_0478_9108), "EXC_ARM_BREAKPOINT", None),
        ("EXC_BAD_ACCESS", "SIGBUS", "", (2, 0x20), "KERN_PROTECTION_FAILURE at 0x20", 0x20),
        ("EXC_BAD_ACCESS", "SIGSEGV", "", (1, 2**64 - 1), "KERN_INVALID_ADDRESS at 0xffffffffffffffff", 2**64 - 1),
        ("EXC_GUARD", "", "GUARD_TYPE_FD", (2**63, 3), "GUARD_TYPE_FD", None),
    ],
)
def test_codes_have_names(
    kind: str, signal: str, subtype: str, codes: tuple[int, ...], value: str, address: int | None
) -> None:
    report = replace(sample(), kind=kind, signal=signal, subtype=subtype, codes=codes, last=[], information="")
    for crash in (read(report.ips()), text.read(report.text().encode(), LIMITS)):
        (found,) = crash.exceptions
        assert (found.type, found.value, found.address) == (kind, value, address)


def test_termination_is_the_message_where_it_says_something() -> None:
    body = replace(sample(), information="", last=[]).body()
    body["termination"] = {"namespace": "TCC", "code": 0, "details": ["It lacks a key."], "flags": 518}
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert crash.attributes["termination_reason"] == "TCC 0\nIt lacks a key."
    assert crash.message == "TCC 0\nIt lacks a key."
    body["termination"] = {"namespace": "SIGNAL", "code": 11, "indicator": "Segmentation fault: 11"}
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert crash.attributes["termination_reason"] == "SIGNAL 11 Segmentation fault: 11"
    assert crash.message is None


def test_registers_explain_the_fault() -> None:
    body = sample().body()
    body["threads"][1]["threadState"]["esr"] = {"value": 0x92000006, "description": "(Data Abort) byte read"}
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert crash.attributes["esr"] == "0x92000006 (Data Abort) byte read"


def test_intel() -> None:
    body = sample().body()
    body["cpuType"] = "X86-64 (Translated)"
    body["threads"][1]["threadState"] = {"rip": {"value": 7}, "rsp": {"value": 8}, "rflags": {"value": 2}, "r15": {}}
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert crash.arch is Arch.X86_64
    registers = crash.threads[1].registers
    assert registers is not None
    assert (registers.pc, registers.sp, registers.others) == (7, 8, {"rflags": 2})


@pytest.mark.parametrize(
    "dressed",
    [
        lambda s: s.replace("\n", "\r\n"),
        lambda s: "\ufeff" + s,
        lambda s: s + "\n\nModel: Mac14,2, BootROM 8422, proc 8:4:4 processors, 16 GB\n",
        lambda s: "-" * 37 + "\nTranslated Report (Full Report Below)\n" + "-" * 37 + "\n\nProcess: Other [1]\n\n" + s,
        lambda s: s.partition("\n")[2],
        lambda s: s.replace('"\n{', '"\n\n\n{'),
    ],
    ids=["crlf", "bom", "machine", "translated", "second document only", "blank lines"],
)
def test_what_users_make_of_it(dressed: Any) -> None:
    plain = read(sample().ips())
    crash = read(dressed(sample().ips()))
    assert addresses(crash) == addresses(plain)
    assert crash.process_name == "Orchard"
    assert crash.diagnostics == []


def test_utf16() -> None:
    data = b"\xff\xfe" + sample().ips().encode("utf-16-le")
    assert addresses(ips.read(data, LIMITS)) == addresses(read(sample().ips()))


def test_the_first_generation_has_text_below_the_header() -> None:
    header = {**HEADER, "bug_type": "109", "app_version": "9.9"}
    crash = read(json.dumps(header) + "\n" + sample().text())
    assert addresses(crash) == addresses(read(sample().ips()))
    assert crash.format == "apple-ips"
    assert crash.release == "org.example.orchard@9.9+34"
    assert crash.attributes["bug_type"] == "109"


def test_a_cut_report_keeps_what_it_has() -> None:
    """Images come after threads: where they are cut off, the frames have names and no addresses."""
    source = sample().ips()
    crash = read(source[: source.index('"usedImages"')])
    assert [d.code for d in crash.diagnostics] == ["malformed", "malformed"]
    assert [f.function for f in told(crash.threads[1].frames)] == ["Basket.weigh(_:)", "Basket.pick()", "main", None]
    assert addresses(crash)[1] == [None] * 4
    crash = read(source[: source.index("9618b2f2")])
    assert addresses(crash)[1][:3] == [0x1_0478_9108, 0x1_0478_9108, 0x1_0478_9014]


def test_the_translation_counts_where_json_is_cut() -> None:
    translation = (
        "Translated Report (Full Report Below)\n\n" + sample().text().replace("EOF", "") + "Full Report\n----\n\n"
    )
    crash = read(translation + json.dumps(HEADER) + "\n")
    assert addresses(crash) == addresses(read(sample().ips()))


def test_frames_that_name_no_image() -> None:
    body = sample().body()
    body["threads"][0]["frames"] = [{"imageIndex": 77, "imageOffset": 1}, {"imageIndex": 0, "symbol": "f"}, {}, "x", 5]
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert addresses(crash)[0] == [None] * 5
    assert [f.status for f in told(crash.threads[0].frames)][:2] == ["malformed", "symbolicated"]
    (problem,) = crash.diagnostics
    assert problem.code == "malformed"
    assert problem.where is not None
    assert problem.where["frames"] == 5


def test_kernel_addresses_are_beyond_doubles() -> None:
    body = sample().body()
    body["usedImages"][0]["base"] = 18446744005157134336
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert addresses(crash)[1][0] == 18446744005157134336 + 0x1108


def test_images_that_overlap_are_dropped() -> None:
    body = sample().body()
    body["usedImages"].append({"base": 0x1_0478_8800, "size": 0x1000, "name": "shade", "uuid": "1" * 32})
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert [m.debug_file for m in crash.modules] == ["Orchard", "My Fruit Kit", "libobjc.A.dylib"]
    assert [d.code for d in crash.diagnostics] == ["module_overlap"]


def test_reports_without_a_stack() -> None:
    jetsam = {
        "crashReporterKey": "x",
        "largestProcess": "Orchard",
        "processes": [{"pid": 1}],
        "reason": "vm-pageshortage",
    }
    with pytest.raises(Unsupported, match="298"):
        ips.read((json.dumps({"bug_type": "298"}) + "\n" + json.dumps(jetsam)).encode(), LIMITS)
    crash = read(json.dumps(HEADER) + "\n")
    assert (crash.process_name, crash.event_id, [d.code for d in crash.diagnostics]) == (
        "Orchard",
        INCIDENT,
        ["truncated"],
    )
    for nothing in (b"", b"nothing", b"{}\n", b'{"a": 1}\n{}', b"{" * 50):
        with pytest.raises((Malformed, Unsupported)):
            ips.read(nothing, LIMITS)


def test_limits() -> None:
    few = ReportLimits(max_threads=2, max_modules=1)
    crash = ips.read(sample().ips().encode(), few)
    assert (len(crash.threads), len(crash.modules)) == (2, 1)
    with pytest.raises(LimitExceeded):
        ips.read(json.dumps(HEADER).encode() + b"\n" + b"[" * 2_000_001, LIMITS)
    with pytest.raises(LimitExceeded):
        ips.read(b"{" + b" " * (33 << 20), LIMITS)


def test_wrong_types_are_as_good_as_absent() -> None:
    body: dict[str, Any] = {k: 5 if isinstance(v, (dict, list, str)) else "x" for k, v in sample().body().items()}
    crash = ips.read((json.dumps(HEADER) + "\n" + json.dumps(body)).encode(), LIMITS)
    assert (crash.threads, crash.modules, crash.exceptions) == ([], [], [])
    body = sample().body()
    body["threads"] = [5, {"frames": 5, "threadState": []}, {"frames": [5], "threadState": {"x": 5, "pc": 5}}]
    body["exception"] = {"type": 5, "rawCodes": "x", "signal": "SIGSEGV"}
    crash = read(f"{json.dumps(HEADER)}\n{json.dumps(body)}")
    assert len(crash.threads) == 3
    assert crash.exceptions[0].type == "SIGSEGV"
