"""Windows' unwind records of 32-bit x86 as Breakpad writes them, ``STACK WIN``, to the words of ``STACK CFI``.

Source: Breakpad ``docs/symbol_files.md`` ("STACK WIN records"); the programs are the postfix language of DIA's
``IDiaFrameData::get_program``. A program is run once, on texts in place of numbers: what comes out says how each
register is found. What only the walk can know, the size of the callee's arguments, stays a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CALLEE_PARAMETERS", "FPO", "FRAME_DATA", "WinRecord", "lines", "records"]

FRAME_DATA, FPO = 4, 0
"""Records with a program, and records without (frame pointer omitted, the stack pointer counts)."""
CALLEE_PARAMETERS = ".cbCalleeParams"

_MAX_TOKENS = 64
_OUTPUTS = ("$eip", "$esp", "$ebp", "$ebx", "$esi", "$edi")
_NUMBER = re.compile(r"[-+]?\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WinRecord:
    """One record: what code it covers, and the sizes in bytes that describe the frame."""

    kind: int
    start: int
    size: int
    parameters: int
    saved_registers: int
    locals: int
    program: str
    allocates_base_pointer: bool

    def rule(self) -> str | None:
        """Return the record as the text of a STACK CFI rule, None where its program can't be understood.

        ``.params`` is this function's own arguments, ``.search`` that the return address may lie a little further up.
        """
        frame = self.locals + self.saved_registers
        found = self._run(frame) if self.kind == FRAME_DATA else self._without_program(frame)
        if found is None or "$eip" not in found or "$esp" not in found:
            return None
        cfa, eip = found["$esp"], found["$eip"]
        base, height = _sum(cfa)
        words = [".cfa:", *base, str(height), "+", ".ra:", *(_below(eip, cfa) or eip)]
        for name in _OUTPUTS[2:]:
            if name in found and found[name] != [name]:
                words += [f"{name}:", *(_below(found[name], cfa) or found[name])]
        words += [".params:", str(self.parameters)]
        return " ".join([*words, ".search:", "1"] if CALLEE_PARAMETERS in cfa else words)

    def _without_program(self, frame: int) -> dict[str, list[str]]:
        esp = ["$esp", str(frame), "+", CALLEE_PARAMETERS, "+"]
        found = {"$eip": [*esp, "^"], "$esp": [*esp, "4", "+"]}
        if self.allocates_base_pointer:
            found["$ebp"] = ["$esp", str(self.saved_registers - 8), "+", CALLEE_PARAMETERS, "+", "^"]
        return found

    def _run(self, frame: int) -> dict[str, list[str]] | None:
        search = ["$esp", str(frame), "+", CALLEE_PARAMETERS, "+"]
        if "@" in self.program:  # The function aligned its stack: only its frame pointer leads to the return address.
            search = ["$ebp", "4", "+"]
        constants = {
            ".raSearch": search,
            ".raSearchStart": search,
            ".cbParams": [str(self.parameters)],
            ".cbSavedRegs": [str(self.saved_registers)],
            ".cbLocals": [str(self.locals)],
        }
        variables: dict[str, list[str]] = {}
        stack: list[list[str]] = []

        def value(words: list[str]) -> list[str]:
            if len(words) == 1 and words[0] in variables:
                return variables[words[0]]
            return constants.get(words[0], words) if len(words) == 1 else words

        for word in re.sub(r"=(?=\S)", "= ", self.program).split():
            takes = {"^": 1}.get(word, 2 if word in {"+", "-", "*", "/", "%", "@", "="} else 0)
            if len(stack) < takes:
                return None
            if word == "=":
                right, left = value(stack.pop()), stack.pop()
                if len(left) != 1 or left[0][0] not in "$.":
                    return None
                variables[left[0]] = right
            elif takes:
                operands = stack[-takes:]
                del stack[-takes:]
                stack.append([w for operand in operands for w in value(operand)] + [word])
                if len(stack[-1]) > _MAX_TOKENS:
                    return None
            elif word[0] in "$." or _NUMBER.fullmatch(word):
                stack.append([word])
            else:
                return None
        return {name: variables[name] for name in _OUTPUTS if name in variables}


def _below(where: list[str], cfa: list[str]) -> list[str] | None:
    """Return a place in memory as an offset from the CFA, None where it isn't one that can be seen to be so."""
    if where[-1:] != ["^"]:
        return None
    base, offset = _sum(where[:-1])
    top, height = _sum(cfa)
    return [".cfa", str(offset - height), "+", "^"] if base == top else None


def _sum(words: list[str]) -> tuple[list[str], int]:
    """Split ``x N + P + M +`` into what isn't a number (x P +) and the sum of the numbers."""
    rest, total = list(words), 0
    while len(rest) >= 3 and rest[-1] in {"+", "-"} and _NUMBER.fullmatch(rest[-2]):
        total += int(rest[-2]) if rest[-1] == "+" else -int(rest[-2])
        del rest[-2:]
    if len(rest) == 5 and rest[2] == rest[4] == "+" and _NUMBER.fullmatch(rest[1]):
        total += int(rest[1])
        rest = [rest[0], rest[3], "+"]
    return rest, total


def records(text: Iterable[str]) -> list[WinRecord]:
    """Read ``STACK WIN`` lines; those that contradict the format are passed over."""
    found = []
    for line in text:
        parts = line.split(None, 12)
        try:
            kind, start, size, _, _, parameters, saved, variables, _ = (int(x, 16) for x in parts[2:11])
            has_program = int(parts[11], 16) != 0
        except (ValueError, IndexError):
            continue
        if kind not in {FRAME_DATA, FPO} or has_program != (kind == FRAME_DATA) or len(parts) < 13 or size <= 0:
            continue
        allocates = not has_program and parts[12].strip() == "1"
        program = parts[12].strip() if has_program else ""
        found.append(WinRecord(kind, start, size, parameters, saved, variables, program, allocates))
    return found


def lines(found: Iterable[WinRecord]) -> list[tuple[int, int, str]]:
    """Return (start, end, rule) of records of one kind; one that begins inside another ends that one.

    Of two that begin at one address the first counts. Compilers write them nested, the outer function first (856 of
    the 1,556 of test_app.sym).
    """
    ordered: list[WinRecord] = []
    for record in sorted(found, key=lambda r: r.start):
        if not ordered or ordered[-1].start != record.start:
            ordered.append(record)
    ends = [*(after.start for after in ordered[1:]), 1 << 32]
    rules = ((r.start, min(r.start + r.size, end), r.rule()) for r, end in zip(ordered, ends, strict=False))
    return [(start, end, rule) for start, end, rule in rules if rule is not None]
