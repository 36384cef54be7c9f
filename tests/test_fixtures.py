"""Every committed native fixture against gdb's truth: program counter, function, file, line and inlining."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.grouping.normalize import normalize_function
from synth.native import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Frame

ARCHITECTURES = ("x86", "x86_64", "arm", "arm64")
LINUX = Path(__file__).parent.parent / "native_fixtures" / "linux"
DUMPS = sorted(p for arch in ARCHITECTURES for p in LINUX.glob(f"{arch}/*/dumps/*.dmp"))
_IDS = [f"{p.parts[-4]}-{p.parts[-3]}-{p.stem}" for p in DUMPS]

VDSO = "linux-gate.so"
"""The kernel's own library: unwound through, but its symbols are in no file."""

_ALIASES = (
    {"raise", "gsignal"},
    {"qsort_r", "__qsort_r"},
    {"clone3", "__clone3"},
    {"clock_nanosleep", "__clock_nanosleep"},
    {"__restore_rt", "<signal handler called>"},
    {"__default_rt_sa_restorer", "<signal handler called>"},
    {"__libc_start_main", "__libc_start_main_impl"},
)
"""Names that the C library gives to one address, of which gdb and the symbol table prefer different ones."""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give each variant's folder of binaries; the static program is committed compressed."""
    return {
        f"{folder.parent.name}/{folder.name}": unpacked(folder, tmp_path_factory.mktemp(folder.name))
        for folder in LINUX.glob("*/*")
    }


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    from deadreckon.config import Config

    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


def short(function: str) -> str:
    """Return the last part of a name: gdb scopes lambdas and locals in ways of its own."""
    name = re.sub(r"\)::operator\(\).*", ")::operator()", function)
    return normalize_function(name).rsplit("::", 1)[-1].replace("<>", "").removesuffix("()") or function


def same_function(ours: str | None, truth: str | None) -> bool:
    if ours is None or truth is None:
        return ours is truth
    names = {short(ours).lstrip("_"), short(truth).lstrip("_")}
    return len(names) == 1 or any(names <= a or {ours, truth} <= a for a in _ALIASES)


def expected(frames: list[dict[str, Any]], modules: set[str]) -> list[dict[str, Any]]:
    """Return the truth's frames down to the first one in a module whose tables are not in the fixtures.

    A frame that a tail call left out is not on the stack, gdb infers it; what follows libc's first frame needs libc.
    """
    kept = []
    for frame in frames:
        if frame["tail_call"]:
            continue
        kept.append(frame)
        if frame["module"] not in {None, VDSO, *modules} or (frame["module"] == VDSO and frame["signal_frame"]):
            break
    return kept


def check(ours: list[Frame], truth: list[dict[str, Any]], modules: set[str], slack: int = 0) -> None:
    wanted = expected(truth, modules)
    for depth, (frame, want) in enumerate(zip(ours, wanted, strict=False)):
        assert frame.instruction_addr == want["pc"], depth
        if want["module"] not in modules:
            continue
        assert frame.inline == want["inline"], depth
        assert same_function(frame.function, want["function"]), (depth, frame.function, want["function"])
        if want["line"]:
            assert frame.filename == want["file"], depth
            # Of several rows at one address the line table's last one counts; gdb prefers one that begins a statement.
            # In the ARM and ARM64 programs that is eleven times the line before or after.
            assert frame.lineno is not None
            assert abs(frame.lineno - want["line"]) <= slack, depth
    assert len(ours) >= len(wanted)


@pytest.mark.parametrize("dump", DUMPS, ids=_IDS)
def test_crashed_thread_is_what_gdb_says(dump: Path, engine: Engine, variants: dict[str, Path]) -> None:
    truth = json.loads(dump.with_suffix(".truth.json").read_text())
    folder = variants["/".join(dump.parts[-4:-2])]
    event = engine.process(dump, symbols=[str(folder)])
    assert event.status == "ok"
    crashed = [t for t in event.threads or () if t.crashed]
    assert [t.id for t in crashed] == [truth["crashed_thread"]]
    wanted = next(t["frames"] for t in truth["threads"] if t["tid"] == truth["crashed_thread"])
    check(
        crashed[0].frames or [], wanted, {p.name for p in folder.iterdir()}, slack=(event.arch or "").startswith("arm")
    )
    assert event.exceptions
    assert (event.exceptions[0].type or "").startswith(truth["signal_name"])


STATIC = [p for p in DUMPS if p.parts[-3] == "static-O2"]


@pytest.mark.parametrize("dump", STATIC, ids=[f"{p.parts[-4]}-{p.stem}" for p in STATIC])
def test_whole_process_with_every_table_at_hand(dump: Path, engine: Engine, variants: dict[str, Path]) -> None:
    """A static program has the tables of its C library: every thread, down to its start, and no frame after it."""
    truth = json.loads(dump.with_suffix(".truth.json").read_text())
    event = engine.process(dump, symbols=[str(variants["/".join(dump.parts[-4:-2])])])
    assert {t.id for t in event.threads or ()} == {t["tid"] for t in truth["threads"]}
    for thread in event.threads or ():
        told = next(t for t in truth["threads"] if t["tid"] == thread.id)
        wanted = told["frames"]
        check(thread.frames or [], wanted, {"crashy"}, slack=(event.arch or "").startswith("arm"))
        wanted = expected(wanted, {"crashy"})
        if wanted[-1]["module"] != VDSO and told["unwind_stop"] != "frame limit":
            assert len(thread.frames or []) == len(wanted)
        # Thirteen functions of ARM's C library have no unwind table; what they pushed tells (kernels/_prologue.py).
        sure = {"context", "cfi", *(["frame_pointer"] if event.arch == "arm" else [])}
        assert {f.trust for f in thread.frames or ()} <= {*sure, "scan"}


MODES = sorted(
    set.intersection(*({p.stem for p in LINUX.glob(f"{arch}/pie-O0/dumps/*.dmp")} for arch in ARCHITECTURES))
)


@pytest.mark.parametrize("mode", MODES)
def test_one_program_has_one_stack_on_every_architecture(mode: str, engine: Engine, variants: dict[str, Path]) -> None:
    """Unwound by four sets of rules and named from four symbol tables: one logical stack, and one group."""
    stacks, groups = set(), set()
    for arch in ARCHITECTURES:
        folder = variants[f"{arch}/pie-O0"]
        event = engine.process(LINUX / arch / "pie-O0" / "dumps" / f"{mode}.dmp", symbols=[str(folder)])
        frames = next(t.frames or () for t in event.threads or () if t.crashed)
        stacks.add(tuple((f.function, f.filename) for f in frames if f.filename and not f.inline))
        groups.add(event.fingerprint.id if event.fingerprint else None)
    assert len(stacks) == 1
    assert len(groups) == 1


def test_breakpad_symbols_give_the_same_stacks(engine: Engine, fixtures: Path) -> None:
    """The .sym of the program and its own tables are two ways to one stack; this dump_syms wrote no inlined calls."""
    folder = fixtures / "linux/x86_64/pie-O2"
    for mode in ("templates", "inlines", "library", "recursion", "virtual"):
        dump = folder / "dumps" / f"{mode}.dmp"
        told = [engine.process(dump, symbols=[str(folder / p)]) for p in ("breakpad", "")]
        stacks = [
            [(f.instruction_addr, short(f.function or "?")) for f in frames if f.trust != "scan" and not f.inline]
            for frames in (t.threads[0].frames or () for t in told if t.threads)
        ]
        assert stacks[0] == stacks[1], mode
