from __future__ import annotations

import random
from collections import Counter
from math import comb
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, cli
from deadreckon.adapters.clusters import render
from deadreckon.errors import LimitExceeded
from deadreckon.grouping import similarity
from deadreckon.grouping.pile import Pile, sites
from deadreckon.grouping.similarity import Index, Stacks, clusters
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread
from oracle import alignment as oracle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DISTANCE = 0.3


def stacks_of(told: Sequence[Sequence[str]]) -> Stacks:
    stacks = Stacks()
    for sites_ in told:
        stacks.add(sites_)
    return stacks


def by_definition(told: Sequence[Sequence[str]], distance: float) -> list[list[int]]:
    """Complete linkage: join the two clusters whose farthest members are nearest, while these are near enough."""
    numbers = {name: i for i, name in enumerate({n for s in told for n in s})}
    listed = [[numbers[n] for n in s] for s in told]
    table = {(i, j): 1 - oracle.likeness(a, b) for i, a in enumerate(listed) for j, b in enumerate(listed)}
    found = [[i] for i in range(len(told))]
    while len(found) > 1:
        far, one, other = min(
            (max(table[i, j] for i in a for j in b), x, y)
            for x, a in enumerate(found)
            for y, b in enumerate(found)
            if x < y
        )
        if far > distance:
            break
        found[one] += found.pop(other)
    return sorted(map(sorted, found))


def family(rng: random.Random, name: str, length: int) -> list[list[str]]:
    """Return variants of one stack, frames replaced or left out."""
    base = [f"{name}{i}" for i in range(length)]
    found = []
    for _ in range(rng.randrange(1, 6)):
        stack = list(base)
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(stack))
            stack[at : at + 1] = rng.choice([[], [f"other{rng.randrange(5)}"]])
        found.append(stack)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_clusters_are_those_of_complete_linkage(seed: int) -> None:
    rng = random.Random(seed)
    told = [s for name in "abcd" for s in family(rng, name, rng.randrange(4, 20))]
    rng.shuffle(told)
    assert clusters(stacks_of(told), distance=DISTANCE) == by_definition(told, DISTANCE)


def test_no_two_of_a_cluster_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more stacks than are compared all with all, sketches find the candidates."""
    rng = random.Random(5)
    told = [s for n in range(60) for s in family(rng, f"{n}_", 14)]
    stacks = stacks_of(told)
    exact = clusters(stacks, distance=DISTANCE)
    monkeypatch.setattr(similarity, "ALL_PAIRS", 10)
    found = clusters(stacks, distance=DISTANCE)
    assert sorted(n for c in found for n in c) == list(range(len(told)))
    assert len(set(map(tuple, found)) ^ set(map(tuple, exact))) <= 6


def test_too_many_that_hang_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MAX_CLUSTERED", 5)
    with pytest.raises(LimitExceeded):
        clusters(stacks_of([["a", "b", "c", str(n)] for n in range(9)]))


def test_an_index_finds_what_is_alike() -> None:
    rng = random.Random(2)
    index = Index()
    bases = [[f"f{rng.randrange(500)}" for _ in range(20)] for _ in range(400)]
    for base in bases:
        index.add(base)
    missed = 0
    for number in range(0, 400, 10):
        changed = list(bases[number])
        changed[rng.randrange(4, 20)] = "other"
        found = index.search(changed, most=3)
        missed += not found or found[0].number != number
        assert all(n.likeness >= 0.7 for n in found)
    assert missed == 0
    assert index.search(["nothing", "of", "it"]) == []
    assert len(index.stacks) == 400


def test_an_empty_index_and_an_empty_stack() -> None:
    index = Index()
    assert index.search(["f"]) == []
    assert index.add([]) == 0
    assert [n.number for n in index.search([])] == [0]
    assert clusters(Stacks()) == []


def event(identity: str, *names: str, kind: str = "SIGSEGV", line: int | None = 3) -> Event:
    frames = [
        Frame(status="symbolicated", function=n, package="/opt/app", in_app=True, filename="a.cpp", lineno=line)
        for n in names
    ]
    return Event(
        schema="", event_id=identity, status="ok", source=Source(format="x"), platform="native",
        title=f"{kind} in {names[0]}", exceptions=[ExceptionInfo(type=kind)],
        threads=[Thread(crashed=True, frames=frames)],
    )  # fmt: skip


def test_a_site_is_a_function_and_its_line() -> None:
    assert sites(event("1", "f(int)", "g", line=7)) == ["f a.cpp:7", "g a.cpp:7"]
    assert sites(event("1", "f(int)", "g", line=None)) == ["f", "g"]
    assert sites(event("1", *["f", "g"] * 9, "main", line=None)) == ["f", "g", "main"]


def test_a_pile() -> None:
    pile = Pile()
    rest = [f"frame_{n}" for n in range(9)]
    for number, names in enumerate([["f", *rest], ["f", *rest], [*rest[:-1], "x"], ["q", "r"]]):
        pile.add(event(str(number), *names), f"{number}.dmp")
    found = pile.clusters()
    assert (pile.crashes, pile.stacks) == (4, 3)
    assert [(c.cluster, c.crashes, [s.crashes for s in c.stacks]) for c in found] == [(1, 3, [2, 1]), (2, 1, [1])]
    text = render(found)
    assert text.startswith("4 crashes, 3 stacks, 2 clusters\n")
    assert "0.dmp, 1.dmp" in text
    assert render([]) == "0 crashes, 0 stacks, 0 clusters\n"


def test_names_from_crashes_do_not_drive_the_terminal() -> None:
    pile = Pile()
    pile.add(event("1", "f\x1b[2J\n"), "a\x1b.dmp")
    assert "\x1b" not in render(pile.clusters())


def adjusted_rand_index(one: Sequence[int], other: Sequence[int]) -> float:
    """Hubert and Arabie 1985."""
    pairs = sum(comb(n, 2) for n in Counter(zip(one, other, strict=True)).values())
    first, second = (sum(comb(n, 2) for n in Counter(labels).values()) for labels in (one, other))
    expected = first * second / comb(len(one), 2)
    return (pairs - expected) / ((first + second) / 2 - expected)


@pytest.mark.corpus
def test_casr_s_pile(corpus: Path) -> None:
    """What CASR's own tests expect of the same crashes, seen by gdb and by AddressSanitizer."""
    piles = {}
    with Engine() as engine:
        for view, stacks, count, sizes in (
            ("gdb", 18, 12, {1: 7, 2: 4, 3: 1}),
            ("san", 16, 12, {1: 8, 2: 4}),
            ("python", None, 2, None),
            ("small", None, 9, None),
        ):
            pile = Pile()
            for path in sorted((corpus / "grouping/casr" / f"test_clustering_{view}").glob("*.casrep")):
                pile.add(engine.process(path), path.stem.rpartition("crash-")[2])
            found = pile.clusters()
            assert stacks in {None, pile.stacks}
            assert len(found) == count
            assert sizes in (None, Counter(len(c.stacks) for c in found))
            piles[view] = {e["name"]: c.cluster for c in found for s in c.stacks for e in s.events}
    common = sorted(piles["gdb"].keys() & piles["san"].keys())
    assert len(common) == 376
    assert adjusted_rand_index([piles["gdb"][n] for n in common], [piles["san"][n] for n in common]) >= 0.97


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    trace = 'Traceback (most recent call last):\n  File "app.py", line {}, in main\n    go()\nValueError: x\n'
    for number, line in enumerate((3, 3, 40)):
        (tmp_path / f"{number}.txt").write_text(trace.format(line))
    (tmp_path / "z.bin").write_bytes(b"\0" * 64)
    assert cli.main(["cluster", str(tmp_path), "--format", "json"]) == cli.UNREADABLE
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [c["crashes"] for c in found] == [2, 1]
    assert [e["name"] for e in found[0]["stacks"][0]["events"]] == ["0.txt", "1.txt"]
    assert "z.bin" in told.err
    cli.main(["cluster", str(tmp_path), "--format", "text", "--distance", "1"])
    assert capsys.readouterr().out.startswith("3 crashes, 2 stacks, 1 cluster\n")
    with pytest.raises(SystemExit):
        cli.main(["cluster", str(tmp_path), "--distance", "2"])
