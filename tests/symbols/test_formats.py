"""Debug files of every format to tables, against what their makers say is in them."""

from __future__ import annotations

import json
import lzma
import random
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.errors import SymbolError
from deadreckon.kernels.ranges import look_up
from deadreckon.objects import proguard
from deadreckon.symbolicate.native import ModuleSymbols
from deadreckon.symbols import tables
from deadreckon.symbols.tablefile import TableFile, open_table
from synth.breakpad import SymFile
from synth.bundle import bundle
from synth.elf import ALLOC, EXECINSTR, PT_LOAD, STRTAB, SYMTAB, Elf, Section, Segment
from synth.macho import ARM64, PURE, Mach, fat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from deadreckon.model.tables import SymTable

Frames = list[tuple[str, int]]


@pytest.fixture
def build(tmp_path: Path) -> Callable[[Path | bytes], list[tuple[TableFile, dict[str, Any]]]]:
    """Give a function from a file, or its content, to its objects' tables."""

    def from_file(source: Path | bytes) -> list[tuple[TableFile, dict[str, Any]]]:
        path = tmp_path / "input" if isinstance(source, bytes) else source
        if isinstance(source, bytes):
            path.write_bytes(source)
        infos = tables.build(str(path), str(tmp_path / "out"))
        kept = {"input"} | {info["table"] for info in infos}
        assert {p.name for p in tmp_path.iterdir()} - {"store"} <= kept, "nothing else is left behind"
        return [(open_table(tmp_path / info["table"]), info) for info in infos]

    return from_file


def frames(table: SymTable, addresses: Iterable[int]) -> list[Frames]:
    """Return (raw function, line) of the frames of each address, innermost first."""
    wanted = np.array(list(addresses), np.uint64)
    first, found = look_up(table, wanted)
    text = ModuleSymbols(table, "found").location
    ends, rows = first.tolist(), [text(i) for i in found.tolist()]
    return [[(f.raw_function or "", f.lineno or 0) for f in rows[ends[i] : ends[i + 1]]] for i in range(len(wanted))]


def names(table: SymTable, addresses: Iterable[int]) -> list[str]:
    """Return the innermost function of each address, "" where there is none."""
    return [found[0][0] if found else "" for found in frames(table, addresses)]


# --- Breakpad -------------------------------------------------------------------------------------------------------


def test_a_bad_line_costs_itself(build: Any) -> None:
    file = SymFile(lines=["FILE 0 a.c"])
    file.function(0x1000, 0x20, "f", [(0x1000, 0x20, 5, 0)])
    file.lines.append("FUNC 2000")
    file.function(0x3000, 0x20, "h", [(0x3000, 0x20, 9, 0)])
    file.cfi(0x1000, 0x20, ".cfa: $rsp 8 + .ra: .cfa -8 + ^")
    ((table, info),) = build(bytes(file))
    assert info["problems"] == ["line 5: expected FUNC [m] address size parameters name, got 'FUNC 2000'"]
    assert frames(table.sym, [0x1008, 0x2000, 0x3008]) == [[("f", 5)], [], [("h", 9)]]
    assert len(table.rules.rva)


def test_a_file_without_a_function_left(build: Any) -> None:
    ((table, info),) = build(bytes(SymFile(lines=["FUNC 1000", "1000 4 44 1"])))
    assert len(table.sym.range_start) == 0
    assert len(info["problems"]) == 1


@pytest.mark.corpus
def test_both_inline_syntaxes(corpus: Path, build: Any) -> None:
    testdata = corpus / "native/breakpad/testdata"
    cases = json.loads((testdata.parent / "expected_from_unittests.json").read_text())["inline_lookup"]
    assert len(cases) == 2
    for case in cases:
        ((table, info),) = build(testdata / case["sym"])
        address = int(case["address"], 16)
        _, found = look_up(table.sym, np.array([address], np.uint64))
        at = [ModuleSymbols(table.sym, "found").location(i) for i in found.tolist()]
        expected = [(name, file, line) for name, file, line, _ in case["frames_inner_to_outer"]]
        assert [(f.function, f.filename, f.lineno) for f in at] == expected
        assert info["problems"] == []


# --- ELF ------------------------------------------------------------------------------------------------------------

FUNC, OBJECT = 2, 1


def program(symbols: list[tuple[str, int, int, int, int]], *more: Section, dynamic: bool = False) -> bytes:
    """Return a file with .text at 0x1000, data at 0x2000 and symbols of .text (1) and .data (2)."""
    elf = Elf()
    table, strings = elf.symbols(symbols)
    name = ".dynsym" if dynamic else ".symtab"
    elf.sections = [
        Section(".text", b"\x90" * 0x100, flags=ALLOC | EXECINSTR, addr=0x1000),
        Section(".data", b"\0" * 0x40, flags=ALLOC, addr=0x2000),
        Section(name, table, 11 if dynamic else SYMTAB, link=".strtab", entsize=24),
        Section(".strtab", strings, STRTAB),
        *more,
    ]
    elf.segments = [Segment(PT_LOAD, 0, ".text")]
    return bytes(elf)


def test_damaged_dwarf_leaves_the_symbol_table(build: Any) -> None:
    symbols = [("f", 0x1000, 0x10, FUNC, 1), ("g", 0x1020, 0, FUNC, 1), ("d", 0x2000, 8, OBJECT, 2)]
    garbage = [Section(".debug_info", b"\x41" * 64), Section(".debug_abbrev", b"\x41" * 8)]
    ((table, info),) = build(program(symbols, *garbage))
    (problem,) = info["problems"]
    assert "dwarf" in problem
    assert names(table.sym, [0xFFF, 0x1000, 0x100F, 0x1010, 0x1020, 0x10FF, 0x1100, 0x2007]) == [
        "", "f", "f", "", "g", "g", "", "d",
    ]  # fmt: skip
    assert table.sym.entries.tolist() == [0x1000, 0x1020]


def test_names_reach_as_far_as_their_size(build: Any) -> None:
    ((table, info),) = build(program([("f", 0x1000, 0x10, FUNC, 1), ("g", 0x1020, 0x10, FUNC, 1)]))
    assert info["problems"] == []
    assert not info["has_lines"]
    assert names(table.sym, [0x1000, 0x100F, 0x1010, 0x1020, 0x1030]) == ["f", "f", "", "g", ""]


def test_mini_debug_info(build: Any) -> None:
    """What .dynsym names stays, what is between gets its name; the unpacked file leaves no trace."""
    inner = program([("local", 0x1020, 0x10, FUNC, 1), ("exported", 0x1000, 0x10, FUNC, 1)])
    outer = program(
        [("exported", 0x1000, 0x10, FUNC, 1)], Section(".gnu_debugdata", lzma.compress(inner)), dynamic=True
    )
    ((table, info),) = build(outer)
    assert info["problems"] == []
    assert names(table.sym, [0x1000, 0x1010, 0x1020, 0x102F, 0x1030]) == ["exported", "", "local", "local", ""]


def test_mini_debug_info_damaged(build: Any) -> None:
    outer = program([("f", 0x1000, 0x10, FUNC, 1)], Section(".gnu_debugdata", b"no xz"), dynamic=True)
    ((table, info),) = build(outer)
    assert len(info["problems"]) == 1
    assert ".gnu_debugdata" in info["problems"][0]
    assert names(table.sym, [0x1000]) == ["f"]


def test_relocatable_files_have_no_lines(build: Any) -> None:
    elf = Elf(kind=1)
    table, strings = elf.symbols([("f", 0, 4, FUNC, 1), ("g", 4, 4, FUNC, 1)])
    elf.sections = [
        Section(".text", b"\x90" * 16, flags=ALLOC | EXECINSTR),
        Section(".symtab", table, SYMTAB, link=".strtab", entsize=24),
        Section(".strtab", strings, STRTAB),
    ]
    ((found, info),) = build(bytes(elf))
    assert names(found.sym, [0, 3, 4, 8]) == ["f", "f", "g", ""]
    assert (info["has_lines"], info["rows"]) == (False, 0)
    assert "relocatable" in info["problems"][0]


@pytest.mark.corpus
def test_mini_debug_info_of_real_files(corpus: Path, build: Any) -> None:
    """dump_syms reads the same functions from the packed file; Android's unwinder names the same frames."""
    linux = corpus / "native/dump_syms/test_data/linux"
    ((table, _),) = build(linux / "basic.minidebuginfo")
    text = (linux / "basic.minidebuginfo.sym").read_text()
    publics = dict(re.findall(r"^PUBLIC (\w+) 0 (.*)$", text, re.MULTILINE))
    found = {a: n for a in publics if (n := names(table.sym, [int(a, 16)])[0])}
    assert len(found) >= 13
    assert {"main", "_init", "_fini", "_start"} <= set(found.values())
    for address, name in found.items():
        plain = re.sub(r"\(.*", "", publics[address])
        assert name == plain or f"{len(plain)}{plain}" in name

    stacks = json.loads((corpus / "native/unwindstack/expected_frames.json").read_text())
    for library, folder in (("libunwindstack_test", "offset_arm"), ("mediaserver", "debug_frame_load_bias_arm")):
        ((table, _),) = build(corpus / "native/unwindstack/offline" / folder / library)
        checked = 0
        for line in stacks[folder]["frames"]:
            match = re.search(rf"pc (\w+)  {library} \((\w[^()]*?)[(+]", line)
            if match:
                name = match[2].rsplit("::", 1)[-1]
                assert name in names(table.sym, [int(match[1], 16) & ~1])[0]
                checked += 1
        assert checked >= 2


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["elf_compressed_gnu", "elf_compressed_shf"])
def test_sections_that_lie_about_their_size(corpus: Path, build: Any, name: str) -> None:
    """Their .debug_info unpacks to ten bytes of "A": there is nothing to be had, and that is said."""
    ((table, info),) = build(corpus / "native/symbolic/fixtures/regression" / name)
    assert len(table.sym.range_start) == 0
    assert "corrupted dwarf" in info["problems"][0]


@pytest.mark.corpus
def test_compressed_sections_give_what_plain_ones_do(corpus: Path, build: Any) -> None:
    folder = corpus / "native/symbolic/fixtures/linux"
    ((plain, _),) = build(folder / "crash.debug")
    addresses = range(0x1000, 0x15000, 7)
    expected = frames(plain.sym, addresses)
    for kind in ("zlib", "zstd"):
        ((packed, _),) = build(folder / f"crash.debug-{kind}")
        assert frames(packed.sym, addresses) == expected


# --- Mach-O ---------------------------------------------------------------------------------------------------------

BASE = 0x1_0000_0000
TEXT = [(b"__text", BASE + 0x1000, 0x800, PURE)]


def test_slices_and_function_starts(build: Any) -> None:
    """A stripped symbol table has two of four functions; those between are nobody's. Each slice has its own id."""
    starts = [BASE + 0x1000, BASE + 0x1010, BASE + 0x1200, BASE + 0x1300]
    intel = Mach(sections=TEXT, starts=starts, symbols=[("_a", BASE + 0x1000), ("_b", BASE + 0x1200)])
    arm = Mach(uuid=b"\2" * 16, cpu=ARM64, sections=TEXT, starts=starts[:1], symbols=[("_c", BASE + 0x1000)])
    found = {info["debug_id"]: table for table, info in build(fat(intel, arm))}
    addresses = [0xFFF, 0x1000, 0x100F, 0x1010, 0x1200, 0x12FF, 0x1300, 0x1800]
    assert names(found["01020304-0506-0708-090a-0b0c0d0e0f10"].sym, addresses) == ["", "a", "a", "", "b", "b", "", ""]
    assert names(found["02020202-0202-0202-0202-020202020202"].sym, addresses) == ["", *["c"] * 6, ""]


@pytest.mark.corpus
def test_stripped_programs_have_few_names(corpus: Path, build: Any) -> None:
    """The one symbol left in Firefox's launcher, _mh_execute_header, is no function."""
    folder = corpus / "native/framehop/fixtures/macos/x86_64/nofp"
    ((table, _),) = build(folder / "firefox-esr-78")
    assert set(names(table.sym, range(0, 0x4000, 5))) == {""}


@pytest.mark.corpus
def test_hidden_names(corpus: Path, build: Any, tmp_path: Path) -> None:
    """The map is found through the UUID map, beside the file or as Xcode lays them out."""
    folder = corpus / "native/symbolic/debuginfo-fixtures"
    dwarf = folder / "2d10c42f-591d-3265-b147-78ba0868073f.dwarf-hidden"
    ((table, info),) = build(dwarf)
    assert info["problems"] == []
    assert frames(table.sym, [0x5A76]) == [[("-[SentryMessage initWithFormatted:]", 10)]]
    assert not any(n.startswith("__hidden#") for n in names(table.sym, range(0x5000, 0x45000, 101)))

    archive = tmp_path / "store" / "App.xcarchive"
    resources = archive / "dSYMs/App.dSYM/Contents/Resources"
    (resources / "DWARF").mkdir(parents=True)
    (archive / "BCSymbolMaps").mkdir()
    shutil.copy(dwarf, resources / "DWARF/App")
    ((alone, info),) = build(resources / "DWARF/App")
    assert names(alone.sym, [0x5A76]) == ["__hidden#0_"]
    assert "BCSymbolMap" in info["problems"][0]
    shutil.copy(folder / f"{dwarf.stem}.plist", resources / f"{dwarf.stem.upper()}.plist")
    (map_,) = folder.glob("*.bcsymbolmap")
    shutil.copy(map_, archive / "BCSymbolMaps" / f"{map_.stem.upper()}.bcsymbolmap")
    ((whole, info),) = build(resources / "DWARF/App")
    assert info["problems"] == []
    assert frames(whole.sym, range(0x5000, 0x9000, 11)) == frames(table.sym, range(0x5000, 0x9000, 11))


# --- PE and PDB -----------------------------------------------------------------------------------------------------


def functions_of(sym: Path) -> list[tuple[int, int, str]]:
    """Return (address, size, name) of a symbol file's FUNC records."""
    rows = re.findall(r"^FUNC (?:m )?(\w+) (\w+) \w+ (.*)$", sym.read_text(errors="replace"), re.MULTILINE)
    return [(int(address, 16), int(size, 16), name) for address, size, name in rows]


def bare(name: str) -> str:
    """Return a name's last word without arguments and decoration, as two tools may both write it."""
    name = re.sub(r"^\?(\w+)@.*", r"\1", name)
    return re.split(r"[ :*&]", re.sub(r"[(@].*", "", name.lstrip("@")))[-1].lstrip("_")


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["dump_syms_regtest", "omap_reorder_bbs", "omap_reorder_funcs"])
def test_rearranged_images(corpus: Path, build: Any, name: str) -> None:
    """Every byte of every function is Breakpad's function's, also where the image was rearranged after linking."""
    folder = corpus / "native/breakpad/windows-dump_syms"
    ((ours, info),) = build(folder / f"{name}.pdb")
    assert info["problems"] == []
    ((theirs, _),) = build(folder / f"{name}.sym")
    addresses = [a for start, size, _ in functions_of(folder / f"{name}.sym") for a in range(start, start + size)]
    assert len(addresses) > 15_000
    lines = unnamed = 0
    for mine, other in zip(frames(ours.sym, addresses), frames(theirs.sym, addresses), strict=True):
        unnamed += not mine  # What was added when the image was rearranged stems from no function.
        if mine and other:
            pair = bare(mine[-1][0]), bare(other[-1][0])
            assert pair[0] == pair[1] or pair == ("NLG_Dispatch2", "NLG_Dispatch")  # two names of one place
            # dump_syms leaves out lines of rearranged code.
            if mine[-1][1] and other[-1][1]:
                assert mine[-1][1] == other[-1][1]
                lines += 1
    assert unnamed / len(addresses) < 0.003
    assert lines > 7000


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "least"), [("mozwer", 3), ("basic32", 8)])
def test_exported_names_end_with_their_functions(corpus: Path, build: Any, name: str, least: int) -> None:
    """Symbolic lets each reach to the next one: here all but a handful of addresses would get a wrong name."""
    folder = corpus / "native/dump_syms/test_data/windows"
    ((table, _),) = build(folder / f"{name}.dll")
    truth = functions_of(folder / f"{name}.sym")
    rng = random.Random(1)
    inside = [(start + rng.randrange(size), label) for start, size, label in truth * 3 if size]
    right = 0
    for found, (_, label) in zip(names(table.sym, [a for a, _ in inside]), inside, strict=True):
        if found:
            assert bare(found) == bare(label) or label.startswith("<unknown")
            right += 1
    entries = table.sym.entries.tolist()
    assert sum(bool(n) for n in names(table.sym, entries)) >= least
    assert right < len(inside) // 10


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["integration.dll", "portable.pdb", "Sentry.Samples.Console.Basic-embedded-ppdb-with-sources.dll"]
)
def test_managed_code(corpus: Path, build: Any, name: str) -> None:
    ((table, info),) = build(corpus / "native/symbolic/fixtures/windows" / name)
    assert len(table.sym.range_start) == 0
    assert any(".NET" in problem for problem in info["problems"])


# --- Others ---------------------------------------------------------------------------------------------------------


def leb(number: int) -> bytes:
    assert number < 0x80
    return bytes([number])


def wasm(*functions: tuple[bytes, bytes]) -> bytes:
    """Return a module of functions (name, body) that take nothing and give nothing."""

    def section(number: int, data: bytes) -> bytes:
        return bytes([number]) + leb(len(data)) + data

    bodies = b"".join(leb(len(body)) + body for _, body in functions)
    listed = b"".join(leb(i) + leb(len(name)) + name for i, (name, _) in enumerate(functions))
    parts = [
        section(1, b"\1\x60\0\0"),
        section(3, leb(len(functions)) + b"\0" * len(functions)),
        section(10, leb(len(functions)) + bodies),
        section(0, leb(4) + b"name" + section(1, leb(len(functions)) + listed)),
        section(0, leb(8) + b"build_id" + bytes(range(1, 17))),
    ]
    return b"\0asm\1\0\0\0" + b"".join(parts)


def test_wasm(build: Any) -> None:
    """Addresses are offsets in the file, as engines print them."""
    bodies = [(b"alpha", b"\0\1\x0b"), (b"beta", b"\0\1\1\1\x0b")]
    data = wasm(*bodies)
    ((table, info),) = build(data)
    assert (info["format"], info["debug_id"]) == ("wasm", "01020304-0506-0708-090a-0b0c0d0e0f10")
    alpha, beta = (data.index(body) for _, body in bodies)
    assert names(table.sym, [alpha - 2, alpha, alpha + 2, beta, beta + 4]) == ["", "alpha", "alpha", "beta", "beta"]


def test_source_bundle(build: Any) -> None:
    ((table, info),) = build(bundle({"/a.c": b"x"}, "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"))
    assert (info["format"], info["debug_id"]) == ("sourcebundle", "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5")
    assert len(table.sym.range_start) == 0
    assert "source context" in info["problems"][0]


@pytest.mark.parametrize("content", [b"# compiler: R8\na.B -> a:\n", b"com.example.Main -> a.a:\n    void f() -> a\n"])
def test_proguard_mapping(build: Any, content: bytes) -> None:
    """The text is kept as it is; symbolicate/java.py reads it."""
    ((table, info),) = build(content)
    assert (info["format"], info["kind"], info["ranges"], info["problems"]) == ("proguard", "mapping", 1, [])
    assert info["debug_id"] == proguard.debug_id(content)
    assert table.sym.strings.tobytes() == content
    assert len(table.sym.range_start) == 0


def test_proguard_mapping_of_nothing(build: Any) -> None:
    ((_, info),) = build(b"# compiler: R8\n# pg_map_id: 0123abc\n")
    assert (info["code_id"], info["ranges"], info["problems"]) == ("0123abc", 0, ["the mapping has no class"])


def test_nothing_there(build: Any, tmp_path: Path) -> None:
    with pytest.raises(SymbolError, match="No such file"):
        build(tmp_path / "none")


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "rust-breakpad/fixtures/hello_macos", "symbolic/debuginfo-fixtures/helloworld", "pdb/foo.exe",
        "symbolic/fixtures/windows/CrashWithException.exe", "symbolic/fixtures/windows/CrashWithException.pdb",
        "symbolic/fixtures/windows/portable.pdb", "dump_syms/test_data/linux/basic.minidebuginfo",
    ],
)  # fmt: skip
def test_mutants(corpus: Path, build: Any, name: str) -> None:
    """A damaged file gives an error or a part of its tables, and takes nothing else with it."""
    good = (corpus / "native" / name).read_bytes()
    rng = random.Random(name)
    for number in range(24):
        data = bytearray(good[: rng.randrange(len(good))] if number % 3 == 0 else good)
        for _ in range(rng.randrange(1, 30)):
            if data:
                data[rng.randrange(min(len(data), rng.choice((0x400, len(data)))))] = rng.randrange(256)
        try:
            build(bytes(data))
        except SymbolError:
            pass
