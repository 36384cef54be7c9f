from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.config import UnwindLimits
from deadreckon.kernels import _parameters, _signals
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawFrame, RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.model.tables import TRUST_PREWALKED
from deadreckon.unwind import amd64, arm, arm64, x86
from deadreckon.unwind.walk import ARCHITECTURES, STOPS, modules_on_stacks, unwind
from oracle import walk as oracle
from synth.stacks import Image, Rule, World, random_world

if TYPE_CHECKING:
    from deadreckon.model.tables import FrameTable
    from deadreckon.unwind._arch import ArchRules

LIMITS = UnwindLimits(max_frames=40, max_total_frames=1000, scan_words=10, scan_words_first=20, scan_words_calls=30)
WALK = {"max_frames": 40, "max_total": 1000, "scan_words": 10, "scan_words_first": 20, "scan_words_calls": 30}


def crash_of(world: World, order: list[int] | None = None) -> RawCrash:
    """Return a world as a report tells it, its modules in any order."""
    memory, regions, registers, valid = world.columns()
    images = [world.images[i] for i in order or range(len(world.images))]
    return RawCrash(
        format="test",
        arch=world.arch,
        os_name="Windows" if world.strict else "Linux",
        threads=[
            RawThread(id=i, registers=Registers(world.arch, row, int(known)))
            for i, (row, known) in enumerate(zip(registers, valid.tolist(), strict=True))
        ],
        modules=[Module(image.start, image.size, arch=world.arch) for image in images],
        memory=memory,
        regions=regions,
    )


def threads_of(frames: FrameTable, count: int) -> list[list[tuple[int, bool, int, int]]]:
    threads: list[list[tuple[int, bool, int, int]]] = [[] for _ in range(count)]
    columns = (frames.thread, frames.instruction_addr, frames.is_return_address, frames.module, frames.trust)
    for thread, *rest in zip(*(column.tolist() for column in columns), strict=True):
        threads[thread].append(tuple(rest))
    return threads


# --- Architectures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "word", "pc", "sp", "fp", "lr", "callee_saved", "call", "slot", "resync"),
    [
        (amd64.RULES, 8, 16, 7, 6, -1, [3, 6, 12, 13, 14, 15], _signals.CALL_X86, 8, False),
        (x86.RULES, 4, 8, 4, 5, -1, [3, 5, 6, 7], _signals.CALL_X86, -1, True),
        (arm.RULES, 4, 15, 13, 11, 14, [4, 5, 6, 7, 8, 9, 10, 11], _signals.CALL_ARM, -1, False),
        (arm64.RULES, 8, 32, 31, 29, 30, list(range(19, 30)), _signals.CALL_ARM64, -1, False),
    ],
    ids=lambda value: str(value.arch) if hasattr(value, "arch") else "",
)
def test_parameters(
    rules: ArchRules,
    word: int,
    pc: int,
    sp: int,
    fp: int,
    lr: int,
    callee_saved: list[int],
    call: int,
    slot: int,
    resync: bool,
) -> None:
    """The numbers of the ABI documents, by DWARF register."""
    row = rules.parameters(0x1234).tolist()
    assert row == [word, pc, sp, fp, lr, sum(1 << r for r in callee_saved), 0x1234, call, 0, slot, resync]
    assert rules.parameters((1 << 64) - 1)[_parameters.P_MASK] == -1


def test_masks_of_code_addresses() -> None:
    crash = RawCrash("test")
    assert amd64.address_mask(crash) == (1 << 64) - 1
    assert x86.address_mask(crash) == (1 << 32) - 1
    assert arm.address_mask(crash) == (1 << 32) - 2
    assert arm64.address_mask(crash) == (1 << 47) - 1
    crash.modules = [Module(0xFFFF_8000_0000, 0x1000)]
    assert arm64.address_mask(crash) == (1 << 48) - 1


# --- Whole reports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_modules_in_any_order(arch: Arch) -> None:
    frames_seen = 0
    for seed in range(60):
        rng = random.Random(seed)
        world = random_world(rng, arch)
        order = rng.sample(range(len(world.images)), len(world.images))
        crash = crash_of(world, order)
        world.mask = ARCHITECTURES[arch].address_mask(crash)
        tables = [world.images[i].tables() for i in order]
        frames, stops, _ = unwind(crash, tables, LIMITS)
        expected, why = oracle.walk(world, **WALK)
        assert threads_of(frames, 3) == [
            [(f.pc, f.is_return, order.index(f.module) if f.module >= 0 else -1, f.trust) for f in thread]
            for thread in expected
        ], seed
        assert stops == [STOPS[code] for code in why]
        frames_seen += len(frames)
    assert frames_seen > 300


def test_modules_without_tables() -> None:
    world = random_world(random.Random(1), Arch.X86_64)
    bare = [Image(image.start, image.size) for image in world.images]
    frames, stops, _ = unwind(crash_of(world), [None] * len(world.images), LIMITS)
    world.images = bare
    expected, why = oracle.walk(world, **WALK)
    assert [len(t) for t in threads_of(frames, 3)] == [len(t) for t in expected]
    assert stops == [STOPS[code] for code in why]


def test_threads_that_can_not_be_walked() -> None:
    world = random_world(random.Random(2), Arch.X86_64)
    crash = crash_of(world)
    walked = crash.threads[:2]
    listed = [RawFrame(world.images[0].start + 0x10, False), RawFrame(world.images[0].start, True), RawFrame(0, True)]
    crash.threads = [
        RawThread(id=7),
        walked[0],
        RawThread(id=8, frames=listed, registers=walked[1].registers),
        RawThread(id=9, frames=[]),
        walked[1],
    ]
    frames, stops, _ = unwind(crash, [image.tables() for image in world.images], LIMITS)
    threads = threads_of(frames, 5)
    assert threads[0] == threads[3] == []
    assert threads[1][0][0] == walked[0].registers.pc  # type: ignore[union-attr]
    assert threads[4][0][0] == walked[1].registers.pc  # type: ignore[union-attr]
    # The second address returns to the image's first byte, so its call is in no image.
    assert threads[2] == [
        (world.images[0].start + 0x10, False, 0, TRUST_PREWALKED),
        (world.images[0].start, True, -1, TRUST_PREWALKED),
        (0, True, -1, TRUST_PREWALKED),
    ]
    assert stops[0] == stops[3] == "no register context"
    assert stops[2] == "end of stack"


def test_unknown_architecture_and_empty_reports() -> None:
    crash = crash_of(random_world(random.Random(3), Arch.X86_64))
    crash.arch = Arch.UNKNOWN
    frames, stops, _ = unwind(crash, [None] * len(crash.modules), LIMITS)
    assert len(frames) == 0
    assert stops == ["no register context"] * 3
    for arch in Arch:
        frames, stops, _ = unwind(RawCrash("test", arch=arch), [], LIMITS)
        assert (len(frames), stops) == (0, [])


def test_prewalked_stack_without_modules() -> None:
    crash = RawCrash("test", threads=[RawThread(id=1, frames=[RawFrame(0x1000, False)])])
    frames, stops, _ = unwind(crash, [], LIMITS)
    assert threads_of(frames, 1) == [[(0x1000, False, -1, TRUST_PREWALKED)]]
    assert stops == ["end of stack"]


def test_limits_reach_the_kernel() -> None:
    pc, sp = REGISTER_SETS[Arch.X86_64].pc, REGISTER_SETS[Arch.X86_64].sp
    image = Image(0x40_0000, 0x1000, [(0, Rule(("reg", sp, 8), pc, {pc: ("offset", -8)}))], [(0, True)])
    stack = (0x40_0020).to_bytes(8, "little") * 100
    world = World(Arch.X86_64, (1 << 64) - 1, [image], [(0x8000, stack)], threads=[{pc: 0x40_0010, sp: 0x8000}] * 3)
    limits = UnwindLimits(max_frames=20, max_total_frames=50)
    frames, stops, _ = unwind(crash_of(world), [image.tables()], limits)
    assert np.bincount(frames.thread).tolist() == [20, 20, 10]
    assert stops == ["frame limit"] * 3


# --- Which modules matter -------------------------------------------------------------------------------------------

BASE = 0x7F00_0000_0000


def crash_with(arch: Arch, words: list[int], **registers: int) -> RawCrash:
    """Return a report of ten modules, 4 KiB each and as much between them, and one stack at 0x8001."""
    data = b"".join(w.to_bytes(arch.word_size, "little") for w in words) + b"xyz"
    base = BASE if arch.word_size == 8 else 0x10_0000
    return RawCrash(
        "test",
        arch=arch,
        threads=[RawThread(id=1, registers=Registers.from_mapping(arch, registers))],
        modules=[Module(base + 0x2000 * i, 0x1000) for i in reversed(range(10))],
        memory=MemoryMap.from_ranges([(0x8001, len(data), 3)], np.frombuffer(b"abc" + data, np.uint8)),
    )


def modules(crash: RawCrash) -> list[int]:
    return [9 - i for i in reversed(modules_on_stacks(crash).tolist())]


def test_modules_that_stacks_point_into() -> None:
    words = [0, BASE + 0x2000, BASE + 0x4FFF, BASE + 0x7000, BASE + 0x9001, BASE - 1, (1 << 64) - 1, BASE + 0xC800]
    crash = crash_with(Arch.X86_64, words, rip=BASE + 0x10, rsp=0x8001)
    # A return address may be one past its module's end: the call was its last instruction.
    assert modules(crash) == [0, 1, 2, 3, 6]
    crash = crash_with(Arch.X86_64, words, rip=BASE + 0x10, rsp=0x8001 + 7 * 8, rbx=BASE + 0x1_2000)
    assert modules(crash) == [0, 6, 9]


def test_words_of_the_crashed_cpu() -> None:
    assert modules(crash_with(Arch.X86, [0x10_2000, 0x10_8001], eip=0x10_0000, esp=0x8001)) == [0, 1, 4]
    assert modules(crash_with(Arch.ARM, [0x10_6001], pc=0x10_0000, sp=0x8001, lr=0x10_4001)) == [0, 2, 3]
    signed = 0x5A << 56
    assert modules(crash_with(Arch.ARM64, [BASE + 0x6004 | signed], pc=BASE, sp=0x8001)) == [0, 3]


@pytest.mark.parametrize("sp", [0, 0x8000, 0x9000, (1 << 64) - 1])
def test_stack_that_is_not_there(sp: int) -> None:
    assert modules(crash_with(Arch.X86_64, [BASE + 0x2000], rip=BASE, rsp=sp)) == [0]


def test_nothing_to_look_at() -> None:
    crash = crash_with(Arch.X86_64, [BASE + 0x2000], rbx=BASE)
    assert modules(crash) == [0]
    crash.threads[0].registers = None
    assert modules(crash) == []
    crash.threads[0].frames = [RawFrame(BASE + 0x2000, True), RawFrame(1, False)]
    assert modules(crash) == [1]
    crash.modules = []
    assert modules_on_stacks(crash).tolist() == []
    assert modules_on_stacks(RawCrash("test")).tolist() == []


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_only_modules_on_stacks_matter(arch: Arch) -> None:
    """Without the other modules' tables every frame is the same, but for rules that make addresses up."""
    compared = 0
    for seed in range(80):
        rng = random.Random(seed)
        world = random_world(rng, arch)
        for image in world.images:
            # Addresses that no stack holds: sums, and registers saved nowhere.
            image.rows = [
                (rva, r) for rva, r in image.rows if r is None or {k for k, _ in r.saved.values()} <= {"offset"}
            ]
        crash = crash_of(world)
        tables = [image.tables() for image in world.images]
        needed = set(modules_on_stacks(crash).tolist())
        full, _, _ = unwind(crash, tables, LIMITS)
        if not set(full.module.tolist()) - {-1} <= needed:
            # Only where the walk left the stack that sp points into, or its words.
            sp = REGISTER_SETS[arch].sp
            assert len(world.memory) > 1 or any(t.get(sp, 0) % world.word for t in world.threads)
            continue
        for _ in range(4):  # As the engine does, where a stack leads to modules that it does not mention.
            some, _, _ = unwind(crash, [pair if i in needed else None for i, pair in enumerate(tables)], LIMITS)
            needed |= set(some.module.tolist()) - {-1}
        assert threads_of(full, 3) == threads_of(some, 3), seed
        compared += 1
    assert compared > 60
