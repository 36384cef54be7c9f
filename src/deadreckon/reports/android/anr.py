"""Thread dumps of an application that did not respond (ANR): ``/data/anr/traces.txt`` and the like.

Sources: ART ``runtime/thread.cc`` (``Thread::Dump``), ``thread_list.cc``; AOSP ``debuggerd`` for the waiting channels
and for dumps of processes without ART. A file holds a section for each process::

    ----- pid 28941 at 2023-04-04 22:06:31.064728684+0200 -----
    Cmd line: com.example.app
    DALVIK THREADS (28):
    "main" prio=5 tid=1 Blocked
      | sysTid=28941 nice=-10
      native: #00 pc 00000000000a20f4  /apex/.../libc.so (read+4) (BuildId: 01331f74b0bb2cb958bdc15282b8ec7b)
      at com.example.Main.run(Main.java:177)
      - waiting to lock <0x0d3a2f0a> (a java.lang.Object) held by thread 5
    ----- end 28941 -----

The main thread is the one that does not respond. Nothing has crashed, and frames of native code have no addresses but
those in their files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.android.dump import platform_of, raw_frame, unix_time
from deadreckon.reports.android.images import Images
from deadreckon.reports.android.lines import parse_frame
from deadreckon.reports.java import parse_frame as parse_java_frame
from deadreckon.reports.textlog.lines import read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from deadreckon.config import ReportLimits
    from deadreckon.reports.android.dump import BacktraceFrame

__all__ = ["read"]

_MAX_PROCESSES = 256
_MAX_FRAMES = 200_000

_BEGIN = re.compile(r"----- (?:pid|dumping pid:) (\d{1,10}) at (.*?)(?: -----)?")
_CHANNELS = re.compile(r"----- Waiting Channels: pid (\d{1,10}) at (.*?) -----")
_END = re.compile(r"----- end \d{1,10} -----")
_NAMED = re.compile(r"(Cmd ?line|ABI|Build fingerprint): ?(.*)")
_SUBJECT = re.compile(r"Subject: (.*)")
_THREAD = re.compile(
    r'"(.*)"(?: daemon)?(?: prio=-?\d{1,6})?(?: tid=(\d{1,10}))?(?: sysTid=(\d{1,10}))?(?: ([A-Za-z]\w*)(?: .*)?)?'
)
_SYSTEM_ID = re.compile(r"\bsysTid=(\d{1,10})\b")
_CHANNEL = re.compile(r"sysTid=(\d{1,10})\s+(?:state=(\S)\s+)?(\S+)")
_LOCK = re.compile(
    r"- (?:waiting to lock|waiting on|sleeping on) (?:an unknown object|<0x[0-9a-f]{1,16}> \([^)]*\))"
    r"(?: held by thread \d{1,10})?"
)


@dataclass(slots=True)
class _Thread:
    """A thread: ``number`` is ART's, ``system_id`` the kernel's."""

    name: str
    number: int | None = None
    system_id: int | None = None
    state: str | None = None
    frames: list[RawFrame | BacktraceFrame] = field(default_factory=list)
    waits: str | None = None


@dataclass(slots=True)
class _Process:
    """A section of the file, or several of one process."""

    pid: int
    time: str
    name: str | None = None
    arch: Arch = Arch.UNKNOWN
    fingerprint: str | None = None
    threads: list[_Thread] = field(default_factory=list)
    channels: dict[int, str] = field(default_factory=dict)

    def main(self) -> _Thread | None:
        """Return the main thread: ART numbers it 1, the kernel as the process."""
        numbered = [t for t in self.threads if t.number == 1]
        return next(iter([*numbered, *(t for t in self.threads if t.system_id == self.pid)]), None)


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> list[RawCrash]:
    """Read a file of thread dumps: a crash for each process. Raises Malformed where no line begins a dump.

    Raises LimitExceeded beyond ``max_bytes``; more threads and frames than the limits allow cost themselves.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "thread dump")
    lines, problems = read_lines(data)
    reading = _Reading(limits)
    for line in lines:
        reading.line(line)
    processes = [p for p in reading.found if p.threads or p.channels]
    if not processes:
        raise Malformed("thread dump", expected="a thread", got=f"{len(lines)} lines without one")
    if reading.lost:
        message = f"more than {limits.max_threads} threads, {_MAX_FRAMES} frames or {_MAX_PROCESSES} processes"
        problems.append(Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message))
    crashes = [_crash(p, reading.subject if not n else None, limits) for n, p in enumerate(processes)]
    crashes[0].diagnostics[:0] = problems
    return crashes


class _Reading:
    """The state while the lines go by."""

    def __init__(self, limits: ReportLimits) -> None:
        self.found: list[_Process] = []
        self.subject: str | None = None
        self.lost = False
        self._limits = limits
        self._left = _MAX_FRAMES
        self._by_pid: dict[int, _Process] = {}
        self._process: _Process | None = None
        self._thread: _Thread | None = None
        self._channels = False

    def line(self, line: str) -> None:
        """Take the next line."""
        if line.startswith("-----"):
            self._section(line)
        elif line.startswith('"'):
            self._begin_thread(line)
        elif line.startswith("sysTid=") and self._process is not None and self._channels:
            self._channel(self._process, line)
        elif self._thread is not None and line[:1].isspace():
            self._detail(self._thread, line)
        elif match := _NAMED.fullmatch(line):
            if self._process is not None:
                _describe(self._process, match[1], match[2].strip())
        elif line.startswith("DALVIK THREADS"):
            self._process = self._process or self._enter(0, "")
        elif match := _SUBJECT.fullmatch(line):
            self.subject = self.subject or match[1][: self._limits.max_string_bytes]
        elif not line:
            self._thread = None

    def _section(self, line: str) -> None:
        self._thread = None
        if match := _BEGIN.fullmatch(line):
            self._process, self._channels = self._enter(int(match[1]), match[2]), False
        elif match := _CHANNELS.fullmatch(line):
            self._process, self._channels = self._enter(int(match[1]), match[2]), True
        elif _END.fullmatch(line):
            self._process, self._channels = None, False

    def _enter(self, pid: int, time: str) -> _Process:
        process = self._by_pid.get(pid)
        if process is not None and unix_time(process.time) is None:
            process.time = time  # "dumping pid" gives the time since boot.
        if process is None:
            process = self._by_pid[pid] = _Process(pid, time)
            if len(self.found) < _MAX_PROCESSES:
                self.found.append(process)
            else:
                self.lost = True
        return process

    def _begin_thread(self, line: str) -> None:
        match = _THREAD.fullmatch(line)
        if match is None:
            self._thread = None
            return
        process = self._process = self._process or self._enter(0, "")
        number, system_id = (int(text) if text else None for text in match.group(2, 3))
        self._thread = _Thread(match[1][:1000], number, system_id, match[4])
        if len(process.threads) < self._limits.max_threads:
            process.threads.append(self._thread)
        else:
            self.lost = True

    def _channel(self, process: _Process, line: str) -> None:
        match = _CHANNEL.fullmatch(line)
        if match is not None and len(process.channels) < self._limits.max_threads:
            process.channels[int(match[1])] = match[3][:256]

    def _detail(self, thread: _Thread, line: str) -> None:
        text = line.strip()
        if text.startswith("| "):
            if thread.system_id is None and (match := _SYSTEM_ID.search(text)):
                thread.system_id = int(match[1])
        elif text.startswith("- "):
            if thread.waits is None and _LOCK.fullmatch(text):
                thread.waits = text[2:1002]
        elif self._left <= 0:
            self.lost = True
        elif "#" in text and (numbered := parse_frame(line)) is not None:
            self._left -= 1
            thread.frames.append(numbered[1])
        elif text.startswith("at ") and (frame := parse_java_frame(line)) is not None:
            self._left -= 1
            thread.frames.append(RawFrame(None, reported=frame))


def _describe(process: _Process, name: str, value: str) -> None:
    if name == "ABI":
        process.arch = Arch.parse(value.strip("'"))
    elif name == "Build fingerprint":
        process.fingerprint = value.strip("'")
    else:
        process.name = process.name or value[:4096]


def _crash(process: _Process, subject: str | None, limits: ReportLimits) -> RawCrash:
    images = Images((), process.arch, limits.max_modules)
    main = process.main()
    crash = RawCrash(
        "anr",
        platform="java" if any(isinstance(f, RawFrame) for t in process.threads for f in t.frames) else "native",
        arch=process.arch,
        os_name="Android",
        level="error",
        timestamp=unix_time(process.time),
        process_name=process.name,
        pid=process.pid or None,
        message=subject,
    )
    crash.os_version, crash.os_build = platform_of(process.fingerprint)
    ids = _ids(process.threads)
    for thread, number in zip(process.threads, ids, strict=True):
        frames = [f if isinstance(f, RawFrame) else raw_frame(f, images) for f in thread.frames]
        crash.threads.append(RawThread(number, thread.name or None, crashed=thread is main, frames=frames))
    seen = {t.system_id for t in process.threads}
    for system_id in process.channels if not process.threads else ():
        crash.threads.append(RawThread(system_id, crashed=system_id == process.pid, frames=[]))
    crashed = next((t.id for t in crash.threads if t.crashed), None)
    waits = f"main thread: {main.waits}" if main is not None and main.waits else ""
    crash.exceptions.append(RawException("ANR", subject or waits, mechanism="anr", thread_id=crashed))
    crash.modules = images.modules
    attributes = {
        "build_fingerprint": process.fingerprint,
        "thread_states": {str(n): t.state for t, n in zip(process.threads, ids, strict=True) if t.state},
        "locks": {str(n): t.waits for t, n in zip(process.threads, ids, strict=True) if t.waits},
        "waiting_channels": {str(n): channel for n, channel in process.channels.items() if n in seen or not seen},
    }
    crash.attributes = {name: value for name, value in attributes.items() if value}
    return crash


def _ids(threads: Sequence[_Thread]) -> list[int]:
    """Return the threads' ids: the kernel's, or where that is missing one that no other thread has."""
    taken = {t.system_id for t in threads}
    free = (n for n in count() if n not in taken)
    return [t.system_id if t.system_id is not None else next(free) for t in threads]
