"""Builds Unreal Engine crash containers, old and new, and crash contexts; shares no layout with the reader."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

GUID = "UE4CC-Windows-0123456789ABCDEF0123456789ABCDEF_0000"


def word(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=value < 0)


def string(text: str, size: int = 260) -> bytes:
    return word(size) + text.encode().ljust(size, b"\0")


def header(size: int, count: int, name: str = GUID) -> bytes:
    return string(name) + string(f"{name}.ue4crash") + word(size) + word(count)


def container(files: Mapping[str, bytes], *, new: bool, guid: str = GUID) -> bytes:
    """Return a container before it is compressed; an old one's first header is a placeholder."""
    records = b"".join(word(i) + string(n) + word(len(d)) + d for i, (n, d) in enumerate(files.items()))
    true = header(len(records), len(files), guid)
    return b"CR1" + true + records if new else header(174, 0, "") + records + true


def compressed(files: Mapping[str, bytes], *, new: bool = False) -> bytes:
    return zlib.compress(container(files, new=new))


def context(runtime: Mapping[str, str], platform: Mapping[str, str] | None = None, extra: str = "") -> bytes:
    """Return a crash context; ``extra`` is XML that stands in RuntimeProperties."""

    def leaves(values: Mapping[str, str]) -> str:
        return "".join(f"\t\t<{k}>{escape(v)}</{k}>\r\n" for k, v in values.items())

    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<FGenericCrashContext>\r\n\t<RuntimeProperties>\r\n'
        f"{leaves(runtime)}{extra}\t</RuntimeProperties>\r\n\t<PlatformProperties>\r\n{leaves(platform or {})}"
        "\t</PlatformProperties>\r\n</FGenericCrashContext>\r\n"
    ).encode()
