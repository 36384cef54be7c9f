"""The lines of a tombstone's text and of ART's thread dumps.

Source: AOSP ``debuggerd/libdebuggerd/tombstone_proto_to_text.cpp`` and ``libunwindstack``'s ``FormatFrame``; older
forms as ndk-stack takes them.
"""

from __future__ import annotations

import re

from deadreckon.reports.android.dump import BacktraceFrame, MemoryMapping

__all__ = ["is_separator", "parse_frame", "parse_mapping", "parse_memory", "parse_registers", "parse_sanitizer_frame"]

_FRAME = re.compile(
    r"\s*(?:(?:native|kernel): )?#(\d{1,6})\s+pc\s+(?:0x)?([0-9a-f]{1,16})(?:\s+(\S.*?))?\s*", re.IGNORECASE
)
_SANITIZER_FRAME = re.compile(r"\s*#(\d{1,6})\s+0x([0-9a-f]{1,16})\s+\((.{1,4000})\+0x([0-9a-f]{1,16})\)(.*)")
_BUILD_ID = re.compile(r"\s*\(BuildId: ([0-9a-f]{1,128})\)$", re.IGNORECASE)
_OFFSET = re.compile(r"\s*\(offset (?:0x)?([0-9a-f]{1,16})\)", re.IGNORECASE)
_SYMBOL_OFFSET = re.compile(r"(.+)\+(\d{1,19})", re.DOTALL)
_LOAD_BIAS = re.compile(r"\s*\(load bias 0x[0-9a-f]{1,16}\)$")
_MAPPING = re.compile(
    r"\s*(?:--->|=>)?\s*([0-9a-f']{8,17})-([0-9a-f']{8,17})\s+([r-])([w-])([x-])[sp-]?"
    r"\s+([0-9a-f]{1,16})\s+([0-9a-f]{1,16})(?:\s+(.*))?"
)
_REGISTERS = re.compile(
    r"\s{1,8}[a-z][a-z0-9_]{1,9}\s+[0-9a-f]{8,17}(?:\s+[a-z][a-z0-9_]{1,9}\s+[0-9a-f]{8,17}){0,7}\s*"
)
_REGISTER = re.compile(r"([a-z][a-z0-9_]{1,9})\s+([0-9a-f]{8,17})")
_MEMORY = re.compile(r"\s+([0-9a-f]{8}|[0-9a-f]{16})((?: [0-9a-f]{8}){1,4}|(?: [0-9a-f]{16}){1,2})\b.*")
_NO_FILE = {"<unknown>", "<anonymous>", "(unknown)", "???"}
_MAX_ADDRESS = (1 << 64) - 1


def is_separator(line: str, mark: str) -> bool:
    """Tell whether a line is made of ``***`` or ``---`` groups."""
    text = line.strip()
    return len(text) >= 31 and text == " ".join([mark * 3] * ((len(text) + 1) // 4))


def parse_frame(line: str) -> tuple[int, BacktraceFrame] | None:
    """Return a frame and its number: ``#00 pc 0004c35c  FILE (offset 0x1000) (function+28) (BuildId: hex)``."""
    match = _FRAME.fullmatch(line)
    if match is None:
        return None
    number, rel_pc, rest = int(match[1]), int(match[2], 16), match[3] or ""
    frame = BacktraceFrame(rel_pc)
    if found := _BUILD_ID.search(rest):
        frame.build_id, rest = found[1].lower(), rest[: found.start()]
    if found := _OFFSET.search(rest):
        frame.file_map_offset = int(found[1], 16)
        file, symbol = rest[: found.start()], rest[found.end() :].strip()
        symbol = symbol[1:-1] if symbol.startswith("(") and symbol.endswith(")") else ""
    else:
        file, symbol = _split(rest)
    file = file.strip()
    frame.file_name = None if not file or file in _NO_FILE else _library(file)
    if with_offset := _SYMBOL_OFFSET.fullmatch(symbol):
        frame.function_name, frame.function_offset = with_offset[1], int(with_offset[2])
    else:
        frame.function_name = symbol or None
    return number, frame


def _split(text: str) -> tuple[str, str]:
    """Divide ``file (symbol)``; the brackets of a symbol are balanced unless the log cut the line."""
    if not text.endswith(")"):
        return text.partition(" (")[0], ""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if not depth:
            symbol = text[at + 1 : -1]
            if symbol == "deleted" or not text[:at].endswith(" "):
                return text, ""
            return text[:at], symbol
    return text.partition(" (")[0], ""


def _library(name: str) -> str:
    """Return a file's name; ``libc.so!libc.so`` is no library in an archive."""
    outer, _, inner = name.partition("!")
    return outer if inner and outer.rpartition("/")[2] == inner else name


def parse_sanitizer_frame(line: str) -> tuple[int, BacktraceFrame] | None:
    """Return a frame of a sanitizer's report: ``#0 0x7b23b87868  (/path/lib.so+0x7b138)``."""
    match = _SANITIZER_FRAME.fullmatch(line)
    if match is None:
        return None
    found = _BUILD_ID.search(match[5])
    build_id = found[1].lower() if found else None
    frame = BacktraceFrame(int(match[4], 16), int(match[2], 16), file_name=match[3], build_id=build_id)
    return int(match[1]), frame


def parse_mapping(line: str) -> MemoryMapping | None:
    """Return a row of a memory map: ``00000078'1b2c3000-00000078'1b2c3fff r-x  1000  2000  NAME (BuildId: hex)``."""
    match = _MAPPING.fullmatch(line)
    if match is None:
        return None
    begin, last = (int(text.replace("'", ""), 16) for text in match.group(1, 2))
    access = sum(1 << bit for bit, letter in enumerate(match.group(3, 4, 5)) if letter != "-")
    name = _LOAD_BIAS.sub("", (match[8] or "").strip())
    build_id = None
    if found := _BUILD_ID.search(name):
        build_id, name = found[1].lower(), name[: found.start()]
    return MemoryMapping(begin, last + 1, int(match[6], 16), access, name, build_id) if begin <= last else None


def parse_memory(line: str) -> tuple[int, bytes] | None:
    """Return a row of a memory dump: address and words, as little-endian processors store them."""
    match = _MEMORY.fullmatch(line)
    if match is None:
        return None
    words = match[2].split()
    return int(match[1], 16), b"".join(bytes.fromhex(word)[::-1] for word in words)


def parse_registers(line: str) -> dict[str, int]:
    """Return the registers in a line, none where it holds anything else."""
    if not _REGISTERS.fullmatch(line):
        return {}
    found = {name: int(value, 16) for name, value in _REGISTER.findall(line)}
    return {name: value for name, value in found.items() if value <= _MAX_ADDRESS}
