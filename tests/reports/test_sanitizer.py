"""Reports of AddressSanitizer and its family: type, address, access, stacks; in whatever log they stand."""

# ruff: noqa: E501 - lines of logs are shown whole.
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect, read

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def crashes(text: str | bytes, kind: str | None = None) -> list[RawCrash]:
    data = text if isinstance(text, bytes) else text.encode()
    form = detect(Probe(data), kind)
    assert form is not None
    found = read(form, data, LIMITS)
    assert {c.format for c in found} == {form.name}
    return found


def only(text: str | bytes) -> RawCrash:
    (crash,) = crashes(text)
    return crash


def functions(crash: RawCrash, thread: int = 0) -> list[str | None]:
    return [f.reported.function if f.reported else None for f in crash.threads[thread].frames or ()]


USE_AFTER_FREE = """\
some output of the program
=================================================================
==77==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000014 at pc 0x0000004f8a1d bp 0x7ffd1 sp 0x7ffd0
READ of size 4 at 0x602000000014 thread T2 (worker)
    #0 0x4f8a1c in pop(List*) /src/list.cc:12:10
    #1 0x4f8a1c in take /src/list.h:40
    #2 0x4f9000 in main /src/main.cc:7:3

0x602000000014 is located 4 bytes inside of 8-byte region [0x602000000010,0x602000000018)
freed by thread T0 here:
    #0 0x4c1b3d in free /llvm/compiler-rt/lib/asan/asan_malloc_linux.cc:123:3
    #1 0x4f8b00 in drop(List*) /src/list.cc:20:3

previously allocated by thread T1 here:
    #0 0x4c1d3d in malloc /llvm/compiler-rt/lib/asan/asan_malloc_linux.cc:145:3
    #1 0x4f8c00 in push(List*) /src/list.cc:5:3

Thread T2 (worker) created by T0 here:
    #0 0x4a in pthread_create

SUMMARY: AddressSanitizer: heap-use-after-free /src/list.cc:12:10 in pop(List*)
Shadow bytes around the buggy address:
  0x0c047fff7fb0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
==77==ABORTING
"""


def dressed(text: str) -> dict[str, bytes]:
    """Return a log as loggers, terminals and other systems pass it on."""
    lines = text.splitlines()
    return {
        "plain": text.encode(),
        "windows": text.replace("\n", "\r\n").encode(),
        "utf-16": text.encode("utf-16"),
        "logcat": "\n".join(f"01-02 03:04:05.678  77  79 E wrap.sh : {line}" for line in lines).encode(),
        "journal": "\n".join(f"2024-01-02T03:04:05+0000 host prog[77]: {line}" for line in lines).encode(),
        "compose": "\n".join(f"web-1  | {line}" for line in lines).encode(),
        "coloured": text.replace("==77==", "\x1b[1m\x1b[31m==77==").replace("\nREAD", "\x1b[0m\n\x1b[34mREAD").encode(),
        "interleaved": "\n".join(
            line if i % 4 else f"{line}\n[12:00:00] INFO other" for i, line in enumerate(lines)
        ).encode(),
    }


@pytest.mark.parametrize("data", dressed(USE_AFTER_FREE).values(), ids=dressed(USE_AFTER_FREE))
def test_use_after_free(data: bytes) -> None:
    crash = only(data)
    (exception,) = crash.exceptions
    assert (exception.type, exception.value) == ("heap-use-after-free", "READ of size 4 at 0x602000000014")
    assert (exception.address, exception.access, exception.mechanism) == (0x602000000014, "read", "AddressSanitizer")
    assert (crash.pid, crash.level) == (77, "fatal")
    assert crash.attributes["crash_type"] == "Heap-use-after-free\nREAD 4"
    assert crash.attributes["location"].startswith("0x602000000014 is located 4 bytes inside of 8-byte region")
    assert crash.attributes["summary"] == "heap-use-after-free /src/list.cc:12:10 in pop(List*)"
    assert [(t.id, t.crashed) for t in crash.threads] == [(2, True), (3, False), (4, False), (5, False)]
    assert [t.name for t in crash.threads] == [
        "worker",
        "freed by thread T0 here",
        "previously allocated by thread T1 here",
        "Thread T2 (worker) created by T0 here",
    ]
    assert functions(crash) == ["pop(List*)", "take", "main"]
    frames = crash.threads[0].frames or []
    # The header's pc is one byte further: frames are ready to look up.
    assert [f.instruction_addr for f in frames] == [0x4F8A1C, 0x4F8A1C, 0x4F9000]
    assert not any(f.is_return_address for f in frames)
    assert [f.reported.inline for f in frames if f.reported] == [True, False, False]
    assert [f.reported.in_app for f in frames if f.reported] == [True, True, True]
    assert functions(crash, 1) == ["free", "drop(List*)"]
    assert [f.reported.in_app for f in crash.threads[1].frames or () if f.reported] == [False, True]


@pytest.mark.parametrize(
    ("line", "kind", "crash_type", "address"),
    [
        ("==1==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000018 (pc 0x1 bp 0x2 sp 0x3 T0)\n==1==The signal is caused by a READ memory access.", "SEGV", "Null-dereference READ", 0x18),
        ("==1==ERROR: AddressSanitizer: SEGV on unknown address 0x0000ffff0018 (pc 0x1 bp 0x2 sp 0x3 T0)\n==1==The signal is caused by a WRITE memory access.", "SEGV", "UNKNOWN WRITE", 0xFFFF0018),
        ("==1==ERROR: AddressSanitizer: SEGV on unknown address (pc 0x1 bp 0x2 sp 0x3 T0)", "SEGV", "UNKNOWN", None),
        ("==1==ERROR: AddressSanitizer: access-violation on unknown address 0x00000008 (pc 0x1 bp 0x2 sp 0x3 T0)", "access-violation", "Null-dereference", 8),
        ("==1==ERROR: AddressSanitizer: FPE on unknown address 0x7f01 (pc 0x7f01 bp 0x2 sp 0x3 T0)", "FPE", "Floating-point-exception", None),
        ("==1==ERROR: AddressSanitizer: ILL on unknown address 0x7f01 (pc 0x7f01 bp 0x2 sp 0x3 T0)", "ILL", "Ill", 0x7F01),
        ("==1==ERROR: AddressSanitizer: stack-overflow on address 0x7ffc0 (pc 0x4 bp 0x2 sp 0x3 T0)", "stack-overflow", "Stack-overflow", 0x7FFC0),
        ("==1==ERROR: AddressSanitizer: attempting double-free on 0x610000022b80 in thread T0:", "double-free", "Heap-double-free", 0x610000022B80),
        ("==1==ERROR: AddressSanitizer: attempting free on address which was not malloc()-ed: 0x5742f0 in thread T0", "bad-free", "Invalid-free", 0x5742F0),
        ("==1==ERROR: AddressSanitizer: alloc-dealloc-mismatch (operator new [] vs operator delete) on 0x602000", "alloc-dealloc-mismatch", "Alloc-dealloc-mismatch", 0x602000),
        ("==1==ERROR: AddressSanitizer: stack-buffer-overflow on address 0x7ffc at pc 0x1 bp 0x2 sp 0x3\nWRITE of size 1 at 0x7ffc thread T0", "stack-buffer-overflow", "Stack-buffer-overflow\nWRITE 1", 0x7FFC),
        ("==1==ERROR: AddressSanitizer: stack-use-after-return on address 0x7ffc at pc 0x1 bp 0x2 sp 0x3\nWRITE of size {*} at 0x7ffc thread T0", "stack-use-after-return", "Stack-use-after-return\nWRITE {*}", 0x7FFC),
        ("==1==ERROR: AddressSanitizer: odr-violation (0x5583e2):", "odr-violation", "Odr-violation", 0x5583E2),
        ("==1==ERROR: AddressSanitizer: requested allocation size 0x3ff0 (0x4ff0 after adjustments) exceeds maximum", "allocation-size-too-big", "Out-of-memory", None),
        ("==1==ERROR: AddressSanitizer: negative-size-param: (size=-1)", "negative-size-param", "Negative-size-param", None),
        ("==1==ERROR: AddressSanitizer: strcpy-param-overlap: memory ranges [0x1,0x2) and [0x1, 0x3) overlap", "strcpy-param-overlap", "Strcpy-param-overlap", None),
        ("==1==ERROR: HWAddressSanitizer: tag-mismatch on address 0x0040 at pc 0x0076\nREAD of size 8 at 0x0040 tags: 0f/47 (ptr/mem) in thread T31", "tag-mismatch", "Tag-mismatch\nREAD 8", 0x40),
        ("==1==ERROR: HWAddressSanitizer: allocation-tail-overwritten; heap object [0x0044,0x0052) of size 14", "allocation-tail-overwritten", "Allocation-tail-overwritten", 0x44),
        ("==1==WARNING: MemorySanitizer: use-of-uninitialized-value", "use-of-uninitialized-value", "Use-of-uninitialized-value", None),
        ("WARNING: ThreadSanitizer: data race (pid=9)\n  Write of size 4 at 0x7b04 by thread T11 (mutexes: write M1):", "data race", "Data race\nWRITE 4", 0x7B04),
        ("WARNING: ThreadSanitizer: lock-order-inversion (potential deadlock) (pid=9)", "lock-order-inversion", "Lock-order-inversion", None),
        ("==1==ERROR: LeakSanitizer: detected memory leaks\n\nDirect leak of 7 byte(s) in 1 object(s) allocated from:", "direct leak", "Direct-leak", None),
        ("==1==ERROR: LeakSanitizer: detected memory leaks", "memory leak", "Memory leak", None),
        ("a.cc:3:7: runtime error: signed integer overflow: 2147483647 + 1 cannot be represented in type 'int'", "signed-integer-overflow", "Integer-overflow", None),
        ("a.cc:3:7: runtime error: division by zero", "integer-divide-by-zero", "Divide-by-zero", None),
        ("a.cc:3:7: runtime error: load of misaligned address 0x7ffe01 for type 'int', which requires 4 byte alignment", "alignment", "Misaligned-address", 0x7FFE01),
        ("a.cc:3:7: runtime error: member access within null pointer of type 'A'", "null", "Null-dereference", None),
        ("a.cc:3:7: runtime error: member call on address 0x7ffe which does not point to an object of type 'A'\n0x7ffe: note: object is of type 'B'", "vptr", "Bad-cast", 0x7FFE),
        ("a.cc:3:7: runtime error: implicit conversion from type 'int' of value 256 to type 'char' changed the value", "implicit-conversion", "Implicit-conversion", None),
        ("a.cc:3:7: runtime error: applying non-zero offset 4 to null pointer", "pointer-overflow", "Pointer-overflow", None),
        ("a.cc:3: runtime error: left shift of negative value -1", "shift", "Undefined-shift", None),
        ("==1== ERROR: libFuzzer: deadly signal", "deadly signal", "Fatal-signal", None),
        ("==1== ERROR: libFuzzer: timeout after 25 seconds", "timeout", "Timeout", None),
        ("==1== ERROR: libFuzzer: out-of-memory (used: 2051Mb; limit: 2048Mb)", "out-of-memory", "Out-of-memory", None),
        ("==1== ERROR: libFuzzer: fuzz target overwrites its const input", "fuzz target overwrites its const input", "Overwrites-const-input", None),
        ("========= Timeout of 60 seconds exceeded: 61 > 60 (sec); exiting", "timeout of 60 seconds exceeded", "Timeout", None),
    ],
)  # fmt: skip
def test_types(line: str, kind: str, crash_type: str, address: int | None) -> None:
    crash = only(f"{line}\n    #0 0x1234 in f a.cc:3:7\n    #1 0x1235 in main a.cc:9:1\n")
    exception = crash.exceptions[0]
    assert (exception.type, exception.address) == (kind, address)
    assert crash.attributes["crash_type"] == crash_type
    assert functions(crash) == ["f", "main"]


def test_modules_come_from_frames() -> None:
    crash = only(
        "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x0 (pc 0x1 bp 0x2 sp 0x3 T0)\n"
        "    #0 0x7f0000001010  (/lib/libx.so+0x1010) (BuildId: 69389d485a9793dbe873f0ea2c93e02efaa9aa3d)\n"
        "    #1 0x7f0000002020 in f (/lib/libx.so+0x2020)\n"
        "    #2 0x55000000a000  (/app/prog+0xa000)\n"
    )
    assert [(m.code_file, m.image_addr, m.end, m.code_id) for m in crash.modules] == [
        ("/app/prog", 0x550000000000, 0x55000000A001, None),
        ("/lib/libx.so", 0x7F0000000000, 0x7F0000002021, "69389d485a9793dbe873f0ea2c93e02efaa9aa3d"),
    ]
    assert crash.modules[1].debug_id == "489d3869-975a-db93-e873-f0ea2c93e02e"


def test_a_macs_build_id_is_the_uuid() -> None:
    identity = "cf89a44dabcf3d4a8f1b3a1f8b9d3a45" + "32000000200000000100000000000d00"
    crash = only(
        "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x0 (pc 0x1 bp 0x2 sp 0x3 T0)\n"
        f"    #0 0x100003f50 in f (app:arm64+0x100003f50) (BuildId: {identity})\n"
        f"    #1 0x7ff800003f50 in g (libx.dylib:arm64+0x3f50) (BuildId: {identity})\n"
    )
    (module,) = crash.modules  # The first one's offset is its address.
    assert (module.debug_id, module.code_id) == ("cf89a44d-abcf-3d4a-8f1b-3a1f8b9d3a45", identity[:32])
    assert crash.arch is Arch.ARM64


def test_recursion_is_not_inlining() -> None:
    """Every call of a recursion returns to one address; an inlined call stands at its caller's."""
    frames = "".join(f"    #{n} 0x4f8a1c in f(int) a.cc:3:5\n" for n in range(4)) + "    #4 0x4f8a1c in main a.cc:9:1\n"
    crash = only(f"==1==ERROR: AddressSanitizer: stack-overflow on address 0x7ff (pc 0x4 bp 0x5 sp 0x6 T0)\n{frames}")
    assert [f.reported.inline for f in crash.threads[0].frames or () if f.reported] == [False] * 3 + [True, False]


def test_programs_that_go_on_did_not_die() -> None:
    text = "a.cc:3:7: runtime error: division by zero\n    #0 0x12 in f a.cc:3:7\n"
    assert only(text).level == "error"
    assert only(f"{text}==1== ERROR: libFuzzer: deadly signal\n").level == "fatal"


def test_modules_of_two_processes_are_not_mixed() -> None:
    """The second one's library claims addresses of the first one's; its frames keep names, and are not looked up."""
    crash = only(
        "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x0 (pc 0x1 bp 0x2 sp 0x3 T0)\n"
        "    #0 0x7f0000001010  (/lib/libx.so+0x1010)\n    #1 0x7f0000009010  (/lib/libx.so+0x9010)\n"
        "    #2 0x7f0000004010  (/lib/liby.so+0x10)\n"
    )
    assert [m.code_file for m in crash.modules] == ["/lib/libx.so"]
    frames = crash.threads[0].frames or []
    assert [f.instruction_addr for f in frames] == [0x7F0000001010, 0x7F0000009010, None]
    assert frames[2].reported is not None
    assert (frames[2].reported.instruction_addr, frames[2].reported.package) == ("0x7f0000004010", "/lib/liby.so")
    assert [d.code for d in crash.diagnostics] == ["module_overlap"]


def test_each_leak_is_a_crash() -> None:
    found = crashes(
        "==1==ERROR: LeakSanitizer: detected memory leaks\n\n"
        "Direct leak of 32 byte(s) in 1 object(s) allocated from:\n    #0 0x1 in malloc m.cc:1:1\n    #1 0x2 in a a.cc:1:1\n\n"
        "Indirect leak of 8 byte(s) in 2 object(s) allocated from:\n    #0 0x1 in malloc m.cc:1:1\n    #1 0x3 in b b.cc:1:1\n\n"
        "SUMMARY: AddressSanitizer: 40 byte(s) leaked in 3 allocation(s).\n"
    )
    assert [(c.exceptions[0].type, functions(c)[1]) for c in found] == [("direct leak", "a"), ("indirect leak", "b")]
    assert found[1].attributes["leaked_bytes"] == "8"


def test_each_error_of_a_program_that_goes_on_is_a_crash() -> None:
    text = "".join(f"a.cc:{n}:1: runtime error: division by zero\n    #0 0x{n} in f{n} a.cc:{n}:1\n\n" for n in (3, 4))
    assert [functions(c) for c in crashes(text)] == [["f3"], ["f4"]]


def test_a_report_without_a_stack_names_its_place() -> None:
    crash = only("/src/a b/x.cc:3:7: runtime error: shift exponent 33 is too large for 32-bit type 'int'\n")
    assert [(f.reported.filename, f.reported.lineno) for f in crash.threads[0].frames or () if f.reported] == [
        ("x.cc", 3)
    ]


def test_a_report_given_twice_is_one_crash() -> None:
    header, frame = (
        "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x60 at pc 0x1",
        "    #0 0x1 in f a.c:1\n",
    )
    (crash,) = crashes(f"{header}\n{frame}+--Unsymbolized--+\n{header}\n    #0 0x1  (/a+0x1)\n")
    assert functions(crash) == ["f"]


def test_what_the_program_said_is_why_it_died() -> None:
    """CHECKs, assertions and panics end in a signal, which tells nothing: one crash, of the message's kind."""
    crash = only(
        "[1:1:0308/1:FATAL:a/string.h(223)] Check failed: i < length_ (3 vs. 2).\n"
        "#0 0x55 base::debug::StackTrace::StackTrace()\n#1 0x56 <unknown>\n"
        "AddressSanitizer:DEADLYSIGNAL\n"
        "==1==ERROR: AddressSanitizer: ABRT on unknown address 0x0539000 (pc 0x7f bp 0x1 sp 0x2 T0)\n"
        "    #0 0x7f in gsignal /build/glibc/raise.c:54\n    #1 0x80 in logging::LogMessage::~LogMessage() logging.cc:1\n"
        "    #2 0x81 in At string.h:223\n"
    )
    (exception,) = crash.exceptions
    assert (exception.type, exception.value) == ("CHECK", "Check failed: i < length_ (3 vs. 2).")
    assert exception.address is None
    assert crash.attributes["signal"] == "ABRT"
    assert (crash.attributes["file"], crash.attributes["line"]) == ("a/string.h", "223")
    assert functions(crash) == ["gsignal", "logging::LogMessage::~LogMessage()", "At"]


def test_a_message_before_a_report_is_its_cause() -> None:
    crash = only(
        "Assertion failed: file Decoder.swift, line 953\n"
        "==1==ERROR: AddressSanitizer: attempting free on address which was not malloc()-ed: 0x55 in thread T0\n"
        "    #0 0x1 in free\n    #1 0x2 in g\n"
    )
    assert [e.type for e in crash.exceptions] == ["bad-free", "assertion"]


def test_the_signals_registers_tell_the_architecture() -> None:
    text = "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x0 (pc 0x1 bp 0x2 sp 0x3 T0)\n    #0 0x1 in f\n==1==Register values:\n"
    assert only(f"{text}rax = 0x0000000000000000  rbx = 0x0000000000000001\n").arch is Arch.X86_64
    assert only(f"{text} x[0] = 0x0000000000000000   x[1] = 0x1\n").arch is Arch.UNKNOWN
    assert only(text).arch is Arch.UNKNOWN


def test_warnings_of_the_sanitizer_about_itself_are_none() -> None:
    for line in (
        "==2==WARNING: ASan is ignoring requested __asan_handle_no_return: stack top: 0x7ff",
        "==2==WARNING: AddressSanitizer failed to allocate 0xffffffff bytes",
        "==2==WARNING: invalid path to external symbolizer!",
    ):
        assert detect(Probe(f"{line}\nmore text\n".encode())) is None
        with pytest.raises(Malformed):
            crashes(f"{line}\nmore text\n", "sanitizer")


def test_long_logs_are_read_at_both_ends() -> None:
    noise = b"0123456789 some line of a log that goes on and on\n" * 400_000
    crash = crashes(noise + USE_AFTER_FREE.encode(), "sanitizer")[0]
    assert crash.exceptions[0].type == "heap-use-after-free"
    assert [d.code for d in crash.diagnostics] == ["limit_exceeded"]
