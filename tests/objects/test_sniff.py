from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from deadreckon.objects import sniff
from synth.breakpad import SymFile
from synth.elf import Elf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (bytes(Elf()), "elf"),
        (bytes(Elf(bits=32, order=">")), "elf"),
        (bytes(Elf(kind=4)), None),
        (bytes(Elf(kind=4, order=">")), None),
        (b"\xcf\xfa\xed\xfe", "macho"),
        (b"\xfe\xed\xfa\xce", "macho"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02", "macho"),
        (b"\xca\xfe\xba\xbf\0\0\0\x1f", "macho"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34", None),  # a Java class of Java 8
        (b"\xca\xfe\xba\xbe\0\0\0\0", None),
        (b"MZ\x90\0", "pe"),
        (b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", "pdb"),
        (b"Microsoft C/C++ program database 2.00\r\n", None),
        (b"BSJB\1\0\1\0", "portablepdb"),
        (bytes(SymFile()), "breakpad"),
        (b"MODULES of the moon", None),
        (b"\0asm\1\0\0\0", "wasm"),
        (b"SYSB\2\0\0\0", "sourcebundle"),
        (b'{"version":3,"file":"a.js","sources":["a"', "sourcemap"),
        (b'\xef\xbb\xbf { "version" : 3, "sections" : [', "sourcemap"),
        (b')]}\'\n{"version":3,"mappings":"', "sourcemap"),
        (b')]}\'{"version":3,"mappings":"', "sourcemap"),
        (b'{"sections":[{"map":{"version":3', "sourcemap"),
        (b'{"file":"a","mappings":"AAAA;;C\\/A', "sourcemap"),
        (b'{"mappings":""}', "sourcemap"),
        (b'{"version":3}', None),
        (b'{"version":"3","sources":["a"]', None),
        (b'{"version":31,"sources":["a"]', None),
        (b'{"mappings":"a b"}', None),
        (b'{"mappings":{"a":1},"version":4}', None),
        (b'[{"version":3,"sources":[]}]', None),
        (b'{"event_id":"1","level":"error"}', None),
        (b")]}'", None),
        (b"{", None),
        (b"MDMP\x93\xa7", None),
        (b"PK\3\4", None),
        (b"", None),
        (b"\x7fELF", "elf"),
    ],
)
def test_kinds(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind
    assert sniff(memoryview(head)) == kind


def test_fixtures(fixtures: Path) -> None:
    folder = fixtures / "linux/x86_64/pie-O2"
    for name, kind in (
        ("crashy", "elf"),
        ("crashy.debug", "elf"),
        ("dumps/bus.dmp", None),
        ("dumps/bus.truth.json", None),
    ):
        assert sniff((folder / name).read_bytes()[:64]) == kind
    for path in (folder / "breakpad").glob("*/*/*.sym"):
        assert sniff(path.read_bytes()[:64]) == "breakpad"


def test_any_bytes() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        head = rng.choice((b"", b"\x7fELF", b"\xca\xfe\xba\xbe", b"MODULE ")) + rng.randbytes(rng.randrange(70))
        sniff(head)
