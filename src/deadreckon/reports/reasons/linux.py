"""The names of Linux's and Android's signals, and of what ``si_code`` says about them.

Sources: Linux ``asm-generic/signal.h`` and ``siginfo.h``; for what the kernel puts there ``arch/x86/kernel/traps.c``.
"""

from __future__ import annotations

from deadreckon.reports.reasons.reason import Reason, names

__all__ = ["SIGNALS", "signal_name", "signal_reason"]

SIGNALS = names(
    """
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
    SIGPWR SIGSYS
    """,
)
_SI_CODES = {
    "SIGILL": names(
        "ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC ILL_BADSTK ILL_BADIADDR"
    ),
    "SIGFPE": names("FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV FPE_FLTSUB")
    | names("FPE_FLTUNK FPE_CONDTRAP", 14),
    "SIGSEGV": names(
        """
        SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR SEGV_ACCADI SEGV_ADIDERR SEGV_ADIPERR SEGV_MTEAERR SEGV_MTESERR
        SEGV_CPERR
        """,
    ),
    "SIGBUS": names("BUS_ADRALN BUS_ADRERR BUS_OBJERR BUS_MCEERR_AR BUS_MCEERR_AO"),
    "SIGTRAP": names("TRAP_BRKPT TRAP_TRACE TRAP_BRANCH TRAP_HWBKPT TRAP_UNK TRAP_PERF"),
    "SIGSYS": names("SYS_SECCOMP SYS_USER_DISPATCH"),
    "SIGCHLD": names("CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED"),
    "SIGIO": names("POLL_IN POLL_OUT POLL_MSG POLL_ERR POLL_PRI POLL_HUP"),
}
_SI_KERNEL = 0x80
_SI_GENERAL = {
    _SI_KERNEL: "SI_KERNEL",
    -1: "SI_QUEUE",
    -2: "SI_TIMER",
    -3: "SI_MESGQ",
    -4: "SI_ASYNCIO",
    -5: "SI_SIGIO",
    -6: "SI_TKILL",
    -7: "SI_DETHREAD",
    -60: "SI_ASYNCNL",
}
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"})


def signal_name(number: int) -> str:
    """Name a signal; a number without a name is given in hex."""
    return SIGNALS.get(number, f"{number:#010x}")


def signal_reason(code: int, flags: int, address: int) -> Reason:
    """Name a Linux or Android signal: ``code`` is si_signo, ``flags`` si_code, ``address`` si_addr."""
    name = signal_name(code)
    si_code = flags - (1 << 32) if flags >> 31 else flags
    detail = _SI_CODES.get(name, {}).get(si_code) or _SI_GENERAL.get(si_code, "")
    # Zero would be SI_USER, but older Breakpad writers leave it 0 whatever happened: linux_null_read_av.dmp.
    if not detail and si_code:
        detail = f"si_code {si_code}"
    # Other signals have the sender's pid and uid where these have si_addr: linux_raise_sigabrt.dmp says
    # 0x4d14400005be6. So has any signal that a process sent (si_code below 0).
    if name not in _FAULTS or si_code < 0:
        return Reason(name, detail)
    # x86 raises a general protection or stack fault for an address that is not canonical, and these tell no address:
    # the kernel says SI_KERNEL and leaves si_addr 0. (So does a breakpoint.)
    if si_code == _SI_KERNEL and not address:
        return Reason(name, detail, hidden=name in {"SIGSEGV", "SIGBUS"})
    return Reason(name, detail, address)
