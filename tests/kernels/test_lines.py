"""Where lines begin, against Python's own splitting."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deadreckon.kernels.lines import in_strings, in_text
from oracle.sourcemap import LINE_BREAK

if TYPE_CHECKING:
    from numpy.typing import NDArray


def in_string(data: bytes, start: int, end: int) -> NDArray[np.uint32]:
    return in_strings(np.frombuffer(data, np.uint8), np.array([[start, end]], np.uint32))[1]


TEXTS = st.text(alphabet=st.sampled_from('ab\n\r\u2028\u2029\u2027â\\"\x00é🔥'), max_size=40)


@given(TEXTS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_line_starts(text: str, ascii_only: bool) -> None:
    data = b"xyz" + json.dumps(text, ensure_ascii=ascii_only).encode() + b"\\n"
    found = in_string(data, 3, len(data) - 2).tolist()
    lines = [json.loads(b'"' + data[a:b] + b'"') for a, b in pairwise(found)]
    assert "".join(lines) == text
    assert [LINE_BREAK.sub("", line) for line in lines] == LINE_BREAK.split(text)


def test_line_starts_of_escapes_of_all_spellings() -> None:
    data = b'"a\\u000ab\\u000D\\u000Ac\\u000d\\nd\\r\\u000Ae\\u2028f\\\\nf\\u002028g\\"'
    found = in_string(data, 0, len(data)).tolist()
    lines = [data[a:b] for a, b in pairwise(found)]
    assert [line[:1] for line in lines] == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_lines_of_many_strings() -> None:
    """One that is not there has no line, an empty one has one; more lines than were reckoned with are all found."""
    data = b'"a\\nb" "" "' + b"\\n" * 1000 + b'"'
    strings = np.array([[0, 6], [0, 0], [7, 9], [10, len(data)]], np.uint32)
    first, starts = in_strings(np.frombuffer(data, np.uint8), strings)
    assert first.tolist() == [0, 3, 3, 5, 1007]
    assert starts[:5].tolist() == [1, 4, 5, 8, 8]
    assert starts[5:].tolist() == [*range(11, 2012, 2), 2011]


@given(TEXTS)
@example("\r" * 200)
@settings(max_examples=400, deadline=None)
def test_lines_of_a_text(text: str) -> None:
    data = text.encode()
    found = in_text(np.frombuffer(data, np.uint8)).tolist()
    lines = [data[a:b].decode() for a, b in pairwise(found)]
    assert "".join(lines) == text
    assert [LINE_BREAK.sub("", line) for line in lines] == LINE_BREAK.split(text)


@pytest.mark.parametrize("end", range(1, 9))
def test_line_starts_of_cut_escapes(end: int) -> None:
    data = b'"\\u000a"\\"'[: end + 1]
    found = in_string(data, 0, end + 1)
    assert found[-1] <= end + 1
