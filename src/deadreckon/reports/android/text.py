"""Tombstones as text, in files and in the output of logcat, and backtraces that a log has without one.

Sources: AOSP ``debuggerd/libdebuggerd/tombstone_proto_to_text.cpp`` and, for what is not in it any more, earlier
versions of ``tombstone.cpp``; NDK's ``ndk-stack``. Lines that say nothing we know are passed over: other processes
write into the same log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.android.dump import Dump, SanitizerError, Stack, ThreadDump
from deadreckon.reports.android.lines import (
    is_separator,
    parse_frame,
    parse_mapping,
    parse_memory,
    parse_registers,
    parse_sanitizer_frame,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.config import ReportLimits
    from deadreckon.reports.android.dump import BacktraceFrame

__all__ = ["read_text"]

_MAX_DUMPS = 256
_MAX_FRAMES = 200_000
_MAX_MESSAGE = 65_536
_MAX_STACKS = 64
_MAX_PIECES = 4096

_THREAD = re.compile(r"\s*pid: (\d{1,10}), tid: (\d{1,10})(?:, name: (.*?))?\s+>>> (.*?) <<<\s*")
_SIGNAL = re.compile(
    r"\s*signal (\d{1,3}) \((\w{1,32})\)"
    r"(?:, code (-?\d{1,10})(?: \((\w{1,64}|\?)(?: (from pid \d{1,10}, uid \d{1,10}))?\))?)?"
    r"(?:, fault addr (?:0x)?([0-9a-f]{1,16}|-+)(?: \((read|write|execute)\))?.*)?"
)
_FIELD = re.compile(r"\s*(Build fingerprint|Revision|ABI|Timestamp|Process uptime|Cmdline|uid|Cause|Page size): ?(.*)")
_ABORT = re.compile(r"\s*Abort message: (.*)")
_LOG = re.compile(r"--------- (?:tail end of )?log \w+")
_CAPTION = re.compile(r"\s*((?:de)?allocated by thread \d{1,10}).*:")
_ERROR = re.compile(r"==\d{1,10}==\s*ERROR: (\w{1,64}): ([\w-]{1,64})\b(.*)")
_ADDRESS = re.compile(r"address 0x([0-9a-f]{1,16})")


def read_text(lines: Sequence[str], limits: ReportLimits) -> list[Dump]:
    """Return what a text's lines tell of crashes; of one that is told twice, what says more."""
    reading = _Reading(limits)
    for line in lines:
        reading.line(line)
    kept: dict[object, Dump] = {}
    for number, dump in enumerate(reading.found):
        if not (dump.threads or dump.signal or dump.stacks) or (dump.pid is None and number in reading.doubtful):
            continue
        key = number if dump.pid is None else (dump.pid, dump.tid, dump.signal, dump.timestamp)
        if key not in kept or _size(dump) > _size(kept[key]):
            kept[key] = dump
    for dump in kept.values():
        _conclude(dump)
    if reading.lost and kept:
        message = f"more than {_MAX_DUMPS} crashes, {_MAX_FRAMES} frames or {limits.max_threads} threads were not read"
        next(iter(kept.values())).diagnostics.append(
            Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message)
        )
    return list(kept.values())


def _size(dump: Dump) -> int:
    return sum(len(t.frames) for t in dump.threads) + len(dump.mappings)


def _conclude(dump: Dump) -> None:
    """Take the process's name without arguments; infer the architecture from the registers where no line names it."""
    if dump.command_line and dump.process_name == " ".join(dump.command_line):
        dump.process_name = dump.command_line[0]
    if dump.arch is Arch.UNKNOWN:
        names = {name for thread in dump.threads for name in thread.registers}
        for arch, mark in ((Arch.ARM64, "x0"), (Arch.X86_64, "rax"), (Arch.X86, "eax"), (Arch.ARM, "r0")):
            if mark in names:
                dump.arch = arch
                return


class _Reading:
    """The state while a text's lines go by: which crash, thread and stack the next frame belongs to."""

    def __init__(self, limits: ReportLimits) -> None:
        self.found: list[Dump] = []
        self.doubtful: set[int] = set()
        """Which were found among the last lines of a log: without a process they may be any crash's, or this one's."""
        self.lost = False
        self._limits = limits
        self._frames_left = _MAX_FRAMES
        self._dump: Dump | None = None
        self._thread: ThreadDump | None = None
        self._target: list[BacktraceFrame] | None = None
        """Where frames go; None where the next one begins the stack of the thread."""
        self._number = -1
        self._caption = ""
        self._separated = False
        self._message: list[str] | None = None
        self._in_log = False
        self._in_memory = False

    def line(self, line: str) -> None:
        """Take the next line."""
        text = line.strip()
        if text.startswith("*** ") and is_separator(text, "*"):
            self._begin()
        elif text.startswith("--- ") and is_separator(text, "-"):
            self._separated, self._message = True, None
        elif self._in_log or not text:
            if not text:
                self._target, self._caption = None if self._message is None else self._target, ""
                self._in_memory = False
        elif text.startswith("--------- ") and _LOG.match(text):
            # The last lines of the log may tell of other crashes, or of this one again.
            self._in_log = self._dump is not None and self._dump.pid is not None
        elif not self._content(line, text):
            if self._message is not None and len(self._message) < 1000:
                self._message.append(line)
            self._caption = text[:200]

    def _content(self, line: str, text: str) -> bool:
        """Take a line that says something of a crash; False for any other."""
        if "#" in text and (numbered := parse_frame(line)) is not None:
            self._end_message()
            self._frame(*numbered)
        elif text[0] == "#" and (numbered := parse_sanitizer_frame(line)) is not None and self._dump is not None:
            if self._message is not None:
                self._message.append(line)
            self._sanitizer_frame(*numbered)
        elif text.startswith("pid: ") and (match := _THREAD.fullmatch(line)):
            self._process(match)
        elif self._dump is None and not text.startswith(("Build fingerprint:", "signal ", "Revision:", "ABI:")):
            return False
        elif text.startswith("signal ") and (match := _SIGNAL.fullmatch(line)):
            self._signal(match)
        elif match := _ABORT.fullmatch(line):
            self._end_message()
            self._message = [match[1]]
            if (len(match[1]) > 1 and match[1].endswith("'")) or not match[1].startswith("'"):
                self._end_message()
        elif match := _FIELD.fullmatch(line):
            self._field(match[1], match[2].strip())
        elif text == "backtrace:":
            self._end_message()
            self._target = None
        elif registers := parse_registers(line):
            self._end_message()
            if self._thread is not None and not self._thread.frames:
                self._thread.registers |= registers
        elif self._in_memory and (piece := parse_memory(line)) is not None and self._dump is not None:
            self._row(self._dump, *piece)
        elif text.startswith("memory near "):
            self._end_message()
            self._in_memory = True
        elif match := _CAPTION.fullmatch(line):
            self._end_message()
            self._stack(match[1])
        elif "-" in text[:24] and (mapping := parse_mapping(line)) is not None and self._dump is not None:
            if len(self._dump.mappings) < self._limits.max_regions:
                self._dump.mappings.append(mapping)
        elif self._message is not None and text.endswith("'"):
            self._message.append(line)
            self._end_message()
        else:
            if self._message is not None and self._dump is not None and self._dump.error is None:
                self._error(text)
            return False
        return True

    # -- crashes and threads ------------------------------------------------------------------------------------------

    def _begin(self) -> Dump:
        self._end_message()
        if self._in_log:
            self.doubtful.add(len(self.found))
        self._dump, self._thread, self._target = Dump(), None, None
        self._separated = self._in_log = False
        if len(self.found) < _MAX_DUMPS:
            self.found.append(self._dump)
        else:
            self.lost = True
        return self._dump

    def _process(self, match: re.Match[str]) -> None:
        pid, tid = int(match[1]), int(match[2])
        self._end_message()
        dump = self._dump
        if dump is None or (dump.pid is not None and not (self._separated and dump.pid == pid)):
            dump = self._begin()
        if dump.pid is None:
            dump.pid, dump.tid, dump.process_name = pid, tid, match[4]
        self._separated = False
        self._new_thread(dump, tid, match[3])

    def _new_thread(self, dump: Dump, tid: int, name: str | None) -> ThreadDump:
        self._thread, self._target = ThreadDump(tid, name), None
        if len(dump.threads) < self._limits.max_threads:
            dump.threads.append(self._thread)
        else:
            self.lost = True
        return self._thread

    def _signal(self, match: re.Match[str]) -> None:
        dump = self._dump or self._begin()
        if dump.signal is not None:
            return
        dump.signal_number, dump.signal, dump.sender = int(match[1]), match[2], match[5]
        dump.code = match[4] if match[4] not in {None, "?"} else f"code {match[3]}" if match[3] else None
        if match[6] and match[6][0] != "-":
            dump.fault_address, dump.access = int(match[6], 16), match[7]

    def _field(self, name: str, value: str) -> None:
        dump = self._dump
        if dump is None or (name == "Build fingerprint" and dump.build_fingerprint is not None):
            dump = self._begin()
        value = value.strip("'")
        if name == "Build fingerprint":
            dump.build_fingerprint = value
        elif name == "Revision":
            dump.revision = value
        elif name == "ABI":
            dump.arch = Arch.parse(value)
        elif name == "Timestamp":
            dump.timestamp = value
        elif name == "Cmdline":
            dump.command_line = dump.command_line or value.split(" ")
        elif name == "Cause":
            dump.causes.append(value)
        elif number := re.match(r"\d{1,10}", value):
            if name == "Process uptime":
                dump.process_uptime = int(number[0])
            elif name == "Page size":
                dump.page_size = int(number[0])
            elif dump.uid is None:
                dump.uid = int(number[0])

    def _row(self, dump: Dump, address: int, data: bytes) -> None:
        if dump.memory and dump.memory[-1][0] + len(dump.memory[-1][1]) == address:
            before = dump.memory[-1][1]
            assert isinstance(before, bytearray)
            before += data
        elif len(dump.memory) < _MAX_PIECES:
            dump.memory.append((address, bytearray(data)))

    def _end_message(self) -> None:
        if self._message is None:
            return
        text = "\n".join(self._message).strip()[:_MAX_MESSAGE]
        self._message = None
        if self._dump is not None and self._dump.abort_message is None:
            self._error(text.partition("\n")[0])
            self._dump.abort_message = text.removeprefix("'").removesuffix("'")

    def _error(self, text: str) -> None:
        match = _ERROR.search(text)
        if match is None or self._dump is None or self._dump.error is not None:
            return
        address = _ADDRESS.search(match[3])
        value = f"{match[2]}{match[3]}"[:1000]
        self._dump.error = SanitizerError(match[1], match[2], value, int(address[1], 16) if address else None)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, number: int, frame: BacktraceFrame) -> None:
        dump = self._dump or self._begin()
        if self._target is not None and number <= self._number:
            self._target = None
        if self._target is None:
            self._target = self._next_stack(dump, number)
        self._append(number, frame)

    def _next_stack(self, dump: Dump, number: int) -> list[BacktraceFrame]:
        """Return where the frames of a stack that begins here go."""
        if self._thread is None:
            return self._new_thread(dump, dump.tid or 0, None).frames
        if not self._thread.frames or number > self._number:
            return self._thread.frames
        if dump.pid is None:  # A log with nothing but frames: each stack is a crash, for all it says.
            dump = self._begin()
            return self._new_thread(dump, 0, None).frames
        return self._stack(self._caption)

    def _stack(self, caption: str) -> list[BacktraceFrame]:
        stack = Stack(caption)
        self._target, self._number = stack.frames, -1
        if self._dump is not None and len(self._dump.stacks) < _MAX_STACKS:
            self._dump.stacks.append(stack)
        else:
            self.lost = True
        return stack.frames

    def _sanitizer_frame(self, number: int, frame: BacktraceFrame) -> None:
        assert self._dump is not None
        if self._message is not None and self._dump.error is None:
            self._error(self._message[0])
        error = self._dump.error
        if self._target is None or number <= self._number:
            self._target = error.frames if error and not error.frames else self._stack(self._caption)
        self._append(number, frame)

    def _append(self, number: int, frame: BacktraceFrame) -> None:
        self._number = number
        if self._frames_left > 0 and self._target is not None:
            self._target.append(frame)
            self._frames_left -= 1
        else:
            self.lost = True
