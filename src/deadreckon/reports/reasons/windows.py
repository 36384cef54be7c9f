"""The names of Windows's exception codes, of what their parameters say, and of the status codes among them.

Sources: ``winnt.h`` (EXCEPTION_RECORD, EXCEPTION_*, FAST_FAIL_*), [MS-ERREF] section 2.3 (NTSTATUS) and 2.1 (HRESULT),
the C++ runtime's ``ehdata.h``, .NET's ``corexcep.h``. How the fields are used follows rust-minidump's ``CrashReason``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.reasons.ntstatus import status_name
from deadreckon.reports.reasons.reason import Reason, names

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["exception_name", "windows_reason"]

_ACCESS_VIOLATION, _IN_PAGE_ERROR, _GUARD_PAGE, _STACK_OVERFLOW = 0xC000_0005, 0xC000_0006, 0x8000_0001, 0xC000_00FD
_FAULTS = frozenset({_ACCESS_VIOLATION, _IN_PAGE_ERROR, _GUARD_PAGE, _STACK_OVERFLOW})
"""Exceptions whose first two parameters are the kind of access and the address."""
_STACK_BUFFER_OVERRUN = 0xC000_0409
_CLR_EXCEPTION = 0xE043_4352
_ALL_ONES = (0xFFFF_FFFF_FFFF_FFFF,)

_ACCESS_KINDS = {0: "READ", 1: "WRITE", 8: "EXEC"}
_ACCESSES = {0: "read", 1: "write", 8: "execute"}

# Most of what stops programs: what winnt.h names EXCEPTION_*, and what runtimes and compilers chose for themselves.
_EXCEPTIONS = {
    0x0000_0001: "STATUS_WAIT_1",
    0x0CCA_11ED: "CRASHPAD_TRIGGERED",  # DumpAndCrashTargetProcess.
    0x0EED_FADE: "DELPHI_EXCEPTION",
    0x2047_4343: "GCC_THROW",  # "GCC " of libgcc's unwinder, and what follows.
    0x2147_4343: "GCC_UNWIND",
    0x2247_4343: "GCC_FORCED_UNWIND",
    0x4008_0201: "WINRT_ORIGINATE_ERROR",
    0x4008_0202: "WINRT_TRANSFORM_ERROR",
    0x406D_1388: "MS_VC_EXCEPTION",
    _GUARD_PAGE: "EXCEPTION_GUARD_PAGE",
    _ACCESS_VIOLATION: "EXCEPTION_ACCESS_VIOLATION",
    _IN_PAGE_ERROR: "EXCEPTION_IN_PAGE_ERROR",
    0xC000_0008: "EXCEPTION_INVALID_HANDLE",
    0xC000_0194: "EXCEPTION_POSSIBLE_DEADLOCK",
    0xC000_0374: "EXCEPTION_HEAP_CORRUPTION",
    _STACK_BUFFER_OVERRUN: "EXCEPTION_STACK_BUFFER_OVERRUN",
    0xC000_0417: "STATUS_INVALID_CRUNTIME_PARAMETER",
    0xC000_041D: "STATUS_FATAL_USER_CALLBACK_EXCEPTION",
    0xC000_0602: "STATUS_FAIL_FAST_EXCEPTION",
    0xC06D_007E: "VCPP_EXCEPTION_MODULE_NOT_FOUND",
    0xC06D_007F: "VCPP_EXCEPTION_PROCEDURE_NOT_FOUND",
    0xE000_0008: "OUT_OF_MEMORY",  # Chromium's.
    _CLR_EXCEPTION: "CLR_EXCEPTION",  # "CCR" of .NET 4 and later, "COM" of 1 and 2.
    0xE043_4F4D: "CLR_EXCEPTION",
    0xE06D_7363: "UNHANDLED_CPP_EXCEPTION",  # "msc".
    0xE073_616E: "SANITIZER_EXCEPTION",  # "san".
}

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
"""FAST_FAIL_*, the first argument of __fastfail."""

_HRESULTS = {
    0x8000_4001: "E_NOTIMPL",
    0x8000_4002: "E_NOINTERFACE",
    0x8000_4003: "E_POINTER",
    0x8000_4004: "E_ABORT",
    0x8000_4005: "E_FAIL",
    0x8000_FFFF: "E_UNEXPECTED",
    0x8001_010D: "RPC_E_CANTCALLOUT_ININPUTSYNCCALL",
    0x8007_0005: "E_ACCESSDENIED",
    0x8007_0006: "E_HANDLE",
    0x8007_000E: "E_OUTOFMEMORY",
    0x8007_0057: "E_INVALIDARG",
    0x8013_1500: "COR_E_EXCEPTION",
    0x8013_1501: "COR_E_SYSTEM",
    0x8013_1502: "COR_E_ARGUMENTOUTOFRANGE",
    0x8013_1506: "COR_E_EXECUTIONENGINE",
    0x8013_1508: "COR_E_INDEXOUTOFRANGE",
    0x8013_1509: "COR_E_INVALIDOPERATION",
    0x8013_1522: "COR_E_TYPELOAD",
    0x8013_1534: "COR_E_TYPEINITIALIZATION",
    0x8013_1539: "COR_E_TIMEOUT",
    0x8013_1600: "COR_E_APPLICATION",
    0x8013_1604: "COR_E_TARGETINVOCATION",
}
"""What a managed exception carries, and what some programs raise as it is."""


def exception_name(code: int) -> str:
    """Name an exception code: as an exception, a status or an HRESULT; one without a name is given in hex."""
    return (
        _EXCEPTIONS.get(code) or _name_in_package(code) or status_name(code) or _HRESULTS.get(code) or f"{code:#010x}"
    )


def _name_in_package(code: int) -> str | None:
    """Look an exception up in the ``minidump`` package, which has the rest of winnt.h's.

    It costs 9 ms to import, so that the codes of most crashes are in our own table. Its enumeration mixes in POSIX
    signals, as small numbers.
    """
    if code < 0x8000_0000:
        return None
    from minidump.streams.ExceptionStream import ExceptionCode  # noqa: PLC0415

    try:
        return str(ExceptionCode(code).name)
    except ValueError:
        return None


def windows_reason(code: int, address: int, information: Sequence[int]) -> Reason:
    """Name an exception: its code, the address of its instruction, and its parameters."""
    name = exception_name(code)
    if code in _FAULTS and len(information) >= 2:
        kind, at = information[:2]
        access = _ACCESSES.get(kind)
        if code == _IN_PAGE_ERROR and len(information) >= 3:  # The third says why the page could not be read.
            status = information[2] & 0xFFFF_FFFF
            detail = exception_name(status) if status else ""
        else:
            detail = ""
        if code in {_ACCESS_VIOLATION, _IN_PAGE_ERROR} and kind in _ACCESS_KINDS:
            name = f"{name}_{_ACCESS_KINDS[kind]}"
        # A general protection fault tells no address: Windows says that all ones were read, whatever was done.
        hidden = code == _ACCESS_VIOLATION and kind == 0 and at in _ALL_ONES
        return Reason(name, detail, at, None if hidden else access, hidden)
    if code == _STACK_BUFFER_OVERRUN and information:
        known = _FAST_FAIL.get(information[0])
        return Reason(name, f"FAST_FAIL_{known}" if known else hex(information[0]), address)
    if code == _CLR_EXCEPTION and information:  # The first is the managed exception's HRESULT.
        result = information[0] & 0xFFFF_FFFF
        return Reason(name, _HRESULTS.get(result, f"HRESULT {result:#010x}"), address)
    return Reason(name, "", address)
