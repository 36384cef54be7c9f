"""Walk the stacks of many threads in one call: unwind rules, frame pointers, scanning.

The architecture is data (``unwind/amd64.py`` and its neighbours fill the parameters), so is each module (addresses
and lengths of its tables' columns), so is memory. For each frame, in this order:

1. cfi            the module's RuleTable has a rule for the address; or the code there returns from a signal handler
2. scan           pc is no code: a call through a wild pointer, whose return address is where calls put it
3. frame_pointer  pc is exact and in a function that made no call: the link register; else what the function's first
                  instructions saved (ARM); else the ABI's chain of frames
4. scan           the next word on the stack that can be a return address

A thread ends where its unwind information says so (undefined return address), at a function above which no caller
exists (SymTable.base), or where nothing plausible is found. Sources: DWARF 5 section 6.4.3 (applying rules) and 2.5
(expressions); the ABI documents named in unwind/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._chain import CHAIN_END, CHAIN_FOUND, follow, link
from deadreckon.kernels._code import (
    M_BASE,
    M_N_BASE,
    M_N_RULES,
    M_ROWS,
    M_RULE,
    M_RULES,
    M_RVA,
    MODULE_COLUMNS,
    executable,
    plausible,
    same_function,
)
from deadreckon.kernels._epilogue import run_epilogue
from deadreckon.kernels._jit import array, copy, kernel, view_i32, view_u32
from deadreckon.kernels._memory import find, load, region
from deadreckon.kernels._parameters import (
    P_CALL,
    P_LR,
    P_MASK,
    P_PC,
    P_SP,
    P_WORD,
)
from deadreckon.kernels._prologue import undo_prologue
from deadreckon.kernels._rules import apply
from deadreckon.kernels._scan import search
from deadreckon.kernels._signals import CALL_ARM, CALL_X86, interrupted
from deadreckon.model.registers import WIDTH
from deadreckon.model.tables import (
    CALLEE_PARAMETERS,
    END_OF_STACK,
    NO_RULE,
    SEARCHED_RA,
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
    "NOTE_CALL",
    "NOTE_CHAIN",
    "NOTE_EPILOGUE",
    "NOTE_LEAF",
    "NOTE_PROLOGUE",
    "NOTE_RULE",
    "NOTE_RULE_FAILED",
    "NOTE_STUCK",
    "NOTE_TRAMPOLINE",
    "NOTE_WILD",
    "NOTE_WORDS",
    "STOP_BASE",
    "STOP_END",
    "STOP_LIMIT",
    "STOP_NO_CALLER",
    "STOP_NO_CONTEXT",
    "STOP_NO_STACK",
    "walk_stacks",
]

NOTE_CHAIN, NOTE_WORDS = 8, 16
(
    NOTE_RULE,
    NOTE_RULE_FAILED,
    NOTE_STUCK,
    NOTE_TRAMPOLINE,
    NOTE_WILD,
    NOTE_LEAF,
    NOTE_CALL,
    NOTE_PROLOGUE,
) = (1 << i for i in range(8))
NOTE_EPILOGUE = 1 << 12
"""What was tried for a frame's caller, as bits; in bits 8 to 11 a CHAIN_ code, from bit 16 the words scanned."""

STOP_NO_CALLER, STOP_END, STOP_BASE, STOP_LIMIT, STOP_NO_CONTEXT, STOP_NO_STACK = range(6)
"""Why a stack ended; STOP_END and STOP_BASE are true ends."""


_I64, _U64, _U32, _I32, _U8 = types.int64, types.uint64, types.uint32, types.int32, types.uint8
_RU64, _RU8, _RI64 = array(_U64, readonly=True), array(_U8, readonly=True), array(_I64, readonly=True)


@kernel(
    _I64(
        _RI64,  # p
        array(_I64, 2),  # chains
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
        array(_I64, 2),  # decisions
        array(_U8),  # stops
    ),
    allocates=True,
)
def _walk(
    p,
    chains,
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
    decisions,
    stops,
):
    """Fill the frame columns for every thread; returns how many frames there are.

    ``limits``: frames a thread, frames in all (the columns' length), words scanned, words scanned from a trusted
    frame, words scanned for a call.
    """
    memory = (start, end, offset, buffer)
    code = (mod_start, mod_end, modules, region_start, region_end, access)
    word = p[P_WORD]
    size = np.uint64(word)
    one = np.uint64(1)
    mask = np.uint64(p[P_MASK])
    pc_bit = one << np.uint64(p[P_PC])
    sp_bit = one << np.uint64(p[P_SP])
    regs = np.zeros(WIDTH, np.uint64)
    caller = np.zeros(WIDTH, np.uint64)
    n = 0
    for t in range(len(thread_regs)):
        copy(regs, thread_regs[t])
        valid = thread_valid[t]
        trust = TRUST_CONTEXT
        is_return = False
        chained = np.int64(0)
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
            decisions[n, 0] = -1
            decisions[n, 1] = 0
            n += 1
            if not valid & sp_bit:
                stops[t] = STOP_NO_STACK
                break
            if p[P_CALL] == CALL_X86 and word == 4 and not valid >> np.uint64(CALLEE_PARAMETERS) & one:
                # Nothing says what was passed to the frame above: nothing was.
                regs[CALLEE_PARAMETERS] = 0
                valid |= one << np.uint64(CALLEE_PARAMETERS)
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
                if not is_return and p[P_CALL] == CALL_X86 and word == 4:
                    known = run_epilogue(p, m, regs, valid, caller, code, memory)
                    if known and caller[p[P_SP]] > sp:
                        found = TRUST_CFI
                        decisions[n - 1, 1] |= NOTE_EPILOGUE
                if columns[M_ROWS] and not found:
                    i = find(view_u32(columns[M_RVA], columns[M_ROWS]), columns[M_ROWS], rva)
                    if i >= 0:
                        rule = view_u32(columns[M_RULE], columns[M_ROWS])[i]
                        if rule != NO_RULE and np.int64(rule) < columns[M_N_RULES]:
                            covered = True
                            decisions[n - 1, 0] = i
                            decisions[n - 1, 1] |= NOTE_RULE
                            flags = view_i32(columns[M_RULES], columns[M_N_RULES] * 6)[np.int64(rule) * 6 + 3]
                            if flags & SIGNAL_FRAME:
                                # A trampoline is "returned to" at its first instruction: pc is exact.
                                f_return[n - 1] = False
                                next_return = False
                            if flags & END_OF_STACK:
                                stops[t] = STOP_END
                                break
                            known, ok = apply(columns, rule, p, regs, valid, caller, memory)
                            if ok and flags & SEARCHED_RA:
                                # Pushed arguments that the record does not count lie below the return address.
                                for _ in range(3):
                                    if not ok or plausible(caller[p[P_PC]], p[P_CALL], code, memory):
                                        break
                                    regs[CALLEE_PARAMETERS] += size
                                    known, ok = apply(columns, rule, p, regs, valid, caller, memory)
                                ok = ok and plausible(caller[p[P_PC]], p[P_CALL], code, memory) > 0
                            if not ok:
                                decisions[n - 1, 1] |= NOTE_RULE_FAILED
                            else:
                                caller[p[P_PC]] &= mask
                                # A leaf on a link-register CPU has its caller's sp; nothing else may stand still.
                                moved = caller[p[P_SP]] > sp or (
                                    caller[p[P_SP]] == sp and p[P_LR] >= 0 and not is_return and caller[p[P_PC]] != pc
                                )
                                if not next_return:
                                    moved = True  # The handler may have run on a stack of its own.
                                if moved:
                                    found = TRUST_CFI
                                else:
                                    decisions[n - 1, 1] |= NOTE_STUCK
            if found and next_return and caller[p[P_PC]] < 4096:
                # Thread starts are entered with a return address of 0: a true end, if unwind information led here.
                stops[t] = STOP_END if caller[p[P_PC]] == 0 else STOP_NO_CALLER
                break
            if not found and not covered:
                known = interrupted(p[P_CALL], word, pc, sp, caller, memory)
                if known:
                    f_return[n - 1] = False
                    next_return = False
                    caller[p[P_PC]] &= mask
                    found = TRUST_CFI
                    decisions[n - 1, 1] |= NOTE_TRAMPOLINE
            if not found and not is_return and not covered:
                # Nothing was called from here yet, so every register is still the caller's and the return address is
                # where the call put it. That is sure of a pc that is no code: a call through a wild pointer.
                wild = m < 0 or not executable(pc, m, code)
                target = np.uint64(0)
                ok = False
                if p[P_LR] >= 0:
                    target = regs[p[P_LR]] & mask
                    ok = valid >> np.uint64(p[P_LR]) & one != 0
                    if not wild:
                        # A link register that points into the same function is left from a call made here; one that
                        # is in the frame record as well was saved, and the record tells more.
                        ok = ok and not same_function(pc, target - one, m, code)
                        for c in range(len(chains)):
                            if ok and valid >> np.uint64(chains[c, 0]) & one:
                                _, record, saved = link(regs[chains[c, 0]], chains[c], p, memory)
                                ok = not (saved and record == target)
                elif wild:
                    target, ok = load(sp, word, memory)
                    target &= mask
                if ok and plausible(target, p[P_CALL], code, memory):
                    copy(caller, regs)
                    caller[p[P_PC]] = target
                    if p[P_LR] < 0:
                        caller[p[P_SP]] = sp + size
                    known = valid if wild else valid & ~(one << np.uint64(p[P_LR]))
                    found = TRUST_SCAN if wild else TRUST_FP
                    decisions[n - 1, 1] |= NOTE_WILD if wild else NOTE_LEAF
                    next_return = True
            if not found and not covered and m >= 0 and p[P_CALL] == CALL_ARM:
                known = undo_prologue(p, m, regs, valid, caller, code, memory)
                if known and caller[p[P_SP]] > sp:
                    found = TRUST_FP
                    next_return = True
                    decisions[n - 1, 1] |= NOTE_PROLOGUE
            linked = False
            if not found and not (covered and trust == TRUST_CFI):
                known, outcome = follow(p, chains, regs, valid, chained, caller, code, memory)
                decisions[n - 1, 1] |= outcome << NOTE_CHAIN
                if outcome == CHAIN_END and not covered:
                    stops[t] = STOP_END
                    break
                if outcome == CHAIN_FOUND:
                    linked = True
                    found = TRUST_FP
                    next_return = True
            if not found:
                if region(sp, start, end) < 0:
                    stops[t] = STOP_NO_STACK
                    break
                words = limits[3] if trust in (TRUST_CONTEXT, TRUST_CFI) else limits[2]
                known, looked, called = search(
                    p, chains, regs, valid, trust == TRUST_CONTEXT, words, limits[4], caller, code, memory
                )
                decisions[n - 1, 1] |= looked << NOTE_WORDS
                if known:
                    decisions[n - 1, 1] |= NOTE_CALL * called
                    found = TRUST_SCAN
                    next_return = True
            if not found:
                stops[t] = STOP_NO_CALLER
                break
            copy(regs, caller)
            valid = known
            trust = found
            chained = np.int64(linked)
            is_return = next_return
    return n


def walk_stacks(
    parameters: NDArray[np.int64],
    chains: NDArray[np.int64],
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
    scan_words_calls: int,
) -> tuple[FrameTable, NDArray[np.uint8], NDArray[np.int64]]:
    """Unwind threads: ``registers`` u64[T, WIDTH] and ``valid`` u64[T] are each thread's starting point.

    ``chains`` i64[C, 4]: frame-pointer conventions (_chain.py).
    ``mod_start``/``mod_end`` u64[M] are sorted and do not overlap; ``modules`` i64[M, MODULE_COLUMNS] holds the
    addresses and lengths of their tables' columns, which the caller keeps alive. Returns the frames (innermost first,
    thread by thread), why each thread ended (STOP_*), and for each frame i64[2] of how its caller was looked for: the
    row of its module's RuleTable (-1 none) and NOTE_ bits.
    """
    total = min(max_total, max(1, len(registers)) * max_frames)
    f_thread = np.empty(total, np.int32)
    f_pc = np.empty(total, np.uint64)
    f_sp = np.empty(total, np.uint64)
    f_return = np.empty(total, np.bool_)
    f_module = np.empty(total, np.int32)
    f_trust = np.empty(total, np.uint8)
    decisions = np.empty((total, 2), np.int64)
    stops = np.zeros(len(registers), np.uint8)
    if regions is None:
        region_start = region_end = np.zeros(0, np.uint64)
        access = np.zeros(0, np.uint8)
    else:
        region_start, region_end, access = regions.start, regions.end, regions.access
    n = _walk(
        parameters,
        chains,
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
        np.array([max_frames, total, scan_words, scan_words_first, scan_words_calls], np.int64),
        f_thread,
        f_pc,
        f_sp,
        f_return,
        f_module,
        f_trust,
        decisions,
        stops,
    )
    frames = FrameTable(f_thread[:n], f_pc[:n], f_sp[:n], f_return[:n], f_module[:n], f_trust[:n])
    return frames, stops, decisions[:n]
