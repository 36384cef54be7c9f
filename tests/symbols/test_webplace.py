"""Scripts and maps by HTTP, from a server on this computer that is taken for a public one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import Config, MapLimits, RemoteLimits
from deadreckon.symbols import _http
from deadreckon.symbols.maps import MapStore
from deadreckon.symbols.scripts import Scripts, Wanted
from deadreckon.symbols.webplace import WebPlace
from synth.sourcemap import source_map
from synth.symbol_server import Handler, SymbolServer, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS = RemoteLimits(connect_seconds=2, read_seconds=0.3, total_seconds=5, max_bytes=1 << 20, skip_after=2)
CONFIG = Config(remote=LIMITS, maps=MapLimits(fetch=True))
MAP = source_map([(0, 0, 0, 0, 0)], file="web")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SymbolServer]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_http, "_is_public", lambda address: address == "127.0.0.1")
    with SymbolServer() as found:
        yield found


def send(body: bytes, status: int = 200, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, body, **headers)


def find(server: SymbolServer, path: str, config: Config = CONFIG) -> tuple[str | None, str | None, str]:
    """Return the file of the map found, by which key, and the state."""
    scripts = Scripts([], MapStore(config), None, config)
    found = scripts.find(Wanted(server.url + path))
    return (found.table.info["file"] if found.table is not None else None, found.key, found.state)


def test_scripts_and_their_maps(server: SymbolServer) -> None:
    server.files = {
        "/js/a.js": b"x()\n//# sourceMappingURL=../maps/a.map?v=1\n",
        "/maps/a.map?v=1": b")]}'\n" + MAP,
        "/b.js": send(b"x()\n//# sourceMappingURL=gone.map\n", SourceMap="/maps/a.map?v=1"),
        "/c.js.map": MAP,
        "/d.js": redirect("/js/a.js"),
    }
    assert find(server, "/js/a.js#frag") == ("web", "comment", "found")
    assert find(server, "/b.js") == ("web", "header", "found")
    assert find(server, "/c.js") == ("web", "name", "found")
    assert find(server, "/d.js") == ("web", "comment", "found")
    assert find(server, "/e.js") == (None, None, "no_map")


def test_nothing_is_asked_unless_it_is_switched_on(server: SymbolServer) -> None:
    server.files = {"/a.js": b"x()", "/a.js.map": MAP}
    assert find(server, "/a.js", replace(CONFIG, maps=MapLimits())) == (None, None, "no_map")
    assert server.asked == []
    assert find(server, "/a.js") == ("web", "name", "found")


def test_each_url_is_asked_for_once(server: SymbolServer) -> None:
    server.files = {"/a.js": b"x()"}
    place = WebPlace(CONFIG)
    for _ in range(3):
        file = place.by_url("script", server.url + "/a.js#1")
        assert file is not None
        assert file.read() == b"x()"
        assert place.by_url("map", server.url + "/a.js.map") is None
    assert server.asked == ["/a.js", "/a.js.map"]


def test_pages_are_no_scripts_and_no_maps(server: SymbolServer) -> None:
    page = b"\n<!doctype html><title>App</title>"
    server.files = {"/a.js": send(page, Content_Type="text/html; charset=utf-8"), "/a.js.map": page, "/b.js": page}
    place = WebPlace(CONFIG)
    assert place.by_url("script", server.url + "/a.js") is None
    assert place.by_url("map", server.url + "/a.js.map") is None
    assert place.by_url("script", server.url + "/b.js") is not None  # A script may begin so: JSX, E4X.


def test_a_host_that_fails_is_left_alone(server: SymbolServer) -> None:
    server.fallback = send(b"", 500)
    place = WebPlace(CONFIG)
    for i in range(5):
        assert place.by_url("script", f"{server.url}/{i}.js") is None
    assert server.asked == ["/0.js", "/1.js"]


def test_limits(server: SymbolServer) -> None:
    server.files = {"/a.js": b"x" * 2000}
    small = replace(CONFIG, maps=MapLimits(fetch=True, max_bytes=1000))
    assert WebPlace(small).by_url("script", server.url + "/a.js") is None
    assert WebPlace(CONFIG).by_url("script", server.url + "/a.js") is not None


def test_hosts(server: SymbolServer) -> None:
    server.files = {"/a.js": b"x()"}
    for hosts, asked in ((("example.com", "*.example.org"), False), (("127.*",), True), (("127.0.0.1",), True)):
        config = replace(CONFIG, maps=MapLimits(fetch=True, fetch_hosts=hosts))
        assert (WebPlace(config).by_url("script", server.url + "/a.js") is not None) == asked


def test_private_addresses_are_not_asked(server: SymbolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {"/a.js": b"x()"}
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert WebPlace(CONFIG).by_url("script", server.url + "/a.js") is None
    assert server.asked == []


def test_redirects_into_a_private_network_are_not_followed(server: SymbolServer) -> None:
    inside = server.url.replace("127.0.0.1", "127.0.0.2")
    server.files = {"/a.js": redirect(inside + "/b.js"), "/b.js": b"secret"}
    assert WebPlace(CONFIG).by_url("script", server.url + "/a.js") is None
    assert server.asked == ["/a.js"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a.js",
        "file:///etc/passwd",
        "/a.js",
        "",
        "http://",
        "http://[::1",
        "https://a:b@/x",
        "data:,x",
        "http:a",
    ],
)
def test_urls_that_are_not_asked_for(url: str) -> None:
    assert WebPlace(CONFIG).by_url("script", url) is None


def test_user_names_in_urls_are_refused(server: SymbolServer) -> None:
    server.files = {"/a.js": b"x()"}
    assert WebPlace(CONFIG).by_url("script", server.url.replace("//", "//user:secret@") + "/a.js") is None
    assert server.asked == []


def test_ids_are_nobodys_business() -> None:
    assert WebPlace(CONFIG).by_id("map", "1" * 32) is None
