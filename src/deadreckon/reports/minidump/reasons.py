"""Why a dump's process stopped: which family of names a minidump's exception record has, and what stands for no crash.

Sources: Breakpad ``minidump_exception_*.h``; Crashpad ``snapshot/mac/exception_snapshot_mac.cc``,
``snapshot/ios/exception_snapshot_ios_intermediate_dump.cc``, ``util/misc/capture_context.h`` and
``util/mach/exception_types.cc``. How the fields are used follows rust-minidump's ``CrashReason``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.reports.reasons.linux import signal_reason
from deadreckon.reports.reasons.macos import SIGNALS, darwin_signal_reason, mach_reason
from deadreckon.reports.reasons.reason import DUMP_REQUESTED, Reason
from deadreckon.reports.reasons.windows import windows_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.ids import Arch

__all__ = ["DUMP_REQUESTED", "Reason", "reason"]

# No exception at all; MD_EXCEPTION_CODE_LIN_DUMP_REQUESTED and Crashpad's signal -1; Crashpad's kMachExceptionSimulated
# ("CPsx"); Crashpad's and Breakpad's simulated exception on Windows.
_REQUESTED = frozenset({0, 0xFFFF_FFFF, 0x4350_7378, 0x0517_A7ED})
_NS_EXCEPTION = 0x4350_6E78
"""Crashpad's kMachExceptionFromNSException ("CPnx"): minidump_crashpad_annotation.dmp."""
_EXC_SOFTWARE, _EXC_BREAKPOINT, _EXC_CRASH, _EXC_RESOURCE, _EXC_GUARD = 5, 6, 10, 11, 12


def reason(os_name: str | None, arch: Arch, code: int, flags: int, address: int, information: Sequence[int]) -> Reason:
    """Name an exception record; ``information`` holds its parameters. Unknown numbers are given in hex."""
    apple = os_name in {"macOS", "iOS"}
    if apple and not code and len(information) >= 2 and information[0] == _EXC_CRASH:
        # Crashpad puts the exception that a crash came from in its place. An abort came from none: simple-crashpad.dmp.
        code = _EXC_CRASH
    elif code in _REQUESTED:
        return Reason(DUMP_REQUESTED)
    if arch.word_size == 4:
        # Some writers extend the sign: minidump_32bit_crash_addr.dmp.
        address &= 0xFFFF_FFFF
        information = [n & 0xFFFF_FFFF for n in information] if os_name == "Windows" else information
    if os_name == "Windows":
        return windows_reason(code, address, information)
    if not apple:
        return signal_reason(code, flags, address)
    if code == _NS_EXCEPTION:
        return Reason("NSException", "", address)
    if os_name == "iOS" and not information and _is_signal(code, flags):
        return darwin_signal_reason(code, flags, address)
    first, second = _mach_codes(code, flags, information)
    return mach_reason(arch, code, first, second, address)


def _is_signal(code: int, flags: int) -> bool:
    """Whether an exception of iOS without parameters is a signal that Crashpad's handler caught, and no exception.

    The numbers overlap. An abort (6) comes with code 0, which a breakpoint (6) never has; an NSException that nobody
    caught is EXC_SOFTWARE (5); of the others, programs die of the signal.
    """
    if code == _EXC_BREAKPOINT:
        return flags == 0
    return code in SIGNALS and code > 3 and (code, flags) != (_EXC_SOFTWARE, 0xDEAD_C0DE)


def _mach_codes(code: int, flags: int, information: Sequence[int]) -> tuple[int, int]:
    """Return an exception's two codes in full: Crashpad gives exception, code and subcode, Breakpad the latter two.

    Without them there is what ExceptionFlags hold: 32 bits of the first, which are its upper ones where they matter.
    """
    if len(information) >= 3:
        first, second = information[1:3]
    elif information:
        first, second = information[0], information[1] if len(information) > 1 else 0
    else:
        first, second = flags, 0
    upper = code in {_EXC_RESOURCE, _EXC_GUARD}
    if upper and first >> 32 != flags:
        first = flags << 32
    elif not upper and first & 0xFFFF_FFFF != flags:
        # What Crashpad took out of an EXC_CRASH: mac.dmp has 0x4200001 among the parameters, and 1 here.
        first = first if code == _EXC_CRASH else flags
    return first, second
