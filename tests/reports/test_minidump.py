"""The minidump reader over whole dumps, and dumps that can't be read."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.ids import Arch, DebugId
from deadreckon.reports.minidump import read, sniff
from synth.minidump import (
    AMD64,
    LINUX,
    Minidump,
    codes,
    linux_dump,
    read_built,
    u32,
    u64,
)

if TYPE_CHECKING:
    from pathlib import Path


LIMITS = ReportLimits()


def test_a_whole_linux_dump() -> None:
    crash = read_built(linux_dump())
    assert crash.diagnostics == []
    assert (crash.format, crash.arch, crash.os_name) == ("minidump", Arch.X86_64, "Linux")
    assert (crash.os_version, crash.os_build) == ("5.4.0-42-generic", "#46-Ubuntu SMP Fri Jul 10 2020")
    assert (crash.pid, crash.uptime_s, crash.timestamp) == (4321, 10.0, 1_600_000_000.0)
    assert (crash.process_name, crash.event_id) == ("app", "03020100050407060809" + "0a0b0c0d0e0f")
    (exception,) = crash.exceptions
    assert (exception.type, exception.value) == ("SIGSEGV", "SEGV_MAPERR at 0xdead")
    assert (exception.code, exception.address, exception.thread_id) == (11, 0xDEAD, 11)
    assert [(t.id, t.name, t.crashed) for t in crash.threads] == [(11, "main", True), (12, None, False)]
    first, second = (t.registers for t in crash.threads)
    assert first is not None
    assert second is not None
    # The crashed thread starts from the exception's context, not from its own, in which it waits for the writer.
    assert (first.pc, first.sp, first.get(6), first.get(15)) == (0x401234, 0x7FFF0010, 0x7FFF0080, 15)
    assert second.pc == 0x7F0000001000
    app, libc = crash.modules
    assert (app.code_file, app.image_addr, app.image_size, app.arch) == ("/usr/bin/app", 0x400000, 0x10000, Arch.X86_64)
    assert app.code_id == bytes(range(1, 21)).hex()
    assert app.debug_id == str(DebugId.from_build_id(bytes(range(1, 21))))
    assert (libc.debug_file, libc.debug_id, libc.code_id) == ("libc.so.6", "13121110-1514-1716-1819-1a1b1c1d1e1f", None)
    assert crash.memory.read(0x7FFF0000, 8) == u64(0x7000_0000)
    assert crash.memory.read(0x401010, 4) == bytes([16, 17, 18, 19])
    assert crash.regions is not None
    assert (crash.regions.start.tolist(), crash.regions.access.tolist()) == ([0x400000], [5])
    assert crash.attributes == {
        "cpu": "family 6 model 42 stepping 7",
        "cpu_count": "4",
        "cmdline": "/usr/bin/app --flag",
        "environ_count": "2",
        "lsb.id": "Ubuntu",
        "lsb.release": "20.04",
        "entry_point": "0x400500",
        "prod": "app",
        "app.channel": "beta",
        "app.annotations": "message",
    }
    assert not any("SECRET" in value for value in crash.attributes.values())


def test_mapped_files_and_views_are_read_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "dump.dmp"
    path.write_bytes(linux_dump().finish())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    crash = read(mapped, LIMITS)
    assert np.shares_memory(crash.memory.buffer, np.frombuffer(mapped, np.uint8))
    assert sniff(memoryview(mapped)[:64])
    assert len(read(memoryview(path.read_bytes()), LIMITS).threads) == 2


def test_common_dumps_do_not_import_the_package() -> None:
    program = (
        "import sys; from synth.minidump import linux_dump; from deadreckon.reports.minidump import read;"
        "from deadreckon.config import ReportLimits; read(linux_dump().finish(), ReportLimits());"
        "sys.exit('minidump' in sys.modules or 'numba' in sys.modules)"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": paths}, check=False).returncode == 0


@pytest.mark.parametrize("data", [b"", b"MDMP", b"MDMP" + bytes(27), b"JUNK" + bytes(28), b"MDMP" + u32(1) + bytes(24)])
def test_an_unreadable_header_raises(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data, LIMITS)


def test_an_unreadable_directory_raises() -> None:
    for count, rva in ((5, 32), (1, 0xFFFFFFFF), (0xFFFFFFFF, 32)):
        with pytest.raises(Malformed, match="directory"):
            read(b"MDMP" + u32(0xA793, count, rva, 0, 0) + bytes(8), LIMITS)


def test_a_dump_of_nothing_raises() -> None:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    with pytest.raises(Malformed):
        read_built(dump)


def test_big_endian_is_recognised_and_refused() -> None:
    data = b"PMDM" + bytes(60)
    assert sniff(memoryview(data))
    with pytest.raises(Unsupported, match="big-endian"):
        read(data, LIMITS)
    assert not sniff(memoryview(b"MD"))


def test_a_directory_entry_outside_the_file_costs_its_stream_only() -> None:
    dump = linux_dump()
    data = bytearray(dump.finish())
    index = next(i for i, (stream_type, _) in enumerate(dump.directory) if stream_type == 16)
    data[32 + 12 * index + 8 : 32 + 12 * index + 12] = u32(0xFFFFFFF0)
    crash = read(bytes(data), LIMITS)
    (diagnostic,) = crash.diagnostics
    assert diagnostic.code == "stream_malformed"
    assert diagnostic.where == {"stream": "MemoryInfoListStream", "offset": 0xFFFFFFF0, "expected": 64, "got": 0}
    assert len(crash.threads) == 2


def test_of_two_streams_the_last_counts() -> None:
    dump = linux_dump()
    dump.stream(0x47670006, b"second\0")
    crash = read_built(dump)
    assert crash.attributes["cmdline"] == "second"
    (diagnostic,) = crash.diagnostics
    assert (diagnostic.code, diagnostic.where and diagnostic.where["stream"]) == (
        "stream_duplicate",
        "MD_LINUX_CMD_LINE",
    )


def test_limits() -> None:
    data = linux_dump().finish()
    with pytest.raises(LimitExceeded):
        read(data, ReportLimits(max_bytes=100))
    crash = read(data, ReportLimits(max_threads=1, max_modules=1, max_regions=2))
    assert (len(crash.threads), len(crash.modules)) == (1, 1)
    assert codes(crash).count("limit_exceeded") == 3
    assert codes(read(data, ReportLimits(max_streams=5)))[0] == "limit_exceeded"
    few = read(data, ReportLimits(max_annotations=1))
    assert "limit_exceeded" in codes(few)
