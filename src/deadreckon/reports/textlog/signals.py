"""Signals: what signal handlers, debuggers, fuzzers and shells say of how a process ended.

Sources: Chromium ``stack_trace_posix.cc``, glog ``signalhandler.cc``, Abseil ``failure_signal_handler.cc``, Folly
``SignalHandler.cpp``, bionic ``debuggerd_handler.cpp``, libFuzzer ``FuzzerLoop.cpp``, the shells' ``strsignal`` texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.textlog.findings import Finding, Kind, decimal, hexadecimal, signal_name

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from deadreckon.reports.textlog.findings import Row

__all__ = ["ROWS"]

_SIGNAL_NUMBERS = {
    "4": "SIGILL", "5": "SIGTRAP", "6": "SIGABRT", "7": "SIGBUS", "8": "SIGFPE", "10": "SIGBUS", "11": "SIGSEGV",
    "15": "SIGTERM", "31": "SIGSYS",
}  # fmt: skip
_SHELL = {
    "Aborted": "SIGABRT", "Abort": "SIGABRT", "Segmentation fault": "SIGSEGV", "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL", "Floating point exception": "SIGFPE", "Trace/breakpoint trap": "SIGTRAP",
    "Bad system call": "SIGSYS",
}  # fmt: skip


def _received(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    """``Received signal 11 SEGV_MAPERR 7f6b0c580000`` of Chromium and V8."""
    signal = _SIGNAL_NUMBERS.get(match[1], f"signal {match[1]}")
    address = hexadecimal(match[3]) if signal in {"SIGSEGV", "SIGBUS", "SIGILL"} else None
    value = match[2] if match[2] and match[2] != "<unknown>" else ""
    return Finding(Kind.SIGNAL, "signal", signal, value, signal_name(signal, address), address=address)


def _named_signal(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    groups = match.groupdict()
    signal = groups["name"]
    address = hexadecimal(groups.get("address")) if signal in {"SIGSEGV", "SIGBUS"} else None
    said = (groups.get("said") or "").strip(" .,")
    name = signal_name(signal, address)
    return Finding(Kind.SIGNAL, "signal", signal, said, name, address=address, pid=decimal(groups.get("pid")))


def _gdb_signal(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    found = _named_signal(match, lines, at)
    found.mechanism = "gdb"
    return found


def _shell(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    signal = _SHELL[match[1]]
    return Finding(Kind.SIGNAL, "signal", signal, "", signal_name(signal, None))


_LIBFUZZER = (
    ("deadly signal", "Fatal-signal"),
    ("timeout", "Timeout"),
    ("out-of-memory", "Out-of-memory"),
    ("fuzz target exited", "Unexpected-exit"),
    ("fuzz target overwrites its const input", "Overwrites-const-input"),
)


def _libfuzzer(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    said = match[2].strip()
    kind, name = next(((k, n) for k, n in _LIBFUZZER if said.startswith(k)), (said, said))
    return Finding(Kind.SIGNAL, "libfuzzer", kind, said if said != kind else "", name, pid=decimal(match[1]))


ROWS: tuple[Row, ...] = (
    ("libFuzzer: ", r"(?:==(\d{1,10})==\s?)?ERROR: libFuzzer: (.+)", _libfuzzer),
    ("Received signal ", r"Received signal (\d{1,3})(?: (\S+))?(?: ([0-9a-f]{4,16})\b)?", _received),
    ("signal SIG", r"(?:received|terminated with) signal (?P<name>SIG[A-Z0-9]+)(?P<said>, .*)?", _gdb_signal),
    ("Fatal signal ",
     r"Fatal signal \d+ \((?P<name>SIG[A-Z]+)\)(?P<said>.*?)(?:fault addr (?P<address>0x[0-9a-f]{1,16}).*)?$",
     _named_signal),
    ("*** SIG",
     r"\*\*\* (?P<name>SIG[A-Z]+) (?:\(@(?P<address>0x[0-9a-f]{1,16})\) )?received (?:by PID (?P<pid>\d{1,10})|at t)",
     _named_signal),
    ("*** Signal ", r"\*\*\* Signal \d+ \((?P<name>SIG[A-Z]+)\) \((?P<address>0x[0-9a-f]{1,16})\)", _named_signal),
    *((name, rf"^(?:\S.{{0,400}}: )?(?:line \d+: +\d+ )?({name})(?:\s+\(core dumped\)|: \d+| *$)", _shell)
      for name in _SHELL),
)  # fmt: skip
