from __future__ import annotations

import io
import json
import lzma
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from elftools.ehabi.ehabiinfo import EHABIInfo
from elftools.elf.elffile import ELFFile

from deadreckon import Engine
from deadreckon.config import Config, UnwindLimits
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import Registers
from deadreckon.model.tables import CodeTable, SymTable
from deadreckon.objects import elf
from deadreckon.unwind.walk import Tables, unwind
from oracle import ehabi as oracle
from oracle.ehabi import LEAF, REGISTERS, caller, memory
from oracle.frames import check
from oracle.rules import apply, index_at

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = {
    "pyelftools/arm_exidx_test.so": 1933,
    "unwindstack/libbacktrace-testdata/arm/libandroid_runtime.so": 3812,
    "unwindstack/libbacktrace-testdata/arm/libbacktrace_test_arm_exidx.so": 46,
    "unwindstack/offline/debug_frame_load_bias_arm/libc.so": 1407,
    "unwindstack/offline/offset_arm/libunwindstack_test": 6968,
    "framehop/fixtures/android/arm/nightly-libmozglue.so": 2511,
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", LIBRARIES, ids=lambda name: name.rsplit("/", 1)[-1])
def test_every_entry_of_real_libraries(corpus: Path, name: str) -> None:
    """Each function's rule gives what pyelftools' reading of its instructions gives."""
    data = (corpus / "native" / name).read_bytes()
    found = elf.read(io.BytesIO(data))
    check(found.rules)
    assert not [p for p in found.problems if "ARM" in p]
    file = ELFFile(io.BytesIO(data))
    base = next(s["p_vaddr"] for s in file.iter_segments("PT_LOAD"))
    section = file.get_section_by_name(".ARM.exidx")
    assert section is not None
    bias = section["sh_addr"] - section["sh_offset"]
    info = EHABIInfo(section, little_endian=True)
    assert info.num_entry() == LIBRARIES[name]
    compared = 0
    entries: list[Any] = [info.get_entry(i) for i in range(info.num_entry())]
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        start = (entry.function_offset + bias & 0xFFFF_FFFE) - base
        if following is not None and following.function_offset <= entry.function_offset + 2:
            continue
        if entry.unwindable and entry.bytecode_array is None:  # A personality routine of a language's own.
            assert index_at(found.rules, start + 1) is not None
            continue
        codes = None if not entry.unwindable else bytes(entry.bytecode_array)
        expected = None if codes is None else oracle.run(codes, REGISTERS, memory)
        assert caller(found.rules, start + 1) == expected, (hex(start), codes)
        if expected is not None and len(expected) < 16:
            assert caller(found.rules, start) == LEAF
        compared += 1
    assert compared > LIBRARIES[name] * 0.6


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "depth"), [("offset_arm", 19), ("debug_frame_load_bias_arm", 8)])
def test_stacks_of_android_programs(corpus: Path, name: str, depth: int) -> None:
    """Program counters and stack pointers of every frame, through a signal handler and a jump to 0 too."""
    folder = corpus / "native/unwindstack/offline" / name
    expected = json.loads((folder / "../../expected_frames.json").read_text())[name]
    crash, tables = android_crash(folder)
    frames, _, _ = unwind(crash, tables, UnwindLimits())
    assert [hex(sp) for sp in frames.stack_pointer.tolist()][:depth] == expected["sp"][:depth]
    for ours, theirs in zip(frames.instruction_addr.tolist()[:depth], expected["pc"], strict=False):
        # Theirs is the call's: 2 or 4 bytes before the return address, whose bit 0 says Thumb. None: a jump to 0.
        assert ours - int(theirs or "0", 16) in {0, 1, 3, 4}
    assert len(frames) == depth


@pytest.mark.corpus
def test_signal_frame_of_android(corpus: Path) -> None:
    """__restore leads to the interrupted function's registers: a jump to 0, made by InnerFunction."""
    crash, tables = android_crash(corpus / "native/unwindstack/offline/offset_arm")
    libc, table = next((m, t) for m, (_, t, _) in zip(crash.modules, tables, strict=True) if m.image_addr >> 28 == 0xF)
    registers = {**REGISTERS, 13: 0xF43D_2D10}
    read = crash.memory.read

    def load(address: int, size: int) -> int | None:
        data = read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    found = apply(table, 0xF413_652C - libc.image_addr, registers, load, pc=15, sp=13, word=4)
    assert found is not None
    assert (found[15], found[13]) == (0, 0xFFCC_0EE0)


def android_crash(folder: Path) -> tuple[RawCrash, list[Tables]]:
    """Return a process as libunwindstack's offline tests keep it: registers, mappings, stacks and libraries."""
    values = {
        n: int(v, 16) for n, v in (row.split(": ") for row in (folder / "regs.txt").read_text().split("\n") if row)
    }
    mapped: dict[str, tuple[int, int, int]] = {}
    for row in (folder / "maps.txt").read_text().splitlines():
        span, _, position, _, _, library = row.split()
        start, end = (int(x, 16) for x in span.split("-"))
        first = mapped.get(library, (start, 0, int(position, 16)))
        mapped[library] = (first[0], end, first[2])
    modules, tables = [], []
    for library, (start, end, file_offset) in mapped.items():
        data = (folder / library).read_bytes()
        segments = list(ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD"))
        here = next(s for s in segments if s["p_offset"] & ~0xFFF == file_offset)
        image = start - ((here["p_vaddr"] & ~0xFFF) - segments[0]["p_vaddr"])
        modules.append(Module(image, end - image, arch=Arch.ARM))
        tables.append((SymTable.empty(), elf.read(io.BytesIO(data)).rules, CodeTable.empty()))
    stacks = sorted((int.from_bytes(data[:8], "little"), data[8:]) for data in map(_bytes, folder.glob("stack*")))
    buffer = np.frombuffer(b"".join(data for _, data in stacks), np.uint8)
    offsets = np.cumsum([0, *(len(data) for _, data in stacks)]).tolist()
    memory = MemoryMap.from_ranges([(a, len(d), o) for (a, d), o in zip(stacks, offsets, strict=False)], buffer)
    threads = [RawThread(id=0, registers=Registers.from_mapping(Arch.ARM, values))]
    return RawCrash(format="test", arch=Arch.ARM, threads=threads, modules=modules, memory=memory), tables


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("mode", ["library", "noreturn", "static_chain", "tail_call", "templates", "threads", "vla"])
def test_programs_without_other_tables(fixtures: Path, tmp_path: Path, mode: str) -> None:
    """The crashed thread's program counters are gdb's, as far as the program's own code goes."""
    folder = fixtures / "linux/arm/exidx-O2"
    for name in ("crashy", "libcargo.so"):
        (tmp_path / name).write_bytes(lzma.decompress((folder / f"{name}.xz").read_bytes()))
    truth = json.loads((folder / f"dumps/{mode}.truth.json").read_text())
    wanted = []
    for frame in next(t["frames"] for t in truth["threads"] if t["tid"] == truth["crashed_thread"]):
        if frame["module"] not in {"crashy", "libcargo.so"}:
            break
        if not frame["inline"] and not frame["tail_call"]:
            wanted.append(frame["pc"])
    with Engine(Config(store=str(tmp_path / "store"))) as engine:
        event = engine.process(folder / f"dumps/{mode}.dmp", symbols=[str(tmp_path)])
    frames = next(t.frames or [] for t in event.threads or () if t.crashed)
    assert [f.instruction_addr for f in frames][: len(wanted)] == wanted
    assert {f.trust for f in frames[: len(wanted)]} == {"context", "cfi"}
