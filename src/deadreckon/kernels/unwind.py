"""Walk the stacks of many threads in one call: unwind rules, frame pointers, scanning.

The architecture is data (``unwind/amd64.py`` and its neighbours fill the parameters), so is each module (addresses
and lengths of its tables' columns), so is memory. For each frame, in this order:

1. cfi            the module's RuleTable has a rule for the address
2. frame_pointer  the frame-pointer chain of the architecture's ABI
3. scan           the next word on the stack that can be a return address

A thread ends where its unwind information says so (undefined return address), at a function above which no caller
exists (SymTable.base), or where nothing plausible is found. Sources: DWARF 5 section 6.4.3 (applying rules) and 2.5
(expressions); the ABI documents named in unwind/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel, view_i32, view_u8, view_u32
from deadreckon.kernels._memory import load, region
from deadreckon.kernels._signals import CALL_ARM64, CALL_X86, interrupted
from deadreckon.model.registers import WIDTH
from deadreckon.model.tables import (
    CFA_EXPR,
    CFA_REG,
    END_OF_STACK,
    NO_RULE,
    REG_EXPR,
    REG_OFFSET,
    REG_REGISTER,
    REG_UNDEFINED,
    REG_VAL_EXPR,
    REG_VAL_OFFSET,
    SIGNAL_FRAME,
    TRUST_CFI,
    TRUST_CONTEXT,
    TRUST_FP,
    TRUST_SCAN,
    FrameTable,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.crash import MemoryMap, Regions

__all__ = [
    "MODULE_COLUMNS",
    "PARAMETERS",
    "STOP_BASE",
    "STOP_END",
    "STOP_LIMIT",
    "STOP_NO_CALLER",
    "STOP_NO_CONTEXT",
    "STOP_NO_STACK",
    "walk_stacks",
]

# Architecture parameters, by index.
P_WORD, P_PC, P_SP, P_FP, P_LR, P_CALLEE_SAVED, P_MASK, P_FP_KIND, P_CALL = range(9)
PARAMETERS = 9

FP_NONE, FP_RECORD = 0, 1
"""Frame-pointer conventions: FP_RECORD is {caller's fp, return address} at fp, the caller's sp just above."""
# Module columns, by index: addresses and lengths of the tables.
(
    M_RVA,
    M_ROWS,
    M_RULE,
    M_RULES,
    M_N_RULES,
    M_SAVED,
    M_N_SAVED,
    M_EXPR,
    M_N_EXPR,
    M_RANGES,
    M_N_RANGES,
    M_LOCS,
    M_BASE,
    M_N_BASE,
    M_TEXT,
    M_N_TEXT,
    M_ENTRIES,
    M_N_ENTRIES,
) = range(18)
MODULE_COLUMNS = 18

STOP_NO_CALLER, STOP_END, STOP_BASE, STOP_LIMIT, STOP_NO_CONTEXT, STOP_NO_STACK = range(6)
"""Why a stack ended; STOP_END and STOP_BASE are true ends."""

_EXECUTE = 4
_STACK_DEPTH = 64
_EXPRESSION_FUEL = 1000


@kernel()
def _block_uleb(code, at, end):
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < 70:
        byte = np.uint64(code[at])
        at += 1
        if shift < 64:
            value |= (byte & np.uint64(0x7F)) << shift
        shift += np.uint64(7)
        if byte < 0x80:
            return value, at, shift, byte
    return np.uint64(0), end + 1, shift, np.uint64(0)


@kernel()
def _signed(value, word):
    """Return a word as a signed number."""
    if word == 4 and value & np.uint64(0x8000_0000):
        return np.int64(value) - np.int64(0x1_0000_0000)
    return np.int64(value)


@kernel()
def _evaluate(code, ref, cfa, has_cfa, regs, valid, word, start, end, offset, buffer):
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
    length, at, _, _ = _block_uleb(code, ref, limit)
    if at > limit or length > np.uint64(limit - at):
        return np.uint64(0), False
    stop = at + np.int64(length)
    begin = at
    n = 0
    if has_cfa:
        stack[0] = cfa
        n = 1
    for _ in range(_EXPRESSION_FUEL):
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
                register, at, _, _ = _block_uleb(code, at, stop)
            if at > stop or register >= WIDTH or not valid >> register & np.uint64(1):
                return np.uint64(0), False
            value, at, shift, last = _block_uleb(code, at, stop)
            if at > stop:
                return np.uint64(0), False
            if shift < 64 and last & np.uint64(0x40):
                value |= ~np.uint64(0) << shift
            value += regs[register]
            push = True
        elif op == 0x03 or 0x08 <= op <= 0x0F:  # DW_OP_addr, DW_OP_const1u .. const8s
            size = word if op == 0x03 else 1 << ((op - 0x08) >> 1)
            if at + size > stop:
                return np.uint64(0), False
            for k in range(size):
                value |= np.uint64(code[at + k]) << np.uint64(8 * k)
            at += size
            if op != 0x03 and op & 1 and size < 8 and value >> np.uint64(8 * size - 1):
                value |= ~np.uint64(0) << np.uint64(8 * size)
            push = True
        elif op == 0x10 or op == 0x11:  # DW_OP_constu, DW_OP_consts
            value, at, shift, last = _block_uleb(code, at, stop)
            if at > stop:
                return np.uint64(0), False
            if op == 0x11 and shift < 64 and last & np.uint64(0x40):
                value |= ~np.uint64(0) << shift
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
            loaded, ok = load(stack[n - 1], size, start, end, offset, buffer)
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
            value, at, _, _ = _block_uleb(code, at, stop)
            if at > stop or n < 1:
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


@kernel()
def _find(column, count, rva):
    """Return the last index with ``column[i] <= rva``, -1 for none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if column[middle] <= rva:
            low = middle + 1
        else:
            high = middle
    return low - 1


@kernel()
def _follows_call(address, kind, start, end, offset, buffer):
    """Say whether the instruction before an address is a call: 1 yes, 0 no, -1 where its bytes are not at hand."""
    if kind == CALL_X86:
        i = region(address - np.uint64(7), start, end)
        if i < 0 or end[i] < address:
            return -1
        at = offset[i] + np.int64(address - start[i])
        if buffer[at - 5] == 0xE8:  # call rel32
            return 1
        # call r/m (FF /2): the length follows from the ModRM byte; Intel SDM volume 2, table 2-2.
        for length in range(2, 8):
            if buffer[at - length] == 0xFF:
                modrm = np.int64(buffer[at - length + 1])
                if modrm & 0x38 != 0x10:
                    continue
                mode = modrm >> 6
                size = 2
                if mode != 3:
                    if modrm & 7 == 4:
                        size += 1
                        if mode == 0 and length >= 3 and buffer[at - length + 2] & 7 == 5:
                            size += 4
                    elif mode == 0 and modrm & 7 == 5:
                        size += 4
                    if mode == 1:
                        size += 1
                    elif mode == 2:
                        size += 4
                if size == length:
                    return 1
        return 0
    value, ok = load(address - np.uint64(4), 4, start, end, offset, buffer)
    if not ok:
        return -1
    if kind == CALL_ARM64:  # BL; BLR and its authenticating forms
        return 1 if value >> np.uint64(26) == 0x25 or value & np.uint64(0xFEFF_F000) == 0xD63F_0000 else 0
    return -1


@kernel()
def _executable(address, m, mod_start, modules, region_start, region_end, access):
    """Say whether an address in module ``m`` holds code, as far as the report or the module's sections tell."""
    if len(region_start):
        r = region(address, region_start, region_end)
        if r < 0 or not access[r] & _EXECUTE:
            return False
    columns = modules[m]
    if columns[M_N_TEXT] == 0:
        return True
    rva = address - mod_start[m]
    text = view_u32(columns[M_TEXT], 2 * columns[M_N_TEXT])
    for i in range(columns[M_N_TEXT]):
        if text[2 * i] <= rva < text[2 * i + 1]:
            return True
    return False


@kernel()
def _same_function(pc, other, m, mod_start, mod_end, modules):
    """Say whether two addresses are in one function of module ``m``; without known functions all of it is one."""
    if other < mod_start[m] or other >= mod_end[m]:
        return False
    columns = modules[m]
    count = columns[M_N_ENTRIES]
    if not count:
        return True
    entries = view_u32(columns[M_ENTRIES], count)
    return _find(entries, count, pc - mod_start[m]) == _find(entries, count, other - mod_start[m])


@kernel()
def _plausible(
    address, kind, mod_start, mod_end, modules, region_start, region_end, access, start, end, offset, buffer
):
    """Say whether a word found on a stack can be a return address: 2 follows a call, 1 can't be told, 0 no."""
    before = address - np.uint64(1)
    m = region(before, mod_start, mod_end)
    if m < 0:
        return 0
    if not _executable(before, m, mod_start, modules, region_start, region_end, access):
        return 0
    columns = modules[m]
    rva = before - mod_start[m]
    if columns[M_N_RANGES]:
        i = _find(view_u32(columns[M_RANGES], columns[M_N_RANGES]), columns[M_N_RANGES], rva)
        if i < 0 or view_u32(columns[M_LOCS], columns[M_N_RANGES])[i] == NO_RULE:
            return 0
    if columns[M_ROWS]:
        i = _find(view_u32(columns[M_RVA], columns[M_ROWS]), columns[M_ROWS], rva)
        if not columns[M_N_RANGES] and (i < 0 or view_u32(columns[M_RULE], columns[M_ROWS])[i] == NO_RULE):
            return 0
    called = _follows_call(address, kind, start, end, offset, buffer)
    if called >= 0:
        return 2 * called
    if columns[M_N_ENTRIES]:
        # Without code bytes: pointers to functions are common on stacks, a call as a function's very last instruction
        # with the next function right behind it is rare (linux-mini.dmp: main and __libc_csu_fini above libc's frame).
        entries = view_u32(columns[M_ENTRIES], columns[M_N_ENTRIES])
        i = _find(entries, columns[M_N_ENTRIES], rva + np.uint64(1))
        if i >= 0 and np.uint64(entries[i]) == rva + np.uint64(1):
            return 0
    return 1


@kernel()
def _apply(columns, rule_index, p, regs, valid, caller, start, end, offset, buffer):
    """Compute the caller's registers from a rule; returns (mask of known registers, ok)."""
    word = p[P_WORD]
    rules = view_i32(columns[M_RULES], columns[M_N_RULES] * 6)
    saved = view_i32(columns[M_SAVED], columns[M_N_SAVED] * 3)
    code = view_u8(columns[M_EXPR], columns[M_N_EXPR])
    at = np.int64(rule_index) * 6
    one = np.uint64(1)
    narrow = np.uint64(0xFFFF_FFFF) if word == 4 else ~np.uint64(0)
    cfa = np.uint64(0)
    if rules[at] == CFA_REG:
        if not 0 <= rules[at + 1] < WIDTH or not valid >> np.uint64(rules[at + 1]) & one:
            return np.uint64(0), False
        cfa = regs[rules[at + 1]] + np.uint64(np.int64(rules[at + 2]))
    elif rules[at] == CFA_EXPR:
        cfa, ok = _evaluate(code, rules[at + 2], cfa, False, regs, valid, word, start, end, offset, buffer)
        if not ok:
            return np.uint64(0), False
    else:
        return np.uint64(0), False
    cfa &= narrow
    flags = rules[at + 3]
    ra = np.int64(flags >> 8 & 0xFF)
    signal = flags & SIGNAL_FRAME
    keep = ~np.uint64(0) if signal else np.uint64(p[P_CALLEE_SAVED])
    known = valid & keep
    for r in range(WIDTH):
        caller[r] = regs[r]
    caller[p[P_SP]] = cfa
    known |= one << np.uint64(p[P_SP])
    got_ra = False
    first = np.int64(rules[at + 4])
    if first < 0 or first + rules[at + 5] > columns[M_N_SAVED]:
        return np.uint64(0), False
    for i in range(first, first + rules[at + 5]):
        r = np.int64(saved[3 * i])
        kind = saved[3 * i + 1]
        value = np.int64(saved[3 * i + 2])
        result = np.uint64(0)
        ok = True
        if r < 0 or r >= WIDTH:
            continue
        if kind == REG_OFFSET:
            result, ok = load((cfa + np.uint64(value)) & narrow, word, start, end, offset, buffer)
        elif kind == REG_VAL_OFFSET:
            result = (cfa + np.uint64(value)) & narrow
        elif kind == REG_REGISTER:
            ok = 0 <= value < WIDTH and (valid >> np.uint64(value) & one) != 0
            if ok:
                result = regs[value]
        elif kind in (REG_EXPR, REG_VAL_EXPR):
            result, ok = _evaluate(code, value, cfa, True, regs, valid, word, start, end, offset, buffer)
            if ok and kind == REG_EXPR:
                result, ok = load(result, word, start, end, offset, buffer)
        elif kind == REG_UNDEFINED:
            ok = False
        else:
            result = regs[r]
            ok = (valid >> np.uint64(r) & one) != 0
        if ok:
            caller[r] = result
            known |= one << np.uint64(r)
            if r == ra:
                got_ra = True
        else:
            known &= ~(one << np.uint64(r))
            if r == ra:
                return known, False
    if got_ra:
        caller[p[P_PC]] = caller[ra]
    else:
        # No rule for the return address: it is still in the link register (a leaf), or the rule is of no use.
        if p[P_LR] < 0 or ra >= WIDTH or not valid >> np.uint64(ra) & one:
            return known, False
        caller[p[P_PC]] = regs[ra]
    known |= one << np.uint64(p[P_PC])
    if p[P_LR] >= 0 and not signal and ra == p[P_LR]:
        # The caller's own link register was overwritten by its call; only its frame can tell it.
        known &= ~(one << np.uint64(ra))
    return known, True


_I64, _U64, _U32, _I32, _U8 = types.int64, types.uint64, types.uint32, types.int32, types.uint8
_RU64, _RU8, _RI64 = array(_U64, readonly=True), array(_U8, readonly=True), array(_I64, readonly=True)


@kernel(
    _I64(
        _RI64,  # p
        array(_U64, 2),  # thread_regs
        array(_U64),  # thread_valid
        _RU64,  # start
        _RU64,  # end
        _RI64,  # offset
        _RU8,  # buffer
        _RU64,  # region_start
        _RU64,  # region_end
        _RU8,  # access
        _RU64,  # mod_start
        _RU64,  # mod_end
        array(_I64, 2),  # modules
        _RI64,  # limits
        array(_I32),
        array(_U64),
        array(_U64),
        array(types.boolean),
        array(_I32),
        array(_U8),
        array(_U8),  # stops
    )
)
def _walk(
    p,
    thread_regs,
    thread_valid,
    start,
    end,
    offset,
    buffer,
    region_start,
    region_end,
    access,
    mod_start,
    mod_end,
    modules,
    limits,
    f_thread,
    f_pc,
    f_sp,
    f_return,
    f_module,
    f_trust,
    stops,
):
    """Fill the frame columns for every thread; returns how many frames there are.

    ``limits``: frames a thread, frames in all (the columns' length), words scanned, words scanned from a trusted frame.
    """
    word = p[P_WORD]
    size = np.uint64(word)
    one = np.uint64(1)
    mask = np.uint64(p[P_MASK])
    pc_bit = one << np.uint64(p[P_PC])
    sp_bit = one << np.uint64(p[P_SP])
    fp_bit = one << np.uint64(p[P_FP])
    regs = np.zeros(WIDTH, np.uint64)
    caller = np.zeros(WIDTH, np.uint64)
    n = 0
    for t in range(len(thread_regs)):
        regs[:] = thread_regs[t]
        valid = thread_valid[t]
        trust = TRUST_CONTEXT
        is_return = False
        stops[t] = STOP_NO_CONTEXT
        if not valid & pc_bit:
            continue
        for depth in range(limits[0] + 1):
            if depth >= limits[0] or n >= limits[1]:
                stops[t] = STOP_LIMIT
                break
            pc = regs[p[P_PC]]
            sp = regs[p[P_SP]]
            look = pc - one if is_return else pc
            m = region(look, mod_start, mod_end)
            f_thread[n] = t
            f_pc[n] = pc
            f_sp[n] = sp
            f_return[n] = is_return
            f_module[n] = m
            f_trust[n] = trust
            n += 1
            if not valid & sp_bit:
                stops[t] = STOP_NO_STACK
                break
            found = 0
            next_return = True
            known = np.uint64(0)
            covered = False
            if m >= 0:
                columns = modules[m]
                rva = look - mod_start[m]
                if columns[M_N_BASE]:
                    base = view_u32(columns[M_BASE], 2 * columns[M_N_BASE])
                    done = False
                    for b in range(columns[M_N_BASE]):
                        if base[2 * b] <= rva < base[2 * b + 1]:
                            done = True
                            break
                    if done:
                        stops[t] = STOP_BASE
                        break
                if columns[M_ROWS]:
                    i = _find(view_u32(columns[M_RVA], columns[M_ROWS]), columns[M_ROWS], rva)
                    if i >= 0:
                        rule = view_u32(columns[M_RULE], columns[M_ROWS])[i]
                        if rule != NO_RULE and np.int64(rule) < columns[M_N_RULES]:
                            covered = True
                            flags = view_i32(columns[M_RULES], columns[M_N_RULES] * 6)[np.int64(rule) * 6 + 3]
                            if flags & SIGNAL_FRAME:
                                # A trampoline is "returned to" at its first instruction: pc is exact.
                                f_return[n - 1] = False
                                next_return = False
                            if flags & END_OF_STACK:
                                stops[t] = STOP_END
                                break
                            known, ok = _apply(columns, rule, p, regs, valid, caller, start, end, offset, buffer)
                            if ok:
                                caller[p[P_PC]] &= mask
                                # A leaf on a link-register CPU has its caller's sp; nothing else may stand still.
                                moved = caller[p[P_SP]] > sp or (
                                    caller[p[P_SP]] == sp and p[P_LR] >= 0 and not is_return and caller[p[P_PC]] != pc
                                )
                                if not next_return:
                                    moved = True  # The handler may have run on a stack of its own.
                                if moved:
                                    found = TRUST_CFI
            if found and next_return and caller[p[P_PC]] < 4096:
                # Thread starts are entered with a return address of 0: a true end, if unwind information led here.
                stops[t] = STOP_END if caller[p[P_PC]] == 0 else STOP_NO_CALLER
                break
            if not found and not covered:
                known = interrupted(p[P_CALL], word, pc, sp, caller, start, end, offset, buffer)
                if known:
                    f_return[n - 1] = False
                    next_return = False
                    caller[p[P_PC]] &= mask
                    found = TRUST_CFI
            if not found and not is_return and not covered:
                # A call through a wild pointer, also one that a signal interrupted: nothing has run since, so the
                # return address is where the call put it and every register is still the caller's.
                wild = m < 0 or not _executable(pc, m, mod_start, modules, region_start, region_end, access)
                if wild:
                    target = np.uint64(0)
                    ok = False
                    if p[P_LR] < 0:
                        target, ok = load(sp, word, start, end, offset, buffer)
                    elif valid >> np.uint64(p[P_LR]) & one:
                        target, ok = regs[p[P_LR]], True
                    target &= mask
                    if ok and _plausible(
                        target,
                        p[P_CALL],
                        mod_start,
                        mod_end,
                        modules,
                        region_start,
                        region_end,
                        access,
                        start,
                        end,
                        offset,
                        buffer,
                    ):
                        caller[:] = regs
                        caller[p[P_PC]] = target
                        if p[P_LR] < 0:
                            caller[p[P_SP]] = sp + size
                        known = valid
                        found = TRUST_SCAN
                        next_return = True
            if not found and not is_return and not covered and m >= 0 and p[P_LR] >= 0:
                # A function that calls none keeps its return address in the link register. If it points into the same
                # function, a call was made from here; if it is in the frame record as well, the record tells more.
                target = regs[p[P_LR]] & mask
                leaf = (
                    valid >> np.uint64(p[P_LR]) & one != 0
                    and _executable(pc, m, mod_start, modules, region_start, region_end, access)
                    and not _same_function(pc, target - one, m, mod_start, mod_end, modules)
                )
                if leaf and p[P_FP_KIND] == FP_RECORD and valid & fp_bit:
                    record, ok = load(regs[p[P_FP]] + size, word, start, end, offset, buffer)
                    leaf = not (ok and record & mask == target)
                if leaf and _plausible(
                    target,
                    p[P_CALL],
                    mod_start,
                    mod_end,
                    modules,
                    region_start,
                    region_end,
                    access,
                    start,
                    end,
                    offset,
                    buffer,
                ):
                    caller[:] = regs
                    caller[p[P_PC]] = target
                    known = valid & ~(one << np.uint64(p[P_LR]))
                    found = TRUST_FP
                    next_return = True
            if not found and p[P_FP_KIND] == FP_RECORD and valid & fp_bit and not (covered and trust == TRUST_CFI):
                fp = regs[p[P_FP]]
                next_fp, ok = load(fp, word, start, end, offset, buffer)
                target, ok2 = load(fp + size, word, start, end, offset, buffer)
                if ok and ok2 and fp >= sp:
                    target &= mask
                    next_sp = fp + np.uint64(2) * size
                    chain = next_fp >= next_sp and region(next_fp, start, end) == region(fp, start, end)
                    if (chain or next_fp == 0) and _plausible(
                        target,
                        p[P_CALL],
                        mod_start,
                        mod_end,
                        modules,
                        region_start,
                        region_end,
                        access,
                        start,
                        end,
                        offset,
                        buffer,
                    ):
                        caller[:] = 0
                        caller[p[P_PC]] = target
                        caller[p[P_SP]] = next_sp
                        caller[p[P_FP]] = next_fp
                        known = pc_bit | sp_bit | fp_bit
                        found = TRUST_FP
                        next_return = True
            if not found:
                words = limits[3] if trust in (TRUST_CONTEXT, TRUST_CFI) else limits[2]
                if region(sp, start, end) < 0:
                    stops[t] = STOP_NO_STACK
                    break
                for i in range(words):
                    slot = sp + np.uint64(i) * size
                    target, ok = load(slot, word, start, end, offset, buffer)
                    if not ok:
                        break
                    target &= mask
                    if target < 4096 or not _plausible(
                        target,
                        p[P_CALL],
                        mod_start,
                        mod_end,
                        modules,
                        region_start,
                        region_end,
                        access,
                        start,
                        end,
                        offset,
                        buffer,
                    ):
                        continue
                    caller[:] = 0
                    caller[p[P_PC]] = target
                    caller[p[P_SP]] = slot + size
                    known = pc_bit | sp_bit
                    if valid & fp_bit:
                        fp = regs[p[P_FP]]
                        if fp == slot - size:
                            next_fp, ok = load(fp, word, start, end, offset, buffer)
                            if ok:
                                caller[p[P_FP]] = next_fp
                                known |= fp_bit
                        elif fp >= slot + size:
                            caller[p[P_FP]] = fp
                            known |= fp_bit
                    found = TRUST_SCAN
                    next_return = True
                    break
            if not found:
                stops[t] = STOP_NO_CALLER
                break
            regs[:] = caller
            valid = known
            trust = found
            is_return = next_return
    return n


def walk_stacks(
    parameters: NDArray[np.int64],
    registers: NDArray[np.uint64],
    valid: NDArray[np.uint64],
    memory: MemoryMap,
    regions: Regions | None,
    mod_start: NDArray[np.uint64],
    mod_end: NDArray[np.uint64],
    modules: NDArray[np.int64],
    *,
    max_frames: int,
    max_total: int,
    scan_words: int,
    scan_words_first: int,
) -> tuple[FrameTable, NDArray[np.uint8]]:
    """Unwind threads: ``registers`` u64[T, WIDTH] and ``valid`` u64[T] are each thread's starting point.

    ``mod_start``/``mod_end`` u64[M] are sorted and do not overlap; ``modules`` i64[M, MODULE_COLUMNS] holds the
    addresses and lengths of their tables' columns, which the caller keeps alive. Returns the frames (innermost first,
    thread by thread) and why each thread ended (STOP_*).
    """
    total = min(max_total, max(1, len(registers)) * max_frames)
    f_thread = np.empty(total, np.int32)
    f_pc = np.empty(total, np.uint64)
    f_sp = np.empty(total, np.uint64)
    f_return = np.empty(total, np.bool_)
    f_module = np.empty(total, np.int32)
    f_trust = np.empty(total, np.uint8)
    stops = np.zeros(len(registers), np.uint8)
    if regions is None:
        region_start = region_end = np.zeros(0, np.uint64)
        access = np.zeros(0, np.uint8)
    else:
        region_start, region_end, access = regions.start, regions.end, regions.access
    n = _walk(
        parameters,
        registers,
        valid,
        memory.start,
        memory.end,
        memory.offset,
        memory.buffer,
        region_start,
        region_end,
        access,
        mod_start,
        mod_end,
        modules,
        np.array([max_frames, total, scan_words, scan_words_first], np.int64),
        f_thread,
        f_pc,
        f_sp,
        f_return,
        f_module,
        f_trust,
        stops,
    )
    return FrameTable(f_thread[:n], f_pc[:n], f_sp[:n], f_return[:n], f_module[:n], f_trust[:n]), stops
