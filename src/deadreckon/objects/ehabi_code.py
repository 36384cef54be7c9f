"""What Thumb code says about prologues and epilogues, where exception tables describe bodies only.

Sources: Arm Architecture Reference Manual (A- and M-profile), Thumb instruction set encodings. A function whose first
instruction is the inverse of what its unwind instructions end with is known to be Thumb code with a prologue in front.
From there on each instruction that moves sp is followed until the frame is whole; from each return the restoring
instructions are followed back. An instruction that isn't known ends that, and the body's rule stands.

Every rule holds at one address, the instruction's: return addresses are looked up by the byte before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Frame", "begins", "epilogue", "prologue", "returns"]

_PC = 15
_MAX_INSTRUCTIONS = 12


class Frame(NamedTuple):
    """A frame on the way: its CFA is sp, or r7, plus ``size``; ``saved``: (register, place from the CFA), sorted."""

    size: int = 0
    saved: tuple[tuple[int, int], ...] = ()
    base: int = 13

    def pushed(self, mask: int, size: int = 0) -> Frame:
        """Return the frame with registers stored below it, or ``size`` bytes of something else."""
        registers = [r for r in range(16) if mask >> r & 1]
        size = self.size + size + 4 * len(registers)
        kept = dict(self.saved) | {r: 4 * i - size for i, r in enumerate(registers)}
        return Frame(size, tuple(sorted(kept.items())))


def _is_wide(half: int) -> bool:
    return half >= 0xE800


def _stores(first: int, second: int) -> tuple[int, int] | None:
    """Return the registers an instruction pushes and by how much else it lowers sp; None where it is no such one."""
    if first & 0xFE00 == 0xB400:  # PUSH
        return first & 0xFF | (first & 0x100) << 6, 0
    if first & 0xFF80 == 0xB080:  # SUB sp, #imm7
        return 0, (first & 0x7F) * 4
    if first == 0xE92D and not second & 0xA000:  # PUSH.W, which is STMDB sp!
        return second, 0
    if first == 0xF84D and second & 0xFFF == 0xD04:  # STR.W rt, [sp, #-4]!
        return 1 << (second >> 12), 0
    if first & 0xFFBF == 0xED2D and second & 0xF00 == 0xB00:  # VPUSH of double registers
        return 0, (second & 0xFE) * 4
    if first & 0xFBFF == 0xF1AD and second & 0x8F00 == 0x0D00:  # SUB.W sp, sp, #const
        return _constant((first & 0x400) << 1 | (second >> 4 & 0x700) | second & 0xFF)
    if first & 0xFBFF == 0xF2AD and second & 0x8F00 == 0x0D00:  # SUBW sp, sp, #imm12
        return 0, (first & 0x400) << 1 | (second >> 4 & 0x700) | second & 0xFF
    return None


def _constant(imm12: int) -> tuple[int, int] | None:
    """Return a modified immediate constant (ThumbExpandImm) of the kinds that can be a frame's size."""
    if imm12 < 0x100:
        return 0, imm12
    value, turn = imm12 & 0x7F | 0x80, imm12 >> 7
    return (0, (value >> turn | value << (32 - turn)) & 0xFFFF_FFFF) if imm12 >= 0x400 else None


def _restores(first: int, second: int) -> tuple[int, int] | None:
    """Return the registers an instruction pops and by how much else it raises sp; None where it is no such one."""
    if first & 0xFE00 == 0xBC00:  # POP
        return first & 0xFF | (first & 0x100) << 7, 0
    if first & 0xFF80 == 0xB000:  # ADD sp, #imm7
        return 0, (first & 0x7F) * 4
    if first == 0xE8BD and not second & 0x2000:  # POP.W, which is LDMIA sp!
        return second, 0
    if first == 0xF85D and second & 0xFFF == 0xB04:  # LDR.W rt, [sp], #4
        return 1 << (second >> 12), 0
    if first & 0xFFBF == 0xECBD and second & 0xF00 == 0xB00:  # VPOP of double registers
        return 0, (second & 0xFE) * 4
    return None


def _leaves_sp(half: int) -> bool:
    """Whether a 16-bit instruction neither writes sp or lr nor branches: arithmetic, loads, stores, IT."""
    if half < 0x4400 or 0x4800 <= half < 0xB000:
        return True
    if half < 0x4700:  # Of registers 8 to 15: ADD, CMP, MOV.
        return half & 0x87 not in {0x85, 0x86, 0x87}
    return half & 0xFF00 in {0xB200, 0xBA00, 0xBF00}


def begins(code: NDArray[np.uint16], at: int, whole: Frame) -> bool:
    """Whether the instruction at an index pushes registers to where a frame has them."""
    stored = _stores(int(code[at]), int(code[at + 1])) if at + 1 < len(code) else None
    return bool(stored and stored[0]) and set(Frame().pushed(*stored or (0, 0)).saved) <= set(whole.saved)


def prologue(code: NDArray[np.uint16], at: int, whole: Frame, fp: int | None = None) -> list[tuple[int, Frame]]:
    """Return the frame at each instruction of a prologue, as (index, frame); empty where it is not certain.

    It ends where the frame is ``whole`` or, of a frame whose CFA is r7 plus ``fp``, where r7 is set.
    """
    found: list[tuple[int, Frame]] = []
    frame = Frame()
    for _ in range(_MAX_INSTRUCTIONS):
        if at + 1 >= len(code):
            return []
        first, second = int(code[at]), int(code[at + 1])
        found.append((at, frame))
        stored = _stores(first, second)
        if stored is not None:
            frame = frame.pushed(*stored)
        elif _is_wide(first) or not _leaves_sp(first):
            return []
        elif fp is not None and (first & 0xFF00 == 0xAF00 or first == 0x466F):  # ADD r7, sp, #imm; MOV r7, sp
            above = (first & 0xFF) * 4 if first != 0x466F else 0
            return found if frame.saved == whole.saved and frame.size - above == fp else []
        if fp is None and frame == whole:
            return found
        at += 2 if _is_wide(first) else 1
    return []


def returns(code: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the indexes of halfwords at which a return may begin: BX lr, POP {..., pc}, LDR.W pc, [sp], #4."""
    following = np.append(code[1:], 0)
    found = (code == 0x4770) | (code & 0xFF00 == 0xBD00)
    found |= (code == 0xE8BD) & (following & 0xA000 == 0x8000) | (code == 0xF85D) & (following == 0xFB04)
    return np.flatnonzero(found)


def epilogue(code: NDArray[np.uint16], at: int, low: int) -> list[tuple[int, Frame]]:
    """Return the frame at a return and at the instructions before it that lead there, not below ``low``."""
    first, second = int(code[at]), int(code[at + 1]) if at + 1 < len(code) else 0
    frame = Frame() if first == 0x4770 else Frame().pushed(*(_restores(first, second) or (0, 0)))
    found = [(at, frame)]
    kept = 1
    for _ in range(_MAX_INSTRUCTIONS):
        before, further = (int(code[at - n]) if at - n >= low else 0 for n in (2, 3))
        if _is_wide(before) and _is_wide(further):
            break  # Which of the two halfwords begins an instruction can't be told from here.
        at -= 2 if _is_wide(before) else 1
        if at < low:
            break
        first = int(code[at])
        restored = _restores(first, int(code[at + 1]))
        if first == 0x46BD:  # MOV sp, r7. Before it r7 is raised, if it has to be.
            return [*found, (at, frame._replace(base=7))]
        if restored is None:
            if _is_wide(first) or not _leaves_sp(first):
                break
        elif restored[0] >> _PC & 1:
            break
        else:
            frame = frame.pushed(*restored)
        found.append((at, frame))
        if restored is not None:
            kept = len(found)
    return found[:kept]  # Before the first restoring instruction it is the body.
