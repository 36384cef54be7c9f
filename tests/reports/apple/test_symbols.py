"""Apple's reports end to end: UUIDs lead to dSYMs, and these give functions, files, lines and inlined calls.

The library is a real one, built by LLVM's tools on Linux (native_fixtures/build_macho.py); what its instructions belong
to is llvm-symbolizer's word.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config
from synth.apple import Call, Picture, Report, sample
from synth.macho import DSYM, Mach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event, Frame

FIXTURES = Path(__file__).parents[3] / "native_fixtures"
MACHO = FIXTURES / "macho"
BASE = 0x1_0497_8000
CPUS = {"arm64": "ARM-64", "x86_64": "X86-64"}
Truth = dict[int, list[list[Any]]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


def known(arch: str, folder: Path = MACHO) -> tuple[str, Truth]:
    """Return the library's UUID and its instructions' places."""
    facts = json.loads((folder / "truth.json").read_text())[arch]
    return facts["uuid"], {int(a, 16): places for a, places in facts["addresses"].items()}


def report(arch: str, threads: list[list[Call]], folder: Path = MACHO) -> Report:
    uuid, _ = known(arch, folder)
    path = "/Applications/Orchard.app/Contents/Frameworks"
    return Report([Picture("liborchard.dylib", BASE, 0x4000, uuid.lower(), arch, path)], threads, cpu=CPUS[arch])


def places(frames: list[Frame] | None) -> list[list[Any]]:
    return [[f.function, f.abs_path, f.lineno] for f in frames or ()]


def written(made: Report) -> dict[str, bytes]:
    """Return the report in each format."""
    told = made.kscrash()
    told["system"]["cpu_arch"] = made.images[0].arch
    return {"ips": made.ips().encode(), "text": made.text().encode(), "kscrash": json.dumps(told).encode()}


@pytest.mark.parametrize("arch", CPUS)
@pytest.mark.parametrize("form", ["ips", "text", "kscrash"])
def test_every_instruction(engine: Engine, arch: str, form: str) -> None:
    _, truth = known(arch)
    made = report(arch, [[Call(0, offset)] for offset in truth])
    event = engine.process(written(made)[form], symbols=[str(MACHO)])
    assert event.arch == arch
    assert [m.symbols for m in event.modules or ()] == ["found"]
    found = [places(t.frames) for t in event.threads or ()]
    assert found == list(truth.values())
    assert max(map(len, found)) == 3
    assert {f.status for t in event.threads or () for f in t.frames or ()} == {"symbolicated"}


@pytest.mark.parametrize("arch", CPUS)
@pytest.mark.parametrize("form", ["ips", "text", "kscrash"])
def test_every_return_address(engine: Engine, arch: str, form: str) -> None:
    """What returns to an instruction was called by the one before it."""
    _, truth = known(arch)
    pairs = list(zip(truth, list(truth)[1:], strict=False))
    pairs = [(a, b) for a, b in pairs if truth[a][-1][0] == truth[b][-1][0]]  # Between functions there is padding.
    assert len(pairs) > 60
    first = next(iter(truth))
    made = report(arch, [[Call(0, first), Call(0, following)] for _, following in pairs])
    event = engine.process(written(made)[form], symbols=[str(MACHO)])
    for (before, following), thread in zip(pairs, event.threads or (), strict=True):
        assert places(thread.frames) == [*truth[first], *truth[before]], hex(following)
        assert (thread.frames or [])[-1].instruction_addr == hex(BASE + following)


def deepest(truth: Truth) -> int:
    return max(truth, key=lambda a: len(truth[a]))


def test_inlined_calls_that_the_report_lists_too_are_there_once(engine: Engine) -> None:
    """A report symbolicated by Apple has them as frames of one address; each would be expanded again."""
    _, truth = known("arm64")
    at = deepest(truth)
    listed = [Call(0, at, str(f), 0, str(path), line, inline=True) for f, path, line in truth[at]]
    listed[-1] = replace(listed[-1], inline=False)
    outer = next(a for a, p in truth.items() if p[-1][0] == "harvest")
    event = engine.process(report("arm64", [[*listed, Call(0, outer + 4)]]).ips().encode(), symbols=[str(MACHO)])
    thread = (event.threads or [])[0]
    assert places(thread.frames) == [*truth[at], *truth[outer]]
    assert [f.inline for f in thread.frames or ()] == [True, True, False, False]


def test_what_the_report_says_stays_where_no_debug_file_is(engine: Engine) -> None:
    event = engine.process(sample().ips().encode())
    crashed = next(t for t in event.threads or () if t.crashed)
    frames = crashed.frames or []
    assert [(f.function, f.filename, f.lineno, f.inline, f.status) for f in frames] == [
        ("Basket.weigh(_:)", "Basket.swift", 12, True, "symbolicated"),
        ("Basket.pick()", "Basket.swift", 40, False, "symbolicated"),
        ("main", "main.swift", 3, False, "symbolicated"),
        (None, None, None, False, "unknown_image"),
    ]
    assert {f.rva for f in frames[:2]} == {"0x1108"}
    assert frames[0].debug_id == "db2fd9ec-8dd1-3021-98df-93db16cf4863"
    assert [f.in_app for f in frames] == [True, True, True, None]
    assert event.status == "ok"
    assert event.culprit == "orchard+0x1020"  # Where the exception was thrown.
    exceptions = event.exceptions or []
    assert [len(e.frames or ()) for e in exceptions] == [0, 2]
    assert [f.in_app for f in exceptions[1].frames or ()] == [False, True]


def test_another_builds_dsym_is_refused(engine: Engine) -> None:
    made = report("arm64", [[Call(0, 0x1000, "harvest", 4)]])
    made.images[0].uuid = "4c4c4435-5555-3144-a172-000000000000"
    event = engine.process(made.ips().encode(), symbols=[str(MACHO / "liborchard.dylib.dSYM")])
    thread = (event.threads or [])[0]
    assert places(thread.frames) == [["harvest", None, None]]
    assert [m.symbols for m in event.modules or ()] != ["found"]


def test_a_dsym_with_a_symbol_table_only(engine: Engine, tmp_path: Path) -> None:
    mach = Mach(
        kind=DSYM,
        sections=[(b"__text", 0x1_0000_1000, 0x100, 0x8000_0400)],
        symbols=[("__ZN7orchard4pickEi", 0x1_0000_1000), ("_harvest", 0x1_0000_1040)],
    )
    (tmp_path / "a.dSYM").write_bytes(bytes(mach))
    made = Report(
        [Picture("a", BASE, 0x10_0000, "01020304-0506-0708-090a-0b0c0d0e0f10", "x86_64")],
        [[Call(0, 0x1008, "nearest_export", 4000), Call(0, 0x1050)]],
        cpu="X86-64",
    )
    event = engine.process(made.text().encode(), symbols=[str(tmp_path)])
    thread = (event.threads or [])[0]
    assert [f.function for f in thread.frames or ()] == ["orchard::pick(int)", "harvest"]


def test_mangled_names_become_readable(engine: Engine) -> None:
    made = replace(sample(), threads=[[Call(0, 0x1108, "_ZN7orchard4pickEi", 8)]], crashed=0)
    for data in written(made).values():
        (frame,) = (engine.process(data).threads or [])[0].frames or []
        assert (frame.function, frame.raw_function) == ("orchard::pick(int)", "_ZN7orchard4pickEi")


def test_several_diagnostics_of_one_payload(engine: Engine) -> None:
    uuid, truth = known("arm64")
    at = deepest(truth)
    root = {
        "binaryUUID": uuid,
        "binaryName": "liborchard.dylib",
        "offsetIntoBinaryTextSegment": at,
        "address": BASE + at,
        "sampleCount": 1,
    }
    tree = {"callStacks": [{"threadAttributed": True, "callStackRootFrames": [root]}], "callStackPerThread": True}
    payload = {"crashDiagnostics": [{"callStackTree": tree}], "hangDiagnostics": [{"callStackTree": tree}]}
    events = list(engine.process_all(json.dumps(payload).encode(), symbols=[str(MACHO)]))
    assert [places((e.threads or [])[0].frames) for e in events] == [truth[at], truth[at]]
    assert len({e.event_id for e in events}) == 2


def test_a_fresh_build(engine: Engine, tmp_path: Path) -> None:
    """Where LLVM's tools are installed, what they make today is read as well as what is committed."""
    script = FIXTURES / "build_macho.py"
    done = subprocess.run([sys.executable, script, "--output", tmp_path], check=False, capture_output=True, text=True)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    for arch in CPUS:
        _, truth = known(arch, tmp_path)
        made = report(arch, [[Call(0, offset)] for offset in truth], tmp_path)
        event: Event = engine.process(made.ips().encode(), symbols=[str(tmp_path)])
        assert [places(t.frames) for t in event.threads or ()] == list(truth.values())
