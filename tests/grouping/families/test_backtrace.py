"""Fingerprints by rules over functions, objects and source files."""

from __future__ import annotations

from typing import Any

import pytest

from deadreckon.grouping.families import backtrace
from deadreckon.grouping.families.backtrace import BacktraceRule, rules_of
from deadreckon.grouping.rules import RuleError
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Frame, OsInfo, Source

STACK = [
    ("raise", "/lib/libc.so.6"),
    ("abort", "/lib/libc.so.6"),
    ("check", "/app"),
    ("loop", "/app"),
    ("main", "/app"),
]


def event(form: str = "minidump", **told: Any) -> Event:
    frames = [Frame(status="symbolicated", function=f, package=p, abs_path=f"/src/{f}.c") for f, p in STACK]
    exceptions = [ExceptionInfo(type="SIGABRT", frames=frames)]
    return Event(
        schema=SCHEMA, event_id="0" * 32, status="ok", source=Source(format=form), exceptions=exceptions, **told
    )


def counted(*rules: dict[str, Any], told: Event | None = None) -> list[str]:
    components = backtrace.explain(told or event(), rules_of(list(rules), [], "r"))
    assert all(c.why for c in components)
    return [c.text for c in components if c.contributes]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"function": "^(abort|raise)$", "ignore": True}, ["check", "loop", "main"]),
        ({"object": r"libc\.so", "skip": True}, ["check", "loop", "main"]),
        ({"function": "raise", "skip": True}, ["check", "loop", "main"]),
        ({"function": "check", "skip": True}, ["raise", "abort"]),
        ({"function": "^loop$", "terminate": True}, ["raise", "abort", "check", "loop"]),
        ({"function": "^loop$", "terminate": True, "ignore": True}, ["raise", "abort", "check"]),
        ({"source": r"check\.c$", "rename": "verify"}, ["raise", "abort", "verify", "loop", "main"]),
        ({"function": "a", "object": "nothing", "ignore": True}, ["raise", "abort", "check", "loop", "main"]),
        ({"function": ".", "system": "Windows", "ignore": True}, ["raise", "abort", "check", "loop", "main"]),
        ({"function": ".", "language": "java", "ignore": True}, ["raise", "abort", "check", "loop", "main"]),
        ({"function": ".", "system": "linux", "language": "native", "ignore": True}, []),
    ],
)
def test_rules(rule: dict[str, Any], wanted: list[str]) -> None:
    assert counted(rule, told=event(os=OsInfo(name="Linux"), platform="native")) == wanted


def test_rules_see_the_name_that_others_left() -> None:
    rename = {"function": "^check$", "rename": "verify"}
    assert counted(rename, {"function": "^verify$", "ignore": True}) == ["raise", "abort", "loop", "main"]
    assert counted({"function": "^verify$", "ignore": True}, rename) == ["raise", "abort", "verify", "loop", "main"]


def test_values() -> None:
    (plain,) = backtrace.values(event(), [])
    assert len(plain) == 64
    assert backtrace.values(event(), [BacktraceRule(function="^main$", ignore=True)]) != [plain]
    own = "ab" * 32
    assert backtrace.values(event("backtrace-json", grouping=[own]), []) == [own]
    assert backtrace.values(event("backtrace-json", grouping=["no digest"]), []) == [plain]
    assert backtrace.values(event("rollbar", grouping=[own]), []) == [plain]


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"function": "x"}, "expected rename, ignore"),
        ({"function": "(", "ignore": True}, "function: "),
        ({"funktion": "x", "ignore": True}, "unknown key"),
        ({"function": 1, "ignore": True}, "expected a text"),
        ({"function": "x", "ignore": 1}, "true or false"),
        ("x", "expected a table"),
    ],
)
def test_what_is_no_rule(table: Any, what: str) -> None:
    with pytest.raises(RuleError, match="r:9:1") as caught:
        rules_of([table], [9], "r")
    assert what in caught.value.what
    with pytest.raises(RuleError):
        rules_of("x", [], "r")
