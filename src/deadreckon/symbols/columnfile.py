"""Column files: the arrays of one or more tables in one file that is mapped, not read.

Layout: a magic of 8 bytes, u32 version, u32 length of a JSON header, the header, then each column aligned to 16 bytes,
little-endian. The header lists the columns as ``[table.name, dtype, shape, offset]``. A file is written whole under
another name and renamed, so a reader sees all of it or nothing; it is checked against its own header when opened.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ColumnFormat", "open_columns", "write_columns"]

_ALIGN = 16
_HEAD = 16
_DTYPES: dict[str, np.dtype[Any]] = {"u4": np.dtype("<u4"), "i4": np.dtype("<i4"), "u1": np.dtype("u1")}


@dataclass(frozen=True, slots=True)
class ColumnFormat:
    """A kind of column file: its magic (8 bytes), the version that is read, and each column's dtype and row width.

    A width of 0 is a column of one dimension.
    """

    magic: bytes
    version: int
    columns: Mapping[str, tuple[str, int]]


def write_columns(
    path: Path,
    form: ColumnFormat,
    tables: Mapping[str, Any],
    info: Mapping[str, Any],
    pieces: Mapping[str, Sequence[np.ndarray[Any, Any]]] | None = None,
) -> None:
    """Write the arrays of dataclasses whole or not at all; other fields are left out. Raises OSError.

    ``pieces`` has columns of one dimension that lie in several arrays, by table and name, to be written in their place.
    """
    columns: list[list[Any]] = []
    arrays: list[Sequence[np.ndarray[Any, Any]]] = []
    offset = 0
    for prefix, table in tables.items():
        for column in fields(table):
            name = f"{prefix}.{column.name}"
            if name not in form.columns:
                continue
            array = np.ascontiguousarray(getattr(table, column.name))
            its_pieces = (pieces or {}).get(name, [array])
            shape = (sum(len(each) for each in its_pieces), *array.shape[1:])
            columns.append([name, f"{array.dtype.kind}{array.dtype.itemsize}", shape, offset])
            arrays.append(its_pieces)
            offset += -(-sum(each.nbytes for each in its_pieces) // _ALIGN) * _ALIGN
    header = json.dumps({"info": info, "columns": columns}).encode()
    header += b" " * (-(_HEAD + len(header)) % _ALIGN)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(form.magic + form.version.to_bytes(4, "little") + len(header).to_bytes(4, "little") + header)
            for its_pieces in arrays:
                written = sum(out.write(each.data.cast("B")) for each in its_pieces if each.nbytes)
                out.write(b"\0" * (-written % _ALIGN))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_columns(path: Path, form: ColumnFormat) -> tuple[dict[str, dict[str, np.ndarray[Any, Any]]], dict[str, Any]]:
    """Map a file and view its columns, by table and name; return them and the info noted with them.

    Raises Malformed where header and size disagree (a damaged file), OSError where it can't be opened.
    """
    what = f"table file {path.name}"
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _HEAD:
            raise Malformed(what, expected="at least 16 bytes", got=size)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:8] != form.magic or int.from_bytes(data[8:12], "little") != form.version:
        raise Malformed(what, offset=0, expected=f"version {form.version}", got=data[:12])
    length = int.from_bytes(data[12:_HEAD], "little")
    found: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    try:
        header = json.loads(data[_HEAD : _HEAD + length])
        for name, kind, shape, offset in header["columns"]:
            wanted, width = form.columns[name]
            if kind != wanted:
                raise Malformed(what, expected=f"type of {name}", got=kind)
            if len(shape) != (2 if width else 1) or (width and shape[1] != width):
                raise Malformed(what, expected=f"shape of {name}", got=shape)
            count = shape[0] * (width or 1)
            start = _HEAD + length + offset
            if count < 0 or offset < 0 or start % _ALIGN or start + count * _DTYPES[kind].itemsize > size:
                raise Malformed(what, offset=start, expected=f"column {name}", got=f"{size} bytes")
            prefix, _, column = name.partition(".")
            array = np.frombuffer(data, _DTYPES[kind], count, start)
            found.setdefault(prefix, {})[column] = array.reshape(-1, width) if width else array
        info = dict(header["info"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise Malformed(what, got=f"{type(e).__name__}: {e}") from e
    for name in form.columns:
        prefix, _, column = name.partition(".")
        if column not in found.get(prefix, {}):
            raise Malformed(what, expected=f"column {name}")
    return found, info
