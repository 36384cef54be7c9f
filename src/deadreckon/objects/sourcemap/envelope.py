"""What is around a source map's JSON: a byte order mark, a guard against inclusion as a script, a data: URL."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from deadreckon.errors import LimitExceeded, Malformed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["content", "from_data_url"]

_BOM = b"\xef\xbb\xbf"
_GUARD = b")]}'"
_DATA = re.compile(r"data:([^,]*),", re.IGNORECASE)
_ENOUGH = 1 << 16


def content(text: NDArray[np.uint8]) -> int:
    """Return where the JSON begins: after a byte order mark and a line that starts with ``)]}'``, if they are there.

    ECMA-426 drops everything up to the first line break after such a start. Some servers put nothing between it and the
    JSON, not even that.
    """
    head = text[:8].tobytes()
    at = len(_BOM) if head.startswith(_BOM) else 0
    if not head.startswith(_GUARD, at):
        return at
    head = text[:_ENOUGH].tobytes()
    at += len(_GUARD)
    rest = head[at:].lstrip(b", \t")
    if not rest.startswith(b"{"):
        breaks = [found for found in (head.find(b"\n", at), head.find(b"\r", at)) if found >= 0]
        return min(breaks, default=len(text))
    return len(head) - len(rest)


def from_data_url(url: str, max_bytes: int) -> bytes:
    """Return what a ``data:`` URL holds (RFC 2397).

    Raises Malformed where it is none or not base64, LimitExceeded for more than ``max_bytes``.
    """
    match = _DATA.match(url, 0, _ENOUGH)
    if match is None:
        raise Malformed("data URL", expected="data:...,", got=url[:40])
    if len(url) > 4 * max_bytes + _ENOUGH:
        raise LimitExceeded("maps.max_bytes", max_bytes, len(url), "data URL")
    body = unquote_to_bytes(url[match.end() :])
    if match[1].lower().replace(" ", "").endswith(";base64"):
        # Spaces and line breaks may stand in it, padding may lack, and some write the URL-safe digits.
        body = bytes(body).translate(_URL_SAFE, b" \t\r\n\f=")
        try:
            body = base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
        except binascii.Error as e:
            raise Malformed("data URL", expected="base64", got=e) from e
    if len(body) > max_bytes:
        raise LimitExceeded("maps.max_bytes", max_bytes, len(body), "data URL")
    return body


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
