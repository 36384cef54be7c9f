"""Protocol Buffers' wire format, read as far as it goes.

A writer that crashed, ran out of room or was cut short leaves messages that a strict decoder refuses whole. Here a
string or message that is cut gives what there is of it, damage costs the rest of the message it is in and no more, and
required fields may be missing. Specification: Protocol Buffers Documentation, "Encoding".

Two ways to read: ``Wire.fields`` yields what is in the bytes, and ``Wire.read`` fills dataclasses that declare a
schema once, with the names of its .proto file::

    @dataclass(slots=True)
    class Symbol:
        name: str | None = one(1, Kind.TEXT)
        start_address: int | None = one(2, Kind.UINT)

    @dataclass(slots=True)
    class Table:
        symbols: list[Symbol] = many(2, Symbol)

    wire = Wire(data)
    table = wire.read(Table)
    diagnostics += wire.diagnostics("symbol table")
"""

from __future__ import annotations

import dataclasses
import struct
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.event import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "Field", "Kind", "Wire", "many", "one", "signed", "text", "zigzag"]

VARINT, FIXED64, BYTES, _GROUP, _GROUP_END, FIXED32 = range(6)
"""Wire types: the lowest three bits of a tag."""
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_DEPTH = 64
_MAX_PROBLEMS = 20

_T = TypeVar("_T")


class Field(NamedTuple):
    """A field as the wire has it: ``value`` is a u64, or the bytes of a string or message; ``offset`` is where it is.

    ``offset`` counts from the start of the whole buffer, and points behind tag and length.
    """

    number: int
    wire_type: int
    value: int | memoryview
    offset: int


class Kind(Enum):
    """What a field's value means. ``many`` takes numbers both packed and one by one."""

    UINT = auto()
    """uint32, uint64, and enumerations, which have no negative values in practice."""
    INT = auto()
    """int32, int64: two's complement of 64 bits, whichever it is."""
    SINT = auto()
    """sint32, sint64: zigzag."""
    BOOL = auto()
    FIXED64 = auto()
    FIXED32 = auto()
    DOUBLE = auto()
    FLOAT = auto()
    TEXT = auto()
    BYTES = auto()
    """A view of the buffer."""


def signed(value: int) -> int:
    """Return the int64 that a u64 stands for."""
    return value - (1 << 64) if value >> 63 else value


def zigzag(value: int) -> int:
    """Return the integer that zigzag coding made a u64 of: 0, -1, 1, -2 of 0, 1, 2, 3."""
    return value >> 1 ^ -(value & 1)


def text(value: memoryview, max_bytes: int = 65_536) -> str:
    r"""Return bytes as text: what is not UTF-8 becomes ``\xNN``; "..." stands for what exceeds ``max_bytes``."""
    kept = bytes(value[:max_bytes]).decode("utf-8", "backslashreplace")
    return kept + "..." if len(value) > max_bytes else kept


_NUMBERS: dict[Kind, tuple[int, Callable[[int], float]]] = {
    Kind.UINT: (VARINT, int),
    Kind.INT: (VARINT, signed),
    Kind.SINT: (VARINT, zigzag),
    Kind.BOOL: (VARINT, bool),
    Kind.FIXED64: (FIXED64, int),
    Kind.FIXED32: (FIXED32, int),
    Kind.DOUBLE: (FIXED64, lambda value: float(struct.unpack("<d", value.to_bytes(8, "little"))[0])),
    Kind.FLOAT: (FIXED32, lambda value: float(struct.unpack("<f", value.to_bytes(4, "little"))[0])),
}


def one(number: int, kind: Kind | type) -> Any:
    """Declare a field that occurs once (of several the last counts, messages are merged); None where it is missing."""
    return dataclasses.field(default=None, metadata={"protobuf": (number, kind, False)})


def many(number: int, kind: Kind | type) -> Any:
    """Declare a repeated field; an empty list where it is missing."""
    return dataclasses.field(default_factory=list, metadata={"protobuf": (number, kind, True)})


@cache
def _schema(shape: Any) -> dict[int, tuple[str, Kind | type, bool]]:
    declared = ((f.name, *f.metadata["protobuf"]) for f in dataclasses.fields(shape) if "protobuf" in f.metadata)
    return {number: (name, kind, repeated) for name, number, kind, repeated in declared}


class Wire:
    """A message, from ``start`` of a buffer to its end, and all messages in it.

    ``problems`` says what contradicts the wire format or the schema, ``truncated`` whether the buffer's end cut a
    field short. After ``max_fields`` fields, known or not, reading stops with a LimitExceeded among the problems.
    """

    def __init__(
        self, data: memoryview, start: int = 0, *, max_fields: int = 1 << 20, max_text_bytes: int = 65_536
    ) -> None:
        self.data = data
        self.start = start
        self.problems: list[Malformed | LimitExceeded] = []
        self.truncated = False
        self._max_fields = max_fields
        self._left = max_fields
        self._max_text_bytes = max_text_bytes
        self._passed: set[int] = set()

    def fields(self, within: Field | None = None) -> Iterator[Field]:
        """Yield the fields of the outermost message, or of the one that is a field's value, in file order.

        Groups are skipped. Of a string or message that runs past the end comes the part that is there; a number that
        does is missing.
        """
        data = self.data
        at, end = self.start, len(data)
        if within is not None:
            at, end = within.offset, within.offset
            end += len(within.value) if isinstance(within.value, memoryview) else 0
        groups: list[int] = []
        while at < end and self._spend():
            begin = at
            tag, at = self._varint(at, end)
            if at < 0:
                return
            number, wire_type = tag >> 3, tag & 7
            offset = at
            value: int | memoryview
            if not 0 < number < 1 << 29:
                self._problem(Malformed("protobuf tag", offset=begin, expected="a field number", got=number))
                return
            if wire_type == VARINT:
                value, at = self._varint(at, end)
                if at < 0:
                    return
            elif wire_type == BYTES:
                size, offset = self._varint(at, end)
                if offset < 0:
                    return
                at = offset + size
                if at > end:
                    self._past(offset, end, size)
                    at = end
                value = data[offset:at]
            elif wire_type in _FIXED_BYTES:
                at += _FIXED_BYTES[wire_type]
                if at > end:
                    self._past(offset, end, at - offset)
                    return
                value = int.from_bytes(data[offset:at], "little")
            elif wire_type == _GROUP and len(groups) < _MAX_DEPTH:
                groups.append(number)
                continue
            elif wire_type == _GROUP_END and groups and groups[-1] == number:
                groups.pop()
                continue
            else:
                got = f"wire type {wire_type} of field {number}"
                self._problem(Malformed("protobuf tag", offset=begin, expected="a wire type that fits here", got=got))
                return
            if not groups:
                yield Field(number, wire_type, value, offset)
        if groups and at >= end:
            self._past(end, end, 1)

    def read(self, shape: type[_T]) -> _T:
        """Return the outermost message as the dataclass ``shape``, whose fields ``one`` and ``many`` declare."""
        found = shape()
        self._fill(found, None, 0)
        return found

    def diagnostics(self, what: str) -> list[Diagnostic]:
        """Return what was found wrong as an event tells it; ``what`` names the file."""
        found = [
            Diagnostic(
                code=problem.code,
                severity="warning",
                stage="read",
                message=f"{what}: {problem}",
                where=problem.where() if isinstance(problem, Malformed) else None,
            )
            for problem in self.problems
        ]
        if self.truncated:
            where: dict[str, str | int] = {"offset": len(self.data)}
            message = f"{what}: the end is missing"
            found.append(Diagnostic(code="truncated", severity="warning", stage="read", message=message, where=where))
        return found

    # -- by schema ----------------------------------------------------------------------------------------------------

    def _fill(self, target: Any, within: Field | None, depth: int) -> None:
        shape: Any = type(target)
        schema = _schema(shape)
        for field in self.fields(within):
            if field.number not in schema:
                continue
            name, kind, repeated = schema[field.number]
            numeric = _NUMBERS.get(kind) if isinstance(kind, Kind) else None
            if numeric is not None and field.wire_type == numeric[0] and isinstance(field.value, int):
                _put(target, name, repeated, numeric[1](field.value))
            elif not isinstance(field.value, memoryview) or (numeric is not None and not repeated):
                got = f"wire type {field.wire_type}"
                place = f"protobuf field {shape.__name__}.{name}"
                self._problem(Malformed(place, offset=field.offset, expected=str(kind), got=got))
            elif numeric is not None:
                getattr(target, name).extend(map(numeric[1], self._packed(numeric[0], field)))
            elif isinstance(kind, Kind):
                value = text(field.value, self._max_text_bytes) if kind is Kind.TEXT else field.value
                _put(target, name, repeated, value)
            elif depth >= _MAX_DEPTH:
                self._problem(LimitExceeded("protobuf depth", _MAX_DEPTH))
            else:
                inner = None if repeated else getattr(target, name)
                if inner is None:
                    inner = kind()
                    _put(target, name, repeated, inner)
                self._fill(inner, field, depth + 1)

    def _packed(self, wire_type: int, field: Field) -> Iterator[int]:
        """Yield the numbers of a field that holds them one after the other, without tags."""
        assert isinstance(field.value, memoryview)
        at, end = field.offset, field.offset + len(field.value)
        while at < end and self._spend():
            if wire_type == VARINT:
                value, at = self._varint(at, end)
                if at < 0:
                    return
            else:
                offset = at
                at += _FIXED_BYTES[wire_type]
                if at > end:
                    self._past(offset, end, at - offset)
                    return
                value = int.from_bytes(self.data[offset:at], "little")
            yield value

    # -- bytes --------------------------------------------------------------------------------------------------------

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a u64 and where the next thing starts: -1 where there is none."""
        value = shift = 0
        for i in range(at, min(end, at + 10)):
            byte = self.data[i]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, i + 1
            shift += 7
        if end - at < 10:
            self._past(at, end, end - at + 1)
        else:
            self._problem(Malformed("protobuf varint", offset=at, expected="at most 10 bytes"))
        return 0, -1

    def _past(self, at: int, end: int, size: int) -> None:
        """Note, once for each end, that at ``at`` there should be ``size`` bytes, which are more than there are."""
        if end == len(self.data):
            self.truncated = True
        elif end not in self._passed:
            self._passed.add(end)
            self._problem(Malformed("protobuf message", offset=at, expected=f"{size} bytes", got=end - at))

    def _spend(self) -> bool:
        """Take one of the fields that may be read; False where none is left."""
        if self._left > 0:
            self._left -= 1
            return True
        if self._left == 0:
            self._left = -1
            self.problems.append(LimitExceeded("protobuf fields", self._max_fields))
        return False

    def _problem(self, problem: Malformed | LimitExceeded) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)


def _put(target: Any, name: str, repeated: bool, value: object) -> None:  # noqa: FBT001
    if repeated:
        getattr(target, name).append(value)
    else:
        setattr(target, name, value)
