from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deadreckon.grouping.fingerprint import MAX_FRAMES, combine, fingerprint, title_and_culprit
from deadreckon.grouping.judge import FRAME, MESSAGE, digest
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread
from oracle import tokens as oracle

APP, LIBC = "/opt/app", "/lib/x86_64-linux-gnu/libc.so.6"


def frame(function: str | None, package: str | None = APP, trust: str = "cfi", **more: Any) -> Frame:
    status = "symbolicated" if function else "missing_symbol"
    return Frame(status=status, function=function, package=package, trust=trust, in_app=package == APP, **more)


def event(*frames: Frame, kind: str | None = "SIGSEGV", **more: Any) -> Event:
    exceptions = [ExceptionInfo(type=kind)] if kind else None
    thread = Thread(id=1, crashed=True, frames=list(frames))
    return Event(
        schema="",
        event_id="",
        status="ok",
        source=Source(format="test"),
        exceptions=exceptions,
        threads=[thread],
        **more,
    )


def counted(*frames: Frame) -> list[str]:
    return [c.text for c in fingerprint(event(*frames)).components or () if c.contributes][1:]


def test_the_hash_is_the_documented_one() -> None:
    """Anyone can check it: BLAKE2b of each field's tag, length and bytes, then two sums and a mix."""
    found = fingerprint(event(frame("f(int)"), frame("g")))
    assert found.id == oracle.fingerprint([("T", "SIGSEGV"), ("F", "f"), ("F", "g")])
    assert found.algorithm == "native128/2"


def test_fields_that_join_to_the_same_text_differ() -> None:
    lists = [["ab"], ["a", "b"], ["", "ab"], ["ab", ""], ["b", "a"], []]
    found = {oracle.fingerprint([("F", name) for name in names]) for names in lists}
    assert len(found) == len(lists)
    told = {combine([digest(FRAME, name) for name in names]) for names in lists}
    assert told == found
    assert combine([digest(FRAME, "a")]) != combine([digest(MESSAGE, "a")])


def test_only_own_frames_count_where_there_are_any() -> None:
    assert counted(frame("memcpy", LIBC), frame("f"), frame("qsort", LIBC), frame("g")) == ["f", "g"]
    assert counted(frame("memcpy", LIBC), frame("qsort", LIBC)) == ["memcpy", "qsort"]


def test_starts_ends_guesses_and_strays_do_not_count() -> None:
    frames = (frame("abort"), frame("f"), frame("stale", trust="scan"), frame(None), frame("_start"), frame(None, None))
    assert counted(*frames) == ["f"]


def test_without_any_symbol_addresses_count() -> None:
    assert counted(frame(None, rva="0x10"), frame(None, rva="0x20"), frame(None, rva="0x30", trust="scan")) == [
        "app+0x10",
        "app+0x20",
    ]


def test_without_any_symbol_the_system_s_addresses_count_least() -> None:
    """A fault in the kernel's vdso, called from the program: it is not where to look."""
    stack = (frame(None, "linux-gate.so", rva="0x5e9"), frame(None, rva="0x20"))
    assert counted(*stack) == ["app+0x20"]
    assert counted(stack[0]) == ["linux-gate.so+0x5e9"]


def test_recursion_counts_once() -> None:
    deep = [frame("f")] * 61
    assert counted(*deep, frame("main")) == ["f", "main"]
    (told,) = [c for c in fingerprint(event(*deep)).components or () if c.text == "f"]
    assert "61 in a row" in told.why


def test_depth_is_bounded() -> None:
    frames = [frame(f"f{'x' * i}") for i in range(400)]
    found = fingerprint(event(*frames))
    assert len([c for c in found.components or () if c.contributes]) == MAX_FRAMES + 1
    assert len(found.components or ()) <= 129
    assert found.id == fingerprint(event(*frames[: MAX_FRAMES + 5])).id


def test_without_frames_the_message_decides() -> None:
    one, two, three = (
        fingerprint(event(kind=None, message=m)) for m in ("out of memory", "out of memory", "disk full")
    )
    assert one.id == two.id != three.id
    assert len(fingerprint(event(kind=None)).id) == 32


names = st.lists(st.sampled_from(["f", "g", "ab", "a", "b", "x::y", "main"]), max_size=8)


@given(names, names)
def test_equal_components_equal_ids(one: list[str], two: list[str]) -> None:
    found = [fingerprint(event(*map(frame, n))) for n in (one, two)]
    texts = [[c.text for c in f.components or () if c.contributes] for f in found]
    assert (texts[0] == texts[1]) == (found[0].id == found[1].id)


def test_title_names_the_first_frame_that_counts() -> None:
    stack = (frame("abort", LIBC), frame("ns::f<int>(int)", filename="f.cpp", lineno=3), frame("main"))
    assert title_and_culprit(event(*stack)) == ("SIGSEGV in ns::f<>", "ns::f<> (f.cpp:3)")
    assert title_and_culprit(event()) == ("SIGSEGV", None)
    assert title_and_culprit(event(frame(None, rva="0x10"))) == ("SIGSEGV in app+0x10", "app+0x10")
    assert title_and_culprit(event(frame(None, None), kind=None)) == (
        "Crash in address in no module",
        "address in no module",
    )
