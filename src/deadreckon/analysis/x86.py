"""Accesses of x86 and x86_64 instructions.

Capstone computes no addresses, and its flags for what is read and written are wrong for many instructions that store
(SSE and AVX moves, ``set``, ``fst``, rotations, ``cmpxchg``). So access follows from the operand's place, as Intel
writes it: the first is the destination, and what is read and written faults as a write. That, the exceptions below and
the implied operands were measured on a processor, by the page fault's error code: tests/analysis/x86_accesses.txt.
Specification: Intel SDM volume 1 section 3.7.5, volume 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.analysis.access import Access, Operand

if TYPE_CHECKING:
    from deadreckon.analysis.access import Read, Value

__all__ = ["TRAPS", "accesses", "alignment", "target"]

TRAPS = frozenset({"ud0", "ud1", "ud2", "int1", "int3", "hlt"})
"""Instructions that nobody runs but to stop."""

_NO_ACCESS = ("lea", "nop", "prefetch", "cldemote")
_ONLY_READ = frozenset(
    """
    bt call clflush clflushopt clwb cmp cmpsb cmpsd cmpsq cmpsw div idiv imul jmp lcall ldmxcsr lgdt lidt ljmp lldt
    lmsw ltr mul ptwrite push test verr verw vldmxcsr xrstor xrstor64 xrstors xrstors64
    """.split()
)
_EXCHANGE = frozenset({"xchg", "xadd"})
_X87_STORES = ("fst", "fist", "fbst", "fnst", "fnsave", "fsave", "fxsave")
_SIZES = {
    "fnstenv": 28,
    "fldenv": 28,
    "fnsave": 108,
    "frstor": 108,
    "fxsave": 512,
    "fxsave64": 512,
    "fxrstor": 512,
    "fxrstor64": 512,
}
_XSAVE_SIZE = 4096
"""More than any processor's XSAVE area has."""
_REPEATED = 64
"""Repeated string instructions run ahead of their registers, by a cache line at most."""
_BIT_TESTS = frozenset({"bt", "btc", "btr", "bts"})
_PUSHES = frozenset("call enter push pushal pushaw pushf pushfd pushfq".split())
_POPS = frozenset("pop popal popaw popf popfd popfq ret retf".split())
_UNALIGNED = frozenset("lddqu movdqu movupd movups pcmpestri pcmpestrm pcmpistri pcmpistrm".split())
_ALIGNED_AVX = ("vmovap", "vmovdqa", "vmovnt")


def accesses(instruction: Any, value: Value) -> list[Access]:
    """Return the accesses of an instruction that Capstone decoded, explicit operands first."""
    from capstone import CS_OP_REG  # noqa: PLC0415
    from capstone.x86 import X86_OP_MEM  # noqa: PLC0415

    name = instruction.mnemonic.split()[-1]
    found: list[Access] = []
    if not name.startswith(_NO_ACCESS):
        operands = instruction.operands
        for place, operand in enumerate(operands):
            if operand.type == X86_OP_MEM:
                access = _explicit(instruction, name, operand, value, first=place == 0)
                if name in _BIT_TESTS and operands[-1].type == CS_OP_REG:
                    access = access._replace(address=None)  # The bit may lie anywhere around the operand.
                found.append(access)
    found += _implied(name, value)
    return found


def _explicit(instruction: Any, name: str, operand: Any, value: Value, *, first: bool) -> Access:
    if name in _EXCHANGE:
        kind = "write"
    elif name[0] == "f":
        kind = "write" if name.startswith(_X87_STORES) else "read"
    else:
        kind = "write" if first and name not in _ONLY_READ else "read"
    size = _SIZES.get(name, _XSAVE_SIZE if name.startswith("xsave") else operand.size)
    if instruction.mnemonic.startswith("rep"):
        size = max(size, _REPEATED)
    address, text, used = _address(instruction, operand.mem, value)
    return Access(kind, address, size, text, used)


def _address(instruction: Any, mem: Any, value: Value) -> tuple[int | None, str, tuple[Operand, ...]]:
    """Compute base + index * scale + displacement; a segment with a base of its own (fs, gs) is beyond knowing."""
    parts: list[str] = []
    used: list[Operand] = []
    address: int | None = mem.disp
    for register, scale in ((mem.base, 1), (mem.index, mem.scale)):
        if not register:
            continue
        name = instruction.reg_name(register)
        parts.append(f"{name}*{scale}" if scale != 1 else name)
        if name in {"rip", "eip"}:
            held: int | None = instruction.address + instruction.size
        else:
            held = _register(name, value)
            if held is not None:
                used.append(Operand(name, held))
        address = None if held is None or address is None else address + held * scale
    text = " + ".join(parts)
    if not text:
        text = hex(mem.disp & value.mask)
    elif mem.disp:
        text += f" {'-' if mem.disp < 0 else '+'} {abs(mem.disp):#x}"
    segment = instruction.reg_name(mem.segment) if mem.segment else ""
    if segment in {"fs", "gs"}:
        return None, f"[{segment}:{text}]", tuple(used)
    if address is not None:
        address &= value.mask if instruction.addr_size == value.word else 0xFFFF_FFFF
    return address, f"[{text}]", tuple(used)


def _register(name: str, value: Value) -> int | None:
    if value.word == 8 and name[0] == "e":
        return value.low(f"r{name[1:]}")
    if value.word == 8 and name[0] == "r" and name[-1] == "d":
        return value.low(name[:-1])
    return value(name)


def _implied(name: str, value: Value) -> list[Access]:
    """Return the accesses that no operand shows: stack, and the table of ``xlatb``."""
    word = value.word
    sp = "rsp" if word == 8 else "esp"
    if name in _PUSHES and value.sp is not None:
        address = value.sp - word & value.mask
        return [Access("write", address, word, f"[{sp} - {word:#x}]", (Operand(sp, value.sp),))]
    if name in _POPS and value.sp is not None:
        return [Access("read", value.sp, word, f"[{sp}]", (Operand(sp, value.sp),))]
    base = "rbp" if word == 8 else "ebp"
    if name == "leave" and (held := value(base)) is not None:
        return [Access("read", held, word, f"[{base}]", (Operand(base, held),))]
    if name == "xlatb":
        table = "rbx" if word == 8 else "ebx"
        index = value("rax" if word == 8 else "eax")
        held = value(table)
        if held is not None and index is not None:
            return [Access("read", held + (index & 0xFF) & value.mask, 1, f"[{table} + al]", (Operand(table, held),))]
    return []


def target(instruction: Any, value: Value, found: list[Access], read: Read) -> int | None:
    """Return where an indirect call or jump, or a return, goes to; None for other instructions and where unknown."""
    from capstone import CS_OP_REG  # noqa: PLC0415

    name = instruction.mnemonic.split()[-1]
    if name in {"call", "jmp"} and instruction.operands[0].type == CS_OP_REG:
        return _register(instruction.reg_name(instruction.operands[0].reg), value)
    if (name in {"call", "jmp"} and found and found[0].kind == "read") or name == "ret":
        address = found[0].address if found else None
        held = None if address is None else read(address, value.word)
        return None if held is None else int.from_bytes(held, "little")
    return None


def alignment(instruction: Any, access: Access) -> int:
    """Return what an operand's address must be a multiple of, 1 where any will do: Intel SDM volume 1 section 4.1.1."""
    name = instruction.mnemonic.split()[-1]
    if access.size < 16 or access.size > 64 or name in _UNALIGNED:
        return 1
    if name[0] == "v" and not name.startswith(_ALIGNED_AVX):
        return 1
    return access.size
