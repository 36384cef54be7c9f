"""Where debug files are looked for: files and directories that the user names, the store, then remote sources."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import normalize_code_id
from deadreckon.objects import breakpad, elf, proguard, sniff
from deadreckon.symbols import layouts
from deadreckon.symbols.store import ModuleTables, SymbolStore
from deadreckon.telemetry import count, staged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deadreckon.model.crash import Module
    from deadreckon.symbols.remote import Answer, RemoteSource
    from deadreckon.symbols.tablefile import TableFile

__all__ = ["Resolution", "SymbolPath", "matches", "resolve", "resolve_all", "unmatched"]

_MAX_DEPTH = 12
_SMALL = 2048
_NO_FILES = {"dev", "proc", "run", "sys"}
"""Directories of a root that hold no files of its disk."""


@dataclass(slots=True)
class Resolution:
    """What was found for a module. ``state`` is the contract's: found, missing, mismatch or malformed."""

    state: str
    tables: ModuleTables | None = None
    problems: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Remote sources that could not be asked, and why."""
    bundles: list[str] = field(default_factory=list)
    """Paths of source bundles of the module's build."""


class SymbolPath:
    """A debug file, or a directory in any known layout (layouts.py) or in none: files are then found by their ids.

    A directory without a layout is read once, ``max_files`` files of it at most.
    """

    def __init__(self, path: str, store: SymbolStore, max_files: int) -> None:
        self.path = path
        self._store = store
        self._max_files = max_files
        self._by_id: dict[str, list[str]] | None = None
        self._by_name: dict[str, list[str]] = {}
        self._mappings: dict[str, proguard.Identity] = {}
        self.packages: list[str] = []
        """Android packages here, whose libraries are looked for by name or offset."""
        self._extracted: dict[tuple[str, str, int], list[str]] = {}
        self._scratch: str | None = None

    def candidates(self, module: Module) -> Iterator[str]:
        """Yield paths of files that may belong to a module, most likely first."""
        if os.path.isdir(self.path):
            for candidate in layouts.candidates(module):
                path = os.path.join(self.path, candidate.path)
                if os.path.isfile(path):
                    yield path
            yield from self._in_place(module.code_file)
        yield from self.by_id(module.debug_id, module.code_id)
        # A file that the user named for this module, going by its name: if it is of another build, that is said.
        if _stem(self.path) in {_stem(module.debug_file), _stem(module.code_file)} and os.path.isfile(self.path):
            yield self.path
        for name in {_base(module.debug_file), _base(module.code_file)} - {""}:
            yield from self._by_name.get(name, ())
        if "!" in module.code_file or module.file_offset:
            yield from self._packed(module)

    def _in_place(self, path: str) -> Iterator[str]:
        """Yield files where the report says that a module was: in a copy of its root directory, or in this directory.

        The debug files of a whole system lie below their own directory in the same way.
        """
        if not path.startswith("/") or ".." in path.split("/"):
            return
        copy = self.path.rstrip("/") + path
        here = [path] if path.startswith(os.path.join(self.path, "")) else []
        yield from (file for file in (copy + ".debug", copy, *here) if os.path.isfile(file))

    def _packed(self, module: Module) -> Iterator[str]:
        """Yield what an Android package has of a module: the debug file of the same build first, then the library."""
        outer = module.code_file.partition("!")[0]
        for package in self.packages:
            if _base(package) != _base(outer):
                continue
            key = (package, module.code_file, module.file_offset)
            if key not in self._extracted:
                self._extracted[key] = self._extract(package, module)
            for path in self._extracted[key]:
                for identity in self._identities(path, {}):
                    yield from self.by_id(identity)
                yield path

    def _extract(self, package: str, module: Module) -> list[str]:
        from deadreckon.symbols import apk  # noqa: PLC0415  (few crashes name a package)

        try:
            if self._scratch is None:
                self._scratch = tempfile.mkdtemp(dir=self._store.temporary)
                weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
            return apk.extract(package, module, tempfile.mkdtemp(dir=self._scratch))
        except (OSError, DeadreckonError):
            return []

    def identities(self) -> set[str]:
        """Return the ids of the files here."""
        self.by_id(None)
        return set(self._by_id or ()) - {""}

    def by_id(self, debug_id: str | None, code_id: str | None = None) -> list[str]:
        """Return the files that carry an id."""
        known = self._by_id
        if known is None:
            # Threads may read the same directory at once; each puts its whole answer in place.
            known, self._by_name, self._mappings = self._index()
            self._by_id = known
        found = [*known.get(debug_id or "", ()), *known.get(code_id or "", ())]
        return list(dict.fromkeys(found))

    def mappings(self) -> dict[str, proguard.Identity]:
        """Return the ProGuard and R8 mappings here, by their paths."""
        self.by_id(None)
        return self._mappings

    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, proguard.Identity]]:
        """Read the directory once: files by the ids they carry, files by their base names, and mappings by path."""
        by_id: dict[str, list[str]] = {}
        by_name: dict[str, list[str]] = {}
        mappings: dict[str, proguard.Identity] = {}
        paths = list(islice(self._files(), self._max_files))
        # A store of thousands of files in a known layout is found by path; reading all of it would take longer.
        if len(paths) > _SMALL and any(map(self._names_ids, paths[:64])):
            return by_id, by_name, mappings
        for path in paths:
            ids = self._identities(path, mappings)
            for key in ids:
                by_id.setdefault(key, []).append(path)
            if ids:
                by_name.setdefault(_base(path).removesuffix(".debug").removesuffix(".sym"), []).append(path)
        return by_id, by_name, mappings

    def _names_ids(self, path: str) -> bool:
        parsed = layouts.parse(os.path.relpath(path, self.path).replace(os.sep, "/"))
        return parsed is not None and bool(parsed.debug_id or parsed.code_id)

    def _files(self) -> Iterator[str]:
        if not os.path.isdir(self.path):
            yield self.path
            return
        for directory, names, files in os.walk(self.path):
            names[:] = sorted(set(names) - (_NO_FILES if directory == "/" else set()))
            if os.path.relpath(directory, self.path).count(os.sep) >= _MAX_DEPTH:
                names.clear()
            for name in sorted(files):
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    yield path

    def _identities(self, path: str, mappings: dict[str, proguard.Identity]) -> set[str]:
        try:
            with open(path, "rb") as file:
                head = file.read(4096)
                kind = sniff(head)
                if head[:4] == b"PK\3\4" and path not in self.packages:
                    self.packages.append(path)
                if kind == "elf":
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                        identity = elf.identify(view)
                    # Without a build id a file has the one that Breakpad makes from its code.
                    if identity.debug_id is not None:
                        return {i for i in (str(identity.debug_id), identity.code_id or "") if i}
                if kind == "proguard":
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                        mappings[path] = proguard.identify(data)
                    return {mappings[path].debug_id}
                if kind == "sourcemap":
                    from deadreckon.objects import sourcemap  # noqa: PLC0415  (few crashes come with any)

                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    return {sourcemap.identify(memoryview(data)).get("debug_id", "")} - {""}
            if kind == "breakpad":
                return {str(breakpad.identify(head).debug_id or "")} - {""}
            if kind is None:
                return set()
            found = self._store.identify(path)
        except (OSError, ValueError, DeadreckonError):
            return set()
        return {i for o in found for i in (o["debug_id"], o["code_id"]) if i}


def unmatched(
    paths: Iterable[SymbolPath | RemoteSource], modules: Sequence[Module], said: Sequence[Diagnostic] = ()
) -> list[Diagnostic]:
    """Return a diagnostic for each single file named by the user whose ids are those of no module.

    ``said`` are diagnostics there are already; what is in them isn't said again.
    """
    files = [p for p in paths if isinstance(p, SymbolPath) and os.path.isfile(p.path)]
    if not files:
        return []
    known = {i for m in modules for i in (m.debug_id, m.code_id and normalize_code_id(m.code_id)) if i}
    found = []
    for source in files:
        if source.mappings():
            continue
        ids = source.identities()
        if not ids or known & ids or any(source.path in (d.message or "") for d in said):
            continue
        stem = _stem(source.path)
        names = {id(m): {_stem(m.debug_file), _stem(m.code_file)} for m in modules}
        meant = next((m for m in modules if stem in names[id(m)]), modules[0] if modules else None)
        theirs = meant.debug_id or meant.code_id or "no id" if meant else "no module"
        name = _base(meant.debug_file or meant.code_file) if meant else ""
        ours = ", ".join(sorted(ids))
        found.append(
            Diagnostic(
                code="symbols_mismatch",
                severity="info",
                stage="symbols",
                message=f"{source.path}: id {ours} is that of no module; {name or 'the crash'} has {theirs}",
                where={"path": source.path, "debug_id": theirs, "got": ours},
            )
        )
    return found


def _stem(path: str | None) -> str:
    name = _base(path).lower()
    return re.sub(r"\.(?:debug|dbg|sym|pdb|exe|dll|so[.\d]*|dylib)$", "", name)


def _base(path: str | None) -> str:
    return (path or "").replace("\\", "/").rsplit("/", 1)[-1]


def resolve(module: Module, paths: Sequence[SymbolPath | RemoteSource], store: SymbolStore) -> Resolution:
    """Find a module's tables: see ``resolve_all``."""
    return resolve_all([module], paths, store)[0]


@staged("resolve")
def resolve_all(
    modules: Sequence[Module], paths: Sequence[SymbolPath | RemoteSource], store: SymbolStore
) -> list[Resolution]:
    """Find the tables of a crash's modules: local paths in order, then what was imported into the store.

    What these lack is fetched from the remote sources among ``paths``, for all modules at once.
    """
    searches = [_Search(module, store) for module in modules]
    local = [path for path in paths if isinstance(path, SymbolPath)]
    for search in searches:
        search.local(local)
    remote = [path for path in paths if not isinstance(path, SymbolPath)]
    lacking = [search for search in searches if not _complete(search.found)]
    if remote and lacking:
        from deadreckon.symbols.remote import fetch  # noqa: PLC0415  (most runs have no remote source)

        for search, answer in zip(lacking, fetch(remote, [s.module for s in lacking]), strict=True):
            search.fetched(answer)
    resolutions = [search.resolution() for search in searches]
    for each in resolutions:
        count("deadreckon_modules_total", each.state)
    return resolutions


@dataclass(slots=True)
class _Search:
    """What is found for one module, one file after the other."""

    module: Module
    store: SymbolStore
    found: list[TableFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    states: set[str] = field(default_factory=set)
    fetch_problems: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    bundles: list[str] = field(default_factory=list)

    def local(self, paths: Sequence[SymbolPath]) -> None:
        """Look in local places; once more where an executable, found by its code id, has told the id of its PDB.

        Dumps by wine's dbghelp have no CodeView records, nor have those of modules whose headers were paged out.
        """
        self._local(paths)
        learned = next((t.info for t in self.found if t.info.get("format") == "pe" and t.info.get("debug_id")), None)
        if self.module.debug_id is None and learned is not None:
            name = self.module.debug_file or f"{_stem(self.module.code_file)}.pdb"
            self.module = replace(self.module, debug_id=learned["debug_id"], debug_file=name)
            self.found.clear()
            self.problems.clear()
            self._local(paths)

    def _local(self, paths: Sequence[SymbolPath]) -> None:
        for source in paths:
            # Directories are not read for more once nothing is missing; a file may be a source bundle.
            if _complete(self.found) and os.path.isdir(source.path):
                continue
            for path in dict.fromkeys(source.candidates(self.module)):
                self.look(path, named=path == source.path)
        if self.module.debug_id is not None and not _complete(self.found):
            self.found.extend(self.store.imported(self.module.debug_id))
        if self.module.contents is not None and not _complete(self.found):
            try:
                self.look(self.store.keep(self.module.contents))
            except OSError as e:
                self.problems.append(f"the symbol store can't be written to: {e}")

    def fetched(self, answer: Answer) -> None:
        for path in answer.files:
            self.look(path)
        self.states.update({"mismatch", "malformed"} & {state for state, _ in answer.problems})
        self.fetch_problems += [why for _, why in answer.problems]
        self.fetch_problems += [f"{source}: {why}" for source, why in answer.unavailable.items()]
        self.unavailable = answer.unavailable

    def look(self, path: str, *, named: bool = False) -> None:
        """Take a file's tables if they are of the module's build.

        ``named``: the user named this very file, for a module of its name. Where the report has no id of the module, as
        a core of a program that was linked without a build id, that has to do, as it does for debuggers.
        """
        by_name = named and self.module.debug_id is None and self.module.code_id is None
        try:
            for info in self.store.tables_of(path):
                if by_name or matches(self.module, info["debug_id"], info["code_id"]):
                    if info["format"] == "sourcebundle":
                        self.bundles.append(path)
                        continue
                    table = self.store.open(info["table"], path)
                    if table is not None:
                        self.found.append(table)
                    self.problems.extend(f"{path}: {p}" for p in info["problems"])
                else:
                    self.states.add("mismatch")
                    self.problems.append(f"{path}: debug id {info['debug_id']}, the module has {self.module.debug_id}")
        except DeadreckonError as e:
            self.problems.append(str(e))
            self.states.add("malformed")

    def resolution(self) -> Resolution:
        tables = ModuleTables.merge([t for t in self.found if len(t.sym.range_start) or len(t.rules.rva)])
        if tables is not None:
            problems = [p for p in self.problems if ": debug id " not in p]
            return Resolution("found", tables, problems, self.unavailable, self.bundles)
        state = "malformed" if "malformed" in self.states or self.found else "mismatch" if self.states else "missing"
        return Resolution(state, None, self.problems + self.fetch_problems, self.unavailable, self.bundles)


def _complete(found: Iterable[TableFile]) -> bool:
    """Say whether nothing is left to look for: lines and unwind information are both there."""
    tables = list(found)
    return any(t.info.get("has_lines") for t in tables) and any(len(t.rules.rva) for t in tables)


def matches(module: Module, debug_id: str | None, code_id: str | None) -> bool:
    """Say whether an object with these ids is the module's build.

    A report that gives offsets in files, and no ids, leaves the file's name: whoever named the symbols knows.
    """
    if module.relative and module.debug_id is None and module.code_id is None:
        return True
    if module.debug_id is not None and debug_id is not None:
        return module.debug_id == debug_id
    return module.code_id is not None and code_id is not None and module.code_id.lower() == code_id
