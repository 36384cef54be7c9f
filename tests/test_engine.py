"""The engine as a library: threads, forks, bytes and paths, warm tables, symbols given in every way."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import deadreckon
from deadreckon import Engine, process
from deadreckon.model.event import encode_event
from deadreckon.symbols import maps
from synth.sourcemap import source_map

if TYPE_CHECKING:
    from deadreckon.model.event import Event

VARIANT = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/pie-O2"
DUMPS = sorted((VARIANT / "dumps").glob("*.dmp"))
DUMP = VARIANT / "dumps/templates.dmp"


def top(event: Event) -> str:
    thread = next(t for t in event.threads or () if t.crashed)
    frame = (thread.frames or [])[0]
    return f"{frame.filename}:{frame.lineno}"


def test_one_call() -> None:
    assert top(process(DUMP, symbols=[str(VARIANT)])) == "vector.hpp:31"
    assert top(process(DUMP.read_bytes(), symbols=[str(VARIANT)])) == "vector.hpp:31"
    assert deadreckon.__version__


def test_paths_and_bytes_say_the_same() -> None:
    with Engine() as engine:
        one = engine.process(DUMP)
        two = engine.process(memoryview(DUMP.read_bytes()), name=DUMP.name)
    assert encode_event(one) == encode_event(two)


def test_symbols_as_file_directory_archive_and_import(tmp_path: Path) -> None:
    packed = tmp_path / "symbols.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(VARIANT / "crashy.debug", "x")
        tar.add(VARIANT / "crashy", "y")
    with Engine() as engine:
        assert top(engine.process(DUMP)) == "None:None"
        for symbols in ([str(VARIANT / "crashy.debug"), str(VARIANT / "crashy")], [str(VARIANT)], [str(packed)]):
            assert top(engine.process(DUMP, symbols=symbols)) == "vector.hpp:31", symbols
        assert top(engine.process(DUMP)) == "None:None"
        added = engine.add_symbols(packed.read_bytes())
        assert [a.problem for a in added] == [None, None]
        assert top(engine.process(DUMP)) == "vector.hpp:31"


@pytest.mark.corpus
def test_an_archive_brings_what_belongs_to_its_debug_files(corpus: Path, tmp_path: Path) -> None:
    """Xcode's archives hold the names that bitcode hid, in a file of their own, after the dSYMs."""
    folder = corpus / "native/symbolic/debuginfo-fixtures"
    dwarf = folder / "2d10c42f-591d-3265-b147-78ba0868073f.dwarf-hidden"
    (names,) = folder.glob("*.bcsymbolmap")
    packed = tmp_path / "App.xcarchive.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(dwarf, "App.xcarchive/dSYMs/App.dSYM/Contents/Resources/DWARF/App")
        archive.write(folder / f"{dwarf.stem}.plist", f"App.xcarchive/dSYMs/App.dSYM/{dwarf.stem.upper()}.plist")
        archive.write(names, f"App.xcarchive/BCSymbolMaps/{names.stem.upper()}.bcsymbolmap")
    with Engine() as engine:
        assert [(a.problem, [o["problems"] for o in a.objects]) for a in engine.add_symbols(packed)] == [(None, [[]])]


def test_a_damaged_archive_of_symbols_costs_no_crash(tmp_path: Path) -> None:
    packed = tmp_path / "symbols.tar.xz"
    with tarfile.open(packed, "w:xz") as tar:
        tar.add(VARIANT / "crashy.debug", "x")
    packed.write_bytes(packed.read_bytes()[:-2000])
    event = process(DUMP, symbols=[str(packed)])
    assert event.threads
    assert event.status == "degraded"
    assert {"archive_damaged", "symbols_malformed"} & {d.code for d in event.diagnostics or ()}


def test_symbols_that_are_not_there_cost_no_crash(tmp_path: Path) -> None:
    with Engine() as engine:
        event = engine.process(DUMP, symbols=[str(tmp_path / "gone"), str(VARIANT)])
    assert top(event) == "vector.hpp:31"
    assert [d.message for d in event.diagnostics or () if d.code == "source_unavailable"] == [
        f"--symbols {tmp_path / 'gone'}: no such file or directory"
    ]


def test_symbols_beside_the_crash_in_one_archive() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("dumps/inlines.dmp", "crashy", "dumps/templates.dmp", "crashy.debug"):
            tar.add(VARIANT / name, name)
    with Engine() as engine:
        events = list(engine.process_all(out.getvalue(), name="all.tar"))
    assert [top(e) for e in events] == ["estimate.hpp:13", "vector.hpp:31"]
    assert [e.source.container for e in events] == [["all.tar"], ["all.tar"]]


def test_many_in_order_over_warm_tables() -> None:
    with Engine() as engine:
        events = list(engine.process_many(DUMPS, symbols=[str(VARIANT)]))
    assert [e.source.name for e in events] == [d.name for d in DUMPS]


def test_threads_share_an_engine() -> None:
    found: list[tuple[int, bytes]] = []
    with Engine() as engine:
        expected = [encode_event(engine.process(d, symbols=[str(VARIANT)])) for d in DUMPS]

    with Engine() as engine:

        def work(start: int) -> None:
            mine = range(start, len(DUMPS), 4)
            found.extend((i, encode_event(engine.process(DUMPS[i], symbols=[str(VARIANT)]))) for i in mine)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [e for _, e in sorted(found)] == expected


def test_an_engine_survives_a_fork(tmp_path: Path) -> None:
    with Engine() as engine:
        engine.process(DUMP, symbols=[str(VARIANT)])
        # A debug file not seen before makes the child start a builder of its own.
        copy = tmp_path / "copy"
        shutil.copytree(VARIANT, copy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Other packages' idle threads; nothing holds a lock.
            child = os.fork()
        if child == 0:
            event = engine.process(DUMP, symbols=[str(copy)])
            os._exit(0 if top(event) == "vector.hpp:31" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert top(engine.process(DUMP, symbols=[str(copy)])) == "vector.hpp:31"


def test_leaving_an_engine_waits_for_what_is_being_stored(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(maps, "write_map", lambda *given, real=maps.write_map: go.wait(60) and real(*given))
    (tmp_path / "app.js.map").write_bytes(source_map([(0, 0, 0, 0, 0)]))
    with Engine() as engine:
        event = engine.process(b"Error: no\n    at f (https://e.com/app.js:1:1)\n", sourcemaps=[str(tmp_path)])
        assert list(store.rglob("*.table")) == []
        threading.Timer(0.1, go.set).start()
    (exception,) = event.exceptions or []
    assert (exception.frames or [])[0].lineno == 1
    assert len(list(store.rglob("*.table"))) == 2


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    from deadreckon import Config

    with Engine(Config(store=str(blocked))) as engine:
        event = engine.process(DUMP)
    assert event.status in {"ok", "degraded"}
    assert event.threads


def test_unreadable_inputs_are_events(tmp_path: Path) -> None:
    with Engine() as engine:
        for source in (b"", b"hello", tmp_path / "missing", tmp_path):
            event = engine.process(source)
            assert event.status == "unreadable"
            assert event.diagnostics
            assert event.diagnostics[-1].severity == "error"
