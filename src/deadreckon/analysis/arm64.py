"""Accesses of ARM64 instructions. Specification: Arm Architecture Reference Manual for A-profile, section C1.3.3.

The mnemonic tells whether memory is read or written. Atomic operations do both, and which of them faulted is not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.analysis.access import Access, Operand

if TYPE_CHECKING:
    from deadreckon.analysis.access import Value

__all__ = ["TRAPS", "accesses"]

TRAPS = frozenset({"brk", "udf", "hlt"})
"""Instructions that nobody runs but to stop."""

_ATOMICS = tuple(
    """
    cas swp ldadd ldclr ldeor ldset ldsmax ldsmin ldumax ldumin stadd stclr steor stset stsmax stsmin stumax stumin
    """.split()
)
_SIZE = 16
_WIDE = 64
"""Four vector registers."""
_ZVA = 64


def accesses(instruction: Any, value: Value) -> list[Access]:
    """Return the accesses of an instruction that Capstone decoded: one at most."""
    from capstone.arm64 import ARM64_OP_IMM, ARM64_OP_MEM, ARM64_OP_REG  # noqa: PLC0415

    name = instruction.mnemonic
    operands = instruction.operands
    if name == "dc" and instruction.op_str.startswith("zva"):
        last = instruction.op_str.rpartition(" ")[2]
        held = value(last)
        address = None if held is None else held & -_ZVA
        return [Access("write", address, _ZVA, f"[{last}]", () if held is None else (Operand(last, held),))]
    if name.startswith(_ATOMICS):
        kind = None
    elif name.startswith("ld"):
        kind = "read"
    elif name.startswith("st"):
        kind = "write"
    else:
        return []
    size = _WIDE if name[:2] in {"ld", "st"} and name[2] in "1234pn" else _SIZE
    for operand in operands:
        if operand.type == ARM64_OP_MEM:
            address, text, used = _address(instruction, operand, value)
            if name.startswith("ldra"):  # The base is authenticated first.
                address = None
            return [Access(kind, address, size, text, used)]
    if operands and operands[0].type == ARM64_OP_REG and operands[-1].type == ARM64_OP_IMM:  # A literal.
        return [Access(kind, operands[-1].imm, size, f"[{operands[-1].imm:#x}]")]
    return []


def _address(instruction: Any, operand: Any, value: Value) -> tuple[int | None, str, tuple[Operand, ...]]:
    """Compute base + displacement, or base + extended and shifted index; post-indexed is the base itself."""
    from capstone.arm64 import ARM64_EXT_SXTW, ARM64_SFT_LSL  # noqa: PLC0415

    mem = operand.mem
    base = instruction.reg_name(mem.base)
    address = value(base)
    used = [] if address is None else [Operand(base, address)]
    text = base
    if mem.disp:
        text += f" {'-' if mem.disp < 0 else '+'} {abs(mem.disp):#x}"
        address = None if address is None else address + mem.disp
    if mem.index:
        name = instruction.reg_name(mem.index)
        index = _register(name, value)
        shift = operand.shift.value if operand.shift.type == ARM64_SFT_LSL else 0
        text += f" + {name}" + (f"*{1 << shift}" if shift else "")
        if index is not None:
            used.append(Operand(name, index))
            if operand.ext == ARM64_EXT_SXTW and index >> 31:
                index -= 1 << 32
        address = None if address is None or index is None else address + (index << shift)
    return None if address is None else address & value.mask, f"[{text}]", tuple(used)


def _register(name: str, value: Value) -> int | None:
    if name in {"xzr", "wzr"}:
        return 0
    return value.low(f"x{name[1:]}") if name[0] == "w" else value(name)
