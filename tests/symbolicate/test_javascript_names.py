"""Names of functions that the minified script does not have: from the source's text, and from the call below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon.objects import sourcemap
from deadreckon.reports.javascript import parse_stack
from deadreckon.symbolicate.javascript import JavaScript
from deadreckon.symbols.maps import KeptMap
from deadreckon.symbols.scripts import Found
from synth.sourcemap import source_map

if TYPE_CHECKING:
    from deadreckon.symbols.scripts import Scripts, Wanted


class Shelf:
    """Has one script."""

    def __init__(self, script: str, data: bytes) -> None:
        self.found = Found(script.encode(), "a.js", KeptMap(sourcemap.read(data)), "a.js.map", "comment", "found")

    def find(self, _wanted: Wanted) -> Found:
        return self.found


def functions(script: str, data: bytes, *columns: int) -> list[tuple[str | None, str | None]]:
    """Return names of functions at columns (from 0) of a stack, innermost first, and who said them."""
    frames = parse_stack("Error\n" + "".join(f"    at http://x/a.js:1:{column + 1}\n" for column in columns))
    scripts: Scripts = Shelf(script, data)  # type: ignore[assignment]
    stacks = [frames]
    JavaScript(scripts).apply(stacks)
    return [(frame.function, (frame.origin or {}).get("function_from")) for frame in stacks[0]]


SCRIPT = "a(function(){b()});"
SOURCE = "each(function visit() { fail(); });"
EXACT = [(0, 0, 0, 0, 0), (0, 2, 0, 0, 5), (0, 13, 0, 0, 24)]


def test_a_name_that_the_minifier_dropped() -> None:
    data = source_map(EXACT, sources=["a.js"], sourcesContent=[SOURCE], names=["x"])
    assert functions(SCRIPT, data, 13) == [("visit", "source")]


@pytest.mark.parametrize(
    ("path", "source", "segments", "column"),
    [
        ("a.ts", SOURCE, EXACT, 13),  # types
        ("a.js", SOURCE + "<p>a</p>", EXACT, 13),  # tags
        ("a.js", SOURCE, EXACT, 14),  # no segment of its own
        ("a.js", SOURCE, [*EXACT[:2], (0, 13, 0, 0, 23)], 13),  # a blank
        ("a.js", SOURCE, [*EXACT[:2], (0, 13, 0, 0, 32)], 13),  # the end of an expression
        ("a.js", "each(map(() => { fail(); }));  ", EXACT, 13),  # no name of its own
        ("a.js", SOURCE, [(0, 0, 0, 0, 0), (0, 13, 0, 9, 9)], 13),  # not in the source
    ],
)
def test_where_the_source_says_nothing(path: str, source: str, segments: list[tuple[int, ...]], column: int) -> None:
    data = source_map(segments, sources=[path], sourcesContent=[source], names=["x"])
    assert functions(SCRIPT, data, column) == [(None, None)]


def test_minified_names_where_the_map_has_none() -> None:
    """Some bundlers' maps have no names at all; others' untranslated names may be the source's own."""
    script, source = "function a(){b()}", "function visit() { fail(); }"
    segments = [(0, 0, 0, 0, 0), (0, 9, 0, 0, 9), (0, 13, 0, 0, 19)]
    data = source_map(segments, sources=["a.js"], sourcesContent=[source], names=[])
    assert functions(script, data, 13) == [("visit", "source")]
    data = source_map(segments, sources=["a.js"], sourcesContent=[source], names=["other"])
    assert functions(script, data, 13) == [("a", "script")]


def test_private_names_that_were_mangled() -> None:
    script, source = "class a{#b(){c()}}", "class Cart { #audit() { fail(); } }"
    segments = [(0, 6, 0, 0, 6, 0), (0, 8, 0, 0, 13), (0, 13, 0, 0, 24)]
    data = source_map(segments, sources=["a.js"], sourcesContent=[source], names=["Cart"])
    assert functions(script, data, 13) == [("Cart.#audit", "source")]


@pytest.mark.parametrize(
    ("call", "at", "expected"),
    [
        ("c()", 0, "render"),
        ("c()", 1, "render"),  # JavaScriptCore's position
        ("(()=>c)()", 7, None),  # What is called has no name, though what ends before the call has one.
        ("c[0]()", 4, None),
    ],
)
def test_what_is_called_by_a_name(call: str, at: int, expected: str | None) -> None:
    script = f"a(()=>b());function d(){{{call}}}"
    start = script.index("{") + 1
    segments = [(0, 0, 0, 0, 0), (0, 6, 0, 0, 6), (0, 11, 0, 0, 11), (0, start + call.index("c"), 0, 1, 0, 0)]
    data = source_map(segments, names=["render"])
    assert functions(script, data, 6, start + at)[0] == (expected, "caller" if expected else None)


@pytest.mark.parametrize("name", ["call", "apply"])
def test_calling_call_calls_another(name: str) -> None:
    script = "a(()=>b());function d(){c.e()}"
    segments = [(0, 6, 0, 0, 6), (0, 24, 0, 1, 0), (0, 26, 0, 1, 2, 0)]
    assert functions(script, source_map(segments, names=[name]), 6, 26)[0] == (None, None)
