from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deadreckon.config import Config, SymbolLimits
from deadreckon.errors import LimitExceeded, SourceUnavailable, SymbolError
from deadreckon.model.crash import Module
from deadreckon.model.ids import DebugId
from deadreckon.model.tables import RuleTable, SymTable
from deadreckon.symbols.sources import SymbolPath, resolve
from deadreckon.symbols.store import ModuleTables, SymbolStore
from deadreckon.symbols.tablefile import TABLE_VERSION, TableFile, open_table
from synth.breakpad import SymFile

LIBRARY = "linux/x86_64/pie-O2/libcargo.so.debug"
DEBUG_ID = "b5c148bc-e24f-df22-d88b-9aeb9359ccc0"


@pytest.fixture
def library(fixtures: Path) -> str:
    return str(fixtures / LIBRARY)


def files(store: SymbolStore) -> dict[str, tuple[int, int]]:
    """Return every file of a store with its inode and time of change."""
    found = {}
    for path in store.root.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found[str(path.relative_to(store.root))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def count_builds(store: SymbolStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a path with each build."""
    built: list[str] = []
    build = store._builder.build

    def counted(path: str, output: str) -> object:
        built.append(path)
        return build(path, output)

    monkeypatch.setattr(store._builder, "build", counted)
    return built


# --- Import ---------------------------------------------------------------------------------------------------------


def test_importing_twice_changes_nothing(symbols: SymbolStore, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(symbols, monkeypatch)
    first = symbols.add(library)
    assert first.problem is None
    assert [o["debug_id"] for o in first.objects] == [DEBUG_ID]
    before = files(symbols)
    assert symbols.add(library) == first
    assert files(symbols) == before
    assert built == [library]
    key = Path(first.objects[0]["table"]).name
    by_id = f"by-id/v{TABLE_VERSION}/B5/B5C148BCE24FDF22D88B9AEB9359CCC00/{key}"
    assert by_id in before
    derived = [name for name in before if name.startswith(f"derived/v{TABLE_VERSION}/") and name.endswith(".table")]
    assert [before[name] for name in derived] == [before[by_id]]  # One file, by two names.


def test_imported_tables_are_found_by_any_spelling(symbols: SymbolStore, library: str) -> None:
    symbols.add(library)
    for spelling in (DEBUG_ID, "B5C148BCE24FDF22D88B9AEB9359CCC00", "{" + DEBUG_ID.upper() + "}", DEBUG_ID + "-0"):
        (table,) = symbols.imported(spelling)
        assert len(table.sym.range_start) > 20
    for other in ("", "nonsense", "../../..", "0" * 33, DEBUG_ID + "-1"):
        assert symbols.imported(other) == []


def test_two_files_of_one_build(symbols: SymbolStore, fixtures: Path, library: str) -> None:
    symbols.add(library)
    symbols.add(str(fixtures / "linux/x86_64/pie-O2/libcargo.so"))
    found = symbols.imported(DEBUG_ID)
    assert len(found) == 2
    merged = ModuleTables.merge(found)
    assert merged is not None
    assert merged.info["has_lines"]
    assert len(merged.rules.rva) > 20


def test_another_process_sees_what_was_imported(symbols: SymbolStore, library: str) -> None:
    symbols.add(library)
    other = SymbolStore(Config())
    assert len(other.imported(DEBUG_ID)) == 1
    other.close()


def test_importing_from_two_processes(symbols: SymbolStore, fixtures: Path, tmp_path: Path) -> None:
    """They build the same tables at the same time; each finds them, and nothing is left over."""
    paths = [str(fixtures / "linux/x86_64" / name) for name in ("pie-O2/crashy.debug", "pie-O2/crashy")]
    code = (
        "import sys, time, json\n"
        "from pathlib import Path\n"
        "from deadreckon.config import Config\n"
        "from deadreckon.symbols.store import SymbolStore\n"
        "store = SymbolStore(Config())\n"
        f"store.identify({paths[0]!r})\n"
        "Path(sys.argv[1]).touch()\n"
        "while len(list(Path(sys.argv[1]).parent.glob('ready-*'))) < 2: time.sleep(0.001)\n"
        f"print(json.dumps([[store.add(p).problem, store.add(p).objects] for p in {paths!r}]))\n"
        "store.close()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"ready-{i}")], stdout=subprocess.PIPE)
        for i in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert answers[0] == answers[1]
    assert [problem for problem, _ in answers[0]] == [None, None]
    names = list(files(symbols))
    assert len([n for n in names if n.startswith("by-id")]) == 2
    assert len([n for n in names if n.startswith("derived") and n.endswith(".table")]) == 2
    assert not [n for n in names if n.endswith(".tmp")]
    found = symbols.imported(answers[0][0][1][0]["debug_id"])
    assert len(found) == 2


def test_importing_from_threads(symbols: SymbolStore, fixtures: Path) -> None:
    paths = [str(fixtures / "linux/x86_64/pie-O2" / name) for name in ("libcargo.so", "libcargo.so.debug")] * 3
    problems: list[str | None] = []
    threads = [threading.Thread(target=lambda p: problems.append(symbols.add(p).problem), args=(p,)) for p in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [None] * len(paths)
    assert len(symbols.imported(DEBUG_ID)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "unsupported object|no such file|unknown"),
        (b"MODULE Linux x86_64 000000000000000000000000000000000 x\nFUNC 0 1 0 f\n", "no debug id"),
        (bytes(SymFile()), "no debug id, symbols or unwind information"),
    ],
)
def test_files_that_give_nothing(symbols: SymbolStore, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.sym"
    path.write_bytes(content)
    added = symbols.add(str(path))
    assert added.objects == []
    assert added.problem is not None
    assert str(path) in added.problem
    assert any(part in added.problem.lower() for part in message.split("|"))
    assert not list(symbols.root.glob("by-id/**/*.table"))


def test_paths_that_are_no_files(symbols: SymbolStore, tmp_path: Path) -> None:
    for path in (str(tmp_path / "none"), "a\0b", str(tmp_path)):
        assert symbols.add(path).problem
    with pytest.raises(SourceUnavailable):
        symbols.tables_of(str(tmp_path / "none"))


def test_file_too_large(tmp_path: Path) -> None:
    store = SymbolStore(Config(symbols=SymbolLimits(max_file_bytes=1000)))
    path = tmp_path / "sparse.debug"
    with path.open("wb") as file:
        file.truncate(1001)
    with pytest.raises(LimitExceeded, match=r"symbols\.max_file_bytes is 1000, got 1001"):
        store.tables_of(str(path))
    assert "max_file_bytes" in (store.add(str(path)).problem or "")
    assert store._started is None


# --- Derived tables -------------------------------------------------------------------------------------------------


def test_tables_are_built_once(symbols: SymbolStore, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(symbols, monkeypatch)
    (first,) = symbols.tables_of(library)
    assert symbols.tables_of(library) == [first]
    assert built == [library]
    other = SymbolStore(Config())
    others = count_builds(other, monkeypatch)
    assert other.tables_of(library) == [first]
    assert others == []


def test_changed_file_gets_new_tables(symbols: SymbolStore, fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.debug"
    shutil.copyfile(fixtures / LIBRARY, path)
    (first,) = symbols.tables_of(str(path))
    replaced = tmp_path / "new"
    shutil.copyfile(fixtures / "linux/x86_64/pie-O0/libcargo.so.debug", replaced)
    os.replace(replaced, path)
    (second,) = symbols.tables_of(str(path))
    assert first["debug_id"] != second["debug_id"]
    assert first["table"] != second["table"]


def test_link_and_file_share_tables(symbols: SymbolStore, library: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(library)
    assert symbols.tables_of(str(tmp_path / "link")) == symbols.tables_of(library)


def test_failure_is_remembered(symbols: SymbolStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x7fELF" + b"\0" * 60)
    built = count_builds(symbols, monkeypatch)
    messages = []
    for _ in range(2):
        with pytest.raises(SymbolError) as caught:
            symbols.tables_of(str(path))
        messages.append(str(caught.value))
    assert built == [str(path)]
    assert messages[0] == messages[1]


def test_full_disk_is_not_remembered(symbols: SymbolStore, library: str) -> None:
    manifest = symbols._derived(library)
    in_the_way = manifest.with_name(manifest.stem + ".0.table")
    in_the_way.mkdir(parents=True)
    (in_the_way / "file").touch()
    with pytest.raises(SourceUnavailable):
        symbols.tables_of(library)
    shutil.rmtree(in_the_way)
    assert symbols.tables_of(library)


@pytest.mark.usefixtures("endless_rules")
def test_time_limit_costs_the_rules_of_one_file(library: str) -> None:
    store = SymbolStore(Config(symbols=SymbolLimits(build_seconds=5.0)))
    (found,) = store.tables_of(library)
    assert "symbols.build_seconds is 5" in found["problems"][0]
    assert store.tables_of(library) == [found]
    store.close()


# --- Damage ---------------------------------------------------------------------------------------------------------


def module() -> Module:
    return Module(0, 0x10000, "/lib/libcargo.so", debug_id=DEBUG_ID)


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "gone"])
def test_damaged_table_is_built_afresh(symbols: SymbolStore, library: str, damage: str) -> None:
    (info,) = symbols.tables_of(library)
    table = Path(info["table"])
    whole = table.read_bytes()
    if damage == "gone":
        table.unlink()
    else:
        left = {"cut": whole[: len(whole) // 2], "empty": b"", "header": whole[:20] + b"#" + whole[21:]}
        table.write_bytes(left[damage])
    assert symbols.open(info["table"]) is None
    assert not table.exists()
    found = symbols.open(info["table"], library)
    assert found is not None
    assert table.read_bytes() == whole


def test_damaged_table_is_mended_within_a_resolution(symbols: SymbolStore, library: str) -> None:
    (info,) = symbols.tables_of(library)
    Path(info["table"]).write_bytes(b"DRTABLE\0")
    found = resolve(module(), [SymbolPath(library, symbols, 10)], symbols)
    assert found.state == "found"
    assert found.tables is not None
    assert len(found.tables.sym.range_start) == info["ranges"]


def test_damaged_import_is_mended_by_importing_again(symbols: SymbolStore, library: str) -> None:
    (info,) = symbols.add(library).objects
    Path(info["table"]).write_bytes(b"DRTABLE\0")  # the imported name is the same file
    other = SymbolStore(Config())
    assert other.imported(DEBUG_ID) == []
    assert other.add(library).problem is None
    assert len(other.imported(DEBUG_ID)) == 1
    other.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"null", b'{"objects": 1}', b'{"objects": [{}]}', b"\xff"]
)
def test_damaged_manifest(symbols: SymbolStore, library: str, content: bytes) -> None:
    expected = symbols.tables_of(library)
    symbols._derived(library).write_bytes(content)
    assert symbols.tables_of(library) == expected


def test_opened_tables_are_kept_open(symbols: SymbolStore, library: str) -> None:
    (info,) = symbols.tables_of(library)
    assert symbols.open(info["table"]) is symbols.open(info["table"])
    assert symbols.open(str(symbols.root / "none.table")) is None


def test_open_tables_are_limited(symbols: SymbolStore, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadreckon.symbols.store._OPEN_TABLES", 2)
    (info,) = symbols.tables_of(library)
    names = []
    for i in range(4):
        names.append(f"{info['table']}.{i}")
        shutil.copyfile(info["table"], names[-1])
        assert symbols.open(names[-1]) is not None
    assert list(symbols._open) == names[2:]


# --- Merging --------------------------------------------------------------------------------------------------------


def test_merge_takes_the_best_of_each(fixtures: Path, symbols: SymbolStore) -> None:
    folder = fixtures / "linux/x86_64/pie-O2"
    (sym,) = (folder / "breakpad/libcargo.so").glob("*/*.sym")
    opened = {}
    for name, path in (("program", folder / "libcargo.so"), ("debug", folder / "libcargo.so.debug"), ("sym", sym)):
        (info,) = symbols.tables_of(str(path))
        assert DebugId.parse(info["debug_id"]) == DebugId.parse(DEBUG_ID)
        opened[name] = open_table(Path(info["table"]))
    merged = ModuleTables.merge([opened["program"], opened["debug"]])
    assert merged is not None
    assert merged.sym is opened["debug"].sym
    assert merged.rules is opened["program"].rules
    assert merged.info["format"] == "elf"
    assert ModuleTables.merge([]) is None
    bare = TableFile(SymTable.empty(), RuleTable.empty(), {})
    alone = ModuleTables.merge([bare, opened["sym"], bare])
    assert alone is not None
    assert alone.sym is opened["sym"].sym
    assert alone.rules is opened["sym"].rules
