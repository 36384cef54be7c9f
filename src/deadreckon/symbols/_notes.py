"""What remote sources did not give, remembered in the store, so that they aren't asked for it with every crash.

Nothing depends on it: where the file can't be read or written, or was removed, sources are asked again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Note", "Notes"]

_BUSY_SECONDS = 2.0
_MAX_OWN = 4096


class Note(NamedTuple):
    """Something that was not had: ``state`` is one word, ``why`` a message, ``at`` seconds since 1970."""

    state: str
    why: str
    at: float

    @property
    def age(self) -> float:
        """Seconds since it was written; endless where the computer's clock was set back meanwhile."""
        age = time.time() - self.at
        return age if age >= 0 else float("inf")


class Notes:
    """Notes in an SQLite file, by name; those older than ``keep_seconds`` go away.

    Safe for many threads and processes. What this process wrote it also remembers if the file can't be written.
    """

    def __init__(self, path: Path, keep_seconds: float) -> None:
        self._path = path
        self._keep = keep_seconds
        self._own: dict[str, Note] = {}
        self._lock = threading.Lock()
        self._tidy = False

    def read(self, names: Sequence[str]) -> dict[str, Note]:
        """Return the notes of these names that there are."""
        with self._lock:
            found = {name: self._own[name] for name in names if name in self._own}
        if os.path.isfile(self._path):
            marks = ",".join("?" * len(names))
            for name, *rest in self._run((f"SELECT * FROM notes WHERE name IN ({marks})", tuple(names))):  # noqa: S608
                note = Note(*rest)
                if name not in found or note.at > found[name].at:
                    found[name] = note
        return found

    def write(self, name: str, state: str, why: str) -> Note:
        """Keep a note, in place of an earlier one."""
        note = Note(state, why, time.time())
        with self._lock:
            if len(self._own) >= _MAX_OWN:
                self._own.clear()
            self._own[name] = note
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        old = () if self._tidy else (("DELETE FROM notes WHERE at < ?", (note.at - self._keep,)),)
        self._run(
            ("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, state TEXT, why TEXT, at REAL)", ()),
            *old,
            ("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (name, *note)),
        )
        self._tidy = True
        return note

    def _run(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Any]:
        """Return the last statement's rows. Opens the file for each use: a connection must not cross a fork."""
        rows: list[Any] = []
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=OFF")  # A note lost with the power costs one question.
                for statement, values in statements:
                    rows = db.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            pass
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return rows
