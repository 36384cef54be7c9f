"""Swift's symbol names, read by the grammar of https://github.com/swiftlang/swift/blob/main/docs/ABI/Mangling.rst.

A symbol is a program for a stack machine (machine.py, types.py, entities.py, reader.py). Its substitutions share parts,
so a short one may stand for an endless text: output, depth and steps are bounded (printer.py). What the grammar here
does not know is not demangled.
"""

from __future__ import annotations

from deadreckon.symbols.swift.nodes import Unreadable
from deadreckon.symbols.swift.printer import render
from deadreckon.symbols.swift.reader import read

__all__ = ["PREFIXES", "demangle"]

PREFIXES = ("$s", "_$s", "$S", "_$S", "$e", "_$e", "_T0", "@__swiftmacro_")
"""Swift 5, 4.2 and 4.0, embedded Swift, and the names of files that macros expand to."""


def demangle(name: str) -> str | None:
    """Return the declaration that a Swift symbol names, with argument labels, as ``Foo.bar(_:baz:)``.

    Modules, types and results are left out, and so are the marks of the compiler's copies and of the parts that an
    async function is split into: what crash reports show, and what stays the same when an app is rebuilt. None where
    it is no Swift symbol, or one that is not understood. Never raises.
    """
    for prefix in PREFIXES:
        if name.startswith(prefix):
            break
    else:
        return None
    try:
        return render(read(name[len(prefix) :], old=prefix == "_T0"))
    except (Unreadable, RecursionError):
        return None
