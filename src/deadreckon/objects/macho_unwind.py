"""Mach-O files: unwind information to a RuleTable.

Sources: ``__TEXT,__unwind_info`` as compact_unwind.py reads it; ``__TEXT,__eh_frame`` (LSB) and, in dSYM files,
``__DWARF,__debug_frame`` (DWARF 5, 6.4). Where a function has both, DWARF is used: it says the same of the body, and
knows the prologue too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.model.tables import CFA_REG, NO_RULE, REG_EXPR, REG_REGISTER, REG_VAL_EXPR, RuleTable
from deadreckon.objects import compact_unwind
from deadreckon.objects.rulemerge import merge

if TYPE_CHECKING:
    from deadreckon.objects.macho_code import MachImage, Section

__all__ = ["ARCHITECTURES", "MachRules", "read"]

ARCHITECTURES = (Arch.X86, Arch.X86_64, Arch.ARM64)
"""Whose encodings are known; 32-bit ARM has others, in watches only."""
_MAX_SECTION = 1 << 30
_EBP, _ESP = 4, 5
"""Darwin's numbers in the ``__eh_frame`` of 32-bit x86; everywhere else esp is 4 and ebp 5."""


@dataclass(slots=True)
class MachRules:
    """The rules of a slice, and one message for each kind of thing that was lost."""

    rules: RuleTable = field(default_factory=RuleTable.empty)
    problems: list[str] = field(default_factory=list)


def read(data: bytes | memoryview, image: MachImage) -> MachRules:
    """Lower a slice's unwind information; ``data`` is the whole file's, ``image`` is what macho_code read of it."""
    found = MachRules()
    sections = {(s.segment, s.name): s for s in image.sections}
    frames = sections.get(("__TEXT", "__eh_frame"))
    if frames is not None:
        rules = _frames(data, image, frames, is_eh=True)
        found.rules = _renumbered(rules) if image.arch is Arch.X86 else rules
    frames = sections.get(("__DWARF", "__debug_frame"))
    if frames is not None:
        found.rules = merge(found.rules, _frames(data, image, frames, is_eh=False))
    info = sections.get(("__TEXT", "__unwind_info"))
    if info is not None and info.offset:
        code = sorted(s for s in image.sections if s.is_code and s.offset)
        source = compact_unwind.CompactUnwind(
            _content(data, info), image.arch, lambda rva, size: _code(data, code, image.base + rva, size), image.starts
        )
        try:
            rules, problems = compact_unwind.read(source)
        except Malformed as e:
            rules, problems = RuleTable.empty(), [str(e)]
        found.rules = merge(found.rules, rules)
        found.problems.extend(problems)
    return found


def _content(data: bytes | memoryview, section: Section) -> bytes:
    return bytes(data[section.offset : section.offset + min(section.size, _MAX_SECTION)]) if section.offset else b""


def _code(data: bytes | memoryview, sections: list[Section], address: int, size: int) -> bytes:
    for section in sections:
        at = address - section.address
        if at >= 0 and at + size <= section.size:
            return bytes(data[section.offset + at : section.offset + at + size])
    return b""


def _frames(data: bytes | memoryview, image: MachImage, section: Section, *, is_eh: bool) -> RuleTable:
    from deadreckon.kernels.cfi import rules_from_frames  # noqa: PLC0415  (numba is loaded when a table is built)

    return rules_from_frames(
        np.frombuffer(_content(data, section), np.uint8),
        is_eh=is_eh,
        section_addr=section.address,
        image_base=image.base,
        pointer_size=image.arch.word_size,
    )


def _renumbered(table: RuleTable) -> RuleTable:
    """Return a table with esp and ebp exchanged; rules with expressions, which name registers too, are left out."""
    swap = np.arange(256, dtype=np.int32)
    swap[[_EBP, _ESP]] = _ESP, _EBP
    rules, saved = table.rules.copy(), table.saved.copy()
    rules[:, 1] = swap[rules[:, 1] & 0xFF]
    saved[:, 0] = swap[saved[:, 0] & 0xFF]
    moved = saved[:, 1] == REG_REGISTER
    saved[moved, 2] = swap[saved[moved, 2] & 0xFF]
    computed = np.append(0, np.cumsum(np.isin(saved[:, 1], (REG_EXPR, REG_VAL_EXPR))))
    lost = (rules[:, 0] != CFA_REG) | (computed[rules[:, 4] + rules[:, 5]] > computed[rules[:, 4]])
    lost = np.append(lost, True)
    rule = table.rule.copy()
    rule[lost[np.minimum(rule, len(rules))]] = NO_RULE
    return replace(table, rules=rules, saved=saved, rule=rule)
