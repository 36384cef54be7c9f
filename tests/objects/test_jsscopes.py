"""Function names of minified scripts, translated by their maps; symbolic is the oracle, its known defects left out."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from symbolic.sourcemapcache import SourceMapCache

from deadreckon.objects import sourcemap
from deadreckon.objects.jsscopes import FunctionScopes, read_scopes

if TYPE_CHECKING:
    from pathlib import Path
from synth.sourcemap import source_map


def name_at(found: FunctionScopes, script: str, marker: str, data: bytes | None) -> str | None:
    """Return the name of the function around the first place of a text in a script of one line."""
    table = sourcemap.read(data) if data is not None else None
    scope = int(found.around([0], [script.index(marker)])[0])
    name = found.names([scope], table).get(scope)
    return name.text if name is not None else None


def named_by(script: str, names: dict[int, str], marker: str = "!", *, every: bool = True) -> str | None:
    """Return the name of the function that holds a marker, with a map that names columns of the one line."""
    listed = sorted(set(names.values()))
    segments = [
        (0, at, 0, 0, at, listed.index(names[at])) if at in names else (0, at, 0, 0, at)
        for at in range(len(script))
        if every or at in names
    ]
    return name_at(read_scopes(script.encode()), script, marker, source_map(segments, names=listed))


@pytest.mark.parametrize(
    ("script", "names", "expected"),
    [
        ("function a(){!0}", {9: "original"}, "original"),
        ("x=function(){!0}", {0: "original"}, "original"),
        ("a.b=function(){!0}", {0: "Module", 2: "render"}, "Module.render"),
        ("a.b={c:()=>!0}", {0: "exports", 2: "api", 5: "load"}, "exports.api.load"),
        ("a[b]=()=>!0", {0: "table", 2: "key"}, "table[key]"),
        ("class a{b(){!0}}", {6: "Cart", 8: "total"}, "Cart.total"),
        ("class a{get b(){!0}}", {6: "Cart", 12: "total"}, "get Cart.total"),
        ("class a{x=1;constructor(){!0}}", {6: "Cart"}, "new Cart"),
        ("class a{#b(){!0}}", {6: "Cart", 8: "audit"}, "Cart.#audit"),
        ("class a{#b(){!0}}", {6: "Cart", 10: "#audit"}, "Cart.#audit"),
        ("({'a b':1,\"q\"(){!0}})", {}, '<object>.<"q">'),
        ("(()=>!0)()", {}, None),
        ("a=()=>!0", {}, "a"),
    ],
)
def test_identifiers_are_translated(script: str, names: dict[int, str], expected: str | None) -> None:
    assert named_by(script, names) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("function a(){!0}", True),
        ("x = function(){!0}", True),
        ("ü =\n  async () => !0", True),
        ("a.b = {c: () => !0}", True),
        ("class a{b(){!0}}", True),
        ("a = b(() => !0)", False),
        ("a = b || function(){!0}", False),
        ("(()=>!0)()", False),
    ],
)
def test_engines_name_functions_by_what_they_are_assigned_to(script: str, expected: bool) -> None:
    found = read_scopes(script.encode())
    before = script[: script.index("!")].split("\n")
    (scope,) = found.around([len(before) - 1], [len(before[-1])]).tolist()
    assert found.names_itself(scope) is expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Cart { total() {} }", "Cart.total"),
        ("class _Cart { total() {} }", "Cart._Cart.total"),
        ("class Carts { total() {} }", "Cart._Cart.total"),
    ],
)
def test_classes_that_esbuild_renamed(source: str, expected: str) -> None:
    """A class that refers to itself becomes ``var Cart = class _Cart``; the source tells what is of esbuild."""
    script = "var a=class b{c(){!0}}"
    names = ["Cart", "_Cart", "total"]
    segments = [(0, 4, 0, 0, 6, 0), (0, 12, 0, 0, 6, 1), (0, 14, 0, 0, 13, 2), (0, 17, 0, 0, 20)]
    assert name_at(
        read_scopes(script.encode()), script, "!", source_map(segments, names=names, sourcesContent=[source])
    ) == (expected)


def test_private_names_without_a_name_in_the_map_are_known_to_be_mangled() -> None:
    table = sourcemap.read(source_map([(0, 0, 0, 0, 0), (0, 6, 0, 0, 6, 0)], names=["Cart"]))
    found = read_scopes(b"class a{#b(){!0}c(){}}")
    assert [(name.text, name.mangled) for name in found.names(range(3), table).values() if name is not None] == [
        ("new Cart", False),
        ("Cart.#b", True),
        ("Cart.c", False),
    ]


def test_a_segment_one_column_before_counts() -> None:
    """Some generators count the column in front of an identifier; tests of symbolic call it off by one."""
    assert named_by("var a=()=>!0", {3: "original"}, every=False) == "original"
    assert named_by("var  a=()=>!0", {3: "original"}, every=False) == "a"


def test_typescript_names_the_keyword() -> None:
    """TypeScript puts the name on ``function``; the identifier behind it leads to the same place, without a name."""
    script = "function a(){!0}"
    same = source_map([(0, 0, 0, 5, 2, 0), (0, 9, 0, 5, 2)], names=["original"])
    other = source_map([(0, 0, 0, 5, 2, 0), (0, 9, 0, 5, 11)], names=["original"])
    assert name_at(read_scopes(script.encode()), script, "!", same) == "original"
    assert name_at(read_scopes(script.encode()), script, "!", other) == "a"


def test_dart_names_the_closing_brace() -> None:
    script = "a=function(b){!0};c()"
    assert named_by(script, {16: "main.<fn>"}) == "main.<fn>"
    # A name that is there for more than the brace belongs to something else.
    assert named_by(script, {16: "other"}, every=False) == "other"
    longer = source_map([(0, 16, 0, 1, 1, 0), (0, 19, 0, 1, 2)], names=["other"])
    assert name_at(read_scopes(script.encode()), script, "!", longer) == "a"


def test_an_arrow_function_is_not_named_by_its_end() -> None:
    """Symbolic 13.9 calls it ``lineNumber``, by the last identifier in it."""
    assert named_by("run(e=>e+n)", {9: "lineNumber"}, "e+") is None
    assert named_by("run(e=>e+n)", {9: "lineNumber", 10: "close"}, "e+") is None


def test_a_dot_is_between_member_and_key() -> None:
    """Symbolic 13.9 writes ``a.bc``."""
    script = "a.b={c:function(){!0}}"
    assert name_at(read_scopes(script.encode()), script, "!", None) == "a.b.c"


def test_long_names_are_cut() -> None:
    script = "a" + ".b" * 10_000 + "=function(){!0};({'" + "k" * 10_000 + "'(){?0}})"
    found = read_scopes(script.encode())
    assert name_at(found, script, "!", None) == ".".join("b" * 64)
    assert len(name_at(found, script, "?", None) or "") < 300


def test_positions_count_utf16_units() -> None:
    script = "'😀é漢';function f(){!0}"
    column = len(script[: script.index("!")].encode("utf-16-le")) // 2
    found = read_scopes(script.encode())
    assert found.around([0, 0, 0, 1], [column, 6, 7, 0]).tolist() == [0, -1, 0, -1]


def test_an_empty_script_has_no_functions() -> None:
    found = read_scopes(b"")
    assert found.around([0, 5], [0, 9]).tolist() == [-1, -1]
    assert found.names([0, -1, 7], None) == {}


@pytest.mark.corpus
def test_snippets_of_js_source_scopes(corpus: Path) -> None:
    for case in json.loads((corpus / "sourcemap/js-source-scopes/scope_names.json").read_text())["cases"]:
        found = read_scopes(case["src"].encode())
        order = np.lexsort((found.scopes[:, 1], found.scopes[:, 0])).tolist()
        names = found.names(order, None)
        assert [name.text if (name := names[at]) is not None else None for at in order] == case["names"]


@pytest.mark.corpus
def test_stack_of_js_source_scopes(corpus: Path) -> None:
    folder = corpus / "sourcemap/js-source-scopes"
    expected = json.loads((folder / "trace_sync_scopes.json").read_text())
    found = read_scopes((folder / expected["file"]).read_bytes())
    for line, column, wanted in expected["rows"]:
        scope = int(found.around([line - 1], [column - 1])[0])
        name = found.names([scope], None)[scope]
        assert (name.text if name is not None else None) == wanted


BUNDLES = {
    "real/hls.js__hls.min.js": 99.5,
    "real/preact__preact.mjs": 100.0,
    "real/rxjs__rxjs.umd.min.js": 98.0,
    "real/turbopack-prod__page.js": 100.0,
    "js-source-scopes/vendors/vendors.js": 100.0,
}


@pytest.mark.corpus
@pytest.mark.parametrize("bundle", BUNDLES)
def test_real_bundles_agree_with_symbolic(corpus: Path, bundle: str) -> None:
    """What differs are dots that symbolic loses, and arrow functions that it names by their last identifier."""
    script = (corpus / "sourcemap" / bundle).read_bytes()
    data = (corpus / "sourcemap" / f"{bundle}.map").read_bytes()
    table = sourcemap.read(data)
    lines = np.repeat(table.lines, np.diff(table.first))
    chosen = random.Random(42).sample(range(len(table)), min(1500, len(table)))
    found = read_scopes(script)
    scopes = found.around(lines[chosen], table.column[chosen]).tolist()
    names = found.names(scopes, table)
    cache = SourceMapCache.from_bytes(script, data)
    asked = equal = 0
    for at, scope in zip(chosen, scopes, strict=True):
        token = cache.lookup(int(lines[at]) + 1, int(table.column[at]) + 1, 0)
        if token is None:
            continue
        name = names.get(scope)
        ours = "<unknown>" if scope < 0 else name.text if name is not None else "<anonymous>"
        asked += 1
        equal += ours == token.function_name
    assert asked > 1000
    assert 100 * equal / asked >= BUNDLES[bundle]
