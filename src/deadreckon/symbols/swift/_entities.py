"""Operators that make declarations: functions, variables, closures, initializers, extensions, macros."""

from __future__ import annotations

from deadreckon.symbols.swift._machine import wrap
from deadreckon.symbols.swift._nodes import DECLARATION_NAMES, OPERATOR_CHARACTERS, Node, Unreadable
from deadreckon.symbols.swift._types import Types

__all__ = ["Entities"]

_ACCESSORS = {
    "m": "materializeForSet", "s": "setter", "g": "getter", "G": "getter", "w": "willset", "W": "didset", "r": "read",
    "M": "modify", "i": "init", "x": "yielding_mutate", "y": "yielding_borrow", "b": "borrow", "z": "mutate",
    "aO": "owningMutableAddressor", "ao": "nativeOwningMutableAddressor", "aP": "nativePinningMutableAddressor",
    "au": "unsafeMutableAddressor", "lO": "owningAddressor", "lo": "nativeOwningAddressor",
    "lp": "nativePinningAddressor", "lu": "unsafeAddressor",
}  # fmt: skip
_SPECIALS = {"d": "deinit", "E": "__ivar_destroyer", "e": "__ivar_initializer"}
_DEINITIALIZERS = {"D": "__deallocating_deinit", "Z": "__isolated_deallocating_deinit"}
_INITIALIZERS = {
    "i": "variable initialization expression",
    "P": "property wrapper backing initializer",
    "W": "property wrapper init from projected value",
}
_ATTACHED = {
    "a": "accessor", "r": "member attribute", "m": "member", "p": "peer", "c": "conformance", "e": "extension",
    "q": "preamble", "b": "body",
}  # fmt: skip
_FREESTANDING = {"f": "freestanding macro expansion #", "u": "unique name #"}
_MACROS = frozenset({"AttachedMacro", "FreestandingMacro", "MacroLocation"})


class Entities(Types):
    """Each method reads what follows its operator's first letter and returns the node to push."""

    def nominal(self, kind: str) -> Node:
        name = self.name()
        return self.remember(wrap(Node(kind, [self.context(), name])))

    def extension(self) -> Node:
        signature = self.pop("Signature")
        module = self.need_module()
        extended = self.generic()
        return Node("Extension", [module, extended, signature] if signature else [module, extended])

    def operator_name(self) -> Node:
        name = "".join(c if not c.isascii() else OPERATOR_CHARACTERS.get(c, "\0") for c in self.need("Identifier").text)
        if "\0" in name:
            raise Unreadable
        return Node("Operator", text=name + self.one_of({"i": " infix", "p": " prefix", "P": " postfix"}))

    def local_name(self) -> Node:
        if self.take("L"):
            discriminator = self.need("Identifier")
            return Node("PrivateName", [discriminator, self.name()])
        if self.take("l"):
            return Node("PrivateName", [self.need("Identifier")])
        c = self.peek()
        if c and c in "abcdefghijABCDEFGHIJ":
            self.at += 1
            return Node("RelatedName", [self.need_any()], c)
        index = self.number()
        return Node("LocalName", [self.name()], index=index)

    def function(self) -> Node:
        signature = self.pop("Signature")
        type_ = self.function_type("FunctionType")
        labels = self.labels(type_)
        if signature:
            type_ = wrap(Node("GenericType", [signature, type_]))
        name = self.name()
        return Node("Function", [self.context(), name, *([labels] if labels else []), type_])

    def declared(self, kind: str) -> Node:
        type_ = self.need("Type")
        labels = self.labels(type_)
        name = self.name()
        return Node(kind, [self.context(), name, *([labels] if labels else []), type_])

    def subscript(self) -> Node:
        private = self.pop("PrivateName")
        type_ = self.need("Type")
        labels = self.labels(type_)
        children = [self.context(), *([labels] if labels else []), type_, *([private] if private else [])]
        return self.accessor(Node("Subscript", children))

    def accessor(self, storage: Node) -> Node:
        c = self.next()
        if c == "p":
            return storage
        return Node("Accessor", [storage], self.one_of(_ACCESSORS, c + self.next() if c in "al" else c))

    def function_entity(self) -> Node:
        c = self.next()
        if c in _SPECIALS:
            return Node("Special", [self.context()], _SPECIALS[c])
        if c in _DEINITIALIZERS:
            context = self.context()
            return Node("Special", [context], _DEINITIALIZERS[c] if context.kind == "Class" else "deinit")
        if c in _INITIALIZERS:
            return Node("InitializerOf", [self.context()], _INITIALIZERS[c])
        if c in "Cc":
            private = self.pop("PrivateName")
            type_ = self.need("Type")
            labels = self.labels(type_)
            context = self.context()
            children = [context, *([labels] if labels else []), type_, *([private] if private else [])]
            text = "__allocating_init" if c == "C" and context.kind == "Class" else "init"
            return Node("Allocator" if c == "C" else "Constructor", children, text)
        if c in "Uu":
            index = self.number()
            type_ = self.need("Type")
            return Node("Closure", [self.context(), type_], "closure #" if c == "U" else "implicit closure #", index)
        if c == "A":
            index = self.number()
            return Node("DefaultArgument", [self.context()], "default argument ", index)
        if c == "p":
            return self.declared("TypeParameter")
        if c == "m":
            return self.macro()
        if c == "M":
            return self.macro_expansion()
        if c == "a":
            return Node("Prefix", [self.entity()], "runtime attribute generator of ")
        raise Unreadable

    def macro(self) -> Node:
        signature = self.pop("Signature")
        type_ = self.need("Type")
        labels = self.labels(type_)
        if signature:
            type_ = wrap(Node("GenericType", [signature, type_]))
        name = self.name()
        return Node("Macro", [self.context(), name, *([labels] if labels else []), type_])

    def macro_expansion(self) -> Node:
        c = self.next()
        if c == "X":
            line = self.number()
            column = self.number()
            return Node("MacroLocation", [self.pop_of(_MACROS) or self.context()], f"{line}:{column}")
        if c in _ATTACHED:
            macro = self.need("Identifier")
            attached = self.need_of(DECLARATION_NAMES)
            children = [self.pop_of(_MACROS) or self.context(), attached]
            text = f"{_ATTACHED[c]} macro @{macro.text} expansion #"
            return Node("AttachedMacro", children, text, self.number())
        text = self.one_of(_FREESTANDING, c)
        private: Node | None = None
        name = self.need("Identifier")
        private = self.pop("PrivateName")
        children = [self.pop_of(_MACROS) or self.context(), name, *([private] if private else [])]
        return Node("FreestandingMacro", children, text, self.number())

    def static(self) -> Node:
        return Node("Static", [self.entity()])
