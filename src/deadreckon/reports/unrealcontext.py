"""Unreal Engine's crash context, ``CrashContext.runtime-xml``: properties of engine, game, user and machine as XML.

Source: Unreal Engine ``FGenericCrashContext``; the names of properties are the engine's. The XML comes from anybody:
a document type is refused, depth and size are bounded, and what was read before an error counts.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.model.crash import Module, RawException, RawFrame, RawThread
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["MAX_BYTES", "apply"]

MAX_BYTES = 16 << 20
MAX_DEPTH = 32
MAX_ELEMENTS = 200_000
MAX_FRAMES = 1024

_GUID = re.compile(r"UE\d?CC-\w+-([0-9A-Fa-f]{32})_0000")
_TICKS = 621_355_968_000_000_000
"""FDateTime's ticks of 100 ns from the year 1 to 1970."""
_LEVELS = {"Ensure": "error", "Stall": "warning", "Hang": "error"}
_PLATFORMS = (
    ("Win", "Windows"), ("Mac", "macOS"), ("LinuxAArch64", "Linux"), ("Linux", "Linux"), ("Android", "Android"),
    ("IOS", "iOS"), ("TVOS", "tvOS"),
)  # fmt: skip
_UNKNOWN = 0xFFFF_FFFF
_RAISED = frozenset({1, 0x4000, 0x8000})
"""Codes with which the engine raises an exception of its own: for assertions and ensures, new and old."""
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")
_PLACE = re.compile(r"(.+?)(?:, line |:)(\d{1,9})")
_MAX_LINE = 4096


@dataclass(slots=True)
class _Element:
    name: str
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def find(self, name: str) -> _Element | None:
        """Return the first child of a name."""
        return next((c for c in self.children if c.name == name), None)


@dataclass(slots=True)
class _Call:
    """A frame of one of the context's stacks; ``base`` is None where it is not known whole."""

    module: str | None = None
    base: int | None = None
    offset: int | None = None
    function: str | None = None
    file: str | None = None
    line: int | None = None


def apply(crash: RawCrash, data: bytes, limits: ReportLimits) -> None:
    """Add what a crash context says to a crash; its stacks only where the crash has none.

    Raises Malformed where nothing can be read of it. A document that breaks off is noted in the diagnostics.
    """
    root, problem = _parse(data)
    if problem is not None:
        if not root.children:
            raise problem
        crash.diagnostics.append(
            Diagnostic(code="malformed", severity="warning", stage="read", message=str(problem), where=problem.where())
        )
    context = root.find("FGenericCrashContext") or root
    runtime = context.find("RuntimeProperties")
    if runtime is None:
        raise Malformed("crash context", expected="RuntimeProperties", got=[c.name for c in context.children[:8]])
    _attributes(crash, context, limits)
    said = {c.name: c.text.strip() for c in runtime.children if not c.children and c.text.strip()}
    _identity(crash, said)
    crash.message = said.get("ErrorMessage", "")[: limits.max_string_bytes] or crash.message
    crash.level = _LEVELS.get(said.get("CrashType", ""), "fatal")
    _exception(crash, said, limits)
    if not any(t.frames or t.registers is not None for t in crash.threads):
        crash.threads, crash.modules = _threads(runtime, said, limits)
    elif crash.exceptions and crash.exceptions[-1].frames is None:
        # The engine's own walk of the stack has names, where the dump has none without symbols.
        exact = said.get("CrashType") == "Crash"
        calls = enumerate(_calls(said)[:MAX_FRAMES])
        crash.exceptions[-1].frames = [_frame(c, None, is_return=bool(at) or not exact) for at, c in calls] or None


def _exception(crash: RawCrash, said: dict[str, str], limits: ReportLimits) -> None:
    """Add what the engine says happened, where the system's exception is its way of getting a dump or unknown."""
    kind = said.get("CrashType")
    if not kind or (kind == "Crash" and crash.exceptions):
        return
    found = RawException(kind, said.get("ErrorMessage", "")[: limits.max_string_bytes], mechanism="unreal")
    system = crash.exceptions[0] if crash.exceptions else None
    if system is not None and (system.code in _RAISED or system.code is None):
        found.code, found.thread_id = system.code, system.thread_id
        crash.exceptions[0] = found
    else:
        crash.exceptions.append(found)


# --- XML --------------------------------------------------------------------------------------------------------------


def _parse(data: bytes) -> tuple[_Element, Malformed | None]:
    """Return the document as a tree below an element without a name, and what ended the reading early."""
    root = _Element("")
    path = [root]
    count = 0
    parser = xml.parsers.expat.ParserCreate("utf-8")
    parser.buffer_text = True

    def start(name: str, _attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(path) > MAX_DEPTH or count > MAX_ELEMENTS:
            limit = "MAX_DEPTH" if len(path) > MAX_DEPTH else "MAX_ELEMENTS"
            raise Malformed("crash context", offset=parser.CurrentByteIndex, expected=f"no more than {limit}", got=name)
        element = _Element(name)
        path[-1].children.append(element)
        path.append(element)

    def end(_name: str) -> None:
        path.pop()

    def text(part: str) -> None:
        path[-1].text += part

    def doctype(name: str, *_: object) -> None:
        raise Malformed("crash context", offset=parser.CurrentByteIndex, expected="no document type", got=name)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = doctype
    try:
        parser.Parse(_decoded(data), True)
    except Malformed as e:
        return root, e
    except xml.parsers.expat.ExpatError as e:
        message = xml.parsers.expat.errors.messages.get(e.code, str(e))
        return root, Malformed("crash context", offset=parser.ErrorByteIndex, expected="XML", got=message)
    return root, None


def _decoded(data: bytes) -> bytes:
    """Return the text in UTF-8: the engine writes UTF-16 where a text needs it, and declares UTF-8 all the same."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        text = data[: len(data) & ~1].decode("utf-16", "replace")
    else:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    return text.rstrip("\0").encode("utf-8", "replace")


# --- Properties -------------------------------------------------------------------------------------------------------


def _attributes(crash: RawCrash, context: _Element, limits: ReportLimits) -> None:
    """Take every property under its own name; those of sections that games fill carry the section's."""
    for section in context.children:
        prefix = "" if section.name in {"RuntimeProperties", "PlatformProperties"} else f"{section.name}."
        for element in section.children:
            value = element.text.strip()
            if not value or element.children:
                continue
            if len(crash.attributes) >= limits.max_annotations:
                return
            key = f"{prefix}{element.name}"
            if key in crash.attributes:  # EnabledPlugins repeats one name.
                crash.attributes[key] = f"{crash.attributes[key]}\n{value}"[: limits.max_string_bytes]
            else:
                crash.attributes[key] = value[: limits.max_string_bytes]


def _identity(crash: RawCrash, said: dict[str, str]) -> None:
    if match := _GUID.fullmatch(said.get("CrashGUID", "")):
        # Later crashes of one session, _0001 and so on, have the same identifier.
        crash.event_id = match[1].lower()
    crash.pid = crash.pid if crash.pid is not None else _integer(said.get("ProcessId"))
    crash.process_name = crash.process_name or said.get("ExecutableName")
    crash.release = said.get("BuildVersion") or said.get("EngineVersion")
    crash.environment = said.get("BuildConfiguration")
    user = {"id": said.get("EpicAccountId") or said.get("LoginId"), "username": said.get("UserName")}
    crash.user |= {k: v for k, v in user.items() if v}
    if crash.uptime_s is None and (seconds := _integer(said.get("SecondsSinceStart"))):
        crash.uptime_s = float(seconds)
    if crash.timestamp is None and (ticks := _integer(said.get("TimeOfCrash"))) and ticks > _TICKS:
        crash.timestamp = (ticks - _TICKS) / 1e7
    platform = said.get("PlatformName", "") or said.get("PlatformFullName", "")
    if crash.os_name is None:
        crash.os_name = next((name for begin, name in _PLATFORMS if platform.startswith(begin)), None)
        crash.os_version = said.get("Misc.OSVersionMajor")
    if crash.arch is Arch.UNKNOWN:
        full = f"{platform} {said.get('PlatformFullName', '')}".lower()
        arm = "arm64" in full or "aarch64" in full
        crash.arch = Arch.ARM64 if arm else Arch.X86_64 if "win64" in full or "64b" in full else Arch.UNKNOWN


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and text.isascii() and len(text) < 20 else None


# --- Stacks -----------------------------------------------------------------------------------------------------------


def _threads(runtime: _Element, said: dict[str, str], limits: ReportLimits) -> tuple[list[RawThread], list[Module]]:
    """Return the context's own stacks: of all threads where it has them, else of the one that crashed."""
    stacks: list[tuple[RawThread, list[_Call]]] = []
    listed = runtime.find("Threads")
    for number, element in enumerate(listed.children[: limits.max_threads] if listed is not None else ()):
        texts = {c.name: c.text.strip() for c in element.children}
        thread_id = _integer(texts.get("ThreadID"))
        crashed = texts.get("IsCrashed", "").lower() == "true"
        name = texts.get("ThreadName") or None
        thread = RawThread(number if thread_id is None else thread_id, name, crashed)
        if calls := _portable(texts.get("CallStack", "")):
            stacks.append((thread, calls))
    calls = _calls(said)
    crashed_thread = next((t for t, _ in stacks if t.crashed), None)
    if calls and crashed_thread is None:
        stacks.insert(0, (RawThread(_integer(said.get("CrashingThreadId")) or 0, crashed=True), calls))
    modules = _modules([call for _, calls in stacks for call in calls], limits)
    known = {(m.code_file, m.image_addr) for m in modules}
    exact = said.get("CrashType") == "Crash"
    for thread, calls in stacks:
        thread.frames = [_frame(c, known, is_return=bool(at) or not exact) for at, c in enumerate(calls[:MAX_FRAMES])]
    return [t for t, _ in stacks], modules


def _calls(said: dict[str, str]) -> list[_Call]:
    """Return the stack of the thread that crashed, as the engine walked it."""
    named = _named(said.get("CallStack", ""))
    calls = _portable(said.get("PCallStack", ""))
    if len(calls) == len(named):
        return _joined(calls, named)
    return named or [call for call in calls if call.offset is not None]


def _portable(text: str) -> list[_Call]:
    """Read ``PCallStack``: module, base and offset. Older engines print the lower half of a base (see ``_frame``)."""
    found: list[_Call] = []
    words = text.split(None, 8 * MAX_FRAMES)
    for at in range(len(words) - 2):
        if words[at + 1] != "+" or not (_HEX.fullmatch(words[at]) and _HEX.fullmatch(words[at + 2])):
            continue
        base, offset = int(words[at], 16), int(words[at + 2], 16)
        unknown = base == _UNKNOWN and offset == _UNKNOWN
        module = words[at - 1] if at and words[at - 2 : at - 1] != ["+"] else None
        found.append(_Call(module, None if base <= _UNKNOWN else base, None if unknown else offset))
        if len(found) == MAX_FRAMES:
            break
    return found


def _named(text: str) -> list[_Call]:
    """Read ``CallStack``, a line each: ``Module!Function() [file:line]``, on Macs ``Function Address = 0x...``."""
    found = []
    for line in text.splitlines()[:MAX_FRAMES]:
        line = line.strip()[:_MAX_LINE]  # noqa: PLW2901
        if not line:
            continue
        function, mac, rest = line.partition("Address = 0x")
        call = _Call(function=function.strip())
        if mac:
            words = rest.split(None, 1)
            address = words[0] if words else ""
            call.base, call.offset = (int(address, 16), 0) if _HEX.fullmatch(address) else (None, None)
            places = words[1].split("[in ", 1) if len(words) > 1 else [""]
            call.module = places[1].rstrip("]") or None if len(places) > 1 else None
            _take_place(call, places[0].strip())
            if call.function in {"", "Unknown()"}:
                call.function = None
        else:
            at = line.rfind(" [")
            if at >= 0:
                call.function = line[:at].strip()
                _take_place(call, line[at + 1 :])
            module, named, rest = (call.function or "").partition("!")
            if named:
                call.module, call.function = module, rest or None
            elif "(" not in module:
                call.module, call.function = module or None, None  # A line of only the module's name
            if call.function in {"UnknownFunction", "UnknownFunction()", "0x0000000000000000"}:
                call.function = None
        found.append(call)
    return found


def _take_place(call: _Call, text: str) -> None:
    match = _PLACE.fullmatch(text[1:-1]) if text[:1] == "[" and text[-1:] == "]" else None
    if match:
        call.file, call.line = match[1], _integer(match[2])


def _joined(calls: list[_Call], named: list[_Call]) -> list[_Call]:
    """Join the two lists of one stack; where a named line has the whole address, that is where the base comes from."""
    for call, name in zip(calls, named, strict=True):
        call.function, call.file, call.line = name.function, name.file, name.line
        if name.base is not None:
            address = name.base
            if call.offset is None or call.offset > address:
                call.base, call.offset = address, 0
            else:
                call.base = address - call.offset
    return calls


def _modules(calls: list[_Call], limits: ReportLimits) -> list[Module]:
    """Return the modules whose bases are known whole; how far they reach is what the stacks prove."""
    spans: dict[tuple[str, int], int] = {}
    for call in calls:
        if call.module and call.base is not None and call.offset:
            key = (call.module, call.base)
            spans[key] = max(spans.get(key, 0), call.offset + 1)
    found: list[Module] = []
    for (name, base), size in sorted(spans.items(), key=lambda item: item[0][1]):
        if (not found or base >= found[-1].end) and base + size < 1 << 64 and len(found) < limits.max_modules:
            found.append(Module(base, size, code_file=name))
    return found


def _frame(call: _Call, known: set[tuple[str, int]] | None, *, is_return: bool) -> RawFrame:
    """Return a frame. Without a whole base only its offset is certain, and it gets no address to look up.

    ``known`` are the modules made of the context, where there are no better ones.
    """
    name = call.file.replace("\\", "/").rsplit("/", 1)[-1] if call.file else None
    reported = Frame(
        status="symbolicated" if call.function else "missing_symbol",
        package=call.module,
        function=call.function,
        filename=name,
        abs_path=call.file if call.file != name else None,
        lineno=call.line,
    )
    address = call.base + (call.offset or 0) if call.base is not None else None
    if address is not None and address >> 64:
        address = None
    outside = known is not None and (call.module or "", call.base or 0) not in known
    if address is not None and call.offset and outside:
        reported.instruction_addr, address = hex(address), None
    if address is None and call.offset is not None:
        reported.rva = hex(call.offset)
    return RawFrame(address, is_return, reported)
