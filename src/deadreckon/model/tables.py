"""The columns that kernels work on: SymTable, RuleTable, FrameTable and SourceMapTable.

Addresses in SymTable and RuleTable are relative to the module's preferred base (``rva``), u32. A table is valid for
one debug id; ``symbols/tablefile.py`` stores it as one mapped file.

RuleTable. An unwind rule says how to get the caller's registers at an address::

    CFA   = reg + offset                           CFA_REG
          | expression                             CFA_EXPR
          | *(reg + offset)  + adjust              CFA_DEREF   (Apple compact unwind, EHABI never)
    reg'  = *(CFA + n) | CFA + n | reg | *(expr) | expr | undefined      the REG_* kinds

Every unwind format lowers to it. Rules repeat a lot (156,000 rows of a C library share 900 of them), so rows hold an
index into the distinct rules, and a rule holds a slice of ``saved``::

    rva  u32[n]  rule u32[n]     rows, sorted; the rule NO_RULE marks a gap
    rules i32[r, 6]              cfa_kind, cfa_reg, cfa_offset, flags, saved_start, saved_count
    saved i32[s, 3]              register, kind, offset
    expr u8[e]                   DWARF expressions, each with its ULEB128 length before it
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "BEFORE_FIRST",
    "CALLEE_PARAMETERS",
    "CFA_EXPR",
    "CFA_NONE",
    "CFA_REG",
    "EMPTY_LINE",
    "END_OF_STACK",
    "MAPPED",
    "NO_LINE",
    "NO_RULE",
    "REG_EXPR",
    "REG_OFFSET",
    "REG_REGISTER",
    "REG_SAME",
    "REG_UNDEFINED",
    "REG_VAL_EXPR",
    "REG_VAL_OFFSET",
    "SEARCHED_RA",
    "SIGNAL_FRAME",
    "TRUST_NAMES",
    "UNMAPPED",
    "CodeTable",
    "FrameTable",
    "FunctionTable",
    "LineTable",
    "RuleTable",
    "ScopeTable",
    "SourceMapTable",
    "SymTable",
    "distinct",
    "json_text",
]

_Scalar = TypeVar("_Scalar", np.uint32, np.int64)

NO_RULE = 0xFFFF_FFFF
NONE = 0xFFFF_FFFF
"""The reference to nothing, in every u32 index column."""

CFA_NONE, CFA_REG, CFA_EXPR = 0, 1, 2
REG_SAME, REG_UNDEFINED, REG_OFFSET, REG_VAL_OFFSET, REG_REGISTER, REG_EXPR, REG_VAL_EXPR = range(7)
SIGNAL_FRAME = 1
"""Rule flag: the frame above was interrupted, not called, so its pc is exact (augmentation ``S``)."""
END_OF_STACK = 2
"""Rule flag: the return address is undefined; no caller exists."""
SIGNED_RA = 4
"""Rule flag: the return address carries a pointer-authentication code (ARM64)."""
SEARCHED_RA = 8
"""Rule flag: the return address may lie up to three words further up (Windows' ``.raSearch``)."""
CALLEE_PARAMETERS = 9
"""A register that x86 hasn't: the size of the arguments of the function that was called last, in rules of Windows."""

LANGUAGES = ("", "c", "cpp", "d", "go", "objc", "objcpp", "rust", "swift", "csharp", "visualbasic", "fsharp")
"""Language of a function by symbolic's number."""

TRUST_NAMES = ("none", "scan", "cfi_scan", "frame_pointer", "cfi", "context", "prewalked")
"""Trust levels, by their number in FrameTable.trust."""
TRUST_NONE, TRUST_SCAN, TRUST_CFI_SCAN, TRUST_FP, TRUST_CFI, TRUST_CONTEXT, TRUST_PREWALKED = range(7)


def distinct(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return the values once each, in order; numpy's ``unique`` hashes them first, which takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


@dataclass(slots=True)
class RuleTable:
    """Unwind rules of one module; see the module's docstring for the columns."""

    rva: NDArray[np.uint32]
    rule: NDArray[np.uint32]
    rules: NDArray[np.int32]
    saved: NDArray[np.int32]
    expr: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> RuleTable:
        """Return a table that covers nothing."""
        return cls(
            np.zeros(0, np.uint32),
            np.zeros(0, np.uint32),
            np.zeros((0, 6), np.int32),
            np.zeros((0, 3), np.int32),
            np.zeros(0, np.uint8),
        )


@dataclass(slots=True)
class SymTable:
    """Functions, files and lines of one module, whatever they came from.

    ``range_start`` u32[n] sorted; ``range_loc`` u32[n] index into ``locations`` or NONE for a gap.
    ``locations`` u32[m, 4]: file, line (0 unknown), function, inlined_into (a location, or NONE).
    ``functions`` u32[f, 3]: name (string), entry rva (NONE for inlined ones), language.
    ``files`` u32[k, 3]: compilation directory, directory, name (strings or NONE).
    ``strings`` u8: each string is its ULEB128 length and then UTF-8; a reference is the offset of the length.
    ``base`` u32[b, 2]: start and end of functions above which no caller exists (``_start``, ``clone`` ...).
    ``text`` u32[t, 2]: start and end of the executable sections, empty where they are not known.
    ``entries`` u32[e]: where functions start, sorted; a word on a stack that equals one is a function pointer.
    """

    range_start: NDArray[np.uint32]
    range_loc: NDArray[np.uint32]
    locations: NDArray[np.uint32]
    functions: NDArray[np.uint32]
    files: NDArray[np.uint32]
    strings: NDArray[np.uint8]
    base: NDArray[np.uint32]
    text: NDArray[np.uint32]
    entries: NDArray[np.uint32]

    @classmethod
    def empty(cls) -> SymTable:
        """Return a table that names nothing."""
        none = np.zeros(0, np.uint32)
        return cls(
            none,
            none,
            np.zeros((0, 4), np.uint32),
            np.zeros((0, 3), np.uint32),
            np.zeros((0, 3), np.uint32),
            np.zeros(0, np.uint8),
            np.zeros((0, 2), np.uint32),
            np.zeros((0, 2), np.uint32),
            none,
        )

    def string(self, ref: int) -> str:
        """Return the string at a reference, empty for NONE and for a reference outside the table."""
        data = self.strings
        end = len(data)
        length = shift = 0
        at = ref
        while at < end and shift < 35:
            byte = int(data[at])
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return data[at : at + length].tobytes().decode("utf-8", "replace")
        return ""


@dataclass(slots=True)
class CodeTable:
    """A module's instructions, for reports that hold none: the contents of its executable sections.

    ``data`` u8[n]; ``map`` u32[s, 3]: each section's rva, size and offset in ``data``, sorted.
    """

    data: NDArray[np.uint8]
    map: NDArray[np.uint32]

    @classmethod
    def empty(cls) -> CodeTable:
        """Return a table without code."""
        return cls(np.zeros(0, np.uint8), np.zeros((0, 3), np.uint32))

    def read(self, rva: int, size: int) -> bytes | None:
        """Return instructions, None where the table does not hold all of them."""
        at = int(np.searchsorted(self.map[:, 0], rva, side="right")) - 1
        if at < 0:
            return None
        start, length, offset = self.map[at].tolist()
        if rva + size > start + length:
            return None
        return self.data[offset + rva - start : offset + rva - start + size].tobytes()

    @classmethod
    def gather(cls, file: bytes | memoryview, sections: Iterable[tuple[int, int, int]]) -> CodeTable:
        """Copy sections, each an (rva, size, offset in the file), out of an image; those outside of it are cut."""
        rows: list[tuple[int, int, int]] = []
        parts: list[NDArray[np.uint8]] = []
        at = 0
        for rva, size, offset in sorted(sections):
            end = rows[-1][0] + rows[-1][1] if rows else 0
            if not end <= rva <= NONE or not 0 <= offset < len(file):
                continue
            part = np.frombuffer(file, np.uint8, min(size, len(file) - offset, NONE - rva), offset)
            rows.append((rva, len(part), at))
            parts.append(part.copy())
            at += len(part)
        return cls(np.concatenate([np.zeros(0, np.uint8), *parts]), np.array(rows, np.uint32).reshape(-1, 3))


@dataclass(slots=True)
class FrameTable:
    """Frames of all threads of one or many crashes, innermost first within a thread.

    ``thread`` i32, ``instruction_addr`` u64 (exact, never adjusted), ``is_return_address`` bool (look up the address
    before), ``module`` i32 (-1 for none), ``trust`` u8.
    """

    thread: NDArray[np.int32]
    instruction_addr: NDArray[np.uint64]
    stack_pointer: NDArray[np.uint64]
    is_return_address: NDArray[np.bool_]
    module: NDArray[np.int32]
    trust: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.thread)

    @classmethod
    def empty(cls) -> FrameTable:
        """Return a table without frames."""
        return cls(
            np.zeros(0, np.int32),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.bool_),
            np.zeros(0, np.int32),
            np.zeros(0, np.uint8),
        )

    @classmethod
    def concatenate(cls, tables: Sequence[FrameTable]) -> FrameTable:
        """Return the frames of several tables, in order."""
        return cls(*(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(cls)))


MAPPED, UNMAPPED, BEFORE_FIRST, EMPTY_LINE, NO_LINE = range(5)
"""What a look-up of a generated position meets: a segment with a source; one without (code that the generator made);
columns before the line's first segment; a line without segments; a line after the last one that has any."""


def json_text(raw: bytes) -> str | None:
    """Return the text that a JSON string stands for, None where the bytes are no JSON string.

    A lone surrogate (half an escaped pair, seen in tables of emoji) becomes U+FFFD, and so does what is not UTF-8.
    """
    if raw[:1] != b'"':
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            text = json.loads(raw.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None
    if not isinstance(text, str):
        return None
    # A pair that was escaped in halves around a replaced one stays a pair.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass(slots=True)
class FunctionTable:
    """Names of functions by original position: from which position on, in each source, which name holds.

    ``first`` u32[s + 1]: the rows of source i are ``first[i]:first[i + 1]``. ``at`` i32[f, 3], ascending in a source:
    line and column (both 0-based) and a name's index, -1 where no function is known. ``origin`` u8[s]: who said so
    (0 nobody, 1 ``x_facebook_sources``, 2 ``x_com_bloomberg_sourcesFunctionMappings``). ``names`` u32[q, 2] are spans
    of JSON strings in ``text``.
    """

    first: NDArray[np.uint32]
    at: NDArray[np.int32]
    origin: NDArray[np.uint8]
    names: NDArray[np.uint32]
    text: NDArray[np.uint8]

    @classmethod
    def empty(cls, sources: int) -> FunctionTable:
        """Return a table that names nothing."""
        return cls(
            np.zeros(sources + 1, np.uint32),
            np.zeros((0, 3), np.int32),
            np.zeros(sources, np.uint8),
            np.zeros((0, 2), np.uint32),
            np.zeros(0, np.uint8),
        )

    def name(self, index: int) -> str | None:
        """Return the name of an index in ``at``, None for one that stands for no name."""
        return _text_at(self.text, self.names, index)


@dataclass(slots=True)
class ScopeTable:
    """The scopes proposal's two forests, each in pre-order; -1 stands for null, lines and columns are 0-based.

    ``scopes`` i32[q, 9]: source, start line, start column, end line, end column, name, kind (indices into the map's
    names), flags (bit 2: a stack frame), parent (a row, -1 for a root).
    ``variables`` i32[v, 2]: scope, name. ``ranges`` i32[r, 10]: start line, start column, end line, end column (of the
    generated file), scope, flags (bit 2: a function, bit 3: hidden), parent, call site's source, line and column.
    ``bindings`` i32[b, 5]: range, variable (its place in the scope's list), from line, from column, name.
    """

    scopes: NDArray[np.int32]
    variables: NDArray[np.int32]
    ranges: NDArray[np.int32]
    bindings: NDArray[np.int32]

    @classmethod
    def empty(cls) -> ScopeTable:
        """Return a table without scopes."""
        return cls(*(np.zeros((0, width), np.int32) for width in (9, 2, 10, 5)))


@dataclass(slots=True)
class LineTable:
    """Where the lines of each source begin in the map's ``text``.

    ``starts[first[i]:first[i + 1]]`` u32 are those of source i, and at last the end of its content; a source without
    content has none.
    """

    first: NDArray[np.uint32]
    starts: NDArray[np.uint32]


@dataclass(slots=True)
class SourceMapTable:
    """A source map (ECMA-426), whatever its form: regular, indexed, of Hermes bytecode. All numbers are 0-based.

    Positions. The generated lines that have segments are ``lines`` u32[k], ascending; those of ``lines[i]`` are the
    rows ``first[i]:first[i + 1]`` (``first`` u32[k + 1]) of ``column`` i32[n] (generated column in UTF-16 units,
    ascending within a line, in the map's order where equal) and of ``place`` i32[n, 4]: source, original line, original
    column, name. A source of -1 is a segment without one, a name of -1 no name. ``ranged`` u8[n] tells range mappings,
    and is empty where there are none. ``kernels.positions.look_up`` answers from these.

    Texts. ``sources``, ``roots`` (the sourceRoot that goes before it), ``contents`` u32[s, 2] and ``names`` u32[m, 2]
    are spans (start, end) of JSON strings, quotes included, in ``text`` u8: the map's own bytes, in which nothing is
    decoded before it is asked for. An empty span is null. ``ignored`` u8[s] tells sources of others (ignoreList).

    ``info``: ``file``, ``debug_id`` (canonical), ``chunk_id``, ``problems`` (what was left out, in words),
    ``sections``, and where further fields lie (``objects.sourcemap.extra``). ``functions``, ``scopes`` and
    ``source_lines`` are None until ``objects.sourcemap`` is asked for them; a stored table has them.
    """

    lines: NDArray[np.uint32]
    first: NDArray[np.uint32]
    column: NDArray[np.int32]
    place: NDArray[np.int32]
    ranged: NDArray[np.uint8]
    sources: NDArray[np.uint32]
    roots: NDArray[np.uint32]
    contents: NDArray[np.uint32]
    ignored: NDArray[np.uint8]
    names: NDArray[np.uint32]
    text: NDArray[np.uint8]
    info: dict[str, Any] = field(default_factory=dict)
    functions: FunctionTable | None = None
    scopes: ScopeTable | None = None
    source_lines: LineTable | None = None
    decoded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What was asked for before, kept by those who decoded it."""

    def __len__(self) -> int:
        return len(self.column)

    def name(self, index: int) -> str | None:
        """Return the name of an index in ``place``, None for -1; what is no text in the map is the empty name."""
        if not 0 <= index < len(self.names):
            return None
        return _text_at(self.text, self.names, index) or ""

    def source(self, index: int) -> str | None:
        """Return a source as the map spells it, without sourceRoot; None for -1, null and what is no text."""
        return _text_at(self.text, self.sources, index)

    def root(self, index: int) -> str | None:
        """Return the sourceRoot of a source."""
        return _text_at(self.text, self.roots, index)


def _text_at(text: NDArray[np.uint8], spans: NDArray[np.uint32], index: int) -> str | None:
    if not 0 <= index < len(spans):
        return None
    start, end = spans[index].tolist()
    return json_text(text[start:end].tobytes())
