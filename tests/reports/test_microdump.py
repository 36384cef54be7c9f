"""Microdumps in logs, made here, and those of the corpus with Breakpad's own word on them."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import Probe, detect
from deadreckon.reports.microdump import read

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

STACK = 0xBE80_0000
MODULE_ID = "DA7778FB66018A4E9B4110ED06E730D00"


def context(pc: int, sp: int) -> bytes:
    """Return MDRawContextARM: flags, r0-r15, cpsr, and what is of floating point."""
    registers = [*range(13), sp, 0x1235, pc]
    return struct.pack("<I16II", 0x4000_0006, *registers, 0x20) + bytes(368 - 72)


def lines(
    *, cpu: bytes = context(0x1_2345, STACK + 16), system: str = "O A arm 0C armv8l vendor/phone:9/P"
) -> list[str]:
    return [
        "-----BEGIN BREAKPAD MICRODUMP-----",
        "V WebView:48.0.2564.106",
        system,
        "P renderer",
        "R 0000000B SIGSEGV DEADBEEF",
        "G UNKNOWN",
        "H 12C00000 FFF73000 00D9",
        f"S 0 {STACK + 16:08X} {STACK:08X} 00000020",
        f"S {STACK:08X} {bytes(16).hex().upper()}",
        f"S {STACK + 16:08X} {struct.pack('<4I', 0, 0x1_0101, 7, 8).hex()}",
        f"C {cpu.hex().upper()}",
        f"M 00010000 00000000 00008000 {MODULE_ID} libfirst one.so",
        f"M 00020000 00E89000 00001000 {'0' * 33} base.apk",
        "-----END BREAKPAD MICRODUMP-----",
    ]


def log(said: list[str], tag: str = "08-17 19:45:06.579 F/google-breakpad( 4242): ") -> bytes:
    return "".join(f"{tag}{line}\n" for line in said).encode()


def crashes(data: bytes, limits: ReportLimits | None = None) -> list[RawCrash]:
    return read(memoryview(data), limits or ReportLimits())


def test_all_that_it_says() -> None:
    (crash,) = crashes(b"--------- beginning of crash\n" + log(lines()))
    assert (crash.os_name, crash.os_version, crash.arch) == ("Android", "vendor/phone:9/P", Arch.ARM)
    assert (crash.pid, crash.release) == (4242, "WebView:48.0.2564.106")
    assert crash.attributes == {"process_type": "renderer", "gpu": "UNKNOWN", "machine": "armv8l", "cpu_count": 12}
    (exception,) = crash.exceptions
    assert (exception.type, exception.code, exception.address) == ("SIGSEGV", 11, 0xDEAD_BEEF)
    (thread,) = crash.threads
    assert thread.crashed
    assert thread.registers is not None
    assert thread.registers.pc == 0x1_2345
    assert thread.registers.others == {"cpsr": 0x20}
    assert crash.memory.read(STACK + 20, 4) == (0x1_0101).to_bytes(4, "little")
    first, second = crash.modules
    assert (first.image_addr, first.image_size, first.code_file) == (0x1_0000, 0x8000, "libfirst one.so")
    assert first.debug_id == "da7778fb-6601-8a4e-9b41-10ed06e730d0"
    assert (second.file_offset, second.debug_id) == (0xE8_9000, None)
    assert crash.diagnostics == []


@pytest.mark.parametrize(
    ("tag", "pid"),
    [
        ("F/google-breakpad(23467): ", 23467),
        ("08-17 19:45:06.579  2210  2233 F google-breakpad: ", 2210),
        ("google-breakpad: ", None),
        ("W/google-breakpad( 3745): ", 3745),
    ],
)
def test_every_form_of_a_log(tag: str, pid: int | None) -> None:
    data = log(lines(), tag)
    form = detect(Probe(data))
    assert form is not None
    assert form.name == "microdump"
    (crash,) = crashes(data.replace(b"\n", b"\r\n"))
    assert crash.pid == pid
    assert len(crash.modules) == 2


def test_processes_that_write_at_once() -> None:
    mixed = []
    for one, other in zip(lines(), lines(cpu=context(0x1_5555, STACK)), strict=True):
        mixed += [f"F/google-breakpad(1): {one}", f"F/google-breakpad(2): {other}", "I/chromium(1): M 1 2 3"]
    found = crashes("\n".join(mixed).encode())
    assert [(c.pid, c.threads[0].registers.pc) for c in found if c.threads[0].registers] == [
        (1, 0x1_2345),
        (2, 0x1_5555),
    ]


def test_lines_before_the_first_are_of_a_dump_that_began_earlier() -> None:
    (crash,) = crashes(log(lines()[-4:]) + log(lines()))
    assert len(crash.modules) == 2


def test_damage_costs_its_line() -> None:
    said = lines()
    said[9], said[11] = "S BE800010 00XX", "M 00010000 nonsense"
    said.insert(4, "R what")
    (crash,) = crashes(log(said[:-1]))
    assert [d.code for d in crash.diagnostics] == ["malformed", "malformed", "malformed", "truncated"]
    assert crash.exceptions[0].type == "SIGSEGV"
    assert [m.code_file for m in crash.modules] == ["base.apk"]
    assert crash.memory.read(STACK, 16) == bytes(16)
    assert "line: expected hex" in str(crash.diagnostics[0].message)


@pytest.mark.parametrize(
    ("cpu", "system"),
    [(b"", "O A arm 02 armv7l x"), (context(1, 2)[:40], "O A arm 02 armv7l x"), (bytes(300), "O A mips 02 mips 3.0")],
)
def test_without_registers_the_rest_is_told(cpu: bytes, system: str) -> None:
    (crash,) = crashes(log(lines(cpu=cpu, system=system)))
    assert crash.threads[0].registers is None
    assert len(crash.modules) == 2
    assert str(crash.diagnostics[0].message).endswith(f"the CPU is {system.split()[2]}")


def test_signals_without_a_name() -> None:
    said = [line if line[:2] != "R " else "R 0000000B UNKNOWN 0" for line in lines()]
    assert crashes(log(said))[0].exceptions[0].type == "SIGSEGV"
    assert crashes(log([line for line in lines() if line[:2] != "R "]))[0].exceptions == []


def test_limits() -> None:
    with pytest.raises(Malformed):
        crashes(b"F/google-breakpad(1): V 1\n")
    with pytest.raises(LimitExceeded):
        crashes(log(lines()), ReportLimits(max_bytes=100))
    assert len(crashes(log(lines()), ReportLimits(max_modules=1))[0].modules) == 1
    assert len(crashes(b"google-breakpad: -----BEGIN BREAKPAD MICRODUMP-----\n" * 1000)) == 256


def test_mutations_never_break_it() -> None:
    rng = random.Random(7)
    whole = log(lines())
    read_whole = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            if rng.random() < 0.3:
                del data[at : at + rng.randrange(1, 80)]
            else:
                data[at] = rng.randrange(256)
        try:
            found = crashes(bytes(data))
        except Malformed:
            continue
        read_whole += found[0].threads[0].registers is not None
    assert read_whole > 1000


@pytest.mark.corpus
def test_the_corpus_equals_breakpads_walker(corpus: Path) -> None:
    """Its machine-readable output: thread, frame, module, function, file, line, offset."""
    folder = corpus / "native/breakpad/testdata"
    expected = (folder / "microdump.stackwalk.machine_readable-arm.out").read_text()
    rows = [row.split("|") for row in expected.splitlines() if row[:1].isdigit() and row.count("|") == 6]
    with Engine() as engine:
        event = engine.process(folder / "microdump-arm.dmp", symbols=[str(folder / "symbols/microdump")])
    frames = (event.threads or [])[0].frames or []
    told = [(f.function, str(f.lineno or "")) for f in frames]
    assert told[:7] == [(row[3], row[5]) for row in rows[:7]]
    assert [f.trust for f in frames[1:7]] == ["cfi"] * 6
    assert len(frames) == len(rows)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "count", "arch"),
    [("x86", 1, "x86"), ("withcrashreason", 6, "arm"), ("multiple", 2, "arm"), ("mips64", 1, "unknown")],
)
def test_the_corpus_is_read(corpus: Path, name: str, count: int, arch: str) -> None:
    found = crashes((corpus / f"native/breakpad/testdata/microdump-{name}.dmp").read_bytes())
    assert len(found) == count
    assert found[0].arch.value == arch
    assert found[0].modules
