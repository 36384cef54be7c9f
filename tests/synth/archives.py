"""Builds archives of every kind and malice, and unpacks them for a test to look at."""

from __future__ import annotations

import functools
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import libarchive
import numpy as np

from deadreckon.config import ArchiveLimits
from deadreckon.errors import DIAGNOSTIC_CODES
from deadreckon.wire import _libarchive, _stdlib_archive, archive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deadreckon.model.event import Diagnostic

FILES = [("a.txt", b"first"), ("dir/b.bin", bytes(range(256)) * 40), ("empty", b""), ("c.txt", b"last")]


DEFAULT = ArchiveLimits()
BACKENDS: dict[str, Any] = {"libarchive": _libarchive, "stdlib": _stdlib_archive}


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


CHILD = """
import itertools, json, sys
from deadreckon.config import ArchiveLimits
from deadreckon.errors import Malformed
from deadreckon.wire import _libarchive, _stdlib_archive, archive

archive._backend = lambda: {"libarchive": _libarchive, "stdlib": _stdlib_archive}[sys.argv[1]]
said = []
for path in sys.argv[2:]:
    problems, names = [], []
    try:
        members = archive.unpack(path, ArchiveLimits(), name="bomb", problems=problems)
        names += (m.name for m in itertools.islice(members, 1000))
        said.append([names, [p.where.get("limit", p.code) for p in problems]])
    except Malformed as e:
        said.append([names, ["malformed", str(e)]])
# Not ru_maxrss, in which a child begins with what its parent had before exec.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([said, int(peak) / 1024]))
"""


def unpack_in_child(backend: str, files: Mapping[str, bytes], folder: Path) -> tuple[dict[str, Any], float]:
    """Unpack in a process of its own: [names, limits or codes] for each file, and the process's peak in MiB."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    command = [sys.executable, "-c", CHILD, backend, *(str(folder / name) for name in files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    said, peak = json.loads(done.stdout)
    return dict(zip(files, said, strict=True)), peak


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


def gzip_repeated(start: bytes, unit: bytes, times: int) -> bytes:
    """Compress ``start``, then ``unit`` so many times, at the cost of once."""
    out = b"\x1f\x8b\x08" + bytes(6) + b"\x03"
    for data, count in ((start, 1), (unit, times)):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        out += (packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)) * count
    return out + b"\x03\x00" + bytes(8)


def tar_header(kind: bytes, size: int, name: str = "n") -> bytes:
    """Return the 512 bytes that begin an entry."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def tar_padded(data: bytes) -> bytes:
    """Fill up to whole blocks."""
    return data + bytes(-len(data) % 512)


def pax_record(key: str, value: str) -> bytes:
    """Return a record of an extended header, which begins with its own length."""
    rest = f" {key}={value}\n"
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))
    return f"{size}{rest}".encode()


def zip_of_names(count: int, *, apart: bool = False) -> bytes:
    """Return a zip that lists one empty entry so many times; ``apart``, so many entries that are all alike."""
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, 0, 0, 0, 1, 0)
    local = (b"PK\x03\x04" + fields + b"a") * (count if apart else 1)
    records = np.zeros(count, [("common", "S42"), ("offset", "<u4"), ("name", "S1")])
    records["common"] = b"PK\x01\x02\x14\x03" + fields + bytes(6) + struct.pack("<I", 0o100644 << 16)
    records["offset"] = np.arange(count) * 31 if apart else 0
    records["name"] = b"a"
    central, listed = records.tobytes(), min(count, 0xFFFF)
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, listed, listed, len(central), len(local), 0)
