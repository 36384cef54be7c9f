"""PostHog's fingerprints: the vectors, and what events of ours give."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.grouping.families import posthog
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Frame, Source, Thread

if TYPE_CHECKING:
    from pathlib import Path


def sha512(*pieces: str) -> str:
    return hashlib.sha512("".join(pieces).encode()).hexdigest()


def event(**told: Any) -> Event:
    source = Source(format=told.pop("form", "minidump"))
    return Event(schema=SCHEMA, event_id="0" * 32, status="ok", source=source, **told)


@pytest.mark.corpus
def test_vectors(corpus: Path) -> None:
    told = json.loads((corpus / "grouping/posthog/vectors.json").read_text())
    for case in told["fingerprints"]:
        assert posthog.fingerprint(case["exception_list"]) == case["value"], case["name"]
        wanted = [piece for part in case["record"] for piece in part["pieces"]]
        assert [kind for kind, _, counts, _ in posthog.pieces(case["exception_list"]) if counts] == wanted, case["name"]
    assert [posthog.manual(case["in"]) for case in told["manual"]] == [case["out"] for case in told["manual"]]


def test_an_events_frames_are_outermost_first() -> None:
    frames = [
        Frame(status="symbolicated", function="inner", filename="a.py", in_app=True),
        Frame(status="missing_symbol", filename="b.py", lineno=3, in_app=True),
        Frame(status="symbolicated", function="outer", module="m", in_app=True),
        Frame(status="symbolicated", function="lib", in_app=False),
    ]
    told = event(exceptions=[ExceptionInfo(type="T", value="v", frames=frames)])
    assert posthog.values(told) == [sha512("T", "m", "outer", "a.py", "inner")]
    counted = [c.text for c in posthog.explain(told) if c.contributes]
    assert counted[0] == "Exception Type: T"
    assert sha512(*(c.partition(": ")[2] for c in counted)) == posthog.values(told)[0]


def test_a_native_crashs_stack_is_the_first_exceptions() -> None:
    frames = [Frame(status="symbolicated", function="f", package="/a/libx.so", in_app=True)]
    told = event(exceptions=[ExceptionInfo(type="SIGSEGV")], threads=[Thread(id=1, crashed=True, frames=frames)])
    assert posthog.values(told) == [sha512("SIGSEGV", "/a/libx.so", "f")]


def test_without_any_stack_the_message_counts() -> None:
    assert posthog.values(event(message="m")) == [sha512("Error", "m")]
    assert posthog.values(event(exceptions=[ExceptionInfo(type="T", value="v")])) == [sha512("T", "v")]


def test_what_posthog_resolved_itself_is_taken_as_it_came() -> None:
    frame = {"resolved_name": "f", "source": "s", "in_app": True, "resolved": True}
    listed = [{"type": "T", "value": "v", "stacktrace": {"type": "resolved", "frames": [frame, 7]}}]
    assert posthog.values(event(form="posthog"), {"$exception_list": listed}) == [sha512("T", "s", "f")]
    listed[0]["stacktrace"] = {"type": "raw", "frames": [frame]}
    assert posthog.values(event(form="posthog", message="m"), {"$exception_list": listed}) == [sha512("Error", "m")]


def test_the_clients_own() -> None:
    assert posthog.values(event(form="posthog", grouping=["mine"])) == ["mine"]
    assert posthog.values(event(form="posthog", grouping=["x" * 65])) == [sha512("x" * 65)]
    (component,) = posthog.explain(event(form="posthog", grouping=["mine"]))
    assert component.text == "mine"
    assert posthog.values(event(grouping=["another product's"])) != ["another product's"]
