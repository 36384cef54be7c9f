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
from deadreckon.model.tables import CFA_REG, REG_OFFSET
from deadreckon.objects import pe_unwind
from oracle.rules import index_at
from synth.native import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event, Frame

WINDOWS = Path(__file__).parent.parent / "native_fixtures" / "windows"
DUMPS = sorted(WINDOWS.glob("*/*/dumps/*.dmp.xz"))
_IDS = [f"{p.parts[-4]}-{p.parts[-3]}-{p.name.partition('.')[0]}" for p in DUMPS]
CASES = [pytest.param(p, id=i) for p, i in zip(DUMPS, _IDS, strict=True)]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give each variant's folder with its programs and PDBs unpacked."""
    return {
        f"{folder.parent.name}/{folder.name}": unpacked(folder, tmp_path_factory.mktemp(folder.name))
        for folder in sorted(WINDOWS.glob("*/*"))
        if any(folder.glob("*.xz"))
    }


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


@pytest.mark.parametrize("dump", CASES)
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


@pytest.mark.parametrize("dump", CASES)
def test_nothing_is_guessed_in_the_programs(dump: Path, engine: Engine, variants: dict[str, Path]) -> None:
    """What the programs' own tables say is no guess; the system's modules are not at hand."""
    event, told = processed(dump, engine, variants)
    trusts = [g[-1].trust for g in physical(crashed(event))[: len(told["frames"])]]
    assert trusts[0] == "context"
    # Above a call to nowhere there is only the stack to look at.
    called = 1 + (told["frames"][0]["pc"] == "0x0")
    assert set(trusts[1:called]) <= {"scan"}
    assert set(trusts[called:]) == {"cfi"}


def test_every_mode_and_variant_is_there() -> None:
    assert len(DUMPS) == 61
    assert {p.parts[-4] for p in DUMPS} == {"x86_64", "x86"}


def test_the_pdb_is_found_through_the_executable(engine: Engine, variants: dict[str, Path]) -> None:
    """Wine's dbghelp writes no CodeView record: the executable matches by time stamp and size, and names its PDB."""
    event, _ = processed(WINDOWS / "x86_64/O2/dumps/chain.dmp.xz", engine, variants)
    ferry = next(m for m in event.modules or () if (m.code_file or "").endswith("ferry.exe"))
    assert ferry.debug_id is None
    assert ferry.symbols == "found"
    assert crashed(event)[0].lineno


SP, FP, LR = 31, 29, 30
_NAMES = {"fp": FP, "lr": LR, **{f"x{n}": n for n in range(31)}}


def unwound(operations: list[str]) -> tuple[int, int, dict[int, int]] | None:
    """Undo a prologue, listed last instruction first: the CFA's register and offset, and where from it registers are.

    None where an operation depends on the ones around it.
    """
    base, at, places = SP, 0, {}
    for text in operations:
        operation, _, rest = text.partition(" ")
        if operation in {"nop", "end"}:
            continue
        amount = int(found[1]) if (found := re.search(r"#(-?\d+)", rest)) else 0
        if operation == "sub":
            at += amount
        elif text.startswith(("add fp, sp", "mov fp, sp")):
            base, at = FP, -amount
        elif operation in {"stp", "str"}:
            registers = [r.strip() for r in rest.partition("[")[0].split(",") if r.strip()]
            for number, register in enumerate(registers):
                if register in _NAMES:
                    places[_NAMES[register]] = at + (0 if rest.endswith("!") else amount) + 8 * number
            at -= amount if rest.endswith("!") else 0
        else:
            return None
    return base, at, {register: place - at for register, place in places.items()}


@pytest.mark.parametrize(("program", "base"), [("ferry.exe", 0x1_4000_0000), ("winch.dll", 0x1_8000_0000)])
def test_arm64_rules_are_what_llvm_reads(program: str, base: int) -> None:
    """Nothing runs the ARM64 build here, but its unwind information is a compiler's: packed and unpacked records."""
    folder = WINDOWS / "arm64/O2"
    made = pe_unwind.read(lzma.decompress((folder / f"{program}.xz").read_bytes()))
    assert not made.problems
    functions = json.loads((folder / "unwind.json").read_text())[program]
    compared = 0
    for function in functions:
        lines = function["text"]
        first = lines.index("Prologue [") + 1
        operations = [line.partition("; ")[2] or line for line in lines[first : lines.index("]", first)]]
        wanted = unwound(operations)
        if wanted is None:
            continue
        body = function["start"] - base + 4 * sum(operation != "end" for operation in operations)
        index = index_at(made.rules, body)
        assert index is not None, hex(body)
        kind, register, offset, _, start, count = made.rules.rules[index].tolist()
        places = {r: o for r, k, o in made.rules.saved[start : start + count].tolist() if k == REG_OFFSET and r <= LR}
        assert (kind, register, offset, places) == (CFA_REG, *wanted), lines
        compared += 1
    assert compared >= 0.9 * len(functions)
