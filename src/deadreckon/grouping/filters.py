"""PostHog's property filters: a tree of AND and OR over conditions on an event's properties.

Specification: PostHog's "Error tracking API" (``filters`` of rules) and its property operators, as its own queries take
them: a condition with several values holds where one of them does, a negative one where none does; a property that is
not there fulfils negative conditions only; of a property that is a list, one element is enough. Regular expressions are
RE2's (patterns.py).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deadreckon.grouping.patterns import MAX_STEPS, compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OPERATORS", "FilterError", "Steps", "matches", "spelled"]

_MAX_DEPTH = 32
_MAX_CONDITIONS = 1000
_MAX_TEXT = 1 << 20


class FilterError(ValueError):
    """A filter is not of the form that filters have."""


@dataclass(slots=True)
class Steps:
    """What evaluating an event's rules may still cost, in steps of regular expressions."""

    left: int = MAX_STEPS


def matches(filters: Any, properties: Mapping[str, Any], steps: Steps | None = None) -> bool:
    """Tell whether an event's properties fulfil a filter; an empty one is fulfilled by all.

    Raises FilterError, PatternError, and StepsExhausted where that takes too long.
    """
    budget = [_MAX_CONDITIONS]
    return _group(filters or {"type": "AND", "values": []}, properties, steps or Steps(), budget, 0)


def _group(node: Any, properties: Mapping[str, Any], steps: Steps, budget: list[int], depth: int) -> bool:
    budget[0] -= 1
    if type(node) is not dict or depth > _MAX_DEPTH or budget[0] < 0:
        raise FilterError("a filter is an object, with groups in groups up to a depth")
    if "values" not in node:
        return _condition(node, properties, steps)
    kind, inner = node.get("type", "AND"), node["values"]
    if kind not in {"AND", "OR"} or type(inner) is not list:
        raise FilterError(f"a group is of type AND or OR and has a list of values, not {kind!r}")
    if not inner:
        return True
    # All are looked at: a rule that can't be evaluated must not depend on the event for being found out.
    found = [_group(item, properties, steps, budget, depth + 1) for item in inner]
    return all(found) if kind == "AND" else any(found)


def _condition(node: dict[str, Any], properties: Mapping[str, Any], steps: Steps) -> bool:
    key, operator = node.get("key"), node.get("operator") or "exact"
    if type(key) is not str or type(operator) is not str or operator not in OPERATORS:
        raise FilterError(f"a condition has a key and a known operator, not {operator!r}")
    if node.get("type", "event") not in {"event", "feature", "log_entry"}:
        raise FilterError(f"properties of type {str(node['type'])[:32]!r} are not the event's")
    value = properties.get(key)
    positive, test = OPERATORS[operator]
    if operator in {"is_set", "is_not_set"}:
        return (value is not None) is positive
    wanted = node.get("value")
    several = wanted if type(wanted) is list else [wanted]
    if not several:
        return True
    if operator in {"between", "not_between"}:
        several = [wanted]
    held = value if type(value) is list else [value]
    found = any(test(item, want, steps) for item in held[:1000] if item is not None for want in several[:1000])
    return found is positive


def spelled(value: Any) -> str:
    """Return a property's value as text, as PostHog's queries compare it."""
    if type(value) is str:
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is float and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return "" if value is None else str(value)[:_MAX_TEXT]


def _number(value: Any) -> float | None:
    if type(value) is bool:
        return None
    try:
        found = float(value) if type(value) in {int, float, str} else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _order(value: Any, wanted: Any) -> int | None:
    """Compare as numbers where both are, else as texts: below 0 where the first is less; None where one is nothing."""
    if value is None or wanted is None:
        return None
    one, other = _number(value), _number(wanted)
    if one is None or other is None:
        first, second = spelled(value), spelled(wanted)
        return (first > second) - (first < second)
    return (one > other) - (one < other)


def _ordered(*signs: int) -> _Test:
    def test(value: Any, wanted: Any, _: Steps) -> bool:
        return _order(value, wanted) in signs

    return test


def _date(value: Any) -> float | None:
    number = _number(value)
    if number is not None:
        return number / 1000 if number > 1e11 else number
    try:
        told = datetime.fromisoformat(spelled(value).strip()[:64])
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _dated(sign: int) -> _Test:
    def test(value: Any, wanted: Any, _: Steps) -> bool:
        one, other = _date(value), _date(wanted)
        if one is None or other is None:
            return False
        if not sign and len(spelled(wanted)) <= 10:  # A day is meant, not its first second.
            return other <= one < other + 86_400
        return (one > other) - (one < other) == sign

    return test


def _exact(value: Any, wanted: Any, _: Steps) -> bool:
    return spelled(value) == spelled(wanted)


def _contains(value: Any, wanted: Any, _: Steps) -> bool:
    return spelled(wanted).lower() in spelled(value)[:_MAX_TEXT].lower()


def _starts(value: Any, wanted: Any, _: Steps) -> bool:
    return spelled(value).startswith(spelled(wanted))


def _ends(value: Any, wanted: Any, _: Steps) -> bool:
    return spelled(value).endswith(spelled(wanted))


def _regex(value: Any, wanted: Any, steps: Steps) -> bool:
    found, steps.left = compile_pattern(spelled(wanted)).run(spelled(value)[:_MAX_TEXT], steps.left)
    return found


def _between(value: Any, wanted: Any, steps: Steps) -> bool:
    if type(wanted) is not list or len(wanted) != 2:
        raise FilterError("between takes two values")
    return _ordered(0, 1)(value, wanted[0], steps) and _ordered(-1, 0)(value, wanted[1], steps)


_VERSION = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")


def _version(*signs: int) -> _Test:
    def test(value: Any, wanted: Any, _: Steps) -> bool:
        told = [_VERSION.match(spelled(v).strip()) for v in (value, wanted)]
        if told[0] is None or told[1] is None:
            return False
        one, other = ([int(part or 0) for part in match.groups()] for match in told if match)
        return (one > other) - (one < other) in signs

    return test


if TYPE_CHECKING:
    _Test = Callable[[Any, Any, Steps], bool]

OPERATORS: dict[str, tuple[bool, _Test]] = {
    "exact": (True, _exact),
    "is_not": (False, _exact),
    "in": (True, _exact),
    "not_in": (False, _exact),
    "icontains": (True, _contains),
    "not_icontains": (False, _contains),
    "icontains_multi": (True, _contains),
    "not_icontains_multi": (False, _contains),
    "starts_with": (True, _starts),
    "not_starts_with": (False, _starts),
    "ends_with": (True, _ends),
    "not_ends_with": (False, _ends),
    "regex": (True, _regex),
    "not_regex": (False, _regex),
    "gt": (True, _ordered(1)),
    "gte": (True, _ordered(0, 1)),
    "min": (True, _ordered(0, 1)),
    "lt": (True, _ordered(-1)),
    "lte": (True, _ordered(-1, 0)),
    "max": (True, _ordered(-1, 0)),
    "between": (True, _between),
    "not_between": (False, _between),
    "is_set": (True, _exact),
    "is_not_set": (False, _exact),
    "is_date_exact": (True, _dated(0)),
    "is_date_before": (True, _dated(-1)),
    "is_date_after": (True, _dated(1)),
    "semver_eq": (True, _version(0)),
    "semver_neq": (False, _version(0)),
    "semver_gt": (True, _version(1)),
    "semver_gte": (True, _version(0, 1)),
    "semver_lt": (True, _version(-1)),
    "semver_lte": (True, _version(-1, 0)),
}
"""Operators by name: whether the condition wants the test to hold, and the test of one value."""
