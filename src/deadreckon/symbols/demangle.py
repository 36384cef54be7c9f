"""Readable names of C++ and Rust symbols; every other name is returned as it is.

Itanium C++ names (https://itanium-cxx-abi.github.io/cxx-abi/abi.html#mangling) go to ``__cxa_demangle`` of the
platform's C++ runtime. That function has no limits of its own: names of 200 bytes exist that expand to 35 MB, and
others that take it seconds to parse. So a symbol is sized first, see :class:`_Sizer`. Rust's legacy names are Itanium
names with a hash (https://doc.rust-lang.org/rustc/symbol-mangling/legacy.html), its v0 names have a grammar of their
own (rust_v0.py). MSVC and Swift names stay raw.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from deadreckon.config import SymbolLimits
from deadreckon.symbols import rust_v0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["backend", "brackets", "demangle", "expansion", "flatten", "strip_arguments"]

_LIMITS = SymbolLimits()
_MAX_EXPANSION = 4 * _LIMITS.max_demangle_output
"""What ``expansion()`` may say; it is a few times what really comes out. 256 KiB cost the C function 5 ms."""

_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.1.dylib")


def demangle(name: str, *, arguments: bool = True) -> str:
    """Return the readable form of a symbol, or the symbol itself where it has none.

    Clone suffixes (``.cold``, ``.part.0``) print as c++filt prints them, symbol versions (``@@GLIBCXX_3.4``) are kept.
    ``arguments=False`` gives the qualified name alone: no return type, parameters, qualifiers or clone notes. A name
    longer than ``SymbolLimits.max_demangle_input``, or one that expands beyond ``max_demangle_output`` bytes, is
    returned as it is. Never raises.
    """
    # Most of the names of a C library are not mangled, and the ones too long are not worth a cache's memory.
    if len(name) > _LIMITS.max_demangle_input or not name.startswith(("_Z", "_R", "__Z", "__R", "___Z", "____Z")):
        return name
    return _readable(name, arguments)


@lru_cache(maxsize=16_384)
def _readable(name: str, arguments: bool) -> str:  # noqa: FBT001
    found = _whole(name)
    if found is None:
        return name
    return found if arguments else strip_arguments(found)


@cache
def backend() -> str | None:
    """Return the library whose ``__cxa_demangle`` is in use, None where there is none and C++ names stay raw."""
    loaded = _runtime()
    return loaded[0] if loaded else None


@cache
def _runtime() -> tuple[str, Callable[[bytes], bytes | None]] | None:
    for library in _RUNTIMES:
        try:
            cxa = ctypes.CDLL(library)["__cxa_demangle"]
            free = ctypes.CDLL(None)["free"]
        except (OSError, AttributeError):
            continue
        cxa.restype = ctypes.c_void_p
        cxa.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        free.restype = None
        free.argtypes = (ctypes.c_void_p,)

        return library, partial(_call, cxa, free)
    return None


def _call(cxa: Callable[..., int | None], free: Callable[[int], None], symbol: bytes) -> bytes | None:
    text = cxa(symbol, None, None, None)
    if not text:
        return None
    try:
        return ctypes.string_at(text)
    finally:
        free(text)


# --- Which language -------------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"__?(_+Z.+)_block_invoke(?:[._]?[0-9]+)?", re.DOTALL)
_CLONES = re.compile(r"(?:\.[A-Za-z0-9_$]+)+$")
_CLONE = re.compile(r"\.[A-Za-z0-9_$]+(?:\.[0-9]+)*")
_RUST_LEGACY = re.compile(r"_ZN(.+)17h[0-9a-f]{16}E(?:\.llvm\.[0-9A-F]+)?", re.DOTALL)


def _whole(name: str) -> str | None:
    if block := _BLOCK.fullmatch(name):
        # Clang names a block's body after the function around it; only LLVM's demangler knows it.
        inner = _whole(block[1])
        return None if inner is None else f"invocation function for block in {inner}"
    if name.startswith(("__Z", "__R")):  # Mach-O prefixes every C-visible name with an underscore.
        name = name[1:]
    name, at, version = name.partition("@")
    found = rust_v0.demangle(name) if name.startswith("_R") else _rust_legacy(name) or _cloned(name)
    return None if found is None else found + at + version


def _cloned(name: str) -> str | None:
    # A dot may also stand inside an identifier, where cutting there leaves nothing that demangles.
    if suffix := _CLONES.search(name):
        base = _itanium(name[: suffix.start()])
        if base is not None:
            return base + "".join(f" [clone {part}]" for part in _CLONE.findall(suffix[0]))
    return _itanium(name)


def _itanium(name: str) -> str | None:
    runtime = _runtime()
    if runtime is None or not name.startswith("_Z") or "\0" in name:
        return None
    try:
        symbol = name.encode()
    except UnicodeEncodeError:
        return None
    bound = expansion(symbol)
    if bound is None or bound > _MAX_EXPANSION:
        return None
    text = runtime[1](symbol)
    if text is None or len(text) > _LIMITS.max_demangle_output:
        return None
    return text.decode("utf-8", "replace")


_RUST_ESCAPES = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_RUST_ESCAPE = re.compile(r"\$(?:(SP|BP|RF|LT|GT|LP|RP|C)|u([0-9a-f]{1,6}))\$|\.\.")


def _rust_legacy(name: str) -> str | None:
    match = _RUST_LEGACY.fullmatch(name)
    if match is None:
        return None
    rest = match[1]
    parts: list[str] = []
    while rest:
        digits = re.match(r"[1-9][0-9]{0,3}", rest)
        if digits is None:
            return None
        start = digits.end()
        end = start + int(digits[0])
        part = rest[start:end]
        if len(part) != end - start:
            return None
        # An identifier can't start with a dollar sign, so the compiler puts an underscore before an escape.
        parts.append(_RUST_ESCAPE.sub(_rust_unescape, part[1:] if part.startswith("_$") else part))
        rest = rest[end:]
    return "::".join(parts)


def _rust_unescape(match: re.Match[str]) -> str:
    if match[1]:
        return _RUST_ESCAPES[match[1]]
    if match[2]:
        value = int(match[2], 16)
        printable = 0x20 <= value < 0x7F or 0xA0 <= value < 0xD800 or 0xE000 <= value < 0x110000
        return chr(value) if printable else match[0]
    return "::"


# --- How far a C++ symbol expands -----------------------------------------------------------------------------------

_MULTIPLIER = re.compile(rb"Dp|sp|sr[0-9a-zCUL]")
_REFERENCE = re.compile(rb"[ST][0-9A-Z]*_")
_MAX_DEPTH = 96
_MAX_PASSES = 8
_MAX_CONVERSIONS = 6
"""libiberty parses the arguments of ``cvT_I...E`` twice where they aren't followed by others, so nested ones double."""
_WIDEST = 24
"""No character of a mangled name prints more than this by itself (``Sd``: ``std::basic_iostream<char, ...>``, 50)."""
_TYPE_COST = 18
"""``unsigned long long`` and a separator's share."""


def expansion(symbol: bytes) -> int | None:
    """Return an upper bound of the demangled length of an Itanium symbol in bytes, None if the symbol is refused.

    What is bounded is the tree that the symbol's back-references unfold to, so it bounds the demangler's work as well.
    Linear in the length of the symbol.
    """
    length = len(symbol)
    # With r references the text doubles at most r times; this alone clears most symbols. Packs and conversion
    # operators multiply in other ways.
    if length <= 512 and not _MULTIPLIER.search(symbol) and symbol.count(b"cv") <= _MAX_CONVERSIONS:
        doublings = len(_REFERENCE.findall(symbol)) + symbol.count(b"pp") + symbol.count(b"mm")
        if (length * max(length, _WIDEST)) << min(doublings, 64) <= _MAX_EXPANSION:
            return length * max(length, _WIDEST) << doublings
    text = symbol.decode("latin-1")
    argument, pack = 0, 1
    # T_ stands for an argument of the enclosing template and Dp repeats its pattern for each element of a pack; both
    # may be referred to before they are read, so what one pass finds goes into the next. Arguments hold T_ themselves
    # where they name something local to another template function (std::sort with a lambda); each resolution leaves
    # one such scope, so after as many passes as there are scopes the size holds even if it still grows.
    for done in range(_MAX_PASSES):
        sizer = _Sizer(text, argument, pack)
        try:
            size = sizer.symbol()
        except (_Refused, RecursionError):
            return None
        stable = sizer.argument <= argument and sizer.pack <= pack
        if stable or done > sizer.scopes or size > _MAX_EXPANSION:
            return size
        argument, pack = max(argument, sizer.argument), max(pack, sizer.pack)
    return None


class _Refused(Exception):
    """The symbol is not one this grammar knows, or is nested too deeply."""


_BUILTINS = frozenset("abcdefghijlmnostvwxyz")
_CODES_UNARY = "ad aw co da de dl gs ng nt nx ps pp mm sz az te tw"
_CODES_BINARY = "aN aS aa an cm dV ds dv eO eo eq ge gt ix lS le ls lt mI mL mi ml ne oR oo or pL pl pm rM rS rm rs ss"
_CODES_OTHER = "at cl dt pt na nw qu st sP sZ tr li"
_UNARY = frozenset(_CODES_UNARY.split())
_BINARY = frozenset(_CODES_BINARY.split())
_OPERATORS = _UNARY | _BINARY | frozenset(_CODES_OTHER.split())


class _Sizer:
    """Reads a symbol once and adds up what each part prints, without printing it.

    A substitution candidate is just its size. Demanglers differ in whether some productions are candidates; where they
    do, the candidate is recorded and ``slack`` counts it, and a reference takes the largest of the candidates that its
    index can mean. ``argument`` is the largest argument of a template that ``T_`` can stand for, ``pack`` the largest
    number of arguments in one list.
    """

    def __init__(self, text: str, argument: int, pack: int) -> None:
        self.text = text + "\0\0"
        self.at = 0
        self.depth = 0
        self.candidates: list[int] = []
        self.slack = 0
        self.conversions = 0
        self.conversion_seen = False
        self.scopes = 0
        self.longest_name = 16  # basic_iostream
        self.argument_size = argument
        self.pack_size = pack
        self.argument = 0
        self.pack = 1

    # Reading.

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise _Refused

    def number(self) -> int:
        start = self.at
        text = self.text
        while "0" <= text[self.at] <= "9":
            self.at += 1
        if not 0 < self.at - start <= 9:
            raise _Refused
        return int(text[start : self.at])

    def numbers(self) -> None:
        """Skip ``[n] [digits]``."""
        self.take("n")
        while "0" <= self.text[self.at] <= "9":
            self.at += 1

    def compact(self) -> None:
        """Skip ``[digits] _``."""
        self.numbers()
        self.need("_")

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _Refused

    def add(self, size: int, *, certain: bool = True) -> int:
        self.candidates.append(size)
        self.slack += not certain
        return size

    # Symbols and names.

    def symbol(self) -> int:
        self.need("_Z")
        size = self.encoding()
        if self.text[self.at] not in "\0.":
            raise _Refused
        return size + len(self.text) - self.at

    def encoding(self) -> int:
        self.enter()
        self.scopes += 1
        if self.text[self.at] in "TG":
            size = self.special()
        else:
            size = self.name(tagged=True)
            self.take("J")
            size += self.parameters()
        self.depth -= 1
        return size

    def parameters(self) -> int:
        size = 8
        while self.text[self.at] not in "\0E._Q" and self.text[self.at : self.at + 2] not in {"RE", "OE"}:
            size += self.type() + 2
        return size

    def special(self) -> int:
        kind = self.text[self.at : self.at + 2]
        self.at += 2
        cost = 32
        if kind in {"TV", "TT", "TI", "TS", "TF", "TJ"}:
            return cost + self.type()
        if kind in {"GV", "GR", "TH", "TW"}:
            cost += self.name(tagged=True)
            if kind == "GR":
                while self.text[self.at] not in "\0E._":
                    self.at += 1
                self.take("_")
            return cost
        if kind == "TC":
            cost += self.type()
            self.compact()
            return cost + self.type()
        if kind == "TA":
            return cost + self.template_argument()
        if kind in {"Th", "Tv", "Tc"}:
            if kind != "Tc":
                self.at -= 1
            for _ in range(1 + (kind == "Tc")):
                virtual = self.text[self.at] == "v"
                self.at += 1
                self.compact()
                if virtual:
                    self.compact()
            return cost + self.encoding()
        if kind == "GA":
            return cost + self.encoding()
        if kind == "GT":
            self.at += 1
            return cost + self.encoding()
        raise _Refused

    def name(self, *, tagged: bool = False) -> int:
        """Read ``<name>``. ``tagged``: its template arguments are what ``T_`` stands for in its signature."""
        c = self.text[self.at]
        if c == "N":
            return self.nested(tagged=tagged)
        if c == "Z":
            return self.local(tagged=tagged)
        if c == "S" and self.text[self.at + 1] != "t":
            size = self.substitution()
            candidate = True
        else:
            size = 5 if self.take("St") else 0
            size += self.unqualified()
            candidate = False
        if self.text[self.at] == "I":
            if not candidate:
                self.add(size)
            size += self.template_arguments(tagged=tagged)
        return size

    def nested(self, *, tagged: bool) -> int:
        self.enter()
        self.need("N")
        size = 4 + self.qualifiers()
        if self.text[self.at] in "RO":
            self.at += 1
        size += self.prefix(tagged=tagged)
        self.need("E")
        self.depth -= 1
        return size

    def prefix(self, *, tagged: bool = False, certain: bool = True) -> int:
        size = 0
        while True:
            c = self.text[self.at]
            if c == "S":
                if self.take("St"):
                    size += 5
                else:
                    size += self.substitution()
                continue
            if c == "I":
                size += self.template_arguments(tagged=tagged)
            elif c == "T":
                size += self.template_parameter()
            elif c == "M":
                self.at += 1
                continue
            elif c == "D" and self.text[self.at + 1] in "tT":
                size += self.type()
            else:
                size += 2 + self.unqualified()
            if self.text[self.at] == "E":
                return size
            self.add(size, certain=certain and c != "D")

    def local(self, *, tagged: bool) -> int:
        self.enter()
        self.need("Z")
        size = 2 + self.encoding()
        self.need("E")
        if self.take("s"):
            size += 16
        else:
            if self.take("d"):
                size += 32
                self.compact()
            size += self.name(tagged=tagged)
        if self.take("__"):
            self.compact()
        elif self.take("_"):
            self.numbers()
        self.depth -= 1
        return size

    def source_name(self) -> int:
        length = self.number()
        self.at += length
        if self.at > len(self.text) - 2:
            raise _Refused
        self.longest_name = max(self.longest_name, length)
        return length + 8  # "(anonymous namespace)" can be longer than _GLOBAL__N_1.

    def unqualified(self) -> int:
        text = self.text
        self.take("F")
        c = text[self.at]
        if "0" <= c <= "9":
            size = self.source_name()
        elif "a" <= c <= "z":
            self.take("on")
            size = self.operator()
        elif self.take("DC"):
            size = 4
            while not self.take("E"):
                size += self.source_name() + 2
        elif c in "CD":
            self.at += 1
            inherited = self.take("I")
            if text[self.at] not in "012345":
                raise _Refused
            self.at += 1
            if inherited:
                self.type()
            size = self.longest_name + 1
        elif c == "L":
            self.at += 1
            size = self.source_name()
            if self.take("__"):
                self.compact()
            elif self.take("_"):
                self.numbers()
        elif self.take("Ul"):
            size = 24 + self.template_head() + self.parameters()
            self.need("E")
            self.compact()
            # GCC before 12 makes the closure a candidate as well.
            self.add(size, certain=False)
        elif self.take("Ut"):
            self.compact()
            size = self.add(24, certain=False)
        else:
            raise _Refused
        while self.take("B"):
            size += 7 + self.source_name()
        return size

    def template_head(self) -> int:
        size = 0
        while self.text[self.at] == "T" and self.text[self.at + 1] in "yntpk":
            kind = self.text[self.at + 1]
            self.at += 2
            size += 24
            if kind == "n":
                size += self.type()
            elif kind == "t":
                self.enter()
                size += self.template_head()
                self.need("E")
                self.depth -= 1
            elif kind == "k":
                raise _Refused
        return size

    def operator(self) -> int:
        code = self.text[self.at : self.at + 2]
        self.at += 2
        if code == "cv":
            self.conversions += 1
            self.conversion_seen = True
            self.scopes += 1
            if self.conversions > _MAX_CONVERSIONS:
                raise _Refused
            size = 12 + self.type(conversion=True)
            self.conversions -= 1
            return size
        if code[0] == "v" and "0" <= code[1] <= "9":
            return 12 + self.source_name()
        if code not in _OPERATORS:
            raise _Refused
        return 24 + (self.source_name() if code == "li" else 0)

    def substitution(self) -> int:
        self.need("S")
        text = self.text
        if text[self.at] in "abiosd":
            self.at += 1
            size = 72
            if text[self.at] == "B":
                while self.take("B"):
                    size += 7 + self.source_name()
                self.add(size)
            return size
        end = text.find("_", self.at, self.at + 5)
        digits = text[self.at : end]
        if end < 0 or not (digits + "0").isalnum() or not digits.isascii():
            raise _Refused
        index = int(digits, 36) + 1 if digits else 0
        self.at = end + 1
        if index >= len(self.candidates):
            raise _Refused
        if self.slack:
            return max(self.candidates[index : index + self.slack + 1])
        return self.candidates[index]

    # Templates.

    def template_parameter(self) -> int:
        self.need("T")
        if self.take("L"):
            self.compact()
        self.compact()
        return self.argument_size + 8

    def template_arguments(self, *, tagged: bool = False) -> int:
        self.enter()
        self.at += 1
        size = 4
        count = 0
        while not self.take("E"):
            if self.text[self.at] == "Q":
                raise _Refused
            one = self.template_argument()
            count += 1
            size += one + 2
            # A conversion operator's own type may be a parameter of the template it is an instance of.
            if (tagged or self.conversion_seen) and one > self.argument:
                self.argument = one
        self.pack = max(self.pack, count)
        self.depth -= 1
        return size

    def template_argument(self) -> int:
        c = self.text[self.at]
        if c == "X":
            self.at += 1
            size = 2 + self.expression()
            self.need("E")
            return size
        if c == "L":
            return self.primary()
        if c in "IJ":
            return self.template_arguments()
        return self.type()

    # Types.

    def qualifiers(self) -> int:
        size = 0
        while True:
            if self.text[self.at] in "rVK":
                self.at += 1
                size += 10
            elif self.take("Dx") or self.take("Do"):
                size += 18
            elif self.take("DO"):
                size += 12 + self.expression()
                self.need("E")
            elif self.take("Dw"):
                size += 12 + self.parameters()
                self.need("E")
            else:
                return size

    def type(self, *, conversion: bool = False) -> int:
        self.enter()
        text = self.text
        wrappers: list[int] = []
        while True:
            c = text[self.at]
            if c in "PROCG":
                self.at += 1
                wrappers.append(12)
            elif cost := self.qualifiers():
                if text[self.at] == "F":
                    # These qualify the function's this; the function without them is not a candidate.
                    size = cost + self.function()
                    break
                wrappers.append(cost)
            elif c == "U" and text[self.at + 1] not in "lt":
                self.at += 1
                cost = 4 + self.source_name()
                if text[self.at] == "I":
                    cost += self.template_arguments()
                wrappers.append(cost)
            else:
                size = self.bare_type(c, conversion=conversion)
                break
        for cost in reversed(wrappers):
            size = self.add(size + cost)
        self.depth -= 1
        return size

    def function(self) -> int:
        self.need("F")
        self.take("Y")
        size = 12 + self.parameters()
        if self.text[self.at] in "RO":
            self.at += 1
        self.need("E")
        return self.add(size)

    def bare_type(self, c: str, *, conversion: bool) -> int:
        text = self.text
        if c in _BUILTINS:
            self.at += 1
            return _TYPE_COST
        if "0" <= c <= "9" or c in "NZU":
            return self.add(self.name())
        if c == "S":
            if text[self.at + 1] == "t":
                return self.add(self.name())
            size = self.substitution()
            if text[self.at] == "I":
                size = self.add(size + self.template_arguments())
            return size
        if c == "T":
            if text[self.at + 1] in "sue":
                self.at += 2
                return self.add(8 + self.name())
            size = self.add(self.template_parameter())
            if text[self.at] == "I":
                start = len(self.candidates)
                size += self.template_arguments()
                if conversion:
                    # These may be the operator's arguments instead: libiberty then reads them again.
                    self.slack += len(self.candidates) - start
                    self.argument = max(self.argument, size)
                self.add(size, certain=not conversion)
            return size
        if c == "F":
            return self.function()
        if c == "A":
            self.at += 1
            size = 8
            if "0" <= text[self.at] <= "9":
                size += len(str(self.number()))
            elif text[self.at] != "_":
                size += self.expression()
            self.need("_")
            return self.add(size + self.type())
        if c == "M":
            self.at += 1
            size = 8 + self.type()
            return self.add(size + self.type())
        if c == "u":
            self.at += 1
            size = self.source_name()
            if text[self.at] == "I":
                size += self.template_arguments()
            return self.add(size)
        if c == "D":
            return self.extended_type()
        raise _Refused

    def extended_type(self) -> int:
        c = self.text[self.at + 1]
        self.at += 2
        if c in "acdefhinsu":
            return _TYPE_COST
        if c in "tT":
            size = 12 + self.expression()
            self.need("E")
            return self.add(size)
        if c == "p":
            return self.add(self.repeated(self.type()))
        if c == "F":
            self.number()
            if not (self.take("_") or self.take("x") or self.take("b")):
                raise _Refused
            return _TYPE_COST + 12
        if c == "v":
            size = 16
            if self.take("_"):
                size += self.expression()
            else:
                size += len(str(self.number()))
            self.need("_")
            return self.add(size + self.type())
        if c in "BU":
            size = 24
            if "0" <= self.text[self.at] <= "9":
                self.number()
            else:
                size += self.expression()
            self.need("_")
            return self.add(size, certain=False)
        raise _Refused

    def repeated(self, size: int) -> int:
        return (size + 4) * self.pack_size

    # Expressions.

    def primary(self) -> int:
        self.need("L")
        if self.text[self.at] == "_" or self.text[self.at] == "Z":
            self.take("_")
            self.need("Z")
            size = 2 + self.encoding()
        else:
            size = 8 + self.type()
            end = self.text.find("E", self.at)
            if end < 0:
                raise _Refused
            size += end - self.at
            self.at = end
        self.need("E")
        return size

    def expressions(self, end: str) -> int:
        size = 2
        while not self.take(end):
            size += self.expression() + 2
        return size

    def member(self) -> int:
        size = self.unqualified()
        if self.text[self.at] == "I":
            size += self.template_arguments()
        return size

    def expression(self) -> int:
        self.enter()
        size = self.bare_expression()
        self.depth -= 1
        return size

    def bare_expression(self) -> int:
        text = self.text
        c = text[self.at]
        if c == "L":
            return self.primary()
        if c == "T":
            return self.template_parameter()
        if "0" <= c <= "9":
            return self.member()
        code = text[self.at : self.at + 2]
        if code == "fp" or (code == "fL" and "0" <= text[self.at + 2] <= "9"):
            self.at += 2
            if self.take("T"):
                return 8
            if code == "fL":
                self.number()
                self.need("p")
            self.qualifiers()
            self.compact()
            return 24
        if code == "on":
            return self.member()
        if code == "sr":
            return self.unresolved()
        if c == "u":
            self.at += 1
            size = 4 + self.source_name()
            while not self.take("E"):
                size += self.template_argument() + 2
            return size
        self.at += 2
        if code == "sp":
            return self.repeated(self.expression())
        if code in {"il", "tl"}:
            size = 4 + (self.type() if code == "tl" else 0)
            return size + self.expressions("E")
        if code in {"st", "at", "ti"}:
            return 16 + self.type()
        if code in {"dc", "sc", "cc", "rc"}:
            size = 24 + self.type()
            return size + self.expression()
        if code == "cv":
            size = 8 + self.type()
            return size + (self.expressions("E") if self.take("_") else self.expression())
        if code in {"cl", "cp"}:
            size = 4 + self.expression()
            return size + self.expressions("E")
        if code in {"dt", "pt"}:
            size = 4 + self.expression()
            qualified = text[self.at : self.at + 2] in {"gs", "sr"}
            return size + (self.expression() if qualified else self.member())
        if code in {"nw", "na"}:
            size = 12 + self.expressions("_") + self.type()
            if self.take("E"):
                return size
            return size + (self.expressions("E") if self.take("pi") else self.expression())
        if code in {"fl", "fr", "fL", "fR"}:
            size = 12 + self.operator() + self.expression()
            return size + (self.expression() if code in {"fL", "fR"} else 0)
        if code == "sZ":
            return 16 + self.expression()
        if code == "sP":
            size = 16
            while not self.take("E"):
                size += self.template_argument() + 2
            return size
        if code == "qu":
            return 12 + self.expression() + self.expression() + self.expression()
        if code == "tr":
            return 8
        if code in {"pp", "mm"}:
            # libiberty holds the operand of the suffix form twice, and looks for packs in both.
            return 4 + 2 * self.expression() if not self.take("_") else 4 + self.expression()
        if code in _UNARY:
            return 16 + self.expression()
        if code in _BINARY:
            return 8 + self.expression() + self.expression()
        raise _Refused

    def unresolved(self) -> int:
        """Read ``sr``. Its old and new forms look alike and differ in candidates, so none of them is certain.

        GCC 12's libstdc++ reads ``sr`` and a name as the new form, ``<level>+ E``, and never returns when it comes upon
        a malformed C, D or U before the E (``_Z1fDTsr1aC``). So of these only the new form with plain levels is taken.
        """
        self.need("sr")
        start = len(self.candidates)
        slack = self.slack
        if self.take("N"):
            size = self.prefix(certain=False)
            self.need("E")
        elif "0" <= self.text[self.at] <= "9":
            size = self.level()
            while not self.take("E"):
                size += self.level()
        elif self.text[self.at] in "STDPRKFAM":
            size = self.type()
        else:
            raise _Refused
        self.slack = slack + len(self.candidates) - start
        return size + 2 + self.member()

    def level(self) -> int:
        size = 2 + self.source_name()
        self.add(size, certain=False)
        if self.text[self.at] == "I":
            size += self.template_arguments()
            self.add(size, certain=False)
        return size


# --- Readable names -------------------------------------------------------------------------------------------------

_OPERATOR = re.compile(r"\boperator(\(\)|\[\]|<=>|<<=|>>=|->\*|->|<<|>>|<=|>=|<|>|\"\" ?)?")
_QUALIFIERS = re.compile(r"(?: const| volatile| restrict| noexcept| &&?)+$")
_NOTES = re.compile(r"(?: \[clone [^\]]*\])+$|@.*$| \(\.[^()]*\)$", re.DOTALL)
_SPECIAL = re.compile(
    r"(?:vtable|VTT|typeinfo(?: name| fn)?|guard variable|reference temporary #\d+|construction vtable|hidden alias"
    r"|(?:non-)?transaction clone|(?:non-virtual |virtual |covariant return )thunk|TLS (?:init|wrapper) function"
    r"|template parameter object|invocation function for block) (?:for|to|in) "
)
_CLOSING = {")": "(", "]": "[", "}": "{", ">": "<"}


class Bracket(NamedTuple):
    """An outermost pair of brackets: where it opens, the index after its end, and its kind."""

    start: int
    end: int
    kind: str


def brackets(text: str) -> list[Bracket]:
    """Return the outermost bracket pairs of a readable name, in order, in one pass.

    The brackets of operator names and arrows are none. Inside parentheses and template arguments ``<`` may be an
    operator too; there one that finds no partner is dropped.
    """
    return list(_brackets(text))


def _brackets(text: str) -> Iterator[Bracket]:
    operators = {match.start(1): match.end(1) for match in _OPERATOR.finditer(text) if match[1]}
    stack: list[int] = []
    at = 0
    length = len(text)
    while at < length:
        c = text[at]
        if at in operators:
            at = operators[at]
            continue
        if c in "([{<":
            stack.append(at)
        elif c in ")]}>" and stack and not (c == ">" and text[at - 1] == "-"):
            opening = _CLOSING[c]
            if c != ">":
                while len(stack) > 1 and text[stack[-1]] == "<" != opening:
                    stack.pop()
            if text[stack[-1]] == opening:
                start = stack.pop()
                if not stack:
                    yield Bracket(start, at + 1, opening)
        at += 1


def strip_arguments(text: str) -> str:
    """Return a readable name without its return type, parameter list, qualifiers, version and clone notes.

    Enclosing functions keep theirs: ``f(int)::{lambda()#1}::operator()() const`` gives
    ``f(int)::{lambda()#1}::operator()``.
    """
    special = _SPECIAL.match(text)
    start = special.end() if special else 0
    head, text = text[:start], _NOTES.sub("", text[start:])
    for _ in range(8):  # Each round unwraps a function that returns a pointer to a function.
        bare = _QUALIFIERS.sub("", text)
        found = brackets(bare)
        last = found[-1] if found else None
        if last is None or last.kind != "(" or last.end != len(bare) or bare.endswith("(anonymous namespace)"):
            break
        before = found[-2] if len(found) > 1 else None
        if before and before.end == last.start and before.kind == "(" and bare[before.start + 1] in "*&":
            text = bare[before.start : before.end].lstrip("(*&")[:-1]
            continue
        text = bare[: last.start]
        break
    return head + _without_return_type(text)


def flatten(text: str) -> str:
    """Return the name with every outermost bracket pair blotted out, of the same length: what a search may look at."""
    parts: list[str] = []
    at = 0
    for bracket in brackets(text):
        parts += (text[at : bracket.start], "\1" * (bracket.end - bracket.start))
        at = bracket.end
    return "".join((*parts, text[at:]))


_SCOPED_QUALIFIER = re.compile(r" (?:const|volatile|&&?)(?= |::)")
_OPERATOR_WORD = re.compile(r"\boperator\b")


def _without_return_type(text: str) -> str:
    """Cut at the last space outside brackets that neither belongs to an operator nor to an enclosing method's const."""
    flat = flatten(text)
    if operator := _OPERATOR_WORD.search(flat):
        flat = flat[: operator.start()]
    flat = _SCOPED_QUALIFIER.sub(lambda m: "\1" * len(m[0]), flat)
    return text[flat.rfind(" ") + 1 :]
