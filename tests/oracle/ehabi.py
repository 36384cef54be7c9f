"""Unwind instructions of ARM IHI 0038 run one by one on registers and memory, from pyelftools' reading of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elftools.ehabi.decoder import EHABIBytecodeDecoder

from oracle.rules import apply, index_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deadreckon.model.tables import RuleTable

_NAMES = ("r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "fp", "ip", "sp", "lr", "pc")


REGISTERS = {i: 0x1000_0000 + 0x111_1110 * i for i in range(16)}
LEAF = {13: REGISTERS[13], 15: REGISTERS[14]}


def memory(address: int, size: int) -> int:
    """Return a number that tells its address; every address can be read."""
    return (address * 0x9E37_79B1 + 0x7F4A_7C15) % (1 << 8 * size)


def caller(table: RuleTable, rva: int) -> dict[int, int] | None:
    """Return what a rule says of the caller, without the registers it leaves alone."""
    found = apply(table, rva, REGISTERS, memory, pc=15, sp=13, word=4)
    if found is None:
        return None
    index = index_at(table, rva)
    first, count = table.rules[index, 4:]
    named = {13, 15, *table.saved[first : first + count, 0].tolist()}
    return {r: v for r, v in sorted(found.items()) if r in named}


def run(codes: bytes, registers: Mapping[int, int], read: Callable[[int, int], int]) -> dict[int, int] | None:
    """Return the caller's registers: sp, pc and those that were popped. None where the sequence refuses."""
    found = dict(registers)
    popped: set[int] = set()
    at = 0
    while at < len(codes):
        code = codes[at]
        if code == 0xB2:  # pyelftools takes the first byte without a continuation bit for more to come.
            value = shift = 0
            at += 1
            while True:
                if at >= len(codes):
                    return None
                value |= (codes[at] & 0x7F) << shift
                shift += 7
                at += 1
                if not codes[at - 1] & 0x80:
                    break
            found[13] += 0x204 + 4 * value
            continue
        if code == 0xB4:  # Newer than pyelftools: the return address's authentication code.
            found[13] += 4
            at += 1
            continue
        if code in {0xB3, 0xC6, 0xC8} and at + 1 < len(codes) and (codes[at + 1] >> 4) + (codes[at + 1] & 15) > 15:
            return None  # More registers than there are.
        decoder = EHABIBytecodeDecoder.__new__(EHABIBytecodeDecoder)
        decoder._bytecode_array, decoder._index = list(codes), at
        handler = next(handler for mask, value, handler in decoder.ring if code & mask == value)
        try:
            text = handler(decoder)
        except IndexError:
            return None
        at = decoder._index
        match text.split(maxsplit=1):
            case ["finish"]:
                break
            case ["vsp", rest]:
                words = rest.split()
                if len(words) == 2:
                    found[13] = found[int(words[1][1:])]
                else:
                    found[13] += int(words[3]) if words[2] == "+" else -int(words[3])
            case ["pop", names]:
                listed = names.strip("{}").split(", ")
                if listed[0] in _NAMES:
                    vsp = found[13]
                    for name in listed:
                        register = _NAMES.index(name)
                        found[register] = read(vsp & 0xFFFF_FFFF, 4)
                        popped.add(register)
                        vsp += 4
                    if "sp" not in listed:
                        found[13] = vsp
                else:
                    size = 4 if listed[0].startswith("wC") else 8
                    # FSTMFDX, and only it, stores a word more.
                    found[13] += size * len(listed) + 4 * (code == 0xB3 or code & 0xF8 == 0xB8)
            case _:
                return None
        found[13] &= 0xFFFF_FFFF
    found[13] &= 0xFFFF_FFFF
    if 15 not in popped:
        found[15] = found[14]
    return {r: found[r] for r in sorted(popped | {13, 15})}
