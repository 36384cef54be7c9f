"""Which frames of a stack count, and why: rules first, then what is known of the stack as a whole.

What rules say of a frame depends on its names alone, unless a rule asks for neighbours, categories, the exception or a
range: so it is worked out once a distinct symbol and kept, and only the other stacks are gone through rule by rule.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deadreckon.grouping.normalize import frame_text
from deadreckon.grouping.rules.model import FlagAction, RuleSet, StackRule
from deadreckon.grouping.rules.read import parse_toml
from deadreckon.grouping.rules.stack import ALWAYS, StackRules, Step, Symbol, family_of, frames_of
from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deadreckon.model.event import Frame

__all__ = [
    "FRAME",
    "KIND",
    "MESSAGE",
    "Judge",
    "Known",
    "Verdict",
    "default_rules",
    "digest",
    "judge_of",
    "platform_of",
]

KIND, FRAME, MESSAGE = b"T", b"F", b"M"
"""Tags of fields: the kind of crash, a frame that counts, a message in place of frames."""

_MAX_KNOWN = 1 << 16
_PERSON = b"native128"


def digest(tag: bytes, text: str) -> tuple[int, int]:
    """Return a field's digest as two numbers of 64 bits: BLAKE2b (RFC 7693) of 16 bytes, both halves little-endian.

    It is of the tag, the length of the text in UTF-8 as u32 little-endian, and the text; personalised ``native128``.
    """
    data = text.encode("utf-8", "surrogatepass")
    state = hashlib.blake2b(tag + struct.pack("<I", len(data)) + data, digest_size=16, person=_PERSON)
    return struct.unpack("<QQ", state.digest())


class Outcome(NamedTuple):
    """What rules say of a frame: the application's own, counts in any case (1) or in no case (-1), and why."""

    app: bool
    group: int
    why: str


class Known(NamedTuple):
    """What is known of a symbol wherever it stands."""

    text: str
    """What goes into the fingerprint."""
    halves: tuple[int, int]
    named: bool
    stray: bool
    """It has neither a name nor a module."""
    symbol: Symbol
    tests: tuple[int, ...]
    plain: bool
    """What rules say of it depends on nothing else, so ``own`` and ``other`` are all that may come out."""
    own: Outcome
    other: Outcome
    """Where the report says it is the application's own, and where not."""
    verdicts: dict[int, Verdict]
    """Those that were passed on it, by which of the outcomes it was and what the stack around it is like."""


class Verdict(NamedTuple):
    """Whether a frame counts, and the component that says why; ``app`` is what rules made of its in_app."""

    known: Known
    counts: bool
    component: Component
    app: bool


class Judge:
    """Judges frames by rules. Several threads may use one; what it keeps of symbols is bounded."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = StackRules(tuple(_spelled_out(rules.stack)))
        self.digest = hashlib.blake2b("\n".join(map(str, rules.stack)).encode(), digest_size=4).hexdigest()
        """Of the rules' texts: two judges with the same one judge alike."""
        compiled = self.rules.compiled
        setters = {c.test for c in compiled if any(getattr(a, "name", "") == "category" for a in c.modifiers)}
        apart = {c.test for c in compiled if not _plain(c)}
        # A rule without a test of its own is one for every frame, or for every one of a category.
        if ALWAYS in apart and all(
            _plain(c)
            or c.test != ALWAYS
            or any(d.category is not None and d.wanted and not d.shift for d in c.conditions)
            for c in compiled
        ):
            apart = apart - {ALWAYS} | setters
        self._apart = frozenset(apart)
        self._known: dict[tuple[str | None, ...], Known] = {}
        self._judged: dict[tuple[int, ...], tuple[bool, Outcome, Outcome]] = {}

    def known(self, frame: Frame, platform: str) -> Known:
        """Return what is known of a frame's symbol."""
        key = (
            platform,
            frame.function,
            frame.module,
            frame.package,
            frame.abs_path or frame.filename,
            frame.rva if frame.function is None else None,
        )
        found = self._known.get(key)
        if found is None:
            symbol = Symbol(family_of(platform), *key[1:5])
            tests = self.rules.tests(symbol)
            text = frame_text(frame, platform)
            if (judged := self._judged.get(tests)) is None:
                plain = ALWAYS not in self._apart and self._apart.isdisjoint(tests)
                own, other = (self._run([tests], app, None)[0] for app in (1, 0))
                judged = self._judged[tests] = plain, own, other
            stray = frame.function is None and frame.package is None
            found = Known(text, digest(FRAME, text), frame.function is not None, stray, symbol, tests, *judged, {})
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
                self._judged.clear()
            self._known[key] = found
        return found

    def _run(
        self, stack: Sequence[tuple[int, ...]], app: int, exception: Mapping[str, str | None] | None
    ) -> list[Outcome]:
        """Apply all rules to a stack, outermost first; ``app`` has a bit for each frame."""
        steps: list[Step] = []
        state = self.rules.apply(stack, app, exception, steps=steps)
        reasons: list[dict[str, str]] = [{} for _ in stack]
        for rule, action, mask in steps:
            if isinstance(action, FlagAction) and action.flag in {"app", "group"}:
                why = rule.reason or f"by the rule {rule}"
                for frame in frames_of(mask):
                    reasons[frame][action.flag] = why
        return [
            Outcome(
                bool(state.app >> i & 1),
                (state.on >> i & 1) - (state.off >> i & 1),
                why.get("group") or why.get("app", ""),
            )
            for i, why in enumerate(reasons)
        ]

    def judge(
        self, frames: Sequence[Frame], platform: str | None, exception: Mapping[str, str | None] | None = None
    ) -> list[Verdict]:
        """Return a verdict for each frame, innermost first as the frames are."""
        known: list[Known] = []
        find = self._known.get
        for frame in frames:  # As in ``known``, written out: a call for each frame costs as much as the rest.
            function, package = frame.function, frame.package
            of = (
                "native"
                if platform is None or (package is not None and frame.instruction_addr is not None)
                else platform
            )
            place = frame.abs_path or frame.filename
            rva = frame.rva if function is None else None
            known.append(find((of, function, frame.module, package, place, rva)) or self.known(frame, of))
        # Lists, not generators: thirty frames are too few to make up for starting one.
        if all([k.plain for k in known]):  # noqa: C419
            outcomes = [k.own if f.in_app else k.other for k, f in zip(known, frames, strict=True)]
        else:
            app = sum(1 << i for i, frame in enumerate(reversed(frames)) if frame.in_app)
            outcomes = self._run([k.tests for k in reversed(known)], app, exception)[::-1]
        named = own = own_named = False
        scans = [f.trust == "scan" for f in frames]
        for k, outcome, scan in zip(known, outcomes, scans, strict=True):
            if outcome.group >= 0:
                named = named or k.named
                if outcome.app and not scan:
                    own = True
                    own_named = own_named or k.named
        ours = own_named if named else own
        around = 2 * ours + named
        found: list[Verdict] = []
        for k, outcome, scan in zip(known, outcomes, scans, strict=True):
            # By identity: what rules say of a symbol alone is one of two objects.
            code = 16 if scan else 0
            code += around + (4 if outcome is k.own else 8 if outcome is k.other else 0)
            verdict = k.verdicts.get(code) if code & 12 else None
            if verdict is None:
                verdict = _verdict(k, outcome, scan=scan, ours=ours, named=named)
                if code & 12:
                    k.verdicts[code] = verdict
            found.append(verdict)
        return found


def _verdict(known: Known, outcome: Outcome, *, scan: bool, ours: bool, named: bool) -> Verdict:
    app, group, why = outcome
    if known.stray:
        counts, why = False, "it belongs to no module"
    elif group:
        counts = group > 0
    elif not known.named and scan:
        counts, why = False, "a guess without a name"
    elif not known.named and named:
        counts, why = False, "it has no symbol, others have"
    elif ours and not app:
        counts, why = False, f"not the application's own code: {why}" if why else "not the application's own code"
    elif ours and scan:
        counts, why = False, "found by scanning the stack, others are certain"
    elif not known.named:
        counts, why = True, "no frame has a symbol, so addresses count; another build is another group"
    else:
        counts, why = True, "the application's own code" if app else "no frame is the application's own code"
    return Verdict(known, counts, Component(text=known.text, contributes=counts, why=why), app)


def platform_of(frame: Frame, platform: str | None) -> str:
    """Return what a frame is of: machine code may be called by any language."""
    if platform is None or platform == "native" or (frame.package is not None and frame.instruction_addr is not None):
        return "native"
    return platform


def _plain(compiled: object) -> bool:
    """Tell whether what a rule does to a frame depends on nothing but its names, and is all it does."""
    rule: StackRule = compiled.rule  # type: ignore[attr-defined]
    return all(
        m.where == "frame" and m.key in {"family", "function", "module", "package", "path"} for m in rule.matchers
    ) and all(isinstance(a, FlagAction) and not a.reach for a in rule.actions)


# --- Rules ------------------------------------------------------------------------------------------------------------


@cache
def default_rules() -> RuleSet:
    """Return the rules that come with the package (default_rules.toml)."""
    path = Path(__file__).with_name("default_rules.toml")
    return parse_toml(path.read_text(encoding="utf-8"), path.name)


@lru_cache(maxsize=8)
def judge_of(rules: RuleSet | None = None) -> Judge:
    """Return a judge by the default rules, and by those of a user after them."""
    return Judge(default_rules() if rules is None else default_rules() + rules)


_NAMES = re.compile(r"\{([^*?\[\]{}\\]+)\}")


def _spelled_out(rules: Iterable[StackRule]) -> Iterable[StackRule]:
    """Write a rule for ``{a,b}`` as one for ``a`` and one for ``b``: plain names are looked up, patterns are tried."""
    for rule in rules:
        at = next(
            (
                (i, match)
                for i, m in enumerate(rule.matchers)
                if m.key == "function" and not m.negated and (match := _NAMES.fullmatch(m.pattern))
            ),
            None,
        )
        if at is None:
            yield rule
            continue
        index, match = at
        for name in match[1].split(","):
            matchers = list(rule.matchers)
            matchers[index] = replace(matchers[index], pattern=name)
            yield replace(rule, matchers=tuple(matchers))
