"""JSON of hostile and careless clients: within bounds, and with what is no JSON read as Python reads it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.wire import jsontext
from deadreckon.wire.jsontext import decode, plain

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_json_proper(value: Any) -> None:
    assert decode(json.dumps(value).encode(), "it") == value


@given(values)
def test_plain_values_can_be_encoded(value: Any) -> None:
    msgspec.json.encode(plain(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": -Infinity, "c": 1}', {"a": None, "b": None, "c": 1}),
        (b'{"a": "\\ud800x"}', {"a": "\ufffdx"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a": "\xff\xfe"}', {"a": "\ufffd\ufffd"}),
        (b'{"a": NaN, "b": 123456789012345678901234567890}', {"a": None, "b": "123456789012345678901234567890"}),
        (b"[18446744073709551615, -9223372036854775808]", [(1 << 64) - 1, -(1 << 63)]),
    ],
)
def test_what_clients_write(text: bytes, value: Any) -> None:
    assert decode(text, "it") == value
    msgspec.json.encode(decode(text, "it"))


@pytest.mark.parametrize(
    ("text", "offset", "got"),
    [
        (b"", 0, "its end"),
        (b'{"a": ', 6, "its end"),
        (b'{"a": x}', 6, "b'x}'"),
        (b"1" * 5000, 5000, "its end"),
    ],
)
def test_what_is_no_json(text: bytes, offset: int, got: str) -> None:
    with pytest.raises(Malformed) as told:
        decode(text, "the report")
    assert (told.value.what, told.value.offset, told.value.got) == ("the report", offset, got)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"NaN", b"[NaN," * 50_000])
def test_nested_deeply(text: bytes) -> None:
    with pytest.raises((LimitExceeded, Malformed)):
        decode(text, "it")
    closed = text + b"1" + (b"]" if text[:1] == b"[" else b"}") * 100_000
    with pytest.raises((LimitExceeded, Malformed)):
        decode(closed, "it")


def test_as_deep_as_the_decoder_goes_can_be_encoded_afterwards() -> None:
    found = decode(b"[" * 800 + b"]" * 800, "it")
    assert msgspec.json.encode(plain(found, 3)) == b'[[["..."]]]'


def test_many_values() -> None:
    with pytest.raises(LimitExceeded, match=r"it: limit json\.max_values is 2000000, got 2000002"):
        decode(b"[" + b"{}," * 1_000_000 + b"{}]", "it")
    assert len(decode(b"[" + b"0," * 1_000_000 + b"0]", "it")) == 1_000_001


def test_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "MAX_BYTES", 10)
    with pytest.raises(LimitExceeded, match="max_bytes"):
        decode(b'"0123456789"', "it")


def test_plain() -> None:
    assert plain([True, 1.5, math.inf, math.nan, 1 << 64, -(1 << 63) - 1, "\udfff"]) == [
        *(True, 1.5, None, None),
        *("18446744073709551616", "-9223372036854775809", "\ufffd"),
    ]
    assert plain({"\ud800": {"b": {"c": 1}}}, 2) == {"\ufffd": {"b": "..."}}
