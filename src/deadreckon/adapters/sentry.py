"""An event as an event of Sentry's, for its store endpoint or as an envelope's item.

Specification: Sentry's "Event Payloads" and the schema of sentry-data-schemas. Frames are listed from the caller to the
callee and exceptions from the root cause on, both the other way round than here. What Sentry has no field for is in
``extra``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon.adapters._export import crashed_thread, filled, integer
from deadreckon.adapters.scrub import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.adapters.scrub import Scrubber
    from deadreckon.model.event import Event, ExceptionInfo, Frame, ModuleInfo

__all__ = ["sentry_event"]

_LEVELS = frozenset({"fatal", "error", "warning", "info", "debug"})
_TOP_LEVEL = (
    "logger server_name transaction transaction_info culprit dist time_spent csp hpkp expectct expectstaple".split()
)
_PLACED = frozenset(
    [*_TOP_LEVEL, *"type contexts extra breadcrumbs sdk packages platform logentry debug_meta errors".split()]
)
"""Attributes that have a place of their own, or none: ``errors`` are Sentry's notes on an event it has seen before."""
_CRUMB = frozenset("timestamp type category level message data event_id".split())
_MECHANISM: dict[str, type] = {
    **dict.fromkeys(("description", "help_link", "source"), str),
    **dict.fromkeys(("handled", "is_exception_group", "synthetic"), bool),
    **dict.fromkeys(("exception_id", "parent_id"), int),
    **dict.fromkeys(("data", "meta"), dict),
}
_USER = frozenset("id email ip_address username name segment geo data sentry_user".split())
_REQUEST = frozenset(
    """
    url method headers query_string cookies data env fragment protocol api_target body_size inferred_content_type
    """.split()
)
_MANAGED = frozenset("javascript python java csharp ruby php go dart elixir perl node".split())
_APPLE = frozenset({"macos", "mac os x", "ios", "ipados", "tvos", "watchos", "visionos", "darwin"})
_WIDEST = 1 << 64


def sentry_event(event: Event, scrub: Scrubber | None = DEFAULT) -> dict[str, Any]:
    """Return an event as Sentry takes it; ``scrub`` takes secrets out before, None leaves them in."""
    event = scrub.event(event) if scrub is not None else event
    attributes = event.attributes or {}
    told: dict[str, Any] = {
        "event_id": event.event_id,
        "timestamp": event.timestamp,
        "platform": attributes.get("platform") or event.platform or "other",
        "level": event.level if event.level in _LEVELS else "error",
        "release": event.release,
        "environment": event.environment,
        "fingerprint": event.grouping,
        "tags": event.tags,
        "logentry": _logentry(event.message, attributes.get("logentry")),
        "user": _user(event.user or {}),
        "request": _request(event.request or {}),
        "contexts": _contexts(event, attributes),
        "sdk": _sdk(attributes.get("sdk")),
        "modules": attributes.get("packages"),
        "extra": _extra(attributes),
        **{name: attributes[name] for name in _TOP_LEVEL if name in attributes},
    }
    if type(trail := attributes.get("breadcrumbs")) is list:
        told["breadcrumbs"] = {"values": [_crumb(c) for c in trail if type(c) is dict]}
    if (kind := attributes.get("type")) in {"csp", "hpkp", "expectct", "expectstaple"}:
        told["type"] = kind
    _Stacks(event).add(told)
    return filled(told)


def _logentry(message: str | None, template: Any) -> dict[str, Any] | None:
    known = template if type(template) is dict else {}
    return filled({"formatted": message, "message": known.get("message"), "params": known.get("params")}) or None


def _crumb(told: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in told.items() if name in _CRUMB and value is not None}
    if found.get("level", "info") not in _LEVELS:
        found["level"] = "fatal" if found["level"] == "critical" else "info"
    if type(found.get("data", {})) is not dict:
        found["data"] = {"data": found["data"]}
    return found


def _user(told: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in told.items() if name in _USER}
    for name, value in found.items():
        if name not in {"geo", "data"} and type(value) is not str:
            found[name] = str(value)
    others = {name: value for name, value in told.items() if name not in _USER}
    data = found.get("data")
    if others:
        found["data"] = (data if type(data) is dict else {}) | others
    return found


def _request(told: dict[str, Any]) -> dict[str, Any]:
    """Return a request; Rollbar's clients have other names for some of what is in it."""
    found = {name: value for name, value in told.items() if name in _REQUEST}
    if "query_string" not in found and told.get("GET"):
        found["query_string"] = told["GET"]
    if "data" not in found and (sent := told.get("POST") or told.get("body")):
        found["data"] = sent
    if type(told.get("user_ip")) is str:
        known = found.get("env")
        found["env"] = {"REMOTE_ADDR": told["user_ip"]} | (known if type(known) is dict else {})
    return filled(found)


def _contexts(event: Event, attributes: dict[str, Any]) -> dict[str, Any]:
    told = attributes.get("contexts")
    found: dict[str, Any] = {k: v for k, v in told.items() if type(v) is dict} if type(told) is dict else {}
    if event.os is not None and event.os.name and "os" not in found:
        system = {"name": event.os.name, "version": event.os.version, "build": event.os.build}
        found["os"] = filled({"type": "os", **system})
    if event.arch and event.arch != "unknown" and "device" not in found:
        found["device"] = {"type": "device", "arch": event.arch}
    if event.process is not None and event.process.name and "app" not in found:
        found["app"] = {"type": "app", "app_name": event.process.name}
    return found


def _sdk(told: Any) -> dict[str, Any] | None:
    if type(told) is not dict or type(told.get("name")) is not str:
        return None
    found: dict[str, Any] = {"name": told["name"], "version": str(told.get("version") or "unknown")}
    if type(integrations := told.get("integrations")) is list:
        found["integrations"] = [name for name in integrations if type(name) is str]
    if type(packages := told.get("packages")) is list:
        found["packages"] = [p for p in packages if type(p) is dict and p.keys() == {"name", "version"}]
    return found


def _extra(attributes: dict[str, Any]) -> dict[str, Any]:
    told = attributes.get("extra")
    own = told if type(told) is dict else {"extra": told} if told is not None else {}
    return {k: v for k, v in attributes.items() if k not in _PLACED} | own


class _Stacks:
    """Writes exceptions, threads and images of one event."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._images = event.modules or []
        relative = [(n, m) for n, m in enumerate(self._images) if m.image_addr is None]
        self._relative: dict[str | None, int] = {
            name: n for n, m in reversed(relative) for name in (m.debug_id, m.code_file) if name
        }
        """Numbers of the images whose address is not known, by id and by name."""
        self._maps: dict[tuple[str, str], None] = {}

    def add(self, told: dict[str, Any]) -> None:
        """Add the members ``exception``, ``threads`` and ``debug_meta``."""
        event = self._event
        exceptions = [self._exception(e) for e in event.exceptions or ()]
        crashed = crashed_thread(event)
        threads = []
        for thread in event.threads or ():
            entry = filled({"id": thread.id, "name": thread.name})
            if thread.id is not None and not 0 <= thread.id < _WIDEST:
                entry["id"] = str(thread.id)
            if thread.crashed:
                entry |= {"crashed": True, "current": True}
            stack = self._stack(thread.frames or [], thread.registers)
            if thread is crashed and exceptions and stack and not any("stacktrace" in e for e in exceptions):
                # What ended the program has its stack with the exception; the thread is named by its id.
                exceptions[0] |= {"stacktrace": stack, "thread_id": entry.get("id", 0)}
            elif stack:
                entry["stacktrace"] = stack
            threads.append(entry)
        if exceptions:
            told["exception"] = {"values": exceptions[::-1]}
        if threads:
            told["threads"] = {"values": threads}
        images = [self._image(m) for m in self._images]
        others = (event.attributes or {}).get("debug_meta")
        if type(others) is dict and type(others.get("images")) is list:
            images += others["images"]
        images += [{"type": "sourcemap", "code_file": file, "debug_id": id_} for file, id_ in self._maps]
        if images:
            told["debug_meta"] = {"images": images}

    def _exception(self, told: ExceptionInfo) -> dict[str, Any]:
        found = filled({"type": told.type, "value": told.value, "module": told.module})
        if told.thread_id is not None:
            found["thread_id"] = told.thread_id if 0 <= told.thread_id < _WIDEST else str(told.thread_id)
        details = told.details or {}
        mechanism: dict[str, Any] = {
            name: value for name, value in details.items() if type(value) is _MECHANISM.get(name)
        }
        data = {name: value for name, value in details.items() if name not in mechanism}
        if told.address is not None:
            data["relevant_address"] = told.address
        if data:
            mechanism["data"] = data | (mechanism.get("data") or {})
        code = integer(told.code)
        if code is not None and "meta" not in mechanism:
            if (told.type or "").startswith("SIG"):
                mechanism["meta"] = {"signal": {"number": code, "name": told.type}}
            elif (told.type or "").startswith("EXC_"):
                mechanism["meta"] = {"mach_exception": {"exception": code, "name": told.type}}
        if told.mechanism or mechanism:
            found["mechanism"] = {"type": told.mechanism or "generic", **mechanism}
        if stack := self._stack(told.frames or [], None):
            found["stacktrace"] = stack
        return found

    def _stack(self, frames: Sequence[Frame], registers: dict[str, str] | None) -> dict[str, Any] | None:
        if not frames:
            return None
        found = [self._frame(f) for f in reversed(frames)]
        if any(f.trust != "scan" for f in frames):
            for frame, told in zip(reversed(frames), found, strict=True):
                if frame.trust == "scan":
                    told["in_app"] = False  # A guess, which Sentry has no other word for: folded, and not grouped by.
        return filled({"frames": found, "registers": registers})

    def _frame(self, frame: Frame) -> dict[str, Any]:
        found: dict[str, Any] = {
            "function": frame.function,
            "raw_function": frame.raw_function if frame.raw_function != frame.function else None,
            "module": frame.module,
            "filename": frame.filename,
            "abs_path": frame.abs_path,
            "lineno": frame.lineno,
            "colno": frame.colno,
            "pre_context": frame.pre_context,
            "context_line": frame.context_line,
            "post_context": frame.post_context,
            "in_app": frame.in_app,
            "package": frame.package,
            "instruction_addr": frame.instruction_addr,
            "image_addr": frame.image_addr,
            "symbol_addr": frame.symbol_addr,
            "platform": self._platform(frame),
            "vars": _variables(frame),
        }
        if frame.function is None and frame.raw_function is not None:
            found["function"] = frame.raw_function
            found["raw_function"] = None
        if frame.instruction_addr is None and frame.rva is not None:
            keys = [key for key in (frame.debug_id, frame.package) if key in self._relative]
            if keys:
                found |= {"instruction_addr": frame.rva, "addr_mode": f"rel:{self._relative[keys[0]]}"}
        file = frame.abs_path or frame.filename
        if frame.lang == "javascript" and frame.debug_id and file and frame.origin is None:
            self._maps[file, frame.debug_id] = None  # A position that no map was applied to yet.
        return filled(found)

    def _platform(self, frame: Frame) -> str | None:
        """Return a frame's platform where it is another than the event's."""
        native = frame.instruction_addr is not None or frame.rva is not None
        spoken = "native" if native else frame.lang if frame.lang in _MANAGED else None
        return spoken if spoken is not None and spoken != self._event.platform else None

    def _image(self, module: ModuleInfo) -> dict[str, Any]:
        found = {
            "type": _kind(module, (self._event.os.name if self._event.os else None) or ""),
            "code_id": module.code_id,
            "debug_file": module.debug_file,
            "image_addr": module.image_addr,
            "image_size": module.image_size,
            "arch": module.arch,
        }
        return {**filled(found), "code_file": module.code_file or "", "debug_id": module.debug_id}


def _variables(frame: Frame) -> dict[str, Any] | None:
    found = {**(frame.kwargs or {}), **(frame.locals or {})}
    return ({"*args": frame.args} if frame.args else {}) | found or None


def _kind(module: ModuleInfo, system: str) -> str:
    """Return an image's type: by the system that loads it, else by its name."""
    name = (module.code_file or "").lower()
    if name.endswith(".wasm"):
        return "wasm"
    if system.lower() in _APPLE or name.endswith(".dylib") or ".app/" in name or ".framework/" in name:
        return "macho"
    return "pe" if system.lower().startswith("windows") or name.endswith((".dll", ".exe", ".sys")) else "elf"
