"""The walker on Python integers: one thread at a time, one frame at a time, registers in a dictionary.

It follows the same rules of accepting a caller as kernels/unwind.py, written from their description there.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deadreckon.model.registers import REGISTER_SETS, WIDTH
from deadreckon.unwind.walk import ARCHITECTURES
from oracle.expression import evaluate

if TYPE_CHECKING:
    from synth.stacks import Image, Rule, World

NO_CALLER, END, BASE, LIMIT, NO_CONTEXT, NO_STACK = range(6)
SCAN, FRAME_POINTER, CFI, CONTEXT = 1, 3, 4, 5


@dataclass
class Frame:
    """A frame as the kernel's columns have it; ``sp`` is None where it is not known."""

    pc: int
    sp: int | None
    is_return: bool
    module: int
    trust: int


def walk(
    world: World, *, max_frames: int, max_total: int, scan_words: int, scan_words_first: int
) -> tuple[list[list[Frame]], list[int]]:
    """Return each thread's frames, and why each ended."""
    threads: list[list[Frame]] = []
    stops: list[int] = []
    left = max_total
    for registers in world.threads:
        walker = _Walker(world, dict(registers), scan_words, scan_words_first)
        stops.append(walker.run(min(max_frames, left)))
        threads.append(walker.frames)
        left -= len(walker.frames)
    return threads, stops


def _last(column: list[tuple[int, Any]], rva: int) -> Any:
    i = bisect_right([key for key, _ in column], rva) - 1
    return column[i][1] if i >= 0 else None


class _Walker:
    def __init__(self, world: World, registers: dict[int, int], scan_words: int, scan_words_first: int) -> None:
        self.world = world
        self.regs = registers
        self.layout = REGISTER_SETS[world.arch]
        self.rules = ARCHITECTURES[world.arch].RULES
        self.callee_saved = {self.layout.index(name) for name in self.rules.callee_saved}
        self.scan_words = scan_words
        self.scan_words_first = scan_words_first
        self.trust = CONTEXT
        self.is_return = False
        self.cfa = 0
        self.frames: list[Frame] = []

    def run(self, most: int) -> int:
        layout = self.layout
        if layout.pc not in self.regs:
            return NO_CONTEXT
        while True:
            if len(self.frames) >= most:
                return LIMIT
            pc, sp = self.regs[layout.pc], self.regs.get(layout.sp)
            look = pc - self.is_return
            module, image = self.image_at(look)
            self.frames.append(Frame(pc, sp, self.is_return, module, self.trust))
            if sp is None:
                return NO_STACK
            rule: Rule | None = None
            if image is not None:
                rva = look - image.start
                if any(start <= rva < end for start, end in image.base):
                    return BASE
                rule = _last(image.rows, rva)
            found: tuple[dict[int, int], int] | None = None
            if rule is not None:
                if rule.signal:
                    self.frames[-1].is_return = False
                if rule.end:
                    return END
                caller = self.apply(rule)
                if caller is not None and self.moved(rule, caller, pc, sp):
                    if caller[layout.pc] < 4096 and not rule.signal:
                        return END if caller[layout.pc] == 0 else NO_CALLER
                    found = caller, CFI
            if found is None and not self.is_return and rule is None and self.is_wild(pc, image):
                found = self.wild_call(sp)
            if found is None and not self.is_return and rule is None:
                found = self.leaf(pc, image)
            if found is None and not (rule is not None and self.trust == CFI):
                found = self.frame_pointer(sp)
            if found is None:
                if self.range_of(sp) is None:
                    return NO_STACK
                found = self.scan(sp)
            if found is None:
                return NO_CALLER
            self.regs, self.trust = found
            self.is_return = not (self.trust == CFI and rule is not None and rule.signal)

    # --- Memory, images ---

    def range_of(self, address: int) -> int | None:
        for i, (start, data) in enumerate(self.world.memory):
            if start <= address < start + len(data):
                return i
        return None

    def load(self, address: int) -> int | None:
        return self.world.read(address, self.world.word)

    def image_at(self, address: int) -> tuple[int, Image | None]:
        for i, image in enumerate(self.world.images):
            if image.start <= address < image.start + image.size:
                return i, image
        return -1, None

    def executable(self, address: int, image: Image) -> bool:
        if self.world.regions:
            access = [a for start, end, a in self.world.regions if start <= address < end]
            if not access or not access[0] & 4:
                return False
        return not image.text or any(start <= address - image.start < end for start, end in image.text)

    def plausible(self, address: int) -> bool:
        """Say whether a word on a stack may be a return address."""
        _, image = self.image_at(address - 1)
        if image is None or not self.executable(address - 1, image):
            return False
        rva = address - 1 - image.start
        if image.names:
            if not _last(image.names, rva):
                return False
        elif image.rows and _last(image.rows, rva) is None:
            return False
        called = self.follows_call(address)
        return rva + 1 not in image.entries if called is None else called

    def follows_call(self, address: int) -> bool | None:
        """Say whether the instruction before an address is a call, None where that can't be told."""
        if self.rules.call == "arm64":
            code = self.world.read(address - 4, 4)
            if code is None:
                return None
            bits = f"{code:032b}"
            # BL imm26; BLR, BLRAA, BLRAB, BLRAAZ, BLRABZ
            return bits[:6] == "100101" or (bits[:7] == "1101011" and bits[8:20] == "001111110000")
        before = self.world.read(address - 7, 7) if self.rules.call == "x86" else None
        if before is None:
            return None
        code7 = before.to_bytes(7, "little")
        return code7[-5] == 0xE8 or any(code7[-n] == 0xFF and _call_length(code7[-n:]) == n for n in range(2, 8))

    # --- Steps ---

    def moved(self, rule: Rule, caller: dict[int, int], pc: int, sp: int) -> bool:
        layout = self.layout
        now = caller.get(layout.sp, self.cfa)
        leaf = now == sp and layout.lr >= 0 and not self.is_return and caller[layout.pc] != pc
        return rule.signal or now > sp or leaf

    def value(self, code: bytes, cfa: int | None) -> int | None:
        world = self.world
        return evaluate(code, word=world.word, registers=self.regs, cfa=cfa, read=world.read)

    def apply(self, rule: Rule) -> dict[int, int] | None:
        modulus = 1 << 8 * self.world.word
        layout = self.layout
        cfa: int | None = None
        if rule.cfa[0] == "expr":
            assert isinstance(rule.cfa[1], bytes)
            cfa = self.value(rule.cfa[1], None)
        elif rule.cfa[1] in self.regs:
            cfa = (self.regs[int(rule.cfa[1])] + int(rule.cfa[2])) % modulus
        if cfa is None:
            return None
        self.cfa = cfa
        caller = {r: v for r, v in self.regs.items() if rule.signal or r in self.callee_saved}
        caller[layout.sp] = cfa
        return_address: int | None = None
        for register, (kind, value) in rule.saved.items():
            result: int | None = None
            if isinstance(value, bytes):
                result = self.value(value, cfa)
                if kind == "expr" and result is not None:
                    result = self.load(result)
            elif kind == "offset":
                result = self.load((cfa + value) % modulus)
            elif kind == "val_offset":
                result = (cfa + value) % modulus
            elif kind == "register":
                result = self.regs.get(value)
            elif kind == "same":
                result = self.regs.get(register)
            if result is None:
                caller.pop(register, None)
                if register == rule.ra:
                    return None
            else:
                caller[register] = result
                if register == rule.ra:
                    return_address = result
        if return_address is None:
            if layout.lr < 0 or rule.ra >= WIDTH or rule.ra not in self.regs:
                return None
            return_address = self.regs[rule.ra]
        caller[layout.pc] = return_address & self.world.mask
        if layout.lr >= 0 and rule.ra == layout.lr and not rule.signal:
            caller.pop(layout.lr, None)
        return caller

    def is_wild(self, pc: int, image: Image | None) -> bool:
        return image is None or not self.executable(pc, image)

    def wild_call(self, sp: int) -> tuple[dict[int, int], int] | None:
        layout = self.layout
        target = self.load(sp) if layout.lr < 0 else self.regs.get(layout.lr)
        if target is None or not self.plausible(target & self.world.mask):
            return None
        caller = {**self.regs, layout.pc: target & self.world.mask}
        if layout.lr < 0:
            caller[layout.sp] = sp + self.world.word
        return caller, SCAN

    def leaf(self, pc: int, image: Image | None) -> tuple[dict[int, int], int] | None:
        """Take the link register for the caller, unless it is left from a call this function made, or saved by now."""
        layout = self.layout
        if layout.lr < 0 or layout.lr not in self.regs or image is None or self.is_wild(pc, image):
            return None
        target = self.regs[layout.lr] & self.world.mask
        if not self.plausible(target):
            return None
        if image.start <= target - 1 < image.start + image.size:
            here, there = (sum(e <= a - image.start for e in image.entries) for a in (pc, target - 1))
            if here == there:
                return None
        fp = self.regs.get(layout.fp)
        if self.rules.frame_record and fp is not None:
            saved = self.load(fp + self.world.word)
            if saved is not None and saved & self.world.mask == target:
                return None
        caller = {r: v for r, v in self.regs.items() if r != layout.lr}
        return {**caller, layout.pc: target}, FRAME_POINTER

    def frame_pointer(self, sp: int) -> tuple[dict[int, int], int] | None:
        layout, word = self.layout, self.world.word
        fp = self.regs.get(layout.fp)
        if fp is None or not self.rules.frame_record or fp < sp:
            return None
        next_fp, target = self.load(fp), self.load(fp + word)
        if next_fp is None or target is None:
            return None
        chain = next_fp >= fp + 2 * word and self.range_of(next_fp) == self.range_of(fp)
        if not (chain or next_fp == 0) or not self.plausible(target & self.world.mask):
            return None
        return {layout.pc: target & self.world.mask, layout.sp: fp + 2 * word, layout.fp: next_fp}, FRAME_POINTER

    def scan(self, sp: int) -> tuple[dict[int, int], int] | None:
        layout, word = self.layout, self.world.word
        for i in range(self.scan_words_first if self.trust in {CONTEXT, CFI} else self.scan_words):
            slot = sp + i * word
            target = self.load(slot)
            if target is None:
                return None
            target &= self.world.mask
            if target < 4096 or not self.plausible(target):
                continue
            caller = {layout.pc: target, layout.sp: slot + word}
            fp = self.regs.get(layout.fp)
            if fp is not None and fp == slot - word:
                next_fp = self.load(fp)
                if next_fp is not None:
                    caller[layout.fp] = next_fp
            elif fp is not None and fp >= slot + word:
                caller[layout.fp] = fp
            return caller, SCAN
        return None


def _call_length(code: bytes) -> int | None:
    """Return the length of ``FF /2`` with its operand, None where it is another instruction (Intel SDM 2, 2.1.5)."""
    mode, operation, base = code[1] >> 6, code[1] >> 3 & 7, code[1] & 7
    if operation != 2:
        return None
    if mode == 3:
        return 2
    length = 2
    if base == 4:
        length += 1
        base = code[2] & 7 if len(code) > 2 else 0
    if mode == 0:
        return length + (4 if base == 5 else 0)
    return length + (1 if mode == 1 else 4)
