"""The strict reading: which errors it tells, and where they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deadreckon.config import MapLimits
from deadreckon.errors import LimitExceeded
from deadreckon.objects import sourcemap
from synth.sourcemap import index_map, source_map

GOOD = source_map([(0, 0, 0, 1, 1, 0), (0, 5), (1, 0, 1, 2, 2)])


def errors(data: bytes) -> list[str]:
    return [str(error) for error in sourcemap.check(data)]


@pytest.mark.parametrize(
    "data",
    [
        *(GOOD, b"\xef\xbb\xbf" + GOOD, b")]}'\n" + GOOD, source_map(), index_map([]), index_map([(0, 0, GOOD)])),
        *(index_map([(0, 0, GOOD), (1, 1, GOOD)]), source_map(names=...), source_map(version=3.0)),
        source_map([(0, 0, 0, 0, 0)], file="f", sourceRoot="r", sourcesContent=[None], ignoreList=[0], other={}),
        source_map(sources=["\ud800"], debugId="1" * 32, scopes="", rangeMappings="", x_google_ignoreList=[]),
    ],
)
def test_conforming(data: bytes) -> None:
    assert errors(data) == []


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"version": "3"}, ["version: expected the number 3"]),
        ({"version": ...}, ["version: expected the number 3"]),
        ({"version": True}, ["version: expected the number 3"]),
        ({"file": None}, ["file: expected a string"]),
        ({"sourceRoot": 1}, ["sourceRoot: expected a string"]),
        ({"sources": ["a", 1, None]}, ["sources[1]: expected a string or null"]),
        ({"sources": ...}, ["sources: expected an array"]),
        ({"names": ["a", None]}, ["names[1]: expected a string"]),
        ({"names": {}}, ["names: expected an array"]),
        ({"sourcesContent": "a"}, ["sourcesContent: expected an array"]),
        ({"ignoreList": [0]}, ["ignoreList[0]: expected the index of one of 0 sources"]),
        ({"x_google_ignoreList": 0}, ["x_google_ignoreList: expected an array"]),
        ({"debugId": "x"}, ["debugId: expected a UUID"]),
        ({"mappings": None}, ["mappings: expected a string"]),
        ({"mappings": "A;AA"}, ["mappings: offset 2: a segment of other than 1, 4 or 5 numbers"]),
        ({"mappings": "A;A€"}, ["mappings: offset 3: a character that is neither a base64 digit nor a separator"]),
        ({"mappings": "A,g"}, ["mappings: offset 3: a number that ends with a continuation digit"]),
        ({"mappings": "A,,A"}, ["mappings: offset 2: an empty segment"]),
        ({"mappings": "D,AAAA,AAAA"}, [
            "mappings: offset 0: a generated position below 0 or beyond 31 bits",
            "mappings: offset 2: a generated position below 0 or beyond 31 bits",
            "mappings: offset 7: a generated position below 0 or beyond 31 bits",
        ]),
        ({"mappings": "AAAA"}, ["mappings: offset 0: a source index or original position out of range"]),
        ({"mappings": "AAAAA", "sources": [None]}, ["mappings: offset 0: a name index out of range"]),
        ({"rangeMappings": "A", "mappings": "A"}, ["rangeMappings: segments are counted from 1"]),
        ({"rangeMappings": "C", "mappings": "A"}, ["rangeMappings: counts segments that are not there"]),
        ({"scopes": "C"}, ["scopes: item 0 has too few numbers"]),
        ({"scopes": "%"}, ["scopes: not items of VLQs with commas between them"]),
    ],
)  # fmt: skip
def test_errors(members: dict[str, Any], expected: list[str]) -> None:
    assert errors(source_map(**members)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "offset 0: expected JSON: Expecting value"),
        (b"[]", "expected an object"),
        (b'\xef\xbb\xbf{"a":}', "offset 8: expected JSON: Expecting value"),
        (b'{"a":NaN}', "expected JSON: NaN is no JSON"),
        (b'{"a":"\n"}', "offset 6: expected JSON: Invalid control character at"),
        (
            b"[" * 100_000,
            "expected JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        ),
    ],
)
def test_no_json(data: bytes, expected: str) -> None:
    assert errors(data) == [expected]


def test_no_utf8() -> None:
    assert errors(GOOD.replace(b"name0", b"nam\xe9")) == [f"offset {GOOD.index(b'name0') + 3}: expected UTF-8"]


def test_sections() -> None:
    assert errors(b'{"version":3,"sections":4}') == ["sections: expected an array"]
    assert errors(b'{"version":3,"sections":[4]}') == ["sections[0]: expected an object"]
    assert errors(b'{"version":3,"sections":[{}]}') == [
        "sections[0].offset: expected an object",
        "sections[0].map: expected an object",
    ]
    assert errors(index_map([(0, 0, GOOD)], mappings="AAAA")) == ["mappings: an index map has none of its own"]
    assert errors(index_map([(0, 0, source_map(version=2))])) == ["sections[0].map.version: expected the number 3"]
    after = "expected a place after"
    assert errors(index_map([(1, 5, GOOD), (1, 4, GOOD)])) == [f"sections[1].offset: {after} the section before"]
    assert errors(index_map([(0, 0, GOOD), (0, 0, GOOD)])) == [f"sections[1].offset: {after} the section before"]
    overlapping = index_map([(0, 10, source_map([(0, 5)])), (0, 14, GOOD)])
    assert errors(overlapping) == [f"sections[1].offset: {after} the mappings of the section before"]
    assert errors(index_map([(0, 10, source_map([(0, 5)])), (0, 15, GOOD)])) == []
    nested = index_map([(0, 0, index_map([]))])
    assert errors(nested) == ["sections[0].map.sections: a section's map is no index map"]
    bad = json.loads(index_map([(0, 0, GOOD)]))
    bad["sections"][0]["offset"] = {"line": -1, "column": True}
    assert errors(json.dumps(bad).encode()) == [
        "sections[0].offset.line: expected an integer of 31 bits",
        "sections[0].offset.column: expected an integer of 31 bits",
    ]


def test_errors_are_no_more_than_a_thousand() -> None:
    assert len(errors(source_map(names=[None] * 5000))) == 1000
    assert len(errors(source_map(mappings=",".join(["D"] * 5000)))) == 1000


def test_limits() -> None:
    for limits in (MapLimits(max_bytes=10), MapLimits(max_segments=2)):
        with pytest.raises(LimitExceeded):
            sourcemap.check(GOOD, limits)
    for limits in (MapLimits(max_sections=1), MapLimits(max_depth=1)):
        with pytest.raises(LimitExceeded):
            sourcemap.check(index_map([(0, 0, index_map([])), (1, 0, GOOD)]), limits)
