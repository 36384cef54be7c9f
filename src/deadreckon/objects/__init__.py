"""Build artifacts (what a build left): bytes to tables. No files, no network, no policy."""

from __future__ import annotations

import re

__all__ = ["sniff"]

_MACHO = {b"\xfe\xed\xfa\xce", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe"}
_JSON = {bytes([first]) for first in b"{)\xef \t\r\n"}
_FAT = {b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"}
_ET_CORE = 4
_PROGUARD = re.compile(
    rb"\s*(?:#[^\n]*\n\s*)*+(?:(?P<r8>\Z)|[\w$.\x80-\xff-]+ -> [\w$./\x80-\xff-]+:\s*(?:#[^\n]*)?(?:\n|\Z))"
)
"""Comments, then a class: ``original.name -> renamed:`` (ProGuard manual "Retrace"; R8 writes comments of its own)."""
_SOURCE_MAP = re.compile(
    rb"""(?:\xef\xbb\xbf)?(?:\)\]\}'[^{\n]*+\n?)?\s*\{.*?"(?:"""
    rb"""version"\s*:\s*3\b(?=.*"(?:mappings|sources|sourcesContent|names|sections)"\s*:\s*["\[])|"""
    rb"""(?:sources|names|sections)"\s*:\s*\[(?=.*"version"\s*:\s*3\b)|"""
    rb"""mappings"\s*:\s*"[A-Za-z0-9+/,;\\]*+(?:"|\Z))""",
    re.DOTALL,
)
"""A JSON object with a version of 3 and a list of a source map's (ECMA-426), or with mappings of nothing but VLQs."""
_R8 = (b"# compiler: R8", b"com.android.tools.r8.mapping")


def sniff(head: bytes | memoryview) -> str | None:
    """Return the kind of debug file or executable that starts with these bytes (64 or more), None for no such file.

    The texts among them need more: ProGuard mappings and source maps are told by their first 4096 bytes.

    An ELF core is a crash, not an object. A Java class file shares the fat Mach-O magic; its next word, the class
    file version, is far above any number of architectures.
    """
    start = bytes(head[:64])
    if start[:4] == b"\x7fELF":
        order = "big" if start[5:6] == b"\2" else "little"
        return None if int.from_bytes(start[16:18], order) == _ET_CORE else "elf"  # type: ignore[arg-type]
    if start[:4] in _MACHO:
        return "macho"
    if start[:4] in _FAT and 0 < int.from_bytes(start[4:8], "big") < 32:
        return "macho"
    if start[:2] == b"MZ":
        return "pe"
    if start.startswith(b"Microsoft C/C++ MSF 7.00"):
        return "pdb"
    if start[:4] == b"BSJB":
        return "portablepdb"
    if start.startswith(b"MODULE "):
        return "breakpad"
    if start[:4] == b"\0asm":
        return "wasm"
    if start[:4] == b"SYSB":
        return "sourcebundle"
    text = bytes(head[:4096])
    if text[:1] in _JSON and _SOURCE_MAP.match(text):
        return "sourcemap"
    return "proguard" if _is_proguard(text) else None


def _is_proguard(head: bytes) -> bool:
    match = _PROGUARD.match(head) if head[:1] != b"\0" else None
    return match is not None and (match["r8"] is None or any(mark in head for mark in _R8))
