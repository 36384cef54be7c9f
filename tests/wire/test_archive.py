"""What archives hold, in every format and from every source."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import random
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import libarchive
import pytest

from deadreckon.config import ArchiveLimits
from deadreckon.errors import Malformed
from deadreckon.wire import archive
from synth.archives import (
    BOTH,
    DEFAULT,
    FILES,
    contents,
    limits_of,
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
    from collections.abc import Callable
    from pathlib import Path

    from deadreckon.model.event import Diagnostic


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", BOTH)
def test_both_backends_agree(kind: str) -> None:
    assert contents(BOTH[kind]) == FILES


@pytest.mark.parametrize("format_", ["7zip", "cpio_newc", "cpio", "xar", "iso9660", "zip", "pax", "gnutar"])
def test_formats_of_libarchive(format_: str) -> None:
    files = FILES if format_ != "iso9660" else [(f"{i}.txt", content) for i, (_, content) in enumerate(FILES)]
    assert sorted(contents(write(format_, None, files))) == sorted(files)


def test_formats_made_by_hand() -> None:
    flat = [("a.txt", b"first"), ("b.bin", bytes(999))]
    assert contents(write("ar_bsd", None, flat)) == flat
    assert contents(write("ar_svr4", None, flat)) == flat
    for make in (make_cab, make_lha, make_rar):
        assert contents(make("a.dmp", b"dump" * 20)) == [("a.dmp", b"dump" * 20)]


def test_rpm() -> None:
    data = make_rpm(gzip.compress(write("cpio_newc")))
    found, problems = run(data, name="tool-1.0.rpm")
    assert problems == []
    assert found == [(("tool-1.0.rpm", "tool-1.0"), name, content) for name, content in FILES]


@pytest.mark.parametrize("filter_", ["gzip", "bzip2", "xz", "lzma", "lzip", "zstd", "lz4", "compress"])
def test_filters_of_libarchive(filter_: str) -> None:
    assert contents(write("ustar", filter_)) == FILES
    suffix = {"gzip": "GZ", "bzip2": "bz2", "zstd": "zst", "lzip": "lz", "compress": "Z"}.get(filter_, filter_)
    single = write("raw", filter_, [("x", b"MDMP" + bytes(3000))])
    found, problems = run(single, name=f"foo.dmp.{suffix}")
    assert (found, problems) == ([((f"foo.dmp.{suffix}",), "foo.dmp", b"MDMP" + bytes(3000))], [])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_single_files(compress: Callable[[bytes], bytes]) -> None:
    # Zeros look like the end of a tar to libarchive's tar reader, which then finds an archive of nothing.
    for content in (b"hello", bytes(100_000), b"\x7fELF" + make_zip(), random.Random(1).randbytes(70_000)):
        assert run(compress(content), name="core.gz")[0] == [(("core.gz",), "core", content)]
    assert run(compress(b"x"), name="plain")[0] == [(("plain",), "plain", b"x")]
    alone = lzma.compress(b"x" * 99, lzma.FORMAT_ALONE)
    assert run(alone, name="x.lzma")[0] == [(("x.lzma",), "x", b"x" * 99)]
    with pytest.raises(Malformed, match=r"empty|recognized"):
        run(compress(b""))


@pytest.mark.usefixtures("backend")
def test_nested() -> None:
    inner = make_zip([("crash.dmp", b"MDMP!")])
    outer = make_zip([("before", b"1"), ("in/ner.zip", inner), ("x.gz", gzip.compress(inner)), ("after", b"2")])
    found, problems = run(outer, name="o.zip")
    assert problems == []
    assert found == [
        (("o.zip",), "before", b"1"),
        (("o.zip", "in/ner.zip"), "crash.dmp", b"MDMP!"),
        (("o.zip", "x.gz", "x"), "crash.dmp", b"MDMP!"),
        (("o.zip",), "after", b"2"),
    ]


@pytest.mark.usefixtures("backend")
def test_depth() -> None:
    data = make_zip([("leaf", b"!")])
    for level in range(3):
        data = make_zip([(f"{level}.zip", data), (f"beside {level}", b"")])
    found, problems = run(data, ArchiveLimits(max_depth=4), name="top")
    assert ((("top", "2.zip", "1.zip", "0.zip"), "leaf", b"!") in found, problems) == (True, [])
    found, problems = run(data, ArchiveLimits(max_depth=3), name="top")
    assert [name for _, name, _ in found] == ["beside 0", "beside 1", "beside 2"]
    assert [p.where for p in problems] == [{"limit": "max_depth", "allowed": 3, "entry": "top/2.zip/1.zip/0.zip"}]


@pytest.mark.usefixtures("backend")
def test_looks_like_an_archive_but_is_none() -> None:
    odd = [("a.zip", b"PK\x03\x04 is how a zip begins"), ("b.gz", b"\x1f\x8b\x08 and a gzip file")]
    found, problems = run(make_zip(odd))
    assert [(name, content) for _, name, content in found] == odd
    assert [p.where for p in problems] == [{"entry": "up/a.zip"}, {"entry": "up/b.gz"}]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"#mtree\n", bytes(2048), b"PK", b"begin 644 x\n#AAAA\n`\nend\n"])
def test_no_archive(data: bytes) -> None:
    with pytest.raises(Malformed, match="not an archive"):
        run(data)


@pytest.mark.usefixtures("backend")
def test_empty_archive() -> None:
    with pytest.raises(Malformed, match=r"empty|no entry"):
        run(make_zip([]))


@pytest.mark.usefixtures("backend")
def test_sources(tmp_path: Path) -> None:
    data = make_tar(mode="w:gz")
    path = tmp_path / "ü.tar.gz"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for source in (path, str(path), data, bytearray(data), memoryview(data), mapped):
            assert contents(source) == FILES
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "absent")


@pytest.mark.usefixtures("backend")
def test_abandoned_iteration_releases_the_source() -> None:
    data = bytearray(make_tar())
    members = archive.unpack(data, DEFAULT, name="x", problems=[])
    next(members)
    members.close()  # type: ignore[attr-defined]
    data.clear()


@pytest.mark.usefixtures("backend")
def test_large_content_is_spooled_and_unlinked(tmp_path: Path) -> None:
    large = random.Random(2).randbytes(9 << 20)
    problems: list[Diagnostic] = []
    data = make_zip([("l", large), ("s", b"s")], zipfile.ZIP_STORED)
    members = list(archive.unpack(data, DEFAULT, name="x", spool_dir=str(tmp_path), problems=problems))
    assert isinstance(members[0].data, mmap.mmap)
    assert (members[0].data[:], members[1].data, problems) == (large, b"s", [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="absent"):
        run(data, spool_dir=str(tmp_path / "absent"))


@pytest.mark.usefixtures("backend")
def test_odd_names() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = make_zip([("cafX", b"1"), ("same", b"2"), ("same", b"3"), ("ünï", b"4")])
    want = [("caf\\xe9", b"1"), ("same", b"2"), ("same", b"3"), ("ünï", b"4")]
    assert contents(data.replace(b"cafX", b"caf\xe9")) == want
    tar = make_tar([("caf\xe9", b"1")], format=tarfile.GNU_FORMAT, encoding="latin-1")
    assert contents(tar) == [("caf\\xe9", b"1")]


@pytest.mark.usefixtures("backend")
def test_data_descriptors() -> None:

    class Pipe(io.RawIOBase):
        parts: bytes = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.parts += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in FILES:
            z.writestr(name, content)
    assert contents(pipe.parts) == FILES


@pytest.mark.usefixtures("backend")
def test_sparse_tar(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(9 << 20)
        file.write(b"middle")
        file.truncate(10 << 20)
    packed = subprocess.run(
        ["tar", "-cS", "--format=gnu", "-C", tmp_path, "holes"], check=True, capture_output=True
    ).stdout
    assert len(packed) < 1 << 20
    want = bytes(9 << 20) + b"middle" + bytes((1 << 20) - 6)
    assert contents(packed) == [("holes", want)]
    found, problems = run(packed, ArchiveLimits(ratio_grace_bytes=1 << 20))
    assert (found, limits_of(problems)) == ([], ["max_ratio"])


@pytest.mark.parametrize("options", [None, "compression=store", "compression=lzma1", "compression=ppmd"])
def test_7z_headers(options: str | None) -> None:
    for count in (1, 10, 200):
        files = [(f"a long enough name of the file {i}", bytes([i % 256]) * i) for i in range(count)]
        out = io.BytesIO()
        with libarchive.custom_writer(out.write, "7zip", options=options or "") as writer:
            for name, content in files:
                writer.add_file_from_memory(name, len(content), content)
        assert sorted(contents(out.getvalue())) == sorted(files)
