"""Programs of Windows that wrote minidumps of their own crashes: every frame is what the program itself had noted."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event, Frame

WINDOWS = Path(__file__).parent.parent / "native_fixtures" / "windows"
DUMPS = sorted(WINDOWS.glob("*/*/dumps/*.dmp.xz"))
_IDS = [f"{p.parts[-4]}-{p.parts[-3]}-{p.name.partition('.')[0]}" for p in DUMPS]
OURS = {"ferry.exe", "winch.dll"}


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give each variant's folder with its programs and PDBs unpacked."""
    found = {}
    for folder in sorted(WINDOWS.glob("*/*")):
        packed = sorted(folder.glob("*.xz"))
        if packed:
            found[f"{folder.parent.name}/{folder.name}"] = target = tmp_path_factory.mktemp(folder.name)
            for file in packed:
                (target / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


def processed(dump: Path, engine: Engine, variants: dict[str, Path]) -> tuple[Event, dict[str, Any]]:
    folder = variants["/".join(dump.parts[-4:-2])]
    told = json.loads((dump.parent / dump.name.replace(".dmp.xz", ".truth.json")).read_text())
    return engine.process(lzma.decompress(dump.read_bytes()), symbols=[str(folder)]), told


def crashed(event: Event) -> list[Frame]:
    return next(t.frames or [] for t in event.threads or () if t.crashed)


def physical(frames: list[Frame]) -> list[list[Frame]]:
    """Group inlined calls with the frame that they are in."""
    groups: list[list[Frame]] = [[]]
    for frame in frames:
        groups[-1].append(frame)
        if not frame.inline:
            groups.append([])
    return groups[:-1]


def plain(function: str | None) -> str:
    """Return a name without parameters, which a PDB has for functions of C too, and x86's underscore."""
    return (function or "").partition("(")[0].lstrip("_")


@pytest.mark.parametrize("dump", DUMPS, ids=_IDS)
def test_crashed_thread_is_what_the_program_noted(dump: Path, engine: Engine, variants: dict[str, Path]) -> None:
    event, told = processed(dump, engine, variants)
    ours, wanted = physical(crashed(event)), told["frames"]
    assert [g[-1].instruction_addr for g in ours[: len(wanted)]] == [f["pc"] for f in wanted]
    for depth, (group, frame) in enumerate(zip(ours, wanted, strict=False)):
        if frame["module"] is None:
            continue
        assert [(plain(f.function), re.split(r"[/\\]", f.filename or "")[-1] or None, f.lineno) for f in group] == [
            (plain(name), path and path.rsplit("\\", 1)[-1], line) for name, path, line in frame["places"]
        ], depth


@pytest.mark.parametrize("dump", DUMPS, ids=_IDS)
def test_nothing_is_guessed_in_the_programs(dump: Path, engine: Engine, variants: dict[str, Path]) -> None:
    """What the programs' own tables say is no guess; the system's modules are not at hand."""
    event, told = processed(dump, engine, variants)
    trusts = [g[-1].trust for g in physical(crashed(event))[: len(told["frames"])]]
    assert trusts[0] == "context"
    assert set(trusts[1:]) <= {"cfi"}
