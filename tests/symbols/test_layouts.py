from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.model.crash import Module
from deadreckon.model.ids import DebugId
from deadreckon.symbols.layouts import Candidate, Layout, Parsed, base_name, candidates, parse

if TYPE_CHECKING:
    from uuid import UUID

GUID = "3249D99D-0C40-4931-8610-F4E4FB0B6936"
PDB = Module(0, 0, r"C:\app\Crash.dll", "5AB380779000", r"D:\out\Crash.pdb", GUID.lower() + "-1")
BUILD_ID = "4c4e3c8e5f0fb1e0a4f1b9a6a0b3b6a0d3a1f0aa"
ELF = Module(0, 0, "/usr/lib/libc.so.6", BUILD_ID, None, str(DebugId.from_build_id(bytes.fromhex(BUILD_ID))))
MACHO = Module(0, 0, "/Apps/Foo.app/Foo", GUID.replace("-", "").lower(), "Foo", GUID.lower())


def paths(module: Module) -> dict[str, Candidate]:
    found = candidates(module)
    assert len({c.path for c in found}) == len(found)
    return {c.path: c for c in found}


def test_pdb_and_pe() -> None:
    found = paths(PDB)
    key = "3249D99D0C4049318610F4E4FB0B69361"
    for path, kind, layout in [
        (f"Crash.pdb/{key}/Crash.sym", "breakpad", "breakpad"),
        (f"Crash.pdb/{key}/Crash.pdb", "debuginfo", "symstore"),
        (f"Crash.pdb/{key}/Crash.pd_", "debuginfo", "symstore"),
        (f"Cr/Crash.pdb/{key}/Crash.pdb", "debuginfo", "symstore_index2"),
        (f"crash.pdb/{key.lower()}/crash.pdb", "debuginfo", "ssqp"),
        ("Crash.pdb/3249D99D0C4049318610F4E4FB0B6936FFFFFFFF/Crash.pdb", "debuginfo", "symstore"),
        ("Crash.dll/5AB380779000/Crash.dll", "executable", "symstore"),
        ("Crash.dll/5AB380779000/Crash.dl_", "executable", "symstore"),
        (f"crash.pdb/{key[:32].lower()}FFFFFFFF/crash.pdb", "debuginfo", "ssqp"),
        ("crash.dll/5ab380779000/crash.dll", "executable", "ssqp"),
        ("crash.dll/5AB380779000/crash.dll", "executable", "ssqp"),
        (f"32/{key[2:].lower()}/debuginfo", "debuginfo", "unified"),
    ]:
        assert found[path] == Candidate(path, kind, layout)  # type: ignore[arg-type]


def test_elf() -> None:
    found = paths(ELF)
    rest = BUILD_ID[2:]
    for path, kind, layout in [
        (f"_.debug/elf-buildid-sym-{BUILD_ID}/_.debug", "debuginfo", "symstore"),
        (f"libc.so.6/elf-buildid-{BUILD_ID}/libc.so.6", "executable", "symstore"),
        (f"4c/{rest}.debug", "debuginfo", "gdb"),
        (f".build-id/4c/{rest}", "executable", "gdb"),
        (f"buildid/{BUILD_ID}/debuginfo", "debuginfo", "debuginfod"),
        (f"{BUILD_ID}/executable", "executable", "debuginfod"),
        (f"4c/{rest}/debuginfo", "debuginfo", "unified"),
        ("libc.so.6/8E3C4E4C0F5FE0B1A4F1B9A6A0B3B6A00/libc.so.6.sym", "breakpad", "breakpad"),
    ]:
        assert found[path] == Candidate(path, kind, layout)  # type: ignore[arg-type]
    assert not any("mach-uuid" in path for path in found)


def test_macho() -> None:
    found = paths(MACHO)
    assert found["3249/D99D/0C40/4931/8610/F4E4FB0B6936"].kind == "debuginfo"
    assert found["3249/D99D/0C40/4931/8610/F4E4FB0B6936.app"].kind == "executable"
    assert "_.dwarf/mach-uuid-sym-3249d99d0c4049318610f4e4fb0b6936/_.dwarf" in found
    assert "Foo/3249D99D0C4049318610F4E4FB0B69360/Foo.sym" in found
    assert not any("elf-buildid" in path for path in found)


def test_short_build_ids_are_padded_for_ssqp() -> None:
    found = paths(Module(0, 0, "Bar.so", BUILD_ID[:32], None, ELF.debug_id))
    padded = BUILD_ID[:32] + "00000000"
    for path, kind in [
        (f"_.debug/elf-buildid-sym-{padded}/_.debug", "debuginfo"),
        (f"bar.so/elf-buildid-{padded}/bar.so", "executable"),
    ]:
        assert found[path] == Candidate(path, kind, "ssqp")  # type: ignore[arg-type]
        assert (got := parse(path)) is not None
        assert (got.debug_id, got.code_id) == (ELF.debug_id, padded)


def test_a_pdb_is_of_no_elf_file() -> None:
    found = candidates(Module(0, 0, "", None, "Crash.pdb", GUID))
    assert {c.layout for c in found} == {"breakpad", "symstore", "symstore_index2", "ssqp", "unified"}
    assert not any("-uuid-" in c.path or "buildid" in c.path for c in found)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (PDB, [("Crash.pdb", "debuginfo"), ("Crash.dll", "executable"), ("Crash.sym", "breakpad")]),
        (ELF, [("libc.so.6.debug", "debuginfo"), ("libc.so.6", "executable"), ("libc.so.6.sym", "breakpad")]),
        (MACHO, [("Foo.debug", "debuginfo"), ("Foo", "executable"), ("Foo.sym", "breakpad")]),
        (Module(0, 0, "../..", None, "/", GUID), []),
    ],
)
def test_plain(module: Module, expected: list[tuple[str, str]]) -> None:
    found = candidates(module, ["plain"])
    assert [(c.path, c.kind) for c in found] == expected
    for c in found:
        assert parse(c.path) == Parsed("plain", c.kind, None, None, c.path)


def test_layouts_are_chosen() -> None:
    everything = candidates(PDB)
    assert candidates(PDB, ["breakpad"]) == [c for c in everything if c.layout == "breakpad"]
    assert candidates(PDB, []) == []
    assert not any(c.layout == "plain" for c in everything)
    assert len(candidates(PDB, get_args(Layout))) == len(everything) + 3


def test_best_first() -> None:
    kinds = [c.kind for c in candidates(PDB)]
    assert kinds == sorted(kinds, key=["debuginfo", "executable", "breakpad", "sourcebundle"].index)


def test_breakpad_by_code_id() -> None:
    found = candidates(Module(0, 0, "C:\\w\\a.dll", "5ab380779000"))
    assert Candidate("a.dll/5AB380779000/a.sym", "breakpad", "breakpad") in found
    assert parse("a.dll/5AB380779000/a.sym") == Parsed("breakpad", "breakpad", None, "5ab380779000", "a.dll")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../..", "a/..", "C:", "C:x.pdb", "a\0.pdb", "x\n.pdb", "a" * 256, "é" * 128, "\ud800", "/", "\\"],
)
def test_names_that_are_no_names(name: str) -> None:
    assert base_name(name) == ""
    for candidate in candidates(Module(0, 0, name, "5ab380779000", name, GUID)):
        assert candidate.layout in {"unified", "gdb", "debuginfod", "lldb", "symstore", "symstore_index2"}
        _assert_inside(candidate.path)


def test_only_the_base_name_counts() -> None:
    assert base_name("../../etc/passwd") == "passwd"
    assert base_name("C:\\x\\y.pdb") == "y.pdb"


def test_two_letter_folder_stays_inside() -> None:
    # The first two characters of a harmless name are a folder of the two-tier layout.
    for candidate in candidates(Module(0, 0, "..evil.dll", "5ab380779000", "..evil.pdb", GUID)):
        _assert_inside(candidate.path)


def _assert_inside(path: str) -> None:
    assert not path.startswith(("/", "\\"))
    for part in path.split("/"):
        assert part not in {"", ".", ".."}
        assert not set(part) & set("\0\\:\n")
        assert len(part.encode()) <= 255


anything = st.text(max_size=40) | st.sampled_from(["../../etc/passwd", "..", "C:\\a\\b.pdb", "..x.pdb", "a" * 300])


@given(anything, anything, st.none() | anything, st.none() | anything)
def test_hostile_modules_stay_inside(
    code_file: str, code_id: str, debug_file: str | None, debug_id: str | None
) -> None:
    for module in (
        Module(0, 0, code_file, code_id, debug_file, debug_id),
        Module(0, 0, code_file, "5ab380779000", debug_file, GUID),
    ):
        for candidate in candidates(module, get_args(Layout)):
            _assert_inside(candidate.path)


@given(anything | st.text("0123456789abcdefABCDEF/._-", max_size=90))
def test_parse_never_raises(path: str) -> None:
    found = parse(path)
    assert found is None or found.name == "" or found.name in path


@pytest.mark.parametrize("unit", ["a", "/", "ab/", "AAAA/", "../", "a\\", "4c/" + "a" * 38 + "/"])
def test_long_paths(unit: str) -> None:
    assert parse(unit * (1_000_000 // len(unit))) is None
    assert parse(unit * (1_000_000 // len(unit)) + "debuginfo") is None


def _assert_same_place(got: Parsed, candidate: Candidate) -> None:
    assert got.kind == candidate.kind
    # A key without letters, or one that symstore writes in lower case anyway, is spelled alike in both.
    assert got.layout == candidate.layout or (got.layout, candidate.layout) == ("symstore", "ssqp")


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.+ -]{0,20}[A-Za-z]", fullmatch=True)
uuids = st.uuids().filter(lambda u: u.int != 0)


@given(names, uuids, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF))
def test_round_trip_pe(name: str, uuid: UUID, age: int, stamp: int, size: int) -> None:
    debug_id = str(DebugId(uuid, age))
    code_id = f"{stamp:08x}{size:x}"
    module = Module(0, 0, name + ".dll", code_id, name + ".pdb", debug_id)
    found = candidates(module)
    assert {c.layout for c in found} >= {"breakpad", "symstore", "symstore_index2", "unified"}
    for c in found:
        got = parse(c.path)
        assert got is not None, c
        _assert_same_place(got, c)
        portable = f"{uuid}-ffffffff"
        assert got.debug_id in {debug_id, portable} if got.debug_id else got.code_id == code_id


@given(names, st.binary(min_size=16, max_size=20).filter(lambda b: any(b[:16])))
def test_round_trip_elf(name: str, raw: bytes) -> None:
    module = Module(0, 0, f"/usr/lib/{name}.so", raw.hex(), None, str(DebugId.from_build_id(raw)))
    found = candidates(module)
    assert {c.layout for c in found} >= {"breakpad", "symstore", "gdb", "debuginfod", "unified"}
    for c in found:
        got = parse(c.path)
        assert got is not None, c
        _assert_same_place(got, c)
        if c.layout == "unified" and 33 <= len(raw.hex()) < 40:
            continue  # A build id of 17 to 19 bytes looks like a UUID and an age.
        assert got.code_id == module.code_id or got.debug_id == module.debug_id


@given(names, uuids)
def test_round_trip_macho(name: str, uuid: UUID) -> None:
    module = Module(0, 0, f"/Applications/{name}", uuid.hex, name, str(uuid))
    for c in candidates(module):
        got = parse(c.path)
        assert got is not None, c
        _assert_same_place(got, c)
        if "elf-buildid" in c.path or c.layout in {"gdb", "debuginfod"}:
            continue  # A UUID without swapped bytes may be a build id as well (palindromes).
        assert got.code_id == module.code_id or got.debug_id == module.debug_id


def test_parse_examples() -> None:
    assert parse("libfoo.so") == Parsed("plain", "executable", None, None, "libfoo.so")
    assert parse("foo.pdb") == Parsed("plain", "debuginfo", None, None, "foo.pdb")
    assert parse("top/dir/readme.txt") is None
    assert parse("../a.sym") is None
    assert parse("/a.sym") is None
    got = parse("symbols/x.pdb/3249D99D0C4049318610F4E4FB0B69361/x.pdb")
    assert got == Parsed("symstore", "debuginfo", GUID.lower() + "-1", None, "x.pdb")
