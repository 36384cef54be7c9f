"""One line of a text report each: a frame, a frame of a sampled stack, a list of bare addresses, an image.

Source: the ``printf`` formats that reports have in common, ``"%-4d%-35s 0x%016lx %s"`` for a frame and
``"%18p - %18p %s%s %s <%s> %s"`` for an image; the many variants are listed with the functions. A line is taken apart
from its fixed points (the address, the UUID, the offset at its end) and not from its beginning, since names hold
spaces, parentheses and signs of their own.
"""

from __future__ import annotations

import re

from deadreckon.model.ids import Arch
from deadreckon.reports.apple.listing import Image, Listed

__all__ = ["frame_line", "heaviest_line", "hex_list", "image_line"]

_NUMBER = re.compile(r"\d{1,6}\s", re.ASCII)
_ADDRESS = re.compile(r"(?<!\S)0[xX]([0-9a-fA-F]{1,16})(?![0-9a-zA-Z])")
_BASE = re.compile(r"0x([0-9a-fA-F]{1,16}) \+ (\d{1,19})(?: \((.*)\))?$", re.ASCII)
_PLACE = re.compile(r"\(([^()]{1,1024}?):(\d{1,9})(?::(\d{1,9}))?\)$", re.ASCII)
_OFFSET = re.compile(r"\+ (?:(\d{1,19})|0x([0-9a-fA-F]{1,16}))$", re.ASCII)
_NAMELESS = frozenset({"", "???", "<redacted>", "(null)", "0x0"})


def frame_line(line: str) -> Listed | None:
    """Read ``index image address rest``, None for a line that is no frame.

    The rest may be::

    0x10864e000 + 5384491                       the image's base, and where in it
    0x54000 + 30496 (-[Crasher crash] + 24)     KSCrash: base, then symbol
    main + 164                                  symbolicated on the device
    main + 164 (main.m:16)                      symbolicated by Xcode; (main.m:16:3) with a column
    main (main.m:16)                            without the offset
    main (in App) + 164                         atos; also (in App) (main.m:16)
    step() [inlined] (in App) (step.swift:9)    an inlined call
    <redacted> + 148                            what the system does not name
    """
    match = _NUMBER.match(line)
    if match is None:
        return None
    at = _ADDRESS.search(line, match.end())
    if at is None:
        return None
    frame = Listed(int(at[1], 16), line[match.end() : at.start()].strip())
    if frame.image == "???":
        frame.image = ""
    _symbol(frame, line[at.end() :].strip())
    return frame


def _symbol(frame: Listed, rest: str) -> None:
    if (match := _BASE.match(rest)) is not None:
        base = int(match[1], 16)
        # "0x0 + 0" says that there is no image; a base that does not lead to the address is none.
        if base and base + int(match[2]) == frame.address:
            frame.base = base
        rest = match[3] or ""
        if _PLACE.match(f"({rest})"):
            rest = f"({rest})"
    if "[inlined]" in rest:
        frame.inline = True
        rest = rest.replace("[inlined]", "").rstrip()
    if (match := _PLACE.search(rest)) is not None:
        rest = rest[: match.start()].rstrip()
        # What a compiler generated has the line 0 of no file.
        if match[2] != "0" and not match[1].endswith("<compiler-generated>"):
            frame.file, frame.line = match[1], int(match[2])
            frame.column = int(match[3]) if match[3] else None
    rest = _without_image(rest)
    if (match := _OFFSET.search(rest)) is not None:
        rest = _without_image(rest[: match.start()].rstrip())
        frame.offset = int(match[1]) if match[1] else int(match[2], 16)
    if rest in _NAMELESS:
        frame.offset = None
    else:
        frame.function = rest


def _without_image(symbol: str) -> str:
    """Take off atos' ``(in Image)``."""
    head, marker, _ = symbol.rpartition(" (in ")
    return head.rstrip() if marker and symbol.endswith(")") else symbol


_HEAVIEST = re.compile(r"(\d{1,9})\s+(.*)$", re.ASCII)
_HEAVIEST_PLACE = re.compile(r"\(([^()]{1,255}) \+ (\d{1,19})\)(?: \[0x([0-9a-fA-F]{1,16})\])?", re.ASCII)


def heaviest_line(line: str) -> Listed | None:
    """Read ``count symbol + offset (image + offset) [address]``, a frame of a sampled stack."""
    match = _HEAVIEST.match(line)
    place = None if match is None else _HEAVIEST_PLACE.search(match[2])
    if match is None or place is None:
        return None
    frame = Listed(int(place[3], 16) if place[3] else None, place[1])
    if frame.address is not None and frame.address >= int(place[2]):
        frame.base = frame.address - int(place[2])
    symbol = match[2][: place.start()].strip()
    if (offset := _OFFSET.search(symbol)) is not None:
        symbol = symbol[: offset.start()].rstrip()
        frame.offset = int(offset[1]) if offset[1] else int(offset[2], 16)
    frame.function = None if symbol in _NAMELESS else symbol
    return frame


def hex_list(text: str) -> list[Listed]:
    """Read a backtrace of bare addresses, ``(0x182f91d8c 0x1821b45ec ...)``; [] for a text of any other kind."""
    words = text.strip().strip("()").split()
    found = []
    for word in words:
        if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", word):
            return []
        found.append(Listed(int(word, 16)))
    return found


_RANGE = re.compile(r"0x([0-9a-fA-F]{1,16})(?:\s*-\s*(?:0x([0-9a-fA-F]{1,16})|\?+)|(?=\s))\s*")
_UUID = re.compile(r"<([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})>")
_PARENTHESES = 2
"""How many an image has after its name: architecture and version."""
_NO_END = 0xFFFF_FFFF_FFFF_FFFF


def image_line(line: str) -> Image | None:
    """Read a line of ``Binary Images``, None for any other.

    Seen are::

        0x18232f000 - 0x182635fff Foundation arm64e  <9618b2f2...> /System/Library/...
        0x1017ff000 - 0x101885fff +com.vendor.App (x86_64)  <7B639009-221F-...> /Users/...
        0x10864e000 - 0x10ee0ffff +My App x86_64 (400.9.4 - 1.0.0) <2d903291...> /Users/My App/...
        0x10b5c0000 - 0x10b5c3fff com.apple.dt.My App (*) <...> /...      a name with spaces; version unknown
        0x104000000 - 0xffffffffffffffff +App (???) <...> /...            no end is known; also written ???
        0x8fe00000  - 0x8fe2db43  dyld 97.1 (???) /usr/lib/dyld           without a UUID

    The end is inclusive; ``+`` marks what is not the system's.
    """
    match = _RANGE.match(line)
    if match is None:
        return None
    image = Image(int(match[1], 16))
    if match[2] is not None:
        end = int(match[2], 16)
        if image.base <= end < _NO_END:
            image.size = end - image.base + 1
    rest = line[match.end() :]
    if (uuid := _UUID.search(rest)) is not None:
        image.uuid = uuid[1]
        before, path = rest[: uuid.start()], rest[uuid.end() :]
    else:
        before, slash, path = rest.partition(" /")
        path = slash + path
    image.path = path.strip() if path.strip() not in _NAMELESS else ""
    name = before.strip().removeprefix("+").strip()
    for _ in range(_PARENTHESES):
        if not name.endswith(")") or (opening := name.rfind("(")) < 0:
            break
        inside = name[opening + 1 : -1]
        if (arch := Arch.parse(inside)) is not Arch.UNKNOWN:
            image.arch = arch
        elif inside not in {"*", "???", ""}:
            image.version = inside[:256]
        name = name[:opening].rstrip()
    head, _, word = name.rpartition(" ")
    if head and (arch := Arch.parse(word)) is not Arch.UNKNOWN:
        image.arch, name = arch, head.rstrip()
    image.name = name if name not in _NAMELESS else ""
    if not image.name and not image.path and not image.uuid:
        return None
    return image
