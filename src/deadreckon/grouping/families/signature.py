"""Readable signatures in Mozilla's manner: the frames that say something, up to the first that says enough.

A frame is its function without arguments, template arguments and return type, else file and line, else its module, else
an address. The walk begins at the first sentinel, leaves out irrelevant frames, and goes on only below frames that are
a mere prefix. What is what, lists of regular expressions say, one a line, which are the user's own files: Mozilla's are
``irrelevant_signature_re.txt``, ``prefix_signature_re.txt``, ``signature_sentinels.txt`` and
``signatures_with_line_numbers_re.txt``. Without lists the signature is the innermost frame.

Specification: siggen 2.2, its documentation and what it gives for the same stacks.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from deadreckon.errors import LimitExceeded, SourceUnavailable
from deadreckon.grouping.fingerprint import crashed_stack
from deadreckon.grouping.rules import RuleError
from deadreckon.model.event import Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from deadreckon.model.event import Event, Frame

__all__ = ["FILES", "NAME", "Lists", "Stacked", "frame_text", "load_lists", "signature", "values", "walk"]

NAME = "signature"
FILES = {
    "irrelevant_signature_re": "irrelevant",
    "prefix_signature_re": "prefix",
    "signature_sentinels": "sentinels",
    "signatures_with_line_numbers_re": "line_numbers",
}
"""The lists' names, as Mozilla's files have them, and here."""
MAX_FRAMES = 40
"""Frames that are looked at, inlined calls among them."""
MAX_LENGTH = 255
MAX_BYTES = 4 << 20
_MAX_NAME = 8192
_MAX_ABORT = 80
_SMALL = 256 * 1024

_ABOVE = "above the sentinel where the signature begins"
_PAIRS = {"(": ")", "{": "}", "[": "]", "<": ">", "`": "'"}
_QUALIFIERS = ("const", "const&", "const &", "&&", "&")


@dataclass(frozen=True, slots=True)
class Lists:
    """What frames are; of a pattern the beginning of a frame's text has to match, of a sentinel all of it."""

    irrelevant: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    line_numbers: tuple[str, ...] = ()

    def pattern(self, name: str) -> re.Pattern[str] | None:
        """Return one pattern for a list, None for an empty one."""
        return _joined(getattr(self, name))


@lru_cache(maxsize=64)
def _joined(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(patterns)) if patterns else None


def load_lists(paths: Iterable[str]) -> Lists:
    """Read lists from files of Mozilla's names, or from directories of them; the lists of one kind are joined.

    Raises RuleError for what is no regular expression, SourceUnavailable and LimitExceeded.
    """
    found: dict[str, list[str]] = {name: [] for name in FILES.values()}
    for path in paths:
        inside = [os.path.join(path, f"{name}.txt") for name in FILES] if os.path.isdir(path) else [path]
        for file in inside:
            kind = FILES.get(os.path.basename(file).removesuffix(".txt"))
            if kind is not None and (file == path or os.path.exists(file)):
                found[kind] += _lines(file)
    return Lists(**{name: tuple(lines) for name, lines in found.items()})


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as e:
        raise SourceUnavailable(f"list {path}: {e}") from e
    if len(data) > MAX_BYTES:
        raise LimitExceeded("bytes of a list", MAX_BYTES, what=path)
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            try:
                re.compile(pattern)
            except re.error as e:
                raise RuleError(path, number, (e.pos or 0) + 1, f"no regular expression: {e.msg}") from e
            yield pattern


# -- one frame --------------------------------------------------------------------------------------------------------


class Stacked(NamedTuple):
    """What of a frame a signature looks at."""

    function: str | None = None
    file: str | None = None
    line: int | None = None
    module: str | None = None
    unloaded: str | None = None
    address: str | None = None


def frame_text(frame: Stacked, lists: Lists) -> str:
    """Return a frame as a signature has it; empty if nothing is known of it."""
    if frame.function:
        rust = _source_name(frame.file).endswith(".rs")
        name = (_rust if rust else _cpp)(frame.function[:_MAX_NAME])
        numbered = lists.pattern("line_numbers")
        if numbered is not None and numbered.match(name):
            name = f"{name}:{frame.line}"
        name = re.sub(r",(?! )", ", ", re.sub(r" (?=[*&,])", "", name))
        return re.sub(r"::h[0-9a-fA-F]+$", "", name) if rust else name
    if frame.file and frame.line:
        path = frame.file.rstrip("/\\")
        return f"{path.rsplit(chr(92) if chr(92) in path else '/', 1)[-1]}#{frame.line}"
    if frame.module:
        return frame.module.strip("[]")
    if frame.unloaded:
        return f"(unloaded {frame.unloaded})"
    if frame.address:
        return f"@{hex(int(frame.address, 16))}" if re.fullmatch("(?:0[xX])?[0-9a-fA-F]{1,32}", frame.address) else ""
    return ""


def _source_name(file: str | None) -> str:
    """Return the path in a file's name: without the repository around it, or the drive before it."""
    parts = (file or "").split(":")
    if len(parts) == 4:
        return parts[2]
    return parts[1] if len(parts) == 2 else file if file and file.startswith("/") else ""


@lru_cache(maxsize=65_536)
def _cpp(name: str) -> str:
    for qualifier in _QUALIFIERS:
        if name.endswith(qualifier):
            name = name[: -len(qualifier)].strip()
    if "::operator" not in name:
        name = _last_token(name)
    name = name.replace("`anonymous namespace'", "(anonymous namespace)")
    name = re.sub(r"::\$_\d+::", "::$::", name)
    name = _collapsed(name, "<", "<T>", ("name omitted", "IPC::ParamTraits", " in "))
    name = _collapsed(name, "(", "", ("anonymous namespace", "operator"))
    return _collapsed(name, "[", "", ()) if "clone .cold" in name else name


@lru_cache(maxsize=65_536)
def _rust(name: str) -> str:
    return _collapsed(_collapsed(_last_token(name), "<", "<T>", (" as ",)), "(", "", ())


def _last_token(name: str) -> str:
    """Return a function without what stands before it: the last token outside of brackets, its arguments with it."""
    tokens: list[str] = []
    open_: list[str] = []
    current: list[str] = []
    for c in name:
        if c in _PAIRS:
            open_.append(_PAIRS[c])
        elif open_ and c == open_[-1]:
            open_.pop()
        elif c == " " and not open_:
            tokens.append("".join(current))
            current = []
            continue
        current.append(c)
    if current:
        tokens.append("".join(current))
    while len(tokens) > 1 and tokens[-1].startswith(("(", "[clone")):
        last = tokens.pop()
        tokens[-1] = f"{tokens[-1]} {last}"
    return tokens[-1] if tokens else name


def _collapsed(name: str, opening: str, replacement: str, kept: tuple[str, ...]) -> str:
    """Replace what outermost brackets enclose; not where one of ``kept`` stands right before them or inside."""
    closing = _PAIRS[opening]
    out: list[str] = []
    inside: list[str] = []
    depth = 0
    at = 0
    for at, c in enumerate(name):
        if not depth:
            if c == opening and not name.endswith(kept, 0, at):
                depth, inside = 1, [c]
            else:
                out.append(c)
            continue
        inside.append(c)
        depth += (c == opening) - (c == closing)
        if not depth:
            out.append(_inside(name, at, inside, replacement, kept))
    if depth:
        out.append(_inside(name, at, inside, replacement, kept))
    return "".join(out)


def _inside(name: str, at: int, inside: list[str], replacement: str, kept: tuple[str, ...]) -> str:
    text = "".join(inside)
    return text if name.endswith(kept, 0, at) or any(k in text for k in kept) else replacement


# -- a stack ----------------------------------------------------------------------------------------------------------


def walk(texts: Sequence[str], lists: Lists) -> Iterator[Component]:
    """Yield every frame up to the one that ends the signature: whether it is part of it, and why."""
    start = min((texts.index(s) for s in set(lists.sentinels) & set(texts)), default=0)
    irrelevant, prefix = lists.pattern("irrelevant"), lists.pattern("prefix")
    last = ""
    for number, text in enumerate(texts):
        if number < start:
            yield Component(text=text, contributes=False, why=_ABOVE)
        elif not text:
            yield Component(text="", contributes=False, why="nothing is known of it")
        elif irrelevant is not None and irrelevant.match(text):
            yield Component(text=text, contributes=False, why="irrelevant, the list says")
        elif text == last and _repeats(text):
            yield Component(text=text, contributes=False, why="the same module again")
        elif prefix is not None and prefix.match(text):
            last = text
            yield Component(text=text, contributes=True, why="a prefix, so the next frame counts too")
        else:
            yield Component(text=text, contributes=True, why="it says enough")
            return


def _repeats(text: str) -> bool:
    """Tell whether a frame has no function of its own, so that a run of them is one."""
    if text.startswith("(unloaded"):
        return False
    return text.lower().endswith((".dll", ".so")) or text in {"XUL", "<name omitted>"} or text.startswith("<unknown in")


def signature(
    frames: Sequence[Stacked], lists: Lists, *, lower_modules: bool = False, crashed: bool = True
) -> tuple[str, list[Component]]:
    """Return the signature of a stack, innermost frame first, and what it was made of."""
    told = [f._replace(module=f.module.lower()) if lower_modules and f.module else f for f in frames[:MAX_FRAMES]]
    texts = [frame_text(f, lists) for f in told]
    components = list(walk(texts, lists))
    found = " | ".join(c.text for c in components if c.contributes)
    if not found:  # Either there are no frames, or all are irrelevant: then the first will do.
        rest = [c.text for c in components if c.why != _ABOVE]
        found = (
            (rest[0] if rest else "EMPTY: no frame data available")
            if crashed
            else "EMPTY: no crashing thread identified"
        )
    return found, components


def shortened(text: str) -> str:
    """Return a signature as it is kept: printable ASCII, no blanks in a row, 255 characters."""
    text = re.sub(" +", " ", "".join(c for c in text if " " <= c <= "~")).strip()
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


# -- of any event -----------------------------------------------------------------------------------------------------


def values(event: Event, lists: Lists) -> list[str]:
    """Return an event's signature."""
    return [_of(event, lists)[0]]


def explain(event: Event, lists: Lists) -> list[Component]:
    """Return the frames of an event's signature."""
    return _of(event, lists)[1]


def _of(event: Event, lists: Lists) -> tuple[str, list[Component]]:
    windows = "windows" in ((event.os.name if event.os else None) or "").lower()
    frames = [_stacked(f) for f in crashed_stack(event)]
    text, components = signature(frames, lists, lower_modules=windows, crashed=bool(frames))
    told: Mapping[str, Any] = event.attributes or {}
    size, abort = _number(told.get("OOMAllocationSize")), told.get("AbortMessage")
    if size is not None:
        text = "OOM | small" if size <= _SMALL else f"OOM | large | {text}"
    if type(abort) is str and abort.strip():
        text = f"Abort | {abort.strip()[:_MAX_ABORT]} | {text}"
    kinds = {e.type for e in event.exceptions or ()}
    if "EXCEPTION_STACK_OVERFLOW" in kinds:
        text = f"stackoverflow | {text}"
    return shortened(text), components


def _number(value: Any) -> int | None:
    return int(value) if type(value) is int or (type(value) is str and re.fullmatch("[0-9]{1,18}", value)) else None


def _stacked(frame: Frame) -> Stacked:
    module = re.split(r"[/\\]", frame.package)[-1] if frame.package else None
    return Stacked(
        frame.function,
        frame.abs_path or frame.filename,
        frame.lineno,
        module,
        None,
        frame.rva or frame.instruction_addr,
    )
