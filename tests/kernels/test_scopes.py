"""The scanner of scopes against scripts whose functions are known, and what it makes of broken ones."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.kernels import _scoping as columns
from deadreckon.kernels import _words as words
from deadreckon.kernels.nesting import flatten
from deadreckon.kernels.scopes import Scan, scan
from deadreckon.objects.jsscopes import read_scopes
from synth.script import Script, script

Found = list[tuple[tuple[int, int], tuple[int, int], str]]


def scanned(text: str | bytes) -> Scan:
    return scan(np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8))


def places(text: str) -> list[tuple[int, int]]:
    """Return the line and UTF-16 column of every character, and of the end, as ECMA-262 ends lines."""
    found = []
    line = column = 0
    for character, following in pairwise([*text, "", ""]):
        found.append((line, column))
        if character in "\n\u2028\u2029" or (character == "\r" and following != "\n"):
            line, column = line + 1, 0
        else:
            column += 2 if character > "\uffff" else 1
    return found


def functions(text: str) -> Found:
    """Return the functions that are found, in order: where they are, and their names."""
    found = read_scopes(text.encode())
    names = found.names(range(len(found.scopes)), None)
    rows = [
        ((row[0], row[1]), (row[2], row[3]), name.text if (name := names[at]) is not None else "")
        for at, row in enumerate(found.scopes.tolist())
    ]
    return sorted(rows)


def named(text: str) -> list[str]:
    return [name for _, _, name in functions(text)]


def written(made: Script) -> Found:
    at = places(made.text)
    return sorted((at[start], at[end], name or "") for start, end, name in made.functions)


@pytest.mark.parametrize("seed", range(150))
def test_finds_what_was_written(seed: int) -> None:
    made = script(seed)
    assert functions(made.text) == written(made)


@given(st.integers(1 << 20, 1 << 40), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_finds_what_was_written_at_random(seed: int, statements: int, depth: int) -> None:
    made = script(seed, statements, depth)
    assert functions(made.text) == written(made)


def test_words_have_places_of_their_own() -> None:
    for kind, texts in words._WORDS:
        for text in texts.split():
            found = words.word(np.frombuffer(f"({text})".encode(), np.uint8), 1, 1 + len(text))
            assert found == kind, text
    for text in ("e", "functions", "instanceId", "constructors", "iff", "", "x" * 40):
        data = np.frombuffer(f"({text})".encode(), np.uint8)
        assert words.word(data, 1, len(data) - 1) == words.PLAIN, text


@pytest.mark.parametrize(
    "broken",
    [
        "<div>it's</div>",
        "var await = 1, yield, let = 2",
        "x = /unfinished",
        'y = "unfinished',
        "@decorated",
        "#stray",
        "a ? b",
        ")",
        "]",
        "{[(",
        "`${",
        "\\u{",
        "=>",
        "function",
        "class",
        "function (",
        "async",
        "case:",
        "1..2..3",
        "\ufeff\u00a0",
        "<!-- old",
    ],
)
def test_a_broken_token_costs_its_own_place(broken: str) -> None:
    """A parser that gives up at one token costs a bundle all of its names."""
    text = (
        f"var m = {{\n one: function(e){{ return e }},\n two: function(){{ {broken}\n }},\n}};\nfunction last(){{}}\n"
    )
    found = functions(text)
    assert ((1, 6), (1, 29), "m.one") in found
    assert any(name == "m.two" for _, _, name in found)
    after = functions(f"function before(){{}}\n{broken}\nfunction behind(){{}}\n")
    assert ((0, 0), (0, 19), "before") in after


def test_what_follows_a_broken_line_is_found() -> None:
    """Strings and expressions end with their line, brackets with the one around them."""
    for broken in ("it's", '"', "x = /[", "(]", "[)", "{ ( [ }"):
        assert "behind" in named(f"function broken(){{ {broken}\n }}\nfunction behind(){{}}"), broken


@pytest.mark.parametrize("start", ["#!/usr/bin/env node\n", "\ufeff", "// a\n/* b\n*/", "\r\n \t", "\u2028"])
def test_what_scripts_begin_with(start: str) -> None:
    line = places(start)[-1][0]
    column = 0 if start == "\ufeff" else places(start)[-1][1]
    assert functions(f"{start}function f(){{}}") == [((line, column), (line, column + 14), "f")]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a = b\nfoo(function(){})", [""]),
        ("a = b\n(function(){})", ["a"]),
        ("a = b\n++c\nd(()=>1)", [""]),
        ("a\n= function(){}", ["a"]),
        ("x = a ? b : c\ny(function(){})", [""]),
        ("return\nx = () => 1", ["x"]),
        ("x = () => a\n.then(function(){})", ["x", ""]),
        ("x = () => a\ny = () => b", ["x", "y"]),
        ("class A { f = () => 1\n g = function(){}\n h(){} }", ["new A", "A.f", "A.g", "A.h"]),
        ("class A { get\n x(){} static\n y(){} }", ["new A", "get A.x", "A.y"]),
        ("a = b /c/ function(){} /d", ["a"]),
        ("if (a) /=>{/.test(b); x = () => 1", ["x"]),
        ("a = {} / 2; b = {} / (() => 1)", ["b"]),
        ("}/function(){/; x = () => 1", ["x"]),
        ("x = async\n(() => 1)", ["x"]),
        ("x = yes?(a)=>1:(b)=>2", ["x", "x"]),
        ("x = y = z => w => 1", ["y", ""]),
        ("for await (const x of (function(){})()) {}", [""]),
        ("x = `a${`b${() => 1}`}`, y = () => 2", ["x", "y"]),
        ("var {a = () => 1, b: {c = function(){}}} = d", ["", ""]),
        ("function f({a = () => 1} = {}, [b = () => 2]) {}", ["f", "", ""]),
        ("a.b = class c { d(){} }", ["new a.b.c", "a.b.c.d"]),
        ("a[0] = function b(){}", ["a.b"]),
        ("this.#x = () => 1", ["this.#x"]),
        ("f().a = () => 1; b = f().a = () => 2", ["", "b"]),
        ("export default function(){}", [""]),
        ("export default { a(){} }", ["<object>.a"]),
        ("import {a as b} from 'c'; export {d}; x = () => 1", ["x"]),
        ("new (class { m(){} })", ["", "m"]),
    ],
)
def test_names(text: str, names: list[str]) -> None:
    assert named(text) == names


def test_deep_nesting_costs_what_is_deepest() -> None:
    deep = 100_000
    assert named("function a(){}" + "(" * deep + ")" * deep + ";function b(){}") == ["a", "b"]
    assert named("[" * deep + "function a(){}" + "]" * deep + ";b=()=>1")[-1] == "b"
    assert len(scanned("x=>" * deep + "1").scopes) > 60_000
    assert len(scanned("a?" * deep + "function(){}").scopes) == 1
    assert len(scanned("function a(){" * 70_000).scopes) > 60_000


@pytest.mark.parametrize(
    "piece", ["'\\\"", "/[", "a/b'", "`${", "/*", "'\"", "(]", "{)", "class ", "async ", "=>", "a.b["]
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    """What would be quadratic here takes minutes."""
    assert scanned(piece * 300_000).scopes.shape[1] == 7


def sound(found: Scan, size: int) -> None:
    """Hold a result to what the kernel promises, whatever the text was."""
    parts, scopes = found.parts, found.scopes
    rows = np.arange(len(scopes))
    assert (scopes[:, columns.PARENT] < rows).all()
    assert (scopes[:, columns.PARENT] >= -1).all()
    assert (scopes[:, columns.PART] >= 0).all()
    assert (scopes[:, columns.PART] < len(parts)).all()
    assert (parts[1:, columns.LEFT] < np.arange(1, len(parts))).all()
    assert (parts[:, columns.LEFT] >= 0).all()
    assert (parts[:, columns.START] + parts[:, columns.LENGTH] <= size).all()
    start = scopes[:, columns.FROM_LINE].astype(np.int64) << 32 | scopes[:, columns.FROM_COLUMN]
    end = scopes[:, columns.TO_LINE].astype(np.int64) << 32 | scopes[:, columns.TO_COLUMN]
    assert (start < end).all()


def test_mutated_scripts() -> None:
    chance = random.Random(5)
    base = [script(seed, 4, 4).text.encode() for seed in range(40)]
    tokens = [
        b"{",
        b"}",
        b"(",
        b")",
        b"`",
        b"${",
        b"'",
        b"/",
        b"=>",
        b"function",
        b"class ",
        b"\n",
        b"\0",
        b"\xff",
        b"=",
        b"?",
    ]
    for round_ in range(1500):
        text = bytearray(base[round_ % len(base)])
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(text))
            how = chance.randrange(4)
            if how == 0:
                text[at : at + 1] = chance.choice(tokens)
            elif how == 1:
                del text[at : at + chance.randint(1, 30)]
            elif how == 2:
                text[at:at] = text[: chance.randint(0, 40)]
            else:
                text[at] = chance.randrange(256)
            text = text or bytearray(b"x")
        data = bytes(text[: chance.randint(0, len(text))])
        sound(scanned(data), len(data))
        read_scopes(data).names(range(20), None)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    sound(scanned(data), len(data))


@given(st.text(alphabet="ab=(){}[]?:;,.=>'\"`$/\\\n #*+-1é漢😀\u2028\r", max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_tokens(text: str) -> None:
    sound(scanned(text), len(text.encode()))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_flatten(spans: list[tuple[int, int]]) -> None:
    """The innermost range is the last one to begin of those that are open, each cut to the one around it."""
    ranges = sorted(((start, start + size) for start, size in spans), key=lambda r: (r[0], -r[1]))
    start = np.array([r[0] for r in ranges], np.int64)
    end = np.array([r[1] for r in ranges], np.int64)
    at, inner = flatten(start, end)
    assert (np.diff(at) >= 0).all()
    cut: list[tuple[int, int]] = []
    around: list[int] = []
    for first, last in ranges:
        while around and cut[around[-1]][1] <= first:
            around.pop()
        cut.append((first, min(last, cut[around[-1]][1]) if around else last))
        around.append(len(cut) - 1)
    for place in range(55):
        expected = max((i for i, (first, last) in enumerate(cut) if first <= place < last), default=-1)
        row = int(np.searchsorted(at, place, side="right")) - 1
        assert (int(inner[row]) if row >= 0 else -1) == expected
