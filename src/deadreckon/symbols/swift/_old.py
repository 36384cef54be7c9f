"""Names of types in the mangling before Swift 4, which Objective-C still sees for classes and protocols of Swift.

``_TtC4Main3Foo`` is a program in reverse to what came later: operators stand before their operands. Of the old grammar
this reads named types, their generic arguments, tuples, protocols and metatypes.
"""

from __future__ import annotations

from deadreckon.symbols.swift._machine import Machine, swift_type, wrap
from deadreckon.symbols.swift._nodes import NOMINALS, STANDARD, Node, Unreadable, punycode

__all__ = ["read_type"]

_NOMINALS = {"C": "Class", "V": "Structure", "O": "Enum"}
_STANDARD = frozenset("abdfiPpRrSquVv")
_MAX_DEPTH = 64


class _Reader(Machine):
    """Reads a type; of the stack machine it uses the text and the list of substitutions."""

    def __init__(self, text: str) -> None:
        super().__init__(text, old=True)
        self.depth = 0

    def type(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        found = wrap(self.unwrapped())
        self.depth -= 1
        return found

    def unwrapped(self) -> Node:
        c = self.peek()
        if c == "G":
            self.at += 1
            return self.arguments(self.nominal())
        if c == "T":
            self.at += 1
            return Node("Tuple", [Node("Element", [element]) for element in self.until_end()])
        if c == "M":
            self.at += 1
            return Node("Metatype", [self.type()])
        if c == "P":
            self.at += 1
            if self.take("M"):
                return Node("ExistentialMetatype", [self.type()])
            protocols: list[Node] = []
            while not self.take("_"):
                protocols.append(wrap(self.named("Protocol")))
            return Node("ProtocolList", protocols)
        return self.nominal()

    def until_end(self) -> list[Node]:
        found: list[Node] = []
        while not self.take("_"):
            found.append(self.type())
        return found

    def nominal(self) -> Node:
        c = self.next()
        if c == "S":
            found = self.back_reference()
            if found.kind not in NOMINALS:
                raise Unreadable
            return found
        kind = _NOMINALS.get(c)
        if kind is None:
            raise Unreadable
        return self.named(kind)

    def arguments(self, nominal: Node) -> Node:
        """Read generic arguments, those of the outermost type first."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        context = nominal.children[0]
        if context.kind in NOMINALS:
            nominal = Node(nominal.kind, [self.arguments(context), *nominal.children[1:]])
        found = self.until_end()
        self.depth -= 1
        return Node("Bound", [wrap(nominal), *found], nominal.kind) if found else nominal

    def named(self, kind: str) -> Node:
        """Read a context and a name, or for a protocol a back reference to both."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        context = self.declared_in()
        self.depth -= 1
        if kind == "Protocol" and context.kind == "Protocol":
            return context
        return self.remember(Node(kind, [context, self.declared_name()]))

    def declared_in(self) -> Node:
        if self.take("s"):
            return Node("Module", text="Swift")
        if self.take("S"):
            return self.back_reference()
        if self.peek() in _NOMINALS:
            return self.nominal()
        return self.remember(Node("Module", text=self.old_identifier()))

    def declared_name(self) -> Node:
        if self.take("P"):
            discriminator = Node("Identifier", text=self.old_identifier())
            return Node("PrivateName", [discriminator, Node("Identifier", text=self.old_identifier())])
        return Node("Identifier", text=self.old_identifier())

    def back_reference(self) -> Node:
        c = self.peek()
        if c == "o":
            self.at += 1
            return Node("Module", text="__C")
        if c and c in _STANDARD:
            self.at += 1
            return swift_type(*STANDARD[c]).children[0]
        return self.substituted(self.number())

    def old_identifier(self) -> str:
        coded = self.take("X")
        length = self.natural()
        text = self.text[self.at : self.at + (length or 0)]
        if not length or len(text) < length:
            raise Unreadable
        self.at += length
        return punycode(text) if coded else text


def read_type(text: str) -> Node:
    """Return the tree of a type's name without ``_Tt``. Raises Unreadable."""
    reader = _Reader(text)
    found = reader.type()
    if reader.at < len(text):
        raise Unreadable
    return found
