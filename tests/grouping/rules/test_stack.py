"""Stack-trace rules as masks of bits do what they do one frame at a time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.grouping.rules import (
    FlagAction,
    Matcher,
    StackRule,
    StackRules,
    Symbol,
    VarAction,
    family_of,
    parse_rules,
)
from deadreckon.grouping.rules.stack import Step, frames_of
from oracle import stack_rules as oracle

NAMES = ["foo", "bar", "foobar", "std::x", "abort", None]
PATTERNS = ["*", "foo", "foo*", "*bar", "std::*", "*o*b*", "<unknown>", "nothing"]
CATEGORIES = ["system", "ui", "sys*"]

matchers = st.one_of(
    st.tuples(st.sampled_from(["function", "module"]), st.sampled_from(PATTERNS)),
    st.tuples(st.just("category"), st.sampled_from(CATEGORIES)),
    st.tuples(st.just("app"), st.sampled_from(["yes", "no"])),
    st.tuples(st.just("family"), st.sampled_from(["native", "native,other"])),
)
exceptions = st.tuples(st.sampled_from(["type", "mechanism"]), st.sampled_from(["Err*", "<unknown>", "ANR"]))
reaches = st.sampled_from(["", "^", "v"])
actions = st.one_of(
    st.tuples(st.sampled_from(["app", "group", "prefix", "sentinel"]), st.booleans(), reaches),
    st.tuples(st.just("category"), st.sampled_from(["system", "ui", "sys2"]), st.just("")),
    st.tuples(st.sampled_from(["max-frames", "min-frames"]), st.integers(1, 4), st.just("")),
    st.tuples(st.just("invert-stacktrace"), st.booleans(), st.just("")),
)


def placed(where: str) -> Any:
    return st.tuples(matchers, st.booleans()).map(lambda m: (*m[0], m[1], where))


rules = st.lists(
    st.tuples(
        st.tuples(
            st.lists(placed("caller"), max_size=1),
            st.lists(
                st.one_of(placed("frame"), exceptions.map(lambda m: (*m, False, "frame"))), min_size=1, max_size=2
            ),
            st.lists(placed("callee"), max_size=1),
        ).map(lambda parts: [m for part in parts for m in part]),
        st.lists(actions, min_size=1, max_size=3),
    ),
    max_size=8,
)
frames = st.lists(
    st.fixed_dictionaries(
        {
            "family": st.sampled_from(["native", "other"]),
            "function": st.sampled_from(NAMES),
            "module": st.sampled_from(NAMES),
            "app": st.booleans(),
        }
    ),
    max_size=7,
)


def action_of(name: str, value: Any, reach: Any) -> FlagAction | VarAction:
    flags = {"app", "group", "prefix", "sentinel"}
    return FlagAction(name, value, reach) if name in flags else VarAction(name, value)


def bits(values: list[bool]) -> int:
    return sum(1 << i for i, value in enumerate(values) if value)


@settings(max_examples=250, deadline=None)
@given(rules, frames, st.sampled_from([{}, {"type": "Error"}, {"mechanism": "ANR"}]))
def test_masks_do_what_single_frames_do(told: Any, stack: list[dict[str, Any]], exception: dict[str, str]) -> None:
    ours = StackRules(
        [StackRule(tuple(Matcher(*m) for m in ms), tuple(action_of(*a) for a in actions)) for ms, actions in told]
    )
    theirs = [{**f, "package": None, "path": None, "category": None} for f in stack]
    variables = oracle.apply(told, theirs, exception)
    tests = [ours.tests(Symbol(f["family"], f["function"], f["module"], None, None)) for f in stack]
    steps: list[Step] = []
    state = ours.apply(tests, bits([f["app"] for f in stack]), exception, steps=steps)
    assert state.app == bits([f["app"] for f in theirs])
    assert [state.category(i) for i in range(len(stack))] == [f["category"] for f in theirs]
    assert state.on == bits([f["group"] is True for f in theirs])
    assert state.off == bits([f["group"] is False for f in theirs])
    assert state.prefix == bits([f["prefix"] for f in theirs])
    assert state.sentinel == bits([f["sentinel"] for f in theirs])
    assert [state.max_frames, state.min_frames, state.invert] == list(variables.values())
    full = (1 << len(stack)) - 1
    assert all(0 < step.frames <= full for step in steps)
    again = ours.apply(tests, bits([f["app"] for f in stack]), exception)
    assert (again.app, again.on, again.off, again.categories) == (state.app, state.on, state.off, state.categories)


def test_paths_and_packages_match_without_case_and_from_the_root() -> None:
    found = parse_rules("path:**/node_modules/** -app\npackage:/usr/lib/** -app\nfamily:native package:C:/Win* +app")
    engine = StackRules(found.stack)

    def passed(symbol: Symbol) -> int:
        return len(engine.tests(symbol))

    assert passed(Symbol("javascript", None, None, None, "node_modules/A/b.js")) == 1
    assert passed(Symbol("other", None, None, "/USR/lib/x/libc.so", None)) == 1
    assert passed(Symbol("native", None, None, "c:\\windows.dll", None)) == 1
    assert passed(Symbol("native", None, None, "c:\\windows\\a.dll", None)) == 0  # One star stays in its directory.


def test_without_modify_only_what_counts_is_told() -> None:
    found = StackRules(parse_rules("function:a category=x -app\ncategory:x -group\nfunction:a -group").stack)
    tests = [found.tests(Symbol("other", "a", None, None, None))]
    assert found.apply(tests, 1).app == 0
    kept = found.apply(tests, 1, modify=False)
    assert (kept.app, kept.categories, kept.off) == (1, {}, 1)


def test_families_of_platforms() -> None:
    assert [family_of(p) for p in ("cocoa", "node", "elixir", None)] == ["native", "javascript", "other", "other"]


def test_frames_of_a_mask() -> None:
    assert list(frames_of(0b10110)) == [1, 2, 4]


def test_what_is_kept_of_symbols_is_bounded(monkeypatch: Any) -> None:
    from deadreckon.grouping.rules import stack

    monkeypatch.setattr(stack, "MAX_SYMBOLS", 8)
    monkeypatch.setattr(stack, "MAX_ACTIVE", 2)
    found = StackRules(parse_rules("function:f1* -app\nfunction:f2* +app\nmodule:m3 -app").stack)
    for i in range(100):
        symbol = Symbol("other", f"f{i % 50}", f"m{i}", None, None)
        state = found.apply([found.tests(symbol)], 1)
        assert state.app == (0 if f"f{i % 50}".startswith("f1") or i == 3 else 1)
    assert len(found._symbols) <= 8
    assert len(found._active) <= 2
