"""Files under one layer of compression that were cut short: what came before the cut is there, marked as cut."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ArchiveLimits
from deadreckon.errors import Malformed
from deadreckon.wire import _salvage, archive
from synth.archives import make_tar
from synth.minidump import linux_dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Diagnostic

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lzma.compress,
}
# So long that every kind needs several of its blocks for it.
TEXT = b"MDMP" + random.Random(3).randbytes(200_000).hex().encode()


def members(data: bytes, limits: ArchiveLimits | None = None) -> tuple[list[archive.Member], list[Diagnostic]]:
    problems: list[Diagnostic] = []
    return list(archive.unpack(data, limits or ArchiveLimits(), name="crash.dmp.x", problems=problems)), problems


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", COMPRESS)
def test_what_came_before_the_cut(kind: str) -> None:
    packed = COMPRESS[kind](TEXT)
    before = 0
    for part in (0.3, 0.6, 0.9, 0.9999):
        (member,), problems = members(packed[: int(len(packed) * part)])
        content = bytes(member.data)
        assert member.cut
        assert TEXT.startswith(content)
        assert before < len(content) <= len(TEXT)
        assert len(content) > len(TEXT) * part - 110_000  # bzip2's blocks are of 100 KB.
        before = len(content)
        assert [p.code for p in problems] == ["archive_damaged"]
        assert f"its first {len(content)} bytes are used" in (problems[0].message or "")
    (member,), problems = members(packed)
    assert (bytes(member.data), member.cut, problems) == (TEXT, False, [])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", COMPRESS)
def test_what_was_altered_is_not_what_was_cut(kind: str) -> None:
    """A flipped bit either shows itself, and nothing is used, or comes out as the damage that it is."""
    packed = COMPRESS[kind](TEXT[:50_000])
    rng = random.Random(4)
    for _ in range(40):
        altered = bytearray(packed)
        altered[rng.randrange(len(packed) // 2, len(packed))] ^= 1 << rng.randrange(8)
        try:
            found, _ = members(bytes(altered))
        except Malformed:
            continue
        assert all(TEXT.startswith(bytes(m.data)) or not m.cut for m in found), "altered content taken for cut"


@pytest.mark.usefixtures("backend")
def test_limits_hold() -> None:
    bomb = gzip.compress(bytes(8 << 20), mtime=0)[:-20]
    found, problems = members(bomb, ArchiveLimits(max_entry_bytes=1 << 20))
    assert found == []
    assert "archive_limit" in {p.code for p in problems}
    found, problems = members(bomb, ArchiveLimits(max_total_bytes=1 << 20))
    assert found == []
    assert "archive_limit" in {p.code for p in problems}


@pytest.mark.usefixtures("backend")
def test_a_small_archive_that_was_cut() -> None:
    whole = make_tar([("a.dmp", linux_dump().finish()), ("b.txt", random.Random(1).randbytes(5000))])
    packed = gzip.compress(whole, mtime=0)
    found, problems = members(packed[: len(packed) - 3000])
    assert [m.name for m in found][:1] == ["a.dmp"]
    assert bytes(found[0].data) == linux_dump().finish()
    assert problems


def test_streams_after_one_another() -> None:
    packed = gzip.compress(b"one ", mtime=0) + gzip.compress(b"two ", mtime=0) + gzip.compress(TEXT, mtime=0)[:5000]
    content = b"".join(block for _, _, block in _salvage.salvage(memoryview(packed), "gz"))
    assert content.startswith(b"one two MDMP")
