"""ELF images: identity, load address and unwind information.

Sources: System V ABI (gABI) chapters 4 and 5 for headers, sections, notes and compressed sections; LSB 5.0 Core for
``.eh_frame``. pyelftools reads the section table and inflates compressed sections; the tables themselves are decoded
by kernels. Identity is read by hand, because a directory of thousands of files is searched by it.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId
from deadreckon.model.tables import RuleTable
from deadreckon.objects import ehabi, elf_symbols
from deadreckon.objects.rulemerge import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["ElfIdentity", "ElfTables", "identify", "read"]

_MACHINES = {3: Arch.X86, 40: Arch.ARM, 62: Arch.X86_64, 183: Arch.ARM64}
_PT_LOAD, _PT_NOTE, _SHT_NOTE, _SHT_NOBITS = 1, 4, 7, 8
_NT_GNU_BUILD_ID = 3
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
_STT_OBJECT, _STT_FUNC = 1, 2
_MAX_RVA = 0xFFFF_FFFE
_MAX_HEADERS = 4096
_MAX_NOTES = 256
_MAX_SECTION = 1 << 30
_MAX_SECTIONS = 1 << 16
_MAX_PROBLEMS = 16
_UNREADABLE = (struct.error, OverflowError)
"""What unpacking at an offset outside the file raises, the latter where the offset takes more than 63 bits."""


@dataclass(frozen=True, slots=True)
class ElfIdentity:
    """What names an ELF file: ``debug_id`` is None where it carries no build id."""

    arch: Arch
    debug_id: DebugId | None
    code_id: str | None
    image_base: int


def identify(data: bytes | memoryview) -> ElfIdentity:
    """Read identity from a file's bytes (or a map of them). Raises Malformed where the headers can't be read."""
    if len(data) < 52 or bytes(data[:4]) != b"\x7fELF":
        raise Malformed("ELF header", offset=0, expected="\\x7fELF", got=bytes(data[:4]))
    wide = data[4] == 2
    order = ">" if data[5] == 2 else "<"
    try:
        if wide:
            machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = struct.unpack_from(
                order + "HIQQQIHHHHHH", data, 18
            )
        else:
            machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = struct.unpack_from(
                order + "HIIIIIHHHHHH", data, 18
            )
    except _UNREADABLE as e:
        raise Malformed("ELF header", offset=16, expected="64 bytes", got=len(data)) from e
    image_base: int | None = None
    build_id: bytes | None = None
    segment = struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII"))
    for i in range(min(phnum, _MAX_HEADERS)):
        try:
            fields = segment.unpack_from(data, phoff + i * max(phentsize, segment.size))
        except _UNREADABLE:
            break
        kind = fields[0]
        offset, vaddr, filesz = (fields[2], fields[3], fields[5]) if wide else (fields[1], fields[2], fields[4])
        if kind == _PT_LOAD and image_base is None:
            image_base = vaddr
        elif kind == _PT_NOTE and build_id is None:
            build_id = _build_id(data, offset, filesz, order)
    if build_id is None:
        section = struct.Struct(order + ("IIQQQQ" if wide else "IIIIII"))
        for i in range(min(shnum, _MAX_HEADERS)):
            try:
                _, kind, _, _, offset, size = section.unpack_from(data, shoff + i * max(shentsize, section.size))
            except _UNREADABLE:
                break
            if kind == _SHT_NOTE:
                build_id = _build_id(data, offset, size, order)
                if build_id is not None:
                    break
    try:
        debug_id = DebugId.from_build_id(build_id) if build_id else None
    except ValueError:
        debug_id = None
    return ElfIdentity(
        _MACHINES.get(machine, Arch.UNKNOWN),
        debug_id,
        build_id.hex() if debug_id and build_id else None,
        image_base or 0,
    )


def _build_id(data: bytes | memoryview, offset: int, size: int, order: str) -> bytes | None:
    for name, kind, description in _notes(data, offset, size, order):
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0" and 0 < len(description) <= 64:
            return description
    return None


def _notes(data: bytes | memoryview, offset: int, size: int, order: str) -> Iterator[tuple[bytes, int, bytes]]:
    end = min(offset + size, len(data))
    for _ in range(_MAX_NOTES):
        if offset + 12 > end:
            return
        namesz, descsz, kind = struct.unpack_from(order + "III", data, offset)
        name_at = offset + 12
        desc_at = name_at + ((namesz + 3) & ~3)
        if desc_at + descsz > end:
            return
        yield bytes(data[name_at : name_at + namesz]), kind, bytes(data[desc_at : desc_at + descsz])
        offset = desc_at + ((descsz + 3) & ~3)


@dataclass(slots=True)
class ElfTables:
    """What the section table leads to; addresses are relative to the image base.

    ``text`` u32[n, 2]: start and end of the executable sections, sorted; ``code``: (start, size, offset in the file) of
    those the file holds. ``objects``: named data (start, end, name),
    sorted, not overlapping; a jump through a wild pointer may land in one. ``problems``: one message for each part
    that could not be read.
    """

    rules: RuleTable = field(default_factory=RuleTable.empty)
    text: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    code: list[tuple[int, int, int]] = field(default_factory=list)
    objects: list[tuple[int, int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(stream: IO[bytes]) -> ElfTables:
    """Read unwind rules (``.eh_frame``, or ``.debug_frame`` where that says more), code and data ranges.

    Where neither says anything, ``.ARM.exidx`` does.

    A damaged section costs what it held. Raises Malformed where there is no way to the sections.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  (47 ms that a look-up never needs)
    from elftools.construct import ConstructError  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    broken = (
        *(ELFError, ConstructError, Malformed, struct.error, zlib.error),
        *(ValueError, LookupError, ArithmeticError, AssertionError),
    )
    found = ElfTables()

    @contextmanager
    def costs(what: str) -> Iterator[None]:
        try:
            yield
        except broken as e:
            found.problems.append(f"{what}: {e}")

    try:
        elf = ELFFile(stream)
        image_base = next((s["p_vaddr"] for s in elf.iter_segments("PT_LOAD")), 0)
        count = elf.num_sections()
    except broken as e:
        raise Malformed("ELF header", got=f"{type(e).__name__}: {e}") from e
    sections: dict[str, Any] = {}
    for i in range(min(count, _MAX_SECTIONS)):
        with costs(f"section {i}"):
            section = elf.get_section(i)
            sections[section.name] = section
        if len(found.problems) == _MAX_PROBLEMS:
            break
    if count and not sections:
        raise Malformed("ELF section table", got=found.problems[0])
    for name, is_eh in ((".eh_frame", True), (".debug_frame", False), (".zdebug_frame", False)):
        with costs(name):
            rules = _rules(elf, sections, name, is_eh=is_eh, image_base=image_base)
            # Android's system libraries keep a token .eh_frame and describe the rest in .debug_frame.
            if len(rules.rva) > len(found.rules.rva):
                found.rules = rules
    with costs("executable sections"):
        executable = [s for s in sections.values() if s["sh_flags"] & _SHF_ALLOC and s["sh_flags"] & _SHF_EXECINSTR]
        found.text = _text(executable, image_base)
        held = (s for s in executable if s["sh_type"] != "SHT_NOBITS")
        found.code = [(s["sh_addr"] - image_base, s["sh_size"], s["sh_offset"]) for s in held]
    with costs("symbols"):
        found.objects = _objects(sections, elf, image_base)
    with costs(".ARM.exidx"):
        rules, problems = ehabi.read(_exception_tables(sections, elf, found.text, image_base))
        found.rules = merge(found.rules, rules)
        found.problems.extend(f".ARM.exidx: {problem}" for problem in problems)
    return found


def _rules(elf: Any, sections: dict[str, Any], name: str, *, is_eh: bool, image_base: int) -> RuleTable:
    from deadreckon.kernels.cfi import rules_from_frames  # noqa: PLC0415

    section = sections.get(name)
    if section is None or section["sh_type"] == "SHT_NOBITS" or not elf.little_endian:
        return RuleTable.empty()
    address = {name: s["sh_addr"] for name, s in sections.items()}
    return rules_from_frames(
        np.frombuffer(_section_bytes(section, name), np.uint8),
        is_eh=is_eh,
        section_addr=section["sh_addr"],
        image_base=image_base,
        pointer_size=elf.elfclass // 8,
        text_addr=address.get(".text", 0),
        data_addr=address.get(".got", address.get(".got.plt", 0)),
    )


def _text(sections: Iterable[Any], image_base: int) -> NDArray[np.uint32]:
    spans = [(s["sh_addr"] - image_base, s["sh_addr"] - image_base + s["sh_size"]) for s in sections if s["sh_size"]]
    kept = sorted(span for span in spans if 0 <= span[0] < span[1] <= _MAX_RVA)
    return np.array(kept, np.uint32).reshape(-1, 2)


def _exception_tables(
    sections: dict[str, Any], elf: Any, text: NDArray[np.uint32], image_base: int
) -> ehabi.ExceptionTables:
    index = sections.get(".ARM.exidx")
    if index is None or index["sh_type"] != "SHT_ARM_EXIDX" or not elf.little_endian:
        return ehabi.ExceptionTables(b"", 0)
    data = [
        (s["sh_addr"], _section_bytes(s, name))
        for name, s in sections.items()
        if name.startswith(".ARM.extab") and s["sh_type"] != "SHT_NOBITS"
    ]
    code = [
        (s["sh_addr"], _section_bytes(s, name))
        for name, s in sections.items()
        if s["sh_flags"] & _SHF_EXECINSTR and s["sh_type"] != "SHT_NOBITS"
    ]
    starts = [start for start, *_ in _symbols(sections, elf, _STT_FUNC, image_base, mask=1)]
    known = np.array(starts, np.uint32)
    content = _section_bytes(index, index.name)
    return ehabi.ExceptionTables(content, index["sh_addr"], data, text, known, image_base, code)


def _objects(sections: dict[str, Any], elf: Any, image_base: int) -> list[elf_symbols.Named]:
    rows = _symbols(sections, elf, _STT_OBJECT, image_base)
    return elf_symbols.extents([row for row in rows if row[0] < row[1]], np.zeros((0, 2), np.uint32))


def _symbols(
    sections: dict[str, Any], elf: Any, kind: int, image_base: int, *, mask: int = 0
) -> list[elf_symbols.Named]:
    table = sections.get(".symtab") or sections.get(".dynsym")
    if table is None or table["sh_type"] == "SHT_NOBITS":
        return []
    names = _section_bytes(elf.get_section(table["sh_link"]), ".strtab")
    order: Literal["<", ">"] = "<" if elf.little_endian else ">"
    data = _section_bytes(table, table.name)
    return elf_symbols.named(data, names, (kind,), wide=elf.elfclass == 64, order=order, base=image_base, mask=mask)


def _section_bytes(section: Any, name: str) -> bytes:
    if section.data_size > _MAX_SECTION:
        raise Malformed(f"ELF section {name}", expected=f"at most {_MAX_SECTION} bytes", got=section.data_size)
    data: bytes = section.data()
    if name.startswith(".zdebug") and data[:4] == b"ZLIB":
        return zlib.decompressobj().decompress(data[12:], min(int.from_bytes(data[4:12], "big"), _MAX_SECTION))
    return data
