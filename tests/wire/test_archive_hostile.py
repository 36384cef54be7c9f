"""Names that lead elsewhere, links, devices, passwords, damage."""

from __future__ import annotations

import gzip
import io
import mmap
import random
import tarfile
import zipfile
from typing import TYPE_CHECKING

import libarchive
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.config import ArchiveLimits
from deadreckon.errors import Malformed, MissingDependency
from deadreckon.wire import _kinds, archive
from synth.archives import (
    BACKENDS,
    BOTH,
    FILES,
    contents,
    limits_of,
    make_7z_bomb,
    make_tar,
    make_zip,
    run,
    tar_header,
    tar_padded,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("backend")
def test_hostile_names_touch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        links = ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, str(tmp_path)), (tarfile.LNKTYPE, "../up"))
        devices = ((tarfile.CHRTYPE, ""), (tarfile.BLKTYPE, ""), (tarfile.FIFOTYPE, ""))
        for kind, target in (*links, *devices):
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, target
            t.addfile(info)
        info = tarfile.TarInfo("directory")
        info.type = tarfile.DIRTYPE
        t.addfile(info)
        info = tarfile.TarInfo("link/through")
        info.size = 4
        t.addfile(info, io.BytesIO(b"evil"))
    found, problems = run(out.getvalue(), spool_dir=str(inside))
    assert [content for _, _, content in found] == [b"evil"] * (len(names) + 1)
    assert [name for _, name, _ in found] == [*names, "link/through"]
    told = ["a link is never followed"] * 3 + ["a special is never followed"] * 3
    assert [str(p.message).partition(": ")[2] for p in problems] == told
    assert {p.code for p in problems} == {"archive_entry_skipped"}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cwd"]


@pytest.mark.usefixtures("backend")
def test_zip_symlink() -> None:
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


@pytest.mark.usefixtures("backend")
def test_encrypted() -> None:
    data = bytearray(make_zip([("secret", b"x" * 50), ("open", b"y")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    found, problems = run(bytes(data))
    assert [(name, content) for _, name, content in found] == [("open", b"y")]
    assert [(p.code, p.where) for p in problems] == [("archive_entry_skipped", {"entry": "up/secret"})]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("encryption", ["traditional", "aes256"])
def test_encrypted_zip(encryption: str) -> None:
    out = io.BytesIO()
    options = f"encryption={encryption}"
    with libarchive.custom_writer(out.write, "zip", options=options, passphrase="x") as writer:
        for name, content in FILES:
            writer.add_file_from_memory(name, len(content), content)
    found, problems = run(out.getvalue())
    assert [(name, content) for _, name, content in found] == [("empty", b"")]
    assert [p.message for p in problems] == [f"up/{name}: encrypted" for name, content in FILES if content]


@pytest.mark.usefixtures("backend")
def test_a_directory_has_no_content_whatever_its_size() -> None:
    for size in (10, 4 << 30, 1 << 40):
        data = tar_header(b"5", size) + tar_header(b"0", 2, "file") + tar_padded(b"hi") + bytes(1024)
        assert contents(data) == [("file", b"hi")]


@pytest.mark.usefixtures("backend")
def test_notes_are_few() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for _ in range(100):
            info = tarfile.TarInfo("l")
            info.type, info.linkname = tarfile.SYMTYPE, "t"
            t.addfile(info)
    found, problems = run(out.getvalue())
    assert (found, len(problems)) == ([], archive.NOTES_PER_CODE)


@pytest.mark.usefixtures("backend")
def test_bad_crc_costs_one_entry() -> None:
    data = make_zip([("a", b"aaaa"), ("b", b"bbbb"), ("c", b"cccc")], zipfile.ZIP_STORED)
    found, problems = run(data.replace(b"bbbb", b"bbXb"))
    assert [name for _, name, _ in found] == ["a", "c"]
    assert [(p.code, p.where) for p in problems] == [("archive_damaged", {"entry": "up/b"})]


@pytest.mark.usefixtures("backend")
def test_errors_hold_no_buffer(tmp_path: Path) -> None:
    # A traceback keeps its frames, and those would keep a mapping from closing.
    for number, data in enumerate((b"\x1f\x8b\x08 no gzip", make_zip()[:20], b"xar!" + bytes(90), b"nothing")):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            with pytest.raises((Malformed, MissingDependency)) as held:
                run(mapped)
            assert held.value.__traceback__


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


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([magic.rjust(offset + len(magic), b"x") for offset, magic, _ in _kinds.MAGIC]), st.binary())
def test_any_bytes(magic: bytes, rest: bytes) -> None:
    for module in BACKENDS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "_backend", lambda module=module: module)
            try:
                run(magic + rest, ArchiveLimits(max_total_bytes=1 << 20))
            except (Malformed, MissingDependency):
                pass
