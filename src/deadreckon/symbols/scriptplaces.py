"""Places where scripts and source maps lie: directories, ZIP archives, single files. See scripts.py.

A script or map is found by an id in it, or by the URL that it was served at: in an archive's list by its names, in a
directory by the URL's path.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Protocol

from deadreckon.errors import DeadreckonError, LimitExceeded, SourceUnavailable
from deadreckon.model.ids import DebugId
from deadreckon.objects import sniff, sourcemap
from deadreckon.objects.artifactbundle import MAP, OTHER, ArtifactBundle, kind_of_name
from deadreckon.objects.sourcemap import comments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deadreckon.config import Config

__all__ = ["ArchivePlace", "DirectoryPlace", "File", "Place", "canonical", "open_place", "url_candidates"]

_MAX_PARTS = 32


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
    """Scripts and maps in a directory, or one file of them; names and ids are read when first asked for.

    A file is the URL's where its path in the directory ends the URL's path, or the other way round. Of several the one
    that has the most of it counts; where two have equally much, neither does.
    """

    def __init__(self, path: str, config: Config) -> None:
        self.path = path
        self._limit = config.maps.max_bytes
        self._max_files = config.symbols.max_scan_files
        self._lock = threading.Lock()
        self._names: dict[tuple[str, str], list[str]] | None = None
        self._ids: dict[tuple[str, str], str] | None = None

    def by_id(self, kind: str, ident: str) -> File | None:
        """Return a script or a map by a debug id (canonical) or a chunk id."""
        path = self._by_ids().get((kind, ident))
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
        for path in self._by_names().get((kind, parts[-1].lower()), ()):
            inside = _parts(os.path.relpath(path, self.path)) if path != self.path else [os.path.basename(path)]
            same = _common_end(parts, inside)
            fit = same, -abs(len(parts) - len(inside))
            if same < min(len(parts), len(inside)) or fit < most:
                continue
            best, most = ([*best, path] if fit == most else [path]), fit
        return _DiskFile(best[0], {}, self._limit) if len(best) == 1 else None

    def _by_names(self) -> dict[tuple[str, str], list[str]]:
        with self._lock:
            if self._names is None:
                self._names = {}
                for path, kind in islice(self._files(), self._max_files):
                    self._names.setdefault((kind, os.path.basename(path).lower()), []).append(path)
            return self._names

    def _by_ids(self) -> dict[tuple[str, str], str]:
        names = self._by_names()
        with self._lock:
            if self._ids is None:
                self._ids = {}
                for path, kind in sorted((path, kind) for (kind, _), paths in names.items() for path in paths):
                    for ident in _ids_of(path, kind, self._limit):
                        self._ids.setdefault((kind, ident), path)
            return self._ids

    def _files(self) -> Iterator[tuple[str, str]]:
        if not os.path.isdir(self.path):
            yield self.path, _kind(self.path)
            return
        for directory, names, files in os.walk(self.path):
            names.sort()
            for name in sorted(files):
                path = os.path.join(directory, name)
                if os.path.isfile(path) and (kind := _kind(path)) != OTHER:
                    yield path, kind


def _kind(path: str) -> str:
    """Tell what a file is, by its name; one without a suffix is looked into: what archives unpack to has numbers."""
    kind = kind_of_name(path)
    if kind == OTHER and "." not in os.path.basename(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return MAP if sniff(file.read(4096)) == "sourcemap" else OTHER
    return kind


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


def canonical(text: str | None) -> str | None:
    """Return a debug id in its canonical spelling, None for what is none."""
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
        found = (canonical(said.debug_id), said.chunk_id)
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
                if (debug_id := canonical(artifact.debug_id)) is not None:
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
