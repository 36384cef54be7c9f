"""Payloads that mean harm, or were harmed, for every reader of error trackers' events: an answer, within limits."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon import process, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.reports import payload
from deadreckon.wire import jsontext
from synth.payloads import EVENT_ID, envelope, posthog_event, posthog_frame, rollbar_item, sentry_event, sentry_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def enveloped(document: bytes) -> bytes:
    return envelope(({"type": "event"}, document))


READERS: dict[str, tuple[str, Callable[[bytes], bytes], bytes]] = {
    "sentry-event": ("deadreckon.reports.sentry.store", bytes, json.dumps(sentry_event()).encode()),
    "sentry-envelope": ("deadreckon.reports.sentry.envelope", enveloped, json.dumps(sentry_event()).encode()),
    "rollbar": ("deadreckon.reports.rollbar", bytes, json.dumps(rollbar_item()).encode()),
    "posthog": ("deadreckon.reports.posthog", bytes, json.dumps(posthog_event()).encode()),
}
"""By format: its module, what is around its JSON, and a document."""

formats = pytest.mark.parametrize("name", list(READERS))


def read(name: str, document: bytes) -> list[RawCrash]:
    module, wrap, _ = READERS[name]
    found = importlib.import_module(module).read(wrap(document), LIMITS)
    return found if isinstance(found, list) else [found]


def spliced(name: str, extra: bytes) -> bytes:
    """A document with more members, of the part of it that is read most closely."""
    document = READERS[name][2]
    at = {"rollbar": b'"data": {', "posthog": b'"properties": {'}.get(name, b"{")
    return document.replace(at, at + extra + b",", 1)


@formats
def test_nesting_of_a_hundred_thousand(name: str) -> None:
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = b'"extra":' + opened * 100_000 + b"1" + closed * 100_000
        with pytest.raises(LimitExceeded):
            read(name, spliced(name, deep))


@formats
def test_nesting_that_python_can_follow_and_json_encoders_can_not(name: str) -> None:
    member = {"rollbar": b"custom", "posthog": b"deep"}.get(name, b"extra")
    for depth in (100, 400):
        deep = b'"%s":' % member + b'{"a":' * depth + b"1" + b"}" * depth
        (found,) = read(name, spliced(name, deep))
        msgspec.json.encode(found.attributes)
        assert '"..."' in json.dumps(found.attributes)


def test_ten_million_keys() -> None:
    many = b'"a":1,' * 10_000_000
    with pytest.raises(LimitExceeded, match="max_values"):
        read("rollbar", spliced("rollbar", many[:-1]))


def test_many_keys_end_to_end() -> None:
    document = b"{" + b",".join(b'"k%d":{}' % n for n in range(jsontext.MAX_VALUES // 2 + 10)) + b"}"
    event = process(b'{"event_id":"x","exception":' + document + b"}")
    assert event.status == "unreadable"


@formats
def test_many_keys_that_are_allowed(name: str) -> None:
    some = b",".join(b'"k%d":"v"' % n for n in range(50_000))
    (found,) = read(name, spliced(name, b'"tags":{' + some + b"}"))
    assert len(found.tags) <= LIMITS.max_annotations


@formats
def test_duplicate_keys(name: str) -> None:
    """The last one counts, as JSON's decoders have it."""
    key = {"rollbar": b"environment", "posthog": b"$os"}.get(name, b"environment")
    (found,) = read(name, spliced(name, b'"%s":"first","%s":"second"' % (key, key)))
    assert (found.os_name or found.environment) in {"second", "production"}


@formats
@pytest.mark.parametrize(
    "value",
    [b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-" + b"9" * 30, b'"\\ud800"', b'"\\udfff\\ud800 x"', b'"\\u0000"'],
)
def test_values_that_json_has_not(name: str, value: bytes) -> None:
    for key in (b"environment", b"level", b"timestamp", b"message", b"user", b"custom", b"extra", b"$os", b"deep"):
        for written in (value, b'{"a":[%s]}' % value):
            (found,) = read(name, spliced(name, b'"%s":%s' % (key, written)))
            text = msgspec.json.encode([found.attributes, found.user, found.request, found.message, found.environment])
            json.loads(text.decode("utf-8"))


@formats
def test_bytes_that_are_no_text(name: str) -> None:
    for junk in (b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80"):
        (found,) = read(name, spliced(name, b'"extra":{"a":"%s"},"custom":{"a":"%s"}' % (junk, junk)))
        msgspec.json.encode(found.attributes)
    # A NUL outside a string is no JSON.
    with pytest.raises(DeadreckonError):
        read(name, READERS[name][2] + b"\x00")


def frames_of(found: list[RawCrash]) -> int:
    stacks = [t.frames for c in found for t in c.threads] + [e.frames for c in found for e in c.exceptions]
    return sum(len(stack or ()) for stack in stacks)


def test_stacks_without_end() -> None:
    many = [sentry_frame(f"f{n}") for n in range(payload.MAX_FRAMES + 10)]
    (found,) = read(
        "sentry-event", json.dumps(sentry_event(exception=[{"type": "E", "stacktrace": {"frames": many}}])).encode()
    )
    frames = found.exceptions[0].frames or []
    assert [len(frames), frames[0].reported and frames[0].reported.function] == [
        payload.MAX_FRAMES,
        many[-1]["function"],
    ]
    assert [d.code for d in found.diagnostics] == ["frame_limit"]
    one = {"type": "E", "stacktrace": {"frames": many[:1000]}}
    (found,) = read("sentry-event", json.dumps(sentry_event(exception=[one] * 70)).encode())
    assert frames_of([found]) == 16 * payload.MAX_FRAMES
    (found,) = read("sentry-event", json.dumps(sentry_event(exception=[{"type": "E"}] * 2000)).encode())
    assert len(found.exceptions) == payload.MAX_EXCEPTIONS
    assert [d.code for d in found.diagnostics] == ["limit_exceeded"]
    trace = {"frames": [{"filename": "x"}] * 300, "exception": {"class": "E"}}
    (found,) = read("rollbar", json.dumps(rollbar_item({"trace_chain": [trace] * 600})).encode())
    assert (len(found.exceptions), frames_of([found])) == (payload.MAX_EXCEPTIONS, 16 * payload.MAX_FRAMES)
    stack = {"type": "raw", "frames": [posthog_frame("f")] * 5000}
    (found,) = read("posthog", json.dumps(posthog_event({"type": "E", "stacktrace": stack})).encode())
    assert frames_of([found]) == payload.MAX_FRAMES


def test_stacks_without_end_whose_frames_are_of_wrong_types() -> None:
    """Looking at such frames one by one takes its time: those that are left out are not looked at."""
    frame = {"function": 7, "method": 7, "lineno": "1", "filename": "x"}
    one = {"frames": [frame] * 5000}
    (found,) = read("sentry-event", json.dumps(sentry_event(exception=[{"type": "E", "stacktrace": one}])).encode())
    assert frames_of([found]) == payload.MAX_FRAMES
    assert [d.message for d in found.diagnostics] == ["stacktrace: the outermost 904 frames"]
    many = [{"type": str(n), "stacktrace": one} for n in range(20)]
    (found,) = read("sentry-event", json.dumps(sentry_event(exception=many)).encode())
    assert [e.type for e in found.exceptions if e.frames] == [str(n) for n in range(19, 3, -1)]
    trace = {**one, "exception": {"class": "E"}}
    (found,) = read("rollbar", json.dumps(rollbar_item({"trace_chain": [trace] * 20})).encode())
    assert frames_of([found]) == 16 * payload.MAX_FRAMES
    assert {d.message for d in found.diagnostics} == {"trace.frames: the outermost 904 frames"}


def test_threads_and_images_without_end() -> None:
    limits = ReportLimits(max_threads=3, max_modules=2)
    event = sentry_event(
        threads=[{"id": n} for n in range(10)],
        debug_meta={"images": [{"type": "elf", "image_addr": n << 12, "code_id": "ab" * 20} for n in range(1, 10)]},
    )
    found = importlib.import_module("deadreckon.reports.sentry.store").read(json.dumps(event).encode(), limits)
    assert (len(found.threads), len(found.modules)) == (3, 2)
    assert [d.code for d in found.diagnostics] == ["limit_exceeded"] * 2


@pytest.mark.parametrize(
    "encode",
    [gzip.compress, zlib.compress, lambda d: base64.b64encode(zlib.compress(d))],
    ids=["gzip", "zlib", "base64"],
)
def test_bombs(encode: Callable[[bytes], bytes]) -> None:
    bomb = encode(b'{"event_id":"' + bytes(80 << 20))
    event = process(bomb)
    assert event.status in {"unreadable", "degraded"}
    with pytest.raises(DeadreckonError):
        importlib.import_module("deadreckon.reports.sentry.store").read(bomb, LIMITS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutations_give_an_answer(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(READERS)))
    document = bytearray(READERS[name][2])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(document)))
        document[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=6))
    try:
        for crash in read(name, bytes(document)):
            msgspec.json.encode([crash.attributes, crash.user, crash.request, crash.tags])
    except DeadreckonError:
        pass
    wrapped = READERS[name][1](bytes(document))
    assert sum(f.sniff(reports.Probe(wrapped)) for f in reports.FORMATS) <= 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


def replaced(value: Any, data: st.DataObject, depth: int = 0) -> Any:
    """A document in which some value is another one of any type."""
    if depth and data.draw(st.integers(0, 9)) == 0:
        return data.draw(json_values)
    if isinstance(value, dict):
        return {k: replaced(v, data, depth + 1) for k, v in value.items()}
    return [replaced(v, data, depth + 1) for v in value] if isinstance(value, list) else value


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_values_give_an_answer(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(READERS)))
    document = replaced(json.loads(READERS[name][2]), data)
    try:
        found = read(name, json.dumps(document).encode())
    except DeadreckonError:
        return
    for crash in found:
        msgspec.json.encode([crash.attributes, crash.user, crash.request, crash.tags])
        for frame in (f for e in crash.exceptions for f in e.frames or ()):
            msgspec.json.encode(frame.reported)


@given(json_values)
def test_kept_values_can_be_encoded(value: Any) -> None:
    assert json.loads(msgspec.json.encode(payload.kept(value))) == json.loads(json.dumps(jsontext.plain(value)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("  7 ", None), (EVENT_ID.upper(), EVENT_ID), ("{" + EVENT_ID + "}", None), (7, None), ("x" * 100_000, None)],
)
def test_event_ids(value: Any, expected: str | None) -> None:
    assert payload.event_id(value) == expected
