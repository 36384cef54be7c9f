"""Where jobs come from and results go: the job directory (spool.py), or a queue service some day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from deadreckon.model.event import Diagnostic, Event
    from deadreckon.worker.description import Job

__all__ = ["JobSource", "Lease", "Outcome"]

Outcome = Literal["done", "failed", "retried"]


@dataclass(slots=True)
class Lease:
    """A claimed job: this worker's until it is acknowledged, retried or declared dead. Attempts count from 1."""

    job: str
    attempt: int
    path: Path


class JobSource(Protocol):
    """Where jobs come from and results go; the job directory is one, a queue service can be another."""

    settling: bool
    """After ``claim`` gave None: more will be claimable in a moment, without anything new arriving."""

    def claim(self) -> Lease | None:
        """Take a job nobody else has, or None when there is none now."""

    def mark(self, lease: Lease) -> None:
        """Note which of several claimed jobs is under way: it is the one to blame if this process dies. Cheap."""

    def load(self, lease: Lease) -> Job:
        """Read what is to be done. Raises ReportError or OSError where the job can't be used, now or ever."""

    def ack(self, lease: Lease, events: Iterable[Event], imported: Sequence[dict[str, Any]] = ()) -> None:
        """Store the events, and what was imported, whole and end the job as done."""

    def retry(self, lease: Lease, reason: Diagnostic) -> Outcome:
        """Give the job back for another attempt, or end it as failed when it has had them all."""

    def dead(self, lease: Lease, diagnostics: Sequence[Diagnostic], traceback: str = "") -> None:
        """End the job as failed, its input untouched."""

    def obstacle(self) -> str | None:
        """Say why results could not be stored now, None if they could. Cheap: asked before every claim."""
