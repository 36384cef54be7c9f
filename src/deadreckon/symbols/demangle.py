"""Readable names of C++, Rust and Swift symbols; every other name is returned as it is.

Itanium C++ names (https://itanium-cxx-abi.github.io/cxx-abi/abi.html#mangling) go to ``__cxa_demangle`` of the
platform's C++ runtime. That function has no limits of its own, so a symbol is sized first (itanium.py). Rust's legacy
names are Itanium names with a hash (https://doc.rust-lang.org/rustc/symbol-mangling/legacy.html), its v0 names have a
grammar of their own (rust_v0.py), and so have Microsoft's (msvc.py) and Swift's (swift/).
"""

from __future__ import annotations

import ctypes
import re
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from deadreckon.config import SymbolLimits
from deadreckon.symbols import msvc, rust_v0, swift
from deadreckon.symbols.itanium import expansion
from deadreckon.symbols.names import brackets, flatten, strip_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["backend", "brackets", "demangle", "flatten", "strip_arguments"]

_LIMITS = SymbolLimits()
_MAX_EXPANSION = 8 * _LIMITS.max_demangle_output
"""Bounds are mostly some ten times what really comes out, never less than twice."""

_PREFIXES = ("_Z", "_R", "?", "__Z", "__R", "___Z", "____Z", *swift.PREFIXES)


def demangle(name: str, *, arguments: bool = True) -> str:
    """Return the readable form of a symbol, or the symbol itself where it has none.

    Clone suffixes (``.cold``, ``.part.0``) print as c++filt prints them, symbol versions (``@@GLIBCXX_3.4``) are kept.
    ``arguments=False`` gives the qualified name alone: no return type, parameters, qualifiers or clone notes; of Swift
    names it keeps the argument labels, which are parts of them (``Foo.bar(_:baz:)``). A name longer than
    ``SymbolLimits.max_demangle_input``, or one that expands beyond ``max_demangle_output`` bytes, is returned as it
    is. Never raises.
    """
    # Most of the names of a C library are not mangled, and the ones too long are not worth a cache's memory.
    if len(name) > _LIMITS.max_demangle_input or not name.startswith(_PREFIXES):
        return name
    return _readable(name, arguments)


@lru_cache(maxsize=16_384)
def _readable(name: str, arguments: bool) -> str:  # noqa: FBT001
    found = _demangle(name)
    if found is None:
        return name
    return found if arguments or name.startswith(swift.PREFIXES) else strip_arguments(found)


# --- The platform's demangler ---------------------------------------------------------------------------------------

_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.1.dylib")
_GENERIC_LAMBDA = b"_ZN1aIZ1bvEUlT_E_E1cEv"


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
        call = partial(_call, cxa, free)
        # The ones before 2017 print such parameters as arguments of the template around; sizes don't hold for them.
        if b"lambda(auto" in (call(_GENERIC_LAMBDA) or b"").replace(b"'", b""):
            return library, call
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
_MAX_BLOCKS = 8
_CLONES = re.compile(r"(?:\.[A-Za-z0-9_$]+)+$")
_CLONE = re.compile(r"\.[A-Za-z0-9_$]+(?:\.[0-9]+)*")
_RUST_LEGACY = re.compile(r"_ZN(.+)17h[0-9a-f]{16}E(?:\.llvm\.[0-9A-F]+)?", re.DOTALL)


def _demangle(name: str) -> str | None:
    if name.startswith("?"):
        return msvc.demangle(name)
    if name.startswith(swift.PREFIXES):
        return swift.demangle(name)
    # Clang names a block's body after the function around it; of the demanglers only LLVM's knows it.
    head = ""
    while (block := _BLOCK.fullmatch(name)) and len(head) < _MAX_BLOCKS * 35:
        head += "invocation function for block in "
        name = block[1]
    if name.startswith(("__Z", "__R")):  # Mach-O prefixes every C-visible name with an underscore.
        name = name[1:]
    name, at, version = name.partition("@")
    found = rust_v0.demangle(name) if name.startswith("_R") else _rust_legacy(name) or _cloned(name)
    return None if found is None else head + found + at + version


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
    if expansion(symbol, _MAX_EXPANSION) is None:
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
