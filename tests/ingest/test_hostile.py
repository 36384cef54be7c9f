"""Requests that mean harm, at every endpoint: an answer, soon, and in little memory."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.ingest import Answer, Grant, Job, Profile, Request, Tokens, body_limit, receive
from deadreckon.wire import _libarchive
from synth.packed import zstd
from synth.payloads import envelope, form, posthog_event, rollbar_item, sentry_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY, TOKEN = "k" * 32, "b" * 24
ACCESS = Tokens(
    {
        ("rollbar", KEY): Grant(frozenset({"post_server_item"})),
        ("sentry", KEY): Grant(frozenset({"event:write"})),
        ("backtrace", TOKEN): Grant(frozenset({"error:post", "symbol:post"})),
        ("posthog", "phc"): Grant(frozenset({"capture"})),
    }
)
SIZES: dict[str, Any] = dict.fromkeys([name for name in Profile.__slots__ if name != "strict_tokens"], 1 << 20)
SMALL = Profile(**SIZES)
"""Takes a megabyte of anything, so that two of them are too many."""
ENDPOINTS = {
    "store": "/api/1/store/",
    "envelope": "/api/1/envelope/",
    "minidump": "/api/1/minidump/",
    "rollbar": "/api/1/item/",
    "rollbar-map": "/api/1/sourcemap",
    "backtrace": f"/acme/{TOKEN}/json",
    "backtrace-symbols": f"/acme/{TOKEN}/symbols",
    "posthog": "/batch/",
}
endpoints = pytest.mark.parametrize("target", ENDPOINTS.values(), ids=ENDPOINTS)
JSON_ENDPOINTS = {
    "store": (ENDPOINTS["store"], json.dumps(sentry_event()), "{"),
    "rollbar": (ENDPOINTS["rollbar"], json.dumps(rollbar_item()), '"data": {'),
    "posthog": (ENDPOINTS["posthog"], json.dumps({"api_key": "phc", "batch": [posthog_event()]}), '"properties": {'),
    "backtrace": (
        ENDPOINTS["backtrace"],
        '{"uuid": "x", "lang": "c", "agent": "a", "mainThread": "0", "threads": {}}',
        "{",
    ),
}
"""Endpoints that take JSON: a body they take, and where more members may be put into it."""
json_endpoints = pytest.mark.parametrize(("target", "body", "at"), JSON_ENDPOINTS.values(), ids=JSON_ENDPOINTS)


def post(target: str, body: bytes, profile: Profile | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    keys = {"X-Sentry-Auth": f"Sentry sentry_key={KEY}", "X-Rollbar-Access-Token": KEY}
    found = receive(Request("POST", target, {**keys, **named}, body), ACCESS, profile)
    answer = found.answer if isinstance(found, Job) else found
    assert isinstance(answer, Answer)
    assert answer.headers["Content-Type"]
    return answer


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Return a function that says how many bytes Python has held at most since the test began."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def brotli(data: bytes) -> bytes:
    return bytes(pytest.importorskip("brotli").compress(data, quality=1))


BOMBS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", lambda d: zlib.compress(d, wbits=-15)),
    "twice": ("gzip, gzip", lambda d: gzip.compress(gzip.compress(d))),
    "many members": ("gzip", lambda d: b"".join(gzip.compress(d[at : at + 65_536]) for at in range(0, len(d), 65_536))),
    "br": ("br", brotli),
    "zstd": ("zstd", zstd),
}


@endpoints
@pytest.mark.parametrize("encoding", BOMBS)
def test_bombs(target: str, encoding: str, peak: Callable[[], int]) -> None:
    if encoding == "zstd" and not _libarchive.available():
        pytest.skip("no libarchive")
    name, encode = BOMBS[encoding]
    bomb = encode(b'{"a":"' + bytes(12 << 20))
    before = peak()
    assert post(target, bomb, SMALL, Content_Encoding=name).status == 413
    assert peak() - before < 6 << 20


def test_bombs_that_no_header_tells_of(peak: Callable[[], int]) -> None:
    packed = zlib.compress(b'{"a":"' + bytes(12 << 20))
    before = peak()
    for target in (ENDPOINTS["store"], ENDPOINTS["envelope"]):
        assert post(target, base64.b64encode(packed), SMALL).status == 413
        assert post(target, packed, SMALL).status == 413
    assert peak() - before < 6 << 20


@endpoints
def test_too_many_encodings(target: str) -> None:
    assert post(target, b"x", Content_Encoding=", ".join(["gzip"] * 100_000)).status == 413


class Endless(bytes):
    """A body whose length is told, and which must not be read."""

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, _: Any) -> Any:
        raise AssertionError("read")


@endpoints
def test_a_gigabyte(target: str) -> None:
    """What is too large is not even looked at; a server need not read more than body_limit of it."""
    limit = body_limit("POST", target)
    if limit > 1 << 30:
        return  # Symbols may be of ten.
    assert post(target, Endless()).status == 413
    assert limit <= 256 << 20


@json_endpoints
@pytest.mark.parametrize("nested", ["[", '{"a":'], ids=["arrays", "objects"])
def test_nesting(target: str, body: str, at: str, nested: str) -> None:
    closing = "]" if nested == "[" else "}"
    deep = body.replace(at, f'{at}"x": {nested * 100_000}1{closing * 100_000}, ', 1)
    assert post(target, deep.encode()).status in {400, 413}


@json_endpoints
def test_ten_million_keys(target: str, body: str, at: str, peak: Callable[[], int]) -> None:
    many = body.replace(at, at + '"x": {' + '"k":1,' * 10_000_000 + '"k":1}, ', 1).encode()
    before = peak()
    roomy = Profile(rollbar_sent=1 << 30, rollbar_decoded=1 << 30, sentry_store_sent=1 << 30,
                    sentry_store_decoded=1 << 30, posthog_sent=1 << 30, posthog_decoded=1 << 30)  # fmt: skip
    assert post(target, many, roomy).status == 413
    assert peak() - before < 3 * len(many)
    assert post(target, many, SMALL).status == 413


@json_endpoints
@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "9" * 4000, '"\\ud800"', '"\\u0000"', '"\x7f"', '{"k":1,"k":2}']
)
def test_values_that_json_has_not(target: str, body: str, at: str, value: str) -> None:
    """They are taken, as their products do; the job has the body as it came."""
    assert post(target, body.replace(at, f'{at}"x": {value}, ', 1).encode()).status == 200


@json_endpoints
def test_bytes_that_are_no_json(target: str, body: str, at: str) -> None:
    for junk in (b"\0", b"\0" * 1000, body.encode() + b"\0", body.encode()[:-1], b"\xff\xfe{\0}\0", at.encode()):
        assert post(target, junk).status == 400


@pytest.mark.parametrize("target", [ENDPOINTS["rollbar"], ENDPOINTS["posthog"]])
def test_forms_without_end(target: str, peak: Callable[[], int]) -> None:
    field = b"payload=" if "item" in target else b"data="
    fields = field + b"%7B&" + b"a=1&" * 100_000
    assert post(target, fields).status in {400, 413}
    roomy = Profile(rollbar_sent=1 << 30, rollbar_decoded=1 << 30, posthog_sent=1 << 30, posthog_decoded=1 << 30)
    long = field + b"x" * (65 << 20)
    before = peak()
    assert post(target, long, roomy).status == 413
    assert peak() - before < 1 << 20


@pytest.mark.parametrize("target", [ENDPOINTS["minidump"], ENDPOINTS["backtrace"]])
def test_multipart_without_end(target: str) -> None:
    parts = form(*[("a", b"")] * 5000)
    head: dict[str, Any] = {"Content_Type": "multipart/form-data; boundary=xX-boundary-Xx"}
    assert post(target, parts, **head).status == 413
    long = b"--xX-boundary-Xx\r\nContent-Disposition: form-data; name=" + b"x" * 100_000
    assert post(target, long, **head).status in {400, 413}
    assert post(target, b"--xX-boundary-Xx\r\n" * 200_000, **head).status in {400, 413}


def test_envelopes_without_end() -> None:
    item = b'{"type":"session","length":0}\n\n'
    assert post(ENDPOINTS["envelope"], b"{}\n" + item * 100_000).status == 413
    lying = b'{}\n{"type":"event","length":99999999999999}\n{}'
    assert post(ENDPOINTS["envelope"], lying).status in {200, 400}
    negative = b'{}\n{"type":"event","length":-1}\n{"event_id":"x"}\n'
    assert post(ENDPOINTS["envelope"], negative).status == 200
    headers = envelope(({"type": "x" * 100_000}, b""))
    assert post(ENDPOINTS["envelope"], headers).status == 200
