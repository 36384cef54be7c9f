"""One line of a native stack, as each tool prints it."""

# ruff: noqa: E501 - lines of logs are shown whole.
from __future__ import annotations

from typing import Any

import pytest

from deadreckon.reports.textlog.frames import Adjusted, continuation, parse
from deadreckon.reports.textlog.lines import read_lines

READY, CALLERS, ALL = Adjusted.LOOKED_UP, Adjusted.CALLERS_RETURN, Adjusted.ALL_RETURN

LINES: list[tuple[str, Adjusted, dict[str, Any]]] = [
    # LLVM's sanitizers, symbolized and not
    ("    #0 0x4008f1 in f(int, char*) /src/a b/f.cc:10:3", READY, {"number": 0, "address": 0x4008F1, "function": "f(int, char*)", "file": "/src/a b/f.cc", "line": 10, "column": 3}),
    ("#12 0x7f3c in ns::(anonymous namespace)::g() const src/g.cc:7", READY, {"function": "ns::(anonymous namespace)::g() const", "file": "src/g.cc", "line": 7, "column": None}),
    ("#1 0x5566 in operator new(unsigned long)", READY, {"function": "operator new(unsigned long)", "file": None}),
    ("#1 0x5566 in operator/(A const&, B) math/a.cc:1:2", READY, {"function": "operator/(A const&, B)", "file": "math/a.cc"}),
    ("#3 0x7f55 in main C:\\Program Files\\x\\m.cpp:4", READY, {"function": "main", "file": "C:\\Program Files\\x\\m.cpp", "line": 4}),
    ("#2 0x7f11  (/lib/x86_64-linux-gnu/libc.so.6+0x29d90) (BuildId: 69389d485a9793dbe873f0ea2c93e02efaa9aa3d)", READY, {"function": None, "module": "/lib/x86_64-linux-gnu/libc.so.6", "offset": 0x29D90, "build_id": "69389d485a9793dbe873f0ea2c93e02efaa9aa3d"}),
    ("#2 0x7f11 in _start (/a (x86)/b+0x12)", READY, {"function": "_start", "module": "/a (x86)/b", "offset": 0x12}),
    ("#0 0x10c in Handle+0x15a519c (C:\\b\\chrome_child.dll+0x15a519c)", READY, {"function": "Handle", "module": "C:\\b\\chrome_child.dll", "offset": 0x15A519C}),
    ("#0 0x7fff8d in f (/System/lib/libX.dylib:x86_64+0x251b5)", READY, {"module": "/System/lib/libX.dylib", "offset": 0x251B5}),
    ("#0 0x631000001000  (<unknown module>)", READY, {"function": None, "module": None}),
    ("#4 0x12 in ?? ??:0:0", READY, {"function": None, "file": None, "line": None}),
    ("#0 main /tmp/a.c:10:3 (a.out+0x4a3)", READY, {"address": None, "function": "main", "file": "/tmp/a.c", "module": "a.out", "offset": 0x4A3}),
    ("#0 0xf77b in [vdso]", READY, {"function": None, "module": "[vdso]"}),
    ("#3 0x7a3e in libpthread.so.0", READY, {"function": None, "module": "libpthread.so.0"}),
    ("web_1  | E0101 x]   #7 0x55d4c0ffee in f a.c:1:2", READY, {"number": 7, "function": "f"}),
    # Fuchsia
    ("   #1.1  0x00004329b790d35e in Unwind ../x/asan_stack.h:115 <libclang_rt.asan.so>+0x5135e", READY, {"number": 1, "inline": True, "function": "Unwind", "line": 115, "module": "libclang_rt.asan.so", "offset": 0x5135E}),
    ("   #2    0x00005332f2cb9a95 in fuzzer::PrintStackTrace() <<application>>+0x75a95", READY, {"function": "fuzzer::PrintStackTrace()", "module": "application"}),
    # Chromium's own
    ("#3 0x7f48a5269cd2 logging::LogMessage::~LogMessage()", ALL, {"form": "chromium", "function": "logging::LogMessage::~LogMessage()"}),
    ("#0 0x5a882c10d286 <unknown>", READY, {"function": None}),
    (" base::debug::Collect [0x00007FFE913FFCF2+18] (base/debug/stack_trace_win.cc:329)", ALL, {"address": 0x7FFE913FFCF2, "function": "base::debug::Collect", "file": "base/debug/stack_trace_win.cc", "line": 329}),
    ("cobalt::dom::FontList::Get() [0x1bfbcfe]", ALL, {"address": 0x1BFBCFE, "function": "cobalt::dom::FontList::Get()"}),
    # gdb
    ('#0  0x00000000005e3099 in xl::read (this=0x7ffe, s="a (b") at /x/c.cpp:975', CALLERS, {"form": "gdb", "function": "xl::read", "file": "/x/c.cpp", "line": 975}),
    ("#1  f (x=1) at a.c:3", CALLERS, {"address": None, "function": "f", "file": "a.c", "line": 3}),
    ("#2  0x00007ffff7a71082 in __libc_start_main () from /lib/libc.so.6", CALLERS, {"function": "__libc_start_main", "module": "/lib/libc.so.6"}),
    ("#3  0x00007fff in ?? ()", CALLERS, {"function": None}),
    ("#4  <signal handler called>", CALLERS, {"signal": True}),
    ("#5  0x1 in (anonymous namespace)::decrypt (b=std::vector of length 1 = {...}) at x.cpp:3", CALLERS, {"function": "(anonymous namespace)::decrypt", "line": 3}),
    ("#6  Foo<int (*)(char)>::operator() (this=0x1) at a.h:2", CALLERS, {"function": "Foo<int (*)(char)>::operator()"}),
    ("#7  0x1 in operator<< (a=..., b=...) at a.h:2", CALLERS, {"function": "operator<<"}),
    # LLDB
    ("  * frame #0: 0x0000000100000f4c a.out`crash(x=0) + 12 at a.c:3:5", CALLERS, {"number": 0, "module": "a.out", "function": "crash(x=0)", "file": "a.c", "line": 3, "column": 5}),
    ("    frame #1: 0x00007fff20335f3d libdyld.dylib`start + 1", CALLERS, {"number": 1, "module": "libdyld.dylib", "function": "start"}),
    # backtrace(3)
    ("./prog(crash+0x1d) [0x55f7]", ALL, {"module": "./prog", "function": "crash", "offset": None, "address": 0x55F7}),
    ("/lib/libc.so.6(+0x29d90)[0x7f2a]", ALL, {"module": "/lib/libc.so.6", "function": None, "offset": 0x29D90}),
    ("    /v8/libv8.so(v8::internal::F(int, char)+0x12) [0x7dcf]", ALL, {"module": "/v8/libv8.so", "function": "v8::internal::F(int, char)"}),
    ("[0x7f6b13882bf1]", ALL, {"address": 0x7F6B13882BF1}),
    # Counted forms
    ("12: 0xa729b5f", ALL, {"number": 12, "address": 0xA729B5F, "function": None}),
    (" 1: 0xb090e0 node::Abort() [node]", ALL, {"function": "node::Abort()", "module": "node"}),
    ("3   0x7f162ddc0750 blink::f(int)", ALL, {"number": 3, "function": "blink::f(int)"}),
    ("2   Content Shell Framework             0x000000010cbf477a _ZN2ui1fEv + 698", ALL, {"module": "Content Shell Framework", "function": "_ZN2ui1fEv", "offset": None}),
    ("0    swift-fuzz   0x0000555f6035db52 <unavailable> + 32258898", ALL, {"module": "swift-fuzz", "function": None, "offset": 32258898}),
    (" 0# bar(int) at /p/s.cpp:70", ALL, {"number": 0, "function": "bar(int)", "file": "/p/s.cpp", "line": 70}),
    (" 1# main in ./a.out", ALL, {"function": "main", "module": "./a.out"}),
    ("    @     0x7f5a1e  (unknown)", ALL, {"address": 0x7F5A1E, "function": None}),
    ("    @     0x55d5       48  absl::F()", ALL, {"function": "absl::F()"}),
    # The kernel's
    ("[<ffffffc000bd5760>] snd_seq_fifo_clear+0x20/0xec sound/core/seq/seq_fifo.c:96", CALLERS, {"address": 0xFFFFFFC000BD5760, "function": "snd_seq_fifo_clear", "file": "sound/core/seq/seq_fifo.c", "line": 96}),
    ("[<     inline     >] vfs_ioctl fs/ioctl.c:43", CALLERS, {"address": None, "function": "vfs_ioctl", "inline": True}),
    ("kbase_ioctl+0x2dc/0x111c [mali_kbase]", CALLERS, {"function": "kbase_ioctl", "module": "mali_kbase"}),
    ("[<0000000036c0b44e>] dump_backtrace+0x0/0x688", CALLERS, {"address": None, "function": "dump_backtrace"}),
    ("#4 [<0x0000000000aa4266>] _etext+0x26eda/0x3121c4", CALLERS, {"number": 4, "address": 0xAA4266, "function": "_etext"}),
    ("uSP+0x01d0: 0x000000000001b048 in fe_invert /x/internal.h:845", CALLERS, {"address": 0x1B048, "function": "fe_invert", "line": 845}),
    ("{{{bt:1:0x7f00:pc}}}", READY, {"number": 1, "address": 0x7F00}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "adjusted", "wanted"), LINES, ids=[line[:40] for line, *_ in LINES])
def test_forms(line: str, adjusted: Adjusted, wanted: dict[str, Any]) -> None:
    frame = parse(line)
    assert frame is not None
    assert frame.adjusted is adjusted
    assert {k: getattr(frame, k) for k in wanted} == wanted


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#2\tINITED cov: 7 ft: 7 corp: 1/1b exec/s: 0 rss: 30Mb",
        "#1256522: cov: 12 ft: 13 corp: 4 exec/s 252115",
        "#00 pc 0001a2b4  /system/lib/libc.so (tgkill+12)",
        "#include <stdio.h>",
        "# Fatal error in a.cc, line 3",
        "==1==ERROR: AddressSanitizer: SEGV on unknown address 0x1",
        "rax = 0x0000000000000000  rbx = 0x00007e7fdb53ae00",
        "  0x601ffffffd80: 00 00 00 00 00 00 00 00",
        "2024-01-01 12:00:00 took 0x12 ms",
        "1 file changed",
        "[0x54cf70, 0x54cf82)",
        "#0 0x10000000000000000 in f a.c:1",
    ],
)
def test_what_is_no_frame(line: str) -> None:
    assert parse(line) is None


def test_continuations_are_gdbs() -> None:
    assert continuation("    at /x/y.c:3")
    assert continuation("    from /lib/libc.so.6")
    assert not continuation("    at the end")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"06-24 12:00:00.123  1234  5678 F DEBUG   : #0 0x1", "#0 0x1"),
        (b"F/DEBUG   ( 1234): abort", "abort"),
        (b"06-24 12:00:00.123 F/libc( 12): abort", "abort"),
        (b"[    0.058680][  T123] BUG: KASAN", "BUG: KASAN"),
        (b"<4>[   12.345678] Oops", "Oops"),
        (b"Jan  2 03:04:05 host prog[12]: abort", "abort"),
        (b"2024-01-02T03:04:05.123456+00:00 host prog[12]: abort", "abort"),
        (b"2024-01-02T03:04:05.123456789Z stderr F abort", "abort"),
        (b"2024-05-01T12:00:00.1234567Z ##[error] x", "##[error] x"),
        (b"service-1  | panic: x", "panic: x"),
        (b"\x1b[1m\x1b[31m==1==ERROR\x1b[0m: x\r", "==1==ERROR: x"),
        (b"\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"CRASH LOG:     #0 0x1", "    #0 0x1"),
        (b"plain: text | more", "plain: text | more"),
    ],
)
def test_what_loggers_write_before_lines(line: bytes, wanted: str) -> None:
    lines, problems = read_lines(line + b"\nnext")
    assert lines == [wanted, "next"]
    assert problems == []


def test_encodings() -> None:
    for data in (
        "a\r\nb".encode("utf-16"),
        b"\xef\xbb\xbfa\r\nb",
        b"a\rb",
        "a\nb".encode("utf-16-be").join([b"\xfe\xff", b""]),
    ):
        assert read_lines(data)[0] == ["a", "b"]
