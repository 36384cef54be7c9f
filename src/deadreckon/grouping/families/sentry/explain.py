"""Why a Sentry hash is what it is: each frame and each other part of a variant, whether it counted, and why (not)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.grouping.families.sentry.frames import parts_of
from deadreckon.grouping.rules.model import FlagAction
from deadreckon.grouping.rules.read import is_default
from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.grouping.families.sentry.grouping import Variant
    from deadreckon.grouping.families.sentry.stacks import Node, View

__all__ = ["components"]

_MAX_COMPONENTS = 1024


def components(name: str, variant: Variant) -> list[Component]:
    """Return what a variant was made of, in the order it is hashed."""
    if variant.kind in {"checksum", "fallback"}:
        why = "the client's checksum" if variant.kind == "checksum" else "nothing of the event counts"
        return [Component(text=variant.hash or "", contributes=True, why=why)]
    counts = variant.hash is not None
    told = [v for v in variant.values if not is_default(v)]
    found = [Component(text=v, contributes=counts, why="a value of the fingerprint") for v in told]
    for node in variant.nodes:
        found.extend(_of(name, node, counts=variant.hash is not None, above=""))
    return found[:_MAX_COMPONENTS]


def _of(name: str, node: Node, *, counts: bool, above: str) -> Iterator[Component]:
    counts = counts and node.contributes
    above = node.why or above
    if node.kind == "stacktrace":
        if node.view is not None:
            yield from _frames(name, node, node.view, counts=counts, above=above)
        return
    if node.parts:
        for part in node.parts:
            yield from _of(name, part, counts=counts, above=above)
    elif node.data or node.why:
        why = _KINDS.get(node.kind, node.kind) if counts else above or "it does not count"
        yield Component(text=node.data.decode("utf-8", "replace"), contributes=counts, why=why)


_KINDS = {
    "type": "the exception's type",
    "value": "the exception's value, for there is no stack that counts",
    "ns-error": "domain and code of the error",
    "message": "the message",
    "salt": "what kind of report it is",
    "hostname": "the host it is about",
    "uri": "what was blocked",
    "violation": "what was violated",
    "filename": "the template's file",
    "context-line": "the template's line",
}


def _frames(name: str, node: Node, view: View, *, counts: bool, above: str) -> Iterator[Component]:
    for index, frame in enumerate(view.frames):
        bit = 1 << index
        platform = frame.platform or view.platform
        parts, _ = parts_of(frame, platform, view.options)
        told = [p.value for p in parts if p.value and p.contributes] or [p.value for p in parts if p.value]
        text = " | ".join(told) or (frame.package or "nothing known")
        in_mask = bool(node.mask & bit)
        if in_mask and counts:
            why = _by_rule(view, index, "group", value=True) or "it counts"
            left = [
                f"{p.kind}: {p.why}" for p in parts if p.why and not p.contributes and p.value and p.kind != "filename"
            ]
            yield Component(text=text, contributes=True, why="; ".join([why, *left]))
        elif in_mask:
            yield Component(text=text, contributes=False, why=above or "the variant does not count")
        else:
            yield Component(text=text, contributes=False, why=_reason(name, view, index))


def _reason(name: str, view: View, index: int) -> str:
    """Return why a frame is not among those that count."""
    bit = 1 << index
    if rule := _by_rule(view, index, "group", value=False):
        return rule
    if view.recursion & bit:
        return "the frame before calls itself"
    if view.lonely & bit:
        return "a script's only frame, without a function"
    if name == "app" and not view.state.app & bit:
        return _by_rule(view, index, "app", value=False) or "not the application's own code"
    if view.counted[index].contributes == "0":
        return "nothing of it counts"
    if name.startswith("app-depth"):
        return "not among the nearest frames that this depth takes"
    if view.state.max_frames_rule is not None:
        return f"only the nearest {view.state.max_frames} count, by {view.state.max_frames_rule}"
    return "it does not count"


def _by_rule(view: View, index: int, flag: str, *, value: bool) -> str:
    """Return the rule that had the last word on a flag of a frame, if it said so."""
    for rule, action, frames in reversed(view.steps):
        if isinstance(action, FlagAction) and action.flag == flag and frames >> index & 1:
            return f"by the rule {rule}" if action.value is value else ""
    return ""
