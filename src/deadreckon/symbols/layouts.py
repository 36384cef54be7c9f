"""Where symbol stores keep a module's files: from its ids to paths, and from a path back to ids. No input or output.

Paths are relative to a store's root, with ``/``. File names in reports are untrusted: only their base name is used,
and a path is made only of components that can't lead out of the root. Sources:

* plain: files lie side by side under their own names;
* breakpad: ``<debug_file>/<ID>/<name>.sym``, by code id for modules without debug id (rust-minidump, Tecken);
* symstore, ssqp: Microsoft "Using SymStore", https://github.com/dotnet/symstore/blob/main/docs/specs/SSQP_Key_Conventions.md;
* debuginfod: debuginfod(8) "buildid/BUILDID/debuginfo"; gdb: GDB manual "Separate Debug Files";
* lldb: https://lldb.llvm.org/use/symbols.html "UUID directories"; unified: Sentry symbolicator docs, "Symbol Server".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deadreckon.model.ids import DebugId, normalize_code_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from deadreckon.model.crash import Module

__all__ = ["Candidate", "Kind", "Layout", "Parsed", "base_name", "candidates", "parse"]

Kind = Literal["debuginfo", "executable", "breakpad", "sourcebundle"]
Layout = Literal[
    "plain", "breakpad", "symstore", "symstore_index2", "ssqp", "debuginfod", "gdb", "lldb", "unified"
]  # fmt: skip

_KINDS: tuple[Kind, ...] = ("debuginfo", "executable", "breakpad", "sourcebundle")
_MAX_COMPONENT = 255
"""Bytes; what ext4, APFS and NTFS allow."""
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path at which a store of this layout keeps a file of this kind."""

    path: str
    kind: Kind
    layout: Layout


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a path says of the file at it. Ids are canonical; ``name`` is empty where the path has none.

    A portable PDB's path has no age; its debug id then ends in ``-ffffffff``, and only the identifier counts.
    """

    layout: Layout
    kind: Kind
    debug_id: str | None
    code_id: str | None
    name: str


# --- Components -----------------------------------------------------------------------------------------------------


def _safe(component: str) -> bool:
    """Whether this is one plain file name everywhere: no separator, drive, stream, control character or dots only."""
    if not component or component in {".", ".."} or re.search(r"[\x00-\x1f\x7f/\\:]", component):
        return False
    try:
        return len(component.encode()) <= _MAX_COMPONENT
    except UnicodeEncodeError:
        return False


def base_name(path: str | None) -> str:
    """Return the last component of a Unix or Windows path, empty where it can't be a file's name."""
    name = re.split(r"[/\\]", path or "")[-1]
    return name if _safe(name) else ""


def _join(*components: str) -> str | None:
    return "/".join(components) if all(map(_safe, components)) else None


# --- From a module to paths -----------------------------------------------------------------------------------------


def candidates(module: Module, layouts: Collection[Layout] | None = None) -> list[Candidate]:
    """Return the paths to try for a module, best first: debug information, then executables, then Breakpad files.

    ``layouts`` restricts them; by default they are those of every layout whose paths hold ids, which ``plain`` is not.
    A module says nothing of its file format; where its ids leave it open, paths for each possible one are returned.
    Ids that are malformed give no paths.
    """
    found: dict[str, Candidate] = {}
    for path, kind, layout in _all(module):
        if path is not None and (layout != "plain" if layouts is None else layout in layouts):
            found.setdefault(path, Candidate(path, kind, layout))
    return sorted(found.values(), key=lambda c: _KINDS.index(c.kind))


_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


def _all(module: Module) -> Iterator[tuple[str | None, Kind, Layout]]:
    debug_id = _debug_id(module.debug_id)
    code_id = normalize_code_id(module.code_id or "")
    if not _HEX.fullmatch(code_id):
        code_id = ""
    code_file = base_name(module.code_file)
    debug_file = base_name(module.debug_file) or code_file
    uuid = debug_id.uuid.hex if debug_id else ""
    pdb = debug_id is not None and (debug_id.age > 0 or debug_file.lower().endswith(".pdb"))
    pe = pdb or not code_id or len(code_id) <= 16
    elf = not pdb and (not code_id or not debug_id or code_id[:32].ljust(32, "0") == debug_id.build_id_prefix)
    macho = not pdb and (not code_id or not debug_id or code_id == uuid)
    build_id = code_id or (debug_id.build_id_prefix if debug_id else "")

    yield from _unified(debug_id, code_id, pe=pe)
    if pe:
        yield from _symstore_pe(debug_id, code_id, code_file, debug_file)
    if macho and len(mach_uuid := code_id or uuid) == 32:
        yield from _symstore("mach-uuid", mach_uuid, code_file, "_.dwarf")
        yield from _lldb(mach_uuid)
    if elf and len(build_id) > 4:
        yield from _symstore("elf-buildid", build_id, code_file, "_.debug")
        if code_id and len(code_id) < 40:
            for name, tag in (("_.debug", "elf-buildid-sym"), (code_file.lower(), "elf-buildid")):
                kind: Kind = "debuginfo" if name == "_.debug" else "executable"
                yield _join(name, f"{tag}-{code_id:0<40}", name), kind, "ssqp"
        yield from _build_id(build_id)
    yield from _breakpad(debug_id, code_id, code_file, debug_file)
    yield from _plain(code_file, debug_file)


def _debug_id(text: str | None) -> DebugId | None:
    try:
        return DebugId.parse(text or "")
    except ValueError:
        return None


def _unified(debug_id: DebugId | None, code_id: str, *, pe: bool) -> Iterator[tuple[str | None, Kind, Layout]]:
    by_debug_id = debug_id.breakpad.lower() if debug_id else ""
    # A PE file and its PDB share the debug id only; elsewhere the code id is the build's.
    for identifier in (by_debug_id, code_id) if pe else (code_id, by_debug_id):
        if len(identifier) > 4:
            for kind in _KINDS:
                yield _join(identifier[:2], identifier[2:], kind), kind, "unified"


def _cased(name: str, key: str, *lower_keys: str, pe: bool) -> Iterator[tuple[str | None, Layout]]:
    """Yield the spellings of a symstore path, each with its compressed sibling where Windows makes them."""
    for file in (name, name[:-1] + "_") if pe else (name,):
        yield _join(name, key, file), "symstore"
        yield _join(name[:2], name, key, file), "symstore_index2"
        for lower_key in lower_keys:
            lower = name.lower(), lower_key, file.lower()
            if lower != (name, key, file):
                yield _join(*lower), "ssqp"


def _symstore_pe(
    debug_id: DebugId | None, code_id: str, code_file: str, debug_file: str
) -> Iterator[tuple[str | None, Kind, Layout]]:
    if debug_id and debug_file.lower().endswith(".pdb"):
        for age in (f"{debug_id.age:X}", "FFFFFFFF"):
            key = debug_id.uuid.hex.upper() + age
            # SSQP's text has a portable PDB's age in capitals after an identifier in small letters.
            for path, layout in _cased(debug_file, key, key.lower(), key[:32].lower() + key[32:], pe=True):
                yield path, "debuginfo", layout
    if len(code_id) > 8 and code_file:
        usual = code_id[:8].upper() + code_id[8:]
        for key in (usual, code_id.upper()):
            # SSQP's text asks for a capital time stamp, its example has a small one.
            for path, layout in _cased(code_file, key, code_id, usual, pe=True):
                yield path, "executable", layout


def _symstore(prefix: str, identifier: str, name: str, debug_name: str) -> Iterator[tuple[str | None, Kind, Layout]]:
    for path, layout in _cased(debug_name, key := f"{prefix}-sym-{identifier}", key, pe=False):
        yield path, "debuginfo", layout
    for path, layout in _cased(name, key := f"{prefix}-{identifier}", key, pe=False):
        yield path, "executable", layout


def _lldb(uuid: str) -> Iterator[tuple[str | None, Kind, Layout]]:
    upper = uuid.upper()
    folders = [upper[i : i + 4] for i in range(0, 20, 4)]
    yield _join(*folders, upper[20:]), "debuginfo", "lldb"
    yield _join(*folders, upper[20:] + ".app"), "executable", "lldb"


def _build_id(build_id: str) -> Iterator[tuple[str | None, Kind, Layout]]:
    kind: Kind
    for kind in ("debuginfo", "executable"):
        yield _join("buildid", build_id, kind), kind, "debuginfod"
        yield _join(build_id, kind), kind, "debuginfod"
        file = build_id[2:] + (".debug" if kind == "debuginfo" else "")
        yield _join(".build-id", build_id[:2], file), kind, "gdb"
        yield _join(build_id[:2], file), kind, "gdb"


def _sym_name(name: str, extension: str) -> str:
    stem = name[: -len(extension)] if name.lower().endswith(extension) else name
    return stem + ".sym"


def _breakpad(
    debug_id: DebugId | None, code_id: str, code_file: str, debug_file: str
) -> Iterator[tuple[str | None, Kind, Layout]]:
    if debug_id:
        # Tools write the age as it comes, in either case.
        for key in (debug_id.breakpad, debug_id.breakpad.upper()):
            yield _join(debug_file, key, _sym_name(debug_file, ".pdb")), "breakpad", "breakpad"
    elif code_id:
        yield _join(code_file, code_id.upper(), _sym_name(code_file, ".dll")), "breakpad", "breakpad"


def _plain(code_file: str, debug_file: str) -> Iterator[tuple[str | None, Kind, Layout]]:
    if debug_file.lower().endswith(".pdb"):
        yield _join(debug_file), "debuginfo", "plain"
    elif code_file:
        yield _join(code_file + ".debug"), "debuginfo", "plain"
    yield _join(code_file), "executable", "plain"
    for name, extension in ((debug_file, ".pdb"), (code_file, ".dll")):
        if name:
            yield _join(_sym_name(name, extension)), "breakpad", "plain"


# --- From a path to ids ---------------------------------------------------------------------------------------------

_PDB_KEY = re.compile(r"[0-9a-f]{33,40}", re.ASCII | re.IGNORECASE)
_PE_KEY = re.compile(r"[0-9a-f]{9,16}", re.ASCII | re.IGNORECASE)
_TAGGED_KEY = re.compile(r"(elf-buildid|mach-uuid)(-sym)?-([0-9a-f]+)", re.ASCII | re.IGNORECASE)
_LLDB = re.compile(r"(?:.*/)?((?:[0-9A-F]{4}/){5}[0-9A-F]{12})(\.app)?", re.ASCII)
_GDB = re.compile(r"(?:.*/)?([0-9a-f]{2})/([0-9a-f]{3,})(\.debug)?", re.ASCII)
_UNIFIED = re.compile(r"(?:.*/)?([0-9a-f]{2})/([0-9a-f]{3,})/(debuginfo|executable|breakpad|sourcebundle)", re.ASCII)
_DEBUGINFOD = re.compile(r"(?:.*/)?([0-9a-f]{5,})/(debuginfo|executable)", re.ASCII)
_KIND_OF_SUFFIX: dict[str, Kind] = {
    "sym": "breakpad", "pdb": "debuginfo", "pd_": "debuginfo", "debug": "debuginfo", "dwarf": "debuginfo",
}  # fmt: skip


def parse(path: str) -> Parsed | None:
    """Return what a path in a store says of its file, None where it is of no known layout or not a relative path.

    Directories before the layout's own part are ignored. A lone file name is of the layout ``plain``. Eight digits
    after a UUID in a unified store are read as a build id of 20 bytes, not as an age. SSQP pads shorter build ids with
    zeros; a code id that ends in some may be such a one.
    """
    if len(path) > _MAX_PATH:
        return None
    components = path.split("/")
    if not all(map(_safe, components)):
        return None
    if len(components) == 1:
        kind = _KIND_OF_SUFFIX.get(_suffix(path), "executable")
        return Parsed("plain", kind, None, None, path)
    if len(components) >= 3:
        folder, key, file = components[-3:]
        if found := _parse_named(components[:-3], folder, key, file):
            return found
    if match := _UNIFIED.fullmatch(path):
        debug_id, code_id = _unified_ids(match[1] + match[2])
        return Parsed("unified", _kind(match[3]), debug_id, code_id, "")
    if match := _DEBUGINFOD.fullmatch(path):
        return _of_build_id("debuginfod", _kind(match[2]), match[1], "")
    if match := _LLDB.fullmatch(path):
        uuid = match[1].replace("/", "").lower()
        return Parsed("lldb", "executable" if match[2] else "debuginfo", _canonical(uuid), uuid, "")
    if match := _GDB.fullmatch(path):
        return _of_build_id("gdb", "debuginfo" if match[3] else "executable", match[1] + match[2], "")
    return None


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _kind(text: str) -> Kind:
    return next(kind for kind in _KINDS if kind == text)


def _canonical(text: str) -> str | None:
    found = _debug_id(text)
    return str(found) if found else None


def _of_build_id(layout: Layout, kind: Kind, build_id: str, name: str) -> Parsed | None:
    if len(build_id) % 2:
        return None
    try:
        debug_id = str(DebugId.from_build_id(bytes.fromhex(build_id)))
    except ValueError:
        return None
    return Parsed(layout, kind, debug_id, build_id, name)


def _unified_ids(identifier: str) -> tuple[str | None, str | None]:
    """Tell ids apart by their length: 33 to 39 digits are a UUID with its age, others a code id."""
    if 33 <= len(identifier) < 40:
        return _canonical(identifier), None
    return None, identifier


def _parse_named(before: list[str], folder: str, key: str, file: str) -> Parsed | None:
    if file.lower().endswith(".sym"):
        if _PDB_KEY.fullmatch(key) and file == _sym_name(folder, ".pdb"):
            return Parsed("breakpad", "breakpad", _canonical(key), None, folder)
        if _HEX.fullmatch(key.lower()) and file == _sym_name(folder, ".dll"):
            return Parsed("breakpad", "breakpad", None, key.lower(), folder)
    if file not in {folder, folder[:-1] + "_"}:
        return None
    layout: Layout = "symstore"
    if before and before[-1] == folder[:2]:
        layout = "symstore_index2"
    elif folder == folder.lower() and key not in {_symstore_spelling(key.lower()), key.upper()}:
        layout = "ssqp"
    if match := _TAGGED_KEY.fullmatch(key):
        kind: Kind = "debuginfo" if match[2] else "executable"
        name = "" if match[2] else folder
        identifier = match[3].lower()
        if match[1].lower() == "elf-buildid":
            return _of_build_id(layout, kind, identifier, name)
        return Parsed(layout, kind, _canonical(identifier), identifier, name)
    if _PDB_KEY.fullmatch(key):
        return Parsed(layout, "debuginfo", _canonical(key), None, folder)
    if _PE_KEY.fullmatch(key):
        return Parsed(layout, "executable", None, key.lower(), folder)
    return None


def _symstore_spelling(key: str) -> str:
    """Return a lower-case key as symstore would spell it."""
    if _PDB_KEY.fullmatch(key):
        return key.upper()
    return key[:8].upper() + key[8:] if _PE_KEY.fullmatch(key) else key
