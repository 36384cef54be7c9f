"""Stacks, threads and exceptions of a Sentry event.

Specification: Sentry's "Stack Trace Interface", "Exception Interface" and "Threads Interface". Frames are listed from
the caller to the callee, exceptions from the root cause to what was thrown last; here both are the other way round.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from deadreckon.model.crash import RawException, RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.objects import jspaths
from deadreckon.reports import payload
from deadreckon.reports.javascript import parse_stack
from deadreckon.reports.payload import NAMELESS, address, base_name, kept, mapping, text
from deadreckon.reports.sentry.document import WireFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.model.ids import Arch
    from deadreckon.reports.backtrace.fields import Reading
    from deadreckon.reports.sentry.document import Stack, Thrown, Traced
    from deadreckon.reports.sentry.images import Images

__all__ = ["NATIVE", "PLATFORMS", "Stacks"]

NATIVE = frozenset({"native", "c", "cocoa", "objc", "swift"})
PLATFORMS = dict.fromkeys(NATIVE, "native") | {"node": "javascript"}
"""Sentry's names for platforms, where ours are others."""

_CRASH_SIGNALS = frozenset({4, 5, 6, 7, 8, 10, 11, 12})
"""SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, and SIGBUS and SIGSYS as Linux and macOS number them."""
_MAX_PRINTED = 1 << 20
_NOTHING = WireFrame()


class Stacks:
    """Reads threads, exceptions and their frames."""

    def __init__(self, reading: Reading, images: Images, platform: str | None, arch: Arch) -> None:
        self._reading = reading
        self._images = images
        self._source_maps = images.source_maps
        self._spoken = PLATFORMS.get(platform, platform) if platform else None
        self._arch = arch
        self.budget = payload.Budget()
        self._addressed = False
        self.current: int | None = None
        """The thread that sent the event, where just one says so."""

    def exceptions(self, listed: Sequence[Thrown | None]) -> list[tuple[RawException, Registers | None]]:
        """Return the exceptions, the root cause last, each with the registers of its stack."""
        if len(listed) > payload.MAX_EXCEPTIONS:
            self._reading.problem("limit_exceeded", "exception", f"{len(listed)} of them")
            listed = listed[-payload.MAX_EXCEPTIONS :]
        found = [self._exception(value) for value in reversed(listed) if value is not None]
        return [(e, registers) for e, registers in found if e.type or e.value or e.frames]

    def threads(self, listed: Sequence[Traced | None]) -> list[RawThread]:
        """Return the threads in their order."""
        limit = self._reading.limits.max_threads
        if len(listed) > limit:
            self._reading.problem("limit_exceeded", "threads", f"{len(listed)} of them, the limit is {limit}")
        found = []
        current = []
        for number, value in enumerate(v for v in listed[:limit] if v is not None):
            known = thread_id(value.id)
            thread = RawThread(number if known is None else known, text(value.name, 1024))
            thread.crashed = value.crashed is True
            thread.frames = self.frames(value.stacktrace) or []
            thread.registers = self.registers(value.stacktrace)
            found.append(thread)
            if value.current is True:
                current.append(thread.id)
        self.current = current[0] if len(current) == 1 else None
        return found

    def frames(self, stack: Stack | None, signal: int | None = None) -> list[RawFrame] | None:
        """Return a stack, innermost frame first; None for none. ``signal`` is what ended the program, if one did."""
        if stack is None or not (stack.frames or stack.printed or stack.left_out):
            return None
        if stack.printed is not None:
            printed = parse_stack(stack.printed[:_MAX_PRINTED]) if self._spoken == "javascript" else []
            return [RawFrame(None, False, frame) for frame in printed[: payload.MAX_FRAMES]] or None
        dropped = self.budget.dropped - stack.left_out
        listed = self.budget.take([f for f in stack.frames or () if f is not None])
        if self.budget.dropped > dropped:
            self._reading.problem("frame_limit", "stacktrace", f"the outermost {self.budget.dropped - dropped} frames")
        listed.reverse()
        frame = self._frame
        found = [made for raw in listed if (made := frame(raw)) is not None]
        if self._addressed and found:
            self._adjust(found, stack, signal)
            _join_inlined(found)
        return found or None

    def registers(self, stack: Stack | None) -> Registers | None:
        """Return the registers of a stack's innermost frame, where the architecture is known."""
        if stack is None or type(stack.registers) is not dict:
            return None
        known = REGISTER_SETS.get(self._arch)
        told = stack.registers
        if known is None or not told:
            return None
        found = {name: address(v) for name, v in list(told.items())[: 2 * len(known.names)]}
        read = Registers.from_mapping(self._arch, {n: v for n, v in found.items() if v is not None}, keep_others=True)
        return read if read.valid else None

    def _adjust(self, found: list[RawFrame], stack: Stack, signal: int | None) -> None:
        """Say which addresses calls return to."""
        adjustment = stack.instruction_addr_adjustment
        if adjustment == "none":
            return
        for raw in found:
            raw.is_return_address = True
        if adjustment != "all" and (adjustment == "all_but_first" or not self._interrupted(found[0], stack, signal)):
            found[0].is_return_address = False

    def _interrupted(self, innermost: RawFrame, stack: Stack, signal: int | None) -> bool:
        """Tell, of the default adjustment, whether the innermost address is one that a call returns to after all.

        A signal interrupts at the program counter. A stack that begins somewhere else was walked by a call.
        """
        registers = mapping(stack.registers)
        if signal not in _CRASH_SIGNALS or not registers:
            return False
        counter = next((address(registers[n]) for n in ("pc", "rip", "eip") if n in registers), None)
        return counter is not None and counter != innermost.instruction_addr

    def _exception(self, value: Thrown) -> tuple[RawException, Registers | None]:
        found = RawException(
            text(value.type, 4096),
            text(value.value) or "",
            thread_id=None if value.thread_id is None else thread_id(value.thread_id),
            module=text(value.module, 4096),
        )
        number = None
        if mechanism := mapping(value.mechanism):
            found.mechanism = text(mechanism.get("type"), 256)
            found.details = {k: kept(v) for k, v in mechanism.items() if v is not None and k != "type"}
            if meta := mapping(mechanism.get("meta")):
                number = address(mapping(meta.get("signal")).get("number"))
                mach = address(mapping(meta.get("mach_exception")).get("exception"))
                found.code = mach if number is None or (mach is not None and found.mechanism == "mach") else number
            if data := mapping(mechanism.get("data")):
                found.address = address(data.get("relevant_address"))
        if value.stacktrace is None:
            return found, None
        found.frames = self.frames(value.stacktrace, number)
        return found, self.registers(value.stacktrace)

    def _frame(self, raw: WireFrame) -> RawFrame | None:
        """Return a frame, None for one that says nothing."""
        function, raw_function = raw.function or None, raw.raw_function or raw.symbol or None
        spoken = raw.platform
        platform = self._spoken if spoken is None else PLATFORMS.get(spoken, spoken)
        native = platform == "native"
        if function is None or function in NAMELESS:
            # Whoever groups as Sentry does has to see what stood there.
            function, raw_function = None, raw_function if native else raw_function or function
            if raw_function is None and raw.lineno is None and raw == _NOTHING:
                return None
        place = _place(raw.filename, raw.abs_path, platform == "javascript")
        frame = Frame(
            status="missing_symbol" if function is None else "symbolicated",
            function=function,
            raw_function=raw_function,
            module=raw.module or None,
            filename=place[0],
            abs_path=place[1],
            lineno=raw.lineno or None,
            colno=raw.colno or None,
            lang=None if native else platform,
            context_line=raw.context_line or None,
            in_app=place[2] if raw.in_app is None else raw.in_app,
            package=raw.package or None,
        )
        if raw.vars:
            frame.locals = kept(raw.vars)
        if raw.pre_context:
            frame.pre_context = raw.pre_context
        if raw.post_context:
            frame.post_context = raw.post_context
        if raw.source_link:
            frame.source_link = raw.source_link
        if self._source_maps:
            frame.debug_id = self._source_maps.get(raw.abs_path or raw.filename or "")
        return RawFrame(None, False, frame) if raw.instruction_addr is None else self._native(raw, frame)

    def _native(self, raw: WireFrame, frame: Frame) -> RawFrame:
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


@lru_cache(maxsize=4096)
def _place(filename: str | None, path: str | None, script: bool) -> tuple[str | None, str | None, bool | None]:  # noqa: FBT001
    """Return a file's short name, its path, and of a script whether it is the application's own, by its path."""
    filename, path = filename or None, path or None
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
