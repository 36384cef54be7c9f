"""What an archive is told by, and which parser may see it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from deadreckon.errors import Malformed, MissingDependency
from deadreckon.wire import _libarchive, archive
from synth.archives import (
    contents,
    make_cab,
    make_lha,
    make_rar,
    make_rpm,
    make_tar,
    make_zip,
    run,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_sniff() -> None:
    known = {"zip": make_zip(), "tar": make_tar(), "iso": write("iso9660", None, [("a", b"1")]), "7z": write("7zip")}
    known |= {"xar": write("xar"), "cpio": write("cpio_newc"), "ar": write("ar_bsd", None, [("a", b"1")])}
    known |= {
        "gz": gzip.compress(b"1"),
        "bz2": bz2.compress(b""),
        "xz": lzma.compress(b"1"),
        "cab": make_cab("a", b"1"),
    }
    known |= {
        "lzma": lzma.compress(b"1" * 9, lzma.FORMAT_ALONE),
        "lha": make_lha("a", b"1"),
        "rar": make_rar("a", b"1"),
    }
    known |= {
        "rpm": make_rpm(b""),
        "zst": write("raw", "zstd", [("a", b"1")]),
        "lz4": write("raw", "lz4", [("a", b"1")]),
    }
    known |= {"Z": write("raw", "compress", [("a", b"1")]), "lz": write("raw", "lzip", [("a", b"1")])}
    for kind, data in known.items():
        assert archive.sniff(data[: archive.HEAD_BYTES]) == kind
        assert archive.sniff(memoryview(data)) == kind
    assert archive.sniff(write("v7tar")) == "tar"
    for text in (
        b"BZh is not bzip2",
        b"<?xml",
        b'{"a": 1}',
        b"to-lh-is",
        b"\x1f\x9d\xff",
        b"]\0\0" + bytes(20),
        bytes(600),
    ):
        assert archive.sniff(text) is None
    signed = bytearray(write("v7tar", None, [("\u00e9", b"")])[:512])
    signed[148:156] = b" " * 8
    signed[148:154] = b"%06o" % (sum(signed) - 256 * sum(b > 127 for b in signed))
    assert archive.sniff(signed) == "tar"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "magic", [b"MZ", b"\x7fELF", b"MDMP", b"plcrash\1", b"Microsoft C/C++ MSF 7.00", b"SYMC", b"MODULE Linux"]
)
def test_content_beats_container(magic: bytes) -> None:
    for appended in (make_zip(), write("7zip"), make_cab("x", b"y")):
        both = magic.ljust(1024, b"\0") + appended
        assert archive.sniff(both) is None
        with pytest.raises(Malformed, match="not an archive"):
            run(both)
        assert contents(gzip.compress(both)) == [("up", both)]
        assert contents(make_tar([("x.exe", both)])) == [("x.exe", both)]
    tar = bytearray(make_tar())
    tar[: len(magic)] = magic
    assert archive.sniff(tar) is None


def test_no_external_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    for program in ("lrzip", "grzip", "lzop", "zstd", "gzip"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not _libarchive._supported("filter_lrzip")
    assert not _libarchive._supported("filter_grzip")
    assert not _libarchive._supported("filter_made_up")
    for magic in (b"LRZI\0\6", b"GRZipII\0\2\4:)", b"\x89LZO\0\r\n\x1a\n"):
        data = magic + bytes(60)
        with pytest.raises(Malformed):
            run(data)
        assert contents(gzip.compress(data)) == [("up", data)]
    assert not marker.exists()


def test_library_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write("raw", "zstd", [("x", b"1")])
    monkeypatch.setattr(_libarchive, "_supported", lambda what: what not in {"filter_zstd", "format_7zip"})
    for data in (packed, write("7zip")):
        with pytest.raises(MissingDependency, match="libarchive 3"):
            run(data)
    found, problems = run(make_zip([("a.zst", packed), ("b", b"2")]))
    assert [name for _, name, _ in found] == ["b"]
    assert [p.code for p in problems] == ["archive_entry_skipped"]


def test_missing_library() -> None:
    script = """
from deadreckon.config import ArchiveLimits
from deadreckon.wire import archive
import gzip
print(archive.backend())
print([m.data for m in archive.unpack(gzip.compress(b"x"), ArchiveLimits(), name="x", problems=[])])
try:
    next(archive.unpack(b"7z\\xbc\\xaf\\x27\\x1c", ArchiveLimits(), name="x", problems=[]))
except Exception as e:
    print(type(e).__name__, e)
"""
    env = {**os.environ, "LIBARCHIVE": "/nonexistent.so"}
    done = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert (lines[:2], done.stderr) == (["standard library", "[b'x']"], "")
    assert lines[2].startswith("MissingDependency libarchive")
    assert "apt-get install libarchive13" in lines[2]
    assert archive.backend().startswith("libarchive 3.")


def test_c_locale(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(make_zip([("ünï", b"1"), ("a", b"2")]))
    script = """
import sys, logging
logging.basicConfig(level=logging.WARNING)
from deadreckon.config import ArchiveLimits
from deadreckon.wire import archive
print([(ascii(m.name), m.data) for m in archive.unpack(sys.argv[1], ArchiveLimits(), name="x", problems=[])])
"""
    command = [sys.executable, "-W", "error", "-X", "utf8=0", "-c", script, str(tmp_path / "x.zip")]
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "[(\"'entry 1'\", b'1'), (\"'a'\", b'2')]\n"
    assert done.stderr == ""
