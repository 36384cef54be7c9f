"""What kind of crash log a text is: rows of a kind, a word that must be there, and what then tells.

The kinds are names of formats. A text that another reader has a better claim on (Apple's and Android's reports, JSON,
symbol files) is none of them.
"""

from __future__ import annotations

import re

from deadreckon.reports.textlog.lines import MAX_LINE, clean

__all__ = ["kind_of"]

_OTHERS = re.compile(r"\s*(?:\{|<[?!a-zA-Z]|\[\s*[\[{\"]|MODULE |Incident Identifier:|%YAML|---\n)", re.ASCII)
_APPLE = re.compile(r"^Incident Identifier: ", re.MULTILINE)
_ANDROID = re.compile(r"(?:^|: ?)[ \t]*#\d\d +pc [0-9a-f]{8}", re.MULTILINE)
_ANDROID_ABORT = re.compile(r"Abort message: '==\d+==ERROR: ")
"""A sanitizer's report inside a tombstone."""

_LLVM = r"(?:Address|HWAddress|Memory|Thread|Leak|UndefinedBehavior|DataFlow|Type|Realtime|NumericalStability)Sanitizer"
_SIGNALS = r"SEGV|ABRT|BUS|FPE|ILL|TRAP|SYS|UNKNOWN|access-violation|illegal-instruction|breakpoint|int-divide-by-zero"
_SHELL = (
    r"Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception|Trace/breakpoint trap"
    r"|Bad system call"
)
_HEAP = (
    r"(?:free|malloc|realloc|calloc|munmap_chunk|malloc_consolidate|mremap_chunk)\(\): \w|double free or corruption"
    r"|corrupted (?:size vs|double-linked)"
)

_ROWS: tuple[tuple[str, str, str], ...] = (
    (
        "hs_err",
        " Java Runtime Environment",
        r"^# (?:(?:A fatal|An unexpected) error has been detected by|There is insufficient memory for) ",
    ),
    # What a tool reports of an error comes before what the process said or died of afterwards.
    ("sanitizer", "Sanitizer: ", rf"(?:ERROR|WARNING): {_LLVM}: (?!(?:{_SIGNALS}) )\w"),
    ("sanitizer", ": runtime error: ", r"^[^\s:][^:\n]{0,1000}:\d+(?::\d+)?: runtime error: \w"),
    ("sanitizer", " leak of ", r"(?:Direct|Indirect) leak of \d+ byte"),
    ("sanitizer", "===BUG DETECTED: ", r"===BUG DETECTED: (?!PySecSan)"),
    ("python", "Traceback (most recent call last):", ""),
    ("python", "=== Uncaught Python exception: ===", ""),
    ("python", "Fatal Python error: ", r"^Fatal Python error: "),
    ("python", "[PYSECSAN] Stacktrace:", ""),
    (
        "go",
        "goroutine ",
        (
            r"^(?:panic: |fatal error: |SIG[A-Z]+: |unexpected fault address )[^\n]*\n(?:[^\n]*\n){0,64}?"
            r"(?:[ \t]*goroutine \d+ .{0,80}\[|runtime stack:)"
        ),
    ),
    ("go", "WARNING: DATA RACE", r"^WARNING: DATA RACE$"),
    ("rust", " panicked at ", r"thread '[^'\n]{0,200}' (?:\(\d{1,20}\) )?panicked at "),
    ("rust", " has overflowed its stack", r"^thread '[^'\n]{0,200}' (?:\(\d{1,20}\) )?has overflowed its stack"),
    ("kernel", "BUG: K", r"BUG: K(?:ASAN|MSAN|CSAN|FENCE): "),
    ("kernel", "kernel BUG at ", ""),
    ("kernel", "Unable to handle kernel ", ""),
    ("kernel", "Kernel panic - not syncing", ""),
    ("kernel", "BUG: ", r"BUG: (?:unable to handle|kernel NULL pointer)"),
    ("kernel", "Internal error: Oops", ""),
    ("kernel", "general protection fault", r"general protection fault.{0,200}\[#"),
    ("kernel", "panic notifier - trusty version", ""),
    ("sanitizer", "Sanitizer: ", rf"ERROR: {_LLVM}: "),
    ("sanitizer", "ERROR: libFuzzer: ", ""),
    ("sanitizer", " exceeded: ", r"^(?:CRASH LOG: )?=========\s.{0,80} exceeded: \d"),
    ("windbg", "Microsoft (R) Windows Debugger", ""),
    ("windbg", " - code ", r"^\([0-9a-f]{1,8}\.[0-9a-f]{1,8}\): .{1,80} - code [0-9a-f]{8} \((?:first|!!!)"),
    ("windbg", "STACK_TEXT:", r"^STACK_TEXT:"),
    ("gdb", " signal SIG", r"^(?:Program|Thread \d.{0,80}) (?:received|terminated with) signal SIG[A-Z]"),
    (
        "gdb",
        "#0 ",
        # Dart numbers its frames too, with a URL in the brackets where gdb has arguments.
        (
            r"^#0 +(?:0x[0-9a-f]+ in )?[^\n(]{1,1000} \((?!(?:package|dart|file):)[^\n]*\n"
            r"(?:[ \t]+(?:at|from) [^\n]*\n)?(?:#1 |\Z)"
        ),
    ),
    ("gdb", "LWP ", r"^Thread \d+ \(.{0,80}LWP \d+\)"),
    ("gdb", "stop reason = ", r"^\* thread #\d+.{0,300}stop reason = "),
    ("gdb", "frame #0: ", r"^[ \t]+(?:\* )?frame #0: 0x[0-9a-f]+ "),
    ("terminate", "terminate called ", r"^terminate called "),
    ("terminate", "libc++abi", r"libc\+\+abi(?:\.dylib)?: "),
    ("terminate", "*** stack smashing detected", ""),
    ("terminate", "*** buffer overflow detected", ""),
    ("terminate", "*** Error in ", r"^\*\*\* Error in [`']"),
    ("terminate", "Fatal glibc error: ", ""),
    ("terminate", "()", rf"^(?:\S+: )?(?:{_HEAP})"),
    ("terminate", "corrupt", rf"^(?:\S+: )?(?:{_HEAP})"),
    ("terminate", "ure virtual ", r"[Pp]ure virtual (?:method|function) called"),
    ("terminate", ": Assertion ", r"\S:\d{1,9}: [^\n]{1,500}: Assertion [`']"),
    (
        "terminate",
        "assertion ",
        r"\S:\d{1,9}: ?(?:[^\n:]{1,500}: assertion \"|(?:libc\+\+ Hardening )?assertion \S[^\n]{0,500} failed: )",
    ),
    ("terminate", "ssertion failed: ", r"^Assertion failed: .{0,2000}(?:, line \d|: \d{1,9}\)$)"),
    ("terminate", "assertion failed", r":ERROR:\S{1,500}:\d{1,9}:[^:\n]{1,500}: assertion failed"),
    ("terminate", "assert failure: ", ""),
    ("terminate", "CRITICAL", r"CRITICAL[^\n]{0,16}: \S{1,300}: assertion ['`]"),
    ("terminate", "FATAL:", r"FATAL:[^\](:\n]{1,300}[(:]\d{1,9}\)?\]"),
    ("terminate", "] ", r"^F\d{4,8} \d\d:\d\d:\d\d\S{0,16} +\d{1,20} \S{1,500}:\d{1,9}\] "),
    ("terminate", "Fatal error in ", r"^(?:#[ \t]*)?# Fatal error in "),
    ("terminate", "Runtime error in ", r"^# Runtime error in "),
    ("terminate", "# Fatal ", r"^# Fatal (?:process|JavaScript) "),
    ("terminate", "FATAL ERROR: ", r"^FATAL ERROR: \S"),
    ("terminate", "abort: ", r"^abort: \S"),
    ("terminate", "ASSERTION FAILED: ", r"^ASSERTION FAILED: "),
    ("terminate", "Received signal ", r"^Received signal \d+"),
    ("terminate", "*** S", r"^\*\*\* (?:SIG[A-Z]+|Signal \d+) .{0,80}(?:received|\()"),
    ("terminate", "(core dumped)", rf"(?:{_SHELL}) +\(core dumped\)"),
    ("terminate", "Segmentation fault", r"^Segmentation fault$"),
    ("terminate", "Aborted", r"^Aborted$"),
    ("terminate", "Bus error", r"^Bus error$"),
    ("terminate", "Illegal instruction", r"^Illegal instruction$"),
    ("terminate", "Floating point exception", r"^Floating point exception$"),
    ("terminate", "Trace/breakpoint trap", r"^Trace/breakpoint trap$"),
    ("terminate", "error while loading shared libraries: ", ""),
    ("terminate", "CANNOT LINK EXECUTABLE", ""),
    ("terminate", "GPU process exited unexpectedly", ""),
    ("terminate", "V8 correctness failure", ""),
    ("terminate", "V8 sandbox violation detected", ""),
    ("terminate", "atal error: ", r"^(?:\S{1,500}:\d{1,9}: Fatal error: |Fatal error: .{0,500}: file )"),
    ("terminate", "CHECK", r"\bCHECK(?:_[A-Z]{2})?\(.{0,300}\) failed"),
    ("terminate", "Fatal signal ", r"Fatal signal \d+ \(SIG[A-Z]+\)"),
)
_PATTERNS = tuple((name, word, re.compile(pattern, re.MULTILINE) if pattern else None) for name, word, pattern in _ROWS)


_WORDS = tuple(dict.fromkeys(word for _, word, _ in _ROWS))


def kind_of(text: str) -> str | None:
    """Return a crash log's kind, None for any other text."""
    if not text or _OTHERS.match(text) or _APPLE.search(text, 0, 4096) or not any(word in text for word in _WORDS):
        return None
    text = "\n".join(clean(line[:MAX_LINE]) for line in text.splitlines())
    for name, word, pattern in _PATTERNS:
        if word in text and (pattern is None or pattern.search(text)):
            weak = name in {"terminate", "gdb"} or _ANDROID_ABORT.search(text) is not None
            return None if weak and _ANDROID.search(text) else name
    return None
