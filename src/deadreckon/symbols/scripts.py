"""Finding the script and the source map that a frame's file stands for.

A map is looked for, in this order: by the debug id that the report gives, by its chunk id, by the ids in the script's
own comments, at the place that the script names (a header, its comment, a ``data:`` URL), beside the script under its
name with ``.map``. Scripts are looked for by id, then by URL: as it is, without its query, and with ``~`` for scheme
and host, as Sentry's releases name them; in directories by the URL's path.

A map found by name whose debug id is another than the script's is not used: it is of another build.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed, SourceUnavailable
from deadreckon.objects import sourcemap
from deadreckon.objects.artifactbundle import MAP, SCRIPT
from deadreckon.objects.jspaths import joined
from deadreckon.objects.sourcemap import comments
from deadreckon.symbols.maps import KeptMap
from deadreckon.symbols.scriptplaces import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.config import Config
    from deadreckon.model.tables import SourceMapTable
    from deadreckon.symbols.maps import MapStore
    from deadreckon.symbols.scriptplaces import File, Place
    from deadreckon.symbols.store import SymbolStore

__all__ = ["Found", "Scripts", "Wanted"]

_KEPT = 1024
_KEPT_BYTES = 256 << 20
"""Of scripts; maps are mapped files."""
_MAX_TRIED = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a frame's file: where the script was loaded from, and the ids that the report gives for it."""

    url: str
    debug_id: str | None = None
    chunk_id: str | None = None


@dataclass(slots=True)
class Found:
    """What was found for a file.

    ``key`` says how the map was found: ``debug_id``, ``chunk_id``, ``data_url``, ``header``, ``comment`` or ``name``.
    Without a map, ``state`` tells ``no_map``, ``bad_map`` or ``mismatch``, and ``problem`` says it in words; ``tried``
    is what was looked for.
    """

    script: bytes | None = None
    script_name: str | None = None
    map: KeptMap | None = None
    map_name: str | None = None
    key: str | None = None
    state: str = "no_map"
    problem: str | None = None
    tried: list[str] = field(default_factory=list)

    @property
    def table(self) -> SourceMapTable | None:
        """The map's table. It changes once, to one with the same content, when it has been stored."""
        return self.map.table if self.map is not None else None

    def note(self, what: str) -> None:
        """Add to what was looked for."""
        if len(self.tried) < _MAX_TRIED and what not in self.tried:
            self.tried.append(what)


_NOTHING = Found()


class Scripts:
    """Finds scripts and maps in places, in their order, in the store, and on the web where that is switched on.

    Keeps what it found, and what it did not. Safe to use from several threads.
    """

    def __init__(self, places: Sequence[Place], maps: MapStore, store: SymbolStore | None, config: Config) -> None:
        self._places = list(places)
        if config.maps.fetch:
            from deadreckon.symbols.webplace import WebPlace  # noqa: PLC0415  (off by default)

            self._places.append(WebPlace(config))
        self._maps = maps
        self._store = store
        self._limit = config.maps.max_bytes
        self._kept: OrderedDict[Wanted, Found] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def find(self, wanted: Wanted) -> Found:
        """Return the script and the map of a frame's file, as far as they are there; never raises for bad files."""
        with self._lock:
            if (known := self._kept.get(wanted)) is not None:
                self._kept.move_to_end(wanted)
                return known
        found = _Search(self, wanted).run()
        with self._lock:
            self._size += len(found.script or b"") - len((self._kept.pop(wanted, None) or _NOTHING).script or b"")
            self._kept[wanted] = found
            while len(self._kept) > _KEPT or (self._size > _KEPT_BYTES and len(self._kept) > 1):
                self._size -= len(self._kept.popitem(last=False)[1].script or b"")
        return found

    def by_id(self, kind: str, ident: str) -> File | None:
        """Return a script or a map by id, from the first place that has it."""
        return next((file for place in self._places if (file := place.by_id(kind, ident)) is not None), None)

    def by_url(self, kind: str, url: str) -> File | None:
        """Return a script or a map by URL, from the first place that has it."""
        return next((file for place in self._places if (file := place.by_url(kind, url)) is not None), None)

    def imported(self, debug_id: str) -> KeptMap | None:
        """Return the map of a debug id that was imported into the store."""
        found = self._store.imported(debug_id) if self._store is not None else []
        return next((KeptMap(file.map) for file in found if file.map is not None), None)

    def map(self, file: File) -> KeptMap:
        """Return what a file has. Raises Malformed, LimitExceeded, SourceUnavailable."""
        return self._maps.open(file.path) if file.path is not None else self._maps.read(file.read())

    def embedded(self, url: str) -> KeptMap:
        """Return the map in a ``data:`` URL. Raises Malformed, LimitExceeded."""
        return self._maps.read(sourcemap.from_data_url(url, self._limit))


class _Search:
    """One file's search."""

    def __init__(self, scripts: Scripts, wanted: Wanted) -> None:
        self.scripts = scripts
        self.wanted = wanted
        self.found = Found()
        self.debug_id = canonical(wanted.debug_id)

    def run(self) -> Found:
        found = self.found
        script = self._script()
        said = comments.Comments()
        if script is not None:
            try:
                found.script, found.script_name = script.read(), script.name
                said = comments.read(found.script)
            except DeadreckonError as e:
                found.note(str(e))
        own = canonical(said.debug_id) or canonical(script.headers.get("debug-id") if script is not None else None)
        ids = [("debug_id", self.debug_id), ("chunk_id", self.wanted.chunk_id)]
        for key, ident in [*ids, ("debug_id", own), ("chunk_id", said.chunk_id)]:
            if ident and self._by_id(key, ident):
                return found
        self.debug_id = self.debug_id or own
        header = (
            next((script.headers[n] for n in ("sourcemap", "x-sourcemap") if n in script.headers), None)
            if script
            else None
        )
        for key, reference in (("header", header), ("comment", said.map_url)):
            if reference and self._by_reference(key, reference, script):
                return found
        self._by_url("name", self.wanted.url.partition("#")[0].partition("?")[0] + ".map")
        return found

    def _script(self) -> File | None:
        for ident in (self.debug_id, self.wanted.chunk_id):
            if ident and (file := self.scripts.by_id(SCRIPT, ident)) is not None:
                return file
        return self.scripts.by_url(SCRIPT, self.wanted.url) if self.wanted.url else None

    def _by_id(self, key: str, ident: str) -> bool:
        self.found.note(f"{key.replace('_', ' ')} {ident}")
        file = self.scripts.by_id(MAP, ident)
        if file is not None:
            return self._take(key, file, trusted=True)
        kept = self.scripts.imported(ident) if key == "debug_id" else None
        if kept is not None:
            self._accept(key, kept, f"the store, debug id {ident}")
        return kept is not None

    def _by_reference(self, key: str, reference: str, script: File | None) -> bool:
        """Look where the script says that its map is; relative to the script's URL, and to where its file lies."""
        if reference[:5].lower() == "data:":
            self.found.note("data URL")
            try:
                self._accept("data_url", self.scripts.embedded(reference), "data URL")
            except DeadreckonError as e:
                self._refuse("bad_map", f"data URL: {e}")
            return self.found.map is not None
        if script is not None and script.path is not None:
            beside = os.path.normpath(joined(script.path, reference.partition("#")[0].partition("?")[0]))
            if (file := self.scripts.by_url(MAP, beside)) is not None and file.path == beside:
                self.found.note(beside)
                return self._take(key, file)
        return self._by_url(key, joined(self.wanted.url, reference))

    def _by_url(self, key: str, url: str) -> bool:
        self.found.note(url)
        file = self.scripts.by_url(MAP, url)
        return file is not None and self._take(key, file)

    def _take(self, key: str, file: File, *, trusted: bool = False) -> bool:
        """Use a map unless it can't be read or is another build's; one that was found by id need not be compared."""
        try:
            kept = self.scripts.map(file)
        except (Malformed, LimitExceeded, SourceUnavailable) as e:
            self._refuse("bad_map", f"{file.name}: {e}")
            return False
        theirs = kept.table.info.get("debug_id") or canonical(file.headers.get("debug-id"))
        if not trusted and self.debug_id and theirs and theirs != self.debug_id:
            self._refuse("mismatch", f"{file.name}: debug id {theirs}, not {self.debug_id}")
            return False
        self._accept(key, kept, file.name)
        return True

    def _accept(self, key: str, kept: KeptMap, name: str) -> None:
        found = self.found
        found.map, found.key, found.map_name, found.state, found.problem = kept, key, name, "found", None

    def _refuse(self, state: str, problem: str) -> None:
        # The first refusal is of the likeliest map.
        if self.found.problem is None:
            self.found.state, self.found.problem = state, problem
