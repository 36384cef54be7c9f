"""deadreckon: where a program died.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much as a fifth of a bare start; checkers know the name.
if TYPE_CHECKING:
    from typing import Any

    from deadreckon.config import Config
    from deadreckon.engine import Engine, process
    from deadreckon.errors import DeadreckonError
    from deadreckon.model.event import Event, Frame

__version__ = "0.1.0"

__all__ = ["Config", "DeadreckonError", "Engine", "Event", "Frame", "__version__", "process"]

_HOMES = {
    "Config": "deadreckon.config",
    "DeadreckonError": "deadreckon.errors",
    "Engine": "deadreckon.engine",
    "Event": "deadreckon.model.event",
    "Frame": "deadreckon.model.event",
    "process": "deadreckon.engine",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(home), name)
