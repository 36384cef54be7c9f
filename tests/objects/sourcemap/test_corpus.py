"""The specification's own tests, real maps, and what other tools' tests say of theirs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sourcemap as peer
import symbolic

from deadreckon.kernels._jit import JIT
from deadreckon.kernels.positions import look_up, look_up_functions
from deadreckon.model.tables import MAPPED, SourceMapTable, json_text
from deadreckon.objects import sourcemap

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.corpus


@pytest.fixture(scope="module")
def maps(corpus: Path) -> Path:
    return corpus / "sourcemap"


def answer(table: SourceMapTable, line: int, column: int) -> tuple[Any, ...]:
    (place,) = look_up(table, [line], [column]).place.tolist()
    if place[0] < 0:
        return (None, None, None, None)
    return (sourcemap.source_path(table, place[0]), place[1], place[2], table.name(place[3]))


def outcome(folder: Path, table: SourceMapTable, action: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return what we say to a question of the specification's suite, and what is right."""
    if action["actionType"] == "checkIgnoreList":
        return [sourcemap.source_path(table, i) for i in np.flatnonzero(table.ignored).tolist()], action["present"]
    place = answer(table, action["generatedLine"], action["generatedColumn"])
    for between in action.get("intermediateMaps", ()):
        place = answer(sourcemap.read((folder / between).read_bytes()), place[1], place[2])
    wanted = [action[f"original{part}"] for part in ("Source", "Line", "Column")]
    if action["actionType"] == "checkMapping":
        wanted.append(action["mappedName"])
    return list(place[: len(wanted)]), wanted


# --- tc39 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "valid", "invalid", "answers"),
    [("source-map-spec-tests.json", 32, 67, 94), ("range-mappings-proposal-tests.json", 5, 8, 12)],
)
def test_the_specifications_tests(maps: Path, file: str, valid: int, invalid: int, answers: int) -> None:
    suite = json.loads((maps / "tc39" / file).read_text())
    folder = maps / "tc39/resources" / suite.get("resourceBasePath", "")
    counted = [0, 0, 0]
    for test in suite["tests"]:
        data = (folder / test["sourceMapFile"]).read_bytes()
        assert bool(sourcemap.check(data)) != test["sourceMapIsValid"], test["name"]
        if not test["sourceMapIsValid"]:
            counted[1] += 1
            continue
        counted[0] += 1
        table = sourcemap.read(data)
        assert table.info["problems"] == []
        for action in test.get("testActions", ()):
            counted[2] += 1
            said, wanted = outcome(folder, table, action)
            assert said == wanted, test["name"]
    assert counted == [valid, invalid, answers]


def decoded(table: SourceMapTable) -> dict[str, Any]:
    """Return a map as the suite's golden files have it."""
    found = sourcemap.scopes(table)
    variables, bindings = found.variables.tolist(), found.bindings.tolist()

    def position(line: int, column: int) -> dict[str, int]:
        return {"line": line, "column": column}

    def scope(at: int) -> dict[str, Any]:
        _, line, column, end_line, end_column, name, kind, flags, _ = found.scopes[at].tolist()
        return {
            "start": position(line, column),
            "end": position(end_line, end_column),
            "name": table.name(name),
            "kind": table.name(kind),
            "isStackFrame": bool(flags & 4),
            "variables": [table.name(name) for owner, name in variables if owner == at],
            "children": [scope(i) for i in np.flatnonzero(found.scopes[:, 8] == at).tolist()],
        }

    def generated(at: int) -> dict[str, Any]:
        line, column, end_line, end_column, definition, flags, _, source, call_line, call_column = found.ranges[
            at
        ].tolist()
        own = [row for row in bindings if row[0] == at]
        count = max([row[1] + 1 for row in own], default=0)
        return {
            "start": position(line, column),
            "end": position(end_line, end_column),
            "definitionIndex": definition if definition >= 0 else None,
            "stackFrameType": "hidden" if flags & 8 else "original" if flags & 4 else "none",
            "bindings": [
                [{"from": position(a, b), "binding": table.name(name)} for _, v, a, b, name in own if v == variable]
                for variable in range(count)
            ],
            "callSite": {"sourceIndex": source, **position(call_line, call_column)} if source >= 0 else None,
            "children": [generated(i) for i in np.flatnonzero(found.ranges[:, 6] == at).tolist()],
        }

    lines = np.repeat(table.lines, np.diff(table.first)).tolist()
    record: dict[str, Any] = {
        "file": table.info.get("file"),
        "sources": [
            {
                "url": sourcemap.source_path(table, i),
                "content": json_text(table.text[slice(*table.contents[i].tolist())].tobytes()),
                "ignored": bool(table.ignored[i]),
            }
            for i in range(len(table.sources))
        ],
        "mappings": [
            {
                "generatedPosition": position(line, column),
                "originalPosition": {"sourceIndex": place[0], **position(*place[1:3])} if place[0] >= 0 else None,
                "name": table.name(place[3]),
            }
            for line, column, place in zip(lines, table.column.tolist(), table.place.tolist(), strict=True)
        ],
    }
    if "debug_id" in table.info:
        record["debugId"] = table.info["debug_id"]
    if table.info["scopes"]:
        for i, source in enumerate(record["sources"]):
            roots = np.flatnonzero((found.scopes[:, 0] == i) & (found.scopes[:, 8] < 0)).tolist()
            source["scope"] = scope(roots[0]) if roots else None
        record["ranges"] = [generated(i) for i in np.flatnonzero(found.ranges[:, 6] < 0).tolist()]
    return record


def test_golden_files(maps: Path) -> None:
    """Debug ids and scopes; three of the files have trailing commas, which are mistakes of the suite."""
    files = sorted((maps / "tc39/decoding").rglob("*.map"))
    assert len(files) == 12
    for file in files:
        data, golden = (
            re.sub(rb",(\s*[}\]])", rb"\1", path.read_bytes()) for path in (file, file.with_suffix(".map.golden"))
        )
        assert decoded(sourcemap.read(data)) == json.loads(golden), file.name
        assert bool(sourcemap.check(data)) == file.with_suffix(".error").exists(), file.name


# --- Real maps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "duplicates"),
    [
        *(("hls.js__hls.min.js", 0), ("preact__preact.mjs", 0), ("rxjs__rxjs.umd.min.js", 0)),
        ("turbopack-prod__page.js", 87),
    ],
)
def test_positions_on_which_two_peers_agree(maps: Path, file: str, duplicates: int) -> None:
    """Where segments share a position, the two sometimes agree on the first one; ours is the last, as symbolic's is."""
    if not JIT and file.startswith("hls"):
        pytest.skip("too much for an interpreter")
    table = sourcemap.read((maps / "real" / f"{file}.map").read_bytes())
    rows = json.loads((maps / "real/oracle" / f"{file}.positions.json").read_text())["rows"]
    found = look_up(table, [row[0] for row in rows], [row[1] for row in rows])
    script = maps / "real" / file
    cache = symbolic.SourceMapCache.from_bytes(script.read_bytes(), script.with_name(f"{file}.map").read_bytes())
    differences = 0
    for i, (line, column, *expected) in enumerate(rows):
        place = found.place[i].tolist()
        said = [sourcemap.source_path(table, place[0]), *place[1:3], table.name(place[3])]
        if (said if place[0] >= 0 else [None] * 4) == expected:
            continue
        differences += 1
        at = int(found.segment[i])
        token = cache.lookup(line + 1, column + 1, 0)
        assert said[:3] == [token.src, token.line - 1, token.col - 1]
        assert table.column[at] == column == table.column[at - 1], (line, column)
        others = table.place[(table.column == column).nonzero()[0]].tolist()
        assert expected in [[sourcemap.source_path(table, o[0]), *o[1:3], table.name(o[3])] for o in others]
    assert differences == duplicates


@pytest.mark.skipif(not JIT, reason="too much for an interpreter")
@pytest.mark.parametrize("file", ["preact__preact.mjs", "rxjs__rxjs.umd.min.js", "turbopack-prod__page.js"])
def test_every_segment_equals_the_peers(maps: Path, file: str) -> None:
    data = (maps / "real" / f"{file}.map").read_bytes()
    table = sourcemap.read(data)
    lines = np.repeat(table.lines, np.diff(table.first)).tolist()
    ours = [
        (line, column, sourcemap.source_path(table, place[0]), *place[1:3], table.name(place[3]))
        for line, column, place in zip(lines, table.column.tolist(), table.place.tolist(), strict=True)
    ]
    theirs = [(t.dst_line, t.dst_col, t.src, t.src_line, t.src_col, t.name) for t in peer.loads(data.decode())]
    unmapped = [(a, b, None, -1, -1, None) if c is None else (a, b, c, *d) for a, b, c, *d in theirs]
    assert sorted(ours, key=repr) == sorted(unmapped, key=repr)


def test_what_symbolic_expects(maps: Path) -> None:
    """Of its expectations the positions and source lines; names come from scopes of the generated code."""
    cases = json.loads((maps / "symbolic/expected.json").read_text())["cases"]
    checked = 0
    for case in cases:
        table = sourcemap.read((maps / "symbolic" / case["map"]).read_bytes())
        for line, column, *expected in case["rows"]:
            place = answer(table, line, column)
            wanted = [text or None for text in expected[:1]] + expected[1:3]  # Null sources are "" in its API.
            assert list(place[: len(wanted)]) == wanted
            checked += 1
        for line, column, text in case.get("line_contents", ()):
            (at,) = look_up(table, [line], [column]).place.tolist()
            assert sourcemap.source_lines(table, at[0], at[1], 1) == [text.rstrip("\n")]
    assert checked > 10


# --- React Native ---------------------------------------------------------------------------------------------------


def named(table: SourceMapTable, line: int, column: int) -> tuple[Any, ...]:
    """Return source, line (0-based), column, name of the segment and name of the function."""
    found = look_up(table, [line], [column])
    functions = sourcemap.functions(table)
    (index,) = look_up_functions(functions, found.place).tolist()
    return (*answer(table, line, column), functions.name(index) if found.state[0] == MAPPED else None)


def test_hermes_and_metro_maps(maps: Path) -> None:
    """MANIFEST.md has the places, from rust-sourcemap's tests."""
    hermes = sourcemap.read((maps / "rust-sourcemap/react-native-hermes/output.map").read_bytes())
    metro = sourcemap.read((maps / "rust-sourcemap/react-native-metro/output.js.map").read_bytes())
    for table, line, column, expected in (
        (hermes, 0, 11939, ("module.js", 1, 10, "foo")),
        (hermes, 0, 11857, ("input.js", 2, 0, "<global>")),
        (hermes, 0, 11947, ("module.js", 1, 4, "foo")),
        (metro, 1288, 10, ("module.js", 1, 10, "foo")),
        (metro, 1279, 18, ("input.js", 2, 0, "<global>")),
    ):
        source, *rest, _, name = named(table, line, column)
        assert (source.rpartition("/")[2], *rest, name) == expected


def lookup_file(table: SourceMapTable, file: str, line: int, column: int) -> tuple[Any, ...]:
    """Look up a frame of a RAM bundle or segment."""
    found = sourcemap.module_of(file.rpartition("/")[2])
    if found is not None:
        segment, module = found
        if segment is not None:
            data = sourcemap.segment(table, segment)
            if data is None:
                return (None,) * 5
            table = sourcemap.read(data)
        if module is not None:
            line += sourcemap.module_line(table, module) or 0
    return named(table, line, column)


def snapshots(maps: Path) -> dict[str, str]:
    text = (maps / "metro-symbolicate/__snapshots__/symbolicate-test.js.snap").read_text()
    return dict(re.findall(r"^exports\[`(.*?) 1`\] = `\n(.*?)\n`;$", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    ("stack", "map_file", "title", "use_functions"),
    [
        ("testfile.stack", "testfile.js.map", "symbolicating a stack trace", True),
        (
            "testfile.ram.stack",
            "testfile.ram.js.map",
            "symbolicating a stack trace with a segmented RAM bundle map",
            True,
        ),
        (
            "with-function-map.stack",
            "with-function-map.js.map",
            "symbolicating a stack trace with a function map",
            True,
        ),
        (
            "with-function-map.stack",
            "with-function-map.js.map",
            "symbolicating a stack trace ignoring a function map",
            False,
        ),
    ],
)
def test_metros_stacks(maps: Path, stack: str, map_file: str, title: str, use_functions: bool) -> None:
    folder = maps / "metro-symbolicate/__fixtures__"
    table = sourcemap.read((folder / map_file).read_bytes())
    expected = [line.removeprefix("global ") for line in snapshots(maps)[title].strip('"').split("\n") if ":" in line]
    found = []
    for text in (folder / stack).read_text().splitlines():
        match = re.fullmatch(r"(?:.*@)?(.+?):(\d+):(\d+)", text)
        if match is None:
            continue
        source, line, _, name, function = lookup_file(table, match[1], int(match[2]) - 1, int(match[3]))
        name = (function if use_functions else None) or name
        found.append(f"{source}:{line + 1}:{name or 'null'}")
    assert found == [line for line in expected if not line.startswith("null")]


@pytest.mark.parametrize(
    ("stack", "map_file", "title"),
    [
        ("hermesStackTrace.json", "hermes.js.hbc.map", "symbolicating a hermes stack trace"),
        ("hermesStackTraceCJS.json", "hermescjs.js.hbc.map", "symbolicating a hermes stack trace CJS"),
        (
            "hermesStackTraceCJS-SegmentID.json",
            "hermescjs.js.hbc.map",
            "symbolicating a hermes stack trace CJS with SegmentID",
        ),
    ],
)
def test_hermes_crashes(maps: Path, stack: str, map_file: str, title: str) -> None:
    folder = maps / "metro-symbolicate/__fixtures__"
    main = sourcemap.read((folder / map_file).read_bytes())
    text = snapshots(maps)[f"hermes-crash option {title}"]
    rows = re.findall(r'"column": (.*?),\s+"functionName": (.*?),\s+"isIgnored": false,(.*?)\}', text, re.DOTALL)
    expected = [(*row[:2], *re.findall(r'"(?:line|name|source)": (.*?),\n', row[2])) for row in rows]
    found = []
    for frame in json.loads((folder / stack).read_text())["callstack"]:
        if frame.get("NativeCode"):
            continue
        table: SourceMapTable | None = main
        segment = frame.get("SegmentID", frame.get("CJSModuleOffset", 0))
        module = sourcemap.module_of(frame["SourceURL"].rpartition("/")[2])
        if "CJS" not in stack and module is not None and module[0] is not None:
            data = sourcemap.segment(main, module[0])
            table = sourcemap.read(data) if data is not None else None
        place: tuple[Any, ...] = (None,) * 5
        if table is not None:
            column = sourcemap.bytecode_column(table, segment, frame["FunctionID"], frame["ByteCodeOffset"])
            assert column is not None
            place = named(table, segment, column)
        source, line, original, name, function = place
        found.append(
            tuple(json.dumps(v) for v in (original, function, line if line is None else line + 1, name, source))
        )
    assert found == expected


def test_ignored_sources(maps: Path) -> None:
    folder = maps / "metro-symbolicate/__fixtures__"
    table = sourcemap.read((folder / "with-ignore-list.js.map").read_bytes())
    found = look_up(table, [426, 2], [174, 0])
    assert [bool(table.ignored[source]) for source in found.place[:, 0]] == [False, True]
