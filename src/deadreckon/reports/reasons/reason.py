"""What readers say of why a process stopped."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DUMP_REQUESTED", "Reason", "names"]

DUMP_REQUESTED = "DUMP_REQUESTED"
"""Type of an exception that is none: the program asked for a dump and went on."""


def names(text: str, first: int = 1) -> dict[int, str]:
    """Give the words of a text their numbers: a table of names without gaps."""
    return dict(enumerate(text.split(), first))


class Reason(NamedTuple):
    """Why a process stopped: ``type`` (SIGSEGV), what qualifies it (SEGV_MAPERR), and the address it was about.

    ``access`` is read, write or execute where the system told. ``hidden``: an access to memory failed in a way in
    which the processor tells no address; what the report has in its place is no address, or only stands for one.
    """

    type: str
    detail: str = ""
    address: int | None = None
    access: str | None = None
    hidden: bool = False

    @property
    def value(self) -> str:
        """Detail and address as one short text."""
        where = "" if self.address is None else f"at {self.address:#x}"
        return f"{self.detail} {where}".strip()
