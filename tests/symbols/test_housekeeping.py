from __future__ import annotations

import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import Config, SymbolLimits
from deadreckon.symbols.housekeeping import DAY, check, make_room, prune
from deadreckon.symbols.store import SymbolStore
from deadreckon.symbols.storefiles import place, walk
from synth.breakpad import SymFile

if TYPE_CHECKING:
    from deadreckon.symbols.builder import Builder

PIE = "linux/x86_64/pie-O2"
DEBUG_ID = "b5c148bc-e24f-df22-d88b-9aeb9359ccc0"
HOUR = 3600.0


def symbol_file(path: Path, number: int, functions: int = 50) -> str:
    """Write a debug file with an id of its own."""
    file = SymFile(id=f"{number:032X}0", name=path.name)
    for at in range(functions):
        file.function(0x1000 + 16 * at, 16, f"function_{number}_{at}")
    path.write_bytes(bytes(file))
    return str(path)


def debug_id(number: int) -> str:
    return f"{number:032X}0"


def age(symbols: SymbolStore, source: str, seconds: float) -> None:
    """Let an imported or derived file's tables have been used last so many seconds ago."""
    found = walk(symbols.root)
    for entry in symbols.index.entries():
        if entry.source == os.path.realpath(source):
            item = found[entry.key]
            for name in [*item.tables, item.manifest]:
                assert name is not None
                os.utime(symbols.root / name, (time.time() - seconds,) * 2)


def settle(symbols: SymbolStore, seconds: float = 1000.0) -> None:
    """Let everything in a store be older than what a check leaves alone."""
    for path in symbols.root.rglob("*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)
    symbols.index.sync()


def disk(root: Path) -> int:
    """Return the size of tables and manifests, each file once."""
    files = [
        p.stat() for p in root.rglob("*") if p.suffix in {".table", ".json"} or ("remote" in p.parts and p.is_file())
    ]
    return sum({s.st_ino: s.st_size for s in files}.values())


# --- Last use -------------------------------------------------------------------------------------------------------


def test_use_is_noted_once_an_hour(symbols: SymbolStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (info,) = symbols.add(symbol_file(tmp_path / "a.sym", 1)).objects
    table = Path(info["table"])
    touched: list[str] = []
    utime = os.utime

    def noted(path: str) -> None:
        touched.append(path)
        utime(path)

    monkeypatch.setattr(os, "utime", noted)
    for _ in range(3):
        symbols.imported(debug_id(1))
    assert touched == []
    old = time.time() - 2 * HOUR
    utime(table, (old, old))
    other = SymbolStore(Config())
    for _ in range(3):
        assert other.imported(debug_id(1))
    assert touched == [str(table)]
    assert table.stat().st_mtime > old + HOUR
    # One that stays open is noted too, when an hour has passed.
    utime(table, (old, old))
    other.imported(debug_id(1))
    assert len(touched) == 1
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock + HOUR + 1)
    other.imported(debug_id(1))
    assert len(touched) == 2


def test_a_long_lived_engine_keeps_its_tables_in_use(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = fixtures / PIE / "dumps/templates.dmp"
    with Engine() as engine:
        engine.add_symbols(fixtures / PIE / "crashy.debug")
        engine.process(dump)
        (table,) = engine.store.root.glob("by-id/**/*.table")
        old = time.time() - 2 * HOUR
        os.utime(table, (old, old))
        engine.process(dump)
        assert table.stat().st_mtime == pytest.approx(old)
        clock = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: clock + HOUR + 1)
        engine.process(dump)
        assert table.stat().st_mtime > old + HOUR


# --- Limits ---------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(symbols: SymbolStore, tmp_path: Path) -> None:
    paths = [symbol_file(tmp_path / f"{n}.sym", n) for n in range(1, 7)]
    for path in paths:
        symbols.tables_of(path)
    order = random.Random(1).sample(range(6), 6)
    for rank, at in enumerate(order):
        age(symbols, paths[at], (rank + 1) * DAY)
    size = disk(symbols.root)
    done = make_room(symbols.index, size * 6 // 10)
    left = {e.source for e in symbols.index.entries()}
    assert left == {os.path.realpath(paths[at]) for at in order[: len(left)]}
    assert len(left) == 3
    assert disk(symbols.root) == done.kept <= size * 6 // 10
    assert done.freed == size - done.kept
    assert len(done.removed) == 3
    for path in paths:
        assert symbols.tables_of(path)


def test_what_was_imported_goes_last(symbols: SymbolStore, tmp_path: Path) -> None:
    imported, derived = (symbol_file(tmp_path / f"{n}.sym", n) for n in (1, 2))
    symbols.add(imported)
    symbols.tables_of(derived)
    age(symbols, imported, 100 * DAY)
    age(symbols, derived, HOUR)
    size = disk(symbols.root)
    # Taking away the derived name of an imported table would save nothing.
    done = make_room(symbols.index, size - 1000)
    assert {e.source for e in symbols.index.entries()} == {os.path.realpath(imported)}
    assert done.kept == pytest.approx(disk(symbols.root), abs=2)
    assert len(symbols.imported(debug_id(1))) == 1
    age(symbols, imported, HOUR)
    done = make_room(symbols.index, 10)
    assert (len(done.removed), done.kept, disk(symbols.root)) == (2, 0, 0)
    other = SymbolStore(Config())
    assert other.imported(debug_id(1)) == []
    assert other.index.entries() == []
    symbols.add(imported)
    assert len(other.imported(debug_id(1))) == 1


def test_the_store_keeps_below_its_limit(store: Path, shared_builder: Builder, tmp_path: Path) -> None:
    paths = [symbol_file(tmp_path / f"{n}.sym", n) for n in range(1, 21)]
    probe = SymbolStore(Config(store=str(tmp_path / "probe")))
    probe._started = shared_builder
    probe.tables_of(paths[0])
    one = disk(probe.root)
    symbols = SymbolStore(Config(symbols=SymbolLimits(store_max_bytes=6 * one)))
    symbols._started = shared_builder
    for at, path in enumerate(paths):
        (info,) = symbols.tables_of(path)
        assert symbols.open(info["table"]) is not None
        age(symbols, path, HOUR - at)
        assert disk(store) <= 6 * one + 100
    assert 4 <= len(list(store.glob("derived/**/*.table"))) <= 6
    assert (info["table"]) in {str(p) for p in store.glob("derived/**/*.table")}


def test_no_limit(shared_builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadreckon.symbols.housekeeping.make_room", lambda *_: pytest.fail("nothing to do"))
    symbols = SymbolStore(Config(symbols=SymbolLimits(store_max_bytes=0)))
    symbols._started = shared_builder
    assert symbols.tables_of(symbol_file(tmp_path / "a.sym", 1))


def test_imported_symbols_do_not_vanish_silently(
    shared_builder: Builder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    symbols = SymbolStore(Config(symbols=SymbolLimits(store_max_bytes=1000)))
    symbols._started = shared_builder
    paths = [symbol_file(tmp_path / f"{n}.sym", n) for n in (1, 2, 3)]
    with caplog.at_level(logging.WARNING):
        for path in paths[:2]:
            assert symbols.add(path).problem is None  # What was just made is not what goes.
        assert len(symbols.index.entries()) == 4
        age(symbols, paths[0], HOUR)
        symbols._no_room_until = 0.0
        assert caplog.records == []
        symbols.add(paths[2])
    assert (
        "1 imported debug files or uploads were removed: the store's limit symbols.store_max_bytes is 1000"
        in caplog.text
    )
    assert [len(symbols.imported(debug_id(n))) for n in (1, 2, 3)] == [0, 1, 1]


def test_fetched_files_count_and_stay_the_same_file(symbols: SymbolStore) -> None:
    fetched = symbols.root / "remote" / "ab" / "files" / "app.sym"
    fetched.parent.mkdir(parents=True)
    symbol_file(fetched, 1)
    (first,) = symbols.tables_of(str(fetched))
    remote = [e for e in symbols.index.entries() if e.kind == "remote"]
    assert [(e.key, e.size) for e in remote] == [("remote/ab/files/app.sym", fetched.stat().st_size)]
    old = time.time() - 5 * DAY
    os.utime(fetched, (old, old))
    assert symbols.tables_of(str(fetched)) == [first]
    assert fetched.stat().st_mtime > old + HOUR
    os.utime(fetched, (old, old))
    (symbols.root / "remote" / "ab" / ".notes.sqlite").touch()
    done = prune(symbols.index, older_than=DAY)
    assert done.removed == ["remote/ab/files/app.sym"]
    assert (symbols.root / "remote" / "ab" / ".notes.sqlite").exists()


# --- Pruning --------------------------------------------------------------------------------------------------------


def test_prune_by_age(symbols: SymbolStore, tmp_path: Path) -> None:
    paths = [symbol_file(tmp_path / f"{n}.sym", n) for n in range(1, 5)]
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF" + b"\0" * 60)
    for path in paths[:2]:
        symbols.add(path)
    for path in [*paths[2:], str(bad)]:
        symbols.examine(path)
    for path in (paths[1], paths[3], str(bad)):
        age(symbols, path, 10 * DAY)
    assert prune(symbols.index).removed == []
    done = prune(symbols.index, older_than=9 * DAY)
    assert len(done.removed) == 4
    assert {e.source for e in symbols.index.entries()} == {os.path.realpath(paths[0]), os.path.realpath(paths[2])}
    assert symbols.imported(debug_id(1))
    assert not (symbols.root / "by-id/v1/00" / debug_id(2)).exists()  # Nor an empty directory.
    assert prune(symbols.index, older_than=0.0).kept == 0


def test_prune_clears_up_after_killed_processes(symbols: SymbolStore, tmp_path: Path) -> None:
    (info,) = symbols.add(symbol_file(tmp_path / "a.sym", 1)).objects
    table = Path(info["table"])
    temporary = symbols.temporary
    left = [table.with_name(".abc.tmp"), table.with_name("x.0.repaired"), temporary / "file", temporary / "tmpdir/x"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    (temporary / "link").symlink_to(tmp_path)
    assert prune(symbols.index).leftovers == 0  # Somebody may be at work.
    old = time.time() - 2 * DAY
    for path in [*left, temporary / "tmpdir", temporary / "link"]:
        os.utime(path, (old, old), follow_symlinks=False)
    busy = temporary / "busy"
    busy.mkdir()
    (busy / "x").write_bytes(b"fresh")
    os.utime(busy, (old, old))
    assert prune(symbols.index).leftovers == 5
    assert list(temporary.iterdir()) == [busy]
    assert not any(path.exists() for path in left)
    assert (tmp_path / "a.sym").exists()
    assert len(symbols.imported(debug_id(1))) == 1


def test_a_table_in_use_survives_its_name(symbols: SymbolStore, tmp_path: Path) -> None:
    symbols.add(symbol_file(tmp_path / "a.sym", 1))
    (opened,) = symbols.imported(debug_id(1))
    prune(symbols.index, older_than=-1.0)
    assert opened.sym.string(int(opened.sym.functions[0, 0])) == "function_1_0"
    assert symbols.imported(debug_id(1)) == []


def test_what_is_used_meanwhile_is_kept(symbols: SymbolStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = symbol_file(tmp_path / "a.sym", 1)
    symbols.add(path)
    age(symbols, path, 10 * DAY)

    def used_meanwhile(root: Path) -> object:
        found = walk(root)
        assert symbols.imported(debug_id(1))
        other = SymbolStore(Config())
        assert other.imported(debug_id(1))
        return found

    monkeypatch.setattr("deadreckon.symbols.housekeeping.walk", used_meanwhile)
    prune(symbols.index, older_than=DAY)
    assert len(symbols.imported(debug_id(1))) == 1


# --- Check and repair -----------------------------------------------------------------------------------------------


@pytest.fixture
def filled(symbols: SymbolStore, fixtures: Path, tmp_path: Path) -> SymbolStore:
    """Give a store with two imports of one module, one of another, something derived and a failure."""
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF" + b"\0" * 60)
    for name in ("libcargo.so", "libcargo.so.debug", "crashy"):
        symbols.add(str(fixtures / PIE / name), tags={"name": name})
    symbols.add(str(bad))
    symbols.tables_of(symbol_file(tmp_path / "a.sym", 1))
    settle(symbols)
    return symbols


def imported_table(symbols: SymbolStore, name: str) -> Path:
    (entry,) = symbols.index.entries(tags={"name": name})
    (info,) = entry.objects
    (path,) = symbols.root.glob(f"by-id/**/{info['table']}")
    return path


def test_nothing_is_wrong(filled: SymbolStore) -> None:
    assert check(filled.index) == []
    assert check(filled.index, repair=True) == []
    filled.index.discard()
    assert check(filled.index) == []


def test_damaged_import(filled: SymbolStore, fixtures: Path) -> None:
    table = imported_table(filled, "libcargo.so")
    whole = table.read_bytes()
    table.unlink()
    table.write_bytes(whole[:100])
    settle(filled)
    source = os.path.realpath(fixtures / PIE / "libcargo.so")
    first = check(filled.index)
    assert [(f.path, f.repaired) for f in first] == [(str(table.relative_to(filled.root)), False)] * 1 + [
        (f.path, False) for f in first[1:]
    ]
    assert any(f"import {source} again" in f.what for f in first)
    repaired = check(filled.index, repair=True)
    assert [f.repaired for f in repaired] == [True, False]
    assert not table.exists()
    other = SymbolStore(Config())
    assert len(other.imported(DEBUG_ID)) == 1
    assert other.add(source).problem is None
    assert table.read_bytes() == whole
    settle(other)
    assert check(other.index) == []
    other.close()


def test_damaged_manifests(filled: SymbolStore) -> None:
    for manifest in filled.root.rglob("*.json"):
        manifest.write_bytes(b"{")
    settle(filled)
    assert len(check(filled.index)) == 9
    assert all(f.repaired for f in check(filled.index, repair=True))
    assert check(filled.index) == []
    assert len(filled.imported(DEBUG_ID)) == 2
    entries = filled.index.entries()
    assert len(entries) == 3
    assert {e.source for e in entries} == {None}
    assert all(e.objects and e.kind == "imported" for e in entries)


def test_misplaced_table(filled: SymbolStore) -> None:
    """Tables of one module in another one's place would give wrong names."""
    wrong = imported_table(filled, "crashy")
    place(wrong, imported_table(filled, "libcargo.so").with_name("0123.0.table"))
    settle(filled)
    findings = check(filled.index, repair=True)
    assert any("in another one's place" in f.what for f in findings)
    assert all(f.repaired for f in findings)
    other = SymbolStore(Config())
    assert {t.info["debug_id"] for t in other.imported(DEBUG_ID)} == {DEBUG_ID}
    assert check(other.index) == []


def test_swapped_tables(filled: SymbolStore) -> None:
    a, b = (imported_table(filled, name) for name in ("crashy", "libcargo.so"))
    for path, content in ((a, b.read_bytes()), (b, a.read_bytes())):
        path.unlink()
        path.write_bytes(content)
    settle(filled)
    assert len(check(filled.index)) >= 2
    check(filled.index, repair=True)
    other = SymbolStore(Config())
    assert {t.info["debug_id"] for t in other.imported(DEBUG_ID)} == {DEBUG_ID}


def test_lost_tables_of_derived_files(filled: SymbolStore, tmp_path: Path) -> None:
    for table in filled.root.glob("derived/**/*.table"):
        table.unlink()
    settle(filled)
    findings = check(filled.index, repair=True)
    assert len(findings) == 4
    assert all(f.repaired and "is missing" in f.what for f in findings)
    assert check(filled.index) == []
    assert filled.tables_of(str(tmp_path / "a.sym"))
    for manifest in filled.root.glob("derived/**/*.json"):
        manifest.unlink()
    settle(filled)
    assert [f.what for f in check(filled.index, repair=True)][:1] == ["tables that belong to nothing"]
    assert not list(filled.root.glob("derived/**/*.table"))


def test_index_that_does_not_agree(filled: SymbolStore) -> None:
    everything = filled.index.entries()
    filled.index.forget([everything[0].key])
    (manifest,) = filled.root.glob(f"{everything[1].key}.json")
    for path in [manifest, *filled.root.rglob(f"{manifest.stem}*")]:
        path.unlink(missing_ok=True)
    assert sorted(f.path for f in check(filled.index)) == sorted(e.key for e in everything[:2])
    assert all(f.repaired for f in check(filled.index, repair=True))
    assert check(filled.index) == []
    filled.index.path.write_bytes(b"garbage" * 1000)
    (finding,) = check(filled.index)
    assert "the index is damaged" in finding.what
    assert [f.repaired for f in check(filled.index, repair=True)] == [True]
    assert check(filled.index) == []
    assert len(filled.index.entries()) == len(everything) - 1


def test_what_is_being_added_is_not_wrong(symbols: SymbolStore, fixtures: Path) -> None:
    symbols.add(str(fixtures / PIE / "libcargo.so"))
    for manifest in symbols.root.rglob("*.json"):
        manifest.unlink()
    symbols.index.sync()
    assert check(symbols.index, repair=True) == []
    assert len(list(symbols.root.rglob("*.table"))) == 2


def test_tables_without_links(symbols: SymbolStore, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no hard links."""

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    symbols.add(str(fixtures / PIE / "libcargo.so"))
    assert len(symbols.imported(DEBUG_ID)) == 1
    assert not list(symbols.root.rglob("*.tmp"))
    settle(symbols)
    assert check(symbols.index) == []
    monkeypatch.undo()


def test_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"table")
    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        place(tmp_path / "a", tmp_path / "b" / "c")
    assert list((tmp_path / "b").iterdir()) == []
