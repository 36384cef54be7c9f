"""Hostile and damaged logs: nothing but our own errors, and no more work than the bytes are worth."""

# ruff: noqa: E501 - lines of logs are shown whole.
from __future__ import annotations

import random
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, DeadreckonError
from deadreckon.reports import FORMATS, Probe, read
from deadreckon.reports.textkind import kind_of
from deadreckon.reports.textlog.frames import parse
from deadreckon.reports.textlog.lines import MAX_FRAMES

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = ReportLimits()
FORMS = {f.name: f for f in FORMATS}
LOGS = ("sanitizer", "go", "rust", "python", "kernel", "windbg", "gdb", "terminate")

SEEDS = {
    "sanitizer": """\
INFO: Seed: 1
==77==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000014 at pc 0x0000004f8a1d bp 0x7ffd1 sp 0x7ffd0
READ of size 4 at 0x602000000014 thread T2 (worker)
    #0 0x7f00004f8a1c in pop(List*) /src/list.cc:12:10
    #1 0x7f00004f8a20  (/lib/liblist.so+0x8a20) (BuildId: 69389d485a9793dbe873f0ea2c93e02efaa9aa3d)
    #2 0x4f9000 in main /src/main.cc:7:3

freed by thread T0 here:
    #0 0x4c1b3d in free
a.cc:3:7: runtime error: signed integer overflow: 1 + 1 cannot be represented in type 'int'
    #0 0x12 in f a.cc:3:7
Direct leak of 7 byte(s) in 1 object(s) allocated from:
    #0 0x12 in malloc
WARNING: ThreadSanitizer: data race (pid=9)
  Write of size 4 at 0x7b04 by thread T11 (mutexes: write M1):
    #0 f a.cc:1 (prog+0x12)
{{{module:0:a:elf:aabb}}}
{{{mmap:0x1000:0x100:load:0:rx:0x0}}}
{{{bt:0:0x1001:ra}}}
 [[[ELF module #0x1 "lib" BuildID=aabb 0x1000]]]
""",
    "go": "panic: a [recovered]\n\tpanic: b\n[signal SIGSEGV: x code=0x1 addr=0x30 pc=0xac]\n\ngoroutine 1 [running]:\nmain.f(0x1)\n\t/a.go:1 +0x1 fp=0x1 sp=0x2 pc=0x3\ncreated by main.g in goroutine 2\n\t/a.go:2 +0x1\n",
    "rust": "thread 'a' panicked at a.rs:1:2:\nx\nstack backtrace:\n   0:     0x55 - a::b\n      at /a.rs:3:5\n          c::d\n   1: e\n",
    "python": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    x\n    ~^\nE: 1\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File "b.py", line 2, in g\nF\n',
    "kernel": "[    1.0000] BUG: KASAN: x in f+0x1/0x2\n[    1.0000] Read of size 1 at addr ffff888014cefd90 by task a/1\n[    1.0000]  [<ffffffc0002099e8>] f+0x1/0x2 a.c:3\n[    1.0000] Kernel panic - not syncing: x\n",
    "windbg": "ModLoad: 00007ff6`4ffc0000 00007ff6`50088000   a.exe\n(dc8.9d8): Access violation - code c0000005 (first chance)\nAttempt to read from address 0000000000000010\nSTACK_TEXT:\n000000bc`aeaaa440 00007ff6`4ffc2000 : 0 : a!f+0x34 [c:\\f.cpp @ 12]\n000000bc`aeaaa440 00007ff6`4ffc2000     a!g\n",
    "gdb": 'Program received signal SIGSEGV, x.\nThread 1 (Thread 0x7f (LWP 42) "w"):\n#0  0x0000555555555131 in f (p="(") at a.c:3\n#1  <signal handler called>\n#2  0x00 in g () from /lib/x.so\n* thread #1, name = \'p\', stop reason = signal SIGSEGV\n  * frame #0: 0x01 p`f at a.c:3:6\n',
    "terminate": "terminate called after throwing an instance of 'x'\n  what():  y\n./p(f+0x1d) [0x5501]\n/l/x.so(+0x29d90) [0x7f0000029d90]\n 1: 0xb0 node::A() [node]\n 2: 0xb1\n0   Mod   0x0000000114f10eef _Zf + 79\n1   Mod   0x0000000114f10ef0 _Zg + 80\n    @     0x7f5a1e  f()\n f [0x00007FFE913FFCF2+18] (b.cc:329)\n 0# a at b.c:1\nAborted (core dumped)\n",
}


def check(data: bytes, form: str) -> int:
    """Read, and check everything that holds for any bytes; return the number of crashes."""
    try:
        found = read(FORMS[form], data, LIMITS)
    except DeadreckonError:
        return 0
    assert found
    for crash in found:
        assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
        assert sum(t.crashed for t in crash.threads) <= 1
        assert all(m.image_size > 0 and m.end < 1 << 64 for m in crash.modules)
        modules = sorted(crash.modules, key=lambda m: m.image_addr)
        assert all(a.end <= b.image_addr for a, b in pairwise(modules))
        stacks = [t.frames for t in crash.threads] + [e.frames for e in crash.exceptions]
        for frames in filter(None, stacks):
            assert len(frames) <= MAX_FRAMES + 2
            assert all(f.instruction_addr is None or 0 <= f.instruction_addr < 1 << 64 for f in frames)
        assert all(e.address is None or 0 <= e.address < 1 << 64 for e in crash.exceptions)
        assert all(isinstance(v, str) for v in crash.attributes.values())
    return len(found)


@pytest.mark.parametrize("form", LOGS)
def test_seeds_are_what_they_should_be(form: str) -> None:
    assert kind_of(SEEDS[form]) == form
    assert check(SEEDS[form].encode(), form)


@pytest.mark.parametrize("form", LOGS)
def test_truncated(form: str) -> None:
    data = SEEDS[form].encode()
    for at in range(0, len(data), max(1, len(data) // 60)):
        check(data[:at], form)
        check(data[at:], form)


@pytest.mark.parametrize("form", LOGS)
def test_mutated(form: str) -> None:
    rng = random.Random(form)
    seed = SEEDS[form].encode()
    for _ in range(150):
        data = bytearray(seed)
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(40)]
                case 2:
                    data[at:at] = data[at : at + rng.randrange(200)]
                case _:
                    data[at:at] = rng.choice(
                        (b"\n", b"0x", b"ffffffffffffffffffff", b"(", b")", b"#0 0x1 ", b"999999999999")
                    )
            data = data or bytearray(b"x")
        check(bytes(data), rng.choice(LOGS))
        check(bytes(data), form)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="#0123456789abcdefx+-[]()<>{}:`'\"@ .,/\\!\tinatfrombtSP*?é\U0001f4a5", max_size=80))
def test_any_line(line: str) -> None:
    frame = parse(line)
    if frame is not None:
        assert frame.address is None or frame.address < 1 << 64
        assert frame.offset is None or frame.offset < 1 << 64


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(LOGS))
def test_any_bytes(data: bytes, form: str) -> None:
    check(data, form)
    Probe(data).log  # noqa: B018


REPEATED = (
    "#0 0x1 in f (", "at f.c:1 ", "(BuildId: ", "thread 'a' panicked at ", "thread '", "<", "(", ")", "=", " ", "\t", ":1: ",
    ": Assertion `", "' failed", 'assertion "', " failed: ", "FATAL:", "BUG: KASAN: ", " by task ", "READ of size 1 at 0x1 ",
    "===BUG DETECTED: ", "Fatal signal 1 (SIGA)", "libc++abi: terminating with uncaught exception of type ", "[<f>]",
    " [0x1+1] (", "frame #0: 0x1 a`", "0 a 0x12345678 b + ", "1 ", "Address = 0x1 ", "\x1b[", "\x1b]", "corrupted ", "CHECK(",
    "*** Error in `a': ", "Unable to handle kernel ", "panic: ", " runtime error: ", "a:1: runtime error: ", "f+0x1/0x1 ",
    "Assertion failed: ", ", line ", "goroutine 1 [", "main.f(", "created by ", "Traceback (most recent call last):",
)  # fmt: skip


@pytest.mark.parametrize("unit", REPEATED)
def test_repetition_costs_no_more_than_its_length(unit: str) -> None:
    """Counts the interpreter's steps and the characters that patterns see: a quadratic pattern shows in time alone.

    So the input is large enough that one would take minutes, and the test fails by never ending.
    """
    line = "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x1 " + unit * (16_000 // len(unit))
    data = "\n".join([line, unit * (16_000 // len(unit)), *[unit] * 200, line]).encode()
    assert kind_of(data.decode()) in {*LOGS, None}
    for form in ("sanitizer", "gdb", "go", "python", "windbg"):
        check(data, form)


def test_counts_are_bounded() -> None:
    frames = "".join(f"    #{n} 0x{n + 1:x} in f{n} a.c:{n}\n" for n in range(5000))
    (crash,) = read(
        FORMS["sanitizer"], f"==1==ERROR: AddressSanitizer: SEGV on unknown address 0x1\n{frames}".encode(), LIMITS
    )
    assert len(crash.threads[0].frames or ()) == MAX_FRAMES
    leaks = "Direct leak of 1 byte(s) in 1 object(s) allocated from:\n    #0 0x1 in f a.c:1\n\n" * 1000
    found = read(FORMS["sanitizer"], leaks.encode(), LIMITS)
    assert len(found) == 256
    assert [d.code for d in found[0].diagnostics] == ["limit_exceeded"]
    goroutines = "panic: x\n\n" + "goroutine 1 [running]:\nmain.f(0x1)\n\t/a.go:1 +0x1\n" * 100
    limits = ReportLimits(max_threads=7, max_modules=3)
    assert len(read(FORMS["go"], goroutines.encode(), limits)[0].threads) == 7
    modules = "".join(f"    #{n} 0x{n + 1:x}0000010  (/m{n}+0x10)\n" for n in range(50))
    text = f"==1==ERROR: AddressSanitizer: SEGV on unknown address 0x1\n{modules}"
    assert len(read(FORMS["sanitizer"], text.encode(), limits)[0].modules) == 3


@pytest.mark.corpus
def test_real_logs_cut_and_mutated(corpus: Path) -> None:
    rng = random.Random(1)
    paths = [p for p in sorted((corpus / "other/sanitizer").glob("*.txt")) if p.stat().st_size < 40_000]
    for path in rng.sample(paths, 40):
        data = path.read_bytes()
        form = Probe(data).log
        if form is None:
            continue
        for _ in range(4):
            check(data[: rng.randrange(len(data))], form)
            mutated = bytearray(data)
            for _ in range(20):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            check(bytes(mutated), form)


def test_recursion_is_not_the_reader_s() -> None:
    """Brackets nest as deep as a line is long."""
    assert sys.getrecursionlimit() < 16_000
    check(("#0 0x1 in f" + "(" * 8000 + ")" * 8000 + " a.c:1\n").encode(), "sanitizer")
