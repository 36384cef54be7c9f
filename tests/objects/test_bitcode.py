from __future__ import annotations

from uuid import UUID

import pytest

from deadreckon.errors import Malformed
from deadreckon.objects import bitcode

MAP = b"BCSymbolMap Version: 2.0\n-[App start]\n\xc3\xa9tat\r\n\n_main\n"


def test_names() -> None:
    assert bitcode.hidden_names(MAP)[:4] == ["-[App start]", "état", "", "_main"]
    with pytest.raises(Malformed, match="BCSymbolMap"):
        bitcode.hidden_names(b"BCSymbolTable")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("__hidden#0_", 0), ("__hidden#314_", 314), ("__hidden#7", 7), ("__hidden#_", None), ("__hidden#1x_", None),
        ("_main", None), ("__hidden#99999999999_", None), ("__hidden#٣_", None),
    ],
)  # fmt: skip
def test_numbers(name: str, index: int | None) -> None:
    assert bitcode.hidden_index(name) == index


def test_uuid_map() -> None:
    text = b"<plist><dict>\n<key>DBGOriginalUUID</key>\n <string>C8374B6D-6E96-34D8-AE38-EFAA5FEC424F</string></dict>"
    assert bitcode.original_uuid(text) == UUID("c8374b6d-6e96-34d8-ae38-efaa5fec424f")
    assert bitcode.original_uuid(text.replace(b"-6E96", b"--6E9")) is None
    assert bitcode.original_uuid(b"") is None
