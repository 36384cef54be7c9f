"""Operators that make types: builtin, function, generic and associated types, and generic signatures."""

from __future__ import annotations

from deadreckon.symbols.swift._machine import Machine, wrap
from deadreckon.symbols.swift._nodes import BUILTINS, REQUIREMENTS, Node, Unreadable

__all__ = ["Types"]

_MAX_BITS = 4096
_FUNCTIONS = {
    "E": ("NoEscapeFunctionType", ""),
    "A": ("FunctionLike", "@autoclosure "),
    "K": ("FunctionLike", "@autoclosure "),
    "f": ("ThinFunctionType", "@convention(thin) "),
    "U": ("UncurriedFunctionType", ""),
    "L": ("FunctionLike", "@escaping @convention(block) "),
    "B": ("FunctionLike", "@convention(block) "),
    "C": ("CFunctionPointer", "@convention(c) "),
}
_REFERENCES = {"o": "unowned ", "u": "unowned(unsafe) ", "w": "weak ", "b": "@box "}
_REPRESENTATIONS = {"t": "@thin ", "T": "@thick ", "o": "@objc_metatype "}
_DIFFERENTIABLE = {"f": "(_forward)", "r": "(reverse)", "d": "", "l": "(_linear)"}

_CALLEES = {"y": "@callee_unowned", "g": "@callee_guaranteed", "x": "@callee_owned", "t": "@convention(thin)"}
_CONVENTIONS = {"B": "block", "C": "c", "M": "method", "O": "objc_method", "K": "closure", "W": "witness_method"}
_PARAMETERS = {
    "i": "@in", "c": "@in_constant", "l": "@inout", "b": "@inout_aliasable", "n": "@in_guaranteed", "X": "@in_cxx",
    "x": "@owned", "g": "@guaranteed", "e": "@deallocating", "y": "@unowned", "v": "@pack_owned",
    "p": "@pack_guaranteed", "m": "@pack_inout",
}  # fmt: skip
_RESULTS = {
    "r": "@out", "o": "@owned", "d": "@unowned", "u": "@unowned_inner_pointer", "a": "@autoreleased", "k": "@pack_out",
}  # fmt: skip

# What a requirement constrains, by its letter: how, and what the letters behind it tell.
_REQUIREMENTS = {
    letter: (kind, subject)
    for kind, letters in {
        "Conformance": "cCbB", "SameType": "tTsS", "Layout": "mMlL", "Protocol": "pP Q", "Inverse": "jJiI",
    }.items()
    for letter, subject in zip(letters, ("simple", "compound", "parameter", "substitution"), strict=True)
    if letter != " "
} | {"v": ("PackMarker", "parameter"), "h": ("SameShape", "parameter"), "V": ("ValueMarker", "parameter")}  # fmt: skip
_LAYOUTS = {
    "U": "_UnknownLayout", "R": "_RefCountedObject", "N": "_NativeRefCountedObject", "C": "AnyObject",
    "D": "_NativeClass", "T": "_Trivial", "B": "_BridgeObject", "E": "_Trivial", "e": "_Trivial",
    "M": "_TrivialAtMost", "m": "_TrivialAtMost", "S": "_TrivialStride",
}  # fmt: skip


class Types(Machine):
    """Each method reads what follows its operator's first letter and returns the node to push."""

    def wrapped(self, kind: str, text: str) -> Node:
        return wrap(Node(kind, [self.inner()], text))

    # --- Builtin and annotated types ------------------------------------------------------------------------------

    def builtin(self) -> Node:
        c = self.next()
        if name := BUILTINS.get(c):
            return wrap(Node("Builtin", text=name))
        if c == "T":
            return wrap(Node("Tuple"))
        if c not in "fiv":
            raise Unreadable
        size = self.number() - 1
        if not 0 < size <= _MAX_BITS:
            raise Unreadable
        if c == "v":
            element = self.inner()
            if element.kind != "Builtin":
                raise Unreadable
            name = f"Builtin.Vec{size}x{element.text.removeprefix('Builtin.')}"
        else:
            name = f"Builtin.{'FPIEEE' if c == 'f' else 'Int'}{size}"
        return wrap(Node("Builtin", text=name))

    def annotation(self) -> Node:
        c = self.next()
        if c == "a":
            return Node("Async")
        if c == "b":
            return Node("Sendable")
        if c == "A":
            return Node("Isolation", text="@isolated(any) ")
        if c == "C":
            return Node("Isolation", text="nonisolated(nonsending) ")
        if c == "T":
            return Node("Sending")
        if c == "c":
            return Node("GlobalActor", [self.inner()])
        if c == "K":
            return Node("TypedThrows", [self.inner()])
        if c == "j":
            return Node("Differentiable", text=f"@differentiable{self.one_of(_DIFFERENTIABLE)} ")
        return self.wrapped("Prefix", self.one_of({"i": "isolated ", "k": "@noDerivative ", "t": "_const ",
                                                   "u": "sending ", "g": "@const "}, c))  # fmt: skip

    def one_of(self, table: dict[str, str], c: str | None = None) -> str:
        found = table.get(self.next() if c is None else c)
        if found is None:
            raise Unreadable
        return found

    def tuple(self) -> Node:
        elements: list[Node] = []
        if not self.pop("EmptyList"):
            first: Node | None = None
            while not first:
                first = self.pop("FirstElement")
                variadic = self.pop("Variadic")
                label = self.pop("Identifier")
                type_ = self.need("Type")
                elements.append(Node("Element", [type_], label.text if label else "", 1 if variadic else 0))
        return wrap(Node("Tuple", elements[::-1]))

    def bound_type(self) -> Node:
        lists = self.bound_generics()
        return self.remember(wrap(self.bind(self.generic(), lists)))

    # --- Types behind X -------------------------------------------------------------------------------------------

    def special_type(self) -> Node:
        c = self.next()
        if found := _FUNCTIONS.get(c):
            function = self.function_type(found[0])
            function.children[0].text = found[1] + function.children[0].text
            return function
        if c == "z":
            return self.clang_function()
        if c in _REFERENCES:
            return self.wrapped("Prefix", _REFERENCES[c])
        if c == "D":
            self.need("Type")
            return wrap(Node("Builtin", text="Self"))
        if c in "Mm":
            representation = self.one_of(_REPRESENTATIONS)
            return wrap(Node("Metatype" if c == "M" else "ExistentialMetatype", [self.need("Type")], representation))
        if c == "p":
            return wrap(Node("ExistentialMetatype", [self.need("Type")]))
        if c == "c":
            superclass = self.need("Type")
            return wrap(Node("ProtocolList", [superclass, *self.marked("Protocol")]))
        if c == "l":
            protocols = self.marked("Protocol")
            return wrap(Node("ProtocolList", [*protocols, Node("Builtin", text="AnyObject")]))
        if c == "P":
            return self.constrained_existential()
        if c in "Xx":
            return self.box(generic=c == "X")
        if c == "Z":
            types = self.marked("Type")
            name = self.need("Identifier")
            return Node("AnonymousContext", [name, self.context(), *types])
        if c == "e":
            return wrap(Node("Builtin", text="<ERROR TYPE>"))
        if c == "S":
            return self.sugared()
        if c == "Y":
            name = self.name()
            return self.remember(wrap(Node("OtherNominalType", [self.context(), name])))
        raise Unreadable

    def clang_function(self) -> Node:
        c = self.next()
        if c not in "BC":
            raise Unreadable
        convention = f'@convention({"block" if c == "B" else "c"}, mangledCType: "{self.clang_type()}") '
        function = self.function_type("FunctionLike" if c == "B" else "CFunctionPointer")
        function.children[0].text = convention + function.children[0].text
        return function

    def clang_type(self) -> str:
        length = self.natural()
        text = self.text[self.at : self.at + (length or 0)]
        if not length or len(text) < length:
            raise Unreadable
        self.at += length
        return text

    def constrained_existential(self) -> Node:
        requirements: list[Node] = []
        first: Node | None = None
        while not first:
            first = self.pop("FirstElement")
            requirements.append(self.need_of(REQUIREMENTS))
        return wrap(Node("ConstrainedExistential", [self.need("Type"), *requirements[::-1]]))

    def box(self, *, generic: bool) -> Node:
        signature = self.need("Signature") if generic else None
        arguments = self.marked("Type") if generic else []
        fields: list[Node] = []
        for field in self.marked("Type"):
            inner = field.children[0]
            mutable = inner.kind == "Prefix" and inner.text == "inout "
            fields.append(Node("Prefix", [inner.children[0] if mutable else inner], "var " if mutable else "let "))
        box = Node("Box", fields, index=len(fields))
        box.children += [signature, *arguments] if signature else []
        return wrap(box)

    def sugared(self) -> Node:
        c = self.next()
        if c == "D":
            value = self.need("Type")
            return wrap(Node("Sugar", [self.need("Type"), value], "D"))
        if c not in "qap":
            raise Unreadable
        return wrap(Node("Sugar", [self.need("Type")], c))

    # --- Function types of the intermediate language --------------------------------------------------------------

    def implementation(self) -> Node:
        """Read an impl-function-type; text: its attributes, index: how many children are parameters."""
        pattern: list[Node] | None = None
        invocation: list[Node] = []
        substituted: Node | None = None
        if self.take("s"):
            pattern = self.flat_generics()
            substituted = self.need("Signature")
        if self.take("I"):
            invocation = self.flat_generics()
        signature = self.pop("Signature")
        if signature:
            self.take("P")
        attributes = ["@escaping"] if self.take("e") else []
        if self.take("A"):
            attributes.append("@isolated(any)")
        if (c := self.peek()) and c in _DIFFERENTIABLE:
            self.at += 1
            attributes.append("@differentiable" + _DIFFERENTIABLE[c])
        attributes.append(self.one_of(_CALLEES))
        attributes += self.representation()
        for letter, attribute in {
            "A": "@yield_once", "I": "@yield_once_2", "G": "@yield_many", "h": "@Sendable", "H": "@async",
            "T": "sending",
        }.items():  # fmt: skip
            if self.take(letter):
                attributes.append(attribute)
        parameters = self.convened(_PARAMETERS, "")
        results = self.convened(_RESULTS, "")
        while self.take("Y"):
            results += self.convened(_PARAMETERS, "@yields ", one=True)
        if self.take("z"):
            results += self.convened(_RESULTS, "@error ", one=True)
        if not self.take("_"):
            raise Unreadable
        for part in reversed(parameters + results):
            part.children.append(self.need("Type"))
        function = Node("Implementation", parameters + results, " ".join(attributes), len(parameters))
        function.children.append(Node("Substitutions", [
            Node("List", [signature] if signature else []),
            Node("List", [substituted] if substituted else []),
            Node("List", pattern or []),
            Node("List", invocation),
        ]))  # fmt: skip
        return wrap(function)

    def flat_generics(self) -> list[Node]:
        lists = self.bound_generics()
        if len(lists) != 1:
            raise Unreadable
        return lists[0]

    def representation(self) -> list[str]:
        c = self.peek()
        if c == "z":
            kind = self.text[self.at + 1 : self.at + 2]
            if kind not in {"B", "C"}:
                return []
            self.at += 2
            return [f'@convention({_CONVENTIONS[kind]}, mangledCType: "{self.clang_type()}")']
        if c and c in _CONVENTIONS:
            self.at += 1
            return [f"@convention({_CONVENTIONS[c]})"]
        return []

    def convened(self, table: dict[str, str], before: str, *, one: bool = False) -> list[Node]:
        found: list[Node] = []
        while (c := self.peek()) and c in table:
            self.at += 1
            text = before + table[c] + " "
            if self.take("w"):
                text += "@noDerivative "
            if table is _PARAMETERS:
                text += "sending " if self.take("T") else ""
                text += "isolated " if self.take("I") else ""
                text += "sil_implicit_leading_param " if self.take("L") else ""
            found.append(Node("Prefix", [], text))
            if one:
                return found
        if one:
            raise Unreadable
        return found

    # --- Generic parameters and signatures ------------------------------------------------------------------------

    def parameter(self) -> Node:
        """Read a GENERIC-PARAM-INDEX."""
        if self.take("d"):
            depth = self.number() + 1
            return generic_parameter(depth, self.number())
        if self.take("z"):
            return generic_parameter(0, 0)
        if self.take("s"):
            return Node("Builtin", text="Self")
        return generic_parameter(0, self.number() + 1)

    def signature(self, *, counted: bool) -> Node:
        counts = [] if counted else [1]
        while counted and not self.take("l"):
            counts.append(0 if self.take("z") else self.number() + 1)
        requirements: list[Node] = []
        while found := self.pop_of(REQUIREMENTS):
            requirements.append(found)
        packs = [node.children[0] for node in requirements if node.kind in {"PackMarker", "ValueMarker"}]
        return Node("Signature", [Node("Count", index=count) for count in counts] + packs[::-1])

    def requirement(self) -> Node:
        found = _REQUIREMENTS.get(self.peek())
        self.at += 1 if found else 0
        kind, subject = found or ("Protocol", "parameter")
        if kind == "Inverse":
            self.number()
        if subject == "parameter":
            constrained = wrap(self.parameter())
        elif subject == "simple":
            constrained = self.remember(self.associated(self.parameter()))
        elif subject == "compound":
            constrained = self.remember(self.associated_path(self.parameter()))
        else:
            constrained = self.need("Type")
        if kind in {"PackMarker", "Inverse"}:
            return Node(kind, [constrained])
        if kind == "Protocol":
            return Node("Conformance", [constrained, self.protocol()], ": ")
        if kind == "Layout":
            return self.layout(constrained)
        return Node(kind, [constrained, self.need("Type")], ": " if kind == "Conformance" else " == ")

    def layout(self, constrained: Node) -> Node:
        c = self.next()
        name = self.one_of(_LAYOUTS, c)
        if c in "EMemS":
            name += f"({self.number()}" + (f", {self.number()})" if c in "EM" else ")")
        return Node("Layout", [constrained], ": " + name)

    def generic_type(self) -> Node:
        signature = self.need("Signature")
        return wrap(Node("GenericType", [signature, self.need("Type")]))

    # --- Associated and opaque types ------------------------------------------------------------------------------

    def association(self) -> Node:
        """Pop the name of an associated type, and its protocol if there is one."""
        protocol = self.pop("Type")
        if protocol and protocol.children[0].kind != "Protocol":
            raise Unreadable
        name = self.need("Identifier")
        return Node("Association", [protocol, name] if protocol else [name])

    def association_path(self) -> list[Node]:
        path: list[Node] = []
        first: Node | None = None
        while not first:
            first = self.pop("FirstElement")
            path.append(self.association())
        return path[::-1]

    def associated(self, base: Node | None) -> Node:
        name = self.association()
        return wrap(Node("Member", [wrap(base) if base else self.need("Type"), name]))

    def associated_path(self, base: Node | None) -> Node:
        path = self.association_path()
        found = wrap(base) if base else self.need("Type")
        for name in path:
            found = wrap(Node("Member", [found, name]))
        return found

    def archetype(self) -> Node:
        c = self.next()
        if c == "a":
            name = self.need("Identifier")
            return self.remember(wrap(Node("Member", [self.inner(), name])))
        if c == "O":
            return Node("OpaqueReturnTypeOf", [self.context()])
        if c == "o":
            index = self.number()
            self.bound_generics()
            return self.remember(wrap(Node("OpaqueType", [self.need_any()], index=index)))
        if c in "ru":
            return wrap(Node("Builtin", text="some"))
        if c in "RU":
            self.number()
            return wrap(Node("Builtin", text="some"))
        if c in "xyz":
            base = None if c == "x" else self.parameter() if c == "y" else generic_parameter(0, 0)
            return self.remember(self.associated(base))
        if c in "XYZ":
            base = None if c == "X" else self.parameter() if c == "Y" else generic_parameter(0, 0)
            return self.remember(self.associated_path(base))
        return self.pack(c)

    def pack(self, c: str) -> Node:
        if c == "P":
            return wrap(Node("Pack", self.marked("Type")))
        if c == "S":
            directness = self.one_of({"d": "@direct ", "i": "@indirect "})
            return wrap(Node("Pack", self.marked("Type"), directness))
        if c == "p":
            self.need("Type")  # The type that counts them.
            return wrap(Node("Prefix", [self.need("Type")], "repeat "))
        if c == "e":
            level = self.number()
            return wrap(Node("Prefix", [self.need("Type")], f"/* level: {level} */ each "))
        raise Unreadable


def generic_parameter(depth: int, index: int) -> Node:
    """Return the parameter as people name it: A, B1 and so on."""
    letters = ""
    while True:
        letters += chr(65 + index % 26)
        index //= 26
        if not index:
            return Node("Builtin", text=letters + (str(depth) if depth else ""))
