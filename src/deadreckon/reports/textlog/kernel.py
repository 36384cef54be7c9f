"""What the Linux kernel says of an error of its own, and Trusty beside it.

Sources: Linux ``mm/kasan/report.c``, ``arch/*/mm/fault.c``, ``lib/bug.c``, ``kernel/panic.c``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.reports.textlog.findings import Finding, Kind, decimal, hexadecimal
from deadreckon.reports.textlog.sanitizers import details

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.textlog.findings import Make, Row

__all__ = ["ROWS"]


def _kasan(match: re.Match[str], lines: Sequence[str], at: int) -> Finding:
    tool, said = match[1], match[2].strip()
    title = re.match(r"(.{1,64}?)(?= in | on | at |$)", said)
    name = title[1] if title else said[:64]
    found = Finding(Kind.REPORT, tool, name, said)
    if address := re.search(r"(?:on address|at addr) ((?:0x)?[0-9a-f]{8,16})", said):
        found.address = hexadecimal(address[1])
    details(found, lines, at)
    if "access" not in found.attributes:
        for line in lines[at + 1 : at + 4]:
            if access := re.match(r"(Read|Write) of size (\d{1,10})", line.strip()):
                found.attributes |= {"access": access[1].upper(), "access_size": access[2]}
                break
    label = name.replace(" ", "-") + ("-access" if name.endswith("out of bounds") else "")
    label = label[:1].upper() + label[1:]
    access_of = (
        f"\n{found.attributes['access']} {found.attributes['access_size']}" if "access_size" in found.attributes else ""
    )
    found.crash_type = f"Kernel failure\n{label}{access_of}"
    return found


def _oops(kind: str) -> Make:
    def make(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
        said = match[0].strip()
        found = Finding(
            Kind.SIGNAL, "kernel", kind, said, f"Kernel failure\n{kind[:1].upper()}{kind[1:].replace(' ', '-')}"
        )
        if address := re.search(r"(?:address:?|at) ((?:0x)?[0-9a-f]{8,16})\b", said):
            found.address = hexadecimal(address[1])
        return found

    return make


def _bug(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    place = re.fullmatch(r"(.+):(\d{1,9})", match[1])
    label = re.sub(r":\d+$", ":{*}!", match[1])
    found = Finding(Kind.REPORT, "kernel", "kernel BUG", match[1], f"Kernel failure\n{label[:1].upper()}{label[1:]}")
    if place:
        found.file, found.lineno = place[1], decimal(place[2])
    return found


def _panic(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    said = match[1].strip()
    return Finding(
        Kind.SIGNAL, "kernel", "kernel panic", said, f"Kernel failure\n{re.sub(r'[^A-Za-z0-9_-]+', '-', said)}"
    )


def _warning(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    return Finding(
        Kind.REPORT, "kernel", "kernel warning", match[3], "Kernel failure\nWarning",
        file=match[1], lineno=decimal(match[2]), function=match[3].split("+", 1)[0],
    )  # fmt: skip


def _trusty(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    return Finding(Kind.SIGNAL, "trusty", "trusted app crash", match[0], "Trusted app crash")


ROWS: tuple[Row, ...] = (
    ("BUG: K", r"BUG: (KASAN|KMSAN|KCSAN|KFENCE): (.*)", _kasan),
    ("kernel BUG at ", r"kernel BUG at (.*?)!?$", _bug),
    ("Unable to handle", r"Unable to handle kernel .{1,80}? at (?:virtual address )?[0-9a-f]{8,16}",
     _oops("kernel fault")),
    ("BUG: ", r"BUG: unable to handle .*", _oops("kernel fault")),
    ("BUG: ", r"BUG: kernel NULL pointer dereference, address: [0-9a-f]{8,16}", _oops("NULL pointer dereference")),
    ("BUG: ", r"BUG: (?:soft lockup|scheduling while atomic|sleeping function|workqueue lockup|stack guard page).*",
     _oops("kernel BUG")),
    ("general protection fault", r"general protection fault\b.*", _oops("general protection fault")),
    ("INFO: task ", r"INFO: task \S+ blocked for more than \d+ seconds.*", _oops("hung task")),
    ("WARNING: CPU", r"WARNING: CPU: \d+ PID: \d+ at (\S+):(\d{1,9}) (.*)", _warning),
    ("Kernel panic", r"Kernel panic - not syncing: (.*)", _panic),
    ("Internal error: ", r"Internal error: .{1,80}\[#\d+\].*", _oops("kernel oops")),
    ("trusty", r"panic notifier - trusty version.*", _trusty),
)  # fmt: skip
