"""x86-64 unwind information of PE images: RUNTIME_FUNCTION and UNWIND_INFO to programs of rules.

Source: Microsoft "x64 exception handling" (unwind data, unwind codes, unwind procedure); epilogue codes (version 2)
and what a machine frame means to them as .NET's copy of the system's unwinder has it (dotnet/runtime
src/coreclr/unwinder/amd64). The codes say how to undo a prologue, last step first. Read from the end they say what it
did, and that is how it is followed here, with one rule for each step: distances from where the stack pointer was on
entry hold whatever happens below, which those from the stack pointer of the moment don't.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.tables import REG_EXPR, REG_OFFSET, REG_REGISTER, REG_UNDEFINED, SIGNAL_FRAME
from deadreckon.objects.rulebuilder import LAST_RVA, Spans, breg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.objects.pe import Headers
    from deadreckon.objects.rulebuilder import RuleBuilder, TableBuilder

__all__ = ["MAX_CHAIN", "lower"]

MAX_CHAIN = 32
"""Records that may continue each other; the system's limit too."""
_MAX_LINKS = 1 << 22
"""Records read because others continue them, in one image."""
_FLAG_CHAININFO = 4
_MAX_INFO = 4 + 2 * 255 + 1 + 12
_MOST_POPS = 15
_MAX_EPILOGUES = 1 << 21

(
    _PUSH_NONVOL,
    _ALLOC_LARGE,
    _ALLOC_SMALL,
    _SET_FPREG,
    _SAVE_NONVOL,
    _SAVE_NONVOL_FAR,
    _EPILOG,  # Version 2; in version 1 this and the next saved the low half of an XMM register.
    _SPARE,
    _SAVE_XMM128,
    _SAVE_XMM128_FAR,
    _PUSH_MACHFRAME,
) = range(11)
_SLOTS = (1, 2, 1, 1, 2, 3, 2, 3, 2, 3, 1)

_RSP, _RA = 7, 16
_DWARF = (0, 2, 1, 3, 7, 6, 4, 5, *range(8, 16))
"""DWARF numbers of rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 ..., which is the order of the instruction set."""
_KEPT = (4, 5)
"""Callee-saved on Windows but nowhere else: rsi and rdi. Rules say so, for the walker knows the other convention."""
_VOLATILE = (0, 1, 2, 8, 9, 10, 11)
_DEREF = b"\x06"


def lower(image: Headers, entries: NDArray[np.int64], work: TableBuilder) -> None:
    """Lower RUNTIME_FUNCTION entries, i64[n, 3]: start, end and address of the unwind information."""
    start, end = entries[:, 0], entries[:, 1]
    usable = np.flatnonzero((start > 0) & (start < end) & (end <= LAST_RVA))
    # Linkers sort, and who unwinds relies on it; but order is easily restored.
    entries = entries[usable[np.argsort(start[usable], kind="stable")]]
    entries = entries[np.append(True, np.diff(entries[:, 0]) != 0)[: len(entries)]]
    work.default = epilogue(work.rules, ())
    reader = _Reader(image, work)
    records, record = np.unique(entries[:, 2], return_inverse=True)
    lost = Prologue(work.missing, 0)
    prologues: list[Prologue] = []
    for address in records.tolist():
        try:
            prologues.append(reader.read(address))
        except (Malformed, LimitExceeded) as e:
            work.lost(e)
            prologues.append(lost)
    for (begin, stop, _), i in zip(entries.tolist(), record.tolist(), strict=True):
        found = prologues[i]
        work.functions.add(begin, stop, found.program)
        for distance in found.epilogues[: max(_MAX_EPILOGUES - len(work.epilogues), 0)]:
            at = stop - distance
            work.epilogues.add(max(at, begin), min(at + found.size, stop), found.leaving, origin=at)
    _look(image, entries, prologues, record, work)


def _look(
    image: Headers,
    entries: NDArray[np.int64],
    prologues: list[Prologue],
    record: NDArray[np.int64],
    work: TableBuilder,
) -> None:
    """Add the epilogues of functions with version 1 records, which are found in the code."""
    from deadreckon.kernels.pe import epilogues  # noqa: PLC0415  (numba, where there is code to look at)

    first = np.array([p.version for p in prologues], np.int64) == 1
    pushed = np.array([p.pushed for p in prologues], np.uint64)
    allocated = np.array([p.allocated for p in prologues], np.int64)
    start, end = entries[:, 0], np.minimum(entries[:, 1], np.append(entries[1:, 0], LAST_RVA)[: len(entries)])
    offset, low, high = image.offsets(start)
    size = np.minimum(end - start, high - offset)
    seen = np.flatnonzero(first[record] & (size > 0))
    most = int(size[seen].sum()) // 8 + 4096
    code = np.frombuffer(image.data, np.uint8)
    of = record[seen]
    offset, size, low, high, start = (column[seen] for column in (offset, size, low, high, start))
    rows = epilogues(code, offset, size, low, high, start, pushed[of], allocated[of], most)
    if rows is None:
        work.lost(LimitExceeded("instructions of epilogues", most))
        return
    rva, length, key = rows
    keys, which = np.unique(key, return_inverse=True)
    rules = [epilogue(work.rules, [k >> 4 * i & 15 for i in range(1, (k & 15) + 1)]) for k in keys.tolist()]
    work.found.append(Spans(rva, rva + length, np.array(rules, np.int64)[which]))


def epilogue(builder: RuleBuilder, pops: Sequence[int], *, flags: bool = False) -> int:
    """Return the rule before a number of pops (registers by instruction set number), and of the flags if they follow.

    What an epilogue has popped, and all that it doesn't, has its caller's value already.
    """
    depth = 8 * len(pops) + 8 * flags
    saved: dict[int, int | None] = {_DWARF[register]: 8 * i - depth - 8 for i, register in enumerate(pops)}
    return _plain(builder, (_RSP, depth + 8), saved)


def _plain(builder: RuleBuilder, cfa: tuple[int, int], saved: dict[int, int | None]) -> int:
    """Return the rule with registers saved at distances from the CFA, or lost."""
    rows = [
        (register, REG_UNDEFINED, 0) if offset is None else (register, REG_OFFSET, offset)
        for register, offset in sorted(saved.items())
    ]
    rows += [(register, REG_REGISTER, register) for register in _KEPT if register not in saved]
    return builder.rule(cfa, (*rows, (_RA, REG_OFFSET, -8)), ra=_RA)


@dataclass(frozen=True, slots=True)
class Prologue:
    """What unwind information comes to: a program with a rule for each offset at which something changes.

    Version 1: ``pushed`` and ``allocated`` as kernels/pe.py wants them. Version 2: the ``size`` of an epilogue,
    ``leaving`` the program of one, ``epilogues`` their distances from the function's end.
    """

    program: int
    version: int
    pushed: int = 0
    allocated: int = -1
    size: int = 0
    leaving: int = 0
    epilogues: tuple[int, ...] = ()


@dataclass(slots=True)
class _Steps:
    """How far a prologue has come. Distances are down from the anchor, where rsp was on entry."""

    depth: int = 0
    frame: tuple[int, int] | None = None  # (register by instruction set number, how far below the anchor it points)
    saved: dict[int, tuple[bool, int]] = field(default_factory=dict)  # register: (relative to the frame base?, where)
    machine: int | None = None  # 8 where an error code lies below the machine frame, else 0
    pushes: list[int] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)  # operations that moved rsp; _ALLOC_SMALL is one of 8 bytes here

    def head(self) -> list[int] | None:
        """Return what moved rsp before the pushes, None where something did between them."""
        if not self.pushes:
            return []
        first = self.moves.index(_PUSH_NONVOL)
        together = self.moves[first : first + len(self.pushes)] == [_PUSH_NONVOL] * len(self.pushes)
        return self.moves[:first] if together else None


class _Reader:
    """Lowers the records of one image; what several of them have in common, once."""

    def __init__(self, image: Headers, work: TableBuilder) -> None:
        self._image = image
        self._builder = work.rules
        self._programs = work.programs
        self._known: dict[tuple[bytes, ...], Prologue] = {}
        self._rules: dict[tuple[object, ...], int] = {}
        self._links = 0

    def read(self, address: int) -> Prologue:
        """Return what the record at an address says (one of another function's entry, if the address is odd).

        Raises Malformed, with the address as its offset, and LimitExceeded.
        """
        chain = self._chain(address)
        found = self._known.get(chain)
        if found is None:
            self._programs.room()
            found = self._known[chain] = self._lower(chain, address)
        return found

    def _chain(self, address: int) -> tuple[bytes, ...]:
        """Return header and codes of a record and of those that it continues."""
        found: list[bytes] = []
        at = address
        for link in range(MAX_CHAIN + 1):
            self._links += link > 0
            if self._links > _MAX_LINKS:
                raise LimitExceeded("chained records of an image", _MAX_LINKS)
            if at & 1:
                entry = self._image.at(at & ~1, 12)
                if len(entry) < 12:
                    raise Malformed("RUNTIME_FUNCTION", offset=at & ~1, expected="12 bytes", got=len(entry))
                at = int.from_bytes(entry[8:], "little")
                continue
            record = self._image.at(at, _MAX_INFO)
            codes = 4 + 2 * record[2] if len(record) >= 4 else 4
            if len(record) < codes:
                raise Malformed("UNWIND_INFO", offset=at, expected=f"{codes} bytes", got=len(record))
            if record[0] & 7 not in {1, 2}:
                raise Malformed("UNWIND_INFO version", offset=at, expected="1 or 2", got=record[0] & 7)
            found.append(record[:codes])
            if not record[0] >> 3 & _FLAG_CHAININFO:
                return tuple(found)
            entry = record[codes + 2 * (record[2] & 1) :][:12]
            if len(entry) < 12:
                raise Malformed("chained RUNTIME_FUNCTION", offset=at, expected="12 bytes", got=len(entry))
            at = int.from_bytes(entry[8:], "little")
        raise Malformed("UNWIND_INFO chain", offset=address, expected=f"at most {MAX_CHAIN} records", got="more")

    def _lower(self, chain: tuple[bytes, ...], address: int) -> Prologue:
        steps = _Steps()
        own, *parents = chain
        try:
            for record in reversed(parents):
                for _, operation, info, value in reversed(_operations(record)):
                    _step(steps, operation, info, value, record[3])
            program = self._programs.add(self._rows(steps, own))
            return self._first(program, steps) if own[0] & 7 == 1 else self._second(program, own, steps)
        except Malformed as e:
            raise Malformed(e.what, offset=address, expected=e.expected, got=e.got) from None

    def _rows(self, steps: _Steps, own: bytes) -> list[tuple[int, int]]:
        """Follow a function's own prologue, and return its rows."""
        rows = [(0, self._rule(steps, own))]
        for offset, operation, info, value in reversed(_operations(own)):
            if offset < rows[-1][0]:
                raise Malformed("UNWIND_CODE order", expected=f"offsets down to {rows[-1][0]}", got=offset)
            _step(steps, operation, info, value, own[3])
            if offset == rows[-1][0]:
                rows.pop()
            rows.append((offset, self._rule(steps, own)))
        return rows

    def _rule(self, steps: _Steps, own: bytes) -> int:
        """Return the rule for a prologue that has come this far."""
        # Saves count from the frame base: rsp, or what the frame register was set from (FrameBase of the system's).
        base: int | None = steps.depth
        if own[3] & 15 and (steps.frame is not None or own[0] >> 3 & _FLAG_CHAININFO):
            matching = steps.frame is not None and steps.frame[0] == own[3] & 15
            base = steps.frame[1] + (own[3] >> 4) * 16 if steps.frame is not None and matching else None
        key = (steps.frame, steps.depth, base, steps.machine, *steps.saved.items())
        found = self._rules.get(key)
        if found is None:
            found = self._rules[key] = self._described(steps, base)
        return found

    def _described(self, steps: _Steps, base: int | None) -> int:
        where: dict[int, int | None] = {}
        for number, (relative, distance) in steps.saved.items():
            where[_DWARF[number]] = -distance if not relative else None if base is None else distance - base
        register, offset = (_RSP, steps.depth) if steps.frame is None else (_DWARF[steps.frame[0]], steps.frame[1])
        if steps.machine is None:
            below = {r: None if slot is None else slot - 8 for r, slot in where.items()}
            return _plain(self._builder, (register, offset + 8), below)
        # The processor pushed ss, rsp, rflags, cs, rip and perhaps an error code: all registers were a stranger's.
        rows: list[tuple[int, int, int | bytes]] = [
            (r, REG_UNDEFINED, 0) if slot is None else (r, REG_EXPR, breg(register, offset + slot))
            for r, slot in sorted(where.items())
        ]
        rows += [(r, REG_UNDEFINED, 0) for r in _VOLATILE if r not in where]
        rip = offset + steps.machine
        rows.append((_RA, REG_EXPR, breg(register, rip)))
        cfa = breg(register, rip + 24) + _DEREF
        return self._builder.rule(cfa, rows, ra=_RA, flags=SIGNAL_FRAME)

    @staticmethod
    def _first(program: int, steps: _Steps) -> Prologue:
        """Say what an epilogue has to undo, where that is one allocation at most and then pops."""
        if steps.head() != [] or steps.machine is not None or len(steps.pushes) > _MOST_POPS:
            return Prologue(program, 1)
        key = len(steps.pushes)
        for i, register in enumerate(reversed(steps.pushes)):
            key |= register << 4 * (i + 1)
        return Prologue(program, 1, key, steps.depth - 8 * len(steps.pushes))

    def _second(self, program: int, own: bytes, steps: _Steps) -> Prologue:
        """Add epilogues. The first code has their size; each other one the distance of an epilogue."""
        slots = [struct.unpack_from("<BB", own, at) for at in range(4, len(own), 2)]
        first = next((i for i, (_, code) in enumerate(slots) if code & 15 != _EPILOG), len(slots))
        if not first:
            return Prologue(program, 2)
        size, code = slots[0]
        distances = [size] if code >> 4 & 1 else []
        for low, code in slots[1:first]:
            if low | code >> 4 == 0:
                break  # Padding: these codes come in pairs.
            distances.append(low | code >> 4 << 8)
        # Pops mirror the pushes, the flags' push (an allocation of 8) before them, and a machine frame before that.
        head = steps.head()
        if not size or head not in ([], [_ALLOC_SMALL], [_PUSH_MACHFRAME], [_PUSH_MACHFRAME, _ALLOC_SMALL]):
            raise Malformed("UWOP_EPILOG", expected="pushes that an epilogue can mirror", got=f"operations {head}")
        flags = _ALLOC_SMALL in head
        pops = list(reversed(steps.pushes))
        leaving: list[tuple[int, int]] = []
        at = 0
        for i in range(len(pops) + flags + 1):
            leaving.append((at, self._leaving(pops[i:], steps, flags=flags and i <= len(pops))))
            at += 2 if i < len(pops) and pops[i] >= 8 else 1
        return Prologue(program, 2, size=size, leaving=self._programs.add(leaving), epilogues=tuple(distances))

    def _leaving(self, pops: list[int], steps: _Steps, *, flags: bool) -> int:
        if steps.machine is None:
            return epilogue(self._builder, pops, flags=flags)
        # An error code is gone by the time of iretq, and so is everything below the frame.
        below = 8 * len(pops) + 8 * flags
        rows = [(_DWARF[register], REG_EXPR, breg(_RSP, 8 * i)) for i, register in enumerate(pops)]
        rows.append((_RA, REG_EXPR, breg(_RSP, below)))
        return self._builder.rule(breg(_RSP, below + 24) + _DEREF, rows, ra=_RA, flags=SIGNAL_FRAME)


def _operations(record: bytes) -> list[tuple[int, int, int, int]]:
    """Return (offset in the prologue, operation, info, operand) of each unwind code, in their order in the record."""
    count = record[2]
    found: list[tuple[int, int, int, int]] = []
    i = 0
    while i < count:
        offset, code = record[4 + 2 * i], record[5 + 2 * i]
        operation, info = code & 15, code >> 4
        if operation > _PUSH_MACHFRAME:
            raise Malformed("UNWIND_CODE", expected="an operation up to 10", got=operation)
        slots = 3 if operation == _ALLOC_LARGE and info else _SLOTS[operation]
        if i + slots > count:
            raise Malformed("UNWIND_CODE", expected=f"{slots} slots", got=count - i)
        operand = int.from_bytes(record[6 + 2 * i : 4 + 2 * (i + slots)], "little")
        if operation not in {_EPILOG, _SPARE}:
            found.append((offset, operation, info, operand))
        i += slots
    return found


def _step(steps: _Steps, operation: int, info: int, operand: int, frame: int) -> None:
    """Follow one operation; ``frame`` is the record's frame register and offset."""
    if steps.machine is not None and operation == _PUSH_MACHFRAME:
        raise Malformed("UWOP_PUSH_MACHFRAME", expected="one", got="two")
    if operation in {_PUSH_NONVOL, _SAVE_NONVOL, _SAVE_NONVOL_FAR} and _DWARF[info] == _RSP:
        raise Malformed("UNWIND_CODE", expected="a register other than rsp", got=info)
    # Of two saves of a register the first one has the caller's value.
    if operation == _PUSH_NONVOL:
        steps.depth += 8
        steps.pushes.append(info)
        steps.saved.setdefault(info, (False, steps.depth))
    elif operation == _ALLOC_SMALL:
        steps.depth += 8 * info + 8
    elif operation == _ALLOC_LARGE:
        steps.depth += operand if info else 8 * operand
    elif operation == _SET_FPREG:
        if not frame & 15 or _DWARF[frame & 15] == _RSP:
            raise Malformed("UWOP_SET_FPREG", expected="a frame register", got=frame & 15)
        steps.frame = frame & 15, steps.depth - (frame >> 4) * 16
    elif operation == _SAVE_NONVOL:
        steps.saved.setdefault(info, (True, 8 * operand))
    elif operation == _SAVE_NONVOL_FAR:
        steps.saved.setdefault(info, (True, operand))
    elif operation == _PUSH_MACHFRAME:
        if steps.depth or steps.saved or info > 1:
            raise Malformed("UWOP_PUSH_MACHFRAME", expected="the first operation of a prologue", got="a later one")
        steps.machine = 8 * info
    if operation in {_PUSH_NONVOL, _ALLOC_SMALL, _ALLOC_LARGE, _PUSH_MACHFRAME}:
        steps.moves.append(_ALLOC_LARGE if operation == _ALLOC_SMALL and info else operation)
