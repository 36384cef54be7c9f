"""``debug_meta`` of a Sentry event: the images that were loaded, and the maps that undo what a build did to names.

Specification: Sentry's "Debug Meta Interface". Types: ``elf``, ``macho``, ``pe``, ``pe_dotnet``, ``wasm``, with
``symbolic`` and ``apple`` as older spellings, are images of code; ``sourcemap``, ``proguard`` and ``jvm`` are none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from deadreckon.model.crash import Module
from deadreckon.model.ids import Arch, DebugId, normalize_code_id
from deadreckon.reports.payload import address, base_name, kept, mapping, sequence, text

if TYPE_CHECKING:
    from deadreckon.reports.backtrace.fields import Reading

__all__ = ["Images"]

_RELATIVE = 1 << 62
"""Where images begin whose address is not told: no processor has code there."""
_SPAN = 1 << 40
_UNSAID = 1 << 28
"""How large an image may be that says nothing of its size: as large as the largest of browsers'."""
_WHOLE = (1 << 64) - 1
_CODE = frozenset({"elf", "macho", "pe", "pe_dotnet", "wasm", "symbolic", "apple", "native", ""})
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,64}")


class Images:
    """The images of an event. ``modules`` are those of code; ``mappings`` the ids of ProGuard's and R8's."""

    def __init__(self, reading: Reading, debug_meta: Any, arch: Arch) -> None:
        self.modules: list[Module] = []
        self.mappings: list[str] = []
        self.others: list[Any] = []
        """Images as they came that are neither."""
        self._numbered: list[Module | None] = []
        self.source_maps: dict[str, str] = {}
        """Debug ids of source maps by the generated file."""
        self._arch = arch
        self._starts: list[int] = []
        listed = sequence(mapping(debug_meta).get("images"))
        if not listed:
            return
        limit = reading.limits.max_modules
        if len(listed) > limit:
            reading.problem("limit_exceeded", "debug_meta.images", f"{len(listed)} of them, the limit is {limit}")
        self._numbered = [self._image(reading, image, number) for number, image in enumerate(listed[:limit])]
        self._without_doubles(reading)
        self._starts = [m.image_addr for m in self.modules]

    def holding(self, addr: int) -> Module | None:
        """Return the image that an address is in."""
        at = bisect_right(self._starts, addr) - 1
        return self.modules[at] if at >= 0 and addr < self.modules[at].end else None

    def absolute(self, offset: int, mode: str) -> int | None:
        """Return the address of an offset into an image; ``mode`` is ``rel:`` and the image's number or debug id."""
        wanted = mode.partition(":")[2]
        module: Module | None = None
        if wanted.isascii() and wanted.isdecimal() and len(wanted) < 10:
            module = self._numbered[int(wanted)] if int(wanted) < len(self._numbered) else None
        elif (debug_id := _debug_id(wanted)) is not None:
            module = next((m for m in self.modules if m.debug_id == debug_id), None)
        if module is None or module.image_addr + offset > _WHOLE or offset >= _SPAN:
            return None
        return module.image_addr + offset

    def _image(self, reading: Reading, told: Any, number: int) -> Module | None:
        image = mapping(told)
        kind = (text(image.get("type")) or "").lower()
        if kind in {"proguard", "jvm", "sourcemap"}:
            found = text(image.get("debug_id") or image.get("uuid"), 64)
            debug_id = (_debug_id(found) or found) if found else None
            if kind == "proguard" and debug_id:
                self.mappings.append(debug_id)
            elif kind == "sourcemap" and debug_id and (file := text(image.get("code_file"))):
                self.source_maps[file] = debug_id
            elif image:
                self.others.append(kept(image))
            return None
        start = address(image.get("image_addr"))
        size = address(image.get("image_size")) or 0
        code_file = text(image.get("code_file") or image.get("name")) or ""
        code_id = text(image.get("code_id"), 256)
        debug_id = _debug_id(text(image.get("debug_id") or image.get("id") or image.get("uuid"), 64))
        if debug_id is None and code_id and kind in {"elf", "wasm"} and _HEX.fullmatch(code_id):
            debug_id = str(DebugId.from_build_id(bytes.fromhex(code_id))) if code_id.strip("0") else None
        if kind not in _CODE or (start is None and debug_id is None and code_id is None):
            reading.problem("malformed", f"debug_meta.images.{number}", "expected an image with an address or an id")
            return None
        arch = Arch.parse(text(image.get("arch"), 64) or "")
        module = Module(
            _RELATIVE + number * _SPAN if start is None else start,
            size,
            code_file=code_file,
            code_id=normalize_code_id(code_id) if code_id else None,
            debug_file=base_name(text(image.get("debug_file")) or "") or None,
            debug_id=debug_id,
            arch=self._arch if arch is Arch.UNKNOWN else arch,
            image_vmaddr=address(image.get("image_vmaddr")) or 0,
            relative=start is None,
        )
        self.modules.append(module)
        return module

    def _without_doubles(self, reading: Reading) -> None:
        """Sort the images by address, and give an end to those that say none: the next one's beginning."""
        found: dict[int, Module] = {}
        for module in self.modules:
            if (
                first := found.setdefault(module.image_addr, module)
            ) is not module and first.debug_id != module.debug_id:
                reading.problem(
                    "module_overlap", "debug_meta.images", f"{module.code_file or 'an image'} where another one is"
                )
        self.modules = sorted(found.values(), key=lambda m: m.image_addr)
        for at, module in enumerate(self.modules):
            after = self.modules[at + 1].image_addr if at + 1 < len(self.modules) else _WHOLE
            module.image_size = min(
                module.image_size or (_SPAN if module.relative else _UNSAID),
                after - module.image_addr,
                _WHOLE - module.image_addr,
            )


def _debug_id(told: str | None) -> str | None:
    try:
        return str(DebugId.parse(told)) if told else None
    except ValueError:
        return None
