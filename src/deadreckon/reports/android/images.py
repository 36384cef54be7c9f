"""Images of an Android process: modules from its memory maps, and where a frame is in them.

The linker maps a library's segments one behind the other, with holes between them (``[page size compat]``, ``.bss``)
and the file's name at each. A map that has a build id belongs to an ELF file; one that starts anew in the same file
(at offset 0, or lower than the one before) is another copy of it. The lists of Sentry's SDK for Java agree
(tests/reports/test_tombstone_corpus.py).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from deadreckon.model.crash import Module
from deadreckon.model.ids import Arch, DebugId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.android.dump import BacktraceFrame, MemoryMapping

__all__ = ["Images"]

_RELATIVE = 1 << 62
"""Where relative modules begin: no processor has code there."""
_SPAN = 1 << 40
_EXECUTE = 4


class Images:
    """The modules of a process; ``place`` adds relative ones for what no map holds."""

    def __init__(self, mappings: Sequence[MemoryMapping], arch: Arch, max_modules: int) -> None:
        self.modules: list[Module] = []
        self.left_out = 0
        self._arch = arch
        self._max = max_modules
        self._code: list[list[tuple[int, int]]] = []
        self._relative: dict[tuple[str, int, str | None], Module] = {}
        self._map(mappings)
        self._starts = [m.image_addr for m in self.modules]
        self._by_build_id: dict[str, list[int]] = {}
        for index, module in enumerate(self.modules):
            self._by_build_id.setdefault(module.code_id or "", []).append(index)

    def _map(self, mappings: Sequence[MemoryMapping]) -> None:
        last: MemoryMapping | None = None
        named = [m for m in mappings if m.build_id and m.mapping_name and 0 <= m.begin < m.end <= 1 << 63]
        for mapping in sorted(named, key=lambda m: m.begin):
            if last is not None and mapping.begin >= last.end and _goes_on(last, mapping):
                module = self.modules[-1]
                module.image_size = mapping.end - module.image_addr
            elif last is not None and mapping.begin < last.end:
                continue  # Maps don't overlap; a damaged report's may.
            elif len(self.modules) >= self._max:
                self.left_out += 1
                continue
            else:
                self._add(mapping)
            last = mapping
            if mapping.access & _EXECUTE:
                self._code[-1].append((mapping.begin, mapping.end))

    def _add(self, mapping: MemoryMapping) -> None:
        module = self._module(mapping.mapping_name, mapping.build_id, mapping.begin, mapping.end - mapping.begin)
        module.file_offset = mapping.offset
        self.modules.append(module)
        self._code.append([])

    def _module(self, name: str, build_id: str | None, start: int, size: int) -> Module:
        return Module(
            start,
            size,
            code_file=name,
            code_id=build_id.lower() if build_id else None,
            debug_file=_base(name) or None,
            debug_id=_debug_id(build_id),
            arch=self._arch,
        )

    def place(self, frame: BacktraceFrame) -> int | None:
        """Return the address by which the modules know a frame, None where none can know it."""
        if frame.pc is not None and self._starts:
            index = bisect_right(self._starts, frame.pc) - 1
            module = self.modules[index] if 0 <= index < len(self._starts) else None
            if module is None or frame.pc >= module.end:
                if frame.build_id is None:
                    return frame.pc
            elif frame.pc - module.image_addr == frame.rel_pc and frame.build_id in {None, module.code_id}:
                _name(module, frame)
                return frame.pc
        elif frame.file_name is None:
            # Code that no file was mapped for: the address is all there is.
            return frame.rel_pc if frame.pc is None else frame.pc
        elif frame.pc is None and (only := self._only(frame)) is not None:
            _name(only, frame)
            return only.image_addr + frame.rel_pc
        return self._place_relative(frame)

    def _only(self, frame: BacktraceFrame) -> Module | None:
        """Return the module that a frame without an address is in; None where several copies of it are mapped."""
        file = (frame.file_name or "").partition("!")[0]
        found = [
            index
            for index in self._by_build_id.get(frame.build_id or "", ())
            if self.modules[index].code_file.partition("!")[0] == file
            and any(start <= self.modules[index].image_addr + frame.rel_pc < end for start, end in self._code[index])
        ]
        return self.modules[found[0]] if len(found) == 1 else None

    def _place_relative(self, frame: BacktraceFrame) -> int | None:
        if frame.file_name is None or not 0 <= frame.rel_pc < _SPAN:
            return None
        key = (frame.file_name, frame.file_map_offset, frame.build_id)
        module = self._relative.get(key)
        if module is None:
            if len(self.modules) >= self._max:
                self.left_out += 1
                return None
            module = self._module(*key[::2], _RELATIVE + len(self._relative) * _SPAN, _SPAN)
            module.relative, module.file_offset = True, frame.file_map_offset
            self._relative[key] = module
            self.modules.append(module)
        return module.image_addr + frame.rel_pc


def _goes_on(last: MemoryMapping, mapping: MemoryMapping) -> bool:
    """Tell whether a map is the next segment of the file in the last one.

    A small library has two segments in one page of its file, with different rights.
    """
    if (last.mapping_name, last.build_id) != (mapping.mapping_name, mapping.build_id):
        return False
    return mapping.offset > last.offset or (mapping.offset == last.offset and mapping.access != last.access)


def _name(module: Module, frame: BacktraceFrame) -> None:
    """Take the name of a library in an archive from a frame; maps have the archive's only."""
    name = frame.file_name or ""
    if "!" in name and "!" not in module.code_file and name.startswith(f"{module.code_file}!"):
        module.code_file, module.debug_file = name, _base(name) or None


def _base(name: str) -> str:
    return name.rpartition("!")[2].rpartition("/")[2]


def _debug_id(build_id: str | None) -> str | None:
    try:
        return str(DebugId.from_build_id(bytes.fromhex(build_id or "")))
    except ValueError:
        return None
