from __future__ import annotations

import json
import random
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.errors import Malformed
from deadreckon.kernels.ranges import look_up
from deadreckon.model.ids import Arch
from deadreckon.model.tables import CodeTable, RuleTable, SymTable
from deadreckon.symbols import tables
from deadreckon.symbols.tablefile import TABLE_VERSION, TableFile, open_table, write_table
from synth.samples import walk_with
from synth.stacks import random_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INFO = {"debug_id": "abc", "has_lines": True, "nested": [1, "ü"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a small table file with something in every column."""
    world = random_world(random.Random(3), Arch.X86_64)
    tables = (image.tables() for image in world.images)
    sym, rules, _ = next(found for found in tables if len(found[1].saved))
    sym.functions = np.array([[0, 16, 2], [5, 32, 1]], np.uint32)
    sym.files = np.array([[0, 5, 0]], np.uint32)
    sym.strings = np.frombuffer(b"\4main\4exit", np.uint8)
    rules.expr = np.frombuffer(b"\1\x30", np.uint8)
    path = tmp_path / "tables" / "a.table"
    code = CodeTable.gather(b"\x90" * 64, [(0x1000, 16, 8), (0x2000, 90, 32)])
    write_table(path, sym, rules, INFO, code)
    return path


def equal(a: SymTable | RuleTable, b: SymTable | RuleTable) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) and getattr(a, f.name).dtype == getattr(b, f.name).dtype
        for f in fields(a)
    )


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return a file's header and what is after it."""
    data = path.read_bytes()
    end = 16 + int.from_bytes(data[12:16], "little")
    header: dict[str, Any] = json.loads(data[16:end])
    return header, data[end:]


def put(path: Path, header: bytes, columns: bytes) -> None:
    header += b" " * (-len(header) % 16)
    path.write_bytes(
        b"DRTABLE\0" + TABLE_VERSION.to_bytes(4, "little") + len(header).to_bytes(4, "little") + header + columns
    )


def use(opened: TableFile) -> None:
    """Run what reads tables over them."""
    _, found = look_up(opened.sym, np.array([0, 0x100, 0x115, 0xFFFF_FFFF], np.uint64))
    assert (found < len(opened.sym.locations)).all()
    for ref in (*opened.sym.functions[:, 0].tolist(), 0xFFFF_FFFF):
        opened.sym.string(ref)
    world = random_world(random.Random(3), Arch.X86_64)
    walk_with(world, [(opened.sym, opened.rules, opened.code)] * len(world.images))


# --- Round trip -----------------------------------------------------------------------------------------------------


def test_round_trip(path: Path) -> None:
    opened = open_table(path)
    copy = path.with_name("b.table")
    write_table(copy, opened.sym, opened.rules, opened.info, opened.code)
    again = open_table(copy)
    assert opened.info == again.info == INFO
    assert equal(again.sym, opened.sym)
    assert equal(again.rules, opened.rules)
    assert again.sym.string(5) == "exit"
    assert len(again.rules.saved)
    assert copy.read_bytes() == path.read_bytes()
    use(again)


def test_empty_tables(tmp_path: Path) -> None:
    path = tmp_path / "none.table"
    write_table(path, SymTable.empty(), RuleTable.empty(), {})
    opened = open_table(path)
    assert equal(opened.sym, SymTable.empty())
    assert equal(opened.rules, RuleTable.empty())


def test_columns_are_mapped_and_read_only(path: Path) -> None:
    opened = open_table(path)
    for table in (opened.sym, opened.rules):
        for field in fields(table):
            column = getattr(table, field.name)
            assert not column.flags.writeable
            assert column.flags.aligned
            assert column.flags.c_contiguous


def test_file_is_replaced_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_table(path)
    kept = before.sym.range_start.copy()
    write_table(path, SymTable.empty(), RuleTable.empty(), {})
    assert np.array_equal(before.sym.range_start, kept)
    assert len(open_table(path).sym.range_start) == 0
    assert path.stat().st_mode & 0o777 == 0o644

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_table(path, before.sym, before.rules, {})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert len(open_table(path).sym.range_start) == 0


def test_real_tables(fixtures: Path, tmp_path: Path) -> None:
    (built,) = tables.build(str(fixtures / "linux/x86_64/pie-O2/libcargo.so"), str(tmp_path / "x"))
    use(open_table(tmp_path / built["table"]))


# --- Damage ---------------------------------------------------------------------------------------------------------


def test_cut_anywhere(path: Path) -> None:
    data = path.read_bytes()
    # The last bytes may be padding that no column needs.
    for size in range(0, len(data) - 16, 7):
        path.write_bytes(data[:size])
        with pytest.raises(Malformed, match=r"table file a\.table"):
            open_table(path)


@pytest.mark.parametrize("head", [b"DRTABLE\0\0\0\0\0", b"DRTABLE\0\xff\xff\xff\xff", b"drtable\0\1\0\0\0"])
def test_other_versions(path: Path, head: bytes) -> None:
    path.write_bytes(head + path.read_bytes()[12:])
    with pytest.raises(Malformed, match=f"version {TABLE_VERSION}"):
        open_table(path)


def _set(index: int, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(header: dict[str, Any]) -> Any:
        header["columns"][0][index] = value
        return header

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_set(0, "sym.nothing"), id="unknown column"),
        pytest.param(_set(0, 5), id="column without a name"),
        pytest.param(_set(0, "a.b.c"), id="column of no table"),
        pytest.param(_set(1, "i4"), id="another type"),
        pytest.param(_set(1, "f8"), id="unknown type"),
        pytest.param(_set(1, []), id="no type"),
        pytest.param(_set(2, [1 << 40]), id="longer than the file"),
        pytest.param(_set(2, [1 << 80]), id="longer than a number"),
        pytest.param(_set(2, [-4]), id="negative length"),
        pytest.param(_set(2, [2, 2]), id="another shape"),
        pytest.param(_set(2, 4), id="no shape"),
        pytest.param(_set(2, ["4"]), id="shape of text"),
        pytest.param(_set(2, [1.5]), id="half a row"),
        pytest.param(_set(3, 4), id="not aligned"),
        pytest.param(_set(3, -64), id="in the header"),
        pytest.param(_set(3, 1 << 62), id="past the end"),
        pytest.param(_set(3, None), id="no offset"),
        pytest.param(lambda h: {**h, "columns": h["columns"][1:]}, id="column missing"),
        pytest.param(lambda h: {**h, "columns": [c[:3] for c in h["columns"]]}, id="short columns"),
        pytest.param(lambda h: {**h, "columns": 7}, id="no columns"),
        pytest.param(lambda h: {**h, "info": None}, id="no information"),
        pytest.param(lambda h: h["columns"], id="no header"),
        pytest.param(lambda _: None, id="nothing"),
    ],
)
def test_headers_that_lie(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    header, columns = parts(path)
    put(path, json.dumps(change(header)).encode(), columns)
    with pytest.raises(Malformed, match=r"table file a\.table"):
        open_table(path)


@pytest.mark.parametrize("header", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"columns": ' + b"1" * 5000 + b"}"])
def test_headers_that_are_none(path: Path, header: bytes) -> None:
    put(path, header, parts(path)[1])
    with pytest.raises(Malformed):
        open_table(path)


def test_mutants_are_refused_or_safe(path: Path) -> None:
    data = path.read_bytes()
    rng = random.Random(1)
    header = 16 + int.from_bytes(data[12:16], "little")
    opened = 0
    for i in range(1500):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 6))):
            if i % 2:
                changed[rng.randrange(header, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            else:
                changed[rng.randrange(16, header)] = rng.choice(b'0123456789-[]{}",.:e')
        path.write_bytes(changed)
        try:
            use(open_table(path))
        except Malformed:
            continue
        opened += 1
    assert opened > 500
