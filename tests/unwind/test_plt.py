"""Stopped inside the procedure linkage table: what is on the stack changes from one instruction to the next.

Compilers describe it with an expression (is pc past the push?), which text formats of unwind information can't say.
"""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from deadreckon.config import UnwindLimits
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import Registers
from deadreckon.symbols.tablefile import open_table
from deadreckon.symbols.tables import build
from deadreckon.unwind.walk import unwind

if TYPE_CHECKING:
    from pathlib import Path

BASE, STACK = 0x4000_0000, 0x5000_0000


@pytest.fixture(params=["x86_64", "x86"])
def program(request: pytest.FixtureRequest, fixtures: Path, tmp_path: Path) -> tuple[Arch, Path]:
    folder = fixtures / "linux" / request.param / "pie-O2"
    folder = folder if folder.is_dir() else folder.with_name("pie-O0")
    target = tmp_path / "crashy"
    packed = folder / "crashy.xz"
    target.write_bytes(lzma.decompress(packed.read_bytes()) if packed.exists() else (folder / "crashy").read_bytes())
    return Arch(request.param), target


def test_every_instruction_of_the_linkage_table(program: tuple[Arch, Path], tmp_path: Path) -> None:
    arch, path = program
    (made,) = build(str(path), str(tmp_path / "table"))
    tables = open_table(tmp_path / made["table"])
    with path.open("rb") as file:
        elf = ELFFile(file)
        plt, text = elf.get_section_by_name(".plt"), elf.get_section_by_name(".text")
        assert plt is not None
        assert text is not None
        begin, code, size = plt["sh_addr"], plt.data(), plt["sh_size"]
        text_begin, instructions = text["sh_addr"], text.data()
    # A return address behind some call in the program's own code.
    call = next(i for i in range(0x40, len(instructions)) if instructions[i] == 0xE8)
    caller = BASE + text_begin + call + 5
    word = arch.word_size
    # Each entry but the first jumps, or pushes its number and jumps to the first, which pushes another word.
    expected = [(0, 1), (6, 2)]
    for entry in range(16, size, 16):
        jumps_first = code[entry : entry + 1] == b"\xff"
        assert jumps_first, "an entry of another kind"
        expected += [(entry, 0), (entry + 6, 0), (entry + 11, 1)]
    threads = []
    buffer = b""
    for number, (offset, pushed) in enumerate(expected):
        words = [0x77] * pushed + [caller] + [0] * (15 - pushed)
        buffer += b"".join(w.to_bytes(word, "little") for w in words)
        sp = STACK + number * 16 * word
        registers = (
            {"rip": BASE + begin + offset, "rsp": sp} if word == 8 else {"eip": BASE + begin + offset, "esp": sp}
        )
        threads.append(RawThread(id=number, registers=Registers.from_mapping(arch, registers)))
    crash = RawCrash(
        format="test",
        arch=arch,
        threads=threads,
        modules=[Module(BASE, 0x10_0000, "crashy", arch=arch)],
        memory=MemoryMap.from_ranges([(STACK, len(buffer), 0)], np.frombuffer(buffer, np.uint8)),
    )
    walk = unwind(crash, [(tables.sym, tables.rules, tables.code)], UnwindLimits(scan_words=0, scan_words_first=0))
    found = [walk.frames.instruction_addr[walk.frames.thread == number].tolist() for number in range(len(threads))]
    assert [f[1:2] for f in found] == [[caller]] * len(expected)
    assert len(expected) > 20
