"""Crashes that programs, run-time libraries, kernels and debuggers tell as text, one format after the other."""

# ruff: noqa: E501 - lines of logs are shown whole.
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.reports import Probe, detect, read
from deadreckon.reports.textkind import kind_of

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame

LIMITS = ReportLimits()


def only(text: str, form: str) -> RawCrash:
    """Read the one crash of a text, which must be of the format."""
    data = text.encode()
    found = detect(Probe(data))
    assert found is not None
    assert found.name == form
    (crash,) = read(found, data, LIMITS)
    assert crash.format == form
    return crash


def names(frames: list[RawFrame] | None) -> list[str | None]:
    return [f.reported.function if f.reported else None for f in frames or ()]


def places(frames: list[RawFrame] | None) -> list[tuple[str | None, int | None]]:
    return [(f.reported.filename, f.reported.lineno) for f in frames or () if f.reported]


def said(crash: RawCrash) -> list[tuple[str | None, str]]:
    return [(e.type, e.value) for e in crash.exceptions]


# --- Go ----------------------------------------------------------------------------------------------------------------

GO = """\
2024/01/02 03:04:05 listening
panic: runtime error: index out of range [5] with length 3

goroutine 18 gp=0xc0 m=0 mp=0x5 [running, locked to thread]:
gopkg.in/yaml%2ev3.(*parser).next(0xc000158000, {0x1, 0x2})
\t/home/u/go/pkg/mod/gopkg.in/yaml.v3@v3.0.1/parser.go:271 +0x218 fp=0xc446 sp=0xc447 pc=0x5035c8
panic({0x59?, 0x1f?})
\t/usr/local/go/src/runtime/panic.go:783 +0x132
main.Map[...](...)
\t/src/main.go:9
main.main.func1()
\t/src/main.go:12 +0x1d
created by main.main in goroutine 1
\t/src/main.go:11 +0x25

goroutine 1 [chan receive, 2 minutes]:
net/http.(*conn).serve(0xc0001, {0x7, 0x8})
\tnet/http/server.go:1830 +0x651
...additional frames elided...
exit status 2
"""


def test_go_panic() -> None:
    crash = only(GO, "go")
    assert said(crash) == [("panic", "runtime error: index out of range [5] with length 3")]
    assert crash.platform == "go"
    assert crash.attributes["crash_type"] == "Index out of range"
    assert [(t.id, t.crashed) for t in crash.threads] == [(18, True), (1, False)]
    assert crash.threads[1].name == "goroutine 1 [chan receive, 2 minutes]"
    first, second = crash.threads
    assert names(first.frames) == ["yaml.v3.(*parser).next", "panic", "main.Map[...]", "main.main.func1"]
    assert places(first.frames) == [("parser.go", 271), ("panic.go", 783), ("main.go", 9), ("main.go", 12)]
    reported = [f.reported for f in [*(first.frames or ()), *(second.frames or ())] if f.reported]
    assert [r.module for r in reported] == ["gopkg.in/yaml.v3", None, "main", "main", "net/http"]
    assert [r.in_app for r in reported] == [True, False, True, True, False]
    assert (first.frames or [])[0].instruction_addr == 0x5035C8


def test_go_nested_panics_end_with_the_cause() -> None:
    crash = only(
        "panic: first [recovered]\n\tpanic: second\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x30 pc=0xac5680]\n\n"
        "goroutine 1 [running]:\nmain.f(0x1)\n\t/a.go:1 +0x1\n",
        "go",
    )
    assert said(crash) == [("panic", "second"), ("panic", "first")]
    assert crash.exceptions[0].address == 0x30
    assert crash.attributes["signal"] == "SIGSEGV"


@pytest.mark.parametrize(
    ("head", "kind", "value"),
    [
        (
            "fatal error: all goroutines are asleep - deadlock!\n",
            "fatal error",
            "all goroutines are asleep - deadlock!",
        ),
        (
            "runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow\n",
            "fatal error",
            "stack overflow",
        ),
        ("SIGQUIT: quit\nPC=0x47c2f4 m=0 sigcode=0\n", "SIGQUIT", "quit"),
        ("unexpected fault address 0x7f00\nfatal error: fault\n", "fatal error", "fault"),
        ("panic: one line\nand another\n", "panic", "one line\nand another"),
    ],
)
def test_go_heads(head: str, kind: str, value: str) -> None:
    crash = only(f"{head}\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:1 +0x1\n", "go")
    assert said(crash) == [(kind, value)]
    assert names(crash.threads[0].frames) == ["main.main"]


def test_go_race() -> None:
    crash = only(
        "==================\nWARNING: DATA RACE\nWrite at 0x00c0000b4010 by goroutine 7:\n  main.main.func1()\n"
        "      /a.go:9 +0x44\n\nPrevious read at 0x00c0000b4010 by main goroutine:\n  main.main()\n      /a.go:12 +0x8a\n\n"
        "Goroutine 7 (running) created at:\n  main.main()\n      /a.go:8 +0x7a\n==================\n",
        "go",
    )
    assert said(crash) == [("data race", "")]
    assert crash.exceptions[0].address == 0xC0000B4010
    assert [names(t.frames) for t in crash.threads] == [["main.main.func1"], ["main.main"], ["main.main"]]


# --- Rust --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "thread 'main' panicked at 'went wrong: 7', src/lib.rs:3:5\n",
        "thread 'main' panicked at src/lib.rs:3:5:\nwent wrong: 7\n",
        "thread 'main' (12345) panicked at src/lib.rs:3:5:\nwent wrong: 7\nnote: run with x\n",
    ],
)
def test_rust_panic(head: str) -> None:
    crash = only(
        f"{head}stack backtrace:\n   0: rust_begin_unwind\n             at /rustc/90b3/library/std/src/panicking.rs:652:5\n"
        "   1: core::panicking::panic_fmt\n             at /rustc/90b3/library/core/src/panicking.rs:72:14\n"
        "   2: app::work\n             at ./src/lib.rs:3:5\n   3: app::main\n             at ./src/main.rs:9:1\n"
        "note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.\n",
        "rust",
    )
    assert said(crash) == [("panic", "went wrong: 7")]
    assert (crash.attributes["file"], crash.attributes["line"], crash.attributes["thread"]) == (
        "src/lib.rs",
        "3",
        "main",
    )
    frames = crash.threads[0].frames or []
    assert names(frames) == ["rust_begin_unwind", "core::panicking::panic_fmt", "app::work", "app::main"]
    assert places(frames)[2:] == [("lib.rs", 3), ("main.rs", 9)]
    assert [f.reported.in_app for f in frames if f.reported] == [False, False, True, True]


def test_rust_full_backtrace() -> None:
    crash = only(
        "thread 'w' panicked at a.rs:1:2:\nx\nstack backtrace:\n"
        "   0:     0x55d0c0ffee01 - std::backtrace::h0123456789abcdef\n"
        "   1:     0x55d0c0ffee22 - app::inner\n                               at /a.rs:3:5\n"
        "                           app::outer\n                               at /a.rs:9:1\n"
        "   2:     0x55d0c0ffee44 - <unknown>\n",
        "rust",
    )
    frames = crash.threads[0].frames or []
    assert names(frames) == ["std::backtrace::h0123456789abcdef", "app::inner", "app::outer", None]
    assert [f.instruction_addr for f in frames] == [0x55D0C0FFEE01, 0x55D0C0FFEE22, 0x55D0C0FFEE22, 0x55D0C0FFEE44]
    assert all(f.is_return_address for f in frames)
    assert [f.reported.inline for f in frames if f.reported] == [False, True, False, False]


def test_rust_message_over_several_lines() -> None:
    crash = only(
        "thread '<unnamed>' panicked at 'called `unwrap()`\n\nCaused by:\n    no', src/o.rs:427:10\nnote: run\n", "rust"
    )
    assert said(crash) == [("panic", "called `unwrap()`\n\nCaused by:\n    no")]
    assert crash.attributes["line"] == "427"


# --- Python ------------------------------------------------------------------------------------------------------------


def test_python_chain() -> None:
    crash = only(
        'ERROR something\nTraceback (most recent call last):\n  File "/app/a.py", line 3, in load\n    return d[k]\n           ~^^^\n'
        "KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "/usr/lib/python3.12/json/x.py", line 9, in g\n  File "/app/a.py", line 7, in <module>\n'
        "    load()\n  [Previous line repeated 995 more times]\nmy.errors.Bad: two\nlines\n\nrest\n",
        "python",
    )
    assert said(crash) == [("my.errors.Bad", "two\nlines"), ("KeyError", "'x'")]
    assert crash.platform == "python"
    first, second = crash.exceptions
    assert names(first.frames) == ["<module>", "g"]
    assert [f.reported.in_app for f in first.frames or () if f.reported] == [True, False]
    (frame,) = second.frames or []
    assert frame.reported is not None
    assert (frame.reported.context_line, frame.reported.lineno) == ("return d[k]", 3)


def test_python_exception_group() -> None:
    crash = only(
        '  + Exception Group Traceback (most recent call last):\n  |   File "a.py", line 1, in f\n  |     raise g\n'
        "  | ExceptionGroup: many (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
        '    | Traceback (most recent call last):\n    |   File "b.py", line 2, in h\n    | ValueError: 1\n    +------------------------------------\n',
        "python",
    )
    assert said(crash) == [("ValueError", "1"), ("ExceptionGroup", "many (1 sub-exception)")]
    assert [names(e.frames) for e in crash.exceptions] == [["h"], ["f"]]


def test_python_faulthandler() -> None:
    crash = only(
        "Fatal Python error: Segmentation fault\n\nThread 0x00007f2a (most recent call first):\n"
        '  File "/usr/lib/python3.11/threading.py", line 324 in wait\n\nCurrent thread 0x00007f2b [pool] (most recent call first):\n'
        '  File "/app/x.py", line 4 in crash\n  File "/app/x.py", line 8 in <module>\n\nExtension modules: numpy (total: 1)\nSegmentation fault (core dumped)\n',
        "python",
    )
    assert said(crash) == [("Fatal Python error", "Segmentation fault")]
    assert [(t.id, t.name, t.crashed, names(t.frames)) for t in crash.threads] == [
        (0x7F2A, None, False, ["wait"]),
        (0x7F2B, "pool", True, ["crash", "<module>"]),
    ]


def test_python_of_a_fuzzer() -> None:
    crash = only(
        ' === Uncaught Python exception: ===\nValueError: no\nTraceback (most recent call last):\n  File "f.py", line 2, in f\n\n==1== ERROR: libFuzzer: fuzz target exited\n',
        "python",
    )
    assert said(crash) == [("ValueError", "no")]
    assert names(crash.exceptions[0].frames) == ["f"]


# --- C and C++ ---------------------------------------------------------------------------------------------------------

BACKTRACE = "./prog(crash+0x1d) [0x5501]\n/lib/libc.so.6(__restore_rt+0x0) [0x7f02]\n/lib/libx.so(+0x29d90) [0x7f0000029d90]\n[0x7f04]\n"


@pytest.mark.parametrize(
    ("head", "kind", "value"),
    [
        ("terminate called after throwing an instance of 'std::out_of_range'\n  what():  vector::at\n", "std::out_of_range", "vector::at"),
        ("terminate called without an active exception\n", "std::terminate", "without an active exception"),
        ("libc++abi: terminating due to uncaught exception of type std::runtime_error: no such thing\n", "std::runtime_error", "no such thing"),
        ("libc++abi.dylib: terminating with uncaught exception of type int\n", "int", ""),
        ("*** stack smashing detected ***: terminated\n", "stack smashing", "stack smashing detected"),
        ("*** buffer overflow detected ***: ./prog terminated\n", "buffer overflow", "buffer overflow detected"),
        ("free(): invalid pointer\n", "heap corruption", "free(): invalid pointer"),
        ("double free or corruption (out)\n", "heap corruption", "double free or corruption (out)"),
        ("*** Error in `./prog': free(): invalid next size (fast): 0x0000000001 ***\n", "heap corruption", "free(): invalid next size (fast)"),
        ("prog: a/b.c:12: int f(int): Assertion `x > 0' failed.\n", "assertion", "x > 0"),
        ("Assertion failed: (x > 0), function f, file b.c, line 12.\n", "assertion", "(x > 0)"),
        ("Assertion failed: x > 0, file C:\\a\\b.c, line 12\n", "assertion", "x > 0"),
        ("Assertion failed: x > 0 (b.c: f: 12)\n", "assertion", "x > 0"),
        ("**\nApp:ERROR:../b.c:12:f: assertion failed: (j < i)\n", "assertion", "(j < i)"),
        ("pure virtual method called\nterminate called without an active exception\n", "pure virtual call", "pure virtual method called"),
        ("F0813 00:29:27.775753  384244 file.cc:130] Check failed: a == b (1 vs. 2) \n", "CHECK", "Check failed: a == b (1 vs. 2)"),
        ("[0922/115903:FATAL:font_list.cc(299)] DCHECK failed: w > 0\n", "DCHECK", "DCHECK failed: w > 0"),
        ("#\n# Fatal error in ../../src/heap.h, line 54\n# Check failed: !x.\n#\n", "CHECK", "Check failed: !x."),
        ("FATAL ERROR: CALL_AND_RETRY_LAST Allocation failed - JavaScript heap out of memory\n", "fatal error", "CALL_AND_RETRY_LAST Allocation failed - JavaScript heap out of memory"),
        ("Received signal 11 SEGV_MAPERR 7f6b0c580000\n", "SIGSEGV", "SEGV_MAPERR"),
        ("*** SIGSEGV (@0x0) received by PID 123 (TID 0x7f) from PID 0; stack trace: ***\n", "SIGSEGV", ""),
        ("App/Main.swift:12: Fatal error: Index out of range\n", "fatal error", "Index out of range"),
    ],
)  # fmt: skip
def test_last_words(head: str, kind: str, value: str) -> None:
    crash = only(f"some output\n{head}{BACKTRACE}Aborted (core dumped)\n", "terminate")
    assert said(crash) == [(kind, value)]
    frames = crash.threads[0].frames or []
    assert names(frames) == ["crash", "__restore_rt", None, None]
    assert [f.instruction_addr for f in frames] == [0x5501, 0x7F02, 0x7F0000029D90, 0x7F04]
    # What backtrace(3) gives are return addresses; below the signal's trampoline lies what was interrupted.
    assert [f.is_return_address for f in frames] == [True, True, False, True]
    assert [(m.code_file, m.image_addr) for m in crash.modules] == [("/lib/libx.so", 0x7F0000000000)]


@pytest.mark.parametrize(
    "line",
    [
        "Segmentation fault (core dumped)",
        "./run.sh: line 3:  1234 Aborted                 (core dumped) ./prog",
        "Bus error",
    ],
)
def test_a_shell_alone(line: str) -> None:
    crash = only(f"$ ./prog\n{line}\n", "terminate")
    assert (crash.exceptions[0].type or "").startswith("SIG")
    assert crash.threads == []


def test_a_missing_library() -> None:
    crash = only(
        "./t: error while loading shared libraries: libx.so.1: cannot open shared object file: No such file or directory\n",
        "terminate",
    )
    assert crash.attributes["crash_type"] == "Missing-library"


def test_mangled_names_are_left_to_the_look_up() -> None:
    crash = only(
        "Received signal 6\n#0 0x7f01 _ZN4base5debugEv\n#1 0x7f02 _ZN4base1fEv\n[end of stack trace]\n", "terminate"
    )
    reported = [f.reported for f in crash.threads[0].frames or () if f.reported]
    assert [(r.function, r.raw_function) for r in reported] == [(None, "_ZN4base5debugEv"), (None, "_ZN4base1fEv")]
    assert all(f.is_return_address for f in crash.threads[0].frames or ())


# --- Debuggers ---------------------------------------------------------------------------------------------------------


def test_gdb_all_threads() -> None:
    crash = only(
        "Core was generated by `./prog --flag'.\nProgram terminated with signal SIGSEGV, Segmentation fault.\n"
        "#0  0x0000555555555131 in crash (p=0x0) at a.c:3\n3\t  *p = 1;\n[Current thread is 1 (Thread 0x7ffff7d8a740 (LWP 4242))]\n(gdb) thread apply all bt\n\n"
        'Thread 2 (Thread 0x7ffff6ffd700 (LWP 4243) "worker"):\n#0  0x00007ffff7e8a in poll () from /lib/libc.so.6\n'
        "#1  0x0000555555555200 in loop (\n    arg=0x1) at a.c:30\n\n"
        "Thread 1 (Thread 0x7ffff7d8a740 (LWP 4242)):\n#0  0x0000555555555131 in crash (p=0x0) at a.c:3\n"
        "#1  <signal handler called>\n#2  0x0000555555555180 in f () at a.c:9\n#3  0x0000555555555190 in main () at a.c:12\n",
        "gdb",
    )
    assert [(e.type, e.thread_id) for e in crash.exceptions] == [("SIGSEGV", 4242)]
    assert crash.process_name == "prog"
    by_id = {t.id: t for t in crash.threads}
    assert by_id[4243].name == "worker"
    assert not by_id[4243].crashed
    assert by_id[4242].crashed
    frames = by_id[4242].frames or []
    assert names(frames) == ["crash", "f", "main"]
    assert [f.is_return_address for f in frames] == [False, False, True]
    assert [f.is_return_address for f in by_id[4243].frames or ()][:1] == [False]


def test_gdb_inlined_frames_keep_gdbs_word() -> None:
    """A frame without an address may be inlined in the next one, or not: its address is not looked up."""
    crash = only(
        "Program received signal SIGABRT, Aborted.\n#0  inlined (x=1) at a.h:5\n#1  0x0000555555555180 in f () at a.c:9\n#2  0x0000555555555190 in main () at a.c:12\n",
        "gdb",
    )
    assert [f.instruction_addr for f in crash.threads[0].frames or ()] == [None, None, 0x555555555190]


def test_a_recursion_deeper_than_is_kept() -> None:
    """Of every form the innermost frames stay, and it is said that others don't."""
    gdb = "".join(f"#{n}  0x{n + 16:x} in f{n} ()\n" for n in range(1500))
    python = "".join(f'  File "a.py", line {n + 1}, in f{n}\n    f()\n' for n in range(1500))
    current = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x01 (most recent call first):\n"
    go = "".join(f"main.f{n}(0x1)\n\t/a.go:{n + 1} +0x1\n" for n in range(1500))
    windbg = "".join(f"{n:02x} 000000bc`aeaaa440 00007ff6`4ffc2000     app!f{n}+0x34\n" for n in range(1500))
    for text, form, first in (
        (f"Program received signal SIGSEGV, Segmentation fault.\n{gdb}", "gdb", "f0"),
        (f"==1==ERROR: AddressSanitizer: stack-overflow on address 0x1\n{gdb}", "sanitizer", "f0"),
        (f"Traceback (most recent call last):\n{python}RecursionError: too deep\n", "python", "f1499"),
        (current + python, "python", "f0"),
        (f"panic: deep\n\ngoroutine 1 [running]:\n{go}", "go", "main.f0"),
        (
            f"(1.2): Stack overflow - code c00000fd (first chance)\n # Child-SP RetAddr Call Site\n{windbg}",
            "windbg",
            "f0",
        ),
    ):
        crash = only(text, form)
        found = names(crash.exceptions[0].frames or crash.threads[0].frames)
        assert (found[0], len(found)) == (first, 1024), form
        assert [d.code for d in crash.diagnostics] == ["frame_limit"], form


def test_gdb_wrapped_lines() -> None:
    crash = only(
        "Program received signal SIGSEGV, Segmentation fault.\n#0  0x01 in f (a=1)\n    at /long/path/a.c:3\n#1  0x02 in g ()\n    from /lib/libg.so\n#2  0x03 in main () at a.c:9\n",
        "gdb",
    )
    assert places(crash.threads[0].frames) == [("a.c", 3), (None, None), ("a.c", 9)]


def test_darts_numbered_frames_are_not_gdbs() -> None:
    text = "Bad state: no\n#0      Foo.bar (package:app/foo.dart:10:5)\n#1      main (file:///app/main.dart:3:3)\n"
    assert detect(Probe(text.encode())) is None
    only("#0  main (path=0x1) at main.c:3\n#1  0x2 in start ()\n", "gdb")


def test_lldb() -> None:
    crash = only(
        "* thread #1, name = 'prog', stop reason = signal SIGSEGV: invalid address (fault address: 0x10)\n"
        "  * frame #0: 0x0000555555555131 prog`crash(p=0x0) at a.c:3:6\n    frame #1: 0x0000555555555190 prog`main at a.c:12:3\n"
        "  thread #2, name = 'worker'\n    frame #0: 0x00007ffff7e8a000 libc.so.6`poll + 79\n",
        "gdb",
    )
    assert [(e.type, e.address) for e in crash.exceptions] == [("SIGSEGV", 0x10)]
    assert [(t.id, t.name, t.crashed) for t in crash.threads] == [(1, "prog", True), (2, "worker", False)]
    assert names(crash.threads[0].frames) == ["crash(p=0x0)", "main"]


WINDBG = """\
Microsoft (R) Windows Debugger Version 10.0.10240.9 AMD64
ModLoad: 00007ff6`4ffc0000 00007ff6`50088000   app.exe
ModLoad: 00007ff8`d31b0000 00007ff8`d335d000   ntdll.dll
(dc8.9d8): Break instruction exception - code 80000003 (first chance)
(dc8.9d8): Access violation - code c0000005 (!!! second chance !!!)
ExceptionAddress: 00007ff64ffc1234 (app!f+0x0000000000000034)
   ExceptionCode: c0000005 (Access violation)
Attempt to write to address 0000000000000010
PROCESS_NAME:  app.exe

STACK_TEXT:
000000bc`aeaaa440 00007ff6`4ffc2000 : 00010000`80000000 00010000`ffffffff 000000bc`a8524380 ffff0000`00000000 : app!ns::f+0x34 [c:\\src\\a b\\f.cpp @ 12]
000000bc`aeaaa480 00007ff8`d31b1000 : 000000bc`aeaaac70 00010000`80000000 00010000`ffffffff 000000bc`a8524380 : app!main+0x10
000000bc`aeaaa4e0 00000000`00000000 : 000000bc`aeaaac70 fffc0000`00000000 00000000`00000005 00000000`00000000 : ntdll!RtlUserThreadStart+0x34

FOLLOWUP_IP:
"""


def test_windbg() -> None:
    crash = only(WINDBG, "windbg")
    (exception,) = crash.exceptions
    assert (exception.type, exception.code, exception.address, exception.access) == (
        "EXCEPTION_ACCESS_VIOLATION",
        0xC0000005,
        0x10,
        "write",
    )
    assert (crash.pid, crash.process_name, crash.os_name) == (0xDC8, "app.exe", "Windows")
    assert [(m.code_file, m.image_addr, m.end) for m in crash.modules] == [
        ("app.exe", 0x7FF64FFC0000, 0x7FF650088000),
        ("ntdll.dll", 0x7FF8D31B0000, 0x7FF8D335D000),
    ]
    (thread,) = crash.threads
    assert (thread.id, thread.crashed) == (0x9D8, True)
    assert names(thread.frames) == ["ns::f", "main", "RtlUserThreadStart"]
    assert places(thread.frames)[0] == ("f.cpp", 12)
    # A line has the address that it returns to, which lies in the next one's function.
    assert [f.instruction_addr for f in thread.frames or ()] == [None, 0x7FF64FFC2000, 0x7FF8D31B1000]


def test_windbg_k() -> None:
    crash = only(
        "(1.2): Stack overflow - code c00000fd (first chance)\n0:000> k\n # Child-SP          RetAddr               Call Site\n"
        "00 000000bc`aeaaa440 00007ff6`4ffc2000     app!f+0x34\n01 (Inline Function) --------`--------     app!g+0x3\n02 000000bc`aeaaa480 00000000`00000000     app!h\n",
        "windbg",
    )
    assert crash.attributes["crash_type"] == "Stack-overflow"
    assert names(crash.threads[0].frames) == ["f", "g", "h"]
    assert [f.reported.inline for f in crash.threads[0].frames or () if f.reported] == [False, True, False]


# --- Kernel ------------------------------------------------------------------------------------------------------------


def test_kasan() -> None:
    crash = only(
        "[   12.345678] ==================================================================\n"
        "[   12.345679] BUG: KASAN: slab-out-of-bounds in hid_probe+0x208/0x390\n"
        "[   12.345680] Write of size 4 at addr ffff888014cefd90 by task kworker/0:1/11\n"
        "[   12.345681] CPU: 0 PID: 11 Comm: kworker/0:1\n[   12.345682] Call Trace:\n"
        "[   12.345683]  dump_stack+0x20/0x68\n[   12.345684]  hid_probe+0x208/0x390 [hid]\n[   12.345685]  ? stale+0x1/0x2\n"
        "[   12.345686]  really_probe+0x335/0x780 drivers/base/dd.c:566\n[   12.345687] Allocated by task 9:\n[   12.345688]  kmalloc+0x1/0x2\n"
        "[   12.345689] Kernel panic - not syncing: panic_on_warn set ...\n",
        "kernel",
    )
    (exception,) = crash.exceptions
    assert (exception.type, exception.address, exception.access) == ("slab-out-of-bounds", 0xFFFF888014CEFD90, "write")
    assert crash.attributes["crash_type"] == "Kernel failure\nSlab-out-of-bounds\nWRITE 4"
    assert crash.os_name == "Linux"
    assert names(crash.threads[0].frames) == ["dump_stack", "hid_probe", "really_probe"]
    assert [t.name for t in crash.threads[1:]] == ["Allocated by task 9"]


@pytest.mark.parametrize(
    ("line", "kind", "address"),
    [
        ("Unable to handle kernel NULL pointer dereference at virtual address 00000004", "kernel fault", 4),
        ("BUG: unable to handle page fault for address: ffff888014cefd90", "kernel fault", 0xFFFF888014CEFD90),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000010", "NULL pointer dereference", 0x10),
        ("kernel BUG at kernel/time/timer.c:1147!", "kernel BUG", None),
        (
            "general protection fault, probably for non-canonical address 0xdffffc0000000000: 0000 [#1] SMP",
            "general protection fault",
            None,
        ),
        ("Kernel panic - not syncing: Fatal exception", "kernel panic", None),
    ],
)
def test_oopses(line: str, kind: str, address: int | None) -> None:
    crash = only(f"<4>[    1.000000] {line}\n<4>[    1.000001]  f+0x1/0x2\n<4>[    1.000002]  g+0x1/0x2\n", "kernel")
    assert crash.exceptions[0].type == kind
    if address is not None:
        assert crash.exceptions[0].address == address
    assert names(crash.threads[0].frames) == ["f", "g"]


@pytest.mark.parametrize(
    "line",
    [
        "RIP: 0010:keyring_destroy+0x52/0x100",
        "RIP: 0010:[<ffffffff8158b1a2>]  [<ffffffff8158b1a2>] keyring_destroy+0x52/0x100",
        "PC is at keyring_destroy+0x52/0x100",
        "pc : keyring_destroy+0x52/0x100",
    ],
)
def test_the_function_an_oops_stopped_in_comes_first(line: str) -> None:
    crash = only(f"general protection fault: 0000 [#1] SMP\n{line}\nCall Trace:\n f+0x1/0x2\n g+0x1/0x2\n", "kernel")
    assert names(crash.threads[0].frames) == ["keyring_destroy", "f", "g"]


# --- Hostile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["# Fatal error in ", "frame #0: ", "terminate called "])
@pytest.mark.parametrize("blank", ["\n", "\t", " \n"])
def test_blanks_without_end_do_not_freeze_the_search_for_a_kind(word: str, blank: str) -> None:
    """Each took a minute while blanks at a line's start could be those of all lines behind it."""
    assert kind_of(f"{word}x{blank * 250_000}") == ("terminate" if word[0] != "f" else None)
