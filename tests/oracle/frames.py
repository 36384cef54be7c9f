"""Call frame information as pyelftools decodes it, in a form that compares with a RuleTable's.

A rule is ``(cfa, registers, return address register, signal frame)``: the CFA ``("reg", register, offset)`` or
``("expr", bytes)``, and for each register that has a rule its kind and its offset, register or expression.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.structs import DWARFStructs

from deadreckon.model import tables

if TYPE_CHECKING:
    from deadreckon.model.tables import RuleTable

Cfa = tuple[str, int, int] | tuple[str, bytes]
Rule = tuple[Cfa, tuple[tuple[int, str, int | bytes], ...], int, bool]

_KINDS = {
    tables.REG_UNDEFINED: "UNDEFINED",
    tables.REG_OFFSET: "OFFSET",
    tables.REG_VAL_OFFSET: "VAL_OFFSET",
    tables.REG_REGISTER: "REGISTER",
    tables.REG_EXPR: "EXPRESSION",
    tables.REG_VAL_EXPR: "VAL_EXPRESSION",
}
_COLUMNS = 34  # Registers beyond these (vector registers) are no concern of an unwinder.


@dataclass(frozen=True)
class Spans:
    """What a section says, by address: ``rules[i]`` holds from ``starts[i]`` up to ``starts[i + 1]``."""

    starts: list[int]
    rules: list[Rule | None]

    def at(self, address: int) -> Rule | None:
        i = bisect_right(self.starts, address) - 1
        return self.rules[i] if i >= 0 else None


def decode(data: bytes, *, is_eh: bool, section_addr: int, address_size: int) -> Spans:
    """Decode a section. Of two functions that overlap, the one that starts first keeps its ground."""
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=address_size)
    frames = CallFrameInfo(io.BytesIO(data), len(data), section_addr, structs, for_eh_frame=is_eh)
    entries: list[Any] = frames.get_entries()
    starts: list[int] = []
    rules: list[Rule | None] = []
    end = 0
    functions = [e for e in entries if isinstance(e, FDE) and e["initial_location"] and e["address_range"]]
    for entry in sorted(functions, key=lambda e: (e["initial_location"], e.offset)):
        start = entry["initial_location"]
        limit = start + entry["address_range"]
        if limit <= end:
            continue
        lines = [line for line in _lines(entry) if line["pc"] < limit]
        for i, line in enumerate(lines):
            stop = lines[i + 1]["pc"] if i + 1 < len(lines) else limit
            if stop > max(line["pc"], end):
                starts.append(max(line["pc"], end))
                rules.append(_rule(line, entry.cie))
        starts.append(limit)
        rules.append(None)
        end = limit
    return Spans(starts, rules)


def _lines(entry: Any) -> list[dict[Any, Any]]:
    """Return an FDE's table, with two gaps of pyelftools 0.33 filled."""
    for part in (entry.cie, entry):
        kept = []
        for instruction in part.instructions:
            if instruction.opcode == 0x12:  # DW_CFA_def_cfa_sf, which it scales by the code alignment
                register, offset = instruction.args
                instruction.opcode = type(instruction.opcode)(0x0C)
                instruction.args = [register, offset * entry.cie["data_alignment_factor"]]
            if instruction.opcode != 0x2E:  # DW_CFA_GNU_args_size, which it reads and then can't apply
                kept.append(instruction)
        part.instructions = kept
    table: list[dict[Any, Any]] = entry.get_decoded().table
    return table


def _rule(line: dict[Any, Any], cie: Any) -> Rule | None:
    cfa = line["cfa"]
    if cfa.expr is None and not (cfa.reg is not None and cfa.reg < _COLUMNS):
        return None
    registers = sorted(
        (number, rule.type, bytes(rule.arg) if isinstance(rule.arg, list) else rule.arg or 0)
        for number, rule in line.items()
        if isinstance(number, int) and number < _COLUMNS and rule.type != "SAME_VALUE"
    )
    where: Cfa = ("reg", cfa.reg, cfa.offset) if cfa.expr is None else ("expr", bytes(cfa.expr))
    signal = b"S" in cie.header["augmentation"]
    return where, tuple(registers), cie["return_address_register"], signal


def rule_at(table: RuleTable, row: int) -> Rule | None:
    """Return the rule of one row of a RuleTable in the same form."""
    index = int(table.rule[row])
    if index == tables.NO_RULE:
        return None
    kind, register, offset, flags, first, count = table.rules[index].tolist()
    cfa: Cfa = ("reg", register, offset) if kind == tables.CFA_REG else ("expr", _block(table, offset))
    registers = []
    for number, what, value in sorted(table.saved[first : first + count].tolist()):
        is_block = what in {tables.REG_EXPR, tables.REG_VAL_EXPR}
        registers.append((number, _KINDS[what], _block(table, value) if is_block else value))
    return cfa, tuple(registers), flags >> 8 & 0xFF, bool(flags & tables.SIGNAL_FRAME)


def check(table: RuleTable) -> None:
    """Assert what the walker relies on: order, and that every reference stays within its column."""
    assert (np.diff(table.rva.astype(np.int64)) >= 0).all()
    assert len(table.rva) == len(table.rule)
    used = table.rule[table.rule != tables.NO_RULE]
    assert (used < len(table.rules)).all()
    kind, register, value, flags, first, count = table.rules.T
    assert np.isin(kind, (tables.CFA_REG, tables.CFA_EXPR)).all()
    assert ((register >= 0) & (register < _COLUMNS)).all()
    assert ((flags >> 8 >= 0) & (flags >> 8 < _COLUMNS)).all()
    assert ((first >= 0) & (count >= 0) & (count <= _COLUMNS) & (first + count <= len(table.saved))).all()
    number, what, argument = table.saved.T
    assert ((number >= 0) & (number < _COLUMNS)).all()
    assert np.isin(what, list(_KINDS)).all()
    for ref in (*value[kind == tables.CFA_EXPR], *argument[np.isin(what, (tables.REG_EXPR, tables.REG_VAL_EXPR))]):
        _block(table, int(ref))


def _block(table: RuleTable, ref: int) -> bytes:
    data = table.expr.tobytes()
    assert ref >= 0
    length = shift = 0
    while data[ref] & 0x80:
        length |= (data[ref] & 0x7F) << shift
        shift += 7
        ref += 1
    length |= data[ref] << shift
    assert ref + 1 + length <= len(data)
    return data[ref + 1 : ref + 1 + length]
