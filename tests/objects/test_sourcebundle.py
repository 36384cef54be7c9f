from __future__ import annotations

import io
import random

import pytest

from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed
from deadreckon.objects import sourcebundle
from deadreckon.objects.sourcebundle import SourceBundle, same_path
from synth.bundle import bundle

FILES = {"/src/a.c": b"int a;\n", r"C:\Src\b.cpp": b"int b;\n"}


def test_files_by_their_paths() -> None:
    found = SourceBundle(io.BytesIO(bundle(FILES)))
    assert len(found) == 2
    assert found.source("/src/a.c", 100) == b"int a;\n"
    assert found.source("/SRC/a.c", 100) is None
    assert found.source("c:/src/B.CPP", 100) == b"int b;\n"
    assert found.source("manifest.json", 100) is None
    with pytest.raises(LimitExceeded):
        found.source("/src/a.c", 3)


def test_what_is_no_source_is_left_out() -> None:
    data = bundle({}, listed={"x": {"type": "minified_source", "path": "/a.js"}, "y": 7, "z": {"path": 8}})
    assert len(SourceBundle(io.BytesIO(data))) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SYSB",
        b"PK\3\4" + b"\0" * 100,
        bundle(FILES)[:-30],
        bundle(FILES).replace(b"manifest.json", b"manifest.jsox"),
    ],
)
def test_not_a_bundle(data: bytes) -> None:
    with pytest.raises(Malformed, match="source bundle"):
        SourceBundle(io.BytesIO(data))


def test_a_directory_that_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sourcebundle, "_MAX_DIRECTORY", 100)
    with pytest.raises(LimitExceeded, match="directory"):
        SourceBundle(io.BytesIO(bundle(FILES)))


def test_mutants() -> None:
    good = bundle(FILES)
    rng = random.Random(4)
    answers = 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = SourceBundle(io.BytesIO(bytes(data)))
            answers += found.source("/src/a.c", 100) == b"int a;\n"
        except DeadreckonError:
            pass
    assert answers > 50


def test_paths() -> None:
    assert same_path(r"C:\A\b.C") == "c:/a/b.c"
    assert same_path(r"\\Server\Share\x") == "//server/share/x"
    assert same_path("/A/b") == "/A/b"
    assert len(same_path("C:/İ")) == 4
