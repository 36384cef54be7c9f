"""What readers say of why a process stopped, and the names of Linux's and Android's signals.

Sources: Linux ``asm-generic/siginfo.h`` and ``signal.h``.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DUMP_REQUESTED", "SIGNALS", "Reason", "names", "signal_reason"]

DUMP_REQUESTED = "DUMP_REQUESTED"
"""Type of an exception that is none: the program asked for a dump and went on."""


def names(text: str, first: int = 1) -> dict[int, str]:
    """Give the words of a text their numbers: a table of names without gaps."""
    return dict(enumerate(text.split(), first))


class Reason(NamedTuple):
    """Why a process stopped: ``type`` (SIGSEGV), what qualifies it (SEGV_MAPERR), and the address it was about."""

    type: str
    detail: str = ""
    address: int | None = None

    @property
    def value(self) -> str:
        """Detail and address as one short text."""
        where = "" if self.address is None else f"at {self.address:#x}"
        return f"{self.detail} {where}".strip()


SIGNALS = names(
    """
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
    SIGPWR SIGSYS
    """,
)
_SI_CODES = {
    "SIGILL": names("ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC ILL_BADSTK"),
    "SIGFPE": names("FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV FPE_FLTSUB"),
    "SIGSEGV": names(
        """
        SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR SEGV_ACCADI SEGV_ADIDERR SEGV_ADIPERR SEGV_MTEAERR SEGV_MTESERR
        SEGV_CPERR
        """,
    ),
    "SIGBUS": names("BUS_ADRALN BUS_ADRERR BUS_OBJERR BUS_MCEERR_AR BUS_MCEERR_AO"),
    "SIGTRAP": names("TRAP_BRKPT TRAP_TRACE TRAP_BRANCH TRAP_HWBKPT TRAP_UNK TRAP_PERF"),
    "SIGSYS": names("SYS_SECCOMP SYS_USER_DISPATCH"),
}
_SI_GENERAL = {
    0x80: "SI_KERNEL",
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


def signal_reason(code: int, flags: int, address: int) -> Reason:
    """Name a Linux or Android signal: ``code`` is si_signo, ``flags`` si_code, ``address`` si_addr."""
    name = SIGNALS.get(code, f"{code:#010x}")
    si_code = flags - (1 << 32) if flags >> 31 else flags
    detail = _SI_CODES.get(name, {}).get(si_code) or _SI_GENERAL.get(si_code, "")
    # Zero would be SI_USER, but older Breakpad writers leave it 0 whatever happened: linux_null_read_av.dmp.
    if not detail and si_code:
        detail = f"si_code {si_code}"
    # Other signals have the sender's pid and uid where these have si_addr: linux_raise_sigabrt.dmp says
    # 0x4d14400005be6. So has any signal that a process sent (si_code below 0).
    return Reason(name, detail, address if name in _FAULTS and si_code >= 0 else None)
