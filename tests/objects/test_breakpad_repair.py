from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import symbolic
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.objects.breakpad_repair import repair

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "MODULE Linux x86_64 0123456789ABCDEF0123456789ABCDEF0 app"
Frames = list[tuple[str, int, str]]


def repaired(*lines: str | bytes) -> tuple[list[str], list[str]]:
    """Return the lines after MODULE that are kept, and the messages."""
    raw = [line if isinstance(line, bytes) else line.encode() for line in (MODULE, *lines)]
    out = bytearray()
    problems = repair(b"\n".join(raw), out.extend)
    kept = out.decode().split("\n")
    assert kept[0] == MODULE
    return [line for line in kept[1:] if line], problems


def look_up(path: Path, data: bytes, addresses: list[int]) -> list[Frames]:
    """Return what symbolic says of a symbol file; raises where it refuses it."""
    path.write_bytes(data)
    (obj,) = symbolic.Archive.open(str(path)).iter_objects()
    cache = obj.make_symcache()
    return [[(s.symbol, s.line, s.full_path or "") for s in cache.lookup(a)] for a in addresses]


numbers = st.integers(0, 2**32 - 1)
words = st.text(st.characters(codec="ascii", exclude_characters="\n\r"), max_size=20)
hexes = numbers.map(lambda n: f"{n:x}")
decimals = st.integers(0, 10**6).map(str)
records = st.one_of(
    st.builds("{} {} {} {}".format, hexes, hexes, decimals, decimals),
    st.builds("{} {} -{} {}".format, hexes, hexes, decimals, decimals),
    st.builds("FUNC {} {} {} {}".format, hexes, hexes, hexes, words),
    st.builds("FUNC m {} {} {}".format, hexes, hexes, hexes),
    st.builds("PUBLIC {} 0 {}".format, hexes, words),
    st.builds("FILE {} {}".format, decimals, words),
    st.builds("INLINE_ORIGIN {} {}".format, decimals, words),
    st.builds("INLINE {} {} {} {} {} {} {} {}".format, *[decimals] * 4, *[hexes] * 4),
    st.builds("STACK CFI {} {}".format, hexes, words),
    st.builds("INFO CODE_ID {}".format, words),
    st.just(""),
)


@given(st.lists(records, max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_what_is_good_is_kept_byte_by_byte(lines: list[str], end: str) -> None:
    data = end.join([MODULE, "FUNC 0 0 0", *lines, ""]).encode()
    out = bytearray()
    assert repair(data, out.extend) == []
    assert bytes(out) == data


@pytest.mark.parametrize(
    ("line", "kept", "expected"),
    [
        (b"FUNC 1000", None, "expected FUNC [m] address size parameters name, got 'FUNC 1000'"),
        (b"FUNC 0x1000 20 0 f", None, "expected FUNC"),
        (b"FUNC 100000000000000000 20 0 f", None, "expected FUNC"),
        (b"1000 10 5", None, "expected address size line file, got '1000 10 5'"),
        (b"1000 10 five 0", None, "expected address size line file"),
        (b"1000 10 5 0 9", None, "expected address size line file"),
        (b"1000 10 5 -1", None, "expected address size line file"),
        (b"INLINE 0 3 1 0", None, "expected INLINE depth line file origin [address size]+"),
        (b"INLINE -1 3 1 0 1000 8", None, "expected INLINE"),
        (b"INLINE_ORIGIN x y", None, "expected INLINE_ORIGIN id name"),
        (b"hello, world", None, "expected a record of a known kind, got 'hello, world'"),
        (b"\xff\xff", None, "expected a record of a known kind"),
        (b"FUNC\t1000\t20\t0\tf", "FUNC 1000 20 0 f", "white space other than single blanks"),
        (b" PUBLIC 1000 0 f", "PUBLIC 1000 0 f", "white space other than single blanks"),
        (b"PUBLIC 1000 0 caf\xe9", "PUBLIC 1000 0 caf\ufffd", "bytes that are not UTF-8"),
        ("PUBLIC 1000 0 café".encode(), "PUBLIC 1000 0 café", None),
    ],
)
def test_one_odd_line(line: bytes, kept: str | None, expected: str | None) -> None:
    lines, problems = repaired("FILE 0 a.c", line, "FILE 1 b.c")
    assert lines == ["FILE 0 a.c", *([kept] if kept else []), "FILE 1 b.c"]
    assert len(problems) == (expected is not None)
    for problem in problems:
        assert problem.startswith("line 3: ")
        assert expected is not None
        assert expected in problem


def test_a_dropped_function_takes_its_lines_with_it() -> None:
    lines, problems = repaired(
        "FUNC 1000 20 0 f", "1000 20 5 0", "FUNC 2000 zz 0 g", "INLINE 0 3 1 0 2000 8", "2000 20 9 0", "2020 8 9 zz",
        "PUBLIC 3000 0 h", "FUNC 4000 20 0 i", "4000 20 7 0",
    )  # fmt: skip
    assert lines == ["FUNC 1000 20 0 f", "1000 20 5 0", "PUBLIC 3000 0 h", "FUNC 4000 20 0 i", "4000 20 7 0"]
    assert len(problems) == 1


def test_lines_of_no_function() -> None:
    """Breakpad's module4_bad.out has nothing else; other readers find it in order."""
    lines, problems = repaired("FILE 1 a.c", "1000 4 44 1", "1004 4 45 1")
    assert lines == ["FILE 1 a.c", "1000 4 44 1", "1004 4 45 1"]
    assert problems == ["line 3: lines that belong to no FUNC"]


def test_the_last_function_dropped() -> None:
    assert repaired("FUNC 1000", "1000 20 5 0")[0] == []


def test_a_second_module() -> None:
    lines, problems = repaired("FUNC 1000 20 0 f", MODULE.replace("app", "other"), "FUNC 1000 20 0 g")
    assert lines == ["FUNC 1000 20 0 f"]
    assert problems == [f"line 3: expected one MODULE record, at the start; the rest was left out, got '{MODULE[:40]}'"]


def test_messages_are_bounded_and_lines_counted() -> None:
    lines, problems = repaired(*["x"] * 100, "PUBLIC 10 0 f")
    assert lines == ["PUBLIC 10 0 f"]
    assert [p.split(":")[0] for p in problems[:-1]] == [f"line {n}" for n in range(2, 18)]
    assert problems[-1] == "84 more malformed lines"


OLD = [
    "FILE 0 main.cpp", "FILE 1 bar.cpp", "FILE 2 foo.cpp", "FILE 3 func.cpp",
    "INLINE_ORIGIN 0 1 bar()", "INLINE_ORIGIN 1 2 foo()", "INLINE_ORIGIN 2 3 func(int, 7)",
    "FUNC 1000 100 0 main",
    "INLINE 0 42 1 1010 60", "INLINE 1 39 0 1020 30", "INLINE 2 32 2 1028 10 1040 8",
    "1000 10 41 0", "1010 10 36 2", "1020 8 31 1", "1028 10 9 3", "1038 8 32 1", "1040 8 10 3", "1048 b8 43 0",
]  # fmt: skip


def test_old_syntax(tmp_path: Path) -> None:
    """A call stands in the file of the function that calls: the origin one level up, or the function itself."""
    lines, problems = repaired(*OLD)
    assert problems == []
    assert lines[4:11] == [
        "INLINE_ORIGIN 0 bar()", "INLINE_ORIGIN 1 foo()", "INLINE_ORIGIN 2 func(int, 7)", "FUNC 1000 100 0 main",
        "INLINE 0 42 0 1 1010 60", "INLINE 1 39 2 0 1020 30", "INLINE 2 32 1 2 1028 10 1040 8",
    ]  # fmt: skip
    frames = [
        ("func(int, 7)", 9, "func.cpp"),
        ("bar()", 32, "bar.cpp"),
        ("foo()", 39, "foo.cpp"),
        ("main", 42, "main.cpp"),
    ]
    second = [("func(int, 7)", 10, "func.cpp"), *frames[1:]]
    found = look_up(tmp_path / "a.sym", "\n".join([MODULE, *lines]).encode(), [0x1000, 0x102C, 0x1044])
    assert found == [[("main", 41, "main.cpp")], frames, second]


def test_old_syntax_of_code_inlined_at_the_start() -> None:
    """The first line is then the inlined function's; the next one of the function's own is taken."""
    lines, _ = repaired(
        "INLINE_ORIGIN 0 1 f()", "FUNC 1000 20 0 main", "INLINE 0 42 0 1000 10", "1000 10 3 1", "1010 10 43 0",
        "FUNC 2000 20 0 all_inlined", "INLINE 0 7 0 2000 20", "INLINE 1 8 9 2000 8", "2000 20 3 1",
    )  # fmt: skip
    assert "INLINE 0 42 0 0 1000 10" in lines
    assert "INLINE 0 7 4294967295 0 2000 20" in lines, "no line of its own says where it is"
    assert "INLINE 1 8 1 9 2000 8" in lines, "the call stands in f()'s file"


def test_old_syntax_keeps_names_that_look_like_numbers_in_new_files() -> None:
    lines, problems = repaired("INLINE_ORIGIN 0 7 dwarfs", "FUNC 1000 20 0 f", "INLINE 0 1 0 0 1000 8", "1000 20 5 0")
    assert problems == []
    assert lines[0] == "INLINE_ORIGIN 0 7 dwarfs"


def test_no_mutant_is_refused_and_untouched_functions_stay(tmp_path: Path) -> None:
    """What is written can always be read; functions whose records were not hit answer as before."""
    rng = random.Random(5)
    functions = 40
    good = [MODULE, "FILE 0 a.c", "FILE 1 b.c", "INLINE_ORIGIN 0 in", "INLINE_ORIGIN 1 in2"]
    blocks = []
    for i in range(functions):
        at = 0x1000 + 0x100 * i
        blocks.append([
            f"FUNC {at:x} 80 0 f{i}", f"INLINE 0 {i} 1 0 {at + 16:x} 20", f"INLINE 1 3 0 1 {at + 24:x} 8",
            f"{at:x} 10 {i + 1} 0", f"{at + 16:x} 20 7 1", f"{at + 48:x} 50 {i + 2} 0",
        ])  # fmt: skip
    addresses = [0x1000 + 0x100 * i + d for i in range(functions) for d in (0, 0x18, 0x40)]
    before = look_up(tmp_path / "good.sym", "\n".join([*good, *(x for b in blocks for x in b), ""]).encode(), addresses)
    refused = 0
    for _ in range(150):
        hit = set(rng.sample(range(functions), 3))
        lines = [line.encode() for line in good]
        for i, block in enumerate(blocks):
            for line in block:
                text = bytearray(line.encode())
                if i in hit and rng.random() < 0.5:
                    text[rng.randrange(len(text))] = rng.choice(b"\xff\0 \tzF-0123456789")
                lines.append(bytes(text))
        data = b"\n".join([*lines, b""])
        out = bytearray()
        repair(data, out.extend)
        try:
            look_up(tmp_path / "mutant.sym", data, [])
        except Exception:  # noqa: BLE001
            refused += 1
        after = look_up(tmp_path / "mutant.sym", bytes(out), addresses)
        for n, (old, new) in enumerate(zip(before, after, strict=True)):
            # A mutated address may put a function over another one.
            if n // 3 not in hit and old != new:
                assert any(frame[0] in {f"f{i}" for i in hit} for frame in new)
    assert refused > 50, "most mutants must be ones that need repair"


def test_hostile_texts_cost_little() -> None:
    for data in (
        MODULE.encode() + b"\n" + b"FUNC" * 500_000,
        MODULE.encode() + b"\n" + b"INLINE 0 1 0 " + b"10 10 " * 200_000,
        MODULE.encode() + b"\nFUNC 0 1 0 f\n" + b"INLINE 0 1 0 10 10\n" * 50_000 + b"10 1 1 1\n" * 50_000,
        MODULE.encode() + b"\n" + b"INLINE 1 1 0 10 10\n" * 100_000,
        MODULE.encode() + b"\n" + b"FUNC\n" * 200_000,
        MODULE.encode() + b"\n" + b"\xff\n" * 200_000,
        b"",
        b"\n" * 1000,
    ):
        out = bytearray()
        assert len(repair(data, out.extend)) <= 17
        assert len(out) <= 2 * len(data) + 64
