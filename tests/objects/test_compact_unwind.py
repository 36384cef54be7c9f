from __future__ import annotations

import random
import re
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.model.tables import REG_OFFSET, SIGNAL_FRAME, RuleTable
from deadreckon.objects import breakpad, compact_unwind, macho_code, macho_unwind
from deadreckon.objects.compact_unwind import CompactUnwind
from oracle.frames import check
from oracle.rules import index_at
from synth.cfi import FrameSection, def_cfa, offset
from synth.compact import UnwindInfo, permutation
from synth.macho import I386, PURE, X86_64, Mach

if TYPE_CHECKING:
    from pathlib import Path

Rule = tuple[tuple[int, int], dict[int, int]]
FRAME, IMMEDIATE, INDIRECT, DWARF = 0x0100_0000, 0x0200_0000, 0x0300_0000, 0x0400_0000
FRAMELESS_ARM64, DWARF_ARM64, FRAME_ARM64 = 0x0200_0000, 0x0300_0000, 0x0400_0000
RBX, R12, R13, R14, R15, RBP = 3, 12, 13, 14, 15, 6
EBX, ECX, EDX, EDI, ESI, EBP = 3, 1, 2, 7, 6, 5


def rule_at(table: RuleTable, rva: int) -> Rule | None:
    """Return the CFA's register and offset and where registers are, relative to it."""
    index = index_at(table, rva)
    if index is None:
        return None
    kind, register, value, flags, first, count = table.rules[index].tolist()
    assert kind == 1
    assert not flags & SIGNAL_FRAME
    saved = table.saved[first : first + count].tolist()
    assert all(what == REG_OFFSET for _, what, _ in saved)
    return (register, value), {number: place for number, _, place in saved}


def lower(info: UnwindInfo | bytes, arch: Arch = Arch.X86_64, code: bytes = b"", base: int = 0) -> RuleTable:
    table, problems = compact_unwind.read(CompactUnwind(bytes(info), arch, lambda at, n: code[at - base :][:n]))
    check(table)
    assert not problems
    return table


def of(encoding: int, arch: Arch = Arch.X86_64, code: bytes = b"") -> Rule | None:
    """Return the rule of an encoding in a function's body."""
    info = UnwindInfo()
    info.regular((0x1000, encoding))
    return rule_at(lower(info, arch, code, 0x1000), 0x1010)


# --- Encodings ------------------------------------------------------------------------------------------------------


def test_frame_pointers() -> None:
    """Registers lie in five places upwards from an offset below the frame pointer."""
    assert of(FRAME) == ((RBP, 16), {16: -8, RBP: -16})
    regs = 1 | 2 << 3 | 3 << 6 | 4 << 9 | 5 << 12
    saved = {16: -8, RBP: -16, RBX: -56, R12: -48, R13: -40, R14: -32, R15: -24}
    assert of(FRAME | 5 << 16 | regs) == ((RBP, 16), saved)
    assert of(FRAME | 3 << 16 | 1 << 3 | 5 << 6) == ((RBP, 16), {16: -8, RBP: -16, RBX: -32, R15: -24})
    assert of(FRAME | 2 << 16 | 1 << 3 | 5, Arch.X86) == ((5, 8), {8: -4, EBP: -8, ESI: -16, EBX: -12})


@pytest.mark.parametrize("encoding", [FRAME | 6, FRAME | 7 << 12, 0, 0x0500_0000, 0x0F00_0000, DWARF | 0x1234])
def test_no_rule_for_what_is_unknown(encoding: int) -> None:
    assert of(encoding) is None
    assert of(encoding, Arch.X86) is None


def test_constant_frames() -> None:
    assert of(IMMEDIATE | 1 << 16) == ((7, 8), {16: -8})
    assert of(IMMEDIATE | 1 << 16, Arch.X86) == ((4, 4), {8: -4})
    two = IMMEDIATE | 4 << 16 | 2 << 10 | permutation([1, 5])
    assert of(two) == ((7, 32), {16: -8, RBX: -24, R15: -16})
    assert of(two, Arch.X86) == ((4, 16), {8: -4, EBX: -12, ESI: -8})


@pytest.mark.parametrize("count", range(7))
def test_every_order_of_saved_registers(count: int) -> None:
    names = {1: RBX, 2: R12, 3: R13, 4: R14, 5: R15, 6: RBP}
    names86 = {1: EBX, 2: ECX, 3: EDX, 4: EDI, 5: ESI, 6: EBP}
    info = UnwindInfo()
    orders = list(permutations(range(1, 7), count))
    info.regular(
        *((0x1000 + 16 * i, IMMEDIATE | 8 << 16 | count << 10 | permutation([*o])) for i, o in enumerate(orders))
    )
    tables = {Arch.X86_64: (names, 8, 16), Arch.X86: (names86, 4, 8)}
    for arch, (registers, word, pc) in tables.items():
        table = lower(info, arch)
        for i, order in enumerate(orders):
            found = rule_at(table, 0x1008 + 16 * i)
            assert found is not None
            # What was pushed last is lowest.
            expected = {registers[n]: -word * (1 + count - j) for j, n in enumerate(order)}
            assert found[1] == {pc: -word, **expected}


@pytest.mark.parametrize("encoding", [7 << 10, 1 << 10 | 6, 2 << 10 | 30, 3 << 10 | 120, 4 << 10 | 360, 6 << 10 | 720])
def test_orders_that_are_none(encoding: int) -> None:
    assert of(IMMEDIATE | 8 << 16 | encoding) is None


def test_frames_too_small_for_what_they_hold() -> None:
    assert of(IMMEDIATE) is None
    assert of(IMMEDIATE | 2 << 16 | 2 << 10) is None
    assert of(IMMEDIATE | 3 << 16 | 2 << 10) is not None


def test_large_frames() -> None:
    """Push rbx; sub rsp, 0x12340: the size is the operand, and the pushes are counted apart."""
    code = b"\x53\x48\x81\xec\x40\x23\x01\x00"
    indirect = INDIRECT | 4 << 16 | 2 << 13 | 1 << 10 | permutation([1])
    assert of(indirect, code=code) == ((7, 0x1_2350), {16: -8, RBX: -16})
    assert of(indirect, code=code[:7]) is None
    assert of(indirect) is None
    assert of(indirect, Arch.X86, code) == ((4, 0x1_2348), {8: -4, EBX: -8})


def test_arm64() -> None:
    assert of(FRAME_ARM64, Arch.ARM64) == ((29, 16), {30: -8, 29: -16})
    pairs = {30: -8, 29: -16, 19: -24, 20: -32, 23: -40, 24: -48, 27: -56, 28: -64}
    assert of(FRAME_ARM64 | 0b10101 | 0xF00, Arch.ARM64) == ((29, 16), pairs)
    assert of(FRAMELESS_ARM64, Arch.ARM64) == ((31, 0), {})
    assert of(FRAMELESS_ARM64 | 0xFFF << 12, Arch.ARM64) == ((31, 65520), {})
    assert of(FRAMELESS_ARM64 | 2 << 12 | 2, Arch.ARM64) == ((31, 32), {21: -8, 22: -16})
    for encoding in (0, DWARF_ARM64 | 0x10, 0x0100_0000, 0x0500_0000):
        assert of(encoding, Arch.ARM64) is None


def test_flags_are_no_part_of_an_encoding() -> None:
    """LSDA and personality routine."""
    assert of(0x7000_0000 | FRAME) == of(FRAME)


def test_other_architectures_have_other_encodings() -> None:
    info = UnwindInfo()
    info.regular((0x1000, FRAME))
    assert len(compact_unwind.read(CompactUnwind(bytes(info), Arch.ARM, lambda _a, _n: b""))[0].rva) == 0
    assert len(compact_unwind.read(CompactUnwind(b"", Arch.ARM64, lambda _a, _n: b""))[0].rva) == 0


# --- Pages ----------------------------------------------------------------------------------------------------------


def test_pages() -> None:
    """Regular and compressed ones; each entry holds up to the next, the last one up to the index's last."""
    info = UnwindInfo(common=[FRAME, IMMEDIATE | 2 << 16], end=0x6000)
    info.compressed((0x1000, FRAME), (0x1100, IMMEDIATE | 3 << 16), (0x1200, IMMEDIATE | 2 << 16))
    info.regular((0x2000, IMMEDIATE | 4 << 16), (0x2100, DWARF))
    info.compressed((0x3000, IMMEDIATE | 5 << 16), (0x5000, FRAME))
    table = lower(info)
    sizes = {0xFFF: None, 0x1001: 16, 0x10FF: 16, 0x1101: 24, 0x1201: 16, 0x1FFF: 16, 0x2001: 32, 0x2101: None}
    sizes |= {0x2FFF: None, 0x3001: 40, 0x4FFF: 40, 0x5001: 16, 0x5FFF: 16, 0x6000: None}
    found = {rva: rule_at(table, rva) for rva in sizes}
    assert {rva: rule and rule[0][1] for rva, rule in found.items()} == sizes


def test_damaged_pages_cost_themselves() -> None:
    info = UnwindInfo(end=0x6000)
    for start in (0x1000, 0x2000, 0x3000, 0x4000):
        info.regular((start, FRAME))
    data = bytearray(bytes(info))
    index = 28
    first, second, third = (int.from_bytes(data[index + 12 * i + 4 :][:4], "little") for i in range(3))
    data[second] = 9
    data[index + 12 * 2 + 4 : index + 12 * 2 + 8] = (1 << 20).to_bytes(4, "little")
    table, problems = compact_unwind.read(CompactUnwind(bytes(data), Arch.X86_64, lambda _a, _n: b""))
    assert [rule_at(table, n) is not None for n in (0x1001, 0x1FFF, 0x2001, 0x3001, 0x4001)] == [
        True, True, False, False, True
    ]  # fmt: skip
    assert len(problems) == 1
    assert f"{second:#x}" in problems[0]
    assert first < second < third


def test_counts_beyond_the_section() -> None:
    info = UnwindInfo(common=[FRAME])
    info.compressed((0x1000, FRAME))
    data = bytearray(bytes(info))
    data[8:12] = data[24:28] = b"\xff\xff\xff\x7f"
    _, problems = compact_unwind.read(CompactUnwind(bytes(data), Arch.X86_64, lambda _a, _n: b""))
    assert len(problems) == 3
    data = bytearray(bytes(info))
    data[-6:-4] = b"\xff\xff"
    lower(bytes(data))


@pytest.mark.parametrize("data", [b"\1", b"\1" + b"\0" * 26, b"\2" + b"\0" * 40])
def test_no_header(data: bytes) -> None:
    with pytest.raises(Malformed, match="__unwind_info"):
        compact_unwind.read(CompactUnwind(data, Arch.X86_64, lambda _a, _n: b""))


def test_mutated_sections() -> None:
    rng = random.Random(3)
    info = UnwindInfo(common=[FRAME, FRAME | 1], end=0x9000)
    info.compressed((0x1000, FRAME), (0x1800, IMMEDIATE | 2 << 16), (0x1900, INDIRECT))
    info.regular((0x2000, FRAME | 1), (0x2100, IMMEDIATE | 9 << 16 | 6 << 10 | 55))
    data = bytes(info)
    for arch in (Arch.X86, Arch.X86_64, Arch.ARM64):
        for _ in range(300):
            mutant = bytearray(data)
            for _ in range(rng.randrange(1, 6)):
                mutant[rng.randrange(len(mutant))] = rng.choice([0, 1, 2, 3, 0x7F, 0xFF, rng.randrange(256)])
            if rng.random() < 0.2:
                del mutant[rng.randrange(28, len(mutant)) :]
            mutant[:4] = data[:4]
            source = CompactUnwind(bytes(mutant), arch, lambda _at, size: b"\1" * size)
            table, problems = compact_unwind.read(source)
            check(table)
            assert len(problems) <= 8


# --- Prologues ------------------------------------------------------------------------------------------------------


def test_first_instruction() -> None:
    """Nothing was pushed; known starts of functions that share an entry have it too, other parts of functions don't."""
    info = UnwindInfo()
    info.regular((0x1000, IMMEDIATE | 4 << 16), (0x2000, 0x8000_0000 | IMMEDIATE | 4 << 16), (0x3000, DWARF))
    source = CompactUnwind(bytes(info), Arch.X86_64, lambda _a, _n: b"", np.array([0x1800, 0x3000], np.uint32))
    table, _ = compact_unwind.read(source)
    entry, body = ((7, 8), {16: -8}), ((7, 32), {16: -8})
    expected = {0x1000: entry, 0x1001: body, 0x17FF: body, 0x1800: entry, 0x1801: body, 0x2000: body, 0x3000: None}
    assert {rva: rule_at(table, rva) for rva in expected} == expected
    info = UnwindInfo()
    info.regular((0x1000, FRAME_ARM64))
    assert rule_at(lower(info, Arch.ARM64), 0x1000) == ((31, 0), {})


def test_standard_prologue() -> None:
    """After ``push rbp`` the frame pointer is still the caller's."""
    for arch, code, word in ((Arch.X86_64, b"\x55\x48\x89\xe5\x90", 8), (Arch.X86, b"\x55\x89\xe5\x90", 4)):
        sp, fp, pc = (7, 6, 16) if word == 8 else (4, 5, 8)
        for bytes_, standard in ((code, True), (code[:1] + b"\x90" * 8, False), (b"", False)):
            info = UnwindInfo()
            info.regular((0x1000, FRAME), (0x1800, IMMEDIATE | 2 << 16))
            table = lower(info, arch, bytes_, 0x1000)
            body = ((fp, 2 * word), {pc: -word, fp: -2 * word})
            pushed = ((sp, 2 * word), {pc: -word, fp: -2 * word}) if standard else body
            after = 0x1000 + len(code) - 1
            expected = {0x1000: ((sp, word), {pc: -word}), 0x1001: pushed, after - 1: pushed, after: body}
            assert {rva: rule_at(table, rva) for rva in expected} == expected


# --- Files ----------------------------------------------------------------------------------------------------------

BASE = 0x1_0000_0000


def image(info: UnwindInfo, frames: bytes = b"", cpu: int = X86_64, base: int = BASE, code: bytes = b"") -> Mach:
    content = {b"__unwind_info": bytes(info), b"__eh_frame": frames, b"__text": code.ljust(0x3000, b"\x90")}
    sections = [
        (b"__text", base + 0x1000, 0x3000, PURE),
        (b"__unwind_info", base + 0x8000, len(content[b"__unwind_info"]), 0),
        (b"__eh_frame", base + 0x9000, len(frames), 0),
    ]
    return Mach(cpu=cpu, base=base, wide=cpu != I386, sections=sections, content=content, starts=[base + 0x1000])


def rules(file: Mach) -> macho_unwind.MachRules:
    data = bytes(file)
    (found,) = macho_code.read(data)
    result = macho_unwind.read(data, found)
    check(result.rules)
    return result


def test_dwarf_where_an_encoding_says_so() -> None:
    info = UnwindInfo(end=0x4000)
    info.regular((0x1000, FRAME), (0x2000, DWARF | 0x20), (0x3000, INDIRECT | 3 << 16))
    section = FrameSection(address=BASE + 0x9000)
    cie = section.cie(def_cfa(7, 8) + offset(16, 1))
    section.fde(cie, BASE + 0x2000, 0x100, def_cfa(7, 48))
    found = rules(image(info, bytes(section), code=b"\x90" * 0x2003 + b"\x00\x10\x00\x00")).rules
    assert rule_at(found, 0x1FFF) == ((6, 16), {16: -8, 6: -16})
    assert rule_at(found, 0x2000) == ((7, 48), {16: -8})
    assert rule_at(found, 0x2100) is None
    assert rule_at(found, 0x3001) == ((7, 0x1000), {16: -8})
    assert rule_at(found, 0x4000) is None


def test_registers_of_32_bit_frames() -> None:
    """In __eh_frame esp is 5 and ebp 4."""
    info = UnwindInfo(end=0x4000)
    info.regular((0x1000, FRAME), (0x2000, DWARF), (0x3000, DWARF))
    section = FrameSection(address=0x9000, address_size=4)
    cie = section.cie(def_cfa(5, 4) + offset(8, 1), data=-4, ra=8)
    section.fde(cie, 0x2000, 0x100, def_cfa(4, 8) + offset(4, 2))
    section.fde(cie, 0x3000, 0x100, b"\x0f\x02\x75\x08")
    found = rules(image(info, bytes(section), I386, 0)).rules
    assert rule_at(found, 0x1005) == ((5, 8), {8: -4, 5: -8})
    assert rule_at(found, 0x2000) == ((5, 8), {8: -4, 5: -8})
    assert rule_at(found, 0x3000) is None


def test_damaged_section_leaves_dwarf() -> None:
    section = FrameSection(address=BASE + 0x9000)
    section.fde(section.cie(def_cfa(7, 8) + offset(16, 1)), BASE + 0x2000, 0x100)
    found = rules(image(UnwindInfo(version=7), bytes(section)))
    assert rule_at(found.rules, 0x2000) == ((7, 8), {16: -8})
    assert len(found.problems) == 1
    assert "version 1" in found.problems[0]


# --- Real files -----------------------------------------------------------------------------------------------------

DUMPS = {
    "x86_64/nofp/libmozglue": (Arch.X86_64, "x86_64/nofp/libmozglue.dylib", 618, 186),
    "x86_64/fp/libmozglue": (Arch.X86_64, "x86_64/fp/libmozglue.dylib", 546, 0),
    "arm64/fp/query-api": (Arch.ARM64, "arm64/fp/query-api", 2559, 3),
    "arm64/nofp/rustup": (Arch.ARM64, "", 1161, 4444),
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", DUMPS)
def test_what_another_reader_prints(corpus: Path, name: str) -> None:
    """Every entry of sections whose reading by another program is kept beside them.

    On ARM64 that program names x19 and x20 last, where compilers put them first; which registers lie where is left
    out of the comparison there.
    """
    arch, binary, described, other = DUMPS[name]
    folder = corpus / "native/framehop/fixtures/macos"
    if binary:
        data = (folder / binary).read_bytes()
        (found,) = macho_code.read(data)
        info = next(s for s in found.sections if s.name == "__unwind_info")
        section = data[info.offset : info.offset + info.size]
        text = next(s for s in found.sections if s.name == "__text")
        shift = text.offset - (text.address - found.base)
    else:
        data, shift = b"", 0
        section = (folder / f"{name}.__unwind_info").read_bytes()
    table = lower_with(section, arch, data, shift)
    counts = [0, 0]
    for line in (folder / f"{name}-unwindinfodump.txt").read_text().splitlines():
        row = re.match(r"\s+0x([0-9a-f]+): (.*)", line)
        if row is None:
            continue
        ours = rule_at(table, int(row[1], 16) + 1)
        rule = re.match(r"CFA=reg(\d+)(?:\+(\d+))?(?:: (.*))?$", row[2])
        counts[rule is None] += 1
        if rule is None:
            assert (ours is None) == (row[2] != "frameless indirect"), line
            continue
        assert ours is not None, line
        told = rule[3] or ""
        saved = {int(n): -int(at) for n, at in re.findall(r"reg(\d+)=\[CFA-(\d+)\]", told)}
        cfa = (int(rule[1]), int(rule[2] or 0))
        if "reg31=reg29+16" in told:  # Its CFA is where the frame pointer points.
            cfa, saved = (29, 16), {29: -16, 30: -8}
        assert ours[0] == cfa, line
        if arch is Arch.ARM64:
            saved = {n: at for n, at in saved.items() if n in {29, 30}}
            ours[1].update({n: 0 for n in ours[1] if n not in {29, 30}})
            assert {n: at for n, at in ours[1].items() if at} == saved, line
        else:
            assert ours[1] == saved, line
    assert counts == [described, other]


def lower_with(section: bytes, arch: Arch, data: bytes, shift: int) -> RuleTable:
    """Return the rules of functions' bodies: of the code only the sizes of frames are told."""

    def code(at: int, size: int) -> bytes:
        found = data[at + shift :][:size]
        return b"" if found == b"\x55\x48\x89\xe5" else found

    table, problems = compact_unwind.read(CompactUnwind(section, arch, code))
    assert not problems
    check(table)
    return table


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "compared", "large"),
    [
        ("framehop/fixtures/macos/x86_64/nofp/libmozglue.dylib", 650, 7),
        ("framehop/fixtures/macos/x86_64/fp/libmozglue.dylib", 540, 0),
        ("framehop/fixtures/macos/arm64/fp/query-api", 2100, 0),
        ("symbolic/fixtures/macos/crash", 130, 6),
    ],
)
def test_symbolics_text(corpus: Path, name: str, compared: int, large: int) -> None:
    """Where symbolic has a rule for a function's body, CFA and return address are the same.

    It doesn't read the size of large frames from their code, and takes them for frames of one word.
    """
    import symbolic

    path = corpus / "native" / name
    data = path.read_bytes()
    (found,) = macho_code.read(data)
    ours = macho_unwind.read(data, found).rules
    (obj,) = symbolic.Archive.open(str(path)).iter_objects()
    with obj.make_cficache().open_stream() as stream:
        theirs = breakpad.rules_from_text(stream.read(), found.arch)
    counts = [0, 0]
    for start, stop in zip(theirs.rva.tolist(), [*theirs.rva[1:].tolist(), 0], strict=True):
        mine, other = index_at(ours, stop - 1), index_at(theirs, stop - 1)
        if stop - start < 16 or other is None:
            continue
        assert mine is not None, hex(start)
        cfa, told = ours.rules[mine, :3].tolist(), theirs.rules[other, :3].tolist()
        is_large = told == [1, 7, 8] and cfa[2] > 2000
        assert is_large or cfa == told, hex(start)
        counts[is_large] += 1
    assert counts[0] > compared
    assert counts[1] == large
