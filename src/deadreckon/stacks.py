"""Every stack of a crash with its frames, from whatever the report has: registers, addresses, or frames as they are.

Stacks of managed languages have no addresses: their frames are the report's own, and neither tables nor kernels are
needed for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deadreckon.config import UnwindLimits
    from deadreckon.model.crash import Module, RawCrash
    from deadreckon.model.event import Frame
    from deadreckon.symbolicate.native import ModuleSymbols
    from deadreckon.symbols.store import ModuleTables
    from deadreckon.unwind.walk import Tables, Walk

__all__ = ["Resolved", "Stacks", "find"]

_ROUNDS = 4
"""How often a crash is unwound again because its stacks led to modules not looked at yet."""


@dataclass(slots=True)
class Resolved:
    """A module's tables and symbols, kept from one crash to the next."""

    tables: ModuleTables | None
    symbols: ModuleSymbols
    problems: list[str]
    until: float
    unavailable: dict[str, str] = field(default_factory=dict)
    bundles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Stacks:
    """``frames``, innermost first, by number: the threads' in their order, then the exceptions'.

    ``stops`` says of each thread why its stack ends, ``resolved`` of each module what was found, ``used`` which modules
    have frames. ``walk`` is how stacks were unwound, None where nothing had to be.
    """

    frames: dict[int, list[Frame]]
    stops: list[str]
    resolved: list[Resolved]
    used: set[int]
    tables: list[Tables | None]
    walk: Walk | None = None


def find(raw: RawCrash, limits: UnwindLimits, modules: Callable[[list[Module]], Sequence[Resolved]]) -> Stacks:
    """Unwind and symbolicate every thread; ``modules`` finds the tables of some of the crash's."""
    if (listed := _listed(raw)) is not None:
        return Stacks(listed, ["end of stack" if t.frames else "no register context" for t in raw.threads], *_none(raw))
    from deadreckon.symbolicate.native import symbolicate  # noqa: PLC0415  (numpy and kernels: where there are addresses)
    from deadreckon.unwind.walk import modules_on_stacks, reported_frames, unwind  # noqa: PLC0415

    resolved, _, tables = _none(raw)
    wanted = set(modules_on_stacks(raw).tolist())
    known: set[int] = set()
    for _ in range(_ROUNDS):
        indexes = sorted(wanted - known)
        for index, found in zip(indexes, modules([raw.modules[i] for i in indexes]), strict=True):
            resolved[index] = found
        known |= wanted
        tables = [(r.tables.sym, r.tables.rules, r.tables.code) if r.tables else None for r in resolved]
        walk = unwind(raw, tables, limits)
        # Below a signal handler's own stack come modules that only the interrupted stack mentions.
        wanted = set(walk.frames.module[walk.frames.module >= 0].tolist())
        if wanted <= known:
            break
    stacks, numbers = symbolicate(walk.frames, raw.modules, [r.symbols for r in resolved], reported_frames(raw))
    frames = dict(zip(numbers, stacks, strict=True))
    return Stacks(frames, walk.stops, resolved, set(walk.frames.module.tolist()), tables, walk)


def _none(raw: RawCrash) -> tuple[list[Resolved], set[int], list[Tables | None]]:
    """Return what is known of the modules before any was looked for."""
    if not raw.modules:
        return [], set(), []
    from deadreckon.symbolicate.native import ModuleSymbols  # noqa: PLC0415

    unused = Resolved(None, ModuleSymbols(None, "unused"), [], 0.0)
    return [unused] * len(raw.modules), set(), [None] * len(raw.modules)


def _listed(raw: RawCrash) -> dict[int, list[Frame]] | None:
    """Return the stacks of a crash all of whose frames are known by their names only, None for any other."""
    found: dict[int, list[Frame]] = {}
    if any(thread.registers is not None and not thread.frames for thread in raw.threads):
        return None
    for number, listed in enumerate([*(t.frames for t in raw.threads), *(e.frames for e in raw.exceptions)]):
        if not listed:
            continue
        stack = found[number] = []
        for said in listed:
            if said.instruction_addr is not None:
                return None
            if (frame := said.reported) is not None:
                if frame.trust is None:
                    frame.trust = "prewalked"
                stack.append(frame)
    return found
