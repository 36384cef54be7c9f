"""Faults, from whole reports: built ones, the project's fixtures, and the corpus against other tools."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.analysis import instruction
from deadreckon.analysis.fault import analyse
from deadreckon.analysis.instruction import disassemble
from deadreckon.config import ReportLimits
from deadreckon.describe import exception_info
from deadreckon.errors import DeadreckonError
from deadreckon.model.crash import MemoryMap, RawCrash, RawException, RawFrame, RawThread, Regions
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports import elfcore, minidump
from synth.elfcore import EXECUTE, PAGE, READ, WRITE, Core
from synth.minidump import (
    AMD64,
    LINUX,
    MACOS,
    WINDOWS,
    X86,
    Minidump,
    context_amd64,
    context_x86,
    read_built,
)

if TYPE_CHECKING:
    from deadreckon.model.event import ExceptionInfo

LIMITS = ReportLimits()
TEXT, STACK = 0x40_0000, 0x7FFF_0000
LINUX_DUMPS = Path(__file__).parent.parent.parent / "native_fixtures" / "linux"
needs_disasm = pytest.mark.skipif(instruction.backend() is None, reason="no disassembler is installed")


@pytest.fixture
def no_disasm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the disassembler absent."""
    monkeypatch.setattr(instruction, "backend", lambda: None)


def told(crash: RawCrash) -> ExceptionInfo:
    (exception,) = crash.exceptions
    return exception_info(crash, exception)


def kinds(info: ExceptionInfo) -> list[str]:
    return [note.split(":")[0] for note in info.notes or []]


def dump(
    platform: int, code: int, machine_code: str = "90", *, cpu: int = AMD64, flags: int = 0, address: int = 0,
    information: tuple[int, ...] = (), maps: str = "", stack: bytes = bytes(256), **registers: int,
) -> RawCrash:  # fmt: skip
    """Return a crash at TEXT + 0x100, with its code and a bit of stack."""
    made = Minidump()
    made.system(cpu, platform)
    if cpu == AMD64:
        context = context_amd64({"rip": TEXT + 0x100, "rsp": STACK + 0x80, **registers})
    else:
        context = context_x86({"eip": TEXT + 0x100, "esp": STACK + 0x80, **registers})
    made.thread(1, context, (STACK, stack))
    made.module(TEXT, 0x2000, "/opt/app")
    made.memory(TEXT + 0x100, bytes.fromhex(machine_code).ljust(32, b"\x90"))
    if maps:
        made.stream(0x47670009, maps.encode())
    made.exception(1, code, flags=flags, address=address, information=information, context=context)
    return read_built(made)


MAPS = "00400000-00402000 r-xp 0 0:0 0 /opt/app\n7fff0000-7fff8000 rw-p 0 0:0 0 [stack]\n"
WILD = 0x5DEA_DBEE_FDEA_DBE0
KERNEL = 0x80


@needs_disasm
def test_a_hidden_address_is_found_in_the_instruction() -> None:
    crash = dump(LINUX, 11, "8b4710", flags=KERNEL, rdi=WILD)  # mov eax, [rdi + 0x10]
    assert (crash.exceptions[0].address, crash.exceptions[0].address_hidden) == (None, True)
    info = told(crash)
    assert (info.type, info.value, info.address) == ("SIGSEGV", f"SI_KERNEL at {WILD + 16:#x}", hex(WILD + 16))
    assert (info.access, info.instruction) == ("read", "mov eax, dword ptr [rdi + 0x10]")
    assert info.notes == [f"non-canonical address, which the processor does not report: [rdi + 0x10], rdi is {WILD:#x}"]


@needs_disasm
@pytest.mark.parametrize(
    ("code", "registers", "access", "address", "note"),
    [
        ("f30f1107", {"rdi": WILD}, "write", WILD, "non-canonical address, which"),  # movss [rdi], xmm0
        ("50", {"rsp": WILD}, "write", WILD - 8, "non-canonical address, which"),  # push
        ("48a5", {"rsi": TEXT, "rdi": WILD}, "write", WILD, "non-canonical address, which"),  # movsq
        ("48a5", {"rsi": WILD, "rdi": WILD + 8}, None, None, "non-canonical address, which"),
        ("ffd0", {"rax": WILD}, "execute", WILD, "jump to a non-canonical address"),
        ("c3", {"rsp": STACK + 0x10}, "execute", WILD, "jump to a non-canonical address"),
        ("0f2807", {"rdi": STACK + 8}, "read", STACK + 8, "misaligned"),  # movaps
        ("0f30", {}, None, None, "a privileged instruction"),  # wrmsr
        ("8b07", {"rdi": STACK}, None, None, "the processor reports no address"),
    ],
)
def test_general_protection_faults(
    code: str, registers: dict[str, Any], access: str | None, address: int | None, note: str
) -> None:
    stack = bytes(16) + WILD.to_bytes(8, "little") + bytes(240)
    info = told(dump(LINUX, 11, code, flags=KERNEL, stack=stack, **registers))
    assert (info.access, info.address) == (access, None if address is None else hex(address))
    assert (info.notes or [""])[0].startswith(note)


@needs_disasm
def test_windows_says_that_all_ones_were_read() -> None:
    ones = 2**64 - 1
    info = told(dump(WINDOWS, 0xC0000005, "488907", information=(0, ones), rdi=WILD))  # mov [rdi], rax
    assert (info.type, info.access, info.address) == ("EXCEPTION_ACCESS_VIOLATION_READ", "write", hex(WILD))
    # All ones may also be the address: one before a null pointer.
    info = told(dump(WINDOWS, 0xC0000005, "8847ff", information=(0, ones), rdi=0))  # mov [rdi - 1], al
    assert (info.access, info.address, info.notes) == ("write", hex(ones), ["null pointer minus 0x1: rdi is 0"])
    # Or nothing leads to it.
    info = told(dump(WINDOWS, 0xC0000005, "8b07", information=(0, ones), rdi=STACK))
    assert (info.access, info.address) == (None, hex(ones))
    assert kinds(info) == ["the processor reports no address, as for one that is non-canonical"]


@needs_disasm
def test_macos_hides_it_behind_the_program_counter() -> None:
    """Crashpad has the program counter for the address, with the kernel's code for a general protection fault."""
    crash = dump(MACOS, 1, "8b07", flags=13, address=TEXT + 0x100, information=(1, 13, 0), rdi=WILD)
    info = told(crash)
    assert (info.value, info.address, info.access) == (f"EXC_I386_GPFLT at {WILD:#x}", hex(WILD), "read")


@needs_disasm
def test_an_old_writer_leaves_the_code_out_as_well() -> None:
    info = told(dump(LINUX, 11, "8b07", rdi=WILD))
    assert (info.address, info.value) == (hex(WILD), f"at {WILD:#x}")
    # Where the kernel names the code, the address counts.
    info = told(dump(LINUX, 11, "8b07", flags=1, rdi=WILD))
    assert (info.address, info.value) == ("0x0", "SEGV_MAPERR at 0x0")
    assert (info.notes or [""])[0].startswith("the instruction does not lead to the address")


@pytest.mark.usefixtures("no_disasm")
def test_without_a_disassembler_a_hidden_address_stays_hidden() -> None:
    info = told(dump(LINUX, 11, "8b4710", flags=KERNEL, rdi=WILD, r9=TEXT))
    assert (info.value, info.address, info.access, info.instruction) == ("SI_KERNEL", None, None, None)
    assert info.notes == [
        f"the processor reports no address, as for one that is non-canonical; possibly through rdi ({WILD:#x})"
    ]
    assert told(dump(LINUX, 11, "8b07")).notes == ["probably a null pointer"]  # si_code 0: it may be hidden, too.
    assert told(dump(LINUX, 11, "8b07", flags=1)).notes == ["null pointer"]


@pytest.mark.usefixtures("no_disasm")
def test_a_mapping_tells_a_write() -> None:
    read_only = "00400000-00402000 r-xp 0 0:0 0 /opt/app\n00500000-00501000 r--p 0 0:0 0 /opt/data\n"
    info = told(dump(LINUX, 11, flags=2, address=0x50_0010, maps=read_only))
    assert (info.access, info.notes) == ("write", ["write to memory that is mapped r--"])
    assert told(dump(LINUX, 7, flags=2, address=0x50_0010, maps=read_only)).access is None  # The file's end.
    assert told(dump(LINUX, 11, flags=1, address=0x50_0010, maps=read_only)).access is None  # It was not mapped then.
    assert told(dump(LINUX, 11, flags=2, address=0x60_0000, maps=read_only)).access is None


@needs_disasm
def test_the_access_whose_address_nobody_can_compute() -> None:
    info = told(dump(LINUX, 11, "64488b0425f0ffffff", flags=1, address=0x7F00_0000_0010))  # mov rax, fs:[-0x10]
    assert (info.access, info.notes) == ("read", None)


def test_a_jump_is_told_by_its_address() -> None:
    crash = dump(LINUX, 11, flags=2, address=STACK + 0x20, maps=MAPS, rip=STACK + 0x20)
    info = told(crash)
    assert (info.access, info.instruction) == ("execute", None)
    assert info.notes == ["jump to non-executable memory (rw-, the stack)"]
    assert told(dump(LINUX, 11, flags=1, address=0, rip=0)).access == "execute"
    # Processors without the NX bit know only reads.
    old = dump(WINDOWS, 0xC0000005, cpu=X86, information=(0, 0x1234_5678), eip=0x1234_5678)
    assert told(old).access == "execute"
    written = dump(WINDOWS, 0xC0000005, cpu=X86, information=(1, 0x1234_5678), eip=0x1234_5678)
    assert told(written).access == "write"


def test_windows_tells_the_access() -> None:
    for kind, access in ((0, "read"), (1, "write"), (8, "execute")):
        assert told(dump(WINDOWS, 0xC0000005, information=(kind, 0x123_4567))).access == access
        assert told(dump(WINDOWS, 0xC0000006, information=(kind, 0x123_4567, 0xC000009C))).access == access
    info = told(dump(WINDOWS, 0xC00000FD, information=(1, STACK - 8), address=TEXT))
    assert (info.type, info.address, info.access) == ("EXCEPTION_STACK_OVERFLOW", hex(STACK - 8), "write")
    assert kinds(info) == ["stack overflow"]


def test_stack_overflow_of_a_main_thread() -> None:
    info = told(dump(LINUX, 11, "50", flags=1, address=STACK - 8, maps=MAPS, rsp=STACK))
    assert kinds(info) == ["stack overflow"]
    assert info.access == ("write" if instruction.backend() else None)


def test_signals_that_a_process_sent_are_no_faults() -> None:
    for signal, code in ((11, -6 & 0xFFFF_FFFF), (6, 0), (11, -1 & 0xFFFF_FFFF)):
        info = told(dump(LINUX, signal, "8b07", flags=code, address=0x10))
        assert (info.address, info.access, info.instruction, info.notes) == (None, None, None, None)
    assert told(dump(LINUX, 0xFFFF_FFFF, "0f0b")).instruction is None


@needs_disasm
def test_breakpoints() -> None:
    """Linux sends SI_KERNEL, and leaves the program counter after the instruction; Windows puts it back."""
    info = told(dump(LINUX, 5, "cc", flags=KERNEL, rip=TEXT + 0x101))
    assert (info.type, info.value, info.instruction) == ("SIGTRAP", "SI_KERNEL", "int3")
    assert kinds(info) == ["a trap instruction"]
    assert told(dump(WINDOWS, 0x80000003, "cc", address=TEXT + 0x100)).instruction == "int3"


def test_a_core_tells_as_much() -> None:
    core = Core(62)
    core.thread(7, 11, rip=0x40_1010, rsp=0x7FF0_0040)
    core.siginfo(11, 2, 0x40_1018)
    core.load(0x40_0000, bytes(PAGE), READ)
    core.load(0x40_1000, bytes(0x10) + bytes.fromhex("c60508000000 00").ljust(PAGE - 0x10, b"\x90"), READ | EXECUTE)
    core.load(0x7FF0_0000, bytes(PAGE), READ | WRITE)
    info = told(elfcore.read(core.finish(), LIMITS))
    # Without the instruction (mov byte [rip + 8], 0) the mapping alone tells.
    assert (info.value, info.access) == ("SEGV_ACCERR at 0x401018", "write")


@needs_disasm
def test_a_core_without_siginfo_has_no_address() -> None:
    core = Core(62)
    core.thread(7, 11, rip=0x40_1000, rsp=0x7FF0_0040, rax=0x10)
    core.load(0x40_1000, bytes.fromhex("8b4004").ljust(PAGE, b"\x90"), READ | EXECUTE)
    info = told(elfcore.read(core.finish(), LIMITS))
    assert (info.address, info.access) == (None, None)
    assert info.notes == ["the report has no address; the instruction's [rax + 0x4] is 0x14"]


@needs_disasm
def test_code_may_come_from_elsewhere() -> None:
    crash = dump(LINUX, 11, flags=1, address=0x18, rdi=0)

    def read(address: int, size: int) -> bytes | None:
        code = bytes.fromhex("8b4718").ljust(16, b"\x90")
        return code[:size] if address == TEXT + 0x100 and size <= 16 else None

    assert analyse(crash, crash.exceptions[0], read).notes == ["null pointer plus 0x18: rdi is 0"]


def test_reports_with_frames_and_no_registers() -> None:
    """Text reports have the program counter in their first frame."""
    frames = [RawFrame(0x1_0000_0000), RawFrame(0x2_0000_0000, is_return_address=True)]
    for address, access in ((0x1_0000_0000, "execute"), (0x20, None)):
        exception = RawException(
            "EXC_BAD_ACCESS", f"KERN_INVALID_ADDRESS at {address:#x}", address=address, thread_id=3
        )
        crash = RawCrash("apple-crash", arch=Arch.ARM64, exceptions=[exception])
        crash.threads = [RawThread(3, crashed=True, frames=frames)]
        assert told(crash).access == access
    assert told(RawCrash("apple-crash", exceptions=[exception])).notes == ["probably a null pointer plus 0x20"]


def test_other_exceptions_are_left_alone() -> None:
    for kind in ("TypeError", "java.lang.NullPointerException", None, "EXC_CRASH", "UNHANDLED_CPP_EXCEPTION"):
        info = told(RawCrash("x", platform="javascript", exceptions=[RawException(kind, "what happened", address=0)]))
        assert (info.value, info.address, info.access, info.notes) == ("what happened", "0x0", None, None)


@pytest.mark.parametrize("arch", ["x86", "x86_64", "arm", "arm64"])
def test_damaged_dumps_give_what_they_give(arch: str) -> None:
    """Whatever the reader lets pass (registers, mappings, memory, codes), the analysis bears."""
    path = LINUX_DUMPS / arch / "static-O2/dumps/overflow.dmp"
    data = path.read_bytes()
    random = Random(arch)
    analysed = 0
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(random.randint(1, 40)):
            mutant[random.randrange(32, len(mutant))] = random.choice((0, 0xFF, 0x80, random.randrange(256)))
        try:
            crash = minidump.read(bytes(mutant), LIMITS)
        except DeadreckonError:
            continue
        for exception in crash.exceptions:
            info = exception_info(crash, exception)
            assert info.access in {None, "read", "write", "execute"}
            analysed += 1
    assert analysed > 75


@given(
    arch=st.sampled_from(sorted(REGISTER_SETS)),
    kind=st.sampled_from(["SIGSEGV", "SIGBUS", "EXC_BAD_ACCESS", "EXCEPTION_ACCESS_VIOLATION_READ", "SIGTRAP"]),
    value=st.sampled_from(["", "SI_KERNEL", "SEGV_MAPERR at 0x0", "at 0x0", "SEGV_MTESERR"]),
    address=st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 4096),
    hidden=st.booleans(),
    values=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 4096), min_size=34, max_size=34),
    code=st.binary(max_size=20),
    mapped=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 7)), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_no_fault_is_too_odd(
    arch: Arch,
    kind: str,
    value: str,
    address: int | None,
    hidden: bool,
    values: list[int],
    code: bytes,
    mapped: list[tuple[int, int, int]],
) -> None:
    known = REGISTER_SETS[arch]
    mask = (1 << 8 * known.word_size) - 1
    named = {n: v & mask for n, v in zip(known.names, values, strict=False)}
    crash = RawCrash("minidump", arch=arch, regions=Regions.from_ranges(mapped))
    registers = Registers.from_mapping(arch, named)
    registers.others["cpsr"] = 0x20
    crash.threads = [RawThread(1, crashed=True, registers=registers)]
    pc = registers.pc or 0
    crash.memory = MemoryMap.from_ranges([(pc, len(code), 0)], np.frombuffer(code, np.uint8))
    exception = RawException(kind, value, address=address, thread_id=1, address_hidden=hidden)
    info = exception_info(crash, exception)
    assert info.address is None or 0 <= int(info.address, 16) < 2**64
    # An address that was told, and is not said to stand for another, stays.
    if address is not None and not hidden and (address or not value.startswith("at ")):
        assert info.address == hex(address)


# -- the project's fixtures --------------------------------------------------------------------------------------------

_SENT: dict[str, Any] = {"access": None, "kinds": []}
_NULL = {"access": "read", "kinds": ["null pointer", "probably a null pointer plus"]}
MODES: dict[str, dict[str, Any]] = {
    "abort": _SENT,
    "altstack": {"access": None, "kinds": ["a trap instruction"]},
    "assert": _SENT,
    "bus": {"access": "read", "kinds": []},
    "divide": _SENT,
    "noreturn": _NULL | {"access": "write"},
    "null_call": {"access": "execute", "kinds": ["jump to a null pointer"]},
    "overflow": {"access": "write", "kinds": ["stack overflow"]},
    "trap": {"access": None, "kinds": ["a trap instruction"]},
    "waiters": _SENT,
    "wild_call": {"access": "execute", "kinds": ["jump to non-executable memory (rw-, in crashy)"]},
}
FIXTURES = sorted(LINUX_DUMPS.glob("*/*/dumps/*.dmp"))


@needs_disasm
@pytest.mark.parametrize("path", FIXTURES, ids=[f"{p.parts[-4]}-{p.parts[-3]}-{p.stem}" for p in FIXTURES])
def test_fixture(path: Path) -> None:
    """Address and signal as gdb and the kernel say; access and notes as the program was written to crash."""
    truth = json.loads(path.with_suffix(".truth.json").read_text())
    info = told(minidump.read(path.read_bytes(), LIMITS))
    assert info.type == truth["signal_name"]
    hidden = truth["signal_code"] == KERNEL
    if path.stem == "wild_read":
        # Without canonical addresses a 32-bit machine faults like on any other.
        expected: dict[str, Any] = {"access": "read", "kinds": ["non-canonical"] if hidden else []}
        assert int(info.address or "0", 16) & 0xFFFF_FFFF == 0xFDEA_DBE0
    else:
        expected = MODES.get(path.stem, _NULL)
        assert info.address == truth["fault_address"]
    assert info.access == expected["access"]
    assert len(info.notes or []) == bool(expected["kinds"])
    assert all(note.startswith(tuple(expected["kinds"])) for note in info.notes or [])


@pytest.mark.usefixtures("no_disasm")
@pytest.mark.parametrize("mode", ["overflow", "null_call", "wild_call", "static_chain"])
def test_fixtures_without_a_disassembler(mode: str) -> None:
    for path in LINUX_DUMPS.glob(f"*/*/dumps/{mode}.dmp"):
        info = told(minidump.read(path.read_bytes(), LIMITS))
        expected = MODES.get(mode, _NULL)
        assert info.access == ("execute" if expected["access"] == "execute" else None)
        assert [n.startswith(tuple(expected["kinds"])) for n in info.notes or []] == [True]
        assert info.instruction is None


CORES = sorted(LINUX_DUMPS.glob("*/*/dumps/*.core.xz"))


@pytest.mark.parametrize("path", CORES, ids=[f"{p.parts[-4]}-{p.parts[-3]}-{p.stem}" for p in CORES])
def test_fixture_core(path: Path) -> None:
    """The kernel's cores hold no code of files, qemu's no siginfo either."""
    truth = json.loads(path.with_suffix("").with_suffix(".truth.json").read_text())
    crash = elfcore.read(lzma.decompress(path.read_bytes()), LIMITS)
    info = told(crash)
    assert info.type == truth["signal_name"]
    assert info.address in {truth["fault_address"], None}
    assert info.address is not None or crash.arch in {Arch.ARM, Arch.ARM64}
    if path.name.startswith("threads") and info.address:
        assert info.notes == ["probably a null pointer plus 0x18"]


# -- the corpus --------------------------------------------------------------------------------------------------------

# Why ours differ from Breakpad's address of the crash. (Its types are compared in tests/reports.)
BREAKPAD: dict[str, str | None] = {
    # Nobody crashed; a pid and a uid; a dump on request.
    "breakpad/testdata/linux_raise_sigabrt.dmp": None,
    "lldb/minidump-new/linux-x86_64_not_crashed.dmp": None,
    # Its unit test says so, too, where code to compute it was built in: the tool that gave the reference lacked it.
    "breakpad/testdata/write_av_non_canonical.dmp": "0xfefefefefefefefe",
}


@needs_disasm
@pytest.mark.corpus
def test_addresses_are_breakpads(corpus: Path) -> None:
    references = sorted((corpus / "native/reference/breakpad-418aacd6").glob("*.machine.txt"))
    assert len(references) > 50
    differences: dict[str, str | None] = {}
    for reference in references:
        name = reference.name.removesuffix(".machine.txt").replace("__", "/")
        line = next(x for x in reference.read_text(errors="replace").splitlines() if x.startswith("Crash|"))
        theirs = line.split("|")[2] or None
        crash = minidump.read((corpus / "native" / name).read_bytes(), LIMITS)
        ours = told(crash).address if crash.exceptions else None
        if ours != theirs:
            differences[name] = ours
    assert differences == BREAKPAD


@needs_disasm
@pytest.mark.corpus
def test_accesses_are_rust_minidumps(corpus: Path) -> None:
    """Operand by operand, for every instruction that it decoded (x86_64 only); it names fewer kinds of access."""
    count = 0
    for reference in sorted((corpus / "native/reference/rust-minidump-0.25.0").glob("*.json")):
        theirs = (json.loads(reference.read_text()).get("crash_info") or {}).get("memory_accesses")
        if theirs is None:
            continue
        name = reference.name.removesuffix(".json").replace("__", "/")
        crash = minidump.read((corpus / "native" / name).read_bytes(), LIMITS)
        thread = next(t for t in crash.threads if t.id == crash.exceptions[0].thread_id)
        assert thread.registers is not None
        found = disassemble(thread.registers, crash.memory.read)
        assert found is not None
        ours = [(a.address, a.size, a.kind) for a in found.accesses]
        assert [a[:2] for a in ours] == [(int(t["address"], 16), t["size"]) for t in theirs], name
        for (_, _, kind), access in zip(ours, theirs, strict=True):
            # What is read and written faults as a write.
            assert access.get("access_type") in {kind, None, "readwrite" if kind == "write" else kind}, name
        count += 1
    assert count > 25


@needs_disasm
@pytest.mark.corpus
def test_what_the_names_of_breakpads_dumps_say(corpus: Path) -> None:
    expected = {
        "ascii_*": "possibly text",
        "null_*": "null pointer",
        "linux_null_*": "null pointer",
        "linux_jmp_to_0": "jump to a null pointer",
        "linux_jmp_to_module_not_exe_region": "jump to non-executable memory (r--",
        "linux_outside_module": "jump to memory that is not mapped",
        "linux_write_to_nonwritable_module": "write to memory that is mapped r-x",
        "linux_write_to_under_4k": "probably a null pointer plus 0xf93",
        "exec_av_on_stack": "jump to non-executable memory (the stack)",
        "write_av_non_canonical": "non-canonical address",
    }
    for pattern, note in expected.items():
        paths = list((corpus / "native/breakpad/testdata").glob(f"{pattern}.dmp"))
        assert paths
        for path in paths:
            info = told(minidump.read(path.read_bytes(), LIMITS))
            assert (info.notes or [""])[0].startswith(note), path.name
    for path in (corpus / "native/breakpad/testdata").glob("*av_non_null.dmp"):
        assert told(minidump.read(path.read_bytes(), LIMITS)).notes is None
