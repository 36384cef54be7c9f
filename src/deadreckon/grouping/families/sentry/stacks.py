"""Stacks of a Sentry event: which of their frames count, as rules have it, in each variant.

``app`` counts the application's frames and ``system`` all; the hierarchical configuration instead counts the nearest
frame that says something, the nearest two and so on (``app-depth-1`` ... ``app-depth-max``). Masks have a bit for each
frame, the outermost lowest. Specification: sentry's ``stacktrace:v1`` and ``hierarchical`` of 2023-02.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING

from deadreckon.grouping.families.sentry.payload import MAX_FRAMES
from deadreckon.grouping.rules.stack import Step, frames_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deadreckon.grouping.families.sentry.frames import Counted, Frames, Options
    from deadreckon.grouping.families.sentry.payload import Frame, Stacktrace
    from deadreckon.grouping.rules.stack import StackState

__all__ = ["Node", "View", "stack_variants"]

_LAYERS = 5


@dataclass(slots=True)
class View:
    """What a variant of a stack was made from, for explaining it."""

    frames: list[Frame]
    counted: list[Counted]
    state: StackState
    steps: list[Step]
    recursion: int
    lonely: int
    platform: str | None
    options: Options


@dataclass(slots=True)
class Node:
    """A component of a variant: the bytes of all that counts in it, one after the other, with nothing in between.

    ``mask`` and ``view`` are those of a stack, ``holds`` tells whether a part of it is a stack that counts.
    """

    kind: str
    contributes: bool
    data: bytes = b""
    parts: tuple[Node, ...] = ()
    why: str = ""
    mask: int = 0
    view: View | None = None
    holds: bool = False

    @staticmethod
    def of(kind: str, parts: list[Node]) -> Node:
        """Return a component made of others; it counts if one of them does."""
        counting = [p for p in parts if p.contributes]
        holds = any([p.holds or p.kind == "stacktrace" for p in counting])  # noqa: C419  (faster for three)
        data = b"".join([p.data for p in counting])
        return Node(kind, bool(counting), data, tuple(parts), "", 0, None, holds)


class _Stack:
    """A stack with the rules applied."""

    __slots__ = ("count", "data", "known", "state", "view")

    def __init__(self, data: tuple[bytes, ...], state: StackState, view: View | None) -> None:
        self.data = data
        self.count = len(data)
        self.state = state
        self.view = view
        self.known: dict[int, bytes] = {}

    def node(self, mask: int, why: str = "") -> Node:
        return Node("stacktrace", bool(mask) and not why, self.joined(mask), (), why, mask, self.view)

    def joined(self, mask: int) -> bytes:
        """Return the bytes of the frames of a mask."""
        found = self.known.get(mask)
        if found is None:
            bits = f"{mask:0{self.count}b}"[::-1]
            data = self.data if "0" not in bits else [d for d, bit in zip(self.data, bits, strict=False) if bit == "1"]
            found = self.known[mask] = b"".join(data)
        return found

    def limited(self, base: int) -> tuple[int, str]:
        """Return the frames that count after the rules' last word, and why the whole stack doesn't."""
        state = self.state
        mask = (base | state.on) & ~state.off
        if state.max_frames:
            for _ in range(mask.bit_count() - state.max_frames):
                mask &= mask - 1
        if state.min_frames and 0 < mask.bit_count() < state.min_frames:
            return mask, f"only {mask.bit_count()} frames count, of {state.min_frames} that are required"
        return mask, ""


def stack_variants(
    stack: Stacktrace,
    frames: Frames,
    platform: str | None,
    exception: Mapping[str, str | None] | None,
    *,
    explain: bool,
) -> dict[str, Node]:
    """Return the variants of a stack; ``!`` before a name says that others with the same hash are of no use."""
    told = [f for f in stack.frames or () if f is not None][-MAX_FRAMES:]
    counted = frames.counted(told, platform)
    base = app = recursion = lonely = 0
    tests: tuple[tuple[int, ...], ...] = ()
    data: tuple[bytes, ...] = ()
    if counted:
        tests, data, contributes, in_app, places, _ = zip(*counted, strict=True)
        base, app = int("".join(contributes)[::-1], 2), int("".join(in_app)[::-1], 2)
        if any(map(is_, places, places[1:])):
            recursion = sum(1 << i for i in range(1, len(places)) if places[i] is places[i - 1])
            base &= ~recursion
        if len(counted) == 1 and counted[0].lonely:
            base, lonely = 0, base
    steps: list[Step] | None = [] if explain else None
    state = frames.rules.apply(tests, app, exception, modify=frames.modify, steps=steps)
    view = View(told, counted, state, steps or [], recursion, lonely, platform, frames.options) if explain else None
    built = _Stack(data, state, view)
    if frames.options.hierarchical:
        mask, why = built.limited(base)
        return _hierarchy(built, mask, why, inverted=stack.snapshot or False if state.invert is None else state.invert)
    return {
        "!system": built.node(*built.limited(base)),
        "app": built.node(*built.limited(base & state.app)),
    }


# -- the hierarchical configuration -----------------------------------------------------------------------------------


def _hierarchy(stack: _Stack, mask: int, why: str, *, inverted: bool) -> dict[str, Node]:
    """Return a variant for each depth: by sentinels where one comes before the application's own code, else by it."""
    state = stack.state
    found: dict[str, Node] = {}
    order = list(frames_of(mask))
    rest = iter(order if inverted else order[::-1])
    layer = 0
    while len(found) < _LAYERS:
        sentinel = next((i for i in rest if state.sentinel >> i & 1 or state.app >> i & 1), None)
        if sentinel is None or not state.sentinel >> sentinel & 1:
            break
        layer |= 1 << sentinel
        if state.prefix >> sentinel & 1:
            for i in rest:
                layer |= 1 << i
                if not state.prefix >> i & 1:
                    break
        found[f"app-depth-{len(found) + 1}"] = stack.node(layer)
    if found:
        found["app-depth-max"] = stack.node(mask, why)
    else:
        found = _by_application(stack, mask, inverted=inverted)
    found["system"] = stack.node(mask, why)
    return found


def _by_application(stack: _Stack, mask: int, *, inverted: bool) -> dict[str, Node]:
    """Return the frame to blame alone, with one more on either side, and so on."""
    if not stack.count:
        return {"app-depth-max": stack.node(0)}
    state = stack.state
    last = stack.count - 1
    blamed = 0 if inverted else last
    for candidates in (mask & state.app, mask & ~state.prefix, mask):
        if candidates:
            blamed = next(iter(frames_of(candidates))) if inverted else candidates.bit_length() - 1
            break
    eligible = mask & state.app if state.app >> blamed & 1 else mask
    found: dict[str, Node] = {}
    size = 0

    def level(depth: int | None) -> tuple[int, int]:
        before = _side(range(blamed - 1, -1, -1), eligible, state.prefix, blamed, depth)
        after = _side(range(blamed + 1, last + 1), eligible, state.prefix, blamed, depth)
        return before | after, (before | after).bit_count() + 1

    own = mask >> blamed & 1  # A frame to blame that doesn't count is there for show.
    while len(found) < _LAYERS:
        others, now = level(len(found) + 1)
        if now == size:
            break
        size = now
        found[f"app-depth-{len(found) + 1}"] = stack.node(others | own << blamed)
    others, _ = level(None)
    found["app-depth-max"] = stack.node(others | own << blamed)
    return found


def _side(indexes: Iterable[int], eligible: int, prefix: int, blamed: int, depth: int | None) -> int:
    """Return the frames to one side, up to a depth; a prefix frame takes the next one along."""
    found = added = 0
    carried = prefix >> blamed & 1
    for i in indexes:
        if not eligible >> i & 1:
            continue
        if not carried:
            if depth is not None and added == depth - 1:
                break
            added += 1
        found |= 1 << i
        carried = prefix >> i & 1
    return found
