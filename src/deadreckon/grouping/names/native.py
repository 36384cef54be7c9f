"""Names of compiled code: C++, Rust, Swift, Objective-C, Go and what C libraries call their variants.

Microsoft's, gcc's and LLVM's demanglers write one function in different ways; the normal form of a name is the same
from all of them, as far as what they write says the same.
"""

from __future__ import annotations

import re

from deadreckon.symbols.demangle import brackets, strip_arguments

__all__ = ["compiled", "go"]

# Patterns stay text until a name needs them: compiling all of them would cost each short-lived process 10 ms.
# Each takes time linear in a name: no repetition of what another repetition may match as well.
_LAMBDA = (
    r"\{lambda\([^{}]*\)(?:#\d+)?\}"  # gcc and binutils
    r"|<lambda(?:\([^<>]*\)|_[0-9a-f]+|_\d+)?>"  # gdb, Microsoft
    r"|'lambda\d*'(?:\([^()]*\))?"  # LLVM
    r"|\{\{closure\}\}|\{closure(?:_env)?(?:#\d+|_\d+)?\}"  # Rust
    r"|\$_\d+|\{unnamed type#\d+\}|\{unnamed-type-[^{}]*\}|<unnamed-t(?:ype|ag)[^<>]*>"
)
_ANONYMOUS = (
    r"\(anonymous namespace\)|`anonymous[ -]namespace'|\{anonymous\}|_GLOBAL__N_\w*|<unnamed>"
    r"|anonymous-namespace|\?A0x[0-9a-f]{8}"
)
_CLONE = (
    r"(?:\.(?:cold|part|isra|constprop|llvm|lto_priv|localalias|warm|hot|unlikely|split|__uniq|\d+)\b)++$"
    r"| \[clone [^\]]*\]| \(\.[^()]*\)$"
)
_ABI_TAG = r"\[abi:[^\]]*\]"
_RUST_HASH = r"::h[0-9a-f]{16}(?=$|\.)"
_RUST_CRATE_HASH = r"\[[0-9a-f]{8,16}\](?=::|$|>)"
_RUST_NUMBER = r"\{(impl|shim|constant)(?:#\d+|:[^{}]*)\}"
# Inline namespaces are the library's version, not part of what one calls.
_INLINE_NAMESPACE = r"(?<=\bstd::)(?:__(?:\d|ndk\d|cxx\d{2,4}|debug|fs|u)|_V\d)::"
_LOCAL_SCOPE = r"`(\d+)'::|__l\d+::"
_VARIANT = (
    r"^_*(mem(?:cpy|move|pcpy|set|cmp|chr|rchr)|str(?:n?len|n?cpy|n?cmp|n?cat|n?casecmp|r?chr|str|spn|cspn|pbrk)"
    r"|wcs\w{3,5}|wmem\w{3,4}|stpn?cpy|rawmemchr)"
    r"_(?:(?:chk_)?(?:avx|sse|ssse|evex|erms|unaligned|aligned|generic|ifunc|neon|sve|thunderx|falkor|kunpeng|mops|zva)"
    r"\w*|chk)$"
)
_STDCALL = r"^[@_](\w+)@\d{1,3}$"
_HASHED_PRIVATE = r" in _[0-9A-F]{32}\)"


def compiled(text: str) -> str:
    """Return the normal form of a function's name in C, C++, Rust, Swift or Objective-C; empty where nothing is left.

    Gone are arguments, return types, template arguments (``<>`` stays), clone marks, hashes, numbers of lambdas, the
    scopes that C++ libraries version themselves by, and which processor a C library's copy of ``memcpy`` is for.
    """
    if text.startswith(("-[", "+[")):  # Objective-C: -[Class(Category) selector:with:], all of it counts.
        return text
    if "_block_invoke" in text and (block := _block(text)):
        return block
    if "." in text or " [clone" in text:
        text = re.sub(_CLONE, "", text)
    looks_swift = " in " in text or text.startswith(_SWIFT_WORDS) or "Swift." in text
    if looks_swift and (swift := _swift(text)) is not None:
        return swift
    if "[" in text:
        text = re.sub(_RUST_CRATE_HASH, "", re.sub(_ABI_TAG, "", text))
    if "::h" in text:
        text = re.sub(_RUST_HASH, "", text)
    if "{" in text:
        text = re.sub(_RUST_NUMBER, r"\1", text)
    if "lambda" in text or "closure" in text or "$_" in text or "unnamed" in text:
        for _ in range(4):  # A lambda's argument may be a lambda.
            text, found = re.subn(_LAMBDA, "lambda", text)
            if not found:
                break
    if "nonymous" in text or "GLOBAL__N" in text or "unnamed" in text or "A0x" in text:
        text = re.sub(_ANONYMOUS, "anonymous", text)
    if "std::_" in text:
        text = re.sub(_INLINE_NAMESPACE, "", text)
    if "::__l" in text or "`" in text:
        text = re.sub(_LOCAL_SCOPE, "", text)
        text = re.sub(r"`([^`']*)'", lambda m: strip_arguments(m[1]), text)
    text = _without_templates(_without_scopes_arguments(strip_arguments(text)))
    if text.startswith(("_", "@", "mem", "str", "wcs", "stp")):
        text = _c_name(text)
    return text.strip()


def _without_templates(text: str) -> str:
    """Replace template arguments by ``<>``; a Rust ``<T as Trait>::f`` at the beginning keeps what is inside it."""
    if "<" not in text:
        return text
    kept: list[str] = []
    at = 0
    for bracket in brackets(text):
        if bracket.kind != "<" or bracket.start == 0:
            continue
        kept += (text[at : bracket.start], "<>")
        at = bracket.end
    return "".join((*kept, text[at:]))


def _without_scopes_arguments(text: str) -> str:
    """Take the arguments off functions that others are defined in: ``f(int) const::Local::g`` gives ``f::Local::g``."""
    if "(" not in text:
        return text
    kept: list[str] = []
    at = 0
    for bracket in brackets(text):
        if bracket.kind == "(" and bracket.start and (scope := re.compile(r"(?: const| volatile| &&?)*::").match(
            text, bracket.end
        )):  # fmt: skip
            kept.append(text[at : bracket.start])
            at = scope.end() - 2
    return "".join((*kept, text[at:]))


def _c_name(text: str) -> str:
    for prefix in ("__GI_", "__imp_"):
        if text.startswith(prefix) and len(text) > len(prefix):
            text = text[len(prefix) :]
    if match := re.match(_VARIANT, text):
        return match[1]
    if match := re.match(_STDCALL, text):
        return match[1]
    return text


def _block(text: str) -> str | None:
    """Return the method or function that a block of Objective-C or C was written in."""
    match = re.match(r"_{1,2}(?:\d+)?([+-]\[[^\]]*\]|\w+?)_block_invoke(?:[._]?\d+)*(?:\.cold(?:\.\d+)?)?$", text)
    return f"{match[1]} block" if match else None


# --- Swift ----------------------------------------------------------------------------------------------------------

_SWIFT_WORDS = (
    "closure #", "implicit closure #", "specialized ", "merged ", "outlined ", "partial apply ", "@objc ", "@nonobjc ",
    "generic specialization", "generic not re-abstracted", "function signature specialization", "thunk for ",
    "reabstraction thunk", "protocol witness for ", "static ", "dispatch thunk of ", "lazy ", "default argument ",
    "(extension in ", "vtable thunk for ", "inlined generic function", "async function pointer to ",
    "(1) ", "(2) ", "(3) ", "(4) ", "(5) ", "(6) ", "(7) ", "(8) ", "(9) ", "suspend resume partial", "merged generic",
)  # fmt: skip
_SWIFT_PREFIX = (
    r"^(?:(?:specialized|merged|outlined|static|lazy|@objc|@nonobjc|async|dispatch thunk of|vtable thunk for"
    r"|protocol witness for|async function pointer to|partial apply for|partial apply forwarder for"
    r"|inlined generic function|merged generic|(?:generic (?:specialization|not re-abstracted specialization)"
    r"|function signature specialization|generic partial specialization)(?: <[^<>]*(?:<[^<>]*>[^<>]*)*>)? of"
    r"|default argument \d+ of|\(\d+\) (?:await resume|suspend resume) partial function for"
    r"|suspend resume partial function for) )"
)


def _swift(text: str) -> str | None:
    """Return Swift's ``Module.Type.method`` without labels, types and marks of the optimizer; None where it is none."""
    word = "closure" if re.match(r"(?:implicit )?closure #", text) else ""
    looks = bool(word)
    for _ in range(8):
        text, found = re.subn(_SWIFT_PREFIX, "", text, count=1)
        text, closures = re.subn(r"^(?:implicit )?closure #\d+(?:.*? in )?", "", text, count=1)
        looks |= bool(found or closures)
        if closures:
            word = "closure"
        if not found and not closures:
            break
    text, private = re.subn(_HASHED_PRIVATE, ")", text)
    text = re.sub(r"\((\w+)\)(?=\.|\(|$| )", r"\1", text) if private else text
    text, extension = re.subn(r"^\(extension in [\w.]+\):", "", text)
    if not (looks or private or extension or "Swift." in text):
        return None
    text = re.split(r"[(<]| -> | : ", text, maxsplit=1)[0] if not text.startswith("(") else text
    return f"{text.strip()} {word}".strip()


# --- Go -------------------------------------------------------------------------------------------------------------


def go(text: str) -> str:
    """Return a Go function's name without arguments, type arguments and the numbers of closures and wrappers."""
    if "%" in text:  # The linker escapes dots of a path's last part: gopkg.in/yaml%2ev3.
        text = re.sub(r"%([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)
    if text.endswith(")"):  # The arguments; a receiver (*T) is followed by its method.
        text = re.sub(r"\((?!\*)[^()]*\)$", "", text)
    text = text.rpartition("/vendor/")[2]
    text = re.sub(r"\[[^\[\]]*\]", "[]", text) if "[" in text else text
    text = re.sub(r"\.(?:func|gowrap|deferwrap)\d+(?:\.(?:func|gowrap|deferwrap)?\d+)*(?:-range\d+)?", ".func", text)
    return re.sub(r"(?<=\.init)\.\d+$|-fm$|·\d+$", "", text)
