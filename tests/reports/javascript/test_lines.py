"""One line of a stack, of every engine's; positions and names as the engine means them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.reports.javascript.lines import read_line

Expected = tuple[str | None, str | None, int | None, int | None, dict[str, Any]]

LINES: list[tuple[str, Expected]] = [
    # V8
    ("    at run (https://x.com/a.js:1:2)", ("run", "https://x.com/a.js", 1, 2, {})),
    ("    at https://x.com/a.js:1:2", (None, "https://x.com/a.js", 1, 2, {})),
    ("    at new Cart (/srv/a.js:1:2)", ("new Cart", "/srv/a.js", 1, 2, {})),
    ("    at Object.a [as b] (/srv/a.js:1:2)", ("Object.a [as b]", "/srv/a.js", 1, 2, {})),
    ("    at a b (c) (/srv/a.js:1:2)", ("a b (c)", "/srv/a.js", 1, 2, {})),
    ("    at f (/srv/a (1)/b (2).js:1:2)", ("f", "/srv/a (1)/b (2).js", 1, 2, {})),
    ("    at (/srv/a.js:1:2)", (None, "/srv/a.js", 1, 2, {})),
    ("    at f(/srv/a.js:1:2)", ("f", "/srv/a.js", 1, 2, {})),
    ("    at f (/srv/a.js:1:2", ("f", "/srv/a.js", 1, 2, {})),
    ("    at /srv/my project/index.js:2:9", (None, "/srv/my project/index.js", 2, 9, {})),
    ("    at virtual file.js:11:48", (None, "virtual file.js", 11, 48, {})),
    ("    at <anonymous>:1:39", (None, "<anonymous>", 1, 39, {})),
    ("    at <anonymous>", (None, None, None, None, {"native": True})),
    ("    at Array.map (<anonymous>)", ("Array.map", None, None, None, {"native": True})),
    ("    at async load (/srv/a.mjs:4:9)", ("load", "/srv/a.mjs", 4, 9, {"is_async": True})),
    ("    at async /srv/a.mjs:4:9", (None, "/srv/a.mjs", 4, 9, {"is_async": True})),
    (
        "    at async Promise.all (index 3)",
        ("Promise.all", None, None, None, {"is_async": True, "promise_index": 3}),
    ),
    ("    at f (async http://h:5000/:25:7)", ("f", "http://h:5000/", 25, 7, {"is_async": True})),
    ("    at node:internal/main/run_main_module:28:49", (None, "node:internal/main/run_main_module", 28, 49, {})),
    (
        "    at eval (eval at f (/srv/a.js:23:34), <anonymous>:1:5)",
        ("eval", "/srv/a.js", 23, 34, {"eval_depth": 1, "eval_lineno": 1, "eval_colno": 5}),
    ),
    (
        "    at g (eval at f (eval at <anonymous> (/srv/a (1).js:23:34)), <anonymous>:7:8)",
        ("g", "/srv/a (1).js", 23, 34, {"eval_depth": 2, "eval_lineno": 7, "eval_colno": 8}),
    ),
    ("    at eval (eval at /js/a.min.js:1:451)", ("eval", "/js/a.min.js", 1, 451, {"eval_depth": 1})),
    (
        "    at f (data:text/javascript,function f(){ throw new Error(1) };:1:30)",
        ("f", "data:text/javascript,function f(){ throw new Error(1) };", 1, 30, {}),
    ),
    (
        "    at trap (wasm://wasm/fbd6c30e:wasm-function[0]:0x21)",
        ("trap", "wasm://wasm/fbd6c30e", None, None, {"wasm_function": 0, "wasm_offset": 33}),
    ),
    (
        "    at A::b(int) const (http://h/m.wasm:wasm-function[19]:0x5aeb)",
        ("A::b(int) const", "http://h/m.wasm", None, None, {"wasm_function": 19, "wasm_offset": 0x5AEB}),
    ),
    ("    at Module../src/a.js (error: /app/src/a.js:1:2)", ("Module../src/a.js", "/app/src/a.js", 1, 2, {})),
    ("    (error: https://x.com/chunk.js)", (None, "https://x.com/chunk.js", None, None, {})),
    (
        "    at key(webpack/runtime/jsonp chunk loading:27:18)",
        ("key", "webpack/runtime/jsonp chunk loading", 27, 18, {}),
    ),
    # Bun, Hermes, QuickJS, Internet Explorer
    ("    at _compile (unknown)", ("_compile", None, None, None, {})),
    ("    at map (native:1:11)", ("map", None, None, None, {"native": True})),
    ("    at <parse> (:0)", ("<parse>", None, None, None, {})),
    ("    at new Derived (unknown:1:28)", ("new Derived", None, None, None, {})),
    (
        "    at onPress (address at index.android.bundle:1:4527)",
        ("onPress", "index.android.bundle", 1, 4527, {"bytecode": True, "column_is_0based": True}),
    ),
    ("    at ?anon_0_g (a.js:1:2)", ("g", "a.js", 1, 2, {})),
    ("    at ?anon_0_ (a.js:1:2)", (None, "a.js", 1, 2, {})),
    ("    at apply (native)", ("apply", None, None, None, {"native": True})),
    ("    ... skipping 95219 frames", (None, None, None, None, {"skipped": 95219})),
    ("    at <eval> (/srv/a.js:7)", ("<eval>", "/srv/a.js", 7, None, {})),
    ("    at <input>:1:5", (None, "<input>", 1, 5, {})),
    ("   at Anonymous function (http://h/a.js:48:13)", ("Anonymous function", "http://h/a.js", 48, 13, {})),
    ("   at baz (eval code:1:18)", ("baz", "eval code", 1, 18, {"eval_depth": 1})),
    ("   at Array.prototype.map (native code)", ("Array.prototype.map", None, None, None, {"native": True})),
    # SpiderMonkey
    ("run@https://x.com/a.js:1:2", ("run", "https://x.com/a.js", 1, 2, {})),
    ("@https://x.com/@scope/a.js:1:2", (None, "https://x.com/@scope/a.js", 1, 2, {})),
    ("@fn@/srv/a.js:20:66", ("@fn", "/srv/a.js", 20, 66, {})),
    ('obj["@fn"]@Scratchpad/1:10:29', ('obj["@fn"]', "Scratchpad/1", 10, 29, {})),
    ("a b (c)@/srv/a.js:21:73", ("a b (c)", "/srv/a.js", 21, 73, {})),
    ("[2]</Bar.prototype._baz/</<@http://h/a.js:7:2", ("[2]</Bar.prototype._baz/</<", "http://h/a.js", 7, 2, {})),
    ("async*a1@/srv/a.js:1:87", ("a1", "/srv/a.js", 1, 87, {"is_async": True})),
    ("setTimeout handler*run@/srv/a.js:5:9", ("run", "/srv/a.js", 5, 9, {"is_async": True})),
    ("promise callback*@/srv/a.js:5:9", (None, "/srv/a.js", 5, 9, {"is_async": True})),
    (
        "@/srv/a.js line 24 > eval line 1 > eval:1:9",
        (None, "/srv/a.js", 24, None, {"eval_depth": 2, "eval_lineno": 1, "eval_colno": 9}),
    ),
    (
        "anonymous@/srv/a.js line 25 > Function:3:1",
        ("anonymous", "/srv/a.js", 25, None, {"eval_depth": 1, "eval_lineno": 3, "eval_colno": 1}),
    ),
    ("value@resource://a/b.mjs -> resource://a/x.js:1:2", ("value", "resource://a/x.js", 1, 2, {})),
    ("bar(1,2)@file:///G:/js/file.js:13", ("bar", "file:///G:/js/file.js", 13, None, {})),
    ("()@file:///G:/js/file.js:13", (None, "file:///G:/js/file.js", 13, None, {})),
    ("run@moz-extension://ab-cd/a.js:1:2", ("run", "moz-extension://ab-cd/a.js", 1, 2, {})),
    # JavaScriptCore
    ("forEach@[native code]", ("forEach", None, None, None, {"native": True})),
    ("[native code]", (None, None, None, None, {"native": True})),
    ("global code@https://x.com/a.js:1:2", ("global code", "https://x.com/a.js", 1, 2, {})),
    ("eval code", ("eval code", None, None, None, {})),
    ("async f@https://x.com/a.js:1:2", ("f", "https://x.com/a.js", 1, 2, {"is_async": True})),
    ("http://h/a.js:48:22", (None, "http://h/a.js", 48, 22, {})),
    ("index.android.bundle:156:572", (None, "index.android.bundle", 156, 572, {})),
    ("<?>.wasm-function[g]@[wasm code]", ("g", None, None, None, {"wasm": True})),
    ("<?>.wasm-function[7]@[wasm code]", (None, None, None, None, {"wasm": True, "wasm_function": 7})),
    ("f@12.js:1:2", ("f", "12.js", 1, 2, {"ram_module": 12})),
    ("f@seg-3_12.js:1:2", ("f", "seg-3_12.js", 1, 2, {"ram_module": 12, "ram_segment": 3})),
    ("f@1:2340", ("f", None, 1, 2340, {})),
    # Opera
    ("  Line 43 of linked script http://h/a.js", (None, "http://h/a.js", 43, None, {})),
    ("  Line 4 of inline#1 script in http://h/a.js: In function bar", ("bar", "http://h/a.js", 4, None, {})),
    (
        "called from line 27, column 8 in <anonymous function: run>(ex) in http://h/a.js:",
        ("run", "http://h/a.js", 27, 8, {}),
    ),
    ("Error thrown at line 42, column 12 in http://h/a.js:", (None, "http://h/a.js", 42, 12, {})),
    # React
    ("    in Button (created by App)", ("Button", None, None, None, {"component": True})),
    ("    in Button (at Button.tsx:16)", ("Button", "Button.tsx", 16, None, {"component": True})),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line.strip()[:60] for line, _ in LINES])
def test_lines(line: str, expected: Expected) -> None:
    frame = read_line(line)
    assert frame is not None
    assert (frame.function, frame.abs_path, frame.lineno, frame.colno, frame.details or {}) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "TypeError: x is not a function",
        "at the end of the day",
        "    at com.example.Main.run(Unknown Source)",
        '    at Error: Blocked a frame with origin "(https://x.com" from accessing a cross-origin frame.)',
        "user@example.com",
        "write to me@home",
        "see http://localhost:8080",
        "in the middle",
        "12:34:56 something",
        "    this.undef();",
        "Line of text",
        "called from somewhere",
        "... and 3 more",
        "Error created at <anonymous function>@http://h/a.js:15",
        "{",
        "    at ",
        "()",
    ],
)
def test_no_frames(line: str) -> None:
    assert read_line(line) is None


def test_arguments_are_kept() -> None:
    frame = read_line("bar(1,x)@file:///G:/js/file.js:13")
    assert frame is not None
    assert frame.args == ["1", "x"]


@given(st.text(alphabet="at @():./*<>[]\\x1e-evalwsmfunctionLinecode >,", max_size=60))
def test_any_line(line: str) -> None:
    """Whatever a line is, it gives a frame or none."""
    for bare in (False, True):
        frame = read_line(line, bare=bare)
        assert frame is None or (frame.lineno is None or frame.lineno >= 0)


@pytest.mark.parametrize(
    "line",
    [
        "    at " + "(" * 2_000 + ")" * 2_000 + ")",
        "    at " + "eval at f (" * 400_000 + "x:1:2" + ")" * 400_000,
        "    at f (" + "error: (" * 400_000 + ")" * 400_000,
        "    at " + "async " * 400_000,
        "a@" * 400_000 + ":1:2",
        "f@x" + " line 1 > eval" * 300_000 + ":1:2",
        "    at " + ":1" * 500_000,
        "    at " + ")" * 1_000_000,
        "    at f (data:text/javascript," + "a b(c)" * 300_000 + ":1:2)",
        "(" * 1_000_000 + "@/a:1:2",
        "*" * 1_000_000 + "@/a:1:2",
    ],
    ids=range(11),
)
def test_time_grows_with_the_length_only(line: str) -> None:
    """What backtracks needs four seconds for 4 KB of such a line, and hours for these."""
    read_line(line)
