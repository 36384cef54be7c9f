"""DWARF expressions, on a bounded stack and with fuel. Source: DWARF 5, 2.5 and 6.4.2.3."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel
from deadreckon.kernels._leb import SIGNED, UNSIGNED, fixed, leb128
from deadreckon.kernels._memory import load
from deadreckon.model.registers import WIDTH

__all__ = ["evaluate"]

_STACK_DEPTH = 64
_FUEL = 1000


@kernel()
def _signed(value, word):
    """Return a word as a signed number."""
    if word == 4 and value & np.uint64(0x8000_0000):
        return np.int64(value) - np.int64(0x1_0000_0000)
    return np.int64(value)


@kernel(allocates=True)
def evaluate(code, ref, cfa, has_cfa, regs, valid, word, memory):
    """Run the DWARF expression at ``ref`` (its ULEB128 length first); return (value, True) or (0, False).

    The CFA is on the stack at the start where there is one (DWARF 5, 6.4.2.3). Values are as wide as an address
    (2.5.1). Three operations of the vendor range stand for Breakpad's: 0xe1 aligns down, 0xe2 and 0xe3 divide unsigned.
    """
    stack = np.zeros(_STACK_DEPTH, np.uint64)
    limit = len(code)
    if ref < 0:
        return np.uint64(0), False
    narrow = np.uint64(0xFFFF_FFFF) if word == 4 else ~np.uint64(0)
    bits = np.uint64(8 * word)
    length, at = leb128(code, ref, limit, UNSIGNED)
    if at < 0 or length > np.uint64(limit - at):
        return np.uint64(0), False
    stop = at + np.int64(length)
    begin = at
    n = 0
    if has_cfa:
        stack[0] = cfa
        n = 1
    for _ in range(_FUEL):
        if at >= stop:
            break
        op = np.int64(code[at])
        at += 1
        push = False
        value = np.uint64(0)
        if 0x30 <= op <= 0x4F:  # DW_OP_lit0..31
            value = np.uint64(op - 0x30)
            push = True
        elif 0x70 <= op <= 0x8F or op == 0x92:  # DW_OP_breg0..31, DW_OP_bregx
            register = np.uint64(op - 0x70)
            if op == 0x92:
                register, at = leb128(code, at, stop, UNSIGNED)
            if at < 0 or register >= WIDTH or not valid >> register & np.uint64(1):
                return np.uint64(0), False
            value, at = leb128(code, at, stop, SIGNED)
            if at < 0:
                return np.uint64(0), False
            value += regs[register]
            push = True
        elif op == 0x03 or 0x08 <= op <= 0x0F:  # DW_OP_addr, DW_OP_const1u .. const8s
            size = word if op == 0x03 else 1 << ((op - 0x08) >> 1)
            if at + size > stop:
                return np.uint64(0), False
            value = fixed(code, at, size)
            at += size
            if op != 0x03 and op & 1 and size < 8 and value >> np.uint64(8 * size - 1):
                value |= ~np.uint64(0) << np.uint64(8 * size)
            push = True
        elif op == 0x10 or op == 0x11:  # DW_OP_constu, DW_OP_consts
            value, at = leb128(code, at, stop, SIGNED if op == 0x11 else UNSIGNED)
            if at < 0:
                return np.uint64(0), False
            push = True
        elif op == 0x9C:  # DW_OP_call_frame_cfa
            if not has_cfa:
                return np.uint64(0), False
            value = cfa
            push = True
        elif op == 0x12 or op == 0x14 or op == 0x15:  # DW_OP_dup, DW_OP_over, DW_OP_pick
            back = 0
            if op == 0x14:
                back = 1
            elif op == 0x15:
                if at >= stop:
                    return np.uint64(0), False
                back = np.int64(code[at])
                at += 1
            if back >= n:
                return np.uint64(0), False
            value = stack[n - 1 - back]
            push = True
        elif op == 0x13:  # DW_OP_drop
            if n < 1:
                return np.uint64(0), False
            n -= 1
        elif op == 0x16:  # DW_OP_swap
            if n < 2:
                return np.uint64(0), False
            value = stack[n - 1]
            stack[n - 1] = stack[n - 2]
            stack[n - 2] = value
        elif op == 0x17:  # DW_OP_rot
            if n < 3:
                return np.uint64(0), False
            value = stack[n - 1]
            stack[n - 1] = stack[n - 2]
            stack[n - 2] = stack[n - 3]
            stack[n - 3] = value
        elif op == 0x06 or op == 0x94:  # DW_OP_deref, DW_OP_deref_size
            size = word
            if op == 0x94:
                if at >= stop:
                    return np.uint64(0), False
                size = np.int64(code[at])
                at += 1
            if n < 1 or size < 1 or size > word:
                return np.uint64(0), False
            loaded, ok = load(stack[n - 1], size, memory)
            if not ok:
                return np.uint64(0), False
            stack[n - 1] = loaded
        elif op == 0x19 or op == 0x1F or op == 0x20:  # DW_OP_abs, DW_OP_neg, DW_OP_not
            if n < 1:
                return np.uint64(0), False
            top = stack[n - 1]
            if op == 0x20:
                stack[n - 1] = ~top & narrow
            elif op == 0x1F or _signed(top, word) < 0:
                stack[n - 1] = ~top + np.uint64(1) & narrow
        elif op == 0x23:  # DW_OP_plus_uconst
            value, at = leb128(code, at, stop, UNSIGNED)
            if at < 0 or n < 1:
                return np.uint64(0), False
            stack[n - 1] = stack[n - 1] + value & narrow
        elif op == 0x28 or op == 0x2F:  # DW_OP_bra, DW_OP_skip
            if at + 2 > stop:
                return np.uint64(0), False
            jump = np.int64(code[at]) | np.int64(code[at + 1]) << 8
            if jump >= 0x8000:
                jump -= 0x10000
            at += 2
            taken = True
            if op == 0x28:
                if n < 1:
                    return np.uint64(0), False
                n -= 1
                taken = stack[n] != 0
            if taken:
                at += jump
                if at < begin or at > stop:
                    return np.uint64(0), False
        elif op == 0x96:  # DW_OP_nop
            pass
        elif 0x1A <= op <= 0x2E or 0xE1 <= op <= 0xE3:
            if n < 2:
                return np.uint64(0), False
            right = stack[n - 1]
            left = stack[n - 2]
            n -= 1
            if op == 0x1A:
                left &= right
            elif op == 0x1B:  # DW_OP_div is signed
                if right == 0:
                    return np.uint64(0), False
                negative = (_signed(left, word) < 0) != (_signed(right, word) < 0)
                left = np.uint64(abs(_signed(left, word))) // np.uint64(abs(_signed(right, word)))
                if negative:
                    left = ~left + np.uint64(1)
            elif op == 0x1C:
                left -= right
            elif op == 0x1D or op == 0xE3:  # DW_OP_mod
                if right == 0:
                    return np.uint64(0), False
                left %= right
            elif op == 0x1E:
                left *= right
            elif op == 0x21:
                left |= right
            elif op == 0x22:
                left += right
            elif op == 0x24:
                left = left << right if right < bits else np.uint64(0)
            elif op == 0x25:
                left = left >> right if right < bits else np.uint64(0)
            elif op == 0x26:
                left = np.uint64(_signed(left, word) >> np.int64(min(right, np.uint64(63))))
            elif op == 0x27:
                left ^= right
            elif op == 0x29:
                left = np.uint64(left == right)
            elif op == 0x2A:
                left = np.uint64(_signed(left, word) >= _signed(right, word))
            elif op == 0x2B:
                left = np.uint64(_signed(left, word) > _signed(right, word))
            elif op == 0x2C:
                left = np.uint64(_signed(left, word) <= _signed(right, word))
            elif op == 0x2D:
                left = np.uint64(_signed(left, word) < _signed(right, word))
            elif op == 0x2E:
                left = np.uint64(left != right)
            elif op == 0xE1:
                if right == 0 or right & (right - np.uint64(1)):
                    return np.uint64(0), False
                left &= ~(right - np.uint64(1))
            elif op == 0xE2:
                if right == 0:
                    return np.uint64(0), False
                left //= right
            else:
                return np.uint64(0), False
            stack[n - 1] = left & narrow
        else:
            return np.uint64(0), False
        if push:
            if n >= _STACK_DEPTH:
                return np.uint64(0), False
            stack[n] = value & narrow
            n += 1
    if at != stop or n < 1:
        return np.uint64(0), False
    return stack[n - 1], True
