"""Which crashes are the same: a 128-bit fingerprint over normalized frames, and the components that explain it.

The family ``native128/1`` hashes the exception's type and the frames that count, innermost first, with BLAKE2b
(RFC 7693) of 16 bytes. Every field goes in as one tag byte, its length in UTF-8 bytes as u32 little-endian, and the
bytes themselves, so no two lists of fields give the same input.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from deadreckon.grouping.normalize import STARTERS, TERMINATORS, module_name, normalize_function
from deadreckon.model.event import Component, Event, ExceptionInfo, Fingerprint, Frame
from deadreckon.telemetry import staged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ALGORITHM", "crashed_stack", "fingerprint", "title_and_culprit"]

ALGORITHM = "native128/1"
MAX_FRAMES = 32
"""How many frames count: below, stacks of one bug differ by who called."""

_MAX_COMPONENTS = 128
_TYPE, _FRAME, _MESSAGE = b"T", b"F", b"M"


@staged("group")
def fingerprint(event: Event) -> Fingerprint:
    """Return the group of an event, with a component for its exception type and for every frame or run of frames."""
    kind = _kind(event)
    fields: list[tuple[bytes, str]] = []
    components: list[Component] = []
    if kind:
        fields.append((_TYPE, kind))
        components.append(Component(text=kind, contributes=True, why="the kind of crash"))
    judged = list(_judge(crashed_stack(event)))
    counted = [c.text for c in judged if c.contributes]
    if not counted:
        message = next((e.value for e in event.exceptions or () if e.value), None) or event.message
        if message:
            fields.append((_MESSAGE, message))
            judged.append(Component(text=message, contributes=True, why="no frame counts, so the message does"))
    fields.extend((_FRAME, text) for text in counted)
    components.extend(judged[:_MAX_COMPONENTS])
    return Fingerprint(id=_digest(fields), algorithm=ALGORITHM, components=components)


def _decisive(event: Event) -> ExceptionInfo | None:
    """Return the exception that an event is grouped by: the first with a stack of its own, else the first.

    An Objective-C exception ends in ``abort``, whose stack and signal are the same for all of them.
    """
    told = [e for e in event.exceptions or () if e.mechanism != "suppressed"]
    return next((e for e in told if e.frames), next((e for e in told if e.type), None))


def _kind(event: Event) -> str | None:
    found = _decisive(event)
    return found.type if found else None


def _digest(fields: Iterable[tuple[bytes, str]]) -> str:
    state = hashlib.blake2b(digest_size=16, person=ALGORITHM.encode())
    for tag, text in fields:
        data = text.encode("utf-8", "surrogatepass")
        state.update(tag + struct.pack("<I", len(data)) + data)
    return state.hexdigest()


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


def _judge(frames: Sequence[Frame]) -> Iterator[Component]:
    """Yield a component for each run of equal frames: its text, whether it counts, and why."""
    ours, named = _survey(frames)
    counted = 0
    previous: tuple[str, bool, str] | None = None
    repeats = 0
    for frame in frames:
        text = _text(frame)
        contributes, why = _verdict(frame, ours=ours, named=named)
        if previous is not None and previous[0] == text:
            repeats += 1
            continue
        if previous is not None:
            yield _component(previous, repeats)
        if contributes and counted == MAX_FRAMES:
            contributes, why = False, f"deeper than the {MAX_FRAMES} frames that count"
        counted += contributes
        previous, repeats = (text, contributes, why), 1
    if previous is not None:
        yield _component(previous, repeats)


def _component(judged: tuple[str, bool, str], repeats: int) -> Component:
    text, contributes, why = judged
    if repeats > 1:
        why = f"{why}; {repeats} in a row count as one" if contributes else f"{why}; {repeats} in a row"
    return Component(text=text, contributes=contributes, why=why)


def _survey(frames: Sequence[Frame]) -> tuple[bool, bool]:
    """Tell whether a stack has certain frames of the application's own, named where any is; and whether any is."""
    named = any(_named(f) for f in frames)
    return any(f.in_app and f.trust != "scan" and (_named(f) or not named) for f in frames), named


def _named(frame: Frame) -> bool:
    return frame.function is not None and frame.function not in STARTERS and frame.function not in TERMINATORS


def _text(frame: Frame) -> str:
    if frame.function is not None:
        name = normalize_function(frame.function)
        return f"{frame.module}.{name}" if frame.module else name
    if frame.package is not None:
        return f"{module_name(frame.package).lower()}+{frame.rva}"
    return "address in no module"


def _verdict(frame: Frame, *, ours: bool, named: bool) -> tuple[bool, str]:
    """Tell whether a frame counts, of a stack of which ``_survey`` said so much."""
    if frame.package is None and frame.function is None:
        return False, "it belongs to no module"
    if frame.function in STARTERS:
        return False, "it starts every thread"
    if frame.function in TERMINATORS:
        return False, "it is how programs end, not why"
    if frame.function is None:
        if frame.trust == "scan":
            return False, "a guess without a name"
        if named:
            return False, "it has no symbol, others have"
        if ours and not frame.in_app:
            return False, "not the application's own code"
        return True, "no frame has a symbol, so addresses count; another build is another group"
    if ours and not frame.in_app:
        return False, "not the application's own code"
    if ours and frame.trust == "scan":
        return False, "found by scanning the stack, others are certain"
    return True, "the application's own code" if frame.in_app else "no frame is the application's own code"


def title_and_culprit(event: Event) -> tuple[str, str | None]:
    """Return one line that says what happened, and one that says where; the place is the first frame that counts."""
    kind = _kind(event)
    frames = crashed_stack(event)
    ours, named = _survey(frames)
    frame = next((f for f in frames if _verdict(f, ours=ours, named=named)[0]), frames[0] if frames else None)
    what = kind or event.message or "Crash"
    if frame is None:
        return what, None
    place = _text(frame)
    line = f":{frame.lineno}" if frame.lineno else ""
    where = f" ({frame.filename}{line})" if frame.filename else ""
    return f"{what} in {place}", f"{place}{where}"
