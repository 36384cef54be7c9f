"""Bundles, maps and stacks of the fixtures, damaged: there is an event, with every frame, whatever was damaged."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from deadreckon.engine import Engine
from deadreckon.kernels._jit import JIT
from deadreckon.objects.jsscopes import read_scopes

if TYPE_CHECKING:
    from pathlib import Path

BUNDLERS = ("esbuild", "esbuild-es2016", "webpack", "rollup", "swc")
PIECES = (b'"', b"'", b"`", b"${", b"(", b")", b"{", b"}", b"[", b"/*", b"=>", b"class ", b"\\", b"\xff", b"\0", b";;")
MORE = (
    b"AAAA,",
    b"ggggggB",
    b"9" * 30,
    b"-1",
    b"null",
    b"\n    at ",
    b"@",
    b":1:1",
    b"eval at ",
    b"async ",
    b"\xe2\x80\xa8",
)
EACH = 12 if JIT else 2


def damaged(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 16))):
        at = rng.randrange(len(found) or 1)
        other = rng.randrange(len(found) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            found[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del found[at : at + rng.choice((1, 10, 1000))]
        elif kind == 2:
            found[at:at] = rng.choice(PIECES + MORE) * rng.choice((1, 50))
        elif kind == 3:
            found[at:at] = found[other : other + rng.choice((5, 500))]
        else:
            del found[at + len(found) // 2 :]
    return bytes(found)


@pytest.mark.parametrize("bundler", BUNDLERS)
def test_damaged_bundles(fixtures: Path, tmp_path: Path, bundler: str) -> None:
    rng = random.Random(bundler)
    engine = Engine()
    stacks = json.loads((fixtures / f"javascript/stacks/node-{bundler}.json").read_text(encoding="utf-8"))["thrown"]
    for number in range(EACH):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("app.js", "app.js.map"):
            data = (fixtures / "javascript" / bundler / name).read_bytes()
            (folder / name).write_bytes(damaged(data, rng) if rng.random() < 0.7 else data)
        stack = rng.choice(stacks)["stack"]
        event = engine.process(stack.encode(), kind="javascript", sourcemaps=[str(folder)])
        frames = (event.exceptions or [])[-1].frames or []
        assert len(frames) == stack.count("\n    at ")
        for frame in frames:
            told = frame.origin is not None or (frame.details or {}).keys() & {"source_map", "native", "promise_index"}
            assert told or (frame.abs_path or "").startswith("node:"), frame
        broken = engine.process(damaged(stack.encode(), rng), kind="javascript", sourcemaps=[str(folder)])
        assert broken.status in {"ok", "degraded", "unreadable"}


@pytest.mark.parametrize("bundler", BUNDLERS)
def test_damaged_scripts_have_functions_within_functions(fixtures: Path, bundler: str) -> None:
    rng = random.Random(bundler)
    script = (fixtures / "javascript" / bundler / "app.js").read_bytes()
    for _ in range(EACH):
        found = read_scopes(damaged(script, rng))
        assert (found.at[1:] >= found.at[:-1]).all()
        names = found.names(range(len(found.scopes)), None)
        assert len(names) == len(found.scopes)
        for scope, name in names.items():
            assert not found.names_itself(scope) or name is None or name.text
