"""Writes one crash as Apple's systems do, as ``.ips`` of both generations and as text, and as KSCrash does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

HEADER = {
    "app_name": "Orchard",
    "timestamp": "2026-01-02 03:04:05.00 +0100",
    "app_version": "1.2",
    "build_version": "34",
    "bundleID": "org.example.orchard",
    "bug_type": "309",
    "os_version": "iPhone OS 17.1 (21B80)",
    "incident_id": "4904A8AF-6173-4A1B-B354-0A9C4FB1F673",
    "name": "Orchard",
}
INCIDENT = "4904a8af61734a1bb3540a9c4fb1f673"


@dataclass
class Picture:
    """An image."""

    name: str
    base: int
    size: int
    uuid: str
    arch: str = "arm64"
    folder: str = "/private/var/containers/Bundle/Application/Orchard.app"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"


@dataclass
class Call:
    """A frame: ``image`` is an index, None for an address in no image."""

    image: int | None
    offset: int
    symbol: str | None = None
    at: int = 0
    file: str | None = None
    line: int | None = None
    inline: bool = False


@dataclass
class Report:
    """A crash of one thread among several; the thread with ``state`` is the one that crashed."""

    images: list[Picture]
    threads: list[list[Call]]
    crashed: int = 0
    names: dict[int, str] = field(default_factory=dict)
    state: dict[str, int] = field(default_factory=dict)
    last: list[Call] = field(default_factory=list)
    information: str = ""
    kind: str = "EXC_BAD_ACCESS"
    signal: str = "SIGSEGV"
    subtype: str = "KERN_INVALID_ADDRESS at 0x0000000000000010"
    codes: tuple[int, ...] = (1, 16)
    cpu: str = "ARM-64"

    def address(self, call: Call) -> int:
        return call.offset + (self.images[call.image].base if call.image is not None else 0)

    # -- JSON ---------------------------------------------------------------------------------------------------------

    def body(self) -> dict[str, Any]:
        """Return the second document; the image for addresses in none comes last."""
        images: list[dict[str, Any]] = [
            {
                "source": "P",
                "arch": i.arch,
                "base": i.base,
                "size": i.size,
                "uuid": i.uuid,
                "path": i.path,
                "name": i.name,
            }
            for i in self.images
        ]
        images.append({"size": 0, "source": "A", "base": 0, "uuid": "00000000-0000-0000-0000-000000000000"})
        body: dict[str, Any] = {
            "procLaunch": "2026-01-02 03:04:00.5000 +0100",
            "captureTime": "2026-01-02 03:04:05.7500 +0100",
            "modelCode": "iPhone13,4",
            "osVersion": {"train": "iPhone OS 17.1", "build": "21B80", "isEmbedded": True},
            "incident": HEADER["incident_id"],
            "pid": 4711,
            "cpuType": self.cpu,
            "procName": "Orchard",
            "procPath": self.images[0].path if self.images else "/orchard",
            "bundleInfo": {
                "CFBundleShortVersionString": "1.2",
                "CFBundleVersion": "34",
                "CFBundleIdentifier": "org.example.orchard",
            },
            "parentProc": "launchd",
            "parentPid": 1,
            "crashReporterKey": "0badcafe",
            "exception": {
                "codes": ", ".join(f"0x{c:016x}" for c in self.codes),
                "rawCodes": list(self.codes),
                "type": self.kind,
                "signal": self.signal,
            },
            "faultingThread": self.crashed,
            "threads": [self._thread(n, calls) for n, calls in enumerate(self.threads)],
            "usedImages": images,
        }
        if self.subtype:
            body["exception"]["subtype"] = self.subtype
        if self.information:
            body["asi"] = {"libsystem_c.dylib": self.information.split("\n")}
        if self.last:
            body["lastExceptionBacktrace"] = [self._frame(c) for c in self.last]
        return body

    def _thread(self, number: int, calls: list[Call]) -> dict[str, Any]:
        found: dict[str, Any] = {"id": 1000 + number, "frames": [self._frame(c) for c in calls]}
        if name := self.names.get(number):
            found["queue" if "." in name else "name"] = name
        if number == self.crashed:
            found["triggered"] = True
            numbered = [{"value": self.state[f"x{i}"]} for i in range(29) if f"x{i}" in self.state]
            rest = {k: {"value": v} for k, v in self.state.items() if k[0] != "x"}
            found["threadState"] = {"flavor": "ARM_THREAD_STATE64", "x": numbered, **rest}
        return found

    def _frame(self, call: Call) -> dict[str, Any]:
        found: dict[str, Any] = {
            "imageOffset": call.offset,
            "imageIndex": call.image if call.image is not None else len(self.images),
        }
        if call.symbol:
            found |= {"symbol": call.symbol, "symbolLocation": call.at}
        if call.file:
            found |= {"sourceFile": call.file}
        if call.line:
            found |= {"sourceLine": call.line}
        if call.inline:
            found["inline"] = True
        return found

    def ips(self, header: dict[str, Any] | None = None) -> str:
        return json.dumps(HEADER if header is None else header) + "\n" + json.dumps(self.body(), indent=2)

    # -- text ---------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return the report as Apple's own translation prints it."""
        lines = [
            f"Incident Identifier: {HEADER['incident_id']}",
            "CrashReporter Key:   0badcafe",
            "Hardware Model:      iPhone13,4",
            "Process:             Orchard [4711]",
            f"Path:                {self.images[0].path if self.images else '/orchard'}",
            "Identifier:          org.example.orchard",
            "Version:             1.2 (34)",
            f"Code Type:           {self.cpu} (Native)",
            "Role:                Foreground",
            "Parent Process:      launchd [1]",
            "",
            "Date/Time:           2026-01-02 03:04:05.7500 +0100",
            "Launch Time:         2026-01-02 03:04:00.5000 +0100",
            "OS Version:          iPhone OS 17.1 (21B80)",
            "Report Version:      104",
            "",
            f"Exception Type:  {self.kind} ({self.signal})",
        ]
        if self.subtype:
            lines.append(f"Exception Subtype: {self.subtype}")
        lines += [f"Exception Codes: {', '.join(f'0x{c:016x}' for c in self.codes)}", ""]
        lines += [f"Triggered by Thread:  {self.crashed}", ""]
        if self.information:
            lines += ["Application Specific Information:", *self.information.split("\n"), ""]
        if self.last:
            lines += ["Last Exception Backtrace:", *self._calls(self.last), ""]
        for number, calls in enumerate(self.threads):
            if name := self.names.get(number):
                lines.append(f"Thread {number} name:  {'Dispatch queue: ' if '.' in name else ''}{name}")
            lines.append(f"Thread {number}{' Crashed' if number == self.crashed else ''}:")
            lines += [*self._calls(calls), ""]
        if self.state:
            lines += ["", f"Thread {self.crashed} crashed with ARM Thread State (64-bit):"]
            pairs = [f"{name:>5}: 0x{value:016x}" for name, value in self.state.items()]
            lines += ["".join(pairs[i : i + 4]) for i in range(0, len(pairs), 4)]
            lines.append("")
        lines.append("Binary Images:")
        lines += [
            f"{i.base:#18x} - {i.base + i.size - 1:#18x} {i.name} {i.arch}  <{i.uuid.replace('-', '')}> {i.path}"
            for i in self.images
        ]
        return "\n".join([*lines, "", "EOF"]) + "\n"

    def _calls(self, calls: list[Call]) -> list[str]:
        return [f"{n:<4}{self._call(call)}" for n, call in enumerate(calls)]

    def _call(self, call: Call) -> str:
        image = self.images[call.image] if call.image is not None else None
        name, base = (image.name, image.base) if image else ("???", 0)
        if not call.symbol:
            what = f"{base:#x} + {call.offset}"
        else:
            what = f"{call.symbol} + {call.at}{' [inlined]' if call.inline else ''}"
        if call.file:
            what += f" ({call.file}:{call.line or 0})"
        return f"{name:<30}\t{self.address(call):#18x} {what}"

    # -- KSCrash ------------------------------------------------------------------------------------------------------

    def kscrash(self) -> dict[str, Any]:
        threads = []
        for number, calls in enumerate(self.threads):
            thread: dict[str, Any] = {
                "index": number,
                "crashed": number == self.crashed,
                "current_thread": number == self.crashed,
                "backtrace": {"skipped": 0, "contents": [self._entry(c) for c in calls]},
            }
            if name := self.names.get(number):
                thread["dispatch_queue" if "." in name else "name"] = name
            if number == self.crashed:
                thread["registers"] = {"basic": dict(self.state), "exception": {"far": 16, "esr": 0x92000006}}
            threads.append(thread)
        return {
            "report": {
                "id": HEADER["incident_id"],
                "process_name": "Orchard",
                "timestamp": "2026-01-02T02:04:05.750000Z",
                "type": "standard",
                "version": "3.2.0",
            },
            "binary_images": [
                {
                    "image_addr": i.base,
                    "image_vmaddr": 0x1_0000_0000,
                    "image_size": i.size,
                    "name": i.path,
                    "uuid": i.uuid.upper(),
                    "cpu_type": 0x0100_000C,
                    "cpu_subtype": 0,
                }
                for i in self.images
            ],
            "system": {
                "system_name": "iOS",
                "system_version": "17.1",
                "os_version": "21B80",
                "machine": "iPhone13,4",
                "process_id": 4711,
                "parent_process_id": 1,
                "CFBundleIdentifier": "org.example.orchard",
                "CFBundleShortVersionString": "1.2",
                "CFBundleVersion": "34",
                "app_start_time": "2026-01-02T02:04:00Z",
                "cpu_arch": "arm64",
            },
            "crash": {
                "error": {
                    "type": "mach",
                    "address": 16,
                    "mach": {
                        "exception": 1,
                        "exception_name": self.kind,
                        "code": 1,
                        "code_name": "KERN_INVALID_ADDRESS",
                        "subcode": 16,
                    },
                    "signal": {"signal": 11, "name": self.signal, "code": 0},
                },
                "threads": threads,
            },
        }

    def _entry(self, call: Call) -> dict[str, Any]:
        address = self.address(call)
        found: dict[str, Any] = {"instruction_addr": address}
        if call.image is not None:
            image = self.images[call.image]
            found |= {"object_addr": image.base, "object_name": image.name}
        if call.symbol:
            found |= {"symbol_name": call.symbol, "symbol_addr": address - call.at}
        return found


def sample() -> Report:
    """Return a report with a bit of everything."""
    images = [
        Picture("Orchard", 0x1_0478_8000, 0x10_0000, "db2fd9ec-8dd1-3021-98df-93db16cf4863"),
        Picture(
            "libobjc.A.dylib",
            0x1_9785_0000,
            0x4_0000,
            "9618b2f2-a4c2-3e07-b7ee-d8d9e1bdeaec",
            "arm64e",
            "/usr/lib",
        ),
        Picture("My Fruit Kit", 0x1_0500_0000, 0x8000, "16faa70c-278c-3561-859e-cec407c2dc7c"),
    ]
    state = {f"x{i}": 0x100 + i for i in range(29)}
    state |= {"fp": 0x16_EFFE_660, "lr": 0x1_0478_9014, "sp": 0x16_EFFE_620, "pc": 0x1_0478_9108, "cpsr": 0x4000_1000}
    return Report(
        images,
        [
            [Call(1, 0xBF80, "objc_exception_throw", 56), Call(0, 0x1014), Call(2, 0x20, "-[Apple peel:with:]", 32)],
            [
                Call(0, 0x1108, "Basket.weigh(_:)", 0, "Basket.swift", 12, inline=True),
                Call(0, 0x1108, "Basket.pick()", 24, "Basket.swift", 40),
                Call(0, 0x1014, "main", 20, "main.swift", 3),
                Call(None, 0x5448_5244),
            ],
            [],
        ],
        crashed=1,
        names={0: "com.apple.main-thread", 1: "Picker"},
        state=state,
        last=[Call(1, 0xBF80, "objc_exception_throw", 56), Call(0, 0x1020)],
        information="*** Terminating app due to uncaught exception 'NSRangeException', reason: 'it's out of\nbounds'\n"
        "terminating with uncaught exception of type NSException\nabort() called",
    )
