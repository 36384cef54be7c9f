"""What Metro and Hermes put beside the mappings: offsets of functions in bytecode, of modules in RAM bundles, segments.

* Hermes bytecode maps have all mappings on generated line 0 (or the segment's), at the bytecode's offset.
  ``x_hermes_function_offsets`` is ``{segment: [offset of function 0, ...]}``, for crash reports that count from the
  function on.
* ``x_facebook_offsets[module]`` is the line at which a RAM bundle's module begins in the map; frames name ``12.js``, or
  ``seg-3_12.js`` for module 12 of ``x_facebook_segments["3"]``, which is a map of its own.

Source: https://github.com/facebook/metro, packages/metro-symbolicate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.objects.sourcemap.functionmaps import json_value

if TYPE_CHECKING:
    from deadreckon.model.tables import SourceMapTable

__all__ = ["bytecode_column", "extra", "is_bytecode", "module_line", "module_of", "segment"]

_MODULE = re.compile(r"(?:.*[/\\])?(?:seg-(\d{1,9})(?:_(\d{1,9}))?|(\d{1,9}))\.js", re.ASCII)
_HERMES = "x_hermes_function_offsets"


def extra(table: SourceMapTable, name: str) -> Any:
    """Return the value of a member whose name begins with ``x_``, None where the map has none."""
    if name not in table.decoded:
        span = table.info["extra"].get(name)
        table.decoded[name] = json_value(table, *span) if span is not None else None
    return table.decoded[name]


def is_bytecode(table: SourceMapTable) -> bool:
    """Tell whether generated columns are offsets in Hermes bytecode."""
    return _HERMES in table.info["extra"]


def bytecode_column(table: SourceMapTable, segment_id: int, function: int, offset: int) -> int | None:
    """Return the generated column of an offset in a function's bytecode; the generated line is the segment's number.

    None where the map does not know the function.
    """
    offsets = extra(table, _HERMES)
    found = offsets.get(str(segment_id)) if isinstance(offsets, dict) else None
    if not isinstance(found, list) or not 0 <= function < len(found) or not isinstance(found[function], int):
        return None
    column: int = found[function] + offset
    return column


def module_of(file: str) -> tuple[str | None, int | None] | None:
    """Return the segment (None: the main one) and the module that a RAM bundle's file name means.

    A segment that is no RAM bundle (``seg-3.js``) has no module. None for any other name.
    """
    match = _MODULE.fullmatch(file)
    if match is None:
        return None
    segment_id, module, alone = match.groups()
    if alone is not None:
        return None, int(alone)
    return str(int(segment_id)), int(module) if module is not None else None


def module_line(table: SourceMapTable, module: int) -> int | None:
    """Return the generated line at which a RAM bundle's module begins, None where the map does not know it."""
    offsets = extra(table, "x_facebook_offsets")
    if not isinstance(offsets, list) or not 0 <= module < len(offsets):
        return None
    line = offsets[module]
    return line if isinstance(line, int) and not isinstance(line, bool) and line >= 0 else None


def segment(table: SourceMapTable, segment_id: str) -> bytes | None:
    """Return the map of a segment, as JSON, None where the map has none of that id."""
    span = table.info["extra"].get("x_facebook_segments")
    if span is None:
        return None
    if "segments" not in table.decoded:
        raw = table.text[span[0] : span[1]].tobytes()
        try:
            table.decoded["segments"] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            table.decoded["segments"] = {}
    found = table.decoded["segments"].get(segment_id)
    return bytes(found) if found is not None else None
