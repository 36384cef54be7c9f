"""One debug file to tables: which reader gives what.

symbolic reads functions, lines and inlined calls of every format it opens; unwind information comes from our own
readers where we have one, else from the ``STACK CFI`` text of symbolic's CFI cache. This runs in the builder's child
process (builder.py): symbolic 13.9 never returns from ``make_cficache()`` on one known file of 1 KB.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.errors import SymbolError
from deadreckon.model.ids import Arch, DebugId, normalize_code_id
from deadreckon.model.tables import NONE, RuleTable, SymTable
from deadreckon.objects import breakpad, elf, symcache
from deadreckon.symbols.tablefile import write_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BASE_FUNCTIONS", "LANGUAGES", "build", "identify"]

BASE_FUNCTIONS = (
    "_start",
    "__start",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "thread_start",
    "_RtlUserThreadStart",
    "RtlUserThreadStart",
    "_RtlUserThreadStart@8",
)
"""Functions that nothing calls: a stack ends in one of them. Breakpad's text can't say so, and walkers that rely on
it add what happens to lie above (seen after ``_start`` in rust-minidump's linux-mini.dmp)."""

LANGUAGES = ("", "c", "cpp", "d", "go", "objc", "objcpp", "rust", "swift", "csharp", "visualbasic", "fsharp")
"""Language of a function by symbolic's number."""

# Names that dump_syms makes up for code without a symbol; taken for a name they would let any stray word on a stack
# pass as a return address (5 of the 12 frames printed by others for lldb/sigsegv.dmp).
_PLACEHOLDER = re.compile(r"<(?:name omitted|unknown in .*|.* ELF section in .*)>")


def identify(path: str) -> list[dict[str, Any]]:
    """Return debug_id, code_id, arch, format and kind of each object in a debug file.

    Raises SymbolError where symbolic can't open it.
    """
    return [_info(obj) for obj in _objects(path)]


def build(path: str, output: str, *, rules: bool = True) -> list[dict[str, Any]]:
    """Write the tables of each object in a debug file to ``output`` with its number appended; ``rules``: unwind too.

    Returns what ``identify`` does plus ``table`` (file name), ``has_lines``, ``ranges``, ``rows`` and ``problems``
    (one message a reader that failed). Raises SymbolError where the file can't be opened.
    """
    results = []
    for number, obj in enumerate(_objects(path)):
        info = _info(obj)
        problems: list[str] = []
        sym, rule_table = SymTable.empty(), RuleTable.empty()
        try:
            sym = _sym_table(obj)
        except Exception as e:  # noqa: BLE001  (symbolic's errors have no common base outside the package)
            problems.append(f"symbols: {e}")
        try:
            if info["format"] == "elf":
                with open(path, "rb") as stream:
                    image = elf.read(stream)
                rule_table = image.rules
                sym = _bounded(sym, image)
                problems.extend(image.problems)
            elif rules:
                rule_table = _rule_table(obj, path, Arch.parse(info["arch"]))
        except Exception as e:  # noqa: BLE001
            problems.append(f"unwind information: {e}")
        info["has_lines"] = bool(len(sym.locations)) and bool((sym.locations[:, 1] + 1 > 1).any())
        info["ranges"] = len(sym.range_start)
        info["rows"] = len(rule_table.rva)
        info["problems"] = problems
        table = Path(f"{output}.{number}.table")
        write_table(table, sym, rule_table, info)
        results.append({**info, "table": table.name})
    return results


def _objects(path: str) -> list[Any]:
    import symbolic  # noqa: PLC0415

    try:
        return list(symbolic.Archive.open(path).iter_objects())
    except Exception as e:
        raise SymbolError(f"{path}: {e}") from e


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


def _sym_table(obj: Any) -> SymTable:
    if not obj.features & {"symtab", "debug"}:
        return SymTable.empty()
    with obj.make_symcache().open_stream() as stream:
        sym = symcache.read(stream.read())
    sym = _without_placeholders(sym)
    sym.base = _base_ranges(sym)
    return sym


def _without_placeholders(sym: SymTable) -> SymTable:
    """Take away made-up names; a line that stands under one is real and stays, without a function."""
    made_up = _named(sym, _PLACEHOLDER)
    if not len(made_up):
        return sym
    lines = np.append(sym.locations[:, 1], np.uint32(0))
    lineless = lines[np.minimum(sym.range_loc, len(sym.locations))] == 0
    sym.range_loc = np.where(lineless & np.isin(_outermost(sym), made_up), NONE, sym.range_loc).astype(np.uint32)
    sym.functions = sym.functions.copy()
    sym.functions[made_up, 0] = NONE
    return sym


def _outermost(sym: SymTable) -> NDArray[np.uint32]:
    """Return the function that each range's code belongs to once inlining is undone."""
    location = sym.range_loc.copy()
    parents = sym.locations[:, 3]
    for _ in range(256):
        inside = location < len(parents)
        parent = np.where(inside, parents[np.where(inside, location, 0)] if len(parents) else NONE, NONE)
        if not (parent < len(parents)).any():
            break
        location = np.where(parent < len(parents), parent, location).astype(np.uint32)
    inside = location < len(sym.locations)
    if not len(sym.locations):
        return np.full(len(location), NONE, np.uint32)
    return np.where(inside, sym.locations[np.where(inside, location, 0), 2], NONE).astype(np.uint32)


def _named(sym: SymTable, pattern: re.Pattern[str]) -> NDArray[np.int64]:
    """Return the functions whose names match a pattern that starts with ``<``."""
    refs = sym.functions[:, 0].astype(np.int64)
    size = len(sym.strings)
    ok = np.flatnonzero((refs >= 0) & (refs + 3 < size))
    at = refs[ok]
    # A length of 128 or more takes a second byte, of 16,384 or more a third.
    first = at + 1 + (sym.strings[at] >= 128) + ((sym.strings[at] >= 128) & (sym.strings[at + 1] >= 128))
    candidates = ok[sym.strings[first] == ord("<")]
    return np.array([i for i in candidates.tolist() if pattern.fullmatch(sym.string(int(refs[i])))], np.int64)


def _base_ranges(sym: SymTable) -> NDArray[np.uint32]:
    raw = sym.strings.tobytes()
    refs = set()
    for name in BASE_FUNCTIONS:
        needle = bytes([len(name)]) + name.encode()
        at = raw.find(needle)
        while at >= 0:
            refs.add(at)
            at = raw.find(needle, at + 1)
    functions = np.flatnonzero(np.isin(sym.functions[:, 0], list(refs)))
    rows = np.flatnonzero(np.isin(_outermost(sym), functions))
    ends = np.append(sym.range_start[1:], np.uint32(NONE))
    return np.stack([sym.range_start[rows], ends[rows]], axis=1) if len(rows) else np.zeros((0, 2), np.uint32)


def _bounded(sym: SymTable, image: elf.ElfTables) -> SymTable:
    """End the last symbol of each executable section with its section, and name the data outside them.

    Without an end, ``_fini`` would be the function of every address up to the image's end.
    """
    text = image.text
    if not len(text):
        return sym
    start, end = text[:, 0].astype(np.int64), text[:, 1].astype(np.int64)

    def inside(rva: NDArray[np.int64]) -> NDArray[np.bool_]:
        section = np.searchsorted(start, rva, side="right") - 1
        return (section >= 0) & (rva < end[np.maximum(section, 0)])

    ranges = sym.range_start.astype(np.int64)
    code = inside(ranges)
    objects = [o for o in image.objects if not inside(np.array([o[0]]))[0]] if len(sym.functions) else []
    count = len(objects)
    starts = np.array([o[0] for o in objects], np.int64)
    ends = np.array([o[1] for o in objects], np.int64)
    names = [_prefixed(o[2].encode()) for o in objects]
    refs = len(sym.strings) + np.cumsum([0, *map(len, names)])[:count]
    locations = np.full((count, 4), NONE, np.uint32)
    locations[:, 1] = 0
    locations[:, 2] = len(sym.functions) + np.arange(count)
    functions = np.stack([refs, starts, np.zeros(count, np.int64)], axis=1).astype(np.uint32)
    numbers = len(sym.locations) + np.arange(count)
    # At one address a symbol's start comes before a section's or an object's end; of the two the later one is kept.
    where = np.concatenate([end, ends, starts, ranges[code]])
    what = np.concatenate([np.full(len(end) + count, NONE), numbers, sym.range_loc[code]])
    order = np.argsort(where, kind="stable")
    where, what = where[order], what[order]
    last = np.append(where[1:] != where[:-1], True)
    return SymTable(
        where[last].astype(np.uint32),
        what[last].astype(np.uint32),
        np.concatenate([sym.locations, locations]),
        np.concatenate([sym.functions, functions]),
        sym.files,
        np.concatenate([sym.strings, np.frombuffer(b"".join(names), np.uint8)]),
        sym.base,
        text,
        sym.entries,
    )


def _prefixed(text: bytes) -> bytes:
    """Return a string as a table holds it, its ULEB128 length before it."""
    size = len(text)
    head = bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + text


def _rule_table(obj: Any, path: str, arch: Arch) -> RuleTable:
    if obj.file_format == "breakpad":
        return breakpad.read_rules(Path(path).read_bytes())
    if "unwind" not in obj.features:
        return RuleTable.empty()
    with obj.make_cficache().open_stream() as stream:
        return breakpad.rules_from_text(stream.read(), arch)
