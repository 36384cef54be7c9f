"""Where PE, Mach-O and PDB files say that code and functions lie."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import Malformed
from deadreckon.objects import macho_code, pdb_code, pe_code
from synth import pe
from synth.macho import ARM64, DSYM, PURE, X86_64, Mach, fat
from synth.msf import TEXT_FLAGS, msf, omap, pdb, section_headers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# --- PE -------------------------------------------------------------------------------------------------------------


def image(
    machine: int, pdata: bytes, rdata: bytes = b"", directories: dict[int, tuple[int, int]] | None = None
) -> bytes:
    """Return a PE32+ file with .text at 0x1000, .rdata at 0x2000 and .pdata at 0x3000."""
    entries = [(0, 0)] * 16
    entries[3] = (0x3000, len(pdata))
    for number, entry in (directories or {}).items():
        entries[number] = entry
    sections = [(b".text", 0x1000, b"\xcc" * 0x400, TEXT_FLAGS), (b".rdata", 0x2000, rdata, 0x4000_0040)]
    sections.append((b".pdata", 0x3000, pdata, 0x4000_0040))
    optional = struct.pack("<H106xI", 0x20B, 16) + b"".join(struct.pack("<II", *e) for e in entries)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), 0x22) + optional
    body = b""
    at = 0x400
    for name, address, data, flags in sections:
        head += struct.pack("<8sIIIIIIHHI", name, len(data), address, len(data), at + len(body), 0, 0, 0, 0, flags)
        body += data
    return head.ljust(at, b"\0") + body


def test_x64_functions() -> None:
    """Chained entries continue the function before them; one elsewhere is a part on its own."""
    plain, chained = b"\x01\0\0\0", b"\x21\0\0\0"
    rows = [(0x1000, 0x1010, 0x2000), (0x1010, 0x1030, 0x2004), (0x1030, 0x1040, 0x2000), (0x1100, 0x1110, 0x2004)]
    found = pe_code.read(image(0x8664, b"".join(struct.pack("<III", *r) for r in rows), plain + chained))
    assert found.text.tolist() == [[0x1000, 0x1400]]
    assert found.functions.tolist() == [[0x1000, 0x1030], [0x1030, 0x1040], [0x1100, 0x1110]]
    assert not found.managed


def test_arm64_functions() -> None:
    packed = 0x20 // 4 << 2 | 1
    fragment = 0x10 // 4 << 2 | 2
    rows = [(0x1000, packed), (0x1020, fragment), (0x1040, 0x2000), (0x1200, 0x9000)]
    found = pe_code.read(image(0xAA64, b"".join(struct.pack("<II", *r) for r in rows), struct.pack("<I", 0x80 // 4)))
    assert found.functions.tolist() == [[0x1000, 0x1030], [0x1040, 0x10C0]]


def test_managed() -> None:
    assert pe_code.read(image(0x14C, b"", directories={14: (0x2000, 72)})).managed


@pytest.mark.parametrize("data", [b"", b"MZ", b"MZ".ljust(0x40, b"\0"), b"MZ".ljust(0x3C, b"\0") + b"\xff" * 4])
def test_not_a_pe(data: bytes) -> None:
    with pytest.raises(Malformed, match="PE"):
        pe_code.read(data)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12))
def test_x64_extents_against_a_list(rows: list[tuple[int, int]]) -> None:
    """Each place belongs to the function that starts last before it, if that reaches so far."""
    entries = [(0x1000 + 16 * at, 0x1000 + 16 * (at + size)) for at, size in rows if size]
    data = image(0x8664, b"".join(struct.pack("<III", *e, 0x2000) for e in entries), b"\x01\0\0\0")
    expected = {}
    for place in range(0x1000, 0x1500, 16):
        start = max((s for s, _ in entries if s <= place), default=0)
        if any(s == start and place < e for s, e in entries):
            expected[place] = start
    found = pe_code.read(data).functions.tolist()
    assert {place: start for start, end in found for place in range(start, end, 16)} == expected


# --- Mach-O ---------------------------------------------------------------------------------------------------------

BASE = 0x1_0000_0000


def mach(**changes: Any) -> Mach:
    given_ = {
        "sections": [(b"__text", BASE + 0x1000, 0x800, PURE), (b"__const", BASE + 0x2000, 0x100, 0)],
        "starts": [BASE + 0x1000, BASE + 0x1010, BASE + 0x1200],
    }
    return Mach(**{**given_, **changes})


@pytest.mark.parametrize("order", ["<", ">"])
def test_macho_64(order: str) -> None:
    (found,) = macho_code.read(bytes(mach(order=order)))
    assert found.uuid == UUID(bytes=bytes(range(1, 17)))
    assert found.text.tolist() == [[0x1000, 0x1800]]
    assert found.starts.tolist() == [0x1000, 0x1010, 0x1200]


def test_macho_32_and_dsym() -> None:
    (found,) = macho_code.read(
        bytes(mach(wide=False, base=0x1000, sections=[(b"__text", 0x1100, 0x80, PURE)], starts=None, kind=DSYM))
    )
    assert found.text.tolist() == [[0x100, 0x180]]
    assert found.starts.tolist() == []


def test_fat() -> None:
    one, other = mach(uuid=b"\1" * 16), mach(uuid=b"\2" * 16, cpu=ARM64, starts=[BASE + 0x1000])
    found = macho_code.read(fat(one, other))
    assert [str(i.uuid) for i in found] == [
        "01010101-0101-0101-0101-010101010101",
        "02020202-0202-0202-0202-020202020202",
    ]
    assert [len(i.starts) for i in found] == [3, 1]


def test_a_damaged_slice_costs_itself() -> None:
    data = bytearray(fat(mach(), mach(cpu=ARM64)))
    data[0x1000:0x1004] = b"\0\0\0\0"
    assert len(macho_code.read(bytes(data))) == 1


@pytest.mark.parametrize("data", [b"", b"\xcf\xfa\xed\xfe", b"\0" * 64])
def test_not_a_macho(data: bytes) -> None:
    with pytest.raises(Malformed, match="Mach-O"):
        macho_code.read(data)


def test_function_starts_end_where_they_make_no_sense() -> None:
    (found,) = macho_code.read(bytes(mach(starts=[BASE + 0x10, BASE + 0x1_2345_6789])))
    assert found.starts.tolist() == [0x10]


# --- PDB ------------------------------------------------------------------------------------------------------------

HEADERS = section_headers((b".text", 0x1000, 0x500, TEXT_FLAGS), (b".data", 0x2000, 0x100, 0x4000_0040))


def test_sections() -> None:
    found = pdb_code.read(pdb({5: HEADERS}))
    assert found.text.tolist() == [[0x1000, 0x1500]]
    assert found.omap is None


def test_omap() -> None:
    found = pdb_code.read(pdb({5: HEADERS, 3: omap((0x2000, 0x1000), (0x1000, 0x1100), (0x3000, 0))}))
    assert found.omap is not None
    assert found.omap.tolist() == [[0x1000, 0x1100], [0x2000, 0x1000], [0x3000, 0]]
    assert found.text.tolist() == [], "the headers may be those from before"


def test_omap_that_symbolic_applies_itself() -> None:
    assert pdb_code.read(pdb({5: HEADERS, 3: omap((0x1000, 0x1100)), 10: HEADERS})).omap is None


def test_without_the_stream() -> None:
    assert pdb_code.read(msf([b"", b"", b""])).text.tolist() == []
    assert pdb_code.read(msf([b"", b"", b"", b"short"])).text.tolist() == []


@pytest.mark.parametrize(
    ("at", "value"),
    [(32, 0), (32, 3), (32, 1 << 20), (44, 0xFFFF_FFF0), (52, 0xFFFF_FFFF), (52, 1 << 20)],
    ids=["block 0", "block 3", "block 1 MiB", "directory size", "root", "root past the end"],
)
def test_damaged_superblocks(at: int, value: int) -> None:
    data = bytearray(pdb({5: HEADERS}))
    struct.pack_into("<I", data, at, value)
    with pytest.raises(Malformed, match="PDB"):
        pdb_code.read(bytes(data))


# --- all ------------------------------------------------------------------------------------------------------------

READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "pe": (pe_code.read, pe.looping()),
    "macho": (macho_code.read, bytes(mach())),
    "fat": (macho_code.read, fat(mach(), mach(cpu=X86_64))),
    "pdb": (pdb_code.read, pdb({5: HEADERS, 3: omap((0x1000, 0x1100), (0x2000, 0x1000))})),
}


@pytest.mark.parametrize("name", READERS)
def test_mutants(name: str) -> None:
    """Whatever the bytes, there is an answer or Malformed."""
    read, good = READERS[name]
    rng = random.Random(name)
    answers = 0
    for _ in range(400):
        data = bytearray(good[: rng.randrange(len(good) + 1)] if rng.random() < 0.3 else good)
        for _ in range(rng.randrange(1, 6)):
            if data:
                at = min(rng.randrange(len(data)), rng.choice((0x200, len(data) - 1)))
                data[at] = rng.choice((0, 0xFF, rng.randrange(256)))
        try:
            read(bytes(data))
            answers += 1
        except Malformed:
            pass
    assert answers > 20


@pytest.mark.corpus
def test_corpus(corpus: Path) -> None:
    native = corpus / "native"
    image = pe_code.read((native / "dump_syms/test_data/windows/mozwer.dll").read_bytes())
    assert len(image.functions) > 1000
    assert image.text.tolist() == [[0x1000, 0x51326]]
    assert pe_code.read((native / "symbolic/fixtures/windows/integration.dll").read_bytes()).managed
    one, other = macho_code.read((native / "framehop/fixtures/macos/arm64/fp/libmozglue-fat.dylib").read_bytes())
    assert (len(one.starts), len(other.starts)) == (1081, 1052)
    assert str(one.uuid) == "eb4499cc-fdf2-3a8a-b2ee-bfdbdfabfdc5"
    folder = native / "breakpad/windows-dump_syms"
    assert [
        len(m) if (m := pdb_code.read((folder / f"{n}.pdb").read_bytes()).omap) is not None else None
        for n in ("dump_syms_regtest", "omap_reorder_bbs", "omap_reorder_funcs")
    ] == [None, 5005, 755]
