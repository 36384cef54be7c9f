from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId
from deadreckon.objects import pe
from synth.pe import AMD64, ARM64, CODE, DATA, RDATA, TEXT, X86, Pe, nb10, rsds

if TYPE_CHECKING:
    from pathlib import Path

GUID = bytes(range(1, 17))


def made(**options: int) -> Pe:
    """Return a file with code and a CodeView record."""
    file = Pe(**options)  # type: ignore[arg-type]
    file.sections = [(".text", TEXT, b"\x90" * 0x123, CODE), (".rdata", RDATA, bytes(range(200)), DATA)]
    file.debug(0x3000, (2, rsds(GUID, 3, b"C:\\build\\app.pdb")))
    return file


# --- Identity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "arch"),
    [(X86, Arch.X86), (AMD64, Arch.X86_64), (ARM64, Arch.ARM64), (0x1C4, Arch.ARM), (1, Arch.UNKNOWN)],
)
def test_identity(machine: int, arch: Arch) -> None:
    found = pe.identify(bytes(made(machine=machine, timestamp=0xAB12, image_size=0x5F000, base=0x1000_0000)))
    assert found == pe.PeIdentity(arch, DebugId.from_guid(GUID, 3), "0000ab125f000", "C:\\build\\app.pdb", 0x1000_0000)
    assert str(found.debug_id) == "04030201-0605-0807-090a-0b0c0d0e0f10-3"


def test_pdb_of_the_old_kind() -> None:
    """A time stamp in place of the GUID; reports read such records alike."""
    file = Pe()
    file.debug(0x3000, (1, b"COFF symbols"), (2, nb10(0x3B7D_8E1F, 2, b"old.pdb")))
    found = pe.identify(bytes(file))
    assert str(found.debug_id) == "3b7d8e1f-0000-0000-0000-000000000000-2"
    assert found.debug_file == "old.pdb"


@pytest.mark.parametrize(
    "record",
    [b"", b"RSDS", rsds(GUID, 1, b"")[:20], nb10(1, 1, b"")[:12], b"NB09" + bytes(40), rsds(bytes(16), 1, b"nil")],
)
def test_without_an_id(record: bytes) -> None:
    file = Pe()
    file.debug(0x3000, (2, record))
    assert pe.identify(bytes(file)).debug_id is None
    assert pe.identify(bytes(Pe())) == pe.PeIdentity(Arch.X86_64, None, "5ab380774000", "", 0x1_4000_0000)


def test_name_without_an_end() -> None:
    file = Pe()
    file.debug(0x3000, (2, rsds(GUID, 1, b"x" * 9000)))
    assert pe.identify(bytes(file)).debug_file == "x" * 4096


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "debug_id", "code_id", "pdb"),
    [
        (
            "symbolic/fixtures/windows/CrashWithException.exe",
            "f535c5fb-2ae8-4bb8-aa20-6c30be566c5a-1",
            "5c9e09599000",
            "CrashWithException.pdb",
        ),
        (
            "dump_syms/test_data/windows/basic32.dll",
            "34060d22-2dbb-44e5-aa72-243ce8326c2f-2",
            "5ddc1e9a6c000",
            "basic32.pdb",
        ),
        ("symbolic/fixtures/windows/hello-dwarf.exe", "None", "63ce751542000", ""),
        ("symbolic/fixtures/windows/arm64/test.exe", "None", "69fe3f7d37000", ""),
    ],
)
def test_known_files(corpus: Path, name: str, debug_id: str, code_id: str, pdb: str) -> None:
    found = pe.identify((corpus / "native" / name).read_bytes())
    assert (str(found.debug_id), found.code_id) == (debug_id, code_id)
    assert found.debug_file.endswith(pdb)


@pytest.mark.corpus
def test_agrees_with_symbolic(corpus: Path) -> None:
    import symbolic

    from deadreckon.model.ids import normalize_code_id

    seen = 0
    for path in sorted((corpus / "native").rglob("*")):
        if path.suffix in {".exe", ".dll"} and path.is_file():
            (other,) = symbolic.Archive.open(str(path)).iter_objects()
            found = pe.identify(path.read_bytes())
            assert found.code_id == normalize_code_id(other.code_id), path
            assert Arch.parse(other.arch) is found.arch, path
            nil = other.debug_id.startswith("00000000-0000-0000-0000-000000000000")
            assert found.debug_id == (None if nil else DebugId.parse(other.debug_id)), path
            seen += 1
    assert seen >= 12


# --- Sections -------------------------------------------------------------------------------------------------------


def test_bytes_by_address() -> None:
    image = pe.headers(bytes(made()))
    assert image.at(RDATA, 4) == b"\0\1\2\3"
    assert image.at(RDATA + 198, 10) == b"\xc6\xc7" + bytes(8)
    assert image.at(RDATA + 0x1FF, 10) == b"\0"
    for outside in (0, TEXT - 1, TEXT + 0x200, RDATA + 0x200, 0xFFFF_FFFF):
        assert image.at(outside, 4) == b""
    addresses = np.array([RDATA + 5, TEXT, TEXT + 0x1FF, TEXT + 0x200, 0, 0xFFFF_FFFF], np.int64)
    where, low, high = image.offsets(addresses)
    assert where.tolist() == [0x405, 0x200, 0x3FF, 0, 0, 0]
    assert low.tolist() == [0x400, 0x200, 0x200, 0, 0, 0]
    assert high.tolist() == [0x600, 0x400, 0x400, 0, 0, 0]


def test_section_that_the_file_ends_in() -> None:
    file = made()
    file.cut = 0x350
    image = pe.headers(bytes(file))
    assert image.at(RDATA, 0x1000) == bytes(range(0xB0))
    assert [c.tolist() for c in image.offsets(np.array([RDATA + 0xAF, RDATA + 0xB0]))] == [
        [0x4AF, 0],
        [0x400, 0],
        [0x4B0, 0],
    ]
    assert pe.headers(bytes(Pe())).at(TEXT, 4) == b""
    assert pe.headers(bytes(Pe())).offsets(np.array([TEXT]))[2].tolist() == [0]


def test_long_names() -> None:
    file = made()
    file.sections += [(".debug_frame", 0x5000, b"one", DATA), (".gnu_debuglink", 0x6000, b"two", DATA)]
    image = pe.headers(bytes(file))
    assert [s.name for s in image.sections] == [".text", ".rdata", ".debug", ".debug_frame", ".gnu_debuglink"]
    file.sections[-1] = ("/99999", 0x6000, b"two", DATA)
    assert pe.headers(bytes(file)).sections[-1].name == "/99999"


def test_code() -> None:
    file = made()
    file.sections += [("INIT", 0x8000, b"\x90" * 16, 0xE200_0020), ("page", 0x7000, b"\x90" * 0x250, 0x2000_0000)]
    assert pe.headers(bytes(file)).text().tolist() == [[0x1000, 0x1123], [0x7000, 0x7250], [0x8000, 0x8010]]


# --- Damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 0x3F, 0x40, 0x83, 0x84, 0x97, 0x98, 0xD0, 0x150, 0x1E0])
def test_cut_headers(size: int) -> None:
    with pytest.raises(Malformed, match="PE "):
        pe.identify(bytes(made())[:size])


def test_signature_elsewhere() -> None:
    data = bytearray(bytes(made()))
    struct.pack_into("<I", data, 0x3C, 0xFFFF_FFF0)
    with pytest.raises(Malformed, match="PE signature: at offset 0xfffffff0"):
        pe.headers(bytes(data))


def test_counts_beyond_the_file() -> None:
    data = bytearray(bytes(made()))
    struct.pack_into("<H", data, 0x86, 0xFFFF)  # NumberOfSections
    with pytest.raises(Malformed, match="PE headers"):
        pe.headers(bytes(data))
    data = bytearray(bytes(made()))
    struct.pack_into("<I", data, 0x98 + 108, 0xFFFF_FFFF)  # NumberOfRvaAndSizes
    assert len(pe.headers(bytes(data)).directories) == 16


def test_mutations() -> None:
    rng = random.Random(3)
    whole = bytes(made())
    read = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(0x3C, 0x260) if rng.random() < 0.8 else rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        del data[rng.randrange(len(data)) if rng.random() < 0.1 else len(data) :]
        try:
            image = pe.headers(bytes(data))
            pe.identify(memoryview(bytes(data)))
        except Malformed:
            continue
        read += 1
        assert len(image.at(rng.randrange(1 << 32), 64)) <= 64
        where, low, high = image.offsets(np.array([rng.randrange(1 << 14) for _ in range(50)], np.int64))
        assert ((low <= where) & (where <= high) & (high <= len(data))).all()
        text = image.text()
        assert (text[:, 0] < text[:, 1]).all()
    assert read > 1000
