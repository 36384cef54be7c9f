"""Accesses to memory, as an instruction's operands make them: what every architecture's file here returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from deadreckon.model.registers import REGISTER_SETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.registers import Registers

    Read = Callable[[int, int], bytes | None]
    """Memory: address and size to bytes, None where it is not at hand."""

__all__ = ["Access", "Operand", "Read", "Value", "register_value"]


class Operand(NamedTuple):
    """A register of an address, with the value it had."""

    register: str
    value: int


class Access(NamedTuple):
    """One access: ``kind`` is read or write (None: both, or not known), ``size`` in bytes, at least what is touched.

    ``address`` is None where it can't be computed; ``text`` is the operand as an assembler writes it.
    """

    kind: str | None
    address: int | None
    size: int
    text: str
    operands: tuple[Operand, ...] = ()


class Value:
    """The registers of a thread, by the names that a disassembler uses."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._set = REGISTER_SETS[registers.arch]
        self.word = self._set.word_size
        self.mask = (1 << 8 * self.word) - 1

    def __call__(self, name: str) -> int | None:
        """Return a register's value, None where it is unknown, not a general register, or part of one."""
        index = self._set.index(name)
        return None if index < 0 else self._registers.get(index)

    @property
    def sp(self) -> int | None:
        """The stack pointer."""
        return self._registers.get(self._set.sp)

    def low(self, name: str) -> int | None:
        """Return the low 32 bits of a register."""
        value = self(name)
        return None if value is None else value & 0xFFFF_FFFF


def register_value(operands: tuple[Operand, ...]) -> str:
    """Write registers with their values: "rax is 0x0, rcx is 0x10"."""
    return ", ".join(f"{o.register} is {o.value:#x}" for o in operands)
