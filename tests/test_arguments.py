"""What the command line understands."""

from __future__ import annotations

import pytest

from deadreckon.arguments import parser

WHOLE = parser()
COMMANDS = [
    *("process", "cluster", "lookup", "symbols", "submit", "worker", "jobs", "diff", "snapshot"),
    *("demo", "doctor", "warm", "schema"),
]


def told(asked: str | None, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parser(asked).parse_args([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_alone_has_all_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(command, capsys, command)
    assert said == told(None, capsys, command)
    assert f"deadreckon {command}" in said


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    said = told("", capsys)
    assert said == WHOLE.format_help()
    assert all(f"\n    {command} " in said for command in COMMANDS)


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser("proces").parse_args(["proces", "a.dmp"])
    assert ended.value.code == 2
    assert "invalid choice: 'proces'" in capsys.readouterr().err
