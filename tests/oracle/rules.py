"""One rule of a RuleTable on Python integers, as model/tables.py describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deadreckon.model import tables
from oracle.expression import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadreckon.model.tables import RuleTable
    from oracle.expression import Read


def index_at(table: RuleTable, rva: int) -> int | None:
    """Return the index of the rule at an address, None where there is none."""
    row = int(np.searchsorted(table.rva, rva, side="right")) - 1
    index = int(table.rule[row]) if row >= 0 else tables.NO_RULE
    return None if index == tables.NO_RULE else index


def apply(
    table: RuleTable, rva: int, registers: Mapping[int, int], read: Read, *, pc: int, sp: int, word: int = 8
) -> dict[int, int] | None:
    """Return the caller's registers at an address, None where the rule can't tell or where there is none.

    Registers that a rule doesn't name stay as they are; those it gives up are left out.
    """
    index = index_at(table, rva)
    if index is None:
        return None
    kind, register, value, flags, first, count = table.rules[index].tolist()
    code = table.expr.tobytes()
    mask = (1 << 8 * word) - 1

    def block(at: int, cfa: int | None) -> int | None:
        length = shift = 0
        while code[at] & 0x80:
            length |= (code[at] & 0x7F) << shift
            shift += 7
            at += 1
        length |= code[at] << shift
        return evaluate(code[at + 1 :][:length], word=word, registers=registers, cfa=cfa, read=read)

    cfa = block(value, None) if kind == tables.CFA_EXPR else registers[register] + value
    if cfa is None:
        return None
    caller = dict(registers)
    caller[sp] = cfa & mask
    for number, what, offset in table.saved[first : first + count].tolist():
        found: int | None = None
        if what == tables.REG_OFFSET:
            found = read(cfa + offset & mask, word)
        elif what == tables.REG_REGISTER:
            found = registers.get(offset)
        elif what == tables.REG_EXPR:
            at = block(offset, cfa)
            found = None if at is None else read(at, word)
        else:
            assert what == tables.REG_UNDEFINED
        caller.pop(number, None)
        if found is not None:
            caller[number] = found
    ra = flags >> 8 & 0xFF
    if ra not in caller:
        return None
    caller[pc] = caller[ra]
    return caller
