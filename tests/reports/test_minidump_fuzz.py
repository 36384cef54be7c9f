"""Hostile and damaged minidumps: nothing but our own errors, and no more work or memory than the bytes are worth."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, DeadreckonError, Malformed
from deadreckon.reports.minidump import read
from synth.minidump import (
    AMD64,
    ARM64,
    LINUX,
    WINDOWS,
    X86,
    At,
    Item,
    Minidump,
    codes,
    context_amd64,
    context_arm64,
    context_x86,
    linux_dump,
    location,
    read_built,
    rsds,
    u32,
    u64,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
EXTREMES = (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, 0xFFFF_FFFF)


def windows_dump() -> bytes:
    """Return a dump with the streams that Linux's dumps don't have."""
    dump = Minidump()
    dump.system(X86, WINDOWS, (10, 0, 19041), "Service Pack 1")
    dump.thread(1, context_x86({"eip": 0x401000, "esp": 0x8000}), (0x8000, bytes(64)), teb=0x7000)
    dump.thread(2, context_x86({"eip": 0x402000}))
    dump.module(0x400000, 0x10000, r"C:\app.exe", rsds(bytes(range(16)), 1, "app.pdb"), stamp=7, version=(1, 2, 3, 4))
    dump.exception(1, 0xC0000005, information=(1, 0x45), context=context_x86({"eip": 0x401234, "esp": 0x8010}))
    dump.stream(9, u64(2), At(dump.section(bytes(range(48))), 8), u64(0x7000, 40, 0x9000, 8))
    dump.stream(14, u32(12, 24, 1), u64(0x500000), u32(0x1000, 0, 9), At(dump.string("gone.dll")))
    dump.stream(15, u32(1364, 0x103, 77, 1_599_999_000, 0, 0).ljust(1364, b"\0"))
    handle: list[Item] = [u64(4), *[At(dump.string("File"))] * 2, u32(0, 0, 1, 1, 0, 0)]
    dump.stream(12, u32(16, 40, 2, 0), *handle * 2)
    dump.stream(0x47670001, u32(3, 2, 1))
    dump.stream(0x47670002, "x".encode("utf-16-le").ljust(768, b"\0"), u32(42, 0))
    dump.stream(11, "a comment".encode("utf-16-le"))
    return dump.finish()


SEEDS = {"linux": linux_dump().finish(), "padded": linux_dump().finish(bytes(4)), "windows": windows_dump()}


@pytest.fixture(params=[*SEEDS, "real"])
def seed(request: pytest.FixtureRequest, fixtures: Path) -> bytes:
    """Give a dump to damage: built ones, and one that a crash left."""
    real = fixtures / "linux/x86_64/pie-O0/dumps/threads.dmp"
    data = SEEDS.get(request.param) or real.read_bytes()
    read(data, LIMITS)  # What is imported on the way is no reader's work.
    return data


def read_bounded(data: bytes) -> RawCrash | None:
    """Read, and check everything that holds for any bytes; None where the dump is refused.

    Work is counted in calls, which no loop over records can do without, and memory at its peak.
    """
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    tracemalloc.start()
    sys.setprofile(count)
    try:
        crash = read(data, LIMITS)
    except DeadreckonError:
        crash = None
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert calls < 1000 + len(data)
    assert peak < 100_000 + 8 * len(data)
    if crash is not None:
        check_invariants(crash, len(data))
    return crash


def check_invariants(crash: RawCrash, size: int) -> None:
    assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
    memory = crash.memory
    assert (memory.start < memory.end).all()
    assert (memory.end[:-1] <= memory.start[1:]).all()
    assert (memory.offset >= 0).all()
    assert (memory.offset.astype(np.uint64) + (memory.end - memory.start) <= size).all()
    if crash.regions is not None:
        assert (crash.regions.start < crash.regions.end).all()
        assert (np.diff(crash.regions.start.astype(object)) >= 0).all()
    for module, following in zip(crash.modules, crash.modules[1:], strict=False):
        assert module.end <= following.image_addr
    assert all(m.image_size > 0 and m.end <= 1 << 64 for m in crash.modules)
    assert all(len(m.code_file) <= LIMITS.max_string_bytes for m in crash.modules)
    assert sum(t.crashed for t in crash.threads) <= 1


def test_truncation_at_200_lengths(seed: bytes) -> None:
    whole = read_bounded(seed)
    assert whole is not None
    assert whole.diagnostics == []
    kept = 0
    for end in np.linspace(0, len(seed) - 1, 200).astype(int).tolist():
        crash = read_bounded(seed[:end])
        if crash is None:
            continue
        kept += 1
        # What is missing is missed, unless it is what no structure refers to, such as a string's final NUL.
        if not crash.diagnostics:
            assert (crash.threads, crash.modules, crash.attributes) == (whole.threads, whole.modules, whole.attributes)
            assert len(seed) - end < 16
    assert kept > 20  # The lists stand near the end of these dumps.


def test_flipped_bits(seed: bytes) -> None:
    chance = random.Random(1)
    read_in_part = 0
    for _ in range(200):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 2, 16))):
            # Half of them in the directory and the lists, where a bit does the most.
            at = chance.randrange(min(len(data), 1024) if chance.random() < 0.5 else len(data))
            data[at] ^= 1 << chance.randrange(8)
        crash = read_bounded(bytes(data))
        read_in_part += crash is not None and bool(crash.threads)
    assert read_in_part > 120


def test_extremes_in_any_field(seed: bytes) -> None:
    chance = random.Random(2)
    read_in_part = 0
    fields = [(at, value) for at in range(32, len(seed) - 4, 4) for value in (*EXTREMES, len(seed), at)]
    for at, value in chance.sample(fields, 300):
        crash = read_bounded(seed[:at] + u32(value) + seed[at + 4 :])
        read_in_part += crash is not None and bool(crash.threads)
    assert read_in_part > 240


def test_extremes_in_the_header_and_directory() -> None:
    seed = SEEDS["linux"]
    for at in range(0, 32 + 12 * 24, 4):
        for value in (*EXTREMES, len(seed), at):
            read_bounded(seed[:at] + u32(value) + seed[at + 4 :])


def test_spliced_dumps() -> None:
    """Pieces of one dump in another: structures that are valid in the wrong place."""
    chance = random.Random(3)
    both = list(SEEDS.values())
    for _ in range(200):
        into, of = bytearray(chance.choice(both)), chance.choice(both)
        size = chance.choice((4, 12, 48, 108, 400))
        at, start = chance.randrange(8, len(into) - size), chance.randrange(len(of) - size)
        into[at : at + size] = of[start : start + size]
        read_bounded(bytes(into))


@pytest.mark.parametrize("stream_type", [3, 4, 5, 8, 9, 12, 14, 16, 24])
@pytest.mark.parametrize("count", [2, 0xFFFF, 0xFFFF_FFFF])
def test_a_count_beyond_the_bytes_costs_its_stream_only(stream_type: int, count: int) -> None:
    header = {9: u64(count, 0), 12: u32(16, 40, count, 0), 14: u32(12, 24, count), 16: u32(16, 48) + u64(count)}
    dump = Minidump()
    dump.system(AMD64, LINUX)
    if stream_type != 4:
        dump.module(0x400000, 0x1000, "app")
    dump.exception(1, 11, context=context_amd64({"rip": 0x1000}))
    dump.stream(stream_type, header.get(stream_type, u32(count)))
    crash = read_bounded(dump.finish())
    assert crash is not None
    malformed = [d.where or {} for d in crash.diagnostics if d.code == "stream_malformed"]
    assert {"stream", "offset", "expected", "got"} <= set(malformed[0])
    assert crash.exceptions[0].type == "SIGSEGV"


def test_names_that_share_bytes_do_not_multiply() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    text = dump.string("x" * 30_000)
    record: list[Item] = [u64(0), u32(0x1000, 0, 0), At(text), bytes(52), u32(0, 0, 0, 0), u64(0, 0)]
    dump.stream(4, u32(5000), *(record * 5000))
    dump.exception(1, 11)
    crash = read_bounded(dump.finish())
    assert crash is not None
    assert "stream_malformed" in codes(crash)


@pytest.mark.parametrize("text", ["", "x" * 40])
def test_annotations_that_share_bytes_do_not_multiply(text: str) -> None:
    dump = linux_dump()
    dump.directory = [entry for entry in dump.directory if entry[0] != 0x43500001]
    empty = At(dump.utf8(text))
    shared = dump.section(u32(10_000), *[empty, empty] * 10_000)
    listed = dump.section(u32(10_000), *[empty] * 10_000)
    module = dump.section(u32(1), *location(listed), *location(shared), *location(shared))
    links: list[Item] = [u32(0), *location(module)]
    dump.stream(0x43500001, u32(1), bytes(32), u32(0, 0), *location(dump.section(u32(9000), *links * 9000)))
    crash = read_bounded(dump.finish())
    assert crash is not None
    assert codes(crash).count("limit_exceeded") == 1
    assert len(crash.threads) == 2


def test_handle_names_that_share_bytes_do_not_multiply() -> None:
    dump = linux_dump()
    handle: list[Item] = [u64(4), *[At(dump.string("F" * 30_000))] * 2, u32(0, 0, 1, 1, 0, 0)]
    dump.stream(12, u32(16, 40, 1000, 0), *handle * 1000)
    crash = read_bounded(dump.finish())
    assert crash is not None
    assert codes(crash) == ["stream_malformed"]
    assert (crash.attributes["handles"], "handle_types" in crash.attributes) == ("1000", False)


def test_mappings_cost_little_more_than_their_text() -> None:
    lines = (f"{i:012x}000-{i + 1:012x}000 r-xp 00000000 08:01 1   /lib/{i:x}.so\n" for i in range(30_000))
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.stream(0x47670009, "".join(lines).encode())
    crash = read_bounded(dump.finish())
    assert crash is not None
    assert crash.regions is not None
    assert (len(crash.regions.start), len(crash.modules)) == (30_000, LIMITS.max_modules)


def test_rvas_in_a_circle() -> None:
    """Everything that points may point at itself: the directory at a list, a list at the header."""
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.stream(4, u32(1), u64(0x1000), u32(0x1000, 0, 0), At("stream1"), bytes(52), u32(108), At("stream1"), bytes(24))
    dump.stream(3, u32(1, 7, 0, 0, 0), u64(0, 0x8000), u32(0x1000, 0), u32(1232), At("stream2"))
    dump.stream(0x43500001, u32(1), bytes(32), u32(64), At("stream3"), u32(64), At("stream3"))
    dump.stream(24, u32(1), u32(7), At("stream4", 8))
    crash = read_bounded(dump.finish())
    assert crash is not None
    assert len(crash.threads) == 1


def test_any_context_bytes_give_their_own_cpu_or_nothing() -> None:
    """Registers of another CPU are garbage that looks like registers."""
    chance = random.Random(4)
    for _ in range(300):
        noise = bytearray(chance.randbytes(1232))
        noise[48:52] = bytes(4)  # the flags of x86-64
        struct.pack_into("<I", noise, 0, chance.getrandbits(32) | 0x30000)  # x86, and more
        dump = Minidump()
        dump.system(AMD64, LINUX)
        dump.thread(1, bytes(noise))
        assert read_built(dump).threads[0].registers is None
    dump = Minidump()
    dump.system(X86, LINUX)
    dump.thread(1, context_arm64([*range(31), 0x2000, 0x1000])[:716])
    assert read_built(dump).threads[0].registers is None
    dump = Minidump()
    dump.system(ARM64, LINUX)
    dump.thread(1, context_amd64({"rip": 1}))
    assert read_built(dump).threads[0].registers is not None


@pytest.mark.parametrize("entries", [3, 8, 12])
def test_a_directory_cut_short_gives_what_it_lists(entries: int) -> None:
    """The directory stands last: nothing else is lost."""
    data = SEEDS["linux"]
    count = struct.unpack_from("<I", data, 8)[0]
    moved = bytearray(data) + data[32 : 32 + 12 * entries + 6]
    struct.pack_into("<I", moved, 12, len(data))
    crash = read_bounded(bytes(moved))
    assert crash is not None
    (cut,) = [d for d in crash.diagnostics if d.code == "truncated"]
    assert cut.where == {"offset": len(data), "expected": count, "got": entries}


def test_a_directory_of_nothing_is_refused() -> None:
    with pytest.raises(Malformed, match="stream directory"):
        read(b"MDMP" + u32(0xA793, 3, 40, 0, 0) + bytes(16), LIMITS)
