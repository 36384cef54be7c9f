"""MetricKit: whose call a frame's child is, where its binary was loaded, and which stack stands for many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import metrickit

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
APP, SYSTEM = "CA12CAFA-91BA-3E1C-BE9C-E34DB96FE7DF", "56C020FC-0369-3775-B947-148F388A65B3"
BASES = {APP: 0x1_00F3_C000, SYSTEM: 0x1_8D51_A000}
NAMES = {APP: "Orchard", SYSTEM: "libswiftCore.dylib"}


def frame(uuid: str, offset: int, *below: dict[str, Any], samples: int = 1, **more: Any) -> dict[str, Any]:
    found = {
        "binaryUUID": uuid,
        "binaryName": NAMES[uuid],
        "offsetIntoBinaryTextSegment": offset,
        "address": BASES[uuid] + offset,
        "sampleCount": samples,
        **more,
    }
    return found | ({"subFrames": list(below)} if below else {})


def tree(*roots: dict[str, Any], per_thread: bool = True, attributed: bool = True) -> dict[str, Any]:
    stack = {"threadAttributed": attributed, "callStackRootFrames": list(roots)}
    return {"callStacks": [stack], "callStackPerThread": per_thread}


def read(value: Any) -> list[RawCrash]:
    data = json.dumps(value).encode()
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(data))] == ["metrickit"]
    return metrickit.read(data, LIMITS)


def addresses(crash: RawCrash, thread: int = 0) -> list[int | None]:
    return [f.instruction_addr for f in crash.threads[thread].frames or ()]


CHAIN = frame(SYSTEM, 0x1A3, frame(APP, 0xB52C, frame(APP, 0xB4FA)))
METADATA = {
    "appBuildVersion": "45",
    "appVersion": "1.9.0",
    "bundleIdentifier": "org.example.orchard",
    "exceptionType": 1,
    "exceptionCode": 0,
    "signal": 11,
    "osVersion": "iPhone OS 17.0 (21A329)",
    "deviceType": "iPhone15,4",
    "platformArchitecture": "arm64e",
    "pid": 4242,
    "terminationReason": "Namespace SIGNAL, Code 11 Segmentation fault: 11",
    "virtualMemoryRegionInfo": "0 is not in any region.",
    "isTestFlightApp": True,
}


def test_a_crashs_tree_is_a_stack_with_the_innermost_frame_at_its_root() -> None:
    (crash,) = read(tree(CHAIN))
    assert addresses(crash) == [BASES[SYSTEM] + 0x1A3, BASES[APP] + 0xB52C, BASES[APP] + 0xB4FA]
    assert [f.is_return_address for f in crash.threads[0].frames or ()] == [False, True, True]
    assert crash.threads[0].crashed
    assert crash.arch is Arch.ARM64
    assert [(m.image_addr, m.debug_id, m.code_file) for m in crash.modules] == [
        (BASES[APP], APP.lower(), "Orchard"),
        (BASES[SYSTEM], SYSTEM.lower(), "libswiftCore.dylib"),
    ]
    # They reach as far as their frames show.
    assert crash.modules[0].end == BASES[APP] + 0xB52C + 1
    assert [f.reported.in_app for f in crash.threads[0].frames or () if f.reported] == [False, None, None]


SAMPLES = frame(
    SYSTEM,
    0x10,
    frame(APP, 0x100, frame(APP, 0x200, samples=2), frame(SYSTEM, 0x20, samples=5), samples=8),
    frame(APP, 0x300, samples=2),
    samples=10,
)


@pytest.mark.parametrize(
    "value",
    [
        tree(SAMPLES, per_thread=False),
        tree(SAMPLES),
        {"hangDiagnostics": [{"callStackTree": tree(SAMPLES), "diagnosticMetaData": {"hangDuration": "4.5 sec"}}]},
        {"cpuExceptionDiagnostics": [{"callStackTree": tree(SAMPLES, per_thread=False)}]},
    ],
    ids=["not per thread", "branches", "hang", "cpu"],
)
def test_of_samples_the_stack_that_was_seen_most_often(value: dict[str, Any]) -> None:
    """Their root is where the thread began."""
    (crash,) = read(value)
    assert addresses(crash) == [BASES[SYSTEM] + 0x20, BASES[APP] + 0x100, BASES[SYSTEM] + 0x10]
    assert (crash.attributes["samples"], crash.attributes["samples_of_stack"]) == (10, [5])
    assert not crash.threads[0].crashed
    assert crash.level == "warning"


def test_a_payload_of_several_diagnostics() -> None:
    crashes = read(
        {
            "timeStampBegin": "2020-10-10 19:35:24 +0000",
            "timeStampEnd": "2020-10-10 19:35:24",
            "crashDiagnostics": [{"version": "1.0.0", "callStackTree": tree(CHAIN), "diagnosticMetaData": METADATA}],
            "hangDiagnostics": [{"callStackTree": tree(SAMPLES), "diagnosticMetaData": {"hangDuration": "20 secs."}}],
            "diskWriteExceptionDiagnostics": [{"callStackTree": {}, "diagnosticMetaData": {"writesCaused": "2 byte"}}],
        }
    )
    crash, hang, writes = crashes
    assert [(e.type, e.value, e.code, e.address) for e in crash.exceptions] == [
        ("EXC_BAD_ACCESS", "code 0x0", 1, None),
    ]
    assert (crash.os_name, crash.os_version, crash.os_build, crash.pid) == ("iOS", "17.0", "21A329", 4242)
    assert (crash.release, crash.timestamp, crash.arch) == ("org.example.orchard@1.9.0+45", 1602358524.0, Arch.ARM64)
    assert crash.attributes["machine_model"] == "iPhone15,4"
    assert crash.attributes["testflight"] is True
    assert crash.attributes["termination_reason"].startswith("Namespace SIGNAL")
    assert [e.type for e in hang.exceptions] == ["Hang"]
    assert hang.attributes["hang_duration"] == "20 secs."
    assert [e.type for e in writes.exceptions] == ["DiskWriteException"]
    assert writes.threads == []
    assert crash.timestamp == hang.timestamp


@pytest.mark.parametrize("key", ["exceptionReason", "objectiveCexceptionReason"])
def test_an_uncaught_exception(key: str) -> None:
    reason = {"exceptionName": "NSRangeException", "composedMessage": "beyond bounds", "className": "NSException"}
    metadata = METADATA | {"exceptionType": 10, "signal": 6, key: reason}
    (crash,) = read({"crashDiagnostics": [{"callStackTree": tree(CHAIN), "diagnosticMetaData": metadata}]})
    assert [(e.type, e.value) for e in crash.exceptions] == [
        ("EXC_CRASH", "SIGABRT"),
        ("NSRangeException", "beyond bounds"),
    ]


def test_systems_that_say_the_base_where_the_offset_should_be() -> None:
    """These are iOS 14 and 15, and macOS 12."""
    inner = frame(APP, 0xB4FA, offsetIntoBinaryTextSegment=BASES[APP])
    outer = frame(SYSTEM, 0x1A3, inner, offsetIntoBinaryTextSegment=BASES[SYSTEM])
    (crash,) = read(tree(outer))
    assert [m.image_addr for m in crash.modules] == [BASES[APP], BASES[SYSTEM]]
    assert addresses(crash) == [BASES[SYSTEM] + 0x1A3, BASES[APP] + 0xB4FA]


def test_offsets_of_the_byte_before_a_return_address() -> None:
    root = frame(SYSTEM, 0x1A4, frame(APP, 0xB4FC, offsetIntoBinaryTextSegment=0xB4FB))
    root["offsetIntoBinaryTextSegment"] = 0x1A3
    (crash,) = read(tree(root))
    assert [m.image_addr for m in crash.modules] == [BASES[APP], BASES[SYSTEM]]
    assert addresses(crash) == [BASES[SYSTEM] + 0x1A4, BASES[APP] + 0xB4FC]


def test_of_contradicting_frames_most_are_right() -> None:
    odd = frame(APP, 0xB522, offsetIntoBinaryTextSegment=0xB4FA)
    root = frame(APP, 0xB52C, frame(APP, 0xB518, odd))
    (crash,) = read(tree(root))
    assert [m.image_addr for m in crash.modules] == [BASES[APP]]
    assert addresses(crash)[2] == BASES[APP] + 0xB522


def test_intels_shared_cache_tells_the_architecture() -> None:
    high = {"binaryUUID": SYSTEM, "binaryName": "x", "offsetIntoBinaryTextSegment": 8, "address": 0x7FF8_0000_1008}
    assert read(tree(high))[0].arch is Arch.X86_64


def test_the_newest_layout() -> None:
    """Names are kept once, and measurements have units."""
    inner = {k: v for k, v in frame(APP, 0xB4FA).items() if k != "binaryName"}
    value = {
        "timeRange": {"begin": 0, "end": 2},
        "environment": {
            "osVersion": {"platform": "macOS", "number": "27.0", "buildNumber": "26A1"},
            "platformArchitecture": "arm64",
            "applicationVersion": "1.0",
            "applicationBuildVersion": "12",
            "bundleIdentifier": "dev.test",
        },
        "hangDuration": {"value": 2500, "unit": "ms"},
        "callStackTree": {
            "callStackThreads": [{"threadAttributed": True, "rootFrames": [inner]}],
            "callStackPerThread": True,
            "binaryInfo": [{"binaryUUID": APP, "binaryName": "Orchard"}],
        },
    }
    (crash,) = read(value)
    assert (crash.os_name, crash.os_version, crash.os_build) == ("macOS", "27.0", "26A1")
    assert crash.release == "dev.test@1.0+12"
    assert crash.attributes["hang_duration"] == "2500 ms"
    assert [m.code_file for m in crash.modules] == ["Orchard"]


def test_a_tree_kept_as_text_and_an_array_of_payloads() -> None:
    one = {"crashDiagnostics": [{"callStackTree": json.dumps(tree(CHAIN)), "diagnosticMetaData": METADATA}]}
    first, second = read([one, one])
    assert addresses(first) == addresses(second) == addresses(read(tree(CHAIN))[0])


def test_stacks_that_ran_over() -> None:
    """They nest deeper than Python's own parser can follow."""
    deep = '{"callStacks": [{"threadAttributed": true, "callStackRootFrames": [' + "".join(
        f'{{"binaryUUID": "{APP}", "binaryName": "a", "offsetIntoBinaryTextSegment": {i}, '
        f'"address": {BASES[APP] + i}, "subFrames": ['
        for i in range(3000)
    )
    deep += "]}" * 3000 + ']}], "callStackPerThread": true}'
    (crash,) = metrickit.read(deep.encode(), LIMITS)
    assert addresses(crash) == [BASES[APP] + i for i in range(3000)]
    assert crash.diagnostics == []


def test_a_cut_tree_keeps_its_frames() -> None:
    source = json.dumps(tree(CHAIN))
    (crash,) = metrickit.read(source[: source.rindex('"sampleCount"')].encode(), LIMITS)
    assert addresses(crash) == addresses(read(tree(CHAIN))[0])
    assert [d.code for d in crash.diagnostics] == ["malformed"]


def test_wrong_types_and_nothing() -> None:
    odd = tree({"binaryUUID": 5, "address": "x", "subFrames": [5, {"subFrames": 5}]})
    assert addresses(read(odd)[0]) == [None, None]
    for nothing in (b"", b"{}", b"[]", b"[5]", b'{"callStacks": []}', b"nothing"):
        with pytest.raises(Malformed):
            metrickit.read(nothing, LIMITS)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrickit, "_MAX_NODES", 2)
    (crash,) = read(tree(CHAIN))
    assert len(addresses(crash)) == 2
    assert [d.code for d in crash.diagnostics] == ["limit_exceeded"]
