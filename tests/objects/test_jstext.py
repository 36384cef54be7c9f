"""Positions in scripts, against Python's own strings."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.objects.jstext import NO_NAME, ScriptText


def script(text: str) -> ScriptText:
    return ScriptText(np.frombuffer(text.encode(), np.uint8))


def offset(made: ScriptText, line: int, column: int) -> int:
    return int(made.offsets(np.array([line]), np.array([column]))[0])


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(st.text(alphabet="ab(é漢😀\n\r\u2028\u2029x ", max_size=40))
def test_offsets(text: str) -> None:
    pieces = re.split("(\r\n|\n|\r|\u2028|\u2029)", text)
    lines = [first + last for first, last in zip(pieces[::2], [*pieces[1::2], ""], strict=True)]
    made = script(text)
    assert len(made) == len(lines)
    start = 0
    for number, line in enumerate(lines):
        assert made.widths(np.array([number])).tolist() == [units(line)]
        for at in range(len(line) + 1):
            assert offset(made, number, units(line[:at])) == start + len(line[:at].encode())
        start += len(line.encode())
    assert offset(made, len(lines), 0) == -1
    assert offset(made, 0, -1) == -1
    assert offset(made, 0, units(lines[0]) + 1) == -1


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("a.render(x)", 8, 2),
        ("😀;größe(x)", 8, 3),
        ("render(x)", 6, 0),
        ("$a_1(x)", 4, 0),
        ("(x)", 0, NO_NAME),
        ("a[0](x)", 4, NO_NAME),
        ("render(x)", 5, -1),
        ("render(x)", 99, -1),
    ],
)
def test_name_before_a_call(text: str, column: int, expected: int) -> None:
    assert script(text).names_before(np.array([0]), np.array([column])).tolist() == [expected]
