"""Errors thrown by bundles of our own sources, in Node and Chromium, against the same errors of the sources themselves.

The truth is what each engine says where the sources run as they are: which functions, and where. A minified call may be
at another token than the source's (swc writes ``throw RangeError()`` without ``new``), and maps know no more than their
segments: another reader of source maps gives the same places, and MISPLACED counts the frames of which a map has not
the truth's line or column.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import sourcemap as peer

from deadreckon.engine import Engine
from deadreckon.reports.javascript import parse_stack

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.event import Frame

ENGINES = ("node", "chromium")
BUNDLERS = ("esbuild", "esbuild-es2016", "webpack", "rollup", "swc")
HOME = re.compile("/srv/shop/|https://shop.example/")
MISPLACED = {
    "esbuild": (0, 6),
    "esbuild-es2016": (0, 6),
    "webpack": (5, 12),
    "rollup": (5, 12),
    "swc": (4, 19),
}
"""Frames whose line, and whose line or column, no reader of the map can know: terser has no segments for ``await``."""
ASYNCHRONOUS = {"async function", "async arrow", "async generator", "async method", "promise callback"}
RENAMED = {"#sign": "sign_fn"}
"""What esbuild calls a private method, also in the map's names, for engines without them."""
LOADING = {"loading", "this.parsed"}
"""What functions without a name of their own are handed to, or assigned."""


def thrown(fixtures: Path, engine: str, name: str) -> dict[str, dict[str, Any]]:
    found = json.loads((fixtures / f"javascript/stacks/{engine}-{name}.json").read_text(encoding="utf-8"))
    return {each["scenario"]: each for each in found["thrown"]}


def true_frames(error: dict[str, Any]) -> list[Frame]:
    frames = parse_stack(error["stack"], error["name"], error["message"])
    return [frame for frame in frames if HOME.search(frame.abs_path or "")]


def last(name: str) -> str:
    return name.rpartition(" ")[2].rpartition(".")[2]


class Bundle:
    """A bundle's frames, mapped, and what the other reader says of where they were."""

    def __init__(self, folder: Path) -> None:
        self.index = peer.loads((folder / "app.js.map").read_text(encoding="utf-8"))

    def place(self, line: int, column: int) -> tuple[str, int, int]:
        token = self.index.lookup(line=line - 1, column=column - 1)
        return token.src.rpartition("/")[2], token.src_line + 1, token.src_col + 1


def mapped(engine: Engine, fixtures: Path, error: dict[str, Any]) -> list[Frame]:
    data = json.dumps({key: error[key] for key in ("name", "message", "stack")}).encode()
    event = engine.process(data, sourcemaps=[str(fixtures / "javascript")])
    frames = (event.exceptions or [])[0].frames or []
    return [frame for frame in frames if frame.origin is not None or HOME.search(frame.abs_path or "")]


@pytest.mark.parametrize("bundler", BUNDLERS)
@pytest.mark.parametrize("browser", ENGINES)
def test_every_frame_of_every_error(fixtures: Path, browser: str, bundler: str) -> None:
    truth, found = thrown(fixtures, browser, "truth"), thrown(fixtures, browser, bundler)
    assert len(found) == len(truth) == 26
    bundle, engine = Bundle(fixtures / "javascript" / bundler), Engine()
    sources = {
        path.name: path.read_text(encoding="utf-8").split("\n") for path in (fixtures / "javascript/src").iterdir()
    }
    lines = places = compared = 0
    for scenario, error in found.items():
        wanted, ours = true_frames(truth[scenario]), mapped(engine, fixtures, error)
        if bundler == "esbuild-es2016" and scenario in ASYNCHRONOUS:
            # Generators run by a function of esbuild's, of which the map has nothing; and awaiting is lost on it.
            assert all(frame.origin or why(frame) == "before_first_mapping" for frame in ours)
            ours = [frame for frame in ours if frame.origin]
            wanted = wanted[: len(ours)]
        elif len(ours) == len(wanted) + 1:
            # The function that a bundle is in, and in Node the module.
            assert ours.pop().function in {None, "Object.<anonymous>"}
        assert len(ours) == len(wanted), scenario
        for at, (frame, true) in enumerate(zip(ours, wanted, strict=True)):
            assert frame.origin is not None
            where = (frame.filename or "").rpartition("/")[2], frame.lineno, frame.colno
            assert where == bundle.place(frame.origin["lineno"], frame.origin["colno"])
            assert (true.abs_path or "").endswith("/" + where[0]), scenario
            compared += 1
            lines += frame.lineno != true.lineno
            places += where[1:] != (true.lineno, true.colno)
            called = named_at(sources, wanted[at + 1]) if at + 1 < len(wanted) else None
            assert is_right(frame, true, called), (scenario, frame.function, true.function)
            assert frame.context_line is not None
            assert frame.context_line.strip() == sources[where[0]][(frame.lineno or 0) - 1].strip()
    assert compared > 90
    assert (lines, places) == MISPLACED[bundler]


def why(frame: Frame) -> str | None:
    return ((frame.details or {}).get("source_map") or {}).get("state")


def named_at(sources: dict[str, list[str]], frame: Frame) -> str | None:
    """Return the identifier where a frame calls, as its source has it."""
    text = sources[(frame.abs_path or "").rpartition("/")[2]][(frame.lineno or 0) - 1][(frame.colno or 0) - 1 :]
    match = re.match(r"[\w$]+", text)
    return match[0] if match else None


def is_right(frame: Frame, true: Frame, called: str | None) -> bool:
    """Tell whether a function's name is the source's; one without a name may be called what its caller calls it."""
    if true.function is None or true.function == "Object.<anonymous>":
        return frame.function in {None, "Object.<anonymous>", called, *LOADING}
    name, _, alias = true.function.rstrip("]").partition(" [as ")
    return frame.function is not None and last(frame.function) in {last(name), alias, RENAMED.get(name)}
