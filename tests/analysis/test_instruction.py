"""Instructions and their accesses, against what processors did with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.analysis import instruction
from deadreckon.analysis.instruction import disassemble
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers

if TYPE_CHECKING:
    from deadreckon.analysis.access import Access, Read
    from deadreckon.analysis.instruction import Instruction

pytest.importorskip("capstone")

HERE = Path(__file__).parent
PC = 0x401000
ELSEWHERE = 0x7FFE_0000
THUMB = 0x20


def memory(*blocks: tuple[int, bytes]) -> Read:
    """Return a reader of a few pieces of memory."""

    def read(address: int, size: int) -> bytes | None:
        for start, data in blocks:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        return None

    return read


def decode(arch: Arch, code: str, *blocks: tuple[int, bytes], thumb: bool = False, **registers: int) -> Instruction:
    """Decode hex bytes at PC; x86 gets what may follow them in memory."""
    raw = bytes.fromhex(code)
    if arch in {Arch.X86, Arch.X86_64}:
        raw = raw.ljust(15, b"\x90")
    row = Registers.from_mapping(arch, {**registers, REGISTER_SETS[arch].names[REGISTER_SETS[arch].pc]: PC})
    row.others["cpsr"] = THUMB if thumb else 0
    found = disassemble(row, memory((PC, raw), *blocks))
    assert found is not None, code
    return found


def only(found: Instruction) -> Access:
    (access,) = found.accesses
    return access


def rows(name: str) -> list[list[str]]:
    lines = (HERE / name).read_text().splitlines()
    return [line.split(maxsplit=4) for line in lines if not line.startswith("#")]


def at(accesses: list[Access], address: int, *, exactly: bool) -> set[str | None]:
    """Return what is done at an address; an access whose address can't be computed may be at any."""
    return {
        a.kind
        for a in accesses
        if a.address is None or (a.address == address if exactly else a.address <= address < a.address + a.size)
    }


def test_x86_accesses_are_what_a_processor_did() -> None:
    page = 0x7F00_0000_1000
    differences = []
    measured = rows("x86_accesses.txt")
    assert len(measured) > 400
    for code, stack, access, offset, source in measured:
        sp = page if stack == "s" else ELSEWHERE
        found = decode(Arch.X86_64, code, rdi=page, rsi=page, rbx=page, rax=0x0FFF_FFFF, rcx=2, rsp=sp, rbp=sp).accesses
        done = at(found, page + int(offset), exactly=False)
        if access == "none":
            wrong = bool(found)
        elif source.split()[-1].startswith(("movsb", "movsq")):
            wrong = done != {"read", "write"}  # Both at one address, of which the read comes first.
        else:
            wrong = done != {access}
        if wrong:
            differences.append((source, access, offset, found))
    assert differences == []


def test_arm_accesses_are_what_qemu_did() -> None:
    page = 0x4000_1000
    differences = []
    measured = rows("arm_accesses.txt")
    assert len(measured) > 150
    for mode, code, access, offset, source in measured:
        if mode == "a64":
            found = decode(Arch.ARM64, code, x0=5, x1=page, x2=24, x3=7, x4=1, sp=page).accesses
        else:
            found = decode(Arch.ARM, code, thumb=mode == "t32", r0=5, r1=page, r2=24, r3=7, sp=page).accesses
        expected = set() if access == "none" else {None if access == "both" else access}
        if at(found, page + int(offset), exactly=True) != expected:
            differences.append((source, access, offset, found))
    assert differences == []


def test_operands_are_written_as_an_assembler_does() -> None:
    access = only(decode(Arch.X86_64, "418b44cd10", r13=0x1000, rcx=2))  # mov eax, [r13 + rcx*8 + 0x10]
    assert (access.text, access.address) == ("[r13 + rcx*8 + 0x10]", 0x1020)
    assert access.operands == (("r13", 0x1000), ("rcx", 2))
    assert only(decode(Arch.X86_64, "8b45f0", rbp=0x2000)).text == "[rbp - 0x10]"
    assert only(decode(Arch.X86_64, "c7042545000000 05000000")).text == "[0x45]"
    assert only(decode(Arch.ARM64, "207862f8", x1=0x1000, x2=2)).text == "[x1 + x2*8]"
    assert only(decode(Arch.ARM, "021091e7", r1=0x1000, r2=4)).text == "[r1 + r2]"


def test_addresses_relative_to_the_program_counter() -> None:
    assert only(decode(Arch.X86_64, "8b0510000000")).address == PC + 6 + 0x10  # mov eax, [rip + 0x10]
    assert only(decode(Arch.ARM64, "40000058")).address == PC + 8  # ldr x0, PC + 8
    assert only(decode(Arch.ARM, "08009fe5")).address == PC + 8 + 8  # ldr r0, [pc, #8]
    assert only(decode(Arch.ARM, "0248", thumb=True)).address == PC + 4 + 8


@pytest.mark.parametrize(
    ("arch", "code", "registers", "address"),
    [
        (Arch.X86, "8b4010", {"eax": 0xFFFF_FFF8}, 8),  # Wraps around.
        (Arch.X86_64, "678b4010", {"rax": 0x1_FFFF_FFF8}, 8),  # Address size 32.
        (Arch.X86_64, "438b0401", {"r8": 0, "r9": 1}, 1),
        (Arch.X86_64, "67438b0401", {"r8": 0x2_0000_0000, "r9": 1}, 1),
        (Arch.X86_64, "64488b042528000000", {}, None),  # fs has a base of its own.
        (Arch.X86, "658b00", {"eax": 0}, None),
        (Arch.X86, "268b00", {"eax": 4}, 4),  # es has none.
        (Arch.X86, "678b00", {"ebx": 1, "esi": 2}, None),  # Halves of registers.
        (Arch.X86_64, "8b00", {}, None),  # rax is not known.
        (Arch.ARM64, "20c862b8", {"x1": 0x1000, "x2": 0xFFFF_FFFF}, 0xFFF),  # ldr w0, [x1, w2, sxtw]
        (Arch.ARM64, "204862b8", {"x1": 0x1000, "x2": 0xFFFF_FFFF}, 0x1_0000_0FFF),  # uxtw
        (Arch.ARM64, "206862f8", {"x1": 1}, None),  # x2 is not known.
        (Arch.ARM64, "20687ff8", {"x1": 0x10}, 0x10),  # The index is xzr.
        (Arch.ARM, "620091e7", {"r1": 0x10, "r2": 8}, None),  # Rotated with carry.
        (Arch.ARM, "000099e5", {"r9": 0x20}, 0x20),  # sb
    ],
)
def test_addresses(arch: Arch, code: str, registers: dict[str, Any], address: int | None) -> None:
    assert only(decode(arch, code, **registers)).address == address


def test_where_indirect_branches_lead() -> None:
    slot = (0x8000, (0x1234_5678).to_bytes(8, "little"))
    assert decode(Arch.X86_64, "ffd0", rax=7, rsp=ELSEWHERE).target == 7  # call rax
    assert decode(Arch.X86_64, "ff20", slot, rax=0x8000).target == 0x1234_5678  # jmp [rax]
    assert decode(Arch.X86_64, "ff10", slot, rax=0x8000, rsp=ELSEWHERE).target == 0x1234_5678
    assert decode(Arch.X86_64, "c3", slot, rsp=0x8000).target == 0x1234_5678
    assert decode(Arch.X86, "c3", slot, esp=0x8000).target == 0x1234_5678
    assert decode(Arch.X86_64, "c3", rsp=0x8000).target is None  # That stack is not in the report.
    assert decode(Arch.X86_64, "e800000000", rsp=ELSEWHERE).target is None
    assert decode(Arch.X86_64, "8b00", slot, rax=0x8000).target is None


@pytest.mark.parametrize(
    ("code", "address", "needed"),
    [
        ("0f2807", 0x1008, 16),  # movaps
        ("0f2807", 0x1010, 1),
        ("0f1007", 0x1008, 1),  # movups
        ("660ffe07", 0x1008, 16),  # paddd
        ("c5f82807", 0x1008, 16),  # vmovaps
        ("c5fc2807", 0x1010, 32),  # vmovaps ymm
        ("c5f85807", 0x1008, 1),  # vaddps
        ("8b07", 0x1001, 1),
        ("480fc70f", 0x1008, 16),  # cmpxchg16b
    ],
)
def test_alignment(code: str, address: int, needed: int) -> None:
    found = decode(Arch.X86_64, code, rdi=address, rax=0, rbx=0)
    assert (found.alignment, found.misaligned is not None) == (needed, needed > 1)


def test_instructions_that_stop_a_program() -> None:
    traps = [(Arch.X86_64, "0f0b"), (Arch.X86, "cc"), (Arch.ARM64, "007d20d4"), (Arch.ARM64, "00000000")]
    assert all(decode(arch, code).trap for arch, code in traps)
    assert decode(Arch.ARM, "ffde", thumb=True).trap
    assert decode(Arch.ARM, "f000f0e7").trap
    assert decode(Arch.X86_64, "f4").privileged  # hlt
    assert not decode(Arch.X86_64, "90").trap


def test_a_breakpoint_is_before_the_program_counter() -> None:
    registers = Registers.from_mapping(Arch.X86_64, {"rip": PC})
    read = memory((PC - 1, b"\xcc\x8b\x00" + bytes(20)))
    found = disassemble(registers, read, after_trap=True)
    assert found is not None
    assert (found.address, found.text, found.trap) == (PC - 1, "int3", True)
    other = disassemble(registers, read)
    assert other is not None
    assert other.text == "mov eax, dword ptr [rax]"


def test_code_at_the_end_of_what_the_report_holds() -> None:
    registers = Registers.from_mapping(Arch.X86_64, {"rip": PC, "rax": 0})
    found = disassemble(registers, memory((PC, bytes.fromhex("8b00"))))
    assert found is not None
    assert found.text == "mov eax, dword ptr [rax]"
    assert disassemble(registers, memory((PC, b"\x8b"))) is None
    assert disassemble(registers, memory()) is None


def test_without_the_status_register_arm_is_not_decoded() -> None:
    registers = Registers.from_mapping(Arch.ARM, {"pc": PC})
    assert disassemble(registers, memory((PC, bytes(4)))) is None


def test_without_a_disassembler_there_is_no_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction, "backend", lambda: None)
    registers = Registers.from_mapping(Arch.X86_64, {"rip": PC, "rax": 0})
    assert disassemble(registers, memory((PC, bytes.fromhex("8b00")))) is None


@given(
    arch=st.sampled_from(sorted(REGISTER_SETS)),
    code=st.binary(max_size=15),
    values=st.lists(st.integers(0, 2**64 - 1), min_size=34, max_size=34),
    valid=st.integers(0, 2**34 - 1),
    cpsr=st.sampled_from([0, THUMB]),
)
@settings(max_examples=400, deadline=None)
def test_no_code_and_no_registers_do_harm(arch: Arch, code: bytes, values: list[int], valid: int, cpsr: int) -> None:
    known = REGISTER_SETS[arch]
    mask = (1 << 8 * known.word_size) - 1
    names = {n: v & mask for i, (n, v) in enumerate(zip(known.names, values, strict=False)) if valid >> i & 1}
    registers = Registers.from_mapping(arch, {**names, known.names[known.pc]: PC})
    registers.others["cpsr"] = cpsr
    found = disassemble(registers, memory((PC, code)))
    for access in found.accesses if found is not None else ():
        assert access.address is None or 0 <= access.address <= mask
        assert access.kind in {"read", "write", None}
        assert access.size > 0
