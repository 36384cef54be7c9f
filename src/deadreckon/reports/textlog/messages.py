"""Messages: programs and run-time libraries that say why they end, before they do.

Sources: Chromium ``base/logging.cc`` and ``check.cc``, V8 ``src/base/logging.cc``, glog, WebKit ``Assertions.cpp``, the
C libraries' ``assert.c``, glibc ``malloc.c`` and ``fortify_fail.c``, libstdc++ ``vterminate.cc``, libc++abi
``cxa_default_handlers.cpp``, Rust ``std::panicking``, Go ``panic.go``, GLib ``gtestutils.c``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.reports.textlog.findings import Finding, Kind, decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.textlog.findings import Make, Row

__all__ = ["ROWS"]


def _message(
    mechanism: str, kind: str, crash_type: str, *, value: int = 1, file: int = 0, line: int = 0, function: int = 0
) -> Make:
    """Return the maker of a message; the numbers are those of the pattern's groups."""

    def make(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
        return Finding(
            Kind.MESSAGE,
            mechanism,
            kind,
            (match[value] if value else match[0]).strip(),
            crash_type,
            file=match[file] if file else None,
            lineno=decimal(match[line]) if line else None,
            function=match[function] if function else None,
        )

    return make


_CHECKS = (
    # What the text begins with, its type, ClusterFuzz's.
    ("Security DCHECK failed", "security DCHECK", "Security DCHECK failure"),
    ("Security CHECK failed", "security CHECK", "Security CHECK failure"),
    ("DCHECK failed", "DCHECK", "CHECK failure"),
    ("Debug check failed", "DCHECK", "DCHECK failure"),
    ("Check failed", "CHECK", "CHECK failure"),
    ("NOTREACHED hit", "NOTREACHED", "CHECK failure"),
    ("V8 error", "V8 error", "V8 API error"),
    ("Out of memory", "out of memory", "Out-of-memory"),
    ("Fatal process out of memory", "out of memory", "Out-of-memory"),
    ("Fatal JavaScript", "out of memory", "Out-of-memory"),
    ("Allocation failed", "out of memory", "Out-of-memory"),
    ("unreachable code", "unreachable code", "Unreachable code"),
    ("unimplemented code", "unimplemented code", "Unreachable code"),
    ("CSA_DCHECK failed", "CSA_DCHECK", "ASSERT"),
    ("CSA_ASSERT failed", "CSA_ASSERT", "ASSERT"),
    ("assert.h assertion failed", "assertion", "ASSERT"),
    ("Assertion failed", "assertion", "ASSERT"),
    ("RepresentationChangerError", "representation change", "CHECK failure"),
)


def _check(text: str, otherwise: tuple[str, str]) -> tuple[str, str]:
    lowered = text.lower()
    return next(((kind, name) for begin, kind, name in _CHECKS if lowered.startswith(begin.lower())), otherwise)


def _chromium(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    kind, crash_type = _check(match[3], ("fatal error", "CHECK failure"))
    return Finding(
        Kind.MESSAGE, "chromium", kind, match[3].strip(), crash_type, file=match[1], lineno=decimal(match[2])
    )


def _glog(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    kind, crash_type = _check(match[3], ("fatal error", "Fatal error"))
    return Finding(Kind.MESSAGE, "glog", kind, match[3].strip(), crash_type, file=match[1], lineno=decimal(match[2]))


def _v8(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    """``# Fatal error in FILE, line N`` and on the next line ``# MESSAGE``; other forms have no place."""
    rest = match[1].strip()
    following = lines[at + 1].strip() if at + 1 < len(lines) else ""
    said = following[1:].strip() if following[:2] == "# " else ""
    place = re.fullmatch(r"(.*), line (\d{1,9})", rest)
    kind, crash_type = _check(said or rest, ("fatal error", "Fatal error"))
    found = Finding(Kind.MESSAGE, "v8", kind, said or rest, crash_type)
    if place and place[1].strip():
        found.file, found.lineno = place[1].strip(), decimal(place[2])
    return found


def _v8_correctness(_match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    """Two builds of V8 disagree: the lines below say which, and on what."""
    mark = "# V8 correctness "
    said = [line.removeprefix(mark) for line in lines[at + 1 : at + 12] if line.startswith(mark)]
    return Finding(Kind.MESSAGE, "v8", "correctness failure", "\n".join(said), "V8 correctness failure")


def _v8_sandbox(_match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    name = "V8 sandbox violation"
    return Finding(Kind.MESSAGE, "v8", name, name, name, verdict=True)


def _v8_runtime(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    said = next((line.lstrip("# ") for line in lines[at + 1 : at + 4] if line.startswith("# ")), "")
    return Finding(
        Kind.MESSAGE,
        "v8",
        "runtime assertion",
        said or match[0],
        "RUNTIME_ASSERT",
        file=match[1],
        lineno=decimal(match[2]),
    )


def _v8_abort(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    kind, crash_type = _check(match[1], ("abort", "ASSERT"))
    place = re.search(r"\[([^\[\]]{1,500}):(\d{1,9})\]$", match[1])
    found = Finding(Kind.MESSAGE, "v8", kind, match[1].strip(), crash_type)
    if place:
        found.file, found.lineno = place[1], decimal(place[2])
    return found


def _webkit(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    found = Finding(Kind.MESSAGE, "webkit", "assertion", match[1].strip(), "ASSERT")
    place = re.match(r"(\S{1,1000})\((\d{1,9})\) : (.*)", lines[at + 1]) if at + 1 < len(lines) else None
    if place:
        found.file, found.lineno, found.function = place[1], decimal(place[2]), place[3]
    return found


_ASSERTED = re.compile(r"(?:^|\s)((?:[A-Za-z]:)?[^\s:'\"]{1,1000}):(\d{1,9}): (.*)$")


def _assert(match: re.Match[str], lines: Sequence[str], at: int) -> Finding | None:
    """``file:line: function: Assertion `expression' failed.`` of the C libraries."""
    place = _ASSERTED.search(lines[at][max(0, match.start() - 4000) : match.start()])
    if place is None:
        return None
    return Finding(
        Kind.MESSAGE,
        "assert",
        "assertion",
        match[1],
        "ASSERT",
        file=place[1],
        lineno=decimal(place[2]),
        function=place[3],
    )


def _assertion_failed(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding | None:
    """``(expression), function f, file x, line n.`` (BSD), ``expression, file x, line n`` (Microsoft), and others."""
    said = match[1].rstrip(".")
    found = Finding(Kind.MESSAGE, "assert", "assertion", said, "ASSERT")
    head, told, line = said.rpartition(", line ")
    if told and line.isdecimal() and line.isascii():
        found.lineno = int(line[:9])
        head, told, found.file = head.rpartition("file ")
        head = head.rstrip(", ")
        before, told, function = head.rpartition(", function ")
        if told:
            head, found.function = before, function
        found.value = head or match[0].strip()
    elif place := re.search(r"\(([^():\s]{1,1000}): ([^():\s]{1,1000}): (\d{1,9})\)$", said):  # musl
        found.value = said[: place.start()].rstrip()
        found.file, found.function, found.lineno = place[1], place[2], int(place[3])
    else:
        return None
    return found


def _terminate(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    """libstdc++'s verbose terminate handler: the exception's class, and what() on the next line."""
    what = re.match(r"\s*what\(\):\s*(.*)", lines[at + 1]) if at + 1 < len(lines) else None
    return Finding(Kind.MESSAGE, "terminate", match[1], what[1] if what else "", "Uncaught exception")


def _libcxx(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    return Finding(Kind.MESSAGE, "terminate", match[1], (match[2] or "").strip(), "Uncaught exception")


def _rust(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    """``panicked at 'message', file:line:column``, or since Rust 1.73 the place, and the message on the next lines."""
    rest = match[2].strip()
    old = re.fullmatch(r"'(.*?)(?:', ([^',]{1,1000}):(\d{1,9}):(\d{1,9}))?", rest, re.DOTALL)
    found = Finding(Kind.MESSAGE, "rust", "panic", "", "ASSERT", attributes={"thread": match[1]})
    if old is not None:
        found.value, found.file = old[1], old[2]
        found.lineno, found.column = decimal(old[3]), decimal(old[4])
        for line in lines[at + 1 : at + 16] if old[2] is None else ():
            end = re.fullmatch(r"(.*?)', ([^',]{1,1000}):(\d{1,9}):(\d{1,9})", line)
            found.value += "\n" + (end[1] if end else line)
            if end:
                found.file, found.lineno, found.column = end[2], decimal(end[3]), decimal(end[4])
                break
        return found
    place = re.fullmatch(r"(.{1,1000}?):(\d{1,9}):(\d{1,9}):?", rest)
    if place is None:
        found.value = rest
        return found
    found.file, found.lineno, found.column = place[1], decimal(place[2]), decimal(place[3])
    said: list[str] = []
    for line in lines[at + 1 : at + 33]:
        if re.match(r"stack backtrace:|note: |==\d+==|\s*#?\d+:? ", line) or (not line and said):
            break
        said.append(line)
    found.value = "\n".join(said).strip()
    return found


def _go(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    said = match[1].strip()
    error = re.match(r"(?:runtime error: )([^\[]*)", said)
    name = error[1].strip().removesuffix(" or nil pointer dereference") if error else ""
    crash_type = name[:1].upper() + name[1:] if name else "ASSERT"
    return Finding(Kind.MESSAGE, "go", "panic", said, crash_type)


_SYSTEM_SANITIZER = {
    "Shell corruption": "Command injection",
    "Arbitrary domain name resolution": "Arbitrary DNS resolution",
}


def _bug_detected(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    said = match[1].strip(" =")
    return Finding(Kind.MESSAGE, "systemsan", said.lower(), said, _SYSTEM_SANITIZER.get(said, said))


def _centipede(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    said = match[1]
    lowered = said.lower()
    name = "Timeout" if "timeout" in lowered else "Stack-overflow" if "stack" in lowered else "Out-of-memory"
    return Finding(Kind.MESSAGE, "centipede", f"{lowered} exceeded", match.string[match.start() :].strip("= "), name)


_FILE = r"(?:^|[\s\]])((?:[A-Za-z]:)?[^\s:'\"]{1,1000})"

ROWS: tuple[Row, ...] = (
    ("BUG DETECTED: ", r"===BUG DETECTED: (.*?)===", _bug_detected),
    ("exceeded: ", r"=========\s(.{1,64}?) (?:limit )?exceeded: \d", _centipede),
    ("panicked at ", r"thread '([^']{0,200})' (?:\(\d{1,20}\) )?panicked at (.*)", _rust),
    ("has overflowed its stack", r"(thread '[^']{0,200}' (?:\(\d{1,20}\) )?has overflowed its stack)",
     _message("rust", "stack overflow", "Stack-overflow")),
    ("memory allocation of ", r"^(memory allocation of \d+ bytes failed)",
     _message("rust", "out of memory", "Out-of-memory")),
    ("runtime error: ", r"^(?=.{0,500}[Pp]anic).*?: (runtime error: .*)", _go),
    ("panic: ", r"^panic: (.*)", _go),
    ("goroutine stack exceeds", r"(goroutine stack exceeds.*)", _message("go", "stack overflow", "Stack overflow")),
    ("fatal error: ", r"^fatal error: (.*)", _message("go", "fatal error", "Fatal error")),
    ("Fatal error: ", r"^(?:\S+:\d+: )?Fatal error: (.*)", _message("swift", "fatal error", "Fatal error")),
    ("FATAL:", r"FATAL:([^\](:]{1,500})[(:](\d{1,9})\)?\] ?(.*)", _chromium),
    ("Fatal error in ", r"# Fatal error in (.*)", _v8),
    ("Runtime error in ", r"# Runtime error in (.*), line (\d{1,9})", _v8_runtime),
    ("abort: ", r"^abort: (.*)", _v8_abort),
    ("out of memory", r"^# (Fatal (?:process|JavaScript)\b.* out of memory.*)",
     _message("v8", "out of memory", "Out-of-memory")),
    ("sandbox violation", r"V8 sandbox violation detected", _v8_sandbox),
    ("CFI: ", r"^(CFI: Most likely a control flow integrity violation)", _message("chromium", "cfi", "Bad-cast")),
    ("FATAL ERROR: ", r"^FATAL ERROR: (.*)", _message("node", "fatal error", "Fatal error")),
    ("ASSERTION FAILED: ", r"ASSERTION FAILED: (.*)", _webkit),
    ("] ", r"^F\d{4,8} \d\d:\d\d:\d\d\S*\s+\d+ ([^\s:]{1,500}):(\d{1,9})\] ?(.*)", _glog),
    ("terminate called", r"terminate called after throwing an instance of '([^']{1,2000})'", _terminate),
    ("terminate called", r"terminate called (without an active exception|recursively)",
     _message("terminate", "std::terminate", "Abrt")),
    ("exception of type ",
     r"libc\+\+abi\S*: terminat\w{1,10} (?:due to |with )uncaught exception of type ([^:]+(?:::[^:]+)*)(?:: (.*))?$",
     _libcxx),
    ("libc++abi", r"libc\+\+abi(?:\.dylib)?: (.*)", _message("terminate", "std::terminate", "Abrt")),
    ("ure virtual", r"([Pp]ure virtual (?:method|function) called.*)",
     _message("terminate", "pure virtual call", "Abrt")),
    ("stack smashing", r"\*\*\* (stack smashing detected) \*\*\*",
     _message("glibc", "stack smashing", "Stack-buffer-overflow")),
    ("buffer overflow detected", r"\*\*\* (buffer overflow detected) \*\*\*",
     _message("glibc", "buffer overflow", "Buffer-overflow")),
    ("*** Error in ", r"^\*\*\* Error in [`'][^']{0,1000}': ([^*]{1,200}?)(?:: 0x[0-9a-f]{1,16})? \*\*\*",
     _message("glibc", "heap corruption", "Heap-corruption")),
    ("(): ", r"^(?:\S+: )?((?:free|malloc|realloc|calloc|munmap_chunk|malloc_consolidate|mremap_chunk)\(\): .{3,100})$",
     _message("glibc", "heap corruption", "Heap-corruption")),
    ("corrupt", r"^(?:\S+: )?(double free or corruption.*|corrupted (?:size vs\. prev_size|double-linked list).*)$",
     _message("glibc", "heap corruption", "Heap-corruption")),
    ("glibc error", r"Fatal glibc error: (.*)", _message("glibc", "fatal error", "Fatal error")),
    (": Assertion ", r": Assertion [`'](.*)' failed", _assert),
    (": assertion ", r": assertion \"(.*)\" failed", _assert),
    ("Assertion failed: ", r"Assertion failed: (.*)", _assertion_failed),
    ("ssertion failed: ", r":ERROR:([^\s:'\"]{1,1000}):(\d{1,9}):([^:]{1,500}): assertion failed[^:]{0,64}: (.*)",
     _message("glib", "assertion", "ASSERT", value=4, file=1, line=2, function=3)),
    ("CRITICAL", r"CRITICAL.{0,16}: (\S{1,500}): assertion ['`](.*)' failed",
     _message("glib", "assertion", "ASSERT", value=2, function=1)),
    ("assertion ",
     _FILE + r":(\d{1,9}): ?(?:libc\+\+ Hardening )?assertion "
     r"(.{1,1000}? failed: .*?)(?:AddressSanitizer:DEADLYSIGNAL|$)",
     _message("libc++", "assertion", "ASSERT", value=3, file=1, line=2)),
    ("assert failure: ", r"(?:\] ([^\s:]{1,1000}):(\d{1,9})\] )?assert failure: (.*)",
     _message("assert", "assertion", "ASSERT", value=3, file=1, line=2)),
    ("panic: ", r"\] ([^\s:]{1,1000}):(\d{1,9})\] panic: (.*)",
     _message("assert", "panic", "ASSERT", value=3, file=1, line=2)),
    ("CHECK", _FILE + r":(\d{1,9})\s(CHECK(?:_[A-Z]{2})?\((?=.*\) failed).*)",
     _message("android", "CHECK", "CHECK failure", value=3, file=1, line=2)),
    ("error while loading", r"error while loading shared libraries: ([^:]+:.*)",
     _message("loader", "missing library", "Missing-library")),
    ("CANNOT LINK", r"(library \S.*)",
     _message("loader", "missing library", "Missing-library")),
    ("GPU process exited", r"(GPU process exited unexpectedly.*)", _message("chromium", "GPU process", "GPU failure")),
    ("V8 correctness failure", r"V8 correctness failure", _v8_correctness),
)  # fmt: skip
