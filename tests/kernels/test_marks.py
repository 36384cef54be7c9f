"""The rule pass over columns against rules in plain Python, and against the pass that explains one stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.grouping.judge import default_rules
from deadreckon.grouping.program import RulePass
from deadreckon.grouping.rules import StackRule, StackRules, Symbol, parse_rules
from deadreckon.kernels import marks
from deadreckon.kernels.marks import APP, APP_SHIFT, GROUP_SHIFT, IN_APP, NO, PREFIX, SENTINEL, SYSTEM, YES, run_rules
from oracle import marks as oracle

NAMES = "abcd"
CATEGORIES = ("x", "y")

matchers = st.one_of(
    st.tuples(st.just("function"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("app"), st.sampled_from(["yes", "no"]), st.booleans()),
    st.tuples(st.just("category"), st.sampled_from(CATEGORIES), st.booleans()),
)
# Both + and - of one flag in one rule are left out: the order of frames would count, and nobody writes that.
actions = st.lists(
    st.sampled_from(["", "^", "v"]).flatmap(
        lambda reach: st.sampled_from(
            [f"{reach}{sign}{flag}" for sign in "+-" for flag in ("app", "group", "sentinel", "prefix")]
        )
    )
    | st.sampled_from([f"category={c}" for c in CATEGORIES]),
    min_size=1,
    max_size=3,
    unique_by=lambda a: a.lstrip("^v+-").partition("=")[0],
)
rules = st.lists(
    st.builds(
        oracle.Rule,
        st.lists(matchers, min_size=1, max_size=2, unique_by=lambda m: m[0]),
        st.none() | matchers,
        st.none() | matchers,
        actions,
    ),
    max_size=90,
)
stacks = st.lists(st.lists(st.tuples(st.sampled_from(NAMES + "e"), st.booleans()), max_size=12), max_size=4)


def text_of(rule: oracle.Rule) -> str:
    def one(m: tuple[str, str, bool]) -> str:
        return f"{'' if m[2] else '!'}{m[0]}:{m[1]}"

    caller = f"[ {one(rule.caller)} ] | " if rule.caller else ""
    callee = f" | [ {one(rule.callee)} ]" if rule.callee else ""
    return f"{caller}{' '.join(map(one, rule.frame))}{callee} {' '.join(rule.actions)}"


class Columns:
    """A batch of stacks of functions as the kernel takes them."""

    def __init__(
        self, written: tuple[StackRule, ...], told: list[list[tuple[str, bool]]], kind: str | None = None
    ) -> None:
        self.rules = StackRules(written)
        self.passes = RulePass(self.rules)
        names = sorted({name for stack in told for name, _ in stack})
        self.tests = {name: self.rules.tests(Symbol("native", name, None, None, None)) for name in names}
        class_of = np.array([self.passes.class_of(self.tests[name]) for name in names], np.uint32)
        exception = {"type": kind, "value": None, "mechanism": None}
        gates = np.full(len(told), self.passes.gate_of(exception), np.uint32)
        offsets = np.cumsum([0, *map(len, told)], dtype=np.int64)
        symbols = np.array([names.index(name) for stack in told for name, _ in stack], np.uint32)
        self.states = np.array([(YES if app else NO) << APP_SHIFT for s in told for _, app in s], np.uint16)
        self.marks = run_rules(self.passes.program(), offsets, symbols, class_of, gates, self.states)

    def told(self, state: int) -> tuple[Any, ...]:
        group = {YES: 1, NO: -1}.get(state >> GROUP_SHIFT & 3, 0)
        app = state >> APP_SHIFT & 3 == YES
        return app, self.passes.category(state), group, bool(state & SENTINEL), bool(state & PREFIX)


@settings(max_examples=150, deadline=None)
@given(rules, stacks)
def test_rules_equal_the_oracle(written: list[oracle.Rule], told: list[list[tuple[str, bool]]]) -> None:
    columns = Columns(parse_rules("\n".join(map(text_of, written))).stack, told)
    expected = []
    for stack in told:
        frames = [oracle.Frame(frozenset({name}), app) for name, app in stack]
        oracle.run(written, frames)
        expected += [(f.app, f.category, f.group, f.sentinel, f.prefix) for f in frames]
    assert [columns.told(state) for state in columns.states.tolist()] == expected
    for mark, (app, _, group, *_) in zip(columns.marks.tolist(), expected, strict=True):
        assert bool(mark & SYSTEM) == (group >= 0)
        assert bool(mark & APP) == (group > 0 or (group == 0 and app))
        assert bool(mark & IN_APP) == app


def test_more_steps_than_a_word_has_bits() -> None:
    written = [
        oracle.Rule([("function", NAMES[i % 4], True)], ("app", "yes", True), None, [f"{'+-'[i % 3 == 0]}app"])
        for i in range(200)
    ]
    told = [[(NAMES[i % 4], i % 5 > 0) for i in range(30)]]
    columns = Columns(parse_rules("\n".join(map(text_of, written))).stack, told)
    assert columns.passes.steps == 200
    frames = [oracle.Frame(frozenset({name}), app) for name, app in told[0]]
    oracle.run(written, frames)
    assert [bool(m & IN_APP) for m in columns.marks.tolist()] == [f.app for f in frames]


def test_rules_that_ask_for_the_exception() -> None:
    written = parse_rules("type:Err* function:a -group\nfunction:b -group").stack
    told = [[("a", True), ("b", True), ("c", True)]]
    assert [m & SYSTEM for m in Columns(written, told, "Error").marks.tolist()] == [0, 0, 1]
    assert [m & SYSTEM for m in Columns(written, told, None).marks.tolist()] == [1, 0, 1]


def test_the_most_and_the_fewest_frames() -> None:
    told = [[("a", True), ("b", False), ("a", True), ("c", True)], [("c", True)]]
    most = Columns(parse_rules("function:a max-frames=2").stack, told)
    assert [m & SYSTEM for m in most.marks.tolist()] == [1, 1, 0, 0, 1]
    assert [m & APP for m in most.marks.tolist()] == [APP, 0, APP, 0, APP]
    fewest = Columns(parse_rules("function:a min-frames=4").stack, told)
    assert [m & SYSTEM for m in fewest.marks.tolist()] == [1, 1, 1, 1, 1]
    assert [m & APP for m in fewest.marks.tolist()] == [0, 0, 0, 0, APP]


def test_few_steps_are_left_of_the_default_rules() -> None:
    rules = StackRules(default_rules().stack)
    assert RulePass(rules).steps <= 32


def test_a_range_of_a_deep_stack_is_linear() -> None:
    """Each of 100,000 frames speaks of all above it: frame by frame that would be five thousand million steps."""
    columns = Columns(parse_rules("function:a ^-group").stack, [[("a", True)] * 100_000])
    assert columns.marks.tolist() == [IN_APP] * 99_999 + [SYSTEM | APP | IN_APP]


@pytest.mark.parametrize("broken", ["symbols", "classes", "gates", "offsets"])
def test_columns_that_contradict_each_other(broken: str) -> None:
    passes = RulePass(StackRules(parse_rules("function:a -app").stack))
    offsets = np.array([0, 3 if broken == "offsets" else 2])
    symbols = np.array([0, 5 if broken == "symbols" else 0], np.uint32)
    classes = np.array([9 if broken == "classes" else 0], np.uint32)
    gates = np.array([7 if broken == "gates" else 0], np.uint32)
    with pytest.raises(ValueError, match="expected"):
        run_rules(passes.program(), offsets, symbols, classes, gates, np.zeros(2, np.uint16))


def test_tables_that_contradict_each_other() -> None:
    program = RulePass(StackRules(parse_rules("[ app:yes ] | function:a -app\nfunction:b +app").stack)).program()
    program.check()
    for name, value in (
        ("masks", program.masks[:, :2]),
        ("masks", program.masks | np.uint64(1 << 60)),
        ("gates", np.zeros((1, 3), np.uint64)),
        ("conditions", program.conditions[:1, :7]),
        ("conditions", program.conditions[:0]),
        ("effects", program.effects[:, :0]),
    ):
        tables = {n: getattr(program, n) for n in ("steps", "masks", "effects", "conditions", "gates")} | {name: value}
        with pytest.raises(ValueError, match="expected"):
            marks.Program(**tables).check()
