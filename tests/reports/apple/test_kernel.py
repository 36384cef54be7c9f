"""Kernel panics of both kinds of Macs, as text and as ``.ips``, and stackshots."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import ips, kernel

LIMITS = ReportLimits()
KERNEL = "A1B2C3D4-5566-3788-99AA-BBCCDDEEFF00"
EXTENSION = "0B3B580D-98BD-38CF-B435-B91EA38FF0F0"
ARM = f"""panic(cpu 4 caller 0xfffffe0011d54ae0): "pcie link down" @AppleT8112PCIe.cpp:512
Debugger message: panic
OS release type: User
OS version: 22F66
Kernel version: Darwin Kernel Version 22.5.0: root:xnu-8796~4/RELEASE_ARM64_T8112
Kernel UUID: {KERNEL}
Kernel slide:      0x0000000009a54000
Kernel text base:  0xfffffe0011a58000
Epoch Time:        sec       usec
  Boot    : 0x647a1b2c 0x000a1b2c
  Calendar: 0x647a2b3c 0x000c1d2e

Panicked task 0xfffffe29d5fab940: 0 pages, 563 threads: pid 0: kernel_task
Panicked thread: 0xfffffe1974044790, backtrace: 0xfffffe647feeb6c0, tid: 255
\t\t  lr: 0xfffffe0011d54ae0  fp: 0xfffffe647feeb750
\t\t  lr: 0xfffffe0012eb3260  fp: 0xfffffe647feebd60
\t\t  lr: 0xfffffe0011d08c48  fp: 0x0000000000000000
      Kernel Extensions in backtrace:
         com.apple.driver.AppleEmbeddedPCIE(1.0)[{EXTENSION}]@0xfffffe0012ea35e0->0xfffffe0012eba45b
            dependency: com.apple.iokit.IOPCIFamily(2.9)[7E6672DD-F880-3B24-A0F9-C39A7F79FA46]@0xfffffe0014677640
last started kext at 421793067: com.apple.filesystems.autofs	3.0 (addr 0xfffffe0012eb0000)
"""
INTEL = f"""Anonymous UUID:       E4B2A9D1-0000-0000-0000-000000000000

Sat Mar  7 11:22:33 2020

*** Panic Report ***
panic(cpu 2 caller 0xffffff800c042578): "a kext did it"
Backtrace (CPU 2), Frame : Return Address
0xffffffa3dc85bd60 : 0xffffff7f8ca97073 com.apple.iokit.IOUSBHostFamily : __ZN3Usb3runEv + 0x2db
0xffffffa3dc85bdc0 : 0xffffff800c042578 mach_kernel : _panic + 0x138
0xffffffa3dc85be20 : 0xffffff800c027534
      Kernel Extensions in backtrace:
         com.apple.iokit.IOUSBHostFamily(1.2)[{EXTENSION}]@0xffffff7f8ca83000->0xffffff7f8cb7bfff

BSD process name corresponding to current thread: kernel_task

Mac OS version:
19D76

Kernel UUID: {KERNEL}
Kernel text base: 0xffffff800b800000
System model name: MacBookPro15,1 (Mac-937A206F2EE63C01)
System uptime in nanoseconds: 1234567890123
"""


def test_apple_silicon() -> None:
    data = ARM.encode()
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["apple-panic"]
    crash = kernel.read(data, LIMITS)
    (found,) = crash.exceptions
    assert (found.type, found.value) == ("panic", '"pcie link down" @AppleT8112PCIe.cpp:512')
    (thread,) = crash.threads
    assert (thread.id, thread.crashed) == (255, True)
    assert [f.instruction_addr for f in thread.frames or ()] == [
        0xFFFFFE0011D54AE0,
        0xFFFFFE0012EB3260,
        0xFFFFFE0011D08C48,
    ]
    assert all(f.is_return_address for f in thread.frames or ())
    assert (crash.arch, crash.os_build, crash.pid, crash.timestamp) == (Arch.ARM64, "22F66", 0, 0x647A2B3C)
    named = {m.code_file: m for m in crash.modules}
    assert named["kernel"].debug_id == KERNEL.lower()
    assert named["kernel"].image_addr == 0xFFFFFE0011A58000
    pcie = named["com.apple.driver.AppleEmbeddedPCIE"]
    assert (pcie.image_addr, pcie.end, pcie.debug_id) == (0xFFFFFE0012EA35E0, 0xFFFFFE0012EBA45C, EXTENSION.lower())
    # The kernel's size is not told: it reaches as far as its frames, and not into the extension.
    assert named["kernel"].end == 0xFFFFFE0011D54AE1
    assert crash.attributes["panicked_task"] == "kernel_task"


def test_intel_with_symbols() -> None:
    crash = kernel.read(INTEL.encode(), LIMITS)
    frames = crash.threads[0].frames or []
    assert [f.instruction_addr for f in frames] == [0xFFFFFF7F8CA97073, 0xFFFFFF800C042578, 0xFFFFFF800C027534]
    told = [f.reported for f in frames if f.reported]
    assert [f.function or f.raw_function for f in told] == ["__ZN3Usb3runEv", "_panic", None]
    assert told[0].symbol_addr == hex(0xFFFFFF7F8CA97073 - 0x2DB)
    assert crash.arch is Arch.X86_64
    assert (crash.os_build, crash.attributes["machine_model"], crash.uptime_s) == (
        "19D76",
        "MacBookPro15,1",
        1234.567890123,
    )


def test_in_an_ips_file() -> None:
    header = {"bug_type": "210", "timestamp": "2023-06-02 18:30:00.00 +0200", "os_version": "macOS 13.4 (22F66)"}
    body = {
        "build": "macOS 13.4 (22F66)",
        "product": "Mac14,2",
        "incident": "05D98B49-C8B1-4F18-B494-491D76B2AA3C",
        "date": "2023-06-02 18:30:02.66 +0200",
        "panicString": ARM,
        "binaryImages": [[KERNEL, 18446741874969509888, "T"]],
    }
    data = f"{json.dumps(header)}\n{json.dumps(body)}".encode()
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["apple-ips"]
    crash = ips.read(data, LIMITS)
    assert (crash.format, crash.os_name, crash.os_version) == ("apple-ips", "macOS", "13.4")
    assert crash.attributes["machine_model"] == "Mac14,2"
    assert len(crash.threads[0].frames or ()) == 3
    assert crash.event_id == "05d98b49c8b14f18b494491d76b2aa3c"
    assert crash.timestamp == 1685723402.66


def test_a_panic_without_a_backtrace() -> None:
    crash = kernel.read(b"panic(cpu 0 caller 0x1): watchdog timeout\n", LIMITS)
    assert crash.threads == []
    assert [d.code for d in crash.diagnostics] == ["truncated"]
    with pytest.raises(Malformed):
        kernel.read(b"no panic", LIMITS)


def stackshot(**changes: Any) -> bytes:
    body = {
        "build": "iPhone OS 16.5 (20F66)",
        "reason": "hang",
        "frontmostPids": [312],
        "binaryImages": [
            ["db2fd9ec-8dd1-3021-98df-93db16cf4863", 0x1_0478_8000, "P"],
            [KERNEL, 18446741874969509888, "T"],
            ["00000000-0000-0000-0000-000000000000", 0, "A"],
            ["11111111-2222-3333-4444-555555555555", 0x2_0000_0000, "S"],
        ],
        "processByPid": {
            "312": {
                "procname": "Orchard",
                "threadById": {
                    "4711": {"name": "main", "kernelFrames": [[1, 64]], "userFrames": [[0, 32], [0, 48], [2, 77]]},
                    "4712": {"userFrames": [[9, 1], [0], 5]},
                },
            },
            "0": {"procname": "kernel_task", "threadById": {}},
        },
    } | changes
    return (json.dumps({"bug_type": "288"}) + "\n" + json.dumps(body)).encode()


def test_a_stackshot_is_about_the_frontmost_process() -> None:
    crash = ips.read(stackshot(), LIMITS)
    assert (crash.process_name, crash.pid, crash.os_name, crash.message) == ("Orchard", 312, "iOS", "hang")
    assert [(t.id, t.name) for t in crash.threads] == [(4711, "main"), (4712, None)]
    frames = crash.threads[0].frames or []
    assert [f.instruction_addr for f in frames] == [18446741874969509952, 0x1_0478_8020, 0x1_0478_8030, 77]
    assert [f.is_return_address for f in frames] == [True, False, True, True]
    assert crash.threads[1].frames == []
    assert [m.debug_id for m in crash.modules] == ["db2fd9ec-8dd1-3021-98df-93db16cf4863", KERNEL.lower()]
    assert crash.attributes["processes"] == 2


def test_a_stackshot_without_its_process() -> None:
    with pytest.raises(Malformed):
        ips.read(stackshot(frontmostPids=[9]), LIMITS)
    assert ips.read(stackshot(frontmostPids=[], pid=312), LIMITS).pid == 312
