"""Code to look at: the report's own memory, and where that has none, what the modules' executables hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deadreckon.model.crash import RawCrash
    from deadreckon.model.tables import CodeTable

__all__ = ["reader"]


def reader(crash: RawCrash, code: Sequence[CodeTable | None]) -> Callable[[int, int], bytes | None]:
    """Return what reads (address, size); ``code[i]`` belongs to ``crash.modules[i]``."""

    def read(address: int, size: int) -> bytes | None:
        held = crash.memory.read(address, size)
        for module, table in zip(crash.modules, code, strict=True) if held is None else ():
            if table is not None and module.image_addr <= address < module.end:
                return table.read(address - module.image_addr, size)
        return held

    return read
