"""Debug ids, code ids and architectures: every spelling and the conversions between them.

A debug id names one build of a module: a 128-bit identifier and an age (PDB files count how often they were
rewritten; elsewhere the age is 0). The canonical spelling is the lower-case UUID with dashes, followed by ``-`` and
the age in hex where the age is not 0. Sources: Breakpad ``symbol_files.md`` (33 hex digits), GNU ``ld --build-id``,
Microsoft "PDB 7.0" RSDS records, Apple ``LC_UUID``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arch", "DebugId", "code_id_from_pe", "normalize_code_id"]


class Arch(StrEnum):
    """CPU architectures, as an event spells them."""

    X86 = "x86"
    X86_64 = "x86_64"
    ARM = "arm"
    ARM64 = "arm64"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, name: str) -> Arch:
        """Return the architecture for any tool's spelling of it, UNKNOWN for one that is not ours."""
        return _ARCH_NAMES.get(name.strip().lower(), cls.UNKNOWN)

    @property
    def word_size(self) -> int:
        """Size of a stack word in bytes (8 for an unknown architecture)."""
        return 4 if self in {Arch.X86, Arch.ARM} else 8


_ARCH_NAMES = {
    spelling: arch
    for arch, spellings in {
        Arch.X86: "x86 i386 i486 i586 i686 ia32 x86_32",
        Arch.X86_64: "x86_64 x86_64h amd64 x64",
        Arch.ARM: "arm arm32 armv4t armv5 armv6 armv6m armv7 armv7a armv7em armv7f armv7k armv7m armv7s thumb thumbv7",
        Arch.ARM64: "arm64 arm64e arm64v8 arm64_32 aarch64 armv8",
    }.items()
    for spelling in spellings.split()
}

_BREAKPAD = re.compile(r"([0-9a-f]{32})([0-9a-f]{0,8})", re.ASCII)
_DASHED = re.compile(
    r"\{?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\}?(?:-([0-9a-f]{1,8}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class DebugId:
    """A module build's identifier; ``str()`` gives the canonical spelling."""

    uuid: UUID
    age: int = 0

    @classmethod
    def parse(cls, text: str) -> DebugId:
        """Read a dashed UUID (age optional), 33 or more hex digits (Breakpad), or 32 (no age).

        Raises ValueError for anything else, and for the nil identifier, which names no build.
        """
        lowered = text.strip().lower()
        match = _DASHED.fullmatch(lowered) or _BREAKPAD.fullmatch(lowered)
        if match is None:
            msg = f"not a debug id: {text[:64]!r}"
            raise ValueError(msg)
        return cls._checked(UUID(match[1]), int(match[2] or "0", 16))

    @classmethod
    def readings(cls, text: str) -> list[DebugId]:
        """Return what a person may mean by an identifier in any tool's spelling, the most likely first.

        ``parse``'s spellings, in any case, with or without dashes and braces, and GNU build ids in hex: 40 digits are
        one (SHA-1), unless the last eight are a portable PDB's age; 32 may be a UUID or one (MD5); other whole numbers
        of bytes up to 64 are one (8: lld's ``--build-id=fast``). Empty where it is none of these.
        """
        digits = normalize_code_id(text).strip("{}")
        makers: list[Callable[[], DebugId]] = [lambda: cls.parse(text), lambda: cls.parse(digits)]
        dashed = _DASHED.fullmatch(text.strip().lower())
        if not dashed and re.fullmatch(r"(?:[0-9a-f]{2}){4,64}", digits):
            build_id = bytes.fromhex(digits)
            at = 0 if len(build_id) == 20 and not digits.endswith("ffffffff") else len(makers)
            makers.insert(at, lambda: cls.from_build_id(build_id))
        found = []
        for make in makers:
            try:
                found.append(make())
            except ValueError:
                continue
        return list(dict.fromkeys(found))

    @classmethod
    def from_guid(cls, data: bytes, age: int = 0) -> DebugId:
        """Read a GUID structure (three little-endian fields, then 8 bytes), as RSDS records hold it."""
        return cls._checked(UUID(bytes_le=bytes(data[:16])), age)

    @classmethod
    def from_build_id(cls, data: bytes) -> DebugId:
        """Convert a GNU build id of any length as Breakpad does.

        The first 16 bytes, padded with zeros, are read as a GUID structure, which swaps the bytes of its first three
        fields.
        """
        return cls.from_guid(bytes(data[:16]).ljust(16, b"\0"))

    @classmethod
    def from_macho_uuid(cls, data: bytes) -> DebugId:
        """Take the 16 bytes of an ``LC_UUID`` load command as they are."""
        return cls._checked(UUID(bytes=bytes(data[:16])), 0)

    @classmethod
    def _checked(cls, uuid: UUID, age: int) -> DebugId:
        if not uuid.int:
            msg = "the nil debug id names no build"
            raise ValueError(msg)
        return cls(uuid, age)

    def __str__(self) -> str:
        return f"{self.uuid}-{self.age:x}" if self.age else str(self.uuid)

    @property
    def breakpad(self) -> str:
        """Upper-case hex without dashes, then the age: the directory name in Breakpad symbol stores."""
        return f"{self.uuid.hex.upper()}{self.age:x}"

    @property
    def build_id_prefix(self) -> str:
        """The first 16 bytes of the GNU build id this was made from, as lower-case hex."""
        return self.uuid.bytes_le.hex()


def code_id_from_pe(timestamp: int, image_size: int) -> str:
    """Return a PE file's code id: time stamp in eight upper-case hex digits, image size in lower-case hex."""
    return f"{timestamp & 0xFFFFFFFF:08X}{image_size & 0xFFFFFFFF:x}"


def normalize_code_id(text: str) -> str:
    """Return a code id without dashes and white space, lower-case; tools differ in case only."""
    return re.sub(r"[\s-]+", "", text).lower()
