"""What a crash costs in counts stays within the limits that benchmarks/gate.json sets."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FILE = Path(__file__).parent.parent / "benchmarks/gate.py"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    return importlib.import_module("benchmarks.gate")


def test_nothing_got_dearer(gate: ModuleType) -> None:
    dearer, _ = gate.judge(gate.measure(), json.loads(FILE.with_suffix(".json").read_text()))
    assert dearer == []


def test_what_is_dearer_or_cheaper_is_told(gate: ModuleType) -> None:
    limits = {"calls": 100.0, "files": 0.0, "tables": 50.0}
    assert gate.judge({"calls": 111.0, "files": 0.0, "tables": 50.0}, limits) == ([], [])
    assert gate.judge({"calls": 112.0, "files": 2.0, "tables": 30.0}, limits) == (
        ["calls: 112, was 100.0", "files: 2, was 0.0"],
        ["tables: 30, was 50"],
    )
    assert gate.judge({"new": 1.0}, limits)[0] == ["new: 1, was None"]


def test_a_call_more_is_counted(gate: ModuleType) -> None:
    def one() -> None:
        pass

    def two() -> None:
        one()

    assert gate._calls(two) == gate._calls(one) + 1


def test_what_stays_is_counted(gate: ModuleType) -> None:
    kept: list[object] = []
    # Other threads of the test's process have objects of their own.
    assert 400 <= gate._left(lambda: kept.extend([] for _ in range(500))) < 700
    assert gate._left(lambda: None) < 100


def test_a_file_opened_is_counted(gate: ModuleType) -> None:
    assert gate._opened(FILE.read_bytes) == 1
    assert gate._opened(lambda: None) == 0
