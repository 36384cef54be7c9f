"""The symbol store: a directory of table files, found by debug id, safe for many processes at once.

::

    imports/v1/ab/<content>.json                manifest of a file imported with ``symbols add``, or why it failed
    by-id/v1/c0/C0BCC3F1...0/<content>.0.table  its tables, one for each object in it
    derived/v1/ab/<key>.json, <key>.0.table     the same of a file named with --symbols
    remote/...                                  debug files fetched from remote sources (remote.py)
    remote/reports/<content>                    images that crash reports brought along
    maps/v2/ab/<key>.table                      source maps of JavaScript (maps.py)
    index-1.1.sqlite                            what is where (index.py), made from the manifests
    tmp/                                        spooled archive members and the like

``content`` is a digest of a file's bytes, so that nothing is imported twice. ``key`` is one of its path, size, times
and inode, so that a changed file gets new tables and an unchanged one need not be read. Every file is written under
another name and renamed; nothing is ever changed in place. Tables come before the manifest that lists them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deadreckon import telemetry
from deadreckon.config import Config, store_path
from deadreckon.errors import LimitExceeded, Malformed, SourceUnavailable, SymbolError
from deadreckon.model.ids import DebugId
from deadreckon.model.tables import CodeTable
from deadreckon.symbols.index import Index
from deadreckon.symbols.storefiles import TOUCH_SECONDS, UPLOADS, alone, place, read_manifest, touch, write_manifest
from deadreckon.symbols.tablefile import TABLE_VERSION, TableFile, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deadreckon.model.tables import RuleTable, SymTable
    from deadreckon.symbols.builder import Builder

__all__ = ["Added", "ModuleTables", "SymbolStore"]

_OPEN_TABLES = 4096
_FULL_SECONDS = 60.0
"""How long nothing is tried when no room can be made."""


@dataclass(slots=True)
class ModuleTables:
    """The tables used for one module, perhaps from several files: lines, unwind information and code from each."""

    sym: SymTable
    rules: RuleTable
    info: dict[str, Any] = field(default_factory=dict)
    code: CodeTable = field(default_factory=CodeTable.empty)

    @classmethod
    def merge(cls, files: list[TableFile]) -> ModuleTables | None:
        """Take the best of each: lines before bare symbols, then more ranges; the most unwind rows."""
        if not files:
            return None
        sym = max(files, key=lambda f: (bool(f.info.get("has_lines")), len(f.sym.range_start)))
        rules = max(files, key=lambda f: len(f.rules.rva))
        code = max(files, key=lambda f: len(f.code.data))
        return cls(sym.sym, rules.rules, {**rules.info, **sym.info}, code.code)


@dataclass(slots=True)
class Added:
    """What became of one file given to ``symbols add``: the objects in it, or why there are none."""

    path: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    known: bool = field(default=False, compare=False)
    """It was imported before, and nothing had to be done."""


class SymbolStore:
    """The store in ``root`` (created when first written to). Safe to use from several threads and processes."""

    def __init__(self, config: Config) -> None:
        self.root = Path(store_path(config))
        self._limits = config.symbols
        self._started: Builder | None = None
        self._max_file = config.symbols.max_file_bytes
        self.index = Index(self.root)
        self._fetched = os.path.join(os.path.realpath(self.root / "remote"), "")
        self._open: OrderedDict[str, tuple[TableFile, float]] = OrderedDict()
        self._no_room_until = 0.0
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the builder's child process."""
        if self._started is not None:
            self._started.close()

    @property
    def _builder(self) -> Builder:
        """The helper process; a crash whose tables are all there needs none, nor the packages to start one."""
        from deadreckon.symbols.builder import Builder  # noqa: PLC0415

        with self._lock:
            if self._started is None:
                self._started = Builder(seconds=self._limits.build_seconds, max_bytes=self._limits.build_bytes)
            return self._started

    @property
    def temporary(self) -> Path:
        """The directory for files that live as long as one call."""
        path = self.root / "tmp"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def identify(self, path: str) -> list[dict[str, Any]]:
        """Return the identities of a debug file's objects. Raises SymbolError, LimitExceeded."""
        return self._builder.identify(path)

    def tables_of(self, path: str) -> list[dict[str, Any]]:
        """Return a debug file's objects, with tables built (once; afterwards they are found by the file's key).

        Each has ``table``, the path of its table file. Raises SymbolError, LimitExceeded, SourceUnavailable; a
        failure of the file (not one of the disk) is remembered for a while like a success, so that a file that takes
        minutes to fail doesn't do so with each crash.
        """
        manifest = self._derived(path)
        answer = self._remembered(manifest)
        if answer is None:
            with self._alone(manifest):
                answer = self._remembered(manifest) or self._build(path, manifest)
        if "error" in answer:
            raise SymbolError(answer["error"])
        return [{**o, "table": str(manifest.parent / o["table"])} for o in answer["objects"]]

    def _remembered(self, manifest: Path) -> dict[str, Any] | None:
        """Return what a manifest says, None where it or a table it lists is gone, or where a failure is too old."""
        answer = self._known(manifest)
        if answer is None or "error" in answer:
            return answer
        return answer if all((manifest.parent / o["table"]).is_file() for o in answer["objects"]) else None

    def _known(self, manifest: Path) -> dict[str, Any] | None:
        answer = read_manifest(manifest)
        if answer is None or "error" not in answer:
            return answer
        try:
            return answer if time.time() - manifest.stat().st_mtime < self._limits.retry_failures_seconds else None
        except OSError:
            return None

    def _derived(self, path: str) -> Path:
        key = self._key(path)
        return self.root / "derived" / f"v{TABLE_VERSION}" / key[:2] / f"{key}.json"

    def _key(self, path: str) -> str:
        try:
            real = os.path.realpath(path)
            stat = os.stat(real)
        except (OSError, ValueError) as e:
            raise SourceUnavailable(f"{path}: {e}") from e
        if stat.st_size > self._max_file:
            raise LimitExceeded("symbols.max_file_bytes", self._max_file, stat.st_size, path)
        parts: tuple[str | int, ...] = (real, stat.st_size, stat.st_ino, stat.st_dev)
        if real.startswith(self._fetched):
            touch(real)  # Such a file never changes, and its time says when it was used.
        else:
            parts += (stat.st_mtime_ns, stat.st_ctime_ns)
        return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def _build(self, path: str, manifest: Path) -> dict[str, Any]:
        source = os.path.realpath(path)
        answer: dict[str, Any] = {"source": source, "added": time.time()}
        try:
            manifest.parent.mkdir(parents=True, exist_ok=True)
            answer["objects"] = self._builder.build(path, str(manifest.with_suffix("")))
        except SourceUnavailable:
            raise  # A full disk says nothing about the file.
        except OSError as e:
            raise SourceUnavailable(f"the symbol store can't be written to: {manifest}: {e.strerror}") from e
        except (SymbolError, LimitExceeded) as e:
            answer["error"] = str(e)
        telemetry.count("deadreckon_table_builds_total", "failed" if "error" in answer else "built")
        files = [manifest.parent / o["table"] for o in answer.get("objects", ())]
        if source.startswith(self._fetched):
            files.append(self.root / "remote" / source.removeprefix(self._fetched))
        self._publish(manifest, answer, files)
        return answer

    def _publish(self, manifest: Path, answer: dict[str, Any], files: list[Path]) -> None:
        """Write a manifest, whose tables are all there."""
        write_manifest(manifest, answer)
        self.note(manifest, *files)

    def note(self, *files: Path) -> None:
        """Record files that were added to the store, and keep it below its limit."""
        size, limit = self.index.put(*files), self._limits.store_max_bytes
        if size is None or not limit or size <= limit or time.monotonic() < self._no_room_until:
            return
        from deadreckon.symbols.housekeeping import make_room  # noqa: PLC0415

        done = make_room(self.index, limit - limit // 10)
        if done.kept > limit:
            self._no_room_until = time.monotonic() + _FULL_SECONDS
        if lost := [key for key in done.removed if key.startswith(("imports/", f"{UPLOADS}/"))]:
            import logging  # noqa: PLC0415

            message = "%d imported debug files or uploads were removed: the store's limit symbols.store_max_bytes is %d"
            logging.getLogger("deadreckon.symbols").warning(message, len(lost), limit)

    def _alone(self, manifest: Path) -> contextlib.AbstractContextManager[None]:
        return alone(self.root / "tmp" / f"{manifest.stem}.lock", 2 * self._limits.build_seconds)

    def open(self, table: str, source: str | None = None) -> TableFile | None:
        """Open a table file; where it is gone or damaged it is removed, and made afresh from ``source``, else None.

        Raises as ``tables_of`` where there is a source.
        """
        found = self._opened(table)
        if found is None and source is not None:
            self.tables_of(source)
            found = self._opened(table)
        return found

    def keep(self, contents: bytes) -> str:
        """Return the path of a file with these bytes, which a report brought along. Raises OSError.

        It stays in the store, like what was fetched, and is found by its content only: nobody vouches for its id.
        """
        path = self.root / "remote" / "reports" / hashlib.blake2b(contents, digest_size=16).hexdigest()
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            written = self.temporary / f"report-{secrets.token_hex(8)}"
            written.write_bytes(contents)
            os.replace(written, path)
        return str(path)

    def _whole(self, table: str) -> bool:
        """Say whether a table can be opened by others too: what is open here may have been removed since."""
        return os.path.isfile(table) and self.open(table) is not None

    def _opened(self, table: str) -> TableFile | None:
        now = time.monotonic()
        with self._lock:
            found, touched = self._open.get(table, (None, 0.0))
            if found is not None:
                self._open.move_to_end(table)
                if now - touched < TOUCH_SECONDS:
                    telemetry.count("deadreckon_tables_total", "memory")
                    return found
        try:
            telemetry.count("deadreckon_tables_total", "disk" if found is None else "memory")
            if found is None:
                found = open_table(Path(table))
            touch(table)
        except OSError:
            return None
        except Malformed:
            with contextlib.suppress(OSError):
                Path(table).unlink()
            return None
        with self._lock:
            self._open[table] = found, now
            while len(self._open) > _OPEN_TABLES:
                self._open.popitem(last=False)
        return found

    def add(self, path: str, *, tags: Mapping[str, str] | None = None, origin: str | None = None) -> Added:
        """Import a debug file: its tables are then found by debug id. Importing the same content again changes nothing.

        ``tags`` are added to those it has. ``origin`` says where the file is from if ``path`` is a passing copy.
        """
        added = Added(path if origin is None else origin)
        try:
            key = self._key(path)
            manifest = self._imports(path)
            with self._alone(manifest):
                self._import(path, key, manifest, dict(tags or {}), added, passing=origin is not None)
        except (SymbolError, LimitExceeded) as e:
            added.problem = str(e).replace(path, added.path)
        except OSError as e:
            added.problem = f"{added.path}: the symbol store can't be written to: {e}"
        return added

    def examine(self, path: str, *, origin: str | None = None) -> Added:
        """Say what importing a debug file would give, without doing it."""
        added = Added(path if origin is None else origin)
        try:
            self._key(path)
            with self._tables(path, passing=origin is not None) as objects:
                shown = [o for o in objects if _importable(o) or o["format"] == "sourcemap"]
                added.objects = [{**o, "table": None} for o in shown]
                _conclude(added, objects)
        except (SymbolError, LimitExceeded) as e:
            added.problem = str(e).replace(path, added.path)
        except OSError as e:
            added.problem = f"{added.path}: the symbol store can't be written to: {e}"
        return added

    def _import(
        self, path: str, key: str, manifest: Path, tags: dict[str, str], added: Added, *, passing: bool
    ) -> None:
        known = self._imported(manifest, added)
        if known is not None:
            if added.known and not tags.items() <= known["tags"].items():
                known["tags"].update(tags)
                self._publish(manifest, known, [Path(o["table"]) for o in added.objects])
            return
        answer: dict[str, Any] = {"source": added.path if passing else os.path.abspath(path), "added": time.time()}
        try:
            with self._tables(path, passing=passing) as objects:
                self._must_be(path, key)
                for number, info in enumerate(objects):
                    if _importable(info):
                        target = self._by_id(DebugId.parse(info["debug_id"])) / f"{manifest.stem}.{number}.table"
                        if not self._whole(str(target)):
                            place(Path(info["table"]), target)
                        added.objects.append({**info, "table": str(target)})
                _conclude(added, objects)
        except SourceUnavailable:
            raise
        except (SymbolError, LimitExceeded) as e:
            added.problem = str(e).replace(path, added.path)
        if added.problem is not None:
            answer["error"] = added.problem.removeprefix(f"{added.path}: ")
        answer["objects"] = [{**o, "table": Path(o["table"]).name} for o in added.objects]
        answer["tags"] = tags
        self._publish(manifest, answer, [Path(o["table"]) for o in added.objects])

    def _imported(self, manifest: Path, added: Added) -> dict[str, Any] | None:
        """Return the manifest of content that was imported before, if its tables are whole; fill ``added`` from it."""
        answer = self._known(manifest)
        if answer is None:
            return None
        if "error" in answer:
            added.problem = f"{added.path}: {answer['error']}"
            return answer
        try:
            answer["tags"] = {**answer.get("tags", {})}
            folders = [self._by_id(DebugId.parse(o["debug_id"])) for o in answer["objects"]]
        except (LookupError, ValueError, TypeError, AttributeError):
            return None
        objects = [{**o, "table": str(f / o["table"])} for f, o in zip(folders, answer["objects"], strict=True)]
        if not objects or not all(self._whole(o["table"]) for o in objects):
            return None
        added.objects, added.known = objects, True
        return answer

    @contextlib.contextmanager
    def _tables(self, path: str, *, passing: bool) -> Iterator[list[dict[str, Any]]]:
        """Give a debug file's objects and tables; those of a passing copy go away with it."""
        if not passing:
            objects = self.tables_of(path)
            for info in objects:
                if self.open(info["table"], path) is None:
                    raise SourceUnavailable(f"{path}: its tables were removed at the same time")
            yield objects
            return
        with tempfile.TemporaryDirectory(dir=self.temporary) as scratch:
            objects = self._builder.build(path, os.path.join(scratch, "table"))
            yield [{**o, "table": os.path.join(scratch, o["table"])} for o in objects]

    def _must_be(self, path: str, key: str) -> None:
        if self._key(path) != key:
            raise SourceUnavailable(f"{path}: it was changed while it was read")

    def _imports(self, path: str) -> Path:
        """Return the manifest of a file's content."""
        try:
            with open(path, "rb") as file:
                key = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as e:
            raise SourceUnavailable(f"{path}: {e.strerror}") from e
        return self.root / "imports" / f"v{TABLE_VERSION}" / key[:2] / f"{key}.json"

    def _by_id(self, debug_id: DebugId) -> Path:
        name = debug_id.breakpad
        return self.root / "by-id" / f"v{TABLE_VERSION}" / name[:2] / name

    def imported(self, debug_id: str) -> list[TableFile]:
        """Return the imported tables of a debug id (canonical or any other spelling, or a GNU build id)."""
        for reading in DebugId.readings(debug_id):
            directory = self._by_id(reading)
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue
            found = (self.open(str(directory / name)) for name in names if name.endswith(".table"))
            if tables := [table for table in found if table is not None]:
                return tables
        return []


def _importable(info: dict[str, Any]) -> bool:
    return info["debug_id"] is not None and bool(info["ranges"] or info["rows"] or info["format"] == "sourcemap")


def _conclude(added: Added, objects: list[dict[str, Any]]) -> None:
    """Say why nothing was found in a file."""
    if not added.objects and any(o["format"] == "sourcemap" for o in objects):
        added.problem = f"{added.path}: a source map without a debug id; it is found where --symbols names it"
    elif not added.objects:
        problems = [p for o in objects for p in o["problems"]] or ["no debug id, symbols or unwind information"]
        added.problem = f"{added.path}: {'; '.join(problems)}"
