"""Readable names of Microsoft C++ symbols, those that begin with a question mark.

There is no specification; the codes are those of LLVM's MicrosoftDemangle and of Agner Fog, "Calling conventions",
chapter 8. Printed are the qualified name, the parameters and what qualifies the object: no return type, access,
calling convention or ``class``, so that a function has about the same text here as from other compilers. What isn't
known stays raw: names of which only a hash is left (``??@``), managed code, and rarer thunks.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple, TypeVar

__all__ = ["demangle"]

_MAX_DEPTH = 64
_MAX_STEPS = 20_000
_MAX_TEXT = 65_536
_REMEMBERED = 10

_OPERATORS = dict(
    zip(
        "23456789ACDEFGHIJKLMNOPQRSTUVWXYZ",
        "new delete = >> << ! == != [] -> * ++ -- - + & ->* / % < <= > >= , () ~ ^ | && || *= += -=".split(),
        strict=True,
    )
) | dict(
    zip(
        "_0 _1 _2 _3 _4 _5 _6 _U _V __L __M".split(),
        "/= %= >>= <<= &= |= ^= new[] delete[] co_await <=>".split(),
        strict=True,
    )
)
_CONSTRUCTOR, _DESTRUCTOR, _CONVERSION = "\1", "\2", "operator "
_HELPERS = {
    "_7": "vftable", "_8": "vbtable", "_9": "vcall", "_B": "local static guard", "_D": "vbase dtor",
    "_E": "vector deleting dtor", "_F": "default ctor closure", "_G": "scalar deleting dtor",
    "_H": "vector ctor iterator", "_I": "vector dtor iterator", "_J": "vector vbase ctor iterator",
    "_K": "virtual displacement map", "_L": "eh vector ctor iterator", "_M": "eh vector dtor iterator",
    "_N": "eh vector vbase ctor iterator", "_O": "copy ctor closure", "_S": "local vftable",
    "_R2": "RTTI Base Class Array", "_R3": "RTTI Class Hierarchy Descriptor", "_R4": "RTTI Complete Object Locator",
    "_T": "local vftable ctor closure", "__J": "local static thread guard",
}  # fmt: skip
_BUILTINS = {
    "X": "void", "C": "signed char", "D": "char", "E": "unsigned char", "F": "short", "G": "unsigned short", "H": "int",
    "I": "unsigned int", "J": "long", "K": "unsigned long", "M": "float", "N": "double", "O": "long double",
    "_N": "bool", "_J": "__int64", "_K": "unsigned __int64", "_W": "wchar_t", "_Q": "char8_t", "_S": "char16_t",
    "_U": "char32_t", "_P": "auto", "_T": "decltype(auto)", "$$T": "std::nullptr_t",
}  # fmt: skip
_QUALIFIERS = {"A": "", "B": " const", "C": " volatile", "D": " const volatile"}
_OF_MEMBERS = {"Q": "", "R": " const", "S": " volatile", "T": " const volatile"}
_POINTERS = {
    "P": "*", "Q": "* const", "R": "* volatile", "S": "* const volatile", "A": "&", "B": "& volatile",
    "$$Q": "&&", "$$R": "&& volatile",
}  # fmt: skip

_FUNCLET = re.compile(r"\$[0-9]+$")
"""What exception handlers inside of a function have behind its name."""
_IDENTIFIER = re.compile(r"([^@?\x00-\x1f]+)@")
_EXTENSIONS = re.compile(r"[EFI]*")
_NUMBER = re.compile(r"\??(?:[0-9]|[A-P]{0,16}@)")
_ANONYMOUS = re.compile(r"\?A(?:0x[0-9A-Fa-f]+)?@")
_LOCAL = re.compile(r"\?(?=(?:[0-9]|[B-P][A-P]{0,15}@|@)\?)")
_CONVENTION = re.compile(r"[A-JMNO-SVWw]")
_EMPTY_PACK = re.compile(r"\$S|\$\$\$V|\$\$V|\$\$Z")
_HEXADECIMAL = str.maketrans("ABCDEFGHIJKLMNOP", "0123456789abcdef")
_WITHOUT_OBJECT = frozenset("CDKLSTYZ")

_T = TypeVar("_T")


class _Unreadable(Exception):
    """The name is not of the grammar known here, or exceeds a bound."""


class _Mode(Enum):
    """Where a type's own qualifiers stand: nowhere, before it, or before it after a question mark."""

    PLAIN = auto()
    QUALIFIED = auto()
    RESULT = auto()


class _Type(NamedTuple):
    """What stands before and after a declared name. A pointer to an ``open`` one needs parentheses."""

    left: str
    right: str = ""
    open: bool = False

    def __str__(self) -> str:
        return self.left + self.right


def demangle(name: str) -> str | None:
    """Return the readable form of a ``?`` symbol, None where it is not one that is known here. Never raises."""
    if not name.startswith("?"):
        return None
    name = _FUNCLET.sub("", name)
    reader = _Reader(name)
    try:
        text = reader.symbol()
    except (_Unreadable, RecursionError):
        return None
    return text if reader.at == len(name) else None


class _Reader:
    """Reads one symbol. Digits refer to the first ten names and to the first ten types of parameters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.names: list[str] = []
        self.types: list[_Type] = []
        self.leaf = ""
        self.depth = 0
        self.steps = 0

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise _Unreadable

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if not found:
            raise _Unreadable
        self.at = found.end()
        return found

    def code(self, table: dict[str, str]) -> str | None:
        for length in (3, 2, 1):
            token = self.text[self.at : self.at + length]
            if token in table:
                self.at += len(token)
                return table[token]
        return None

    def coded(self, table: dict[str, str]) -> str:
        found = self.code(table)
        if found is None:
            raise _Unreadable
        return found

    def enter(self) -> None:
        self.depth += 1
        self.steps += 1
        if self.depth > _MAX_DEPTH or self.steps > _MAX_STEPS:
            raise _Unreadable

    def number(self) -> int:
        text = self.match(_NUMBER)[0]
        digits = text.removeprefix("?")
        value = int(digits) + 1 if digits.isdecimal() else int(digits[:-1].translate(_HEXADECIMAL) or "0", 16)
        return -value if text.startswith("?") else value

    # Symbols.

    def symbol(self) -> str:
        self.enter()
        self.need("?")
        text = self.special() or self.plain()
        self.depth -= 1
        return _bounded(text)

    def special(self) -> str | None:
        if self.take("?_C@_"):
            self.at = len(self.text)  # Its length, its hash and how it begins.
            return "`string'"
        if self.take("?_R0"):
            text = f"{self.type(_Mode.RESULT)}::`RTTI Type Descriptor'"
            self.need("@8")
            return text
        if self.take("?_R1"):
            numbers = ", ".join(str(self.number()) for _ in range(4))
            text = f"{self.scope()}::`RTTI Base Class Descriptor at ({numbers})'"
            self.need("8")
            return text
        for code, head in (("?__E", "dynamic initializer for"), ("?__F", "dynamic atexit destructor for")):
            if self.take(code):
                if self.text.startswith("?", self.at):
                    inner = self.symbol()
                    self.need("@@")
                else:
                    inner = self.qualified()
                return f"`{head} '{inner}''{self.function()[1]}"
        return None

    def plain(self) -> str:
        name = self.qualified()
        leaf = self.leaf
        c = self.text[self.at : self.at + 1]
        if c and c in "01234":
            self.at += 1
            self.type()
            self.match(_EXTENSIONS)
            if self.code(_QUALIFIERS) is None:
                self.coded(_OF_MEMBERS)
                self.scope()
        elif self.take("5"):
            self.number()
        elif c and c in "67":
            self.at += 1
            self.coded(_QUALIFIERS)
            if not self.take("@"):
                name += f"{{for `{self.scope()}'}}"
                self.need("@")
        elif not self.take("8"):
            result, rest = self.function()
            name += result + rest if leaf == _CONVERSION else rest
        self.leaf = leaf
        return name

    def function(self) -> tuple[str, str]:
        """Read a function's class, type and exceptions; return its result, and its parameters with what follows."""
        if self.take("9"):
            return "", ""
        thunk = ""
        code = self.text[self.at : self.at + 1]
        self.at += 1
        if code == "$":
            extended = self.take("R")
            if self.text[self.at : self.at + 1] not in set("012345"):
                raise _Unreadable
            self.at += 1
            numbers = [self.number() for _ in range(4 if extended else 2)]
            offsets = ", ".join(str(n - (1 << 32) if n >> 31 == 1 else n) for n in numbers)
            thunk = f"`vtordisp{'ex' if extended else ''}{{{offsets}}}'"
        elif not "A" <= code <= "Z":
            raise _Unreadable
        elif code in "GHOPWX":
            thunk = f"`adjustor{{{self.number()}}}'"
        result, rest = self.function_type(member=code not in _WITHOUT_OBJECT)
        return str(result), thunk + rest

    def function_type(self, *, member: bool) -> tuple[_Type, str]:
        qualifiers = ""
        if member:
            self.match(_EXTENSIONS)
            reference = " &" if self.take("G") else " &&" if self.take("H") else ""
            qualifiers = self.coded(_QUALIFIERS) + reference
        self.match(_CONVENTION)
        result = _Type("") if self.take("@") else self.type(_Mode.RESULT)
        parameters = self.parameters()
        noexcept = " noexcept" if self.take("_E") else ""
        if not noexcept:
            self.need("Z")
        return result, f"({parameters}){qualifiers}{noexcept}"

    def parameters(self) -> str:
        if self.take("X"):
            return ""
        found: list[str] = []
        while True:
            self.steps += 1
            if self.take("@"):
                break
            if self.take("Z"):
                found.append("...")
                break
            if (index := self.digit()) is not None:
                found.append(str(_at(self.types, index)))
                continue
            start = self.at
            one = self.type()
            found.append(str(one))
            if self.at > start + 1 and len(self.types) < _REMEMBERED:
                self.types.append(one)
        return _bounded(", ".join(found))

    # Names.

    def digit(self) -> int | None:
        c = self.text[self.at : self.at + 1]
        if not ("0" <= c <= "9"):
            return None
        self.at += 1
        return int(c)

    def remember(self, name: str) -> str:
        if len(self.names) < _REMEMBERED and name not in self.names:
            self.names.append(name)
        return name

    def qualified(self) -> str:
        """Read a symbol's own name and its scopes, up to the ``@`` that ends them."""
        leaf = self.own_name()
        scopes = self.scopes()
        if leaf in {_CONSTRUCTOR, _DESTRUCTOR}:
            if not scopes:
                raise _Unreadable
            leaf = ("~" if leaf == _DESTRUCTOR else "") + scopes[-1]
        self.leaf = leaf
        return _bounded("::".join((*scopes, leaf)))

    def scopes(self) -> list[str]:
        found: list[str] = []
        while not self.take("@"):
            self.steps += 1
            found.append(self.scope_piece())
        return found[::-1]

    def scope(self) -> str:
        """Read the name of a class or a namespace."""
        leaf = self.scope_piece()
        return _bounded("::".join((*self.scopes(), leaf)))

    def own_name(self) -> str:
        if (index := self.digit()) is not None:
            return _at(self.names, index)
        if self.take("?$"):
            return self.template()
        if self.take("?"):
            return self.operator()
        return self.remember(self.match(_IDENTIFIER)[1])

    def scope_piece(self) -> str:
        if (index := self.digit()) is not None:
            return _at(self.names, index)
        if self.take("?$"):
            return self.remember(self.template())
        if _ANONYMOUS.match(self.text, self.at):
            self.match(_ANONYMOUS)
            return self.remember("`anonymous namespace'")
        if _LOCAL.match(self.text, self.at):
            self.at += 1
            index = self.number()
            self.need("?")
            return f"`{self.symbol()}'::`{index}'"
        return self.remember(self.match(_IDENTIFIER)[1])

    def operator(self) -> str:
        if self.take("0"):
            return _CONSTRUCTOR
        if self.take("1"):
            return _DESTRUCTOR
        if self.take("B"):
            return _CONVERSION
        if self.take("__K"):
            return 'operator ""' + self.match(_IDENTIFIER)[1]
        if found := self.code(_OPERATORS):
            return "operator" + (" " if found[0].isalpha() else "") + found
        return f"`{self.coded(_HELPERS)}'"

    def template(self) -> str:
        self.enter()
        outer = self.names, self.types
        self.names, self.types = [], []
        name = self.own_name()
        if name in {_CONSTRUCTOR, _DESTRUCTOR, _CONVERSION}:
            raise _Unreadable
        arguments: list[str] = []
        while not self.take("@"):
            self.steps += 1
            if not self.skip(_EMPTY_PACK):
                arguments.append(self.template_argument())
        self.names, self.types = outer
        self.depth -= 1
        return _bounded(f"{name}<{', '.join(arguments)}>")

    def template_argument(self) -> str:
        if self.take("$0"):
            return str(self.number())
        if self.take("$$Y"):
            return self.scope()
        if self.take("$$B"):
            return str(self.type())
        if self.take("$$C"):
            return str(self.type(_Mode.QUALIFIED))
        if self.take("$E"):
            return self.referred()
        if self.take("$F"):
            return f"{{{self.number()}, {self.number()}}}"
        if self.take("$G"):
            return f"{{{self.number()}, {self.number()}, {self.number()}}}"
        for code, offsets in (("$1", 0), ("$H", 1), ("$I", 2), ("$J", 3)):
            if self.take(code):
                parts = [self.referred()] if self.text.startswith("?", self.at) else []
                parts += [str(self.number()) for _ in range(offsets)]
                return f"&{parts[0]}" if len(parts) == 1 else f"{{{', '.join(parts)}}}"
        return str(self.type())

    def referred(self) -> str:
        text = self.symbol()
        self.remember(self.leaf)
        return text

    # Types.

    def type(self, mode: _Mode = _Mode.PLAIN) -> _Type:
        self.enter()
        qualifiers = ""
        if mode is _Mode.QUALIFIED or (mode is _Mode.RESULT and self.take("?")):
            qualifiers = self.coded(_QUALIFIERS)
        found = self.unqualified_type()
        self.depth -= 1
        _bounded(found.left + found.right)
        return found._replace(left=found.left.rstrip() + qualifiers + " " * found.open) if qualifiers else found

    def unqualified_type(self) -> _Type:
        if self.take("W4") or any(self.take(code) for code in "TUV"):
            return _Type(self.scope())
        if self.take("$$A8@@"):
            result, rest = self.function_type(member=True)
            return _function(result, rest)
        if self.take("$$A6"):
            return _function(*self.function_type(member=False))
        if (pointer := self.code(_POINTERS)) is not None:
            return self.pointer(pointer)
        if self.take("Y"):
            return self.array()
        if self.take("?"):
            name = self.own_name()
            self.need("@")
            return _Type(name)
        return _Type(self.coded(_BUILTINS))

    def pointer(self, pointer: str) -> _Type:
        if self.take("6"):
            return _pointer(_function(*self.function_type(member=False)), pointer)
        if self.take("8"):
            owner = self.scope()
            return _pointer(_function(*self.function_type(member=True)), f"{owner}::{pointer}")
        self.match(_EXTENSIONS)
        qualifiers = self.code(_OF_MEMBERS)
        if qualifiers is not None:
            pointer = f" {self.scope()}::{pointer}"
        else:
            qualifiers = self.coded(_QUALIFIERS)
        target = self.type()
        return _pointer(target._replace(left=target.left.rstrip() + qualifiers + " " * target.open), pointer)

    def array(self) -> _Type:
        rank = self.number()
        if not 0 < rank <= _MAX_DEPTH:
            raise _Unreadable
        extents = "".join(f"[{self.number()}]" for _ in range(rank))
        qualifiers = self.coded(_QUALIFIERS) if self.take("$$C") else ""
        element = self.type()
        return _Type(element.left + qualifiers + " ", extents + element.right, open=True)

    def skip(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found is not None


def _function(result: _Type, rest: str) -> _Type:
    return _Type(result.left + " " * (not result.right), rest + result.right, open=True)


def _pointer(target: _Type, pointer: str) -> _Type:
    if target.open:
        return _Type(f"{target.left}({pointer.lstrip()}", ")" + target.right)
    return _Type(target.left + pointer, target.right)


def _at(remembered: list[_T], index: int) -> _T:
    if index >= len(remembered):
        raise _Unreadable
    return remembered[index]


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise _Unreadable
    return text
