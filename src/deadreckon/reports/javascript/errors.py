"""The text of a stack, or a log that holds some, to errors: what they say, their frames, their causes.

A message may have many lines, and some may look like frames: the output of a child process is quoted in one, say. Where
the error's own name and message are known, the stack begins behind them. Where only the text is, frames belong to the
message if prose follows them and then more frames, since an engine prints its stack last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.reports.javascript.lines import read_line

if TYPE_CHECKING:
    from deadreckon.model.event import Frame

__all__ = ["JsError", "errors_of", "parse_stack", "split_header"]

_PREFIXES = (
    "error: ",
    "Uncaught (in promise): ",
    "Uncaught (in promise) ",
    "Uncaught ",
    "Unhandled JS Exception: ",
    "com.facebook.react.common.JavascriptException: ",
)
_NAMED = re.compile(r"([A-Za-z_$][\w$]*(?:\.[\w$]+)*)(?: \[(\w+)\])?(?:: |:?$)", re.ASCII | re.MULTILINE)
_ERROR_NAME = re.compile(r"(?:Error|Exception|Rejection|Warning|Failure|Fault)\Z")
_WITHIN = re.compile(r"(?<![\w$.])[A-Z][\w$]*(?:Error|Exception): ", re.ASCII)
_CARET = re.compile(r"\s*[\^~]+\s*\Z")
_MATCHING = re.compile(r"\.\.\. (\d{1,9}) lines matching cause stack trace \.\.\.\Z", re.ASCII)
_CAUSES = ("[cause]: ", "Caused by: ")
_ERRORS = "[errors]: ["
_REACT_NATIVE = re.compile(r", js engine: \w+(?=,|\Z)|,? ?stack:\Z")
_MOST_MESSAGE = 65_536
_MOST_LINE = 4096
_MOST_ERRORS = 1024
"""Errors that are told apart in one text; a log's further ones are left alone."""
_REMEMBERED = 65_536
"""Distinct lines that are read once, however often they come: a recursion's stack is one line many times."""


@dataclass(slots=True)
class JsError:
    """An error: ``type`` and ``value`` as the text or the object has them, frames innermost first.

    ``relation`` is how it belongs to one before it: ``cause``, ``errors[0]``; empty for an error that stands alone.
    ``code`` is what Node puts behind the name in brackets.
    """

    type: str | None = None
    value: str = ""
    frames: list[Frame] = field(default_factory=list)
    relation: str = ""
    code: str | None = None


def parse_stack(stack: str, name: str | None = None, message: str | None = None) -> list[Frame]:
    """Return the frames of an ``Error.stack``, innermost first; ``name`` and ``message`` are the error's, if known.

    Equal lines share one Frame: who changes it makes a copy. Lines that are no frames are left out. Columns are as the
    engine counts them, from 1 unless ``details`` says ``column_is_0based``.
    """
    return errors_of(stack, name, message, single=True)[0][0].frames


def errors_of(
    text: str, name: str | None = None, message: str | None = None, *, single: bool = False
) -> list[list[JsError]]:
    """Return the errors of a text, each with its causes behind it; at least one, which may be without frames.

    ``name`` and ``message`` are the first error's, if known. ``single`` tells that the text is one error's stack.
    """
    known = None
    if message or name:
        known = _behind_header(text, name, message or "")
    reader = _Reader(text, single=single or known is not None, known=known)
    first = reader.chains[0][0]
    if name:
        first.type = name
    if message is not None:
        first.value = message
    return reader.chains


def split_header(text: str) -> tuple[str | None, str, str | None]:
    """Return (name, message, code) of what an error begins with; the name is None where there is none."""
    head = text
    for prefix in _PREFIXES:
        head = head.removeprefix(prefix)
    if head.startswith("Error: Error: "):  # React Native's wrapper
        head = head[7:]
    found = _NAMED.match(head)
    if found is None or (":" not in found[0] and not (found[1][0].isupper() or _ERROR_NAME.search(found[1]))):
        return None, head, None
    return found[1], head[found.end() :].removeprefix("\n"), found[2]


def _behind_header(stack: str, name: str | None, message: str) -> int | None:
    """Return where the name and the message end that a stack begins with, None where it does not."""
    at = -1
    for _ in range(16 if message else 0):
        at = stack.find(message, at + 1)
        if at < 0:
            return None
        end = at + len(message)
        line = stack[max(0, at - _MOST_LINE) : at].rpartition("\n")[2].lstrip()
        if stack[end : end + 1] not in {"", "\n", "\r"} or (line and not line.endswith(": ")):
            continue
        # Behind frames it is something else: another error of the same words.
        quoted = stack[:at].split("\n", 64)[:64] if at < _MOST_MESSAGE else [""]
        return None if any(read_line(before[:_MOST_LINE]) for before in quoted) else end
    first = stack[:_MOST_LINE].partition("\n")[0]
    return len(first) if not message and first.strip() in {name, f"{name}:"} else None


class _Reader:
    """Reads a text from its beginning to its end; ``chains`` are the errors."""

    def __init__(self, text: str, *, single: bool, known: int | None) -> None:
        self.chains: list[list[JsError]] = []
        self._text = text
        self._single = single
        self._known = known is not None
        self._seen: dict[str, Frame | None] = {}
        self._gaps: list[tuple[JsError, int, int]] = []
        self._relation = ""
        self._members = -1  # In a list of errors: how many there were,
        self._list_indent = 0  # and how far the list itself is indented.
        self._begin(known or 0)
        at = known or 0
        size = len(text)
        while at <= size and len(self.chains) <= _MOST_ERRORS:
            end = text.find("\n", at)
            end = size if end < 0 else end
            self._take(text[at:end].removesuffix("\r"), at)
            at = end + 1
        self._finish(size)
        if not self.chains:
            self.chains.append([JsError()])
        for error, place, count in reversed(self._gaps):
            self._fill(error, place, count)

    def _begin(self, at: int) -> None:
        self._error = JsError()
        self._header_at = at
        self._margin = 0
        self._stack_at = -1
        self._prose_at = -1
        self._blank = False
        self._named_at = -1  # Where a line behind the stack looks like another error's first one.
        self._v8 = False
        self._names: list[Frame] = []  # Lines of one name: frames, if frames follow.
        self._only_names = True

    def _finish(self, at: int) -> None:
        error = self._error
        header = self._text[self._header_at : min(at, self._header_at + _MOST_MESSAGE)]
        if self._stack_at >= 0:
            header = self._text[self._header_at : min(self._stack_at, self._header_at + _MOST_MESSAGE)]
        if not self._known or self.chains:
            error.type, error.value, error.code = _said(header, self._margin)
        if not (error.frames or error.type or error.value):
            return
        error.relation = self._relation if self.chains else ""
        if error.relation:
            self.chains[-1].append(error)
        else:
            self.chains.append([error])

    def _next(self, at: int, relation: str, margin: int = 0) -> None:
        self._finish(at)
        self._relation = relation
        self._begin(at)
        self._margin = margin

    def _take(self, line: str, at: int) -> None:
        frame = self._frame(line)
        if frame is None:
            self._take_prose(line, at)
            return
        v8 = line.lstrip().startswith("at")
        if self._prose_at >= 0 and not self._single:
            if self._named_at >= 0:
                self._next(self._named_at, "")
                self._members = -1
            elif self._blank and not v8 and not self._v8:
                self._next(self._prose_at, "")
                self._members = -1
        if self._prose_at >= 0 and v8 and self._v8 and not self._known:
            # The frames so far were of the message, and so was what followed them.
            self._error.frames.clear()
            self._stack_at = -1
        if self._stack_at < 0:
            self._stack_at = at
            if self._names and self._only_names and not v8:
                self._error.frames += self._names
                self._header_at = at
        elif not v8:
            self._error.frames += self._names
        self._names = []
        self._prose_at = -1
        self._named_at = -1
        self._blank = False
        self._v8 = v8
        self._error.frames.append(frame)

    def _take_prose(self, line: str, at: int) -> None:
        text = line.strip()
        if not text:
            self._blank = True
            self._prose_at = at if self._prose_at < 0 and self._stack_at >= 0 else self._prose_at
            return
        margin = len(line) - len(line.lstrip())
        indent = at + margin
        if self._members >= 0 and margin <= self._list_indent:
            self._members = -1
        if not self._single:
            for mark in _CAUSES:
                if text.startswith(mark):
                    self._next(indent + len(mark), "cause", margin)
                    return
            if text.startswith(_ERRORS):
                self._members = 0
                self._list_indent = margin
        if self._stack_at >= 0 and (found := _MATCHING.match(text)) is not None:
            self._gaps.append((self._error, len(self._error.frames), int(found[1])))
            return
        named = _looks_named(text)
        if named and self._members >= 0 and not self._single:
            self._next(indent, f"errors[{self._members}]", margin)
            self._members += 1
            return
        bare = None if self._v8 or named or len(text) > _MOST_LINE else read_line(text, bare=True)
        if bare is not None:
            self._names.append(bare)
        elif self._stack_at < 0:
            self._only_names = False
        if self._stack_at < 0:
            return
        if self._prose_at < 0 and bare is None:
            self._prose_at = at
        if named:
            self._named_at = at

    def _frame(self, line: str) -> Frame | None:
        try:
            return self._seen[line]
        except KeyError:
            pass
        text = line
        if line[-1:] in {"{", ",", "]"} and line.lstrip().startswith("at "):
            # Behind a stack, util.inspect shows the error's own fields, or goes on with what the error is in.
            text = line.rstrip(" {,]")
        found = read_line(text)
        if len(self._seen) < _REMEMBERED and len(line) < _MOST_LINE:
            self._seen[line] = found
        return found

    def _fill(self, error: JsError, place: int, count: int) -> None:
        """Put back frames that util.inspect left out as the cause has them, too."""
        chain = next(c for c in self.chains if any(e is error for e in c)) if self.chains else []
        behind = next(
            (e for at, e in enumerate(chain) if at and chain[at - 1] is error and e.relation == "cause"), None
        )
        if behind is None or not place or place >= len(error.frames):
            return
        before, after = error.frames[place - 1], error.frames[place]
        frames = behind.frames
        for at in range(len(frames) - count - 1):
            if frames[at] == before and frames[at + count + 1] == after:
                error.frames[place:place] = frames[at + 1 : at + 1 + count]
                return


def _looks_named(line: str) -> bool:
    """Tell whether a line is an error's first: ``TypeError: ...``, ``Uncaught Foo: ...``, ``[Error: ...]``."""
    text = line[:_MOST_LINE].removeprefix("[")
    if ": " not in text and " " in text:
        return False
    prefixed = text.startswith("Uncaught ")
    name, _, _ = split_header(text.removesuffix("]"))
    return name is not None and (prefixed or _ERROR_NAME.search(name) is not None)


def _said(header: str, margin: int) -> tuple[str | None, str, str | None]:
    """Return (type, value, code) of the lines before a stack; lines of a log before them, and source, go.

    ``margin`` is how far the whole error is indented, as another one's cause.
    """
    lines = [line.removesuffix("\r") for line in header.split("\n")]
    lines = [lines[0], *(line[min(margin, len(line) - len(line.lstrip())) :] for line in lines[1:])]
    first = next((at for at, line in enumerate(lines) if _looks_named(line.lstrip())), -1)
    if first < 0:
        lines = lines[next((at for at, line in enumerate(lines) if _CARET.match(line)), -1) + 1 :]
    text = "\n".join(lines[max(first, 0) :]).strip()
    if first < 0 and (inner := _WITHIN.search(text)) is not None:
        text = text[inner.start() :]  # What a logger writes before an error.
    if text.startswith("[") and text.endswith("]"):  # An error without a stack, as util.inspect shows it
        text = text[1:-1]
    name, value, code = split_header(text.removesuffix(" {"))
    value = _REACT_NATIVE.sub("", value)
    return name, value.strip(), code
