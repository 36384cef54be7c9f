"""ARM exception tables (``.ARM.exidx``, ``.ARM.extab``) to a RuleTable.

Source: ARM IHI 0038, "Exception Handling ABI for the Arm Architecture", sections 6 (index), 7 (table entries), 10.2
(compact model) and 10.3 (unwind instructions). 32-bit ARM code of Android and of many embedded systems has no other
unwind information.

An index entry says where a function starts and either holds three unwind instructions, or points to a longer
sequence, or says that no exception passes through the function. The instructions undo a whole prologue: they hold for
the function's body. At a function's first instruction nothing has been pushed, so that one address has a rule of its
own, as have those of the prologues and epilogues that ehabi_code.py can tell; they can't be mistaken for return
addresses, because look-ups of those are odd (``pc - 1``).

EXIDX_CANTUNWIND is no end of the stack: compilers write it for every C function made without unwind tables, and
linkers where an object file has none. Such a function has no rule.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.tables import NO_RULE, REG_EXPR, REG_OFFSET, SIGNAL_FRAME, RuleTable
from deadreckon.objects import ehabi_code
from deadreckon.objects.rulebuilder import LAST_RVA, RuleBuilder, Spans, breg, overlay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["ExceptionTables", "read", "unwound"]

_R7, _SP, _LR, _PC = 7, 13, 14, 15
_CANTUNWIND = 1
_INLINE = 0x8000_0000
_POINTER = 1 << 33
"""Added to the address of a table entry, to tell it from an entry of the index's own."""
_MAX_ENTRIES = 1 << 22
_MAX_DISTINCT = 1 << 18
"""Distinct words of the index, each of which takes Python some microseconds. A browser's 100 MB have about 60,000."""
_MAX_INDIRECTIONS = 4
"""How often ``vsp`` may be taken from a register that was itself read from the stack."""
_MAX_OFFSET = 1 << 30
_MAX_KINDS = 8


@dataclass(slots=True)
class ExceptionTables:
    """Where an image has its exception tables; addresses are the image's own.

    ``index``: the bytes of ``.ARM.exidx``, at ``address``; ``data``: (address, bytes) of the sections it may point
    into. ``text`` u32[n, 2]: where there is code, and ``starts`` u32[m]: where functions are known to start, both
    relative to ``base``. ``code``: (address, bytes) of the sections with code, as far as they are at hand.
    """

    index: bytes
    address: int
    data: list[tuple[int, bytes]] = field(default_factory=list)
    text: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    starts: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    base: int = 0
    code: list[tuple[int, bytes]] = field(default_factory=list)

    def at(self, address: int, size: int) -> bytes:
        """Return bytes by address. Raises Malformed where no section has them all."""
        for start, data in self.data:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise Malformed(".ARM.extab", offset=address, expected=f"{size} bytes in a section")


def read(tables: ExceptionTables) -> tuple[RuleTable, list[str]]:
    """Return the rules, and one message for each kind of thing that was lost.

    A function whose entry is damaged, or has an instruction that is reserved or unknown, has no rule, which costs it
    and no other one.
    """
    problems: dict[str, str] = {}
    words = np.frombuffer(tables.index, "<u4", len(tables.index) // 8 * 2).reshape(-1, 2)
    if len(words) > _MAX_ENTRIES:
        problems["entries"] = str(LimitExceeded("entries of .ARM.exidx", _MAX_ENTRIES, len(words)))
        words = words[:_MAX_ENTRIES]
    place = tables.address + 8 * np.arange(len(words), dtype=np.int64)
    damaged = words[:, 0] >= _INLINE
    if damaged.any():
        first = int(np.argmax(damaged))
        word = f"{words[first, 0]:#x}"
        problems["index"] = str(Malformed(".ARM.exidx", offset=8 * first, expected="an offset of 31 bits", got=word))
    builder = RuleBuilder()
    rule, what = _rules(tables, words[:, 1], place + 4, builder, problems)
    # Bit 0 says Thumb, where a relocation was written against a function's symbol.
    start = (place + _prel31(words[:, 0]) & 0xFFFF_FFFE) - tables.base
    rule = np.where(damaged, NO_RULE, rule)
    what[damaged] = None
    rows = _rows(start, rule, what, tables, builder)
    return builder.table(*rows), list(problems.values())[:_MAX_KINDS]


def _prel31(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the signed offsets that 31 bits of a word hold."""
    offsets = words.astype(np.int64) & 0x7FFF_FFFF
    return offsets - (offsets >> 30 << 31)


def _rules(
    tables: ExceptionTables,
    words: NDArray[np.uint32],
    place: NDArray[np.int64],
    builder: RuleBuilder,
    problems: dict[str, str],
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return each entry's rule from its second word, at ``place``, and what it does (None if it is no function's)."""
    targets = np.where(words < _INLINE, (place + _prel31(words) & 0xFFFF_FFFF) + _POINTER, words.astype(np.int64))
    targets[words == _CANTUNWIND] = _CANTUNWIND
    distinct, which = np.unique(targets, return_inverse=True)
    found = np.full(len(distinct), NO_RULE, np.int64)
    what = np.full(len(distinct), None, np.object_)
    known: dict[bytes, tuple[int, Unwound | None]] = {}
    for i, target in enumerate(distinct.tolist()):
        if i >= _MAX_DISTINCT:
            problems["distinct"] = str(LimitExceeded("distinct entries of .ARM.exidx", _MAX_DISTINCT, len(distinct)))
            break
        if target == _CANTUNWIND:
            continue
        try:
            codes = _inline(target) if target < _POINTER else _table_entry(tables, target - _POINTER)
        except Malformed as e:
            problems.setdefault(e.what, str(e))
            continue
        if codes not in known:
            known[codes] = _lower(codes, builder)
        found[i], done = known[codes]
        what[i : i + 1] = [done]
    return found[which], what[which]


def _inline(word: int) -> bytes:
    """Return the unwind instructions that an index entry holds itself. Raises Malformed."""
    if word >> 24 != 0x80:
        raise Malformed(".ARM.exidx entry", expected="personality routine 0", got=f"{word:#010x}")
    return word.to_bytes(4, "big")[1:]


def _table_entry(tables: ExceptionTables, address: int) -> bytes:
    """Return the unwind instructions of a table entry. Raises Malformed.

    Behind a personality routine of a language's own (bit 31 clear) the assembler's ``.personality`` directive puts
    them as in the compact models, with the count of further words in the first byte.
    """
    (word,) = struct.unpack("<I", tables.at(address, 4))
    if word < _INLINE:
        address += 4
        (word,) = struct.unpack("<I", tables.at(address, 4))
        more, used = word >> 24, 1
    elif word >> 24 == 0x80:
        more, used = 0, 1
    elif word >> 24 in {0x81, 0x82}:
        more, used = word >> 16 & 0xFF, 2
    else:
        raise Malformed(".ARM.extab entry", offset=address, expected="personality routine 0 to 2", got=f"{word:#010x}")
    rest = struct.unpack(f"<{more}I", tables.at(address + 4, 4 * more))
    return struct.pack(f">{more + 1}I", word, *rest)[used:]


class _Place(NamedTuple):
    """An address: a register, or the value of a DWARF expression, plus an offset."""

    base: int | bytes
    offset: int

    def code(self) -> bytes:
        """Return the DWARF expression that computes it."""
        if isinstance(self.base, int):
            return breg(self.base, self.offset)
        return self.base + b"\x0d" + struct.pack("<i", self.offset) + b"\x22"  # DW_OP_const4s, DW_OP_plus


@dataclass(frozen=True, slots=True)
class Unwound:
    """What a sequence of unwind instructions does: the caller's sp, and where registers were saved."""

    vsp: _Place
    saved: dict[int, _Place]


def unwound(codes: bytes) -> Unwound | None:
    """Run unwind instructions; None where they refuse, or hold a reserved or unknown one.

    VFP and WMMX registers only move ``vsp``; no rule is kept for them.
    """
    vsp = _Place(_SP, 0)
    saved: dict[int, _Place] = {}
    indirections = 0
    at = 0
    while at < len(codes):
        code = codes[at]
        operand = codes[at + 1] if at + 1 < len(codes) else None
        at += 1
        mask = 0
        if code < 0x80:
            step = (code & 0x3F) * 4 + 4
            vsp = vsp._replace(offset=vsp.offset + (step if code < 0x40 else -step))
        elif code < 0x90:
            if operand is None:
                return None
            mask = ((code & 0xF) << 8 | operand) << 4
            at += 1
            if not mask:
                return None  # Refuse to unwind.
        elif code < 0xA0:
            register = code & 0xF
            if register in {_SP, _PC}:
                return None  # Reserved for moves between registers.
            vsp = _Place(register, 0)
            if register in saved:
                vsp = _Place(saved[register].code() + b"\x06", 0)  # DW_OP_deref
                indirections += 1
        elif code < 0xB0:
            mask = ((2 << (code & 7)) - 1) << 4 | (1 << _LR if code & 8 else 0)
        elif code == 0xB0:
            break
        elif code == 0xB1:
            if operand is None or not 0 < operand < 0x10:
                return None
            mask = operand
            at += 1
        elif code == 0xB2:
            value = shift = 0
            while True:
                if at >= len(codes) or shift > 28:
                    return None
                value |= (codes[at] & 0x7F) << shift
                shift += 7
                at += 1
                if codes[at - 1] < 0x80:
                    break
            vsp = vsp._replace(offset=vsp.offset + 0x204 + value * 4)
        else:
            size, length = _coprocessor(code, operand)
            if not size:
                return None
            vsp = vsp._replace(offset=vsp.offset + size)
            at += length - 1
        if mask:
            vsp = _pop(mask, vsp, saved)
            indirections += mask >> _SP & 1
        if indirections > _MAX_INDIRECTIONS or not -_MAX_OFFSET <= vsp.offset <= _MAX_OFFSET:
            return None
    return Unwound(vsp, saved)


def _pop(mask: int, vsp: _Place, saved: dict[int, _Place]) -> _Place:
    for register in range(16):
        if mask >> register & 1:
            saved[register] = vsp
            vsp = vsp._replace(offset=vsp.offset + 4)
    popped = saved.pop(_SP, None)
    return vsp if popped is None else _Place(popped.code() + b"\x06", 0)


def _coprocessor(code: int, operand: int | None) -> tuple[int, int]:
    """Return how far an instruction from 0xb3 on moves ``vsp``, and its length; (0, 0) if it is none."""
    count = (code & 7) + 1
    if code == 0xB4:
        return 4, 1  # The return address's authentication code, which stands beside lr.
    if 0xB8 <= code <= 0xBF:
        return 8 * count + 4, 1  # FSTMFDX keeps a word for its format.
    if 0xC0 <= code <= 0xC5 or 0xD0 <= code <= 0xD7:
        return 8 * count, 1
    if operand is None:
        return 0, 0
    first, count = operand >> 4, (operand & 0xF) + 1
    if code == 0xB3 and first + count <= 16:
        return 8 * count + 4, 2
    if (code in {0xC6, 0xC8} and first + count <= 16) or code == 0xC9:
        return 8 * count, 2
    if code == 0xC7 and 0 < operand < 0x10:
        return 4 * operand.bit_count(), 2
    return 0, 0


def _lower(codes: bytes, builder: RuleBuilder) -> tuple[int, Unwound | None]:
    """Return the rule of a sequence and, if it is a function's, what it does."""
    result = unwound(codes)
    if result is None:
        return NO_RULE, None
    vsp, saved = result.vsp, result.saved
    entries: Iterable[tuple[int, int, int | bytes]] = (
        (r, REG_OFFSET, place.offset - vsp.offset) if place.base == vsp.base else (r, REG_EXPR, place.code())
        for r, place in saved.items()
    )
    cfa = (vsp.base, vsp.offset) if isinstance(vsp.base, int) else vsp.code()
    # The trampoline that a signal handler returns to describes the whole context on its stack (Android's __restore).
    # Nothing calls it, so that it has no first instruction of a function.
    trampoline = len(saved) == 15 and _SP not in saved
    # Without a rule of its own the return address is still in lr ("finish" copies r14 to r15).
    rule = builder.rule(cfa, entries, ra=_PC if _PC in saved else _LR, flags=SIGNAL_FRAME if trampoline else 0)
    return rule, None if trampoline or rule == NO_RULE else result


def _rows(
    start: NDArray[np.int64],
    rule: NDArray[np.int64],
    what: NDArray[np.object_],
    tables: ExceptionTables,
    builder: RuleBuilder,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows: a function reaches up to the next one, or to the end of its section."""
    order = np.argsort(start, kind="stable")
    start, rule, what = start[order], rule[order], what[order]
    text = tables.text.astype(np.int64)
    which = np.searchsorted(text[:, 0], start, side="right") - 1
    end = np.append(text[:, 1], 0)[which]
    # Empty functions have entries too (arm_exidx_test.so of pyelftools): of several at one address the last counts.
    real = (which >= 0) & (start < end) & np.append(start[1:] != start[:-1], True)[: len(start)]
    start, rule, what, end = start[real], rule[real], what[real], end[real]
    end = np.minimum(end, np.append(start[1:], LAST_RVA)[: len(end)])
    none = np.zeros(0, np.int64)
    rva, rows = overlay(none, none, Spans(start, end, rule))
    first = np.unique(np.concatenate([start, tables.starts.astype(np.int64)]))
    covering = np.searchsorted(start, first, side="right") - 1
    plain = np.append(what != None, False)  # noqa: E711  (element by element)
    first = first[(covering >= 0) & (first < np.append(end, 0)[covering]) & plain[covering]]
    exact = dict.fromkeys(first.tolist(), ehabi_code.Frame())
    for address, data in tables.code:
        exact |= _exact(np.frombuffer(data, "<u2", len(data) // 2), address - tables.base, start, end, what, first)
    frames = {frame: _frame_rule(frame, builder) for frame in set(exact.values())}
    places = np.array(sorted(exact), np.int64)
    found = np.array([frames[exact[place]] for place in places.tolist()], np.int64)
    return overlay(rva, rows, Spans(places, places + 1, found))


def _exact(
    code: NDArray[np.uint16],
    origin: int,
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    what: NDArray[np.object_],
    first: NDArray[np.int64],
) -> dict[int, ehabi_code.Frame]:
    """Return the frames in prologues and epilogues of the functions of one section, by address."""
    found: dict[int, ehabi_code.Frame] = {}
    low, high = np.searchsorted(start, [origin, origin + 2 * len(code)])
    sites = ehabi_code.returns(code)
    begins = (first - origin) // 2
    limits = np.stack([start[low:high] - origin, end[low:high] - origin], axis=1) // 2
    at_sites, at_begins = np.searchsorted(sites, limits).tolist(), np.searchsorted(begins, limits).tolist()
    for function, at, inside, starting in zip(
        what[low:high].tolist(), limits[:, 0].tolist(), at_sites, at_begins, strict=True
    ):
        if function is None or function.vsp.base not in {_SP, _R7} or not function.saved:
            continue
        vsp, saved = function.vsp, function.saved
        places = tuple((r, place.offset - vsp.offset) for r, place in sorted(saved.items()) if place.base == vsp.base)
        whole = ehabi_code.Frame(vsp.offset, places)
        if not ehabi_code.begins(code, at, whole):
            continue
        rows: list[tuple[int, ehabi_code.Frame]] = []
        for begin in begins[slice(*starting)].tolist():
            rows += ehabi_code.prologue(code, begin, whole, vsp.offset if vsp.base == _R7 else None)
        for site in sites[slice(*inside)].tolist():
            rows += ehabi_code.epilogue(code, site, at)
        found |= {origin + 2 * i: frame for i, frame in rows}
    return found


def _frame_rule(frame: ehabi_code.Frame, builder: RuleBuilder) -> int:
    ra = _PC if any(r == _PC for r, _ in frame.saved) else _LR
    return builder.rule((frame.base, frame.size), [(r, REG_OFFSET, place) for r, place in frame.saved], ra=ra)
