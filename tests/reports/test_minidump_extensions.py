"""The streams of Breakpad, Crashpad and Mozilla, and the one that the minidump package reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.reports.minidump import read
from synth.minidump import (
    AMD64,
    LINUX,
    MACOS,
    At,
    Minidump,
    codes,
    crashpad,
    linux_dump,
    read_built,
    u32,
    u64,
)

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def test_texts_and_assertion() -> None:
    dump = linux_dump()
    utf16 = ["x != 0", "run()", "main.cc"]
    dump.stream(0x47670002, *(t.encode("utf-16-le").ljust(256, b"\0") for t in utf16), u32(42, 0))
    dump.stream(11, "note\0".encode("utf-16-le"))
    dump.stream(0x4D7A0004, b'[{"InitErrors":[]}]')
    dump.stream(0x47670003, b"processor\t: 0\nmodel name\t: Some CPU\nmicrocode\t: 0x17\n\nmodel name\t: Other\n")
    attributes = read_built(dump).attributes
    assert attributes["assertion"] == "x != 0 (run(), main.cc:42)"
    assert (attributes["comment"], attributes["soft_errors"]) == ("note", '[{"InitErrors":[]}]')
    assert (attributes["cpu_model"], attributes["cpu_microcode"]) == ("Some CPU", "0x17")


def test_modules_from_the_maps_where_the_list_is_lost() -> None:
    dump = linux_dump()
    crash = read(dump.finish(), LIMITS)
    dump = linux_dump()
    dump._module_count = 0
    fallback = read_built(dump)
    assert [(m.code_file, m.image_addr, m.image_size) for m in fallback.modules] == [
        (m.code_file, m.image_addr, m.image_size) for m in crash.modules
    ]
    assert fallback.process_name == "app"


def maps(*lines: str) -> RawCrash:
    dump = Minidump()
    dump.system(AMD64, LINUX)
    dump.stream(0x47670009, "\n".join(lines).encode())
    return read_built(dump)


def test_maps_of_any_order() -> None:
    crash = maps(
        "5000-6000 r-xp 00000000 08:01 1   /lib/b.so",
        "6000-7000 rw-p 00000000 00:00 0",
        "8000-9000 rw-p 00001000 08:01 1   /lib/b.so",
        "1000-2000 ---p 00000000 08:01 2   /lib/back.so",
        "a000-a000 r--p 00000000 08:01 2   /lib/empty.so",
        "b000-a000 r--p 00000000 08:01 2   /lib/reversed.so",
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]\n\0\0",
    )
    assert crash.diagnostics[0].message == "the dump has no ThreadListStream"
    assert crash.regions is not None
    assert crash.regions.start.tolist() == [0x1000, 0x5000, 0x6000, 0x8000, 0xFFFFFFFFFF600000]
    assert crash.regions.access.tolist() == [0, 5, 3, 3, 4]
    assert [(m.code_file, m.image_addr, m.end) for m in crash.modules] == [("/lib/b.so", 0x5000, 0x9000)]


def test_lines_that_are_no_mappings_are_counted() -> None:
    crash = maps("5000-6000 r-xp 00000000 08:01 1   /lib/b.so", "what", "7000-8000 r-xp 00000000 00:")
    assert crash.regions is not None
    assert crash.regions.start.tolist() == [0x5000]
    assert [d.message for d in crash.diagnostics if d.where and d.where["stream"] == "MD_LINUX_MAPS"] == [
        "2 of 3 lines are no mappings"
    ]


def test_annotations_follow_the_module_list_not_the_addresses() -> None:
    dump = Minidump()
    dump.system(AMD64, MACOS)
    dump.module(0x9000, 0x1000, "/usr/lib/dyld")
    dump.module(0x1000, 0x1000, "/bin/main", version=(1, 0, 0, 0), file_type=1)
    crashpad(dump, {}, {0: {"k": "v"}, 1: {"k": "w"}, 77: {"k": "x"}})
    crash = read_built(dump)
    assert [crash.attributes[k] for k in ("dyld.k", "main.k", "module77.k")] == ["v", "w", "x"]
    assert crash.process_name == "main"


def test_annotations_of_old_writers_and_of_strange_types() -> None:
    dump = linux_dump()
    crashpad(dump, {"cmdline": "not this", "version": "1"}, {0: {"k": "v"}}, objects=False)
    crash = read_built(dump)
    assert crash.attributes["cmdline"] == "/usr/bin/app --flag"
    assert (crash.attributes["version"], crash.attributes["app.annotations"]) == ("1", "message")
    assert "app.k" not in crash.attributes


def handles(count: int, entry: int = 40) -> Minidump:
    dump = linux_dump()
    name = dump.string("File")
    records = [part for _ in range(3) for part in (u64(4), At(name), u32(0, 0, 0, 1, 1), bytes(8))]
    dump.stream(12, u32(16, entry, count, 0), *records)
    return dump


def test_handles_are_counted_by_type() -> None:
    attributes = read_built(handles(3)).attributes
    assert (attributes["handles"], attributes["handle_types"]) == ("3", "File 3")


@pytest.mark.parametrize(("count", "entry"), [(0xFFFFFFFF, 40), (3, 41), (0xFFFFFFFF, 0), (4, 40)])
def test_the_package_never_sees_impossible_counts(count: int, entry: int) -> None:
    crash = read_built(handles(count, entry))
    assert codes(crash) == ["stream_malformed"]
    assert "handles" not in crash.attributes
