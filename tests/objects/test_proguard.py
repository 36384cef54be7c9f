"""Mapping files: which entries a class, a method and a line lead to, and the names of source files."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.objects.proguard import Mapping, Outline, Position, debug_id, identify
from oracle.retrace import Entry, alternatives

if TYPE_CHECKING:
    from pathlib import Path

MAPPING = """# compiler: R8
# pg_map_id: 48ffd94
# pg_map_hash: SHA-256 48ffd9478fda293e1c713db4cc7c449781a9e799fa504e389ee32ed19775a3ba
com.acme.Main -> a.a:
# {"id":"sourceFile","fileName":"Main.kt"}
    int counter -> a
    1:3:void com.acme.util.Text.trim(java.lang.String):10:12 -> a
    1:3:void run(int):7 -> a
    4:4:void run(int):9:9 -> a
    5:5:void stop():20 -> a
    void onlyName() -> b
    void first(int):40 -> c
    void second(int, int):30 -> c
    void same(int) -> d
    void same(java.lang.String[]) -> d
    0:0:void inlined():5:5 -> e
    0:0:void outer():6 -> e
    0:65535:void everywhere():8 -> f
    void spread():42:44 -> g
    void wide():1:9000 -> h
    1:2:void void.odd.Name():1:2 -> i
com.acme.util.Text -> a.b:
# {"id":"sourceFile","fileName":"Strings.java"}
com.acme.ui.ScreenKt$Lambda$1 -> a.c:
# {"id":"sourceFile","fileName":"R8$$SyntheticClass"}
# {"id":"com.android.tools.r8.synthesized"}
    1:1:void invoke():0:0 -> a
"""


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    return Mapping(MAPPING.encode())


def plain(found: list[list[Position]] | None) -> list[list[str]] | None:
    if found is None:
        return None
    return [[f"{p.class_name}.{p.method}({p.file}:{p.line}){'+' * p.inline}" for p in chain] for chain in found]


@pytest.mark.parametrize(
    ("method", "line", "expected"),
    [
        ("a", 2, [["com.acme.util.Text.trim(Strings.java:11)+", "com.acme.Main.run(Main.kt:7)"]]),
        ("a", 4, [["com.acme.Main.run(Main.kt:9)"]]),
        # In no range, or of no method in the mapping: the class alone is known.
        ("a", 99, [["com.acme.Main.a(Main.kt:99)"]]),
        ("z", None, [["com.acme.Main.z(Main.kt:None)"]]),
        # Without a line nothing was inlined for certain.
        ("a", None, [["com.acme.Main.run(Main.kt:None)"], ["com.acme.Main.stop(Main.kt:None)"]]),
        ("b", None, [["com.acme.Main.onlyName(Main.kt:None)"]]),
        ("b", 12, [["com.acme.Main.onlyName(Main.kt:12)"]]),
        ("c", None, [["com.acme.Main.second(Main.kt:None)"], ["com.acme.Main.first(Main.kt:None)"]]),
        ("c", 1, [["com.acme.Main.second(Main.kt:30)"], ["com.acme.Main.first(Main.kt:40)"]]),
        ("d", 0, [["com.acme.Main.same(Main.kt:None)"]]),
        ("e", None, [["com.acme.Main.inlined(Main.kt:5)+", "com.acme.Main.outer(Main.kt:6)"]]),
        ("f", None, [["com.acme.Main.everywhere(Main.kt:8)"]]),
        ("f", 700, [["com.acme.Main.everywhere(Main.kt:8)"]]),
        ("g", 1, [[f"com.acme.Main.spread(Main.kt:{n})"] for n in (42, 43, 44)]),
        ("h", 1, [["com.acme.Main.wide(Main.kt:None)"]]),
        ("i", 1, [["void.odd.Name(odd.kt:1)"]]),
    ],
)
def test_positions(mapping: Mapping, method: str, line: int | None, expected: list[list[str]]) -> None:
    assert plain(mapping.positions("a.a", method, line)) == expected


def test_classes(mapping: Mapping) -> None:
    assert len(mapping) == 3
    assert mapping.class_name("a.b") == "com.acme.util.Text"
    assert mapping.class_name("com.acme.Main") is None
    assert mapping.positions("b.a", "a", 1) is None
    assert mapping.has_lines()


def test_what_the_compiler_made(mapping: Mapping) -> None:
    ((position,),) = mapping.positions("a.c", "a", 1) or []
    assert position.synthesized
    assert (position.class_name, position.method, position.line) == ("com.acme.ui.ScreenKt$Lambda$1", "invoke", None)
    # No source file has it; where the class is that made it necessary is all there is.
    assert position.file == "ScreenKt"


def test_identity() -> None:
    found = identify(MAPPING.encode())
    hashed = "48ffd9478fda293e1c713db4cc7c449781a9e799fa504e389ee32ed19775a3ba"
    assert found.map_ids == (hashed, "48ffd94")
    assert found.debug_id == debug_id(MAPPING.encode()) != debug_id(MAPPING.replace("\n", "\r\n").encode())


def test_line_ends_and_a_name_twice() -> None:
    text = MAPPING.replace("\n", "\r\n") + "com.acme.Main -> a.a:\n    1:1:void more():3:3 -> z\n"
    found = Mapping(text.encode())
    assert plain(found.positions("a.a", "a", 4)) == [["com.acme.Main.run(Main.kt:9)"]]
    assert plain(found.positions("a.a", "z", 1)) == [["com.acme.Main.more(Main.kt:3)"]]


def test_outlines() -> None:
    text = """out.Line -> o:
    1:2:int outline() -> a
      # {"id":"com.android.tools.r8.outline"}
    3:3:int plain() -> a
com.acme.Main -> m:
    4:4:int caller(int):98:98 -> s
    27:27:int caller(int):0:0 -> s
# {"id":"com.android.tools.r8.outlineCallsite","positions":{"1":4,"x":5,"2":"y"},"outline":"Lo;a()I"}
    28:28:int caller(int):0:0 -> s
# {"id":"com.android.tools.r8.outlineCallsite","positions":{"1":6},"outline":"Lp;b()I"}
"""
    found = Mapping(text.encode())
    assert found.outline("o", "a", 2) == Outline("o", "a", 2)
    assert found.outline("o", "a", 3) is None
    assert found.outline("m", "s", 27) is None
    assert found.outlined("m", "s", 27, Outline("o", "a", 1)) == 4
    assert found.outlined("m", "s", 27, Outline("o", "a", 2)) is None
    assert found.outlined("m", "s", 28, Outline("o", "a", 1)) is None


def test_frames_that_go_with_an_exception() -> None:
    actions = '"conditions":["throws(La/Npe;)"],"actions":["removeInnerFrames(%d)"]'
    rule = f'{{"id":"com.android.tools.r8.rewriteFrame",{actions}}}'
    text = f"""com.acme.Main -> m:
    1:1:void inlined():5:5 -> s
    1:1:void caller():7 -> s
    # {rule % 1}
    2:2:void all():8 -> s
    # {rule % 9}
    3:3:void unknown():9:9 -> s
    3:3:void outer():10 -> s
    # {(rule % 1).replace("throws", "catches")}
"""
    found = Mapping(text.encode())
    assert plain(found.positions("m", "s", 1, thrown=["b.c", "a.Npe"])) == [["com.acme.Main.caller(Main.java:7)"]]
    assert [len(c) for c in found.positions("m", "s", 1, thrown=["a.Other"]) or ()] == [2]
    assert [len(c) for c in found.positions("m", "s", 1) or ()] == [2]
    assert found.positions("m", "s", 2, thrown=["a.Npe"]) == [[]]
    assert [len(c) for c in found.positions("m", "s", 3, thrown=["a.Npe"]) or ()] == [2]


@pytest.mark.parametrize(
    ("class_name", "file", "expected"),
    [
        ("a.b.Foo$Bar$1", None, "Foo.java"),
        ("a.b.FooKt", None, "Foo.kt"),
        ("a.b.Foo", "Bar.kt", "Foo.kt"),
        ("a.b.Foo", "SourceFile", "Foo.java"),
        ("a.b.Foo", "Foo.dummy", "Foo.java"),
        ("a.b.Kt", None, "Kt.java"),
        ("a.b.ComposableSingletons$MainKt", None, "Main.kt"),
        ("$", None, None),
    ],
)
def test_source_files_by_name(class_name: str, file: str | None, expected: str | None) -> None:
    ((position,),) = Mapping(f"{class_name} -> x:\n".encode()).positions("x", "f", 1, file=file) or []
    assert position.file == expected


@pytest.mark.parametrize(
    "line",
    [
        "    no arrow at all",
        "    1:3:void f( -> a",
        "    f() -> a",
        "    :::void f():: -> a",
        "    99999999999:1:void f():1:2:3 -> a",
        "    -1:x:void f():\u0661 -> a",
        "     -> a",
        "    # {broken",
        '    # {"id":["x"]}',
        '    # {"id":"com.android.tools.r8.rewriteFrame","conditions":[1],"actions":{}}',
        '    # {"id":"com.android.tools.r8.outlineCallsite","positions":[1]}',
    ],
)
def test_damaged_lines_cost_themselves(line: str) -> None:
    text = f"com.acme.Main -> m:\n{line}\n    1:1:void good():5:5 -> b\n"
    assert plain(Mapping(text.encode()).positions("m", "b", 1)) == [["com.acme.Main.good(Main.java:5)"]]
    Mapping(text.encode()).positions("m", "a", 1)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    from deadreckon.objects import proguard

    many = "com.acme.Main -> m:\n" + "    1:1:void f():1:1 -> s\n    2:2:void f():1:1 -> s\n" * 300
    assert Mapping(many.encode()).positions("m", "s", 1) == [[Position("com.acme.Main", "f", "Main.java", 1)]]
    chain = "com.acme.Main -> m:\n" + "    1:1:void f():1:1 -> s\n" * 300
    with pytest.raises(LimitExceeded, match="positions"):
        Mapping(chain.encode()).positions("m", "s", 1)
    monkeypatch.setattr(proguard, "_MAX_MEMBERS", 100)
    with pytest.raises(LimitExceeded, match="members"):
        Mapping(chain.encode()).positions("m", "s", 1)
    monkeypatch.setattr(proguard, "_MAX_CLASS_BYTES", 100)
    with pytest.raises(LimitExceeded, match="class bytes"):
        Mapping(chain.encode()).positions("m", "s", 1)
    monkeypatch.setattr(proguard, "_MAX_CLASSES", 2)
    with pytest.raises(LimitExceeded, match="classes"):
        Mapping(MAPPING.encode())


_LINE = st.integers(1, 12)
_ENTRY = st.builds(
    lambda a, b, name, original, length: Entry(
        min(a, b), max(a, b), name, original, None if original is None or length is None else original + length
    ),
    _LINE,
    _LINE,
    st.sampled_from(["f", "g", "h"]),
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 6),
)


@given(st.lists(_ENTRY, min_size=1, max_size=12), _LINE)
def test_ranges_agree_with_the_plain_reading(entries: list[Entry], line: int) -> None:
    text = "com.acme.Main -> m:\n" + "\n".join(e.text() for e in entries) + "\n"
    found = Mapping(text.encode()).positions("m", "m", line)
    expected = alternatives(entries, line) or [[("m", line)]]
    assert [[(p.method, p.line) for p in chain] for chain in found or ()] == expected
    assert all(p.inline == (at < len(chain) - 1) for chain in found or () for at, p in enumerate(chain))


def test_mutants() -> None:
    """A damaged mapping answers something, or with an error of ours."""
    rng = random.Random(3)
    good = MAPPING.encode()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.choice((1, 5, 40))):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.choice((b"", b":", b"\n", b" -> ", b"{", rng.randbytes(2)))
        try:
            found = Mapping(bytes(data))
            for name in ("a.a", "a.b", "a.c"):
                for method in "abcdefghi":
                    for line in (None, 1, 4):
                        found.positions(name, method, line, thrown=["java.lang.Error"])
                        found.outline(name, method, line)
        except DeadreckonError:
            pass


@pytest.mark.corpus
def test_real_mappings(corpus: Path) -> None:
    folder = corpus / "other/proguard"
    data = (folder / "mapping-r8.txt").read_bytes()
    assert identify(data).debug_id == "c96fb926-797c-53de-90ee-df2aeaf28340"
    found = Mapping(data)
    assert len(found) == 1167
    chain = plain(found.positions("a.a.a.a.c", "a", 1))
    assert chain == [["android.arch.core.executor.ArchTaskExecutor.executeOnDiskIO(ArchTaskExecutor.java:96)"]]
    for path in folder.glob("mapping*.txt"):
        assert len(Mapping(path.read_bytes()))
    assert len(json.loads((folder / "retrace_vectors.json").read_text())) == 49
