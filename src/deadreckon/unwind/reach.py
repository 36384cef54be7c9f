"""What of a process's memory unwinding may read: stacks, and the code that tells where they lead.

A stack is read from its pointer up. Where a signal handler has a stack of its own, the interrupted stack goes on
elsewhere; the frame that the kernel put there says where. Beside stacks, the walker looks at the instructions before
a word that may be a return address, and at those that return from a handler. Source: Linux,
``arch/*/include/uapi/asm/sigcontext.h``, ``ucontext.h`` and ``asm-generic/signal.h`` (``stack_t``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.model.ids import Arch
from deadreckon.unwind.walk import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from deadreckon.model.crash import RawCrash
    from deadreckon.model.registers import Registers

    Words = NDArray[np.uint64]

__all__ = ["MAX_STACK", "Space", "reach"]

MAX_STACK = 16 << 20
"""Bytes of one stack: its innermost end is what a crash is about."""

_RED_ZONE = 128
"""Below the stack pointer, used by leaf functions (System V ABI for x86-64, 3.2.2)."""
_MAX_OVERRUN = 1 << 20
_NEAR_REGISTER = 64
_NEAR_CODE = 32
"""Before and after a code address: longer than any call, or what returns from a signal handler."""
_MAX_CODE = 8 << 20
_MAX_SIGNAL_FRAMES = 64
_LOWEST = 0x1000
"""No stack begins below that: the page at 0 is nobody's."""
_MAX_ALTERNATE_STACK = 64 << 20
_SAVED_SP = {Arch.X86_64: 144, Arch.X86: 40, Arch.ARM64: 416, Arch.ARM: 76}
"""From ``uc_stack`` of a signal frame to the stack pointer saved in its ``uc_mcontext``."""


@dataclass(slots=True)
class Space:
    """A process's memory as far as it is at hand: ranges sorted by ``start``, and those of them that hold code."""

    start: Words
    end: Words
    code_start: Words
    code_end: Words
    read: Callable[[int, int], bytes]
    """Return the bytes from an address on; fewer where some are missing."""

    @classmethod
    def of(cls, crash: RawCrash) -> Space:
        """Return what a crash report holds; without regions, code is where modules are."""
        memory, regions = crash.memory, crash.regions
        if regions is not None:
            holds = (regions.access & 4) != 0
            code_start, code_end = regions.start[holds], regions.end[holds]
        else:
            spans = sorted((m.image_addr, m.end) for m in crash.modules)
            code_start = np.array([start for start, _ in spans], np.uint64)
            code_end = np.array([min(end, (1 << 64) - 1) for _, end in spans], np.uint64)
        return cls(memory.start, memory.end, code_start, code_end, lambda start, size: memory.read(start, size) or b"")

    def range(self, address: int) -> tuple[int, int] | None:
        """Return the range that holds an address."""
        i = int(np.searchsorted(self.start, np.uint64(address), side="right")) - 1
        return (int(self.start[i]), int(self.end[i])) if i >= 0 and address < self.end[i] else None

    def above(self, address: int) -> tuple[int, int] | None:
        """Return the range next above an address: a stack that ran over has its pointer below its memory."""
        i = int(np.searchsorted(self.start, np.uint64(address), side="right"))
        if i == len(self.start) or int(self.start[i]) - address > _MAX_OVERRUN:
            return None
        return int(self.start[i]), int(self.end[i])


def reach(arch: Arch, threads: Iterable[Registers], space: Space, mask: int, limit: int) -> list[tuple[int, bytes]]:
    """Return (address, bytes), by address and without overlaps, of what unwinding these threads may read.

    ``mask`` keeps the bits of a code address. At most ``limit`` bytes of stacks are taken, the threads' in their order.
    """
    if arch not in ARCHITECTURES:
        return []
    taken = _Taken(space)
    size = arch.word_size
    for registers in threads:
        row = registers.values[[i for i in range(len(registers.values)) if registers.valid >> i & 1]]
        taken.add_code(row & np.uint64(mask))
        for value in row.tolist():
            taken.add(value, _RED_ZONE, _NEAR_REGISTER)
        pointers = [registers.sp] if registers.sp is not None else []
        seen: set[int] = set()
        while pointers and limit > 0:
            sp = pointers.pop()
            held = space.range(sp) or space.above(sp)
            if held is None or sp in seen or len(seen) == _MAX_SIGNAL_FRAMES:
                continue
            seen.add(sp)
            at = max(sp & -size, held[0])
            end = min(held[1], at + min(MAX_STACK, limit))
            limit -= end - at
            taken.add(at, _RED_ZONE, end - at)
            block = space.read(at, (end - at) // size * size)
            stack = np.frombuffer(block[: len(block) // size * size], f"<u{size}").astype(np.uint64)
            taken.add_code(stack & np.uint64(mask))
            pointers += _interrupted(stack, at, size, _SAVED_SP[arch])
    return taken.content()


def _interrupted(stack: Words, at: int, size: int, saved_sp: int) -> list[int]:
    """Return the stack pointers that signals interrupted, of the frames on an alternate stack.

    In such a frame is a ``stack_t`` {ss_sp, ss_flags, ss_size} of the stack that it lies on itself, which no other
    three words are but by rare chance.
    """
    if len(stack) < 3:
        return []
    here = np.uint64(at) + np.arange(len(stack) - 2, dtype=np.uint64) * np.uint64(size)
    base, length = stack[:-2], stack[2:]
    is_one = (base >= _LOWEST) & (base <= here) & (here - base < length) & (length <= _MAX_ALTERNATE_STACK)
    is_one &= (stack[1:-1] & np.uint64(0x7FFF_FFFF)) <= 1  # ss_flags, an int: SS_ONSTACK or not, maybe SS_AUTODISARM.
    slots = np.flatnonzero(is_one)[:_MAX_SIGNAL_FRAMES] + saved_sp // size
    return [int(v) for v in stack[slots[slots < len(stack)]].tolist() if v >= _LOWEST]


class _Taken:
    """Pieces of memory to be taken, each cut to what is at hand."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._pieces: set[tuple[int, int, int]] = set()
        """(start, end, start of the range that it lies in)."""
        self._code_left = _MAX_CODE

    def add(self, address: int, before: int, after: int) -> None:
        """Take what there is around an address, of the range that it lies in or just behind."""
        held = self._space.range(address) or (self._space.range(address - 1) if address else None)
        if held is not None:
            self._pieces.add((max(address - before, held[0]), min(address + after, held[1]), held[0]))

    def add_code(self, words: Words) -> None:
        """Take the instructions around each word that is an address of code."""
        space = self._space
        for start, end in ((space.code_start, space.code_end), (space.start, space.end)):
            if not len(start):
                return
            i = np.searchsorted(start, words, side="right") - 1
            words = words[(i >= 0) & (words <= end[np.maximum(i, 0)])]
        for address in np.unique(words)[: self._code_left // (2 * _NEAR_CODE)].tolist():
            self._code_left -= 2 * _NEAR_CODE
            self.add(address, _NEAR_CODE, _NEAR_CODE)

    def content(self) -> list[tuple[int, bytes]]:
        """Read the pieces, joined where they touch within a range."""
        joined: list[list[int]] = []
        for start, end, held in sorted(self._pieces):
            if joined and start <= joined[-1][1] and held == joined[-1][2]:
                joined[-1][1] = max(joined[-1][1], end)
            elif start < end:
                joined.append([start, end, held])
        read = ((start, self._space.read(start, end - start)) for start, end, _ in joined)
        return [(start, data) for start, data in read if data]
