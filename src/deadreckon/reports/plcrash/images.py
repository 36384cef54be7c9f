"""The images of a PLCrashReporter report: modules, the process's architecture, and code addresses inside them.

Source: XNU ``mach/machine.h`` for CPU types.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from deadreckon.model.crash import Module
from deadreckon.model.ids import Arch, DebugId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.plcrash.schema import BinaryImage, CrashReport, Processor

__all__ = ["Images", "basename"]

_CPU_TYPES = {
    7: Arch.X86,
    12: Arch.ARM,
    0x0100_0007: Arch.X86_64,
    0x0100_000C: Arch.ARM64,
    0x0200_000C: Arch.ARM64,  # CPU_TYPE_ARM64_32, of watches.
}
_ARCHITECTURES = {0: Arch.X86, 1: Arch.X86_64, 2: Arch.ARM, 5: Arch.ARM}
"""SystemInfo's ``Architecture``."""
_REGISTERS = {"rip": Arch.X86_64, "eip": Arch.X86, "x0": Arch.ARM64, "r0": Arch.ARM}
_UNKNOWN_ENCODING = 0
_CPU_SUBTYPE_ARM64E = 2
_CPU_SUBTYPE_MASK = 0x00FF_FFFF
"""Above are capabilities: 0x80000002 is arm64e with a version of its pointer authentication."""
_POINTER_BITS = 0xF_FFFF_FFFF
"""What PLCrashReporter 1.8 and later keep of a signed pointer; earlier ones kept all of it."""


def basename(path: str) -> str:
    """Return a path's last part."""
    return path.rpartition("/")[2]


class Images:
    """The modules in the report's order, without those that have no place.

    ``overlapping`` and ``damaged`` list those: over an earlier one, or without address, or past the last one.
    """

    def __init__(self, report: CrashReport, limit: int) -> None:
        self.arch = _architecture(report)
        self.modules: list[Module] = []
        self.overlapping: list[str] = []
        self.damaged: list[str] = []
        self._starts: list[int] = []
        self._placed: list[Module] = []
        for image in report.binary_images[:limit]:
            self._add(image)
        self.address_mask = _POINTER_BITS if self._signs(report.binary_images) else None

    def _add(self, image: BinaryImage) -> None:
        path = (image.name or "").rstrip("\0")
        base, size = image.base_address, image.size
        if base is None or size is None or base + size > 1 << 64:
            self.damaged.append(path)
            return
        uuid = bytes(image.uuid or b"")
        module = Module(base, size, path, debug_file=basename(path) or None, arch=_cpu(image.code_type) or self.arch)
        if len(uuid) == 16 and any(uuid):
            module.debug_id, module.code_id = str(DebugId.from_macho_uuid(uuid)), uuid.hex()
        at = bisect_right(self._starts, base)
        before = self._placed[at - 1] if at else None
        after = self._placed[at] if at < len(self._placed) else None
        if before is not None and base < before.end:
            # An image that is listed twice is none the worse for it; of two that differ, the first one counts.
            if module == before:
                self.modules.append(module)
            else:
                self.overlapping.append(path)
        elif after is not None and module.end > after.image_addr:
            self.overlapping.append(path)
        else:
            self.modules.append(module)
            self._starts.insert(at, base)
            self._placed.insert(at, module)

    def _signs(self, images: Sequence[BinaryImage]) -> bool:
        """Tell whether return addresses are signed, and shorter than the mask."""
        if self.arch is not Arch.ARM64 or any(m.end > _POINTER_BITS for m in self._placed):
            return False
        subtypes = (i.code_type.subtype or 0 for i in images if i.code_type is not None)
        return any(s & _CPU_SUBTYPE_MASK == _CPU_SUBTYPE_ARM64E for s in subtypes)

    def code_address(self, pc: int) -> int:
        """Return an address without its pointer-authentication code, where it leads into an image only without it."""
        if self.arch is not Arch.ARM64 or pc <= _POINTER_BITS or self._inside(pc):
            return pc
        stripped = pc & _POINTER_BITS
        return stripped if self._inside(stripped) else pc

    def _inside(self, address: int) -> bool:
        at = bisect_right(self._starts, address)
        return at > 0 and address < self._placed[at - 1].end


def _architecture(report: CrashReport) -> Arch:
    """Return the process's architecture.

    On Intel Macs the machine's processor is CPU_TYPE_X86, whatever the process is, and under Rosetta another: images
    come first.
    """
    types = [i.code_type for i in report.binary_images]
    if report.machine_info is not None:
        types.append(report.machine_info.processor)
    for arch in map(_cpu, types):
        if arch is not None:
            return arch
    legacy = report.system_info.architecture if report.system_info is not None else None
    if legacy in _ARCHITECTURES:
        return _ARCHITECTURES[legacy]
    names = {r.name for t in report.threads for r in t.registers}
    return next((arch for name, arch in _REGISTERS.items() if name in names), Arch.UNKNOWN)


def _cpu(processor: Processor | None) -> Arch | None:
    if processor is None or (processor.encoding or 0) == _UNKNOWN_ENCODING or processor.type is None:
        return None
    return _CPU_TYPES.get(processor.type)
