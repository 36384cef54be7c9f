"""Names for why a process stopped: exception codes and what qualifies them, per operating system.

Sources: ``winnt.h``, ``ntstatus.h``; XNU ``mach/exception_types.h``, ``mach/i386/exception.h``,
``mach/arm/exception.h``, ``mach/kern_return.h``, ``kern/exc_resource.h``, ``kern/exc_guard.h``; Breakpad
``minidump_exception_*.h``; Crashpad ``util/misc/capture_context.h`` and its simulated
exceptions. How the fields are used follows rust-minidump's ``CrashReason``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.ids import Arch
from deadreckon.reports.reasons import DUMP_REQUESTED, Reason, names, signal_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DUMP_REQUESTED", "Reason", "reason"]

# No exception at all; MD_EXCEPTION_CODE_LIN_DUMP_REQUESTED and Crashpad's signal -1; Crashpad's kMachExceptionSimulated
# ("CPsx"); Crashpad's and Breakpad's simulated exception on Windows.
_REQUESTED = frozenset({0, 0xFFFF_FFFF, 0x4350_7378, 0x0517_A7ED})


def reason(os_name: str | None, arch: Arch, code: int, flags: int, address: int, information: Sequence[int]) -> Reason:
    """Name an exception record; ``information`` holds its parameters. Unknown numbers are given in hex."""
    if code in _REQUESTED:
        return Reason(DUMP_REQUESTED)
    if arch.word_size == 4:
        # Some writers extend the sign: minidump_32bit_crash_addr.dmp.
        address &= 0xFFFF_FFFF
        information = [n & 0xFFFF_FFFF for n in information]
    if os_name == "Windows":
        return _windows(code, address, information)
    if os_name in {"macOS", "iOS"}:
        return _mach(arch, code, flags, address)
    return signal_reason(code, flags, address)


_ACCESS_KINDS = {0: "READ", 1: "WRITE", 8: "EXEC"}

_WINDOWS = {
    0x0000_0001: "STATUS_WAIT_1",
    0x4000_0015: "STATUS_FATAL_APP_EXIT",
    0x4001_0005: "DBG_CONTROL_C",
    0x406D_1388: "MS_VC_EXCEPTION",
    0x8000_0001: "EXCEPTION_GUARD_PAGE",
    0xC000_0005: "EXCEPTION_ACCESS_VIOLATION",
    0xC000_0006: "EXCEPTION_IN_PAGE_ERROR",
    0xC000_0008: "EXCEPTION_INVALID_HANDLE",
    0xC000_000D: "STATUS_INVALID_PARAMETER",
    0xC000_000E: "STATUS_NO_SUCH_DEVICE",
    0xC000_0017: "STATUS_NO_MEMORY",
    0xC000_003F: "STATUS_CRC_ERROR",
    0xC000_009A: "STATUS_INSUFFICIENT_RESOURCES",
    0xC000_009C: "STATUS_DEVICE_DATA_ERROR",
    0xC000_009D: "STATUS_DEVICE_NOT_CONNECTED",
    0xC000_00B5: "STATUS_IO_TIMEOUT",
    0xC000_00C4: "STATUS_UNEXPECTED_NETWORK_ERROR",
    0xC000_00E9: "STATUS_UNEXPECTED_IO_ERROR",
    0xC000_0102: "STATUS_FILE_CORRUPT_ERROR",
    0xC000_012D: "STATUS_COMMITMENT_LIMIT",
    0xC000_0135: "STATUS_DLL_NOT_FOUND",
    0xC000_0138: "STATUS_ORDINAL_NOT_FOUND",
    0xC000_0139: "STATUS_ENTRYPOINT_NOT_FOUND",
    0xC000_013A: "STATUS_CONTROL_C_EXIT",
    0xC000_0142: "STATUS_DLL_INIT_FAILED",
    0xC000_0185: "STATUS_IO_DEVICE_ERROR",
    0xC000_0194: "EXCEPTION_POSSIBLE_DEADLOCK",
    0xC000_020C: "STATUS_CONNECTION_DISCONNECTED",
    0xC000_026E: "STATUS_VOLUME_DISMOUNTED",
    0xC000_0374: "EXCEPTION_HEAP_CORRUPTION",
    0xC000_0409: "EXCEPTION_STACK_BUFFER_OVERRUN",
    0xC000_0417: "STATUS_INVALID_CRUNTIME_PARAMETER",
    0xC000_041D: "STATUS_FATAL_USER_CALLBACK_EXCEPTION",
    0xC000_0420: "STATUS_ASSERTION_FAILURE",
    0xC000_0602: "STATUS_FAIL_FAST_EXCEPTION",
    0xC06D_007E: "VCPP_EXCEPTION_MODULE_NOT_FOUND",
    0xC06D_007F: "VCPP_EXCEPTION_PROCEDURE_NOT_FOUND",
    0xE000_0008: "OUT_OF_MEMORY",
    0xE043_4352: "CLR_EXCEPTION",
    0xE06D_7363: "UNHANDLED_CPP_EXCEPTION",
}

# FAST_FAIL_*, the first argument of __fastfail.
_FAST_FAIL = names(
    """
    LEGACY_GS_VIOLATION VTGUARD_CHECK_FAILURE STACK_COOKIE_CHECK_FAILURE CORRUPT_LIST_ENTRY INCORRECT_STACK INVALID_ARG
    GS_COOKIE_INIT FATAL_APP_EXIT RANGE_CHECK_FAILURE UNSAFE_REGISTRY_ACCESS GUARD_ICALL_CHECK_FAILURE
    GUARD_WRITE_CHECK_FAILURE INVALID_FIBER_SWITCH INVALID_SET_OF_CONTEXT INVALID_REFERENCE_COUNT
    """,
    0,
) | names(
    """
    INVALID_JUMP_BUFFER MRDATA_MODIFIED CERTIFICATION_FAILURE INVALID_EXCEPTION_CHAIN CRYPTO_LIBRARY
    INVALID_CALL_IN_DLL_CALLOUT INVALID_IMAGE_BASE DLOAD_PROTECTION_FAILURE UNSAFE_EXTENSION_CALL
    DEPRECATED_SERVICE_INVOKED INVALID_BUFFER_ACCESS INVALID_BALANCED_TREE INVALID_NEXT_THREAD
    GUARD_ICALL_CHECK_SUPPRESSED APCS_DISABLED INVALID_IDLE_STATE MRDATA_PROTECTION_FAILURE UNEXPECTED_HEAP_EXCEPTION
    INVALID_LOCK_STATE GUARD_JUMPTABLE INVALID_LONGJUMP_TARGET INVALID_DISPATCH_CONTEXT INVALID_THREAD
    INVALID_SYSCALL_NUMBER INVALID_FILE_OPERATION LPAC_ACCESS_DENIED GUARD_SS_FAILURE LOADER_CONTINUITY_FAILURE
    GUARD_EXPORT_SUPPRESSION_FAILURE INVALID_CONTROL_STACK SET_CONTEXT_DENIED INVALID_IAT HEAP_METADATA_CORRUPTION
    PAYLOAD_RESTRICTION_VIOLATION LOW_LABEL_ACCESS_DENIED ENCLAVE_CALL_FAILURE UNHANDLED_LSS_EXCEPTON
    ADMINLESS_ACCESS_DENIED UNEXPECTED_CALL CONTROL_INVALID_RETURN_ADDRESS UNEXPECTED_HOST_BEHAVIOR FLAGS_CORRUPTION
    VEH_CORRUPTION ETW_CORRUPTION RIO_ABORT INVALID_PFN GUARD_ICALL_CHECK_FAILURE_XFG CAST_GUARD
    HOST_VISIBILITY_CHANGE KERNEL_CET_SHADOW_STACK_ASSIST PATCH_CALLBACK_FAILED NTDLL_PATCH_FAILED INVALID_FLS_DATA
    """,
    18,
)


def _windows(code: int, address: int, information: Sequence[int]) -> Reason:
    name = _windows_name(code)
    if code in {0xC000_0005, 0xC000_0006} and len(information) >= 2:
        kind = _ACCESS_KINDS.get(information[0])
        status = information[2] & 0xFFFF_FFFF if code == 0xC000_0006 and len(information) >= 3 else 0
        detail = _windows_name(status) if status else ""
        return Reason(f"{name}_{kind}" if kind else name, detail, information[1])
    if code == 0xC000_0409 and information:
        known = _FAST_FAIL.get(information[0])
        return Reason(name, f"FAST_FAIL_{known}" if known else hex(information[0]), address)
    return Reason(name, "", address)


def _windows_name(code: int) -> str:
    """Name a Windows exception code: our table first, then that of the ``minidump`` package.

    The package costs 9 ms to import, so that the codes of most crashes are in our own table. Its enumeration mixes in
    POSIX signals, as small numbers.
    """
    if name := _WINDOWS.get(code):
        return name
    if code >= 0x8000_0000:
        from minidump.streams.ExceptionStream import ExceptionCode  # noqa: PLC0415

        try:
            return str(ExceptionCode(code).name)
        except ValueError:
            pass
    return f"{code:#010x}"


_MACH = names(
    """
    EXC_BAD_ACCESS EXC_BAD_INSTRUCTION EXC_ARITHMETIC EXC_EMULATION EXC_SOFTWARE EXC_BREAKPOINT EXC_SYSCALL
    EXC_MACH_SYSCALL EXC_RPC_ALERT EXC_CRASH EXC_RESOURCE EXC_GUARD EXC_CORPSE_NOTIFY
    """,
)
_MACH_CODES = {
    "EXC_BAD_ACCESS": {
        1: "KERN_INVALID_ADDRESS",
        2: "KERN_PROTECTION_FAILURE",
        8: "KERN_NO_ACCESS",
        9: "KERN_MEMORY_FAILURE",
        10: "KERN_MEMORY_ERROR",
        50: "KERN_CODESIGN_ERROR",
    },
    "EXC_SOFTWARE": {
        0x10000: "EXC_UNIX_BAD_SYSCALL",
        0x10001: "EXC_UNIX_BAD_PIPE",
        0x10002: "EXC_UNIX_ABORT",
        0x10003: "EXC_SOFT_SIGNAL",
        0xDEAD_C0DE: "UNCAUGHT_NS_EXCEPTION",
    },
}
_MACH_CODES_X86 = {
    "EXC_BAD_ACCESS": {13: "EXC_I386_GPFLT"},
    "EXC_BAD_INSTRUCTION": {
        1: "EXC_I386_INVOP",
        10: "EXC_I386_INVTSSFLT",
        11: "EXC_I386_SEGNPFLT",
        12: "EXC_I386_STKFLT",
        13: "EXC_I386_GPFLT",
        17: "EXC_I386_ALIGNFLT",
    },
    "EXC_ARITHMETIC": names(
        """
        EXC_I386_DIV EXC_I386_INTO EXC_I386_NOEXT EXC_I386_EXTOVR EXC_I386_EXTERR EXC_I386_EMERR EXC_I386_BOUND
        EXC_I386_SSEEXTERR
        """,
    ),
    "EXC_BREAKPOINT": {1: "EXC_I386_SGL", 2: "EXC_I386_BPT"},
}
_MACH_CODES_ARM = {
    "EXC_BAD_ACCESS": {
        0x101: "EXC_ARM_DA_ALIGN",
        0x102: "EXC_ARM_DA_DEBUG",
        0x103: "EXC_ARM_SP_ALIGN",
        0x104: "EXC_ARM_SWP",
        0x105: "EXC_ARM_PAC_FAIL",
    },
    "EXC_BAD_INSTRUCTION": {1: "EXC_ARM_UNDEFINED"},
    "EXC_ARITHMETIC": names(
        "EXC_ARM_FP_UNDEFINED EXC_ARM_FP_IO EXC_ARM_FP_DZ EXC_ARM_FP_OF EXC_ARM_FP_UF EXC_ARM_FP_IX EXC_ARM_FP_ID", 0
    ),
    "EXC_BREAKPOINT": {1: "EXC_ARM_BREAKPOINT", 0x101: "EXC_ARM_DA_ALIGN", 0x102: "EXC_ARM_DA_DEBUG"},
}
_MACH_RESOURCES = names("RESOURCE_TYPE_CPU RESOURCE_TYPE_WAKEUPS RESOURCE_TYPE_MEMORY RESOURCE_TYPE_IO")
_MACH_GUARDS = names("GUARD_TYPE_MACH_PORT GUARD_TYPE_FD GUARD_TYPE_USER GUARD_TYPE_VN GUARD_TYPE_VIRT_MEMORY")
_DARWIN_SIGNALS = names(
    """
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGEMT SIGFPE SIGKILL SIGBUS SIGSEGV SIGSYS SIGPIPE SIGALRM SIGTERM
    """,
)


def _mach(arch: Arch, code: int, flags: int, address: int) -> Reason:
    """Name a Mach exception: ``code`` is EXC_*, ``flags`` the low half of its first code."""
    if code == 0x4350_6E78:  # "CPnx", Crashpad's kMachExceptionFromNSException: minidump_crashpad_annotation.dmp.
        return Reason("NSException", "", address)
    name = _MACH.get(code, f"{code:#010x}")
    if name == "EXC_RESOURCE":
        detail = _MACH_RESOURCES.get(flags >> 29)
    elif name == "EXC_GUARD":
        detail = _MACH_GUARDS.get(flags >> 29)
    elif name == "EXC_CRASH":  # The signal is in bits 24 to 31 of the code.
        detail = _DARWIN_SIGNALS.get(flags >> 24 & 0xFF)
    else:
        of_cpu = _MACH_CODES_ARM if arch in {Arch.ARM, Arch.ARM64} else _MACH_CODES_X86
        detail = _MACH_CODES.get(name, {}).get(flags) or of_cpu.get(name, {}).get(flags)
    return Reason(name, detail or f"code {flags:#x}", address)
