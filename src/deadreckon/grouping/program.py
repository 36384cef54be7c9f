"""Stack-trace rules made ready for the rule pass over columns (kernels/marks.py).

What rules ask of names was looked at once a distinct symbol (``StackRules.tests``); symbols that pass the same tests
are one class. Neighbouring rules that ask nothing but names and change their own frame only are joined to one step,
and a rule that asks for a category matters to the classes that can have it: so of hundreds of rules few are run on a
stack. The result is the one of ``StackRules.apply``, which tells of one stack why as well, and whether it is to be
inverted, which no family of ours asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import ConfigError
from deadreckon.grouping.rules.globs import glob
from deadreckon.grouping.rules.model import FlagAction, Matcher, VarAction
from deadreckon.grouping.rules.stack import ALWAYS, UNKNOWN, Compiled, Condition, StackRules
from deadreckon.kernels.marks import (
    APP_SHIFT,
    CATEGORY_SHIFT,
    CONDITIONS,
    GROUP_SHIFT,
    JOINED,
    MAX_CATEGORIES,
    NO,
    PREFIX,
    SENTINEL,
    STEP,
    YES,
    Program,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RulePass"]

_ALL = 0xFFFF
_FIELDS = {"app": APP_SHIFT, "group": GROUP_SHIFT}
_BITS = {"sentinel": SENTINEL, "prefix": PREFIX}
MAX_GATES = 1 << 16


class _Effect(NamedTuple):
    """``state & keep | gives``."""

    keep: int = _ALL
    gives: int = 0

    def then(self, other: _Effect) -> _Effect:
        return _Effect(self.keep & other.keep, self.gives & other.keep | other.gives)


@dataclass(slots=True)
class _Step:
    """One rule in one of the two passes, or (``members``) several that are joined."""

    rule: Compiled | None = None
    effects: dict[str, _Effect] = field(default_factory=dict)
    most: int = -1
    fewest: int = -1
    members: list[tuple[int, _Effect]] = field(default_factory=list)
    rows: tuple[int, int, int] = (JOINED, 0, 0)
    needs: frozenset[int] | None = None
    """Tests one of which a class must pass to have the category that is asked for; None: any class may match."""


class RulePass:
    """Rules for many stacks. Classes and kinds of exceptions are added as they are met; ``program`` is of all so far.

    Raises ConfigError for rules that a pass over columns can't apply: those with more than 255 categories.
    """

    def __init__(self, rules: StackRules) -> None:
        self.rules = rules
        self._categories: dict[str, int] = {}
        self._setters: dict[str, set[int]] = {}
        self._conditions: dict[bytes, int] = {bytes([1] * CONDITIONS): 0}
        self._learn_categories()
        self._steps = self._plan()
        self._words = (len(self._steps) + 63) // 64 or 1
        self._classes: dict[tuple[int, ...], int] = {}
        self._masks: list[NDArray[np.uint64]] = []
        self._effects: list[list[_Effect]] = []
        self._gates: dict[tuple[str | None, ...], int] = {}
        self._gate_rows: list[NDArray[np.uint64]] = []
        self._program: Program | None = None

    @property
    def steps(self) -> int:
        """How many steps the rules came down to."""
        return len(self._steps)

    def category(self, state: int) -> str | None:
        """Return the category in a state."""
        number = state >> CATEGORY_SHIFT & MAX_CATEGORIES
        return next((name for name, n in self._categories.items() if n == number), None)

    # -- once for all rules ----------------------------------------------------------------------------------------

    def _learn_categories(self) -> None:
        for compiled in self.rules.compiled:
            for action in (*compiled.modifiers, *compiled.updaters):
                if isinstance(action, VarAction) and action.name == "category":
                    name = str(action.value)
                    self._categories.setdefault(name, len(self._categories) + 1)
                    self._setters.setdefault(name, set()).add(compiled.test)
        if len(self._categories) > MAX_CATEGORIES:
            raise ConfigError(f"at most {MAX_CATEGORIES} categories, got {len(self._categories)}")

    def _plan(self) -> list[_Step]:
        steps: list[_Step] = []
        for actions_of in ("modifiers", "updaters"):
            for compiled in self.rules.compiled:
                actions: Sequence[FlagAction | VarAction] = getattr(compiled, actions_of)
                if not actions:
                    continue
                step = _Step(compiled)
                for action in actions:
                    self._add(step, action)
                plain = not (compiled.conditions or compiled.exception)
                plain = plain and compiled.caller == compiled.callee == ALWAYS
                if plain and step.most < 0 and step.fewest < 0 and set(step.effects) <= {""}:
                    # A joined step never stands at the border of the two passes: the state rules ask of is the same.
                    if not steps or not steps[-1].members:
                        steps.append(_Step())
                    steps[-1].members.append((compiled.test, step.effects.get("", _Effect())))
                    continue
                step.rows = (
                    self._condition(compiled.conditions, 0),
                    self._neighbour(compiled, compiled.caller, 1),
                    self._neighbour(compiled, compiled.callee, -1),
                )
                step.needs = self._needs(compiled)
                steps.append(step)
        return steps

    def _add(self, step: _Step, action: FlagAction | VarAction) -> None:
        if isinstance(action, FlagAction):
            if shift := _FIELDS.get(action.flag, -1) + 1:
                shift -= 1
                effect = _Effect(_ALL ^ (3 << shift), (YES if action.value else NO) << shift)
            else:
                bit = _BITS[action.flag]
                effect = _Effect(_ALL ^ bit, bit if action.value else 0)
            step.effects[action.reach] = step.effects.get(action.reach, _Effect()).then(effect)
        elif action.name == "category":
            number = self._categories[str(action.value)] << CATEGORY_SHIFT
            mask = _ALL ^ (MAX_CATEGORIES << CATEGORY_SHIFT)
            step.effects[""] = step.effects.get("", _Effect()).then(_Effect(mask, number))
        elif action.name == "max-frames":
            step.most = int(action.value)
        elif action.name == "min-frames":
            step.fewest = int(action.value)

    def _neighbour(self, compiled: Compiled, test: int, shift: int) -> int:
        if test == ALWAYS and not any(c.shift == shift for c in compiled.conditions):
            return -1
        return self._condition(compiled.conditions, shift)

    def _condition(self, conditions: tuple[Condition, ...], shift: int) -> int:
        """Return the row that tells of each state whether all conditions on one frame hold."""
        table = np.ones(CONDITIONS, np.uint8)
        states = np.arange(CONDITIONS)
        for condition in conditions:
            if condition.shift != shift:
                continue
            if condition.category is None:
                holds = (states >> APP_SHIFT & 3) == YES
            else:
                fits = glob(condition.category)
                numbers = [n for name, n in self._categories.items() if fits(name)]
                holds = np.isin(states >> CATEGORY_SHIFT, numbers)
            table &= holds == condition.wanted
        return self._conditions.setdefault(table.tobytes(), len(self._conditions))

    def _needs(self, compiled: Compiled) -> frozenset[int] | None:
        """Return the tests of the rules that set the categories asked for at the frame itself."""
        needs: frozenset[int] | None = None
        for condition in compiled.conditions:
            if condition.shift == 0 and condition.category is not None and condition.wanted:
                fits = glob(condition.category)
                setters = frozenset(t for name, tests in self._setters.items() if fits(name) for t in tests)
                needs = setters if needs is None or ALWAYS in needs else needs & setters or needs
        return needs

    # -- once for each class and kind of exception ------------------------------------------------------------------

    def class_of(self, tests: tuple[int, ...]) -> int:
        """Return the class of the symbols that pass these tests."""
        found = self._classes.get(tests)
        if found is None:
            found = self._classes[tests] = len(self._classes)
            passed = {ALWAYS, *tests}
            mask = np.zeros((3, self._words), np.uint64)
            effects: list[_Effect] = []
            for number, step in enumerate(self._steps):
                bit = np.uint64(1 << (number & 63))
                if step.rule is None:
                    effect = _Effect()
                    for test, one in step.members:
                        if test in passed:
                            effect = effect.then(one)
                    effects.append(effect)
                    if effect != _Effect():
                        mask[0, number >> 6] |= bit
                    continue
                if step.rule.test in passed and (step.needs is None or step.needs & passed):
                    mask[0, number >> 6] |= bit
                if step.rule.caller in passed:
                    mask[1, number >> 6] |= bit
                if step.rule.callee in passed:
                    mask[2, number >> 6] |= bit
            self._masks.append(mask)
            self._effects.append(effects)
            self._program = None
        return found

    def gate_of(self, exception: Mapping[str, str | None] | None) -> int:
        """Return the row of the steps that the rules allow for an exception's type, value and mechanism."""
        exception = exception or {}
        key = tuple(exception.get(name) for name in ("type", "value", "mechanism"))
        if not self._gates and not any(step.rule and step.rule.exception for step in self._steps):
            key = ()
        found = self._gates.get(key)
        if found is None:
            row = np.zeros(self._words, np.uint64)
            for number, step in enumerate(self._steps):
                if step.rule is None or _fits(step.rule.exception, exception):
                    row[number >> 6] |= np.uint64(1 << (number & 63))
            known = next((i for i, r in enumerate(self._gate_rows) if np.array_equal(r, row)), None)
            found = len(self._gate_rows) if known is None else known
            if known is None:
                self._gate_rows.append(row)
                self._program = None
            if len(self._gates) < MAX_GATES:
                self._gates[key] = found
        return found

    def program(self) -> Program:
        """Return the program for the classes and kinds of exceptions met so far."""
        if self._program is None:
            self.class_of(())
            self.gate_of(None)
            joined = 0
            table = np.zeros((len(self._steps), STEP), np.int32)
            for number, step in enumerate(self._steps):
                if step.rule is None:
                    table[number, :2] = JOINED, joined
                    joined += 1
                    continue
                own, up, down = (step.effects.get(reach, _Effect()) for reach in ("", "^", "v"))
                ranged = up != _Effect() or down != _Effect()
                table[number] = *step.rows, *own, *up, *down, step.most, step.fewest, ranged
            conditions = np.frombuffer(b"".join(self._conditions), np.uint8).reshape(-1, CONDITIONS)
            effects = np.array(self._effects, np.uint16).reshape(len(self._classes), joined, 2)
            self._program = Program(table, np.stack(self._masks), effects, conditions, np.stack(self._gate_rows))
            self._program.check()
        return self._program


def _fits(matchers: tuple[Matcher, ...], exception: Mapping[str, str | None]) -> bool:
    return all(glob(m.pattern)(exception.get(m.key) or UNKNOWN) is not m.negated for m in matchers)
