"""The fault that stopped a thread: which address, which access, by which instruction, and what that suggests.

What the report tells is kept. What it leaves open is worked out where it follows from registers, mappings and the
instruction; what is only likely becomes a note that says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.analysis import signs
from deadreckon.analysis.access import register_value
from deadreckon.analysis.areas import Areas
from deadreckon.analysis.instruction import disassemble
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS

if TYPE_CHECKING:
    from deadreckon.analysis.access import Access, Read
    from deadreckon.analysis.instruction import Instruction
    from deadreckon.model.crash import RawCrash, RawException, RawThread

__all__ = ["Fault", "analyse"]

_MEMORY_FAULTS = (
    "SIGSEGV",
    "SIGBUS",
    "EXC_BAD_ACCESS",
    "EXCEPTION_ACCESS_VIOLATION",
    "EXCEPTION_IN_PAGE_ERROR",
    "EXCEPTION_GUARD_PAGE",
    "EXCEPTION_STACK_OVERFLOW",
)
_OTHER_FAULTS = (
    *("SIGILL", "SIGFPE", "SIGTRAP", "EXC_BAD_INSTRUCTION", "EXC_ARITHMETIC", "EXC_BREAKPOINT"),
    *("EXCEPTION_ILLEGAL_INSTRUCTION", "EXCEPTION_PRIV_INSTRUCTION", "EXCEPTION_INT_", "EXCEPTION_FLT_"),
    *("EXCEPTION_BREAKPOINT", "EXCEPTION_DATATYPE_MISALIGNMENT", "EXCEPTION_ARRAY_BOUNDS_EXCEEDED"),
    "EXCEPTION_STACK_BUFFER_OVERRUN",
)
_AFTER_TRAP = ("SIGTRAP", "EXC_BREAKPOINT")
"""Windows moves the program counter back to the breakpoint itself, the others don't."""


@dataclass(slots=True)
class Fault:
    """What is known of a fault: ``access`` is read, write or execute; ``notes`` are for people, the firmest first."""

    address: int | None = None
    access: str | None = None
    instruction: str | None = None
    notes: list[str] = field(default_factory=list)


def analyse(crash: RawCrash, exception: RawException, read: Read | None = None) -> Fault:
    """Return what is known of an exception's fault; of one that is no fault of the processor's, what the report says.

    ``read`` gives memory, by default what the report holds: whoever has the executables can give their code as well.
    """
    fault = Fault(exception.address, exception.access)
    kind = exception.type or ""
    if not kind.startswith(_MEMORY_FAULTS + _OTHER_FAULTS) or _was_sent(exception):
        return fault
    thread = _thread_of(crash, exception)
    scene = _Scene(crash, exception, thread, _program_counter(thread), Areas(crash), fault)
    if kind.startswith(_MEMORY_FAULTS) and scene.is_fetch():
        fault.access = "execute"
        if (to := scene.pc if fault.address is None else fault.address) is not None:
            fault.notes += signs.jump(to, crash.arch, scene.areas, scene.sp)
        return fault
    if thread is not None and thread.registers is not None:
        after = kind.startswith(_AFTER_TRAP)
        scene.instruction = disassemble(thread.registers, read or crash.memory.read, after_trap=after)
    if scene.instruction is not None:
        fault.instruction = scene.instruction.text
        if scene.instruction.trap:
            fault.notes.append("a trap instruction: the program or its compiler put it there, to stop")
    if kind.startswith(_MEMORY_FAULTS):
        scene.find_access()
        scene.add_signs()
    return fault


def _was_sent(exception: RawException) -> bool:
    """Whether a process sent the signal: it has a code and no address; so has a breakpoint, with SI_KERNEL."""
    return exception.address is None and not exception.address_hidden and exception.value not in {"", "SI_KERNEL"}


def _thread_of(crash: RawCrash, exception: RawException) -> RawThread | None:
    named = [t for t in crash.threads if t.id == exception.thread_id] if exception.thread_id is not None else []
    found = [t for t in named or crash.threads if t.crashed]
    return found[0] if len(found) == 1 else None


def _program_counter(thread: RawThread | None) -> int | None:
    if thread is None:
        return None
    if thread.registers is not None:
        return thread.registers.pc
    first = thread.frames[0] if thread.frames else None
    return None if first is None or first.is_return_address else first.instruction_addr


@dataclass(slots=True)
class _Scene:
    """One fault and its circumstances."""

    crash: RawCrash
    exception: RawException
    thread: RawThread | None
    pc: int | None
    areas: Areas
    fault: Fault
    instruction: Instruction | None = None
    hits: list[Access] = field(default_factory=list)
    """The instruction's accesses that give the fault's address."""

    @property
    def sp(self) -> int | None:
        """The thread's stack pointer."""
        return self.thread.registers.sp if self.thread is not None and self.thread.registers is not None else None

    @property
    def accesses(self) -> list[Access]:
        """The instruction's accesses, as far as it is known."""
        return [] if self.instruction is None else self.instruction.accesses

    @property
    def unspecific(self) -> bool:
        """Whether the report may hide that it has no address: where writers leave si_code 0, SI_KERNEL is not seen."""
        named = (self.exception.type or "").startswith(("SIGSEGV", "SIGBUS"))
        return named and self.crash.arch is Arch.X86_64 and self.exception.value.startswith("at ")

    def is_fetch(self) -> bool:
        """Whether the instruction itself could not be fetched.

        Where the address is the program counter's, it was: whoever runs an instruction can read it. Processors that
        know no other than read and write call it a read.
        """
        if self.fault.access == "execute":
            return True
        if self.fault.address is None or self.pc is None or self.exception.address_hidden:
            return False
        same = self._bare(self.fault.address) == self._bare(self.pc)
        return same and self.fault.access != "write"

    def find_access(self) -> None:
        """Find which of the instruction's accesses faulted, and with it the address where none was told."""
        address = self.fault.address
        if address is not None:
            self.hits = [a for a in self.accesses if self._covers(a, address)]
        if not self.hits and (self.exception.address_hidden or self._stands_for_none(address)):
            self._find_hidden()
        elif address is None:
            self._without_address()
        elif self.hits:
            self._take_kind(self.hits)
        elif len(self.accesses) == 1 and self.accesses[0].address is None:
            self._take_kind(self.accesses)  # It must be this one, though nobody can compute where it was.
        elif self.accesses and all(a.address is not None for a in self.accesses):
            said = ", ".join(f"{a.text} is {a.address:#x}" for a in self.accesses)
            self.fault.notes.append(f"the instruction does not lead to the address: {said}")
        self._by_protection()

    def _take_kind(self, accesses: list[Access]) -> None:
        kinds = {a.kind for a in accesses}
        if self.fault.access is None and len(kinds) == 1:
            self.fault.access = kinds.pop()

    def _stands_for_none(self, address: int | None) -> bool:
        """Whether address 0, to which nothing leads, stands for one that the processor does not tell."""
        if address or not self.unspecific:
            return False
        at = [a.address for a in self.accesses] + [self.instruction.target if self.instruction else None]
        return any(a is not None and not signs.canonical(a) for a in at)

    def _find_hidden(self) -> None:
        """Find the address of a general protection fault: the operand that could not have been anything else's."""
        fault, found = self.fault, self.instruction
        wild = [a for a in self.accesses if a.address is not None and self._not_canonical(a.address)]
        if wild and len({a.address for a in wild}) == 1:
            self.hits = wild
            fault.address, fault.access = wild[0].address, None
            self._take_kind(wild)
            said = register_value(wild[0].operands)
            fault.notes.append(f"non-canonical address, which the processor does not report: {wild[0].text}, {said}")
        elif wild:
            said = ", ".join(f"{a.text} is {a.address:#x}" for a in wild)
            fault.notes.append(f"non-canonical address, which the processor does not report: one of {said}")
        elif found is not None and found.target is not None and self._not_canonical(found.target):
            fault.address, fault.access = found.target, "execute"
            fault.notes.append("jump to a non-canonical address, which the processor does not report")
        elif found is not None and found.misaligned is not None:
            self.hits = [found.misaligned]
            fault.address, fault.access = found.misaligned.address, None
            self._take_kind(self.hits)
            fault.notes.append(f"misaligned: {found.misaligned.text} is no multiple of {found.alignment}")
        elif found is not None and found.privileged:
            fault.notes.append("a privileged instruction")
        else:
            held = self._wild_registers() if found is None else ""
            fault.notes.append(
                "the processor reports no address, as for one that is non-canonical"
                + (f"; possibly through {held}" if held else "")
            )

    def _wild_registers(self) -> str:
        registers = self.thread.registers if self.thread is not None else None
        if registers is None or registers.arch is not Arch.X86_64:
            return ""
        names = REGISTER_SETS[registers.arch].names
        held = [(name, registers.get(i)) for i, name in enumerate(names)]
        return ", ".join([f"{n} ({v:#x})" for n, v in held if v is not None and not signs.canonical(v)][:4])

    def _without_address(self) -> None:
        """Say what the instruction was about to do: qemu's cores tell a signal, and nothing about it."""
        for access in self.accesses:
            if access.address is not None and not self.areas.allows(access.address, access.kind or "read"):
                self.fault.notes.append(
                    f"the report has no address; the instruction's {access.text} is {access.address:#x}"
                )

    def _by_protection(self) -> None:
        """Tell a write by the mapping: reading from there is allowed, and it was no fetch."""
        fault, said = self.fault, self.exception.value
        if fault.access is not None or fault.address is None or not (self.exception.type or "").startswith(_PROTECTED):
            return
        area = self.areas.at(fault.address)
        if area is not None and area.readable and not area.writable and not said.startswith(_UNMAPPED):
            fault.access = "write"

    def add_signs(self) -> None:
        """Add notes on what address and registers look like."""
        fault, arch = self.fault, self.crash.arch
        address = fault.address
        if address is None or fault.access == "execute" or (self.exception.address_hidden and not self.hits):
            return
        word = 8 * arch.word_size
        overflow = signs.stack_overflow(address, self.sp, self.areas, self.exception.type or "")
        reported = bool(self.hits) or not self.unspecific
        null = None if overflow else signs.null(address, word, self.hits, reported=reported)
        found = [overflow, null]
        if not overflow and not null:
            found.append(signs.protection(address, fault.access, self.areas))
            if arch is Arch.ARM64:
                found.append(signs.arm64_pointer(address, self.hits, self.exception.value))
            found += signs.patterns(address, word, self.hits)
        fault.notes += [note for note in found if note]

    def _covers(self, access: Access, address: int) -> bool:
        return access.address is not None and 0 <= self._bare(address) - self._bare(access.address) < access.size

    def _bare(self, address: int) -> int:
        """Return an address without the tag that ARM64 ignores in its top byte."""
        return address & (1 << 56) - 1 if self.crash.arch is Arch.ARM64 else address

    def _not_canonical(self, address: int) -> bool:
        return self.crash.arch is Arch.X86_64 and not signs.canonical(address)


_PROTECTED = ("SIGSEGV", "EXC_BAD_ACCESS")
"""Faults that a readable mapping does not raise for reads; an end of file behind it (SIGBUS) does."""
_UNMAPPED = ("SEGV_MAPERR", "KERN_INVALID_ADDRESS")
