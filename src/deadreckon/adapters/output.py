"""Where ``process`` writes: to standard output, or to a file that is there whole or, to be resumed, not yet.

With ``--resume`` an interrupted run leaves PATH.tmp and PATH.resume beside the output: how many inputs are in it, where
the file ended then, and a digest of what was asked for. The next run with the same inputs and options goes on there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Self

import msgspec

from deadreckon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Event

__all__ = ["Output", "Progress", "encoder"]

_NOTE_SECONDS = 1.0


def encoder(format: str, *, explain_grouping: bool = False) -> Callable[[Event], bytes]:  # noqa: A002
    """Return the function that encodes an event as ``json``, ``text`` or ``html``."""
    if format == "text":
        from deadreckon.adapters.text import render

        def as_text(event: Event) -> bytes:
            if event.status in {"unreadable", "unsupported"}:
                return b""  # Standard error has its line.
            return (render(event, explain_grouping=explain_grouping) + "\n").encode("utf-8", "replace")

        return as_text
    if format == "html":
        from deadreckon.adapters import html

        return lambda event: html.article(event).encode("utf-8", "replace")
    from deadreckon.model.event import encode_event

    return lambda event: encode_event(event) + b"\n"


class _Note(msgspec.Struct):
    asked: str
    items: int
    size: int


class Output:
    """Events to a file, written whole or not at all, or to standard output. ``items`` are in it already: skip them.

    A device or a pipe is written to as it is: a file renamed over /dev/null would take its place for everybody.

    Raises ConfigError where a run is to be resumed that was asked for something else.
    """

    def __init__(self, path: str | None, *, head: bytes = b"", tail: bytes = b"", resume: str | None = None) -> None:
        self.items = 0
        self._path = os.path.realpath(path) if path is not None else None
        self._head, self._tail = head, tail
        self._asked = hashlib.sha256(resume.encode("utf-8", "surrogateescape")).hexdigest() if resume else None
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        self._file: BinaryIO
        self._direct = self._path is not None and os.path.exists(self._path) and not os.path.isfile(self._path)
        if self._path is None:
            self._file = sys.stdout.buffer
        elif self._direct:
            self._file, self._asked = open(self._path, "wb"), None
        else:
            note = self._interrupted()
            self._file = open(f"{self._path}.tmp", "r+b" if note else "wb")
            if note is not None:
                self._file.truncate(note.size)
                self._file.seek(note.size)
                self.items = note.items
        if not self.items:
            self._file.write(self._head)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.write(self._tail)
        self._file.flush()
        if self._path is None:
            return
        if self._direct:
            self._file.close()
            return
        if kind is None:
            self._file.close()
            os.replace(f"{self._path}.tmp", self._path)
        elif self._asked is not None:
            self._write_note()
            self._file.close()
            return
        else:
            self._file.close()
            os.unlink(f"{self._path}.tmp")
        if self._asked is not None:
            try:
                os.unlink(f"{self._path}.resume")
            except FileNotFoundError:
                pass

    def write(self, items: int, data: bytes) -> None:
        """Write what came of so many inputs."""
        self._file.write(data)
        self.items += items
        if self._asked is not None and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._write_note()

    def _interrupted(self) -> _Note | None:
        if self._asked is None:
            return None
        try:
            with open(f"{self._path}.resume", "rb") as file:
                note = msgspec.json.decode(file.read(), type=_Note)
            if os.path.getsize(f"{self._path}.tmp") < note.size:
                return None
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if note.asked != self._asked:
            message = f"{self._path}.resume is of a run with other inputs or options; remove it to begin anew"
            raise ConfigError(message)
        return note

    def _write_note(self) -> None:
        """Note where the file ends; the file goes first, so that it is never shorter than the note says."""
        self._file.flush()
        os.fsync(self._file.fileno())
        part = f"{self._path}.resume.part"
        with open(part, "wb") as file:
            file.write(msgspec.json.encode(_Note(self._asked or "", self.items, self._file.tell())))
        os.replace(part, f"{self._path}.resume")
        self._noted = time.monotonic()


class Progress:
    """One line on a terminal's standard error once work has taken two seconds, and a summary; nothing elsewhere."""

    def __init__(self, total: int | None = None) -> None:
        self._total = total

    def __enter__(self) -> Self:
        self._start = self._shown = time.monotonic()
        self._events = self._items = 0
        self._active = sys.stderr.isatty()
        return self

    def step(self, events: int = 1, items: int = 1) -> None:
        """Count."""
        self._events += events
        self._items += items
        now = time.monotonic()
        if self._active and now - self._start > 2 and now - self._shown > 0.2:
            self._shown = now
            share = f" of {self._total} inputs, {100 * self._items // self._total} %" if self._total else ""
            rate = self._events / (now - self._start)
            sys.stderr.write(f"\r\033[K{self._events} events{share}, {rate:.0f} a second ")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._active and self._shown != self._start:
            spent = time.monotonic() - self._start
            sys.stderr.write(f"\r\033[K{self._events} events in {spent:.1f} s\n")
