"""Shares: who claims what, and that jobs which share symbols go to one process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from deadreckon.worker.affinity import affinity, shard_of
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from deadreckon.worker.waiting import backlog
from synth.worker import names

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.lists(st.text(alphabet="ab/\udcff", min_size=1, max_size=6), unique=True, max_size=40)


@given(NAMES, st.integers(1, 5))
def test_shares_are_disjoint_and_everything_is_somebodys(found: list[str], processes: int) -> None:
    shares = [backlog(found, (n, processes)) for n in range(processes)]
    own = [share for share in shares if share]
    if found:
        assert set().union(*own) == set(found)
    for n, share in enumerate(shares):
        others = [name for name in found if name not in share]
        if processes > 1 and others and share:
            # Who has a share of his own takes nothing else, unless he has none and helps others.
            mine = backlog(share, (n, processes))
            assert set(mine) <= set(share)


def test_a_shard_is_one_processes_business() -> None:
    found = [f"{shard:02x}/{job}" for shard in range(20) for job in range(50)]
    for number in range(4):
        mine = backlog(found, (number, 4))
        shards = {name.partition("/")[0] for name in mine}
        assert len(mine) == 50 * len(shards)


def test_who_has_nothing_takes_some_of_the_others() -> None:
    found = [f"one/{n:04d}" for n in range(1000)]
    first, second = (backlog(found, (n, 2)) for n in range(2))
    assert sorted(map(len, (first, second))) == [250, 1000]
    owner, thief = (first, second) if len(first) == 1000 else (second, first)
    assert owner[0] == "one/0000"
    assert thief[0] == "one/0999"
    assert "x" not in backlog(["x", "y"], (0, 1), {"x"})


def test_what_was_tried_before_comes_last() -> None:
    found = ["b", "a~2.0123456789abcdef", "a", "s/a~1.0123456789abcdef", "a~2"]
    again = re.compile(r".+~[0-9]+\.[0-9a-f]{16}")
    assert backlog(found, (0, 1), (), again) == ["a", "a~2", "b", "a~2.0123456789abcdef", "s/a~1.0123456789abcdef"]


def test_dumps_of_one_program_share_a_shard(jobdir: Path, fixtures: Path) -> None:
    variants = [fixtures / "linux/x86_64" / v / "dumps" for v in ("pie-O2", "pie-O0")]
    variants = [v for v in variants if v.is_dir()]
    for variant in variants:
        keys = {affinity(path) for path in sorted(variant.glob("*.dmp"))[:4]}
        assert len(keys) == 1
        assert None not in keys
    dumps = sorted(variants[0].glob("*.dmp"))[:3]
    for path in dumps:
        submit(jobdir, [path])
    submit(jobdir, [("x", b"no dump")])
    key = affinity(dumps[0])
    assert key is not None
    assert len(names(jobdir / "new" / shard_of(key))) == 3
    with Spool(jobdir) as spool:
        assert sum(spool.claim() is not None for _ in range(5)) == 4


@given(st.binary(max_size=200), st.integers(0, 60))
def test_anything_else_has_no_affinity_and_harms_nothing(data: bytes, cut: int) -> None:
    assert affinity(data) is None
    for content in (b"MDMP" + data, (b"MDMP" + b"\xa7" * 4 + b"\1\0\0\0\x20\0\0\0" + b"\4\0\0\0" + data)[:cut]):
        found = affinity(content)
        assert found is None or len(found) <= 40
    assert affinity("/nowhere") is None
