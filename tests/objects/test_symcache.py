from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import symbolic

from deadreckon.errors import Malformed, Unsupported
from deadreckon.kernels.ranges import look_up
from deadreckon.model.tables import NONE, SymTable
from deadreckon.objects import symcache

if TYPE_CHECKING:
    from pathlib import Path


def string(text: bytes) -> bytes:
    assert len(text) < 0x80
    return bytes([len(text)]) + text


def made(version: int, *, magic: bytes = b"SYMC") -> bytes:
    """Return a cache of two functions, one inlined into the other, and a gap after them."""
    strings = string(b"main") + string(b"helper") + string(b"/src") + string(b"a.c")
    file = (NONE, 5 + 7, 5 + 7 + 5)
    files = [file if version == 8 else (*file, NONE, NONE, 0)]
    functions = [(0, NONE, 0x100, 1), (5, NONE, NONE, 1)]
    locations = [(0, 7, 0, NONE), (0, 3, 1, 0), (0, 9, 0, NONE), (NONE, NONE, NONE, NONE)]
    starts = [0x100, 0x110, 0x120]
    out = magic + struct.pack("<I16sI12x", version, b"\x11" * 16, 0)
    out += struct.pack("<6I", 0, len(files), len(functions), len(locations), len(starts), len(strings)) + b"\0" * 16
    for column in (files, functions, locations, [(start,) for start in starts]):
        out += b"\0" * (-len(out) % 8)
        out += b"".join(struct.pack(f"<{len(row)}I", *row) for row in column)
    return out + b"\0" * (-len(out) % 8) + strings


@pytest.mark.parametrize("version", [8, 9])
def test_versions(version: int) -> None:
    data = made(version)
    assert symcache.version(data) == version
    table = symcache.read(data)
    assert table.range_start.tolist() == [0x100, 0x110, 0x120]
    assert table.range_loc.tolist() == [1, 2, NONE]
    assert table.functions.tolist() == [[0, 0x100, 1], [5, NONE, 1]]
    assert [[table.string(ref) for ref in row] for row in table.files.tolist()] == [["", "/src", "a.c"]]
    assert [table.string(row[0]) for row in table.functions.tolist()] == ["main", "helper"]
    assert table.entries.tolist() == [0x100]
    first, found = look_up(table, np.array([0xFF, 0x100, 0x110, 0x120], np.uint64))
    assert first.tolist() == [0, 0, 2, 3, 3]
    assert found.tolist() == [1, 0, 2]


def test_symbolic_still_writes_a_layout_we_know(fixtures: Path) -> None:
    """A newer symbolic with another layout fails here first."""
    path = fixtures / "linux/x86_64/pie-O2/crashy.debug"
    (obj,) = symbolic.Archive.open(str(path)).iter_objects()
    with obj.make_symcache().open_stream() as stream:
        data = stream.read()
    assert symcache.version(data) == 9
    table = symcache.read(data)
    names = {table.string(ref) for ref in table.functions[:, 0].tolist()}
    assert "main" in names
    assert len(table.range_start) > 500


@pytest.mark.parametrize("version", [0, 7, 10, 255])
def test_versions_that_are_not_ours(version: int) -> None:
    with pytest.raises(Unsupported, match=f"SymCache version {version}"):
        symcache.read(made(version))


@pytest.mark.parametrize("data", [b"", b"SYMC", b"SYMC\x09\0\0", b"CMYS" + b"\0" * 76, made(9, magic=b"XXXX")])
def test_not_a_symcache(data: bytes) -> None:
    with pytest.raises(Malformed, match="SymCache header"):
        symcache.read(data)
    assert symcache.version(data) is None


@pytest.mark.parametrize("version", [8, 9])
def test_cut_anywhere(version: int) -> None:
    data = made(version)
    for size in range(len(data)):
        with pytest.raises(Malformed):
            symcache.read(data[:size])


def test_more_ranges_than_locations() -> None:
    data = bytearray(made(9))
    struct.pack_into("<I", data, 52, 2)  # num_source_locations
    with pytest.raises(Malformed):
        symcache.read(bytes(data))


def test_mutants_are_refused_or_safe() -> None:
    data = made(9)
    rng = random.Random(1)
    read = 0
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 6))):
            changed[rng.randrange(8, len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        try:
            table = symcache.read(bytes(changed))
        except Malformed:
            continue
        read += 1
        use(table)
    assert read > 500


def use(table: SymTable) -> None:
    """Touch everything that a look-up touches."""
    _, found = look_up(table, np.array([0, 0x100, 0x115, 0x125, 0xFFFF_FFFF], np.uint64))
    assert (found < len(table.locations)).all()
    for row in (*table.functions.tolist(), *table.files.tolist()):
        for ref in row:
            assert len(table.string(ref)) <= len(table.strings)
