"""What sentry-native's handler for crashes leaves beside a minidump: MessagePack, the event and its breadcrumbs.

Files are named ``__sentry-event``, ``__sentry-breadcrumb1`` and ``__sentry-breadcrumb2``; the breadcrumbs are values in
a row. Specification: MessagePack's ``spec.md``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from deadreckon.reports.payload import kept

__all__ = ["MAX_BYTES", "is_packed", "unpacked"]

MAX_BYTES = 1 << 20
"""Of one file: a byte of it may become an object of sixty."""
_MAX_VALUES = 256
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


def is_packed(name: str, kind: str | None = None) -> bool:
    """Tell these files by their name or by the type that an envelope gives them."""
    return name.startswith(("__sentry-event", "__sentry-breadcrumb")) or kind in {"event.payload", "event.breadcrumbs"}


def unpacked(data: bytes | memoryview) -> list[Any]:
    """Return the values in a row of them, as far as they make sense."""
    rest = bytes(data[:MAX_BYTES])
    found: list[Any] = []
    while rest and len(found) < _MAX_VALUES:
        try:
            try:
                value, end = msgspec.msgpack.decode(rest), len(rest)
            except msgspec.DecodeError as e:
                # The decoder takes one value, and says where what follows it begins.
                match = _TRAILING.search(str(e))
                if match is None or not int(match[1]):
                    break
                end = int(match[1])
                value = msgspec.msgpack.decode(rest[:end])
            found.append(_plain(value))
        except (msgspec.DecodeError, RecursionError, ValueError, TypeError):  # TypeError: a map as a map's key
            break
        rest = rest[end:]
    return found


def _plain(value: Any) -> Any:
    return kept(msgspec.to_builtins(value, str_keys=True, builtin_types=()))
