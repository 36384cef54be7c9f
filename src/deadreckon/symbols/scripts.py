"""Finding the script and the source map that a frame's file stands for.

A map is looked for, in this order: by the debug id that the report gives, by its chunk id, by the ids in the script's
own comments, at the place that the script names (a header, its comment, a ``data:`` URL), beside the script under its
name with ``.map``. Scripts are looked for by id, then by URL: as it is, without its query, and with ``~`` for scheme
and host, as Sentry's releases name them; in directories by the URL's path.

A map found by name whose debug id is another than the script's is not used: it is of another build.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, TYPE_CHECKING, Protocol

from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed, SourceUnavailable
from deadreckon.model.ids import DebugId
from deadreckon.objects import sourcemap
from deadreckon.objects.artifactbundle import MAP, OTHER, SCRIPT, ArtifactBundle, kind_of_name
from deadreckon.objects.jspaths import joined
from deadreckon.objects.sourcemap import comments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deadreckon.config import Config
    from deadreckon.model.tables import SourceMapTable
    from deadreckon.symbols.maps import MapStore
    from deadreckon.symbols.store import SymbolStore

__all__ = [
    "ArchivePlace",
    "DirectoryPlace",
    "File",
    "Found",
    "Place",
    "Scripts",
    "Wanted",
    "open_place",
    "url_candidates",
]

_KEPT = 1024
_KEPT_BYTES = 256 << 20
"""Of scripts; maps are mapped files."""
_MAX_TRIED = 50
_MAX_PARTS = 32


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
    table: SourceMapTable | None = None
    map_name: str | None = None
    key: str | None = None
    state: str = "no_map"
    problem: str | None = None
    tried: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Add to what was looked for."""
        if len(self.tried) < _MAX_TRIED and what not in self.tried:
            self.tried.append(what)


_NOTHING = Found()


class File(Protocol):
    """A script or a map somewhere. ``path`` is its path on disk if it has one."""

    name: str
    headers: dict[str, str]

    @property
    def path(self) -> str | None:
        """Where it is on disk, None for a member of an archive."""

    def read(self) -> bytes:
        """Return its content. Raises DeadreckonError."""


class Place(Protocol):
    """Somewhere to look for scripts and maps. Safe to use from several threads."""

    def by_id(self, kind: str, ident: str) -> File | None:
        """Return a script or a map by a debug id (canonical) or a chunk id."""

    def by_url(self, kind: str, url: str) -> File | None:
        """Return a script or a map by the URL that it was served at."""


def url_candidates(url: str) -> list[str]:
    """Return the names that an upload may have for a URL: it, and ``~`` with its path, each with and without query."""
    whole = url.partition("#")[0]
    plain = whole.partition("?")[0]
    names = [whole, plain]
    for each in (whole, plain):
        head, separator, rest = each.partition("://")
        if separator and head:
            names.append("~/" + rest.partition("/")[2])
        elif each.startswith("/"):
            names.append("~" + each)
    return list(dict.fromkeys(names))


def open_place(path: str, config: Config) -> Place:
    """Return the place that a path is: a directory, an archive, or one file. Raises SourceUnavailable, Malformed."""
    try:
        if os.path.isdir(path):
            return DirectoryPlace(path, config)
        with open(path, "rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as e:
        raise SourceUnavailable(f"{path}: {e}") from e
    if head.startswith(b"PK\3\4") or (head.startswith(b"SYSB") and head[8:12] == b"PK\3\4"):
        return ArchivePlace(path, config)
    return DirectoryPlace(path, config)


# -- Directories ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _DiskFile:
    name: str
    headers: dict[str, str]
    limit: int

    @property
    def path(self) -> str | None:
        return self.name

    def read(self) -> bytes:
        try:
            with open(self.name, "rb") as file:
                data = file.read(self.limit + 1)
        except OSError as e:
            raise SourceUnavailable(f"{self.name}: {e.strerror}") from e
        if len(data) > self.limit:
            raise LimitExceeded("maps.max_bytes", self.limit, what=self.name)
        return data


class DirectoryPlace:
    """Scripts and maps in a directory, or one file of them; the directory is read when first asked.

    A file is the URL's where its path in the directory ends the URL's path, or the other way round. Of several the one
    that has the most of it counts; where two have equally much, neither does.
    """

    def __init__(self, path: str, config: Config) -> None:
        self.path = path
        self._limit = config.maps.max_bytes
        self._max_files = config.symbols.max_scan_files
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], str] | None = None
        self._names: dict[tuple[str, str], list[str]] = {}

    def by_id(self, kind: str, ident: str) -> File | None:
        """Return a script or a map by a debug id (canonical) or a chunk id."""
        path = self._read()[0].get((kind, ident))
        return _DiskFile(path, {}, self._limit) if path is not None else None

    def by_url(self, kind: str, url: str) -> File | None:
        """Return a script or a map by the URL that it was served at."""
        plain = url.partition("#")[0].partition("?")[0].replace("\\", "/")
        if os.path.isabs(plain) and os.path.isfile(plain) and _within(plain, self.path):
            return _DiskFile(plain, {}, self._limit)
        parts = _parts(plain)
        if not parts:
            return None
        best: list[str] = []
        most = (0, 0)
        for path in self._read()[1].get((kind, parts[-1].lower()), ()):
            inside = _parts(os.path.relpath(path, self.path)) if path != self.path else [os.path.basename(path)]
            same = _common_end(parts, inside)
            fit = same, -abs(len(parts) - len(inside))
            if same < min(len(parts), len(inside)) or fit < most:
                continue
            best, most = ([*best, path] if fit == most else [path]), fit
        return _DiskFile(best[0], {}, self._limit) if len(best) == 1 else None

    def _read(self) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], list[str]]]:
        with self._lock:
            if self._ids is None:
                ids: dict[tuple[str, str], str] = {}
                for path in islice(self._files(), self._max_files):
                    kind = kind_of_name(path)
                    self._names.setdefault((kind, os.path.basename(path).lower()), []).append(path)
                    for ident in _ids_of(path, kind, self._limit):
                        ids.setdefault((kind, ident), path)
                self._ids = ids
            return self._ids, self._names

    def _files(self) -> Iterator[str]:
        if not os.path.isdir(self.path):
            yield self.path
            return
        for directory, names, files in os.walk(self.path):
            names.sort()
            for name in sorted(files):
                path = os.path.join(directory, name)
                if kind_of_name(name) != OTHER and os.path.isfile(path):
                    yield path


def _within(path: str, directory: str) -> bool:
    root = os.path.realpath(directory)
    return os.path.realpath(path) == root or os.path.realpath(path).startswith(os.path.join(root, ""))


def _parts(path: str) -> list[str]:
    rest = path.partition("://")[2].partition("/")[2] if "://" in path else path
    return [part for part in rest.replace("\\", "/").split("/") if part not in {"", ".", "..", "~"}][-_MAX_PARTS:]


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    same = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        same += 1
    return same


def _canonical(text: str | None) -> str | None:
    if text is not None:
        with contextlib.suppress(ValueError):
            return str(DebugId.parse(text))
    return None


def _ids_of(path: str, kind: str, limit: int) -> Iterable[str]:
    """Return the ids in a file; what can't be read has none."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= limit:
                return ()
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _ids(data, kind)
    except (OSError, ValueError, DeadreckonError):
        return ()


def _ids(data: bytes | mmap.mmap, kind: str) -> list[str]:
    if kind == MAP:
        info: dict[str, str | None] = sourcemap.identify(memoryview(data))
        found = (info.get("debug_id"), info.get("chunk_id"))
    else:
        said = comments.read(data)
        found = (_canonical(said.debug_id), said.chunk_id)
    return [ident for ident in found if ident]


# -- Archives ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Member:
    name: str
    headers: dict[str, str]
    archive: ArchivePlace
    entry: str

    @property
    def path(self) -> str | None:
        return None

    def read(self) -> bytes:
        return self.archive.read(self.entry)


class ArchivePlace:
    """Scripts and maps in a ZIP archive, such as Sentry's artifact bundles. Raises Malformed, SourceUnavailable."""

    def __init__(self, path: str, config: Config) -> None:
        self.path = path
        self._limit = config.maps.max_bytes
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], _Member] = {}
        self._urls: dict[tuple[str, str], _Member] = {}
        self._unread: list[tuple[str, _Member]] = []
        with self._opened() as bundle:
            for artifact in bundle.artifacts:
                member = _Member(f"{path}:{artifact.url}", artifact.headers, self, artifact.entry)
                self._urls.setdefault((artifact.kind, artifact.url.partition("#")[0]), member)
                if (debug_id := _canonical(artifact.debug_id)) is not None:
                    self._ids.setdefault((artifact.kind, debug_id), member)
                elif artifact.kind != OTHER:
                    self._unread.append((artifact.kind, member))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[ArtifactBundle]:
        try:
            stream: IO[bytes] = open(self.path, "rb")  # noqa: SIM115
        except OSError as e:
            raise SourceUnavailable(f"{self.path}: {e.strerror}") from e
        with stream:
            yield ArtifactBundle(stream)

    def read(self, entry: str) -> bytes:
        """Return an entry's content. Raises Malformed, LimitExceeded, SourceUnavailable."""
        with self._opened() as bundle:
            return bundle.read(entry, self._limit)

    def by_id(self, kind: str, ident: str) -> File | None:
        """Return a script or a map by a debug id (canonical) or a chunk id."""
        with self._lock:
            if (kind, ident) not in self._ids and self._unread:
                self._look_inside()
            return self._ids.get((kind, ident))

    def by_url(self, kind: str, url: str) -> File | None:
        """Return a script or a map by the URL that it was served at."""
        return next((found for name in url_candidates(url) if (found := self._urls.get((kind, name)))), None)

    def _look_inside(self) -> None:
        """Read the ids of members that the archive's list gives none for; all of them at once."""
        unread, self._unread = self._unread, []
        with contextlib.suppress(DeadreckonError), self._opened() as bundle:
            for kind, member in unread:
                with contextlib.suppress(DeadreckonError):
                    for ident in _ids(bundle.read(member.entry, self._limit), kind):
                        self._ids.setdefault((kind, ident), member)


# -- Looking ----------------------------------------------------------------------------------------------------------


class Scripts:
    """Finds scripts and maps in places, in their order, and in the store. Keeps what it found, and what it did not."""

    def __init__(self, places: Sequence[Place], maps: MapStore, store: SymbolStore | None, config: Config) -> None:
        self._places = places
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

    def imported(self, debug_id: str) -> SourceMapTable | None:
        """Return the map of a debug id that was imported into the store."""
        found = self._store.imported(debug_id) if self._store is not None else []
        return next((file.map for file in found if file.map is not None), None)

    def table(self, file: File) -> SourceMapTable:
        """Return the table of a map. Raises Malformed, LimitExceeded, SourceUnavailable."""
        return self._maps.open(file.path) if file.path is not None else self._maps.read(file.read())

    def embedded(self, url: str) -> SourceMapTable:
        """Return the table of the map in a ``data:`` URL. Raises Malformed, LimitExceeded."""
        return self._maps.read(sourcemap.from_data_url(url, self._limit))


class _Search:
    """One file's search."""

    def __init__(self, scripts: Scripts, wanted: Wanted) -> None:
        self.scripts = scripts
        self.wanted = wanted
        self.found = Found()
        self.debug_id = _canonical(wanted.debug_id)

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
        own = _canonical(said.debug_id) or _canonical(script.headers.get("debug-id") if script is not None else None)
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
        table = self.scripts.imported(ident) if key == "debug_id" else None
        if table is not None:
            self._accept(key, table, f"the store, debug id {ident}")
        return table is not None

    def _by_reference(self, key: str, reference: str, script: File | None) -> bool:
        """Look where the script says that its map is; relative to the script's URL, and to where its file lies."""
        if reference[:5].lower() == "data:":
            self.found.note("data URL")
            try:
                self._accept("data_url", self.scripts.embedded(reference), "data URL")
            except DeadreckonError as e:
                self._refuse("bad_map", f"data URL: {e}")
            return self.found.table is not None
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
            table = self.scripts.table(file)
        except (Malformed, LimitExceeded, SourceUnavailable) as e:
            self._refuse("bad_map", f"{file.name}: {e}")
            return False
        theirs = table.info.get("debug_id") or _canonical(file.headers.get("debug-id"))
        if not trusted and self.debug_id and theirs and theirs != self.debug_id:
            self._refuse("mismatch", f"{file.name}: debug id {theirs}, not {self.debug_id}")
            return False
        self._accept(key, table, file.name)
        return True

    def _accept(self, key: str, table: SourceMapTable, name: str) -> None:
        found = self.found
        found.table, found.key, found.map_name, found.state, found.problem = table, key, name, "found", None

    def _refuse(self, state: str, problem: str) -> None:
        # The first refusal is of the likeliest map.
        if self.found.problem is None:
            self.found.state, self.found.problem = state, problem
