from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.kernels import unwind as kernel
from deadreckon.kernels._jit import JIT
from deadreckon.model.crash import MemoryMap
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, WIDTH
from deadreckon.model.tables import TRUST_CFI, TRUST_CONTEXT, TRUST_FP, TRUST_SCAN
from deadreckon.unwind.walk import ARCHITECTURES
from oracle import walk as oracle
from oracle.expression import evaluate
from synth.samples import LIMITS, walk_arguments
from synth.stacks import Image, Rule, World, random_expression, random_world

if TYPE_CHECKING:
    from deadreckon.unwind.walk import Tables

ARCHES = list(ARCHITECTURES)


def full(arch: Arch) -> int:
    """Return the mask that keeps every bit of an address."""
    return (1 << 8 * arch.word_size) - 1


def run(
    world: World, tables: list[Tables] | None = None, /, **limits: int
) -> tuple[list[list[oracle.Frame]], list[int]]:
    """Walk with the kernel; returns what the oracle does."""
    tables = [image.tables() for image in world.images] if tables is None else tables
    frames, stops, decisions = kernel.walk_stacks(
        *walk_arguments(world, tables),
        **{**LIMITS, **limits},
    )
    threads: list[list[oracle.Frame]] = [[] for _ in world.threads]
    rows = zip(
        frames.thread.tolist(),
        frames.instruction_addr.tolist(),
        frames.stack_pointer.tolist(),
        frames.is_return_address.tolist(),
        frames.module.tolist(),
        frames.trust.tolist(),
        strict=True,
    )
    assert (np.diff(frames.thread) >= 0).all()
    assert decisions.shape == (len(frames), 2)
    for thread, pc, sp, is_return, module, trust in rows:
        threads[thread].append(oracle.Frame(pc, sp, is_return, module, trust))
    return threads, stops.tolist()


def same(ours: list[list[oracle.Frame]], theirs: list[list[oracle.Frame]]) -> bool:
    """Compare frames; the stack pointer only where the oracle knows it."""
    if [len(t) for t in ours] != [len(t) for t in theirs]:
        return False
    pairs = [(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    return all(replace(a, sp=b.sp if b.sp is None else a.sp) == b for a, b in pairs)


@pytest.mark.parametrize("arch", ARCHES)
def test_random_worlds(arch: Arch) -> None:
    trusts: Counter[int] = Counter()
    stopped: Counter[int] = Counter()
    depths: Counter[int] = Counter()
    for seed in range(600 if JIT else 25):
        rng = random.Random(seed)
        world = random_world(rng, arch)
        limits = {
            **LIMITS,
            "max_frames": rng.choice((3, 40)),
            "scan_words": rng.choice((4, 40)),
            "scan_words_calls": 60,
        }
        ours, stops = run(world, None, **limits)
        theirs, expected = oracle.walk(world, **limits)
        assert same(ours, theirs), (seed, ours, theirs)
        assert stops == expected, seed
        trusts.update(f.trust for t in theirs for f in t)
        stopped.update(expected)
        depths.update(len(t) for t in theirs)
    if not JIT:
        return
    # A comparison of stacks that never get anywhere would prove nothing.
    wanted = {TRUST_CONTEXT, TRUST_CFI, TRUST_SCAN} | {TRUST_FP}
    assert all(trusts[trust] > 60 for trust in wanted), trusts
    assert all(stopped[stop] > 5 for stop in range(6)), stopped
    assert sum(n for depth, n in depths.items() if depth > 4) > 60, depths


# --- Expressions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_random_expressions(arch: Arch) -> None:
    """Each thread stops in a function of its own, whose CFA is an expression: its value is the caller's sp."""
    rng = random.Random(7)
    registers = REGISTER_SETS[arch]
    word = arch.word_size
    base, stack = 0x40_0000, 0x80_0000
    world = World(arch, full(arch), [Image(base, 0x10_0000)], [(stack, rng.randbytes(256))])
    known = {0: stack + 16, 3: (1 << 8 * word) - 5, registers.sp: stack + 32, registers.fp: 1 << (8 * word - 1)}
    ra = registers.lr if registers.lr >= 0 else registers.pc
    where_to = b"\x0c" + (0xDEAD_BEEE).to_bytes(4, "little")  # outside any image
    expressions: list[bytes] = []
    while len(expressions) < (4000 if JIT else 400):
        expressions.append(random_expression(rng, word, [0, 3, 1, registers.sp, registers.fp, 33], stack))
    expressions += [b"\x30" * 64, b"\x30" * 65, b"\x30" + b"\x96" * 999, b"\x30" + b"\x96" * 1000, b"", b"\x96"]
    expressions += [
        b"\x2f\xfd\xff",
        b"\x30\x28\xfc\xff\x35",
        b"\x31\x2f\x00\x80",
        b"\x10" + b"\xff" * 10,
        b"\x92\x80\x80\x04\0",
    ]
    with_cfa = []
    for i, code in enumerate(expressions):
        if i % 2:
            rule = Rule(("expr", code), ra, {ra: ("val_expr", where_to)}, signal=True)
        else:
            # A register's expression, which starts with the CFA: it is taken for sp.
            rule = Rule(("reg", 0, 8), ra, {registers.sp: ("val_expr", code), ra: ("val_expr", where_to)}, signal=True)
        world.images[0].rows.append((16 * i, rule))
        with_cfa.append(None if i % 2 else stack + 24)
        world.threads.append({**known, registers.pc: base + 16 * i})
    found, _ = run(world, max_frames=2, max_total=1 << 20, scan_words=0, scan_words_first=0)
    values = 0
    for i, (code, cfa, frames) in enumerate(zip(expressions, with_cfa, found, strict=True)):
        registers_here = {**known, registers.pc: base + 16 * i}
        value = evaluate(code, word=word, registers=registers_here, cfa=cfa, read=world.read)
        if cfa is None:
            assert (frames[1].sp if len(frames) > 1 else None) == value, code.hex()
        elif value is not None:
            assert frames[1].sp == value, code.hex()
        values += value is not None
    assert values > len(expressions) // 8


@pytest.mark.parametrize(
    ("arch", "code", "value"),
    [
        (Arch.X86_64, "0b80 0c02000000 1b".replace(" ", ""), None),
        (Arch.X86_64, "09f0 0903 1b", (1 << 64) - 5),
        (Arch.X86_64, "0e0000000000000080 0903 1b", (1 << 64) - (1 << 63) // 3),
        (Arch.X86_64, "0e0000000000000080 09ff 1b", 1 << 63),
        (Arch.X86, "09f0 0903 1b", 0xFFFF_FFFB),
        (Arch.X86, "09ff 30 2d", 1),
        (Arch.X86, "09ff 34 25", 0x0FFF_FFFF),
        (Arch.X86, "09f0 34 26", 0xFFFF_FFFF),
        (Arch.X86, "30 20", 0xFFFF_FFFF),
        (Arch.X86, "09ff 31 22", 0),
        (Arch.X86_64, "0a3412 38 e1", 0x1230),
        (Arch.X86_64, "0a3412 37 e1", None),
        (Arch.X86_64, "09ff 32 e2", (1 << 63) - 1),
    ],
)
def test_expression_golden(arch: Arch, code: str, value: int | None) -> None:
    registers = REGISTER_SETS[arch]
    rule = Rule(("expr", bytes.fromhex(code)), registers.pc, {registers.pc: ("val_offset", 0x7000_0001)}, signal=True)
    rule.saved[registers.pc] = ("val_expr", b"\x0c\xee\xbe\xad\xde")
    image = Image(0x40_0000, 0x1000, [(0, rule)])
    world = World(arch, full(arch), [image], threads=[{registers.pc: 0x40_0010, registers.sp: 0x1000}])
    ((first, *rest),), _ = run(world)
    assert first.trust == TRUST_CONTEXT
    assert [f.sp for f in rest] == ([] if value is None else [value])


# --- Hostile stacks -------------------------------------------------------------------------------------------------

PC, SP, FP = REGISTER_SETS[Arch.X86_64].pc, REGISTER_SETS[Arch.X86_64].sp, REGISTER_SETS[Arch.X86_64].fp
IMAGE, STACK = 0x40_0000, 0x7FFF_0000


def little(*words: int) -> bytes:
    return b"".join(w.to_bytes(8, "little") for w in words)


def amd64(rule: Rule | None, *words: int, names: bool = True, **registers: int) -> World:
    image = Image(IMAGE, 0x1000, [(0, rule)] if rule else [], [(0, True)] if names else [])
    thread = {PC: IMAGE + 0x110, SP: STACK} | {{"rbp": FP}[name]: value for name, value in registers.items()}
    return World(Arch.X86_64, full(Arch.X86_64), [image], [(STACK, little(*words))], threads=[thread])


def test_frame_pointers_in_a_circle() -> None:
    world = amd64(None, STACK + 16, IMAGE + 0x120, STACK, IMAGE + 0x130, rbp=STACK)
    (frames,), (stop,) = run(world, scan_words=0, scan_words_first=0)
    assert [f.pc for f in frames] == [IMAGE + 0x110, IMAGE + 0x120]
    assert stop == kernel.STOP_NO_CALLER


@pytest.mark.parametrize("offset", [0, -8, -0x7FFF_0000])
def test_sp_that_stands_still_or_goes_back(offset: int) -> None:
    rule = Rule(("reg", SP, offset), PC, {PC: ("val_expr", b"\x0c" + (IMAGE + 0x120).to_bytes(4, "little"))})
    (frames,), (stop,) = run(amd64(rule, 1, 2, 3))
    assert len(frames) == 1
    assert stop == kernel.STOP_NO_CALLER


def test_signal_frames_in_a_circle_end_at_the_limit() -> None:
    rule = Rule(("reg", SP, 0), PC, {PC: ("val_expr", b"\x0c" + (IMAGE + 0x120).to_bytes(4, "little"))}, signal=True)
    (frames,), (stop,) = run(amd64(rule, 1, 2, 3), max_frames=1000, max_total=5000)
    assert len(frames) == 1000
    assert stop == kernel.STOP_LIMIT


@pytest.mark.parametrize("offset", [0x7FFF_FFFF, 0x7FFF_FFF8])
def test_cfa_out_of_memory(offset: int) -> None:
    rule = Rule(("reg", SP, offset), PC, {PC: ("offset", -8)})
    (frames,), (stop,) = run(amd64(rule, 1, 2, 3))
    assert len(frames) == 1
    assert stop == kernel.STOP_NO_CALLER


def test_cfa_that_wraps() -> None:
    rule = Rule(("reg", SP, 0x20), PC, {PC: ("val_expr", b"\x0c" + (IMAGE + 0x120).to_bytes(4, "little"))})
    world = amd64(rule, 1)
    world.threads[0][SP] = (1 << 64) - 0x10
    (frames,), (stop,) = run(world)
    assert len(frames) == 1
    assert stop == kernel.STOP_NO_STACK


def test_words_that_cross_a_hole() -> None:
    """A word is taken only where all of its bytes were captured, together."""
    rule = Rule(("reg", SP, 16), PC, {PC: ("offset", -8)})
    world = amd64(rule, 0)
    stack = little(0, IMAGE + 0x120, 0, IMAGE + 0x130)
    world.memory = [(STACK, stack)]
    assert len(run(world)[0][0]) == 3
    world.memory = [(STACK, stack[:12]), (STACK + 12, stack[12:])]
    assert len(run(world)[0][0]) == 1
    world.memory = [(STACK, stack[:12])]
    assert len(run(world)[0][0]) == 1


def test_limits_of_frames() -> None:
    rule = Rule(("reg", SP, 8), PC, {PC: ("offset", -8)})
    world = amd64(rule, *[IMAGE + 0x120] * 200)
    world.threads *= 4
    threads, stops = run(world, max_frames=30, max_total=70)
    assert [len(t) for t in threads] == [30, 30, 10, 0]
    assert stops == [kernel.STOP_LIMIT] * 4
    (frames, *_), (stop, *_) = run(world, max_frames=500, max_total=5000)
    assert len(frames) == 201
    assert stop == kernel.STOP_NO_STACK


@pytest.mark.parametrize(("rva", "count"), [(0x34, 1), (0x40, 1), (0x41, 2)])
def test_pointers_to_headers_are_no_callers(rva: int, count: int) -> None:
    """AT_PHDR: behind the header of a 32-bit and of a 64-bit file."""
    (frames,), _ = run(amd64(None, 0, IMAGE + rva))
    assert len(frames) == count


def test_scan_limits() -> None:
    world = amd64(None, *[0] * 11, IMAGE + 0x120, *[0] * 11, IMAGE + 0x130)
    for first, later, count in ((11, 40, 1), (12, 11, 2), (12, 12, 3)):
        (frames,), _ = run(world, scan_words_first=first, scan_words=later)
        assert len(frames) == count
        assert {f.trust for f in frames[1:]} <= {TRUST_SCAN}


def test_true_ends() -> None:
    ends = Rule(("reg", SP, 8), PC, {PC: ("undefined", 0)}, end=True)
    assert run(amd64(ends, IMAGE + 0x120))[1] == [kernel.STOP_END]
    zero = Rule(("reg", SP, 8), PC, {PC: ("offset", -8)})
    assert run(amd64(zero, 0, IMAGE + 0x120))[1] == [kernel.STOP_END]
    assert run(amd64(zero, 4095, IMAGE + 0x120))[1] == [kernel.STOP_NO_CALLER]
    world = amd64(zero, IMAGE + 0x120)
    world.images[0].base = [(0x110, 0x111)]
    (frames,), stops = run(world)
    assert stops == [kernel.STOP_BASE]
    assert len(frames) == 1


def test_nothing_to_walk() -> None:
    none = np.zeros(0, np.uint64)
    rules = ARCHITECTURES[Arch.X86_64].RULES
    columns = np.zeros((0, kernel.MODULE_COLUMNS), np.int64)
    for count in (0, 1):
        registers = np.zeros((count, WIDTH), np.uint64)
        frames, stops, _ = kernel.walk_stacks(
            rules.parameters(full(Arch.X86_64)), rules.chain_rows(), registers, np.zeros(count, np.uint64),
            MemoryMap.empty(), None, none, none, columns, **LIMITS,
        )  # fmt: skip
        assert len(frames) == 0
        assert stops.tolist() == [kernel.STOP_NO_CONTEXT] * count


def test_damaged_tables() -> None:
    """Columns with any numbers in them: the walk ends, within its own memory."""
    for seed in range(300 if JIT else 20):
        rng = random.Random(seed)
        world = random_world(rng, rng.choice(ARCHES))
        tables = [image.tables() for image in world.images]
        for _, rules, code in tables:
            for column in (rules.rules, rules.saved, rules.rule, code.map):
                flat = column.reshape(-1)
                for _ in range(min(len(flat), rng.choice((0, 1, 5, 50)))):
                    number = rng.choice((-1, 34, 63, 64, 0x7FFF_FFFF, -0x8000_0000, rng.getrandbits(31)))
                    flat[rng.randrange(len(flat))] = number & 0xFFFF_FFFF if column.dtype == np.uint32 else number
        threads, _ = run(world, tables)
        assert all(len(t) <= LIMITS["max_frames"] for t in threads)
