"""Readable names of Microsoft C++ symbols, those that begin with a question mark.

There is no specification; the codes are those of LLVM's MicrosoftDemangle and of Agner Fog, "Calling conventions",
chapter 8. Printed are the qualified name, the parameters and what qualifies the object: no return type, access,
calling convention or ``class``, so that a function has about the same text here as from other compilers. What isn't
known stays raw: names of which only a hash is left (``??@``), managed code, and rarer thunks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

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
_WORDS = frozenset(("new", "delete", "new[]", "delete[]", "co_await"))
_HELPERS = {
    "_7": "vftable", "_8": "vbtable", "_9": "vcall", "_B": "local static guard", "_D": "vbase dtor",
    "_E": "vector deleting dtor", "_F": "default ctor closure", "_G": "scalar deleting dtor",
    "_H": "vector ctor iterator", "_I": "vector dtor iterator", "_J": "vector vbase ctor iterator",
    "_K": "virtual displacement map", "_L": "eh vector ctor iterator", "_M": "eh vector dtor iterator",
    "_N": "eh vector vbase ctor iterator", "_O": "copy ctor closure", "_S": "local vftable",
    "_T": "local vftable ctor closure", "__J": "local static thread guard",
}  # fmt: skip
_RTTI = {"_R2": "RTTI Base Class Array", "_R3": "RTTI Class Hierarchy Descriptor", "_R4": "RTTI Complete Object Locator"}
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

_IDENTIFIER = re.compile(r"([^@?\x00-\x1f]+)@")
_EXTENSIONS = re.compile(r"[EFI]*")
_NUMBER = re.compile(r"\??(?:[0-9]|[A-P]{0,16}@)")
_ANONYMOUS = re.compile(r"\?A(?:0x[0-9A-Fa-f]+)?@")
_LOCAL = re.compile(r"\?(?=(?:[0-9]|[B-P][A-P]{0,15}@|@)\?)")
_CONVENTION = re.compile(r"[A-JMNO-SVWw]")
_EMPTY_PACK = re.compile(r"\$S|\$\$\$V|\$\$V|\$\$Z")


class _Unreadable(Exception):
    """The name is not of the grammar known here, or exceeds a bound."""


class _Type(NamedTuple):
    """What stands before and after a declared name."""

    left: str
    right: str = ""

    def __str__(self) -> str:
        return self.left + self.right


def demangle(name: str) -> str | None:
    """Return the readable form of a ``?`` symbol, None where it is not one that is known here. Never raises."""
    if not name.startswith("?"):
        return None
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
            found = table.get(self.text[self.at : self.at + length])
            if found is not None:
                self.at += length
                return found
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
        digits = text.lstrip("?")
        if digits.isdecimal():
            value = int(digits) + 1
        else:
            value = int(digits[:-1].translate(_HEXADECIMAL) or "0", 16)
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
            self.at = len(self.text)  # Its length, its hash and what it begins with.
            return "`string'"
        if self.take("?_R0"):
            text = str(self.type(dropped=False, result=True))
            self.need("@8")
            return text + " `RTTI Type Descriptor'"
        if self.take("?_R1"):
            numbers = ", ".join(str(self.number()) for _ in range(4))
            text = f"{self.scope()}::`RTTI Base Class Descriptor at ({numbers})'"
            self.need("8")
            return text
        for codes, head in (("?__E", "dynamic initializer for"), ("?__F", "dynamic atexit destructor for")):
            if self.take(codes):
                if self.take("?"):
                    self.at -= 1
                    inner = self.symbol()
                    self.need("@")
                    self.take("@")
                else:
                    inner = self.qualified()
                return f"`{head} '{inner}''" + self.function()
        return None

    def plain(self) -> str:
        name = self.qualified()
        c = self.text[self.at : self.at + 1]
        if c in {"0", "1", "2", "3", "4"}:
            self.at += 1
            self.type(dropped=True)
            self.match(_EXTENSIONS)
            self.coded(_QUALIFIERS | _OF_MEMBERS)
            return name
        if self.take("5"):
            self.number()
            return name
        if c in {"6", "7"}:
            self.at += 1
            self.coded(_QUALIFIERS)
            targets = []
            while not self.take("@"):
                targets.append(f"`{self.scope()}'")
            return name + ("{for " + "s ".join(targets) + "}" if targets else "")
        if self.take("8"):
            return name
        return self.named(name, self.function())

    @staticmethod
    def named(name: str, function: str) -> str:
        """Put a function's name before its parameters; a conversion operator is named after its return type."""
        if not name.endswith("operator "):
            return name + function.partition("\0")[2] if "\0" in function else name + function
        result, _, rest = function.partition("\0")
        return name + result + rest
