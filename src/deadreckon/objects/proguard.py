"""ProGuard and R8 mapping files: from a renamed class, method and line to the frames that the source has there.

Specifications: ProGuard manual, "ReTrace"; R8 ``doc/retrace.md``, "R8, Retrace and map file versioning". A class starts
at column 0, its members are indented, and lines that start with ``#`` are comments, some of which hold JSON about what
stands before them::

    original.Class -> a.b:
    # {"id":"sourceFile","fileName":"Class.kt"}
        1:3:void original.Other.inlined(int):10:12 -> a
        1:3:void caller():7 -> a

A member is ``[first:last:]type [class.]name(types)[:original[:last original]] -> renamed``. Entries of one method that
follow each other with the same range are one chain of inlined calls, innermost first; the last of them is the method
that was really there.

A mapping has hundreds of thousands of lines and a stack a few dozen frames, so only the classes are found when it is
opened, and a class is read when it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import NAMESPACE_DNS, UUID, uuid5

from deadreckon.errors import LimitExceeded, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from mmap import mmap

__all__ = ["Identity", "Mapping", "Outline", "Position", "Rewrite", "debug_id", "identify"]

_NAMESPACE = uuid5(NAMESPACE_DNS, "guardsquare.com")
_HEAD_BYTES = 65_536
_MAX_CLASSES = 2_000_000
_MAX_CLASS_BYTES = 32 << 20
_MAX_MEMBERS = 100_000
"""Entries read of one class; R8's largest have some ten thousand."""
_MAX_POSITIONS = 256
"""Positions given for one frame, inlined calls and alternatives together."""
_MAX_EXPANDED = 64
"""Lines of a span that are listed one by one where only the span is known."""
_CATCH_ALL = (0, 0xFFFF)
"""R8's range for methods whose lines it dropped."""
_SYNTHETIC = "R8$$SyntheticClass"
"""R8's source file of classes that no source file has."""
_LANGUAGES = (".java", ".kt", ".scala", ".groovy")
_KOTLIN_SINGLETONS = "ComposableSingletons$"
"""The Compose compiler puts the lambdas of Screen.kt into ``ComposableSingletons$ScreenKt``."""

_CLASS = re.compile(rb"^([^\s#][^\r\n]*?) -> ([^\s:]+):", re.MULTILINE)
_MAP_ID = re.compile(rb"^#\s*pg_map_(id|hash):[^\S\n]*(?:SHA-256[^\S\n]+)?([0-9A-Za-z]{4,128})[^\S\n]*$", re.MULTILINE)
_THROWS = re.compile(r"throws\(L([^;()]+);\)")
_REMOVE = re.compile(r"removeInnerFrames\((\d{1,6})\)")
_DESCRIPTOR = re.compile(r"L([^;()]+);([^(;]+)\(")


class Position(NamedTuple):
    """One frame in the source. ``line`` and ``file`` are None where the mapping doesn't tell them."""

    class_name: str
    method: str
    file: str | None
    line: int | None
    inline: bool = False
    """It was inlined into the next position of its chain."""
    synthesized: bool = False
    """The compiler made it; no source has it."""


class Rewrite(NamedTuple):
    """Which innermost frames go where an exception of one of these classes was thrown: a check that R8 moved."""

    thrown: frozenset[str]
    remove: int


class Outline(NamedTuple):
    """Where the code of a method that R8 moved into a shared one stood: which method that is, and its line."""

    class_name: str
    method: str
    line: int


class Identity(NamedTuple):
    """What names a mapping: its UUID and the ids that R8 wrote into it, the longest first."""

    debug_id: str
    map_ids: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """A member that is a method. ``first`` is None without a range, ``original`` where no line of the source is named.

    ``positions`` leads from a line of an outline to the line here that stands for it.
    """

    first: int | None
    last: int
    class_name: str
    method: str
    types: str
    original: int | None
    original_last: int | None
    rewrites: list[Rewrite] = field(default_factory=list)
    positions: dict[int, int] | None = None
    outline: tuple[str, str] | None = None

    @property
    def range(self) -> tuple[int, int] | None:
        return None if self.first is None else (self.first, self.last)

    @property
    def ranged(self) -> bool:
        """Whether the entry is for some lines only; 0:0 is for code without lines."""
        return self.first is not None and self.last > 0 and self.range != _CATCH_ALL

    @property
    def key(self) -> tuple[str, str, str]:
        return self.class_name, self.method, self.types


@dataclass(slots=True)
class _Class:
    """A class as far as its frames need it. ``synthesized`` and ``outlines`` hold keys of methods."""

    original: str
    source_file: str | None = None
    is_synthesized: bool = False
    methods: dict[str, list[_Entry]] = field(default_factory=dict)
    synthesized: set[tuple[str, str, str]] = field(default_factory=set)
    outlines: set[tuple[str, str, str]] = field(default_factory=set)


def debug_id(data: bytes | memoryview | mmap) -> str:
    """Return the UUID by which a mapping is known: version 5, of its bytes, in the name space of guardsquare.com.

    That is Sentry's convention; a mapping with other line ends has another one.
    """
    state = hashlib.sha1(_NAMESPACE.bytes, usedforsecurity=False)
    state.update(data)
    return str(UUID(bytes=state.digest()[:16], version=5))


def identify(data: bytes | memoryview | mmap) -> Identity:
    """Return a mapping's UUID, and what R8 wrote as ``pg_map_hash`` and ``pg_map_id``."""
    head = bytes(data[:_HEAD_BYTES])
    found = {match[2].decode().lower() for match in _MAP_ID.finditer(head)}
    return Identity(debug_id(data), tuple(sorted(found, key=lambda text: (-len(text), text))))


class Mapping:
    """A mapping over ``data``, which must stay open. Raises LimitExceeded for one of too many classes."""

    def __init__(self, data: bytes | memoryview | mmap) -> None:
        self._data = data
        self._classes: dict[str, list[tuple[str, int]]] = {}
        self._renamed: dict[str, str] = {}
        self._read: dict[str, _Class | None] = {}
        self._ends: dict[int, int] = {}
        previous = -1
        for number, match in enumerate(_CLASS.finditer(data)):
            if number >= _MAX_CLASSES:
                raise LimitExceeded("mapping classes", _MAX_CLASSES)
            original, renamed = (match[i].decode("utf-8", "replace").strip() for i in (1, 2))
            self._classes.setdefault(renamed, []).append((original, match.end()))
            self._renamed.setdefault(original, renamed)
            self._ends[previous] = match.start()
            previous = match.end()
        self._ends[previous] = len(data)

    def __len__(self) -> int:
        return len(self._classes)

    def class_name(self, renamed: str) -> str | None:
        """Return a class's original name, None for one that isn't in the mapping."""
        found = self._classes.get(renamed)
        return found[-1][0] if found else None

    def has_lines(self) -> bool:
        """Tell whether any member of the first classes has lines."""
        head = bytes(self._data[: _HEAD_BYTES * 16])
        return re.search(rb"^\s+\d+:\d+:", head, re.MULTILINE) is not None

    # -- frames --------------------------------------------------------------------------------------------------------

    def positions(
        self, class_name: str, method: str, line: int | None, *, file: str | None = None, thrown: Iterable[str] = ()
    ) -> list[list[Position]] | None:
        """Return what a frame may stand for: alternatives, each a chain of inlined calls, innermost first.

        ``line`` and ``file`` are the frame's own; None, or line 0, where it has none. ``thrown`` are the names of the
        exception that was thrown there, original and renamed, where that is known. An alternative may be empty: all of
        it was a check that the compiler moved there. None where the class isn't in the mapping; of a method that isn't,
        the class alone is told.

        Raises LimitExceeded for a class or a number of positions that is no compiler's.
        """
        known = self._class(class_name)
        if known is None:
            return None
        entries = known.methods.get(method)
        chains = _chosen(entries, line or 0) if entries else []
        if not chains:
            beside = file if file and file.endswith(_LANGUAGES) else None
            name = known.source_file if known.source_file not in {None, _SYNTHETIC} else None
            return [[Position(known.original, method, name or _file_of(known.original, beside), line or None)]]
        if sum(map(len, chains)) > _MAX_POSITIONS:
            raise LimitExceeded("mapping positions", _MAX_POSITIONS, what=f"{class_name}.{method}")
        names = frozenset(thrown)
        return [self._positions(known, chain, names) for chain in chains]

    def _positions(self, known: _Class, chain: _Chain, thrown: frozenset[str]) -> list[Position]:
        last = len(chain) - 1
        found = [
            Position(
                entry.class_name,
                entry.method,
                self._file(entry.class_name, known),
                line,
                inline=number < last,
                synthesized=entry.key in known.synthesized or (number == last and known.is_synthesized),
            )
            for number, (entry, line) in enumerate(chain)
        ]
        removed = sum(r.remove for entry, _ in chain for r in entry.rewrites if r.thrown <= thrown) if thrown else 0
        return found[removed:]

    def outline(self, class_name: str, method: str, line: int | None) -> Outline | None:
        """Return the position in shared code that a frame stands for, None where it stands for itself."""
        known = self._class(class_name)
        entries = known.methods.get(method) if known else None
        if known is None or not entries or not known.outlines:
            return None
        here = [e for e in entries if _holds(e, line or 0)] or entries
        return Outline(class_name, method, line or 0) if all(e.key in known.outlines for e in here) else None

    def outlined(self, class_name: str, method: str, line: int | None, outline: Outline) -> int | None:
        """Return the line of a frame that stands for the position in the outline it called, None where none does."""
        known = self._class(class_name)
        for entry in known.methods.get(method, ()) if known else ():
            if entry.positions is None or (entry.ranged and not _holds(entry, line or 0)):
                continue
            if entry.outline is None or entry.outline == (outline.class_name, outline.method):
                found = entry.positions.get(outline.line)
                if found is not None:
                    return found
        return None

    def _file(self, class_name: str, around: _Class) -> str | None:
        """Return the source file of a class: what the mapping says, else what its name says, as compilers have it."""
        own = around if class_name == around.original else self._class(self._renamed.get(class_name, ""))
        if own is None or own.original != class_name or own.source_file is None:
            return _file_of(class_name, around.source_file)
        return _simple(class_name) if own.source_file == _SYNTHETIC else own.source_file

    # -- the text ------------------------------------------------------------------------------------------------------

    def _class(self, renamed: str) -> _Class | None:
        if renamed not in self._read:
            self._read[renamed] = self._parse(renamed) if renamed in self._classes else None
        return self._read[renamed]

    def _parse(self, renamed: str) -> _Class:
        """Read a class; what is said of one name in several places counts together."""
        places = self._classes[renamed]
        found = _Class(places[-1][0])
        size = sum(self._ends[start] - start for _, start in places)
        if size > _MAX_CLASS_BYTES:
            raise LimitExceeded("mapping class bytes", _MAX_CLASS_BYTES, size, renamed)
        members = 0
        for original, start in places:
            current: _Entry | None = None
            in_class = True
            for line in bytes(self._data[start : self._ends[start]]).decode("utf-8", "replace").split("\n"):
                text = line.strip()
                if text.startswith("#"):
                    body = text[1:].strip()
                    if body.startswith("{"):
                        _note(found, current, body, in_class=in_class)
                    continue
                if " -> " not in text:
                    continue
                in_class = False
                if members >= _MAX_MEMBERS:
                    raise LimitExceeded("mapping members", _MAX_MEMBERS, what=renamed)
                try:
                    name, current = _member(text, original)
                except Malformed:
                    current = None
                    continue
                if current is not None:
                    members += 1
                    found.methods.setdefault(name, []).append(current)
        return found


# -- which entries are meant -------------------------------------------------------------------------------------------

_Chain = list[tuple[_Entry, int | None]]
"""Entries with their lines, innermost first."""


def _chosen(entries: list[_Entry], line: int) -> list[_Chain]:
    """Return the alternatives that a line (0: none) leaves of a method's entries; none where it is in no range."""
    runs = _runs(entries)
    if line and any(run[0].ranged for run in runs):
        return _unlike([(e, _line(e, line)) for e in run] for run in runs if run[0].ranged and _holds(run[0], line))
    without = [run for run in runs if not run[0].ranged]
    if without:
        return _without_range(without, line)
    # Without a line nothing tells which calls were inlined where the program was; the method itself is certain.
    outermost = {run[-1].key[:2]: run[-1] for run in runs}
    return [[(entry, None)] for entry in outermost.values()]


def _runs(entries: list[_Entry]) -> list[list[_Entry]]:
    """Divide entries where the range changes; each without a range is by itself."""
    runs = (list(group) for _, group in groupby(entries, lambda e: e.range))
    return [part for run in runs for part in ([run] if run[0].first is not None else [[e] for e in run])]


def _holds(entry: _Entry, line: int) -> bool:
    return entry.first is not None and entry.first <= line <= entry.last


def _line(entry: _Entry, line: int) -> int | None:
    """Return the line of the source that a line of a ranged entry was."""
    if entry.original is None:
        return line
    if entry.original_last in {None, entry.original}:
        return entry.original or None
    found = entry.original + line - (entry.first or 0)
    return found if 0 < found <= (entry.original_last or 0) else None


def _without_range(runs: list[list[_Entry]], line: int) -> list[_Chain]:
    """Return the alternatives among entries for code without lines (range 0:0), and without any range.

    Where the frame has no line and several methods are meant, a line of one of them would say too much.
    """
    found: list[_Chain] = []
    for run in runs:
        if run[0].first is not None:
            vague = not line and any(e.original_last not in {None, e.original} for e in run)
            found.append([(e, None if vague else e.original or None) for e in run])
    bare = [run[0] for run in runs if run[0].first is None]
    methods = {e.key[:2] for e in bare}
    if len(methods) == 1 and len(bare) > 1 and not line:
        return [*found, [(bare[0], None)]]
    for entry in sorted(bare, key=lambda e: e.original or 0):
        lines: list[int | None] = [line or None]
        if len(methods) > 1 and not line:
            lines = [None]
        elif entry.original is not None:
            span = range(entry.original, (entry.original_last or entry.original) + 1)
            lines = [n or None for n in span] if len(span) <= _MAX_EXPANDED else [None]
        found.extend([(entry, n)] for n in lines)
    return found


def _unlike(chains: Iterable[_Chain]) -> list[_Chain]:
    """Leave out alternatives that say the same as an earlier one."""
    return list({tuple((e.class_name, e.method, line) for e, line in chain): chain for chain in chains}.values())


# -- records -----------------------------------------------------------------------------------------------------------


def _member(text: str, around: str) -> tuple[str, _Entry | None]:
    """Read a member of the class ``around``: its new name, and the entry if it is a method."""
    left, _, renamed = text.rpartition(" -> ")
    head, bracket, tail = left.partition("(")
    if not bracket:
        return renamed, None
    types, _, lines = tail.partition(")")
    kind, space, qualified = head.strip().rpartition(" ")
    if not space or not qualified:
        raise Malformed("mapping member", expected="type and name", got=text[:80])
    class_name, _, method = qualified.rpartition(".")
    numbers, _, _ = kind.strip().rpartition(":")
    first, last = _range(numbers)
    original, original_last = _range(lines.lstrip(":"))
    if original is not None and ":" not in lines.lstrip(":"):
        original_last = None
    entry = _Entry(first, last or 0, class_name or around, method, types, original, original_last)
    return renamed.strip(), entry


def _range(text: str) -> tuple[int | None, int | None]:
    """Read ``first:last`` or one number; the ends may stand the wrong way round, as R8's retrace takes them."""
    parts = text.split(":") if text else []
    if not parts or len(parts) > 2 or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
        return None, None
    low, high = sorted((int(parts[0]), int(parts[-1])))
    return low, high


def _note(found: _Class, entry: _Entry | None, body: str, *, in_class: bool) -> None:
    """Take what a JSON comment says of the class, or of the member before it; what is unknown says nothing."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return
    kind = said.get("id") if isinstance(said, dict) else None
    if kind == "sourceFile" and found.source_file is None and isinstance(said.get("fileName"), str):
        found.source_file = said["fileName"] or None
    elif kind == "com.android.tools.r8.synthesized":
        if entry is not None:
            found.synthesized.add(entry.key)
        elif in_class:
            found.is_synthesized = True
    elif entry is None:
        return
    elif kind == "com.android.tools.r8.outline":
        found.outlines.add(entry.key)
    elif kind == "com.android.tools.r8.outlineCallsite":
        entry.positions = _callsite(said.get("positions"))
        match = _DESCRIPTOR.match(said["outline"]) if isinstance(said.get("outline"), str) else None
        entry.outline = (match[1].replace("/", "."), match[2]) if match else None
    elif kind == "com.android.tools.r8.rewriteFrame":
        rewrite = _rewrite(said.get("conditions"), said.get("actions"))
        if rewrite is not None:
            entry.rewrites.append(rewrite)


def _callsite(positions: Any) -> dict[int, int] | None:
    if not isinstance(positions, dict):
        return None
    pairs = ((key, value) for key, value in positions.items() if key.isascii() and key.isdigit() and len(key) < 10)
    return {int(key): value for key, value in pairs if isinstance(value, int)} or None


def _rewrite(conditions: Any, actions: Any) -> Rewrite | None:
    """Read a rule; one with a condition or an action that we don't know is none, since all of it must hold."""
    if not (isinstance(conditions, list) and isinstance(actions, list) and conditions and actions):
        return None
    thrown = [_THROWS.fullmatch(text.strip()) for text in conditions if isinstance(text, str)]
    removed = [_REMOVE.fullmatch(text.strip()) for text in actions if isinstance(text, str)]
    if len(thrown) != len(conditions) or len(removed) != len(actions) or None in thrown or None in removed:
        return None
    return Rewrite(
        frozenset(match[1].replace("/", ".") for match in thrown if match),
        sum(int(match[1]) for match in removed if match),
    )


# -- names of source files ---------------------------------------------------------------------------------------------


def _simple(class_name: str) -> str | None:
    """Return the name of the outermost class without its package."""
    name = class_name.rpartition(".")[2].removeprefix(_KOTLIN_SINGLETONS)
    return name.partition("$")[0] or None


def _file_of(class_name: str, beside: str | None) -> str | None:
    """Return the source file that a class's name implies; ``beside`` is a file whose language it shares."""
    name = _simple(class_name)
    if name is None:
        return None
    if name.endswith("Kt") and len(name) > 2:
        return f"{name[:-2]}.kt"
    suffix = beside.rpartition(".")[2] if beside and "." in beside else "java"
    return f"{name}.{suffix}"
