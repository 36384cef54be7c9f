"""The rule pass in plain Python: rules from the first to the last, each over all frames, asked of names each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Frame:
    """``names`` are the tests that a frame's names pass."""

    names: frozenset[str]
    app: bool = False
    category: str | None = None
    group: int = 0
    sentinel: bool = False
    prefix: bool = False


@dataclass
class Rule:
    """Matchers are ``(key, value, wanted)``, of the frame, its caller and its callee; actions as in the grammar."""

    frame: Sequence[tuple[str, str, bool]]
    caller: tuple[str, str, bool] | None
    callee: tuple[str, str, bool] | None
    actions: Sequence[str]


def run(rules: Sequence[Rule], frames: Sequence[Frame]) -> None:
    """Apply rules to a stack, innermost frame first: all that changes frames, then all that says what counts."""
    for second in (False, True):
        for rule in rules:
            actions = [a for a in rule.actions if ("app" in a or "category" in a) != second]
            if not actions:
                continue
            hits = [i for i in range(len(frames)) if _hit(rule, frames, i)]
            for i in reversed(hits):
                for action in actions:
                    reach = range(i, i + 1)
                    if action[0] == "^":
                        reach = range(i)
                    elif action[0] == "v":
                        reach = range(i + 1, len(frames))
                    for j in reach:
                        _act(frames[j], action.lstrip("^v"))


def _hit(rule: Rule, frames: Sequence[Frame], i: int) -> bool:
    if not all(_matches(m, frames[i]) for m in rule.frame):
        return False
    if rule.caller and (i + 1 >= len(frames) or not _matches(rule.caller, frames[i + 1])):
        return False
    return not (rule.callee and (i == 0 or not _matches(rule.callee, frames[i - 1])))


def _matches(matcher: tuple[str, str, bool], frame: Frame) -> bool:
    key, value, wanted = matcher
    if key == "app":
        return (frame.app == (value == "yes")) == wanted
    if key == "category":
        return (frame.category == value) == wanted
    return (value in frame.names) == wanted


def _act(frame: Frame, action: str) -> None:
    if action.startswith("category="):
        frame.category = action.removeprefix("category=")
        return
    on = action[0] == "+"
    match action[1:]:
        case "app":
            frame.app = on
        case "group":
            frame.group = 1 if on else -1
        case "sentinel":
            frame.sentinel = on
        case "prefix":
            frame.prefix = on
