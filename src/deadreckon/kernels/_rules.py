"""One unwind rule applied: the caller's registers from a frame's. Source: DWARF 5, 6.4.1 and 6.4.3."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._code import M_EXPR, M_N_EXPR, M_N_RULES, M_N_SAVED, M_RULES, M_SAVED
from deadreckon.kernels._expression import evaluate
from deadreckon.kernels._jit import kernel, view_i32, view_u8
from deadreckon.kernels._memory import load
from deadreckon.kernels._parameters import P_CALLEE_SAVED, P_LR, P_PC, P_SP, P_WORD
from deadreckon.model.registers import WIDTH
from deadreckon.model.tables import (
    CFA_EXPR,
    CFA_REG,
    REG_EXPR,
    REG_OFFSET,
    REG_REGISTER,
    REG_UNDEFINED,
    REG_VAL_EXPR,
    REG_VAL_OFFSET,
    SIGNAL_FRAME,
)

__all__ = ["apply"]


@kernel()
def apply(columns, rule_index, p, regs, valid, caller, memory):
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
        cfa, ok = evaluate(code, np.int64(rules[at + 2]), cfa, np.int64(0), regs, valid, word, memory)
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
            result, ok = load((cfa + np.uint64(value)) & narrow, word, memory)
        elif kind == REG_VAL_OFFSET:
            result = (cfa + np.uint64(value)) & narrow
        elif kind == REG_REGISTER:
            ok = 0 <= value < WIDTH and (valid >> np.uint64(value) & one) != 0
            if ok:
                result = regs[value]
        elif kind in (REG_EXPR, REG_VAL_EXPR):
            result, ok = evaluate(code, np.int64(value), cfa, np.int64(1), regs, valid, word, memory)
            if ok and kind == REG_EXPR:
                result, ok = load(result, word, memory)
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
