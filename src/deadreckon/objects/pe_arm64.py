"""ARM64 unwind information of PE images: packed ``.pdata`` words and ``.xdata`` records to programs of rules.

Source: Microsoft "ARM64 exception handling"; what it leaves open (custom stacks, homed parameters without saved
registers, x19 saved with lr) as .NET's copy of the system's unwinder has it (dotnet/runtime
src/coreclr/unwinder/arm64). The codes undo a prologue, last instruction first, one code an instruction; epilogues
share them. Read from the end they say what the prologue did, and each suffix of a sequence is a rule: the one that
holds when that much of the prologue has run, or when that much of the epilogue is still to come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from deadreckon.errors import Malformed
from deadreckon.model.tables import NO_RULE, REG_EXPR, REG_OFFSET, REG_UNDEFINED, SIGNAL_FRAME, SIGNED_RA
from deadreckon.objects.rulebuilder import breg

if TYPE_CHECKING:
    from deadreckon.objects.pe import Headers
    from deadreckon.objects.rulebuilder import RuleBuilder

__all__ = ["Record", "Sequence", "leaf", "packed", "record", "sequence"]

_FP, _LR, _SP, _PC = 29, 30, 31, 32
_END, _END_C = 0xE4, 0xE5
_SAVE_NEXT = 0xE6
_TRAP_FRAME, _MACHINE_FRAME, _CONTEXT, _EC_CONTEXT, _CLEAR_UNWOUND_TO_CALL = range(0xE8, 0xED)
_PAC_SIGN_LR = 0xFC
_LONG = {0xDF: 2, 0xE0: 4, 0xE2: 2, 0xE7: 3, 0xF8: 2, 0xF9: 3, 0xFA: 4, 0xFB: 5}
"""Sizes of codes from 0xdf on that have more than one byte."""
_DEREF = b"\x06"
_MAX_WORD = 4080
"""The largest multiple of 16 that a ``sub sp, sp, #imm12`` takes."""

_STACKS = {
    # Where a structure on the stack keeps sp, pc, and general registers: _KTRAP_FRAME, nameless, CONTEXT.
    _TRAP_FRAME: (0x98, 0x148, {_FP: 0x140, _LR: 0x138, **{i: 0xA0 + 8 * i for i in range(19)}}),
    _MACHINE_FRAME: (0, 8, {}),
    _CONTEXT: (0x100, 0x108, {i: 8 + 8 * i for i in range(31)}),
}


class Sequence(NamedTuple):
    """``rules[i]``: the rule where i instructions have to be undone; ``own`` instructions are of this scope.

    Those before them belong to the prologue of the function that a fragment is part of.
    """

    rules: tuple[int, ...]
    own: int

    def prologue(self) -> list[tuple[int, int]]:
        """Return the rows of a prologue and the body after it, by offset."""
        first = len(self.rules) - 1 - self.own
        return [(4 * i, self.rules[first + i]) for i in range(self.own + 1)]

    def epilogue(self) -> list[tuple[int, int]]:
        """Return the rows of an epilogue, by offset; its last instruction is a return or a jump."""
        last = len(self.rules) - 1
        return [(4 * i, self.rules[last - i]) for i in range(self.own + 1)]


class Record(NamedTuple):
    """An ``.xdata`` record: ``length`` of the function in bytes, ``epilogues`` (offset, index of the first code).

    An offset of None stands for the epilogue that ends the function.
    """

    length: int
    codes: bytes
    epilogues: list[tuple[int | None, int]]


def leaf(builder: RuleBuilder) -> int:
    """Return the rule of code without unwind information: the return address is in lr, and nothing has moved."""
    return builder.rule((_SP, 0), (), ra=_LR)


def record(image: Headers, address: int) -> Record:
    """Read an ``.xdata`` record. Raises Malformed."""
    head = image.at(address, 8)
    word = int.from_bytes(head[:4], "little")
    count, words, at = word >> 22 & 31, word >> 27, 4
    if not count and not words:
        extended = int.from_bytes(head[4:], "little")
        count, words, at = extended & 0xFFFF, extended >> 16 & 0xFF, 8
    if len(head) < at:
        raise Malformed(".xdata record", offset=address, expected=f"{at} bytes", got=len(head))
    if word >> 18 & 3:
        raise Malformed(".xdata version", offset=address, expected=0, got=word >> 18 & 3)
    single = bool(word >> 21 & 1)
    scopes = 0 if single else count
    size = 4 * (scopes + words)
    body = image.at(address + at, size)
    if len(body) < size:
        raise Malformed(".xdata record", offset=address, expected=f"{at + size} bytes", got=at + len(body))
    epilogues: list[tuple[int | None, int]] = [(None, count)] if single else []
    for i in range(scopes):
        scope = int.from_bytes(body[4 * i : 4 * i + 4], "little")
        epilogues.append((4 * (scope & 0x3FFFF), scope >> 22))
    return Record(4 * (word & 0x3FFFF), body[4 * scopes :], epilogues)


@dataclass(slots=True)
class _Steps:
    """How far a prologue has come. Distances are from where sp was on entry, which is the caller's."""

    depth: int | None = 0  # of sp; None where it can't be known
    frame: int | None = None  # of fp, once it is the frame pointer
    saved: dict[int, int | None] = field(default_factory=dict)
    flags: int = 0
    stack: int = 0  # the code of the structure that lies at the beginning
    pair: tuple[int, int | None] | None = None  # what save_next continues: register, or -1 for others; where


def sequence(builder: RuleBuilder, codes: bytes, index: int) -> Sequence:
    """Lower the codes from an index up to ``end``. Raises Malformed."""
    found, own = _split(codes, index)
    steps = _Steps()
    rules = [_rule(builder, steps)]
    for code in reversed(found):
        _step(steps, code)
        if 0xE8 <= code[0] < 0xF0:
            rules.pop()  # Not an instruction: it tells what there was at the beginning.
        rules.append(_rule(builder, steps))
    return Sequence(tuple(rules), own)


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


def packed(word: int) -> bytes:
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
    if registers_i > 10 or local < 0 or chain >= 2 and not local:
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
