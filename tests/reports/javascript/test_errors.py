"""From texts and serialized errors to crashes: messages, causes, several errors, what is JavaScript and what is not."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.reports.javascript import errors_of, parse_stack, read, script_ids

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

INSPECTED = """\
/srv/app.js:3
    throw new Error('outer', { cause });
    ^

Error: outer
    at run (/srv/app.js:3:11)
    at first (/srv/app.js:8:1)
    ... 2 lines matching cause stack trace ...
    at node:internal/main/run_main_module:28:49 {
  code: 'E1',
  [cause]: TypeError [ERR_X]: inner
  second line
      at inner (/srv/app.js:1:2)
      at first (/srv/app.js:8:1)
      at Module._compile (node:internal/modules/cjs/loader:1521:14)
      at Module.load (node:internal/modules/cjs/loader:1266:32)
      at node:internal/main/run_main_module:28:49
}

Node.js v20.20.2
"""

AGGREGATE = """\
AggregateError: many
    at all (/srv/app.js:1:1) {
  [errors]: [
    Error: one
        at one (/srv/app.js:2:2),
    RangeError: two
        at two (/srv/app.js:3:3) {
      [cause]: Error: root
          at root (/srv/app.js:4:4)
    },
    'text'
  ]
}
"""


def read_text(text: str) -> list[RawCrash]:
    return read(text.encode(), ReportLimits())


def shape(crash: RawCrash) -> list[tuple[str | None, str | None, str, list[str | None]]]:
    return [
        (e.mechanism, e.type, e.value, [f.reported.function if f.reported else None for f in e.frames or ()])
        for e in crash.exceptions
    ]


def test_an_error_with_its_cause() -> None:
    """Frames that util.inspect leaves out because the cause has them come back."""
    (crash,) = read_text(INSPECTED)
    assert shape(crash) == [
        (None, "Error", "outer", ["run", "first", "Module._compile", "Module.load", None]),
        ("cause", "TypeError", "inner\nsecond line", ["inner", "first", "Module._compile", "Module.load", None]),
    ]
    assert crash.attributes == {"code": "ERR_X"}
    assert crash.platform == "javascript"


def test_an_aggregate_of_errors() -> None:
    (crash,) = read_text(AGGREGATE)
    assert shape(crash) == [
        (None, "AggregateError", "many", ["all"]),
        ("errors[0]", "Error", "one", ["one"]),
        ("errors[1]", "RangeError", "two", ["two"]),
        ("cause", "Error", "root", ["root"]),
    ]


def test_what_follows_an_aggregate_is_no_member() -> None:
    crashes = read_text(AGGREGATE + "TypeError: next\n    at next (/srv/app.js:9:9)\n")
    assert shape(crashes[1]) == [(None, "TypeError", "next", ["next"])]


def test_deno_names_causes_on_a_line_of_their_own() -> None:
    text = (
        "error: Uncaught (in promise) Error: outer\n    at a (file:///a.ts:1:2)\n"
        "Caused by: Error: inner\n    at b (file:///a.ts:3:4)\n"
    )
    assert shape(read_text(text)[0]) == [(None, "Error", "outer", ["a"]), ("cause", "Error", "inner", ["b"])]


def test_a_message_that_looks_like_frames() -> None:
    """Known, a message is taken off; unknown, frames that prose follows are of the message."""
    message = "one\nat two (x.js:1:2)\n    at three (x.js:3:4)"
    stack = f"Error: {message}\n    at real (/srv/app.js:1:2)\n    at last (/srv/app.js:3:4)"
    assert [f.function for f in parse_stack(stack, "Error", message)] == ["real", "last"]
    quoted = (
        "Error: child failed\n    at child (c.js:1:2)\n    at c (c.js:2:3)\n\nNode.js v20\n\n    at real (p.js:1:2)"
    )
    (crash,) = read_text(quoted)
    assert [f.reported.function for f in crash.exceptions[0].frames or () if f.reported] == ["real"]
    assert "at child" in crash.exceptions[0].value


@pytest.mark.parametrize(
    ("stack", "name", "message", "functions"),
    [
        ("ValidationError: bad\n    at f (a.js:1:2)", "Renamed", "bad", ["f"]),
        ("Error: old\n    at f (a.js:1:2)", "Error", "changed", ["f"]),
        ("Error\n    at f (a.js:1:2)", "Error", "", ["f"]),
        ("f@a.js:1:2\ng@a.js:3:4\n", "Error", "boom", ["f", "g"]),
        (
            "baz\nfoo\neval code\neval@[native code]\nspeak@http://h/a.js:1:2",
            None,
            None,
            ["baz", "foo", "eval code", "eval", "speak"],
        ),
        ("Error: x\r\n    at f (a.js:1:2)\r\n    at g (a.js:3:4)\r\n", "Error", "x", ["f", "g"]),
        ("a.js:1\nthrow x\n^\n\nError: x\n    at f (a.js:1:2)", "Error", "x", ["f"]),
        ("    at f (a.js:1:2)", None, None, ["f"]),
        ("", None, None, []),
    ],
)
def test_stacks(stack: str, name: str | None, message: str | None, functions: list[str]) -> None:
    assert [f.function for f in parse_stack(stack, name, message)] == functions


def test_several_errors_of_a_log() -> None:
    log = (
        "12:00 starting\nTypeError: a\n    at f (a.js:1:2)\n12:01 goes on\n"
        "Uncaught RangeError: b\n    at g (a.js:3:4)\n"
    )
    assert [shape(c)[0][1:3] for c in read_text(log)] == [("TypeError", "a"), ("RangeError", "b")]
    firefox = "# one\nf@http://h/a.js:1:2\ng@http://h/a.js:3:4\n\n# two\nh@http://h/a.js:5:6\n"
    assert [len(c.exceptions[0].frames or ()) for c in read_text(firefox)] == [2, 1]


@pytest.mark.parametrize(
    ("header", "kind", "value"),
    [
        ("Uncaught TypeError: x", "TypeError", "x"),
        (
            "Error: Uncaught (in promise): HttpErrorResponse: {}",
            "Error",
            "Uncaught (in promise): HttpErrorResponse: {}",
        ),
        ("com.facebook.react.common.JavascriptException: TypeError: x, js engine: hermes, stack:", "TypeError", "x"),
        ("2024-01-01 [ERROR] TypeError: x", "TypeError", "x"),
        ("DOMException: The play() request was interrupted", "DOMException", "The play() request was interrupted"),
        ("Error", "Error", ""),
        ("just words", None, "just words"),
        ("  SyntaxError: Unexpected token", "SyntaxError", "Unexpected token"),
    ],
)
def test_headers(header: str, kind: str | None, value: str) -> None:
    error = errors_of(f"{header}\n    at f (a.js:1:2)")[0][0]
    assert (error.type, error.value) == (kind, value)


def serialized(**members: object) -> list[RawCrash]:
    return read(json.dumps(members).encode(), ReportLimits())


def test_a_serialized_error() -> None:
    cause = {"name": "TypeError", "message": "in", "stack": "TypeError: in\n    at g (a.js:3:4)", "cause": "text"}
    (crash,) = serialized(
        name="AggregateError",
        message="out",
        stack="AggregateError: out\n    at f (a.js:1:2)",
        cause=cause,
        errors=[{"name": "Error", "message": "one"}, 5, None],
    )
    assert shape(crash) == [
        (None, "AggregateError", "out", ["f"]),
        ("cause", "TypeError", "in", ["g"]),
        ("cause", None, "text", []),
        ("errors[0]", "Error", "one", []),
    ]


def test_an_error_without_a_stack_has_its_place() -> None:
    (crash,) = serialized(name="Error", message="x", fileName="http://h/a.js", lineNumber=4, columnNumber=7)
    frame = (crash.exceptions[0].frames or [])[0].reported
    assert frame is not None
    assert (frame.abs_path, frame.lineno, frame.colno) == ("http://h/a.js", 4, 7)
    (crash,) = serialized(name="Error", message="x")
    assert [d.code for d in crash.diagnostics] == ["no_stack"]


def test_opera_has_its_stack_elsewhere() -> None:
    (crash,) = serialized(
        message="Statement on line 43: no\nBacktrace:\n  Line 43 of linked script http://h/a.js\n    x();\n"
    )
    assert [f.reported.lineno for f in crash.exceptions[0].frames or () if f.reported] == [43]
    (crash,) = serialized(
        message="x", stack="f@http://h/a.js:1", stacktrace="called from line 1, column 2 in f() in http://h/a.js:"
    )
    assert [f.reported.colno for f in crash.exceptions[0].frames or () if f.reported] == [2]


def test_a_hermes_crash() -> None:
    calls = [
        {"FunctionID": 5, "ByteCodeOffset": 58, "SegmentID": 1, "SourceURL": "/a/main.jsbundle"},
        {"FunctionID": -1, "ByteCodeOffset": 2, "SourceURL": "x"},
        {"NativeCode": True},
        "junk",
    ]
    (crash,) = serialized(callstack=calls)
    details = [f.reported.details for f in crash.exceptions[0].frames or () if f.reported]
    assert details == [
        {"bytecode": True, "hermes_function": 5, "hermes_offset": 58, "hermes_segment": 1},
        None,
        {"native": True},
    ]


@pytest.mark.parametrize("text", ["", "just words", "{}", "[1,2]", '{"a":', "\ufeff"])
def test_what_has_nothing_of_an_error(text: str) -> None:
    with pytest.raises(Malformed):
        read_text(text)


def test_ids_that_scripts_note_of_themselves() -> None:
    stacks = {
        "Error\n    at https://x.com/a.js:1:20\n    at https://x.com/a.js:1:90": "id-a",
        "f@https://x.com/b.js:1:2\n@https://x.com/b.js:3:4\n": "id-b",
        "Error": "id-c",
        "Error\n    at https://x.com/d.js:1:2": 5,
    }
    assert script_ids(stacks) == {"https://x.com/a.js": "id-a", "https://x.com/b.js": "id-b"}


def test_nested_causes_end() -> None:
    error: dict[str, object] = {"message": "x"}
    for _ in range(400):
        error = {"message": "x", "cause": error}
    assert len(read(json.dumps(error).encode(), ReportLimits())[0].exceptions) == 64


def test_equal_lines_are_read_once() -> None:
    (crash,) = read_text("RangeError: deep\n" + "    at f (a.js:1:2)\n" * 100_000)
    frames = crash.exceptions[0].frames or []
    assert len(frames) == 100_000
    assert len({id(f.reported) for f in frames}) == 1


def test_a_log_of_many_errors_ends() -> None:
    assert len(read_text("Error: x\n    at f (a.js:1:2)\n" * 5_000)) < 1100


FOREIGN = [
    (
        'Exception in thread "main" java.lang.NullPointerException: x\n\tat com.foo.Bar.run(Bar.java:12)\n'
        "\tat com.foo.Main.main(Main.java)\nCaused by: java.io.IOException\n\t... 3 more\n"
    ),
    'Traceback (most recent call last):\n  File "/srv/a.py", line 3, in <module>\n    f()\nValueError: x\n',
    "thread 'main' panicked at src/main.rs:2:5:\nboom\n   0: f\n             at ./src/main.rs:4:5\n",
    "Unhandled exception. System.Exception: x\n   at A.B.C(String s) in /src/A.cs:line 42\n   at A.Main()\n",
    "#0  0x00007f in main () at main.c:3\n#1 0x1 in foo () at foo.cpp:7:2\n",
    "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/tmp/a.go:5 +0x39\n",
    "==1==ERROR: AddressSanitizer: heap-use-after-free\n    #0 0x1 in f /src/a.cc:1:2\n",
    "PHP Fatal error:  Uncaught Exception: x in /a.php:3\nStack trace:\n#0 {main}\n",
    "a.rb:1:in `f': x (RuntimeError)\n\tfrom a.rb:3:in `<main>'\n",
    "kotlin.Exception: x\n    at MainKt.main(Main.kt:3)\n",
    "#0      main (package:app/main.dart:4:3)\n",
    "plain text\nuser@host:22:33\nfoo@bar:1:2\n",
    '{"a": "f@http://h/a.js:1:2"}\n',
    '{"name": "x", "stack": "no frames here"}',
]


@pytest.mark.parametrize("text", FOREIGN)
def test_other_languages_are_not_claimed(text: str) -> None:
    form = reports.detect(reports.Probe(text.encode()))
    assert form is None or form.name != "javascript"


@pytest.mark.parametrize(
    "text",
    [
        INSPECTED,
        AGGREGATE,
        "f@http://h/a.js:1:2\n",
        "noise\nnoise\nTypeError: x\n    at f (index.android.bundle:1:5)\n",
        "at onPress (address at index.android.bundle:1:4)\n",
        '{"name": "Error", "message": "x", "stack": "Error: x\\n    at f (/srv/a.js:1:2)"}',
        '{"callstack": [{"FunctionID": 1, "ByteCodeOffset": 2, "SourceURL": "a"}]}',
        "\ufeffTypeError: x\n    at https://x.com/a.js:1:2\n",
    ],
)
def test_javascript_is_recognised(text: str) -> None:
    form = reports.detect(reports.Probe(text.encode()))
    assert form is not None
    assert form.name == "javascript"
    assert reports.read(form, text.encode(), ReportLimits())


def test_utf16_logs() -> None:
    data = "TypeError: ü\n    at f (http://h/a.js:1:2)\n".encode("utf-16")
    form = reports.detect(reports.Probe(data))
    assert form is not None
    (crash,) = reports.read(form, data, ReportLimits())
    assert shape(crash) == [(None, "TypeError", "ü", ["f"])]


def test_mutated_stacks() -> None:
    chance = random.Random(6)
    base = [INSPECTED, AGGREGATE, "baz\nf@http://h/a.js line 2 > eval:1:2\n[native code]\n", *FOREIGN]
    pieces = [
        "\n",
        "    at ",
        "(",
        ")",
        "@",
        ":1:2",
        "[cause]: ",
        "[errors]: [",
        "eval at ",
        "... 9 lines matching cause stack trace ...",
    ]
    for round_ in range(2500):
        text = base[round_ % len(base)]
        for _ in range(chance.randint(1, 8)):
            at = chance.randint(0, len(text))
            text = text[:at] + chance.choice([*pieces, text[at : at + 50], ""]) + text[at + chance.randint(0, 20) :]
        chains = errors_of(text)
        assert chains
        assert all(chain for chain in chains)


@given(st.text(alphabet="Ear:\n @()[]{}cus.j12/ x", max_size=120), st.none() | st.text(max_size=5))
def test_any_text(text: str, message: str | None) -> None:
    assert errors_of(text, None, message)
