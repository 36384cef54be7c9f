"""A log as lines: decoded, without colours and without what the logger wrote before each line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.model.event import Diagnostic

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["MAX_BYTES", "MAX_FRAMES", "MAX_LINE", "MAX_LINES", "clean", "read_lines", "too_deep"]

MAX_BYTES = 16 << 20
"""How much of a log is read; of a longer one its beginning and its end, where crashes are."""
MAX_LINES = 500_000
MAX_FRAMES = 1024
"""Frames of one stack that are kept."""
MAX_LINE = 16_384
"""Characters of a line that are kept; longer names of functions don't exist, longer lines of data do."""

_CONTROL = re.compile(
    r"\x1b(?:\[[0-9;:?]{0,64}[A-Za-z]|\][^\x07\x1b]{0,1024}(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b\x0c\x0e-\x1f]"
)
"""ECMA-48 control sequences (colours, hyperlinks) and other control characters."""

_PREFIX = re.compile(
    r"""
    (?:\[\w\]\ )?(?:\d{4}-)?\d\d-\d\d\ \d\d:\d\d:\d\d\.\d{3,6}Z?\ +(?:\S+\ +)?\d+\ +\d+\ [VDIWEFA]\ [^:]{0,64}:\ ?
    | (?:\d\d-\d\d\ \d\d:\d\d:\d\d\.\d{3}\ )?[VDIWEFA]/[^(]{1,64}\(\ *\d{1,7}\):\ ?
    | (?:<\d{1,2}>)?\[\ *\d{1,8}\.\d{3,9}\](?:\[\ *[CT]\d+\])?\ ?
    | [A-Z][a-z][a-z]\ [\ \d]\d\ \d\d:\d\d:\d\d\ \S{1,255}\ [\w./@-]{1,64}(?:\[\d+\])?:\ ?
    | \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)[ ]
      (?:(?:stdout|stderr)\ [FP]\ |\S{1,255}\ [\w./@-]{1,64}(?:\[\d+\])?:\ )?
    | [\w.-]{1,64}\ *\|[ ]
    | CRASH\ LOG:\ ?
    """,
    re.VERBOSE | re.ASCII,
)
"""What loggers write before a line: logcat (threadtime, brief, time), the kernel, syslog and journald, Kubernetes and
CI services, docker compose, Centipede."""


def read_lines(data: bytes | memoryview | mmap) -> tuple[list[str], list[Diagnostic]]:
    """Return a log's lines without line ends, and what was left out. Raises Malformed where it is no text."""
    problems: list[Diagnostic] = []
    size = len(data)
    if size <= MAX_BYTES:
        text = _decode(bytes(data))
    else:
        half = MAX_BYTES // 2
        text = _decode(bytes(data[:half])) + "\n" + _decode(bytes(data[size - half & ~1 :]), bytes(data[:2]))
        problems.append(_left_out(f"{size - MAX_BYTES} bytes in the middle of the log were not read"))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_LINES:
        half = MAX_LINES // 2
        problems.append(_left_out(f"{len(lines) - MAX_LINES} lines in the middle of the log were not read"))
        lines[half:-half] = []
    return [clean(line[:MAX_LINE]) for line in lines], problems


def _left_out(message: str) -> Diagnostic:
    return Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message)


def too_deep(lost: int) -> list[Diagnostic]:
    """Return what is to be said of a stack of which ``lost`` frames were not kept; nothing where it is whole."""
    message = f"a stack has {lost} frames more than the {MAX_FRAMES} that are kept"
    return [Diagnostic(code="frame_limit", severity="warning", stage="read", message=message)] if lost > 0 else []


def _decode(data: bytes, mark: bytes = b"") -> str:
    mark = mark or data[:2]
    if mark in {b"\xff\xfe", b"\xfe\xff"}:
        data = data.removeprefix(mark)
        return data[: len(data) & ~1].decode("utf-16-le" if mark == b"\xff\xfe" else "utf-16-be", "replace")
    if data.count(b"\0", 0, 512) > 8:
        raise Malformed("crash log", expected="text", got="binary data")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def clean(line: str) -> str:
    """Return a line without colours, without what the logger wrote before it, and without space at its end."""
    if not line.isprintable():
        line = _CONTROL.sub("", line)
    match = _PREFIX.match(line)
    return (line[match.end() :] if match else line).rstrip()
