"""Rust's v0 symbol names, read by RFC 2603 (https://doc.rust-lang.org/rustc/symbol-mangling/v0.html).

The grammar has back-references, so a short name can stand for an endless text. Output, depth and steps are bounded;
a name that exceeds a bound, or that the grammar doesn't know, is not demangled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["demangle"]

_MAX_DEPTH = 96
_MAX_STEPS = 20_000
_MAX_OUTPUT = 65_536

_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_SIGNED = frozenset("abcilnsx") - {"b", "c"}
_UNSIGNED = frozenset("hjmoty")
_BASE_62 = {c: i for i, c in enumerate("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")}


class _Unreadable(Exception):
    """The name is not of the grammar, or exceeds a bound."""


def demangle(name: str) -> str | None:
    """Return the readable form of a ``_R`` symbol without crate hashes, None where it is not one. Never raises.

    A suffix after the first dot (``.llvm.123``) is dropped: it names a copy of the same function.
    """
    if not name.startswith("_R") or not name.isascii():
        return None
    body = name[2:].partition(".")[0].partition("$")[0]
    # A decimal number here would be an encoding version; none but 0, which is left out, exists.
    if not body[:1].isupper():
        return None
    reader = _Reader(body)
    try:
        reader.path(value=True)
        if reader.at < len(body):
            reader.quiet = True
            reader.path(value=False)  # The crate that instantiated a generic function; not part of the name.
    except (_Unreadable, RecursionError):
        return None
    return "".join(reader.out) if reader.at == len(body) else None


class _Reader:
    """Reads one symbol and prints while reading. Back-references re-read their target."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.out: list[str] = []
        self.size = 0
        self.depth = 0
        self.steps = 0
        self.quiet = False
        self.lifetimes = 0

    def put(self, text: str) -> None:
        if not self.quiet:
            self.size += len(text)
            if self.size > _MAX_OUTPUT:
                raise _Unreadable
            self.out.append(text)

    def next(self) -> str:
        if self.at >= len(self.text):
            raise _Unreadable
        c = self.text[self.at]
        self.at += 1
        return c

    def take(self, c: str) -> bool:
        if self.text.startswith(c, self.at):
            self.at += 1
            return True
        return False

    def step(self) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise _Unreadable

    def enter(self) -> None:
        self.step()
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _Unreadable

    # Numbers and identifiers.

    def base_62(self) -> int:
        """Read ``[digits] _``: 0 for none, else the value and one."""
        if self.take("_"):
            return 0
        value = 0
        while (c := self.next()) != "_":
            if c not in _BASE_62 or value >> 64:
                raise _Unreadable
            value = value * 62 + _BASE_62[c]
        return value + 1

    def optional_base_62(self, tag: str) -> int:
        return self.base_62() + 1 if self.take(tag) else 0

    def identifier(self) -> str:
        unicode = self.take("u")
        start = self.at
        while "0" <= self.text[self.at : self.at + 1] <= "9" and self.at - start < 6:
            self.at += 1
            if self.text[start] == "0":
                break
        if self.at == start:
            raise _Unreadable
        length = int(self.text[start : self.at])
        self.take("_")  # Parts the length from an identifier that starts with a digit or an underscore.
        end = self.at + length
        if end > len(self.text):
            raise _Unreadable
        ident = self.text[self.at : end]
        self.at = end
        return _punycode(ident) if unicode and not self.quiet else ident

    # Paths.

    def path(self, *, value: bool) -> None:
        """Print a path; ``value`` says whether generic arguments need the turbofish."""
        self.enter()
        tag = self.next()
        if tag == "C":
            self.optional_base_62("s")
            self.put(self.identifier())
        elif tag in "MX":
            self.impl_path()
            self.put("<")
            self.type()
            if tag == "X":
                self.put(" as ")
                self.path(value=False)
            self.put(">")
        elif tag == "Y":
            self.put("<")
            self.type()
            self.put(" as ")
            self.path(value=False)
            self.put(">")
        elif tag == "N":
            self.nested_path(value=value)
        elif tag == "I":
            self.path(value=value)
            self.put("::<" if value else "<")
            self.arguments()
            self.put(">")
        elif tag == "B":
            self.back(lambda: self.path(value=value))
        else:
            raise _Unreadable
        self.depth -= 1

    def impl_path(self) -> None:
        quiet, self.quiet = self.quiet, True
        self.optional_base_62("s")
        self.path(value=False)
        self.quiet = quiet

    def nested_path(self, *, value: bool) -> None:
        namespace = self.next()
        if not namespace.isalpha():
            raise _Unreadable
        self.path(value=value)
        index = self.optional_base_62("s")
        name = self.identifier()
        if namespace.isupper():
            kind = {"C": "closure", "S": "shim"}.get(namespace, namespace)
            self.put("::{" + kind + (":" + name if name else "") + f"#{index}" + "}")
        elif name:
            self.put("::" + name)

    def arguments(self) -> None:
        count = 0
        while not self.take("E"):
            if count:
                self.put(", ")
            count += 1
            if self.take("L"):
                self.step()
                self.put(self.lifetime(self.base_62()))
            elif self.take("K"):
                self.constant(braced=True)
            else:
                self.type()

    def back(self, read: Callable[[], None]) -> None:
        start = self.at - 1
        target = self.base_62()
        if target >= start:
            raise _Unreadable
        if self.quiet:
            return
        here, self.at = self.at, target
        read()
        self.at = here

    # Lifetimes and types.

    def lifetime(self, index: int) -> str:
        if index == 0:
            return "'_"
        depth = self.lifetimes - index
        if depth < 0:
            raise _Unreadable
        return "'" + chr(ord("a") + depth) if depth < 26 else f"'_{depth}"

    def binder(self) -> int:
        bound = self.optional_base_62("G")
        if bound > 64:
            raise _Unreadable
        if bound:
            names = []
            for _ in range(bound):
                self.lifetimes += 1
                names.append(self.lifetime(1))
            self.put(f"for<{', '.join(names)}> ")
        return bound

    def type(self) -> None:
        self.enter()
        tag = self.next()
        if tag in _BASIC:
            self.put(_BASIC[tag])
        elif tag in "RQ":
            self.put("&")
            if self.take("L") and (index := self.base_62()):
                self.put(self.lifetime(index) + " ")
            self.put("mut " if tag == "Q" else "")
            self.type()
        elif tag in "PO":
            self.put("*const " if tag == "P" else "*mut ")
            self.type()
        elif tag in "AS":
            self.put("[")
            self.type()
            if tag == "A":
                self.put("; ")
                self.constant(braced=False)
            self.put("]")
        elif tag == "T":
            self.tuple()
        elif tag == "F":
            self.function()
        elif tag == "D":
            self.dynamic()
        elif tag == "B":
            self.back(self.type)
        else:
            self.at -= 1
            self.path(value=False)
        self.depth -= 1

    def types(self) -> int:
        count = 0
        while not self.take("E"):
            if count:
                self.put(", ")
            self.type()
            count += 1
        return count

    def tuple(self) -> None:
        self.put("(")
        if self.types() == 1:
            self.put(",")
        self.put(")")

    def function(self) -> None:
        bound = self.binder()
        if self.take("U"):
            self.put("unsafe ")
        if self.take("K"):
            abi = "C" if self.take("C") else self.identifier().replace("_", "-")
            self.put(f'extern "{abi}" ')
        self.put("fn(")
        self.types()
        self.put(")")
        if not self.take("u"):
            self.put(" -> ")
            self.type()
        self.lifetimes -= bound

    def dynamic(self) -> None:
        self.put("dyn ")
        bound = self.binder()
        count = 0
        while not self.take("E"):
            if count:
                self.put(" + ")
            self.trait()
            count += 1
        self.lifetimes -= bound
        if not self.take("L"):
            raise _Unreadable
        if index := self.base_62():
            self.put((" + " if count else "") + self.lifetime(index))

    def trait(self) -> None:
        """Print a trait; its associated types (``p``) go into the same angle brackets as its arguments."""
        opened = self.trait_path()
        while self.take("p"):
            self.put(", " if opened else "<")
            opened = True
            self.put(self.identifier() + " = ")
            self.type()
        if opened:
            self.put(">")

    def trait_path(self) -> bool:
        self.enter()
        opened = False
        if self.take("B"):
            found: list[bool] = []
            self.back(lambda: found.append(self.trait_path()))
            opened = any(found)
        elif self.take("I"):
            self.path(value=False)
            self.put("<")
            self.arguments()
            opened = True
        else:
            self.path(value=False)
        self.depth -= 1
        return opened

    # Constants.

    def digits(self) -> str:
        start = self.at
        while (c := self.next()) != "_":
            if c not in "0123456789abcdef":
                raise _Unreadable
        return self.text[start : self.at - 1]

    def constant(self, *, braced: bool) -> None:
        """Print a constant; as a generic argument (``braced``) one that is an expression stands in braces."""
        self.enter()
        tag = self.next()
        if tag == "p":
            self.put("_")
        elif tag in _UNSIGNED or tag in _SIGNED:
            if self.take("n"):
                if tag not in _SIGNED:
                    raise _Unreadable
                self.put("-")
            text = self.digits()
            self.put(str(int(text or "0", 16)) if len(text) <= 16 else f"0x{text}")
        elif tag == "b":
            text = self.digits()
            if text not in {"0", "1"}:
                raise _Unreadable
            self.put("true" if text == "1" else "false")
        elif tag == "c":
            value = int(self.digits() or "0", 16)
            if value > 0x10FFFF or 0xD800 <= value < 0xE000:
                raise _Unreadable
            self.put(_quoted(chr(value), "'"))
        elif tag == "B":
            self.back(lambda: self.constant(braced=braced))
        else:
            self.structural(tag, braced=braced)
        self.depth -= 1

    def structural(self, tag: str, *, braced: bool) -> None:
        if tag == "R" and self.take("e"):
            self.put(_string(self.digits()))
            return
        self.put("{" if braced else "")
        if tag == "e":
            self.put("*" + _string(self.digits()))
        elif tag in "RQ":
            self.put("&" if tag == "R" else "&mut ")
            self.constant(braced=False)
        elif tag == "A":
            self.put("[")
            self.constants()
            self.put("]")
        elif tag == "T":
            self.put("(")
            self.put(",)" if self.constants() == 1 else ")")
        elif tag == "V":
            self.variant()
        else:
            raise _Unreadable
        self.put("}" if braced else "")

    def constants(self) -> int:
        count = 0
        while not self.take("E"):
            if count:
                self.put(", ")
            self.constant(braced=False)
            count += 1
        return count

    def variant(self) -> None:
        self.path(value=True)
        kind = self.next()
        if kind == "T":
            self.put("(")
            self.constants()
            self.put(")")
        elif kind == "S":
            self.put(" { ")
            count = 0
            while not self.take("E"):
                if count:
                    self.put(", ")
                self.optional_base_62("s")
                self.put(self.identifier() + ": ")
                self.constant(braced=False)
                count += 1
            self.put(" }")
        elif kind != "U":
            raise _Unreadable


def _punycode(ident: str) -> str:
    # The RFC writes the delimiter as an underscore, since a dash can't stand in a symbol.
    head, _, tail = ident.rpartition("_")
    try:
        return f"{head}-{tail}".encode("ascii").decode("punycode") if head else tail.encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        raise _Unreadable from None


_ESCAPES = {"\t": "\\t", "\r": "\\r", "\n": "\\n", "\\": "\\\\", "\0": "\\0"}


def _quoted(text: str, quote: str) -> str:
    parts = (
        "\\" + c if c == quote else _ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text
    )
    return quote + "".join(parts) + quote


def _string(digits: str) -> str:
    try:
        return _quoted(bytes.fromhex(digits).decode(), '"')
    except ValueError:
        raise _Unreadable from None
