"""The rule pass: what stack-trace rules say of the frames of many stacks at once.

Rules run from the first to the last, each over all frames of a stack. What a rule asks of a frame's names is the same
wherever that symbol stands, so it was answered once a distinct symbol (grouping/program.py): symbols that all rules
treat alike are of one *class*. What is left for each stack are questions about state, which rules change as they go
(is it the application's own, which category), and about neighbours.

A program is a list of steps. A step is either a run of rules that ask nothing but names and change their own frame
only, joined to one effect a class; or one rule. A class has a bit for each step that it matters to, in each of the
three roles: the frame itself, its caller, its callee. The bits of a stack's frames joined tell which steps to run at
all: few of hundreds.

Effects are two masks: ``state = state & keep | set``. A state is u16: see the constants.

The oracle is tests/oracle/marks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "APP",
    "APP_SHIFT",
    "CATEGORY_SHIFT",
    "CONDITIONS",
    "COUNTS",
    "GROUP_SHIFT",
    "IN_APP",
    "JOINED",
    "MAX_CATEGORIES",
    "NAMED",
    "NO",
    "PREFIX",
    "SCAN",
    "SENTINEL",
    "STEP",
    "STRAY",
    "SYSTEM",
    "UNSAID",
    "YES",
    "Program",
    "choose",
    "run_rules",
]

# A state: two bits whether it is the application's own, eight of category (0: none), two whether it counts.
UNSAID, NO, YES = 0, 1, 2
APP_SHIFT, CATEGORY_SHIFT, GROUP_SHIFT = 0, 2, 10
SENTINEL, PREFIX = 1 << 12, 1 << 13
MAX_CATEGORIES = 255
CONDITIONS = 1 << GROUP_SHIFT
"""Length of a condition: one byte for each value of what rules can ask of a state."""

# A mark: what the kernels of tokens.py select by.
SYSTEM, APP, IN_APP = 1, 2, 4
"""Counts among all frames; counts among the application's own; is the application's own."""

# Traits of a frame: it has a name; it has neither name nor module; it was found by scanning the stack.
NAMED, STRAY, SCAN = 1, 2, 4
COUNTS = 1
"""The mark that ``choose`` leaves."""

JOINED = -1
"""In place of a step's first condition: it is a run of rules that were joined."""
# Columns of a step: conditions on the frame, its caller and its callee (-1: no such question; JOINED and the row of the
# effects), what is kept and set of the frame itself, of those nearer to the crash and of those nearer to the start,
# the most and the fewest frames that count (-1: not said), and whether it says anything of other frames.
STEP = 12
_FRAME, _CALLER, _CALLEE, _KEEP, _SET, _KEEP_UP, _SET_UP, _KEEP_DOWN, _SET_DOWN, _MOST, _FEWEST, _RANGED = range(STEP)

_LOWEST = np.zeros(64, np.uint8)
_DE_BRUIJN = np.uint64(0x03F7_9D71_B4CB_0A89)
for _bit in range(64):
    _LOWEST[((0x03F7_9D71_B4CB_0A89 << _bit) & ((1 << 64) - 1)) >> 58] = _bit
_ONE, _S58 = np.uint64(1), np.uint64(58)


@dataclass(frozen=True, slots=True)
class Program:
    """Rules, compiled for the classes of symbols known so far."""

    steps: NDArray[np.int32]
    """i32[steps, STEP]."""
    masks: NDArray[np.uint64]
    """u64[classes, 3, words]: the steps that matter to a class as the frame itself, as a caller, as a callee."""
    effects: NDArray[np.uint16]
    """u16[classes, joined, 2]: what a class keeps and sets in each run of joined rules."""
    conditions: NDArray[np.uint8]
    """u8[conditions, CONDITIONS]: whether a state will do."""
    gates: NDArray[np.uint64]
    """u64[gates, words]: the steps that may run at all, for each kind of exception."""

    def listing(self) -> tuple[NDArray[np.uint64], int]:
        """Return the bits of the joined steps, and how many other steps may match one frame, in one word at most."""
        joined = np.zeros(self.masks.shape[2], np.uint64)
        for step in np.flatnonzero(self.steps[:, _FRAME] == JOINED).tolist():
            joined[step >> 6] |= _ONE << np.uint64(step & 63)
        apart = self.masks[:, 0] & ~joined
        bits = np.unpackbits(apart.view(np.uint8).reshape(*apart.shape, 8), axis=-1)
        return joined, int(bits.sum(axis=-1).max(initial=0))

    def check(self) -> None:
        """Raise ValueError where the tables contradict each other: the kernel trusts them."""
        words, joined = self.masks.shape[2], self.effects.shape[1]
        first = self.steps[:, _FRAME] != JOINED
        limits = (len(self.conditions), len(self.conditions), len(self.conditions))
        if self.masks.shape[:2] != (len(self.effects), 3) or self.gates.shape[1:] != (words,):
            raise ValueError("expected as many classes and words everywhere")
        if len(self.steps) > 64 * words or self.conditions.shape[1:] != (CONDITIONS,):
            raise ValueError("expected a bit for each step and a byte for each state")
        for column, limit in zip((_FRAME, _CALLER, _CALLEE), limits, strict=True):
            if len(self.steps) and bool((self.steps[first, column] >= limit).any()):
                raise ValueError("expected conditions that exist")
        rows = self.steps[~first, _CALLER]
        if len(rows) and (int(rows.max()) >= joined or int(rows.min()) < 0):
            raise ValueError("expected effects that exist")
        used = np.zeros(words, np.uint64)
        for step in range(len(self.steps)):
            used[step >> 6] |= _ONE << np.uint64(step & 63)
        if bool((self.masks & ~used).any()):
            raise ValueError("expected bits of steps that exist")


@kernel(inline=True)
def _apply(states, at, keep, gives):
    states[at] = np.uint16((np.int64(states[at]) & keep) | gives)


@kernel(inline=True)
def _matches(step, word, bit, i, n, first, kinds, masks, conditions, states):
    """Tell whether a step matches frame i, of which it is known that its names do."""
    if conditions[step[_FRAME], states[first + i] & (CONDITIONS - 1)] == 0:
        return False
    condition = step[_CALLER]
    if condition >= 0:
        if i + 1 == n or masks[kinds[i + 1], 1, word] & bit == np.uint64(0):
            return False
        if conditions[condition, states[first + i + 1] & (CONDITIONS - 1)] == 0:
            return False
    condition = step[_CALLEE]
    if condition >= 0:
        if i == 0 or masks[kinds[i - 1], 2, word] & bit == np.uint64(0):
            return False
        if conditions[condition, states[first + i - 1] & (CONDITIONS - 1)] == 0:
            return False
    return True


@kernel(inline=True)
def _marks_of(state):
    app = (np.int64(state) >> APP_SHIFT) & 3
    group = (np.int64(state) >> GROUP_SHIFT) & 3
    mark = SYSTEM if group != NO else 0
    mark |= APP if group == YES or (group != NO and app == YES) else 0
    return mark | (IN_APP if app == YES else 0)


@kernel(
    types.void(
        array(types.int64, readonly=True),
        array(types.uint32, readonly=True),
        array(types.uint32, readonly=True),
        array(types.uint32, readonly=True),
        array(types.int32, 2, readonly=True),
        array(types.uint64, 3, readonly=True),
        array(types.uint16, 3, readonly=True),
        array(types.uint8, 2, readonly=True),
        array(types.uint64, 2, readonly=True),
        array(types.uint64, readonly=True),
        array(types.int32, 2),
        array(types.int32),
        array(types.uint16),
        array(types.uint8),
    )
)
def _run(
    offsets, symbols, class_of, gate_of, steps, masks, effects, conditions, gates, joined, room, heads, states, marks
):
    """Run the program over each stack; fill ``states`` (which come with what is known before) and ``marks``.

    ``heads`` (all -1) and the second and third row of ``room`` are lists of the frames that each step may match,
    outermost first: most steps of a stack have one or two.
    """
    words = masks.shape[2]
    kinds = room[0]
    following = room[1]
    listed = room[2]
    hits = room[3]
    for s in range(len(offsets) - 1):
        first = offsets[s]
        n = offsets[s + 1] - first
        for i in range(n):
            kinds[i] = class_of[symbols[first + i]]
        most = np.int64(-1)
        fewest = np.int64(-1)
        for word in range(words):
            gate = gates[gate_of[s], word]
            apart = gate & ~joined[word]
            present = np.uint64(0)
            used = 0
            for i in range(n):
                mask = masks[kinds[i], 0, word]
                present |= mask
                mask &= apart
                while mask != np.uint64(0):
                    bit = mask & (~mask + _ONE)
                    mask ^= bit
                    number = np.int64(_LOWEST[(bit * _DE_BRUIJN) >> _S58])
                    listed[used] = i
                    following[used] = heads[number]
                    heads[number] = used
                    used += 1
            present &= gate
            while present != np.uint64(0):
                bit = present & (~present + _ONE)
                present ^= bit
                number = np.int64(_LOWEST[(bit * _DE_BRUIJN) >> _S58])
                step = steps[word * 64 + number]
                if step[_FRAME] == JOINED:
                    row = step[_CALLER]
                    for i in range(n):
                        kind = kinds[i]
                        _apply(states, first + i, np.int64(effects[kind, row, 0]), np.int64(effects[kind, row, 1]))
                    continue
                # All frames are asked before the first is changed: a rule doesn't see its own work.
                at = np.int64(heads[number])
                heads[number] = -1
                found = 0
                while at >= 0:
                    i = np.int64(listed[at])
                    at = np.int64(following[at])
                    if _matches(step, word, bit, i, n, first, kinds, masks, conditions, states):
                        hits[found] = i
                        found += 1
                if found == 0:
                    continue
                # Frame by frame from the outermost match on; for one frame that is these three in order, and linear.
                if step[_RANGED] != 0:
                    for i in range(np.int64(hits[0])):
                        _apply(states, first + i, np.int64(step[_KEEP_UP]), np.int64(step[_SET_UP]))
                for hit in range(found):
                    _apply(states, first + np.int64(hits[hit]), np.int64(step[_KEEP]), np.int64(step[_SET]))
                if step[_RANGED] != 0:
                    for i in range(np.int64(hits[found - 1]) + 1, n):
                        _apply(states, first + i, np.int64(step[_KEEP_DOWN]), np.int64(step[_SET_DOWN]))
                if step[_MOST] >= 0:
                    most = np.int64(step[_MOST])
                if step[_FEWEST] >= 0:
                    fewest = np.int64(step[_FEWEST])
        for i in range(first, first + n):
            marks[i] = np.uint8(_marks_of(states[i]))
        if most < 0 and fewest <= 0:
            continue
        for variant in (SYSTEM, APP):
            count = 0
            for i in range(first, first + n):
                if marks[i] & variant:
                    count += 1
                    if 0 <= most < count:
                        marks[i] &= ~np.uint8(variant)
            if most >= 0:
                count = min(count, most)
            if count < fewest:
                for i in range(first, first + n):
                    marks[i] &= ~np.uint8(variant)


def run_rules(
    program: Program,
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint32],
    class_of: NDArray[np.uint32],
    gate_of: NDArray[np.uint32],
    states: NDArray[np.uint16],
) -> NDArray[np.uint8]:
    """Return u8[frames], the marks that the rules leave on each frame; ``states`` are changed in place.

    ``symbols`` u32[frames] are rows of ``class_of`` u32[symbols], ``gate_of`` u32[stacks] rows of the program's gates.
    ``states`` u16[frames] come with what is known beforehand: ``YES << APP_SHIFT`` where the frame is the application's
    own, NO where it is not. Raises ValueError where the columns contradict each other.
    """
    classes = len(program.masks)
    if len(symbols) != len(states) or not len(offsets) or offsets[0] < 0 or offsets[-1] > len(symbols):
        raise ValueError("expected as many states as frames, and offsets within them")
    if bool((offsets[1:] < offsets[:-1]).any()) or len(gate_of) != len(offsets) - 1:
        raise ValueError("expected offsets that rise, and a gate for each stack")
    if (len(symbols) and int(symbols.max()) >= len(class_of)) or (len(class_of) and int(class_of.max()) >= classes):
        raise ValueError("expected a class for each symbol")
    if len(gate_of) and int(gate_of.max()) >= len(program.gates):
        raise ValueError("expected gates of the program")
    marks = np.zeros(len(symbols), np.uint8)
    longest = int(np.diff(offsets).max(initial=0))
    joined, bits = program.listing()
    room = np.empty((4, max(longest * max(bits, 1), 1)), np.int32)
    heads = np.full(64, -1, np.int32)
    _run(
        *(offsets, symbols, class_of, gate_of, program.steps, program.masks, program.effects, program.conditions),
        *(program.gates, joined, room, heads, states, marks),
    )
    return marks


@kernel(
    types.void(
        array(types.int64, readonly=True),
        array(types.uint16, readonly=True),
        array(types.uint8, readonly=True),
        array(types.uint8),
    )
)
def _choose(offsets, states, traits, marks):
    """Mark the frames that count in native128; see ``choose``."""
    for s in range(len(offsets) - 1):
        named = False
        own_named = False
        own = False
        for i in range(offsets[s], offsets[s + 1]):
            state = np.int64(states[i])
            trait = np.int64(traits[i])
            if (state >> GROUP_SHIFT) & 3 == NO:
                continue
            mine = (state >> APP_SHIFT) & 3 == YES and trait & SCAN == 0
            named |= trait & NAMED != 0
            own |= mine
            own_named |= mine and trait & NAMED != 0
        ours = own_named if named else own
        for i in range(offsets[s], offsets[s + 1]):
            state = np.int64(states[i])
            trait = np.int64(traits[i])
            group = (state >> GROUP_SHIFT) & 3
            scan = trait & SCAN != 0
            if trait & STRAY != 0:
                counts = False
            elif group != UNSAID:
                counts = group == YES
            elif trait & NAMED == 0 and (scan or named):
                counts = False
            else:
                counts = not ours or ((state >> APP_SHIFT) & 3 == YES and not scan)
            marks[i] = COUNTS if counts else 0


def choose(offsets: NDArray[np.int64], states: NDArray[np.uint16], traits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return u8[frames], COUNTS for each frame that counts in native128 after rules left these states.

    A frame without name and module never does; what rules say of ``group`` holds; one without a name counts where none
    of its stack has one and it is no guess; where a frame is certainly the application's own, only such do.
    """
    if len(states) != len(traits) or not len(offsets) or offsets[0] < 0 or offsets[-1] > len(states):
        raise ValueError("expected as many traits as states, and offsets within them")
    if bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError("expected offsets that rise")
    marks = np.zeros(len(states), np.uint8)
    _choose(offsets, states, traits, marks)
    return marks
