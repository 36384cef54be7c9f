"""Stack-trace rules applied to stacks: once for each distinct symbol what a frame alone tells, then masks of bits.

What a rule asks of a frame's function, module, package, path and family is one *test*; a symbol's tests are looked
at once and kept. Of a stack, every test, category and flag is one integer with a bit for each frame, frame 0 (the
outermost) in the lowest. A rule is then a handful of ANDs: its own test, what it asks of the categories and of in_app
as the rules before it left them, and for neighbours in brackets the same shifted by one frame. So a rule costs a stack
of a hundred frames no more than a stack of one.

Rules are applied top to bottom, each to all frames: first what they change of the frames (``app``, ``category``), then,
over the changed frames, what counts (``group``, ``prefix``, ``sentinel``, the variables). Specification: Sentry's
documentation, "Stack Trace Rules"; the order of the passes is that of sentry's enhancer of 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from deadreckon.grouping.rules.globs import glob, literal, path_glob
from deadreckon.grouping.rules.model import EXCEPTION_KEYS, FRAME_KEYS, FlagAction, Matcher, StackRule, VarAction
from deadreckon.grouping.rules.read import truth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["ALWAYS", "Compiled", "Condition", "StackRules", "StackState", "Step", "Symbol", "family_of", "frames_of"]

MAX_SYMBOLS = 1 << 17
"""Symbols whose tests are kept; when there are more, all are forgotten and looked at anew."""
MAX_ACTIVE = 4096
"""Sets of tests whose rules are kept."""
ALWAYS: Final = -1
"""The test that every frame passes."""
UNKNOWN: Final = "<unknown>"
"""What a pattern meets where a frame has no function, or there is no exception."""

_NATIVE = frozenset({"objc", "cocoa", "swift", "native", "c"})
_JAVASCRIPT = frozenset({"javascript", "node"})


def family_of(platform: str | None) -> str:
    """Return the family of a platform that rules name: native, javascript or other."""
    return "native" if platform in _NATIVE else "javascript" if platform in _JAVASCRIPT else "other"


class Symbol(NamedTuple):
    """What rules look at in a frame; frames that agree in it are one symbol. ``path`` is abs_path, else filename."""

    family: str
    function: str | None
    module: str | None
    package: str | None
    path: str | None


class Condition(NamedTuple):
    """What a rule asks beyond symbols: of a category or in_app, at the frame (0), its caller (1) or its callee (-1)."""

    category: str | None
    """A pattern for the category; None: it is in_app that counts."""
    literal: bool
    wanted: bool
    shift: int


class Compiled(NamedTuple):
    """A rule as it is applied: the test of the frame, those of its neighbours, conditions, exception matchers."""

    rule: StackRule
    test: int
    caller: int
    callee: int
    conditions: tuple[Condition, ...]
    exception: tuple[Matcher, ...]
    modifiers: tuple[FlagAction | VarAction, ...]
    updaters: tuple[FlagAction | VarAction, ...]
    one_by_one: bool
    """Some flag is both set and cleared, so the order of the matching frames counts."""
    asks_more: bool
    """Its test is not all that it asks."""
    needs: str | None
    """A category that some frame must have for the rule to hold anywhere: what most rules fail at."""


_Ready = tuple[str | None, bool, Compiled, tuple[FlagAction | VarAction, ...]]
"""A rule with what is looked at first, and its actions of one pass."""


class Step(NamedTuple):
    """What an action did: the frames it was for, as bits."""

    rule: StackRule
    action: FlagAction | VarAction
    frames: int


@dataclass(slots=True)
class StackState:
    """A stack as rules see it. Masks have a bit for each frame; ``on`` and ``off`` are what rules say of ``group``."""

    app: int
    categories: dict[str, int] = field(default_factory=dict)
    on: int = 0
    off: int = 0
    prefix: int = 0
    sentinel: int = 0
    max_frames: int = 0
    min_frames: int = 0
    invert: bool | None = None
    max_frames_rule: StackRule | None = None
    min_frames_rule: StackRule | None = None

    def category(self, index: int) -> str | None:
        """Return a frame's category."""
        return next((name for name, mask in self.categories.items() if mask >> index & 1), None)


def frames_of(mask: int) -> Iterable[int]:
    """Yield the frames of a mask, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class StackRules:
    """Rules made ready for stacks. Several threads may use one; what it keeps of symbols is bounded."""

    def __init__(self, rules: Sequence[StackRule]) -> None:
        self.rules = tuple(rules)
        self._matchers: dict[tuple[str, str], int] = {}
        self._by_key: dict[str, list[tuple[int, Callable[[str], bool]]]] = {key: [] for key in FRAME_KEYS}
        self._exact: dict[str, dict[str, int]] = {key: {} for key in FRAME_KEYS}
        self._tests: dict[tuple[int, int], int] = {}
        self.compiled = [self._compile(rule) for rule in self.rules]
        # By the last matcher a test needs, 0 where it needs none: few of hundreds are tried on a symbol.
        self._needs: dict[int, list[tuple[int, int, int]]] = {}
        for (need, forbid), test in self._tests.items():
            self._needs.setdefault(need.bit_length(), []).append((test, need, forbid))
        self._modifiers = self._index(lambda c: bool(c.modifiers))
        self._updaters = self._index(lambda c: bool(c.updaters))
        self._active: dict[frozenset[int], tuple[list[_Ready], list[_Ready]]] = {}
        self._symbols: dict[Symbol, tuple[int, ...]] = {}
        self._values: dict[tuple[str, str], int] = {}

    @property
    def test_count(self) -> int:
        """How many distinct tests there are; a test is a number below that."""
        return len(self._tests)

    # -- once for each rule ---------------------------------------------------------------------------------------

    def _compile(self, rule: StackRule) -> Compiled:
        conditions = []
        for m in rule.matchers:
            shift = {"frame": 0, "caller": 1, "callee": -1}[m.where]
            if m.key == "category":
                conditions.append(Condition(m.pattern, literal(m.pattern) is not None, not m.negated, shift))
            elif m.key == "app":
                conditions.append(Condition(None, False, truth(m.pattern) is not m.negated, shift))
        modifiers = tuple(a for a in rule.actions if getattr(a, "flag", "") == "app" or _sets_category(a))
        updaters = tuple(a for a in rule.actions if getattr(a, "flag", "") != "app" and not _sets_category(a))
        flags = {(a.flag, a.value) for a in rule.actions if isinstance(a, FlagAction)}
        return Compiled(
            rule,
            self._test(rule, "frame"),
            self._test(rule, "caller"),
            self._test(rule, "callee"),
            tuple(conditions),
            tuple(m for m in rule.matchers if m.key in EXCEPTION_KEYS),
            modifiers,
            updaters,
            one_by_one=any((flag, not value) in flags for flag, value in flags),
            asks_more=len(rule.matchers) > sum(m.where == "frame" and m.key in FRAME_KEYS for m in rule.matchers),
            needs=next((c.category for c in conditions if c.literal and c.wanted), None),
        )

    def _test(self, rule: StackRule, where: str) -> int:
        need = forbid = 0
        for m in rule.matchers:
            if m.where == where and m.key in FRAME_KEYS:
                bit = 1 << self._matcher(m.key, m.pattern)
                need, forbid = (need, forbid | bit) if m.negated else (need | bit, forbid)
        return self._tests.setdefault((need, forbid), len(self._tests)) if need | forbid else ALWAYS

    def _matcher(self, key: str, pattern: str) -> int:
        number = self._matchers.get((key, pattern))
        if number is None:
            number = self._matchers[key, pattern] = len(self._matchers)
            if key == "family":
                families = frozenset(pattern.split(","))
                self._by_key[key].append((number, lambda text: "all" in families or text in families))
            elif key in {"path", "package"}:
                self._by_key[key].append((number, path_glob(pattern.lower())))
            elif literal(pattern) is not None:
                self._exact[key][pattern] = self._exact[key].get(pattern, 0) | 1 << number
            else:
                self._by_key[key].append((number, glob(pattern)))
        return number

    def _index(self, wanted: Callable[[Compiled], bool]) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {ALWAYS: []}
        for number, compiled in enumerate(self.compiled):
            if wanted(compiled):
                found.setdefault(compiled.test, []).append(number)
        return {test: tuple(numbers) for test, numbers in found.items()}

    # -- once for each symbol -------------------------------------------------------------------------------------

    def tests(self, symbol: Symbol) -> tuple[int, ...]:
        """Return the tests a symbol passes."""
        found = self._symbols.get(symbol)
        if found is None:
            bits = self._bits("family", symbol.family) | self._bits("function", symbol.function or UNKNOWN)
            if symbol.module is not None:
                bits |= self._bits("module", symbol.module)
            if symbol.package is not None:
                bits |= self._bits("package", symbol.package.lower())
            if symbol.path is not None:
                bits |= self._bits("path", symbol.path.lower())
            passed = []
            for last in (0, *(1 + i for i in frames_of(bits))):
                for test, need, forbid in self._needs.get(last, ()):
                    if bits & need == need and not bits & forbid:
                        passed.append(test)
            found = tuple(sorted(passed))
            if len(self._symbols) >= MAX_SYMBOLS:
                self._symbols.clear()
            self._symbols[symbol] = found
        return found

    def _bits(self, key: str, text: str) -> int:
        found = self._values.get((key, text))
        if found is None:
            found = self._exact[key].get(text, 0)
            for number, test in self._by_key[key]:
                if test(text):
                    found |= 1 << number
            if len(self._values) >= MAX_SYMBOLS:
                self._values.clear()
            self._values[key, text] = found
        return found

    # -- once for each stack --------------------------------------------------------------------------------------

    def apply(
        self,
        stack: Sequence[tuple[int, ...]],
        app: int,
        exception: Mapping[str, str | None] | None = None,
        *,
        modify: bool = True,
        steps: list[Step] | None = None,
    ) -> StackState:
        """Apply all rules to a stack: the ``tests`` of its frames, outermost first, and a mask of those in_app.

        ``exception`` has type, value and mechanism. Without ``modify`` frames stay as they are, and rules only say what
        counts. What was done is added to ``steps`` where that is given.
        """
        full = (1 << len(stack)) - 1
        masks = {ALWAYS: full}
        known = masks.get
        bit = 1
        for tests in stack:
            for test in tests:
                masks[test] = known(test, 0) | bit
            bit <<= 1
        modifiers, updaters = self._rules_for(masks)
        state = StackState(app, {})
        told = state.categories.get
        for ready, do in ((modifiers if modify else (), _modify), (updaters, _update)):
            for needs, asks_more, compiled, actions in ready:
                if needs is not None and not told(needs):
                    continue
                hits = self._hits(compiled, masks, full, state, exception) if asks_more else masks[compiled.test]
                if not hits:
                    continue
                for mask in (hits,) if not compiled.one_by_one else [1 << i for i in frames_of(hits)]:
                    for action in actions:
                        do(state, action, mask, full, compiled.rule, steps)
        return state

    def _rules_for(self, masks: dict[int, int]) -> tuple[list[_Ready], list[_Ready]]:
        """Return the rules whose test some frame passes, in their order: those that modify, and those that update."""
        tests = frozenset(masks)
        found = self._active.get(tests)
        if found is None:
            if len(self._active) >= MAX_ACTIVE:
                self._active.clear()
            numbers = [sorted(n for t in tests for n in i.get(t, ())) for i in (self._modifiers, self._updaters)]
            modifiers, updaters = ([self.compiled[n] for n in listed] for listed in numbers)
            found = self._active[tests] = (
                [(c.needs, c.asks_more, c, c.modifiers) for c in modifiers],
                [(c.needs, c.asks_more, c, c.updaters) for c in updaters],
            )
        return found

    def _hits(
        self,
        compiled: Compiled,
        masks: dict[int, int],
        full: int,
        state: StackState,
        exception: Mapping[str, str | None] | None,
    ) -> int:
        hits = masks[compiled.test]
        for category, plain, wanted, shift in compiled.conditions:
            if category is None:
                mask = state.app
            elif plain:
                mask = state.categories.get(category, 0)
            else:
                mask = 0
                for name, frames in state.categories.items():
                    if glob(category)(name):
                        mask |= frames
            if not wanted:
                mask = full & ~mask
            if shift:
                mask = mask << 1 if shift > 0 else mask >> 1
            hits &= mask
            if not hits:
                return 0
        if compiled.caller != ALWAYS:
            hits &= masks.get(compiled.caller, 0) << 1
        if compiled.callee != ALWAYS:
            hits &= masks.get(compiled.callee, 0) >> 1
        if compiled.exception and hits and not _fits(compiled.exception, exception or {}):
            return 0
        return hits


def _sets_category(action: FlagAction | VarAction) -> bool:
    return isinstance(action, VarAction) and action.name == "category"


def _fits(matchers: tuple[Matcher, ...], exception: Mapping[str, str | None]) -> bool:
    return all(glob(m.pattern)(exception.get(m.key) or UNKNOWN) is not m.negated for m in matchers)


def _reach(action: FlagAction, hits: int, full: int) -> int:
    """Return the frames of an action: those that matched, or all nearer to the crash, or all farther from it."""
    if not action.reach:
        return hits
    if action.reach == "^":
        return full & ~(((hits & -hits) << 1) - 1)
    return (1 << (hits.bit_length() - 1)) - 1


def _modify(
    state: StackState, action: FlagAction | VarAction, hits: int, full: int, rule: StackRule, steps: list[Step] | None
) -> None:
    if isinstance(action, FlagAction):
        mask = _reach(action, hits, full)
        if steps is not None and (changed := mask & (~state.app if action.value else state.app)):
            steps.append(Step(rule, action, changed))
        state.app = state.app | mask if action.value else state.app & ~mask
        return
    name = str(action.value)
    if steps is not None and (changed := hits & ~state.categories.get(name, 0)):
        steps.append(Step(rule, action, changed))
    for other in state.categories:
        state.categories[other] &= ~hits
    state.categories[name] = state.categories.get(name, 0) | hits


def _update(
    state: StackState, action: FlagAction | VarAction, hits: int, full: int, rule: StackRule, steps: list[Step] | None
) -> None:
    if isinstance(action, FlagAction):
        mask = _reach(action, hits, full)
        if action.flag == "group":
            state.on = state.on | mask if action.value else state.on & ~mask
            state.off = state.off & ~mask if action.value else state.off | mask
        elif action.flag == "prefix":
            state.prefix = state.prefix | mask if action.value else state.prefix & ~mask
        else:
            state.sentinel = state.sentinel | mask if action.value else state.sentinel & ~mask
    else:
        mask = full
        if action.name == "max-frames":
            state.max_frames, state.max_frames_rule = int(action.value), rule
        elif action.name == "min-frames":
            state.min_frames, state.min_frames_rule = int(action.value), rule
        else:
            state.invert = bool(action.value)
    if steps is not None and mask:
        steps.append(Step(rule, action, mask))
