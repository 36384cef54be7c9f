"""Accesses of 32-bit ARM instructions, in both encodings. Specification: Arm ARM for A-profile, chapter F5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.analysis.access import Access, Operand

if TYPE_CHECKING:
    from deadreckon.analysis.access import Value

__all__ = ["TRAPS", "accesses"]

TRAPS = frozenset({"bkpt", "udf", "trap", "hlt"})
"""Instructions that nobody runs but to stop."""

_READS = ("ld", "vld", "pop", "vpop", "tb")
_WRITES = ("st", "vst", "push", "vpush")
_ALIASES = {"sb": "r9", "sl": "r10"}
_SIZE = 32
"""Four vector registers: more than any other access has."""


def accesses(instruction: Any, value: Value, *, thumb: bool) -> list[Access]:
    """Return the accesses of an instruction that Capstone decoded: one at most."""
    from capstone.arm import ARM_OP_MEM  # noqa: PLC0415

    name = instruction.mnemonic
    if name.startswith("swp"):
        kind = None
    elif name.startswith(_READS):
        kind = "read"
    elif name.startswith(_WRITES):
        kind = "write"
    else:
        return []
    for operand in instruction.operands:
        if operand.type == ARM_OP_MEM:
            return [Access(kind, *_address(instruction, operand, value, thumb=thumb))]
    return _block(instruction, name, kind, value)


def _address(
    instruction: Any, operand: Any, value: Value, *, thumb: bool
) -> tuple[int | None, int, str, tuple[Operand, ...]]:
    """Compute base + displacement, or base plus or minus a shifted index; post-indexed is the base itself."""
    mem = operand.mem
    name = instruction.reg_name(mem.base)
    used: list[Operand] = []
    if name == "pc":
        address: int | None = instruction.address + (4 if thumb else 8) & -4
    else:
        address = _register(name, value)
        if address is not None:
            used.append(Operand(name, address))
    text = name
    if mem.disp:
        text += f" {'-' if mem.disp < 0 else '+'} {abs(mem.disp):#x}"
        address = None if address is None else address + mem.disp
    if mem.index:
        name = instruction.reg_name(mem.index)
        index = _register(name, value)
        sign = -1 if operand.subtracted else 1
        text += f" {'-' if sign < 0 else '+'} {name}"
        if index is not None:
            used.append(Operand(name, index))
            index = _shifted(index, operand.shift)
        address = None if address is None or index is None else address + sign * index
    return None if address is None else address & value.mask, _SIZE, f"[{text}]", tuple(used)


def _shifted(index: int, shift: Any) -> int | None:
    from capstone.arm import ARM_SFT_ASR, ARM_SFT_INVALID, ARM_SFT_LSL, ARM_SFT_LSR  # noqa: PLC0415

    by = int(shift.value)
    if shift.type == ARM_SFT_INVALID:
        return index
    if shift.type == ARM_SFT_LSL:
        return index << by
    if shift.type == ARM_SFT_LSR:
        return index >> by
    if shift.type == ARM_SFT_ASR:
        return (index - (index >> 31 << 32)) >> by
    return None


def _block(instruction: Any, name: str, kind: str | None, value: Value) -> list[Access]:
    """Compute the lowest address of LDM, STM, PUSH and POP and of their vector forms."""
    registers = [instruction.reg_name(o.reg) for o in instruction.operands]
    stem = name.removeprefix("v")
    if stem.startswith(("push", "pop")):
        base, mode = "sp", "db" if stem.startswith("push") else "ia"
    elif stem.startswith(("ldm", "stm")) and registers:
        base, mode = registers.pop(0), stem[3:5]
    else:
        return []
    size = sum(8 if r[0] == "d" else 4 for r in registers)
    held = _register(base, value)
    used = () if held is None else (Operand(base, held),)
    offset = {"ib": 4, "db": -size, "da": 4 - size}.get(mode, 0)
    text = f"[{base}]" if not offset else f"[{base} {'-' if offset < 0 else '+'} {abs(offset):#x}]"
    return [Access(kind, None if held is None else held + offset & value.mask, size, text, used)]


def _register(name: str, value: Value) -> int | None:
    return value(_ALIASES.get(name, name))
