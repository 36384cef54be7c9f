from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import Config, SymbolLimits
from deadreckon.errors import ConfigError
from deadreckon.model.event import Frame
from deadreckon.symbolicate import source
from deadreckon.symbolicate.source import SourceContext
from synth.bundle import bundle

if TYPE_CHECKING:
    from pathlib import Path

ID = "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"
TEXT = "".join(f"line {n}\n" for n in range(1, 21))


def context(
    path: str, line: int | None, roots: list[Path], remap: list[str] | None = None, bundles: Any = None, lines: int = 5
) -> Frame:
    frame = Frame(status="symbolicated", abs_path=path, lineno=line, debug_id=ID)
    found = SourceContext([str(r) for r in roots], remap or (), lines)
    found.add([frame], {ID: [str(b) for b in bundles]} if bundles else {})
    return frame


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root with src/app/main.c and, outside of it, secret.c."""
    folder = tmp_path / "root"
    (folder / "src/app").mkdir(parents=True)
    (folder / "src/app/main.c").write_text(TEXT)
    (tmp_path / "secret.c").write_text("secret\n" * 20)
    return folder


def test_lines_around(root: Path) -> None:
    frame = context("/src/app/main.c", 10, [root])
    assert frame.pre_context == [f"line {n}" for n in range(5, 10)]
    assert frame.context_line == "line 10"
    assert frame.post_context == [f"line {n}" for n in range(11, 16)]


@pytest.mark.parametrize(
    ("line", "before", "after"), [(1, 0, 3), (2, 1, 3), (19, 3, 1), (20, 3, 0)], ids=["first", "second", "19", "last"]
)
def test_ends_of_a_file(root: Path, line: int, before: int, after: int) -> None:
    frame = context("/src/app/main.c", line, [root], lines=3)
    assert (len(frame.pre_context or []), len(frame.post_context or [])) == (before, after)
    assert frame.context_line == f"line {line}"


@pytest.mark.parametrize("line", [0, 21, 1 << 40, -1, None])
def test_no_such_line(root: Path, line: int | None) -> None:
    frame = context("/src/app/main.c", line, [root])
    assert (frame.pre_context, frame.context_line, frame.post_context) == (None, None, None)


@pytest.mark.parametrize(
    ("path", "remap"),
    [
        ("/src/app/main.c", []),
        ("src/app/main.c", []),
        ("//src//app/./main.c", []),
        (r"C:\src\app\main.c", []),
        ("C:/src/app/main.c", []),
        ("/builds/7/src/app/main.c", ["/builds/7=>"]),
        ("/builds/7/app/main.c", ["/nothing=>/x", "/builds/7=>src", "/builds=>wrong"]),
        ("/builds/7/app/main.c", ["/builds/7/=>src/"]),
        ("/builds/7/app/main.c", ["/builds/7=>{root}/src"]),
        (r"D:\Builds\X\app\main.c", [r"d:\builds\x=>src"]),
        (r"D:\Builds\X\app\main.c", ["D:/Builds/x=>{root}/src"]),
        ("D:/Builds/İ/app/main.c", ["d:/builds/İ=>src"]),
        (r"\\server\share\app\main.c", [r"\\SERVER\share=>src"]),
        ("/elsewhere.c", ["/elsewhere.c=>src/app/main.c"]),
        ("{root}/src/app/main.c", []),
    ],
)
def test_paths_and_rules(root: Path, path: str, remap: list[str]) -> None:
    rules = [rule.format(root=root) for rule in remap]
    assert context(path.format(root=root), 3, [root], rules).context_line == "line 3"


@pytest.mark.parametrize(
    ("path", "remap"),
    [
        ("/elsewhere/src/app/main.c", []),
        ("/app/main.c", []),
        ("main.c", []),
        ("/builds2/app/main.c", ["/builds=>src"]),
        ("/src/APP/main.c", []),
        ("/src/app", []),
        ("/", []),
        ("", []),
        ("/src/app/main.c\0", []),
        ("/" + "x" * 5000, []),
        ("/" + "x" * 300, []),
    ],
)
def test_no_part_of_a_path_is_guessed(root: Path, path: str, remap: list[str]) -> None:
    assert context(path, 3, [root], remap).context_line is None


@pytest.mark.parametrize(
    "path",
    ["../secret.c", "/../secret.c", "/src/../../secret.c", r"C:\..\secret.c", "{outside}", "/link/secret.c", "/file.c"],
)
def test_nothing_outside_of_the_root_is_read(root: Path, tmp_path: Path, path: str) -> None:
    (root / "link").symlink_to(tmp_path)
    (root / "file.c").symlink_to(tmp_path / "secret.c")
    assert context(path.format(outside=tmp_path / "secret.c"), 3, [root]).context_line is None
    rules = ["/=>../", "/src=>..", f"/x=>{tmp_path}"]
    assert context("/x/secret.c", 3, [root], rules).context_line is None
    assert context("/src/secret.c", 3, [root], rules).context_line is None


def test_links_within_the_root_and_to_it(root: Path, tmp_path: Path) -> None:
    (root / "alias").symlink_to("src")
    (tmp_path / "link").symlink_to(root)
    assert context("/alias/app/main.c", 3, [root]).context_line == "line 3"
    assert context("/src/app/main.c", 3, [tmp_path / "link"]).context_line == "line 3"
    assert context(f"{tmp_path}/link/src/app/main.c", 3, [tmp_path / "link"]).context_line == "line 3"


def test_roots_in_their_order(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "src/app").mkdir(parents=True)
    (other / "src/app/main.c").write_text("other\n" * 9)
    (other / "src/more.c").write_text("more\n" * 9)
    assert context("/src/app/main.c", 3, [root, other]).context_line == "line 3"
    assert context("/src/app/main.c", 3, [other, root]).context_line == "other"
    assert context("/src/more.c", 3, [root, other]).context_line == "more"
    assert context("/src/app/main.c", 3, [tmp_path / "missing"]).context_line is None


def test_files_that_are_no_files(root: Path) -> None:
    os.mkfifo(root / "pipe.c")
    (root / "dir.c").mkdir()
    for name in ("/pipe.c", "/dir.c"):
        assert context(name, 1, [root]).context_line is None


def test_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "long.c").write_bytes("é".encode() * 100_000 + b"\nshort\n")
    frame = context("/long.c", 1, [root])
    assert frame.context_line == "é" * 1024
    monkeypatch.setattr(source, "_MAX_FILE", 100_000)
    assert context("/long.c", 1, [root]).context_line is None
    monkeypatch.setattr(source, "_MAX_FILES", 1)
    frames = [
        Frame(status="symbolicated", abs_path=p, lineno=1) for p in ("/src/app/main.c", "/long.c", "/src/app/main.c")
    ]
    SourceContext([str(root)]).add(frames, {})
    assert [f.context_line for f in frames] == ["line 1", None, "line 1"]


@pytest.mark.parametrize(
    "data",
    [
        "á\r\nb\r\n".encode(),
        "\ufeffá\nb".encode(),
        "á\r\nb".encode("utf-16"),
        "\ufeffá\nb".encode("utf-16-be"),
    ],
    ids=["CRLF", "UTF-8 with mark", "UTF-16", "UTF-16 big-endian"],
)
def test_encodings(root: Path, data: bytes) -> None:
    (root / "x.c").write_bytes(data)
    frame = context("/x.c", 1, [root])
    assert (frame.context_line, frame.post_context) == ("á", ["b"])


def test_bytes_that_are_no_text(root: Path) -> None:
    (root / "x.c").write_bytes(b"caf\xe9\n")
    assert context("/x.c", 1, [root]).context_line == "caf\ufffd"


def test_bundles_come_first(root: Path, tmp_path: Path) -> None:
    packed = tmp_path / "app.src.zip"
    packed.write_bytes(bundle({"/src/app/main.c": b"bundled\n" * 9, r"C:\x\Y.cpp": b"windows\n"}, ID))
    assert context("/src/app/main.c", 3, [root], bundles=[packed]).context_line == "bundled"
    assert context("/src/app/main.c", 15, [root], bundles=[packed]).context_line == "line 15", "shorter than its line"
    assert context(r"c:\X\y.cpp", 1, [], bundles=[packed]).context_line == "windows"
    assert context("/src/app/other.c", 1, [root], bundles=[packed]).context_line is None
    packed.write_bytes(b"SYSB damaged")
    assert context("/src/app/main.c", 3, [root], bundles=[packed, tmp_path / "none"]).context_line == "line 3"


def test_off_by_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", None)
    assert context(str(root / "src/app/main.c"), 3, []).context_line is None


def test_what_a_report_has_stays(root: Path) -> None:
    frame = Frame(status="symbolicated", abs_path="/src/app/main.c", lineno=3, context_line="its own")
    SourceContext([str(root)]).add([frame], {})
    assert (frame.context_line, frame.pre_context) == ("its own", None)


@pytest.mark.parametrize("rule", ["/a", "=>/b", "  =>x", ""])
def test_rules_of_another_form(rule: str) -> None:
    with pytest.raises(ConfigError, match="prefix=>prefix"):
        SourceContext([], [rule])
    with pytest.raises(ConfigError, match="source_remap"):
        SymbolLimits(source_remap=(rule,))


@pytest.mark.parametrize("how", ["root", "bundle"])
def test_through_the_engine(fixtures: Path, tmp_path: Path, how: str) -> None:
    folder = fixtures / "linux/x86_64/pie-O2"
    crash, debug = folder / "dumps/bus.dmp", str(folder / "crashy.debug")
    text = (fixtures / "src/modes_stack.c").read_bytes()
    symbols, limits = [debug, str(folder / "crashy")], SymbolLimits()
    if how == "root":
        limits = SymbolLimits(source_roots=(str(fixtures / "src"),), source_remap=("/deadreckon/fixtures=>",))
    else:
        packed = tmp_path / "crashy.src.zip"
        packed.write_bytes(bundle({"/deadreckon/fixtures/modes_stack.c": text}, ID))
        symbols.append(str(packed))
    with Engine(Config(symbols=limits)) as engine:
        event = engine.process(crash, symbols=symbols)
    (thread,) = [t for t in event.threads or [] if t.crashed]
    (frame, *_) = thread.frames or []
    assert frame.filename == "modes_stack.c"
    assert frame.lineno is not None
    lines = text.decode().splitlines()
    assert frame.context_line == lines[frame.lineno - 1]
    assert frame.pre_context == lines[frame.lineno - 6 : frame.lineno - 1]
    assert frame.post_context == lines[frame.lineno : frame.lineno + 5]
    assert not [d for d in event.diagnostics or [] if d.code in {"symbols_malformed", "symbols_mismatch"}]
