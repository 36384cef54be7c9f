"""Metro's and Hermes's extras, and RAM bundles."""

from __future__ import annotations

import struct

import pytest

from deadreckon.errors import Malformed
from deadreckon.objects import sourcemap
from deadreckon.objects.sourcemap.rambundle import MAGIC, RamBundle, is_ram_bundle
from synth.sourcemap import source_map

SEGMENT = source_map([(0, 0, 0, 5, 5)])


def test_extras() -> None:
    table = sourcemap.read(
        source_map(x_hermes_function_offsets={"0": [10, 30], "1": [5]}, x_facebook_offsets=[0, 7, None], other=4)
    )
    assert sourcemap.is_bytecode(table)
    assert sourcemap.extra(table, "x_facebook_offsets") == [0, 7, None]
    assert sourcemap.extra(table, "other") is None
    assert sourcemap.bytecode_column(table, 0, 1, 4) == 34
    assert sourcemap.bytecode_column(table, 1, 0, 0) == 5
    for segment, function in ((0, 2), (0, -1), (2, 0)):
        assert sourcemap.bytecode_column(table, segment, function, 0) is None
    assert [sourcemap.module_line(table, i) for i in (-1, 0, 1, 2, 3)] == [None, 0, 7, None, None]


def test_maps_without_extras() -> None:
    table = sourcemap.read(source_map())
    assert not sourcemap.is_bytecode(table)
    assert sourcemap.bytecode_column(table, 0, 0, 0) is None
    assert sourcemap.module_line(table, 0) is None
    assert sourcemap.segment(table, "1") is None
    odd = sourcemap.read(source_map(x_facebook_offsets={}, x_hermes_function_offsets=[], x_facebook_segments=[1]))
    assert sourcemap.module_line(odd, 0) is None
    assert sourcemap.bytecode_column(odd, 0, 0, 0) is None
    assert sourcemap.segment(odd, "1") is None
    bad = sourcemap.read(source_map(x_hermes_function_offsets={"0": ["x"], "1": 5}, x_facebook_offsets=["x", -1, True]))
    assert [sourcemap.bytecode_column(bad, segment, 0, 0) for segment in (0, 1)] == [None, None]
    assert [sourcemap.module_line(bad, i) for i in range(3)] == [None, None, None]


def test_segments() -> None:
    data = source_map(x_facebook_segments={}).replace(
        b'"x_facebook_segments": {}', b'"x_facebook_segments": {"3": %b}' % SEGMENT
    )
    table = sourcemap.read(data)
    found = sourcemap.segment(table, "3")
    assert found == SEGMENT
    assert len(sourcemap.read(found)) == 1
    assert sourcemap.segment(table, "4") is None


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        *(("12.js", (None, 12)), ("seg-3_12.js", ("3", 12)), ("seg-3.js", ("3", None)), ("/a/b/seg-03_1.js", ("3", 1))),
        *(("app.js", None), ("seg-.js", None), ("12.jsx", None), ("x12.js", None), ("seg-3_.js", None), ("", None)),
        *(("9999999999.js", None), ("٣.js", None)),
    ],
)
def test_module_files(file: str, expected: tuple[str | None, int | None] | None) -> None:
    assert sourcemap.module_of(file) == expected


def bundle(modules: list[bytes | None], startup: bytes = b"start()\0") -> bytes:
    code, table = startup, b""
    for module in modules:
        table += struct.pack("<II", *((len(code), len(module) + 1) if module is not None else (0, 0)))
        code += module + b"\0" if module is not None else b""
    return struct.pack("<III", MAGIC, len(modules), len(startup)) + table + code


def test_ram_bundles() -> None:
    data = bundle([b"one()", None, b"two()"])
    assert is_ram_bundle(data)
    found = RamBundle(data)
    assert len(found) == 3
    assert found.startup == b"start()"
    assert [found.module(i) for i in range(-1, 4)] == [None, b"one()", None, b"two()", None]
    assert RamBundle(data[:-3]).module(2) is None


@pytest.mark.parametrize(
    "data", [b"", b"\xe5\xd1\x0b", struct.pack("<III", MAGIC, 5, 0), struct.pack("<III", MAGIC, 0, 1)]
)
def test_no_ram_bundle(data: bytes) -> None:
    with pytest.raises(Malformed):
        RamBundle(data)
