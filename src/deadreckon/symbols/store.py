"""The symbol store: a directory of table files, found by debug id, safe for many processes at once.

::

    by-id/v1/c0/C0BCC3F1...0/<key>.table    imported with ``symbols add``
    derived/v1/ab/<key>.json, .table        made from a file named with --symbols, or a failure to remember
    tmp/                                    spooled archive members and the like

``key`` is a digest of a source file's path, size, times and inode, so that a changed file gets new tables. Every file
is written under another name and renamed; nothing is ever changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deadreckon.config import Config, store_path
from deadreckon.errors import LimitExceeded, Malformed, SourceUnavailable, SymbolError
from deadreckon.model.ids import DebugId
from deadreckon.symbols.tablefile import TABLE_VERSION, TableFile, open_table

if TYPE_CHECKING:
    from deadreckon.model.tables import RuleTable, SymTable
    from deadreckon.symbols.builder import Builder

__all__ = ["Added", "ModuleTables", "SymbolStore"]

_OPEN_TABLES = 4096


@dataclass(slots=True)
class ModuleTables:
    """The tables used for one module, perhaps from two files (lines from one, unwind information from the other)."""

    sym: SymTable
    rules: RuleTable
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def merge(cls, files: list[TableFile]) -> ModuleTables | None:
        """Take the best of each: lines before bare symbols, then more ranges; the most unwind rows."""
        if not files:
            return None
        sym = max(files, key=lambda f: (bool(f.info.get("has_lines")), len(f.sym.range_start)))
        rules = max(files, key=lambda f: len(f.rules.rva))
        return cls(sym.sym, rules.rules, {**rules.info, **sym.info})


@dataclass(slots=True)
class Added:
    """What became of one file given to ``symbols add``: the objects in it, or why there are none."""

    path: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None


class SymbolStore:
    """The store in ``root`` (created when first written to). Safe to use from several threads and processes."""

    def __init__(self, config: Config) -> None:
        self.root = Path(store_path(config))
        self._limits = config.symbols
        self._started: Builder | None = None
        self._max_file = config.symbols.max_file_bytes
        self._open: OrderedDict[str, TableFile] = OrderedDict()
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
        failure is remembered like a success, so that a file that takes minutes to fail does so once.
        """
        manifest = self._derived(path)
        answer = _remembered(manifest) or self._build(path, manifest)
        if "error" in answer:
            raise SymbolError(answer["error"])
        return [{**o, "table": str(manifest.parent / o["table"])} for o in answer["objects"]]

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
        parts = (real, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
        return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def _build(self, path: str, manifest: Path) -> dict[str, Any]:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        answer: dict[str, Any]
        try:
            answer = {"objects": self._builder.build(path, str(manifest.with_suffix("")))}
        except SourceUnavailable:
            raise  # A full disk says nothing about the file.
        except (SymbolError, LimitExceeded) as e:
            answer = {"error": str(e)}
        temporary = manifest.with_name(f".{manifest.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        temporary.write_text(json.dumps(answer), "utf-8")
        temporary.replace(manifest)
        return answer

    def open(self, table: str, source: str | None = None) -> TableFile | None:
        """Open a table file; where it is gone or damaged it is removed, and made afresh from ``source``, else None.

        Raises as ``tables_of`` where there is a source.
        """
        found = self._opened(table)
        if found is None and source is not None:
            self.tables_of(source)
            found = self._opened(table)
        return found

    def _opened(self, table: str) -> TableFile | None:
        with self._lock:
            found = self._open.get(table)
            if found is not None:
                self._open.move_to_end(table)
                return found
        try:
            found = open_table(Path(table))
        except OSError:
            return None
        except Malformed:
            with contextlib.suppress(OSError):
                Path(table).unlink()
            return None
        with self._lock:
            self._open[table] = found
            while len(self._open) > _OPEN_TABLES:
                self._open.popitem(last=False)
        return found

    def add(self, path: str) -> Added:
        """Import a debug file: its tables are then found by debug id. Importing it again changes nothing."""
        added = Added(path)
        try:
            objects = self.tables_of(path)
            for info in objects:
                if info["debug_id"] is None or not (info["ranges"] or info["rows"]):
                    continue
                source = Path(info["table"])
                target = self._by_id(DebugId.parse(info["debug_id"])) / source.name
                if self.open(str(source), path) and not self.open(str(target)):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        os.link(source, target)
                added.objects.append(info)
        except (SymbolError, LimitExceeded) as e:
            added.problem = str(e)
            return added
        if not added.objects:
            problems = [p for o in objects for p in o["problems"]] or ["no debug id, symbols or unwind information"]
            added.problem = f"{path}: {'; '.join(problems)}"
        return added

    def _by_id(self, debug_id: DebugId) -> Path:
        name = debug_id.breakpad
        return self.root / "by-id" / f"v{TABLE_VERSION}" / name[:2] / name

    def imported(self, debug_id: str) -> list[TableFile]:
        """Return the imported tables of a debug id (canonical or any other spelling)."""
        try:
            directory = self._by_id(DebugId.parse(debug_id))
            names = sorted(os.listdir(directory))
        except (ValueError, OSError):
            return []
        found = (self.open(str(directory / name)) for name in names if name.endswith(".table"))
        return [table for table in found if table is not None]


def _remembered(manifest: Path) -> dict[str, Any] | None:
    """Return what a manifest says, None where it or a table it lists is gone or damaged."""
    try:
        answer: dict[str, Any] = json.loads(manifest.read_bytes())
        if "error" in answer or all((manifest.parent / o["table"]).is_file() for o in answer["objects"]):
            return answer
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None
