"""Stack-trace rules applied one rule, one frame and one action at a time, as Sentry's documentation tells them.

Frames are dicts with family, function, module, package, path, app and category; the outermost is the first. Patterns
know ``*`` only, which crosses everything.
"""

from __future__ import annotations

from typing import Any

Frame = dict[str, Any]


def glob(pattern: str, text: str) -> bool:
    """Match by trying every length for every star."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and pattern[0] == text[0] and glob(pattern[1:], text[1:])


def holds(matcher: tuple[str, str, bool, str], frames: list[Frame], at: int, exception: dict[str, str]) -> bool:
    """Tell whether a matcher (key, pattern, negated, where) holds at a frame."""
    key, pattern, negated, where = matcher
    at += {"frame": 0, "caller": -1, "callee": 1}[where]
    if not 0 <= at < len(frames):
        return False
    frame = frames[at]
    if key in {"type", "value", "mechanism"}:
        found = glob(pattern, exception.get(key) or "<unknown>")
    elif key == "app":
        found = bool(frame["app"]) == (pattern == "yes")
    elif key == "function":
        found = glob(pattern, frame["function"] or "<unknown>")
    elif key == "family":
        found = frame["family"] in pattern.split(",")
    else:
        found = frame[key] is not None and glob(pattern, frame[key])
    return found is not negated


def reached(frames: list[Frame], at: int, reach: str) -> list[Frame]:
    """Return the frames that an action with a range is for."""
    return {"": frames[at : at + 1], "^": frames[at + 1 :], "v": frames[:at]}[reach]


def apply(rules: list[Any], frames: list[Frame], exception: dict[str, str]) -> dict[str, Any]:
    """Apply rules, each a list of matchers and one of actions; frames get app, category, group, prefix, sentinel."""
    variables: dict[str, Any] = {"max-frames": 0, "min-frames": 0, "invert-stacktrace": None}
    for frame in frames:
        frame.update(group=None, prefix=False, sentinel=False)
    for last in (False, True):
        for matchers, actions in rules:
            hits = [i for i in range(len(frames)) if all(holds(m, frames, i, exception) for m in matchers)]
            for at in hits:
                for name, value, reach in actions:
                    if name == "category" and not last:
                        frames[at]["category"] = value
                    elif name == "app" and not last:
                        for frame in reached(frames, at, reach):
                            frame["app"] = value
                    elif name in {"group", "prefix", "sentinel"} and last:
                        for frame in reached(frames, at, reach):
                            frame[name] = value
                    elif name in variables and last:
                        variables[name] = value
    return variables
