"""The container of snapshots: what other tools make of it, what is kept of a damaged one."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.wire import archive
from deadreckon.wire.snapshot import MIMETYPE, Container, is_snapshot, write
from synth.snapshot import pack, report

if TYPE_CHECKING:
    from typing import IO

LIMIT = 1 << 20


def written(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    write(out, members)
    return out.getvalue()


class Stream(io.RawIOBase):
    """A file that can't seek, for which zipfile puts sizes behind the content, as Go's and Java's writers do."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self.data += part
        return len(part)


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=3000), max_size=6)
)
def test_what_is_written_is_read_by_us_and_by_others(members: dict[str, bytes]) -> None:
    members.pop("mimetype", None)
    data = written(list(members.items()))
    assert is_snapshot(data[:128])
    container = Container(data)
    assert container.problems == []
    assert container.sizes() == {"mimetype": len(MIMETYPE)} | {n: len(c) for n, c in members.items()}
    for name, content in members.items():
        assert container.read(name, LIMIT) == (content, "whole")
    with zipfile.ZipFile(io.BytesIO(data)) as other:
        assert other.testzip() is None
        assert other.namelist() == ["mimetype", *members]
        assert {n: other.read(n) for n in members} == members


def test_the_same_content_gives_the_same_bytes() -> None:
    assert written([("report.json", b"{}")]) == written([("report.json", b"{}")])


def test_sizes_behind_the_content() -> None:
    stream = Stream()
    target: IO[bytes] = stream  # type: ignore[assignment]
    with zipfile.ZipFile(target, "w") as packed:
        # What goes first must be told by its first bytes: its size may still come later.
        packed.writestr(zipfile.ZipInfo("mimetype"), MIMETYPE)
        packed.writestr(zipfile.ZipInfo("memory.bin"), b"abc" * 1000, zipfile.ZIP_DEFLATED)
    container = Container(bytes(stream.data))
    assert container.read("memory.bin", LIMIT) == (b"abc" * 1000, "whole")
    assert container.problems == []


def test_a_comment_at_the_end() -> None:
    out = io.BytesIO(written([("report.json", b"{}")]))
    with zipfile.ZipFile(out, "a") as packed:
        packed.comment = b"PK\5\6" * 20
    data = out.getvalue()
    # The comment holds what looks like an end record: local headers tell the rest.
    assert Container(data).read("report.json", LIMIT) == (b"{}", "whole")


def test_cut_at_any_length() -> None:
    members = [("report.json", b"x" * 50), ("memory.bin", random.Random(0).randbytes(3000)), ("attachments/a", b"hi")]
    data = written(members)
    ends = {name: data.index(name.encode()) + 30 + 60 for name, _ in members}
    for end in range(len(data)):
        try:
            container = Container(data[:end])
        except Malformed:
            assert end < 77
            continue
        if container.problems == []:
            continue  # Only the end record's comment length is missing its last byte, and it is zero.
        for name, content in members:
            found = container.read(name, LIMIT)
            assert found is None or found.state != "corrupt" or not found.data
            assert found is None or content.startswith(found.data)
            if name == "report.json" and end > ends["memory.bin"]:
                assert found == (content, "whole")


def test_a_flipped_bit_in_the_content_is_noticed() -> None:
    content = random.Random(1).randbytes(2000)
    data = bytearray(written([("memory.bin", content)]))
    start = data.index(b"memory.bin") + 10 + 5  # Behind the header of a deflate block, which has bits that don't count.
    for at in range(start, start + 1900, 37):
        data[at] ^= 0x10
        assert Container(bytes(data)).read("memory.bin", LIMIT) == (b"", "corrupt"), at
        data[at] ^= 0x10


def test_more_than_the_limit() -> None:
    data = written([("memory.bin", bytes(100_000))])
    with pytest.raises(LimitExceeded, match=r"memory\.bin: limit snapshot\.member_bytes is 99999, got 100000"):
        Container(data).read("memory.bin", 99_999)
    # A size that lies: what comes out is bounded all the same.
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4) + 24
    lying = data[:at] + struct.pack("<I", 10) + data[at + 4 :]
    assert Container(lying).read("memory.bin", 1000) == (b"", "corrupt")


def test_encrypted_and_foreign_methods_are_not_read() -> None:
    data = written([("memory.bin", bytes(1000))])
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    for offset, value in ((8, 1), (10, 12)):
        changed = bytearray(data)
        struct.pack_into("<H", changed, at + offset, value)
        assert Container(bytes(changed)).read("memory.bin", LIMIT) == (b"", "corrupt")


def test_a_directory_of_many() -> None:
    data = bytearray(written([("a", b"")]))
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<HH", data, end + 8, 0xFFFF, 0xFFFF)
    container = Container(bytes(data))
    assert [str(p) for p in container.problems] == [
        f"central directory: at offset {end:#x}, expected 65535 entries, got 2"
    ]
    assert list(container.sizes()) == ["mimetype", "a"]


def test_what_is_none() -> None:
    for data in (b"", b"PK\3\4", written([])[:76], b"PK\5\6" + bytes(18), bytes(200)):
        assert not is_snapshot(data)
        with pytest.raises(Malformed, match="expected member 'mimetype' first"):
            Container(data)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as packed:
        packed.writestr("mimetype", "application/epub+zip, which is long enough to hold the other")
    assert not is_snapshot(other.getvalue())


def test_archives_leave_snapshots_whole() -> None:
    assert archive.sniff(pack(report())) is None
    assert archive.sniff(pack(report()).replace(b"deadreckon", b"abcdefghij")) == "zip"


def test_mutated() -> None:
    chance = random.Random(2)
    seed = pack(report(), attachments={"log": b"text" * 50})
    read = 0
    for _ in range(1500):
        data = bytearray(seed)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            container = Container(bytes(data))
            for name in container.sizes():
                try:
                    container.read(name, 1 << 16)
                except LimitExceeded:
                    continue
        except Malformed:
            continue
        read += 1
    assert read > 1000
