"""Whose a debug file is: matched by its id alone, refused with both ids."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.model.crash import Module
from deadreckon.symbols.sources import SymbolPath, resolve, unmatched

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.symbols.store import SymbolStore

OURS = "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"
OTHERS = "5c29b8c3-33a4-5ecf-e261-82a672013e8b"
CRASHY = Module(0x1000, 0x10000, "/bin/crashy", "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81", debug_id=OURS)


@pytest.fixture
def folder(fixtures: Path) -> Path:
    return fixtures / "linux/x86_64"


def place(path: Path, store: SymbolStore) -> SymbolPath:
    return SymbolPath(str(path), store, 100)


def test_a_file_of_another_build_is_refused_with_both_ids(folder: Path) -> None:
    other = folder / "plain-O1/plain"
    with Engine() as engine:
        event = engine.process(folder / "pie-O2/dumps/bus.dmp", symbols=[str(other)])
    (found,) = [d for d in event.diagnostics or [] if d.code == "symbols_mismatch"]
    assert found.message is not None
    assert str(other) in found.message
    assert OURS in found.message
    assert OTHERS in found.message
    assert all(m.symbols != "found" for m in event.modules or [])


def test_a_file_of_the_modules_name(folder: Path, tmp_path: Path) -> None:
    """The module says so too, and it is said once."""
    copy = tmp_path / "crashy.debug"
    shutil.copy(folder / "plain-O1/plain", copy)
    with Engine() as engine:
        event = engine.process(folder / "pie-O2/dumps/bus.dmp", symbols=[str(copy)])
    (found,) = [d for d in event.diagnostics or [] if d.code == "symbols_mismatch"]
    assert found.message is not None
    assert OURS in found.message
    assert OTHERS in found.message
    states = {m.code_file: m.symbols for m in event.modules or []}
    assert [state for file, state in states.items() if (file or "").endswith("/crashy")] == ["mismatch"]


def test_what_matches_is_not_mentioned(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    right = place(folder / "pie-O2/crashy.debug", symbols)
    by_code_id = Module(0, 1, code_id=CRASHY.code_id)
    assert unmatched([right], [CRASHY]) == []
    assert unmatched([right], [by_code_id]) == []
    assert unmatched([place(folder, symbols)], [CRASHY]) == [], "a directory holds what it holds"
    (tmp_path / "notes.txt").write_text("no debug file")
    assert unmatched([place(tmp_path / "notes.txt", symbols)], [CRASHY]) == []
    (said,) = unmatched([right], [Module(0, 1, "/bin/other")])
    assert said.message is not None
    assert "other has no id" in said.message
    assert unmatched([right], []) != []
    assert unmatched([right], [Module(0, 1, "/bin/other")], [said]) == []


def test_the_module_meant_is_the_one_of_its_name(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "plain-O1/plain", tmp_path / "Tool.dbg")
    modules = [CRASHY, Module(0, 1, r"C:\bin\tool.exe", debug_file="tool.pdb", debug_id=f"{OURS}-1")]
    (said,) = unmatched([place(tmp_path / "Tool.dbg", symbols)], modules)
    assert said.where is not None
    assert (said.where["debug_id"], said.where["got"]) != (OURS, OTHERS)
    assert said.where["debug_id"] == f"{OURS}-1"


def test_without_a_build_id(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    """Breakpad then makes an id from the first page of code; a directory finds the file by it."""
    copy = tmp_path / "files" / "anything"
    copy.parent.mkdir()
    data = bytearray((folder / "plain-O1/plain").read_bytes())
    at = data.index(b"GNU\0" + bytes.fromhex("c3b8295ca433cf5ee26182a672013e8b"))
    data[at - 4] = 99  # The note is of another type then.
    copy.write_bytes(data)
    (info,) = symbols.identify(str(copy))
    assert info["debug_id"] not in {None, OTHERS}
    module = Module(0, 1, "/bin/plain", debug_id=info["debug_id"])
    assert resolve(module, [place(copy.parent, symbols)], symbols).state == "found"
    assert resolve(CRASHY, [place(copy.parent, symbols)], symbols).state == "missing"


def test_split_debug_information_is_found_by_its_build_id(symbols: SymbolStore, folder: Path, tmp_path: Path) -> None:
    """What .gnu_debuglink names may have any name, and needs no checksum: the build id says whose it is."""
    tool = shutil.which("objcopy")
    if tool is None:
        pytest.skip("no objcopy")
    plain = folder / "plain-O1/plain"
    stripped, debug = tmp_path / "stripped", tmp_path / "usr/lib/debug/some.debug"
    debug.parent.mkdir(parents=True)
    subprocess.run([tool, "--only-keep-debug", plain, debug], check=True)
    subprocess.run([tool, "--strip-all", f"--add-gnu-debuglink={debug}", plain, stripped], check=True)
    debug.write_bytes(debug.read_bytes() + b"\0")  # and the checksum no longer fits
    module = Module(0, 1, "/bin/plain", debug_id=OTHERS)
    alone = resolve(module, [place(stripped, symbols)], symbols)
    assert alone.tables is not None
    assert not alone.tables.info["has_lines"]
    both = resolve(module, [place(tmp_path, symbols)], symbols)
    assert both.tables is not None
    assert both.tables.info["has_lines"]
    assert len(both.tables.rules.rva), "from the program, whose debug file has none"


@pytest.mark.corpus
def test_a_dsym_given_as_a_directory(corpus: Path, symbols: SymbolStore) -> None:
    bundle = corpus / "native/rust-breakpad/fixtures/hello_macos.dSYM"
    module = Module(0, 1, "hello_macos", debug_id="24cf2a4f-3876-3bca-bdef-7542a7a63540")
    found = resolve(module, [place(bundle, symbols)], symbols)
    assert found.state == "found"
    assert found.tables is not None
    assert found.tables.info["has_lines"]


@pytest.mark.corpus
def test_the_slice_of_the_modules_id(corpus: Path, symbols: SymbolStore) -> None:
    fat = place(corpus / "native/framehop/fixtures/macos/arm64/fp/libmozglue-fat.dylib", symbols)
    for debug_id, arch in (
        ("eb4499cc-fdf2-3a8a-b2ee-bfdbdfabfdc5", "x86_64"),
        ("311720d1-c4cb-3939-9612-9669df3b12f1", "arm64"),
    ):
        found = resolve(Module(0, 1, "libmozglue.dylib", debug_id=debug_id), [fat], symbols)
        assert found.tables is not None
        assert found.tables.info["arch"] == arch


def test_imported_tables_are_found_by_any_spelling(symbols: SymbolStore, folder: Path) -> None:
    assert symbols.add(str(folder / "pie-O2/crashy.debug")).problem is None
    assert CRASHY.code_id is not None
    for text in (OURS, OURS.upper(), OURS.replace("-", "") + "0", CRASHY.code_id, CRASHY.code_id[:32].upper()):
        assert len(symbols.imported(text)) == 1, text
    assert symbols.imported("nothing") == []
    assert symbols.imported(OTHERS) == []
