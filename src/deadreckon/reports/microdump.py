"""Breakpad's microdumps: the crash of an Android process (Chrome, WebView) as lines of hex in a log.

::

    F/google-breakpad(23467): -----BEGIN BREAKPAD MICRODUMP-----
    V product:version
    O system cpu processors machine version...
    P process type
    R signal its-name address
    G GPU's version|vendor|renderer
    S 0 stack-pointer start size         the stack's memory, then its content in pieces:
    S address content
    C the registers, as a minidump's context of the CPU
    M start offset size debug-id name    a module; offset: in its file, an APK perhaps
    -----END BREAKPAD MICRODUMP-----

Source: Breakpad, ``client/linux/microdump_writer/microdump_writer.cc``. One log may have the lines of several processes
mixed: the process's number in each line tells them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch, DebugId
from deadreckon.reports.minidump.contexts import read_contexts
from deadreckon.reports.reasons.linux import signal_name

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["read"]

_LINE = re.compile(rb"google-breakpad(?:\( *(\d{1,10})\))? *: ([^\r\n]*)")
_BEFORE = re.compile(rb"(?:^|\s)(\d{1,10}) +\d{1,10} +[VDIWEFA] +$")
"""Of ``logcat -v threadtime``: process and thread stand before the tag."""
_BEFORE_BYTES = 64
_BEGIN, _END = b"-----BEGIN BREAKPAD MICRODUMP-----", b"-----END BREAKPAD MICRODUMP-----"
_MODULE = re.compile(rb"([0-9A-F]{8,16}) ([0-9A-F]{8,16}) ([0-9A-F]{8,16}) ([0-9A-F]{33,40}) +(.+)", re.IGNORECASE)
_STACK = re.compile(rb"([0-9A-F]{8,16}) ((?:[0-9A-F]{2})+)", re.IGNORECASE)
_REASON = re.compile(rb"([0-9A-F]{1,8}) (\S+)(?: ([0-9A-F]{1,16}))?", re.IGNORECASE)
_SYSTEMS = {"A": "Android", "L": "Linux"}
_MOST_BYTES = 256 << 20
_MOST_CRASHES = 256
_FIRST = 16
"""Where the registers lie in a crash's buffer: a context at 0 would be none."""


@dataclass(slots=True)
class _Dump:
    """The lines of one microdump."""

    offset: int
    pid: int | None
    ended: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    stack: list[tuple[int, bytes]] = field(default_factory=list)
    context: bytes = b""
    modules: list[Module] = field(default_factory=list)
    reason: RawException | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)


def read(data: memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read all microdumps of a log. Raises Malformed where none begins, LimitExceeded."""
    if len(data) > min(limits.max_bytes, _MOST_BYTES):
        raise LimitExceeded("max_bytes", min(limits.max_bytes, _MOST_BYTES), len(data), "microdump")
    dumps: list[_Dump] = []
    running: dict[int | None, _Dump] = {}
    for line in _LINE.finditer(data):
        said = line[2].rstrip()
        pid = _pid(data, line)
        if said == _BEGIN:
            if len(dumps) == _MOST_CRASHES:
                break
            running[pid] = dump = _Dump(line.start(), pid)
            dumps.append(dump)
        elif (found := running.get(pid)) is None:
            continue
        elif said == _END:
            found.ended = True
            del running[pid]
        else:
            _take(found, said, line.start(), limits)
    if not dumps:
        raise Malformed("microdump", offset=0, expected=_BEGIN.decode())
    return [_crash(dump) for dump in dumps]


def _pid(data: memoryview, line: re.Match[bytes]) -> int | None:
    if line[1] is not None:
        return int(line[1])
    start = line.start()
    before = _BEFORE.search(bytes(data[max(0, start - _BEFORE_BYTES) : start]))
    return int(before[1]) if before is not None else None


def _take(dump: _Dump, said: bytes, offset: int, limits: ReportLimits) -> None:
    """Take what one line says."""
    kind, rest = said[:2], said[2:]
    if kind == b"S ":
        if rest.startswith(b"0 "):
            return  # Where the stack is: each piece says that, too.
        match = _STACK.fullmatch(rest)
        if match is not None:
            dump.stack.append((int(match[1], 16), bytes.fromhex(match[2].decode())))
            return
    elif kind == b"C ":
        digits = re.match(rb"(?:[0-9A-Fa-f]{2})*", rest)
        assert digits is not None
        dump.context = bytes.fromhex(digits[0].decode())
        if digits.end() == len(rest):
            return
    elif kind == b"M ":
        if (module := _module(rest, limits)) is not None:
            if len(dump.modules) < limits.max_modules:
                dump.modules.append(module)
            return
    elif kind == b"R ":
        if (match := _REASON.fullmatch(rest)) is not None:
            number, name = int(match[1], 16), match[2].decode("utf-8", "replace")
            address = int(match[3], 16) if match[3] is not None else None
            known = name if name.startswith("SIG") else signal_name(number)
            dump.reason = RawException(known, "", number, address)
            return
    else:
        text = rest.decode("utf-8", "replace").strip()
        if kind in {b"V ", b"O ", b"P ", b"G "} and text:
            dump.facts.setdefault(chr(kind[0]), text[: limits.max_string_bytes])
        return  # Others are of the heap, and of writers to come.
    message = f"microdump at {offset}: {said[:1].decode()} line: expected hex, got {rest[:40]!r}"
    dump.diagnostics.append(
        Diagnostic(code="malformed", severity="warning", stage="read", message=message, where={"offset": offset})
    )


def _module(rest: bytes, limits: ReportLimits) -> Module | None:
    match = _MODULE.fullmatch(rest)
    if match is None:
        return None
    start, offset, size = (int(match[i], 16) for i in (1, 2, 3))
    name = match[5].decode("utf-8", "replace")[: limits.max_string_bytes]
    try:
        debug_id = str(DebugId.parse(match[4].decode()))
    except ValueError:  # Of zeros: the module has no build id.
        debug_id = None
    return Module(start, size, name, debug_file=name, debug_id=debug_id, file_offset=offset)


def _crash(dump: _Dump) -> RawCrash:
    system, cpu, processors, machine, version = (dump.facts.get("O", "").split(" ", 4) + [""] * 5)[:5]
    crash = RawCrash("microdump", level="fatal", diagnostics=dump.diagnostics[:100], pid=dump.pid)
    crash.os_name, crash.os_version = _SYSTEMS.get(system), version or None
    crash.arch = Arch.parse(cpu)
    pieces, at = [b"\0" * _FIRST, dump.context], _FIRST + len(dump.context)
    ranges = []
    for address, content in dump.stack:
        ranges.append((address, len(content), at))
        pieces.append(content)
        at += len(content)
    buffer = np.frombuffer(b"".join(pieces), np.uint8)
    crash.memory = MemoryMap.from_ranges(ranges, buffer)
    (registers,) = read_contexts(buffer, [(len(dump.context), _FIRST)], crash.arch)
    if registers is not None:
        crash.arch = registers.arch
    else:
        _note(crash, dump, "malformed", f"no registers of a CPU that is unwound; the CPU is {cpu[:40] or 'not told'}")
    if not dump.ended:
        _note(crash, dump, "truncated", "the microdump has no end")
    for module in dump.modules:
        module.arch = crash.arch
    crash.modules = dump.modules
    thread = RawThread(dump.pid or 0, crashed=True, registers=registers)
    crash.threads.append(thread)
    if dump.reason is not None:
        dump.reason.thread_id = thread.id
        crash.exceptions.append(dump.reason)
    crash.release = dump.facts.get("V")
    told = {"process_type": dump.facts.get("P"), "gpu": dump.facts.get("G"), "machine": machine}
    crash.attributes = {name: text for name, text in told.items() if text}
    if processors.isalnum() and len(processors) == 2:
        try:
            crash.attributes["cpu_count"] = int(processors, 16)
        except ValueError:
            pass
    return crash


def _note(crash: RawCrash, dump: _Dump, code: str, message: str) -> None:
    where: dict[str, str | int] = {"offset": dump.offset}
    crash.diagnostics.append(
        Diagnostic(code=code, severity="warning", stage="read", message=f"microdump: {message}", where=where)
    )
