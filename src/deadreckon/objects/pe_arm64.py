"""ARM64 unwind information of PE images: packed ``.pdata`` words and ``.xdata`` records to programs of rules.

Source: Microsoft "ARM64 exception handling"; what it leaves open (custom stacks, homed parameters without saved
registers, x19 saved with lr) as .NET's copy of the system's unwinder has it (dotnet/runtime
src/coreclr/unwinder/arm64). The codes undo a prologue, last instruction first, one code an instruction; epilogues
share them. Read from the end they say what the prologue did, and each suffix of a sequence is a rule: the one that
holds when that much of the prologue has run, or when that much of the epilogue is still to come.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.tables import NO_RULE, REG_EXPR, REG_OFFSET, REG_UNDEFINED, SIGNAL_FRAME, SIGNED_RA
from deadreckon.objects.rulebuilder import LAST_RVA, breg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.objects.pe import Headers
    from deadreckon.objects.rulebuilder import RuleBuilder, TableBuilder

__all__ = ["lower"]

_FP, _LR, _SP, _PC = 29, 30, 31, 32
_END, _END_C = 0xE4, 0xE5
_SAVE_NEXT = 0xE6
_TRAP_FRAME, _MACHINE_FRAME, _CONTEXT, _EC_CONTEXT, _CLEAR_UNWOUND_TO_CALL = range(0xE8, 0xED)
_PAC_SIGN_LR = 0xFC
_LONG = {0xDF: 2, 0xE0: 4, 0xE2: 2, 0xE7: 3, 0xF8: 2, 0xF9: 3, 0xFA: 4, 0xFB: 5}
"""Sizes of codes from 0xdf on that have more than one byte."""
_DEREF = b"\x06"
_MAX_EPILOGUES = 1 << 21
_MAX_WORD = 4080
"""The largest multiple of 16 that a ``sub sp, sp, #imm12`` takes."""

_STACKS = {
    # Where a structure on the stack keeps sp, pc, and general registers: _KTRAP_FRAME, nameless, CONTEXT.
    _TRAP_FRAME: (0x98, 0x148, {_FP: 0x140, _LR: 0x138, **{i: 0xA0 + 8 * i for i in range(19)}}),
    _MACHINE_FRAME: (0, 8, {}),
    _CONTEXT: (0x100, 0x108, {i: 8 + 8 * i for i in range(31)}),
}


def lower(image: Headers, entries: NDArray[np.int64], work: TableBuilder) -> None:
    """Lower ``.pdata`` entries, i64[n, 2]: start, and a packed word or the address of a record."""
    work.default = work.rules.rule((_SP, 0), (), ra=_LR)  # A leaf: the return address is in lr.
    reader = _Reader(image, work)
    order = np.argsort(entries[:, 0], kind="stable")
    previous = 0
    for start, word in entries[order].tolist():
        if start == previous:
            continue  # Linkers fill up with zeros.
        previous = start
        try:
            function = reader.packed(word) if word & 3 else reader.record(word)
        except (Malformed, LimitExceeded) as e:
            work.lost(e)
            work.functions.add(start, min(start + max(reader.length(word), 4), LAST_RVA), work.missing)
            continue
        end = start + function.length
        if function.length <= 0 or end > LAST_RVA:
            continue
        work.functions.add(start, end, function.prologue)
        for offset, size, program in function.epilogues:
            at = start + (function.length - size if offset is None else offset)
            # Where the two meet, in very short functions, it is still the prologue that counts.
            begin = max(at, start + function.body)
            work.epilogues.add(begin, min(at + size, end), program, origin=at)


class _Function(NamedTuple):
    """Length in bytes; program and length of the prologue; epilogues (offset, None for the end; length; program)."""

    length: int
    prologue: int
    body: int
    epilogues: list[tuple[int | None, int, int]]


class _Reader:
    """Lowers the records of one image; what several of them have in common, once."""

    def __init__(self, image: Headers, work: TableBuilder) -> None:
        self._image = image
        self._builder = work.rules
        self._programs = work.programs
        self._prologues: dict[bytes, tuple[int, int]] = {}
        self._epilogues: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._packed: dict[int, _Function] = {}
        self._scopes = 0

    def length(self, word: int) -> int:
        """Return how long the function is, 0 where its record can't be read."""
        if word & 3:
            return 4 * (word >> 2 & 0x7FF)
        return 4 * (int.from_bytes(self._image.at(word, 4), "little") & 0x3FFFF)

    def packed(self, word: int) -> _Function:
        """Lower a packed word. Raises Malformed."""
        kind = word & ~(0x7FF << 2)
        found = self._packed.get(kind)
        if found is None:
            codes = _unpacked(word)
            epilogues: list[tuple[int | None, int, int]] = []
            if word & 3 == 1:
                # What has no counterpart in the epilogue: setting fp, which comes first, and homing parameters.
                mirror = codes.removeprefix(b"\xe1").replace(b"\xe3" * 4, b"")
                epilogues.append((None, *self._epilogue(mirror, 0)))
            elif word & 3 == 2:
                codes = bytes([_END_C]) + codes
            else:
                raise Malformed("packed unwind data", expected="flag 1 or 2", got=f"{word:#010x}")
            found = self._packed[kind] = _Function(0, *self._prologue(codes), epilogues)
        return found._replace(length=4 * (word >> 2 & 0x7FF))

    def record(self, address: int) -> _Function:
        """Lower an ``.xdata`` record. Raises Malformed, LimitExceeded."""
        head = self._image.at(address, 8)
        word = int.from_bytes(head[:4], "little")
        count, words, at = word >> 22 & 31, word >> 27, 4
        if not count and not words:
            extended = int.from_bytes(head[4:], "little")
            count, words, at = extended & 0xFFFF, extended >> 16 & 0xFF, 8
        if len(head) < at:
            raise Malformed(".xdata record", offset=address, expected=f"{at} bytes", got=len(head))
        if word >> 18 & 3:
            raise Malformed(".xdata version", offset=address, expected=0, got=word >> 18 & 3)
        single = word >> 21 & 1
        scopes = 0 if single else count
        self._scopes += scopes
        if self._scopes > _MAX_EPILOGUES:
            raise LimitExceeded("epilogues of an image", _MAX_EPILOGUES)
        size = 4 * (scopes + words)
        body = self._image.at(address + at, size)
        if len(body) < size:
            raise Malformed(".xdata record", offset=address, expected=f"{at + size} bytes", got=at + len(body))
        codes = body[4 * scopes :]
        try:
            prologue = self._prologue(codes)
            epilogues: list[tuple[int | None, int, int]] = []
            if single:
                epilogues.append((None, *self._epilogue(codes, count)))
            for (scope,) in struct.iter_unpack("<I", body[: 4 * scopes]):
                epilogues.append((4 * (scope & 0x3FFFF), *self._epilogue(codes, scope >> 22)))
        except Malformed as e:
            raise Malformed(e.what, offset=address, expected=e.expected, got=e.got) from None
        return _Function(4 * (word & 0x3FFFF), *prologue, epilogues)

    def _prologue(self, codes: bytes) -> tuple[int, int]:
        """Return program and length of a prologue, whose codes come first."""
        found = self._prologues.get(codes)
        if found is None:
            rules, own = self._sequence(codes, 0)
            first = len(rules) - 1 - own
            program = self._programs.add((4 * i, rules[first + i]) for i in range(own + 1))
            found = self._prologues[codes] = program, 4 * own
        return found

    def _epilogue(self, codes: bytes, index: int) -> tuple[int, int]:
        """Return length and program of an epilogue; a return or a jump follows what its codes stand for."""
        found = self._epilogues.get((codes, index))
        if found is None:
            rules, own = self._sequence(codes, index)
            program = self._programs.add((4 * i, rules[-1 - i]) for i in range(own + 1))
            found = self._epilogues[codes, index] = 4 * own + 4, program
        return found

    def _sequence(self, codes: bytes, index: int) -> tuple[list[int], int]:
        """Return the rules where 0, 1, 2 ... instructions are to be undone, and how many are of the codes' own scope.

        The first ones may belong to another scope: to the prologue of the function that a fragment is part of.
        """
        self._programs.room()
        found, own = _split(codes, index)
        steps = _Steps()
        rules = [_rule(self._builder, steps)]
        for code in reversed(found):
            _step(steps, code)
            if 0xE8 <= code[0] < 0xF0:
                rules.pop()  # Not an instruction: it tells what there was at the beginning.
            rules.append(_rule(self._builder, steps))
        return rules, own


@dataclass(slots=True)
class _Steps:
    """How far a prologue has come. Distances are from where sp was on entry, which is the caller's."""

    depth: int | None = 0  # of sp; None where it can't be known
    frame: int | None = None  # of fp, once it is the frame pointer
    saved: dict[int, int | None] = field(default_factory=dict)
    flags: int = 0
    stack: int = 0  # the code of the structure that lies at the beginning
    pair: tuple[int, int | None] | None = None  # what save_next continues: register, or -1 for others; where


def _split(codes: bytes, index: int) -> tuple[list[bytes], int]:
    """Return the codes from an index up to ``end``, and how many instructions those before ``end_c`` stand for."""
    found: list[bytes] = []
    own: int | None = None
    instructions = 0
    at = index
    while at < len(codes):
        first = codes[at]
        if first == _END:
            return found, instructions if own is None else own
        if first == _END_C:
            own = instructions if own is None else own
            at += 1
            continue
        size = 2 if 0xC0 <= first < 0xDF else _LONG.get(first, 1)
        code = codes[at : at + size]
        if len(code) < size:
            break
        found.append(code)
        instructions += not 0xE8 <= first < 0xF0
        at += size
    raise Malformed("unwind codes", offset=at, expected="end", got=f"{len(codes)} bytes")


def _step(steps: _Steps, code: bytes) -> None:
    """Follow one instruction of a prologue."""
    first, value = code[0], int.from_bytes(code, "big")
    pair, steps.pair = steps.pair, None
    if first < 0x20:  # alloc_s
        _allocate(steps, 16 * (first & 0x1F))
    elif first < 0x40:  # save_r19r20_x
        _allocate(steps, 8 * (first & 0x1F))
        _save(steps, 19, 0, count=2)
    elif first < 0x80:  # save_fplr
        _save(steps, _FP, 8 * (first & 0x3F), count=2)
        steps.pair = None
    elif first < 0xC0:  # save_fplr_x
        _allocate(steps, 8 * (first & 0x3F) + 8)
        _save(steps, _FP, 0, count=2)
        steps.pair = None
    elif first < 0xC8:  # alloc_m
        _allocate(steps, 16 * (value & 0x7FF))
    elif first < 0xCC:  # save_regp
        _save(steps, 19 + (value >> 6 & 0xF), 8 * (value & 0x3F), count=2)
    elif first < 0xD0:  # save_regp_x
        _allocate(steps, 8 * (value & 0x3F) + 8)
        _save(steps, 19 + (value >> 6 & 0xF), 0, count=2)
    elif first < 0xD4:  # save_reg
        _save(steps, 19 + (value >> 6 & 0xF), 8 * (value & 0x3F))
    elif first < 0xD6:  # save_reg_x
        _allocate(steps, 8 * (value & 0x1F) + 8)
        _save(steps, 19 + (value >> 5 & 0xF), 0)
    elif first < 0xD8:  # save_lrpair
        _save(steps, 19 + 2 * (value >> 6 & 7), 8 * (value & 0x3F))
        _save(steps, _LR, 8 * (value & 0x3F) + 8)
    elif first < 0xDA:  # save_fregp
        steps.pair = -1, None
    elif first < 0xDC:  # save_fregp_x
        _allocate(steps, 8 * (value & 0x3F) + 8)
        steps.pair = -1, None
    elif first < 0xDE:  # save_freg
        pass
    elif first == 0xDE:  # save_freg_x
        _allocate(steps, 8 * (value & 0x1F) + 8)
    elif first == 0xDF:  # alloc_z: as many vectors as there are saved, of a length the processor knows
        steps.depth = None
    elif first == 0xE0:  # alloc_l
        _allocate(steps, 16 * (value & 0xFF_FFFF))
    elif first in {0xE1, 0xE2}:  # set_fp, add_fp
        steps.frame = None if steps.depth is None else steps.depth - (8 * code[1] if first == 0xE2 else 0)
        # Without having been saved before, the caller's fp is gone.
        steps.saved.setdefault(_FP, None)
    elif first == 0xE3:  # nop
        pass
    elif first == _SAVE_NEXT:
        if pair is None:
            raise Malformed("save_next", expected="a pair of registers to continue", got="none")
        _save_next(steps, *pair)
    elif first == 0xE7:
        _save_any(steps, value)
    elif first == _CLEAR_UNWOUND_TO_CALL:
        steps.flags |= SIGNAL_FRAME
    elif first in _STACKS or first == _EC_CONTEXT:
        if steps.depth != 0 or steps.saved or steps.stack:
            raise Malformed("custom stack", expected="the last of the codes", got=f"{first:#x}")
        steps.stack = first
    elif first == _PAC_SIGN_LR:
        steps.flags |= SIGNED_RA
    elif first < 0xF8:
        raise Malformed("unwind code", expected="one that is defined", got=f"{first:#x}")
    # From 0xf8 on, what is not defined yet is to be passed over.


def _allocate(steps: _Steps, size: int) -> None:
    if steps.depth is not None:
        steps.depth += size


def _save(steps: _Steps, register: int, offset: int, *, count: int = 1) -> None:
    """Save registers at an offset from sp. Of two saves of a register the first one has the caller's value."""
    if register + count - 1 > _LR:
        raise Malformed("saved register", expected="x0 to x30", got=f"x{register + count - 1}")
    for i in range(count):
        where = None if steps.depth is None else offset + 8 * i - steps.depth
        steps.saved.setdefault(register + i, where)
    if count == 2:
        steps.pair = register + 2, None if steps.depth is None else offset + 16 - steps.depth


def _save_next(steps: _Steps, register: int, where: int | None) -> None:
    """Save the pair after the last one. After x27 and x28 come d8 and d9, which are no concern here."""
    if 0 <= register < _FP - 1:
        for i in range(2):
            steps.saved.setdefault(register + i, None if where is None else where + 8 * i)
        steps.pair = register + 2, None if where is None else where + 16
    else:
        steps.pair = -1, None


def _save_any(steps: _Steps, value: int) -> None:
    """save_any_reg: one register or a pair of any kind; with all kind bits set, registers of SVE."""
    kind, offset = value >> 6 & 3, value & 0x3F
    if kind == 3:
        return
    pair, writeback, register = value >> 14 & 1, value >> 13 & 1, value >> 8 & 0x1F
    if value >> 15 & 1:
        raise Malformed("save_any_reg", expected="a reserved bit of 0", got=f"{value:#x}")
    if writeback:
        _allocate(steps, 16 * (offset + 1))
        offset = 0
    else:
        offset *= 16 if pair or kind == 2 else 8
    if kind:
        steps.pair = (-1, None) if pair else None
    else:
        _save(steps, register, offset, count=1 + pair)


def _rule(builder: RuleBuilder, steps: _Steps) -> int:
    """Return the rule for a prologue that has come this far."""
    if steps.frame is not None:
        register, offset = _FP, steps.frame
    elif steps.depth is not None:
        register, offset = _SP, steps.depth
    else:
        return NO_RULE
    if steps.stack not in _STACKS:
        if steps.stack:
            return NO_RULE  # ARM64EC: the caller is x86-64 code.
        rows = [
            (r, REG_UNDEFINED, 0) if where is None else (r, REG_OFFSET, where)
            for r, where in sorted(steps.saved.items())
        ]
        if steps.saved.get(_LR, 0) is None:
            return NO_RULE
        return builder.rule((register, offset), rows, ra=_LR, flags=steps.flags)
    sp, pc, known = _STACKS[steps.stack]
    saved = {r: breg(register, offset + where) for r, where in steps.saved.items() if where is not None}
    saved = {_PC: breg(register, offset + pc)} | saved | {r: breg(register, offset + at) for r, at in known.items()}
    # All registers were a stranger's: those that nothing restores are gone, but for the callee-saved ones.
    codes: list[tuple[int, int, int | bytes]] = [(r, REG_EXPR, code) for r, code in sorted(saved.items())]
    codes += [(r, REG_UNDEFINED, 0) for r in range(19) if r not in saved]
    return builder.rule(
        breg(register, offset + sp) + _DEREF, codes, ra=_PC, flags=SIGNAL_FRAME | steps.flags & ~SIGNED_RA
    )


def _unpacked(word: int) -> bytes:
    """Return the codes that a packed word stands for, in the order of a prologue's record. Raises Malformed.

    The first of them undoes the prologue's last instruction. Steps are numbered as in the specification.
    """
    registers_f, registers_i, homes = word >> 13 & 7, word >> 16 & 15, word >> 20 & 1
    chain, frame_size = word >> 21 & 3, 16 * (word >> 23)
    integers = 8 * registers_i + 8 * (chain == 1)
    floats = 8 * registers_f + 8 * bool(registers_f)
    # Without saved registers parameters are homed in the local area, after the prologue.
    homed = homes and integers + floats > 0
    saved = (integers + floats + 64 * homed + 15) & ~15
    local = frame_size - saved
    if registers_i > 10 or local < 0 or (chain >= 2 and not local):
        raise Malformed("packed unwind data", expected="a frame that holds what is saved", got=f"{word:#010x}")
    steps: list[bytes] = [bytes([_PAC_SIGN_LR])] if chain == 2 else []
    allocated = not saved

    def save(plain: int, indexed: int, x: int, at: int) -> None:
        """The first save also allocates: ``indexed`` is that form's code, of which the offset takes 6 bits or 5."""
        nonlocal allocated
        if allocated:
            steps.append((plain << 8 | x << 6 | at // 8).to_bytes(2, "big"))
        else:
            single = indexed in {0xD400, 0xDE00}
            steps.append((indexed | x << (5 if single else 6) | saved // 8 - 1).to_bytes(2, "big"))
            allocated = True

    # 1, 2: x19 and on, then lr; an odd last one and lr make a pair, which has no form that allocates.
    if registers_i == 1 and chain == 1:
        steps.append(_allocation(saved))
        allocated = True
    for i in range(0, registers_i - 1, 2):
        save(0xC8, 0xCC00, i, 8 * i)
    if registers_i % 2:
        if chain == 1:
            steps.append((0xD600 | registers_i // 2 << 6 | registers_i - 1).to_bytes(2, "big"))
        else:
            save(0xD0, 0xD400, registers_i - 1, 8 * (registers_i - 1))
    elif chain == 1:
        save(0xD0, 0xD400, _LR - 19, 8 * registers_i)
    # 3: d8 and on.
    count = floats // 8
    for i in range(0, count - 1, 2):
        save(0xD8, 0xDA00, i, integers + 8 * i)
    if count % 2:
        save(0xDC, 0xDE00, count - 1, integers + 8 * (count - 1))
    # 4: parameters.
    steps += [b"\xe3"] * (4 if homed else 0)
    # 5: the rest of the frame.
    if chain >= 2 and local <= 512:
        steps.append(bytes([0x80 | local // 8 - 1]))
    else:
        if local:
            steps.append(_allocation(min(local, _MAX_WORD)))
        if local > _MAX_WORD:
            steps.append(_allocation(local - _MAX_WORD))
        if chain >= 2:
            steps.append(b"\x40")
    if chain >= 2:
        steps.append(b"\xe1")
    return b"".join(reversed(steps)) + bytes([_END])


def _allocation(size: int) -> bytes:
    return bytes([size // 16]) if size < 512 else (0xC000 | size // 16).to_bytes(2, "big")
