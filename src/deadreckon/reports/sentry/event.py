"""A Sentry event, decoded, into a RawCrash.

Specification: Sentry's "Event Payloads", with the spellings of before 2018 (``sentry.interfaces.Exception``), in which
its own samples still are. ``stacks`` reads exceptions, threads and frames, ``images`` what was loaded. What the event
has no field of its own for is in ``attributes``, under Sentry's name for it; Python's ``modules`` are ``packages``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.model.crash import RawCrash, RawThread
from deadreckon.model.ids import Arch
from deadreckon.reports import payload
from deadreckon.reports.backtrace.fields import Reading
from deadreckon.reports.payload import kept, mapping, members, seconds, sequence, text
from deadreckon.reports.sentry.document import Document, decode, document_of
from deadreckon.reports.sentry.images import Images
from deadreckon.reports.sentry.stacks import PLATFORMS, Stacks

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawException, RawFrame
    from deadreckon.model.registers import Registers

__all__ = ["crash_of", "read_event"]

_FIRST_KEPT = Document.__struct_fields__.index("type")
_KEPT = Document.__struct_fields__[_FIRST_KEPT:]
_LEVELS = frozenset({"fatal", "error", "warning", "info", "debug"})
_LEVEL_NAMES = {"warn": "warning", "critical": "fatal", "log": "info"}
_SDKS = {
    "sentry.javascript": "javascript",
    "sentry.python": "python",
    "sentry.java": "java",
    "sentry.native": "native",
    "sentry.cocoa": "native",
    "sentry.rust": "native",
    "sentry-rust": "native",
    "sentry-cocoa": "native",
    "sentry.dotnet": "csharp",
    "sentry.ruby": "ruby",
    "sentry.php": "php",
    "sentry.go": "go",
    "sentry.dart": "dart",
    "sentry.elixir": "elixir",
}
_LANGUAGES = {
    ".js": "javascript",
    ".mjs": "javascript",
    ".jsx": "javascript",
    ".ts": "javascript",
    ".tsx": "javascript",
    ".py": "python",
    ".rb": "ruby",
    ".php": "php",
    ".java": "java",
    ".kt": "java",
    ".ex": "elixir",
    ".exs": "elixir",
    ".erl": "elixir",
    ".cs": "csharp",
    ".go": "go",
}
_PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[-+ 0#]*\d*(?:\.\d+)?[sdifrxg]|\{(\w*)\}|%%")


def read_event(data: bytes | memoryview, what: str, limits: ReportLimits, form: str) -> RawCrash:
    """Return what an event's JSON says. Raises Malformed where it is no object, LimitExceeded."""
    crash = _crash(decode(data, what), limits, form)
    crash.payload = data
    return crash


def crash_of(document: dict[str, Any], limits: ReportLimits, form: str) -> RawCrash:
    """Return what an event says that is decoded already; whatever is of no use in it costs itself only."""
    crash = _crash(document_of(document), limits, form)
    crash.payload = document
    return crash


def _crash(event: Document, limits: ReportLimits, form: str) -> RawCrash:
    reading = Reading(limits)
    contexts = mapping(event.contexts)
    arch = _arch(event, contexts) if contexts or event.debug_meta is not None else Arch.UNKNOWN
    images = Images(reading, event.debug_meta, arch)
    told_platform = text(event.platform, 64)
    platform = _platform(told_platform, event)
    stacks = Stacks(reading, images, told_platform if told_platform and told_platform != "other" else platform, arch)
    exceptions = stacks.exceptions(event.exception.values) if event.exception is not None else []
    transaction = event.type == "transaction"
    crash = RawCrash(
        form,
        platform=platform,
        arch=arch,
        timestamp=seconds(event.timestamp),
        event_id=payload.event_id(event.event_id),
        exceptions=[e for e, _ in exceptions],
        threads=stacks.threads(event.threads.values) if event.threads is not None else [],
        modules=images.modules,
        mappings=images.mappings,
        level=_level(event.level) or ("info" if transaction else "error"),
        release=text(event.release, 256),
        environment=text(event.environment, 256),
        tags=_tags(event.tags, limits) if event.tags else {},
        user=kept(members(event.user)) if event.user else {},
        request=_request(event.request) if event.request else {},
        grouping=_fingerprint(event.fingerprint) if event.fingerprint else None,
        diagnostics=reading.diagnostics,
    )
    crash.message = _message(event, crash) or (text(event.transaction, 4096) if transaction else None)
    if contexts:
        _environment(crash, contexts)
    _attributes(crash, event, told_platform)
    if images.others:
        crash.attributes["debug_meta"] = {"images": images.others}
    if event.stacktrace is not None:
        loose = stacks.frames(event.stacktrace)
        exceptions = _place_loose(crash, exceptions, loose, stacks.registers(event.stacktrace))
    if platform == "native":
        _place_crashed(crash, exceptions, stacks.current)
    return crash


def _environment(crash: RawCrash, contexts: dict[str, Any]) -> None:
    """Say where the program ran, and since when."""
    operating, app = mapping(contexts.get("os")), mapping(contexts.get("app"))
    crash.os_name, crash.os_version = _line(operating.get("name")), _line(operating.get("version"))
    crash.os_build = _line(operating.get("build"))
    crash.process_name = text(app.get("app_name"), 1024)
    started = seconds(app.get("app_start_time"))
    if started is not None and crash.timestamp is not None and crash.timestamp >= started:
        crash.uptime_s = crash.timestamp - started


def _platform(told: str | None, event: Document) -> str:
    """Return the platform: what is told, else by the SDK, else by addresses or the one suffix that all files have."""
    if told and told != "other":
        return PLATFORMS.get(told, told)
    sdk = text(mapping(event.sdk).get("name"), 256) or ""
    for name, platform in _SDKS.items():
        if sdk.startswith(name):
            return platform
    suffixes = set()
    stacks = [event.stacktrace]
    stacks += [e.stacktrace for e in event.exception.values if e is not None] if event.exception is not None else []
    stacks += [t.stacktrace for t in event.threads.values[:64] if t is not None] if event.threads is not None else []
    for frame in (f for s in stacks if s is not None for f in (s.frames or ())[:256] if f is not None):
        if frame.instruction_addr is not None:
            return "native"
        file = frame.filename or frame.abs_path
        if file and file[:1] not in "<[":
            suffixes.add(_LANGUAGES.get("." + payload.base_name(file.partition("?")[0]).rpartition(".")[2]))
    return suffixes.pop() or "other" if len(suffixes) == 1 else "other"


def _arch(event: Document, contexts: dict[str, Any]) -> Arch:
    """Return the architecture: the device's, else the one that all images tell."""
    told = text(mapping(contexts.get("device")).get("arch"), 64)
    device = Arch.parse(told) if told else Arch.UNKNOWN
    if device is not Arch.UNKNOWN:
        return device
    images = sequence(mapping(event.debug_meta).get("images"))[:1024]
    if not images:
        return Arch.UNKNOWN
    found = {Arch.parse(text(i.get("arch"), 64) or "") for i in images if type(i) is dict} - {Arch.UNKNOWN}
    return found.pop() if len(found) == 1 else Arch.UNKNOWN


def _level(told: Any) -> str | None:
    spelled = (text(told, 16) or "").lower()
    return spelled if spelled in _LEVELS else _LEVEL_NAMES.get(spelled)


def _line(value: Any) -> str | None:
    told = text(value, 1024)
    return (told.strip() or None) if told else None


def _tags(told: Any, limits: ReportLimits) -> dict[str, str]:
    found = members(told)
    tags = {name: spelled for name, value in found.items() if (spelled := text(value, 4096)) is not None}
    return dict(list(tags.items())[: limits.max_annotations]) if len(tags) > limits.max_annotations else tags


def _fingerprint(told: Any) -> list[str] | None:
    """Return the parts of the client's fingerprint; ``{{ default }}`` alone says that it has none."""
    parts = [spelled for part in sequence(told)[:64] if (spelled := text(part, 1024))]
    return None if not parts or [p.strip("{} ") for p in parts] == ["default"] else parts


def _request(told: Any) -> dict[str, Any]:
    found: dict[str, Any] = kept(members(told))
    for name in ("headers", "cookies", "env"):
        if type(found.get(name)) is list:
            found[name] = members(found[name])
    return found


def _message(event: Document, crash: RawCrash) -> str | None:
    """Return the message as people read it; the one with its places for parameters stays in the attributes."""
    entry = event.logentry if event.logentry is not None else event.message
    if type(entry) is not dict:
        return text(entry)
    template = text(entry.get("message"))
    params = entry.get("params")
    if params:
        crash.attributes["logentry"] = {"message": template, "params": kept(params)}
    formatted = text(entry.get("formatted")) if type(entry.get("formatted")) is str else None
    return formatted or (_formatted(template, params) if template else text(event.message))


def _formatted(template: str, params: Any) -> str:
    """Put parameters in their places, as Python's ``%`` and ``{}`` have them; what has no parameter stays."""
    by_name = params if type(params) is dict else {}
    in_order = list(params) if type(params) is list else []
    if not by_name and not in_order:
        return template
    position = 0

    def put(match: re.Match[str]) -> str:
        nonlocal position
        if match[0] == "%%":
            return "%"
        name = match[1] or match[2]
        if name:
            told = by_name.get(
                name, in_order[int(name)] if name.isdecimal() and int(name[:9]) < len(in_order) else None
            )
        else:
            told = in_order[position] if position < len(in_order) else None
            position += 1
        spelled = text(told, 4096)
        return match[0] if spelled is None else spelled

    return _PLACEHOLDER.sub(put, template)[:65_536]


def _attributes(crash: RawCrash, event: Document, told_platform: str | None) -> None:
    attributes = crash.attributes
    for name, value in zip(_KEPT, msgspec.structs.astuple(event)[_FIRST_KEPT:], strict=True):
        if value is not None and value not in ("", {}, []):
            attributes[name] = kept(value)
    trail = attributes.get("breadcrumbs")
    if type(trail) is dict:
        attributes["breadcrumbs"] = trail.get("values") or []
    if sdk := mapping(event.sdk):
        attributes["sdk"] = {k: kept(sdk[k]) for k in ("name", "version", "integrations", "packages") if sdk.get(k)}
    if packages := mapping(event.modules):
        attributes["packages"] = kept(packages)
    if told_platform and told_platform != crash.platform:
        attributes["platform"] = told_platform


def _place_loose(
    crash: RawCrash,
    exceptions: list[tuple[RawException, Registers | None]],
    frames: list[RawFrame] | None,
    registers: Registers | None,
) -> list[tuple[RawException, Registers | None]]:
    """Give the stack that an event itself has to its only exception, else to a thread; return the exceptions."""
    if not frames:
        return exceptions
    if len(crash.exceptions) == 1 and not crash.exceptions[0].frames:
        crash.exceptions[0].frames = frames
        return [(crash.exceptions[0], registers)]
    crash.threads.insert(0, RawThread(0, registers=registers, frames=frames))
    return exceptions


def _place_crashed(
    crash: RawCrash, exceptions: list[tuple[RawException, Registers | None]], current: int | None
) -> None:
    """Give the stack of what was thrown last, which ended the program, to the thread that crashed."""
    told = next(((e, r) for e, r in exceptions if e.frames), None)
    if told is None:
        return
    exception, its_registers = told
    number = exception.thread_id
    thread = next((t for t in crash.threads if number is not None and t.id == number), None)
    if thread is None:
        marked = [t for t in crash.threads if t.crashed] or [t for t in crash.threads if t.id == current]
        thread = marked[0] if len(marked) == 1 else None
    if thread is None:
        thread = RawThread(number if number is not None else 0, crashed=crash.level == "fatal" or not crash.threads)
        crash.threads.insert(0, thread)
    addresses = [f.instruction_addr for f in exception.frames or ()]
    if not thread.frames or [f.instruction_addr for f in thread.frames] == addresses:
        thread.frames, exception.frames = exception.frames, None
        thread.registers = its_registers or thread.registers
    exception.thread_id = thread.id
