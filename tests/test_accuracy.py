"""The script that counts agreement with the truth: that it can find fault, and that the page says what it counts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config
from deadreckon.model.event import Frame

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    return importlib.import_module("benchmarks.accuracy")


def told(pc: str, line: int, module: str | None = "app") -> dict[str, Any]:
    names = {"function": "f", "file": "a.c", "module": module}
    return dict.fromkeys(("inline", "tail_call", "signal_frame"), False) | names | {"pc": pc, "line": line}


def ours(pc: str, line: int, function: str = "f") -> Frame:
    return Frame(status="symbolicated", instruction_addr=pc, function=function, filename="a.c", lineno=line)


@pytest.mark.parametrize(
    ("frames", "counts"),
    [
        ([ours("0x1", 5), ours("0x2", 6)], (2, 2, 2)),
        ([ours("0x1", 5)], (1, 1, 1)),
        ([ours("0x1", 5, "g"), ours("0x2", 7)], (2, 1, 1)),
        ([ours("0x9", 5), ours("0x2", 6)], (1, 1, 1)),
        ([], (0, 0, 0)),
    ],
)
def test_what_differs_from_gdb_is_counted(accuracy: ModuleType, frames: list[Frame], counts: tuple[int, ...]) -> None:
    tally = accuracy._Tally()
    accuracy._against_gdb(tally, frames, [told("0x1", 5), told("0x2", 6), told("0x3", 0, "libc.so")], {"app"})
    found = tally.counts()
    assert (found["addresses"], found["functions"], found["lines"]) == tuple(
        (count, total) for count, total in zip(counts, (3, 2, 2), strict=True)
    )


def test_what_only_one_side_has_differs(accuracy: ModuleType) -> None:
    tally = accuracy._Tally()
    tally.add_all("frames", [1, 2, 3], [1, 9])
    assert tally.counts() == {"frames": (1, 3)}


def test_checks_are_counted(accuracy: ModuleType) -> None:
    def fails() -> None:
        raise AssertionError

    assert accuracy.agreed("cases", [fails, lambda: None, lambda: pytest.skip("not this one")]) == {"cases": (1, 2)}


def test_tables_take_their_places(accuracy: ModuleType) -> None:
    marks = accuracy.MARKS
    page = "\n".join(("# A", *marks["fixtures"], "between", marks["corpus"][0], "as it was", marks["corpus"][1]))
    row = accuracy.Row("dumps", "gdb", {"frames": (1_999, 2_000)}, "one")
    made = accuracy.with_tables(page, {"fixtures": [row]})
    assert "| dumps | gdb | frames 1,999 of 2,000 | one |" in made
    assert accuracy.with_tables(made, {"fixtures": [row]}) == made
    assert "as it was" in made
    with pytest.raises(ValueError, match="corpus"):
        accuracy.with_tables("\n".join(marks["fixtures"]), {"corpus": [row]})


def test_the_page_has_what_is_counted(accuracy: ModuleType, tmp_path: Path) -> None:
    page = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    with Engine(Config(store=str(tmp_path / "store"))) as engine:
        rows = [*accuracy.windows_crashes(engine, tmp_path)]
    assert len(rows) == 2
    for line in accuracy.table(rows).splitlines()[2:]:
        assert line in page, "python -m benchmarks.accuracy --write"
