"""What Apple's formats say of system, time, program and exception, in their several spellings.

Sources: Apple, "Understanding the exception types in a crash report"; XNU ``mach/machine.h``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING
from uuid import UUID

from deadreckon.model.crash import RawException
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.reasons.macos import EXCEPTIONS, SIGNALS, mach_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deadreckon.model.crash import RawCrash

__all__ = [
    "application",
    "code_type",
    "cpu_arch",
    "event_id",
    "exception",
    "message",
    "operating_system",
    "registers",
    "signal_name",
    "timestamp",
    "uncaught",
]

_TOP = 0xFFFF_FFFF_FFFF_FFFF

_CPU_TYPES = {
    7: Arch.X86,
    0x0100_0007: Arch.X86_64,
    12: Arch.ARM,
    0x0100_000C: Arch.ARM64,
    0x0200_000C: Arch.ARM64,
}


def cpu_arch(cpu_type: int | None) -> Arch:
    """Return the architecture of a ``cpu_type_t``."""
    return _CPU_TYPES.get(cpu_type or 0, Arch.UNKNOWN)


def code_type(text: str) -> Arch:
    """Return the architecture of a report's ``Code Type`` ("ARM-64 (Native)", "X86-64 (Translated)", "arm64e")."""
    word = text.partition("(")[0].strip().lower()
    return Arch.parse({"arm-64": "arm64", "x86-64": "x86_64", "arm-32": "arm"}.get(word, word))


_OS_NAMES = {
    "iphone os": "iOS",
    "ios": "iOS",
    "ipados": "iPadOS",
    "mac os x": "macOS",
    "os x": "macOS",
    "macos": "macOS",
    "apple tvos": "tvOS",
    "tvos": "tvOS",
    "watch os": "watchOS",
    "watchos": "watchOS",
    "xros": "visionOS",
    "visionos": "visionOS",
    "bridge os": "bridgeOS",
    "bridgeos": "bridgeOS",
}
_OS = re.compile(r"([A-Za-z ]*)(\d[\d.]*)?[^()]{0,64}(?:\((?:Build )?([^()]{1,32})\))?", re.ASCII)


def operating_system(crash: RawCrash, text: str) -> None:
    """Read "iPhone OS 15.2.1 (19C63)" and the like into the crash."""
    match = _OS.match(text.strip()[:256])
    if match is None:
        return
    name = match[1].strip().removesuffix("Version").rstrip()
    crash.os_name = _OS_NAMES.get(name.lower(), name) or crash.os_name
    crash.os_version = match[2] or crash.os_version
    crash.os_build = match[3] or crash.os_build


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d{0,20})? ?(?:(Z|UTC|GMT)|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)


def timestamp(text: str) -> float | None:
    """Read "2022-03-16 11:45:14.2121 +0800" or RFC 3339 as seconds since 1970; without a zone it is taken as UTC."""
    match = _TIME.match(text.strip()[:64])
    if match is None:
        return None
    *parts, fraction, _, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset) if sign else UTC
        found = datetime(*map(int, parts), tzinfo=zone).timestamp()  # type: ignore[misc, arg-type]
    except (ValueError, OverflowError):
        return None
    return found + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)


def event_id(text: str) -> str | None:
    """Return an incident's identifier as 32 hex digits, None for anything else and for the nil one."""
    try:
        found = UUID(text.strip()[:64])
    except ValueError:
        return None
    return found.hex if found.int else None


def application(crash: RawCrash, identifier: str, short: str, build: str) -> None:
    """Say which program it was: 3.3.1 is what people call the version, and 1 its build: com.example.app@3.3.1+1."""
    number = "+".join(filter(None, (short, build)))
    crash.release = "@".join(filter(None, (identifier, number))) or crash.release
    facts = {"app_identifier": identifier, "app_marketing_version": short, "app_version": build}
    crash.attributes |= {name: value for name, value in facts.items() if value}


def registers(arch: Arch, values: Mapping[str, int]) -> Registers | None:
    """Return a thread state, None where the architecture or all of the registers are unknown."""
    if arch not in REGISTER_SETS:
        return None
    found = Registers.from_mapping(arch, values, keep_others=True)
    return found if found.valid else None


_NUMBERS = {name: number for table in (EXCEPTIONS, SIGNALS) for number, name in table.items()}
_AT = re.compile(r"\bat (0x[0-9a-fA-F]{1,16})\b")
_GENERAL_PROTECTION = "GPFLT"


def signal_name(number: int | None) -> str:
    """Name one of Darwin's signals, "" for none."""
    return "" if not number else SIGNALS.get(number, f"signal {number}")


def exception(
    kind: str | int,
    arch: Arch,
    *,
    signal: str = "",
    detail: str = "",
    codes: Sequence[int] = (),
    thread: int | None = None,
) -> RawException:
    """Return a Mach exception (by name or number) or a signal.

    ``detail`` is what the report says in words ("KERN_INVALID_ADDRESS at 0x10"); where it has numbers only, ``codes``
    are named. The address is the one in the words, else the one that the codes of a bad access hold.
    """
    name = EXCEPTIONS.get(kind, f"exception {kind}") if isinstance(kind, int) else kind
    number = kind if isinstance(kind, int) else _NUMBERS.get(kind)
    found = RawException(name or None, detail, number, mechanism="signal" if name.startswith("SIG") else "mach")
    found.thread_id = thread
    if detail:
        match = _AT.search(detail)
        found.address = int(match[1], 16) if match else None
        found.address_hidden = match is None and _GENERAL_PROTECTION in detail
    elif name == "EXC_CRASH":
        found.value = signal
    elif name.startswith("EXC_") and number and codes:
        code, subcode = codes[0] & _TOP, codes[1] & _TOP if len(codes) > 1 else None
        why = mach_reason(arch, number, code, subcode or 0)
        known = name == "EXC_BAD_ACCESS" and subcode is not None
        found.value, found.address_hidden = why.value if known else why.detail, why.hidden
        found.address = why.address if known else None
    elif name != signal:
        found.value = signal
    return found


def message(crash: RawCrash) -> str | None:
    """Return what the report says of the crash in words: what libraries left in it, or why the system ended it."""
    told = crash.attributes.get("application_specific_information") or crash.attributes.get("dyld_error_message")
    ended = str(crash.attributes.get("termination_reason", ""))
    if not told and not ended.removeprefix("Namespace ").startswith("SIGNAL"):
        told = ended
    return str(told) if told else None


_UNCAUGHT = re.compile(
    r"\*\*\* Terminating app due to uncaught exception (?:'([^'\n]{1,256})'|of class '([^'\n]{1,256})')"
)
_REASON = ", reason: '"
_REASON_END = re.compile(r"'\s*\n\s*(?:\*\*\* |terminating |abort\(\)|libc\+\+abi|UserInfo|User dictionary|\(|\n)")
"""The reason may hold quotes and line ends itself; what follows it begins a line."""


def uncaught(text: str) -> tuple[str, str] | None:
    """Return name and reason of the exception that "Terminating app due to uncaught exception" is about, else None."""
    match = _UNCAUGHT.search(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if not rest.startswith(_REASON):
        return match[1] or match[2], ""
    rest = rest[len(_REASON) :]
    end = _REASON_END.search(rest)
    return match[1] or match[2], (rest[: end.start()] if end else rest.rstrip().removesuffix("'")).strip()
