"""Inputs of any size, made on the spot: minidumps of so many threads, frames and modules, and source maps."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(
    0, str(Path(__file__).parent.parent / "tests")
)  # The tests' builders, which share no code with readers.

from synth.minidump import AMD64, LINUX, Minidump, context_amd64, elf_build_id, u64
from synth.sourcemap import mappings, source_map

__all__ = ["CALLER", "large_map", "minidump"]

STACK, MODULE, MODULE_SIZE = 0x7F00_0000_0000, 0x1000_0000, 0x10_0000
CALLER = 0x1234
"""The offset in its module of every return address on a made-up stack."""


def minidump(*, threads: int = 1, frames: int = 8, modules: int = 1, seed: int = 0) -> bytes:
    """Return a Linux x86_64 minidump: each thread's stack is a chain of frame pointers through the modules in turn."""
    dump = Minidump(timestamp=1_600_000_000 + seed)
    dump.system(AMD64, LINUX)
    frame = 32
    for number in range(threads):
        base = STACK + number * (frames + 2) * frame * 2
        rows = []
        for i in range(frames - 1):
            following = base + (i + 1) * frame if i < frames - 2 else 0
            rows.append(u64(following, MODULE + (i % modules) * MODULE_SIZE + CALLER, 0, 0))
        stack = b"".join(rows) + bytes(2 * frame)
        registers = {"rip": MODULE + 0x1000, "rsp": base, "rbp": base}
        dump.thread(100 + number, context_amd64(registers), (base, stack))
    for number in range(modules):
        identity = struct.pack("<QQI", number + 1, 1, 7)
        dump.module(MODULE + number * MODULE_SIZE, MODULE_SIZE, f"/usr/lib/lib{number}.so", elf_build_id(identity))
    context = context_amd64({"rip": MODULE + 0x1000, "rsp": STACK, "rbp": STACK})
    dump.exception(100, 11, address=0xDEAD + seed, context=context)
    return dump.finish()


def large_map(size: int) -> bytes:
    """Return a source map of about ``size`` bytes, forty segments a line, a tenth of them with names.

    Its mappings repeat one passage. That ends where it began, at the first source's first place and name, for numbers
    are differences to the segment before.
    """
    passage = min(size, 1 << 18)
    rng = np.random.default_rng(7)
    count = max(40, passage // 40 // 9 * 40)
    sources = [f"webpack:///./src/part{i % 7}/file{i}.ts" for i in range(max(1, count // 2_000))]
    names = [f"name{i}" for i in range(max(1, count // 50))]
    columns = np.cumsum(rng.integers(1, 30, (count // 40, 40)), axis=1)
    chosen = rng.integers(0, len(sources), count)
    segments: list[tuple[int, ...]] = []
    for n in range(count - 1):
        line, at = divmod(n, 40)
        name = (n % len(names),) if n % 10 == 0 else ()
        segments.append((line, int(columns[line, at]), int(chosen[n]), n // 3, int(columns[line, at]) % 80, *name))
    segments.append(((count - 1) // 40, int(columns[-1, -1]), 0, 0, 0, 0))
    text = mappings(segments)
    return source_map(sources=sources, names=names, mappings=";".join([text] * max(1, size // len(text))))
