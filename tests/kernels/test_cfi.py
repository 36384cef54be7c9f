from __future__ import annotations

import lzma
import random
import sys
import sysconfig
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from deadreckon.kernels.cfi import rules_from_frames
from deadreckon.model import tables
from oracle.frames import Rule, Spans, check, decode, rule_at
from synth.cfi import FrameSection, advance, block, def_cfa, offset, sleb, uleb

if TYPE_CHECKING:
    from deadreckon.model.tables import RuleTable

LIBRARIES = Path("/lib") / (sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu")
SYSTEM = [LIBRARIES / "libc.so.6", Path("/lib64/ld-linux-x86-64.so.2"), LIBRARIES / "libstdc++.so.6"]


def ours(data: bytes, *, is_eh: bool = True, address: int = 0, base: int = 0, pointer_size: int = 8) -> RuleTable:
    column = np.frombuffer(data, np.uint8)
    table = rules_from_frames(column, is_eh=is_eh, section_addr=address, image_base=base, pointer_size=pointer_size)
    proportionate(table, len(data))
    return table


def rows_at(table: RuleTable, addresses: list[int]) -> list[Rule | None]:
    rows = np.searchsorted(table.rva, np.array(addresses, np.int64), side="right") - 1
    known = {row: rule_at(table, row) if row >= 0 else None for row in set(rows.tolist())}
    return [known[row] for row in rows.tolist()]


def agree(table: RuleTable, truth: Spans, extra: list[int]) -> int:
    """Compare at every row's address and its neighbours, and at ``extra``; returns how many have a rule."""
    addresses = sorted({a + d for a in (*truth.starts, *table.rva.tolist()) for d in (-1, 0, 1)} | set(extra))
    addresses = [a for a in addresses if 0 <= a <= 0xFFFF_FFFF]
    found = rows_at(table, addresses)
    for address, rule in zip(addresses, found, strict=True):
        assert rule == truth.at(address), hex(address)
    return sum(rule is not None for rule in found)


def proportionate(table: RuleTable, size: int) -> None:
    """Check that a table is well-formed and no larger than its section makes it."""
    check(table)
    assert len(table.rva) <= size
    assert len(table.expr) <= size
    assert len(table.rules) <= len(table.rva)


# --- Real files -----------------------------------------------------------------------------------------------------


def compare_file(data: bytes) -> int:
    elf = ELFFile(BytesIO(data))
    rng = random.Random(1)
    covered = 0
    for name, is_eh in ((".eh_frame", True), (".debug_frame", False)):
        section = elf.get_section_by_name(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            continue
        pointer_size = elf.elfclass // 8
        truth = decode(section.data(), is_eh=is_eh, section_addr=section["sh_addr"], address_size=pointer_size)
        table = ours(section.data(), is_eh=is_eh, address=section["sh_addr"], pointer_size=pointer_size)
        highest = truth.starts[-1] if truth.starts else 0
        covered += agree(table, truth, [rng.randrange(highest + 4096) for _ in range(2000)])
    return covered


@pytest.mark.parametrize("path", SYSTEM, ids=lambda p: p.name)
def test_system_libraries(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"no {path}")
    assert compare_file(path.read_bytes()) > 1000


def test_this_python() -> None:
    assert compare_file(Path(sys.executable).resolve().read_bytes()) > 5


@pytest.mark.parametrize(
    "name", ["pie-O2/crashy", "pie-O0/crashy", "pie-O2/libcargo.so", "plain-O1/plain", "static-O2/crashy.xz"]
)
def test_fixtures(fixtures: Path, name: str) -> None:
    data = (fixtures / "linux/x86_64" / name).read_bytes()
    assert compare_file(lzma.decompress(data) if name.endswith(".xz") else data) > 20


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "framehop/fixtures/linux/aarch64/ld-2.31.so",
        "framehop/fixtures/linux/aarch64/vdso.so",
        "symbolic/fixtures/linux/arm64/cfi_test",
        "unwindstack/libbacktrace-testdata/arm/libbacktrace_test_debug_frame.so",
        "unwindstack/libbacktrace-testdata/x86/libbacktrace_test_debug_frame.so",
        "unwindstack/offline/debug_frame_load_bias_arm/libbinder.so",
        "lldb/elf-core/linux-i386.out",
    ],
)
def test_other_architectures(corpus: Path, name: str) -> None:
    assert compare_file((corpus / "native" / name).read_bytes()) > 5


# --- Programs made up -----------------------------------------------------------------------------------------------


def random_program(rng: random.Random, length: int) -> bytes:
    """Return a valid program of every instruction that pyelftools knows."""
    out = bytearray()
    expressions = [block(bytes([0x77, rng.randrange(64), *[0x96] * n])) for n in (0, 1, 2, 130)]
    has_register = True
    states: list[bool] = []
    for _ in range(length):
        register = rng.choice((3, 6, 12, 16, 33, 40, 200))
        number = rng.choice((0, 1, 2, 5, 127, 128, 5000))
        signed = rng.choice((-200, -64, -3, 0, 2, 63, 64, 9000))
        match rng.randrange(26):
            case 0 | 1 | 2 | 3 | 4 | 5:
                out += advance(rng.choice((0, 1, 3, 0x3F, 0x40, 0xFF, 0x100, 0x10000)))
            case 6:
                out += offset(register, number)
            case 7:
                out += b"\x05" + uleb(register) + uleb(number)
            case 8:
                out += b"\x06" + uleb(register) if register >= 0x40 else bytes([0xC0 | register])
            case 9:
                out += b"\x07" + uleb(register)
            case 10:
                out += b"\x08" + uleb(register)
            case 11:
                out += b"\x09" + uleb(register) + uleb(rng.randrange(34))
            case 12:
                out += b"\x0a"
                states.append(has_register)
            case 13 if states:
                out += b"\x0b"
                has_register = states.pop()
            case 14:
                out += def_cfa(register, number)
                has_register = True
            case 15 if has_register:
                out += b"\x0d" + uleb(register)
            case 16 if has_register:
                out += b"\x0e" + uleb(number)
            case 17:
                out += b"\x0f" + rng.choice(expressions)
                has_register = False
            case 18:
                out += b"\x10" + uleb(register) + rng.choice(expressions)
            case 19:
                out += b"\x11" + uleb(register) + sleb(signed)
            case 20:
                out += b"\x12" + uleb(register) + sleb(signed)
                has_register = True
            case 21 if has_register:
                out += b"\x13" + sleb(signed)
            case 22:
                out += b"\x14" + uleb(register) + uleb(number)
            case 23:
                out += b"\x15" + uleb(register) + sleb(signed)
            case 24:
                out += b"\x16" + uleb(register) + rng.choice(expressions)
            case _:
                out += rng.choice((b"\x00", b"\x2e\x10", b"\x2d"))
    return bytes(out)


def random_section(rng: random.Random, *, is_eh: bool, address_size: int, address: int) -> bytes:
    section = FrameSection(is_eh=is_eh, address=address, address_size=address_size)
    cies = []
    for _ in range(rng.randint(1, 3)):
        program = def_cfa(7, 8) + offset(16, 1) + rng.choice((b"", b"\x08\x03", b"\x07\x06", b"\x09\x0c\x03", b"\x2d"))
        kinds = ("zR", "zRS", "zPLR", "zR") if is_eh else ("",)
        cies.append(
            section.cie(
                program,
                augmentation=rng.choice(kinds),
                code=rng.choice((1, 1, 4)),
                data=rng.choice((-8, -4, 1)),
                ra=rng.choice((16, 30)),
                encoding=rng.choice((0x1B, 0x1C, 0x03, 0x00)),
                version=rng.choice((1, 3)) if is_eh else rng.choice((1, 3, 4)),
                personality=(0x9B, b"\1\2\3\4"),
                lsda=0xFF,
            )
        )
        at = rng.randrange(0x1000, 0x8000)
        for _ in range(rng.randint(0, 6)):
            size = rng.choice((1, 0x40, 0x1000))
            section.fde(rng.choice(cies), at, size, random_program(rng, rng.randint(0, 40)))
            at += rng.choice((0, 1, size, size, size + 0x30))
    return bytes(section)


@pytest.mark.parametrize("is_eh", [True, False])
@pytest.mark.parametrize("address_size", [8, 4])
def test_random_sections(is_eh: bool, address_size: int) -> None:
    covered = 0
    for seed in range(250):
        rng = random.Random(seed)
        address = rng.choice((0, 0x20000))
        data = random_section(rng, is_eh=is_eh, address_size=address_size, address=address)
        truth = decode(data, is_eh=is_eh, section_addr=address, address_size=address_size)
        table = ours(data, is_eh=is_eh, address=address, pointer_size=address_size)
        covered += agree(table, truth, [rng.randrange(0x10000) for _ in range(20)])
    assert covered > 5000


def test_expressions_of_many_rows_are_kept_once() -> None:
    section = FrameSection()
    cie = section.cie(def_cfa(7, 8) + offset(16, 1))
    program = (
        b"\x0f" + block(b"\x77\x08\x06\x23\x10") + b"\x10\x06" + block(b"\x76\x00") + b"\x10\x10" + block(b"\x76\x08")
    )
    program += b"".join(advance(1) + b"\x16\x0c" + block(bytes([0x77, i % 64])) for i in range(600))
    section.fde(cie, 0x1000, 0x1000, program)
    truth = decode(bytes(section), is_eh=True, section_addr=0, address_size=8)
    assert agree(ours(bytes(section)), truth, []) > 600


# --- What pyelftools doesn't read: golden rows ----------------------------------------------------------------------

CFA_8 = ("reg", 7, 8)
RA = (16, "OFFSET", -8)
FIRST: Rule = (CFA_8, (RA,), 16, False)


def one_function(program: bytes, *, cie_program: bytes = def_cfa(7, 8) + offset(16, 1), ra: int = 16) -> RuleTable:
    section = FrameSection()
    cie = section.cie(cie_program, ra=ra)
    section.fde(cie, 0x1000, 0x100, program)
    return ours(bytes(section))


def rows(table: RuleTable) -> list[tuple[int, Rule | None]]:
    return [(rva, rule_at(table, i)) for i, rva in enumerate(table.rva.tolist())]


def test_vendor_instructions() -> None:
    table = one_function(b"\x1d" + (0x20).to_bytes(8, "little") + b"\x2f\x03\x02")
    assert rows(table) == [(0x1000, FIRST), (0x1020, (CFA_8, ((3, "OFFSET", 16), RA), 16, False)), (0x1100, None)]


def test_flags() -> None:
    table = one_function(advance(4) + b"\x2d" + advance(4) + b"\x07\x10" + advance(4) + b"\x2d")
    flags = table.rules[table.rule[:-1], 3] & 0xFF
    assert flags.tolist() == [
        0,
        tables.SIGNED_RA,
        tables.SIGNED_RA | tables.END_OF_STACK,
        tables.END_OF_STACK,
    ]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\x3f", id="unknown instruction"),
        pytest.param(b"\x01" + b"\0" * 8, id="set_loc"),
        pytest.param(b"\x0b", id="restore_state without a state"),
        pytest.param(b"\x0a" * 40, id="states without end"),
        pytest.param(b"\x0f\x7f\x77", id="expression past the end"),
        pytest.param(b"\x0e" + b"\xff" * 20, id="endless number"),
        pytest.param(b"\x04\x01", id="advance cut short"),
        pytest.param(b"\x0f" + block(b"\x77\x08") + b"\x0d\x06", id="a register for an expression"),
        pytest.param(b"\x0f" + block(b"\x77\x08") + b"\x0e\x06", id="an offset for an expression"),
    ],
)
def test_what_follows_a_malformed_instruction_is_unknown(bad: bytes) -> None:
    after = b"" if bad == b"\x04\x01" else advance(0x10) + def_cfa(6, 16)
    table = one_function(advance(0x10) + bad + after)
    assert rows(table) == [(0x1000, FIRST), (0x1010, None)]


def test_malformed_common_part_spoils_its_functions_only() -> None:
    section = FrameSection()
    bad = section.cie(def_cfa(7, 8) + offset(16, 1) + b"\x3f")
    good = section.cie(def_cfa(7, 8) + offset(16, 1))
    section.fde(bad, 0x1000, 0x100, def_cfa(6, 16))
    section.fde(good, 0x2000, 0x100)
    section.fde(bad, 0x3000, 0x100)
    assert rows(ours(bytes(section))) == [(0x2000, FIRST), (0x2100, None)]


@pytest.mark.parametrize("cie_program", [b"", offset(16, 1), b"\x0e\x08" + offset(16, 1)])
def test_no_cfa_no_rule(cie_program: bytes) -> None:
    assert rows(one_function(b"", cie_program=cie_program)) == []


def test_return_address_column_out_of_range() -> None:
    section = FrameSection()
    cie = section.cie(def_cfa(7, 8) + offset(16, 1), ra=(1 << 64) - 240, version=3)  # -240 & 0xff is 16
    section.fde(cie, 0x1000, 0x100)
    assert rows(ours(bytes(section))) == []


def test_offsets_too_large_are_undefined() -> None:
    table = one_function(b"\x11\x03" + sleb(1 << 40))
    assert rows(table)[0][1] == (CFA_8, ((3, "UNDEFINED", 0), RA), 16, False)
    assert rows(one_function(def_cfa(7, 1 << 40))) == []


def test_image_base_and_far_functions() -> None:
    section = FrameSection()
    cie = section.cie(def_cfa(7, 8) + offset(16, 1), encoding=0x04)
    section.fde(cie, 0x40_1000, 0x10)
    section.fde(cie, 0x3F_0000, 0x10)  # before the image
    section.fde(cie, 0x40_0000 + 0xFFFF_FFF8, 0x10)  # past 4 GiB
    section.fde(cie, 0, 0x10)  # discarded by the linker
    assert rows(ours(bytes(section), base=0x40_0000)) == [(0x1000, FIRST), (0x1010, None)]


def test_wide_records_and_terminators() -> None:
    for is_eh in (True, False):
        section = FrameSection(is_eh=is_eh, wide=True)
        cie = section.cie(def_cfa(7, 8) + offset(16, 1), encoding=0x04)
        section.raw(b"\0\0\0\0")  # crtend.o's end of the section, before another file's part of it
        section.fde(cie, 0x1000, 0x100)
        section.raw(b"\x02\0\0\0\xff\xff")  # too short to say what it is
        section.fde(cie, 0x2000, 0x100)
        table = ours(bytes(section), is_eh=is_eh)
        assert rows(table) == [(0x1000, FIRST), (0x1100, None), (0x2000, FIRST), (0x2100, None)]


def test_bases_of_encodings() -> None:
    for encoding, base in ((0x2B, "text_addr"), (0x3B, "data_addr")):
        section = FrameSection()
        cie = section.cie(def_cfa(7, 8) + offset(16, 1), encoding=encoding)
        section.fde(cie, 0x200, 0x10)
        column = np.frombuffer(bytes(section), np.uint8)
        table = rules_from_frames(column, is_eh=True, section_addr=0, image_base=0, pointer_size=8, **{base: 0x7000})
        assert rows(table) == [(0x7200, FIRST), (0x7210, None)]


@pytest.mark.parametrize("encoding", [0xFF, 0x50, 0x05, 0x4B])
def test_unusable_encodings(encoding: int) -> None:
    section = FrameSection()
    section.fde(section.cie(def_cfa(7, 8), encoding=0x1B), 0x1000, 0x10)
    data = bytearray(bytes(section))
    data[data.index(b"\x01\x1b") + 1] = encoding
    assert rows(ours(bytes(data))) == []


@pytest.mark.parametrize("augmentation", ["eh", "zRB", "zRG"])
def test_other_augmentations(augmentation: str) -> None:
    section = FrameSection()
    cie = section.cie(def_cfa(7, 8) + offset(16, 1), augmentation=augmentation)
    section.fde(cie, 0x1000, 0x100)
    data = bytes(section)
    if augmentation == "eh":  # A pointer follows the string.
        at = data.index(b"eh\0") + 3
        data = bytes([data[0] + 8]) + data[1:at] + b"\0" * 8 + data[at:]
        fde = data[0] + 4
        data = (
            data[: fde + 4]
            + (int.from_bytes(data[fde + 4 : fde + 8], "little") + 8).to_bytes(4, "little")
            + data[fde + 8 :]
        )
    assert rows(ours(data)) == [(0x1000, FIRST), (0x1100, None)]


# --- Hostile bytes --------------------------------------------------------------------------------------------------


def mutants(data: bytes, count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    out = []
    for i in range(count):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 8, 40))):
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if i % 5 == 0:
            del changed[rng.randrange(len(changed)) :]
        out.append(bytes(changed))
    return out


def test_mutated_sections(fixtures: Path) -> None:
    elf = ELFFile(BytesIO((fixtures / "linux/x86_64/pie-O2/crashy").read_bytes()))
    section: Any = elf.get_section_by_name(".eh_frame")
    for data in mutants(section.data(), 1500, 2):
        ours(data, address=section["sh_addr"])
    for is_eh in (True, False):
        for seed in range(40):
            data = random_section(random.Random(seed), is_eh=is_eh, address_size=8, address=0)
            for changed in mutants(data, 25, seed):
                ours(changed, is_eh=is_eh)


def test_random_bytes() -> None:
    rng = random.Random(3)
    for size in (0, 1, 3, 4, 11, 12, 13, 64, 500):
        for _ in range(40):
            ours(rng.randbytes(size))
            ours(rng.randbytes(size), is_eh=False, pointer_size=4)


def test_long_common_parts_are_not_run_without_end() -> None:
    """Functions that take turns with two long CIEs: what was read before the fuel is spent stays."""
    section = FrameSection()
    program = def_cfa(7, 8) + offset(16, 1) + b"\0" * 5000
    cies = [section.cie(program), section.cie(program + b"\x08\x03")]
    for i in range(300):
        section.fde(cies[i % 2], 0x1000 + 0x20 * i, 0x10, advance(4))
    found = rows(ours(bytes(section)))
    assert found[0] == (0x1000, FIRST)
    assert 2 < len(found) < 600


def test_many_distinct_rules() -> None:
    section = FrameSection()
    cie = section.cie(def_cfa(7, 8) + offset(16, 1))
    section.fde(cie, 0x1000, 0x10_0000, b"".join(advance(1) + b"\x0e" + uleb(8 * i) for i in range(2, 20_000)))
    table = ours(bytes(section))
    assert len(table.rules) == 19_999
    assert rule_at(table, 19_998) == (("reg", 7, 8 * 19_999), (RA,), 16, False)
