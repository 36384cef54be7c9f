"""CASR's reports: JSON around the text that a sanitizer, gdb or an interpreter gave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect, read

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash, RawFrame

LIMITS = ReportLimits()


def only(text: str) -> RawCrash:
    form = detect(Probe(text.encode()))
    assert form is not None
    assert form.name == "casr"
    (crash,) = read(form, text.encode(), LIMITS)
    assert crash.format == "casr"
    return crash


def names(frames: list[RawFrame] | None) -> list[str | None]:
    return [f.reported.function if f.reported else None for f in frames or ()]


def places(frames: list[RawFrame] | None) -> list[tuple[str | None, int | None]]:
    return [(f.reported.filename, f.reported.lineno) for f in frames or () if f.reported]


def said(crash: RawCrash) -> list[tuple[str | None, str]]:
    return [(e.type, e.value) for e in crash.exceptions]


def casr(**members: object) -> str:
    return json.dumps(
        {
            "Date": "2022-09-28T14:36:55.238287+03:00",
            "OS": "Ubuntu",
            "OSRelease": "20.04",
            "Architecture": "amd64",
            "ExecutablePath": "/a/prog",
            "ProcCmdline": "/a/prog x",
            "CrashLine": "/a.c:3",
            "CrashSeverity": {
                "Type": "NOT_EXPLOITABLE",
                "ShortDescription": "SourceAv",
                "Description": "Access violation",
            },
            "Stacktrace": [
                "#0  0x0000000000401136 in f (a=1) at /a.c:3",
                "#1  0x0000000000401150 in main () at /a.c:9",
            ],
            "Registers": {"rip": 0x401136, "rsp": 0x7FFE00, "eflags": 2},
            **members,
        }
    )


def test_casr_of_gdb() -> None:
    maps = [
        "          Start Addr           End Addr       Size     Offset objfile",
        "            0x400000           0x406000     0x6000        0x0 /a/prog",
    ]
    crash = only(casr(ProcMaps=maps))
    assert said(crash) == [("SourceAv", "Access violation")]
    assert (crash.arch, crash.os_name, crash.process_name) == (Arch.X86_64, "Ubuntu", "prog")
    assert crash.timestamp == pytest.approx(1664365015.238287)
    assert names(crash.threads[0].frames) == ["f", "main"]
    assert crash.threads[0].registers is not None
    assert crash.threads[0].registers.pc == 0x401136
    assert [(m.code_file, m.image_addr, m.end) for m in crash.modules] == [("/a/prog", 0x400000, 0x406000)]


def test_casr_of_other_tools() -> None:
    report = [
        "==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x60 at pc 0x1",
        "    #0 0x1 in g /a.c:1:2",
    ]
    crash = only(casr(AsanReport=report))
    assert said(crash)[0][0] == "heap-buffer-overflow"
    assert crash.attributes["severity_kind"] == "SourceAv"
    crash = only(
        casr(PythonReport=["Traceback (most recent call last):", '  File "x.py", line 2, in f', "KeyError: 1"])
    )
    assert (said(crash), crash.platform) == ([("KeyError", "1")], "python")
    crash = only(casr(GoReport=["panic: x", "", "goroutine 1 [running]:", "main.f()", "\t/a.go:1 +0x1"]))
    assert (said(crash), crash.platform) == ([("panic", "x")], "go")


def test_casr_with_wrong_types() -> None:
    crash = only(casr(Registers=[1], ProcMaps={"a": 1}, CrashSeverity=7, OS=3, Date="never", Stacktrace=["x", 3, None]))
    assert crash.threads == []
    with pytest.raises(Malformed):
        read(detect(Probe(b""), "casr") or pytest.fail("no casr"), b"[1]", LIMITS)


@pytest.mark.corpus
def test_casr_corpus(corpus: Path) -> None:
    """Each report's first line of interest is in the stack that was read."""
    checked = 0
    for path in sorted((corpus / "grouping/casr").rglob("*.casrep"))[::7]:
        data = path.read_bytes()
        crash = only(data.decode())
        report = json.loads(data)
        frames = [f for t in crash.threads for f in t.frames or ()] or [
            f for e in crash.exceptions for f in e.frames or ()
        ]
        assert len(frames) >= len([line for line in report["Stacktrace"] if line.startswith(("#", "File"))])
        assert crash.exceptions
        if (place := report.get("CrashLine", "").split(":"))[1:]:
            assert (place[0].rsplit("/", 1)[-1], int(place[1])) in places(frames)
            checked += 1
    assert checked > 100
