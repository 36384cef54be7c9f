"""Android tombstones from one description: as debuggerd's protobuf message, as its text, and as logcat shows that.

Field numbers and lines are AOSP's (``tombstone.proto``, ``tombstone_proto_to_text.cpp``). ``from_proto`` reads a real
message back into a description, field by field, for tests that render it as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from synth.protobuf import blob, number

ABIS = ("arm", "arm64", "x86", "x86_64", "riscv64")
STARS = " ".join(["***"] * 16)
DASHES = " ".join(["---"] * 16)


@dataclass
class Frame:
    rel_pc: int = 0
    pc: int = 0
    function: str = ""
    offset: int = 0
    file: str = ""
    map_offset: int = 0
    build_id: str = ""


@dataclass
class Map:
    begin: int = 0
    end: int = 0
    offset: int = 0
    read: int = 0
    write: int = 0
    execute: int = 0
    name: str = ""
    build_id: str = ""
    load_bias: int = 0


@dataclass
class Thread:
    id: int = 0
    name: str = ""
    registers: list[tuple[str, int]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    memory: list[tuple[str, int, bytes]] = field(default_factory=list)
    """What is near the address in a register."""


@dataclass
class Tombstone:
    arch: int = 1
    fingerprint: str = "acme/phone/phone:14/UQ1A.240105.004/11206848:user/release-keys"
    revision: str = "MP1.0"
    timestamp: str = "2024-02-03 04:05:06.789012345+0100"
    pid: int = 100
    tid: int = 100
    uid: int = 10123
    command_line: list[str] = field(default_factory=lambda: ["com.acme.app"])
    uptime: int = 12
    signal: int = 11
    signal_name: str = "SIGSEGV"
    code: int = 1
    code_name: str = "SEGV_MAPERR"
    fault_address: int | None = 0x10
    sender: tuple[int, int] | None = None
    abort_message: str = ""
    causes: list[str] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    freed: list[Frame] = field(default_factory=list)


# -- protobuf ----------------------------------------------------------------------------------------------------------


def _optional(field_number: int, value: int | str) -> bytes:
    """Leave out what has proto3's default."""
    if not value:
        return b""
    return blob(field_number, value) if isinstance(value, str) else number(field_number, value)


def frame_message(frame: Frame) -> bytes:
    values: tuple[int | str, ...] = (
        frame.rel_pc,
        frame.pc,
        0,
        frame.function,
        frame.offset,
        frame.file,
        frame.map_offset,
        frame.build_id,
    )
    return b"".join(_optional(n, value) for n, value in enumerate(values, 1))


def thread_message(thread: Thread) -> bytes:
    registers = (_optional(1, name) + _optional(2, value) for name, value in thread.registers)
    return (
        _optional(1, thread.id)
        + _optional(2, thread.name)
        + b"".join(blob(3, r) for r in registers)
        + b"".join(blob(4, frame_message(f)) for f in thread.frames)
        + b"".join(blob(5, blob(1, name) + number(3, at) + blob(4, data)) for name, at, data in thread.memory)
    )


def to_proto(tomb: Tombstone) -> bytes:
    texts = ((2, tomb.fingerprint), (3, tomb.revision), (4, tomb.timestamp))
    out = _optional(1, tomb.arch) + b"".join(_optional(n, text) for n, text in texts)
    out += _optional(5, tomb.pid) + _optional(6, tomb.tid) + _optional(7, tomb.uid)
    out += b"".join(blob(9, text) for text in tomb.command_line)
    if tomb.signal:
        info = _optional(1, tomb.signal) + _optional(2, tomb.signal_name) + _optional(3, tomb.code)
        info += _optional(4, tomb.code_name)
        if tomb.sender:
            info += number(5, 1) + _optional(6, tomb.sender[1]) + _optional(7, tomb.sender[0])
        if tomb.fault_address is not None:
            info += number(8, 1) + _optional(9, tomb.fault_address)
        out += blob(10, info)
    out += _optional(14, tomb.abort_message)
    out += b"".join(blob(15, _optional(1, text)) for text in tomb.causes)
    if tomb.freed:
        heap = number(5, 7) + b"".join(blob(6, frame_message(f)) for f in tomb.freed)
        out += blob(15, blob(2, blob(3, heap)))
    out += b"".join(blob(16, number(1, t.id) + blob(2, thread_message(t))) for t in tomb.threads)
    for m in tomb.maps:
        numbers: tuple[int | str, ...] = (
            m.begin,
            m.end,
            m.offset,
            m.read,
            m.write,
            m.execute,
            m.name,
            m.build_id,
            m.load_bias,
        )
        out += blob(17, b"".join(_optional(n, value) for n, value in enumerate(numbers, 1)))
    return out + _optional(20, tomb.uptime) + number(1000, 5)


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Read one message's fields, as numbers and bytes."""
    found: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found.append((key >> 3, varint()))
        else:
            assert key & 7 == 2, key
            size = varint()
            found.append((key >> 3, data[at : at + size]))
            at += size
    return found


def _fill(target: Any, data: bytes, names: dict[int, str]) -> Any:
    for number_, value in fields(data):
        if number_ in names:
            setattr(target, names[number_], value.decode() if isinstance(value, bytes) else value)
    return target


_FRAME = {1: "rel_pc", 2: "pc", 4: "function", 5: "offset", 6: "file", 7: "map_offset", 8: "build_id"}
_MAP = {
    1: "begin",
    2: "end",
    3: "offset",
    4: "read",
    5: "write",
    6: "execute",
    7: "name",
    8: "build_id",
    9: "load_bias",
}
_TOP = {1: "arch", 2: "fingerprint", 3: "revision", 4: "timestamp", 5: "pid", 6: "tid", 7: "uid", 20: "uptime"}
_SIGNAL = {1: "signal", 2: "signal_name", 3: "code", 4: "code_name", 9: "fault_address"}


def from_proto(data: bytes) -> Tombstone:
    tomb = Tombstone(command_line=[], arch=0, fault_address=None)
    _fill(tomb, data, _TOP)
    for number_, value in fields(data):
        if number_ == 9:
            tomb.command_line.append(value.decode())
        elif number_ == 10:
            _fill(tomb, value, _SIGNAL)
            if (8, 1) in fields(value):
                tomb.fault_address = tomb.fault_address or 0
            if tomb.code >> 63:
                tomb.code -= 1 << 64
        elif number_ == 14:
            tomb.abort_message = value.decode()
        elif number_ == 15:
            tomb.causes += [v.decode() for n, v in fields(value) if n == 1]
        elif number_ == 16:
            tomb.threads.append(_thread(dict(fields(value))[2]))
        elif number_ == 17:
            tomb.maps.append(_fill(Map(), value, _MAP))
    return tomb


def _thread(data: bytes) -> Thread:
    thread = Thread()
    for number_, value in fields(data):
        if number_ == 1:
            thread.id = value
        elif number_ == 2:
            thread.name = value.decode()
        elif number_ == 3:
            register = dict(fields(value))
            thread.registers.append((register[1].decode(), register.get(2, 0)))
        elif number_ == 4:
            thread.frames.append(_fill(Frame(), value, _FRAME))
        elif number_ == 5:
            piece = dict(fields(value))
            thread.memory.append((piece[1].decode(), piece.get(3, 0), piece.get(4, b"")))
    return thread


# -- text --------------------------------------------------------------------------------------------------------------


def frame_line(index: int, frame: Frame, width: int) -> str:
    line = f"      #{index:02} pc {frame.rel_pc:0{width}x}  {frame.file or '<unknown>'}"
    if frame.map_offset:
        line += f" (offset {frame.map_offset:#x})"
    if frame.function:
        line += f" ({frame.function}+{frame.offset})" if frame.offset else f" ({frame.function})"
    return line + (f" (BuildId: {frame.build_id})" if frame.build_id else "")


def map_line(m: Map) -> str:
    last = m.end - 1
    rights = "".join(letter if on else "-" for letter, on in zip("rwx", (m.read, m.write, m.execute), strict=True))
    spans = f"{m.begin >> 32:08x}'{m.begin & 0xFFFFFFFF:08x}-{last >> 32:08x}'{last & 0xFFFFFFFF:08x}"
    line = f"    {spans} {rights} {m.offset:9x} {m.end - m.begin:9x}"
    line += f"  {m.name}" if m.name else ""
    line += f" (BuildId: {m.build_id})" if m.build_id else ""
    return line + (f" (load bias {m.load_bias:#x})" if m.load_bias else "")


def _thread_lines(tomb: Tombstone, thread: Thread) -> list[str]:
    width = 16 if tomb.arch in {1, 3, 4} else 8
    process = " ".join(tomb.command_line)
    return [f"pid: {tomb.pid}, tid: {thread.id}, name: {thread.name}  >>> {process} <<<", f"uid: {tomb.uid}", *(
        [_signal_line(tomb, width)] if thread.id == tomb.tid and tomb.signal else []
    )]  # fmt: skip


def _signal_line(tomb: Tombstone, width: int) -> str:
    sender = f" from pid {tomb.sender[0]}, uid {tomb.sender[1]}" if tomb.sender else ""
    address = f"0x{tomb.fault_address:0{width}x}" if tomb.fault_address is not None else "--------"
    code = f"code {tomb.code} ({tomb.code_name}{sender})"
    return f"signal {tomb.signal} ({tomb.signal_name}), {code}, fault addr {address}"


def memory_lines(tomb: Tombstone, name: str, address: int, data: bytes) -> list[str]:
    word = 8 if tomb.arch in {1, 3, 4} else 4
    lines = ["", f"memory near {name} (/system/lib64/libc.so):"]
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        words = [row[n : n + word][::-1].hex() for n in range(0, 16, word)]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"    {address + at:0{2 * word}x} {' '.join(words)}  {shown}")
    return lines


def _stack_lines(tomb: Tombstone, thread: Thread) -> list[str]:
    width = 16 if tomb.arch in {1, 3, 4} else 8
    rows = [thread.registers[at : at + 4] for at in range(0, len(thread.registers), 4)]
    lines = ["    " + "  ".join(f"{name:<3} {value:0{width}x}" for name, value in row) for row in rows]
    lines += ["", f"{len(thread.frames)} total frames", "backtrace:"]
    return lines + [frame_line(i, f, width) for i, f in enumerate(thread.frames)]


def to_text(tomb: Tombstone) -> str:
    crashed = next(t for t in tomb.threads if t.id == tomb.tid)
    lines = [
        STARS,
        f"Build fingerprint: '{tomb.fingerprint}'",
        f"Revision: '{tomb.revision}'",
        f"ABI: '{ABIS[tomb.arch]}'",
        f"Timestamp: {tomb.timestamp}",
        f"Process uptime: {tomb.uptime}s",
        f"Cmdline: {' '.join(tomb.command_line)}",
        *_thread_lines(tomb, crashed),
        *(f"Cause: {text}" for text in tomb.causes),
        *([f"Abort message: '{tomb.abort_message}'"] if tomb.abort_message else []),
        *_stack_lines(tomb, crashed),
    ]
    if tomb.freed:
        lines += ["", "deallocated by thread 7:", *(frame_line(i, f, 16) for i, f in enumerate(tomb.freed))]
    for name, address, data in crashed.memory:
        lines += memory_lines(tomb, name, address, data)
    lines += ["", f"memory map ({len(tomb.maps)} entries):", *map(map_line, tomb.maps), ""]
    for thread in tomb.threads:
        if thread is not crashed:
            lines += [DASHES, *_thread_lines(tomb, thread), *_stack_lines(tomb, thread), ""]
    lines += ["open files:", "    fd 0: /dev/null (unowned)", "", "--------- log main"]
    lines += [f"02-03 04:05:06.789  {tomb.pid}  {tomb.tid} F libc    : Fatal signal 11 (SIGSEGV)"]
    return "\n".join(lines) + "\n"


def to_logcat(text: str, pid: int = 4321) -> str:
    prefix = f"02-03 04:05:06.999 {pid:5} {pid:5} F DEBUG   : "
    return "".join(f"{prefix}{line}\n" for line in text.splitlines())


def sample(**changes: Any) -> Tombstone:
    """Return a tombstone of two threads in three libraries, one of them inside an APK, with frames of Java."""
    ids = {name: f"{index:02x}" * 20 for index, name in enumerate(("app", "c", "game"), 0x11)}
    app, c, apk = (
        "/data/app/lib/arm64/libapp.so",
        "/apex/com.android.runtime/lib64/bionic/libc.so",
        "/data/app/base.apk",
    )
    odex = "/data/app/oat/arm64/base.odex"
    maps = [
        Map(0x7000000000, 0x7000001000, 0, 1, 0, 0, app, ids["app"]),
        Map(0x7000004000, 0x7000006000, 0x1000, 1, 0, 1, app, ids["app"], 0x3000),
        Map(0x7000006000, 0x7000007000, 0, 0, 0, 0, "[page size compat]"),
        Map(0x7000008000, 0x7000009000, 0x3000, 1, 1, 0, app, ids["app"], 0x3000),
        Map(0x7100000000, 0x7100010000, 0, 1, 0, 0, c, ids["c"]),
        Map(0x7100010000, 0x7100080000, 0x10000, 1, 0, 1, c, ids["c"]),
        Map(0x7200000000, 0x7200004000, 0x20000, 1, 0, 1, apk, ids["game"]),
        Map(0x7300000000, 0x7300400000, 0, 1, 0, 1, odex),
        Map(0x7FF0000000, 0x7FF0800000, 0, 1, 1, 0, "[stack]"),
    ]
    registers = [("x0", 0x10), ("x1", 0), ("lr", 0x7100010104), ("sp", 0x7FF0700000), ("pc", 0x7000004A7C)]
    crashed = Thread(100, "com.acme.app", registers, [
        Frame(0x4A7C, 0x7000004A7C, "acme::crash(int*)", 28, app, 0, ids["app"]),
        Frame(0x10100, 0x7100010100, "abort", 172, c, 0, ids["c"]),
        Frame(0x1234, 0x7200001234, "", 0, f"{apk}!libgame.so", 0x20000, ids["game"]),
        Frame(0x148A7C, 0x7300148A7C, "E3.A.run", 0, odex),
        Frame(0x20F00, 0x7100020F00, "__pthread_start(void*)", 208, c, 0, ids["c"]),
    ])  # fmt: skip
    other = Thread(107, "worker 1", [("x0", 0), ("pc", 0x7100010200)], [
        Frame(0x10200, 0x7100010200, "syscall", 28, c, 0, ids["c"]),
        Frame(0xDEAD0, 0xDEAD0),
    ])  # fmt: skip
    crashed.memory = [("sp", 0x7FF0700000, bytes(range(64))), ("pc", 0x7000004A60, b"pc is 0x61 -- so" * 2)]
    tomb = Tombstone(threads=[crashed, other], maps=maps)
    for name, value in changes.items():
        setattr(tomb, name, value)
    return tomb
