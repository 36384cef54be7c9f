"""How each crash format is told by its content: one function a format, named as the format is.

Cheap checks first: every file of an archive is shown to all of them. What a reader has to say about a damaged file of
its format is worth more than "unknown", so a sniffer asks for as little as tells the format from all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deadreckon.reports.probe import Probe

__all__ = ["elfcore", "javascript", "minidump"]


def minidump(probe: Probe) -> bool:
    """Windows' header signature, in either byte order."""
    return probe.head[:4] in {b"MDMP", b"PMDM"}


def elfcore(probe: Probe) -> bool:
    """An ELF file of type ET_CORE."""
    head = probe.head
    order: Literal["little", "big"] = "big" if head[5:6] == b"\2" else "little"
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], order) == 4


def javascript(probe: Probe) -> bool:
    """Frames as JavaScript engines print them, or an error of theirs as JSON."""
    text = probe.text
    if not any(mark in text for mark in ("at ", "@", "Line ", "stack", "created by ")):
        return False
    from deadreckon.reports.javascript import telling  # noqa: PLC0415  (most inputs are something else)

    return telling.stack_text(text) or (bool(probe.json) and telling.serialized_error(probe.json))
