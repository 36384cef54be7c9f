"""JSON that is broken: the tolerant parser against Python's own where both can read, and by itself where not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.reports.apple import documents
from deadreckon.reports.apple.documents import _Tolerant, as_address, as_int, as_text, decode_text, parse, parse_whole

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=25,
)
CONTAINERS = st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=5), VALUES, max_size=5)


@given(CONTAINERS, st.sampled_from([None, 1]), st.booleans())
def test_whole_documents_read_as_python_reads_them(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = _Tolerant(text + " rest", 0).read()
    assert found.value == value
    assert found.problem is None
    assert text[found.end :].strip() == ""
    assert parse(text).value == value


@given(CONTAINERS, st.data())
def test_a_cut_document_keeps_its_beginning(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1))
    found = parse(text[:cut])
    assert found.problem is not None
    assert is_beginning(found.value, value)


def is_beginning(part: Any, whole: Any) -> bool:
    """Tell whether every value is the whole's, but for the last one of each container; numbers may be cut short."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return list(part) == list(whole)[: len(part)] and all(is_beginning(part[k], whole[k]) for k in part)
    if isinstance(part, list) and isinstance(whole, list):
        pairs = zip(part, whole, strict=False)
        return len(part) <= len(whole) and all(is_beginning(a, b) for a, b in pairs)
    numbers = isinstance(part, (int, float)) and isinstance(whole, (int, float))
    return part == whole or numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
        ('{"a": @ 1, "b": 2}', {"a": 1, "b": 2}),
        ('{"a": [1, 2}', {"a": [1, 2]}),
        ('{"a": {"b": 1], "c": 2}', {"a": {"b": 1, "c": 2}}),
        ('{"a": "x', {}),
        ('{"a": "line\nend"}', {"a": "line\nend"}),
        ('{"a": "\\x"}', {"a": "\\x"}),
        ('{"a": nul, "b": 2}', {"b": 2}),
        ('{"a": ' + "9" * 5000 + "}", {"a": None}),
        ("[1, 2", [1, 2]),
        ("", None),
        ("x", None),
    ],
)
def test_what_writers_and_accidents_leave(text: str, value: Any) -> None:
    assert parse(text).value == value


def test_the_problem_says_where() -> None:
    problem = parse('{"a": 1,, "b": @}').problem
    assert problem is not None
    assert problem.offset == 15
    cut = parse('{"a": {"b": 1').problem
    assert cut is not None
    assert "2 open values" in str(cut)


def test_depth_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = parse('{"a":' * 3000 + "1" + "}" * 3000)
    assert deep.problem is None
    depth, value = 0, deep.value
    while isinstance(value, dict):
        depth, value = depth + 1, value["a"]
    assert (depth, value) == (3000, 1)
    too_deep = parse("[" * 30_000)
    assert too_deep.problem is not None
    assert "levels" in str(too_deep.problem)
    with pytest.raises(LimitExceeded):
        parse("," * 2_000_001)
    monkeypatch.setattr(documents, "_MAX_TOKENS", 10)
    long = parse("[" + "1," * 100)
    assert long.problem is not None
    assert "tokens" in str(long.problem)


def test_whole_files() -> None:
    assert parse_whole(b'\xef\xbb\xbf{"a": 1}\n', "x").value == {"a": 1}
    for data in (b"", b"{}", b"7", b"nothing", b"\0" * 40):
        with pytest.raises(Malformed):
            parse_whole(data, "x")
    assert decode_text(b"a\r\nb\rc\xff", "x") == "a\nb\nc\ufffd"


def test_values_of_the_wrong_kind() -> None:
    given_values: list[Any] = [5, "5", "0x10", 5.0, True, None, "x", 1.5, 2**64, float("inf"), []]
    assert [as_int(v) for v in given_values] == [5, 5, 16, 5, *[None] * 7]
    assert as_address(-1) == 2**64 - 1
    assert as_text("\ud800a") == "?a"
    assert as_text(5) == ""
