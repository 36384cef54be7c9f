"""What a processor would do from an address on, as far as an epilogue of x86-64 code goes: pops, then a return."""

from __future__ import annotations

REGISTERS = 16
RSP = 4


def returning(code: bytes, at: int) -> tuple[tuple[int, ...], int] | None:
    """Return the registers popped before a return, and the length of the first instruction; None for anything else."""
    pops: list[int] = []
    first = 0
    while True:
        rest = code[at : at + 3]
        if rest[:1] == b"\xc3":
            length = 1
        elif rest[:2] in {b"\xf3\xc3", b"\xf2\xc3"}:
            length = 2
        elif rest == b"\xc2\0\0":
            length = 3
        else:
            length = 0
        if length:
            # call [rbx + rax*8] has a return's byte at its end.
            if rest[:1] == b"\xc3" and at >= 2 and code[at - 2 : at] == b"\xff\x14":
                return None
            return tuple(pops), first or length
        prefix = rest[:1] and rest[0] >> 4 == 4
        opcode = rest[1:2] if prefix else rest[:1]
        if not opcode or opcode[0] >> 3 != 0b01011:
            return None
        register = opcode[0] & 7 | (8 if prefix and rest[0] & 1 else 0)
        if register == RSP or len(pops) == REGISTERS - 1:
            return None
        pops.append(register)
        first = first or 1 + bool(prefix)
        at += 1 + bool(prefix)
