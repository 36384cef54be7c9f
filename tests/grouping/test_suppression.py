"""PostHog's suppression rules: every operator, order, sampling, rules that fail, and how long they may take."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon import process
from deadreckon.errors import Malformed
from deadreckon.grouping import filters, hogvm
from deadreckon.grouping.filters import FilterError
from deadreckon.grouping.patterns import PatternError, StepsExhausted
from deadreckon.grouping.suppression import Rule, edited, evaluate, in_sample, load_rules, properties_of
from synth.payloads import posthog_event, sentry_event

if TYPE_CHECKING:
    from pathlib import Path

UUID = "019295b1-519f-71a6-aacf-c97b5db73696"


def leaf(key: str, value: Any = None, operator: str = "exact") -> dict[str, Any]:
    return {"key": key, "type": "event", "value": value, "operator": operator}


def tree(kind: str, *values: Any) -> dict[str, Any]:
    return {"type": kind, "values": list(values)}


@pytest.mark.parametrize(
    ("operator", "value", "yes", "no"),
    [
        ("exact", "a", ["a", ["x", "a"]], ["A", "ab", None, []]),
        ("exact", ["a", "b"], ["a", "b"], ["c", None]),
        ("exact", 5, [5, "5", 5.0], [6, "5.5", None]),
        ("exact", True, [True, "true"], [False, 1, None]),
        ("exact", [], ["anything", None], []),
        ("is_not", "a", ["b", None, [], ["x"]], ["a", ["x", "a"]]),
        ("is_not", ["a", "b"], ["c"], ["a", "b"]),
        ("in", ["a"], ["a"], ["b"]),
        ("not_in", ["a"], ["b"], ["a"]),
        ("icontains", "NULL", ["is null!", ["x", "Null"]], ["none", None]),
        ("icontains", ["x", "y"], ["axb", "Y"], ["z"]),
        ("not_icontains", "null", ["none", None], ["is NULL"]),
        ("starts_with", "ab", ["abc"], ["cab", None]),
        ("ends_with", "bc", ["abc"], ["bcd", None]),
        ("not_starts_with", "ab", ["x", None], ["abc"]),
        ("not_ends_with", "bc", ["x"], ["abc"]),
        ("regex", "^a.c$", ["abc", ["x", "abc"]], ["abcd", None]),
        ("not_regex", "^a", ["b", None], ["ab"]),
        ("gt", 5, [6, "6", 5.5], [5, "5", 4, None]),
        ("gte", "5", [5, 6], [4]),
        ("min", 5, [5], [4]),
        ("lt", 5, [4, "-1"], [5, None]),
        ("lte", 5, [5], [6]),
        ("max", 5, [5], [6]),
        ("gt", "b", ["c"], ["a", None]),
        ("between", [2, 4], [2, 3, 4], [1, 5, None]),
        ("not_between", [2, 4], [1, None], [3]),
        ("is_set", "is_set", ["", 0, "x", []], [None]),
        ("is_not_set", None, [None], ["", "x"]),
        ("is_date_before", "2026-01-02", ["2026-01-01T23:59:59Z", 1], ["2026-01-02", "junk", None]),
        ("is_date_after", "2026-01-02", ["2026-01-03", "2026-01-02T00:00:01Z"], ["2026-01-01"]),
        ("is_date_exact", "2026-01-02", ["2026-01-02", "2026-01-02T12:00:00Z"], ["2026-01-03"]),
        ("semver_eq", "1.2", ["1.2.0", "v1.2"], ["1.2.1", "x"]),
        ("semver_neq", "1.2.0", ["1.2.1"], ["1.2.0"]),
        ("semver_gt", "1.9.0", ["1.10.0"], ["1.9", "1.8.9"]),
        ("semver_gte", "1.9", ["1.9.0"], ["1.8"]),
        ("semver_lt", "1.10", ["1.9"], ["1.10"]),
        ("semver_lte", "1.10", ["1.10"], ["1.11"]),
    ],
)
def test_operators(operator: str, value: Any, yes: list[Any], no: list[Any]) -> None:
    for wanted, several in ((True, yes), (False, no)):
        for held in several:
            properties = {} if held is None else {"k": held}
            assert filters.matches(leaf("k", value, operator), properties) is wanted, (operator, value, held)


def test_every_operator_is_tested() -> None:
    marks = [m for m in test_operators.pytestmark if m.name == "parametrize"]
    assert {case[0] for case in marks[0].args[1]} | {"icontains_multi", "not_icontains_multi"} == set(filters.OPERATORS)


def test_trees() -> None:
    a, b = leaf("a", 1), leaf("b", 1)
    for kind, expected in (("AND", [False, False, False, True]), ("OR", [False, True, True, True])):
        held = [filters.matches(tree(kind, a, b), {"a": x, "b": y}) for x in (0, 1) for y in (0, 1)]
        assert held == expected
    assert filters.matches(tree("OR", tree("AND", a, b), leaf("c", 1)), {"c": 1})
    assert all(filters.matches(empty, {}) for empty in (None, {}, tree("AND"), tree("OR"), tree("AND", tree("OR"))))


@pytest.mark.parametrize(
    "broken",
    [
        7,
        "text",
        [],
        [7],
        tree("XOR", leaf("a")),
        {"type": "AND", "values": "x"},
        tree("AND", 7),
        {"operator": "exact"},
        {"key": 7},
        leaf("a", "x", "resembles"),
        {**leaf("a", "x"), "operator": ["exact"]},
        {**leaf("a"), "type": "person"},
        leaf("a", 7, "between"),
    ],
)
def test_filters_that_are_none(broken: Any) -> None:
    if broken == []:
        assert filters.matches(broken, {})
        return
    with pytest.raises(FilterError):
        filters.matches(broken, {"a": "x"})


def test_nesting_and_breadth_are_bounded() -> None:
    deep: Any = leaf("a")
    for _ in range(100):
        deep = tree("AND", deep)
    with pytest.raises(FilterError):
        filters.matches(deep, {})
    with pytest.raises(FilterError):
        filters.matches(tree("OR", *[leaf("a")] * 2000), {})


def rule(name: str, order: int = 0, **changes: Any) -> Rule:
    return Rule(**{"id": name, "filters": leaf("k", name), "order_key": order, **changes})


def test_the_first_rule_that_matches_decides() -> None:
    rules = [rule("b", 2, filters={}), rule("a", 1, filters=leaf("k", "x"), sampling_rate=0.0)]
    kept = evaluate(rules, {"k": "x"}, UUID)
    assert (kept.rule, kept.suppressed) == ("a", False)
    dropped = evaluate(rules, {"k": "y"}, UUID)
    assert (dropped.rule, dropped.suppressed) == ("b", True)
    none = evaluate([rule("a")], {"k": "y"}, UUID)
    assert (none.rule, none.suppressed, none.disabled, none.skipped) == (None, False, {}, [])


def test_a_rule_that_fails_is_disabled_until_it_is_edited() -> None:
    broken = rule("a", 1, filters=leaf("k", "(", "regex"))
    found = evaluate([broken, rule("x", 2)], {"k": "x"}, UUID)
    assert found.rule == "x"
    assert found.disabled["a"]["props"] == {"k": "x"}
    assert "no end" in found.disabled["a"]["message"]
    disabled = edited(broken, disabled_data=found.disabled["a"])
    again = evaluate([disabled, rule("x", 2)], {"k": "x"}, UUID)
    assert (again.rule, again.disabled) == ("x", {})
    repaired = edited(disabled, filters=leaf("k", "^x", "regex"))
    assert repaired.disabled_data is None
    assert evaluate([repaired], {"k": "x"}, UUID).suppressed


def test_a_rule_that_takes_too_long_is_skipped_for_this_event() -> None:
    text = "".join(chr(0x4E00 + n % 20_000) for n in range(50_000))
    slow = rule("slow", 1, filters=leaf("k", "(?:[^0-9]{0,90}){0,20}!", "regex"))
    found = evaluate([slow, rule("all", 2, filters={})], {"k": text}, UUID)
    assert (found.skipped, found.rule, found.disabled) == (["slow"], "all", {})
    assert evaluate([slow], {"k": "short!"}, UUID).suppressed
    # An event that is slow for three rules is not tried with the others.
    assert len(evaluate([rule(f"s{n}", n, filters=slow.filters) for n in range(9)], {"k": text}, UUID).skipped) == 3


@given(st.uuids(), st.floats(0, 1))
def test_sampling_is_the_share_that_is_suppressed(event: uuid.UUID, rate: float) -> None:
    assert in_sample(str(event), rate) is (rate >= 1 or event.int % 10_000 < int(rate * 10_000))
    assert in_sample(event.hex, rate) is in_sample(str(event), rate)


def test_sampling_shares() -> None:
    ids = [str(uuid.UUID(int=n * 7919)) for n in range(10_000)]
    for rate in (0.0, 0.1, 0.5, 1.0):
        assert sum(in_sample(i, rate) for i in ids) == round(rate * 10_000)


def test_loading() -> None:
    page = {
        "count": 1,
        "results": [
            {
                "id": "497f6eca-6276-4993-bfeb-53cbbbba6f08",
                "filters": None,
                "order_key": -2147483648,
                "disabled_data": None,
                "sampling_rate": 0.1,
                "created_at": "2019-08-24T14:15:22Z",
                "updated_at": "2019-08-24T14:15:22Z",
            }
        ],
    }
    (one,) = load_rules(json.dumps(page))
    assert (one.id, one.order_key, one.sampling_rate) == ("497f6eca-6276-4993-bfeb-53cbbbba6f08", -2147483648, 0.1)
    assert one.created_at == "2019-08-24T14:15:22Z"
    assert load_rules(b'[{"id": "a"}, {}]') == [Rule("a"), Rule("1")]


@pytest.mark.parametrize(
    "data",
    [
        *("{", "7", '"x"', "{}", "[7]", '[{"sampling_rate": 1.5}]', '[{"sampling_rate": -0.1}]'),
        '[{"sampling_rate": "1"}]',
        *('[{"sampling_rate": true}]', '[{"order_key": 2147483648}]', '[{"order_key": "x"}]', "[" * 5000),
    ],
)  # fmt: skip
def test_rules_that_are_none(data: str) -> None:
    with pytest.raises(Malformed):
        load_rules(data)


# -- byte code --------------------------------------------------------------------------------------------------------

EQUALS = ["_H", 1, 32, "x", 32, "k", 32, "properties", 1, 2, 11, 38]


@pytest.mark.parametrize(
    ("program", "properties", "expected"),
    [
        (EQUALS, {"k": "x"}, True),
        (EQUALS, {"k": "y"}, False),
        (EQUALS, {}, False),
        (["_H", 1, 29, 38], {}, True),
        (["_H", 1, 30, 5, 38], {}, True),
        (["_H", 1, 29, 30, 3, 2, 38], {}, False),
        (["_H", 1, 29, 30, 4, 2, 38], {}, True),
        (["_H", 1, 33, 1, 33, 2, 13, 38], {}, True),  # 2 > 1: the left operand is pushed last
        (["_H", 1, 33, 1, 33, 2, 15, 38], {}, False),
        (["_H", 1, 33, 3, 33, 1, 33, 2, 6, 11, 38], {}, True),
        (["_H", 1, 32, "%b_", 32, "abc", 17, 38], {}, True),
        (["_H", 1, 32, "%B_", 32, "abc", 17, 38], {}, False),
        (["_H", 1, 32, "%B_", 32, "abc", 18, 38], {}, True),
        (["_H", 1, 32, "x%", 32, "abc", 20, 38], {}, True),
        (["_H", 1, 32, "^a.c$", 32, "abc", 23, 38], {}, True),
        (["_H", 1, 32, "^A", 32, "abc", 25, 38], {}, True),
        (["_H", 1, 32, "^A", 31, 24, 38], {}, True),
        (["_H", 1, 32, "a", 32, "b", 44, 2, 32, "a", 21, 38], {}, True),
        (["_H", 1, 32, "b.", 32, "abc", 2, "match", 2, 38], {}, True),
        (["_H", 1, 32, "X", 2, "lower", 1, 32, "x", 11, 38], {}, True),
        (["_H", 1, 30, 40, 2, 30, 38, 29, 38], {}, True),
        (["_h", 29, 38], {}, True),
    ],
)
def test_programs(program: list[Any], properties: dict[str, Any], expected: bool) -> None:
    assert hogvm.run(program, {"properties": properties}) is expected


@pytest.mark.parametrize(
    "program",
    [
        *("not_an_array", [], ["_H", 1, 99], ["_H", 1, 38], ["_H", 1, 32], ["_H", 1, 33, 1, 38], ["_H", 1, 11, 38]),
        *(["_H", 1, 29, 3, 99, 38], ["_H", 1, 29, 1, -1, 38], ["_H", 1, 2, "eval", 0, 38], ["_H", 1, 39, -3], None),
        *(["_H", 1, 33, 0, 33, 1, 9, 38], ["_H", 1, 32, "a", 33, 1, 6, 38], ["_H", 1, 29] * 600, ["_H", 1, "x"], {}),
        *(["_H", 1, [1]], [1, 2, 3]),
        ["_H", 1, 32, "(", 32, "a", 23, 38],
    ],
)  # fmt: skip
def test_programs_that_fail(program: Any) -> None:
    with pytest.raises((FilterError, PatternError)):
        hogvm.run(program, {"properties": {}})
    verdict = evaluate([Rule("a", bytecode=program)] if program is not None else [], {}, UUID)
    assert verdict.rule is None
    assert program is None or "a" in verdict.disabled


def test_a_program_that_takes_too_long() -> None:
    with pytest.raises(StepsExhausted):
        hogvm.run(["_H", 1, *[29, 35] * 50_000, 29, 38], {})


@given(st.lists(st.integers(0, 50) | st.sampled_from(["a", None, True, 1.5, "properties"]), max_size=20))
def test_any_program_gives_an_answer(program: list[Any]) -> None:
    try:
        assert hogvm.run(["_H", 1, *program], {"properties": {"a": 1}}) in {True, False}
    except (FilterError, PatternError, StepsExhausted):
        pass


# -- events -----------------------------------------------------------------------------------------------------------


def test_events_of_any_product() -> None:
    event = process(json.dumps(posthog_event(**{"$browser": "Firefox"})).encode())
    properties = properties_of(event)
    assert properties["$exception_types"] == ["KeyError"]
    assert properties["$exception_functions"] == ["inner", "main"]
    assert properties["$exception_sources"] == ["x.py"]
    assert (properties["$exception_type"], properties["$exception_message"]) == ("KeyError", "'k'")
    assert properties["$browser"] == "Firefox"
    other = properties_of(process(json.dumps(sentry_event()).encode()))
    wanted = tree("AND", leaf("$exception_types", "SyntaxError"), leaf("$exception_functions", ["in"], "icontains"))
    assert evaluate([Rule("r", wanted)], other, UUID).suppressed
    assert not evaluate([Rule("r", wanted)], properties, UUID).suppressed


@pytest.mark.corpus
def test_derived_vectors(corpus: Path) -> None:
    told = json.loads((corpus / "grouping/posthog/vectors.json").read_text())
    for case in told["filters"]:
        for properties, expected in case["cases"]:
            assert filters.matches(case["filters"], properties) is expected, case["name"]
    for case in told["suppression_sampling"]:
        assert in_sample(case["uuid"], case["sampling_rate"]) is case["suppressed"]
    for case in told["suppression_bytecode"]:
        if case.get("error"):
            with pytest.raises(FilterError):
                hogvm.run(case["bytecode"], {"properties": {}})
            continue
        for properties, expected in case["cases"]:
            assert hogvm.run(case["bytecode"], {"properties": properties}) is expected
