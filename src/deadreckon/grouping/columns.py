"""Many events at once: their stacks as columns, and the fingerprints of all of them by kernels.

Names are normalized, digested and tried by rules once a distinct symbol; what is left for each stack is numbers. The
fingerprints are those of ``fingerprint.group``, which tells why as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import LimitExceeded
from deadreckon.grouping.fingerprint import CYCLE, FACTORS, MAX_FRAMES, crashed_stack, exception_of, group, kind_of
from deadreckon.grouping.judge import KIND, Judge, Known, digest, judge_of, platform_of
from deadreckon.grouping.program import RulePass
from deadreckon.kernels import tokens
from deadreckon.kernels.marks import APP_SHIFT, COUNTS, NAMED, NO, SCAN, STRAY, YES, choose, run_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.grouping.rules.model import RuleSet
    from deadreckon.model.event import Event

__all__ = ["Batch", "fingerprints", "hex_ids"]

MAX_FRAMES_HELD = 1 << 27
"""Frames of a batch: half a gigabyte of columns."""

assert FACTORS == tokens.FACTORS
assert CYCLE == tokens.CYCLE


@dataclass(slots=True)
class Batch:
    """Stacks as columns, under one set of rules. Grows as events are added; not for several threads at once."""

    judge: Judge
    passes: RulePass = field(init=False)
    offsets: list[int] = field(default_factory=lambda: [0])
    symbols: list[int] = field(default_factory=list)
    """Of each frame, innermost first: the number of its symbol."""
    states: list[int] = field(default_factory=list)
    scans: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    """Of each stack: the text of its kind of crash, NO_TEXT where it has none."""
    gates: list[int] = field(default_factory=list)
    digests: list[tuple[int, int]] = field(default_factory=list)
    """Of each text."""
    texts: list[int] = field(default_factory=list)
    """Of each symbol: its text, its class under the rules, its traits."""
    classes: list[int] = field(default_factory=list)
    traits: list[int] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _known: list[Known] = field(default_factory=list)
    _rows: dict[tuple[bytes, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.passes = RulePass(self.judge.rules)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def add(self, event: Event) -> None:
        """Add the stack that an event is grouped by. Raises LimitExceeded where the columns would grow too large."""
        frames = crashed_stack(event)
        if len(self.symbols) + len(frames) > MAX_FRAMES_HELD:
            raise LimitExceeded("frames of a batch", MAX_FRAMES_HELD)
        for frame in frames:
            known = self.judge.known(frame, platform_of(frame, event.platform))
            number = self._numbers.get(id(known))
            if number is None:
                number = self._symbol(known)
            self.symbols.append(number)
            self.states.append((YES if frame.in_app else NO) << APP_SHIFT)
            self.scans.append(SCAN if frame.trust == "scan" else 0)
        self.offsets.append(len(self.symbols))
        kind = kind_of(event)
        self.heads.append(self._text(KIND, kind, digest(KIND, kind)) if kind else tokens.NO_TEXT)
        self.gates.append(self.passes.gate_of(exception_of(event)))

    def _symbol(self, known: Known) -> int:
        number = self._numbers[id(known)] = len(self.texts)
        self._known.append(known)  # Held, so that no other object gets its id.
        self.texts.append(self._text(b"", known.text, known.halves))
        self.classes.append(self.passes.class_of(known.tests))
        self.traits.append((NAMED if known.named else 0) | (STRAY if known.stray else 0))
        return number

    def _text(self, tag: bytes, text: str, halves: tuple[int, int]) -> int:
        row = self._rows.get((tag, text))
        if row is None:
            row = self._rows[tag, text] = len(self.digests)
            self.digests.append(halves)
        return row

    def fingerprints(self) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Return u64[n, 2], the halves of each stack's fingerprint, and whether any of its frames counts."""
        offsets = np.array(self.offsets, np.int64)
        symbols = np.array(self.symbols, np.uint32)
        texts = np.array(self.texts, np.uint32)[symbols]
        states = np.array(self.states, np.uint16)
        classes = np.array(self.classes, np.uint32)
        run_rules(self.passes.program(), offsets, symbols, classes, np.array(self.gates, np.uint32), states)
        traits = np.array(self.traits, np.uint8)[symbols] | np.array(self.scans, np.uint8)
        marks = choose(offsets, states, traits)
        tokens.collapse(offsets, texts, marks, mask=COUNTS, wanted=COUNTS)
        digests = np.array(self.digests, np.uint64).reshape(-1, 2)
        heads = np.array(self.heads, np.uint32)
        found = tokens.fingerprints(offsets, texts, marks, digests, heads, mask=COUNTS, wanted=COUNTS, most=MAX_FRAMES)
        counts = np.concatenate([[0], np.cumsum(marks != 0)])
        return found, counts[offsets[1:]] > counts[offsets[:-1]]


def hex_ids(halves: NDArray[np.uint64]) -> list[str]:
    """Return fingerprints as an event has them: 32 hex digits, the low half first, little-endian."""
    digits = np.ascontiguousarray(halves, "<u8").tobytes().hex()
    return [digits[i : i + 32] for i in range(0, len(digits), 32)]


def fingerprints(events: Sequence[Event], rules: RuleSet | None = None) -> list[str]:
    """Return the id of each event's fingerprint, as ``group`` gives it."""
    batch = Batch(judge_of(rules))
    for event in events:
        batch.add(event)
    if not events:
        return []
    halves, told = batch.fingerprints()
    # Where no frame counts the message does, and those are few.
    return [
        identity if any_frame else group(event, rules).fingerprint.id
        for identity, any_frame, event in zip(hex_ids(halves), told.tolist(), events, strict=True)
    ]
