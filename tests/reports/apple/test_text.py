"""Text reports: a table of line forms, then the sections, in the variants that systems and tools print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import text
from deadreckon.reports.apple.frames import frame_line, heaviest_line, hex_list, image_line
from deadreckon.reports.apple.listing import Image, Listed
from synth.apple import sample

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame

LIMITS = ReportLimits()
UUID = "2d903291-397d-3d14-bfca-52c7fb8c5e00"
BARE = UUID.replace("-", "")


def read(source: str) -> RawCrash:
    """Read a report that only one format recognises."""
    data = source.encode()
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["apple-crash"]
    return text.read(data, LIMITS)


def addresses(frames: list[RawFrame] | None) -> list[int | None]:
    return [f.instruction_addr for f in frames or ()]


# -- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0   App    0x0000000108b7092b 0x108b70000 + 2347", Listed(0x108B7092B, "App", 0x108B70000)),
        ("12  My App Name\t   0x108b7092b 0x108b70000 + 2347", Listed(0x108B7092B, "My App Name", 0x108B70000)),
        ("3 ??? 0x54485244 0x0 + 0", Listed(0x54485244)),
        ("3 ??? 0x54485244 ???", Listed(0x54485244)),
        ("3   0x54485244 0x0 + 1414025796", Listed(0x54485244)),
        ("7 App 0x2000 0x1000 + 5", Listed(0x2000, "App")),
        ("7 App 0x2000", Listed(0x2000, "App")),
        ("0 App 0x0005b720 0x54000 + 30496 (-[A b] + 24)", Listed(0x5B720, "App", 0x54000, "-[A b]", 24)),
        ("0 App 0x0005b720 0x54000 + 30496 (a.m:7)", Listed(0x5B720, "App", 0x54000, file="a.m", line=7)),
        ("0 App 0x20 main + 164", Listed(0x20, "App", function="main", offset=164)),
        ("0 App 0x20 main + 0xA4", Listed(0x20, "App", function="main", offset=164)),
        ("0 App 0x20 main + 4 (main.m:16)", Listed(0x20, "App", None, "main", 4, "main.m", 16)),
        ("0 App 0x20 main + 4 (main.m:16:3)", Listed(0x20, "App", None, "main", 4, "main.m", 16, 3)),
        ("0 App 0x20 main (main.m:16)", Listed(0x20, "App", None, "main", None, "main.m", 16)),
        ("0 App 0x20 main (in App) + 164", Listed(0x20, "App", function="main", offset=164)),
        ("0 App 0x20 main + 164 (in App)", Listed(0x20, "App", function="main", offset=164)),
        ("0 App 0x20 main (in App) (main.m:14)", Listed(0x20, "App", None, "main", None, "main.m", 14)),
        ("0 App 0x20 f(int) [inlined] + 4 (a.cc:1)", Listed(0x20, "App", None, "f(int)", 4, "a.cc", 1, None, True)),
        ("0 App 0x20 f() + 4 [inlined] (in App) (a.cc:1)", Listed(0x20, "App", None, "f()", 4, "a.cc", 1, None, True)),
        ("0 App 0x20 f() + 4 (<compiler-generated>:0)", Listed(0x20, "App", function="f()", offset=4)),
        ("0 App 0x20 <redacted> + 148", Listed(0x20, "App")),
        ("0 App 0x20 -[V(Cat) set:with:] + 8", Listed(0x20, "App", function="-[V(Cat) set:with:]", offset=8)),
        ("0 App 0x20 operator+(A, A) + 8", Listed(0x20, "App", function="operator+(A, A)", offset=8)),
        ("0 App 0x20 $s3App1fyyF + 8", Listed(0x20, "App", function="$s3App1fyyF", offset=8)),
        ("0 0x1st Image 0x20 f + 8", Listed(0x20, "0x1st Image", function="f", offset=8)),
        ("main + 4", None),
        ("0 App main", None),
        ("0x20 App", None),
    ],
)
def test_frames(line: str, expected: Listed | None) -> None:
    assert frame_line(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f"0x10864e000 - 0x10ee0ffff +My App x86_64 (400.9.4 - 1.0.0) <{BARE}> /Users/b/My App/My App",
            Image(0x10864E000, 0x67C2000, "My App", "/Users/b/My App/My App", BARE, Arch.X86_64, "400.9.4 - 1.0.0"),
        ),
        (
            f"0x1017ff000 - 0x101885fff +com.Vendor.App (x86_64)  <{UUID.upper()}> /Users/App",
            Image(0x1017FF000, 0x87000, "com.Vendor.App", "/Users/App", UUID.upper(), Arch.X86_64),
        ),
        (
            f"0x18232f000 - 0x182635fff Foundation arm64e  <{BARE}> /System/Foundation",
            Image(0x18232F000, 0x307000, "Foundation", "/System/Foundation", BARE, Arch.ARM64),
        ),
        (
            f"0x10b5c0000 -  0x10b5c3fff com.apple.dt.My App (*) <{UUID}> /x",
            Image(0x10B5C0000, 0x4000, "com.apple.dt.My App", "/x", UUID),
        ),
        (
            f"0x104000000 - 0xffffffffffffffff +App (???) <{UUID}> /App",
            Image(0x104000000, None, "App", "/App", UUID),
        ),
        (f"0x104000000 - ??? +App arm64 <{BARE}> /App", Image(0x104000000, None, "App", "/App", BARE, Arch.ARM64)),
        (f"0x104000000 App arm64 <{BARE}> /App", Image(0x104000000, None, "App", "/App", BARE, Arch.ARM64)),
        (
            "0x8fe00000 - 0x8fe2db43  dyld 97.1 (???) /usr/lib/dyld",
            Image(0x8FE00000, 0x2DB44, "dyld 97.1", "/usr/lib/dyld"),
        ),
        (f"0x4000 - 0x8fff App armv7  <{BARE}> ???", Image(0x4000, 0x5000, "App", "", BARE, Arch.ARM)),
        (f"0x9000 - 0x8fff App armv7  <{BARE}> /App", Image(0x9000, None, "App", "/App", BARE, Arch.ARM)),
        ("0x9000 - 0x9fff ???", None),
        ("EOF", None),
    ],
)
def test_images(line: str, expected: Image | None) -> None:
    assert image_line(line) == expected


def test_bare_addresses() -> None:
    assert [f.address for f in hex_list("(0x182e6422c 0x194b300e4)")] == [0x182E6422C, 0x194B300E4]
    assert hex_list("(0x1 main)") == hex_list("") == hex_list("()") == []


def test_sampled_frames() -> None:
    assert heaviest_line("5  ??? (UIKitCore + 2276456) [0x19dbc0c68]") == Listed(0x19DBC0C68, "UIKitCore", 0x19D995000)
    assert heaviest_line("5  main + 8 (My App + 16) [0x1010]") == Listed(0x1010, "My App", 0x1000, "main", 8)
    assert heaviest_line("5  ??? (UIKitCore + 16)") == Listed(None, "UIKitCore")
    assert heaviest_line("Powerstats for:   afcd [299]") is None


# -- whole reports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dress",
    [
        lambda s: s,
        lambda s: s.replace("\n", "\r\n"),
        lambda s: s.replace("\n", "\r"),
        lambda s: "".join(f"    \t{line}\n" for line in s.split("\n")),
        lambda s: "\n".join(line for line in s.split("\n") if line),
        lambda s: s.replace("Thread 1 Crashed:", "Thread 1:"),
        lambda s: s.replace("Triggered by Thread:", "Crashed Thread:"),
        lambda s: s.replace("Thread 1 Crashed:", "Thread 1 Crashed:: Picker"),
        lambda s: "Logged from a device:\n\n" + s,
    ],
    ids=[
        "plain",
        "crlf",
        "cr",
        "indented",
        "no blank lines",
        "not marked",
        "old field",
        "two colons",
        "with a preface",
    ],
)
def test_appearance_does_not_matter(dress: object) -> None:
    assert callable(dress)
    crash = read(dress(sample().text()))
    plain = text.read(sample().text().encode(), LIMITS)
    assert crash.threads[1].crashed
    for one, two in zip(crash.threads, plain.threads, strict=True):
        assert (one.id, one.name, one.crashed, one.frames) == (two.id, two.name, two.crashed, two.frames)
    assert crash.modules == plain.modules
    assert [(e.type, e.address, e.frames) for e in crash.exceptions] == [
        (e.type, e.address, e.frames) for e in plain.exceptions
    ]


def test_thread_names() -> None:
    source = """
Thread 0::  Dispatch queue: com.apple.main-thread
0 App 0x1000 a + 1
Thread 1 name:  Worker  Dispatch queue: org.queue
Thread 1:
0 App 0x1000 a + 1
Thread 2:: Loader Dispatch queue: org.other
0 App 0x1000 a + 1
Thread 3 Crashed: Just a Name
0 App 0x1000 a + 1
Thread 4 Highlighted:
0 App 0x1000 a + 1
Thread 5:
"""
    crash = read(source)
    assert [t.name for t in crash.threads] == ["com.apple.main-thread", "Worker", "Loader", "Just a Name", None, None]
    assert [t.id for t in crash.threads if t.crashed] == [3]
    assert crash.threads[5].frames == []


HEADLESS = f"""
Application received signal SIGSEGV
(null)
((
  0  CoreFoundation                 0x00000001823b0f60 <redacted> + 148
  1  libobjc.A.dylib                0x000000019785bf80 objc_exception_throw + 56
  3  DemoApp                        0x100b32844        SignalHandler (in DemoApp) + 128
  29 DemoApp                        0x100100ea0        main (in DemoApp) (main.m:14)
)

dSYM UUID: {UUID.upper()}
CPU Type: arm64
Slide Address: 0x0000000100000000
Binary Image: DemoApp
Base Address: 0x00000001000e4000
"""


def test_a_reporter_that_prints_call_stack_symbols() -> None:
    """Its one image has no end: it reaches as far as its frames, and no further."""
    crash = read(HEADLESS)
    (thread,) = crash.threads
    assert addresses(thread.frames) == [0x1823B0F60, 0x19785BF80, 0x100B32844, 0x100100EA0]
    assert all(f.is_return_address for f in thread.frames or ())
    (module,) = crash.modules
    assert (module.image_addr, module.end, module.debug_id, module.arch) == (0x1000E4000, 0x100B32845, UUID, Arch.ARM64)
    assert [(e.type, e.mechanism) for e in crash.exceptions] == [("SIGSEGV", "signal")]
    told = [f.reported for f in thread.frames or ()]
    assert [f.function for f in told if f] == [None, "objc_exception_throw", "SignalHandler", "main"]
    assert [f.in_app for f in told if f] == [False, False, None, None]  # The first two are in the shared cache.


@pytest.mark.parametrize(
    "stack",
    [
        "(\n\t0   CoreFoundation  0x182e6422c __raise + 180\n\t1   App   0x1002b8778 main + 4\n)",
        "(0x182e6422c 0x1002b8778)",
        "(0x182e6422c\n0x1002b8778)",
    ],
)
def test_the_consoles_words_of_an_uncaught_exception(stack: str) -> None:
    crash = read(
        "2015-08-06 23:14:18.541 App[54727:3677632] *** Terminating app due to uncaught exception "
        f"'NSInvalidArgumentException', reason: '*** -[NSSet a:]: it's no set'\n*** First throw call stack:\n{stack}\n"
        "libc++abi.dylib: terminating with uncaught exception of type NSException\n"
    )
    assert crash.threads == []
    (found,) = crash.exceptions
    assert (found.type, found.value) == ("NSInvalidArgumentException", "*** -[NSSet a:]: it's no set")
    assert addresses(found.frames) == [0x182E6422C, 0x1002B8778]
    assert all(f.is_return_address for f in found.frames or ())


def test_last_exception_in_hex_only() -> None:
    source = sample().text()
    start = source.index("Last Exception Backtrace:\n") + len("Last Exception Backtrace:\n")
    end = source.index("Thread 0 name")
    bare = source[:start] + "(0x19785bf80 0x104789020)\n\n" + source[end:]
    assert read(bare).exceptions[-1].frames is not None
    assert addresses(read(bare).exceptions[-1].frames) == addresses(read(source).exceptions[-1].frames)


@pytest.mark.parametrize(
    ("lines", "kind", "value", "address"),
    [
        ("Exception Type: SIGSEGV\nException Codes: SEGV_MAPERR at 0x88", "SIGSEGV", "SEGV_MAPERR at 0x88", 0x88),
        ("Exception Type: SIGABRT\nException Codes: #0 at 0x18b4c6000", "SIGABRT", "", None),
        ("Exception Type: SIGTRAP\nException Codes: #0 at 0x18b4c6000", "SIGTRAP", "at 0x18b4c6000", 0x18B4C6000),
        (
            "Exception Type: EXC_BAD_ACCESS\nException Codes: KERN_NO_ACCESS at 0x10\nException Codes: 0x8, 0x10",
            "EXC_BAD_ACCESS",
            "KERN_NO_ACCESS at 0x10",
            0x10,
        ),
        ("Exception Type: EXC_CRASH (SIGABRT)\nException Codes: 0x0 at 0x3618da1c", "EXC_CRASH", "SIGABRT", None),
        ("Exception Type: 00000020\nException Codes: 0x000000008badf00d", "00000020", "0x000000008badf00d", None),
        (
            "Exception: EXC_BAD_ACCESS (0x0001)\nCodes: KERN_PROTECTION_FAILURE (0x0002) at 0x8",
            "EXC_BAD_ACCESS",
            "KERN_PROTECTION_FAILURE (0x0002) at 0x8",
            8,
        ),
    ],
)
def test_exception_fields_of_all_ages(lines: str, kind: str, value: str, address: int | None) -> None:
    crash = read(f"Report Version: 104\n{lines}\n\nThread 0 Crashed:\n0 App 0x1000 a + 1\n")
    (found,) = crash.exceptions
    assert (found.type, found.value, found.address) == (kind, value, address)


def test_general_protection_tells_no_address() -> None:
    crash = read("Report Version: 12\nException Type: EXC_BAD_ACCESS (SIGSEGV)\nException Codes: EXC_I386_GPFLT\n")
    assert (crash.exceptions[0].address, crash.exceptions[0].address_hidden) == (None, True)


def test_sections_of_many_lines() -> None:
    crash = read(
        "Incident Identifier: x\nVM Region Info: 0 is not in any region.\n      REGION TYPE  START - END\n--->\n"
        "Termination Reason: Namespace SPRINGBOARD, Code 0x8badf00d\nscene-create watchdog transgression\n\n"
        "Application Specific Information:\nfirst\n  second\n\nKernel Triage:\nVM - fault\n"
    )
    assert crash.attributes["vm_region_info"] == "0 is not in any region.\nREGION TYPE  START - END\n--->"
    assert crash.attributes["application_specific_information"] == "first\nsecond"
    assert crash.attributes["kernel_triage"] == "VM - fault"
    assert "watchdog" in crash.attributes["termination_reason"]
    assert crash.message == "first\nsecond"


@pytest.mark.parametrize(
    ("heading", "registers", "arch"),
    [
        ("ARM Thread State (64-bit):", "x0: 0x1 fp: 0x2 pc: 0x3", Arch.ARM64),
        ("ARM Thread State:", "r0: 0x1 sp: 0x2 pc: 0x3", Arch.ARM),
        ("X86 Thread State (64-bit):", "rax: 0x1 rsp: 0x2 rip: 0x3", Arch.X86_64),
        ("X86-64 Thread State:", "rax: 0x1 rsp: 0x2 rip: 0x3", Arch.X86_64),
        ("X86 Thread State (32-bit):", "eax: 0x1 esp: 0x2 eip: 0x3", Arch.X86),
    ],
)
def test_the_state_tells_the_architecture(heading: str, registers: str, arch: Arch) -> None:
    crash = read(f"Thread 4 Crashed:\n0 a 0x3 b + 1\n\nThread 4 crashed with {heading}\n  {registers}\n\nEOF\n")
    held = crash.threads[0].registers
    assert crash.arch is arch
    assert held is not None
    assert held.pc == 3


def test_what_comes_after_the_report_is_not_of_it() -> None:
    source = sample().text() + "\nHandler crashed while reporting:\n\nThread 0 Crashed:\n0 App 0x9 b + 1\n"
    assert addresses(read(source).threads[0].frames) == addresses(read(sample().text()).threads[0].frames)


HEAVIEST = f"""Date/Time:        2023-06-27 02:26:15.484 -0700
OS Version:       iPhone OS 16.5 (20F66)
Architecture:     arm64e
Report Version:   38
Incident Identifier: 05D98B49-C8B1-4F18-B494-491D76B2AA3C
Command:          Orchard
PID:              7877
Event:            cpu usage
Action taken:     none

Heaviest stack for the target process:
  18  ??? (dyld + 24012) [0x1be4d6dcc]
  18  ??? (Orchard + 5264) [0x104e5d490]
  6   ??? (Orchard + 177336) [0x104e874b8]


Powerstats for:   Orchard [7877]
UUID:          {UUID}
  18  ??? (Orchard + 5264) [0x104e5d490]
Binary Images:
           0x104e5c000 -        0x104eaffff  Orchard (1.2) <{UUID}> /private/Orchard.app/Orchard

Powerstats for:   other [1]
Binary Images:
           0x104e50000 -        0x104eaffff  other <{UUID}> /usr/libexec/other
"""


def test_the_heaviest_stack_of_a_resource_report() -> None:
    """It begins with the outermost frame; below come all processes, of which only the target's images count."""
    crash = read(HEAVIEST)
    assert (crash.process_name, crash.pid, crash.attributes["event"]) == ("Orchard", 7877, "cpu usage")
    (thread,) = crash.threads
    assert addresses(thread.frames) == [0x104E874B8, 0x104E5D490, 0x1BE4D6DCC]
    assert [f.is_return_address for f in thread.frames or ()] == [False, True, True]
    assert [(m.image_addr, m.debug_id) for m in crash.modules] == [(0x104E5C000, UUID), (0x1BE4D1000, None)]


def test_a_list_of_images_that_is_cut() -> None:
    """What frames say of images is used; that one has no identifier, and no more bytes than its frames show."""
    source = sample().text()
    crash = read(source[: source.index("Binary Images:")].replace("0x104788000 + 4116", "0x104788000 + 4116"))
    assert [(m.image_addr, m.image_size, m.code_file, m.debug_id) for m in crash.modules] == [
        (0x104788000, 0x1021, "Orchard", None)
    ]


def test_limits() -> None:
    few = ReportLimits(max_threads=1, max_modules=1)
    crash = text.read(sample().text().encode(), few)
    assert (len(crash.threads), len(crash.modules)) == (1, 1)
    long = "Thread 0 Crashed:\n" + "0 App 0x1000 a + 1\n" * 5000
    deep = read(long)
    assert len(deep.threads[0].frames or ()) == 4096
    assert [d.code for d in deep.diagnostics] == ["frame_limit"]
    block = "Report Version: 1\nApplication Specific Information:\n" + "a\n" * 50_000
    assert len(read(block).attributes["application_specific_information"]) <= 65_536


@pytest.mark.parametrize("source", ["", "nothing", "\n\n", "Binary Images:\n"])
def test_nothing_of_a_report(source: str) -> None:
    with pytest.raises(Malformed):
        text.read(source.encode(), LIMITS)


@pytest.mark.parametrize(
    "other",
    [
        "Traceback (most recent call last):\n  File 'x', line 0, in f\n",
        "==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x602\n    #0 0x4 in main a.c:1\n",
        "panic: runtime error\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:3 +0x1d\n",
        "Error: x\n    at f (a.js:1:2)\n",
        "*** *** ***\nBuild fingerprint: 'x'\npid: 1, tid: 1, name: x  >>> x <<<\nbacktrace:\n  #00 pc 000 /lib.so\n",
        '"main" prio=5 tid=1 Runnable\n  at a.b(C.java:1)\n',
        "Thread 1 says: 0 errors\n0 warnings\n",
        "0 1 2 3\n",
    ],
)
def test_other_texts_are_left_to_others(other: str) -> None:
    assert "apple-crash" not in [f.name for f in reports.FORMATS if f.sniff(reports.Probe(other.encode()))]
