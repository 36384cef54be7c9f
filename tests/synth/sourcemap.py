"""Source maps written from lists of segments, as plainly as it can be said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

Segment = tuple[int, ...]
"""Generated line and column; source, line and column; name. All absolute."""


def unsigned(value: int) -> str:
    """Return an unsigned VLQ."""
    text = ""
    while True:
        value, digit = value >> 5, value & 31
        text += DIGITS[digit | (32 if value else 0)]
        if not value:
            return text


def signed(value: int) -> str:
    """Return a signed VLQ."""
    return "B" if value == -(1 << 31) else unsigned(-value << 1 | 1 if value < 0 else value << 1)


def mappings(segments: Iterable[Segment]) -> str:
    """Return the mappings of segments, in this order; lines ascend."""
    lines: list[list[str]] = [[]]
    before = [0, 0, 0, 0, 0]
    for line, *fields in segments:
        while len(lines) <= line:
            lines.append([])
            before[0] = 0
        lines[line].append("".join(signed(now - then) for now, then in zip(fields, before, strict=False)))
        before[: len(fields)] = fields
    return ";".join(",".join(line) for line in lines)


def source_map(segments: Iterable[Segment] = (), **members: Any) -> bytes:
    """Return a map with as many sources and names as the segments need, unless they are given."""
    listed = list(segments)
    sources = max([s[2] + 1 for s in listed if len(s) > 2], default=0)
    names = max([s[5] + 1 for s in listed if len(s) > 5], default=0)
    value = {
        "version": 3,
        "sources": [f"source{i}.js" for i in range(sources)],
        "names": [f"name{i}" for i in range(names)],
        "mappings": mappings(listed),
        **members,
    }
    return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()


def index_map(sections: Sequence[tuple[int, int, bytes]], **members: Any) -> bytes:
    """Return an index map of maps at generated lines and columns."""
    listed = [{"offset": {"line": line, "column": column}, "map": json.loads(m)} for line, column, m in sections]
    return json.dumps({"version": 3, "sections": listed, **members}).encode()


def function_map(rows: Iterable[tuple[int, int, str]]) -> dict[str, Any]:
    """Return Metro's function map of rows: line (from 0), column, name; sorted."""
    names: list[str] = []
    text = ""
    line_now = column_now = name_now = 0
    for line, column, name in rows:
        if name not in names:
            names.append(name)
        delta = line - line_now
        if delta and text:
            text, column_now = text + ";", 0
        elif text:
            text += ","
        text += signed(column - column_now) + signed(names.index(name) - name_now) + (signed(delta) if delta else "")
        line_now, column_now, name_now = line, column, names.index(name)
    return {"names": names, "mappings": text}
