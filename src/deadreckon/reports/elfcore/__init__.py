"""ELF cores of Linux (x86, x86_64, ARM, ARM64), by the kernel, gdb's gcore or qemu's user mode, into a RawCrash.

Specifications: System V ABI (gABI) chapters 4 and 5; Linux ``fs/binfmt_elf.c``, ``include/uapi/linux/elf.h``,
``elfcore.h`` and ``auxvec.h``; the C library's ``link.h``.

``core`` reads headers, memory and the list of notes, ``notes`` what the notes say, ``modules`` puts the images of the
process together. A damaged note or segment costs what it would have said, and a diagnostic; so does the end of a file
that was cut short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import RawCrash, RawException
from deadreckon.reports.elfcore.core import Core
from deadreckon.reports.elfcore.modules import process_images
from deadreckon.reports.elfcore.notes import Notes, read_notes
from deadreckon.reports.reasons.linux import signal_name, signal_reason
from deadreckon.reports.reasons.reason import DUMP_REQUESTED, Reason

if TYPE_CHECKING:
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["read"]

_FOREIGN = ("FreeBSD", "NetBSD-CORE", "OpenBSD", "QNX")


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read a core. The crash's memory is a view of ``data``, which must stay open as long as it is used.

    Of a mapped file, headers and notes are read, and those pages of memory that name the modules. Raises Malformed
    where the headers can't be read or lead to nothing, Unsupported for other systems, machines and byte orders, and
    LimitExceeded for a file larger than ``max_bytes``.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "ELF core")
    core = Core(data, limits)
    notes = read_notes(core)
    foreign = next((owner for owner in notes.others if owner.startswith(_FOREIGN)), None)
    if foreign is not None and not notes.threads:
        raise Unsupported(f"ELF core with notes of {foreign!r}: only Linux's are read")
    crash = RawCrash(
        "elfcore",
        arch=core.layout.arch,
        os_name="Linux",
        pid=notes.pid,
        threads=notes.threads,
        memory=core.memory(),
        address_mask=notes.address_mask,
        diagnostics=core.diagnostics,
    )
    if not notes.threads:
        core.problem("malformed", "the core has no thread", {"note": "NT_PRSTATUS"})
        if not len(crash.memory.start):
            raise Malformed("ELF core", expected="a thread or memory", got=f"{core.size} bytes without")
    process_images(core, notes, crash)
    if notes.arguments:
        crash.attributes["cmdline"] = notes.arguments
    if entry := notes.auxv.get(_AT_ENTRY):
        crash.attributes["entry_point"] = hex(entry)
    if notes.threads:
        _stopped(notes, crash)
    return crash


_AT_ENTRY = 9
_SIGSTOP = 19
_HARMLESS = (None, 0, _SIGSTOP)
"""What gcore gives the threads of a process that it has stopped itself: no signal kills by these."""


def _stopped(notes: Notes, crash: RawCrash) -> None:
    """Find the thread that a signal stopped, and say why: kernel and gdb list it first.

    The kernel gives every thread the number of that signal (``pr_cursig``) and only the first its siginfo; gdb gives
    each thread its own of both, and may leave ``pr_cursig`` 0: lldb's gcore/linux-x86_64.core.
    """
    count = len(notes.threads)
    told = next((i for i in range(count) if i in notes.siginfo and notes.siginfo[i].signo not in _HARMLESS), None)
    current = next((i for i in range(count) if notes.signals[i] not in _HARMLESS), None)
    if told is None and current is None:
        crash.exceptions.append(RawException(DUMP_REQUESTED, mechanism="elfcore", thread_id=notes.threads[0].id))
        return
    index = min(i for i in (told, current) if i is not None)
    signal = notes.signals[index]
    info = notes.siginfo.get(index)
    if info is not None and signal not in {0, info.signo}:
        info = None  # Left over from an earlier signal.
    number = signal if info is None else info.signo
    if info is None:
        why = Reason(signal_name(number))
    elif info.code == 0:
        why = Reason(signal_name(number), "SI_USER")  # The union holds who sent it.
    else:
        why = signal_reason(number, info.code & 0xFFFF_FFFF, info.address)
    thread = notes.threads[index]
    thread.crashed = True
    crash.exceptions.append(
        RawException(
            why.type, why.value, number, why.address, "elfcore", thread.id, access=why.access, address_hidden=why.hidden
        )
    )
