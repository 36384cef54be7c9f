"""What the doctor says of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.adapters import doctor
from deadreckon.analysis import instruction
from deadreckon.config import Config

if TYPE_CHECKING:
    import pytest


def about_instructions() -> list[str]:
    return [line for line in doctor.report(Config()) if "instructions:" in line]


def test_a_disassembler_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction, "backend", lambda: "capstone 5")
    assert about_instructions() == ["  instructions: capstone 5"]
    monkeypatch.setattr(instruction, "backend", lambda: None)
    (line,) = about_instructions()
    assert line.startswith("! ")
    assert "deadreckon[disasm]" in line
