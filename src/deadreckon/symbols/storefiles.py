"""The files of a symbol store: which there are, how they are written and shared by processes.

A file is written whole under another name and renamed. Names that begin with a dot are of files being written, or left
so by killed processes. See store.py for the directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadreckon.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "AREAS",
    "TOUCH_SECONDS",
    "UPLOADS",
    "USED",
    "Found",
    "alone",
    "classify",
    "files",
    "place",
    "read_manifest",
    "storable",
    "touch",
    "walk",
    "write_manifest",
]

TOUCH_SECONDS = 3600.0
"""A modification time says when a table or a fetched file was used last, to the hour: using it costs nothing."""
_MAX_DEPTH = 16
UPLOADS = "sourcemaps"
"""Source maps that came without a crash, ``sourcemaps/<project and release>/<content>/``: a directory is an entry."""
USED = ".used"
"""A file beside them whose modification time says when they were: a map whose own changes counts as another one."""
AREAS = ("imports", "derived", "by-id", "remote", "maps", UPLOADS)
"""The directories of a store that hold entries."""
_ALONE = {"remote": "remote", "maps": "map"}
"""Areas whose files are entries by themselves, and their kind."""


@dataclass(slots=True)
class Found:
    """The files that make an entry, as they lie in the store: the manifest (if there is one), then the tables."""

    key: str
    kind: str
    manifest: str | None = None
    tables: list[str] = field(default_factory=list)
    inodes: list[int] = field(default_factory=list)
    stamp: int = 0
    """When the manifest was written, in nanoseconds since 1970; 0 where there is none."""
    size: int = 0
    used: float = 0.0

    @property
    def version(self) -> int | None:
        """The version of the tables, None for what has none."""
        part = self.key.split("/")[1]
        return int(part[1:]) if self.kind not in {"remote", "upload"} and part[1:].isdecimal() else None


def files(root: Path, area: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path, relative to the store, and state of every regular file below ``area``; what vanishes is left out."""
    pending = [(area, 0)]
    while pending:
        directory, depth = pending.pop()
        with contextlib.suppress(OSError), os.scandir(root / directory) as listed:
            for item in listed:
                path = f"{directory}/{item.name}"
                with contextlib.suppress(OSError):
                    if item.is_dir(follow_symlinks=False):
                        if depth < _MAX_DEPTH:
                            pending.append((path, depth + 1))
                    elif item.is_file(follow_symlinks=False):
                        yield path, item.stat(follow_symlinks=False)


def walk(root: Path) -> dict[str, Found]:
    """Return what the store's files say is in it, by key."""
    found: dict[str, Found] = {}
    for area in AREAS:
        for path, stat in files(root, area):
            classify(found, path, stat)
    return found


def classify(found: dict[str, Found], path: str, stat: os.stat_result) -> None:
    """Put a file where it belongs, by its name."""
    directory, _, name = path.rpartition("/")
    stem, _, suffix = name.partition(".")
    area, _, below = directory.partition("/")
    if area == UPLOADS and below.count("/") == 1:
        entry = found.setdefault(directory, Found(directory, "upload"))
        entry.size += stat.st_size
        entry.used = max(entry.used, stat.st_mtime)
        entry.tables.append(path)
        return
    if not stem or storable(path) != path:
        return  # A file being written, or left so by a killed process; or one that is not ours.
    if area in _ALONE:
        size = stat.st_size // max(1, stat.st_nlink)
        found[path] = Found(path, _ALONE[area], None, [path], [stat.st_ino], 0, size, stat.st_mtime)
        return
    key, kind = f"{directory}/{stem}", "derived" if area == "derived" else "imported"
    if area == "by-id":
        key = f"imports/{below.partition('/')[0]}/{stem[:2]}/{stem}"
    if suffix == "json" or suffix.endswith(".table"):
        entry = found.setdefault(key, Found(key, kind))
        # A table that stands under two names (derived and imported) counts half under each.
        entry.size += stat.st_size // max(1, stat.st_nlink)
        entry.used = max(entry.used, stat.st_mtime)
        if suffix == "json":
            entry.manifest, entry.stamp = path, stat.st_mtime_ns
        else:
            entry.tables.append(path)
            entry.inodes.append(stat.st_ino)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return a manifest: ``objects`` or ``error``, and what is known of its source; None where it is no manifest."""
    try:
        answer = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    if isinstance(answer.get("error"), str):
        return answer
    listed = answer.get("objects")
    if not isinstance(listed, list) or not all(isinstance(o, dict) and isinstance(o.get("table"), str) for o in listed):
        return None
    return answer


def write_manifest(path: Path, answer: dict[str, Any]) -> int:
    """Write a manifest whole or not at all; return its time stamp. Raises SourceUnavailable."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(answer, out)
        os.chmod(temporary, 0o644)
        stamp = os.stat(temporary).st_mtime_ns
        os.replace(temporary, path)
    except OSError as e:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise SourceUnavailable(f"the symbol store can't be written to: {path}: {e.strerror}") from e
    return stamp


@contextlib.contextmanager
def alone(path: Path, seconds: float) -> Iterator[None]:
    """Let one process at a time make something; the others then find it made. Waits no longer than ``seconds``.

    It spares them time and memory, and nothing depends on it: where there are no locks, each makes its own.
    """
    import fcntl  # noqa: PLC0415

    held, descriptor = False, -1
    deadline = time.monotonic() + seconds
    try:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            while not held and time.monotonic() < deadline:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held = True
                except BlockingIOError:
                    time.sleep(0.01)
        yield
    finally:
        if held:
            with contextlib.suppress(OSError):
                path.unlink()
            # A child forked meanwhile has the descriptor too; only this takes the lock from it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        if descriptor >= 0:
            os.close(descriptor)


def place(source: Path, target: Path) -> None:
    """Give a table file another name, by copying it where links are not possible. Raises OSError."""
    for _ in range(3):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except FileExistsError:
            return
        except FileNotFoundError:
            continue  # Somebody removed the directory, which was empty.
        except OSError:
            break
        return
    copy = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        shutil.copyfile(source, copy)
        copy.replace(target)
    except OSError:
        copy.unlink(missing_ok=True)
        raise


def touch(table: str) -> None:
    """Note that a table is used; a store that can't be written to is no hindrance."""
    with contextlib.suppress(OSError):
        if os.stat(table).st_mtime < time.time() - TOUCH_SECONDS:
            os.utime(table)


def storable(value: Any) -> Any:
    """Return a value as SQLite takes it: a path of arbitrary bytes is shown with replacement characters."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
