"""Limits, and the bombs they are there for."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ArchiveLimits
from synth.archives import (
    contents,
    gzip_repeated,
    gzip_zeros,
    limits_of,
    make_7z_bomb,
    make_tar,
    make_zip,
    pax_record,
    run,
    tar_header,
    tar_padded,
    unpack_in_child,
    zeros,
    zip_entry,
    zip_of_names,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("backend")
def test_limit_of_an_entry() -> None:
    for data in (make_zip(), make_tar(), make_tar(mode="w:gz")):
        found, problems = run(data, ArchiveLimits(max_entry_bytes=1000))
        assert [name for _, name, _ in found] == ["a.txt", "empty", "c.txt"]
        assert [p.where for p in problems] == [{"limit": "max_entry_bytes", "allowed": 1000, "entry": "up/dir/b.bin"}]
        found, problems = run(data, ArchiveLimits(max_entry_bytes=10240))
        assert (len(found), problems) == (4, [])


@pytest.mark.usefixtures("backend")
def test_limit_of_names() -> None:
    data = make_tar([("n" * 200, b"1"), ("ok", b"2")])
    found, problems = run(data, ArchiveLimits(max_name_bytes=199))
    assert ([name for _, name, _ in found], limits_of(problems)) == (["ok"], ["max_name_bytes"])


@pytest.mark.usefixtures("backend")
def test_limits_on_the_whole_count_nested_archives() -> None:
    inner = make_zip([(str(i), b"x" * 1000) for i in range(5)], zipfile.ZIP_STORED)
    data = make_zip([("1.zip", inner), ("2.zip", inner), ("end", b"")], zipfile.ZIP_STORED)
    found, problems = run(data, ArchiveLimits(max_entries=9))
    assert [(path[-1], name) for path, name, _ in found] == [("1.zip", str(i)) for i in range(5)] + [
        ("2.zip", "0"),
        ("2.zip", "1"),
    ]
    assert [p.where for p in problems] == [{"limit": "max_entries", "allowed": 9, "entry": "up/2.zip/2"}]
    total = 2 * len(inner) + 7500
    found, problems = run(data, ArchiveLimits(max_total_bytes=total))
    assert len(found) == 7
    assert [p.where for p in problems] == [{"limit": "max_total_bytes", "allowed": total, "entry": "up/2.zip/2"}]
    found, problems = run(data, ArchiveLimits(max_total_bytes=2 * len(inner) + 10_000, max_entries=13))
    assert (len(found), problems) == (11, [])


@pytest.mark.usefixtures("backend")
def test_limit_of_filters() -> None:
    data = b"core" * 100
    for _ in range(4):
        data = gzip.compress(data)
    assert contents(data, ArchiveLimits(max_filters=4)) == [("up", b"core" * 100)]
    found, problems = run(make_zip([("x.gz", data), ("next", b"1")]))
    assert [name for _, name, _ in found] == ["next"]
    assert [p.where for p in problems] == [{"limit": "max_filters", "allowed": 3, "entry": "up/x.gz"}]


@pytest.mark.usefixtures("backend")
def test_ratio() -> None:
    limits = ArchiveLimits(ratio_grace_bytes=1 << 20, max_ratio=50)
    plain = random.Random(3).randbytes(300_000)
    assert len(contents(make_zip([("a", plain), ("z", bytes(2 << 20))]), limits)) == 2
    found, problems = run(make_zip([("a", plain[:9]), ("z", bytes(2 << 20)), ("b", b"")]), limits)
    assert ([name for _, name, _ in found], limits_of(problems)) == (["a"], ["max_ratio"])
    # Each layer alone stays below 50; both together don't.
    inner = make_zip([("z", bytes(1 << 20) + random.Random(4).randbytes(25_000))])
    again = make_zip([(f"{i}.zip", inner) for i in range(30)], zipfile.ZIP_STORED)
    found, problems = run(bz2.compress(again), limits)
    assert (len(found) < 30, limits_of(problems)) == (True, ["max_ratio"])


def test_bombs(backend: str, tmp_path: Path) -> None:
    # 4 GiB of zeros in 4 MiB, and that again in some 40 KiB.
    bomb = zip_entry(b"z", zeros(4080), 4080 << 20)
    files = {
        "zip": bomb,
        "zip.zip": make_zip([("b.zip", bomb)]),
        "zip.zip.zip": make_zip([("b.zip", make_zip([("b.zip", bomb)]))]),
        "zip.gz": gzip.compress(bomb),
        "gz": gzip_zeros(4096),
        "gz.gz": gzip.compress(gzip_zeros(4096)),
    }
    assert len(files["zip.zip"]) < 43_000
    said, peak = unpack_in_child(backend, files, tmp_path)
    assert said == {name: [[], ["max_ratio"]] for name in files}
    assert peak < 150


def test_bombs_in_tar_headers(backend: str, tmp_path: Path) -> None:
    """What is no content takes time and memory as well: attributes, the maps of sparse files, what is not wanted."""
    attribute = pax_record("comment", "a" * 1_000_000)
    attributes = tar_header(b"x", len(attribute)) + tar_padded(attribute) + tar_header(b"0", 0)
    sparse = b"".join(
        pax_record(f"GNU.sparse.{key}", value)
        for key, value in (("major", "1"), ("minor", "0"), ("name", "x"), ("realsize", "1000000000000"))
    )
    sparse = tar_header(b"x", len(sparse)) + tar_padded(sparse) + tar_header(b"0", 4 << 30)
    old_sparse = bytearray(tar_header(b"S", 512))
    old_sparse[386:410], old_sparse[482], old_sparse[483:495] = b"00000000001\0" * 2, 1, b"%011o\0" % (1 << 30)
    old_sparse[148:156] = b"%06o\0 " % (sum(old_sparse[:148]) + sum(old_sparse[156:]) + 8 * 32)
    chained = tar_header(b"x", 12) + tar_padded(b"12 path=abc\n")
    files = {
        "attributes": gzip_repeated(b"", attributes * 8, 400),
        "sparse": gzip_repeated(sparse + b"999999999\n", b"0\n0\n" * (1 << 20), 64),
        "sparse without lines": gzip_repeated(sparse + b"99", b"9" * (1 << 20), 64),
        "old sparse": gzip_repeated(bytes(old_sparse), (b"00000000005\0" * 42 + b"\1" + bytes(7)) * 2048, 64),
        "chained": gzip_repeated(b"", chained * 1000, 100),
        "long name": gzip_repeated(tar_header(b"0", 4 << 30, "n" * 5000), bytes(1 << 20), 4096),
    }
    assert max(map(len, files.values())) < 5 << 20
    said, peak = unpack_in_child(backend, files, tmp_path)
    names, limits = said.pop("attributes")
    assert (len(names) < 100, limits) == (True, ["max_ratio"])
    assert said.pop("long name") == [[], ["max_name_bytes", "max_ratio"]]
    assert {what[0] for _, what in said.values()} <= {"malformed", "archive_damaged"}
    assert peak < 150


def test_bombs_in_directories(backend: str, tmp_path: Path) -> None:
    table = b"<xar><toc>" + b'<file id="1"><name>a</name></file>' * 300_000 + b"</toc></xar>"
    packed = zlib.compress(table)
    xar = b"xar!" + struct.pack(">HHQQI", 28, 1, len(packed), len(table), 0) + packed
    names = zip_of_names(1_000_000)
    bombs = {"zip": names, "zip in zip": make_zip([("b.zip", names)]), "zip in gz": gzip.compress(names)}
    assert len(bombs["zip in zip"]) < 500_000
    if backend == "libarchive":
        bombs |= {"xar": xar, "7z": make_7z_bomb(2_200_000)}
        bombs["all in zip"] = make_zip([("1", xar), ("2", bombs["7z"]), ("3", names), ("next", b"1")])
        assert max(len(xar), len(bombs["7z"])) < 50_000
    said, peak = unpack_in_child(backend, bombs, tmp_path)
    if together := said.pop("all in zip", None):
        assert together == [["next"], ["directory_bytes"] * 3]
    assert said == {name: [[], ["directory_bytes"]] for name in said}
    assert peak < 150


def test_directories_just_within_their_limit(backend: str, tmp_path: Path) -> None:
    said, peak = unpack_in_child(backend, {"zip": zip_of_names(350_000, apart=True)}, tmp_path)
    assert said["zip"] == [["a"] * 1000, []]
    assert peak < 300


def test_an_empty_7z_is_empty() -> None:
    assert run(make_7z_bomb(800)) == ([], [])


@pytest.mark.usefixtures("backend")
def test_the_directory_of_a_zip64_counts_too() -> None:
    plain = zip_of_names(1)
    end = plain.index(b"PK\5\6")
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    tail = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)

    def with_directory(size: int, start: int) -> bytes:
        return plain[:end] + b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, size, start) + locator + tail

    assert contents(with_directory(47, 31)) == [("a", b"")]
    assert limits_of(run(with_directory(1 << 40, 31))[1]) == ["directory_bytes"]


@pytest.mark.usefixtures("backend")
def test_nest_of_bombs() -> None:
    data = zip_entry(b"z", zeros(1024), 1024 << 20)
    for _ in range(3):
        data = make_zip([(f"lib {i}.zip", data) for i in range(16)])
    found, problems = run(data, ArchiveLimits(max_total_bytes=512 << 20))
    assert (found, limits_of(problems)[-1]) == ([], "max_ratio")


@pytest.mark.usefixtures("backend")
def test_overlapping_zip() -> None:
    # David Fifield, "A better zip bomb" (WOOT 2019): entries share one kernel, each quoting the next one's header.
    kernel, count = zeros(16), 200
    data, central, size, offsets = kernel, b"", 16 << 20, []
    names = [b"%03d" % i for i in range(count)]
    for name in reversed(names):
        header = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x21, 0, len(data), size, 3, 0) + name
        offsets.append((name, len(data), size, len(header) + len(data)))
        data, size = b"\0" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF) + header + data, size + len(header)
    data = data[5:]
    for name, packed, size, from_end in reversed(offsets):
        common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x21, 0, packed, size, 3, 0)
        central += b"PK\x01\x02\x14\x03" + common + struct.pack("<HHHII", 0, 0, 0, 0, len(data) - from_end) + name
    data += central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(data), 0)
    assert len(data) < 50_000
    found, problems = run(data)
    assert found == []
    # zipfile of some Python versions refuses overlapping entries before any limit does.
    assert limits_of(problems) == ["max_ratio"] or {p.code for p in problems} <= {
        "archive_damaged",
        "archive_entry_skipped",
    }
    assert problems
