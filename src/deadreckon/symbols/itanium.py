"""How far a C++ symbol expands, found without expanding it.

``__cxa_demangle`` has no limits of its own: names of 200 bytes exist that print 35 MB, and others keep it busy for
seconds or for ever. So a name is read here first, by the Itanium ABI's grammar
(https://itanium-cxx-abi.github.io/cxx-abi/abi.html#mangling). Nothing is printed: only the sizes of what
back-references can stand for are kept, so a bound costs time linear in the name's length.

The grammar may be looser than the demanglers', never tighter in what counts: each substitution candidate has to get
the number they give it. Where GCC's libiberty and LLVM's libc++abi differ, a reference costs as much as the larger.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

from deadreckon.symbols.itanium_tally import Refused, Tally

__all__ = ["expansion"]

_STANDARD = 72
"""``Ss`` in its long form, ``std::basic_string<char, std::char_traits<char>, std::allocator<char> >``."""
_IDENTIFIER = 21
"""``_GLOBAL__N_1`` prints as ``(anonymous namespace)``; the rest is for separators."""
_MAX_DEPTH = 160
_MAX_CONVERSIONS = 6
"""libiberty reads the template arguments of ``cvT_I...E`` twice where no others follow, so nested ones double."""

_PLAIN = re.compile(rb"(?:(?!Dp|sp|sr|cv|pp|mm|T[0-9A-Z]*_).)*", re.DOTALL)
_REFERENCE = re.compile(rb"S[0-9A-Z]*_")


def expansion(symbol: bytes, limit: int) -> int | None:
    """Return an upper bound of the demangled length of an Itanium symbol in bytes.

    None where it exceeds ``limit``, or where the symbol is not of the grammar or too deeply nested to tell. What is
    bounded is the tree that the symbol's back-references unfold to, so the demangler's work is bounded with it.
    """
    if len(symbol) > limit:
        return None
    # A substitution refers to what stands before it, so each doubles the text at most. That clears most symbols.
    if len(symbol) <= 512 and _PLAIN.fullmatch(symbol):
        # Constructors repeat the name of their class; everything else prints less than an S for each character.
        size = len(symbol) * max(len(symbol), _STANDARD) << min(len(_REFERENCE.findall(symbol)), 64)
        if size <= limit:
            return size
    text = symbol.decode("latin-1")
    try:
        reader = _Reader(text, limit)
        size = reader.symbol()
        if reader.expands or reader.converts:
            size = _Reader(text, limit, reader.longest_list, every_list=reader.converts).symbol()
    except (Refused, RecursionError):
        return None
    return size if size <= limit else None


def _table(**rules: str) -> dict[str, str]:
    return {code: rule for rule, codes in rules.items() for code in codes.split()}


# What stands after a code, each letter a part as _PARTS has it.
_SPECIALS = _table(
    t="TV TT TI TS TF TJ", n="GV TH TW", e="GA GTt GTn", a="TA", nq="GR", d_e="Th", d_d_e="Tv", hhe="Tc", td_t="TC"
)
_TYPES = _table(t="P R O C G", tt="M", n="Ts Tu Te", b_t="A Dv", xE="DT Dt", f="F", D="Dp", si="u", sit="U")
_EXPRESSIONS = _table(
    x="ad aw az co da de dl gs ng nt nx ps sZ sz te tw",
    xx="aN aS aa an cm dV ds dv dx eO eo eq ge gt ix lS le ls lt mI mL mi ml ne oR oo or pL pl pm rM rS rm rs ss",
    xxx="dX qu", t="at st ti", tx="cc dc rc sc", tc="cv", sx="di", xm="dt pt", m="on", ox="fl fr", oxx="fL fR",
    X="il", tX="tl", xX="cl cp", A="sP", sA="u", S="sp", r="sr", w="na nw", y="mm pp",
) | {"tr": ""}  # fmt: skip
_OPERATORS = frozenset(_EXPRESSIONS) | {"li"}

_ABBREVIATION = re.compile(r"S[abiosd]")
_BUILTIN = re.compile(r"[a-qstv-z]|D[acdefhinsu]|DF[0-9]+[_bx]")
_CALL_OFFSET = re.compile(r"(?:h|vn?[0-9]*_)n?[0-9]*_")
_COMPACT = re.compile(r"n?[0-9]*_")
_DISCRIMINATOR = re.compile(r"__[0-9]{2,}_|__[0-9]|_[0-9]*|")
_FUNCTION_PARAMETER = re.compile(r"f(?:pT|(?:L[0-9]+)?p[rVK]*[0-9]*_)")
_LENGTH = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"n?[0-9]*")
_PARAMETER = re.compile(r"T(?:L[0-9]*_)?[0-9]*_")
_QUALIFIERS = re.compile(r"(?:[rVK]|D[xo])+")
_REFERENCE_QUALIFIER = re.compile(r"[RO]?")
_SEQUENCE = re.compile(r"[0-9A-Z]*_")
_STRUCTOR = re.compile(r"[CD](I?)[0-5]")
_SUBSTITUTION = re.compile(r"S([0-9A-Z]{0,4})_")
_TEMPLATE_HEAD = re.compile(r"T([ynptk])")


class _Reader(Tally):
    """Reads a symbol once.

    Packs and the types of conversion operators may name what is read after them: where ``expands`` or ``converts`` is
    set, the sizes hold for a reader only that was told of ``longest_list`` or of ``every_list`` before.
    """

    def __init__(self, text: str, limit: int, pack: int = 1, *, every_list: bool = False) -> None:
        super().__init__(text, limit, pack, every_list=every_list)
        self.depth = self.conversions = 0
        self.longest_name, self.longest_list = len("basic_iostream"), 1
        self.expands = self.converts = False

    def read(self, rule: str) -> object:
        """Read the parts that a rule names, and return what the last of them does. All recursion passes here."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Refused
        found: object = None
        for part in rule:
            found = _PARTS[part](self)
        self.depth -= 1
        return found

    def coded(self, table: dict[str, str]) -> None:
        """Read a code and what the table says stands after it."""
        for length in (3, 2, 1):
            rule = table.get(self.text[self.at : self.at + length])
            if rule is not None:
                self.at += length
                self.read(rule)
                return
        raise Refused

    def until(self, part: str, end: str = "E") -> None:
        while not self.take(end):
            self.read(part)

    # Symbols and names.

    def symbol(self) -> int:
        self.need("_Z")
        self.read("e")
        if not self.next("\0."):
            raise Refused
        self.at = len(self.text)
        self.close((0, 0))
        return self.mark()[0]

    def encoding(self) -> None:
        mark = self.mark()
        if self.next("TG"):
            self.coded(_SPECIALS)
            return
        own = self.name(own=True)
        self.take("J")
        self.signature()
        if own:  # In a function that isn't a template, T_ is a parameter of the one around.
            self.close(mark)

    def signature(self) -> None:
        while not (self.next("\0.EQ") or self.text.startswith(("RE", "OE"), self.at)):
            self.read("t")
        if self.take("Q"):
            self.read("x")

    def name(self, *, own: bool = False) -> bool:
        """Read a name and tell whether template arguments end it. ``own``: T_ stands for these in what follows."""
        if self.take("N"):
            self.take("H")
            self.qualifiers()
            self.token(_REFERENCE_QUALIFIER)
            ended = self.prefix(own=own)
            self.need("E")
            return ended
        if self.take("Z"):
            return self.local(own=own)
        mark = self.mark()
        if self.next("S") and not self.take("St"):
            self.substitution()
            if not self.next("I"):  # A mere reference would bring arguments from elsewhere for T_.
                raise Refused
        else:
            self.unqualified()
            if self.next("I"):
                self.candidate(mark)
        return self.arguments(own=own)

    def prefix(self, *, own: bool = False) -> bool:
        mark = self.mark()
        while True:
            c = self.text[self.at]
            ended = False
            if c == "S":
                if not self.take("St"):
                    self.substitution()
                if self.next("E"):  # As in name().
                    raise Refused
                continue
            if c == "M":
                self.at += 1
                continue
            if c == "I":
                ended = self.arguments(own=own)
            elif c == "T":
                self.parameter()
            elif self.text.startswith(("DT", "Dt"), self.at):
                self.read("t")
            else:
                self.unqualified()
            if self.next("E"):
                return ended
            self.candidate(mark, certain=c != "D")

    def local(self, *, own: bool) -> bool:
        self.read("eE")
        ended: object = False
        if not self.take("s"):
            if self.take("d"):
                self.token(_COMPACT)
            ended = self.read("N" if own else "n")
        self.token(_DISCRIMINATOR)
        return bool(ended)

    def source_name(self) -> None:
        length = int(self.token(_LENGTH)[0])
        self.identifier(length)
        self.print(_IDENTIFIER)
        self.longest_name = max(self.longest_name, length)

    def unqualified(self) -> None:
        mark = self.mark()
        while self.take("W"):  # A module; only GCC 12 and later read it.
            self.take("P")
            self.source_name()
            self.candidate(mark, certain=False)
        self.take("F")
        c = self.text[self.at]
        if c.isdecimal():
            self.source_name()
        elif structor := self.match(_STRUCTOR):
            if structor[1]:
                self.read("t")
            self.print(self.longest_name)
        elif self.take("DC"):
            self.until("s")
        elif self.take("L"):
            self.source_name()
            self.token(_DISCRIMINATOR)
        elif self.take("Ul"):
            self.template_heads()
            self.signature()
            self.need("E")
            if not self.conversions:
                self.close(mark)  # Its T_ print as auto; to libc++abi they may be arguments read before.
            self.token(_COMPACT)
            self.candidate(mark, certain=False)  # GCC before 12 numbers closures too.
        elif self.take("Ut"):
            self.token(_COMPACT)
            self.candidate(mark, certain=False)
        else:
            self.take("on")
            self.operator()
        while self.take("B"):
            self.source_name()

    def operator(self) -> None:
        code = self.text[self.at : self.at + 2]
        self.at += 2
        if code == "cv":
            self.conversions += 1
            self.converts = True  # Its type may name arguments of the class template, wherever they were read.
            if self.conversions > _MAX_CONVERSIONS:
                raise Refused
            self.type(conversion=True)
            self.conversions -= 1
        elif code == "li" or (code[0] == "v" and code[1].isdecimal()):
            self.source_name()
        elif code not in _OPERATORS:
            raise Refused

    def substitution(self) -> None:
        mark = self.mark()
        if found := self.match(_SUBSTITUTION):
            self.refer(int(found[1], 36) + 1 if found[1] else 0)
            return
        self.token(_ABBREVIATION)
        self.print(_STANDARD)
        if self.next("B"):
            while self.take("B"):
                self.source_name()
            self.candidate(mark)

    # Templates.

    def parameter(self) -> None:
        self.token(_PARAMETER)
        self.print(0, 1)

    def template_heads(self) -> None:
        """Read the parameters a template lambda declares."""
        while head := self.match(_TEMPLATE_HEAD):
            if head[1] == "n":
                self.read("t")
            elif head[1] == "t":
                self.read("HE")
            elif head[1] == "k":  # A concept's name, in whose candidates demanglers differ.
                numbered = len(self.candidates)
                self.read("n")
                self.doubt(numbered)

    def arguments(self, opening: str = "I", *, own: bool = False) -> bool:
        """Read template arguments where there are some, and tell whether there were."""
        if not self.take(opening):
            return False
        count = 0
        while not self.take("E"):
            mark = self.mark()
            if self.take("Q"):
                self.read("x")
                continue
            self.read("a")
            count += 1
            if own or self.every_list:
                self.bind(mark)
        self.longest_list = max(self.longest_list, count)
        return True

    def template_argument(self) -> None:
        self.template_heads()
        if self.take("X"):
            self.read("xE")
        elif self.next("L"):
            self.read("p")
        elif not (self.arguments() or self.arguments("J")):
            self.read("t")

    # Types.

    def qualifiers(self) -> bool:
        start = self.at
        while True:
            if self.take("DO"):
                self.read("xE")
            elif self.take("Dw"):
                self.signature()
                self.need("E")
            elif not self.match(_QUALIFIERS):
                return self.at > start

    def type(self, *, conversion: bool = False) -> None:
        mark = self.mark()
        c = self.text[self.at]
        code = self.text[self.at : self.at + 2]
        if self.qualifiers():
            # Qualifiers of a function type are its object's; the function without them has no number.
            self.read("f" if self.take("F") else "t")
        elif self.match(_BUILTIN):
            return
        elif c == "S" and code != "St":
            self.substitution()
            if not self.arguments():
                return
        elif _PARAMETER.match(self.text, self.at):
            self.parameter()
            if self.next("I"):
                self.candidate(mark, certain=not conversion)
                if conversion:  # These may be the operator's arguments instead; then its name so far is a candidate.
                    self.candidate((0, 0), certain=False)
                numbered = len(self.candidates)
                self.arguments()
                if conversion:
                    self.doubt(numbered)
        elif c.isdecimal() or c in "NZ" or code in {"St", "Ul", "Ut"}:
            self.read("n")
        elif code in {"DB", "DU"}:  # libc++abi has no number for these.
            self.at += 2
            self.read("b_")
            self.candidate(mark, certain=False)
            return
        else:
            self.coded(_TYPES)
        self.candidate(mark, certain=not conversion)

    def function(self) -> None:
        self.take("Y")
        self.signature()
        self.token(_REFERENCE_QUALIFIER)
        self.need("E")

    def extent(self) -> None:
        """Read an array's or a vector's size."""
        if self.text[self.at].isdecimal():
            self.match(_NUMBER)
        elif not self.next("_"):
            self.take("_")
            self.read("x")

    def repeated(self, rule: str) -> None:
        mark = self.mark()
        self.read(rule)
        self.expands = True
        self.repeat(mark, self.pack)

    # Expressions.

    def primary(self) -> None:
        self.need("L")
        if self.take("_Z") or self.take("Z"):
            self.read("eE")
            return
        self.read("t")
        end = self.text.find("E", self.at)
        if end < 0:
            raise Refused
        self.at = end + 1

    def expression(self) -> None:
        c = self.text[self.at]
        if c == "L":
            self.read("p")
        elif c == "T":
            self.parameter()
        elif c.isdecimal():
            self.member()
        elif not self.match(_FUNCTION_PARAMETER):
            self.coded(_EXPRESSIONS)

    def new(self) -> None:
        self.until("x", "_")
        self.read("t")
        if not self.take("E"):
            self.read("X" if self.take("pi") else "x")

    def crement(self) -> None:
        """Read what follows ``++`` and ``--``.

        libiberty holds the operand of the suffix form twice, and looks for packs in both.
        """
        mark = self.mark()
        prefix = self.take("_")
        self.read("x")
        if not prefix:
            self.repeat(mark, 2)

    def member(self) -> None:
        if self.text.startswith(("gs", "sr"), self.at):
            self.read("x")
        else:
            self.unqualified()
            self.arguments()

    def unresolved(self) -> None:
        """Read what follows ``sr``. Its old and new forms look alike and differ in candidates, so none is certain.

        GCC 12's libstdc++ reads ``sr`` and a name as the new form, ``<level>+ E``, and never returns when it comes upon
        a malformed C, D or U before the E (``_Z1fDTsr1aC``). So of these only the new form with plain levels is taken.
        """
        numbered = len(self.candidates)
        if self.take("N"):
            self.prefix()
            self.need("E")
        elif self.text[self.at].isdecimal():
            self.level()
            while not self.take("E"):
                self.level()
        elif self.next("STDPRKFAM"):
            self.read("t")
        else:
            raise Refused
        self.doubt(numbered)
        self.unqualified()
        self.arguments()

    def level(self) -> None:
        mark = self.mark()
        self.source_name()
        self.candidate(mark)
        if self.arguments():
            self.candidate(mark)


_PARTS: dict[str, Callable[[_Reader], object]] = {
    "a": _Reader.template_argument, "A": lambda reader: reader.until("a"),
    "b": _Reader.extent,
    "c": lambda reader: reader.read("X" if reader.take("_") else "x"),
    "d": lambda reader: reader.token(_NUMBER), "D": lambda reader: reader.repeated("t"),
    "e": _Reader.encoding, "E": lambda reader: reader.need("E"),
    "f": _Reader.function,
    "h": lambda reader: reader.token(_CALL_OFFSET), "H": _Reader.template_heads,
    "i": _Reader.arguments,
    "m": _Reader.member,
    "n": _Reader.name, "N": lambda reader: reader.name(own=True),
    "o": _Reader.operator,
    "p": _Reader.primary,
    "q": lambda reader: reader.match(_SEQUENCE),
    "r": _Reader.unresolved,
    "s": _Reader.source_name, "S": lambda reader: reader.repeated("x"),
    "t": _Reader.type,
    "w": _Reader.new,
    "x": _Reader.expression, "X": lambda reader: reader.until("x"),
    "y": _Reader.crement,
    "_": lambda reader: reader.need("_"),
}  # fmt: skip
