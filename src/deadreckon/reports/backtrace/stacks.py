"""``threads`` of a Backtrace report: stacks, innermost first, of whatever language the client speaks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deadreckon.model.crash import RawFrame, RawThread
from deadreckon.model.event import Frame
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.backtrace.fields import entries, flag, integer, members, positive, text
from deadreckon.wire.jsontext import plain

if TYPE_CHECKING:
    from deadreckon.model.ids import Arch
    from deadreckon.reports.backtrace.fields import Reading
    from deadreckon.reports.backtrace.sources import SourceCode

__all__ = ["Dialect", "Stacks"]

_MAX_FRAMES = 4096
"""Of one stack, and sixteen times that of all; recursion ends before that in every language there are clients for."""

_PLATFORMS = {
    name: platform
    for platform, names in {
        "native": "c c++ cpp rust swift objc objective-c objective-c++ zig d nim ada fortran native",
        "javascript": "javascript js typescript node nodejs node.js electron react-native",
        "python": "python",
        "java": "java kotlin scala android",
        "csharp": "csharp c# .net dotnet fsharp",
        "go": "go golang",
        "php": "php",
        "ruby": "ruby",
        "dart": "dart flutter",
    }.items()
    for name in names.split()
}
_SYMBOLICATION = {"minidump": "native", "sourcemap": "javascript", "proguard": "java"}
_FILE_IS_LIBRARY = frozenset({"javascript", "python", "ruby", "php", "dart"})
"""Whose clients give the source file as ``library``."""
_SOURCE_FILE = re.compile(
    r"[^/\\]\.(?:rs|c|cc|cpp|cxx|h|hpp|hxx|m|mm|swift|go|java|kt|cs|py|js|ts|zig|d)\Z", re.IGNORECASE
)
_NO_FILE = frozenset({"unknown", "native", "<anonymous>"})
_CALLSTACK = re.compile(r"([^@]*)(?:@(.*?)(?::(\d{1,9}))?)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Whose stacks these are, and what is still to be done to them."""

    platform: str
    symbolication: str | None
    """``minidump``, ``sourcemap`` or ``proguard``; None where the client has named everything itself."""

    @classmethod
    def of(cls, lang: str | None, symbolication: str | None) -> Dialect:
        """Tell the platform: what is to be applied says it, else the language."""
        known = symbolication if symbolication in _SYMBOLICATION else None
        spoken = (lang or "").strip().lower()
        return cls(_SYMBOLICATION.get(known or "") or _PLATFORMS.get(spoken) or spoken or "other", known)

    @property
    def native(self) -> bool:
        """Whether an address is one of code. C#'s clients give the offset in the method's IL as ``address``."""
        return self.platform == "native"


class Stacks:
    """Reads threads and their frames."""

    def __init__(
        self, reading: Reading, dialect: Dialect, sources: SourceCode, arch: Arch, maps: list[tuple[str, str]]
    ) -> None:
        self._reading = reading
        self._dialect = dialect
        self._sources = sources
        self._arch = arch
        self._maps = maps
        """(generated file, id of its source map), of ``symbolication_maps``."""
        self._map_ids: dict[str, str | None] = {}
        self._left = 16 * _MAX_FRAMES

    def threads(self, document: dict[str, Any]) -> list[RawThread]:
        """Return the threads in their order, the reported one marked as crashed."""
        listed = document.get("threads")
        main = text(document.get("mainThread"))
        if isinstance(listed, dict) and isinstance(listed.get("mainThread"), str):
            # The manual's sample has it one level too deep.
            listed = dict(listed)
            told = listed.pop("mainThread")
            main = main or text(told)
        found = list(members(self._reading, listed, "threads", self._reading.limits.max_threads))
        numbered = all(key.isascii() and key.isdecimal() and len(key) < 19 for key, _ in found)
        chosen = self._main(main, found)
        threads = []
        for number, (key, value) in enumerate(found):
            thread = RawThread(int(key) if numbered else number, self._reading.text(value.get("name")))
            thread.name = thread.name or (None if numbered else self._reading.text(key))
            thread.crashed = number == chosen
            stack = self._listed(value.get("stack"), f"threads.{key[:64]}.stack")
            thread.registers = self._registers(stack[0][1]) if stack else None
            thread.frames = [self._frame(frame, depth) for depth, frame in stack]
            threads.append(thread)
        return threads

    def callstack(self, value: Any) -> list[RawFrame]:
        """Return the frames of ``callstack``: ``function@file:line``, the last two where they are known."""
        lines = value.get("frames") if isinstance(value, dict) else None
        found = []
        for line in (lines if isinstance(lines, list) else [])[:_MAX_FRAMES]:
            match = _CALLSTACK.fullmatch(line[:_MAX_FRAMES]) if isinstance(line, str) else None
            if match and match[0]:
                found.append(self._frame({"funcName": match[1], "path": match[2], "line": match[3]}, 1))
        return found

    def _main(self, main: str | None, found: list[tuple[str, dict[str, Any]]]) -> int | None:
        for number, (key, _) in enumerate(found):
            if key == main:
                return number
        if main is not None and found:
            self._reading.problem("malformed", "mainThread", f"no thread {main[:64]!r}")
        faulty = [number for number, (_, value) in enumerate(found) if flag(value.get("fault"))]
        if faulty:
            return faulty[0]
        return 0 if len(found) == 1 else None

    def _listed(self, value: Any, at: str) -> list[tuple[int, dict[str, Any]]]:
        room = min(_MAX_FRAMES, self._left)
        if isinstance(value, list) and len(value) > room:
            self._reading.problem("frame_limit", at, f"{len(value)} frames, {room} were read")
            value = value[:room]
        found = list(entries(self._reading, value, at, room))
        self._left -= len(found)
        return found

    def _registers(self, innermost: dict[str, Any]) -> Registers | None:
        """Return a thread's registers: those of its innermost frame."""
        known = REGISTER_SETS.get(self._arch)
        told = innermost.get("registers")
        if known is None or not isinstance(told, dict) or not self._dialect.native:
            return None
        values = {known.names[known.pc]: integer(innermost.get("address"))}
        values |= {name: integer(value) for name, value in list(told.items())[: 2 * len(known.names)]}
        found = Registers.from_mapping(self._arch, {n: v for n, v in values.items() if v is not None})
        return found if found.valid else None

    def _frame(self, raw: dict[str, Any], depth: int) -> RawFrame:
        reading = self._reading
        key = text(raw.get("sourceCode"))
        address = integer(raw.get("address", raw.get("addr")))
        frame = Frame(
            status="missing",
            function=reading.text(raw.get("funcName", raw.get("name"))),
            lineno=positive(raw.get("line")),
            colno=positive(raw.get("column")),
            debug_id=reading.text(raw.get("debug_identifier")),
            lang=None if self._dialect.native else self._dialect.platform,
        )
        self._place(frame, raw, key)
        if frame.function:
            frame.status = "symbolicated"
        if flag(raw.get("guessed_frame")):
            frame.trust = "scan"
        if isinstance(told := raw.get("registers"), dict):
            some = list(told.items())[:64]
            frame.registers = {str(plain(n)): v for n, value in some if (v := self._register(value))} or None
        if isinstance(told := raw.get("variables"), list):
            named = ((text(v.get("name")), v.get("value")) for v in told[:256] if isinstance(v, dict))
            frame.locals = {name: plain(value) for name, value in named if name} or None
        self._sources.add_context(frame, key)
        if not self._dialect.native or address is None:
            # C# and Unity: where in the assembly it was.
            offsets = {name: integer(raw.get(name)) for name in ("il", "metadata_token")}
            frame.origin = {name: offset for name, offset in offsets.items() if offset is not None} or None
            return RawFrame(None, reported=frame)
        if self._dialect.symbolication is None and frame.function and frame.lineno:
            # Named by the client, which has seen the program's own symbols; and backtrace-rust's address is the
            # function's, not the call's.
            frame.instruction_addr = hex(address)
            return RawFrame(None, reported=frame)
        # Unwinders give return addresses, but of the innermost frame and of one that a signal interrupted.
        return RawFrame(address, is_return_address=depth > 0 and not flag(raw.get("faulted")), reported=frame)

    def _register(self, value: Any) -> str | None:
        number = integer(value)
        return hex(number) if number is not None else self._reading.text(value)

    def _place(self, frame: Frame, raw: dict[str, Any], key: str | None) -> None:
        """Say where the function is from: ``library`` may be a shared object, an assembly or the source file."""
        library = self._reading.text(raw.get("library"))
        told = raw.get("path") or raw.get("filename")
        path = self._sources.path(key) or self._reading.text(told)
        if path is None and key and _SOURCE_FILE.search(key[-64:]):
            path = self._reading.text(key)
        platform = self._dialect.platform
        if library and (platform in _FILE_IS_LIBRARY or _SOURCE_FILE.search(library[-64:])):
            path, library = path or (None if library in _NO_FILE else library), None
        if path:
            frame.abs_path = path
            frame.filename = path.replace("\\", "/").rsplit("/", 1)[-1] or path
        if self._dialect.native:
            frame.package = library
        else:
            frame.module = library
        if platform == "java" and frame.function and "." in frame.function:
            frame.module, _, frame.function = frame.function.rpartition(".")
        if frame.debug_id is None and frame.abs_path:
            frame.debug_id = self._map_of(frame.abs_path)

    def _map_of(self, path: str) -> str | None:
        """Return the id of a generated file's source map, where ``symbolication_maps`` names that file alone."""
        if path not in self._map_ids:
            whole = {uuid for file, uuid in self._maps if file == path}
            ends = whole or {uuid for file, uuid in self._maps if path.endswith(f"/{file}")}
            self._map_ids[path] = ends.pop() if len(ends) == 1 else None
        return self._map_ids[path]
