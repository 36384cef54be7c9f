"""Remote sources that fail, several at a time, and what a crash says of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import Config, SourceConfig
from deadreckon.engine import Engine
from deadreckon.model.crash import Module
from deadreckon.symbols._transfer import Clock
from deadreckon.symbols.remote import fetch
from deadreckon.symbols.sources import resolve, resolve_all
from synth.fetching import (
    CONTENT,
    CRASHY,
    DEBUGINFO,
    EXECUTABLE,
    LIMITS,
    VARIANT,
    left_over,
    source,
    stored,
    sym,
)
from synth.symbol_server import Handler, SymbolServer, failing, redirect

if TYPE_CHECKING:
    from deadreckon.symbols.store import SymbolStore

DUMP = VARIANT / "dumps/templates.dmp"

pytestmark = pytest.mark.usefixtures("no_proxy")

# -- Trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_busy_servers_are_asked_again(server: SymbolServer, symbols: SymbolStore, status: int) -> None:
    module, path, content = sym()
    server.files = {path: failing(2, content, status, Retry_After="0")}
    assert resolve(module, [source(server, symbols, "breakpad")], symbols).state == "found"
    assert server.asked == [path] * 3


def test_enough_is_enough(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = sym()
    server.files = {path: failing(3, content)}
    (answer,) = fetch([source(server, symbols, "breakpad")], [module])
    assert answer.unavailable == {server.url: "HTTP 500"}
    assert server.asked.count(path) == 3


def test_one_file_that_fails_is_not_in_the_way_of_others(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: failing(99, b""), EXECUTABLE: CONTENT["executable"]}
    limits = replace(LIMITS, retries=0)
    for asked in ([DEBUGINFO], [DEBUGINFO, EXECUTABLE], [DEBUGINFO, EXECUTABLE]):
        (answer,) = fetch([source(server, symbols, limits=limits)], [CRASHY])
        assert server.asked == asked
        assert answer.unavailable == {server.url: "HTTP 500"}
    assert stored(symbols) == [EXECUTABLE]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_nothing_else_is_asked_twice(server: SymbolServer, symbols: SymbolStore, status: int) -> None:
    module, path, content = sym()
    server.files = {path: failing(1, content, status)}
    fetch([source(server, symbols, "breakpad")], [module])
    assert server.asked.count(path) == 1


def test_a_server_that_wants_to_be_left_alone(server: SymbolServer, symbols: SymbolStore) -> None:
    first, second = sym(1), sym(2)
    server.files = {first[1]: failing(9, b"", 429, Retry_After="3600"), second[1]: second[2]}
    remote = source(server, symbols, "breakpad")
    fetch([remote], [first[0]])
    (answer,) = fetch([remote], [second[0]])
    assert server.asked == [first[1]]
    assert answer.unavailable == {server.url: "skipped for a while: HTTP 429"}


def test_who_is_about_to_try_again_gives_up_too(server: SymbolServer, symbols: SymbolStore) -> None:
    def leave_me(handler: Handler) -> None:
        while server.asked.count(second[1]) < 3:
            time.sleep(0.001)
        handler.send(429, Retry_After="3600")

    first, second = sym(1), sym(2)
    server.files = {first[1]: leave_me, second[1]: failing(9999, b"", Retry_After="0")}
    limits = replace(LIMITS, retries=2000, read_seconds=5)
    fetch([source(server, symbols, "breakpad", limits)], [first[0], second[0]])
    assert 3 <= server.asked.count(second[1]) < 2000


def test_downloads_that_break_off(server: SymbolServer, symbols: SymbolStore) -> None:
    def half(handler: Handler) -> None:
        if len(server.requests) > 1:
            handler.send(200, content)
        else:
            handler.send(200, content[:40], Content_Length=str(len(content)))
            handler.close_connection = True

    module, path, content = sym()
    server.files = {path: half}
    (answer,) = fetch([source(server, symbols, "breakpad")], [module])
    assert Path(answer.files[0]).read_bytes() == content
    assert left_over(symbols) == []


def test_a_source_that_fails_is_skipped_for_a_while(
    server: SymbolServer, symbols: SymbolStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fallback = lambda handler: handler.send(500)
    limits = replace(LIMITS, retries=0, parallel=1, failure_seconds=0, skip_seconds=50)
    modules = [sym(n)[0] for n in range(1, 6)]
    answers = fetch([source(server, symbols, "breakpad", limits)], modules)
    assert len(server.requests) == limits.skip_after
    assert {why for a in answers for why in a.unavailable.values()} == {"HTTP 500", "skipped for a while: HTTP 500"}
    # Also in another process.
    fetch([source(server, symbols, "breakpad", limits)], modules)
    assert len(server.requests) == limits.skip_after
    server.requests.clear()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 51)
    remote = source(server, symbols, "breakpad", limits)

    def asked(module: Module, reply: Any) -> int:
        before, server.fallback = len(server.requests), reply
        fetch([remote], [module])
        return len(server.requests) - before

    def fail(handler: Handler) -> None:
        handler.send(500)

    # An answer of any kind sets the count back.
    replies = [fail, fail, None, fail, fail, fail]
    assert [asked(sym(10 + n)[0], reply) for n, reply in enumerate(replies)] == [1, 1, 2, 1, 1, 1]
    assert asked(modules[4], None) == 0
    monkeypatch.setattr(time, "time", lambda: now + 102)
    assert asked(modules[0], fail) == 1
    assert asked(modules[0], None) == 0
    monkeypatch.setattr(time, "time", lambda: now + 153)
    assert asked(modules[0], None) == 2


def test_silence_costs_its_time_once(server: SymbolServer, symbols: SymbolStore) -> None:
    server.fallback = lambda handler: handler.stall()
    limits = replace(LIMITS, read_seconds=0.05)
    answers = fetch([source(server, symbols, "breakpad", limits)], [sym(n)[0] for n in range(1, 60)])
    assert all("timed out" in a.unavailable[server.url] for a in answers)
    assert len(server.requests) <= (limits.parallel + limits.skip_after) * (1 + limits.retries)


def test_the_time_of_one_crash(server: SymbolServer, symbols: SymbolStore) -> None:
    """A server that gives a byte now and then is not silent, and ends with the clock."""

    def slow(handler: Handler) -> None:
        handler.send(200, b"MODULE ", Content_Length="100000")
        while not handler.server.over.wait(0.02):
            handler.wfile.write(b"x")

    server.fallback = slow
    limits = replace(LIMITS, total_seconds=0.3, parallel=2, skip_after=99)
    answers = fetch([source(server, symbols, "breakpad", limits)], [sym(n)[0] for n in range(1, 9)])
    assert all(server.url in a.unavailable for a in answers)
    assert len(server.requests) == 2
    assert "remote.total_seconds is over" in answers[-1].unavailable[server.url]


def test_an_interruption_is_no_failure(server: SymbolServer, symbols: SymbolStore) -> None:
    """Who stops waiting for a download learned nothing of its source."""
    module, path, content = sym()

    def interrupted(handler: Handler) -> None:
        handler.send(200, content[:40], Content_Length=str(len(content)))
        clock.stop()
        handler.stall()

    server.files = {path: interrupted}
    clock = Clock(5)
    limits = replace(LIMITS, read_seconds=0.1)
    answer = source(server, symbols, "breakpad", limits).ask(module, clock)
    assert answer.unavailable == {server.url: "interrupted"}
    server.files = {path: content}
    assert resolve(module, [source(server, symbols, "breakpad")], symbols).state == "found"
    assert left_over(symbols) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
def test_without_a_network(symbols: SymbolStore, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    import socket

    lookups = []
    known = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        lookups.append(host)
        if host == "127.0.0.1":
            return known(host, *rest, **more)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    limits = replace(LIMITS, parallel=1)
    answers = resolve_all([sym(n)[0] for n in range(1, 20)], [source(url, symbols, "auto", limits)], symbols)
    assert {a.state for a in answers} == {"missing"}
    assert all(url in a.unavailable and url in a.problems[0] for a in answers)
    assert len(lookups) == 1


def test_redirects_are_followed(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = sym()
    server.files = {path: redirect("/bucket/object"), "/bucket/object": content}
    assert resolve(module, [source(server, symbols, "breakpad")], symbols).state == "found"
    assert stored(symbols) == [path]


# -- Several modules, several sources ---------------------------------------------------------------------------------


def test_modules_are_fetched_side_by_side(server: SymbolServer, symbols: SymbolStore) -> None:
    together = threading.Barrier(4)

    def reply(content: bytes) -> Any:
        def wait(handler: Handler) -> None:
            together.wait(5)
            handler.send(200, content)

        return wait

    modules = [sym(n) for n in range(1, 9)]
    server.files = {path: reply(content) for _, path, content in modules}
    limits = replace(LIMITS, parallel=4, read_seconds=6)
    answers = fetch([source(server, symbols, "breakpad", limits)], [module for module, _, _ in modules])
    assert [Path(a.files[0]).read_bytes() for a in answers] == [content for _, _, content in modules]
    assert server.connections == 4


def test_sources_in_order(server: SymbolServer, symbols: SymbolStore) -> None:
    first, second = sym(1), sym(2)
    with SymbolServer() as other:
        server.files = {first[1]: first[2]}
        other.files = {first[1]: first[2], second[1]: second[2]}
        sources = [source(server, symbols, "breakpad"), source(other, symbols, "breakpad")]
        answers = resolve_all([first[0], second[0], sym(3)[0]], sources, symbols)
        assert [a.state for a in answers] == ["found", "found", "missing"]
        assert first[1] not in other.asked
        assert second[1] in server.asked


def test_a_source_that_is_down_does_no_harm(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = sym()
    server.files = {path: content}
    down = source("http://127.0.0.1:1", symbols, "breakpad")
    found, missing = resolve_all([module, sym(2)[0]], [down, source(server, symbols, "breakpad")], symbols)
    assert (found.state, found.unavailable) == ("found", {})
    assert missing.state == "missing"
    assert list(missing.unavailable) == ["http://127.0.0.1:1"]


def test_local_symbols_come_first(server: SymbolServer, symbols: SymbolStore) -> None:
    from deadreckon.symbols.sources import SymbolPath

    local = SymbolPath(str(VARIANT), symbols, 100)
    assert resolve(CRASHY, [source(server, symbols), local], symbols).state == "found"
    assert server.asked == []


def test_a_crash_asks_for_so_many_modules(server: SymbolServer, symbols: SymbolStore) -> None:
    limits = replace(LIMITS, max_modules=3)
    answers = resolve_all(
        [sym(n)[0] for n in range(1, 7)], [source(server, symbols, "breakpad", limits)], symbols
    )  # fmt: skip
    assert len(set(server.asked)) == 6
    assert [bool(a.problems) for a in answers] == [False] * 3 + [True] * 3
    assert "remote.max_modules" in answers[-1].problems[0]


def test_modules_without_ids(server: SymbolServer, symbols: SymbolStore) -> None:
    answers = fetch([source(server, symbols, "auto")], [Module(0, 1, "x"), Module(0, 1, "x", "zz", "x", "bad")])
    assert [a.files for a in answers] == [[], []]
    assert server.asked == []
    assert fetch([], [CRASHY])[0].files == []


# -- The whole --------------------------------------------------------------------------------------------------------


def test_a_crash_with_symbols_from_a_server(server: SymbolServer, store: Path) -> None:
    server.files = {DEBUGINFO: CONTENT["debuginfo"], EXECUTABLE: CONTENT["executable"]}
    config = Config(remote=LIMITS, sources=(SourceConfig(server.url, "debuginfod", headers={"Token": "t"}),))
    for _ in range(2):
        with Engine(config) as engine:
            event = engine.process(DUMP)
        thread = next(t for t in event.threads or () if t.crashed)
        assert thread.frames
        assert (thread.frames[0].filename, thread.frames[0].lineno) == ("vector.hpp", 31)
        assert "source_unavailable" not in {d.code for d in event.diagnostics or ()}
    assert server.asked.count(DEBUGINFO) == 1
    assert {headers["token"] for _, headers in server.requests} == {"t"}
    assert not [p for p in store.rglob("*") if p.is_file() and b"Token" in p.read_bytes()]


def test_a_crash_without_its_server(symbols: SymbolStore) -> None:
    with Engine(Config(remote=LIMITS)) as engine:
        engine.store = symbols
        events = [engine.process(DUMP, symbols=["breakpad+http://127.0.0.1:1/base?sig=secret"]) for _ in range(2)]
    for event in events:
        assert event.status == "degraded"
        assert event.threads
        (told,) = (d for d in event.diagnostics or () if d.code == "source_unavailable")
        assert told.where == {"source": "http://127.0.0.1:1/base"}
        assert "refused" in (told.message or "")
        assert "secret" not in str(event)
        missing = [d.message or "" for d in event.diagnostics or () if d.code == "symbols_missing"]
        assert any("refused" in m or "skipped" in m for m in missing)


def test_a_url_that_is_none() -> None:
    with Engine() as engine:
        event = engine.process(DUMP, symbols=["https://user:secret@example.org"])
    assert event.status == "unreadable"
    assert "secret" not in str(event)


def test_no_source_no_network_code() -> None:
    code = f"""
import sys
from deadreckon import Engine
with Engine() as engine:
    assert engine.process({str(DUMP)!r}, symbols=[{str(VARIANT)!r}]).threads
print(*[m for m in ("http.client", "ssl", "urllib.request", "boto3", "deadreckon.symbols.remote")
        if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
