"""Spans of JSON against Python's own reader."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.kernels import jsonparts
from deadreckon.kernels.jsonparts import Member, members

KINDS: dict[type, int] = {
    str: jsonparts.STRING,
    dict: jsonparts.OBJECT,
    list: jsonparts.ARRAY,
    int: jsonparts.NUMBER,
    float: jsonparts.NUMBER,
    bool: jsonparts.BOOLEAN,
    type(None): jsonparts.NULL,
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
)


def parts(data: bytes, arrays: tuple[bytes, ...] = (b"a", b"list")) -> dict[bytes, Member]:
    return members(np.frombuffer(data, np.uint8), 0, len(data), arrays)[0]


@given(
    st.dictionaries(st.sampled_from(["a", "b", "list", "name", "ü", "", 'a"b']), VALUES, max_size=6),
    st.booleans(),
    st.sampled_from([None, 1]),
)
@settings(max_examples=300, deadline=None)
def test_members(value: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    text = np.frombuffer(b" " + data + b"]junk", np.uint8)
    found, end = members(text, 1, len(data) + 1, (b"a", b"list"))
    assert end == len(data) + 1
    assert {json.loads(b'"' + name + b'"') for name in found} == set(value)
    for name, member in found.items():
        original = value[json.loads(b'"' + name + b'"')]
        assert member.kind == KINDS[type(original)]
        assert json.loads(text[member.start : member.end].tobytes()) == original
        listed = name in (b"a", b"list") and isinstance(original, list)
        assert (member.elements is not None) == listed
        if member.elements is not None:
            assert len(member.elements) == len(original)
            for (kind, start, stop), element in zip(member.elements.tolist(), original, strict=True):
                assert kind == KINDS[type(element)]
                assert json.loads(text[start:stop].tobytes()) == element


def test_the_later_of_two_members_counts() -> None:
    found = parts(b'{"a": [1, 2], "b": 1, "a": ["x"]}')
    assert found[b"a"].elements is not None
    assert len(found[b"a"].elements) == 1


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"  ", b"[]", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b"{,}", b'{"a" 1}', b"{a:1}"),
        *(b'{"a":[1,]}', b'{"a":[1 2]}', b'{"a":[', b'{"a":[1', b'{"a":["x', b'{"a":["x\\"', b'{"a":[1}', b'{"a":nul}'),
        *(b'{"a":tru}', b'{"a":-x}', b'{"a":{}', b'{"b":[{]}}', b'{"b":"\\\\\\"}', b'{"a":1}}'[:6], b"{\"a\":'x'}"),
    ],
)
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(Malformed):
        parts(data)


def test_limits() -> None:
    with pytest.raises(Malformed, match="512 deep"):
        parts(b'{"b":' + b"[" * 600 + b"]" * 600 + b"}")
    assert parts(b'{"b":' + b"[" * 512 + b"]" * 512 + b"}")
    with pytest.raises(LimitExceeded):
        parts(b"{" + b",".join(b'"%d":0' % i for i in range(5000)) + b"}")


def test_strings_that_end_in_backslashes() -> None:
    for text in ("\\", "\\\\", '"', '\\"', '"\\', "\\" * 99, '"' * 99):
        assert json.loads(_value(json.dumps({"b": text, "a": [text]}).encode(), b"b")) == text


def _value(data: bytes, name: bytes) -> bytes:
    member = parts(data)[name]
    return data[member.start : member.end]


def attempt(data: bytes) -> tuple[dict[bytes, Member] | None, int]:
    """Return the members, or where they are said to be no JSON."""
    try:
        return parts(data), 0
    except Malformed as e:
        return None, -1 if e.offset is None else e.offset


def test_damage_ends_in_an_error_or_in_json_that_python_reads_too() -> None:
    rng = random.Random(5)
    good = json.dumps({"version": 3, "a": ["x", None, 'a"\\b'], "list": [{"b": [1.5e3]}], "m": "AAAA;CAAC"}).encode()
    read = refused = 0
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'{}[]",:\\0a \x00\xff')
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        found, where = attempt(bytes(data))
        assert 0 <= where <= len(data)
        read += found is not None
        refused += found is None
        for member in (found or {}).values():
            assert 0 < member.start < member.end <= len(data)
    assert read > 300
    assert refused > 300
