r"""Regular expressions that strangers write, matched in bounded time: whether one is found in a text, nothing more.

The syntax is RE2's (RE2 ``doc/syntax.txt``), which has no back references and no looking around; of Unicode it knows
characters, but no classes (``\p``). ``\d``, ``\w``, ``\s`` and ``\b`` are ASCII's, ``$`` is the end of the text. A
pattern becomes a nondeterministic automaton (Thompson 1968), whose sets of states are remembered as they come up: each
character costs one look-up, or at most a step for each state of the pattern, and all steps are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["MAX_STEPS", "Pattern", "PatternError", "StepsExhausted", "compile_pattern"]

MAX_STEPS = 1_000_000
"""Steps of one search, which take about a second."""
MAX_PATTERN = 4096
_MAX_REPEAT = 1000
_MAX_PROGRAM = 10_000
_MAX_DEPTH = 100
_MAX_REMEMBERED = 500_000
"""States in the sets that a pattern remembers."""


class PatternError(ValueError):
    """A pattern is not of the syntax, or too large."""


class StepsExhausted(Exception):
    """A search took more steps than it may."""


Ranges = tuple[tuple[int, int], ...]
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_ANY: Ranges = ((0, 0x10FFFF),)
_CLASSES: dict[str, Ranges] = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
_POSIX: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGIT,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}


class _Set(NamedTuple):
    """Characters that a state takes."""

    ranges: Ranges
    fold: bool = False

    def takes(self, char: str) -> bool:
        code = ord(char)
        if any(low <= code <= high for low, high in self.ranges):
            return True
        if not self.fold:
            return False
        others = {ord(c) for c in (char.lower(), char.upper()) if len(c) == 1}
        return any(low <= other <= high for other in others for low, high in self.ranges)


_Assertion = Literal["^", "$", "A", "z", "b", "B"]
_Node = (
    tuple[Literal["set"], _Set]
    | tuple[Literal["assert"], _Assertion]
    | tuple[Literal["cat", "alt"], list["_Node"]]
    | tuple[Literal["repeat"], "_Node", int, int]
)


@dataclass(slots=True)
class _Parser:
    """Reads a pattern by recursive descent."""

    text: str
    at: int = 0
    depth: int = 0
    fold: bool = False
    multiline: bool = False
    dot_all: bool = False

    def whole(self) -> _Node:
        found = self.alternatives()
        if self.at < len(self.text):
            raise PatternError(f"unexpected {self.text[self.at]!r} at {self.at}")
        return found

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def alternatives(self) -> _Node:
        branches = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else ("alt", branches)

    def sequence(self) -> _Node:
        items: list[_Node] = []
        while (char := self.peek()) and char not in "|)":
            item = self.atom()
            if item is not None:
                items.append(self.repeated(item))
        return ("cat", items)

    def repeated(self, item: _Node) -> _Node:
        bounds = self.quantifier()
        if bounds is None:
            return item
        if self.peek() == "?":  # Lazy ones find the same texts.
            self.at += 1
        if self.quantifier() is not None:
            raise PatternError(f"a repetition of a repetition at {self.at}")
        return ("repeat", item, *bounds)

    def quantifier(self) -> tuple[int, int] | None:
        char = self.peek()
        if char and char in "*+?":
            self.at += 1
            return {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[char]
        if char != "{":
            return None
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : max(end, self.at + 1)].partition(",")
        told = [n for n in (low, high) if n]
        if end < 0 or not low or not all(n.isascii() and n.isdecimal() and len(n) < 6 for n in told):
            return None  # Then a brace is a character.
        bounds = int(low), int(high) if high else -1 if comma else int(low)
        if max(bounds) > _MAX_REPEAT or 0 <= bounds[1] < bounds[0]:
            raise PatternError(f"repetition {self.text[self.at : end + 1]} is too large or the wrong way round")
        self.at = end + 1
        return bounds

    def atom(self) -> _Node | None:
        char = self.text[self.at]
        self.at += 1
        if char == "(":
            return self.group()
        if char == "[":
            return ("set", self.bracket())
        if char == ".":
            return ("set", _Set(_ANY if self.dot_all else ((0, 9), (11, 0x10FFFF))))
        if char == "^":
            return ("assert", "^" if self.multiline else "A")
        if char == "$":
            return ("assert", "$" if self.multiline else "z")
        if char == "\\":
            return self.escape()
        if char in "*+?":
            raise PatternError(f"nothing to repeat at {self.at - 1}")
        return self.literal(ord(char))

    def literal(self, code: int) -> _Node:
        return ("set", _Set(((code, code),), self.fold))

    def group(self) -> _Node | None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise PatternError("groups are nested too deep")
        flags = self.fold, self.multiline, self.dot_all
        if self.peek() == "?" and self.flags():
            self.depth -= 1
            return None  # (?i) holds for what follows in the group around it.
        found = self.alternatives()
        if self.peek() != ")":
            raise PatternError("a group has no end")
        self.at += 1
        self.depth -= 1
        self.fold, self.multiline, self.dot_all = flags
        return found

    def flags(self) -> bool:
        """Read what follows ``(?``; True where that is all there is to the group."""
        self.at += 1
        named = "P<" if self.text.startswith("P<", self.at) else "<"
        if self.text.startswith(named, self.at) and not self.text.startswith(("<=", "<!"), self.at):
            end = self.text.find(">", self.at)
            name = self.text[self.at + len(named) : max(end, 0)]
            if end < 0 or not name.isidentifier():
                raise PatternError(f"a group's name at {self.at}")
            self.at = end + 1
            return False
        value = True
        while (char := self.peek()) and char not in ":)":
            if char == "-":
                value = False
            elif char in "ims":
                setattr(self, {"i": "fold", "m": "multiline", "s": "dot_all"}[char], value)
            elif char != "U":
                raise PatternError(f"(?{char} at {self.at} is not of RE2's syntax")
            self.at += 1
        if not char:
            raise PatternError("a group has no end")
        self.at += 1
        return char == ")"

    def escape(self) -> _Node:
        char = self.peek()
        self.at += 1
        if not char:
            raise PatternError("a backslash at the end")
        if char in "Az":
            return ("assert", "A" if char == "A" else "z")
        if char in "bB":
            return ("assert", "b" if char == "b" else "B")
        if char.lower() in _CLASSES:
            return ("set", _Set(_class(char)))
        if char == "Q":
            end = self.text.find("\\E", self.at)
            quoted = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at = end + 2 if end >= 0 else len(self.text)
            return ("cat", [self.literal(ord(c)) for c in quoted])
        return self.literal(self.escaped(char))

    def escaped(self, char: str) -> int:
        """Return the character that an escape stands for, in a bracket or outside; it has been passed."""
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char == "x":
            if self.peek() == "{":
                end = self.text.find("}", self.at)
                digits, after = self.text[self.at + 1 : max(end, 0)], end + 1
            else:
                digits, after = self.text[self.at : self.at + 2], self.at + 2
            try:
                code = int(digits, 16)
            except ValueError as e:
                raise PatternError(f"\\x at {self.at}") from e
            self.at = after
            if not 0 <= code <= 0x10FFFF:
                raise PatternError(f"\\x at {self.at} is no character")
            return code
        if char == "0":
            return 0
        if char.isalnum():
            raise PatternError(f"\\{char} at {self.at - 1} is not of RE2's syntax, or not supported")
        return ord(char)

    def bracket(self) -> _Set:
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while (char := self.peek()) != "]" or first:
            if not char:
                raise PatternError("a bracket has no end")
            first = False
            if self.text.startswith("[:", self.at) and (end := self.text.find(":]", self.at)) > 0:
                name = self.text[self.at + 2 : end]
                known = _POSIX.get(name.removeprefix("^"))
                if known is None:
                    raise PatternError(f"[:{name}:] is not known")
                ranges += _others(known) if name[:1] == "^" else known
                self.at = end + 2
                continue
            low = self.member()
            if not isinstance(low, int):
                ranges += low
                continue
            high = low
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                told = self.member()
                if not isinstance(told, int) or told < low:
                    raise PatternError(f"a range at {self.at}")
                high = told
            ranges.append((low, high))
        self.at += 1
        merged = tuple(ranges)
        if self.fold and negated:
            merged = (*merged, *_folded(merged))
        return _Set(_others(merged)) if negated else _Set(merged, self.fold)

    def member(self) -> int | Ranges:
        char = self.text[self.at]
        self.at += 1
        if char != "\\":
            return ord(char)
        char = self.peek()
        self.at += 1
        if char and char.lower() in _CLASSES:
            return _class(char)
        if not char:
            raise PatternError("a backslash at the end")
        return self.escaped(char)


def _class(char: str) -> Ranges:
    known = _CLASSES[char.lower()]
    return known if char.islower() else _others(known)


def _others(ranges: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= 0x10FFFF:
        found.append((start, 0x10FFFF))
    return tuple(found)


def _folded(ranges: Ranges) -> Ranges:
    """Return the other case of ASCII letters in ranges; a negated class must not take them either."""
    codes = [c for low, high in ranges for c in range(max(low, 65), min(high, 122) + 1)]
    return tuple((ord(chr(c).swapcase()),) * 2 for c in codes if chr(c).isalpha())


_UNKNOWN: frozenset[int] = frozenset((-1,))
_MATCH, _TAKE, _SPLIT, _ASSERT = range(4)


@dataclass(slots=True)
class Pattern:
    """A pattern ready to search; safe to share between threads."""

    _kind: list[int] = field(default_factory=list)
    _next: list[int] = field(default_factory=list)
    _other: list[int] = field(default_factory=list)
    _sets: list[_Set | None] = field(default_factory=list)
    _asserts: list[_Assertion | None] = field(default_factory=list)
    _known: dict[tuple[frozenset[int], str, str], frozenset[int] | None] = field(default_factory=dict)
    _held: int = 0

    def search(self, text: str, max_steps: int = MAX_STEPS) -> bool:
        """Tell whether the pattern is found anywhere in a text. Raises StepsExhausted."""
        return self.run(text, max_steps)[0]

    def run(self, text: str, max_steps: int) -> tuple[bool, int]:
        """Return whether the pattern is found in a text, and the steps that are left. Raises StepsExhausted."""
        start = len(self._kind) - 1
        states: frozenset[int] = frozenset((start,))
        before = ""
        left = max_steps
        for char in text:
            key = (states, before, char)
            left -= 1
            after = self._known.get(key, _UNKNOWN)
            if after is _UNKNOWN:
                after, cost = self._step(states, before, char)
                left -= cost
                self._remember(key, after)
            if after is None:
                return True, left
            if left < 0:
                raise StepsExhausted(f"a pattern took more than {max_steps} steps")
            states = after
            before = "w" if _is_word(char) else "\n" if char == "\n" else " "
        closure, cost = self._closure(states, before, "")
        return closure is None, left - cost

    def _remember(self, key: tuple[frozenset[int], str, str], after: frozenset[int] | None) -> None:
        self._held += len(after or ()) + 8
        if self._held > _MAX_REMEMBERED:
            self._known, self._held = {}, 0
        self._known[key] = after

    def _step(self, states: frozenset[int], before: str, char: str) -> tuple[frozenset[int] | None, int]:
        """Return the states behind a character, None where the pattern was found before it."""
        closure, cost = self._closure(states, before, char)
        if closure is None:
            return None, cost
        found = {len(self._kind) - 1}
        for state in closure:
            taken = self._sets[state]
            if taken is None:
                continue
            cost += len(taken.ranges)
            if taken.takes(char):
                found.add(self._next[state])
        return frozenset(found), cost

    def _closure(self, states: frozenset[int], before: str, after: str) -> tuple[set[int] | None, int]:
        """Return the states that take a character, None where the end is among what can be reached without one."""
        seen: set[int] = set()
        taking: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            kind = self._kind[state]
            if kind == _MATCH:
                return None, len(seen)
            if kind == _TAKE:
                taking.add(state)
            elif kind == _SPLIT:
                waiting += (self._next[state], self._other[state])
            elif _holds(self._asserts[state], before, after):
                waiting.append(self._next[state])
        return taking, len(seen)

    def _add(
        self, kind: int, after: int = 0, other: int = 0, taken: _Set | None = None, told: _Assertion | None = None
    ) -> int:
        if len(self._kind) >= _MAX_PROGRAM:
            raise PatternError("the pattern is too large")
        self._kind.append(kind)
        self._next.append(after)
        self._other.append(other)
        self._sets.append(taken)
        self._asserts.append(told)
        return len(self._kind) - 1

    def _build(self, node: _Node, after: int) -> int:
        """Add the states of a part in front of a state; return the first of them."""
        if node[0] == "set":
            return self._add(_TAKE, after, taken=node[1])
        if node[0] == "assert":
            return self._add(_ASSERT, after, told=node[1])
        if node[0] == "cat":
            for item in reversed(node[1]):
                after = self._build(item, after)
            return after
        if node[0] == "alt":
            first = self._build(node[1][-1], after)
            for item in reversed(node[1][:-1]):
                first = self._add(_SPLIT, self._build(item, after), first)
            return first
        _, item, low, high = node
        if high < 0:
            loop = self._add(_SPLIT, 0, after)
            self._next[loop] = self._build(item, loop)
            after = loop
        else:
            end = after
            for _ in range(high - low):
                after = self._add(_SPLIT, self._build(item, after), end)
        for _ in range(low):
            after = self._build(item, after)
        return after


def _is_word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


def _holds(told: _Assertion | None, before: str, after: str) -> bool:
    """Tell whether an assertion holds between two characters: "" is the text's end, before it is their kind only."""
    if told == "A":
        return before == ""
    if told == "z":
        return after == ""
    if told == "^":
        return before in {"", "\n"}
    if told == "$":
        return after in {"", "\n"}
    boundary = (before == "w") != (bool(after) and _is_word(after))
    return boundary if told == "b" else not boundary


@lru_cache(maxsize=1024)
def compile_pattern(text: str, *, fold: bool = False) -> Pattern:
    """Make a pattern of RE2's syntax; ``fold`` ignores case. Raises PatternError."""
    if len(text) > MAX_PATTERN:
        raise PatternError(f"the pattern has {len(text)} characters, the limit is {MAX_PATTERN}")
    found = Pattern()
    end = found._add(_MATCH)  # noqa: SLF001 - made here and nowhere else
    first = found._build(_Parser(text, fold=fold).whole(), end)  # noqa: SLF001
    # The last state begins the search, also behind each character.
    found._add(_SPLIT, first, first)  # noqa: SLF001
    return found
