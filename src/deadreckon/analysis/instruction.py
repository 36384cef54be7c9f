"""The instruction that a thread was at, where a disassembler is installed: Capstone, the extra ``disasm``."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadreckon.analysis import arm, arm64, x86
from deadreckon.analysis.access import Value
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from deadreckon.analysis.access import Access, Read
    from deadreckon.model.registers import Registers

__all__ = ["Instruction", "backend", "disassemble"]

_LONGEST = {Arch.X86: 15, Arch.X86_64: 15, Arch.ARM: 4, Arch.ARM64: 4}
_THUMB = 0x20
_INT3 = 0xCC


@dataclass(slots=True)
class Instruction:
    """An instruction: its text, what memory it uses, where it goes to, and what can be wrong with it otherwise."""

    address: int
    text: str
    accesses: list[Access] = field(default_factory=list)
    target: int | None = None
    """Where an indirect call or jump, or a return, goes to (x86 only: elsewhere the fault is at the target)."""
    misaligned: Access | None = None
    alignment: int = 1
    trap: bool = False
    privileged: bool = False


@functools.cache
def backend() -> str | None:
    """Return the disassembler's name and version, None where none is installed."""
    try:
        import capstone  # noqa: PLC0415
    except ImportError:
        return None
    return f"capstone {capstone.__version__}"


def disassemble(registers: Registers, read: Read, *, after_trap: bool = False) -> Instruction | None:
    """Return the instruction at the program counter, None where its bytes or its encoding are not known.

    ``after_trap``: a breakpoint leaves the program counter after itself, on x86.
    """
    pc = registers.pc
    if pc is None or backend() is None or registers.arch not in _LONGEST:
        return None
    thumb = False
    if registers.arch is Arch.ARM:
        # Only the status register tells Thumb from ARM.
        status = registers.others.get("cpsr")
        if status is None:
            return None
        thumb = bool(status & _THUMB)
        pc &= ~1
    if after_trap and registers.arch in {Arch.X86, Arch.X86_64} and read(pc - 1, 1) == bytes([_INT3]):
        return Instruction(pc - 1, "int3", trap=True)
    longest = _LONGEST[registers.arch]
    code = next((c for size in range(longest, 0, -1) if (c := read(pc, size)) is not None), b"")
    decoded = next(_DECODERS.get(registers.arch, thumb=thumb).disasm(code, pc, 1), None)
    if decoded is None:
        return None
    return _understood(decoded, registers, read, thumb=thumb)


class _Decoders(threading.local):
    """Capstone's handles: a thread has its own, for they are not made for several."""

    def __init__(self) -> None:
        self._known: dict[tuple[Arch, bool], Any] = {}

    def get(self, arch: Arch, *, thumb: bool) -> Any:
        """Return the handle for an architecture."""
        decoder = self._known.get((arch, thumb))
        if decoder is None:
            import capstone  # noqa: PLC0415

            machine, mode = {
                Arch.X86: (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
                Arch.X86_64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
                Arch.ARM64: (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
                Arch.ARM: (capstone.CS_ARCH_ARM, capstone.CS_MODE_V8 | (capstone.CS_MODE_THUMB if thumb else 0)),
            }[arch]
            decoder = self._known[arch, thumb] = capstone.Cs(machine, mode)
            decoder.detail = True
        return decoder


_DECODERS = _Decoders()


def _understood(decoded: Any, registers: Registers, read: Read, *, thumb: bool) -> Instruction:
    from capstone import CS_GRP_PRIVILEGE  # noqa: PLC0415

    arch, value = registers.arch, Value(registers)
    found = Instruction(decoded.address, f"{decoded.mnemonic} {decoded.op_str}".strip())
    name = decoded.mnemonic.split()[-1]
    found.privileged = CS_GRP_PRIVILEGE in decoded.groups
    if arch is Arch.ARM64:
        found.accesses, found.trap = arm64.accesses(decoded, value), name in arm64.TRAPS
    elif arch is Arch.ARM:
        found.accesses, found.trap = arm.accesses(decoded, value, thumb=thumb), name in arm.TRAPS
    else:
        found.accesses, found.trap = x86.accesses(decoded, value), name in x86.TRAPS
        found.target = x86.target(decoded, value, found.accesses, read)
        for access in found.accesses:
            needed = x86.alignment(decoded, access)
            if access.address is not None and access.address % needed:
                found.misaligned, found.alignment = access, needed
    return found
