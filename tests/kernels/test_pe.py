from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from deadreckon.kernels._jit import JIT
from deadreckon.kernels.pe import epilogues
from oracle.epilogue import leaving, pop_code, returning

Row = tuple[int, int, tuple[int, ...]]
Functions = Sequence[tuple[int, int, tuple[int, ...], int]]


def key_of(registers: tuple[int, ...]) -> int:
    return len(registers) | sum(register << 4 * i for i, register in enumerate(registers, 1))


def found_in(code: bytes, functions: Functions, most: int = 1 << 16, shift: int = 0) -> list[Row] | None:
    """Return what the kernel finds; functions are (start, size, pushed, allocated)."""
    start, size = np.array([f[:2] for f in functions], np.int64).reshape(-1, 2).T.copy()
    rows = epilogues(
        np.frombuffer(code, np.uint8),
        start,
        size,
        np.zeros(len(functions), np.int64),
        np.full(len(functions), len(code), np.int64),
        start + shift,
        np.array([key_of(pushed) for _, _, pushed, _ in functions], np.uint64),
        np.array([allocated for *_, allocated in functions], np.int64),
        most,
    )
    if rows is None:
        return None
    columns = [column.tolist() for column in rows]
    return [
        (at - shift, length, tuple(key >> 4 * i & 15 for i in range(1, (key & 15) + 1)))
        for at, length, key in zip(*columns, strict=True)
    ]


def expected_in(code: bytes, functions: Functions) -> set[Row]:
    rows: set[Row] = set()
    for start, size, pushed, allocated in functions:
        for at in range(start, start + size):
            one = returning(code, at)
            if one is not None:
                rows.add((at, one[1], one[0]))
            elif allocated >= 0:
                rows.update(leaving(code, at, pushed, allocated))
    return rows


@pytest.mark.parametrize("seed", range(150 if JIT else 10))
def test_code_made_up(seed: int) -> None:
    rng = random.Random(seed)
    pushed = tuple(rng.sample([r for r in range(16) if r != 4], rng.choice((0, 1, 2, 3, 8, 15))))
    allocated = rng.choice((-1, 0, 8, 0x40, 0x7F, 0x80, 0x1234))
    pops = [pop_code(register) for register in pushed]
    parts = [
        *(b"\x48\x83\xc4" + bytes([allocated & 0x7F]), b"\x48\x81\xc4" + (allocated & 0xFFFF).to_bytes(4, "little")),
        *(
            bytes.fromhex(h)
            for h in "488d6510 488da510000000 498d6310 488d6424 498be3 4889ec 90 90 40 f2 f3 5c".split()
        ),
        *(bytes.fromhex(h) for h in "c3 f3c3 f2c3 c20000 c20800 eb10 e900000000 ff2500000000 48ff2500000000".split()),
        *(
            bytes.fromhex(h)
            for h in "ffe0 48ffe0 ff6008 ffa010000000 ff2424 ff242500000000 ff642408 ff14c3 ff1500000000".split()
        ),
    ]
    code = bytearray()
    while len(code) < 4000:
        if rng.random() < 0.5:
            code += rng.choice(parts)
        code += b"".join(pops if rng.random() < 0.7 else rng.sample(pops, rng.randrange(len(pops) + 1)))
        code += rng.choice(parts)
    cuts = sorted(rng.sample(range(len(code)), 4))
    functions = [(a, b - a, pushed, allocated) for a, b in pairwise(cuts)]
    found = found_in(bytes(code), functions, shift=0x1000)
    assert found is not None
    assert [at for at, _, _ in found] == sorted(at for at, _, _ in found)
    assert set(found) == expected_in(bytes(code), functions)


def test_too_many() -> None:
    code = b"\x5b\xc3" * 100
    whole = [(0, len(code), (), 0)]
    assert found_in(code, whole, most=199) is None
    assert len(found_in(code, whole, most=200) or ()) == 200
    jumps = b"\x5b\xeb\0" * 100
    assert found_in(jumps, [(0, len(jumps), (3,), 0)], most=199) is None


def test_nothing() -> None:
    assert found_in(b"", []) == []
    assert found_in(b"\x90" * 10, [(0, 10, (), 0), (3, 0, (3,), 8)]) == []
