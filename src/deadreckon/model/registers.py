"""Registers by DWARF number, for each architecture.

A thread's registers are one row of ``WIDTH`` u64 and a bit mask that says which of them are known. The column of a
register is its DWARF number; the program counter has a column of its own. Sources: System V psABI for i386 and x86-64
(table "DWARF Register Number Mapping"), "DWARF for the Arm Architecture" (AADWARF32, AADWARF64).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["REGISTER_SETS", "WIDTH", "RegisterSet", "Registers"]

WIDTH = 34
"""Columns of a register row: enough for the largest set (ARM64 with pc)."""


@dataclass(frozen=True, slots=True)
class RegisterSet:
    """The registers of one architecture; ``names[i]`` is DWARF register i."""

    arch: Arch
    names: tuple[str, ...]
    pc: int
    sp: int
    fp: int
    lr: int = -1
    """DWARF number of the link register, -1 where calls push the return address."""

    @property
    def word_size(self) -> int:
        """Size of a register in bytes."""
        return self.arch.word_size

    def index(self, name: str) -> int:
        """Return the DWARF number of a register in any usual spelling, -1 if it is not one of the set."""
        return _INDEX[self.arch].get(name.lstrip("$%").lower(), -1)


REGISTER_SETS: dict[Arch, RegisterSet] = {
    s.arch: s
    for s in (
        RegisterSet(Arch.X86, ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip"), pc=8, sp=4, fp=5),
        RegisterSet(
            Arch.X86_64,
            ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)), "rip"),
            pc=16,
            sp=7,
            fp=6,
        ),
        RegisterSet(Arch.ARM, (*(f"r{i}" for i in range(13)), "sp", "lr", "pc"), pc=15, sp=13, fp=11, lr=14),
        RegisterSet(Arch.ARM64, (*(f"x{i}" for i in range(29)), "fp", "lr", "sp", "pc"), pc=32, sp=31, fp=29, lr=30),
    )
}

_ALIASES: dict[Arch, dict[str, int]] = {
    Arch.X86: {},
    Arch.X86_64: {},
    Arch.ARM: {"r13": 13, "r14": 14, "r15": 15, "fp": 11, "ip": 12},
    Arch.ARM64: {"x29": 29, "x30": 30, "x31": 31},
}
_INDEX = {a: {n: i for i, n in enumerate(s.names)} | _ALIASES[a] for a, s in REGISTER_SETS.items()}


@dataclass(slots=True)
class Registers:
    """One thread's registers: ``values`` is u64[WIDTH] by DWARF number, bit i of ``valid`` says that i is known."""

    arch: Arch
    values: NDArray[np.uint64]
    valid: int
    others: dict[str, int] = field(default_factory=dict)
    """Registers that no unwinding needs, as the report names them: flags, segments."""

    @classmethod
    def from_mapping(cls, arch: Arch, values: Mapping[str, int], *, keep_others: bool = False) -> Registers:
        """Build a row from names; what is no register of the architecture's set is ignored, or kept as ``others``."""
        row = np.zeros(WIDTH, np.uint64)
        valid = 0
        others: dict[str, int] = {}
        known = REGISTER_SETS[arch]
        for name, value in values.items():
            index = known.index(name)
            if index >= 0:
                row[index] = value & 0xFFFF_FFFF_FFFF_FFFF
                valid |= 1 << index
            elif keep_others:
                others[name] = value
        return cls(arch, row, valid, others)

    def get(self, index: int) -> int | None:
        """Return the register with this DWARF number, None if unknown."""
        return int(self.values[index]) if self.valid >> index & 1 else None

    @property
    def pc(self) -> int | None:
        """The program counter."""
        return self.get(REGISTER_SETS[self.arch].pc)

    @property
    def sp(self) -> int | None:
        """The stack pointer."""
        return self.get(REGISTER_SETS[self.arch].sp)

    def as_hex(self) -> dict[str, str]:
        """Return the known registers by name, as an event shows them."""
        values = self.values.tolist()
        names = REGISTER_SETS[self.arch].names
        shown = {name: hex(values[i]) for i, name in enumerate(names) if self.valid >> i & 1}
        return shown | {name: hex(value) for name, value in self.others.items()}
