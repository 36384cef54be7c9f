"""Sentry's envelopes and minidump uploads: items with and without a length, files beside a dump, damage."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon import process, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed, UnknownFormat, Unsupported
from deadreckon.reports.sentry import dump, envelope, packed
from deadreckon.wire import multipart
from synth.payloads import EVENT_ID, form, sentry_event
from synth.payloads import envelope as made

LIMITS = ReportLimits()
DUMP = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2/dumps/templates.dmp"
EVENT = json.dumps(sentry_event()).encode()


def hits(data: bytes) -> list[str]:
    return [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))]


@pytest.mark.parametrize("length", [True, False])
def test_event_and_attachment(length: bool) -> None:
    body = made(
        ({"type": "event"}, EVENT),
        ({"type": "attachment", "filename": "a.log", "content_type": "text/plain"}, b"hello log"),
        ({"type": "client_report"}, b"{}"),
        length=length,
    )
    (found,) = envelope.read(body, LIMITS)
    assert (found.format, found.event_id) == ("sentry-envelope", EVENT_ID)
    assert found.exceptions[0].type == "SyntaxError"
    assert [(a.name, a.size, a.content_type) for a in found.attachments] == [("a.log", 9, "text/plain")]
    assert found.diagnostics == []
    assert hits(body) == ["sentry-envelope"]


def test_a_payload_with_line_ends_needs_its_length() -> None:
    event = json.dumps(sentry_event(), indent=1).encode()
    binary = b"\n\r\n{}\n\x00"
    body = made(({"type": "attachment", "filename": "x"}, binary), ({"type": "event"}, event))
    (found,) = envelope.read(body, LIMITS)
    assert found.attachments[0].size == len(binary)
    assert found.exceptions[0].type == "SyntaxError"


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\n", b"\r\n"])
def test_ends(end: bytes) -> None:
    body = made(({"type": "event"}, EVENT)).rstrip(b"\n") + end
    assert len(envelope.read(body, LIMITS)) == 1
    windows = b'{}\r\n{"type":"event"}\r\n' + EVENT + b"\r\n"
    assert len(envelope.read(windows, LIMITS)) == 1
    assert hits(windows) == ["sentry-envelope"]


def test_the_headers_id_counts_where_the_event_has_none() -> None:
    nameless = json.dumps(sentry_event(event_id=...)).encode()
    header = {"event_id": "35eb1ea2-4fdc-4a72-8dee-dade5e12af7d"}
    (found,) = envelope.read(made(({"type": "event"}, nameless), header=header), LIMITS)
    assert found.event_id == "35eb1ea24fdc4a728deedade5e12af7d"


def test_several_events_and_a_report_by_the_user() -> None:
    other = json.dumps(sentry_event(event_id="1" * 32, type="transaction", exception=..., transaction="job")).encode()
    report = json.dumps({"name": "Jane", "comments": "It broke"}).encode()
    found = envelope.read(
        made(({"type": "event"}, EVENT), ({"type": "transaction"}, other), ({"type": "user_report"}, report)), LIMITS
    )
    assert [(c.event_id, c.level) for c in found] == [(EVENT_ID, "error"), ("1" * 32, "info")]
    assert all(c.attributes["user_report"]["comments"] == "It broke" for c in found)


@pytest.mark.parametrize("items", [(), (({"type": "session"}, b"{}"),), (({"type": "attachment"}, b"x"),)])
def test_nothing_of_a_crash(items: Any) -> None:
    with pytest.raises(Unsupported, match="the envelope holds no event"):
        envelope.read(made(*items), LIMITS)


def test_gzip_and_zlib_around_it() -> None:
    body = made(({"type": "event"}, EVENT))
    event = process(gzip.compress(body))
    assert (event.status, event.source.format, event.event_id) == ("ok", "sentry-envelope", EVENT_ID)
    for encoded in (zlib.compress(body), gzip.compress(body)):
        assert envelope.read(encoded, LIMITS)[0].event_id == EVENT_ID
    assert hits(zlib.compress(body)) == ["sentry-envelope"]


# -- minidumps --------------------------------------------------------------------------------------------------------


def test_minidump_in_an_envelope() -> None:
    told = sentry_event(platform="native", exception=..., release="app@1", tags={"a": "b"}, level="fatal")
    body = made(
        ({"type": "event"}, json.dumps(told).encode()),
        ({"type": "attachment", "attachment_type": "event.minidump", "filename": "x.dmp"}, DUMP.read_bytes()),
        ({"type": "attachment", "filename": "a.log"}, b"log"),
    )
    plain = process(DUMP)
    event = process(body)
    assert (event.source.format, event.status) == ("minidump", plain.status)
    assert (event.event_id, event.release, event.tags) == (EVENT_ID, "app@1", {"a": "b"})
    assert (event.threads, event.timestamp) == (plain.threads, plain.timestamp)
    assert [a.name for a in event.attachments or []] == ["a.log"]
    assert (event.exceptions or [])[0].type == (plain.exceptions or [])[0].type
    assert (event.attributes or {}).keys() >= (plain.attributes or {}).keys()


def test_minidump_alone_in_an_envelope() -> None:
    body = made(({"type": "attachment", "attachment_type": "event.minidump"}, DUMP.read_bytes()))
    (found,) = envelope.read(body, LIMITS)
    assert (found.format, found.event_id, found.level) == ("minidump", EVENT_ID, None)


def test_damaged_minidump_beside_an_event() -> None:
    item = ({"type": "attachment", "attachment_type": "event.minidump"}, b"MDMP and then nothing")
    (found,) = envelope.read(made(({"type": "event"}, EVENT), item), LIMITS)
    assert found.format == "sentry-envelope"
    assert [d.severity for d in found.diagnostics] == ["warning"]
    with pytest.raises(DeadreckonError):
        envelope.read(made(item), LIMITS)


def test_form_with_json_and_fields() -> None:
    told = {"release": "app@1", "tags": {"a": "b"}, "event_id": EVENT_ID}
    body = form(
        ("upload_file_minidump", DUMP.read_bytes(), "mini.dmp"),
        ("sentry", json.dumps(told).encode()),
        ("sentry[user][id]", b"7"),
        ("sentry[fingerprint][]", b"mine"),
        ("prod", b"Electron"),
        ("upload_file_license", b"text", "LICENSE"),
    )
    assert hits(body) == ["sentry-minidump"]
    plain, event = process(DUMP), process(body)
    assert (event.source.format, event.event_id, event.release) == ("minidump", EVENT_ID, "app@1")
    assert (event.tags, event.user, event.grouping) == ({"a": "b"}, {"id": "7"}, ["mine"])
    assert (event.attributes or {})["extra"] == {"prod": "Electron"}
    assert [(a.name, a.size) for a in event.attachments or []] == [("LICENSE", 4)]
    assert (event.threads, event.level) == (plain.threads, plain.level)


def test_form_with_chunks_and_messagepack() -> None:
    text = json.dumps({"release": "app@2"})
    crumb = msgspec.msgpack.encode({"message": "m", "timestamp": 1})
    packed_event = msgspec.msgpack.encode({"event_id": EVENT_ID, "environment": "prod"})
    body = form(
        ("upload_file_minidump", DUMP.read_bytes(), "mini.dmp"),
        ("sentry__2", text[5:].encode()),
        ("sentry__1", text[:5].encode()),
        ("__sentry-breadcrumb1", crumb + crumb, "__sentry-breadcrumb1"),
    )
    (found,) = dump.read(body, LIMITS)
    assert found.release == "app@2"
    assert found.attributes["breadcrumbs"] == [{"message": "m", "timestamp": 1}] * 2
    assert found.attachments == []
    other = form(
        ("upload_file_minidump", DUMP.read_bytes(), "mini.dmp"),
        ("__sentry-event", packed_event, "__sentry-event"),
        ("__sentry-breadcrumb1", b"\xc1junk", "__sentry-breadcrumb1"),
    )
    (found,) = dump.read(other, LIMITS)
    assert (found.event_id, found.environment) == (EVENT_ID, "prod")


def test_form_with_a_compressed_dump_and_bad_json() -> None:
    body = form(("upload_file_minidump", gzip.compress(DUMP.read_bytes()), "mini.dmp.gz"), ("sentry", b"{"))
    (found,) = dump.read(body, LIMITS)
    assert (found.format, bool(found.threads)) == ("minidump", True)
    assert [d.code for d in found.diagnostics if d.severity == "warning"] == ["malformed"]


def test_form_without_a_dump() -> None:
    with pytest.raises(UnknownFormat):
        dump.read(form(("upload_file_minidump", b"no dump", "x")), LIMITS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("sentry[a][b]", b"1"), ("sentry[a][c]", b"2")], {"a": {"b": "1", "c": "2"}}),
        ([("sentry[a][]", b"1"), ("sentry[a][]", b"2")], {"a": ["1", "2"]}),
        ([("sentry[a]", b"1"), ("sentry[a][b]", b"2")], {"a": "1"}),
        ([("sentry[]", b"1"), ("sentry[", b"2"), ("sentry[" + "][" * 50 + "]", b"3")], {"": "1"}),
        ([("x", b"1")], {"extra": {"x": "1"}}),
    ],
)
def test_fields_that_spell_an_event(fields: list[tuple[str, bytes]], expected: dict[str, Any]) -> None:
    assert dump.event_data(multipart.parse(form(*fields))) == expected


# -- damage -----------------------------------------------------------------------------------------------------------


def test_what_is_cut_short() -> None:
    body = made(({"type": "attachment", "filename": "x"}, b"y" * 50), ({"type": "event"}, EVENT))
    with pytest.raises(Malformed):
        envelope.read(body[:-40], LIMITS)
    swapped = made(({"type": "event"}, EVENT), ({"type": "attachment", "filename": "x"}, b"y" * 50))
    (found,) = envelope.read(swapped[:-20], LIMITS)
    assert found.exceptions[0].type == "SyntaxError"
    assert [d.code for d in found.diagnostics] == ["malformed"]
    (found,) = envelope.read(made(({"type": "event"}, EVENT)) + b"no header\n", LIMITS)
    assert [(d.where or {})["expected"] for d in found.diagnostics] == ["JSON"]


def test_limits() -> None:
    many = b"{}\n" + b'{"type":"x","length":0}\n\n' * (envelope.MAX_ITEMS + 1)
    with pytest.raises(LimitExceeded, match="max_items"):
        envelope.read(many, LIMITS)
    with pytest.raises(Malformed):
        envelope.read(b"x" * 100, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x81\x80\x01",
        b"\xc7\x01\x05a",
        b"\x80" * 3000,
        b"\x92\x01",
    ],
)
def test_messagepack_gives_an_answer(data: bytes) -> None:
    assert len(packed.unpacked(data)) <= 256


@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 300))
def test_mutations_give_an_answer(junk: bytes, start: int, end: int) -> None:
    body = made(({"type": "event"}, b'{"message":"m"}'), ({"type": "attachment"}, b"x\ny"), ({"type": "event"}, b"{}"))
    mutated = body[: min(start, end)] + junk + body[max(start, end) :]
    try:
        envelope.read(mutated, LIMITS)
    except DeadreckonError:
        pass
    hits(mutated)


@given(st.binary(max_size=60))
def test_any_messagepack_gives_an_answer(data: bytes) -> None:
    packed.unpacked(data)
    packed.unpacked(b"\x82\xa1a" + data)
