"""One line of a native stack trace as a frame, whichever tool wrote it.

Each tool's form has its entry in ``_FORMS`` by the character it begins with. Sources: LLVM
``sanitizer_stacktrace_printer.cpp`` (``stack_trace_format``), GDB manual "Backtraces", LLDB ``frame-format``, glibc
``backtrace_symbols(3)``, Linux ``lib/vsprintf.c`` (``%pB``), Chromium ``base/debug/stack_trace*.cc``, V8
``src/base/debug``, Node.js ``DumpNativeBacktrace``, WebKit ``WTFReportBacktrace``, glog and Abseil
``symbolize``/``failure_signal_handler``, Rust ``std::backtrace``, Boost.Stacktrace, Fuchsia's symbolizer, Trusty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Adjusted", "TextFrame", "continuation", "parse"]

_MAX_ADDRESS = (1 << 64) - 1


class Adjusted(Enum):
    """What a tool prints of callers: the address of the call (ready to look up), or the return address."""

    LOOKED_UP = "every address is ready to look up"
    CALLERS_RETURN = "the innermost is exact, the others are return addresses"
    ALL_RETURN = "all are return addresses, as backtrace(3) gives them"


@dataclass(slots=True)
class TextFrame:
    """What a line says. ``number`` counts frames where the form does; ``offset`` is from the module's base."""

    form: str
    adjusted: Adjusted
    number: int | None = None
    address: int | None = None
    function: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    module: str | None = None
    offset: int | None = None
    build_id: str | None = None
    macho: bool = False
    """The module is told to be a Mach-O file, of which the build id is the UUID."""
    inline: bool = False
    signal: bool = False
    """The frame stands for a signal handler's trampoline: the address of the next one is exact."""


_NAMELESS = frozenset(
    """
    ?? <unknown> (unknown) <null> <unavailable> (deleted) <unknown_function> <no_symbol> (No _nosymbol <signal
    """.split()
)
_BUILD_ID = re.compile(r"\(BuildId: ([0-9a-fA-F]{1,128})\)$")
_MODULE_OFFSET = re.compile(r"(.*)\+(0x[0-9a-fA-F]{1,16})", re.DOTALL)
_BARE_MODULE = re.compile(r"(/\S+|\S+\.so)\+(0x[0-9a-fA-F]{1,16})")
_ARCH_SUFFIX = re.compile(r":(?:x86_64h?|i386|arm64e?|armv7[a-z]?)$")
_FUCHSIA = re.compile(r"<([^<>]{0,255}|<[^<>]{1,255}>)>\+(0x[0-9a-fA-F]{1,16})$")
_LINE = re.compile(r":(\d{1,9}|\?)(?::(\d{1,9}))?$")
_OFFSET = re.compile(r"\+(?:0x)?[0-9a-fA-F]{1,16}$")
_ROOT = re.compile(r"[A-Za-z]:[\\/]|[/\\]|\.{1,2}[/\\]|https?://")


def parse(line: str) -> TextFrame | None:
    """Return the frame that a line shows, None where it shows none."""
    text = line.strip()
    if not text:
        return None
    first = text[0]
    if "0x" not in text and not (first in "#[" or first.isdigit()):
        return None  # Nearly every line of a log.
    forms = _FORMS.get("0" if first.isdigit() else first, _OTHERS)
    for form in forms:
        frame = form(text)
        if frame is not None:
            return frame if (frame.address or 0) <= _MAX_ADDRESS and (frame.offset or 0) <= _MAX_ADDRESS else None
    if "#" in text and forms is not _FORMS["#"]:
        return _after_noise(text)
    return None


def continuation(line: str) -> bool:
    """Whether a line goes on with the frame before it: gdb breaks its lines between parts of a frame."""
    text = line.strip()
    return text.startswith(("at ", "from ")) and (":" in text or "/" in text)


_NOISE = re.compile(r"(?:^|[\s|>\]:])(#\d{1,5}\s+0x[0-9a-fA-F]{4,16}\s.*)")


def _after_noise(text: str) -> TextFrame | None:
    """Find a sanitizer's frame behind whatever a log puts before its lines."""
    match = _NOISE.search(text)
    return _numbered(match[1]) if match else None


# --- "#N ...": sanitizers, Chromium, gdb, Fuchsia ---------------------------------------------------------------------

_NUMBERED = re.compile(
    r"#(\d{1,6})(?:\.(\d{1,3}))?:?\s+(?:(?:\[<)?(0x[0-9a-fA-F]{1,16})(?:>\]|(?=\s)|$))?(\s+in\b)?\s*(.*)"
)
_KERNEL_OFFSET = re.compile(r"([\w.$]+)\+(0x[0-9a-f]{1,8})/0x[0-9a-f]{1,8}")


def _numbered(text: str) -> TextFrame | None:
    match = _NUMBERED.fullmatch(text)
    if match is None:
        return None
    number, inlined, address, said_in, rest = match.groups()
    if address is None and (not rest or rest.startswith(("pc ", "0x", "[<"))):
        return None  # Android's frames have addresses of another kind, and a reader of their own.
    frame = TextFrame(
        "san",
        Adjusted.LOOKED_UP,
        int(number),
        int(address, 16) if address else None,
        inline=bool(inlined and int(inlined)),
    )
    if rest.startswith("<signal handler called>"):
        frame.form, frame.adjusted, frame.signal = "gdb", Adjusted.CALLERS_RETURN, True
        return frame
    if kernel := _KERNEL_OFFSET.fullmatch(rest):  # The Linux Kernel Library
        frame.function, frame.adjusted = kernel[1], Adjusted.CALLERS_RETURN
        return frame
    tail = _take_module(frame, rest)
    if frame.module is None and (gdb := _gdb(frame, rest)) is not None:
        return gdb
    located = _take_location(frame, tail)
    if address is None and frame.module is None and not located:
        return None
    if not said_in and frame.function is not None and frame.module is None and address is not None:
        frame.form, frame.adjusted = "chromium", Adjusted.ALL_RETURN
    return frame


def _gdb(frame: TextFrame, rest: str) -> TextFrame | None:
    """``func (args) at file:line`` or ``func (args) from library``; a space before the arguments tells gdb."""
    end = rest.rfind(" at ")
    library = rest.rfind(" from ")
    head = rest
    if end > 0 and (at := _LINE.search(rest)) and rest[:end].endswith(")"):
        head, frame.file, frame.line = rest[:end], rest[end + 4 : at.start()], _number(at[1])
    elif library > 0 and rest[:library].endswith(")"):
        head, frame.module = rest[:library], rest[library + 6 :]
    if not head.endswith(")"):
        return None
    opened = _arguments(head)
    if opened < 1:
        frame.file = frame.line = frame.module = None
        return None
    frame.form, frame.adjusted = "gdb", Adjusted.CALLERS_RETURN
    frame.function = _name(head[:opened])
    return frame


def _arguments(text: str) -> int:
    """Return where gdb's list of arguments begins: a bracket after a space, outside of all others; -1 if nowhere.

    The arguments themselves may be texts with any brackets, so this looks from the left.
    """
    depth = 0
    at = 0
    while at < len(text):
        if text.startswith("operator", at):
            at += len("operator")
            while at < len(text) and text[at] in "<>()-=":  # operator<, operator->, operator()
                at += 1
            continue
        letter = text[at]
        if letter == "(" and not depth and at and text[at - 1] == " ":
            return at
        depth += (letter in "(<") - (letter in ")>")
        depth = max(depth, 0)
        at += 1
    return -1


def _take_module(frame: TextFrame, rest: str) -> str:
    """Take build id and module with offset off the end of a line; return what is before them."""
    if match := _BUILD_ID.search(rest):
        frame.build_id, rest = match[1].lower(), rest[: match.start()].rstrip()
    if match := _FUCHSIA.search(rest):
        frame.module, frame.offset = match[1].strip("<>") or "<application>", int(match[2], 16)
        return rest[: match.start()].rstrip()
    if rest.endswith("(<unknown module>)"):
        return rest[: -len("(<unknown module>)")].rstrip()
    if match := _BARE_MODULE.fullmatch(rest):  # Chromium on Android
        frame.module, frame.offset = match[1], int(match[2], 16)
        return ""
    if rest.endswith(")"):
        opened = _opening(rest)
        match = _MODULE_OFFSET.fullmatch(rest, opened + 1, len(rest) - 1) if opened >= 0 else None
        if match and match[1]:
            frame.module, frame.offset = _ARCH_SUFFIX.sub("", match[1]), int(match[2], 16)
            frame.macho = frame.module != match[1]
            return _OFFSET.sub("", rest[:opened].rstrip())
    return rest


def _take_location(frame: TextFrame, rest: str) -> bool:
    """Read ``function file:line:column``, each part optional; return whether there is a file."""
    rest = rest.strip().removesuffix("<null>").rstrip()
    if rest.startswith("in "):
        rest = rest[3:].lstrip()
    if rest.endswith("]") and " [" in rest and _LINE.search(rest[:-1]):
        rest = rest[:-1].replace(" [", " ", 1)  # Chromium's own symbolizer puts the place in brackets.
    match = _LINE.search(rest.removesuffix(";"))
    if match is None:
        _take_name(frame, rest)
        return False
    head = rest[: match.start()]
    split = _split(head)
    path = head[split:].strip()
    if path not in {"", "??"}:
        frame.file, frame.line, frame.column = path, _number(match[1]), _number(match[2])
    _take_name(frame, head[:split])
    return frame.file is not None


_LIBRARY = re.compile(
    r"(?:[/\\]|[A-Za-z]:\\)?\S*(?:\.so(?:\.\d+)*|\.dll|\.exe|\.dylib|\.elf)|\[(?:vdso|vsyscall|heap|stack)\]"
)


def _take_name(frame: TextFrame, text: str) -> None:
    """Take what stands for the function; some symbolizers give the module's name where they know no more."""
    name = _name(text)
    if name is not None and frame.module is None and _LIBRARY.fullmatch(name):
        frame.module = name
    else:
        frame.function = name


def _split(text: str) -> int:
    """Return where the path begins in ``function path``: after a space outside of all brackets.

    A path may have spaces, so the first that begins like an absolute or relative one counts, else the last word.
    """
    depth = 0
    last = 0
    for at, letter in enumerate(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth = max(depth - 1, 0)
        elif letter == " " and not depth:
            if _ROOT.match(text, at + 1) and not text.endswith("operator", 0, at):
                return at + 1
            last = at + 1
    return last


def _opening(text: str) -> int:
    """Return where the bracket opens that the last character closes, -1 where it does nowhere."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        if text[at] == ")":
            depth += 1
        elif text[at] == "(":
            depth -= 1
            if not depth:
                return at
    return -1


def _name(text: str | None) -> str | None:
    text = (text or "").strip()
    return None if not text or text.split(None, 1)[0] in _NAMELESS else text


def _number(text: str | None) -> int | None:
    return int(text) or None if text and text.isdigit() else None


# --- Forms that begin otherwise ---------------------------------------------------------------------------------------

_BRACKETED = re.compile(r"\[(0x[0-9a-fA-F]{1,16})\]$")
_KERNEL = re.compile(
    r"(?:\[<\s*(?:0x)?([0-9a-f]{8,16}|inline|none|\(ptrval\)|\(____ptrval____\))\s*>\])?\s*(\?\s+)?"
    r"([\w.$]+)(?:\+(0x[0-9a-f]{1,8})/0x[0-9a-f]{1,8})?(?:\s\[([\w-]+)[^\]]*\])?(?:\s+(\S+):(\d{1,9}))?$",
    re.ASCII,
)
_WINDOWS = re.compile(r"\[(0x[0-9a-fA-F]{1,16})\+(\d{1,12})\](?:\s\((.+):(\d{1,9})\))?")
_COUNTED = re.compile(r"(\d{1,5})(#|:)?\s+(.+)")
_APPLE = re.compile(r"\s(0x[0-9a-fA-F]{8,16})\s")
_ADDRESS_FIRST = re.compile(r"(0x[0-9a-fA-F]{1,16})(?:\s+(.+))?$")
_GLOG = re.compile(r"(?:PC: )?@\s+(0x[0-9a-fA-F]{1,16})\s+(?:(\d{1,10})\s+)?(.+)$")
_LLDB = re.compile(r"(?:\* )?frame #(\d{1,6}): (0x[0-9a-fA-F]{1,16})(?: ([^`]+)`(.+?))?(?: \+ (\d{1,20}))?")
_TRUSTY = re.compile(r"[ku]SP\+0x[0-9a-f]{1,8}: (0x[0-9a-fA-F]{1,16}) in (.+)")
_MARKUP = re.compile(r"\{\{\{bt:(\d{1,6}):(0x[0-9a-fA-F]{1,16})(?::(ra|pc))?(?::[^}]*)?\}\}\}")


def _bracket(text: str) -> TextFrame | None:
    """``[0x...]`` of glibc, ``[<addr>] symbol+off/size`` of the kernel."""
    match = _BRACKETED.fullmatch(text)
    if match:
        return TextFrame("glibc", Adjusted.ALL_RETURN, None, int(match[1], 16))
    return _kernel(text)


def _kernel(text: str) -> TextFrame | None:
    match = _KERNEL.fullmatch(text)
    if match is None or (match[4] is None and match[1] is None):
        return None
    if match[2]:
        return TextFrame("kernel", Adjusted.CALLERS_RETURN, signal=True)  # A stale word on the stack, the kernel says.
    address = int(match[1], 16) if match[1] and match[1][0] not in "in(" else None
    if address is not None and len(match[1]) == 16 and not address >> 47:
        address = None  # Since Linux 4.15 a hash takes the place of the pointer: android_kernel_kasan_510.txt
    return TextFrame(
        "kernel",
        Adjusted.CALLERS_RETURN,
        address=address,
        function=match[3],
        file=match[6],
        line=_number(match[7]),
        module=match[5],
        inline=match[1] == "inline",
    )


def _glibc(text: str) -> TextFrame | None:
    """``library(symbol+0xoff) [0xaddress]``, and what else ends with an address in brackets."""
    match = _BRACKETED.search(text)
    if match is None:
        return _windows(text)
    head = text[: match.start()].rstrip()
    frame = TextFrame("glibc", Adjusted.ALL_RETURN, None, int(match[1], 16))
    opened = _opening(head) if head.endswith(")") else -1
    offset = _MODULE_OFFSET.fullmatch(head, opened + 1, len(head) - 1) if opened > 0 else None
    if offset or (opened > 0 and head[opened:] == "()" and "/" in head):
        frame.module = head[:opened].strip()
        if offset:
            frame.function = _name(offset[1])
            frame.offset = int(offset[2], 16) if frame.function is None else None
    else:
        frame.function = _name(head)  # Cobalt prints demangled names only.
    return frame


def _windows(text: str) -> TextFrame | None:
    """``function [0xaddress+offset] (file:line)`` of Chromium on Windows."""
    at = text.rfind("[0x")
    match = _WINDOWS.fullmatch(text, at) if at > 0 else None
    if match is None:
        return _kernel(text) if "/0x" in text else None
    return TextFrame(
        "windows",
        Adjusted.ALL_RETURN,
        address=int(match[1], 16),
        function=_name(text[:at]),
        file=match[3],
        line=_number(match[4]),
    )


def _counted(text: str) -> TextFrame | None:
    """``N module 0xaddress symbol + offset`` (Apple), ``N 0xaddress symbol`` (WebKit), ``N: 0x...``, ``N# ...``."""
    match = _COUNTED.match(text)
    if match is None:
        return None
    number, mark, rest = int(match[1]), match[2], match[3].strip()
    address = _ADDRESS_FIRST.match(rest)
    if mark == "#":
        return _boost(number, rest)
    if address:
        frame = TextFrame("counted", Adjusted.ALL_RETURN, number, int(address[1], 16))
        symbol = (address[2] or "").removeprefix("- ").strip()
        if symbol.endswith("]") and " [" in symbol:  # Node: the module's path
            at = symbol.rindex(" [")
            symbol, frame.module = symbol[:at], symbol[at + 2 : -1]
        if mark is None and symbol.startswith("["):
            return None
        frame.function = _name(symbol)
        return frame
    apple = _APPLE.search(rest) if mark is None else None
    if apple is None:
        return None
    frame = TextFrame("apple", Adjusted.ALL_RETURN, number, int(apple[1], 16), module=rest[: apple.start()].strip())
    symbol, _, offset = rest[apple.end() :].rpartition(" + ")
    if not offset.isdecimal():
        symbol, offset = rest[apple.end() :], ""
    if _name(symbol) is None and offset:
        frame.offset = int(offset[:20])
    elif not symbol.startswith("0x"):
        frame.function = _name(symbol)
    if frame.module == "???":
        frame.module = None
    return frame


def _boost(number: int, rest: str) -> TextFrame | None:
    frame = TextFrame("boost", Adjusted.ALL_RETURN, number)
    if address := _ADDRESS_FIRST.match(rest):
        frame.address, rest = int(address[1], 16), address[2] or ""
    head, found, place = rest.rpartition(" at ")
    if found and (match := _LINE.search(place)):
        frame.function, frame.file, frame.line = _name(head), place[: match.start()], _number(match[1])
        return frame
    head, found, place = (" " + rest).rpartition(" in ")
    if found:
        frame.function, frame.module = _name(head), place
        return frame
    frame.function = _name(rest)
    return frame if frame.address is not None else None


def _at_sign(text: str) -> TextFrame | None:
    match = _GLOG.fullmatch(text)
    if match is None:
        return None
    return TextFrame("glog", Adjusted.ALL_RETURN, None, int(match[1], 16), _name(match[3]))


def _frame_word(text: str) -> TextFrame | None:
    """``frame #N: 0xaddress module`function + offset at file:line:column`` of LLDB."""
    head, found, place = text.rpartition(" at ")
    where = _LINE.search(place) if found else None
    match = _LLDB.fullmatch(head if where else text)
    if match is None:
        return _glibc(text)
    frame = TextFrame("lldb", Adjusted.CALLERS_RETURN, int(match[1]), int(match[2], 16), _name(match[4]))
    frame.module = match[3]
    if where:
        frame.file, frame.line, frame.column = place[: where.start()], _number(where[1]), _number(where[2])
    return frame


def _trusty(text: str) -> TextFrame | None:
    match = _TRUSTY.fullmatch(text)
    if match is None:
        return _glibc(text)
    frame = TextFrame("trusty", Adjusted.CALLERS_RETURN, None, int(match[1], 16))
    _take_location(frame, match[2])
    return frame


def _markup(text: str) -> TextFrame | None:
    """``{{{bt:number:address:kind}}}`` of LLVM's symbolizer markup; without a kind, only the innermost is exact."""
    match = _MARKUP.fullmatch(text)
    if match is None:
        return None
    adjusted = {"ra": Adjusted.ALL_RETURN, "pc": Adjusted.LOOKED_UP}.get(match[3] or "", Adjusted.CALLERS_RETURN)
    return TextFrame("markup", adjusted, int(match[1]), int(match[2], 16))


_Forms = tuple["Callable[[str], TextFrame | None]", ...]
_OTHERS: _Forms = (_glibc,)
_FORMS: dict[str, _Forms] = {
    "#": (_numbered,),
    "[": (_bracket, _glibc),
    "?": (_kernel,),
    "0": (_counted, _glibc),
    "@": (_at_sign,),
    "P": (_at_sign, _glibc),
    "f": (_frame_word,),
    "*": (_frame_word,),
    "k": (_trusty,),
    "u": (_trusty,),
    "{": (_markup,),
}
