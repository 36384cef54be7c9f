r"""Readers of rules: Sentry's grammars of stack-trace and of fingerprint rules, and TOML.

In text, a line is a rule: matchers, then actions or ``->`` and values; ``#`` begins a line that is a comment::

    family:native function:std::* -app
    [ category:throw ] | category:system category=internals
    error.type:DatabaseError tags.region:eu* -> database, {{ tags.region }} title="Database ({{ level }})"

The same in TOML, where a rule may also say why it is there::

    [[stack]]
    match = {family = "native", function = "std::*"}
    do = ["-app"]
    reason = "the language's own code"

    [[stack]]
    match = {category = "system"}
    caller = {category = "throw"}
    do = ["category=internals"]

    [[fingerprint]]
    match = {"error.type" = "DatabaseError", "tags.region" = "eu*"}
    values = ["database", "{{ tags.region }}"]
    title = "Database ({{ level }})"

``unless`` takes matchers that must not hold. Specification: Sentry's documentation, "Stack Trace Rules" and
"Fingerprint Rules"; the grammars are sentry's ``enhancements_grammar`` and ``fingerprinting_grammar`` of 2023.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from deadreckon.errors import LimitExceeded, SourceUnavailable
from deadreckon.grouping.rules.globs import MAX_PATTERN
from deadreckon.grouping.rules.model import (
    EVENT_KEYS,
    FLAGS,
    KEYS,
    VARIABLES,
    FingerprintRule,
    FlagAction,
    Matcher,
    RuleError,
    RuleSet,
    StackRule,
    VarAction,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

__all__ = ["DEFAULT", "MAX_RULES", "is_default", "load_rules", "parse_rules", "parse_toml", "truth"]

MAX_BYTES = 4 << 20
MAX_RULES = 20_000
_MAX_LINE = 65_536

DEFAULT = "{{ default }}"
"""The value that stands for what the event would be grouped by without the rule."""

_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r'(!?)(?:([a-zA-Z0-9_.-]+)|"([a-zA-Z0-9_.:-]+)"):')
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"')
_WORD = re.compile(r"\S+")
_FLAG = re.compile(rf"([\^v]?)([+-])({'|'.join(FLAGS)})")
_VARIABLE = re.compile(rf"({'|'.join(VARIABLES)})[ \t]*=[ \t]*([a-zA-Z0-9_.-]+)")
_ATTRIBUTE = re.compile(r'([a-zA-Z0-9_.-]+)=("[^"\\]*(?:\\.[^"\\]*)*")')
_VALUE = re.compile(r"\{\{\s*\S+\s*\}\}|[^\s{,]+")
_DEFAULT = re.compile(r"\{\{\s*default\s*\}\}")
_ESCAPE = re.compile(r"\\(?:([\\'\"abfnrtv])|([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_PLAIN = dict(zip("\\'\"abfnrtv", "\\'\"\a\b\f\n\r\t\v", strict=True))


def load_rules(*paths: str | os.PathLike[str]) -> RuleSet:
    """Read files of rules, the later ones after the earlier: ``.toml``, or text in either of Sentry's grammars.

    Raises RuleError, SourceUnavailable where a file can't be read, and LimitExceeded.
    """
    rules = RuleSet()
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
            text = data.decode()
        except (OSError, UnicodeDecodeError) as e:
            raise SourceUnavailable(f"rules {path}: {e}") from e
        if len(data) > MAX_BYTES:
            raise LimitExceeded("bytes of a file of rules", MAX_BYTES, what=str(path))
        rules += (parse_toml if str(path).endswith(".toml") else parse_rules)(text, str(path))
    return rules


def parse_rules(text: str, name: str = "rules") -> RuleSet:
    """Read text in Sentry's grammars; stack-trace and fingerprint rules may stand side by side. Raises RuleError."""
    stack: list[StackRule] = []
    fingerprint: list[FingerprintRule] = []
    for number, line in enumerate(re.split(r"\r\n|[\r\n]", text), 1):
        for rule in _Line(line, number, name).rules():
            if len(stack) + len(fingerprint) >= MAX_RULES:
                raise LimitExceeded("rules", MAX_RULES, what=name)
            if isinstance(rule, StackRule):
                stack.append(rule)
            else:
                fingerprint.append(rule)
    return RuleSet(tuple(stack), tuple(fingerprint), name)


def is_default(value: str) -> bool:
    """Tell whether a value of a fingerprint is ``{{ default }}``, in any spelling."""
    return _DEFAULT.fullmatch(value) is not None


def truth(text: str) -> bool | None:
    """Read yes or no as rules spell them; None if it is neither."""
    word = text.lower()
    return True if word in {"1", "yes", "true"} else False if word in {"0", "no", "false"} else None


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        plain, octal, *others = match.groups()
        if plain:
            return _PLAIN[plain]
        code = int(octal, 8) if octal else int(next(h for h in others if h), 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else match[0]

    return _ESCAPE.sub(one, text)


class _Line:
    """One line of text and a position in it."""

    def __init__(self, line: str, number: int, name: str) -> None:
        self.line = line
        self.number = number
        self.name = name
        self.at = 0
        if len(line) > _MAX_LINE:
            raise self.error(f"a line of at most {_MAX_LINE} characters is expected")

    def error(self, what: str, at: int | None = None) -> RuleError:
        return RuleError(self.name, self.number, (self.at if at is None else at) + 1, what)

    def blank(self) -> str:
        """Skip blanks; return the character after them, nothing at the end of the line."""
        match = _BLANK.match(self.line, self.at)
        self.at = match.end() if match else self.at
        return self.line[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.line, self.at)
        if match:
            self.at = match.end()
        return match

    def expect(self, text: str) -> None:
        self.blank()
        if not self.line.startswith(text, self.at):
            raise self.error(f"expected {text!r}")
        self.at += len(text)

    def rules(self) -> Iterator[StackRule | FingerprintRule]:
        """Yield the rules of the line; a line break between two stack-trace rules may be left out."""
        while self.blank() not in {"", "#"}:
            start = self.at
            matchers = tuple(self.matchers())
            self.blank()
            if self.line.startswith("->", self.at):
                self.at += 2
                yield self.fingerprint(matchers)
            else:
                actions = tuple(self.actions())
                if not actions:
                    raise self.error("expected an action (+app, -group, category=...) or ->")
                yield checked(StackRule(matchers, actions, line=self.number), lambda what, s=start: self.error(what, s))

    def matchers(self) -> Iterator[Matcher]:
        if self.blank() == "[":
            self.at += 1
            yield self.matcher("caller")
            self.expect("]")
            self.expect("|")
        yield self.matcher("frame")
        while True:
            c = self.blank()
            if _KEY.match(self.line, self.at):
                yield self.matcher("frame")
            elif c == "|":
                self.at += 1
                self.expect("[")
                yield self.matcher("callee")
                self.expect("]")
                return
            else:
                return

    def matcher(self, where: Literal["frame", "caller", "callee"]) -> Matcher:
        self.blank()
        start = self.at
        key = self.take(_KEY)
        if not key:
            raise self.error("expected a matcher, KEY:PATTERN")
        if quoted := self.take(_QUOTED):
            pattern = _unescape(quoted[1])
        elif word := self.take(_WORD):
            pattern = word[0]
        else:
            raise self.error("expected a pattern")
        return matcher(key[2] or key[3], pattern, bool(key[1]), where, lambda what: self.error(what, start))

    def actions(self) -> Iterator[FlagAction | VarAction]:
        while self.blank():
            if flag := self.take(_FLAG):
                yield FlagAction(flag[3], flag[2] == "+", cast("Literal['', '^', 'v']", flag[1]))
            elif found := self.take(_VARIABLE):
                start = found.start()
                yield variable(found[1], found[2], lambda what, s=start: self.error(what, s))
            elif self.line[self.at] == "#" or _KEY.match(self.line, self.at) or self.line[self.at] == "[":
                return
            else:
                raise self.error(f"expected an action: {', '.join(f'+{f} or -{f}' for f in FLAGS)}, or VARIABLE=VALUE")

    def fingerprint(self, matchers: tuple[Matcher, ...]) -> FingerprintRule:
        values: list[str] = []
        title: str | None = None
        start = self.at
        while self.blank():
            if attribute := self.take(_ATTRIBUTE):
                if attribute[1] != "title":
                    raise self.error(f"unknown attribute {attribute[1]!r}; expected title", attribute.start())
                title = _unescape(attribute[2][1:-1])
            elif quoted := self.take(_QUOTED):
                values.append(_unescape(quoted[1]))
            elif value := self.take(_VALUE):
                values.append(DEFAULT if is_default(value[0]) else value[0])
            else:
                raise self.error('expected a value, {{ VARIABLE }} or title="..."')
            if self.blank() == ",":
                self.at += 1
        rule = FingerprintRule(matchers, tuple(values), title, line=self.number)
        checked(rule, lambda what: self.error(what, start))
        return rule


def matcher(
    key: str,
    pattern: str,
    negated: bool,  # noqa: FBT001
    where: Literal["frame", "caller", "callee"],
    error: Any,
) -> Matcher:
    """Return a matcher whose key and pattern have been looked at; ``error`` makes the error that is raised."""
    name = key if key.startswith("tags.") else KEYS.get(key)
    if name is None:
        near = difflib.get_close_matches(key, KEYS, 1)
        raise error(f"unknown matcher {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
    if len(pattern) > MAX_PATTERN:
        raise error(f"a pattern of at most {MAX_PATTERN} characters is expected")
    if name == "app" and truth(pattern) is None:
        raise error(f"expected app:yes or app:no, not {pattern!r}")
    return Matcher(name, pattern, negated, where)


def variable(name: str, value: str, error: Any) -> VarAction:
    """Return the action that sets a variable, with a value of its type."""
    if name == "category":
        return VarAction(name, value)
    if name == "invert-stacktrace":
        told = truth(value)
        if told is None:
            raise error(f"expected {name}=1 or {name}=0, not {value!r}")
        return VarAction(name, told)
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise error(f"expected {name}=NUMBER, not {value!r}")
    return VarAction(name, int(value))


def checked(rule: Any, error: Any) -> Any:
    """Return a rule all of whose matchers are of its kind."""
    kind = "a stack-trace rule" if isinstance(rule, StackRule) else "a fingerprint rule"
    for m in rule.matchers:
        of_events = m.key in EVENT_KEYS or m.key.startswith("tags.")
        if of_events if isinstance(rule, StackRule) else m.key in {"category", "mechanism"} or m.where != "frame":
            raise error(f"{kind} has no matcher {m}")
    if isinstance(rule, FingerprintRule) and not rule.values:
        raise error("expected at least one value")
    return rule


# -- TOML -------------------------------------------------------------------------------------------------------------

_TABLES = {
    "stack": {"match", "unless", "caller", "callee", "do", "reason"},
    "fingerprint": {"match", "unless", "values", "title", "reason"},
}


def parse_toml(text: str, name: str = "rules.toml") -> RuleSet:
    """Read rules from TOML, see above. Raises RuleError, which for the contents of a table names its line."""
    import tomllib  # noqa: PLC0415

    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        told = re.search(r"\(at line (\d+), column (\d+)\)|$", str(e))
        line, column = (int(told[1]), int(told[2])) if told and told[1] else (text.count("\n") + 1, 1)
        raise RuleError(name, line, column, str(e)) from e
    unknown = sorted(raw.keys() - _TABLES.keys() - {"backtrace"})  # Those are another family's.
    if unknown:
        raise RuleError(name, 1, 1, f"unknown table {unknown[0]!r}; expected [[stack]] and [[fingerprint]]")
    rules: dict[str, list[Any]] = {kind: [] for kind in _TABLES}
    for kind in _TABLES:
        tables = raw.get(kind, [])
        if not isinstance(tables, list) or len(tables) > MAX_RULES:
            raise RuleError(name, 1, 1, f"expected at most {MAX_RULES} tables [[{kind}]]")
        lines = [text.count("\n", 0, m.start(1)) + 1 for m in re.finditer(rf"(?m)^[ \t]*(\[\[[ \t]*{kind}\b)", text)]
        for number, table in enumerate(tables):
            line = lines[number] if number < len(lines) else 1
            rules[kind].append(_table(kind, table, line, name))
    return RuleSet(tuple(rules["stack"]), tuple(rules["fingerprint"]), name)


def _table(kind: str, table: Any, line: int, name: str) -> Any:
    def error(what: str) -> RuleError:
        return RuleError(name, line, 1, what)

    if not isinstance(table, dict):
        raise error(f"expected a table [[{kind}]]")
    for key in table:
        if key not in _TABLES[kind]:
            near = difflib.get_close_matches(key, _TABLES[kind], 1)
            raise error(f"unknown key {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
    matchers = (
        *_matchers(table, "match", "frame", error),
        *_matchers(table, "unless", "frame", error),
        *_matchers(table, "caller", "caller", error),
        *_matchers(table, "callee", "callee", error),
    )
    if not any(m.where == "frame" for m in matchers):
        raise error("expected match or unless, with at least one matcher")
    reason = _text(table, "reason", error) or ""
    if kind == "fingerprint":
        values = [DEFAULT if is_default(v) else v for v in _texts(table, "values", error)]
        title = _text(table, "title", error)
        return checked(FingerprintRule(matchers, tuple(values), title, reason, line), error)
    actions = []
    for text in _texts(table, "do", error):
        if flag := _FLAG.fullmatch(text):
            actions.append(FlagAction(flag[3], flag[2] == "+", cast("Literal['', '^', 'v']", flag[1])))
        elif found := _VARIABLE.fullmatch(text):
            actions.append(cast("Any", variable(found[1], found[2], error)))
        else:
            raise error(f"unknown action {text!r}")
    if not actions:
        raise error('expected do = ["+app", ...], with at least one action')
    return checked(StackRule(matchers, tuple(actions), reason, line), error)


def _matchers(
    table: dict[str, Any], name: str, where: Literal["frame", "caller", "callee"], error: Any
) -> Iterable[Matcher]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise error(f"expected {name} = {{KEY = PATTERN, ...}}")
    for key, patterns in found.items():
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            text = {True: "yes", False: "no"}.get(pattern, "") if isinstance(pattern, bool) else pattern
            if not isinstance(text, str):
                raise error(f"{name}.{key}: expected a text or a list of texts")
            yield matcher(key, text, name == "unless", where, error)


def _text(table: dict[str, Any], name: str, error: Any) -> str | None:
    found = table.get(name)
    if found is not None and not isinstance(found, str):
        raise error(f"{name}: expected a text")
    return found


def _texts(table: dict[str, Any], name: str, error: Any) -> list[str]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
        raise error(f"{name}: expected a list of texts")
    return found
