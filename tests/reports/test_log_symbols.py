"""Frames of a text that say module, offset and build id are looked up like any others: against gdb's truth."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER = "linux/x86_64/pie-O0"


def build_id(path: Path) -> str:
    """Read the note that readelf prints, by hand: the fixture's build id must not come from the code under test."""
    data = path.read_bytes()
    at = data.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
    return data[at + 16 : at + 36].hex()


def asan(frames: list[dict[str, Any]], identity: str) -> str:
    """Addresses are those of the calls."""
    lines = ["==7==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000000 (pc 0x1 bp 0x2 sp 0x3 T0)"]
    for n, f in enumerate(frames):
        back = 1 if n else 0
        pc, offset = int(f["pc"], 16) - back, int(f["module_offset"], 16) - back
        lines.append(f"    #{n} {pc:#x}  (/app/crashy+{offset:#x}) (BuildId: {identity})")
    return "\n".join(lines)


def tsan(frames: list[dict[str, Any]], identity: str) -> str:
    """There are no addresses, only offsets."""
    lines = ["WARNING: ThreadSanitizer: data race (pid=7)", "  Write of size 4 at 0x7b0400000000 by main thread:"]
    for n, f in enumerate(frames):
        lines.append(f"    #{n} <null> (crashy+{int(f['module_offset'], 16) - (n > 0):#x}) (BuildId: {identity})")
    return "\n".join(lines)


def markup(frames: list[dict[str, Any]], identity: str) -> str:
    """Return addresses, but for the innermost; the base has to be worked out."""
    base = int(frames[0]["pc"], 16) - int(frames[0]["module_offset"], 16)
    lines = [
        "==7== ERROR: libFuzzer: deadly signal",
        "{{{reset}}}",
        f"{{{{{{module:0:crashy:elf:{identity}}}}}}}",
        f"{{{{{{mmap:{base + 0x1000:#x}:0x9000:load:0:rx:0x1000}}}}}}",
        *(f"{{{{{{bt:{n}:{f['pc']}}}}}}}" for n, f in enumerate(frames)),
    ]
    return "\n".join(lines)


def fuchsia(frames: list[dict[str, Any]], identity: str) -> str:
    base = int(frames[0]["pc"], 16) - int(frames[0]["module_offset"], 16)
    lines = [
        "thread 'main' panicked at 'x', a.rs:1:2",
        f' [[[ELF module #0x0 "crashy" BuildID={identity} {base:#x}]]]',
        *(f"   #{n}    {int(f['pc'], 16) - (n > 0):#018x} in ?? <crashy>+0x0" for n, f in enumerate(frames)),
    ]
    return "\n".join(lines).replace("<crashy>+0x0", "")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


@pytest.mark.parametrize("write", [asan, tsan, markup, fuchsia])
@pytest.mark.parametrize("crash", ["divide", "recursion", "operators"])
def test_frames_are_what_gdb_says(
    fixtures: Path, engine: Engine, crash: str, write: Callable[[list[dict[str, Any]], str], str]
) -> None:
    folder = fixtures / FOLDER
    truth = json.loads((folder / f"dumps/{crash}.truth.json").read_text())
    stack = next(t["frames"] for t in truth["threads"] if t["tid"] == truth["crashed_thread"])
    assert stack[0]["module"] == "crashy"
    # A line for each real frame: what is inlined must be found again.
    wanted = [f for f in stack if not f["tail_call"] and f["module"] == "crashy"][:40]
    physical = [f for f in wanted if not f["inline"]]
    assert len(physical) > 1
    text = write(physical, build_id(folder / "crashy"))
    event = engine.process(text.encode(), symbols=[str(folder / "crashy.debug")])
    (module,) = [m for m in event.modules or () if m.symbols == "found"]
    assert module.code_id == build_id(folder / "crashy")
    ours = [f for t in event.threads or () if t.crashed for f in t.frames or ()]
    assert len(ours) == len(wanted)
    for frame, want in zip(ours, wanted, strict=True):
        assert (frame.filename, frame.lineno, frame.inline) == (want["file"], want["line"], want["inline"])
        assert (frame.function or "").split("(")[0] == want["function"].split("(")[0]


def test_a_program_at_a_fixed_address_is_not_guessed_at(fixtures: Path, engine: Engine) -> None:
    """Its offsets are addresses as linked; taken for offsets into the image they would name other functions."""
    identity = build_id(fixtures / FOLDER / "crashy")
    text = (
        "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x60 at pc 0x401234 bp 0x1 sp 0x2\n"
        f"    #0 0x401234  (/app/crashy+0x401234) (BuildId: {identity})\n"
    )
    event = engine.process(text.encode(), symbols=[str(fixtures / FOLDER / "crashy.debug")])
    (frame,) = (event.threads or [])[0].frames or []
    assert (frame.function, frame.rva, frame.package) == (None, "0x401234", "/app/crashy")
    assert event.modules == []


def test_readelf_agrees(fixtures: Path) -> None:
    try:
        out = subprocess.run(["readelf", "-n", str(fixtures / FOLDER / "crashy")], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no readelf")
    assert build_id(fixtures / FOLDER / "crashy") in out.stdout.decode()
