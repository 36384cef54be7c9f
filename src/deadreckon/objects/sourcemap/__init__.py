"""Source maps (ECMA-426, https://tc39.es/ecma426/): bytes to a SourceMapTable, and what its texts say.

Two readings: ``read`` is lenient and answers wherever the specification lets a consumer go on; ``check`` is strict and
lists every error. Nothing of a map's texts is decoded before it is asked for: four fifths of a map are the original
sources, of which a crash shows a few lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.objects.sourcemap.envelope import from_data_url
from deadreckon.objects.sourcemap.functionmaps import functions
from deadreckon.objects.sourcemap.lines import all_lines, source_lines
from deadreckon.objects.sourcemap.reactnative import (
    bytecode_column,
    extra,
    is_bytecode,
    module_line,
    module_of,
    segment,
)
from deadreckon.objects.sourcemap.reader import identify, read
from deadreckon.objects.sourcemap.scopesfield import OriginalFrame, frames_at, scopes
from deadreckon.objects.sourcemap.strict import MapError, check

if TYPE_CHECKING:
    from deadreckon.model.tables import SourceMapTable

__all__ = [
    "MapError",
    "OriginalFrame",
    "all_lines",
    "bytecode_column",
    "check",
    "extra",
    "frames_at",
    "from_data_url",
    "functions",
    "identify",
    "is_bytecode",
    "module_line",
    "module_of",
    "read",
    "scopes",
    "segment",
    "source_lines",
    "source_path",
]

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[/\\]")


def source_path(table: SourceMapTable, source: int) -> str | None:
    """Return a source with its sourceRoot before it, None for null; relative paths are relative to the map.

    A source with a scheme, or one that begins with ``/``, stands alone: the specification would make
    ``https://cdn/base/webpack:///a.js`` of it, which names nothing.
    """
    path = table.source(source)
    root = table.root(source)
    if path is None or not root or _ABSOLUTE.match(path):
        return path
    return root + path if root.endswith("/") else f"{root}/{path}"
