"""The scopes proposal: decoding, and the frames that it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.objects import sourcemap
from deadreckon.objects.sourcemap import OriginalFrame, frames_at
from deadreckon.objects.sourcemap.scopesfield import decode
from synth.sourcemap import index_map, signed, source_map, unsigned

if TYPE_CHECKING:
    from deadreckon.model.tables import SourceMapTable

NAMES = ["outer", "inner", "function", "x", "y", "_x"]


def item(tag: str, *values: int | str) -> str:
    """Return an item: numbers are unsigned, texts are taken as they are."""
    return tag + "".join(value if isinstance(value, str) else unsigned(value) for value in values)


def table(scopes: Any, **members: Any) -> SourceMapTable:
    return sourcemap.read(source_map(sources=["a.js", "b.js"], names=NAMES, scopes=scopes, **members))


# A function "outer" (line 0 to 9) with a block in it (line 3), and a function "inner" of the second source; "inner" is
# inlined into "outer" in the generated code, at a call on line 4, column 2 of the first source.
TREES = [
    *(item("B", 0, 0, 0), item("B", 7, 0, 4, signed(0), signed(2)), item("D", signed(3), signed(1))),
    *(item("B", 0, 3, 2), item("C", 2, 1), item("C", 4, 1), item("C", 1, 0)),
    *(item("B", 5, 1, 0, signed(1)), item("C", 1, 5)),
]
RANGES = [
    *(item("E", 2, 0, signed(0)), item("E", 6, 10, signed(1)), item("G", 6, 0), item("H", 1, 0, 5, 6, 1, 2, 0)),
    *(item("E", 2, 10, signed(1)), item("F", 10), item("E", 2, 10, signed(1)), item("I", 0, 4, 2), item("F", 10)),
    *(item("F", 50), item("E", 12, 10), item("F", 10), item("F", 2, 7)),
]
BOTH = ",".join([*TREES, *RANGES])


def test_rows() -> None:
    found, errors = decode(BOTH, 2, len(NAMES))
    assert errors == []
    assert found.scopes.tolist() == [
        [0, 0, 0, 10, 0, -1, -1, 0, -1],
        [0, 0, 4, 9, 1, 0, 2, 4, 0],
        [0, 3, 2, 5, 1, -1, -1, 0, 1],
        [1, 1, 0, 2, 5, 1, -1, 4, -1],
    ]
    assert found.variables.tolist() == [[1, 3], [1, 4]]
    assert found.ranges.tolist() == [
        [0, 0, 2, 7, 0, 0, -1, -1, -1, -1],
        [0, 10, 0, 100, 1, 4, 0, -1, -1, -1],
        [0, 20, 0, 30, 2, 0, 1, -1, -1, -1],
        [0, 40, 0, 50, 3, 0, 1, 0, 4, 2],
        [0, 110, 0, 120, -1, 12, 0, -1, -1, -1],
    ]
    assert found.bindings.tolist() == [[1, 0, 0, 10, 5], [1, 1, 0, 15, 5], [1, 1, 1, 2, -1]]


def test_frames() -> None:
    maps = table(BOTH)
    assert frames_at(maps, 0, 15, (0, 1, 1)) == [OriginalFrame("outer", 0, 1, 1)]
    assert frames_at(maps, 0, 25, (0, 3, 7)) == [OriginalFrame("outer", 0, 3, 7)]
    inlined = [OriginalFrame("inner", 1, 1, 3), OriginalFrame("outer", 0, 4, 2)]
    assert frames_at(maps, 0, 45, (1, 1, 3)) == inlined
    assert frames_at(maps, 0, 115, (0, 3, 0)) == []
    assert frames_at(maps, 0, 105, (0, 9, 0)) is None  # Outside of every function.
    assert frames_at(maps, 9, 0, (0, 9, 0)) is None
    assert frames_at(table(""), 0, 0, (0, 0, 0)) is None


def test_frames_inlined_into_the_top_level() -> None:
    scopes = [item("B", 5, 0, 0, signed(1)), item("C", 1, 0), item("E", 0, 0), item("E", 2, 5, signed(0))]
    maps = table(",".join([*scopes, item("I", 1, 7, 3), item("F", 5), item("F", 5)]))
    assert frames_at(maps, 0, 6, (0, 0, 2)) == [OriginalFrame("inner", 0, 0, 2), OriginalFrame(None, 1, 7, 3)]


def test_scopes_of_sections() -> None:
    part = source_map(sources=["a.js", "b.js"], names=NAMES, scopes=BOTH)
    maps = sourcemap.read(index_map([(0, 0, part), (5, 1000, part)]))
    inlined = [OriginalFrame("inner", 1, 1, 3), OriginalFrame("outer", 0, 4, 2)]
    assert frames_at(maps, 0, 45, (1, 1, 3)) == inlined
    inlined = [OriginalFrame("inner", 3, 1, 3), OriginalFrame("outer", 2, 4, 2)]
    assert frames_at(maps, 5, 1045, (3, 1, 3)) == inlined
    found = sourcemap.scopes(maps)
    assert len(found.scopes) == 8
    assert found.scopes[4:, 0].tolist() == [2, 2, 2, 3]
    assert found.ranges[5].tolist() == [5, 1000, 7, 7, 4, 0, -1, -1, -1, -1]
    assert found.bindings[3:, 0].tolist() == [6, 6, 6]
    assert [maps.name(int(row[5])) for row in found.scopes] == [None, "outer", None, "inner"] * 2


def test_sources_without_scopes() -> None:
    for empty in ("", "A"):
        found, errors = decode(f"{empty},{item('B', 0, 5, 0)},{item('C', 1, 0)}", 2, 0)
        assert found.scopes[:, 0].tolist() == [1]
        assert errors == []


def test_later_drafts() -> None:
    """Unknown items, and numbers that an item has beyond those it needs, are ignored."""
    trees = [text + unsigned(99) if text[0] in "BCE" else text for text in [*TREES, *RANGES]]
    found, errors = decode(",".join([trees[0], "KAAA", *trees[1:], "kB"]), 2, len(NAMES))
    assert errors == []
    assert found.ranges.tolist() == decode(BOTH, 2, len(NAMES))[0].ranges.tolist()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("BA", "item 0 has too few numbers"),
        ("CAA", "item 0 stands outside of a scope"),
        ("DA", "item 0 stands outside of a scope"),
        ("BAAA", "a scope or range has no end"),
        ("BBAA,CAA", "item 0 has too few numbers"),
        ("BCAA,CAA", "item 0 has too few numbers"),
        ("BBAAC,CAA", "item 0 names an index that is not there"),
        ("BAAA,DC,CAA", "item 1 names an index that is not there"),
        (",,BAAA,CAA", "item 2 is of a source that is not there"),
        ("FA", "item 0 stands outside of a range"),
        ("GA", "item 0 stands outside of a range"),
        ("EBA,FA", "item 0 has too few numbers"),
        ("ECAA,FA", "item 0 names a scope that is not there"),
        ("EIA,FA", "item 0 is hidden and no function"),
        ("EAA,ICAA,FA", "item 1 names a source that is not there"),
        ("EAA,GC,FA", "item 1 names an index that is not there"),
        ("EAA,HAAA,FA", "item 1 has too few numbers"),
        ("BAAA;CAA", "not items of VLQs with commas between them"),
        ("B$", "not items of VLQs with commas between them"),
    ],
)
def test_errors(text: str, error: str) -> None:
    found, errors = decode(text, 1, 1)
    assert error in errors
    assert frames_at(table(text), 0, 0, (0, 0, 0)) in (None, [])
    assert len(found.scopes) <= 1


def test_numbers_stay_in_their_columns() -> None:
    found, _ = decode(",".join([item("B", 0, (1 << 32) - 1, 5), item("C", (1 << 32) - 1, 5)] * 2), 9, 0)
    assert found.scopes[:, 1:5].tolist() == [[0x7FFF_FFFF, 5, 0x7FFF_FFFF, 5]] * 2


def test_deep_nesting() -> None:
    text = ",".join(
        [item("B", 4, 0, 1)] * 5000 + [item("C", 0, 1)] * 5000 + [item("E", 0, 1)] * 5000 + [item("F", 1)] * 5000
    )
    maps = table(text)
    assert len(sourcemap.scopes(maps).ranges) == 5000
    assert frames_at(maps, 0, 5000, (0, 0, 0)) is None


def test_a_text_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadreckon.objects.sourcemap.scopesfield._MAX_TEXT", 10)
    found, errors = decode(BOTH, 2, len(NAMES))
    assert not len(found.scopes)
    assert errors == ["more than 10 characters"]
