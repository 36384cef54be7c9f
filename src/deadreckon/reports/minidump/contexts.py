"""CPU contexts: the registers of many threads, gathered from a dump in one step.

Sources: ``CONTEXT`` of winnt.h for x86, AMD64 and ARM64; ``MDRawContextARM`` and ``MDRawContextARM64_Old`` of
Breakpad's ``minidump_cpu_*.h``. A context may be longer than its structure: Windows appends XSAVE and CET state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.model.ids import Arch
from deadreckon.model.registers import WIDTH, Registers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["CONTEXTS", "Context", "read_contexts"]


class Context(NamedTuple):
    """Where one CPU's context holds its flags and its registers, in bytes; ``registers`` is by DWARF number."""

    arch: Arch
    size: int
    flags: int
    cpu: int
    """The bits of ContextFlags that name the CPU; one of them must be set."""
    registers: tuple[int, ...]
    cpsr: int = -1
    """Where ARM's status register is, whose bit 5 says that the code is Thumb."""

    @property
    def needed(self) -> int:
        """Bytes that must be there for the registers to be read."""
        return max(self.registers) + self.arch.word_size


CONTEXTS = (
    Context(
        Arch.X86_64,
        1232,
        flags=48,
        cpu=0x100000,
        # rax rdx rcx rbx rsi rdi rbp rsp: CONTEXT has them in the order of their encoding, rax rcx rdx rbx rsp ...
        registers=(120, 136, 128, 144, 168, 176, 160, 152, *range(184, 248, 8), 248),
    ),
    Context(Arch.X86, 716, flags=0, cpu=0x10000, registers=(176, 172, 168, 164, 196, 180, 160, 156, 184)),
    # 0x400000 is Microsoft's CONTEXT_ARM64 (912 bytes, 32-bit flags), 0x80000000 Breakpad's MD_CONTEXT_ARM64_OLD (796
    # bytes, 64-bit flags). What follows the flags differs (cpsr moved), x0-x28, fp, lr, sp and pc do not.
    Context(Arch.ARM64, 796, flags=0, cpu=0x80400000, registers=tuple(range(8, 272, 8))),
    # 0x40000000 is Breakpad's MD_CONTEXT_ARM, 0x200000 Microsoft's; r0-r15 stand in the same place.
    Context(Arch.ARM, 368, flags=0, cpu=0x40200000, registers=tuple(range(4, 68, 4)), cpsr=68),
)


def _gather_index(context: Context) -> NDArray[np.int64]:
    """Return the offsets of every byte to gather: the flags', then each register's."""
    word = context.arch.word_size
    starts = np.array(context.registers, np.int64)
    registers = (starts[:, None] + np.arange(word)).ravel()
    return np.concatenate([np.arange(context.flags, context.flags + 4), registers])


_GATHER = {context: _gather_index(context) for context in CONTEXTS}


_FEW = 8


def _gather(
    buffer: NDArray[np.uint8], rvas: list[int], context: Context, rows: NDArray[np.uint64]
) -> NDArray[np.uint32]:
    """Fill the registers of many contexts, and return their flags."""
    raw = buffer[np.array(rvas, np.int64)[:, None] + _GATHER[context]]
    rows[:, : len(context.registers)] = raw[:, 4:].view(f"<u{context.arch.word_size}")
    flags: NDArray[np.uint32] = raw[:, :4].view("<u4")[:, 0]
    return flags


def _one_by_one(
    buffer: NDArray[np.uint8], rvas: list[int], context: Context, rows: NDArray[np.uint64]
) -> NDArray[np.uint32]:
    """Do the same for a small dump, of which thousands come."""
    word = context.arch.word_size
    flags = []
    for row, rva in zip(rows, rvas, strict=True):
        raw = buffer[rva : rva + context.needed].tobytes()
        flags.append(int.from_bytes(raw[context.flags : context.flags + 4], "little"))
        row[: len(context.registers)] = [int.from_bytes(raw[at : at + word], "little") for at in context.registers]
    return np.array(flags, np.uint32)


def read_contexts(
    buffer: NDArray[np.uint8], locations: Sequence[tuple[int, int]], arch: Arch
) -> list[Registers | None]:
    """Read the contexts at (size, rva) locations; None for one that is absent, cut short or of no known CPU.

    A context's own flags have the last word: a 64-bit writer of a 32-bit process says AMD64 in its system information.
    """
    found: list[Registers | None] = [None] * len(locations)
    pending = [i for i, (size, rva) in enumerate(locations) if size and rva]
    for context in sorted(CONTEXTS, key=lambda c: c.arch is not arch):
        if not pending:
            break
        # A context of the dump's CPU need only be long enough and have its bit. One of another CPU must have its full
        # size and say no more than that CPU's name: another structure has anything where this one has its flags.
        own = context.arch is arch
        least = context.needed if own else context.size
        fit = [i for i in pending if locations[i][0] >= least and locations[i][1] + context.needed <= len(buffer)]
        if not fit:
            continue
        count = len(context.registers)
        rows = np.zeros((len(fit), WIDTH), np.uint64)
        flags = (_one_by_one if len(fit) <= _FEW else _gather)(buffer, [locations[i][1] for i in fit], context, rows)
        valid = (1 << count) - 1
        named = flags & context.cpu != 0
        if not own:
            named &= flags & ~np.uint32(context.cpu | 0xFFFF) == 0
        for i, row, known in zip(fit, rows, named.tolist(), strict=True):
            if known:
                found[i] = registers = Registers(context.arch, row, valid)
                at = locations[i][1] + context.cpsr
                if context.cpsr >= 0 and locations[i][0] >= context.cpsr + 4 and at + 4 <= len(buffer):
                    registers.others["cpsr"] = int.from_bytes(buffer[at : at + 4].tobytes(), "little")
        pending = [i for i in pending if found[i] is None]
    return found
