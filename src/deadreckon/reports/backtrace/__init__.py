"""Backtrace's JSON report into a RawCrash.

Specification: Backtrace's "Error Reporting API" (``POST /post?format=json``), with what its clients write beside it
(backtrace-node, -javascript, -python, -java, -android, -csharp, -unity, -go, -ruby, -rust).

``fields`` reads values in all their spellings, ``stacks`` the threads, ``sources`` the source code, ``process`` the
modules and memory. What contradicts the specification costs itself, and a diagnostic.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS
from deadreckon.reports.backtrace.fields import Reading, integer, text
from deadreckon.reports.backtrace.process import memory, modules
from deadreckon.reports.backtrace.sources import SourceCode
from deadreckon.reports.backtrace.stacks import Dialect, Stacks
from deadreckon.wire.jsontext import decode, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.config import ReportLimits

__all__ = ["read"]

_UUID = re.compile(r"[0-9a-f]{32}")
_MAX_MAPS = 1024
_MAX_CLASSIFIERS = 64
_KEPT = ("lang", "langVersion", "agent", "agentVersion", "entryThread", "symbolication", "cwd")
_LEVELS = {
    "message": "info",
    "exception": "error",
    "unhandled exception": "fatal",
    "crash": "fatal",
    "hang": "error",
    "oomexception": "fatal",
    "low memory": "fatal",
}
"""By ``error.type``, which says what kind of report it is, and of no exception the name."""


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read a report. Raises Malformed where it is no JSON object, LimitExceeded where it is too large to hold."""
    document = decode(data, "Backtrace report")
    if not isinstance(document, dict):
        raise Malformed("Backtrace report", offset=0, expected="a JSON object", got=type(document).__name__)
    reading = Reading(limits)
    attributes = _attributes(reading, document)
    arch = _arch(document.get("arch"), attributes)
    dialect = Dialect.of(text(document.get("lang")), text(document.get("symbolication")))
    images = modules(reading, document.get("modules"))
    held, regions = memory(reading, document.get("memory"), images)
    sources = SourceCode(reading, document.get("sourceCode"))
    stacks = Stacks(reading, dialect, sources, arch, list(_maps(document.get("symbolication_maps"))))
    crash = RawCrash(
        "backtrace-json",
        platform=dialect.platform,
        arch=arch,
        os_name=text(attributes.get("uname.sysname")),
        os_version=text(attributes.get("uname.release")),
        os_build=text(attributes.get("uname.version")),
        timestamp=_seconds(document.get("timestamp")),
        event_id=_event_id(document.get("uuid")),
        process_name=text(attributes.get("application")),
        pid=integer(attributes.get("process.id")),
        uptime_s=_seconds(attributes.get("process.age")),
        threads=stacks.threads(document),
        modules=images,
        memory=held,
        regions=regions,
        release=text(attributes.get("application.version")) or text(attributes.get("version")),
        environment=text(attributes.get("application.environment")) or text(attributes.get("environment")),
        user={k: attributes[f"user.{k}"] for k in ("id", "username", "name", "email") if f"user.{k}" in attributes},
        attributes=attributes,
        diagnostics=reading.diagnostics,
    )
    if dialect.symbolication == "proguard" and (mapping := text(attributes.get("symbolication_id"))):
        crash.mappings.append(mapping)
    _unwound_by_us(crash)
    _exceptions(crash, document, dialect, stacks)
    return crash


def _attributes(reading: Reading, document: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes, and with them what the event has no field of its own for."""
    told = reading.expect(dict, document.get("attributes"), "attributes")
    if len(told) > reading.limits.max_annotations:
        reading.problem("limit_exceeded", "attributes", f"{len(told)} of them")
    found = {}
    for name, value in islice(told.items(), reading.limits.max_annotations):
        if value is not None:
            found[str(plain(name))] = reading.text(value) or "" if isinstance(value, str) else plain(value)
    for name in _KEPT:
        if value := reading.text(document.get(name)):
            found.setdefault(name, value)
    classifiers = document.get("classifiers")
    if isinstance(classifiers, list):
        found["classifiers"] = [reading.text(c) for c in classifiers[:_MAX_CLASSIFIERS] if text(c)]
    if (notes := document.get("annotations")) not in (None, {}, [], ""):
        found["annotations"] = plain(notes)
    if identity := _fingerprint(document.get("fingerprint")):
        found["fingerprint"] = identity
    elif document.get("fingerprint") is not None:
        reading.problem("malformed", "fingerprint", "expected 32 bytes in base64")
    return found


def _arch(told: Any, attributes: dict[str, Any]) -> Arch:
    """Return the process's architecture; the machine's, where only that is told, may be wider."""
    named = text(told.get("name")) if isinstance(told, dict) else text(told)
    for name in (named, text(attributes.get("uname.machine")), text(attributes.get("cpu.arch"))):
        if name and (arch := Arch.parse(name)) != Arch.UNKNOWN:
            return arch
    return Arch.UNKNOWN


def _event_id(told: Any) -> str | None:
    digits = (text(told) or "").replace("-", "").lower()
    return digits if _UUID.fullmatch(digits) else None


def _fingerprint(told: Any) -> str | None:
    """Return the client's own fingerprint as Backtrace shows it: 64 hex digits."""
    try:
        found = base64.b64decode("".join(told.split()), validate=True) if isinstance(told, str) else b""
    except (binascii.Error, ValueError):
        return None
    return found.hex() if len(found) == 32 else None


def _seconds(told: Any) -> float | None:
    found = told if isinstance(told, float) else integer(told)
    return float(found) if found is not None and math.isfinite(found) else None


def _maps(told: Any) -> Iterator[tuple[str, str]]:
    """Yield (generated file, id of its source map): backtrace-node's ``symbolication_maps``."""
    for value in (told if isinstance(told, list) else [])[:_MAX_MAPS]:
        if isinstance(value, dict) and (file := text(value.get("file"))) and (uuid := text(value.get("uuid"))):
            yield file, uuid


def _unwound_by_us(crash: RawCrash) -> None:
    """Drop a lone innermost frame whose registers and stack came along: there is more to find in them."""
    known = REGISTER_SETS.get(crash.arch)
    for thread in crash.threads:
        registers = thread.registers
        if known is None or registers is None or registers.pc is None or registers.sp is None:
            continue
        if len(thread.frames or ()) <= 1 and crash.memory.read(registers.sp, known.word_size) is not None:
            thread.frames = None


def _exceptions(crash: RawCrash, document: dict[str, Any], dialect: Dialect, stacks: Stacks) -> None:
    """Say why it was reported; a JavaScript stack is the error's own."""
    attributes = crash.attributes
    kind = (text(attributes.get("error.type")) or "").lower()
    message = text(attributes.get("error.message")) or _annotated(attributes.get("annotations"), "message")
    names = attributes.get("classifiers") or []
    main = next((t for t in crash.threads if t.crashed), None)
    if main is None or (not main.frames and main.registers is None):
        frames = stacks.callstack(document.get("callstack"))
        if frames and main is None:
            main = RawThread(0, crashed=True)
            crash.threads.insert(0, main)
        if main is not None:
            main.frames = frames
    crash.level = _LEVELS.get(kind) or (None if dialect.native else "error")
    name = names[0] if names else _annotated(attributes.get("annotations"), "type")
    if kind == "message" and name is None:
        crash.message = message
    javascript = main is not None and main.frames and dialect.platform == "javascript"
    if name is None and not javascript and (crash.message or not message):
        return
    why = RawException(
        name,
        "" if crash.message else message or "",
        address=integer(attributes.get("fault.address")),
        mechanism="backtrace",
        thread_id=main.id if main is not None else None,
    )
    if javascript and main is not None:
        why.frames, main.frames = main.frames, None
        crash.threads.remove(main)
    crash.exceptions.append(why)


def _annotated(annotations: Any, name: str) -> str | None:
    """Return what the clients' annotation ``Exception`` says."""
    told = annotations.get("Exception") if isinstance(annotations, dict) else None
    return text(told.get(name)) if isinstance(told, dict) else None
