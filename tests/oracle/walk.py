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
from oracle.prologue import saved_by

if TYPE_CHECKING:
    from synth.stacks import Image, Rule, World

NO_CALLER, END, BASE, LIMIT, NO_CONTEXT, NO_STACK = range(6)
SCAN, FRAME_POINTER, CFI, CONTEXT = 1, 3, 4, 5
PARAMETERS = 9
HEADER = 64


@dataclass
class Frame:
    """A frame as the kernel's columns have it; ``sp`` is None where it is not known."""

    pc: int
    sp: int | None
    is_return: bool
    module: int
    trust: int


def walk(
    world: World, *, max_frames: int, max_total: int, scan_words: int, scan_words_first: int, scan_words_calls: int
) -> tuple[list[list[Frame]], list[int]]:
    """Return each thread's frames, and why each ended."""
    threads: list[list[Frame]] = []
    stops: list[int] = []
    left = max_total
    for registers in world.threads:
        walker = _Walker(world, dict(registers), (scan_words, scan_words_first, scan_words_calls))
        stops.append(walker.run(min(max_frames, left)))
        threads.append(walker.frames)
        left -= len(walker.frames)
    return threads, stops


def _last(column: list[tuple[int, Any]], rva: int) -> Any:
    i = bisect_right([key for key, _ in column], rva) - 1
    return column[i][1] if i >= 0 else None


class _Walker:
    def __init__(self, world: World, registers: dict[int, int], limits: tuple[int, int, int]) -> None:
        self.world = world
        self.regs = registers
        self.layout = REGISTER_SETS[world.arch]
        self.rules = ARCHITECTURES[world.arch].RULES
        self.callee_saved = {self.layout.index(name) for name in self.rules.callee_saved}
        self.scan_words, self.scan_words_first, self.scan_words_calls = limits
        self.chains = [(self.layout.index(name), *offsets) for name, *offsets in self.rules.chains]
        self.trust = CONTEXT
        self.is_return = False
        self.chained = False
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
            if self.world.arch == "x86":
                self.regs.setdefault(PARAMETERS, 0)
            rule: Rule | None = None
            if image is not None:
                rva = look - image.start
                if any(start <= rva < end for start, end in image.base):
                    return BASE
                rule = _last(image.rows, rva)
            found: tuple[dict[int, int], int] | None = None
            if not self.is_return and image is not None and self.world.arch == "x86":
                found = self.epilogue(pc, sp, image)
                rule = rule if found is None else None
            if rule is not None:
                if rule.signal:
                    self.frames[-1].is_return = False
                if rule.end:
                    return END
                caller = self.searched(rule) if rule.search else self.apply(rule)
                if caller is not None and self.moved(rule, caller, pc, sp):
                    if caller[layout.pc] < 4096 and not rule.signal:
                        return END if caller[layout.pc] == 0 else NO_CALLER
                    found = caller, CFI
            if found is None and not self.is_return and rule is None and self.is_wild(pc, image):
                found = self.wild_call(sp)
            if found is None and not self.is_return and rule is None:
                found = self.leaf(pc, image)
            linked = False
            if found is None and rule is None:
                found = self.prologue(pc, sp, image)
            if found is None and not (rule is not None and self.trust == CFI):
                found, ended = self.frame_pointer(sp)
                linked = found is not None
                if ended and rule is None:
                    return END
            if found is None:
                if self.range_of(sp) is None:
                    return NO_STACK
                found = self.scan(sp)
            if found is None:
                return NO_CALLER
            self.regs, self.trust = found
            self.chained = linked
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

    def may_execute(self, address: int) -> bool:
        if not self.world.regions:
            return True
        return any(start <= address < end and access & 4 for start, end, access in self.world.regions)

    def executable(self, address: int, image: Image) -> bool:
        if not self.may_execute(address):
            return False
        return not image.text or any(start <= address - image.start < end for start, end in image.text)

    def plausible(self, address: int) -> int:
        """Say whether a word on a stack may be a return address: 2 for one that follows a call."""
        _, image = self.image_at(address - 1)
        if image is None or not self.executable(address - 1, image):
            return 0
        rva = address - 1 - image.start
        if rva < HEADER:
            return 0
        named, ruled = bool(_last(image.names, rva)), _last(image.rows, rva) is not None
        if (image.names or image.rows) and not named and not ruled:
            return 0
        called = self.follows_call(address, image)
        return int(rva + 1 not in image.entries) if called is None else 2 * called

    def code(self, address: int, size: int, image: Image) -> int | None:
        """Return code as a number: the report's, else the file's."""
        value = self.world.read(address, size)
        for rva, data in image.code if value is None else ():
            at = address - image.start - rva
            if at >= 0 and at + size <= len(data):
                return int.from_bytes(data[at : at + size], "little")
        return value

    def follows_call(self, address: int, image: Image) -> bool | None:
        """Say whether the instruction before an address is a call, None where that can't be told."""
        if self.rules.call == "x86":
            before = self.code(address - 8, 8, image)
            if before is None:
                return None
            code8 = before.to_bytes(8, "little")
            return code8[-5] == 0xE8 or any(code8[-n] == 0xFF and _call_length(code8[-n:]) == n for n in range(2, 8))
        code = self.code(address - 4, 4, image)
        if code is None:
            return None
        bits = f"{code:032b}"
        if self.rules.call == "arm64":
            # BL imm26; BLR, BLRAA, BLRAB, BLRAAZ, BLRABZ
            return bits[:6] == "100101" or (bits[:7] == "1101011" and bits[8:20] == "001111110000")
        if bits[4:8] == "1011" or bits[:7] == "1111101" or bits[4:28] == "000100101111111111110011":
            return True  # BL, BLX imm; BLX reg
        first, second = bits[16:], bits[:16]  # Thumb: the halfword at the lower address comes first.
        if first[:5] == "11110" and second[:2] == "11":
            return True
        if second[:9] == "010001111" and second[13:] == "000":
            return True
        previous = self.code(address - 8, 4, image)
        return previous is not None and f"{previous:032b}"[4:] == "0001101000001110000000001111"

    # --- Steps ---

    def moved(self, rule: Rule, caller: dict[int, int], pc: int, sp: int) -> bool:
        layout = self.layout
        now = caller.get(layout.sp, self.cfa)
        leaf = now == sp and layout.lr >= 0 and not self.is_return and caller[layout.pc] != pc
        return rule.signal or now > sp or leaf

    def value(self, code: bytes, cfa: int | None) -> int | None:
        world = self.world
        return evaluate(code, word=world.word, registers=self.regs, cfa=cfa, read=world.read)

    def searched(self, rule: Rule) -> dict[int, int] | None:
        """Apply a rule whose return address may lie up to three words further up."""
        for _ in range(4):
            caller = self.apply(rule)
            if caller is None or self.plausible(caller[self.layout.pc]):
                return caller
            self.regs[PARAMETERS] = self.regs.get(PARAMETERS, 0) + self.world.word
        return None

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
        for chain in self.chains:
            record = self.link(self.regs.get(chain[0]), chain)
            if record is not None and record[1] == target:
                return None
        caller = {r: v for r, v in self.regs.items() if r != layout.lr}
        return {**caller, layout.pc: target}, FRAME_POINTER

    def epilogue(self, pc: int, sp: int, image: Image) -> tuple[dict[int, int], int] | None:
        """Run what is left of a function, where that is nothing but taking its frame away and returning."""
        regs, at = dict(self.regs), pc
        for _ in range(12):
            raw = self.code(at, 1, image)
            if raw is None:
                return None
            two = self.code(at + 1, 1, image)
            pair = (raw, -1 if two is None else two)
            if raw in {0xC2, 0xC3}:
                target, dropped = self.load(regs[4]), self.code(at + 1, 2, image) if raw == 0xC2 else 0
                if target is None or dropped is None or not self.plausible(target):
                    return None
                top = (regs[4] + 4 + dropped) % (1 << 32)
                return ({**regs, 4: top, 8: target}, CFI) if top > sp else None
            if raw in range(0x58, 0x60) and raw != 0x5C:
                value = self.load(regs[4])
                if value is None:
                    return None
                regs |= {4: (regs[4] + 4) % (1 << 32), raw - 0x58: value}
                at += 1
            elif raw == 0xC9 or pair in {(0x8B, 0xE5), (0x89, 0xEC), (0x8D, 0x65), (0x8D, 0xA5)}:
                if 5 not in regs:
                    return None
                if raw == 0xC9:
                    value = self.load(regs[5])
                    if value is None:
                        return None
                    regs |= {4: (regs[5] + 4) % (1 << 32), 5: value}
                    at += 1
                elif raw != 0x8D:
                    regs[4] = regs[5]
                    at += 2
                else:
                    size = 1 if pair[1] == 0x65 else 4
                    moved = self.signed(at + 2, size, image)
                    if moved is None:
                        return None
                    regs[4] = (regs[5] + moved) % (1 << 32)
                    at += 2 + size
            elif pair in {(0x83, 0xC4), (0x81, 0xC4)}:
                size = 1 if raw == 0x83 else 4
                moved = self.signed(at + 2, size, image)
                if moved is None:
                    return None
                regs[4] = (regs[4] + moved) % (1 << 32)
                at += 2 + size
            else:
                return None
        return None

    def signed(self, at: int, size: int, image: Image) -> int | None:
        value = self.code(at, size, image)
        return None if value is None else value - (value >> 8 * size - 1 << 8 * size)

    def prologue(self, pc: int, sp: int, image: Image | None) -> tuple[dict[int, int], int] | None:
        """Undo what the function's first instructions did, where a call leads to what they saved."""
        if self.rules.call != "arm" or image is None:
            return None
        before = [e for e in image.entries if e <= pc - image.start]
        if not before:
            return None
        for thumb in (True, False):
            found = saved_by(lambda a, n: self.code(a, n, image), image.start + before[-1], pc, thumb=thumb)
            if found is None or 14 not in found[1]:
                continue
            size, where = found
            raw = self.load(sp + size - where[14])
            if raw is None:
                continue
            target = raw & self.world.mask
            _, there = self.image_at(target - 1)
            if there is None or not self.executable(target - 1, there) or not self.follows_call(target, there):
                continue
            caller = {r: v for r, v in self.regs.items() if 4 <= r < 12}
            for register in range(4, 12):
                if register in where:
                    value = self.load(sp + size - where[register])
                    if value is None:
                        caller.pop(register, None)
                    elif register in caller:
                        caller[register] = value
            if sp + size <= sp:
                return None
            return {**caller, 13: sp + size, 15: target}, FRAME_POINTER
        return None

    def link(self, fp: int | None, chain: tuple[int, int, int, int]) -> tuple[int, int] | None:
        """Return what a frame record holds: the caller's frame pointer, the return address."""
        if fp is None:
            return None
        saved, target = (self.load((fp + offset) % (1 << 64)) for offset in chain[1:3])
        return None if saved is None or target is None else (saved, target & self.world.mask)

    def holds(self, fp: int, chain: tuple[int, int, int, int]) -> bool:
        record = self.link(fp, chain)
        return record is not None and (record[1] == 0 or self.plausible(record[1]) > 0)

    def ascends(self, fp: int, saved: int, chain: tuple[int, int, int, int]) -> bool:
        return saved >= fp + chain[3] and self.range_of(saved) == self.range_of(fp)

    def leads_home(self, fp: int, target: int, chain: tuple[int, int, int, int]) -> bool:
        """Follow a chain through code of no module, until it is in a module again."""
        for _ in range(64):
            if target < 4096 or self.image_at(target)[1] is not None or not self.may_execute(target):
                return False
            record = self.link(fp, chain)
            if record is None or not self.ascends(fp, record[0], chain):
                return False
            fp = record[0]
            record = self.link(fp, chain)
            if record is None:
                return False
            target = record[1]
            if self.plausible(target):
                return True
        return False

    def frame_pointer(self, sp: int) -> tuple[tuple[dict[int, int], int] | None, bool]:
        """Return the caller by the first chain that holds, and whether the chain is at its end instead."""
        layout = self.layout
        established = self.chained
        for chain in self.chains:
            fp = self.regs.get(chain[0])
            if established and fp == 0:
                return None, True
            record = self.link(fp, chain)
            if fp is None or fp < sp or record is None:
                continue
            saved, target = record
            if established and target == 0:
                return None, True
            ascends = self.ascends(fp, saved, chain)
            if self.world.strict and not established:
                ascends = ascends and self.holds(saved, chain)
            elif saved == 0:
                ascends = True
            if not ascends:
                continue
            if not self.plausible(target) and not (saved and self.leads_home(fp, target, chain)):
                continue
            return ({layout.pc: target, layout.sp: fp + chain[3], chain[0]: saved}, FRAME_POINTER), False
        return None, False

    def scan(self, sp: int) -> tuple[dict[int, int], int] | None:
        layout, word = self.layout, self.world.word
        words = self.scan_words_first if self.trust in {CONTEXT, CFI} else self.scan_words
        second_best: dict[int, int] | None = None
        for i in range(self.scan_words_calls):
            slot = sp + i * word
            target = self.load(slot)
            if target is None or (i >= words and second_best):
                break
            if self.rules.slot >= 0 and slot % 16 != self.rules.slot:
                continue
            target &= self.world.mask
            likely = self.plausible(target) if target >= 4096 else 0
            if not likely or (likely == 1 and i >= words):
                continue
            fp, leads_on = self.callers_frame_pointer(slot)
            caller = {layout.pc: target, layout.sp: slot + word, **({} if fp is None else {layout.fp: fp})}
            if self.rules.resync and likely == 1 and not leads_on and (i or self.trust != CONTEXT):
                second_best = second_best or caller
                continue
            return caller, SCAN
        return None if second_best is None else (second_best, SCAN)

    def callers_frame_pointer(self, slot: int) -> tuple[int | None, bool]:
        """Return the frame pointer above a return address, and whether it leads to a record."""
        word, chain = self.world.word, self.chains[0]
        fp = self.regs.get(self.layout.fp)
        if fp is not None and fp == slot - word:
            saved = self.load(fp)
            if saved is not None:
                return saved, self.holds(saved, chain)
        elif fp is not None and fp >= slot + word:
            return fp, self.holds(fp, chain)
        if self.rules.resync:
            below = self.load(slot - word)
            if (
                below is not None
                and slot < below <= slot + (128 << 10)
                and self.range_of(below) == self.range_of(slot)
                and self.holds(below, chain)
            ):
                return below, True
        return None, False


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
