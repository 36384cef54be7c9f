"""What a rule is: matchers that say where it holds, and what it does there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deadreckon.errors import ConfigError

__all__ = [
    "EVENT_KEYS",
    "EXCEPTION_KEYS",
    "FLAGS",
    "FRAME_KEYS",
    "KEYS",
    "MUTABLE_KEYS",
    "VARIABLES",
    "FingerprintRule",
    "FlagAction",
    "Matcher",
    "RuleError",
    "RuleSet",
    "StackRule",
    "VarAction",
]

FRAME_KEYS = ("family", "function", "module", "package", "path")
"""Told by a frame's symbol alone, so they are looked at once for each distinct one."""
MUTABLE_KEYS = ("app", "category")
"""Told by a frame, and changed by rules."""
EXCEPTION_KEYS = ("type", "value", "mechanism")
"""Told by the exception a stack belongs to."""
EVENT_KEYS = ("message", "logger", "level", "sdk", "release")
"""Of fingerprint rules only, as ``tags.NAME``."""

KEYS = {
    **{key: key for key in (*FRAME_KEYS, *MUTABLE_KEYS, *EXCEPTION_KEYS, *EVENT_KEYS)},
    "stack.abs_path": "path",
    "stack.module": "module",
    "stack.function": "function",
    "stack.package": "package",
    "error.type": "type",
    "error.value": "value",
    "error.mechanism": "mechanism",
}
"""Every spelling of a matcher's key, and the one used here."""

FLAGS = ("app", "group", "prefix", "sentinel")
VARIABLES = ("category", "invert-stacktrace", "max-frames", "min-frames")


class RuleError(ConfigError):
    """A rule can't be read: the file, the line and column (both from 1) and what was expected there."""

    def __init__(self, name: str, line: int, column: int, what: str) -> None:
        self.name = name
        self.line = line
        self.column = column
        self.what = what
        super().__init__(f"{name}:{line}:{column}: {what}")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition: a pattern for what ``key`` tells of a frame, its neighbour, the exception or the event."""

    key: str
    pattern: str
    negated: bool = False
    where: Literal["frame", "caller", "callee"] = "frame"

    def __str__(self) -> str:
        quoted = f'"{self.pattern}"' if self.pattern.split() != [self.pattern] else self.pattern
        text = f"{'!' if self.negated else ''}{self.key}:{quoted}"
        return {"frame": text, "caller": f"[ {text} ] |", "callee": f"| [ {text} ]"}[self.where]


@dataclass(frozen=True, slots=True)
class FlagAction:
    """Sets a flag of the frame, of all frames nearer to the crash (``^``), or of all farther from it (``v``)."""

    flag: str
    value: bool
    reach: Literal["", "^", "v"] = ""

    def __str__(self) -> str:
        return f"{self.reach}{'+' if self.value else '-'}{self.flag}"


@dataclass(frozen=True, slots=True)
class VarAction:
    """Sets a frame's ``category``, or one of the stack's variables."""

    name: str
    value: str | int | bool

    def __str__(self) -> str:
        return f"{self.name}={int(self.value) if isinstance(self.value, bool) else self.value}"


@dataclass(frozen=True, slots=True)
class StackRule:
    """Where all matchers hold, all actions are done; ``reason`` is for people, ``line`` where the rule was read."""

    matchers: tuple[Matcher, ...]
    actions: tuple[FlagAction | VarAction, ...]
    reason: str = ""
    line: int = 0

    def __str__(self) -> str:
        return " ".join(str(part) for part in (*self.matchers, *self.actions))


@dataclass(frozen=True, slots=True)
class FingerprintRule:
    """Where all matchers hold, ``values`` take the place of the event's fingerprint, and ``title`` of its title.

    Both may have variables: ``{{ default }}``, ``{{ error.type }}``, ``{{ tags.NAME }}`` and others.
    """

    matchers: tuple[Matcher, ...]
    values: tuple[str, ...]
    title: str | None = None
    reason: str = ""
    line: int = 0

    def __str__(self) -> str:
        title = f' title="{self.title}"' if self.title is not None else ""
        return f"{' '.join(map(str, self.matchers))} -> {', '.join(self.values)}{title}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in the order they are applied."""

    stack: tuple[StackRule, ...] = ()
    fingerprint: tuple[FingerprintRule, ...] = ()
    name: str = ""

    def __add__(self, other: RuleSet) -> RuleSet:
        """Return the rules of both; those of ``other`` come after, so they have the last word."""
        name = ", ".join(n for n in (self.name, other.name) if n)
        return RuleSet((*self.stack, *other.stack), (*self.fingerprint, *other.fingerprint), name)
