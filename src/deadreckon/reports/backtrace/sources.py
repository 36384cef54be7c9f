"""``sourceCode``: the files a Backtrace report brings along, whole or in part, by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.reports.backtrace.fields import members, positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.event import Frame
    from deadreckon.reports.backtrace.fields import Reading

__all__ = ["SourceCode"]

_CONTEXT_LINES = 5
_MAX_LINE = 1024
"""Characters shown of a line: minified programs have one line."""
_MAX_TEXT = 4 << 20
_MAX_TOTAL = 32 << 20
"""Bytes of text that lines are taken from; the paths of all files are known."""


@dataclass(slots=True)
class _File:
    path: str | None
    text: bytes = b""
    first: int | None = None
    """The line that ``text`` begins with; without it nobody can tell which lines these are."""
    starts: NDArray[np.int64] | None = None

    def line(self, number: int) -> str:
        assert self.starts is not None
        at, end = int(self.starts[number]), int(self.starts[number + 1]) - 1
        # At most four bytes make a character.
        return self.text[at : min(end, at + 4 * _MAX_LINE)].decode("utf-8", "replace").removesuffix("\r")[:_MAX_LINE]


class SourceCode:
    """Source files by their id."""

    def __init__(self, reading: Reading, listed: Any) -> None:
        self._files: dict[str, _File] = {}
        left = _MAX_TOTAL
        for key, value in members(reading, listed, "sourceCode", reading.limits.max_annotations):
            file = self._files[key] = _File(reading.text(value.get("path")))
            content = value.get("text")
            if isinstance(content, str) and left > 0:
                file.text = content[:_MAX_TEXT].encode("utf-8", "replace")
                # Android's client gives the frame's own line as startLine where it has no text at all.
                file.first = positive(value.get("startLine"))
                left -= len(file.text)

    def path(self, key: str | None) -> str | None:
        """Return a file's path, None where it is not told."""
        file = self._files.get(key) if key else None
        return file.path if file is not None else None

    def add_context(self, frame: Frame, key: str | None) -> None:
        """Give a frame the lines around its own, where the report has them."""
        file = self._files.get(key) if key else None
        if file is None or not file.text or file.first is None or frame.lineno is None:
            return
        if file.starts is None:
            ends = np.flatnonzero(np.frombuffer(file.text, np.uint8) == ord("\n"))
            file.starts = np.concatenate(([0], ends + 1, [len(file.text) + 1]))
        at, count = frame.lineno - file.first, len(file.starts) - 1
        if not 0 <= at < count:
            return
        frame.pre_context = [file.line(n) for n in range(max(at - _CONTEXT_LINES, 0), at)]
        frame.context_line = file.line(at)
        frame.post_context = [file.line(n) for n in range(at + 1, min(at + 1 + _CONTEXT_LINES, count))]
