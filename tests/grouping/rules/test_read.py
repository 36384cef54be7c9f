"""Rules are read from both grammars and from TOML, and what is wrong with them is told with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import ConfigError, LimitExceeded, SourceUnavailable
from deadreckon.grouping.rules import (
    FingerprintRule,
    FlagAction,
    Matcher,
    RuleError,
    RuleSet,
    StackRule,
    VarAction,
    load_rules,
    parse_rules,
    parse_toml,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_stack_rules() -> None:
    found = parse_rules(
        "# a comment\n\n"
        'family:native  function:"std::*" package:/usr/lib/** ^-group -app  # why\r\n'
        "[ category:throw ] | !stack.module:x.* | [ function:f ] category=internals v+app max-frames=3\n"
        "error.mechanism:ANR invert-stacktrace=1 min-frames = 2 +sentinel +prefix"
    )
    assert found.fingerprint == ()
    first, second, third = found.stack
    assert first == StackRule(
        (Matcher("family", "native"), Matcher("function", "std::*"), Matcher("package", "/usr/lib/**")),
        (FlagAction("group", False, "^"), FlagAction("app", False)),
        line=3,
    )
    assert second.matchers == (
        Matcher("category", "throw", where="caller"),
        Matcher("module", "x.*", negated=True),
        Matcher("function", "f", where="callee"),
    )
    assert second.actions == (
        VarAction("category", "internals"),
        FlagAction("app", True, "v"),
        VarAction("max-frames", 3),
    )
    assert third.actions[:2] == (VarAction("invert-stacktrace", True), VarAction("min-frames", 2))
    assert [r.line for r in found.stack] == [3, 4, 5]


def test_rules_say_what_they_are() -> None:
    text = (
        '[ category:throw ] | !module:x.* function:"a b" | [ function:f ] category=internals v+app invert-stacktrace=1'
    )
    (rule,) = parse_rules(text).stack
    assert str(rule) == text
    (rule2,) = parse_rules('type:A -> a, {{ default }} title="t"').fingerprint
    assert str(rule2) == 'type:A -> a, {{ default }} title="t"'


def test_fingerprint_rules() -> None:
    found = parse_rules(
        'error.type:"Data*" !tags.region:eu "tags.a:b":c -> db, {{ type }} {{default}} "x, y" title="T ({{ level }})"\n'
        "message:x stack.abs_path:**/a.js release:1.* level:error app:no -> {{ stack.abs_path }}"
    )
    first, second = found.fingerprint
    assert first.matchers == (
        Matcher("type", "Data*"),
        Matcher("tags.region", "eu", negated=True),
        Matcher("tags.a:b", "c"),
    )
    assert first.values == ("db", "{{ type }}", "{{ default }}", "x, y")
    assert first.title == "T ({{ level }})"
    assert second.values == ("{{ stack.abs_path }}",)
    assert [m.key for m in second.matchers] == ["message", "path", "release", "level", "app"]


def test_rules_on_one_line_and_both_kinds_in_one_text() -> None:
    found = parse_rules("function:a -app function:b +app\ntype:x -> y")
    assert [str(r) for r in found.stack] == ["function:a -app", "function:b +app"]
    assert len(found.fingerprint) == 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\\b", r"a\b"),
        (r"\"", '"'),
        (r"\x41", "A"),
        (r"é", "é"),
        (r"\[x", r"\[x"),
        (r"\n", "\n"),
        (r"\ud800", r"\ud800"),
    ],
)
def test_escapes(written: str, meant: str) -> None:
    assert parse_rules(f'function:"{written}" -app').stack[0].matchers[0].pattern == meant


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("a:b +app", 1, 1, "unknown matcher 'a'"),
        ("\nfuncton:b +app", 2, 1, "did you mean function"),
        ("function:foo", 1, 13, "expected an action"),
        ("function:foo +apx", 1, 14, "expected an action"),
        ("function: +app", 1, 10, "expected a pattern"),
        ("+app", 1, 1, "expected a matcher"),
        ("[ function:x +app", 1, 14, "expected ']'"),
        ("[ function:x ] +app", 1, 16, "expected '|'"),
        ("function:x | function:y +app", 1, 14, "expected '['"),
        ("  app:maybe +app", 1, 3, "expected app:yes or app:no"),
        ("function:x max-frames=z", 1, 12, "max-frames=NUMBER"),
        ("function:x invert-stacktrace=z", 1, 12, "invert-stacktrace=1"),
        ("type:x ->", 1, 10, "expected at least one value"),
        ('type:x -> a color="red"', 1, 13, "unknown attribute 'color'"),
        ("message:x +app", 1, 1, "a stack-trace rule has no matcher message:x"),
        ("category:x -> y", 1, 14, "a fingerprint rule has no matcher category:x"),
    ],
)
def test_errors_name_their_place(text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rules(text, "my.rules")
    assert what in caught.value.what
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"my.rules:{line}:{column}: ")
    assert isinstance(caught.value, ConfigError)


TOML = """
# rules of ours
[[stack]]
match = {family = "native", function = ["std::*", "*x"]}
unless = {function = "std::y"}
caller = {category = "throw"}
do = ["^-group", "-app", "category=std"]
reason = "the language's own code"

  [[fingerprint]]
match = {"error.type" = "A", app = false}
values = ["a", "{{default}}"]
title = "A!"

[[backtrace]]
function = "x"
ignore = true
"""


def test_toml() -> None:
    found = parse_toml(TOML)
    assert found.stack == (
        StackRule(
            (
                Matcher("family", "native"),
                Matcher("function", "std::*"),
                Matcher("function", "*x"),
                Matcher("function", "std::y", negated=True),
                Matcher("category", "throw", where="caller"),
            ),
            (FlagAction("group", False, "^"), FlagAction("app", False), VarAction("category", "std")),
            "the language's own code",
            3,
        ),
    )
    assert found.fingerprint == (
        FingerprintRule((Matcher("type", "A"), Matcher("app", "no")), ("a", "{{ default }}"), "A!", "", 10),
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[[stack]]\nmatch = {a = 'b'}\ndo = ['+app']", 1, "unknown matcher 'a'"),
        ("\n[[stack]]\nmatch = {function = 'b'}\n", 2, "with at least one action"),
        ("[[stack]]\nmatch = {function = 'b'}\ndo = ['x']", 1, "unknown action 'x'"),
        ("[[stack]]\ndo = ['+app']", 1, "at least one matcher"),
        ("[[stack]]\nmatch = {function = 1}\ndo = ['+app']", 1, "a text or a list of texts"),
        ("[[stack]]\nmatch = 1\ndo = ['+app']", 1, "expected match = {"),
        ("[[stack]]\nmach = {function = 'b'}", 1, "did you mean match"),
        ("[[stack]]\nmatch = {function = 'b'}\ndo = '+app'", 1, "do: expected a list"),
        ("[[stack]]\nmatch = {function = 'b'}\ndo = ['+app']\nreason = 1", 1, "reason: expected a text"),
        ("[[fingerprint]]\nmatch = {type = 'b'}\n", 1, "at least one value"),
        ("stack = 1", 1, "expected at most"),
        ("stack = [1]", 1, "expected a table"),
        ("[rules]\n", 1, "unknown table 'rules'"),
        ("[[stack]]\nmatch = {", 2, "Invalid"),
    ],
)
def test_errors_in_toml_name_the_line_of_their_table(text: str, line: int, what: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_toml(text)
    assert what in caught.value.what
    assert caught.value.line == line


def test_files_come_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("function:a -app")
    (tmp_path / "b.toml").write_text(TOML)
    found = load_rules(tmp_path / "a.txt", tmp_path / "b.toml")
    assert len(found.stack) == 2
    assert found.stack[0].line == 1
    assert found.name == f"{tmp_path / 'a.txt'}, {tmp_path / 'b.toml'}"
    assert load_rules() == RuleSet()


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deadreckon.grouping.rules import read

    with pytest.raises(SourceUnavailable, match=r"nothing\.txt"):
        load_rules(tmp_path / "nothing.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceUnavailable):
        load_rules(tmp_path / "binary")
    (tmp_path / "long").write_text("#" * 100)
    monkeypatch.setattr(read, "MAX_BYTES", 50)
    with pytest.raises(LimitExceeded):
        load_rules(tmp_path / "long")
    monkeypatch.setattr(read, "MAX_RULES", 1)
    with pytest.raises(LimitExceeded):
        parse_rules("function:a -app\nfunction:b -app")


@given(st.text('abfunction:*"[]|!+-appgroup =^v>\\{}#,\n ', max_size=60))
def test_any_text_is_rules_or_a_rule_error(text: str) -> None:
    try:
        found = parse_rules(text)
    except RuleError as e:
        place = (e.line, e.column)
    else:
        place = (1, 1)
        assert all(r.matchers and r.actions for r in found.stack)
    assert (1, 1) <= place <= (text.count("\n") + 1, len(text) + 1)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "count"), [("newstyle@2023-01-11", 254), ("mobile@2021-04-02", 254), ("common@2019-03-23", 38)]
)
def test_sentrys_own_rules(corpus: Path, name: str, count: int) -> None:
    path = corpus / f"grouping/sentry-2023-02/enhancement-configs/{name}.txt"
    found = load_rules(path)
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(found.stack) == len(lines) == count
    assert parse_rules("\n".join(map(str, found.stack))).stack[0].matchers == found.stack[0].matchers
