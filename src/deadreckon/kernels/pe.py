"""Epilogues in x86-64 code, found by their bytes.

Unwind information of version 1 says nothing of epilogues: whoever unwinds looks at the code ahead. Looking at all
code beforehand gives the same answers, one for each address at which an epilogue can be under way. Source: Microsoft
"x64 prolog and epilog" and "x64 exception handling" (epilog code). The oracle is tests/oracle/epilogue.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["epilogues"]

_MOST_POPS = 15  # All registers but rsp.

_RSP = 4
_I64, _U64 = types.int64, types.uint64

_BEGINS = np.zeros(256, np.bool_)
"""Which bytes a pop, a return or a jump begins with, prefixes of size and register left out."""
_BEGINS[[*range(0x58, 0x60), 0xC2, 0xC3, 0xE9, 0xEB, 0xF2, 0xF3, 0xFF]] = True


@kernel()
def _pop(code, at, end):
    """Return (register, length) of a pop instruction, length 0 where there is none."""
    byte = code[at]
    if 0x58 <= byte <= 0x5F:
        return byte & 7, 1
    if 0x40 <= byte <= 0x4F and at + 1 < end and 0x58 <= code[at + 1] <= 0x5F:
        return (byte & 1) << 3 | code[at + 1] & 7, 2
    return 0, 0


@kernel()
def _return(code, begin, at, end):
    """Return the length of a return instruction, 0 where there is none."""
    byte = code[at]
    if byte == 0xC3:
        # call [rbx + rax*8] ends in this byte, and a caller's address is looked up by the call's last byte.
        return 0 if at - begin >= 2 and code[at - 2] == 0xFF and code[at - 1] == 0x14 else 1
    if (byte == 0xF3 or byte == 0xF2) and at + 1 < end and code[at + 1] == 0xC3:
        return 2
    if byte == 0xC2 and at + 2 < end and code[at + 1] == 0 and code[at + 2] == 0:
        return 3
    return 0


@kernel()
def _returning(code, begin, at, end):
    """Return (key, length of the first instruction) of pops and a return that start here, length 0 where none do."""
    key = np.uint64(0)
    count = 0
    first = 0
    while at < end:
        register, length = _pop(code, at, end)
        if length == 0:
            length = _return(code, begin, at, end)
            return key | np.uint64(count), (first or length) if length else 0
        if register == _RSP or count == _MOST_POPS:
            break
        first = first or length
        count += 1
        key |= np.uint64(register) << np.uint64(4 * count)
        at += length
    return key, 0


@kernel()
def _jump(code, at, end):
    """Return the length of an unconditional jump, 0 where there is none."""
    start = at
    if code[at] == 0xF2 and at + 1 < end:
        at += 1
    if code[at] == 0xEB:
        return at + 2 - start
    if code[at] == 0xE9:
        return at + 5 - start
    if code[at] & 0xF0 == 0x40 and at + 1 < end:
        at += 1
    if code[at] != 0xFF or at + 1 >= end or code[at + 1] & 0x38 != 0x20:
        return 0
    mode, base = code[at + 1] >> 6, code[at + 1] & 7
    at += 2
    if mode != 3 and base == 4:
        if at >= end:
            return 0
        base = code[at] & 7
        at += 1
    if mode == 1:
        at += 1
    elif mode == 2 or (mode == 0 and base == 5):
        at += 4
    return at - start


@kernel()
def _freed(code, begin, at, allocated):
    """Say whether the instruction that ends here takes the whole fixed allocation off the stack."""
    if at - begin >= 4 and code[at - 4] == 0x48 and code[at - 3] == 0x83 and code[at - 2] == 0xC4:
        return code[at - 1] == allocated and allocated < 0x80  # add rsp, imm8
    if at - begin >= 7 and code[at - 7] == 0x48 and code[at - 6] == 0x81 and code[at - 5] == 0xC4:
        value = np.int64(0)
        for i in range(4):
            value |= np.int64(code[at - 4 + i]) << (8 * i)
        if value == allocated:
            return True  # add rsp, imm32
    for length, form in ((4, 0x60), (7, 0xA0)):
        if at - begin >= length and code[at - length] & 0xFE == 0x48 and code[at - length + 1] == 0x8D:
            modrm = code[at - length + 2]
            if modrm & 0xF8 == form and modrm & 7 != 4:
                return True  # lea rsp, [frame register + disp]
    # What MSVC writes where it kept the old stack pointer in r11: mov rsp, r11.
    return at - begin >= 3 and code[at - 3] == 0x49 and code[at - 2] == 0x8B and code[at - 1] == 0xE3


@kernel(
    _I64(
        array(types.uint8, readonly=True),
        array(_I64),
        array(_I64),
        array(_I64),
        array(_I64),
        array(_I64),
        array(_U64),
        array(_I64),
        array(_I64),
        array(types.uint8),
        array(_U64),
    )
)
def _find(code, offset, size, low, high, rva, pushed, allocated, out_rva, out_size, out_key):
    """Fill the columns, function by function; returns how many rows there are, -1 where they don't suffice."""
    n = 0
    room = len(out_rva)
    for f in range(len(offset)):
        begin, end = low[f], high[f]
        shift = rva[f] - offset[f]
        count = np.int64(pushed[f] & np.uint64(15))
        for at in range(offset[f], offset[f] + size[f]):
            byte = code[at]
            if byte & 0xF0 == 0x40 and at + 1 < end:
                byte = code[at + 1]
                if byte & 0xF8 != 0x58 and byte != 0xFF:
                    continue
            if not _BEGINS[byte]:
                continue
            key, length = _returning(code, begin, at, end)
            if length:
                if n >= room:
                    return -1
                out_rva[n] = at + shift
                out_size[n] = length
                out_key[n] = key
                n += 1
                continue
            if allocated[f] < 0 or (count == 0 and allocated[f] == 0):
                continue
            length = _jump(code, at, end)
            if length == 0 or at + length > end:
                continue
            # A jump ends an epilogue if all that the prologue did has been undone right before it.
            back = at
            whole = True
            for i in range(count):
                register = np.int64(pushed[f] >> np.uint64(4 * (count - i))) & 15
                step = 2 if register >= 8 else 1
                popped, found = _pop(code, back - step, end) if back - step >= begin else (0, 0)
                if found != step or popped != register:
                    whole = False
                    break
                back -= step
            if not whole or (allocated[f] > 0 and not _freed(code, begin, back, allocated[f])):
                continue
            if n + count >= room:
                return -1
            for i in range(count + 1):
                left = count - i
                key = pushed[f] >> np.uint64(4 * i) & ~np.uint64(15)
                out_rva[n] = back + shift
                step = length if left == 0 else _pop(code, back, end)[1]
                out_size[n] = step
                out_key[n] = key | np.uint64(left)
                back += step
                n += 1
    return n


def epilogues(
    code: NDArray[np.uint8],
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    rva: NDArray[np.int64],
    pushed: NDArray[np.uint64],
    allocated: NDArray[np.int64],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]] | None:
    """Find the epilogues of functions: (rva, size, key) of each instruction that is one's, None beyond ``most``.

    Function i's code is ``code[offset[i]:][:size[i]]``, at ``rva[i]``. Its section is ``code[low[i]:high[i]]``: where
    compilers have moved seldom-used code away, an epilogue may go on in the next fragment. ``pushed``: the registers
    its prologue pushed as an epilogue pops them, in a key; ``allocated``: the bytes allocated below them, negative
    where pushes and allocations are mixed. A key is the number of pops to come, and from bit 4 on their registers,
    four bits each.
    """
    out_rva = np.empty(most, np.int64)
    out_size = np.empty(most, np.uint8)
    out_key = np.empty(most, np.uint64)
    n = _find(code, offset, size, low, high, rva, pushed, allocated, out_rva, out_size, out_key)
    if n < 0:
        return None
    order = np.argsort(out_rva[:n], kind="stable")
    return out_rva[:n][order], out_size[:n][order].astype(np.int64), out_key[:n][order]
