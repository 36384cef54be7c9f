"""Logs of the Java virtual machine's own crashes. LOG is what JDK 17 wrote of a program that crashes, shortened."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect
from deadreckon.reports.hotspot import read

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

HEAD = """\
#
# A fatal error has been detected by the Java Runtime Environment:
#
#  SIGSEGV (0xb) at pc=0x00007f2cbe2da214, pid=16054, tid=16055
#
# JRE version: OpenJDK Runtime Environment (17.0.21.1+2) (build 17.0.21.1+2-1-deb12u1-Debian)
# Java VM: OpenJDK 64-Bit Server VM (17.0.21.1+2-1-deb12u1-Debian, mixed mode, g1 gc, linux-amd64)
# Problematic frame:
# V  [libjvm.so+0xeda214]  Unsafe_PutLong+0x124
#
"""
STACK = """\
Native frames: (J=compiled Java code, j=interpreted, Vv=VM code, C=native code)
V  [libjvm.so+0xeda214]  Unsafe_PutLong+0x124
j  jdk.internal.misc.Unsafe.putLong(Ljava/lang/Object;JJ)V+0 java.base@17.0.21.1
J 2399 c1 Crash.inner(J)V (9 bytes) @ 0x00007fb52d597614 [0x00007fb52d597400+0x0000000000000214]
J 956% C2 Crash$Inner.<init>([Ljava/lang/String;)V jdk.x@17 (102 bytes) @ 0x00007fb52d56b1cc [0x00007fb52d56ae00+0x3cc]
v  ~StubRoutines::call_stub
V  [libjvm.so+0x82aef2]  JavaCalls::call_helper(JavaValue*, methodHandle const&)+0x302  (javaCalls.cpp:415)
C  [libjli.so+0x45a2]  JavaMain+0xd92
C  0x00007f0000001234
C  [libunknown.so+0x10]
"""
LOG = f"""\
{HEAD}
---------------  S U M M A R Y ------------

Command Line: -XX:ErrorFile=hs_err1.log Crash

Host: A processor, 2 cores, 23G, Debian GNU/Linux 12 (bookworm)
Time: Sat Nov 21 22:18:12 2026 UTC elapsed time: 0.116581 seconds (0d 0h 0m 0s)

---------------  T H R E A D  ---------------

Current thread (0x00007f2cb8017f30):  JavaThread "main" [_thread_in_vm, id=16055, stack(0x00007f2cbd220000)]

Stack: [0x00007f2cbd220000,0x00007f2cbd320000],  sp=0x00007f2cbd31e500,  free space=1017k
{STACK}
Java frames: (J=compiled Java code, j=interpreted, Vv=VM code)
j  jdk.internal.misc.Unsafe.putLong(Ljava/lang/Object;JJ)V+0 java.base@17.0.21.1

siginfo: si_signo: 11 (SIGSEGV), si_code: 1 (SEGV_MAPERR), si_addr: 0x0000000000000010

Registers:
RAX=0x0000000000000000, RBX=0x00007f2cb8017f30, RCX=0x0000000000000010, RDX=0x0000000000000000
RSP=0x00007f2cbd31e500, RBP=0x00007f2cbd31e520, RSI=0x00007f2cbd31e5f8, RDI=0x00007f2cb80181e0
R8 =0x0000000000000001, R9 =0x00000000ffffffd8, R13=0x0000000000000010, R14=0x0000000000000001
RIP=0x00007f2cbe2da214, EFLAGS=0x0000000000010246, CSGSFS=0x002b000000000033, ERR=0x0000000000000006
  TRAPNO=0x000000000000000e

Top of Stack: (sp=0x00007f2cbd31e500)
0x00007f2cbd31e500:   00007f2c3b416c80 0000000000000001
0x00007f2cbd31e510:   00007f2c3bb09c48 00007f2cbd31e5f8

Instructions: (pc=0x00007f2cbe2da214)
0x00007f2cbe2da214:   4d 89 75 00 c7 83 38 03 00 00 83 f8 01 0f 87 39

Dynamic libraries:
7ffb00000-7ffb75000 rw-p 00c7b000 fe:00 5062657                          /usr/lib/jvm/lib/server/classes.jsa
7f2cbd400000-7f2cbd600000 r--p 00000000 fe:00 1234                       /usr/lib/jvm/lib/server/libjvm.so
7f2cbd600000-7f2cbe700000 r-xp 00200000 fe:00 1234                       /usr/lib/jvm/lib/server/libjvm.so
7f2cbe98f000-7f2cbe9a0000 r--p 00000000 fe:00 1235                       /usr/lib/jvm/lib/libjli.so
7f2cbe9a0000-7f2cbe9b0000 rw-p 00000000 00:00 0

END.
"""


def only(text: str) -> RawCrash:
    form = detect(Probe(text.encode()))
    assert form is not None
    assert form.name == "hs_err"
    return read(memoryview(text.encode()), ReportLimits())


def stack(crash: RawCrash) -> list[str]:
    return [
        f"{f.reported.module or ''}.{f.reported.function or ''}" for f in crash.threads[0].frames or () if f.reported
    ]


def test_all_that_it_says() -> None:
    crash = only(LOG)
    assert (crash.os_name, crash.arch, crash.pid, crash.uptime_s) == ("Linux", Arch.X86_64, 16054, 0.116581)
    assert crash.timestamp == 1795299492.0
    assert crash.attributes["cmdline"] == "-XX:ErrorFile=hs_err1.log Crash"
    assert crash.attributes["jre_version"].startswith("OpenJDK Runtime Environment (17.0.21.1+2)")
    (exception,) = crash.exceptions
    assert (exception.type, exception.code, exception.address) == ("SIGSEGV", 11, 0x10)
    assert exception.value == "SEGV_MAPERR at 0x10"
    (thread,) = crash.threads
    assert (thread.id, thread.name, thread.crashed) == (16055, "main", True)
    assert stack(crash) == [
        ".Unsafe_PutLong",
        "jdk.internal.misc.Unsafe.putLong",
        "Crash.inner",
        "Crash$Inner.<init>",
        ".StubRoutines::call_stub",
        ".JavaCalls::call_helper(JavaValue*, methodHandle const&)",
        ".JavaMain",
        ".",
        ".",
    ]
    frames = thread.frames or []
    base = 0x7F2C_BD40_0000
    assert [f.instruction_addr for f in frames] == [
        *(base + 0xEDA214, None, None, None, None, base + 0x82AEF2, 0x7F2C_BE98_F000 + 0x45A2, 0x7F00_0000_1234, None)
    ]
    assert [f.is_return_address for f in frames if f.instruction_addr] == [False, True, True, True]
    told = [f.reported for f in frames if f.reported]
    assert told[2].details == {"signature": "(J)V", "compiled": True, "compiled_at": "0x00007fb52d597614"}
    assert (told[5].filename, told[5].lineno) == ("javaCalls.cpp", 415)
    assert (told[8].package, told[8].rva, told[8].status) == ("libunknown.so", "0x10", "missing_symbol")
    assert thread.registers is not None
    assert (thread.registers.pc, thread.registers.sp) == (0x7F2C_BE2D_A214, 0x7F2C_BD31_E500)
    assert crash.memory.read(0x7F2C_BD31_E508, 8) == (1).to_bytes(8, "little")
    assert crash.memory.read(0x7F2C_BE2D_A214, 4) == b"\x4d\x89\x75\x00"
    assert [(m.code_file.rpartition("/")[2], m.image_addr, m.end) for m in crash.modules] == [
        ("libjvm.so", base, 0x7F2C_BE70_0000),
        ("libjli.so", 0x7F2C_BE98_F000, 0x7F2C_BE9A_0000),
    ]
    assert crash.diagnostics == []


def test_as_an_event() -> None:
    with Engine() as engine:
        event = engine.process(LOG.encode(), name="hs_err_pid1.log")
    assert event.status == "ok"
    (thread,) = event.threads or []
    assert [f.lang for f in thread.frames or ()][1:4] == ["java"] * 3
    (exception,) = event.exceptions or []
    assert exception.access == "write"


def test_what_the_virtual_machine_printed_alone() -> None:
    crash = only(HEAD)
    assert stack(crash) == [".Unsafe_PutLong"]
    (frame,) = crash.threads[0].frames or []
    assert frame.instruction_addr == 0x7F2C_BE2D_A214
    assert [d.code for d in crash.diagnostics] == ["truncated"]


@pytest.mark.parametrize(
    ("line", "kind", "value", "pid"),
    [
        ("SIGSEGV (0xb) at pc=0x00007f85 (sent by kill), pid=16094, tid=9", "SIGSEGV", "SEGV_MAPERR at 0x10", 16094),
        ("SIGBUS (0x7) at pc=0x00007f85, pid=9, tid=0x00007f0b1c5d2700", "SIGBUS", "BUS_ADRALN at 0x10", 9),
        ("EXCEPTION_IN_PAGE_ERROR (0xc0000006) at pc=0x0000, pid=12, tid=34", "EXCEPTION_IN_PAGE_ERROR", "", 12),
        ("Internal Error (a.cpp:3), pid=16, tid=2\n#  fatal error: none", "Internal Error", "fatal error: none", 16),
        ("Out of Memory Error (os_linux.cpp:2749), pid=5, tid=6", "Out of Memory Error", "os_linux.cpp:2749", 5),
    ],
)
def test_errors(line: str, kind: str, value: str, pid: int) -> None:
    old = "SIGSEGV (0xb) at pc=0x00007f2cbe2da214, pid=16054, tid=16055"
    crash = only(LOG.replace(old, line))
    (exception,) = crash.exceptions
    assert (exception.type, exception.value, crash.pid) == (kind, value, pid)


def test_too_little_memory() -> None:
    crash = only(
        "#\n# There is insufficient memory for the Java Runtime Environment to continue.\n"
        "# Native memory allocation (mmap) failed to map 64 bytes for committing reserved memory.\n"
    )
    (exception,) = crash.exceptions
    assert exception.type == "Out of Memory Error"
    assert exception.value.startswith("Native memory allocation (mmap) failed to map 64 bytes")


def test_windows() -> None:
    text = LOG.replace("linux-amd64", "windows-amd64").replace(
        "SIGSEGV (0xb)", "EXCEPTION_ACCESS_VIOLATION (0xc0000005)"
    )
    start = text.index("siginfo: ")
    text = text[:start] + text[start:].replace(
        "siginfo: si_signo: 11 (SIGSEGV), si_code: 1 (SEGV_MAPERR), si_addr: 0x0000000000000010",
        "siginfo: EXCEPTION_ACCESS_VIOLATION (0xc0000005), writing address 0x0000000000000018",
    )
    text = text[: text.index("Dynamic libraries:")] + (
        "Dynamic libraries:\n0x00007f2cbd400000 - 0x00007f2cbe700000 \tC:\\jdk\\bin\\server\\libjvm.so\n"
        "0x00007f2cbe98f000 - 0x00007f2cbe9a0000 \tC:\\jdk\\bin\\libjli.so\n\nEND.\n"
    )
    crash = only(text)
    (exception,) = crash.exceptions
    assert (exception.type, exception.access, exception.address) == ("EXCEPTION_ACCESS_VIOLATION", "write", 0x18)
    assert crash.os_name == "Windows"
    assert (crash.threads[0].frames or [])[0].instruction_addr == 0x7F2C_BD40_0000 + 0xEDA214


def test_jdk_8_and_arm64() -> None:
    text = LOG.replace("linux-amd64", "linux-aarch64").replace(
        "Time: Sat Nov 21 22:18:12 2026 UTC elapsed", "time: Sat Nov  7 22:18:12 2026\ntimezone: UTC\nelapsed"
    )
    start, end = text.index("RAX="), text.index("Top of Stack:")
    text = f"{text[:start]}R0=0x0000000000000007\nR1=0x0000000000000008\nR30=0x0000000000000009\n\n{text[end:]}"
    crash = only(
        text.replace("siginfo: si_signo: 11 (SIGSEGV), si_code: 1", "siginfo:si_signo=SIGSEGV: si_errno=0, si_code=1")
    )
    registers = crash.threads[0].registers
    assert registers is not None
    assert (registers.get(0), registers.get(30), registers.pc) == (7, 9, 0x7F2C_BE2D_A214)
    assert crash.timestamp == 1795299492.0 - 14 * 86400
    assert crash.exceptions[0].value == "SEGV_MAPERR at 0x10"


def test_java_frames_of_their_own() -> None:
    """Where the native stack ends at the first Java frame."""
    text = LOG.replace(STACK, STACK[: STACK.index("j  ")])
    assert stack(only(text)) == [".Unsafe_PutLong", "jdk.internal.misc.Unsafe.putLong"]


def test_a_deep_stack() -> None:
    deep = "j  Crash.deep(I)V+4\n" * 3000
    crash = only(LOG.replace(STACK, f"Native frames: (J=compiled)\n{deep}"))
    assert len(crash.threads[0].frames or ()) == 1024
    assert [d.message for d in crash.diagnostics] == ["a stack has 1976 frames more than the 1024 that are kept"]


def test_limits() -> None:
    with pytest.raises(Malformed):
        read(memoryview(b"# nothing\n"), ReportLimits())
    with pytest.raises(LimitExceeded):
        read(memoryview(LOG.encode()), ReportLimits(max_bytes=10))
    assert len(read(memoryview(LOG.encode()), ReportLimits(max_modules=1)).modules) == 1


def test_hostile_lines_do_not_freeze_it() -> None:
    quotes = 'Current thread (0x1):  JavaThread "' + 'a" ' * 20_000
    signals = "siginfo: si_signo " * 3000
    access = "siginfo: " + "reading " * 8000
    name = "V  [libjvm.so+0x1]  " + "+0x1  (a" * 8000
    java = "j  " + "a." * 30_000
    for line in (quotes, signals, access, name, java, "0x1:   " + "00 " * 20_000, "7f-" * 20_000):
        text = LOG.replace("Instructions:", f"{line}\n\nInstructions:").replace(
            "V  [libjvm.so+0xeda214]", line[:60_000]
        )
        assert only(text).exceptions[0].type == "SIGSEGV"


def test_mutations_never_break_it() -> None:
    rng = random.Random(3)
    whole = LOG.encode()
    named = 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(data))
            if rng.random() < 0.3:
                del data[at : at + rng.randrange(1, 200)]
            else:
                data[at] = rng.randrange(256)
        try:
            crash = read(memoryview(bytes(data)), ReportLimits())
        except Malformed:
            continue
        named += bool(crash.threads[0].frames)
    assert named > 700
