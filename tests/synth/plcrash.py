"""Writes PLCrashReporter files message by message, in the order and with the field numbers of its own writer."""

from __future__ import annotations

from dataclasses import dataclass, field

from synth.protobuf import blob, number

HEADER = b"plcrash\x01"
UUID = bytes(range(0xA0, 0xB0))
ARM64, X86_64, I386, ARM = 0x0100_000C, 0x0100_0007, 7, 12
ARM64E = 0x8000_0002


def frame(pc: int, symbol: str | bytes = "", start: int = 0) -> bytes:
    said = blob(6, blob(1, symbol) + number(2, start)) if symbol else b""
    return number(3, pc) + said


def processor(kind: int, subtype: int = 0, encoding: int = 1) -> bytes:
    return number(1, encoding) + number(2, kind) + number(3, subtype)


@dataclass
class Report:
    """The parts of a report, each as the bytes of its message; what is empty is left away."""

    info: bytes = number(1, 0) + blob(2, UUID)
    system: bytes = b""
    machine: bytes = b""
    application: bytes = blob(1, "com.example.app") + blob(2, "7") + blob(3, "1.2.3")
    process: bytes = b""
    threads: list[bytes] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    exception: bytes = b""
    signal: bytes = b""
    custom: bytes | None = None

    def __post_init__(self) -> None:
        self.set_system()
        self.set_signal("SIGSEGV", "SEGV_MAPERR", 0x10)

    def set_system(self, system: int = 1, architecture: int = 6, when: int = 1_600_000_000) -> None:
        self.system = number(1, system) + blob(2, "14.1") + blob(5, "18A8395") + number(3, architecture)
        self.system += number(4, when)

    def set_machine(self, kind: int, subtype: int = 0) -> None:
        self.machine = blob(1, "iPhone11,8") + blob(2, processor(kind, subtype)) + number(3, 6) + number(4, 12)

    def set_process(self, name: str | bytes = "App", path: str | bytes = "/a/App.app/App", started: int = 0) -> None:
        self.process = blob(1, name) + number(2, 42) + blob(3, path) + blob(4, "launchd") + number(5, 1)
        self.process += number(6, 1) + number(7, started)

    def set_signal(self, name: str, code: str, address: int, mach: tuple[int, list[int]] | None = None) -> None:
        self.signal = blob(1, name) + blob(2, code) + number(3, address)
        if mach is not None:
            kind, codes = mach
            self.signal += blob(4, number(1, kind) + b"".join(number(2, code) for code in codes))

    def add_thread(
        self, index: int, frames: list[bytes], *, crashed: bool = False, registers: dict[str, int] | None = None
    ) -> None:
        held = b"".join(blob(4, blob(1, name) + number(2, value)) for name, value in (registers or {}).items())
        self.threads.append(number(1, index) + number(3, crashed) + held + b"".join(blob(2, f) for f in frames))

    def add_image(
        self,
        base: int,
        size: int,
        name: str | bytes,
        uuid: bytes | None = None,
        cpu: bytes | None = None,
        extra: bytes = b"",
    ) -> None:
        code = b"" if cpu is None else blob(5, cpu)
        image = number(2, size) + number(1, base) + blob(3, name) + (b"" if uuid is None else blob(4, uuid))
        self.images.append(image + code + extra)

    def set_exception(self, name: str, reason: str | bytes, frames: list[bytes]) -> None:
        self.exception = blob(1, name) + blob(2, reason) + b"".join(blob(3, f) for f in frames)

    def finish(self) -> bytes:
        parts = [(9, self.info), (1, self.system), (8, self.machine), (2, self.application), (7, self.process)]
        parts += [(3, t) for t in self.threads] + [(4, i) for i in self.images]
        parts += [(5, self.exception), (6, self.signal)]
        body = b"".join(blob(tag, part) for tag, part in parts if part)
        return HEADER + body + (b"" if self.custom is None else blob(10, self.custom))


def whole(base: int = 0x1_0000_0000, subtype: int = 1) -> Report:
    """Return an arm64 report with everything: two threads, two images, an NSException."""
    report = Report()
    report.set_machine(ARM64, 1)
    cpu = processor(ARM64, subtype)
    report.set_process(started=1_599_999_990)
    names = [*(f"x{i}" for i in range(29)), "fp", "lr", "sp", "pc", "cpsr"]
    registers = {name: base + i for i, name in enumerate(names)}
    report.add_thread(
        0, [frame(base + 0x1010), frame(base + 0x2024, "_main", base + 0x2000)], crashed=True, registers=registers
    )
    report.add_thread(3, [frame(base + 0x10_0010, "-[Foo bar:]", base + 0x10_0000), frame(0x99)])
    report.add_image(base, 0x4000, "/private/var/App.app/App", UUID, cpu)
    report.add_image(base + 0x10_0000, 0x2000, "/usr/lib/libx.dylib", bytes(range(16)), cpu)
    report.set_exception("NSRangeException", "index 23 beyond bounds", [frame(base + 0x1014), frame(base + 0x2024)])
    return report
