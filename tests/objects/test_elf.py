from __future__ import annotations

import io
import lzma
import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId
from deadreckon.objects import elf
from oracle.frames import check, rule_at
from synth.cfi import FrameSection, def_cfa, offset
from synth.elf import (
    ALLOC,
    COMPRESSED,
    EXECINSTR,
    NOBITS,
    NOTE,
    PT_LOAD,
    PT_NOTE,
    STRTAB,
    SYMTAB,
    Elf,
    Section,
    Segment,
)

if TYPE_CHECKING:
    from pathlib import Path

BUILD_ID = bytes.fromhex("a5dbcdd88c5a234d327adcb845a4f6a57cf01f81")
CODE = Section(".text", b"\x90" * 64, flags=ALLOC | EXECINSTR, addr=0x40_1000)
OBJECT, FUNC = 1, 2


def made(**options: object) -> Elf:
    """Return a file with code, a build id and a load address of 0x400000."""
    file = Elf(**options)  # type: ignore[arg-type]
    file.sections = [CODE, Section(".note.gnu.build-id", file.build_id(BUILD_ID), NOTE, ALLOC)]
    file.segments = [Segment(PT_LOAD, 0x40_0000, ".text"), Segment(PT_NOTE, 0, ".note.gnu.build-id")]
    return file


def frames(address: int = 0x5000, *, is_eh: bool = True, count: int = 1) -> Section:
    """Return a frame section for ``count`` functions from 0x401000 on."""
    section = FrameSection(is_eh=is_eh, address=address)
    cie = section.cie(def_cfa(7, 8) + offset(16, 1))
    for i in range(count):
        section.fde(cie, 0x40_1000 + 0x20 * i, 0x10)
    return Section(".eh_frame" if is_eh else ".debug_frame", bytes(section), addr=address)


def read(file: Elf | bytes) -> elf.ElfTables:
    found = elf.read(io.BytesIO(bytes(file)))
    check(found.rules)
    return found


# --- Identity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("machine", "arch"),
    [(3, Arch.X86), (40, Arch.ARM), (62, Arch.X86_64), (183, Arch.ARM64), (243, Arch.UNKNOWN)],
)
def test_identity(bits: int, order: str, machine: int, arch: Arch) -> None:
    found = elf.identify(bytes(made(bits=bits, order=order, machine=machine)))
    assert found == elf.ElfIdentity(arch, DebugId.from_build_id(BUILD_ID), BUILD_ID.hex(), 0x40_0000)
    assert str(found.debug_id) == "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"


def test_build_id_from_sections_only() -> None:
    """Debug files made by objcopy keep program headers that point nowhere; old ones have none."""
    file = made()
    file.segments = []
    assert elf.identify(bytes(file)).code_id == BUILD_ID.hex()
    assert elf.identify(bytes(file)).image_base == 0


def test_build_id_among_other_notes() -> None:
    file = made()
    others = file.note(b"GNU\0", 1, b"\0" * 16) + file.note(b"Go\0\0", 4, b"go") + file.note(b"XYZ\0", 3, BUILD_ID)
    file.sections[1] = replace(file.sections[1], data=others + file.build_id(BUILD_ID[:8]))
    found = elf.identify(bytes(file))
    assert found.code_id == BUILD_ID[:8].hex()
    assert found.debug_id == DebugId.from_build_id(BUILD_ID[:8])


@pytest.mark.parametrize("build_id", [b"", b"\0" * 20, b"x" * 65])
def test_build_ids_that_name_nothing(build_id: bytes) -> None:
    file = made()
    file.sections[1] = replace(file.sections[1], data=file.build_id(build_id))
    found = elf.identify(bytes(file))
    assert (found.debug_id, found.code_id) == (None, None)


def test_fixtures(fixtures: Path) -> None:
    folder = fixtures / "linux/x86_64/pie-O2"
    for name in ("crashy", "crashy.debug"):
        data = (folder / name).read_bytes()
        found = elf.identify(data)
        assert found.code_id == BUILD_ID.hex()
        assert found.arch is Arch.X86_64
        assert elf.identify(memoryview(data)) == found


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF" + b"\0" * 47, b"MZ" + b"\0" * 100, b"\x7fELF\2" + b"\0" * 55]
)
def test_too_little_of_a_header(data: bytes) -> None:
    with pytest.raises(Malformed, match="ELF header"):
        elf.identify(data)


@pytest.mark.parametrize("at", [32, 40])
@pytest.mark.parametrize("value", [(1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 40])
def test_headers_beyond_the_file(at: int, value: int) -> None:
    """An offset of 64 bits is more than Python's buffers take."""
    data = bytearray(bytes(made()))
    data[at : at + 8] = struct.pack("<Q", value)
    found = elf.identify(bytes(data))
    assert found.arch is Arch.X86_64
    assert found.code_id == BUILD_ID.hex()


def test_mutated_identities(fixtures: Path) -> None:
    rng = random.Random(1)
    sources = [bytes(made(bits=bits, order=order)) for bits in (32, 64) for order in "<>"]
    sources.append((fixtures / "linux/x86_64/pie-O2/libcargo.so").read_bytes())
    identified = 0
    for data in sources:
        for i in range(800):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 2, 8))):
                changed[rng.randrange(min(len(data), 1200))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            if i % 4 == 0:
                del changed[rng.randrange(len(changed)) :]
            try:
                found = elf.identify(bytes(changed))
            except Malformed:
                continue
            identified += found.debug_id is not None
    assert identified > 1000


# --- Tables ---------------------------------------------------------------------------------------------------------


def test_rules_relative_to_the_load_address() -> None:
    file = made()
    file.sections.append(frames())
    found = read(file)
    assert found.rules.rva.tolist() == [0x1000, 0x1010]
    assert rule_at(found.rules, 0) == (("reg", 7, 8), ((16, "OFFSET", -8),), 16, False)
    assert found.text.tolist() == [[0x1000, 0x1040]]
    assert found.problems == []


@pytest.mark.parametrize("compress", ["", "gabi", "zdebug"])
def test_the_frame_section_that_says_more(compress: str) -> None:
    file = made()
    debug = frames(0, is_eh=False, count=5)
    if compress == "gabi":
        debug = replace(debug, data=file.compressed(debug.data), flags=COMPRESSED)
    elif compress == "zdebug":
        import zlib

        data = b"ZLIB" + len(debug.data).to_bytes(8, "big") + zlib.compress(debug.data)
        debug = replace(debug, data=data, name=".zdebug_frame")
    file.sections += [frames(count=2), debug]
    assert len(read(file).rules.rva) == 10
    file.sections[2] = frames(count=7)
    assert len(read(file).rules.rva) == 14


def test_sections_without_content() -> None:
    file = made()
    file.sections.append(replace(frames(), kind=NOBITS))
    assert len(read(file).rules.rva) == 0
    file.sections[2] = Section(".eh_frame", b"")
    assert len(read(file).rules.rva) == 0
    assert len(read(Elf()).text) == 0


def test_big_endian_files_have_no_rules() -> None:
    file = made(order=">")
    file.sections.append(frames())
    found = read(file)
    assert len(found.rules.rva) == 0
    assert found.text.tolist() == [[0x1000, 0x1040]]


def with_symbols(rows: list[tuple[str, int, int, int, int]]) -> Elf:
    file = made()
    table, strings = file.symbols(rows)
    file.sections += [
        frames(),
        Section(".symtab", table, SYMTAB, link=".strtab", entsize=24),
        Section(".strtab", strings, STRTAB),
    ]
    return file


def test_named_data() -> None:
    file = with_symbols([
        ("later", 0x40_3000, 8, OBJECT, 1),
        ("table", 0x40_2000, 16, OBJECT, 1),
        ("inside", 0x40_2004, 4, OBJECT, 1),
        ("main", 0x40_1000, 16, FUNC, 1),
        ("extern", 0x40_4000, 8, OBJECT, 0),
        ("empty", 0x40_5000, 0, OBJECT, 1),
        ("before", 0x3F_0000, 8, OBJECT, 1),
        ("far", 0x40_0000 + (1 << 32), 8, OBJECT, 1),
        ("n" * 5000, 0x40_6000, 8, OBJECT, 1),
        ("", 0x40_7000, 8, OBJECT, 1),
    ])  # fmt: skip
    assert read(file).objects == [(0x2000, 0x2010, "table"), (0x3000, 0x3008, "later")]


@pytest.mark.parametrize(
    "strings",
    [
        Section(".strtab", b"\0thing\0", STRTAB, size=1 << 62),
        Section(".strtab", b"\0thing\0", STRTAB, size=(1 << 64) - 1),
        Section(".strtab", Elf().compressed(b"\0thing\0", size=10), STRTAB, COMPRESSED),
        Section(".strtab", Elf().compressed(b"\0thing\0", size=1 << 50), STRTAB, COMPRESSED),
        Section(".strtab", Elf().compressed(b"\0thing\0")[:24] + b"\xff" * 20, STRTAB, COMPRESSED),
    ],
)
def test_damaged_strings_cost_names_only(strings: Section, tmp_path: Path) -> None:
    file = with_symbols([("thing", 0x40_2000, 16, OBJECT, 1)])
    file.sections[-1] = strings
    path = tmp_path / "file"
    path.write_bytes(bytes(file))
    with path.open("rb") as stream:
        found = elf.read(stream)
    assert len(found.rules.rva) == 2
    assert found.text.tolist() == [[0x1000, 0x1040]]
    assert [problem.split(":")[0] for problem in found.problems] == ["symbols"]


def test_damaged_symbol_table_costs_itself() -> None:
    file = with_symbols([("thing", 0x40_2000, 16, OBJECT, 1)])
    file.sections[-2] = replace(file.sections[-2], entsize=0)
    found = read(file)
    assert len(found.rules.rva) == 2
    assert found.objects == []
    assert [problem.split(":")[0] for problem in found.problems] == ["section 4"]


def test_damaged_frame_section_costs_itself() -> None:
    file = made()
    debug = Section(".debug_frame", file.compressed(b"x")[:-4] + b"\xff" * 9, flags=COMPRESSED)
    file.sections += [frames(), debug]
    found = read(file)
    assert len(found.rules.rva) == 2
    assert [problem.split(":")[0] for problem in found.problems] == [".debug_frame"]


@pytest.mark.parametrize(
    "header", [{"shoff": 1 << 40}, {"shentsize": 1}, {"shoff": (1 << 64) - 1}, {"shnum": 0xFFFF, "shoff": 8}]
)
def test_no_way_to_the_sections(header: dict[str, int]) -> None:
    file = made()
    file.header = header
    with pytest.raises(Malformed):
        read(file)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\2\1\1" + b"\0" * 20, b"hello" * 50])
def test_not_an_elf_file(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


def test_mutated_files(fixtures: Path) -> None:
    """Only Malformed leaves ``read``, and what it returns is well-formed."""
    rng = random.Random(2)
    folder = fixtures / "linux/x86_64"
    sources = [
        bytes(with_symbols([("thing", 0x40_2000, 16, OBJECT, 1)])),
        (folder / "plain-O1/plain").read_bytes(),
        (folder / "pie-O2/libcargo.so.debug").read_bytes(),
    ]
    done = 0
    for data in sources:
        (sections,) = struct.unpack_from("<Q", data, 40)
        for i in range(300):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 2, 6))):
                at = rng.choice((rng.randrange(64), rng.randrange(sections, len(data)), rng.randrange(len(data))))
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            if i % 10 == 0:
                del changed[rng.randrange(len(changed)) :]
            try:
                found = read(bytes(changed))
            except Malformed:
                continue
            done += 1
            text = found.text.astype(np.int64)
            assert (text[:, 0] < text[:, 1]).all()
            assert all(a < b for a, b, _ in found.objects)
    assert done > 300


def test_static_program(fixtures: Path) -> None:
    data = lzma.decompress((fixtures / "linux/x86_64/static-O2/crashy.xz").read_bytes())
    found = read(data)
    assert len(found.rules.rva) > 5000
    assert len(found.text) > 2
    assert found.problems == []
