"""Every real PLCrashReporter file against what the official schema's own decoder makes of it, field by field."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed, UnknownFormat, Unsupported
from deadreckon.reports import FORMATS, Probe, detect
from deadreckon.reports.plcrash import read
from deadreckon.reports.plcrash.schema import CrashReport, Processor
from deadreckon.wire.protobuf import Wire

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import Module, RawCrash, RawFrame
    from deadreckon.model.event import Event, Frame

pytestmark = pytest.mark.corpus

LIMITS = ReportLimits()
OS_NAMES = {0: "macOS", 1: "iOS", 2: "iOS Simulator", 3: None, 4: "tvOS"}
CPUS = {7: "x86", 12: "arm", 0x0100_0007: "x86_64", 0x0100_000C: "arm64"}
CUT = {"os_build": 64, "name": 256, "path": 512, "reason": 400}
"""The expectations have long strings cut at so many characters."""


def reports(corpus: Path) -> dict[str, bytes]:
    found = {path.stem: path.read_bytes() for path in sorted((corpus / "plcrash").rglob("*.plcrash"))}
    if not found:
        pytest.skip("no PLCrashReporter files in the corpus")
    return found


def expected(corpus: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_bytes()) for path in sorted((corpus / "plcrash/expected").glob("*.json"))}


def clipped(name: str, value: str | None) -> str | None:
    return value[: CUT[name]] if value is not None and name in CUT else value


def string(value: str | None) -> str | None:
    """Return an expected string as the reader gives it: without NULs at the end, None where there is none."""
    return (value or "").rstrip("\0") or None


def frame(said: RawFrame, modules: list[Module]) -> dict[str, Any]:
    pc = said.instruction_addr
    assert pc is not None
    module = next((m for m in modules if m.image_addr <= pc < m.end), None)
    found = {
        "pc": hex(pc),
        "image": module.code_file.rpartition("/")[2] if module else None,
        "image_offset": hex(pc - module.image_addr) if module else None,
        "image_uuid": (module.code_id or "") if module else None,
    }
    if said.reported is not None:
        found["symbol"] = said.reported.raw_function
        found["symbol_start"] = said.reported.symbol_addr
    return found


def known(value: dict[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (value or {}).items() if v is not None}


def compare(crash: RawCrash, want: dict[str, Any]) -> None:
    said = crash.attributes
    system = want["system_info"]
    assert crash.os_name == OS_NAMES[system["operating_system"]]
    assert crash.os_version == system["os_version"]
    assert clipped("os_build", crash.os_build) == string(system["os_build"])
    assert (crash.timestamp or 0) == system["timestamp"]
    if system["architecture"] != 6 and not any(image["cpu_type"] for image in want["images"]):
        assert crash.arch == {0: "x86", 1: "x86_64", 2: "arm", 5: "arm"}[system["architecture"]]
    application = want["application_info"]
    for name in ("identifier", "version", "marketing_version"):
        assert said.get(f"app_{name}") == application[name]
    process = want["process_info"] or {}
    assert clipped("name", crash.process_name) == string(process.get("name"))
    assert clipped("path", said.get("process_path")) == string(process.get("path"))
    assert clipped("name", said.get("parent_process")) == string(process.get("parent"))
    assert (crash.pid, said.get("parent_pid")) == (process.get("pid"), process.get("ppid"))
    assert said.get("process_native") == process.get("native")
    machine = want["machine_info"] or {}
    assert said.get("machine_model") == string(machine.get("model"))
    assert (said.get("cpu_type"), said.get("cpu_subtype")) == (machine.get("cpu_type"), machine.get("cpu_subtype"))
    signal = want["signal"]
    assert (said["signal"], said.get("signal_code")) == (signal["name"], string(signal["code"]))
    assert said["signal_address"] == signal["address"]
    assert said.get("mach_exception") == signal["mach"]
    stopped, *others = crash.exceptions
    if signal["mach"] is None:
        assert (stopped.type, stopped.address) == (signal["name"], int(signal["address"], 16))
    uncaught = want["exception"]
    assert len(others) == (uncaught is not None)
    for exception in others:
        assert exception.type == uncaught["name"]
        assert exception.value[: CUT["reason"]] == uncaught["reason"]
        assert [known(frame(f, crash.modules)) for f in exception.frames or ()] == [
            known(f) for f in uncaught["frames"]
        ]
        assert all(f.is_return_address for f in exception.frames or ())
    assert crash.event_id == want["report_uuid"]
    compare_images(crash, want)
    compare_threads(crash, want)


def compare_message(report: CrashReport, want: dict[str, Any]) -> None:
    """Compare what a crash has no place for."""
    assert report.system_info is not None
    assert report.system_info.architecture == want["system_info"]["architecture"]
    for image, told in zip(report.binary_images, want["images"], strict=True):
        cpu = image.code_type or Processor(type=0, subtype=0)
        assert (cpu.type, cpu.subtype) == (told["cpu_type"], told["cpu_subtype"])


def compare_images(crash: RawCrash, want: dict[str, Any]) -> None:
    assert len(crash.modules) == want["n_images"] == len(want["images"])
    assert crash.arch == next((CPUS[i["cpu_type"]] for i in want["images"] if i["cpu_type"]), crash.arch)
    for module, image in zip(crash.modules, want["images"], strict=True):
        assert (hex(module.image_addr), module.image_size) == (image["base"], image["size"])
        assert module.code_file == image["name"]
        assert (module.code_id or "") == (image["uuid"] or "")
        assert (module.debug_id or "").replace("-", "") == (image["uuid"] or "")
        assert module.arch == CPUS.get(image["cpu_type"], crash.arch)


def compare_threads(crash: RawCrash, want: dict[str, Any]) -> None:
    assert len(crash.threads) == want["n_threads"] == len(want["threads"])
    for thread, told in zip(crash.threads, want["threads"], strict=True):
        assert (thread.id, thread.crashed) == (told["number"], told["crashed"])
        assert [known(frame(f, crash.modules)) for f in thread.frames or ()] == [known(f) for f in told["frames"]]
        assert [f.is_return_address for f in thread.frames or ()] == [i > 0 for i in range(len(told["frames"]))]
        assert (thread.registers.as_hex() if thread.registers else None) == (told.get("registers") or None)
    crashed = [t["number"] for t in want["threads"] if t["crashed"]]
    assert {e.thread_id for e in crash.exceptions} == {crashed[0] if crashed else None}


def test_every_report_is_as_expected(corpus: Path) -> None:
    data = reports(corpus)
    wanted = expected(corpus)
    assert set(wanted) == {name for name, content in data.items() if content}
    for name, want in wanted.items():
        crash = read(data[name], LIMITS)
        assert len(data[name]) == want["bytes"]
        assert [d for d in crash.diagnostics if d.severity != "info"] == []
        compare(crash, want)
        compare_message(Wire(memoryview(data[name]), 8).read(CrashReport), want)


def test_each_is_told_from_all_other_formats(corpus: Path) -> None:
    for name, data in reports(corpus).items():
        assert [f.name for f in FORMATS if f.sniff(Probe(data))] == (["plcrash"] if data else []), name
        assert (detect(Probe(data)) is None) == (not data)


def test_the_empty_one_is_an_error(corpus: Path) -> None:
    empty = reports(corpus)["live_report_empty"]
    with pytest.raises(Malformed, match="expected 'plcrash' and a version"):
        read(empty, LIMITS)
    with Engine() as engine:
        event = engine.process(empty)
    assert event.status == "unreadable"
    assert [(d.code, d.severity) for d in event.diagnostics or ()] == [(UnknownFormat.code, "error")]


def event_frame(said: Frame) -> dict[str, Any]:
    name = (said.package or "").rpartition("/")[2] or None
    uuid = (said.debug_id or "").replace("-", "") if name else None
    return known({"pc": said.instruction_addr, "image": name, "image_offset": said.rva, "image_uuid": uuid})


def compare_event(event: Event, want: dict[str, Any]) -> None:
    assert (event.status, event.source.format, event.platform, event.level) == ("ok", "plcrash", "native", "fatal")
    assert event.timestamp is not None
    assert event.threads is not None
    for thread, told in zip(event.threads, want["threads"], strict=True):
        listed = [known({k: v for k, v in f.items() if not k.startswith("symbol")}) for f in told["frames"]]
        assert [event_frame(f) for f in thread.frames or ()] == listed
        assert thread.registers == (told.get("registers") or None)
        for found, f in zip(thread.frames or (), told["frames"], strict=True):
            assert found.raw_function == f.get("symbol")
            assert found.status == ("symbolicated" if f.get("symbol") else "missing" if f["image"] else "unknown_image")


def test_events_say_the_same(corpus: Path) -> None:
    data = reports(corpus)
    with Engine() as engine:
        for name, want in expected(corpus).items():
            compare_event(engine.process(data[name]), want)


def test_damaged_reports(corpus: Path) -> None:
    """Cut and changed at random places: a crash or one of our errors, and most often a crash."""
    chance = random.Random(5)
    tried = kept = 0
    for data in filter(None, reports(corpus).values()):
        damaged = [data[: chance.randrange(len(data))] for _ in range(4)]
        for _ in range(12):
            changed = bytearray(data)
            for _ in range(chance.choice((1, 4, 40))):
                changed[chance.randrange(8, len(data))] = chance.randrange(256)
            damaged.append(bytes(changed))
        for piece in damaged:
            tried += 1
            try:
                kept += bool(read(piece, LIMITS).threads)
            except (Malformed, Unsupported):
                continue
    assert kept > 0.8 * tried
