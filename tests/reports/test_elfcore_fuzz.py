"""Hostile and damaged ELF cores: nothing but our own errors, and no more work than the bytes are worth."""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, Malformed, Unsupported
from deadreckon.reports.elfcore import read
from synth.elfcore import PAGE, Core, linked, whole

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
SEEDS = {
    "x86_64": whole().finish(),
    "arm": whole(40).finish(),
    "linked": linked(62, headers=True).finish(),
    "bare": linked(3, headers=False).finish(),
    "many": replace(whole(3), xnum=True).finish(),
}


def check(data: bytes) -> RawCrash | None:
    """Read, and check everything that holds for any bytes; None where the core is refused."""
    try:
        crash = read(data, LIMITS)
    except (Malformed, Unsupported):
        return None
    assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
    memory = crash.memory
    assert (memory.start < memory.end).all()
    assert (memory.end[:-1] <= memory.start[1:]).all()
    assert (memory.offset >= 0).all()
    assert (memory.offset.astype(np.uint64) + (memory.end - memory.start) <= len(data)).all()
    if crash.regions is not None:
        assert (crash.regions.start < crash.regions.end).all()
        assert (crash.regions.end[:-1] <= crash.regions.start[1:]).all()
    assert all(m.image_size > 0 and m.end <= 1 << 64 for m in crash.modules)
    assert all(m.end <= n.image_addr for m, n in zip(crash.modules, crash.modules[1:], strict=False))
    assert sum(t.crashed for t in crash.threads) <= 1
    return crash


@pytest.mark.parametrize("name", SEEDS)
def test_cut_at_any_length(name: str) -> None:
    seed = SEEDS[name]
    whole_crash = check(seed)
    assert whole_crash is not None
    assert whole_crash.diagnostics == []
    chance = random.Random(0)
    kept = 0
    for end in sorted({*range(0, 4096, 61), *chance.sample(range(len(seed)), 100), len(seed) - 1}):
        crash = check(seed[:end])
        if crash is None:
            continue
        kept += 1
        # Of the section that numbers the headers (40 bytes, at the end) the last 8 say nothing.
        assert crash.diagnostics or (name == "many" and len(seed) - end <= 8), end
        assert len(crash.threads) <= 2
        # Notes come first: what is cut is memory, from the end.
        if end > 4096:
            assert [t.id for t in crash.threads] == [t.id for t in whole_crash.threads]
    assert kept > 100


@pytest.mark.parametrize("name", SEEDS)
def test_flipped_and_extreme(name: str) -> None:
    chance = random.Random(1)
    seed = SEEDS[name]
    read_in_part = 0
    extremes = (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, 0xFFFF_FFFF, len(seed))
    for _ in range(500):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 2, 16))):
            at = chance.randrange(4096 if chance.random() < 0.8 else len(data) - 8)
            if chance.random() < 0.5:
                data[at] ^= 1 << chance.randrange(8)
            else:
                struct.pack_into("<I", data, at & -4, chance.choice(extremes))
        crash = check(bytes(data))
        read_in_part += crash is not None and bool(crash.threads)
    assert read_in_part > 350


@pytest.mark.parametrize("segment", range(4))
def test_counts_beyond_the_bytes_cost_nothing(segment: int) -> None:
    """A table that many mappings share, or that refers to itself, is not read once for each of them."""
    core = Core()
    core.thread(1, 11)
    page = core.image(PAGE)
    # Segments of notes, each of a thousand empty ones, 60 in each image, and 3000 images of the same bytes.
    notes = b"\0" * (PAGE - 64 - 60 * 56)
    table = b"".join(core.phdr(4, 4, 0, 64 + 60 * 56, len(notes), len(notes)) for _ in range(59))
    table = core.phdr(1, 5, 0, 0, PAGE, PAGE) + table
    page = core.ehdr(3, 64, 60) + table + notes
    rows = [(0x100_0000 + i * PAGE, 0x100_0000 + (i + 1) * PAGE, 0, f"/{i}") for i in range(3000)]
    core.files(*rows)
    data = core.finish()
    start = len(data) + PAGE & -PAGE
    count = len(rows) + 1
    headers = data[64 : 64 + 56]
    headers += b"".join(core.phdr(1, 5, start, at, PAGE, PAGE) for at, _, _, _ in rows)
    if segment:
        headers = headers[:56] * 500 * segment + headers
        count += 500 * segment
    built = core.ehdr(4, start + PAGE, count) + data[64:].ljust(start - 64, b"\0") + page + headers
    calls = 0

    def count_calls(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count_calls)
    try:
        crash = check(built)
    finally:
        sys.setprofile(None)
    assert calls < 4 * len(built)
    assert crash is not None
    assert len(crash.modules) == 3000
    assert len(crash.threads) == 1
