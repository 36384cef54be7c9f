"""Names that Apple's bitcode hid from a dSYM, and the files that reveal them.

A ``.bcsymbolmap`` is a text with one name a line: ``__hidden#N_`` stands for line N after the first. A property list
named after a dSYM's UUID (``DBGOriginalUUID``) says under which other UUID its map was made. Neither is specified
publicly; both as Xcode 9 to 13 wrote them.
"""

from __future__ import annotations

import re
from uuid import UUID

from deadreckon.errors import Malformed

__all__ = ["BCSYMBOLMAP", "HIDDEN", "hidden_index", "hidden_names", "original_uuid"]

BCSYMBOLMAP = b"BCSymbolMap Version:"
"""What a ``.bcsymbolmap`` starts with."""
HIDDEN = b"__hidden#"
"""What a hidden name starts with."""

_HIDDEN = re.compile(r"__hidden#(\d{1,9})_?", re.ASCII)
_ORIGINAL = re.compile(rb"<key>\s*DBGOriginalUUID\s*</key>\s*<string>\s*([0-9A-Fa-f-]{32,36})\s*</string>", re.DOTALL)


def hidden_names(data: bytes) -> list[str]:
    """Return the names of a BCSymbolMap, by number. Raises Malformed where it isn't one."""
    if not data.startswith(BCSYMBOLMAP):
        raise Malformed("BCSymbolMap", offset=0, expected="BCSymbolMap Version:", got=data[:24])
    lines = data.decode("utf-8", "replace").split("\n")
    return [line.removesuffix("\r") for line in lines[1:]]


def hidden_index(name: str) -> int | None:
    """Return the number in a hidden name, None for any other name."""
    match = _HIDDEN.fullmatch(name)
    return int(match[1]) if match else None


def original_uuid(data: bytes) -> UUID | None:
    """Return the UUID that a UUID map (property list in XML) names as the original one."""
    match = _ORIGINAL.search(data[: 1 << 20])
    try:
        return UUID(match[1].decode()) if match else None
    except ValueError:
        return None
