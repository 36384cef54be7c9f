from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import mmap
import os
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import libarchive
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.config import ArchiveLimits
from deadreckon.errors import DIAGNOSTIC_CODES, Malformed, MissingDependency
from deadreckon.wire import _libarchive, _stdlib_archive, archive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from deadreckon.model.event import Diagnostic

BACKENDS: dict[str, Any] = {"libarchive": _libarchive, "stdlib": _stdlib_archive}
FILES = [("a.txt", b"first"), ("dir/b.bin", bytes(range(256)) * 40), ("empty", b""), ("c.txt", b"last")]
DEFAULT = ArchiveLimits()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(archive, "_backend", lambda: BACKENDS[request.param])
    return str(request.param)


def run(
    data: Any, limits: ArchiveLimits = DEFAULT, name: str = "up", spool_dir: str | None = None
) -> tuple[list[tuple[tuple[str, ...], str, bytes]], list[Diagnostic]]:
    problems: list[Diagnostic] = []
    members = archive.unpack(data, limits, name=name, spool_dir=spool_dir, problems=problems)
    found = [(m.container, m.name, bytes(m.data)) for m in members]
    assert {p.code for p in problems} <= set(DIAGNOSTIC_CODES)
    return found, problems


def contents(data: Any, limits: ArchiveLimits = DEFAULT) -> list[tuple[str, bytes]]:
    found, problems = run(data, limits)
    assert problems == []
    return [(name, content) for _, name, content in found]


def limits_of(problems: list[Diagnostic]) -> list[object]:
    return [p.where["limit"] for p in problems if p.code == "archive_limit" and p.where]


def make_zip(files: Sequence[tuple[str, bytes]] = FILES, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, content in files:
            z.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def make_tar(files: Sequence[tuple[str, bytes]] = FILES, mode: str = "w", **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as t:  # type: ignore[call-overload]
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write(format_: str, filter_: str | None = None, files: Sequence[tuple[str, bytes]] = FILES) -> bytes:
    out = io.BytesIO()
    with libarchive.custom_writer(out.write, format_, filter_) as writer:
        for name, content in files:
            writer.add_file_from_memory(name, len(content), content)
    return out.getvalue()


def make_cab(name: str, content: bytes) -> bytes:
    file = struct.pack("<IIHHHH", len(content), 0, 0, 0, 0, 0x20) + name.encode() + b"\0"
    data = struct.pack("<IHH", 0, len(content), len(content)) + content
    first_file, first_data = 36 + 8, 36 + 8 + len(file)
    header = struct.pack("<4sIIIIIBBHHHHH", b"MSCF", 0, first_data + len(data), 0, first_file, 0, 3, 1, 1, 1, 0, 0, 0)
    return header + struct.pack("<IHH", first_data, 1, 0) + file + data


def make_lha(name: str, content: bytes) -> bytes:
    body = b"-lh0-" + struct.pack("<III", len(content), len(content), 0) + b"\x20\x00"
    body += bytes([len(name)]) + name.encode() + struct.pack("<H", crc16(content))
    return bytes([len(body), sum(body) & 0xFF]) + body + content + b"\0"


def crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def make_rar(name: str, content: bytes) -> bytes:
    def block(kind: int, flags: int, body: bytes) -> bytes:
        rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest

    size = len(content)
    file = struct.pack("<IIBIIBBHI", size, size, 3, zlib.crc32(content), 0x21 << 16, 20, 0x30, len(name), 0o100644)
    end = block(0x7B, 0x4000, b"")
    return b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6)) + block(0x74, 0x8000, file + name.encode()) + content + end


def make_rpm(payload: bytes) -> bytes:
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 8) + bytes(16) + bytes(8)
    return b"\xed\xab\xee\xdb\x03\x00".ljust(96, b"\0") + header + header + payload


@functools.cache
def zeros(mebibytes: int) -> bytes:
    # A full flush leaves a deflate stream which may be repeated: gigabytes of zeros cost nothing to make.
    unit = zlib.compressobj(9, zlib.DEFLATED, -15)
    sixteen = unit.compress(bytes(16 << 20)) + unit.flush(zlib.Z_FULL_FLUSH)
    return sixteen * (mebibytes // 16) + b"\x03\x00"


def zip_entry(name: bytes, packed: bytes, size: int, crc: int = 0, flags: int = 0) -> bytes:
    common = struct.pack("<HHHHHIIIHH", 20, flags, 8, 0, 0x21, crc, len(packed), size, len(name), 0)
    local = b"PK\x03\x04" + common + name + packed
    central = b"PK\x01\x02\x14\x03" + common + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + name
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def gzip_zeros(mebibytes: int) -> bytes:
    return b"\x1f\x8b\x08" + bytes(6) + b"\x03" + zeros(mebibytes) + bytes(8)


BOTH = {
    "zip": make_zip(),
    "zip stored": make_zip(method=zipfile.ZIP_STORED),
    "ustar": make_tar(format=tarfile.USTAR_FORMAT),
    "gnu": make_tar(format=tarfile.GNU_FORMAT),
    "pax": make_tar(format=tarfile.PAX_FORMAT),
    "tar.gz": make_tar(mode="w:gz"),
    "tar.bz2": make_tar(mode="w:bz2"),
    "tar.xz": make_tar(mode="w:xz"),
    "v7": write("v7tar"),
    "tar.gz.xz": lzma.compress(make_tar(mode="w:gz")),
}


@pytest.mark.parametrize("kind", BOTH)
def test_both_backends_agree(backend: str, kind: str) -> None:
    assert backend
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


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_single_files(backend: str, compress: Callable[[bytes], bytes]) -> None:
    # Zeros look like the end of a tar to libarchive's tar reader, which then finds an archive of nothing.
    assert backend
    for content in (b"hello", bytes(100_000), b"\x7fELF" + make_zip(), random.Random(1).randbytes(70_000)):
        assert run(compress(content), name="core.gz")[0] == [(("core.gz",), "core", content)]
    assert run(compress(b"x"), name="plain")[0] == [(("plain",), "plain", b"x")]
    alone = lzma.compress(b"x" * 99, lzma.FORMAT_ALONE)
    assert run(alone, name="x.lzma")[0] == [(("x.lzma",), "x", b"x" * 99)]
    with pytest.raises(Malformed, match=r"empty|recognized"):
        run(compress(b""))


def test_nested(backend: str) -> None:
    assert backend
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


def test_depth(backend: str) -> None:
    assert backend
    data = make_zip([("leaf", b"!")])
    for level in range(3):
        data = make_zip([(f"{level}.zip", data), (f"beside {level}", b"")])
    found, problems = run(data, ArchiveLimits(max_depth=4), name="top")
    assert ((("top", "2.zip", "1.zip", "0.zip"), "leaf", b"!") in found, problems) == (True, [])
    found, problems = run(data, ArchiveLimits(max_depth=3), name="top")
    assert [name for _, name, _ in found] == ["beside 0", "beside 1", "beside 2"]
    assert [p.where for p in problems] == [{"limit": "max_depth", "allowed": 3, "entry": "top/2.zip/1.zip/0.zip"}]


def test_looks_like_an_archive_but_is_none(backend: str) -> None:
    assert backend
    odd = [("a.zip", b"PK\x03\x04 is how a zip begins"), ("b.gz", b"\x1f\x8b\x08 and a gzip file")]
    found, problems = run(make_zip(odd))
    assert [(name, content) for _, name, content in found] == odd
    assert [p.where for p in problems] == [{"entry": "up/a.zip"}, {"entry": "up/b.gz"}]


@pytest.mark.parametrize(
    "magic", [b"MZ", b"\x7fELF", b"MDMP", b"plcrash\1", b"Microsoft C/C++ MSF 7.00", b"SYMC", b"MODULE Linux"]
)
def test_content_beats_container(backend: str, magic: bytes) -> None:
    assert backend
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


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"#mtree\n", bytes(2048), b"PK", b"begin 644 x\n#AAAA\n`\nend\n"])
def test_no_archive(backend: str, data: bytes) -> None:
    assert backend
    with pytest.raises(Malformed, match="not an archive"):
        run(data)


def test_empty_archive(backend: str) -> None:
    assert backend
    with pytest.raises(Malformed, match=r"empty|no entry"):
        run(make_zip([]))


def test_sources(backend: str, tmp_path: Path) -> None:
    assert backend
    data = make_tar(mode="w:gz")
    path = tmp_path / "ü.tar.gz"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for source in (path, str(path), data, bytearray(data), memoryview(data), mapped):
            assert contents(source) == FILES
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "absent")


def test_errors_hold_no_buffer(backend: str, tmp_path: Path) -> None:
    # A traceback keeps its frames, and those would keep a mapping from closing.
    assert backend
    for number, data in enumerate((b"\x1f\x8b\x08 no gzip", make_zip()[:20], b"xar!" + bytes(90), b"nothing")):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            with pytest.raises((Malformed, MissingDependency)) as held:
                run(mapped)
            assert held.value.__traceback__


def test_abandoned_iteration_releases_the_source(backend: str) -> None:
    assert backend
    data = bytearray(make_tar())
    members = archive.unpack(data, DEFAULT, name="x", problems=[])
    next(members)
    members.close()  # type: ignore[attr-defined]
    data.clear()


def test_large_content_is_spooled_and_unlinked(backend: str, tmp_path: Path) -> None:
    assert backend
    large = random.Random(2).randbytes(9 << 20)
    problems: list[Diagnostic] = []
    data = make_zip([("l", large), ("s", b"s")], zipfile.ZIP_STORED)
    members = list(archive.unpack(data, DEFAULT, name="x", spool_dir=str(tmp_path), problems=problems))
    assert isinstance(members[0].data, mmap.mmap)
    assert (members[0].data[:], members[1].data, problems) == (large, b"s", [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="absent"):
        run(data, spool_dir=str(tmp_path / "absent"))


def test_hostile_names_touch_nothing(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend
    inside = tmp_path / "cwd"
    inside.mkdir()
    monkeypatch.chdir(inside)
    names = ["../up", str(tmp_path / "absolute"), "a/../../b", "./here", "x" * 300]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            t.addfile(info, io.BytesIO(b"evil"))
        for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "../up"), (tarfile.CHRTYPE, "")):
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, target
            t.addfile(info)
        info = tarfile.TarInfo("directory")
        info.type = tarfile.DIRTYPE
        t.addfile(info)
    found, problems = run(out.getvalue(), spool_dir=str(inside))
    assert [content for _, _, content in found] == [b"evil"] * len(names)
    assert [name for _, name, _ in found] == names
    assert [p.code for p in problems] == ["archive_entry_skipped"] * 3
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cwd"]


def test_zip_symlink(backend: str) -> None:
    assert backend
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(info, "/etc/passwd")
        z.writestr("dir/", "")
        z.writestr("file", "x")
    found, problems = run(out.getvalue())
    assert [(name, content) for _, name, content in found] == [("file", b"x")]
    assert [p.code for p in problems] == ["archive_entry_skipped"]


def test_odd_names(backend: str) -> None:
    assert backend
    with pytest.warns(UserWarning, match="Duplicate"):
        data = make_zip([("cafX", b"1"), ("same", b"2"), ("same", b"3"), ("ünï", b"4")])
    want = [("caf\\xe9", b"1"), ("same", b"2"), ("same", b"3"), ("ünï", b"4")]
    assert contents(data.replace(b"cafX", b"caf\xe9")) == want
    tar = make_tar([("caf\xe9", b"1")], format=tarfile.GNU_FORMAT, encoding="latin-1")
    assert contents(tar) == [("caf\\xe9", b"1")]


def test_encrypted(backend: str) -> None:
    assert backend
    data = bytearray(make_zip([("secret", b"x" * 50), ("open", b"y")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    found, problems = run(bytes(data))
    assert [(name, content) for _, name, content in found] == [("open", b"y")]
    assert [(p.code, p.where) for p in problems] == [("archive_entry_skipped", {"entry": "up/secret"})]


def test_notes_are_few(backend: str) -> None:
    assert backend
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for _ in range(100):
            info = tarfile.TarInfo("l")
            info.type, info.linkname = tarfile.SYMTYPE, "t"
            t.addfile(info)
    found, problems = run(out.getvalue())
    assert (found, len(problems)) == ([], archive.NOTES_PER_CODE)


def test_data_descriptors(backend: str) -> None:
    assert backend

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


def test_bad_crc_costs_one_entry(backend: str) -> None:
    assert backend
    data = make_zip([("a", b"aaaa"), ("b", b"bbbb"), ("c", b"cccc")], zipfile.ZIP_STORED)
    found, problems = run(data.replace(b"bbbb", b"bbXb"))
    assert [name for _, name, _ in found] == ["a", "c"]
    assert [(p.code, p.where) for p in problems] == [("archive_damaged", {"entry": "up/b"})]


def test_sparse_tar(tmp_path: Path, backend: str) -> None:
    assert backend
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


def make_7z_bomb(files: int) -> bytes:
    def number(value: int) -> bytes:
        return b"\xff" + struct.pack("<Q", value)

    empty, names = b"\xff" * (files // 8), b"\0" + b"a\0\0\0" * files
    header = b"\1\5" + number(files) + b"\x0e" + number(len(empty)) + empty
    header += b"\x11" + number(len(names)) + names + b"\0\0"
    packed = lzma.compress(header, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])
    coder = b"\1\x23\3\1\1\5" + b"\x5d" + struct.pack("<I", 1 << 20)
    encoded = b"\x17\6\0\1\x09" + number(len(packed)) + b"\0\7\x0b\1\0" + coder + b"\x0c" + number(len(header))
    encoded += b"\x0a\1" + struct.pack("<I", zlib.crc32(header)) + b"\0\0"
    start = struct.pack("<QQI", len(packed), len(encoded), zlib.crc32(encoded))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + packed + encoded


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


def test_7z_header_numbers() -> None:
    good = make_7z_bomb(80)
    for at in range(12, len(good)):
        for value in (0, 0x7F, 0xF0, 0xFF):
            data = good[:at] + bytes([value]) + good[at + 1 :]
            try:
                found, problems = run(data)
            except Malformed:
                continue
            assert not found
            assert data == good or set(limits_of(problems)) <= {"directory_bytes"}


@pytest.mark.parametrize("options", [None, "compression=store", "compression=lzma1", "compression=ppmd"])
def test_7z_headers(options: str | None) -> None:
    for count in (1, 10, 200):
        files = [(f"a long enough name of the file {i}", bytes([i % 256]) * i) for i in range(count)]
        out = io.BytesIO()
        with libarchive.custom_writer(out.write, "7zip", options=options or "") as writer:
            for name, content in files:
                writer.add_file_from_memory(name, len(content), content)
        assert sorted(contents(out.getvalue())) == sorted(files)


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


LIBARCHIVE_ONLY = ("7zip", "cpio_newc", "xar")
LONG = [*FILES, ("noise", random.Random(5).randbytes(100_000)), ("end", b"end")]
CUT = {"zip": BOTH["zip"], "ustar": BOTH["ustar"]}
CUT |= {"tar.gz": make_tar(LONG, "w:gz"), "tar.xz": make_tar(LONG, "w:xz")}
CUT |= {kind: write(kind) for kind in LIBARCHIVE_ONLY}
CUT["nested"] = make_zip([("x.tar", make_tar()), ("y.gz", gzip.compress(b"y" * 2000))])


CUT_BY = [(name, kind) for name in BACKENDS for kind in CUT if name == "libarchive" or kind not in LIBARCHIVE_ONLY]


@pytest.fixture
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setattr(archive, "_backend", lambda: BACKENDS[request.param[0]])
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("cut", CUT_BY, indirect=True, ids="-".join)
def test_truncated(cut: tuple[str, str]) -> None:
    backend, kind = cut
    data = CUT[kind]
    full, _ = run(data)
    shorter = 0
    for end in {*range(0, len(data), max(len(data) // 80, 1)), *range(len(data) - 40, len(data))}:
        try:
            found, problems = run(data[:end])
        except Malformed:
            continue
        whole = [member for member in found if member in full]
        assert whole == full[: len(whole)]
        shorter += 0 < len(whole) < len(full)
        if whole != full:
            # A tar that stops between two entries is a tar without its end mark, which many writers leave out.
            assert problems or kind == "ustar"
            assert {p.code for p in problems} <= {"archive_damaged"}
    assert shorter or kind in {"7zip", "xar"} or (backend, archive.sniff(data)) == ("stdlib", "zip")


@pytest.mark.parametrize("cut", CUT_BY, indirect=True, ids="-".join)
def test_mutated(cut: tuple[str, str]) -> None:
    _, kind = cut
    data, chance = CUT[kind], random.Random(kind)
    limits = ArchiveLimits(max_entries=20, max_entry_bytes=1 << 20, max_total_bytes=2 << 20)
    intact = 0
    for _ in range(80):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.2:
            at = chance.randrange(len(changed))
            changed[at : at + chance.randrange(64)] = b""
        try:
            found, _ = run(changed, limits)
        except Malformed:
            continue
        assert sum(len(content) for _, _, content in found) <= limits.max_total_bytes
        intact += bool(found)
    assert intact or kind == "7zip"  # its only header is under a checksum


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([magic.rjust(offset + len(magic), b"x") for offset, magic, _ in archive._MAGIC]), st.binary())
def test_any_bytes(magic: bytes, rest: bytes) -> None:
    for module in BACKENDS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "_backend", lambda module=module: module)
            try:
                run(magic + rest, ArchiveLimits(max_total_bytes=1 << 20))
            except (Malformed, MissingDependency):
                pass


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
