"""Fingerprints as products make them: by name, for an event of any format, with what they were made of.

``native128`` is ours and every event has it; the others are asked for. ``sentry:...`` and ``posthog`` give the same
values as those products do, ``signature`` those of Mozilla's siggen; ``rollbar`` and ``backtrace`` group in the same
manner, since how those make their values is not public. Rules are the user's files: of stacks and fingerprints for
Sentry's families, lists for ``signature``, ``[[backtrace]]`` tables for ``backtrace``.
"""

from __future__ import annotations

import difflib
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deadreckon.errors import ConfigError
from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deadreckon.config import GroupingConfig
    from deadreckon.model.event import Event

__all__ = ["FAMILIES", "Families", "families_of"]

SENTRY = "sentry:"
FAMILIES = (
    "native128",
    "sentry:newstyle:2023-01-11",
    "sentry:mobile:2021-02-12",
    "posthog",
    "rollbar",
    "signature",
    "backtrace",
)
"""The families that can be asked for. Where a product changed its algorithm, the name says which it is."""

ALIASES = {"sentry": "sentry:newstyle:2023-01-11"}

Explained = dict[str, list[Component]]
"""What a fingerprint was made of, by variant; most families have only one, without a name."""


@lru_cache(maxsize=8)
def families_of(config: GroupingConfig) -> Families:
    """Return the families of a configuration, made once. Raises what Families does."""
    return Families(config.families, config.rules)


class Families:
    """Families by name, with the rules of files.

    Raises ConfigError for a family that is unknown, RuleError and SourceUnavailable for files.
    """

    def __init__(self, names: Sequence[str], rules: Sequence[str] = ()) -> None:
        names = [ALIASES.get(name, name) for name in names]
        for name in names:
            if name not in FAMILIES:
                near = difflib.get_close_matches(name, FAMILIES, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(FAMILIES)}"
                raise ConfigError(f"unknown family of fingerprints {name!r}{hint}")
        self.names = tuple(dict.fromkeys(names))
        from deadreckon.grouping.families.backtrace import BacktraceRule, rules_of  # noqa: PLC0415
        from deadreckon.grouping.families.signature import FILES, Lists, load_lists  # noqa: PLC0415
        from deadreckon.grouping.rules import load_rules  # noqa: PLC0415

        lists = [p for p in rules if os.path.isdir(p) or os.path.basename(p).removesuffix(".txt") in FILES]
        self.rules = load_rules(*[p for p in rules if p not in lists])
        self.lists: Lists = load_lists(lists)
        self.backtrace: list[BacktraceRule] = []
        for path in rules:
            if path.endswith(".toml"):
                tables, lines = _tables(path)
                self.backtrace += rules_of(tables, lines, path)
        self._sentry: dict[str, Any] = {}

    def apply(
        self, event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None, *, explain: bool = False
    ) -> None:
        """Add fingerprints to an event; ``payload`` is what a client of an error tracker sent, as it was decoded."""
        event.fingerprints = {name: self.values(name, event, payload) for name in self.names} or None
        if explain:
            event.explained = {name: self.explain(name, event, payload) for name in self.names} or None

    def values(
        self, name: str, event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None
    ) -> list[str]:
        """Return the fingerprints of one family."""
        if name.startswith(SENTRY):
            grouping, told = self._told(name, event, payload)
            hashes: list[str] = grouping.hashes(told)
            return hashes
        if name == "posthog":
            from deadreckon.grouping.families import posthog  # noqa: PLC0415

            return posthog.values(event, payload)
        if name == "rollbar":
            from deadreckon.grouping.families import rollbar  # noqa: PLC0415

            return rollbar.values(event)
        if name == "signature":
            from deadreckon.grouping.families import signature  # noqa: PLC0415

            return signature.values(event, self.lists)
        if name == "backtrace":
            from deadreckon.grouping.families import backtrace  # noqa: PLC0415

            return backtrace.values(event, self.backtrace)
        return [event.fingerprint.id] if event.fingerprint is not None else []

    def explain(
        self, name: str, event: Event, payload: Mapping[str, Any] | bytes | memoryview | None = None
    ) -> Explained:
        """Return what the fingerprints of one family were made of."""
        if name.startswith(SENTRY):
            from deadreckon.grouping.families.sentry.explain import components  # noqa: PLC0415

            grouping, told = self._told(name, event, payload)
            return {kind: components(kind, v) for kind, v in grouping.variants(told, explain=True).items()}
        if name == "posthog":
            from deadreckon.grouping.families import posthog  # noqa: PLC0415

            return {"": posthog.explain(event, payload)}
        if name == "rollbar":
            from deadreckon.grouping.families import rollbar  # noqa: PLC0415

            return {"": rollbar.explain(event)}
        if name == "signature":
            from deadreckon.grouping.families import signature  # noqa: PLC0415

            return {"": signature.explain(event, self.lists)}
        if name == "backtrace":
            from deadreckon.grouping.families import backtrace  # noqa: PLC0415

            return {"": backtrace.explain(event, self.backtrace)}
        return {"": list(event.fingerprint.components or ()) if event.fingerprint is not None else []}

    def _told(self, name: str, event: Event, payload: Mapping[str, Any] | bytes | memoryview | None) -> tuple[Any, Any]:
        """Return a Sentry configuration's grouping, and the event as it sees it, with the fingerprint of rules."""
        from deadreckon.grouping.families.sentry import Grouping, sentry_event  # noqa: PLC0415

        grouping = self._sentry.get(name)
        if grouping is None:
            grouping = self._sentry[name] = Grouping(name.removeprefix(SENTRY), self.rules)
        told = sentry_event(event, payload)
        title = grouping.prepare(told)
        if title is not None and event.source.format.startswith("sentry"):
            event.title = title
        return grouping, told


def _tables(path: str) -> tuple[Any, list[int]]:
    import tomllib  # noqa: PLC0415

    with open(path, "rb") as file:  # It was read before, so it is there and well formed.
        text = file.read().decode()
    lines = [text.count("\n", 0, m.start(1)) + 1 for m in re.finditer(r"(?m)^[ \t]*(\[\[[ \t]*backtrace\b)", text)]
    return tomllib.loads(text).get("backtrace", []), lines
