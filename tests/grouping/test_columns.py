"""A batch has the fingerprints that its events have one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.grouping.columns import Batch, fingerprints
from deadreckon.grouping.fingerprint import fingerprint
from deadreckon.grouping.judge import judge_of
from deadreckon.grouping.rules import parse_rules
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread

FUNCTIONS = [
    None,
    "abort",
    "f",
    "g(int)",
    "std::sort<int>",
    "_start",
    "__cxa_throw",
    "core::panicking::panic",
    "runtime.gopanic",
]
PACKAGES = [None, "/opt/app", "/lib/libc.so.6"]

frames = st.builds(
    Frame,
    status=st.just("symbolicated"),
    function=st.sampled_from(FUNCTIONS),
    package=st.sampled_from(PACKAGES),
    rva=st.sampled_from(["0x10", "0x20"]),
    in_app=st.sampled_from([True, False, None]),
    trust=st.sampled_from(["cfi", "scan", None]),
)


def event(stack: list[Frame], kind: str | None, platform: str | None, message: str | None = None) -> Event:
    told: dict[str, Any] = {"exceptions": [ExceptionInfo(type=kind, value=message)]} if kind or message else {}
    thread = Thread(crashed=True, frames=stack)
    return Event(
        schema="", event_id="", status="ok", source=Source(format="x"), threads=[thread], platform=platform, **told
    )


events = st.builds(
    event,
    st.lists(frames, max_size=60)
    | st.lists(st.sampled_from([Frame(status="", function=c, in_app=True) for c in "abc"]), max_size=60),
    st.sampled_from([None, "SIGSEGV", "SIGABRT"]),
    st.sampled_from(["native", None, "go", "java", "javascript"]),
    st.sampled_from([None, "out of memory", "bad value 12"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=5))
def test_a_batch_equals_its_events(told: list[Event]) -> None:
    assert fingerprints(told) == [fingerprint(e).id for e in told]


@settings(max_examples=40, deadline=None)
@given(st.lists(events, max_size=5))
def test_rules_of_a_user_hold_in_both(told: list[Event]) -> None:
    rules = parse_rules(
        "[ function:f ] | function:g* -group\ntype:SIGABRT function:f +group\n"
        "package:/lib/** category=lib\ncategory:lib v-app"
    )
    assert fingerprints(told, rules) == [fingerprint(e, rules).id for e in told]


def test_symbols_are_interned_once() -> None:
    batch = Batch(judge_of())
    stack = [
        Frame(status="", function=name, package="/opt/app", in_app=True)
        for name in ("f(int)", "f(long)", "f(int)", "g")
    ]
    batch.add(event(stack, "SIGSEGV", "native"))
    batch.add(event(stack, "SIGSEGV", "native"))
    assert len(batch) == 2
    assert len(batch.texts) == 3  # Symbols
    assert len(batch.digests) == 3  # f, g and the signal
