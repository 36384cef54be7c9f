"""Content encodings of HTTP, undone within bounds: what a client posted, as what it wrote.

Sources: RFC 9110 8.4 (gzip, deflate, and several in a row), RFC 1950 to 1952, RFC 8878 (zstd), RFC 7932 (br), and the
wrapper of Sentry's store endpoint: zlib in base64. ``deflate`` means zlib's format, and raw deflate, which many clients
sent for it. zstd needs libarchive, br the package brotli; neither is needed by the clients there are.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from typing import TYPE_CHECKING

from deadreckon.config import ArchiveLimits
from deadreckon.errors import LimitExceeded, Malformed, MissingDependency, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Diagnostic

__all__ = ["base64_zlib", "beginning", "decode", "is_base64_zlib", "is_zlib", "recognised"]

MAX_LAYERS = 3
"""Encodings around one another; nobody sends two."""
MAX_RATIO = 200
"""Bytes out for one that was sent, beyond GRACE_BYTES: events have 5, dumps that are mostly zeros 100."""
GRACE_BYTES = 32 << 20

_BLOCK = 1 << 20
_BEGINNING = 256 << 10
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_BASE64_ZLIB = re.compile(rb"\s*e(?:A[EFGH]|F[4567]|J[wxyz]|N[opqr])[A-Za-z0-9+/_-]")
"""The bytes of ``_ZLIB`` in base64."""
_ALPHABET = bytes.maketrans(b"-_", b"+/")
_BASE64_ODD = re.compile(rb"[^A-Za-z0-9+/=_\s-]")


def decode(data: bytes | memoryview, encoding: str, max_bytes: int) -> bytes:
    """Undo a ``Content-Encoding`` header's encodings, the last one first.

    Raises LimitExceeded beyond ``max_bytes`` out or MAX_LAYERS, Malformed where the data is not of the encoding, ends
    early or goes on, Unsupported for an encoding that is none, MissingDependency for one that needs a package.
    """
    layers = [name for part in encoding.lower().split(",") if (name := part.strip())]
    if len(layers) > MAX_LAYERS:
        raise LimitExceeded("encoding.max_layers", MAX_LAYERS, len(layers), "Content-Encoding")
    for name in reversed(layers):
        undo = _ENCODINGS.get(name)
        if undo is None:
            raise Unsupported(f"content encoding {name[:32]!r} is not known")
        data = undo(data, max_bytes)
    if len(data) > max_bytes:
        raise LimitExceeded("encoding.max_bytes", max_bytes, len(data), "body")
    return bytes(data)


def recognised(data: bytes | memoryview, max_bytes: int) -> bytes:
    """Undo what a body's own first bytes tell: gzip, zlib, zstd, or zlib in base64; anything else is returned as it is.

    Raises as ``decode`` does.
    """
    head = bytes(data[:64])
    if head[:3] == b"\x1f\x8b\x08":
        return _gzip(data, max_bytes)
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return _zstd(data, max_bytes)
    if is_zlib(head):
        return _deflate(data, max_bytes)
    return base64_zlib(data, max_bytes) if is_base64_zlib(head) else bytes(data)


def is_zlib(head: bytes) -> bool:
    """Tell whether bytes begin as zlib's do, at any of its levels."""
    return _ZLIB.match(head) is not None


def is_base64_zlib(head: bytes) -> bool:
    """Tell whether bytes begin as zlib's do in base64, and go on so."""
    return _BASE64_ZLIB.match(head) is not None and _BASE64_ODD.search(head) is None


def beginning(head: bytes) -> bytes:
    """Return the beginning of what is in zlib, or in zlib in base64, of a body's own; nothing for other bodies."""
    if is_base64_zlib(head[:64]):
        whole = b"".join(head.split()).rstrip(b"=").translate(_ALPHABET)
        try:
            head = base64.b64decode(whole[: len(whole) // 4 * 4], validate=True)
        except binascii.Error:
            return b""
    if not is_zlib(head):
        return b""
    try:
        return zlib.decompressobj().decompress(head, _BEGINNING)
    except zlib.error:
        return b""


def base64_zlib(data: bytes | memoryview, max_bytes: int) -> bytes:
    """Undo zlib in base64, of either alphabet, padded or not. Raises LimitExceeded, Malformed."""
    if len(data) > 2 * max_bytes:
        raise LimitExceeded("encoding.max_bytes", max_bytes, len(data), "body")
    told = b"".join(bytes(data).split()).rstrip(b"=").translate(_ALPHABET)
    try:
        inner = base64.b64decode(told + b"=" * (-len(told) % 4), validate=True)
    except binascii.Error as e:
        raise Malformed("body", expected="zlib in base64", got=str(e)) from e
    return _deflate(inner, max_bytes)


def _gzip(data: bytes | memoryview, max_bytes: int) -> bytes:
    return _inflate(data, zlib.MAX_WBITS | 16, max_bytes, "gzip")


def _deflate(data: bytes | memoryview, max_bytes: int) -> bytes:
    if is_zlib(bytes(data[:2])):
        try:
            return _inflate(data, zlib.MAX_WBITS, max_bytes, "deflate")
        except Malformed:
            pass  # Raw deflate may begin with these two bytes as well.
    return _inflate(data, -zlib.MAX_WBITS, max_bytes, "deflate")


def _inflate(data: bytes | memoryview, window: int, max_bytes: int, name: str) -> bytes:
    """Inflate, also several gzip members in a row (RFC 1952 2.2)."""
    found: list[bytes] = []
    total = 0
    rest: bytes | memoryview = data
    while True:
        state = zlib.decompressobj(window)
        while not state.eof:
            try:
                block = state.decompress(rest, min(_BLOCK, max_bytes - total + 1))
            except zlib.error as e:
                raise Malformed(f"{name} body", offset=len(data) - len(rest), expected=name, got=str(e)) from e
            total = _counted(total + len(block), len(data), max_bytes, name)
            found.append(block)
            rest = state.unconsumed_tail
            if not block and not rest and not state.eof:
                raise Malformed(f"{name} body", offset=len(data), expected="the end of the stream", got="its end")
        rest = state.unused_data
        if not rest:
            return b"".join(found)
        if name != "gzip" or len(found) > 1024 or not rest.startswith(b"\x1f\x8b"):
            offset = len(data) - len(rest)
            raise Malformed(f"{name} body", offset=offset, expected="nothing after it", got=f"{len(rest)} bytes")


def _counted(total: int, sent: int, max_bytes: int, name: str) -> int:
    """Return how many bytes have come out. Raises LimitExceeded where there are too many of them."""
    if total > max_bytes:
        raise LimitExceeded("encoding.max_bytes", max_bytes, what=f"{name} body")
    if total > GRACE_BYTES and total > MAX_RATIO * sent:
        raise LimitExceeded("encoding.max_ratio", MAX_RATIO, total // max(sent, 1), f"{name} body")
    return total


def _zstd(data: bytes | memoryview, max_bytes: int) -> bytes:
    from deadreckon.wire import archive  # noqa: PLC0415  (loading the library takes a while)

    if bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise Malformed("zstd body", offset=0, expected="zstd", got=repr(bytes(data[:4])))
    # One stream, and no look into what may be an archive itself.
    limits = ArchiveLimits(max_entries=1, max_entry_bytes=max_bytes, max_total_bytes=max_bytes, max_depth=1)
    problems: list[Diagnostic] = []
    found = b"".join(bytes(m.data) for m in archive.unpack(data, limits, name="body.zst", problems=problems))
    for problem in problems:
        if problem.code == "archive_limit":
            raise LimitExceeded("encoding.max_bytes", max_bytes, what="zstd body")
        raise Malformed("zstd body", expected="zstd", got=problem.message)
    return found


def _brotli(data: bytes | memoryview, max_bytes: int) -> bytes:
    try:
        import brotli  # noqa: PLC0415  (an extra)
    except ImportError as e:
        raise MissingDependency("brotli", "pip install 'deadreckon[brotli]' to read bodies in this encoding") from e
    state = brotli.Decompressor()
    found: list[bytes] = []
    total = 0
    rest = bytes(data)
    try:
        while not state.is_finished():
            block = state.process(rest, output_buffer_limit=min(_BLOCK, max_bytes - total + 1))
            total = _counted(total + len(block), len(data), max_bytes, "br")
            found.append(block)
            rest = b""
            if not block and state.can_accept_more_data():
                break
    except brotli.error as e:
        raise Malformed("br body", expected="brotli", got=str(e)) from e
    if not state.is_finished():
        raise Malformed("br body", offset=len(data), expected="the end of the stream", got="its end")
    return b"".join(found)


def _same(data: bytes | memoryview, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise LimitExceeded("encoding.max_bytes", max_bytes, len(data), "body")
    return bytes(data)


_ENCODINGS: dict[str, Callable[[bytes | memoryview, int], bytes]] = {
    "identity": _same,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
    "br": _brotli,
}
