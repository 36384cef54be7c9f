"""Why two crashes are of one group or of two: their fingerprints, and where what these were made of differs.

Two crashes are of one group in a family if they have a fingerprint in common. Components are lined up as in a diff of
what counts; one that both have and only one counts is told with both reasons.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deadreckon.model.event import Component, Event

__all__ = ["Difference", "FamilyDifference", "Line", "compare"]

MAX_LINES = 2000


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One line of the comparison: ``mark`` is ``=`` for what both count, ``a`` or ``b`` for what only one does."""

    mark: str
    text: str
    why: str
    elsewhere: str | None = None
    """Why the other one, which has the same component, does not count it."""


class FamilyDifference(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How two crashes compare in one family."""

    same: bool
    a: list[str]
    b: list[str]
    common: list[str] | None = None
    lines: dict[str, list[Line]] | None = None
    """What the fingerprints were made of, by variant."""


class Difference(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How two crashes compare, in each family."""

    a: str
    b: str
    families: dict[str, FamilyDifference]

    @property
    def same(self) -> bool:
        """Whether they are of one group in every family."""
        return all(f.same for f in self.families.values())


def compare(a: Event, b: Event, names: tuple[str, str]) -> Difference:
    """Compare two events by our own fingerprint, or by those families that were asked for, with explanations."""
    families = list(dict.fromkeys([*(a.fingerprints or {}), *(b.fingerprints or {})])) or ["native128"]
    found = {}
    for family in families:
        ours, theirs = _values(a, family), _values(b, family)
        common = [v for v in ours if v in theirs]
        told, other = _explained(a, family), _explained(b, family)
        lines = {kind: _lines(told.get(kind, ()), other.get(kind, ())) for kind in dict.fromkeys([*told, *other])}
        found[family] = FamilyDifference(same=bool(common), a=ours, b=theirs, common=common or None, lines=lines)
    return Difference(a=names[0], b=names[1], families=found)


def _values(event: Event, family: str) -> list[str]:
    told = (event.fingerprints or {}).get(family)
    if told is None and family == "native128" and event.fingerprint is not None:
        return [event.fingerprint.id]
    return told or []


def _explained(event: Event, family: str) -> Mapping[str, Sequence[Component]]:
    told = (event.explained or {}).get(family)
    if told is None and family == "native128" and event.fingerprint is not None:
        return {"": event.fingerprint.components or ()}
    return told or {}


def _lines(a: Sequence[Component], b: Sequence[Component]) -> list[Line]:
    return list(_aligned([c for c in a if c.contributes], [c for c in b if c.contributes], a, b))[:MAX_LINES]


def _aligned(
    counted_a: Sequence[Component],
    counted_b: Sequence[Component],
    all_a: Sequence[Component],
    all_b: Sequence[Component],
) -> Iterator[Line]:
    left_out_a = {c.text: c.why for c in all_a if not c.contributes}
    left_out_b = {c.text: c.why for c in all_b if not c.contributes}
    texts_a, texts_b = [c.text for c in counted_a[:MAX_LINES]], [c.text for c in counted_b[:MAX_LINES]]
    matcher = difflib.SequenceMatcher(a=texts_a, b=texts_b, autojunk=False)
    for tag, start_a, end_a, start_b, end_b in matcher.get_opcodes():
        if tag == "equal":
            for c in counted_a[start_a:end_a]:
                yield Line(mark="=", text=c.text, why=c.why)
            continue
        for c in counted_a[start_a:end_a]:
            yield Line(mark="a", text=c.text, why=c.why, elsewhere=left_out_b.get(c.text))
        for c in counted_b[start_b:end_b]:
            yield Line(mark="b", text=c.text, why=c.why, elsewhere=left_out_a.get(c.text))
