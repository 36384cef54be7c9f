"""The operators of whole symbols, thunks and metadata, and the loop that reads them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.symbols.swift._entities import Entities
from deadreckon.symbols.swift._machine import wrap
from deadreckon.symbols.swift._nodes import VALUE_WITNESSES, Node, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["read"]

# Operators of one letter that make a node of no parts, or of the type before.
_ATOMS = {"K": "Throws", "d": "Variadic", "y": "EmptyList", "_": "FirstElement"}
_PREFIXES = {"h": "__shared ", "n": "__owned ", "z": "inout "}
_NOMINALS = {"C": "Class", "O": "Enum", "P": "Protocol", "V": "Structure", "a": "TypeAlias"}

# What stands before a type's name, by the letter behind M.
_METADATA = {
    "a": "type metadata accessor for ",
    "b": "canonical specialized generic type metadata accessor for ",
    "B": "reflection metadata builtin descriptor ",
    "C": "reflection metadata superclass descriptor ",
    "D": "demangling cache variable for type metadata for ",
    "f": "full type metadata for ",
    "F": "reflection metadata field descriptor ",
    "i": "type metadata instantiation function for ",
    "I": "type metadata instantiation cache for ",
    "l": "type metadata singleton initialization cache for ",
    "L": "lazy cache variable for type metadata for ",
    "m": "metaclass for ",
    "M": "specialized generic metaclass for ",
    "n": "nominal type descriptor for ",
    "N": "noncanonical specialized generic type metadata for ",
    "o": "class metadata base offset for ",
    "P": "generic type metadata pattern for ",
    "r": "type metadata completion function for ",
    "s": "ObjC resilient class stub for ",
    "t": "full ObjC resilient class stub for ",
    "u": "method lookup function for ",
    "U": "ObjC metadata update function for ",
    "z": "flag for loading of canonical specialized generic type metadata for ",
}
_METADATA_OF_ANY = {
    "g": "opaque type descriptor accessor for ",
    "h": "opaque type descriptor accessor impl for ",
    "j": "opaque type descriptor accessor key for ",
    "k": "opaque type descriptor accessor var for ",
    "J": "cache variable for noncanonical specialized generic type metadata for ",
    "K": "metadata instantiation cache for ",
    "q": "uniquable ",
    "Q": "opaque type descriptor for ",
}
_OF_PROTOCOLS = {
    "Mp": "protocol descriptor for ",
    "MS": "protocol self-conformance descriptor for ",
    "WS": "protocol self-conformance witness table for ",
    "Hr": "protocol descriptor runtime record for ",
    "TL": "protocol requirements base descriptor for ",
}
_OF_CONFORMANCES = {
    "Mc": "protocol conformance descriptor for ",
    "MA": "reflection metadata associated type descriptor ",
    "WP": "protocol witness table for ",
    "Wp": "protocol witness table pattern for ",
    "WG": "generic protocol witness table for ",
    "WI": "instantiation function for generic protocol witness table for ",
    "Wr": "resilient protocol witness table for ",
    "Wa": "protocol witness table accessor for ",
    "Hc": "protocol conformance descriptor runtime record for ",
}
_OUTLINED = {
    "y": "outlined copy of ", "e": "outlined consume of ", "r": "outlined retain of ", "s": "outlined release of ",
    "b": "outlined init with take of ", "c": "outlined init with copy of ", "d": "outlined assign with take of ",
    "f": "outlined assign with copy of ", "h": "outlined destroy of ", "g": "outlined enum get tag of ",
    "B": "outlined init with take of ", "C": "outlined init with copy of ", "D": "outlined assign with take of ",
    "F": "outlined assign with copy of ", "H": "outlined destroy of ", "i": "outlined enum tag store of ",
    "j": "outlined enum project data for load of ",
}  # fmt: skip

# Attributes of the function before them. Several are left out of names as people read them: they tell how it is called.
_ATTRIBUTES = {
    "o": "@objc ", "O": "@nonobjc ", "D": "dynamic ", "d": "super ", "E": "", "F": "", "m": "", "X": "", "x": "",
    "I": "", "u": "async function pointer to ",
}  # fmt: skip
_ATTRIBUTES_W = {"b": "", "B": "back deployment fallback for ", "S": "#_hasSymbol query for "}
_THUNKS = {
    "c": "curry thunk of ", "j": "dispatch thunk of ", "q": "method descriptor for ",
    "S": "protocol self-conformance witness for ",
}  # fmt: skip
_FUNCTION_ATTRIBUTES = frozenset({"Attribute", "PartialApply", "Specialized"})
_SPECIALIZATIONS = frozenset("gGBsi")


class _Reader(Entities):
    """The whole grammar."""

    def read(self) -> Node:
        # A dot starts what tells apart the copies that the compiler made; it is no part of the name.
        while self.at < len(self.text) and self.peek() != ".":
            self.push(self.operator())
        root = parent = Node("Global")
        while found := self.pop_of(_FUNCTION_ATTRIBUTES):
            parent.children.append(found)
            if found.kind == "PartialApply":
                parent = found
        parent.children += [node.children[0] if node.kind == "Type" else node for node in self.stack]
        # Other demanglers print what is left one behind the other. Nothing that a compiler wrote leaves more than one.
        if len(self.stack) > 1 or not root.children or root.children[0].kind == "Identifier":
            raise Unreadable
        return root

    def operator(self) -> Node:
        c = self.next()
        if c in _ATOMS:
            return Node(_ATOMS[c])
        if c in _NOMINALS:
            return self.nominal(_NOMINALS[c])
        if c in _PREFIXES:
            return self.wrapped("Prefix", _PREFIXES[c])
        if found := _OPERATORS.get(c):
            return found(self)
        self.at -= 1
        return self.identifier()

    def type_mangling(self) -> Node:
        type_ = self.need("Type")
        self.labels(type_)
        return Node("Prefix", [type_])

    # --- H: conformances and records ------------------------------------------------------------------------------

    def records(self) -> Node:
        c = self.next()
        if found := self.of_protocol_or_conformance("H" + c):
            return found
        if c == "C":
            self.conformances()
            if not self.pop("ConformanceReference"):
                self.need_module()
                self.protocol()
            self.need("Type")
            return Node("ConcreteConformance")
        if c in "DIA":
            if self.number() == 0:
                raise Unreadable
            self.protocol()
            if c in "DA":
                self.need("Type")
            if c in "IA":
                self.need("DependentConformance")
            return Node("DependentConformance")
        if c in "Pp":
            return Node("ConformanceReference", [self.protocol()])
        if c == "X":
            return Node("PackConformance", self.conformances())
        if c == "n":
            return Node("Prefix", [self.need("Type")], "nominal type descriptor runtime record for ")
        if c == "o":
            return Node("Prefix", [self.need_any()], "opaque type descriptor runtime record for ")
        if c == "F":
            return Node("Attribute")
        raise Unreadable

    def of_protocol_or_conformance(self, code: str) -> Node | None:
        if text := _OF_PROTOCOLS.get(code):
            return Node("Prefix", [self.protocol()], text)
        if text := _OF_CONFORMANCES.get(code):
            return Node("Prefix", [self.protocol_conformance()], text)
        return None

    def protocol_conformance(self) -> Node:
        """Pop a conformance; what is printed of it is the type that conforms."""
        signature = self.pop("Signature")
        self.need_module()
        self.protocol()
        type_ = self.need("Type")
        return wrap(Node("GenericType", [signature, type_])) if signature else type_

    def retroactive(self) -> Node:
        self.number()
        self.conformance()
        return Node("RetroactiveConformance")

    # --- M, w: metadata -------------------------------------------------------------------------------------------

    def metadata(self) -> Node:
        c = self.next()
        if text := _METADATA.get(c):
            return Node("Prefix", [self.generic() if c == "C" else self.need("Type")], text)
        if text := _METADATA_OF_ANY.get(c):
            return Node("Prefix", [self.need_any()], text)
        if found := self.of_protocol_or_conformance("M" + c):
            return found
        if c == "V":
            return Node("Prefix", [self.entity()], "property descriptor for ")
        if c == "X":
            return self.descriptor()
        raise Unreadable

    def descriptor(self) -> Node:
        c = self.next()
        if c == "E":
            return Node("Prefix", [self.context()], "extension descriptor ")
        if c == "M":
            return Node("Prefix", [self.need_module()], "module descriptor ")
        if c == "X":
            return Node("Prefix", [self.context()], "anonymous descriptor ")
        if c == "Y":
            self.need_any()
            return Node("Prefix", [self.context()], "anonymous descriptor ")
        raise Unreadable

    def type_metadata(self) -> Node:
        return Node("Prefix", [self.need("Type")], "type metadata for ")

    def value_witness(self) -> Node:
        witness = self.one_of(VALUE_WITNESSES, self.next() + self.next())
        return Node("Prefix", [self.need("Type")], witness + " for ")

    # --- W: witnesses and outlined operations ---------------------------------------------------------------------

    def witness(self) -> Node:
        c = self.next()
        if found := self.of_protocol_or_conformance("W" + c):
            return found
        if c == "C":
            return Node("Prefix", [self.entity()], "enum case for ")
        if c == "V":
            return Node("Prefix", [self.need("Type")], "value witness table for ")
        if c == "v":
            directness = self.one_of({"d": "direct ", "i": "indirect "})
            return Node("Prefix", [self.entity()], directness + "field offset for ")
        if c in "lL":
            conformance = self.protocol_conformance()
            what = "accessor" if c == "l" else "cache variable"
            text = f"lazy protocol witness table {what} for type "
            return Node("Infix", [self.need("Type"), conformance], text + "\0 and conformance ")
        if c == "t":
            name = self.name()
            return Node("Infix", [name, self.protocol_conformance()], "associated type metadata accessor for \0 in ")
        if c == "T":
            protocol = self.need("Type")
            path = Node("Path", self.association_path())
            text = "associated type witness table accessor for \0 : \0 in "
            return Node("Infix", [path, protocol, self.protocol_conformance()], text)
        if c == "b":
            protocol = self.need("Type")
            return Node("Infix", [protocol, self.protocol_conformance()], "base witness table accessor for \0 in ")
        if c == "O":
            return self.outlined()
        if c in "zZ":
            return self.once(c)
        raise Unreadable

    def outlined(self) -> Node:
        c = self.next()
        text = self.one_of(_OUTLINED, c)
        if c in "ij":
            self.number()
        signature = self.pop("Signature")
        # That of a copy or consumption is printed behind the type.
        parts = [self.need("Type"), *([signature] if signature and c in "ye" else [])]
        return Node("Prefix", [Node("List", parts)], text)

    def once(self, c: str) -> Node:
        names: list[Node] = []
        while self.pop("FirstElement"):
            names.append(self.name())
        self.context()
        what = "function" if c == "Z" else "token"
        return Node("Prefix", [Node("Once", names[::-1])], f"one-time initialization {what} for ")

    # --- T: thunks and specializations ----------------------------------------------------------------------------

    def thunk(self) -> Node:
        c = self.next()
        if c in _ATTRIBUTES:
            return Node("Attribute", text=_ATTRIBUTES[c])
        if text := _THUNKS.get(c):
            return Node("Prefix", [self.entity()], text)
        if c in "aA":
            return Node("PartialApply")
        if c == "w":
            return Node("Attribute", text=self.one_of(_ATTRIBUTES_W))
        if c in "YQ":
            self.number()
            return Node("Attribute")
        if c in _SPECIALIZATIONS or c in "tpPf":
            return self.specialization(c)
        if c == "V":
            base = self.entity()
            return Node("Infix", [base, self.entity()], "vtable thunk for \0 dispatching to ")
        if c == "W":
            entity = self.entity()
            return Node("Infix", [entity, self.protocol_conformance()], "protocol witness for \0 in conformance ")
        if c in "RryU":
            return self.reabstraction(c)
        if c == "C":
            return Node("Prefix", [self.need("Type")], "coroutine continuation prototype for ")
        if c in "zZ":
            return self.completion(c)
        if c in "KkHh":
            return self.key_path(c)
        if c == "v":
            index = self.number()
            what = "read-only object" if self.take("r") else "variable"
            return Node("Attribute", text=f"outlined {what} #{index} of ")
        if c == "e":
            return self.bridged()
        return self.descriptor_thunk(c)

    def descriptor_thunk(self, c: str) -> Node:
        if found := self.of_protocol_or_conformance("T" + c):
            return found
        if c == "l":
            return Node("Prefix", [self.association()], "associated type descriptor for ")
        if c == "M":
            return Node("Prefix", [self.association()], "default associated type metadata accessor for ")
        if c in "nN":
            requirement = self.protocol()
            path = Node("Path", self.association_path())
            what = "associated conformance descriptor" if c == "n" else "default associated conformance accessor"
            return Node("Infix", [self.need("Type"), path, requirement], what + " for \0.\0: ")
        if c == "b":
            requirement = self.protocol()
            return Node("Infix", [self.need("Type"), requirement], "base conformance descriptor for \0: ")
        raise Unreadable

    def reabstraction(self, c: str) -> Node:
        if c == "U":
            actor = self.need("Type")
            return Node("Infix", [self.need_any(), actor], "\0 with global actor constraint ")
        signature = self.pop("Signature")
        if c == "y":
            self_ = self.need("Type")
            to = self.need("Type")
            parts = [self.need("Type"), to, self_]
            text = "from \0 to \0 self "
            if signature:
                return Node("Infix", [signature, *parts], f"reabstraction thunk \0 {text}")
            return Node("Infix", parts, f"reabstraction thunk {text}")
        self.need("Type")
        return Node("Prefix", [self.need("Type")], "thunk for ")

    def completion(self, c: str) -> Node:
        mode = self.number()
        signature = self.pop("Signature")
        result = self.need("Type")
        function = self.need("Type")
        if mode > 2:
            raise Unreadable
        text = ("predefined " if c == "Z" else "") + "@objc completion handler block implementation for "
        after = ("", " nonzero on error", " zero on error")[mode]
        parts = Node("List", [*([signature] if signature else []), function])
        return Node("Infix", [parts, result], text + "\0 with result type \0" + after)

    def key_path(self, c: str) -> Node:
        serialized = self.take("q")
        signature = self.pop("Signature") if c in "Hh" else None
        types: list[Node] = []
        while found := self.pop("Type"):
            types.append(found)
        types.reverse()
        if c in "Hh":
            if self.stack or not (types or signature):
                raise Unreadable
            what = "equality" if c == "H" else "hash"
            parts = [Node("Tuple", types)]
            return Node("Prefix", [Node("List", ([signature] if signature else []) + parts)],
                        f"key path index {what} operator for ")  # fmt: skip
        if not types:
            raise Unreadable
        signature = self.pop("Signature")
        text = ("key path getter" if c == "K" else "key path setter") + " for \0 : \0" + ", serialized" * serialized
        return Node("Infix", [self.need_any(), Node("List", [*([signature] if signature else []), *types])], text)

    def bridged(self) -> Node:
        kind = self.one_of({"p": "p", "a": "a", "m": "m"})
        while not self.take("_"):
            kind += self.one_of({"n": "n", "b": "b", "g": "g"})
        return Node("Attribute", text=f"outlined bridged method ({kind}) of ")

    def specialization(self, c: str) -> Node:
        if c == "t":
            self.at -= 1
            while self.take("t"):
                self.natural()
            c = self.next()
            if c not in "gG":
                raise Unreadable
        for mark in "mqa":
            self.take(mark)
        if not "0" <= self.next() <= "9":
            raise Unreadable
        if c in _SPECIALIZATIONS:
            self.marked("Type")
        elif c in "pP":
            self.need("Type")
        else:
            self.signature_specialization()
        return Node("Specialized")

    def signature_specialization(self) -> None:
        """Read how arguments are specialized, and pop the identifiers and types that tell by what."""
        kinds: list[str] = []
        while not self.take("_"):
            kinds.append(self.argument())
        if not self.take("n"):
            kinds.append(self.argument())
            if kinds[-1]:
                raise Unreadable
        for kind in reversed(kinds):
            if kind:
                while kind in "ck" and self.pop("Type"):
                    pass
                self.need("Identifier")

    def argument(self) -> str:
        """Read an ARG-SPEC-KIND and return the letter of one that has operands, else nothing."""
        c = self.next()
        if c == "c":
            return c
        if c == "p":
            c = self.next()
            if c in "fgk":
                return c
            if c == "s":
                self.one_of({"b": "", "w": "", "c": ""})
                return c
            if c not in "id" or self.natural() is None:
                raise Unreadable
            return ""
        for marks in {"e": "DGOX", "d": "GOX", "g": "X", "o": "X"}.get(c, ""):
            self.take(marks)
        if c not in "nedgoxisr":
            raise Unreadable
        return ""


_OPERATORS: dict[str, Callable[[_Reader], Node]] = {
    "A": _Reader.substitution,
    "B": _Reader.builtin,
    "D": _Reader.type_mangling,
    "E": _Reader.extension,
    "F": _Reader.function,
    "G": _Reader.bound_type,
    "H": _Reader.records,
    "I": _Reader.implementation,
    "L": _Reader.local_name,
    "M": _Reader.metadata,
    "N": _Reader.type_metadata,
    "Q": _Reader.archetype,
    "R": _Reader.requirement,
    "S": _Reader.standard,
    "T": _Reader.thunk,
    "W": _Reader.witness,
    "X": _Reader.special_type,
    "Y": _Reader.annotation,
    "Z": _Reader.static,
    "c": lambda self: self.function_type("FunctionType"),
    "f": _Reader.function_entity,
    "g": _Reader.retroactive,
    "i": _Reader.subscript,
    "l": lambda self: self.signature(counted=False),
    "m": lambda self: wrap(Node("Metatype", [self.need("Type")])),
    "o": _Reader.operator_name,
    "p": lambda self: wrap(Node("ProtocolList", self.marked("Protocol"))),
    "q": lambda self: wrap(self.parameter()),
    "r": lambda self: self.signature(counted=True),
    "s": lambda _: Node("Module", text="Swift"),
    "t": _Reader.tuple,
    "u": _Reader.generic_type,
    "v": lambda self: self.accessor(self.declared("Variable")),
    "w": _Reader.value_witness,
    "x": lambda _: wrap(Node("Builtin", text="A")),
}


def read(text: str, *, old: bool = False) -> Node:
    """Return the tree of a symbol without its prefix. ``old``: of Swift 4.0. Raises Unreadable."""
    return _Reader(text, old=old).read()
