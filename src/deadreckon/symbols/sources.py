"""Where debug files are looked for: files and directories that the user names, then the store."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError
from deadreckon.objects import breakpad, elf, sniff
from deadreckon.symbols import layouts
from deadreckon.symbols.store import ModuleTables, SymbolStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deadreckon.model.crash import Module
    from deadreckon.symbols.tablefile import TableFile

__all__ = ["Resolution", "SymbolPath", "resolve"]

_MAX_DEPTH = 12
_SMALL = 2048


@dataclass(slots=True)
class Resolution:
    """What was found for a module. ``state`` is the contract's: found, missing, mismatch or malformed."""

    state: str
    tables: ModuleTables | None = None
    problems: list[str] = field(default_factory=list)


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

    def candidates(self, module: Module) -> Iterator[str]:
        """Yield paths of files that may belong to a module, most likely first."""
        if os.path.isdir(self.path):
            for candidate in layouts.candidates(module):
                path = os.path.join(self.path, candidate.path)
                if os.path.isfile(path):
                    yield path
        yield from self.by_id(module.debug_id, module.code_id)
        for name in {_base(module.debug_file), _base(module.code_file)} - {""}:
            yield from self._by_name.get(name, ())

    def by_id(self, debug_id: str | None, code_id: str | None = None) -> list[str]:
        """Return the files that carry an id."""
        known = self._by_id
        if known is None:
            # Threads may read the same directory at once; each puts its whole answer in place.
            known, self._by_name = self._index()
            self._by_id = known
        found = [*known.get(debug_id or "", ()), *known.get(code_id or "", ())]
        return list(dict.fromkeys(found))

    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Read the directory once; returns its files by the ids they carry, and by their base names."""
        by_id: dict[str, list[str]] = {}
        by_name: dict[str, list[str]] = {}
        paths = list(islice(self._files(), self._max_files))
        # A store of thousands of files in a known layout is found by path; reading all of it would take longer.
        if len(paths) > _SMALL and any(
            layouts.parse(os.path.relpath(path, self.path).replace(os.sep, "/")) for path in paths[:64]
        ):
            return by_id, by_name
        for path in paths:
            ids = self._identities(path)
            for key in ids:
                by_id.setdefault(key, []).append(path)
            if ids:
                by_name.setdefault(_base(path).removesuffix(".debug").removesuffix(".sym"), []).append(path)
        return by_id, by_name

    def _files(self) -> Iterator[str]:
        if not os.path.isdir(self.path):
            yield self.path
            return
        for directory, names, files in os.walk(self.path):
            names.sort()
            if os.path.relpath(directory, self.path).count(os.sep) >= _MAX_DEPTH:
                names.clear()
            for name in sorted(files):
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    yield path

    def _identities(self, path: str) -> set[str]:
        try:
            with open(path, "rb") as file:
                head = file.read(4096)
                kind = sniff(head)
                if kind == "elf":
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                        identity = elf.identify(view)
                        return {i for i in (str(identity.debug_id or ""), identity.code_id or "") if i}
            if kind == "breakpad":
                return {str(breakpad.identify(head).debug_id or "")} - {""}
            if kind is None:
                return set()
            found = self._store.identify(path)
        except (OSError, ValueError, DeadreckonError):
            return set()
        return {i for o in found for i in (o["debug_id"], o["code_id"]) if i}


def _base(path: str | None) -> str:
    return (path or "").replace("\\", "/").rsplit("/", 1)[-1]


def resolve(module: Module, paths: Sequence[SymbolPath], store: SymbolStore) -> Resolution:
    """Find a module's tables: the named paths in order, then what was imported into the store."""
    found: list[TableFile] = []
    problems: list[str] = []
    states: set[str] = set()
    for source in paths:
        for path in dict.fromkeys(source.candidates(module)):
            try:
                for info in store.tables_of(path):
                    if _matches(module, info["debug_id"], info["code_id"]):
                        table = store.open(info["table"], path)
                        if table is not None:
                            found.append(table)
                        problems.extend(f"{path}: {p}" for p in info["problems"])
                    else:
                        states.add("mismatch")
                        problems.append(f"{path}: debug id {info['debug_id']}, the module has {module.debug_id}")
            except DeadreckonError as e:
                problems.append(str(e))
                states.add("malformed")
        if _complete(found):
            break
    if module.debug_id is not None and not _complete(found):
        found.extend(store.imported(module.debug_id))
    tables = ModuleTables.merge([t for t in found if len(t.sym.range_start) or len(t.rules.rva)])
    if tables is not None:
        return Resolution("found", tables, [p for p in problems if ": debug id " not in p])
    state = "malformed" if "malformed" in states or found else "mismatch" if states else "missing"
    return Resolution(state, None, problems)


def _complete(found: Iterable[TableFile]) -> bool:
    """Say whether nothing is left to look for: lines and unwind information are both there."""
    tables = list(found)
    return any(t.info.get("has_lines") for t in tables) and any(len(t.rules.rva) for t in tables)


def _matches(module: Module, debug_id: str | None, code_id: str | None) -> bool:
    if module.debug_id is not None and debug_id is not None:
        return module.debug_id == debug_id
    return module.code_id is not None and code_id is not None and module.code_id.lower() == code_id
