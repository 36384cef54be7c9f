"""Remote sources: what is asked for and when, what becomes of the answers, and what is remembered."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import ArchiveLimits, Config, RemoteLimits, SourceConfig, load, remote_source
from deadreckon.engine import Engine
from deadreckon.errors import ConfigError
from deadreckon.model.crash import Module
from deadreckon.symbols import _notes, layouts
from deadreckon.symbols._transfer import Clock
from deadreckon.symbols.remote import RemoteSource, fetch
from deadreckon.symbols.sources import resolve, resolve_all
from synth.archives import make_cab
from synth.breakpad import SymFile
from synth.pe import looping
from synth.symbol_server import Handler, SymbolServer, failing, redirect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.symbols.store import SymbolStore

VARIANT = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2"
DUMP = VARIANT / "dumps/templates.dmp"
DEBUG_ID = "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"
BUILD_ID = "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"
CRASHY = Module(0x5555_0000_0000, 0x10000, "/opt/app/crashy", BUILD_ID, None, DEBUG_ID)
LOOP = Module(0, 0x4000, r"C:\app\loop.exe", "5ab380774000", "loop.pdb", "04030201-0605-0807-090a-0b0c0d0e0f10-1")
LOOP_PATH = "/loop.exe/5AB380774000/loop.exe"
DEBUGINFO, EXECUTABLE = f"/buildid/{BUILD_ID}/debuginfo", f"/buildid/{BUILD_ID}/executable"
LIMITS = RemoteLimits(
    connect_seconds=2, read_seconds=0.3, total_seconds=8, retry_wait_seconds=0.01, max_retry_wait_seconds=0.5
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[SymbolServer]:
    with SymbolServer() as server:
        yield server


def source(
    server: SymbolServer | str,
    store: SymbolStore,
    layout: str = "debuginfod",
    limits: RemoteLimits = LIMITS,
    **more: Any,
) -> RemoteSource:
    url = server if isinstance(server, str) else server.url
    return RemoteSource(url, SourceConfig(url, layout, **more), Config(remote=limits), store)


def sym(number: int = 1, name: str = "app") -> tuple[Module, str, bytes]:
    """Return a module, the path of its Breakpad file, and that file."""
    identifier = f"{number:032X}0"
    file = SymFile(id=identifier, name=name)
    file.function(0x1000, 0x10, f"f{number}")
    file.cfi(0x1000, 0x10, ".cfa: $rsp 8 + .ra: .cfa -8 + ^")
    debug_id = (
        f"{identifier[:8]}-{identifier[8:12]}-{identifier[12:16]}-{identifier[16:20]}-{identifier[20:32]}".lower()
    )
    return Module(0, 0x2000, name, None, name, debug_id), f"/{name}/{identifier}/{name}.sym", bytes(file)


def stored(store: SymbolStore) -> list[str]:
    found = (store.root / "remote").glob("*/files/**/*")
    return sorted("/" + str(p.relative_to(store.root / "remote")).split("/", 2)[2] for p in found if p.is_file())


def left_over(store: SymbolStore) -> list[str]:
    return os.listdir(store.temporary)


# -- Layouts ----------------------------------------------------------------------------------------------------------

CONTENT = {
    "debuginfo": (VARIANT / "crashy.debug").read_bytes(),
    "executable": (VARIANT / "crashy").read_bytes(),
    "breakpad": next((VARIANT / "breakpad/crashy").glob("*/*.sym")).read_bytes(),
}


@pytest.mark.parametrize("kind", ["debuginfo", "executable", "breakpad"])
@pytest.mark.parametrize("layout", ["auto", "breakpad", "debuginfod", "gdb", "ssqp", "symstore", "unified"])
def test_layouts(server: SymbolServer, symbols: SymbolStore, layout: str, kind: str) -> None:
    """A file is found where the layout has it, and only there."""
    candidates = [c for c in layouts.candidates(CRASHY) if c.kind == kind]
    mine = [c for c in candidates if layout in {"auto", c.layout} or (layout == "ssqp" and c.layout == "symstore")]
    server.files = {f"/{c.path}": CONTENT[kind] for c in candidates}
    answer = resolve(CRASHY, [source(server, symbols, layout)], symbols)
    if not mine:
        assert answer.state == "missing"
        return
    assert answer.state == "found"
    assert stored(symbols)[0] in {f"/{c.path}" for c in mine}
    assert (answer.problems, answer.unavailable) == ([], {})


def test_a_url_that_ends_in_buildid(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: CONTENT["debuginfo"]}
    remote = source(f"{server.url}/buildid/", symbols)
    assert resolve(CRASHY, [remote], symbols).state == "found"
    assert server.asked == [DEBUGINFO, EXECUTABLE]


def test_ssqp_is_lower_case(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {LOOP_PATH.lower(): looping()}
    fetch([source(server, symbols, "ssqp")], [LOOP])
    assert server.asked == [path.lower() for path in server.asked]
    assert stored(symbols) == [LOOP_PATH.lower()]


def test_source_bundles_are_fetched_where_they_are_wanted(server: SymbolServer, symbols: SymbolStore) -> None:
    for kinds, asked in ((("executable",), False), (("executable", "sourcebundle"), True)):
        fetch([source(server, symbols, "unified", kinds=kinds)], [CRASHY])
        assert any(path.endswith("/sourcebundle") for path in server.asked) == asked


def test_only_kinds_that_are_wanted(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: CONTENT["debuginfo"], EXECUTABLE: CONTENT["executable"]}
    fetch([source(server, symbols, "auto", kinds=("executable",))], [CRASHY])
    assert stored(symbols) == [EXECUTABLE]
    assert not [path for path in server.asked if not path.endswith(("executable", "/crashy"))]


def test_a_breakpad_file_is_for_where_something_lacks(server: SymbolServer, symbols: SymbolStore) -> None:
    (breakpad,) = (f"/{c.path}" for c in layouts.candidates(CRASHY) if c.layout == "breakpad")
    server.files = {DEBUGINFO: CONTENT["debuginfo"], EXECUTABLE: CONTENT["executable"], breakpad: CONTENT["breakpad"]}
    fetch([source(server, symbols, "auto")], [CRASHY])
    assert stored(symbols) == [DEBUGINFO, EXECUTABLE]
    del server.files[EXECUTABLE]
    with SymbolServer() as other:
        other.files = server.files
        fetch([source(other, symbols, "auto")], [CRASHY])
        assert breakpad in other.asked


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "..", ".", "/", "C:\\..\\..\\x.pdb", "a/../b\\..", "x\0y", "\udcff", "e" * 5000, "a:b",
     "\r\nX: y"],
)  # fmt: skip
def test_names_from_reports_lead_nowhere_else(server: SymbolServer, symbols: SymbolStore, name: str) -> None:
    module = replace(LOOP, code_file=name, debug_file=name)
    server.fallback = looping()
    before = {p for p in symbols.root.parent.rglob("*") if symbols.root not in p.parents}
    fetch([source(server, symbols, "auto")], [module])
    assert server.asked
    assert not [path for path in server.asked if ".." in path or "\\" in path or not path.isascii()]
    assert all((symbols.root / "remote").resolve() in p.resolve().parents for p in symbols.root.glob("remote/*/**/*"))
    assert {p for p in symbols.root.parent.rglob("*") if symbols.root not in p.parents} - {symbols.root} <= before


# -- What arrives -----------------------------------------------------------------------------------------------------


def test_compressed_by_symstore(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = sym()
    server.files = {LOOP_PATH[:-1] + "_": make_cab("loop.exe", looping()), path[:-1] + "_": make_cab("x", content)}
    found = fetch([source(server, symbols, "auto")], [LOOP, module])
    assert stored(symbols) == sorted([path[:-1] + "_", LOOP_PATH[:-1] + "_"])
    assert [Path(f).read_bytes() for answer in found for f in answer.files] == [looping(), content]
    assert left_over(symbols) == []


def test_compressed_on_the_way_and_at_rest(server: SymbolServer, symbols: SymbolStore) -> None:
    first, second = sym(1), sym(2)
    server.files = {
        first[1]: lambda handler: handler.send(200, gzip.compress(first[2]), Content_Encoding="gzip"),
        second[1]: gzip.compress(second[2]),
    }
    found = fetch([source(server, symbols, "breakpad")], [first[0], second[0]])
    assert [Path(f).read_bytes() for answer in found for f in answer.files] == [first[2], second[2]]


def test_another_build_is_not_used(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: (VARIANT / "libcargo.so.debug").read_bytes(), EXECUTABLE: CONTENT["executable"]}
    remote = source(server, symbols)
    (answer,) = fetch([remote], [CRASHY])
    ((state, message),) = answer.problems
    assert state == "mismatch"
    assert DEBUG_ID in message
    assert "b5c148bc-e24f-df22-d88b-9aeb9359ccc0" in message
    assert f"{server.url}{DEBUGINFO}" in message
    assert stored(symbols) == [EXECUTABLE]
    del server.files[EXECUTABLE]
    shutil.rmtree(symbols.root / "remote")
    assert resolve(CRASHY, [source(server, symbols)], symbols).state == "mismatch"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Please sign in</html>", "not a debug file"),
        (b"", "not a debug file"),
        (b"\x7fELF" + bytes(60), "remote|ELF|elf|object"),
        (CONTENT["debuginfo"][:100], ""),
        (make_cab("x", b"not a debug file at all"), "no debug file"),
        (make_cab("x", CONTENT["debuginfo"][:30000])[:-20000], "file"),
        (b"MSCF\0\0\0\0" + bytes(100), "file"),
    ],
)
def test_content_that_is_no_debug_file(
    server: SymbolServer, symbols: SymbolStore, content: bytes, message: str
) -> None:
    server.files = {DEBUGINFO: content}
    answer = resolve(CRASHY, [source(server, symbols)], symbols)
    assert answer.state in {"malformed", "mismatch"}
    (problem,) = answer.problems
    assert problem.startswith(f"{server.url}{DEBUGINFO}: ")
    assert any(part in problem for part in message.split("|"))
    assert str(symbols.root) not in problem
    assert stored(symbols) == left_over(symbols) == []


def test_size_limits(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: CONTENT["debuginfo"], EXECUTABLE: make_cab("x", CONTENT["executable"])}
    limits = replace(LIMITS, max_bytes=len(CONTENT["debuginfo"]) - 1)
    (answer,) = fetch([source(server, symbols, limits=limits)], [CRASHY])
    assert [state for state, _ in answer.problems] == ["limit"]
    assert "limit remote.max_bytes" in answer.problems[0][1]
    small = Config(remote=LIMITS, archive=ArchiveLimits(max_entry_bytes=1000))
    with SymbolServer() as other:
        other.files = {EXECUTABLE: server.files[EXECUTABLE]}
        (answer,) = fetch([RemoteSource("x", SourceConfig(other.url, "debuginfod"), small, symbols)], [CRASHY])
        assert "too large" in answer.problems[0][1]
    assert left_over(symbols) == []


def test_a_file_in_use_stays_the_same_file(server: SymbolServer, symbols: SymbolStore) -> None:
    """Two processes may fetch one file at the same time: tables belong to an inode."""

    def late(handler: Handler) -> None:
        fetch([source(server, symbols, "breakpad")], [module]) if len(server.requests) == 1 else None
        handler.send(200, content)

    module, path, content = sym()
    server.files = {path: late}
    inodes = set()
    for _ in range(2):
        (answer,) = fetch([source(server, symbols, "breakpad")], [module])
        inodes.add(Path(answer.files[0]).stat().st_ino)
    assert len(server.requests) == 2
    assert len(inodes) == 1


# -- What is remembered -----------------------------------------------------------------------------------------------


def test_what_is_there_is_asked_for_once(server: SymbolServer, symbols: SymbolStore) -> None:
    server.files = {DEBUGINFO: CONTENT["debuginfo"], EXECUTABLE: CONTENT["executable"]}
    for _ in range(3):
        assert resolve(CRASHY, [source(server, symbols)], symbols).state == "found"
    assert server.asked == [DEBUGINFO, EXECUTABLE]


@pytest.mark.parametrize("content", [None, b"<html>", b"wrong"])
def test_what_is_not_there_is_asked_for_seldom(
    server: SymbolServer, symbols: SymbolStore, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    module, path, _ = sym()
    if content:
        server.files = {path: sym(2)[2] if content == b"wrong" else content}
    states = [resolve(module, [source(server, symbols, "breakpad")], symbols).state for _ in range(3)]
    assert server.asked == [path, path[:-1] + "_"]
    assert len(set(states)) == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIMITS.missing_seconds - 5)
    fetch([source(server, symbols, "breakpad")], [module])
    assert len(server.requests) == 2
    monkeypatch.setattr(time, "time", lambda: now + LIMITS.missing_seconds + 1)
    fetch([source(server, symbols, "breakpad")], [module])
    assert len(server.requests) == 4
    monkeypatch.setattr(time, "time", lambda: now - 5)  # The clock was set back.
    fetch([source(server, symbols, "breakpad")], [module])
    assert len(server.requests) == 6


def test_failures_are_remembered_for_less_long(
    server: SymbolServer, symbols: SymbolStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, path, content = sym()
    server.files = {path: lambda handler: handler.send(403)}
    limits = replace(LIMITS, failure_seconds=100)
    now = time.time()
    for later, asked in ((0, 1), (99, 1), (101, 2)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        (answer,) = fetch([source(server, symbols, "breakpad", limits)], [module])
        assert answer.problems == [("refused", f"{server.url}{path}: HTTP 403")]
        assert server.asked.count(path) == asked
    server.files = {path: content}
    monkeypatch.setattr(time, "time", lambda: now + 202)
    assert resolve(module, [source(server, symbols, "breakpad", limits)], symbols).state == "found"


def test_notes_that_are_damaged_or_old(server: SymbolServer, symbols: SymbolStore) -> None:
    module, path, content = sym()
    fetch([source(server, symbols, "breakpad")], [module])
    (notes,) = symbols.root.glob("remote/*/.notes.sqlite")
    notes.write_bytes(b"SQLite format 3\0" + bytes(200))
    server.files = {path: content}
    assert resolve(module, [source(server, symbols, "breakpad")], symbols).state == "found"
    book = _notes.Notes(notes, 10)
    book.write("x", "missing", "HTTP 404")
    assert _notes.Notes(notes, 10).read(["x", "y"])["x"][:2] == ("missing", "HTTP 404")
    time.sleep(0.01)
    _notes.Notes(notes, 0.005).write("y", "missing", "")
    assert set(_notes.Notes(notes, 10).read(["x", "y"])) == {"y"}


def test_a_store_that_takes_nothing(server: SymbolServer, symbols: SymbolStore) -> None:
    symbols.root.mkdir()
    (symbols.root / "tmp").write_bytes(b"in the way")
    (symbols.root / "remote").write_bytes(b"in the way")
    server.fallback = CONTENT["debuginfo"]
    remote = source(server, symbols)
    for _ in range(2):
        answer = resolve(CRASHY, [remote], symbols)
        assert answer.state == "missing"
        assert "the symbol store can't be written to" in answer.unavailable[server.url]
    assert server.asked == []


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


# -- Settings ---------------------------------------------------------------------------------------------------------


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "abc$d")
    path = tmp_path / "settings.toml"
    path.write_text("""
        [remote]
        retries = 5
        [[sources]]
        url = "https://symbols.example.org/"
        layout = "breakpad"
        kinds = ["breakpad"]
        headers = { Auth-Token = "${TOKEN}", X = "$$5" }
        [[sources]]
        url = "s3://bucket/prefix"
    """)
    config = load(path, {"DEADRECKON__REMOTE__PARALLEL": "2"})
    assert (config.remote.retries, config.remote.parallel) == (5, 2)
    first, second = config.sources
    assert first.sent_headers() == {"Auth-Token": "abc$d", "X": "$5"}
    assert "abc" not in repr(config)
    assert (first.layout, first.kinds, second.layout) == ("breakpad", ("breakpad",), "auto")
    assert remote_source(first.url, config.sources) is first
    assert load(None, {}).sources == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[sources]]\nlayout = "auto"', r"sources\[0\]\.url: missing"),
        ('[[sources]]\nuri = "x"', r"unknown setting sources\[0\]\.uri; did you mean sources\[0\]\.url"),
        ('[[sources]]\nurl = "ftp://x"', "expected http://"),
        ('[[sources]]\nurl = "https:///x"', "expected http://"),
        ('[[sources]]\nurl = "https://a b/"', "expected http://"),
        ('[[sources]]\nurl = "https://x:99999"', "99999|[Pp]ort"),
        ('[[sources]]\nurl = "https://me:secret@x"', "credentials go into headers"),
        ('[[sources]]\nurl = "https://x"\nlayout = "flat"', "'flat': expected one of auto, "),
        ('[[sources]]\nurl = "https://x"\nkinds = ["pdb"]', "kinds"),
        ('[[sources]]\nurl = "https://x"\nkinds = "debuginfo"', r"sources\[0\]\.kinds: expected a list of texts"),
        (
            '[[sources]]\nurl = "https://x"\nheaders = { Token = 5 }',
            r"sources\[0\]\.headers: expected a table of texts",
        ),
        ('[[sources]]\nurl = "https://x"\nheaders = { Token = "$NOT_SET_AT_ALL" }', r"\$NOT_SET_AT_ALL is not set"),
        ('[[sources]]\nurl = "https://x"\nheaders = { Token = "5$" }', r"write \$\$"),
        ('[[sources]]\nurl = "https://x"\nheaders = { "a b" = "x" }', "not a header's name"),
        ('[[sources]]\nurl = "https://x"\nheaders = { a = "x\\r\\nb: y" }', "one line"),
        ('[[sources]]\nurl = "s3://x"\nheaders = { a = "x" }', "S3 source takes no headers"),
        ('sources = "https://x"', "sources: expected a list"),
        ("sources = [1]", r"sources\[0\]: expected a table"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url", "layout"),
    [("https://x/y", "https://x/y", "auto"), ("symstore_index2+http://x", "http://x", "symstore_index2"),
     ("s3://bucket", "s3://bucket", "auto"), ("/a/https://x", None, ""), ("C:\\x", None, ""), ("file:///x", None, "")],
)  # fmt: skip
def test_urls_on_the_command_line(text: str, url: str | None, layout: str) -> None:
    found = remote_source(text)
    assert (found and (found.url, found.layout)) == (url and (url, layout))
