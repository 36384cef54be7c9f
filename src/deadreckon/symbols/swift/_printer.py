"""The readable form of a Swift symbol: its declaration with argument labels, without modules, types and results.

That is what crash reports show (``swift demangle --simplified`` without argument types): who calls what in which type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.symbols.swift._nodes import MAX_TEXT, NOMINALS, Node, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["render"]

_MAX_DEPTH = 160
_MAX_STEPS = 20_000
_MAX_PARAMETERS = 128

_FUNCTION_KINDS = frozenset({
    "FunctionType", "NoEscapeFunctionType", "UncurriedFunctionType", "ThinFunctionType", "CFunctionPointer",
    "FunctionLike",
})  # fmt: skip
_ARROW_KINDS = _FUNCTION_KINDS - {"FunctionLike"}
_WITHOUT_SPACE = frozenset({"FunctionType", "NoEscapeFunctionType", "UncurriedFunctionType", "GenericType"})
_SIMPLE = NOMINALS | frozenset({
    "Bound", "Builtin", "GenericType", "Member", "Metatype", "ExistentialMetatype", "Module", "Tuple", "Pack", "Box",
    "Sugar",
})  # fmt: skip


def render(root: Node) -> str:
    """Return a symbol's readable form. Raises Unreadable where it is too large, too deep, or empty."""
    printer = _Printer()
    printer.print(root)
    text = "".join(printer.out)
    if not text:
        raise Unreadable
    return text


class _Printer:
    """Prints a tree. Methods return the context that has to be printed behind, as `` in ...``, if there is one."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.size = 0
        self.depth = 0
        self.steps = 0
        self.specialized = False

    def put(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise Unreadable
        self.out.append(text)

    def print(self, node: Node, *, prefix: bool = False) -> Node | None:
        """Print a node; ``prefix``: as what stands before the dot and another name."""
        while node.kind == "Type":
            node = node.children[0]
        self.depth += 1
        self.steps += 1
        if self.depth > _MAX_DEPTH or self.steps > _MAX_STEPS:
            raise Unreadable
        postfix: Node | None = None
        if found := _ENTITIES.get(node.kind):
            postfix = found(self, node, prefix)
        elif node.kind in _FUNCTION_KINDS:
            self.function(node, None)
        elif leaf := _PRINTERS.get(node.kind):
            leaf(self, node)
        else:
            raise Unreadable
        self.depth -= 1
        return postfix

    def print_all(self, nodes: Sequence[Node], separator: str = "") -> None:
        for at, node in enumerate(nodes):
            if at and separator:
                self.put(separator)
            self.print(node)

    # --- Entities -------------------------------------------------------------------------------------------------

    def entity(
        self, node: Node, name: Node | str | None, *, prefix: bool, typed: bool = False, extra: str = ""
    ) -> Node | None:
        """Print a declaration: its context, name, ``extra`` that tells what of it, and maybe its argument labels."""
        arguments: Sequence[Node] = ()
        if node.kind == "BoundFunction":
            arguments = node.children[1:]
            node = node.children[0]
        # A name of several words does not look like one behind a dot; its context is printed behind.
        worded = " " in extra or (isinstance(name, Node) and name.kind == "LocalName")
        if prefix and (typed or worded or node.kind in {"Variable", "Accessor", "Subscript"}):
            return node
        postfix: Node | None = None
        context = node.children[0]
        if worded:
            postfix = context
        else:
            before = self.size
            postfix = self.print(context, prefix=True)
            if self.size != before:
                self.put(".")
        if name is not None:
            if worded and extra:
                self.put(extra + " of ")
                extra = ""
            before = self.size
            self.name(node, name)
            if self.size != before and extra:
                self.put(".")
        if extra:
            self.put(extra)
        if typed:
            self.labelled(node, arguments, worded=worded)
        if postfix and not prefix:
            self.put(" of " if node.kind in {"DefaultArgument", "InitializerOf"} else " in ")
            self.print(postfix)
            postfix = None
        return postfix

    def name(self, node: Node, name: Node | str) -> None:
        if isinstance(name, str):
            self.put(name)
            return
        if name.kind != "PrivateName":
            self.print(name)
        if private := node.first("PrivateName"):
            self.print(private)

    def labelled(self, node: Node, arguments: Sequence[Node], *, worded: bool) -> None:
        type_ = node.first("Type")
        if type_ is None:
            raise Unreadable
        inner = type_.children[0]
        function = inner
        while function.kind == "GenericType":
            function = function.children[1].children[0]
        if function.kind not in _ARROW_KINDS:
            return  # Only its type would follow, behind a colon.
        if worded or inner.kind not in _WITHOUT_SPACE:
            self.put(" ")
        if arguments:
            self.put("<")
            self.print_all(arguments, ", ")
            self.put(">")
        if inner.kind == "GenericType":
            if not arguments:
                self.print(inner.children[0])
            if function.kind not in _WITHOUT_SPACE:
                self.put(" ")
        self.function(function, node.first("Labels"))

    def function(self, node: Node, labels: Node | None) -> None:
        """Print a function type as far as it is shown: attributes and the labels of its arguments."""
        if len(node.children) > 2:
            self.put("@")
            self.print(node.children[2])
            self.put(" ")
        self.put(node.text)
        parameters = node.children[0].children[0]
        if parameters.kind != "Tuple":
            self.put("(_:)")
        elif labels and labels.children:
            self.put("(" + "".join((label.text or "_") + ":" for label in labels.children) + ")")
        else:
            self.put("(" + "".join((element.text or "_") + ":" for element in parameters.children) + ")")

    def nominal(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, node.children[1], prefix=prefix)

    def callable(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        function = node.children[0] if node.kind == "BoundFunction" else node
        if function.kind in {"Allocator", "Constructor"}:
            name = "" if function.first("PrivateName") else None
            return self.entity(node, name, prefix=prefix, typed=True, extra=function.text)
        return self.entity(node, function.children[1], prefix=prefix, typed=True)

    def subscript(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, "subscript", prefix=prefix, typed=True)

    def accessor(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        storage = node.children[0]
        if prefix:
            return node
        name = "subscript" if storage.kind == "Subscript" else storage.children[1]
        return self.entity(storage, name, prefix=False, extra=node.text)

    def closure(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, None, prefix=prefix, extra=f"{node.text}{node.index + 1}")

    def special(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, None, prefix=prefix, extra=node.text)

    def default_argument(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, None, prefix=prefix, extra=f"{node.text}{node.index}")

    def macro_expansion(self, node: Node, prefix: bool) -> Node | None:  # noqa: FBT001
        return self.entity(node, node.children[1], prefix=prefix, extra=f"{node.text}{node.index + 1}")

    # --- Names and types ------------------------------------------------------------------------------------------

    def nothing(self, node: Node) -> None:
        pass

    def text(self, node: Node) -> None:
        self.put(node.text)

    def local_name(self, node: Node) -> None:
        self.print(node.children[0])
        self.put(f" #{node.index + 1}")

    def private_name(self, node: Node) -> None:
        if len(node.children) > 1:
            self.print(node.children[1])

    def related_name(self, node: Node) -> None:
        self.put(f"related decl '{node.text}' for ")
        self.print(node.children[0])

    def before(self, node: Node) -> None:
        self.put(node.text)
        self.print_all(node.children)

    def infix(self, node: Node) -> None:
        for at, part in enumerate(node.text.split("\0")):
            self.put(part)
            if at < len(node.children):
                self.print(node.children[at])

    def listed(self, node: Node) -> None:
        self.print_all(node.children)

    def path(self, node: Node) -> None:
        self.print_all(node.children, ".")

    def once(self, node: Node) -> None:
        if len(node.children) == 1:
            self.print(node.children[0])
        else:
            self.put("(")
            self.print_all(node.children, ", ")
            self.put(")")

    def static(self, node: Node) -> None:
        self.put("static ")
        self.print(node.children[0])

    def partial_apply(self, node: Node) -> None:
        self.put("partial apply")
        if node.children:
            self.put(" for ")
            self.print_all(node.children)

    def specialization(self, _: Node) -> None:
        if not self.specialized:
            self.put("specialized ")
        self.specialized = True

    def extension(self, node: Node) -> None:
        self.print_all(node.children[1:])

    def signature(self, node: Node) -> None:
        """Print the parameters of a generic signature; what they have to conform to is left out."""
        packs = {pack.children[0].text for pack in node.children if pack.kind == "Type"}
        counts = [child.index for child in node.children if child.kind == "Count"]
        levels: list[str] = []
        for depth, count in enumerate(counts[:_MAX_PARAMETERS]):
            names = [_parameter(depth, index) for index in range(min(count, _MAX_PARAMETERS))]
            names += ["..."] if count > _MAX_PARAMETERS else []
            levels.append(", ".join("each " + name if name in packs else name for name in names))
        self.put(f"<{'><'.join(levels)}>")

    def generic_type(self, node: Node) -> None:
        self.print(node.children[0])
        if node.children[1].children[0].kind not in _WITHOUT_SPACE:
            self.put(" ")
        self.print(node.children[1])

    def tuple(self, node: Node) -> None:
        self.put("(")
        self.print_all(node.children, ", ")
        self.put(")")

    def element(self, node: Node) -> None:
        if node.text:
            self.put(node.text + ": ")
        self.print(node.children[0])
        if node.index:
            self.put("...")

    def bound(self, node: Node) -> None:
        nominal = node.children[0].children[0]
        arguments = node.children[1:]
        sugar = _sugar(nominal, len(arguments), node.text)
        if sugar == "?":
            self.parenthesized(arguments[0])
            self.put("?")
        elif sugar:
            self.put("[")
            self.print_all(arguments, " : ")
            self.put("]")
        elif node.text == "Protocol":
            self.print_all(arguments)
            self.put(" as ")
            self.print(nominal)
        else:
            self.print(nominal)
            self.put("<")
            self.print_all(arguments, ", ")
            self.put(">")

    def sugared(self, node: Node) -> None:
        if node.text == "q":
            self.parenthesized(node.children[0])
            self.put("?")
            return
        self.put("(" if node.text == "p" else "[")
        self.print_all(node.children, " : ")
        self.put(")" if node.text == "p" else "]")

    def parenthesized(self, node: Node) -> None:
        while node.kind == "Type":
            node = node.children[0]
        simple = node.kind in _SIMPLE or (node.kind == "ProtocolList" and len(node.children) <= 1)
        self.put("" if simple else "(")
        self.print(node)
        self.put("" if simple else ")")

    def metatype(self, node: Node) -> None:
        self.put(node.text)
        inner = node.children[0].children[0]
        self.parenthesized(inner)
        self.put(".Protocol" if inner.kind in {"ExistentialMetatype", "ProtocolList"} else ".Type")

    def existential_metatype(self, node: Node) -> None:
        self.put(node.text)
        self.print(node.children[0])
        self.put(".Type")

    def protocol_list(self, node: Node) -> None:
        if node.children:
            self.print_all(node.children, " & ")
        else:
            self.put("Any")

    def constrained_existential(self, node: Node) -> None:
        self.put("any ")
        self.print(node.children[0])
        self.put("<")
        self.print_all(node.children[1:], ", ")
        self.put(">")

    def requirement(self, node: Node) -> None:
        self.print(node.children[0])
        self.put(node.text)
        self.print_all(node.children[1:])

    def pack(self, node: Node) -> None:
        self.put(node.text + "Pack{")
        self.print_all(node.children, ", ")
        self.put("}")

    def box(self, node: Node) -> None:
        fields, rest = node.children[: node.index], node.children[node.index :]
        if rest:
            self.print(rest[0])
            self.put(" ")
        self.put("{ ")
        self.print_all(fields, ", ")
        self.put(" }")
        if rest:
            self.put(" <")
            self.print_all(rest[1:], ", ")
            self.put(">")

    def implementation(self, node: Node) -> None:
        *parts, substitutions = node.children
        signature, pattern_signature, pattern, invocation = substitutions.children
        self.put(node.text + " ")
        if signature.children:
            self.print(signature)
            self.put(" ")
        if pattern_signature.children:
            self.put("@substituted ")
            self.print(pattern_signature)
            self.put(" ")
        self.put("(")
        self.print_all(parts[: node.index], ", ")
        self.put(") -> (")
        self.print_all(parts[node.index :], ", ")
        self.put(")")
        for types in (pattern, invocation):
            if types.children:
                self.put(" for <")
                self.print_all(types.children)
                self.put(">")

    def opaque_result(self, node: Node) -> None:
        self.put("<<opaque return type of ")
        self.print(node.children[0])
        self.put(">>")

    def opaque_type(self, node: Node) -> None:
        self.print(node.children[0])
        self.put(f".{node.index}")


def _parameter(depth: int, index: int) -> str:
    letters = chr(65 + index % 26)
    while index := index // 26:
        letters += chr(65 + index % 26)
    return letters + (str(depth) if depth else "")


def _sugar(nominal: Node, arguments: int, kind: str) -> str:
    if nominal.kind not in {"Enum", "Structure"} or nominal.children[0].text != "Swift":
        return ""
    name = nominal.children[1].text
    if kind == "Enum":
        return "?" if name == "Optional" and arguments == 1 else ""
    return "[" if (name, arguments) in {("Array", 1), ("Dictionary", 2)} else ""


_ENTITIES: dict[str, Callable[[_Printer, Node, bool], Node | None]] = {
    **dict.fromkeys([*NOMINALS, "TypeParameter"], _Printer.nominal),
    **dict.fromkeys(["Function", "BoundFunction", "Allocator", "Constructor", "Macro"], _Printer.callable),
    **dict.fromkeys(["Special", "InitializerOf"], _Printer.special),
    **dict.fromkeys(["AttachedMacro", "FreestandingMacro"], _Printer.macro_expansion),
    "Variable": _Printer.nominal,
    "Subscript": _Printer.subscript,
    "Accessor": _Printer.accessor,
    "Closure": _Printer.closure,
    "DefaultArgument": _Printer.default_argument,
}

_PRINTERS: dict[str, Callable[[_Printer, Node], None]] = {
    **dict.fromkeys(["Module", "AnonymousContext"], _Printer.nothing),
    **dict.fromkeys(["Identifier", "Operator", "Builtin", "Attribute"], _Printer.text),
    **dict.fromkeys(["Global", "List"], _Printer.listed),
    **dict.fromkeys(["Path", "Member", "Association"], _Printer.path),
    **dict.fromkeys(["SameType", "Layout", "Conformance"], _Printer.requirement),
    "LocalName": _Printer.local_name,
    "PrivateName": _Printer.private_name,
    "RelatedName": _Printer.related_name,
    "Prefix": _Printer.before,
    "Infix": _Printer.infix,
    "Once": _Printer.once,
    "Static": _Printer.static,
    "PartialApply": _Printer.partial_apply,
    "Specialized": _Printer.specialization,
    "Extension": _Printer.extension,
    "Signature": _Printer.signature,
    "GenericType": _Printer.generic_type,
    "Tuple": _Printer.tuple,
    "Element": _Printer.element,
    "Bound": _Printer.bound,
    "Sugar": _Printer.sugared,
    "Metatype": _Printer.metatype,
    "ExistentialMetatype": _Printer.existential_metatype,
    "ProtocolList": _Printer.protocol_list,
    "ConstrainedExistential": _Printer.constrained_existential,
    "Pack": _Printer.pack,
    "Box": _Printer.box,
    "Implementation": _Printer.implementation,
    "OpaqueReturnTypeOf": _Printer.opaque_result,
    "OpaqueType": _Printer.opaque_type,
}
