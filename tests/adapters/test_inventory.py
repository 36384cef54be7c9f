from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from deadreckon.adapters.inventory import Problem, run
from deadreckon.cli import main
from deadreckon.config import Config

PIE = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2"
DEBUG_ID = "b5c148bc-e24f-df22-d88b-9aeb9359ccc0"


@pytest.fixture
def symbols(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``deadreckon symbols`` and return exit code, lines printed and lines of errors."""

    def command(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
        code = main(["symbols", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return command


def test_add_twice_list_show(symbols: Any) -> None:
    library = PIE / "libcargo.so.debug"
    code, first, errors = symbols("add", library, "--tag", "build=7", "--tag", "os=linux")
    assert (code, errors) == (0, [])
    assert len(first) == 1
    assert first[0].startswith(f"{DEBUG_ID} x86_64 elf: ")
    assert first[0].endswith(f"0 unwind rows {library}")
    assert symbols("add", library) == (0, [f"{first[0]} (imported before)"], [])
    code, (line,), errors = symbols("list", "--tag", "build=7")
    assert line.startswith(f"{DEBUG_ID} x86_64 elf: ")
    assert " build=7 os=linux " in line
    assert line.endswith(str(library))
    assert symbols("list", "--tag", "build=8") == (0, [], [])
    assert len(symbols("list", "--all")[1]) == 2
    code, (text,), errors = symbols("list", "--format", "json")
    entry = json.loads(text)
    assert (entry["source"], entry["tags"]) == (str(library), {"build": "7", "os": "linux"})
    assert abs(entry["added"] - time.time()) < 600
    code, shown, errors = symbols("show", "B5C148BCE24FDF22D88B9AEB9359CCC00")
    assert code == 0
    assert f"source     {library}" in shown
    assert "tags       build=7 os=linux" in shown
    assert [json.loads(t)["kind"] for t in symbols("show", DEBUG_ID, "--format", "json")[1]] == ["imported", "derived"]
    assert symbols("show", "0" * 32) == (3, [], [f"deadreckon: nothing known of {'0' * 32}"])


def test_failures_are_listed(symbols: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad\x1b[31m"
    bad.write_bytes(b"\x7fELF" + b"\0" * 60)
    for _ in range(2):
        code, lines, errors = symbols("add", tmp_path, PIE / "libcargo.so")
        assert code == 3
        assert len(lines) == len(errors) == 1
        assert "bad\\x1b[31m: " in errors[0]
    code, lines, errors = symbols("list", "--failed")
    assert (code, errors) == (0, [])
    assert len(lines) == 1
    assert lines[0].startswith("imported: ")
    assert "\\x1b" in lines[0]
    assert "\x1b" not in lines[0]
    assert symbols("add", tmp_path / "none")[0] == 3


def test_check_files(symbols: Any, store: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\x7fELF" + b"\0" * 60)
    code, lines, errors = symbols("check", PIE / "crashy.debug", tmp_path / "bad")
    assert code == 3
    assert len(lines) == len(errors) == 1
    assert symbols("list") == (0, [], [])
    assert not (store / "by-id").exists()


def test_check_and_repair_the_store(symbols: Any, store: Path) -> None:
    symbols("add", PIE / "crashy", PIE / "libcargo.so")
    assert symbols("check") == (0, [], [])
    (table,) = store.glob("by-id/**/B5*/*.table")
    table.unlink()
    for path in store.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    symbols("list")
    for extra in ([], ["--repair"], []):
        code, lines, errors = symbols("check", *extra)
        assert (code, lines) == (3, [])
        assert len(errors) == 1
        assert f"is missing; import {PIE / 'libcargo.so'} again" in errors[0]
    symbols("add", PIE / "libcargo.so")
    assert symbols("check") == (0, [], [])
    next(store.glob("index-*.sqlite")).write_bytes(b"x" * 5000)
    assert symbols("check")[0] == 3
    code, lines, errors = symbols("check", "--repair")
    assert (code, errors) == (0, [])
    assert lines[0].endswith("(repaired)")


def test_prune(symbols: Any, store: Path) -> None:
    symbols("add", PIE / "crashy", PIE / "libcargo.so")
    code, (line,), errors = symbols("prune")
    assert (code, errors) == (0, [])
    assert line.startswith("removed 0 debug files' tables (0 B) and 0 left temporary files; ")
    for path in store.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    assert symbols("prune", "--older-than", "20000")[1][0].startswith("removed 0 ")
    assert symbols("prune", "--max-bytes", "1")[1][0].startswith("removed 4 ")
    assert not list(store.rglob("*.table"))
    symbols("add", PIE / "crashy")
    assert symbols("prune", "--older-than", "0")[1][0].endswith("; 0 B remain")


def test_questions_to_a_store_that_is_not_there(symbols: Any, store: Path) -> None:
    shutil.rmtree(store, ignore_errors=True)
    assert symbols("list") == (0, [], [])
    assert symbols("show", DEBUG_ID)[0] == 3
    assert symbols("check") == (0, [], [])
    assert symbols("prune")[0] == 0
    assert not list(store.glob("*.sqlite"))


@pytest.mark.parametrize(
    "arguments",
    [[], ["add"], ["add", "x", "--tag", "novalue"], ["show"], ["prune", "--older-than", "-1"], ["prune", "x"]],
)
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["symbols", *arguments])
    assert caught.value.code == 2


def test_no_debug_file(tmp_path: Path) -> None:
    (line,) = run(Config(), action="add", paths=[str(tmp_path)])
    assert isinstance(line, Problem)
    assert line == f"{tmp_path}: no debug file in it"
