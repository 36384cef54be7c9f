"""From a RawCrash and its modules' tables to the frames of all its threads, in one kernel call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.model.ids import Arch
from deadreckon.model.registers import WIDTH
from deadreckon.model.tables import TRUST_PREWALKED, CodeTable, FrameTable, RuleTable, SymTable
from deadreckon.telemetry import staged
from deadreckon.unwind import amd64, arm, arm64, x86

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.config import UnwindLimits
    from deadreckon.model.crash import Module, RawCrash, RawFrame

__all__ = ["ARCHITECTURES", "STOPS", "Tables", "Walk", "modules_on_stacks", "reported_frames", "unwind"]

ARCHITECTURES = {Arch.X86: x86, Arch.X86_64: amd64, Arch.ARM: arm, Arch.ARM64: arm64}

STOPS = (
    "no plausible caller",
    "end of stack",
    "base function",
    "frame limit",
    "no register context",
    "stack memory not in the report",
)
"""Why a thread's stack ended, by kernels/unwind.py's STOP_ number."""

_MAX_STACK_WORDS = 1 << 17

Tables = tuple[SymTable, RuleTable, CodeTable]


class Walk(NamedTuple):
    """The frames of a crash's threads, and how they were found.

    ``stops``: why each thread's stack ended, one of STOPS. ``decisions`` i64[n, 2]: what was tried for the caller of
    each of the first n frames, as kernels/unwind.py notes it.
    """

    frames: FrameTable
    stops: list[str]
    decisions: NDArray[np.int64]


def modules_on_stacks(crash: RawCrash) -> NDArray[np.int64]:
    """Return the indexes of the modules that any program counter or stack word points into.

    Only their tables can matter, and a program of 400 modules has a few dozen of them on its stacks.
    """
    words: list[NDArray[np.uint64]] = []
    memory = crash.memory
    size = crash.arch.word_size
    for thread in crash.threads:
        if thread.registers is None:
            continue
        words.append(thread.registers.values)
        sp = thread.registers.sp
        if sp is None or not len(memory.start):
            continue
        i = int(np.searchsorted(memory.start, np.uint64(sp), side="right")) - 1
        if i < 0 or sp >= int(memory.end[i]):
            continue
        at = int(memory.offset[i]) + sp - int(memory.start[i])
        count = min((int(memory.end[i]) - sp) // size, _MAX_STACK_WORDS)
        block = memory.buffer[at : at + count * size]
        words.append(block.view(np.uint64) if size == 8 else block.view(np.uint32).astype(np.uint64))
    words += [np.array([f.instruction_addr or 0 for f in listed], np.uint64) for _, listed in _listed(crash)]
    if not words or not crash.modules:
        return np.zeros(0, np.int64)
    start, end, order = _spans(crash.modules)
    found = np.concatenate(words)
    if crash.arch in ARCHITECTURES:
        found = found & np.uint64(ARCHITECTURES[crash.arch].address_mask(crash))
    found = found[(found >= start[0]) & (found <= end.max())]  # Most words are no pointers at all.
    at_module = start.searchsorted(found, side="right") - 1
    hit = np.zeros(len(crash.modules), np.bool_)
    hit[order[at_module[found <= end[at_module]]]] = True
    return np.flatnonzero(hit)


def _spans(modules: Sequence[Module]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    start = np.array([m.image_addr for m in modules], np.uint64)
    end = np.array([min(m.end, 0xFFFF_FFFF_FFFF_FFFF) for m in modules], np.uint64)
    order = np.argsort(start, kind="stable")
    return start[order], end[order], order.astype(np.int64)


@staged("unwind")
def unwind(crash: RawCrash, tables: Sequence[Tables | None], limits: UnwindLimits) -> Walk:
    """Walk all threads, each innermost frame first, in the threads' order.

    ``tables[i]`` belongs to ``crash.modules[i]``. Stacks that the report itself lists keep their frames, with trust
    ``prewalked``; they are the table's last rows, in the order of ``reported_frames``, and an exception's stack has
    the number of threads plus the exception's own as its thread.
    """
    from deadreckon.kernels import unwind as kernel  # noqa: PLC0415  (numba is loaded when a stack is walked)

    start, end, order = _spans(crash.modules)
    columns = np.zeros((len(crash.modules), kernel.MODULE_COLUMNS), np.int64)
    for row, index in enumerate(order.tolist()):
        pair = tables[index]
        if pair is not None:
            columns[row] = module_columns(*pair)
    rows = [i for i, t in enumerate(crash.threads) if t.registers is not None and not t.frames]
    registers = np.zeros((len(rows), WIDTH), np.uint64)
    valid = np.zeros(len(rows), np.uint64)
    for row, i in enumerate(rows):
        held = crash.threads[i].registers
        if held is not None:
            registers[row] = held.values
            valid[row] = held.valid
    stops = ["no register context"] * len(crash.threads)
    frames = FrameTable.empty()
    decisions = np.zeros((0, 2), np.int64)
    rules = ARCHITECTURES.get(crash.arch)
    if rules is not None and rows:
        frames, codes, decisions = kernel.walk_stacks(
            rules.RULES.parameters(rules.address_mask(crash), strict=rules is amd64 and crash.os_name == "Windows"),
            rules.RULES.chain_rows(),
            registers,
            valid,
            crash.memory,
            crash.regions,
            start,
            end,
            columns,
            max_frames=limits.max_frames,
            max_total=limits.max_total_frames,
            scan_words=limits.scan_words,
            scan_words_first=limits.scan_words_first,
            scan_words_calls=limits.scan_words_calls,
        )
        for row, code in zip(rows, codes.tolist(), strict=True):
            stops[row] = STOPS[code]
        frames.thread = np.array(rows, np.int32)[frames.thread]
        known = frames.module >= 0
        frames.module[known] = order[frames.module[known]]
    prewalked = _listed(crash)
    if prewalked:
        frames = FrameTable.concatenate(
            [frames, *(_prewalked(n, listed, start, end, order) for n, listed in prewalked)]
        )
    for number, thread in enumerate(crash.threads):
        if thread.frames:
            stops[number] = "end of stack"
    return Walk(frames, stops, decisions)


def _listed(crash: RawCrash) -> list[tuple[int, list[RawFrame]]]:
    stacks = [*(t.frames for t in crash.threads), *(e.frames for e in crash.exceptions)]
    return [(number, frames) for number, frames in enumerate(stacks) if frames]


def reported_frames(crash: RawCrash) -> list[RawFrame]:
    """Return the frames that the report itself lists: its threads' first, then its exceptions'."""
    return [frame for _, listed in _listed(crash) for frame in listed]


def module_columns(sym: SymTable, rules: RuleTable, code: CodeTable) -> list[int]:
    """Return a module's row for the kernel: addresses and lengths of its tables' columns.

    The tables must be kept alive while the row is in use.
    """
    from deadreckon.kernels._jit import address_of  # noqa: PLC0415

    return [
        address_of(rules.rva),
        len(rules.rva),
        address_of(rules.rule),
        address_of(rules.rules),
        len(rules.rules),
        address_of(rules.saved),
        len(rules.saved),
        address_of(rules.expr),
        len(rules.expr),
        address_of(sym.range_start),
        len(sym.range_start),
        address_of(sym.range_loc),
        address_of(sym.base),
        len(sym.base),
        address_of(sym.text),
        len(sym.text),
        address_of(sym.entries),
        len(sym.entries),
        address_of(code.data),
        len(code.data),
        address_of(code.map),
        len(code.map),
    ]


def _prewalked(
    thread: int,
    listed: list[RawFrame],
    start: NDArray[np.uint64],
    end: NDArray[np.uint64],
    order: NDArray[np.int64],
) -> FrameTable:
    pc = np.array([f.instruction_addr or 0 for f in listed], np.uint64)
    is_return = np.array([f.is_return_address for f in listed], np.bool_)
    module = np.full(len(listed), -1, np.int32)
    if len(start):
        row = np.searchsorted(start, pc - is_return.astype(np.uint64), side="right") - 1
        inside = (row >= 0) & (pc - is_return.astype(np.uint64) < end[np.maximum(row, 0)])
        inside &= np.array([f.instruction_addr is not None for f in listed], np.bool_)
        module[inside] = order[row[inside]]
    n = len(listed)
    return FrameTable(
        np.full(n, thread, np.int32),
        pc,
        np.zeros(n, np.uint64),
        is_return,
        module,
        np.full(n, TRUST_PREWALKED, np.uint8),
    )
