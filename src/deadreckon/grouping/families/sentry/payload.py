"""Of a Sentry event, what it is grouped by: types for msgspec, which skips the rest of the JSON without making objects.

``decode`` takes JSON as Relay stores it; ``convert`` takes any decoded event, puts what clients may spell in several
ways as Relay does, and lets go of values of the wrong type. Specification: Sentry's "Event Payloads"; Relay's store
normalization, as far as grouping sees it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from deadreckon.errors import Malformed

__all__ = ["Event", "Exc", "Frame", "FrameData", "Mechanism", "Stacktrace", "Thread", "convert", "decode", "tags_of"]

MAX_FRAMES = 4096
"""Frames of a stack that count, those nearest to the crash."""
MAX_VALUES = 256
"""Exceptions and threads of an event."""


class FrameData(msgspec.Struct, frozen=True, gc=False):
    """What processing noted of a frame: the source map that was applied, and in_app as the client had it (-1: not)."""

    sourcemap: str | None = None
    orig_in_app: int | None = None
    category: str | None = None


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame. Equal ones are one symbol at one place, so it is looked up as it is."""

    function: str | None = None
    raw_function: str | None = None
    module: str | None = None
    package: str | None = None
    filename: str | None = None
    abs_path: str | None = None
    context_line: str | None = None
    lineno: int | None = None
    colno: int | None = None
    platform: str | None = None
    in_app: bool | None = None
    data: FrameData | None = None


class Stacktrace(msgspec.Struct, gc=False):
    """A stack, outermost frame first. A snapshot was taken of a running thread, so its outer frames tell more."""

    frames: list[Frame | None] | None = None
    snapshot: bool | None = None


class NsError(msgspec.Struct, gc=False):
    """Apple's error: its domain and code."""

    domain: str | None = None
    code: int | str | None = None


class Meta(msgspec.Struct, gc=False):
    """What the operating system told of an exception."""

    ns_error: NsError | None = None


class Mechanism(msgspec.Struct, gc=False):
    """How an exception came to be noticed; a synthetic one has a type made up of an error code."""

    type: str | None = None
    synthetic: bool | None = None
    meta: Meta | None = None


class Exc(msgspec.Struct, gc=False):
    """An exception."""

    type: str | None = None
    value: str | None = None
    module: str | None = None
    mechanism: Mechanism | None = None
    stacktrace: Stacktrace | None = None


class Exceptions(msgspec.Struct, gc=False):
    """The chain of exceptions, the one raised last at the end."""

    values: list[Exc | None] | None = None


class Thread(msgspec.Struct, gc=False):
    """A thread."""

    crashed: bool | None = None
    current: bool | None = None
    stacktrace: Stacktrace | None = None


class Threads(msgspec.Struct, gc=False):
    """All threads."""

    values: list[Thread | None] | None = None


class LogEntry(msgspec.Struct, gc=False):
    """A message, and the template it was made from."""

    message: str | None = None
    formatted: str | None = None


class Template(msgspec.Struct, gc=False):
    """Where an engine of templates failed."""

    filename: str | None = None
    context_line: str | None = None


class Report(msgspec.Struct, gc=False):
    """A browser's report: of a content security policy, or of a certificate."""

    hostname: str | None = None
    effective_directive: str | None = None
    violated_directive: str | None = None
    blocked_uri: str | None = None


class Own(msgspec.Struct, gc=False):
    """Rules that an event of Sentry's own tests brings along."""

    enhancements: str | None = None


class Event(msgspec.Struct, gc=False):
    """An event."""

    platform: str | None = None
    exception: Exceptions | None = None
    threads: Threads | None = None
    stacktrace: Stacktrace | None = None
    logentry: LogEntry | None = None
    template: Template | None = None
    csp: Report | None = None
    hpkp: Report | None = None
    expectct: Report | None = None
    expectstaple: Report | None = None
    checksum: str | None = None
    fingerprint: list[Any] | None = None
    tags: msgspec.Raw = msgspec.Raw()
    transaction: str | None = None
    level: str | None = None
    logger: str | None = None
    release: str | None = None
    sdk: msgspec.Raw = msgspec.Raw()
    grouping: Own | None = msgspec.field(default=None, name="_grouping")
    own_fingerprint_rules: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="_fingerprinting_rules")


_decoder = msgspec.json.Decoder(Event)


def decode(data: bytes | memoryview | str) -> Event:
    """Read an event's JSON as Relay stores it; what differs from that goes the way of ``convert``. Raises Malformed."""
    try:
        try:
            return _decoder.decode(data)
        except msgspec.ValidationError:
            document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise Malformed("Sentry event", expected="JSON", got=str(e)[:200]) from e
    return convert(document)


def convert(document: Any) -> Event:
    """Return what grouping needs of a decoded event, whatever it looks like. Raises Malformed if it is no object."""
    if type(document) is not dict:
        raise Malformed("Sentry event", expected="a JSON object", got=type(document).__name__)
    told = {name: _entry(name, value) for name, value in document.items() if name in _MEMBERS}
    if "logentry" not in told and type(document.get("message")) in {str, dict}:
        told["logentry"] = _logentry(document["message"])
    if not told.get("platform"):
        told["platform"] = "other"
    raw = {attribute: told.pop(name, None) or msgspec.Raw() for name, attribute in _RAW.items()}
    event = msgspec.convert({name: value for name, value in told.items() if value is not None}, Event, strict=False)
    for attribute, value in raw.items():
        setattr(event, attribute, value)
    return event


def tags_of(event: Event) -> list[tuple[str, str]]:
    """Return an event's tags; they come as an object or as pairs."""
    told = msgspec.json.decode(event.tags) if event.tags else ()
    pairs = told.items() if type(told) is dict else told if type(told) is list else ()
    found = [(p[0], p[1]) for p in pairs if type(p) in {list, tuple} and len(p) == 2]
    return [(k, v) for k, v in found if type(k) is str and type(v) is str]


# -- any event --------------------------------------------------------------------------------------------------------

_TYPE_AND_VALUE = re.compile(r"^(\w+):(.*)$")


def _text(value: Any) -> str | None:
    return value if type(value) is str else str(value) if type(value) in {int, float} else None


def _number(value: Any) -> int | None:
    if type(value) is str and value.strip().isdecimal():
        value = int(value.strip()[:18])
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 1 << 62 else None


def _truth(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _object(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


def _several(value: Any, one: Any) -> dict[str, Any] | None:
    """Return a list under ``values``; clients also send the bare list or its only member."""
    if type(value) is dict and "values" in value:
        value = value["values"]
    elif type(value) is dict and value:
        value = [value]
    if value is None:
        return {}
    if type(value) is not list:
        return None
    return {"values": [one(v) for v in value[-MAX_VALUES:] if type(v) is dict]}


def _frame(value: dict[str, Any]) -> dict[str, Any]:
    frame: dict[str, Any] = {name: _text(value.get(name)) for name in _FRAME_TEXTS}
    if frame["function"] == "?":
        frame["function"] = None
    if not frame["abs_path"]:
        frame["abs_path"], frame["filename"] = frame["filename"], None
    if not frame["filename"]:
        frame["filename"] = _file_of(frame["abs_path"])
    frame["lineno"], frame["colno"] = _number(value.get("lineno")), _number(value.get("colno"))
    frame["in_app"] = _truth(value.get("in_app"))
    data = _object(value.get("data"))
    frame["data"] = {
        "sourcemap": _text(data.get("sourcemap")),
        "orig_in_app": _number(data.get("orig_in_app")),
        "category": _text(data.get("category")),
    }
    return frame


_FRAME_TEXTS = ("function", "raw_function", "module", "package", "filename", "abs_path", "context_line", "platform")


def _file_of(path: str | None) -> str | None:
    if path and path.startswith(("http:", "https:", "file:")):
        try:
            inside = urlsplit(path).path
            return inside if inside.strip("/") else path
        except ValueError:
            return path
    return path


def _stacktrace(value: Any) -> dict[str, Any] | None:
    if type(value) is not dict:
        return None
    frames = value.get("frames")
    kept = [_frame(f) for f in frames[-MAX_FRAMES:] if type(f) is dict] if type(frames) is list else None
    return {"frames": kept, "snapshot": _truth(value.get("snapshot"))}


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    kind, told = _text(value.get("type")), _text(value.get("value"))
    if not kind and told and (parts := _TYPE_AND_VALUE.match(told)):
        kind, told = parts[1], parts[2].strip()
    mechanism = value.get("mechanism")
    told_of: dict[str, Any] | None = None
    if type(mechanism) is dict:
        error = _object(mechanism.get("meta")).get("ns_error")
        code = _object(error).get("code")
        told_of = {
            "type": _text(mechanism.get("type")),
            "synthetic": _truth(mechanism.get("synthetic")),
            "meta": {
                "ns_error": {
                    "domain": _text(_object(error).get("domain")),
                    "code": code if type(code) in {int, str} else None,
                }
                if type(error) is dict
                else None
            },
        }
    return {
        "type": kind,
        "value": told,
        "module": _text(value.get("module")),
        "mechanism": told_of,
        "stacktrace": _stacktrace(value.get("stacktrace")),
    }


def _thread(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "crashed": _truth(value.get("crashed")),
        "current": _truth(value.get("current")),
        "stacktrace": _stacktrace(value.get("stacktrace")),
    }


def _logentry(value: Any) -> dict[str, Any] | None:
    if type(value) is str:
        return {"formatted": value}
    if type(value) is not dict:
        return None
    return {"message": _text(value.get("message")), "formatted": _text(value.get("formatted"))}


def _texts(value: Any) -> dict[str, Any] | None:
    return {k: _text(v) for k, v in value.items() if type(k) is str} if type(value) is dict else None


def _raw(value: Any) -> msgspec.Raw | None:
    return msgspec.Raw(msgspec.json.encode(value)) if type(value) in {dict, list} else None


_RAW = {"tags": "tags", "sdk": "sdk", "_fingerprinting_rules": "own_fingerprint_rules"}
_MEMBERS: dict[str, Any] = {
    "exception": lambda value: _several(value, _exception),
    "threads": lambda value: _several(value, _thread),
    "stacktrace": _stacktrace,
    "logentry": _logentry,
    "template": _texts,
    "csp": _texts,
    "hpkp": _texts,
    "expectct": _texts,
    "expectstaple": _texts,
    "fingerprint": lambda value: value if type(value) is list else [value] if type(value) is str else None,
    "tags": _raw,
    "sdk": _raw,
    "_grouping": _texts,
    "_fingerprinting_rules": _raw,
    **dict.fromkeys(("platform", "checksum", "transaction", "level", "logger", "release"), _text),
}


def _entry(name: str, value: Any) -> Any:
    return None if value is None else _MEMBERS[name](value)
