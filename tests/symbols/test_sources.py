from __future__ import annotations

import os
import random
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon.model.crash import Module
from deadreckon.symbols import layouts
from deadreckon.symbols.sources import SymbolPath, resolve
from synth.breakpad import SymFile
from synth.elf import Elf, Section
from synth.pe import looping

if TYPE_CHECKING:
    from deadreckon.symbols.store import SymbolStore

DEBUG_ID = "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"
BUILD_ID = "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"
CRASHY = Module(0x5555_0000_0000, 0x10000, "/opt/app/crashy", BUILD_ID, None, DEBUG_ID)


@pytest.fixture
def folder(fixtures: Path) -> Path:
    return fixtures / "linux/x86_64/pie-O2"


@pytest.fixture
def sym(folder: Path) -> Path:
    (path,) = (folder / "breakpad/crashy").glob("*/*.sym")
    return path


def found_in(path: Path, store: SymbolStore, module: Module = CRASHY) -> list[str]:
    source = SymbolPath(str(path), store, 1000)
    return [os.path.relpath(found, path) for found in source.candidates(module)]


# --- Known layouts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate", [c for c in layouts.candidates(CRASHY) if c.kind != "sourcebundle"], ids=lambda c: c.path
)
def test_every_layout(
    candidate: layouts.Candidate, symbols: SymbolStore, folder: Path, sym: Path, tmp_path: Path
) -> None:
    """A file at any of the paths that a layout knows is the first candidate, and gives what it has."""
    content = {"debuginfo": folder / "crashy.debug", "executable": folder / "crashy", "breakpad": sym}
    root = tmp_path / "symbols"
    path = root / candidate.path
    path.parent.mkdir(parents=True)
    shutil.copyfile(content[candidate.kind], path)
    assert found_in(root, symbols)[0] == candidate.path
    answer = resolve(CRASHY, [SymbolPath(str(root), symbols, 1000)], symbols)
    assert answer.state == "found"
    assert answer.tables is not None
    assert bool(answer.tables.info["has_lines"]) == (candidate.kind != "executable")
    assert bool(len(answer.tables.rules.rva)) == (candidate.kind != "debuginfo")


def test_order_of_layouts(symbols: SymbolStore, folder: Path, sym: Path, tmp_path: Path) -> None:
    """Debug information comes before executables, and those before Breakpad files."""
    paths = {
        f".build-id/{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug": folder / "crashy.debug",
        f"buildid/{BUILD_ID}/executable": folder / "crashy",
        f"crashy/{DEBUG_ID.replace('-', '').upper()}0/crashy.sym": sym,
    }
    for path, content in paths.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, tmp_path / path)
    assert list(dict.fromkeys(found_in(tmp_path, symbols))) == list(paths)


def test_names_in_reports_lead_nowhere_else(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "symbols"
    root.mkdir()
    shutil.copyfile(folder / "crashy", tmp_path / "crashy")
    for name in ("../crashy", "/etc/passwd", "..", "", "a\0b", "..\\crashy", "x" * 5000, "\udcff"):
        module = replace(CRASHY, code_file=name, debug_file=name)
        for candidate in SymbolPath(str(root), symbols, 10).candidates(module):
            assert Path(candidate).resolve().is_relative_to(root.resolve())


# --- Directories without a layout -----------------------------------------------------------------------------------


def test_found_by_id_whatever_the_name(symbols: SymbolStore, folder: Path, sym: Path, tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    shutil.copyfile(folder / "crashy", deep / "first.bin")
    shutil.copyfile(folder / "crashy.debug", tmp_path / "second")
    shutil.copyfile(sym, deep / "third.txt")
    assert sorted(found_in(tmp_path, symbols)) == ["a/b/c/first.bin", "a/b/c/third.txt", "second"]
    by_code_id = replace(CRASHY, debug_id=None)
    assert sorted(found_in(tmp_path, symbols, by_code_id)) == ["a/b/c/first.bin", "second"]
    assert found_in(tmp_path, symbols, replace(CRASHY, debug_id="0" * 33, code_id="00", code_file="other")) == []
    assert resolve(by_code_id, [SymbolPath(str(tmp_path), symbols, 10)], symbols).state == "found"


def test_a_single_file(symbols: SymbolStore, folder: Path) -> None:
    path = folder / "crashy.debug"
    source = SymbolPath(str(path), symbols, 10)
    assert next(source.candidates(CRASHY)) == str(path)
    assert resolve(CRASHY, [source], symbols).state == "found"


def test_formats_that_symbolic_identifies(symbols: SymbolStore, tmp_path: Path) -> None:
    (tmp_path / "loop").write_bytes(looping())
    module = Module(0, 0x4000, r"C:\loop.exe", debug_id="04030201-0605-0807-090a-0b0c0d0e0f10-1")
    assert found_in(tmp_path, symbols, module) == ["loop"]
    by_code_id = Module(0, 0x4000, "x", code_id="5ab380774000")
    assert found_in(tmp_path, symbols, by_code_id) == ["loop"]


def test_directory_is_read_once(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    source = SymbolPath(str(tmp_path), symbols, 10)
    assert list(source.candidates(CRASHY)) == []
    shutil.copyfile(folder / "crashy", tmp_path / "crashy")
    assert list(source.candidates(CRASHY)) == []
    assert found_in(tmp_path, symbols) != []


def test_limit_of_files(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"a{i}").touch()
    shutil.copyfile(folder / "crashy", tmp_path / "z")
    for most, count in ((5, 0), (6, 1)):
        assert len(list(SymbolPath(str(tmp_path), symbols, most).candidates(CRASHY))) == count


def test_limit_of_depth_and_odd_entries(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    shutil.copyfile(folder / "crashy", deep / "crashy")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("MODULE\n")
    assert found_in(tmp_path, symbols) == []


def test_large_stores_are_found_by_path_alone(
    symbols: SymbolStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadreckon.symbols.sources._SMALL", 3)
    for i in range(4):
        path = tmp_path / f"{i:02x}" / "abcdef.debug"
        path.parent.mkdir()
        path.touch()
    shutil.copyfile(folder / "crashy", tmp_path / "zz")
    assert found_in(tmp_path, symbols) == []
    at_home = tmp_path / BUILD_ID[:2] / (BUILD_ID[2:] + ".debug")
    at_home.parent.mkdir()
    shutil.copyfile(folder / "crashy.debug", at_home)
    assert found_in(tmp_path, symbols) == [str(at_home.relative_to(tmp_path))]


def test_a_directory_of_thousands_of_libraries_is_no_layout(
    symbols: SymbolStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadreckon.symbols.sources._SMALL", 3)
    for i in range(4):
        (tmp_path / f"lib{i}.so").touch()
    shutil.copyfile(folder / "crashy", tmp_path / "libz.so")
    assert found_in(tmp_path, symbols) == ["libz.so"]


def test_a_copy_of_the_crashed_systems_files(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    """Also debug files, whose directory is laid out like the system; nothing else is read once all is found."""
    copy = tmp_path / "opt/app"
    copy.mkdir(parents=True)
    shutil.copyfile(folder / "crashy", copy / "crashy")
    shutil.copyfile(folder / "crashy.debug", copy / "crashy.debug")
    few = SymbolPath(str(tmp_path), symbols, 0)
    assert list(few.candidates(CRASHY)) == [str(copy / "crashy.debug"), str(copy / "crashy")]
    answer = resolve(CRASHY, [few], symbols)
    assert answer.tables is not None
    assert answer.tables.info["has_lines"]
    assert len(answer.tables.rules.rva)


def test_a_file_where_the_report_says_it_was(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "crashy"
    shutil.copyfile(folder / "crashy", path)
    module = replace(CRASHY, code_file=str(path))
    assert list(SymbolPath(str(tmp_path), symbols, 0).candidates(module)) == [str(path)]
    assert list(SymbolPath(str(tmp_path.parent / "other"), symbols, 0).candidates(module)) == []


# --- Images that a report brings along --------------------------------------------------------------------------------


def test_the_image_in_the_report(symbols: SymbolStore, folder: Path) -> None:
    held = (folder / "crashy").read_bytes()
    answers = [resolve(replace(CRASHY, contents=held), [], symbols) for _ in range(2)]
    for answer in answers:
        assert answer.state == "found"
        assert answer.tables is not None
        assert len(answer.tables.rules.rva)
    assert len(list((symbols.root / "remote/reports").iterdir())) == 1
    # What a report says of itself holds for that report alone.
    assert resolve(CRASHY, [], symbols).state == "missing"


def test_an_image_of_another_build_or_of_nothing(symbols: SymbolStore, fixtures: Path) -> None:
    other = (fixtures / "linux/x86_64/static-O2").glob("crashy.debug")
    assert resolve(replace(CRASHY, contents=next(other).read_bytes()), [], symbols).state == "mismatch"
    assert resolve(replace(CRASHY, contents=b"\x7fELF" * 100), [], symbols).state == "malformed"


def test_hostile_files_do_not_stop_the_search(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "crashy").read_bytes())
    shutil.copyfile(folder / "crashy", tmp_path / "z")
    rng = random.Random(1)
    for i in range(60):
        changed = bytearray(data[: rng.randrange(1, 20_000)])
        changed[rng.randrange(64)] = rng.randrange(256)
        (tmp_path / f"m{i}").write_bytes(changed)
    struct.pack_into("<2Q", data, 32, (1 << 64) - 1, (1 << 64) - 1)
    (tmp_path / "offsets").write_bytes(data)
    (tmp_path / "sym").write_bytes(b"MODULE Linux x86_64 \xff\xff\n")
    assert "z" in found_in(tmp_path, symbols)


# --- Resolution -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [f"{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug", "crashy.debug", "deep/down/crashy"])
def test_another_build_is_refused(symbols: SymbolStore, fixtures: Path, tmp_path: Path, where: str) -> None:
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(fixtures / "linux/x86_64/pie-O0/crashy.debug", path)
    answer = resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 100)], symbols)
    assert answer.state == "mismatch"
    assert answer.tables is None
    (problem,) = answer.problems
    (other,) = symbols.tables_of(str(path))
    assert problem == f"{path}: debug id {other['debug_id']}, the module has {DEBUG_ID}"


def test_the_right_build_beside_another(symbols: SymbolStore, fixtures: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(fixtures / "linux/x86_64/pie-O0/crashy.debug", tmp_path / "crashy.debug")
    (tmp_path / "right").mkdir()
    shutil.copyfile(folder / "crashy.debug", tmp_path / "right/crashy.debug")
    answer = resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 100)], symbols)
    assert answer.state == "found"
    assert answer.tables is not None
    assert answer.tables.info["debug_id"] == DEBUG_ID
    assert answer.problems == []


def test_module_without_ids_takes_nothing(symbols: SymbolStore, folder: Path) -> None:
    """A file of the same name may be of any build."""
    module = Module(0, 0x10000, "/opt/crashy")
    answer = resolve(module, [SymbolPath(str(folder), symbols, 100)], symbols)
    assert answer.state == "mismatch"
    assert answer.tables is None


def test_module_without_ids_takes_the_file_that_was_named_for_it(symbols: SymbolStore, folder: Path) -> None:
    """As debuggers do with a core of a program that was linked without a build id."""
    places = [SymbolPath(str(folder / "crashy.debug"), symbols, 100)]
    assert resolve(Module(0, 0x10000, "/opt/crashy"), places, symbols).state == "found"
    assert resolve(Module(0, 0x10000, "/opt/another"), places, symbols).state == "missing"
    told = Module(0, 0x10000, "/opt/crashy", debug_id="0123456789ABCDEF0123456789ABCDEF0")
    assert resolve(told, places, symbols).state == "mismatch"


def test_nothing_there(symbols: SymbolStore, tmp_path: Path) -> None:
    for paths in ([], [str(tmp_path)], [str(tmp_path / "none")], ["a\0b"]):
        answer = resolve(CRASHY, [SymbolPath(path, symbols, 100) for path in paths], symbols)
        assert answer.state == "missing"
        assert answer.problems == []


def test_malformed_file_of_the_right_name(symbols: SymbolStore, tmp_path: Path) -> None:
    path = tmp_path / f"{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug"
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF" + b"\0" * 100)
    answer = resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 100)], symbols)
    assert answer.state == "malformed"
    assert str(path) in answer.problems[0]


def test_named_paths_come_before_the_store(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    symbols.add(str(folder / "crashy.debug"))
    only_store = resolve(CRASHY, [], symbols)
    assert only_store.tables is not None
    assert only_store.tables.info["has_lines"]
    assert len(only_store.tables.rules.rva) == 0
    # Lines from the store, unwind information from the path: each file gives what it has.
    shutil.copyfile(folder / "crashy", tmp_path / "crashy")
    both = resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 10)], symbols)
    assert both.tables is not None
    assert both.tables.info["has_lines"]
    assert len(both.tables.rules.rva) > 100


def test_search_ends_when_nothing_is_missing(symbols: SymbolStore, sym: Path, tmp_path: Path) -> None:
    class Unused(SymbolPath):
        def candidates(self, module: Module) -> list[str]:  # type: ignore[override]
            raise AssertionError(module)

    answer = resolve(CRASHY, [SymbolPath(str(sym), symbols, 1), Unused(str(tmp_path), symbols, 1)], symbols)
    assert answer.state == "found"


def test_file_with_neither_symbols_nor_rules(symbols: SymbolStore, tmp_path: Path) -> None:
    file = Elf()
    file.sections = [Section(".note.gnu.build-id", file.build_id(bytes.fromhex(BUILD_ID)), 7, 2)]
    (tmp_path / "bare").write_bytes(bytes(file))
    answer = resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 10)], symbols)
    assert answer.tables is None
    empty = SymFile(id=DEBUG_ID.replace("-", "").upper() + "0", name="crashy")
    (tmp_path / "bare.sym").write_bytes(bytes(empty))
    assert resolve(CRASHY, [SymbolPath(str(tmp_path), symbols, 10)], symbols).tables is None
