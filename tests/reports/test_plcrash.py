"""What each part of a PLCrashReporter report becomes, from reports built for the purpose."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import Config, ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect
from deadreckon.reports.plcrash import read
from synth.macho import ARM64 as MACHO_ARM64
from synth.macho import DSYM, PURE, Mach
from synth.plcrash import ARM, ARM64, ARM64E, HEADER, I386, UUID, X86_64, Report, frame, processor, whole
from synth.protobuf import blob, fixed64, group, number, packed

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
BASE = 0x1_0000_0000


def crash_of(report: Report) -> RawCrash:
    return read(report.finish(), LIMITS)


def codes(crash: RawCrash) -> list[str]:
    return [d.code for d in crash.diagnostics]


def test_everything() -> None:
    crash = crash_of(whole())
    assert codes(crash) == []
    assert (crash.format, crash.arch, crash.event_id) == ("plcrash", Arch.ARM64, UUID.hex())
    assert (crash.os_name, crash.os_version, crash.os_build) == ("iOS", "14.1", "18A8395")
    assert (crash.timestamp, crash.uptime_s) == (1_600_000_000, 10)
    assert (crash.process_name, crash.pid, crash.release) == ("App", 42, "com.example.app@1.2.3+7")
    assert (crash.level, crash.message) == (None, None)
    assert crash.attributes == {
        "app_identifier": "com.example.app",
        "app_version": "7",
        "app_marketing_version": "1.2.3",
        "process_path": "/a/App.app/App",
        "process_native": True,
        "process_start_time": 1_599_999_990,
        "parent_process": "launchd",
        "parent_pid": 1,
        "machine_model": "iPhone11,8",
        "cpu_type": ARM64,
        "cpu_subtype": 1,
        "cpu_count": "6",
        "logical_cpu_count": "12",
        "signal": "SIGSEGV",
        "signal_code": "SEGV_MAPERR",
        "signal_address": "0x10",
    }
    crashed, other = crash.threads
    assert (crashed.id, crashed.crashed, other.id, other.crashed) == (0, True, 3, False)
    assert crashed.registers is not None
    shown = crashed.registers.as_hex()
    assert list(shown.values()) == [hex(BASE + i) for i in range(34)]
    assert [*shown][-5:] == ["fp", "lr", "sp", "pc", "cpsr"]
    assert other.registers is None
    assert crashed.frames is not None
    assert other.frames is not None
    assert [(f.instruction_addr, f.is_return_address) for f in crashed.frames] == [
        (BASE + 0x1010, False),
        (BASE + 0x2024, True),
    ]
    assert crashed.frames[0].reported is None
    main = crashed.frames[1].reported
    assert main is not None
    assert (main.function, main.raw_function, main.symbol_addr) == ("main", "_main", hex(BASE + 0x2000))
    method = other.frames[0].reported
    assert method is not None
    assert (method.function, method.raw_function) == ("-[Foo bar:]", "-[Foo bar:]")
    app, library = crash.modules
    assert (app.image_addr, app.image_size, app.code_file) == (BASE, 0x4000, "/private/var/App.app/App")
    assert (app.debug_file, app.arch, app.code_id) == ("App", Arch.ARM64, UUID.hex())
    assert app.debug_id == "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
    assert library.debug_file == "libx.dylib"
    signal, uncaught = crash.exceptions
    assert (signal.type, signal.value, signal.address) == ("SIGSEGV", "SEGV_MAPERR at 0x10", 0x10)
    assert (signal.mechanism, signal.thread_id, signal.frames, signal.code) == ("signal", 0, None, None)
    assert (uncaught.type, uncaught.value) == ("NSRangeException", "index 23 beyond bounds")
    assert (uncaught.mechanism, uncaught.thread_id) == ("nsexception", 0)
    assert uncaught.frames is not None
    # Its frames are NSException.callStackReturnAddresses: the first is no program counter.
    assert [(f.instruction_addr, f.is_return_address) for f in uncaught.frames] == [
        (BASE + 0x1014, True),
        (BASE + 0x2024, True),
    ]


def test_frames_are_looked_up_by_uuid_and_in_their_calls(tmp_path: Path) -> None:
    """Functions follow each other without a gap, so that a return address right after a call is in the next one."""
    functions = [
        ("_first", BASE + 0x1000),
        ("_second", BASE + 0x1014),
        ("_third", BASE + 0x2000),
        ("_end", BASE + 0x2024),
    ]
    text = [(b"__text", BASE + 0x1000, 0x2000, PURE)]
    dsym = Mach(UUID, MACHO_ARM64, DSYM, BASE, sections=text, symbols=functions, starts=[a for _, a in functions])
    (tmp_path / "App").write_bytes(bytes(dsym))
    with Engine() as engine:
        event = engine.process(whole(BASE + 0x4_0000).finish(), symbols=[str(tmp_path)])
    assert event.status == "ok"
    assert event.exceptions is not None
    assert event.threads is not None
    frames = [*(event.threads[0].frames or ()), *(event.exceptions[1].frames or ())]
    assert [(f.function or "").lstrip("_") for f in frames] == ["first", "third", "first", "third"]
    assert [f.rva for f in frames] == ["0x1010", "0x2024", "0x1014", "0x2024"]
    assert {f.trust for f in frames} == {"prewalked"}
    assert [m.symbols for m in event.modules or ()] == ["found", "missing"]
    assert event.level == "fatal"
    (_, unknown) = event.threads[1].frames or []
    assert (unknown.status, unknown.instruction_addr) == ("unknown_image", "0x99")


@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_a_real_librarys_dsym(fixtures: Path, tmp_path: Path, arch: str) -> None:
    """Every instruction of the Mach-O fixture is in the function, file and line that llvm-symbolizer says."""
    facts = json.loads((fixtures / "macho/truth.json").read_text())[arch]
    report = Report()
    cpu = processor(ARM64 if arch == "arm64" else X86_64)
    report.add_image(BASE, 0x4000, "/a/liborchard.dylib", uuid.UUID(facts["uuid"]).bytes, cpu)
    report.set_machine(ARM64 if arch == "arm64" else X86_64)
    for number_, address in enumerate(facts["addresses"]):
        report.add_thread(number_, [frame(BASE + int(address, 16))], crashed=not number_)
    with Engine(Config(store=str(tmp_path))) as engine:
        event = engine.process(report.finish(), symbols=[str(fixtures / "macho")])
    found = [[[f.function, f.abs_path, f.lineno] for f in t.frames or ()] for t in event.threads or ()]
    assert found == list(facts["addresses"].values())
    assert len(found) > 80


# --- Header ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Malformed),
        (b"plcrash", Malformed),
        (b"plcrush\x01", Malformed),
        (HEADER, Malformed),
        (HEADER + b"\x08\x01" * 20, Malformed),
        (HEADER + blob(1, number(1, 1)), Malformed),
        (b"plcrash\x02" + whole().finish()[8:], Unsupported),
        (HEADER + bytes(17 << 20), LimitExceeded),
    ],
)
def test_what_is_no_report(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(data, LIMITS)


def test_told_by_its_first_bytes() -> None:
    data = whole().finish()
    for content, name in ((data, "plcrash"), (HEADER, "plcrash"), (b"plcrash", "plcrash"), (b"plcrash log:\n", None)):
        form = detect(Probe(content))
        assert (form.name if form else None) == name


# --- Versions and forks ----------------------------------------------------------------------------------------------


def test_a_report_of_version_1_0() -> None:
    """It has no process, machine and report information and no code types."""
    report = Report(info=b"")
    report.set_system(system=0, architecture=0, when=0)
    report.add_thread(
        0, [frame(0x1F4B)], crashed=True, registers={"eip": 0x1F4B, "eflags": 0x246, "trapno": 14, "gs": 55}
    )
    report.add_image(0x1000, 0x1000, "/Demo", None)
    crash = crash_of(report)
    assert codes(crash) == []
    assert (crash.arch, crash.os_name, crash.timestamp, crash.event_id) == (Arch.X86, "macOS", None, None)
    assert (crash.process_name, crash.pid, crash.uptime_s) == (None, None, None)
    assert crash.modules[0].debug_id is None
    assert crash.threads[0].registers is not None
    assert crash.threads[0].registers.as_hex() == {"eip": "0x1f4b", "eflags": "0x246", "trapno": "0xe", "gs": "0x37"}


def test_unknown_fields_are_passed_over() -> None:
    report = whole()
    report.images[0] += number(6, 0x10000) + number(7, 0x20000)
    report.threads[0] += blob(900, "x") + fixed64(901, 1) + group(902, number(1, 1))
    crash = crash_of(report)
    assert codes(crash) == []
    assert crash.modules == crash_of(whole()).modules
    assert [t.frames for t in crash.threads] == [t.frames for t in crash_of(whole()).threads]


def test_mach_codes_packed_or_not() -> None:
    report = whole()
    report.signal += blob(4, number(1, 1) + packed(2, [2, 0x10385C000]))
    stopped = crash_of(report).exceptions[0]
    assert (stopped.type, stopped.value) == ("EXC_BAD_ACCESS", "KERN_PROTECTION_FAILURE at 0x10385c000")


def test_parts_in_any_order_and_given_twice() -> None:
    report = whole()
    late = Report(info=b"", system=b"", application=b"")
    body = report.finish()[8:]
    late.system, late.signal = blob(2, "15.0"), blob(2, "SEGV_ACCERR")
    crash = read(HEADER + body + blob(6, late.signal) + blob(1, late.system), LIMITS)
    assert codes(crash) == []
    assert (crash.os_version, crash.os_build) == ("15.0", "18A8395")
    assert (crash.exceptions[0].type, crash.exceptions[0].value) == ("SIGSEGV", "SEGV_ACCERR at 0x10")


# --- Text ------------------------------------------------------------------------------------------------------------


def test_text_that_is_not_utf8() -> None:
    report = whole()
    report.set_process(name=b"\xab\xabApp", path=b"/a/App\0")
    report.images[0] = number(2, 0x4000) + number(1, BASE) + blob(3, b"/\xff/" + b"\xab" * 100_000)
    crash = crash_of(report)
    assert crash.process_name == "\\xab\\xabApp"
    assert crash.attributes["process_path"] == "/a/App"
    assert crash.modules[0].code_file.startswith("/\\xff/\\xab\\xab")
    assert len(crash.modules[0].code_file) < 4 * LIMITS.max_string_bytes + 10


def test_a_process_without_a_name_has_that_of_its_file() -> None:
    report = whole()
    report.set_process(name="", path="/a/Some App.app/Some App\0")
    assert crash_of(report).process_name == "Some App"


@pytest.mark.parametrize(
    ("symbol", "function"), [("_CFRelease", "CFRelease"), ("__ZN3app3runEv", None), ("_", "_"), ("-[A b]", "-[A b]")]
)
def test_symbols_have_apples_underscore(symbol: str, function: str | None) -> None:
    report = whole()
    report.add_thread(4, [frame(BASE + 0x10, symbol)])
    said = (crash_of(report).threads[-1].frames or [])[0].reported
    assert said is not None
    assert (said.function, said.raw_function) == (function, symbol)


# --- Why -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "address", "expected"),
    [
        ("SIGSEGV", "SEGV_ACCERR", 0, ("SIGSEGV", "SEGV_ACCERR at 0x0", None, 0)),
        ("SIGABRT", "#0", 0x1B37, ("SIGABRT", "", None, 0x1B37)),
        ("SIGTRAP", "#0", 0x1B37, ("SIGTRAP", "at 0x1b37", None, 0x1B37)),
        ("SIGUSR2", "SIGUSR2", 0, ("SIGUSR2", "SIGUSR2", None, 0)),
        ("#31", "#5", 0, ("SIGUSR2", "si_code 5", 31, 0)),
        ("#200", "#0", 0, ("signal 200", "", 200, 0)),
        ("#abc", "", 0, ("#abc", "", None, 0)),
        ("", "", 0, (None, "", None, 0)),
    ],
)
def test_signals(name: str, code: str, address: int, expected: tuple[str, str, int, int]) -> None:
    report = whole()
    report.set_signal(name, code, address)
    found = crash_of(report).exceptions[0]
    assert (found.type, found.value, found.code, found.address) == expected


@pytest.mark.parametrize(
    ("kind", "mach_codes", "expected"),
    [
        (1, [1, 0xDEAD], ("EXC_BAD_ACCESS", "KERN_INVALID_ADDRESS at 0xdead", 1, 0xDEAD)),
        (1, [13, 0], ("EXC_BAD_ACCESS", "code 0xd at 0x0", 1, 0)),
        (1, [1, 0], ("EXC_BAD_ACCESS", "KERN_INVALID_ADDRESS at 0x0", 1, 0)),
        (6, [1, 0xDEAD], ("EXC_BREAKPOINT", "EXC_ARM_BREAKPOINT", 6, 0x10)),
        (10, [6 << 24, 0], ("EXC_CRASH", "SIGABRT", 10, 0x10)),
        (77, [1, 2], ("0x0000004d", "code 0x1", 77, 0x10)),
        (0, [1], ("SIGSEGV", "SEGV_MAPERR at 0x10", None, 0x10)),
        (1, [2], ("SIGSEGV", "SEGV_MAPERR at 0x10", None, 0x10)),
    ],
)
def test_mach_exceptions(kind: int, mach_codes: list[int], expected: tuple[str, str, int | None, int]) -> None:
    report = whole()
    report.set_signal("SIGSEGV", "SEGV_MAPERR", 0x10, (kind, mach_codes))
    crash = crash_of(report)
    found = crash.exceptions[0]
    assert (found.type, found.value, found.code, found.address) == expected
    assert crash.attributes["mach_exception"] == {"type": kind, "codes": mach_codes}
    assert crash.attributes["signal"] == "SIGSEGV"


def test_a_report_the_program_asked_for() -> None:
    report = whole()
    report.info = number(1, 1) + blob(2, bytes(16))
    report.set_signal("SIGTRAP", "TRAP_TRACE", 0x1234)
    crash = crash_of(report)
    assert (crash.level, crash.event_id, crash.attributes["user_requested"]) == ("info", None, True)
    assert crash.exceptions[0].value == "TRAP_TRACE at 0x1234 (the program asked for this report)"


# --- Architecture ----------------------------------------------------------------------------------------------------


def test_the_images_architecture_counts_first() -> None:
    report = Report()
    report.set_machine(I386, 4)
    report.set_system(system=0, architecture=0)
    report.add_image(BASE, 0x1000, "/odd", None, processor(ARM64, 0, encoding=0))
    report.add_image(BASE + 0x1000, 0x1000, "/App", None, processor(X86_64, 0x8000_0003))
    assert crash_of(report).arch is Arch.X86_64
    report.images.clear()
    assert crash_of(report).arch is Arch.X86
    report.machine = b""
    report.set_system(architecture=5)
    assert crash_of(report).arch is Arch.ARM
    report.set_system(architecture=6)
    assert crash_of(report).arch is Arch.UNKNOWN
    report.add_thread(0, [], registers={"rip": 5})
    assert crash_of(report).arch is Arch.X86_64


def test_registers_of_a_processor_we_do_not_know() -> None:
    report = Report()
    report.add_thread(0, [frame(0x10)], registers={"srr0": 5})
    crash = crash_of(report)
    assert (crash.arch, crash.threads[0].registers) == (Arch.UNKNOWN, None)


def test_signed_return_addresses_of_arm64e() -> None:
    signature = 0x00A5_0070_0000_0000
    report = Report()
    frames = [frame(BASE + 0x10), frame(BASE + 0x20 | signature), frame(0x7 | signature), frame(0xA5A5_A5A5_A5A5_A5A5)]
    report.add_thread(0, frames)
    report.add_image(BASE, 0x1000, "/App", UUID, processor(ARM64, ARM64E))
    crash = crash_of(report)
    assert crash.address_mask == 0xF_FFFF_FFFF
    found = [f.instruction_addr for f in crash.threads[0].frames or ()]
    assert found == [BASE + 0x10, BASE + 0x20, 0x7 | signature, 0xA5A5_A5A5_A5A5_A5A5]
    report.images = []
    report.add_image(BASE, 0x1000, "/App", UUID, processor(ARM64, 1))
    assert crash_of(report).address_mask is None


def test_thumb_addresses_stay_as_they_are() -> None:
    report = Report()
    report.add_thread(0, [frame(0x4010), frame(0x4021)], registers={"r0": 1, "lr": 0x4021, "pc": 0x4010, "cpsr": 0x30})
    report.add_image(0x4000, 0x1000, "/App", UUID, processor(ARM, 9))
    crash = crash_of(report)
    assert crash.arch is Arch.ARM
    assert [f.instruction_addr for f in crash.threads[0].frames or ()] == [0x4010, 0x4021]


# --- Damage ----------------------------------------------------------------------------------------------------------


def test_images_without_a_place() -> None:
    report = Report()
    report.add_image(0x4000, 0x1000, "/a", UUID)
    report.add_image(0x4000, 0x1000, "/a", UUID)  # Listed twice.
    report.add_image(0x4800, 0x10, "/inside", UUID)
    report.add_image(0x3000, 0x1001, "/before", UUID)
    report.add_image(0x5000, 0x1000, "/b", UUID)
    report.add_image(2**64 - 16, 17, "/beyond", UUID)
    report.images.append(blob(3, "/nowhere"))
    report.add_image(0x9000, 0, "/empty", bytes(16))
    crash = crash_of(report)
    assert [m.code_file for m in crash.modules] == ["/a", "/a", "/b", "/empty"]
    assert crash.modules[3].debug_id is None
    told = {d.code: d.message or "" for d in crash.diagnostics}
    assert "2 images overlap an earlier one and were dropped: /inside, /before" in told["module_overlap"]
    assert any("/beyond, /nowhere" in (d.message or "") for d in crash.diagnostics)


def test_a_report_cut_at_the_writers_limit() -> None:
    report = whole()
    data = report.finish()
    at = data.index(b"/usr/lib/libx")
    crash = read(data[:at], LIMITS)
    assert codes(crash) == ["truncated", "malformed"]
    assert "no signal" in (crash.diagnostics[1].message or "")
    assert crash.diagnostics[0].where == {"offset": at}
    assert [m.code_file for m in crash.modules] == ["/private/var/App.app/App", ""]
    assert len(crash.threads) == 2
    assert crash.exceptions == []


def test_frames_without_an_address() -> None:
    report = whole()
    report.add_thread(4, [number(2, 1), frame(BASE + 4)])
    crash = crash_of(report)
    assert [(f.instruction_addr, f.is_return_address) for f in crash.threads[-1].frames or ()] == [(BASE + 4, True)]
    assert codes(crash) == ["malformed"]


def test_a_stack_as_long_as_the_writer_goes() -> None:
    report = whole()
    report.add_thread(4, [frame(BASE + 4)] * 512)
    crash = crash_of(report)
    assert [(d.code, d.severity) for d in crash.diagnostics] == [("frame_limit", "info")]


def test_counts_are_limited() -> None:
    few = ReportLimits(max_threads=3, max_modules=5, max_string_bytes=10)
    report = whole()
    for i in range(10):
        report.add_thread(10 + i, [frame(1)])
        report.add_image(0x10_0000 * i, 16, "/x", None)
    report.custom = b"0123456789abc"
    crash = read(report.finish(), few)
    assert (len(crash.threads), len(crash.modules)) == (3, 5)
    assert codes(crash) == ["limit_exceeded"] * 3
    assert crash.attributes["custom_data"] == "0123456789"
    report = whole()
    report.threads = [number(1, i) + blob(2, frame(1)) * 10_000 for i in range(12)]
    crash = crash_of(report)
    assert sum(len(t.frames or ()) for t in crash.threads) == 100_000
    assert codes(crash)[-1] == "limit_exceeded"


def test_what_the_application_added() -> None:
    report = whole()
    report.custom = b'{"user": "caf\xc3\xa9"}\xff'
    attributes = crash_of(report).attributes
    assert attributes["custom_data"] == '{"user": "café"}\\xff'
    assert base64.b64decode(attributes["custom_data_base64"]) == report.custom
