from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.model.ids import Arch
from deadreckon.model.tables import CALLEE_PARAMETERS, CFA_REG, NO_RULE, REG_OFFSET, SEARCHED_RA
from deadreckon.objects import breakpad
from deadreckon.objects.stackwin import FPO, FRAME_DATA, WinRecord, lines, records

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = [
    "$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =",
    "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =",
    "$T1 .raSearch = $T0  $T1 4 - 8 @ = $ebp $T1 4 - ^ = $eip $T1 ^ = $esp $T1 4 + = $ebx $T0 28 - ^ =",
    "$T2 $esp .cbLocals + .cbSavedRegs + = $T0 .raSearchStart = $eip $T0 ^ = $esp $T0 4 + = $ebp $T0 28 - ^ =",
    "$T0 $ebp 680 + = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + = $L $T0 .cbSavedRegs - = $P $T0 8 + .cbParams + =",
    "$T0 $ebp = $T2 $esp = $T1 .raSearchStart =$eip $T1 ^ = $ebp $T0 =$esp $T1 4 + = $ebx $T0 28 - ^ =",
    "$eip $esp .cbCalleeParams + 12 + ^ = $esp $esp 20 + .cbCalleeParams + =",
]


class Machine:
    """The language as the walkers run it: a stack of numbers, 32 bits wide."""

    def __init__(self, values: dict[str, int], seed: int) -> None:
        self.values = dict(values)
        self.seed = seed

    def word(self, address: int) -> int:
        return random.Random(address * 7 + self.seed).getrandbits(32)

    def run(self, program: str) -> list[int | str]:
        stack: list[int | str] = []

        def number(operand: int | str) -> int:
            return self.values[operand] if isinstance(operand, str) else operand

        for word in program.replace("=$", "= $").split():
            if word == "=":
                right, left = number(stack.pop()), stack.pop()
                assert isinstance(left, str)
                self.values[left] = right
            elif word == "^":
                stack.append(self.word(number(stack.pop())))
            elif word in {"+", "-", "@"}:
                right, left_value = number(stack.pop()), number(stack.pop())
                total = {"+": left_value + right, "-": left_value - right, "@": left_value // max(right, 1) * right}
                stack.append(total[word] & 0xFFFF_FFFF)
            else:
                stack.append(word if word[0] in "$." else int(word))
        return [number(v) for v in stack]


@pytest.mark.parametrize("program", [*PROGRAMS, None, ""])
def test_rules_do_what_programs_do(program: str | None) -> None:
    rng = random.Random(3)
    for seed in range(60):
        size = {"saved": 4 * rng.randrange(5), "locals": 4 * rng.randrange(30), "parameters": 4 * rng.randrange(6)}
        registers = {name: rng.getrandbits(32) & ~3 for name in ("$esp", "$ebp", "$ebx", "$esi", "$edi")}
        callee = 4 * rng.randrange(5)
        record = WinRecord(
            kind=FRAME_DATA if program else FPO,
            start=0x1000,
            size=0x10,
            parameters=size["parameters"],
            saved_registers=size["saved"],
            locals=size["locals"],
            program=program or "",
            allocates_base_pointer=program == "",
        )
        frame = registers["$esp"] + size["locals"] + size["saved"] + callee
        search = registers["$ebp"] + 4 if program and "@" in program else frame
        constants = {
            ".raSearch": search,
            ".raSearchStart": search,
            ".cbParams": size["parameters"],
            ".cbSavedRegs": size["saved"],
            ".cbLocals": size["locals"],
            ".cbCalleeParams": callee,
        }
        expected = Machine({k: v & 0xFFFF_FFFF for k, v in (registers | constants).items()}, seed)
        if program:
            expected.run(program)
        else:
            expected.values["$eip"] = expected.word(frame & 0xFFFF_FFFF)
            expected.values["$esp"] = frame + 4 & 0xFFFF_FFFF
            if program == "":
                expected.values["$ebp"] = expected.word(registers["$esp"] + callee + size["saved"] - 8 & 0xFFFF_FFFF)
        text = record.rule()
        assert text is not None
        found: dict[str, list[str]] = {}
        for word in text.split():
            if word.endswith(":"):
                found[word[:-1]] = []
            else:
                list(found.values())[-1].append(word)
        machine = Machine(registers | {".cbCalleeParams": callee}, seed)
        (machine.values[".cfa"],) = machine.run(" ".join(found.pop(".cfa")))  # type: ignore[assignment]
        assert machine.values[".cfa"] == expected.values["$esp"]
        (eip,) = machine.run(" ".join(found.pop(".ra")))
        assert eip == expected.values["$eip"]
        assert found.pop(".params") == [str(size["parameters"])]
        # Only where the stack pointer leads to it is the return address's place in doubt.
        assert (found.pop(".search", None) == ["1"]) == (".cbCalleeParams" in text.split(".ra:")[0])
        for name, words in found.items():
            assert machine.run(" ".join(words)) == [expected.values[name]], name
        for name in {"$ebp", "$ebx"} - set(found):
            assert expected.values[name] == registers[name]


@pytest.mark.parametrize(
    "program",
    [
        "$T0 $ebp =",
        "$eip $esp ^ =",
        "= = =",
        "$eip $esp + ^ = $esp 4 =",
        "$eip $esp ^ ^ x = $esp $esp 4 + =",
        "4 $esp = $eip 1 =",
        "$T0 $esp = " + "$T0 $T0 $T0 + = " * 40 + "$eip $T0 ^ = $esp $T0 4 + =",
        "$eip 99999999999999 ^ = $esp $esp =",
        "^", "+", "",
    ],
)  # fmt: skip
def test_programs_that_say_nothing(program: str) -> None:
    assert WinRecord(FRAME_DATA, 0, 1, 0, 0, 0, program, allocates_base_pointer=False).rule() is None


def test_records() -> None:
    text = [
        "STACK WIN 4 1000 20 0 0 8 4 c 0 1 $T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =",
        "STACK WIN 0 1004 8 0 0 0 10 20 0 0 1",
        "STACK WIN 0 1004 8 0 0 0 10 20 0 0 0",
        "STACK WIN 0 2000 8 0 0 0 10 20 0 1 $T0 $ebp =",
        "STACK WIN 4 2000 8 0 0 0 10 20 0 0 1",
        "STACK WIN 3 2000 8 0 0 0 10 20 0 0 1",
        "STACK WIN 4 2000 0 0 0 0 10 20 0 1 $T0 $ebp =",
        "STACK WIN 4 xyz 8 0 0 0 10 20 0 1 a",
        "STACK WIN 4 1 8 0 0",
        "STACK WIN 0 1 8 0 0 0 0 0 0 0",
    ]
    first, second, third = records(text)
    assert (first.kind, first.start, first.size, first.parameters, first.saved_registers, first.locals) == (
        FRAME_DATA, 0x1000, 0x20, 8, 4, 12,
    )  # fmt: skip
    assert (second.kind, second.allocates_base_pointer, third.allocates_base_pointer) == (FPO, True, False)
    table = breakpad.rules_from_text("\n".join(text).encode(), Arch.X86)
    assert table.rva.tolist() == [0x1000, 0x1020]
    assert table.rule.tolist()[1] == NO_RULE
    kind, register, offset, flags, start, count = table.rules[table.rule[0]].tolist()
    assert (kind, register, offset, flags & SEARCHED_RA) == (CFA_REG, 5, 8, 0)
    saved = {r: (k, v) for r, k, v in table.saved[start : start + count].tolist()}
    assert saved[8] == (REG_OFFSET, -4)
    assert saved[5] == (REG_OFFSET, -8)
    assert CALLEE_PARAMETERS in saved
    assert not len(breakpad.rules_from_text("\n".join(text).encode(), Arch.X86_64).rva)


def test_nested_records_end_where_the_next_begins() -> None:
    def fpo(start: int, size: int) -> WinRecord:
        return WinRecord(FPO, start, size, 0, 0, 0, "", allocates_base_pointer=False)

    found = lines([fpo(0x100, 0x80), fpo(0x120, 0x10), fpo(0x120, 0x20), fpo(0x200, 8)])
    assert [(start, end) for start, end, _ in found] == [(0x100, 0x120), (0x120, 0x130), (0x200, 0x208)]
    assert lines([]) == []


@pytest.mark.corpus
def test_every_program_of_real_files_is_understood(corpus: Path) -> None:
    seen = 0
    for path in sorted((corpus / "native").rglob("*.sym")):
        data = path.read_bytes()
        if b"\nSTACK WIN " not in data:
            continue
        found = records(line for line in data.decode("utf-8", "replace").splitlines() if line.startswith("STACK WIN "))
        assert all(record.rule() is not None for record in found), path
        table = breakpad.read_rules(data)
        if len(found):
            assert len(table.rva) > len(found) / 3, path
            assert (np.diff(table.rva.astype(np.int64)) > 0).all()
        seen += len(found)
    assert seen > 10_000
