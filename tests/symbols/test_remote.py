"""Remote sources: what is asked for, what becomes of the answers, and what is remembered."""

from __future__ import annotations

import gzip
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ArchiveLimits, Config, SourceConfig
from deadreckon.symbols import _notes, layouts
from deadreckon.symbols.remote import RemoteSource, fetch
from deadreckon.symbols.sources import resolve
from synth.archives import make_cab
from synth.fetching import (
    CONTENT,
    CRASHY,
    DEBUG_ID,
    DEBUGINFO,
    EXECUTABLE,
    LIMITS,
    LOOP,
    LOOP_PATH,
    VARIANT,
    left_over,
    source,
    stored,
    sym,
)
from synth.pe import looping
from synth.symbol_server import Handler, SymbolServer

if TYPE_CHECKING:
    from deadreckon.symbols.store import SymbolStore

# -- Layouts ----------------------------------------------------------------------------------------------------------


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
    inodes: list[int] = []

    def late(handler: Handler) -> None:
        if len(server.requests) == 1:
            (answer,) = fetch([source(server, symbols, "breakpad")], [module])
            inodes.append(Path(answer.files[0]).stat().st_ino)
        handler.send(200, content)

    module, path, content = sym()
    server.files = {path: late}
    (answer,) = fetch([source(server, symbols, "breakpad", replace(LIMITS, read_seconds=5))], [module])
    assert len(server.requests) == 2
    assert [Path(answer.files[0]).stat().st_ino] == inodes


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
