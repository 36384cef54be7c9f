"""Function names by original position: Metro's and Bloomberg's extensions."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.kernels.positions import look_up_functions
from deadreckon.objects import sourcemap
from synth.sourcemap import function_map, index_map, signed, source_map

if TYPE_CHECKING:
    from deadreckon.model.tables import SourceMapTable

SOURCES = ["a.js", "b.js", "c.js"]


def name_at(table: SourceMapTable, source: int, line: int, column: int) -> str | None:
    functions = sourcemap.functions(table)
    (index,) = look_up_functions(functions, np.array([[source, line, column, -1]], np.int32)).tolist()
    return functions.name(index)


def metro(*maps: Any, **members: Any) -> SourceMapTable:
    return sourcemap.read(source_map(sources=SOURCES, x_facebook_sources=list(maps), **members))


def test_function_maps() -> None:
    first = function_map([(0, 0, "<global>"), (0, 9, "outer"), (4, 2, "inner"), (7, 0, "outer"), (9, 1, "<global>")])
    last = function_map([(2, 3, "<global>"), (2, 3, "né\ud83d")])
    table = metro([first], None, [last, {"other": 1}])
    assert [name_at(table, 0, *at) for at in ((0, 0), (0, 8), (0, 9), (4, 1), (4, 2), (6, 99), (9, 0), (99, 0))] == [
        *("<global>", "<global>", "outer", "outer", "inner", "inner", "outer", "<global>"),
    ]
    assert name_at(table, 1, 0, 0) is None
    assert name_at(table, 2, 2, 2) is None
    assert name_at(table, 2, 2, 3) == "né\ufffd"
    assert sourcemap.functions(table).origin.tolist() == [1, 0, 1]
    assert sourcemap.functions(table) is sourcemap.functions(table)


@pytest.mark.parametrize(
    "bad",
    [
        *({}, {"names": [], "mappings": 4}, {"names": 4, "mappings": "AAA"}, {"mappings": "AAA"}, 4, [], "x"),
        *({"names": ["x"], "mappings": text} for text in ("", ";;,", "A", "AAAA", "A!A", "g", "AAA,ggggggEA")),
        {"names": ["x"], "mappings": "ADD"},  # A line above the first.
    ],
)
def test_a_bad_function_map_costs_its_source(bad: Any) -> None:
    good = function_map([(0, 0, "good"), (1, 0, "better")])
    table = metro([good], [bad], [good])
    assert name_at(table, 1, 5, 5) is None
    assert [name_at(table, source, line, 3) for source in (0, 2) for line in (0, 1)] == ["good", "better"] * 2


def test_names_that_are_not_there_are_unknown() -> None:
    table = metro([{"names": ["x", 5], "mappings": "AAA,CCA,CCA,CDA"}])
    assert [name_at(table, 0, 0, column) for column in range(4)] == ["x", None, None, None]


def test_many_function_maps() -> None:
    rng = random.Random(4)
    rows = {}
    for source in range(60):
        places = sorted({(rng.randrange(50), rng.randrange(50)) for _ in range(rng.randrange(20))})
        rows[source] = [(*place, rng.choice(["f", "g", f"h{source}"])) for place in places]
    maps = [[function_map(rows[source])] if rows[source] else None for source in range(60)]
    table = sourcemap.read(source_map(sources=[f"{i}.js" for i in range(60)], x_facebook_sources=maps))
    for source in range(60):
        for _ in range(20):
            place = rng.randrange(52), rng.randrange(52)
            expected = [row[2] for row in rows[source] if row[:2] <= place]
            assert name_at(table, source, *place) == (expected[-1] if expected else None)


def test_function_maps_of_sections() -> None:
    parts = [
        source_map(sources=["a"], x_facebook_sources=[[function_map([(0, 0, "one")])]]),
        source_map(sources=["b", "c"], x_facebook_sources=[None, [function_map([(0, 0, "two")])]]),
    ]
    table = sourcemap.read(index_map([(0, 0, parts[0]), (5, 0, parts[1])]))
    assert [name_at(table, source, 0, 0) for source in range(4)] == ["one", None, "two", None]


# --- Bloomberg ------------------------------------------------------------------------------------------------------


def pasta(rows: list[tuple[int, int, int, int, int]]) -> str:
    """Return the mappings of ranges: name, start line and column, end line and column; nested, sorted by start."""
    before = (0, 0, 0, 0, 0)
    items = []
    for row in rows:
        name, line, column, end_line, end_column = row
        fields = (name - before[0], line - before[3], column - before[2], end_line - line, end_column - before[4])
        items.append("".join(map(signed, fields)))
        before = row
    return ",".join(items)


def test_the_specifications_example() -> None:
    """spec.md of pasta-sourcemaps gives these two texts and what they say."""
    assert pasta([(0, 0, 19, 6, 0), (1, 4, 38, 5, 4)]) == "AAmBMA,CFmBCI"
    table = sourcemap.read(
        source_map(
            sources=["barilla.ts", "muellers.ts"],
            names=["penne", "fusilli", "orzo"],
            x_com_bloomberg_sourcesFunctionMappings=["AAmBMA,CFmBCI", "EAUA+E"],
        )
    )
    assert [name_at(table, 0, *at) for at in ((0, 18), (0, 19), (4, 37), (4, 38), (5, 3), (5, 4), (5, 99), (6, 0))] == [
        *(None, "penne", "penne", "fusilli", "fusilli", "penne", "penne", None),
    ]
    assert [name_at(table, 1, 0, column) for column in (9, 10, 78, 79)] == [None, "orzo", "orzo", None]
    assert sourcemap.functions(table).origin.tolist() == [2, 2]


def test_neighbours_and_ranges_without_names() -> None:
    rows = [(0, 0, 0, 9, 0), (1, 1, 0, 1, 5), (2, 1, 5, 1, 9), (7, 2, 0, 3, 0), (3, 4, 0, 4, 0)]
    table = sourcemap.read(
        source_map(sources=["a"], names=list("abcd"), x_com_bloomberg_sourcesFunctionMappings=[pasta(rows)])
    )
    places = ((0, 0), (1, 4), (1, 5), (1, 9), (2, 0), (3, 0), (4, 0), (9, 0))
    assert [name_at(table, 0, *at) for at in places] == ["a", "b", "c", "a", None, "a", "a", None]


@pytest.mark.parametrize(
    "bad", [None, 4, "", "A", "AAAA", "AAAAA;AAAAA", "AAA!A", "ADAAA", pasta([(0, 5, 0, 6, 0)]) + ",ANAAA"]
)
def test_a_bad_text_costs_its_source(bad: Any) -> None:
    good = pasta([(0, 0, 0, 5, 0)])
    table = sourcemap.read(
        source_map(sources=["a", "b"], names=["f"], x_com_bloomberg_sourcesFunctionMappings=[bad, good])
    )
    assert name_at(table, 0, 5, 0) is None
    assert name_at(table, 1, 4, 0) == "f"


def test_metros_names_come_before_bloombergs() -> None:
    both = [pasta([(0, 0, 0, 5, 0)])] * 2
    members = {"names": ["theirs"], "x_com_bloomberg_sourcesFunctionMappings": both}
    table = metro(None, [function_map([(0, 0, "metro's")])], **members)
    assert [name_at(table, source, 1, 0) for source in range(3)] == ["theirs", "metro's", None]


def test_fields_of_no_use() -> None:
    values: tuple[Any, ...] = (5, "AAA", {"a": 1}, [], [[]], [[[]]])
    for value in values:
        table = sourcemap.read(source_map(x_facebook_sources=value, x_com_bloomberg_sourcesFunctionMappings=value))
        assert len(sourcemap.functions(table).at) == 0
    broken = source_map(x_facebook_sources=["@"]).replace(b'"@"', b"nul")
    assert len(sourcemap.functions(sourcemap.read(broken)).at) == 0


def test_texts_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = metro([function_map([(0, 0, "one")])])
    monkeypatch.setattr("deadreckon.objects.sourcemap.functionmaps._MAX_JSON", 10)
    assert name_at(table, 0, 0, 0) is None
    monkeypatch.undo()
    monkeypatch.setattr("deadreckon.objects.sourcemap.functionmaps._MAX_MAPPINGS", 1)
    table = metro([function_map([(0, 0, "one")])])
    assert name_at(table, 0, 0, 0) is None


def test_json_that_only_python_reads() -> None:
    data = source_map(sources=["a"], x_facebook_sources=[[function_map([(0, 0, "\ud83d")])]])
    assert b"\\ud83d" in data
    assert name_at(sourcemap.read(data), 0, 0, 0) == "\ufffd"
    assert json.loads(data)
