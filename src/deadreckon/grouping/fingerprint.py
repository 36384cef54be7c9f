"""Which crashes are the same: a 128-bit fingerprint over normalized frames, and the components that explain it.

The family ``native128/2`` takes the exception's type and the frames that count, innermost first (judge.py), without the
rounds of a recursion after the first, 32 of them at most; where no frame counts, the message without its numbers and
names. Anyone can check it. Each of these fields has a digest: BLAKE2b of 16 bytes, personalised ``native128``, over one
tag byte (T, F, M), the length of the text in UTF-8 as u32 little-endian, and the text; its first eight bytes are the
low half, the others the high half, little-endian. Then, all modulo 2**64, with the factors of FACTORS::

    low, high = (sum(half[i] * factor**i for i in range(n)) ^ n for each half and its factor)
    low += high; high += low; low = mix(low); high = mix(high); low += high; high += low

where ``mix`` is MurmurHash3's last step for 64 bits. The fingerprint is ``low`` and ``high``, little-endian, in hex.
A batch of stacks takes the same through kernels/tokens.py (columns.py).
"""

from __future__ import annotations

from functools import lru_cache
from operator import eq, mul
from typing import TYPE_CHECKING, NamedTuple

from deadreckon.grouping.judge import KIND, MESSAGE, Verdict, digest, judge_of
from deadreckon.grouping.names.messages import parameterize
from deadreckon.grouping.normalize import frame_text
from deadreckon.model.event import Component, Event, ExceptionInfo, Fingerprint, Frame
from deadreckon.telemetry import staged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deadreckon.grouping.rules.model import RuleSet

__all__ = [
    "ALGORITHM",
    "CYCLE",
    "FACTORS",
    "MAX_FRAMES",
    "Group",
    "combine",
    "crashed_stack",
    "exception_of",
    "fingerprint",
    "group",
    "kind_of",
    "message_of",
    "title_and_culprit",
]

ALGORITHM = "native128/2"
MAX_FRAMES = 32
"""How many frames count: below, stacks of one bug differ by who called."""
CYCLE = 8
"""The longest round of calls that is seen to repeat."""
FACTORS = (0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4D)

_MAX_COMPONENTS = 128
_M64 = (1 << 64) - 1
_POWERS = tuple(tuple(pow(factor, i, 1 << 64) for i in range(MAX_FRAMES + 1)) for factor in FACTORS)


class Group(NamedTuple):
    """A group, and two lines for people: what happened, and where."""

    fingerprint: Fingerprint
    title: str
    culprit: str | None


@staged("group")
def group(event: Event, rules: RuleSet | None = None) -> Group:
    """Return the group of an event, with a component for its exception type and for every frame or run of frames.

    ``rules`` are a user's, which come after ours; the algorithm's name then ends in a digest of all of them.
    """
    judge = judge_of(rules)
    decisive = _decisive(event)
    kind = decisive.type if decisive else None
    frames = decisive.frames if decisive is not None and decisive.frames else crashed_stack(event)
    exception = {"type": kind, "value": decisive.value, "mechanism": decisive.mechanism} if decisive else None
    verdicts = judge.judge(frames, event.platform, exception)
    halves: list[tuple[int, int]] = []
    components: list[Component] = []
    if kind:
        halves.append(_kind_digest(kind))
        components.append(Component(text=kind, contributes=True, why="the kind of crash"))
    texts = [v.known.text for v in verdicts]
    if any(map(eq, texts, texts[1:])):
        runs = _runs(verdicts)
        texts = [run[0].known.text for run in runs]
    else:
        runs = [(v, 1) for v in verdicts]
    candidates = [i for i, run in enumerate(runs) if run[0].counts]
    left = _first_rounds(candidates, texts)
    counted = [runs[i][0].known.halves for i in left]
    if len(runs) == len(verdicts) and len(left) == len(candidates):  # Most stacks: every verdict stands as it is.
        components += [v.component for v in verdicts]
    else:
        components += _components(runs, left)
    halves += counted
    if not counted and (message := message_of(event)):
        halves.append(digest(MESSAGE, message))
        components.append(Component(text=message, contributes=True, why="no frame counts, so the message does"))
    algorithm = ALGORITHM if rules is None or not rules.stack else f"{ALGORITHM}+{judge.digest}"
    found = Fingerprint(id=combine(halves), algorithm=algorithm, components=components[:_MAX_COMPONENTS])
    return Group(found, *_lines(kind or event.message or "Crash", frames, verdicts))


def fingerprint(event: Event, rules: RuleSet | None = None) -> Fingerprint:
    """Return the group of an event alone."""
    return group(event, rules).fingerprint


def title_and_culprit(event: Event, rules: RuleSet | None = None) -> tuple[str, str | None]:
    """Return one line that says what happened, and one that says where; the place is the first frame that counts."""
    return group(event, rules)[1:]


def _lines(what: str, frames: Sequence[Frame], verdicts: Sequence[Verdict]) -> tuple[str, str | None]:
    frame = next((f for f, v in zip(frames, verdicts, strict=True) if v.counts), frames[0] if frames else None)
    if frame is None:
        return what, None
    place = frame_text(frame)
    line = f":{frame.lineno}" if frame.lineno else ""
    where = f" ({frame.filename}{line})" if frame.filename else ""
    return f"{what} in {place}", f"{place}{where}"


@lru_cache(maxsize=1024)
def _kind_digest(kind: str) -> tuple[int, int]:
    return digest(KIND, kind)


def combine(halves: Sequence[tuple[int, int]]) -> str:
    """Return the fingerprint of fields by their digests, at most MAX_FRAMES and one, as 32 hex digits."""
    count = len(halves)
    lows, highs = zip(*halves, strict=True) if halves else ((), ())
    low = sum(map(mul, lows, _POWERS[0])) & _M64 ^ count
    high = sum(map(mul, highs, _POWERS[1])) & _M64 ^ count
    low = low + high & _M64
    high = high + low & _M64
    low, high = _mix(low), _mix(high)
    low = low + high & _M64
    high = high + low & _M64
    return (low | high << 64).to_bytes(16, "little").hex()


def _mix(x: int) -> int:
    x = (x ^ x >> 33) * 0xFF51_AFD7_ED55_8CCD & _M64
    x = (x ^ x >> 33) * 0xC4CE_B9FE_1A85_EC53 & _M64
    return x ^ x >> 33


def _decisive(event: Event) -> ExceptionInfo | None:
    """Return the exception that an event is grouped by: the first with a stack of its own, else the first.

    An Objective-C exception ends in ``abort``, whose stack and signal are the same for all of them.
    """
    told = [e for e in event.exceptions or () if e.mechanism != "suppressed"]
    return next((e for e in told if e.frames), next((e for e in told if e.type), None))


def kind_of(event: Event) -> str | None:
    """Return the type of the exception that an event is grouped by."""
    found = _decisive(event)
    return found.type if found else None


def exception_of(event: Event) -> Mapping[str, str | None] | None:
    """Return what rules may ask of the exception that an event is grouped by."""
    found = _decisive(event)
    return {"type": found.type, "value": found.value, "mechanism": found.mechanism} if found else None


def message_of(event: Event) -> str | None:
    """Return what counts where no frame does: the first message, without what differs between occurrences."""
    message = next((e.value for e in event.exceptions or () if e.value), None) or event.message
    return parameterize(message) if message else None


def crashed_stack(event: Event) -> Sequence[Frame]:
    """Return the frames an event is grouped by: an exception's own, else the crashed thread's, else the first's."""
    found = _decisive(event)
    if found is not None and found.frames:
        return found.frames
    threads = event.threads or ()
    for thread in threads:
        if thread.crashed and thread.frames:
            return thread.frames
    return next((t.frames for t in threads if t.frames), ())


def _runs(judged: Iterable[Verdict]) -> list[tuple[Verdict, int]]:
    """Return each run of equal frames as its first and their number."""
    runs: list[tuple[Verdict, int]] = []
    before: Verdict | None = None
    for verdict in judged:
        if before is not None and before.known.text == verdict.known.text and before.counts == verdict.counts:
            runs[-1] = (before, runs[-1][1] + 1)
            continue
        runs.append((verdict, 1))
        before = verdict
    return runs


def _first_rounds(counted: list[int], texts: Sequence[str]) -> list[int]:
    """Return which of those that count are left without repeated rounds of calls: f g f g f g becomes f g.

    Whenever the last n of those that are left equal the n before them, they go; so does what is too deep.
    """
    if len(counted) == len({texts[i] for i in counted}):
        return counted[:MAX_FRAMES]
    left: list[int] = []
    kept: list[str] = []
    for index in counted:
        text = texts[index]
        left.append(index)
        kept.append(text)
        if text in kept[-CYCLE - 1 : -1]:
            end = len(kept)
            for length in range(1, min(CYCLE, end // 2) + 1):
                start = end - length
                if kept[start - 1] == text and kept[start:] == kept[start - length : start]:
                    del left[start:], kept[start:]
                    break
    return left[:MAX_FRAMES]


def _components(told: Sequence[tuple[Verdict, int]], counted: Sequence[int]) -> list[Component]:
    found: list[Component] = []
    left = set(counted)
    for index, (verdict, repeats) in enumerate(told[:_MAX_COMPONENTS]):
        contributes = index in left
        if contributes == verdict.counts and repeats == 1:
            found.append(verdict.component)
            continue
        why = verdict.component.why
        if verdict.counts and not contributes:
            deep = len(counted) == MAX_FRAMES and index > counted[-1]
            why = f"deeper than the {MAX_FRAMES} frames that count" if deep else "it repeats a round of calls before it"
        if repeats > 1:
            why = f"{why}; {repeats} in a row count as one" if contributes else f"{why}; {repeats} in a row"
        found.append(Component(text=verdict.known.text, contributes=contributes, why=why))
    return found
