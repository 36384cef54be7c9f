r"""Fingerprints by rules over functions, objects and source files, in the manner of Backtrace's.

Frames are taken innermost first; what is left of their functions is hashed. A rule says where it holds (``function``,
``object`` and ``source``, regular expressions of which all have to be found; ``language`` and ``system``, names) and
what is done there::

    [[backtrace]]
    function = "^(abort|raise)$"
    ignore = true                       # this frame does not count

    [[backtrace]]
    object = "libc\\.so"
    skip = true                         # nor do the ones right below it that are in the same object

    [[backtrace]]
    function = "^std::vector<.*>::push_back$"
    rename = "vector::push_back"

    [[backtrace]]
    function = "^event_loop$"
    terminate = true                    # this one counts, none below it does

All rules are tried in order, over the name that the ones before left. Backtrace's own rules are not public, so neither
are its values: these tell events apart in the same manner. Regular expressions are RE2's (patterns.py), so that none
takes long. A value is 64 hex digits, the width of Backtrace's, and a client's own (``_mod_fingerprint``) comes first.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deadreckon.grouping.fingerprint import crashed_stack
from deadreckon.grouping.patterns import PatternError, StepsExhausted, compile_pattern
from deadreckon.grouping.rules import RuleError
from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.event import Event, Frame

__all__ = ["NAME", "BacktraceRule", "explain", "rules_of", "values"]

NAME = "backtrace"
MAX_RULES = 5000
MAX_FRAMES = 512
_MAX_TEXT = 4096
_PATTERNS = ("function", "object", "source")
_SCOPES = ("language", "system")
_ACTIONS = ("ignore", "skip", "terminate")


@dataclass(frozen=True, slots=True)
class BacktraceRule:
    """One rule; patterns and scopes that are empty hold everywhere."""

    function: str = ""
    object: str = ""
    source: str = ""
    language: str = ""
    system: str = ""
    rename: str | None = None
    ignore: bool = False
    skip: bool = False
    terminate: bool = False
    line: int = 0


def rules_of(tables: Any, lines: Sequence[int], name: str) -> list[BacktraceRule]:
    """Read ``[[backtrace]]`` tables of TOML, which begin in the given lines. Raises RuleError."""
    if not isinstance(tables, list) or len(tables) > MAX_RULES:
        raise RuleError(name, 1, 1, f"expected at most {MAX_RULES} tables [[backtrace]]")
    found = []
    for number, table in enumerate(tables):
        line = lines[number] if number < len(lines) else 1
        if not isinstance(table, dict):
            raise RuleError(name, line, 1, "expected a table [[backtrace]]")
        for key, value in table.items():
            texts = key in _PATTERNS or key in _SCOPES or key == "rename"
            if not texts and key not in _ACTIONS:
                raise RuleError(name, line, 1, f"unknown key {key!r}")
            if type(value) is not (str if texts else bool):
                raise RuleError(name, line, 1, f"{key}: expected {'a text' if texts else 'true or false'}")
            if key in _PATTERNS:
                try:
                    compile_pattern(value)
                except PatternError as e:
                    raise RuleError(name, line, 1, f"{key}: {e}") from e
        if not any(table.get(key) for key in ("rename", *_ACTIONS)):
            raise RuleError(name, line, 1, "expected rename, ignore, skip or terminate")
        found.append(BacktraceRule(**table, line=line))
    return found


def values(event: Event, rules: Sequence[BacktraceRule]) -> list[str]:
    """Return an event's fingerprint."""
    own = event.grouping[0] if event.grouping else ""
    if event.source.format.startswith("backtrace") and re.fullmatch("[0-9a-f]{64}", own):
        return [own]
    state = hashlib.sha256()
    for component in _components(event, rules):
        if component.contributes:
            data = component.text.encode("utf-8", "replace")
            state.update(struct.pack("<I", len(data)) + data)
    return [state.hexdigest()]


def explain(event: Event, rules: Sequence[BacktraceRule]) -> list[Component]:
    """Return the frames of the crashed stack, with what rules made of them."""
    return list(_components(event, rules))


def _components(event: Event, rules: Sequence[BacktraceRule]) -> list[Component]:
    system = ((event.os.name if event.os else None) or "").lower()
    scoped = [r for r in rules if not r.system or r.system.lower() == system]
    found: list[Component] = []
    skipped: str | None = None
    for frame in list(crashed_stack(event))[:MAX_FRAMES]:
        if skipped is not None and frame.package == skipped:
            found.append(Component(text=_name(frame), contributes=False, why="in the object that is skipped"))
            continue
        skipped = None
        name, why, counts, ended = _name(frame), "no rule says otherwise", True, False
        for rule in scoped:
            if rule.language and rule.language != (frame.lang or event.platform):
                continue
            if not _holds(rule, name, frame.package or "", frame.abs_path or frame.filename or ""):
                continue
            if rule.rename is not None:
                name, why = rule.rename, f"renamed by the rule in line {rule.line}"
            if rule.ignore or rule.skip:
                counts, why = False, f"left out by the rule in line {rule.line}"
                skipped = frame.package if rule.skip else skipped
            if rule.terminate:
                ended, why = True, f"the last one, by the rule in line {rule.line}"
        found.append(Component(text=name, contributes=counts, why=why))
        if ended:
            break
    return found


def _name(frame: Frame) -> str:
    if frame.function:
        return f"{frame.module}.{frame.function}" if frame.module else frame.function
    package = re.split(r"[/\\]", frame.package)[-1] if frame.package else ""
    return f"{package}+{frame.rva or ''}" if package else frame.instruction_addr or "?"


def _holds(rule: BacktraceRule, function: str, module: str, source: str) -> bool:
    told = ((rule.function, function), (rule.object, module), (rule.source, source))
    return all(_found(pattern, text[:_MAX_TEXT]) for pattern, text in told if pattern)


@lru_cache(maxsize=65_536)
def _found(pattern: str, text: str) -> bool:
    try:
        return compile_pattern(pattern).search(text)
    except StepsExhausted:
        return False
