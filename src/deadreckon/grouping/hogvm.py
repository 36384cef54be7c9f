"""PostHog's byte code for conditions on an event, as its rules are stored beside their filters.

Specification: PostHog's HogVM, of which this is what filters compile to: no functions, closures or locals. A program is
a list: ``"_H"``, a version, then operations with their arguments. Operands are pushed last one first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deadreckon.grouping.filters import FilterError, Steps, spelled
from deadreckon.grouping.patterns import StepsExhausted, compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

_MAX_STACK = 1024
_MAX_TEXT = 1 << 20
_COST = 50
"""Steps of a regular expression that an operation counts for."""


def run(program: Any, names: Mapping[str, Any], steps: Steps | None = None) -> bool:
    """Run a program over the values that ``names`` gives; return its verdict.

    Raises FilterError where it is no program, does what it must not, or returns anything but true or false;
    PatternError, and StepsExhausted where it takes too long.
    """
    if type(program) is not list or program[:1] not in (["_H"], ["_h"]):
        raise FilterError("a program is a list that begins with _H")
    machine = _Machine(program, names, steps or Steps())
    found = machine.run(2 if program[0] == "_H" else 1)
    if type(found) is not bool:
        raise FilterError(f"the program returned {type(found).__name__}, not true or false")
    return found


class _Machine:
    def __init__(self, program: list[Any], names: Mapping[str, Any], steps: Steps) -> None:
        self._program = program
        self._names = names
        self._steps = steps
        self._stack: list[Any] = []
        self._at = 0

    def run(self, start: int) -> Any:
        self._at = start
        while self._at < len(self._program):
            self._steps.left -= _COST
            if self._steps.left < 0:
                raise StepsExhausted("a program took too many steps")
            code = self._argument()
            if code == 38:  # RETURN
                return self._pop()
            operation = _OPERATIONS.get(code) if type(code) is int else None
            if operation is None:
                raise FilterError(f"operation {str(code)[:32]} is not known")
            operation(self)
            if len(self._stack) > _MAX_STACK:
                raise FilterError("the stack is too large")
        return self._stack.pop() if self._stack else None

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise FilterError("the stack is empty")
        return self._stack.pop()

    def _argument(self) -> Any:
        if self._at >= len(self._program):
            raise FilterError("the program ends in the middle of an operation")
        self._at += 1
        return self._program[self._at - 1]

    def _count(self) -> int:
        found = self._argument()
        if type(found) is not int or not 0 <= found <= len(self._stack):
            raise FilterError(f"{str(found)[:32]} operands are more than there are")
        return found

    def _several(self) -> list[Any]:
        return [self._pop() for _ in range(self._count())]

    # -- operations ---------------------------------------------------------------------------------------------------

    def get_global(self) -> None:
        value: Any = self._names
        for name in self._several():
            value = value.get(name) if isinstance(value, Mapping) and type(name) is str else None
        self.push(value)

    def call_global(self) -> None:
        name, arguments = self._argument(), self._several()
        if name == "match" and len(arguments) == 2:
            self.push(self._found(arguments[0], arguments[1], fold=False))
            return
        function = _FUNCTIONS.get(name) if type(name) is str else None
        if function is None:
            raise FilterError(f"function {str(name)[:32]!r} of {len(arguments)} is not known")
        try:
            self.push(function(*arguments))
        except (TypeError, ValueError, OverflowError) as e:
            raise FilterError(f"{name}: {e}") from e

    def _found(self, value: Any, pattern: Any, *, fold: bool) -> bool:
        if value is None or pattern is None:
            return False
        text = spelled(value)[:_MAX_TEXT]
        found, self._steps.left = compile_pattern(spelled(pattern), fold=fold).run(text, self._steps.left)
        return found

    def regex(self, *, wanted: bool, fold: bool) -> None:
        value, pattern = self._pop(), self._pop()
        self.push(self._found(value, pattern, fold=fold) is wanted)

    def like(self, *, wanted: bool, fold: bool) -> None:
        value, pattern = self._pop(), self._pop()
        parts = re.split(r"([%_])", spelled(pattern)[:4096])
        expression = "".join({"%": ".*", "_": "."}.get(part) or re.escape(part) for part in parts)
        expression = f"(?s)^{expression}$"
        known = value is not None and pattern is not None
        self.push((known and self._found(value, expression, fold=fold)) is wanted)

    def compare(self, test: Callable[[Any, Any], bool]) -> None:
        left, right = self._pop(), self._pop()
        self.push(test(left, right))

    def arithmetic(self, test: Callable[[float, float], float]) -> None:
        left, right = self._pop(), self._pop()
        if type(left) not in {int, float} or type(right) not in {int, float}:
            raise FilterError("arithmetic is of numbers")
        try:
            found = test(left, right)
        except (ZeroDivisionError, OverflowError) as e:
            raise FilterError(str(e)) from e
        self.push(found if math.isfinite(found) and abs(found) < 1 << 63 else None)

    def conjunction(self) -> None:
        self.push(all(self._several()))

    def disjunction(self) -> None:
        self.push(any(self._several()))

    def negate(self) -> None:
        self.push(not self._pop())

    def literal(self) -> None:
        self.push(self._argument())

    def pop(self) -> None:
        self._pop()

    def jump(self, *, only_if_false: bool) -> None:
        offset = self._argument()
        if type(offset) is not int or not 0 <= self._at + offset <= len(self._program):
            raise FilterError(f"a jump of {str(offset)[:32]} leaves the program")
        if not only_if_false or not self._pop():
            self._at += offset

    def collect(self) -> None:
        self.push(self._several()[::-1])


def _order(left: Any, right: Any) -> int | None:
    if type(left) in {int, float} and type(right) in {int, float}:
        return int(left > right) - int(left < right)
    if left is None or right is None:
        return None
    one: Any
    other: Any
    try:
        one, other = float(left), float(right)
    except (TypeError, ValueError, OverflowError):
        one, other = spelled(left), spelled(right)
    return int(one > other) - int(one < other)


def _equal(left: Any, right: Any) -> bool:
    if type(left) in {int, float, bool} and type(right) in {int, float, bool}:
        return bool(left == right)
    if left is None or right is None or type(left) is type(right):
        return bool(left == right)
    return spelled(left) == spelled(right)


def _in(left: Any, right: Any) -> bool:
    return any(_equal(left, item) for item in right) if type(right) in {list, tuple} else False


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _length(value: Any) -> int:
    return len(value) if type(value) in {str, list, dict} else 0


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "toString": spelled,
    "lower": lambda v: None if v is None else spelled(v).lower(),
    "upper": lambda v: None if v is None else spelled(v).upper(),
    "ifNull": lambda v, other: other if v is None else v,
    "coalesce": lambda *values: next((v for v in values if v is not None), None),
    "empty": lambda v: not v,
    "notEmpty": bool,
    "length": _length,
    "toInt": lambda v: None if (n := _number(v)) is None else int(n),
    "toFloat": _number,
    "toBool": bool,
    "not": lambda v: not v,
    "and": lambda *values: all(values),
    "or": lambda *values: any(values),
    "equals": _equal,
    "has": lambda values, v: _in(v, values),
}
_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    1: _Machine.get_global,
    2: _Machine.call_global,
    3: _Machine.conjunction,
    4: _Machine.disjunction,
    5: _Machine.negate,
    6: lambda m: m.arithmetic(lambda a, b: a + b),
    7: lambda m: m.arithmetic(lambda a, b: a - b),
    8: lambda m: m.arithmetic(lambda a, b: a * b),
    9: lambda m: m.arithmetic(lambda a, b: a / b),
    10: lambda m: m.arithmetic(lambda a, b: a % b),
    11: lambda m: m.compare(_equal),
    12: lambda m: m.compare(lambda a, b: not _equal(a, b)),
    13: lambda m: m.compare(lambda a, b: _order(a, b) == 1),
    14: lambda m: m.compare(lambda a, b: _order(a, b) in {0, 1}),
    15: lambda m: m.compare(lambda a, b: _order(a, b) == -1),
    16: lambda m: m.compare(lambda a, b: _order(a, b) in {-1, 0}),
    17: lambda m: m.like(wanted=True, fold=False),
    18: lambda m: m.like(wanted=True, fold=True),
    19: lambda m: m.like(wanted=False, fold=False),
    20: lambda m: m.like(wanted=False, fold=True),
    21: lambda m: m.compare(_in),
    22: lambda m: m.compare(lambda a, b: not _in(a, b)),
    23: lambda m: m.regex(wanted=True, fold=False),
    24: lambda m: m.regex(wanted=False, fold=False),
    25: lambda m: m.regex(wanted=True, fold=True),
    26: lambda m: m.regex(wanted=False, fold=True),
    29: lambda m: m.push(True),
    30: lambda m: m.push(False),
    31: lambda m: m.push(None),
    32: _Machine.literal,
    33: _Machine.literal,
    34: _Machine.literal,
    35: _Machine.pop,
    39: lambda m: m.jump(only_if_false=False),
    40: lambda m: m.jump(only_if_false=True),
    43: _Machine.collect,
    44: _Machine.collect,
}
