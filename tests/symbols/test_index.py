from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config, SymbolLimits
from deadreckon.symbols.index import Entry, Index, spellings
from deadreckon.symbols.store import Added, SymbolStore
from deadreckon.symbols.tablefile import TABLE_VERSION, open_table
from synth.breakpad import SymFile

if TYPE_CHECKING:
    from deadreckon.symbols.builder import Builder

PIE = "linux/x86_64/pie-O2"
DEBUG_ID = "b5c148bc-e24f-df22-d88b-9aeb9359ccc0"
BUILD_ID = "bc48c1b54fe222dfd88b9aeb9359ccc0290256c4"


@pytest.fixture
def library(fixtures: Path) -> str:
    return str(fixtures / PIE / "libcargo.so.debug")


def some_files(fixtures: Path) -> list[str]:
    return [str(fixtures / PIE / name) for name in ("libcargo.so", "libcargo.so.debug", "crashy")]


def known(symbols: SymbolStore) -> list[Entry]:
    return symbols.index.entries()


def without_times(entries: list[Entry]) -> list[tuple[Any, ...]]:
    return sorted((e.key, e.kind, e.source, e.size, e.problem, sorted(e.tags.items()), e.objects) for e in entries)


# --- What is recorded -----------------------------------------------------------------------------------------------


def test_what_an_import_leaves(symbols: SymbolStore, library: str) -> None:
    before = time.time()
    symbols.add(library, tags={"build": "7", "channel": "beta"})
    (entry,) = symbols.index.entries(kinds=["imported"])
    (derived,) = symbols.index.entries(kinds=["derived"])
    assert entry.source == derived.source == os.path.realpath(library)
    assert entry.tags == {"build": "7", "channel": "beta"}
    assert entry.problem is None
    assert before <= entry.added <= entry.used + 1 <= time.time() + 1
    (info,) = entry.objects
    assert (info["debug_id"], info["code_id"], info["arch"], info["has_lines"]) == (DEBUG_ID, BUILD_ID, "x86_64", True)
    # The table has two names; the sum counts it once.
    on_disk = {p.stat().st_ino: p.stat().st_size for p in symbols.root.rglob("*.*") if p.suffix in {".table", ".json"}}
    assert abs(entry.size + derived.size - sum(on_disk.values())) <= 1


def test_importing_again_says_so_and_changes_nothing(symbols: SymbolStore, library: str, tmp_path: Path) -> None:
    first = symbols.add(library, tags={"build": "7"})
    assert not first.known
    before = without_times(known(symbols))
    elsewhere = tmp_path / "same"
    shutil.copyfile(library, elsewhere)
    for path in (library, str(elsewhere)):
        again = symbols.add(path, tags={"build": "7"})
        assert again.known
        assert again.objects == first.objects
    assert without_times(known(symbols)) == before


def test_new_tags_are_added_to_old_ones(symbols: SymbolStore, library: str) -> None:
    symbols.add(library, tags={"build": "7", "os": "linux"})
    again = symbols.add(library, tags={"build": "8"})
    assert again.known
    (entry,) = symbols.index.entries(kinds=["imported"])
    assert entry.tags == {"build": "8", "os": "linux"}
    symbols.index.discard()
    assert symbols.index.entries(kinds=["imported"]) == [entry]


def test_questions(symbols: SymbolStore, fixtures: Path) -> None:
    for at, path in enumerate(some_files(fixtures)):
        symbols.add(path, tags={"number": str(at), "all": "yes"})
    index = symbols.index
    for spelling in (DEBUG_ID, DEBUG_ID.upper(), "B5C148BCE24FDF22D88B9AEB9359CCC00", BUILD_ID, BUILD_ID[:32]):
        assert {e.tags["number"] for e in index.entries(spelling, kinds=["imported"])} == {"0", "1"}, spelling
    assert index.entries("0" * 32) == index.entries("") == index.entries("'; DROP TABLE files") == []
    assert [e.tags["number"] for e in index.entries(tags={"number": "2"})] == ["2"]
    assert len(index.entries(tags={"all": "yes"})) == 3
    assert index.entries(tags={"all": "no"}) == index.entries(tags={"all": "yes", "number": "9"}) == []
    assert [e.source for e in index.entries(kinds=["imported"])] == [os.path.realpath(p) for p in some_files(fixtures)]
    assert len(index.entries(kinds=["imported", "derived"])) == len(index.entries()) == 6
    assert index.entries(kinds=["remote"]) == []


def test_spellings() -> None:
    assert set(spellings(DEBUG_ID)) >= {DEBUG_ID}
    assert set(spellings(BUILD_ID)) >= {DEBUG_ID, BUILD_ID}
    assert spellings("5AB380779000") == sorted({"5ab380779000", "7780b35a-0090-0000-0000-000000000000"})
    for odd in ("", "x", "é", "0" * 33, "\ud800", "f" * 10_000):
        assert all(isinstance(s, str) for s in spellings(odd))


def test_strings_of_any_kind(symbols: SymbolStore, library: str, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xfe \n'")
    shutil.copyfile(library, path)
    tags = {"\ud800": "é\0", "": "'\"", "[": "]"}
    symbols.add(str(tmp_path / "none"), tags=tags)
    added = symbols.add(library, origin=os.fsdecode(path), tags=tags)
    assert added.problem is None
    (entry,) = symbols.index.entries(kinds=["imported"])
    assert entry.source is not None
    assert "'" in entry.source
    assert len(entry.tags) == 3


# --- Archives and failures ------------------------------------------------------------------------------------------


def test_an_archive_with_some_bad_files(fixtures: Path, tmp_path: Path) -> None:
    """The good ones are imported, the bad ones listed, each with its reason."""
    import tarfile

    (tmp_path / "cut").write_bytes((fixtures / PIE / "crashy.debug").read_bytes()[:100])
    (tmp_path / "readme").write_text("no debug file")
    (tmp_path / "empty.sym").write_bytes(bytes(SymFile()))
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        for name in ("libcargo.so", "libcargo.so.debug"):
            tar.add(fixtures / PIE / name, name)
        for name in ("cut", "readme", "empty.sym"):
            tar.add(tmp_path / name, f"bad/{name}")
    archive = str(tmp_path / "all.tar.gz")
    with Engine() as engine:
        results = engine.add_symbols(archive, tags={"from": "archive"})
        good = [a for a in results if a.problem is None]
        bad = {a.path: a.problem for a in results if a.problem is not None}
        assert [(a.path, a.known) for a in good] == [
            (f"{archive}:libcargo.so", False), (f"{archive}:libcargo.so.debug", False)
        ]  # fmt: skip
        assert set(bad) == {f"{archive}:bad/cut", f"{archive}:bad/empty.sym"}
        for path, problem in bad.items():
            assert (problem or "").startswith(f"{path}: ")
            assert str(engine.store.root) not in (problem or "")
        index = engine.store.index
        entries = index.entries(tags={"from": "archive"})
        assert {e.source: (e.problem is None, len(e.objects)) for e in entries} == {
            good[0].path: (True, 1), good[1].path: (True, 1), **dict.fromkeys(bad, (False, 0))
        }  # fmt: skip
        assert index.entries(kinds=["derived"]) == []  # What was unpacked for a moment leaves nothing.
        assert list((engine.store.root / "tmp").iterdir()) == []
        again = engine.add_symbols(Path(archive).read_bytes())
        assert [a.known for a in again if a.problem is None] == [True, True]
        assert len(engine.store.imported(DEBUG_ID)) == 2
        assert without_times(index.entries()) == without_times(entries)


def test_what_would_be_imported(symbols: SymbolStore, library: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF" + b"\0" * 60)
    added = symbols.add(library)
    for origin in (None, "archive:member"):
        found = symbols.examine(library, origin=origin)
        assert [{**o, "table": ""} for o in found.objects] == [{**o, "table": ""} for o in added.objects]
        failed = symbols.examine(str(bad), origin=origin)
        assert failed.objects == []
        assert (failed.problem or "").startswith(origin or str(bad))
    other = SymbolStore(Config(store=str(tmp_path / "other")))
    assert other.examine(library).problem is None
    assert other.imported(DEBUG_ID) == []
    other.close()


def test_a_failure_is_tried_again_after_a_while(
    store: Path, shared_builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"\x7fELF" + b"\0" * 60)
    symbols = SymbolStore(Config(symbols=SymbolLimits(retry_failures_seconds=1000.0)))
    symbols._started = shared_builder
    tried = []
    build = shared_builder.build

    def counted(path: str, output: str) -> object:
        tried.append(path)
        return build(path, output)

    monkeypatch.setattr(shared_builder, "build", counted)
    messages = {symbols.add(str(path)).problem for _ in range(3)}
    assert len(messages) == len(tried) == 1
    (entry,) = symbols.index.entries(kinds=["imported"])
    assert entry.problem is not None
    assert f"{path}: {entry.problem}" in messages
    for manifest in store.rglob("*.json"):
        os.utime(manifest, (time.time() - 1001,) * 2)
    assert symbols.add(str(path)).problem in messages
    assert len(tried) == 2


# --- The files are the truth ----------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    rng = random.Random(how)
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "garbage":
        path.write_bytes(rng.randbytes(20_000))
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "directory":
        path.mkdir()
    elif how == "other tables":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE files (a)")
        db.close()
    elif how == "later version":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE files (a)")
            db.execute("PRAGMA user_version = 99")
        db.close()
    elif how == "rows gone":
        path.write_bytes(data)
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM files")
        db.close()
    elif how == "bytes":
        changed = bytearray(data)
        for _ in range(400):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed)
    elif how == "journal":
        path.write_bytes(data)
        path.with_name(path.name + "-journal").write_bytes(rng.randbytes(5000))


WAYS = [
    "gone",
    "empty",
    "garbage",
    "cut",
    "directory",
    "other tables",
    "later version",
    "rows gone",
    "bytes",
    "journal",
]


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_index_is_made_again(symbols: SymbolStore, fixtures: Path, tmp_path: Path, how: str) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF" + b"\0" * 60)
    symbols.add(str(bad))
    paths = some_files(fixtures)
    for path in paths[:2]:
        symbols.add(path, tags={"a": "b"})
    expected = without_times(known(symbols))
    damage(symbols.index.path, how)
    if how != "bytes":  # These may hit a page that nobody checks; then only ``check`` tells.
        assert without_times(known(symbols)) == expected
    if symbols.index.path.is_file():
        damage(symbols.index.path, how)
    assert symbols.add(paths[2]).problem is None
    assert symbols.add(paths[1]).known
    if how != "bytes":
        entries = known(symbols)
        assert len(entries) == len(expected) + 2
        sources = {os.path.realpath(p) for p in paths[:2]}
        assert [e.tags for e in entries if e.source in sources and e.kind == "imported"] == [
            {"a": "b"}, {"a": "b"}
        ]  # fmt: skip


def test_bytes_of_the_index_may_change_at_will(symbols: SymbolStore, fixtures: Path) -> None:
    """Whatever they become, a question has an answer, an import works, and a repair puts all right."""
    from deadreckon.symbols.housekeeping import check

    for path in some_files(fixtures):
        symbols.add(path, tags={"a": "b"})
    expected = without_times(known(symbols))
    whole = symbols.index.path.read_bytes()
    rng = random.Random(11)
    for _ in range(120):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 10, 300))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        symbols.index.discard()
        symbols.index.path.write_bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))])
        known(symbols)
        symbols.index.sync()
        symbols.index.put()
        symbols.index.damage()
    symbols.index.path.write_bytes(changed)
    check(symbols.index, repair=True)
    symbols.index.discard()
    assert without_times(known(symbols)) == expected


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    index = Index(tmp_path / "none")
    assert index.entries() == []
    assert index.sync() == []
    assert index.put() is None
    index.forget(["x"])
    assert index.damage() is None
    assert not (tmp_path / "none").exists()


def test_killed_before_the_manifest(symbols: SymbolStore, library: str) -> None:
    """Tables whose manifest was never written are used, listed, and completed by importing again."""
    symbols.add(library)
    (expected,) = symbols.index.entries(kinds=["imported"])
    for manifest in symbols.root.glob("imports/**/*.json"):
        manifest.unlink()
    other = SymbolStore(Config())
    assert len(other.imported(DEBUG_ID)) == 1
    (entry,) = other.index.entries(kinds=["imported"])
    assert entry.source is None
    assert entry.objects[0]["debug_id"] == DEBUG_ID
    added = other.add(library)
    assert (added.problem, added.known) == (None, False)
    (entry,) = other.index.entries(kinds=["imported"])
    assert (entry.source, entry.objects) == (expected.source, expected.objects)
    other.close()


def test_tables_of_another_version(symbols: SymbolStore, library: str) -> None:
    symbols.add(library)
    for area in ("imports", "by-id", "derived"):
        (symbols.root / area / f"v{TABLE_VERSION}").rename(symbols.root / area / "v0")
    other = SymbolStore(Config())
    assert other.imported(DEBUG_ID) == []
    assert [e.problem for e in other.index.entries()] == [f"tables of version 0, not {TABLE_VERSION}"] * 2
    other.close()


@pytest.mark.parametrize("seed", range(4))
def test_manifests_of_any_content(symbols: SymbolStore, fixtures: Path, seed: int) -> None:
    from deadreckon.symbols.housekeeping import check, prune

    rng = random.Random(seed)
    paths = some_files(fixtures)
    for path in paths:
        symbols.add(path, tags={"a": "b"})
    manifests = sorted(symbols.root.rglob("*.json"))
    wrong: list[Any] = [None, 1, -1e999, "x", [], {}, [1], {"table": 1}, "../../x", [{"table": "x"}], "9" * 400, True]
    for manifest in manifests:
        answer: dict[str, Any] = json.loads(manifest.read_bytes())
        target = rng.choice([answer, answer["objects"][0]])
        for name in rng.sample(sorted(target), 2):
            target[name] = rng.choice(wrong)
        text = json.dumps(answer).encode()
        manifest.write_bytes(text if rng.random() < 0.7 else text[: rng.randrange(len(text))])
    known(symbols)
    check(symbols.index)
    for path in paths:
        added = symbols.add(path)
        assert isinstance(added, Added)
    old = time.time() - 1000
    for file in symbols.root.rglob("*"):
        os.utime(file, (old, old))
    check(symbols.index, repair=True)
    prune(symbols.index, older_than=0.0)
    assert known(symbols) == []
    for path in paths:
        assert symbols.add(path).problem is None


# --- Processes and threads ------------------------------------------------------------------------------------------


def test_threads_and_forks_write_at_once(symbols: SymbolStore, fixtures: Path) -> None:
    """While threads write, the process forks; the children write as well. All is there in the end."""
    symbols.add(some_files(fixtures)[0])
    (table,) = (Path(o["table"]) for o in symbols.add(some_files(fixtures)[0]).objects)
    assert open_table(table)

    def fill(who: str) -> None:
        for at in range(15):
            key = f"{who}{at:02}"
            manifest = symbols.root / "derived" / f"v{TABLE_VERSION}" / "aa" / f"{key}.json"
            manifest.parent.mkdir(parents=True, exist_ok=True)
            manifest.write_text(json.dumps({"source": key, "error": "a failure"}))
            assert symbols.index.put(manifest) is not None

    threads = [threading.Thread(target=fill, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    children = []
    for name in "cde":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # To fork beside threads is what is tested.
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                fill(name)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for thread in threads:
        thread.join()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert symbols.index.sync() == []
    assert {e.source for e in known(symbols) if e.problem} == {f"{who}{at:02}" for who in "abcde" for at in range(15)}


def test_a_writer_that_holds_the_index_is_not_waited_for_forever(
    symbols: SymbolStore, library: str, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols.add(library)
    monkeypatch.setattr("deadreckon.symbols.index._BUSY_SECONDS", 0.05)
    with sqlite3.connect(symbols.index.path, isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert symbols.add(str(fixtures / PIE / "libcargo.so")).problem is None
        assert len(known(symbols)) == 4
    db.close()
    assert len(symbols.index.sync()) == 2
    assert symbols.index.sync() == []


def test_a_crash_with_warm_tables_needs_no_index(fixtures: Path) -> None:
    code = (
        "import sys\n"
        "from deadreckon import Engine\n"
        f"event = Engine().process({str(fixtures / PIE / 'dumps/templates.dmp')!r}, symbols=[sys.argv[1]])\n"
        "assert event.threads\n"
        "print('sqlite3' in sys.modules, 'subprocess' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(fixtures / PIE)]
    first, second = (subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(2))
    assert first.split() == ["True", "True"]
    assert second.split()[0] == "False"
