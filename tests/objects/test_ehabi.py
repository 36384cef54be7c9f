from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.model.tables import NO_RULE, SIGNAL_FRAME, RuleTable
from deadreckon.objects import ehabi, elf
from deadreckon.objects.rulebuilder import RuleBuilder
from deadreckon.objects.rulemerge import merge
from oracle import ehabi as oracle
from oracle.ehabi import LEAF, REGISTERS, caller, memory
from oracle.frames import check
from oracle.rules import index_at
from synth.cfi import FrameSection, def_cfa, offset
from synth.ehabi import BASE, INDEX, TABLE, TEXT, Tables, prel31
from synth.elf import ALLOC, NOBITS, Section

FUNCTION = TEXT - BASE


def rules(tables: Tables, **options: Any) -> elf.ElfTables:
    found = elf.read(io.BytesIO(tables.elf(**options)))
    check(found.rules)
    return found


def of(codes: bytes) -> dict[int, int] | None:
    """Return the caller's registers that a sequence gives, by way of a file."""
    tables = Tables()
    tables.compact(TEXT, codes)
    return caller(rules(tables).rules, FUNCTION + 5)


def at(*offsets: int) -> list[int]:
    return [memory(REGISTERS[13] + n, 4) for n in offsets]


# --- Instructions ---------------------------------------------------------------------------------------------------

SP = REGISTERS[13]


@pytest.mark.parametrize(
    ("codes", "moved", "popped"),
    [
        ("b0", 0, {}),
        ("00", 4, {}),
        ("3f", 0x100, {}),
        ("3f02", 0x10C, {}),
        ("40", -4, {}),
        ("7f", -0x100, {}),
        ("8001", 4, {4: 0}),
        ("80ff", 32, {4 + i: 4 * i for i in range(8)}),
        ("8400", 4, {14: 0}),
        ("8408", 8, {7: 0, 14: 4}),
        ("8800", 4, {15: 0}),
        ("8c01", 12, {4: 0, 14: 4, 15: 8}),
        ("a0", 4, {4: 0}),
        ("a7", 32, {4 + i: 4 * i for i in range(8)}),
        ("a8", 8, {4: 0, 14: 4}),
        ("ab", 20, {4: 0, 5: 4, 6: 8, 7: 12, 14: 16}),
        ("b108", 4, {3: 0}),
        ("b10f8400", 20, {0: 0, 1: 4, 2: 8, 3: 12, 14: 16}),
        ("b200", 0x204, {}),
        ("b27f", 0x204 + 0x1FC, {}),
        ("b28101", 0x204 + 129 * 4, {}),
        ("b301", 20, {}),
        ("b38f", None, None),
        ("b4", 4, {}),
        ("b8", 12, {}),
        ("bf", 68, {}),
        ("c0", 8, {}),
        ("c5", 48, {}),
        ("c613", 32, {}),
        ("c70f", 16, {}),
        ("c8f0", 8, {}),
        ("c883", 32, {}),
        ("c987", 64, {}),
        ("d0", 8, {}),
        ("d7", 64, {}),
        ("02a9d7b0", 12 + 12, {4: 12, 5: 16, 14: 20}),
    ],
)
def test_instructions(codes: str, moved: int | None, popped: dict[int, int] | None) -> None:
    """By the numbers of table 4 of the specification: how far sp moves, and where a register was."""
    data = bytes.fromhex(codes)
    if codes.endswith("d7b0"):
        moved = 24 + 64
    if moved is None or popped is None:
        assert of(data) is None
        return
    expected = {r: memory(SP + n, 4) for r, n in popped.items()}
    expected |= {13: SP + moved, 15: expected.get(15, expected.get(14, REGISTERS[14]))}
    assert of(data) == dict(sorted(expected.items()))


@pytest.mark.parametrize(
    "codes",
    (
        "8000 9d 9f b100 b110 b5 b6 b7 c700 c710 c8f1 ca00 cf00 d8 ff e0 "
        "80 b1 b280 b2ffffffffff01 b2ffffffff7f b3 c6 c9"
    ).split(),
)
def test_no_rule_for_what_is_reserved_or_cut_short(codes: str) -> None:
    """Also behind instructions that are known, for the whole function."""
    for before in (b"", b"\xa8", b"\x02\xa8"):
        assert ehabi.unwound(before) is not None
        assert ehabi.unwound(before + bytes.fromhex(codes)) is None
    assert of(bytes.fromhex("9d")) is None


def test_stack_pointer_from_registers() -> None:
    r7, r11 = REGISTERS[7], REGISTERS[11]
    assert of(bytes.fromhex("978408")) == {7: memory(r7, 4), 13: r7 + 8, 14: memory(r7 + 4, 4), 15: memory(r7 + 4, 4)}
    # sub sp, fp, #8; pop {r4, r11, lr}
    lr = memory(r11, 4)
    assert of(bytes.fromhex("9b418481"))[4] == memory(r11 - 8, 4)  # type: ignore[index]
    assert of(bytes.fromhex("9b41a8")) == {
        4: memory(r11 - 8, 4),
        13: r11,
        14: memory(r11 - 4, 4),
        15: memory(r11 - 4, 4),
    }
    assert lr != r11


def test_registers_saved_around_a_change_of_the_stack() -> None:
    """r4 and lr are above sp, r5 above what r4 held."""
    r4, lr = at(0, 4)
    assert of(bytes.fromhex("a8948002")) == {4: r4, 5: memory(r4, 4), 13: r4 + 4, 14: lr, 15: lr}
    # pop {r4, sp, lr}: sp is what was popped.
    r4, sp, lr = at(0, 4, 8)
    assert of(bytes.fromhex("8601")) == {4: r4, 13: sp, 14: lr, 15: lr}


def test_stack_pointers_from_stack_pointers_are_bounded() -> None:
    assert of(b"\xa0\x94" * 4) is not None
    assert of(b"\xa0\x94" * 5) is None
    assert of(b"\xb2\xff\xff\xff\x7f" * 3) is None


@given(st.binary(max_size=24))
def test_any_instructions(codes: bytes) -> None:
    """The rule gives what the instructions give one by one, or none where they refuse."""
    builder = RuleBuilder()
    rule, _ = ehabi._lower(codes, builder)
    table = builder.table(np.array([0]), np.array([rule]))
    expected = oracle.run(codes, REGISTERS, memory)
    if rule == NO_RULE and expected is not None:
        # Not followed for ever.
        assert sum(c & 0xF0 == 0x90 or c & 0xF2 == 0x82 for c in codes) > 4 or b"\xb2" in codes
    else:
        assert caller(table, 0) == expected


# --- Entries --------------------------------------------------------------------------------------------------------


def test_forms_of_entries() -> None:
    """One sequence in the index, as personality routines 0, 1 and 2 have it, and behind one of a language's own."""
    codes = bytes.fromhex("02ab")
    tables = Tables()
    tables.inline(TEXT, codes)
    for i in range(3):
        tables.compact(TEXT + 0x100 + 0x100 * i, codes, i)
    tables.generic(TEXT + 0x400, codes)
    tables.generic(TEXT + 0x500, codes + b"\x3f" * 9)
    found = rules(tables)
    assert not found.problems
    expected = oracle.run(codes, REGISTERS, memory)
    assert [caller(found.rules, FUNCTION + 0x100 * i + 9) for i in range(5)] == [expected] * 5
    assert caller(found.rules, FUNCTION + 0x509) == oracle.run(codes + b"\x3f" * 9, REGISTERS, memory)
    assert len(found.rules.rules) == 3


def test_where_entries_hold() -> None:
    """From a function's second byte up to the next function or the end of the code; none before the first."""
    tables = Tables()
    tables.inline(TEXT + 0x100, b"\xa8")
    tables.cantunwind(TEXT + 0x200)
    tables.inline(TEXT + 0x300, b"\xa9")
    table = rules(tables, size=0x400).rules
    first, last = oracle.run(b"\xa8", REGISTERS, memory), oracle.run(b"\xa9", REGISTERS, memory)
    spans = {0: None, 0xFF: None, 0x100: LEAF, 0x101: first, 0x1FF: first, 0x200: None, 0x2FF: None, 0x300: LEAF}
    spans |= {0x301: last, 0x3FF: last, 0x400: None, 0x10_0000: None}
    assert {n: caller(table, FUNCTION + n) for n in spans} == spans


def test_functions_that_share_an_entry() -> None:
    """Linkers merge equal neighbours; symbols tell where the others start. Bit 0 says that they are Thumb code."""
    tables = Tables()
    tables.inline(TEXT, b"\xa8")
    tables.cantunwind(TEXT + 0x200)
    symbols = (("a", TEXT + 1), ("b", TEXT + 0x81), ("c", TEXT + 0x100), ("d", TEXT + 0x201), ("e", TEXT + 0x9000))
    table = rules(tables, symbols=symbols).rules
    body = oracle.run(b"\xa8", REGISTERS, memory)
    spans = {0: LEAF, 1: body, 0x7F: body, 0x80: LEAF, 0x81: body, 0x100: LEAF, 0x101: body, 0x200: None, 0x8000: None}
    assert {n: caller(table, FUNCTION + n) for n in spans} == spans


def test_thumb_bit_in_the_index() -> None:
    tables = Tables()
    tables.inline(TEXT + 1, b"\xa8")
    assert caller(rules(tables).rules, FUNCTION) == LEAF


def test_signal_trampoline() -> None:
    """The whole context is on the stack: what it interrupted was not called, and nothing calls the trampoline."""
    tables = Tables()
    tables.compact(TEXT, bytes.fromhex("07b10f8fff"))
    table = rules(tables, symbols=(("__restore", TEXT + 4),)).rules
    for rva in (FUNCTION, FUNCTION + 4, FUNCTION + 40):
        index = index_at(table, rva)
        assert index is not None
        assert table.rules[index, 3] == SIGNAL_FRAME | 15 << 8
        assert caller(table, rva) == {r: memory(SP + 32 + 4 * r, 4) for r in range(16)}
    plain = rules(_one(b"\xb1\x0e\x8f\xff")).rules
    assert not plain.rules[:, 3].astype(np.int64).tolist().count(SIGNAL_FRAME | 15 << 8)


def _one(codes: bytes) -> Tables:
    tables = Tables()
    tables.compact(TEXT, codes)
    return tables


def test_disorder() -> None:
    """Entries are sorted by the linker; where they are not, each function still has its own. Of two the last counts."""
    tables = Tables()
    tables.inline(TEXT + 0x200, b"\xa9")
    tables.inline(TEXT + 0x100, b"\xaa")
    tables.inline(TEXT + 0x100, b"\xa8")
    table = rules(tables).rules
    assert caller(table, FUNCTION + 0x150) == oracle.run(b"\xa8", REGISTERS, memory)
    assert caller(table, FUNCTION + 0x250) == oracle.run(b"\xa9", REGISTERS, memory)


def test_damaged_entries_cost_themselves() -> None:
    tables = Tables()
    tables.inline(TEXT, b"\xa8")
    tables.word(TEXT + 0x100, 0x8100_B0B0)  # Personality routine 1 has no room in the index.
    tables.word(TEXT + 0x200, prel31(TABLE + 0x800, INDEX + len(tables.index) + 4))
    tables.pointer(TEXT + 0x300)
    tables.raw(bytes.fromhex("83b0b0b0"))
    tables.pointer(TEXT + 0x400)
    tables.raw(bytes.fromhex("81ffb0b0"))
    tables.inline(TEXT + 0x500, b"\xa9")
    tables.index[-8:-4] = b"\0\0\0\x80"
    tables.inline(TEXT + 0x600, b"\xaa")
    tables.index += b"\1\2\3"
    found = rules(tables)
    got = [caller(found.rules, FUNCTION + 0x100 * i + 9) for i in range(7)]
    assert got[0] == oracle.run(b"\xa8", REGISTERS, memory)
    assert got[1:6] == [None] * 5
    assert got[6] == oracle.run(b"\xaa", REGISTERS, memory)
    assert len(found.problems) == 4
    text = " ".join(found.problems)
    assert "0x8100b0b0" in text
    assert "0x83b0b0b0" in text
    assert ".ARM.extab" in text
    assert "31 bits" in text


def test_what_dwarf_covers_is_dwarfs() -> None:
    """.debug_frame knows prologues; the exception tables fill what it leaves out."""
    tables = Tables()
    tables.inline(TEXT, b"\xa8")
    tables.compact(TEXT + 0x300, bytes.fromhex("a8948002"))
    section = FrameSection(is_eh=False, address_size=4)
    cie = section.cie(def_cfa(13, 0), code=2, data=-4, ra=14)
    section.fde(cie, TEXT + 0x100, 0x80, b"\x0f\x02\x7d\x10" + offset(14, 1))
    section.fde(cie, TEXT + 0x200, 0x80, def_cfa(7, 8) + offset(14, 1))
    table = rules(tables, symbols=(), size=0x1000).rules
    data = tables.elf((), 0x1000, Section(".debug_frame", bytes(section)))
    both = elf.read(io.BytesIO(data)).rules
    check(both)
    for rva in (0, 9, 0xFF, 0x180, 0x1FF, 0x280, 0x301, 0x3FF, 0x900):
        assert caller(both, FUNCTION + rva) == caller(table, FUNCTION + rva), hex(rva)
    for rva in (0x100, 0x17F):
        assert caller(both, FUNCTION + rva) == {13: SP + 16, 14: at(12)[0], 15: at(12)[0]}
    assert caller(both, FUNCTION + 0x200)[13] == REGISTERS[7] + 8  # type: ignore[index]


def test_merging_with_nothing() -> None:
    table, none = rules(_one(b"\xa8")).rules, RuleTable.empty()
    assert merge(table, none) is table
    assert merge(none, table) is table
    assert len(merge(none, none).rva) == 0


def test_files_without_content() -> None:
    """A debug file has the sections' headers only."""
    file = Tables().elf((), 64)
    assert len(elf.read(io.BytesIO(file)).rules.rva) == 0
    more = Section(".ARM.exidx", b"\1" * 16, NOBITS, ALLOC, addr=INDEX, size=16)
    found = elf.read(io.BytesIO(Tables().elf((), 64, more)))
    assert (len(found.rules.rva), found.problems) == (0, [])


def test_mutated_tables() -> None:
    """Whatever an index and a table say, the rest of the file is read, and the rules are well-formed."""
    rng = random.Random(5)
    tables = Tables()
    for i in range(12):
        kind = (tables.inline, tables.compact, tables.generic)[i % 3]
        kind(TEXT + 0x40 * i, bytes(rng.choice([0x02, 0xA8, 0x97, 0xB1, 0x08, 0x84, 0xB2, 0xD3]) for _ in range(3)))
    for _ in range(400):
        mutant = Tables()
        mutant.index, mutant.table = bytearray(tables.index), bytearray(tables.table)
        for _ in range(rng.randrange(1, 6)):
            part = rng.choice([mutant.index, mutant.table])
            part[rng.randrange(len(part))] = rng.choice([0, 1, 0x7F, 0x80, 0x81, 0xFF, rng.randrange(256)])
        if rng.random() < 0.2:
            del mutant.table[rng.randrange(len(mutant.table)) :]
        found = rules(mutant)
        assert len(found.text) == 1
        assert len(found.problems) <= 8


# --- Prologues and epilogues in Thumb code --------------------------------------------------------------------------


def frames_in(code: str, codes: str) -> dict[int, dict[int, int] | None]:
    """Return the caller's registers at each halfword of a function, from its code and its unwind instructions."""
    data = b"".join(int(half, 16).to_bytes(2, "little") for half in code.split())
    tables = Tables()
    tables.compact(TEXT, bytes.fromhex(codes))
    tables.cantunwind(TEXT + len(data))
    table = rules(tables, code=data).rules
    return {rva: caller(table, FUNCTION + rva) for rva in range(0, len(data), 2)}


def kept(size: int, base: int = 13, **places: int) -> dict[int, int]:
    """Return the caller's registers: r4=0 was saved at the base plus 0; the return address is where lr or pc was."""
    names = {**{f"r{i}": i for i in range(13)}, "lr": 14, "pc": 15}
    found = {names[n]: memory(REGISTERS[base] + at, 4) for n, at in places.items()}
    return dict(sorted({15: found.get(14, REGISTERS[14]), **found, 13: REGISTERS[base] + size}.items()))


def test_prologue_and_epilogue() -> None:
    """Push {r4, r7, lr}; movs; sub sp, #8; nop; add sp, #8; pop {r4, r7, pc}, word by word."""
    found = frames_in("b590 2000 b082 bf00 b002 bd90", "018409")
    whole = kept(20, r4=8, r7=12, lr=16)
    pushed = kept(12, r4=0, r7=4, lr=8)
    assert found == {
        0: LEAF,
        2: pushed,
        4: pushed,
        6: whole,
        8: kept(20, r4=8, r7=12, pc=16),
        10: kept(12, r4=0, r7=4, pc=8),
    }


def test_epilogue_that_goes_on_after_it_restored() -> None:
    """Push {r4}; nop; ldr.w r4, [sp], #4; ldrb; bx lr: seen in the fixtures' ``weigh``."""
    found = frames_in("b410 bf00 f85d 4b04 7810 4770", "a0b0")
    assert found == {0: LEAF, 2: kept(4, r4=0), 4: kept(4, r4=0), 6: kept(4, r4=0), 8: LEAF, 10: LEAF}


def test_frame_pointer() -> None:
    """Push {r7, lr}; sub sp, #8; add r7, sp, #0; nop; adds r7, #8; mov sp, r7; pop {r7, pc}."""
    found = frames_in("b580 b082 af00 bf00 3708 46bd bd80", "97018408")
    body = kept(16, 7, r7=8, lr=12)
    expected = {0: LEAF, 2: kept(8, r7=0, lr=4), 4: kept(16, r7=8, lr=12), 6: body, 8: body}
    assert found == expected | {10: kept(8, 7, r7=0, pc=4), 12: kept(8, r7=0, pc=4)}


@pytest.mark.parametrize(
    ("code", "codes", "at", "size"),
    [
        ("e92d 41f0 b084", "03841f", 4, 24),  # push.w {r4-r8, lr}; sub sp, #16
        ("b510 ed2d 8b04", "d1a8", 2, 8),  # push {r4, lr}; vpush {d8, d9}
        ("b510 f5ad 7d00", "3f3fa8", 2, 8),  # push {r4, lr}; sub.w sp, sp, #512
        ("b510 f2ad 4d04", "b28001a8", 2, 8),  # push {r4, lr}; subw sp, sp, #1028
        ("f84d 4d04 b081", "00a0", 4, 4),  # str.w r4, [sp, #-4]!; sub sp, #4
    ],
)
def test_instructions_of_prologues(code: str, codes: str, at: int, size: int) -> None:
    """Between the pushes and what follows them the frame is as large as what was pushed."""
    whole = oracle.run(bytes.fromhex(codes), REGISTERS, memory)
    assert whole is not None
    found = frames_in(code + " bf00 bf00", codes)
    assert found[0] == LEAF
    assert found[at] is not None
    assert (found[at] or {})[13] == SP + size
    assert found[2 * len(code.split())] == whole


@pytest.mark.parametrize(
    ("code", "codes"),
    [
        ("b530 b082 bf00 b002 bd30", "01a8"),  # Pushes other registers than the tables say.
        ("0010 b082 bf00 b002 bd10", "01a8"),  # ARM code, or scheduled.
        ("bf00 b510 b082 b002 bd10", "01a8"),
    ],
)
def test_code_that_is_not_what_the_tables_say(code: str, codes: str) -> None:
    """The body's rule holds, but for the first instruction."""
    found = frames_in(code, codes)
    whole = oracle.run(bytes.fromhex(codes), REGISTERS, memory)
    assert found == {0: LEAF} | dict.fromkeys(range(2, 10, 2), whole)


def test_what_ends_an_epilogue() -> None:
    """A call, or halfwords that may belong to either of two instructions: what is before has the body's rule."""
    for middle in ("4798", "e8bd e8bd", "46ae", "f3af 8000"):
        found = frames_in(f"b510 b082 bf00 b002 {middle} bd10", "01a8")
        whole = oracle.run(b"\x01\xa8", REGISTERS, memory)
        assert [found[6], found[8]] == [whole, whole]
        assert found[max(found)] == kept(8, r4=0, pc=4)


def test_any_code() -> None:
    """Whatever the code is, the rules are well-formed and the body's holds for return addresses."""
    rng = random.Random(11)
    known = [0xB510, 0xB082, 0xB002, 0xBD10, 0x4770, 0xE92D, 0xE8BD, 0x41F0, 0xF85D, 0x4B04, 0x46BD, 0xAF00, 0xBF00]
    whole = oracle.run(b"\x01\xa8", REGISTERS, memory)
    for _ in range(60):
        halves = [rng.choice([*known, rng.randrange(1 << 16)]) for _ in range(40)]
        tables = Tables()
        tables.compact(TEXT, b"\x01\xa8")
        table = rules(tables, code=b"\x10\xb5\x82\xb0" + b"".join(h.to_bytes(2, "little") for h in halves)).rules
        assert all(caller(table, FUNCTION + rva) == whole for rva in range(1, 84, 2))
