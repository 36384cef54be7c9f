"""Files named ``.btt``: told by their content, converted where the user says so, and never made up."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import random
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine
from deadreckon.config import BttConfig, Config, ReportLimits, load
from deadreckon.errors import ConfigError, Unsupported
from deadreckon.reports import btt
from synth.backtrace import report as backtrace_report
from synth.snapshot import pack, report

if TYPE_CHECKING:
    from deadreckon.model.event import Event

JSON = json.dumps(backtrace_report(lang="python")).encode()
OPAQUE = b"\x93BTR" + random.Random(0).randbytes(5000)
DUMP = Path(__file__).parents[2] / "native_fixtures/linux/x86_64/pie-O2/dumps/templates.dmp"


def archived(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(name, content)
    return out.getvalue()


def events(data: bytes, name: str = "crash.btt", kind: str | None = None, config: Config | None = None) -> list[Event]:
    with Engine(config) as engine:
        return list(engine.process_all(data, name=name, kind=kind))


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (JSON, "backtrace-json"),
        (b"\xef\xbb\xbf \n" + JSON, "backtrace-json"),
        (gzip.compress(JSON), "backtrace-json"),
        (lzma.compress(JSON), "backtrace-json"),
        (zipped("x.json", JSON), "backtrace-json"),
        (pack(report()), "btt"),
        (gzip.compress(pack(report())), "btt"),
        (zipped("x.btt", pack(report())), "btt"),
        (archived(a_log=b"text", x_btt=pack(report())), "btt"),
        (DUMP.read_bytes(), "minidump"),
    ],
    ids=[f"{n}" for n in range(10)],
)
def test_content_decides(data: bytes, form: str) -> None:
    for kind in (None, "btt"):
        for name in ("crash.btt", "CRASH.BTT", "stdin"):
            (event,) = events(data, name, kind)
            assert event.source.format == form
            assert event.status in {"ok", "degraded"}
            assert any(t.frames for t in event.threads or ())


@pytest.mark.parametrize(
    "data",
    [
        OPAQUE,
        b"",
        b"\0" * 100,
        b"just text\n" * 10,
        b"{}",
        b'{"terrain": 1}',
        b'{"broken',
        b"\x7fELF\2\1\1" + bytes(9) + b"\2\0" + bytes(100),
        (DUMP.parent.parent / "crashy").read_bytes()[:4096],
        zipped("readme.txt", b"no crash"),
        gzip.compress(OPAQUE),
        gzip.compress(OPAQUE)[:-100],
        archived(a_txt=b"x", b_txt=b"y"),
        b"PK\3\4" + bytes(100),
    ],
    ids=[f"{n}" for n in range(14)],
)
def test_anything_else_is_unsupported(data: bytes) -> None:
    for name, kind in (("crash.btt", None), ("blob", "btt")):
        (event,) = events(data, name, kind)
        assert event.status == "unsupported"
        assert event.source.format == "btt"
        inner = event.source.container is not None
        told = OPAQUE[: event.source.size] if inner else data  # Of a compressed file cut short, the beginning.
        assert (event.source.size, event.source.sha256) == (len(told), hashlib.sha256(told).hexdigest())
        assert event.event_id == hashlib.sha256(told).hexdigest()[:32]
        assert event.threads is None
        assert event.exceptions is None
        assert event.modules is None
        *before, problem = event.diagnostics or []
        assert {d.code for d in before} <= {"archive_damaged"}
        assert (problem.code, problem.severity) == ("unsupported", "error")
        assert f"{len(told)} bytes, SHA-256 {hashlib.sha256(told).hexdigest()}" in (problem.message or "")
        assert "no public layout" in (problem.message or "")


def test_under_another_name_it_is_unknown() -> None:
    for name, kind in (("crash.bin", None), ("crash.btt.txt", None)):
        (event,) = events(OPAQUE, name, kind)
        assert event.status == "unreadable"
    (event,) = events(OPAQUE, "crash.btt", "minidump")
    assert (event.status, event.source.format) == ("unreadable", "minidump")


def test_in_an_archive() -> None:
    (one,) = events(archived(a_btt=OPAQUE, notes_txt=b"x"), "crashes.tar")
    assert (one.status, one.source.name, one.source.container) == ("unsupported", "a.btt", ["crashes.tar"])
    assert [e.source.name for e in events(archived(a_btt=OPAQUE, b_btt=b"zzzz"), "crashes.tar")] == ["a.btt", "b.btt"]
    # Beside a crash it is a file that came along.
    (event,) = events(archived(a_btt=OPAQUE, crash_dmp=DUMP.read_bytes()), "crashes.tar")
    assert event.source.format == "minidump"
    assert [(a.name, a.size) for a in event.attachments or ()] == [("a.btt", len(OPAQUE))]


def test_the_reader_alone() -> None:
    limits = ReportLimits()
    assert btt.read(JSON, limits).format == "backtrace-json"
    assert btt.read(pack(report()), limits).format == "btt"
    with pytest.raises(Unsupported, match="beginning with 93 42 54 52"):
        btt.read(OPAQUE, limits)


# -- converters -------------------------------------------------------------------------------------------------------


def with_converter(tmp_path: Path, script: str, **changes: Any) -> Config:
    """Return settings with a Python program as converter."""
    program = tmp_path / "convert.py"
    program.write_text("import gzip, os, sys, time\nsource, target = sys.argv[1:]\n" + script)
    command = (sys.executable, str(program), "{input}", "{output}")
    return Config(store=str(tmp_path / "store"), btt=BttConfig(command, **changes))


def test_what_a_converter_makes_is_read_like_any_crash(tmp_path: Path) -> None:
    """Here it reads a made-up format: the letters of a JSON report, each one higher."""
    script = "text = bytes(b - 1 for b in open(source, 'rb').read())\nopen(target, 'wb').write(gzip.compress(text))"
    config = with_converter(tmp_path, script)
    for name, kind in (("crash.btt", None), ("X.BTT", None), ("blob", "btt")):
        (event,) = events(bytes(b + 1 for b in JSON), name, kind, config)
        assert (event.status, event.source.format) == ("ok", "backtrace-json")
        assert event.source.container == [name, "output"]
        assert [(d.code, d.severity) for d in event.diagnostics or ()] == [("converted", "info")]


def test_a_converter_is_not_asked_for_what_is_known(tmp_path: Path) -> None:
    config = with_converter(tmp_path, f"open({str(tmp_path / 'asked')!r}, 'w')")
    for data in (JSON, pack(report()), gzip.compress(JSON)):
        (event,) = events(data, config=config)
        assert event.status == "ok"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("sys.exit('no licence')", "ended with status 1; it said: no licence"),
        ("open(target, 'wb').write(open(source, 'rb').read())", "no reader recognises it"),
        ("pass", "left no output"),
        ("open(target, 'w').truncate(1 << 22)", "wrote more"),
        ("time.sleep(60)", "took longer"),
    ],
)
def test_a_converter_that_fails(tmp_path: Path, script: str, why: str) -> None:
    config = with_converter(tmp_path, script, converter_seconds=2.0, converter_max_bytes=1 << 20)
    (event,) = events(OPAQUE, config=config)
    assert (event.status, event.source.sha256) == ("unsupported", hashlib.sha256(OPAQUE).hexdigest())
    assert event.threads is None
    failed, unsupported = event.diagnostics or []
    assert failed.code == "converter_failed"
    assert why in (failed.message or "")
    assert unsupported.code == "unsupported"


def test_what_a_converter_writes_goes_away(tmp_path: Path) -> None:
    config = with_converter(tmp_path, "open('left', 'w'); open(target, 'wb').write(b'{')")
    events(OPAQUE, config=config)
    assert not [p for p in tmp_path.rglob("*") if p.name in {"left", "output", "input.btt"}]


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[btt]\nconverter = ["tool", "-i", "{input}", "--to={output}"]\nconverter_seconds = 5\n')
    assert load(path, {}).btt == BttConfig(("tool", "-i", "{input}", "--to={output}"), 5.0)
    for text in ('converter = "tool {input} {output}"', 'converter = ["tool", "{input}"]', "convertor = []"):
        path.write_text(f"[btt]\n{text}\n")
        with pytest.raises(ConfigError, match="btt"):
            load(path, {})
