"""From positions in generated scripts to the sources that they were made of: file, line, column, function, context.

A function's name comes from the best of what there is, and ``origin`` says which: the map's scopes (``scopes``), its
function names (``facebook``, ``bloomberg``), the script's own text translated by the map (``script``), the text of the
source (``source``), the name at the call in the frame below (``caller``), what the engine printed (``engine``).

A frame that stays as it is says why, in ``details["source_map"]``. All frames of a script are looked up together.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from deadreckon.kernels import positions
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.tables import BEFORE_FIRST, EMPTY_LINE, MAPPED, NO_LINE, UNMAPPED
from deadreckon.objects import jspaths, sourcemap
from deadreckon.symbolicate._bundle import Bundle, Context, Source, only_line
from deadreckon.symbols.scripts import Found, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable
    from deadreckon.symbols.scripts import Scripts

__all__ = ["JavaScript", "is_mappable"]

_USELESS = frozenset({None, "", "<anonymous>", "__webpack_require__", "__webpack_modules__"})
"""Names that say less than the call does."""
_INDIRECT = frozenset({"call", "apply"})
"""What is called so calls another function."""
_OF_CALLS = frozenset({"caller", "engine"})
_STATES = {
    UNMAPPED: ("unmapped_segment", "the generator made this code, no source has it"),
    BEFORE_FIRST: ("before_first_mapping", "the line's first mapping is further right"),
    EMPTY_LINE: ("no_mapping_on_line", "the map has nothing of this line"),
    NO_LINE: ("no_such_line", "the map ends before this line"),
}
_PAST_END = ("past_line_end", "the script's line ends before this column: it is another build's")
_PAST_FILE = ("no_such_line", "the script has fewer lines: it is another build's")
_NO_COLUMN = ("no_column", "without a column, the line has more than one place that it can be from")
_NO_MODULE = ("no_such_module", "the map knows no such module or function of the bundle")
_RAM_BUNDLES = ("main.jsbundle", "index.android.bundle", "index.ios.bundle", "index.bundle")
_CODES = {"bad_map": "sourcemap_malformed", "mismatch": "sourcemap_mismatch"}
_KEPT = 32
_MOST_SCRIPTS = 2048
"""Scripts of one crash that maps are looked for; a page has dozens."""
_MOST_DIAGNOSTICS = 100
_WHOLE_LINE = 0x7FFF_FFFF


def is_mappable(frame: Frame) -> bool:
    """Tell whether a frame is of a script that can have a source map.

    The engine's own code, evaluated code, and what somebody else has mapped before can't.
    """
    details = frame.details or {}
    place = frame.abs_path
    if frame.lang != "javascript" or not place or place.startswith("<") or details.keys() & {"native", "resolved"}:
        return False
    if frame.lineno is None and details.keys().isdisjoint({"wasm_offset", "hermes_function"}):
        return False
    kind = jspaths.scheme(place)
    foreign = kind in {"node", "bun", "ext", "chrome", "webkit-masked-url"} or place == "eval code"
    return not foreign and not place.endswith("InternalBytecode.js") and "component" not in details


def _separate(stacks: Sequence[list[Frame]]) -> None:
    """Make an object of its own of each frame: they are changed in place."""
    if len({id(frame) for stack in stacks for frame in stack}) == sum(map(len, stacks)):
        return
    seen: set[int] = set()
    for stack in stacks:
        for at, frame in enumerate(stack):
            if id(frame) in seen:
                stack[at] = msgspec.structs.replace(frame)
            seen.add(id(stack[at]))


class _Group:
    """Frames of one script, side by side with what becomes known of each; lines and columns are 0-based."""

    __slots__ = (
        *("bundle", "by", "callers", "columns", "frames", "functions", "inlined", "lines", "place", "places"),
        *("table", "why"),
    )

    def __init__(self, bundle: Bundle, table: SourceMapTable | None) -> None:
        self.bundle = bundle
        self.table = table
        self.frames: list[Frame] = []
        self.lines: list[int] = []
        self.columns: list[int] = []
        """-1 where there is none."""
        self.callers: dict[int, tuple[_Group, int] | None] = {}
        """Where the frame below is if that is not the next one here; None where there is none that can have a map."""
        self.why: list[tuple[str, str] | None] = []
        self.places: list[list[int] | None] = []
        """Source, line, column."""
        self.place: NDArray[np.int32] = np.empty((0, 4), np.int32)
        """The same in columns, with the index of the map's name at each position."""
        self.functions: list[str | None] = []
        self.by: list[str | None] = []
        self.inlined: dict[int, Sequence[sourcemap.OriginalFrame]] = {}


class JavaScript:
    """Maps frames. Keeps what it worked out of the last bundles. Safe to use from several threads."""

    def __init__(self, scripts: Scripts, lines: int = 5) -> None:
        self._scripts = scripts
        self._around = lines
        self._bundles: OrderedDict[Wanted, Bundle] = OrderedDict()
        self._held: list[Bundle] = []
        self._asked = 0
        self._unasked = Bundle("", Found(problem=f"not looked for: the crash has more than {_MOST_SCRIPTS} scripts"))
        self._lock = threading.Lock()

    def apply(self, stacks: Sequence[list[Frame]]) -> list[Diagnostic]:
        """Map frames of stacks, innermost first, in place; return what is to be said of those that were not mapped.

        Frames name their script in ``abs_path``, ``debug_id`` and ``details["chunk_id"]``. Columns count from 1 unless
        ``details["column_is_0based"]`` says otherwise.
        """
        with self._lock:
            try:
                return self._apply(stacks)
            finally:
                for bundle in self._held:
                    bundle.release()
                self._held.clear()

    def _apply(self, stacks: Sequence[list[Frame]]) -> list[Diagnostic]:
        groups = self._grouped(stacks)
        for group in groups:
            if group.table is not None:
                _look_up(group, group.table)
        _name_by_calls([group for group in groups if group.table is not None])
        for group in groups:
            if group.table is not None:
                _fill(group, group.table, self._around)
        inlined = {id(g.frames[at]): (g, at) for g in groups for at in g.inlined if g.places[at] is not None}
        if inlined:
            for stack in stacks:
                stack[:] = [f for frame in stack for f in _expanded(frame, inlined.get(id(frame)), self._around)]
        return _diagnostics(groups)

    def _grouped(self, stacks: Sequence[list[Frame]]) -> list[_Group]:
        groups: dict[tuple[int, int], _Group] = {}
        self._asked = 0
        plain: dict[tuple[str | None, str | None], _Group] = {}
        _separate(stacks)
        for stack in stacks:
            before: _Group | None = None
            for frame in stack:
                line = frame.lineno
                group = plain.get((frame.abs_path, frame.debug_id)) if frame.details is None else None
                if group is not None and line is not None:
                    column = frame.colno
                    line -= 1
                    column = -1 if column is None else column - 1 if column > 0 else 0
                elif is_mappable(frame):
                    group, line, column = self._locate(frame, groups)
                    if frame.details is None:
                        plain[frame.abs_path, frame.debug_id] = group
                else:
                    if before is not None:
                        before.callers[len(before.frames) - 1] = None
                        before = None
                    continue
                if before is not group and before is not None:
                    before.callers[len(before.frames) - 1] = group, len(group.frames)
                before = group
                group.frames.append(frame)
                group.lines.append(line)
                group.columns.append(column)
            if before is not None:
                before.callers[len(before.frames) - 1] = None
        for group in groups.values():
            unknown = _NO_MODULE if group.table is None and group.bundle.table is not None else None
            group.why = [unknown] * len(group.frames)
        return list(groups.values())

    def _bundle(self, wanted: Wanted) -> Bundle:
        bundle = self._bundles.get(wanted)
        if bundle is None:
            self._asked += 1
            if self._asked > _MOST_SCRIPTS:
                return self._unasked
            bundle = self._bundles[wanted] = Bundle(wanted.url, self._scripts.find(wanted))
            if len(self._bundles) > _KEPT:
                self._bundles.popitem(last=False)
        self._bundles.move_to_end(wanted)
        if bundle.table is None:
            bundle.hold()
            self._held.append(bundle)
        return bundle

    def _locate(self, frame: Frame, groups: dict[tuple[int, int], _Group]) -> tuple[_Group, int, int]:
        """Return the group of a frame, and its position in the map."""
        details = frame.details or {}
        bundle = self._bundle(Wanted(frame.abs_path or "", frame.debug_id, details.get("chunk_id")))
        line = (frame.lineno or 0) - 1
        column = -1
        if frame.colno is not None:
            column = max(0, frame.colno if details.get("column_is_0based") else frame.colno - 1)
        if "wasm_offset" in details:
            line, column = 0, details["wasm_offset"]
        table = bundle.table
        if not details.keys().isdisjoint({"ram_module", "ram_segment"}):
            if table is None:
                others = (self._bundle(Wanted(name)) for name in _RAM_BUNDLES)
                bundle = next((other for other in others if other.table is not None), bundle)
            table, first = _ram_module(bundle, details.get("ram_module"), details.get("ram_segment", 0))
            line += first
        if "hermes_function" in details and table is not None:
            line = details["hermes_segment"]
            at = sourcemap.bytecode_column(table, line, details["hermes_function"], details["hermes_offset"])
            table, column = (None, -1) if at is None else (table, at)
        key = id(bundle), id(table)
        if key not in groups:
            groups[key] = _Group(bundle, table)
        return groups[key], line, column


def _ram_module(bundle: Bundle, module: int | None, segment: int) -> tuple[SourceMapTable | None, int]:
    """Return the map of a segment or RAM bundle, None where it has none, and the line where a module of it begins."""
    table = bundle.segment(segment) if segment else bundle.table
    if table is None or module is None:
        return table, 0
    first = sourcemap.module_line(table, module)
    if first is None:
        # Where a map has no modules, a file whose name is a number is just a file.
        return (table, 0) if not _is_ram(table) else (None, 0)
    return table, first


def _is_ram(table: SourceMapTable) -> bool:
    return "x_facebook_offsets" in table.info["extra"]


# -- positions --------------------------------------------------------------------------------------------------------


def _look_up(group: _Group, table: SourceMapTable) -> None:
    """Find the original places and functions of a group."""
    bundle = group.bundle
    lines, columns = np.array(group.lines, np.int64), np.array(group.columns, np.int64)
    found = positions.look_up(table, lines, np.where(columns < 0, _WHOLE_LINE, columns))
    mapped = found.state == MAPPED
    group.functions = [None] * len(lines)
    group.by = [None] * len(lines)
    for at in np.flatnonzero(~mapped).tolist():
        group.why[at] = _STATES[int(found.state[at])]
    is_text = bundle.has_script and not sourcemap.is_bytecode(table) and table is bundle.table
    if is_text and not _is_ram(table):
        _check_text(group, mapped, lines, columns)
    for at in np.flatnonzero(mapped & (columns < 0)).tolist():
        place = only_line(table, group.lines[at])
        if place is None:
            mapped[at] = False
            group.why[at] = _NO_COLUMN
        else:
            found.place[at] = place
            found.place[at, 3] = -1
    group.place = found.place
    group.places = found.place[:, :3].tolist()
    for at in np.flatnonzero(~mapped).tolist():
        group.places[at] = None
    chosen = np.flatnonzero(mapped)
    _name_by_map(group, table, chosen.tolist(), found.place)
    if is_text:
        rest = np.array([at for at in chosen.tolist() if group.by[at] is None], np.int64)
        _name_by_script(group, rest, lines[rest], columns[rest], found)


def _check_text(group: _Group, mapped: Any, lines: Any, columns: Any) -> None:
    """Take back places that are not in the script: a map answers for whatever lies behind its last mapping."""
    text = group.bundle.text
    beyond = lines >= len(text)
    for at in np.flatnonzero(beyond).tolist():
        group.why[at] = _PAST_FILE
    here = np.flatnonzero(mapped & ~beyond)
    outside = here[columns[here] > text.widths(lines[here])]
    for at in outside.tolist():
        group.why[at] = _PAST_END
    mapped[outside] = False
    mapped &= ~beyond


# -- names ------------------------------------------------------------------------------------------------------------


def _name_by_map(group: _Group, table: SourceMapTable, chosen: Iterable[int], place: Any) -> None:
    """Name functions by what the map itself says of them."""
    if len(sourcemap.scopes(table).ranges):
        for at in chosen:
            here = group.places[at]
            assert here is not None
            frames = sourcemap.frames_at(table, group.lines[at], max(0, group.columns[at]), (here[0], here[1], here[2]))
            if frames:
                group.functions[at], group.by[at] = frames[0].name, "scopes"
                if len(frames) > 1:
                    group.inlined[at] = frames[1:]
    functions = sourcemap.functions(table)
    if not len(functions.at):
        return
    names = positions.look_up_functions(functions, place).tolist()
    for at in chosen:
        here, index = group.places[at], names[at]
        if group.by[at] is None and index >= 0 and here is not None and (said := functions.name(index)):
            group.functions[at] = said
            group.by[at] = "facebook" if functions.origin[here[0]] == 1 else "bloomberg"


def _name_by_script(
    group: _Group,
    chosen: NDArray[np.int64],
    lines: NDArray[np.int64],
    columns: NDArray[np.int64],
    found: positions.Positions,
) -> None:
    """Name functions by the text of the script, and by their sources' where that has no name of theirs."""
    if not len(chosen):
        return
    bundle = group.bundle
    scopes = bundle.scopes.around(lines, np.maximum(columns, 0))
    functions, of = np.unique(scopes, return_inverse=True)
    names = bundle.names(functions.tolist())
    for at, name in zip(chosen.tolist(), [names[i] for i in of.tolist()], strict=True):
        if name is not None:
            group.functions[at], group.by[at] = name.text, "script"
    for at in chosen[scopes < 0].tolist():
        # Code outside of functions: no call leads there that says more than the engine does.
        group.functions[at], group.by[at] = group.frames[at].function, "engine"
    # Without any name in the map, the script's names stay what a minifier made of them.
    untold = bundle.table is not None and not len(bundle.table.names)
    asks = np.array([name is None or untold or name.mangled for name in names])
    asking = (scopes >= 0) & asks[of] & (columns >= 0)
    nameless = chosen[asking]
    if not len(nameless):
        return
    places = positions.Positions(found.segment[nameless], found.place[nameless], found.state[nameless])
    said = bundle.source_names(columns[asking], scopes[asking], places)
    for at, text in zip(nameless.tolist(), said, strict=True):
        if text is not None:
            group.functions[at], group.by[at] = text, "source"


def _name_by_calls(groups: Sequence[_Group]) -> None:
    """Name functions that have no name of their own by what is called in the frame below."""
    asked: dict[int, tuple[_Group, list[tuple[_Group, int, int]]]] = {}
    for group in groups:
        nameless = [at for at, name in enumerate(group.functions) if name in _USELESS and group.by[at] != "engine"]
        for at in nameless:
            caller = group.callers.get(at, (group, at + 1))
            if caller is not None and group.places[at] is not None and _tells_call(*caller):
                asked.setdefault(id(caller[0]), (caller[0], []))[1].append((group, at, caller[1]))
    for called_in, wanted in asked.values():
        lines, columns = ([of[below] for *_, below in wanted] for of in (called_in.lines, called_in.columns))
        names = called_in.place[[below for *_, below in wanted], 3]
        for (group, at, _), name in zip(wanted, called_in.bundle.called(lines, columns, names), strict=True):
            if name is not None and name not in _INDIRECT:
                group.functions[at], group.by[at] = name, "caller"


def _tells_call(group: _Group, at: int) -> bool:
    """Tell whether a frame's position is that of a call, with a map at hand."""
    if group.table is None or group.table is not group.bundle.table or group.places[at] is None:
        return False
    # An asynchronous caller's position is where it waits.
    details = group.frames[at].details
    return group.columns[at] >= 0 and not (details and "is_async" in details)


# -- frames -----------------------------------------------------------------------------------------------------------


def _fill(group: _Group, table: SourceMapTable, around: int) -> None:
    """Make the frames of a group those of their original places."""
    bundle = group.bundle
    map_name, map_by = bundle.found.map_name, bundle.found.key
    sources = bundle.sources(table, group.place[:, 0])
    contexts = bundle.contexts(table, group.place, around) if around >= 0 else repeat(None)
    for frame, place, function, by, column, source, context in zip(
        group.frames, group.places, group.functions, group.by, group.columns, sources, contexts, strict=False
    ):
        if place is None:
            continue
        reported = frame.function
        if reported and function in _USELESS and by not in _OF_CALLS:
            function, by = reported, "engine"  # noqa: PLW2901
        origin: dict[str, Any] = {"abs_path": frame.abs_path, "lineno": frame.lineno}
        if frame.colno is not None:
            origin["colno"] = frame.colno
        if reported is not None:
            origin["function"] = frame.raw_function = reported
        if by is not None:
            origin["function_from"] = by
        origin["map"] = map_name
        origin["map_by"] = map_by
        details = frame.details
        if details is not None and "column_is_0based" in details:
            origin["column_is_0based"] = True
            frame.details = {k: v for k, v in details.items() if k != "column_is_0based"} or None
        frame.origin = origin
        _place(frame, source, function, place, context)
        if column < 0:
            frame.colno = None


def _place(frame: Frame, source: Source, function: str | None, place: Sequence[int], context: Context | None) -> None:
    frame.status = "symbolicated" if function or source.path else "missing_symbol"
    frame.function = function or None
    frame.filename = source.filename
    frame.abs_path = source.abs_path
    frame.lineno = place[1] + 1
    frame.colno = place[2] + 1
    frame.in_app = source.in_app
    if context is not None:
        frame.pre_context, frame.context_line, frame.post_context = context


def _expanded(frame: Frame, inlined: tuple[_Group, int] | None, around: int) -> list[Frame]:
    """Return a frame and those that it is inlined into."""
    frames = [frame]
    if inlined is not None:
        group, at = inlined
        assert group.table is not None
        for outer in group.inlined[at]:
            frames.append(msgspec.structs.replace(frame))
            place = outer.source, outer.line, outer.column
            context = group.bundle.context(group.table, *place, around) if around >= 0 else None
            _place(frames[-1], group.bundle.source(group.table, outer.source), outer.name, place, context)
        for inner in frames[:-1]:
            inner.inline = True
    return frames


def _diagnostics(groups: Iterable[_Group]) -> list[Diagnostic]:
    """Say of every frame that was not mapped why, on the frame and once for all of a script's."""
    said: dict[tuple[str, str], tuple[Diagnostic, dict[str, Any]]] = {}
    for group in groups:
        found = group.bundle.found
        for at, frame in enumerate(group.frames):
            if group.places and group.places[at] is not None:
                continue
            why = group.why[at]
            state, message = why or (found.state, found.problem or "no source map was found")
            key = ((frame.abs_path or "") if group.bundle.url else "further scripts", state)
            if key not in said:
                note: dict[str, Any] = {"state": state, "message": message}
                if why is None:
                    note["looked_for"] = list(found.tried)
                else:
                    note["map"] = found.map_name
                where: dict[str, str | int] = {"script": key[0], "state": state, "frames": 0}
                code = _CODES.get(state, "sourcemap_missing" if why is None else "sourcemap_unmapped")
                said[key] = (
                    Diagnostic(
                        code=code,
                        severity="warning" if state in _CODES else "info",
                        stage="symbolicate",
                        message=f"{key[0][:200]}: {message}",
                        where=where,
                    ),
                    {"source_map": note},
                )
            diagnostic, shared = said[key]
            assert diagnostic.where is not None
            diagnostic.where["frames"] = int(diagnostic.where["frames"]) + 1
            frame.details = shared if frame.details is None else {**frame.details, **shared}
    return [diagnostic for diagnostic, _ in said.values()][:_MOST_DIAGNOSTICS]
