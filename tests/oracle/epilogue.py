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


def pop_code(register: int) -> bytes:
    """Return the shortest code of a pop."""
    return bytes([0x41, 0x58 + register - 8]) if register >= 8 else bytes([0x58 + register])


_MEMORY = {0: 0, 1: 1, 2: 4}


def jump_length(code: bytes) -> int:
    """Return the length of the unconditional jump that code begins with, 0 if it doesn't."""
    prefix = code[:1] == b"\xf2"
    code = code[prefix:]
    if code[:1] in {b"\xeb", b"\xe9"}:
        return prefix + (2 if code[0] == 0xEB else 5)
    rex = bool(code) and code[0] >> 4 == 4
    code = code[rex:]
    if len(code) < 2 or code[0] != 0xFF or code[1] >> 3 & 7 != 4:
        return 0
    length = prefix + rex + 2
    mode, base = code[1] >> 6, code[1] & 7
    if mode == 3:
        return length
    if base == 4:
        if len(code) < 3:
            return 0
        base = code[2] & 7
        length += 1
    return length + (4 if mode == 0 and base == 5 else _MEMORY[mode])


def frees(code: bytes, allocated: int) -> bool:
    """Say whether code ends in an instruction that takes a fixed allocation off the stack."""
    if allocated < 0x80 and code.endswith(b"\x48\x83\xc4" + bytes([allocated])):
        return True
    if code.endswith(b"\x48\x81\xc4" + allocated.to_bytes(4, "little")):
        return True
    for length, mode in ((4, 1), (7, 2)):
        lea = code[-length:]
        if len(lea) == length and lea[0] in {0x48, 0x49} and lea[1] == 0x8D:
            modrm = lea[2]
            if modrm >> 6 == mode and modrm >> 3 & 7 == RSP and modrm & 7 != RSP:
                return True
    return code.endswith(b"\x49\x8b\xe3")


def leaving(code: bytes, at: int, pops: tuple[int, ...], allocated: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return (offset, length, registers still to be popped) of each instruction of an epilogue whose jump is here.

    ``pops`` are all that the prologue pushed, in the order of an epilogue, ``allocated`` what lies below them.
    """
    length = jump_length(code[at:])
    before = b"".join(map(pop_code, pops))
    if not length or at + length > len(code) or not code[:at].endswith(before) or not (pops or allocated):
        return []
    start = at - len(before)
    if allocated and not frees(code[:start], allocated):
        return []
    rows = []
    for i, register in enumerate(pops):
        rows.append((start, len(pop_code(register)), pops[i:]))
        start += len(pop_code(register))
    return [*rows, (at, length, ())]
