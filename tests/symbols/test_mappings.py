"""Which mapping a crash is retraced by: the one it names, or the only one there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.objects.proguard import debug_id
from deadreckon.symbols.mappings import Mappings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = b"# pg_map_id: 48ffd94\ncom.acme.One -> a.a:\n    1:1:void f():5:5 -> b\n"
TWO = b"# pg_map_id: 0123abc\ncom.acme.Two -> a.a:\n    1:1:void g():6:6 -> b\n"
TRACE = b"java.lang.Error: x\n\tat a.a.b(SourceFile:1)\n"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "maps"
    path.mkdir()
    (path / "one.txt").write_bytes(ONE)
    (path / "two.txt").write_bytes(TWO)
    return path


def retraced(engine: Engine, trace: bytes, *symbols: Path, **attributes: str) -> tuple[str | None, list[str]]:
    event = engine.process(trace, symbols=[str(s) for s in symbols], attributes=attributes)
    frame = ((event.exceptions or [])[0].frames or [])[0]
    return frame.module, [d.code for d in event.diagnostics or ()]


def test_the_only_one(engine: Engine, folder: Path) -> None:
    assert retraced(engine, TRACE, folder / "one.txt") == ("com.acme.One", [])
    assert retraced(engine, TRACE, folder / "two.txt") == ("com.acme.Two", [])
    assert retraced(engine, TRACE) == ("a.a", [])
    (folder / "two.txt").unlink()
    assert retraced(engine, TRACE, folder) == ("com.acme.One", [])


def test_of_several_none(engine: Engine, folder: Path) -> None:
    assert retraced(engine, TRACE, folder) == ("a.a", ["symbols_missing"])
    assert retraced(engine, TRACE, folder / "one.txt", folder / "two.txt") == ("a.a", ["symbols_missing"])


def test_by_uuid(engine: Engine, folder: Path) -> None:
    two = debug_id(TWO)
    assert retraced(engine, TRACE, folder, symbolication_id=two) == ("com.acme.Two", [])
    assert retraced(engine, TRACE, folder, symbolication_id=two.upper().replace("-", "")) == ("com.acme.Two", [])
    # Another build's mapping would name wrong methods.
    assert retraced(engine, TRACE, folder / "one.txt", symbolication_id=two) == ("a.a", ["symbols_mismatch"])
    assert retraced(engine, TRACE, symbolication_id=two) == ("a.a", ["symbols_missing"])
    assert retraced(engine, TRACE, folder, symbolication_id="no id") == ("a.a", ["symbols_mismatch"])


def test_by_r8s_id(engine: Engine, folder: Path) -> None:
    trace = TRACE.replace(b"SourceFile", b"r8-map-id-0123abcdef0123456789")
    assert retraced(engine, trace, folder) == ("com.acme.Two", [])
    assert retraced(engine, trace, folder / "one.txt") == ("a.a", ["symbols_mismatch"])


def test_from_the_store(engine: Engine, folder: Path) -> None:
    added = engine.add_symbols(str(folder))
    assert [[o["debug_id"] for o in a.objects] for a in added] == [[debug_id(ONE)], [debug_id(TWO)]]
    assert [o["format"] for a in added for o in a.objects] == ["proguard", "proguard"]
    for _ in range(2):
        assert retraced(engine, TRACE, symbolication_id=debug_id(TWO)) == ("com.acme.Two", [])
    assert retraced(engine, TRACE) == ("a.a", [])
    assert {e.objects[0]["debug_id"] for e in engine.store.index.entries(debug_id(ONE))} == {debug_id(ONE)}


def test_beside_the_crash_in_an_archive(engine: Engine, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "both.zip", "w") as packed:
        packed.writestr("mapping.txt", ONE)
        packed.writestr("stack.txt", TRACE)
    event = engine.process(tmp_path / "both.zip")
    assert ((event.exceptions or [])[0].frames or [])[0].module == "com.acme.One"


def test_a_changed_file_is_read_again(engine: Engine, folder: Path) -> None:
    path = folder / "one.txt"
    assert retraced(engine, TRACE, path)[0] == "com.acme.One"
    path.write_bytes(TWO + b"# longer\n")
    engine.forget([str(path)])
    assert retraced(engine, TRACE, path)[0] == "com.acme.Two"


def test_few_are_kept_open(engine: Engine, tmp_path: Path) -> None:
    mappings = Mappings(engine.store)
    paths = []
    for number in range(40):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(ONE + b"# %d\n" % number)
        paths.append(engine._search(str(path)))
    for source in paths:
        assert len(mappings.find([], [], [source])[0]) == 1
    assert len(mappings._open) == 16
