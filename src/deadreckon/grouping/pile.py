"""A pile of crashes: which are the same stack, and which stacks are near-duplicates of one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from deadreckon.errors import LimitExceeded
from deadreckon.grouping.fingerprint import CYCLE, crashed_stack, exception_of
from deadreckon.grouping.judge import judge_of
from deadreckon.grouping.similarity import DISTANCE, Stacks, clusters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deadreckon.grouping.rules.model import RuleSet
    from deadreckon.model.event import Event, Frame

__all__ = ["Cluster", "Pile", "Stack", "labels", "sites"]

MAX_CRASHES = 1 << 20
_SHOWN_SITES = 12


class Stack(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One stack and the crashes that have it; ``sites`` are its innermost frames that count."""

    crashes: int
    fingerprints: list[str]
    title: str
    culprit: str | None = None
    sites: list[str]
    events: list[dict[str, str]]
    """Each crash's event_id, and the input it came from."""


class Cluster(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Stacks that are all alike; the one with the most crashes is first."""

    cluster: int
    crashes: int
    stacks: list[Stack]


def sites(event: Event, rules: RuleSet | None = None) -> list[str]:
    """Return the frames of an event that count, innermost first, each with its source line where that is known.

    Rounds of a recursion after the first are left out. Where no frame counts, the fingerprint is the only site.
    """
    frames = crashed_stack(event)
    verdicts = judge_of(rules).judge(frames, event.platform, exception_of(event))
    found: list[str] = []
    for frame, verdict in zip(frames, verdicts, strict=True):
        if not verdict.counts:
            continue
        found.append(_site(frame, verdict.known.text))
        if found[-1] in found[-CYCLE - 1 : -1]:
            for length in range(1, CYCLE + 1):
                if found[-length:] == found[-2 * length : -length]:
                    del found[-length:]
                    break
    if not found and event.fingerprint:
        return [f"fingerprint {event.fingerprint.id}"]
    return found


def _site(frame: Frame, text: str) -> str:
    if not frame.lineno:
        return text
    name = (frame.filename or "").replace("\\", "/").rpartition("/")[2].lower()
    return f"{text} {name}:{frame.lineno}"


@dataclass(slots=True)
class Pile:
    """Crashes as they are added, and what they come down to.

    Raises LimitExceeded for more than a million crashes.
    """

    rules: RuleSet | None = None
    crashes: int = 0
    _stacks: Stacks = field(default_factory=Stacks)
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    _told: list[Stack] = field(default_factory=list)

    @property
    def stacks(self) -> int:
        """How many different stacks there are."""
        return len(self._told)

    def add(self, event: Event, name: str | None = None) -> int:
        """Add a crash and return the number of its stack; ``name`` is the input it came from."""
        if self.crashes >= MAX_CRASHES:
            raise LimitExceeded("crashes of a pile", MAX_CRASHES)
        self.crashes += 1
        found = tuple(sites(event, self.rules))
        number = self._numbers.get(found)
        if number is None:
            number = self._numbers[found] = self._stacks.add(found)
            title = event.title or "Crash"
            shown = list(found[:_SHOWN_SITES])
            self._told.append(
                Stack(crashes=0, fingerprints=[], title=title, culprit=event.culprit, sites=shown, events=[])
            )
        stack = self._told[number]
        stack.crashes += 1
        identity = event.fingerprint.id if event.fingerprint else ""
        if identity and identity not in stack.fingerprints:
            stack.fingerprints.append(identity)
        stack.events.append({"event_id": event.event_id, **({"name": name} if name else {})})
        return number

    def clusters(self, distance: float = DISTANCE) -> list[Cluster]:
        """Return the clusters, the one with the most crashes first."""
        found = [
            self._cluster([self._told[n] for n in members]) for members in clusters(self._stacks, distance=distance)
        ]
        found.sort(key=lambda c: -c.crashes)
        for number, cluster in enumerate(found, 1):
            cluster.cluster = number
        return found

    @staticmethod
    def _cluster(stacks: Sequence[Stack]) -> Cluster:
        listed = sorted(stacks, key=lambda s: -s.crashes)
        return Cluster(cluster=0, crashes=sum(s.crashes for s in listed), stacks=listed)


def labels(found: Sequence[Cluster]) -> Mapping[str, int]:
    """Return the cluster of each event_id."""
    return {event["event_id"]: c.cluster for c in found for stack in c.stacks for event in stack.events}
