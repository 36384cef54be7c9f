"""Table files: the columns of one module's SymTable, RuleTable and CodeTable in one mapped file (see columnfile.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed
from deadreckon.model.tables import CodeTable, RuleTable, SymTable
from deadreckon.symbols.columnfile import ColumnFormat, open_columns, write_columns

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.tables import SourceMapTable

__all__ = ["MAP_MAGIC", "TABLE_VERSION", "TableFile", "open_table", "write_table"]

TABLE_VERSION = 6
"""Counts changes of layout or meaning, of source maps' tables too; files of another version are not opened."""

MAP_MAGIC = b"DRMAP\0\0\0"
"""What the table files of source maps begin with (maps.py)."""
_FORMAT = ColumnFormat(
    b"DRTABLE\0",
    TABLE_VERSION,
    {
        "sym.range_start": ("u4", 0),
        "sym.range_loc": ("u4", 0),
        "sym.locations": ("u4", 4),
        "sym.functions": ("u4", 3),
        "sym.files": ("u4", 3),
        "sym.strings": ("u1", 0),
        "sym.base": ("u4", 2),
        "sym.text": ("u4", 2),
        "sym.entries": ("u4", 0),
        "rule.rva": ("u4", 0),
        "rule.rule": ("u4", 0),
        "rule.rules": ("i4", 6),
        "rule.saved": ("i4", 3),
        "rule.expr": ("u1", 0),
        "code.data": ("u1", 0),
        "code.map": ("u4", 3),
    },
)


@dataclass(slots=True)
class TableFile:
    """An opened table file. ``info`` is what the builder noted: debug_id, code_id, arch, format, has_lines ...

    ``map`` is a source map's table; the others are empty then.
    """

    sym: SymTable
    rules: RuleTable
    info: dict[str, Any]
    code: CodeTable = field(default_factory=CodeTable.empty)
    map: SourceMapTable | None = None


def write_table(
    path: Path, sym: SymTable, rules: RuleTable, info: dict[str, Any], code: CodeTable | None = None
) -> None:
    """Write a table file whole or not at all. Raises OSError where the disk doesn't take it."""
    write_columns(path, _FORMAT, {"sym": sym, "rule": rules, "code": code or CodeTable.empty()}, info)


def open_table(path: Path) -> TableFile:
    """Map a table file, of a module or of a source map, and view its columns.

    Raises Malformed where header and size disagree (a damaged file), OSError where it can't be opened.
    """
    with path.open("rb") as file:
        magic = file.read(len(MAP_MAGIC))
    if magic == MAP_MAGIC:
        from deadreckon.symbols.maps import open_map  # noqa: PLC0415  (few stores have any)

        table = open_map(path)
        return TableFile(SymTable.empty(), RuleTable.empty(), table.info, map=table)
    found, info = open_columns(path, _FORMAT)
    sym, rules = SymTable(**found["sym"]), RuleTable(**found["rule"])
    if len(sym.range_start) != len(sym.range_loc) or len(rules.rva) != len(rules.rule):
        raise Malformed(f"table file {path.name}", expected="columns of one length")
    return TableFile(sym, rules, info, CodeTable(**found["code"]))
