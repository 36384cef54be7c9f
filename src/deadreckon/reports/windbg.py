"""WinDbg's and cdb's console output: the exception, ``!analyze -v`` and the stack of ``k``, with the module list.

Source: Microsoft, "Debugging Tools for Windows", commands ``!analyze``, ``k``, ``.exr`` and ``lm``. A line of a stack
shows the address it returns to, which is in the caller: that is the next line's address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import Module, RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.reports.textlog.lines import MAX_FRAMES, read_lines, too_deep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.config import ReportLimits

__all__ = ["read"]


_EVENT = re.compile(
    r"^\(([0-9a-f]{1,8})\.([0-9a-f]{1,8})\): (.+?) - code ([0-9a-f]{8}) \((?:first|!!! second) chance(?: !!!)?\)"
)
_ADDRESS = re.compile(r"ExceptionAddress: ([0-9a-f`]{8,17})")
_CODE = re.compile(r"ExceptionCode: ([0-9a-f]{8})(?: \((.*)\))?")
_ATTEMPT = re.compile(r"Attempt to (read from|write to|execute non-executable) address ([0-9a-f`]{8,17})")
_PROCESS = re.compile(r"PROCESS_NAME: +(\S.*)")
_MODULE = re.compile(r"ModLoad: ([0-9a-f`]{8,17}) ([0-9a-f`]{8,17}) +(\S.*)")
_HEADS = re.compile(r"STACK_TEXT:|(?: # )?\s*(?:Child-SP +RetAddr|ChildEBP +RetAddr)")
_ROW = re.compile(
    r"(?:[0-9a-f]{2,4} )?[0-9a-f`]{8,17} ([0-9a-f`]{8,17})"
    r"(?: :(?: [0-9a-f`]{8,17}){4} :|(?: [0-9a-f]{8}){0,3}| :)? +(\S.*)"
)
_INLINE = re.compile(r"(?:[0-9a-f]{2,4} )?\(Inline(?: Function)?\) -{8}(?:`-{8})? +(?:: -{8}.*: )?(\S.*)")
_SITE = re.compile(r"(?:([^\s!]+)!)?(.+?)(?:\+0x[0-9a-f]{1,16})?")
_SOURCE = re.compile(r" \[(.+) @ (\d{1,9})\]")
_NAMES = {
    0xC0000005: "EXCEPTION_ACCESS_VIOLATION", 0xC00000FD: "EXCEPTION_STACK_OVERFLOW",
    0x80000003: "EXCEPTION_BREAKPOINT", 0xC0000094: "EXCEPTION_INT_DIVIDE_BY_ZERO",
    0xC0000095: "EXCEPTION_INT_OVERFLOW", 0xC000001D: "EXCEPTION_ILLEGAL_INSTRUCTION",
    0xC0000374: "STATUS_HEAP_CORRUPTION", 0xC0000409: "STATUS_STACK_BUFFER_OVERRUN",
    0x80000001: "EXCEPTION_GUARD_PAGE",
    0xC0000006: "EXCEPTION_IN_PAGE_ERROR", 0xE06D7363: "C++ exception",
}  # fmt: skip
_CRASH_TYPES = {
    0xC00000FD: "Stack-overflow", 0xC0000094: "Divide-by-zero", 0xC0000095: "Integer-overflow",
    0xC0000374: "Heap-corruption", 0xC0000409: "Stack-buffer-overflow", 0xC000001D: "Ill", 0x80000003: "Breakpoint",
}  # fmt: skip
_HARMLESS = frozenset({0x80000003, 0xE06D7363, 0x4000001F, 0x406D1388})
"""Breakpoints of the debugger itself, C++ exceptions that may be caught, thread names."""


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a debugger's log. Raises Malformed where it shows neither an exception nor a stack."""
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "WinDbg log")
    lines, problems = read_lines(data)
    crash = RawCrash("windbg", os_name="Windows", level="fatal", diagnostics=problems)
    thread = _exception(crash, lines)
    crash.modules = _modules(lines, limits)
    frames, lost = _stack(lines)
    crash.diagnostics += too_deep(lost)
    if frames:
        crash.threads.append(RawThread(thread, crashed=bool(crash.exceptions), frames=frames))
        for exception in crash.exceptions:
            exception.thread_id = thread
    if not crash.exceptions and not frames:
        raise Malformed("WinDbg log", expected="an exception or a stack", got=f"{len(lines)} lines with neither")
    return crash


def _exception(crash: RawCrash, lines: Sequence[str]) -> int:
    """Find the exception that was analysed, else the last one that was no notification; return the thread's id."""
    thread = code = address = None
    said = ""
    record: int | None = None
    for line in lines:
        if match := _EVENT.match(line):
            number = int(match[4], 16)
            if code is None or code in _HARMLESS or number not in _HARMLESS:
                crash.pid, thread, said, code = int(match[1], 16), int(match[2], 16), match[3], number
        elif match := _CODE.search(line):
            record = int(match[1], 16)
            said = match[2] or said
        elif match := _ADDRESS.search(line):
            crash.attributes["exception_address"] = hex(_number(match[1]))
        elif match := _ATTEMPT.search(line):
            address = _number(match[2])
            crash.attributes["access"] = {"read from": "READ", "write to": "WRITE"}.get(match[1], "EXECUTE")
        elif match := _PROCESS.match(line):
            crash.process_name = match[1]
    code = record if record is not None else code
    if code is not None:
        access = crash.attributes.get("access", "")
        where = "" if address is None else f" at {address:#x}"
        value = f"{access}{where}" if access else said
        exception = RawException(_NAMES.get(code, f"{code:#010x}"), value, code, address, "windbg")
        exception.access = access.lower() or None
        crash.exceptions.append(exception)
        crash.attributes["crash_type"] = _CRASH_TYPES.get(code, access or said)
    return thread or 0


def _modules(lines: Sequence[str], limits: ReportLimits) -> list[Module]:
    found: dict[int, Module] = {}
    end = 0
    rows = [(_number(m[1]), _number(m[2]), m[3]) for line in lines if (m := _MODULE.match(line))]
    for start, stop, name in sorted(rows)[: limits.max_modules]:
        if start >= end and stop > start:
            found[start] = Module(start, stop - start, code_file=name.strip())
            end = stop
    return list(found.values())


def _stack(lines: Sequence[str]) -> tuple[list[RawFrame], int]:
    """Read the first stack that is shown; return its frames, and how many more there are than are kept."""
    for at, line in enumerate(lines):
        if _HEADS.match(line):
            frames, lost = _rows(lines, at + 1)
            if frames:
                return frames, lost
    return [], 0


def _rows(lines: Sequence[str], at: int) -> tuple[list[RawFrame], int]:
    frames: list[RawFrame] = []
    address: int | None = None
    lost = 0
    for number in range(at, len(lines)):
        line = lines[number]
        if len(frames) == MAX_FRAMES:
            if not (_INLINE.match(line) or _ROW.fullmatch(line)):
                break
            lost += 1
            continue
        if match := _INLINE.match(line):
            frames.append(RawFrame(None, reported=_reported(match[1], inline=True)))
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            if line.startswith("WARNING: "):  # "Stack unwind information not available."
                continue
            break
        # The innermost frame's own address is the exception's, which the stack doesn't show.
        frames.append(RawFrame(address, is_return_address=address is not None, reported=_reported(match[2])))
        address = _number(match[1]) or None
    return frames, lost


def _reported(site: str, *, inline: bool = False) -> Frame:
    site = site.strip()
    at = site.rfind(" [")
    source = _SOURCE.fullmatch(site, at) if at > 0 else None
    match = _SITE.fullmatch(site, 0, at if source else len(site))
    if match is None or site.startswith("0x"):
        return Frame(status="missing_symbol")
    path = source[1] if source else None
    return Frame(
        status="symbolicated",
        package=match[1],
        function=match[2],
        filename=path.replace("\\", "/").rsplit("/", 1)[-1] if path else None,
        abs_path=path,
        lineno=int(source[2]) or None if source else None,
        inline=inline,
    )


def _number(text: str) -> int:
    return int(text.replace("`", ""), 16) & ((1 << 64) - 1)
