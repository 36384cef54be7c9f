"""Rollbar's items: the documentation's own example, every body, and what its clients send beside it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from deadreckon import process, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.reports import rollbar
from synth.payloads import rollbar_item, rollbar_trace

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame
    from deadreckon.model.event import Frame

LIMITS = ReportLimits()


def crash(body: dict[str, Any] | None = None, **changes: Any) -> RawCrash:
    return rollbar.read(json.dumps(rollbar_item(body, **changes)).encode(), LIMITS)


def frames(raw: list[dict[str, Any]], **changes: Any) -> list[Frame]:
    found = crash({"trace": {"frames": raw, "exception": {"class": "E"}}}, **changes)
    return [told(f) for f in found.exceptions[0].frames or []]


def told(frame: RawFrame) -> Frame:
    assert frame.reported is not None
    return frame.reported


DOCUMENTED = {
    "access_token": "aaaabbbbccccddddeeeeffff00001111",
    "data": {
        "environment": "production",
        "body": {
            "trace": {
                "frames": [
                    {
                        "filename": "/Users/brian/www/mox/mox/views/project.py",
                        "lineno": 26,
                        "colno": 8,
                        "method": "index",
                        "code": "_save_last_project(request, project_id, force=True)",
                        "context": {"pre": ["project = request.context", "project_id = project.id"], "post": []},
                        "args": ["<Request object>", 25],
                        "kwargs": {"force": True},
                    },
                    {
                        "filename": "/Users/brian/www/mox/mox/views/project.py",
                        "lineno": 497,
                        "method": "_save_last_project",
                        "code": "user = foo",
                    },
                ],
                "exception": {"class": "NameError", "message": "global name 'foo' is not defined"},
            }
        },
        "level": "error",
        "timestamp": 1369188822,
        "platform": "linux",
        "language": "python",
        "framework": "pyramid",
        "context": "project#index",
        "request": {
            "url": "https://rollbar.com/project/1",
            "method": "GET",
            "headers": {"Accept": "text/html", "Referer": "https://rollbar.com/"},
            "params": {"controller": "project", "action": "index"},
            "GET": {},
            "query_string": "",
            "POST": {},
            "body": "",
            "user_ip": "100.51.43.14",
        },
        "person": {"id": "12345", "username": "brianr", "email": "brian@rollbar.com"},
        "server": {
            "host": "web4",
            "root": "/Users/brian/www/mox",
            "branch": "master",
            "sha": "b6437f45b7bbbb15f5eddc2eace4c71a8625da8c",
        },
        "client": {"javascript": {"browser": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_8_3)"}},
        "custom": {},
        "fingerprint": "50a5ef9dbcf9d0e0af2d4e25338da0d430f20e52",
        "title": "NameError when setting last project in views/project.py",
        "notifier": {"name": "pyrollbar", "version": "0.5.5"},
    },
}
"""The documentation's item, with the commas and the quotes that make it JSON."""


def test_the_documented_item() -> None:
    event = process(json.dumps(DOCUMENTED).encode())
    assert event.status == "ok"
    assert (event.source.format, event.platform, event.level) == ("rollbar", "python", "error")
    assert event.timestamp == "2013-05-22T02:13:42Z"
    assert (event.environment, event.release) == ("production", "b6437f45b7bbbb15f5eddc2eace4c71a8625da8c")
    assert event.user == {"id": "12345", "username": "brianr", "email": "brian@rollbar.com"}
    assert event.request is not None
    assert event.request["headers"] == {"Accept": "text/html", "Referer": "https://rollbar.com/"}
    assert event.request["user_ip"] == "100.51.43.14"
    assert event.title == "NameError when setting last project in views/project.py"
    assert event.grouping == ["50a5ef9dbcf9d0e0af2d4e25338da0d430f20e52"]
    (exception,) = event.exceptions or []
    assert (exception.type, exception.value) == ("NameError", "global name 'foo' is not defined")
    inner, outer = exception.frames or []
    assert (inner.function, inner.filename, inner.lineno) == ("_save_last_project", "mox/views/project.py", 497)
    assert (inner.context_line, inner.in_app, inner.lang) == ("user = foo", True, "python")
    assert (outer.function, outer.lineno, outer.colno) == ("index", 26, 8)
    assert outer.abs_path == "/Users/brian/www/mox/mox/views/project.py"
    assert (outer.pre_context, outer.post_context) == (["project = request.context", "project_id = project.id"], None)
    assert (outer.args, outer.kwargs) == (["<Request object>", 25], {"force": True})
    attributes = event.attributes or {}
    assert attributes["server"]["host"] == "web4"
    assert attributes["sdk"] == {"name": "pyrollbar", "version": "0.5.5"}
    assert (attributes["context"], attributes["framework"]) == ("project#index", "pyramid")
    assert "aaaabbbbccccddddeeeeffff00001111" not in str(event)


def test_the_bare_message() -> None:
    body = {"message": {"body": "Hello, world!", "user_id": "12345", "lucky_numbers": [4, 18]}}
    found = crash(body)
    assert (found.message, found.level, found.exceptions) == ("Hello, world!", "info", [])
    assert found.attributes["message"] == {"user_id": "12345", "lucky_numbers": [4, 18]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf\r\n " + text.encode(),
        lambda text: urlencode({"payload": text}).encode(),
        lambda text: f"payload={quote(text)}&other=1".encode(),
    ],
    ids=["body", "bom", "form", "form and more"],
)
def test_bodies_and_forms(wrap: Any) -> None:
    body = wrap(json.dumps(rollbar_item()))
    assert rollbar.read(body, LIMITS).exceptions[0].type == "NameError"
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(body))] == ["rollbar"]


def test_data_alone() -> None:
    body = json.dumps(rollbar_item()["data"]).encode()
    assert rollbar.read(body, LIMITS).exceptions[0].type == "NameError"
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(body))] == ["rollbar"]


def test_chain_with_the_root_cause_last() -> None:
    found = crash({"trace_chain": [rollbar_trace("Outer"), rollbar_trace("Inner", "root")]})
    assert [(e.type, e.value) for e in found.exceptions] == [("Outer", "no foo"), ("Inner", "root")]
    assert [told(f).function for f in found.exceptions[1].frames or []] == ["_save_last_project", "index"]


def test_both_bodies_are_read_from_a_file() -> None:
    """The API refuses them; whoever has such a file wants to see what is in it."""
    found = crash({"trace": rollbar_trace(), "message": {"body": "User logged in"}})
    assert found.exceptions[0].type == "NameError"
    assert found.message == "User logged in"


CRASH_REPORT = """Incident Identifier: 6156848E-344E-4D9E-84E0-87AFD0D0AE7B
CrashReporter Key:   76f2fb60060d6a7f814973377cbdc866fffd521f
Hardware Model:      iPhone8,1
Process:             TouchCanvas [1052]
Path:                /private/var/containers/TouchCanvas.app/TouchCanvas
Identifier:          com.example.apple-samplecode.TouchCanvas
Version:             1 (3.0)
Code Type:           ARM-64 (Native)
Date/Time:           2020-03-27 18:06:51.4969 -0700
OS Version:          iPhone OS 13.3.1 (17D50)
Exception Type:  EXC_BREAKPOINT (SIGTRAP)
Exception Codes: 0x0000000000000001, 0x0000000102afb3d0
Triggered by Thread:  0

Thread 0 name:  Dispatch queue: com.apple.main-thread
Thread 0 Crashed:
0   TouchCanvas                     0x0000000102afb3d0 0x102ae4000 + 95184
1   UIKitCore                       0x00000001b7f2cb4c 0x1b7b01000 + 4373324

Binary Images:
0x102ae4000 - 0x102b03fff TouchCanvas arm64  <fe7745ae12db30fa886c8baa1980437a> /var/containers/TouchCanvas
"""


def test_crash_report_of_a_phone() -> None:
    found = crash({"crash_report": {"raw": CRASH_REPORT}}, platform="ios", level="critical", person={"id": "7"})
    assert (found.format, found.platform, found.level) == ("rollbar", "native", "fatal")
    assert found.user == {"id": "7"}
    assert found.environment == "production"
    assert found.process_name == "TouchCanvas"
    crashed = next(t for t in found.threads if t.crashed)
    assert [f.instruction_addr for f in crashed.frames or []] == [0x102AFB3D0, 0x1B7F2CB4C]
    assert found.modules[0].debug_id == "fe7745ae-12db-30fa-886c-8baa1980437a"


@pytest.mark.parametrize("report", [{"raw": "nobody's format"}, {"raw": None}, {}, {"raw": 7}])
def test_crash_report_of_no_format(report: dict[str, Any]) -> None:
    found = crash({"crash_report": report})
    assert next(d.code for d in found.diagnostics) in {"unknown_format", "malformed"}


@pytest.mark.parametrize(
    ("level", "body", "expected"),
    [
        ("critical", None, "fatal"),
        ("warning", None, "warning"),
        ("debug", {"message": {"body": "x"}}, "debug"),
        (None, None, "error"),
        (None, {"message": {"body": "x"}}, "info"),
        ("loud", None, "error"),
        (7, None, "error"),
    ],
)
def test_levels(level: Any, body: dict[str, Any] | None, expected: str) -> None:
    assert crash(body, level=level).level == expected


@pytest.mark.parametrize(
    ("fingerprint", "kept"),
    [
        ("short", "short"),
        ("x" * 40, "x" * 40),
        ("x" * 41, hashlib.sha1(b"x" * 41).hexdigest()),
        ("é" * 40, "é" * 40),
        ("é" * 41, hashlib.sha1(("é" * 41).encode()).hexdigest()),
        (7, "7"),
        ("", None),
        (None, None),
        ([], None),
    ],
)
def test_fingerprint(fingerprint: Any, kept: str | None) -> None:
    assert crash(fingerprint=fingerprint).grouping == ([kept] if kept else None)


@pytest.mark.parametrize(
    ("uuid", "event_id"),
    [
        ("bd249503-6f54-4a5d-932e-f893c32c4132", "bd2495036f544a5d932ef893c32c4132"),
        ("BD2495036F544A5D932EF893C32C4132", "bd2495036f544a5d932ef893c32c4132"),
        ("my-own-id", None),
        (None, None),
    ],
)
def test_uuid(uuid: str | None, event_id: str | None) -> None:
    found = crash(uuid=uuid)
    assert found.event_id == event_id
    assert found.attributes.get("uuid") == (uuid if event_id is None else None)


@pytest.mark.parametrize(
    ("root", "path", "filename", "in_app"),
    [
        ("/srv/app", "/srv/app/views/x.py", "views/x.py", True),
        ("/srv/app/", "/srv/app/views/x.py", "views/x.py", True),
        ("/srv/app", "/srv/app/venv/lib/site-packages/django/x.py", "venv/lib/site-packages/django/x.py", False),
        ("/srv/app", "/srv/application/x.py", "x.py", False),
        ("/srv/app", "/usr/lib/python3/json.py", "json.py", False),
        ("C:\\app", "C:\\app\\bin\\x.cs", "bin/x.cs", True),
        (None, "/srv/app/views/x.py", "x.py", None),
        ("/", "/srv/x.py", "x.py", None),
    ],
)  # fmt: skip
def test_root(root: str | None, path: str, filename: str, in_app: bool | None) -> None:
    (frame,) = frames([{"filename": path}], server={"root": root})
    assert (frame.filename, frame.in_app, frame.abs_path) == (filename, in_app, path)


def test_columns_of_node_count_from_zero() -> None:
    raw = [{"filename": "/a.js", "lineno": 28, "colno": 48, "method": "<unknown>"}]
    (node,) = frames(raw, notifier={"name": "node_rollbar"}, language="javascript")
    assert [
        f.in_app for f in frames([{"filename": p} for p in ("/x/node_modules/a.js", "/x/b.js")], language="node")
    ] == [
        True,
        False,
    ]
    assert (node.colno, node.function, node.raw_function, node.status) == (49, None, "<unknown>", "missing_symbol")
    (browser,) = frames(raw, notifier={"name": "rollbar-browser-js"}, language="javascript")
    assert (browser.colno, browser.lang) == (48, "javascript")


def test_locals_and_classes() -> None:
    raw = [{"filename": "X.java", "class_name": "com.example.X", "method": "m", "locals": {"a": 1, "b": None}}]
    (frame,) = frames(raw, language="java")
    assert (frame.module, frame.function, frame.lang) == ("com.example.X", "m", "java")
    assert frame.locals == {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({"language": "python 3.11.7"}, "python"),
        ({"language": "JavaScript"}, "javascript"),
        ({"framework": "node-js"}, "javascript"),
        ({"platform": "browser"}, "javascript"),
        ({"platform": "android"}, "java"),
        ({"language": "c#"}, "csharp"),
        ({"client": {"javascript": {}}}, "javascript"),
        ({"language": "cobol 85"}, "cobol"),
        ({}, "other"),
    ],
)
def test_platform(changes: dict[str, Any], platform: str) -> None:
    assert crash(**changes).platform == platform


def test_values_of_wrong_types_cost_themselves() -> None:
    junk: list[Any] = [None, 7, "x", [], {}, True, 1.5, [[1]], {"a": {"b": []}}]
    names = ("body", "level", "timestamp", "person", "server", "request", "notifier", "custom", "uuid", "title")
    for name in names:
        for value in junk:
            crash(**{name: value})
    for value in junk:
        crash({"trace": value})
        crash({"trace_chain": value})
        crash({"trace_chain": [value]})
        crash({"trace": {"frames": value, "exception": value}})
        crash({"trace": {"frames": [value], "exception": {"class": value, "message": value}}})
        for name in ("filename", "lineno", "colno", "method", "code", "context", "args", "kwargs", "locals"):
            frames([{"filename": "x", name: value}])


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"7", b"{", b"", b"payload=", b"payload=%7B", b"data=%7B%7D"])
def test_no_item(body: bytes) -> None:
    with pytest.raises(Malformed):
        rollbar.read(body, LIMITS)


def test_the_documentations_own_text_is_no_json() -> None:
    text = b'{\n  // Required: access_token\n  "access_token": "a",\n  "data": {"environment": "production",}\n}'
    with pytest.raises(Malformed, match="expected JSON"):
        rollbar.read(text, LIMITS)
    event = process(text)
    assert event.status == "unreadable"
