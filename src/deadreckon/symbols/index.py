"""The index of a symbol store: what is in it, where from, with which tags, since when, last used, and what failed.

The store's files are the truth: manifests (one JSON file for each debug file) and the tables they list. The index is
made from them, in one SQLite file, so that a question about a hundred thousand debug files need not read them all.
It may be deleted at any time. Where it is missing, damaged or of another version it is made again; where it can't be
written it is made in memory for the one question. Nothing that looks up symbols asks it.

Each operation opens a connection of its own, and a fork waits for the one under way: SQLite keeps a list of the locks
that a process holds, and a child that inherits it with a lock on it waits for that lock for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from deadreckon.errors import Malformed
from deadreckon.model.ids import DebugId, normalize_code_id
from deadreckon.symbols.storefiles import Found, classify, read_manifest, storable, walk
from deadreckon.symbols.tablefile import TABLE_VERSION, open_table

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = ["Entry", "Index", "spellings"]

_VERSION = 1
_BUSY_SECONDS = 30.0
# SQLite's codes (the low byte) for a file that is no database, is damaged or has other tables than ours. All others
# (busy, full, read-only, no memory ...) say that it can't be used now and nothing about what is in it.
_DAMAGED = {1, 11, 17, 19, 20, 24, 25, 26}  # ERROR CORRUPT SCHEMA CONSTRAINT MISMATCH FORMAT RANGE NOTADB
_SCHEMA = """
CREATE TABLE files (key TEXT PRIMARY KEY, kind TEXT NOT NULL, source TEXT, added REAL NOT NULL, used REAL NOT NULL,
                    size INTEGER NOT NULL, problem TEXT, stamp INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE objects (key TEXT NOT NULL, debug_id TEXT, code_id TEXT, info TEXT NOT NULL);
CREATE TABLE tags (key TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL);
CREATE INDEX objects_key ON objects (key);
CREATE INDEX objects_debug_id ON objects (debug_id);
CREATE INDEX objects_code_id ON objects (code_id);
CREATE INDEX tags_key ON tags (key);
CREATE INDEX tags_pair ON tags (name, value);
"""
_QUERY = """
SELECT key, kind, source, added, used, size, problem, stamp FROM files
WHERE (:ids IS NULL OR key IN (SELECT key FROM objects WHERE debug_id IN (SELECT value FROM json_each(:ids))
                                                        OR code_id IN (SELECT value FROM json_each(:ids))))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
  AND (:tags IS NULL OR key IN (SELECT tags.key FROM tags JOIN json_each(:tags) AS wanted
                             ON tags.name = wanted.key AND tags.value = wanted.value
                             GROUP BY tags.key HAVING count(*) = (SELECT count(*) FROM json_each(:tags))))
ORDER BY added, key
"""
_T = TypeVar("_T")
_turn = threading.Lock()
os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


@dataclass(slots=True)
class Entry:
    """What the store holds of one debug file; times in seconds since 1970, ``size`` in bytes on disk."""

    key: str
    """Path of the manifest (without suffix) or of the fetched file, relative to the store."""
    kind: str
    """``imported`` by the user, ``derived`` from a file named with ``--symbols``, ``remote``: fetched from a source,
    ``map``: a source map's table, ``upload``: source maps that came for a release."""
    source: str | None = None
    added: float = 0.0
    used: float = 0.0
    size: int = 0
    problem: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)
    stamp: int = 0


def describe(root: Path, found: Found) -> Entry:
    """Return the entry that a manifest describes, or that the headers of tables without one do."""
    answer = read_manifest(root / found.manifest) if found.manifest else None
    entry = Entry(found.key, found.kind, used=found.used, size=found.size, stamp=found.stamp)
    entry.added = found.stamp / 1e9 or found.used
    if found.kind in {"remote", "map", "upload"}:
        entry.source = found.key
    elif answer is not None:
        source, added, tags = answer.get("source"), answer.get("added"), answer.get("tags")
        entry.source = source if isinstance(source, str) else None
        entry.added = float(added) if isinstance(added, int | float) else entry.added
        entry.tags = {str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {}
        entry.problem = answer.get("error")
        entry.objects = answer.get("objects", [])
    else:
        for table in found.tables:
            with contextlib.suppress(OSError, Malformed):
                entry.objects.append({**open_table(root / table).info, "table": table.rpartition("/")[2]})
    if found.version is not None and found.version != TABLE_VERSION:
        entry.problem = f"tables of version {found.version}, not {TABLE_VERSION}"
    return entry


def spellings(text: str) -> list[str]:
    """Return the ids that a text may stand for: a debug id in any spelling, a code id or a GNU build id."""
    code_id = normalize_code_id(text)
    ids = {code_id}
    with contextlib.suppress(ValueError):
        ids.add(str(DebugId.parse(text)))
    with contextlib.suppress(ValueError):
        ids.add(str(DebugId.from_build_id(bytes.fromhex(code_id))))
    return sorted(ids)


class Index:
    """The index of the store in ``root``; safe to use from several threads, processes and forks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / f"index-{_VERSION}.{TABLE_VERSION}.sqlite"

    def put(self, *files: Path) -> int | None:
        """Record what manifests, their tables and fetched files are, in place of what was known of them.

        Returns the size of all entries in bytes, None where the index can't be written; the next ``sync`` then finds
        the entry in the store's files.
        """
        found: dict[str, Found] = {}
        with contextlib.suppress(OSError):
            for path in files:
                classify(found, path.relative_to(self.root).as_posix(), path.stat())
        entries = [describe(self.root, item) for item in found.values()]

        def work(db: sqlite3.Connection) -> int:
            for entry in entries:
                _replace(db, entry)
            return int(db.execute("SELECT total(size) FROM files").fetchone()[0])

        return self._run(work)

    def forget(self, keys: Collection[str]) -> None:
        """Take entries out."""
        self._run(lambda db: _remove(db, keys))

    def differences(self, found: Mapping[str, Found]) -> list[str]:
        """Return the keys of entries that the index has wrong or lacks, or that are no longer there."""
        return self._ask(lambda db: self._differences(db, found))

    def sync(self) -> list[str]:
        """Bring the index in line with the store's files; return the keys that it had wrong.

        When tables were used last stands in the files and is always taken from there.
        """
        return self._ask(lambda db: self._sync(db, walk(self.root)))

    def entries(
        self, ident: str | None = None, *, tags: Mapping[str, str] | None = None, kinds: Collection[str] = ()
    ) -> list[Entry]:
        """Return entries as the store's files have them now, oldest first.

        ``ident`` is a debug id in any spelling, a code id or a GNU build id of an object in the file; all of ``tags``
        have to be there; without ``kinds``, all kinds are meant.
        """
        values = {
            "ids": json.dumps(spellings(ident)) if ident is not None else None,
            "kinds": json.dumps(list(kinds)) if kinds else None,
            "tags": json.dumps(dict(tags)) if tags else None,
        }

        def work(db: sqlite3.Connection) -> list[Entry]:
            self._sync(db, walk(self.root))
            found = []
            for key, kind, source, added, used, size, problem, stamp in db.execute(_QUERY, values):
                entry = Entry(key, kind, source, added, used, size, problem, stamp=stamp)
                entry.tags = dict(db.execute("SELECT name, value FROM tags WHERE key = ? ORDER BY name", (key,)))
                told = db.execute("SELECT info FROM objects WHERE key = ? ORDER BY rowid", (key,))
                entry.objects = [json.loads(info) for (info,) in told]
                found.append(entry)
            return found

        return self._ask(work)

    def damage(self) -> str | None:
        """Say what is wrong with the index file itself, None where nothing is; one that isn't there is not wrong."""
        import sqlite3  # noqa: PLC0415

        if not self.path.exists():
            return None
        try:
            with _turn, contextlib.closing(self._connect(f"{self.path.absolute().as_uri()}?mode=ro")) as db:
                (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
                version = db.execute("PRAGMA user_version").fetchone()[0]
        except (sqlite3.Error, ValueError, TypeError) as e:
            return str(e)
        return answer if answer != "ok" else None if version == _VERSION else f"version {version}"

    def discard(self) -> None:
        """Delete the index; it is made again when next needed."""
        for suffix in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}{suffix}")

    def _sync(self, db: sqlite3.Connection, found: Mapping[str, Found]) -> list[str]:
        wrong = self._differences(db, found)
        _remove(db, wrong)
        for key in wrong:
            if key in found:
                _replace(db, describe(self.root, found[key]))
        fresh = [(item.used, item.size, key) for key, item in found.items()]
        db.executemany("UPDATE files SET used = ?, size = ? WHERE key = ?", fresh)
        return wrong

    def _differences(self, db: sqlite3.Connection, found: Mapping[str, Found]) -> list[str]:
        known = dict(db.execute("SELECT key, stamp FROM files"))
        wrong = [key for key, item in found.items() if known.get(key) != item.stamp]
        # What somebody added since the files were looked at is not in ``found`` and yet there.
        return wrong + [key for key in known if key not in found and not self._exists(key)]

    def _exists(self, key: str) -> bool:
        return (self.root / f"{key}.json").exists() or (self.root / key).exists()

    def _connect(self, uri: str) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415  (a crash whose tables are all there needs no index)

        return sqlite3.connect(uri, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)

    def _ask(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` on the index or, where it can't be written, on one made for the purpose."""
        answer = self._run(work)
        if answer is None:
            with contextlib.closing(self._connect(":memory:")) as db:
                self._create(db)
                answer = work(db)
        return answer

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Run ``work`` in a transaction; None where the index can't be used now. A damaged one is made again."""
        import sqlite3  # noqa: PLC0415

        for attempt in (1, 2):
            try:
                with _turn, contextlib.closing(self._connect(self.path.absolute().as_uri())) as db:
                    # The rollback journal saves it from killed processes. Power failures may damage it, which shows.
                    db.execute("PRAGMA synchronous = OFF")
                    db.execute("BEGIN IMMEDIATE")
                    if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                        self._create(db)
                    answer = work(db)
                    db.execute("COMMIT")
                    return answer
            except (sqlite3.Error, ValueError, TypeError) as e:
                # Text that is no UTF-8 or no JSON, even in SQLite's own message, is damage as well.
                if getattr(e, "sqlite_errorcode", 1) & 0xFF not in _DAMAGED or attempt == 2:
                    return None
                self.discard()
        return None

    def _create(self, db: sqlite3.Connection) -> None:
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                db.execute(statement)
        self._sync(db, walk(self.root))
        db.execute(f"PRAGMA user_version = {_VERSION}")


def _replace(db: sqlite3.Connection, entry: Entry) -> None:
    _remove(db, [entry.key])
    e = entry
    row = (e.key, e.kind, e.source, e.added, e.used, e.size, e.problem, e.stamp)
    db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(map(storable, row)))
    db.executemany(
        "INSERT INTO objects VALUES (?, ?, ?, ?)",
        [(e.key, _text(o.get("debug_id")), _text(o.get("code_id")), json.dumps(o)) for o in e.objects],
    )
    db.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(e.key, storable(k), storable(v)) for k, v in e.tags.items()])


def _remove(db: sqlite3.Connection, keys: Collection[str]) -> None:
    for table in ("files", "objects", "tags"):
        db.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])  # noqa: S608


def _text(value: object) -> str | None:
    return storable(value) if isinstance(value, str) else None
