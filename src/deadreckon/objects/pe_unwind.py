"""PE images: unwind information (``.pdata``) to a RuleTable.

Source: Microsoft "PE Format" (``.pdata``), "x64 exception handling", "ARM64 exception handling". What records say is
read by pe_amd64 and pe_arm64. The layers, each over the one before it: executable sections (code without an entry is
a leaf function's), functions (a row a prologue step), epilogues. For x86 there is no such table; GNU's tools describe
that code in DWARF.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.model.tables import NO_RULE, RuleTable
from deadreckon.objects import pe, pe_amd64, pe_arm64
from deadreckon.objects.rulebuilder import TableBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["PeRules", "read"]

_MAX_FUNCTIONS = 1 << 22
_FRAMES = (".eh_frame", ".eh_fram", ".debug_frame")
"""The second is the first cut to the length of its field: strip takes the table of longer names away."""

_BY_ARCH: dict[Arch, tuple[int, Callable[[pe.Headers, NDArray[np.int64], TableBuilder], None]]] = {
    Arch.X86_64: (3, pe_amd64.lower),
    Arch.ARM64: (2, pe_arm64.lower),
}
"""How many words an entry of ``.pdata`` has, and who reads them."""


@dataclass(slots=True)
class PeRules:
    """The rules of an image, and one message for each kind of thing that was lost."""

    rules: RuleTable = field(default_factory=RuleTable.empty)
    problems: list[str] = field(default_factory=list)


def read(data: bytes | memoryview) -> PeRules:
    """Lower an image's unwind information: x86-64's and ARM64's, and x86's where it is in DWARF.

    A function whose record is damaged has no rule, which costs it and no other one. Raises Malformed where the
    headers can't be read.
    """
    image = pe.headers(data)
    if image.arch is Arch.X86:
        return PeRules(_frames(image))
    address, size = image.directory(pe.DIRECTORY_EXCEPTION)
    if image.arch not in _BY_ARCH or not size:
        return PeRules()
    width, lower = _BY_ARCH[image.arch]
    work = TableBuilder()
    table = image.at(address, size)
    rows = np.frombuffer(table, "<u4", len(table) // (4 * width) * width).reshape(-1, width)
    lower(image, rows[:_MAX_FUNCTIONS].astype(np.int64), work)
    if len(table) < size:
        work.lost(Malformed(".pdata", offset=address, expected=f"{size} bytes in the file", got=len(table)))
    if len(rows) > _MAX_FUNCTIONS:
        work.lost(Malformed(".pdata", offset=address, expected=f"at most {_MAX_FUNCTIONS} entries", got=len(rows)))
    if len(table) < size or len(rows) > _MAX_FUNCTIONS or (image.arch is Arch.X86_64 and _hybrid(image)):
        # What has no entry here need not be a leaf function.
        work.default = NO_RULE
    return PeRules(work.finish(image.text()), work.problems())


def _hybrid(image: pe.Headers) -> bool:
    """Say whether an x86-64 image has ARM64 code too (ARM64EC), whose entries are elsewhere."""
    config = image.at(image.directory(pe.DIRECTORY_LOAD_CONFIG)[0], 0xD0)
    size, metadata = config[:4], config[0xC8:]  # Size, CHPEMetadataPointer
    return int.from_bytes(size, "little") >= 0xD0 and any(metadata)


def _frames(image: pe.Headers) -> RuleTable:
    """Lower ``.eh_frame``, or ``.debug_frame`` where that says more."""
    from deadreckon.kernels.cfi import rules_from_frames  # noqa: PLC0415  (numba, where there is something to lower)

    found = RuleTable.empty()
    named = {section.name: section for section in image.sections}
    for name in _FRAMES:
        if name in named:
            section = named[name]
            rules = rules_from_frames(
                np.frombuffer(image.at(section.address, min(section.size, section.raw)), np.uint8),
                is_eh=name.startswith(".eh"),
                section_addr=image.image_base + section.address,
                image_base=image.image_base,
                pointer_size=4,
            )
            found = max(found, rules, key=lambda table: len(table.rva))
    return found
