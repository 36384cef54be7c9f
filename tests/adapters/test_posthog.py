"""PostHog's resolved frames: their fields, the order, and the ids of the raw frames they were made from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from deadreckon import process
from deadreckon.adapters.posthog import exception_list, raw_id, resolved_frames
from deadreckon.config import ReportLimits
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread
from deadreckon.reports.posthog import read
from synth.payloads import posthog_event, posthog_exception, posthog_frame

if TYPE_CHECKING:
    from pathlib import Path


def test_a_frame() -> None:
    frame = Frame(
        status="symbolicated",
        function="foo",
        raw_function="eF",
        abs_path="/srv/x.py",
        filename="x.py",
        lineno=3,
        lang="python",
        module="app",
        in_app=True,
        pre_context=["a"],
        context_line="b" * 301,
        post_context=["c"],
        locals={"n": "1"},
    )
    (record,) = resolved_frames([frame])
    identity = record.pop("raw_id")
    context = record.pop("context")
    assert identity == f"{raw_id(frame)}/0"
    assert record == {
        "mangled_name": "eF",
        "line": 3,
        "source": "/srv/x.py",
        "module": "app",
        "in_app": True,
        "resolved_name": "foo",
        "lang": "python",
        "resolved": True,
        "synthetic": False,
        "suspicious": False,
        "code_variables": {"n": "1"},
    }
    assert context["before"] == [{"number": 2, "line": "a"}]
    assert context["line"] == {"number": 3, "line": "b" * 300 + "...✂️"}
    assert context["after"] == [{"number": 4, "line": "c"}]


def test_frames_are_outermost_first_and_inlined_calls_share_an_id() -> None:
    def frame(name: str, *, inline: bool = False, rva: str = "0x10") -> Frame:
        return Frame(
            status="symbolicated",
            function=name,
            inline=inline,
            instruction_addr="0x1010",
            rva=rva,
            debug_id="d",
            package="/x",
        )

    stack = [frame("inlined twice", inline=True), frame("inlined", inline=True), frame("f"), frame("main", rva="0x99")]
    found = resolved_frames(stack)
    assert [f["resolved_name"] for f in found] == ["main", "f", "inlined", "inlined twice"]
    ids = [f["raw_id"].partition("/") for f in found]
    assert [part for _, _, part in ids] == ["0", "0", "1", "2"]
    assert len({identity for identity, _, _ in ids[1:]}) == 1
    expected = hashlib.sha512(b"d" + b"rel:0x10" + b"f" + b"/x" + b"native").hexdigest()
    assert ids[1][0] == expected


def test_what_was_not_resolved() -> None:
    (record,) = resolved_frames([Frame(status="missing_symbol", instruction_addr="0x1", trust="scan")])
    assert (record["resolved"], record["resolve_failure"], record["suspicious"]) == (False, "missing_symbol", True)
    assert (record["lang"], "resolved_name" in record) == ("native", False)


def test_minified_positions_identify_raw_frames() -> None:
    origin = {"function": "eF", "abs_path": "https://x/y.js", "lineno": 64, "colno": 25112}
    mapped = Frame(
        status="symbolicated", function="foo", lineno=3, lang="javascript", abs_path="src/a.ts", origin=origin
    )
    raw = Frame(
        status="missing_symbol", function="eF", lineno=64, colno=25112, lang="javascript", abs_path="https://x/y.js"
    )
    assert raw_id(mapped) == raw_id(raw) == hashlib.sha512(b"eF" + b"64" + b"25112" + b"https://x/y.js").hexdigest()


def test_an_event_comes_back_as_it_was() -> None:
    chained = {"exception_id": 1, "parent_id": 0, "type": "chained"}
    sent = posthog_event(
        posthog_exception(mechanism={"exception_id": 0, "type": "generic"}, module="app"),
        posthog_exception(posthog_frame("cause"), type="ValueError", mechanism=chained),
    )
    listed = exception_list(process(json.dumps(sent).encode()))
    assert [(e["type"], e["value"], e.get("module")) for e in listed] == [
        ("KeyError", "'k'", "app"),
        ("ValueError", "'k'", None),
    ]
    assert listed[1]["mechanism"] == chained
    assert [f["resolved_name"] for f in listed[0]["stacktrace"]["frames"]] == ["main", "inner"]
    again = posthog_event(*listed)
    (found,) = read(json.dumps(again).encode(), ReportLimits())
    frames = [f.reported for f in found.exceptions[0].frames or []]
    assert [(f.function, f.abs_path, f.lineno, f.in_app) for f in frames if f] == [
        ("inner", "x.py", 3, True),
        ("main", "x.py", 3, True),
    ]


def test_a_native_crash() -> None:
    frame = Frame(status="missing", instruction_addr="0x1")
    event = Event(
        schema="s",
        event_id="0" * 32,
        status="ok",
        source=Source(format="minidump"),
        exceptions=[ExceptionInfo(type="SIGSEGV", thread_id=7)],
        threads=[Thread(id=6, frames=[]), Thread(id=7, crashed=True, frames=[frame])],
    )
    (entry,) = exception_list(event)
    assert (entry["type"], entry["thread_id"], len(entry["stacktrace"]["frames"])) == ("SIGSEGV", 7, 1)
    bare = Event(schema="s", event_id="0" * 32, status="ok", source=Source(format="x"), message="m")
    assert exception_list(bare) == [{"type": "Error", "value": "m", "mechanism": {"type": "generic"}}]


@pytest.mark.corpus
def test_derived_ids(corpus: Path) -> None:
    told = json.loads((corpus / "grouping/posthog/vectors.json").read_text())["raw_frame_ids"]
    for case in told.values():
        body = json.dumps(posthog_event(posthog_exception(case["frame"]))).encode()
        frame = (read(body, ReportLimits())[0].exceptions[0].frames or [])[0].reported
        assert frame is not None
        assert raw_id(frame) == case["sha512"]
