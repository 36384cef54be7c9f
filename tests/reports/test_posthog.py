"""PostHog's exception events: batches, forms and rows, both orders of frames, every language's frames."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from deadreckon import process, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.reports import posthog
from synth.payloads import posthog_event, posthog_exception, posthog_frame

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawException, RawFrame
    from deadreckon.model.event import Frame

LIMITS = ReportLimits()


def crash(*exceptions: dict[str, Any], **properties: Any) -> RawCrash:
    (found,) = posthog.read(json.dumps(posthog_event(*exceptions, **properties)).encode(), LIMITS)
    return found


def names(exception: RawException) -> list[str | None]:
    return [told(f).function for f in exception.frames or []]


def told(frame: RawFrame) -> Frame:
    assert frame.reported is not None
    return frame.reported


def one(*frames: dict[str, Any], **properties: Any) -> Frame:
    found = crash(posthog_exception(*frames), **properties)
    stack = found.exceptions[0].frames or found.threads[0].frames or []
    return told(stack[0])


def hits(body: bytes) -> list[str]:
    return [f.name for f in reports.FORMATS if f.sniff(reports.Probe(body))]


def test_an_event() -> None:
    found = crash(
        posthog_exception(module="app", thread_id=7, mechanism={"type": "generic", "handled": False, "x": None}),
        **{
            "$lib": "posthog-python",
            "$os": "Linux",
            "$os_version": "12",
            "$exception_level": "fatal",
            "$exception_fingerprint": "manual-1",
            "$issue_name": "My issue",
            "$current_url": "https://x/",
            "$app_version": "1.2",
            "$set": {"email": "a@example.com"},
            "order": 7,
            "api_key": "secret",
        },
    )
    assert (found.format, found.platform, found.level) == ("posthog", "python", "fatal")
    assert found.event_id == "019295b1519f71a6aacfc97b5db73696"
    assert found.timestamp == pytest.approx(1795208585.664706)
    assert (found.os_name, found.os_version, found.release) == ("Linux", "12", "1.2")
    assert (found.grouping, found.title) == (["manual-1"], "My issue")
    assert found.user == {"id": "u1", "email": "a@example.com"}
    assert found.request == {"url": "https://x/"}
    assert (found.attributes["order"], "api_key" in found.attributes) == (7, False)
    (exception,) = found.exceptions
    assert (exception.type, exception.value, exception.module) == ("KeyError", "'k'", "app")
    assert (exception.mechanism, exception.details, exception.thread_id) == ("generic", {"handled": False}, 7)
    assert names(exception) == ["inner", "main"]


EVENT = posthog_event()
WRAPPED = [
    ("event", json.dumps(EVENT).encode()),
    ("list", json.dumps([EVENT, {"event": "$pageview", "properties": {}}]).encode()),
    ("batch", json.dumps({"api_key": "k", "batch": [{"event": "x"}, EVENT]}).encode()),
    ("gzip", gzip.compress(json.dumps({"api_key": "k", "batch": [EVENT]}).encode())),
    ("form", urlencode({"data": base64.b64encode(json.dumps(EVENT).encode()).decode()}).encode()),
    ("form of a list", urlencode({"data": base64.b64encode(json.dumps([EVENT]).encode()).decode()}).encode()),
    ("form of json", urlencode({"data": json.dumps(EVENT)}).encode()),
    ("row", json.dumps({**EVENT, "properties": json.dumps(EVENT["properties"])}).encode()),
]


@pytest.mark.parametrize("body", [b for _, b in WRAPPED], ids=[n for n, _ in WRAPPED])
def test_requests_and_rows(body: bytes) -> None:
    event = process(body)
    assert (event.status, event.source.format) == ("ok", "posthog"), event.diagnostics
    assert event.event_id == "019295b1519f71a6aacfc97b5db73696"
    assert [(f.function, f.filename) for f in (event.exceptions or [])[0].frames or []] == [
        ("inner", "x.py"),
        ("main", "x.py"),
    ]
    if body[:2] != b"\x1f\x8b":
        assert hits(body) == ["posthog"]


def test_several_events_of_a_batch() -> None:
    other = {**EVENT, "uuid": "62cbeab3-23e8-463b-8c3f-db5858ef9605"}
    found = posthog.read(json.dumps({"batch": [EVENT, other, 7, None]}).encode(), LIMITS)
    assert [c.event_id for c in found] == ["019295b1519f71a6aacfc97b5db73696", "62cbeab323e8463b8c3fdb5858ef9605"]


@pytest.mark.parametrize(
    ("lib", "expected"),
    [
        ("web", ["inner", "main"]),
        ("posthog-node", ["inner", "main"]),
        ("posthog-python", ["inner", "main"]),
        ("posthog-php", ["main", "inner"]),
        ("posthog-go", ["main", "inner"]),
        ("posthog-android", ["main", "inner"]),
        ("posthog-rs", ["main", "inner"]),
        (None, ["inner", "main"]),
    ],
)
def test_order_of_frames(lib: str | None, expected: list[str]) -> None:
    """As listed: main, then inner; most clients list the outermost frame first."""
    assert names(crash(**{"$lib": lib}).exceptions[0]) == expected
    stack = {
        "type": "resolved",
        "frames": [{"raw_id": "a/0", "resolved_name": n, "lang": "python"} for n in ("main", "inner")],
    }
    assert names(crash(posthog_exception(stacktrace=stack), **{"$lib": lib}).exceptions[0]) == ["inner", "main"]


def test_order_of_exceptions() -> None:
    def chain(*ids: tuple[str, int | None, int | None], lib: str = "web") -> list[str | None]:
        listed = [
            posthog_exception(type=kind, mechanism={"exception_id": number, "parent_id": parent})
            for kind, number, parent in ids
        ]
        return [e.type for e in crash(*listed, **{"$lib": lib}).exceptions]

    assert chain(("A", 0, None), ("B", 1, 0), ("C", 2, 1)) == ["A", "B", "C"]
    assert chain(("C", 2, 1), ("B", 1, 0), ("A", 0, None)) == ["A", "B", "C"]
    assert chain(("A", 0, None), ("B", 1, 0), lib="posthog-python") == ["A", "B"]
    assert chain(("A", None, None), ("B", None, None)) == ["A", "B"]
    # Clients of before exceptions had ids.
    assert chain(("B", None, None), ("A", None, None), lib="posthog-python") == ["A", "B"]
    # Ids that make no sense leave the list as it is.
    assert chain(("A", 0, 1), ("B", 1, 0)) in (["A", "B"], ["B", "A"])
    assert chain(("A", 0, None), ("B", 0, None)) == ["A", "B"]


def test_javascript_frames() -> None:
    raw = posthog_frame(
        "?", platform="web:javascript", filename="https://x/a.js", lineno=64, colno=25112, chunkId="c-1"
    )
    frame = one(raw)
    assert (frame.lang, frame.function, frame.raw_function, frame.status) == ("javascript", None, "?", "missing_symbol")
    assert (frame.abs_path, frame.filename, frame.lineno, frame.colno) == ("https://x/a.js", "/a.js", 64, 25112)
    assert frame.details == {"chunk_id": "c-1"}
    untagged = {"function": "f", "filename": "https://x/a.js", "lineno": 1, "colno": 2}
    assert crash(posthog_exception(untagged), **{"$lib": "web"}).platform == "javascript"


def test_python_frames() -> None:
    frame = one(
        posthog_frame(
            "f",
            abs_path="/srv/x.py",
            module="app.x",
            context_line="raise X",
            pre_context=["a"],
            post_context=["b"],
            code_variables={"n": "1"},
        )
    )
    assert (frame.abs_path, frame.module, frame.lang) == ("/srv/x.py", "app.x", "python")
    assert (frame.pre_context, frame.context_line, frame.post_context) == (["a"], "raise X", ["b"])
    assert (frame.locals, frame.in_app) == ({"n": "1"}, True)


@pytest.mark.parametrize("tag", ["native", "rust"])
def test_native_frames(tag: str) -> None:
    frames = [
        {"platform": tag, "instruction_addr": "0x1800", "image_addr": "0x1000", "function": "main", "module": "/a.out"},
        {"platform": tag, "instruction_addr": "0x1234", "image_addr": "0x1000"},
    ]
    image = {
        "debug_id": "6862a0a0-9544-2d09-1756-e30ba2dff37d",
        "image_addr": "0x1000",
        "image_size": 4096,
        "code_file": "/a.out",
    }
    found = crash(posthog_exception(*frames), **{"$debug_images": [image], "$lib": "posthog-c"})
    assert found.platform == "native"
    assert [(m.image_addr, m.debug_id, m.code_file) for m in found.modules] == [(0x1000, image["debug_id"], "/a.out")]
    assert [(f.instruction_addr, f.is_return_address) for f in found.threads[0].frames or []] == [
        (0x1234, True),
        (0x1800, True),
    ]
    assert (found.threads[0].crashed, found.exceptions[0].frames) == (True, None)


@pytest.mark.parametrize(("resolved", "looked"), [(True, False), (None, False), (False, True)])
def test_what_is_resolved_is_not_mapped_again(resolved: bool | None, looked: bool) -> None:
    frame = {"raw_id": "a/0", "resolved_name": "go", "source": "../src/a.ts", "line": 5, "column": 3}
    stack = {"type": "resolved", "frames": [{**frame, "lang": "javascript", "resolved": resolved}]}
    event = process(json.dumps(posthog_event({"type": "TypeError", "stacktrace": stack})).encode())
    assert [d.code for d in event.diagnostics or ()] == ["sourcemap_missing"] * looked


def test_resolved_frames() -> None:
    raw = {
        "raw_id": "ab/0",
        "mangled_name": "eF",
        "resolved_name": "foo",
        "line": 10,
        "column": 5,
        "source": "http://x/alpha/foo.js",
        "module": "app.module",
        "in_app": True,
        "lang": "javascript",
        "resolved": True,
        "context": {
            "before": [{"number": 9, "line": "a"}],
            "line": {"number": 10, "line": "b"},
            "after": [{"number": 11, "line": "c"}],
        },
    }
    frame = one(raw)
    assert (frame.function, frame.raw_function, frame.status) == ("foo", "eF", "symbolicated")
    assert (frame.abs_path, frame.filename, frame.lineno, frame.colno) == ("http://x/alpha/foo.js", "foo.js", 10, 5)
    assert (frame.module, frame.lang, frame.in_app) == ("app.module", "javascript", True)
    assert (frame.pre_context, frame.context_line, frame.post_context) == (["a"], "b", ["c"])


def test_values_that_posthog_has_rules_for() -> None:
    long = crash(posthog_exception(type=None, value="x" * 10_001)).exceptions[0]
    assert (long.type, long.value) == ("Error", "x" * 10_000 + "...")
    empty = crash(posthog_exception(value=None)).exceptions[0]
    assert empty.value == ""
    old = posthog_event()
    old["properties"] = {"$exception_type": "TypeError", "$exception_message": "m"}
    (found,) = posthog.read(json.dumps(old).encode(), LIMITS)
    assert [(e.type, e.value) for e in found.exceptions] == [("TypeError", "m")]
    listed = json.dumps([{"function": "f", "filename": "https://x/a.js", "lineno": 1, "colno": 2}])
    for stack in (listed, "TypeError: m\n    at f (https://x/a.js:1:2)"):
        old["properties"]["$exception_stack_trace_raw"] = stack
        (found,) = posthog.read(json.dumps(old).encode(), LIMITS)
        frame = told((found.exceptions[0].frames or [])[0])
        assert (frame.function, frame.abs_path, frame.lineno, frame.colno) == ("f", "https://x/a.js", 1, 2)


@pytest.mark.parametrize(
    ("lib", "frame", "platform"),
    [
        ("posthog-ruby", {"platform": "ruby", "function": "f"}, "ruby"),
        ("posthog-react-native", {"platform": "hermes", "function": "f"}, "javascript"),
        ("posthog-ios", {"platform": "apple", "instruction_addr": "0x1"}, "native"),
        ("posthog-elixir", {"platform": "custom", "lang": "elixir", "function": "f"}, "custom"),
        ("posthog-go", {"function": "f"}, "go"),
        ("web", {"function": "f"}, "javascript"),
    ],
)
def test_platforms(lib: str, frame: dict[str, Any], platform: str) -> None:
    assert crash(posthog_exception(frame), **{"$lib": lib}).platform == platform


@pytest.mark.parametrize("body", [b"", b"7", b"{", b"data=%%%", b"data=AAAA", b"data=eyJ", b"x=1"])
def test_no_events(body: bytes) -> None:
    with pytest.raises((Malformed, Unsupported, LimitExceeded)):
        posthog.read(body, LIMITS)


def test_events_of_other_kinds() -> None:
    with pytest.raises(Unsupported, match="exception"):
        posthog.read(b'{"batch": [{"event": "$pageview", "properties": {}}]}', LIMITS)
    assert hits(b'{"batch": [{"event": "$pageview", "properties": {}}]}') == []


def test_values_of_wrong_types_cost_themselves() -> None:
    junk: list[Any] = [None, 7, "x", [], {}, True, 1.5, [[1]], {"frames": 7}, {"frames": [7, None, {}]}, "[]", "{"]
    for value in junk:
        for name in ("$exception_list", "$debug_images", "$lib", "$os", "$exception_level", "$exception_fingerprint"):
            crash(**{name: value})
        crash(value if isinstance(value, dict) else {"type": value, "value": value, "mechanism": value})
        crash(posthog_exception(stacktrace=value, module=value, thread_id=value))
        crash(posthog_exception(mechanism={"exception_id": value, "parent_id": value}), posthog_exception())
        for name in ("platform", "function", "filename", "lineno", "colno", "in_app", "chunk_id", "instruction_addr"):
            crash(posthog_exception({**posthog_frame("f"), name: value}))
        for name in ("raw_id", "resolved_name", "line", "context", "lang", "code_variables"):
            crash(posthog_exception({"raw_id": "x", name: value}))
    event = posthog_event()
    for name in ("properties", "uuid", "timestamp", "distinct_id"):
        for value in junk:
            posthog.read(json.dumps({**event, name: value}).encode(), LIMITS)
