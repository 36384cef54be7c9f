"""Columns of many stacks at once: which frames count, one 128-bit fingerprint a stack, one sketch a stack.

A batch is in CSR form: the frames of stack ``s``, innermost first, are ``offsets[s]:offsets[s + 1]`` of the frame
columns. A frame's text is a number, its row in a table of 128-bit digests (two u64: low and high half); what counts is
told by bits of its mark. Whoever interns texts (grouping/columns.py) does the expensive part once a distinct text.

*Fingerprint.* The low halves of the digests of a stack's fields are the coefficients of one polynomial, the high halves
of another: the sums of ``half[i] * FACTOR**i`` in 64 bits. Then the number of fields goes into both, and they are
mixed, each step of which can be undone. A field's digest is of its tag, its length and its bytes, so no two lists of
fields give the same input. It is quick and not made to withstand forgery: whoever can choose names can also choose
someone else's.

*Sketch.* MinHash (Broder 1997) with 64 functions ``x * A[k]`` of 32 bits, A odd, over the low words of the digests of
the distinct texts that count: the share of equal entries of two sketches estimates the Jaccard index of the two sets.

The oracle is tests/oracle/tokens.py.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CYCLE", "FACTORS", "NO_TEXT", "SKETCH", "collapse", "fingerprints", "sketches"]

NO_TEXT = 0xFFFF_FFFF
"""A stack's head where it has none."""
SKETCH = 64
"""Entries of a sketch: its estimate is off by no more than 0.06 two times in three."""
CYCLE = 8
"""The longest cycle of calls that ``collapse`` sees."""

FACTORS = (0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4D)
"""Of the low and the high halves; both are 5 modulo 8, so that their powers differ in all but the lowest bits."""
_MIX_1, _MIX_2 = np.uint64(0xFF51_AFD7_ED55_8CCD), np.uint64(0xC4CE_B9FE_1A85_EC53)
_ONE, _TWO, _THREE, _FOUR, _S33 = (np.uint64(n) for n in (1, 2, 3, 4, 33))

_random = random.Random(0x6465_6164)  # noqa: S311  (constants of a sketch, which must stay the same for ever)
SKETCH_FACTORS = np.array([_random.getrandbits(32) | 1 for _ in range(SKETCH)], np.uint32)

_R64 = array(types.int64, readonly=True)
_RU32 = array(types.uint32, readonly=True)
_RU8 = array(types.uint8, readonly=True)
# Pairs of u64 in one row: for a second dimension numba multiplies by its length, which it does not know, each time.
_PAIRS = array(types.uint64, readonly=True)


@kernel(inline=True)
def _mix(x):
    """MurmurHash3's last step for 64 bits: every bit of the input moves half of the output's."""
    x = (x ^ (x >> _S33)) * _MIX_1
    x = (x ^ (x >> _S33)) * _MIX_2
    return x ^ (x >> _S33)


@kernel(
    types.void(
        _R64,
        _RU32,
        _RU8,
        _PAIRS,
        _RU32,
        types.uint8,
        types.uint8,
        types.int64,
        _PAIRS,
        array(types.uint32),
        array(types.uint64),
    )
)
def _fingerprints(offsets, texts, marks, digests, heads, mask, wanted, most, weights, kept, out):
    """Write the fingerprint of each stack; a frame counts where ``mark & mask == wanted``, at most ``most`` of them."""
    none = np.uint32(NO_TEXT)
    for s in range(len(heads)):
        a = np.uint64(0)
        b = np.uint64(0)
        head = heads[s]
        fields = np.uint64(0)
        if head != none:
            pair = np.uint64(head) << _ONE
            a = digests[pair]
            b = digests[pair | _ONE]
            fields = _ONE
        last = fields + np.uint64(most)
        # No helper takes the arrays: numba would count references to them for each stack, 5 ns each. And no branch asks
        # whether a frame counts: that is a coin toss, which a processor loses at 5 ns each.
        n = np.uint64(0)  # Unsigned: of an index that might be negative numba asks whether it is, each time.
        for i in range(np.uint64(offsets[s]), np.uint64(offsets[s + 1])):
            kept[n] = texts[i]
            n += np.uint64((marks[i] & mask) == wanted)
        before = none
        for i in range(n):
            text = kept[i]
            if text == before:
                continue
            if fields == last:
                break
            # Not by Horner's rule: there each product waits for the one before it.
            pair = np.uint64(text) << _ONE
            weight = fields << _ONE
            a += digests[pair] * weights[weight]
            b += digests[pair | _ONE] * weights[weight | _ONE]
            before = text
            fields += _ONE
        a ^= fields
        b ^= fields
        a += b
        b += a
        a = _mix(a)
        b = _mix(b)
        a += b
        b += a
        out[2 * s] = a
        out[2 * s + 1] = b


def fingerprints(
    offsets: NDArray[np.int64],
    texts: NDArray[np.uint32],
    marks: NDArray[np.uint8],
    digests: NDArray[np.uint64],
    heads: NDArray[np.uint32],
    *,
    mask: int = 0,
    wanted: int = 0,
    most: int = 1 << 40,
    out: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """Return u64[n, 2], the low and high half of each stack's fingerprint.

    ``heads`` u32[n] are the rows of a field before the frames, NO_TEXT where there is none. A frame that repeats the
    one counted before it counts once. ``out`` is written where it is given: fresh memory costs a tenth. Raises
    ValueError where the columns contradict each other.
    """
    _check(offsets, texts, marks, digests)
    known = heads[heads != NO_TEXT]
    if len(heads) != len(offsets) - 1 or (len(known) and int(known.max()) >= len(digests)):
        raise ValueError("expected a head for each stack, a row of the digests or NO_TEXT")
    out = _given(out, (len(offsets) - 1, 2), np.dtype(np.uint64))
    room = _room(offsets)
    weights = _weights(min(most, len(room)) + 1).reshape(-1)
    pairs = np.ascontiguousarray(digests, np.uint64).reshape(-1)
    _fingerprints(offsets, texts, marks, pairs, heads, mask, wanted, most, weights, room, out.reshape(-1))
    return out


@lru_cache(maxsize=2)
def _weights(count: int) -> NDArray[np.uint64]:
    """Return the powers of both factors, u64[count, 2]."""
    powers = np.ones((count, 2), np.uint64)
    powers[1:] = FACTORS
    return np.cumprod(powers, axis=0, dtype=np.uint64)


def _given(out: NDArray[Any] | None, shape: tuple[int, int], kind: np.dtype[Any]) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, kind)
    if out.shape != shape or out.dtype != kind or not out.flags.c_contiguous:
        raise ValueError(f"expected room for {shape} of {kind}")
    return out


def _check(
    offsets: NDArray[np.int64], texts: NDArray[np.uint32], marks: NDArray[np.uint8], digests: NDArray[np.uint64]
) -> None:
    if len(texts) != len(marks) or not len(offsets) or offsets[0] < 0 or offsets[-1] > len(texts):
        raise ValueError("expected as many marks as frames, and offsets within them")
    if len(offsets) > 1 and bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError("expected offsets that rise")
    if len(texts) and int(texts.max()) >= len(digests):
        raise ValueError("expected a digest for each text")


def _room(offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
    return np.empty(int(np.diff(offsets).max(initial=0)) + 4, np.uint32)


@kernel(types.int64(_R64, _RU32, array(types.uint8), array(types.uint32), types.uint8, types.uint8))
def _collapse(offsets, texts, marks, kept, mask, wanted):
    """Take the bits ``wanted`` off the marks of frames that repeat a cycle; return how many there were."""
    gone = 0
    for s in range(len(offsets) - 1):
        n = 0
        for i in range(offsets[s], offsets[s + 1]):
            if (marks[i] & mask) != wanted:
                continue
            text = texts[i]
            kept[n] = text
            n += 1
            for length in range(1, CYCLE + 1):
                if 2 * length > n:
                    break
                if kept[n - 1 - length] != text:
                    continue
                same = 1
                while same < length and kept[n - 1 - same] == kept[n - 1 - same - length]:
                    same += 1
                if same == length:
                    n -= length
                    gone += length
                    at = i  # The frames that go are the last ones that still count.
                    left = length
                    while left > 0:
                        if (marks[at] & mask) == wanted:
                            marks[at] = np.uint8(marks[at] & ~wanted)
                            left -= 1
                        at -= 1
                    break
    return gone


def collapse(
    offsets: NDArray[np.int64], texts: NDArray[np.uint32], marks: NDArray[np.uint8], *, mask: int, wanted: int
) -> int:
    """Leave one round of each cycle of calls: f g f g f g becomes f g, for cycles of up to CYCLE texts.

    Takes the bits ``wanted`` off the marks of the frames that repeat others, and returns how many they are. Going on
    from the innermost frame, whenever the last n of those that are left equal the n before them, they go.
    """
    if not wanted or wanted & ~mask or len(texts) != len(marks) or not len(offsets):
        raise ValueError("expected as many marks as frames, and bits that tell which count")
    if offsets[0] < 0 or offsets[-1] > len(texts) or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError("expected offsets that rise, within the frames")
    return int(_collapse(offsets, texts, marks, _room(offsets), np.uint8(mask), np.uint8(wanted)))


@kernel(
    types.void(
        _R64, _RU32, _RU8, _PAIRS, types.uint8, types.uint8, types.int64, array(types.uint32), array(types.uint32)
    )
)
def _sketches(offsets, texts, marks, digests, mask, wanted, most, kept, out):
    """Write the sketch of each stack; the inner loop is 64 lanes of a product and a minimum, for four texts at once."""
    for s in range(len(offsets) - 1):
        row = np.uint64(s * SKETCH)
        for k in range(np.uint64(SKETCH)):
            out[row + k] = np.uint32(0xFFFF_FFFF)
        chosen = np.uint64(0)
        for i in range(np.uint64(offsets[s]), np.uint64(offsets[s + 1])):
            kept[chosen] = texts[i]
            chosen += np.uint64((marks[i] & mask) == wanted)
        n = np.uint64(0)
        before = np.uint32(NO_TEXT)
        for i in range(chosen):
            text = kept[i]
            if text == before:
                continue
            if n == np.uint64(most):
                break
            before = text
            kept[n] = np.uint32(digests[np.uint64(text) << _ONE])
            n += _ONE
        if n == np.uint64(0):
            continue
        while n & _THREE != np.uint64(0):  # Once more the last one: the least of a set stays the least.
            kept[n] = kept[n - _ONE]
            n += _ONE
        for i in range(np.uint64(0), n, _FOUR):
            x0 = kept[i]
            x1 = kept[i + _ONE]
            x2 = kept[i + _TWO]
            x3 = kept[i + _THREE]
            for k in range(np.uint64(SKETCH)):
                factor = SKETCH_FACTORS[k]
                two = min(np.uint32(x0 * factor), np.uint32(x1 * factor))
                others = min(np.uint32(x2 * factor), np.uint32(x3 * factor))
                out[row + k] = min(out[row + k], two, others)


def sketches(
    offsets: NDArray[np.int64],
    texts: NDArray[np.uint32],
    marks: NDArray[np.uint8],
    digests: NDArray[np.uint64],
    *,
    mask: int = 0,
    wanted: int = 0,
    most: int = 1 << 40,
    out: NDArray[np.uint32] | None = None,
) -> NDArray[np.uint32]:
    """Return u32[n, SKETCH]: each stack's MinHash over the texts that count; all ones where none does.

    ``out`` is written where it is given: fresh memory costs a quarter. Raises ValueError where the columns contradict
    each other.
    """
    _check(offsets, texts, marks, digests)
    out = _given(out, (len(offsets) - 1, SKETCH), np.dtype(np.uint32))
    pairs = np.ascontiguousarray(digests, np.uint64).reshape(-1)
    _sketches(offsets, texts, marks, pairs, mask, wanted, most, _room(offsets), out.reshape(-1))
    return out
