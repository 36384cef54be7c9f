"""Swift's symbol names, read by the grammar of https://github.com/swiftlang/swift/blob/main/docs/ABI/Mangling.rst.

A symbol is a program for a stack machine (_machine.py), whose operators are in _types.py, _entities.py and _reader.py.
Substitutions share parts, so a short symbol may stand for an endless text: output, depth and steps are bounded
(_printer.py). What the grammar here does not know is not demangled.
"""

from __future__ import annotations

import re

__all__ = ["PREFIXES", "demangle"]

PREFIXES = ("$s", "_$s", "$S", "_$S", "$e", "_$e", "_T0", "@__swiftmacro_", "_Tt", "-[_Tt", "+[_Tt")
"""Swift 5, 4.2, embedded Swift, 4.0, the names of files that macros expand to, and what Objective-C sees."""

_METHOD = re.compile(r"([-+]\[)_Tt(\w+)((?:\(\w+\))? [^\s\]]+\])")


def demangle(name: str) -> str | None:
    """Return the declaration that a Swift symbol names, with argument labels, as ``Foo.bar(_:baz:)``.

    Modules, types and results are left out, and so are the marks of the compiler's copies and of the parts that an
    async function is split into: what crash reports show, and what stays the same when an app is rebuilt. In
    ``-[_TtC4Main3Foo bar:]`` the class is named. None where it is no Swift symbol, or one that is not understood.
    Never raises.
    """
    if not name.startswith(PREFIXES) or not name.isascii() or not name.isprintable():
        return None
    # Most reports have no Swift in them, and the grammar takes a while to load.
    from deadreckon.symbols.swift import _nodes, _old, _printer, _reader  # noqa: PLC0415

    try:
        if method := _METHOD.fullmatch(name):
            return method[1] + _printer.render(_old.read_type(method[2])) + method[3]
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        text = name[len(prefix) :]
        if "[" in prefix:
            return None
        root = _old.read_type(text) if prefix == "_Tt" else _reader.read(text, old=prefix == "_T0")
        return _printer.render(root)
    except (_nodes.Unreadable, RecursionError):
        return None
