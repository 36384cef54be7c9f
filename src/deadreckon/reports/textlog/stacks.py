"""The stacks in a log: which lines belong to one, and what stands above it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deadreckon.reports.textlog.frames import Adjusted, TextFrame, continuation, parse
from deadreckon.reports.textlog.lines import MAX_FRAMES, too_deep

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deadreckon.model.event import Diagnostic

__all__ = ["MAX_STACKS", "Stack", "find_stacks", "frames_lost"]

MAX_STACKS = 4096
_GAP = 12
"""Other lines that may stand between numbered frames: two processes write into one log."""


@dataclass(slots=True)
class Stack:
    """Consecutive frames, innermost first, on the lines ``first`` to ``last``."""

    first: int
    last: int
    frames: list[TextFrame]
    caption: str = ""
    """The nearest line above that says something, and its number."""
    caption_line: int = -1
    lost: int = 0
    """Outer frames that were not kept."""

    @property
    def form(self) -> str:
        """The form of most frames' kind: that of the first."""
        return self.frames[0].form

    def score(self) -> float:
        """Return how much the stack says: the part of its frames that have names, a little less for a short one."""
        return sum(f.function is not None for f in self.frames) / (len(self.frames) + 1)


def frames_lost(stacks: Iterable[Stack]) -> list[Diagnostic]:
    """Return what is to be said of stacks that were not kept whole."""
    return too_deep(max((stack.lost for stack in stacks), default=0))


def find_stacks(lines: Sequence[str]) -> list[Stack]:
    """Return a log's stacks in their order, MAX_STACKS at most."""
    found: list[Stack] = []
    current: Stack | None = None
    said, said_at = "", -1
    skip = 0
    for at, line in enumerate(lines):
        if at < skip:
            continue
        if line.startswith("stack backtrace:") and (rust := _rust(lines, at)) is not None:
            current = rust
            current.caption, current.caption_line = said, said_at
            found.append(current)
            skip = rust.last + 1
            continue
        frame = parse(line)
        if frame is None:
            if current is not None and current.form == "gdb" and current.last == at - 1 and continuation(line):
                _go_on(current, lines, at)
            elif line and not line.isspace():
                said, said_at = line[:400], at
            continue
        between = said if current is not None and said_at > current.last else ""
        if current is None or not _continues(current, frame, at, between):
            if len(found) >= MAX_STACKS:
                break
            current = Stack(at, at, [], said, said_at)
            found.append(current)
        current.last = at
        if len(current.frames) < MAX_FRAMES:
            current.frames.append(frame)
        else:
            current.lost += 1
    return [stack for stack in found if _plausible(stack)]


def _continues(stack: Stack, frame: TextFrame, at: int, between: str) -> bool:
    """Whether a frame belongs to the stack before it; ``between`` is the last line said between them."""
    last = stack.frames[-1]
    gap = at - stack.last - 1
    if frame.number is None or last.number is None:
        related = frame.number is None and last.number is None and (frame.form == last.form or gap == 0)
        return gap <= 1 and related and not between.endswith(":")
    if gap > _GAP or (frame.form in {"san", "chromium"}) != (last.form in {"san", "chromium"}):
        return False
    # Fuchsia gives inlined frames the number of the one they are in; a symbolizer that adds inlined calls may count
    # afresh from the line it replaced: asan_null_dereference_unknown.txt.
    return (
        frame.number > last.number or (gap == 0 and frame.number > 0) or (last.inline and frame.number == last.number)
    )


def _go_on(stack: Stack, lines: Sequence[str], at: int) -> None:
    """Read a frame's second line into the frame."""
    whole = parse(f"{lines[stack.last].strip()} {lines[at].strip()}")
    if whole is not None and whole.form == "gdb":
        stack.frames[-1] = whole
        stack.last = at


def _plausible(stack: Stack) -> bool:
    """Whether lines that look like frames are a stack: tables of numbers and addresses look like some forms."""
    if stack.form in {"counted", "apple"}:
        return len(stack.frames) > 1 and (stack.frames[0].number or 0) <= 1
    if stack.form == "glibc":
        return len(stack.frames) > 1 or stack.frames[0].module is not None
    return any(f.address is not None or f.function or f.offset is not None or f.inline for f in stack.frames)


_RUST = re.compile(r"\s*(\d{1,5}): +(?:(0x[0-9a-f]{1,16}) - )?(\S.*)")
_RUST_AT = re.compile(r"\s+at (.+?):(\d{1,9})(?::(\d{1,9}))?$")


def _rust(lines: Sequence[str], at: int) -> Stack | None:
    """Read Rust's own stack: ``N: [0xaddress -] function``, then ``at file:line:column``; inlined ones unnumbered."""
    frames: list[TextFrame] = []
    last = at
    for row in range(at + 1, min(at + 1 + 4 * MAX_FRAMES, len(lines))):
        line = lines[row]
        if match := _RUST_AT.fullmatch(line):
            if frames and frames[-1].file is None:
                frames[-1].file, frames[-1].line = match[1], int(match[2]) or None
                frames[-1].column = int(match[3]) if match[3] else None
        elif match := _RUST.fullmatch(line):
            number, address = int(match[1]), int(match[2], 16) if match[2] else None
            if frames and frames[-1].number is not None and number <= frames[-1].number:
                break
            name = None if match[3] in {"<unknown>", "__mh_execute_header"} else match[3]
            frames.append(TextFrame("rust", Adjusted.ALL_RETURN, number, address, name))
        elif frames and line.startswith("      ") and line.strip():
            before = frames[-1]
            before.inline = True
            frames.append(
                TextFrame("rust", Adjusted.ALL_RETURN, before.number, before.address, line.strip().removeprefix("- "))
            )
        else:
            break
        last = row
    return Stack(at, last, frames[:MAX_FRAMES], lost=max(len(frames) - MAX_FRAMES, 0)) if frames else None
