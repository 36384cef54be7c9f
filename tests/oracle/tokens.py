"""Fingerprints, cycles of calls and sketches in plain Python, by their definitions."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4D)
M64 = 2**64


def digest(tag: str, text: str) -> tuple[int, int]:
    data = text.encode("utf-8", "surrogatepass")
    found = hashlib.blake2b(
        tag.encode() + len(data).to_bytes(4, "little") + data, digest_size=16, person=b"native128"
    ).digest()
    return int.from_bytes(found[:8], "little"), int.from_bytes(found[8:], "little")


def mix(x: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x ^= x >> 33
        x = x * factor % M64
    return x ^ x >> 33


def combine(halves: Sequence[tuple[int, int]]) -> tuple[int, int]:
    low, high = (
        sum(pair[lane] * pow(FACTORS[lane], i, M64) for i, pair in enumerate(halves)) % M64 ^ len(halves)
        for lane in (0, 1)
    )
    low = (low + high) % M64
    high = (high + low) % M64
    low, high = mix(low), mix(high)
    low = (low + high) % M64
    return low, (high + low) % M64


def fingerprint(fields: Sequence[tuple[str, str]]) -> str:
    low, high = combine([digest(tag, text) for tag, text in fields])
    return (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex()


def without_runs(texts: Sequence[int]) -> list[int]:
    return [text for i, text in enumerate(texts) if i == 0 or texts[i - 1] != text]


def first_rounds(texts: Sequence[int], longest: int) -> list[int]:
    """Return the positions that are left; whenever the last n texts equal the n before them, they go."""
    left: list[int] = []
    for position in range(len(texts)):
        left.append(position)
        for n in range(1, longest + 1):
            told = [texts[i] for i in left]
            if len(told) >= 2 * n and told[-n:] == told[-2 * n : -n]:
                del left[-n:]
                break
    return left


def sketch(lows: Sequence[int]) -> list[int]:
    rng = random.Random(0x64656164)
    factors = [rng.getrandbits(32) | 1 for _ in range(64)]
    return [min([low * factor % 2**32 for low in lows], default=2**32 - 1) for factor in factors]
