"""An event as a report of Backtrace's, for its format ``json``.

Specification: Backtrace's JSON format. Stacks are listed from the innermost frame on, as here; there is one exception,
so the causes of a chain are among the annotations. Attributes are flat, annotations hold what is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadreckon import __version__
from deadreckon.adapters._export import crashed_thread, filled, seconds, uuid
from deadreckon.adapters.scrub import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.adapters.scrub import Scrubber
    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["backtrace_report"]

_AGENT = "deadreckon"
_OWN = frozenset({"lang", "langVersion", "agent", "agentVersion", "classifiers", "annotations", "entryThread"})
_FILE_IS_LIBRARY = frozenset({"javascript", "python", "ruby", "php", "dart"})
_LANGUAGES = {"native": "c++"}


def backtrace_report(event: Event, scrub: Scrubber | None = DEFAULT) -> dict[str, Any]:
    """Return an event as Backtrace takes it; ``scrub`` takes secrets out before, None leaves them in."""
    event = scrub.event(event) if scrub is not None else event
    known = event.attributes or {}
    exceptions = event.exceptions or []
    sources = _Sources(event.platform or "other")
    threads, main = _threads(event, sources)
    attributes, annotations = _attributes(event)
    first = exceptions[0] if exceptions else None
    if first is not None and first.type:
        annotations["Exception"] = filled({"type": first.type, "message": first.value, "details": first.details})
    if len(exceptions) > 1:
        annotations["causes"] = [_cause(e, sources) for e in exceptions[1:]]
    when = seconds(event.timestamp)  # Required, but for an event that doesn't say there is no true one.
    return {
        "uuid": uuid(event.event_id),
        "lang": known.get("lang") or _LANGUAGES.get(event.platform or "", event.platform or "other"),
        "langVersion": str(known.get("langVersion") or "unknown"),
        "agent": _AGENT,
        "agentVersion": __version__,
        "mainThread": main,
        "threads": threads,
        **filled(
            {
                "timestamp": None if when is None else int(when),
                "classifiers": [e.type for e in exceptions[:1] if e.type],
                "attributes": attributes,
                "annotations": annotations,
                "sourceCode": sources.files,
                "arch": {"name": event.arch} if event.arch and event.arch != "unknown" else None,
                "modules": _modules(event),
            }
        ),
    }


def _threads(event: Event, sources: _Sources) -> tuple[dict[str, Any], str]:
    """Return the threads, and the name of the one that the report is about."""
    crashed = crashed_thread(event)
    own = next((e for e in event.exceptions or () if e.frames), None)
    threads: dict[str, Any] = {}
    main = None
    for number, thread in enumerate(event.threads or ()):
        name = str(number if thread.id is None else thread.id)
        name = name if name not in threads else f"{name}-{number}"
        stack = sources.stack(thread.frames or [])
        if stack and thread.registers:
            stack[0]["registers"] = thread.registers
        threads[name] = filled({"name": thread.name, "fault": thread.crashed or None}) | {"stack": stack}
        if thread is crashed:
            main = name
    if main is None or own is not None:
        # Of managed languages, the stack is the exception's.
        main = main if main is not None and not threads[main]["stack"] else "0" if "0" not in threads else "exception"
        threads[main] = {"name": "main", "fault": True, "stack": sources.stack((own.frames or []) if own else [])}
    return threads, main


def _cause(told: ExceptionInfo, sources: _Sources) -> dict[str, Any]:
    stack = sources.stack(told.frames or [])
    return filled({"type": told.type, "message": told.value, "stack": stack, "details": told.details})


def _attributes(event: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is flat, and what isn't; a name that the event itself has a value for has that value."""
    attributes: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    for name, value in (event.attributes or {}).items():
        if name in _OWN:
            continue
        (annotations if type(value) in {dict, list} else attributes)[name] = value
    told = (event.attributes or {}).get("annotations")
    annotations |= told if type(told) is dict else filled({"annotations": told})
    annotations |= filled({"request": event.request, "tags": event.tags})
    if event.exceptions and event.message:
        annotations["message"] = event.message
    first = event.exceptions[0] if event.exceptions else None
    system = event.os
    kind = "Crash" if event.level == "fatal" else "Exception" if first is not None else "Message"
    attributes |= event.tags or {}
    attributes |= filled(
        {
            "error.type": kind,
            "error.message": (first.value if first is not None else None) or event.message,
            "application.version": event.release,
            "application.environment": event.environment,
            "uname.sysname": system.name if system else None,
            "uname.release": system.version if system else None,
            "uname.version": system.build if system else None,
            "application": event.process.name if event.process else None,
            "process.id": event.process.pid if event.process else None,
            "fault.address": first.address if first is not None else None,
            "fingerprint": event.grouping[0] if event.grouping and len(event.grouping) == 1 else None,
        }
    )
    for name, value in (event.user or {}).items():
        (annotations if type(value) in {dict, list} else attributes)[f"user.{name}"] = value
    return attributes, annotations


def _modules(event: Event) -> list[dict[str, Any]]:
    return [
        filled(
            {
                "start": m.image_addr,
                "size": m.image_size,
                "code_file": m.code_file,
                "debug_file": m.debug_file,
                "debug_identifier": m.debug_id,
            }
        )
        for m in event.modules or ()
        if m.image_addr is not None and m.image_size
    ]


class _Sources:
    """Writes frames, and the lines of source around them as ``sourceCode``, each excerpt once."""

    def __init__(self, platform: str) -> None:
        self._platform = platform
        self._ids: dict[tuple[Any, ...], str] = {}
        self.files: dict[str, dict[str, Any]] = {}

    def stack(self, frames: Sequence[Frame]) -> list[dict[str, Any]]:
        return [self._frame(f) for f in frames]

    def _frame(self, frame: Frame) -> dict[str, Any]:
        path = frame.abs_path or frame.filename
        library = path if self._platform in _FILE_IS_LIBRARY else frame.package or frame.module
        name = frame.function or frame.raw_function
        if self._platform == "java" and frame.module and name:
            library, name = None, f"{frame.module}.{name}"
        return filled(
            {
                "funcName": name,
                "line": frame.lineno,
                "column": frame.colno,
                "library": library,
                "path": path,
                "sourceCode": self._source(frame, path),
                "address": frame.instruction_addr,
                "debug_identifier": frame.debug_id,
                "guessed_frame": True if frame.trust in {"scan", "cfi_scan"} else None,
                "registers": frame.registers,
                "variables": [{"name": n, "value": v} for n, v in (frame.locals or {}).items()],
            }
        )

    def _source(self, frame: Frame, path: str | None) -> str | None:
        if frame.context_line is None or frame.lineno is None:
            return None
        before = frame.pre_context or []
        lines = [*before, frame.context_line, *(frame.post_context or [])]
        key = (path, frame.lineno, *lines)
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = str(len(self._ids))
            first = max(frame.lineno - len(before), 1)
            self.files[known] = filled({"text": "\n".join(lines), "startLine": first, "path": path})
        return known
