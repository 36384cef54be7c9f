"""The names of Mach exceptions with their codes, and of Darwin's signals: macOS, iOS and their siblings.

Sources: XNU ``mach/exception_types.h``, ``mach/i386/exception.h``, ``mach/arm/exception.h``, ``mach/kern_return.h``,
``kern/exc_resource.h``, ``kern/exc_guard.h``, ``mach/port.h``, ``sys/guarded.h``, ``mach/vm_statistics.h``,
``sys/signal.h``, ``sys/ux_exception.h``; for EXC_CRASH ``proc_prepareexit`` of ``bsd/kern/kern_exit.c``.
"""

from __future__ import annotations

from deadreckon.model.ids import Arch
from deadreckon.reports.reasons.reason import Reason, names

__all__ = ["EXCEPTIONS", "SIGNALS", "crash_signal", "darwin_signal_reason", "mach_reason"]

EXCEPTIONS = names(
    """
    EXC_BAD_ACCESS EXC_BAD_INSTRUCTION EXC_ARITHMETIC EXC_EMULATION EXC_SOFTWARE EXC_BREAKPOINT EXC_SYSCALL
    EXC_MACH_SYSCALL EXC_RPC_ALERT EXC_CRASH EXC_RESOURCE EXC_GUARD EXC_CORPSE_NOTIFY
    """,
)
_CODES = {
    "EXC_BAD_ACCESS": {
        1: "KERN_INVALID_ADDRESS",
        2: "KERN_PROTECTION_FAILURE",
        5: "KERN_FAILURE",
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
        0xDEAD_C0DE: "UNCAUGHT_NS_EXCEPTION",  # Crashpad's own.
    },
}
_CODES_X86 = {
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
_CODES_ARM = {
    "EXC_BAD_ACCESS": names(
        """
        EXC_ARM_DA_ALIGN EXC_ARM_DA_DEBUG EXC_ARM_SP_ALIGN EXC_ARM_SWP EXC_ARM_PAC_FAIL EXC_ARM_MTE_TAGCHECK_FAIL
        EXC_ARM_MTE_CANONICAL_FAIL
        """,
        0x101,
    ),
    "EXC_BAD_INSTRUCTION": {1: "EXC_ARM_UNDEFINED", 2: "EXC_ARM_SME_DISALLOWED"},
    "EXC_ARITHMETIC": names(
        "EXC_ARM_FP_UNDEFINED EXC_ARM_FP_IO EXC_ARM_FP_DZ EXC_ARM_FP_OF EXC_ARM_FP_UF EXC_ARM_FP_IX EXC_ARM_FP_ID", 0
    ),
    "EXC_BREAKPOINT": {1: "EXC_ARM_BREAKPOINT", 0x101: "EXC_ARM_DA_ALIGN", 0x102: "EXC_ARM_DA_DEBUG"},
}
_GPFLT = 13

_RESOURCES = names(
    """
    RESOURCE_TYPE_CPU RESOURCE_TYPE_WAKEUPS RESOURCE_TYPE_MEMORY RESOURCE_TYPE_IO RESOURCE_TYPE_THREADS
    RESOURCE_TYPE_PORTS
    """,
)
_RESOURCE_FLAVORS = {
    1: names("FLAVOR_CPU_MONITOR FLAVOR_CPU_MONITOR_FATAL"),
    2: names("FLAVOR_WAKEUPS_MONITOR"),
    3: names("FLAVOR_HIGH_WATERMARK FLAVOR_DIAG_MEMLIMIT"),
    4: names("FLAVOR_IO_PHYSICAL_WRITES FLAVOR_IO_LOGICAL_WRITES"),
    5: names("FLAVOR_THREADS_HIGH_WATERMARK"),
    6: names("FLAVOR_PORT_SPACE_FULL"),
}

_GUARDS = names(
    """
    GUARD_TYPE_MACH_PORT GUARD_TYPE_FD GUARD_TYPE_USER GUARD_TYPE_VN GUARD_TYPE_VIRT_MEMORY GUARD_TYPE_REJECTED_SC
    """,
)


def _bits(text: str) -> dict[int, str]:
    return {1 << bit: f"GUARD_EXC_{name}" for bit, name in enumerate(text.split())}


_GUARD_FLAVORS = {
    1: _bits(
        """
        DESTROY MOD_REFS SET_CONTEXT UNGUARDED INCORRECT_GUARD IMMOVABLE STRICT_REPLY MSG_FILTERED INVALID_RIGHT
        INVALID_NAME INVALID_VALUE INVALID_ARGUMENT RIGHT_EXISTS KERN_NO_SPACE KERN_FAILURE KERN_RESOURCE
        SEND_INVALID_REPLY SEND_INVALID_VOUCHER SEND_INVALID_RIGHT RCV_INVALID_NAME RCV_GUARDED_DESC
        MOD_REFS_NON_FATAL IMMOVABLE_NON_FATAL REQUIRE_REPLY_PORT_SEMANTICS
        """
    )
    # Later kernels use numbers between the bits.
    | {3: "GUARD_EXC_INVALID_OPTIONS", 5: "GUARD_EXC_THREAD_SET_STATE", 6: "GUARD_EXC_EXCEPTION_BEHAVIOR_ENFORCE"},
    2: _bits("CLOSE DUP NOCLOEXEC SOCKET_IPC FILEPORT MISMATCH WRITE"),
    4: _bits("RENAME_TO RENAME_FROM UNLINK WRITE_OTHER TRUNC_OTHER LINK EXCHDATA"),
    5: {
        1: "GUARD_EXC_DEALLOC_GAP",
        2: "GUARD_EXC_RECLAIM_COPYIO_FAILURE",
        4: "GUARD_EXC_RECLAIM_INDEX_FAILURE",
        8: "GUARD_EXC_RECLAIM_DEALLOCATE_FAILURE",
        9: "GUARD_EXC_RECLAIM_ACCOUNTING_FAILURE",
        98: "GUARD_EXC_SEC_ACCESS_FAULT",
        99: "GUARD_EXC_SEC_ASYNC_ACCESS_FAULT",
        100: "GUARD_EXC_SEC_COPY_DENIED",
        101: "GUARD_EXC_SEC_SHARING_DENIED",
        200: "GUARD_EXC_MTE_SYNC_FAULT",
        201: "GUARD_EXC_MTE_ASYNC_USER_FAULT",
        202: "GUARD_EXC_MTE_ASYNC_KERN_FAULT",
    },
}
_GUARD_TARGETS = {1: "port", 2: "file descriptor", 3: "namespace", 4: "pid"}
"""What the low half of an EXC_GUARD's code is, by the guard's type."""

SIGNALS = names(
    """
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGEMT SIGFPE SIGKILL SIGBUS SIGSEGV SIGSYS SIGPIPE SIGALRM SIGTERM
    SIGURG SIGSTOP SIGTSTP SIGCONT SIGCHLD SIGTTIN SIGTTOU SIGIO SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGINFO
    SIGUSR1 SIGUSR2
    """,
)
_SI_CODES = {
    "SIGILL": names("ILL_ILLOPC ILL_ILLTRP ILL_PRVOPC ILL_ILLOPN ILL_ILLADR ILL_PRVREG ILL_COPROC ILL_BADSTK"),
    "SIGFPE": names("FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV FPE_FLTSUB FPE_INTDIV FPE_INTOVF"),
    "SIGSEGV": names("SEGV_MAPERR SEGV_ACCERR"),
    "SIGBUS": names("BUS_ADRALN BUS_ADRERR BUS_OBJERR"),
    "SIGTRAP": names("TRAP_BRKPT TRAP_TRACE"),
}
_SI_GENERAL = names("SI_USER SI_QUEUE SI_TIMER SI_ASYNCIO SI_MESGQ", 0x10001)


def darwin_signal_reason(number: int, code: int, address: int | None) -> Reason:
    """Name one of Darwin's signals, with its si_code (0 says nothing) and si_addr."""
    name = SIGNALS.get(number, f"signal {number}")
    detail = _SI_CODES.get(name, {}).get(code) or _SI_GENERAL.get(code) or (f"si_code {code}" if code else "")
    return Reason(name, detail, address if name in _SI_CODES and code not in _SI_GENERAL else None)


def crash_signal(code: int) -> tuple[int, int, int]:
    """Take EXC_CRASH's first code apart: signal, the exception it came from (0: none), and that one's first code."""
    return code >> 24 & 0xFF, code >> 20 & 0xF, code & 0xF_FFFF


def mach_reason(arch: Arch, exception: int, code: int, subcode: int = 0, address: int | None = None) -> Reason:
    """Name a Mach exception. ``code`` and ``subcode`` have 64 bits; numbers without a name are given in hex.

    ``address`` is what the report calls the exception's address, by default that of a bad access: the subcode.
    """
    name = EXCEPTIONS.get(exception, f"{exception:#010x}")
    of_cpu = _CODES_ARM if arch in {Arch.ARM, Arch.ARM64} else _CODES_X86
    if name == "EXC_BAD_ACCESS":
        address = subcode if address is None else address
        if of_cpu is _CODES_X86 and code == _GPFLT:
            # A general protection fault has no address. The kernel says 0, Crashpad the program counter.
            return Reason(name, "EXC_I386_GPFLT", hidden=True)
    if name == "EXC_RESOURCE":
        detail = _resource(code, subcode)
    elif name == "EXC_GUARD":
        detail = _guard(code, subcode)
    elif name == "EXC_CRASH":
        detail = _crash(arch, code)
    else:
        detail = _CODES.get(name, {}).get(code) or of_cpu.get(name, {}).get(code) or ""
        if detail == "EXC_SOFT_SIGNAL" and subcode in SIGNALS:
            detail = f"{detail} {SIGNALS[subcode]}"
    return Reason(name, detail or f"code {code:#x}", address)


def _crash(arch: Arch, code: int) -> str:
    number, origin, origin_code = crash_signal(code)
    signal = SIGNALS.get(number, "")
    if signal and origin in EXCEPTIONS and EXCEPTIONS[origin] != "EXC_CRASH":
        why = mach_reason(arch, origin, origin_code)
        return f"{signal} for {why.type} / {why.detail}"
    return signal


def _resource(code: int, subcode: int) -> str:
    """Bits 61 to 63 are the type, 58 to 60 the flavor; the rest is the limit, and the subcode what was observed."""
    kind, flavor = code >> 61 & 7, code >> 58 & 7
    if kind not in _RESOURCES:
        return ""
    parts = [_RESOURCES[kind], _RESOURCE_FLAVORS[kind].get(flavor, f"flavor {flavor}" if flavor else "")]
    limit = code & 0xFFFF_FFFF
    if limit:
        if kind == 1:
            parts.append(f"{subcode & 0x7F}% of a CPU, limit {limit & 0x7F}% over {limit >> 7} s")
        elif kind == 2:
            parts.append(f"{subcode & 0xF_FFFF} wakeups/s, limit {limit & 0xF_FFFF} over {limit >> 20} s")
        elif kind == 3:
            parts.append(f"limit {limit & 0x1FFF} MB")
        elif kind == 4:
            parts.append(f"{subcode & 0x7FFF} MB, limit {limit & 0x7FFF} MB over {limit >> 15} s")
        elif kind == 5:
            parts.append(f"limit {limit & 0x7FFF}")
        else:
            parts.append(f"{limit & 0xFF_FFFF} allocated")
    return " ".join(p for p in parts if p)


def _guard(code: int, subcode: int) -> str:
    """Bits 61 to 63 are the type, 32 to 60 the flavor, the rest the target; the subcode is the guard, or a reason."""
    kind, flavor, target = code >> 61 & 7, code >> 32 & 0x1FFF_FFFF, code & 0xFFFF_FFFF
    if kind not in _GUARDS:
        return ""
    known = _GUARD_FLAVORS.get(kind, {}).get(flavor, f"flavor {flavor:#x}" if flavor else "")
    parts = [_GUARDS[kind], known]
    if target and kind in _GUARD_TARGETS:
        parts.append(f"{_GUARD_TARGETS[kind]} {target:#x}" if kind == 1 else f"{_GUARD_TARGETS[kind]} {target}")
    if subcode:
        parts.append(f"{'reason' if kind == 3 else 'guard'} {subcode:#x}")
    return " ".join(p for p in parts if p)
