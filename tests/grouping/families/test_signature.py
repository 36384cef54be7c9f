"""Signatures in Mozilla's manner, with lists written here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, SourceUnavailable
from deadreckon.grouping.families import signature as s
from deadreckon.grouping.families.signature import Lists, Stacked, frame_text, load_lists, signature
from deadreckon.grouping.rules import RuleError
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Frame, OsInfo, Source

if TYPE_CHECKING:
    from pathlib import Path

LISTS = Lists(
    irrelevant=("_start", "raise"), prefix=("abort", ".*\\.dll", "ns::"), sentinels=("here",), line_numbers=("js_Run",)
)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("static void * ns::Pool<Base>::malloc(unsigned int)", "ns::Pool<T>::malloc"),
        ("ns::f(int) const", "ns::f"),
        ("ns::f(int) const&", "ns::f"),
        ("f (int) [clone .cold.1]", "f  "),
        ("`anonymous namespace'::f(int)", "(anonymous namespace)::f"),
        ("ns::$_7::operator()(int) const", "ns::$::operator()"),
        ("a::operator<<(int)", "a::operator<T>"),
        ("IPC::ParamTraits<nsT<char> >::Write(int)", "IPC::ParamTraits<nsT<T> >::Write"),
        ("<name omitted>", "<name omitted>"),
        ("<unknown in a.dll>", "<unknown in a.dll>"),
        ("f(a,b)", "f"),
        ("T f<a>::g *", "*"),
        ("f<unclosed", "f<T>"),
        ("js_Run(int)", "js_Run:7"),
    ],
)
def test_cpp_functions(function: str, wanted: str) -> None:
    assert frame_text(Stacked(function, "a.cpp", 7), LISTS) == wanted


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("<a::B<C> as d::E>::f::h0123abc", "<a::B<C> as d::E>::f"),
        ("core::ptr::drop<alloc::Vec<u8>>", "core::ptr::drop<T>"),
        ("f(u8,u8)", "f"),
    ],
)
def test_rust_functions(function: str, wanted: str) -> None:
    for file in ("/x/a.rs", "git:host/x:src/a.rs:1f2e", "c:\\x\\a.rs"):
        assert frame_text(Stacked(function, file), LISTS) == wanted


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (Stacked(None, "/a/b.c", 3, "m.so"), "b.c#3"),
        (Stacked(None, "c:\\a\\b.c", 3), "b.c#3"),
        (Stacked(None, "/a/b.c", None, "m.so"), "m.so"),
        (Stacked(module="[vdso]"), "vdso"),
        (Stacked(unloaded="old.dll"), "(unloaded old.dll)"),
        (Stacked(address="0x00beef"), "@0xbeef"),
        (Stacked(address="elsewhere"), ""),
        (Stacked(), ""),
    ],
)
def test_frames_without_functions(frame: Stacked, wanted: str) -> None:
    assert frame_text(frame, LISTS) == wanted


@pytest.mark.parametrize(
    ("functions", "wanted"),
    [
        (["main"], "main"),
        (["abort", "main", "x"], "abort | main"),
        (["raise", "abort", "_start", "main"], "abort | main"),
        (["abort", "x", "here", "y"], "here"),
        (["a.dll", "a.dll", "b.dll", "b.dll", "a.dll", "f"], "a.dll | b.dll | a.dll | f"),
        (["ns::a", "ns::b", "c"], "ns::a | ns::b | c"),
        (["raise", "_start"], "raise"),
        ([], "EMPTY: no frame data available"),
    ],
)
def test_stacks(functions: list[str], wanted: str) -> None:
    found, components = signature([Stacked(f) for f in functions], LISTS)
    assert found == wanted
    assert all(c.why for c in components)


def test_bounds_of_a_signature() -> None:
    assert signature([Stacked("abort")] * 100, LISTS)[0].count("abort") == s.MAX_FRAMES
    assert signature([], LISTS, crashed=False)[0] == "EMPTY: no crashing thread identified"
    assert signature([Stacked(module="KERNEL32.DLL")], Lists(), lower_modules=True)[0] == "kernel32.dll"
    assert s.shortened("a  b\tc\N{BULLET}") == "a bc"
    assert s.shortened("x" * 300) == "x" * 252 + "..."


def event(*functions: str, kind: str = "SIGSEGV", **told: Any) -> Event:
    frames = [Frame(status="symbolicated", function=f, package="C:\\W\\Foo.DLL", lineno=1) for f in functions]
    exceptions = [ExceptionInfo(type=kind, frames=frames)]
    return Event(
        schema=SCHEMA, event_id="0" * 32, status="ok", source=Source(format="minidump"), exceptions=exceptions, **told
    )


def test_events() -> None:
    assert s.values(event("abort", "f"), LISTS) == ["abort | f"]
    assert s.values(event("f", kind="EXCEPTION_STACK_OVERFLOW"), LISTS) == ["stackoverflow | f"]
    assert s.values(event("f", attributes={"OOMAllocationSize": "1024"}), LISTS) == ["OOM | small"]
    assert s.values(event("f", attributes={"OOMAllocationSize": 1 << 30}), LISTS) == ["OOM | large | f"]
    assert s.values(event("f", attributes={"AbortMessage": " why " + "y" * 90}), LISTS) == [
        f"Abort | why {'y' * 76} | f"
    ]
    assert s.values(event("", os=OsInfo(name="Windows NT")), LISTS) == ["foo.dll"]
    assert [c.contributes for c in s.explain(event("raise", "f"), LISTS)] == [False, True]


def test_lists_are_files_of_mozillas_names(tmp_path: Path) -> None:
    (tmp_path / "irrelevant_signature_re.txt").write_text("# a comment\n\nraise\n_start\n")
    (tmp_path / "signature_sentinels.txt").write_text("here\n")
    (tmp_path / "other.txt").write_text("not a list")
    found = load_lists([str(tmp_path)])
    assert found == Lists(irrelevant=("raise", "_start"), sentinels=("here",))
    assert load_lists([str(tmp_path / "signature_sentinels.txt")]) == Lists(sentinels=("here",))


def test_lists_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prefix_signature_re.txt"
    path.write_text("fine\nba(d\n")
    with pytest.raises(RuleError, match=r"prefix_signature_re\.txt:2:3: "):
        load_lists([str(path)])
    with pytest.raises(SourceUnavailable):
        load_lists([str(tmp_path / "gone" / "prefix_signature_re.txt")])
    monkeypatch.setattr(s, "MAX_BYTES", 3)
    with pytest.raises(LimitExceeded):
        load_lists([str(path)])


@given(st.text("ab:<>()[]{}`' ,&*~const", max_size=40), st.sampled_from([None, "/a.rs"]))
def test_any_name_has_a_text(function: str, file: str | None) -> None:
    assert len(frame_text(Stacked(function, file, 1), LISTS)) <= 3 * len(function) + 6
