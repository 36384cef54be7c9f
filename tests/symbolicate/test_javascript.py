"""Frames of generated scripts, mapped: places, names and which of them counts, context, and why one was not mapped."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from deadreckon.engine import Engine
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.objects import sourcemap
from deadreckon.reports.javascript import parse_stack
from deadreckon.symbolicate.javascript import JavaScript, is_mappable
from deadreckon.symbols.maps import KeptMap, open_map, write_map
from deadreckon.symbols.scripts import Found
from synth.sourcemap import function_map, source_map

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deadreckon.symbols.scripts import Scripts, Wanted

URL = "https://cdn.net/js/app.js"


@dataclass
class Shelf:
    """What is found, by the end of the URL that is asked for."""

    found: Mapping[str, Found]

    def find(self, wanted: Wanted) -> Found:
        return next(
            (f for end, f in self.found.items() if wanted.url.endswith(end)), Found(tried=[wanted.url + ".map"])
        )


def found(data: bytes | None, script: str | None = None, **members: Any) -> Found:
    kept = KeptMap(sourcemap.read(data)) if data is not None else None
    state = "found" if data is not None else "no_map"
    given = {"state": state, "key": "comment", "map_name": "app.js.map", **members}
    return Found(script=script.encode() if script is not None else None, map=kept, **given)


def applied(
    stack: str | list[Frame], shelf: Mapping[str, Found], lines: int = 1
) -> tuple[list[Frame], list[Diagnostic]]:
    frames = [msgspec.structs.replace(f) for f in parse_stack(stack)] if isinstance(stack, str) else stack
    stacks = [frames]
    scripts: Scripts = Shelf(shelf)  # type: ignore[assignment]
    said = JavaScript(scripts, lines).apply(stacks)
    return stacks[0], said


def why(frame: Frame) -> str | None:
    return ((frame.details or {}).get("source_map") or {}).get("state")


SCRIPT = "function a(b){throw b(1)}a(function(c){d(c)});"
#         0         1         2         3         4
NAMES = ["start", "render", "callback", "item"]
SOURCE = "// greet\nfunction start(render) {\n  throw render(1);\n}\nstart(function (item) {\n  fail(item);\n});\n"
MAP = source_map(
    [
        (0, 0, 0, 1, 0),
        (0, 9, 0, 1, 9, 0),
        (0, 14, 0, 2, 2),
        (0, 20, 0, 2, 8, 1),
        (0, 25, 0, 4, 0, 0),
        (0, 27, 0, 4, 6),
        (0, 39, 0, 5, 2, 2),
        (0, 41, 0, 5, 7, 3),
        (0, 44, 0, 6, 0),
    ],
    sources=["../src/greet.js"],
    names=NAMES,
    sourcesContent=[SOURCE],
)
STACK = f"Error: x\n    at {URL}:1:40\n    at a ({URL}:1:21)\n    at {URL}:1:26\n"


def test_a_stack_is_mapped() -> None:
    frames, said = applied(STACK, {"app.js": found(MAP, SCRIPT)})
    assert said == []
    assert [(f.function, f.filename, f.lineno, f.colno) for f in frames] == [
        ("render", "../src/greet.js", 6, 3),
        ("start", "../src/greet.js", 3, 9),
        (None, "../src/greet.js", 5, 1),
    ]
    assert [(f.origin or {}).get("function_from") for f in frames] == ["caller", "script", "engine"]
    first = frames[1]
    assert first.abs_path == "https://cdn.net/src/greet.js"
    assert first.raw_function == "a"
    assert first.status == "symbolicated"
    assert first.in_app
    assert (first.pre_context, first.context_line, first.post_context) == (
        ["function start(render) {"],
        "  throw render(1);",
        ["}"],
    )
    assert first.origin == {
        "abs_path": URL,
        "lineno": 1,
        "colno": 21,
        "function": "a",
        "function_from": "script",
        "map": "app.js.map",
        "map_by": "comment",
    }


def test_without_the_script_places_are_mapped_all_the_same() -> None:
    frames, _ = applied(STACK, {"app.js": found(MAP)})
    assert [(f.function, f.lineno, f.colno) for f in frames] == [(None, 6, 3), ("a", 3, 9), (None, 5, 1)]
    assert [(f.origin or {}).get("function_from") for f in frames] == [None, "engine", None]


def test_equal_lines_of_a_stack_are_mapped_each() -> None:
    frames = parse_stack(f"Error: x\n{f'    at a ({URL}:1:21){chr(10)}' * 3}")
    assert len({id(f) for f in frames}) == 1
    mapped, _ = applied(list(frames), {"app.js": found(MAP, SCRIPT)})
    assert [(f.function, f.lineno, (f.origin or {})["colno"]) for f in mapped] == [("start", 3, 21)] * 3


def test_no_context_is_no_loss() -> None:
    bare = source_map([(0, 0, 0, 1, 0)], sources=["a.js"])
    frames, _ = applied(f"    at f ({URL}:1:1)", {"app.js": found(bare)})
    assert (frames[0].lineno, frames[0].context_line) == (2, None)
    frames, _ = applied(f"    at f ({URL}:1:1)", {"app.js": found(MAP)}, lines=-1)
    assert (frames[0].lineno, frames[0].context_line) == (2, None)
    short = source_map([(0, 0, 0, 99, 0)], sources=["a.js"], sourcesContent=["one\ntwo"])
    frames, _ = applied(f"    at f ({URL}:1:1)", {"app.js": found(short)})
    assert (frames[0].lineno, frames[0].context_line) == (100, None)


def test_a_clients_context_is_that_of_the_script() -> None:
    """Sentry's clients send the bundle's lines: at the original place they would be of another file."""
    (frame,) = parse_stack(f"    at f ({URL}:1:1)")
    sent = {"context_line": "minified()", "pre_context": ["before"], "post_context": ["after"]}
    bare = source_map([(0, 0, 0, 1, 0)], sources=["a.js"])
    for data in (bare, MAP):
        frames, _ = applied([msgspec.structs.replace(frame, **sent)], {"app.js": found(data)})
        told = frames[0].pre_context, frames[0].context_line, frames[0].post_context
        assert told == (
            (None, None, None) if data is bare else (["// greet"], "function start(render) {", ["  throw render(1);"])
        )
    frames, _ = applied([msgspec.structs.replace(frame, **sent)], {"app.js": found(None)})
    assert frames[0].context_line == "minified()"


def test_a_map_that_has_been_stored_meanwhile(tmp_path: Path) -> None:
    """Its texts lie elsewhere then; what was worked out before still holds."""
    kept = found(MAP, SCRIPT)
    assert kept.map is not None
    scripts: Scripts = Shelf({"app.js": kept})  # type: ignore[assignment]
    mapper = JavaScript(scripts, 1)
    told = []
    for _ in range(2):
        frames = [msgspec.structs.replace(f) for f in parse_stack(STACK)]
        assert mapper.apply([frames]) == []
        told.append(msgspec.to_builtins(frames))
        write_map(tmp_path / "a.table", kept.map.table)
        kept.map.table = open_map(tmp_path / "a.table")
    assert told[0] == told[1]


def test_long_lines_are_cut_around_the_column() -> None:
    text = "".join(f"<{n:03}>" for n in range(100))
    long = source_map(
        [(0, 0, 0, 1, 250), (0, 9, 0, 1, 3), (0, 18, 0, 1, 499)], sources=["a.js"], sourcesContent=[f"{text}\n" * 3]
    )
    stack = "".join(f"    at f ({URL}:1:{column})\n" for column in (1, 10, 19))
    for _ in range(2):
        frames, _ = applied(stack, {"app.js": found(long)})
        middle, start, end = (f.context_line or "" for f in frames)
        assert middle == f"{{snip}} {text[190:330]} {{snip}}"
        assert start == f"{text[:140]} {{snip}}"
        assert end == f"{{snip}} {text[360:]}"
        assert frames[0].pre_context == [f"{text[:140]} {{snip}}"]


def test_many_frames_of_a_source_have_the_same_context() -> None:
    content = "".join(f"line {n}\r\n" for n in range(60))
    table = source_map([(0, n, 0, n, 0) for n in range(60)], sources=["a.js"], sourcesContent=[content])
    stack = "".join(f"    at f ({URL}:1:{n + 1})\n" for n in [*range(60), *range(60)])
    frames, _ = applied(stack, {"app.js": found(table)})
    assert [f.context_line for f in frames] == [f"line {n}" for n in range(60)] * 2
    assert frames[70].pre_context == ["line 9"]
    assert frames[70].post_context == ["line 11"]


# -- why a frame was not mapped ---------------------------------------------------------------------------------------

GAPS = source_map([(0, 5, 0, 1, 0), (0, 10), (2, 0, 0, 2, 0)], sources=["a.js"])


@pytest.mark.parametrize(
    ("line", "column", "script", "state"),
    [
        (1, 3, None, "before_first_mapping"),
        (1, 12, None, "unmapped_segment"),
        (2, 1, None, "no_mapping_on_line"),
        (9, 1, None, "no_such_line"),
        (1, 9, "1234567", "past_line_end"),
        (3, 1, "1234567890", "no_such_line"),
        (1, 8, "1234567", None),
        (3, 1, "1\n2\n3", None),
    ],
)
def test_states(line: int, column: int, script: str | None, state: str | None) -> None:
    frames, said = applied(f"    at f ({URL}:{line}:{column})", {"app.js": found(GAPS, script)})
    assert why(frames[0]) == state
    assert (frames[0].abs_path == URL) == (state is not None)
    assert [(d.code, d.severity, (d.where or {}).get("state")) for d in said] == (
        [("sourcemap_unmapped", "info", state)] if state else []
    )


@pytest.mark.parametrize(
    ("state", "code", "severity"),
    [
        ("no_map", "sourcemap_missing", "info"),
        ("bad_map", "sourcemap_malformed", "warning"),
        ("mismatch", "sourcemap_mismatch", "warning"),
    ],
)
def test_maps_that_are_not_there(state: str, code: str, severity: str) -> None:
    lost = Found(state=state, problem="the reason", tried=["debug id 1", "app.js.map"])
    frames, said = applied(STACK, {"app.js": lost})
    assert [why(f) for f in frames] == [state] * 3
    assert (frames[0].details or {})["source_map"] == {
        "state": state,
        "message": "the reason",
        "looked_for": ["debug id 1", "app.js.map"],
    }
    assert [(d.code, d.severity, (d.where or {})["frames"]) for d in said] == [(code, severity, 3)]
    assert "the reason" in (said[0].message or "")


def test_diagnostics_are_few() -> None:
    stack = "".join(f"    at f (https://cdn.net/{n}.js:1:1)\n" for n in range(300))
    frames, said = applied(stack, {})
    assert len(said) == 100
    assert {why(f) for f in frames} == {"no_map"}


def test_scripts_that_are_looked_for_are_few() -> None:
    frames, _ = applied("".join(f"    at f (https://cdn.net/{n}.js:1:1)\n" for n in range(3000)), {})
    said = [(f.details or {})["source_map"]["message"] for f in frames]
    assert said[0] == "no source map was found"
    assert said[-1].startswith("not looked for")


@pytest.mark.parametrize(
    "line",
    [
        "    at Array.map (<anonymous>)",
        "    at apply (native)",
        "    at Module._compile (node:internal/modules/cjs/loader:1521:14)",
        "    at <anonymous>:1:2",
        "   at baz (eval code:1:18)",
        "    at tryCallOne (address at InternalBytecode.js:1:1180)",
        "    in Button (created by App)",
        "f@[native code]",
        "    ... skipping 5 frames",
    ],
)
def test_engines_own_code_has_no_maps(line: str) -> None:
    (frame,) = parse_stack(line)
    assert not is_mappable(frame)
    frames, said = applied([frame], {"": found(MAP)})
    assert (frames[0].origin, frames[0].details == frame.details, said) == (None, True, [])


def test_other_languages_are_left_alone() -> None:
    frame = Frame(status="symbolicated", lang="java", abs_path="app.js", lineno=1, colno=1)
    frames, said = applied([frame], {"": found(MAP)})
    assert (frames, said) == ([frame], [])


def test_without_a_column_a_line_of_one_place_is_mapped() -> None:
    one = source_map([(0, 0, 0, 4, 2), (0, 9, 0, 4, 8), (1, 0, 0, 5, 0), (1, 2, 0, 6, 0)], sources=["a.js"])
    frames, _ = applied(f"f@{URL}:1\ng@{URL}:2\nh@{URL}:3\n", {"app.js": found(one)})
    assert [(f.lineno, f.colno, why(f)) for f in frames] == [
        (5, None, None),
        (2, None, "no_column"),
        (3, None, "no_such_line"),
    ]


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_parenthesis_leads_back_to_the_name() -> None:
    """JavaScriptCore reports the parenthesis of a call, where terser's maps have a name of something else."""
    script = "a(function(){b()});"
    names = ["attempt", "action", "wrong"]
    segments = [(0, 0, 0, 0, 0, 0), (0, 1, 0, 0, 7, 2), (0, 2, 0, 0, 8), (0, 13, 0, 1, 2, 1), (0, 14, 0, 1, 8, 2)]
    shelf = {"app.js": found(source_map(segments, names=names), script)}
    for column in (1, 2):
        frames, _ = applied(f"@{URL}:1:14\nglobal code@{URL}:1:{column}", shelf)
        assert [f.function for f in frames] == ["attempt", "global code"]


def test_an_asynchronous_caller_waits_and_does_not_call() -> None:
    stack = f"    at {URL}:1:40\n    at async a ({URL}:1:21)"
    frames, _ = applied(stack, {"app.js": found(MAP, SCRIPT)})
    assert [f.function for f in frames] == [None, "start"]


def test_names_that_say_nothing_give_way_to_the_caller() -> None:
    script = "function __webpack_require__(e){t(e)}x.y(1)"
    segments = [(0, 0, 0, 0, 0), (0, 32, 0, 1, 0), (0, 37, 0, 2, 0), (0, 39, 0, 2, 2, 0)]
    shelf = {"app.js": found(source_map(segments, names=["load"]), script)}
    frames, _ = applied(f"    at __webpack_require__ ({URL}:1:33)\n    at {URL}:1:40", shelf)
    assert [f.function for f in frames] == ["load", None]


def test_the_map_s_own_function_names_come_before_the_script_s() -> None:
    rows = [(0, 0, "<global>"), (1, 0, "Greeter#start"), (4, 6, "start$argument_0")]
    data = source_map(
        [(0, 0, 0, 1, 0), (0, 14, 0, 2, 2), (0, 39, 0, 5, 2)],
        sources=["a.js"],
        x_facebook_sources=[[function_map(rows)]],
    )
    frames, _ = applied(STACK, {"app.js": found(data, SCRIPT)})
    assert [(f.function, (f.origin or {})["function_from"]) for f in frames[:2]] == [
        ("start$argument_0", "facebook"),
        ("Greeter#start", "facebook"),
    ]


def test_scopes_come_first_and_show_inlined_calls() -> None:
    """The specification's own example: a function was inlined into another."""
    found_frames = [sourcemap.OriginalFrame("inner", 0, 1, 2), sourcemap.OriginalFrame("outer", 0, 5, 0)]
    scoped = found(MAP, SCRIPT)
    assert scoped.table is not None
    ranges = sourcemap.scopes(scoped.table)
    ranges.ranges = ranges.ranges.__class__((1, 10), ranges.ranges.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sourcemap, "frames_at", lambda *_: found_frames)
        frames, _ = applied(f"    at a ({URL}:1:21)\n    at other (x.js:1:1)", {"app.js": scoped})
    assert [(f.function, f.lineno, f.inline) for f in frames] == [
        ("inner", 3, True),
        ("outer", 6, False),
        ("other", 1, False),
    ]
    assert [(f.origin or {}).get("function_from") for f in frames] == ["scopes", "scopes", None]


def test_ignored_and_foreign_sources_are_not_the_application_s() -> None:
    data = source_map(
        [(0, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 2, 2, 0, 0), (0, 3, 3, 0, 0)],
        sources=[
            "src/a.js",
            "src/vendor.js",
            "webpack:///./node_modules/react/index.js",
            "webpack:///webpack/bootstrap",
        ],
        ignoreList=[1],
    )
    stack = "".join(f"    at f ({URL}:1:{n})\n" for n in range(1, 5))
    frames, _ = applied(stack, {"app.js": found(data)})
    assert [(f.filename, f.in_app) for f in frames] == [
        ("src/a.js", True),
        ("src/vendor.js", False),
        ("node_modules/react/index.js", False),
        ("webpack/bootstrap", False),
    ]


def test_a_source_without_a_name() -> None:
    data = source_map([(0, 0, 0, 7, 0)], sources=[None])
    frames, _ = applied(f"    at {URL}:1:1", {"app.js": found(data)})
    assert (frames[0].lineno, frames[0].filename, frames[0].status, frames[0].in_app) == (
        8,
        None,
        "missing_symbol",
        False,
    )


# -- React Native, WebAssembly ----------------------------------------------------------------------------------------


def test_hermes_counts_bytecode_from_0() -> None:
    data = source_map([(0, 0, 0, 0, 0), (0, 100, 0, 9, 4)], sources=["a.js"], x_hermes_function_offsets={"0": [0, 90]})
    stack = "    at f (address at index.android.bundle:1:100)\n    at g (index.android.bundle:1:100)"
    frames, _ = applied(stack, {"bundle": found(data)})
    assert [(f.lineno, f.colno) for f in frames] == [(10, 5), (1, 1)]
    assert (frames[0].origin or {})["column_is_0based"] is True
    assert frames[0].details == {"bytecode": True}
    crash = Frame(
        status="missing",
        lang="javascript",
        abs_path="index.android.bundle",
        details={"hermes_function": 1, "hermes_offset": 12, "hermes_segment": 0},
    )
    unknown = msgspec.structs.replace(crash, details={**(crash.details or {}), "hermes_function": 9})
    frames, _ = applied([crash, unknown], {"bundle": found(data)})
    assert [(f.lineno, why(f)) for f in frames] == [(10, None), (None, "no_such_module")]


def test_modules_of_ram_bundles() -> None:
    segment = json.loads(source_map([(4, 0, 0, 30, 0)], sources=["s.js"], x_facebook_offsets=[None, 4]))
    data = source_map(
        [(7, 0, 0, 20, 0)], sources=["m.js"], x_facebook_offsets=[None, 7], x_facebook_segments={"3": segment}
    )
    stack = "f@1.js:1:1\nf@seg-3_1.js:1:1\nf@9.js:1:1\nf@seg-4_1.js:1:1\nf@seg-0_1.js:1:1"
    frames, _ = applied(stack, {"main.jsbundle": found(data)})
    assert [(f.filename, f.lineno, why(f)) for f in frames] == [
        ("m.js", 21, None),
        ("s.js", 31, None),
        ("9.js", 1, "no_such_module"),
        ("seg-4_1.js", 1, "no_such_module"),
        ("m.js", 21, None),
    ]


def test_offsets_in_webassembly() -> None:
    data = source_map([(0, 33, 0, 9, 4)], sources=["a.rs"])
    stack = "    at f (https://cdn.net/a.wasm:wasm-function[7]:0x21)"
    frames, _ = applied(stack, {"a.wasm": found(data, "\0asm")})
    assert (frames[0].filename, frames[0].lineno, frames[0].function) == ("a.rs", 10, "f")


# -- together ---------------------------------------------------------------------------------------------------------


def test_threads_share_what_was_read() -> None:
    scripts: Scripts = Shelf({"app.js": found(MAP, SCRIPT)})  # type: ignore[assignment]
    javascript = JavaScript(scripts)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(30):
            stacks = [[msgspec.structs.replace(f) for f in parse_stack(STACK)]]
            javascript.apply(stacks)
            if [f.function for f in stacks[0]] != ["render", "start", None]:
                wrong.append(stacks)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_engine_maps_what_it_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "app.js").write_text(f"{SCRIPT}\n//# sourceMappingURL=app.js.map\n")
    (folder / "app.js.map").write_bytes(MAP)
    crash = tmp_path / "crash.txt"
    crash.write_text(STACK)
    with Engine() as engine:
        event = engine.process(str(crash), sourcemaps=[str(folder)])
        again = engine.process(
            json.dumps({"name": "TypeError", "message": "y", "stack": STACK}).encode(), symbols=[str(folder)]
        )
        without = engine.process(str(crash))
    assert event.exceptions is not None
    assert event.status == "ok"
    assert [f.function for f in event.exceptions[0].frames or ()] == ["render", "start", None]
    assert event.culprit == "render (../src/greet.js:6)"
    assert again.exceptions is not None
    assert [f.function for f in again.exceptions[0].frames or ()] == ["render", "start", None]
    assert again.exceptions[0].type == "TypeError"
    assert [d.code for d in without.diagnostics or ()] == ["sourcemap_missing"]
    assert without.status == "ok"


def test_a_place_that_is_none_is_said(tmp_path: Path) -> None:
    with Engine() as engine:
        event = engine.process(STACK.encode(), sourcemaps=[str(tmp_path / "nothing")])
    assert "source_unavailable" in [d.code for d in event.diagnostics or ()]


@pytest.mark.corpus
def test_hermes_bytecode_maps_onto_its_source(corpus: Path) -> None:
    """Frame for frame, what bytecode reports is where the source reports it."""
    folder = corpus / "jsstack/engines"
    table = found((folder / "scen.hbc.map").read_bytes())
    compared = 0
    bytecode = {s["id"]: s for s in json.loads((folder / "hermes-0.12-bytecode.json").read_text())["stacks"]}
    for stack in json.loads((folder / "hermes-0.12-source.json").read_text())["stacks"]:
        other = bytecode[stack["id"]]
        wanted = parse_stack(stack["stack"], stack["name"], stack["message"])
        frames, _ = applied(
            [msgspec.structs.replace(f) for f in parse_stack(other["stack"], other["name"], other["message"])],
            {"scen.hbc": table},
        )
        for frame, source in zip(frames, wanted, strict=False):
            if frame.origin is not None:
                assert (frame.lineno, frame.colno) == (source.lineno, source.colno)
                compared += 1
    assert compared > 150


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("stack", "data", "expected"),
    [
        (
            "testfile.ram.stack",
            "testfile.ram.js.map",
            ["segmented/biz.js:5", "segmented/glo.js:7", "bar.js:14", "bar.js:10", "bar.js:5"],
        ),
        (
            "with-function-map.stack",
            "with-function-map.js.map",
            ["segmented/biz.js:5", "segmented/glo.js:7", "bar.js:14", "bar.js:10", "bar.js:5"],
        ),
        (
            "testfile.stack",
            "testfile.js.map",
            [f"thrower.js:{n}" for n in (18, 30, 30, 35, 27, 39, 44, 49, 53, 1)],
        ),
    ],
)
def test_metro_s_own_stacks(corpus: Path, stack: str, data: str, expected: list[str]) -> None:
    folder = corpus / "sourcemap/metro-symbolicate/__fixtures__"
    frames, _ = applied((folder / stack).read_text(), {"": found((folder / data).read_bytes())})
    places = [f"{(f.filename or '').removeprefix('/js/RKJSModules/')}:{f.lineno}" for f in frames if f.origin]
    assert places == expected
