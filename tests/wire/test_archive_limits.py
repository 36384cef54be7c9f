"""Limits, and the bombs they are there for."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import mmap
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import libarchive
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.config import ArchiveLimits
from deadreckon.errors import DIAGNOSTIC_CODES, Malformed, MissingDependency
from deadreckon.wire import _kinds, _libarchive, _stdlib_archive, archive
from synth.archives import (
    BOTH, DEFAULT, FILES, contents, gzip_zeros, limits_of, make_7z_bomb, make_cab, make_lha, make_rar, make_rpm, make_tar, make_zip, run, unpack_in_child, write, zeros, zip_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from deadreckon.model.event import Diagnostic

def test_limit_of_an_entry(backend: str) -> None:
    assert backend
    for data in (make_zip(), make_tar(), make_tar(mode="w:gz")):
        found, problems = run(data, ArchiveLimits(max_entry_bytes=1000))
        assert [name for _, name, _ in found] == ["a.txt", "empty", "c.txt"]
        assert [p.where for p in problems] == [{"limit": "max_entry_bytes", "allowed": 1000, "entry": "up/dir/b.bin"}]
        found, problems = run(data, ArchiveLimits(max_entry_bytes=10240))
        assert (len(found), problems) == (4, [])


def test_limit_of_names(backend: str) -> None:
    assert backend
    data = make_tar([("n" * 200, b"1"), ("ok", b"2")])
    found, problems = run(data, ArchiveLimits(max_name_bytes=199))
    assert ([name for _, name, _ in found], limits_of(problems)) == (["ok"], ["max_name_bytes"])


def test_limits_on_the_whole_count_nested_archives(backend: str) -> None:
    assert backend
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


def test_limit_of_filters(backend: str) -> None:
    assert backend
    data = b"core" * 100
    for _ in range(4):
        data = gzip.compress(data)
    assert contents(data, ArchiveLimits(max_filters=4)) == [("up", b"core" * 100)]
    found, problems = run(make_zip([("x.gz", data), ("next", b"1")]))
    assert [name for _, name, _ in found] == ["next"]
    assert [p.where for p in problems] == [{"limit": "max_filters", "allowed": 3, "entry": "up/x.gz"}]


def test_ratio(backend: str) -> None:
    assert backend
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


BOMBS = """
import resource, sys, time
from deadreckon.config import ArchiveLimits
from deadreckon.wire import archive, _libarchive, _stdlib_archive
archive._backend = lambda: {"libarchive": _libarchive, "stdlib": _stdlib_archive}[sys.argv[1]]
for path in sys.argv[2:]:
    problems, start = [], time.perf_counter()
    names = [m.name for m in archive.unpack(path, ArchiveLimits(), name="bomb", problems=problems)]
    assert time.perf_counter() - start < 3, path
    assert names == [], (path, names)
    assert [p.where["limit"] for p in problems] == ["max_ratio"], (path, problems)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 300 << 10
"""


def test_bombs(backend: str, tmp_path: Path) -> None:
    # 4 GiB of zeros in 4 MiB, and that again in some 40 KiB, as zip, as gzip, and in an entry
    # of a tar whose name is too long.
    bomb = zip_entry(b"z", zeros(4080), 4080 << 20)
    long = tarfile.TarInfo("n" * 5000)
    long.size = 4 << 30
    header = long.tobuf(tarfile.GNU_FORMAT)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    tar = b"\x1f\x8b\x08" + bytes(6) + b"\x03" + start + zeros(4096)
    files = {
        "zip": bomb,
        "zip.zip": make_zip([("b.zip", bomb)]),
        "gz": gzip_zeros(4096),
        "gz.gz": gzip.compress(gzip_zeros(4096)),
    }
    files["zip.gz"] = gzip.compress(bomb)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert len(files["zip.zip"]) < 43_000
    paths = [str(tmp_path / name) for name in files]
    subprocess.run([sys.executable, "-c", BOMBS, backend, *paths], check=True)
    started = time.perf_counter()
    found, problems = run(tar)
    assert (found, limits_of(problems)) == ([], ["max_name_bytes", "max_ratio"])
    assert time.perf_counter() - started < 3


def test_bombs_in_directories(tmp_path: Path) -> None:
    assert run(make_7z_bomb(800)) == ([], [])
    table = b"<xar><toc>" + b'<file id="1"><name>a</name></file>' * 300_000 + b"</toc></xar>"
    packed = zlib.compress(table)
    xar = b"xar!" + struct.pack(">HHQQI", 28, 1, len(packed), len(table), 0) + packed
    bombs = [xar, make_7z_bomb(2_200_000)]
    for data in bombs:
        assert len(data) < 50_000
        (tmp_path / "bomb").write_bytes(data)
        for source in (data, tmp_path / "bomb"):
            found, problems = run(source)
            assert (found, limits_of(problems)) == ([], ["directory_bytes"])
    found, problems = run(make_zip([*((str(i), data) for i, data in enumerate(bombs)), ("next", b"1")]))
    assert ([name for _, name, _ in found], limits_of(problems)) == (["next"], ["directory_bytes"] * 2)


def test_nest_of_bombs(backend: str) -> None:
    assert backend
    data = zip_entry(b"z", zeros(1024), 1024 << 20)
    for _ in range(3):
        data = make_zip([(f"lib {i}.zip", data) for i in range(16)])
    found, problems = run(data, ArchiveLimits(max_total_bytes=512 << 20))
    assert (found, limits_of(problems)[-1]) == ([], "max_ratio")


def test_overlapping_zip(backend: str) -> None:
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
    assert (found, limits_of(problems)) == ([], ["max_ratio"])
    del backend
