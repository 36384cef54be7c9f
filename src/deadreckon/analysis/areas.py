"""What lies at an address: the mapping, its protection, the module, captured memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from deadreckon.model.crash import Module, RawCrash, Regions

__all__ = ["Area", "Areas"]

_READ, _WRITE, _EXECUTE = 1, 2, 4
_NEEDED = {"read": _READ, "write": _WRITE, "execute": _EXECUTE}


class Area(NamedTuple):
    """A mapping; ``access`` has bits for read, write and execute."""

    start: int
    end: int
    access: int

    @property
    def readable(self) -> bool:
        """Whether it can be read."""
        return bool(self.access & _READ)

    @property
    def writable(self) -> bool:
        """Whether it can be written."""
        return bool(self.access & _WRITE)

    @property
    def executable(self) -> bool:
        """Whether its code runs."""
        return bool(self.access & _EXECUTE)

    @property
    def protection(self) -> str:
        """Access as Linux writes it: "r-x"."""
        return "".join(letter if self.access & bit else "-" for letter, bit in zip("rwx", (1, 2, 4), strict=True))

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"


class Areas:
    """The mappings and modules of one crash; each question takes one address."""

    def __init__(self, crash: RawCrash) -> None:
        self._crash = crash
        regions = crash.regions
        self._regions: Regions | None = regions if regions is not None and len(regions.start) else None

    @property
    def known(self) -> bool:
        """Whether the report lists mappings at all."""
        return self._regions is not None

    def at(self, address: int) -> Area | None:
        """Return the mapping that holds an address."""
        return self._area(address, 0)

    def above(self, address: int) -> Area | None:
        """Return the first mapping that begins after an address."""
        return self._area(address, 1)

    def _area(self, address: int, step: int) -> Area | None:
        regions = self._regions
        if regions is None or not 0 <= address < 1 << 64:
            return None
        i = int(np.searchsorted(regions.start, np.uint64(address), side="right")) - 1 + step
        if not 0 <= i < len(regions.start):
            return None
        area = Area(int(regions.start[i]), int(regions.end[i]), int(regions.access[i]))
        return area if step or address < area.end else None

    def allows(self, address: int, access: str) -> bool:
        """Whether memory that is known to be there allows an access; True where no mappings are known."""
        if self._regions is None:
            return True
        area = self.at(address)
        return area is not None and bool(area.access & _NEEDED[access])

    def captured(self, address: int) -> bool:
        """Whether the report holds the memory at an address."""
        return self._crash.memory.read(address, 1) is not None

    def together(self, address: int, other: int) -> bool:
        """Whether the report holds two addresses in one piece of memory."""
        memory, (low, high) = self._crash.memory, sorted((address, other))
        if not 0 <= low <= high < 1 << 64:
            return False
        i = int(np.searchsorted(memory.start, np.uint64(low), side="right")) - 1
        return i >= 0 and high < int(memory.end[i])

    def module(self, address: int) -> Module | None:
        """Return the module that holds an address."""
        return next((m for m in self._crash.modules if m.image_addr <= address < m.end), None)

    def name(self, address: int) -> str:
        """Return the file name of the module that holds an address, empty where none does."""
        module = self.module(address)
        return "" if module is None else module.code_file.replace("\\", "/").rpartition("/")[2]
