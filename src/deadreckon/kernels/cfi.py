"""Call frame information: ``.eh_frame`` and ``.debug_frame`` to the columns of a RuleTable.

Sources: DWARF 5 section 6.4 (call frame information) and 7.24 (its encoding); "DWARF for the Arm 64-bit Architecture"
(``DW_CFA_AARCH64_negate_ra_state``). The oracle is pyelftools' own table decoder (tests/kernels/test_cfi.py).

``_records.scan`` finds the CIEs and FDEs; the programs of the FDEs run here, in address order. A program that
contradicts the format costs the rest of its function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, copy, kernel
from deadreckon.kernels._leb import fixed, sleb, uleb
from deadreckon.kernels._records import (
    CIE_CODE,
    CIE_DATA,
    CIE_FLAGS,
    CIE_FROM,
    CIE_RA,
    CIE_TO,
    FDE_CIE,
    FDE_END,
    FDE_FROM,
    FDE_START,
    FDE_TO,
    scan,
)
from deadreckon.model.tables import (
    CFA_EXPR,
    CFA_NONE,
    CFA_REG,
    END_OF_STACK,
    NO_RULE,
    REG_EXPR,
    REG_OFFSET,
    REG_REGISTER,
    REG_SAME,
    REG_UNDEFINED,
    REG_VAL_EXPR,
    REG_VAL_OFFSET,
    SIGNED_RA,
    RuleTable,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["rules_from_frames"]

_REGISTERS = 34
_STATES = 32  # DW_CFA_remember_state nests one deep in what compilers write.
_STATE = _REGISTERS * 2 + 4  # kinds, values, then cfa_kind, cfa_reg, cfa_offset, signed

_BYTES = array(types.uint8, readonly=True)
_I64, _U32, _I32, _U8 = types.int64, types.uint32, types.int32, types.uint8

_MAX_I32 = 0x7FFF_FFFF
_ROWS_FULL, _RULES_FULL = -1, -2


@kernel()
def _run(data, at, end, cie, state, initial, stack, location, limit, out, fuel):
    """Run call frame instructions until the next row is complete.

    ``out`` receives (next offset, next location, depth of the state stack, fuel left, expressions reach). Returns 1
    when a location was advanced (a row is complete), 0 at the end of the program, -1 where the program is malformed.
    """
    code_align = cie[CIE_CODE]
    data_align = cie[CIE_DATA]
    cfa = 2 * _REGISTERS
    depth = out[2]
    result = 0
    while at < end:
        fuel -= 1
        if fuel < 0:
            result = -1
            break
        op = np.int64(data[at])
        at += 1
        high = op >> 6
        advance = np.int64(-1)
        if high == 1:  # DW_CFA_advance_loc
            advance = (op & 0x3F) * code_align
        elif high == 2:  # DW_CFA_offset
            value, at = uleb(data, at, end)
            register = op & 0x3F
            if register < _REGISTERS:
                state[register] = REG_OFFSET
                state[_REGISTERS + register] = value * data_align
        elif high == 3:  # DW_CFA_restore
            register = op & 0x3F
            if register < _REGISTERS:
                state[register] = initial[register]
                state[_REGISTERS + register] = initial[_REGISTERS + register]
        elif op == 0x00:  # DW_CFA_nop
            pass
        elif op == 0x01:  # DW_CFA_set_loc: an absolute address, which nothing writes in .eh_frame
            result = -1
            break
        elif op == 0x02 or op == 0x03 or op == 0x04 or op == 0x1D:  # DW_CFA_advance_loc1/2/4, MIPS_advance_loc8
            size = 1 << (op - 2) if op != 0x1D else 8
            if at + size > end:
                result = -1
                break
            advance = np.int64(fixed(data, at, size)) * code_align
            at += size
            if advance < 0:
                result = -1
                break
        elif op == 0x0A:  # DW_CFA_remember_state
            if depth >= _STATES:
                result = -1
                break
            copy(stack[depth], state)
            depth += 1
        elif op == 0x0B:  # DW_CFA_restore_state
            if depth == 0:
                result = -1
                break
            depth -= 1
            copy(state, stack[depth])
        elif op == 0x2D or op == 0x2C:  # DW_CFA_AARCH64_negate_ra_state(_with_pc); on SPARC: GNU_window_save
            state[cfa + 3] ^= 1
        elif (op == 0x0D or op == 0x0E or op == 0x13) and state[cfa] != CFA_REG:
            # Half a rule, valid only where a register and an offset are in force (DWARF 5, 6.4.2.2).
            result = -1
            break
        elif op == 0x0E:  # DW_CFA_def_cfa_offset
            state[cfa + 2], at = uleb(data, at, end)
        elif op == 0x13:  # DW_CFA_def_cfa_offset_sf
            value, at = sleb(data, at, end)
            state[cfa + 2] = value * data_align
        elif op == 0x0F:  # DW_CFA_def_cfa_expression
            state[cfa] = CFA_EXPR
            state[cfa + 2] = at
            length, at = uleb(data, at, end)
            at = at + length if at >= 0 and 0 <= length <= end - at else -1
        elif op == 0x2E:  # DW_CFA_GNU_args_size
            _, at = uleb(data, at, end)
        else:
            register, at = uleb(data, at, end)
            if at < 0:
                result = -1
                break
            known = 0 <= register < _REGISTERS
            kind = np.int64(-1)
            value = np.int64(0)
            if op == 0x05:  # DW_CFA_offset_extended
                value, at = uleb(data, at, end)
                kind = REG_OFFSET
                value *= data_align
            elif op == 0x06:  # DW_CFA_restore_extended
                if known:
                    kind = initial[register]
                    value = initial[_REGISTERS + register]
            elif op == 0x07:  # DW_CFA_undefined
                kind = REG_UNDEFINED
            elif op == 0x08:  # DW_CFA_same_value
                kind = REG_SAME
            elif op == 0x09:  # DW_CFA_register
                value, at = uleb(data, at, end)
                kind = REG_REGISTER
            elif op == 0x0C:  # DW_CFA_def_cfa
                state[cfa] = CFA_REG
                state[cfa + 1] = register
                state[cfa + 2], at = uleb(data, at, end)
            elif op == 0x0D:  # DW_CFA_def_cfa_register
                state[cfa + 1] = register
            elif op == 0x10 or op == 0x16:  # DW_CFA_expression, DW_CFA_val_expression
                kind = REG_EXPR if op == 0x10 else REG_VAL_EXPR
                value = at
                length, at = uleb(data, at, end)
                at = at + length if at >= 0 and 0 <= length <= end - at else -1
            elif op == 0x11 or op == 0x15:  # DW_CFA_offset_extended_sf, DW_CFA_val_offset_sf
                value, at = sleb(data, at, end)
                kind = REG_OFFSET if op == 0x11 else REG_VAL_OFFSET
                value *= data_align
            elif op == 0x12:  # DW_CFA_def_cfa_sf
                state[cfa] = CFA_REG
                state[cfa + 1] = register
                value, at = sleb(data, at, end)
                state[cfa + 2] = value * data_align
            elif op == 0x14:  # DW_CFA_val_offset
                value, at = uleb(data, at, end)
                kind = REG_VAL_OFFSET
                value *= data_align
            elif op == 0x2F:  # DW_CFA_GNU_negative_offset_extended
                value, at = uleb(data, at, end)
                kind = REG_OFFSET
                value *= -data_align
            else:
                result = -1
                break
            if known and kind >= 0:
                state[register] = kind
                state[_REGISTERS + register] = value
        if at < 0:
            result = -1
            break
        if advance > 0:
            if advance > limit - location:
                location = limit
                break
            location += advance
            result = 1
            break
    out[0] = at
    out[1] = location
    out[2] = depth
    out[3] = fuel
    return result


@kernel()
def _expression(data, at, blob, used, copied):
    """Copy a DWARF block (its length included) into ``blob``; returns (its reference, bytes used).

    ``_run`` has checked the block. Each is copied once however many rows it is part of, so ``blob`` needs no more
    room than the section.
    """
    if copied[at] >= 0:
        return np.int64(copied[at]), used
    length, body = uleb(data, at, len(data))
    total = body + length - at
    # The PLT has one expression for thousands of rows: look among the last ones before adding another.
    back = used
    for _ in range(16):
        back -= total
        if back < 0:
            break
        same = True
        for i in range(total):
            if blob[back + i] != data[at + i]:
                same = False
                break
        if same:
            copied[at] = back
            return back, used
    for i in range(total):
        blob[used + i] = data[at + i]
    copied[at] = used
    return used, used + total


@kernel(
    _I64(
        _BYTES,
        array(_I64, 2),
        array(_I64, 2),
        _I64,
        array(_U32),
        array(_U32),
        array(_I32, 2),
        array(_I32, 2),
        array(_U8),
        array(_I32),
        array(_I32),
        _I64,
        array(_I64),
    ),
    allocates=True,
)
def _lower(data, cies, fdes, image_base, rva, rule, rules, saved, blob, copied, table, fuel, counts):
    """Run every FDE (sorted by start) and fill the columns; ``counts`` receives rows, rules, saved, blob bytes used.

    ``blob`` is as long as ``data``; ``copied`` too, and receives each expression's place in it. ``table`` is a hash
    table of rules (-1 where free), its length a power of two. Returns 0, or a negative code when a column is too short.
    """
    copied[:] = -1
    n_rows = n_rules = n_saved = used = 0
    state = np.zeros(_STATE, np.int64)
    initial = np.zeros(_STATE, np.int64)
    stack = np.zeros((_STATES, _STATE), np.int64)
    out = np.zeros(5, np.int64)
    current = np.zeros((_REGISTERS, 3), np.int32)
    cfa = 2 * _REGISTERS
    mask = np.uint64(len(table) - 1)
    previous_end = np.int64(0)
    last_cie = np.int64(-1)
    usable = False
    last_rule = np.int64(NO_RULE)
    for f in range(len(fdes)):
        start = fdes[f, FDE_START]
        limit = fdes[f, FDE_END]
        cie = cies[fdes[f, FDE_CIE]]
        if start < image_base or limit - image_base > 0xFFFF_FFFE or limit <= previous_end:
            continue
        if fdes[f, FDE_CIE] != last_cie:
            last_cie = fdes[f, FDE_CIE]
            state[:] = 0
            initial[:] = 0
            out[2] = 0
            at = cie[CIE_FROM]
            while True:
                code = _run(data, at, cie[CIE_TO], cie, state, initial, stack, np.int64(0), np.int64(1), out, fuel)
                fuel = out[3]
                if code != 1:
                    break
                at = out[0]
            copy(initial, state)
            usable = code == 0
        if not usable:
            continue  # Without its common part a function's program means something else.
        copy(state, initial)
        out[2] = 0
        at = fdes[f, FDE_FROM]
        end = fdes[f, FDE_TO]
        location = start
        if n_rows and previous_end < start and last_rule != NO_RULE:
            if n_rows >= len(rva):
                return _ROWS_FULL
            rva[n_rows] = previous_end - image_base
            rule[n_rows] = NO_RULE
            last_rule = NO_RULE
            n_rows += 1
        while True:
            code = _run(data, at, end, cie, state, initial, stack, location, limit, out, fuel)
            fuel = out[3]
            at = out[0]
            reached = out[1] if code == 1 else limit
            if code < 0:
                state[cfa] = (
                    CFA_NONE  # What follows a malformed instruction is unknown: a missing rule, not a wrong one.
                )
            if reached > previous_end and reached > location:
                # Describe the state as a rule.
                flags = cie[CIE_FLAGS] | (cie[CIE_RA] & 0xFF) << 8
                if state[cfa + 3]:
                    flags |= SIGNED_RA
                n_current = 0
                valid = state[cfa] != CFA_NONE and 0 <= cie[CIE_RA] < _REGISTERS
                cfa_offset = state[cfa + 2]
                if valid and state[cfa] == CFA_EXPR:
                    cfa_offset, used = _expression(data, state[cfa + 2], blob, used, copied)
                elif not 0 <= state[cfa + 1] < _REGISTERS:
                    valid = False
                if not -_MAX_I32 <= cfa_offset <= _MAX_I32:
                    valid = False
                for r in range(_REGISTERS if valid else 0):
                    kind = state[r]
                    if kind == REG_SAME:
                        continue
                    value = state[_REGISTERS + r]
                    if kind in (REG_EXPR, REG_VAL_EXPR):
                        value, used = _expression(data, value, blob, used, copied)
                    if kind == REG_UNDEFINED:
                        value = 0
                        if r == cie[CIE_RA]:
                            flags |= END_OF_STACK
                    if not -_MAX_I32 <= value <= _MAX_I32:
                        kind = REG_UNDEFINED
                        value = 0
                    current[n_current, 0] = r
                    current[n_current, 1] = kind
                    current[n_current, 2] = value
                    n_current += 1
                index = np.int64(NO_RULE)
                if valid:
                    digest = np.uint64(0xCBF2_9CE4_8422_2325)
                    prime = np.uint64(0x100_0000_01B3)
                    digest = (digest ^ np.uint64(state[cfa] | state[cfa + 1] << 8)) * prime
                    digest = (digest ^ np.uint64(cfa_offset)) * prime
                    digest = (digest ^ np.uint64(flags)) * prime
                    for i in range(n_current):
                        digest = (digest ^ np.uint64(np.int64(current[i, 0]) << 40)) * prime
                        digest = (digest ^ np.uint64(np.int64(current[i, 1]) << 32)) * prime
                        digest = (digest ^ np.uint64(np.int64(current[i, 2]))) * prime
                    slot = (digest ^ digest >> np.uint64(29)) & mask
                    while True:
                        found = np.int64(table[slot])
                        if found < 0:
                            if n_rules >= len(rules) or 2 * n_rules >= len(table) or n_saved + n_current > len(saved):
                                return _RULES_FULL
                            table[slot] = n_rules
                            rules[n_rules, 0] = state[cfa]
                            rules[n_rules, 1] = state[cfa + 1] if state[cfa] == CFA_REG else 0
                            rules[n_rules, 2] = cfa_offset
                            rules[n_rules, 3] = flags
                            rules[n_rules, 4] = n_saved
                            rules[n_rules, 5] = n_current
                            for i in range(n_current):
                                copy(saved[n_saved + i], current[i])
                            n_saved += n_current
                            index = np.int64(n_rules)
                            n_rules += 1
                            break
                        equal = (
                            rules[found, 0] == state[cfa]
                            and (state[cfa] != CFA_REG or rules[found, 1] == state[cfa + 1])
                            and rules[found, 2] == cfa_offset
                            and rules[found, 3] == flags
                            and rules[found, 5] == n_current
                        )
                        if equal:
                            at_saved = rules[found, 4]
                            for i in range(n_current):
                                if (
                                    saved[at_saved + i, 0] != current[i, 0]
                                    or saved[at_saved + i, 1] != current[i, 1]
                                    or saved[at_saved + i, 2] != current[i, 2]
                                ):
                                    equal = False
                                    break
                        if equal:
                            index = found
                            break
                        slot = (slot + np.uint64(1)) & mask
                if index != last_rule:
                    if n_rows >= len(rva):
                        return _ROWS_FULL
                    rva[n_rows] = max(location, previous_end) - image_base
                    rule[n_rows] = index
                    last_rule = index
                    n_rows += 1
            location = reached
            if code != 1:
                break
        previous_end = limit
    if n_rows and last_rule != NO_RULE:
        if n_rows >= len(rva):
            return _ROWS_FULL
        rva[n_rows] = previous_end - image_base
        rule[n_rows] = NO_RULE
        n_rows += 1
    counts[0] = n_rows
    counts[1] = n_rules
    counts[2] = n_saved
    counts[3] = used
    return 0


def rules_from_frames(
    data: NDArray[np.uint8],
    *,
    is_eh: bool,
    section_addr: int,
    image_base: int,
    pointer_size: int,
    text_addr: int = 0,
    data_addr: int = 0,
) -> RuleTable:
    """Decode a whole ``.eh_frame`` (``is_eh``) or ``.debug_frame`` section, u8[n], into a RuleTable.

    Addresses are the file's own (unrelocated); rows are relative to ``image_base``. Malformed records are skipped,
    so hostile bytes give fewer rows, never an error.
    """
    data = np.ascontiguousarray(data)
    size = len(data)
    # The shortest record is a length, an id and, for an FDE, two addresses of two bytes.
    cies = np.zeros((min(size // 12 + 1, 65_536), 10), np.int64)
    fdes = np.zeros((size // 12 + 1, 5), np.int64)
    counts = np.zeros(4, np.int64)
    scan(data, section_addr, text_addr, data_addr, pointer_size, is_eh, cies, fdes, counts)
    fdes = fdes[: counts[1]]
    fdes = np.ascontiguousarray(fdes[np.argsort(fdes[:, FDE_START], kind="stable")])
    # A row takes an instruction that advances and one that changes a rule; an FDE adds its start and its end.
    n_rows = size // 2 + 2 * len(fdes) + 2
    rva = np.empty(n_rows, np.uint32)
    rule = np.empty(n_rows, np.uint32)
    blob = np.empty(size, np.uint8)
    copied = np.empty(size, np.int32)
    capacity = 1 << 14
    while True:
        rules = np.empty((capacity, 6), np.int32)
        saved = np.empty((capacity * 8, 3), np.int32)
        table = np.full(capacity * 2, -1, np.int32)
        # Instructions run are linear in the section, but a long CIE program counts once for each run of its FDEs.
        fuel = 64 * size + 4096
        code = _lower(data, cies, fdes, image_base, rva, rule, rules, saved, blob, copied, table, fuel, counts)
        if code != _RULES_FULL or capacity > 4 * n_rows:
            break
        capacity *= 4
    if code != 0:
        return RuleTable.empty()
    return RuleTable(
        rva[: counts[0]].copy(),
        rule[: counts[0]].copy(),
        rules[: counts[1]].copy(),
        saved[: counts[2]].copy(),
        blob[: counts[3]].copy(),
    )
