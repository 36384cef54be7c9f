"""PLCrashReporter's messages. Specification: ``PLCrashReport.proto`` of PLCrashReporter 1.12, whose names these are.

All fields may be missing: writers before 1.1 had no ProcessInfo, MachineInfo, ReportInfo and ``code_type``, and one
that reaches its size limit leaves out what comes later.
"""

from __future__ import annotations

from dataclasses import dataclass

from deadreckon.wire.protobuf import Kind, many, one

__all__ = [
    "ApplicationInfo",
    "BinaryImage",
    "CrashReport",
    "MachException",
    "MachineInfo",
    "ProcessInfo",
    "Processor",
    "RegisterValue",
    "ReportInfo",
    "Signal",
    "StackFrame",
    "Symbol",
    "SystemInfo",
    "Thread",
    "UncaughtException",
]


@dataclass(slots=True)
class Processor:
    """A CPU: ``type`` and ``subtype`` are Mach's where ``encoding`` is 1."""

    encoding: int | None = one(1, Kind.UINT)
    type: int | None = one(2, Kind.UINT)
    subtype: int | None = one(3, Kind.UINT)


@dataclass(slots=True)
class SystemInfo:
    """The system; ``architecture`` was replaced by ``code_type`` of the images, and 6 (unknown) says so."""

    operating_system: int | None = one(1, Kind.UINT)
    os_version: str | None = one(2, Kind.TEXT)
    architecture: int | None = one(3, Kind.UINT)
    timestamp: int | None = one(4, Kind.INT)
    """Seconds since 1970; 0 is unknown."""
    os_build: str | None = one(5, Kind.TEXT)


@dataclass(slots=True)
class ApplicationInfo:
    """The bundle: CFBundleIdentifier, CFBundleVersion, CFBundleShortVersionString."""

    identifier: str | None = one(1, Kind.TEXT)
    version: str | None = one(2, Kind.TEXT)
    marketing_version: str | None = one(3, Kind.TEXT)


@dataclass(slots=True)
class Symbol:
    """What the dying process itself took for the function: the nearest symbol that was not stripped."""

    name: str | None = one(1, Kind.TEXT)
    start_address: int | None = one(2, Kind.UINT)
    end_address: int | None = one(3, Kind.UINT)


@dataclass(slots=True)
class StackFrame:
    """A frame. Fields 4 and 5 are a fork's."""

    pc: int | None = one(3, Kind.UINT)
    symbol: Symbol | None = one(6, Symbol)


@dataclass(slots=True)
class RegisterValue:
    """A register."""

    name: str | None = one(1, Kind.TEXT)
    value: int | None = one(2, Kind.UINT)


@dataclass(slots=True)
class Thread:
    """A thread, its frames innermost first."""

    thread_number: int | None = one(1, Kind.UINT)
    frames: list[StackFrame] = many(2, StackFrame)
    crashed: bool | None = one(3, Kind.BOOL)
    registers: list[RegisterValue] = many(4, RegisterValue)


@dataclass(slots=True)
class BinaryImage:
    """An image; ``size`` is that of its __TEXT segment, ``name`` its path."""

    base_address: int | None = one(1, Kind.UINT)
    size: int | None = one(2, Kind.UINT)
    name: str | None = one(3, Kind.TEXT)
    uuid: memoryview | None = one(4, Kind.BYTES)
    code_type: Processor | None = one(5, Processor)


@dataclass(slots=True)
class UncaughtException:
    """The message ``Exception``: an uncaught NSException; ``frames`` are its callStackReturnAddresses."""

    name: str | None = one(1, Kind.TEXT)
    reason: str | None = one(2, Kind.TEXT)
    frames: list[StackFrame] = many(3, StackFrame)


@dataclass(slots=True)
class MachException:
    """A Mach exception: EXC_* and its codes."""

    type: int | None = one(1, Kind.UINT)
    codes: list[int] = many(2, Kind.UINT)


@dataclass(slots=True)
class Signal:
    """The signal; ``name`` and ``code`` are as ``signal.h`` has them, or ``#`` and a number."""

    name: str | None = one(1, Kind.TEXT)
    code: str | None = one(2, Kind.TEXT)
    address: int | None = one(3, Kind.UINT)
    mach_exception: MachException | None = one(4, MachException)


@dataclass(slots=True)
class ProcessInfo:
    """The process; ``native`` is false under Rosetta, ``start_time`` in seconds since 1970."""

    process_name: str | None = one(1, Kind.TEXT)
    process_id: int | None = one(2, Kind.UINT)
    process_path: str | None = one(3, Kind.TEXT)
    parent_process_name: str | None = one(4, Kind.TEXT)
    parent_process_id: int | None = one(5, Kind.UINT)
    native: bool | None = one(6, Kind.BOOL)
    start_time: int | None = one(7, Kind.INT)


@dataclass(slots=True)
class MachineInfo:
    """The machine; ``model`` is hw.model or hw.machine: iPad4,4."""

    model: str | None = one(1, Kind.TEXT)
    processor: Processor | None = one(2, Processor)
    processor_count: int | None = one(3, Kind.UINT)
    logical_processor_count: int | None = one(4, Kind.UINT)


@dataclass(slots=True)
class ReportInfo:
    """The report; ``user_requested`` where nothing crashed and the program asked for it."""

    user_requested: bool | None = one(1, Kind.BOOL)
    uuid: memoryview | None = one(2, Kind.BYTES)


@dataclass(slots=True)
class CrashReport:
    """A whole report."""

    system_info: SystemInfo | None = one(1, SystemInfo)
    application_info: ApplicationInfo | None = one(2, ApplicationInfo)
    threads: list[Thread] = many(3, Thread)
    binary_images: list[BinaryImage] = many(4, BinaryImage)
    exception: UncaughtException | None = one(5, UncaughtException)
    signal: Signal | None = one(6, Signal)
    process_info: ProcessInfo | None = one(7, ProcessInfo)
    machine_info: MachineInfo | None = one(8, MachineInfo)
    report_info: ReportInfo | None = one(9, ReportInfo)
    custom_data: memoryview | None = one(10, Kind.BYTES)
