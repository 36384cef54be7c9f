"""Images of a process whose log gives frames as module and offset: bases are address minus offset."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.model.crash import Module
from deadreckon.model.ids import DebugId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deadreckon.reports.textlog.frames import TextFrame

__all__ = ["Images", "declarations", "mapped"]

_FUCHSIA = re.compile(
    r'\[\[\[ELF module #\w+ "(?P<name>[^"]*)" BuildID=(?P<id>[0-9a-f]{2,128}) 0x(?P<base>[0-9a-f]{1,16})\]\]\]'
)
_DSO = re.compile(r"dso: id=(?P<id>[0-9a-f]{2,128}) base=0x(?P<base>[0-9a-f]{1,16}) name=(?P<name>\S+)")
_MARKUP_MODULE = re.compile(r"\{\{\{module:(\w{1,8}):([^:}]*):elf:([0-9a-f]{2,128})\}\}\}")
_MARKUP_MAP = re.compile(
    r"\{\{\{mmap:0x([0-9a-f]{1,16}):0x([0-9a-f]{1,16}):load:(\w{1,8}):\w{1,8}:0x([0-9a-f]{1,16})\}\}\}"
)
_SPACE = 1 << 32
_TOP = 1 << 64


def mapped(spans: Mapping[str, tuple[int, int]], most: int) -> list[Module]:
    """Return files that were mapped, by path, as modules: ``most`` of them, of those that overlap the first."""
    found: list[Module] = []
    for path, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if end > start and (not found or start >= found[-1].end) and len(found) < most:
            found.append(Module(start, end - start, code_file=path))
    return found


def declarations(lines: Sequence[str]) -> list[str]:
    """Return the lines of a log that list images."""
    return [line for line in lines if "ELF module #" in line or "dso: id=" in line or "{{{m" in line]


@dataclass(slots=True)
class _Image:
    name: str
    base: int
    end: int
    build_id: str | None = None
    macho: bool = False


@dataclass(slots=True)
class Images:
    """What is known of the images, from frames first and from lists of modules."""

    images: dict[tuple[str, int], _Image] = field(default_factory=dict)
    relative: dict[str, int] = field(default_factory=dict)
    """Made-up bases of modules in a log that has offsets only (TSan's)."""
    build_ids: dict[str, str] = field(default_factory=dict)
    _dropped: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def of(cls, declared: Sequence[str], frames: Iterable[TextFrame], max_modules: int) -> Images:
        """Collect the images of a log's frames, ``max_modules`` at most; ``declared`` are the lines that list them."""
        found = cls()
        frames = list(frames)
        absolute = any(f.address is not None for f in frames)
        for frame in frames:
            if frame.module is None or frame.offset is None:
                continue
            if frame.build_id:
                found.build_ids.setdefault(frame.module, frame.build_id)
            if frame.address is None and not absolute and len(found.relative) < min(max_modules, 1024):
                found.relative.setdefault(frame.module, len(found.relative) * _SPACE)
            # An executable at a fixed address: its offsets are addresses as linked, and where the image begins isn't
            # said. Offsets counted from 0 would name wrong functions.
            elif frame.address is not None and frame.address > frame.offset and len(found.images) < max_modules:
                found._add(frame.module, frame.address - frame.offset, frame.address, macho=frame.macho)
        if declared:
            found._declared(declared, frames, max_modules)
        if not absolute:
            for frame in frames:
                if frame.module in found.relative and frame.offset is not None and frame.offset < _SPACE:
                    base = found.relative[frame.module]
                    found._add(frame.module, base, base + frame.offset)
        found._without_overlaps()
        return found

    def _add(self, name: str, base: int, address: int, build_id: str | None = None, *, macho: bool = False) -> None:
        image = self.images.setdefault((name, base), _Image(name, base, base, macho=macho))
        image.end = min(max(image.end, address + 1), _TOP - 1)
        image.build_id = image.build_id or build_id

    def _declared(self, lines: Sequence[str], frames: Iterable[TextFrame], max_modules: int) -> None:
        """Take lists of modules: Fuchsia's symbolizer and LLVM's symbolizer markup."""
        bases: list[tuple[int, str, str]] = []
        markup: dict[str, tuple[str, str]] = {}
        for line in lines:
            if match := _FUCHSIA.search(line) or _DSO.search(line):
                bases.append((int(match["base"], 16), match["name"] or "<application>", match["id"]))
            elif match := _MARKUP_MODULE.search(line):
                markup[match[1]] = (match[2], match[3])
            elif (match := _MARKUP_MAP.search(line)) and match[3] in markup:
                base = int(match[1], 16) - int(match[4], 16)
                if base > 0:
                    bases.append((base, *markup[match[3]]))
            if len(bases) >= max_modules:
                break
        bases.sort()
        addresses = [f.address for f in frames if f.address is not None]
        named = {base: name for name, base in self.images}
        for at, (base, name, build_id) in enumerate(bases):
            end = bases[at + 1][0] if at + 1 < len(bases) else _TOP
            inside = [a for a in addresses if base <= a < end]
            self._add(named.get(base, name), base, max(inside, default=base), build_id)

    def _without_overlaps(self) -> None:
        kept: dict[tuple[str, int], _Image] = {}
        end = -1
        for key, image in sorted(self.images.items(), key=lambda item: item[1].base):
            if image.base < end:
                self._dropped.add(key)
                continue
            kept[key] = image
            end = image.end
        self.images = kept

    @property
    def dropped(self) -> int:
        """How many images claim addresses of another one, and were left out."""
        return len(self._dropped)

    def place(self, frame: TextFrame) -> int | None:
        """Return a frame's address as the modules have it; None where it is unknown or belongs to a dropped image."""
        if frame.address is None:
            if frame.module in self.relative and frame.offset is not None and frame.offset < _SPACE:
                return self.relative[frame.module] + frame.offset
            return None
        if frame.module is None or frame.offset is None:
            return frame.address
        return frame.address if (frame.module, frame.address - frame.offset) in self.images else None

    def modules(self) -> list[Module]:
        """Return the images as modules. Their sizes are what the log proves: up to the last address seen in each."""
        found = []
        for image in self.images.values():
            build_id = image.build_id or self.build_ids.get(image.name)
            if image.macho and build_id is not None:
                build_id = build_id[:32]  # Versions of the platform follow.
            found.append(
                Module(
                    image.base,
                    image.end - image.base,
                    code_file=image.name,
                    code_id=build_id,
                    debug_id=_debug_id(build_id, macho=image.macho),
                    relative=self.relative.get(image.name) == image.base,
                )
            )
        return found


def _debug_id(build_id: str | None, *, macho: bool) -> str | None:
    if build_id is None or len(build_id) % 2:
        return None
    try:
        make = DebugId.from_macho_uuid if macho else DebugId.from_build_id
        return str(make(bytes.fromhex(build_id)))
    except ValueError:
        return None
