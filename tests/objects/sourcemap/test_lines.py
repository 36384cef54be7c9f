"""Lines of sourcesContent, out of fresh maps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.objects import sourcemap
from oracle.sourcemap import LINE_BREAK
from synth.sourcemap import source_map

TEXT = st.text(alphabet=st.sampled_from('ab\n\r\u2028\u2029\t"\\é🔥\u0000'), max_size=30)


@given(st.lists(st.none() | TEXT, min_size=1, max_size=4), st.integers(-2, 6), st.integers(-1, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_lines(contents: list[str | None], first: int, count: int, ascii_only: bool) -> None:
    data = json.loads(source_map(sources=["x"] * len(contents), sourcesContent=contents))
    table = sourcemap.read(json.dumps(data, ensure_ascii=ascii_only).encode())
    for source, content in enumerate(contents):
        for _ in range(2):
            found = sourcemap.source_lines(table, source, first, count)
            if content is None:
                assert found is None
            else:
                begin = max(0, first)
                assert found == LINE_BREAK.split(content)[begin : max(begin, begin + count)]
    sourcemap.all_lines(table)
    for source, content in enumerate(contents):
        found = sourcemap.source_lines(table, source, 0, 99)
        assert found == (None if content is None else LINE_BREAK.split(content))


@pytest.mark.parametrize("source", [-1, 1, 99])
def test_sources_that_are_not_there(source: int) -> None:
    table = sourcemap.read(source_map(sources=["x"], sourcesContent=["y"]))
    assert sourcemap.source_lines(table, source, 0, 1) is None


def test_contents_that_are_no_text() -> None:
    table = sourcemap.read(source_map(sources=["x", "y"], sourcesContent=[{}, 5]))
    assert sourcemap.source_lines(table, 0, 0, 1) is None


def test_only_lines_asked_for_are_decoded() -> None:
    """A line with an escape that is none costs itself."""
    data = source_map(sources=["x"], sourcesContent=["good\nbad@\nfine"]).replace(b"@", b"\\x")
    table = sourcemap.read(data)
    assert sourcemap.source_lines(table, 0, 0, 9) == ["good", "", "fine"]


def test_many_sources_do_not_pile_up() -> None:
    table = sourcemap.read(source_map(sources=["x"] * 1000, sourcesContent=["a\nb"] * 1000))
    assert all(sourcemap.source_lines(table, i, 1, 1) == ["b"] for i in range(1000))
    assert len(table.decoded["lines"]) <= 256
