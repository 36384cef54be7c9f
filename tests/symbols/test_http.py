"""The HTTP client against servers that fail, lie, dawdle and lead astray."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import RemoteLimits, SourceConfig
from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.symbols import _http
from deadreckon.symbols._http import Http
from deadreckon.symbols._transfer import Absent, Clock, Refused, Transient, Unreachable, decoded
from synth.symbol_server import Handler, SymbolServer, redirect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMITS = RemoteLimits(connect_seconds=2, read_seconds=0.3, total_seconds=5, max_bytes=1 << 20)
CONTENT = random.Random(1).randbytes(300_000)

pytestmark = pytest.mark.usefixtures("no_proxy")


def get(url: str, path: str = "f", limits: RemoteLimits = LIMITS, **headers: str) -> bytes:
    http = Http(SourceConfig(url, headers=headers), limits)
    try:
        with http.get(path, Clock(limits.total_seconds)) as blocks:
            return b"".join(blocks)
    finally:
        http.hang_up()


# -- What is asked ----------------------------------------------------------------------------------------------------


def test_content_headers_and_paths(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBOLS_TOKEN", "s3cret")
    server.fallback = CONTENT
    url = f"{server.url}/base%20dir/?sig=a%2Bb"
    assert get(url, "libstdc++.so/a b/é%2F?#", Auth_Token="$SYMBOLS_TOKEN", User_Agent="mine") == CONTENT
    ((path, headers),) = server.requests
    assert path == "/base%20dir/libstdc%2B%2B.so/a%20b/%C3%A9%252F%3F%23?sig=a%2Bb"
    assert headers["auth_token"] == "s3cret"
    assert headers["user_agent"] == "mine"
    assert headers["accept-encoding"] == "gzip"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"


def test_one_connection_for_many_files(server: SymbolServer) -> None:
    server.files = {"/a": CONTENT, "/b": b"", "/moved": redirect("/a")}
    http = Http(SourceConfig(server.url), LIMITS)
    for path in ("a", "b", "missing", "moved", "a"):
        try:
            with http.get(path, Clock(5)) as blocks:
                assert b"".join(blocks) in {CONTENT, b""}
        except Absent:
            assert path == "missing"
    assert len(server.requests) == 6
    assert server.connections == 1
    http.hang_up()


def test_a_kept_connection_may_have_been_closed(server: SymbolServer) -> None:
    def once(handler: Handler) -> None:
        handler.send(200, b"x")
        handler.close_connection = True  # Without saying so.

    server.files = {"/f": once}
    http = Http(SourceConfig(server.url), LIMITS)
    for _ in range(3):
        with http.get("f", Clock(5)) as blocks:
            assert b"".join(blocks) == b"x"
        time.sleep(0.02)
    assert server.connections == 3
    http.hang_up()


def test_content_left_unread_ends_the_connection(server: SymbolServer) -> None:
    server.files = {"/f": CONTENT, "/g": b"short"}
    http = Http(SourceConfig(server.url), LIMITS)
    for path, content in (("f", CONTENT), ("g", b"short"), ("f", CONTENT)):
        with http.get(path, Clock(5)) as blocks:
            assert content.startswith(next(blocks))
    with http.get("g", Clock(5)) as blocks:
        assert b"".join(blocks) == b"short"
    http.hang_up()


# -- Statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, Absent), (410, Absent), (204, Absent), (401, Refused), (403, Refused), (418, Refused), (206, Refused),
     (304, Refused), (301, Refused), (429, Transient), (408, Transient), (500, Transient), (503, Transient)],
)  # fmt: skip
def test_statuses(server: SymbolServer, status: int, kind: type[Exception]) -> None:
    server.fallback = lambda handler: handler.send(status)
    with pytest.raises(kind) as caught:
        get(server.url)
    assert type(caught.value) is kind
    assert str(caught.value) == f"HTTP {status}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("7", 7), (" 12 ", 12), ("soon", None), ("-1", None), ("9" * 5000, None), ("²", None),
     ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 1e10), ("Fri, 31 Dec 99999", None)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    found = _http._retry_after(text)
    if seconds == 1e10:
        assert found is not None
        assert found > seconds
    else:
        assert found == seconds


# -- Bodies -----------------------------------------------------------------------------------------------------------


def test_gzip(server: SymbolServer) -> None:
    packed = gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]) + b"\0" * 99
    server.fallback = lambda handler: handler.send(200, packed, Content_Encoding="gzip")
    assert get(server.url) == CONTENT


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_gzip_in_blocks_of_any_size(size: int) -> None:
    zeros = bytes(3 << 20)  # Much more than one block comes out of the last one.
    packed = gzip.compress(zeros) + gzip.compress(b"end")
    blocks = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert b"".join(decoded(blocks, "x-gzip")) == zeros + b"end"
    for cut in (0, 1, 12, len(packed) - 30, len(packed) - 1):
        with pytest.raises(Transient):
            list(decoded([packed[:cut]], "gzip"))


def test_encodings_that_are_damaged_or_unknown() -> None:
    packed = bytearray(gzip.compress(CONTENT))
    packed[-6] ^= 1
    with pytest.raises(Refused):
        list(decoded([bytes(packed)], "gzip"))
    with pytest.raises(Refused):
        decoded([zlib.compress(b"x")], "deflate, gzip")
    assert b"".join(decoded([b"a", b"b"], "Identity ")) == b"ab"


def test_a_bomb_is_cut_off(server: SymbolServer) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    server.fallback = lambda handler: handler.send(200, bomb, Content_Encoding="gzip")
    with pytest.raises(LimitExceeded):
        get(server.url)


def endless(handler: Handler, chunk: bytes = b"10000\r\n" + bytes(65536) + b"\r\n") -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(chunk)


def endless_members(handler: Handler) -> None:
    """Gzip members of nothing: much comes in, nothing out."""
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(gzip.compress(b"") * 1000)


def claims_much(handler: Handler) -> None:
    handler.send(200, b"x", Content_Length="9" * 15)


@pytest.mark.parametrize("reply", [endless, endless_members, claims_much])
def test_no_more_than_the_limit(server: SymbolServer, reply: Callable[[Handler], None]) -> None:
    server.fallback = reply
    with pytest.raises(LimitExceeded, match=r"remote\.max_bytes"):
        get(server.url)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"zz", b"", b"f" * 70_000])
def test_chunk_sizes_that_are_none(server: SymbolServer, size: bytes) -> None:
    """A chunk of -1 bytes makes http.client read all there is, into memory."""
    blocks = iter(range(2000))
    ended = threading.Event()

    def reply(handler: Handler) -> None:
        handler.send(200, size + b"\r\n", Transfer_Encoding="chunked", Content_Length="0")
        try:
            for _ in blocks:
                handler.wfile.write(bytes(65536))
        finally:
            ended.set()

    server.fallback = reply
    with pytest.raises(Transient):
        get(server.url)
    ended.wait(5)
    assert next(blocks, None) is not None, "all of it was taken"


def short(handler: Handler) -> None:
    handler.send(200, b"half", Content_Length="8")
    handler.close_connection = True


def short_chunk(handler: Handler) -> None:
    handler.send(200, b"9\r\nhalf", Transfer_Encoding="chunked")
    handler.close_connection = True


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    os.close(handler.connection.detach())


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("reply", [short, short_chunk, reset, hang_up])
def test_lost_connections(server: SymbolServer, reply: Callable[[Handler], None]) -> None:
    server.fallback = reply
    with pytest.raises(Transient):
        get(server.url)


# -- Time -------------------------------------------------------------------------------------------------------------


def silent(handler: Handler) -> None:
    handler.stall()


def silent_body(handler: Handler) -> None:
    handler.send(200, b"half", Content_Length="8")
    handler.stall()


def silent_chunk(handler: Handler) -> None:
    handler.send(200, b"9\r\nhalf", Transfer_Encoding="chunked")
    handler.stall()


def silent_error(handler: Handler) -> None:
    handler.send(503, b"", Content_Length="8")
    handler.stall()


@pytest.mark.parametrize("reply", [silent, silent_body, silent_chunk, silent_error])
def test_silence(server: SymbolServer, reply: Callable[[Handler], None]) -> None:
    server.fallback = reply
    with pytest.raises(Transient, match=r"timed out|HTTP 503"):
        get(server.url, limits=replace(LIMITS, read_seconds=0.1))


def slow_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b"x")


def slow_body(handler: Handler) -> None:
    handler.send(200, b"", Content_Length="1000000")
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("reply", [slow_headers, slow_body])
def test_a_byte_at_a_time(server: SymbolServer, reply: Callable[[Handler], None]) -> None:
    """Never silent for long, yet without end."""
    server.fallback = reply
    with pytest.raises(Transient, match=r"total_seconds|timed out"):
        get(server.url, limits=replace(LIMITS, total_seconds=0.3))


def test_the_clock_can_be_stopped(server: SymbolServer) -> None:
    server.fallback = slow_body
    clock = Clock(60)
    threading.Timer(0.1, clock.stop).start()
    with pytest.raises(Transient), Http(SourceConfig(server.url), LIMITS).get("f", clock) as blocks:
        list(blocks)
    assert clock.stopped
    assert not clock.wait(0)


# -- Hosts that can't be reached --------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match="refused"):
        get(f"http://127.0.0.1:{closed_port()}")


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Unreachable, match=r"symbols\.example: Temporary failure"):
        get("https://symbols.example")


def test_not_tls(server: SymbolServer) -> None:
    with pytest.raises((Unreachable, Transient)):
        get(server.url.replace("http:", "https:"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days"]
    command += ["2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(path), "-out", str(path) + ".crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (path.parent / "both.pem.crt").read_bytes())
    return path


def test_tls_and_trust(server: SymbolServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.files = {"/f": CONTENT, "/down": redirect("http://localhost/f")}
    url = f"https://localhost:{server.server_port}"
    with pytest.raises(Unreachable, match="certificate"):
        get(url)
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    assert get(url) == CONTENT
    with pytest.raises(Unreachable, match="certificate"):
        get(url.replace("localhost", "127.0.0.1"))
    with pytest.raises(Refused, match="without encryption"):
        get(url, "down")


# -- Redirects --------------------------------------------------------------------------------------------------------


def test_redirects_keep_headers_at_home_only(server: SymbolServer) -> None:
    elsewhere = f"http://localhost:{server.server_port}"
    server.files = {
        "/f": redirect("g?x=1"), "/g?x=1": redirect(f"{elsewhere}/h", 307), "/h": redirect(f"{server.url}/i"),
        "/i": CONTENT,
    }  # fmt: skip
    assert get(server.url, Token="t") == CONTENT
    assert server.asked == ["/f", "/g?x=1", "/h", "/i"]
    assert ["token" in headers for _, headers in server.requests] == [True, True, False, False]
    assert server.requests[2][1]["host"] == f"localhost:{server.server_port}"


def test_another_port_is_another_place(server: SymbolServer) -> None:
    with SymbolServer() as other:
        other.fallback = CONTENT
        server.fallback = redirect(f"{other.url}/f")
        assert get(server.url, Token="t") == CONTENT
        assert "token" not in other.requests[0][1]


@pytest.mark.parametrize(
    "to",
    ["file:///etc/passwd", "ftp://localhost/", "//user:pw@localhost/", "gopher:x", "http://[::1", "http://a:b",
     "http://a..b/", "javascript:1", "http://a:99999/", "data:text/plain,x", "https:///x"],
)  # fmt: skip
def test_redirects_to_nowhere(server: SymbolServer, to: str) -> None:
    server.fallback = redirect(to)
    with pytest.raises(Refused, match="redirect"):
        get(server.url)
    assert len(server.requests) == 1


def test_redirects_without_end(server: SymbolServer) -> None:
    server.fallback = redirect("/again")
    with pytest.raises(Refused, match="more than 5 redirects"):
        get(server.url)
    assert len(server.requests) == 6


def test_no_way_from_outside_into_a_private_network(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {"/f": redirect(f"http://localhost:{server.server_port}/g"), "/g": CONTENT}
    assert get(server.url) == CONTENT
    monkeypatch.setattr(Http, "_home_is_private", lambda _: False)
    with pytest.raises(Refused, match="localhost, which is in a private network"):
        get(server.url)
    assert server.asked == ["/f", "/g", "/f"]


def test_what_is_looked_at_is_what_is_connected_to(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may mean another address the next moment, so it is looked up once."""
    looked_up: list[str] = []
    seen: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))]

    monkeypatch.setattr(Http, "_home_is_private", lambda _: False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(_http, "_is_public", lambda address: seen.append(address) or True)  # type: ignore[func-returns-value]
    server.files = {"/f": redirect("http://rebind.example/g"), "/g": CONTENT}
    assert get(server.url) == CONTENT
    assert looked_up == ["127.0.0.1", "rebind.example"]
    assert seen == ["127.0.0.1"]


def test_whether_home_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Http(SourceConfig("http://127.0.0.1"), LIMITS)._home_is_private()
    assert not Http(SourceConfig("http://8.8.8.8"), LIMITS)._home_is_private()

    def fail(*_: object) -> None:
        raise Unreachable("no such host")

    monkeypatch.setattr(_http, "_look_up", fail)
    assert not Http(SourceConfig("http://known-to-the-proxy"), LIMITS)._home_is_private()


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False),
     ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
     ("fe80::1%eth0", False), ("fd00::1", False), ("2001:4860:4860::8888", True), ("::ffff:127.0.0.1", False),
     ("::ffff:8.8.8.8", True), ("2002:7f00:1::", False), ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True),
     ("ff02::1", False), ("::", False)],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert _http._is_public(address) is public


# -- Proxies ----------------------------------------------------------------------------------------------------------


def test_by_a_proxy(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:p%40ss@"))
    server.fallback = CONTENT
    assert get("http://symbols.example/base") == CONTENT
    ((path, headers),) = server.requests
    assert path == "http://symbols.example/base/f"
    assert headers["host"] == "symbols.example"
    assert headers["proxy-authorization"] == "Basic bWU6cEBzcw=="


def test_tunnels(server: SymbolServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("https_proxy", server.url)

    def tunnel(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(handler.connection, server_side=True) as inside:
            asked.append(inside.recv(4096).split(b"\r\n")[0])
            inside.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        handler.close_connection = True

    asked: list[bytes] = []
    server.files = {"localhost:443": tunnel}
    assert get("https://localhost/base") == b"ok"
    assert asked == [b"GET /base/f HTTP/1.1"]
    with pytest.raises(Unreachable, match="proxy: HTTP 404"):
        get("https://symbols.example")
    server.files["symbols.example:443"] = silent
    with pytest.raises(Transient, match="proxy"):
        get("https://symbols.example")
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(Unreachable, match="only http://"):
        get("https://symbols.example")


def test_proxies_lead_into_no_private_network(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setattr(Http, "_home_is_private", lambda _: False)
    server.fallback = redirect("http://127.0.0.1:1/f")
    with pytest.raises(Refused, match="private"):
        get("http://symbols.example")


# -- Nonsense ---------------------------------------------------------------------------------------------------------

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\nConnection: close\r\n\r\nabcdefghijklmnopqrstuvwxyz",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 1000, mtime=0),
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
]


def test_answers_that_are_damaged() -> None:
    """Whatever a server says, an error of ours is all that comes of it."""
    source = random.Random(7)
    outcomes = set()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        replies: list[bytes] = []

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    if connection.recv(65536) == b"":
                        return
                    connection.sendall(replies[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for number in range(400):
            answer = bytearray(ANSWERS[number % len(ANSWERS)])
            for _ in range(source.randrange(1, 5)):
                at = source.randrange(len(answer))
                answer[at : at + source.randrange(3)] = source.randbytes(source.randrange(3))
            if source.random() < 0.3:
                del answer[source.randrange(len(answer)) :]
            replies[:] = [bytes(answer)]
            try:
                get(url, limits=replace(LIMITS, read_seconds=0.2, total_seconds=0.4, max_redirects=1))
                outcomes.add("content")
            except DeadreckonError as e:
                outcomes.add(type(e).__name__)
        with socket.create_connection(listening.getsockname()):
            pass
        thread.join()
    assert outcomes >= {"content", "Transient", "Refused"}
