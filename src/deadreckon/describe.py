"""A crash as an event: all that needs no symbols, and the event of an input that can't be read."""

from __future__ import annotations

import hashlib
import os
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from deadreckon.analysis.fault import analyse
from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed, MissingDependency, Unsupported
from deadreckon.model.event import (
    SCHEMA,
    Attachment,
    Diagnostic,
    Event,
    ExceptionInfo,
    ModuleInfo,
    OsInfo,
    ProcessInfo,
    Source,
)

if TYPE_CHECKING:
    from deadreckon.analysis.access import Read
    from deadreckon.config import GroupingConfig
    from deadreckon.model.crash import Module, RawCrash, RawException

__all__ = ["conclude", "derived", "describe", "exception_info", "module_info", "unreadable"]


def describe(raw: RawCrash, source: Source, digest: str, attachments: list[Attachment]) -> Event:
    """Return an event with all that needs no symbols."""
    return Event(
        schema=SCHEMA,
        event_id=raw.event_id or digest[:32],
        status="ok",
        source=msgspec.structs.replace(source, format=raw.format),
        timestamp=_rfc3339(raw.timestamp),
        platform=raw.platform,
        level=raw.level or ("fatal" if any(t.crashed for t in raw.threads) else None),
        release=raw.release,
        environment=raw.environment,
        message=raw.message,
        os=OsInfo(name=raw.os_name, version=raw.os_version, build=raw.os_build),
        arch=str(raw.arch),
        process=ProcessInfo(name=raw.process_name, pid=raw.pid, uptime_s=raw.uptime_s),
        exceptions=[exception_info(raw, e) for e in raw.exceptions] or None,
        grouping=raw.grouping,
        attributes=dict(raw.attributes) or None,
        tags=dict(raw.tags) or None,
        user=raw.user or None,
        request=raw.request or None,
        attachments=[*raw.attachments, *attachments] or None,
    )


def conclude(event: Event, raw: RawCrash, grouping: GroupingConfig) -> None:
    """Add what needs the whole event: fingerprints, title, status."""
    from deadreckon.grouping.fingerprint import group  # noqa: PLC0415

    families = None
    if grouping.families or grouping.rules:
        from deadreckon.grouping.families import families_of  # noqa: PLC0415  (most events have our own only)

        families = families_of(grouping)
    # The rules of files are for the families that were asked for; without any, for ours.
    own = families.rules if families is not None and (not families.names or "native128" in families.names) else None
    event.fingerprint, title, event.culprit = group(event, own if own is not None and own.stack else None)
    event.title = raw.title or title
    if families is not None:
        families.apply(event, raw.payload, explain=grouping.explain)
    event.diagnostics = raw.diagnostics or None
    if any(d.severity != "info" for d in raw.diagnostics):
        event.status = "degraded"


def exception_info(raw: RawCrash, exception: RawException, read: Read | None = None) -> ExceptionInfo:
    """Return why the program stopped, with what follows from it; ``read`` gives code that the report does not hold."""
    fault = analyse(raw, exception, read)
    value = exception.value
    if fault.address != exception.address:
        if exception.address is not None:
            value = value.removesuffix(f"at {exception.address:#x}").rstrip()
        if fault.address is not None:
            value = f"{value} at {fault.address:#x}".lstrip()
    return ExceptionInfo(
        type=exception.type,
        module=exception.module,
        value=value or None,
        code=None if exception.code is None else hex(exception.code),
        address=None if fault.address is None else hex(fault.address),
        access=fault.access,
        instruction=fault.instruction,
        notes=fault.notes or None,
        mechanism=exception.mechanism,
        details=exception.details or None,
        thread_id=exception.thread_id,
    )


def derived(digest: str, number: int) -> str:
    """Return what stands for the digest of the input's nth crash (the first has the input's own)."""
    return hashlib.sha256(f"{digest}\0{number}".encode()).hexdigest()


def module_info(module: Module, state: str) -> ModuleInfo:
    """Return an image of the process; ``state`` is what became of its symbols."""
    return ModuleInfo(
        code_file=module.code_file or None,
        code_id=module.code_id,
        debug_file=module.debug_file,
        debug_id=module.debug_id,
        image_addr=None if module.relative else hex(module.image_addr),
        image_size=None if module.relative else module.image_size,
        arch=str(module.arch) if module.arch != "unknown" else None,
        symbols=state,
    )


def unreadable(name: str | None, error: Exception, size: int | None) -> Event:
    """Return the event of an input that could not be read; an error of no kind we know is a bug and says where."""
    code = "internal"
    message = str(error)
    if isinstance(error, MissingDependency):
        code = "unreadable"
    elif isinstance(error, DeadreckonError):
        code = error.code
    elif isinstance(error, OSError):
        code, message = "unreadable", error.strerror or message
    else:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        at = "".join(f" ({os.path.basename(f.filename)}:{f.lineno})" for f in place)
        message = f"{type(error).__name__}: {error}{at}"
    where = error.where() if isinstance(error, Malformed) else None
    if isinstance(error, LimitExceeded):
        where = {"limit": error.limit, "allowed": str(error.allowed)}
    return Event(
        schema=SCHEMA,
        event_id=hashlib.sha256(f"unreadable\0{name}\0{size}".encode("utf-8", "surrogateescape")).hexdigest()[:32],
        status="unsupported" if isinstance(error, Unsupported) else "unreadable",
        source=Source(format="unknown", name=os.path.basename(name) if name else None, size=size),
        diagnostics=[Diagnostic(code=code, severity="error", stage="read", message=message, where=where or None)],
    )


def _rfc3339(timestamp: float | None) -> str | None:
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
