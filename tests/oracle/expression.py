"""DWARF expressions (DWARF 5, section 2.5) on Python integers, one operation a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Read = Callable[[int, int], int | None]

MAX_OPERATIONS = 1000
MAX_DEPTH = 64


class _Fails(Exception):
    """The expression has no value."""


def evaluate(code: bytes, *, word: int, registers: Mapping[int, int], cfa: int | None, read: Read) -> int | None:
    """Return an expression's value, None where it has none. ``read`` gives ``size`` bytes of memory as a number."""
    try:
        return _run(code, word, registers, cfa, read)
    except (_Fails, IndexError):
        return None


def _run(code: bytes, word: int, registers: Mapping[int, int], cfa: int | None, read: Read) -> int:
    bits = 8 * word
    modulus = 1 << bits
    stack: list[int] = [] if cfa is None else [cfa]
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(code):
            raise _Fails
        at += size
        return code[at - size : at]

    def leb(*, is_signed: bool) -> int:
        value = shift = 0
        while shift < 70:
            byte = take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if is_signed and byte & 0x40 else value
        raise _Fails

    def signed(value: int) -> int:
        return value - modulus if value >> (bits - 1) else value

    def pop() -> int:
        if not stack:
            raise _Fails
        return stack.pop()

    def known(register: int) -> int:
        if register not in registers:
            raise _Fails
        return registers[register]

    def load(address: int, size: int) -> int:
        value = read(address, size) if 1 <= size <= word else None
        if value is None:
            raise _Fails
        return value

    def divide(left: int, right: int) -> int:
        if right == 0:
            raise _Fails
        quotient = abs(signed(left)) // abs(signed(right))
        return -quotient if (signed(left) < 0) != (signed(right) < 0) else quotient

    def modulo(left: int, right: int) -> int:
        if right == 0:
            raise _Fails
        return left % right

    def quotient(left: int, right: int) -> int:
        if right == 0:
            raise _Fails
        return left // right

    def align(left: int, right: int) -> int:
        if right.bit_count() != 1:
            raise _Fails
        return left // right * right

    binary: dict[int, Callable[[int, int], int]] = {
        0x1A: lambda a, b: a & b,
        0x1B: divide,
        0x1C: lambda a, b: a - b,
        0x1D: modulo,
        0x1E: lambda a, b: a * b,
        0x21: lambda a, b: a | b,
        0x22: lambda a, b: a + b,
        0x24: lambda a, b: a << b if b < bits else 0,
        0x25: lambda a, b: a >> b if b < bits else 0,
        0x26: lambda a, b: signed(a) >> min(b, bits),
        0x27: lambda a, b: a ^ b,
        0x29: lambda a, b: int(a == b),
        0x2A: lambda a, b: int(signed(a) >= signed(b)),
        0x2B: lambda a, b: int(signed(a) > signed(b)),
        0x2C: lambda a, b: int(signed(a) <= signed(b)),
        0x2D: lambda a, b: int(signed(a) < signed(b)),
        0x2E: lambda a, b: int(a != b),
        0xE1: align,
        0xE2: quotient,
        0xE3: modulo,
    }
    for _ in range(MAX_OPERATIONS + 1):
        if at == len(code):
            return pop()
        op = take(1)[0]
        if op in binary:
            right, left = pop(), pop()
            stack.append(binary[op](left, right) % modulus)
            continue
        match op:
            case _ if 0x30 <= op <= 0x4F:
                stack.append(op - 0x30)
            case _ if 0x70 <= op <= 0x8F:
                base = known(op - 0x70)
                stack.append((base + leb(is_signed=True)) % modulus)
            case 0x92:
                base = known(leb(is_signed=False))
                stack.append((base + leb(is_signed=True)) % modulus)
            case 0x03:
                stack.append(int.from_bytes(take(word), "little"))
            case _ if 0x08 <= op <= 0x0F:
                size = (1, 2, 4, 8)[(op - 0x08) // 2]
                stack.append(int.from_bytes(take(size), "little", signed=bool(op & 1)) % modulus)
            case 0x10 | 0x11:
                stack.append(leb(is_signed=op == 0x11) % modulus)
            case 0x9C if cfa is not None:
                stack.append(cfa)
            case 0x12:
                stack.append(stack[-1])
            case 0x14:
                stack.append(stack[-2])
            case 0x15:
                stack.append(stack[-1 - take(1)[0]])
            case 0x13:
                pop()
            case 0x16:
                stack[-1], stack[-2] = stack[-2], stack[-1]
            case 0x17:
                stack[-1], stack[-2], stack[-3] = stack[-2], stack[-3], stack[-1]
            case 0x06:
                stack.append(load(pop(), word))
            case 0x94:
                size = take(1)[0]
                stack.append(load(pop(), size))
            case 0x19:
                stack.append(abs(signed(pop())) % modulus)
            case 0x1F:
                stack.append(-pop() % modulus)
            case 0x20:
                stack.append(modulus - 1 - pop())
            case 0x23:
                addend = leb(is_signed=False)
                stack.append((pop() + addend) % modulus)
            case 0x28 | 0x2F:
                jump = int.from_bytes(take(2), "little", signed=True)
                if op == 0x2F or pop():
                    at += jump
                if not 0 <= at <= len(code):
                    raise _Fails
            case 0x96:
                pass
            case _:
                raise _Fails
        if len(stack) > MAX_DEPTH:
            raise _Fails
    raise _Fails
