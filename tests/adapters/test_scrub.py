"""What is taken out of an event, and what is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.adapters.backtrace import backtrace_report
from deadreckon.adapters.posthog import captured, exception_list
from deadreckon.adapters.rollbar import rollbar_item
from deadreckon.adapters.scrub import DEFAULT, Scrubber, is_card
from deadreckon.adapters.sentry import sentry_event
from deadreckon.config import ScrubConfig, load
from deadreckon.errors import ConfigError
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread

SECRET = "hunter2hunter2"
CARD = "4111111111111111"
MARK = "[Filtered]"


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "user_password", "passwd", "pwd", "secret", "clientSecret", "AWS_SECRET_ACCESS_KEY",
        "api_key", "X-Api-Key", "apiKey", "access_token", "auth", "Authorization", "Proxy-Authorization", "token",
        "Cookie", "Set-Cookie", "cookies", "sessionid", "PHPSESSID", "csrf_token", "csrfmiddlewaretoken",
        "credit_card", "cardNumber", "cvv", "ssn", "private_key", "credentials", "refresh_token", "jwt",
    ],
)  # fmt: skip
def test_denied_keys(key: str) -> None:
    assert DEFAULT.members({key: SECRET, "a": {key: [1, 2]}}) == {key: MARK, "a": {key: MARK}}
    assert DEFAULT.value([[key, SECRET]]) == [[key, MARK]]
    assert DEFAULT.members({key: None, "x": {key: ""}}) == {key: None, "x": {key: ""}}


def test_names_of_cookies_stay() -> None:
    assert DEFAULT.members({"cookies": {"sid": SECRET, "theme": {"a": 1}}}) == {"cookies": {"sid": MARK, "theme": MARK}}


@pytest.mark.parametrize(
    "key", ["author", "tokens", "compass", "pinned", "authenticated", "session", "keyboard", "passenger", "pass_count"]
)
def test_harmless_keys(key: str) -> None:
    assert DEFAULT.members({key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"GET /x?a=1&password={SECRET}&b=2", f"GET /x?a=1&password={MARK}&b=2"),
        (f"sessionid={SECRET}; theme=dark", f"sessionid={MARK}; theme=dark"),
        (f'{{"password": "{SECRET}", "user": "bob"}}', f'{{"password": "{MARK}", "user": "bob"}}'),
        ('{"password": "with \\" quote"}', f'{{"password": "{MARK}"}}'),
        (f"{{'api_key': '{SECRET}'}}", f"{{'api_key': '{MARK}'}}"),
        ('{"pin": 1234}', f'{{"pin": "{MARK}"}}'),
        (f"tool --token {SECRET} --verbose", f"tool --token {MARK} --verbose"),
        (f"tool --password={SECRET}", f"tool --password={MARK}"),
        (f"postgres://app:{SECRET}@db:5432/x", f"postgres://app:{MARK}@db:5432/x"),
        (f"sent Authorization: Bearer {SECRET}", f"sent Authorization: Bearer {MARK}"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
            f"-----BEGIN RSA PRIVATE KEY-----{MARK}-----END RSA PRIVATE KEY-----",
        ),
        ("card 4111 1111 1111 1111 declined", f"card {MARK} declined"),
        ("card 4111-1111-1111-1111", f"card {MARK}"),
        ("378282246310005", MARK),
        ("3782 822463 10005", MARK),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert DEFAULT.text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "no foo=bar here",
        "KeyError: 'password'",
        "http://example.com:8080/a@b",
        "4111111111111112",
        "order 41111111111111110000000",
        "x4111111111111111",
        "4111111111111111abc",
        "1795208585.664706",
        "9223372036854775807",
        "4111 1111-1111 1111",
        '{"author": "me", "count": 12}',
        "a -> b - c --flag value",
    ],
)
def test_texts_that_stay(text: str) -> None:
    assert DEFAULT.text(text) == text


@pytest.mark.parametrize(
    ("number", "card"),
    [
        ("4111111111111111", True), ("4222222222222", True), ("5555555555554444", True), ("2223003122003222", True),
        ("378282246310005", True), ("30569309025904", True), ("3530111333300000", True), ("6011111111111117", True),
        ("6240008631401148", True), ("4111111111111112", False), ("1111111111111117", False), ("0" * 16, False),
        ("411111111111111", False),
    ],
)  # fmt: skip
def test_cards(number: str, card: bool) -> None:
    """The numbers that payment services publish for tests."""
    assert is_card(number) is card
    assert DEFAULT.value(int(number)) == (MARK if card else int(number))


@given(st.from_regex(r"4[0-9]{14}", fullmatch=True))
def test_one_check_digit_of_ten_fits(digits: str) -> None:
    assert sum(is_card(digits + str(n)) for n in range(10)) == 1


def test_settings(tmp_path: Any) -> None:
    custom = Scrubber(ScrubConfig(deny=("Kunden-Nr",), allow=("csrf_token",), cards=False, mark="***"))
    told = {"kundenNr": 7, "csrf-token": "a", "other_csrf_token": "b", "n": CARD}
    assert custom.members(told) == {"kundenNr": "***", "csrf-token": "a", "other_csrf_token": "***", "n": CARD}
    file = tmp_path / "x.toml"
    file.write_text('[scrub]\ndeny = ["email"]\ncards = false\n')
    assert load(file, {}).scrub == ScrubConfig(deny=("email",), cards=False)
    with pytest.raises(ConfigError, match=r"did you mean scrub\.cards"):
        load(None, {"DEADRECKON__SCRUB__CARD": "no"})


def event() -> Event:
    frame = Frame(
        status="symbolicated",
        function="f",
        filename="x.py",
        lineno=1,
        lang="python",
        context_line="password = ask()",
        locals={"password": SECRET, "note": f"card {CARD}"},
        args=[f"token={SECRET}"],
        kwargs={"api_key": SECRET},
    )
    return Event(
        schema="s",
        event_id="0" * 32,
        status="ok",
        source=Source(format="x"),
        platform="python",
        message=f"password={SECRET}",
        exceptions=[ExceptionInfo(type="E", value=f"card {CARD}", frames=[frame], details={"data": {"pwd": SECRET}})],
        threads=[Thread(id=1, frames=[frame])],
        grouping=[f"token={SECRET}"],
        attributes={"extra": {"secret": SECRET}, "breadcrumbs": [{"data": {"authorization": SECRET}}]},
        tags={"api_key": SECRET},
        user={"id": "7", "password": SECRET},
        request={"url": f"https://x/?token={SECRET}", "headers": {"Cookie": SECRET}, "data": f'{{"pin": "{SECRET}"}}'},
    )


@pytest.mark.parametrize("export", [sentry_event, rollbar_item, backtrace_report, captured, exception_list])
def test_exports_have_no_secrets_by_default(export: Any) -> None:
    told = event()
    before = msgspec.json.encode(told)
    text = json.dumps(export(told))
    assert SECRET not in text
    assert CARD not in text
    assert MARK in text
    assert "password = ask()" in text  # A line of source code is none.
    assert msgspec.json.encode(told) == before
    assert SECRET in json.dumps(export(told, scrub=None))


def test_deep_values_go_as_a_whole() -> None:
    value: Any = SECRET
    for _ in range(500):
        value = {"a": [value]}
    assert SECRET not in json.dumps(DEFAULT.value(value))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_any_value(value: Any) -> None:
    once = DEFAULT.value(value)
    assert DEFAULT.value(once) == once


@pytest.mark.parametrize(
    "text", ["a=" * 40_000, '"a":"' * 30_000, "'a':\"" * 30_000, "--a " * 40_000, "x://" * 30_000, "4111 " * 30_000,
             "-----BEGIN PRIVATE KEY-----" * 5000, "a" * 200_000, "Bearer " * 30_000, '"password":"' + "\\" * 200_000]
)  # fmt: skip
def test_texts_that_mean_harm(text: str) -> None:
    """None of them takes more than a moment: what is looked at twice is bounded."""
    DEFAULT.text(text)
