"""Code as the walker knows it: what is executable, what is one function, what can be a return address.

Kernels hand it on as one tuple: (start u64[m], end u64[m], columns i64[m, MODULE_COLUMNS]) of the modules and
(start u64[r], end u64[r], access u8[r]) of the report's memory regions, both sorted.
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel, view_u8, view_u32
from deadreckon.kernels._leb import QUAD, WORD, fixed
from deadreckon.kernels._memory import find, load, region
from deadreckon.kernels._signals import CALL_ARM64, CALL_X86
from deadreckon.model.tables import NO_RULE

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
    M_CODE,
    M_N_CODE,
    M_CODE_MAP,
    M_N_CODE_MAP,
) = range(22)
MODULE_COLUMNS = 22

_EXECUTE = 4
_HEADER = 64
"""Bytes at an image's start that are never code: its header's. A main thread's stack ends with AT_PHDR, which points to
what follows (microdump-arm.dmp, elfutils' aarch64 core; test_pointers_to_headers_are_no_callers)."""


@kernel()
def fetch(address, size, m, code, memory):
    """Return (little-endian word, True) of code: out of the report's memory, else out of the module's own file."""
    value, ok = load(address, size, memory)
    if ok:
        return value, True
    columns = code[2][m]
    rva = np.int64(address - code[0][m])
    sections = view_u32(columns[M_CODE_MAP], 3 * columns[M_N_CODE_MAP])
    for s in range(columns[M_N_CODE_MAP]):
        at = rva - np.int64(sections[3 * s])
        if at >= 0 and at + size <= np.int64(sections[3 * s + 1]):
            offset = np.int64(sections[3 * s + 2]) + at
            if offset + size <= columns[M_N_CODE]:
                return fixed(view_u8(columns[M_CODE], columns[M_N_CODE]), offset, size), True
    return np.uint64(0), False


@kernel()
def _follows_call(address, kind, m, code, memory):
    """Say whether the instruction before an address is a call: 1 yes, 0 no, -1 where its bytes are not at hand."""
    if kind == CALL_X86:
        before, ok = fetch(address - np.uint64(8), QUAD, m, code, memory)
        return _calls_x86(before) if ok else -1
    value, ok = fetch(address - np.uint64(4), WORD, m, code, memory)
    if not ok:
        return -1
    if kind == CALL_ARM64:  # BL; BLR and its authenticating forms
        return 1 if value >> np.uint64(26) == 0x25 or value & np.uint64(0xFEFF_F000) == 0xD63F_0000 else 0
    # Whether it is Thumb was in the bit that the mask took: BL and BLX (immediate, register), in either encoding.
    if value & np.uint64(0x0F00_0000) == 0x0B00_0000 or value & np.uint64(0xFE00_0000) == 0xFA00_0000:
        return 1
    if value & np.uint64(0x0FFF_FFF0) == 0x012F_FF30:
        return 1
    if value & np.uint64(0xC000_F800) == 0xC000_F000 or value >> np.uint64(16) & np.uint64(0xFF87) == 0x4780:
        return 1
    # Before ARMv5 a call through a pointer was "mov lr, pc" and a jump.
    previous, ok = fetch(address - np.uint64(8), WORD, m, code, memory)
    return 1 if ok and previous & np.uint64(0x0FFF_FFFF) == 0x01A0_E00F else 0


@kernel()
def _calls_x86(before):
    """Say whether the eight bytes before an address end in a call. Source: Intel SDM volume 2, CALL and table 2-2."""
    if before >> np.uint64(24) & np.uint64(0xFF) == 0xE8:  # call rel32
        return 1
    # call r/m (FF /2): the length follows from the ModRM byte.
    for length in range(2, 8):
        low = np.uint64(8 * (8 - length))
        if before >> low & np.uint64(0xFF) != 0xFF:
            continue
        modrm = np.int64(before >> (low + np.uint64(8)) & np.uint64(0xFF))
        if modrm & 0x38 != 0x10:
            continue
        mode = modrm >> 6
        size = 2
        if mode != 3:
            if modrm & 7 == 4:
                size += 1
                if mode == 0 and length >= 3 and np.int64(before >> (low + np.uint64(16))) & 7 == 5:
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


@kernel()
def may_execute(address, code):
    """Say whether the report's memory regions, where it has any, allow code at an address."""
    region_start, region_end, access = code[3], code[4], code[5]
    if not len(region_start):
        return True
    r = region(address, region_start, region_end)
    return r >= 0 and (access[r] & _EXECUTE) != 0


@kernel()
def follows_call(address, kind, code, memory):
    """Say whether a word is certainly a return address, whatever function that is in."""
    before = address - np.uint64(1)
    m = region(before, code[0], code[1])
    return m >= 0 and executable(before, m, code) and _follows_call(address, kind, m, code, memory) == 1


@kernel()
def executable(address, m, code):
    """Say whether an address in module ``m`` holds code, as far as the report or the module's sections tell."""
    mod_start, _, modules, _, _, _ = code
    if not may_execute(address, code):
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
def same_function(pc, other, m, code):
    """Say whether two addresses are in one function of module ``m``; without known functions all of it is one."""
    mod_start, mod_end, modules, _, _, _ = code
    if other < mod_start[m] or other >= mod_end[m]:
        return False
    columns = modules[m]
    count = columns[M_N_ENTRIES]
    if not count:
        return True
    entries = view_u32(columns[M_ENTRIES], count)
    return find(entries, count, pc - mod_start[m]) == find(entries, count, other - mod_start[m])


@kernel()
def plausible(address, kind, code, memory):
    """Say whether a word found on a stack can be a return address: 2 follows a call, 1 can't be told, 0 no."""
    mod_start, mod_end, modules, _, _, _ = code
    before = address - np.uint64(1)
    m = region(before, mod_start, mod_end)
    if m < 0:
        return 0
    if not executable(before, m, code):
        return 0
    columns = modules[m]
    rva = before - mod_start[m]
    if rva < _HEADER:
        return 0
    # A function has a name or an unwind rule; a stripped library has names for those it exports only.
    known = not columns[M_N_RANGES] and not columns[M_ROWS]
    if columns[M_N_RANGES]:
        i = find(view_u32(columns[M_RANGES], columns[M_N_RANGES]), columns[M_N_RANGES], rva)
        known = i >= 0 and view_u32(columns[M_LOCS], columns[M_N_RANGES])[i] != NO_RULE
    if not known and columns[M_ROWS]:
        i = find(view_u32(columns[M_RVA], columns[M_ROWS]), columns[M_ROWS], rva)
        known = i >= 0 and view_u32(columns[M_RULE], columns[M_ROWS])[i] != NO_RULE
    if not known:
        return 0
    called = _follows_call(address, kind, m, code, memory)
    if called >= 0:
        return 2 * called
    if columns[M_N_ENTRIES]:
        # Without code bytes: pointers to functions are common on stacks, a call as a function's very last instruction
        # with the next function right behind it is rare (linux-mini.dmp: main and __libc_csu_fini above libc's frame).
        entries = view_u32(columns[M_ENTRIES], columns[M_N_ENTRIES])
        i = find(entries, columns[M_N_ENTRIES], rva + np.uint64(1))
        if i >= 0 and np.uint64(entries[i]) == rva + np.uint64(1):
            return 0
    return 1
