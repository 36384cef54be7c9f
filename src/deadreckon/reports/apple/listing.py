"""Images and frames as Apple's formats list them, and what becomes of them: modules, and stacks that name them.

Sources: Apple, "Adding identifiable symbol names to a crash report"; XNU ``mach/shared_region.h``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.model.crash import Module, RawFrame
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.ids import Arch, DebugId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.crash import RawCrash

__all__ = ["MAX_FRAMES", "MAX_TOTAL_FRAMES", "Image", "Images", "Listed", "stack"]

MAX_FRAMES = 4096
"""Frames of one stack that are kept; a program whose stack ran over has some hundred thousand."""

MAX_TOTAL_FRAMES = 200_000
"""Frames of one report that are kept."""

_TOP = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(slots=True)
class Image:
    """A binary that was loaded; ``size`` is None where the report doesn't say it."""

    base: int
    size: int | None = None
    name: str = ""
    path: str = ""
    uuid: str = ""
    arch: Arch = Arch.UNKNOWN
    version: str | None = None
    vmaddr: int = 0

    @property
    def file(self) -> str:
        """The path, or the name where there is none."""
        return self.path or self.name


@dataclass(slots=True)
class Listed:
    """A frame as a report lists it: an address, in which image (by name, by base), and what the report knows of it."""

    address: int | None
    image: str = ""
    base: int | None = None
    function: str | None = None
    offset: int | None = None
    """Bytes from the function's start."""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    inline: bool = False


@dataclass(slots=True)
class Images:
    """The images of a report. Frames are matched to them by address: names are cut, and may be bundle identifiers."""

    listed: list[Image] = field(default_factory=list)

    def place(self, crash: RawCrash, stacks: Sequence[Sequence[Listed]], limit: int) -> None:
        """Give the crash its modules by address, at most ``limit``, and the frames the paths of their images.

        Of images that overlap the first one counts, as Apple's and PLCrashReporter's renderings have it. An image
        without an end reaches as far as the frames that the report itself counts to it, and never into the next
        image. One that only frames mention (the report's own list is cut) has no identifier.
        """
        placed, overlapping = self._disjoint(limit)
        by_name: dict[str, int] = {}
        for image in placed.values():
            for name in filter(None, (image.name, image.path, image.path.rsplit("/", 1)[-1])):
                by_name.setdefault(name, image.base)
        sized = sorted(base for base, image in placed.items() if image.size is not None)
        furthest: dict[int, int] = {}
        for frame in (f for frames in stacks for f in frames):
            base = frame.base if frame.base is not None else by_name.get(frame.image)
            if not base or frame.address is None or frame.address < base:
                continue
            if base not in placed:
                at = bisect_right(sized, base) - 1
                if len(placed) >= limit or (at >= 0 and base < sized[at] + (placed[sized[at]].size or 0)):
                    continue
                placed[base] = Image(base, None, frame.image)
            furthest[base] = max(furthest.get(base, 0), frame.address)
        bases = sorted(placed)
        for base, following in zip(bases, [*bases[1:], _TOP], strict=False):
            size = placed[base].size
            if size is None:
                size = furthest.get(base, base - 1) - base + 1
            crash.modules.append(_module(placed[base], min(size, following - base)))
        _name_images(stacks, crash.modules)
        if any(len(frames) >= MAX_FRAMES for frames in stacks):
            message = f"a stack has the {MAX_FRAMES} frames that are kept at most; outer ones may be missing"
            crash.diagnostics.append(Diagnostic(code="frame_limit", severity="warning", stage="read", message=message))
        if overlapping:
            crash.diagnostics.append(
                Diagnostic(
                    code="module_overlap",
                    severity="warning",
                    stage="read",
                    message=f"{len(overlapping)} images overlap an earlier one: {', '.join(overlapping[:8])}",
                )
            )

    def _disjoint(self, limit: int) -> tuple[dict[int, Image], list[str]]:
        """Return images by base, and the names of those that lie over an earlier one."""
        placed: dict[int, Image] = {}
        overlapping: list[str] = []
        bases: list[int] = []
        for image in self.listed[:limit]:
            if not image.base:
                continue  # "??? (*) <00000000-...>", from 0 to the end of memory.
            known = placed.get(image.base)
            if known is not None:
                if not known.uuid and image.uuid and known.size == image.size:
                    placed[image.base] = image
                continue
            at = bisect_right(bases, image.base)
            end = image.base + (image.size or 1)
            before = placed[bases[at - 1]] if at else None
            if (before is not None and image.base < before.base + (before.size or 1)) or (
                at < len(bases) and end > bases[at]
            ):
                overlapping.append(image.name or image.path.rsplit("/", 1)[-1])
                continue
            placed[image.base] = image
            bases.insert(at, image.base)
        return placed, overlapping


def _name_images(stacks: Sequence[Sequence[Listed]], modules: Sequence[Module]) -> None:
    """Give frames the path of the image that their address is in."""
    bases = [m.image_addr for m in modules]
    for frame in (f for frames in stacks for f in frames if f.address is not None):
        at = bisect_right(bases, frame.address or 0) - 1
        if at >= 0 and (frame.address or 0) < modules[at].end:
            frame.image = modules[at].code_file or frame.image


def _module(image: Image, size: int) -> Module:
    debug_id = code_id = None
    try:
        parsed = DebugId.parse(image.uuid)
        debug_id, code_id = str(parsed), parsed.uuid.hex
    except ValueError:
        pass  # No identifier, or the nil one that "no image" has.
    return Module(
        image.base,
        min(size, _TOP - image.base),
        image.file,
        code_id,
        image.file.rsplit("/", 1)[-1] or None,
        debug_id,
        image.arch,
        image.vmaddr,
        image.version,
    )


def stack(frames: Sequence[Listed], arch: Arch, *, exact: bool) -> list[RawFrame]:
    """Return listed frames as a stack; ``exact``: the first address is a program counter, not a return address.

    An inlined call has the address of the frame it is in, so that both are exact or neither is.
    """
    found = []
    for frame in frames[:MAX_FRAMES]:
        found.append(
            RawFrame(
                frame.address, is_return_address=not exact and frame.address is not None, reported=_frame(frame, arch)
            )
        )
        exact = exact and frame.inline
    return found


def _frame(frame: Listed, arch: Arch) -> Frame:
    path = frame.file
    address = frame.address
    start = None
    if address is not None and frame.offset is not None and 0 <= frame.offset <= address:
        start = hex(address - frame.offset)
    mangled = frame.function is not None and frame.function.lstrip("_").startswith(_MANGLED)
    system = _system_path(frame.image) or ("/" not in frame.image and _in_shared_region(arch, address))
    return Frame(
        status="symbolicated" if frame.function else "missing_symbol" if address is not None else "malformed",
        instruction_addr=None if address is None else hex(address),
        package=frame.image or None,
        symbol_addr=start,
        function=None if mangled else frame.function,
        raw_function=frame.function if mangled else None,
        filename=path.rsplit("/", 1)[-1] if path else None,
        abs_path=path if path and "/" in path else None,
        lineno=frame.line,
        colno=frame.column,
        inline=frame.inline,
        in_app=False if system else None,
    )


_MANGLED = ("Z", "RN", "T0", "Tt", "$s", "$S", "$e", "-[_Tt", "+[_Tt")
"""How mangled names go on after their underscores: C++, Rust, and Swift of each age. The symbolicator reads them."""
_SYSTEM_PARTS = (
    "/RuntimeRoot/",
    "/Developer/CoreSimulator/Volumes/",
    ".sdk/usr/lib/",
    ".sdk/System/",
    "/Cryptexes/OS/",
)
_SHARED_REGION = {
    Arch.ARM64: (0x1_8000_0000, 0x3_0000_0000),
    Arch.X86_64: (0x7FF8_0000_0000, 0x8000_0000_0000),
    Arch.X86: (0x9000_0000, 0xB000_0000),
    Arch.ARM: (0x1A00_0000, 0x4000_0000),
}


def _system_path(path: str) -> bool:
    """Tell the system of a simulator or of a sealed volume, which lies below other paths than a device's."""
    return any(part in path for part in _SYSTEM_PARTS)


def _in_shared_region(arch: Arch, address: int | None) -> bool:
    """Tell whether an address is in the shared cache of the system's libraries (SHARED_REGION_BASE and _SIZE).

    For reports that have names of binaries without paths.
    """
    first, end = _SHARED_REGION.get(arch, (0, 0))
    return address is not None and first <= address < end
