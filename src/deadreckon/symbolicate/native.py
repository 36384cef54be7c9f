"""From frames to functions, files and lines: all frames of a module in one look-up, inlined calls expanded.

A return address is looked up one byte earlier, so that the call is found and not what follows it; the frame shows
the address as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from deadreckon.model.event import Frame
from deadreckon.model.ids import Arch
from deadreckon.model.tables import LANGUAGES, NONE, TRUST_NAMES
from deadreckon.symbols.demangle import demangle
from deadreckon.telemetry import staged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.crash import Module, RawFrame
    from deadreckon.model.tables import FrameTable, SymTable

__all__ = ["ModuleSymbols", "join_path", "symbolicate"]


@dataclass(frozen=True, slots=True)
class _Location:
    """What a table says of one location, ready for a frame; made once a table, however many frames share it."""

    function: str | None
    raw_function: str | None
    entry: int | None
    filename: str | None
    abs_path: str | None
    lineno: int | None
    lang: str | None


class ModuleSymbols:
    """A module's SymTable with its locations' texts remembered; ``state`` is the module's symbol state."""

    __slots__ = ("_locations", "state", "table")

    def __init__(self, table: SymTable | None, state: str) -> None:
        self.table = table
        self.state = state
        self._locations: dict[int, _Location] = {}

    def location(self, index: int) -> _Location:
        """Return the texts of one location."""
        found = self._locations.get(index)
        if found is None:
            assert self.table is not None
            found = self._locations[index] = _read_location(self.table, index)
        return found


def _read_location(table: SymTable, index: int) -> _Location:
    file, line, function, _ = table.locations[index].tolist()
    raw = entry = lang = None
    if function < len(table.functions):
        name, entry, language = table.functions[function].tolist()
        raw = table.string(name) or None
        lang = LANGUAGES[language] or None if language < len(LANGUAGES) else None
    path = None
    if file < len(table.files):
        path = join_path(*(table.string(ref) if ref != NONE else "" for ref in table.files[file].tolist())) or None
    return _Location(
        function=demangle(raw) if raw else None,
        raw_function=raw,
        entry=entry if entry != NONE else None,
        filename=path.replace("\\", "/").rsplit("/", 1)[-1] if path else None,
        abs_path=path,
        lineno=line if 0 < line < NONE else None,
        lang=lang,
    )


def join_path(*parts: str) -> str:
    """Join a compilation directory, a directory and a name; a later absolute part replaces what is before it.

    Windows and POSIX paths are told apart by the parts themselves, since the file may have been built elsewhere.
    ``.`` and ``..`` are resolved by their text.
    """
    path = ""
    for part in parts:
        if not part:
            continue
        if part[0] in "/\\" or part[1:3] in {":\\", ":/"} or not path:
            path = part
        else:
            separator = "\\" if path[1:2] == ":" or path.startswith("\\") else "/"
            path = f"{path.rstrip('/' + chr(92))}{separator}{part}"
    if "/." not in path and "\\." not in path and "//" not in path:
        return path
    separator = "\\" if path[1:2] == ":" or path.startswith("\\") else "/"
    pieces = path.replace("\\", "/").split("/") if separator == "\\" else path.split("/")
    kept: list[str] = []
    for at, piece in enumerate(pieces):
        if piece == "." or (not piece and at):
            continue
        if piece == ".." and kept and kept[-1] not in {"", ".."} and kept[-1][-1:] != ":":
            kept.pop()
        elif piece == ".." and kept and (kept[-1] == "" or kept[-1][-1:] == ":"):
            continue
        else:
            kept.append(piece)
    return separator.join(kept)


@staged("symbolicate")
def symbolicate(
    frames: FrameTable,
    modules: Sequence[Module],
    symbols: Sequence[ModuleSymbols],
    reported: Sequence[RawFrame] = (),
) -> tuple[list[list[Frame]], list[int]]:
    """Turn a FrameTable into event frames, thread by thread of the table's own order.

    The table may hold the threads of many crashes, with the modules of each: there is one look-up for all frames that
    share symbols. ``symbols[i]`` belongs to ``modules[i]``; ``reported`` to the table's last rows. Returns one list of
    frames (innermost first) for each distinct thread in order of appearance, and those threads' numbers.
    """
    from deadreckon.kernels.ranges import look_up  # noqa: PLC0415  (numba is loaded when there is something to look up)

    count = len(frames)
    located: list[list[_Location]] = [[]] * count
    bases = np.array([m.image_addr for m in modules], np.uint64)
    inside = frames.module >= 0
    rva = np.zeros(count, np.uint64)
    rva[inside] = frames.instruction_addr[inside] - bases[frames.module[inside]]
    # Bit 0 of an address that 32-bit ARM returns to says that Thumb code is there.
    thumb = np.array([m.arch is Arch.ARM for m in modules] or [False])[frames.module].astype(np.uint64)
    look = (rva & ~thumb) - frames.is_return_address.astype(np.uint64) * inside
    # Crashes of one build have modules of their own and share the symbols.
    first_with = {id(s): index for index, s in reversed([*enumerate(symbols)])}
    shared = np.array([first_with[id(s)] for s in symbols] or [0])[frames.module]
    for index in np.unique(shared[inside]).tolist():
        table = symbols[index].table
        if table is None:
            continue
        rows = np.flatnonzero(inside & (shared == index))
        first, locations = look_up(table, look[rows])
        ends, found = first.tolist(), locations.tolist()
        text = symbols[index].location
        for at, row in enumerate(rows.tolist()):
            located[row] = [text(i) for i in found[ends[at] : ends[at + 1]]]
    threads: list[list[Frame]] = []
    numbers: list[int] = []
    previous = -1
    told = [*[None] * (count - len(reported)), *reported]
    columns = zip(
        frames.thread.tolist(),
        frames.instruction_addr.tolist(),
        frames.module.tolist(),
        frames.trust.tolist(),
        rva.tolist(),
        located,
        told,
        strict=True,
    )
    for thread, address, index, trust, offset, locations_here, said in columns:
        if thread != previous:
            threads.append([])
            numbers.append(thread)
            previous = thread
        if locations_here and said is not None and said.reported is not None and said.reported.inline:
            continue  # An inlined call that the report lists itself: the frame below has its address, and all of them.
        module = modules[index] if index >= 0 else None
        state = symbols[index].state if index >= 0 else "unknown_image"
        found = _frames(address, offset, module, state, TRUST_NAMES[trust], locations_here)
        threads[-1].extend(found if said is None else _with_report(found, said, symbolicated=bool(locations_here)))
    return threads, numbers


_LOOKED_UP = ("instruction_addr", "image_addr", "rva", "package", "debug_id", "trust")


def _with_report(found: list[Frame], said: RawFrame, *, symbolicated: bool) -> list[Frame]:
    """Join what the look-up found for a listed frame with what the report itself says of it.

    What a debug file says counts more than the report's own names, which come from a stripped symbol table as often
    as not (Apple's name the nearest exported symbol); variables and the like only the report has.
    """
    told = said.reported
    if said.instruction_addr is None:
        return [msgspec.structs.replace(told, trust=told.trust or "prewalked")] if told is not None else []
    if told is None:
        return found
    if symbolicated:
        frame = found[-1]
        frame.in_app, frame.registers = told.in_app, told.registers
        frame.locals, frame.args, frame.kwargs = told.locals, told.args, told.kwargs
        for frame in found if found[0].instruction_addr is None else ():
            frame.instruction_addr = told.instruction_addr
        for frame in found if told.trust else ():
            frame.trust = told.trust
        return found
    looked_up = {name: value for name in _LOOKED_UP if (value := getattr(found[0], name)) is not None}
    looked_up["trust"] = told.trust or looked_up["trust"]
    function = told.function or (demangle(told.raw_function) if told.raw_function else None)
    status = "symbolicated" if function else found[0].status
    return [msgspec.structs.replace(told, status=status, function=function, **looked_up)]


_STATUS = {"found": "missing_symbol", "mismatch": "missing", "unused": "missing"}


def _frames(
    address: int, rva: int, module: Module | None, state: str, trust: str, locations: list[_Location]
) -> list[Frame]:
    if module is None:
        return [Frame(status="unknown_image", instruction_addr=hex(address), trust=trust)]
    instruction_addr = None if module.relative else hex(address)
    image_addr = None if module.relative else hex(module.image_addr)
    offset = hex(rva)
    if not locations:
        return [
            Frame(
                status=_STATUS.get(state, state),
                instruction_addr=instruction_addr,
                image_addr=image_addr,
                rva=offset,
                package=module.code_file or None,
                debug_id=module.debug_id,
                trust=trust,
            )
        ]
    last = len(locations) - 1
    return [
        Frame(
            status="symbolicated" if at.function else "missing_symbol",
            instruction_addr=instruction_addr,
            image_addr=image_addr,
            rva=offset,
            symbol_addr=None if at.entry is None or module.relative else hex(module.image_addr + at.entry),
            package=module.code_file or None,
            debug_id=module.debug_id,
            function=at.function,
            raw_function=at.raw_function,
            filename=at.filename,
            abs_path=at.abs_path,
            lineno=at.lineno,
            lang=at.lang,
            inline=depth < last,
            trust=trust,
        )
        for depth, at in enumerate(locations)
    ]
