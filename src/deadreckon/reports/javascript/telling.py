"""What tells JavaScript's stacks from those of other languages: positions with columns, in files that scripts are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from deadreckon.objects.jspaths import scheme
from deadreckon.reports.javascript.lines import read_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadreckon.model.event import Frame

__all__ = ["serialized_error", "stack_text"]

_MOST_CHARACTERS = 65_536
_MOST_LINES = 400
_MOST_LINE = 4096
_FENCES = ("```", "~~~")
_STACKS = ("stack", "stacktrace")
_SCRIPTS = frozenset(
    "js mjs cjs jsx ts tsx mts cts vue svelte html htm xhtml php aspx jsp bundle jsbundle hbc wasm".split()
)
_SCHEMES = frozenset(
    """
    http https file webpack webpack-internal turbopack node blob data capacitor app rsc chrome-extension moz-extension
    safari-extension safari-web-extension resource chrome ext bun deno ng ionic wasm webkit-masked-url
    """.split()
)
_ONLY_HERE = frozenset({"bytecode", "wasm_function", "wasm", "promise_index", "eval_depth"})


def stack_text(text: str) -> bool:
    """Tell whether a text has a frame near its beginning that only a JavaScript engine prints.

    A stack that a document quotes, between fences that don't begin the text, makes it no crash.
    """
    if text[:64].lstrip().startswith("{"):
        return False
    seen = 0
    quoted = False
    for line in text[:_MOST_CHARACTERS].split("\n"):
        stripped = line.strip()
        if not stripped or len(stripped) > _MOST_LINE or stripped.startswith("{"):
            continue
        if stripped.startswith(_FENCES):
            quoted = seen > 0 and not quoted
            continue
        seen += 1
        if seen > _MOST_LINES:
            break
        if quoted:
            continue
        frame = read_line(line.rstrip(" {,]\r") if stripped.startswith("at ") else line)
        if frame is not None and _telling(stripped, frame):
            return True
    return False


def _telling(line: str, frame: Frame) -> bool:
    if frame.details and not _ONLY_HERE.isdisjoint(frame.details):
        return True
    place = frame.abs_path
    if place is None:
        # Of frames without a place, only what no other language prints so.
        return "[native code]" in line or "(created by " in line or line.endswith(("(<anonymous>)", "(native)"))
    if place == "<anonymous>":
        return frame.colno is not None
    if scheme(place) in _SCHEMES:
        return True
    name = place.partition("?")[0].replace("\\", "/").rpartition("/")[2]
    suffix = name.rpartition(".")[2].lower()
    # Java, Python and PHP have lines only.
    alone = line.startswith(("Line ", "at <eval> ", "in "))
    return suffix in _SCRIPTS and suffix != name and (frame.colno is not None or alone)


def serialized_error(members: Mapping[str, msgspec.Raw]) -> bool:
    """Tell whether a JSON object is a serialized error (a stack, and a name or a message), or Hermes' crash data."""
    calls = bytes(members.get("callstack", b""))
    if calls[:1] == b"[" and (b'"FunctionID"' in calls or b'"NativeCode"' in calls):
        return True
    if members.keys().isdisjoint({"name", "message"}):
        return False
    for key in _STACKS:
        raw = bytes(members.get(key, b""))
        if raw[:1] == b'"':
            try:
                text = msgspec.json.decode(raw, type=str)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if stack_text(text):
                return True
    return False
