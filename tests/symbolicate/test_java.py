"""Java stacks through mappings, from the text of a trace to the frames of an event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.model.event import Frame
from deadreckon.objects.proguard import Mapping
from deadreckon.symbolicate import java

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.event import Event

MAPPING = """out.Line -> o:
    1:2:int outline() -> a
# {"id":"com.android.tools.r8.outline"}
com.acme.Main -> m:
    4:4:void com.acme.Text.trim():98:98 -> s
    4:4:void caller():24 -> s
    27:27:void caller():0:0 -> s
# {"id":"com.android.tools.r8.outlineCallsite","positions":{"1":4}}
    void one() -> t
    void two() -> t
    1:1:void bridge():0:0 -> u
      # {"id":"com.android.tools.r8.synthesized"}
com.acme.Failure -> f:
"""


def frame(module: str, function: str, line: int | None = None, **more: Any) -> Frame:
    return Frame(status="symbolicated", module=module, function=function, lineno=line, lang="java", **more)


def short(frames: list[Frame]) -> list[str]:
    return [f"{f.module}.{f.function}:{f.lineno}{'+' * f.inline}" for f in frames]


@pytest.fixture(scope="module")
def mappings() -> list[Mapping]:
    return [Mapping(b"x.Y -> xy:\n"), Mapping(MAPPING.encode())]


def test_inlined_calls_keep_the_renamed_position(mappings: list[Mapping]) -> None:
    found = java.retrace_stack([frame("m", "s", 4, filename="SourceFile", package="/base.odex", rva="0x10")], mappings)
    assert short(found) == ["com.acme.Text.trim:98+", "com.acme.Main.caller:24"]
    assert all(f.origin == {"module": "m", "function": "s", "filename": "SourceFile", "lineno": 4} for f in found)
    assert [(f.package, f.rva, f.filename) for f in found] == [
        ("/base.odex", "0x10", "Text.java"),
        ("/base.odex", "0x10", "Main.java"),
    ]


def test_shared_code_is_shown_where_it_belongs(mappings: list[Mapping]) -> None:
    found = java.retrace_stack([frame("o", "a", 1), frame("m", "s", 27)], mappings)
    assert short(found) == ["com.acme.Text.trim:98+", "com.acme.Main.caller:24"]
    assert (found[0].origin or {})["outline"] == {"module": "o", "function": "a", "lineno": 1}
    # Without a caller to tell, or with one that isn't in the mapping, it is shown as it is.
    assert short(java.retrace_stack([frame("o", "a", 1)], mappings)) == ["o.a:1"]
    assert short(java.retrace_stack([frame("o", "a", 1), frame("java.X", "y", 1)], mappings)) == ["o.a:1", "java.X.y:1"]


def test_alternatives_say_so(mappings: list[Mapping]) -> None:
    stacks = {0: [frame("m", "t"), frame("m", "s", 4)]}
    said = java.retrace(stacks, [], 1, mappings)
    assert short(stacks[0])[:2] == ["com.acme.Main.one:None", "com.acme.Main.two:None"]
    assert [((f.origin or {}).get("alternative"), (f.origin or {}).get("alternatives")) for f in stacks[0]] == [
        (1, 2), (2, 2), (None, None), (None, None),
    ]  # fmt: skip
    assert [(d.code, d.severity) for d in said] == [("frame_ambiguous", "info")]


def test_what_the_compiler_made_is_not_the_applications(mappings: list[Mapping]) -> None:
    stacks = {0: [frame("m", "u", 1), frame("m", "s", 4), frame("android.os.Looper", "loop", 9)]}
    java.retrace(stacks, [], 1, mappings)
    assert [f.in_app for f in stacks[0]] == [False, True, True, False]
    assert (stacks[0][0].origin or {})["synthesized"] is True


def test_frames_of_others_stay(mappings: list[Mapping]) -> None:
    native = Frame(status="symbolicated", function="m", module="m")
    other = frame("q.Unknown", "s", 4, in_app=True)
    stacks = {0: [native, other]}
    assert java.retrace(stacks, [], 1, mappings) == []
    assert stacks[0] == [native, other]


def test_too_many_positions_leave_the_frame(mappings: list[Mapping]) -> None:
    text = "com.acme.Big -> big:\n" + "    1:1:void f():1:1 -> s\n" * 300
    stacks = {0: [frame("big", "s", 1), frame("m", "s", 4)]}
    said = java.retrace(stacks, [], 1, [Mapping(text.encode()), *mappings])
    assert short(stacks[0]) == ["big.s:1", "com.acme.Text.trim:98+", "com.acme.Main.caller:24"]
    assert [d.code for d in said] == ["limit_exceeded"]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("java.lang.Object", False),
        ("kotlin.jvm.X", False),
        ("androidx.a.B", False),
        ("javax", True),
        ("com.acme.X", True),
    ],
)
def test_in_app(name: str, ours: bool) -> None:
    assert java.in_app(name) is ours


def lines(event: Event) -> list[object]:
    """Return exceptions and frames in the order of the text."""
    found: list[object] = []
    for exception in event.exceptions or ():
        if exception.type:
            found.append(exception.type)
        found += [(f.module, f.function, f.filename, f.lineno) for f in exception.frames or ()]
    return found


def expected_lines(text: str) -> list[object]:
    """Read R8's output: line 0 is none, and places that are no file are none either."""
    found: list[object] = []
    for line in text.splitlines():
        said = line.strip()
        if said.startswith("at "):
            qualified, _, place = said[3:-1].partition("(")
            class_name, _, method = qualified.rpartition(".")
            file, _, number = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "0")
            found.append((class_name, method, None if file == "Unknown Source" else file, int(number) or None))
        elif said and not said.startswith("..."):
            found.append(said.removeprefix('Exception in thread "main" ').removeprefix("Caused by: ").partition(":")[0])
    return found


@pytest.mark.corpus
def test_vectors(corpus: Path, tmp_path: Path) -> None:
    """R8's own examples of retraced stacks, as Sentry's port of it has them."""
    with Engine() as engine:
        for number, vector in enumerate(json.loads((corpus / "other/proguard/retrace_vectors.json").read_text())):
            path = tmp_path / f"{number}.txt"
            path.write_text(vector["mapping"])
            event = engine.process(vector["input"].encode(), symbols=[str(path)])
            assert event.status == "ok", vector["name"]
            assert lines(event) == expected_lines(vector["expected"]), vector["name"]
