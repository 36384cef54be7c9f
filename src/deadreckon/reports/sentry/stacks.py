"""Stacks, threads and exceptions of a Sentry event.

Specification: Sentry's "Stack Trace Interface", "Exception Interface" and "Threads Interface". Frames are listed from
the caller to the callee, exceptions from the root cause to what was thrown last; here both are the other way round.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.model.crash import RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.objects import jspaths
from deadreckon.reports import payload
from deadreckon.reports.javascript import parse_stack
from deadreckon.reports.payload import (
    Text,
    address,
    base_name,
    kept,
    lines,
    mapping,
    members,
    position,
    sequence,
    text,
    texts,
)

if TYPE_CHECKING:
    from deadreckon.model.ids import Arch
    from deadreckon.reports.backtrace.fields import Reading
    from deadreckon.reports.sentry.images import Images

__all__ = ["NATIVE", "PLATFORMS", "Stacks", "values"]

NATIVE = frozenset({"native", "c", "cocoa", "objc", "swift"})
PLATFORMS = dict.fromkeys(NATIVE, "native") | {"node": "javascript"}
"""Sentry's names for platforms, where ours are others."""

_CRASH_SIGNALS = frozenset({4, 5, 6, 7, 8, 10, 11, 12})
"""SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, and SIGBUS and SIGSYS as Linux and macOS number them."""
_MAX_PRINTED = 1 << 20


class _Wire(msgspec.Struct, gc=False):
    """A frame, as the interface has it."""

    function: Text | None = None
    raw_function: Text | None = None
    symbol: Text | None = None
    module: Text | None = None
    filename: Text | None = None
    abs_path: Text | None = None
    platform: Text | None = None
    package: Text | None = None
    context_line: Text | None = None
    source_link: Text | None = None
    lineno: int | None = None
    colno: int | None = None
    in_app: bool | None = None
    vars: dict[str, Any] | None = None
    pre_context: list[Any] | None = None
    post_context: list[Any] | None = None
    instruction_addr: Any = None
    addr_mode: Any = None
    symbol_addr: Any = None
    image_addr: Any = None
    function_id: Any = None


_TEXTS = _Wire.__struct_fields__[:10]


def _lenient(raw: dict[str, Any]) -> _Wire:
    """Return a frame whose members are of other types than they should be, as far as they make sense."""
    found = _Wire(lineno=position(raw.get("lineno")), colno=position(raw.get("colno")))
    for name, value in zip(_TEXTS, texts(raw, _TEXTS), strict=True):
        setattr(found, name, value)
    found.in_app = raw["in_app"] if type(raw.get("in_app")) is bool else None
    found.vars = members(raw.get("vars")) or None
    found.pre_context, found.post_context = lines(raw.get("pre_context")), lines(raw.get("post_context"))
    for name in ("instruction_addr", "addr_mode", "symbol_addr", "image_addr", "function_id"):
        setattr(found, name, raw.get(name))
    return found


def values(told: Any) -> list[dict[str, Any]]:
    """Return the members of an interface: an object with ``values``, a list, or a single one; null ones left out."""
    found = told.get("values", [told]) if type(told) is dict else told
    return [v for v in found if type(v) is dict] if type(found) is list else []


class Stacks:
    """Reads threads, exceptions and their frames."""

    def __init__(self, reading: Reading, images: Images, platform: str | None, arch: Arch) -> None:
        self._reading = reading
        self._images = images
        self._spoken = PLATFORMS.get(platform, platform) if platform else None
        self._arch = arch
        self.budget = payload.Budget()
        self._addressed = False
        self._places: dict[tuple[str | None, str | None, bool], tuple[str | None, str | None, bool | None]] = {}
        self.current: int | None = None
        """The thread that sent the event, where just one says so."""

    def exceptions(self, told: Any) -> list[tuple[RawException, Registers | None]]:
        """Return the exceptions, the root cause last, each with the registers of its stack."""
        listed = values(told)
        if len(listed) > payload.MAX_EXCEPTIONS:
            self._reading.problem("limit_exceeded", "exception", f"{len(listed)} of them")
            listed = listed[-payload.MAX_EXCEPTIONS :]
        found = [self._exception(value) for value in reversed(listed)]
        return [(e, registers) for e, registers in found if e.type or e.value or e.frames]

    def threads(self, told: Any) -> list[RawThread]:
        """Return the threads in their order."""
        listed = values(told)
        limit = self._reading.limits.max_threads
        if len(listed) > limit:
            self._reading.problem("limit_exceeded", "threads", f"{len(listed)} of them, the limit is {limit}")
        found = []
        current = []
        for number, value in enumerate(listed[:limit]):
            known = thread_id(value.get("id"))
            thread = RawThread(number if known is None else known, text(value.get("name"), 1024))
            thread.crashed = value.get("crashed") is True
            stack = value.get("stacktrace")
            thread.frames = self.frames(stack) or []
            thread.registers = self.registers(stack)
            found.append(thread)
            if value.get("current") is True:
                current.append(thread.id)
        self.current = current[0] if len(current) == 1 else None
        return found

    def frames(self, stacktrace: Any, signal: int | None = None) -> list[RawFrame] | None:
        """Return a stack, innermost frame first; None for none. ``signal`` is what ended the program, if one did."""
        if type(stacktrace) is str and self._spoken == "javascript":
            printed = parse_stack(stacktrace[:_MAX_PRINTED])
            return [RawFrame(None, False, frame) for frame in printed[: payload.MAX_FRAMES]] or None
        told = stacktrace if type(stacktrace) is dict else {"frames": stacktrace}
        listed = [f for f in sequence(told.get("frames")) if type(f) is dict and f]
        if not listed:
            return None
        dropped = self.budget.dropped
        listed = self.budget.take(listed)
        if self.budget.dropped > dropped:
            self._reading.problem("frame_limit", "stacktrace", f"the outermost {self.budget.dropped - dropped} frames")
        listed.reverse()
        frame = self._frame
        found = [frame(raw) for raw in payload.converted(listed, _Wire, _lenient)]
        if self._addressed:
            self._adjust(found, told, signal)
            _join_inlined(found)
        return found

    def registers(self, stacktrace: Any) -> Registers | None:
        """Return the registers of a stack's innermost frame, where the architecture is known."""
        known = REGISTER_SETS.get(self._arch)
        told = mapping(mapping(stacktrace).get("registers"))
        if known is None or not told:
            return None
        found = {name: address(v) for name, v in list(told.items())[: 2 * len(known.names)]}
        read = Registers.from_mapping(self._arch, {n: v for n, v in found.items() if v is not None}, keep_others=True)
        return read if read.valid else None

    def _adjust(self, found: list[RawFrame], told: dict[str, Any], signal: int | None) -> None:
        """Say which addresses calls return to."""
        adjustment = told.get("instruction_addr_adjustment")
        if adjustment == "none":
            return
        for raw in found:
            raw.is_return_address = True
        if adjustment != "all" and (adjustment == "all_but_first" or not self._interrupted(found[0], told, signal)):
            found[0].is_return_address = False

    def _interrupted(self, innermost: RawFrame, told: dict[str, Any], signal: int | None) -> bool:
        """Tell, of the default adjustment, whether the innermost address is one that a call returns to after all.

        A signal interrupts at the program counter. A stack that begins somewhere else was walked by a call.
        """
        registers = mapping(told.get("registers"))
        if signal not in _CRASH_SIGNALS or not registers:
            return False
        counter = next((address(registers[n]) for n in ("pc", "rip", "eip") if n in registers), None)
        return counter is not None and counter != innermost.instruction_addr

    def _exception(self, value: dict[str, Any]) -> tuple[RawException, Registers | None]:
        stack = value.get("stacktrace")
        found = RawException(
            text(value.get("type"), 4096),
            text(value.get("value")) or "",
            thread_id=thread_id(value.get("thread_id")),
            module=text(value.get("module"), 4096),
        )
        number = None
        if mechanism := mapping(value.get("mechanism")):
            found.mechanism = text(mechanism.get("type"), 256)
            found.details = {k: kept(v) for k, v in mechanism.items() if v is not None and k != "type"}
            if meta := mapping(mechanism.get("meta")):
                number = address(mapping(meta.get("signal")).get("number"))
                mach = address(mapping(meta.get("mach_exception")).get("exception"))
                found.code = mach if number is None or (mach is not None and found.mechanism == "mach") else number
            if data := mapping(mechanism.get("data")):
                found.address = address(data.get("relevant_address"))
        if stack is None:
            return found, None
        found.frames = self.frames(stack, number)
        return found, self.registers(stack)

    def _frame(self, raw: _Wire) -> RawFrame:
        function, raw_function = raw.function or None, raw.raw_function or raw.symbol or None
        platform = PLATFORMS.get(raw.platform, raw.platform) if raw.platform else self._spoken
        native = platform == "native"
        if function in payload.NAMELESS:
            # Whoever groups as Sentry does has to see what stood there.
            function, raw_function = None, raw_function if native else raw_function or function
        key = (raw.filename, raw.abs_path, platform == "javascript")
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _place(raw.filename or None, raw.abs_path or None, script=key[2])
        frame = Frame(
            status="symbolicated" if function else "missing_symbol",
            function=function,
            raw_function=raw_function,
            module=raw.module or None,
            filename=place[0],
            abs_path=place[1],
            lineno=position(raw.lineno),
            colno=None if raw.colno is None else position(raw.colno),
            lang=None if native else platform,
            context_line=raw.context_line or None,
            in_app=place[2] if raw.in_app is None else raw.in_app,
            package=raw.package or None,
        )
        if raw.vars:
            frame.locals = kept(raw.vars)
        if raw.pre_context or raw.post_context:
            frame.pre_context, frame.post_context = lines(raw.pre_context), lines(raw.post_context)
        if raw.source_link:
            frame.source_link = raw.source_link
        if self._images.source_maps:
            frame.debug_id = self._images.source_maps.get(raw.abs_path or raw.filename or "")
        return RawFrame(None, False, frame) if raw.instruction_addr is None else self._native(raw, frame)

    def _native(self, raw: _Wire, frame: Frame) -> RawFrame:
        """Add a frame's address. Of .NET, an address counts from the beginning of a function."""
        mode = raw.addr_mode
        addr = address(raw.instruction_addr)
        symbol, image = address(raw.symbol_addr), address(raw.image_addr)
        relative = type(mode) is str and mode.startswith("rel")
        if relative and addr is not None and raw.function_id is None:
            assert isinstance(mode, str)
            found = self._images.absolute(addr, mode)
            if found is None:
                self._reading.problem("malformed", "addr_mode", f"{mode[:64]!r} leads to no image")
            addr = found
        elif raw.function_id is not None:
            frame.origin = {"function_id": kept(raw.function_id), "instruction_addr": kept(raw.instruction_addr)}
            addr = None
        if addr is None:
            return RawFrame(None, False, frame)
        self._addressed = True
        frame.status = "symbolicated" if frame.function else "missing"
        if self._images.holding(addr) is None:
            frame.symbol_addr = hex(symbol) if symbol and not relative else None
            if image and image <= addr:
                frame.image_addr, frame.rva = hex(image), hex(addr - image)
        return RawFrame(addr, False, frame)


def _place(filename: str | None, path: str | None, *, script: bool) -> tuple[str | None, str | None, bool | None]:
    """Return a file's short name, its path, and of a script whether it is the application's own, by its path."""
    short = filename
    if filename is None:
        short = base_name(path) if path else None
    elif filename[0] in "/\\" or filename[1:3] == ":\\" or "://" in filename:
        short = base_name(filename)
    whole = path or (filename if filename and ("/" in filename or "\\" in filename) else None)
    if script and (path or filename):
        return jspaths.readable(filename or path or ""), whole, jspaths.in_app(path or filename or "")
    return short, whole, None


def _join_inlined(frames: list[RawFrame]) -> None:
    """Mark the calls that were inlined, in a stack that was symbolicated before: they share an address.

    So do calls of a function that calls itself, but these have one name.
    """
    for inner, outer in pairwise(frames):
        if inner.instruction_addr is None or inner.instruction_addr != outer.instruction_addr:
            continue
        outer.is_return_address = inner.is_return_address
        one, other = inner.reported, outer.reported
        if one is not None and other is not None and one.function and other.function:
            one.inline = one.function != other.function


def thread_id(value: Any) -> int | None:
    """Return a thread's id where it is a number."""
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 64 else None
    return address(value) if type(value) is str else None
