"""Source maps in the store: parsed once, then mapped.

::

    maps/v2/ab/<content>.table    by a digest of the map's bytes
    maps/v2/cd/<file>.table       the same file again, by the path, size, times and inode of a map on disk

The file holds all of a SourceMapTable, with what is otherwise left for later (function names, scopes, where source
lines begin) done, and of the map's text only what texts are taken from. It needs the map no longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.config import Config, MapLimits, store_path
from deadreckon.errors import LimitExceeded, Malformed, SourceUnavailable
from deadreckon.model.tables import FunctionTable, LineTable, ScopeTable, SourceMapTable
from deadreckon.objects import sourcemap
from deadreckon.symbols.columnfile import ColumnFormat, open_columns, write_columns
from deadreckon.symbols.storefiles import TOUCH_SECONDS, place, touch
from deadreckon.symbols.tablefile import MAP_MAGIC, TABLE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["KeptMap", "MapStore", "open_map", "write_map"]

_FORMAT = ColumnFormat(
    MAP_MAGIC,
    TABLE_VERSION,
    {
        "map.lines": ("u4", 0),
        "map.first": ("u4", 0),
        "map.column": ("i4", 0),
        "map.place": ("i4", 4),
        "map.ranged": ("u1", 0),
        "map.sources": ("u4", 2),
        "map.roots": ("u4", 2),
        "map.contents": ("u4", 2),
        "map.ignored": ("u1", 0),
        "map.names": ("u4", 2),
        "map.text": ("u1", 0),
        "function.first": ("u4", 0),
        "function.at": ("i4", 3),
        "function.origin": ("u1", 0),
        "function.names": ("u4", 2),
        "function.text": ("u1", 0),
        "scope.scopes": ("i4", 9),
        "scope.variables": ("i4", 2),
        "scope.ranges": ("i4", 10),
        "scope.bindings": ("i4", 5),
        "line.first": ("u4", 0),
        "line.starts": ("u4", 0),
    },
)
_GAP = 4096
"""Bytes between two texts that are kept rather than cut out; commas and quotes, most of the time."""
_OPEN = 256
_MOST_WRITERS = 2
"""Maps that are stored at once, each of which is in memory meanwhile; whoever parses one more waits."""


def write_map(path: Path, table: SourceMapTable, info: Mapping[str, Any] | None = None) -> None:
    """Write a table whole or not at all, with more to note of it. Raises OSError where the disk doesn't take it."""
    functions, scopes = sourcemap.functions(table), sourcemap.scopes(table)
    sourcemap.all_lines(table)
    kept, pieces = _cut(table)
    assert kept.source_lines is not None
    tables = {"map": kept, "function": functions, "scope": scopes, "line": kept.source_lines}
    write_columns(path, _FORMAT, tables, {**kept.info, **(info or {})}, {"map.text": pieces})


def open_map(path: Path) -> SourceMapTable:
    """Map a stored table. Raises Malformed for a damaged file, OSError where it can't be opened."""
    found, info = open_columns(path, _FORMAT)
    columns: dict[str, Any] = found["map"]
    table = SourceMapTable(
        **columns,
        info=info,
        functions=FunctionTable(**found["function"]),
        scopes=ScopeTable(**found["scope"]),
        source_lines=LineTable(**found["line"]),
    )
    functions = table.functions
    assert functions is not None
    sources = len(table.sources)
    whole = (
        len(table.place) == len(table.column)
        and len(table.ranged) in {0, len(table.column)}
        and all(len(each) == sources for each in (table.roots, table.contents, table.ignored, functions.origin))
        # The kernels take these for granted.
        and _ascends(table.first, len(table.lines), len(table.column), least=1)
        and _ascends(functions.first, sources, len(functions.at), least=0)
    )
    if not whole:
        raise Malformed(f"map file {path.name}", expected="columns that fit each other")
    return table


def _ascends(first: NDArray[np.uint32], rows: int, end: int, *, least: int) -> bool:
    return (
        len(first) == rows + 1
        and first[0] == 0
        and first[-1] == end
        and bool(np.all(first[1:] >= first[:-1].astype(np.int64) + least))
    )


def _cut(table: SourceMapTable) -> tuple[SourceMapTable, list[NDArray[np.uint8]]]:
    """Return the table for a text that has only what its spans point to, and the pieces that make that text.

    Mappings are most of the rest. ``text`` itself stays as it is.
    """
    assert table.source_lines is not None
    extra = table.info["extra"]
    others = np.array(list(extra.values()), np.uint32).reshape(-1, 2)
    spans = np.concatenate([table.sources, table.roots, table.contents, table.names, others]).astype(np.int64)
    spans = spans[spans[:, 1] > spans[:, 0]]
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    begins = np.flatnonzero(np.append(True, spans[1:, 0] > ends[:-1] + _GAP)) if len(spans) else np.zeros(0, np.int64)
    starts = spans[begins, 0]
    stops = ends[np.append(begins[1:], len(spans)) - 1] if len(spans) else starts
    sizes = stops - starts
    moved_by = starts - np.append(np.int64(0), np.cumsum(sizes)[:-1])[: len(starts)]

    def moved(offsets: NDArray[np.uint32]) -> NDArray[np.uint32]:
        if not len(starts):
            return np.zeros_like(offsets)
        piece = np.searchsorted(starts, offsets, side="right") - 1
        return np.where(piece >= 0, offsets - moved_by[piece], 0).astype(np.uint32)

    def spanned(of: NDArray[np.uint32]) -> NDArray[np.uint32]:
        here = moved(of[:, 0])
        return np.stack([here, here + (of[:, 1] - of[:, 0])], axis=1).astype(np.uint32)

    others = spanned(others)
    pieces = [table.text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    cut = replace(
        table,
        sources=spanned(table.sources),
        roots=spanned(table.roots),
        contents=spanned(table.contents),
        names=spanned(table.names),
        info={
            **table.info,
            "functions": [],
            "scopes": [],
            "extra": dict(zip(extra, others.tolist(), strict=True)),
        },
        source_lines=replace(table.source_lines, starts=moved(table.source_lines.starts)),
        decoded={},
    )
    return cut, pieces


class KeptMap:
    """A source map at hand: ``table`` is the parsed one until that is stored, then the stored file's, with the same.

    Who uses a table more than once holds on to the one; where texts lie differs.
    """

    __slots__ = ("table",)

    def __init__(self, table: SourceMapTable) -> None:
        self.table = table


class MapStore:
    """Source maps by content, parsed once for all processes. Safe to use from several threads and processes.

    A map is at hand as soon as it is parsed; a thread stores it meanwhile, since writing it takes longer than parsing.
    A store that can't be written to costs time only. Tables of maps on disk are found without reading those again.
    """

    def __init__(self, config: Config, note: Callable[[Path], None] | None = None) -> None:
        """``note`` is told of each file that is added (SymbolStore.note)."""
        self.root = Path(store_path(config)) / "maps" / f"v{TABLE_VERSION}"
        self._limits: MapLimits = config.maps
        self._note = note
        self._open: OrderedDict[str, tuple[KeptMap, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._writers: list[threading.Thread] = []

    def read(self, data: bytes | bytearray | memoryview) -> KeptMap:
        """Return the map of these bytes. Raises Malformed, LimitExceeded."""
        target = self._place(_digest(data))
        return self._opened(target) or self._parsed(memoryview(data), target, target)

    def open(self, path: str | os.PathLike[str]) -> KeptMap:
        """Return a map on disk. Raises Malformed, LimitExceeded, SourceUnavailable."""
        try:
            real = os.path.realpath(path)
            stat = os.stat(real)
            parts = (real, stat.st_size, stat.st_ino, stat.st_dev, stat.st_mtime_ns, stat.st_ctime_ns)
            target = self._place(_digest(repr(parts).encode("utf-8", "surrogateescape")))
            if (found := self._opened(target)) is not None:
                return found
            if stat.st_size > self._limits.max_bytes:
                raise LimitExceeded("maps.max_bytes", self._limits.max_bytes, stat.st_size, real)
            if stat.st_size == 0:
                raise Malformed("source map", offset=0, expected="an object", got="an empty file")
            with open(real, "rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as e:
            raise SourceUnavailable(f"{path}: {e.strerror}") from e
        except ValueError as e:  # A NUL byte in the path.
            raise SourceUnavailable(f"{path!r}: {e}") from e
        return self._parsed(data, target, None)

    def flush(self) -> None:
        """Wait until everything is stored."""
        with self._lock:
            waiting = list(self._writers)
        for thread in waiting:
            thread.join()

    def _parsed(self, data: memoryview, target: Path, content: Path | None) -> KeptMap:
        """Parse a map that is asked for by ``target``, and store it there; ``content`` is the place by its digest."""
        table = sourcemap.read(data, self._limits)
        found = KeptMap(table)
        with self._lock:
            if (known := self._open.get(target.name)) is not None:
                return known[0]  # Another thread's, meanwhile.
            self._remember(target, found)
        work = threading.Thread(
            target=self._store, args=(found, table, data, target, content), name="deadreckon-maps", daemon=False
        )
        try:
            work.start()
        except RuntimeError:  # The system has no more threads, or the interpreter is ending.
            work.run()
            return found
        with self._lock:
            before = [thread for thread in self._writers if thread.is_alive()]
            self._writers = [*before, work]
        if len(before) >= _MOST_WRITERS:
            before[0].join()
        return found

    def _store(
        self, found: KeptMap, table: SourceMapTable, data: memoryview, target: Path, content: Path | None
    ) -> None:
        """Write a table; the map at hand is then what was written."""
        # What is in memory serves this process where there is no room for it.
        with contextlib.suppress(OSError, MemoryError):
            content = content or self._place(_digest(data))
            if _mapped(content) is None:
                write_map(content, table)
                self._noted(content)
            if content != target:
                place(content, target)
                self._noted(target)
            found.table = _mapped(target) or table

    def _noted(self, path: Path) -> None:
        if self._note is not None:
            self._note(path)

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.table"

    def _opened(self, path: Path) -> KeptMap | None:
        name = path.name
        with self._lock:
            found, touched = self._open.get(name, (None, 0.0))
            if found is not None:
                self._open.move_to_end(name)
                if time.monotonic() - touched < TOUCH_SECONDS:
                    return found
        if found is None:
            table = _mapped(path)
            if table is None:
                return None
            found = KeptMap(table)
        touch(str(path))
        with self._lock:
            self._remember(path, found)
        return found

    def _remember(self, path: Path, found: KeptMap) -> None:
        self._open[path.name] = found, time.monotonic()
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)


def _mapped(path: Path) -> SourceMapTable | None:
    """Map a stored table, None where there is none; a damaged one is removed."""
    try:
        return open_map(path)
    except OSError:
        return None
    except Malformed:
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
