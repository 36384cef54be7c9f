"""Go's own crash reports: panics, fatal errors, signals and the race detector, with goroutines.

Sources: the Go runtime's ``panic.go`` (printpanics), ``traceback.go`` and ``signal_unix.go``; the race detector's
manual. Goroutines are threads; the addresses that ``GOTRACEBACK=system`` adds are those of the binary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.reports.textlog.lines import MAX_FRAMES, read_lines, too_deep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.config import ReportLimits

__all__ = ["read"]

MAX_PANICS = 64

_GOROUTINE = re.compile(r"\s*goroutine (\d{1,15})(?: gp=\S+)?(?: m=\S+)?(?: mp=\S+)? \[(.*)\]:")
_PANIC = re.compile(r"(\s*)panic: (.*)")
_FATAL = re.compile(r"(?:fatal error|runtime): (.*)")
_SIGNAL = re.compile(r"\[signal (SIG[A-Z]+)(?:: ([^\]]*?))?(?: code=(\S+) addr=(0x[0-9a-f]+) pc=(0x[0-9a-f]+))?\]")
_RAISED = re.compile(r"(SIG[A-Z]+): (\S.*)")
_FAULT = re.compile(r"unexpected fault address (0x[0-9a-f]+)")
_RACE = re.compile(
    r"\s*(?:(Previous )?((?:atomic )?(?:read|write)) at (0x[0-9a-f]+) by|Goroutine (\d+) \((.*)\) created at)",
    re.IGNORECASE,
)
_CREATED = re.compile(r"\s*(?:created by )(.*?)(?: in goroutine \d+)?$")
_PLACE = re.compile(
    r"\s*(\S.*?):(\d{1,9})(?: \+0x[0-9a-f]+)?(?: fp=0x[0-9a-f]+)?(?: sp=0x[0-9a-f]+)?(?: pc=(0x[0-9a-f]{1,16}))?\s*"
)
_STANDARD = frozenset(
    """
    archive arena bufio bytes cmp compress container context crypto database debug embed encoding errors expvar flag fmt
    go hash html image index internal io iter log maps math mime net os path plugin reflect regexp runtime slices sort
    strconv strings structs sync syscall testing text time unicode unique unsafe vendor weak
    """.split()
)


@dataclass(slots=True)
class _Reading:
    """What was found so far."""

    exceptions: list[RawException] = field(default_factory=list)
    threads: list[RawThread] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    address: int | None = None
    lost: int = 0
    """Frames of the deepest stack that were not kept."""


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a Go program's crash. Raises Malformed where it has neither an error nor a goroutine."""
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "Go crash")
    lines, problems = read_lines(data)
    reading = _Reading()
    at = 0
    while at < len(lines):
        at = _step(reading, lines, at, limits)
    if not reading.exceptions and not reading.threads:
        raise Malformed("Go crash", expected="a panic or a goroutine", got=f"{len(lines)} lines with neither")
    crash = RawCrash("go", platform="go", level="fatal", diagnostics=problems + too_deep(reading.lost))
    crash.threads = reading.threads
    crash.attributes |= reading.attributes
    # Nested panics are printed in the order they arose: the first is the cause of the others.
    crash.exceptions = reading.exceptions[::-1]
    running = next((t for t in crash.threads if t.frames), None)
    if running is not None and crash.exceptions:
        running.crashed = True
    for exception in crash.exceptions:
        exception.thread_id = running.id if running is not None else None
        exception.address = reading.address
    return crash


def _step(reading: _Reading, lines: Sequence[str], at: int, limits: ReportLimits) -> int:
    """Read what begins on a line; return the next line to look at."""
    line = lines[at]
    if match := _GOROUTINE.match(line):
        frames, after = _frames(reading, lines, at + 1)
        if len(reading.threads) < limits.max_threads:
            reading.threads.append(RawThread(int(match[1]), f"goroutine {match[1]} [{match[2]}]"[:200], frames=frames))
        return after
    if line.startswith(("runtime stack:", "WARNING: DATA RACE")):
        if line.startswith("WARNING") and not reading.exceptions:
            reading.exceptions.append(RawException("data race", mechanism="go"))
            reading.attributes["crash_type"] = "Data race"
        return at + 1
    if match := _RACE.match(line):
        frames, after = _frames(reading, lines, at + 1)
        if frames and len(reading.threads) < limits.max_threads:
            reading.threads.append(RawThread(len(reading.threads), line.strip(" :")[:200], frames=frames))
            if match[3] and not match[1]:
                reading.address = int(match[3], 16) & ((1 << 64) - 1)
        return after
    if not reading.threads and len(reading.exceptions) < MAX_PANICS:
        _error(reading, lines, at)
    return at + 1


def _error(reading: _Reading, lines: Sequence[str], at: int) -> None:
    """Read a line that says why; after the first goroutine such lines are something else's."""
    line = lines[at]
    if match := _PANIC.fullmatch(line):
        value = match[2]
        for more in lines[at + 1 : at + 64]:  # A message may have several lines; an empty one ends it.
            if not more.strip() or more.lstrip().startswith(("panic: ", "goroutine ", "[signal ", "fatal error: ")):
                break
            value += f"\n{more.strip()}"
        state = re.search(r" \[(recovered(?:, repanicked)?)\]$", value)
        exception = RawException("panic", value[: state.start()] if state else value, mechanism="go")
        # A panic that was recovered and raised again is printed twice.
        if not reading.exceptions or reading.exceptions[-1].value != exception.value:
            reading.exceptions.append(exception)
        said = re.match(r"runtime error: ([^\[\n]*)", value)
        name = said[1].strip().removesuffix(" or nil pointer dereference") if said else ""
        reading.attributes.setdefault("crash_type", name[:1].upper() + name[1:] if name else "ASSERT")
    elif match := _SIGNAL.match(line):
        reading.attributes["signal"] = match[1]
        if match[4]:
            reading.address = int(match[4], 16) & ((1 << 64) - 1)
            reading.attributes["pc"] = match[5]
    elif match := _FAULT.match(line):
        reading.address = int(match[1], 16) & ((1 << 64) - 1)
    elif line.startswith("fatal error: ") and (match := _FATAL.fullmatch(line)):
        reading.exceptions.append(RawException("fatal error", match[1], mechanism="go"))
        name = "Stack overflow" if "stack overflow" in match[1] else "Fatal error"
        reading.attributes.setdefault("crash_type", name)
    elif (match := _RAISED.fullmatch(line)) and at + 1 < len(lines) and lines[at + 1].startswith("PC="):
        reading.exceptions.append(RawException(match[1], match[2], mechanism="go"))
        reading.attributes.setdefault("crash_type", match[1])


def _frames(reading: _Reading, lines: Sequence[str], at: int) -> tuple[list[RawFrame], int]:
    """Read pairs of lines, ``package.function(arguments)`` and its place, until something else stands there."""
    frames: list[RawFrame] = []
    lost = 0
    while at + 1 < len(lines):
        line = lines[at].strip()
        created = _CREATED.fullmatch(lines[at])
        if line.startswith("..."):
            at += 1
            continue
        name = created[1] if created else _function(line)
        place = _PLACE.fullmatch(lines[at + 1]) if name else None
        if name is None or place is None:
            break
        at += 2
        if created:  # Who began the goroutine is not on its stack.
            continue
        if len(frames) < MAX_FRAMES:
            frames.append(_frame(name, place, first=not frames))
        else:
            lost += 1
    reading.lost = max(reading.lost, lost)
    return frames, at


def _function(line: str) -> str | None:
    """Return a function's name without its arguments, which stand in the last brackets."""
    if not line.endswith(")") or ("." not in line and not line.startswith(("panic(", "main("))):
        return None
    depth = 0
    for at in range(len(line) - 1, -1, -1):
        depth += (line[at] == ")") - (line[at] == "(")
        if not depth:
            return line[:at] or None
    return None


def _frame(name: str, place: re.Match[str], *, first: bool) -> RawFrame:
    path = place[1]
    package, function = _split(name)
    root = package.split("/", 1)[0]
    standard = (root in _STANDARD and "." not in root) or name == "panic" or root == "_cgo"
    address = int(place[3], 16) if place[3] else None
    reported = Frame(
        status="symbolicated",
        function=function,
        raw_function=name if name != function else None,
        module=package or None,
        filename=path.replace("\\", "/").rsplit("/", 1)[-1],
        abs_path=path,
        lineno=int(place[2]) or None,
        lang="go",
        in_app=not standard,
    )
    return RawFrame(address, is_return_address=not first, reported=reported)


def _split(name: str) -> tuple[str, str]:
    """Return a symbol's import path, and its name with the package's, as a Go programmer writes it.

    Dots of the import path's last part are escaped in symbols (``gopkg.in/yaml%2ev3.Unmarshal``).
    """
    bracket = name.find("[")  # Type arguments may have import paths of their own.
    slash = name.rfind("/", 0, bracket if bracket >= 0 else len(name))
    receiver = name.find("(")
    if 0 <= receiver < slash:
        slash = name.rfind("/", 0, receiver)
    dot = name.find(".", slash + 1)
    if dot < 0:
        return "", name
    return name[:dot].replace("%2e", "."), name[slash + 1 :].replace("%2e", ".")
