"""The stack machine that Swift's symbols are programs of: numbers, identifiers, substitutions, and what is popped.

Where the grammar says that an operator has operands, they are popped from a stack. An operand of the wrong kind stays
there, which is how optional ones are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.symbols.swift._nodes import (
    CONTEXTS,
    DECLARATION_NAMES,
    MAX_TEXT,
    NOMINALS,
    STANDARD,
    STANDARD_CONCURRENCY,
    Node,
    Unreadable,
    punycode,
)

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["Machine"]

_MAX_STACK = 8_192
_MAX_REPEAT = 2_048
_MAX_NUMBER = 2**31 - 1
_MAX_WORDS = 26
_MAX_LEVELS = 48
_NO_ARGUMENTS = frozenset({"Variable", "Subscript", "Closure", "DefaultArgument", "InitializerOf", "Static"})
_CONFORMANCES = frozenset({"ConcreteConformance", "DependentConformance", "PackConformance"})


class Machine:
    """The text of a symbol behind its prefix, the stack, and what substitutions may refer to."""

    def __init__(self, text: str, *, old: bool) -> None:
        self.text = text
        self.at = 0
        self.old = old
        """Swift 4.0: argument labels are parts of the types."""
        self.stack: list[Node] = []
        self.substitutions: list[Node] = []
        self.words: list[str] = []

    # --- Text -----------------------------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def next(self) -> str:
        if self.at >= len(self.text):
            raise Unreadable
        self.at += 1
        return self.text[self.at - 1]

    def take(self, c: str) -> bool:
        if self.text.startswith(c, self.at):
            self.at += 1
            return True
        return False

    def natural(self) -> int | None:
        value = None
        while "0" <= (c := self.peek()) <= "9" and c:
            value = 10 * (value or 0) + int(c)
            if value > _MAX_NUMBER:
                raise Unreadable
            self.at += 1
        return value

    def number(self) -> int:
        """Read an INDEX: ``_`` is 0, ``0_`` is 1."""
        if self.take("_"):
            return 0
        value = self.natural()
        if value is None or not self.take("_"):
            raise Unreadable
        return value + 1

    # --- Stack ----------------------------------------------------------------------------------------------------

    def push(self, node: Node, times: int = 1) -> None:
        if len(self.stack) + times > _MAX_STACK:
            raise Unreadable
        self.stack += [node] * times

    def remember(self, node: Node) -> Node:
        self.substitutions.append(node)
        return node

    def pop(self, kind: str) -> Node | None:
        return self.stack.pop() if self.stack and self.stack[-1].kind == kind else None

    def pop_of(self, kinds: Container[str]) -> Node | None:
        return self.stack.pop() if self.stack and self.stack[-1].kind in kinds else None

    def need(self, kind: str) -> Node:
        node = self.pop(kind)
        if node is None:
            raise Unreadable
        return node

    def need_of(self, kinds: Container[str]) -> Node:
        node = self.pop_of(kinds)
        if node is None:
            raise Unreadable
        return node

    def need_any(self) -> Node:
        if not self.stack:
            raise Unreadable
        return self.stack.pop()

    def inner(self) -> Node:
        """Pop a type and return what it wraps."""
        return self.need("Type").children[0]

    def name(self) -> Node:
        return self.need_of(DECLARATION_NAMES)

    def generic(self) -> Node:
        node = self.inner()
        if node.kind not in NOMINALS:
            raise Unreadable
        return node

    def module(self) -> Node | None:
        if name := self.pop("Identifier"):
            return Node("Module", text=name.text)
        return self.pop("Module")

    def need_module(self) -> Node:
        module = self.module()
        if module is None:
            raise Unreadable
        return module

    def context(self) -> Node:
        if module := self.module():
            return module
        if found := self.pop("Type"):
            found = found.children[0]
            if found.kind not in CONTEXTS:
                raise Unreadable
            return found
        return self.need_of(CONTEXTS)

    def entity(self) -> Node:
        if found := self.pop("Type"):
            return found
        return self.need_of(CONTEXTS)

    def protocol(self) -> Node:
        if found := self.pop("Type"):
            if found.children[0].kind != "Protocol":
                raise Unreadable
            return found
        name = self.name()
        return wrap(Node("Protocol", [self.context(), name]))

    def marked(self, kind: str) -> list[Node]:
        """Pop a list whose first element has a mark behind it, or an empty one."""
        found: list[Node] = []
        if self.pop("EmptyList"):
            return found
        while True:
            first = self.pop("FirstElement")
            found.append(self.protocol() if kind == "Protocol" else self.need(kind))
            if first:
                return found[::-1]

    def conformance(self) -> Node:
        return self.need_of(_CONFORMANCES)

    def conformances(self) -> list[Node]:
        found: list[Node] = []
        if self.pop("EmptyList"):
            return found
        while True:
            first = self.pop("FirstElement")
            found.append(self.conformance())
            if first:
                return found[::-1]

    # --- Function types -------------------------------------------------------------------------------------------

    def function_type(self, kind: str) -> Node:
        """Pop the parts of a function type: arguments, result, maybe a global actor; its text is what stands before."""
        before = ""
        self.pop("Sending")
        if isolation := self.pop_of({"GlobalActor", "Isolation"}):
            before = isolation.text
        differentiable = self.pop("Differentiable")
        self.pop_of({"Throws", "TypedThrows"})
        sendable = self.pop("Sendable")
        self.pop("Async")
        before += differentiable.text if differentiable else ""
        before += "@Sendable " if sendable else ""
        arguments = self.parameters()
        children = [arguments, self.parameters()]
        if isolation and isolation.kind == "GlobalActor":
            children += isolation.children
        return wrap(Node(kind, children, before))

    def parameters(self) -> Node:
        return wrap(Node("Tuple")) if self.pop("EmptyList") else self.need("Type")

    def labels(self, type_: Node) -> Node | None:
        """Pop the argument labels of a function of this type, as many as it has parameters."""
        if not self.old and self.pop("EmptyList"):
            return Node("Labels")
        function = type_.children[0]
        if function.kind == "GenericType":
            function = function.children[1].children[0]
        if self.old or function.kind not in {"FunctionType", "NoEscapeFunctionType"}:
            return None
        parameters = function.children[0].children[0]
        count = len(parameters.children) if parameters.kind == "Tuple" else 1
        if not count:
            return None
        found: list[Node] = []
        while len(found) < count:
            label = self.stack.pop() if self.stack else None
            if label is None or label.kind not in {"Identifier", "FirstElement"}:
                return None
            found.append(label)
        return Node("Labels", found[::-1] if any(label.kind == "Identifier" for label in found) else [])

    # --- Bound generic types --------------------------------------------------------------------------------------

    def bound_generics(self) -> list[list[Node]]:
        """Pop the type arguments of a type and of those around it, innermost first."""
        while self.pop("RetroactiveConformance"):
            pass
        lists: list[list[Node]] = []
        while True:
            types: list[Node] = []
            while found := self.pop("Type"):
                types.append(found)
            lists.append(types[::-1])
            if self.pop("EmptyList"):
                return lists
            self.need("FirstElement")
            if len(lists) > _MAX_LEVELS:
                raise Unreadable

    def bind(self, nominal: Node, lists: list[list[Node]], at: int = 0) -> Node:
        if at >= len(lists) or not nominal.children:
            raise Unreadable
        context = nominal.children[0]
        consumes = nominal.kind not in _NO_ARGUMENTS
        arguments = lists[at]
        at += consumes
        if at < len(lists):
            if at > _MAX_LEVELS or len(self.stack) > _MAX_STACK:
                raise Unreadable
            if context.kind == "Extension":
                parent = self.bind(context.children[1], lists, at)
                parent = Node("Extension", [context.children[0], parent, *context.children[2:]])
            else:
                parent = self.bind(context, lists, at)
            nominal = Node(nominal.kind, [parent, *nominal.children[1:]], nominal.text, nominal.index)
        if not consumes or not arguments:
            return nominal
        if nominal.kind in NOMINALS:
            return Node("Bound", [wrap(nominal), *arguments], text=nominal.kind)
        if nominal.kind in {"Function", "Constructor"}:
            return Node("BoundFunction", [nominal, *arguments])
        raise Unreadable

    # --- Substitutions --------------------------------------------------------------------------------------------

    def substitution(self) -> Node:
        """Read what follows ``A``: substitutions, of which the last is returned and the others are pushed."""
        repeat: int | None = None
        while True:
            c = self.next()
            if "a" <= c <= "z":
                found = self.substituted(ord(c) - 97)
                self.push(found, self.times(repeat))
                repeat = None
            elif "A" <= c <= "Z":
                found = self.substituted(ord(c) - 65)
                self.push(found, self.times(repeat) - 1)
                return found
            elif c == "_":
                return self.substituted(26 if repeat is None else repeat + 27)
            else:
                self.at -= 1
                repeat = self.natural()
                if repeat is None:
                    raise Unreadable

    def substituted(self, index: int) -> Node:
        if index >= len(self.substitutions):
            raise Unreadable
        return self.substitutions[index]

    def times(self, repeat: int | None) -> int:
        if repeat is not None and repeat > _MAX_REPEAT:
            raise Unreadable
        return max(repeat or 1, 1)

    def standard(self) -> Node:
        """Read what follows ``S``."""
        c = self.next()
        if c == "o":
            return Node("Module", text="__C")
        if c == "C":
            return Node("Module", text="__C_Synthesized")
        if c == "g":
            optional = Node("Bound", [swift_type("Enum", "Optional"), self.need("Type")], text="Enum")
            return self.remember(wrap(optional))
        self.at -= 1
        repeat = self.times(self.natural())
        table = STANDARD_CONCURRENCY if self.take("c") else STANDARD
        found = table.get(self.next())
        if found is None:
            raise Unreadable
        node = swift_type(*found)
        self.push(node, repeat - 1)
        return node

    # --- Identifiers ----------------------------------------------------------------------------------------------

    def identifier(self) -> Node:
        if not "0" <= self.peek() <= "9" or not self.peek():
            raise Unreadable
        substituting = coded = False
        if self.take("0"):
            coded = self.take("0")
            substituting = not coded
        parts: list[str] = []
        size = 0
        while True:
            while substituting and (c := self.peek()).isalpha() and c.isascii():
                self.at += 1
                index = ord(c.lower()) - 97
                substituting = c.islower()
                if index >= len(self.words):
                    raise Unreadable
                parts.append(self.words[index])
                size += len(parts[-1])
                if size > MAX_TEXT:
                    raise Unreadable
            if self.take("0"):
                break
            parts.append(self.literal(coded=coded))
            size += len(parts[-1])
            if not substituting:
                break
        if not size:
            raise Unreadable
        return self.remember(Node("Identifier", text="".join(parts)))

    def literal(self, *, coded: bool) -> str:
        length = self.natural()
        if not length:
            raise Unreadable
        if coded:
            self.take("_")
        text = self.text[self.at : self.at + length]
        if len(text) < length:
            raise Unreadable
        self.at += length
        if coded:
            return punycode(text)
        self.learn(text)
        return text

    def learn(self, text: str) -> None:
        """Remember the words of an identifier, as far as there are letters for them."""
        start = -1
        for at, c in enumerate(text + "\0"):
            if start >= 0 and (c in "_\0" or (c.isupper() and not text[at - 1].isupper())):
                if at - start >= 2 and len(self.words) < _MAX_WORDS:
                    self.words.append(text[start:at])
                start = -1
            if start < 0 and not (c in "_\0" or c.isdigit()):
                start = at


def wrap(node: Node) -> Node:
    """Return the node as a type."""
    return Node("Type", [node])


def swift_type(kind: str, name: str) -> Node:
    """Return a type of the standard library."""
    return wrap(Node(kind, [Node("Module", text="Swift"), Node("Identifier", text=name)]))
