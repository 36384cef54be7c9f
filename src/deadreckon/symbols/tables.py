"""One debug file to tables: which reader gives what.

symbolic reads functions, lines and inlined calls of every format it opens; what it leaves out or can't know is added
by format here (docs/symbols.md has the table). Unwind information comes from our own readers where we have one, else
from the ``STACK CFI`` text of symbolic's CFI cache. This runs in the builder's child process (builder.py): symbolic
13.9 never returns from ``make_cficache()`` on one known file of 1 KB.
"""

from __future__ import annotations

import io
import mmap
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon import objects
from deadreckon.errors import LimitExceeded, Malformed, SymbolError
from deadreckon.model.ids import Arch, DebugId, normalize_code_id
from deadreckon.model.tables import CodeTable, RuleTable, SymTable
from deadreckon.objects import (
    bitcode,
    breakpad,
    breakpad_repair,
    elf,
    elf_parts,
    macho_code,
    macho_unwind,
    pdb_code,
    pe_code,
    pe_unwind,
    proguard,
    symcache,
)
from deadreckon.objects.rulemerge import merge
from deadreckon.symbols import adjust, companions
from deadreckon.symbols.adjust import BASE_FUNCTIONS
from deadreckon.symbols.tablefile import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BASE_FUNCTIONS", "build", "identify"]

_MAX_ERRORS = 100
_MANAGED = "the code is .NET's; its methods have no fixed addresses"


def identify(path: str) -> list[dict[str, Any]]:
    """Return debug_id, code_id, arch, format and kind of each object in a debug file.

    Raises SymbolError where it can't be opened.
    """
    if _kind(path) == "proguard":
        return [_mapping_info(path)[0]]
    if _kind(path) == "sourcemap":
        from deadreckon.objects import sourcemap  # noqa: PLC0415

        with open(path, "rb") as file, _read_by_us(path):
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return [_map_info(sourcemap.identify(memoryview(data)))]
    return [_info(obj) for obj in _objects(path)]


def build(path: str, output: str, *, rules: bool = True) -> list[dict[str, Any]]:
    """Write the tables of each object in a debug file to ``output`` with its number appended; ``rules``: unwind too.

    Returns what ``identify`` does plus ``table`` (file name), ``has_lines``, ``ranges``, ``rows`` and ``problems``
    (one message for each thing that was lost). Raises SymbolError where the file can't be opened.
    """
    if _kind(path) == "proguard":
        return [_mapping_table(path, f"{output}.0")]
    if _kind(path) == "sourcemap":
        return [_source_map(path, output)]
    results = []
    for number, obj in enumerate(_objects(path)):
        info = _info(obj)
        work = _Work(obj, path, f"{output}.{number}", info)
        work.run(rules=rules)
        info["has_lines"] = adjust.has_lines(work.sym)
        info["ranges"] = len(work.sym.range_start)
        info["rows"] = len(work.rules.rva)
        info["problems"] = work.problems
        table = Path(f"{output}.{number}.table")
        write_table(table, work.sym, work.rules, info, work.code)
        results.append({**info, "table": table.name})
    return results


def _kind(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return objects.sniff(file.read(4096))
    except OSError as e:
        raise SymbolError(f"{path}: {e}") from e


def _source_map(path: str, output: str) -> dict[str, Any]:
    """Write the table of a source map; its problems are the errors that a strict reading finds."""
    from deadreckon.objects import sourcemap  # noqa: PLC0415  (few debug files are source maps)
    from deadreckon.symbols.maps import write_map  # noqa: PLC0415

    with open(path, "rb") as file, _read_by_us(path):
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # The table keeps it.
        errors = [str(error) for error in sourcemap.check(memoryview(data))]
        try:
            table = sourcemap.read(memoryview(data))
        except Malformed as e:
            raise SymbolError(f"{path}: {'; '.join(errors[:_MAX_ERRORS]) or e}") from e
    info = {
        **_map_info(table.info),
        "has_lines": bool((table.contents[:, 1] > table.contents[:, 0]).any()),
        "ranges": len(table),
        "rows": 0,
        "problems": errors if len(errors) <= _MAX_ERRORS else [*errors[:_MAX_ERRORS], f"{len(errors)} errors"],
    }
    target = Path(f"{output}.0.table")
    write_map(target, table, info)
    return {**info, "table": target.name}


def _map_info(info: dict[str, Any]) -> dict[str, Any]:
    return {
        "debug_id": info.get("debug_id"),
        "code_id": None,
        "arch": str(Arch.UNKNOWN),
        "format": "sourcemap",
        "kind": "sourcemap",
    }


@contextmanager
def _read_by_us(path: str) -> Iterator[None]:
    try:
        yield
    except (Malformed, LimitExceeded) as e:
        raise SymbolError(f"{path}: {e}") from e


def _objects(path: str) -> list[Any]:
    import symbolic  # noqa: PLC0415

    try:
        return list(symbolic.Archive.open(path).iter_objects())
    except Exception as e:
        raise SymbolError(f"{path}: {e}") from e


def _mapping_info(path: str) -> tuple[dict[str, Any], proguard.Mapping]:
    data = Path(path).read_bytes()
    identity, mapping = proguard.identify(data), proguard.Mapping(data)
    code_id = normalize_code_id(identity.map_ids[0]) if identity.map_ids else None
    info = {"debug_id": identity.debug_id, "code_id": code_id, "arch": str(Arch.UNKNOWN)}
    return {**info, "format": "proguard", "kind": "mapping"}, mapping


def _mapping_table(path: str, output: str) -> dict[str, Any]:
    """Write a mapping as it is: the text takes the place of a table's strings; its classes count as ranges."""
    info, mapping = _mapping_info(path)
    info |= {"has_lines": mapping.has_lines(), "ranges": len(mapping), "rows": 0, "problems": []}
    if not len(mapping):
        info["problems"] = ["the mapping has no class"]
    sym = SymTable.empty()
    sym.strings = np.fromfile(path, np.uint8)
    table = Path(f"{output}.table")
    write_table(table, sym, RuleTable.empty(), info)
    return {**info, "table": table.name}


def _info(obj: Any) -> dict[str, Any]:
    try:
        debug_id: str | None = str(DebugId.parse(obj.debug_id))
    except ValueError:
        debug_id = None
    code_id = obj.code_id
    return {
        "debug_id": debug_id,
        "code_id": normalize_code_id(code_id) if code_id else None,
        "arch": str(Arch.parse(obj.arch)),
        "format": obj.file_format,
        "kind": obj.kind,
    }


@contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


@contextmanager
def _viewed(path: str) -> Iterator[memoryview]:
    with _mapped(path) as data, memoryview(data) as view:
        yield view


def _symcache(obj: Any) -> SymTable:
    if not obj.features & {"symtab", "debug"}:
        return SymTable.empty()
    with obj.make_symcache().open_stream() as stream:
        return symcache.read(stream.read())


def _short(error: Exception) -> str:
    """Return an error without the quoted lines that symbolic adds to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300]


@dataclass(slots=True)
class _Work:
    """The tables of one object in the making; a reader that fails costs what it would have given."""

    obj: Any
    path: str
    scratch: str
    info: dict[str, Any]
    sym: SymTable = field(default_factory=SymTable.empty)
    rules: RuleTable = field(default_factory=RuleTable.empty)
    code: CodeTable = field(default_factory=CodeTable.empty)
    problems: list[str] = field(default_factory=list)

    def run(self, *, rules: bool) -> None:
        """Fill ``sym``, ``rules`` and ``problems``."""
        failure: Exception | None = None
        try:
            self.sym = _symcache(self.obj)
        except Exception as e:  # noqa: BLE001  (symbolic's errors have no common base outside the package)
            failure = e
        more = _BY_FORMAT.get(self.info["format"])
        with self._costs("symbols"):
            if more is not None and more(self, failure):
                failure = None
        if failure is not None:
            self.problems.insert(0, f"symbols: {_short(failure)}")
        with self._costs("symbols"):
            if self.info["arch"] == Arch.ARM:
                self.sym = adjust.thumb(self.sym)
            self.sym = adjust.without_placeholders(self.sym)
            self.sym.base = adjust.base_ranges(self.sym)
        if rules and self.info["format"] != "elf":
            with self._costs("unwind information"):
                self.rules = self._cfi()

    @contextmanager
    def _costs(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as e:  # noqa: BLE001  (also symbolic's)
            self.problems.append(f"{what}: {_short(e)}")

    def _cfi(self) -> RuleTable:
        if self.info["format"] == "breakpad":
            return breakpad.read_rules(Path(self.path).read_bytes())
        if self.info["format"] == "pe":
            with _viewed(self.path) as data:
                image = pe_unwind.read(data)
            self.problems.extend(f"unwind information: {problem}" for problem in image.problems)
            return image.rules
        if self.info["format"] == "macho":
            with _viewed(self.path) as data:
                found = self._macho_rules(data)
            if found is not None:
                self.problems.extend(f"unwind information: {problem}" for problem in found.problems)
                return found.rules
        if "unwind" not in self.obj.features:
            return RuleTable.empty()
        with self.obj.make_cficache().open_stream() as stream:
            return breakpad.rules_from_text(stream.read(), Arch.parse(self.info["arch"]))

    def _macho_rules(self, data: memoryview) -> macho_unwind.MachRules | None:
        """Return the rules of this object's slice, None where its architecture has none that we read."""
        slices = macho_code.read(data)
        named = [i for i in slices if i.uuid is not None and str(i.uuid) == self.info["debug_id"]]
        image = (named or slices)[0] if named or len(slices) == 1 else None
        return macho_unwind.read(data, image) if image and image.arch in macho_unwind.ARCHITECTURES else None

    def _rewritten(self, suffix: str, write: Callable[[Any], object]) -> SymTable:
        """Return the symbols of another file, made for the purpose and removed again."""
        copy = Path(f"{self.scratch}.{suffix}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with copy.open("wb") as out:
                write(out)
            return _symcache(_objects(str(copy))[0])
        finally:
            copy.unlink(missing_ok=True)

    # -- formats: each returns whether it made up for symbolic's failure ----------------------------------------------

    def add_breakpad(self, failure: Exception | None) -> bool:
        """Read what is left of a file with malformed records, or records of the old syntax."""
        if failure is None and len(self.sym.range_start):
            return False
        with _mapped(self.path) as data:

            def write(out: Any) -> None:
                self.problems.extend(breakpad_repair.repair(data, out.write))

            repaired = self._rewritten("repaired", write)
        self.sym = repaired
        return True

    def add_elf(self, failure: Exception | None) -> bool:
        """Add unwind rules, ends of symbols, names of data, mini debug info; damaged DWARF leaves the symbol table."""
        with open(self.path, "rb") as stream:
            image = elf.read(stream)
            parts = elf_parts.read(stream, functions=failure is not None)
        self.problems.extend(parts.notes)
        if parts.relocatable:
            # Nothing is where it will be: neither DWARF nor .eh_frame has been relocated.
            self.sym = adjust.from_symbols(parts.functions)
            return failure is None
        self.rules = image.rules
        with _viewed(self.path) as data:
            self.code = CodeTable.gather(data, image.code)
        self.problems.extend(image.problems)
        if failure is not None:
            self.sym = adjust.from_symbols(parts.functions)
        self.sym = adjust.clipped(self.sym, image.text)
        if parts.mini is not None:
            with self._costs(".gnu_debugdata"):
                self._mini(parts.mini, image)
        entries = self.sym.entries  # Where functions start; data is none.
        self.sym = adjust.combined(self.sym, adjust.from_symbols(_data(image)))
        self.sym.text, self.sym.entries = image.text, entries
        return False

    def _mini(self, packed: bytes, image: elf.ElfTables) -> None:
        data = elf_parts.unpack_mini(packed)
        inner = adjust.clipped(self._rewritten("mini", lambda out: out.write(data)), image.text)
        if adjust.has_lines(inner) and not adjust.has_lines(self.sym):
            self.sym = adjust.combined(inner, self.sym)
        else:
            self.sym = adjust.combined(self.sym, inner)
        # On 32-bit ARM it holds .debug_frame, which knows more than the file's own .ARM.exidx.
        self.rules = merge(elf.read(io.BytesIO(data)).rules, self.rules)

    def add_macho(self, _: Exception | None) -> bool:
        """Add ends of symbols, and the names that bitcode hid."""
        with _viewed(self.path) as data:
            images = macho_code.read(data)
            image = next((i for i in images if i.uuid is not None and str(i.uuid) == self.info["debug_id"]), None)
            if image is None:
                return False
            code = ((s.address - image.base, s.size, s.offset) for s in image.sections if s.is_code and s.offset)
            self.code = CodeTable.gather(data, code)
        self.sym = adjust.clipped(self.sym, image.text)
        self.sym.text = image.text
        if len(image.starts):
            ends = np.append(image.starts[1:], np.uint32(0xFFFF_FFFE))
            self.sym = adjust.cut(self.sym, np.stack([image.starts, ends], axis=1))
        if bitcode.HIDDEN in self.sym.strings.tobytes() and image.uuid is not None:
            names = companions.hidden_names(self.path, image.uuid)
            if names is None:
                self.problems.append("names are hidden, and there is no BCSymbolMap of this UUID beside the file")
            else:
                self.sym = adjust.renamed(self.sym, bitcode.HIDDEN, lambda text: _revealed(names, text))
        return False

    def add_pe(self, _: Exception | None) -> bool:
        """End exported names with their functions; without an end they name their own address only."""
        with _viewed(self.path) as data:
            image = pe_code.read(data)
            self.code = CodeTable.gather(data, image.code)
        self.sym = adjust.clipped(self.sym, image.text)
        self.sym.text = image.text
        if len(image.functions) or "debug" not in self.obj.features:
            self.sym = adjust.cut(self.sym, image.functions)
        if image.managed and not len(self.sym.range_start):
            self.problems.append(_MANAGED)
        return False

    def add_pdb(self, _: Exception | None) -> bool:
        """Move code to where the image has it, if it was rearranged after linking."""
        with _viewed(self.path) as data:
            layout = pdb_code.read(data)
        if layout.omap is not None:
            self.sym = adjust.moved(self.sym, layout.omap)
        self.sym = adjust.clipped(self.sym, layout.text)
        self.sym.text = layout.text
        return False

    def add_portablepdb(self, _: Exception | None) -> bool:
        """Say why there is nothing."""
        self.problems.append(_MANAGED)
        return False

    def add_sourcebundle(self, _: Exception | None) -> bool:
        """Say what the file is good for."""
        self.problems.append("a source bundle has no symbols; named among the symbols, it gives source context")
        return False


_BY_FORMAT: dict[str, Callable[[_Work, Exception | None], bool]] = {
    "breakpad": _Work.add_breakpad,
    "elf": _Work.add_elf,
    "macho": _Work.add_macho,
    "pe": _Work.add_pe,
    "pdb": _Work.add_pdb,
    "portablepdb": _Work.add_portablepdb,
    "sourcebundle": _Work.add_sourcebundle,
}


def _data(image: elf.ElfTables) -> list[tuple[int, int, str]]:
    """Return the named data outside of code; a jump through a wild pointer may land in it."""
    text = image.text.astype(np.int64)
    if not len(text):
        return []
    starts = np.array([start for start, _, _ in image.objects], np.int64)
    row = np.searchsorted(text[:, 0], starts, side="right") - 1
    in_code = (row >= 0) & (starts < text[np.maximum(row, 0), 1])
    return [o for o, inside in zip(image.objects, in_code.tolist(), strict=True) if not inside]


def _revealed(names: list[str], text: str) -> str | None:
    index = bitcode.hidden_index(text)
    return names[index] if index is not None and index < len(names) and names[index] else None
