"""Content encodings: every one undone, bombs in each of them refused, damage told with its place."""

from __future__ import annotations

import base64
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed, MissingDependency, Unsupported
from deadreckon.wire import _libarchive, encoding
from synth.packed import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = b'{"event_id": "0"}' * 40
LIMIT = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("", bytes),
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("deflate, gzip", lambda d: gzip.compress(zlib.compress(d))),
    ("gzip", lambda d: gzip.compress(d[:10]) + gzip.compress(d[10:])),
]


@pytest.mark.parametrize(("name", "encoder"), ENCODERS)
def test_encodings_are_undone(name: str, encoder: Callable[[bytes], bytes]) -> None:
    assert encoding.decode(encoder(TEXT), name, LIMIT) == TEXT
    assert encoding.decode(memoryview(encoder(TEXT)), name, len(TEXT)) == TEXT
    with pytest.raises(LimitExceeded):
        encoding.decode(encoder(TEXT), name, len(TEXT) - 1)


def test_brotli_where_it_is_installed() -> None:
    brotli = pytest.importorskip("brotli")
    packed = brotli.compress(TEXT)
    assert encoding.decode(packed, "br", LIMIT) == TEXT
    bomb = brotli.compress(bytes(50_000_000))
    for limit, named in ((LIMIT, "max_bytes"), (1 << 30, "max_ratio")):
        with pytest.raises(LimitExceeded, match=named):
            encoding.decode(bomb, "br", limit)
    for damaged in (packed[:-3], b"not brotli at all"):
        with pytest.raises(Malformed):
            encoding.decode(damaged, "br", LIMIT)


@pytest.mark.parametrize(("name", "encoder"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_no_client_compresses_so_well(name: str, encoder: Callable[[bytes], bytes]) -> None:
    """A small bomb does not get all the room that a large body has."""
    with pytest.raises(LimitExceeded, match="max_ratio"):
        encoding.decode(encoder(bytes(encoding.GRACE_BYTES + 1)), name, 1 << 40)
    assert len(encoding.decode(encoder(bytes(encoding.GRACE_BYTES)), name, 1 << 40)) == encoding.GRACE_BYTES


def test_brotli_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    with pytest.raises(MissingDependency, match=r"deadreckon\[brotli\]"):
        encoding.decode(b"x", "br", LIMIT)


@pytest.mark.skipif(not _libarchive.available(), reason="no libarchive")
def test_zstd() -> None:
    packed = zstd(TEXT)
    assert encoding.decode(packed, "zstd", LIMIT) == TEXT
    assert encoding.recognised(packed, LIMIT) == TEXT
    with pytest.raises(LimitExceeded):
        encoding.decode(packed, "zstd", 10)
    with pytest.raises(Malformed):
        encoding.decode(b"x" * 40, "zstd", LIMIT)


@pytest.mark.parametrize(
    "bomb",
    [
        ("gzip", gzip.compress(bytes(64 << 20))),
        ("deflate", zlib.compress(bytes(64 << 20))),
        ("deflate", raw_deflate(bytes(64 << 20))),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(64 << 20)))),
        ("gzip", gzip.compress(b"", mtime=0) * 3000),
    ],
    ids=["gzip", "zlib", "deflate", "twice", "members"],
)
def test_bombs(bomb: tuple[str, bytes]) -> None:
    with pytest.raises((LimitExceeded, Malformed)):
        encoding.decode(bomb[1], bomb[0], LIMIT)


def test_too_many_and_unknown_ones() -> None:
    with pytest.raises(LimitExceeded, match="max_layers"):
        encoding.decode(b"x", "gzip," * 4, LIMIT)
    with pytest.raises(Unsupported, match="'compress'"):
        encoding.decode(b"x", "compress", LIMIT)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("gzip", b"", "the end of the stream"),
        ("gzip", b"plain text", "expected gzip"),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-4], "the end of the stream"),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"and more", "nothing after it, got 8 bytes"),
        ("deflate", zlib.compress(TEXT) + b"x", "expected"),
        ("deflate", zlib.compress(TEXT)[:20], "expected"),
    ],
)
def test_damage(name: str, data: bytes, what: str) -> None:
    with pytest.raises(Malformed, match=what):
        encoding.decode(data, name, LIMIT)


@given(st.binary(max_size=300), st.integers(0, 9))
def test_zlib_in_base64_is_recognised(data: bytes, level: int) -> None:
    packed = base64.b64encode(zlib.compress(data, level))
    assert encoding.is_base64_zlib(packed[:64])
    assert encoding.base64_zlib(packed, LIMIT) == data
    unpadded = packed.rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")
    assert encoding.base64_zlib(unpadded, LIMIT) == data
    lines = b"\n".join(packed[i : i + 19] for i in range(0, len(packed), 19)) + b"\n"
    assert encoding.recognised(lines, LIMIT) == data
    assert encoding.recognised(zlib.compress(data, level), LIMIT) == data


@given(st.binary(max_size=300))
def test_what_is_recognised_begins_as_it_does(data: bytes) -> None:
    for packed in (zlib.compress(data), base64.b64encode(zlib.compress(data))):
        found = encoding.beginning(packed[:200])
        assert data.startswith(found)
        assert found == data or len(packed) > 200


@pytest.mark.parametrize("text", [b"", b"{}", b"eJwrong but no base64!", b"event", b"eJ", b"MDMP", b"x\x9d", b"eJyZ"])
def test_what_is_not(text: bytes) -> None:
    assert encoding.beginning(text) == b""
    assert not encoding.is_base64_zlib(text) or text == b"eJyZ"


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer(data: bytes) -> None:
    for name in ("gzip", "deflate", "identity"):
        try:
            assert len(encoding.decode(data, name, 1000)) <= 1000
        except (Malformed, LimitExceeded):
            pass
    for prefix in (b"\x1f\x8b\x08", b"x\x9c", b"eJx"):
        try:
            encoding.recognised(prefix + data, 1000)
        except (Malformed, LimitExceeded):
            pass


def test_base64_bomb_and_damage() -> None:
    with pytest.raises(LimitExceeded):
        encoding.base64_zlib(base64.b64encode(zlib.compress(bytes(64 << 20))), LIMIT)
    with pytest.raises(LimitExceeded):
        encoding.base64_zlib(b"eJwA" * LIMIT, LIMIT)
    with pytest.raises(Malformed, match="base64"):
        encoding.base64_zlib(b"eJwA*", LIMIT)
