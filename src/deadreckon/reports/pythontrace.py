"""Python tracebacks as text: chained exceptions, exception groups, faulthandler's dumps and fuzzers' reports.

Sources: the library reference on ``traceback`` and ``faulthandler``; Atheris and PySecSan print the same frames under
headlines of their own. Frames are innermost first, whichever way the text lists them.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.reports.textlog.lines import MAX_FRAMES, read_lines, too_deep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.config import ReportLimits

__all__ = ["read"]

MAX_EXCEPTIONS = 256

_HEADLINE = re.compile(r"\s*(?:(\w[\w.]*): )?(?:Exception Group )?Traceback \(most recent call last\):")
_FRAME = re.compile(r'\s*File "(.{1,4096}?)", line (\d{1,9})(?:, in (.+)|\s+in (.+))?')
_ERROR = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_MARGIN = re.compile(r"\s*(?:[|+] |\|$)")
"""What an exception group draws beside the exceptions in it."""
_MARKS = re.compile(r"[\s~^]+")
_SECURITY = re.compile(r"===BUG DETECTED: PySecSan: (.*?)\s*===")
_FATAL = re.compile(r"Fatal Python error: (.*)")
_THREAD = re.compile(r"(Current thread|Thread) (0x[0-9a-f]{1,16})(?: \[([^\]]*)\])? \(most recent call first\):")
_LIBRARIES = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]?python\d|^<frozen |^<embedded stdlib>", re.IGNORECASE
)


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a traceback. Raises Malformed where there is none."""
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "Python traceback")
    lines, problems = read_lines(data)
    crash = RawCrash("python", platform="python", level="error", diagnostics=problems)
    if (at := next((i for i, line in enumerate(lines) if _FATAL.search(line)), None)) is not None:
        _faulthandler(crash, lines, at, limits)
    else:
        _tracebacks(crash, lines)
    if not crash.exceptions and not crash.threads:
        raise Malformed("Python traceback", expected="a traceback", got=f"{len(lines)} lines without")
    return crash


def _tracebacks(crash: RawCrash, lines: Sequence[str]) -> None:
    if any("Exception Group Traceback" in line for line in lines):
        lines = [_MARGIN.sub("", line, count=1) for line in lines]
    found: list[RawException] = []
    at = 0
    while at < len(lines) and len(found) < MAX_EXCEPTIONS:
        line = lines[at]
        if match := _HEADLINE.match(line):
            exception, after = _traceback(crash, lines, at, match[1])
            found.append(exception)
            at = max(after, at + 1)
        elif (match := _SECURITY.search(line)) and (start := _next_frame(lines, at)) is not None:
            frames, at = _frames(crash, lines, start)
            found.append(RawException(match[1], "PySecSan", mechanism="pysecsan", frames=frames[::-1]))
            crash.attributes["crash_type"] = "PySecSan"
        else:
            at += 1
    # What led to the others is printed first.
    crash.exceptions = found[::-1]
    crash.attributes.setdefault("crash_type", "Uncaught exception")


def _next_frame(lines: Sequence[str], at: int) -> int | None:
    return next((i for i in range(at + 1, min(at + 16, len(lines))) if _FRAME.match(lines[i])), None)


def _traceback(crash: RawCrash, lines: Sequence[str], at: int, named: str | None) -> tuple[RawException, int]:
    """Read one traceback and the error that it ends in; Atheris puts that error before it."""
    frames, after = _frames(crash, lines, at + 1)
    kind, value = named, ""
    line = lines[after].strip() if after < len(lines) else ""
    match = _ERROR.fullmatch(line)
    if match and (frames or match[2] is not None) and "." not in match[1][-1:]:
        kind, value = match[1], match[2] or ""
        after += 1
        while after < len(lines) and (more := lines[after]).strip() and not _ends_message(more) and len(value) < 65_536:
            value += f"\n{more.strip()}"
            after += 1
    elif named is None and at and (before := _ERROR.fullmatch(lines[at - 1].strip())):
        kind, value = before[1], before[2] or ""
    return RawException(kind, value, mechanism="traceback", frames=frames[::-1]), after


def _ends_message(line: str) -> bool:
    """Whether a line after an error's first can't be more of its message: logs go on without an empty line."""
    return bool(
        _HEADLINE.match(line)
        or re.match(r"\s*\+-|During handling of|The above exception|==\d+==|INFO: |WARNING: |\s*#\d+ ", line)
    )


def _frames(
    crash: RawCrash, lines: Sequence[str], at: int, *, innermost_first: bool = False
) -> tuple[list[RawFrame], int]:
    """Read ``File "...", line N, in F`` and the source line below each; return them as printed, and the next line.

    Of more than MAX_FRAMES the outermost ones are left out.
    """
    frames: deque[RawFrame] = deque(maxlen=MAX_FRAMES)
    count = 0
    while at < len(lines):
        match = _FRAME.match(lines[at])
        if match is None:
            if re.match(r"\s*\[Previous line repeated \d+ more times?\]", lines[at]):
                at += 1
                continue
            break
        at += 1
        source = None
        while at < len(lines) and lines[at].startswith("    ") and not _FRAME.match(lines[at]):
            if source is None and not _MARKS.fullmatch(lines[at]):
                source = lines[at].strip()
            at += 1
        count += 1
        if count <= MAX_FRAMES or not innermost_first:
            frames.append(_frame(match, source))
    crash.diagnostics += too_deep(count - len(frames))
    return list(frames), at


def _frame(match: re.Match[str], source: str | None) -> RawFrame:
    path = match[1]
    return RawFrame(
        None,
        reported=Frame(
            status="symbolicated",
            function=match[3] or match[4] or None,
            filename=path.replace("\\", "/").rsplit("/", 1)[-1],
            abs_path=path,
            lineno=int(match[2]) or None,
            context_line=source,
            lang="python",
            in_app=_LIBRARIES.search(path) is None,
        ),
    )


def _faulthandler(crash: RawCrash, lines: Sequence[str], at: int, limits: ReportLimits) -> None:
    """Read ``Fatal Python error``, and every thread's stack, which is innermost first."""
    said = _FATAL.search(lines[at])
    crash.level = "fatal"
    crash.exceptions.append(
        RawException("Fatal Python error", said[1].strip() if said else "", mechanism="faulthandler")
    )
    crash.attributes["crash_type"] = "Fatal Python error"
    row = at + 1
    while row < len(lines) and len(crash.threads) < limits.max_threads:
        match = _THREAD.match(lines[row])
        row += 1
        if match is None:
            continue
        frames, row = _frames(crash, lines, row, innermost_first=True)
        current = match[1] == "Current thread"
        if frames:
            crash.threads.append(RawThread(int(match[2], 16), match[3], current, frames=frames))
            if current:
                crash.exceptions[0].thread_id = int(match[2], 16)
