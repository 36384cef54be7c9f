"""What an ELF file keeps elsewhere or packed: mini debug info, shared and split DWARF, relocatable code.

Sources: GDB manual "MiniDebugInfo" (``.gnu_debugdata``); dwz(1) for ``.gnu_debugaltlink``; DWARF 5 section 3.1.2 and
7.3.2 for skeleton units, ``.dwo`` and ``.dwp`` files; the GNU extension of DWARF 4 that came before them.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.objects import elf_symbols

if TYPE_CHECKING:
    from deadreckon.objects.elf_symbols import Named

__all__ = ["ElfParts", "read", "unpack_mini"]

_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_EM_ARM = "EM_ARM"
_SHF_EXECINSTR = 4
_MAX_SECTIONS = 1 << 16
_MAX_BYTES = 1 << 30
_MAX_MINI = 256 << 20
_MAX_UNITS = 64
_UT_SKELETON = 4
_GNU_DWO_NAME = b"\xb0\x42"
"""DW_AT_GNU_dwo_name (0x2130) as an abbreviation spells it; of .debug_abbrev's attributes only this has the bytes."""
_ALT_FORMS = (b"\xa0\x3e", b"\xa1\x3e")
"""DW_FORM_GNU_ref_alt and DW_FORM_GNU_strp_alt (0x1f20, 0x1f21) likewise."""


@dataclass(slots=True)
class ElfParts:
    """``notes``: one message for each thing that is not in this file, or not usable.

    ``functions``: the symbol table's functions, relative to the image base; of a relocatable file to its one code
    section, empty where it has several. ``mini``: the packed file in ``.gnu_debugdata``.
    """

    relocatable: bool = False
    functions: list[Named] = field(default_factory=list)
    mini: bytes | None = None
    notes: list[str] = field(default_factory=list)


def read(stream: IO[bytes], *, functions: bool) -> ElfParts:
    """Look for parts; the symbol table's functions are read only on demand.

    Raises Malformed where there is no way to the sections.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.construct import ConstructError  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    broken = (
        *(ELFError, ConstructError, Malformed, struct.error, zlib.error),
        *(ValueError, LookupError, ArithmeticError, AssertionError),
    )
    found = ElfParts()
    try:
        elf = ELFFile(stream)
        found.relocatable = elf["e_type"] == "ET_REL"
        sections = _sections(elf)
    except broken as e:
        raise Malformed("ELF sections", got=f"{type(e).__name__}: {e}") from e
    for look in (_split, _shared, _mini, *((_functions,) if functions or found.relocatable else ())):
        try:
            look(elf, sections, found)
        except broken as e:
            found.notes.append(f"{look.__name__.strip('_')}: {e}")
    return found


def unpack_mini(packed: bytes) -> bytes:
    """Unpack ``.gnu_debugdata``: an ELF file in xz. Raises Malformed, LimitExceeded."""
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MINI)
        data = unpacker.decompress(packed, _MAX_MINI)
    except lzma.LZMAError as e:
        raise Malformed(".gnu_debugdata", expected="an xz stream", got=e) from e
    if not unpacker.eof and len(data) >= _MAX_MINI:
        raise LimitExceeded(".gnu_debugdata bytes", _MAX_MINI)
    if not unpacker.eof or data[:4] != b"\x7fELF":
        raise Malformed(".gnu_debugdata", expected="an ELF file in xz", got=f"{len(data)} bytes")
    return data


def _sections(elf: Any) -> dict[str, tuple[int, Any]]:
    """Return each section with its number; of several with one name, as relocatable files have, all are kept."""
    found: dict[str, tuple[int, Any]] = {}
    for number in range(min(elf.num_sections(), _MAX_SECTIONS)):
        section = elf.get_section(number)
        name = section.name if section.name not in found else f"{section.name}\0{number}"
        found[name] = number, section
    return found


def _bytes(sections: dict[str, tuple[int, Any]], name: str) -> bytes:
    _, section = sections.get(name, (0, None))
    if section is None or section["sh_type"] == "SHT_NOBITS":
        return b""
    if section.data_size > _MAX_BYTES:
        raise Malformed(f"ELF section {name}", expected=f"at most {_MAX_BYTES} bytes", got=section.data_size)
    data: bytes = section.data()
    return data


def _split(elf: Any, sections: dict[str, tuple[int, Any]], found: ElfParts) -> None:
    if ".debug_cu_index" in sections or ".debug_tu_index" in sections:
        found.notes.append("a package of split DWARF (.dwp) has no addresses of its own; it is not read")
    elif ".debug_info.dwo" in sections:
        found.notes.append("a split DWARF file (.dwo) has no addresses of its own; it is not read")
    elif ".debug_addr" in sections and _has_skeletons(elf, sections):
        found.notes.append("split DWARF: files, lines and inlined calls are in .dwo files, which are not read")


def _has_skeletons(elf: Any, sections: dict[str, tuple[int, Any]]) -> bool:
    order = "<" if elf.little_endian else ">"
    info = _bytes(sections, ".debug_info")
    at = 0
    for _ in range(_MAX_UNITS):
        if at + 16 > len(info):
            break
        (length,) = struct.unpack_from(order + "I", info, at)
        start = at + 4
        if length == 0xFFFF_FFFF:
            (length,) = struct.unpack_from(order + "Q", info, start)
            start += 8
        (version,) = struct.unpack_from(order + "H", info, start)
        if version == 5 and info[start + 2] == _UT_SKELETON:
            return True
        if version == 4 and _GNU_DWO_NAME in _bytes(sections, ".debug_abbrev"):
            return True
        at = start + length
    return False


def _shared(_: Any, sections: dict[str, tuple[int, Any]], found: ElfParts) -> None:
    name, _, build_id = _bytes(sections, ".gnu_debugaltlink").partition(b"\0")
    if name and any(form in _bytes(sections, ".debug_abbrev") for form in _ALT_FORMS):
        where = f"{name[:256].decode('utf-8', 'replace')} (build id {build_id[:64].hex()})"
        found.notes.append(f"names shared with other files are in {where}, which is not read (dwz)")


def _mini(_: Any, sections: dict[str, tuple[int, Any]], found: ElfParts) -> None:
    found.mini = _bytes(sections, ".gnu_debugdata") or None


def _functions(elf: Any, sections: dict[str, tuple[int, Any]], found: ElfParts) -> None:
    code = [
        (number, section)
        for number, section in sections.values()
        if section["sh_flags"] & _SHF_EXECINSTR and section["sh_size"]
    ]
    if found.relocatable and len(code) != 1:
        if code:
            found.notes.append(f"a relocatable file: its {len(code)} code sections get addresses when it is linked")
        return
    base = next((s["p_vaddr"] for s in elf.iter_segments("PT_LOAD")), 0)
    limits = sorted((s["sh_addr"] - base, s["sh_addr"] - base + s["sh_size"]) for _, s in code)
    limits = [(start, end) for start, end in limits if 0 <= start < end <= elf_symbols.MAX_RVA]
    name = ".symtab" if _bytes(sections, ".symtab") else ".dynsym"
    data = _bytes(sections, name)
    if not data:
        return
    strings = elf.get_section(sections[name][1]["sh_link"])
    order: Literal["<", ">"] = "<" if elf.little_endian else ">"
    rows = elf_symbols.named(
        data,
        _bytes({name: (0, strings)}, name),
        (_STT_FUNC, _STT_GNU_IFUNC),
        wide=elf.elfclass == 64,
        order=order,
        base=base,
        mask=1 if elf["e_machine"] == _EM_ARM else 0,
        section=code[0][0] if found.relocatable else None,
    )
    found.functions = elf_symbols.extents(rows, np.array(limits, np.uint32).reshape(-1, 2))
    if found.relocatable:
        found.notes.append("a relocatable file: its functions are at their places in its code section, without lines")
