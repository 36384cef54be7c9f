"""Which crashes are the same: a 128-bit fingerprint over normalized frames, and the components that explain it.

The family ``native128/1`` hashes the exception's type and the frames that count, innermost first, with BLAKE2b
(RFC 7693) of 16 bytes. Every field goes in as one tag byte, its length in UTF-8 bytes as u32 little-endian, and the
bytes themselves, so no two lists of fields give the same input.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from deadreckon.grouping.normalize import STARTERS, TERMINATORS, module_name, normalize_function
from deadreckon.model.event import Component, Event, ExceptionInfo, Fingerprint, Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALGORITHM", "crashed_stack", "fingerprint", "grouped", "title_and_culprit"]

ALGORITHM = "native128/1"
_PERSON = ALGORITHM.encode()
MAX_FRAMES = 32
"""How many frames count: below, stacks of one bug differ by who called."""

_MAX_COMPONENTS = 128
_TYPE, _FRAME, _MESSAGE = b"T", b"F", b"M"
_OWN = "the application's own code"
_NOT_OWN = "not the application's own code"
_NOBODYS = "no frame is the application's own code"
_UNTOLD = STARTERS | TERMINATORS
"""Functions that are no names in this: every stack has some of them."""


def fingerprint(event: Event) -> Fingerprint:
    """Return the group of an event, with a component for its exception type and for every frame or run of frames."""
    return grouped(event)[0]


def title_and_culprit(event: Event) -> tuple[str, str | None]:
    """Return one line that says what happened, and one that says where; the place is the first frame that counts."""
    return grouped(event)[1:]


def grouped(event: Event) -> tuple[Fingerprint, str, str | None]:
    """Return what ``fingerprint`` and ``title_and_culprit`` do, of one look at the stack."""
    decisive = _decisive(event)
    kind = decisive.type if decisive is not None else None
    frames = _stack(event, decisive)
    judged, first = _judge(frames)
    components: list[Component] = []
    fields: list[bytes] = []
    if kind:
        fields.append(_field(_TYPE, kind))
        components.append(Component(text=kind, contributes=True, why="the kind of crash"))
    counted = [_field(_FRAME, c.text) for c in judged if c.contributes]
    if not counted:
        message = next((e.value for e in event.exceptions or () if e.value), None) or event.message
        if message:
            fields.append(_field(_MESSAGE, message))
            judged.append(Component(text=message, contributes=True, why="no frame counts, so the message does"))
    fields += counted
    components += judged[:_MAX_COMPONENTS]
    digest = hashlib.blake2b(b"".join(fields), digest_size=16, person=_PERSON).hexdigest()
    found = Fingerprint(id=digest, algorithm=ALGORITHM, components=components)
    what = kind or event.message or "Crash"
    if first is None:
        return found, what, None
    place = _text(first)
    line = f":{first.lineno}" if first.lineno else ""
    where = f" ({first.filename}{line})" if first.filename else ""
    return found, f"{what} in {place}", f"{place}{where}"


@lru_cache(maxsize=16_384)
def _short_field(tag: bytes, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return tag + len(data).to_bytes(4, "little") + data


def _field(tag: bytes, text: str) -> bytes:
    # Frames of one program come again and again; what is long is an error's message.
    return _short_field(tag, text) if len(text) < 512 else _short_field.__wrapped__(tag, text)


def _decisive(event: Event) -> ExceptionInfo | None:
    """Return the exception that an event is grouped by: the first with a stack of its own, else the first.

    An Objective-C exception ends in ``abort``, whose stack and signal are the same for all of them.
    """
    told = [e for e in event.exceptions or () if e.mechanism != "suppressed"]
    return next((e for e in told if e.frames), next((e for e in told if e.type), None))


def crashed_stack(event: Event) -> Sequence[Frame]:
    """Return the frames an event is grouped by: an exception's own, else the crashed thread's, else the first's."""
    return _stack(event, _decisive(event))


def _stack(event: Event, decisive: ExceptionInfo | None) -> Sequence[Frame]:
    if decisive is not None and decisive.frames:
        return decisive.frames
    threads = event.threads or ()
    for thread in threads:
        if thread.crashed and thread.frames:
            return thread.frames
    return next((t.frames for t in threads if t.frames), ())


def _judge(frames: Sequence[Frame]) -> tuple[list[Component], Frame | None]:
    """Return a component for each run of equal frames: its text, whether it counts, and why; and the place to name.

    That is the first frame that counts, else the first.
    """
    telling = [f.function is not None and f.function not in _UNTOLD for f in frames]
    named = True in telling
    # Whether there are certain frames of the application's own, named where any is.
    ours = any(
        f.in_app and f.trust != "scan" and (tells or not named) for f, tells in zip(frames, telling, strict=True)
    )
    found: list[Component] = []
    place: Frame | None = None
    counted = repeats = 0
    previous: Component | None = None
    for frame, tells in zip(frames, telling, strict=True):
        function = frame.function
        text = _text(frame) if function is None else _label(function, frame.module)
        if tells and frame.trust != "scan":
            contributes = bool(frame.in_app) or not ours
            why = _OWN if frame.in_app else _NOT_OWN if ours else _NOBODYS
        else:
            contributes, why = _verdict(frame, ours=ours, named=named)
        if contributes and place is None:
            place = frame
        if previous is not None and previous.text == text:
            repeats += 1
            continue
        if repeats > 1 and previous is not None:
            _add_repeats(previous, repeats)
        if contributes:
            if counted == MAX_FRAMES:
                contributes, why = False, f"deeper than the {MAX_FRAMES} frames that count"
            else:
                counted += 1
        previous = Component(text=text, contributes=contributes, why=why)
        found.append(previous)
        repeats = 1
    if repeats > 1 and previous is not None:
        _add_repeats(previous, repeats)
    return found, place or (frames[0] if frames else None)


def _add_repeats(component: Component, repeats: int) -> None:
    component.why += f"; {repeats} in a row count as one" if component.contributes else f"; {repeats} in a row"


@lru_cache(maxsize=16_384)
def _label(function: str, module: str | None) -> str:
    name = normalize_function(function)
    return f"{module}.{name}" if module else name


def _text(frame: Frame) -> str:
    if frame.function is not None:
        return _label(frame.function, frame.module)
    if frame.package is not None:
        return f"{module_name(frame.package).lower()}+{frame.rva}"
    return "address in no module"


def _verdict(frame: Frame, *, ours: bool, named: bool) -> tuple[bool, str]:
    """Tell whether a frame counts, of a stack with own or named frames."""
    function = frame.function
    if function is None:
        if frame.package is None:
            return False, "it belongs to no module"
        if frame.trust == "scan":
            return False, "a guess without a name"
        if named:
            return False, "it has no symbol, others have"
        if ours and not frame.in_app:
            return False, _NOT_OWN
        return True, "no frame has a symbol, so addresses count; another build is another group"
    if function in _UNTOLD:
        return False, "it starts every thread" if function in STARTERS else "it is how programs end, not why"
    if ours and not frame.in_app:
        return False, _NOT_OWN
    if ours and frame.trust == "scan":
        return False, "found by scanning the stack, others are certain"
    return True, _OWN if frame.in_app else _NOBODYS
