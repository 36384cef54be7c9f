"""What a PLCrashReporter report says beside its stacks and images: system, process, and why it stopped.

Sources: PLCrashReporter's ``PLCrashReport.proto`` and ``PLCrashAsyncSignalInfo.c``.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from deadreckon.model.crash import RawException
from deadreckon.reports.plcrash.images import basename
from deadreckon.reports.plcrash.schema import (
    ApplicationInfo,
    MachineInfo,
    ProcessInfo,
    Processor,
    ReportInfo,
    SystemInfo,
)
from deadreckon.reports.reasons.macos import SIGNALS, mach_reason

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash
    from deadreckon.reports.plcrash.schema import CrashReport, Signal

__all__ = ["describe", "stopped", "text"]

_OS_NAMES = {0: "macOS", 1: "iOS", 2: "iOS Simulator", 4: "tvOS"}
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"})


def text(value: str | None) -> str | None:
    """Return a string without the NUL that writers before 1.12.2 left at its end, None for an empty one."""
    return (value or "").rstrip("\0") or None


def describe(crash: RawCrash, report: CrashReport, max_bytes: int) -> None:
    """Fill in what the report says of system, machine, process, application and itself.

    Of ``custom_data``, which the application chose, ``max_bytes`` are kept.
    """
    info = report.report_info or ReportInfo()
    uuid = bytes(info.uuid or b"")
    if len(uuid) == 16 and any(uuid):
        crash.event_id = uuid.hex()
    system = report.system_info or SystemInfo()
    process = report.process_info or ProcessInfo()
    crash.os_name = None if system.operating_system is None else _OS_NAMES.get(system.operating_system)
    crash.os_version, crash.os_build = text(system.os_version), text(system.os_build)
    crash.timestamp = system.timestamp or None
    crash.process_name = text(process.process_name) or basename(text(process.process_path) or "") or None
    crash.pid = process.process_id
    if system.timestamp and process.start_time and system.timestamp >= process.start_time:
        crash.uptime_s = system.timestamp - process.start_time
    application = report.application_info or ApplicationInfo()
    identifier, version = text(application.identifier), text(application.version)
    marketing = text(application.marketing_version)
    if identifier:
        # 3.3.1 is what people call the version, and 1 its build: com.example.app@3.3.1+1.
        number = "+".join(v for v in (marketing, version) if v)
        crash.release = f"{identifier}@{number}" if number else identifier
    if info.user_requested:
        crash.level = "info"
    machine = report.machine_info or MachineInfo()
    cpu = machine.processor or Processor()
    facts = {
        "user_requested": info.user_requested or None,
        "app_identifier": identifier,
        "app_version": version,
        "app_marketing_version": marketing,
        "process_path": text(process.process_path),
        "process_native": process.native,
        "process_start_time": process.start_time,
        "parent_process": text(process.parent_process_name),
        "parent_pid": process.parent_process_id,
        "machine_model": text(machine.model),
        "cpu_type": cpu.type,
        "cpu_subtype": cpu.subtype,
        "cpu_count": None if machine.processor_count is None else str(machine.processor_count),
        "logical_cpu_count": None if machine.logical_processor_count is None else str(machine.logical_processor_count),
    }
    if report.custom_data is not None:
        kept = bytes(report.custom_data[:max_bytes])
        facts["custom_data"] = kept.decode("utf-8", "backslashreplace")
        facts["custom_data_base64"] = base64.b64encode(kept).decode()
    crash.attributes |= {name: value for name, value in facts.items() if value is not None}


def stopped(signal: Signal, crash: RawCrash) -> RawException:
    """Return what stopped the process: the Mach exception where the report has one, else the signal it became."""
    name, code, mach = text(signal.name), text(signal.code), signal.mach_exception
    facts = {
        "signal": name,
        "signal_code": code,
        "signal_address": None if signal.address is None else hex(signal.address),
        "mach_exception": None if mach is None else {"type": mach.type, "codes": mach.codes},
    }
    crash.attributes |= {key: value for key, value in facts.items() if value is not None}
    if mach is not None and mach.type and len(mach.codes) > 1:
        why = mach_reason(crash.arch, mach.type, mach.codes[0], mach.codes[1])
        found = RawException(why.type, why.value, mach.type, signal.address, "mach", address_hidden=why.hidden)
        if why.address is not None:
            found.address = why.address
    else:
        detail = code or ""
        if detail.startswith("#"):  # It is a number that the writer has no name for; 0 says nothing.
            detail = f"si_code {detail[1:]}" if detail != "#0" else ""
        found = RawException(name, detail, None, signal.address, "signal")
        if name and name[0] == "#" and name[1:].isdecimal() and len(name) < 5:
            found.code = int(name[1:])
            found.type = SIGNALS.get(found.code, f"signal {found.code}")
        # Of other signals the address is where the thread was.
        if found.type in _FAULTS and signal.address is not None:
            found.value = f"{detail} at {signal.address:#x}".lstrip()
    if crash.level == "info":
        found.value = f"{found.value} (the program asked for this report)".lstrip()
    return found
