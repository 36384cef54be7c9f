"""Real stacks of six engines, the cases of five other parsers, and what V8 itself says of its frames.

The other parsers' expectations contradict each other. They are compared by what they mean: their spellings of "no name"
and of engines' own code are one; where one leaves frames out or reads a line in a way that its engine does not mean,
the case is in KNOWN with the reason.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.reports.javascript import parse_stack, read

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.event import Frame

pytestmark = pytest.mark.corpus

KNOWN = {
    "sentry-javascript:d8b6efdb9b": "takes the parentheses of a C++ signature for the location",
    "sentry-javascript:6d1f3f4e8b": "drops the position in a data: URL, keeps async in one name of two",
    "sentry-javascript:3b1cc8aacd": "drops the frame of its own wrapper",
    "sentry-javascript:1950ebc655": "listed callers first",
    "stacktrace-parser:f982e3dc9d": "drops V8's bare <anonymous>",
    "stacktrace-parser:219eac19aa": "drops V8's bare <anonymous>",
    "stacktrace-parser:58f684dd9a": "drops Safari's eval code",
    "TraceKit:afde5afcb5": "drops Safari's eval code",
    "error-stack-parser:e69c98cc57": "drops Safari's bare [native code]",
    "error-stack-parser:d7ed93cfa0": "drops Safari's eval@[native code]",
    "error-stack-parser:4b112cda7d": "has no file for Edge's eval code, where Sentry has",
    "error-stack-parser:916653df32": "reads Opera's stack, where the stacktrace beside it has columns",
}
NO_NAME = {"?", "<unknown>", "<anonymous>", "<anonymous function>", "eval"}
NO_FILE = {None, "native", "[native code]", "native code", "(native)", "<anonymous>", "node:internal/promise"}


def function(name: str | None) -> str | None:
    name = (name or "").removeprefix("async ").replace("Object.?", "Object.<anonymous>")
    return None if not name or name in NO_NAME else name


def file(name: str | None) -> str | None:
    return None if name in NO_FILE else unquote((name or "").removeprefix("file://"))


def cases(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(given: dict[str, Any]) -> list[Frame]:
    if isinstance(given.get("line"), str):
        return parse_stack(given["line"])
    found = read(json.dumps(given).encode(), ReportLimits())[0].exceptions[0].frames or []
    return [f.reported for f in found if f.reported is not None]


def check_case(case: dict[str, Any]) -> None:
    """Compare with what another parser's test expects."""
    try:
        frames = frames_of(case["input"])
    except Malformed:
        frames = []
    if case["nframes"] is not None:
        assert len(frames) == case["nframes"], case["id"]
    expected = case["frames"] or []
    if case["test"].startswith("Tracekit - Safari Tests > should parse Safari 6"):
        frames = frames[::-1]  # Listed callers first.
    if case["complete"] and expected:
        assert len(frames) == len(expected), case["id"]
    for wanted, frame in zip(expected, frames, strict=False):
        if wanted is None:
            continue
        place = wanted.get("filename", wanted.get("fileName"))
        got = (function(frame.function), file(frame.abs_path) if frame.abs_path != "<anonymous>" else None)
        assert got == (function(wanted.get("function", frame.function)), file(place)), case["id"]
        assert frame.lineno == wanted.get("lineno", frame.lineno), case["id"]
        assert frame.colno == wanted.get("colno", frame.colno), case["id"]


def test_other_parsers_cases(corpus: Path) -> None:
    compared = [case for case in cases(corpus / "jsstack/upstream_cases.jsonl") if case["id"] not in KNOWN]
    for case in compared:
        check_case(case)
    assert len(compared) > 100


def test_handwritten_cases(corpus: Path) -> None:
    for case in cases(corpus / "jsstack/handwritten_cases.jsonl"):
        (frame,) = parse_stack(case["stack"])
        for key, wanted in case["frame"].items():
            if key == "filename":
                assert wanted in {frame.abs_path, frame.filename}, case["id"]
            elif key in {"function", "lineno", "colno", "in_app"}:
                assert getattr(frame, key) == wanted, (case["id"], key)
            else:
                assert (frame.details or {}).get(key) == wanted, (case["id"], key)


def check_site(frame: Frame, site: dict[str, Any]) -> None:
    """Compare with V8's own word on a frame, its CallSite."""
    details = frame.details or {}
    origin = site["evalOrigin"] or ""
    if origin.startswith("eval at"):
        inside = (details["eval_lineno"], details["eval_colno"])
        assert inside == (site["lineNumber"], site["columnNumber"])
        assert origin.rstrip(")").endswith(f"({frame.abs_path}:{frame.lineno}:{frame.colno}")
        assert details["eval_depth"] == origin.count("eval at ")
    else:
        place = (frame.abs_path, frame.lineno, frame.colno)
        assert place == (site["scriptNameOrSourceURL"], site["lineNumber"], site["columnNumber"])
    assert bool(details.get("is_async")) == bool(site["isAsync"])
    counted = re.search(r"\(index (\d+)\)", site["text"])
    assert details.get("promise_index") == (int(counted[1]) if counted else None)
    head = "async " * bool(details.get("is_async")) + "new " * bool(details.get("is_constructor"))
    if frame.function:
        assert site["text"].startswith(f"{head}{frame.function} ("), site["text"]
        assert (site["functionName"] or "").rpartition(".")[2] in frame.function, site["text"]
    else:
        assert site["functionName"] is None, site["text"]
        assert site["text"].startswith(head), site["text"]
        assert not site["text"].endswith(")"), site["text"]


def test_what_v8_says_of_its_own_frames(corpus: Path) -> None:
    for stack in json.loads((corpus / "jsstack/engines/node20-truth.json").read_text())["stacks"]:
        frames = parse_stack(stack["stack"], stack["name"], stack["message"])
        assert len(frames) == len(stack["truth"]), stack["id"]
        for frame, site in zip(frames, stack["truth"], strict=True):
            check_site(frame, site)


@pytest.mark.parametrize(
    "engine", ["node20", "bun", "spidermonkey", "quickjs", "hermes-0.12-source", "hermes-0.12-bytecode"]
)
def test_every_line_of_an_engine_is_read(corpus: Path, engine: str) -> None:
    """Behind its header, an engine's stack is nothing but frames."""
    for stack in json.loads((corpus / f"jsstack/engines/{engine}.json").read_text())["stacks"]:
        text, message = stack["stack"], stack["message"]
        printed = text.count("\n    at ") + text.startswith("    at ") + text.count("\n    ... skipping")
        if engine == "spidermonkey":
            printed = text.count("@/") + text.count("@my-eval")
        elif stack["id"] == "multiline_message" and message in text:
            printed -= 1  # What looks like a frame in its message
        assert len(parse_stack(text, stack["name"], message)) == printed, stack["id"]


def test_hermes_bytecode_is_flagged(corpus: Path) -> None:
    stacks = json.loads((corpus / "jsstack/engines/hermes-0.12-bytecode.json").read_text())["stacks"]
    frames = [f for s in stacks for f in parse_stack(s["stack"], s["name"], s["message"])]
    flagged = [f for f in frames if f.details and f.details.get("column_is_0based")]
    assert len(flagged) > 170
    assert {f.abs_path for f in flagged} == {"scen.hbc"}
