"""A snapshot as a crash: each part of its report is checked by itself, so that a bad thread costs that thread."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from deadreckon.errors import DIAGNOSTIC_CODES, LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawException, RawThread, Regions
from deadreckon.model.event import Attachment, Diagnostic, OsInfo, ProcessInfo
from deadreckon.model.ids import Arch, DebugId, normalize_code_id
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.snapshot.document import (
    ACCESS,
    MAX_MEMORY,
    SCHEMA,
    ExceptionEntry,
    MemoryEntry,
    ModuleEntry,
    RegionEntry,
    ThreadEntry,
)
from deadreckon.wire.jsontext import MAX_BYTES, decode, plain
from deadreckon.wire.snapshot import Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from deadreckon.config import ReportLimits

__all__ = ["read"]

_MAX_IMAGES = 16 << 20
"""Bytes of images that travel along: the few KB that are in no file."""
_MAX_DEPTH = 64
_NOTES_PER_CODE = 16
_WHOLE = (1 << 64) - 1

T = TypeVar("T")


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read a snapshot. Raises Malformed where container or report can't be read, Unsupported for another version."""
    container = Container(data)
    found = container.read("report.json", MAX_BYTES)
    if found is None or found.state != "whole":
        state = "missing" if found is None else found.state
        raise Malformed("snapshot", expected="member 'report.json'", got=f"{state}, of {len(data)} bytes of snapshot")
    document = plain(decode(found.data, "report.json"), _MAX_DEPTH)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        if isinstance(schema, str) and schema.startswith("deadreckon.snapshot/"):
            raise Unsupported(f"snapshot of version {schema[:64]!r}: this one reads {SCHEMA!r}")
        raise Malformed("report.json", expected=f'"schema": "{SCHEMA}"', got=repr(schema)[:64])
    reading = _Reading(document, limits)
    for problem in container.problems:
        reading.problem("truncated", str(problem), problem.where())
    return reading.crash(container)


class _Reading:
    """One ``report.json``, read member by member."""

    def __init__(self, document: dict[str, Any], limits: ReportLimits) -> None:
        self.document = document
        self.limits = limits
        self.diagnostics: list[Diagnostic] = []
        self.images_left = _MAX_IMAGES

    def problem(self, code: str, message: str, where: dict[str, str | int] | None = None) -> None:
        if sum(d.code == code for d in self.diagnostics) < _NOTES_PER_CODE:
            self.diagnostics.append(
                Diagnostic(code=code, severity="warning", stage="read", message=message, where=where)
            )

    def one(self, name: str, kind: type[T], default: T) -> T:
        """Convert one member; what can't be is a diagnostic and the default."""
        if (value := self.document.get(name)) is None:
            return default
        return self.attempt(f"report.json.{name}", lambda: msgspec.convert(value, kind)) or default

    def each(self, name: str, kind: type[Any], make: Callable[[Any], T], limit: int) -> Iterator[T]:
        """Yield what is made of each element of a list."""
        listed = self.one(name, list, [])
        if len(listed) > limit:
            self.problem("limit_exceeded", f"report.json.{name}: {len(listed)}, the limit is {limit}")
        for number, value in enumerate(listed[:limit]):
            made = self.attempt(f"report.json.{name}[{number}]", partial(_made, make, kind, value))
            if made is not None:
                yield made

    def attempt(self, at: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except (ValueError, LimitExceeded) as e:  # msgspec's ValidationError is a ValueError.
            self.problem("malformed", f"{at}: {e}"[:1000], {"field": at})
            return None

    def text(self, name: str) -> str | None:
        found = self.one(name, str, "")
        return found[: self.limits.max_string_bytes] or None

    def crash(self, container: Container) -> RawCrash:
        limits = self.limits
        os, process = self.one("os", OsInfo, OsInfo()), self.one("process", ProcessInfo, ProcessInfo())
        arch = Arch.parse(self.text("arch") or "")
        if arch == Arch.UNKNOWN:
            self.problem("malformed", f"report.json.arch: {self.document.get('arch')!r}"[:200], {"field": "arch"})
        mask = self.text("address_mask")
        attributes: dict[str, Any] = self.one("attributes", dict, {})
        crash = RawCrash(
            "btt",
            platform=self.text("platform") or "native",
            arch=arch,
            os_name=os.name,
            os_version=os.version,
            os_build=os.build,
            timestamp=self.timestamp(),
            event_id=self.event_id(),
            process_name=process.name,
            pid=process.pid,
            uptime_s=process.uptime_s,
            exceptions=list(self.each("exceptions", ExceptionEntry, _exception, limits.max_threads)),
            threads=list(self.each("threads", ThreadEntry, lambda t: _thread(t, arch), limits.max_threads)),
            modules=self.placed(self.each("modules", ModuleEntry, partial(self.module, container), limits.max_modules)),
            unloaded_modules=list(self.each("unloaded_modules", ModuleEntry, _module, limits.max_modules)),
            memory=self.memory(container),
            regions=self.regions(),
            address_mask=None if mask is None else self.attempt("report.json.address_mask", lambda: _address(mask)),
            level=self.text("level"),
            message=self.text("message"),
            release=self.text("release"),
            environment=self.text("environment"),
            tags=self.one("tags", dict[str, str], {}),
            attachments=[
                Attachment(name=name.removeprefix("attachments/"), size=size)
                for name, size in container.sizes().items()
                if name.startswith("attachments/")
            ],
            attributes=dict(list(attributes.items())[: limits.max_annotations]),
        )
        if origin := self.document.get("origin"):
            crash.attributes["snapshot.origin"] = origin
        told = list(self.each("diagnostics", Diagnostic, _diagnostic, limits.max_streams))
        crash.diagnostics = told + self.diagnostics
        return crash

    def event_id(self) -> str | None:
        told = self.text("event_id")
        if told is None or (len(told) == 32 and not set(told) - set("0123456789abcdef")):
            return told
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def timestamp(self) -> float | None:
        told = self.text("timestamp")
        return None if told is None else self.attempt("report.json.timestamp", lambda: _seconds(told))

    def module(self, container: Container, told: ModuleEntry) -> Module:
        """Make a module, with its file where that travels along."""
        made = _module(told)
        if told.contents is not None:
            found = container.read(told.contents, self.images_left)
            if found is None or found.state != "whole":
                state = "missing" if found is None else found.state
                self.problem("malformed", f"{told.contents[:100]} is {state}", {"member": told.contents[:100]})
            else:
                made.contents = found.data
                self.images_left -= len(found.data)
        return made

    def placed(self, modules: Iterable[Module]) -> list[Module]:
        """Return modules by address, without those over an earlier one."""
        kept: list[Module] = []
        for module in sorted(modules, key=attrgetter("image_addr")):
            if kept and module.image_addr < kept[-1].end:
                self.problem("module_overlap", f"module {module.code_file[:100]} overlaps an earlier one")
            else:
                kept.append(module)
        return kept

    def memory(self, container: Container) -> MemoryMap:
        """Lay the ranges over ``memory.bin``."""
        limit = self.limits.max_regions
        ranges = list(self.each("memory", MemoryEntry, lambda r: (_address(r.start), r.size, r.offset), limit))
        if not ranges:
            return MemoryMap.empty()
        found = container.read("memory.bin", MAX_MEMORY)
        if found is None or found.state == "corrupt":
            state = "is missing" if found is None else "does not match its checksum"
            self.problem("malformed", f"memory.bin {state}: no stack can be read", {"member": "memory.bin"})
            return MemoryMap.empty()
        held, wanted = len(found.data), max(size + offset for _, size, offset in ranges)
        if found.state == "cut" or held < wanted:
            where: dict[str, str | int] = {"member": "memory.bin", "expected": str(wanted), "got": held}
            self.problem("truncated", f"memory.bin ends after {held} bytes, ranges after {wanted}", where)
        return MemoryMap.from_ranges(ranges, np.frombuffer(found.data, np.uint8))

    def regions(self) -> Regions | None:
        if self.document.get("regions") is None:
            return None
        kept: list[tuple[int, int, int]] = []
        for row in sorted(self.each("regions", RegionEntry, _region, self.limits.max_regions)):
            if kept and row[0] < kept[-1][1]:
                self.problem("malformed", f"regions overlap at {row[0]:#x}; the later one was dropped")
            else:
                kept.append(row)
        return Regions.from_ranges(kept)


def _made(make: Callable[[Any], T], kind: type[Any], value: Any) -> T:
    return make(msgspec.convert(value, kind))


def _diagnostic(told: Diagnostic) -> Diagnostic:
    if told.code not in DIAGNOSTIC_CODES:
        raise ValueError(f"unknown code {told.code[:64]!r}")
    return told


def _address(text: str) -> int:
    value = int(text, 16) if text[:2] in {"0x", "0X"} and len(text) <= 18 and "_" not in text else -1
    if not 0 <= value <= _WHOLE:
        raise ValueError(f"expected an address, 0x and up to 16 hex digits, got {text[:32]!r}")
    return value


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text[:64]).timestamp()


def _thread(told: ThreadEntry, arch: Arch) -> RawThread:
    registers = None
    if told.registers and arch in REGISTER_SETS:
        values = {name: _address(value) for name, value in told.registers.items()}
        registers = Registers.from_mapping(arch, values, keep_others=True)
    return RawThread(told.id, told.name, told.crashed, registers)


def _exception(told: ExceptionEntry) -> RawException:
    return RawException(
        told.type,
        told.value,
        None if told.code is None else _address(told.code),
        None if told.address is None else _address(told.address),
        told.mechanism,
        told.thread_id,
        access=told.access,
        address_hidden=told.address_hidden,
    )


def _module(told: ModuleEntry) -> Module:
    start = _address(told.image_addr)
    if not 0 < told.image_size <= _WHOLE - start or told.file_offset < 0:
        raise ValueError(f"image_size {told.image_size} or file_offset {told.file_offset} is out of range")
    return Module(
        start,
        told.image_size,
        told.code_file,
        normalize_code_id(told.code_id) if told.code_id else None,
        told.debug_file,
        str(DebugId.parse(told.debug_id)) if told.debug_id else None,
        Arch.parse(told.arch or ""),
        0 if told.image_vmaddr is None else _address(told.image_vmaddr),
        told.version,
        told.file_offset,
    )


def _region(told: RegionEntry) -> tuple[int, int, int]:
    start, end = _address(told.start), _address(told.end)
    if start >= end:
        raise ValueError(f"{told.start} to {told.end} is empty")
    return start, end, sum(1 << bit for bit, c in enumerate(ACCESS) if c in told.access)
