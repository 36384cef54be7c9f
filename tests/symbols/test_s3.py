"""S3 buckets through boto3, against a server on this computer; without boto3 only what is said of its absence."""

from __future__ import annotations

import gzip
import random
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import Config, RemoteLimits, SourceConfig
from deadreckon.errors import LimitExceeded
from deadreckon.model.crash import Module
from deadreckon.symbols._s3 import S3
from deadreckon.symbols._transfer import Absent, Clock, Refused, Transient, Unreachable
from deadreckon.symbols.remote import RemoteSource, fetch
from synth.breakpad import SymFile
from synth.symbol_server import Handler, SymbolServer, failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deadreckon.symbols.store import SymbolStore

LIMITS = RemoteLimits(connect_seconds=2, read_seconds=0.3, total_seconds=5, retry_wait_seconds=0.01, max_bytes=1 << 20)
CONTENT = random.Random(3).randbytes(600_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Iterator[SymbolServer]:
    pytest.importorskip("boto3")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    with SymbolServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server


def get(path: str, url: str = "s3://bucket/a%20prefix/") -> bytes:
    s3 = S3(SourceConfig(url), LIMITS)
    try:
        with s3.get(path, Clock(5)) as blocks:
            return b"".join(blocks)
    finally:
        s3.hang_up()


def error(status: int, code: str) -> Callable[[Handler], None]:
    body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    return lambda handler: handler.send(status, body)


def test_objects(server: SymbolServer) -> None:
    server.files = {
        "/bucket/a%20prefix/x%2B%2B/f": CONTENT,
        "/bucket/z": lambda handler: handler.send(200, gzip.compress(CONTENT), Content_Encoding="gzip"),
    }
    assert get("x++/f") == CONTENT
    assert get("z", "s3://bucket") == CONTENT
    assert all("AWS4-HMAC" in headers["authorization"] for _, headers in server.requests)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "NoSuchKey", Absent), (404, "NoSuchBucket", Refused), (403, "AccessDenied", Refused),
     (503, "SlowDown", Transient), (500, "InternalError", Transient), (400, "RequestTimeout", Transient)],
)  # fmt: skip
def test_errors(server: SymbolServer, status: int, code: str, kind: type[Exception]) -> None:
    server.fallback = error(status, code)
    with pytest.raises(kind, match=code) as caught:
        get("f")
    assert type(caught.value) is kind
    assert len(server.requests) == 1


def silent(handler: Handler) -> None:
    handler.stall()


def silent_body(handler: Handler) -> None:
    handler.send(200, b"half", Content_Length="8")
    handler.stall()


def short(handler: Handler) -> None:
    handler.send(200, b"half", Content_Length="8")
    handler.close_connection = True


@pytest.mark.parametrize("reply", [silent, silent_body, short])
def test_trouble_on_the_way(server: SymbolServer, reply: Callable[[Handler], None]) -> None:
    server.fallback = reply
    with pytest.raises(Transient):
        get("f")


def test_limits(server: SymbolServer) -> None:
    server.fallback = bytes(LIMITS.max_bytes + 1)
    with pytest.raises(LimitExceeded):
        get("f")
    bomb = gzip.compress(bytes(64 << 20))
    server.fallback = lambda handler: handler.send(200, bomb, Content_Encoding="gzip")
    with pytest.raises(LimitExceeded):
        get("f")


def test_nobody_there_and_nobody_known(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="Could not connect"):
        get("f")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Unreachable, match="credentials"):
        get("f")
    assert server.requests == []


def a_module() -> tuple[Module, str, bytes]:
    file = SymFile(id="0" * 31 + "10", name="app")
    file.function(0x1000, 0x10, "f")
    return (
        Module(0, 0x2000, "app", None, "app", "00000000-0000-0000-0000-000000000001"),
        f"app/{file.id}/app.sym",
        bytes(file),
    )


def test_a_source(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = a_module()
    server.files = {f"/bucket/{path}": failing(1, content, 503)}
    config = Config(remote=LIMITS)
    (answer,) = fetch([RemoteSource("x", SourceConfig("s3://bucket", "breakpad"), config, symbols)], [module])
    (file,) = answer.files
    assert file.endswith(path)
    assert server.asked == [f"/bucket/{path}"] * 2


def test_without_boto3(symbols: SymbolStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    config = Config(remote=replace(LIMITS, parallel=1))
    (answer,) = fetch([RemoteSource("x", SourceConfig("s3://bucket"), config, symbols)], [a_module()[0]])
    assert answer.unavailable == {"s3://bucket": "boto3 is not installed; pip install 'deadreckon[s3]'"}
