"""Which ProGuard or R8 mappings a crash's Java frames were renamed by, among those that the user has.

A mapping is found by its UUID, where the report names it, or by the id that R8 wrote both into the mapping and, as the
source file of every class, into the stack (``r8-map-id-...``). A report that names none is retraced by the only mapping
that was named with ``--symbols``; of several nobody can tell.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import DebugId
from deadreckon.symbols.sources import SymbolPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deadreckon.objects.proguard import Identity, Mapping
    from deadreckon.symbols.store import SymbolStore

__all__ = ["FORMAT", "Mappings"]

FORMAT = "proguard"
"""What a mapping's table in the store has as its format; the text is the table's strings."""
_OPEN = 16
_SHORT = 7
"""Digits of a map id that R8 writes at least."""


class Mappings:
    """Mappings, kept open from one crash to the next. Safe to use from several threads."""

    def __init__(self, store: SymbolStore) -> None:
        self._store = store
        self._open: OrderedDict[tuple[object, ...], Mapping] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self, named: Sequence[str], map_ids: Sequence[str], paths: Iterable[object]
    ) -> tuple[list[Mapping], list[Diagnostic]]:
        """Return the mappings of a crash, and what is to be said of them.

        ``named`` are UUIDs that the report gives, ``map_ids`` ids of R8's that its frames give.
        """
        problems: list[Diagnostic] = []
        local = [(path, id_) for p in paths if isinstance(p, SymbolPath) for path, id_ in p.mappings().items()]
        if named or map_ids:
            found = list(self._named(named, map_ids, local, problems))
            if not found:
                problems.append(_missing([*named, *map_ids], local))
            return found, problems
        distinct = {id_.debug_id: path for path, id_ in local}
        if len(distinct) > 1:
            message = f"{len(distinct)} mappings were given, and the report names none; Java frames stay as they are"
            problems.append(Diagnostic(code="symbols_missing", severity="warning", stage="symbols", message=message))
            return [], problems
        return list(self._opened(distinct.values(), problems)), problems

    def _named(
        self,
        named: Iterable[str],
        map_ids: Iterable[str],
        local: Sequence[tuple[str, Identity]],
        problems: list[Diagnostic],
    ) -> Iterator[Mapping]:
        for text in dict.fromkeys(named):
            readings = {str(reading) for reading in DebugId.readings(text)}
            paths = [path for path, id_ in local if id_.debug_id in readings]
            if paths:
                yield from self._opened(paths[:1], problems)
                continue
            for table in self._store.imported(text):
                if table.info.get("format") == FORMAT:
                    try:
                        yield self._kept((text,), table.sym.strings.data)
                    except DeadreckonError as e:
                        problems.append(_unread(text, e))
                    break
        for text in dict.fromkeys(map_ids):
            paths = [path for path, id_ in local if any(_same(text, known) for known in id_.map_ids)]
            yield from self._opened(paths[:1], problems)

    def _opened(self, paths: Iterable[str], problems: list[Diagnostic]) -> Iterator[Mapping]:
        for path in paths:
            try:
                yield self._of_file(path)
            except (OSError, ValueError, DeadreckonError) as e:
                problems.append(_unread(path, e))

    def _of_file(self, path: str) -> Mapping:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            key = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
            return self._kept(key, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _kept(self, key: tuple[object, ...], data: memoryview | mmap.mmap) -> Mapping:
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        from deadreckon.objects.proguard import Mapping  # noqa: PLC0415  (most crashes are not Java's)

        mapping = Mapping(data)
        with self._lock:
            self._open[key] = mapping
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return mapping


def _same(one: str, other: str) -> bool:
    """Tell whether two map ids are one: R8 shortens them at will."""
    return min(len(one), len(other)) >= _SHORT and (one.startswith(other) or other.startswith(one))


def _unread(name: str, error: Exception) -> Diagnostic:
    return Diagnostic(code="symbols_malformed", severity="warning", stage="symbols", message=f"{name}: {error}")


def _missing(wanted: Sequence[str], local: Sequence[tuple[str, Identity]]) -> Diagnostic:
    message = f"no mapping with id {', '.join(wanted)}"
    if local:
        has = ", ".join(f"{path} has {id_.debug_id}" for path, id_ in local[:8])
        return Diagnostic(code="symbols_mismatch", severity="info", stage="symbols", message=f"{message}; {has}")
    return Diagnostic(code="symbols_missing", severity="info", stage="symbols", message=message)
