"""One line of an ``Error.stack``, of any engine's: read from right to left, in time that grows with its length only.

Positions stand at the end (``:line:column``), locations before them, and both URLs and functions may contain any of
the characters that separate them. So the last position is taken first, then the parenthesis that encloses it, and what
is left is the function's. Nothing is tried twice.

Shapes (the name of an engine stands for what it is in): V8 (Chrome, Node, Deno, Edge, Opera), Bun, Hermes, QuickJS and
Internet Explorer print ``at function (location)``; SpiderMonkey (Firefox) and JavaScriptCore (Safari, React Native)
``function@location``; Opera up to 12 prints sentences; React's component stacks ``in Component (at file:line)``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deadreckon.model.event import Frame
from deadreckon.objects import jspaths

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["frame_of", "is_location", "note_module", "read_line"]

_NAMELESS = frozenset(
    {
        "",
        "?",
        "<anonymous>",
        "(anonymous)",
        "anonymous function",
        "<anonymous function>",
        "<unknown>",
        "unknown",
        "(null)",
    }
)
_NATIVE = frozenset({"native", "native code", "[native code]", "<native>"})
_NOWHERE = frozenset({"unknown", "unknown location", "<unknown>", "unknown source", "<unknown module>"})
_CODE_OF = ("eval code", "global code", "module code", "Function code", "anonymous code")
_MOST_DIGITS = 10
_EVAL = "eval at "
_WASM_FUNCTION = "wasm-function["


def frame_of(
    function: str | None, place: str | None, line: int | None, column: int | None, details: dict[str, Any] | None = None
) -> Frame:
    """Return the frame of a function at a location as its engine prints both; line and column are the engine's own."""
    filename, ours = _judged(place) if place else (None, None)
    frame = Frame(
        status="symbolicated" if function else "missing_symbol",
        lang="javascript",
        function=function,
        filename=filename,
        abs_path=place,
        lineno=line,
        colno=column,
        in_app=ours,
    )
    if details:
        if "native" in details:
            frame.in_app = False
        frame.args = details.pop("arguments", None)
        frame.details = details or None
    return frame


@lru_cache(maxsize=4096)
def _judged(place: str) -> tuple[str, bool]:
    return jspaths.readable(place), jspaths.in_app(place)


def read_line(line: str, *, bare: bool = False) -> Frame | None:
    """Return the frame that a line of a stack shows, None for a line that shows none.

    ``bare`` tells that a name alone is a frame, as in JavaScriptCore's stacks of evaluated code.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith(("at ", "at(")):
        return _at(text[2:].lstrip())
    shaped = _SENTENCES.get(text[:5])
    if shaped is not None and (sentence := shaped(text)) is not None:
        return sentence
    if text.startswith("Error created at "):  # Where Opera 11 made the error, once more
        return None
    if "@" in text:
        found = _around_at_sign(text)
        if found is not None:
            return found
    if text.startswith("in ") and line[:1].isspace():
        return _component(text[3:])
    if text.startswith("(error: ") and text.endswith(")"):
        return _located(None, text[1:-1], {})
    if text in _NATIVE:
        return frame_of(None, None, None, None, {"native": True})
    if text in _CODE_OF:
        return frame_of(text, None, None, None)
    return _bare_location(text) or (frame_of(text, None, None, None) if bare and _is_name(text) else None)


# -- at function (location) -------------------------------------------------------------------------------------------


def _at(text: str) -> Frame | None:
    details: dict[str, Any] = {}
    if text.startswith("async "):
        details["is_async"] = True
        text = text[6:].lstrip()
    opened = _enclosed(text)
    if opened < 0:
        mangled = _around_at_sign(text) if "@" in text and "://" not in text.partition("@")[0] else None
        return mangled or _located(None, text, details, alone=True)
    function = text[:opened].rstrip()
    place = text[opened + 1 : -1] if text.endswith(")") else text[opened + 1 :]
    if function.endswith(":") and place.startswith("//"):
        # A URL that was torn apart: safari-web-extension:(//id/a.js:1:2)
        name, _, kind = function.rpartition("@")
        return _located(name, kind + place, details)
    if "Error: " in function:
        return None
    return _located(function, place, details)


def _enclosed(text: str) -> int:
    """Return where the parenthesis opens that the last character closes, -1 where there is none.

    A parenthesis that is never closed (a stack cut off, or what somebody pasted) ends with the line.
    """
    if text.endswith(")"):
        inner = 0
        closing, opening = text.rfind(")", 0, -1), text.rfind("(")
        while opening >= 0:
            if closing > opening:
                inner += 1
                closing = text.rfind(")", 0, closing)
            elif inner:
                inner -= 1
                opening = text.rfind("(", 0, opening)
            else:
                return opening
        return text.find("(")
    at = text.rfind(" (")
    return at + 1 if at >= 0 and text.count("(") > text.count(")") else -1


def _located(function: str | None, place: str, details: dict[str, Any], *, alone: bool = False) -> Frame | None:
    """Return the frame of a location in V8's style; ``alone`` where no function and no parentheses are around it."""
    place = place.strip()
    if place.startswith("error: "):  # webpack's wrapper of an error in a module
        place = place[7:].strip()
        if place.startswith("(") and place.endswith(")"):
            place = place[1:-1]
        alone = False
    if place.startswith("async "):
        details["is_async"] = True
        place = place[6:]
    if place.startswith("address at "):
        # Hermes: an offset in the bytecode, which is counted from 0.
        details["bytecode"] = details["column_is_0based"] = True
        place = place[11:]
    name = _name(function)
    if place in _NATIVE or place.startswith("native:"):
        return frame_of(name, None, None, None, details | {"native": True})
    if place == "<anonymous>":
        return frame_of(name, None, None, None, details | {"native": True})
    if place in _NOWHERE or place.startswith("unknown:"):
        return frame_of(name, None, None, None, details)
    if place.startswith("index ") and place[6:].isdecimal():
        return frame_of(name, None, None, None, details | {"promise_index": int(place[6 : 6 + _MOST_DIGITS])})
    if place.startswith(_EVAL):
        return _evaluated(name, place, details)
    wasm = place.rfind(_WASM_FUNCTION)
    if wasm >= 0:
        return _wasm(name, place, wasm, details)
    file, line, column = _position(place)
    if line is None and (alone or not is_location(file)):
        return None
    if file in _CODE_OF:
        details["eval_depth"] = 1
    if not file:
        return frame_of(name, None, line or None, column if line else None, details)
    note_module(file, details)
    return frame_of(name, file, line, column, details)


def _name(function: str | None) -> str | None:
    if function is None or function in _NAMELESS:
        return None
    if function.startswith("?anon_"):  # Hermes: the body of a generator or async function
        return function.removeprefix("?anon_").partition("_")[2] or None
    return function


def _evaluated(function: str | None, place: str, details: dict[str, Any]) -> Frame | None:
    """Return the frame of evaluated code: where the evaluation was asked for, innermost origin first in the text.

    ``eval at foo (eval at bar (file:1:2)), <anonymous>:3:4``.
    """
    close = len(place) if place.endswith(")") else place.rfind("), ") + 1
    within, tail = (place[:close], place[close + 2 :]) if close else (place, "")
    if close:
        depth = within.count(_EVAL)
        origin = within[within.rfind(_EVAL) + len(_EVAL) :]
        origin = origin[: len(origin) - depth + 1] if depth > 1 and origin.endswith(")" * depth) else origin
        opened = _enclosed(origin)
        origin = origin[opened + 1 : -1] if opened >= 0 else origin
    else:  # Without parentheses: eval at file:1:2
        depth = 1
        origin = within[len(_EVAL) :]
    details["eval_depth"] = depth
    _, line, column = _position(tail)
    if line is not None:
        details["eval_lineno"] = line
        if column is not None:
            details["eval_colno"] = column
    file, line, column = _position(origin)
    if not file:
        return frame_of(function, None, None, None, details)
    return frame_of(function, file, line, column, details)


def _wasm(function: str | None, place: str, at: int, details: dict[str, Any]) -> Frame | None:
    """Return the frame of WebAssembly: ``url:wasm-function[index]:0xoffset``."""
    index, bracket, tail = place[at + len(_WASM_FUNCTION) :].partition("]")
    if not bracket:
        return None
    if index.isdecimal():
        details["wasm_function"] = int(index[:_MOST_DIGITS])
    offset = tail.removeprefix(":").removeprefix("0x")
    try:
        details["wasm_offset"] = int(offset[:16], 16)
    except ValueError:
        pass
    if function is None and index and not index.isdecimal():
        function = index
    return frame_of(function, place[:at].removesuffix(":") or None, None, None, details)


# -- function@location ------------------------------------------------------------------------------------------------


def _around_at_sign(text: str) -> Frame | None:
    split = _at_sign(text)
    function, place = text[:split], text[split + 1 :]
    details: dict[str, Any] = {}
    if place in {"[wasm code]", "[wasm code] "}:
        details["wasm"] = True
        called = function.rpartition(_WASM_FUNCTION)[2].removesuffix("]")
        if called.isdecimal():
            details["wasm_function"] = int(called[:_MOST_DIGITS])
        return frame_of(None if called.isdecimal() else _name(called), None, None, None, details)
    if place in _NATIVE:
        return frame_of(_gecko_name(function, details, arguments=False), None, None, None, details | {"native": True})
    wasm = place.rfind(_WASM_FUNCTION)
    if wasm >= 0:
        return _wasm(_gecko_name(function, details, arguments=False), place, wasm, details)
    place = place.rpartition(" -> ")[2]  # Firefox: a script that another one loaded
    file, line, column = _position(place)
    if column is None and file.isdecimal() and len(file) <= _MOST_DIGITS:
        file, line, column = "", int(file), line  # React Native's release builds print no file.
    if line is None or not (file or column is not None):
        return None
    evaluated = _gecko_eval(file, line, column, details) if " > " in file and " line " in file else None
    if evaluated is not None:
        file, line, column = evaluated
    name = _gecko_name(function, details, arguments=column is None and "eval_depth" not in details)
    note_module(file, details)
    return frame_of(name, file or None, line, column, details)


def _at_sign(text: str) -> int:
    """Return which @ separates function and location: the first one that a whole URL or path follows, else the last."""
    at = text.find("@")
    tried = 0
    while at >= 0 and tried < 64:
        follows = text[at + 1 : at + 48]
        if follows[:1] in {"/", "["} or follows[1:3] in {":\\", ":/"} or jspaths.has_scheme(follows):
            return at
        tried += 1
        at = text.find("@", at + 1)
    return text.rfind("@")


def _gecko_eval(
    file: str, line: int, column: int | None, details: dict[str, Any]
) -> tuple[str, int, int | None] | None:
    """Return where evaluated code was asked for: ``file line 26 > eval line 2 > eval``; the position is within it."""
    place, _, rest = file.partition(" line ")
    number = rest.partition(" > ")[0]
    if not number.isdecimal() or len(number) > _MOST_DIGITS:
        return None
    details["eval_depth"] = rest.count(" > ")
    details["eval_lineno"] = line
    if column is not None:
        details["eval_colno"] = column
    return place, int(number), None


def _gecko_name(function: str, details: dict[str, Any], *, arguments: bool) -> str | None:
    cause, star, name = function.partition("*")
    if star and cause and cause.replace(" ", "a").replace(".", "a").replace(":", "a").isalnum():
        # async*f, promise callback*f, setTimeout handler*f: what was waited for before f.
        details["is_async"] = True
        function = name
    if function.startswith("async "):
        details["is_async"] = True
        function = function[6:]
    if function.startswith("<anonymous function: "):  # Opera
        function = function[21:].partition(">")[0]
    elif arguments and function.endswith(")"):
        # Firefox up to 3.6 and Opera print arguments, and neither prints columns.
        opened = _enclosed(function)
        inside = function[opened + 1 : -1]
        if inside and inside != "[arguments not available]":
            details["arguments"] = inside[:1024].split(",")
        function = function[:opened]
    return _name(function)


def _bare_location(text: str) -> Frame | None:
    """Return the frame of a line that is a location: an unnamed function of JavaScriptCore's."""
    file, line, column = _position(text)
    if line is None or column is None or not is_location(file) or " " in file.partition("?")[0].strip():
        return None
    details: dict[str, Any] = {}
    note_module(file, details)
    return frame_of(None, file, line, column, details)


# -- sentences --------------------------------------------------------------------------------------------------------


def _opera_linked(text: str) -> Frame | None:
    """``Line 43 of linked script URL[: In function f]``, ``Line 4 of inline#1 script in URL: In function f``."""
    number, of, rest = text[5:].partition(" of ")
    if not of or not number.isdecimal() or len(number) > _MOST_DIGITS:
        return None
    place, named, function = rest.partition(": In function ")
    _, script, place = place.partition("script")
    if not script:
        return None
    place = place.strip().removeprefix("in ").strip()
    return frame_of(_name(function.strip()) if named else None, place or None, int(number), None)


def _opera_called(text: str) -> Frame | None:
    """``called from line 27, column 8 in f(x) in URL:``, ``Error thrown at line 42, column 12 in URL:``."""
    _, found, rest = text.partition(" line ")
    number, comma, rest = rest.partition(", column ")
    column, inside, rest = rest.partition(" in ")
    if not (found and comma and inside and number.isdecimal() and column.isdecimal()):
        return None
    if len(number) > _MOST_DIGITS or len(column) > _MOST_DIGITS:
        return None
    function, separate, place = rest.rpartition(") in ")
    details: dict[str, Any] = {}
    name = _gecko_name(function + ")", details, arguments=True) if separate else None
    return frame_of(name, place.removesuffix(":") or None, int(number), int(column), details)


def _skipped(text: str) -> Frame | None:
    """``... skipping 120 frames`` of Hermes, in the middle of a deep stack."""
    number = text[13:].partition(" ")[0]
    if not number.isdecimal() or not text.endswith("frames"):
        return None
    return frame_of(None, None, None, None, {"skipped": int(number[:_MOST_DIGITS])})


_SENTENCES: dict[str, Callable[[str], Frame | None]] = {
    "Line ": _opera_linked,
    "calle": _opera_called,
    "Error": _opera_called,
    "... s": _skipped,
}


def _component(text: str) -> Frame | None:
    """``in Button (created by App)``, ``in Button (at Button.tsx:16)``, ``in Button`` of React's component stacks."""
    function, opened, place = text.partition(" (")
    if not _is_name(function.partition(" ")[0]):
        return None
    if not opened:
        return frame_of(function, None, None, None, {"component": True}) if _is_name(function) else None
    if not place.endswith(")"):
        return None
    if place.startswith("at "):
        file, line, column = _position(place[3:-1])
        return frame_of(_name(function), file, line, column, {"component": True}) if line is not None else None
    return frame_of(_name(function), None, None, None, {"component": True}) if place.startswith("created by ") else None


# -- pieces -----------------------------------------------------------------------------------------------------------


def _position(text: str) -> tuple[str, int | None, int | None]:
    """Return (what stands before, line, column) of ``file:line:column`` and ``file:line``."""
    file, last = _number_behind(text)
    if last is None:
        return text, None, None
    before, line = _number_behind(file)
    if line is not None:
        return before, line, last
    # A port is no line.
    kind, separator, host = file.partition("://")
    if separator and "/" not in host and kind.isalnum():
        return text, None, None
    return file, last, None


def _number_behind(text: str) -> tuple[str, int | None]:
    _, colon, digits = text[-_MOST_DIGITS - 1 :].rpartition(":")
    if not colon or not digits.isdecimal() or not digits.isascii():
        return text, None
    return text[: len(text) - len(digits) - 1], int(digits)


def is_location(text: str) -> bool:
    """Tell whether a text can be a script's path or URL, as opposed to a piece of a message."""
    if not text:
        return False
    if text.startswith(("/", "<", "./", "../", "data:", "blob:", "webpack")) or "://" in text[:40]:
        return '"' not in text[:256] or text.startswith("data:")
    return not any(c in text[:256] for c in " \t\"',;()")


def _is_name(text: str) -> bool:
    return bool(text) and len(text) < 256 and text.replace(".", "a").replace("$", "a").replace("#", "a").isidentifier()


def note_module(file: str, details: dict[str, Any]) -> None:
    """Note which part of a React Native bundle a file is: ``123.js``, ``seg-3.js``, ``seg-3_12.js``."""
    name = file.rpartition("/")[2]
    if not name.endswith(".js") or not (name[0].isdecimal() or name.startswith("seg-")):
        return
    name = name[:-3]
    if name.startswith("seg-"):
        segment, underscore, name = name[4:].partition("_")
        if not segment.isdecimal() or (underscore and not name.isdecimal()):
            return
        details["ram_segment"] = int(segment[:_MOST_DIGITS])
    if name.isdecimal():
        details["ram_module"] = int(name[:_MOST_DIGITS])
