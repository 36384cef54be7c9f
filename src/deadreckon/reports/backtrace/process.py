"""``modules`` and ``memory`` of a Backtrace report: what the process had loaded, and what of its memory came along."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.model.crash import MemoryMap, Module, Regions
from deadreckon.model.ids import DebugId
from deadreckon.reports.backtrace.fields import entries, flag, integer, text

if TYPE_CHECKING:
    from deadreckon.reports.backtrace.fields import Reading

__all__ = ["memory", "modules"]

_WHOLE = (1 << 64) - 1
_ACCESS = (("read", 1), ("write", 2), ("exec", 4))


def modules(reading: Reading, listed: Any) -> list[Module]:
    """Return the modules by address, without those over an earlier one."""
    found = []
    for number, value in entries(reading, listed, "modules", reading.limits.max_modules):
        start, size = integer(value.get("start")), integer(value.get("size"))
        size = min(size or 0, _WHOLE - (start or 0))
        if start is None or not size:
            reading.problem("malformed", f"modules.{number}", "expected a start and a size")
            continue
        module = Module(
            start,
            size,
            reading.text(value.get("code_file")) or "",
            debug_file=reading.text(value.get("debug_file")),
            version=reading.text(value.get("version")),
        )
        if identifier := text(value.get("debug_identifier")):
            readings = DebugId.readings(identifier[:128])
            module.debug_id = str(readings[0]) if readings else None
            if not readings:
                reading.problem(
                    "malformed", f"modules.{number}.debug_identifier", f"{identifier[:64]!r} is no debug id"
                )
        found.append(module)
    placed: list[Module] = []
    for module in sorted(found, key=attrgetter("image_addr")):
        if placed and module.image_addr < placed[-1].end:
            reading.problem("module_overlap", "modules", f"{module.code_file[:100]} overlaps an earlier one")
        else:
            placed.append(module)
    return placed


def memory(reading: Reading, listed: Any, images: list[Module]) -> tuple[MemoryMap, Regions | None]:
    """Return the memory that came along, and the process's mappings where all of them are told."""
    ranges: list[tuple[int, int, int]] = []
    regions: list[tuple[int, int, int]] = []
    held = bytearray()
    for number, value in entries(reading, listed, "memory", reading.limits.max_regions):
        at = f"memory.{number}"
        start, size, encoded = integer(value.get("start")), integer(value.get("size")), value.get("data")
        content = b""
        if isinstance(encoded, str):
            try:
                content = base64.b64decode("".join(encoded.split()), validate=True)
            except (binascii.Error, ValueError):
                reading.problem("malformed", f"{at}.data", "expected base64")
        size = size or len(content)
        if start is None or not size:
            reading.problem("malformed", at, "expected a start, and a size or data")
            continue
        if content:
            ranges.append((start, min(len(content), size), len(held)))
            held += content
        permissions = value.get("perms")
        if isinstance(permissions, dict):
            access = sum(bit for name, bit in _ACCESS if flag(permissions.get(name)))
            regions.append((start, min(start + size, _WHOLE), access))
    found = MemoryMap.from_ranges(ranges, np.frombuffer(bytes(held), np.uint8))
    return found, _regions(regions, images)


def _regions(told: list[tuple[int, int, int]], images: list[Module]) -> Regions | None:
    """Return mappings without overlaps; None where they can't be all, for a module has none that holds code.

    What is in no mapping would be taken for no code, and a report may bring along any slices of memory.
    """
    kept: list[tuple[int, int, int]] = []
    for start, end, access in sorted(told):
        begins = max(start, kept[-1][1]) if kept else start
        if begins < end:
            kept.append((begins, end, access))
    code = [(start, end) for start, end, access in kept if access & 4]
    starts = [start for start, _ in code]
    for image in images:
        at = bisect_left(starts, image.end) - 1
        if at < 0 or code[at][1] <= image.image_addr:
            return None
    return Regions.from_ranges(kept) if images and code else None
