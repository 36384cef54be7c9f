"""Hostile and damaged PLCrashReporter files: a crash or our own errors, and no more work than the bytes allow."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, LimitExceeded, Malformed, Unsupported
from deadreckon.reports.plcrash import read
from synth.plcrash import ARM, ARM64E, HEADER, UUID, X86_64, Report, frame, processor, whole
from synth.protobuf import blob, number, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def signed() -> bytes:
    """Return an arm64e report with a Mach exception and data of the application's."""
    report = whole(0x2_0000_0000, ARM64E)
    report.set_signal("SIGBUS", "#0", 5, (1, [2, 0x8_0000_0005]))
    report.custom = b"<plist/>" * 30
    return report.finish()


def thumb() -> bytes:
    report = Report()
    registers = {name: i for i, name in enumerate(["r0", "r12", "sp", "lr", "pc", "cpsr"])}
    report.add_thread(0, [frame(0x1001 + 16 * i) for i in range(40)], crashed=True, registers=registers)
    for i in range(30):
        report.add_image(0x1000 * i, 0x1000, f"/lib/{i}", UUID, processor(ARM, 9))
    return report.finish()


SEEDS = {"whole": whole().finish(), "signed": signed(), "thumb": thumb()}


def check(data: bytes) -> RawCrash | None:
    """Read, and check everything that holds for any bytes; None where the file is refused."""
    try:
        crash = read(data, LIMITS)
    except (Malformed, Unsupported):
        return None
    assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
    assert len(crash.diagnostics) < 40 + len(crash.threads)
    placed = sorted({(m.image_addr, m.end) for m in crash.modules})
    assert all(a[1] <= b[0] for a, b in pairwise(placed))
    assert all(m.end <= 1 << 64 for m in crash.modules)
    stacks = [*(t.frames for t in crash.threads), *(e.frames for e in crash.exceptions)]
    for stack in stacks:
        assert stack is None or all(f.instruction_addr is not None for f in stack)
    return crash


@pytest.mark.parametrize("name", SEEDS)
def test_cut_at_any_length(name: str) -> None:
    seed = SEEDS[name]
    full = check(seed)
    assert full is not None
    assert full.diagnostics == []
    kept = 0
    for end in range(len(seed)):
        crash = check(seed[:end])
        if crash is None:
            continue
        kept += 1
        # Of the last one the number may be missing.
        for thread, complete in zip(crash.threads[:-1], full.threads, strict=False):
            assert (thread.id, thread.frames) == (complete.id, complete.frames)
        assert [m.image_addr for m in crash.modules] == [m.image_addr for m in full.modules][: len(crash.modules)]
        # All that comes after the signal is what the application added.
        assert crash.diagnostics or crash.exceptions, end
    assert kept > len(seed) * 0.6


def mutations(seed: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    """Yield copies with bits flipped, bytes replaced, pieces taken out, doubled or moved, and lengths made huge."""
    for _ in range(count):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            at = chance.randrange(8, len(data))
            size = chance.randrange(1, 40)
            match chance.randrange(6):
                case 0 | 1:
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 3:
                    del data[at : min(at + size, len(data) - 9)]
                case 4:
                    data[at:at] = data[at : at + size]
                case _:
                    data[at:at] = varint(chance.choice((0, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)))
        yield bytes(data)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated(name: str) -> None:
    kept = sum(check(data) is not None for data in mutations(SEEDS[name], 600, random.Random(name)))
    assert kept > 500


BOMBS = {
    "threads": blob(3, b""),
    "images": blob(4, b""),
    "frames": blob(3, blob(2, b"") * 50),
    "symbols": blob(3, blob(2, blob(6, b"")) * 50),
    "registers": blob(3, blob(4, b"") * 50),
    "unknown": number(11, 0),
    "groups": b"\x5b",
    "exception": blob(5, blob(3, b"")),
    "codes": blob(6, blob(4, blob(2, b"\1" * 50))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_many_small_parts(name: str) -> None:
    piece = BOMBS[name]
    start = HEADER + blob(6, blob(1, "SIGSEGV"))
    data = start + piece * (80_000 // len(piece))
    calls = 0

    def count_calls(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_calls)
    try:
        crash = check(data)
    finally:
        sys.setprofile(None)
    assert crash is not None
    assert calls < 8 * len(data)
    assert len(crash.modules) <= LIMITS.max_modules
    assert len(crash.threads) <= LIMITS.max_threads


def test_images_in_the_worst_order() -> None:
    """Each image goes before all others, and none has a place of its own to be found quickly."""
    report = Report()
    for i in range(16_384, 0, -1):
        report.add_image(i * 0x1000, 0x1000, "", None, processor(X86_64))
    crash = check(report.finish())
    assert crash is not None
    assert len(crash.modules) == 16_384
    assert crash.modules[0].image_addr == 16_384 * 0x1000


def test_a_large_file_is_refused_at_once() -> None:
    with pytest.raises(LimitExceeded):
        read(HEADER + b"\x5a" * (16 << 20), LIMITS)
