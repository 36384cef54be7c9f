"""Events as text."""

from __future__ import annotations

from deadreckon.adapters.text import render
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Source


def shown(exception: ExceptionInfo) -> list[str]:
    source = Source(format="minidump", name="x.dmp")
    event = Event(schema=SCHEMA, event_id="0" * 32, status="ok", source=source, exceptions=[exception])
    lines = render(event).splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("  exception")) :]


def test_what_is_known_of_a_fault() -> None:
    exception = ExceptionInfo(
        type="SIGSEGV",
        value="SEGV_MAPERR at 0x18",
        code="0xb",
        address="0x18",
        access="write",
        instruction="mov dword ptr [rdi + 0x18], eax",
        notes=["null pointer plus 0x18: rdi is 0", "another\x1b[31m"],
    )
    assert shown(exception) == [
        "  exception   SIGSEGV SEGV_MAPERR at 0x18 code 0xb",
        "  access      write at 0x18",
        "  instruction mov dword ptr [rdi + 0x18], eax",
        "  note        null pointer plus 0x18: rdi is 0",
        "  note        another\\x1b[31m",
    ]


def test_nothing_is_shown_of_what_is_not_known() -> None:
    assert shown(ExceptionInfo(type="SIGABRT", address="0x10")) == ["  exception   SIGABRT"]
