"""Snapshots: what docs/snapshot.md promises of the format, read from containers that other tools wrote."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawException, RawThread, Regions
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports import elfcore, minidump
from deadreckon.reports.snapshot import Origin, dump, read, reading, writing
from synth.snapshot import MODULE, STACK, pack, report

LIMITS = ReportLimits()
ROOT = Path(__file__).parents[2] / "native_fixtures"


def messages(crash: RawCrash) -> list[str]:
    return [f"{d.code}: {d.message}" for d in crash.diagnostics]


def again(crash: RawCrash, memory: list[tuple[int, bytes]] | None = None, **extra: Any) -> RawCrash:
    """Write a crash and read it back."""
    out = io.BytesIO()
    dump(out, crash, memory or [], origin=Origin(format=crash.format), **extra)
    return read(out.getvalue(), LIMITS)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_all_members(method: int) -> None:
    told = report(
        platform="native",
        level="error",
        message="why",
        release="1.2",
        environment="lab",
        address_mask="0x7fffffffffff",
        origin={"format": "elfcore", "name": "core.17"},
        attributes={"a": [1, {"b": None}]},
        tags={"t": "u"},
        unloaded_modules=[{"image_addr": "0x10000", "image_size": 16, "code_file": "gone"}],
        diagnostics=[{"code": "truncated", "severity": "warning", "message": "cut"}],
    )
    crash = read(pack(told, method=method, attachments={"app.log": b"12345"}), LIMITS)
    assert (crash.format, crash.platform, crash.arch) == ("btt", "native", Arch.X86_64)
    assert (crash.event_id, crash.timestamp) == ("0123456789abcdef0123456789abcdef", 1772366400.0)
    assert (crash.os_name, crash.os_version, crash.process_name, crash.pid) == ("Linux", "6.1", "app", 17)
    assert (crash.level, crash.message, crash.release, crash.environment) == ("error", "why", "1.2", "lab")
    assert crash.address_mask == 0x7FFF_FFFF_FFFF
    assert crash.attributes == {"a": [1, {"b": None}], "snapshot.origin": {"format": "elfcore", "name": "core.17"}}
    assert crash.tags == {"t": "u"}
    (why,) = crash.exceptions
    assert (why.type, why.value, why.code, why.address) == ("SIGSEGV", "SEGV_MAPERR at 0x18", 11, 0x18)
    first, second = crash.threads
    assert (first.id, first.name, first.crashed) == (17, "main", True)
    assert first.registers is not None
    assert first.registers.as_hex() == {"rbp": "0x7ffc1040", "rsp": "0x7ffc1010", "rip": "0x401136"}
    assert (second.id, second.crashed) == (18, False)
    (module,) = crash.modules
    assert (module.image_addr, module.end, module.code_file) == (MODULE, MODULE + 0x4000, "/opt/app")
    assert module.debug_id == "2cb1f1f5-8d3b-4a53-9d2c-6b8a6f0f9c1e"
    assert [m.code_file for m in crash.unloaded_modules] == ["gone"]
    assert crash.memory.read(STACK + 0x10, 4) == b"\x10\x11\x12\x13"
    assert crash.regions is not None
    assert crash.regions.access.tolist() == [5, 3]
    assert [(a.name, a.size) for a in crash.attachments] == [("app.log", 5)]
    assert messages(crash) == ["truncated: cut"]


def test_the_sample_in_the_manual() -> None:
    text = (ROOT.parent / "docs/snapshot.md").read_text()
    sample = json.loads(text.partition("```json")[2].partition("```")[0])
    crash = read(pack(sample, bytes(8192)), LIMITS)
    assert crash.diagnostics == []
    (thread,) = crash.threads
    assert thread.registers is not None
    assert thread.registers.pc == 0x401136
    assert len(crash.modules) == 1
    assert crash.memory.read(0x7FFC1000, 8192) == bytes(8192)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"threads": [{"id": "x"}, {"id": 1}]}, "malformed: report.json.threads[0]: Expected `int`, got `str`"),
        ({"threads": [{"id": 1, "registers": {"rip": "12"}}]}, "expected an address, 0x and up to 16 hex digits"),
        ({"threads": [{"id": 1, "registers": {"rip": "0x1_0"}}]}, "got '0x1_0'"),
        ({"threads": {}}, "malformed: report.json.threads: Expected `array`, got `object`"),
        ({"modules": [{"image_addr": "0x1", "image_size": 1 << 64}]}, "report.json.modules[0]"),
        ({"modules": [{"image_addr": "0xffffffffffffffff", "image_size": 16}]}, "out of range"),
        ({"modules": [{"image_addr": "0x1", "image_size": 1, "debug_id": "zz"}]}, "not a debug id: 'zz'"),
        ({"regions": [{"start": "0x2", "end": "0x1", "access": "r"}]}, "0x2 to 0x1 is empty"),
        ({"address_mask": "-0x1"}, "report.json.address_mask: expected an address"),
        ({"timestamp": "yesterday"}, "report.json.timestamp: Invalid isoformat string"),
        ({"arch": "vax"}, "report.json.arch: 'vax'"),
        ({"os": 3}, "report.json.os: Expected `object`, got `int`"),
        ({"diagnostics": [{"code": "bogus", "severity": "info"}]}, "unknown code 'bogus'"),
        ({"memory": [{"start": hex(STACK), "size": 0x2000, "offset": 0}]}, "memory.bin ends after 4096 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_costs_itself(changes: dict[str, Any], problem: str) -> None:
    crash = read(pack(report(**changes)), LIMITS)
    assert len(crash.diagnostics) == 1
    assert problem in messages(crash)[0]
    kept = {"threads": 2, "modules": 1, "exceptions": 1}
    for name in set(kept) - set(changes):
        assert len(getattr(crash, name)) == kept[name]


def test_overlaps() -> None:
    two = [{"image_addr": hex(MODULE + n), "image_size": 0x1000, "code_file": str(n)} for n in (0, 0x800)]
    crash = read(pack(report(modules=two)), LIMITS)
    assert [m.code_file for m in crash.modules] == ["0"]
    assert messages(crash) == ["module_overlap: module 2048 overlaps an earlier one"]
    rows = [
        {"start": "0x1000", "end": "0x3000", "access": "r--"},
        {"start": "0x2000", "end": "0x4000", "access": "rwx"},
    ]
    crash = read(pack(report(regions=rows)), LIMITS)
    assert crash.regions is not None
    assert crash.regions.access.tolist() == [1]
    assert messages(crash) == ["malformed: regions overlap at 0x2000; the later one was dropped"]


def test_another_version() -> None:
    with pytest.raises(Unsupported, match=r"snapshot of version 'deadreckon\.snapshot/9'"):
        read(pack(report(schema="deadreckon.snapshot/9")), LIMITS)
    for schema in ("deadreckon.event/1", None, 7):
        with pytest.raises(Malformed, match=r'expected "schema": "deadreckon\.snapshot/1"'):
            read(pack(report(schema=schema)), LIMITS)
    with pytest.raises(Malformed, match=r"report\.json"):
        read(pack(b"[1]"), LIMITS)
    with pytest.raises(Malformed, match=r"report\.json: at offset 0x1"):
        read(pack(b"{"), LIMITS)
    with pytest.raises(LimitExceeded):
        read(pack(b"[" * 100_000), LIMITS)


def test_an_event_id_is_an_id() -> None:
    hashed = hashlib.sha256(b"../../etc").hexdigest()[:32]
    assert read(pack(report(event_id="../../etc")), LIMITS).event_id == hashed
    assert read(pack(report(event_id=None)), LIMITS).event_id is None


def test_memory_that_does_not_match_its_checksum_is_not_used() -> None:
    data = bytearray(pack(report(), method=zipfile.ZIP_STORED))
    data[data.index(bytes(range(256)))] ^= 1
    crash = read(bytes(data), LIMITS)
    assert len(crash.memory.start) == 0
    assert messages(crash) == ["malformed: memory.bin does not match its checksum: no stack can be read"]
    report_at = data.index(b'"schema"')
    data[report_at + 30] ^= 1
    with pytest.raises(Malformed, match=r"expected member 'report\.json', got corrupt"):
        read(bytes(data), LIMITS)


def test_memory_cut_short_is_used_up_to_the_cut() -> None:
    data = pack(report(), method=zipfile.ZIP_STORED)
    end = data.index(bytes(range(256))) + 0x900
    crash = read(data[:end], LIMITS)
    assert crash.memory.read(STACK, 0x900) is not None
    assert crash.memory.read(STACK, 0x901) is None
    assert [d.code for d in crash.diagnostics] == ["truncated", "truncated"]
    assert len(crash.threads) == 2
    without = read(pack(report(), None), LIMITS)
    assert messages(without) == ["malformed: memory.bin is missing: no stack can be read"]


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ReportLimits(max_threads=1, max_modules=1, max_regions=1, max_annotations=1, max_string_bytes=40)
    crash = read(pack(report(message="x" * 50, attributes={"a": 1, "b": 2})), limits)
    assert (len(crash.threads), crash.message, crash.attributes) == (1, "x" * 40, {"a": 1})
    assert [d.code for d in crash.diagnostics] == ["limit_exceeded", "limit_exceeded"]
    monkeypatch.setattr(reading, "MAX_MEMORY", 4095)
    with pytest.raises(LimitExceeded, match=r"memory\.bin: limit snapshot\.member_bytes is 4095, got 4096"):
        read(pack(report()), LIMITS)


# -- writing ----------------------------------------------------------------------------------------------------------

words = st.integers(0, (1 << 64) - 1)
texts = st.none() | st.text(min_size=1, max_size=8)


@given(
    st.sampled_from([a for a in Arch if a in REGISTER_SETS]).flatmap(
        lambda arch: st.tuples(st.just(arch), st.dictionaries(st.sampled_from(REGISTER_SETS[arch].names), words))
    ),
    st.lists(st.tuples(words, st.integers(1, 1 << 40), texts), max_size=4),
    st.lists(st.tuples(texts, st.text(max_size=8), st.none() | words), max_size=3),
    st.lists(st.integers(1, 5000), max_size=4),
)
def test_what_is_written_is_read(
    row: tuple[Arch, dict[str, int]],
    images: list[tuple[int, int, str | None]],
    reasons: list[tuple[str | None, str, int | None]],
    sizes: list[int],
) -> None:
    arch, registers = row
    modules: list[Module] = []
    for start, size, name in sorted(images, key=lambda image: image[0]):
        if start + size < 1 << 64 and (not modules or modules[-1].end <= start):
            modules.append(Module(start, size, name or "", version=name))
    memory, at = [], 0x1000
    for size in sizes:
        memory.append((at, bytes(n % 251 for n in range(size))))
        at += size + 16
    crash = RawCrash(
        "elfcore",
        arch=arch,
        threads=[RawThread(1, "a", True, Registers.from_mapping(arch, registers)), RawThread(2)],
        modules=modules,
        exceptions=[RawException(kind, value, address, address) for kind, value, address in reasons],
        regions=Regions.from_ranges([(0x1000, 0x2000, 5), (0x2000, 0x3000, 5), (0x4000, 0x5000, 0)]),
    )
    found = again(crash, memory)
    assert found.diagnostics == []
    assert found.modules == modules
    assert found.exceptions == crash.exceptions
    assert found.threads[0].registers is None or found.threads[0].registers.as_hex() == {
        n: hex(v & (1 << 64) - 1) for n, v in sorted(registers.items(), key=lambda r: REGISTER_SETS[arch].index(r[0]))
    }
    assert (found.threads[0].registers is None) == (not registers)
    for start, data in memory:
        assert found.memory.read(start, len(data)) == data
    assert found.regions is not None
    rows = [c.tolist() for c in (found.regions.start, found.regions.end, found.regions.access)]
    assert list(zip(*rows, strict=True)) == [(0x1000, 0x3000, 5), (0x4000, 0x5000, 0)]


@pytest.mark.parametrize("name", ["x86_64/pie-O2/dumps/threads.core.xz", "arm64/static-O2/dumps/signal.dmp"])
def test_nothing_is_lost_but_memory(name: str) -> None:
    path = ROOT / "linux" / name
    if path.suffix == ".xz":
        crash = elfcore.read(lzma.decompress(path.read_bytes()), LIMITS)
    else:
        crash = minidump.read(path.read_bytes(), LIMITS)
    found = again(crash)
    skipped = {"format", "memory", "regions", "threads", "attributes", "event_id"}
    for field in fields(RawCrash):
        if field.name not in skipped:
            assert getattr(found, field.name) == getattr(crash, field.name), field.name
    for one, other in zip(crash.threads, found.threads, strict=True):
        assert (one.id, one.name, one.crashed, one.frames) == (other.id, other.name, other.crashed, other.frames)
        assert one.registers is not None
        assert other.registers is not None
        assert one.registers.as_hex() == other.registers.as_hex()
        assert one.registers.valid == other.registers.valid
    assert crash.attributes.items() <= found.attributes.items()


def test_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_MEMORY", 100)
    with pytest.raises(LimitExceeded, match="max_memory"):
        again(RawCrash("elfcore", arch=Arch.X86), [(0, bytes(101))])


def test_impossible_times_are_left_out() -> None:
    assert again(RawCrash("minidump", arch=Arch.X86, timestamp=1e300)).timestamp is None
    assert again(RawCrash("minidump", arch=Arch.X86, timestamp=1.5)).timestamp == 1.5


def test_an_event_of_it() -> None:
    with Engine() as engine:
        event = engine.process(pack(report(), attachments={"a": b""}), name="x.btt")
    assert (event.status, event.source.format) == ("ok", "btt")
    assert event.level == "fatal"
    assert [(t.id, t.crashed, (t.frames or [])[0].rva) for t in event.threads or ()] == [
        (17, True, "0x1136"),
        (18, False, "0x1200"),
    ]
    assert [a.name for a in event.attachments or ()] == ["a"]


def test_memory_map_is_what_the_ranges_say() -> None:
    told = report(memory=[{"start": "0x100", "size": 8, "offset": 8}, {"start": "0x200", "size": 8, "offset": 0}])
    memory = read(pack(told, bytes(range(16))), LIMITS).memory
    expected = MemoryMap.from_ranges([(0x100, 8, 8), (0x200, 8, 0)], np.arange(16, dtype=np.uint8))
    assert memory.start.tolist() == expected.start.tolist()
    assert memory.read(0x100, 8) == bytes(range(8, 16))
    assert memory.read(0x200, 8) == bytes(range(8))
