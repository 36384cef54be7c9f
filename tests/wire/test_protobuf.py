"""The wire reader against an encoder of our own: what is written is read, and what is cut is read as far as it goes."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import DIAGNOSTIC_CODES, LimitExceeded, Malformed
from deadreckon.wire.protobuf import BYTES, FIXED32, FIXED64, VARINT, Kind, Wire, many, one, text
from synth import protobuf as pb

U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.integers(1, 2**29 - 1)


@dataclass(slots=True)
class Leaf:
    name: str | None = one(1, Kind.TEXT)
    value: int | None = one(2, Kind.UINT)


@dataclass(slots=True)
class Tree:
    count: int | None = one(1, Kind.UINT)
    delta: int | None = one(2, Kind.INT)
    zig: int | None = one(3, Kind.SINT)
    flag: bool | None = one(4, Kind.BOOL)
    wide: int | None = one(5, Kind.FIXED64)
    narrow: int | None = one(6, Kind.FIXED32)
    ratio: float | None = one(7, Kind.DOUBLE)
    small: float | None = one(8, Kind.FLOAT)
    name: str | None = one(9, Kind.TEXT)
    blob: memoryview | None = one(10, Kind.BYTES)
    leaf: Leaf | None = one(11, Leaf)
    leaves: list[Leaf] = many(12, Leaf)
    codes: list[int] = many(13, Kind.UINT)
    offsets: list[int] = many(14, Kind.FIXED32)
    names: list[str] = many(536_870_911, Kind.TEXT)


def tree(data: bytes, **options: int) -> tuple[Tree, Wire]:
    wire = Wire(memoryview(data), **options)
    return wire.read(Tree), wire


def listed(data: bytes) -> list[tuple[int, int, int | bytes, int]]:
    return [(n, w, v if isinstance(v, int) else bytes(v), o) for n, w, v, o in Wire(memoryview(data)).fields()]


ENCODED = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), U64, st.builds(lambda: pb.number)),
    st.tuples(NUMBERS, st.just(FIXED64), U64, st.builds(lambda: pb.fixed64)),
    st.tuples(NUMBERS, st.just(BYTES), st.binary(max_size=300), st.builds(lambda: pb.blob)),
    st.tuples(NUMBERS, st.just(FIXED32), st.integers(0, 2**32 - 1), st.builds(lambda: pb.fixed32)),
)


@given(st.lists(ENCODED, max_size=12))
def test_fields_are_what_was_written(fields: list[tuple[int, int, Any, Any]]) -> None:
    data = b"".join(encode(number, value) for number, _, value, encode in fields)
    found = listed(data)
    assert [f[:3] for f in found] == [f[:3] for f in fields]
    for _, wire_type, value, offset in found:
        size = {VARINT: len(pb.varint(value)) if isinstance(value, int) else 0, FIXED64: 8, FIXED32: 4}
        stored = data[offset : offset + size.get(wire_type, len(value) if isinstance(value, bytes) else 0)]
        assert stored == (
            value
            if isinstance(value, bytes)
            else pb.varint(value)
            if wire_type == VARINT
            else value.to_bytes(size[wire_type], "little")
        )


@given(st.lists(ENCODED, max_size=8), st.data())
def test_a_cut_message_is_its_beginning(fields: list[tuple[int, int, Any, Any]], chosen: st.DataObject) -> None:
    pieces = [encode(number, value) for number, _, value, encode in fields]
    data = b"".join(pieces)
    end = chosen.draw(st.integers(0, len(data)))
    wire = Wire(memoryview(data)[:end])
    found = [(n, w, v if isinstance(v, int) else bytes(v)) for n, w, v, _ in wire.fields()]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    whole = sum(e <= end for e in ends)
    assert found[:whole] == [f[:3] for f in fields[:whole]]
    assert wire.problems == []
    assert wire.truncated == (end not in {0, *ends})
    if len(found) > whole:
        (number, wire_type, value) = found[whole]
        assert (number, wire_type, len(found)) == (fields[whole][0], BYTES, whole + 1)
        assert isinstance(value, bytes)
        assert fields[whole][2].startswith(value)


@given(U64, I64, I64, st.booleans(), U64, st.floats(allow_nan=False), st.text(), st.binary(), st.lists(U64))
def test_a_schema_reads_every_kind(
    count: int, delta: int, zig: int, flag: bool, wide: int, ratio: float, name: str, blob: bytes, codes: list[int]
) -> None:
    half = len(codes) // 2
    data = (
        pb.number(1, count)
        + pb.number(2, delta)
        + pb.number(3, pb.zigzag(zig))
        + pb.number(4, flag)
        + pb.fixed64(5, wide)
        + pb.fixed32(6, wide >> 32)
        + pb.double(7, ratio)
        + pb.single(8, 0.5)
        + pb.blob(9, name)
        + pb.blob(10, blob)
        + pb.number(5000, 1)  # A field of a later version.
        + pb.blob(11, pb.blob(1, name) + pb.number(2, count))
        + b"".join(pb.blob(12, pb.number(2, code)) for code in codes)
        + b"".join(pb.number(13, code) for code in codes[:half])
        + pb.packed(13, codes[half:])
        + pb.blob(14, b"\1\0\0\0\2\0\0\0")
        + pb.fixed32(14, 3)
        + pb.blob(536_870_911, name)
    )
    found, wire = tree(data)
    assert (wire.problems, wire.truncated) == ([], False)
    expected = Tree(count, delta, zig, flag, wide, wide >> 32, ratio, 0.5, name, memoryview(blob))
    expected.leaf = Leaf(name, count)
    expected.leaves = [Leaf(None, code) for code in codes]
    expected.codes = codes
    expected.offsets = [1, 2, 3]
    expected.names = [name]
    assert found == expected


def test_the_last_counts_and_messages_merge() -> None:
    first, second = pb.blob(1, "a") + pb.number(2, 1), pb.number(2, 2)
    found, _ = tree(pb.number(1, 1) + pb.blob(11, first) + pb.blob(11, second) + pb.number(1, 2))
    assert (found.count, found.leaf) == (2, Leaf("a", 2))


def test_inner_messages_keep_what_a_cut_file_has() -> None:
    leaf = pb.blob(1, "first") + pb.number(2, 77)
    data = pb.blob(12, leaf) + pb.blob(12, leaf)
    found, wire = tree(data[:-1])
    assert found.leaves == [Leaf("first", 77), Leaf("first", None)]
    found, wire = tree(data[: len(data) - 4])
    assert found.leaves == [Leaf("first", 77), Leaf("fir", None)]
    assert wire.problems == []
    (diagnostic,) = wire.diagnostics("report")
    assert (diagnostic.code, diagnostic.where) == ("truncated", {"offset": len(data) - 4})


def test_damage_costs_its_own_message_only() -> None:
    broken = pb.number(2, 5) + pb.tag(1, 7) + pb.blob(1, "lost")
    found, wire = tree(pb.blob(12, broken) + pb.blob(12, pb.blob(1, "kept")) + pb.number(1, 3))
    assert found.leaves == [Leaf(None, 5), Leaf("kept", None)]
    assert found.count == 3
    (problem,) = wire.problems
    assert isinstance(problem, Malformed)
    assert problem.offset == 4
    (diagnostic,) = wire.diagnostics("report")
    assert diagnostic.code in DIAGNOSTIC_CODES
    assert diagnostic.where == {
        "offset": 4,
        "expected": "a wire type that fits here",
        "got": "wire type 7 of field 1",
    }


@pytest.mark.parametrize(
    "data",
    [
        pb.tag(0, 0) + b"\0",
        b"\xff" * 10 + b"\1",
        pb.tag(1, 0) + b"\x80" * 11,
        pb.tag(1, 6),
        pb.tag(1, 4),
        pb.tag(1, 3) + pb.tag(2, 4),
        pb.varint(2**29 * 8) + b"\0",
    ],
)
def test_contradictions_of_the_wire_format(data: bytes) -> None:
    found, wire = tree(pb.number(1, 9) + data + pb.number(2, 9))
    assert (found.count, found.delta) == (9, None)
    assert len(wire.problems) == 1
    assert not wire.truncated


def test_a_length_beyond_the_message_is_told_once() -> None:
    inner = pb.blob(11, pb.tag(1, 2) + pb.varint(50) + b"abc")
    found, wire = tree(inner + pb.number(1, 4))
    assert found.leaf == Leaf("abc")
    assert found.count == 4
    assert [str(p) for p in wire.problems] == ["protobuf message: at offset 0x4, expected 50 bytes, got 3"]
    assert not wire.truncated


def test_another_wire_type_than_declared() -> None:
    found, wire = tree(pb.blob(1, "x") + pb.number(9, 1) + pb.number(11, 1) + pb.fixed64(2, 3) + pb.number(6, 4))
    assert found == Tree()
    assert [p.what for p in wire.problems if isinstance(p, Malformed)] == [
        f"protobuf field Tree.{name}" for name in ("count", "name", "leaf", "delta", "narrow")
    ]


def test_groups_are_passed_over() -> None:
    nested = pb.group(3, pb.number(1, 5) + pb.group(4, pb.blob(9, "no")) + pb.fixed32(1, 1))
    found, wire = tree(pb.number(1, 1) + nested + pb.blob(9, "yes"))
    assert (found.count, found.name, wire.problems, wire.truncated) == (1, "yes", [], False)
    found, wire = tree(pb.number(1, 1) + nested[:-1])
    assert (found.count, wire.problems, wire.truncated) == (1, [], True)
    _, wire = tree(pb.tag(1, 3) * 10_000)
    assert len(wire.problems) == 1


def test_text_that_is_none() -> None:
    assert text(memoryview(b"caf\xc3\xa9 \xab\xab")) == "café \\xab\\xab"
    assert text(memoryview(b"x" * 100), 3) == "xxx..."
    found, _ = tree(pb.blob(9, "abcdef"), max_text_bytes=4)
    assert found.name == "abcd..."


def test_reading_stops_at_the_limit() -> None:
    found, wire = tree(pb.number(1, 1) * 50 + pb.number(1, 2), max_fields=50)
    assert found.count == 1
    assert [type(p) for p in wire.problems] == [LimitExceeded]
    assert [d.code for d in wire.diagnostics("report")] == ["limit_exceeded"]
    found, wire = tree(pb.packed(13, [7] * 1000), max_fields=50)
    assert len(found.codes) == 49
    assert [type(p) for p in wire.problems] == [LimitExceeded]
    found, wire = tree(pb.blob(12, b"") * 100, max_fields=50)
    assert len(found.leaves) == 50


def test_messages_in_messages_without_end() -> None:
    data = b""
    shape: type = Leaf
    for _ in range(200):
        data = pb.blob(1, data)
        shape = make_dataclass("Nest", [("inner", Any, one(1, shape))])
    wire = Wire(memoryview(data))
    found: Any = wire.read(shape)
    depth = 0
    while (found := found.inner) is not None:
        depth += 1
    assert depth == 64
    assert [type(p) for p in wire.problems] == [LimitExceeded]


@given(st.binary(max_size=400), st.integers(0, 8))
def test_any_bytes(data: bytes, start: int) -> None:
    wire = Wire(memoryview(data), start)
    found = wire.read(Tree)
    assert isinstance(found, Tree)
    assert len(wire.problems) <= 21
    assert {d.code for d in wire.diagnostics("x")} <= set(DIAGNOSTIC_CODES)
    assert all(start <= f.offset <= len(data) for f in Wire(memoryview(data), start).fields())
