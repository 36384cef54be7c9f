"""PostHog's suppression rules: which events of an exception are not worth keeping.

Specification: PostHog's "Error tracking API", ``suppression_rules``. Rules are looked at in the order of their
``order_key``; the first whose filters an event fulfils decides. ``sampling_rate`` is the share of such events that is
suppressed, told by the event's id, so that the same event always fares the same. A rule that can't be evaluated is
disabled: ``disabled_data`` says why, until the rule is edited.

Nothing here keeps state: what a verdict says of rules is for the caller to store.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from deadreckon.errors import Malformed
from deadreckon.grouping import filters, hogvm
from deadreckon.grouping.filters import FilterError, Steps
from deadreckon.grouping.patterns import PatternError, StepsExhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deadreckon.model.event import Event

__all__ = ["Rule", "Verdict", "edited", "evaluate", "in_sample", "load_rules", "properties_of"]

_MAX_RULES = 10_000
_MAX_VALUES = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """A suppression rule, as the API shows it; ``bytecode`` stands for ``filters`` where there are none."""

    id: str
    filters: Any = None
    order_key: int = 0
    disabled_data: Any = None
    sampling_rate: float = 1.0
    created_at: str | None = None
    updated_at: str | None = None
    bytecode: Any = None


@dataclass(slots=True)
class Verdict:
    """What rules say of an event: ``rule`` is the one that matched, ``disabled`` those that failed, with why.

    ``skipped`` are rules that took too long for this event; the next one may be luckier.
    """

    suppressed: bool = False
    rule: str | None = None
    disabled: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def load_rules(data: bytes | str | Sequence[Any]) -> list[Rule]:
    """Read rules: a JSON list of them, or a page of the API (``results``). Raises Malformed.

    A rate outside 0 to 1 and an ``order_key`` of more than 32 bits are what the API refuses.
    """
    told: Any = data
    if isinstance(data, bytes | str):
        try:
            told = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Malformed(f"suppression rules: {e}") from e
    listed = told.get("results") if type(told) is dict else told
    if not isinstance(listed, list) or len(listed) > _MAX_RULES:
        raise Malformed("suppression rules", expected=f"a list of at most {_MAX_RULES}", got=type(listed).__name__)
    return [_rule(value, number) for number, value in enumerate(listed)]


def _rule(told: Any, number: int) -> Rule:
    if type(told) is not dict:
        raise Malformed(f"suppression rule {number}", expected="an object", got=type(told).__name__)
    rate = 1.0 if told.get("sampling_rate") is None else told["sampling_rate"]
    if type(rate) not in {int, float} or not 0 <= rate <= 1:
        raise Malformed(f"suppression rule {number}: sampling_rate", expected="0 to 1", got=str(rate)[:32])
    order = told.get("order_key") or 0
    if type(order) is not int or not -(1 << 31) <= order < 1 << 31:
        raise Malformed(f"suppression rule {number}: order_key", expected="32 bits", got=str(order)[:32])
    times = {n: told[n] for n in ("created_at", "updated_at") if type(told.get(n)) is str}
    return Rule(
        str(told.get("id") or number),
        told.get("filters"),
        order,
        told.get("disabled_data"),
        float(rate),
        bytecode=told.get("bytecode"),
        **times,
    )


def edited(rule: Rule, **changes: Any) -> Rule:
    """Return a rule with other values; whatever is edited, it is given another chance."""
    return replace(rule, **{"disabled_data": None, **changes})


def evaluate(rules: Iterable[Rule], properties: Mapping[str, Any], event_id: str) -> Verdict:
    """Say what becomes of an event with these properties; ``event_id`` is a UUID, in any spelling."""
    verdict = Verdict()
    steps = Steps()
    for rule in sorted(rules, key=lambda r: (r.order_key, r.id)):
        if rule.disabled_data is not None:
            continue
        try:
            if rule.bytecode is not None and rule.filters in (None, {}):
                fulfilled = hogvm.run(rule.bytecode, {"properties": properties}, steps)
            else:
                fulfilled = filters.matches(rule.filters, properties, steps)
        except StepsExhausted:
            verdict.skipped.append(rule.id)
            steps = Steps()
            if len(verdict.skipped) >= 3:  # An event that is slow for several rules is slow for all.
                break
            continue
        except (FilterError, PatternError) as e:
            verdict.disabled[rule.id] = {"message": str(e), "props": dict(properties)}
            continue
        if fulfilled:
            verdict.rule = rule.id
            verdict.suppressed = in_sample(event_id, rule.sampling_rate)
            break
    return verdict


def in_sample(event_id: str, rate: float) -> bool:
    """Tell whether an event is in the share that is suppressed. Raises ValueError where its id is no UUID."""
    if rate >= 1:
        return True
    return rate > 0 and UUID(event_id).int % 10_000 < int(rate * 10_000)


def properties_of(event: Event) -> dict[str, Any]:
    """Return an event's properties as PostHog names them, for rules to be evaluated over any product's event."""
    exceptions = [e for e in event.exceptions or () if e.type or e.value]
    frames = [f for stack in (*(e.frames for e in event.exceptions or ()), *_crashed(event)) for f in stack or ()]
    sources = dict.fromkeys(s for f in frames if (s := f.abs_path or f.filename or f.package))
    functions = dict.fromkeys(f.function for f in frames if f.function)
    found: dict[str, Any] = {k: v for k, v in (event.attributes or {}).items() if v is not None}
    found |= {
        "$exception_types": [e.type or "Error" for e in exceptions][:_MAX_VALUES],
        "$exception_values": [e.value or "" for e in exceptions][:_MAX_VALUES],
        "$exception_sources": list(sources)[:_MAX_VALUES],
        "$exception_functions": list(functions)[:_MAX_VALUES],
        "$exception_level": event.level,
        "$exception_handled": next((d["handled"] for e in exceptions if "handled" in (d := e.details or {})), None),
    }
    if exceptions:
        found |= {"$exception_type": exceptions[0].type or "Error", "$exception_message": exceptions[0].value or ""}
    return {k: v for k, v in found.items() if v is not None}


def _crashed(event: Event) -> list[Any]:
    return [t.frames for t in event.threads or () if t.crashed]
