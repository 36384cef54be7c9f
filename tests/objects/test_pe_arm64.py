from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.model.tables import CFA_EXPR, SIGNAL_FRAME, SIGNED_RA, RuleTable
from deadreckon.objects import pe, pe_unwind
from oracle.arm64 import follow
from oracle.frames import check
from oracle.rules import apply, index_at
from synth import arm64
from synth.arm64 import (
    END,
    END_C,
    FP,
    LR,
    RETURN_ADDRESS,
    SIGNATURE,
    SP,
    STACK,
    Function,
    Step,
    allocate,
    codes,
    packed_steps,
    packed_word,
    random_steps,
    record,
    save_fplr_x,
    save_regp,
    set_fp,
)
from synth.pe import ARM64, EXCEPTION, PDATA, RDATA, TEXT, Pe, with_table

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.expression import Read

PC = 32
PLACES = (TEXT, 0x10_0000, 0x20_0000)


def read(file: Pe | bytes) -> pe_unwind.PeRules:
    found = pe_unwind.read(bytes(file))
    check(found.rules)
    return found


def entry(start: int, word: int = RDATA) -> bytes:
    return struct.pack("<2I", start, word)


def made(entries: bytes, unwind: bytes = b"", size: int = 0x800) -> Pe:
    return with_table(entries, unwind, bytes(size), machine=ARM64)


def memory(words: dict[int, int]) -> Read:
    def load(address: int, size: int) -> int | None:
        return words.get(address) if size == 8 else None

    return load


def caller(table: RuleTable, rva: int, registers: dict[int, int], words: dict[int, int]) -> dict[int, int] | None:
    return apply(table, rva, registers, memory(words), pc=PC, sp=SP)


def agree(table: RuleTable, function: Function, start: int = TEXT, first: int = 0, last: int = 1 << 30) -> int:
    """Check that from each instruction the caller's registers are found as they were."""
    seen = 0
    for offset, registers, words in function.points:
        if not first <= offset < last:
            continue
        found = caller(table, start + offset, registers, words)
        assert found is not None, hex(offset)
        index = index_at(table, start + offset)
        signed = bool(table.rules[index][3] & SIGNED_RA)
        assert found[PC] == RETURN_ADDRESS ^ (SIGNATURE if signed else 0), hex(offset)
        assert found[SP] == STACK, hex(offset)
        for register in range(19, 30):
            assert found[register] == function.entry[register], (hex(offset), register)
        seen += 1
    return seen


# --- Records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(300))
def test_every_instruction(seed: int) -> None:
    """Epilogues that share the prologue's codes, or have their own, or end the function."""
    rng = random.Random(seed)
    steps = random_steps(rng)
    function = Function(rng)
    for step in steps:
        function.do(step)
    framed = any(step.frame is not None for step in steps)
    unwind = codes(steps)
    shared = [s for s in steps if s.frame is None] if rng.random() < 0.5 else steps
    function.body(steps, grow=rng.choice((0, 4096)) if framed and shared is steps else 0)
    index = 0
    if shared is not steps:
        index = len(unwind)
        unwind += codes(shared)
    scopes = []
    for _ in range(rng.randrange(1, 4)):
        scopes.append((function.length, index))
        function.leave(shared)
        if rng.random() < 0.8:
            function.body(steps)
    ends_in_one = scopes[-1][0] + 4 * len(shared) + 4 == function.length
    if len(scopes) == 1 and ends_in_one and rng.random() < 0.7 and index < 32:
        scopes = [(-1, index)]
    found = read(made(entry(TEXT), record(function.length, unwind, scopes, extended=rng.random() < 0.2)))
    assert found.problems == []
    assert agree(found.rules, function) == len(function.points)


@pytest.mark.parametrize("seed", range(60))
def test_fragments(seed: int) -> None:
    """A part with a prologue and an epilogue of its own, in a function that saved other registers before."""
    rng = random.Random(seed)
    function = Function(rng)
    outer = [save_fplr_x(160), save_regp(19, 16), set_fp()]
    inner = [save_regp(21, 32), save_regp(23, 48)][: rng.randrange(3)]
    for step in outer:
        function.do(step)
    function.body(outer)
    start = function.length
    for step in inner:
        function.do(step)
    function.body(inner)
    at = function.length - start
    before = dict(function.registers)
    for step in reversed(inner):
        function.undo(step)
    function.tick()
    after = dict(function.registers)
    end = function.length
    unwind = codes(inner, END_C) + codes(outer)
    found = read(made(entry(TEXT + start), record(end - start, unwind, [(at, 0)])))
    assert found.problems == []
    assert agree(found.rules, function, first=start, last=end) == (end - start) // 4
    # An epilogue that undoes all of it, in a part that has the epilogue only.
    function.registers = after if not inner else before
    start = function.length
    function.body([])
    at = function.length - start
    function.leave(outer + inner)
    unwind = END_C + codes(outer + inner)
    found = read(made(entry(TEXT + start), record(function.length - start, unwind, [(at, 1)])))
    assert agree(found.rules, function, first=start) == (function.length - start) // 4


def test_fragment_of_a_fragment() -> None:
    """The first end_c ends the scope; what follows has run before, whoever's prologue it was."""
    scopes = [codes([allocate(16)], END_C), codes([allocate(32)], END_C), codes([allocate(64)])]
    table = read(made(entry(TEXT), record(64, b"".join(scopes), [(32, 0)]))).rules
    offsets = [int(table.rules[index_at(table, TEXT + i)][2]) for i in (0, 4, 28, 32, 36, 40)]
    assert offsets == [96, 112, 112, 112, 96, 112]


def test_documented_records() -> None:
    """The specification's examples 2 and 3."""
    chained = struct.pack("<4I", 0x1040_003D, 0x100_0038, 0xE422_91E1, 0xE422_91E1)
    variadic = struct.pack("<5I", 0x1840_0012, 0x100_000F, 0xE3E3_E3E3, 0xE405_00D6, 0xE405_00D6)
    file = made(entry(TEXT) + entry(TEXT + 0x400, RDATA + 16), chained + variadic)
    table = read(file).rules

    def at(rva: int) -> tuple[int, int, dict[int, int]]:
        kind, register, offset, _, first, count = table.rules[index_at(table, rva)].tolist()
        assert kind == 1
        return register, offset, {r: where for r, _, where in table.saved[first : first + count].tolist()}

    both = {19: -16, 20: -8, FP: -0xA0, LR: -0x98}
    assert [at(TEXT + i) for i in (0, 4, 8)] == [(SP, 0, {}), (SP, 16, {19: -16, 20: -8}), (SP, 0xA0, both)]
    assert at(TEXT + 12) == at(TEXT + 0xE0) == (FP, 0xA0, both)
    assert [at(TEXT + 0xE0 + i) for i in (4, 8, 12)] == [at(TEXT + i) for i in (8, 4, 0)]
    one = {19: -0x50, LR: -0x48}
    assert [at(TEXT + 0x400 + 4 * i) for i in range(7)] == [(SP, 0, {}), (SP, 0x50, {}), *[(SP, 0x50, one)] * 5]
    assert [at(TEXT + 0x43C + 4 * i) for i in range(3)] == [(SP, 0x50, one), (SP, 0x50, {}), (SP, 0, {})]


def test_many_epilogues() -> None:
    """More than 31 of them take the extended header."""
    function = Function(random.Random(0))
    steps = [save_fplr_x(32), set_fp()]
    for step in steps:
        function.do(step)
    scopes = []
    for _ in range(40):
        function.body(steps)
        scopes.append((function.length, 0))
        function.leave(steps)
    found = read(made(entry(TEXT), record(function.length, codes(steps), scopes)))
    assert agree(found.rules, function) == len(function.points)


def test_prologue_counts_before_the_epilogue() -> None:
    """In a function so short that the two meet."""
    steps = [allocate(16), allocate(32)]
    found = read(made(entry(TEXT), record(12, codes(steps), [(4, 0)]))).rules
    offsets = [int(found.rules[index_at(found, TEXT + i)][2]) for i in (0, 4, 8)]
    assert offsets == [0, 16, 16]


def test_vectors_of_any_length() -> None:
    """SVE: sp can't be told while such vectors lie below it, but from a frame pointer it can."""
    vectors = Step(b"\xdf\x02")
    plain = [save_fplr_x(32), vectors, Step(b"\xe7\x02\xc0"), allocate(64)]
    table = read(made(entry(TEXT), record(32, codes(plain), []))).rules
    assert [index_at(table, TEXT + i) is None for i in (0, 4, 8, 12, 16)] == [False, False, True, True, True]
    framed = [save_fplr_x(32), set_fp(), vectors, Step(b"\xe7\x02\xc0"), allocate(64)]
    table = read(made(entry(TEXT), record(32, codes(framed), []))).rules
    for i in (8, 12, 16, 20):
        assert table.rules[index_at(table, TEXT + i)][:3].tolist() == [1, FP, 32]


def test_pairs_beyond_the_last() -> None:
    """After x27 and x28 come d8 and d9; from a pair of d registers more of them."""
    steps = [arm64.save_regp_x(27, 96), Step(arm64.SAVE_NEXT), Step(arm64.SAVE_NEXT), arm64.save_reg(LR, 88)]
    table = read(made(entry(TEXT), record(64, codes(steps), []))).rules
    _, _, _, _, first, count = table.rules[index_at(table, TEXT + 32)].tolist()
    assert table.saved[first : first + count].tolist() == [[27, 2, -96], [28, 2, -88], [30, 2, -8]]


def test_frame_pointer_that_was_not_saved() -> None:
    table = read(made(entry(TEXT), record(64, codes([allocate(32), set_fp(16)]), []))).rules
    found = caller(table, TEXT + 32, {FP: STACK - 16, LR: RETURN_ADDRESS, SP: 0}, {})
    assert found == {LR: RETURN_ADDRESS, PC: RETURN_ADDRESS, SP: STACK}


# --- Stacks that no function made -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    ("code", "sp", "pc", "known"),
    [
        (b"\xe8", 0x98, 0x148, {FP: 0x140, LR: 0x138, **{i: 0xA0 + 8 * i for i in range(19)}}),
        (b"\xe9", 0, 8, {}),
        (b"\xea", 0x100, 0x108, {i: 8 + 8 * i for i in range(31)}),
    ],
)
def test_interrupted(code: bytes, sp: int, pc: int, known: dict[int, int], framed: bool) -> None:
    """A trap frame, a machine frame, and the CONTEXT that KiUserExceptionDispatcher has above its own frame."""
    steps = [save_fplr_x(32), set_fp()] if framed else [allocate(32)]
    table = read(made(entry(TEXT), record(64, codes(steps, b"") + code + END, []))).rules
    registers = {i: 0x100 + i for i in range(SP)} | {SP: 0x66 if framed else STACK, FP: STACK if framed else 0x5555}
    base = STACK + 32
    words = {base + sp: 0x77_0000, base + pc: RETURN_ADDRESS, STACK: 0xF0F0, STACK + 8: 0x1010}
    words |= {base + at: 0xA000 + r for r, at in known.items()}
    found = caller(table, TEXT + 32, registers, words)
    rule = table.rules[index_at(table, TEXT + 32)]
    assert rule[0] == CFA_EXPR
    assert rule[3] & SIGNAL_FRAME
    kept = {r: registers[r] for r in range(19, SP)} | ({FP: 0xF0F0, LR: 0x1010} if framed else {})
    assert found == kept | {r: 0xA000 + r for r in known} | {SP: 0x77_0000, PC: RETURN_ADDRESS}
    assert caller(table, TEXT + 32, registers, {}) is None


def test_exact_return_address() -> None:
    """clear_unwound_to_call: the return address is that of the next instruction, not of one after a call."""
    table = read(made(entry(TEXT), record(64, codes([allocate(32)], b"\xec") + END, []))).rules
    for offset in (0, 4):
        assert table.rules[index_at(table, TEXT + offset)][3] & SIGNAL_FRAME
    found = caller(table, TEXT + 4, {SP: STACK - 32, LR: RETURN_ADDRESS}, {})
    assert found == {SP: STACK, LR: RETURN_ADDRESS, PC: RETURN_ADDRESS}


def test_caller_of_another_architecture() -> None:
    """ARM64EC: the frame above is x86-64 code's, which these rules have no words for."""
    found = read(made(entry(TEXT), record(64, codes([allocate(32)], b"\xeb") + END, [])))
    assert found.problems == []
    assert index_at(found.rules, TEXT) is None


# --- Packed words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", range(4))
@pytest.mark.parametrize("reg_i", range(11))
def test_packed(chain: int, reg_i: int) -> None:
    rng = random.Random(reg_i)
    for reg_f in range(8):
        for homes in (False, True):
            saved = 8 * (reg_i + (chain == 1) + (reg_f + 1 if reg_f else 0)) + 64 * homes
            if homes and saved == 64:
                continue
            saved += saved % 16
            for local in (0, 16, 512, 528, 4080, 4096):
                if chain >= 2 and not local:
                    continue
                frame = saved + local
                steps, mirror = packed_steps(reg_i=reg_i, reg_f=reg_f, homes=homes, chain=chain, frame=frame)
                function = Function(rng)
                for step in steps:
                    function.do(step)
                function.body(steps)
                function.leave(mirror)
                word = packed_word(
                    function.length, flag=1, reg_i=reg_i, reg_f=reg_f, homes=homes, chain=chain, frame=frame
                )
                found = read(made(entry(TEXT, word)))
                assert found.problems == []
                assert agree(found.rules, function) == len(function.points)


def test_packed_fragment() -> None:
    """Flag 2: neither prologue nor epilogue, but the frame of one that has run."""
    shape = {"reg_i": 3, "reg_f": 1, "homes": False, "chain": 3, "frame": 96}
    steps, _ = packed_steps(**shape)  # type: ignore[arg-type]
    function = Function(random.Random(1))
    for step in steps:
        function.do(step)
    start = function.length
    function.body(steps)
    word = packed_word(function.length - start, flag=2, **shape)  # type: ignore[arg-type]
    found = read(made(entry(TEXT + start, word)))
    assert agree(found.rules, function, first=start) == 2


def test_documented_packed_word() -> None:
    """The specification's example 1: str x19, [sp, #-16]!; sub sp, #0x810; stp fp, lr, [sp]; mov fp, sp."""
    table = read(made(entry(TEXT, 0x4161_01ED))).rules
    first, count = table.rules[index_at(table, TEXT + 16)][4:].tolist()
    assert table.saved[first : first + count].tolist() == [[19, 2, -16], [FP, 2, -0x820], [LR, 2, -0x818]]
    cfa = [table.rules[index_at(table, TEXT + i)][1:3].tolist() for i in (0, 4, 8, 12, 16, 492 - 20, 492 - 16)]
    assert cfa == [[SP, 0], [SP, 16], [SP, 0x820], [SP, 0x820], [FP, 0x820], [FP, 0x820], [SP, 0x820]]
    tail = [table.rules[index_at(table, TEXT + 492 - i)][1:3].tolist() for i in (12, 8, 4)]
    assert tail == [[SP, 0x820], [SP, 16], [SP, 0]]
    assert table.rules[index_at(table, TEXT + 492)][1:3].tolist() == [SP, 0]  # Not the function's any more.


def test_homed_parameters_alone() -> None:
    """Without saved registers they lie in the local area, and storing them is no part of the prologue."""
    word = packed_word(64, flag=1, reg_i=0, reg_f=0, homes=True, chain=3, frame=96)
    table = read(made(entry(TEXT, word))).rules
    cfa = [table.rules[index_at(table, TEXT + 4 * i)][1:3].tolist() for i in range(4)]
    assert cfa == [[SP, 0], [SP, 96], [FP, 96], [FP, 96]]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (packed_word(64, flag=3, reg_i=1, reg_f=0, homes=False, chain=0, frame=32), "flag 1 or 2"),
        (
            packed_word(64, flag=1, reg_i=11, reg_f=0, homes=False, chain=0, frame=320),
            "a frame that holds what is saved",
        ),
        (
            packed_word(64, flag=1, reg_i=10, reg_f=0, homes=False, chain=0, frame=64),
            "a frame that holds what is saved",
        ),
        (packed_word(64, flag=1, reg_i=2, reg_f=0, homes=False, chain=3, frame=16), "a frame that holds what is saved"),
    ],
)
def test_damaged_words(word: int, expected: str) -> None:
    found = read(made(entry(TEXT, word)))
    assert found.problems == [f"packed unwind data: expected {expected}, got {word:#010x}"]
    assert index_at(found.rules, TEXT) is index_at(found.rules, TEXT + 63) is None
    assert index_at(found.rules, TEXT + 64) is not None


# --- Tables and damage ----------------------------------------------------------------------------------------------


def test_leaf_functions() -> None:
    file = made(entry(0, 0) + entry(TEXT + 0x100) + entry(TEXT + 0x80), record(64, codes([allocate(32)]), []))
    found = read(file)
    assert found.problems == []
    registers = {i: i for i in range(LR)} | {LR: RETURN_ADDRESS, SP: STACK}
    for rva in (TEXT, TEXT + 0x7F, TEXT + 0xC0, TEXT + 0x140, TEXT + 0x7FF):
        assert caller(found.rules, rva, registers, {}) == registers | {PC: RETURN_ADDRESS}
    for rva in (TEXT - 1, TEXT + 0x800, RDATA):
        assert index_at(found.rules, rva) is None
    for rva in (TEXT + 0x84, TEXT + 0x104):
        assert found.rules.rules[index_at(found.rules, rva)][2] == 32


@pytest.mark.parametrize(
    ("unwind", "problem"),
    [
        (record(64, b"\xe1\x81", []), "unwind codes: at offset 0x2000, expected end, got 4 bytes"),
        (record(64, END, [(0, 9)]), "unwind codes: at offset 0x2000, expected end, got 4 bytes"),
        (record(64, b"\xe3\xe3\xe3\xc8", []), "unwind codes: at offset 0x2000, expected end, got 4 bytes"),
        (record(64, b"\xed" + END, []), "unwind code: at offset 0x2000, expected one that is defined, got 0xed"),
        (record(64, b"\xf1" + END, []), "unwind code: at offset 0x2000, expected one that is defined, got 0xf1"),
        (
            record(64, b"\xe6" + END, []),
            "save_next: at offset 0x2000, expected a pair of registers to continue, got none",
        ),
        (record(64, b"\xcb\xc0" + END, []), "saved register: at offset 0x2000, expected x0 to x30, got x35"),
        (
            record(64, b"\xe7\x80\0" + END, []),
            "save_any_reg: at offset 0x2000, expected a reserved bit of 0, got 0xe78000",
        ),
        (record(64, b"\xea\x02" + END, []), "custom stack: at offset 0x2000, expected the last of the codes, got 0xea"),
        (struct.pack("<2I", 0x0844_0010, 0xE4), ".xdata version: at offset 0x2000, expected 0, got 1"),
        (struct.pack("<2I", 0x10, 0xFF_FFFF), ".xdata record: at offset 0x2000, expected 263168 bytes, got 512"),
    ],
)
def test_damaged_record(unwind: bytes, problem: str) -> None:
    file = made(
        entry(TEXT) + entry(TEXT + 64, RDATA + 0x100),
        unwind.ljust(0x100, b"\0") + record(64, codes([allocate(32)]), []),
    )
    found = read(file)
    assert found.problems == [problem]
    assert index_at(found.rules, TEXT) is index_at(found.rules, TEXT + 63) is None
    assert found.rules.rules[index_at(found.rules, TEXT + 68)][2] == 32


def test_record_outside_of_the_file() -> None:
    found = read(made(entry(TEXT, 0x4444_4440)))
    assert found.problems == [".xdata record: at offset 0x44444440, expected 8 bytes, got 0"]
    assert index_at(found.rules, TEXT) is None


def test_codes_yet_to_be_defined() -> None:
    """From 0xf8 on they have a length, and are passed over; each is an instruction."""
    unwind = b"\xf8\x01\xf9\x01\x02\xfa\x01\x02\x03\xfb\x01\x02\x03\x04\xfd\xfe\xff\x02\xe4"
    table = read(made(entry(TEXT), record(64, unwind, []))).rules
    assert [int(table.rules[index_at(table, TEXT + 4 * i)][2]) for i in (0, 1, 8, 9)] == [0, 32, 32, 32]


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record with very many epilogues, which very many functions share."""
    from deadreckon.objects import pe_arm64, rulebuilder

    unwind = record(4 * 200, codes([allocate(32)]), [(4 * i + 16, 0) for i in range(150)])
    table = b"".join(entry(TEXT + 800 * i) for i in range(20))
    file = with_table(table, unwind, bytes(800 * 20), machine=ARM64, places=(0x10_0000, RDATA, PDATA))
    file.directories[EXCEPTION] = (PDATA, len(table))
    assert read(file).problems == []
    monkeypatch.setattr(rulebuilder, "_MAX_ROWS", 500)
    found = read(file)
    assert found.problems == ["limit rows of an image is 500"]
    assert len(found.rules.rva) <= 502
    monkeypatch.undo()
    monkeypatch.setattr(pe_arm64, "_MAX_EPILOGUES", 300)
    found = read(file)
    assert found.problems == ["limit epilogues of an image is 300 (the first of 18)"]
    assert index_at(found.rules, TEXT + 800) is not None
    assert index_at(found.rules, TEXT + 1600) is None
    monkeypatch.undo()
    monkeypatch.setattr(rulebuilder, "_MAX_PROGRAM_ROWS", 1)
    found = read(file)
    assert found.problems == ["limit rows of distinct prologues is 1 (the first of 20)"]


# --- Real code ------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
def test_real_code(corpus: Path) -> None:
    """All of it but for two functions that move sp on their caller's behalf, and the functions that call them."""
    data = (corpus / "native/symbolic/fixtures/windows/arm64/test.exe").read_bytes()
    found = read(data)
    assert found.problems == []
    table = found.rules
    image = pe.headers(data)
    rows = np.frombuffer(image.at(*image.directory(EXCEPTION)), "<u4").reshape(-1, 2).tolist()
    odd = set()
    instructions = functions = 0
    for start, word in rows:
        if not start:
            continue
        length = word >> 2 & 0x7FF if word & 3 else int.from_bytes(image.at(word, 4), "little") & 0x3FFFF
        functions += 1
        for i, frame in enumerate(follow(image.at(start, 4 * length))):
            index = index_at(table, start + 4 * i)
            assert index is not None
            kind, register, offset, _, first, count = table.rules[index].tolist()
            saved = {r: where for r, what, where in table.saved[first : first + count].tolist() if what == 2}
            assert kind == 1
            expected = frame.depth if register == SP else frame.frame
            if expected is None and register == SP:
                continue
            instructions += 1
            if expected != offset or saved != frame.saved:
                odd.add(start)
                break
    assert functions > 700
    assert instructions > 30_000
    assert len(odd) <= 12


def test_mutations() -> None:
    rng = random.Random(7)
    records = b""
    table = b""
    at = TEXT
    for i in range(40):
        steps = random_steps(random.Random(i))
        length = 8 * len(steps) + 64
        if i % 4 == 0:
            word = packed_word(
                length, flag=1 + i % 8 // 4, reg_i=i % 11, reg_f=i % 8, homes=False, chain=i % 4, frame=640
            )
        else:
            word = RDATA + len(records)
            records += record(length, codes(steps), [(length - 4 * len(steps) - 4, 0)])
        table += entry(at, word)
        at += length
    whole = bytes(with_table(table, records, bytes(at - TEXT), machine=ARM64, places=(0x10_0000, RDATA, 0x20_0000)))
    assert read(whole).problems == []
    spans = [(whole.index(records), len(records)), (whole.index(table), len(table)), (0x80, 0x190)]
    lost = 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 10)):
            start, size = rng.choice(spans[:2]) if rng.random() < 0.95 else spans[2]
            where = start + rng.randrange(size)
            data[where] = rng.choice(
                (0, 0xE4, 0xE6, 0xEA, 0xFF, rng.randrange(256), data[where] ^ 1 << rng.randrange(8))
            )
        del data[rng.randrange(len(data)) if rng.random() < 0.05 else len(data) :]
        try:
            lost += bool(read(bytes(data)).problems)
        except Malformed:
            continue
    assert lost > 400
