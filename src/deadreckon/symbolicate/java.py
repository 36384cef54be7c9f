"""Java frames through a ProGuard or R8 mapping: names, files and lines of the source, inlined calls expanded.

A Java frame has ``lang`` "java", its class in ``module`` and its method in ``function``. What it becomes keeps the
renamed position in ``origin``. Where the mapping leaves several possibilities all of them are frames, and ``origin``
says so: ``alternative`` (from 1) of ``alternatives``; it has ``outline`` where the position was taken from code that R8
shares between methods, and ``synthesized`` where the compiler made the method. Specification: R8 ``doc/retrace.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import LimitExceeded
from deadreckon.model.event import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping, Sequence

    from deadreckon.model.event import ExceptionInfo, Frame
    from deadreckon.objects.proguard import Mapping, Outline, Position

__all__ = ["in_app", "is_java", "map_ids", "retrace", "retrace_stack"]

_PLATFORM = (
    *("java.", "javax.", "jdk.", "sun.", "com.sun.", "kotlin.", "kotlinx.", "scala.", "groovy."),
    *("android.", "androidx.", "com.android.", "dalvik.", "libcore.", "art."),
)
_MAP_ID = "r8-map-id-"
"""What R8 gives as the source file of all classes where it is told to: the id of the mapping follows."""


def is_java(frame: Frame) -> bool:
    """Tell whether a frame is one of Java or another language of its machine."""
    return frame.lang == "java" and frame.module is not None and frame.function is not None


def in_app(class_name: str) -> bool:
    """Tell whether a class is the application's own, as opposed to the platform's or the language's."""
    return not class_name.startswith(_PLATFORM)


def map_ids(stacks: Iterable[Sequence[Frame]]) -> list[str]:
    """Return the mapping ids that frames name as their source file."""
    names = (f.filename for stack in stacks for f in stack if f.filename and f.filename.startswith(_MAP_ID))
    return list(dict.fromkeys(name.removeprefix(_MAP_ID).lower() for name in names))


def retrace(
    stacks: MutableMapping[int, list[Frame]],
    exceptions: Sequence[ExceptionInfo],
    first: int,
    mappings: Sequence[Mapping],
) -> list[Diagnostic]:
    """Replace Java frames and names of exceptions by what the first mapping that knows their class says of them.

    ``stacks`` are by number: from ``first`` on those of ``exceptions``, before that those of threads. Whether a frame
    is the application's own is told here too, by its class.
    """
    said: list[Diagnostic] = []
    if mappings:
        thrown: dict[int, list[str]] = {}
        for number, exception in enumerate(exceptions, first):
            if exception.type is not None:
                knows = _knowing(mappings, exception.type)
                original = (knows.class_name(exception.type) if knows else None) or exception.type
                thrown[number] = [exception.type, original]
                exception.type = original
        for number, frames in stacks.items():
            if any(map(is_java, frames)):
                stacks[number] = retrace_stack(frames, mappings, thrown.get(number, ()), said)
        said = _summary(said, stacks)
    for frame in (f for frames in stacks.values() for f in frames):
        if frame.in_app is None and is_java(frame):
            assert frame.module is not None
            frame.in_app = in_app(frame.module) and not (frame.origin or {}).get("synthesized")
    return said


def retrace_stack(
    frames: Sequence[Frame],
    mappings: Sequence[Mapping],
    thrown: Iterable[str] = (),
    said: list[Diagnostic] | None = None,
) -> list[Frame]:
    """Return a stack, innermost first, with its Java frames retraced.

    ``thrown`` are the names of the exception that the stack belongs to; ``said`` takes what could not be done.
    """
    found: list[Frame] = []
    outline: Outline | None = None
    left_out: Frame | None = None
    names = frozenset(thrown)
    for frame in frames:
        mapping = _knowing(mappings, frame.module) if is_java(frame) else None
        if mapping is None or frame.module is None or frame.function is None:
            # Nothing stands for shared code here, so that is shown as it is.
            found.extend([frame] if left_out is None else [left_out, frame])
            names, outline, left_out = frozenset(), None, None
            continue
        line = frame.lineno
        try:
            if outline is not None:
                moved = mapping.outlined(frame.module, frame.function, line, outline)
                line = line if moved is None else moved
            shared = mapping.outline(frame.module, frame.function, line)
            if shared is not None:
                outline, left_out = shared, frame
                continue
            chains = mapping.positions(frame.module, frame.function, line, file=frame.filename, thrown=names)
        except LimitExceeded as e:
            chains = None
            if said is not None:
                said.append(Diagnostic(code=e.code, severity="warning", stage="symbols", message=str(e)))
        found.extend([frame] if chains is None else _frames(frame, chains, outline))
        names, outline, left_out = frozenset(), None, None
    if left_out is not None:
        found.append(left_out)
    return found


def _knowing(mappings: Iterable[Mapping], class_name: str | None) -> Mapping | None:
    return next((m for m in mappings if m.class_name(class_name or "") is not None), None)


def _frames(frame: Frame, chains: Sequence[Sequence[Position]], outline: Outline | None) -> Iterator[Frame]:
    """Yield what stands for a frame: of each alternative the inlined calls, innermost first."""
    origin: dict[str, Any] = {
        name: value
        for name in ("module", "function", "filename", "lineno")
        if (value := getattr(frame, name)) is not None
    }
    if outline is not None:
        origin["outline"] = {"module": outline.class_name, "function": outline.method, "lineno": outline.line}
    count = len(chains)
    for number, chain in enumerate(chains, 1):
        for position in chain:
            here = dict(origin)
            if count > 1:
                here["alternative"], here["alternatives"] = number, count
            if position.synthesized:
                here["synthesized"] = True
            yield msgspec.structs.replace(
                frame,
                status="symbolicated",
                module=position.class_name,
                function=position.method,
                raw_function=None,
                filename=position.file,
                lineno=position.line,
                inline=position.inline,
                origin=here,
            )


def _summary(said: list[Diagnostic], stacks: MutableMapping[int, list[Frame]]) -> list[Diagnostic]:
    """Say each thing once, and how many frames are not certain."""
    found = list({d.message: d for d in said}.values())
    origins = (f.origin or {} for frames in stacks.values() for f in frames if not f.inline)
    count = sum(o.get("alternative") == 1 for o in origins)
    if count:
        message = f"the mapping leaves several positions for {count} frames; each is listed, see origin.alternatives"
        found.append(Diagnostic(code="frame_ambiguous", severity="info", stage="symbols", message=message))
    return found
