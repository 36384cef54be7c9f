"""Source maps in the store."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.config import Config, MapLimits
from deadreckon.errors import LimitExceeded, Malformed, SourceUnavailable
from deadreckon.kernels.positions import look_up, look_up_functions
from deadreckon.model.tables import SourceMapTable
from deadreckon.objects import sourcemap
from deadreckon.symbols import housekeeping, maps
from deadreckon.symbols.maps import MapStore, open_map, write_map
from deadreckon.symbols.sources import SymbolPath
from deadreckon.symbols.store import SymbolStore
from deadreckon.symbols.tablefile import TABLE_VERSION
from synth.sourcemap import function_map, index_map, source_map

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENTS = [(0, 3, 0, 1, 1, 0), (2, 5, 1, 2, 2, 1), (2, 9), (4, 0, 0, 3, 3)]
MEMBERS: dict[str, Any] = {
    "sourceRoot": "root",
    "names": ["née", "b" * 5000, "\ud83d"],
    "sourcesContent": ["one\ntwo\r\nthree", None],
    "ignoreList": [1],
    "rangeMappings": "B;;B",
    "scopes": "BCAAA,CKA,ECAA,FK",
    "x_facebook_sources": [None, [function_map([(0, 0, "f"), (2, 1, "g")])]],
    "x_facebook_offsets": [7, 8],
    "x_facebook_segments": {"1": {"version": 3, "mappings": "AAAA", "sources": ["s.js"]}},
    "file": "out.js",
    "debugId": "1" * 32,
}
DATA = source_map(SEGMENTS, **MEMBERS)


@pytest.fixture
def symbols() -> SymbolStore:
    return SymbolStore(Config())


def tables(store: Path) -> list[Path]:
    return sorted((store / "maps").rglob("*.table"))


def test_a_stored_map_says_what_the_map_said(tmp_path: Path) -> None:
    for data in (DATA, source_map(), index_map([(0, 0, DATA), (9, 4, source_map(SEGMENTS)), (20, 0, DATA)])):
        path = tmp_path / "a.table"
        table = sourcemap.read(data)
        write_map(path, table)
        stored = open_map(path)
        found = [look_up(t, [0, 0, 2, 3, 9, 11], [5, 0, 6, 1, 7, 9]) for t in (table, stored)]
        assert found[0].place.tolist() == found[1].place.tolist()
        assert found[0].state.tolist() == found[1].state.tolist()
        for i in range(-1, len(table.sources) + 1):
            for ask in (sourcemap.source_path, SourceMapTable.root, SourceMapTable.source):
                assert ask(stored, i) == ask(table, i)
            assert sourcemap.source_lines(stored, i, 0, 9) == sourcemap.source_lines(table, i, 0, 9)
        assert [stored.name(i) for i in range(-1, 9)] == [table.name(i) for i in range(-1, 9)]
        assert stored.ignored.tolist() == table.ignored.tolist()
        names = [look_up_functions(sourcemap.functions(t), found[0].place).tolist() for t in (table, stored)]
        assert names[0] == names[1]
        assert sourcemap.scopes(stored).ranges.tolist() == sourcemap.scopes(table).ranges.tolist()
        for name in table.info["extra"]:
            assert sourcemap.extra(stored, name) == sourcemap.extra(table, name)
        assert sourcemap.segment(stored, "1") == sourcemap.segment(table, "1")
        for key in ("file", "debug_id", "problems", "sections"):
            assert stored.info.get(key) == table.info.get(key)


def stored(kept: MapStore, data: bytes | str | Path) -> SourceMapTable:
    """Return what the store has of a map once it has been written."""
    found = kept.read(data) if isinstance(data, bytes) else kept.open(data)
    kept.flush()
    return found.table


def test_mappings_are_not_stored_a_second_time(tmp_path: Path) -> None:
    data = source_map([(line, 0, 0, line, 0) for line in range(20_000)], sourcesContent=["x\n" * 500])
    write_map(tmp_path / "a.table", sourcemap.read(data))
    assert len(open_map(tmp_path / "a.table").text) < 5000 < len(data)


def test_content_is_parsed_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored(MapStore(Config()), DATA)
    assert len(tables(store)) == 1
    again = MapStore(Config())
    monkeypatch.setattr(sourcemap, "read", lambda *_: pytest.fail("read again"))
    for kind in (bytes, bytearray, memoryview):
        found = again.read(kind(DATA))
        assert np.array_equal(found.table.place, first.place)
        assert again.read(DATA) is found


def test_files_are_found_without_being_read(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    first = stored(MapStore(Config()), path)
    assert first.name(0) == "née"
    assert len(tables(store)) == 2
    assert len({file.stat().st_ino for file in tables(store)}) == 1
    monkeypatch.setattr(
        maps, "_digest", lambda data, real=maps._digest: real(data) if len(data) < 1000 else pytest.fail("read")
    )
    assert len(DATA) > 1000
    assert len(stored(MapStore(Config()), str(path))) == len(first)
    link = tmp_path / "link.map"
    link.symlink_to(path)
    assert len(stored(MapStore(Config()), link)) == len(first)


def test_a_changed_file_is_another(tmp_path: Path) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(source_map(SEGMENTS))
    kept = MapStore(Config())
    assert len(kept.open(path).table) == 4
    path.write_bytes(source_map(SEGMENTS[:2]))
    os.utime(path, ns=(1, 1))
    assert len(kept.open(path).table) == 2


def test_what_cannot_be_read(tmp_path: Path) -> None:
    kept = MapStore(Config())
    path = tmp_path / "bad.map"
    for data in (b"", b"no map", source_map(mappings=4)):
        path.write_bytes(data)
        for _ in range(2):
            with pytest.raises(Malformed):
                kept.open(path)
        with pytest.raises(Malformed):
            kept.read(data)
    for missing in (tmp_path / "missing.map", tmp_path, "a\0b"):
        with pytest.raises(SourceUnavailable):
            kept.open(missing)
    path.write_bytes(DATA)
    with pytest.raises(LimitExceeded):
        MapStore(Config(maps=MapLimits(max_bytes=10))).open(path)


def test_damaged_tables_are_made_again(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    stored(MapStore(Config()), path)
    for damage in (lambda data: data[:50], lambda data: b"x" * len(data), lambda _: b""):
        for file in tables(store):
            data = file.read_bytes()
            file.unlink()
            file.write_bytes(damage(data))
        assert stored(MapStore(Config()), path).name(0) == "née"
        assert all(len(open_map(file)) == 4 for file in tables(store))


def test_columns_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.table"
    for column, at, value in (("first", 1, 99), ("first", -1, 5), ("first", 0, 1), ("first", 1, 0)):
        table = sourcemap.read(DATA)
        getattr(table, column)[at] = value
        write_map(path, table)
        with pytest.raises(Malformed, match="fit each other"):
            open_map(path)
    table = sourcemap.read(DATA)
    sourcemap.functions(table).first[1] = 77
    write_map(path, table)
    with pytest.raises(Malformed, match="fit each other"):
        open_map(path)


def test_a_store_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = MapStore(Config(store=str(tmp_path / "file")))
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    assert stored(kept, path).name(0) == "née"
    assert stored(kept, DATA).name(0) == "née"


def test_a_map_is_at_hand_before_it_is_stored(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parsed one serves until then; who asks meanwhile gets the same; then it is the mapped file's."""
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    written = threading.Event()
    monkeypatch.setattr(maps, "write_map", lambda *given, real=maps.write_map: written.wait(60) and real(*given))
    kept = MapStore(Config())
    found = kept.open(path)
    parsed = found.table
    assert kept.open(path) is found
    assert tables(store) == []
    written.set()
    kept.flush()
    assert found.table is not parsed
    assert found.table.info == {**parsed.info, **found.table.info}
    assert np.array_equal(found.table.place, parsed.place)
    assert [found.table.name(i) for i in range(3)] == [parsed.name(i) for i in range(3)]
    assert len(tables(store)) == 2


def test_no_more_maps_wait_than_memory_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.map" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(source_map(SEGMENTS, file=str(i)))
    writing: list[int] = []

    def write(*given: Any, real: Any = maps.write_map) -> None:
        writing.append(sum(thread.name == "deadreckon-maps" for thread in threading.enumerate()))
        time.sleep(0.005)
        real(*given)

    monkeypatch.setattr(maps, "write_map", write)
    kept = MapStore(Config())
    for path in paths:
        kept.open(path)
    kept.flush()
    assert len(writing) == len(paths)
    assert 1 <= max(writing) <= 3


def test_without_threads_it_is_stored_at_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    found = MapStore(Config()).read(DATA)
    assert len(tables(store)) == 1
    assert found.table.name(0) == "née"


def test_many_threads(store: Path, tmp_path: Path) -> None:
    kept = MapStore(Config())
    paths = [tmp_path / f"{i}.map" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(source_map(SEGMENTS, file=str(i)))
    found: list[str] = []

    def work() -> None:
        for i, path in enumerate(paths):
            found.append(f"{i} {kept.open(path).table.info['file']}")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.flush()
    assert sorted(found) == sorted(f"{i} {i}" for i in range(4) for _ in range(8))
    assert not list(store.rglob("*.tmp"))


# --- Beside the other tables ----------------------------------------------------------------------------------------


def test_maps_are_listed_and_removed(store: Path, tmp_path: Path, symbols: SymbolStore) -> None:
    kept = MapStore(Config(), symbols.note)
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    stored(kept, path)
    entries = symbols.index.entries()
    assert [entry.kind for entry in entries] == ["map", "map"]
    assert all(entry.problem is None for entry in entries)
    size = tables(store)[0].stat().st_size
    assert abs(sum(entry.size for entry in entries) - size) < 2
    assert symbols.index.entries(kinds=("imported",)) == []
    assert housekeeping.prune(symbols.index, older_than=1000.0).removed == []
    for file in tables(store):
        os.utime(file, (time.time() - 5000,) * 2)
    assert len(housekeeping.prune(symbols.index, older_than=1000.0).removed) == 2
    assert tables(store) == []
    assert stored(kept, path).name(0) == "née"


def test_the_stores_limit_counts_maps(store: Path) -> None:
    symbols = SymbolStore(Config())
    kept = MapStore(Config(), symbols.note)
    stored(kept, DATA)
    old = time.time() - 5000
    for file in tables(store):
        os.utime(file, (old, old))
    size = sum(file.stat().st_size for file in tables(store))
    done = housekeeping.make_room(symbols.index, size - 1)
    assert done.freed == size
    assert tables(store) == []


def test_a_store_check_reads_maps(store: Path, symbols: SymbolStore) -> None:
    stored(MapStore(Config()), DATA)
    symbols.index.sync()
    (file,) = tables(store)
    file.write_bytes(file.read_bytes()[:-100])
    os.utime(file, (time.time() - 5000,) * 2)
    symbols.index.sync()
    (finding,) = housekeeping.check(symbols.index)
    assert finding.path == file.relative_to(store).as_posix()
    assert housekeeping.check(symbols.index, repair=True)[0].repaired
    assert not file.exists()
    assert housekeeping.check(symbols.index) == []


def test_using_a_map_is_noted(store: Path) -> None:
    stored(MapStore(Config()), DATA)
    (file,) = tables(store)
    os.utime(file, (0, 0))
    stored(MapStore(Config()), DATA)
    assert file.stat().st_mtime > time.time() - 60


def test_files_of_other_versions_are_left_alone(store: Path, symbols: SymbolStore) -> None:
    stored(MapStore(Config()), DATA)
    (file,) = tables(store)
    old = store / "maps" / "v0" / file.relative_to(store / "maps" / f"v{TABLE_VERSION}")
    old.parent.mkdir(parents=True)
    file.rename(old)
    os.utime(old, (time.time() - 5000,) * 2)
    assert housekeeping.check(symbols.index) == []
    stored(MapStore(Config()), DATA)
    assert len(tables(store)) == 2


def test_the_files_header_is_json(store: Path) -> None:
    stored(MapStore(Config()), DATA)
    data = tables(store)[0].read_bytes()
    header = json.loads(data[16 : 16 + int.from_bytes(data[12:16], "little")])
    assert header["info"]["debug_id"] == "11111111-1111-1111-1111-111111111111"
    assert "map.place" in {column[0] for column in header["columns"]}


# --- Imported, and named with --symbols -----------------------------------------------------------------------------


@pytest.fixture
def building() -> Iterator[SymbolStore]:
    store = SymbolStore(Config())
    yield store
    store.close()


def test_maps_are_imported_by_debug_id(tmp_path: Path, building: SymbolStore) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(DATA)
    added = building.add(str(path))
    (info,) = added.objects
    assert added.problem is None
    assert (info["debug_id"], info["format"], info["ranges"]) == (
        "11111111-1111-1111-1111-111111111111",
        "sourcemap",
        4,
    )
    assert building.add(str(path)).known
    (found,) = building.imported("1" * 32)
    assert found.map is not None
    assert found.map.name(0) == "née"
    assert found.info["format"] == "sourcemap"
    (entry,) = building.index.entries("1" * 32, kinds=("imported",))
    assert entry.objects[0]["ranges"] == 4
    manifest = next((building.root / "imports").rglob("*.json"))
    manifest.unlink()
    building.index.discard()
    (entry,) = building.index.entries("1" * 32, kinds=("imported",))
    assert entry.objects[0]["format"] == "sourcemap"


def test_maps_are_found_by_the_id_in_them(tmp_path: Path, building: SymbolStore) -> None:
    (tmp_path / "maps").mkdir()
    for i in range(1, 4):
        (tmp_path / "maps" / f"{i}.js.map").write_bytes(source_map(SEGMENTS, debugId=str(i) * 32))
    (tmp_path / "maps" / "none.map").write_bytes(source_map(SEGMENTS))
    (tmp_path / "maps" / "bad.map").write_bytes(b'{"version":3,"sources":[')
    where = SymbolPath(str(tmp_path / "maps"), building, 100)
    assert where.by_id("22222222-2222-2222-2222-222222222222") == [str(tmp_path / "maps" / "2.js.map")]
    (info,) = building.tables_of(where.by_id("33333333-3333-3333-3333-333333333333")[0])
    opened = building.open(info["table"])
    assert opened is not None
    assert opened.map is not None
    assert len(opened.map) == 4


def test_examining_a_map_lists_its_errors(tmp_path: Path, building: SymbolStore) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(source_map(SEGMENTS, names=[None, 4], ignoreList=[7]))
    examined = building.examine(str(path))
    assert examined.problem is None
    assert examined.objects[0]["problems"] == [
        "names[0]: expected a string",
        "names[1]: expected a string",
        "ignoreList[0]: expected the index of one of 2 sources",
    ]
    added = building.add(str(path))
    assert added.problem is not None
    assert "without a debug id" in added.problem
    path.write_bytes(source_map(mappings=4, names=[1]))
    examined = building.examine(str(path))
    assert examined.problem == f"{path}: mappings: expected a string; names[0]: expected a string"
    assert building.identify(str(path))[0]["format"] == "sourcemap"
