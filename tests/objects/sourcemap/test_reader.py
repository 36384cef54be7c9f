"""The lenient reading: what it takes, what it leaves out, what it refuses."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.config import MapLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.kernels.positions import look_up
from deadreckon.model.tables import MAPPED, SourceMapTable
from deadreckon.objects import sourcemap
from oracle import sourcemap as oracle
from synth.sourcemap import index_map, mappings, source_map

SEGMENTS = [(0, 0, 0, 10, 4), (0, 5, 1, 20, 6, 0), (0, 9), (2, 3, 0, 11, 0, 1)]


def answer(table: SourceMapTable, line: int, column: int) -> tuple[str | None, int, int, str | None]:
    found = look_up(table, [line], [column]).place[0].tolist()
    return sourcemap.source_path(table, found[0]), found[1], found[2], table.name(found[3])


def sources(table: SourceMapTable) -> list[str | None]:
    return [sourcemap.source_path(table, i) for i in range(len(table.sources))]


def names(table: SourceMapTable) -> list[str | None]:
    return [table.name(i) for i in range(len(table.names))]


def test_a_map() -> None:
    table = sourcemap.read(source_map(SEGMENTS, file="out.js", sourcesContent=["a", None]))
    assert len(table) == 4
    assert table.info["file"] == "out.js"
    assert table.info["problems"] == []
    assert answer(table, 0, 4) == ("source0.js", 10, 4, None)
    assert answer(table, 0, 5) == ("source1.js", 20, 6, "name0")
    assert answer(table, 0, 9) == (None, -1, -1, None)
    assert answer(table, 2, 99) == ("source0.js", 11, 0, "name1")
    assert answer(table, 1, 0) == (None, -1, -1, None)
    assert sourcemap.source_lines(table, 0, 0, 5) == ["a"]
    assert sourcemap.source_lines(table, 1, 0, 5) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((b"\xef\xbb\xbf", b""), (b" \r\n\t", b" \n"), (b")]}'\n", b"\n"), (b")]}',\n", b""), (b")]}'", b"")),
        *((b")]}' garbage {[ \n", b""), (b"\xef\xbb\xbf)]}'\r\n", b""), (b")]}' , ", b""), (b")]}'x\r", b"\t")),
    ],
)
def test_what_may_stand_around_it(before: bytes, after: bytes) -> None:
    table = sourcemap.read(before + source_map(SEGMENTS) + after)
    assert answer(table, 0, 5) == ("source1.js", 20, 6, "name0")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: Any) -> None:
    assert len(sourcemap.read(kind(source_map(SEGMENTS)))) == 4


@pytest.mark.parametrize("version", [3, 3.0, "3", 2, None, ...])
def test_any_version(version: Any) -> None:
    assert len(sourcemap.read(source_map(SEGMENTS, version=version))) == 4


def test_fields_of_other_types_count_as_missing() -> None:
    table = sourcemap.read(
        source_map(
            SEGMENTS,
            file=[],
            sourceRoot=7,
            sources=["a.js", 3, None, {}, "b.js"],
            names=["n", None, 4],
            sourcesContent={"x": 1},
            ignoreList=["0", 0.5, -1, 9, True, None, 1.0],
            debugId=5,
            rangeMappings=[1],
            scopes=4,
            x_facebook_sources="no",
        )
    )
    assert "file" not in table.info
    assert "debug_id" not in table.info
    assert sources(table) == ["a.js", None, None, None, "b.js"]
    assert names(table) == ["n", "", ""]
    assert table.ignored.tolist() == [0, 1, 0, 0, 0]
    assert answer(table, 0, 5) == (None, 20, 6, "n")
    assert look_up(table, [0], [5]).state.tolist() == [MAPPED]
    assert len(sourcemap.functions(table).at) == len(sourcemap.scopes(table).scopes) == 0


def test_names_may_lack_and_lists_may_be_short_or_long() -> None:
    table = sourcemap.read(source_map(SEGMENTS, names=..., sourcesContent=["a", "b", "c"]))
    assert answer(table, 0, 5) == ("source1.js", 20, 6, None)
    assert table.info["problems"] == ["mappings: 2 segments with errors"]
    assert len(table.contents) == 2
    short = sourcemap.read(source_map(SEGMENTS, sourcesContent=["a"]))
    assert [sourcemap.source_lines(short, i, 0, 9) for i in range(3)] == [["a"], None, None]


def test_ignore_list_and_its_alias() -> None:
    assert sourcemap.read(source_map(SEGMENTS, ignoreList=[1])).ignored.tolist() == [0, 1]
    assert sourcemap.read(source_map(SEGMENTS, x_google_ignoreList=[0, 0])).ignored.tolist() == [1, 0]
    both = source_map(SEGMENTS, ignoreList=[1], x_google_ignoreList=[0])
    assert sourcemap.read(both).ignored.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("root", "source", "path"),
    [
        *(("r", "a.js", "r/a.js"), ("r/", "a.js", "r/a.js"), ("", "a.js", "a.js"), (None, "a.js", "a.js")),
        *(("r", "/a.js", "/a.js"), ("https://c/r", "webpack:///./a.js", "webpack:///./a.js"), ("r", None, None)),
        *(("/r", "../a.js", "/r/../a.js"), ("r", "C:\\a.js", "C:\\a.js"), ("r", "", "r/")),
    ],
)
def test_source_root(root: str | None, source: str | None, path: str | None) -> None:
    table = sourcemap.read(source_map(sources=[source], sourceRoot=root))
    assert sources(table) == [path]
    assert table.source(0) == source
    assert table.root(0) == root


def test_lone_surrogates_and_other_bytes_cost_themselves_only() -> None:
    data = source_map(
        SEGMENTS, names=["\ud83d", "\ud83d\ude00"], sources=["\udc00x", "y"], sourcesContent=["a\n\ud800b"]
    )
    table = sourcemap.read(data)
    assert names(table) == ["\ufffd", "😀"]
    assert sources(table) == ["\ufffdx", "y"]
    assert sourcemap.source_lines(table, 0, 0, 9) == ["a", "\ufffdb"]
    table = sourcemap.read(source_map(SEGMENTS, names=["@@", "b"]).replace(b"@@", b"\xff\xfe"))
    assert names(table) == ["\ufffd\ufffd", "b"]


def test_escapes_where_nobody_needs_them() -> None:
    data = source_map([(0, 0, 0, 0, 1 << 14), *SEGMENTS], names=['a"b\\', "/"])
    assert b"/" in data
    php = data.replace(b"/", b"\\/").replace(b'"sources"', b'"sourc\\u0065s"')
    table = sourcemap.read(php)
    assert np.array_equal(table.place, sourcemap.read(data).place)
    assert names(table) == ['a"b\\', "/"]
    assert sources(table) == ["source0.js", "source1.js"]


def test_escapes_in_the_mappings_of_sections() -> None:
    """Hermes's compiler writes a backslash before each slash."""
    part = source_map([(0, 1, 0, 999_999_999, 1)])
    data = index_map([(0, 0, part), (1, 0, source_map(mappings="A\\", sources=["x"])), (2, 0, part)])
    table = sourcemap.read(data.replace(b"/", b"\\/"))
    assert answer(table, 2, 5) == ("source0.js", 999_999_999, 1, None)
    (problem,) = table.info["problems"]
    assert "sections[1].map.mappings: offset 1" in problem


def test_backslash_in_mappings_is_not_rewritten_for_ever() -> None:
    table = sourcemap.read(source_map(mappings="A\\"))
    assert len(table) == 0
    assert sourcemap.read(b'{"sources":[],"mappings":"","\\u00fc\\\\":1}').info["problems"] == []


@pytest.mark.parametrize(
    ("members", "debug_id", "chunk"),
    [
        ({"debugId": "1AAD9D9E-2b50-454f-a5f2-0dd5e95c154c"}, "1aad9d9e-2b50-454f-a5f2-0dd5e95c154c", None),
        ({"debug_id": "1aad9d9e2b50454fa5f20dd5e95c154c"}, "1aad9d9e-2b50-454f-a5f2-0dd5e95c154c", None),
        (
            {"debug_id": "00000000-0000-0000-0000-000000000001", "debugId": "1aad9d9e2b50454fa5f20dd5e95c154c"},
            "1aad9d9e-2b50-454f-a5f2-0dd5e95c154c",
            None,
        ),
        (
            {"debugId": "nothing", "debug_id": "1aad9d9e2b50454fa5f20dd5e95c154c"},
            "1aad9d9e-2b50-454f-a5f2-0dd5e95c154c",
            None,
        ),
        ({"debugId": "nothing"}, None, None),
        ({"chunk_id": "0190-abc"}, None, "0190-abc"),
    ],
)
def test_identity(members: dict[str, Any], debug_id: str | None, chunk: str | None) -> None:
    info = sourcemap.read(source_map(**members)).info
    assert info.get("debug_id") == debug_id
    assert info.get("chunk_id") == chunk


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"null", b"[]", b'"x"', b"{", b")]}'", b")]}'\n", b"\xef\xbb\xbf", b"{}", b"not json", b"<html></html>"),
        *(source_map(mappings=5), source_map(mappings=...), source_map(sources=...), source_map(sources={})),
        *(source_map() + b"x", source_map() + b"{}", source_map()[:-1], source_map(mappings="ggggggE")),
        *(index_map([]).replace(b"[]", b"{}"), b'{"sections":[{"offset":{}}]}', b'{"sections":[{"map":{}}]}'),
        *(b'{"sections":[{"offset":{},"map":[]}]}', b'{"sections":[{"offset":0,"map":{}}]}'),
        b'{"sections":[{"offset":{},"url":"a.map"}]}',
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        sourcemap.read(data)


@pytest.mark.parametrize("text", ["A$", "g", "AA", "AAA", "AAAAAA", "AAAA.AAAA", "A="])
def test_mappings_outside_the_grammar_are_none(text: str) -> None:
    table = sourcemap.read(source_map(mappings=f"AAAA;{text}", sources=["a"]))
    assert len(table) == 0
    assert sources(table) == ["a"]
    (problem,) = table.info["problems"]
    assert "no mapping is used" in problem


def test_limits() -> None:
    data = source_map(SEGMENTS)
    with pytest.raises(LimitExceeded, match="max_bytes"):
        sourcemap.read(data, MapLimits(max_bytes=100))
    with pytest.raises(LimitExceeded, match="max_segments"):
        sourcemap.read(data, MapLimits(max_segments=3))
    with pytest.raises(LimitExceeded, match="max_sections"):
        sourcemap.read(index_map([(0, 0, data)] * 5), MapLimits(max_sections=4))
    nested = data
    for _ in range(8):
        nested = index_map([(0, 0, nested)])
    assert len(sourcemap.read(nested)) == 4
    with pytest.raises(LimitExceeded, match="max_depth"):
        sourcemap.read(index_map([(0, 0, nested)]))


# --- Index maps -----------------------------------------------------------------------------------------------------


def test_sections() -> None:
    one = source_map([(0, 0, 0, 1, 1, 0), (1, 2, 0, 2, 2)], names=["a"], sourceRoot="r", ignoreList=[0])
    two = source_map([(0, 3, 0, 3, 3, 0), (1, 4, 1, 4, 4)], names=["b"], sources=["x.js", "y.js"], sourcesContent=["x"])
    table = sourcemap.read(index_map([(0, 0, one), (1, 10, two)], file="all.js", debugId="1" * 32))
    assert sources(table) == ["r/source0.js", "x.js", "y.js"]
    assert names(table) == ["a", "b"]
    assert table.ignored.tolist() == [1, 0, 0]
    assert table.info["sections"] == 2
    assert table.info["file"] == "all.js"
    assert table.info["debug_id"] == "11111111-1111-1111-1111-111111111111"
    assert answer(table, 0, 0) == ("r/source0.js", 1, 1, "a")
    assert answer(table, 1, 2) == ("r/source0.js", 2, 2, None)
    assert answer(table, 1, 13) == ("x.js", 3, 3, "b")
    assert answer(table, 2, 4) == ("y.js", 4, 4, None)
    assert sourcemap.source_lines(table, 1, 0, 1) == ["x"]


def test_sections_within_sections() -> None:
    inner = index_map([(0, 5, source_map([(0, 1, 0, 7, 7)])), (2, 1, source_map([(0, 1, 0, 8, 8)]))])
    table = sourcemap.read(index_map([(3, 100, inner)]))
    assert answer(table, 3, 106) == ("source0.js", 7, 7, None)
    assert answer(table, 5, 2) == ("source0.js", 8, 8, None)
    assert table.info["sections"] == 3


def test_sections_in_any_order_and_on_one_line() -> None:
    maps = [(0, 40, source_map([(0, 0, 0, 3, 0)])), (0, 20, source_map([(0, 0, 0, 2, 0), (0, 5, 0, 2, 5)]))]
    table = sourcemap.read(index_map([*maps, (0, 0, source_map([(0, 0, 0, 1, 0)]))]))
    assert [answer(table, 0, column)[1] for column in (0, 19, 20, 25, 39, 40, 99)] == [1, 1, 2, 2, 2, 3, 3]


def test_a_bad_section_costs_itself() -> None:
    good = source_map([(0, 0, 0, 1, 1)])
    maps = [(0, 0, good), (1, 0, source_map(mappings="!")), (2, 0, source_map(mappings=4)), (3, 0, good)]
    table = sourcemap.read(index_map([*maps, (4, 0, source_map(mappings="ggggggE"))]))
    assert table.lines.tolist() == [0, 3]
    assert len(table.info["problems"]) == 3
    other = json.loads(index_map([(0, 0, good)]))
    other["sections"] += [7, {"offset": {"line": "x"}, "map": json.loads(good)}]
    table = sourcemap.read(json.dumps(other).encode())
    assert len(table) == 2
    assert len(table.info["problems"]) == 3


@pytest.mark.parametrize("line", ["1e300", "-5", "4294967295", "99999999999999999999", "1e999"])
def test_offsets_beyond_all_lines(line: str) -> None:
    data = index_map([(7, 0, source_map([(0, 0, 0, 1, 1)]))]).replace(b'"line": 7', b'"line": ' + line.encode())
    assert len(sourcemap.read(data)) == (1 if line == "1e999" else 0)


def test_offsets_may_be_written_as_floats() -> None:
    data = index_map([(7, 0, source_map([(0, 0, 0, 1, 1)]))]).replace(b'"line": 7', b'"line": 7.0')
    assert sourcemap.read(data).lines.tolist() == [7]


def test_no_sections() -> None:
    assert len(sourcemap.read(index_map([]))) == 0


# --- Any map --------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=8)


@given(st.lists(TEXT, max_size=4), st.lists(st.none() | TEXT, max_size=4), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_texts(listed: list[str], paths: list[str | None], seed: int, ascii_only: bool) -> None:
    rng = random.Random(seed)
    count = rng.randrange(30)
    rows = sorted(
        (rng.randrange(4), rng.randrange(30), rng.randrange(5), rng.randrange(9), rng.randrange(9), rng.randrange(5))
        for _ in range(count)
    )
    text = mappings(rows)
    value = {"names": listed, "mappings": text, "version": 3, "sources": paths}
    table = sourcemap.read(json.dumps(value, ensure_ascii=ascii_only).encode())
    expected = oracle.decode(text, len(paths), len(listed)).segments
    assert names(table) == listed
    assert [table.source(i) for i in range(len(paths))] == paths
    lines = np.repeat(table.lines, np.diff(table.first)).tolist()
    found = zip(lines, table.column.tolist(), table.place.tolist(), strict=True)
    assert [(a, b, *c) for a, b, c in found] == expected
    assert table.name(-1) is None
    assert table.name(len(listed)) is None
    assert table.source(len(paths)) is None
