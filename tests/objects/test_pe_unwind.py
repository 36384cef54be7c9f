"""What images of all architectures have in common; records are tested in test_pe_amd64.py and test_pe_arm64.py."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.kernels._jit import JIT
from deadreckon.model.tables import NO_RULE
from deadreckon.objects import pe, pe_unwind
from oracle.frames import check, decode, rule_at
from synth.cfi import FrameSection, def_cfa, offset
from synth.pe import ARM64, CODE, DATA, EXCEPTION, TEXT, X86, Pe, looping, with_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deadreckon.model.tables import RuleTable

BASE = 0x1000_0000


def read(file: Pe | bytes) -> pe_unwind.PeRules:
    found = pe_unwind.read(bytes(file))
    check(found.rules)
    return found


@pytest.fixture(autouse=True)
def _wrapping_integers() -> Iterator[None]:
    """Without numba (NUMBA_DISABLE_JIT=1) the kernel for DWARF computes with numpy's scalars, which warn."""
    with np.errstate(over="warn" if JIT else "ignore"):
        yield


def frames(count: int, *, is_eh: bool = True, address: int = 0) -> bytes:
    section = FrameSection(is_eh=is_eh, address=BASE + address, address_size=4)
    cie = section.cie(def_cfa(4, 4) + offset(8, 1), ra=8, data=-4)
    for i in range(count):
        section.fde(cie, BASE + TEXT + 0x20 * i, 0x10)
    return bytes(section)


@pytest.mark.parametrize(
    ("sections", "functions"),
    [
        ({".eh_frame": 3}, 3),
        ({".eh_fram": 2}, 2),
        ({".debug_frame": 1}, 1),
        ({".eh_frame": 2, ".debug_frame": 5}, 5),
        ({".eh_frame": 5, ".debug_frame": 2}, 5),
        ({}, 0),
    ],
)
def test_x86_of_gnu_tools(sections: dict[str, int], functions: int) -> None:
    """In DWARF, by sections whose names are too long for their field; strip cuts them to its length."""
    file = Pe(X86, base=BASE, sections=[(".text", TEXT, b"\x90" * 0x200, CODE)])
    for i, (name, count) in enumerate(sections.items()):
        address = 0x3000 + 0x1000 * i
        file.sections.append((name, address, frames(count, is_eh=name.startswith(".eh"), address=address), DATA))
    found = read(file)
    assert found.problems == []
    assert np.count_nonzero(found.rules.rule != NO_RULE) == functions
    for i in range(functions):
        row = found.rules.rva.tolist().index(TEXT + 0x20 * i)
        assert rule_at(found.rules, row) == (("reg", 4, 4), ((8, "OFFSET", -4),), 8, False)


@pytest.mark.parametrize("machine", [0x1C4, 0x200, 0x5064])
def test_other_machines(machine: int) -> None:
    file = with_table(struct.pack("<3I", TEXT, TEXT + 16, 0x2000), bytes([1, 0, 0, 0]), bytes(64), machine=machine)
    assert len(read(file).rules.rva) == 0


def test_no_headers() -> None:
    for data in (b"", b"MZ", looping()[:0x100], b"\x7fELF" + bytes(200)):
        with pytest.raises(Malformed):
            pe_unwind.read(data)


@pytest.mark.parametrize("machine", [0x8664, ARM64])
def test_table_of_zeros(machine: int) -> None:
    """A table that tells of no function tells nothing of the others either."""
    file = with_table(bytes(240), b"", bytes(64), machine=machine)
    assert read(file).problems == []
    assert len(read(file).rules.rva) == 0
    file.directories[EXCEPTION] = (0, 24)
    assert len(read(file).rules.rva) == 0


def test_map_of_a_file(tmp_path: Path) -> None:
    """As tables are built: nothing keeps hold of the map once rules are read."""
    import mmap

    path = tmp_path / "loop.exe"
    path.write_bytes(looping())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        with memoryview(data) as view:
            found = pe_unwind.read(view)
        assert len(found.problems) == 1


@pytest.mark.corpus
def test_real_x86_of_gnu_tools(corpus: Path) -> None:
    """It has both sections; neither symbolic nor dump_syms makes unwind information of them."""
    data = (corpus / "native/dump_syms/test_data/windows/basic32-dwarf.dll").read_bytes()
    table: RuleTable = read(data).rules
    image = pe.headers(data)
    section = next(s for s in image.sections if s.name == ".eh_frame")
    truth = decode(
        image.at(section.address, section.size),
        is_eh=True,
        section_addr=image.image_base + section.address,
        address_size=4,
    )
    functions = 0
    for start in sorted(set(truth.starts)):
        row = int(np.searchsorted(table.rva, start - image.image_base, side="right")) - 1
        assert rule_at(table, row) == truth.at(start), hex(start)
        functions += truth.at(start) is not None
    assert functions > 200
