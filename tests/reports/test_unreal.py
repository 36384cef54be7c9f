"""Unreal Engine's crash containers: what is inside becomes one crash, and the context adds to it."""

from __future__ import annotations

import random
import re
import zlib
from typing import TYPE_CHECKING

import pytest

from deadreckon import process
from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, DeadreckonError, LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect, unreal, unrealcontext
from synth.minidump import AMD64, WINDOWS, Minidump, context_amd64
from synth.unreal import compressed, container, context

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
RUNTIME = {
    "CrashGUID": "UE4CC-Windows-0123456789ABCDEF0123456789ABCDEF_0000",
    "ProcessId": "42",
    "CrashType": "Crash",
    "SecondsSinceStart": "90",
    "ExecutableName": "Game",
    "BuildConfiguration": "Shipping",
    "BuildVersion": "++UE5+Release-5.3-CL-1",
    "PlatformName": "WindowsNoEditor",
    "PlatformFullName": "Win64 [Windows 10]",
    "UserName": "ann",
    "EpicAccountId": "77",
    "ErrorMessage": "Unhandled Exception <&>",
    "TimeOfCrash": "638000000000000000",
}


def minidump(code: int = 0xC0000005) -> bytes:
    dump = Minidump()
    dump.system(AMD64, WINDOWS, (10, 0, 1), "")
    dump.thread(5, context_amd64({"rip": 0x140001000, "rsp": 0x8000}), (0x8000, bytes(64)))
    dump.module(0x140000000, 0x10000, r"C:\Game.exe", stamp=1)
    dump.exception(5, code, context=context_amd64({"rip": 0x140001000, "rsp": 0x8000}))
    return dump.finish()


def files(code: int = 0xC0000005, **runtime: str) -> dict[str, bytes]:
    return {
        "CrashContext.runtime-xml": context(RUNTIME | runtime, {"PlatformIsRunningWindows": "1"}),
        "CrashReportClient.ini": b"[CrashReportClient]\r\n",
        "Game.log": b"\xef\xbb\xbfLog file open, 01/02/23 03:04:05\r\n",
        "UEMinidump.dmp": minidump(code),
    }


def read(data: bytes) -> RawCrash:
    return unreal.read(memoryview(data), LIMITS)


def read_context(runtime: dict[str, str], extra: str = "") -> RawCrash:
    return read(compressed({"CrashContext.runtime-xml": context(runtime, extra=extra)}))


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("squeezed", [False, True], ids=["inflated", "zlib"])
def test_the_files_become_one_crash(*, new: bool, squeezed: bool) -> None:
    data = container(files(), new=new)
    data = zlib.compress(data) if squeezed else data
    form = detect(Probe(data))
    assert form is not None
    assert form.name == "unreal"
    crash = read(data)
    assert crash.format == "unreal"
    assert [(a.name, a.size) for a in crash.attachments] == [(n, len(d)) for n, d in files().items()]
    assert [t.id for t in crash.threads] == [5]
    assert [m.code_file for m in crash.modules] == [r"C:\Game.exe"]
    assert [e.type for e in crash.exceptions] == ["EXCEPTION_ACCESS_VIOLATION"]
    assert crash.diagnostics == []


def test_the_context_adds_to_the_dump() -> None:
    crash = read(compressed(files()))
    assert crash.event_id == "0123456789abcdef0123456789abcdef"
    assert (crash.release, crash.environment) == ("++UE5+Release-5.3-CL-1", "Shipping")
    assert crash.user == {"id": "77", "username": "ann"}
    assert crash.message == "Unhandled Exception <&>"
    assert crash.attributes["PlatformIsRunningWindows"] == "1"
    assert crash.attributes["CrashGUID"] == RUNTIME["CrashGUID"]
    assert crash.uptime_s == 90.0
    assert crash.pid == 42


def test_a_later_crash_of_the_session_has_an_id_of_its_own() -> None:
    assert read_context(RUNTIME | {"CrashGUID": RUNTIME["CrashGUID"].replace("_0000", "_0001")}).event_id is None


@pytest.mark.parametrize("code", [1, 0x4000])
def test_an_assertion_takes_the_place_of_the_exception_it_raises(code: int) -> None:
    crash = read(compressed(files(code, CrashType="Assert", ErrorMessage="Assertion failed: x")))
    assert [(e.type, e.value, e.code, e.thread_id) for e in crash.exceptions] == [
        ("Assert", "Assertion failed: x", code, 5)
    ]
    crash = read(compressed(files(CrashType="GPUCrash", ErrorMessage="lost")))
    assert [e.type for e in crash.exceptions] == ["EXCEPTION_ACCESS_VIOLATION", "GPUCrash"]


def test_the_context_stands_for_a_missing_dump() -> None:
    """An ensure on a console sends no dump; what the engine walked itself has names and modules' bases."""
    stack = "Game!FFoo::Bar() [D:\\src\\foo.cpp:12]\r\nGame!main()\r\nkernel32"
    portable = "Game 0x00007ff600000000 + 1a2b Game 0x00007ff600000000 + 2a2b kernel32 0x00007ffb00000000 + 10"
    crash = read_context(RUNTIME | {"CrashType": "Ensure", "CallStack": stack, "PCallStack": portable})
    assert crash.level == "error"
    assert (crash.os_name, crash.arch, crash.process_name) == ("Windows", Arch.X86_64, "Game")
    assert crash.timestamp == pytest.approx(1_664_403_200)
    (thread,) = crash.threads
    assert thread.crashed
    assert thread.frames is not None
    assert [f.instruction_addr for f in thread.frames] == [0x7FF600001A2B, 0x7FF600002A2B, 0x7FFB00000010]
    assert all(f.is_return_address for f in thread.frames)  # Walked from inside the call that noticed.
    first = thread.frames[0].reported
    assert first is not None
    assert (first.function, first.filename, first.lineno) == ("FFoo::Bar()", "foo.cpp", 12)
    assert [(m.code_file, m.image_addr) for m in crash.modules] == [
        ("Game", 0x7FF600000000),
        ("kernel32", 0x7FFB00000000),
    ]


def test_bases_cut_to_32_bits_give_offsets_only() -> None:
    crash = read_context(RUNTIME | {"PCallStack": "Game 0x000000000864e000 + a52132 x 0x00000000ffffffff + ffffffff"})
    assert crash.threads[0].frames is not None
    (frame,) = crash.threads[0].frames
    assert frame.instruction_addr is None
    assert frame.reported is not None
    assert (frame.reported.package, frame.reported.rva) == ("Game", "0xa52132")
    assert crash.modules == []


def test_a_macs_stack_has_whole_addresses() -> None:
    stack = (
        "AActor::Tick() Address = 0x1090a0132 (filename not found) [in Game]\n"
        "main Address = 0x10864e010 [/a b/m.cpp, line 7] [in Game]"
    )
    crash = read_context(
        RUNTIME | {"CallStack": stack, "PCallStack": "Game 0x000000000864e000 + a52132 Game 0x000000000864e000 + 10"}
    )
    frames = crash.threads[0].frames
    assert frames is not None
    assert [f.instruction_addr for f in frames] == [0x1090A0132, 0x10864E010]
    assert [f.is_return_address for f in frames] == [False, True]
    assert crash.modules[0].image_addr == 0x10864E000
    assert frames[1].reported is not None
    assert (frames[1].reported.function, frames[1].reported.abs_path, frames[1].reported.lineno) == (
        "main",
        "/a b/m.cpp",
        7,
    )


def test_threads_of_unreal_5() -> None:
    extra = "<Threads>" + "".join(
        f"<Thread><CallStack>Core 0x00007ff600000000 + {n}0</CallStack><IsCrashed>{str(n == 2).lower()}</IsCrashed>"
        f"<Registers/><ThreadID>{n}</ThreadID><ThreadName>worker {n}</ThreadName></Thread>"
        for n in (1, 2)
    )
    crash = read_context(RUNTIME, extra + "</Threads>")
    assert [(t.id, t.name, t.crashed) for t in crash.threads] == [(1, "worker 1", False), (2, "worker 2", True)]


def test_game_data_keeps_its_sections_name() -> None:
    data = context(RUNTIME).replace(
        b"</FGenericCrashContext>", b"<GameData><Level>3</Level></GameData></FGenericCrashContext>"
    )
    crash = read(compressed({"CrashContext.runtime-xml": data}))
    assert crash.attributes["GameData.Level"] == "3"


def test_utf_16_under_a_declaration_of_utf_8() -> None:
    text = context(RUNTIME | {"UserName": "Zoë"}).decode()
    crash = read(compressed({"CrashContext.runtime-xml": text.encode("utf-16")}))
    assert crash.user["username"] == "Zoë"


def test_a_dump_that_is_no_minidump_is_named() -> None:
    crash = read(compressed(files() | {"UEMinidump.dmp": b"PS5 core"}))
    assert [d.code for d in crash.diagnostics] == ["unsupported"]
    assert crash.attributes["CrashType"] == "Crash"
    crash = read(compressed(files() | {"UEMinidump.dmp": minidump()[:40]}))
    assert [d.code for d in crash.diagnostics] == ["malformed"]


# --- Hostile and damaged containers -----------------------------------------------------------------------------------

_ENTITIES = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa">%s]><FGenericCrashContext><RuntimeProperties>'
    b"<A>&z;</A></RuntimeProperties></FGenericCrashContext>"
)
_BOMB = b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 50) for letter in range(ord("b"), ord("z") + 1)
)


@pytest.mark.parametrize(
    "xml",
    [
        _ENTITIES % _BOMB,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><FGenericCrashContext/>',
        b"<A>" * 100_000,
        b"<FGenericCrashContext>" + b"<a/>" * 300_000,
        b"\0" * 100,
        b"",
        b"no xml",
    ],
    ids=["bomb", "external", "deep", "wide", "zeros", "empty", "text"],
)
def test_hostile_contexts_are_refused(xml: bytes) -> None:
    crash = read(compressed(files() | {"CrashContext.runtime-xml": xml}))
    assert "malformed" in {d.code for d in crash.diagnostics}
    assert [t.id for t in crash.threads] == [5]
    assert not any("aaaa" in str(v) or "root:" in str(v) for v in crash.attributes.values())


def test_a_context_that_breaks_off_counts_as_far_as_it_goes() -> None:
    whole = context(RUNTIME)
    crash = read(compressed({"CrashContext.runtime-xml": whole[: whole.index(b"<UserName>")]}))
    assert crash.attributes["BuildVersion"] == RUNTIME["BuildVersion"]
    assert "UserName" not in crash.attributes
    assert [d.code for d in crash.diagnostics] == ["malformed"]


def test_a_stream_that_inflates_without_end_is_refused() -> None:
    data = zlib.compress(container(files(), new=True) + bytes(200 << 20), 9)
    assert len(data) < 1 << 20
    with pytest.raises(LimitExceeded):
        read(data)


def test_large_containers_go_to_a_file() -> None:
    noise = random.Random(1).randbytes(1 << 16) * 300
    crash = read(compressed(files() | {"Game.log": noise}))
    assert crash.attachments[2].size == len(noise)
    assert [t.id for t in crash.threads] == [5]


def check(data: bytes) -> None:
    try:
        crash = read(data)
    except DeadreckonError:
        return
    assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
    assert crash.attachments


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_truncated(*, new: bool) -> None:
    whole = container(files(), new=new)
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        check(whole[:at])
    squeezed = zlib.compress(whole)
    for at in range(0, len(squeezed), max(1, len(squeezed) // 40)):
        check(squeezed[:at])
    cut = read(whole[: whole.index(b"UEMinidump.dmp") + 600])
    assert {d.code for d in cut.diagnostics} >= {"truncated"}
    assert cut.attributes["UserName"] == "ann"


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_mutated(*, new: bool) -> None:
    rng = random.Random(7)
    whole = container(files(), new=new)
    squeezed = zlib.compress(whole)
    for _ in range(150):
        for data in (whole, squeezed):
            mutated = bytearray(data)
            for _ in range(rng.randint(1, 6)):
                mutated[rng.randrange(len(mutated))] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
            check(bytes(mutated))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"CR1", b"\x78\x9c", b"\x78\x9cgarbage", zlib.compress(b""), zlib.compress(b"CR1")]
)
def test_what_is_no_container(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)
    assert detect(Probe(data)) is None or not data


# --- Real ones --------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
def test_a_real_windows_container(corpus: Path) -> None:
    event = process(corpus / "other/unreal/unreal_crash")
    assert [(a.name, a.size) for a in event.attachments or ()] == [
        ("CrashContext.runtime-xml", 6545),
        ("CrashReportClient.ini", 204),
        ("MyProject.log", 21143),
        ("UE4Minidump.dmp", 410_700),
    ]
    assert event.event_id == "379993bb42bd8fbed67986857d8844b5"
    assert event.timestamp == "2018-10-29T16:56:38Z"
    assert (event.exceptions or [])[0].type == "Assert"
    assert len(event.modules or ()) == 128
    # symbolic's names for the properties are the engine's in another case.
    snapshot = (corpus / "other/unreal/expected_context_runtime_properties.snap").read_text()
    attributes = {k.replace(".", "").lower(): v for k, v in (event.attributes or {}).items()}
    renamed = {
        "legacycallstack": "callstack",
        "portablecallstack": "pcallstack",
        "appdefaultlocate": "appdefaultlocale",
        "miscnumberofcoresinchyperthread": "miscnumberofcoresincludinghyperthreads",
        "memorystatstotalphsysicalgb": "memorystatstotalphysicalgb",
        "crashreporterclientversion": "crashreportclientversion",
    }
    compared = 0
    for name, value in re.findall(r"^\s*([\w.]+): (.+)$", snapshot.split("---", 2)[2], re.MULTILINE):
        key = name.replace("_", "").replace(".", "").lower()
        wanted = value.strip('"').replace("\\n", "\n").replace("\\\\", "\\")
        if wanted:
            assert attributes[renamed.get(key, key)] == wanted
            compared += 1
    assert compared > 50


@pytest.mark.corpus
def test_a_real_macs_container(corpus: Path) -> None:
    event = process(corpus / "other/unreal/unreal_crash_apple")
    assert [(a.name, a.size) for a in event.attachments or ()] == [
        ("CrashReportClient.ini", 225),
        ("minidump.dmp", 91_392),
        ("info.txt", 590),
        ("YetAnotherMac.log", 43_699),
        ("CrashContext.runtime-xml", 9556),
        ("Diagnostics.txt", 35_567),
    ]
    assert event.event_id == "c4d618f60f46f8e48017259a587ac54e"
    assert (event.attributes or {})["CrashGUID"] == "UE4CC-Mac-C4D618F60F46F8E48017259A587AC54E_0000"
    crashed = next(t for t in event.threads or () if t.crashed)
    told = (event.exceptions or [])[0].frames or []
    # The engine's own walk of the stack, with names, and the thread of the system's report are one.
    assert [f.instruction_addr for f in crashed.frames or ()] == [f.instruction_addr for f in told]
    assert told[0].function == "AActor::IsPendingKillPending() const"


def test_contexts_are_bounded() -> None:
    assert unrealcontext.MAX_BYTES <= 16 << 20
