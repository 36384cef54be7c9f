from __future__ import annotations

import io
import lzma
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.objects import elf_parts, elf_symbols
from synth.elf import ALLOC, EXECINSTR, NOBITS, PT_LOAD, STRTAB, SYMTAB, Elf, Section, Segment

FUNC, OBJECT, IFUNC = 2, 1, 10


def program(symbols: list[tuple[str, int, int, int, int]], *more: Section, elf: Elf | None = None) -> bytes:
    """Return a file with .text at 0x401000 (base 0x400000) and these symbols, .text being section 1."""
    elf = elf or Elf()
    table, strings = elf.symbols(symbols)
    elf.sections = [
        Section(".text", b"\x90" * 0x100, flags=ALLOC | EXECINSTR, addr=0x401000),
        Section(".symtab", table, SYMTAB, link=".strtab", entsize=24 if elf.bits == 64 else 16),
        Section(".strtab", strings, STRTAB),
        *more,
    ]
    elf.segments = [Segment(PT_LOAD, 0x400000, ".text")]
    return bytes(elf)


def read(data: bytes, *, functions: bool = False) -> elf_parts.ElfParts:
    return elf_parts.read(io.BytesIO(data), functions=functions)


@pytest.mark.parametrize(("bits", "order"), [(64, "<"), (64, ">"), (32, "<"), (32, ">")])
def test_functions(bits: int, order: str) -> None:
    """A size counts; without one a function ends at the next or with its section. Data and imports are none."""
    data = program(
        [
            ("sized", 0x401000, 8, FUNC, 1), ("open", 0x401020, 0, FUNC, 1), ("next", 0x401030, 4, IFUNC, 1),
            ("last", 0x401080, 0, FUNC, 1), ("data", 0x401040, 8, OBJECT, 1), ("import", 0, 0, FUNC, 0),
            ("absolute", 0x401050, 8, FUNC, 0xFFF1), ("elsewhere", 0x500000, 0, FUNC, 1),
        ],
        elf=Elf(bits=bits, order=order, machine=3 if bits == 32 else 62),
    )  # fmt: skip
    assert read(data, functions=True).functions == [
        (0x1000, 0x1008, "sized"),
        (0x1020, 0x1030, "open"),
        (0x1030, 0x1034, "next"),
        (0x1080, 0x1100, "last"),
    ]
    assert read(data).functions == []


def test_thumb_functions_have_an_even_address() -> None:
    data = program([("f", 0x401011, 8, FUNC, 1)], elf=Elf(bits=32, machine=40))
    assert read(data, functions=True).functions == [(0x1010, 0x1018, "f")]


ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=10)


@given(ranges)
def test_extents_against_a_map_of_bytes(rows: list[tuple[int, int]]) -> None:
    """The oracle colours bytes, the first symbol by address keeping its ground, the largest of those at one address."""
    symbols = sorted(((at, at + size, f"s{i}") for i, (at, size) in enumerate(rows)), key=lambda s: (s[0], s[1]))
    found = elf_symbols.extents(symbols, np.array([[0, 30]], np.uint32))
    starts = sorted({s for s, _, _ in symbols})
    expected: dict[int, int] = {}
    for start in starts:
        end = max(e for s, e, _ in symbols if s == start)
        if end == start:
            following = min((s for s in starts if s > start), default=30)
            end = min(following, 30) if start < 30 else start
        if start not in expected:
            expected |= dict.fromkeys(range(start, end), start)
    assert {a: start for start, end, _ in found for a in range(start, end)} == expected


def test_relocatable() -> None:
    """Addresses are known within the one code section there is; with several nothing is."""
    elf = Elf(kind=1)
    table, strings = elf.symbols([("f", 0, 4, FUNC, 1), ("g", 4, 0, FUNC, 1), ("h", 0, 4, FUNC, 4)])
    code = ALLOC | EXECINSTR
    elf.sections = [
        Section(".text", b"\x90" * 16, flags=code),
        Section(".symtab", table, SYMTAB, link=".strtab", entsize=24),
        Section(".strtab", strings, STRTAB),
    ]
    found = read(bytes(elf))
    assert found.relocatable
    assert found.functions == [(0, 4, "f"), (4, 16, "g")]
    assert found.notes == ["a relocatable file: its functions are at their places in its code section, without lines"]
    elf.sections.append(Section(".text", b"\x90" * 16, flags=code))
    found = read(bytes(elf))
    assert found.functions == []
    assert found.notes == ["a relocatable file: its 2 code sections get addresses when it is linked"]


def unit(version: int, kind: int) -> bytes:
    body = struct.pack("<HBB", version, kind, 8) + b"\0" * 20
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        ([Section(".debug_info.dwo", b"x")], "a split DWARF file (.dwo)"),
        ([Section(".debug_cu_index", b"x"), Section(".debug_info.dwo", b"x")], "a package of split DWARF (.dwp)"),
        ([Section(".debug_info", unit(5, 1) + unit(5, 4)), Section(".debug_addr", b"x")], "in .dwo files"),
        (
            [
                Section(".debug_info", unit(4, 0)),
                Section(".debug_abbrev", b"\1\x11\0\xb0\x42\x08"),
                Section(".debug_addr"),
            ],
            "in .dwo files",
        ),
        ([Section(".debug_info", unit(5, 1)), Section(".debug_addr", b"x")], None),
        ([Section(".debug_info", unit(5, 4))], None),
        (
            [Section(".gnu_debugaltlink", b"../dwz/x\0\xab\xcd"), Section(".debug_abbrev", b"\3\xa1\x3e")],
            "names shared with other files are in ../dwz/x (build id abcd), which is not read (dwz)",
        ),
        ([Section(".gnu_debugaltlink", b"../dwz/x\0\xab\xcd"), Section(".debug_abbrev", b"\3\x0e")], None),
    ],
    ids=["dwo", "dwp", "skeleton", "GNU skeleton", "whole unit", "no .debug_addr", "dwz", "dwz, nothing shared"],
)
def test_what_is_elsewhere(sections: list[Section], note: str | None) -> None:
    notes = read(program([], *sections)).notes
    assert len(notes) == (note is not None)
    for found in notes:
        assert note is not None
        assert note in found


def test_mini_debug_info() -> None:
    inner = program([("hidden", 0x401000, 8, FUNC, 1)])
    packed = lzma.compress(inner)
    outer = read(program([], Section(".gnu_debugdata", packed)))
    assert outer.mini == packed
    assert elf_parts.unpack_mini(packed) == inner
    assert read(program([], Section(".gnu_debugdata", packed, NOBITS))).mini is None


@pytest.mark.parametrize("data", [b"", b"xz?", lzma.compress(b"no ELF"), lzma.compress(b"\x7fELF" * 99)[:-9]])
def test_mini_debug_info_damaged(data: bytes) -> None:
    with pytest.raises(Malformed, match="gnu_debugdata"):
        elf_parts.unpack_mini(data)


def test_mini_debug_info_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_parts, "_MAX_MINI", 1 << 24)
    with pytest.raises(LimitExceeded, match="gnu_debugdata"):
        elf_parts.unpack_mini(lzma.compress(b"\x7fELF" + b"\0" * (1 << 24), preset=0))


def test_no_elf() -> None:
    with pytest.raises(Malformed, match="ELF sections"):
        read(b"\x7fELF")


def test_mutants() -> None:
    good = program(
        [("f", 0x401000, 8, FUNC, 1), ("g", 0x401010, 0, FUNC, 1)],
        Section(".gnu_debugaltlink", b"x\0\1"),
        Section(".debug_info", unit(5, 4)),
        Section(".debug_addr", b"x"),
        Section(".debug_abbrev", b"\xa1\x3e"),
    )
    rng = random.Random(3)
    answers = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.choice((0, 0xFF, rng.randrange(256)))
        try:
            answers += bool(read(bytes(data), functions=True).functions)
        except Malformed:
            pass
    assert answers > 100
