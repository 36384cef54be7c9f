"""A Sentry event's hashes: the strategies, the one that wins, and what fingerprints make of it.

Strategies are tried by their score: exceptions, threads, a loose stack, a template, reports of browsers, the message;
the first that gives something counts, and each of its variants is the MD5 of what counts in it, in UTF-8, with nothing
in between. Specification: sentry's ``get_grouping_variants_for_event`` and its strategies of 2023-02.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from deadreckon.errors import LimitExceeded
from deadreckon.grouping.families.sentry.fingerprint import apply_rules, client_values, own_rules, settled, stacks_of
from deadreckon.grouping.families.sentry.frames import Frames, Options
from deadreckon.grouping.families.sentry.message import normalize_message
from deadreckon.grouping.families.sentry.stacks import Node, stack_variants
from deadreckon.grouping.rules import RuleError, RuleSet, StackRules
from deadreckon.grouping.rules.read import DEFAULT, is_default, parse_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from deadreckon.grouping.families.sentry.payload import Event, Exc, Report, Stacktrace, Thread

__all__ = ["CONFIGURATIONS", "Grouping", "Variant"]

CONFIGURATIONS = {
    "newstyle:2023-01-11": Options("newstyle:2023-01-11"),
    "mobile:2021-02-12": Options(
        "mobile:2021-02-12",
        hierarchical=True,
        no_native_filename=True,
        package_fallback=True,
        same_anonymous=True,
        detect_synthetic=True,
    ),
}
"""Sentry's configurations, by name. Their rules are Sentry's, so a file of the user's has them."""

_SYNTHETIC = re.compile(r"^(?:EXC_|EXCEPTION_|SIG|KERN_|ILL_)[A-Z0-9_ /x]+$")
_DIGEST = re.compile(r"^[0-9a-f]{32}$")
_OWN_RULES = 64


@dataclass(slots=True)
class Variant:
    """One way to group an event: its hash where it counts, and the components it was made from."""

    kind: str
    hash: str | None
    nodes: list[Node] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    """Of a fingerprint: its values, with ``{{ default }}`` standing for the components."""


class Grouping:
    """Groups Sentry events under one configuration and a set of rules, whose tests of symbols it keeps."""

    def __init__(self, configuration: str, rules: RuleSet) -> None:
        self.options = CONFIGURATIONS[configuration]
        self.rules = rules
        self._frames = Frames(self.options, StackRules(rules.stack))
        self._own: dict[tuple[str | None, bool], Frames] = {}

    def hashes(self, event: Event) -> list[str]:
        """Return the hashes of an event, each once: of the application's own code first, of all code last."""
        variants = self.variants(event)
        if (last := variants.pop("system", None)) is not None:
            variants["system"] = last
        return list(dict.fromkeys([v.hash for v in variants.values() if v.hash is not None]))

    def variants(self, event: Event, *, explain: bool = False) -> dict[str, Variant]:
        """Return every variant of an event, those too that don't count; with ``explain`` also why."""
        if event.checksum:
            return _by_checksum(event.checksum)
        nodes = self._strategies(event, explain=explain)
        fingerprint = client_values(event)
        plain = fingerprint == [DEFAULT]
        found: dict[str, Variant] = {}
        if not plain and not any(map(is_default, fingerprint)):
            found = {name: Variant("component", None, _muted(parts)) for name, parts in nodes.items()}
            found["custom-fingerprint"] = Variant(
                "custom-fingerprint", _md5(*_encoded(fingerprint)), values=fingerprint
            )
            return found
        contributing = False
        for name, parts in nodes.items():
            data = [p.data for p in parts if p.contributes]
            contributing = contributing or bool(data)
            if plain:
                found[name] = Variant("component", _md5(*data) if data else None, parts)
            else:
                told = zip(fingerprint, _encoded(fingerprint), strict=True)
                salted = [b"".join(data) if is_default(value) else encoded for value, encoded in told]
                found[name] = Variant("salted-component", _md5(*salted) if data else None, parts, fingerprint)
        if not contributing:
            found["fallback"] = Variant("fallback", _md5())
        return found

    def prepare(self, event: Event) -> str | None:
        """Apply the fingerprint rules to an event, whose frames are changed as stack-trace rules have it before.

        Returns the title that the rule gives the event, if any.
        """
        own = bool(event.own_fingerprint_rules)
        rules = (*self.rules.fingerprint, *own_rules(event))
        if not rules and all(type(v) is not str or is_default(v) for v in event.fingerprint or ()):
            return None
        if not own:
            self._settle(event)
        found = apply_rules(event, rules)
        return found[1] if found is not None else None

    def _settle(self, event: Event) -> None:
        """Put into frames what rules say of in_app, and the names that are grouped by."""
        frames = self._frames_of(event)
        for stack, exception in stacks_of(event):
            told = [f for f in stack.frames or () if f is not None]
            counted = frames.counted(told, event.platform)
            app = sum(1 << i for i, c in enumerate(counted) if c.in_app == "1")
            state = frames.rules.apply([c.tests for c in counted], app, _about(exception))
            stack.frames = [settled(f, event.platform, bool(state.app >> i & 1)) for i, f in enumerate(told)]

    # -- strategies -----------------------------------------------------------------------------------------------

    def _strategies(self, event: Event, *, explain: bool) -> dict[str, list[Node]]:
        frames = self._frames_of(event)
        found: dict[str, list[Node]] = {}
        winner = ""
        for name, variants in self._each(event, frames, explain):
            for variant, node in variants.items():
                found.setdefault(variant, []).append(node)
                if not node.contributes:
                    continue
                if not winner:
                    winner = name
                elif winner != name:
                    node.contributes, node.why = False, f"{winner} comes first"
        return found

    def _each(self, event: Event, frames: Frames, explain: bool) -> Iterator[tuple[str, dict[str, Node]]]:  # noqa: FBT001
        def of_stack(stack: Stacktrace, exception: Mapping[str, str | None] | None) -> dict[str, Node]:
            return stack_variants(stack, frames, event.platform, exception, explain=explain)

        if event.exception is not None:
            chain = [e for e in event.exception.values or () if e is not None]
            yield "exception", _concluded(self._exceptions(chain, of_stack))
        if event.threads is not None:
            threads = [t for t in event.threads.values or () if t is not None]
            yield "threads", _concluded(_threads(threads, of_stack))
        if event.stacktrace is not None:
            yield "stacktrace", _concluded(of_stack(event.stacktrace, None))
        if event.template is not None:
            places = (("filename", event.template.filename), ("context-line", event.template.context_line))
            parts = [_leaf(kind, value) for kind, value in places]
            yield "template", {"default": Node.of("template", parts)}
        if event.csp is not None:
            yield "csp", {"default": _csp(event.csp)}
        for name, kind, report in (
            ("hpkp", "hpkp", event.hpkp),
            ("expectstaple", "expect-staple", event.expectstaple),
            ("expectct", "expect-ct", event.expectct),
        ):
            if report is not None:
                yield name, {"default": Node.of(kind, [_leaf("salt", kind), _leaf("hostname", str(report.hostname))])}
        if event.logentry is not None:
            message = event.logentry.message or event.logentry.formatted or ""
            yield "message", {"default": Node("message", True, _bytes(normalize_message(message)))}

    def _frames_of(self, event: Event) -> Frames:
        """Return the frames to look at; an event of Sentry's own tests has rules of its own that come last.

        Those with fingerprint rules of their own are grouped by their frames as they came.
        """
        text = event.grouping.enhancements if event.grouping is not None else None
        modify = not event.own_fingerprint_rules
        if not text and modify:
            return self._frames
        found = self._own.get((text, modify))
        if found is None:
            if len(self._own) >= _OWN_RULES:
                self._own.clear()
            try:
                own = parse_rules(text or "", "_grouping.enhancements")
            except (RuleError, LimitExceeded):  # They are the event's, so they can't be relied on.
                own = RuleSet()
            rules = StackRules((*self.rules.stack, *own.stack)) if own.stack else self._frames.rules
            found = self._own[text, modify] = Frames(self.options, rules, modify=modify)
        return found

    def _exceptions(
        self, chain: list[Exc], of_stack: Callable[[Stacktrace, Mapping[str, str | None]], dict[str, Node]]
    ) -> dict[str, Node]:
        if len(chain) == 1:
            return self._exception(chain[0], of_stack)
        by_variant: dict[str, list[Node]] = {}
        for exception in chain:
            for name, node in self._exception(exception, of_stack).items():
                by_variant.setdefault(name, []).append(node)
        return {name: Node.of("chained-exception", nodes) for name, nodes in by_variant.items()}

    def _exception(
        self, told: Exc, of_stack: Callable[[Stacktrace, Mapping[str, str | None]], dict[str, Node]]
    ) -> dict[str, Node]:
        mechanism = told.mechanism
        synthetic = mechanism is not None and bool(mechanism.synthetic)
        if self.options.detect_synthetic and mechanism is not None and mechanism.synthetic is None and told.type:
            synthetic = _SYNTHETIC.match(told.type) is not None
        kind = _leaf("type", told.type or None)
        real = Node("type", False, kind.data, why="synthetic") if synthetic else kind
        error = mechanism.meta.ns_error if mechanism is not None and mechanism.meta is not None else None
        ns_error = Node("ns-error", True, _bytes(f"{error.domain}{error.code}")) if error is not None else None
        if told.stacktrace is not None and any(told.stacktrace.frames or ()):
            stacks = of_stack(told.stacktrace, _about(told))
        else:
            stacks = {"app": Node("stacktrace", False)}
        found = {}
        unused: Node | None = None
        for variant, stack in stacks.items():
            # Hierarchies came with the detection of synthetic types; what was grouped before is as it was.
            parts = [stack, kind if variant == "system" else real]
            if ns_error is not None:
                parts.append(ns_error)
            if told.value is not None and not stack.contributes and ns_error is None:
                parts.append(_value(told.value))
            else:
                unused = unused or _unused_value(
                    told.value, "the stack counts" if ns_error is None else "ns-error counts"
                )
                parts.append(unused)
            found[variant] = Node.of("exception", parts)
        return found


def _about(exception: Exc | None) -> dict[str, str | None]:
    """Return what rules look at of an exception."""
    if exception is None:
        return {}
    mechanism = exception.mechanism.type if exception.mechanism is not None else None
    return {"type": exception.type, "value": exception.value, "mechanism": mechanism}


def _value(value: str) -> Node:
    text = normalize_message(value)
    return Node("value", bool(text), _bytes(text))


def _unused_value(value: str | None, why: str) -> Node:
    return Node("value", False, _bytes(value or ""), (), why if value is not None else "")


def _threads(
    threads: list[Thread], of_stack: Callable[[Stacktrace, Mapping[str, str | None] | None], dict[str, Node]]
) -> dict[str, Node]:
    for chosen in ([t for t in threads if t.crashed], [t for t in threads if t.current], threads):
        if len(chosen) == 1:
            stack = chosen[0].stacktrace
            if stack is None or not stack.frames:
                return {"app": Node("threads", False, why="the thread has no stack")}
            return {name: Node.of("threads", [node]) for name, node in of_stack(stack, None).items()}
    return {"app": Node("threads", False, why=f"not exactly one of {len(threads)} threads crashed or is current")}


def _csp(report: Report) -> Node:
    uri = _site(report.blocked_uri or "")
    violated = report.violated_directive or ""
    kind = None
    if report.effective_directive == "script-src" and uri == "'self'":
        kind = next((k for k in ("unsafe-inline", "unsafe-eval") if f"'{k}'" in violated), None)
    salt = _leaf("salt", str(report.effective_directive))
    return Node.of("csp", [salt, _leaf("violation", f"'{kind}'") if kind else _leaf("uri", uri)])


def _site(uri: str) -> str:
    """Return a web page's host, of other addresses also the scheme; what is blocked may be a scheme alone."""
    if uri in {"", "'self'", "self"}:
        return "'self'"
    if ":" not in uri:
        return urlunsplit((uri, "", "", None, None))
    try:
        scheme, host = urlsplit(uri)[:2]
    except ValueError:
        return uri
    return host if scheme in {"http", "https"} else urlunsplit((scheme, host, "", None, None))


def _concluded(variants: dict[str, Node]) -> dict[str, Node]:
    """Take out variants that add nothing: of the same hash as a mandatory one, or without a stack where others have."""
    system = variants.pop("!system", None)
    if system is not None:
        for node in variants.values():
            if node.contributes and not system.contributes:
                node.contributes, node.why = False, "the system variant does not count"
            elif node.contributes and node.data == system.data:
                node.contributes, node.why = False, "the same as the system variant"
        variants["system"] = system
    if len(variants) > 1 and any([node.holds for node in variants.values()]):  # noqa: C419  (faster for two)
        for node in variants.values():
            if not node.holds:
                node.contributes, node.why = False, node.why or "it has no stack that counts, others have"
    return variants


def _by_checksum(checksum: str) -> dict[str, Variant]:
    if _DIGEST.match(checksum):
        return {"checksum": Variant("checksum", checksum)}
    found = {"hashed-checksum": Variant("checksum", _md5(_bytes(checksum)))}
    if len(checksum) <= 32:
        found["checksum"] = Variant("checksum", checksum)
    return found


def _muted(nodes: list[Node]) -> list[Node]:
    for node in nodes:
        node.contributes, node.why = False, node.why or "the fingerprint comes first"
    return nodes


def _leaf(kind: str, value: str | None) -> Node:
    return Node(kind, value is not None, _bytes(value) if value is not None else b"")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _encoded(values: list[str]) -> list[bytes]:
    return [_bytes(v) for v in values]


def _md5(*parts: bytes) -> str:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
