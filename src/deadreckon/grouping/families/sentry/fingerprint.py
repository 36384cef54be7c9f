"""Fingerprints of Sentry events: the client's values, those of the user's rules, and the variables in both.

Specification: Sentry's documentation, "Fingerprint Rules"; sentry's ``fingerprinting`` and ``get_fingerprint_value`` of
2023-02. What a rule asks is sorted by where it is told: of one exception, of one frame, of the message or an
exception's value, of the tags and so on; one of each kind has to fulfil all that is asked of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.grouping.families.sentry.frames import names_of
from deadreckon.grouping.families.sentry.payload import FrameData, tags_of
from deadreckon.grouping.rules import FingerprintRule, Matcher, family_of
from deadreckon.grouping.rules.globs import glob, path_glob
from deadreckon.grouping.rules.model import KEYS
from deadreckon.grouping.rules.read import DEFAULT, is_default, truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deadreckon.grouping.families.sentry.payload import Event, Exc, Frame, Stacktrace

__all__ = ["apply_rules", "client_values", "expand", "own_rules"]

_VARIABLE = re.compile(r"\{\{\s*(\S+)\s*\}\}")
_MAX_VALUES = 256
_MAX_OWN_RULES = 1000

Record = dict[str, str | bool | None]


def client_values(event: Event) -> list[str]:
    """Return the event's fingerprint with its variables resolved; without one it is ``{{ default }}``."""
    values = [v if type(v) is str else msgspec.json.encode(v).decode() for v in (event.fingerprint or ())[:_MAX_VALUES]]
    if not values or (len(values) == 1 and is_default(values[0])):
        return [DEFAULT]
    return [_resolved(v, event) for v in values]


def own_rules(event: Event) -> list[FingerprintRule]:
    """Return the rules that an event of Sentry's own tests brings along."""
    if not event.own_fingerprint_rules:
        return []
    try:
        told = msgspec.json.decode(event.own_fingerprint_rules, type=list[_OwnRule])[:_MAX_OWN_RULES]
    except msgspec.ValidationError:  # They are the event's, so they can't be relied on.
        return []
    return [
        FingerprintRule(
            tuple(_own_matcher(k, p) for k, p in r.matchers), tuple(r.fingerprint), r.attributes.get("title")
        )
        for r in told
    ]


class _OwnRule(msgspec.Struct):
    matchers: list[tuple[str, str]]
    fingerprint: list[str]
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


def stacks_of(event: Event) -> Iterable[tuple[Stacktrace, Exc | None]]:
    """Yield every stack of an event, with the exception that it is of."""
    for exception in (event.exception.values or ()) if event.exception is not None else ():
        if exception is not None and exception.stacktrace is not None:
            yield exception.stacktrace, exception
    if event.stacktrace is not None:
        yield event.stacktrace, None
    for thread in (event.threads.values or ()) if event.threads is not None else ():
        if thread is not None and thread.stacktrace is not None:
            yield thread.stacktrace, None


def settled(frame: Frame, event_platform: str | None, in_app: bool) -> Frame:  # noqa: FBT001
    """Return a frame after stack-trace rules; it remembers what in_app was before."""
    function, raw = names_of(frame, frame.platform or event_platform)
    data = frame.data or FrameData()
    if data.orig_in_app is None and frame.in_app is not in_app:
        data = msgspec.structs.replace(data, orig_in_app=-1 if frame.in_app is None else int(frame.in_app))
    return msgspec.structs.replace(frame, function=function, raw_function=raw, in_app=in_app, data=data)


def _own_matcher(key: str, pattern: str) -> Matcher:
    name = key.lstrip("!")
    return Matcher(name if name.startswith("tags.") else KEYS.get(name, name), pattern, key.startswith("!"))


def apply_rules(event: Event, rules: Sequence[FingerprintRule]) -> tuple[FingerprintRule, str | None] | None:
    """Give an event the fingerprint of the first rule that holds; return that rule and the title it makes, if any."""
    if not rules:
        return None
    told = _Told(event)
    for rule in rules:
        if told.fulfil(rule):
            event.fingerprint = list(rule.values)
            return rule, expand(rule.title, event) if rule.title is not None else None
    return None


def expand(template: str, event: Event) -> str:
    """Return a title with its variables in place; one that is not known stays as it is."""
    return _VARIABLE.sub(lambda match: _variable(match[1], event) or match[0], template)


def _resolved(value: str, event: Event) -> str:
    if is_default(value):
        return DEFAULT
    match = _VARIABLE.fullmatch(value)
    return value if match is None else _variable(match[1], event) or value


def _variable(name: str, event: Event) -> str | None:
    """Return a variable's value, or what stands for a missing one; None if there is no such variable."""
    if name.startswith("tags."):
        wanted = name[5:]
        return next((v for k, v in tags_of(event) if k == wanted), f"<no-value-for-tag-{wanted}>")
    if name in {"transaction", "level", "logger"}:
        return getattr(event, name) or f"<no-{name}>"
    last = _last_exception(event)
    if name == "message":
        entry = event.logentry
        found = (entry.formatted or entry.message) if entry is not None else None
        return found or (last.value if last is not None else None) or "<no-message>"
    short = KEYS.get(name, name)
    if short in {"type", "value"}:
        return (getattr(last, short) if last is not None else None) or f"<no-{short}>"
    frame = _crash_frame(event)
    if short == "function":
        return (frame.function if frame else None) or "<no-function>"
    if short == "path":
        return (frame.abs_path or frame.filename if frame else None) or "<no-abs-path>"
    if short == "stack.filename":
        return (frame.filename or frame.abs_path if frame else None) or "<no-filename>"
    if short == "module":
        return (frame.module if frame else None) or "<no-module>"
    if short == "package":
        package = frame.package if frame else None
        return re.split(r"[/\\]", package)[-1] if package else "<no-package>"
    return None


def _last_exception(event: Event) -> Any:
    values = event.exception.values if event.exception is not None else None
    return values[-1] if values else None


def _crash_frame(event: Event) -> Frame | None:
    """Return the application's frame nearest to the crash, else the nearest."""
    last = _last_exception(event)
    frames = last.stacktrace.frames if last is not None and last.stacktrace is not None else None
    if not frames and event.stacktrace is not None:
        frames = event.stacktrace.frames
    if not frames and event.threads is not None and len(threads := event.threads.values or []) == 1 and threads[0]:
        frames = threads[0].stacktrace.frames if threads[0].stacktrace is not None else None
    told = [f for f in reversed(frames or ()) if f is not None]
    return next((f for f in told if f.in_app), told[0] if told else None)


class _Told:
    """What an event tells rules, by kind; made when it is asked for."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._kept: dict[str, list[Record]] = {}

    def fulfil(self, rule: FingerprintRule) -> bool:
        by_kind: dict[str, list[Matcher]] = {}
        for matcher in rule.matchers:
            by_kind.setdefault(_kind(matcher.key), []).append(matcher)
        return all(
            any(all(_matches(m, record) for m in matchers) for record in self.records(kind))
            for kind, matchers in by_kind.items()
        )

    def records(self, kind: str) -> list[Record]:
        found = self._kept.get(kind)
        if found is None:
            found = self._kept[kind] = list(getattr(self, f"_{kind}")())
        return found

    def _toplevel(self) -> Iterable[Record]:
        entry = self.event.logentry
        if entry is not None and (text := entry.formatted or entry.message):
            yield {"message": text}
        yield from self._exceptions()

    def _exceptions(self) -> Iterable[Record]:
        values = self.event.exception.values if self.event.exception is not None else None
        for e in values or ():
            if e is not None:
                yield {"type": e.type, "value": e.value}

    def _frames(self) -> Iterable[Record]:
        values = self.event.exception.values if self.event.exception is not None else None
        stacks = [e.stacktrace for e in values or () if e is not None and e.stacktrace is not None]
        if not any(s.frames for s in stacks):
            stacks = [self.event.stacktrace] if self.event.stacktrace is not None else self._thread()
        for frame in (f for s in stacks for f in s.frames or () if f is not None):
            yield {
                "function": names_of(frame, frame.platform or self.event.platform)[0] or "<unknown>",
                "abs_path": frame.abs_path or frame.filename,
                "filename": frame.filename,
                "module": frame.module,
                "package": frame.package,
                "app": frame.in_app,
            }

    def _thread(self) -> list[Any]:
        threads = [t for t in (self.event.threads.values or ()) if t] if self.event.threads is not None else []
        for chosen in (threads, [t for t in threads if t.crashed], [t for t in threads if t.current]):
            if len(chosen) == 1:
                return [chosen[0].stacktrace] if chosen[0].stacktrace is not None else []
        return []

    def _log_info(self) -> Iterable[Record]:
        told = {"logger": self.event.logger, "level": self.event.level}
        if found := {k: v for k, v in told.items() if v}:
            yield {**found}

    def _tags(self) -> Iterable[Record]:
        yield {f"tags.{k}": v for k, v in tags_of(self.event)}

    def _family(self) -> Iterable[Record]:
        yield {"family": family_of(self.event.platform)}

    def _release(self) -> Iterable[Record]:
        yield {"release": self.event.release}

    def _sdk(self) -> Iterable[Record]:
        sdk = msgspec.json.decode(self.event.sdk) if self.event.sdk else None
        name = sdk.get("name") if type(sdk) is dict else None
        yield {"sdk": name if type(name) is str else None}


def _kind(key: str) -> str:
    if key == "message":
        return "toplevel"
    if key in {"logger", "level"}:
        return "log_info"
    if key in {"type", "value"}:
        return "exceptions"
    if key.startswith("tags."):
        return "tags"
    return key if key in {"sdk", "family", "release"} else "frames"


def _matches(matcher: Matcher, record: Record) -> bool:
    return _holds(matcher.key, matcher.pattern, record) is not matcher.negated


def _holds(key: str, pattern: str, record: Record) -> bool:
    if key == "path":
        told = (record.get("abs_path"), record.get("filename"))
        return any(type(v) is str and path_glob(pattern, ignore_case=True)(v) for v in told)
    if key == "message":  # People mean an exception's value too.
        told = (record.get("message"), record.get("value"))
        return any(type(v) is str and glob(pattern, ignore_case=True)(v) for v in told)
    value = record.get(key)
    if value is None:
        return False
    if key == "app":
        return value == truth(pattern)
    text = str(value)
    if key in {"package", "release"}:
        return path_glob(pattern, ignore_case=True)(text)
    if key in {"family", "sdk"}:
        flags = pattern.split(",")
        return "all" in flags or text in flags
    return glob(pattern, ignore_case=key in {"level", "value"})(text)
