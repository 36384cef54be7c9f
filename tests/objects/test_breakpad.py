from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import Malformed
from deadreckon.model import tables
from deadreckon.model.ids import Arch
from deadreckon.objects import breakpad, elf
from oracle.expression import evaluate
from oracle.frames import Rule, check, rule_at
from synth.breakpad import SymFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deadreckon.model.tables import RuleTable

CFA = ("reg", 7, 8)
RA = (16, "OFFSET", -8)
FIRST: Rule = (CFA, (RA,), 16, False)


def lower(*lines: str, arch: Arch = Arch.X86_64) -> RuleTable:
    table = breakpad.rules_from_text("\n".join(lines).encode(), arch)
    check(table)
    return table


def rows(table: RuleTable) -> list[tuple[int, Rule | None]]:
    return [(rva, rule_at(table, i)) for i, rva in enumerate(table.rva.tolist())]


# --- MODULE ---------------------------------------------------------------------------------------------------------


def test_identity() -> None:
    found = breakpad.identify(bytes(SymFile("windows", "x86", "5A9832E5287241C1838ED98914E9B7FF1", "test app.pdb")))
    assert found.os == "windows"
    assert found.arch is Arch.X86
    assert str(found.debug_id) == "5a9832e5-2872-41c1-838e-d98914e9b7ff-1"
    assert found.debug_file == "test app.pdb"


def test_identity_of_odd_modules() -> None:
    assert breakpad.identify(b"MODULE mac arm64 0 x\r\nFILE 0 a\r\n").debug_id is None
    assert breakpad.identify(b"MODULE Linux riscv64 %s x" % (b"0" * 33)).arch is Arch.UNKNOWN
    assert breakpad.identify(b"MODULE Linux x86_64 0123456789ABCDEF0123456789ABCDEF0\n").debug_file == ""
    assert breakpad.identify(b"MODULE Linux x86_64 0123456789ABCDEF0123456789ABCDEF0 app\r\n").debug_file == "app"
    assert breakpad.identify(memoryview(b"MODULE mac x86_64 1 \xff\xfe")).debug_file == "\ufffd\ufffd"


@pytest.mark.parametrize(
    "data", [b"", b"MODULE", b"MODULE Linux x86_64\n", b"FILE 0 a\nMODULE Linux x86_64 0 a", b"\0" * 9999]
)
def test_not_a_symbol_file(data: bytes) -> None:
    with pytest.raises(Malformed, match="MODULE os arch id name"):
        breakpad.identify(data)
    with pytest.raises(Malformed):
        breakpad.read_rules(data)


# --- STACK CFI ------------------------------------------------------------------------------------------------------


def test_changes_add_to_the_rules_before() -> None:
    file = SymFile()
    file.function(0x1000, 0x100, "main")
    file.cfi(
        0x1000, 0x100, ".cfa: $rsp 8 + .ra: .cfa -8 + ^",
        (0x1001, "$rbp: .cfa -16 + ^ .cfa: $rsp 16 +"),
        (0x1004, ".cfa: $rbp 16 +"),
        (0x1090, "$rbx: $r12 $r13: .cfa 24 - $r14: .cfa $r15: .cfa ^"),
        (0x10F0, ".cfa: $rsp 8 + $rbp: $rbp"),
    )  # fmt: skip
    rbp = (6, "OFFSET", -16)
    others = ((3, "REGISTER", 12), (13, "VAL_OFFSET", -24), (14, "VAL_OFFSET", 0), (15, "OFFSET", 0), RA)
    assert rows(breakpad.read_rules(bytes(file))) == [
        (0x1000, FIRST),
        (0x1001, (("reg", 7, 16), (rbp, RA), 16, False)),
        (0x1004, (("reg", 6, 16), (rbp, RA), 16, False)),
        (0x1090, (("reg", 6, 16), tuple(sorted((rbp, *others))), 16, False)),
        (0x10F0, (CFA, others, 16, False)),
        (0x1100, None),
    ]


def test_changes_apply_in_order_of_address() -> None:
    table = lower(
        "STACK CFI INIT 1000 100 .cfa: $rsp 8 + .ra: .cfa -8 + ^",
        "STACK CFI 1050 .cfa: $rsp 16 +",
        "STACK CFI 1060 .cfa: $rsp 24 +",
        "STACK CFI 1010 .cfa: $rsp 32 +",
        "STACK CFI 1060 .cfa: $rsp 40 +",
        "STACK CFI 0fff .cfa: $rsp 48 +",
        "STACK CFI 1100 .cfa: $rsp 56 +",
    )
    expected = [(0x1000, 8), (0x1010, 32), (0x1050, 16), (0x1060, 40)]
    assert rows(table) == [*((a, (("reg", 7, n), (RA,), 16, False)) for a, n in expected), (0x1100, None)]


def test_gaps_and_overlaps() -> None:
    """The record that starts first keeps its ground."""
    table = lower(
        "STACK CFI INIT 3000 10 .cfa: $rsp 8 +",
        "STACK CFI INIT 1000 100 .cfa: $rsp 8 +",
        "STACK CFI INIT 1080 100 .cfa: $rsp 16 +",
        "STACK CFI 1090 .cfa: $rsp 24 +",
        "STACK CFI 1170 .cfa: $rsp 32 +",
        "STACK CFI INIT 1010 20 .cfa: $rsp 64 +",
        "STACK CFI INIT 1180 10 .cfa: $rsp 32 +",
    )
    expected: list[tuple[int, int | None]] = [
        (0x1000, 8),
        (0x1100, 24),
        (0x1170, 32),
        (0x1190, None),
        (0x3000, 8),
        (0x3010, None),
    ]
    assert rows(table) == [(a, n and (("reg", 7, n), (RA,), 16, False)) for a, n in expected]


@pytest.mark.parametrize(
    ("arch", "rules", "rule"),
    [
        (Arch.X86_64, ".cfa: $rsp 8 +", FIRST),
        (Arch.X86, ".cfa: $esp 4 +", (("reg", 4, 4), ((8, "OFFSET", -4),), 8, False)),
        (Arch.ARM64, ".cfa: sp 0 +", (("reg", 31, 0), (), 30, False)),
        (Arch.ARM64, ".cfa: sp 16 + x30: .cfa -8 + ^", (("reg", 31, 16), ((30, "OFFSET", -8),), 30, False)),
        (Arch.ARM, ".cfa: sp 8 + lr: .cfa -4 + ^", (("reg", 13, 8), ((14, "OFFSET", -4),), 14, False)),
    ],
)
def test_records_without_return_address(arch: Arch, rules: str, rule: Rule) -> None:
    """dump_syms before 2.3.6 left .ra out; it is then where the architecture's calls leave it."""
    assert rows(lower(f"STACK CFI INIT 1000 10 {rules}", arch=arch)) == [(0x1000, rule), (0x1010, None)]


def test_return_address_in_the_link_register() -> None:
    leaf: Rule = (("reg", 31, 0), (), 30, False)
    for ra in ("x30", "lr", "$x30", ".ra"):
        assert rows(lower(f"STACK CFI INIT 0 10 .cfa: sp 0 + .ra: {ra}", arch=Arch.ARM64))[0][1] == leaf
    saved = lower("STACK CFI INIT 0 10 .cfa: sp 16 + x30: .cfa -8 + ^ .ra: x30", arch=Arch.ARM64)
    assert rows(saved)[0][1] == (("reg", 31, 16), ((30, "OFFSET", -8),), 30, False)
    other = lower("STACK CFI INIT 0 10 .cfa: sp 0 + .ra: x9", arch=Arch.ARM64)
    assert rows(other)[0][1] == (("reg", 31, 0), ((30, "REGISTER", 9),), 30, False)


def test_epilogue_is_no_end_of_stack() -> None:
    """``.ra: .ra`` is how Breakpad's dump_syms writes DW_CFA_restore."""
    table = lower(
        "STACK CFI INIT 1000 40 .cfa: sp 0 + .ra: x30",
        "STACK CFI 1008 .cfa: sp 32 + .ra: .cfa -24 + ^ x29: .cfa -32 + ^",
        "STACK CFI 1030 .cfa: sp 0 + .ra: .ra x29: x29",
        arch=Arch.ARM64,
    )
    assert rows(table)[2] == (0x1030, (("reg", 31, 0), (), 30, False))
    assert not (table.rules[:, 3] & tables.END_OF_STACK).any()


def test_undefined_return_address_ends_the_stack() -> None:
    table = lower("STACK CFI INIT 0 10 .cfa: $rsp 8 + .ra: .undef $rbx: .undef")
    assert rows(table)[0][1] == (CFA, ((3, "UNDEFINED", 0), (16, "UNDEFINED", 0)), 16, False)
    assert table.rules[0, 3] & tables.END_OF_STACK


@pytest.mark.parametrize("ra", ["$rsp", "$xyz", ".cfa -8 + ^ ^ +", ".cfa 8", "1 2 3", ".ra", "99999999999"])
def test_return_address_that_makes_no_sense(ra: str) -> None:
    table = lower(f"STACK CFI INIT 0 10 .cfa: $rsp 8 + .ra: {ra}")
    found = rows(table)
    if ra == "$rsp":
        assert found[0][1] == (CFA, ((16, "REGISTER", 7),), 16, False)
    else:
        assert found == []


@pytest.mark.parametrize(
    "cfa", ["", "$xyz", "$rsp +", "$rsp 8 +- +", "$rsp 8", "$rsp 8 + 3", "$rsp 8 + " * 30, "^", "$rsp 0x8 +"]
)
def test_cfa_that_makes_no_sense(cfa: str) -> None:
    assert rows(lower(f"STACK CFI INIT 0 10 .cfa: {cfa} .ra: .cfa -8 + ^")) == []


def test_registers_by_any_name() -> None:
    table = lower(
        "STACK CFI INIT 0 10 .cfa: rsp 8 + $RBX: .cfa -16 + ^ rbx: .cfa -24 + ^ $xmm6: .cfa -32 + ^ $rip: $rax"
    )
    # Of the return address's two rules, .ra's and the program counter's, the first is the one meant.
    assert rows(table)[0][1] == (CFA, ((3, "OFFSET", -24), RA), 16, False)


def test_lines_that_are_none() -> None:
    table = lower(
        "STACK CFI 10 .cfa: $rsp 8 +",
        "STACK CFI INIT",
        "STACK CFI INIT zz 10 .cfa: $rsp 16 +",
        "STACK CFI 1 .cfa: $rsp 16 +",
        "STACK CFI INIT 10",
        "STACK CFI INIT 1000 100 .cfa: $rsp 8 +",
        "STACK CFI",
        "STACK CFI 1020",
        "STACK CFI xyz .cfa: $rsp 16 +",
        "STACK CFI 1030 .cfa: $rsp " + "1 " * 9000,
        "STACK WIN 4 1040 10 0 0 0 0 0 0 1 $T0",
        "FUNC 1040 10 0 STACK CFI 1040 .cfa: 9",
        "STACK CFI INIT 2000 -10 .cfa: $rsp 8 +",
        "STACK CFI INIT -20 10 .cfa: $rsp 8 +",
        "STACK CFI INIT ffffffff0 10 .cfa: $rsp 8 +",
        "STACK CFI INIT fffffff0 10 .cfa: $rsp 8 +",
        "STACK CFI INIT 3000 10 .cfa: $rsp 8 +\r",
    )
    assert rows(table) == [(0x1000, FIRST), (0x1100, None), (0x3000, FIRST), (0x3010, None)]


def test_unknown_architecture_has_no_rules() -> None:
    assert len(lower("STACK CFI INIT 0 10 .cfa: sp 8 +", arch=Arch.UNKNOWN).rva) == 0


def test_fixture_says_what_eh_frame_says(fixtures: Path) -> None:
    """dump_syms made the symbol file from the executable's .eh_frame; only expressions are beyond its text."""
    folder = fixtures / "linux/x86_64/pie-O2"
    compared = 0
    for name in ("crashy", "libcargo.so"):
        (path,) = (folder / "breakpad" / name).glob("*/*.sym")
        text = breakpad.read_rules(path.read_bytes())
        with (folder / name).open("rb") as stream:
            frames = elf.read(stream).rules
        for rva in sorted({*text.rva.tolist(), *frames.rva.tolist()}):
            a, b = (
                rule_at(t, int(np.searchsorted(t.rva, rva, side="right")) - 1) if t.rva[0] <= rva else None
                for t in (text, frames)
            )
            if b is not None and b[0][0] == "expr":
                continue
            if b is not None and any(rule[1] == "UNDEFINED" for rule in b[1]):
                continue
            assert a == b, (name, hex(rva))
            compared += a is not None
    assert compared > 200


# --- Expressions ----------------------------------------------------------------------------------------------------

TOKENS = [
    ".cfa",
    "$rsp",
    "$rax",
    "$r15",
    "^",
    "+",
    "-",
    "*",
    "/",
    "%",
    "@",
    "0",
    "1",
    "8",
    "16",
    "-3",
    "7",
    "2147483647",
]
MEMORY = {0x1000: 0x2000, 0x2000: 0x1234, 0x1008: 5}


def postfix(tokens: list[str], registers: Mapping[str, int], cfa: int) -> int | None:
    """Evaluate as Breakpad does: 64 bits, wrapping; one value must be left."""
    limit = 1 << 64
    stack: list[int] = []
    for token in tokens:
        if token == "^":
            if not stack or stack[-1] not in MEMORY:
                return None
            stack.append(MEMORY[stack.pop()])
        elif token in "+-*/%@":
            if len(stack) < 2:
                return None
            right, left = stack.pop(), stack.pop()
            if (token in "/%" and not right) or (token == "@" and right.bit_count() != 1):
                return None
            result = {
                "+": left + right, "-": left - right, "*": left * right, "/": left // (right or 1),
                "%": left % (right or 1), "@": left & -right,
            }[token]  # fmt: skip
            stack.append(result % limit)
        elif token == ".cfa":
            stack.append(cfa)
        else:
            stack.append(registers[token] if token.startswith("$") else int(token) % limit)
    return stack[0] if len(stack) == 1 else None


@given(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=9))
def test_expressions_mean_what_breakpad_means(tokens: list[str]) -> None:
    table = lower(f"STACK CFI INIT 0 10 .cfa: $rsp 8 + $rbx: {' '.join(tokens)}")
    rule = rule_at(table, 0)
    assert rule is not None
    known = {"$rsp": 0xFF8, "$rax": (1 << 64) - 2, "$r15": 0x1008}
    registers = {7: 0xFF8, 0: (1 << 64) - 2, 15: 0x1008}
    cfa = 0x1000
    value: int | None = None
    match {number: (kind, argument) for number, kind, argument in rule[1]}.get(3):
        case ("OFFSET", int(offset)):
            value = MEMORY.get((cfa + offset) % (1 << 64))
        case ("VAL_OFFSET", int(offset)):
            value = (cfa + offset) % (1 << 64)
        case ("REGISTER", int(number)):
            value = registers[number]
        case ("VAL_EXPRESSION", bytes(code)):
            value = evaluate(code, word=8, registers=registers, cfa=cfa, read=lambda at, _: MEMORY.get(at))
    assert value == postfix(tokens, known, cfa)


# --- Hostile text ---------------------------------------------------------------------------------------------------


def test_mutated_files(fixtures: Path) -> None:
    (path,) = (fixtures / "linux/x86_64/pie-O2/breakpad/libcargo.so").glob("*/*.sym")
    data = path.read_bytes()
    cfi = data.index(b"STACK CFI")
    rng = random.Random(1)
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3, 20))):
            changed[rng.randrange(cfi, len(data))] = rng.choice(b"\0\n :.^+-0fz$\xff")
        check(breakpad.rules_from_text(bytes(changed), Arch.X86_64))


def test_long_texts_cost_what_they_are_long() -> None:
    """Each of these took a quadratic time when rules were kept as text and split by a pattern."""
    names = " ".join(f"$r{i}: 1 2 +" for i in range(600))
    for lines in (
        [f"STACK CFI INIT 0 100000 .cfa: $rsp 8 + {names}", *(f"STACK CFI {i:x} $rbx: {i}" for i in range(1, 8000))],
        ["STACK CFI INIT 0 10 .cfa: $rsp 8 + $rbx: " + "x" * 2_000_000],
        ["STACK CFI INIT 0 10 .cfa:" + " " * 2_000_000 + "$rsp 8 +"],
    ):
        table = lower(*lines)
        assert len(table.rva) <= len(lines) + 1
