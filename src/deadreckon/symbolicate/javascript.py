"""From positions in generated scripts to the sources that they were made of: file, line, column, function, context.

A function's name comes from the best of what there is, and ``origin`` says which: the map's scopes (``scopes``), its
function names (``facebook``, ``bloomberg``), the script's own text translated by the map (``script``), the name at the
call in the frame below (``caller``), what the engine printed (``engine``).

A frame that stays as it is says why, in ``details["source_map"]``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from deadreckon.kernels import positions
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.tables import BEFORE_FIRST, EMPTY_LINE, MAPPED, NO_LINE, UNMAPPED
from deadreckon.objects import jspaths, sourcemap
from deadreckon.symbolicate._bundle import Bundle, only_line
from deadreckon.symbols.scripts import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deadreckon.model.tables import SourceMapTable
    from deadreckon.symbols.scripts import Scripts

__all__ = ["JavaScript", "is_mappable"]

_USELESS = frozenset({"", "<anonymous>", "__webpack_require__", "__webpack_modules__"})
"""Names that say less than the call does."""
_STATES = {
    UNMAPPED: ("unmapped_segment", "the generator made this code, no source has it"),
    BEFORE_FIRST: ("before_first_mapping", "the line's first mapping is further right"),
    EMPTY_LINE: ("no_mapping_on_line", "the map has nothing of this line"),
    NO_LINE: ("no_such_line", "the map ends before this line"),
}
_PAST_END = ("past_line_end", "the script's line ends before this column: it is another build's")
_PAST_FILE = ("no_such_line", "the script has fewer lines: it is another build's")
_NO_COLUMN = ("no_column", "without a column, the line has more than one place that it can be from")
_NO_MODULE = ("no_such_module", "the map knows no such module of the RAM bundle")
_RAM_BUNDLES = ("main.jsbundle", "index.android.bundle", "index.ios.bundle", "index.bundle")
_CODES = {"bad_map": "sourcemap_malformed", "mismatch": "sourcemap_mismatch"}
_KEPT = 32
_MOST_DIAGNOSTICS = 100
_WHOLE_LINE = 0x7FFF_FFFF


@dataclass(slots=True)
class _Position:
    """A frame's place in a generated script, and what is known of it; lines and columns 0-based, column -1 unknown."""

    frame: Frame
    line: int
    column: int
    bundle: Bundle
    table: SourceMapTable | None = None
    place: tuple[int, int, int] | None = None  # Source, line, column.
    why: tuple[str, str] | None = None
    function: str | None = None
    named_by: str = ""
    inlined: list[sourcemap.OriginalFrame] = field(default_factory=list)


def is_mappable(frame: Frame) -> bool:
    """Tell whether a frame is of a script that can have a source map: not the engine's own code, nor evaluated code."""
    details = frame.details or {}
    place = frame.abs_path
    if frame.lang != "javascript" or not place or place.startswith("<") or "native" in details:
        return False
    if frame.lineno is None and "wasm_offset" not in details:
        return False
    kind = jspaths.scheme(place)
    foreign = kind in {"node", "bun", "ext", "chrome", "webkit-masked-url"} or place == "eval code"
    return not foreign and not place.endswith("InternalBytecode.js") and "component" not in details


class JavaScript:
    """Maps frames. Keeps what it worked out of the last bundles. Safe to use from several threads."""

    def __init__(self, scripts: Scripts, lines: int = 5) -> None:
        self._scripts = scripts
        self._around = lines
        self._bundles: OrderedDict[Wanted, Bundle] = OrderedDict()
        self._lock = threading.Lock()

    def apply(self, stacks: Sequence[list[Frame]]) -> list[Diagnostic]:
        """Map the frames of stacks, innermost first, in place; return what is to be said of those that were not mapped.

        Frames name their script in ``abs_path``, ``debug_id`` and ``details["chunk_id"]``. Columns count from 1 unless
        ``details["column_is_0based"]`` says otherwise.
        """
        with self._lock:
            return self._apply(stacks)

    def _apply(self, stacks: Sequence[list[Frame]]) -> list[Diagnostic]:
        located = [[self._locate(frame) for frame in stack] for stack in stacks]
        known = [p for stack in located for p in stack if p is not None]
        for bundle in {id(p.bundle): p.bundle for p in known}.values():
            self._look_up(bundle, [p for p in known if p.bundle is bundle])
        for stack, here in zip(stacks, located, strict=True):
            if any(p is not None and p.place is not None for p in here):
                self._name(here)
                stack[:] = [f for frame, p in zip(stack, here, strict=True) for f in self._frames(frame, p)]
        return _diagnostics(known)

    def _bundle(self, wanted: Wanted) -> Bundle:
        bundle = self._bundles.get(wanted)
        if bundle is None:
            bundle = self._bundles[wanted] = Bundle(wanted.url, self._scripts.find(wanted))
            if len(self._bundles) > _KEPT:
                self._bundles.popitem(last=False)
        self._bundles.move_to_end(wanted)
        return bundle

    def _locate(self, frame: Frame) -> _Position | None:
        if not is_mappable(frame):
            return None
        details = frame.details or {}
        wanted = Wanted(frame.abs_path or "", frame.debug_id, details.get("chunk_id"))
        bundle = self._bundle(wanted)
        if "ram_module" in details and bundle.table is None:
            others = (self._bundle(Wanted(name)) for name in _RAM_BUNDLES)
            bundle = next((other for other in others if other.table is not None), bundle)
        if "wasm_offset" in details:
            return _Position(frame, 0, details["wasm_offset"], bundle)
        column = -1
        if frame.colno is not None:
            column = max(0, frame.colno if details.get("column_is_0based") else frame.colno - 1)
        return _Position(frame, (frame.lineno or 0) - 1, column, bundle)

    # -- positions ----------------------------------------------------------------------------------------------------

    def _look_up(self, bundle: Bundle, group: list[_Position]) -> None:
        """Find the original places of positions in one script."""
        if bundle.table is None:
            return
        tables: dict[int, tuple[SourceMapTable, list[_Position]]] = {}
        for position in group:
            table = _table_of(bundle, position)
            if table is None:
                position.why = _NO_MODULE
            else:
                position.table = table
                tables.setdefault(id(table), (table, []))[1].append(position)
        for table, chosen in tables.values():
            columns = [_WHOLE_LINE if p.column < 0 else p.column for p in chosen]
            found = positions.look_up(table, [p.line for p in chosen], columns)
            rows = zip(chosen, found.state.tolist(), found.place[:, :3].tolist(), strict=True)
            for position, state, (source, line, column) in rows:
                if state != MAPPED:
                    position.why = _STATES[state]
                elif position.column < 0:
                    _without_column(table, position)
                else:
                    position.place = source, line, column
            self._check_text(bundle, chosen)
            self._by_map(table, [p for p in chosen if p.place is not None])
        if bundle.has_script and not sourcemap.is_bytecode(bundle.table):
            self._by_script(bundle, [p for p in group if p.place is not None and not p.named_by])

    def _check_text(self, bundle: Bundle, chosen: Iterable[_Position]) -> None:
        """Take back places that are not in the script: a map answers for whatever lies behind its last mapping."""
        if not bundle.has_script or bundle.table is None or sourcemap.is_bytecode(bundle.table):
            return
        text = bundle.text
        widths: dict[int, int] = {}
        for position in chosen:
            if "ram_module" in (position.frame.details or {}):
                continue
            if position.line >= len(text):
                position.place, position.why = None, _PAST_FILE
            elif position.place is not None:
                width = widths.get(position.line)
                if width is None:
                    width = widths[position.line] = text.width(position.line)
                if position.column > width:
                    position.place, position.why = None, _PAST_END

    # -- names --------------------------------------------------------------------------------------------------------

    def _by_map(self, table: SourceMapTable, mapped: list[_Position]) -> None:
        """Name functions by what the map itself says of them."""
        if not mapped:
            return
        if len(sourcemap.scopes(table).ranges):
            for position in mapped:
                assert position.place is not None
                frames = sourcemap.frames_at(table, position.line, max(0, position.column), position.place)
                if frames:
                    position.function, position.named_by = frames[0].name, "scopes"
                    position.inlined = frames[1:]
        functions = sourcemap.functions(table)
        if not len(functions.at):
            return
        places = np.array([(*(p.place or (-1, -1, -1)), -1) for p in mapped], np.int32)
        names = positions.look_up_functions(functions, places).tolist()
        for position, index in zip(mapped, names, strict=True):
            if position.named_by or index < 0 or position.place is None:
                continue
            said = functions.name(index)
            if said:
                position.function = said
                position.named_by = "facebook" if functions.origin[position.place[0]] == 1 else "bloomberg"

    def _by_script(self, bundle: Bundle, mapped: list[_Position]) -> None:
        """Name functions by the text of the script."""
        if not mapped:
            return
        names = bundle.names([p.line for p in mapped], [max(0, p.column) for p in mapped])
        for position, (inside, name) in zip(mapped, names, strict=True):
            if name is not None:
                position.function, position.named_by = name, "script"
            elif not inside:
                # Code outside of functions: no call leads there that says more than the engine does.
                position.function, position.named_by = position.frame.function, "engine"

    def _name(self, stack: Sequence[_Position | None]) -> None:
        """Name functions that nothing named so far: by the call in the frame below, else as the engine did."""
        for number, position in enumerate(stack):
            if position is None or position.place is None:
                continue
            if position.named_by == "engine" or (position.named_by and (position.function or "") not in _USELESS):
                continue
            caller = stack[number + 1] if number + 1 < len(stack) else None
            called = None
            if caller is not None and caller.place is not None and not (caller.frame.details or {}).get("is_async"):
                called = (
                    caller.bundle.called(caller.line, caller.column) if caller.table is caller.bundle.table else None
                )
            if called:
                position.function, position.named_by = called, "caller"
            elif position.frame.function:
                position.function, position.named_by = position.frame.function, "engine"

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frames(self, frame: Frame, position: _Position | None) -> list[Frame]:
        if position is None or position.place is None or position.table is None:
            return [frame]
        details = {k: v for k, v in (frame.details or {}).items() if k != "column_is_0based"}
        origin: dict[str, Any] = {
            "abs_path": frame.abs_path,
            "lineno": frame.lineno,
            "colno": frame.colno,
            "function": frame.function,
            "function_from": position.named_by,
            "map": position.bundle.found.map_name,
            "map_by": position.bundle.found.key,
        }
        if len(details) < len(frame.details or ()):
            origin["column_is_0based"] = True
        frame = msgspec.structs.replace(
            frame, origin={k: v for k, v in origin.items() if v is not None}, details=details or None
        )
        frames = [self._original(frame, position, position.function, *position.place)]
        for around in position.inlined:
            frames.append(self._original(frame, position, around.name, around.source, around.line, around.column))
        for inlined in frames[:-1]:
            inlined.inline = True
        return frames

    def _original(
        self, frame: Frame, position: _Position, function: str | None, index: int, line: int, column: int
    ) -> Frame:
        """Return the frame of an original place."""
        assert position.table is not None
        source = position.bundle.source(position.table, index)
        context = (
            position.bundle.context(position.table, index, line, column, self._around) if self._around >= 0 else None
        )
        before, here, after = context or (None, None, None)
        return msgspec.structs.replace(
            frame,
            status="symbolicated" if function or source.path else "missing_symbol",
            function=function or None,
            raw_function=frame.function,
            filename=source.filename,
            abs_path=source.abs_path,
            lineno=line + 1,
            colno=column + 1 if position.column >= 0 else None,
            in_app=source.in_app,
            pre_context=before,
            context_line=here,
            post_context=after,
        )


def _table_of(bundle: Bundle, position: _Position) -> SourceMapTable | None:
    """Return the map that a position is to be looked up in, and move the position to where a RAM bundle's module is."""
    details = position.frame.details or {}
    table = bundle.table
    if table is None or "ram_module" not in details:
        return table
    module: int = details["ram_module"]
    if "ram_segment" in details and (number := details["ram_segment"]):
        table = bundle.segment(number)
        if table is None:
            return None
    first = sourcemap.module_line(table, module)
    if first is None:
        # Where a map has no modules, a file that is a number is just a file.
        return table if sourcemap.extra(table, "x_facebook_offsets") is None else None
    position.line += first
    return table


def _without_column(table: SourceMapTable, position: _Position) -> None:
    """Take the place of a whole line, where all of it is from one line."""
    place = only_line(table, position.line)
    if place is None:
        position.why = _NO_COLUMN
    else:
        source, line, column, _ = place.tolist()
        position.place = source, line, column


def _diagnostics(known: Sequence[_Position]) -> list[Diagnostic]:
    """Say of every frame that was not mapped why, on the frame and once for all of a script's."""
    said: dict[tuple[str, str], tuple[Diagnostic, dict[str, Any]]] = {}
    for position in known:
        if position.place is not None:
            continue
        found = position.bundle.found
        state, message = position.why or (found.state, found.problem or "no source map was found")
        key = (position.frame.abs_path or "", state)
        if key not in said:
            note: dict[str, Any] = {"state": state, "message": message}
            if position.why is None:
                note["looked_for"] = list(found.tried)
            else:
                note["map"] = found.map_name
            where: dict[str, str | int] = {"script": key[0], "state": state, "frames": 0}
            code = _CODES.get(state, "sourcemap_missing" if position.why is None else "sourcemap_unmapped")
            severity = "warning" if state in _CODES else "info"
            diagnostic = Diagnostic(
                code=code,
                severity="warning" if severity == "warning" else "info",
                stage="symbolicate",
                message=f"{key[0][:200]}: {message}",
                where=where,
            )
            said[key] = diagnostic, note
        diagnostic, note = said[key]
        assert diagnostic.where is not None
        diagnostic.where["frames"] = int(diagnostic.where["frames"]) + 1
        position.frame.details = {**(position.frame.details or {}), "source_map": note}
    return [diagnostic for diagnostic, _ in said.values()][:_MOST_DIAGNOSTICS]
