"""Why a stack looks as it does: what the walker tried for each frame's caller, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.model.tables import TRUST_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.crash import RawCrash
    from deadreckon.unwind.walk import Tables, Walk

__all__ = ["explain"]

_CHAINS = {
    1: "the frame pointer is not in memory, or below sp",
    2: "the frame pointer leads to no frame record further up",
    3: "the frame record holds no plausible return address",
    4: "the chain of frame pointers ends here",
    5: "the frame record has the caller",
}


def explain(crash: RawCrash, walk: Walk, tables: Sequence[Tables | None]) -> dict[int, list[str]]:
    """Return, for each walked thread by its number, a line a frame: where it is, and how its caller was looked for."""
    from deadreckon.kernels import unwind as kernel  # noqa: PLC0415  (it was loaded to walk)

    frames = walk.frames
    lines: dict[int, list[str]] = {}
    columns = zip(
        frames.thread.tolist(),
        frames.instruction_addr.tolist(),
        frames.module.tolist(),
        frames.trust.tolist(),
        walk.decisions.tolist(),
        strict=False,
    )
    for thread, pc, number, trust, (row, notes) in columns:
        said = lines.setdefault(thread, [])
        steps: list[str] = []
        place = f"{pc:#x} in no module"
        if number >= 0:
            module = crash.modules[number]
            place = f"{pc:#x} {module.code_file or 'a module without a name'}+{pc - module.image_addr:#x}"
            found = tables[number]
            if found is None:
                steps.append("no debug file of the module was found")
            elif row < 0:
                steps.append("no unwind rule covers it" if len(found[1].rva) else "the module has no unwind rules")
            else:
                steps.append(f"unwind rule {int(found[1].rule[row])} from +{int(found[1].rva[row]):#x}")
        if notes & kernel.NOTE_RULE_FAILED:
            steps.append("the rule needs a register or memory that is not known")
        if notes & kernel.NOTE_STUCK:
            steps.append("the rule would not move up the stack")
        if notes & kernel.NOTE_TRAMPOLINE:
            steps.append("the code returns from a signal handler; its context has the caller")
        if notes & kernel.NOTE_WILD:
            steps.append("no code is here: called through a wild pointer from the last return address")
        if notes & kernel.NOTE_LEAF:
            steps.append("nothing was called yet: the link register has the caller")
        if notes & kernel.NOTE_PROLOGUE:
            steps.append("the function's first instructions saved the return address")
        if notes & kernel.NOTE_EPILOGUE:
            steps.append("the function is about to return: what is left of it was run")
        chain = notes >> kernel.NOTE_CHAIN & 0xF
        if chain in _CHAINS:
            steps.append(_CHAINS[chain])
        if words := notes >> kernel.NOTE_WORDS:
            how = "the last follows a call" if notes & kernel.NOTE_CALL else "no code at hand to check for a call"
            steps.append(f"scanned {words} words: {how}")
        said.append(f"{place} [{TRUST_NAMES[trust]}]: {'; '.join(steps) or 'nothing to go by'}")
    for thread, said in lines.items():
        said.append(f"ends: {walk.stops[thread]}")
    return lines
