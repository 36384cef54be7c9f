"""What Swift's symbols are read into: nodes, and the names that the grammar abbreviates."""

from __future__ import annotations

__all__ = [
    "BUILTINS",
    "CONTEXTS",
    "DECLARATION_NAMES",
    "MAX_TEXT",
    "NOMINALS",
    "OPERATOR_CHARACTERS",
    "REQUIREMENTS",
    "STANDARD",
    "STANDARD_CONCURRENCY",
    "VALUE_WITNESSES",
    "Node",
    "Unreadable",
    "punycode",
]

MAX_TEXT = 65_536
"""Characters of an identifier or of a whole name; what exceeds them is not demangled."""


class Unreadable(Exception):
    """The name is not of the grammar as it is known here, or exceeds a bound."""


class Node:
    """A part of a symbol: its kind, text or number, and parts. Nodes are shared, so a tree may unfold exponentially."""

    __slots__ = ("children", "index", "kind", "text")

    def __init__(self, kind: str, children: list[Node] | None = None, text: str = "", index: int = 0) -> None:
        self.kind = kind
        self.children = [] if children is None else children
        self.text = text
        self.index = index

    def first(self, kind: str) -> Node | None:
        """Return the first child of a kind."""
        for child in self.children:
            if child.kind == kind:
                return child
        return None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NOMINALS = _words("Class Structure Enum Protocol OtherNominalType TypeAlias")
DECLARATION_NAMES = _words("Identifier LocalName PrivateName RelatedName Operator")
REQUIREMENTS = _words("SameType Layout Conformance PackMarker SameShape Inverse ValueMarker")
CONTEXTS = NOMINALS | _words(
    "Module Extension AnonymousContext Function Variable Subscript Allocator Constructor Special InitializerOf"
    " DefaultArgument Closure Accessor Static OpaqueReturnTypeOf Macro AttachedMacro FreestandingMacro MacroLocation"
)
"""Kinds that other declarations may be parts of; ``Special`` is a deinitializer or the like."""


def _standard(kinds: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {pair[0]: (kind, pair[1:]) for kind, pairs in kinds.items() for pair in pairs.split()}


STANDARD = _standard(
    {
        "Structure": (
            "AAutoreleasingUnsafeMutablePointer aArray bBool DDictionary dDouble fFloat hSet IDefaultIndices iInt"
            " JCharacter NClosedRange nRange OObjectIdentifier PUnsafePointer pUnsafeMutablePointer"
            " RUnsafeBufferPointer rUnsafeMutableBufferPointer SString sSubstring uUInt VUnsafeRawPointer "
            "vUnsafeMutableRawPointer WUnsafeRawBufferPointer wUnsafeMutableRawBufferPointer"
        ),
        "Enum": "qOptional",
        "Protocol": (
            "BBinaryFloatingPoint EEncodable eDecodable FFloatingPoint GRandomNumberGenerator HHashable jNumeric"
            " KBidirectionalCollection kRandomAccessCollection LComparable lCollection MMutableCollection"
            " mRangeReplaceableCollection QEquatable TSequence tIteratorProtocol UUnsignedInteger XRangeExpression"
            " xStrideable YRawRepresentable yStringProtocol ZSignedInteger zBinaryInteger"
        ),
    }
)
"""Standard types by the letter after ``S``, as kind and name (KNOWN-TYPE-KIND)."""

STANDARD_CONCURRENCY = _standard(
    {
        "Structure": (
            "CCheckedContinuation cUnsafeContinuation ECancellationError eUnownedSerialExecutor GTaskGroup"
            " gThrowingTaskGroup JUnownedJob PTaskPriority SAsyncStream sAsyncThrowingStream TTask tUnsafeCurrentTask"
        ),
        "Class": "MMainActor",
        "Protocol": "AActor FExecutor fSerialExecutor hTaskExecutor IAsyncIteratorProtocol iAsyncSequence",
    }
)
"""Those after ``Sc`` (KNOWN-TYPE-KIND-2)."""

BUILTINS = {
    pair[0]: "Builtin." + pair[1:]
    for pair in (
        "bBridgeObject BUnsafeValueBuffer cRawUnsafeContinuation DDefaultActorStorage"
        " dNonDefaultDistributedActorStorage eExecutor IIntLiteral jJob PPackIndex OUnknownObject oNativeObject"
        " pRawPointer tSILToken wWord"
    ).split()
}

OPERATOR_CHARACTERS = dict(zip("acdeglmnopqrstxz", "&@/=><*!|+?%-~^.", strict=True))

VALUE_WITNESSES = {
    pair[:2]: pair[2:]
    for pair in (
        "alallocateBuffer caassignWithCopy taassignWithTake dedeallocateBuffer xxdestroy XXdestroyBuffer XxdestroyArray"
        " CPinitializeBufferWithCopyOfBuffer CpinitializeBufferWithCopy cpinitializeWithCopy"
        " TKinitializeBufferWithTakeOfBuffer TkinitializeBufferWithTake tkinitializeWithTake prprojectBuffer"
        " xsstoreExtraInhabitant xggetExtraInhabitantIndex CcinitializeArrayWithCopy"
        " TtinitializeArrayWithTakeFrontToBack tTinitializeArrayWithTakeBackToFront uggetEnumTag"
        " updestructiveProjectEnumData uidestructiveInjectEnumTag etgetEnumTagSinglePayload"
        " ststoreEnumTagSinglePayload"
    ).split()
}


_JOINERS = ("\u200c", "\u200d")
"""What emoji and several scripts are written with, though it is not printable alone."""


def punycode(text: str) -> str:
    """Decode RFC 3492 as Swift writes it: ``_`` as the delimiter, ``A`` to ``J`` for the digits.

    ASCII that no identifier may hold comes as the surrogates from U+D800 on. Raises Unreadable.
    """
    plain, _, coded = text.rpartition("_")
    out = list(plain)
    number, index, bias, at = 128, 0, 72, 0
    while at < len(coded):
        before, weight, step = index, 1, 36
        while True:
            if at >= len(coded):
                raise Unreadable
            c = coded[at]
            at += 1
            if "a" <= c <= "z":
                digit = ord(c) - 97
            elif "A" <= c <= "J":
                digit = ord(c) - 65 + 26
            else:
                raise Unreadable
            index += digit * weight
            threshold = min(max(step - bias, 1), 26)
            if digit < threshold:
                break
            weight *= 36 - threshold
            step += 36
            if weight >> 40:
                raise Unreadable
        length = len(out) + 1
        delta = (index - before) // (700 if before == 0 else 2)
        delta += delta // length
        step = 0
        while delta > 455:
            delta //= 35
            step += 36
        bias = step + 36 * delta // (delta + 38)
        number += index // length
        index %= length
        code = number - 0xD800 if 0xD800 <= number < 0xD880 else number
        character = chr(code) if code < 0x110000 else "\0"
        if not character.isprintable() and character not in _JOINERS:
            raise Unreadable
        out.insert(index, character)
        index += 1
    return "".join(out)
