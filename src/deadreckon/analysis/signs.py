"""What an address and the registers that led to it look like. Each function gives a note, in words that say how sure.

The words at the beginning of a note are its kind, for programs: docs/event.md lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.analysis.access import Operand
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from deadreckon.analysis.access import Access
    from deadreckon.analysis.areas import Areas

__all__ = ["arm64_pointer", "canonical", "jump", "null", "patterns", "protection", "stack_overflow"]

_PAGE = 4096
_NEAR_NULL = 0x10000
"""No system maps anything below this."""
_NEAR_STACK = 0x10000
"""How far from the stack pointer a frame's own accesses and a guard page's end are."""

# What fills memory, byte by byte or as a word, and who does it.
_FILLS = {
    0xDDDD_DDDD: "freed memory in Microsoft's debug heap",
    0xFEEE_FEEE: "memory that HeapFree() freed under a debugger",
    0xCDCD_CDCD: "new memory of Microsoft's debug heap, or freed memory of PartitionAlloc",
    0xBAAD_F00D: "new memory of HeapAlloc() under a debugger",
    0xFDFD_FDFD: "the guard bytes around blocks of Microsoft's debug heap",
    0xABAB_ABAB: "the guard bytes after blocks of HeapAlloc(), or new memory of PartitionAlloc",
    0xCCCC_CCCC: "variables without a value in Microsoft's debug builds",
    0xE5E5_E5E5: "freed memory in Firefox's jemalloc",
    0x5A5A_5A5A: "freed memory in jemalloc",
    0xA5A5_A5A5: "new memory of jemalloc",
    0x5555_5555: "freed memory under MallocScribble",
    0xAAAA_AAAA: "new memory under MallocPreScribble, and variables without a value under -ftrivial-auto-var-init",
    0xFEFE_FEFE: "variables without a value under -ftrivial-auto-var-init",
    0xBEBE_BEBE: "new memory under AddressSanitizer",
    0xDEAD_BEEF: "a value that programs write where no pointer is",
    0xDEAD_DEAD: "a value that programs write where no pointer is",
    0xBBAD_BEEF: "the address that WebKit writes to when it stops itself",
}
_WORD = 0xFFFF_FFFF
_TEXT = 4
"""Letters and digits that make an address look like text."""


def canonical(address: int) -> bool:
    """Whether an address of x86_64 is canonical, with 48 bits: those from 47 on are the same."""
    return address >> 47 in {0, (1 << 17) - 1}


def null(address: int, word: int, hits: list[Access], *, reported: bool = True) -> str | None:
    """Recognise a null pointer: certain where the only register holds 0, likely where the address is small.

    Of two registers either may be the pointer: in write_av_non_canonical.dmp it is the other one. ``reported``: address
    0 means address 0, and is not what a report has for want of one.
    ``word`` is the size of a register in bits, ``hits`` the accesses that give the address.
    """
    base = next((a.operands[0] for a in hits if len(a.operands) == 1), None)
    offset = address if address < 1 << word - 1 else address - (1 << word)
    small = abs(offset) < _NEAR_NULL
    distance = f" {'plus' if offset > 0 else 'minus'} {abs(offset):#x}" if offset else ""
    if base is not None and not base.value:
        return f"null pointer{distance}: {base.register} is 0"
    if not small:
        return None
    return f"{'probably a ' if offset or not reported else ''}null pointer{distance}"


def jump(address: int, arch: Arch, areas: Areas, sp: int | None) -> list[str]:
    """Say where a jump led that found no code."""
    if address < _NEAR_NULL:
        sure = "jump to a null pointer" if not address else f"jump to probably a null pointer plus {address:#x}"
        return [f"{sure}: a call through a function pointer, or a return to an overwritten address"]
    found: list[str] = []
    area, name = areas.at(address), areas.name(address)
    if area is not None and not area.executable:
        what = f", in {name}" if name else ""
        stack = ", the stack" if sp is not None and area.start <= sp < area.end else ""
        found.append(f"jump to non-executable memory ({area.protection}{what}{stack})")
    elif area is None and areas.known:
        found.append("jump to memory that is not mapped")
    elif area is None and not name:
        on_stack = sp is not None and areas.together(address, sp)
        found.append("jump to non-executable memory (the stack)" if on_stack else "jump to an address in no module")
    if arch is Arch.ARM64 and (note := _failed_authentication(address)):
        found.append(note)
    return found + patterns(address, 8 * arch.word_size, [])


def stack_overflow(address: int, sp: int | None, areas: Areas, kind: str) -> str | None:
    """Recognise a stack that ran out: a fault near the stack pointer, just below the stack or in its guard pages."""
    if kind.startswith("EXCEPTION_STACK_OVERFLOW"):
        return "stack overflow"
    if sp is None or not sp:
        return None
    if not areas.known:
        # Whoever can't access memory beside the stack pointer has none there, or a stack pointer that leads nowhere.
        if abs(address - sp) < _PAGE and not areas.captured(address):
            return f"possibly a stack overflow: the stack pointer, {sp:#x}, is within a page, and no stack is there"
        return None
    area, stack = areas.at(address), areas.above(address)
    if stack is None or not stack.writable or stack.executable or (area is not None and area.access):
        return None
    bottom = area.start if area is not None else address
    if area is not None and area.end != stack.start:
        return None
    if not (bottom - _NEAR_STACK <= sp < min(stack.start + _NEAR_STACK, stack.end)):
        return None
    if area is not None:
        return f"stack overflow: the address is in the guard pages {area} below the stack, the stack pointer is {sp:#x}"
    if stack.start - address > _NEAR_STACK:
        return None
    return f"stack overflow: the address is below the stack {stack}, the stack pointer is {sp:#x}"


def protection(address: int, access: str | None, areas: Areas) -> str | None:
    """Say what is mapped at an address that could not be accessed."""
    area = areas.at(address)
    if area is None or (access is not None and areas.allows(address, access)):
        return None
    name = areas.name(address)
    where = f" ({name})" if name else ""
    if not area.access:
        return f"memory without access{where}: {area} is mapped as a guard or reserve"
    return f"{access or 'access'} to memory that is mapped {area.protection}{where}" if access else None


def patterns(address: int, word: int, hits: list[Access]) -> list[str]:
    """Recognise values that memory is filled with, in the registers that gave the address, or in the address itself."""
    for register, value in [o for a in hits for o in a.operands] or [Operand("the address", address)]:
        if (fill := _fill(value, word)) is not None:
            return [f"possibly a pointer from filled memory: {register} is {value:#x}, {fill}"]
        raw = value.to_bytes(8, "little").rstrip(b"\0")
        if len(raw) >= _TEXT and raw.isalnum():
            return [f"possibly text in a pointer's place: {register} is {value:#x}, {raw.decode('ascii')!r}"]
    return []


def _fill(value: int, word: int) -> str | None:
    """Name what fills memory with a value, or with one a little below it."""
    for fill, meaning in _FILLS.items():
        for pattern in (fill, fill << 32 | fill) if word == 64 else (fill,):
            if 0 <= value - pattern < _PAGE:
                return meaning if value == pattern else f"near {pattern:#x}: {meaning}"
    return None


def arm64_pointer(address: int, hits: list[Access], value: str) -> str | None:
    """Read what ARM64 keeps in a pointer's upper bits: tags, and what a failed authentication leaves there."""
    if value.startswith(("SEGV_MTE", "EXC_ARM_MTE")):
        tags = [f"{o.register} has {o.value >> 56 & 0xF:#x}" for a in hits for o in a.operands[:1]]
        tag = f" ({', '.join(tags)})" if tags else ""
        return f"memory tagging: the pointer's tag{tag} is not the memory's; freed memory, or beyond a block's end"
    if note := _failed_authentication(address):
        return note
    if address & (1 << 56) - 1 >= 1 << 52 and address >> 55 != 0x1FF:
        return "non-canonical address: no pointer of a program has these bits"
    return None


def _failed_authentication(address: int) -> str | None:
    """Recognise the error code that AUT* leaves: Arm ARM, ``Auth()``: 01 or 10 in bits 53-54 or 61-62."""
    if address >> 47 in {1 << 6, 1 << 7, 1 << 14, 1 << 15}:
        return "possibly a pointer whose authentication failed: the upper bits are the processor's error code"
    return None
