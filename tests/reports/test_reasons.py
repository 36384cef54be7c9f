"""The tables of reasons: numbers, names, and what their fields say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.model.ids import Arch
from deadreckon.reports import minidump
from deadreckon.reports.minidump.reasons import reason
from deadreckon.reports.reasons.linux import signal_name, signal_reason
from deadreckon.reports.reasons.macos import darwin_signal_reason, mach_reason
from deadreckon.reports.reasons.ntstatus import status_name
from deadreckon.reports.reasons.windows import exception_name, windows_reason
from synth.minidump import AMD64, MACOS, Minidump, context_amd64, read_built

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("signal", "code", "name"),
    [
        (4, 9, "SIGILL ILL_BADIADDR"),
        (5, 6, "SIGTRAP TRAP_PERF"),
        (7, 5, "SIGBUS BUS_MCEERR_AO"),
        (8, 8, "SIGFPE FPE_FLTSUB"),
        (8, 14, "SIGFPE FPE_FLTUNK"),
        (8, 15, "SIGFPE FPE_CONDTRAP"),
        (11, 10, "SIGSEGV SEGV_CPERR"),
        (31, 1, "SIGSYS SYS_SECCOMP"),
        (17, 3, "SIGCHLD CLD_DUMPED"),
        (6, 0x1_0000_0000 - 6, "SIGABRT SI_TKILL"),
        (6, 0x1_0000_0000 - 60, "SIGABRT SI_ASYNCNL"),
    ],
)
def test_linux(signal: int, code: int, name: str) -> None:
    found = signal_reason(signal, code, 0x10)
    assert f"{found.type} {found.detail}" == name
    assert found.address == (0x10 if signal in {4, 5, 7, 8, 11} else None)
    assert not found.hidden


def test_a_signal_of_the_kernel_without_an_address_hides_it() -> None:
    for signal, hidden in ((11, True), (7, True), (5, False), (8, False)):
        found = signal_reason(signal, 0x80, 0)
        assert (found.address, found.hidden, found.value) == (None, hidden, "SI_KERNEL")
    assert signal_reason(11, 0x80, 0x10).address == 0x10
    assert signal_reason(11, 1, 0).address == 0
    assert signal_name(40) == "0x00000028"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0xC0000005, "EXCEPTION_ACCESS_VIOLATION"),
        (0xC0000001, "STATUS_UNSUCCESSFUL"),
        (0xC0000002, "STATUS_NOT_IMPLEMENTED"),
        (0xC000007B, "STATUS_INVALID_IMAGE_FORMAT"),
        (0xC0000120, "STATUS_CANCELLED"),
        (0xC0000135, "STATUS_DLL_NOT_FOUND"),
        (0xC000012D, "STATUS_COMMITMENT_LIMIT"),
        (0xC0000221, "STATUS_IMAGE_CHECKSUM_MISMATCH"),
        (0xC000026E, "STATUS_VOLUME_DISMOUNTED"),
        (0xC0000420, "STATUS_ASSERTION_FAILURE"),
        (0xC000070A, "STATUS_THREADPOOL_HANDLE_EXCEPTION"),
        (0x40000015, "STATUS_FATAL_APP_EXIT"),
        (0x4000001F, "STATUS_WX86_BREAKPOINT"),
        (0x40010005, "DBG_CONTROL_C"),
        (0x40010006, "DBG_PRINTEXCEPTION_C"),
        (0x80000005, "STATUS_BUFFER_OVERFLOW"),
        (0xC0020001, "RPC_NT_INVALID_STRING_BINDING"),
        (0xC0030001, "RPC_NT_NO_MORE_ENTRIES"),
        (0xC015000F, "STATUS_SXS_EARLY_DEACTIVATION"),
        (0x8007000E, "E_OUTOFMEMORY"),
        (0xE06D7363, "UNHANDLED_CPP_EXCEPTION"),
        (0xE0434352, "CLR_EXCEPTION"),
        (0x20474343, "GCC_THROW"),
        (0x0CCA11ED, "CRASHPAD_TRIGGERED"),
        (0xC0FFEE00, "0xc0ffee00"),
        (11, "0x0000000b"),
    ],
)
def test_windows_codes(code: int, name: str) -> None:
    assert exception_name(code) == name


def test_status_names_have_no_gaps_where_there_are_none() -> None:
    """Every word of the table has the number after its predecessor's: one word too many would shift the rest."""
    for status, name in (
        (0xC0000035, "STATUS_OBJECT_NAME_COLLISION"),
        (0xC0000036, None),
        (0xC0000037, "STATUS_PORT_DISCONNECTED"),
        (0xC000009D, "STATUS_DEVICE_NOT_CONNECTED"),
        (0xC000009E, None),
        (0xC000009F, "STATUS_FREE_VM_NOT_AT_BASE"),
        (0xC000010E, "STATUS_IMAGE_ALREADY_LOADED"),
        (0xC0000117, "STATUS_NO_LDT"),
        (0xC0000178, "STATUS_NO_MEDIA"),
        (0xC000017A, "STATUS_NO_SUCH_MEMBER"),
        (0xC00002C1, "STATUS_DS_ADMIN_LIMIT_EXCEEDED"),
        (0xC0000909, "STATUS_CANNOT_BREAK_OPLOCK"),
        (0xC000A101, "STATUS_HASH_NOT_PRESENT"),
        (0xC0150027, "STATUS_SXS_FILE_HASH_MISSING"),
        (0x80010001, "DBG_EXCEPTION_NOT_HANDLED"),
    ):
        assert status_name(status) == name


def test_windows_parameters() -> None:
    overflow = windows_reason(0xC00000FD, 0x1000, (1, 0x7FF8))
    assert (overflow.type, overflow.address, overflow.access) == ("EXCEPTION_STACK_OVERFLOW", 0x7FF8, "write")
    guard = windows_reason(0x80000001, 0x1000, (0, 0x9000))
    assert (guard.type, guard.address, guard.access) == ("EXCEPTION_GUARD_PAGE", 0x9000, "read")
    assert windows_reason(0xC00000FD, 0x1000, ()).address == 0x1000
    page = windows_reason(0xC0000006, 0x1000, (0, 0x9000, 0xFFFF_FFFF_C000_00C4))
    assert (page.type, page.value) == ("EXCEPTION_IN_PAGE_ERROR_READ", "STATUS_UNEXPECTED_NETWORK_ERROR at 0x9000")
    assert windows_reason(0xE0434352, 0x1000, (0x8000_4003,)).detail == "E_POINTER"
    assert windows_reason(0xE0434352, 0x1000, (0xFFFF_FFFF_8013_1509,)).detail == "COR_E_INVALIDOPERATION"
    assert windows_reason(0xE0434352, 0x1000, (0x8013_9999,)).detail == "HRESULT 0x80139999"
    assert windows_reason(0xC0000409, 0x1000, (2,)).detail == "FAST_FAIL_STACK_COOKIE_CHECK_FAILURE"


def test_windows_hides_an_address_behind_all_ones() -> None:
    ones = 2**64 - 1
    hidden = windows_reason(0xC0000005, 0x1000, (0, ones))
    assert (hidden.hidden, hidden.access, hidden.address) == (True, None, ones)
    assert not windows_reason(0xC0000005, 0x1000, (1, ones)).hidden
    assert not windows_reason(0xC0000005, 0x1000, (0, 0xFFFF_FFFF)).hidden  # 32 bits know no such addresses.


@pytest.mark.parametrize(
    ("exception", "code", "subcode", "value"),
    [
        (1, 1, 0x20, "EXC_BAD_ACCESS KERN_INVALID_ADDRESS at 0x20"),
        (1, 0x102, 0x20, "EXC_BAD_ACCESS EXC_ARM_DA_DEBUG at 0x20"),
        (1, 0x106, 0x20, "EXC_BAD_ACCESS EXC_ARM_MTE_TAGCHECK_FAIL at 0x20"),
        (5, 0x10003, 6, "EXC_SOFTWARE EXC_SOFT_SIGNAL SIGABRT"),
        (5, 0xDEADC0DE, 0, "EXC_SOFTWARE UNCAUGHT_NS_EXCEPTION"),
        (6, 1, 0x20, "EXC_BREAKPOINT EXC_ARM_BREAKPOINT"),
        (10, 0x0600_0000, 0, "EXC_CRASH SIGABRT"),
        (10, 0x0B10_0001, 0, "EXC_CRASH SIGSEGV for EXC_BAD_ACCESS / KERN_INVALID_ADDRESS"),
        (10, 0x0900_0000, 0, "EXC_CRASH SIGKILL"),
        (11, 1 << 61 | 2 << 58 | 180 << 7 | 50, 93, ("EXC_RESOURCE RESOURCE_TYPE_CPU FLAVOR_CPU_MONITOR_FATAL"
         " 93% of a CPU, limit 50% over 180 s")),
        (11, 2 << 61 | 1 << 58 | 300 << 20 | 150, 400, ("EXC_RESOURCE RESOURCE_TYPE_WAKEUPS FLAVOR_WAKEUPS_MONITOR"
         " 400 wakeups/s, limit 150 over 300 s")),
        (11, 3 << 61 | 1 << 58 | 1400, 0, "EXC_RESOURCE RESOURCE_TYPE_MEMORY FLAVOR_HIGH_WATERMARK limit 1400 MB"),
        (11, 4 << 61 | 2 << 58 | 86400 << 15 | 2048, 2100, ("EXC_RESOURCE RESOURCE_TYPE_IO FLAVOR_IO_LOGICAL_WRITES"
         " 2100 MB, limit 2048 MB over 86400 s")),
        (11, 5 << 61, 0, "EXC_RESOURCE RESOURCE_TYPE_THREADS"),
        (11, 7 << 61, 0, "EXC_RESOURCE code 0xe000000000000000"),
        (12, 2 << 61 | 1 << 32 | 5, 0xABC, "EXC_GUARD GUARD_TYPE_FD GUARD_EXC_CLOSE file descriptor 5 guard 0xabc"),
        (12, 1 << 61 | 2 << 32 | 0x903, 0, "EXC_GUARD GUARD_TYPE_MACH_PORT GUARD_EXC_MOD_REFS port 0x903"),
        (12, 4 << 61 | 4 << 32, 0, "EXC_GUARD GUARD_TYPE_VN GUARD_EXC_UNLINK"),
        (12, 5 << 61 | 1 << 32, 0, "EXC_GUARD GUARD_TYPE_VIRT_MEMORY GUARD_EXC_DEALLOC_GAP"),
        (12, 3 << 61 | 18, 2, "EXC_GUARD GUARD_TYPE_USER namespace 18 reason 0x2"),
        (77, 5, 0, "0x0000004d code 0x5"),
    ],
)  # fmt: skip
def test_mach(exception: int, code: int, subcode: int, value: str) -> None:
    found = mach_reason(Arch.ARM64, exception, code, subcode)
    assert f"{found.type} {found.value}" == value


def test_a_general_protection_fault_has_no_address() -> None:
    found = mach_reason(Arch.X86_64, 1, 13, 0, 0x1000)
    assert (found.value, found.address, found.hidden) == ("EXC_I386_GPFLT", None, True)
    assert mach_reason(Arch.ARM64, 1, 13, 0x20).address == 0x20


def test_darwin_has_signals_and_codes_of_its_own() -> None:
    assert darwin_signal_reason(10, 1, 0x20)[:3] == ("SIGBUS", "BUS_ADRALN", 0x20)
    assert darwin_signal_reason(8, 7, 0x20)[:3] == ("SIGFPE", "FPE_INTDIV", 0x20)
    assert darwin_signal_reason(12, 0, 0x20)[:3] == ("SIGSYS", "", None)
    assert darwin_signal_reason(11, 0x10001, 0x20)[:3] == ("SIGSEGV", "SI_USER", None)
    assert darwin_signal_reason(31, 0, None).type == "SIGUSR2"
    assert darwin_signal_reason(99, 0, None).type == "signal 99"


@pytest.mark.parametrize(
    ("os_name", "code", "flags", "information", "value"),
    [
        # Crashpad: exception, code, subcode. What is too long for ExceptionFlags is whole there.
        ("macOS", 12, 2 << 29 | 1, (12, 2 << 61 | 1 << 32 | 5, 7),
         "EXC_GUARD GUARD_TYPE_FD GUARD_EXC_CLOSE file descriptor 5 guard 0x7 at 0x99"),
        # Breakpad: code, subcode.
        ("macOS", 12, 2 << 29 | 1, (2 << 61 | 1 << 32 | 5, 7),
         "EXC_GUARD GUARD_TYPE_FD GUARD_EXC_CLOSE file descriptor 5 guard 0x7 at 0x99"),
        ("macOS", 12, 2 << 29 | 1, (), "EXC_GUARD GUARD_TYPE_FD GUARD_EXC_CLOSE at 0x99"),
        ("macOS", 1, 1, (1, 0x20), "EXC_BAD_ACCESS KERN_INVALID_ADDRESS at 0x99"),
        # What Crashpad took out of an EXC_CRASH: mac.dmp, simple-crashpad.dmp.
        ("macOS", 2, 1, (10, 0x4200001, 0), "EXC_BAD_INSTRUCTION EXC_I386_INVOP at 0x99"),
        ("macOS", 0, 0, (10, 0x6000000, 0), "EXC_CRASH SIGABRT at 0x99"),
        ("macOS", 0, 0, (), "DUMP_REQUESTED "),
        ("macOS", 0x43507378, 0, (0x43507378, 0, 0), "DUMP_REQUESTED "),
        # Crashpad's handler of signals on iOS has no parameters; numbers of signals and exceptions overlap.
        ("iOS", 6, 0, (), "SIGABRT "),
        ("iOS", 6, 1, (), "EXC_BREAKPOINT EXC_I386_SGL at 0x99"),
        ("iOS", 6, 1, (6, 1, 0), "EXC_BREAKPOINT EXC_I386_SGL at 0x99"),
        ("iOS", 11, 2, (), "SIGSEGV SEGV_ACCERR at 0x99"),
        ("iOS", 5, 0xDEADC0DE, (), "EXC_SOFTWARE UNCAUGHT_NS_EXCEPTION at 0x99"),
        ("iOS", 1, 2, (), "EXC_BAD_ACCESS KERN_PROTECTION_FAILURE at 0x99"),
        ("macOS", 11, 2, (), "EXC_RESOURCE code 0x200000000 at 0x99"),
    ],
)  # fmt: skip
def test_records_of_crashpad_and_breakpad(
    os_name: str, code: int, flags: int, information: tuple[int, ...], value: str
) -> None:
    found = reason(os_name, Arch.X86_64, code, flags, 0x99, information)
    assert f"{found.type} {found.value}" == value


def test_an_abort_on_macos_is_a_crash() -> None:
    dump = Minidump()
    dump.system(AMD64, MACOS)
    dump.thread(5, context_amd64({"rip": 0x99}))
    dump.exception(5, 0, address=0x99, information=(10, 0x6000000, 0), context=context_amd64({"rip": 0x99}))
    crash = read_built(dump)
    assert [t.crashed for t in crash.threads] == [True]
    assert [(e.type, e.value) for e in crash.exceptions] == [("EXC_CRASH", "SIGABRT at 0x99")]


# Breakpad's names where ours are others, and why.
BREAKPAD = {
    # Signals without a code are "SIGSEGV /0x00000000" to it, for code 0 might be one.
    # FAST_FAIL_* stands for the whole there; ours says which exception it came with.
    "breakpad/testdata/tiny-exe-fastfail.dmp": (
        "EXCEPTION_STACK_BUFFER_OVERRUN / FAST_FAIL_FATAL_APP_EXIT",
        "FAST_FAIL_FATAL_APP_EXIT",
    ),
    "breakpad/testdata/minidump_crashpad_annotation.dmp": ("NSException", "Uncaught NSException"),
    # A status that it has no name for.
    "rust-minidump/invalid-parameter.dmp": ("STATUS_INVALID_PARAMETER", "0xc000000d / 0x00000000"),
    # abort(), which Crashpad leaves in the parameters only.
    "rust-minidump/simple-crashpad.dmp": ("EXC_CRASH / SIGABRT", "0x00000000 / 0x00000000"),
}


@pytest.mark.corpus
def test_types_are_breakpads(corpus: Path) -> None:
    references = sorted((corpus / "native/reference/breakpad-418aacd6").glob("*.machine.txt"))
    assert len(references) > 50
    differences = {}
    for reference in references:
        name = reference.name.removesuffix(".machine.txt").replace("__", "/")
        line = next(x for x in reference.read_text(errors="replace").splitlines() if x.startswith("Crash|"))
        theirs = line.split("|")[1]
        crash = minidump.read((corpus / "native" / name).read_bytes(), ReportLimits())
        ours = "No crash"
        if crash.exceptions:
            first = crash.exceptions[0]
            detail = first.value.removesuffix(f"at {first.address:#x}" if first.address is not None else "").strip()
            ours = f"{first.type} / {detail}" if detail else str(first.type)
        unnamed = theirs.removesuffix(" /0x00000000").removesuffix(" / 0x00000000")
        if ours != theirs and not (ours == unnamed and ours.startswith("SIG")):
            differences[name] = (ours, theirs)
    assert differences == BREAKPAD


@pytest.mark.corpus
def test_types_are_those_of_breakpads_unit_tests(corpus: Path) -> None:
    told = json.loads((corpus / "native/breakpad/expected_from_unittests.json").read_text())["processing"]
    crash = minidump.read(
        (corpus / "native/breakpad/testdata/minidump_32bit_crash_addr.dmp").read_bytes(), ReportLimits()
    )
    expected = told["minidump_32bit_crash_addr.dmp"]
    (exception,) = crash.exceptions
    assert (exception.type, hex(exception.address or 0)) == (expected["crash_reason"], expected["crash_address"])
