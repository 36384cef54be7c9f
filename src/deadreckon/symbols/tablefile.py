r"""Table files: the columns of one module's SymTable, RuleTable and CodeTable in one mapped file.

Layout: the magic ``DRTABLE\\0``, u32 version, u32 length of a JSON header, the header, then each column aligned to
16 bytes, little-endian. The header lists the columns as ``[name, dtype, shape, offset]``. A file is written whole under
another name and renamed, so a reader sees all of it or nothing; it is checked against its own header when opened.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.tables import CodeTable, RuleTable, SymTable

__all__ = ["TABLE_VERSION", "TableFile", "open_table", "write_table"]

TABLE_VERSION = 5
"""Counts changes of layout or meaning; files of another version are not opened, and tables are built afresh."""

_MAGIC = b"DRTABLE\0"
_ALIGN = 16
_DTYPES: dict[str, np.dtype[Any]] = {"u4": np.dtype("<u4"), "i4": np.dtype("<i4"), "u1": np.dtype("u1")}
_KINDS = {"strings": "u1", "data": "u1", "expr": "u1", "rules": "i4", "saved": "i4"}  # All others are u4.
_ROW_WORDS = {"locations": 4, "functions": 3, "files": 3, "base": 2, "text": 2, "rules": 6, "saved": 3, "map": 3}


@dataclass(slots=True)
class TableFile:
    """An opened table file. ``info`` is what the builder noted: debug_id, code_id, arch, format, has_lines ..."""

    sym: SymTable
    rules: RuleTable
    info: dict[str, Any]
    code: CodeTable = field(default_factory=CodeTable.empty)


def write_table(
    path: Path, sym: SymTable, rules: RuleTable, info: dict[str, Any], code: CodeTable | None = None
) -> None:
    """Write a table file whole or not at all. Raises OSError where the disk doesn't take it."""
    columns: list[list[Any]] = []
    arrays: list[np.ndarray[Any, Any]] = []
    offset = 0
    for prefix, table in (("sym", sym), ("rule", rules), ("code", code or CodeTable.empty())):
        for column in fields(table):
            array = np.ascontiguousarray(getattr(table, column.name))
            columns.append(
                [f"{prefix}.{column.name}", f"{array.dtype.kind}{array.dtype.itemsize}", array.shape, offset]
            )
            arrays.append(array)
            offset += -(-array.nbytes // _ALIGN) * _ALIGN
    header = json.dumps({"info": info, "columns": columns}).encode()
    header += b" " * (-(16 + len(header)) % _ALIGN)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_MAGIC + TABLE_VERSION.to_bytes(4, "little") + len(header).to_bytes(4, "little") + header)
            for array in arrays:
                out.write(array.data.cast("B") if array.nbytes else b"")
                out.write(b"\0" * (-array.nbytes % _ALIGN))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_table(path: Path) -> TableFile:
    """Map a table file and view its columns.

    Raises Malformed where header and size disagree (a damaged file), OSError where it can't be opened.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 16:
            raise Malformed(f"table file {path.name}", expected="at least 16 bytes", got=size)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:8] != _MAGIC or int.from_bytes(data[8:12], "little") != TABLE_VERSION:
        raise Malformed(f"table file {path.name}", offset=0, expected=f"version {TABLE_VERSION}", got=data[:12])
    length = int.from_bytes(data[12:16], "little")
    try:
        header = json.loads(data[16 : 16 + length])
        found: dict[str, dict[str, Any]] = {"sym": {}, "rule": {}, "code": {}}
        for name, kind, shape, offset in header["columns"]:
            prefix, column = name.split(".")
            dtype = _DTYPES[kind]
            count = int(np.prod(shape, dtype=np.int64))
            start = 16 + length + offset
            if count < 0 or offset < 0 or start % _ALIGN or start + count * dtype.itemsize > size:
                raise Malformed(f"table file {path.name}", offset=start, expected=f"column {name}", got=f"{size} bytes")
            if kind != _KINDS.get(column, "u4"):
                raise Malformed(f"table file {path.name}", expected=f"type of {name}", got=kind)
            if len(shape) != (2 if column in _ROW_WORDS else 1) or (len(shape) == 2 and shape[1] != _ROW_WORDS[column]):
                raise Malformed(f"table file {path.name}", expected=f"shape of {name}", got=shape)
            found[prefix][column] = np.frombuffer(data, dtype, count, start).reshape(shape)
        sym = SymTable(**found["sym"])
        rules = RuleTable(**found["rule"])
        code = CodeTable(**found["code"])
        info = dict(header["info"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise Malformed(f"table file {path.name}", got=f"{type(e).__name__}: {e}") from e
    if len(sym.range_start) != len(sym.range_loc) or len(rules.rva) != len(rules.rule):
        raise Malformed(f"table file {path.name}", expected="columns of one length")
    return TableFile(sym, rules, info, code)
