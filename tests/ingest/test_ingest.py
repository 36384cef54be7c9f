"""Requests to jobs or answers: what each product's API says to good ones and to bad ones. No sockets."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon import Engine
from deadreckon.ingest import (
    PROFILES,
    Answer,
    Grant,
    Job,
    Operation,
    Profile,
    Request,
    Tokens,
    body_limit,
    receive,
)
from deadreckon.ingest import rollbar as rollbar_api
from deadreckon.ingest.sentry import auth_fields, parse_dsn
from synth.payloads import EVENT_ID, envelope, form, posthog_event, rollbar_item, rollbar_trace, sentry_event

DUMP = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2/dumps/templates.dmp"
SERVER, CLIENT, READER = "aaaabbbbccccddddeeeeffff00001111", "c" * 32, "d" * 32
KEY, TOKEN = "b70a31b3510c4cf793964a185cfe1fd0", "685f2e33a75f0f4623584389"

ACCESS = Tokens(
    {
        ("rollbar", SERVER): Grant(frozenset({"post_server_item"}), "p"),
        ("rollbar", CLIENT): Grant(frozenset({"post_client_item"}), "p"),
        ("rollbar", READER): Grant(frozenset({"read"}), "p"),
        ("rollbar", "late"): Grant(frozenset({"post_server_item"}), "p", retry_after=30),
        ("sentry", KEY): Grant(frozenset({"event:write"}), "1"),
        ("sentry", "late"): Grant(frozenset({"event:write"}), "1", retry_after=59.7),
        ("backtrace", TOKEN): Grant(frozenset({"error:post", "symbol:post"}), "p"),
        ("backtrace", "sync" + TOKEN): Grant(frozenset({"error:post", "sync:post"}), "p"),
        ("backtrace", "read" + TOKEN): Grant(frozenset({"object:get", "query:post"}), "p"),
        ("backtrace", "late" + TOKEN): Grant(frozenset({"error:post"}), "p", retry_after=5),
        ("posthog", "phc_key"): Grant(frozenset({"capture"}), "7"),
        ("posthog", "late"): Grant(frozenset({"capture"}), "7", retry_after=5),
        ("posthog", "phx_read"): Grant(frozenset({"error_tracking:read"}), "7"),
        ("posthog", "phx_write"): Grant(frozenset({"error_tracking:read", "error_tracking:write"}), "7"),
    },
    frozenset({"acme", "saucebot"}),
)


def ask(
    target: str,
    body: Any = b"",
    method: str = "POST",
    profile: Profile | None = None,
    peer: str | None = None,
    **headers: str,
) -> Job | Operation | Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return receive(Request(method, target, named, data, peer), ACCESS, profile)


def job(found: Job | Operation | Answer) -> Job:
    assert isinstance(found, Job), found
    assert found.answer.status == 200
    return found


def refused(found: Job | Operation | Answer) -> tuple[int, dict[str, Any]]:
    assert isinstance(found, Answer), found
    assert found.headers["Access-Control-Allow-Origin"] == "*"
    return found.status, json.loads(found.body) if found.body[:1] in b"{[" else {}


# -- Rollbar ----------------------------------------------------------------------------------------------------------

ITEM = "/api/1/item/"


@pytest.mark.parametrize("target", [ITEM, "/api/1/item", "/api/1/item/?access_token=" + SERVER])
def test_rollbar_item(target: str) -> None:
    item = rollbar_item(uuid="bd249503-6f54-4a5d-932e-f893c32c4132")
    found = job(ask(target, item))
    assert (found.product, found.kind, found.project) == ("rollbar", "rollbar", "p")
    assert found.event_id == "bd2495036f544a5d932ef893c32c4132"
    told = json.loads(found.answer.body)
    assert told == {"err": 0, "result": {"id": None, "uuid": "bd249503-6f54-4a5d-932e-f893c32c4132"}}
    with Engine() as engine:
        event = engine.process(bytes(found.files[0].data), kind=found.kind)
    assert (event.event_id, (event.exceptions or [])[0].type) == (found.event_id, "NameError")


def test_rollbar_forms_and_encodings() -> None:
    text = json.dumps(rollbar_item())
    posted = job(ask(ITEM, b"payload=" + quote(text).encode(), Content_Type="application/x-www-form-urlencoded"))
    assert json.loads(bytes(posted.files[0].data))["data"]["environment"] == "production"
    assert SERVER.encode() not in bytes(posted.files[0].data)
    packed = job(ask(ITEM, gzip.compress(text.encode()), Content_Encoding="gzip"))
    assert bytes(packed.files[0].data) == text.encode()
    # A client that says it sends a form, and sends JSON.
    job(ask(ITEM, text.encode(), Content_Type="application/x-www-form-urlencoded"))


@pytest.mark.parametrize(
    ("headers", "query", "in_payload", "status"),
    [
        ({"X_Rollbar_Access_Token": SERVER}, "", None, 200),
        ({"X_Rollbar_Access_Token": SERVER}, "", "wrong", 200),
        ({"X_Rollbar_Access_Token": "wrong"}, "", SERVER, 403),
        ({}, "", SERVER, 200),
        ({}, "?access_token=" + SERVER, None, 200),
        ({}, "", None, 403),
        ({}, "", 7, 403),
        ({}, "", READER, 403),
        ({}, "", CLIENT, 403),
    ],
)
def test_rollbar_tokens(headers: dict[str, Any], query: str, in_payload: Any, status: int) -> None:
    found = ask(ITEM + query, {**rollbar_item(platform="linux"), "access_token": in_payload}, **headers)
    assert (found.answer if isinstance(found, Job) else found).status == status  # type: ignore[union-attr]


@pytest.mark.parametrize("platform", ["browser", "flash", "android", "ios", "Browser"])
def test_rollbar_platforms(platform: str) -> None:
    item = rollbar_item(platform=platform)
    assert refused(ask(ITEM, item))[0] == 403
    job(ask(ITEM, {**item, "access_token": CLIENT}))
    job(ask(ITEM, item, profile=Profile(strict_tokens=False)))
    assert refused(ask(ITEM, {**rollbar_item(platform="linux"), "access_token": CLIENT}))[0] == 403


@pytest.mark.parametrize("body", [b"", b"  \n", b"{", b"[]", b"payload=", b"payload={", b'{"a": 1,}', b"\xff\xfe\x00"])
def test_rollbar_bad_json(body: bytes) -> None:
    status, told = refused(ask(ITEM, body, X_Rollbar_Access_Token=SERVER))
    assert (status, told["err"]) == (400, 1)
    assert told["message"]


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"access_token": SERVER}, "data"),
        ({"access_token": SERVER, "data": []}, "data"),
        (rollbar_item(environment=...), "environment"),
        (rollbar_item(environment=""), "environment"),
        (rollbar_item(environment="x" * 256), "environment"),
        (rollbar_item(environment=7), "environment"),
        (rollbar_item({}), "exactly one of"),
        (rollbar_item({"trace": rollbar_trace(), "message": {"body": "x"}}), "got trace, message"),
        (rollbar_item({"telemetry": []}), "got none"),
        (rollbar_item({"trace": []}), "trace"),
        (rollbar_item({"trace": {"exception": {"class": "E"}}}), "frames"),
        (rollbar_item({"trace": {"frames": [{}], "exception": {"class": "E"}}}), "filename"),
        (rollbar_item({"trace": {"frames": []}}), "exception.class"),
        (rollbar_item({"trace_chain": []}), "trace_chain"),
        (rollbar_item({"trace_chain": [rollbar_trace(), {}]}), "trace_chain.1.frames"),
        (rollbar_item({"message": {}}), "message.body"),
        (rollbar_item({"message": "x"}), "message"),
        (rollbar_item({"crash_report": "x"}), "crash_report"),
    ],
)
def test_rollbar_wrong_items(item: dict[str, Any], names: str) -> None:
    status, told = refused(ask(ITEM, item))
    assert (status, told["err"]) == (422, 1)
    assert names in told["message"]


@pytest.mark.parametrize(
    ("profile", "limit"), [("rollbar-32k", 32 << 10), ("rollbar-128k", 128 << 10), ("documented", 128 << 10)]
)
def test_rollbar_sizes(profile: str, limit: int) -> None:
    empty = len(json.dumps(rollbar_item(custom={"x": ""})))
    for size, status in ((limit, 200), (limit + 1, 413)):
        item = rollbar_item(custom={"x": "y" * (size - empty)})
        for body, headers in (
            (json.dumps(item).encode(), {}),
            (gzip.compress(json.dumps(item).encode()), {"Content_Encoding": "gzip"}),
        ):
            found = ask(ITEM, body, profile=PROFILES[profile], **headers)
            assert (found.answer if isinstance(found, Job) else found).status == status  # type: ignore[union-attr]
    bomb = gzip.compress(bytes(100 << 20))
    assert refused(ask(ITEM, bomb, Content_Encoding="gzip", X_Rollbar_Access_Token=SERVER))[0] == 413
    assert refused(ask(ITEM, b"x" * ((1 << 20) + 1)))[0] == 413


def test_rollbar_other_answers() -> None:
    ping = ask("/api/1/status/ping", method="GET")
    assert isinstance(ping, Answer)
    assert (ping.status, ping.body) == (200, b"pong")
    late = ask(ITEM, {**rollbar_item(), "access_token": "late"})
    assert refused(late)[0] == 429
    assert late.headers["Retry-After"] == "30"  # type: ignore[union-attr]
    assert refused(ask("/api/1/item/12345", method="GET", X_Rollbar_Access_Token=READER))[0] == 404
    assert refused(ask("/api/1/item/12345", method="GET", X_Rollbar_Access_Token=SERVER))[0] == 403
    assert refused(ask("/api/1/item/12345", method="DELETE", X_Rollbar_Access_Token=READER))[0] == 403
    assert refused(ask("/asdf"))[0] == 404
    assert refused(ask(ITEM, b"x", Content_Encoding="compress", X_Rollbar_Access_Token=SERVER))[0] == 400


def test_rollbar_remote_ip() -> None:
    item = rollbar_item(request={"user_ip": "$remote_ip"}, custom={"x": "$remote_ip"})
    found = json.loads(bytes(job(ask(ITEM, item, peer="100.51.43.14")).files[0].data))
    assert (found["data"]["request"]["user_ip"], found["data"]["custom"]["x"]) == ("100.51.43.14", "$remote_ip")
    untouched = job(ask(ITEM, item)).files[0].data
    assert json.loads(bytes(untouched)) == item


@pytest.mark.parametrize(
    ("scopes", "method", "resource", "platform", "allowed"),
    [
        ({"post_server_item"}, "POST", "item", "linux", True),
        ({"post_server_item"}, "POST", "item", None, True),
        ({"post_server_item"}, "POST", "deploy", None, True),
        ({"post_server_item"}, "POST", "sourcemap", None, True),
        ({"post_client_item"}, "POST", "deploy", None, False),
        ({"post_client_item"}, "POST", "item", "mobile", True),
        ({"read"}, "GET", "items", None, True),
        ({"write"}, "GET", "items", None, False),
        ({"write"}, "PATCH", "item", None, True),
        ({"write"}, "DELETE", "item", None, True),
        ({"write"}, "POST", "item", None, False),
        (set(), "PUT", "item", None, False),
    ],
)
def test_rollbar_scopes(scopes: set[str], method: str, resource: str, platform: str | None, allowed: bool) -> None:
    assert rollbar_api.allowed(frozenset(scopes), method, resource, platform) is allowed


def test_rollbar_source_maps() -> None:
    body = form(("access_token", SERVER.encode()), ("version", b"1"), ("source_map", b"{}", "a.js.map"))
    head: dict[str, Any] = {"Content_Type": "multipart/form-data; boundary=xX-boundary-Xx"}
    found = job(ask("/api/1/sourcemap", body, **head))
    assert [(f.name, f.role) for f in found.files] == [("a.js.map", "sourcemap")]
    assert found.attributes == {"version": "1"}
    assert refused(ask("/api/1/sourcemap", form(("access_token", SERVER.encode())), **head))[0] == 422
    assert refused(ask("/api/1/sourcemap", form(("version", b"1")), **head))[0] == 403
    assert refused(ask("/api/1/sourcemap", b"junk", **head))[0] == 400
    assert refused(ask("/api/1/deploy/", {"access_token": SERVER, "environment": "x"}))[0] == 200


# -- Sentry -----------------------------------------------------------------------------------------------------------

STORE, ENVELOPE, MINIDUMP = "/api/1/store/", "/api/1/envelope/", "/api/1/minidump/?sentry_key=" + KEY
AUTH = (
    f"Sentry sentry_version=7,\n  sentry_timestamp=1329096377,\n  sentry_key={KEY},\n"
    "  sentry_secret=b7d80b520139450f903720eb7991bf3d,\n  sentry_client=sentry-python/1.0"
)


@pytest.mark.parametrize(
    ("encode", "headers"),
    [
        (bytes, {"Content_Type": "application/json"}),
        (bytes, {"Content_Type": "text/plain"}),
        (gzip.compress, {"Content_Encoding": "gzip"}),
        (zlib.compress, {"Content_Encoding": "deflate"}),
        (lambda d: base64.b64encode(zlib.compress(d)), {"Content_Type": "application/octet-stream"}),
        (lambda d: base64.b64encode(zlib.compress(d)), {"Content_Type": "application/json"}),
    ],
)
def test_sentry_store(encode: Any, headers: dict[str, Any]) -> None:
    body = json.dumps(sentry_event()).encode()
    found = job(ask(STORE, encode(body), X_Sentry_Auth=AUTH, **headers))
    assert (found.kind, found.project, found.event_id) == ("sentry-event", "1", EVENT_ID)
    assert json.loads(found.answer.body) == {"id": EVENT_ID}
    assert bytes(found.files[0].data) == body


def test_sentry_event_without_an_id_gets_one() -> None:
    body = json.dumps(sentry_event(event_id=...)).encode()
    found = job(ask(STORE, body, X_Sentry_Auth=AUTH))
    with Engine() as engine:
        event = engine.process(bytes(found.files[0].data), kind=found.kind)
    assert event.event_id == found.event_id == json.loads(found.answer.body)["id"]


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        (STORE, {"X_Sentry_Auth": AUTH}, 200),
        (STORE, {"Authorization": AUTH}, 200),
        (STORE + "?sentry_version=7&sentry_key=" + KEY, {}, 200),
        (STORE, {}, 401),
        (STORE, {"X_Sentry_Auth": "Basic x"}, 401),
        (STORE, {"X_Sentry_Auth": "Sentry sentry_key=unknown"}, 403),
        ("/api/2/store/", {"X_Sentry_Auth": AUTH}, 403),
        (STORE, {"X_Sentry_Auth": "Sentry sentry_key=late"}, 429),
    ],
)
def test_sentry_keys(target: str, headers: dict[str, Any], status: int) -> None:
    found = ask(target, sentry_event(), **headers)
    answer = found.answer if isinstance(found, Job) else found
    assert isinstance(answer, Answer)
    assert answer.status == status
    if status == 429:
        assert answer.headers["Retry-After"] == "60"
        assert answer.headers["X-Sentry-Rate-Limits"] == "60:default;error:key"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"eJwjunk", b"junk", b"\x1f\x8b\x08junk"])
def test_sentry_bad_bodies(body: bytes) -> None:
    for target in (STORE, ENVELOPE, "/api/1/minidump/"):
        status, told = refused(ask(target, body, X_Sentry_Auth=AUTH))
        assert status == 400, target
        assert told["detail"]
    assert refused(ask(STORE, method="GET"))[0] == 405


def test_sentry_envelopes() -> None:
    event = json.dumps(sentry_event()).encode()
    found = job(
        ask(ENVELOPE, gzip.compress(envelope(({"type": "event"}, event))), X_Sentry_Auth=AUTH, Content_Encoding="gzip")
    )
    assert (found.kind, found.event_id) == ("sentry-envelope", EVENT_ID)
    dsn = {"event_id": "35eb1ea2-4fdc-4a72-8dee-dade5e12af7d", "dsn": f"https://{KEY}@sentry.example.com/1"}
    other = job(ask(ENVELOPE, envelope(({"type": "event"}, event), header=dsn)))
    assert json.loads(other.answer.body) == {"id": "35eb1ea24fdc4a728deedade5e12af7d"}
    elsewhere = {"dsn": f"https://{KEY}@sentry.example.com/2"}
    assert refused(ask(ENVELOPE, envelope(({"type": "event"}, event), header=elsewhere)))[0] == 401
    assert refused(ask(ENVELOPE, envelope(({"type": "session"}, b"{}")), X_Sentry_Auth=AUTH)) == (200, {"id": EVENT_ID})
    assert refused(ask(ENVELOPE, envelope(({"type": "event"}, b"{")), X_Sentry_Auth=AUTH))[0] == 400
    assert refused(ask(ENVELOPE, envelope(({"type": "attachment"}, b"log")), X_Sentry_Auth=AUTH))[0] == 200
    dump = {"type": "attachment", "attachment_type": "event.minidump"}
    assert job(ask(ENVELOPE, envelope((dump, DUMP.read_bytes())), X_Sentry_Auth=AUTH)).event_id == EVENT_ID


def test_sentry_minidumps() -> None:
    head: dict[str, Any] = {"Content_Type": "multipart/form-data; boundary=xX-boundary-Xx"}
    told = json.dumps({"event_id": EVENT_ID, "release": "app@1"}).encode()
    body = form(
        ("upload_file_minidump", DUMP.read_bytes(), "x.dmp"), ("upload_file_license", b"x", "LICENSE"), ("sentry", told)
    )
    found = job(ask(MINIDUMP, body, **head))
    assert (found.kind, found.event_id) == ("sentry-minidump", EVENT_ID)
    assert found.answer.body == b"fc6d8c0c-43fc-4630-ad85-0ee518f1b9d0"
    with Engine() as engine:
        event = engine.process(bytes(found.files[0].data), kind=found.kind)
    assert (event.event_id, event.release, event.source.format) == (EVENT_ID, "app@1", "minidump")
    assert job(ask(MINIDUMP, DUMP.read_bytes())).kind == "minidump"
    assert refused(ask(MINIDUMP, form(("other", b"x", "x")), **head)) == (
        400,
        {"detail": "missing minidump", "causes": []},
    )
    empty = form(("upload_file_minidump", b"", "x.dmp"))
    assert refused(ask(MINIDUMP, empty, **head))[1]["detail"] == "invalid minidump"


def test_sentry_sizes() -> None:
    documented = PROFILES["documented"]
    small = zlib.compress(json.dumps(sentry_event(extra={"x": "y" * (1 << 20)})).encode())
    assert refused(ask(STORE, small, profile=documented, X_Sentry_Auth=AUTH, Content_Encoding="deflate"))[0] == 413
    assert refused(ask(STORE, base64.b64encode(small), profile=documented, X_Sentry_Auth=AUTH))[0] == 413
    assert refused(ask(STORE, b"{" + b" " * (200 << 10), profile=documented, X_Sentry_Auth=AUTH))[0] == 413
    job(ask(STORE, small, X_Sentry_Auth=AUTH, Content_Encoding="deflate"))
    assert (
        refused(ask(ENVELOPE, gzip.compress(bytes(250 << 20), 1), X_Sentry_Auth=AUTH, Content_Encoding="gzip"))[0]
        == 413
    )


def test_sentry_parsing_helpers() -> None:
    found = parse_dsn(f"https://{KEY}:secret@sentry.example.com:9000/base/path/42")
    assert found == ("https", KEY, "secret", "sentry.example.com:9000", "/base/path", "42")
    assert parse_dsn("https://key@host/1/") == ("https", "key", None, "host", "", "1")
    for bad in ("", "https://host/1", "ftp://key@host/1", "https://key@host", "https://key@host/"):
        assert parse_dsn(bad) is None
    assert auth_fields(AUTH)["sentry_client"] == "sentry-python/1.0"
    assert auth_fields("sentry sentry_key = a , sentry_version=7") == {"sentry_key": "a", "sentry_version": "7"}


# -- Backtrace --------------------------------------------------------------------------------------------------------

REPORT = json.dumps(
    {
        "uuid": "b923be80-f44b-409c-ab4e-fad5c0fb9c7c",
        "timestamp": 1369188822,
        "lang": "c",
        "langVersion": "11",
        "agent": "curl",
        "agentVersion": "1",
        "mainThread": "0",
        "threads": {"0": {"name": "main", "fault": True, "stack": [{"funcName": "crash"}]}},
    }
).encode()
FORM: dict[str, Any] = {"Content_Type": "multipart/form-data; boundary=xX-boundary-Xx"}


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (f"/acme/{TOKEN}/json", "backtrace-json"),
        (f"/api/post?json&token={TOKEN}", "backtrace-json"),
        (f"/api/post?format=json&token={TOKEN}", "backtrace-json"),
        (f"/post?format=json&token={TOKEN}&universe=u&project=p", "backtrace-json"),
        (f"/acme/{TOKEN}/json/post?token={TOKEN}&format=json", "backtrace-json"),
    ],
)
def test_backtrace_paths(target: str, kind: str) -> None:
    found = job(ask(target + ("&" if "?" in target else "?") + "version=1.0", REPORT))
    assert (found.kind, found.event_id) == (kind, "b923be80f44b409cab4efad5c0fb9c7c")
    told = json.loads(found.answer.body)
    assert told["response"] == "ok"
    assert found.attributes == {"version": "1.0", "_rxid": told["_rxid"]}
    assert json.loads(job(ask(target, REPORT)).answer.body) == told  # The same report has the same receipt.
    assert len(told["_rxid"]) == len("01000000-7e23-7a1e-0000-000000000000")


def test_backtrace_forms() -> None:
    body = form(
        ("upload_file", REPORT, "example_error.json"),
        ("attachment_test.json", b'{"k":1}', "test.json"),
        ("attachment.log", b"text", "a.log"),
        ("version", b"1.0.1"),
        ("_mod_fingerprint", b"AB" * 32),
    )
    found = job(ask(f"/saucebot/{TOKEN}/json", body, **FORM))
    with Engine() as engine:
        event = engine.process(bytes(found.files[0].data), kind=found.kind)
    assert (event.event_id, event.source.format) == (found.event_id, "backtrace-json")
    assert [(a.name, a.size) for a in event.attachments or []] == [("test.json", 7), ("a.log", 4)]
    assert (event.attributes or {})["version"] == "1.0.1"
    assert event.grouping == ["ab" * 32]


def test_backtrace_minidump_with_its_faulting_thread() -> None:
    with Engine() as engine:
        plain = engine.process(DUMP)
        thread = (plain.threads or [])[-1].id
        body = form(("upload_file", DUMP.read_bytes(), "x.dmp"), ("_mod_faulting_tid", str(thread).encode()))
        found = job(ask(f"/acme/{TOKEN}/minidump", body, **FORM))
        event = engine.process(bytes(found.files[0].data), kind=found.kind)
    assert event.source.format == "minidump"
    assert [t.id for t in event.threads or () if t.crashed] == [thread]


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        (f"/acme/{TOKEN}/json", b"", 400),
        (f"/acme/{TOKEN}/json", b"{", 400),
        (f"/acme/{TOKEN}/json", b"[]", 400),
        (f"/acme/{TOKEN}/minidump", b"no dump", 400),
        (f"/acme/{TOKEN}/plcrash", b"no crash", 400),
        ("/acme/unknowntoken/json", REPORT, 403),
        (f"/acme/read{TOKEN}/json", REPORT, 403),
        (f"/acme/sync{TOKEN}/symbols", b"PK", 403),
        (f"/nobody/{TOKEN}/json", REPORT, 503),
        (f"/acme/{TOKEN}/xml", REPORT, 503),
        (f"/acme/{TOKEN}", REPORT, 503),
        (f"/api/post?token={TOKEN}", REPORT, 503),
        ("/api/post?json", REPORT, 403),
        (f"/acme/late{TOKEN}/json", REPORT, 429),
        (f"/acme/{TOKEN}/json?_mod_sync=1", REPORT, 403),
    ],
)
def test_backtrace_refusals(target: str, body: bytes, status: int) -> None:
    found, told = refused(ask(target, body))
    assert (found, told["error"]["code"]) == (status, status)


def test_backtrace_bad_forms_and_scopes() -> None:
    target = f"/acme/{TOKEN}/json"
    assert refused(ask(target, form(("other", b"x")), **FORM))[0] == 400
    assert refused(ask(target, form(("upload_file", REPORT, "x"))[:-10], **FORM))[0] == 400
    synced = form(("upload_file", REPORT, "x"), ("_mod_sync", b"1"))
    assert refused(ask(target, synced, **FORM))[0] == 403
    job(ask(f"/acme/sync{TOKEN}/json", synced, **FORM))
    small = Profile(backtrace_sent=100, backtrace_decoded=100)
    assert refused(ask(target, REPORT, profile=small))[0] == 413
    assert refused(ask(target, method="GET"))[0] == 400


def test_backtrace_symbols_and_source_maps() -> None:
    found = job(ask(f"/acme/{TOKEN}/symbols", form(("upload_file", b"PK...", "symbols.zip"), ("tag", b"test")), **FORM))
    assert [(f.name, f.role, bytes(f.data)) for f in found.files] == [("symbols.zip", "symbols", b"PK...")]
    assert (found.kind, found.attributes["tag"]) == (None, "test")
    found = job(ask(f"/acme/{TOKEN}/sourcemap?tag=x", b"{}"))
    assert [(f.name, f.role) for f in found.files] == [("sourcemap", "sourcemap")]


def test_backtrace_queries() -> None:
    found = ask(f"/api/query?token=read{TOKEN}&universe=u", {"select": []})
    assert isinstance(found, Operation)
    assert (found.resource, found.action, found.project) == ("query", "post", "p")
    assert isinstance(ask(f"/api/get?token=read{TOKEN}&object=1", method="GET"), Operation)
    assert refused(ask(f"/api/get?token={TOKEN}", method="GET"))[0] == 403


# -- PostHog ----------------------------------------------------------------------------------------------------------

API = "/api/environments/7/error_tracking"


@pytest.mark.parametrize("target", ["/batch/", "/batch", "/capture/", "/e/?ip=1&compression=gzip-js", "/i/v0/e/"])
def test_posthog_capture(target: str) -> None:
    batch = {"api_key": "phc_key", "batch": [posthog_event()]}
    sent: list[tuple[bytes, dict[str, Any]]] = [
        (json.dumps(batch).encode(), {}),
        (gzip.compress(json.dumps(batch).encode()), {"Content_Encoding": "gzip"}),
        (gzip.compress(json.dumps(batch).encode()), {"Content_Type": "text/plain"}),
        (b"data=" + base64.b64encode(json.dumps(batch).encode()).replace(b"+", b"%2B"), {}),
    ]
    for body, headers in sent:
        found = job(ask(target, body, **headers))
        assert (found.kind, found.project) == ("posthog", "7")
        assert found.event_id == "019295b1519f71a6aacfc97b5db73696"
        with Engine() as engine:
            event = engine.process(bytes(found.files[0].data), kind=found.kind)
        assert (event.status, event.event_id) == ("ok", found.event_id)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"api_key": "phc_key", "batch": [{"event": "$pageview"}]}, 200),
        ({"api_key": "phc_key", "batch": []}, 200),
        ({"batch": [posthog_event(token="phc_key")]}, 200),
        ([{**posthog_event(), "api_key": "phc_key"}], 200),
        ({"batch": [posthog_event()]}, 401),
        ({"api_key": "unknown", "batch": []}, 401),
        ({"api_key": "phx_read", "batch": []}, 401),
        ({"api_key": "late", "batch": []}, 429),
        (b"", 400),
        (b"{", 400),
        (b"data=%%", 400),
        ("text", 401),
    ],
)
def test_posthog_answers(body: Any, status: int) -> None:
    found = ask("/batch/", body)
    answer = found.answer if isinstance(found, Job) else found
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert json.loads(answer.body)["status" if status == 200 else "detail"]


def test_posthog_sizes_and_methods() -> None:
    assert refused(ask("/batch/", {"x": "y" * 200}, profile=Profile(posthog_sent=100)))[0] == 413
    assert refused(ask("/batch/", gzip.compress(bytes(100 << 20), 1), Content_Encoding="gzip"))[0] == 413
    assert refused(ask("/batch/", method="GET"))[0] == 405


@pytest.mark.parametrize(
    ("method", "path", "token", "expected"),
    [
        ("GET", "stack_frames/", "phx_read", ("stack_frames", "list", None)),
        ("GET", "stack_frames", "phx_write", ("stack_frames", "list", None)),
        ("GET", "stack_frames/abc/", "phx_read", ("stack_frames", "retrieve", "abc")),
        ("POST", "stack_frames/batch_get/", "phx_read", ("stack_frames", "batch_get", None)),
        ("GET", "suppression_rules/", "phx_read", ("suppression_rules", "list", None)),
        ("POST", "suppression_rules/", "phx_write", ("suppression_rules", "create", None)),
        ("GET", "suppression_rules/1/", "phx_read", ("suppression_rules", "retrieve", "1")),
        ("PATCH", "suppression_rules/1/", "phx_write", ("suppression_rules", "update", "1")),
        ("DELETE", "suppression_rules/1/", "phx_write", ("suppression_rules", "delete", "1")),
        ("PATCH", "suppression_rules/reorder", "phx_write", ("suppression_rules", "reorder", None)),
        ("GET", "symbol_sets/", "phx_read", ("symbol_sets", "list", None)),
        ("POST", "symbol_sets/", "phx_write", ("symbol_sets", "create", None)),
        ("GET", "symbol_sets/1", "phx_read", ("symbol_sets", "retrieve", "1")),
        ("DELETE", "stack_frames/abc/", "phx_write", 405),
        ("DELETE", "stack_frames/abc/", None, 405),
        ("PUT", "suppression_rules/1/", "phx_write", 405),
        ("POST", "suppression_rules/", "phx_read", 403),
        ("PATCH", "suppression_rules/reorder", "phx_read", 403),
        ("POST", "symbol_sets/", "phx_read", 403),
        ("GET", "stack_frames/", None, 401),
        ("GET", "stack_frames/", "unknown", 401),
        ("GET", "nothing/", "phx_read", 404),
        ("GET", "stack_frames/?limit=x", "phx_read", 400),
    ],
)
def test_posthog_api(method: str, path: str, token: str | None, expected: Any) -> None:
    headers: dict[str, Any] = {"Authorization": f"Bearer {token}"} if token else {}
    found = ask(f"{API}/{path}", method=method, **headers)
    if isinstance(found, Operation):
        assert (found.resource, found.action, found.id) == expected
        assert found.project == "7"
    else:
        assert refused(found)[0] == expected


@pytest.mark.parametrize(
    ("path", "method", "body", "good"),
    [
        ("suppression_rules/", "POST", {"filters": {}, "order_key": 1, "sampling_rate": 0.5}, True),
        ("suppression_rules/", "POST", {}, True),
        ("suppression_rules/", "POST", {"sampling_rate": 2}, False),
        ("suppression_rules/1/", "PATCH", {"order_key": 1 << 40}, False),
        ("suppression_rules/1/", "PATCH", [], False),
        ("stack_frames/batch_get/", "POST", {"raw_ids": ["a/0"], "symbol_set": "x"}, True),
        ("stack_frames/batch_get/", "POST", {"contents": None, "resolved": True}, True),
        ("stack_frames/batch_get/", "POST", {"raw_ids": [7]}, False),
        ("stack_frames/batch_get/", "POST", b"{", False),
    ],
)
def test_posthog_parameters(path: str, method: str, body: Any, good: bool) -> None:
    found = ask(f"{API}/{path}", body, method=method, Authorization="Bearer phx_write")
    if good:
        assert isinstance(found, Operation)
        assert found.parameters == body
    else:
        assert refused(found)[0] == 400


# -- all of them ------------------------------------------------------------------------------------------------------


def test_preflight_and_limits() -> None:
    found = ask(STORE, method="OPTIONS")
    assert isinstance(found, Answer)
    assert (found.status, "X-Sentry-Auth" in found.headers["Access-Control-Allow-Headers"]) == (200, True)
    for target, attribute in (
        (ITEM, "rollbar_sent"),
        ("/api/1/sourcemap", "backtrace_sent"),
        (STORE, "sentry_store_sent"),
        (ENVELOPE, "sentry_envelope_sent"),
        (MINIDUMP, "sentry_minidump_sent"),
        (f"/acme/{TOKEN}/symbols", "backtrace_symbols"),
        ("/batch/", "backtrace_sent"),
    ):
        assert body_limit("POST", target) == getattr(PROFILES["default"], attribute)
        if attribute != "backtrace_symbols":
            assert body_limit("POST", target, PROFILES["documented"]) <= getattr(PROFILES["default"], attribute)
    assert body_limit("GET", ITEM) == 0


@given(
    st.sampled_from(
        [
            ITEM,
            STORE,
            ENVELOPE,
            MINIDUMP,
            f"/acme/{TOKEN}/json",
            "/batch/",
            f"{API}/suppression_rules/",
            "/api/1/sourcemap",
        ]
    ),
    st.binary(max_size=60),
    st.sampled_from(["", "gzip", "deflate", "br", "zstd", "identity, gzip", "x"]),
    st.sampled_from(["", "multipart/form-data; boundary=b", "application/json"]),
)
def test_any_body_gets_an_answer(target: str, body: bytes, encoding: str, content_type: str) -> None:
    headers = {
        "content-encoding": encoding,
        "Content-Type": content_type,
        "x-sentry-auth": AUTH,
        "Authorization": "Bearer phx_write",
        "X-Rollbar-Access-Token": SERVER,
    }
    for data in (body, b"{" + body, b"--b\r\nContent-Disposition: form-data; name=" + body + b"\r\n\r\nx\r\n--b--"):
        found = receive(Request("POST", target, headers, data), ACCESS)
        answer = found.answer if isinstance(found, Job) else found
        assert isinstance(answer, Operation) or 200 <= answer.status < 504


@given(st.text(max_size=40), st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
def test_any_path_gets_an_answer(path: str, method: str) -> None:
    receive(Request(method, "/" + path, {}, b"{}"), ACCESS)
    body_limit(method, path)
