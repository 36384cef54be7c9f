"""data: URLs."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.objects.sourcemap import from_data_url

BODY = b'{"version":3,"mappings":"+/+/","names":["\xc3\xa9~~\xff\xfe"]}'
ENCODED = base64.b64encode(BODY).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:application/json;base64,{ENCODED}",
        f"data:application/json;charset=utf-8;base64,{ENCODED}",
        f"DATA:;Base64,{ENCODED}",
        f"data:application/json; charset=utf-8 ;base64,{ENCODED}",
        f"data:application/json;base64,{ENCODED.rstrip('=')}",
        f"data:application/json;base64,{ENCODED.replace('+', '-').replace('/', '_')}",
        f"data:application/json;base64,{quote(ENCODED)}",
        f"data:application/json;base64,{ENCODED[:8]}\n {ENCODED[8:]}",
        f"data:application/json,{quote(BODY)}",
        f"data:,{quote(BODY)}",
    ],
)
def test_content(url: str) -> None:
    assert from_data_url(url, 1000) == BODY


@pytest.mark.parametrize(
    "url",
    ["", "data:", "data", "http://a", "data:;base64,a", "data:;base64,€", "data:;base64,!!!!", "data:" + "x" * 99_999],
)
def test_no_data_url(url: str) -> None:
    with pytest.raises(Malformed):
        from_data_url(url, 1000)


def test_limits() -> None:
    for url in ("data:," + "x" * 1001, "data:," + "x" * 99_999, f"data:;base64,{'QUFB' * 400}"):
        with pytest.raises(LimitExceeded):
            from_data_url(url, 1000)
