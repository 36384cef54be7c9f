from __future__ import annotations

import itertools
import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from deadreckon.errors import SymbolError
from deadreckon.kernels.ranges import look_up
from deadreckon.model.tables import NONE, SymTable
from deadreckon.symbolicate.native import ModuleSymbols
from deadreckon.symbols import tables
from deadreckon.symbols.tablefile import TableFile, open_table
from synth.breakpad import SymFile
from synth.cfi import FrameSection, def_cfa, offset
from synth.elf import ALLOC, COMPRESSED, EXECINSTR, PT_LOAD, STRTAB, SYMTAB, Elf, Section, Segment
from synth.pe import RDATA, TEXT, looping, with_table

if TYPE_CHECKING:
    from pathlib import Path

Chain = list[tuple[str | None, str | None, int | None]]


def build(path: Path, folder: Path, **options: bool) -> tuple[TableFile, dict[str, Any]]:
    (info,) = tables.build(str(path), str(folder / "out"), **options)
    return open_table(folder / info["table"]), info


def at(table: SymTable, rva: int) -> Chain:
    """Return (function, file, line) of an address, innermost first."""
    _, found = look_up(table, np.array([rva], np.uint64))
    text = ModuleSymbols(table, "found").location
    return [(f.raw_function, f.filename, f.lineno) for f in map(text, found.tolist())]


@pytest.fixture
def folder(fixtures: Path) -> Path:
    return fixtures / "linux/x86_64"


# --- Golden values --------------------------------------------------------------------------------------------------


def test_identities(folder: Path) -> None:
    (sym,) = (folder / "pie-O2/breakpad/crashy").glob("*/*.sym")
    ids = {
        folder / "pie-O2/crashy": ("elf", "lib", "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"),
        folder / "pie-O2/crashy.debug": ("elf", "dbg", "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"),
        sym: ("breakpad", "dbg", "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"),
    }
    for path, (file_format, kind, code_id) in ids.items():
        assert tables.identify(str(path)) == [
            {
                "debug_id": "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5",
                "code_id": code_id,
                "arch": "x86_64",
                "format": file_format,
                "kind": kind,
            }
        ]


def test_small_program(folder: Path, tmp_path: Path) -> None:
    table, info = build(folder / "plain-O1/plain", tmp_path)
    assert info["debug_id"] == "5c29b8c3-33a4-5ecf-e261-82a672013e8b"
    assert info["has_lines"]
    assert info["problems"] == []
    assert (info["ranges"], info["rows"]) == (len(table.sym.range_start), len(table.rules.rva))
    expected: dict[int, Chain] = {
        0x1129: [("sail", "plain.c", 16)],
        0x112C: [("sail", "plain.c", 16)],
        0x1130: [("tack", "plain.c", 11), ("sail", "plain.c", 17)],
        0x1135: [("tack", "plain.c", 11), ("sail", "plain.c", 17)],
        0x1136: [("sail", "plain.c", 16)],
        0x1147: [("sail", "plain.c", 19)],
        0x1148: [("main", "plain.c", 21)],
        0x116A: [("main", "plain.c", 25)],
        0x1040: [("_start", None, None)],
        # Ends of sections, and data beyond them:
        0x116B: [],
        0x1174: [("_fini", None, None)],
        0x1175: [],
        0x1FFF: [],
        0x2000: [("_IO_stdin_used", None, None)],
        0x2003: [("_IO_stdin_used", None, None)],
        0x2004: [],
        0xFFFF_FFFF: [],
    }
    assert {rva: at(table.sym, rva) for rva in expected} == expected
    assert table.sym.base.tolist() == [[0x1040, 0x1062]]
    assert table.sym.entries.tolist() == [0x1000, 0x1040, 0x1070, 0x10A0, 0x10E0, 0x1120, 0x1129, 0x1148, 0x116C]


# --- Against the symbol table and the line program, as pyelftools reads them ---------------------------------------

DEBUG_FILES = ["pie-O2/crashy.debug", "pie-O0/crashy.debug", "pie-O2/libcargo.so.debug", "static-O2/crashy.debug"]


def symbols_of(path: Path) -> list[tuple[int, int, str, str]]:
    """Return (start, size, type, name) of a file's symbols."""
    with path.open("rb") as stream:
        section: Any = ELFFile(stream).get_section_by_name(".symtab")
        return [
            (s["st_value"], s["st_size"], s["st_info"]["type"], s.name)
            for s in section.iter_symbols()
            if s["st_shndx"] != "SHN_UNDEF" and s.name
        ]


@pytest.mark.parametrize("name", DEBUG_FILES)
def test_symbols(folder: Path, tmp_path: Path, name: str) -> None:
    table, _ = build(folder / name, tmp_path)
    symbols = symbols_of(folder / name)
    names: dict[int, set[str]] = {}
    for start, _, kind, symbol in symbols:
        if kind in {"STT_FUNC", "STT_NOTYPE", "STT_GNU_IFUNC"}:
            names.setdefault(start, set()).add(symbol.removesuffix(".cold"))
    checked = 0
    for start, size, kind, _ in symbols:
        if kind == "STT_FUNC" and size:
            for rva in (start, start + size - 1):
                chain = at(table.sym, rva)
                assert chain, hex(rva)
                # Of a function in two parts symbolic 13.9 names both by the symbol of the lower one.
                assert (chain[-1][0] or "").removesuffix(".cold") in names[start], hex(rva)
            checked += 1
    assert checked > 1


@pytest.mark.parametrize("name", DEBUG_FILES)
def test_lines(folder: Path, tmp_path: Path, name: str) -> None:
    table, _ = build(folder / name, tmp_path)
    checked = 0
    functions = [(s, s + size) for s, size, kind, _ in symbols_of(folder / name) if kind == "STT_FUNC"]
    with (folder / name).open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program: Any = dwarf.line_program_for_CU(unit)
            rows = [entry.state for entry in program.get_entries() if entry.state is not None]
            files = program["file_entry"]
            first = 0 if program["version"] >= 5 else 1
            for row, following in itertools.pairwise(rows):
                if row.end_sequence or following.address <= row.address or not row.line:
                    continue
                if not any(start <= row.address < end for start, end in functions):
                    continue  # Padding after a function, which its line program goes on to cover.
                function, file, line = at(table.sym, row.address)[0]
                assert (file, line) == (files[row.file - first].name.decode().rsplit("/")[-1], row.line), hex(
                    row.address
                )
                assert function
                checked += 1
    assert checked > 10


@pytest.mark.parametrize("name", DEBUG_FILES)
def test_functions_without_a_caller(folder: Path, tmp_path: Path, name: str) -> None:
    table, _ = build(folder / name, tmp_path)
    expected = {(s, s + size) for s, size, kind, n in symbols_of(folder / name) if n in tables.BASE_FUNCTIONS and size}
    covered = {rva for start, end in table.sym.base.tolist() for rva in range(start, end)}
    assert covered == {rva for start, end in expected for rva in range(start, end)}
    assert bool(covered) == ("crashy" in name)


@pytest.mark.parametrize("name", DEBUG_FILES)
def test_sections_and_data(folder: Path, tmp_path: Path, name: str) -> None:
    table, _ = build(folder / name, tmp_path)
    with (folder / name).open("rb") as stream:
        code = sorted(
            (s["sh_addr"], s["sh_addr"] + s["sh_size"]) for s in ELFFile(stream).iter_sections() if s["sh_flags"] & 4
        )
    assert [tuple(span) for span in table.sym.text.tolist()] == code
    for _, end in code:
        if not any(a == end for a, _ in code):
            assert at(table.sym, end) == [] or at(table.sym, end)[0][0] in {s[3] for s in symbols_of(folder / name)}
    data = [s for s in symbols_of(folder / name) if s[2] == "STT_OBJECT" and s[1]]
    assert data
    for start, size, _, symbol in data:
        overlapping = [s for s in data if s[0] < start + size and start < s[0] + s[1]]
        if any(a <= start < b for a, b in code) or len({(s[0], s[1]) for s in overlapping}) > 1:
            continue
        for rva in (start, start + size - 1):
            (found,) = at(table.sym, rva)
            assert found[0] in {s[3] for s in overlapping}, symbol


def test_stripped_library_has_rules_and_exports(folder: Path, tmp_path: Path) -> None:
    table, info = build(folder / "pie-O2/libcargo.so", tmp_path)
    assert not info["has_lines"]
    assert info["rows"] > 20
    assert at(table.sym, 0x1110) == [("cargo_unload", None, None)]
    assert at(table.sym, 0x1010) == []


# --- Breakpad files -------------------------------------------------------------------------------------------------


def sym_file(tmp_path: Path, file: SymFile) -> tuple[TableFile, dict[str, Any]]:
    path = tmp_path / "x.sym"
    path.write_bytes(bytes(file))
    return build(path, tmp_path)


def test_names_that_dump_syms_made_up(tmp_path: Path) -> None:
    """They must not let a stray word on a stack pass for a return address; lines under them are real."""
    file = SymFile()
    file.lines.append("FILE 0 /src/a.cc")
    names = {
        0x1000: "<unknown in app.pdb>",
        0x2000: "<.plt ELF section in app>",
        0x3000: "<name omitted>",
        0x4000: "<lambda_1>::operator()",
        0x5000: "operator<",
        0x6000: "<unknown in " + "x" * 20_000 + ">",
        0x7000: "main",
    }
    for address, name in names.items():
        file.function(address, 0x100, name)
    file.function(0x8000, 0x100, "<name omitted>", [(0x8000, 0x80, 7, 0)])
    table, _ = sym_file(tmp_path, file)
    shown = {rva: [f[0] for f in at(table.sym, rva + 8)] for rva in names}
    assert shown == {
        0x1000: [], 0x2000: [], 0x3000: [], 0x4000: ["<lambda_1>::operator()"], 0x5000: ["operator<"], 0x6000: [],
        0x7000: ["main"],
    }  # fmt: skip
    assert at(table.sym, 0x8008) == [(None, "a.cc", 7)]


def test_breakpad_rules_and_ends(tmp_path: Path) -> None:
    file = SymFile()
    file.function(0x1000, 0x100, "_start")
    file.function(0x1100, 0x100, "main")
    file.cfi(0x1000, 0x200, ".cfa: $rsp 8 + .ra: .cfa -8 + ^")
    table, info = sym_file(tmp_path, file)
    assert table.sym.base.tolist() == [[0x1000, 0x1100]]
    assert table.rules.rva.tolist() == [0x1000, 0x1200]
    assert (info["format"], info["rows"], info["has_lines"]) == ("breakpad", 2, False)


def test_names_close_to_a_base_functions(tmp_path: Path) -> None:
    file = SymFile()
    for i, name in enumerate(("_start_thread", "start", "x_start", "clone", "cloned", "_RtlUserThreadStart@8")):
        file.function(0x1000 * (i + 1), 0x100, name)
    table, _ = sym_file(tmp_path, file)
    assert [start for start, _ in table.sym.base.tolist()] == [0x4000, 0x6000]


# --- Other formats, damage ------------------------------------------------------------------------------------------


def test_without_rules(tmp_path: Path) -> None:
    path = tmp_path / "loop.exe"
    path.write_bytes(looping())
    table, info = build(path, tmp_path, rules=False)
    assert info["format"] == "pe"
    assert info["code_id"] == "5ab380774000"
    assert info["problems"] == []
    assert len(table.rules.rva) == 0


def test_rules_of_windows_images(tmp_path: Path) -> None:
    """They are our own reader's: of a chain without an end it says so, and the rest of the image has its rules."""
    path = tmp_path / "loop.exe"
    path.write_bytes(looping())
    table, info = build(path, tmp_path)
    assert info["problems"] == [
        "unwind information: UNWIND_INFO chain: at offset 0x2000, expected at most 32 records, got more"
    ]
    code = bytes.fromhex("4883ec28 90 4883c428 c3")  # sub rsp, 40; nop; add rsp, 40; ret
    function = struct.pack("<3I", TEXT, TEXT + len(code), RDATA)
    path.write_bytes(bytes(with_table(function, bytes([1, 4, 1, 0, 4, 0x42]), code)))
    table, info = build(path, tmp_path)
    assert info["problems"] == []
    assert info["rows"] == len(table.rules.rva)
    cfa = table.rules.rules[table.rules.rule[1:-1], 1:3].tolist()
    assert table.rules.rva[1:].tolist() == [TEXT + 4, TEXT + 9, TEXT + len(code)]
    assert cfa == [[7, 48], [7, 8]]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "function", "rules"),
    [
        ("symbolic/fixtures/windows/crash.pdb", "_CxxThrowException", True),
        ("symbolic/fixtures/macos/crash.dSYM/Contents/Resources/DWARF/crash", "main", False),
    ],
)
def test_pdb_and_macho(corpus: Path, tmp_path: Path, name: str, function: str, rules: bool) -> None:
    table, info = build(corpus / "native" / name, tmp_path)
    assert info["has_lines"]
    assert function in {table.sym.string(ref) for ref in table.sym.functions[:, 0].tolist()}
    assert bool(len(table.rules.rva)) == rules


def test_damaged_section_is_reported_and_costs_itself(tmp_path: Path) -> None:
    file = Elf(segments=[Segment(PT_LOAD, 0x40_0000, ".text")])
    frames = FrameSection(address=0x40_5000)
    frames.fde(frames.cie(def_cfa(7, 8) + offset(16, 1)), 0x40_1000, 0x40)
    symbols, strings = file.symbols([("main", 0x40_1000, 0x40, 2, 1)])
    file.sections = [
        Section(".text", b"\x90" * 0x40, flags=ALLOC | EXECINSTR, addr=0x40_1000),
        Section(".eh_frame", bytes(frames), addr=0x40_5000),
        Section(".debug_frame", file.compressed(b"x")[:24] + b"\xff" * 20, flags=COMPRESSED),
        Section(".symtab", symbols, SYMTAB, link=".strtab", entsize=24),
        Section(".strtab", strings, STRTAB),
    ]
    path = tmp_path / "file"
    path.write_bytes(bytes(file))
    table, info = build(path, tmp_path)
    assert [p.split(":")[0] for p in info["problems"]] == [".debug_frame"]
    assert at(table.sym, 0x1010) == [("main", None, None)]
    assert at(table.sym, 0x1040) == []
    assert table.rules.rva.tolist() == [0x1000, 0x1040]


@pytest.mark.parametrize("content", [b"", b"hello", b"MDMP\x93\xa7\0\0", b"\x7fELF"])
def test_not_a_debug_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for ask in (tables.identify, lambda p: tables.build(p, str(tmp_path / "out"))):
        with pytest.raises(SymbolError, match=str(path)):
            ask(str(path))


def test_mutated_debug_files(folder: Path, tmp_path: Path) -> None:
    """Whatever is read of a damaged file is a table that can be used."""
    data = (folder / "pie-O2/libcargo.so.debug").read_bytes()
    rng = random.Random(4)
    path = tmp_path / "mutant"
    built = 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4, 30))):
            changed[rng.randrange(len(changed))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(changed)
        try:
            found = tables.build(str(path), str(tmp_path / "out"))
        except SymbolError:
            continue
        for info in found:
            table = open_table(tmp_path / info["table"]).sym
            assert (np.diff(table.range_start.astype(np.int64)) > 0).all()
            assert ((table.range_loc < len(table.locations)) | (table.range_loc == NONE)).all()
            for rva in table.range_start[:50].tolist():
                at(table, rva)
            built += 1
    assert built > 50
