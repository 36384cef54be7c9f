"""Stacks of the corpus' dumps, ours beside the peers': what agrees, what only one of them has, and who is right.

Where the projects that the dumps come from say what the stack is, that decides. Elsewhere a frame that was found by
call frame information or a frame pointer counts, and one found by scanning the stack is a guess: of those the table
only says how many each tool has more.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks._peers import CERTAIN, Frame, Stacks, file_name, rust_stacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deadreckon.model.event import Event

__all__ = [
    "Row",
    "aligned",
    "compare",
    "disagreement",
    "dumps",
    "event_stacks",
    "expectations",
    "summary",
    "symbol_paths",
]

KINDS = ("same", "ours longer", "ours shorter", "differ")


def dumps(corpus: Path) -> list[Path]:
    """Return the minidumps of the corpus, told by their first bytes."""
    found = []
    for path in sorted((corpus / "native").rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(4) == b"MDMP":
                    found.append(path)
    return found


def symbol_paths(corpus: Path) -> list[Path]:
    """Return the directories of .sym files, Breakpad's layout."""
    below = ("breakpad-symstore", "breakpad/testdata/symbols", "rust-minidump/symbols")
    return [path for name in below if (path := corpus / "native" / name).is_dir()]


def event_stacks(event: Event) -> Stacks:
    """Return our stacks in the peers' terms."""
    return {
        number: [
            Frame(
                int(f.instruction_addr or "0", 16),
                file_name(f.package),
                f.raw_function or f.function,
                file_name(f.abs_path),
                f.lineno,
                f.trust or "",
                f.inline,
            )
            for f in thread.frames or ()
        ]
        for number, thread in enumerate(event.threads or ())
    }


def aligned(ours: Stacks, theirs: Stacks) -> Stacks:
    """Return a peer's stacks under our numbers: Breakpad leaves out the thread that wrote the dump, and counts on."""
    if len(theirs) >= len(ours):
        return theirs
    left = [theirs[number] for number in sorted(theirs)]
    matched: Stacks = {}
    for number, stack in ours.items():
        if left and stack and left[0] and stack[0].address == left[0][0].address:
            matched[number] = left.pop(0)
    return theirs if left else matched


def disagreement(ours: Stacks, theirs: Stacks) -> str | None:
    """Say where our stacks lack what theirs are certain of: their frames down to the first that they guessed.

    A name that only one side has is no disagreement: the tools do not read the same of every symbol file.
    """
    for number, stack in theirs.items():
        own = _calls(ours.get(number, []))
        certain = takewhile(lambda calls: calls[0].trust in CERTAIN and calls[0].module, _calls(stack))
        for at, calls in enumerate(certain):
            if at >= len(own) or own[at][0].address != calls[0].address:
                return f"thread {number}: {calls[0]} is {own[at][0] if at < len(own) else 'missing'}"
            for mine, other in zip(own[at], calls, strict=False):
                pairs = ((mine.function, other.function), (mine.file, other.file), (mine.line, other.line))
                if any(a and b and a != b for a, b in pairs):
                    return f"thread {number}: {other} is {mine}"
    return None


def _calls(stack: Sequence[Frame]) -> list[list[Frame]]:
    """Split a stack into its physical frames, each followed by what was inlined into it, outermost first."""
    found: list[list[Frame]] = []
    inlined: list[Frame] = []
    for frame in stack:
        inlined.append(frame)
        if not frame.inline:
            found.append(inlined[::-1])
            inlined = []
    return found


# -- what the stacks are known to be -----------------------------------------------------------------------------------


class Expected(NamedTuple):
    """The frames of a dump's first thread, innermost first; ``complete``: and no others."""

    frames: tuple[dict[str, str | int], ...]
    complete: bool
    source: str


def expectations(corpus: Path) -> dict[str, Expected]:
    """Return what is known of dumps, by their path below native/: from expectation files and the projects' tests.

    A frame is the fields that are told of it: function, file, line, address, or offset from its module's start.
    """
    native = corpus / "native"
    known: dict[str, Expected] = {
        # TestMiniDumpNew.py of LLDB.
        "lldb/minidump-new/linux-x86_64.dmp": Expected(
            ({"function": "crash()"}, {"function": "_start"}), complete=True, source="LLDB's test"
        ),
        # The tests of rust-breakpad: return addresses less one.
        "rust-breakpad/fixtures/crash_macos.dmp": Expected(
            tuple({"offset": offset + (at > 0)} for at, offset in enumerate((0x19C1, 0x19A5, 0x18D4))),
            complete=False,
            source="rust-breakpad's test",
        ),
    }
    windows = (
        "breakpad/testdata/minidump2.dmp",
        "breakpad/testdata/minidump_32bit_crash_addr.dmp",
        "rust-minidump/test.dmp",
    )
    text = native / "breakpad/testdata/minidump2.stackwalk.machine_readable.out"
    if text.is_file():
        fields = [line.split("|") for line in text.read_text("utf-8").splitlines()]
        frames = tuple(_told(f[3], file_name(f[4]), f[5]) for f in fields if len(f) == 7 and f[0] == "0")
        known.update((path, Expected(frames, complete=True, source=text.name)) for path in windows)
    text = native / "breakpad/expected_from_unittests.json"
    if text.is_file():
        calls = json.loads(text.read_text("utf-8"))["inline_lookup"][0]["frames_inner_to_outer"]
        frames = tuple(_told(function, file, line) for function, file, line, _ in calls)
        known["breakpad/testdata/linux_inline.dmp"] = Expected(frames, complete=False, source=text.name)
    text = native / "rust-minidump/expected-snapshots/test_minidump_stackwalk__json-pretty-symbols.snap"
    if text.is_file():
        stack = rust_stacks(json.loads(text.read_text("utf-8").split("---\n", 2)[2]))[0]
        frames = tuple({"address": f.address, **_told(f.function or "", f.file, f.line or "")} for f in stack)
        known["rust-minidump/test.dmp"] = Expected(frames, complete=True, source=text.name)
    return known


def _told(function: str, file: str, line: str | int) -> dict[str, str | int]:
    told: dict[str, str | int] = {"function": function, "file": file}
    if line:
        told["line"] = int(line)
    return {name: value for name, value in told.items() if value}


def _confirmed(stack: Sequence[Frame], expected: Expected, starts: dict[str, int]) -> list[int]:
    """Return the numbers of the expected frames that a stack has, in their order."""
    found: list[int] = []
    rest = iter(stack)
    for number, told in enumerate(expected.frames):
        before = list(rest)
        for at, frame in enumerate(before):
            fields = {**frame._asdict(), "offset": frame.address - starts.get(frame.module, 0)}
            if all(fields[name] == value for name, value in told.items()):
                found.append(number)
                before = before[at + 1 :]
                break
        rest = iter(before)
    return found


# -- thread by thread --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Beside:
    """One peer's stack of a thread beside ours; frames are physical ones, by their address.

    ``kind`` is one of KINDS. ``guessed`` and ``certain`` count the frames that only the peer has; ``stray`` are
    certain ones in no module. ``ours_guessed`` and ``ours_certain`` are ours alone. ``named``: of the frames of both
    that either names, how many both name alike (same), differently, or only one of them.
    """

    kind: str
    frames: int
    guessed: int
    certain: int
    stray: int
    ours_guessed: int
    ours_certain: int
    named: dict[str, int] = field(default_factory=dict)
    confirmed: int | None = None
    false: int | None = None


@dataclass(slots=True)
class Row:
    """One thread. ``confirmed`` of ``expected`` frames are ours; ``false`` ones lie outside a stack known in full."""

    dump: str
    thread: int
    crashed: bool
    frames: int
    ends: str
    beside: dict[str, Beside]
    expected: int | None = None
    source: str | None = None
    confirmed: int | None = None
    false: int | None = None
    lost: list[str] = field(default_factory=list)
    """Frames that are right, or that a peer is certain of, and that ours lacks."""


def compare(dump: str, event: Event, theirs: dict[str, Stacks], known: dict[str, Expected]) -> Iterator[Row]:
    """Yield a row for each thread of a dump; a peer that could not read it is left out."""
    ours = event_stacks(event)
    starts = {file_name(m.code_file): int(m.image_addr or "0", 16) for m in event.modules or ()}
    for number, thread in enumerate(event.threads or ()):
        stack = ours[number]
        ends = (thread.explanation or ["ends: nothing to go by"])[-1].removeprefix("ends: ")
        peers = {name: found.get(number, []) for name, found in theirs.items() if found}
        beside = {name: _beside(stack, other) for name, other in peers.items()}
        row = Row(dump, number, thread.crashed, len(_physical(stack)), ends, beside)
        for name, other in peers.items():
            have = {f.address for f in stack}
            missing = [f for f in _physical(other) if f.trust in CERTAIN and f.module and f.address not in have]
            row.lost += [f"{name}: {f.module} {f.address:#x} {f.function or ''} [{f.trust}]" for f in missing]
        if dump in known and number == 0:
            _judge(row, stack, peers, known[dump], starts)
        yield row


def _judge(
    row: Row, stack: list[Frame], peers: dict[str, list[Frame]], expected: Expected, starts: dict[str, int]
) -> None:
    row.expected, row.source = len(expected.frames), expected.source
    confirmed = _confirmed(stack, expected, starts)
    row.confirmed = len(confirmed)
    row.false = len(stack) - len(confirmed) if expected.complete else None
    for name, other in peers.items():
        theirs = _confirmed(other, expected, starts)
        row.beside[name].confirmed = len(theirs)
        row.beside[name].false = len(other) - len(theirs) if expected.complete else None
    missing = set(range(len(expected.frames))) - set(confirmed)
    row.lost += [f"{expected.source}: {expected.frames[n]}" for n in sorted(missing)]


def _physical(stack: Sequence[Frame]) -> list[Frame]:
    return [f for f in stack if not f.inline]


def _beside(stack: list[Frame], other: list[Frame]) -> Beside:
    ours, theirs = _physical(stack), _physical(other)
    own, their = [f.address for f in ours], [f.address for f in theirs]
    kind = "differ"
    if own == their:
        kind = "same"
    elif own[: len(their)] == their:
        kind = "ours longer"
    elif their[: len(own)] == own:
        kind = "ours shorter"
    more, less = _only(theirs, own), _only(ours, their)
    sure = [f for f in more if f.trust in CERTAIN]
    named: Counter[str] = Counter()
    by_address = {f.address: f for f in theirs}
    for frame in ours:
        match = by_address.get(frame.address)
        if match is None or not (frame.function or match.function):
            continue
        alike = frame[2:5] == match[2:5]
        named["same" if alike else "ours" if not match.function else "theirs" if not frame.function else "differ"] += 1
    return Beside(
        kind,
        len(theirs),
        len(more) - len(sure),
        len(sure),
        sum(not f.module for f in sure),
        sum(f.trust not in CERTAIN for f in less),
        sum(f.trust in CERTAIN for f in less),
        dict(named),
    )


def _only(frames: Sequence[Frame], elsewhere: Sequence[int]) -> list[Frame]:
    """Return the frames of one stack whose addresses the other has not, or not as often: recursion repeats them."""
    left = Counter(elsewhere)
    only = []
    for frame in frames:
        if left[frame.address]:
            left[frame.address] -= 1
        else:
            only.append(frame)
    return only


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up all threads, peer by peer."""
    total: dict[str, Any] = {"dumps": len({r.dump for r in rows}), "threads": len(rows), "peers": {}}
    for name in dict.fromkeys(name for row in rows for name in row.beside):
        found = [row.beside[name] for row in rows if name in row.beside]
        kinds = Counter(b.kind for b in found)
        counts: Counter[str] = Counter()
        names: Counter[str] = Counter()
        for b in found:
            values = asdict(b)
            counts.update({n: values[n] for n in ("guessed", "certain", "stray", "ours_guessed", "ours_certain")})
            names.update(b.named)
        judged = [(row, row.beside[name]) for row in rows if row.expected is not None and name in row.beside]
        total["peers"][name] = {
            "threads": len(found),
            **{kind: kinds[kind] for kind in KINDS},
            "only_theirs": {n: counts[n] for n in ("guessed", "certain", "stray")},
            "only_ours": {"guessed": counts["ours_guessed"], "certain": counts["ours_certain"]},
            "named": dict(names),
            "expected": {
                "frames": sum(row.expected or 0 for row, _ in judged),
                "ours": sum(row.confirmed or 0 for row, _ in judged),
                "theirs": sum(b.confirmed or 0 for _, b in judged),
                "ours_false": sum(row.false or 0 for row, _ in judged),
                "theirs_false": sum(b.false or 0 for _, b in judged),
            },
        }
    total["lost"] = [f"{row.dump} thread {row.thread}: {what}" for row in rows for what in row.lost]
    return total
