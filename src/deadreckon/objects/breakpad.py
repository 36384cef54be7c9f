"""Breakpad symbol files: identity, ``STACK CFI`` and ``STACK WIN`` records.

Source: Breakpad ``docs/symbol_files.md``. Functions, lines and inlines of these files are read by symbolic; its CFI
caches hold the same text for Mach-O, PE and PDB files, so this module lowers those too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId
from deadreckon.model.registers import REGISTER_SETS, RegisterSet
from deadreckon.model.tables import (
    CALLEE_PARAMETERS,
    CFA_EXPR,
    CFA_REG,
    END_OF_STACK,
    NO_RULE,
    REG_OFFSET,
    REG_REGISTER,
    REG_SAME,
    REG_UNDEFINED,
    REG_VAL_EXPR,
    REG_VAL_OFFSET,
    SEARCHED_RA,
    RuleTable,
)
from deadreckon.objects import stackwin
from deadreckon.objects.rulemerge import merge

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BreakpadIdentity", "identify", "read_rules", "rules_from_text"]

_MAX_RULE_TOKENS = 64
_MAX_LINE = 8192


@dataclass(frozen=True, slots=True)
class BreakpadIdentity:
    """The MODULE record: operating system, architecture, id and name."""

    os: str
    arch: Arch
    debug_id: DebugId | None
    debug_file: str


def identify(head: bytes | memoryview) -> BreakpadIdentity:
    """Read the MODULE record from a file's first bytes. Raises Malformed where it isn't one."""
    line = bytes(head[:4096]).split(b"\n", 1)[0].decode("utf-8", "replace")
    parts = line.split(maxsplit=4)
    if len(parts) < 4 or parts[0] != "MODULE":
        raise Malformed("Breakpad MODULE record", offset=0, expected="MODULE os arch id name", got=line[:64])
    try:
        debug_id = DebugId.parse(parts[3])
    except ValueError:
        debug_id = None
    return BreakpadIdentity(parts[1], Arch.parse(parts[2]), debug_id, parts[4].strip() if len(parts) > 4 else "")


@dataclass(slots=True)
class _Builder:
    """Distinct rules and their expressions, collected while records are read."""

    registers: RegisterSet
    rules: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    saved: list[tuple[int, int, int]] = field(default_factory=list)
    expr: bytearray = field(default_factory=bytearray)
    known: dict[tuple[tuple[str, str], ...], int] = field(default_factory=dict)
    blocks: dict[bytes, int] = field(default_factory=dict)

    def parts(self, text: str) -> dict[str, str]:
        """Split ``REG: expression REG: expression ...``; other registers are no concern, and the last rule counts."""
        found: dict[str, list[str]] = {}
        expression: list[str] = []
        for token in text.split():
            if token[-1] == ":" and len(token) > 1:
                index = self.registers.index(token[:-1])
                expression = []
                if index >= 0 or token in {".cfa:", ".ra:", ".params:", ".search:"}:
                    found[self.registers.names[index] if index >= 0 else token[:-1]] = expression
            else:
                expression.append(token)
        return {name: " ".join(tokens) for name, tokens in found.items()}

    def rule(self, parts: dict[str, str]) -> int:
        """Return the index of a rule, NO_RULE if it is unusable."""
        key = tuple(parts.items())
        index = self.known.get(key)
        if index is None:
            index = self.known[key] = self._lower(dict(parts))
        return index

    def _lower(self, parts: dict[str, str]) -> int:
        registers = self.registers
        cfa = parts.pop(".cfa", None)
        if cfa is None:
            return NO_RULE
        kind, register, offset = self._cfa(cfa)
        if kind < 0:
            return NO_RULE
        ra = registers.lr if registers.lr >= 0 else registers.pc
        flags = ra << 8
        saved: dict[int, tuple[int, int]] = {}
        if parts.pop(".search", None):
            flags |= SEARCHED_RA
        if parameters := parts.pop(".params", None):
            saved[CALLEE_PARAMETERS] = self._register(parameters)
        # Symbol files written before dump_syms 2.3.6 lack .ra on CPUs with a link register; the walkers that take
        # them at their word stop after two frames (facts of seven captures of one crash on four CPUs).
        text = parts.pop(".ra", None)
        if text is None:
            text = "" if registers.lr >= 0 else f".cfa -{registers.word_size} + ^"
        # "As it was on entry", in epilogues (3,242 lines of breakpad_unittests.sym for ARM64): in the link register.
        if text == ".ra" and registers.lr >= 0:
            text = registers.names[ra]
        for name, expression in (*parts.items(), (registers.names[ra], text)):
            index = registers.index(name)
            if index < 0 or not expression:
                continue
            what, value = self._register(expression)
            if what < 0:
                if index == ra:
                    return NO_RULE
                what = REG_UNDEFINED
            if what == REG_REGISTER and value == index:
                what, value = REG_SAME, 0
            if index == ra and what == REG_UNDEFINED:
                flags |= END_OF_STACK
            if index in saved and what == REG_SAME:
                continue  # `x30: .cfa -8 + ^` beside `.ra: x30`: the saved value is the return address.
            saved[index] = (what, value)
        start = len(self.saved)
        self.saved.extend((index, what, value) for index, (what, value) in saved.items() if what != REG_SAME)
        self.rules.append((kind, register, offset, flags, start, len(self.saved) - start))
        return len(self.rules) - 1

    def _cfa(self, text: str) -> tuple[int, int, int]:
        tokens = text.split()
        if len(tokens) == 3 and tokens[2] in {"+", "-"}:
            register, offset = self.registers.index(tokens[0]), _integer(tokens[1])
            if register >= 0 and offset is not None:
                return CFA_REG, register, offset if tokens[2] == "+" else -offset
        if len(tokens) == 1 and (register := self.registers.index(tokens[0])) >= 0:
            return CFA_REG, register, 0
        block = self._compile(tokens)
        return (-1, 0, 0) if block is None else (CFA_EXPR, 0, block)

    def _register(self, text: str) -> tuple[int, int]:
        tokens = text.split()
        if tokens == [".undef"]:
            return REG_UNDEFINED, 0
        if tokens == [".cfa"]:
            return REG_VAL_OFFSET, 0
        if tokens == [".cfa", "^"]:
            return REG_OFFSET, 0
        if len(tokens) in {3, 4} and tokens[0] == ".cfa" and tokens[2] in {"+", "-"} and tokens[3:] in ([], ["^"]):
            offset = _integer(tokens[1])
            if offset is not None:
                return (REG_OFFSET if len(tokens) == 4 else REG_VAL_OFFSET), offset if tokens[2] == "+" else -offset
        if len(tokens) == 1 and (register := self.registers.index(tokens[0])) >= 0:
            return REG_REGISTER, register
        block = self._compile(tokens)
        return (-1, 0) if block is None else (REG_VAL_EXPR, block)

    def _compile(self, tokens: list[str]) -> int | None:
        """Translate a postfix expression to a DWARF block in ``expr``; None where it isn't one or DWARF has no word."""
        if len(tokens) > _MAX_RULE_TOKENS:
            return None
        code = bytearray()
        depth = 0
        for token in tokens:
            takes = _OPERANDS.get(token, 0)
            if depth < takes:
                return None
            depth += 1 - takes
            if token in _OPERATORS:
                code += _OPERATORS[token]
            elif (value := _integer(token)) is not None:
                code += b"\x0f" + struct.pack("<q", value)  # DW_OP_const8s
            elif (register := self.registers.index(token)) >= 0:
                code += bytes((0x92, register, 0))  # DW_OP_bregx
            elif token == stackwin.CALLEE_PARAMETERS:
                code += bytes((0x92, CALLEE_PARAMETERS, 0))
            else:
                return None
        # Values left over would be an error of Breakpad's; the kernel has the CFA below them and couldn't tell.
        if depth != 1:
            return None
        block = _uleb(len(code)) + code
        found = self.blocks.get(bytes(block))
        if found is None:
            found = self.blocks[bytes(block)] = len(self.expr)
            self.expr += block
        return found


# DW_OP_plus, minus, mul, deref, call_frame_cfa; the vendor operations are kernels/unwind.py's.
_OPERATORS = {
    "+": b"\x22",
    "-": b"\x1c",
    "*": b"\x1e",
    "^": b"\x06",
    ".cfa": b"\x9c",
    "@": b"\xe1",
    "/": b"\xe2",
    "%": b"\xe3",
}
_OPERANDS = {"+": 2, "-": 2, "*": 2, "@": 2, "/": 2, "%": 2, "^": 1}


def _integer(token: str) -> int | None:
    digits = token[1:] if token[:1] in {"-", "+"} else token
    if not digits.isdecimal() or len(digits) > 10:
        return None
    value = int(token)
    return value if -0x7FFF_FFFF <= value <= 0x7FFF_FFFF else None


def _uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def read_rules(data: bytes | memoryview) -> RuleTable:
    """Lower a symbol file's unwind records. Raises Malformed where there is no MODULE record."""
    return rules_from_text(data, identify(data).arch)


def rules_from_text(data: bytes | memoryview, arch: Arch) -> RuleTable:
    """Lower the unwind records in a text; lines of other kinds, and malformed ones, are passed over.

    Where ``STACK CFI`` records overlap, the first by address keeps the ground it covers. A ``STACK WIN`` record with a
    program counts before one without, and before ``STACK CFI``.
    """
    rules = _call_frames(data, arch)
    if arch is Arch.X86:
        found = stackwin.records(_lines(data, b"STACK WIN "))
        for kind in (stackwin.FPO, stackwin.FRAME_DATA):
            spans = stackwin.lines(record for record in found if record.kind == kind)
            table = _table(_Builder(REGISTER_SETS[arch]), [(s, end, [(s, rule)]) for s, end, rule in spans])
            rules = merge(table, rules)
    return rules


def _call_frames(data: bytes | memoryview, arch: Arch) -> RuleTable:
    registers = REGISTER_SETS.get(arch)
    if registers is None:
        return RuleTable.empty()
    builder = _Builder(registers)
    blocks: list[tuple[int, int, list[tuple[int, str]]]] = []
    start = end = 0
    for line in _lines(data, b"STACK CFI "):
        is_init = line.startswith("STACK CFI INIT ")
        parts = line.split(None, 5 if is_init else 3)
        try:
            if is_init:
                start = end = 0
                start = int(parts[3], 16)
                end = start + int(parts[4], 16)
                blocks.append((start, end, [(start, parts[5] if len(parts) > 5 else "")]))
            else:
                address = int(parts[2], 16)
                if start <= address < end:
                    blocks[-1][2].append((address, parts[3]))
        except (ValueError, IndexError):
            continue
    return _table(builder, blocks)


def _lines(data: bytes | memoryview, start: bytes) -> Iterable[str]:
    raw = bytes(data)
    at = 0 if raw.startswith(start) else raw.find(b"\n" + start) + 1
    if at or raw.startswith(start):
        for line in raw[at:].splitlines():
            if line.startswith(start) and len(line) <= _MAX_LINE:
                yield line.decode("ascii", "replace")


def _rows(builder: _Builder, lines: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """Return (address, rule) pairs: each line changes the registers it names, from its address on."""
    parts: dict[str, str] = {}
    rows: list[tuple[int, int]] = []
    for address, text in sorted(lines, key=lambda line: line[0]):
        parts = parts | builder.parts(text)
        if rows and rows[-1][0] == address:
            rows.pop()
        rows.append((address, builder.rule(parts)))
    return rows


def _table(builder: _Builder, blocks: list[tuple[int, int, list[tuple[int, str]]]]) -> RuleTable:
    blocks.sort(key=lambda block: block[0])
    rva: list[int] = []
    rule: list[int] = []
    previous_end = 0
    last = NO_RULE
    for start, end, lines in blocks:
        if end <= previous_end or end > 0xFFFF_FFFE:
            continue
        if last != NO_RULE and start > previous_end:
            rva.append(previous_end)
            rule.append(NO_RULE)
            last = NO_RULE
        rows = _rows(builder, lines)
        for i, (address, index) in enumerate(rows):
            following = rows[i + 1][0] if i + 1 < len(rows) else end
            if following <= previous_end or following <= address or index == last:
                continue
            rva.append(max(address, previous_end))
            rule.append(index)
            last = index
        previous_end = end
    if last != NO_RULE:
        rva.append(previous_end)
        rule.append(NO_RULE)
    return RuleTable(
        np.array(rva, np.uint32),
        np.array(rule, np.uint32),
        np.array(builder.rules, np.int32).reshape(-1, 6),
        np.array(builder.saved, np.int32).reshape(-1, 3),
        np.frombuffer(bytes(builder.expr), np.uint8),
    )
