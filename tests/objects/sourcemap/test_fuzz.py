"""Damaged source maps: no exception but ours, nothing read that is not there, memory in proportion."""

from __future__ import annotations

import contextlib
import random
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.config import MapLimits
from deadreckon.errors import DeadreckonError
from deadreckon.kernels._jit import JIT
from deadreckon.kernels.positions import look_up, look_up_functions
from deadreckon.objects import sourcemap
from deadreckon.objects.sourcemap import comments
from deadreckon.symbols.maps import open_map, write_map
from synth.sourcemap import function_map, index_map, source_map

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.tables import SourceMapTable

LIMITS = MapLimits(max_segments=100_000, max_sections=1000)
COUNT = 1500 if JIT else 150
SCOPES = "BCAAA,BHCFAA,DCC,CAD,CKA,EDAAA,EGCC,GBC,HABCD,ICAA,FD,FCA"


def samples() -> list[bytes]:
    segments = [
        (line, column, column % 3, line, 2 * column, line % 4) for line in range(6) for column in range(0, 40, 3)
    ]
    full = source_map(
        [*segments, (9, 3)],
        sourcesContent=["a\nb\r\n", None, "c\u2028d \ud800 é"],
        sourceRoot="r",
        ignoreList=[1],
        names=["n", "ñ", "\ud83d", "x" * 40],
        rangeMappings="BC;;B",
        scopes=SCOPES,
        debugId="1" * 32,
        file="out.js",
        x_facebook_sources=[[function_map([(0, 0, "f"), (3, 4, "g")])], None, []],
        x_com_bloomberg_sourcesFunctionMappings=[None, "AAAMA,CFABC", None],
        x_facebook_offsets=[0, 5],
        x_hermes_function_offsets={"0": [1, 2]},
        x_facebook_segments={"1": {"version": 3, "sources": [], "mappings": ""}},
    )
    plain = source_map(segments[:20])
    return [full, plain, index_map([(0, 0, full), (20, 3, index_map([(0, 0, plain), (7, 7, full)]))])]


def damaged(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        at = rng.randrange(len(out)) if out else 0
        what = rng.randrange(6)
        if what == 0 and out:
            out[at] = rng.randrange(256)
        elif what == 1 and out:
            out[at] = rng.choice(b'{}[]",:;\\/+gAB0-.eE')
        elif what == 2:
            del out[at : at + rng.randrange(1, 30)]
        elif what == 3:
            out[at:at] = bytes(rng.choice(b'{}[]",:;\\AgB+/9') for _ in range(rng.randrange(1, 9)))
        elif what == 4:
            start = rng.randrange(len(out)) if out else 0
            out[at:at] = out[start : start + rng.randrange(1, 200)]
        elif what == 5 and rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def exercise(table: SourceMapTable, rng: random.Random) -> None:
    """Ask everything that can be asked."""
    lines = [rng.randrange(-2, 40) for _ in range(40)] + [1 << 40, -(1 << 40)]
    columns = [rng.randrange(-2, 130) for _ in range(40)] + [1 << 40, 5]
    found = look_up(table, lines, columns)
    assert found.segment.max() < len(table)
    functions = sourcemap.functions(table)
    for place, name in zip(found.place.tolist(), look_up_functions(functions, found.place).tolist(), strict=True):
        assert place[0] < len(table.sources)
        assert place[3] < max(1, len(table.names))
        sourcemap.source_path(table, place[0])
        table.name(place[3])
        functions.name(name)
        sourcemap.source_lines(table, place[0], place[1] - 2, 5)
        sourcemap.frames_at(table, 0, 5, (place[0], place[1], place[2]))
    for i in range(len(table.sources)):
        sourcemap.source_lines(table, i, 0, 100)
    for name in list(table.info["extra"]):
        sourcemap.extra(table, name)
    sourcemap.segment(table, "1")
    sourcemap.module_line(table, 1)
    sourcemap.bytecode_column(table, 0, 1, 0)


def size(table: Any) -> int:
    return sum(value.nbytes for f in fields(table) if isinstance(value := getattr(table, f.name), np.ndarray))


def test_damaged_maps() -> None:
    rng = random.Random(11)
    good = samples()
    read = 0
    for number in range(COUNT):
        data = damaged(rng, rng.choice(good))
        try:
            sourcemap.check(data, LIMITS)
            table = sourcemap.read(data, LIMITS)
        except DeadreckonError:
            continue
        read += 1
        exercise(table, random.Random(number))
        assert size(table) < 40 * len(data) + 1000
    assert read > COUNT // 5


def test_what_is_read_from_a_stored_map_is_what_was_read_from_the_map(tmp_path: Path) -> None:
    rng = random.Random(12)
    good = samples()
    for number in range(COUNT // 10):
        try:
            table = sourcemap.read(damaged(rng, rng.choice(good)), LIMITS)
        except DeadreckonError:
            continue
        path = tmp_path / f"{number}.table"
        write_map(path, table)
        stored = open_map(path)
        exercise(stored, random.Random(number))
        for i in range(len(table.sources)):
            assert sourcemap.source_path(stored, i) == sourcemap.source_path(table, i)
            assert sourcemap.source_lines(stored, i, 0, 99) == sourcemap.source_lines(table, i, 0, 99)
        assert [stored.name(i) for i in range(len(table.names))] == [table.name(i) for i in range(len(table.names))]
        for name in table.info["extra"]:
            assert sourcemap.extra(stored, name) == sourcemap.extra(table, name)
        assert sourcemap.segment(stored, "1") == sourcemap.segment(table, "1")
        for one, other in ((stored, table), (sourcemap.functions(stored), sourcemap.functions(table))):
            for column in ("lines", "first", "column", "place", "ranged", "at", "origin"):
                if hasattr(one, column):
                    assert np.array_equal(getattr(one, column), getattr(other, column))


def test_damaged_table_files(tmp_path: Path) -> None:
    rng = random.Random(13)
    path = tmp_path / "a.table"
    write_map(path, sourcemap.read(samples()[0]))
    good = path.read_bytes()
    opened = 0
    for number in range(COUNT // 5):
        data = bytearray(good)
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        path = tmp_path / f"{number}.table"
        path.write_bytes(data)
        try:
            table = open_map(path)
        except DeadreckonError:
            continue
        opened += 1
        lines = [*range(12), 1 << 31]
        places = look_up(table, lines, [7] * len(lines)).place
        assert table.functions is not None
        for place, name in zip(places.tolist(), look_up_functions(table.functions, places).tolist(), strict=True):
            sourcemap.source_path(table, place[0])
            table.name(place[3])
            table.functions.name(name)
            sourcemap.source_lines(table, place[0], place[1], 5)
    assert opened > COUNT // 20


def test_any_bytes() -> None:
    rng = random.Random(14)
    for _ in range(COUNT):
        data = bytes(rng.choice(b'{}[]":,;mappingssources\\ud83d09.e-tfn \n') for _ in range(rng.randrange(60)))
        for prefix in (b"", b"{", b'{"mappings":"', b'{"sources":[],"mappings":"'):
            with contextlib.suppress(DeadreckonError):
                sourcemap.read(prefix + data, LIMITS)
        comments.read(data)


@pytest.mark.skipif(not JIT, reason="too much for an interpreter")
@pytest.mark.parametrize(
    "mappings",
    ["AAAA" + ",CAAC" * 400_000, ";" * 3_000_000, ",CAAC;" * 400_000, ",," * 1_000_000, "g" * 3_000_000],
)
def test_large_mappings(mappings: str) -> None:
    table = sourcemap.read(source_map(mappings=mappings, sources=["a"]))
    found = look_up(table, [0, 1, 399_999], [200_000, 5, 5])
    assert len(found) == 3
    assert size(table) < 40 * len(mappings) + 1000


@pytest.mark.skipif(not JIT, reason="too much for an interpreter")
def test_deep_and_wide_json() -> None:
    for data in (
        b'{"mappings":"","sources":' + b"[" * 1_000_000,
        b'{"mappings":"","sources":[' + b"0," * 1_000_000 + b"0]}",
        b'{"mappings":"","sources":[],"x":' + b'{"a":' * 500_000,
        b"[" * 1_000_000,
        b'{"sections":[' + b"{}," * 500_000 + b"{}]}",
        b'{"mappings":"","sources":[],"a":"' + b"\\" * 1_000_001 + b'"}',
    ):
        try:
            table = sourcemap.read(data)
        except DeadreckonError:
            continue
        assert size(table) < 40 * len(data)
