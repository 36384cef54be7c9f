"""Real reports of the corpus: pairs of formats agree, and each file is recognised by one reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, reports
from deadreckon.config import Config, ReportLimits
from synth.apple import Call, Picture, Report

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

pytestmark = pytest.mark.corpus

LIMITS = ReportLimits()
FORMATS = {
    "kscrash/*.json": "kscrash",
    "kscrash/*.txt": "apple-crash",
    "sentry_cocoa/MetricKit*.json": "metrickit",
    "sentry_cocoa/[a-z]*.json": "kscrash",
    "sym/*.ips": "apple-ips",
    "sym/*.log": "apple-crash",
    "sym/*.crash": "apple-crash",
    "text/*.crash": "apple-crash",
}
PAIRS = ["Abort", "BadPointer", "CorruptMemory", "CorruptObject", "CrashInHandler"]


def read(path: Path) -> list[RawCrash]:
    data = path.read_bytes()
    form = reports.detect(reports.Probe(data, path.name))
    assert form is not None
    return reports.read(form, memoryview(data), LIMITS)


def stacks(crash: RawCrash) -> dict[int, list[int | None]]:
    return {t.id: [f.instruction_addr for f in t.frames or ()] for t in crash.threads}


def test_one_reader_for_each_file(corpus: Path) -> None:
    count = 0
    for pattern, name in FORMATS.items():
        for path in sorted((corpus / "apple").glob(pattern)):
            probe = reports.Probe(path.read_bytes(), path.name)
            assert [f.name for f in reports.FORMATS if f.sniff(probe)] == [name], path.name
            assert read(path)
            count += 1
    assert count >= 28


def test_ips_and_its_translation(corpus: Path) -> None:
    folder = corpus / "apple" / "sym"
    (one,), (two,) = read(folder / "AppleJson.ips"), read(folder / "AppleConverted.log")
    assert stacks(one) == stacks(two)
    assert sum(map(len, stacks(one).values())) == 75
    assert one.modules == two.modules
    assert [t.frames for t in one.threads] == [t.frames for t in two.threads]
    assert [(t.name, t.crashed) for t in one.threads] == [(t.name, t.crashed) for t in two.threads]
    assert one.exceptions == two.exceptions
    assert one.message == two.message
    assert one.message is not None
    assert "NSCameraUsageDescription" in one.message
    registers, same = (c.threads[1].registers for c in (one, two))
    assert registers is not None
    assert same is not None
    assert registers.as_hex() == same.as_hex()


@pytest.mark.parametrize("name", PAIRS)
def test_kscrash_and_its_text(corpus: Path, name: str) -> None:
    folder = corpus / "apple" / "kscrash"
    (one,), (two,) = read(folder / f"{name}.json"), read(folder / f"{name}.txt")
    assert stacks(one) == stacks(two)
    assert [(t.name, t.crashed) for t in one.threads] == [(t.name, t.crashed) for t in two.threads]
    assert [t.frames for t in one.threads] == [t.frames for t in two.threads]
    assert [(m.image_addr, m.image_size, m.debug_id) for m in one.modules] == [
        (m.image_addr, m.image_size, m.debug_id) for m in two.modules
    ]
    assert [(e.type, e.value, e.address) for e in one.exceptions] == [
        (e.type, e.value, e.address) for e in two.exceptions
    ]
    assert (one.event_id, one.timestamp, one.os_build, one.pid) == (two.event_id, two.timestamp, two.os_build, two.pid)


def test_a_report_that_is_no_json(corpus: Path) -> None:
    (crash,) = read(corpus / "apple" / "kscrash" / "sigterm.json")
    assert [(e.type, e.code) for e in crash.exceptions] == [("SIGTERM", 15)]
    assert len(crash.threads) == 6
    assert len(crash.modules) == 220


def test_text_fixtures(corpus: Path) -> None:
    folder = corpus / "apple" / "text"
    (crash,) = read(folder / "acrp_bruno.crash")
    assert [t.id for t in crash.threads if t.crashed] == [5]
    assert (len(crash.threads), len(crash.modules)) == (55, 272)
    assert crash.threads[5].frames is not None
    assert crash.threads[5].frames[0].instruction_addr == 0x1_090A_0132
    assert crash.exceptions[0].address == 0x88
    (crash,) = read(folder / "acrp_spaces.crash")
    assert {m.debug_file for m in crash.modules} >= {"App Namespace", "SomeNet"}
    assert len(crash.threads[0].frames or ()) == 17
    (crash,) = read(folder / "acrp_handcrafted.crash")
    told = [f.reported for f in crash.threads[0].frames or () if f.reported]
    assert [(f.function, f.filename, f.lineno) for f in told[-3:]] == [
        ("a_function_here", None, None),
        ("start", None, None),
        ("main", "main.m", 16),
    ]
    assert (crash.threads[1].name, crash.threads[1].crashed) == ("Test Thread Name", True)
    assert crash.attributes["application_specific_information"].split("\n") == [
        "objc_msgSend() selector name: respondsToSelector:",
        "more information here",
    ]
    (crash,) = read(folder / "acrp_xcode16.crash")
    assert crash.process_name == "TouchCanvas"
    assert [d.code for d in crash.diagnostics] == ["truncated"]


def test_ips_of_the_first_generation(corpus: Path) -> None:
    (crash,) = read(corpus / "apple" / "sym" / "AppleDemo.ips")
    assert sum(map(len, stacks(crash).values())) == 209
    frame = (crash.threads[0].frames or [])[0].reported
    assert frame is not None
    assert (frame.filename, frame.lineno) == ("DEMOViewController.swift", 1477)


def test_metrickit_trees(corpus: Path) -> None:
    folder = corpus / "apple" / "sentry_cocoa"
    (crash,) = read(folder / "MetricKitCallstacks__per-thread.json")
    assert [t.crashed for t in crash.threads] == [True, False]
    assert stacks(crash)[0] == [4312798220, 4310988076, 4310988026]
    assert [hex(m.image_addr) for m in crash.modules] == ["0x100f3c000", "0x10109c000"]
    (crash,) = read(folder / "MetricKitCallstacks__not-per-thread.json")
    assert not crash.threads[0].crashed
    (crash,) = read(folder / "MetricKitCallstacks__tree-real.json")
    assert len(crash.threads) == 16


@pytest.mark.parametrize("form", ["ips", "text"])
def test_a_dsym_of_the_corpus(corpus: Path, tmp_path: Path, form: str) -> None:
    """The places are llvm-symbolizer's."""
    made = Report(
        [Picture("crash", 0x1_0B5C_0000, 0x10_0000, "67e9247c-814e-392b-a027-dbde6748fcbf", "x86_64")],
        [[Call(0, 0x2000), Call(0, 0x3001)]],
        cpu="X86-64",
    )
    symbols = corpus / "native" / "symbolic" / "fixtures" / "macos" / "crash.dSYM"
    with Engine(Config(store=str(tmp_path))) as engine:
        event = engine.process((made.ips() if form == "ips" else made.text()).encode(), symbols=[str(symbols)])
    thread = (event.threads or [])[0]
    assert [((f.raw_function or "").split("google_breakpad")[-1], f.filename, f.lineno) for f in thread.frames or ()][
        :3
    ] == [
        ("13DynamicImages27GetDyldAllImageInfosPointerEv", "dynamic_images.cc", 392),
        ("13DynamicImages20ReadImageInfoForTaskEv", "dynamic_images.cc", 514),
        ("13DynamicImagesC2Ej", "dynamic_images.cc", 342),
    ]
    assert ("vector", 1045) in [(f.filename, f.lineno) for f in thread.frames or ()]
